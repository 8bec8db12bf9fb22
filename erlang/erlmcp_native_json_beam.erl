%% @doc JSON in Erlang: OTP's `json' from OTP 27 on, jsx elsewhere, with the bounds and the exact
%% faults of {@link erlmcp_native_json}.
-module(erlmcp_native_json_beam).

-export([codec/0, decode/2, encode/2, scan/3]).

-export_type([options/0]).

-type options() :: #{
    null := atom(),
    keys := binary | existing_atom,
    strings := copy | reference,
    max_depth := pos_integer(),
    path := term()
}.

-define(CODEC_KEY, {?MODULE, codec}).

%% What a codec of OTP's makes of a string refers to the document from this size on.
-define(HEAP_BINARY_MAX, 64).

-define(SLICE, 65536).

%% @doc The codec that is at hand: OTP's before jsx. The module is a value, because one of the two
%% is missing.
-spec codec() -> {ok, {otp | jsx, module()}} | {error, no_json}.
codec() ->
    case persistent_term:get(?CODEC_KEY, none) of
        none -> find([{otp, json}, {jsx, jsx}]);
        Codec -> {ok, Codec}
    end.

find([]) ->
    {error, no_json};
find([{_, Module} = Codec | Rest]) ->
    case code:ensure_loaded(Module) of
        {module, Module} ->
            persistent_term:put(?CODEC_KEY, Codec),
            {ok, Codec};
        {error, _} ->
            find(Rest)
    end.

%% @doc Decodes with checked options.
-spec decode(binary(), options()) -> {ok, term()} | {error, erlmcp_native_json:fault()}.
decode(Text, Options) ->
    decode(at_hand(), Text, Options).

