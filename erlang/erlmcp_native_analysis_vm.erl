%% @doc A VM of its own for a measurement, in an OS process of its own: what is killed there, what
%% is flooded and how much memory that takes is nobody else's, also when an analysis runs inside
%% a system that is in use.
-module(erlmcp_native_analysis_vm).

-export([start/1, start/2, call/4, call/5, stop/1, with/3, os_pid/1, kill/1]).
-export([rss_bytes/1]).

%% Called in the other VM.
-export([do_call/3]).

-export_type([vm/0]).

-record(vm, {peer :: pid(), os_pid :: string()}).

-opaque vm() :: #vm{}.

-define(CALL_TIMEOUT_MS, 600000).

%% @equiv start(Path, [])
-spec start(erlmcp_native_report:path()) -> vm().
start(Path) ->
    start(Path, []).

%% @doc Starts a VM that runs this application on a path. It ends with the caller. Flags for `erl'
%% override those that are set here.
-spec start(erlmcp_native_report:path(), [string()]) -> vm().
start(Path, Flags) ->
    {ok, Peer, _} = peer:start_link(#{
        connection => standard_io,
        wait_boot => 60000,
        args => quiet() ++ Flags ++ path(Path) ++ ["-pa" | code_path()]
    }),
    Vm = #vm{peer = Peer, os_pid = os_pid_of(Peer)},
    {ok, _} = call(Vm, application, ensure_all_started, [erlmcp_native]),
    Vm.

path(Path) when Path =:= nif; Path =:= port; Path =:= beam ->
    ["-erlmcp_native", "path", atom_to_list(Path)];
path(_) ->
    [].

%% What is killed there is killed on purpose.
quiet() ->
    ["-kernel", "logger_level", "none", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"].

code_path() ->
    Root = code:lib_dir(),
    [filename:absname(Dir) || Dir <- code:get_path(), not lists:prefix(Root, Dir)].

os_pid_of(Peer) ->
    peer:call(Peer, os, getpid, []).

%% @equiv call(Vm, Module, Function, Args, 0)
-spec call(vm(), module(), atom(), [term()]) -> term().
call(Vm, Module, Function, Args) ->
    call(Vm, Module, Function, Args, 0).

%% @doc Calls a function there that lasts for so long by itself, and ten minutes more at most. What
%% it raises ends the caller.
-spec call(vm(), module(), atom(), [term()], LastsMs :: non_neg_integer()) -> term().
call(#vm{peer = Peer}, Module, Function, Args, LastsMs) ->
    TimeoutMs = LastsMs + ?CALL_TIMEOUT_MS,
    case peer:call(Peer, ?MODULE, do_call, [Module, Function, Args], TimeoutMs) of
        {ok, Result} -> Result;
        Failed -> exit({analysis_vm, {Module, Function}, Failed})
    end.

%% @doc Ends it.
-spec stop(vm()) -> ok.
stop(#vm{peer = Peer}) ->
    true = unlink(Peer),
    try
        peer:stop(Peer)
    catch
        exit:_ -> ok
    end.

%% @doc Runs a function with a VM that is ended afterwards, whatever happens.
-spec with(erlmcp_native_report:path(), [string()], fun((vm()) -> Result)) -> Result.
with(Path, Flags, Fun) ->
    Vm = start(Path, Flags),
    try
        Fun(Vm)
    after
        stop(Vm)
    end.

%% @doc The number of its OS process.
-spec os_pid(vm()) -> string().
os_pid(#vm{os_pid = OsPid}) -> OsPid.

%% @doc Kills its OS process, as `kill -9' does; the time when that had been done, in native units.
%% The caller stays.
-spec kill(vm()) -> integer().
kill(#vm{peer = Peer, os_pid = OsPid}) ->
    true = unlink(Peer),
    [] = os:cmd("kill -9 " ++ OsPid),
    erlang:monotonic_time().

%% @doc Resident memory of it and of the programs that it has started; `null' where the operating
%% system does not say so in /proc.
-spec rss_bytes(vm()) -> non_neg_integer() | null.
rss_bytes(#vm{os_pid = OsPid}) ->
    case [Rss || Pid <- [OsPid | descendants(OsPid)], Rss <- rss(Pid)] of
        [] -> null;
        All -> lists:sum(All)
    end.

rss(OsPid) ->
    case file:read_file("/proc/" ++ OsPid ++ "/smaps_rollup") of
        {ok, Rollup} -> rss_in(re:run(Rollup, "Rss: +([0-9]+) kB", [{capture, [1], binary}]));
        {error, _} -> []
    end.

rss_in({match, [KiB]}) -> [binary_to_integer(KiB) * 1024];
rss_in(nomatch) -> [].

descendants(OsPid) ->
    Pids = [
        Child
     || "/proc/" ++ Task <- filelib:wildcard("/proc/" ++ OsPid ++ "/task/*"),
        {ok, Children} <- [file:read_file("/proc/" ++ Task ++ "/children")],
        Child <- string:lexemes(binary_to_list(Children), " \n")
    ],
    lists:append([[Pid | descendants(Pid)] || Pid <- Pids]).

%% Without this a process there that is killed by a link would be a `badarg'.
%% @private
-spec do_call(module(), atom(), [term()]) -> {ok, term()} | {failed, term()}.
do_call(Module, Function, Args) ->
    try
        {ok, apply(Module, Function, Args)}
    catch
        Class:Reason:Stack -> {failed, {Class, Reason, Stack}}
    end.
