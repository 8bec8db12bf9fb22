%% @private The answers to JSON-RPC batches while they are gathered. Pure.
%%
%% What is gathered is held outside every queue that a connection bounds, so it has bounds of its
%% own: past them an answer goes out in more than one array, and the oldest batch as far as it got.
-module(erlmcp_native_batches).

-export([new/0, next/1, open/4, add/3, array/1]).

-export_type([batches/0, key/0]).

-type key() :: pos_integer().

-record(batch, {
    left :: pos_integer(),
    answers :: [iodata()],
    bytes :: non_neg_integer()
}).

-record(batches, {
    next = 1 :: key(),
    open = #{} :: #{key() => #batch{}}
}).

-opaque batches() :: #batches{}.

-define(MAX_OPEN, 64).
-define(MAX_BYTES, 1048576).

-spec new() -> batches().
new() ->
    #batches{}.

%% @doc The key that the next batch will have.
-spec next(batches()) -> key().
next(#batches{next = Key}) ->
    Key.

%% @doc Opens a batch of which `Asked' elements will be answered later, and some, latest first,
%% have been.
-spec open(key(), Asked :: non_neg_integer(), Answers :: [iodata()], batches()) ->
    {[iodata()], batches()}.
open(_, 0, Answers, Batches) ->
    {array(Answers), Batches};
open(Key, Asked, Answers, #batches{next = Key, open = Open} = Batches) when
    map_size(Open) < ?MAX_OPEN
->
    Batch = #batch{left = Asked, answers = Answers, bytes = iolist_size(Answers)},
    {[], Batches#batches{next = Key + 1, open = Open#{Key => Batch}}};
open(Key, Asked, Answers, #batches{open = Open} = Batches) ->
    {#batch{answers = Early}, Rest} = maps:take(lists:min(maps:keys(Open)), Open),
    {[], Opened} = open(Key, Asked, Answers, Batches#batches{open = Rest}),
    {array(Early), Opened}.

%% @doc What goes out now that an element has been answered.
-spec add(key(), Answer :: iodata(), batches()) -> {[iodata()], batches()}.
add(Key, Answer, #batches{open = Open} = Batches) ->
    case Open of
        #{Key := #batch{left = 1, answers = Answers}} ->
            {array([Answer | Answers]), Batches#batches{open = maps:remove(Key, Open)}};
        #{Key := #batch{left = Left, answers = Answers, bytes = Bytes}} ->
            {Out, Batch} = bounded(#batch{
                left = Left - 1, answers = [Answer | Answers], bytes = Bytes + iolist_size(Answer)
            }),
            {Out, Batches#batches{open = Open#{Key := Batch}}};
        #{} ->
            {[Answer], Batches}
    end.

bounded(#batch{bytes = Bytes, answers = Answers} = Batch) when Bytes > ?MAX_BYTES ->
    {array(Answers), Batch#batch{answers = [], bytes = 0}};
bounded(Batch) ->
    {[], Batch}.

%% @doc One array of answers, latest first; none of none.
-spec array([iodata()]) -> [iodata()].
array([]) -> [];
array(Answers) -> [[$[, lists:join($,, lists:reverse(Answers)), $]]].
