%% @doc The `beam' path: connections in pure Erlang, with `gen_tcp' and `ssl'.
%%
%% Raw mode, one chunk at a time, all newlines of a chunk found at once. `{active, once}' is set
%% again only when every frame of the chunk has been taken, so a slow owner costs a chunk and
%% the beginning of a frame, and its peer feels it.
%%
%% Where this path differs from `nif', which reads on while it writes:
%% <ul>
%% <li>A send that meets a broken connection ends it, with what the kernel had received and not
%% delivered yet.</li>
%% <li>`ssl' answers the peer's close_notify with its own: over TLS `half_close' makes no
%% difference, the connection is `closed'. A reset is reported as `closed' too.</li>
%% <li>After `{eof, armed}' the loss of the connection shows only when something is sent.</li>
%% <li>Child processes: see {@link erlmcp_native_beam_child}.</li>
%% </ul>
%% Bytes after the last complete frame are dropped at the end of the stream, and the reason stays
%% `closed'.
-module(erlmcp_native_beam_path).

-behaviour(erlmcp_native_path).

-export([open/2, take/3, send/3, sender/1, handle_info/2, close/1, give/2, info/1]).
-export([listen/2, accept/2, listener_handle_info/2, listener_info/1, listener_close/1]).
-export([accepted/3]).

-export_type([socket/0, listener/0]).

