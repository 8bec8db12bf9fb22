%% @doc Several things at once, one that may fail, and the end of processes.
-module(erlmcp_native_parallel).

-export([map/2, guarded/1, gone/1]).

%% @doc As `lists:map/2', each element in a process of its own. If one fails, the others are ended
%% and the caller exits; if the caller ends, so do they.
-spec map(fun((A) -> B), [A]) -> [B].
map(Fun, List) ->
    Self = self(),
    Pids = [spawn_link(fun() -> Self ! {self(), outcome(Fun, Element)} end) || Element <- List],
    collect(Pids, []).

outcome(Fun, Element) ->
    try
        {ok, Fun(Element)}
    catch
        Class:Reason:Stack -> {failed, {Class, Reason, Stack}}
    end.

collect([], Results) ->
    lists:reverse(Results);
collect([Pid | Pids], Results) ->
    receive
        {Pid, {ok, Result}} ->
            collect(Pids, [Result | Results]);
        {Pid, {failed, Why}} ->
            lists:foreach(
                fun(Other) ->
                    true = unlink(Other),
                    true = exit(Other, kill)
                end,
                Pids
            ),
            exit(Why)
    end.

%% @doc Runs a function in a process of its own, whose failure is a value. It ends with the caller.
-spec guarded(fun(() -> Result)) -> {ok, Result} | {error, term()}.
guarded(Fun) ->
    Caller = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        %% The work's end is a message, its caller's end is its end.
        process_flag(trap_exit, true),
        Work = spawn_link(fun() -> exit({done, Fun()}) end),
        CallerMonitor = monitor(process, Caller),
        receive
            {'EXIT', Work, Reason} ->
                exit(Reason);
            {'DOWN', CallerMonitor, process, Caller, _} ->
                exit(Work, shutdown)
        end
    end),
    receive
        {'DOWN', Monitor, process, Pid, {done, Result}} -> {ok, Result};
        {'DOWN', Monitor, process, Pid, Reason} -> {error, Reason}
    end.

%% @doc Waits until all of these processes have ended.
-spec gone([pid()]) -> ok.
gone(Pids) ->
    Monitors = [monitor(process, Pid) || Pid <- Pids],
    lists:foreach(
        fun(Monitor) ->
            receive
                {'DOWN', Monitor, process, _, _} -> ok
            end
        end,
        Monitors
    ).
