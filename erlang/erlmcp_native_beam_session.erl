%% @doc The process that stands between an owner and its TLS connection.
%%
%% `ssl:send/2' blocks and `ssl' gives its messages to one process; an owner must neither wait
%% nor, when it gives the connection away or ends, lose anything. So this process is the one that
%% `ssl' knows: it holds one chunk ahead of its owner, hands out one each time it is asked
%% ({@link erlmcp_native_beam_keeper}), keeps what is to be sent, and closes in its own time.
-module(erlmcp_native_beam_session).

-export([enter/5, send/4, queued/1]).

-export_type([session/0]).

%% Handed to `ssl' at a time: a few records. The queue is counted in such steps.
-define(BATCH, 65536).

%% Time for the close_notify to leave and to be answered.
-define(GOODBYE_MS, 1000).

%% Of the atomics.
-define(QUEUED, 1).
-define(OVER, 2).

-record(session, {pid :: pid(), shared :: atomics:atomics_ref()}).

-opaque session() :: #session{}.

-record(state, {
    owner :: pid(),
    monitor :: reference(),
    tag :: reference(),
    shared :: atomics:atomics_ref(),
    socket :: ssl:sslsocket(),
    port :: gen_tcp:socket(),
    armed = false :: boolean(),
    %% What has come in and not been asked for.
    chunk = none :: binary() | none,
    lost = none :: erlmcp_native:reason() | none,
    sender :: pid(),
    sending = false :: boolean(),
    lanes = erlmcp_native_beam_lanes:new() :: erlmcp_native_beam_lanes:lanes(),
    %% The rest of what has been taken from these.
    pieces = [] :: [binary()]
}).

%% @doc Makes the calling process the session of a connection that it has established, active
%% once. The process that opens the connection is told, and tells who the owner is.
-spec enter(Opening :: pid(), Tag :: reference(), ssl:sslsocket(), gen_tcp:socket(), map()) ->
    no_return().