%% How often a full queue is looked at. The intervals double, so the notice is late by no more
%% than the time that has already passed; `inet' offers a notice of its low watermark to none
%% but the callers that it has suspended.
-define(FIRST_LOOK_MS, 1).
-define(LAST_LOOK_MS, 50).

-record(socket, {
    phase ::
        {connecting, erlmcp_native_beam_opening:opening()}
        | {open, erlmcp_native_beam_stream:stream()}
        | failed,
    options :: erlmcp_native_options:connection() | erlmcp_native_options:listener(),
    frames :: erlmcp_native_beam_frame:frames(),
    high_water :: erlmcp_native_high_water:high_water(),
    %% Of the last chunk, which was read at once.
    chunk = 0 :: non_neg_integer(),
    %% Own messages carry it.
    tag = make_ref() :: reference(),
    %% Given to this owner, who has not taken yet.
    given = false :: boolean(),
    armed = false :: boolean(),
    %% What follows the frames.
    loss = none :: none | eof | erlmcp_native:reason(),
    refused = false :: boolean(),
    look = none :: none | {Timer :: reference(), Ms :: pos_integer()},
    counts :: erlmcp_native_beam_count:counts(),
    ends = #{peername => undefined, sockname => undefined, peercert => undefined} :: map(),
    frames_in = 0 :: non_neg_integer(),
    bytes_in = 0 :: non_neg_integer(),
    frames_out = 0 :: non_neg_integer(),
    bytes_out = 0 :: non_neg_integer()
}).

-opaque socket() :: #socket{}.
-type listener() :: erlmcp_native_beam_listener:listener().

%% @private
-spec open(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    {ok, socket()} | {error, erlmcp_native:reason()}.
open(Endpoint, Options) ->
    case erlmcp_native_decode:available(beam, Options) of
        ok -> begin_to(Endpoint, Options);
        {error, _} = Error -> Error
    end.

begin_to(stdio, Options) ->
    erlmcp_native_stdio:open(Options, fun() -> open_stdio(Options) end);
begin_to(#{command := _} = Child, #{high_water_bytes := HighWater} = Options) ->
    case erlmcp_native_beam_child:start(Child, HighWater) of
        {ok, Keeper, Out, Ends} ->
            Stream = erlmcp_native_beam_stream:child(Keeper, Out),
            {ok, started(new({open, Stream}, Options, Ends, stdio))};
        {error, {path_unavailable, _, _}} = Error ->
            Error;
        {error, Reason} ->
            {ok, started(lose(Reason, new(failed, Options, #{}, stdio)))}
    end;
begin_to(Endpoint, Options) ->
    {ok, new({connecting, erlmcp_native_beam_opening:dial(Endpoint, Options)}, Options, #{})}.

%% Whoever opens a connection waits for the outcome.
started(#socket{tag = Tag} = S) ->
    self() ! {Tag, started},
    S.

open_stdio(Options) ->
    ok = erlmcp_native_user:take_over(),
    case erlmcp_native_beam_stdio:open(Options) of
        {ok, Device} ->
            Stream = erlmcp_native_beam_stream:stdio(Device),
            Socket = started(new({open, Stream}, Options, #{}, stdio)),
            {ok, Socket, erlmcp_native_beam_stdio:leaving(Device)};
        {error, _} = Error ->
            Error
    end.

%% @doc The socket of an accepted connection, for the listener.
-spec accepted(
    {connecting, erlmcp_native_beam_opening:opening()} | {open, erlmcp_native_beam_stream:stream()},
    erlmcp_native_options:listener(),
    Ends :: map()
) -> socket().
accepted(Phase, Options, Ends) ->
    new(Phase, Options, Ends).

new(Phase, Options, Ends) ->
    new(Phase, Options, Ends, tcp).

new(Phase, Options, Ends, Transport) ->
    S = #socket{
        phase = Phase,
        options = Options,
        frames = erlmcp_native_beam_frame:new(Options),
        high_water = erlmcp_native_high_water:new(Options),
        counts = counted(Phase, erlmcp_native_beam_count:new(Transport))
    },
    S#socket{ends = maps:merge(S#socket.ends, Ends)}.

counted({connecting, _}, Counts) ->
    Counts;
counted(Outcome, Counts) ->
    ok =
        case Outcome of
            failed -> erlmcp_native_beam_count:failed(Counts);
            {open, _} -> erlmcp_native_beam_count:opened(Counts)
        end,
    Counts.

%% @private
-spec take(socket(), non_neg_integer(), non_neg_integer()) ->
    {[erlmcp_native_path:item()], erlmcp_native_path:status(), socket()}.
take(#socket{given = true} = S, MaxItems, MaxBytes) ->
    take(settle_in(S), MaxItems, MaxBytes);
take(#socket{phase = {connecting, _}} = S, _, _) ->
    {[], connecting, S};
take(#socket{frames = Frames0} = S0, MaxItems, MaxBytes) ->
    {Items, Left, Frames} = erlmcp_native_beam_frame:take(Frames0, MaxItems, MaxBytes),
    Count = length(Items),
    S = S0#socket{frames = Frames, frames_in = S0#socket.frames_in + Count},
    #socket{options = #{decode := Decode}, counts = Counts} = S,
    ok = erlmcp_native_beam_count:frames_in(Count, Counts),
    ok = erlmcp_native_beam_count:oversized(oversized(Left, Items, S), Counts),
    after_items(Left, erlmcp_native_decode:items(Decode, beam, Items), S).

oversized(too_large, _, _) -> 1;
oversized(_, Items, #socket{options = #{on_oversize := discard}}) ->
    length([Bytes || {oversized, Bytes} <- Items]);
oversized(_, _, _) -> 0.

after_items(more, Items, S) ->
    {Items, more, S};
after_items(too_large, Items, S) ->
    {Items, {down, frame_too_large}, lose(frame_too_large, S)};
after_items(empty, Items, S0) ->
    case arm(S0) of
        #socket{loss = none} = S -> {Items, armed, S};
        #socket{loss = eof} = S -> {Items, {eof, armed}, S};
        #socket{loss = Reason} = S -> {Items, {down, Reason}, S}
    end.

%% The first act of a new owner.
settle_in(S) ->
    look_later(watch(S#socket{given = false})).

watch(#socket{phase = {connecting, Opening}} = S) ->
    S#socket{phase = {connecting, erlmcp_native_beam_opening:watch(Opening)}};
watch(#socket{phase = {open, Stream}} = S) ->
    S#socket{phase = {open, erlmcp_native_beam_stream:watch(Stream)}};
watch(S) ->
    S.

arm(#socket{armed = false, loss = none, phase = {open, _}} = S) ->
    ask(adapt(S));
arm(#socket{loss = eof} = S) ->
    S#socket{armed = true};
arm(S) ->
    S.

ask(#socket{phase = {open, Stream}} = S) ->
    case erlmcp_native_beam_stream:arm(Stream) of
        ok -> S#socket{armed = true};
        {error, Reason} -> lose(Reason, S)
    end.

%% A chunk is read ahead of the owner, who has taken the last one.
adapt(#socket{chunk = Chunk, high_water = Before, phase = {open, Stream}} = S) ->
    Mark = erlmcp_native_high_water:mark(Before),
    Now = erlang:monotonic_time(microsecond),
    After = erlmcp_native_high_water:taken(Chunk, Chunk >= Mark, Now, Before),
    case erlmcp_native_high_water:mark(After) of
        Mark -> ok;
        New -> erlmcp_native_beam_stream:read_ahead(Stream, New)
    end,
    S#socket{high_water = After, chunk = 0}.

%% The first reason counts; the end of the peer's data is none yet.
lose(Reason, #socket{loss = Loss} = S) when Loss =:= none; Loss =:= eof ->
    ok = count_end(S),
    S#socket{loss = Reason};
lose(_, S) ->
    S.

count_end(#socket{phase = {open, _}, counts = Counts}) -> erlmcp_native_beam_count:ended(Counts);
count_end(_) -> ok.

%% @private
-spec send(socket(), iodata(), erlmcp_native_path:priority()) ->
    {ok | {error, erlmcp_native:reason()}, socket()}.
send(#socket{options = #{framing := Framing, max_frame_bytes := Max}} = S, Data, Priority) ->
    case erlmcp_native_beam_frame:encode(Framing, Max, Data) of
        {ok, Wire, Size} -> transmit(Wire, Size, Data, Priority, S);
        {error, _} = Error -> {Error, S}
    end.

transmit(_, _, _, _, #socket{phase = {connecting, _}} = S) ->
    {{error, not_connected}, S};
transmit(Wire, Size, Data, Priority, #socket{phase = {open, Stream0}, loss = Loss} = S0) when
    Loss =:= none; Loss =:= eof
->
    #socket{options = #{max_queue_bytes := Max, max_urgent_bytes := Reserve}} = S0,
    Sending = #{priority => Priority, max => Max, reserve => Reserve, message => Data},
    {Result, Stream} = erlmcp_native_beam_stream:send(Stream0, Wire, Size, Sending),
    S = S0#socket{phase = {open, Stream}},
    case Result of
        ok ->
            #socket{frames_out = Frames, bytes_out = Bytes, counts = Counts} = S,
            ok = erlmcp_native_beam_count:sent(Size, Counts),
            {ok, S#socket{frames_out = Frames + 1, bytes_out = Bytes + Size}};
        {error, busy} ->
            ok = erlmcp_native_beam_count:busy(S#socket.counts),
            {Result, look_later(S#socket{refused = true})};
        {error, Reason} ->
            %% Those who wait for the notice are to learn of it as well. What `inet' says of the
            %% reason may be in the mailbox already.
            self() ! {S#socket.tag, {lost, Reason}},
            {{error, closed}, S}
    end;
transmit(_, _, _, _, S) ->
    {{error, closed}, S}.

look_later(#socket{refused = true, look = none} = S) ->
    look_in(?FIRST_LOOK_MS, S);
look_later(S) ->
    S.

look_in(Ms, #socket{tag = Tag} = S) ->
    S#socket{look = {erlang:send_after(Ms, self(), {Tag, look}), Ms}}.

%% @private
-spec sender(socket()) -> none.
sender(_) ->
    none.

%% @private
-spec handle_info(term(), socket()) -> {erlmcp_native_path:notice(), socket()} | unknown.
handle_info({Tag, look}, #socket{tag = Tag} = S) ->
    look(S);
handle_info({Tag, started}, #socket{tag = Tag} = S) ->
    {ready, S};
handle_info({Tag, {lost, Reason}}, #socket{tag = Tag} = S) ->
    notice(lose(Reason, S));
handle_info(Msg, #socket{phase = {connecting, Opening}} = S) ->
    case erlmcp_native_beam_opening:handle_info(Msg, Opening) of
        unknown -> unknown;
        Outcome -> {ready, watch(opened(Outcome, S))}
    end;
handle_info(Msg, #socket{phase = {open, Stream}} = S) ->
    case erlmcp_native_beam_stream:handle_info(Msg, Stream) of
        unknown -> unknown;
        Arrival -> notice(arrived(Arrival, S))
    end;
handle_info(_, #socket{phase = failed}) ->
    unknown.

opened({open, Stream, Ends}, #socket{counts = Counts} = S) ->
    ok = erlmcp_native_beam_count:opened(Counts),
    S#socket{phase = {open, Stream}, ends = Ends};
opened({failed, Reason}, #socket{counts = Counts} = S) ->
    ok = erlmcp_native_beam_count:failed(Counts),
    S#socket{phase = failed, loss = Reason}.

arrived({data, Chunk}, #socket{frames = Frames, bytes_in = Bytes, counts = Counts} = S) ->
    ok = erlmcp_native_beam_count:bytes_in(byte_size(Chunk), Counts),
    S#socket{
        frames = erlmcp_native_beam_frame:push(Chunk, Frames),
        chunk = byte_size(Chunk),
        bytes_in = Bytes + byte_size(Chunk)
    };
arrived({lost, closed}, #socket{loss = none, options = #{half_close := true, tls := false}} = S) ->
    S#socket{loss = eof};
arrived({lost, Reason}, S) ->
    lose(Reason, S).

%% Whether the owner, who was told that nothing is left, is to be told that something is. The
%% middle of a frame is nothing to it.
notice(#socket{armed = false} = S) ->
    {none, S};
notice(#socket{frames = Frames0} = S0) ->
    {[], Left, Frames} = erlmcp_native_beam_frame:take(Frames0, 0, 0),
    S = S0#socket{frames = Frames, armed = false},
    case Left of
        empty -> notice_end(arm(S));
        _ -> {ready, S}
    end.

notice_end(#socket{loss = none} = S) -> {none, S};
notice_end(S) -> {ready, S#socket{armed = false}}.

look(#socket{refused = true, phase = {open, Stream0}, look = {_, Ms}} = S0) ->
    {Queued, Stream} = erlmcp_native_beam_stream:queued(Stream0),
    S = S0#socket{phase = {open, Stream}, look = none},
    case S of
        #socket{loss = Loss} when Loss =/= none, Loss =/= eof ->
            {none, S#socket{refused = false}};
        #socket{options = #{max_queue_bytes := Max}} when Queued =< Max div 2 ->
            {writable, S#socket{refused = false}};
        _ ->
            {none, look_in(min(2 * Ms, ?LAST_LOOK_MS), S)}
    end;
look(S) ->
    {none, S}.

%% @private
-spec close(socket()) -> ok.
close(#socket{phase = {connecting, Opening}}) ->
    erlmcp_native_beam_opening:cancel(Opening);
close(#socket{phase = {open, Stream}, options = #{linger_ms := Linger}} = S) ->
    %% Counts the end, unless it has been.
    _ = lose(closed, forget_own(S)),
    erlmcp_native_beam_stream:close(Stream, Linger);
close(#socket{phase = failed}) ->
    ok.

%% @private
-spec give(socket(), pid()) -> {ok, socket()} | {error, erlmcp_native:reason()}.
give(#socket{phase = {connecting, Opening0}} = S, NewOwner) ->
    case erlmcp_native_beam_opening:give(Opening0, NewOwner) of
        {pending, Opening} -> {ok, S#socket{phase = {connecting, Opening}, given = true}};
        {given, Outcome} -> {ok, (opened(Outcome, S))#socket{given = true}};
        {kept, Outcome} -> give(opened(Outcome, S), NewOwner)
    end;
give(#socket{phase = {open, Stream}} = S, NewOwner) ->
    case is_process_alive(NewOwner) of
        true ->
            Arrivals = erlmcp_native_beam_stream:give(Stream, NewOwner),
            Given = lists:foldl(fun arrived/2, forget_own(S), Arrivals),
            {ok, Given#socket{armed = false, given = true}};
        false ->
            {error, {posix, esrch}}
    end;
give(S, _) ->
    {ok, S}.

%% Own messages that are under way would reach an owner that no longer knows them.
forget_own(#socket{tag = Tag, look = Look} = S) ->
    _ = [erlang:cancel_timer(Timer) || {Timer, _} <- [Look]],
    receive
        {Tag, {lost, Reason}} -> forget_own(lose(Reason, S#socket{look = none}));
        {Tag, look} -> forget_own(S#socket{look = none});
        {Tag, started} -> forget_own(S)
    after 0 -> S#socket{look = none}
    end.

%% @private
-spec info(socket()) -> erlmcp_native:socket_info().
info(#socket{ends = Ends, frames = Frames} = S) ->
    Ends#{
        state => state(S),
        frames_in => S#socket.frames_in,
        bytes_in => S#socket.bytes_in,
        frames_out => S#socket.frames_out,
        bytes_out => S#socket.bytes_out,
        inbound_bytes => erlmcp_native_beam_frame:waiting(Frames),
        queue_bytes => queued(S),
        buffers => erlmcp_native_high_water:info(read_size(S), S#socket.high_water)
    }.

read_size(#socket{phase = {open, Stream}}) -> erlmcp_native_beam_stream:read_size(Stream);
read_size(_) -> 0.

state(#socket{phase = {connecting, _}}) -> connecting;
state(#socket{loss = none}) -> open;
state(#socket{loss = eof}) -> eof;
state(_) -> down.

queued(#socket{phase = {open, Stream}}) -> element(1, erlmcp_native_beam_stream:queued(Stream));
queued(_) -> 0.

%% @private
-spec listen(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, listener()} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options) ->
    case erlmcp_native_decode:available(beam, Options) of
        ok -> erlmcp_native_beam_listener:listen(Endpoint, Options);
        {error, _} = Error -> Error
    end.

%% @private
-spec accept(listener(), pos_integer()) ->
    {[socket()], armed | more | {down, erlmcp_native:reason()}, listener()}.
accept(Listener, Max) ->
    erlmcp_native_beam_listener:accept(Listener, Max).

%% @private
-spec listener_handle_info(term(), listener()) -> {ready | none, listener()} | unknown.
listener_handle_info(Msg, Listener) ->
    erlmcp_native_beam_listener:handle_info(Msg, Listener).

%% @private
-spec listener_info(listener()) -> #{sockname := erlmcp_native:address()}.
listener_info(Listener) ->
    erlmcp_native_beam_listener:info(Listener).

%% @private
-spec listener_close(listener()) -> ok.
listener_close(Listener) ->
    erlmcp_native_beam_listener:close(Listener).
