%% @doc Numbers as people read them: three digits that count, with a prefix where they are many.
%% Pure.
-module(erlmcp_native_report_number).

-export([text/1, text/2, unit/1, short/1]).

%% @doc Three significant digits: `0.305', `4.25', `65.1', `396', `12.3 k', `1.17 M'.
-spec text(number() | null) -> binary().
text(null) ->
    <<"-"/utf8>>;
text(Value) when Value < 0 ->
    <<"-", (text(-Value))/binary>>;
text(Value) when Value == 0 ->
    <<"0">>;
text(Value) when Value >= 999500000 ->
    <<(digits(Value / 1.0e9))/binary, " G">>;
text(Value) when Value >= 999500 ->
    <<(digits(Value / 1.0e6))/binary, " M">>;
text(Value) when Value >= 9999.5 ->
    <<(digits(Value / 1.0e3))/binary, " k">>;
text(Value) when is_integer(Value) ->
    integer_to_binary(Value);
text(Value) ->
    digits(Value).

digits(Value) when Value >= 99.95 -> integer_to_binary(round(Value));
digits(Value) when Value >= 9.995 -> float_to_binary(float(Value), [{decimals, 1}]);
digits(Value) when Value >= 0.9995 -> float_to_binary(float(Value), [{decimals, 2}]);
digits(Value) when Value >= 0.0005 -> float_to_binary(float(Value), [{decimals, 3}]);
digits(Value) -> float_to_binary(float(Value), [{scientific, 1}]).

%% @doc The same with its unit, or with a larger one of the same kind; a percent sign and a factor
%% stand close to it.
-spec text(number() | null, Unit :: binary()) -> binary().
text(null, _) -> text(null);
text(Value, <<>>) -> text(Value);
text(Value, <<"%">>) -> <<(text(Value))/binary, "%">>;
text(Value, <<"x">>) -> <<(text(Value))/binary, "×"/utf8>>;
text(Value, <<"us">>) when Value >= 1000 -> text(Value / 1000, <<"ms">>);
text(Value, <<"ms">>) when Value >= 1000 -> text(Value / 1000, <<"s">>);
text(Value, <<"KB/s">>) when Value >= 1000 -> text(Value / 1000, <<"MB/s">>);
text(Value, Unit) ->
    %% The prefix belongs to the unit: 1.17 M routes/s.
    <<(text(Value))/binary, " ", (unit(Unit))/binary>>.

%% @doc A unit as it is printed.
-spec unit(binary()) -> binary().
unit(<<"us">>) -> <<"µs"/utf8>>;
unit(<<"x">>) -> <<"×"/utf8>>;
unit(Unit) -> Unit.

%% @doc For the ticks of an axis: no more digits than are needed.
-spec short(number()) -> binary().
short(Value) when Value < 0 -> <<"-", (short(-Value))/binary>>;
short(Value) when Value >= 1000000000 -> prefixed(Value / 1.0e9, <<"G">>);
short(Value) when Value >= 1000000 -> prefixed(Value / 1.0e6, <<"M">>);
short(Value) when Value >= 1000 -> prefixed(Value / 1.0e3, <<"k">>);
short(Value) -> prefixed(Value, <<>>).

prefixed(Value, Prefix) ->
    Rounded = round(Value),
    case abs(Value - Rounded) < 1.0e-9 * max(1, abs(Value)) of
        true -> <<(integer_to_binary(Rounded))/binary, Prefix/binary>>;
        false -> <<(float_to_binary(float(Value), [{decimals, 6}, compact]))/binary, Prefix/binary>>
    end.
