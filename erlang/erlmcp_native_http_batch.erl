%% @private Batches of JSON-RPC, which only 2025-03-26 has. Each request is worked on by a process
%% of its own, so that one can be cancelled; the answers go out together.
-module(erlmcp_native_http_batch).

-export([serve/2]).

-define(INVALID_REQUEST, -32600).
-define(INVALID_PARAMS, -32602).
-define(REVISION, <<"2025-03-26">>).

%% Each is a process.
-define(MAX_LENGTH, 100).

-spec serve([term()], erlmcp_native_http_answer:call()) -> term().
serve(Batch, #{request := #{headers := Headers}, config := #{revisions := Revisions}} = Call) ->
    Header = lists:keyfind(<<"mcp-protocol-version">>, 1, Headers),
    case lists:member(?REVISION, Revisions) andalso allowed(Header) andalso session(Call) of
        false -> refuse(400, <<"This protocol revision has no batches">>, Call);
        {ok, ?REVISION, Session} -> checked(check(Batch), Batch, Session, Call);
        {ok, _, _} -> refuse(400, <<"This protocol revision has no batches">>, Call);
        {error, Status, Text} -> refuse(Status, Text, Call)
    end.

allowed({_, Revision}) -> Revision =:= ?REVISION;
allowed(false) -> true.

session(Call) -> erlmcp_native_http_post:session(Call).

refuse(Status, Text, Call) ->
    erlmcp_native_http_post:refuse(Status, null, {?INVALID_REQUEST, Text}, Call).

check([]) ->
    {error, <<"Empty batch">>};
check(Batch) when length(Batch) > ?MAX_LENGTH ->
    {error, <<"Batch too long">>};
check(Batch) ->
    case lists:any(fun is_initialize/1, Batch) of
        true -> {error, <<"initialize must not be part of a batch">>};
        false -> ok
    end.

is_initialize(#{<<"method">> := <<"initialize">>}) -> true;
is_initialize(_) -> false.

checked({error, Text}, _, _, Call) ->
    refuse(400, Text, Call);
checked(ok, Batch, Session, #{config := #{key := Key}, exchange := Exchange} = Call) ->
    ok = erlmcp_native_http_answer:new(Call, legacy, ?REVISION, Session),
    ok = erlmcp_native_http_answer:set_batch(),
    ok = erlmcp_native_http_path:on_exit(Exchange, 202),
    true = erlmcp_native_http_tables:begin_request(self(), id(Session), {request, batch}, Key),
    Serve = fun(Message) -> element(Message, Session, Call) end,
    lists:foreach(Serve, Batch),
    ok = erlmcp_native_http_answer:wait(),
    true = erlmcp_native_http_tables:end_request().

element(Message, Session, #{config := Config} = Call) ->
    case {erlmcp_native_http_message:kind(Message), params(Message)} of
        {{request, Id, Method}, {ok, Params}} ->
            Ref = erlmcp_native_http_answer:add(Id, Method),
            work(Id, Ref, Method, Params, context(Message, Session, Ref, Call), Session, Config);
        {{request, Id, Method}, error} ->
            Ref = erlmcp_native_http_answer:add(Id, Method),
            Error = {error, ?INVALID_PARAMS, <<"Invalid params">>},
            _ = erlmcp_native_http_answer:ask(Ref, {respond, Error}),
            ok;
        {{notification, _}, {ok, _}} ->
            erlmcp_native_http_post:notified(?REVISION, Session, Message, Call);
        {{notification, _}, error} ->
            ok;
        {{response, _}, _} ->
            erlmcp_native_http_post:response(Session, Message);
        {invalid, _} ->
            Json = erlmcp_native_http_message:failure(
                null, ?INVALID_REQUEST, <<"Invalid Request">>
            ),
            erlmcp_native_http_answer:add_done(Json)
    end.

params(#{} = Message) -> erlmcp_native_http_message:params(Message);
params(_) -> error.

context(Message, Session, Ref, Call) ->
    Meta = erlmcp_native_http_era:meta(Message),
    erlmcp_native_http_handle:context(Call, ?REVISION, Session, Meta, Ref).

work(Id, Ref, Method, Params, Context, Session, #{key := Key} = Config) ->
    Work = fun() ->
        Entered = {request, Id},
        true = erlmcp_native_http_tables:begin_request(self(), id(Session), Entered, Key),
        respond(Ref, erlmcp_native_http_handle:request(Config, Method, Params, Context)),
        erlmcp_native_http_tables:end_request()
    end,
    {_, Monitor} = spawn_monitor(Work),
    erlmcp_native_http_answer:add_worker(Monitor, Ref).

respond(_, noreply) ->
    ok;
respond(Ref, Answer) ->
    case erlmcp_native_http_answer:ask(Ref, {respond, Answer}) of
        {error, busy} -> respond(Ref, Answer);
        _ -> ok
    end.

id(none) -> none;
id(#{id := Id}) -> Id.
