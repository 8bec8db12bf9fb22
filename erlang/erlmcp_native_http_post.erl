%% @private What a POST to the endpoint carries: one message or a batch, under which revision, in
%% which session.
-module(erlmcp_native_http_post).

-export([serve/2, refuse/4, session/1, response/2, notified/4]).

-type call() :: erlmcp_native_http_answer:call().

-define(PARSE_ERROR, -32700).
-define(INVALID_REQUEST, -32600).
-define(INVALID_PARAMS, -32602).
-define(HEADER_MISMATCH, -32020).

%% Where neither the header nor a session says another.
-define(ASSUMED_REVISION, <<"2025-03-26">>).

-define(JSON, [{<<"content-type">>, <<"application/json">>}]).

%% @doc Serves a POST whose head is right.
-spec serve(call(), binary()) -> term().
serve(Call, Body) ->
    case erlmcp_native_json:decode(Body) of
        {ok, #{} = Message} -> message(erlmcp_native_http_message:kind(Message), Message, Call);
        {ok, Batch} when is_list(Batch) -> erlmcp_native_http_batch:serve(Batch, Call);
        {ok, _} -> refuse(400, null, {?INVALID_REQUEST, <<"Invalid Request">>}, Call);
        {error, _} -> refuse(400, null, {?PARSE_ERROR, <<"Parse error">>}, Call)
    end.

%% @doc Answers with a status and an error that belongs to no request, or to the one named.
-spec refuse(
    erlmcp_native_http_path:status(),
    integer() | binary() | null | none,
    {integer(), binary()} | {integer(), binary(), term()},
    call()
) -> ok | {error, closed}.
refuse(Status, Id, {Code, Text}, Call) ->
    refuse(Status, Id, {Code, Text, none}, Call);
refuse(Status, Id, {Code, Text, Data}, #{exchange := Exchange}) ->
    Body = erlmcp_native_http_message:failure(Id, Code, Text, Data),
    erlmcp_native_http_path:reply(Exchange, Status, ?JSON, Body).

message(invalid, Message, Call) ->
    refuse(400, id(Message), {?INVALID_REQUEST, <<"Invalid Request">>}, Call);
message(Kind, Message, #{request := #{headers := Headers}, config := Config} = Call) ->
    #{revisions := Revisions} = Config,
    Header = header(<<"mcp-protocol-version">>, Headers),
    case erlmcp_native_http_era:decide(Header, Message, Revisions) of
        {modern, Revision} -> modern(Kind, Revision, Message, Call);
        {legacy, _} -> legacy(Kind, Message, Call);
        {refused, Code, Text, Data} -> refuse(400, id(Message), {Code, Text, Data}, Call)
    end.

%% ---- from 2026-07-28 on

modern({request, Id, Method}, Revision, Message, #{exchange := Exchange} = Call) ->
    case mirrored(Method, Message, Call) of
        ok ->
            ok = erlmcp_native_http_path:on_gone(Exchange, exit),
            ok = erlmcp_native_http_answer:new(Call, modern, Revision, none),
            Ref = erlmcp_native_http_answer:add(Id, Method),
            modern_request(Ref, Id, Method, Revision, Message, Call);
        {mismatch, Text} ->
            refuse(400, Id, {?HEADER_MISMATCH, Text}, Call);
        invalid ->
            refuse(400, Id, {?INVALID_PARAMS, <<"Invalid params">>}, Call)
    end;
modern({notification, _}, Revision, Message, Call) ->
    notification(Revision, none, Message, Call);
modern({response, _}, _, _, Call) ->
    refuse(400, null, {?INVALID_REQUEST, <<"Responses are not accepted">>}, Call).

mirrored(Method, Message, #{request := #{headers := Headers}}) ->
    case erlmcp_native_http_message:params(Message) of
        {ok, Params} -> erlmcp_native_http_mirror:check(Headers, Method, Params);
        error -> invalid
    end.

modern_request(Ref, Id, Method, Revision, #{<<"params">> := Params} = Message, Call) ->
    #{config := Config, request := #{headers := Headers}} = Call,
    Meta = erlmcp_native_http_era:meta(Message),
    Context = erlmcp_native_http_handle:context(Call, Revision, none, Meta, Ref),
    case params_mirrored(Method, Params, Context, Headers, Config) of
        ok ->
            #{key := Key} = Config,
            Answer = erlmcp_native_http_handle:request(Config, Method, Params, Context),
            _ = Answer =:= noreply andalso
                erlmcp_native_http_tables:begin_request(self(), none, {request, Id}, Key),
            erlmcp_native_http_answer:answer(Ref, Answer);
        {mismatch, Text} ->
            refuse(400, Id, {?HEADER_MISMATCH, Text}, Call)
    end.

params_mirrored(<<"tools/call">>, #{<<"name">> := Tool} = Params, Context, Headers, Config) when
    is_binary(Tool)
->
    case erlmcp_native_http_handle:input_schema(Config, Tool, Context) of
        undefined ->
            ok;
        Schema ->
            Arguments = maps:get(<<"arguments">>, Params, #{}),
            erlmcp_native_http_mirror:check_params(Headers, Arguments, Schema)
    end;
params_mirrored(_, _, _, _, _) ->
    ok.

%% ---- up to 2025-11-25

legacy({request, Id, <<"initialize">>}, Message, Call) ->
    case erlmcp_native_http_message:params(Message) of
        {ok, Params} -> erlmcp_native_http_initialize:serve(Id, Params, Call);
        error -> refuse(200, Id, {?INVALID_PARAMS, <<"Invalid params">>}, Call)
    end;
legacy(Kind, Message, Call) ->
    case session(Call) of
        {ok, Revision, Session} -> in_session(Kind, Revision, Session, Message, Call);
        {error, Status, Text} -> refuse(Status, id(Message), {?INVALID_REQUEST, Text}, Call)
    end.

in_session({request, Id, Method}, Revision, Session, Message, Call) ->
    request(Id, Method, Revision, Session, Message, Call);
in_session({notification, _}, Revision, Session, Message, Call) ->
    notification(Revision, Session, Message, Call);
in_session({response, _}, _, Session, Message, #{exchange := Exchange}) ->
    response(Session, Message),
    erlmcp_native_http_path:reply(Exchange, 202, [], <<>>).

%% @doc The session of a request, or the revision where sessions are off.
-spec session(call()) ->
    {ok, Revision :: binary(), none | erlmcp_native_http_tables:session()}
    | {error, 400 | 404, binary()}.
session(#{request := #{headers := Headers}, config := #{sessions := false}}) ->
    case header(<<"mcp-protocol-version">>, Headers) of
        none -> {ok, ?ASSUMED_REVISION, none};
        Revision -> {ok, Revision, none}
    end;
session(#{request := #{headers := Headers}, principal := Principal, config := #{key := Key}}) ->
    case lists:keyfind(<<"mcp-session-id">>, 1, Headers) of
        {_, Id} ->
            case erlmcp_native_http_tables:session(Id) of
                {ok, #{key := Key, principal := Principal, bound := false} = Session} ->
                    #{revision := Revision} = Session,
                    ok = erlmcp_native_http_tables:touch(Session),
                    {ok, Revision, Session};
                _ ->
                    {error, 404, <<"Session not found">>}
            end;
        false ->
            {error, 400, <<"Mcp-Session-Id is missing">>}
    end.

%% It ends when it is cancelled, and not when its client has gone.
request(Id, Method, Revision, Session, Message, Call) ->
    case erlmcp_native_http_message:params(Message) of
        {ok, Params} ->
            #{config := #{key := Key} = Config, exchange := Exchange} = Call,
            ok = erlmcp_native_http_answer:new(Call, legacy, Revision, Session),
            Ref = erlmcp_native_http_answer:add(Id, Method),
            %% This is what a client that has cancelled the request gets.
            ok = erlmcp_native_http_path:on_exit(Exchange, 202),
            Name = session_id(Session),
            true = erlmcp_native_http_tables:begin_request(self(), Name, {request, Id}, Key),
            Meta = erlmcp_native_http_era:meta(Message),
            Context = erlmcp_native_http_handle:context(Call, Revision, Session, Meta, Ref),
            Answer = erlmcp_native_http_handle:request(Config, Method, Params, Context),
            ok = erlmcp_native_http_answer:answer(Ref, Answer),
            erlmcp_native_http_tables:end_request();
        error ->
            refuse(200, Id, {?INVALID_PARAMS, <<"Invalid params">>}, Call)
    end.

notification(Revision, Session, Message, #{exchange := Exchange} = Call) ->
    case erlmcp_native_http_message:params(Message) of
        {ok, _} ->
            %% Not before: what has been answered is counted no longer.
            ok = notified(Revision, Session, Message, Call),
            erlmcp_native_http_path:reply(Exchange, 202, [], <<>>);
        error ->
            refuse(400, none, {?INVALID_PARAMS, <<"Invalid params">>}, Call)
    end.

%% @doc Sees to a notification that has been accepted.
-spec notified(
    binary(), none | erlmcp_native_http_tables:session(), map(), call()
) -> ok.
notified(Revision, Session, Message, #{config := Config} = Call) ->
    ok = cancel(Session, Message),
    Meta = erlmcp_native_http_era:meta(Message),
    Context = erlmcp_native_http_handle:context(Call, Revision, Session, Meta, none),
    erlmcp_native_http_handle:notification(Config, Message, Context).

%% A request that is not there has been answered, or never was.
cancel(none, _) ->
    ok;
cancel(#{id := Session}, #{<<"method">> := <<"notifications/cancelled">>} = Message) ->
    case Message of
        #{<<"params">> := #{<<"requestId">> := Id}} when is_integer(Id); is_binary(Id) ->
            Stop = fun(Pid) -> exit(Pid, {shutdown, cancelled}) end,
            lists:foreach(Stop, erlmcp_native_http_tables:requests(Session, {request, Id}));
        #{} ->
            ok
    end;
cancel(_, _) ->
    ok.

%% @doc Passes the client's answer to whoever has asked; a late one is of no use to anybody.
-spec response(none | erlmcp_native_http_tables:session(), map()) -> ok.
response(Session, #{<<"id">> := Id} = Message) when is_binary(Id) ->
    Name = session_id(Session),
    case erlmcp_native_http_tables:question(Id) of
        {ok, {Name, Pid, Ref}} ->
            Pid ! {erlmcp_native_http, {response, Ref, Message}},
            ok;
        _ ->
            ok
    end;
response(_, _) ->
    ok.

session_id(none) -> none;
session_id(#{id := Id}) -> Id.

header(Name, Headers) ->
    case lists:keyfind(Name, 1, Headers) of
        {_, Value} -> Value;
        false -> none
    end.

id(#{<<"id">> := Id}) when is_integer(Id); is_binary(Id) -> Id;
id(_) -> null.
