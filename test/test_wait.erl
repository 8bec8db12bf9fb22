%% Waiting for what no message tells.
-module(test_wait).

-export([until/1]).

-define(PATIENCE_MS, 30000).

%% What a condition gives when it no longer gives `false'.
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
