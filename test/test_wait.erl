%% What tests wait for, and how long.
-module(test_wait).

-export([until/1, reason/1, event/1, messages/2]).

-define(PATIENCE_MS, 30000).

%% For what no message tells: what a condition gives when it no longer gives `false'.
until(Condition) ->
    until(Condition, erlang:monotonic_time(millisecond) + ?PATIENCE_MS).

until(Condition, Deadline) ->
    case Condition() of
        false ->
            erlang:monotonic_time(millisecond) < Deadline orelse ct:fail({never, Condition}),
            receive
            after 5 -> until(Condition, Deadline)
            end;
        Holds ->
            Holds
    end.

%% Why a process has ended.
reason(Monitor) ->
    receive
        {'DOWN', Monitor, process, _, Reason} -> Reason
    after ?PATIENCE_MS -> ct:fail(still_alive)
    end.

%% What its owner is told next of something.
event(Pid) ->
    receive
        {erlmcp_native, Pid, Event} -> Event
    after ?PATIENCE_MS -> ct:fail({no_event, process_info(self(), messages)})
    end.

%% So many messages that it is told of, decoded.
messages(_, 0) ->
    [];
messages(Pid, Count) when Count > 0 ->
    {frames, Frames} = event(Pid),
    Decoded = [element(2, {ok, _} = erlmcp_native_json:decode(Frame)) || Frame <- Frames],
    Decoded ++ messages(Pid, Count - length(Decoded)).
