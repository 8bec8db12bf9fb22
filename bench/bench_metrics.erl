%% @doc What it costs to record histograms: requests of an HTTP server, and messages of a
%% connection. Counters count in both.
%%
%% What is looked for is smaller than what a machine varies by from one second to the next. So
%% recording is switched on and off by turns in slices of some 30 ms, which a disturbance that lasts
%% for longer meets alike, and there are many of them.
-module(bench_metrics).

-export([groups/0]).

-define(SLICES, 100).
-define(SLICE_MS, 30).
-define(CONNECTIONS, 64).
-define(BYTES, 1024).
-define(COUNT, 60000).
-define(WINDOW, 256).
-define(SENT, 6 * ?WINDOW).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [http(), received(), echoed()].

http() ->
    group(
        {metrics, <<"HTTP server, 1 KB, 64 connections">>, <<"requests/s">>},
        fun served/2,
        fun() ->
            Server = bench_http_server:start(nif),
            {Load, Monitor} = spawn_monitor(fun() -> load(Server) end),
            {Server, Load, Monitor}
        end,
        fun({Server, Load, Monitor}) ->
            receive
                {'DOWN', Monitor, process, Load, normal} -> bench_http_server:stop(Server)
            end
        end
    ).

%% Longer than all slices.
load(Server) ->
    bench_wrk:run(#{
        port => bench_http_server:port(Server),
        connections => ?CONNECTIONS,
        seconds => 3 + 2 * ?SLICES * ?SLICE_MS div 1000,
        body => bench_http_server:request(?BYTES),
        headers => bench_http_server:headers()
    }).

served(On, {Server, _, _}) ->
    ok = bench_http_server:call(Server, erlmcp_native_metrics, recording, [On]),
    {Before, Begun} = {requests(Server), erlang:monotonic_time(microsecond)},
    receive
    after ?SLICE_MS -> ok
    end,
    {After, Ended} = {requests(Server), erlang:monotonic_time(microsecond)},
    [(After - Before) * 1.0e6 / (Ended - Begun)].

requests(Server) ->
    #{http_requests := #{value := Count}} =
        bench_http_server:call(Server, erlmcp_native_metrics, overview, [http]),
    Count.

received() ->
    group(
        {metrics_recv, <<"messages of 1 KB received">>, <<"messages/s">>},
        fun(On, {_, Port}) ->
            measured(On, Port, ?COUNT, fun(Link) ->
                Asked = bench_link:send(<<"go">>, Link),
                {ok, _, Done} = bench_link:fold(fun ignore/2, ok, ?COUNT, Asked),
                Done
            end)
        end,
        fun() -> sender({blast, ?BYTES, ?COUNT}) end,
        fun stop/1
    ).

echoed() ->
    Message = binary:copy(<<"x">>, ?BYTES),
    group(
        {metrics_echo, <<"messages of 1 KB sent and received">>, <<"messages/s">>},
        fun(On, {_, Port}) ->
            measured(On, Port, ?SENT, fun(Link) -> windows(?SENT div ?WINDOW, Message, Link) end)
        end,
        fun() -> sender(echo) end,
        fun stop/1
    ).

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
    Begun = erlang:monotonic_time(microsecond),
    Done = Run(Link),
    Ended = erlang:monotonic_time(microsecond),
    ok = erlmcp_native_metrics:recording(true),
    ok = bench_link:close(Done),
    [Count * 1.0e6 / (Ended - Begun)].

group({Name, Metric, Unit}, Run, Setup, Teardown) ->
    #{
        cases => [#{name => Name, metric => Metric, unit => Unit, better => higher}],
        variants => [
            #{path => Path, run => fun(Context) -> Run(On, Context) end}
         || {Path, On} <- [{recording, true}, {silent, false}]
        ],
        ratios => [{Name, recording, silent, 0.98}],
        runs => ?SLICES,
        setup => Setup,
        teardown => Teardown
    }.

sender(Behaviour) ->
    Sender = bench_peer:start_sender(),
    {Sender, bench_peer:serve(Sender, Behaviour)}.

stop({Sender, _}) ->
    bench_peer:stop(Sender).
