%% @doc Which terms have JSON.
-module(erlmcp_native_json_terms).

-export([checked/2]).

%% About 70 microseconds' worth, which are 280 of the 4,000 steps that a process has in a turn of
%% about a millisecond.
-define(SLICE, 65536).
-define(SLICE_REDUCTIONS, 280).

%% @doc The term with `null' for another atom that stands for it; raises an error of type {@link
%% erlmcp_native_json:refusal()} for the first part that has no JSON.
-spec checked(term(), Null :: atom()) -> term().
checked(Null, Null) -> null;
checked(Term, _) when is_atom(Term); is_float(Term) -> Term;
checked(Term, _) when is_integer(Term) -> integer(Term);
checked(Term, _) when is_binary(Term) -> text(Term);
checked(Term, Null) when is_list(Term) -> list(Term, Null);
checked(Term, Null) when is_map(Term) ->
    maps:from_list([{key(Key), checked(Value, Null)} || {Key, Value} <- maps:to_list(Term)]);
checked(Term, _) -> error({unsupported, Term}).

list([Head | Tail], Null) -> [checked(Head, Null) | list(Tail, Null)];
list([], _) -> [];
list(Tail, _) -> error({improper_list, Tail}).

key(Key) when is_atom(Key) -> Key;
key(Key) when is_binary(Key) -> text(Key);
key(Key) when is_integer(Key) -> integer(Key);
key(Key) -> error({unsupported_key, Key}).

integer(Integer) when Integer > -16#8000000000000000, Integer < 16#8000000000000000 -> Integer;
integer(Integer) ->
    case erlmcp_native_json_check:is_integer_in_range(digits(Integer)) of
        true -> Integer;
        false -> error({number_out_of_range, Integer})
    end.

%% A byte is worth more than two digits. What is clearly too long is not worked out: that takes
%% time that grows with the square.
digits(Integer) ->
    case erlang:external_size(Integer) of
        Bytes when Bytes > 4096 -> Bytes;
        _ -> byte_size(integer_to_binary(Integer))
    end.

text(Text) ->
    case is_utf8(Text) of
        true -> Text;
        false -> error({invalid_utf8, Text})
    end.

%% In slices, because a conversion holds its scheduler to its end and counts as one step.
is_utf8(<<Slice:?SLICE/binary, _, _/binary>> = Text) ->
    true = erlang:bump_reductions(?SLICE_REDUCTIONS),
    case unicode:characters_to_binary(Slice) of
        Slice -> is_utf8(after_slice(?SLICE, Text));
        {incomplete, Whole, _} -> is_utf8(after_slice(byte_size(Whole), Text));
        {error, _, _} -> false
    end;
is_utf8(Text) ->
    unicode:characters_to_binary(Text) =:= Text.

after_slice(Size, Text) ->
    <<_:Size/binary, Rest/binary>> = Text,
    Rest.
