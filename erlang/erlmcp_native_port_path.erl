%% @doc The `port' path: the Rust core in the port program.
%%
%% The program sends frames ahead of the owner, within a window of `high_water_bytes', or the
%% lower of two bounds, that taking opens again: that much may wait on this side of the pipe, too.
%% `max_queue_bytes' bounds what is under way to the peer, the pipe included: the queue can be
%% full, for a moment, while the peer reads. `max_frame_bytes' is 1 GiB at most.
-module(erlmcp_native_port_path).

-behaviour(erlmcp_native_path).

-include("erlmcp_native_port.hrl").

-export([open/2, take/3, send/3, sender/1, send_direct/3, handle_info/2, close/1, give/2, info/1]).
-export([listen/2, accept/2, listener_handle_info/2, listener_info/1, listener_close/1]).
-export([accepted/3]).

-export_type([socket/0, listener/0]).

-record(socket, {
    id :: erlmcp_native_port:id(),
    handle :: erlmcp_native_port:handle(),
    sending :: erlmcp_native_port_sending:sending(),
    options :: erlmcp_native_options:connection() | erlmcp_native_options:listener(),
    child = none :: erlmcp_native_port_child:child() | none,
    %% Of the process that routes.
    router :: reference() | none,
    phase = connecting :: connecting | open | failed,
    %% Given to this owner, who has not taken yet.
    given = false :: boolean(),
    armed = true :: boolean(),
    inbound :: erlmcp_native_port_inbound:inbound(),
    %% What follows the frames.
    loss = none :: none | eof | erlmcp_native:reason(),
    %% What was taken and the program has not been told of, and what it may still send.
    taken = 0 :: non_neg_integer(),
    window :: integer()
}).

-opaque socket() :: #socket{}.
-type listener() :: erlmcp_native_port_listener:listener().

-define(INFO_MS, 5000).

