%% @doc The tools of the conformance server. What they only have to say is in served.json.
-module(conformance_tools).

-export([call/3]).

-define(CAPABILITIES, <<"io.modelcontextprotocol/clientCapabilities">>).
-define(LOG_LEVEL, <<"io.modelcontextprotocol/logLevel">>).
-define(ANSWER_MS, 10000).

call(Name, Params, #{arg := #{served := Served}} = Context) ->
    Args = maps:get(<<"arguments">>, Params, #{}),
    case Served of
        #{<<"toolResults">> := #{Name := Result}} -> {reply, Result};
        #{<<"elicitations">> := #{Name := Form}} -> elicit(Name, Form, Args, Context);
        #{<<"inputRequests">> := #{Name := _}} -> conformance_input:answer(Name, Params, Context);
        #{} -> run(Name, Args, Context)
    end.

run(<<"echo">>, #{<<"message">> := Text}, _) when is_binary(Text) ->
    text(Text);
run(<<"add">>, #{<<"a">> := A, <<"b">> := B}, _) when is_integer(A), is_integer(B) ->
    text(integer_to_binary(A + B));
run(<<"large">>, #{<<"bytes">> := Size}, _) when is_integer(Size), Size >= 0 ->
    text(binary:copy(<<"x">>, Size));
run(<<"progress">>, #{<<"steps">> := Steps}, Context) when is_integer(Steps) ->
    _ = [progress(Step, Steps, Context) || Step <- lists:seq(1, Steps)],
    text(<<"done">>);
run(<<"sleep">>, #{<<"ms">> := Ms}, #{arg := #{hub := Hub}}) when is_integer(Ms), Ms >= 0 ->
    ok = conformance_hub:running(Hub),
    timer:sleep(Ms),
    text(<<"slept">>);
run(<<"test_tool_with_progress">>, _, Context) ->
    _ = [begin progress(Step, 100, Context), timer:sleep(50) end || Step <- [0, 50, 100]],
    text(<<"done">>);
run(<<"test_tool_with_logging">>, _, Context) ->
    Steps = [<<"started">>, <<"processing data">>, <<"completed">>],
    _ = [begin log(<<"Tool ", Step/binary>>, Context), timer:sleep(50) end || Step <- Steps],
    text(<<"done">>);
run(<<"test_logging_tool">>, _, #{meta := Meta} = Context) ->
    _ = [log(<<"asked for">>, Context) || is_map_key(?LOG_LEVEL, Meta)],
    text(<<"done">>);
run(<<"test_sampling">>, #{<<"prompt">> := Prompt}, #{request := Request}) ->
    Message = #{<<"role">> => <<"user">>, <<"content">> => content(Prompt)},
    Params = #{<<"messages">> => [Message], <<"maxTokens">> => 100},
    Method = <<"sampling/createMessage">>,
    case erlmcp_native_http:request(Request, Method, Params, ?ANSWER_MS) of
        {ok, #{<<"content">> := #{<<"text">> := Text}}} -> text(<<"LLM response: ", Text/binary>>);
        {error, Reason} -> failed(Reason)
    end;
run(<<"test_missing_capability">>, _, #{meta := Meta}) ->
    case Meta of
        #{?CAPABILITIES := #{<<"sampling">> := _}} ->
            text(<<"ok">>);
        #{} ->
            Data = #{<<"requiredCapabilities">> => #{<<"sampling">> => #{}}},
            {error, -32021, <<"Missing required client capability">>, Data}
    end;
run(<<"test_reconnection">>, _, #{request := Request}) ->
    ok = erlmcp_native_http:close_stream(Request),
    timer:sleep(100),
    text(<<"reconnected">>);
run(<<"test_trigger_tool_change">>, _, Context) ->
    changed(tools, Context);
run(<<"test_trigger_prompt_change">>, _, Context) ->
    changed(prompts, Context);
run(Name, _, _) ->
    {error, -32602, <<"Unknown tool or wrong arguments: ", Name/binary>>}.

elicit(Name, Form, Args, #{request := Request}) ->
    Params = maps:merge(Form, maps:with([<<"message">>], Args)),
    case erlmcp_native_http:request(Request, <<"elicitation/create">>, Params, ?ANSWER_MS) of
        {ok, #{<<"action">> := Action} = Answer} ->
            Json = erlmcp_native_json:encode(maps:get(<<"content">>, Answer, #{})),
            text([said(Name), "action=", Action, ", content=", Json]);
        {error, Reason} ->
            failed(Reason)
    end.

said(<<"test_elicitation">>) -> "User response: ";
said(_) -> "Elicitation completed: ".

progress(Step, Total, #{request := Request, meta := #{<<"progressToken">> := Token}}) ->
    Params = #{<<"progressToken">> => Token, <<"progress">> => Step, <<"total">> => Total},
    ok = erlmcp_native_http:notify(Request, <<"notifications/progress">>, Params);
progress(_, _, _) ->
    ok.

log(Text, #{request := Request}) ->
    Params = #{<<"level">> => <<"info">>, <<"data">> => Text},
    ok = erlmcp_native_http:notify(Request, <<"notifications/message">>, Params).

%% A session is told on its own stream, subscriptions are told by their requests.
changed(What, #{session := none, arg := #{hub := Hub}}) ->
    ok = conformance_hub:change(Hub, What),
    text(<<"changed">>);
changed(What, #{session := Session}) ->
    Method = <<"notifications/", (atom_to_binary(What))/binary, "/list_changed">>,
    ok = erlmcp_native_http:send(Session, Method, #{}),
    text(<<"changed">>).

failed(Reason) ->
    {reply, Result} = text(io_lib:format("~p", [Reason])),
    {reply, Result#{<<"isError">> => true}}.

text(Text) ->
    {reply, #{<<"content">> => [content(iolist_to_binary(Text))]}}.

content(Text) ->
    #{<<"type">> => <<"text">>, <<"text">> => Text}.
