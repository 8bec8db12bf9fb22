%% @doc The server that the analyses call: `initialize', `ping', `tools/list' and the tools `echo',
%% which returns its text, and `size', which returns the length of it. Over stdio it is a program
%% that any node with this library can start:
%%
%% ```
%% erl -noinput -pa .../erlmcp_native/ebin -s erlmcp_native_analysis_echo
%% '''
%%
%% The application setting `path' (`-erlmcp_native path beam') chooses the path.
-module(erlmcp_native_analysis_echo).

-behaviour(erlmcp_native_http_handler).

-export([start/0, answer/2, result/2, handle_request/3]).

-define(MAX_BYTES, 67108864).
-define(CONNECT_MS, 30000).

%% @doc Serves on the node's standard input and output until they end, and the node with them.
-spec start() -> ok.
start() ->
    _ = spawn(fun serve/0),
    ok.

serve() ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Options = #{
        decode => json, max_frame_bytes => ?MAX_BYTES, max_queue_bytes => ?MAX_BYTES
    },
    {ok, Events, Conn} = erlmcp_native_analysis_link:dial(stdio, default, Options, ?CONNECT_MS),
    events(Events, Conn).

loop(Conn) ->
    receive
        Msg ->
            case erlmcp_native_analysis_link:handle_info(Msg, Conn) of
                {Events, Next} -> events(Events, Next);
                unknown -> loop(Conn)
            end
    end.

events([], Conn) ->
    loop(Conn);
events([{items, Items} | Events], Conn) ->
    events(Events, lists:foldl(fun reply/2, Conn, Items));
events([{down, _} | _], Conn) ->
    ok = erlmcp_native_analysis_link:close(Conn),
    %% The node is stopping.
    receive
    after infinity -> ok
    end;
events([_ | Events], Conn) ->
    events(Events, Conn).

reply(Item, Conn) ->
    case answer(Item, default) of
        none -> Conn;
        Json -> erlmcp_native_analysis_link:queue(Json, Conn)
    end.

%% @doc The answer to what has arrived, encoded as the path does it; `none' to what wants none.
-spec answer(erlmcp_native_path:item(), erlmcp_native_path:path() | default) -> iodata() | none.
answer({json, Batch}, Path) when is_list(Batch) ->
    case [Answer || Request <- Batch, Answer <- [response(Request)], Answer =/= none] of
        [] -> none;
        Answers -> encode(Answers, Path)
    end;
answer({json, Request}, Path) ->
    case response(Request) of
        none -> none;
        Answer -> encode(Answer, Path)
    end;
answer(_, _) ->
    none.

response(#{<<"id">> := Id, <<"method">> := Method} = Request) ->
    Answer = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id},
    case result(Method, maps:get(<<"params">>, Request, #{})) of
        {reply, Result} ->
            Answer#{<<"result">> => Result};
        {error, Code, Why} ->
            Answer#{<<"error">> => #{<<"code">> => Code, <<"message">> => Why}}
    end;
response(_) ->
    none.

encode(Term, default) -> erlmcp_native_json:encode(Term);
encode(Term, Path) -> erlmcp_native_json:encode(Term, #{path => Path}).

%% @private
-spec handle_request(binary(), map(), erlmcp_native_http_handler:context()) ->
    erlmcp_native_http_handler:answer().
handle_request(Method, Params, _) ->
    result(Method, Params).

%% @doc What a method gives.
-spec result(binary(), map()) -> {reply, map()} | {error, integer(), binary()}.
result(<<"tools/call">>, #{<<"name">> := <<"echo">>, <<"arguments">> := #{<<"text">> := Text}}) ->
    content(Text);
result(<<"tools/call">>, #{<<"name">> := <<"size">>, <<"arguments">> := #{<<"text">> := Text}}) ->
    content(integer_to_binary(byte_size(Text)));
result(<<"ping">>, _) ->
    {reply, #{}};
result(<<"initialize">>, Params) ->
    {reply, #{
        <<"protocolVersion">> => maps:get(<<"protocolVersion">>, Params, <<"2025-06-18">>),
        <<"capabilities">> => #{<<"tools">> => #{}},
        <<"serverInfo">> => #{<<"name">> => <<"erlmcp_native_echo">>, <<"version">> => <<"1">>}
    }};
result(<<"tools/list">>, _) ->
    {reply, #{<<"tools">> => [tool(<<"echo">>), tool(<<"size">>)]}};
result(_, _) ->
    {error, -32601, <<"Method not found">>}.

content(Text) ->
    {reply, #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]}}.

tool(Name) ->
    #{
        <<"name">> => Name,
        <<"inputSchema">> => #{
            <<"type">> => <<"object">>,
            <<"properties">> => #{<<"text">> => #{<<"type">> => <<"string">>}},
            <<"required">> => [<<"text">>]
        }
    }.
