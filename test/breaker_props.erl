%% @doc Properties of circuit breakers, against a model that keeps all calls.
-module(breaker_props).

-include("props.hrl").

-import(proper_types, [integer/2, list/1, oneof/1, frequency/1]).

-export([
    prop_never_more_than_the_probes/0,
    prop_opens_exactly_when_the_rate_is_reached/0,
    prop_a_window_of_time_forgets/0,
    prop_closes_after_the_probes/0,
    prop_a_failed_probe_opens_it_for_longer/0,
    prop_no_clock_turns_it_back/0,
    prop_batches_count_as_their_calls/0
]).

-define(BREAKER, erlmcp_native_breaker).

%% @doc Half open, no more calls are under way than were allowed, whatever happens.
prop_never_more_than_the_probes() ->
    ?FORALL({Options, Steps}, {options(), list(step())}, begin
        #{probes := Probes} = Checked = checked(Options),
        {Most, _} = lists:foldl(fun probing/2, {0, {0, [], ?BREAKER:new(Checked)}}, Steps),
        Most =< Probes
    end).

probing(Step, {Most, World}) ->
    {_, Calls, Breaker} = Next = step(Step, World),
    Epoch = ?BREAKER:epoch(Breaker),
    {max(Most, length([1 || {probe, E} <- Calls, E =:= Epoch])), Next}.

%% @doc Closed, it opens with the very call that makes the window's rate reach what is allowed, and
%% with no other.
prop_opens_exactly_when_the_rate_is_reached() ->
    ?FORALL({Options, Calls}, {options(), list(call())}, begin
        Checked = (checked(Options))#{window := count},
        opens_as_expected(Calls, [], ?BREAKER:new(Checked), Checked)
    end).

opens_as_expected([], _, Breaker, _) ->
    ?BREAKER:state(Breaker) =:= closed;
