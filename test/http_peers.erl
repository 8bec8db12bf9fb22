%% HTTP servers and proxies for tests, each connection of which follows a script: it does on the
%% wire whatever a real one should not.
-module(http_peers).

-export([serve/1, serve/2, proxy/1]).
-export([request/1, head/1, skip/2, send/2, answer/2, echo/1]).
-export([close/1, reset/1, tell/2, wait/1, drain/1]).

-type conn() :: #{
    test := pid(), module := gen_tcp | ssl, socket := gen_tcp:socket() | ssl:sslsocket()
}.

-define(WAIT, 20000).

%% Runs the script in a process of its own for each connection to the port returned. They live as
%% long as the caller, who receives `{peer, Pid, What}' of what they tell; first of all `opened' or
%% `{handshake, Reason}'. Options: `tls', those of `ssl'; `tcp', those of the listener; `ip'.
-spec serve(fun((conn()) -> term())) -> inet:port_number().
serve(Script) ->
    serve(Script, #{}).

-spec serve(fun((conn()) -> term()), map()) -> inet:port_number().
serve(Script, Options) ->
    Test = self(),
    Keeper = spawn(fun() -> keeper(Test, Script, Options) end),
    receive
        {Keeper, Port} -> Port
    after ?WAIT -> error(no_server)
    end.

keeper(Test, Script, Options) ->
    Monitor = monitor(process, Test),
    Tcp = [binary, {active, false}, {reuseaddr, true}, {nodelay, true}, {backlog, 100}],
    Ip = maps:get(ip, Options, {127, 0, 0, 1}),
    {ok, Listen} = gen_tcp:listen(0, maps:get(tcp, Options, []) ++ [{ip, Ip} | Tcp]),
    {ok, Port} = inet:port(Listen),
    _ = spawn_link(fun() -> acceptor(Test, Listen, Script, Options) end),
    Test ! {self(), Port},
    receive
        {'DOWN', Monitor, process, _, _} -> exit(shutdown)
    end.

acceptor(Test, Listen, Script, Options) ->
    {ok, Socket} = gen_tcp:accept(Listen),
    Pid = spawn_link(fun() ->
        receive
            go -> connection(Test, Socket, Script, Options)
        end
    end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    acceptor(Test, Listen, Script, Options).

connection(Test, Socket, Script, #{tls := Tls}) ->
    case ssl:handshake(Socket, [{log_level, none} | Tls], ?WAIT) of
        {ok, Secure} -> begin_script(#{test => Test, module => ssl, socket => Secure}, Script);
        {error, Reason} -> tell(#{test => Test}, {handshake, Reason})
    end;
connection(Test, Socket, Script, _) ->
    begin_script(#{test => Test, module => gen_tcp, socket => Socket}, Script).

begin_script(Conn, Script) ->
    ok = tell(Conn, opened),
    Script(Conn).

%% The next request: its first line, headers with names in lower case, body, and the port that it
%% came from. `closed' when there is none.
request(Conn) ->
    case head(Conn) of
        closed ->
            closed;
        #{headers := Headers} = Request ->
            Size = binary_to_integer(proplists:get_value(<<"content-length">>, Headers, <<"0">>)),
            Request#{body => bytes(Conn, Size, take_buffer(), [])}
    end.

%% The same without its body.
head(Conn) ->
    case until(Conn, take_buffer()) of
        closed ->
            closed;
        {Head, Rest} ->
            put(buffer, Rest),
            [Line | Lines] = binary:split(Head, <<"\r\n">>, [global]),
            Fields = [binary:split(Field, <<": ">>) || Field <- Lines],
            Headers = [{string:lowercase(Name), Value} || [Name, Value] <- Fields],
            #{line => Line, headers => Headers, port => port_of(Conn)}
    end.

take_buffer() ->
    case erase(buffer) of
        undefined -> <<>>;
        Buffer -> Buffer
    end.

until(#{module := Module, socket := Socket} = Conn, Buffer) ->
    case binary:split(Buffer, <<"\r\n\r\n">>) of
        [Head, Rest] ->
            {Head, Rest};
        [_] ->
            case Module:recv(Socket, 0, ?WAIT) of
                {ok, More} -> until(Conn, <<Buffer/binary, More/binary>>);
                {error, _} -> closed
            end
    end.

bytes(_, Size, Buffer, Acc) when byte_size(Buffer) >= Size ->
    <<Last:Size/binary, Rest/binary>> = Buffer,
    put(buffer, Rest),
    iolist_to_binary(lists:reverse(Acc, [Last]));
bytes(#{module := Module, socket := Socket} = Conn, Size, Buffer, Acc) ->
    case Module:recv(Socket, 0, ?WAIT) of
        {ok, More} -> bytes(Conn, Size - byte_size(Buffer), More, [Buffer | Acc]);
        {error, _} -> closed
    end.

%% Reads over so many bytes, or up to the end.
skip(Conn, Size) ->
    case bytes(Conn, Size, take_buffer(), []) of
        closed -> closed;
        _ -> ok
    end.

port_of(#{module := gen_tcp, socket := Socket}) -> element(2, element(2, inet:peername(Socket)));
port_of(#{module := ssl, socket := Socket}) -> element(2, element(2, ssl:peername(Socket))).

send(#{module := Module, socket := Socket}, Bytes) -> Module:send(Socket, Bytes).

%% Answers `Status' with a body and its length.
answer(Conn, {Status, Body}) ->
    send(Conn, [
        ["HTTP/1.1 ", integer_to_list(Status), " Such\r\n"],
        ["Content-Length: ", integer_to_list(iolist_size(Body)), "\r\n\r\n"],
        Body
    ]).

%% Answers each request with its body or, if it has none, with the port that it came from.
echo(Conn) ->
    case request(Conn) of
        closed -> ok;
        #{body := <<>>, port := Port} -> echo(Conn, integer_to_binary(Port));
        #{body := Body} -> echo(Conn, Body)
    end.

echo(Conn, Body) ->
    _ = answer(Conn, {200, Body}),
    echo(Conn).

close(#{module := Module, socket := Socket}) -> Module:close(Socket).

reset(#{socket := Socket}) ->
    ok = inet:setopts(Socket, [{linger, {true, 0}}]),
    gen_tcp:close(Socket).

tell(#{test := Test}, What) ->
    Test ! {peer, self(), What},
    ok.

%% Waits for the test to say so.
wait(What) ->
    receive
        What -> ok
    after ?WAIT -> exit({nobody_said, What})
    end.

%% Reads up to the end, and tells of it.
drain(#{module := Module, socket := Socket} = Conn) ->
    case Module:recv(Socket, 0, ?WAIT) of
        {ok, _} -> drain(Conn);
        {error, timeout} -> tell(Conn, still_open);
        {error, _} -> tell(Conn, closed)
    end.

%% A proxy: opens tunnels for CONNECT and answers other requests itself. It tells of each request.
%% `Answer' to CONNECT is sent as it is.
proxy(Answer) ->
    serve(fun(Conn) -> proxy(Conn, Answer) end).

proxy(Conn, Answer) ->
    case request(Conn) of
        closed ->
            ok;
        #{line := <<"CONNECT ", Rest/binary>>} = Request ->
            ok = tell(Conn, Request),
            [Authority | _] = binary:split(Rest, <<" ">>),
            ok = send(Conn, Answer),
            tunnel(Conn, Authority);
        Request ->
            ok = tell(Conn, Request),
            _ = answer(Conn, {200, <<"from the proxy">>}),
            proxy(Conn, Answer)
    end.

tunnel(#{socket := Near}, Authority) ->
    [Host, Port] = string:split(binary_to_list(Authority), ":", trailing),
    {ok, Far} = gen_tcp:connect(Host, list_to_integer(Port), [binary, {nodelay, true}]),
    ok = inet:setopts(Near, [{active, true}]),
    relay(Near, Far).

relay(Near, Far) ->
    receive
        {tcp, Near, Bytes} -> relay(Near, Far, gen_tcp:send(Far, Bytes));
        {tcp, Far, Bytes} -> relay(Near, Far, gen_tcp:send(Near, Bytes));
        {tcp_closed, _} -> ok
    end.

relay(Near, Far, ok) -> relay(Near, Far);
relay(_, _, {error, _}) -> ok.
