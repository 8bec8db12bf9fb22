%% @doc The MCP programs of others that test/mcp_peers.sh installs, run as processes of the system.
-module(mcp_programs).

-export([init_per_suite/1, path/1, source/1, node_args/1, load/1, use/1]).
-export([start/2, serve/2, say/1, step/2, stop/1, run/3, await_port/1]).

-define(STEP_MS, 60000).

%% @doc Starts the application for a suite that runs them, which is skipped where one is missing.
init_per_suite(Config) ->
    Needed = ["node/node_modules", "mcp1/bin/python", "mcp2/bin/python", "fastmcp/bin/python",
        "rmcp/release/rmcp_server"],
    case [File || File <- Needed, not filelib:is_file(path(File))] of
        [] ->
            test_config:start([erlmcp_native], Config);
        Missing ->
            Files = lists:append(lists:join(" ", Missing)),
            {skip, "not in _build/mcp_peers (see test/mcp_peers.sh): " ++ Files}
    end.

%% @doc A file below _build/mcp_peers.
path(File) ->
    filename:join([root(), "_build/mcp_peers", File]).

%% @doc A file below test/.
source(File) ->
    filename:join([root(), "test", File]).

root() ->
    filename:join(code:lib_dir(erlmcp_native), "../../../..").

%% @doc A command line of Node: the one of the npm package, whatever this machine has.
node_args([Script | Args]) ->
    [Binary | _] = filelib:wildcard(path("node/node_modules/node-linux-*/bin/node")),
    [Binary, Script | Args].

%% @doc Compiles and loads the modules of a folder below test/, which are on no path.
load(Folder) ->
    [load_file(File) || File <- filelib:wildcard(filename:join(source(Folder), "*.erl"))].

load_file(File) ->
    {ok, Module, Code} = compile:file(File, [binary, debug_info, return_errors]),
    {module, Module} = code:load_binary(Module, File, Code),
    Module.

%% @doc Makes a path the node's: `{error, _}' where it cannot be used.
use(Path) ->
    case erlmcp_native_http_path:use(Path) of
        {ok, Module} -> code:ensure_loaded(Module);
        {error, _} = Error -> Error
    end.

%% @doc Starts a program that ends with its standard input, or by itself.
start([Command | Args], Env) ->
    Ours = [{"MCP_PEERS_NODE", filename:absname(path("node"))}, {"PYTHONUNBUFFERED", "1"}],
    open_port({spawn_executable, Command}, [
        {args, Args},
        {env, Ours ++ Env},
        {line, 65536},
        binary,
        exit_status,
        use_stdio,
        stderr_to_stdout
    ]).

%% @doc Starts a program that does not heed its standard input, and ends it with the port.
serve(CommandLine, Env) ->
    Script = "\"$@\" </dev/null & pid=$!; cat >/dev/null; kill -9 $pid; wait",
    start(["/bin/sh", "-c", Script, "sh" | CommandLine], Env).

%% @doc Lets a program that waits go on.
say(Port) ->
    true = port_command(Port, "\n"),
    ok.

%% @doc Waits for a step of a program that tells of its steps, and says what it told of others.
step(Port, Wanted) ->
    receive
        {Port, {data, {_, Line}}} ->
            case erlmcp_native_json:decode(Line) of
                {ok, #{<<"step">> := Wanted} = Step} -> Step;
                {ok, #{<<"step">> := <<"failed">>, <<"error">> := Error}} ->
                    ct:fail("~ts", [Error]);
                _ ->
                    ct:log("~ts", [Line]),
                    step(Port, Wanted)
            end;
        {Port, {exit_status, Status}} ->
            ct:fail("ended with status ~b before ~ts", [Status, Wanted])
    after ?STEP_MS ->
        ct:fail("no ~ts", [Wanted])
    end.

%% @doc Closes a program's standard input, which ends it, and waits for its end.
stop(Port) ->
    Pid = erlang:port_info(Port, os_pid),
    ok = close(Port),
    case Pid of
        {os_pid, Os} -> await_end(integer_to_list(Os), 100);
        undefined -> ok
    end.

%% It may have ended by itself.
close(Port) ->
    try
        true = port_close(Port),
        ok
    catch
        error:badarg -> ok
    end.

await_end(Pid, 0) ->
    _ = os:cmd("kill -9 " ++ Pid ++ " 2>/dev/null"),
    ok;
await_end(Pid, Tries) ->
    case os:cmd("kill -0 " ++ Pid ++ " 2>/dev/null && echo alive") of
        [] ->
            ok;
        _ ->
            receive after 50 -> ok end,
            await_end(Pid, Tries - 1)
    end.

%% @doc Runs a program to its end.
run(CommandLine, Env, Timeout) ->
    Port = start(CommandLine, Env),
    Timer = erlang:start_timer(Timeout, self(), Port),
    collect(Port, Timer, []).

collect(Port, Timer, Lines) ->
    receive
        {Port, {data, {_, Line}}} ->
            collect(Port, Timer, [Line | Lines]);
        {Port, {exit_status, Status}} ->
            _ = erlang:cancel_timer(Timer),
            {Status, lists:join($\n, lists:reverse(Lines))};
        {timeout, Timer, Port} ->
            stop(Port),
            {timeout, lists:join($\n, lists:reverse(Lines))}
    end.

%% @doc Waits until something listens there.
await_port(Port) ->
    await_port(Port, erlang:monotonic_time(millisecond) + ?STEP_MS).

await_port(Port, Deadline) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, []) of
        {ok, Socket} ->
            gen_tcp:close(Socket);
        {error, _} ->
            true = erlang:monotonic_time(millisecond) < Deadline,
            receive after 50 -> ok end,
            await_port(Port, Deadline)
    end.
