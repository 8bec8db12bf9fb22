%% @private What is sent on a plain socket, or a port, of the path `beam'.
%%
%% Its owner sends itself as long as the driver has little queued: what the driver has cannot be
%% overtaken. Beyond that a process sends, which the driver suspends, and keeps the rest in the
%% order in which it is to leave ({@link erlmcp_native_beam_lanes}). It is started when it is first
%% needed and ends with the socket.
-module(erlmcp_native_beam_out).

-export([tcp/1, port/1, port_options/0, send/4, queued/1, pending/1]).

-export_type([out/0, sending/0]).

%% The driver suspends senders from the one on, until no more than the other is queued.
-define(HIGH, 131072).
-define(LOW, 65536).

%% What the process hands over at once.
-define(BATCH, 65536).

%% Of the atomics.
-define(QUEUED, 1).
-define(OVER, 2).

%% How it is over.
-define(CLOSED, 1).
-define(RESET, 2).

-record(out, {
    kind :: tcp | port,
    port :: gen_tcp:socket() | port(),
    %% At least as much as the driver has queued: what was handed to it since it was last asked.
    %% Asking it before each send would cost half as much as the send.
    handed = 0 :: non_neg_integer(),
    shared :: atomics:atomics_ref(),
    writer = none :: pid() | none
}).

-opaque out() :: #out{}.

-type sending() :: #{
    priority := erlmcp_native_path:priority(),
    max := pos_integer(),
    reserve := non_neg_integer(),
    message := iodata()
}.
%% How much may be queued, and how much more of what is urgent; and the message without its
%% delimiter.

%% @doc Of a plain socket.
-spec tcp(gen_tcp:socket()) -> out().
tcp(Port) -> #out{kind = tcp, port = Port, shared = atomics:new(2, [])}.

%% @doc Of a port that was opened with {@link port_options/0}.
-spec port(port()) -> out().
port(Port) -> #out{kind = port, port = Port, shared = atomics:new(2, [])}.

-spec port_options() -> [tuple()].
port_options() ->
    [{busy_limits_port, {?LOW, ?HIGH}}, {busy_limits_msgq, disabled}].

%% @doc Queues a message of `Size' bytes on the wire, unless that makes too much. One message is
%% always accepted into an empty queue.
-spec send(out(), iodata(), Size :: pos_integer(), sending()) ->
    {ok | {error, busy | closed | reset}, out()}.
send(#out{handed = Handed} = Out, Wire, Size, #{max := Max}) when
    Handed + Size =< ?HIGH, Handed + Size =< Max
->
    hand_over(Out, Wire, Size);
send(#out{shared = Shared} = Out, Wire, Size, #{max := Max} = Sending) ->
    case {atomics:get(Shared, ?OVER), atomics:get(Shared, ?QUEUED), in_driver(Out)} of
        {Over, _, _} when Over > 0 ->
            {{error, reason(Over)}, Out};
        {0, 0, 0} ->
            hand_over(Out#out{handed = 0}, Wire, Size);
        {0, 0, Pending} when Pending < ?LOW, Pending + Size =< ?HIGH, Pending + Size =< Max ->
            hand_over(Out#out{handed = Pending}, Wire, Size);
        {0, Queued, Pending} ->
            %% To be asked again before the next is handed over.
            Full = Out#out{handed = ?HIGH},
            case erlmcp_native_priority:admit(Queued + Pending, Size, Sending) of
                {ok, Role, Urgent} -> {ok, write(Full, {Wire, Size}, Role, Urgent)};
                {error, busy} = Busy -> {Busy, Full}
            end
    end.

hand_over(#out{kind = Kind, port = Port, handed = Handed} = Out, Wire, Size) ->
    case transmit(Kind, Port, Wire) of
        ok -> {ok, Out#out{handed = Handed + Size}};
        {error, _} = Error -> {Error, Out}
    end.

transmit(tcp, Port, Wire) ->
    case gen_tcp:send(Port, Wire) of
        ok -> ok;
        {error, econnreset} -> {error, reset};
        {error, _} -> {error, closed}
    end;
transmit(port, Port, Wire) ->
    try erlang:port_command(Port, Wire) of
        true -> ok
    catch
        error:badarg -> {error, closed}
    end.

%% @doc Bytes that wait to be sent.
-spec queued(out()) -> {non_neg_integer(), out()}.
queued(#out{shared = Shared} = Out) ->
    case {atomics:get(Shared, ?QUEUED), in_driver(Out)} of
        {0, Pending} when Pending < ?LOW -> {Pending, Out#out{handed = Pending}};
        {Queued, Pending} -> {Queued + Pending, Out#out{handed = ?HIGH}}
    end.

%% @doc The same for those who do not send.
-spec pending(out()) -> non_neg_integer().
pending(Out) -> element(1, queued(Out)).

in_driver(#out{kind = tcp, port = Port}) ->
    case inet:getstat(Port, [send_pend]) of
        {ok, [{send_pend, Bytes}]} -> Bytes;
        {error, _} -> 0
    end;
in_driver(#out{kind = port, port = Port}) ->
    case erlang:port_info(Port, queue_size) of
        {queue_size, Bytes} -> Bytes;
        undefined -> 0
    end.

write(#out{writer = none} = Out, Item, Role, Urgent) ->
    ok = limits(Out),
    Writer = spawn(fun() -> init(Out) end),
    write(Out#out{writer = Writer}, Item, Role, Urgent);
write(#out{writer = Writer, shared = Shared} = Out, {_, Size} = Item, Role, Urgent) ->
    ok = atomics:add(Shared, ?QUEUED, Size),
    Writer ! {write, Item, Role, Urgent},
    Out.

%% Until now the driver was not to suspend anybody.
limits(#out{kind = tcp, port = Port}) ->
    _ = inet:setopts(Port, [{low_watermark, ?LOW}, {high_watermark, ?HIGH}]),
    ok;
limits(#out{kind = port}) ->
    ok.

%% ---- the process that sends

init(#out{port = Port} = Out) ->
    loop(monitor(port, Port), Out, erlmcp_native_beam_lanes:new()).

loop(Monitor, Out, Lanes) ->
    case collect(Lanes, waiting(Lanes)) of
        over ->
            over(?CLOSED, Out);
        idle ->
            erlang:hibernate(erlang, apply, [fun() -> loop(Monitor, Out, Lanes) end, []]);
        Collected ->
            {Wire, Size, Left} = erlmcp_native_beam_lanes:batch(?BATCH, Collected),
            case transmit(Out#out.kind, Out#out.port, Wire) of
                ok ->
                    ok = atomics:sub(Out#out.shared, ?QUEUED, Size),
                    loop(Monitor, Out, Left);
                {error, closed} ->
                    over(?CLOSED, Out);
                {error, reset} ->
                    over(?RESET, Out)
            end
    end.

waiting(Lanes) ->
    case erlmcp_native_beam_lanes:is_empty(Lanes) of
        true -> 1000;
        false -> 0
    end.

%% What has come meanwhile may be more urgent than what is here.
collect(Lanes, Wait) ->
    receive
        {write, Item, Role, Urgent} ->
            collect(erlmcp_native_beam_lanes:push(Item, Role, Urgent, Lanes), 0);
        {'DOWN', _, port, _, _} ->
            over
    after Wait ->
        case erlmcp_native_beam_lanes:is_empty(Lanes) of
            true -> idle;
            false -> Lanes
        end
    end.

reason(?CLOSED) -> closed;
reason(?RESET) -> reset.

over(How, #out{shared = Shared}) ->
    ok = atomics:put(Shared, ?OVER, How),
    atomics:put(Shared, ?QUEUED, 0).
