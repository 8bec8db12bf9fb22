%% An HTTP server in the hands of a test: what a client asks for reaches the test as messages, and
%% the test says, byte by byte if it likes, what is answered.
-module(http_peer).

-export([listen/0, listen/1, url/1, url/2, origin/1, next/1, next/2, none/2, close/1]).
-export([answer/4, json/2, json/3, accepted/1, stream/1, stream/2, event/2, raw/2]).
-export([finish/1, cut/1, gone/1, header/2, body/1]).

-define(WAIT, 10000).

%% A server that tells the calling process of its requests.
listen() -> listen(#{}).

listen(Options) ->
    {ok, Listen} = gen_tcp:listen(0, [
        binary, {active, false}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}, {backlog, 100}
    ]),
    {ok, Port} = inet:port(Listen),
    Test = self(),
    Ref = make_ref(),
    Pid = spawn_link(fun() -> accept(Listen, Test, Ref) end),
    ok = gen_tcp:controlling_process(Listen, Pid),
    Options#{ref => Ref, port => Port, pid => Pid, listen => Listen}.

url(Peer) -> url(Peer, "/mcp").

url(#{port := Port}, Path) ->
    iolist_to_binary(io_lib:format("http://127.0.0.1:~b~s", [Port, Path])).

origin(Peer) -> url(Peer, "").

close(#{pid := Pid, listen := Listen}) ->
    true = unlink(Pid),
    exit(Pid, kill),
    _ = gen_tcp:close(Listen),
    ok.

%% The next request, whole; that of a method, whatever came before it.
next(#{ref := Ref}) ->
    receive
        {Ref, Request} -> Request
    after ?WAIT -> error({timeout, process_info(self(), messages)})
    end.

next(#{ref := Ref}, Method) ->
    receive
        {Ref, #{method := Method} = Request} -> Request
    after ?WAIT -> error({timeout, Method, process_info(self(), messages)})
    end.

none(#{ref := Ref}, Ms) ->
    receive
        {Ref, Request} -> error({unexpected, Request})
    after Ms -> ok
    end.

header(Name, #{headers := Headers}) ->
    case lists:keyfind(Name, 1, Headers) of
        {_, Value} -> Value;
        false -> none
    end.

body(#{body := Body}) ->
    {ok, Message} = erlmcp_native_json:decode(Body),
    Message.

answer(Request, Status, Headers, Body) ->
    Length = {<<"content-length">>, integer_to_binary(iolist_size(Body))},
    last(Request, [head(Status, [Length | Headers]), Body]).

json(Request, Message) -> json(Request, [], Message).

json(Request, Headers, Message) ->
    Type = {<<"content-type">>, <<"application/json">>},
    answer(Request, 200, [Type | Headers], erlmcp_native_json:encode(Message)).

accepted(Request) -> answer(Request, 202, [], <<>>).

stream(Request) -> stream(Request, []).

stream(Request, Headers) ->
    Type = {<<"content-type">>, <<"text/event-stream">>},
    raw(Request, head(200, [Type, {<<"transfer-encoding">>, <<"chunked">>} | Headers])).

event(Request, Fields) ->
    Text = iolist_to_binary([event(Fields), $\n]),
    raw(Request, [integer_to_binary(byte_size(Text), 16), "\r\n", Text, "\r\n"]).

event(Fields) when is_map(Fields) ->
    [[atom_to_binary(Name), ": ", value(Value), $\n] || {Name, Value} <- maps:to_list(Fields)];
event(Text) ->
    Text.

value(Value) when is_integer(Value) -> integer_to_binary(Value);
value(Value) when is_map(Value) -> erlmcp_native_json:encode(Value);
value(Value) -> Value.

finish(Request) ->
    last(Request, "0\r\n\r\n").

raw(#{conn := Conn}, Bytes) ->
    Conn ! {write, Bytes},
    ok.

cut(#{conn := Conn}) ->
    Conn ! cut,
    ok.

%% Waits until the client closes the connection.
gone(#{conn := Conn}) ->
    receive
        {gone, Conn} -> ok
    after ?WAIT -> error(timeout)
    end.

%% After it the client may use the connection again.
last(#{conn := Conn}, Bytes) ->
    Conn ! {last, Bytes},
    ok.

head(Status, Headers) ->
    [
        "HTTP/1.1 ", integer_to_binary(Status), " Whatever\r\n",
        [[Name, ": ", Value, "\r\n"] || {Name, Value} <- Headers],
        "\r\n"
    ].

accept(Listen, Test, Ref) ->
    case gen_tcp:accept(Listen) of
        {ok, Socket} ->
            Conn = spawn_link(fun() -> receive go -> serve(Socket, Test, Ref) end end),
            ok = gen_tcp:controlling_process(Socket, Conn),
            Conn ! go,
            accept(Listen, Test, Ref);
        {error, closed} ->
            ok
    end.

serve(Socket, Test, Ref) ->
    _ = inet:setopts(Socket, [{packet, http_bin}, {active, false}]),
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_request, Method, {abs_path, Target}, _}} ->
            Headers = headers(Socket, []),
            ok = inet:setopts(Socket, [{packet, raw}]),
            Body = read_body(Socket, Headers),
            Test ! {Ref, #{
                conn => self(),
                method => method(Method),
                target => Target,
                headers => Headers,
                body => Body
            }},
            serving(Socket, Test, Ref);
        {error, _} ->
            gen_tcp:close(Socket)
    end.

serving(Socket, Test, Ref) ->
    case inet:setopts(Socket, [{active, once}]) of
        ok -> told_what_to_do(Socket, Test, Ref);
        {error, _} -> Test ! {gone, self()}
    end.

told_what_to_do(Socket, Test, Ref) ->
    receive
        {write, Bytes} ->
            _ = gen_tcp:send(Socket, Bytes),
            serving(Socket, Test, Ref);
        {last, Bytes} ->
            _ = inet:setopts(Socket, [{active, false}]),
            _ = gen_tcp:send(Socket, Bytes),
            serve(Socket, Test, Ref);
        cut ->
            gen_tcp:close(Socket);
        {tcp_closed, Socket} ->
            Test ! {gone, self()};
        {tcp_error, Socket, _} ->
            Test ! {gone, self()}
    end.

headers(Socket, Acc) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, {http_header, _, Name, _, Value}} ->
            headers(Socket, [{lower(Name), Value} | Acc]);
        {ok, http_eoh} ->
            lists:reverse(Acc)
    end.

lower(Name) when is_atom(Name) -> lower(atom_to_binary(Name));
lower(Name) -> string:lowercase(Name).

read_body(Socket, Headers) ->
    case lists:keyfind(<<"content-length">>, 1, Headers) of
        {_, <<"0">>} ->
            <<>>;
        {_, Length} ->
            {ok, Body} = gen_tcp:recv(Socket, binary_to_integer(Length)),
            Body;
        false ->
            case lists:keyfind(<<"transfer-encoding">>, 1, Headers) of
                false -> <<>>;
                _ -> read_chunks(Socket)
            end
    end.

read_chunks(Socket) ->
    ok = inet:setopts(Socket, [{packet, line}]),
    {ok, Line} = gen_tcp:recv(Socket, 0),
    ok = inet:setopts(Socket, [{packet, raw}]),
    case binary_to_integer(string:trim(Line), 16) of
        0 ->
            {ok, _} = gen_tcp:recv(Socket, 2),
            <<>>;
        Size ->
            {ok, Chunk} = gen_tcp:recv(Socket, Size),
            {ok, _} = gen_tcp:recv(Socket, 2),
            <<Chunk/binary, (read_chunks(Socket))/binary>>
    end.

method(Method) when is_atom(Method) -> atom_to_binary(Method);
method(Method) -> Method.
