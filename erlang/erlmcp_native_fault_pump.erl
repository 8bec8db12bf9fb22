%% @private One direction of a connection through the fault proxy: reads from one socket and writes
%% to the other, late, slowly or not at all, as the settings say at the moment.
-module(erlmcp_native_fault_pump).

-export([settings/1, update/2, start/5, start_sink/2]).

-export_type([settings/0]).

-opaque settings() :: atomics:atomics_ref().
%% Shared by all pumps of a proxy: a change holds at once, also for those that are busy.

-record(pump, {
    relay :: pid(),
    direction :: up | down | sink,
    from :: gen_tcp:socket(),
    to :: gen_tcp:socket() | none,
    settings :: settings() | none,
    counters :: counters:counters_ref(),
    queue = queue:new() :: queue:queue({DueMs :: integer(), binary()}),
    queued = 0 :: non_neg_integer(),
    %% When the last chunk is due: none overtakes another.
    last_due :: integer(),
    %% When the bandwidth allows the next piece.
    free_at :: integer(),
    armed = false :: boolean(),
    ended = false :: false | eof | broken
}).

%% What is read ahead, so that a delay does not limit what is under way to one chunk.
-define(MOST_QUEUED, 1048576).
-define(BUFFER, 65536).
%% A limited stream goes in pieces of 1/50 s.
-define(PIECES_PER_S, 50).

-define(UP, 1).
-define(DOWN, 2).
-define(DELAY, 3).
-define(JITTER, 4).
-define(BANDWIDTH, 5).

%% @doc Settings to share.
-spec settings(erlmcp_native_fault_proxy:faults()) -> settings().
settings(Faults) ->
    Settings = atomics:new(5, []),
    ok = update(Faults, Settings),
    Settings.

%% @doc Changes them.
-spec update(erlmcp_native_fault_proxy:faults(), settings()) -> ok.
update(#{up := Up, down := Down} = Faults, Settings) ->
    ok = atomics:put(Settings, ?UP, flow_code(Up)),
    ok = atomics:put(Settings, ?DOWN, flow_code(Down)),
    ok = atomics:put(Settings, ?DELAY, maps:get(delay_ms, Faults)),
    ok = atomics:put(Settings, ?JITTER, maps:get(jitter_ms, Faults)),
    ok = atomics:put(Settings, ?BANDWIDTH, bandwidth_code(maps:get(bytes_per_s, Faults))).

flow_code(pass) -> 0;
flow_code(stall) -> 1;
flow_code(drop) -> 2.

bandwidth_code(infinity) -> 0;
bandwidth_code(Bytes) -> Bytes.

%% @doc Starts a pump, linked to the calling relay, which owns the sockets and is told
%% `{ended, Pump}' when everything has been passed on, `{broken, Pump}' otherwise.
-spec start(
    up | down, gen_tcp:socket(), gen_tcp:socket(), settings(), counters:counters_ref()
) -> pid().
start(Direction, From, To, Settings, Counters) ->
    spawned(Direction, From, To, Settings, Counters).

%% @doc One that throws everything away.
-spec start_sink(gen_tcp:socket(), counters:counters_ref()) -> pid().
start_sink(From, Counters) ->
    spawned(sink, From, none, none, Counters).

spawned(Direction, From, To, Settings, Counters) ->
    Pump = #pump{
        relay = self(),
        direction = Direction,
        from = From,
        to = To,
        settings = Settings,
        counters = Counters,
        last_due = now_ms(),
        free_at = now_ms()
    },
    Pid = spawn_link(fun() ->
        receive
            go ->
                _ = inet:setopts(From, [{buffer, ?BUFFER}]),
                loop(Pump)
        end
    end),
    _ = gen_tcp:controlling_process(From, Pid),
    Pid ! go,
    Pid.

