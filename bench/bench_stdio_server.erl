%% @doc The servers that are measured over stdio, each a node of its own: a tool `echo' that is
%% decoded, dispatched and encoded, and one that returns each line as it is.
-module(bench_stdio_server).

-export([main/0, by_jsx/1]).

-define(MIB, 1048576).

%% @doc Serves on the node's standard input and output. Arguments: `nif', `port' or `beam', or
%% `erlmcp05' for the technique of erlmcp 0.5; and `tool' or `line'.
-spec main() -> no_return().
main() ->
    [Kind, What] = [list_to_atom(Arg) || Arg <- init:get_plain_arguments()],
    serve(Kind, answerer(What, Kind)).

answerer(line, _) -> fun(Line) -> Line end;
answerer(tool, erlmcp05) -> fun by_jsx/1;
answerer(tool, _) -> fun native/1.

%% @doc What is sent back for a line.
-spec by_jsx(binary()) -> binary() | none.
by_jsx(Line) ->
    tool(jsx:decode(Line, [return_maps]), fun jsx:encode/1).

native(Line) ->
    {ok, Message} = erlmcp_native_json:decode(Line),
    tool(Message, fun erlmcp_native_json:encode/1).

serve(erlmcp05, Answer) ->
    by_lines(Answer);
serve(Path, Answer) ->
    ok = application:load(erlmcp_native),
    ok = application:set_env(erlmcp_native, path, Path),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    {ok, Conn} = erlmcp_native:connect(stdio, #{
        path => Path,
        active => true,
        max_frame_bytes => 128 * ?MIB,
        max_queue_bytes => 128 * ?MIB
    }),
    receive
        {erlmcp_native, Conn, connected} -> by_frames(Conn, sender(Conn), Answer)
    end.

sender(Conn) ->
    case erlmcp_native:sender(Conn) of
        none -> Conn;
        Sender -> Sender
    end.

by_frames(Conn, Sender, Answer) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            lists:foreach(fun(Frame) -> send(Conn, Sender, Answer(Frame)) end, Frames),
            by_frames(Conn, Sender, Answer);
        {erlmcp_native, Conn, {down, _, _}} ->
            %% The node is stopping.
            receive
            after infinity -> ok
            end
    end.

send(_, _, none) ->
    ok;
send(Conn, Sender, Json) ->
    case erlmcp_native:send(Sender, Json) of
        ok ->
            ok;
        {error, busy} ->
            receive
                {erlmcp_native, Conn, writable} -> send(Conn, Sender, Json)
            end
    end.

%% erlmcp_stdio_server reads and writes so.
by_lines(Answer) ->
    case io:get_line("") of
        eof ->
            halt(0);
        Line ->
            case Answer(list_to_binary(string:trim(Line))) of
                none -> ok;
                Json -> io:format("~s~n", [Json])
            end,
            by_lines(Answer)
    end.

tool(#{<<"id">> := Id, <<"method">> := Method} = Request, Encode) ->
    Params = maps:get(<<"params">>, Request, #{}),
    Encode(#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => result(Method, Params)});
tool(#{<<"method">> := _}, _) ->
    none.

result(<<"initialize">>, #{<<"protocolVersion">> := Revision}) ->
    #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"serverInfo">> => #{<<"name">> => <<"bench">>, <<"version">> => <<"1">>}
    };
result(<<"tools/call">>, #{<<"name">> := <<"echo">>, <<"arguments">> := #{<<"text">> := Text}}) ->
    #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]};
result(<<"tools/call">>, #{<<"name">> := <<"size">>, <<"arguments">> := #{<<"text">> := Text}}) ->
    Size = integer_to_binary(byte_size(Text)),
    #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Size}]};
result(<<"ping">>, _) ->
    #{}.
