%% @private How long the garbage collections of this application's processes take, by tracing them.
%% A process that somebody else traces is left to him.
-module(erlmcp_native_analysis_gc).

-export([trace/1]).

-define(SUPERVISORS, [
    erlmcp_native_sup,
    erlmcp_native_conn_sup,
    erlmcp_native_listener_sup,
    erlmcp_native_http_client_sup,
    erlmcp_native_http_sup
]).

%% @doc Traces for so long, in the calling process, to which nothing else should be sent.
-spec trace(pos_integer()) -> map().
trace(DurationMs) ->
    Pids = [Pid || Pid <- processes_of_ours(), traced(Pid)],
    Pauses = erlmcp_native_histogram:new(#{write_concurrency => false}),
    Deadline = erlang:monotonic_time(millisecond) + DurationMs,
    ok = collect(Deadline, #{}, Pauses),
    lists:foreach(fun untrace/1, Pids),
    ok = drop(),
    Snapshot = erlmcp_native_histogram:snapshot(Pauses),
    Us = fun(Percent) -> erlmcp_native_histogram:percentile(Snapshot, Percent) / 1000 end,
    #{
        traced_processes => length(Pids),
        traced_gc_count => erlmcp_native_histogram:count(Snapshot),
        pause_p50_us => Us(50),
        pause_p99_us => Us(99),
        pause_max_us => Us(100),
        pause_total_us => erlmcp_native_histogram:sum(Snapshot) / 1000
    }.

processes_of_ours() ->
    lists:usort(
        lists:append([
            [Pid || {_, Pid, _, _} <- children(Name), is_pid(Pid)]
         || Name <- ?SUPERVISORS
        ])
    ).

children(Name) ->
    try
        supervisor:which_children(Name)
    catch
        exit:_ -> []
    end.

traced(Pid) ->
    try
        1 =:= erlang:trace(Pid, true, [garbage_collection, monotonic_timestamp])
    catch
        error:badarg -> false
    end.

untrace(Pid) ->
    try
        erlang:trace(Pid, false, [garbage_collection, monotonic_timestamp])
    catch
        error:badarg -> 0
    end.

collect(Deadline, Begun, Pauses) ->
    receive
        {trace_ts, Pid, Event, _, At} ->
            collect(Deadline, event(Event, Pid, At, Begun, Pauses), Pauses)
    after max(0, Deadline - erlang:monotonic_time(millisecond)) -> ok
    end.

event(Start, Pid, At, Begun, _) when Start =:= gc_minor_start; Start =:= gc_major_start ->
    Begun#{Pid => At};
event(_, Pid, At, Begun, Pauses) ->
    case maps:take(Pid, Begun) of
        {Since, Rest} ->
            Ns = erlang:convert_time_unit(max(0, At - Since), native, nanosecond),
            ok = erlmcp_native_histogram:record(Pauses, Ns),
            Rest;
        error ->
            Begun
    end.

drop() ->
    receive
        {trace_ts, _, _, _, _} -> drop()
    after 0 -> ok
    end.
