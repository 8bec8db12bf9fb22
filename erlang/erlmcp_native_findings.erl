%% @doc What follows from measured figures: the bottlenecks, each with the threshold that it
%% crossed, how bad it is, and what helps. Pure: the same rows and thresholds give the same
%% findings.
%%
%% A finding is made of one row only, so that its evidence is that row's; a figure that could not be
%% measured gives none. Thresholds are options: {@link thresholds/0} has their defaults.
-module(erlmcp_native_findings).

-export([find/2, thresholds/0, check/1, options/0]).

-export_type([thresholds/0]).

-type thresholds() :: #{atom() => number()}.

-type rule() :: #{
    row := erlmcp_native_report_rows:name(),
    transports := any | [erlmcp_native_report:transport()],
    threshold := atom(),
    default := number(),
    zero := erlmcp_native_report:severity(),
    what := string(),
    advice := binary(),
    options := [{Scope :: atom(), Option :: atom()}, ...]
}.
%% `zero': how bad it is where the threshold is 0, of which nothing is a multiple.

%% @doc The defaults: the bars of the path `nif', but for what is allowed a little noise.
-spec thresholds() -> thresholds().
thresholds() ->
    maps:from_list([{Name, Default} || #{threshold := Name, default := Default} <- rules()]).

%% @doc Completes thresholds with the defaults.
-spec check(term()) -> {ok, thresholds()} | {error, {option, term(), term()}}.
check(Given) when is_map(Given) ->
    Defaults = thresholds(),
    Bad = [
        {Key, Value}
     || {Key, Value} <- maps:to_list(Given),
        not (is_map_key(Key, Defaults) andalso is_number(Value) andalso Value >= 0)
    ],
    case Bad of
        [] -> {ok, maps:merge(Defaults, Given)};
        [{Key, Value} | _] -> {error, {option, {thresholds, Key}, Value}}
    end;
check(Given) ->
    {error, {option, thresholds, Given}}.

%% @doc All options that findings recommend, and whose they are.
-spec options() -> [{Scope :: atom(), Option :: atom()}].
options() ->
    lists:usort(lists:append([Options || #{options := Options} <- rules()])).

%% @doc The findings, worst first. What erlmcp's technique does is no finding about this library.
-spec find([erlmcp_native_report:row()], thresholds()) -> [erlmcp_native_report:finding()].
find(Rows, Thresholds) ->
    Found = [
        Finding
     || #{path := Path, value := Value, samples := Samples} = Row <- Rows,
        Path =/= erlmcp05,
        is_number(Value),
        Samples > 0,
        Rule <- rules(),
        applies(Rule, Row),
        Finding <- judge(Row, Rule, maps:get(maps:get(threshold, Rule), Thresholds))
    ],
    lists:sort(fun(A, B) -> rank(A) >= rank(B) end, Found).

applies(#{row := Name, transports := any}, #{row := Row}) -> Name =:= Row;
applies(#{row := Name, transports := Transports}, #{row := Row, transport := Transport}) ->
    Name =:= Row andalso lists:member(Transport, Transports).

judge(#{value := Value, better := Better} = Row, Rule, Threshold) ->
    case crossed(Better, Value, Threshold) of
        true -> [finding(Row, Rule, Threshold)];
        false -> []
    end.

crossed(lower, Value, Threshold) -> Value > Threshold;
crossed(higher, Value, Threshold) -> Value < Threshold.

finding(#{row := Name, value := Value, unit := Unit, samples := Samples} = Row, Rule, Threshold) ->
    #{threshold := ThresholdName, what := What, advice := Advice, options := Options} = Rule,
    #{path := Path, transport := Transport, spread := Spread, baseline := Baseline} = Row,
    #{group := Group} = erlmcp_native_report_rows:row(Name),
    #{
        id => Name,
        analysis => Group,
        transport => Transport,
        path => Path,
        severity => severity(Row, Rule, Threshold),
        what => what(What, Value, Unit),
        evidence => #{
            value => Value,
            unit => Unit,
            samples => Samples,
            spread => Spread,
            baseline => Baseline
        },
        threshold => #{name => ThresholdName, value => Threshold},
        recommendation => #{
            text => Advice,
            options => [#{scope => Scope, option => Option} || {Scope, Option} <- Options]
        }
    }.

what(Text, Value, Unit) ->
    Figure = erlmcp_native_report_number:text(Value, Unit),
    unicode:characters_to_binary(io_lib:format(Text, [Figure])).

%% By how far the threshold is missed.
severity(_, #{zero := Severity}, Threshold) when Threshold == 0 ->
    Severity;
severity(#{better := lower, value := Value}, _, Threshold) ->
    by_factor(Value / Threshold);
severity(#{better := higher, value := Value}, _, _) when Value == 0 ->
    critical;
severity(#{better := higher, value := Value}, _, Threshold) ->
    by_factor(Threshold / Value).

by_factor(Factor) when Factor < 1.5 -> low;
by_factor(Factor) when Factor < 4 -> medium;
by_factor(Factor) when Factor < 20 -> high;
by_factor(_) -> critical.

rank(#{severity := Severity}) ->
    maps:get(Severity, #{low => 1, medium => 2, high => 3, critical => 4}).

-spec rules() -> [rule()].
rules() ->
    switching() ++ registry() ++ buffering() ++ reconnection() ++ restart() ++ memory() ++
        transport().

switching() ->
    [
        rule(switch_planned_failed, max_planned_failed, 0, high,
            "~ts failed during planned switches",
            <<"Let more requests wait while the endpoints change.">>,
            [{failover, max_queue}]),
        rule(switch_planned_gap_p99, max_planned_gap_ms, 5, medium,
            "Nothing is answered for ~ts (p99) during a planned switch",
            <<"Have fewer requests under way at a time, which the former endpoint has to finish.">>,
            [{failover, max_in_flight}]),
        rule(switch_unplanned_unresolved, max_unresolved, 0, critical,
            "~ts have no outcome, or more than one, after their endpoint was killed",
            <<"Bound how long a request may wait for its outcome.">>,
            [{failover, timeout_ms}]),
        rule(switch_unplanned_in_use, max_switch_ms, 50, medium,
            "The next endpoint is in use ~ts after its predecessor was killed",
            <<"Ping more often, and wait less for the answer.">>,
            [{failover, ping_ms}, {failover, ping_timeout_ms}])
    ].

registry() ->
    Advice = <<"Route through the tables of erlmcp_native_registry, not through a process.">>,
    [
        rule(registry_routes_per_s, min_routes_per_s, 1500000, high,
            "~ts are routed at 50 senders", Advice, [{application, takeover}]),
        rule(registry_queue_max, max_registry_queue, 100, high,
            "~ts wait in front of the registry", Advice, [{application, takeover}]),
        rule(registry_route_p99, max_route_p99_us, 50, medium,
            "A route takes ~ts (p99)", Advice, [{application, takeover}])
    ].

buffering() ->
    [
        rule(buffer_lost, max_lost, 0, critical,
            "~ts are lost where ten times as many come as are taken",
            <<"Close what sends more than is taken, rather than go on without it.">>,
            [{connection, on_oversize}, {connection, max_queue_bytes}]),
        rule(buffer_peak, max_buffer_mb, 64, medium,
            "~ts are held for a consumer that is too slow",
            <<"Read less ahead of the consumer, and queue less for the peer.">>,
            [{connection, high_water_bytes}, {connection, max_queue_bytes}])
    ].

reconnection() ->
    Advice = <<"Shorten the pauses between tries, and their cap.">>,
    Options = [{reconnect, min_ms}, {reconnect, max_ms}],
    [
        rule(reconnect_refused_p95, max_reconnect_ms, 100, medium,
            "After a refusal a connection is back ~ts (p95) after its server", Advice, Options),
        rule(reconnect_reset_p95, max_reconnect_ms, 100, medium,
            "After a reset a connection is back ~ts (p95) after its server", Advice, Options),
        rule(reconnect_shutdown_p95, max_reconnect_ms, 100, medium,
            "After a shutdown a connection is back ~ts (p95) after its server", Advice, Options),
        rule(reconnect_timeout_p95, max_reconnect_timeout_ms, 300, medium,
            "A connection that got no answer is back ~ts (p95) after the connect timeout",
            <<"Give up a try that is not answered sooner.">>,
            [{connection, connect_timeout_ms}, {connection, attempt_delay_ms}]),
        rule(reconnect_success, min_reconnect_percent, 100, high,
            "~ts of the lost connections come back",
            <<"Do not stop trying.">>, [{reconnect, max_attempts}])
    ].

restart() ->
    [
        rule(restart_child, max_child_restart_ms, 1, medium,
            "A connection's process is started again after ~ts (p95)",
            <<"Let the connection be made again by its process, which then need not end.">>,
            [{connection, reconnect}]),
        rule(restart_supervisor, max_supervisor_restart_ms, 10, medium,
            "No connection can be started for ~ts after their supervisor was killed",
            <<"Use a path whose connections close without the VM's schedulers.">>,
            [{connection, path}]),
        rule(restart_cascades, max_cascades, 0, high,
            "~ts ended processes that had nothing to do with the one that was killed",
            <<"Let connections be made again by their own processes.">>,
            [{connection, reconnect}])
    ].

memory() ->
    [
        rule(memory_busy, max_busy_mb, 100, medium,
            "1,000 busy connections take ~ts",
            <<"Give messages memory of their own, so that no connection keeps a block that was "
                "read, and read less ahead.">>,
            [{connection, copy}, {connection, high_water_bytes}]),
        rule(memory_growth, max_growth_kb_per_s, 100, high,
            "Memory grows by ~ts under constant load, with 95 % confidence",
            <<"Give kept messages memory of their own, so that they keep no block alive.">>,
            [{connection, copy}]),
        rule(memory_leaked_objects, max_left_objects, 0, high,
            "~ts are left of connections that were closed",
            <<"Give kept messages memory of their own, so that they keep no block alive.">>,
            [{connection, copy}])
    ].

transport() ->
    [
        (rule(throughput, min_throughput_mb_per_s, 100, high,
            "~ts of decoded calls go through",
            <<"Decode where the bytes arrive, with more threads of the runtime.">>,
            [{connection, decode}, {application, workers}]))#{transports := [stdio, tcp]},
        (rule(throughput, min_http_throughput_mb_per_s, 30, high,
            "~ts of decoded calls go through",
            <<"Use more connections, or HTTP/2, and more threads of the runtime.">>,
            [{http_client, max_connections}, {http_client, protocols}, {application, workers}]
        ))#{transports := [http]},
        rule(latency_p95, max_latency_p95_ms, 1, medium,
            "A call takes ~ts (p95) at half of saturation",
            <<"Do not wait to fill packets, and use the path with the fewest hops.">>,
            [{connection, nodelay}, {connection, path}]),
        rule(connections_ok, min_connections_percent, 100, high,
            "~ts of 10,000 connections work",
            <<"Allow more connections, and a longer backlog.">>,
            [{listener, max_connections}, {listener, backlog}])
    ].

rule(Row, Threshold, Default, Zero, What, Advice, Options) ->
    #{
        row => Row,
        transports => any,
        threshold => Threshold,
        default => Default,
        zero => Zero,
        what => What,
        advice => Advice,
        options => Options
    }.
