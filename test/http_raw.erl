%% A client that sends bytes as they are and reads answers with the packet types of sockets.
-module(http_raw).

-export([connect/1, connect/2, send/2, ask/2, answer/1, answer/2, head/1, part/1, rest/1, ended/1]).
-export([close/1, reset/1, post/1, post/2, get/1]).

-define(WAIT, 10000).

connect(Port) ->
    connect(Port, []).

%% Options of `gen_tcp', or `{tls, Options}' with those of `ssl'.
connect(Port, {tls, Options}) ->
    {ok, Socket} = ssl:connect("localhost", Port, [binary, {active, false} | Options], ?WAIT),
    {ssl, Socket};
connect(Port, Options) ->
    All = [binary, {active, false}, {nodelay, true} | Options],
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, All, ?WAIT),
    {gen_tcp, Socket}.

send({Module, Socket}, Data) -> Module:send(Socket, Data).

%% Sends a request and reads its answer.
ask(Socket, Request) ->
    ok = send(Socket, Request),
    answer(Socket).

%% `{Status, Headers, Body}'; the body is `none' where there is none to be read.
answer(Socket) ->
    answer(Socket, body).

answer(Socket, Has) ->
    {Status, Headers} = head_or_fail(Socket),
    {Status, Headers, body(Has, Status, Headers, Socket)}.

head_or_fail(Socket) ->
    case head(Socket) of
        {Status, Headers} when is_integer(Status) -> {Status, Headers};
        Other -> error({no_answer, Other})
    end.

head(Socket) ->
    ok = packet(http_bin, Socket),
    case recv(Socket, 0) of
        {ok, {http_response, {1, _}, Status, _}} -> {Status, headers(Socket)};
        Other -> Other
    end.

headers(Socket) ->
    case recv(Socket, 0) of
        {ok, {http_header, _, Name, _, Value}} -> [{lower(Name), Value} | headers(Socket)];
        {ok, http_eoh} -> []
    end.

lower(Name) when is_atom(Name) -> lower(atom_to_binary(Name));
lower(Name) -> string:lowercase(Name).

body(no_body, _, _, _) ->
    none;
body(body, Status, _, _) when Status < 200; Status =:= 204; Status =:= 304 ->
    none;
body(body, _, Headers, Socket) ->
    case {lists:keyfind(<<"transfer-encoding">>, 1, Headers), length_of(Headers)} of
        {{_, <<"chunked">>}, none} -> iolist_to_binary(chunks(Socket));
        {false, 0} -> <<>>;
        {false, none} -> rest(Socket);
        {false, Length} ->
            ok = packet(raw, Socket),
            {ok, Body} = recv(Socket, Length),
            Body
    end.

length_of(Headers) ->
    case lists:keyfind(<<"content-length">>, 1, Headers) of
        {_, Length} -> binary_to_integer(Length);
        false -> none
    end.

chunks(Socket) ->
    case part(Socket) of
        done -> [];
        Part when is_binary(Part) -> [Part | chunks(Socket)]
    end.

%% The next chunk of a stream, `done' or `{error, Reason}'.
part(Socket) ->
    ok = packet(line, Socket),
    case recv(Socket, 0) of
        {ok, <<"0\r\n">>} ->
            {ok, <<"\r\n">>} = recv(Socket, 0),
            done;
        {ok, Line} ->
            Size = binary_to_integer(string:trim(Line), 16),
            ok = packet(raw, Socket),
            case recv(Socket, Size + 2) of
                {ok, <<Part:Size/binary, "\r\n">>} -> Part;
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% What comes up to the end of the connection.
rest(Socket) ->
    ok = packet(raw, Socket),
    iolist_to_binary(rest_of(Socket)).

rest_of(Socket) ->
    case recv(Socket, 0) of
        {ok, Data} -> [Data | rest_of(Socket)];
        {error, closed} -> []
    end.

%% Whether the connection has ended, with nothing more to be read.
ended(Socket) ->
    ok = packet(raw, Socket),
    case recv(Socket, 0) of
        {error, Reason} when Reason =:= closed; Reason =:= econnreset -> true;
        Other -> Other
    end.

recv({Module, Socket}, Length) -> Module:recv(Socket, Length, ?WAIT).

%% Of a socket that has been closed nothing can be set; reading tells.
packet(Type, {ssl, Socket}) ->
    _ = ssl:setopts(Socket, [{packet, Type}]),
    ok;
packet(Type, {gen_tcp, Socket}) ->
    _ = inet:setopts(Socket, [{packet, Type}]),
    ok.

close({Module, Socket}) -> Module:close(Socket).

reset({gen_tcp, Socket}) ->
    ok = inet:setopts(Socket, [{linger, {true, 0}}]),
    gen_tcp:close(Socket).

post(Body) -> post("/", Body).

post(Target, Body) ->
    Length = integer_to_list(iolist_size(Body)),
    ["POST ", Target, " HTTP/1.1\r\nhost: localhost\r\ncontent-length: ", Length, "\r\n\r\n", Body].

get(Target) -> ["GET ", Target, " HTTP/1.1\r\nhost: localhost\r\n\r\n"].
