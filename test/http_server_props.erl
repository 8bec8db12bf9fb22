%% @doc Properties of what an MCP server over HTTP decides without sockets.
-module(http_server_props).

-include("props.hrl").

-import(proper_types, [
    binary/0, elements/1, frequency/1, integer/0, integer/2, list/1, oneof/1
]).

-export([
    prop_events_are_kept_within_bounds/0,
    prop_event_ids_come_back/0,
    prop_encoded_headers_come_back/0,
    prop_gate_bears_anything/0,
    prop_era_bears_anything/0,
    prop_every_post_is_answered/0
]).

%% The path of the last property: it keeps what is answered.
-export([reply/4, stream/3, send/2, finish/1, on_gone/2, on_exit/2, handle_info/2]).
-export([handle_request/3]).

-define(REVISIONS, [<<"2026-07-28">>, <<"2025-11-25">>, <<"2025-06-18">>, <<"2025-03-26">>]).
-define(META, "io.modelcontextprotocol/").

%% @doc What is kept is the end of what was added, as much as the bounds allow, and of a stream
%% it is that stream's.
prop_events_are_kept_within_bounds() ->
    ?FORALL(
        {Added, Max, MaxBytes, Stream, After},
        {list({stream(), binary()}), integer(0, 6), integer(0, 40), stream(), integer(0, 10)},
        begin
            Numbered = lists:zip(lists:seq(1, length(Added)), Added),
            Add = fun({N, {S, Data}}, Acc) -> erlmcp_native_http_events:add(S, N, Data, Acc) end,
            New = erlmcp_native_http_events:new(Max, MaxBytes),
            Events = lists:foldl(Add, New, Numbered),
            Expected = [
                {N, Data}
             || {N, {S, Data}} <- kept(lists:reverse(Numbered), Max, MaxBytes, []),
                S =:= Stream,
                N > After
            ],
            Expected =:= erlmcp_native_http_events:since(Stream, After, Events)
        end
    ).

%% @doc Every id is read as what it was made of, and nothing else is read at all.
prop_event_ids_come_back() ->
    ?FORALL(
        {Stream, Count, Garbage},
        {stream(), integer(0, 1000000), binary()},
        begin
            Id = erlmcp_native_http_events:id(Stream, Count),
            {ok, {Stream, Count}} =:= erlmcp_native_http_events:parse(Id) andalso
                case erlmcp_native_http_events:parse(Garbage) of
                    error -> true;
                    {ok, {S, C}} -> erlmcp_native_http_events:id(S, C) =:= Garbage
                end
        end
    ).

