%% @private The tests of a transport that {@link erlmcp_performance_analysis} offers: what is given
%% is checked, a subject is started, loaded, and stopped, and the result is put into words.
-module(erlmcp_native_analysis_tests).

-export([throughput/3, latency/3, concurrent/4, stress/3, profile/2]).

-export_type([reason/0]).

-type reason() ::
    erlmcp_native_analysis_subject:reason() | {crashed, term()} | {not_started, term()} | stopped.

%% A closed load that keeps a connection busy.
-define(WINDOW, 64).
-define(WORKERS, 2).

%% How many requests find out how fast one after the other is.
-define(PROBES, 50).

%% An open load for latency is at most half of what goes through one at a time; this much per second
%% leaves one for each step of the schedule.
-define(RATE_PER_S, 1000).

-spec throughput(term(), pos_integer(), pos_integer()) -> {ok, map()} | {error, reason()}.
throughput(Given, Count, Bytes) ->
    Load = #{workers => ?WORKERS, window => ?WINDOW, count => Count, bytes => Bytes},
    with(Given, [{count, Count}, {size, Bytes}], fun(Subject, More) ->
        loaded(throughput, Subject, Load, More, fun(Result, Summary) ->
            Summary#{
                messages => maps:get(sent, Result),
                mb_per_s => maps:get(bytes_per_s, Summary) / 1.0e6,
                messages_per_s => maps:get(operations_per_second, Summary)
            }
        end)
    end).

-spec latency(term(), pos_integer(), pos_integer()) -> {ok, map()} | {error, reason()}.
latency(Given, Count, Bytes) ->
    with(Given, [{count, Count}, {size, Bytes}], fun(Subject, More) ->
        case rate(Subject, Bytes, Count, More) of
            {ok, Rate, UnloadedUs} ->
                Load = #{rate_per_s => Rate, count => Count, bytes => Bytes},
                loaded(latency, Subject, Load, More, fun(Result, Summary) ->
                    flat(Result, Summary#{rate_per_s => Rate, unloaded_p50_us => UnloadedUs})
                end);
            {error, _} = Error ->
                Error
        end
    end).

rate(_, _, _, #{rate_per_s := Rate}) when Rate =/= closed ->
    {ok, Rate, null};
rate(Subject, Bytes, Count, More) ->
    Probe = maps:merge(#{count => ?PROBES, bytes => Bytes}, maps:with([drain_ms], More)),
    case erlmcp_native_analysis_load:run(Subject, Probe) of
        {ok, #{latency := Latency}} ->
            Ns = max(1, erlmcp_native_histogram:percentile(Latency, 50)),
            %% Many requests should not take minutes.
            Wanted = max(?RATE_PER_S, Count / 10),
            {ok, max(1.0, min(Wanted, 0.5e9 / Ns)), Ns / 1000};
        {error, _} = Error ->
            Error
    end.

flat(#{sent := Sent}, #{latency_us := Us, avg_latency_us := Mean} = Summary) ->
    #{p50 := P50, p90 := P90, p95 := P95, p99 := P99, p999 := P999, max := Max} = Us,
    Summary#{
        messages => Sent,
        p50_us => P50,
        p90_us => P90,
        p95_us => P95,
        p99_us => P99,
        p999_us => P999,
        max_us => Max,
        mean_us => Mean
    }.

-spec concurrent(term(), pos_integer(), pos_integer(), pos_integer()) ->
    {ok, map()} | {error, reason()}.
concurrent(Given, Connections, Count, Bytes) ->
    Checks = [{connections, Connections}, {count, Count}, {size, Bytes}],
    Load = #{workers => Connections, count => Connections * Count, bytes => Bytes},
    with(Given, Checks, fun(Subject, More) ->
        loaded(concurrent, Subject, Load, More, fun(_, #{duration_ms := Ms} = Summary) ->
            Summary#{
                concurrent_connections => Connections,
                throughput => maps:get(operations_per_second, Summary),
                duration_us => round(Ms * 1000),
                duration_microseconds => round(Ms * 1000)
            }
        end)
    end).

-spec stress(term(), pos_integer(), pos_integer()) -> {ok, map()} | {error, reason()}.
stress(Given, DurationMs, Workers) ->
    Load = #{workers => Workers, duration_ms => DurationMs},
    with(Given, [{duration_ms, DurationMs}, {workers, Workers}], fun(Subject, More) ->
        Sampler = erlmcp_native_analysis_watch:start_sampler(max(20, DurationMs div 50)),
        Tested = loaded(stress, Subject, Load, More, fun(_, #{duration_ms := Ms} = Summary) ->
            Summary#{
                concurrent_workers => Workers,
                concurrent_connections => Workers,
                duration => round(Ms)
            }
        end),
        Samples = erlmcp_native_analysis_watch:stop_sampler(Sampler),
        with_resources(Tested, Samples)
    end).

with_resources({ok, Result}, Samples) ->
    {ok, Result#{resources => erlmcp_native_analysis_watch:summary(Samples)}};
with_resources({error, _} = Error, _) ->
    Error.

-spec profile(term(), pos_integer()) -> {ok, map()} | {error, reason()}.
profile(Given, Count) ->
    with(Given, [{count, Count}], fun(Subject, _) ->
        erlmcp_native_analysis_routing:profile(Subject, Count)
    end).

%% The subject is stopped whatever happens; if the process is killed, it ends with it.
with(Given, Checks, Fun) ->
    case {split(Given), wrong(Checks)} of
        {{ok, Transport, More}, none} ->
            case erlmcp_native_analysis_subject:start(Transport) of
                {ok, Subject} ->
                    try
                        Fun(Subject, More)
                    after
                        erlmcp_native_analysis_subject:stop(Subject)
                    end;
                {error, _} = Error ->
                    Error
            end;
        {{error, _} = Error, _} ->
            Error;
        {_, {Key, Value}} ->
            {error, {option, Key, Value}}
    end.

%% The options of the load, apart from those of the transport.
split(#{} = Given) ->
    Load = maps:get(load, Given, #{}),
    case erlmcp_native_analysis_load:check(Load) of
        ok ->
            Progress = maps:with([progress], Given),
            {ok, maps:without([load, progress], Given), maps:merge(Load, Progress)};
        {error, _} = Error ->
            Error
    end;
split(Given) ->
    {ok, Given, #{}}.

wrong([]) -> none;
wrong([{_, Value} | Checks]) when is_integer(Value), Value > 0 -> wrong(Checks);
wrong([Wrong | _]) -> Wrong.

loaded(Test, Subject, Load, More, Words) ->
    #{transport := Transport, path := Path} = erlmcp_native_analysis_subject:describe(Subject),
    case erlmcp_native_analysis_load:run(Subject, maps:merge(Load, More)) of
        {ok, #{bytes := Bytes, connections := Connections} = Result} ->
            Summary = erlmcp_native_analysis_load:summary(Result),
            {ok, (Words(Result, Summary))#{
                test => Test,
                transport => Transport,
                path => Path,
                message_bytes => Bytes,
                connections => Connections,
                connect_errors => maps:get(connect_errors, Result)
            }};
        {error, _} = Error ->
            Error
    end.
