%% Properties of what the analyses decide without measuring anything.
-module(analysis_props).

-export([
    prop_schedule_is_the_rate/0,
    prop_schedule_shares_all/0,
    prop_knee_of_saturation/0,
    prop_no_knee_of_a_line/0,
    prop_knee_ignores_units/0,
    prop_latency_knee_bounds/0,
    prop_slope_of_a_line/0,
    prop_slope_withstands_outliers/0,
    prop_noise_is_steady/0,
    prop_growth_is_seen/0,
    prop_calls_are_calls_of_their_size/0
]).

-include("props.hrl").

-import(proper_types, [choose/2, float/2, integer/2, list/1, oneof/1, vector/2]).

-define(SCHEDULE, erlmcp_native_analysis_schedule).
-define(KNEE, erlmcp_native_analysis_knee).
-define(SLOPE, erlmcp_native_analysis_slope).
-define(CALL, erlmcp_native_analysis_call).

rate() -> oneof([integer(1, 200000), float(0.2, 5000.0)]).

%% After so long as many are due as the rate says, none of them late, none early.
prop_schedule_is_the_rate() ->
    ?FORALL({Rate, Ms}, {rate(), integer(0, 100000)}, begin
        Schedule = ?SCHEDULE:new(Rate, 1, 0),
        Due = ?SCHEDULE:due(Schedule, Ms),
        abs(Due - (Rate * Ms / 1000 + 0.5)) =< 1 andalso
            ?SCHEDULE:at_ms(Schedule, Due - 1) =< Ms andalso
            ?SCHEDULE:at_ms(Schedule, Due) > Ms
    end).

%% Workers share the requests: together they have all of them.
prop_schedule_shares_all() ->
    ?FORALL({Rate, Workers, Ms}, {rate(), integer(1, 50), integer(0, 10000)}, begin
        Due = [
            ?SCHEDULE:due(?SCHEDULE:new(Rate, Workers, Index), Ms)
         || Index <- lists:seq(0, Workers - 1)
        ],
        lists:sum(Due) =:= ?SCHEDULE:due(?SCHEDULE:new(Rate, 1, 0), Ms) andalso
            lists:max(Due) - lists:min(Due) =< 1
    end).

%% What rises in proportion and then no more has its knee where it stops, within one step.
prop_knee_of_saturation() ->
    ?FORALL({Capacity, Points, Slack}, {integer(2, 15), integer(20, 60), float(0.0, 0.02)}, begin
        Curve = [
            {Load, min(Load, Capacity) + Slack * math:sin(Load)}
         || Load <- lists:seq(1, Points)
        ],
        {knee, {X, _}} = ?KNEE:of_gain(Curve),
        abs(X - Capacity) =< 2
    end).

prop_no_knee_of_a_line() ->
    ?FORALL({Slope, Points}, {float(0.1, 1000.0), integer(3, 50)}, begin
        none =:= ?KNEE:of_gain([{X, Slope * X} || X <- lists:seq(1, Points)])
    end).

prop_knee_ignores_units() ->
    ?FORALL({Ys, A, B}, {vector(12, integer(0, 1000)), integer(1, 1000), integer(1, 1000)}, begin
        Curve = lists:zip(lists:seq(1, 12), Ys),
        Scaled = [{A * X, B * Y} || {X, Y} <- Curve],
        case {?KNEE:of_gain(Curve), ?KNEE:of_gain(Scaled)} of
            {none, none} -> true;
            {{knee, {X, _}}, {knee, {AX, _}}} -> A * X =:= AX;
            _ -> near_the_limit(Curve)
        end
    end).

%% Floating point may decide otherwise where the distance is the limit itself, or two are equal.
near_the_limit(Curve) ->
    ?KNEE:of_gain(Curve, #{sensitivity => 0.0999}) =/= ?KNEE:of_gain(Curve, #{
        sensitivity => 0.1001
    }).

%% Below the knee no measured latency exceeds the limit, and one above it does.
prop_latency_knee_bounds() ->
    ?FORALL(Ys, list(integer(1, 1000)), begin
        Curve = lists:zip(lists:seq(1, length(Ys)), Ys),
        Limit = 3 * hd(Ys ++ [1]),
        case ?KNEE:of_latency(Curve) of
            none ->
                lists:all(fun(Y) -> Y =< Limit end, Ys);
            {knee, {X, _}} ->
                lists:all(fun({L, Y}) -> L > X orelse Y =< Limit end, Curve) andalso
                    lists:any(fun({L, Y}) -> L >= X andalso Y > Limit end, Curve)
        end
    end).

prop_slope_of_a_line() ->
    ?FORALL({A, B, N}, {integer(-1000, 1000), integer(-1000, 1000), integer(4, 100)}, begin
        Samples = [{X, A * X + B} || X <- lists:seq(1, N)],
        {ok, #{slope := S, low := L, high := H}} = ?SLOPE:theil_sen(Samples),
        near(S, A) andalso near(L, A) andalso near(H, A)
    end).

%% A fifth of the samples may be anything.
prop_slope_withstands_outliers() ->
    ?FORALL({A, N, Wild}, {integer(-50, 50), integer(30, 80), integer(-1000000, 1000000)}, begin
        Samples = [
            case X rem 5 of
                0 -> {X, Wild};
                _ -> {X, A * X}
            end
         || X <- lists:seq(1, N)
        ],
        {ok, #{slope := Slope}} = ?SLOPE:theil_sen(Samples),
        near(Slope, A)
    end).

%% A sawtooth, as memory is between garbage collections, does not grow, however steep its teeth.
prop_noise_is_steady() ->
    ?FORALL({Period, Height}, {integer(2, 12), integer(1, 1000000)}, begin
        Samples = [{X, Height * (X rem Period)} || X <- lists:seq(1, Period * 20)],
        {ok, Slope} = ?SLOPE:theil_sen(Samples),
        ?SLOPE:verdict(Slope, Period * 20) =:= steady
    end).

prop_growth_is_seen() ->
    ?FORALL({Rate, Noise}, {integer(10, 1000), vector(100, integer(-100, 100))}, begin
        Samples = [{X, Rate * X + E} || {X, E} <- lists:zip(lists:seq(1, 100), Noise)],
        {ok, #{low := Low, high := High} = Slope} = ?SLOPE:theil_sen(Samples),
        ?SLOPE:verdict(Slope, 99) =:= growing andalso Low =< High
    end).

near(A, B) -> abs(A - B) =< 1.0e-6 * max(1, abs(B)).

prop_calls_are_calls_of_their_size() ->
    Call = oneof([echo, size, ping, {tool, <<"a \"tool\"">>, <<"text">>}]),
    ?FORALL({Kind, Bytes, Id}, {Call, integer(150, 5000), integer(1, 1000000)}, begin
        Maker = ?CALL:maker(Kind, Bytes),
        Json = iolist_to_binary(?CALL:make(Maker, Id)),
        {ok, #{<<"id">> := Read}} = erlmcp_native_json:decode(Json),
        byte_size(Json) =:= Bytes andalso Read =:= Id andalso ?CALL:bytes(Maker) =:= Bytes
    end).
