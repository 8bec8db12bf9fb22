%% Child processes: what is said to them and by them, how they end, and that nothing is left of
%% them. One list of cases for each path; what a path cannot do is a case too.
-module(child_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [until/1]).

-define(WAIT, 10000).
-define(MIB, 1048576).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    Native = cases() ++ native_cases() ++ program_cases(),
    [{nif, Native}, {port, Native}, {beam, cases() ++ beam_cases()}].

cases() ->
    [
        messages_go_both_ways,
        large_messages_of_every_plane,
        arguments_arrive_as_they_are,
        environment_is_added,
        environment_is_only_this,
        working_directory,
        everything_said_arrives_before_the_end,
        exit_status_is_the_reason,
        missing_command,
        command_that_is_no_program,
        bad_directory,
        failed_start_leaves_nothing,
        options_are_checked,
        stderr_to_nowhere,
        child_that_never_reads,
        child_that_writes_without_end,
        end_of_input_ends_it,
        heeds_sigterm,
        ignores_sigterm,
        grandchildren_end_with_it,
        survivors_of_its_group_end,
        ends_with_its_owner,
        given_to_another_owner,
        starts_again,
        gives_up_starting,
        under_a_supervisor,
        erlang_server,
        two_hundred_at_once,
        node_is_killed
    ].

native_cases() ->
    [
        signal_is_the_reason,
        stderr_to_owner,
        stderr_to_logger,
        stderr_flood,
        stderr_of_an_owner_that_does_not_read,
        deaf_child_can_still_speak,
        grandchild_holds_the_output,
        last_words_are_read,
        orphans_are_reaped,
        inherited_stderr_is_refused
    ].

program_cases() ->
    [node_is_killed_with_deserters, program_is_killed, exec_mode, exec_mode_ends_with_its_node].

beam_cases() ->
    [stderr_is_refused, signal_is_a_status].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

%% Messages

