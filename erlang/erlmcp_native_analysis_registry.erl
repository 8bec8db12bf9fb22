%% @private What the registry of this node costs, measured beside what it is in use for: the names
%% are of this measurement alone, and gone when it is.
-module(erlmcp_native_analysis_registry).

-export([measure/0]).

-define(NAMES, 100).
-define(ROUTES, 20000).
-define(SENDERS, [1, 10, 50]).

%% @doc Registering, finding, routing by one process, and by 10 and 50 at a time.
-spec measure() -> map().
measure() ->
    Registry = erlmcp_native_registry:module(),
    Sink = spawn_link(fun() -> sink(0) end),
    Ids = [id(N) || N <- lists:seq(1, ?NAMES)],
    try
        Tests = tests(Registry, Sink, Ids),
        Routed = [R || {_, #{senders := _} = R} <- Tests],
        #{
            performance_tests => Tests,
            registry => Registry,
            routes_per_s => maps:get(operations_per_second, lists:last(Routed)),
            queue_max => lists:max([maps:get(queue_max, R) || R <- Routed]),
            timestamp => erlang:system_time(millisecond)
        }
    after
        lists:foreach(fun(Id) -> Registry:unregister_server(Id) end, Ids),
        true = unlink(Sink),
        true = exit(Sink, kill)
    end.

id(N) ->
    Unique = integer_to_binary(erlang:unique_integer([positive])),
    <<"erlmcp_native_analysis_", Unique/binary, "_", (integer_to_binary(N))/binary>>.

tests(Registry, Sink, Ids) ->
    [
        timed(registration, ?NAMES, fun() ->
            lists:foreach(fun(Id) -> ok = Registry:register_server(Id, Sink, #{}) end, Ids)
        end),
        timed(lookup, ?ROUTES, fun() ->
            each(?ROUTES, Ids, fun(Id) -> {ok, _} = Registry:find_server(Id) end)
        end)
    ] ++ [routing(Registry, Sink, Ids, Senders) || Senders <- ?SENDERS].

timed(Name, Count, Fun) ->
    Begin = erlang:monotonic_time(),
    _ = Fun(),
    {Name, with_times(#{result => ok}, Count, Begin)}.

with_times(Result, Count, Begin) ->
    Us = erlang:convert_time_unit(erlang:monotonic_time() - Begin, native, nanosecond) / 1000,
    Result#{
        operations => Count,
        duration_microseconds => round(Us),
        operations_per_second => Count * 1.0e6 / max(Us, 0.001),
        us_per_operation => Us / Count
    }.

each(0, _, _) ->
    ok;
each(Left, Ids, Fun) ->
    Now = lists:sublist(Ids, Left),
    lists:foreach(Fun, Now),
    each(Left - length(Now), Ids, Fun).

%% Until the last message has arrived.
routing(Registry, Sink, Ids, Senders) ->
    Each = ?ROUTES div Senders,
    Before = count(Sink),
    Begin = erlang:monotonic_time(),
    Monitors = [
        monitor(
            process,
            spawn_link(fun() ->
                each(Each, Ids, fun(Id) -> Registry:route_to_server(Id, Id, message) end)
            end)
        )
     || _ <- lists:seq(1, Senders)
    ],
    Queue = joined(Monitors, Registry, 0),
    ok = arrived(Sink, Before + Each * Senders),
    Result = #{result => ok, senders => Senders, queue_max => Queue},
    {name(Senders), with_times(Result, Each * Senders, Begin)}.

name(1) -> routing_1;
name(10) -> routing_10;
name(50) -> routing_50.

joined([], _, Queue) ->
    Queue;
joined([Monitor | Rest], Registry, Queue) ->
    receive
        {'DOWN', Monitor, process, _, _} -> joined(Rest, Registry, max(Queue, queue(Registry)))
    after 1 ->
        joined([Monitor | Rest], Registry, max(Queue, queue(Registry)))
    end.

queue(Registry) ->
    case whereis(Registry) of
        undefined -> 0;
        Pid -> length_of(process_info(Pid, message_queue_len))
    end.

length_of({message_queue_len, Length}) -> Length;
length_of(undefined) -> 0.

arrived(Sink, Wanted) ->
    case count(Sink) of
        Count when Count >= Wanted -> ok;
        _ -> arrived(Sink, Wanted)
    end.

count(Sink) ->
    Sink ! {count, self()},
    receive
        {Sink, Count} -> Count
    end.

sink(Count) ->
    receive
        {mcp_message, _, _} ->
            sink(Count + 1);
        {count, From} ->
            From ! {self(), Count},
            sink(Count)
    end.
