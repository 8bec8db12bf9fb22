%% @private What waits to be sent on the path `beam', in the order in which it is to leave. Pure.
%%
%% The order is that of `erlmcp_core::outbox': urgent messages overtake others, but a cancellation
%% not the request that it names, and an answer no progress; and others are not kept waiting by a
%% flood of them.
-module(erlmcp_native_beam_lanes).

-export([new/0, push/4, batch/2, is_empty/1]).

-export_type([lanes/0, item/0]).

-type item() :: {iodata(), Size :: pos_integer()}.

-record(waiting, {
    item :: item(),
    role :: erlmcp_native_priority:role(),
    %% Would overtake, but for one before it.
    held_back = false :: boolean()
}).

-record(lanes, {
    urgent = queue:new() :: queue:queue(item()),
    normal = queue:new() :: queue:queue(#waiting{}),
    %% Urgent bytes that left since something else did.
    run = 0 :: non_neg_integer()
}).

-opaque lanes() :: #lanes{}.

-define(URGENT_RUN, 65536).

-spec new() -> lanes().
new() -> #lanes{}.

-spec is_empty(lanes()) -> boolean().
is_empty(#lanes{urgent = Urgent, normal = Normal}) ->
    queue:is_empty(Urgent) andalso queue:is_empty(Normal).

%% @doc Adds a message.
-spec push(item(), erlmcp_native_priority:role(), Urgent :: boolean(), lanes()) -> lanes().
push(Item, Role, false, #lanes{normal = Normal} = Lanes) ->
    Lanes#lanes{normal = queue:in(#waiting{item = Item, role = Role}, Normal)};
push(Item, Role, true, #lanes{urgent = Urgent, normal = Normal} = Lanes) ->
    case before(Role, Normal) of
        none -> Lanes#lanes{urgent = queue:in(Item, Urgent)};
        {Before, After} -> Lanes#lanes{normal = held_back(Item, Role, Before, After)}
    end.

%% Up to the last that may not be overtaken, and what follows it. Only few messages look.
before({cancellation, Id} = Role, Normal) when Id =/= none -> cut(Role, Normal);
before(answer, Normal) -> cut(answer, Normal);
before(_, _) -> none.

cut(Role, Normal) ->
    Overtaken = fun(#waiting{role = Other}) -> erlmcp_native_priority:may_overtake(Role, Other) end,
    case lists:splitwith(Overtaken, lists:reverse(queue:to_list(Normal))) of
        {_, []} -> none;
        {After, Before} -> {lists:reverse(Before), lists:reverse(After)}
    end.

held_back(Item, Role, Before, After) ->
    {Held, Rest} = lists:splitwith(fun(#waiting{held_back = Held}) -> Held end, After),
    Waiting = #waiting{item = Item, role = Role, held_back = true},
    queue:from_list(Before ++ Held ++ [Waiting | Rest]).

%% @doc Takes whole messages until there are at least so many bytes of them.
-spec batch(pos_integer(), lanes()) -> {[iodata()], Size :: non_neg_integer(), lanes()}.
batch(Bytes, Lanes) ->
    batch(Bytes, Lanes, [], 0).

batch(Bytes, Lanes, Acc, Size) when Size >= Bytes ->
    {lists:reverse(Acc), Size, Lanes};
batch(Bytes, Lanes, Acc, Size) ->
    case next(Lanes) of
        {{Data, More}, Rest} -> batch(Bytes, Rest, [Data | Acc], Size + More);
        empty -> {lists:reverse(Acc), Size, Lanes}
    end.

next(#lanes{urgent = Urgent, normal = Normal, run = Run} = Lanes) ->
    case {queue:out(Urgent), queue:out(Normal)} of
        {{empty, _}, {empty, _}} ->
            empty;
        {{{value, {_, Size} = Item}, Rest}, {empty, _}} ->
            {Item, Lanes#lanes{urgent = Rest, run = Size}};
        {{{value, {_, Size} = Item}, Rest}, _} when Run < ?URGENT_RUN ->
            {Item, Lanes#lanes{urgent = Rest, run = Run + Size}};
        {_, {{value, #waiting{item = Item}}, Rest}} ->
            {Item, Lanes#lanes{normal = Rest, run = 0}}
    end.
