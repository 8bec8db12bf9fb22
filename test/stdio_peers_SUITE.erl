%% @doc Official MCP clients that start our server over stdio: the handshake, tools, text of every
%% plane, 10 MB both ways, and the end, after which no process is left. What the clients do is in
%% test/mcp_peers/.
-module(stdio_peers_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{nif, cases()}, {port, cases()}, {beam, cases()}].

cases() ->
    [sdk_client, python_1_client, python_2_client, fastmcp_client, inspector].

init_per_suite(Config) -> mcp_programs:init_per_suite(Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

sdk_client(Config) ->
    client(mcp_programs:node_args([mcp_programs:source("mcp_peers/stdio_client.mjs")]), Config).

python_1_client(Config) -> python_client("mcp1", Config).

python_2_client(Config) -> python_client("mcp2", Config).

fastmcp_client(Config) -> python_client("fastmcp", Config).

python_client(Environment, Config) ->
    Python = mcp_programs:path(Environment ++ "/bin/python"),
    client([Python, mcp_programs:source("mcp_peers/stdio_client.py"), Environment], Config).

client(CommandLine, Config) ->
    Client = mcp_programs:start(CommandLine ++ [server(Config)], []),
    _ = [mcp_programs:step(Client, Step) || Step <- [<<"initialize">>, <<"list">>]],
    #{<<"pid">> := Pid} = mcp_programs:step(Client, <<"call">>),
    _ = mcp_programs:step(Client, <<"large">>),
    %% They give it 2 s before they send a signal.
    #{<<"ms">> := Ms} = mcp_programs:step(Client, <<"closed">>),
    ?assert(Ms < 2000),
    receive
        {Client, {exit_status, Status}} -> ?assertEqual(0, Status)
    end,
    ?assertNot(is_alive(Pid)).

inspector(Config) ->
    Listed = inspect(["tools/list"], Config),
    ?assertMatch(#{<<"tools">> := [#{<<"name">> := <<"echo">>} | _]}, Listed),
    Text = <<"Gr\x{fc}\x{df}e \x{1f600}"/utf8>>,
    Echo = ["tools/call", "--tool-name", "echo", "--tool-arg", <<"message=", Text/binary>>],
    ?assertMatch(#{<<"content">> := [#{<<"text">> := Text}]}, inspect(Echo, Config)),
    #{<<"content">> := [#{<<"text">> := Pid}]} =
        inspect(["tools/call", "--tool-name", "pid"], Config),
    ?assertNot(is_alive(Pid)).

%% It lets the server's standard error through to its own.
inspect(Method, Config) ->
    Script = mcp_programs:path(
        "node/node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js"
    ),
    CommandLine = mcp_programs:node_args([Script, "--cli", server(Config), "--method" | Method]),
    Quiet = ["/bin/sh", "-c", "exec \"$@\" 2>/dev/null", "sh"],
    {0, Said} = mcp_programs:run(Quiet ++ CommandLine, [], 60000),
    {ok, Answer} = erlmcp_native_json:decode(iolist_to_binary(Said)),
    Answer.

is_alive(Pid) ->
    os:cmd("kill -0 " ++ binary_to_list(Pid) ++ " 2>/dev/null && echo alive") =/= "".

%% One word, and nothing of the environment: clients are particular about both.
server(Config) ->
    File = filename:absname(filename:join(?config(priv_dir, Config), "server")),
    Folders = [filename:dirname(code:which(Module)) || Module <- [erlmcp_native, ?MODULE, jsx],
        is_list(code:which(Module))],
    Script = io_lib:format(
        "#!/bin/sh~nSTDIO_PATH=~s exec ~s -noinput -pa~s -s stdio_mcp main~n",
        [
            ?config(path, Config),
            os:find_executable("erl"),
            [[" ", filename:absname(Folder)] || Folder <- Folders]
        ]
    ),
    ok = file:write_file(File, Script),
    ok = file:change_mode(File, 8#755),
    File.
