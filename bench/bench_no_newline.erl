%% @doc Peers that send bytes without a newline: how their connections end, and what they do to
%% the round trips of another one.
-module(bench_no_newline).

-export([groups/0]).

%% 1 Gbit/s. Unthrottled, the sender alone would take one of two cores from the echo server and
%% the measured node, which says nothing about either.
-define(BYTES_PER_SECOND, 125000000).
-define(WARM_UP, 1000).
-define(COUNT, 6000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        #{
            cases => [
                #{
                    name => no_newline,
                    metric => <<"p99 during / before">>,
                    unit => <<"times">>,
                    better => lower
                },
                #{
                    name => no_newline_p99,
                    metric => <<"round trip">>,
                    unit => <<"us">>,
                    better => lower
                },
                #{
                    name => no_newline_refused,
                    metric => <<"ended with frame_too_large">>,
                    unit => <<"share of connections">>,
                    better => higher
                }
            ],
            variants => [
                #{path => Path, run => fun(Context) -> measure(Path, Context) end}
             || Path <- [nif, beam]
            ],
            ratios => [],
            runs => 5,
            setup => fun start/0,
            teardown => fun({Sender, Echo, _, _}) ->
                bench_peer:stop(Sender),
                bench_peer:stop(Echo)
            end,
            checks => fun checks/1
        }
    ].

start() ->
    Sender = bench_peer:start_sender(),
    Echo = bench_peer:start_sender(),
    {
        Sender,
        Echo,
        bench_peer:serve(Sender, {endless, ?BYTES_PER_SECOND}),
        bench_peer:serve(Echo, echo)
    }.

measure(Path, {_, _, EndlessPort, EchoPort}) ->
    {RoundTrip, New, Close} = bench_ping:over_link(Path, EchoPort),
    {_, Warm} = bench_ping:times(RoundTrip, New, ?WARM_UP),
    {Before, Still} = bench_ping:times(RoundTrip, Warm, ?COUNT),
    Stop = atomics:new(1, []),
    {Victim, Monitor} = spawn_monitor(fun() -> endure(Path, EndlessPort, Stop, []) end),
    {During, Done} = bench_ping:times(RoundTrip, Still, ?COUNT),
    ok = atomics:put(Stop, 1, 1),
    Close(Done),
    receive
        {'DOWN', Monitor, process, Victim, {ended, [_ | _] = Reasons}} ->
            Refused = length([Reason || frame_too_large = Reason <- Reasons]),
            P99 = erlmcp_native_statistics:percentile(99, During),
            [P99 / erlmcp_native_statistics:percentile(99, Before), P99, Refused / length(Reasons)]
    end.

%% One such peer after another until told to stop; how each connection ended.
endure(Path, Port, Stop, Reasons) ->
    Link = bench_link:connect(Path, Port, #{}),
    {Ended, _, Down} = bench_link:fold(
        fun(_, Acc) -> Acc end, none, 1, bench_link:send(<<"go">>, Link)
    ),
    bench_link:close(Down),
    Known = [reason(Ended) | Reasons],
    case atomics:get(Stop, 1) of
        1 -> exit({ended, Known});
        0 -> endure(Path, Port, Stop, Known)
    end.

reason({down, Reason}) -> Reason;
reason(ok) -> frame.

checks(Rows) ->
    [
        #{
            'case' => Name,
            ok => Times =< 2 andalso bench_report:median(no_newline_refused, Path, Rows) == 1,
            value => Times,
            unit => <<"p99 during / before, all ended with frame_too_large">>
        }
     || {Name, Path} <- [{no_newline, nif}, {no_newline_beam, beam}],
        Times <- [bench_report:median(no_newline, Path, Rows)],
        is_number(Times)
    ].
