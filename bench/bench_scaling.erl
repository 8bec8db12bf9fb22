%% @doc A pool whose size follows the load beside pools of a fixed size: latency, and how many
%% connections were held for how long.
%%
%% Each connection of the server answers one request at a time, in 5 ms, so it takes 200 a second.
%% Requests are made when they are due, whatever has become of those before, and their latency is
%% counted from then. `few' is what the mean of the load needs, `many' what its peak does.
-module(bench_scaling).

-export([groups/0]).

-define(SERVICE_MS, 5).
-define(FEW, 3).
-define(MANY, 8).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        group(scaling_ramp, fun(At) -> 100 + 100 * At end, 10),
        group(scaling_burst, fun burst/1, 12),
        group(scaling, fun(_) -> 500 end, 12)
    ].

%% A second every four.
burst(At) when trunc(At) rem 4 =:= 2 -> 1000;
burst(_) -> 150.

group(Name, Rate, Seconds) ->
    [Held, Changes] = [
        list_to_atom(atom_to_list(Name) ++ Suffix)
     || Suffix <- ["_held", "_changes"]
    ],
    #{
        cases => [
            #{name => Name, metric => <<"latency, p99">>, unit => <<"ms">>, better => lower},
            #{
                name => Held,
                metric => <<"connections held">>,
                unit => <<"connection seconds">>,
                better => lower
            },
            #{
                name => Changes,
                metric => <<"changes of size in the second half">>,
                unit => <<"changes">>,
                better => lower
            }
        ],
        variants => [
            variant(adaptive, 1, ?MANY, Rate, Seconds),
            variant(few, ?FEW, ?FEW, Rate, Seconds),
            variant(many, ?MANY, ?MANY, Rate, Seconds)
        ],
        ratios => [{Name, few, adaptive, none}, {Held, many, adaptive, none}],
        runs => 3,
        warm_up => false,
        by_name_only => true
    }.

variant(Name, Min, Max, Rate, Seconds) ->
    #{path => Name, run => fun(_) -> run(Min, Max, Rate, Seconds) end}.

run(Min, Max, Rate, Seconds) ->
    {Listener, Port} = listen(),
    {ok, Pool} = erlmcp_native_pool:start_link(#{
        endpoint => #{port => Port},
        scaling => #{min => Min, max => Max, per_connection => 1, cooldown_ms => 1500}
    }),
    Begun = now_us(),
    Load = {Pool, Rate, Begun, Begun + Seconds * 1000000},
    {Latencies, Held} = loop(Load, Begun, Begun, #{}, [], 0.0),
    {ok, #{steps := Steps}} = erlmcp_native_pool:info(Pool),
    Half = erlang:system_time(millisecond) - Seconds * 500,
    ok = erlmcp_native_pool:stop(Pool),
    ok = gen_tcp:close(Listener),
    Sorted = lists:sort(Latencies),
    P99 = lists:nth(ceil(length(Sorted) * 0.99), Sorted) / 1000,
    [P99, Held, length([ok || #{at_ms := At} <- Steps, At > Half])].

%% `Next' is when the next request is due, `Look' when the size is looked at.
loop({_, _, _, End}, Next, _, Waiting, Acc, Held) when Next >= End, map_size(Waiting) =:= 0 ->
    {Acc, Held};
loop({Pool, Rate, Begun, End} = Load, Next, Look, Waiting, Acc, Held) ->
    Now = now_us(),
    if
        Now >= Next, Next < End ->
            {ok, Id} = erlmcp_native_pool:request(
                Pool, #{method => <<"x">>}, #{timeout_ms => infinity}
            ),
            Due = Next + round(1000000 / Rate((Next - Begun) / 1000000)),
            loop(Load, Due, Look, Waiting#{Id => Next}, Acc, Held);
        Now >= Look, Look < End ->
            {ok, #{connections := Count, leaving := Leaving}} = erlmcp_native_pool:info(Pool),
            loop(Load, Next, Look + 100000, Waiting, Acc, Held + (Count + Leaving) / 10);
        true ->
            receive
                {erlmcp_native, Pool, {outcome, Id, {ok, _}}} ->
                    {At, Left} = maps:take(Id, Waiting),
                    loop(Load, Next, Look, Left, [now_us() - At | Acc], Held)
            after wait(min(due(Next, End), due(Look, End)), Now) ->
                loop(Load, Next, Look, Waiting, Acc, Held)
            end
    end.

due(At, End) when At < End -> At;
due(_, _) -> infinity.

wait(infinity, _) -> infinity;
wait(At, Now) -> max(0, (At - Now) div 1000).

listen() ->
    {ok, Listener} = gen_tcp:listen(0, [
        binary, {ip, {127, 0, 0, 1}}, {active, false}, {packet, line}, {nodelay, true}
    ]),
    {ok, Port} = inet:port(Listener),
    _ = spawn_link(fun() -> accept(Listener) end),
    {Listener, Port}.

accept(Listener) ->
    case gen_tcp:accept(Listener) of
        {ok, Socket} ->
            Server = spawn_link(fun() ->
                receive
                    go -> serve(Socket)
                end
            end),
            ok = gen_tcp:controlling_process(Socket, Server),
            Server ! go,
            accept(Listener);
        {error, closed} ->
            ok
    end.

serve(Socket) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, Line} ->
            {ok, #{<<"id">> := Id}} = erlmcp_native_json:decode(Line),
            receive
            after ?SERVICE_MS -> ok
            end,
            Answer = #{jsonrpc => <<"2.0">>, id => Id, result => #{}},
            ok = gen_tcp:send(Socket, [erlmcp_native_json:encode(Answer), $\n]),
            serve(Socket);
        {error, _} ->
            ok
    end.

now_us() -> erlang:monotonic_time(microsecond).
