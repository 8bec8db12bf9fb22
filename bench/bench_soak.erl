%% @doc Connect, 100 messages there and back, disconnect, at full speed and for minutes. Both sides
%% are in this VM. Run by name only; SOAK_SECONDS says for how long.
-module(bench_soak).

-export([groups/0]).

-define(SECONDS, "600").
-define(CLIENTS, 4).
-define(MESSAGES, 100).
-define(FRAME_BYTES, 1023).
-define(SAMPLES, 100).
-define(DRAIN_MS, 30000).

%% What the median of the last fifth may be over that of the second one.
-define(NOISE_PERCENT, 5).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Seconds = list_to_integer(os:getenv("SOAK_SECONDS", ?SECONDS)),
    [
        #{
            cases => [
                #{
                    name => soak,
                    metric => <<"live native objects after">>,
                    unit => <<"objects">>,
                    better => lower
                },
                #{
                    name => soak_memory,
                    metric => <<"growth of resident memory">>,
                    unit => <<"percent">>,
                    better => lower
                },
                #{
                    name => soak_rate,
                    metric => <<"throughput">>,
                    unit => <<"connections/s">>,
                    better => higher
                }
            ],
            variants => [
                #{
                    path => nif,
                    run => fun(_) -> measure(Seconds) end,
                    timeout_ms => Seconds * 1000 + 2 * ?DRAIN_MS
                }
            ],
            ratios => [],
            runs => 1,
            warm_up => false,
            by_name_only => true,
            checks => fun checks/1
        }
    ].

measure(Seconds) ->
    {Server, Port} = start_server(),
    Stop = atomics:new(1, []),
    Clients = [spawn_monitor(fun() -> client(Port, Stop, 0) end) || _ <- lists:seq(1, ?CLIENTS)],
    Memory = sample(Seconds * 1000 div ?SAMPLES, ?SAMPLES),
    ok = atomics:put(Stop, 1, 1),
    Connections = lists:sum([count(Client) || Client <- Clients]),
    stop(Server),
    [drained(deadline()), growth_percent(Memory), Connections / Seconds].

%% Echoes on all connections of one listener.
start_server() ->
    Self = self(),
    Server = spawn_monitor(fun() ->
        {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{path => nif, active => true}),
        {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
        Self ! {port, Port},
        serve()
    end),
    receive
        {port, Port} -> {Server, Port}
    end.

serve() ->
    receive
        {erlmcp_native, Conn, {frames, Items}} ->
            [ok = erlmcp_native:send(Conn, Item) || Item <- Items],
            serve();
        {erlmcp_native, _, _} ->
            serve();
        stop ->
            ok
    end.

client(Port, Stop, Connections) ->
    Message = bench_peer:frame(?FRAME_BYTES),
    Link = bench_link:connect(nif, Port, #{}),
    Sent = lists:foldl(fun bench_link:send/2, Link, lists:duplicate(?MESSAGES, Message)),
    Same = fun(Frame, Count) when Frame =:= Message -> Count + 1 end,
    {ok, ?MESSAGES, Done} = bench_link:fold(Same, 0, ?MESSAGES, Sent),
    bench_link:close(Done),
    case atomics:get(Stop, 1) of
        1 -> exit({count, Connections + 1});
        0 -> client(Port, Stop, Connections + 1)
    end.

count({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {count, Count}} -> Count
    end.

stop({Pid, Monitor}) ->
    Pid ! stop,
    receive
        {'DOWN', Monitor, process, Pid, normal} -> ok
    end.

sample(_, 0) ->
    [];
sample(EveryMs, Left) ->
    receive
        {'DOWN', _, process, _, Reason} -> exit(Reason)
    after EveryMs -> [bench_os:rss_bytes() | sample(EveryMs, Left - 1)]
    end.

growth_percent(Memory) ->
    Fifth = length(Memory) div 5,
    Early = bench_ping:percentile(50, lists:sublist(Memory, Fifth + 1, Fifth)),
    Late = bench_ping:percentile(50, lists:nthtail(length(Memory) - Fifth, Memory)),
    (Late - Early) * 100 / Early.

deadline() -> erlang:monotonic_time(millisecond) + ?DRAIN_MS.

%% The native objects that are still alive once everything has been closed and collected.
drained(Deadline) ->
    lists:foreach(fun erlang:garbage_collect/1, processes()),
    Live = lists:sum([
        Value
     || {_, gauge, _, Value} <- erlmcp_native_nif:metrics_read()
    ]),
    case Live > 0 andalso erlang:monotonic_time(millisecond) < Deadline of
        true ->
            receive
            after 100 -> drained(Deadline)
            end;
        false ->
            Live
    end.

checks(Rows) ->
    Live = bench_report:median(soak, nif, Rows),
    Growth = bench_report:median(soak_memory, nif, Rows),
    [
        Check
     || is_number(Live),
        Check <- [
            #{'case' => soak, ok => Live == 0, value => Live, unit => <<"live native objects">>},
            #{
                'case' => soak_memory,
                ok => Growth =< ?NOISE_PERCENT,
                value => Growth,
                unit => <<"percent of growth">>
            }
        ]
    ].