enter(Opening, Tag, Socket, Port, Ends) ->
    Shared = atomics:new(2, []),
    Self = self(),
    Keeper = erlmcp_native_beam_keeper:new(Self, Tag, none),
    Opening ! {Self, {tls, Keeper, #session{pid = Self, shared = Shared}, Ends}},
    receive
        {owner, Owner} ->
            loop(#state{
                owner = Owner,
                monitor = monitor(process, Owner),
                tag = Tag,
                shared = Shared,
                socket = Socket,
                port = Port,
                sender = spawn_link(fun() -> sender(Self, Socket) end)
            })
    end.

%% @doc Queues a message of `Size' bytes on the wire, unless that makes too much.
-spec send(session(), iodata(), Size :: pos_integer(), erlmcp_native_beam_out:sending()) ->
    ok | {error, busy | closed}.
send(#session{pid = Pid, shared = Shared}, Wire, Size, Sending) ->
    case {atomics:get(Shared, ?OVER), atomics:get(Shared, ?QUEUED)} of
        {1, _} ->
            {error, closed};
        {0, 0} ->
            %% Nothing to overtake, and nothing gets ahead of it.
            hand_over({Wire, Size}, other, true, Shared, Pid);
        {0, Queued} ->
            case erlmcp_native_priority:admit(Queued, Size, Sending) of
                {ok, Role, Urgent} -> hand_over({Wire, Size}, Role, Urgent, Shared, Pid);
                {error, busy} = Busy -> Busy
            end
    end.

hand_over({_, Size} = Item, Role, Urgent, Shared, Pid) ->
    ok = atomics:add(Shared, ?QUEUED, Size),
    Pid ! {send, Item, Role, Urgent},
    ok.

%% @doc Bytes that wait to be sent.
-spec queued(session()) -> non_neg_integer().
queued(#session{shared = Shared}) ->
    atomics:get(Shared, ?QUEUED).

loop(#state{socket = Socket, monitor = Monitor, sender = Sender} = S) ->
    receive
        {ssl, Socket, Chunk} -> loop(deliver(S#state{chunk = Chunk}));
        {ssl_closed, Socket} -> loop(over(closed, S));
        {ssl_error, Socket, Reason} -> loop(over(erlmcp_native_beam_tls:reason(Reason), S));
        arm -> loop(deliver(S#state{armed = true}));
        {give, NewOwner, From, Ref} -> loop(given(NewOwner, From, Ref, S));
        {send, Item, Role, Urgent} -> loop(transmit(enqueue(Item, Role, Urgent, S)));
        {Sender, sent, Size, Result} -> loop(sent(Size, Result, S));
        {close, LingerMs} -> closing(LingerMs, S);
        {'DOWN', Monitor, process, _, _} -> orphaned(S)
    end.

deliver(#state{armed = true, chunk = Chunk} = S) when Chunk =/= none ->
    ok = tell({data, Chunk}, S),
    activate(S#state{armed = false, chunk = none});
deliver(#state{armed = true, lost = Reason} = S) when Reason =/= none ->
    ok = tell({lost, Reason}, S),
    S#state{armed = false};
deliver(S) ->
    S.

tell(Arrival, #state{owner = Owner, tag = Tag}) ->
    Owner ! {Tag, Arrival},
    ok.

%% One chunk ahead of the owner `ssl' is always active: else it would not tell of an alert.
activate(#state{lost = none, socket = Socket} = S) ->
    case ssl:setopts(Socket, [{active, once}]) of
        ok -> S;
        {error, _} -> over(last_words(Socket), S)
    end;
activate(S) ->
    S.

last_words(Socket) ->
    receive
        {ssl_error, Socket, Reason} -> erlmcp_native_beam_tls:reason(Reason)
    after 0 -> closed
    end.

over(Reason, #state{lost = none} = S) ->
    deliver(drop_queue(S#state{lost = Reason}));
over(_, S) ->
    S.

drop_queue(#state{shared = Shared} = S) ->
    ok = atomics:put(Shared, ?OVER, 1),
    ok = atomics:put(Shared, ?QUEUED, 0),
    S#state{lanes = erlmcp_native_beam_lanes:new(), pieces = []}.

given(_, From, Ref, #state{owner = Owner} = S) when From =/= Owner ->
    From ! {Ref, not_owner},
    S;
given(NewOwner, From, Ref, #state{monitor = Monitor} = S) ->
    demonitor(Monitor, [flush]),
    From ! {Ref, given},
    S#state{owner = NewOwner, monitor = monitor(process, NewOwner), armed = false}.

enqueue(Item, Role, Urgent, #state{lost = none, lanes = Lanes} = S) ->
    S#state{lanes = erlmcp_native_beam_lanes:push(Item, Role, Urgent, Lanes)};
enqueue(_, _, _, S) ->
    S.

transmit(#state{sending = false, pieces = [Piece | Pieces]} = S) ->
    write(Piece, byte_size(Piece), S#state{pieces = Pieces});
transmit(#state{sending = false, lanes = Lanes0} = S) ->
    case erlmcp_native_beam_lanes:batch(?BATCH, Lanes0) of
        {_, 0, _} ->
            S;
        {Data, Size, Lanes} when Size < 2 * ?BATCH ->
            write(Data, Size, S#state{lanes = Lanes});
        {Data, _, Lanes} ->
            %% However large a message, the driver queues all that it is handed at once.
            Pieces = lists:flatmap(fun pieces/1, erlang:iolist_to_iovec(Data)),
            transmit(S#state{lanes = Lanes, pieces = Pieces})
    end;
transmit(S) ->
    S.

write(Data, Size, #state{sender = Sender} = S) ->
    Sender ! {write, Data, Size},
    S#state{sending = true}.

pieces(<<Piece:?BATCH/binary, Rest/binary>>) -> [Piece | pieces(Rest)];
pieces(<<>>) -> [];
pieces(Piece) -> [Piece].

sent(Size, ok, #state{lost = none, shared = Shared} = S) ->
    ok = atomics:sub(Shared, ?QUEUED, Size),
    transmit(S#state{sending = false});
sent(_, ok, S) ->
    S#state{sending = false};
%% The reason comes from `ssl' as a message.
sent(_, {error, _}, S) ->
    drop_queue(S#state{sending = false}).

closing(LingerMs, #state{monitor = Monitor} = S) ->
    demonitor(Monitor, [flush]),
    Timer = erlang:start_timer(LingerMs, self(), linger),
    flush(Timer, S#state{armed = false}).

flush(Timer, #state{sending = false, sender = Sender} = S) ->
    Sender ! close,
    goodbye(Timer, S);
flush(Timer, #state{socket = Socket, sender = Sender} = S) ->
    receive
        {Sender, sent, Size, Result} -> flush(Timer, sent(Size, Result, S));
        {ssl, Socket, _} -> flush(Timer, activate(S));
        {timeout, Timer, linger} -> abort(S)
    end.

%% `ssl:close/1' waits for the peer, which may take its time or never answer.
goodbye(Timer, #state{sender = Sender, port = Port} = S) ->
    receive
        {Sender, closed} -> exit(shutdown)
    after ?GOODBYE_MS ->
        case inet:getstat(Port, [send_pend]) of
            {ok, [{send_pend, Left}]} when Left > 0 -> last_bytes(Timer, S);
            _ -> gen_tcp:close(Port)
        end,
        exit(shutdown)
    end.

last_bytes(Timer, #state{sender = Sender} = S) ->
    receive
        {Sender, closed} -> ok;
        {timeout, Timer, linger} -> abort(S)
    end.

%% The owner has ended. With nothing to be sent `ssl' says goodbye when this process ends; else
%% it would wait for the peer to read.
-spec orphaned(#state{}) -> no_return().
orphaned(#state{sending = false}) -> exit(shutdown);
orphaned(S) -> abort(S).

-spec abort(#state{}) -> no_return().
abort(#state{port = Port}) ->
    ok = erlmcp_native_beam_inet:abort(Port),
    exit(shutdown).

sender(Session, Socket) ->
    receive
        {write, Data, Size} ->
            Session ! {self(), sent, Size, ssl:send(Socket, Data)},
            sender(Session, Socket);
        close ->
            _ = ssl:close(Socket),
            Session ! {self(), closed}
    end.