%% @doc A value of a header means the same in Base64, and what is refused is so without a crash.
prop_encoded_headers_come_back() ->
    ?FORALL(
        {Text, Garbage},
        {list(integer(0, 16#d7ff)), binary()},
        begin
            Value = unicode:characters_to_binary(Text),
            Encoded = <<"=?base64?", (base64:encode(Value))/binary, "?=">>,
            _ = erlmcp_native_http_mirror:decode(Garbage),
            _ = erlmcp_native_http_mirror:decode(<<"=?base64?", Garbage/binary, "?=">>),
            {ok, Value} =:= erlmcp_native_http_mirror:decode(Encoded)
        end
    ).

%% @doc Whatever the headers say, there is a verdict, and it is none in favour of others.
prop_gate_bears_anything() ->
    ?FORALL(
        {Host, Origin},
        {oneof([binary(), authority()]), oneof([binary(), origin()])},
        begin
            Headers = [{<<"host">>, Host}, {<<"origin">>, Origin}],
            case erlmcp_native_http_gate:check(Headers, [<<"localhost">>], default) of
                ok -> is_local(Host) andalso is_local_origin(Origin);
                {forbidden, Text} -> is_binary(Text)
            end
        end
    ).

%% @doc Whatever a message says of its revision, it is one that is served, or refused.
prop_era_bears_anything() ->
    ?FORALL(
        {Header, Message, Revisions},
        {oneof([none, revision(), binary()]), message(), revisions()},
        case erlmcp_native_http_era:decide(Header, Message, Revisions) of
            {modern, Revision} -> lists:member(Revision, Revisions) andalso Revision =:= Header;
            {legacy, none} -> Header =:= none;
            {legacy, Header} -> lists:member(Header, Revisions);
            {refused, Code, Text, Data} ->
                is_binary(erlmcp_native_http_message:failure(null, Code, Text, Data))
        end
    ).

%% @doc Whatever is posted, there is one answer, and no crash that stands behind it.
prop_every_post_is_answered() ->
    Key = configure(),
    ?FORALL(
        {Headers, Body},
        {list(field()), oneof([json_gen:document(), json_gen:broken(), posted(), binary()])},
        begin
            Request = #{
                method => <<"POST">>,
                path => <<"/mcp">>,
                query => <<>>,
                headers => [{<<"content-type">>, <<"application/json">>} | Headers],
                version => {1, 1},
                scheme => http,
                peername => unnamed,
                body => {complete, iolist_to_binary(Body)}
            },
            {Pid, Monitor} = spawn_monitor(
                erlmcp_native_http_endpoint, serve, [Key, {?MODULE, self()}, Request]
            ),
            receive
                {'DOWN', Monitor, process, Pid, Reason} ->
                    Answers = answers(Pid),
                    Reason =:= normal andalso length(Answers) =:= 1 andalso
                        lists:member(hd(Answers), [200, 202, 400, 404, 406])
            after 10000 -> false
            end
        end
    ).

configure() ->
    {ok, Endpoint} = erlmcp_native_options:endpoint(#{port => 0}),
    Options = #{handler => {?MODULE, none}, allowed_hosts => any, sessions => false},
    {ok, Checked} = erlmcp_native_http_config:check(Endpoint, Options),
    Key = {erlmcp_native_http_config, make_ref()},
    Config = erlmcp_native_http_config:complete(Key, ?MODULE, Checked),
    ok = persistent_term:put(Key, Config#{listener => self()}),
    Key.

answers(Pid) ->
    receive
        {answered, Pid, Status} -> [Status | answers(Pid)]
    after 0 -> []
    end.

reply(Test, Status, Headers, Body) ->
    true = lists:all(fun({Name, Value}) -> iolist_size([Name, Value]) > 0 end, Headers),
    true = iolist_size(Body) >= 0,
    Test ! {answered, self(), Status},
    ok.

stream(Test, Status, _) ->
    Test ! {answered, self(), Status},
    ok.

send(_, _) -> ok.
finish(_) -> ok.
on_gone(_, _) -> ok.
on_exit(_, _) -> ok.
handle_info(_, _) -> unknown.

handle_request(<<"x">>, _, _) -> {reply, #{}};
handle_request(_, #{<<"name">> := _}, #{request := Ref}) ->
    _ = erlmcp_native_http:notify(Ref, <<"n">>, #{}),
    {reply, #{}};
handle_request(_, _, _) -> {error, -32601, <<"no">>}.

%% The references.

kept([{_, {_, Data}} = Event | Older], Max, MaxBytes, Kept) when
    Max > 0, byte_size(Data) =< MaxBytes
->
    kept(Older, Max - 1, MaxBytes - byte_size(Data), [Event | Kept]);
kept(_, _, _, Kept) ->
    Kept.

is_local(Host) ->
    re:run(Host, "^localhost(:|\\z)", [caseless, {capture, none}]) =:= match.

is_local_origin(Origin) ->
    Pattern = "^https?://(localhost|127(\\.[0-9]+){3}|\\[::1\\])(:[0-9]{1,5})?\\z",
    re:run(Origin, Pattern, [caseless, {capture, none}]) =:= match.

%% Generators.

stream() -> {oneof([get, post]), integer(1, 3)}.

authority() ->
    ?LET(
        Parts,
        list(elements([
            <<"localhost">>, <<"LOCALHOST">>, <<".">>, <<":">>, <<"80">>, <<"127.0.0.1">>,
            <<"[::1]">>, <<"evil">>, <<"@">>, <<"/">>, <<" ">>, <<"[">>, <<"]">>
        ])),
        iolist_to_binary(Parts)
    ).

origin() ->
    ?LET(
        {Scheme, Authority},
        {elements([<<"http://">>, <<"https://">>, <<"file://">>, <<>>]), authority()},
        <<Scheme/binary, Authority/binary>>
    ).

revision() -> elements([<<"2024-11-05">>, <<"2030-01-01">> | ?REVISIONS]).

revisions() ->
    ?LET(
        Chosen,
        list(elements(?REVISIONS)),
        case lists:reverse(lists:usort(Chosen)) of
            [] -> ?REVISIONS;
            Revisions -> Revisions
        end
    ).

message() ->
    ?LET(
        {Id, Method, Params},
        {elements([#{}, #{<<"id">> => 1}]), elements([<<"initialize">>, <<"ping">>]), params()},
        maps:merge(Id, maps:merge(#{<<"method">> => Method}, Params))
    ).

params() ->
    frequency([
        {1, elements([#{}, #{<<"params">> => []}, #{<<"params">> => #{<<"_meta">> => 1}}])},
        {1, #{<<"params">> => #{<<"protocolVersion">> => 7}}},
        {4, ?LET(Meta, meta(), #{<<"params">> => #{<<"_meta">> => Meta}})}
    ]).

meta() ->
    ?LET(
        {Version, Capabilities},
        {oneof([none, integer(), revision(), <<"x">>]), elements([none, 1, #{}])},
        maps:from_list(
            [{<<?META, "protocolVersion">>, Version} || Version =/= none] ++
                [{<<?META, "clientCapabilities">>, Capabilities} || Capabilities =/= none]
        )
    ).

field() ->
    oneof([
        {<<"mcp-protocol-version">>, oneof([revision(), binary()])},
        {<<"mcp-method">>, oneof([<<"x">>, <<"tools/call">>, binary()])},
        {<<"mcp-name">>, oneof([<<"x">>, <<"=?base64?eA==?=">>, binary()])},
        {<<"mcp-session-id">>, binary()},
        {<<"accept">>, oneof([<<"*/*">>, <<"application/json, text/event-stream">>, binary()])}
    ]).

posted() ->
    ?LET(
        Messages,
        list(post_message()),
        case Messages of
            [One] -> erlmcp_native_json:encode(One);
            Batch -> erlmcp_native_json:encode(Batch)
        end
    ).

post_message() ->
    ?LET(
        {Id, Method, Params},
        {
            elements([none, 1, <<"a">>, null, 1.5, #{}]),
            elements([none, <<"x">>, <<"initialize">>, <<"tools/call">>, 7]),
            oneof([
                none,
                7,
                [],
                #{<<"name">> => <<"x">>},
                #{<<"name">> => 7, <<"_meta">> => 7},
                ?LET(Meta, meta(), #{<<"name">> => <<"x">>, <<"_meta">> => Meta}),
                ?LET(Meta, meta(), #{<<"_meta">> => Meta, <<"requestId">> => 1})
            ])
        },
        maps:from_list(
            [{<<"jsonrpc">>, <<"2.0">>}] ++
                [{<<"id">>, Id} || Id =/= none] ++
                [{<<"method">>, Method} || Method =/= none] ++
                [{<<"params">>, Params} || Params =/= none]
        )
    ).
