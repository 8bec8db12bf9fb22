%% @doc What it costs when a process dies: how long until its supervisor has started it again, and
%% who else is affected. Processes are killed (`exit(Pid, kill)') in a VM of its own, their server
%% is in another.
%%
%% Three kinds of kills: of connections under a supervisor of the user's, most of them; of the
%% registry, in between; and of the supervisor that has all connections.
-module(erlmcp_native_bottleneck_restart).

-export([run/1]).

%% Called in the other VM.
-export([measure/4]).

-record(kills, {
    tree :: module(),
    port :: inet:port_number(),
    path :: erlmcp_native_report:path(),
    restarted = [] :: [non_neg_integer()],
    connected = [] :: [non_neg_integer()],
    cascades = 0 :: non_neg_integer(),
    affected = 0 :: non_neg_integer(),
    trees_lost = 0 :: non_neg_integer()
}).

-define(KILLS, 1000).
-define(CHILDREN, 50).
-define(CONNECTIONS, 1000).
-define(SUPERVISOR_KILLS, 5).
%% Each so many kills one is the registry's.
-define(REGISTRY_1_IN, 250).
-define(WAIT_MS, 30000).

%% @doc Options: `paths', `baseline', `kills', `children', `connections', `supervisor_kills'.
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Cases = [
        {Path, erlmcp_native_bottleneck_tree}
     || Path <- maps:get(paths, Options, [nif, port, beam])
    ],
    Measured = [measured(Case, Options) || Case <- Cases ++ baseline(Options)],
    #{
        name => restart,
        rows => lists:append([rows(M) || M <- Measured]),
        metrics => metrics(hd(Measured)),
        evidence => Measured
    }.

baseline(#{baseline := Baseline}) when Baseline =/= none -> [{erlmcp05, Baseline:tree()}];
baseline(_) -> [].

measured({Path, Tree}, Options) ->
    erlmcp_native_progress:say(Options, "restart: ~s", [Path]),
    erlmcp_native_analysis_vm:with(beam, [], fun(Server) ->
        Port = erlmcp_native_analysis_vm:call(
            Server, erlmcp_native_analysis_peer, tcp, [0, beam]
        ),
        erlmcp_native_analysis_vm:with(Path, [], fun(Vm) ->
            Sizes = #{
                kills => maps:get(kills, Options, ?KILLS),
                children => maps:get(children, Options, ?CHILDREN),
                connections => maps:get(connections, Options, ?CONNECTIONS),
                supervisor_kills => maps:get(supervisor_kills, Options, ?SUPERVISOR_KILLS)
            },
            erlmcp_native_analysis_vm:call(Vm, ?MODULE, measure, [Tree, Port, Path, Sizes])
        end)
    end).

%% @private
-spec measure(module(), inet:port_number(), erlmcp_native_report:path(), map()) -> map().
measure(Tree, Port, Path, #{kills := Kills, children := Children} = Sizes) ->
    ok = Tree:start(Path),
    Kill = #kills{tree = Tree, port = Port, path = Path},
    Living = maps:from_list([added(Kill) || _ <- lists:seq(1, Children)]),
    {Rest, Killed} = kill_children(1, Kills, Living, Kill),
    _ = [ended(Monitor, Pid) || {Pid, Monitor} <- maps:to_list(Rest)],
    Supervisor = [
        kill_supervisor(Kill, maps:get(connections, Sizes))
     || _ <- lists:seq(1, maps:get(supervisor_kills, Sizes))
    ],
    result(Killed, Kills, Supervisor, Sizes).

result(Killed, Kills, Supervisor, #{connections := Connections, children := Children}) ->
    #kills{path = Path, restarted = Restarted, connected = Connected} = Killed,
    #{
        path => Path,
        kills => Kills,
        children => Children,
        connections => Connections,
        restarted_us => summary(Restarted),
        connected_us => summary(Connected),
        cascades => Killed#kills.cascades,
        affected => Killed#kills.affected,
        trees_lost => Killed#kills.trees_lost,
        supervisor_us => summary([Us || {Us, _} <- Supervisor]),
        restored_us => summary([Us || {_, Us} <- Supervisor])
    }.

added(#kills{tree = Tree, port = Port, path = Path}) ->
    {ok, Pid} = Tree:child(Port, Path),
    receive
        {started, Pid, _} -> ok
    after ?WAIT_MS -> exit({not_started, Pid})
    end,
    ok = connected(Pid),
    {Pid, monitor(process, Pid)}.

connected(Pid) ->
    receive
        {erlmcp_native, Pid, connected} -> ok;
        {transport_connected, Pid} -> ok
    after ?WAIT_MS -> exit({not_connected, Pid})
    end.

kill_children(N, Kills, Living, Kill) when N > Kills ->
    {Living, Kill};
kill_children(N, Kills, Living, Kill) when N rem ?REGISTRY_1_IN =:= 0 ->
    #kills{tree = Tree} = Kill,
    _ = [killed(Registry) || Registry <- [Tree:registry()], Registry =/= undefined],
    ok = back(fun Tree:registry/0, Tree),
    {Left, Next} = look_around(Living, Kill),
    kill_children(N + 1, Kills, Left, Next);
kill_children(N, Kills, Living, #kills{tree = Tree} = Kill) ->
    {Victim, Monitor} = lists:nth(rand:uniform(map_size(Living)), maps:to_list(Living)),
    true = demonitor(Monitor, [flush]),
    At = killed(Victim),
    {Added, Timed} = started_again(Tree:restarts_children(), At, Kill),
    {Left, Next} = look_around(maps:remove(Victim, Living), Timed),
    kill_children(N + 1, Kills, maps:merge(Left, Added), Next).

%% The time of the kill; the process has ended when this returns.
killed(Pid) ->
    Monitor = monitor(process, Pid),
    At = erlang:monotonic_time(),
    true = exit(Pid, kill),
    receive
        {'DOWN', Monitor, process, Pid, _} -> At
    end.

ended(Monitor, Pid) ->
    true = demonitor(Monitor, [flush]),
    killed(Pid).

started_again(false, _, Kill) ->
    {Pid, Monitor} = added(Kill),
    {#{Pid => Monitor}, Kill};
started_again(true, At, #kills{restarted = Restarted, connected = Connected} = Kill) ->
    receive
        {started, Pid, StartedAt} ->
            ok = connected(Pid),
            Now = erlang:monotonic_time(),
            {#{Pid => monitor(process, Pid)}, Kill#kills{
                restarted = [StartedAt - At | Restarted], connected = [Now - At | Connected]
            }}
    after ?WAIT_MS -> exit(not_restarted)
    end.

%% Who else has ended, or lost its connection, since the last kill.
look_around(Living, #kills{tree = Tree, cascades = Cascades, affected = Affected} = Kill) ->
    Dead = [Pid || Pid <- maps:keys(Living), not is_process_alive(Pid)],
    Down = [Pid || Pid <- lost([]), not lists:member(Pid, Dead), is_map_key(Pid, Living)],
    _ = [demonitor(maps:get(Pid, Living), [flush]) || Pid <- Dead],
    Lost = not Tree:alive(),
    ok = Tree:start(Kill#kills.path),
    Replaced = maps:from_list([added(Kill) || _ <- Dead, not Tree:restarts_children()]),
    Next = Kill#kills{
        cascades = Cascades + count(Dead =/= [] orelse Down =/= [] orelse Lost),
        affected = Affected + length(Dead) + length(Down),
        trees_lost = Kill#kills.trees_lost + count(Lost)
    },
    {maps:merge(maps:without(Dead, Living), Replaced), Next}.

lost(Pids) ->
    receive
        {erlmcp_native, Pid, {down, _, _}} -> lost([Pid | Pids])
    after 0 -> Pids
    end.

count(true) -> 1;
count(false) -> 0.

%% Until there is another process, and it works; or the tree has gone.
back(Fun, Tree) ->
    case Fun() of
        Pid when is_pid(Pid) ->
            case is_process_alive(Pid) of
                true -> ok;
                false -> again(Fun, Tree)
            end;
        undefined ->
            again(Fun, Tree)
    end.

again(Fun, Tree) ->
    erlang:yield(),
    case Tree:alive() of
        true -> back(Fun, Tree);
        false -> ok
    end.

%% How long until another connection can be started, and until as many are there as before.
kill_supervisor(#kills{tree = Tree, port = Port, path = Path} = Kill, Connections) ->
    ok = Tree:start(Path),
    Pids = [opened(Kill) || _ <- lists:seq(1, Connections)],
    At = killed(Tree:supervisor()),
    ok = usable(Tree, Port, Path),
    Back = erlang:monotonic_time(),
    ok = erlmcp_native_parallel:gone(Pids),
    Again = [opened(Kill) || _ <- lists:seq(1, Connections)],
    Restored = erlang:monotonic_time(),
    _ = [killed(Pid) || Pid <- Again],
    {Back - At, Restored - At}.

opened(#kills{tree = Tree, port = Port, path = Path}) ->
    {ok, Pid} = Tree:connection(Port, Path),
    ok = connected(Pid),
    Pid.

usable(Tree, Port, Path) ->
    try Tree:connection(Port, Path) of
        {ok, Pid} ->
            _ = killed(Pid),
            ok;
        _ ->
            usable(Tree, Port, Path)
    catch
        exit:_ ->
            erlang:yield(),
            ok = Tree:start(Path),
            usable(Tree, Port, Path)
    end.

summary(Native) ->
    erlmcp_native_statistics:summary([
        erlang:convert_time_unit(N, native, nanosecond) / 1000
     || N <- Native
    ]).

rows(#{path := Path, kills := Kills, restarted_us := Child, supervisor_us := Supervisor} = M) ->
    #{cascades := Cascades, affected := Affected, restored_us := Restored} = M,
    [
        child_row(Path, Child),
        erlmcp_native_report:row(restart_supervisor, #{
            path => Path,
            value => in_ms(p50, Supervisor),
            samples => maps:get(count, Supervisor),
            spread => spread(Supervisor)
        }),
        erlmcp_native_report:row(restart_restored, #{
            path => Path,
            value => in_ms(p50, Restored),
            samples => maps:get(count, Restored),
            spread => spread(Restored)
        }),
        erlmcp_native_report:row(restart_cascades, #{
            path => Path, value => Cascades, samples => Kills
        }),
        erlmcp_native_report:row(restart_affected, #{
            path => Path, value => Affected / Kills, samples => Kills
        })
    ].

child_row(Path, #{count := 0}) ->
    erlmcp_native_report:row(restart_child, #{
        path => Path, value => null, samples => 0, note => <<"a child that dies stays dead">>
    });
child_row(Path, #{count := Count} = Child) ->
    erlmcp_native_report:row(restart_child, #{
        path => Path, value => in_ms(p95, Child), samples => Count, spread => spread(Child)
    }).

in_ms(Key, Summary) -> maps:get(Key, Summary) / 1000.

spread(Summary) ->
    maps:map(fun(_, Us) -> Us / 1000 end, maps:with([min, p50, p95, p99, max], Summary)).

metrics(#{restarted_us := Child, kills := Kills, affected := Affected, cascades := Cascades} = M) ->
    #{
        avg_restart_time => maps:get(mean, Child),
        max_restart_time => maps:get(max, Child),
        restart_frequency => frequency(Child),
        cascade_failure_rate => Cascades / Kills,
        avg_affected_processes => Affected / Kills,
        restart_details => [maps:remove(path, M)]
    }.

%% How many restarts a second one supervisor does at most.
frequency(#{mean := Mean}) when Mean > 0 -> 1.0e6 / Mean;
frequency(_) -> 0.0.