%% jsx takes more than JSON for JSON, so it is given only what has been checked.
decode({jsx, Jsx}, Text, #{max_depth := MaxDepth} = Options) ->
    case erlmcp_native_json_check:document(Text, MaxDepth) of
        ok -> {ok, jsx(Jsx, without_mark(plain(Text)), Options)};
        {error, _} = Error -> Error
    end;
decode({otp, Json}, Text, #{max_depth := MaxDepth} = Options) ->
    Decoders = decoders(byte_size(Text), Options),
    case is_shallow(Text, MaxDepth) andalso otp(Json, without_mark(Text), Decoders) of
        {ok, _} = Ok -> Ok;
        _ -> decode_checked(Json, Text, MaxDepth, Decoders)
    end.

decode_checked(Json, Text, MaxDepth, Decoders) ->
    case erlmcp_native_json_check:document(Text, MaxDepth) of
        ok -> otp(Json, without_mark(plain(Text)), maps:remove(float, Decoders));
        {error, _} = Error -> Error
    end.

%% Nesting takes a bracket at each end.
is_shallow(Text, MaxDepth) when byte_size(Text) =< 2 * MaxDepth -> true;
is_shallow(Text, MaxDepth) -> is_shallow(Text, 0, MaxDepth).

%% In slices, because a search holds its scheduler to its end; for one byte at a time, because that
%% takes a tenth of the time of a search for two.
is_shallow(Text, At, MaxBrackets) ->
    Size = min(?SLICE, byte_size(Text) - At),
    Left = MaxBrackets - count(<<"[">>, Text, At, Size) - count(<<"{">>, Text, At, Size),
    Left >= 0 andalso (Size < ?SLICE orelse is_shallow(Text, At + Size, Left)).

count(Byte, Text, At, Size) -> length(binary:matches(Text, Byte, [{scope, {At, Size}}])).

otp(Json, Text, Decoders) ->
    try Json:decode(Text, ok, Decoders) of
        {Term, ok, Rest} ->
            case is_space(Rest) of
                true -> {ok, Term};
                false -> error
            end
    catch
        error:_ -> error
    end.

is_space(<<C, Rest/binary>>) when C =:= $\s; C =:= $\n; C =:= $\r; C =:= $\t -> is_space(Rest);
is_space(Rest) -> Rest =:= <<>>.

decoders(Size, #{null := Null, keys := Keys, strings := Strings}) ->
    Long = not erlmcp_native_json_check:is_integer_in_range(Size),
    maps:from_list(
        [{null, Null}, {float, fun to_float/1}, {object_finish, fun finish_object/2}] ++
            [{string, fun copied/1} || Strings =:= copy, Size > ?HEAP_BINARY_MAX] ++
            [{object_push, fun push_member/3} || Keys =:= existing_atom] ++
            [{integer, fun to_integer/1} || Long]
    ).

copied(Text) when byte_size(Text) > ?HEAP_BINARY_MAX -> binary:copy(Text);
copied(Text) -> Text.

%% Of members with one name the last counts, as in jsx and on the native side. `json' of itself
%% takes the first.
finish_object(Members, Outer) -> {maps:from_list(lists:reverse(Members)), Outer}.

push_member(Key, Value, Members) -> [{existing_atom(Key), Value} | Members].

to_integer(Text) ->
    case erlmcp_native_json_check:is_integer_in_range(byte_size(Text)) of
        true -> binary_to_integer(Text);
        false -> error(badarg)
    end.

%% Here `json' has lost the sign, if there was one.
to_float(<<"0.0e", _/binary>>) -> error(badarg);
to_float(Text) -> binary_to_float(Text).

existing_atom(Key) ->
    try
        binary_to_existing_atom(Key)
    catch
        error:_ -> Key
    end.

jsx(Jsx, Text, #{null := Null, keys := Keys}) ->
    with_terms(Null, Keys, Jsx:decode(Text, [return_maps])).

with_terms(null, binary, Term) -> Term;
with_terms(Null, Keys, Term) -> replaced(Term, Null, Keys).

replaced(null, Null, _) -> Null;
replaced(List, Null, Keys) when is_list(List) -> [replaced(Term, Null, Keys) || Term <- List];
replaced(Map, Null, Keys) when is_map(Map) ->
    maps:from_list([
        {key(Keys, Key), replaced(Value, Null, Keys)}
     || {Key, Value} <- maps:to_list(Map)
    ]);
replaced(Term, _, _) -> Term.

key(existing_atom, Key) -> existing_atom(Key);
key(binary, Key) -> Key.

without_mark(<<16#ef, 16#bb, 16#bf, Rest/binary>>) -> Rest;
without_mark(Text) -> Text.

%% The document, which is known to be JSON, without what the codecs do not read alike. Halves of
%% surrogate pairs, which JavaScript writes where a text was cut inside of a character, become
%% U+FFFD: `json' refuses them, and jsx takes what follows with them. A zero with a sign and an
%% exponent gets a fraction: `json' loses the sign.
plain(Text) ->
    case is_plain(Text, 0) of
        true -> Text;
        false -> outside(Text, <<>>)
    end.

is_plain(Text, At) ->
    Size = min(?SLICE, byte_size(Text) - At),
    Odd = [<<"\\ud">>, <<"\\uD">>, <<"-0e">>, <<"-0E">>],
    case binary:match(Text, Odd, [{scope, {At, Size}}]) of
        nomatch when Size < ?SLICE -> true;
        %% Two bytes less: three that are looked for may lie across.
        nomatch -> is_plain(Text, At + Size - 2);
        {_, _} -> false
    end.

outside(<<$", Rest/binary>>, Done) -> inside(Rest, <<Done/binary, $">>);
outside(<<"-0", E, Rest/binary>>, Done) when E =:= $e; E =:= $E ->
    outside(Rest, <<Done/binary, "-0.0e">>);
outside(<<C, Rest/binary>>, Done) -> outside(Rest, <<Done/binary, C>>);
outside(<<>>, Done) -> Done.

inside(<<$", Rest/binary>>, Done) ->
    outside(Rest, <<Done/binary, $">>);
inside(<<"\\u", A:4/binary, Rest/binary>>, Done) ->
    case {half(A), Rest} of
        {high, <<"\\u", B:4/binary, After/binary>>} ->
            case half(B) of
                low -> inside(After, <<Done/binary, "\\u", A/binary, "\\u", B/binary>>);
                _ -> inside(Rest, <<Done/binary, "\\ufffd">>)
            end;
        {none, _} ->
            inside(Rest, <<Done/binary, "\\u", A/binary>>);
        _ ->
            inside(Rest, <<Done/binary, "\\ufffd">>)
    end;
inside(<<"\\", C, Rest/binary>>, Done) ->
    inside(Rest, <<Done/binary, "\\", C>>);
inside(<<C, Rest/binary>>, Done) ->
    inside(Rest, <<Done/binary, C>>).

half(Hex) ->
    case binary_to_integer(Hex, 16) of
        Unit when Unit >= 16#d800, Unit < 16#dc00 -> high;
        Unit when Unit >= 16#dc00, Unit < 16#e000 -> low;
        _ -> none
    end.

%% @doc Encodes with checked options; raises what it refuses.
-spec encode(term(), #{null := atom(), return := binary | iodata, path := term()}) -> iodata().
encode(Term, #{null := Null, return := Return}) ->
    Json = encode(at_hand(), Term, Null),
    case Return of
        binary -> iolist_to_binary(Json);
        iodata -> Json
    end.

%% Both take more than what has JSON: jsx lists of pairs, OTP's keys that are floats. So they are
%% given only what has been checked.
encode({jsx, Jsx}, Term, Null) -> Jsx:encode(erlmcp_native_json_terms:checked(Term, Null));
encode({otp, Json}, Term, Null) -> Json:encode(erlmcp_native_json_terms:checked(Term, Null)).

%% @doc The envelopes of the messages in a document.
-spec scan(binary(), pos_integer(), options()) -> erlmcp_native_json:scanned().
scan(Text, MaxBatch, Options) ->
    case decode(Text, Options) of
        {ok, Batch} when is_list(Batch), length(Batch) > MaxBatch ->
            {At, 1} = binary:match(Text, <<"[">>),
            {error, {batch_limit, At}};
        {ok, Term} -> {ok, erlmcp_native_json_envelope:read(Term, Text)};
        {error, _} = Error -> Error
    end.

at_hand() ->
    case codec() of
        {ok, Codec} -> Codec;
        {error, no_json} -> error(no_json)
    end.
