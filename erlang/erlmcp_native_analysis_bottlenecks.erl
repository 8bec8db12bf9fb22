%% @private What results of tests have that is over a limit.
-module(erlmcp_native_analysis_bottlenecks).

-export([analyze/2, thresholds/0]).

-export_type([thresholds/0]).

-type thresholds() :: #{
    high_latency_us := number(),
    high_error_percent := number(),
    low_throughput_bytes_per_s := number(),
    high_memory_bytes := number()
}.

-spec thresholds() -> thresholds().
thresholds() ->
    #{
        high_latency_us => 10000,
        high_error_percent => 5,
        low_throughput_bytes_per_s => 1000,
        high_memory_bytes => 104857600
    }.

%% @doc By transport, and over all of them.
-spec analyze([map()], thresholds()) -> map().
analyze(Metrics, Thresholds) ->
    Measured = [normal(Metric) || Metric <- Metrics],
    Transports = lists:usort([Transport || #{transport := Transport} <- Measured]),
    By = maps:from_list([
        {Transport, transport(those_of(Transport, Measured), Thresholds)}
     || Transport <- Transports
    ]),
    By#{overall => overall(By)}.

those_of(Transport, Measured) ->
    [M || #{transport := T} = M <- Measured, T =:= Transport].

%% Results of this library's tests, and metrics as the analysis that this follows had them.
normal(#{transport_type := Transport} = Metric) ->
    normal(maps:remove(transport_type, Metric#{transport => Transport}));
normal(#{transport := Transport} = M) ->
    Ms = number([duration_ms], M),
    Operations = number([total_operations, operations], M, 1),
    #{
        transport => Transport,
        duration_us => first([mean_us, avg_latency_us, message_latency, duration_us], latency(M)),
        p95_us => first([p95_us], latency(M)),
        p99_us => first([p99_us], latency(M)),
        operations => Operations,
        errors => number([total_errors, errors], M, 0),
        bytes_per_s => bytes_per_s(M, Ms),
        memory_bytes => first([peak_memory_bytes, memory_usage], resources(M))
    }.

%% Under a load that fills every queue a call takes as long as the queues are.
latency(#{test := Test} = M) when Test =:= throughput; Test =:= stress ->
    maps:without([avg_latency_us, duration_us], M);
latency(#{latency_us := #{p95 := P95, p99 := P99}} = M) -> M#{p95_us => P95, p99_us => P99};
latency(M) -> M.

resources(#{resources := Resources}) -> Resources;
resources(M) -> M.

bytes_per_s(#{bytes_per_s := Rate}, _) ->
    Rate;
bytes_per_s(#{bytes_sent := Sent, duration := Us} = M, _) when is_number(Us), Us > 0 ->
    (Sent + number([bytes_received], M, 0)) * 1.0e6 / Us;
bytes_per_s(_, _) ->
    null.

number(Keys, M) -> number(Keys, M, null).

number(Keys, M, Default) ->
    case first(Keys, M) of
        null -> Default;
        Value -> Value
    end.

first(Keys, M) ->
    case [Value || Key <- Keys, #{Key := Value} <- [M], is_number(Value)] of
        [Value | _] -> Value;
        [] -> null
    end.

transport(Measured, Thresholds) ->
    All = fun(Key) -> [Value || #{Key := Value} <- Measured, is_number(Value)] end,
    Operations = lists:sum(All(operations)),
    Result = #{
        samples => length(Measured),
        operations => Operations,
        avg_duration => mean(All(duration_us)),
        p95_duration => largest(All(p95_us)),
        p99_duration => largest(All(p99_us)),
        error_rate => percent(lists:sum(All(errors)), Operations),
        throughput => mean(All(bytes_per_s)),
        memory_peak => largest(All(memory_bytes))
    },
    Evidence = evidence(Result, Thresholds),
    Result#{bottlenecks => [Kind || #{bottleneck := Kind} <- Evidence], evidence => Evidence}.

%% No bottleneck without a figure and the limit that it crossed.
evidence(Result, #{
    high_latency_us := Latency,
    high_error_percent := Errors,
    low_throughput_bytes_per_s := Throughput,
    high_memory_bytes := Memory
}) ->
    #{samples := Samples} = Result,
    [
        #{
            bottleneck => Kind,
            value => Value,
            unit => Unit,
            threshold => Limit,
            samples => Samples
        }
     || {Kind, Key, Unit, Limit, Is} <- [
            {high_latency, avg_duration, <<"us">>, Latency, fun erlang:'>'/2},
            {high_error_rate, error_rate, <<"%">>, Errors, fun erlang:'>'/2},
            {low_throughput, throughput, <<"bytes/s">>, Throughput, fun erlang:'<'/2},
            {high_memory_usage, memory_peak, <<"bytes">>, Memory, fun erlang:'>'/2}
        ],
        Value <- [maps:get(Key, Result)],
        is_number(Value),
        Is(Value, Limit)
    ].

overall(By) ->
    Transports = lists:sort(maps:keys(By)),
    Pairs = [{A, B} || A <- Transports, B <- Transports, A < B],
    #{
        transport_comparison => maps:from_list([
            {{A, B}, compare(maps:get(A, By), maps:get(B, By))}
         || {A, B} <- Pairs
        ]),
        recommendations => lists:append([advice(T, maps:get(T, By)) || T <- Transports]),
        critical_issues => [
            said(Transport, Evidence)
         || Transport <- Transports,
            #{evidence := All} <- [maps:get(Transport, By)],
            #{bottleneck := high_error_rate} = Evidence <- All
        ]
    }.

compare(#{throughput := ThroughputA, avg_duration := DurationA, error_rate := ErrorsA}, #{
    throughput := ThroughputB, avg_duration := DurationB, error_rate := ErrorsB
}) ->
    #{
        throughput_ratio => ratio(ThroughputA, ThroughputB),
        latency_ratio => ratio(DurationA, DurationB),
        error_rate_diff => difference(ErrorsA, ErrorsB)
    }.

ratio(A, B) when is_number(A), is_number(B), B > 0 -> A / B;
ratio(_, _) -> null.

difference(A, B) when is_number(A), is_number(B) -> A - B;
difference(_, _) -> null.

advice(Transport, #{evidence := Evidence}) ->
    [
        iolist_to_binary([said(Transport, E), <<": ">>, option(Kind, Transport)])
     || #{bottleneck := Kind} = E <- Evidence
    ].

said(Transport, #{bottleneck := Kind, value := Value, unit := Unit, threshold := Limit}) ->
    iolist_to_binary(
        io_lib:format("~s: ~s, ~.1f ~s where ~w is the limit", [
            Transport, Kind, float(Value), Unit, Limit
        ])
    ).

option(high_latency, http) ->
    <<"see max_connections of the client, and max_requests of the listener">>;
option(high_latency, _) ->
    <<"see path, nodelay, and high_water_bytes">>;
option(high_error_rate, http) ->
    <<"see timeout_ms and max_pending of the client, max_requests of the listener">>;
option(high_error_rate, _) ->
    <<"see max_queue_bytes, max_frame_bytes, and reconnect">>;
option(low_throughput, _) ->
    <<"see path, high_water_bytes, and max_queue_bytes">>;
option(high_memory_usage, http) ->
    <<"see max_sessions, max_event_bytes, and max_stream_bytes">>;
option(high_memory_usage, _) ->
    <<"see high_water_bytes, max_queue_bytes, and max_connections">>.

mean([]) -> null;
mean(Values) -> lists:sum(Values) / length(Values).

largest([]) -> null;
largest(Values) -> lists:max(Values).

percent(_, 0) -> null;
percent(Part, Whole) -> Part * 100 / Whole.
