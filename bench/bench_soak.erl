%% @doc Connect, 100 messages there and back, disconnect, at full speed and for minutes. Both sides
%% are in this VM. Run by name only; SOAK_SECONDS says for how long.
-module(bench_soak).

-export([groups/0]).

-define(CLIENTS, 4).
-define(MESSAGES, 100).
-define(FRAME_BYTES, 1023).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Seconds = bench_steady:seconds(),
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
                    timeout_ms => bench_steady:timeout_ms(Seconds)
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
    Memory = bench_steady:sample(Seconds),
    ok = atomics:put(Stop, 1, 1),
    Connections = lists:sum([count(Client) || Client <- Clients]),
    stop(Server),
    Growth = bench_steady:growth_percent(Memory),
    [bench_steady:live_objects(), Growth, Connections / Seconds].

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

checks(Rows) ->
    bench_steady:none(soak, <<"live native objects">>, Rows) ++
        bench_steady:flat(soak_memory, Rows).
