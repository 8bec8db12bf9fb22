%% What becomes of HTTP servers and clients whose port program dies, hangs or loses somebody, and
%% what it may have under way.
-module(port_http_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include("../erlang/erlmcp_native_port_http.hrl").

-import(http_path_SUITE, [
    listen/3, connect/1, tell/0, request/0, then/2, exchange/1, begin_stream/1, notice/1,
    tell_notice/1, result/0, reply/4, accepts/1, info/1
]).
-import(http_raw, [ask/2, answer/1, head/1, part/1, post/1]).
-import(test_wait, [reason/1, until/1]).

-define(WAIT, 10000).
-define(CLIENT, http_client_path_SUITE).

all() ->
    [
        servers_of_a_killed_program,
        servers_killed_under_load,
        same_address_again,
        clients_of_a_killed_program,
        clients_while_there_is_no_program,
        clients_come_back_by_themselves,
        router_is_killed,
        acceptor_is_killed,
        stopped_program,
        answer_that_nobody_takes,
        bodies_of_many_at_once,
        stream_after_the_program,
        malformed_is_the_end,
        packets_of_servers,
        packets_of_clients,
        requests_in_packets,
        answers_in_packets
    ].

init_per_suite(Config) ->
    Root = filename:join(code:lib_dir(erlmcp_native), "../../../.."),
    Own = [{root, Root}, {path, port}, {module, erlmcp_native_port_http_client}],
    test_config:start([erlmcp_native], Own ++ Config).

end_per_suite(Config) -> test_config:stop(Config).

%% What was killed soon after it was started comes back later and later; here it begins anew.
init_per_testcase(_, Config) ->
    process_flag(trap_exit, true),
    ok = application:stop(erlmcp_native),
    ok = application:start(erlmcp_native),
    Config.

end_per_testcase(_, _) ->
    case erase(client) of
        undefined -> ok;
        Client -> erlmcp_native_port_http_client:close(Client)
    end.

%% Servers

servers_of_a_killed_program(Config) ->
    Server = listen(Config, #{}, tell()),
    Test = self(),
    %% One that waits, one that streams, one that ends with its client, one that reads a body.
    [Waiting, Streaming, Ending, Reading] = Clients = [connect(Server) || _ <- lists:seq(1, 4)],
    then(exchange(Waiting), fun(X) -> Test ! {result, {notice(X), reply(X, 200, [], <<>>)}} end),
    then(exchange(Streaming), fun(X) ->
        begin_stream(X),
        Test ! {result, begun},
        Test ! {result, {notice(X), erlmcp_native_http_path:send(X, <<"part">>)}}
    end),
    begun = result(),
    {Pid, _} = Third = exchange(Ending),
    Monitor = monitor(process, Pid),
    then(Third, fun(X) -> ok = erlmcp_native_http_path:on_gone(X, exit), Test ! {result, set} end),
    set = result(),
    ok = http_raw:send(Reading, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 9\r\n\r\n1"),
    {_, Fourth, _} = request(),
    then(Fourth, fun(X) ->
        Test ! {result, reading},
        Test ! {result, erlmcp_native_http_path:read_body(X, infinity)}
    end),
    reading = result(),
    kill_program("KILL"),
    ?assertEqual({down, port_program}, down(Server)),
    Results = lists:sort([result() || _ <- lists:seq(1, 3)]),
    ?assertEqual([{error, closed}, {gone, {error, closed}}, {gone, {error, closed}}], Results),
    ?assertEqual({shutdown, gone}, reason(Monitor)),
    [ok = cut_off(Client) || Client <- Clients],
    ?assertMatch(#{connections := 0, requests := 0, streams := 0}, info(Server)),
    ?assertEqual([], acceptors()),
    served_again(Config).

%% Requests come in by many connections while it dies.
servers_killed_under_load(Config) ->
    Server = listen(Config, #{}, fun http_path_SUITE:echo/2),
    Port = http_path_SUITE:port(Server),
    Clients = [
        spawn_monitor(fun() -> ask_on(http_raw:connect(Port, [])) end)
     || _ <- lists:seq(1, 30)
    ],
    receive after 300 -> ok end,
    kill_program("KILL"),
    ?assertEqual({down, port_program}, down(Server)),
    [?assertEqual(cut_off, reason(Monitor)) || {_, Monitor} <- Clients],
    until(fun() -> acceptors() =:= [] end),
    served_again(Config).

ask_on(Client) ->
    case http_raw:send(Client, post("x")) of
        ok ->
            try answer(Client) of
                {200, _, <<"x">>} -> ask_on(Client)
            catch
                error:_ -> exit(cut_off)
            end;
        {error, _} ->
            exit(cut_off)
    end.

%% Up to the end of the connection.
cut_off({gen_tcp, Socket} = Client) ->
    _ = inet:setopts(Socket, [{packet, raw}]),
    case gen_tcp:recv(Socket, 0, ?WAIT) of
        {ok, _} -> cut_off(Client);
        {error, Reason} when Reason =:= closed; Reason =:= econnreset -> ok
    end.

served_again(Config) ->
    Again = listen_again(Config),
    ?assertMatch({200, _, <<"again">>}, ask(connect(Again), post("again"))),
    ok = http_path_SUITE:close(Again).

%% It may be a moment until it is back.
listen_again(Config) ->
    try listen(Config, #{}, fun http_path_SUITE:echo/2)
    catch
        error:{badmatch, {error, port_program}} ->
            receive after 10 -> listen_again(Config) end
    end.

%% With connections that the killed program has left to the kernel.
same_address_again(Config) ->
    {Module, _} = Server = listen(Config, #{}, fun http_path_SUITE:echo/2),
    Port = http_path_SUITE:port(Server),
    Clients = [connect(Server) || _ <- lists:seq(1, 5)],
    [?assertMatch({200, _, _}, ask(Client, post("x"))) || Client <- Clients],
    kill_program("KILL"),
    ?assertEqual({down, port_program}, down(Server)),
    {ok, Options} = erlmcp_native_http_options:listener(#{}),
    Serve = {http_path_SUITE, serve, fun http_path_SUITE:echo/2},
    Endpoint = #{host => {127, 0, 0, 1}, port => Port},
    Again = fun() -> element(1, Module:listen(Endpoint, Options, Serve)) =:= ok end,
    until(Again),
    Client = http_raw:connect(Port, []),
    ?assertMatch({200, _, <<"y">>}, ask(Client, post("y"))).

%% Clients

clients_of_a_killed_program(Config) ->
    Port = http_peers:serve(fun(Conn) ->
        case http_peers:request(Conn) of
            #{line := <<"GET /body ", _/binary>>} ->
                Length = "content-length: 100\r\n\r\n",
                ok = http_peers:send(Conn, ["HTTP/1.1 200 OK\r\n", Length, "begin"]);
            #{line := <<"GET /none ", _/binary>>} ->
                ok;
            #{line := <<"GET /back ", _/binary>>} ->
                http_peers:answer(Conn, {200, <<"back">>})
        end,
        http_peers:tell(Conn, asked),
        http_peers:drain(Conn)
    end),
    ?CLIENT:start(Config, Port),
    Get = fun(Target) -> ?CLIENT:request((?CLIENT:get_request())#{target := Target}) end,
    Answered = Get(<<"/body">>),
    _ = ?CLIENT:teller(asked),
    Unanswered = Get(<<"/none">>),
    _ = ?CLIENT:teller(asked),
    {head, Answered, 200, _} = ?CLIENT:event(Answered),
    kill_program("KILL"),
    %% Whether it was sent nobody can say.
    Failure = #{reason => port_program, safe => false},
    ?assertEqual({failed, Unanswered, Failure}, ?CLIENT:event(Unanswered)),
    ?assertEqual({failed, Failure, <<"begin">>}, ?CLIENT:body(Answered)),
    ?assertEqual(#{connections => 0, active => 0, queued => 0}, ?CLIENT:info()),
    %% The same client goes on in the next program.
    ?assertMatch({200, _, {done, <<"back">>}}, answer_at_last(Get, <<"/back">>)).

answer_at_last(Get, Target) ->
    case ?CLIENT:answer(Get(Target)) of
        {failed, #{safe := true}} ->
            receive after 10 -> answer_at_last(Get, Target) end;
        Answer ->
            Answer
    end.

%% What was killed twice in a second is started again after a while.
clients_while_there_is_no_program(Config) ->
    Port = http_peers:serve(fun http_peers:echo/1),
    ?CLIENT:start(Config, Port),
    {200, _, {done, <<"1">>}} = ?CLIENT:answer(?CLIENT:request(?CLIENT:post(<<"1">>))),
    kill_program("KILL"),
    _ = kill_next(),
    _ = kill_next(),
    Post = fun(Body) -> ?CLIENT:request(?CLIENT:post(Body)) end,
    Id = Post(<<"2">>),
    ?assertEqual({failed, Id, #{reason => port_program, safe => true}}, ?CLIENT:event(Id)),
    ?assertMatch({200, _, {done, <<"3">>}}, answer_at_last(Post, <<"3">>)).

kill_next() ->
    case erlmcp_native_port:os_pid() of
        {ok, Program} ->
            _ = os:cmd(lists:concat(["kill -KILL ", Program])),
            gone(Program);
        {error, port_program} ->
            receive after 1 -> kill_next() end
    end.

%% An MCP client repeats by itself what was not sent, and fails what may have been.
clients_come_back_by_themselves(_) ->
    Handler = {?MODULE, none},
    {ok, Server} = erlmcp_native_http:listen(#{port => 0}, #{handler => Handler, path => beam}),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Server),
    Url = iolist_to_binary(["http://127.0.0.1:", integer_to_list(Port), "/mcp"]),
    {ok, Client} = erlmcp_native_http_client:start(Url, #{path => port}),
    {ok, _} = erlmcp_native_http_client:initialize(Client, #{}, ?WAIT),
    [
        begin
            kill_program("KILL"),
            pinged(Client, 100 * Round)
        end
     || Round <- [1, 2]
    ],
    ok = erlmcp_native_http_client:close(Client).

%% The session goes on.
pinged(Client, Id) ->
    ok = erlmcp_native_http_client:send(Client, ping(Id)),
    receive
        {erlmcp_native, Client, {frames, [Message]}} ->
            ?assertMatch({ok, #{<<"id">> := Id}}, erlmcp_native_json:decode(Message));
        {erlmcp_native, Client, {failed, Id, port_program}} ->
            pinged(Client, Id + 1)
    after ?WAIT -> error({no_answer, process_info(self(), messages)})
    end.

handle_request(<<"initialize">>, _, _) ->
    Info = #{name => <<"beam">>, version => <<"1">>},
    {reply, #{capabilities => #{}, serverInfo => Info}};
handle_request(<<"ping">>, _, _) ->
    {reply, #{}}.

ping(Id) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => <<"ping">>
    }).

%% Others

router_is_killed(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server),
    tell_notice(exchange(Client)),
    Port = http_peers:serve(fun(Conn) ->
        _ = http_peers:request(Conn),
        http_peers:tell(Conn, asked),
        http_peers:drain(Conn)
    end),
    ?CLIENT:start(Config, Port),
    Id = ?CLIENT:request(?CLIENT:get_request()),
    _ = ?CLIENT:teller(asked),
    exit(whereis(erlmcp_native_port), kill),
    ?assertEqual({down, port_program}, down(Server)),
    ?assertEqual(gone, result()),
    Failure = #{reason => port_program, safe => false},
    ?assertEqual({failed, Id, Failure}, ?CLIENT:event(Id)),
    until(fun() -> whereis(erlmcp_native_port) =/= undefined end),
    served_again(Config).

%% Without one nobody starts processes: the listener ends.
acceptor_is_killed(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server),
    _ = exchange(Client),
    [Acceptor] = acceptors(),
    exit(Acceptor, kill),
    ?assertEqual({down, panic}, down(Server)),
    ?assertMatch({error, _}, part(Client)),
    ?assertNot(accepts(Server)).

%% A program that does not read costs what may wait, and no process is held.
stopped_program(Config) ->
    Max = 100000,
    Server = listen(Config, #{max_stream_bytes => Max}, tell()),
    Client = connect(Server),
    Exchange = exchange(Client),
    Test = self(),
    Part = binary:copy(<<"p">>, 1000),
    then(Exchange, fun(X) ->
        begin_stream(X),
        Test ! {result, begun},
        receive stopped -> ok end,
        Test ! {result, http_path_SUITE:send_until_busy(X, Part, 0)},
        Test ! {result, notice(X)}
    end),
    begun = result(),
    ?assertMatch({200, _}, head(Client)),
    {ok, Program} = erlmcp_native_port:os_pid(),
    kill("STOP", Program),
    element(1, Exchange) ! stopped,
    Sent = result(),
    ?assert(Sent >= 100 andalso Sent =< 101, Sent),
    kill("CONT", Program),
    [?assertEqual(Part, part(Client)) || _ <- lists:seq(1, Sent)],
    ?assertEqual(writable, result()),
    ok = http_path_SUITE:close(Server).

%% The rest waits in the program, and then the server waits.
answer_that_nobody_takes(Config) ->
    Piece = binary:copy(<<"0123456789abcdef">>, 4096),
    Port = http_peers:serve(fun(Conn) ->
        _ = http_peers:request(Conn),
        Length = integer_to_list(400 * byte_size(Piece)),
        ok = http_peers:send(Conn, ["HTTP/1.1 200 OK\r\nContent-Length: ", Length, "\r\n\r\n"]),
        [ok = http_peers:send(Conn, Piece) || _ <- lists:seq(1, 400)],
        http_peers:drain(Conn)
    end),
    ?CLIENT:start(Config, Port),
    Id = ?CLIENT:request(?CLIENT:get_request()),
    {head, Id, 200, _} = ?CLIENT:event(Id),
    ok = ?CLIENT:quiet(300),
    Waiting = waiting(Id, 0),
    ?assert(Waiting =< 262144 + 131072, Waiting),
    %% It goes on as it is taken.
    {done, Body} = ?CLIENT:body(Id, []),
    ?assertEqual(400 * byte_size(Piece), byte_size(Body) + Waiting).

%% Takes what is there, without looking at the mailbox.
waiting(Id, Bytes) ->
    case ?CLIENT:take(Id) of
        {Parts, more} -> waiting(Id, Bytes + iolist_size(Parts));
        {Parts, armed} -> await_more(Id, Bytes + iolist_size(Parts))
    end.

await_more(Id, Bytes) ->
    {readable, Id} = ?CLIENT:event(Id),
    Bytes.

%% Bodies in both directions, of more than what may be under way.
bodies_of_many_at_once(Config) ->
    Server = listen(Config, #{}, fun http_path_SUITE:echo/2),
    Port = http_path_SUITE:port(Server),
    Body = rand:bytes(5000000),
    Clients = [
        spawn_monitor(fun() ->
            Client = http_raw:connect(Port, []),
            {200, _, Body} = ask(Client, post(Body)),
            exit(same)
        end)
     || _ <- lists:seq(1, 8)
    ],
    [?assertEqual(same, reason(Monitor)) || {_, Monitor} <- Clients],
    ok = http_path_SUITE:close(Server).

%% A process that knows nothing of it yet.
stream_after_the_program(Config) ->
    Server = listen(Config, #{}, tell()),
    Exchange = exchange(connect(Server)),
    kill_program("KILL"),
    ?assertEqual({down, port_program}, down(Server)),
    until(fun() -> acceptors() =:= [] end),
    Test = self(),
    then(Exchange, fun(X) ->
        Test ! {result, erlmcp_native_http_path:stream(X, 200, [])},
        Test ! {result, erlmcp_native_http_path:send(X, <<"x">>)},
        Test ! {result, erlmcp_native_http_path:finish(X)},
        Test ! {result, erlmcp_native_http_path:reply(X, 200, [], <<>>)},
        Test ! {result, erlmcp_native_http_path:read_body(X, 0)},
        ok = erlmcp_native_http_path:on_gone(X, exit)
    end),
    [?assertEqual({error, closed}, result()) || _ <- lists:seq(1, 5)],
    until(fun() -> not is_process_alive(element(1, Exchange)) end).

%% The VM has checked what it sends: what cannot be read is not guessed at.
malformed_is_the_end(Config) ->
    Server = listen(Config, #{}, fun http_path_SUITE:echo/2),
    {ok, Id, Handle} = erlmcp_native_port:open(none),
    ok = erlmcp_native_port:command(Handle, ?TO_HTTP_LISTEN, Id, <<"no term">>),
    receive
        {erlmcp_native_io, Id, Message} -> ?assertEqual({down, port_program}, Message)
    after ?WAIT -> ct:fail(no_end)
    end,
    ?assertEqual({down, port_program}, down(Server)).

%% Packets, by the golden vectors that Rust's tests read, too.

-define(R, (1 bsl 40 + 5)).

packets_of_servers(Config) ->
    Cat = open_port({spawn, "cat"}, [{packet, 4}, binary]),
    Same = fun(Name) ->
        receive {Cat, {data, Packet}} -> ?assertEqual({Name, vector(Name, Config)}, {Name, Packet})
        after ?WAIT -> ct:fail({nothing, Name})
        end
    end,
    Streams = erlmcp_native_port_http_answer:streams(10, 10),
    Served = fun(R) ->
        Answer = erlmcp_native_port_http_answer:new(Streams),
        {erlmcp_native_port_http, erlmcp_native_port_http:served(Cat, 18, self(), R, Answer)}
    end,
    Json = {<<"content-type">>, <<"application/json">>},
    Events = {<<"content-type">>, [<<"text/">>, "event-stream"]},
    ok = reply(Served(?R), 200, [Json], ["{", <<"}">>]),
    Same("vm_http_reply"),
    Stream = Served(?R),
    ok = erlmcp_native_http_path:stream(Stream, 200, [Events, {<<"x-empty">>, <<>>}]),
    Same("vm_http_stream"),
    ok = erlmcp_native_http_path:send(Stream, "data: x\n\n"),
    Same("vm_http_send"),
    [{error, busy} = erlmcp_native_http_path:send(Stream, "no") || _ <- [1, 2]],
    Same("vm_http_want_room"),
    ok = erlmcp_native_http_path:finish(Stream),
    Same("vm_http_finish"),
    {error, timeout} = erlmcp_native_http_path:read_body(Served(?R), 0),
    Same("vm_http_want_body"),
    <<?TO_HTTP_DONE, 18:64, Done/binary>> = vector("vm_http_done", Config),
    ?assertEqual(<<?R:64, 0:16, (?R + 2):64, 202:16>>, Done),
    <<?TO_HTTP_LISTEN, 16:64, Listen/binary>> = vector("vm_http_listen", Config),
    {ok, Endpoint} = erlmcp_native_options:endpoint(#{port => 0}),
    {ok, Options} = erlmcp_native_http_options:listener(#{}),
    ?assertEqual({18, Endpoint, Options}, binary_to_term(Listen)),
    ?assertEqual(<<?TO_HTTP_DRAIN, 16:64, 30000:64>>, vector("vm_http_drain", Config)),
    ?assertEqual(<<?TO_HTTP_INFO, 16:64, 7:64>>, vector("vm_http_info", Config)),
    true = port_close(Cat).

packets_of_clients(Config) ->
    Request = #{
        method => <<"POST">>,
        target => <<"/mcp">>,
        headers => [{<<"accept">>, "application/json"}, {<<"mcp-session-id">>, <<"s">>}],
        body => <<"{}">>,
        timeout_ms => 30000,
        total_timeout_ms => infinity
    },
    Get = Request#{
        method := <<"GET">>,
        target := <<"/?a=b">>,
        headers := [],
        body := none,
        timeout_ms := infinity,
        total_timeout_ms := 5000
    },
    {ok, Post} = erlmcp_native_port_http_packet:client_request(Request),
    ?assertEqual(
        iolist_to_binary([<<?TO_HTTP_CLIENT_REQUEST, 20:64, 1:64, 262144:32>>, Post, "{}"]),
        vector("vm_client_request", Config)
    ),
    {ok, Bare} = erlmcp_native_port_http_packet:client_request(Get),
    ?assertEqual(
        iolist_to_binary([<<?TO_HTTP_CLIENT_REQUEST, 20:64, 2:64, 1024:32>> | Bare]),
        vector("vm_client_request_without_body", Config)
    ),
    <<?TO_HTTP_CLIENT_OPEN, 20:64, Open/binary>> = vector("vm_client_open", Config),
    Proxy = #{host => <<"proxy">>, port => 3128, authorization => <<"Basic eA==">>},
    {ok, Options} = erlmcp_native_http_options:client(#{proxy => Proxy}),
    ?assertEqual({?CLIENT:origin(http, <<"localhost">>, 4000), Options}, binary_to_term(Open)),
    Is = fun(Name, Packet) -> ?assertEqual({Name, Packet}, {Name, vector(Name, Config)}) end,
    Is("vm_client_grant", <<?TO_HTTP_CLIENT_GRANT, 20:64, 1:64, 131072:32>>),
    Is("vm_client_cancel", <<?TO_HTTP_CLIENT_CANCEL, 20:64, 1:64>>),
    Is("vm_client_info", <<?TO_HTTP_CLIENT_INFO, 20:64, 7:64>>).

requests_in_packets(Config) ->
    Request = fun(Name) ->
        <<?FROM_HTTP_REQUEST, 18:64, ?R:64, Packet/binary>> = vector(Name, Config),
        erlmcp_native_port_http_packet:request(Packet)
    end,
    ?assertEqual(
        #{
            method => <<"POST">>,
            path => <<"/mcp">>,
            query => <<"a=%20">>,
            headers => [{<<"host">>, <<"localhost">>}, {<<"content-length">>, <<"2">>}],
            version => {1, 1},
            scheme => http,
            peername => {{127, 0, 0, 1}, 4000},
            body => {complete, <<"{}">>}
        },
        Request("program_http_request")
    ),
    ?assertMatch(
        #{headers := [], version := {2, 0}, scheme := https, peername := unnamed, body := pending},
        Request("program_http_request_pending")
    ),
    Is = fun(Name, Packet) -> ?assertEqual({Name, Packet}, {Name, vector(Name, Config)}) end,
    Is("program_http_drained", <<?FROM_HTTP_DRAINED, 16:64>>),
    Is("program_http_closed", <<?FROM_HTTP_CLOSED, 18:64>>),
    Is("program_http_info", <<?FROM_HTTP_INFO, 16:64, 7:64, 3:64, 2:64, 1:64>>),
    Is("program_http_gone", <<?FROM_HTTP_GONE, 18:64, ?R:64>>),
    Is("program_http_taken", <<?FROM_HTTP_TAKEN, 18:64, ?R:64, 131072:64>>),
    Is("program_http_room", <<?FROM_HTTP_ROOM, 18:64, ?R:64, 524288:64>>),
    Is("program_http_body", <<?FROM_HTTP_BODY, 18:64, ?R:64, ?BODY_LAST, "last">>),
    <<?FROM_HTTP_LISTENING, 16:64, Name/binary>> = vector("program_http_listening", Config),
    ?assertEqual({{127, 0, 0, 1}, 4000}, erlmcp_native_port_term:read(Name)).

answers_in_packets(Config) ->
    ?assertEqual(<<?FROM_HTTP_CLIENT_OPENED, 20:64>>, vector("program_client_opened", Config)),
    Answer = fun(Name) ->
        <<?FROM_HTTP_ANSWER, 20:64, 1:64, Packet/binary>> = vector(Name, Config),
        New = erlmcp_native_port_http_client_answer:new(true),
        {Notices, Next} = erlmcp_native_port_http_client_answer:packet(Packet, New),
        {Parts, Status, _} = erlmcp_native_port_http_client_answer:take(100, Next),
        {Notices, Parts, Status}
    end,
    Json = {<<"content-type">>, <<"application/json">>},
    ?assertEqual(
        {[{head, 200, [Json]}, readable], [<<"{}">>], done}, Answer("program_client_answer")
    ),
    ?assertEqual({[], [<<"part">>], armed}, Answer("program_client_part")),
    Untrusted = #{reason => {tls, unknown_ca}, safe => true},
    ?assertEqual(
        {[{failed, Untrusted}], [], {failed, Untrusted}}, Answer("program_client_failed")
    ),
    CutOff = #{reason => protocol, safe => false},
    ?assertEqual(
        {[{head, 200, []}, readable], [<<"be">>], {failed, CutOff}},
        Answer("program_client_cut_off")
    ).

vector(Name, Config) ->
    Prefix = list_to_binary(Name ++ " "),
    Lines = port_protocol_SUITE:lines("http.txt", Config),
    [Line] = [L || L <- Lines, string:prefix(L, Prefix) =/= nomatch],
    <<Size:32, Packet:Size/binary>> = port_protocol_SUITE:hex(string:prefix(Line, Prefix)),
    Packet.

%% Programs

kill_program(Signal) ->
    {ok, Program} = erlmcp_native_port:os_pid(),
    kill(Signal, Program).

kill(Signal, Program) ->
    [] = os:cmd(lists:concat(["kill -", Signal, " ", Program])),
    ok.

gone(Program) ->
    until(fun() -> {ok, Program} =/= erlmcp_native_port:os_pid() end).

down({Module, Listener}) ->
    receive
        {erlmcp_native_io, _, _} = Msg -> down(Msg, Module, Listener);
        {'DOWN', _, process, {erlmcp_native_port, _}, _} = Msg -> down(Msg, Module, Listener)
    after ?WAIT -> ct:fail(no_down)
    end.

down(Msg, Module, Listener) ->
    case Module:listener_handle_info(Msg, Listener) of
        {[Event], _} -> Event;
        unknown -> down({Module, Listener})
    end.

acceptors() -> in_module(erlmcp_native_port_http_acceptor).

in_module(Module) ->
    [Pid || Pid <- processes(), runs(Module, process_info(Pid, current_stacktrace))].

runs(Module, {current_stacktrace, Stack}) -> lists:keymember(Module, 1, Stack);
runs(_, undefined) -> false.
