%% @doc Where more load stops giving more: the knee of a measured curve, found by rules that are
%% written down here, and not by looking at it.
%%
%% Points are `{X, Y}' in any order, X being the load. Two rules:
%% <ul>
%% <li>{@link of_gain/2}, for curves that rise and flatten, such as throughput over offered load or
%% over connections: of the curve's upper envelope, scaled to the unit square, the point that is
%% farthest above the diagonal ("Kneedle", Satopää and others, 2011). A curve of which no point is
%% farther than `sensitivity' above it has no knee: it did not saturate.</li>
%% <li>{@link of_latency/2}, for curves of latency over load: the highest load up to which latency
%% stays within `factor' times that of the lowest load, interpolated between the two loads
%% on either side. A curve that never exceeds it has no knee.</li>
%% </ul>
-module(erlmcp_native_analysis_knee).

-export([of_gain/1, of_gain/2, of_latency/1, of_latency/2]).

-export_type([point/0]).

-type point() :: {X :: number(), Y :: number()}.

-define(SENSITIVITY, 0.1).
-define(FACTOR, 3).

%% @equiv of_gain(Points, #{})
-spec of_gain([point()]) -> {knee, point()} | none.
of_gain(Points) ->
    of_gain(Points, #{}).

%% @doc Of a curve that rises; always one of its points. `scale => log' measures distances along X
%% in logarithms, for loads that were doubled from point to point.
-spec of_gain([point()], #{sensitivity => float(), scale => linear | log}) ->
    {knee, point()} | none.
of_gain(Points, Options) ->
    Sensitivity = maps:get(sensitivity, Options, ?SENSITIVITY),
    Scale = maps:get(scale, Options, linear),
    case envelope(lists:sort(Points)) of
        [{X0, Y0}, _, _ | _] = Curve ->
            {Xn, Yn} = lists:last(Curve),
            Above = fun({X, Y}) -> unit(Y, Y0, Yn) - along(Scale, X, X0, Xn) end,
            farthest([{Above(Point), Point} || Point <- Curve], Sensitivity);
        _ ->
            none
    end.

%% What a dip is due to is the measurement, or congestion: neither makes a later point a knee.
envelope([]) -> [];
envelope([{X, Y} | Points]) -> envelope(Points, Y, [{X, Y}]).

envelope([], _, Curve) ->
    lists:reverse(Curve);
envelope([{X, Y} | Points], Max, [{X, _} | Curve]) ->
    envelope(Points, max(Y, Max), [{X, max(Y, Max)} | Curve]);
envelope([{X, Y} | Points], Max, Curve) ->
    envelope(Points, max(Y, Max), [{X, max(Y, Max)} | Curve]).

unit(_, From, To) when To == From -> 0.0;
unit(V, From, To) -> (V - From) / (To - From).

along(linear, X, From, To) -> unit(X, From, To);
along(log, X, From, To) -> unit(math:log(X), math:log(From), math:log(To)).

%% The first of those that are equally far.
farthest(Distances, Sensitivity) ->
    {Far, Point} = lists:foldl(
        fun
            ({D, _} = Next, {Max, _}) when D > Max -> Next;
            (_, Best) -> Best
        end,
        hd(Distances),
        tl(Distances)
    ),
    case Far >= Sensitivity of
        true -> {knee, Point};
        false -> none
    end.

%% @equiv of_latency(Points, #{})
-spec of_latency([point()]) -> {knee, point()} | none.
of_latency(Points) ->
    of_latency(Points, #{}).

%% @doc Of a curve of latency over load. `unloaded' replaces the latency of the lowest load.
-spec of_latency([point()], #{factor => number(), unloaded => number()}) ->
    {knee, point()} | none.
of_latency(Points, Options) ->
    case lists:sort(Points) of
        [] ->
            none;
        [{_, First} | _] = Curve ->
            Limit = maps:get(factor, Options, ?FACTOR) * maps:get(unloaded, Options, First),
            crossing(Curve, none, Limit)
    end.

crossing([], _, _) ->
    none;
crossing([{_, Y} = Point | Curve], _, Limit) when Y =< Limit ->
    crossing(Curve, Point, Limit);
crossing([{X, _} | _], none, Limit) ->
    {knee, {X, Limit}};
crossing([{X1, Y1} | _], {X0, Y0}, Limit) ->
    {knee, {X0 + (X1 - X0) * (Limit - Y0) / (Y1 - Y0), Limit}}.
