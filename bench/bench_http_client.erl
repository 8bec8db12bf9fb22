%% @doc HTTP clients: a POST of 1 KB that is answered with as much, one at a time and 32 at a time,
%% and the first request on a new TLS connection. The server is bare hyper in a program of its own.
-module(bench_http_client).

-export([groups/0]).

-define(BYTES, 1024).
-define(COUNT, 3200).
-define(HANDSHAKES, 20).
-define(RUNS, 5).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    case lists:member(hyper, bench_http_server:kinds()) of
        true -> [throughput(Case) || Case <- throughput_cases()] ++ [tls_first()];
        false -> []
    end.

throughput_cases() ->
    [
        {http_client_1k_seq, 1, [{httpc, 1.6}, {gun, 1}, {beam, none}]},
        {http_client_1k_c32, 32, [{httpc, 4}, {gun, 1.5}, {beam, none}]}
    ].

throughput({Name, Concurrent, Bars}) ->
    Measure = fun(Kind, Server) ->
        [per_second(bench_http_driver:open(Kind, http, address(Server), Concurrent))]
    end,
    Case = #{
        name => Name, metric => <<"throughput">>, unit => <<"requests/s">>, better => higher
    },
    Setup = fun() -> bench_http_server:start(hyper) end,
    group(Case, Measure, Bars, Setup, fun bench_http_server:stop/1).

tls_first() ->
    Measure = fun(Kind, {Server, CaFile}) -> [first_us(Kind, address(Server), CaFile)] end,
    Case = #{
        name => http_client_tls_first,
        metric => <<"connect, handshake and POST">>,
        unit => <<"us">>,
        better => lower
    },
    Bars = [{httpc, 1}, {beam, none}],
    Teardown = fun({Server, _}) -> bench_http_server:stop(Server) end,
    group(Case, Measure, Bars, fun tls_server/0, Teardown).

group(#{name := Name} = Case, Measure, Bars, Setup, Teardown) ->
    #{
        cases => [Case],
        variants => [
            #{path => Kind, run => fun(Context) -> Measure(Kind, Context) end}
         || Kind <- [nif | [To || {To, _} <- Bars]]
        ],
        ratios => [{Name, nif, To, Bar} || {To, Bar} <- Bars],
        runs => ?RUNS,
        setup => Setup,
        teardown => Teardown
    }.

tls_server() ->
    #{cert := Cert, key := Key, ca := CaFile} = bench_http_driver:certificates(),
    {bench_http_server:start({hyper, [Cert, Key]}), CaFile}.

address(Server) -> {"localhost", bench_http_server:port(Server)}.

%% Over connections that are warm.
per_second({Run, Close}) ->
    Body = binary:copy(<<"x">>, ?BYTES),
    ok = Run(Body, ?COUNT div 10),
    Us = time_us(fun() -> ok = Run(Body, ?COUNT) end),
    Close(),
    ?COUNT * 1.0e6 / Us.

%% The median, for each handshake makes new keys. A client that is ready and has no connection yet.
first_us(Kind, Address, CaFile) ->
    Body = binary:copy(<<"x">>, ?BYTES),
    erlmcp_native_statistics:percentile(50, [
        begin
            {Run, Close} = bench_http_driver:open(Kind, {https, CaFile}, Address, 1),
            Us = time_us(fun() -> ok = Run(Body, 1) end),
            Close(),
            Us
        end
     || _ <- lists:seq(1, ?HANDSHAKES)
    ]).

time_us(Fun) ->
    Begin = erlang:monotonic_time(),
    Fun(),
    erlang:convert_time_unit(erlang:monotonic_time() - Begin, native, microsecond).
