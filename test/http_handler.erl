%% @doc An MCP server for tests. Its argument is a process that is told what happens.
-module(http_handler).

-behaviour(erlmcp_native_http_handler).

-export([init_session/2, handle_request/3, handle_notification/3, terminate_session/2]).
-export([input_schema/2]).

-define(INFO, #{<<"name">> => <<"test">>, <<"version">> => <<"1">>}).
-define(CAPABILITIES, #{<<"tools">> => #{}}).

init_session(#{<<"refuse">> := true}, _) -> {error, -32000, <<"Not today">>};
init_session(Params, _) -> {ok, #{client => maps:get(<<"clientInfo">>, Params, none)}}.

handle_request(<<"initialize">>, _, #{revision := Revision}) ->
    {reply, #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => ?CAPABILITIES,
        <<"serverInfo">> => ?INFO
    }};
handle_request(<<"server/discover">>, _, _) ->
    {reply, #{
        <<"supportedVersions">> => [<<"2026-07-28">>],
        <<"capabilities">> => ?CAPABILITIES,
        <<"serverInfo">> => ?INFO
    }};
handle_request(<<"ping">>, _, _) ->
    {reply, #{}};
handle_request(<<"tools/list">>, _, _) ->
    {reply, #{<<"tools">> => [tool(<<"echo">>), tool(<<"region">>)]}};
handle_request(<<"tools/call">>, #{<<"name">> := Name} = Params, Context) ->
    call(Name, maps:get(<<"arguments">>, Params, #{}), Context);
handle_request(<<"subscriptions/listen">>, Params, #{request := Ref, arg := Test}) ->
    ok = erlmcp_native_http:notify(Ref, <<"notifications/subscriptions/acknowledged">>, Params),
    Test ! {listening, Ref},
    noreply;
handle_request(_, _, _) ->
    {error, -32601, <<"Method not found">>}.

handle_notification(Method, Params, #{arg := Test} = Context) ->
    Test ! {notification, Method, Params, Context}.

terminate_session(Id, State) ->
    _ = [Test ! {terminated, Id, State} || Test <- [whereis(http_server_test)], is_pid(Test)].

input_schema(<<"region">>, _) ->
    #{
        <<"type">> => <<"object">>,
        <<"properties">> => #{
            <<"region">> => #{<<"type">> => <<"string">>, <<"x-mcp-header">> => <<"Region">>},
            <<"at">> => #{
                <<"type">> => <<"object">>,
                <<"properties">> => #{
                    <<"x">> => #{<<"type">> => <<"integer">>, <<"x-mcp-header">> => <<"X">>},
                    <<"on">> => #{<<"type">> => <<"boolean">>, <<"x-mcp-header">> => <<"On">>}
                }
            }
        }
    };
input_schema(_, _) ->
    undefined.

tool(Name) ->
    #{<<"name">> => Name, <<"inputSchema">> => #{<<"type">> => <<"object">>}}.

call(<<"echo">>, Arguments, _) ->
    text(Arguments);
call(<<"region">>, _, _) ->
    text(<<"ok">>);
call(<<"name ü"/utf8>>, _, _) ->
    text(<<"ok">>);
call(<<"context">>, _, #{arg := Test} = Context) ->
    Test ! {context, Context},
    text(<<"ok">>);
call(<<"crash">>, _, _) ->
    error(crash);
call(<<"badterm">>, _, _) ->
    {reply, #{<<"x">> => self()}};
call(<<"needs">>, _, _) ->
    {error, -32021, <<"elicitation is needed">>, #{}};
%% Waits in the handler until the test says go on.
call(<<"wait">>, Arguments, #{arg := Test}) ->
    Test ! {waiting, self(), Arguments},
    receive
        {go, Answer} -> text(Answer)
    end;
%% Waits with the request for whoever answers it.
call(<<"later">>, Arguments, #{arg := Test, request := Ref}) ->
    Test ! {later, self(), Ref, Arguments},
    noreply;
call(<<"progress">>, #{<<"n">> := N}, #{request := Ref}) ->
    _ = [
        ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"progress">> => I})
     || I <- lists:seq(1, N)
    ],
    text(<<"done">>);
call(<<"poll">>, _, #{request := Ref, arg := Test}) ->
    ok = erlmcp_native_http:close_stream(Ref),
    Test ! {closed, self()},
    receive
        {go, Answer} -> text(Answer)
    end;
call(<<"ask">>, _, #{request := Ref}) ->
    case erlmcp_native_http:request(Ref, <<"sampling/createMessage">>, #{}, 5000) of
        {ok, Result} -> text(Result);
        {error, Reason} -> text(iolist_to_binary(io_lib:format("~0p", [Reason])))
    end.

text(Text) when is_binary(Text) ->
    {reply, #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]}};
text(Other) ->
    text(erlmcp_native_json:encode(Other)).
