%% An MCP server of a few lines: tools `echo' and `add', a resource of 1 MB. Each connection is a
%% process that owns its link, so a request costs no message between processes.
-module(demo_server).

-export([start/2, start_connection/1]).

-define(RESOURCE_BYTES, 1048576).

%% @doc Listens on a free port of 127.0.0.1, on the path named.
start(Path, Tls) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{
        path => Path, tls => Tls, handler => {?MODULE, start_connection, [Path]}
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    {Listener, Port}.

start_connection(Path) ->
    {ok, proc_lib:spawn(fun() ->
        receive
            {erlmcp_native_socket, Module, Socket} ->
                {Events, Link} = erlmcp_native_link:adopt(Module, Socket),
                events(Events, Link, Path)
        end
    end)}.

loop(Link, Path) ->
    receive
        Msg ->
            case erlmcp_native_link:handle_info(Msg, Link) of
                {Events, Next} -> events(Events, Next, Path);
                unknown -> loop(Link, Path)
            end
    end.

events([], Link, Path) -> loop(Link, Path);
events([readable | Rest], Link, Path) -> read(Rest, Link, Path);
events([{down, _, final} | _], _, _) -> ok;
events([_ | Rest], Link, Path) -> events(Rest, Link, Path).

read(Rest, Link, Path) ->
    {Frames, Status, Taken} = erlmcp_native_link:take(Link, 100, 1048576),
    Answered = lists:foldl(fun(Frame, Acc) -> answer(Frame, Acc, Path) end, Taken, Frames),
    case Status of
        more -> read(Rest, Answered, Path);
        empty -> events(Rest, Answered, Path);
        {down, _, final} -> ok
    end.

answer(Frame, Link, Path) ->
    case erlmcp_native_json:decode(Frame, #{path => Path}) of
        {ok, #{<<"id">> := Id, <<"method">> := Method} = Request} ->
            Outcome = handle(Method, maps:get(<<"params">>, Request, #{})),
            reply(Outcome#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id}, Link, Path);
        {ok, _} ->
            Link;
        {error, _} ->
            Error = #{<<"code">> => -32700, <<"message">> => <<"Parse error">>},
            Answer = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => null, <<"error">> => Error},
            reply(Answer, Link, Path)
    end.

reply(Answer, Link, Path) ->
    {ok, Text} = erlmcp_native_json:encode(Answer, #{path => Path}),
    {ok, Sent} = erlmcp_native_link:send(Text, Link),
    Sent.

handle(<<"initialize">>, _) ->
    result(#{
        <<"protocolVersion">> => <<"2025-06-18">>,
        <<"capabilities">> => #{<<"tools">> => #{}, <<"resources">> => #{}},
        <<"serverInfo">> => #{<<"name">> => <<"demo">>, <<"version">> => <<"1.0.0">>}
    });
handle(<<"ping">>, _) ->
    result(#{});
handle(<<"tools/list">>, _) ->
    Tool = fun(Name, Properties) ->
        #{
            <<"name">> => Name,
            <<"inputSchema">> => #{<<"type">> => <<"object">>, <<"properties">> => Properties}
        }
    end,
    Number = #{<<"type">> => <<"number">>},
    result(#{
        <<"tools">> => [
            Tool(<<"echo">>, #{<<"text">> => #{<<"type">> => <<"string">>}}),
            Tool(<<"add">>, #{<<"a">> => Number, <<"b">> => Number})
        ]
    });
handle(<<"tools/call">>, #{<<"name">> := Name, <<"arguments">> := Arguments}) ->
    call(Name, Arguments);
handle(<<"resources/list">>, _) ->
    result(#{<<"resources">> => [#{<<"uri">> => <<"demo://large">>, <<"name">> => <<"large">>}]});
handle(<<"resources/read">>, #{<<"uri">> := <<"demo://large">> = Uri}) ->
    Text = binary:copy(<<"0123456789abcdef">>, ?RESOURCE_BYTES div 16),
    result(#{<<"contents">> => [#{<<"uri">> => Uri, <<"text">> => Text}]});
handle(_, _) ->
    #{<<"error">> => #{<<"code">> => -32601, <<"message">> => <<"Method not found">>}}.

call(<<"echo">>, #{<<"text">> := Text}) ->
    text(Text);
call(<<"add">>, #{<<"a">> := A, <<"b">> := B}) when is_number(A), is_number(B) ->
    text(list_to_binary(io_lib:format("~p", [A + B])));
call(_, _) ->
    #{<<"error">> => #{<<"code">> => -32602, <<"message">> => <<"Invalid params">>}}.

result(Result) ->
    #{<<"result">> => Result}.

text(Text) ->
    result(#{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]}).
