%% @private A link with what an erlmcp receiver needs around it: the guard, an outbox for answers
%% that nobody waits for, and counters. A value, like the link, in the process that owns it.
-module(erlmcp_native_guarded).

-include_lib("kernel/include/logger.hrl").

-export([new/1, guard/2, dial/3, adopt/3, close/1, handle_info/2]).
-export([take/3, lost/1, receiver_lost/1, undelivered/2, attempt_failed/1]).
-export([send/2, answer/2, blocked/1, overflowed/1, info/1]).

-export_type([guarded/0]).

-record(guarded, {
    link = none :: erlmcp_native_link:link() | none,
    guard = none :: erlmcp_native_guard:guard() | none,
    outbox = queue:new() :: queue:queue(iodata()),
    outbox_bytes = 0 :: non_neg_integer(),
    max_outbox_bytes :: pos_integer(),
    overflowed = false :: boolean(),
    stats = erlmcp_native_transport_stats:new() :: erlmcp_native_transport_stats:stats()
}).

-opaque guarded() :: #guarded{}.

-spec new(MaxOutboxBytes :: pos_integer()) -> guarded().
new(MaxOutboxBytes) ->
    #guarded{max_outbox_bytes = MaxOutboxBytes}.

-spec guard(erlmcp_native_guard:receiver(), guarded()) -> guarded().
guard(Receiver, Guarded) ->
    Guarded#guarded{guard = erlmcp_native_guard:new(Receiver)}.

-spec dial(erlmcp_native:endpoint(), erlmcp_native_link:options(), guarded()) ->
    {ok, guarded()} | {error, erlmcp_native:reason()}.
