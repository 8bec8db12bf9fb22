%% @doc Where a value lies on an axis, and where the ticks of the axis are. Pure.
-module(erlmcp_native_report_scale).

-export([new/2, at/2, ticks/2, kind/1]).

-export_type([scale/0, kind/0]).

-type kind() :: linear | log | percentile.
%% `percentile': each step of the same length leaves out nine tenths of what is left (50, 90, 99).

-record(scale, {kind :: kind(), from :: float(), to :: float()}).

-opaque scale() :: #scale{}.

-define(TICK_STEPS, [1, 2, 2.5, 5, 10]).

%% @doc An axis that has room for these values. A linear axis begins at 0, or at the least value
%% below it; on a logarithmic axis values of 0 and less lie where the least positive one does.
-spec new(kind(), [number()]) -> scale().
new(log, Values) ->
    case [V || V <- Values, V > 0] of
        [] -> new(linear, Values);
        Positive -> log(lists:min(Positive), lists:max(Positive))
    end;
new(percentile, Values) ->
    Places = [percentile_place(V) || V <- Values],
    apart(percentile, lists:min([0.0 | Places]), lists:max([1.0 | Places]));
new(linear, Values) ->
    Most = lists:max([0 | Values]),
    Least = lists:min([0 | Values]),
    Step = step(Most - Least, 5),
    apart(linear, floor(Least / Step) * Step, ceil(Most / Step) * Step).

%% Whole decades where there are several, else as much as is needed.
log(Least, Most) ->
    From = math:log10(Least),
    To = math:log10(Most),
    case To - From of
        Wide when Wide >= 1.5 -> apart(log, floor(From + 1.0e-9), ceil(To - 1.0e-9));
        _ -> apart(log, From - 0.02, To + 0.02)
    end.

apart(Kind, From, To) when To > From -> #scale{kind = Kind, from = float(From), to = float(To)};
apart(Kind, From, _) -> #scale{kind = Kind, from = float(From), to = From + 1.0}.

%% @doc What kind of an axis it has become.
-spec kind(scale()) -> kind().
kind(#scale{kind = Kind}) -> Kind.

%% @doc Where a value lies: 0 at the beginning of the axis, 1 at its end.
-spec at(number(), scale()) -> float().
at(Value, #scale{kind = Kind, from = From, to = To}) ->
    Place = (place(Kind, Value, From) - From) / (To - From),
    max(0.0, min(1.0, Place)).

place(linear, Value, _) -> float(Value);
place(log, Value, _) when Value > 0 -> math:log10(Value);
place(log, _, From) -> From;
place(percentile, Value, _) -> percentile_place(Value).

percentile_place(Value) when Value >= 99.9999 -> 6.0;
percentile_place(Value) -> -math:log10(1 - max(0, Value) / 100).

%% @doc The values at which the axis has ticks, about as many as are wanted.
-spec ticks(Wanted :: pos_integer(), scale()) -> [number()].
ticks(Wanted, #scale{kind = linear, from = From, to = To}) ->
    Step = step(To - From, Wanted),
    First = ceil(From / Step - 1.0e-9),
    Last = floor(To / Step + 1.0e-9),
    [tidy(N * Step) || N <- lists:seq(First, Last)];
ticks(Wanted, #scale{kind = log, from = From, to = To}) ->
    Decades = lists:seq(ceil(From - 1.0e-9), floor(To + 1.0e-9)),
    case length(Decades) of
        Few when Few < 3 -> within(From, To, [M || D <- seq(From, To), M <- several(D)]);
        Many -> [tidy(math:pow(10, D)) || D <- every(ceil(Many / Wanted), Decades)]
    end;
ticks(_, #scale{kind = percentile, to = To}) ->
    [P || P <- [0, 50, 90, 99, 99.9, 99.99], percentile_place(P) =< To + 1.0e-9].

seq(From, To) -> lists:seq(floor(From), ceil(To)).

several(Decade) -> [tidy(M * math:pow(10, Decade)) || M <- [1, 2, 5]].

within(From, To, Ticks) ->
    [T || T <- Ticks, math:log10(T) >= From - 1.0e-9, math:log10(T) =< To + 1.0e-9].

every(N, List) ->
    [E || {I, E} <- lists:zip(lists:seq(0, length(List) - 1), List), I rem N =:= 0].

%% A step of 1, 2, 2.5 or 5 times a power of ten, so that there are not more steps than wanted.
step(Range, _) when Range =< 0 ->
    1;
step(Range, Wanted) ->
    Rough = Range / Wanted,
    Power = math:pow(10, floor(math:log10(Rough))),
    hd([S * Power || S <- ?TICK_STEPS, S * Power >= Rough * 0.999999]).

%% 0.30000000000000004 is no label.
tidy(Value) ->
    case round(Value) of
        Rounded when abs(Value) >= 1, abs(Value - Rounded) < 1.0e-9 * abs(Value) -> Rounded;
        _ when Value == 0 -> 0;
        _ -> binary_to_float(float_to_binary(float(Value), [{scientific, 8}]))
    end.
