%% @doc Which terms have JSON.
-module(erlmcp_native_json_terms).

-export([checked/2]).

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
    case unicode:characters_to_binary(Text) of
        Text -> Text;
        _ -> error({invalid_utf8, Text})
    end.
