%% @private JSON-RPC messages, read from decoded documents and written. Pure.
-module(erlmcp_native_http_message).

-export([kind/1, params/1, notification/2, request/3, response/2, failure/3, failure/4]).
-export([complete/3, status/1]).
-export([of_subscription/2]).

-define(SUBSCRIBE, <<"subscriptions/listen">>).
-define(SUBSCRIPTION_ID, <<"io.modelcontextprotocol/subscriptionId">>).

-export_type([kind/0]).

-type id() :: integer() | binary().
-type kind() ::
    {request, id(), Method :: binary()}
    | {notification, Method :: binary()}
    | {response, id()}
    | invalid.

-spec kind(term()) -> kind().
kind(#{<<"jsonrpc">> := <<"2.0">>, <<"method">> := Method, <<"id">> := Id}) when
    is_binary(Method), (is_binary(Id) orelse is_integer(Id))
->
    {request, Id, Method};
kind(#{<<"jsonrpc">> := <<"2.0">>, <<"method">> := Method} = Message) when
    is_binary(Method), not is_map_key(<<"id">>, Message)
->
    {notification, Method};
kind(#{<<"jsonrpc">> := <<"2.0">>, <<"id">> := Id} = Message) when
    not is_map_key(<<"method">>, Message), (is_binary(Id) orelse is_integer(Id)),
    (is_map_key(<<"result">>, Message) orelse is_map_key(<<"error">>, Message))
->
    {response, Id};
kind(_) ->
    invalid.

%% @doc MCP has no params that are arrays.
-spec params(map()) -> {ok, map()} | error.
params(#{<<"params">> := #{} = Params}) -> {ok, Params};
params(#{<<"params">> := _}) -> error;
params(_) -> {ok, #{}}.

-spec notification(binary(), map()) -> binary().
notification(Method, Params) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>, <<"method">> => Method, <<"params">> => Params
    }).

-spec request(id(), binary(), map()) -> binary().
request(Id, Method, Params) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"method">> => Method,
        <<"params">> => Params
    }).

-spec response(id(), erlmcp_native_http_handler:answer()) -> binary().
response(Id, {reply, Result}) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => Result
    });
response(Id, {error, Code, Text}) ->
    failure(Id, Code, Text);
response(Id, {error, Code, Text, Data}) ->
    failure(Id, Code, Text, Data).

%% @doc An error response; `none' is that of no request.
-spec failure(id() | null | none, integer(), binary()) -> binary().
failure(Id, Code, Text) ->
    failed(Id, #{<<"code">> => Code, <<"message">> => Text}).

-spec failure(id() | null | none, integer(), binary(), term()) -> binary().
failure(Id, Code, Text, none) ->
    failure(Id, Code, Text);
failure(Id, Code, Text, Data) ->
    failed(Id, #{<<"code">> => Code, <<"message">> => Text, <<"data">> => Data}).

failed(none, Error) ->
    erlmcp_native_json:encode(#{<<"jsonrpc">> => <<"2.0">>, <<"error">> => Error});
failed(Id, Error) ->
    erlmcp_native_json:encode(#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"error">> => Error}).

%% @doc An answer with what each result has to say from 2026-07-28 on.
-spec complete(id(), Method :: binary(), erlmcp_native_http_handler:answer()) ->
    erlmcp_native_http_handler:answer().
complete(Id, ?SUBSCRIBE, {reply, Result}) -> typed(of_subscription(Id, Result));
complete(_, _, {reply, Result}) -> typed(Result);
complete(_, _, Answer) -> Answer.

typed(#{<<"resultType">> := _} = Result) -> {reply, Result};
typed(#{resultType := _} = Result) -> {reply, Result};
typed(Result) -> {reply, Result#{<<"resultType">> => <<"complete">>}}.

%% @doc Params or a result of a subscription, which bear the id of the request that began it.
-spec of_subscription(id(), map()) -> map().
of_subscription(Id, #{'_meta' := Meta} = Params) ->
    of_subscription(Id, (maps:remove('_meta', Params))#{<<"_meta">> => Meta});
of_subscription(Id, Params) ->
    Meta = maps:get(<<"_meta">>, Params, #{}),
    Params#{<<"_meta">> => Meta#{?SUBSCRIPTION_ID => Id}}.

%% @doc The status that an answer goes out with from 2026-07-28 on.
-spec status(erlmcp_native_http_handler:answer()) -> 200 | 400 | 404.
status({error, Code, _}) -> code_status(Code);
status({error, Code, _, _}) -> code_status(Code);
status(_) -> 200.

code_status(-32601) -> 404;
code_status(Code) when Code =< -32020, Code >= -32022 -> 400;
code_status(_) -> 200.
