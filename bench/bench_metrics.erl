%% @doc What it costs to record histograms: requests of an HTTP server, and messages of a
%% connection, with recording on and off by turns. Counters count in both.
-module(bench_metrics).

-export([groups/0]).

-define(RUNS, 5).
-define(SECONDS, 1).
-define(CONNECTIONS, 64).
-define(BYTES, 1024).
-define(COUNT, 500000).
-define(WINDOW, 256).
-define(SENT, 200 * ?WINDOW).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [http(), received(), echoed()].

http() ->
    group(
        [
            {metrics, <<"HTTP server, 1 KB, 64 connections">>, <<"requests/s">>, higher},
            {metrics_cpu, <<"CPU of the server">>, <<"us/request">>, lower}
        ],
        fun load/2,
        fun() -> bench_http_server:start(nif) end,
        fun bench_http_server:stop/1
    ).

load(On, Server) ->
    ok = bench_http_server:call(Server, erlmcp_native_metrics, recording, [On]),
    Before = bench_http_server:cpu_us(Server),
    #{requests := Requests, rate := Rate} = bench_wrk:run(#{
        port => bench_http_server:port(Server),
        connections => ?CONNECTIONS,
        seconds => ?SECONDS,
        body => bench_http_server:request(?BYTES),
        headers => bench_http_server:headers()
    }),
    [Rate, (bench_http_server:cpu_us(Server) - Before) / Requests].

received() ->
    group(
        [
            {metrics_recv, <<"messages of 1 KB received">>, <<"messages/s">>, higher},
            {metrics_recv_cpu, <<"CPU">>, <<"us/message">>, lower}
        ],
        fun receive_all/2,
        fun() -> served({blast, ?BYTES, ?COUNT}) end,
        fun stop/1
    ).

receive_all(On, {_, Port}) ->
    measured(On, Port, ?COUNT, fun(Link) ->
        {ok, _, Done} = bench_link:fold(fun ignore/2, ok, ?COUNT, bench_link:send(<<"go">>, Link)),
        Done
    end).

echoed() ->
    group(
        [
            {metrics_echo, <<"messages of 1 KB sent and received">>, <<"messages/s">>, higher},
            {metrics_echo_cpu, <<"CPU">>, <<"us/message">>, lower}
        ],
        fun echo_all/2,
        fun() -> served(echo) end,
        fun stop/1
    ).

echo_all(On, {_, Port}) ->
    Message = binary:copy(<<"x">>, ?BYTES),
    measured(On, Port, ?SENT, fun(Link) -> windows(?SENT div ?WINDOW, Message, Link) end).

windows(0, _, Link) ->
    Link;
windows(Left, Message, Link) ->
    Send = fun(_, Acc) -> bench_link:send(Message, Acc) end,
    Sent = lists:foldl(Send, Link, lists:seq(1, ?WINDOW)),
    {ok, _, Done} = bench_link:fold(fun ignore/2, ok, ?WINDOW, Sent),
    windows(Left - 1, Message, Done).

ignore(_, Acc) -> Acc.

measured(On, Port, Count, Run) ->
    Link = bench_link:connect(nif, Port, #{}),
    ok = erlmcp_native_metrics:recording(On),
    {Cpu, Us} = {bench_os:cpu_us(), erlang:monotonic_time(microsecond)},
    Done = Run(Link),
    {CpuAfter, UsAfter} = {bench_os:cpu_us(), erlang:monotonic_time(microsecond)},
    ok = erlmcp_native_metrics:recording(true),
    ok = bench_link:close(Done),
    [Count * 1.0e6 / (UsAfter - Us), (CpuAfter - Cpu) / Count].

group(Cases, Run, Setup, Teardown) ->
    #{
        cases => [
            #{name => Name, metric => Metric, unit => Unit, better => Better}
         || {Name, Metric, Unit, Better} <- Cases
        ],
        variants => [
            #{path => Path, run => fun(Context) -> Run(On, Context) end}
         || {Path, On} <- [{recording, true}, {silent, false}]
        ],
        ratios => [{Name, recording, silent, 0.98} || {Name, _, _, _} <- Cases],
        runs => ?RUNS,
        setup => Setup,
        teardown => Teardown
    }.

served(Behaviour) ->
    Sender = bench_peer:start_sender(),
    {Sender, bench_peer:serve(Sender, Behaviour)}.

stop({Sender, _}) ->
    bench_peer:stop(Sender).
