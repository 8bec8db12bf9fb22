%% @doc What a list of figures amounts to. Pure.
-module(erlmcp_native_statistics).

-export([summary/1, percentile/2, interval/2]).

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

%% Of the normal distribution.
-define(Z, 1.96).

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

%% @doc The interval that holds a share with 95 % confidence (Wilson's), as fractions: what some
%% successes out of some tries say about the next ones.
-spec interval(Successes :: non_neg_integer(), Tries :: pos_integer()) -> {float(), float()}.
interval(Successes, Tries) ->
    P = Successes / Tries,
    Z2 = ?Z * ?Z,
    Middle = (P + Z2 / (2 * Tries)) / (1 + Z2 / Tries),
    Half =
        ?Z / (1 + Z2 / Tries) *
            math:sqrt(P * (1 - P) / Tries + Z2 / (4 * Tries * Tries)),
    {max(0.0, Middle - Half), min(1.0, Middle + Half)}.
