%% @private Starts the port program, restarts it, and passes on what it sends, undecoded.
%%
%% See {@link erlmcp_native_port} for what reaches the owners of routes. Owners are monitored: what
%% belonged to one that has died is closed in the program.
-module(erlmcp_native_port_router).

-behaviour(gen_server).

-include("erlmcp_native_port.hrl").

-export([start_link/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-record(state, {
    port = none :: port() | none,
    os_pid = none :: none | pos_integer(),
    phase = down :: down | {failed, term()} | starting | up,
    %% When it was started, and what was tried in vain since it last stood.
    since = 0 :: integer(),
    failures = 0 :: non_neg_integer(),
    starts = 0 :: non_neg_integer(),
    routes = erlmcp_native_port_routes:new() :: erlmcp_native_port_routes:routes(),
    %% Calls that wait for the hello.
    waiting = [] :: [{gen_server:from(), term()}],
    %% What was passed on since the program was last told, and in all.
    processed = 0 :: non_neg_integer(),
    total = 0 :: non_neg_integer(),
    %% What came for ids that are not known, but for what may have been under way.
    strays = 0 :: integer(),
    %% The timer of the hello, of the next start, or of the next look.
    timer = none :: none | reference(),
    %% Whether anything has come since the last look.
    heard = false :: boolean()
}).

-define(HELLO_MS, 5000).
-define(LOOK_MS, 5000).
-define(LAST_LOOK_MS, 200).

%% Start again at once what has run this long, and later and later what does not stay.
-define(STABLE_MS, 1000).
-define(FIRST_RETRY_MS, 100).
-define(LAST_RETRY_MS, 5000).

%% The program is told of what was passed on at this pace; it lets 16 MiB wait. A packet costs 64
%% bytes more than it has.
-define(TELL_BYTES, 1048576).
-define(PACKET_COST, 64).

%% More than the program ever lets wait, by far.
-define(FLOOD_BYTES, 67108864).
-define(FLOOD_PACKETS, 1024).

%% More than can be under way to something that is closed, by far.
-define(STRAY_BYTES, 67108864).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, erlmcp_native_port}, ?MODULE, [], []).

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    process_flag(message_queue_data, off_heap),
    {ok, #state{}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}}.
handle_call(os_pid, _, #state{os_pid = none} = S) ->
    {reply, {error, port_program}, S};
handle_call(os_pid, _, #state{os_pid = OsPid} = S) ->
    {reply, {ok, OsPid}, S};
handle_call(info, _, #state{routes = Routes, starts = Starts} = S) ->
    {reply, #{routes => map_size(Routes), starts => Starts}, S};
handle_call({give, Id, Pid}, _, #state{routes = Routes} = S) ->
    changed(erlmcp_native_port_routes:give(Id, Pid, Routes), S);
handle_call({attach, Id, Sending}, {Pid, _}, #state{routes = Routes} = S) ->
    changed(erlmcp_native_port_routes:attach(Id, Pid, Sending, Routes), S);
handle_call(Request, _, #state{phase = up} = S) ->
    {Reply, Next} = up_call(Request, S),
    {reply, Reply, Next};
handle_call(Request, From, #state{phase = starting, waiting = Waiting} = S) ->
    {noreply, S#state{waiting = [{From, Request} | Waiting]}};
handle_call(Request, From, #state{phase = down, timer = none, waiting = Waiting} = S) ->
    {noreply, start(S#state{waiting = [{From, Request} | Waiting]})};
handle_call(_, _, #state{phase = down} = S) ->
    {reply, {error, port_program}, S};
handle_call(_, _, #state{phase = {failed, Why}} = S) ->
    {reply, {error, {path_unavailable, port, Why}}, S}.

changed({ok, Routes}, S) -> {reply, ok, S#state{routes = Routes}};
changed(error, S) -> {reply, {error, port_program}, S}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({forget, Id}, S) ->
    {noreply, close_route(Id, S)};
handle_cast({accuse, Id}, #state{routes = Routes} = S) when is_map_key(Id, Routes) ->
    {noreply, flooded(S)};
handle_cast({log_level, Level}, #state{phase = up, port = Port} = S) ->
    _ = erlmcp_native_port:command(Port, ?TO_LOG_LEVEL, 0, <<Level>>),
    {noreply, S};
handle_cast(_, S) ->
    {noreply, S}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({Port, {data, Packet}}, #state{port = Port} = S) ->
    {noreply, processed(Packet, packet(Packet, S))};
handle_info({Port, {exit_status, Status}}, #state{port = Port} = S) ->
    {noreply, ended({exit_status, Status}, S)};
handle_info({'EXIT', Port, Reason}, #state{port = Port} = S) ->
    {noreply, ended(Reason, S)};
handle_info({{'DOWN', Id}, _, process, _, _}, S) ->
    {noreply, close_route(Id, S)};
handle_info({timeout, Timer, What}, #state{timer = Timer} = S) ->
    {noreply, timeout(What, S#state{timer = none})};
handle_info(_, S) ->
    {noreply, S}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, S) ->
    _ = lost(S),
    ok.

%% ---- packets

packet(<<Op, Id:64, Rest/binary>> = Packet, #state{phase = up, routes = Routes} = S) ->
    case is_map_key(Id, Routes) of
        true -> routed(Op, Id, Rest, Packet, S);
        false -> unrouted(Op, Id, Rest, Packet, S)
    end;
packet(<<?FROM_HELLO, 0:64, ?PORT_VERSION:16, OsPid:32>>, #state{phase = starting} = S) ->
    stands(S#state{os_pid = OsPid});
packet(<<?FROM_HELLO, 0:64, Version:16, _/binary>>, #state{phase = starting} = S) ->
    failed({version, Version}, S);
packet(Packet, S) ->
    garbage(Packet, S).

routed(?FROM_SENT, Id, <<Bytes:64>>, _, #state{routes = Routes} = S) ->
    ok = left(Bytes, erlmcp_native_port_routes:sending(Id, Routes)),
    S;
routed(?FROM_ROOM, Id, <<Bytes:64>>, _, #state{routes = Routes} = S) ->
    Sending = erlmcp_native_port_routes:sending(Id, Routes),
    ok = left(Bytes, Sending),
    _ = [erlmcp_native_port_sending:has_room(Sending) || Sending =/= none],
    deliver(Id, writable, S);
routed(?FROM_DOWN, Id, _, Packet, #state{routes = Routes} = S) ->
    Sending = erlmcp_native_port_routes:sending(Id, Routes),
    _ = [erlmcp_native_port_sending:close(Sending) || Sending =/= none],
    deliver(Id, Packet, S);
routed(Op, Id, _, Packet, S) when Op > ?FROM_HELLO ->
    deliver(Id, Packet, S);
routed(_, _, _, Packet, S) ->
    garbage(Packet, S).

left(_, none) -> ok;
left(Bytes, Sending) -> erlmcp_native_port_sending:left(Bytes, Sending).

deliver(Id, Message, #state{routes = Routes} = S) ->
    case erlmcp_native_port_routes:deliver(Id, Message, Routes) of
        {held, Holding} -> S#state{routes = Holding};
        _ -> S
    end.

unrouted(?FROM_BORN, Id, <<Parent:64, _/binary>>, Packet, #state{routes = Routes} = S) ->
    case erlmcp_native_port_routes:pid(Parent, Routes) of
        {ok, Pid} ->
            Born = erlmcp_native_port_routes:born(Id, Pid, Routes),
            deliver(Parent, Packet, S#state{routes = Born});
        error ->
            close(Id, S)
    end;
unrouted(?FROM_PONG, _, _, _, S) ->
    S;
unrouted(?FROM_LOG, 0, Term, _, S) ->
    ok = erlmcp_native_log:event(Term),
    S;
unrouted(?FROM_GARBAGE, 0, _, _, S) ->
    logger:error("erlmcp_native: the port program could not read what this node sent"),
    S;
unrouted(Op, _, _, Packet, #state{strays = Strays} = S) when Op > ?FROM_HELLO ->
    %% What was under way when its id was forgotten.
    case Strays + min(byte_size(Packet), ?TELL_BYTES) + ?PACKET_COST of
        Bytes when Bytes > ?STRAY_BYTES -> flooded(S);
        Bytes -> S#state{strays = Bytes}
    end;
unrouted(_, _, _, Packet, S) ->
    garbage(Packet, S).

processed(Packet, #state{processed = Before} = S) ->
    case Before + byte_size(Packet) + ?PACKET_COST of
        Processed when Processed < ?TELL_BYTES -> S#state{processed = Processed, heard = true};
        Processed -> tell(S#state{processed = Processed, heard = true})
    end.

tell(#state{port = none} = S) ->
    S;
tell(#state{port = Port, processed = Processed, total = Total0} = S0) ->
    _ = erlmcp_native_port:command(Port, ?TO_PROCESSED, 0, <<Processed:64>>),
    S = S0#state{processed = 0, total = Total0 + Processed},
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    case erlang:port_info(Port, input) of
        {input, Bytes} when Bytes - S#state.total > ?FLOOD_BYTES, Length > ?FLOOD_PACKETS ->
            flooded(S);
        _ ->
            S
    end.

flooded(S) ->
    logger:error("erlmcp_native: the port program sends more than it may"),
    ended(flood, kill(S)).

garbage(Packet, S) ->
    Begin = binary:part(Packet, 0, min(32, byte_size(Packet))),
    logger:error("erlmcp_native: not a packet of the port program: ~0p", [Begin]),
    ended(garbage, kill(S)).

%% ---- routes

up_call({open, Pid, Sending}, #state{port = Port, routes = Routes} = S) ->
    Id = erlang:unique_integer([positive]) bsl 1,
    Opened = erlmcp_native_port_routes:add(Id, Pid, Sending, Routes),
    {{ok, Id, Port}, S#state{routes = Opened}};
up_call(_, S) ->
    {{error, unknown_request}, S}.

close_route(Id, #state{routes = Routes, strays = Strays} = S) ->
    case erlmcp_native_port_routes:remove(Id, Routes) of
        {ok, Rest} ->
            close(Id, S#state{routes = Rest, strays = max(Strays - ?STRAY_BYTES div 2, 0)});
        error ->
            S
    end.

close(Id, #state{port = Port, phase = up} = S) ->
    _ = erlmcp_native_port:command(Port, ?TO_CLOSE, Id),
    S;
close(_, S) ->
    S.

%% ---- the program

start(#state{starts = Starts} = S0) ->
    %% Not a count, which would begin anew with this process.
    Generation = erlang:unique_integer([positive]) band 16#ffffffff,
    S = S0#state{
        starts = Starts + 1, since = now_ms(), processed = 0, total = 0, strays = 0
    },
    case erlmcp_native_port_program:start(Generation, erlmcp_native_path:workers()) of
        {ok, Port} ->
            timer(?HELLO_MS, hello, S#state{port = Port, phase = starting, heard = false});
        {error, Reason} ->
            failed(Reason, S)
    end.

stands(#state{waiting = Waiting} = S) ->
    Up = timer(look_ms(), look, S#state{phase = up, waiting = []}),
    lists:foldl(
        fun({From, Request}, Acc) ->
            {Reply, Next} = up_call(Request, Acc),
            gen_server:reply(From, Reply),
            Next
        end,
        Up,
        lists:reverse(Waiting)
    ).

timeout(hello, S) ->
    failed(no_hello, kill(S));
timeout(start, S) ->
    start(S);
timeout(forgive, S) ->
    S#state{phase = down};
timeout(_, #state{heard = true} = S) ->
    timer(look_ms(), look, S#state{heard = false});
timeout(look, #state{port = Port} = S) ->
    _ = erlmcp_native_port:command(Port, ?TO_PING, 0),
    timer(look_ms(), silent, S);
timeout(silent, S) ->
    %% The answer may be there unread: the node itself may have been stopped.
    timer(?LAST_LOOK_MS, silent_still, S);
timeout(silent_still, S) ->
    logger:error("erlmcp_native: the port program does not answer"),
    ended(silent, kill(S)).

%% It cannot be used, and starting it again would not change that soon.
failed(Why, S0) ->
    logger:error("erlmcp_native: the port program cannot be used: ~0tp", [Why]),
    S = lost(S0),
    answer({error, {path_unavailable, port, Why}}, S),
    timer(?LAST_RETRY_MS, forgive, S#state{phase = {failed, Why}, waiting = []}).

ended(Why, #state{since = Since, failures = Failures} = S0) ->
    logger:error("erlmcp_native: the port program has ended: ~0tp", [Why]),
    S = lost(S0),
    answer({error, port_program}, S),
    Next = S#state{phase = down, waiting = []},
    case now_ms() - Since >= ?STABLE_MS of
        true -> start(Next#state{failures = 0});
        false -> timer(retry_ms(Failures), start, Next#state{failures = Failures + 1})
    end.

retry_ms(Failures) ->
    min(?FIRST_RETRY_MS bsl min(Failures, 10), ?LAST_RETRY_MS).

answer(Reply, #state{waiting = Waiting}) ->
    lists:foreach(fun({From, _}) -> gen_server:reply(From, Reply) end, Waiting).

%% Everything that lived in the program is lost with it.
lost(#state{port = Port, routes = Routes} = S) ->
    _ = [erlmcp_native_port_program:close(Port) || Port =/= none],
    None = erlmcp_native_port_routes:lose(port_program, Routes),
    stop_timer(S#state{port = none, os_pid = none, routes = None}).

kill(#state{port = none} = S) ->
    S;
kill(#state{port = Port} = S) ->
    ok = erlmcp_native_port_program:kill(Port),
    S.

timer(Ms, What, S0) ->
    S = stop_timer(S0),
    S#state{timer = erlang:start_timer(Ms, self(), What)}.

stop_timer(#state{timer = none} = S) ->
    S;
stop_timer(#state{timer = Timer} = S) ->
    _ = erlang:cancel_timer(Timer),
    S#state{timer = none}.

look_ms() ->
    application:get_env(erlmcp_native, port_ping_ms, ?LOOK_MS).

now_ms() -> erlang:monotonic_time(millisecond).
