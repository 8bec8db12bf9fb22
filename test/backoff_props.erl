%% @doc Properties of the delays between tries.
-module(backoff_props).

-include("props.hrl").

-import(proper_types, [integer/2, list/1, oneof/1, non_empty/1]).

-export([
    prop_first_try_at_once/0,
    prop_eager_while_young_and_cheap/0,
    prop_never_beyond_the_ceilings/0,
    prop_gives_up_after_max_attempts/0,
    prop_counts_anew_only_after_a_stable_time/0,
    prop_a_wait_for_nothing_counts/0
]).

-define(BACKOFF, erlmcp_native_backoff).

%% @doc The first try after a loss waits for nothing, whatever was lost.
prop_first_try_at_once() ->
    ?FORALL({Options, Failure}, {options(), failure()}, begin
        {Delay, _} = ?BACKOFF:next(0, Failure, new(Options)),
        Delay =:= 0
    end).

%% @doc While an outage is young, cheap failures are retried within `eager_cap_ms', and however
%% many there were makes no difference.
prop_eager_while_young_and_cheap() ->
    ?FORALL({Options, Failures}, {options(), non_empty(list(cheap()))}, begin
        #{eager_cap_ms := Cap, eager_ms := Eager} = Checked = checked(Options),
        Steps = [{0, Failure} || Failure <- Failures],
        Eager =:= 0 orelse lists:all(fun(Delay) -> Delay =< Cap end, delays(Steps, Checked))
    end).

%% @doc No delay is longer than the largest ceiling, and one of the first ones no longer than
%% theirs.
prop_never_beyond_the_ceilings() ->
    ?FORALL({Options, Steps}, {options(), list({integer(0, 20000), failure()})}, begin
        #{min_ms := Min, max_ms := Max, eager_cap_ms := Cap} = Checked = checked(Options),
        Delays = delays(Steps, Checked),
        Numbered = lists:zip(lists:seq(1, length(Delays)), Delays),
        lists:all(
            fun({N, Delay}) -> Delay =< max(Cap, min(Max, Min bsl min(20, N))) end, Numbered
        )
    end).

%% @doc As many tries as were asked for, no more, however eager.
prop_gives_up_after_max_attempts() ->
    ?FORALL({Attempts, Failure}, {integer(1, 20), failure()}, begin
        Backoff = new(#{max_attempts => Attempts}),
        {Last, Delays} = exhaust(Failure, Backoff, []),
        Last =:= exhausted andalso length(Delays) =:= Attempts
    end).

%% @doc A connection that holds for less than `stable_ms' changes nothing.
prop_counts_anew_only_after_a_stable_time() ->
    ?FORALL({Stable, Held, Failure}, {integer(1, 1000), integer(0, 2000), failure()}, begin
        {_, Once} = ?BACKOFF:next(0, Failure, new(#{stable_ms => Stable})),
        {_, Twice} = ?BACKOFF:next(Held + 1, Failure, ?BACKOFF:connected(1, Once)),
        Expected =
            case Held >= Stable of
                true -> 1;
                false -> 2
            end,
        ?BACKOFF:attempts(Twice) =:= Expected
    end).

%% @doc A try that took as long as the longest delay is followed by another within the eager cap.
prop_a_wait_for_nothing_counts() ->
    ?FORALL({Options, Tries}, {options(), integer(2, 30)}, begin
        #{max_ms := Max, eager_cap_ms := Cap} = Checked = checked(Options),
        Steps = [{Max, timeout} || _ <- lists:seq(1, Tries)],
        lists:all(fun(Delay) -> Delay =< Cap end, delays(Steps, Checked))
    end).

new(Options) -> ?BACKOFF:new(checked(Options)).

checked(Options) ->
    {ok, Checked} = ?BACKOFF:options(Options),
    Checked.

%% Each step is a try that takes so long and fails.
delays(Steps, Options) -> delays(Steps, 0, ?BACKOFF:new(Options)).

delays([], _, _) ->
    [];
delays([{Took, Failure} | Steps], Now, Backoff) ->
    Failed = Now + Took,
    {Delay, Next} = ?BACKOFF:next(Failed, Failure, ?BACKOFF:trying(Now, Backoff)),
    %% The clock stands still between tries: what is young stays young.
    [Delay | delays(Steps, Failed, Next)].

exhaust(Failure, Backoff, Delays) ->
    case ?BACKOFF:next(0, Failure, Backoff) of
        exhausted -> {exhausted, Delays};
        {Delay, _} when length(Delays) > 100 -> {endless, [Delay | Delays]};
        {Delay, Next} -> exhaust(Failure, Next, [Delay | Delays])
    end.

options() ->
    ?LET({Min, More, Eager, Cap}, {
        integer(1, 200), integer(0, 5000), oneof([0, 1000, 30000]), integer(1, 500)
    }, #{min_ms => Min, max_ms => Min + More, eager_ms => Eager, eager_cap_ms => Cap}).

cheap() -> oneof([refused, reset, shutdown, timeout, native]).

failure() -> oneof([cheap(), tls, protocol, unreachable, exited, not_started, other]).
