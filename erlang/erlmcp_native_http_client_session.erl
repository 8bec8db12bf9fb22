%% @private What a client and its server have agreed on, and what that says of the next message.
%% Pure: the client carries out what is decided here.
%%
%% `new': nothing is agreed on. `initializing': `initialize' was sent and is not answered.
%% `answered': it is, and the session stands but for `notifications/initialized'. `confirming': that
%% was sent. `ready': and has arrived. Servers refuse what overtakes these two messages, and POSTs
%% overtake one another: what is sent meanwhile is held.
-module(erlmcp_native_http_client_session).

-export([new/0, gate/2, sent/2, answered/4, unanswered/1, confirmed/1, lost/1, restart/1]).
-export([headers/3, get_headers/2, delete_headers/1, id/1, is_legacy/1, revision/1, info/1]).
-export([takes_batches/1]).
-export([tools/3]).

-export_type([session/0, phase/0]).

-type phase() :: new | initializing | answered | confirming | ready.
-type origin() :: erlmcp_native_http_client_path:origin().
-type message() :: erlmcp_native_http_client_message:message().

-record(session, {
    phase = new :: phase(),
    %% Sent only to the origin that gave it.
    id = none :: none | {origin(), binary()},
    revision = none :: none | binary(),
    %% The last revision that a message named by itself.
    modern = none :: none | binary(),
    tools = #{} :: erlmcp_native_http_client_mirror:tools(),
    %% What is sent again where a session is lost.
    initialize = none :: none | message(),
    initialized = none :: none | message()
}).

-opaque session() :: #session{}.

-spec new() -> session().
new() ->
    #session{}.

%% @doc Whether a message may be sent now.
-spec gate(message(), session()) -> pass | hold.
gate(#{modern := Modern}, _) when Modern =/= none -> pass;
gate(#{method := <<"initialize">>}, _) -> pass;
gate(#{method := <<"ping">>}, _) -> pass;
gate(#{method := <<"notifications/cancelled">>}, _) -> pass;
gate(#{kind := response}, _) -> pass;
gate(_, #session{phase = Phase}) when Phase =:= initializing; Phase =:= confirming -> hold;
gate(_, _) -> pass.

%% @doc A message is on its way.
-spec sent(message(), session()) -> session().
sent(#{method := <<"initialize">>} = Message, Session) ->
    Session#session{phase = initializing, id = none, revision = none, initialize = Message};
sent(#{method := <<"notifications/initialized">>} = Message, Session) when
    Session#session.phase =:= answered
->
    Session#session{phase = confirming, initialized = Message};
sent(#{modern := Modern}, Session) when Modern =/= none ->
    Session#session{modern = Modern};
sent(_, Session) ->
    Session.

%% @doc `initialize' was answered; a session has an id if the server gave one.
-spec answered(Answer :: map(), [{binary(), binary()}], origin(), session()) -> session().
answered(#{<<"result">> := Result}, Headers, Origin, Session) ->
    Session#session{phase = answered, id = given_id(Headers, Origin), revision = agreed(Result)};
answered(_, _, _, Session) ->
    unanswered(Session).

%% @doc `initialize' failed.
-spec unanswered(session()) -> session().
unanswered(Session) ->
    Session#session{phase = new, id = none, revision = none}.

%% @doc `notifications/initialized' has arrived, or has failed: there is no use in waiting for it.
-spec confirmed(session()) -> session().
confirmed(#session{phase = confirming} = Session) -> Session#session{phase = ready};
confirmed(Session) -> Session.

-spec lost(session()) -> session().
lost(Session) ->
    Session#session{phase = new, id = none, revision = none}.

%% @doc The messages that make a new session of a lost one.
-spec restart(session()) -> {message(), message()} | none.
restart(#session{initialize = none}) ->
    none;
restart(#session{initialize = Initialize, initialized = none}) ->
    {Initialize, erlmcp_native_http_client_message:initialized()};
restart(#session{initialize = Initialize, initialized = Initialized}) ->
    {Initialize, Initialized}.

%% @doc The headers of a POST.
-spec headers(message(), origin(), session()) -> [{binary(), binary()}].
headers(Message, Origin, Session) ->
    [
        {<<"accept">>, <<"application/json, text/event-stream">>},
        {<<"content-type">>, <<"application/json">>}
        | agreed(Message, Origin, Session)
    ].

%% @doc The headers of a GET.
-spec get_headers(origin(), session()) -> [{binary(), binary()}].
get_headers(Origin, Session) ->
    [{<<"accept">>, <<"text/event-stream">>} | legacy(Origin, Session)].

%% @doc The headers that end the session, and where to; `none' if there is nothing to end.
-spec delete_headers(session()) -> {origin(), [{binary(), binary()}]} | none.
delete_headers(#session{id = none}) -> none;
delete_headers(#session{id = {Origin, _}} = Session) -> {Origin, legacy(Origin, Session)}.

-spec id(session()) -> none | binary().
id(#session{id = none}) -> none;
id(#session{id = {_, Id}}) -> Id.

%% @doc Whether `initialize' was answered.
-spec is_legacy(session()) -> boolean().
is_legacy(#session{phase = Phase}) ->
    Phase =:= answered orelse Phase =:= confirming orelse Phase =:= ready.

-spec revision(session()) -> none | binary().
revision(#session{revision = none, modern = Modern}) -> Modern;
revision(#session{revision = Revision}) -> Revision.

%% @doc Whether the revision that was agreed on is the one that has batches.
-spec takes_batches(session()) -> boolean().
takes_batches(#session{revision = Revision}) -> Revision =:= <<"2025-03-26">>.

-spec info(session()) ->
    #{phase := phase(), session := none | binary(), revision := none | binary()}.
info(#session{phase = Phase} = Session) ->
    #{phase => Phase, session => id(Session), revision => revision(Session)}.

%% @doc What the answer to a `tools/list' teaches, and the answer without the tools that are to be
%% refused. `First': it is the first page of the list.
-spec tools(First :: boolean(), Answer :: map(), session()) ->
    {unchanged | {changed, map()}, [Refused], session()}
when
    Refused :: {Name :: term(), erlmcp_native_http_client_mirror:fault()}.
tools(First, #{<<"result">> := #{<<"tools">> := Tools} = Result} = Answer, Session) when
    is_list(Tools)
->
    Known =
        case First of
            true -> #{};
            false -> Session#session.tools
        end,
    {Kept, Refused, Marks} = lists:foldl(fun tool/2, {[], [], Known}, Tools),
    Learnt = Session#session{tools = Marks},
    case Refused of
        [] -> {unchanged, [], Learnt};
        _ ->
            Less = Answer#{<<"result">> := Result#{<<"tools">> := lists:reverse(Kept)}},
            {{changed, Less}, Refused, Learnt}
    end;
tools(_, _, Session) ->
    {unchanged, [], Session}.

tool(Tool, {Kept, Refused, Marks}) ->
    case erlmcp_native_http_client_mirror:tool(Tool) of
        {ok, _, []} -> {[Tool | Kept], Refused, Marks};
        {ok, Name, Found} -> {[Tool | Kept], Refused, Marks#{Name => Found}};
        unnamed -> {[Tool | Kept], Refused, Marks};
        {error, Fault} -> {Kept, [{maps:get(<<"name">>, Tool), Fault} | Refused], Marks}
    end.

agreed(#{modern := Modern, body := Body}, _, #session{tools = Tools}) when Modern =/= none ->
    [{<<"mcp-protocol-version">>, Modern} | erlmcp_native_http_client_mirror:headers(Body, Tools)];
agreed(#{method := <<"initialize">>}, _, _) ->
    [];
agreed(#{method := Method}, _, #session{revision = none, modern = Modern}) when Modern =/= none ->
    %% A notification to a server of 2026-07-28, which need not name a revision.
    [{<<"mcp-protocol-version">>, Modern} | [{<<"mcp-method">>, Method} || Method =/= undefined]];
agreed(_, Origin, Session) ->
    legacy(Origin, Session).

legacy(Origin, #session{id = Id, revision = Revision}) ->
    [{<<"mcp-session-id">>, Value} || {At, Value} <- [Id], At =:= Origin] ++
        [{<<"mcp-protocol-version">>, Revision} || Revision =/= none].

given_id(Headers, Origin) ->
    case lists:keyfind(<<"mcp-session-id">>, 1, Headers) of
        {_, Id} ->
            case re:run(Id, "^[!-~]+$", [{capture, none}, dollar_endonly]) of
                match -> {Origin, Id};
                nomatch -> none
            end;
        false ->
            none
    end.

%% 2024-11-05 and 2025-03-26 have no such header; to send it does no harm.
agreed(#{<<"protocolVersion">> := Revision}) when is_binary(Revision) ->
    case re:run(Revision, "^[!-~]{1,64}$", [{capture, none}, dollar_endonly]) of
        match -> Revision;
        nomatch -> none
    end;
agreed(_) ->
    none.
