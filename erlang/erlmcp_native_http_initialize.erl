%% @private The request that begins a session, or where sessions are off nothing but an exchange of
%% what both sides can do.
-module(erlmcp_native_http_initialize).

-export([serve/3, id/0, too_many/2]).

-define(INTERNAL_ERROR, -32603).

-spec serve(integer() | binary(), map(), erlmcp_native_http_answer:call()) -> term().
serve(Id, Params, #{config := #{sessions := true} = Config, principal := Principal} = Call) ->
    #{revisions := Revisions} = Config,
    Start = #{
        config => Config,
        id => id(),
        principal => Principal,
        revision => erlmcp_native_http_era:negotiate(Params, Revisions),
        state => undefined
    },
    case erlmcp_native_http_session:new(Start) of
        {ok, Session} -> in_session(Id, Params, Session, Call);
        {error, too_many} -> too_many(Id, Call)
    end;
serve(Id, Params, #{config := #{revisions := Revisions}} = Call) ->
    Revision = erlmcp_native_http_era:negotiate(Params, Revisions),
    handle(Id, Params, Revision, none, Call).

%% @doc An id that nobody guesses.
-spec id() -> binary().
id() ->
    Text = base64:encode(crypto:strong_rand_bytes(24)),
    binary:replace(binary:replace(Text, <<"+">>, <<"-">>, [global]), <<"/">>, <<"_">>, [global]).

in_session(Id, Params, #{revision := Revision, id := Name, pid := Pid} = Session, Call) ->
    #{config := Config} = Call,
    Meta = erlmcp_native_http_era:meta(#{<<"params">> => Params}),
    Context = erlmcp_native_http_handle:context(Call, Revision, Session, Meta, none),
    case erlmcp_native_http_handle:init_session(Config, Params, Context) of
        {ok, State} ->
            _ = State =/= undefined andalso erlmcp_native_http_session:update(Pid, Revision, State),
            Headers = [{<<"mcp-session-id">>, Name}],
            case handle(Id, Params, Revision, Session#{state := State}, Call, Headers) of
                failed -> erlmcp_native_http_session:close(Pid);
                ok -> ok
            end;
        {error, Code, Text} ->
            _ = erlmcp_native_http_session:close(Pid),
            erlmcp_native_http_post:refuse(200, Id, {Code, Text}, Call)
    end.

handle(Id, Params, Revision, Session, Call) ->
    handle(Id, Params, Revision, Session, Call, []).

handle(Id, Params, Revision, Session, #{config := Config} = Call, Headers) ->
    ok = erlmcp_native_http_answer:new(Call, legacy, Revision, Session),
    ok = erlmcp_native_http_answer:set_headers(Headers),
    Ref = erlmcp_native_http_answer:add(Id, <<"initialize">>),
    Meta = erlmcp_native_http_era:meta(#{<<"params">> => Params}),
    Context = erlmcp_native_http_handle:context(Call, Revision, Session, Meta, Ref),
    case erlmcp_native_http_handle:request(Config, <<"initialize">>, Params, Context) of
        {reply, Result} ->
            Agreed = agree(Result, Revision, Session, Config),
            erlmcp_native_http_answer:answer(Ref, {reply, Agreed});
        noreply ->
            erlmcp_native_http_answer:answer(Ref, noreply);
        Error ->
            ok = erlmcp_native_http_answer:set_headers([]),
            ok = erlmcp_native_http_answer:answer(Ref, Error),
            failed
    end.

%% Names may be atoms.
agree(#{protocolVersion := Version} = Result, Revision, Session, Config) ->
    Named = (maps:remove(protocolVersion, Result))#{<<"protocolVersion">> => Version},
    agree(Named, Revision, Session, Config);
%% A server may insist on another revision, if it is one that is served.
agree(#{<<"protocolVersion">> := Revision} = Result, Revision, _, _) ->
    Result;
agree(Result, Revision, Session, #{revisions := Revisions}) ->
    Other = maps:get(<<"protocolVersion">>, Result, none),
    case lists:member(Other, erlmcp_native_http_config:legacy(Revisions)) of
        true -> insisted(Other, Session, Result);
        false -> Result#{<<"protocolVersion">> => Revision}
    end.

insisted(Revision, #{pid := Pid, state := State}, Result) ->
    _ = erlmcp_native_http_session:update(Pid, Revision, State),
    Result;
insisted(_, none, Result) ->
    Result.

%% @doc Refuses what would be one session too many.
-spec too_many(integer() | binary() | none, erlmcp_native_http_answer:call()) ->
    ok | {error, closed}.
too_many(Id, #{exchange := Exchange}) ->
    Body = erlmcp_native_http_message:failure(Id, ?INTERNAL_ERROR, <<"Too many sessions">>),
    Headers = [{<<"content-type">>, <<"application/json">>}, {<<"retry-after">>, <<"10">>}],
    erlmcp_native_http_path:reply(Exchange, 503, Headers, Body).
