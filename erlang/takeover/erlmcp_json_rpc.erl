%% @doc Takes the place of erlmcp's module of this name, see {@link erlmcp_native_takeover}: the
%% same records, results and errors, with this application's JSON.
%%
%% What that JSON does not know how to encode, such as the proplists and times that jsx takes for
%% objects and strings, is left to jsx, which every erlmcp has.
-module(erlmcp_json_rpc).

-export([encode_request/3, encode_response/2, encode_error_response/3, encode_notification/2]).
-export([decode_message/1, create_error/3]).

-export_type([json_rpc_message/0]).

-type id() :: null | binary() | integer().
-type params() :: map() | list() | undefined.

-record(json_rpc_request, {id, method, params}).
-record(json_rpc_response, {id, result, error}).
-record(json_rpc_notification, {method, params}).
-record(mcp_error, {code, message, data}).

-type json_rpc_message() :: #json_rpc_request{} | #json_rpc_response{} | #json_rpc_notification{}.

-spec encode_request(id(), binary(), params()) -> binary().
encode_request(Id, Method, Params) when is_binary(Method) ->
    encode(with_params(Params, #{<<"id">> => id(Id), <<"method">> => Method})).

-spec encode_response(id(), term()) -> binary().
encode_response(Id, Result) ->
    encode(#{<<"id">> => id(Id), <<"result">> => Result}).

-spec encode_error_response(id(), integer(), binary()) -> binary().
encode_error_response(Id, Code, Message) when is_integer(Code), is_binary(Message) ->
    Error = #{<<"code">> => Code, <<"message">> => Message},
    encode(#{<<"id">> => id(Id), <<"error">> => Error}).

-spec encode_notification(binary(), params()) -> binary().
encode_notification(Method, Params) when is_binary(Method) ->
    encode(with_params(Params, #{<<"method">> => Method})).

-spec decode_message(binary()) -> {ok, json_rpc_message()} | {error, {atom(), term()}}.
decode_message(Json) when is_binary(Json) ->
    case erlmcp_native_json:decode(Json) of
        {ok, #{} = Message} -> message(Message);
        {ok, _} -> {error, {invalid_json, not_object}};
        {error, _} -> {error, {parse_error, invalid_json}}
    end.

-spec create_error(integer(), binary(), term()) -> #mcp_error{}.
create_error(Code, Message, Data) when is_integer(Code), is_binary(Message) ->
    #mcp_error{code = Code, message = Message, data = Data}.

message(#{<<"jsonrpc">> := <<"2.0">>} = Message) -> by_members(Message);
message(#{<<"jsonrpc">> := Version}) -> {error, {invalid_request, {wrong_version, Version}}};
message(_) -> {error, {invalid_request, missing_jsonrpc}}.

by_members(#{<<"id">> := Id, <<"method">> := Method} = Message) when is_binary(Method) ->
    {ok, #json_rpc_request{id = Id, method = Method, params = params(Message)}};
by_members(#{<<"id">> := Id, <<"result">> := Result} = Message) when
    not is_map_key(<<"method">>, Message)
->
    {ok, #json_rpc_response{id = Id, result = Result}};
by_members(#{<<"id">> := Id, <<"error">> := Error} = Message) when
    not is_map_key(<<"method">>, Message)
->
    {ok, #json_rpc_response{id = Id, error = Error}};
by_members(#{<<"method">> := Method} = Message) when is_binary(Method) ->
    {ok, #json_rpc_notification{method = Method, params = params(Message)}};
by_members(#{<<"method">> := Method}) ->
    {error, {invalid_request, {invalid_method, Method}}};
by_members(_) ->
    {error, {invalid_request, unknown_message_type}}.

params(#{<<"params">> := Params}) when is_map(Params); is_list(Params) -> Params;
params(_) -> undefined.

with_params(undefined, Message) -> Message;
with_params(Params, Message) -> Message#{<<"params">> => Params}.

id(Id) when Id =:= null; is_binary(Id); is_integer(Id) -> Id.

encode(Members) ->
    Message = Members#{<<"jsonrpc">> => <<"2.0">>},
    try
        iolist_to_binary(erlmcp_native_json:encode(Message))
    catch
        error:_ -> (jsx()):encode(Message)
    end.

%% Not by name: no dependency of this application, but of every erlmcp.
jsx() -> jsx.
