%% @doc What several endpoints that are seen as one do with requests: which is used, what is sent
%% where, and how each request ends. Pure: no clock, no process, no connection.
%%
%% Endpoints are ready or not, in the order in which they are preferred; one of those that are is
%% active. What happens is told with the functions of this module, and each returns what is to be
%% done about it:
%%
%% <ul>
%% <li>`{send, Endpoint, Wire, Id}': send the request to the endpoint under the id `Wire', which is
%% never used again. If it was not taken, {@link unsent/2} or {@link stalled/2} follows.</li>
%% <li>`{outcome, Id, Outcome}': the request has ended. Exactly once for each.</li>
%% <li>`{withdrawn, Endpoint, Wire}': nobody waits for that answer any more.</li>
%% <li>`{switched, From, To, Reason}': another endpoint is active, or `none'.</li>
%% </ul>
%%
%% A request that has not been sent moves with the active endpoint. One that was sent stays with
%% the endpoint that it was sent to, until that is lost; then it is sent again if it is safe to,
%% `retries' times at most, and ends with `{switched, From, To, Reason}' if not.
-module(erlmcp_native_failover_plan).

-export([new/2, request/2, answered/3, failed/3, lost/3, unsent/2, withdraw/3]).
-export([ready/2, leave/3, down/3, switch/3, stalled/2, writable/2]).
-export([active/1, ready/1, counts/1, in_flight/2, ids/1, endpoint_of/2]).

-export_type([plan/0, name/0, id/0, wire/0, effect/0, limits/0]).

-type name() :: term().
-type id() :: pos_integer().
-type wire() :: pos_integer().

-type limits() :: #{
    max_in_flight := pos_integer(),
    max_queue := pos_integer(),
    retries := non_neg_integer(),
    failback := boolean()
}.

-type effect() ::
    {send, name(), wire(), id()}
    | {outcome, id(), {failed, term()} | {answered, name()}}
    | {withdrawn, name(), wire()}
    | {switched, From :: name() | none, To :: name() | none, Reason :: term()}.

-record(request, {
    safe :: boolean(),
    moves = 0 :: non_neg_integer(),
    at = waiting :: waiting | {name(), wire()}
}).

-record(plan, {
    order :: [name()],
    limits :: limits(),
    ready = #{} :: #{name() => true},
    stalled = #{} :: #{name() => true},
    active = none :: name() | none,
    %% Which is active has been decided by more than who was ready first.
    settled = false :: boolean(),
    requests = #{} :: #{id() => #request{}},
    %% The ids of those that wait to be sent: the oldest is sent first, also after a move.
    waiting = gb_sets:empty() :: gb_sets:set(id()),
    wires = #{} :: #{wire() => id()},
    flying = #{} :: #{name() => non_neg_integer()},
    next_id = 1 :: id(),
    next_wire = 1 :: wire()
}).

-opaque plan() :: #plan{}.

%% @doc Endpoints, the preferred one first; none is ready.
-spec new([name(), ...], limits()) -> plan().
new(Order, Limits) ->
    #plan{order = Order, limits = Limits}.

