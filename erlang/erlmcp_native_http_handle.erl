%% @private Calls the user's callback module, or hands a message to the registry where that is who
%% serves.
-module(erlmcp_native_http_handle).

-include_lib("kernel/include/logger.hrl").

-export([context/5, request/4, notification/3, init_session/3, input_schema/3]).

-type context() :: erlmcp_native_http_handler:context().

-define(INTERNAL_ERROR, -32603).

%% @doc What a callback is told of where a message comes from.
-spec context(
    erlmcp_native_http_answer:call(),
    binary(),
    none | erlmcp_native_http_tables:session(),
    map(),
    erlmcp_native_http_answer:ref() | none
) -> context().
context(Call, Revision, Session, Meta, Ref) ->
    #{request := Request, principal := Principal, config := #{handler := Handler}} = Call,
    #{headers := Headers, peername := Peer} = Request,
    {Id, State} =
        case Session of
            none -> {none, undefined};
            #{id := Given, state := Kept} -> {Given, Kept}
        end,
    #{
        revision => Revision,
        session => Id,
        state => State,
        principal => Principal,
        request => Ref,
        meta => Meta,
        trace => erlmcp_native_trace_context:find(Meta, Headers),
        headers => Headers,
        peername => Peer,
        arg => arg(Handler)
    }.

arg({_, Arg}) -> Arg;
arg(none) -> undefined.

%% @doc Has a request answered. A crash is an answer.
-spec request(erlmcp_native_http_config:config(), binary(), map(), context()) ->
    erlmcp_native_http_handler:answer().
request(#{handler := none} = Config, Method, Params, _) ->
    erlmcp_native_http_routed:request(Config, Method, Params);
request(#{handler := {Module, _}}, Method, Params, Context) ->
    try Module:handle_request(Method, Params, Context) of
        Answer -> checked(Answer, Module)
    catch
        Class:Reason:Stack ->
            crashed({Module, handle_request, Method}, Class, Reason, Stack),
            {error, ?INTERNAL_ERROR, <<"Internal error">>}
    end.

checked(noreply, _) -> noreply;
checked({reply, #{}} = Answer, _) -> Answer;
checked({error, Code, Text} = Answer, _) when is_integer(Code), is_binary(Text) -> Answer;
checked({error, Code, Text, _} = Answer, _) when is_integer(Code), is_binary(Text) -> Answer;
checked(Other, Module) ->
    ?LOG_ERROR("erlmcp_native: ~p:handle_request/3 returned ~0p", [Module, Other]),
    {error, ?INTERNAL_ERROR, <<"Internal error">>}.

-spec notification(erlmcp_native_http_config:config(), map(), context()) -> ok.
notification(#{handler := none} = Config, Message, _) ->
    erlmcp_native_http_routed:notification(Config, Message);
notification(#{handler := {Module, _}, notifies := true}, Message, Context) ->
    #{<<"method">> := Method} = Message,
    Params = maps:get(<<"params">>, Message, #{}),
    try
        _ = Module:handle_notification(Method, Params, Context),
        ok
    catch
        Class:Reason:Stack ->
            crashed({Module, handle_notification, Method}, Class, Reason, Stack)
    end;
notification(_, _, _) ->
    ok.

%% @doc The handler's state of a new session.
-spec init_session(erlmcp_native_http_config:config(), map(), context()) ->
    {ok, term()} | {error, Code :: integer(), Message :: binary()}.
init_session(#{handler := {Module, _}, inits := true}, Params, Context) ->
    try Module:init_session(Params, Context) of
        {ok, State} ->
            {ok, State};
        {error, Code, Text} when is_integer(Code), is_binary(Text) ->
            {error, Code, Text};
        Other ->
            ?LOG_ERROR("erlmcp_native: ~p:init_session/2 returned ~0p", [Module, Other]),
            {error, ?INTERNAL_ERROR, <<"Internal error">>}
    catch
        Class:Reason:Stack ->
            crashed({Module, init_session}, Class, Reason, Stack),
            {error, ?INTERNAL_ERROR, <<"Internal error">>}
    end;
init_session(_, _, _) ->
    {ok, undefined}.

%% @doc The input schema of a tool, where the handler tells.
-spec input_schema(erlmcp_native_http_config:config(), binary(), context()) -> map() | undefined.
input_schema(#{handler := {Module, _}, schemas := true}, Tool, Context) ->
    try
        Module:input_schema(Tool, Context)
    catch
        Class:Reason:Stack ->
            crashed({Module, input_schema, Tool}, Class, Reason, Stack),
            undefined
    end;
input_schema(_, _, _) ->
    undefined.

crashed(What, Class, Reason, Stack) ->
    ?LOG_ERROR("erlmcp_native: ~0p failed: ~0p", [What, {Class, Reason, Stack}]).
