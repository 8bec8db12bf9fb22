%% @doc A server that has twice as many requests as it takes at a time: what it cannot take is
%% refused at once with 503, nothing is left without an answer, and the answers do not get slower.
-module(bench_http_overload).

-export([groups/0]).

-define(MAX_REQUESTS, 32).
-define(SECONDS, 1).

%% What the 99th percentile may be, in terms of that without overload.
-define(MARK, 3).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Name = fun(Case, Metric, Unit) ->
        #{name => Case, metric => Metric, unit => Unit, better => lower}
    end,
    [
        #{
            cases => [
                Name(http_overload, <<"latency p99, overloaded">>, <<"us">>),
                Name(http_overload_before, <<"latency p99, at the limit">>, <<"us">>),
                Name(http_overload_refused, <<"answered with 503">>, <<"percent">>)
            ],
            variants => [
                #{path => Path, run => fun(_) -> measure(Path) end}
             || Path <- [nif, beam]
            ],
            ratios => [],
            runs => 3,
            checks => fun checks/1
        }
    ].

measure(Path) ->
    Server = bench_http_server:start({Path, #{max_requests => ?MAX_REQUESTS}}),
    #{p99_us := Before} = load(Server, ?MAX_REQUESTS),
    #{p99_us := P99, requests := Requests, other := Refused} = load(Server, 2 * ?MAX_REQUESTS),
    bench_http_server:stop(Server),
    [P99, Before, Refused * 100 / Requests].

load(Server, Connections) ->
    bench_wrk:run(#{
        port => bench_http_server:port(Server),
        connections => Connections,
        seconds => ?SECONDS,
        body => bench_http_server:request(1024),
        headers => bench_http_server:headers()
    }).

checks(Rows) ->
    Median = fun(Case) -> bench_report:median(Case, nif, Rows) end,
    case {Median(http_overload), Median(http_overload_before), Median(http_overload_refused)} of
        {P99, Before, Refused} when is_number(P99), is_number(Before) ->
            [
                #{
                    'case' => http_overload,
                    ok => P99 =< ?MARK * Before andalso Refused > 0,
                    value => P99 / Before,
                    unit => <<"times the latency at the limit">>
                }
            ];
        _ ->
            []
    end.
