%% @private Watches this node for a while: resources, garbage collection, memory.
-module(erlmcp_native_analysis_watch).

-export([monitor/2, memory/1, gc/1, start_sampler/1, stop_sampler/1, summary/1]).

-export_type([sampled/0]).

-type sampled() :: {AtMs :: number(), erlmcp_native_analysis_system:sample()}.

%% Of what memory is looked at: fewer samples would say nothing about growth.
-define(MEMORY_SAMPLES, 60).
-define(SHORTEST_MS, 10).

%% @doc Samples for so long, at this interval, and what they amount to.
-spec monitor(pos_integer(), pos_integer()) -> map().
monitor(DurationMs, IntervalMs) ->
    Samples = sampled(DurationMs, IntervalMs),
    #{
        duration_ms => DurationMs,
        interval_ms => IntervalMs,
        samples => [Sample#{at_ms => At} || {At, Sample} <- Samples],
        summary => summary(Samples),
        timestamp => erlang:system_time(millisecond)
    }.

sampled(DurationMs, IntervalMs) ->
    Sampler = start_sampler(IntervalMs),
    receive
    after DurationMs -> ok
    end,
    stop_sampler(Sampler).

%% @doc Samples until it is stopped; ends with the caller.
-spec start_sampler(pos_integer()) -> pid().
start_sampler(IntervalMs) ->
    spawn_link(fun() ->
        Begin = erlang:monotonic_time(millisecond),
        sample(Begin, Begin, max(?SHORTEST_MS, IntervalMs), [])
    end).

sample(Begin, Due, IntervalMs, Samples) ->
    %% So that its own garbage is no part of what it sees.
    true = erlang:garbage_collect(),
    Now = erlang:monotonic_time(millisecond),
    Next = [{Now - Begin, erlmcp_native_analysis_system:sample()} | Samples],
    receive
        {stop, From} ->
            Last = {erlang:monotonic_time(millisecond) - Begin,
                erlmcp_native_analysis_system:sample()},
            From ! {self(), lists:reverse([Last | Next])}
    after max(0, Due + IntervalMs - erlang:monotonic_time(millisecond)) ->
        sample(Begin, Due + IntervalMs, IntervalMs, Next)
    end.

-spec stop_sampler(pid()) -> [sampled()].
stop_sampler(Sampler) ->
    Sampler ! {stop, self()},
    receive
        {Sampler, Samples} -> Samples
    end.

