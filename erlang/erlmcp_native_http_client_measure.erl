%% @private What is measured of the requests of an HTTP client, the same on all paths.
-module(erlmcp_native_http_client_measure).

-behaviour(erlmcp_native_metrics).

-export([metrics/0, ended/3]).

-define(OUTCOMES, [answered, failed, timeout, cancelled]).

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        #{
            name => http_client_request_us,
            kind => histogram,
            group => http_client,
            unit => us,
            labels => [{path, [nif, port, beam]}],
            help => <<"From a request of a client to its answer, repetitions included">>
        },
        #{
            name => http_client_outcomes,
            kind => counter,
            group => http_client,
            labels => [{path, [nif, port, beam]}, {outcome, ?OUTCOMES}],
            help => <<"What became of requests of clients; a JSON-RPC error is an answer">>
        }
    ].

%% @doc A request that was accepted then has ended.
-spec ended(
    erlmcp_native_path:path() | default,
    answered | erlmcp_native_http_client_core:reason(),
    erlmcp_native_http_client_requests:request()
) -> ok.
ended(Wanted, Reason, #{started := Started, message := #{method := Method}}) ->
    Path = path(Wanted),
    Outcome = outcome(Reason),
    ok = erlmcp_native_metrics:add(http_client_outcomes, [Path, Outcome], 1),
    ok = observe(Outcome, Path, Started),
    case erlmcp_native_telemetry:is_on() of
        true ->
            erlmcp_native_telemetry:execute(
                [http_client, request],
                #{duration => duration(Started)},
                #{path => Path, outcome => Outcome, reason => Reason, method => Method}
            );
        false ->
            ok
    end.

observe(answered, Path, Started) ->
    erlmcp_native_metrics:observe_since(http_client_request_us, [Path], Started);
observe(_, _, _) ->
    ok.

duration(Started) ->
    Us = erlang:monotonic_time(microsecond) - Started,
    erlang:convert_time_unit(Us, microsecond, native).

path(default) -> erlmcp_native_path:default();
path(Path) -> Path.

outcome(answered) -> answered;
outcome(timeout) -> timeout;
outcome(cancelled) -> cancelled;
outcome(_) -> failed.
