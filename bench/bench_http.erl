%% @doc HTTP servers under the load of wrk: requests per second, the 99th percentile and the CPU
%% time of a request, all three from the same seconds.
-module(bench_http).

-export([groups/0]).

-define(SECONDS, 1).
-define(RUNS, 5).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        group([http_server_1k_c64, http_server_1k_c64_p99, http_server_cpu], 1024, 64, [
            {http_server_1k_c64, [
                {cowboy, 3}, {rmcp, 1.3}, {hyper, 0.4}, {beam, 1.2}, {port, 0.5}
            ]},
            {http_server_1k_c64_p99, [{cowboy, 2}, {rmcp, none}, {hyper, none}, {beam, none}]},
            {http_server_cpu, [
                {cowboy, 3}, {rmcp, 1.3}, {hyper, none}, {beam, none}, {port, none}
            ]}
        ]),
        group([http_server_64k_c16, http_server_64k_c16_p99, http_server_64k_cpu], 65536, 16, [
            {http_server_64k_c16, [
                {cowboy, 2}, {rmcp, 1.5}, {hyper, none}, {beam, none}, {port, none}
            ]},
            {http_server_64k_c16_p99, [{cowboy, none}, {beam, none}]},
            {http_server_64k_cpu, [{cowboy, none}, {beam, none}]}
        ])
    ].

group([Rate, P99, Cpu], Bytes, Connections, Bars) ->
    Kinds = bench_http_server:kinds(),
    #{
        cases => [
            case_of(Rate, <<"throughput">>, <<"requests/s">>, higher),
            case_of(P99, <<"latency">>, <<"us">>, lower),
            case_of(Cpu, <<"CPU of the server">>, <<"us/request">>, lower)
        ],
        variants => [
            #{path => Kind, run => fun(Servers) -> load(Kind, Servers, Bytes, Connections) end}
         || Kind <- Kinds
        ],
        ratios => [
            {Case, of_path(To), to_path(To), Bar}
         || {Case, Tos} <- Bars, {To, Bar} <- Tos, lists:member(To, Kinds)
        ],
        runs => ?RUNS,
        setup => fun() ->
            maps:from_list([{Kind, bench_http_server:start(Kind)} || Kind <- Kinds])
        end,
        teardown => fun(Servers) ->
            maps:foreach(fun(_, Server) -> bench_http_server:stop(Server) end, Servers)
        end
    }.

%% The path port is held against nif, all else against it.
of_path(port) -> port;
of_path(_) -> nif.

to_path(port) -> nif;
to_path(Kind) -> Kind.

case_of(Name, Metric, Unit, Better) ->
    #{name => Name, metric => Metric, unit => Unit, better => Better}.

load(Kind, Servers, Bytes, Connections) ->
    Server = maps:get(Kind, Servers),
    Before = bench_http_server:cpu_us(Server),
    #{requests := Requests, rate := Rate, p99_us := P99} = bench_wrk:run(#{
        port => bench_http_server:port(Server),
        connections => Connections,
        seconds => ?SECONDS,
        body => bench_http_server:request(Bytes),
        headers => bench_http_server:headers()
    }),
    [Rate, P99, (bench_http_server:cpu_us(Server) - Before) / Requests].
