%% @doc Routing messages by the name of a server: what 1, 10 and 50 senders get through that never
%% stop, until the receivers have drained it all; what a route takes its caller; what waits in front
%% of the registry's process; and what that and the receivers' queues take in memory.
%%
%% Beside it the technique of erlmcp 0.5, a process that every message passes through.
-module(bench_registry).

-export([groups/0]).

%% Called in a fresh VM; by hand also with a registry that is not here.
-export([measure/3]).

-define(SENDERS, [50, 1]).
-define(DURATION_MS, 500).
-define(SAMPLE_MS, 2).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        #{
            cases => lists:append([cases(prefix(Senders)) || Senders <- ?SENDERS]),
            variants => [
                #{path => Path, run => fun(_) -> run(Registry) end}
             || {Path, Registry} <- [
                    {erlmcp_native, erlmcp_native_registry}, {erlmcp05, bench_line_registry}
                ]
            ],
            ratios => [
                {registry, erlmcp_native, erlmcp05, 2},
                {registry_1, erlmcp_native, erlmcp05, none}
            ],
            runs => 3,
            checks => fun checks/1
        }
    ].

prefix(50) -> "registry";
prefix(Senders) -> "registry_" ++ integer_to_list(Senders).

cases(Prefix) ->
    [
        #{name => list_to_atom(Prefix ++ Suffix), metric => M, unit => Unit, better => Better}
     || {Suffix, M, Unit, Better} <- [
            {"", <<"routed and received">>, <<"routes/s">>, higher},
            {"_p99", <<"p99 of a route">>, <<"us">>, lower},
            {"_queue", <<"longest queue of the registry">>, <<"messages">>, lower},
            {"_memory", <<"peak over the idle VM">>, <<"MB">>, lower}
        ]
    ].

run(Registry) ->
    lists:append([
        erlmcp_native_analysis_vm:with(beam, [], fun(Vm) ->
            Args = [Registry, Senders, ?DURATION_MS],
            erlmcp_native_analysis_vm:call(Vm, ?MODULE, measure, Args)
        end)
     || Senders <- ?SENDERS
    ]).

%% @doc Routes a second, p99 in microseconds, longest queue, memory in MB.
-spec measure(module(), pos_integer(), DurationMs :: pos_integer()) -> [number()].
measure(Registry, Senders, DurationMs) ->
    Before = erlang:memory(total),
    Sampler = spawn_opt(fun() -> peak(0) end, [link, {priority, high}]),
    #{routes_per_s := Rate, queue_max := Queue, call_ns := #{p99 := P99}} =
        erlmcp_native_bottleneck_registry:measure(Registry, Senders, DurationMs),
    Sampler ! {stop, self()},
    receive
        {Sampler, Peak} -> [Rate, P99 / 1000, Queue, max(0, Peak - Before) / 1000000]
    end.

peak(Peak) ->
    receive
        {stop, From} -> From ! {self(), Peak}
    after ?SAMPLE_MS -> peak(max(Peak, erlang:memory(total)))
    end.

checks(Rows) ->
    Median = fun(Case) -> bench_report:median(Case, erlmcp_native, Rows) end,
    [
        check(registry, Median(registry), <<"routes/s">>, fun(V) -> V >= 1500000 end),
        check(registry_p99, Median(registry_p99), <<"us">>, fun(V) -> V < 50 end),
        check(registry_queue, Median(registry_queue), <<"messages">>, fun(V) -> V == 0 end)
    ].

check(Case, undefined, Unit, _) ->
    #{'case' => Case, ok => false, value => <<"none">>, unit => Unit};
check(Case, Value, Unit, Reached) ->
    #{'case' => Case, ok => Reached(Value), value => Value, unit => Unit}.
