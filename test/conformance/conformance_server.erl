%% @doc The MCP server that the official conformance suites and clients are let loose on. It
%% serves all revisions from one listener, and has what the suites' scenarios ask for.
-module(conformance_server).

-behaviour(erlmcp_native_http_handler).

-export([start/1, start/2, stop/1]).
-export([init_session/2, handle_request/3, handle_notification/3, input_schema/2]).

-define(MODERN, <<"2026-07-28">>).
-define(REVISIONS, [<<"2025-03-26">>, <<"2025-06-18">>, <<"2025-11-25">>, ?MODERN]).
-define(SERVER, #{<<"name">> => <<"erlmcp_native conformance">>, <<"version">> => <<"1.0.0">>}).

%% Results that a client may keep, and must be told for how long.
-define(CACHEABLE, [
    <<"server/discover">>,
    <<"tools/list">>,
    <<"prompts/list">>,
    <<"resources/list">>,
    <<"resources/templates/list">>,
    <<"resources/read">>
]).

%% @doc A server for as long as the calling process lives, and its URL.
start(Options) -> start(#{port => 0}, Options).

start(Endpoint, Options) ->
    {ok, Hub} = conformance_hub:start_link(),
    Arg = #{hub => Hub, key => conformance_hub:key(Hub), served => served()},
    {ok, Listener} = erlmcp_native_http:listen(Endpoint, Options#{handler => {?MODULE, Arg}}),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    Url = lists:flatten(io_lib:format("~s://127.0.0.1:~b/mcp", [scheme(Options), Port])),
    #{listener => Listener, hub => Hub, port => Port, url => Url}.

scheme(#{tls := #{}}) -> "https";
scheme(_) -> "http".

stop(#{listener := Listener, hub := Hub}) ->
    ok = erlmcp_native_http:close(Listener),
    conformance_hub:stop(Hub).

served() ->
    Dir = filename:dirname(proplists:get_value(source, module_info(compile))),
    {ok, Text} = file:read_file(filename:join(Dir, "served.json")),
    {ok, Served} = erlmcp_native_json:decode(Text),
    Served.

init_session(_, _) ->
    {ok, none}.

handle_notification(_, _, _) ->
    ok.

input_schema(Name, #{arg := #{served := #{<<"tools">> := Tools}}}) ->
    case [Schema || #{<<"name">> := N, <<"inputSchema">> := Schema} <- Tools, N =:= Name] of
        [Schema] -> Schema;
        [] -> undefined
    end.

handle_request(Method, Params, #{revision := ?MODERN} = Context) ->
    modern(Method, Params, Context);
handle_request(Method, Params, Context) ->
    legacy(Method, Params, Context).

%% What there is on one side only.
legacy(<<"initialize">>, _, #{revision := Revision}) ->
    {reply, #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => (capabilities())#{<<"logging">> => #{}},
        <<"serverInfo">> => ?SERVER
    }};
legacy(Method, _, _) when
    Method =:= <<"ping">>;
    Method =:= <<"logging/setLevel">>;
    Method =:= <<"resources/subscribe">>;
    Method =:= <<"resources/unsubscribe">>
->
    {reply, #{}};
legacy(Method, Params, Context) ->
    answer(Method, Params, Context).

modern(<<"server/discover">> = Method, _, _) ->
    complete(Method, {reply, #{
        <<"supportedVersions">> => ?REVISIONS,
        <<"capabilities">> => capabilities(),
        <<"_meta">> => #{<<"io.modelcontextprotocol/serverInfo">> => ?SERVER}
    }});
modern(<<"subscriptions/listen">>, Params, Context) ->
    subscribe(maps:get(<<"notifications">>, Params, #{}), Context);
modern(Method, Params, Context) ->
    complete(Method, answer(Method, Params, Context)).

complete(Method, {reply, Result}) ->
    Hints =
        case lists:member(Method, ?CACHEABLE) of
            true -> #{<<"ttlMs">> => 0, <<"cacheScope">> => <<"private">>};
            false -> #{}
        end,
    {reply, maps:merge(Hints#{<<"resultType">> => <<"complete">>}, Result)};
complete(_, Answer) ->
    Answer.

capabilities() ->
    #{
        <<"tools">> => #{<<"listChanged">> => true},
        <<"prompts">> => #{<<"listChanged">> => true},
        <<"resources">> => #{<<"subscribe">> => true},
        <<"completions">> => #{}
    }.

answer(<<"tools/list">>, _, Context) ->
    listed(<<"tools">>, Context);
answer(<<"prompts/list">>, _, Context) ->
    listed(<<"prompts">>, Context);
answer(<<"resources/list">>, _, Context) ->
    listed(<<"resources">>, Context);
answer(<<"resources/templates/list">>, _, Context) ->
    listed(<<"resourceTemplates">>, Context);
answer(<<"tools/call">>, #{<<"name">> := Name} = Params, Context) ->
    conformance_tools:call(Name, Params, Context);
answer(<<"prompts/get">>, #{<<"name">> := Name} = Params, Context) ->
    prompt(Name, Params, Context);
answer(<<"resources/read">>, #{<<"uri">> := Uri}, Context) ->
    resource(Uri, Context);
answer(<<"completion/complete">>, _, _) ->
    {reply, #{<<"completion">> => #{<<"values">> => [<<"test">>], <<"hasMore">> => false}}};
answer(Method, _, _) ->
    {error, -32601, <<"Method not found: ", Method/binary>>}.

listed(Key, #{arg := #{served := Served}}) ->
    {reply, maps:with([Key], Served)}.

prompt(<<"test_prompt_with_arguments">>, #{<<"arguments">> := Arguments}, _) ->
    #{<<"arg1">> := First, <<"arg2">> := Second} = Arguments,
    said([text(["Prompt with arguments: arg1='", First, "', arg2='", Second, "'"])]);
prompt(<<"test_prompt_with_embedded_resource">>, #{<<"arguments">> := Arguments}, _) ->
    Resource = #{
        <<"uri">> => maps:get(<<"resourceUri">>, Arguments),
        <<"mimeType">> => <<"text/plain">>,
        <<"text">> => <<"Embedded resource content for testing.">>
    },
    said([
        #{<<"type">> => <<"resource">>, <<"resource">> => Resource},
        text("Please process the embedded resource above.")
    ]);
prompt(Name, Params, #{arg := #{served := Served}} = Context) ->
    case Served of
        #{<<"promptResults">> := #{Name := Result}} -> {reply, Result};
        #{<<"inputRequests">> := #{Name := _}} -> conformance_input:answer(Name, Params, Context);
        #{} -> {error, -32602, <<"Unknown prompt: ", Name/binary>>}
    end.

said(Contents) ->
    {reply, #{
        <<"messages">> => [#{<<"role">> => <<"user">>, <<"content">> => C} || C <- Contents]
    }}.

text(Text) ->
    #{<<"type">> => <<"text">>, <<"text">> => iolist_to_binary(Text)}.

resource(<<"test://template/", Rest/binary>> = Uri, _) ->
    [Id, <<"data">>] = binary:split(Rest, <<"/">>),
    Data = <<"Data for ID: ", Id/binary>>,
    Text = erlmcp_native_json:encode(#{
        <<"id">> => Id, <<"templateTest">> => true, <<"data">> => Data
    }),
    contents(#{<<"uri">> => Uri, <<"mimeType">> => <<"application/json">>, <<"text">> => Text});
resource(Uri, #{arg := #{served := #{<<"contents">> := Contents}}} = Context) ->
    case {Contents, Context} of
        {#{Uri := Content}, _} -> contents(Content);
        {_, #{revision := ?MODERN}} -> not_found(-32602, Uri);
        {_, _} -> not_found(-32002, Uri)
    end.

contents(Content) ->
    {reply, #{<<"contents">> => [Content]}}.

not_found(Code, Uri) ->
    {error, Code, <<"Resource not found">>, #{<<"uri">> => Uri}}.

%% Until the client has enough of it: its going ends the process.
subscribe(Asked, #{request := Request, arg := #{hub := Hub}}) ->
    Granted = maps:with([<<"toolsListChanged">>, <<"promptsListChanged">>], Asked),
    ok = conformance_hub:listen(Hub, [what(Key) || {Key, true} <- maps:to_list(Granted)]),
    Acknowledged = <<"notifications/subscriptions/acknowledged">>,
    ok = erlmcp_native_http:notify(Request, Acknowledged, #{<<"notifications">> => Granted}),
    notify_changes(Request).

notify_changes(Request) ->
    receive
        {changed, What} ->
            Method = <<"notifications/", (atom_to_binary(What))/binary, "/list_changed">>,
            ok = erlmcp_native_http:notify(Request, Method, #{}),
            notify_changes(Request)
    end.

what(<<"toolsListChanged">>) -> tools;
what(<<"promptsListChanged">>) -> prompts.
