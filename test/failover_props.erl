%% @doc Properties of the plan of a failover: random interleavings of requests, answers, losses and
%% switches.
-module(failover_props).

-include("props.hrl").

-import(proper_types, [integer/2, list/1, oneof/1, frequency/1, boolean/0]).

-export([
    prop_one_outcome_each/0,
    prop_only_safe_requests_are_sent_twice/0,
    prop_bounds_are_kept/0,
    prop_planned_switches_fail_nothing/0,
    prop_late_answers_are_for_nobody/0,
    prop_sent_to_the_active_in_order/0
]).

-define(PLAN, erlmcp_native_failover_plan).
-define(NAMES, [a, b, c]).

-record(world, {
    plan,
    accepted = [],
    safe = #{},
    outcomes = #{},
    %% What was sent, the latest first: {Wire, Id, Name}.
    sent = [],
    flying = [],
    alive = #{},
    order = true,
    most = 0
}).

%% @doc Whatever happens each request that was taken on has at most one outcome, and exactly one
%% when everything is over.
prop_one_outcome_each() ->
    ?FORALL({Limits, Steps}, {limits(), list(step())}, begin
        World = ended(run(Steps, Limits)),
        Ids = lists:sort(World#world.accepted),
        Ids =:= lists:sort(maps:keys(World#world.outcomes)) andalso
            lists:all(fun(N) -> N =:= 1 end, maps:values(World#world.outcomes)) andalso
            ?PLAN:counts(World#world.plan) =:= #{waiting => 0, in_flight => 0}
    end).

%% @doc A request that is not safe is handed to a connection again only if the former did not take
%% it; a safe one no more often than allowed.
prop_only_safe_requests_are_sent_twice() ->
    ?FORALL({Limits, Steps}, {limits(), list(step_without_refusals())}, begin
        #{retries := Retries} = Limits,
        #world{sent = Sent, safe = Safe} = run(Steps, Limits),
        Times = lists:foldl(
            fun({_, Id, _}, Acc) -> maps:update_with(Id, fun(N) -> N + 1 end, 1, Acc) end,
            #{},
            Sent
        ),
        lists:all(
            fun({Id, N}) ->
                case maps:get(Id, Safe) of
                    true -> N =< 1 + Retries;
                    false -> N =:= 1
                end
            end,
            maps:to_list(Times)
        )
    end).

%% @doc No endpoint has more in flight than allowed, and no more wait than allowed but those that
%% had been sent.
prop_bounds_are_kept() ->
    ?FORALL({Limits, Steps}, {limits(), list(step())}, begin
        #{max_in_flight := Max} = Limits,
        (run(Steps, Limits))#world.most =< Max
    end).

%% @doc With answers and switches by command alone, all endpoints ready, nothing fails.
prop_planned_switches_fail_nothing() ->
    ?FORALL({Limits, Steps}, {limits(), list(planned())}, begin
        Ready = [{ready, Name} || Name <- ?NAMES],
        World = drained(run(Ready ++ Steps, Limits)),
        length(World#world.accepted) =:= map_size(World#world.outcomes) andalso
            not is_map_key(failed, World#world.safe)
    end).

%% @doc An answer to what was sent once, but is not in flight there, is late.
prop_late_answers_are_for_nobody() ->
    ?FORALL({Limits, Steps}, {limits(), list(step())}, begin
        #world{plan = Plan, sent = Sent, flying = Flying} = run(Steps, Limits),
        lists:all(
            fun({Wire, _, Name} = Entry) ->
                Other = hd(?NAMES -- [Name]),
                ?PLAN:answered(Other, Wire, Plan) =:= late andalso
                    (lists:member(Entry, Flying) orelse
                        ?PLAN:answered(Name, Wire, Plan) =:= late)
            end,
            Sent
        )
    end).

%% @doc Everything is sent to the endpoint that is active, the oldest first.
prop_sent_to_the_active_in_order() ->
    ?FORALL({Limits, Steps}, {limits(), list(step())}, (run(Steps, Limits))#world.order).

run(Steps, Limits) ->
    lists:foldl(fun step/2, #world{plan = ?PLAN:new(?NAMES, Limits)}, Steps).

step({request, Safe}, #world{plan = Plan} = W) ->
    case ?PLAN:request(Safe, Plan) of
        {ok, Id, Effects, Next} ->
            effects(Effects, W#world{
                plan = Next,
                accepted = [Id | W#world.accepted],
                safe = (W#world.safe)#{Id => Safe}
            });
        {error, busy} ->
            W
    end;
step({answer, N}, W) ->
    on_flying(N, fun({Wire, _, Name}, Plan) -> ?PLAN:answered(Name, Wire, Plan) end, W);
step({refuse, N}, W) ->
    on_flying(N, fun({Wire, _, _}, Plan) -> ?PLAN:failed(Wire, refused, Plan) end, W);
step({lose, N}, W) ->
    on_flying(N, fun({Wire, _, _}, Plan) -> ?PLAN:lost(Wire, reset, Plan) end, W);
step({unsent, N}, W) ->
    on_flying(N, fun({Wire, _, _}, Plan) -> ?PLAN:unsent(Wire, Plan) end, W);
step({stall, N}, W) ->
    on_flying(N, fun({Wire, _, _}, Plan) -> ?PLAN:stalled(Wire, Plan) end, W);
step({withdraw, N}, #world{plan = Plan} = W) ->
    case ?PLAN:ids(Plan) of
        [] ->
            W;
        Ids ->
            Id = lists:nth(1 + N rem length(Ids), Ids),
            {Effects, Next} = ?PLAN:withdraw(Id, timeout, Plan),
            Flying = [Entry || {_, I, _} = Entry <- W#world.flying, I =/= Id],
            effects(Effects, W#world{plan = Next, flying = Flying})
    end;
step({ready, Name}, W) ->
    told(fun(Plan) -> ?PLAN:ready(Name, Plan) end, W);
step({leave, Name}, W) ->
    told(fun(Plan) -> ?PLAN:leave(Name, breaker, Plan) end, W);
step({writable, Name}, W) ->
    told(fun(Plan) -> ?PLAN:writable(Name, Plan) end, W);
step({down, Name}, #world{flying = Flying} = W) ->
    Left = [Entry || {_, _, At} = Entry <- Flying, At =/= Name],
    told(fun(Plan) -> ?PLAN:down(Name, reset, Plan) end, W#world{flying = Left});
step({switch, To}, #world{plan = Plan} = W) ->
    case ?PLAN:switch(To, command, Plan) of
        {ok, Effects, Next} -> effects(Effects, W#world{plan = Next});
        {error, not_ready} -> W
    end.

told(Tell, #world{plan = Plan} = W) ->
    {Effects, Next} = Tell(Plan),
    effects(Effects, W#world{plan = Next}).

on_flying(_, _, #world{flying = []} = W) ->
    W;
on_flying(N, Tell, #world{flying = Flying, plan = Plan} = W) ->
    Entry = lists:nth(1 + N rem length(Flying), Flying),
    {Effects, Next} = Tell(Entry, Plan),
    effects(Effects, W#world{plan = Next, flying = lists:delete(Entry, Flying)}).

effects(Effects, W) ->
    Sends = [Id || {send, _, _, Id} <- Effects],
    #world{plan = Plan, order = Order, most = Most} = Next = lists:foldl(fun effect/2, W, Effects),
    Right = lists:all(fun({send, To, _, _}) -> To =:= ?PLAN:active(Plan); (_) -> true end, Effects),
    InFlight = lists:max([?PLAN:in_flight(Name, Plan) || Name <- ?NAMES]),
    Next#world{
        order = Order andalso Right andalso lists:sort(Sends) =:= Sends,
        most = max(Most, InFlight)
    }.

effect({send, Name, Wire, Id}, #world{sent = Sent, flying = Flying} = W) ->
    W#world{sent = [{Wire, Id, Name} | Sent], flying = [{Wire, Id, Name} | Flying]};
effect({outcome, Id, Outcome}, #world{outcomes = Outcomes, safe = Safe} = W) ->
    Counted = maps:update_with(Id, fun(N) -> N + 1 end, 1, Outcomes),
    case Outcome of
        {failed, _} -> W#world{outcomes = Counted, safe = Safe#{failed => true}};
        {answered, _} -> W#world{outcomes = Counted}
    end;
effect(_, W) ->
    W.

%% Everything that is left is withdrawn.
ended(#world{plan = Plan} = W) ->
    case ?PLAN:ids(Plan) of
        [] -> W;
        _ -> ended(step({withdraw, 0}, W))
    end.

%% Everything that was sent is answered.
drained(#world{flying = []} = W) -> W;
drained(W) -> drained(step({answer, 0}, W)).

step() ->
    frequency([{2, {unsent, number()}}, {1, {stall, number()}}, {20, step_without_refusals()}]).

step_without_refusals() ->
    frequency([
        {8, {request, boolean()}},
        {6, {answer, number()}},
        {1, {refuse, number()}},
        {1, {lose, number()}},
        {1, {withdraw, number()}},
        {3, {ready, name()}},
        {1, {leave, name()}},
        {1, {writable, name()}},
        {2, {down, name()}},
        {2, {switch, oneof([next, name()])}}
    ]).

planned() ->
    frequency([
        {4, {request, boolean()}}, {3, {answer, number()}}, {1, {switch, oneof([next, name()])}}
    ]).

number() -> integer(0, 1000).

name() -> oneof(?NAMES).

limits() ->
    ?LET({InFlight, Queue, Retries, Failback}, {
        integer(1, 8), integer(1, 20), integer(0, 3), boolean()
    }, #{
        max_in_flight => InFlight,
        max_queue => Queue,
        retries => Retries,
        failback => Failback
    }).
