%% @private Runs an analysis beside the process that asked for it: what it starts belongs to a
%% process that does nothing else and ends with the run, with the caller, or with the application,
%% whichever is first. The caller's mailbox is left alone.
-module(erlmcp_native_analysis_run).

-export([run/1, start_link/2]).

%% @doc Runs a function and returns what it returns; starts the application if need be.
-spec run(fun(() -> Result)) ->
    Result | {error, {crashed, term()} | {not_started, term()} | stopped}.
run(Fun) ->
    case application:ensure_all_started(erlmcp_native) of
        {ok, _} -> started(Fun);
        {error, Reason} -> {error, {not_started, Reason}}
    end.

%% What it prints appears where the caller prints.
started(Fun) ->
    Leader = group_leader(),
    {ok, Run} = erlmcp_native_analysis_sup:start_run(fun() ->
        true = group_leader(Leader, self()),
        Fun()
    end),
    Monitor = monitor(process, Run),
    receive
        {?MODULE, Run, Result} ->
            gone(Monitor),
            Result;
        {'DOWN', Monitor, process, _, _} ->
            {error, stopped}
    end.

%% What the run has started is gone when it is.
gone(Monitor) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

%% @private
-spec start_link(fun(() -> term()), pid()) -> {ok, pid()}.
start_link(Fun, Caller) ->
    proc_lib:start_link(erlang, apply, [fun init/2, [Fun, Caller]]).

init(Fun, Caller) ->
    process_flag(trap_exit, true),
    Monitor = monitor(process, Caller),
    proc_lib:init_ack({ok, self()}),
    Run = self(),
    Body = spawn_link(fun() -> exit({?MODULE, Run, Fun()}) end),
    wait(Body, Monitor, Caller).

wait(Body, Monitor, Caller) ->
    receive
        {'EXIT', Body, {?MODULE, _, Result}} ->
            Caller ! {?MODULE, self(), Result},
            ok;
        {'EXIT', Body, Reason} ->
            Caller ! {?MODULE, self(), {error, {crashed, Reason}}},
            ok;
        {'EXIT', _, Reason} ->
            end_body(Body),
            exit(Reason);
        {'DOWN', Monitor, process, _, _} ->
            end_body(Body);
        _ ->
            wait(Body, Monitor, Caller)
    end.

%% Its workers are linked to it.
end_body(Body) ->
    exit(Body, kill),
    receive
        {'EXIT', Body, _} -> ok
    end.
