%% @private HTTP+SSE of 2024-11-05: a stream that is opened with GET and is the session, and a
%% second path for what the client sends. Everything that goes to the client goes on the stream.
-module(erlmcp_native_http_legacy_sse).

-export([serve/1]).

-define(REVISION, <<"2024-11-05">>).
-define(PARSE_ERROR, -32700).
-define(INVALID_REQUEST, -32600).
-define(INVALID_PARAMS, -32602).
-define(INTERNAL_ERROR, -32603).

%% Of a session, at a time.
-define(MAX_REQUESTS, 1000).

%% @doc Serves a request to one of the two paths.
-spec serve(erlmcp_native_http_answer:call()) -> term().
serve(#{request := #{path := Path, method := Method}, config := #{http_sse := Paths}} = Call) ->
    case {Paths, Method} of
        {#{sse := Path}, <<"GET">>} -> open(Call);
        {#{messages := Path}, <<"POST">>} -> erlmcp_native_http_endpoint:body(Call, fun posted/2);
        {#{sse := Path}, _} -> not_allowed(<<"GET">>, Call);
        {#{messages := Path}, _} -> not_allowed(<<"POST">>, Call)
    end.

not_allowed(Allowed, #{exchange := Exchange}) ->
    erlmcp_native_http_path:reply(Exchange, 405, [{<<"allow">>, Allowed}], <<>>).

open(#{config := Config, principal := Principal} = Call) ->
    Start = #{
        config => Config,
        id => erlmcp_native_http_initialize:id(),
        principal => Principal,
        revision => ?REVISION,
        state => undefined,
        bound => self()
    },
    case erlmcp_native_http_session:new(Start) of
        {ok, Session} -> run(Session, Call);
        {error, too_many} -> erlmcp_native_http_initialize:too_many(none, Call)
    end.

run(#{id := Id, pid := Pid}, #{config := Config, exchange := Exchange}) ->
    #{key := Key, http_sse := #{messages := Path}} = Config,
    case erlmcp_native_http_session:listen(Pid) of
        {ok, _} ->
            true = erlmcp_native_http_tables:begin_request(self(), Id, stream, Key),
            Endpoint = #{event => <<"endpoint">>, data => [Path, <<"?sessionId=">>, Id]},
            erlmcp_native_http_stream:run([Endpoint], live, Exchange, Config);
        gone ->
            ok
    end.

posted(#{request := #{query := Query}, principal := Principal} = Call, Body) ->
    #{config := #{key := Key}} = Call,
    case erlmcp_native_http_tables:session(session_id(Query)) of
        {ok, #{key := Key, principal := Principal, bound := true} = Session} ->
            decoded(erlmcp_native_json:decode(Body), Session, Call);
        _ ->
            refuse(404, ?INVALID_REQUEST, <<"Session not found">>, Call)
    end.

session_id(Query) ->
    case uri_string:dissect_query(Query) of
        Pairs when is_list(Pairs) -> proplists:get_value(<<"sessionId">>, Pairs, <<>>);
        {error, _, _} -> <<>>
    end.

refuse(Status, Code, Text, Call) ->
    erlmcp_native_http_post:refuse(Status, null, {Code, Text}, Call).

decoded({error, _}, _, Call) ->
    refuse(400, ?PARSE_ERROR, <<"Parse error">>, Call);
decoded({ok, Message}, Session, #{exchange := Exchange} = Call) ->
    case erlmcp_native_http_message:kind(Message) of
        invalid ->
            refuse(400, ?INVALID_REQUEST, <<"Invalid Request">>, Call);
        Kind ->
            case is_room(Session) of
                true ->
                    _ = erlmcp_native_http_path:reply(Exchange, 202, [], <<"Accepted">>),
                    accepted(Kind, Message, Session, Call);
                false ->
                    refuse(503, ?INTERNAL_ERROR, <<"Too many requests">>, Call)
            end
    end.

%% What has been accepted is counted nowhere else.
is_room(#{id := Id}) ->
    length(erlmcp_native_http_tables:requests(Id, requests)) < ?MAX_REQUESTS.

accepted({response, _}, Message, Session, _) ->
    erlmcp_native_http_post:response(Session, Message);
accepted({notification, _}, Message, #{revision := Revision} = Session, Call) ->
    erlmcp_native_http_post:notified(Revision, Session, Message, Call);
accepted({request, Id, Method}, Message, #{id := Name} = Session, Call) ->
    #{config := #{key := Key}} = Call,
    true = erlmcp_native_http_tables:begin_request(self(), Name, {request, Id}, Key),
    case erlmcp_native_http_message:params(Message) of
        {ok, Params} -> request(Id, Method, Params, Message, Session, Call);
        error -> answer(Id, Method, {error, ?INVALID_PARAMS, <<"Invalid params">>}, Session, Call)
    end,
    erlmcp_native_http_tables:end_request().

request(Id, <<"initialize">> = Method, Params, Message, Session, #{config := Config} = Call) ->
    #{pid := Pid} = Session,
    #{revisions := Revisions} = Config,
    Revision = erlmcp_native_http_era:negotiate(Params, [?REVISION | Revisions]),
    Context = context(Revision, Session, Message, none, Call),
    case erlmcp_native_http_handle:init_session(Config, Params, Context) of
        {ok, State} ->
            _ = erlmcp_native_http_session:update(Pid, Revision, State),
            Begun = Session#{revision := Revision, state := State},
            handle(Id, Method, Params, Message, Begun, Call);
        Error ->
            answer(Id, Method, Error, Session, Call)
    end;
request(Id, Method, Params, Message, Session, Call) ->
    handle(Id, Method, Params, Message, Session, Call).

handle(Id, Method, Params, Message, #{revision := Revision} = Session, Call) ->
    #{config := Config} = Call,
    Ref = begin_answer(Id, Method, Session, Call),
    Context = context(Revision, Session, Message, Ref, Call),
    Answer = erlmcp_native_http_handle:request(Config, Method, Params, Context),
    erlmcp_native_http_answer:answer(Ref, Answer).

answer(Id, Method, Answer, Session, Call) ->
    erlmcp_native_http_answer:answer(begin_answer(Id, Method, Session, Call), Answer).

begin_answer(Id, Method, #{revision := Revision} = Session, Call) ->
    ok = erlmcp_native_http_answer:new(Call, legacy, Revision, Session),
    ok = erlmcp_native_http_answer:set_elsewhere(),
    erlmcp_native_http_answer:add(Id, Method).

context(Revision, Session, Message, Ref, Call) ->
    Meta = erlmcp_native_http_era:meta(Message),
    erlmcp_native_http_handle:context(Call, Revision, Session, Meta, Ref).
