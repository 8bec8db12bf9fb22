%% @doc How fast something grows, and how sure that is: the slope of samples over time with a
%% confidence interval.
%%
%% {@link theil_sen/2} is the median of the slopes between all pairs of samples, with Sen's interval
%% from the ranks of these: a third of the samples may be anything without moving it far, as
%% memory before and after a garbage collection is.
%% {@link verdict/2} says whether there is growth: not before the whole interval is above 0, and the
%% growth over the time that was watched is more than the samples scatter.
-module(erlmcp_native_analysis_slope).

-export([theil_sen/1, theil_sen/2, verdict/2]).

-export_type([sample/0, slope/0]).

-type sample() :: {X :: number(), Y :: number()}.

-type slope() :: #{
    slope := float(),
    low := float(),
    high := float(),
    confidence := float(),
    intercept := float(),
    scatter := float(),
    samples := pos_integer()
}.
%% `low' and `high' bound the slope with that confidence. `scatter' is the median distance of the
%% samples from the line.

%% All pairs of more would take long: of more samples every so many are looked at.
-define(MAX_SAMPLES, 400).

%% @equiv theil_sen(Samples, 0.95)
-spec theil_sen([sample()]) -> {ok, slope()} | {error, too_few}.
theil_sen(Samples) ->
    theil_sen(Samples, 0.95).

%% @doc The median slope. Fewer than 4 samples, or all at one time, say nothing.
-spec theil_sen([sample()], Confidence :: float()) -> {ok, slope()} | {error, too_few}.
theil_sen(Given, Confidence) ->
    Samples = thinned(lists:sort(Given)),
    Slopes = list_to_tuple(lists:sort(slopes(Samples))),
    case {length(Samples), tuple_size(Slopes)} of
        {N, Pairs} when N >= 4, Pairs > 0 ->
            Width = z(Confidence) * math:sqrt(N * (N - 1) * (2 * N + 5) / 18),
            Slope = median(Slopes),
            Line = #{
                slope => Slope,
                low => nth(floor((Pairs - Width) / 2), Slopes),
                high => nth(ceil((Pairs + Width) / 2) + 1, Slopes)
            },
            {ok, with_line(Line, Samples, Confidence)};
        _ ->
            {error, too_few}
    end.

thinned(Samples) ->
    case length(Samples) of
        N when N > ?MAX_SAMPLES -> every(N, 0, Samples);
        _ -> Samples
    end.

every(_, _, []) ->
    [];
every(N, I, [Sample | Samples]) when I * ?MAX_SAMPLES rem N < ?MAX_SAMPLES ->
    [Sample | every(N, I + 1, Samples)];
every(N, I, [_ | Samples]) ->
    every(N, I + 1, Samples).

slopes([]) ->
    [];
slopes([{X, Y} | Samples]) ->
    [(Y1 - Y) / (X1 - X) || {X1, Y1} <- Samples, X1 > X] ++ slopes(Samples).

nth(N, Tuple) ->
    float(element(max(1, min(N, tuple_size(Tuple))), Tuple)).

median(Tuple) ->
    Size = tuple_size(Tuple),
    Upper = element(Size div 2 + 1, Tuple),
    case Size rem 2 of
        1 -> float(Upper);
        0 -> (element(Size div 2, Tuple) + Upper) / 2
    end.

with_line(#{slope := Slope} = Line, Samples, Confidence) ->
    Rests = [Y - Slope * X || {X, Y} <- Samples],
    Intercept = median(list_to_tuple(lists:sort(Rests))),
    Distances = [abs(Rest - Intercept) || Rest <- Rests],
    Line#{
        confidence => Confidence,
        intercept => Intercept,
        scatter => median(list_to_tuple(lists:sort(Distances))),
        samples => length(Samples)
    }.

%% Of the normal distribution, two-sided; Abramowitz and Stegun 26.2.23, good to 0.0005.
z(Confidence) when Confidence > 0, Confidence < 1 ->
    T = math:sqrt(-2 * math:log((1 - Confidence) / 2)),
    T -
        (2.515517 + 0.802853 * T + 0.010328 * T * T) /
            (1 + 1.432788 * T + 0.189269 * T * T + 0.001308 * T * T * T).

%% @doc `growing' if the whole interval is above 0 and the growth over so long is more than three
%% times the scatter; `shrinking' the same way; else `steady'.
-spec verdict(slope(), Length :: number()) -> growing | shrinking | steady.
verdict(#{slope := Slope, low := Low, scatter := Scatter}, Length) when
    Low > 0, Slope * Length > 3 * Scatter
->
    growing;
verdict(#{slope := Slope, high := High, scatter := Scatter}, Length) when
    High < 0, -Slope * Length > 3 * Scatter
->
    shrinking;
verdict(_, _) ->
    steady.
