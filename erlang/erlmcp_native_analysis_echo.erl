%% @doc A server that sends every message back, for measurements: called in a VM of its own, where
%% it lives as long as that.
-module(erlmcp_native_analysis_echo).

-export([tcp/2]).

%% @doc Listens on a port of TCP, 0 for a free one, and returns which it is.
-spec tcp(inet:port_number(), erlmcp_native_path:path()) -> inet:port_number().
tcp(Port, Path) ->
    lasting(fun() ->
        Options = #{active => true, path => Path, max_connections => 100000},
        {ok, Listener} = erlmcp_native:listen(#{port => Port}, Options),
        {ok, #{sockname := {_, Bound}}} = erlmcp_native:info(Listener),
        {Bound, fun echo/0}
    end).

echo() ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            %% A connection that has ended meanwhile gets no answer.
            _ = [erlmcp_native:send(Conn, Frame, 5000) || Frame <- Frames],
            echo();
        {erlmcp_native, _, _} ->
            echo()
    end.

%% What a call from another VM opens would end with it.
lasting(Begin) ->
    Caller = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        {Result, Continue} = Begin(),
        Caller ! {self(), Result},
        Continue()
    end),
    receive
        {Pid, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Pid, Reason} ->
            exit(Reason)
    end.
