%% @doc What names and values of fields are made of (RFC 9110, 5).
-module(erlmcp_native_http_syntax).

-export([is_token/1, is_value/1, trim/1]).

%% @doc Whether it can be the name of a field, or a method.
-spec is_token(binary()) -> boolean().
is_token(<<>>) -> false;
is_token(Bytes) -> is_token_rest(Bytes).

is_token_rest(<<C, Rest/binary>>) when
    C >= $a, C =< $z; C >= $A, C =< $Z; C >= $0, C =< $9; C =:= $-; C =:= $_; C =:= $!; C =:= $#;
    C =:= $$; C =:= $%; C =:= $&; C =:= $'; C =:= $*; C =:= $+; C =:= $.; C =:= $^; C =:= $`;
    C =:= $|; C =:= $~
->
    is_token_rest(Rest);
is_token_rest(Rest) ->
    Rest =:= <<>>.

%% @doc Whether it has no control characters, which could end a line or be taken for its end.
-spec is_value(binary()) -> boolean().
is_value(<<C, Rest/binary>>) when C >= $\s, C =/= 127; C =:= $\t -> is_value(Rest);
is_value(Rest) -> Rest =:= <<>>.

%% @doc Without white space around it.
-spec trim(binary()) -> binary().
trim(<<C, Rest/binary>>) when C =:= $\s; C =:= $\t -> trim(Rest);
trim(Bytes) -> trim_end(Bytes, byte_size(Bytes)).

trim_end(Bytes, Size) when Size > 0 ->
    case binary:at(Bytes, Size - 1) of
        C when C =:= $\s; C =:= $\t -> trim_end(Bytes, Size - 1);
        _ -> binary:part(Bytes, 0, Size)
    end;
trim_end(_, 0) ->
    <<>>.