dial(Endpoint, Options, Guarded) ->
    case erlmcp_native_link:dial(Endpoint, Options) of
        {ok, Link} -> {ok, Guarded#guarded{link = Link}};
        {error, _} = Error -> Error
    end.

-spec adopt(module(), erlmcp_native_path:socket(), guarded()) ->
    {[erlmcp_native_link:event()], guarded()}.
adopt(Path, Socket, Guarded) ->
    {Events, Link} = erlmcp_native_link:adopt(Path, Socket),
    {Events, connected(Events, Guarded#guarded{link = Link})}.

-spec close(guarded()) -> guarded().
close(#guarded{link = none} = Guarded) -> Guarded;
close(#guarded{link = Link} = Guarded) -> Guarded#guarded{link = erlmcp_native_link:close(Link)}.

%% @doc As {@link erlmcp_native_link:handle_info/2}; after `writable' see {@link blocked/1}.
-spec handle_info(term(), guarded()) -> {[erlmcp_native_link:event()], guarded()} | unknown.
handle_info(_, #guarded{link = none}) ->
    unknown;
handle_info(Msg, #guarded{link = Link} = Guarded) ->
    case erlmcp_native_link:handle_info(Msg, Link) of
        {Events, Next} -> {Events, connected(Events, Guarded#guarded{link = Next})};
        unknown -> unknown
    end.

connected(Events, Guarded) -> lists:foldl(fun connected_event/2, Guarded, Events).

connected_event(connected, #guarded{stats = Stats} = Guarded) ->
    Now = erlang:system_time(millisecond),
    Guarded#guarded{stats = erlmcp_native_transport_stats:connected(Now, Stats)};
connected_event(writable, Guarded) ->
    flush(Guarded);
connected_event(_, Guarded) ->
    Guarded.

%% @doc Takes from the link what is for the receiver; what is not has been answered or dropped.
-spec take(MaxItems :: pos_integer(), MaxBytes :: pos_integer(), guarded()) ->
    {Deliver :: [binary()], Status, guarded()}
when
    Status ::
        more | again | empty | eof | {down, erlmcp_native:reason(), erlmcp_native_link:next()}.
take(MaxItems, MaxBytes, #guarded{link = Link} = Guarded) ->
    {Items, Status, Next} = erlmcp_native_link:take(Link, MaxItems, MaxBytes),
    {Deliver, Judged} = lists:foldl(fun item/2, {[], Guarded#guarded{link = Next}}, Items),
    {lists:reverse(Deliver), Status, Judged}.

item({oversized, _}, {Deliver, #guarded{guard = none} = Guarded}) ->
    {Deliver, failed(Guarded)};
item({oversized, _}, {Deliver, #guarded{guard = Guard} = Guarded}) ->
    judged(erlmcp_native_guard:oversized(Guard), Deliver, failed(Guarded));
item(Frame, {Deliver, #guarded{guard = Guard, stats = Stats} = Guarded}) ->
    Received = Guarded#guarded{
        stats = erlmcp_native_transport_stats:received(byte_size(Frame), Stats)
    },
    case Guard of
        none -> {[Frame | Deliver], Received};
        _ -> judged(erlmcp_native_guard:inbound(Frame, Guard), Deliver, Received)
    end.

judged({New, Replies, Guard}, Deliver, Guarded) ->
    {lists:reverse(New, Deliver), post(Replies, Guarded#guarded{guard = Guard})}.

%% @doc The connection is lost: forgets what belongs to it, and gives what the receiver gets in
%% place of answers.
-spec lost(guarded()) -> {Deliver :: [binary()], guarded()}.
lost(#guarded{guard = Guard} = Guarded) ->
    Emptied = empty(Guarded),
    case Guard of
        none ->
            {[], Emptied};
        _ ->
            {Deliver, Next} = erlmcp_native_guard:connection_lost(Guard),
            {Deliver, Emptied#guarded{guard = Next}}
    end.

%% @doc The receiver is gone: answers what it had not.
-spec receiver_lost(guarded()) -> guarded().
receiver_lost(#guarded{guard = none} = Guarded) ->
    Guarded;
receiver_lost(#guarded{guard = Guard} = Guarded) ->
    {Replies, Next} = erlmcp_native_guard:receiver_lost(Guard),
    post(Replies, Guarded#guarded{guard = Next}).

%% @doc There was nobody to give these messages to: answers the requests among them.
-spec undelivered([binary()], guarded()) -> guarded().
undelivered([], Guarded) ->
    Guarded;
undelivered(Messages, #guarded{guard = none} = Guarded) ->
    post(erlmcp_native_undelivered:answers(Messages), Guarded);
undelivered(_, Guarded) ->
    receiver_lost(Guarded).

-spec attempt_failed(guarded()) -> guarded().
attempt_failed(#guarded{stats = Stats} = Guarded) ->
    Guarded#guarded{stats = erlmcp_native_transport_stats:attempt_failed(Stats)}.

%% @doc Sends for a caller that hears of the result.
-spec send(iodata(), guarded()) -> {ok | {error, erlmcp_native:reason()}, guarded()}.
send(Data, Guarded) ->
    case blocked(Guarded) of
        true ->
            {{error, busy}, failed(Guarded)};
        false ->
            {Messages, Guard} = outbound(Data, Guarded),
            case write(Messages, Guarded) of
                {ok, Written} -> {ok, Written#guarded{guard = Guard}};
                {{error, _} = Error, Unwritten} -> {Error, failed(Unwritten)}
            end
    end.

%% @doc Sends for a receiver that hears of no result.
-spec answer(iodata(), guarded()) -> guarded().
answer(Data, Guarded) ->
    {Messages, Guard} = outbound(Data, Guarded),
    post(Messages, Guarded#guarded{guard = Guard}).

%% @doc Whether answers wait because the peer does not read. Taking more would make them more.
-spec blocked(guarded()) -> boolean().
blocked(#guarded{outbox = Outbox}) ->
    not queue:is_empty(Outbox).

%% @doc Whether an answer was lost because too many wait. A connection that stood on would leave
%% the peer waiting for it.
-spec overflowed(guarded()) -> boolean().
overflowed(#guarded{overflowed = Overflowed}) ->
    Overflowed.

-spec info(guarded()) -> #{link := map(), guard := map() | false, statistics := map()}.
info(#guarded{link = Link, guard = Guard, stats = Stats}) ->
    #{
        link =>
            case Link of
                none -> #{attempts => 0};
                _ -> erlmcp_native_link:info(Link)
            end,
        guard =>
            case Guard of
                none -> false;
                _ -> erlmcp_native_guard:info(Guard)
            end,
        statistics => erlmcp_native_transport_stats:report(Stats)
    }.

outbound(Data, #guarded{guard = none}) -> {[Data], none};
outbound(Data, #guarded{guard = Guard}) -> erlmcp_native_guard:outbound(Data, Guard).

write([], Guarded) ->
    {ok, Guarded};
write(_, #guarded{link = none} = Guarded) ->
    {{error, not_connected}, Guarded};
write([Data | Rest], #guarded{link = Link, stats = Stats} = Guarded) ->
    case erlmcp_native_link:send(Data, Link) of
        {ok, Next} ->
            Sent = erlmcp_native_transport_stats:sent(iolist_size(Data), Stats),
            write(Rest, Guarded#guarded{link = Next, stats = Sent});
        {{error, _} = Error, Next} ->
            {Error, Guarded#guarded{link = Next}}
    end.

post(Messages, Guarded) -> lists:foldl(fun post_one/2, Guarded, Messages).

post_one(Data, Guarded) ->
    case blocked(Guarded) of
        true ->
            put_by(Data, Guarded);
        false ->
            case write([Data], Guarded) of
                {ok, Written} -> Written;
                {{error, busy}, Unwritten} -> put_by(Data, Unwritten);
                {{error, Reason}, Unwritten} -> unsent(Data, Reason, Unwritten)
            end
    end.

%% Where the fault is in the message, the connection stands and the peer goes on waiting. What
%% replaces it must be smaller, or it might come here again for ever.
unsent(Data, Reason, #guarded{guard = Guard} = Guarded) when
    Guard =/= none, Reason =:= frame_too_large orelse Reason =:= embedded_newline
->
    {Messages, Next} = erlmcp_native_guard:unsendable(Data, Guard),
    Size = iolist_size(Data),
    Smaller = [Message || Message <- Messages, iolist_size(Message) < Size],
    post(Smaller, drop(Reason, Guarded#guarded{guard = Next}));
unsent(_, Reason, Guarded) ->
    drop(Reason, Guarded).

put_by(Data, #guarded{outbox = Outbox, outbox_bytes = Bytes} = Guarded) ->
    Sum = Bytes + iolist_size(Data),
    case queue:is_empty(Outbox) orelse Sum =< Guarded#guarded.max_outbox_bytes of
        true -> Guarded#guarded{outbox = queue:in(Data, Outbox), outbox_bytes = Sum};
        false -> failed(Guarded#guarded{overflowed = true})
    end.

flush(#guarded{outbox = Outbox, outbox_bytes = Bytes} = Guarded) ->
    case queue:out(Outbox) of
        {empty, _} ->
            Guarded;
        {{value, Data}, Rest} ->
            case write([Data], Guarded) of
                {{error, busy}, Unwritten} ->
                    Unwritten;
                {Result, Next} ->
                    Left = Next#guarded{outbox = Rest, outbox_bytes = Bytes - iolist_size(Data)},
                    flush(flushed(Result, Data, Left))
            end
    end.

flushed(ok, _, Guarded) -> Guarded;
flushed({error, Reason}, Data, Guarded) -> unsent(Data, Reason, Guarded).

empty(#guarded{outbox = Outbox} = Guarded) ->
    case queue:len(Outbox) of
        0 -> ok;
        Lost -> ?LOG_WARNING("erlmcp_native: ~b answers are lost with the connection", [Lost])
    end,
    Guarded#guarded{outbox = queue:new(), outbox_bytes = 0, overflowed = false}.

drop(Reason, Guarded) ->
    ?LOG_WARNING("erlmcp_native: an answer could not be sent: ~0p", [Reason]),
    failed(Guarded).

failed(#guarded{stats = Stats} = Guarded) ->
    Guarded#guarded{stats = erlmcp_native_transport_stats:error(Stats)}.
