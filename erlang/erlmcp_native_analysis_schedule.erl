%% @doc When the requests of an open load are due: at a fixed rate, whatever becomes of the earlier
%% ones. Latency that is counted from these times is free of coordinated omission: a stall counts
%% for every request that should have been sent while it lasted.
%%
%% Times are on a grid of 1 ms, which is what a process can wait for; at more than 1,000 requests/s
%% several are due at once. Where several workers share a load, one takes the requests whose number
%% leaves its own as the remainder.
-module(erlmcp_native_analysis_schedule).

-export([new/3, due/2, at_ms/2]).

-export_type([schedule/0]).

-opaque schedule() :: {PerSecond :: number(), Workers :: pos_integer(), Index :: non_neg_integer()}.

%% @doc The part of the worker `Index', counted from 0, in a load of so many requests per second.
-spec new(number(), pos_integer(), non_neg_integer()) -> schedule().
new(PerSecond, Workers, Index) when PerSecond > 0, Index >= 0, Index < Workers ->
    {PerSecond, Workers, Index}.

%% @doc How many of its requests are due when so many milliseconds have passed, the first at 0.
-spec due(schedule(), Ms :: non_neg_integer()) -> non_neg_integer().
due({PerSecond, Workers, Index}, Ms) ->
    All = floor(PerSecond * Ms / 1000) + 1,
    max(0, (All - Index + Workers - 1) div Workers).

%% @doc When its request with this number, counted from 0, is due.
-spec at_ms(schedule(), non_neg_integer()) -> non_neg_integer().
at_ms({PerSecond, Workers, Index} = Schedule, Number) ->
    settle(Schedule, Number, floor((Number * Workers + Index) * 1000 / PerSecond)).

%% Floating point may be off by one at either side.
settle(Schedule, Number, Ms) when Ms > 0 ->
    case due(Schedule, Ms - 1) > Number of
        true -> settle(Schedule, Number, Ms - 1);
        false -> later(Schedule, Number, Ms)
    end;
settle(Schedule, Number, Ms) ->
    later(Schedule, Number, Ms).

later(Schedule, Number, Ms) ->
    case due(Schedule, Ms) > Number of
        true -> Ms;
        false -> later(Schedule, Number, Ms + 1)
    end.
