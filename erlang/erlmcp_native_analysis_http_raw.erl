%% @private HTTP as a subject of the analyses with a client that does as little as it can, so that
%% what is measured is the server: a few plain connections on which requests are written and answers
%% read. It can send batches; `connections' in the options says how many there are.
-module(erlmcp_native_analysis_http_raw).

-behaviour(erlmcp_native_analysis_subject).

-export([start/1, stop/1, endpoint/1, open/2, request/3, handle_info/2, close/1, max_clients/1]).

-define(REVISION, <<"2025-03-26">>).
-define(CONNECTIONS, 8).
-define(BUFFER_BYTES, 262144).

-record(raw, {
    idle :: [gen_tcp:socket()],
    %% What is awaited on a connection, and what has come of the answer.
    open = #{} :: #{gen_tcp:socket() => {[pos_integer()], binary()}},
    head = <<>> :: binary(),
    %% Calls that go with the next request.
    batch :: erlmcp_native_analysis_batch:batch(),
    path :: erlmcp_native_path:path(),
    refused = false :: boolean()
}).

-spec start(erlmcp_native_analysis_subject:spec()) ->
    {ok, map()} | {error, erlmcp_native:reason()}.
start(#{tls := Tls}) when Tls =/= false ->
    {error, {option, tls, Tls}};
start(Spec) ->
    erlmcp_native_analysis_http:start(Spec).

-spec stop(map()) -> ok.
stop(Target) ->
    erlmcp_native_analysis_http:stop(Target).

-spec endpoint(map()) -> binary().
endpoint(Target) ->
    erlmcp_native_analysis_http:endpoint(Target).

-spec open(erlmcp_native_analysis_subject:spec(), map()) ->
    {ok, #raw{}} | {error, erlmcp_native_analysis_subject:reason()}.
open(#{options := Options, timeout_ms := TimeoutMs, path := Path, batch := Batch}, #{url := Url}) ->
    {ok, #{origin := #{host := Host, port := Port}, target := Target}} =
        erlmcp_native_http_client_url:parse(Url),
    Begin = [
        [<<"POST ">>, Target, <<" HTTP/1.1\r\nhost: ">>, Host, $:, integer_to_binary(Port)],
        <<"\r\ncontent-type: application/json\r\naccept: application/json, ">>,
        <<"text/event-stream\r\n">>
    ],
    case connected(maps:get(connections, Options, ?CONNECTIONS), Host, Port, TimeoutMs, []) of
        {ok, Sockets} ->
            Raw = #raw{
                idle = Sockets,
                batch = erlmcp_native_analysis_batch:new(Batch),
                path = Path
            },
            initialized(Begin, Raw, TimeoutMs);
        {error, _} = Error ->
            Error
    end.

connected(0, _, _, _, Sockets) ->
    {ok, Sockets};
connected(Left, Host, Port, TimeoutMs, Sockets) ->
    Given = [
        binary,
        {active, false},
        {nodelay, true},
        {recbuf, ?BUFFER_BYTES},
        {buffer, ?BUFFER_BYTES}
    ],
    case gen_tcp:connect(binary_to_list(Host), Port, Given, TimeoutMs) of
        {ok, Socket} ->
            connected(Left - 1, Host, Port, TimeoutMs, [Socket | Sockets]);
        {error, Why} ->
            lists:foreach(fun gen_tcp:close/1, Sockets),
            {error, reason(Why)}
    end.

reason(econnrefused) -> refused;
reason(timeout) -> timeout;
reason(Why) -> {posix, Why}.

%% The session of the first connection is that of all.
initialized(Begin, #raw{idle = [Socket | _] = Sockets} = Raw, TimeoutMs) ->
    Initialize = request_of(Begin, erlmcp_native_analysis_call:initialize(0, ?REVISION)),
    case exchanged(Socket, Initialize, TimeoutMs) of
        {ok, 200, Headers, _} ->
            Session = [[<<"mcp-session-id: ">>, Id, <<"\r\n">>] || Id <- session(Headers)],
            Head = iolist_to_binary([Begin, Session]),
            Confirm = request_of(Head, erlmcp_native_analysis_call:initialized()),
            case exchanged(Socket, Confirm, TimeoutMs) of
                {ok, 202, _, _} ->
                    lists:foreach(fun(S) -> ok = inet:setopts(S, [{active, true}]) end, Sockets),
                    {ok, Raw#raw{head = Head}};
                Other ->
                    given_up(Other, Raw)
            end;
        Other ->
            given_up(Other, Raw)
    end.

given_up(Why, Raw) ->
    ok = close(Raw),
    case Why of
        {ok, Status, _, Body} -> {error, {initialize, {status, Status, Body}}};
        {error, Reason} -> {error, Reason}
    end.

session(Headers) -> [Id || {<<"mcp-session-id">>, Id} <- Headers].

exchanged(Socket, Request, TimeoutMs) ->
    case gen_tcp:send(Socket, Request) of
        ok -> received(Socket, <<>>, TimeoutMs);
        {error, Why} -> {error, reason(Why)}
    end.

received(Socket, Buffer, TimeoutMs) ->
    case answer(Buffer) of
        {Status, Headers, Body} ->
            {ok, Status, Headers, Body};
        more ->
            case gen_tcp:recv(Socket, 0, TimeoutMs) of
                {ok, Data} -> received(Socket, <<Buffer/binary, Data/binary>>, TimeoutMs);
                {error, Why} -> {error, reason(Why)}
            end
    end.

request_of(Head, Body) ->
    Length = integer_to_binary(iolist_size(Body)),
    [Head, <<"content-length: ">>, Length, <<"\r\n\r\n">> | Body].

%% An answer with its length, as all are that are no streams.
answer(Buffer) ->
    case erlang:decode_packet(http_bin, Buffer, []) of
        {ok, {http_response, _, Status, _}, Rest} -> headers(Status, Rest, []);
        {more, _} -> more
    end.

headers(Status, Buffer, Headers) ->
    case erlang:decode_packet(httph_bin, Buffer, []) of
        {ok, {http_header, _, Name, _, Value}, Rest} ->
            headers(Status, Rest, [{name(Name), Value} | Headers]);
        {ok, http_eoh, Rest} ->
            Length = binary_to_integer(proplists:get_value(length, Headers, <<"0">>)),
            case Rest of
                <<Body:Length/binary>> -> {Status, Headers, Body};
                _ -> more
            end;
        {more, _} ->
            more
    end.

name('Content-Length') -> length;
name(Name) when is_binary(Name) -> string:lowercase(Name);
name(_) -> other.

-spec request(#raw{}, pos_integer(), iodata()) -> {ok | {error, busy}, #raw{}}.
request(#raw{batch = Batch} = Raw, Id, Json) ->
    case erlmcp_native_analysis_batch:is_full(Batch) of
        true -> {{error, busy}, Raw#raw{refused = true}};
        false -> {ok, added(erlmcp_native_analysis_batch:add(Id, Json, Batch), Raw)}
    end.

added(Batch, Raw) ->
    case erlmcp_native_analysis_batch:is_full(Batch) of
        true -> flushed(Raw#raw{batch = Batch});
        false -> Raw#raw{batch = Batch}
    end.

flushed(#raw{idle = []} = Raw) ->
    Raw;
flushed(#raw{idle = [Socket | Idle], open = Open, batch = Batch, head = Head} = Raw) ->
    case erlmcp_native_analysis_batch:take(Batch) of
        {{Ids, Body}, Next} ->
            %% Where it fails, the end of the connection says so, too.
            _ = gen_tcp:send(Socket, request_of(Head, Body)),
            Raw#raw{batch = Next, idle = Idle, open = Open#{Socket => {Ids, <<>>}}};
        empty ->
            Raw
    end.

-spec handle_info(term(), #raw{}) -> {[erlmcp_native_analysis_subject:event()], #raw{}} | unknown.
handle_info({tcp, Socket, Data}, #raw{open = Open} = Raw) when is_map_key(Socket, Open) ->
    #{Socket := {Ids, Buffer}} = Open,
    All = <<Buffer/binary, Data/binary>>,
    case answer(All) of
        more -> {[], Raw#raw{open = Open#{Socket := {Ids, All}}}};
        {Status, _, Body} -> answered(Status, Body, Ids, freed(Socket, Raw))
    end;
handle_info({tcp_closed, Socket}, #raw{open = Open, idle = Idle} = Raw) ->
    case is_map_key(Socket, Open) orelse lists:member(Socket, Idle) of
        true -> {[{down, closed}], Raw};
        false -> unknown
    end;
handle_info(Msg, #raw{batch = Batch} = Raw) ->
    case erlmcp_native_analysis_batch:is_flush(Msg, Batch) of
        true -> {[], flushed(Raw)};
        false -> unknown
    end.

freed(Socket, #raw{idle = Idle, open = Open} = Raw) ->
    flushed(Raw#raw{idle = [Socket | Idle], open = maps:remove(Socket, Open)}).

answered(Status, Body, Ids, #raw{refused = Refused, path = Path} = Raw) ->
    Outcomes = outcomes(Status, Body, Path),
    Events = [{answer, Id, maps:get(Id, Outcomes, {error, missing(Status)})} || Id <- Ids],
    {Events ++ [writable || Refused], Raw#raw{refused = false}}.

missing(200) -> no_response;
missing(Status) -> {status, Status}.

outcomes(200, Body, Path) ->
    case erlmcp_native_json:decode(Body, #{path => Path}) of
        {ok, Answers} when is_list(Answers) -> maps:from_list(outcomes(Answers));
        {ok, Answer} -> maps:from_list(outcomes([Answer]));
        {error, _} -> #{}
    end;
outcomes(_, _, _) ->
    #{}.

outcomes(Answers) ->
    [{_, _} = Outcome || Outcome <- lists:map(fun erlmcp_native_analysis_call:outcome/1, Answers)].

-spec close(#raw{}) -> ok.
close(#raw{idle = Idle, open = Open}) ->
    lists:foreach(fun gen_tcp:close/1, Idle ++ maps:keys(Open)).

-spec max_clients(erlmcp_native_analysis_subject:spec()) -> infinity.
max_clients(_) -> infinity.
