%% @doc Measures live transports of this library: throughput, latency, concurrency, stress,
%% resources, routing, garbage collection and memory, under the names that the performance
%% analysis of erlmcp documents. docs/analysis.md describes every result, with its units.
%%
%% ```
%% {ok, #{mb_per_s := Rate}} = erlmcp_performance_analysis:run_throughput_test(tcp, 100000, 1024),
%% {ok, #{p99_us := P99}} = erlmcp_performance_analysis:run_latency_test(
%%     #{transport => http, path => port}, 5000, 1024
%% ),
%% {ok, Report} = erlmcp_performance_analysis:generate_full_report().
%% '''
%%
%% A transport is `stdio', `tcp' or `http', or a map that also names the path, an endpoint of the
%% user's, TLS and options: {@link erlmcp_native_analysis_subject:given()}, and `load', options of
%% {@link erlmcp_native_analysis_load:load()}.
%%
%% Everything works in a system that is in use, and without {@link start_link/0}: each call runs in
%% a process of its own under this application's supervisor, which ends with the caller, and what
%% it has started ends with it. Results are maps; what was a number or a tuple under these names
%% before is a member of the map.
-module(erlmcp_performance_analysis).

-behaviour(gen_server).

-export([start_link/0, stop/0]).
-export([run_throughput_test/3, run_latency_test/3, run_concurrent_test/4, run_stress_test/3]).
-export([monitor_resources/2, measure_registry_performance/0, profile_message_routing/2]).
-export([collect_gc_metrics/1, analyze_memory_patterns/1]).
-export([analyze_bottlenecks/1, analyze_bottlenecks/2]).
-export([generate_full_report/0, generate_full_report/1]).
-export([init/1, handle_call/3, handle_cast/2, terminate/2]).

-export_type([transport/0, reason/0]).

-type transport() :: erlmcp_native_analysis_subject:given() | map().
-type reason() :: erlmcp_native_analysis_tests:reason().

%% @doc Starts a process whose end, by {@link stop/0} or otherwise, is the end of all analyses that
%% are under way. Not needed for anything else.
-spec start_link() -> {ok, pid()} | {error, {already_started, pid()}}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Ends all analyses that are under way; their callers get `{error, stopped}'.
-spec stop() -> ok.
stop() ->
    case whereis(?MODULE) of
        undefined -> stop_runs();
        Pid -> gen_server:stop(Pid)
    end.

%% @doc How much goes through: `Count' calls of `Size' bytes, over 2 connections with 64 calls under
%% way on each, unless `load' says otherwise.
-spec run_throughput_test(transport(), pos_integer(), pos_integer()) ->
    {ok, Throughput :: map()} | {error, reason()}.
run_throughput_test(Transport, Count, Size) ->
    run(fun() -> erlmcp_native_analysis_tests:throughput(Transport, Count, Size) end).

%% @doc How long a call takes: `Count' calls at a fixed rate, counted from when each was due.
-spec run_latency_test(transport(), pos_integer(), pos_integer()) ->
    {ok, Latency :: map()} | {error, reason()}.
run_latency_test(Transport, Count, Size) ->
    run(fun() -> erlmcp_native_analysis_tests:latency(Transport, Count, Size) end).

