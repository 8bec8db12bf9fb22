%% An MCP server over its own standard input and output, for official clients to start: the
%% handshake, a few tools, and prints that a client must not see.
-module(stdio_mcp).

-export([main/0]).

main() ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Path = list_to_atom(os:getenv("STDIO_PATH")),
    Options = #{path => Path, active => true, max_frame_bytes => 64 * 1048576},
    spawn(fun() ->
        {ok, Conn} = erlmcp_native:connect(stdio, Options),
        loop(Conn)
    end).

loop(Conn) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            _ = [message(erlmcp_native_json:decode(Frame), Conn) || Frame <- Frames],
            loop(Conn);
        {erlmcp_native, Conn, {down, _, _}} ->
            ok;
        {erlmcp_native, Conn, _} ->
            loop(Conn)
    end.

message({ok, #{<<"id">> := Id, <<"method">> := Method} = Request}, Conn) ->
    io:format("STRAY ~ts~n", [Method]),
    Params = maps:get(<<"params">>, Request, #{}),
    Answer = (answer(Method, Params))#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id},
    ok = erlmcp_native:send(Conn, erlmcp_native_json:encode(Answer), infinity);
message({ok, _}, _) ->
    ok.

answer(<<"initialize">>, #{<<"protocolVersion">> := Version}) ->
    result(#{
        <<"protocolVersion">> => Version,
        <<"capabilities">> => #{<<"tools">> => #{}},
        <<"serverInfo">> => #{<<"name">> => <<"stdio_mcp">>, <<"version">> => <<"1">>}
    });
answer(<<"ping">>, _) ->
    result(#{});
answer(<<"tools/list">>, _) ->
    result(#{<<"tools">> => [tool(<<"echo">>, <<"message">>), tool(<<"pid">>, <<"none">>)]});
answer(<<"tools/call">>, #{<<"name">> := <<"echo">>, <<"arguments">> := #{<<"message">> := M}}) ->
    text(M);
answer(<<"tools/call">>, #{<<"name">> := <<"pid">>}) ->
    text(list_to_binary(os:getpid()));
answer(_, _) ->
    #{<<"error">> => #{<<"code">> => -32601, <<"message">> => <<"Method not found">>}}.

tool(Name, Argument) ->
    #{
        <<"name">> => Name,
        <<"inputSchema">> => #{
            <<"type">> => <<"object">>,
            <<"properties">> => #{Argument => #{<<"type">> => <<"string">>}}
        }
    }.

text(Text) ->
    result(#{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]}).

result(Result) -> #{<<"result">> => Result}.
