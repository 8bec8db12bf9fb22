%% @doc JSON for the messages of the Model Context Protocol.
%%
%% Objects are maps with binary keys, `null' is the atom `null', strings are binaries. The codec
%% is OTP's `json' where there is one (OTP 27) and jsx elsewhere.
-module(erlmcp_native_json).

-export([decode/1, encode/1, scan/1]).

-export_type([envelope/0, fault/0, id/0]).

-type id() :: integer() | binary() | null | undefined.
%% `undefined': the message has none.

-type envelope() :: #{
    kind := request | response | notification | invalid,
    id := id(),
    method := binary() | undefined,
    params := object | array | none | other,
    why => why()
}.
%% `why' is there where the kind is `invalid'.

-type why() ::
    not_object
    | missing_version
    | wrong_version
    | invalid_method
    | invalid_id
    | missing_id
    | unknown_type.

-type fault() :: {invalid_json | depth_limit | batch_limit, At :: non_neg_integer()}.
%% `At' is the byte of the bracket that is one too many; the codecs do not tell where a document
%% is wrong, which is then reported at 0.

-define(MAX_DEPTH, 512).
-define(MAX_BATCH, 1000).

-define(CODEC_KEY, {?MODULE, codec}).

%% @doc Decodes a document. Arrays and objects may be nested 512 deep.
-spec decode(binary()) -> {ok, term()} | {error, fault()}.
decode(Text) when is_binary(Text) ->
    case nesting(Text) of
        ok -> decode(codec(), Text);
        {error, _} = Error -> Error
    end.

decode({Module, Options}, Text) ->
    try
        {ok, apply(Module, decode, [Text | Options])}
    catch
        error:_ -> {error, {invalid_json, 0}}
    end.

%% @doc Encodes a term; raises `badarg' or the codec's own error for what has no JSON.
-spec encode(term()) -> binary().
encode(Term) ->
    {Module, _} = codec(),
    iolist_to_binary(Module:encode(Term)).

%% @doc What a transport has to know of a message to pass it on, answer it or hold it back. A batch
%% may have 1,000 messages.
-spec scan(binary()) ->
    {ok, envelope()} | {ok, {batch, [{Element :: binary(), envelope()}]}} | {error, fault()}.
scan(Text) ->
    case decode(Text) of
        {ok, Batch} when is_list(Batch), length(Batch) > ?MAX_BATCH ->
            {error, {batch_limit, 0}};
        {ok, Batch} when is_list(Batch) ->
            {ok, {batch, [{encode(Element), envelope(Element)} || Element <- Batch]}};
        {ok, Message} ->
            {ok, envelope(Message)};
        {error, _} = Error ->
            Error
    end.

envelope(Message) when is_map(Message) ->
    Envelope = #{
        id => id(maps:get(<<"id">>, Message, undefined)),
        method => method(maps:get(<<"method">>, Message, undefined)),
        params => params(maps:get(<<"params">>, Message, undefined))
    },
    case kind(Message) of
        {invalid, Why} -> Envelope#{kind => invalid, why => Why};
        Kind -> Envelope#{kind => Kind}
    end;
envelope(_) ->
    #{kind => invalid, why => not_object, id => undefined, method => undefined, params => none}.

kind(#{<<"jsonrpc">> := <<"2.0">>} = Message) -> kind_of(Message);
kind(#{<<"jsonrpc">> := _}) -> {invalid, wrong_version};
kind(_) -> {invalid, missing_version}.

kind_of(#{<<"method">> := Method}) when not is_binary(Method) ->
    {invalid, invalid_method};
kind_of(#{<<"method">> := _, <<"id">> := Id}) when is_binary(Id); is_integer(Id) ->
    request;
kind_of(#{<<"method">> := _, <<"id">> := _}) ->
    {invalid, invalid_id};
kind_of(#{<<"method">> := _}) ->
    notification;
kind_of(Message) when not is_map_key(<<"result">>, Message), not is_map_key(<<"error">>, Message) ->
    {invalid, unknown_type};
kind_of(#{<<"id">> := Id}) when is_binary(Id); is_integer(Id); Id =:= null ->
    response;
kind_of(#{<<"id">> := _}) ->
    {invalid, invalid_id};
kind_of(_) ->
    {invalid, missing_id}.

id(Id) when is_binary(Id); is_integer(Id); Id =:= null -> Id;
id(_) -> undefined.

method(Method) when is_binary(Method) -> Method;
method(_) -> undefined.

params(undefined) -> none;
params(Params) when is_map(Params) -> object;
params(Params) when is_list(Params) -> array;
params(_) -> other.

%% What is too short to be nested too deep is not looked at.
nesting(Text) when byte_size(Text) =< 2 * ?MAX_DEPTH -> ok;
nesting(Text) -> nesting(Text, 0, 0).

nesting(<<$", Rest/binary>>, At, Depth) -> skip_string(Rest, At + 1, Depth);
nesting(<<Byte, _/binary>>, At, ?MAX_DEPTH) when Byte =:= $[; Byte =:= ${ ->
    {error, {depth_limit, At}};
nesting(<<Byte, Rest/binary>>, At, Depth) when Byte =:= $[; Byte =:= ${ ->
    nesting(Rest, At + 1, Depth + 1);
nesting(<<Byte, Rest/binary>>, At, Depth) when Byte =:= $]; Byte =:= $} ->
    nesting(Rest, At + 1, Depth - 1);
nesting(<<_, Rest/binary>>, At, Depth) -> nesting(Rest, At + 1, Depth);
nesting(<<>>, _, _) -> ok.

skip_string(<<$\\, _, Rest/binary>>, At, Depth) -> skip_string(Rest, At + 2, Depth);
skip_string(<<$", Rest/binary>>, At, Depth) -> nesting(Rest, At + 1, Depth);
skip_string(<<_, Rest/binary>>, At, Depth) -> skip_string(Rest, At + 1, Depth);
skip_string(<<>>, _, _) -> ok.

codec() ->
    case persistent_term:get(?CODEC_KEY, undefined) of
        undefined ->
            Codec = find([{json, []}, {jsx, [[return_maps]]}]),
            persistent_term:put(?CODEC_KEY, Codec),
            Codec;
        Codec ->
            Codec
    end.

find([]) ->
    error({no_json, "OTP 27 or jsx on the code path is needed"});
find([{Module, _} = Codec | Rest]) ->
    case code:ensure_loaded(Module) of
        {module, Module} -> Codec;
        {error, _} -> find(Rest)
    end.
