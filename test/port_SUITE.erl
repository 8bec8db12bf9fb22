%% The port program as a process that can die, hang and lie, and what the node makes of it.
-module(port_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-import(test_wait, [event/1, reason/1]).

%% As the router has it.
-define(STABLE_MS, 1000).
-define(WAIT, 10000).

-define(HELLO, 16#01).
-define(PING, 16#02).
-define(PONG, 16#82).

all() ->
    [{group, faults}, {group, liars}, {group, program}, {group, node}].

groups() ->
    [
        {faults, [
            killed_under_load,
            back_within_200_ms,
            killed_again_and_again,
            connects_while_it_is_away,
            listener_goes_with_it,
            router_is_killed,
            stopped,
            stopped_while_nobody_looks,
            owners_die,
            log_level_is_kept
        ]},
        {liars, [
            exits_at_once,
            exits_after_hello,
            speaks_garbage,
            speaks_packets_that_are_none,
            another_version,
            says_nothing,
            floods_nobody,
            floods_a_connection
        ]},
        {program, [
            program_by_hand,
            program_hears_garbage,
            program_hears_garbage_of_every_kind,
            program_hears_another_version,
            program_hears_nothing,
            program_ends_with_its_input
        ]},
        {node, [
            node_is_killed,
            node_is_killed_and_program_is_stopped,
            nothing_native,
            nothing_native_in_embedded_mode
        ]}
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_testcase(_, Config) ->
    process_flag(trap_exit, true),
    {ok, _} = running(),
    Config.

%% ---- faults

killed_under_load(_) ->
    Peers = load(20),
    {ok, Program} = running(),
    %% These wait for an answer that will not come.
    Test = self(),
    Waiting = [spawn_monitor(fun() -> wait_for_an_answer(Test) end) || _ <- lists:seq(1, 5)],
    [receive {Pid, waits} -> ok after ?WAIT -> ct:fail(nobody_waits) end || {Pid, _} <- Waiting],
    kill("KILL", Program),
    [?assertEqual({got, {error, port_program}}, reason(M)) || {_, M} <- Waiting],
    Downs = [down(Peer) || Peer <- Peers],
    ?assertEqual([], [D || {_, D} <- Downs, D =/= {down, port_program, final}]),
    ?assertEqual(20, length(Downs)),
    _ = back(Program),
    %% And it works.
    {Conn, Peer} = connection(#{}),
    ok = erlmcp_native:send(Conn, <<"again">>),
    ?assertEqual({ok, <<"again\n">>}, gen_tcp:recv(Peer, 6, ?WAIT)).

%% The quickest of some times: the machine may have others to run first. One that ends young is
%% started again later and later.
back_within_200_ms(_) ->
    Times = [
        begin
            {ok, Program} = running(),
            receive after ?STABLE_MS + 100 -> ok end,
            kill("KILL", Program),
            At = now_ms(),
            _ = back(Program),
            now_ms() - At
        end
     || _ <- lists:seq(1, 3)
    ],
    ?assert(lists:min(Times) =< 200).

wait_for_an_answer(Test) ->
    {Conn, _} = connection(#{active => false}),
    Test ! {self(), waits},
    exit({got, erlmcp_native:recv(Conn, ?WAIT)}).

killed_again_and_again(_) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{path => beam, active => true}),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    Options = #{path => port, active => true, reconnect => #{min_ms => 20, max_ms => 50}},
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, Options),
    connected(Conn),
    [
        begin
            {ok, Program} = running(),
            kill("KILL", Program),
            receive {erlmcp_native, Conn, {down, port_program, {retry_in, _}}} -> ok
            after ?WAIT -> ct:fail(no_down)
            end,
            connected(Conn)
        end
     || _ <- lists:seq(1, 4)
    ],
    ok = erlmcp_native:send(Conn, <<"here">>),
    receive {erlmcp_native, _, {frames, [<<"here">>]}} -> ok after ?WAIT -> ct:fail(lost) end,
    ok = erlmcp_native:close(Conn),
    ok = erlmcp_native:close(Listener).

connected(Conn) ->
    receive
        {erlmcp_native, Conn, connected} -> ok;
        {erlmcp_native, Conn, {down, _, {retry_in, _}}} -> connected(Conn)
    after ?WAIT -> ct:fail(not_connected)
    end.

%% The first try is one like all others.
connects_while_it_is_away(_) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{path => beam}),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    Connect = fun(Reconnect) ->
        Options = #{path => port, active => true, reconnect => Reconnect},
        erlmcp_native:connect(#{port => Port}, Options)
    end,
    ok = away(fun() -> Connect(false) end),
    {ok, Conn} = Connect(true),
    ?assertMatch({down, port_program, {retry_in, _}}, event(Conn)),
    connected(Conn),
    ok = erlmcp_native:close(Conn),
    ok = erlmcp_native:close(Listener).

%% Kills the program until it is not started again at once.
away(Try) ->
    case Try() of
        {error, port_program} ->
            ok;
        {ok, Conn} ->
            ok = erlmcp_native:close(Conn),
            {ok, Program} = running(),
            kill("KILL", Program),
            gone(Program),
            away(Try)
    end.

listener_goes_with_it(_) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{path => port}),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    {ok, Program} = running(),
    kill("KILL", Program),
    ?assertEqual({down, port_program, final}, event(Listener)),
    {ok, Again} = listen_again(Port),
    ok = erlmcp_native:close(Again).

listen_again(Port) ->
    case erlmcp_native:listen(#{port => Port}, #{path => port}) of
        {error, port_program} -> receive after 5 -> listen_again(Port) end;
        Result -> Result
    end.

router_is_killed(_) ->
    {Conn, Peer} = connection(#{}),
    {ok, Program} = running(),
    Router = whereis(erlmcp_native_port),
    true = exit(Router, kill),
    ?assertEqual({down, port_program, final}, event(Conn)),
    %% The connection was the program's, and that has ended.
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    gone(Program),
    {_, _} = connection(#{}),
    ?assertNotEqual(Router, whereis(erlmcp_native_port)).

%% Senders are refused, not held, what waits is bounded, and before long there is another program.
stopped(_) ->
    with_short_ping(fun() ->
        {Conn, _} = connection(#{max_queue_bytes => 1000000}),
        {ok, Sender} = sender(Conn),
        {ok, Program} = running(),
        kill("STOP", Program),
        Before = erlang:memory(total),
        {Us, busy} = timer:tc(fun() -> send_until_busy(Sender, binary:copy(<<"x">>, 10000)) end),
        ?assert(Us < 1000000),
        ?assert(erlang:memory(total) - Before < 20000000),
        ?assertEqual({down, port_program, final}, event(Conn)),
        gone(Program),
        _ = running(),
        {_, _} = connection(#{})
    end).

stopped_while_nobody_looks(_) ->
    with_short_ping(fun() ->
        {Conn, _} = connection(#{}),
        {ok, Program} = running(),
        kill("STOP", Program),
        ?assertEqual({down, port_program, final}, event(Conn)),
        gone(Program)
    end).

send_until_busy({Module, Term} = Sender, Message) ->
    case Module:send_direct(Term, Message, auto) of
        ok -> send_until_busy(Sender, Message);
        {error, busy} -> busy
    end.

owners_die(_) ->
    #{routes := Before} = erlmcp_native_port:info(),
    {Listen, Port} = test_socket:listen(),
    Owners = [
        spawn_monitor(fun() ->
            {ok, _} = erlmcp_native:connect(#{port => Port}, #{path => port, active => true}),
            receive {erlmcp_native, _, connected} -> ok end,
            receive stop -> ok end
        end)
     || _ <- lists:seq(1, 10)
    ],
    Peers = [test_socket:accept(Listen) || _ <- Owners],
    [exit(Pid, kill) || {Pid, _} <- Owners],
    [?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)) || Peer <- Peers],
    ?assertMatch(#{routes := Before}, erlmcp_native_port:info()).

log_level_is_kept(_) ->
    ok = erlmcp_native_log:set_level(debug),
    {ok, Program} = running(),
    kill("KILL", Program),
    ?assertEqual({down, refused, final}, refused_again()),
    ok = erlmcp_native_log:set_level(warning).

%% The first may reach the program that is dying.
refused_again() ->
    {ok, Conn} = connect_again(),
    case event(Conn) of
        {down, port_program, final} -> refused_again();
        Event -> Event
    end.

connect_again() ->
    case erlmcp_native:connect(#{port => test_socket:free_port()}, #{path => port}) of
        {error, port_program} -> receive after 5 -> connect_again() end;
        Result -> Result
    end.

%% ---- liars

exits_at_once(Config) ->
    {App, On, Stop} = node_with(Config, "exit 0\n"),
    ?assertEqual({error, port_program}, On(?MODULE, connect_on, [])),
    %% Neither at once nor never.
    receive after 1000 -> ok end,
    Starts = starts(App),
    ?assert(Starts >= 2 andalso Starts =< 6),
    ?assertEqual({error, port_program}, On(?MODULE, connect_on, [])),
    Stop().

exits_after_hello(Config) ->
    {App, On, Stop} = node_with(Config, [hello(1), "exit 0\n"]),
    {error, _} = On(?MODULE, connected_on, []),
    receive after 1000 -> ok end,
    ?assert(starts(App) =< 6),
    Stop().

speaks_garbage(Config) ->
    {_, On, Stop} = node_with(Config, "echo 'Hello, world! This is no packet' >&4; sleep 60\n"),
    ?assertMatch({error, {path_unavailable, port, no_hello}}, On(?MODULE, connect_on, [])),
    Stop().

speaks_packets_that_are_none(Config) ->
    Rest = [hello(1), packet("\\001\\0\\0\\0\\0\\0\\0\\0\\0"), "sleep 60\n"],
    {_, On, Stop} = node_with(Config, Rest),
    ?assertMatch({error, port_program}, On(?MODULE, connected_on, [])),
    Stop().

another_version(Config) ->
    {App, On, Stop} = node_with(Config, [hello(9), "sleep 60\n"]),
    Expected = {error, {path_unavailable, port, {version, 9}}},
    ?assertEqual(Expected, On(?MODULE, connect_on, [])),
    ?assertEqual(Expected, On(?MODULE, connect_on, [])),
    ?assertEqual(1, starts(App)),
    Stop().

says_nothing(Config) ->
    {_, On, Stop} = node_with(Config, "sleep 60\n"),
    ?assertEqual({error, {path_unavailable, port, no_hello}}, On(?MODULE, connect_on, [])),
    Stop().

%% Packets of 60 KB for an id that nobody has.
floods_nobody(Config) ->
    Rest = [
        hello(1),
        "head -c 60000 /dev/zero >zeros\n",
        "packet() { printf '\\0\\0\\352\\151\\221\\0\\0\\0\\0\\0\\0\\0\\002'; cat zeros; }\n",
        "packet >one; cat one one one one one one one one >many\n",
        "while cat many >&4; do :; done\n"
    ],
    {_, On, Stop} = node_with(Config, Rest),
    ?assertMatch({error, port_program}, On(?MODULE, connected_on, [])),
    ?assert(On(erlang, memory, [total]) < 300000000),
    Stop().

%% The id of the connection is in the packet that asks for it.
floods_a_connection(Config) ->
    Rest = [
        hello(1),
        "head -c 22 <&3 >/dev/null; head -c 5 <&3 >/dev/null; head -c 8 <&3 >id\n",
        "head -c 60000 /dev/zero >zeros\n",
        "packet() { printf '\\0\\0\\352\\151\\221'; cat id zeros; }\n",
        "packet >one; cat one one one one one one one one >many\n",
        "printf '\\0\\0\\0\\011\\220' >&4; cat id >&4\n",
        "while cat many >&4; do :; done\n"
    ],
    {_, On, Stop} = node_with(Config, Rest),
    ?assertEqual({error, port_program}, On(?MODULE, flooded_on, [])),
    ?assert(On(erlang, memory, [total]) < 300000000),
    Stop().

%% Run in the other node: an owner that takes nothing until the program has been replaced.
flooded_on() ->
    {ok, Conn} = erlmcp_native:connect(#{port => test_socket:free_port()}, #{path => port}),
    receive {erlmcp_native, Conn, ready} -> ok after ?WAIT -> error(no_ready) end,
    ended(Conn, now_ms() + ?WAIT).

ended(Conn, Deadline) ->
    case erlmcp_native_port:info() of
        #{routes := 0} ->
            erlmcp_native:recv(Conn, ?WAIT);
        #{} ->
            true = now_ms() < Deadline,
            receive after 10 -> ended(Conn, Deadline) end
    end.

%% Run in the other node.
connect_on() ->
    case erlmcp_native:connect(#{port => test_socket:free_port()}, #{path => port}) of
        {ok, _} -> ok;
        {error, _} = Error -> Error
    end.

connected_on() ->
    Endpoint = #{port => test_socket:free_port()},
    case erlmcp_native:connect(Endpoint, #{path => port, active => false}) of
        {ok, Conn} ->
            receive
                {erlmcp_native, Conn, {down, Reason, final}} -> {error, Reason}
            after ?WAIT -> nothing
            end;
        {error, _} = Error ->
            Error
    end.

%% ---- the program itself

program_by_hand(_) ->
    Command = io_lib:format("'~ts' </dev/null 2>&1; echo $?", [program()]),
    Output = os:cmd(lists:flatten(Command)),
    ?assertMatch({match, _}, re:run(Output, "erlmcp_native")),
    ?assertEqual("2", lists:last(string:lexemes(Output, "\n"))).

program_hears_garbage(_) ->
    Port = hand_started(),
    true = port_command(Port, <<1, 0:64, 1:16, 1:32, 2:16, 2>>),
    ?assertMatch(<<16#81, 0:64, 1:16, _:32>>, from(Port)),
    true = port_command(Port, <<16#10, 2:64, 0:32, "no term">>),
    ?assertEqual(<<16#83, 0:64>>, from(Port)),
    ?assertEqual(4, status(Port)).

%% Every operation, with bodies that are none, for an id that stands for something and for one that
%% does not: it is ignored or refused, and nothing breaks.
program_hears_garbage_of_every_kind(_) ->
    Bodies = [
        <<>>, <<0>>, <<1:32>>, <<0:32, 131, 104, 2, 106, 106>>, <<131, 116, 255, 255, 255, 255>>,
        binary:copy(<<255>>, 100), term_to_binary({#{port => 1}, #{}})
    ],
    Packets = [
        <<Op, Id:64, Body/binary>>
     || Op <- lists:seq(0, 255), Op =/= ?HELLO, Id <- [2, 7], Body <- Bodies
    ],
    Ended = answered(Packets, hand_started_with_connection(), 0),
    ct:log("~b of ~b packets ended a program", [Ended, length(Packets)]),
    ?assert(Ended < length(Packets)).

answered([], Port, Ended) ->
    true = port_close(Port),
    Ended;
answered([Packet | Packets], Port, Ended) ->
    true = port_command(Port, Packet),
    _ =
        try
            port_command(Port, <<?PING, 99:64>>)
        catch
            error:badarg -> gone
        end,
    case answer(Port) of
        pong ->
            answered(Packets, Port, Ended);
        Status ->
            ?assert(Status =:= 4 orelse Status =:= epipe, {Packet, Status}),
            answered(Packets, hand_started_with_connection(), Ended + 1)
    end.

answer(Port) ->
    receive
        {Port, {data, <<?PONG, 99:64>>}} -> pong;
        {Port, {data, _}} -> answer(Port);
        {Port, {exit_status, Status}} -> Status;
        %% It was gone before the question came.
        {'EXIT', Port, Reason} -> Reason
    after ?WAIT -> silent
    end.

hand_started_with_connection() ->
    Port = hand_started(),
    true = port_command(Port, <<?HELLO, 0:64, 1:16, 1:32, 2:16, 0>>),
    {ok, Options} = erlmcp_native_options:connection(#{}),
    Connect = term_to_binary({#{host => {127, 0, 0, 1}, port => 1}, Options}),
    true = port_command(Port, <<16#10, 2:64, 100:32, Connect/binary>>),
    Port.

program_hears_another_version(_) ->
    Port = hand_started(),
    true = port_command(Port, <<1, 0:64, 2:16, "whatever there is in version 2">>),
    ?assertMatch(<<16#81, 0:64, 1:16, _:32>>, from(Port)),
    ?assertEqual(3, status(Port)).

program_hears_nothing(_) ->
    Port = hand_started(),
    true = port_command(Port, <<7, 0:64>>),
    ?assertEqual(4, status(Port)).

program_ends_with_its_input(_) ->
    Port = hand_started(),
    true = port_command(Port, <<1, 0:64, 1:16, 1:32, 2:16, 2>>),
    <<16#81, 0:64, 1:16, OsPid:32>> = from(Port),
    true = port_close(Port),
    gone(OsPid).

hand_started() ->
    open_port({spawn_executable, program()}, [{packet, 4}, binary, nouse_stdio, exit_status]).

from(Port) ->
    receive {Port, {data, Packet}} -> Packet after ?WAIT -> ct:fail(nothing) end.

status(Port) ->
    receive {Port, {exit_status, Status}} -> Status after ?WAIT -> ct:fail(alive) end.

%% ---- nodes

node_is_killed(Config) ->
    {Node, Program} = busy_node(Config),
    kill("KILL", Node),
    gone_within(1000, Program).

node_is_killed_and_program_is_stopped(Config) ->
    case os:type() of
        {unix, linux} ->
            {Node, Program} = busy_node(Config),
            kill("STOP", Program),
            kill("KILL", Node),
            gone_within(1000, Program);
        _ ->
            {skip, "needs a parent-death signal"}
    end.

busy_node(Config) ->
    {Peer, On} = start_node([filename:join(code:lib_dir(erlmcp_native), "ebin")], Config),
    ok = On(?MODULE, be_busy, []),
    {ok, Program} = On(erlmcp_native_port, os_pid, []),
    Node = list_to_integer(On(os, getpid, [])),
    true = unlink(Peer),
    {Node, Program}.

%% Runs in the other node.
be_busy() ->
    Test = self(),
    spawn(fun() ->
        {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{active => true}),
        {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
        {ok, Conn} = erlmcp_native:connect(#{port => Port}, #{active => true}),
        receive {erlmcp_native, Conn, connected} -> Test ! busy end,
        echo_for_ever(Conn)
    end),
    receive busy -> ok after ?WAIT -> timeout end.

echo_for_ever(Conn) ->
    _ = erlmcp_native:send(Conn, binary:copy(<<"x">>, 1000)),
    receive {erlmcp_native, _, _} -> ok after 0 -> ok end,
    echo_for_ever(Conn).

nothing_native(Config) ->
    {Peer, On} = start_node([filename:join(code:lib_dir(erlmcp_native), "ebin")], Config),
    ok = On(?MODULE, use_everything, []),
    ?assertEqual([], On(?MODULE, native_maps, [])),
    ?assertEqual(false, On(erlmcp_native_nif, is_loaded, [])),
    peer:stop(Peer).

%% All modules are loaded at the start, before there is a configuration.
nothing_native_in_embedded_mode(Config) ->
    Dir = filename:join(?config(priv_dir, Config), "embedded"),
    ok = filelib:ensure_path(Dir),
    Boot = filename:join(Dir, "start"),
    ok = make_boot(Boot),
    ok = file:write_file(Boot ++ ".config", "[{erlmcp_native, [{path, port}]}]."),
    {ok, Peer, _} = peer:start_link(#{
        connection => standard_io,
        args => [
            "-boot", Boot, "-mode", "embedded", "-config", Boot,
            "-pa", filename:dirname(code:which(?MODULE))
        ]
    }),
    On = fun(M, F, A) -> peer:call(Peer, M, F, A, ?WAIT) end,
    {module, ?MODULE} = On(code, load_file, [?MODULE]),
    ?assertEqual(embedded, On(code, get_mode, [])),
    ?assertMatch({file, _}, On(code, is_loaded, [erlmcp_native_nif])),
    ?assertEqual(port, On(erlmcp_native_path, default, [])),
    ok = On(?MODULE, use_everything, []),
    ?assertEqual([], On(?MODULE, native_maps, [])),
    peer:stop(Peer).

make_boot(Boot) ->
    Apps = [kernel, stdlib, crypto, asn1, public_key, ssl, erlmcp_native],
    [_ = application:load(App) || App <- Apps],
    Versions = [{App, element(2, application:get_key(App, vsn))} || App <- Apps],
    Release = {release, {"embedded", "1"}, {erts, erlang:system_info(version)}, Versions},
    ok = file:write_file(Boot ++ ".rel", io_lib:format("~tp.~n", [Release])),
    systools:make_script(Boot, [local, no_warn_sasl, {path, code:get_path()}]).

%% Run in the other node.
use_everything() ->
    ok = be_busy(),
    _ = erlmcp_native:overview(),
    ok = erlmcp_native_log:set_level(info),
    _ =
        try
            erlmcp_native_json:decode(<<"{}">>)
        catch
            error:no_json -> no_json
        end,
    ok.

native_maps() ->
    case file:read_file("/proc/self/maps") of
        {ok, Maps} ->
            [Line || Line <- binary:split(Maps, <<"\n">>, [global]),
                binary:match(Line, <<"erlmcp">>) =/= nomatch];
        {error, enoent} ->
            []
    end.

%% ---- helpers

%% A connection that the test owns, to a plain socket.
connection(Options) ->
    test_socket:pair(maps:merge(#{path => port, active => true}, Options)).

sender(Conn) ->
    {ok, erlmcp_native:sender(Conn)}.

%% Connections over which messages go both ways as fast as they can.
load(Count) ->
    {ok, Listener} = erlmcp_native:listen(
        #{port => 0}, #{path => port, handler => {?MODULE, start_echo, []}}
    ),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    [
        spawn_monitor(fun() ->
            {ok, Conn} = erlmcp_native:connect(#{port => Port}, #{path => port, active => true}),
            ok = erlmcp_native:await_connected(Conn, ?WAIT),
            exit({Conn, load_until_down(Conn)})
        end)
     || _ <- lists:seq(1, Count)
    ].

load_until_down(Conn) ->
    _ = [erlmcp_native:send(Conn, binary:copy(<<"x">>, 1000)) || _ <- lists:seq(1, 10)],
    receive
        {erlmcp_native, Conn, {down, _, _} = Down} -> Down;
        {erlmcp_native, Conn, _} -> load_until_down(Conn)
    after ?WAIT -> silent
    end.

start_echo() ->
    {ok, spawn(fun() ->
        receive
            {erlmcp_native_socket, Path, Socket} ->
                {_, Link} = erlmcp_native_link:adopt(Path, Socket),
                echo(Link)
        end
    end)}.

echo(Link) ->
    receive
        Message ->
            case erlmcp_native_link:handle_info(Message, Link) of
                {Events, Next} -> echo_events(Events, Next);
                unknown -> echo(Link)
            end
    end.

echo_events([], Link) -> echo(Link);
echo_events([{down, _, _} | _], _) -> ok;
echo_events([readable | Events], Link) -> echo_taken(Events, Link);
echo_events([_ | Events], Link) -> echo_events(Events, Link).

echo_taken(Events, Link0) ->
    {Items, Status, Link1} = erlmcp_native_link:take(Link0, 100, 100000),
    Link = lists:foldl(fun(I, L) -> element(2, erlmcp_native_link:send(I, L)) end, Link1, Items),
    case Status of
        more -> echo_taken(Events, Link);
        again -> echo_taken(Events, Link);
        {down, _, _} -> ok;
        _ -> echo_events(Events, Link)
    end.

down({_, Monitor}) ->
    reason(Monitor).

with_short_ping(Test) ->
    ok = application:set_env(erlmcp_native, port_ping_ms, 100),
    try
        %% One that has been started with it.
        _ = restarted(running()),
        Test()
    after
        ok = application:unset_env(erlmcp_native, port_ping_ms)
    end.

restarted({ok, Program}) ->
    kill("KILL", Program),
    back(Program).

running() ->
    {ok, Listener} = listen_again(0),
    ok = erlmcp_native:close(Listener),
    erlmcp_native_port:os_pid().

back(Former) -> back(Former, now_ms() + ?WAIT).

back(Former, Deadline) ->
    case erlmcp_native_port:os_pid() of
        {ok, Program} when Program =/= Former ->
            Program;
        _ ->
            ?assert(now_ms() < Deadline),
            receive after 1 -> back(Former, Deadline) end
    end.

node_with(Config, Rest) ->
    Unique = "node" ++ integer_to_list(erlang:unique_integer([positive])),
    Dir = ?config(priv_dir, Config),
    Script = ["cd ", filename:join([Dir, Unique, "erlmcp_native"]), "\n", Rest],
    Ebin = port_programs:application_with(Dir, Unique, Script),
    {Peer, On} = start_node([Ebin], Config),
    {filename:dirname(Ebin), On, fun() -> peer:stop(Peer) end}.

start_node(Paths, _) ->
    {ok, Peer, _} = peer:start_link(#{
        connection => standard_io,
        env => [{"ERL_LIBS", ""}],
        args => ["-pa", filename:dirname(code:which(?MODULE)) | Paths]
    }),
    On = fun(M, F, A) -> peer:call(Peer, M, F, A, 3 * ?WAIT) end,
    ok = On(application, load, [erlmcp_native]),
    ok = On(application, set_env, [erlmcp_native, path, port]),
    {ok, _} = On(application, ensure_all_started, [erlmcp_native]),
    {Peer, On}.

starts(App) ->
    {ok, Starts} = file:read_file(filename:join(App, "starts")),
    length(binary:split(Starts, <<"\n">>, [global, trim_all])).

%% Shell that answers the hello.
hello(Version) ->
    packet(["\\201\\0\\0\\0\\0\\0\\0\\0\\0\\0\\", integer_to_list(Version, 8), "\\0\\0\\0\\1"], 15).

packet(Octal) ->
    packet(Octal, 9).

packet(Octal, Size) ->
    ["printf '\\0\\0\\0\\", integer_to_list(Size, 8), Octal, "' >&4\n"].

program() ->
    filename:join(code:priv_dir(erlmcp_native), "erlmcp_native_port").

kill(Signal, Pid) ->
    _ = os:cmd(lists:concat(["kill -", Signal, " ", Pid])),
    ok.

gone(Pid) ->
    gone_within(?WAIT, Pid).

%% A zombie is gone: its parent has not come for its status yet.
gone_within(Ms, Pid) ->
    gone_before(now_ms() + Ms, Pid).

gone_before(Deadline, Pid) ->
    case state(Pid) of
        [] -> ok;
        "Z" ++ _ -> ok;
        _ ->
            ?assert(now_ms() < Deadline),
            receive after 10 -> gone_before(Deadline, Pid) end
    end.

state(Pid) ->
    case file:read_file(lists:concat(["/proc/", Pid, "/stat"])) of
        {ok, Stat} ->
            string:trim(lists:last(string:split(binary_to_list(Stat), ")", all)));
        {error, _} ->
            %% Where there is no such file system.
            string:trim(os:cmd(lists:concat(["ps -o stat= -p ", Pid, " 2>/dev/null"])))
    end.

now_ms() -> erlang:monotonic_time(millisecond).