%% @doc So many connections at once, with `Count' calls on each, one after the other.
-spec run_concurrent_test(transport(), pos_integer(), pos_integer(), pos_integer()) ->
    {ok, Results :: map()} | {error, reason()}.
run_concurrent_test(Transport, Connections, Count, Size) ->
    run(fun() ->
        erlmcp_native_analysis_tests:concurrent(Transport, Connections, Count, Size)
    end).

%% @doc So many workers that call as fast as they are answered, for so long.
-spec run_stress_test(transport(), DurationMs :: pos_integer(), Workers :: pos_integer()) ->
    {ok, Results :: map()} | {error, reason()}.
run_stress_test(Transport, DurationMs, Workers) ->
    run(fun() -> erlmcp_native_analysis_tests:stress(Transport, DurationMs, Workers) end).

%% @doc Samples of this node's resources, for so long, and what they amount to.
-spec monitor_resources(DurationMs :: pos_integer(), IntervalMs :: pos_integer()) ->
    {ok, Monitor :: map()} | {error, reason()}.
monitor_resources(DurationMs, IntervalMs) ->
    positive([{duration_ms, DurationMs}, {interval_ms, IntervalMs}], fun() ->
        {ok, erlmcp_native_analysis_watch:monitor(DurationMs, IntervalMs)}
    end).

%% @doc What registering, looking up and routing cost in the registry of this node.
-spec measure_registry_performance() -> {ok, map()} | {error, reason()}.
measure_registry_performance() ->
    run(fun() -> {ok, erlmcp_native_analysis_registry:measure()} end).

%% @doc How the time of a call splits: framing, decoding, routing, the handler, encoding, sending.
-spec profile_message_routing(transport(), Count :: pos_integer()) ->
    {ok, map()} | {error, reason()}.
profile_message_routing(Transport, Count) ->
    run(fun() -> erlmcp_native_analysis_tests:profile(Transport, Count) end).

%% @doc Garbage collections in so long: how many on this node, and how long those of this
%% application's processes take.
-spec collect_gc_metrics(DurationMs :: pos_integer()) -> {ok, map()} | {error, reason()}.
collect_gc_metrics(DurationMs) ->
    positive([{duration_ms, DurationMs}], fun() ->
        {ok, erlmcp_native_analysis_watch:gc(DurationMs)}
    end).

%% @doc Whether this node's memory grows, with a confidence interval, and whether that is a leak.
-spec analyze_memory_patterns(DurationMs :: pos_integer()) -> {ok, map()} | {error, reason()}.
analyze_memory_patterns(DurationMs) ->
    positive([{duration_ms, DurationMs}], fun() ->
        {ok, erlmcp_native_analysis_watch:memory(DurationMs)}
    end).

%% @equiv analyze_bottlenecks(Metrics, #{})
-spec analyze_bottlenecks([map()]) -> map().
analyze_bottlenecks(Metrics) ->
    analyze_bottlenecks(Metrics, #{}).

%% @doc What is over a limit in results of the tests above, by transport, each with the figure and
%% the limit. Limits that are not given have defaults.
-spec analyze_bottlenecks([map()], map()) -> map().
analyze_bottlenecks(Metrics, Thresholds) ->
    erlmcp_native_analysis_bottlenecks:analyze(
        Metrics, maps:merge(erlmcp_native_analysis_bottlenecks:thresholds(), Thresholds)
    ).

%% @equiv generate_full_report(#{})
-spec generate_full_report() -> {ok, Report :: map()} | {error, term()}.
generate_full_report() ->
    generate_full_report(#{}).

%% @doc All analyses, findings and figures, as {@link performance_bottleneck_report} makes them.
-spec generate_full_report(map()) -> {ok, Report :: map()} | {error, term()}.
generate_full_report(Options) ->
    run(fun() -> performance_bottleneck_report:generate_full_report(Options) end).

run(Fun) ->
    erlmcp_native_analysis_run:run(Fun).

positive([], Fun) -> run(Fun);
positive([{_, V} | Checks], Fun) when is_integer(V), V > 0 -> positive(Checks, Fun);
positive([{Key, Value} | _], _) -> {error, {option, Key, Value}}.

%% The application may have stopped.
stop_runs() ->
    case whereis(erlmcp_native_analysis_sup) of
        undefined -> ok;
        _ -> erlmcp_native_analysis_sup:stop_runs()
    end.

%% @private
-spec init([]) -> {ok, none}.
init([]) ->
    process_flag(trap_exit, true),
    {ok, none}.

%% @private
-spec handle_call(term(), gen_server:from(), none) -> {reply, term(), none}.
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), none) -> {noreply, none}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), none) -> ok.
terminate(_, _) ->
    stop_runs().
