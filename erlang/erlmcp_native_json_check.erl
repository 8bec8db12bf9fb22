%% @doc Whether a text is JSON (RFC 8259), and where and why it is not. The same findings as those
%% of the native core's `scan', byte for byte.
-module(erlmcp_native_json_check).

-export([document/2, is_integer_in_range/1]).

-define(MAX_INTEGER_BYTES, 4096).

-define(is_space(C), (C =:= $\s orelse C =:= $\n orelse C =:= $\r orelse C =:= $\t)).
-define(is_digit(C), (C >= $0 andalso C =< $9)).
-define(is_hex(C), (?is_digit(C) orelse C >= $a andalso C =< $f orelse C >= $A andalso C =< $F)).

%% Arrays and objects that have begun.
-record(open, {containers = [] :: [array | object], depth = 0, max}).

%% @doc Checks a document whose arrays and objects may be nested so deep.
-spec document(binary(), pos_integer()) -> ok | {error, erlmcp_native_json:fault()}.
document(<<16#ef, 16#bb, 16#bf, Rest/binary>>, MaxDepth) -> value(Rest, 3, #open{max = MaxDepth});
document(Text, MaxDepth) -> value(Text, 0, #open{max = MaxDepth}).

%% @doc Whether an integer of so many characters is read: turning digits into an integer takes
%% time that grows with the square of their count.
-spec is_integer_in_range(non_neg_integer()) -> boolean().
is_integer_in_range(Bytes) -> Bytes =< ?MAX_INTEGER_BYTES.

value(<<C, Rest/binary>>, At, Open) when ?is_space(C) -> value(Rest, At + 1, Open);
value(<<$", Rest/binary>>, At, Open) -> string(Rest, At + 1, value, Open);
value(<<${, Rest/binary>>, At, Open) -> open(object, Rest, At, Open);
value(<<$[, Rest/binary>>, At, Open) -> open(array, Rest, At, Open);
value(<<C, _/binary>> = Text, At, Open) when C =:= $-; ?is_digit(C) -> number(Text, At, Open);
value(<<$t, Rest/binary>>, At, Open) -> word(<<"rue">>, Rest, At + 1, Open);
value(<<$f, Rest/binary>>, At, Open) -> word(<<"alse">>, Rest, At + 1, Open);
value(<<$n, Rest/binary>>, At, Open) -> word(<<"ull">>, Rest, At + 1, Open);
value(Rest, At, _) -> unexpected(Rest, At).

open(_, _, At, #open{depth = Depth, max = Depth}) ->
    {error, {depth_limit, At}};
open(Kind, Rest, At, #open{containers = Containers, depth = Depth} = Open) ->
    first(Rest, At + 1, Open#open{containers = [Kind | Containers], depth = Depth + 1}).

first(<<C, Rest/binary>>, At, Open) when ?is_space(C) -> first(Rest, At + 1, Open);
first(<<$], _/binary>> = Rest, At, #open{containers = [array | _]} = Open) -> next(Rest, At, Open);
first(Rest, At, #open{containers = [array | _]} = Open) -> value(Rest, At, Open);
first(<<$}, _/binary>> = Rest, At, Open) -> next(Rest, At, Open);
first(Rest, At, Open) -> key(Rest, At, Open).

next(<<C, Rest/binary>>, At, Open) when ?is_space(C) -> next(Rest, At + 1, Open);
next(<<>>, _, #open{containers = []}) -> ok;
next(<<$], Rest/binary>>, At, #open{containers = [array | _]} = Open) -> close(Rest, At, Open);
next(<<$}, Rest/binary>>, At, #open{containers = [object | _]} = Open) -> close(Rest, At, Open);
next(<<$,, Rest/binary>>, At, #open{containers = [array | _]} = Open) -> value(Rest, At + 1, Open);
next(<<$,, Rest/binary>>, At, #open{containers = [object | _]} = Open) -> key(Rest, At + 1, Open);
next(Rest, At, _) -> unexpected(Rest, At).

close(Rest, At, #open{containers = [_ | Outer], depth = Depth} = Open) ->
    next(Rest, At + 1, Open#open{containers = Outer, depth = Depth - 1}).

key(<<C, Rest/binary>>, At, Open) when ?is_space(C) -> key(Rest, At + 1, Open);
key(<<$", Rest/binary>>, At, Open) -> string(Rest, At + 1, key, Open);
key(Rest, At, _) -> unexpected(Rest, At).

colon(<<C, Rest/binary>>, At, Open) when ?is_space(C) -> colon(Rest, At + 1, Open);
colon(<<$:, Rest/binary>>, At, Open) -> value(Rest, At + 1, Open);
colon(Rest, At, _) -> unexpected(Rest, At).

string(<<$", Rest/binary>>, At, value, Open) -> next(Rest, At + 1, Open);
string(<<$", Rest/binary>>, At, key, Open) -> colon(Rest, At + 1, Open);
string(<<$\\, Rest/binary>>, At, What, Open) -> escape(Rest, At, What, Open);
string(<<C, _/binary>>, At, _, _) when C < 16#20 -> {error, {unexpected_byte, At}};
string(<<C, Rest/binary>>, At, What, Open) when C < 16#80 -> string(Rest, At + 1, What, Open);
string(<<>>, At, _, _) -> {error, {unexpected_end, At}};
string(<<C/utf8, Rest/binary>>, At, What, Open) when C < 16#800 -> string(Rest, At + 2, What, Open);
string(<<C/utf8, Rest/binary>>, At, What, Open) when C < 16#10000 ->
    string(Rest, At + 3, What, Open);
string(<<_/utf8, Rest/binary>>, At, What, Open) -> string(Rest, At + 4, What, Open);
string(_, At, _, _) -> {error, {invalid_utf8, At}}.

escape(<<$u, A, B, C, D, Rest/binary>>, At, What, Open) when
    ?is_hex(A), ?is_hex(B), ?is_hex(C), ?is_hex(D)
->
    string(Rest, At + 6, What, Open);
escape(<<C, Rest/binary>>, At, What, Open) when
    C =:= $"; C =:= $\\; C =:= $/; C =:= $b; C =:= $f; C =:= $n; C =:= $r; C =:= $t
->
    string(Rest, At + 2, What, Open);
escape(Rest, At, _, _) ->
    case is_cut_short(Rest) of
        true -> {error, {unexpected_end, At + 1 + byte_size(Rest)}};
        false -> {error, {invalid_escape, At}}
    end.

is_cut_short(<<>>) -> true;
is_cut_short(<<$u, Hex/binary>>) -> byte_size(Hex) < 4 andalso is_hex(Hex);
is_cut_short(_) -> false.

is_hex(Text) -> lists:all(fun(C) -> ?is_hex(C) end, binary_to_list(Text)).

word(<<C, Word/binary>>, <<C, Rest/binary>>, At, Open) -> word(Word, Rest, At + 1, Open);
word(<<>>, Rest, At, Open) -> next(Rest, At, Open);
word(_, Rest, At, _) -> unexpected(Rest, At).

number(<<$-, Rest/binary>> = Text, At, Open) -> whole(Rest, At + 1, {integer, Text, At, Open});
number(Text, At, Open) -> whole(Text, At, {integer, Text, At, Open}).

whole(<<$0, Rest/binary>>, At, Number) -> point(Rest, At + 1, Number);
whole(Rest, At, Number) -> digits(Rest, At, fun point/3, Number).

point(<<$., Rest/binary>>, At, {integer, Text, From, Open}) ->
    digits(Rest, At + 1, fun exponent/3, {float, Text, From, Open});
point(Rest, At, Number) ->
    exponent(Rest, At, Number).

exponent(<<E, Rest/binary>>, At, Number) when E =:= $e; E =:= $E -> sign(Rest, At + 1, Number);
exponent(Rest, At, Number) -> in_range(Rest, At, Number).

sign(Rest, At, {integer, Text, From, Open}) -> sign(Rest, At, {exponent, Text, From, Open});
sign(<<C, Rest/binary>>, At, Number) when C =:= $+; C =:= $- ->
    digits(Rest, At + 1, fun in_range/3, Number);
sign(Rest, At, Number) -> digits(Rest, At, fun in_range/3, Number).

digits(<<C, Rest/binary>>, At, Then, Number) when ?is_digit(C) ->
    more_digits(Rest, At + 1, Then, Number);
digits(Rest, At, _, _) ->
    unexpected(Rest, At).

more_digits(<<C, Rest/binary>>, At, Then, Number) when ?is_digit(C) ->
    more_digits(Rest, At + 1, Then, Number);
more_digits(Rest, At, Then, Number) ->
    Then(Rest, At, Number).

in_range(Rest, At, {Kind, Text, From, Open}) ->
    case is_in_range(Kind, binary_part(Text, 0, At - From)) of
        true -> next(Rest, At, Open);
        false -> {error, {number_out_of_range, From}}
    end.

is_in_range(integer, Text) -> is_integer_in_range(byte_size(Text));
is_in_range(float, Text) -> is_finite(Text);
is_in_range(exponent, Text) -> is_finite(with_fraction(Text)).

%% Erlang's floats have a fraction.
with_fraction(Text) ->
    [Whole, Exponent] = binary:split(Text, [<<"e">>, <<"E">>]),
    <<Whole/binary, ".0e", Exponent/binary>>.

is_finite(Text) ->
    try binary_to_float(Text) of
        _ -> true
    catch
        error:badarg -> false
    end.

unexpected(<<>>, At) -> {error, {unexpected_end, At}};
unexpected(_, At) -> {error, {unexpected_byte, At}}.
