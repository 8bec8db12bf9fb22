%% @doc Where something of a time is kept in a bounded number of places, the newest in place of what
%% is too old. Pure: the places themselves are somebody else's.
-module(erlmcp_native_ring).

-export([slot/2, begins/2, is_kept/3]).

-export_type([ring/0]).

-type ring() :: #{step_ms := pos_integer(), slots := pos_integer()}.

%% @doc The place of a time.
-spec slot(AtMs :: integer(), ring()) -> non_neg_integer().
slot(AtMs, #{step_ms := Step, slots := Slots}) ->
    floor_div(AtMs, Step) - Slots * floor_div(floor_div(AtMs, Step), Slots).

%% @doc The beginning of the step that a time is in.
-spec begins(AtMs :: integer(), ring()) -> integer().
begins(AtMs, #{step_ms := Step}) ->
    floor_div(AtMs, Step) * Step.

%% @doc Whether what is of a time is among the kept ones now. What is still in its place and is not
%% has not been replaced because nothing came.
-spec is_kept(AtMs :: integer(), NowMs :: integer(), ring()) -> boolean().
is_kept(AtMs, NowMs, #{step_ms := Step, slots := Slots} = Ring) ->
    AtMs =< NowMs andalso AtMs > begins(NowMs, Ring) - Step * (Slots - 1) - 1.

floor_div(A, B) when A >= 0 -> A div B;
floor_div(A, B) -> -((B - 1 - A) div B).