%% @doc Peaks and means of samples, and what grew between the first and the last.
-spec summary([sampled(), ...]) -> map().
summary([{At0, First} | _] = Samples) ->
    {At1, Last} = lists:last(Samples),
    All = fun(Key) -> [Value || {_, #{Key := Value}} <- Samples, is_number(Value)] end,
    Peaks = lists:append([
        [{Peak, peak(All(Of))}, {Avg, mean(All(Of))}]
     || {Of, Peak, Avg} <- [
            {memory_bytes, peak_memory_bytes, avg_memory_bytes},
            {process_bytes, peak_process_bytes, avg_process_bytes},
            {binary_bytes, peak_binary_bytes, avg_binary_bytes},
            {ets_bytes, peak_ets_bytes, avg_ets_bytes},
            {rss_bytes, peak_rss_bytes, avg_rss_bytes},
            {descriptors, peak_descriptors, avg_descriptors},
            {processes, peak_processes, avg_processes},
            {ports, peak_ports, avg_ports},
            {run_queue, peak_run_queue, avg_run_queue}
        ]
    ]),
    (maps:from_list(Peaks))#{
        samples => length(Samples),
        gc_count => maps:get(gc_count, Last) - maps:get(gc_count, First),
        cpu_percent => cpu(First, Last, At1 - At0),
        native_objects_first => maps:get(native_objects, First),
        native_objects_last => maps:get(native_objects, Last)
    }.

peak([]) -> null;
peak(Values) -> lists:max(Values).

mean([]) -> null;
mean(Values) -> lists:sum(Values) / length(Values).

%% Of one core.
cpu(#{cpu_us := A}, #{cpu_us := B}, Ms) when is_integer(A), is_integer(B), Ms > 0 ->
    (B - A) / Ms / 10;
cpu(_, _, _) ->
    null.

%% @doc Whether memory grows. The verdict is about the sum of what the VM has allocated, and, where
%% it can be had, about the process's resident memory, which native code is in as well.
-spec memory(pos_integer()) -> map().
memory(DurationMs) ->
    Samples = sampled(DurationMs, DurationMs div ?MEMORY_SAMPLES),
    Vm = [{At, Bytes} || {At, #{memory_bytes := Bytes}} <- Samples],
    Rss = [{At, Bytes} || {At, #{rss_bytes := Bytes}} <- Samples, is_integer(Bytes)],
    {Before, After} = lists:split(length(Vm) div 2, [Bytes || {_, Bytes} <- Vm]),
    All = Before ++ After,
    #{samples := Count} = Summary = summary(Samples),
    #{native_objects_first := Objects0, native_objects_last := Objects1} = Summary,
    VmGrowth = growth(Vm, DurationMs),
    #{
        samples => [#{at_ms => At, memory => Bytes} || {At, Bytes} <- Vm],
        analysis => #{
            trend => maps:get(verdict, VmGrowth),
            peak_memory => lists:max(All),
            avg_memory => mean(All),
            first_half_avg => mean(Before),
            second_half_avg => mean(After),
            sample_count => Count,
            growth => VmGrowth,
            rss_growth => growth(Rss, DurationMs),
            native_objects_first => Objects0,
            native_objects_last => Objects1,
            leak => leak(
                is_growing(VmGrowth, Vm, DurationMs),
                is_growing(growth(Rss, DurationMs), Rss, DurationMs),
                Objects1 - Objects0
            )
        },
        duration_ms => DurationMs,
        timestamp => erlang:system_time(millisecond)
    }.

growth(Samples, DurationMs) ->
    case erlmcp_native_analysis_slope:theil_sen(Samples) of
        {ok, #{slope := Slope, low := Low, high := High, scatter := Scatter} = Line} ->
            #{
                verdict => erlmcp_native_analysis_slope:verdict(Line, DurationMs),
                bytes_per_s => Slope * 1000,
                bytes_per_s_low => Low * 1000,
                bytes_per_s_high => High * 1000,
                confidence => maps:get(confidence, Line),
                scatter_bytes => Scatter
            };
        {error, too_few} ->
            #{verdict => unknown}
    end.

%% Growth of less than a hundredth of what there is need not be anything.
is_growing(#{verdict := growing, bytes_per_s_low := PerS}, [{_, Bytes} | _], DurationMs) ->
    PerS * DurationMs / 1000 > Bytes / 100;
is_growing(#{verdict := unknown}, _, _) ->
    unknown;
is_growing(_, _, _) ->
    false.

%% Growth alone may be a system that has just been started; that native objects stay as well makes
%% it one that keeps what it should have let go.
leak(unknown, _, _) -> unknown;
leak(Vm, Rss, Objects) when (Vm orelse Rss =:= true), Objects > 0 -> likely;
leak(Vm, Rss, _) when Vm; Rss =:= true -> possible;
leak(_, _, _) -> none.

%% @doc Garbage collections in so long: those of the whole node by number, those of this
%% application's own processes by how long each takes.
-spec gc(pos_integer()) -> map().
gc(DurationMs) ->
    Before = erlmcp_native_analysis_system:sample(),
    {Count0, Words0, _} = erlang:statistics(garbage_collection),
    Traced = erlmcp_native_analysis_gc:trace(DurationMs),
    {Count1, Words1, _} = erlang:statistics(garbage_collection),
    After = erlmcp_native_analysis_system:sample(),
    #{memory_bytes := Memory0} = Before,
    #{memory_bytes := Memory1} = After,
    Traced#{
        gc_count => Count1 - Count0,
        gc_per_s => (Count1 - Count0) * 1000 / DurationMs,
        words_reclaimed => Words1 - Words0,
        bytes_reclaimed => (Words1 - Words0) * erlang:system_info(wordsize),
        initial_memory => Memory0,
        final_memory => Memory1,
        memory_delta => Memory1 - Memory0,
        duration_ms => DurationMs,
        timestamp => erlang:system_time(millisecond)
    }.