%% @doc Takes a request on. `Safe': it may be sent again when nobody knows what became of it.
-spec request(Safe :: boolean(), plan()) -> {ok, id(), [effect()], plan()} | {error, busy}.
request(Safe, #plan{next_id = Id, requests = Requests, waiting = Waiting} = Plan) ->
    #plan{limits = #{max_queue := Max}} = Plan,
    case gb_sets:size(Waiting) < Max of
        true ->
            {Effects, Next} = pump(Plan#plan{
                next_id = Id + 1,
                requests = Requests#{Id => #request{safe = Safe}},
                waiting = gb_sets:add_element(Id, Waiting)
            }),
            {ok, Id, Effects, Next};
        false ->
            {error, busy}
    end.

%% @doc An endpoint has answered. `late': nobody waits for it, or not from there.
-spec answered(name(), wire(), plan()) -> {[effect()], plan()} | late.
answered(Name, Wire, Plan) ->
    case flying(Wire, Plan) of
        {Id, #request{at = {Name, Wire}}} ->
            finish([{outcome, Id, {answered, Name}}], landed(Id, Plan));
        _ ->
            late
    end.

%% @doc The request was refused for good; the endpoint is no worse for it.
-spec failed(wire(), Reason :: term(), plan()) -> {[effect()], plan()}.
failed(Wire, Reason, Plan) ->
    case flying(Wire, Plan) of
        {Id, _} -> finish([{outcome, Id, {failed, Reason}}], landed(Id, Plan));
        none -> {[], Plan}
    end.

%% @doc Nobody knows whether the request, of all that were sent there, was acted upon.
-spec lost(wire(), Reason :: term(), plan()) -> {[effect()], plan()}.
lost(Wire, Reason, Plan) ->
    case flying(Wire, Plan) of
        {Id, #request{at = {From, _}}} ->
            {Effects, Next} = lose(Id, From, Reason, Plan),
            finish(Effects, Next);
        none ->
            {[], Plan}
    end.

%% @doc It was not sent after all.
-spec unsent(wire(), plan()) -> {[effect()], plan()}.
unsent(Wire, Plan) ->
    case flying(Wire, Plan) of
        {Id, _} -> finish([], wait_again(Id, 0, Plan));
        none -> {[], Plan}
    end.

%% @doc Nobody waits for a request any more: it has taken too long, or is cancelled.
-spec withdraw(id(), Reason :: term(), plan()) -> {[effect()], plan()} | unknown.
withdraw(Id, Reason, #plan{requests = Requests, waiting = Waiting} = Plan) ->
    Outcome = {outcome, Id, {failed, Reason}},
    case Requests of
        #{Id := #request{at = waiting}} ->
            Rest = maps:remove(Id, Requests),
            {[Outcome], Plan#plan{requests = Rest, waiting = gb_sets:delete_any(Id, Waiting)}};
        #{Id := #request{at = {Name, Wire}}} ->
            finish([{withdrawn, Name, Wire}, Outcome], landed(Id, Plan));
        #{} ->
            unknown
    end.

%% @doc An endpoint can be used. In the beginning, before anything has failed and nothing was
%% commanded, a preferred one takes over as soon as it is there; later only with `failback'.
-spec ready(name(), plan()) -> {[effect()], plan()}.
ready(Name, #plan{ready = Ready, stalled = Stalled} = Plan) ->
    Usable = Plan#plan{ready = Ready#{Name => true}, stalled = maps:remove(Name, Stalled)},
    case Usable of
        #plan{active = none} -> activate(Name, up, Usable);
        #plan{settled = false} -> prefer(first_ready(Usable), up, Usable);
        #plan{limits = #{failback := true}} -> prefer(first_ready(Usable), failback, Usable);
        _ -> finish([], Usable)
    end.

prefer(Name, _, #plan{active = Name} = Plan) -> finish([], Plan);
prefer(Name, Reason, Plan) -> activate(Name, Reason, Plan).

%% @doc An endpoint is to be used no more for now; what was sent to it may yet be answered.
-spec leave(name(), Reason :: term(), plan()) -> {[effect()], plan()}.
leave(Name, Reason, #plan{ready = Ready, active = Active} = Plan) ->
    Left = Plan#plan{ready = maps:remove(Name, Ready)},
    case Active of
        Name -> activate(first_ready(Left), Reason, Left);
        _ -> finish([], Left)
    end.

%% @doc The connection to an endpoint is lost, with all that was sent and not answered.
-spec down(name(), Reason :: term(), plan()) -> {[effect()], plan()}.
down(Name, Reason, #plan{requests = Requests} = Plan0) ->
    {Switch, Plan} = leave_unpumped(Name, Reason, Plan0),
    Ids = lists:sort([Id || {Id, #request{at = {At, _}}} <- maps:to_list(Requests), At =:= Name]),
    {Effects, Next} = lists:foldl(
        fun(Id, {Acc, P}) ->
            {Lost, After} = lose(Id, Name, Reason, P),
            {Acc ++ Lost, After}
        end,
        {Switch, Plan},
        Ids
    ),
    finish(Effects, Next).

leave_unpumped(Name, Reason, #plan{ready = Ready, stalled = Stalled, active = Active} = Plan) ->
    Left = Plan#plan{ready = maps:remove(Name, Ready), stalled = maps:remove(Name, Stalled)},
    case Active of
        Name ->
            To = first_ready(Left),
            {[{switched, Name, To, Reason}], Left#plan{active = To, settled = true}};
        _ ->
            {[], Left}
    end.

%% @doc By command: new requests go to another endpoint, what was sent is answered where it is.
-spec switch(name() | next, Reason :: term(), plan()) ->
    {ok, [effect()], plan()} | {error, not_ready}.
switch(next, Reason, #plan{order = Order, active = Active} = Plan) ->
    {Before, After} = lists:splitwith(fun(Name) -> Name =/= Active end, Order),
    Others = [Name || Name <- After ++ Before, Name =/= Active, is_ready(Name, Plan)],
    case Others of
        [Name | _] -> switch(Name, Reason, Plan);
        [] -> {error, not_ready}
    end;
switch(Name, _, #plan{active = Name} = Plan) ->
    {ok, [], Plan};
switch(Name, Reason, Plan) ->
    case is_ready(Name, Plan) of
        true ->
            {Effects, Next} = activate(Name, Reason, Plan),
            {ok, Effects, Next};
        false ->
            {error, not_ready}
    end.

%% @doc An endpoint has no room for this one; nothing more is sent to it before it has.
-spec stalled(wire(), plan()) -> {[effect()], plan()}.
stalled(Wire, #plan{stalled = Stalled} = Plan) ->
    case flying(Wire, Plan) of
        {Id, #request{at = {Name, _}}} ->
            {[], wait_again(Id, 0, Plan#plan{stalled = Stalled#{Name => true}})};
        none ->
            {[], Plan}
    end.

%% @doc An endpoint has room again.
-spec writable(name(), plan()) -> {[effect()], plan()}.
writable(Name, #plan{stalled = Stalled} = Plan) ->
    finish([], Plan#plan{stalled = maps:remove(Name, Stalled)}).

-spec active(plan()) -> name() | none.
active(#plan{active = Active}) -> Active.

-spec ready(plan()) -> [name()].
ready(#plan{order = Order} = Plan) -> [Name || Name <- Order, is_ready(Name, Plan)].

-spec counts(plan()) -> #{waiting := non_neg_integer(), in_flight := non_neg_integer()}.
counts(#plan{waiting = Waiting, wires = Wires}) ->
    #{waiting => gb_sets:size(Waiting), in_flight => map_size(Wires)}.

-spec in_flight(name(), plan()) -> non_neg_integer().
in_flight(Name, #plan{flying = Flying}) -> maps:get(Name, Flying, 0).

%% @doc The requests that have not ended.
-spec ids(plan()) -> [id()].
ids(#plan{requests = Requests}) -> maps:keys(Requests).

%% @doc Where a request is that was sent.
-spec endpoint_of(wire(), plan()) -> name() | none.
endpoint_of(Wire, Plan) ->
    case flying(Wire, Plan) of
        {_, #request{at = {Name, _}}} -> Name;
        none -> none
    end.

flying(Wire, #plan{wires = Wires, requests = Requests}) ->
    case Wires of
        #{Wire := Id} -> {Id, maps:get(Id, Requests)};
        #{} -> none
    end.

is_ready(Name, #plan{ready = Ready}) -> is_map_key(Name, Ready).

first_ready(Plan) ->
    case ready(Plan) of
        [Name | _] -> Name;
        [] -> none
    end.

activate(To, Reason, #plan{active = From} = Plan) ->
    Settled = Plan#plan.settled orelse Reason =/= up,
    finish(
        [{switched, From, To, Reason} || From =/= To], Plan#plan{active = To, settled = Settled}
    ).

%% It leaves the plan, and room where it was: over HTTP nothing else tells of that.
landed(Id, #plan{requests = Requests, stalled = Stalled} = Plan) ->
    #{Id := #request{at = {Name, _}}} = Requests,
    (take_down(Id, Plan))#plan{
        requests = maps:remove(Id, Requests), stalled = maps:remove(Name, Stalled)
    }.

take_down(Id, #plan{requests = Requests, wires = Wires, flying = Flying} = Plan) ->
    #{Id := #request{at = {Name, Wire}}} = Requests,
    Plan#plan{
        wires = maps:remove(Wire, Wires),
        flying = maps:update_with(Name, fun(N) -> N - 1 end, Flying)
    }.

wait_again(Id, Moves, #plan{requests = Requests, waiting = Waiting} = Plan) ->
    #{Id := #request{moves = Moved} = Request} = Requests,
    (take_down(Id, Plan))#plan{
        requests = Requests#{Id := Request#request{at = waiting, moves = Moved + Moves}},
        waiting = gb_sets:add_element(Id, Waiting)
    }.

lose(Id, From, Reason, #plan{requests = Requests, active = To, limits = Limits} = Plan) ->
    #{retries := Retries} = Limits,
    case Requests of
        #{Id := #request{safe = true, moves = Moves}} when Moves < Retries ->
            {[], wait_again(Id, 1, Plan)};
        #{} ->
            Outcome = {outcome, Id, {failed, {switched, From, To, Reason}}},
            {[Outcome], landed(Id, Plan)}
    end.

finish(Effects, Plan) ->
    {Sends, Next} = pump(Plan),
    {Effects ++ Sends, Next}.

pump(#plan{active = none} = Plan) ->
    {[], Plan};
pump(#plan{active = Name, stalled = Stalled} = Plan) when is_map_key(Name, Stalled) ->
    {[], Plan};
pump(#plan{active = Name, waiting = Waiting, limits = #{max_in_flight := Max}} = Plan) ->
    Room = Max - in_flight(Name, Plan),
    {Sends, Next} = send(min(Room, gb_sets:size(Waiting)), Name, [], Plan),
    {lists:reverse(Sends), Next}.

send(Left, _, Sends, Plan) when Left =< 0 ->
    {Sends, Plan};
send(Left, Name, Sends, #plan{waiting = Waiting, requests = Requests, wires = Wires} = Plan) ->
    #plan{next_wire = Wire, flying = Flying} = Plan,
    {Id, Rest} = gb_sets:take_smallest(Waiting),
    #{Id := Request} = Requests,
    Next = Plan#plan{
        waiting = Rest,
        requests = Requests#{Id := Request#request{at = {Name, Wire}}},
        wires = Wires#{Wire => Id},
        flying = Flying#{Name => maps:get(Name, Flying, 0) + 1},
        next_wire = Wire + 1
    },
    send(Left - 1, Name, [{send, Name, Wire, Id} | Sends], Next).
