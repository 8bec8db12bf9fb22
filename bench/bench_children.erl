%% @doc Child processes: from the start of one to its first answer, beside a bare `open_port', with
%% a look at what is left of them; and what a hundred that say nothing cost.
-module(bench_children).

-export([groups/0]).

%% In each run; in all of them 1,000.
-define(CHILDREN, 200).
-define(IDLE_CHILDREN, 100).
-define(IDLE_MS, 5000).
-define(TIMEOUT_MS, 10000).

%% What idle children may take of a core.
-define(IDLE_PERCENT, 1).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        #{
            cases => [
                case_of(children_1000, <<"start to first answer">>, <<"us">>),
                case_of(children_left, <<"processes left">>, <<"processes">>),
                case_of(children_descriptors, <<"descriptors more than before">>, <<"descriptors">>)
            ],
            variants => [
                #{path => nif, run => fun(_) -> measure(fun() -> call(nif) end) end},
                #{path => beam, run => fun(_) -> measure(fun() -> call(beam) end) end},
                #{path => open_port, run => fun(_) -> measure(fun bare/0) end}
            ],
            ratios => [
                {children_1000, nif, open_port, none}, {children_1000, nif, beam, none}
            ],
            runs => 5,
            warm_up => false,
            checks => fun checks/1
        },
        #{
            cases => [case_of(children_idle, <<"CPU of 100 idle children">>, <<"percent">>)],
            variants => [#{path => nif, run => fun(_) -> [idle()] end}],
            ratios => [],
            runs => 3,
            warm_up => false,
            checks => fun idle_checks/1
        }
    ].

case_of(Name, Metric, Unit) ->
    #{name => Name, metric => Metric, unit => Unit, better => lower}.

%% The first child may start the port program.
measure(Call) ->
    _ = Call(),
    Descriptors = descriptors(),
    Times = [Call() || _ <- lists:seq(1, ?CHILDREN)],
    Left = bench_steady:settled(fun children/0, 0),
    Grown = bench_steady:settled(fun() -> descriptors() - Descriptors end, 0),
    [erlmcp_native_statistics:percentile(50, Times), Left, max(0, Grown)].

call(Path) ->
    Begin = erlang:monotonic_time(),
    Conn = connect(Path),
    ok = answered(Conn),
    Us = us_since(Begin),
    ok = erlmcp_native:close(Conn),
    Us.

connect(Path) ->
    {ok, Conn} = erlmcp_native:connect(#{command => "cat"}, #{path => Path, active => true}),
    ok = erlmcp_native:await_connected(Conn, ?TIMEOUT_MS),
    Conn.

answered(Conn) ->
    ok = erlmcp_native:send(Conn, <<"ping">>),
    receive
        {erlmcp_native, Conn, {frames, [<<"ping">>]}} -> ok
    after ?TIMEOUT_MS -> exit(no_answer)
    end.

bare() ->
    Begin = erlang:monotonic_time(),
    Port = open_port({spawn_executable, os:find_executable("cat")}, [binary, {line, 100}]),
    true = port_command(Port, <<"ping\n">>),
    receive
        {Port, {data, {eol, <<"ping">>}}} -> ok
    after ?TIMEOUT_MS -> exit(no_answer)
    end,
    Us = us_since(Begin),
    true = port_close(Port),
    Us.

us_since(Begin) ->
    erlang:convert_time_unit(erlang:monotonic_time() - Begin, native, nanosecond) / 1000.

%% Of this node, wherever in the tree of its processes, zombies among them.
children() ->
    length([Pid || Pid <- bench_os:descendants(os:getpid()), bench_os:name(Pid) =:= "cat"]).

descriptors() ->
    Pids = [Pid || Pid <- family(), bench_os:name(Pid) =/= "cat"],
    lists:sum([length(bench_os:descriptors(Pid)) || Pid <- Pids]).

family() ->
    [os:getpid() | bench_os:descendants(os:getpid())].

idle() ->
    Conns = [connect(nif) || _ <- lists:seq(1, ?IDLE_CHILDREN)],
    lists:foreach(fun answered/1, Conns),
    Pids = family(),
    Before = cpu_us(Pids),
    receive
    after ?IDLE_MS -> ok
    end,
    Percent = (cpu_us(Pids) - Before) / 10 / ?IDLE_MS,
    lists:foreach(fun erlmcp_native:close/1, Conns),
    Percent.

cpu_us(Pids) ->
    lists:sum([bench_os:cpu_us(Pid) || Pid <- Pids]).

checks(Rows) ->
    bench_steady:none(children_left, <<"processes left">>, Rows) ++
        bench_steady:none(children_descriptors, <<"descriptors more than before">>, Rows).

idle_checks(Rows) ->
    [
        #{
            'case' => children_idle,
            ok => Percent < ?IDLE_PERCENT,
            value => Percent,
            unit => <<"percent of a core">>
        }
     || Percent <- [bench_report:median(children_idle, nif, Rows)], is_number(Percent)
    ].