messages_go_both_ways(Config) ->
    Conn = start(Config, #{command => "cat"}, #{}),
    ok = erlmcp_native:send(Conn, <<"one">>),
    ok = erlmcp_native:send(Conn, [<<"tw">>, $o]),
    ?assertEqual([<<"one">>, <<"two">>], receive_frames(Conn, 2)),
    {ok, #{socket := Socket}} = erlmcp_native:info(Conn),
    ?assertMatch(#{state := open, frames_in := 2, frames_out := 2, os_pid := _}, Socket),
    stop(Conn).

large_messages_of_every_plane(Config) ->
    Conn = start(Config, #{command => "cat"}, #{}),
    Planes = unicode:characters_to_binary([[Plane * 16#10000 + 16#fff0] || Plane <- [0, 1, 2, 16]]),
    Text = <<Planes/binary, "é€"/utf8>>,
    Large = binary:copy(Text, 10 * ?MIB div byte_size(Text)),
    ok = erlmcp_native:send(Conn, Text),
    ok = erlmcp_native:send(Conn, Large, ?WAIT),
    [Text, Echo] = receive_frames(Conn, 2),
    ?assert(Echo =:= Large),
    stop(Conn).

arguments_arrive_as_they_are(Config) ->
    Args = ["", " ", "a b", "\"'$HOME`\\", "*", "-n", "é€"],
    Script = "for a; do printf '<%s>\\n' \"$a\"; done",
    Conn = start(Config, #{command => "sh", args => ["-c", Script, "sh" | Args]}, #{}),
    Wanted = [unicode:characters_to_binary(["<", Arg, ">"]) || Arg <- Args],
    ?assertEqual(Wanted, receive_frames(Conn, length(Args))),
    ?assertEqual({exit_status, 0}, receive_down(Conn)).

environment_is_added(Config) ->
    true = os:putenv("CHILD_SUITE_NODE", "node"),
    true = os:putenv("CHILD_SUITE_TAKEN", "taken"),
    Env = #{"CHILD_SUITE_OWN" => "own", <<"CHILD_SUITE_TAKEN">> => false},
    Script = "echo $CHILD_SUITE_NODE-$CHILD_SUITE_OWN-$CHILD_SUITE_TAKEN",
    Conn = shell(Config, Script, #{env => Env}),
    ?assertEqual([<<"node-own-">>], receive_frames(Conn, 1)),
    true = os:unsetenv("CHILD_SUITE_NODE"),
    true = os:unsetenv("CHILD_SUITE_TAKEN").

environment_is_only_this(Config) ->
    Only = {only, [{"ONE", "1"}, {"PATH", os:getenv("PATH")}]},
    Conn = start(Config, #{command => "env", env => Only}, #{}),
    Lines = until_down(Conn, []),
    ?assertEqual([], Lines -- [<<"ONE=1">>, list_to_binary("PATH=" ++ os:getenv("PATH"))]),
    ?assert(lists:member(<<"ONE=1">>, Lines)).

working_directory(Config) ->
    Dir = filename:join(proplists:get_value(priv_dir, Config), "a folder"),
    ok = filelib:ensure_dir(filename:join(Dir, "file")),
    Conn = shell(Config, "pwd -P", #{cwd => Dir}),
    [Found] = receive_frames(Conn, 1),
    ?assertEqual("a folder", filename:basename(binary_to_list(Found))).

%% The end

everything_said_arrives_before_the_end(Config) ->
    Conn = shell(Config, "seq 1 20000; exit 3", #{}),
    Lines = until_down(Conn, []),
    ?assertEqual([integer_to_binary(N) || N <- lists:seq(1, 20000)], Lines).

exit_status_is_the_reason(Config) ->
    [
        begin
            Script = "read line; exit " ++ integer_to_list(Status),
            Conn = shell(Config, Script, #{}),
            ok = erlmcp_native:send(Conn, <<"end">>),
            ?assertEqual({exit_status, Status}, receive_down(Conn))
        end
     || Status <- [0, 1, 3, 127]
    ].

signal_is_the_reason(Config) ->
    [
        begin
            Conn = shell(Config, "read line; kill -" ++ Name ++ " $$; sleep 10", #{}),
            ok = erlmcp_native:send(Conn, <<"end">>),
            ?assertEqual({signal, Signal}, receive_down(Conn))
        end
     || {Name, Signal} <- [{"KILL", sigkill}, {"TERM", sigterm}, {"SEGV", sigsegv}]
    ].

signal_is_a_status(Config) ->
    Conn = shell(Config, "read line; kill -KILL $$; sleep 10", #{}),
    ok = erlmcp_native:send(Conn, <<"end">>),
    ?assertEqual({exit_status, 137}, receive_down(Conn)).

missing_command(Config) ->
    Missing = refused(Config, #{command => "no-such-command"}),
    ?assertEqual({command, <<"no-such-command">>, enoent}, Missing),
    ?assertEqual({command, <<"/no/such">>, enoent}, refused(Config, #{command => "/no/such"})).

command_that_is_no_program(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "no_program"),
    ok = file:write_file(File, "text"),
    Name = list_to_binary(File),
    ?assertEqual({command, Name, eacces}, refused(Config, #{command => File})),
    ?assertMatch({command, <<"/">>, _}, refused(Config, #{command => "/"})).

bad_directory(Config) ->
    Priv = list_to_binary(proplists:get_value(priv_dir, Config)),
    File = filename:join(Priv, "no_folder"),
    ok = file:write_file(File, "text"),
    ?assertEqual({cwd, <<"/no/such">>, enoent}, refused(Config, cat(#{cwd => "/no/such"}))),
    ?assertEqual({cwd, File, enotdir}, refused(Config, cat(#{cwd => File}))).

failed_start_leaves_nothing(Config) ->
    Before = descriptors(Config),
    [refused(Config, cat(#{cwd => "/no/such"})) || _ <- lists:seq(1, 20)],
    [refused(Config, #{command => "no-such-command"}) || _ <- lists:seq(1, 20)],
    until(fun() -> descriptors(Config) =< Before + 2 end),
    ?assertEqual(0, own_children(Config)).

options_are_checked(Config) ->
    Wrong = [
        {command, ""},
        {command, 17},
        {args, "-y"},
        {args, [17]},
        {env, [{"A=B", "c"}]},
        {env, #{"A" => <<0>>}},
        {cwd, 17},
        {stderr, away},
        {stderr_line_bytes, 0},
        {stdin_grace_ms, -1},
        {sigterm_grace_ms, infinity},
        {unknown, 1}
    ],
    [
        ?assertEqual({error, {option, Key, Value}}, connect(Config, cat(#{Key => Value}), #{}))
     || {Key, Value} <- Wrong
    ],
    ?assertEqual(
        {error, {option, half_close, true}}, connect(Config, cat(#{}), #{half_close => true})
    ),
    ?assertMatch({error, {option, tls, _}}, connect(Config, cat(#{}), #{tls => true})),
    ?assertMatch({error, {option, endpoint, _}}, erlmcp_native:listen(cat(#{}), #{})),
    ?assertEqual({error, {option, framing, none}}, connect(Config, cat(#{}), #{framing => none})).

%% Standard error

stderr_to_nowhere(Config) ->
    Script = "head -c 1000000 /dev/zero >&2; echo done; cat",
    Conn = shell(Config, Script, #{stderr => null}),
    ?assertEqual([<<"done">>], receive_frames(Conn, 1)),
    stop(Conn).

stderr_to_owner(Config) ->
    Script = "echo one >&2; printf 'two\\r\\n\\n' >&2; printf 'abcdefghijkl\\nend' >&2; cat",
    Conn = shell(Config, Script, #{stderr => owner, stderr_line_bytes => 10}),
    ?assertEqual([<<"one">>, <<"two">>, <<"abcdefghij">>], receive_stderr(Conn, 3)),
    {ok, #{socket := #{os_pid := Pid}}} = erlmcp_native:info(Conn),
    kill(Pid),
    ?assertEqual([<<"end">>], receive_stderr(Conn, 1)),
    ?assertEqual({signal, sigkill}, receive_down(Conn)).

stderr_to_logger(Config) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => self()}),
    Script = "printf 'caf\\303\\251 \\377\\n' >&2; seq 1 5000 >&2; cat",
    Conn = shell(Config, Script, #{name => "server", stderr_lines_per_s => 10}),
    ?assertEqual("server: caf" ++ [16#c3, 16#a9, 32, 16#ff], receive_log("server: caf")),
    Dropped = not_shown(0),
    ?assert(Dropped > 4900 andalso Dropped < 5000),
    stop(Conn),
    ok = logger:remove_handler(?MODULE).

not_shown(Count) ->
    receive
        {logged, "server: " ++ Text} ->
            case string:to_integer(Text) of
                {More, " lines not shown"} -> not_shown(Count + More);
                _ -> not_shown(Count)
            end
    after 2000 -> Count
    end.

%% The callback of the handler.
log(#{msg := {Format, Args}}, #{config := Test}) ->
    Test ! {logged, lists:flatten(io_lib:format(Format, Args))};
log(_, _) ->
    ok.

stderr_flood(Config) ->
    Script = "yes 'a line that nobody wants' >&2 & echo begun; cat; kill $!",
    Conn = shell(Config, Script, #{stderr => logger, stderr_lines_per_s => 1}),
    ?assertEqual([<<"begun">>], receive_frames(Conn, 1)),
    Memory = memory(Config),
    [
        begin
            ok = erlmcp_native:send(Conn, <<"ping">>),
            ?assertEqual([<<"ping">>], receive_frames(Conn, 1))
        end
     || _ <- lists:seq(1, 1000)
    ],
    ?assert(memory(Config) - Memory < 32 * ?MIB),
    stop(Conn).

stderr_of_an_owner_that_does_not_read(Config) ->
    Conn = shell(Config, "yes >&2 & echo begun; cat; kill $!", #{stderr => owner}),
    await_steady(fun() -> queue_length(self()) end),
    ?assert(iolist_size(flush_stderr(Conn)) < 2 * ?MIB),
    %% There is room again, and it is told what was dropped.
    until(fun() -> lists:keymember(dropped, 1, receive_stderr(Conn, 1)) end),
    stop(Conn).

inherited_stderr_is_refused(Config) ->
    ?assertEqual(
        {error, {path_unavailable, port, {stderr, inherit}}},
        connect(Config, cat(#{stderr => inherit}), #{})
    ).

stderr_is_refused(Config) ->
    [
        ?assertEqual(
            {error, {path_unavailable, beam, {stderr, Where}}},
            connect(Config, cat(#{stderr => Where}), #{})
        )
     || Where <- [logger, owner]
    ].

%% Flow control

child_that_never_reads(Config) ->
    Options = #{max_queue_bytes => ?MIB},
    Conn = start(Config, #{command => "sleep", args => ["1000"]}, Options),
    Message = binary:copy(<<"x">>, 65000),
    Sent = send_until_busy(Conn, Message, 0),
    ?assert(Sent * 65000 < 2 * ?MIB),
    ?assertEqual({error, busy}, erlmcp_native:send(Conn, Message)),
    stop(Conn).

child_that_writes_without_end(Config) ->
    Before = memory(Config),
    Options = #{high_water_bytes => ?MIB, active => false},
    Conn = start(Config, #{command => "yes", args => [lists:duplicate(100, $x)]}, Options),
    await_steady(fun() -> waiting(Conn) end),
    ?assert(waiting(Conn) < 8 * ?MIB),
    ?assert(memory(Config) - Before < 32 * ?MIB),
    %% It goes on as what there is is taken.
    Taken = take_bytes(Conn, 0, 32 * ?MIB),
    ?assert(Taken >= 32 * ?MIB),
    ?assert(memory(Config) - Before < 64 * ?MIB),
    stop(Conn).

deaf_child_can_still_speak(Config) ->
    Conn = shell(Config, "exec <&-; echo deaf; sleep 0.5; echo last; exit 4", #{}),
    ?assertEqual([<<"deaf">>], receive_frames(Conn, 1)),
    _ = erlmcp_native:send(Conn, <<"message">>),
    ?assertEqual([<<"last">>], receive_frames(Conn, 1)),
    ?assertEqual({exit_status, 4}, receive_down(Conn)).

%% Shutdown

end_of_input_ends_it(Config) ->
    Seen = seen(Config, "eof"),
    Conn = shell(Config, "echo up; cat >/dev/null; echo eof >" ++ Seen, #{}),
    Pid = os_pid(Conn),
    [<<"up">>] = receive_frames(Conn, 1),
    ok = erlmcp_native:close(Conn),
    await_gone(Pid),
    ?assertEqual({ok, <<"eof\n">>}, file:read_file(Seen)).

heeds_sigterm(Config) ->
    Seen = seen(Config, "term"),
    Script = "trap 'echo term >" ++ Seen ++ "; exit' TERM; echo up; while :; do sleep 0.05; done",
    Conn = shell(Config, Script, #{stdin_grace_ms => 300}),
    Pid = os_pid(Conn),
    [<<"up">>] = receive_frames(Conn, 1),
    Start = now_ms(),
    ok = erlmcp_native:close(Conn),
    await_gone(Pid),
    ?assert(now_ms() - Start >= 250),
    ?assertEqual({ok, <<"term\n">>}, file:read_file(Seen)).

ignores_sigterm(Config) ->
    Script = "trap '' TERM; echo up; while :; do sleep 0.05; done",
    Conn = shell(Config, Script, #{stdin_grace_ms => 200, sigterm_grace_ms => 200}),
    Pid = os_pid(Conn),
    [<<"up">>] = receive_frames(Conn, 1),
    Start = now_ms(),
    ok = erlmcp_native:close(Conn),
    await_gone(Pid),
    Took = now_ms() - Start,
    ?assert(Took >= 350 andalso Took < 3000).

grandchildren_end_with_it(Config) ->
    Script = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $!; wait",
    Conn = shell(Config, Script, #{stdin_grace_ms => 100, sigterm_grace_ms => 100}),
    Pid = os_pid(Conn),
    [Grandchild] = receive_frames(Conn, 1),
    ok = erlmcp_native:close(Conn),
    await_gone(Pid),
    await_gone(binary_to_integer(Grandchild)).

survivors_of_its_group_end(Config) ->
    Script = "sleep 1000 >/dev/null </dev/null 2>&1 & echo $!; exit 5",
    Conn = shell(Config, Script, #{sigterm_grace_ms => 100}),
    [Survivor] = receive_frames(Conn, 1),
    ?assertEqual({exit_status, 5}, receive_down(Conn)),
    await_gone(binary_to_integer(Survivor)).

grandchild_holds_the_output(Config) ->
    Script = "trap '' TERM; sleep 1000 & echo $!; exit 5",
    Conn = shell(Config, Script, #{sigterm_grace_ms => 1000}),
    [Survivor] = receive_frames(Conn, 1),
    Start = now_ms(),
    ?assertEqual({exit_status, 5}, receive_down(Conn)),
    ?assert(now_ms() - Start < 900),
    await_gone(binary_to_integer(Survivor)).

%% Whoever is to reap them, when their parent is gone, has not been told.
orphans_are_reaped(Config) ->
    Script = "sleep 0.1 & setsid sleep 0.2 & echo $!; read line",
    Conn = shell(Config, Script, #{}),
    [Deserter] = receive_frames(Conn, 1),
    stop(Conn),
    await_gone(binary_to_integer(Deserter)),
    receive after 1100 -> ok end,
    stop(start(Config, cat(#{}), #{})),
    until(fun() -> own_children(Config) =:= 0 end).

last_words_are_read(Config) ->
    Seen = seen(Config, "said"),
    Conn = shell(Config, "echo up; cat >/dev/null; seq 1 100000 && echo said >" ++ Seen, #{}),
    [<<"up">>] = receive_frames(Conn, 1),
    stop(Conn),
    ?assertEqual({ok, <<"said\n">>}, file:read_file(Seen)).

ends_with_its_owner(Config) ->
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() ->
        Conn = start(Config, #{command => "cat"}, #{}),
        Test ! {pid, os_pid(Conn)},
        receive never -> ok end
    end),
    Pid = receive {pid, Found} -> Found after ?WAIT -> ct:fail(no_pid) end,
    exit(Owner, kill),
    receive {'DOWN', Monitor, process, _, _} -> ok end,
    await_gone(Pid).

given_to_another_owner(Config) ->
    Conn = start(Config, #{command => "cat"}, #{}),
    Test = self(),
    Other = spawn_link(fun() ->
        Frames = receive_frames(Conn, 1),
        Test ! {heard, Frames},
        receive stop -> ok end
    end),
    ok = erlmcp_native:controlling_process(Conn, Other),
    ok = erlmcp_native:send(Conn, <<"to another">>),
    receive {heard, Frames} -> ?assertEqual([<<"to another">>], Frames)
    after ?WAIT -> ct:fail(nothing_heard)
    end,
    Pid = os_pid(Conn),
    Other ! stop,
    await_gone(Pid).

%% Again

starts_again(Config) ->
    Reconnect = #{min_ms => 1, max_ms => 10},
    Conn = shell(Config, "read line; exit 3", #{}, #{reconnect => Reconnect}),
    [
        begin
            ok = erlmcp_native:send(Conn, <<"end">>),
            ?assertMatch({{exit_status, 3}, {retry_in, _}}, receive_lost(Conn)),
            ok = erlmcp_native:await_connected(Conn, ?WAIT)
        end
     || _ <- lists:seq(1, 3)
    ],
    Pid = os_pid(Conn),
    stop(Conn),
    await_gone(Pid).

gives_up_starting(Config) ->
    Reconnect = #{min_ms => 1, max_ms => 2, max_attempts => 2},
    {ok, Conn} = connect(Config, #{command => "no-such-command"}, #{reconnect => Reconnect}),
    Reason = {command, <<"no-such-command">>, enoent},
    ?assertMatch({Reason, {retry_in, _}}, receive_lost(Conn)),
    ?assertMatch({Reason, {retry_in, _}}, receive_lost(Conn)),
    ?assertEqual({Reason, final}, receive_lost(Conn)).

under_a_supervisor(Config) ->
    true = register(child_suite_owner, self()),
    Spec = erlmcp_native:child_spec(#{
        endpoint => #{command => "cat"},
        owner => child_suite_owner,
        options => #{path => path(Config), active => true}
    }),
    {ok, Supervisor} = supervisor:start_link(?MODULE, [Spec]),
    Conn = receive {erlmcp_native, Found, connected} -> Found after ?WAIT -> ct:fail(none) end,
    Pid = os_pid(Conn),
    kill(Pid),
    ?assertMatch({_, {retry_in, 0}}, receive_lost(Conn)),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    %% The process itself is the supervisor's to start again.
    exit(Conn, kill),
    Next = receive {erlmcp_native, Other, connected} -> Other after ?WAIT -> ct:fail(none) end,
    ?assertNotEqual(Conn, Next),
    Last = os_pid(Next),
    true = unlink(Supervisor),
    exit(Supervisor, shutdown),
    await_gone(Last),
    true = unregister(child_suite_owner).

init(Children) ->
    {ok, {#{strategy => one_for_one}, Children}}.

two_hundred_at_once(Config) ->
    stop(start(Config, #{command => "cat"}, #{})),
    Files = descriptors(Config),
    Processes = length(processes()),
    Ports = length(erlang:ports()),
    Conns = [start(Config, #{command => "cat"}, #{}) || _ <- lists:seq(1, 200)],
    [ok = erlmcp_native:send(Conn, integer_to_binary(N)) || {N, Conn} <- numbered(Conns)],
    [[_] = receive_frames(Conn, 1) || Conn <- Conns],
    Pids = [os_pid(Conn) || Conn <- Conns],
    [ok = erlmcp_native:close(Conn) || Conn <- Conns],
    [await_gone(Pid) || Pid <- Pids],
    until(fun() -> own_children(Config) =:= 0 end),
    until(fun() -> descriptors(Config) =< Files + 2 end),
    until(fun() -> length(processes()) =< Processes + 2 end),
    until(fun() -> length(erlang:ports()) =< Ports + 1 end).

%% A node that serves its own standard input and output.
erlang_server(Config) ->
    Ebin = filename:dirname(code:which(erlmcp_native)),
    Erl = filename:join([code:root_dir(), "bin", "erl"]),
    Env = #{
        "STDIO_OPTIONS" => io_lib:format("#{path => ~p}", [path(Config)]),
        "STDIO_ENV" => "[]",
        "ERL_CRASH_DUMP_SECONDS" => "0"
    },
    Args = [
        "-noinput", "-pa", Ebin, filename:dirname(code:which(?MODULE)), "-s", "stdio_server", "main"
    ],
    Conn = start(Config, #{command => Erl, args => Args, env => Env}, #{}),
    Large = binary:copy(<<"é€😀 "/utf8>>, ?MIB),
    [
        begin
            ok = erlmcp_native:send(Conn, Message, ?WAIT),
            [Echo] = receive_frames(Conn, 1),
            ?assert(Echo =:= Message)
        end
     || Message <- [<<"hello">>, Large, <<"{}">>]
    ],
    stop(Conn).

%% Faults

node_is_killed(Config) ->
    {Node, Peer} = peer_node(Config),
    Script = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $!; wait",
    {Child, Grandchild} = peer:call(Peer, ?MODULE, family, [path(Config), Script]),
    kill(Node),
    Start = now_ms(),
    await_gone(Child),
    await_gone(Grandchild),
    ?assert(now_ms() - Start < 1500).

%% Runs on the other node, in a process that stays.
family(Path, Script) ->
    Caller = self(),
    spawn(fun() ->
        Conn = shell([{path, Path}], Script, #{}),
        [Grandchild] = receive_frames(Conn, 1),
        Caller ! {family, {os_pid(Conn), binary_to_integer(Grandchild)}},
        receive never -> ok end
    end),
    receive {family, Family} -> Family after ?WAIT -> exit(timeout) end.

%% Those that have left the group.
node_is_killed_with_deserters(Config) ->
    {Node, Peer} = peer_node(Config),
    Script = "setsid sh -c 'trap \"\" TERM; sleep 1000 & echo $$; wait' & wait",
    {Child, Deserter} = peer:call(Peer, ?MODULE, family, [path(Config), Script]),
    kill(Node),
    await_gone(Child),
    await_gone(Deserter).

program_is_killed(Config) ->
    Script = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & echo $!; wait",
    Conn = shell(Config, Script, #{}),
    [Grandchild] = receive_frames(Conn, 1),
    Pid = os_pid(Conn),
    {ok, Program} = erlmcp_native_port:os_pid(),
    kill(Program),
    ?assertEqual(port_program, receive_down(Conn)),
    await_gone(Pid),
    await_gone(binary_to_integer(Grandchild)),
    %% There is another.
    stop(start(Config, #{command => "cat"}, #{})).

exec_mode(_) ->
    Program = filename:join(code:priv_dir(erlmcp_native), "erlmcp_native_port"),
    Run = fun(Script) ->
        Args = ["exec", "sh", "-c", Script],
        Options = [{args, Args}, binary, exit_status, {line, 100}],
        open_port({spawn_executable, Program}, Options)
    end,
    Echo = Run("read line; echo $line; exit 7"),
    true = port_command(Echo, "hello\n"),
    receive {Echo, {data, {eol, <<"hello">>}}} -> ok after ?WAIT -> ct:fail(no_echo) end,
    receive {Echo, {exit_status, 7}} -> ok after ?WAIT -> ct:fail(no_status) end,
    Killed = Run("kill -9 $$"),
    receive {Killed, {exit_status, 137}} -> ok after ?WAIT -> ct:fail(no_status) end,
    Stubborn = Run("trap '' TERM; sleep 1000 & echo $!; echo $$; wait; wait"),
    [Grandchild, Child] = [
        receive {Stubborn, {data, {eol, Pid}}} -> binary_to_integer(Pid) after ?WAIT -> none end
     || _ <- [1, 2]
    ],
    true = port_close(Stubborn),
    await_gone(Child),
    await_gone(Grandchild).

exec_mode_ends_with_its_node(Config) ->
    {Node, Peer} = peer_node(Config),
    {Exec, Child} = peer:call(Peer, ?MODULE, exec_child, []),
    kill(Node),
    await_gone(Child),
    await_gone(Exec).

exec_child() ->
    Caller = self(),
    spawn(fun() ->
        Program = filename:join(code:priv_dir(erlmcp_native), "erlmcp_native_port"),
        Args = ["exec", "sh", "-c", "echo $$; exec sleep 1000"],
        Port = open_port({spawn_executable, Program}, [{args, Args}, binary, {line, 100}]),
        {os_pid, Exec} = erlang:port_info(Port, os_pid),
        receive {Port, {data, {eol, Child}}} -> Caller ! {exec, {Exec, binary_to_integer(Child)}}
        end,
        receive never -> ok end
    end),
    receive {exec, Pids} -> Pids after ?WAIT -> exit(timeout) end.

%% Helpers

path(Config) -> proplists:get_value(path, Config).

connect(Config, Child, Options) ->
    erlmcp_native:connect(Child, maps:merge(#{path => path(Config), active => true}, Options)).

start(Config, Child, Options) ->
    {ok, Conn} = connect(Config, Child, Options),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    Conn.

shell(Config, Script, Child) -> shell(Config, Script, Child, #{}).

shell(Config, Script, Child, Options) ->
    start(Config, Child#{command => "sh", args => ["-c", Script]}, Options).

cat(Child) -> Child#{command => maps:get(command, Child, "cat")}.

refused(Config, Child) ->
    {ok, Conn} = connect(Config, Child, #{}),
    receive_down(Conn).

stop(Conn) ->
    Pid = os_pid(Conn),
    ok = erlmcp_native:close(Conn),
    await_gone(Pid).

os_pid(Conn) ->
    {ok, #{socket := #{os_pid := Pid}}} = erlmcp_native:info(Conn),
    Pid.

receive_frames(_, 0) ->
    [];
receive_frames(Conn, Count) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            Frames ++ receive_frames(Conn, Count - length(Frames));
        {erlmcp_native, Conn, {down, Reason, _}} ->
            ct:fail({down, Reason, Count})
    after ?WAIT -> ct:fail({missing, Count})
    end.

until_down(Conn, Acc) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} -> until_down(Conn, lists:reverse(Frames, Acc));
        {erlmcp_native, Conn, {down, _, final}} -> lists:reverse(Acc)
    after ?WAIT -> ct:fail(no_end)
    end.

receive_down(Conn) ->
    {Reason, final} = receive_lost(Conn),
    Reason.

receive_lost(Conn) ->
    receive
        {erlmcp_native, Conn, {down, Reason, Next}} -> {Reason, Next}
    after ?WAIT -> ct:fail(no_end)
    end.

receive_stderr(_, Count) when Count =< 0 ->
    [];
receive_stderr(Conn, Count) ->
    receive
        {erlmcp_native, Conn, {stderr, Lines}} ->
            Lines ++ receive_stderr(Conn, Count - length(Lines))
    after ?WAIT -> ct:fail({missing, Count})
    end.

flush_stderr(Conn) ->
    receive
        {erlmcp_native, Conn, {stderr, Lines}} ->
            [[Line || Line <- Lines, is_binary(Line)] | flush_stderr(Conn)]
    after 0 -> []
    end.

receive_log(Part) ->
    receive
        {logged, Text} ->
            case string:find(Text, Part) of
                nomatch -> receive_log(Part);
                _ -> Text
            end
    after ?WAIT -> ct:fail({not_logged, Part})
    end.

send_until_busy(Conn, Message, Sent) when Sent < 1000 ->
    case erlmcp_native:send(Conn, Message) of
        ok -> send_until_busy(Conn, Message, Sent + 1);
        {error, busy} -> Sent
    end.

take_bytes(_, Taken, Wanted) when Taken >= Wanted ->
    Taken;
take_bytes(Conn, Taken, Wanted) ->
    {ok, Items} = erlmcp_native:recv(Conn, ?WAIT),
    take_bytes(Conn, Taken + iolist_size(Items), Wanted).

waiting(Conn) ->
    {ok, #{socket := #{inbound_bytes := Bytes}}} = erlmcp_native:info(Conn),
    Bytes.

%% Of this node and, where there is one, the program.
memory(Config) ->
    erlang:memory(binary) + erlang:memory(processes) +
        case program(Config) of
            none -> 0;
            Program -> resident(Program)
        end.

program(Config) ->
    case path(Config) of
        beam ->
            none;
        _ ->
            case erlmcp_native_port:os_pid() of
                {ok, Pid} -> Pid;
                {error, _} -> none
            end
    end.

resident(Pid) ->
    Kilobytes = string:trim(os:cmd("ps -o rss= -p " ++ integer_to_list(Pid))),
    list_to_integer(Kilobytes) * 1024.

descriptors(Config) ->
    Pid =
        case program(Config) of
            none -> os:getpid();
            Program -> integer_to_list(Program)
        end,
    case file:list_dir("/proc/" ++ Pid ++ "/fd") of
        {ok, Files} -> length(Files);
        {error, _} -> 0
    end.

%% Of the program, but for its guard.
own_children(Config) ->
    case program(Config) of
        none ->
            0;
        Program ->
            Lines = string:lexemes(os:cmd("ps -A -o ppid=,args="), "\n"),
            Ours = [
                Line
             || Line <- Lines,
                [Parent | Args] <- [string:lexemes(Line, " ")],
                Parent =:= integer_to_list(Program),
                Args =/= ["erlmcp_native_port", "guard"]
            ],
            length(Ours)
    end.

queue_length(Pid) ->
    {message_queue_len, Length} = process_info(Pid, message_queue_len),
    Length.

seen(Config, Name) ->
    filename:join(
        proplists:get_value(priv_dir, Config), atom_to_list(path(Config)) ++ "_" ++ Name
    ).

kill(Pid) when is_integer(Pid) ->
    [] = os:cmd("kill -9 " ++ integer_to_list(Pid)),
    ok.

%% A zombie is what init has not looked at yet.
await_gone(Pid) ->
    until(fun() ->
        case string:trim(os:cmd("ps -o stat= -p " ++ integer_to_list(Pid))) of
            [] -> true;
            [$Z | _] -> true;
            _ -> false
        end
    end).

%% Until it has not changed for a while.
await_steady(Fun) -> await_steady(Fun, Fun(), now_ms()).

await_steady(Fun, Value, Since) ->
    receive after 20 -> ok end,
    case Fun() of
        Value when Value > 0 ->
            case now_ms() - Since > 500 of
                true -> ok;
                false -> await_steady(Fun, Value, Since)
            end;
        Other ->
            await_steady(Fun, Other, now_ms())
    end.

numbered(List) -> lists:zip(lists:seq(1, length(List)), List).

now_ms() -> erlang:monotonic_time(millisecond).

peer_node(Config) ->
    Paths = lists:append([["-pa", Path] || Path <- code:get_path(), filelib:is_dir(Path)]),
    {ok, Peer, _} = peer:start(#{connection => standard_io, args => Paths}),
    {ok, _} = peer:call(Peer, application, ensure_all_started, [erlmcp_native]),
    {ok, _} = peer:call(Peer, erlmcp_native_path, use, [path(Config)]),
    {list_to_integer(peer:call(Peer, os, getpid, [])), Peer}.