loop(Pump) ->
    Flow = flow(Pump),
    case ended(Flow, arm(Flow, pass(Flow, now_ms(), Pump))) of
        {Ended, #pump{relay = Relay, from = From}} ->
            %% With its owner the socket would end, and it may still be written to.
            _ = gen_tcp:controlling_process(From, Relay),
            Relay ! {Ended, self()};
        Going -> wait(Flow, Going)
    end.

wait(Flow, #pump{from = From} = Pump) ->
    receive
        {tcp, From, Data} -> loop(arrived(flow(Pump), Data, Pump#pump{armed = false}));
        {tcp_closed, From} -> loop(over(eof, Pump));
        {tcp_error, From, _} -> loop(over(broken, Pump));
        changed -> loop(Pump);
        sink -> loop((drop_queue(Pump))#pump{direction = sink, to = none})
    after timeout(Flow, Pump) -> loop(Pump)
    end.

%% An error is followed by the end.
over(_, #pump{ended = broken} = Pump) -> Pump;
over(How, Pump) -> Pump#pump{ended = How}.

timeout(0, #pump{queue = Queue, free_at = FreeAt}) ->
    case queue:peek(Queue) of
        {value, {Due, _}} -> max(0, max(Due, FreeAt) - now_ms());
        empty -> infinity
    end;
timeout(_, _) ->
    infinity.

flow(#pump{direction = up, settings = Settings}) -> atomics:get(Settings, ?UP);
flow(#pump{direction = down, settings = Settings}) -> atomics:get(Settings, ?DOWN);
flow(#pump{direction = sink}) -> 2.

arrived(2, Data, Pump) ->
    dropped(byte_size(Data), Pump);
arrived(_, Data, #pump{settings = Settings, queue = Queue, queued = Queued} = Pump) ->
    Due = max(now_ms() + delay(Settings), Pump#pump.last_due),
    Pump#pump{
        queue = queue:in({Due, Data}, Queue),
        queued = Queued + byte_size(Data),
        last_due = Due
    }.

delay(Settings) ->
    atomics:get(Settings, ?DELAY) + rand:uniform(atomics:get(Settings, ?JITTER) + 1) - 1.

dropped(Bytes, #pump{counters = Counters} = Pump) ->
    ok = counters:add(Counters, 3, Bytes),
    Pump.

drop_queue(#pump{queued = Queued} = Pump) ->
    dropped(Queued, Pump#pump{queue = queue:new(), queued = 0}).

pass(2, _, Pump) ->
    drop_queue(Pump);
pass(1, _, Pump) ->
    Pump;
pass(0, Now, #pump{queue = Queue, free_at = FreeAt} = Pump) ->
    case queue:out(Queue) of
        {{value, {Due, Data}}, Rest} when Due =< Now, FreeAt =< Now ->
            send(atomics:get(Pump#pump.settings, ?BANDWIDTH), Data, Now, Pump#pump{queue = Rest});
        _ ->
            Pump
    end.

send(0, Data, _, Pump) ->
    write(Data, Pump);
send(PerS, Data, Now, #pump{queue = Queue, free_at = FreeAt} = Pump) ->
    Size = min(byte_size(Data), max(1, PerS div ?PIECES_PER_S)),
    <<Piece:Size/binary, Rest/binary>> = Data,
    %% Time that nothing was sent in is not saved up.
    Free = max(FreeAt, Now - 1000 div ?PIECES_PER_S) + max(1, Size * 1000 div PerS),
    write(Piece, Pump#pump{free_at = Free, queue = put_back(Rest, Now, Queue)}).

put_back(<<>>, _, Queue) -> Queue;
put_back(Rest, Now, Queue) -> queue:in_r({Now, Rest}, Queue).

write(Data, #pump{to = To, queued = Queued, counters = Counters, direction = Direction} = Pump) ->
    case gen_tcp:send(To, Data) of
        ok ->
            ok = counters:add(Counters, index(Direction), byte_size(Data)),
            pass(flow(Pump), now_ms(), Pump#pump{queued = Queued - byte_size(Data)});
        {error, _} ->
            (drop_queue(Pump))#pump{ended = broken}
    end.

index(up) -> ?UP;
index(down) -> ?DOWN.

arm(Flow, #pump{armed = false, ended = false, queued = Queued, from = From} = Pump) when
    Flow =/= 1, Queued < ?MOST_QUEUED
->
    case inet:setopts(From, [{active, once}]) of
        ok -> Pump#pump{armed = true};
        {error, _} -> Pump#pump{ended = broken}
    end;
arm(_, Pump) ->
    Pump.

%% The end does not get through either where nothing does.
ended(_, #pump{direction = sink, ended = Ended} = Pump) when Ended =/= false ->
    {ended, Pump};
ended(0, #pump{ended = broken} = Pump) ->
    {broken, Pump};
ended(0, #pump{ended = eof, queued = 0, to = To} = Pump) ->
    _ = gen_tcp:shutdown(To, write),
    {ended, Pump};
ended(_, Pump) ->
    Pump.

now_ms() -> erlang:monotonic_time(millisecond).
