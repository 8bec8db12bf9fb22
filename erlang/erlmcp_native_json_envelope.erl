%% @doc What a transport has to know of JSON-RPC messages, read from decoded documents.
-module(erlmcp_native_json_envelope).

-export([read/1]).

-type batch() :: {batch, [{Element :: binary(), erlmcp_native_json:envelope()}]}.

%% @doc The envelope of a message, or those of a batch.
-spec read(term()) -> erlmcp_native_json:envelope() | batch().
read(Batch) when is_list(Batch) ->
    {batch, [{encoded(Element), envelope(Element)} || Element <- Batch]};
read(Message) ->
    envelope(Message).

encoded(Term) -> erlmcp_native_json:encode(Term, #{path => beam}).

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