opens_as_expected([{Outcome, Took} | Calls], Seen, Breaker, #{window_calls := Size} = Options) ->
    {{ok, Ticket}, Asked} = ?BREAKER:ask(0, Breaker),
    Next = ?BREAKER:done(Ticket, Outcome, Took, 0, Asked),
    Window = lists:sublist([{Outcome, Took} || Outcome =/= cancelled] ++ Seen, Size),
    case {too_many(Window, Options), ?BREAKER:state(Next)} of
        {true, open} -> true;
        {false, closed} -> opens_as_expected(Calls, Window, Next, Options);
        _ -> false
    end.

too_many(Window, #{min_calls := Min, failure_rate := Failures, slow_rate := Slows} = Options) ->
    #{slow_ms := SlowMs} = Options,
    Failed = length([1 || {failed, _} <- Window]),
    Slow = length([1 || {_, Took} <- Window, is_integer(SlowMs), Took >= SlowMs]),
    Calls = length(Window),
    Calls >= Min andalso
        ((Failed > 0 andalso Failed >= Failures * Calls) orelse
            (Slow > 0 andalso Slow >= Slows * Calls)).

%% @doc What is older than the window of time does not count, what is younger than nine tenths of
%% it does.
prop_a_window_of_time_forgets() ->
    ?FORALL({Old, Age}, {integer(1, 50), integer(0, 30000)}, begin
        Checked = (checked(#{}))#{
            window := time, window_ms := 10000, min_calls := 1000, failure_rate := 1.0
        },
        Breaker = lists:foldl(
            fun(_, Acc) -> ?BREAKER:done({call, 0}, failed, 0, 1000, Acc) end,
            ?BREAKER:new(Checked),
            lists:seq(1, Old)
        ),
        #{calls := Calls} = ?BREAKER:info(1000 + Age, Breaker),
        (Age > 10000 andalso Calls =:= 0) orelse (Age < 9000 andalso Calls =:= Old) orelse
            (Age >= 9000 andalso Age =< 10000)
    end).

%% @doc As many probes as were asked for close it, if all of them end well.
prop_closes_after_the_probes() ->
    ?FORALL(Options, options(), begin
        #{probes := Probes, open_max_ms := Max} = Checked = checked(Options),
        Open = ?BREAKER:force(open, 0, ?BREAKER:new(Checked)),
        {States, Closed} = lists:mapfoldl(
            fun(_, Acc) ->
                {{ok, {probe, _} = Ticket}, Asked} = ?BREAKER:ask(Max, Acc),
                Done = ?BREAKER:done(Ticket, ok, 0, Max, Asked),
                {?BREAKER:state(Done), Done}
            end,
            Open,
            lists:seq(1, Probes)
        ),
        lists:all(fun(S) -> S =:= half_open end, lists:droplast(States)) andalso
            ?BREAKER:state(Closed) =:= closed
    end).

%% @doc Each time that it opens again it is open for at least a half of, and at most, a time that
%% doubles up to its bound.
prop_a_failed_probe_opens_it_for_longer() ->
    ?FORALL({Options, Times}, {options(), integer(1, 12)}, begin
        Checked = checked(Options),
        Open = ?BREAKER:force(open, 0, ?BREAKER:new(Checked)),
        open_times(Times, 0, 0, Open, Checked)
    end).

open_times(0, _, _, _, _) ->
    true;
open_times(Left, N, Now, Open, #{open_ms := Ms, open_max_ms := Max} = Options) ->
    Most = min(Max, Ms bsl N),
    Time = ?BREAKER:retry_at(Open) - Now,
    At = ?BREAKER:retry_at(Open),
    {{error, breaker_open}, Open} = {element(1, ?BREAKER:ask(Now, Open)), Open},
    {{ok, Ticket}, Asked} = ?BREAKER:ask(At, Open),
    Again = ?BREAKER:done(Ticket, failed, 0, At, Asked),
    Time =< Most andalso Time >= Most div 2 andalso
        open_times(Left - 1, N + 1, At, Again, Options).

%% @doc What a caller with an older clock says opens nothing sooner.
prop_no_clock_turns_it_back() ->
    ?FORALL({Options, Back}, {options(), integer(1, 100000)}, begin
        Open = ?BREAKER:force(open, 0, ?BREAKER:new(checked(Options))),
        At = ?BREAKER:retry_at(Open),
        {{ok, _}, Half} = ?BREAKER:ask(At, Open),
        {_, Later} = ?BREAKER:ask(At - Back, Half),
        ?BREAKER:state(Later) =:= half_open
    end).

%% @doc Calls that ended well may be told of together.
prop_batches_count_as_their_calls() ->
    ?FORALL({Options, Groups}, {options(), list({integer(1, 150), call()})}, begin
        Checked = (checked(Options))#{window := count, slow_ms := infinity},
        Batched = fun({N, {Outcome, _}}, Acc) ->
            done(Outcome, ?BREAKER:passed(N, 0, Acc))
        end,
        Single = fun({N, {Outcome, _}}, Acc) ->
            done(Outcome, lists:foldl(fun(_, A) -> done(ok, A) end, Acc, lists:seq(1, N)))
        end,
        %% Of many together the rate may be reached between; afterwards it is the same.
        Lists = [until_open(F, Groups, ?BREAKER:new(Checked)) || F <- [Batched, Single]],
        [A, B] = [maps:with([calls, failed], ?BREAKER:info(0, L)) || L <- Lists],
        lists:any(fun(L) -> ?BREAKER:state(L) =:= open end, Lists) orelse A =:= B
    end).

until_open(F, Groups, Breaker) ->
    lists:foldl(
        fun(Group, Acc) ->
            case ?BREAKER:state(Acc) of
                closed -> F(Group, Acc);
                open -> Acc
            end
        end,
        Breaker,
        Groups
    ).

done(Outcome, Breaker) -> ?BREAKER:done({call, ?BREAKER:epoch(Breaker)}, Outcome, 0, 0, Breaker).

step(ask, {Now, Calls, Breaker}) ->
    case ?BREAKER:ask(Now, Breaker) of
        {{ok, Ticket}, Next} -> {Now, [Ticket | Calls], Next};
        {_, Next} -> {Now, Calls, Next}
    end;
step({wait, Ms}, {Now, Calls, Breaker}) ->
    {Now + Ms, Calls, Breaker};
step({done, _, _, _}, {_, [], _} = World) ->
    World;
step({done, Which, Outcome, Took}, {Now, Calls, Breaker}) ->
    Ticket = lists:nth(1 + Which rem length(Calls), Calls),
    {Now, lists:delete(Ticket, Calls), ?BREAKER:done(Ticket, Outcome, Took, Now, Breaker)}.

step() ->
    frequency([
        {4, ask},
        {3, {done, integer(0, 100), oneof([ok, failed, cancelled]), integer(0, 200)}},
        {1, {wait, integer(0, 3000)}}
    ]).

call() -> {oneof([ok, ok, failed, cancelled]), integer(0, 200)}.

checked(Options) ->
    {ok, Checked} = ?BREAKER:options(Options),
    Checked.

options() ->
    ?LET(
        {Window, Size, Min, Failures, SlowMs, Slows, Probes, Open},
        {oneof([count, time]), integer(1, 50), integer(1, 50), integer(1, 100),
            oneof([infinity, integer(1, 200)]), integer(1, 100), integer(1, 5), integer(1, 2000)},
        #{
            window => Window,
            window_calls => max(Size, Min),
            min_calls => Min,
            failure_rate => Failures / 100,
            slow_ms => SlowMs,
            slow_rate => Slows / 100,
            probes => Probes,
            open_ms => Open,
            open_max_ms => 4 * Open
        }
    ).
