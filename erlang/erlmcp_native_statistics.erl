%% @doc What a list of figures amounts to. Pure.
-module(erlmcp_native_statistics).

-export([summary/1, percentile/2, slope/1, interval/2]).

-export_type([summary/0, slope/0]).

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

-type slope() :: #{
    slope := float(), low := float(), high := float(), samples := non_neg_integer()
}.
%% Growth per unit of X, and the interval that holds it with 95 % confidence.

-define(BLOCKS, 10).
%% The 97.5th percentile of Student's t with 8 degrees of freedom: 10 blocks, 2 parameters.
-define(T, 2.306).
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

%% @doc The slope of a line through points, by least squares over the means of ten blocks of equal
%% size: what follows one another in time is alike, and points that are taken one by one would
%% promise more than they hold.
-spec slope([{X :: number(), Y :: number()}]) -> slope().
slope(Points) when length(Points) < 2 * ?BLOCKS ->
    #{slope => 0.0, low => 0.0, high => 0.0, samples => length(Points)};
slope(Points) ->
    Means = [mean_point(Block) || Block <- blocks(lists:sort(Points), length(Points), ?BLOCKS)],
    Count = length(Means),
    {MeanX, MeanY} = mean_point(Means),
    Sxx = lists:sum([(X - MeanX) * (X - MeanX) || {X, _} <- Means]),
    Sxy = lists:sum([(X - MeanX) * (Y - MeanY) || {X, Y} <- Means]),
    line(Sxx, Sxy, Count, {MeanX, MeanY}, Means, length(Points)).

%% Everything at one place: there is no line.
line(Sxx, _, _, _, _, Samples) when Sxx == 0 ->
    #{slope => 0.0, low => 0.0, high => 0.0, samples => Samples};
line(Sxx, Sxy, Count, {MeanX, MeanY}, Means, Samples) ->
    Slope = Sxy / Sxx,
    Rest = lists:sum([
        begin
            Off = Y - MeanY - Slope * (X - MeanX),
            Off * Off
        end
     || {X, Y} <- Means
    ]),
    Error = ?T * math:sqrt(Rest / (Count - 2) / Sxx),
    #{slope => Slope, low => Slope - Error, high => Slope + Error, samples => Samples}.

mean_point(Points) ->
    Count = length(Points),
    {Xs, Ys} = lists:unzip(Points),
    {lists:sum(Xs) / Count, lists:sum(Ys) / Count}.

blocks(Points, _, 1) ->
    [Points];
blocks(Points, Count, Left) ->
    Size = Count div Left,
    {Block, Rest} = lists:split(Size, Points),
    [Block | blocks(Rest, Count - Size, Left - 1)].

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
