%% An MCP server of a few lines, by TCP, HTTP and stdio: tools `echo' and `add', a resource of 1 MB.
%% Each TCP connection is a process that owns its link, so a request costs no message between
%% processes.
-module(demo_server).

-behaviour(erlmcp_native_http_handler).

-export([start/3, start_connection/0, handle_request/3, stdio/0]).

-define(RESOURCE_BYTES, 1048576).

%% @doc Listens on a free port of 127.0.0.1, on the path named; how to stop, and the port. For stdio
%% it is the client that starts the server: how.
start(stdio, Path, false) ->
    Dirs = lists:append([Given || {pa, Given} <- init:get_arguments()]),
    Args = ["-noinput", "-pa"] ++ Dirs ++ ["-s", atom_to_list(?MODULE), "stdio"],
    {fun() -> ok end, #{command => "erl", args => Args ++ ["-extra", atom_to_list(Path)]}};
start(http, Path, Tls) ->
    {ok, Listener} = erlmcp_native_http:listen(#{port => 0}, #{
        path => Path, tls => Tls, handler => {?MODULE, none}
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    {fun() -> erlmcp_native_http:close(Listener) end, Port};
start(tcp, Path, Tls) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{
        path => Path, tls => Tls, handler => {?MODULE, start_connection, []}
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    {fun() -> erlmcp_native:close(Listener) end, Port}.

%% @doc A request that came by HTTP.
handle_request(Method, Params, _) ->
    case handle(Method, Params) of
        #{<<"result">> := Result} -> {reply, Result};
        #{<<"error">> := #{<<"code">> := Code, <<"message">> := Text}} -> {error, Code, Text}
    end.

start_connection() ->
    {ok, proc_lib:spawn(fun() ->
        receive
            {erlmcp_native_socket, Module, Socket} ->
                {Events, Link} = erlmcp_native_link:adopt(Module, Socket),
                events(Events, Link)
        end
    end)}.

%% @doc Serves on this node's own standard input and output. The node stops when its input ends.
stdio() ->
    [Path] = init:get_plain_arguments(),
    ok = application:load(erlmcp_native),
    ok = application:set_env(erlmcp_native, path, list_to_atom(Path)),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    {ok, Conn} = erlmcp_native:connect(stdio, #{active => true}),
    messages(Conn).

messages(Conn) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            Send = fun(Text) -> ok = erlmcp_native:send(Conn, Text) end,
            _ = [Send(Text) || Frame <- Frames, Text <- answer(Frame)],
            messages(Conn);
        {erlmcp_native, Conn, {down, _, final}} ->
            ok;
        {erlmcp_native, Conn, _} ->
            messages(Conn)
    end.

loop(Link) ->
    receive
        Msg ->
            case erlmcp_native_link:handle_info(Msg, Link) of
                {Events, Next} -> events(Events, Next);
                unknown -> loop(Link)
            end
    end.

events([], Link) -> loop(Link);
events([readable | Rest], Link) -> read(Rest, Link);
events([{down, _, final} | _], _) -> ok;
events([_ | Rest], Link) -> events(Rest, Link).

read(Rest, Link) ->
    {Frames, Status, Taken} = erlmcp_native_link:take(Link, 100, 1048576),
    Answered = lists:foldl(fun reply/2, Taken, [Text || Frame <- Frames, Text <- answer(Frame)]),
    case Status of
        more -> read(Rest, Answered);
        again -> read(Rest, Answered);
        empty -> events(Rest, Answered);
        {down, _, final} -> ok
    end.

%% What a message is answered with, if with anything.
answer(Frame) ->
    case erlmcp_native_json:decode(Frame) of
        {ok, #{<<"id">> := Id, <<"method">> := Method} = Request} ->
            Outcome = handle(Method, maps:get(<<"params">>, Request, #{})),
            [encode(Id, Outcome)];
        {ok, _} ->
            [];
        {error, _} ->
            Error = #{<<"code">> => -32700, <<"message">> => <<"Parse error">>},
            [encode(null, #{<<"error">> => Error})]
    end.

encode(Id, Outcome) ->
    erlmcp_native_json:encode(Outcome#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id}).

reply(Text, Link) ->
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
