%% @private Calls that are sent at the same time, as one batch of JSON-RPC (revision 2025-03-26).
%% The first one that waits is announced to the process that sends by a message of its own: what
%% it sends until that message comes goes together, and nothing waits longer.
-module(erlmcp_native_analysis_batch).

-export([new/1, add/3, is_flush/2, is_full/1, take/1]).

-export_type([batch/0, body/0]).

-record(batch, {
    max :: pos_integer(),
    ref :: reference(),
    count = 0 :: non_neg_integer(),
    calls = [] :: [{pos_integer(), iodata()}]
}).

-opaque batch() :: #batch{}.
-type body() :: {Ids :: [pos_integer()], iodata()}.

-spec new(Max :: pos_integer()) -> batch().
new(Max) -> #batch{max = Max, ref = make_ref()}.

%% @doc Adds a call; not to one that is full.
-spec add(pos_integer(), iodata(), batch()) -> batch().
add(Id, Json, #batch{count = Count, max = Max, calls = Calls, ref = Ref} = Batch) when
    Count < Max
->
    _ = Count =:= 0 andalso Max > 1 andalso (self() ! {?MODULE, Ref}),
    Batch#batch{count = Count + 1, calls = [{Id, Json} | Calls]}.

%% @doc Whether a message says that what waits has waited enough.
-spec is_flush(term(), batch()) -> boolean().
is_flush({?MODULE, Ref}, #batch{ref = Ref}) -> true;
is_flush(_, _) -> false.

-spec is_full(batch()) -> boolean().
is_full(#batch{count = Max, max = Max}) -> true;
is_full(_) -> false.

%% @doc What is to be sent.
-spec take(batch()) -> {body(), batch()} | empty.
take(#batch{count = 0}) ->
    empty;
take(#batch{calls = Calls} = Batch) ->
    {body(Calls, Batch), Batch#batch{count = 0, calls = []}}.

body([{Id, Json}], #batch{max = 1}) ->
    {[Id], Json};
body(Calls, _) ->
    {Ids, Jsons} = lists:unzip(lists:reverse(Calls)),
    {Ids, [$[, lists:join($,, Jsons), $]]}.