%% A packet has 2 GiB at most.
-define(MAX_FRAME_BYTES, 16#40000000).

%% @private
-spec open(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    {ok, socket()} | {error, erlmcp_native:reason()}.
open(#{command := _} = Given, Options) ->
    case erlmcp_native_port_child:new(Given) of
        {ok, Child} -> open(?TO_CHILD, erlmcp_native_port_child:wire(Child), Child, Options);
        {error, _} = Error -> Error
    end;
open(stdio, Options) ->
    erlmcp_native_stdio:open(Options, fun() ->
        ok = erlmcp_native_user:take_over(),
        case open(?TO_CONNECT, stdio, none, Options) of
            {ok, Socket} -> {ok, Socket, {fun is_leaving/0, fun() -> ok end}};
            {error, _} = Error -> Error
        end
    end);
open(Endpoint, Options) ->
    open(?TO_CONNECT, Endpoint, none, Options).

open(_, _, _, #{max_frame_bytes := Max}) when Max > ?MAX_FRAME_BYTES ->
    {error, {option, max_frame_bytes, Max}};
open(Op, Endpoint, Child, #{high_water_min_bytes := Window} = Options) ->
    Sending = erlmcp_native_port_sending:new(),
    case erlmcp_native_port:open(Sending) of
        {ok, Id, Handle} ->
            Body = [<<Window:32>>, term_to_binary({Endpoint, Options})],
            _ = erlmcp_native_port:command(Handle, Op, Id, Body),
            {ok, (new(Id, Handle, Sending, Options))#socket{router = watch(), child = Child}};
        {error, _} = Error ->
            Error
    end.

is_leaving() ->
    erlmcp_native_port:ask(?TO_LEAVING, []) =:= {ok, <<1>>}.

%% @doc The socket of an accepted connection, for the listener.
-spec accepted(
    erlmcp_native_port:id(), erlmcp_native_port:handle(), erlmcp_native_options:listener()
) -> socket().
accepted(Id, Handle, Options) ->
    %% Its window opens when its owner takes.
    #{high_water_min_bytes := Window} = Options,
    Socket = new(Id, Handle, erlmcp_native_port_sending:new(), Options),
    Socket#socket{given = true, router = none, taken = Window, window = 0}.

new(Id, Handle, Sending, Options) ->
    #{copy := Copy, high_water_min_bytes := Window} = Options,
    #socket{
        id = Id,
        window = Window,
        handle = Handle,
        sending = Sending,
        options = Options,
        router = none,
        inbound = erlmcp_native_port_inbound:new(Copy)
    }.

watch() ->
    monitor(process, erlmcp_native_port).

%% @private
-spec take(socket(), non_neg_integer(), non_neg_integer()) ->
    {[erlmcp_native_path:item()], erlmcp_native_path:status(), socket()}.
take(#socket{given = true} = S, MaxItems, MaxBytes) ->
    take(settle_in(S), MaxItems, MaxBytes);
take(#socket{phase = connecting} = S, _, _) ->
    {[], connecting, S};
take(#socket{inbound = Inbound, id = Id} = S, MaxItems, MaxBytes) ->
    try erlmcp_native_port_inbound:take(Inbound, MaxItems, MaxBytes) of
        Taken -> taken(Taken, S)
    catch
        %% What the program has sent is not what it should be.
        error:_ ->
            ok = erlmcp_native_port:accuse(Id),
            #{copy := Copy} = S#socket.options,
            Empty = S#socket{inbound = erlmcp_native_port_inbound:new(Copy)},
            {[], {down, port_program}, lose(port_program, Empty)}
    end.

taken({Items, Cost, Inbound}, #socket{taken = Taken} = S) ->
    Next = grant(S#socket{inbound = Inbound, taken = Taken + Cost}),
    case {erlmcp_native_port_inbound:is_empty(Inbound), S#socket.loss} of
        {false, _} -> {Items, more, Next};
        {true, none} -> {Items, armed, Next#socket{armed = true}};
        {true, eof} -> {Items, {eof, armed}, Next#socket{armed = true}};
        {true, Reason} -> {Items, {down, Reason}, Next}
    end.

%% Half of the window at once: a packet for each batch would be one too many.
grant(#socket{taken = Taken, options = #{high_water_min_bytes := Window}, loss = none} = S) when
    Taken > 0, Taken >= Window div 2
->
    #socket{handle = Handle, id = Id, window = Left} = S,
    _ = erlmcp_native_port:command(Handle, ?TO_GRANT, Id, <<Taken:32>>),
    S#socket{taken = 0, window = Left + Taken};
grant(S) ->
    S.

%% The first act of a new owner.
settle_in(#socket{id = Id, sending = Sending} = S0) ->
    S = S0#socket{given = false, router = watch()},
    case erlmcp_native_port:attach(Id, Sending) of
        ok -> collect(grant(S));
        {error, Reason} -> lose(Reason, S)
    end.

%% What has arrived already.
collect(#socket{id = Id} = S) ->
    receive
        {erlmcp_native_io, Id, Message} ->
            {_, Next} = arrived(Message, S),
            collect(Next)
    after 0 -> S
    end.

%% @private
-spec handle_info(term(), socket()) -> {erlmcp_native_path:notice(), socket()} | unknown.
handle_info({erlmcp_native_io, Id, Message}, #socket{id = Id} = S) ->
    notice(arrived(Message, S));
handle_info({'DOWN', Router, process, _, _}, #socket{router = Router} = S) when Router =/= none ->
    ok = erlmcp_native_port_sending:close(S#socket.sending),
    notice({ready, lose(port_program, S)});
handle_info(_, _) ->
    unknown.

%% The owner, who was told that nothing is left, is told once that something is.
notice({none, S}) -> {none, S};
notice({ready, #socket{armed = true} = S}) -> {ready, S#socket{armed = false}};
notice({ready, S}) -> {none, S};
notice(Other) -> Other.

arrived(writable, S) ->
    {writable, S};
arrived({down, Reason}, S) ->
    {ready, lose(Reason, S)};
arrived(<<?FROM_OPENED, _:64>>, S) ->
    {ready, S#socket{phase = open}};
arrived(<<?FROM_EOF, _:64>>, S) ->
    {ready, lose(eof, S)};
arrived(<<?FROM_DOWN, _:64, Term/binary>>, #socket{child = Child} = S) ->
    Reason = erlmcp_native_port_term:reason(Term),
    {ready, lose(erlmcp_native_port_child:reason(Reason, Child), S)};
arrived(<<?FROM_STDERR, _:64, Term/binary>>, #socket{id = Id, handle = Handle} = S) ->
    try erlmcp_native_port_child:stderr(erlmcp_native_port_term:read(Term), S#socket.child) of
        Notice ->
            _ = erlmcp_native_port:command(Handle, ?TO_STDERR_NEXT, Id),
            {Notice, S}
    catch
        %% What the program has sent is not what it should be.
        error:_ ->
            ok = erlmcp_native_port:accuse(Id),
            {none, S}
    end;
arrived(<<?FROM_INFO, _/binary>>, S) ->
    {none, S};
arrived(Packet, #socket{inbound = Inbound, window = Window} = S) ->
    %% A packet may be larger than what is left of the window, but none may follow it.
    _ = [erlmcp_native_port:accuse(S#socket.id) || Window =< 0],
    {Cost, Next} = erlmcp_native_port_inbound:push(Packet, Inbound),
    {ready, S#socket{inbound = Next, window = Window - Cost}}.

%% The first reason counts; the end of the peer's data is none yet.
lose(Reason, #socket{loss = Loss} = S) when Loss =:= none; Loss =:= eof ->
    S#socket{phase = lost_phase(Reason, S), loss = Reason};
lose(_, S) ->
    S.

lost_phase(eof, #socket{phase = Phase}) -> Phase;
lost_phase(_, #socket{phase = connecting}) -> failed;
lost_phase(_, #socket{phase = Phase}) -> Phase.

%% @private
-spec send(socket(), iodata(), erlmcp_native_path:priority()) ->
    {ok | {error, erlmcp_native:reason()}, socket()}.
send(#socket{phase = connecting} = S, Data, _) ->
    case encode(Data, S#socket.options) of
        {ok, _} -> {{error, not_connected}, S};
        {error, _} = Error -> {Error, S}
    end;
send(S, Data, Priority) ->
    {send_direct(element(2, sender(S)), Data, Priority), S}.

%% @private
-spec sender(socket()) -> erlmcp_native_path:sender().
sender(#socket{id = Id, handle = Handle, sending = Sending, options = Options}) ->
    {?MODULE, {Id, Handle, Sending, Options}}.

%% @private
-spec send_direct(term(), iodata(), erlmcp_native_path:priority()) ->
    ok | {error, erlmcp_native:reason()}.
send_direct({_, _, _, Options} = Sender, Data, Priority) ->
    case encode(Data, Options) of
        {ok, Size} -> admitted(admit(Size, Data, Priority, Sender), Data, Sender);
        {error, _} = Error -> Error
    end.

%% What the program is told of the priority. What fits the queue is for the program to look at.
admit(Size, Data, auto, {_, _, Sending, #{max_queue_bytes := Max}} = Sender) ->
    case erlmcp_native_port_sending:admit(Size, Max, Sending) of
        {error, busy} = Busy ->
            case erlmcp_native_priority:is_urgent(Data) of
                true -> admit(Size, Data, urgent, Sender);
                false -> Busy
            end;
        Result ->
            {Result, ?TO_SEND}
    end;
admit(Size, _, urgent, {_, _, Sending, Options}) ->
    #{max_queue_bytes := Max, max_urgent_bytes := Reserve} = Options,
    {erlmcp_native_port_sending:admit(Size, Max + Reserve, Sending), ?TO_SEND_URGENT};
admit(Size, _, normal, {_, _, Sending, #{max_queue_bytes := Max}}) ->
    {erlmcp_native_port_sending:admit(Size, Max, Sending), ?TO_SEND_NORMAL}.

admitted({ok, Op}, Data, {Id, Handle, _, _}) ->
    erlmcp_native_port:command(Handle, Op, Id, Data);
admitted({{error, _} = Error, _}, Data, Sender) ->
    admitted(Error, Data, Sender);
admitted({error, busy} = Busy, _, {Id, Handle, Sending, _}) ->
    _ = [
        erlmcp_native_port:command(Handle, ?TO_WANT_ROOM, Id)
     || erlmcp_native_port_sending:want_room(Sending)
    ],
    Busy;
admitted({error, closed} = Closed, _, _) ->
    Closed.

%% Checks a message, and says how many bytes it is on the wire.
encode(Data, #{framing := Framing, max_frame_bytes := Max}) ->
    case erlmcp_native_beam_frame:encode(Framing, Max, Data) of
        {ok, _, Size} -> {ok, Size};
        {error, _} = Error -> Error
    end.

%% @private
-spec close(socket()) -> ok.
close(#socket{id = Id, sending = Sending, router = Router}) ->
    ok = erlmcp_native_port_sending:close(Sending),
    _ = [demonitor(Router, [flush]) || Router =/= none],
    erlmcp_native_port:forget(Id).

%% @private
-spec give(socket(), pid()) -> {ok, socket()} | {error, erlmcp_native:reason()}.
give(#socket{id = Id, router = Router} = S, NewOwner) ->
    _ = [demonitor(Router, [flush]) || Router =/= none],
    case erlmcp_native_port:give(Id, NewOwner) of
        ok -> {ok, (collect(S))#socket{given = true, router = none}};
        {error, Reason} -> {ok, lose(Reason, S#socket{router = none})}
    end.

%% @private
-spec info(socket()) -> erlmcp_native:socket_info().
info(#socket{id = Id, handle = Handle, inbound = Inbound, router = Router} = S) ->
    Question = erlang:unique_integer([positive]),
    _ = erlmcp_native_port:command(Handle, ?TO_INFO, Id, <<Question:64>>),
    receive
        {erlmcp_native_io, Id, <<?FROM_INFO, _:64, Question:64, Term/binary>>} ->
            #{inbound_bytes := Bytes} = Info = erlmcp_native_port_term:read(Term),
            Waiting = erlmcp_native_port_inbound:waiting(Inbound),
            Info#{inbound_bytes := Bytes + Waiting};
        {'DOWN', Router, process, _, _} = Down when Router =/= none ->
            self() ! Down,
            no_info(S);
        {erlmcp_native_io, Id, {down, _}} = Down ->
            self() ! Down,
            no_info(S)
    after ?INFO_MS -> no_info(S)
    end.

no_info(#socket{inbound = Inbound, sending = Sending, options = Options}) ->
    #{
        state => down,
        peername => undefined,
        sockname => undefined,
        peercert => undefined,
        frames_in => 0,
        bytes_in => 0,
        frames_out => 0,
        bytes_out => 0,
        inbound_bytes => erlmcp_native_port_inbound:waiting(Inbound),
        queue_bytes => erlmcp_native_port_sending:under_way(Sending),
        buffers => erlmcp_native_high_water:info(0, erlmcp_native_high_water:new(Options))
    }.

%% @private
-spec listen(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, listener()} | {error, erlmcp_native:reason()}.
listen(_, #{max_frame_bytes := Max}) when Max > ?MAX_FRAME_BYTES ->
    {error, {option, max_frame_bytes, Max}};
listen(Endpoint, Options) ->
    erlmcp_native_port_listener:listen(Endpoint, Options).

%% @private
-spec accept(listener(), pos_integer()) ->
    {[socket()], armed | more | {down, erlmcp_native:reason()}, listener()}.
accept(Listener, Max) ->
    erlmcp_native_port_listener:accept(Listener, Max).

%% @private
-spec listener_handle_info(term(), listener()) -> {ready | none, listener()} | unknown.
listener_handle_info(Msg, Listener) ->
    erlmcp_native_port_listener:handle_info(Msg, Listener).

%% @private
-spec listener_info(listener()) -> #{sockname := erlmcp_native:address()}.
listener_info(Listener) ->
    erlmcp_native_port_listener:info(Listener).

%% @private
-spec listener_close(listener()) -> ok.
listener_close(Listener) ->
    erlmcp_native_port_listener:close(Listener).
