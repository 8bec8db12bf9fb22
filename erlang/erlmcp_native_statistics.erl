%% @doc What a list of figures amounts to. Pure.
-module(erlmcp_native_statistics).

-export([summary/1, percentile/2]).

-export_type([summary/0]).

-type summary() :: #{
    count := non_neg_integer(),
    mean := number(),
    min := number(),
    p50 := number(),
    p90 := number(),
    p95 := number(),
    p99 := number(),
    max := number()
}.

%% @doc All zero where there are no figures.
-spec summary([number()]) -> summary().
summary([]) ->
    #{count => 0, mean => 0, min => 0, p50 => 0, p90 => 0, p95 => 0, p99 => 0, max => 0};
summary(Values) ->
    Sorted = list_to_tuple(lists:sort(Values)),
    Count = tuple_size(Sorted),
    #{
        count => Count,
        mean => lists:sum(Values) / Count,
        min => element(1, Sorted),
        p50 => rank(50, Sorted),
        p90 => rank(90, Sorted),
        p95 => rank(95, Sorted),
        p99 => rank(99, Sorted),
        max => element(Count, Sorted)
    }.

%% @doc The value at or below which `Percent' of the values lie (the nearest rank).
-spec percentile(Percent :: number(), [number(), ...]) -> number().
percentile(Percent, Values) ->
    rank(Percent, list_to_tuple(lists:sort(Values))).

rank(Percent, Sorted) ->
    Count = tuple_size(Sorted),
    element(max(1, min(Count, ceil(Percent * Count / 100))), Sorted).
