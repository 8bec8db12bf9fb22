%% What is particular to connections of the `beam' path. The test process is the owner: it calls
%% the path itself and gives it the messages of its own mailbox.
-module(beam_path_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_certs, [file/2]).

-define(PATH, erlmcp_native_beam_path).
-define(WAIT, 10000).

all() ->
    [
        reads_one_chunk_ahead,
        the_middle_of_a_frame_is_no_news,
        never_suspends_a_sender,
        a_lost_connection_is_told_once,
        closing_leaves_nothing_in_the_mailbox,
        gives_up_lingering,
        unread_data_does_not_reset_what_was_sent,
        give_moves_what_has_arrived,
        give_moves_the_end,
        writable_reaches_the_new_owner,
        give_while_dialling,
        give_to_a_dead_process,
        give_of_another_owners_socket,
        close_while_dialling,
        owner_ends_while_dialling,
        {group, tls}
    ].

groups() ->
    [
        {tls, [
            session_reads_one_chunk_ahead,
            alert_before_the_first_take,
            give_during_the_handshake,
            give_under_load,
            session_gives_up_lingering,
            session_ends_with_its_owner,
            killed_session,
            hundred_sessions_leave_nothing,
            key_of_another_certificate
        ]}
    ].

init_per_suite(Config) ->
    test_config:start([ssl], test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

%% Plain sockets

reads_one_chunk_ahead(_) ->
    {Socket, Peer} = pair(#{}),
    Count = 100000,
    Sender = send_lines(fun(Data) -> gen_tcp:send(Peer, Data) end, Count),
    {[], more, Ready} = ?PATH:take(await(ready, armed(Socket)), 0, 0),
    #{inbound_bytes := Ahead} = ?PATH:info(Ready),
    ?assert(Ahead =< 65536, Ahead),
    %% Nothing more comes until everything has been taken.
    stalled(Sender),
    ?assertEqual([], mailbox()),
    ?assertEqual(Count, count(Ready, Count)).

the_middle_of_a_frame_is_no_news(_) ->
    {Socket, Peer} = pair(#{}),
    Byte = fun(Char, S) ->
        ok = gen_tcp:send(Peer, [Char]),
        receive
            {tcp, _, _} = Msg -> ?PATH:handle_info(Msg, S)
        after ?WAIT -> ct:fail(no_byte)
        end
    end,
    Middle = lists:foldl(
        fun(Char, S) ->
            {none, Next} = Byte(Char, S),
            Next
        end,
        armed(Socket),
        "one\r"
    ),
    {ready, Whole} = Byte($\n, Middle),
    {[<<"one">>], armed, _} = ?PATH:take(Whole, 10, 1000).

never_suspends_a_sender(_) ->
    {Socket, Peer} = pair(#{max_frame_bytes => 100000000, max_queue_bytes => 1000000}),
    Large = binary:copy(<<"m">>, 50000000),
    {ok, Sent} = ?PATH:send(Socket, Large, auto),
    {{error, busy}, Refused} = ?PATH:send(Sent, <<"small">>, auto),
    #{queue_bytes := Queued} = ?PATH:info(Refused),
    ?assert(Queued > 1000000, Queued),
    {ok, Received} = gen_tcp:recv(Peer, 50000001, ?WAIT),
    ?assertEqual(<<Large/binary, "\n">>, Received),
    {ok, _} = ?PATH:send(await(writable, Refused), <<"small">>, auto),
    {ok, <<"small\n">>} = gen_tcp:recv(Peer, 6, ?WAIT).

a_lost_connection_is_told_once(_) ->
    {Socket, Peer} = pair(#{}),
    Armed = armed(Socket),
    ok = reset(Peer),
    Lost = await(ready, Armed),
    {{error, closed}, Again} = ?PATH:send(Lost, <<"late">>, auto),
    {[], {down, reset}, Down} = ?PATH:take(Again, 10, 1000),
    ?assertEqual([none], lists:usort([none | notices(Down)])),
    ?assertMatch(#{state := down}, ?PATH:info(Down)),
    ok = ?PATH:close(Down),
    ok = ?PATH:close(Down).

closing_leaves_nothing_in_the_mailbox(_) ->
    {Socket, Peer} = pair(#{max_queue_bytes => 1, max_frame_bytes => 100000000}),
    {ok, Sent} = ?PATH:send(Socket, binary:copy(<<"m">>, 50000000), auto),
    %% The look at the queue, a chunk.
    {{error, busy}, Busy} = ?PATH:send(Sent, <<"x">>, auto),
    Armed = armed(Busy),
    ok = gen_tcp:send(Peer, <<"data\n">>),
    receive
        {tcp, _, _} = Msg -> self() ! Msg
    after ?WAIT -> ct:fail(no_data)
    end,
    ok = ?PATH:close(Armed),
    ?assertEqual([], mailbox()),
    {ok, _} = gen_tcp:recv(Peer, 50000001, ?WAIT),
    {error, closed} = gen_tcp:recv(Peer, 0, ?WAIT),
    ?assertEqual([], mailbox()).

gives_up_lingering(_) ->
    {Socket, Peer} = pair(#{max_frame_bytes => 100000000, linger_ms => 50}),
    {ok, Sent} = ?PATH:send(Socket, binary:copy(<<"m">>, 50000000), auto),
    ok = inet:setopts(Peer, [{show_econnreset, true}]),
    ok = ?PATH:close(Sent),
    [ended(Helper) || Helper <- helpers()],
    ?assertEqual({error, econnreset}, drain(Peer)).

%% The kernel drops what it has not sent yet when a socket with unread data is closed.
unread_data_does_not_reset_what_was_sent(_) ->
    {Socket, Peer} = pair(#{}),
    ok = inet:setopts(Peer, [{show_econnreset, true}, {recbuf, 200000}]),
    ok = gen_tcp:send(Peer, <<"never read\n">>),
    Large = binary:copy(<<"m">>, 2000000),
    {ok, Sent} = ?PATH:send(Socket, Large, auto),
    ?assertMatch(#{queue_bytes := 0}, ?PATH:info(Sent)),
    ok = ?PATH:close(Sent),
    [ended(Helper) || Helper <- helpers()],
    ?assertEqual({ok, <<Large/binary, "\n">>}, gen_tcp:recv(Peer, 2000001, ?WAIT)),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

give_moves_what_has_arrived(_) ->
    {Socket, Peer} = pair(#{}),
    Armed = armed(Socket),
    ok = gen_tcp:send(Peer, <<"one\ntwo\nthr">>),
    receive
        {tcp, _, _} = Msg -> self() ! Msg
    after ?WAIT -> ct:fail(no_data)
    end,
    Owner = owner(Armed),
    ?assertEqual([], mailbox()),
    ?assertEqual([<<"one">>, <<"two">>], taken(Owner, 2)),
    ok = gen_tcp:send(Peer, <<"ee\n">>),
    ?assertEqual([<<"three">>], taken(Owner, 1)).

give_moves_the_end(_) ->
    {Socket, Peer} = pair(#{}),
    Armed = armed(Socket),
    ok = reset(Peer),
    receive
        {tcp_closed, _} = Msg -> self() ! Msg
    after ?WAIT -> ct:fail(no_end)
    end,
    ?assertEqual({down, reset}, down(owner(Armed))).

writable_reaches_the_new_owner(_) ->
    {Socket, Peer} = pair(#{max_queue_bytes => 1, max_frame_bytes => 100000000}),
    {ok, Sent} = ?PATH:send(Socket, binary:copy(<<"m">>, 50000000), auto),
    {{error, busy}, Busy} = ?PATH:send(Sent, <<"x">>, auto),
    Owner = owner(Busy),
    {ok, _} = gen_tcp:recv(Peer, 50000001, ?WAIT),
    receive
        {Owner, writable} -> ok
    after ?WAIT -> ct:fail(no_notice)
    end,
    ?assertEqual([], mailbox()).

give_while_dialling(_) ->
    {ok, Listen} = listen(),
    Owner = owner(open(Listen, #{})),
    {ok, Peer} = gen_tcp:accept(Listen, ?WAIT),
    ok = gen_tcp:send(Peer, <<"welcome\n">>),
    ?assertEqual([<<"welcome">>], taken(Owner, 1)),
    ?assertEqual([], mailbox()).

give_to_a_dead_process(_) ->
    {Socket, Peer} = pair(#{}),
    {Dead, Monitor} = spawn_monitor(fun() -> ok end),
    ended(Monitor),
    Armed = armed(Socket),
    ?assertEqual({error, {posix, esrch}}, ?PATH:give(Armed, Dead)),
    ok = gen_tcp:send(Peer, <<"still here\n">>),
    {[<<"still here">>], armed, _} = ?PATH:take(await(ready, Armed), 10, 1000).

give_of_another_owners_socket(Config) ->
    {Plain, Peer} = pair(#{}),
    {Secure, _} = tls_pair(Config, #{}),
    Armed = armed(Plain),
    [?assertEqual(badarg, given_by_another(S)) || S <- [Armed, Secure]],
    ok = gen_tcp:send(Peer, <<"still here\n">>),
    {[<<"still here">>], armed, _} = ?PATH:take(await(ready, Armed), 10, 1000).

given_by_another(Socket) ->
    {_, Monitor} = spawn_monitor(fun() ->
        try
            exit(?PATH:give(Socket, self()))
        catch
            error:badarg -> exit(badarg)
        end
    end),
    receive
        {'DOWN', Monitor, _, _, Result} -> Result
    after ?WAIT -> ct:fail(stuck)
    end.

close_while_dialling(_) ->
    Socket = open(black_hole(), #{}),
    Helpers = helpers(),
    ?assertNotEqual([], Helpers),
    ok = ?PATH:close(Socket),
    [ended(Monitor) || Monitor <- Helpers],
    ?assertEqual([], mailbox()).

owner_ends_while_dialling(_) ->
    Listen = black_hole(),
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() ->
        _ = open(Listen, #{}),
        Test ! {dialling, helper_pids()},
        receive stop -> ok end
    end),
    Pids = receive {dialling, Started} -> Started after ?WAIT -> ct:fail(not_dialling) end,
    ?assertNotEqual([], Pids),
    Helpers = [monitor(process, Pid) || Pid <- Pids],
    %% An orderly end, which links do not pass on.
    Owner ! stop,
    ended(Monitor),
    [ended(Helper) || Helper <- Helpers].

%% TLS

session_reads_one_chunk_ahead(Config) ->
    {Socket, Peer} = tls_pair(Config, #{}),
    Count = 300000,
    Before = erlang:memory(total),
    Sender = send_lines(fun(Data) -> ssl:send(Peer, Data) end, Count),
    {[], more, Ready} = ?PATH:take(await(ready, armed(Socket)), 0, 0),
    stalled(Sender),
    ?assertEqual([], mailbox()),
    Grown = erlang:memory(total) - Before,
    ?assert(Grown < 8000000, Grown),
    ?assertEqual(Count, count(Ready, Count)).

%% With TLS 1.3 a client is through before the server looks at its certificate. `ssl' tells of an
%% alert only who is reading.
alert_before_the_first_take(Config) ->
    Require = [{verify, verify_peer}, {fail_if_no_peer_cert, true}],
    Listen = tls_listen(Config, [{cacertfile, file(Config, "ca.pem")} | Require]),
    Dialling = tls_open(Config, Listen, #{}),
    {ok, Accepted} = ssl:transport_accept(Listen, ?WAIT),
    {error, _} = ssl:handshake(Accepted, ?WAIT),
    ?assertEqual({tls, certificate_required}, lost(await(ready, Dialling))).

give_during_the_handshake(Config) ->
    Listen = tls_listen(Config, []),
    Socket = tls_open(Config, Listen, #{}),
    {ok, Accepted} = ssl:transport_accept(Listen, ?WAIT),
    Owner = owner(Socket, fun() ->
        {ok, Peer} = ssl:handshake(Accepted, ?WAIT),
        ok = ssl:send(Peer, <<"welcome\n">>)
    end),
    ?assertEqual([<<"welcome">>], taken(Owner, 1)),
    ?assertEqual([], mailbox()).

give_under_load(Config) ->
    {Socket, Peer} = tls_pair(Config, #{}),
    Count = 2000,
    Numbers = [integer_to_binary(N) || N <- lists:seq(1, Count)],
    spawn_link(fun() -> [ok = ssl:send(Peer, [N, $\n]) || N <- Numbers] end),
    {Received, _} = pass_around(Socket, Count, []),
    ?assertEqual(Numbers, Received).

session_gives_up_lingering(Config) ->
    {Socket, Peer} = tls_pair(Config, #{max_frame_bytes => 100000000, linger_ms => 50}),
    {ok, Sent} = ?PATH:send(Socket, binary:copy(<<"m">>, 50000000), auto),
    Helpers = helpers(),
    ok = ?PATH:close(Sent),
    [ended(Helper) || Helper <- Helpers],
    ?assertMatch({error, _}, ssl:recv(Peer, 50000001, ?WAIT)).

session_ends_with_its_owner(Config) ->
    Test = self(),
    Listen = tls_listen(Config, []),
    {Owner, Monitor} = spawn_monitor(fun() ->
        Socket = await(ready, tls_open(Config, Listen, #{max_frame_bytes => 100000000})),
        {ok, Sent} = ?PATH:send(Socket, binary:copy(<<"m">>, 50000000), auto),
        stuck(Sent),
        Test ! sent,
        receive stop -> ok end
    end),
    {ok, Accepted} = ssl:transport_accept(Listen, ?WAIT),
    {ok, Peer} = ssl:handshake(Accepted, ?WAIT),
    receive sent -> ok after ?WAIT -> ct:fail(not_sent) end,
    {ok, Name} = ssl:peername(Peer),
    [Port] = [P || P <- erlang:ports(), inet:sockname(P) =:= {ok, Name}],
    Helpers = [monitor(port, Port) | helpers()],
    Owner ! stop,
    ended(Monitor),
    %% At once: left to itself `ssl' waits twice 5 s for the peer to read.
    [ended(Helper, 3000) || Helper <- Helpers],
    ?assertMatch({error, _}, ssl:recv(Peer, 50000001, ?WAIT)).

killed_session(Config) ->
    {Socket, _} = tls_pair(Config, #{}),
    Armed = armed(Socket),
    [exit(Pid, kill) || Pid <- helper_pids()],
    {[], {down, panic}, _} = ?PATH:take(await(ready, Armed), 10, 1000).

hundred_sessions_leave_nothing(Config) ->
    Listen = tls_listen(Config, []),
    Pairs = [tls_connect(Config, Listen, #{}) || _ <- lists:seq(1, 100)],
    Helpers = helpers(),
    ?assert(length(Helpers) >= 100),
    [ok = ?PATH:close(Socket) || {Socket, _} <- Pairs],
    [?assertEqual({error, closed}, ssl:recv(Peer, 0, ?WAIT)) || {_, Peer} <- Pairs],
    [ended(Helper) || Helper <- Helpers].

key_of_another_certificate(Config) ->
    Listen = fun(Cert, Key) ->
        Tls = #{certfile => file(Config, Cert), keyfile => file(Config, Key)},
        {ok, Options} = erlmcp_native_options:listener(#{tls => Tls}),
        ?PATH:listen(#{host => {127, 0, 0, 1}, port => 0}, Options)
    end,
    ?assertEqual({error, {tls, bad_file}}, Listen("server.pem", "client.key")),
    {ok, Listener} = Listen("server.pem", "server.key"),
    ok = ?PATH:listener_close(Listener).

%% Helpers

pair(Options) ->
    {ok, Listen} = listen(),
    Socket = open(Listen, Options),
    {ok, Peer} = gen_tcp:accept(Listen, ?WAIT),
    {await(ready, Socket), Peer}.

listen() ->
    gen_tcp:listen(0, [binary, {active, false}, {ip, {127, 0, 0, 1}}, {nodelay, true}]).

open(Listen, Options) ->
    {ok, {Ip, Port}} = inet:sockname(Listen),
    {ok, Checked} = erlmcp_native_options:connection(Options),
    {ok, Socket} = ?PATH:open(#{host => Ip, port => Port}, Checked),
    Socket.

%% A listener whose backlog is full answers no further connection.
black_hole() ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {backlog, 0}]),
    {ok, Port} = inet:port(Listen),
    {ok, _} = gen_tcp:connect({127, 0, 0, 1}, Port, []),
    Listen.

tls_pair(Config, Options) ->
    tls_connect(Config, tls_listen(Config, []), Options).

tls_connect(Config, Listen, Options) ->
    Socket = tls_open(Config, Listen, Options),
    {ok, Accepted} = ssl:transport_accept(Listen, ?WAIT),
    {ok, Peer} = ssl:handshake(Accepted, ?WAIT),
    {await(ready, Socket), Peer}.

tls_listen(Config, Options) ->
    Own = [{certfile, file(Config, "server.pem")}, {keyfile, file(Config, "server.key")}],
    Common = [binary, {active, false}, {ip, {127, 0, 0, 1}}, {log_level, none}],
    {ok, Listen} = ssl:listen(0, Common ++ Own ++ Options),
    Listen.

tls_open(Config, Listen, Options) ->
    {ok, {Ip, Port}} = ssl:sockname(Listen),
    Tls = #{cacertfile => file(Config, "ca.pem")},
    {ok, Checked} = erlmcp_native_options:connection(Options#{tls => Tls}),
    {ok, Socket} = ?PATH:open(#{host => Ip, port => Port}, Checked),
    Socket.

await(Notice, Socket) ->
    receive
        Msg ->
            case ?PATH:handle_info(Msg, Socket) of
                {Notice, Next} -> Next;
                {none, Next} -> await(Notice, Next);
                Other -> ct:fail({Msg, Other})
            end
    after ?WAIT -> ct:fail({no_notice, Notice})
    end.

armed(Socket) ->
    {[], armed, Armed} = ?PATH:take(Socket, 10, 1000),
    Armed.

lost(Socket) ->
    case ?PATH:take(Socket, 10, 1000) of
        {[], {down, Reason}, _} -> Reason;
        {[], armed, Armed} -> lost(await(ready, Armed))
    end.

count(_, 0) ->
    0;
count(Socket, Left) ->
    {Items, Next} = collect(Socket, 1, []),
    length(Items) + count(Next, Left - length(Items)).

%% At least `Min' frames.
collect(Socket, Min, Acc) ->
    case ?PATH:take(Socket, 1000, 100000) of
        {Items, more, Next} when length(Items) >= Min -> {Acc ++ Items, Next};
        {Items, armed, Next} when length(Items) >= Min -> {Acc ++ Items, Next};
        {Items, more, Next} -> collect(Next, Min - length(Items), Acc ++ Items);
        {Items, armed, Next} -> collect(await(ready, Next), Min - length(Items), Acc ++ Items)
    end.

notices(Socket) ->
    receive
        Msg ->
            {Notice, Next} = ?PATH:handle_info(Msg, Socket),
            [Notice | notices(Next)]
    after 0 -> []
    end.

mailbox() ->
    {messages, Messages} = process_info(self(), messages),
    Messages.

reset(Peer) ->
    ok = inet:setopts(Peer, [{linger, {true, 0}}]),
    gen_tcp:close(Peer).

drain(Peer) ->
    case gen_tcp:recv(Peer, 0, ?WAIT) of
        {ok, _} -> drain(Peer);
        {error, _} = Error -> Error
    end.

send_lines(Send, Count) ->
    Chunk = binary:copy(<<(binary:copy(<<"l">>, 99))/binary, "\n">>, 100),
    Progress = counters:new(1, []),
    spawn_link(fun() ->
        [
            begin
                ok = Send(Chunk),
                counters:add(Progress, 1, 1)
            end
         || _ <- lists:seq(1, Count div 100)
        ]
    end),
    Progress.

%% The peer has sent what it could.
stalled(Progress) ->
    Before = counters:get(Progress, 1),
    receive
    after 300 ->
        case counters:get(Progress, 1) of
            Before when Before > 0 -> ok;
            _ -> stalled(Progress)
        end
    end.

%% The connection has sent what the peer lets it.
stuck(Socket) ->
    #{queue_bytes := Before} = ?PATH:info(Socket),
    receive
    after 300 ->
        case ?PATH:info(Socket) of
            #{queue_bytes := Before} when Before > 0 -> ok;
            _ -> stuck(Socket)
        end
    end.

ended(Monitor) ->
    ended(Monitor, ?WAIT).

ended(Monitor, Timeout) ->
    receive
        {'DOWN', Monitor, _, _, _} -> ok
    after Timeout -> ct:fail(alive)
    end.

%% Processes that the path has started.
helpers() ->
    [monitor(process, Pid) || Pid <- helper_pids()].

helper_pids() ->
    Items = [parent, current_stacktrace],
    [Pid || Pid <- processes(), Pid =/= self(), is_helper(process_info(Pid, Items))].

%% A process that has not run yet has no stack to know it by.
is_helper([{parent, Parent}, {current_stacktrace, []}]) ->
    Parent =:= self();
is_helper([_, {current_stacktrace, Stack}]) ->
    lists:any(fun({M, _, _, _}) -> lists:prefix("erlmcp_native_beam_", atom_to_list(M)) end, Stack);
is_helper(undefined) ->
    false.

%% A process that is given the socket and reports what it takes. As a gen_server would, it loses
%% what comes before it knows the socket, so nothing may.
owner(Socket) ->
    owner(Socket, fun() -> ok end).

owner(Socket, Meanwhile) ->
    Test = self(),
    Owner = spawn_link(fun() ->
        receive
            Early -> exit({early, Early})
        after 300 -> Test ! {self(), quiet}
        end,
        receive
            {socket, Given} -> report(Test, Given)
        end
    end),
    {ok, Given} = ?PATH:give(Socket, Owner),
    Meanwhile(),
    receive
        {Owner, quiet} -> Owner ! {socket, Given}
    after ?WAIT -> ct:fail(not_quiet)
    end,
    Owner.

report(Test, Socket) ->
    {Items, Status, Next} = ?PATH:take(Socket, 10, 1000),
    _ = [Test ! {self(), Item} || Item <- Items],
    case Status of
        more -> report(Test, Next);
        {down, _} -> Test ! {self(), Status};
        _ -> wait_and_report(Test, Next)
    end.

wait_and_report(Test, Socket) ->
    receive
        Msg ->
            case ?PATH:handle_info(Msg, Socket) of
                {ready, Next} ->
                    report(Test, Next);
                {none, Next} ->
                    wait_and_report(Test, Next);
                {writable, Next} ->
                    Test ! {self(), writable},
                    wait_and_report(Test, Next)
            end
    end.

taken(_, 0) ->
    [];
taken(Owner, Count) ->
    receive
        {Owner, Item} -> [Item | taken(Owner, Count - 1)]
    after ?WAIT -> ct:fail(nothing_taken)
    end.

down(Owner) ->
    receive
        {Owner, {down, _} = Down} -> Down
    after ?WAIT -> ct:fail(not_down)
    end.

pass_around(Socket, Left, Received) when Left =< 0 ->
    {Received, Socket};
pass_around(Socket, Left, Received) ->
    Test = self(),
    Next = spawn_link(fun() ->
        receive
            {socket, Given} ->
                {Items, After} = collect(Given, min(Left, 50), []),
                {ok, Back} = ?PATH:give(After, Test),
                Test ! {self(), Items, Back}
        end
    end),
    {ok, Given} = ?PATH:give(Socket, Next),
    Next ! {socket, Given},
    receive
        {Next, Items, Back} -> pass_around(Back, Left - length(Items), Received ++ Items)
    after ?WAIT -> ct:fail(lost)
    end.
