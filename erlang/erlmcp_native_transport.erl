%% @doc The process of a transport in one of erlmcp's shapes. What both shapes share is here: the
%% connection, back-pressure, and the calls. A shape says who the receiver is and in which words
%% it is spoken to: {@link erlmcp_native_transport_owner} and
%% {@link erlmcp_native_transport_routed}.
%%
%% A receiver in these shapes is pushed messages and knows no windows. Before more is taken from
%% the connection its mailbox is looked at ({@link erlmcp_native_window}): while too much lies
%% there unread nothing is taken, and the peer feels it. The same holds while answers wait
%% because the peer does not read them.
-module(erlmcp_native_transport).

-behaviour(gen_server).

-export([start_link/2, send/2, close/1, call/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([shape/0, source/0, phase/0]).

-type shape() :: term().

-type source() :: dial | accept.
%% Whether the process makes its connection, or a listener gives it one.

-type phase() :: connecting | open | waiting | closed.

-type shape_event() ::
    connected
    | {down, Was :: phase(), erlmcp_native:reason(), erlmcp_native_link:next()}.

-callback init(Args :: term()) ->
    {ok, source(), erlmcp_native_transport_options:options(), shape()} | {stop, term()}.

-callback claim(pid(), shape()) -> shape().
%% A process sends; in the owner's shape the first to do so is the receiver.

-callback guard(shape()) -> erlmcp_native_guard:receiver() | false | undecided.

-callback unread(shape()) -> {non_neg_integer() | nobody | absent, shape()}.
%% How many messages lie unread. `nobody': nothing can be taken yet. `absent': what is taken will
%% not be answered.

-callback deliver([binary()], shape()) -> Undelivered :: [binary()].

-callback event(shape_event(), shape()) -> ok.

-callback handle_info(term(), shape()) ->
    {ok | {answer, iodata()} | receiver_lost | {stop, term()}, shape()} | unknown.

-callback info(shape()) -> #{transport_id := term(), atom() => term()}.

-callback terminate(shape()) -> ok.

-record(state, {
    module :: module(),
    shape :: shape(),
    source :: source(),
    options :: erlmcp_native_transport_options:options(),
    guarded :: erlmcp_native_guarded:guarded(),
    decided = false :: boolean(),
    phase = connecting :: phase(),
    %% What a send is told that finds no connection.
    failure = not_connected :: erlmcp_native:reason(),
    window :: erlmcp_native_window:window(),
    %% There may be something to take.
    readable = false :: boolean(),
    %% A reminder to take is under way.
    reminded = false :: boolean(),
    absent = false :: boolean(),
    %% Of standard input, when it has ended: what was heard and is answered.
    answered = none :: erlmcp_native_answered:answered() | none,
    %% Sends that came while the connection was being made, latest first.
    held = [] :: [{gen_server:from(), iodata()}]
}).

%% A slice of taking: other messages are served in between.
-define(TAKE_ITEMS, 256).
-define(TAKE_BYTES, 262144).

%% The callers, erlmcp's client among them, give a call 5 s.
-define(HOLD_MS, 4000).
-define(MAX_HELD, 1000).

-define(SETTLE_MS, 200).

-define(HIBERNATE_AFTER_MS, 1000).

-spec start_link(module(), term()) -> {ok, pid()} | {error, term()}.
start_link(Module, Args) ->
    Options = [{hibernate_after, ?HIBERNATE_AFTER_MS}],
    case gen_server:start_link(?MODULE, {Module, Args}, Options) of
        {error, {shutdown, Reason}} -> {error, Reason};
        Result -> Result
    end.

%% @doc Sends one message. While the connection is first being made the call waits for it, for
%% 4 s at most.
-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Pid, Data) ->
    call(Pid, {send, Data}).

%% @doc Ends the transport. Closing twice is fine.
-spec close(pid()) -> ok.
close(Pid) ->
    case call(Pid, close) of
        ok -> ok;
        {error, not_connected} -> ok
    end.

%% @doc Calls a transport that may have ended. A caller that is a process of erlmcp would end with
%% the exit of a call.
-spec call(pid(), term()) -> term().
call(Pid, Request) ->
    try
        gen_server:call(Pid, Request)
    catch
        exit:{timeout, _} -> {error, timeout};
        exit:{Reason, _} when Reason =/= calling_self -> {error, not_connected}
    end.

%% @private
-spec init({module(), term()}) -> {ok, #state{}} | {stop, term()}.
init({Module, Args}) ->
    process_flag(trap_exit, true),
    case Module:init(Args) of
        {ok, Source, Options, Shape} ->
            #{max_answer_bytes := MaxAnswers} = Options,
            start(decide(#state{
                module = Module,
                shape = Shape,
                source = Source,
                options = Options,
                guarded = erlmcp_native_guarded:new(MaxAnswers),
                window = window(Options)
            }));
        {stop, Reason} ->
            {stop, Reason}
    end.

start(#state{source = accept} = State) ->
    {ok, State};
start(#state{module = Module, shape = Shape} = State) ->
    case dial(State) of
        {ok, Dialling} ->
            {ok, settle(Dialling)};
        {error, Reason} ->
            ok = Module:terminate(Shape),
            {stop, {shutdown, Reason}}
    end.

%% A client of standard input and output speaks at once, and a server gets its tools after its
%% transport.
settle(#state{options = #{endpoint := stdio}} = State) ->
    _ = erlang:send_after(?SETTLE_MS, self(), {?MODULE, take}),
    State#state{reminded = true, answered = erlmcp_native_answered:new()};
settle(State) ->
    State.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}} | {stop, normal, ok, #state{}}.
handle_call({send, Data}, {Caller, _} = From, State) ->
    send_for(From, Data, claim(Caller, State));
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call({connect, Given}, _, #state{source = dial} = State) ->
    connect(Given, State);
handle_call(reconnect, _, #state{source = dial} = State) ->
    redial(State);
handle_call({transport_call, Request}, From, State) ->
    handle_call(Request, From, State);
handle_call(Request, _, State) ->
    {reply, erlmcp_native_transport_info:answer(Request, fun() -> summary(State) end), State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({?MODULE, take}, State) ->
    noreply(take(State#state{reminded = false}));
handle_info({?MODULE, answered}, State) ->
    noreply(end_of_input(State));
handle_info({?MODULE, {hold_expired, From}}, State) ->
    {noreply, release(From, State)};
handle_info({erlmcp_native_socket, Path, Socket}, #state{source = accept} = State) ->
    {Events, Guarded} = erlmcp_native_guarded:adopt(Path, Socket, State#state.guarded),
    noreply(events(Events, State#state{guarded = Guarded}));
handle_info(Msg, #state{module = Module, shape = Shape, guarded = Guarded} = State) ->
    case Module:handle_info(Msg, Shape) of
        {What, Next} ->
            shape_says(What, State#state{shape = Next});
        unknown ->
            case erlmcp_native_guarded:handle_info(Msg, Guarded) of
                {Events, Next} -> noreply(events(Events, State#state{guarded = Next}));
                unknown -> other_info(Msg, State)
            end
    end.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{module = Module, shape = Shape, guarded = Guarded}) ->
    _ = erlmcp_native_guarded:close(Guarded),
    Module:terminate(Shape).

%% A listener that cannot give the connection ends the process it was for.
other_info({'EXIT', Pid, shutdown}, State) when is_pid(Pid) -> {stop, shutdown, State};
other_info(_, State) -> {noreply, State}.

shape_says(ok, State) ->
    {noreply, State};
shape_says({answer, Data}, #state{guarded = Guarded} = State) ->
    noreply(answered(State#state{guarded = erlmcp_native_guarded:answer(Data, Guarded)}));
shape_says(receiver_lost, #state{guarded = Guarded} = State) ->
    Answered = erlmcp_native_guarded:receiver_lost(Guarded),
    noreply(answered(look_again(State#state{guarded = Answered})));
shape_says({stop, Reason}, State) ->
    {stop, Reason, State}.

%% ---- the connection

dial(#state{options = #{endpoint := Endpoint, dial := Dial}, guarded = Guarded} = State) ->
    case erlmcp_native_guarded:dial(Endpoint, Dial, Guarded) of
        {ok, Dialling} -> {ok, State#state{guarded = Dialling, phase = connecting}};
        {error, _} = Error -> Error
    end.

connect(Given, #state{options = #{given := Before} = Options} = State) when is_map(Given) ->
    case erlmcp_native_transport_options:check(maps:merge(Before, Given)) of
        {ok, Checked} ->
            New = maps:with([endpoint, dial, given], Checked),
            redial(State#state{options = maps:merge(Options, New)});
        {error, _} = Error ->
            {reply, Error, State}
    end;
connect(Given, State) ->
    {reply, {error, {invalid_config, {option, options, Given}}}, State}.

%% The receiver asked for it and is not told of the loss.
redial(#state{guarded = Guarded} = State) ->
    Closed = lost(State#state{guarded = erlmcp_native_guarded:close(Guarded)}),
    case dial(Closed) of
        {ok, Dialling} -> {reply, ok, Dialling};
        {error, _} = Error -> {reply, Error, Closed#state{phase = closed}}
    end.

events(Events, State) -> lists:foldl(fun event/2, State, Events).

event(connected, #state{module = Module, shape = Shape} = State) ->
    ok = Module:event(connected, Shape),
    send_held(State#state{phase = open, failure = not_connected});
event(readable, State) ->
    take(State#state{readable = true});
event(writable, State) ->
    take(State);
event({down, _, _} = Down, State) ->
    down(Down, State).

answered(#state{guarded = Guarded} = State) ->
    case erlmcp_native_guarded:overflowed(Guarded) of
        true -> cut(State);
        false -> State
    end.

%% The peer does not read its answers, and one was lost.
cut(#state{guarded = Guarded, source = Source} = State) ->
    Closed = State#state{guarded = erlmcp_native_guarded:close(Guarded)},
    case Source of
        accept -> down({down, busy, final}, Closed);
        dial -> dial_again(down({down, busy, {retry_in, 0}}, Closed))
    end.

dial_again(State) ->
    case dial(State) of
        {ok, Dialling} -> Dialling;
        {error, Reason} -> down({down, Reason, final}, State)
    end.

down({down, Reason, Next}, #state{module = Module, shape = Shape, phase = Was} = State) ->
    Lost = refuse_held(Reason, tried(Was, Reason, lost(State))),
    ok = Module:event({down, Was, Reason, Next}, Shape),
    case Next of
        {retry_in, _} -> Lost#state{phase = waiting};
        final -> Lost#state{phase = closed}
    end.

lost(#state{guarded = Guarded} = State) ->
    {Deliver, Lost} = erlmcp_native_guarded:lost(Guarded),
    deliver(Deliver, State#state{guarded = Lost, readable = false}).

tried(open, _, State) ->
    State;
tried(_, Reason, #state{guarded = Guarded} = State) ->
    State#state{guarded = erlmcp_native_guarded:attempt_failed(Guarded), failure = Reason}.

%% ---- from the peer to the receiver

take(#state{readable = true, reminded = false, guarded = Guarded, window = Window} = State) ->
    case {erlmcp_native_guarded:blocked(Guarded), erlmcp_native_window:room(Window)} of
        {true, _} -> State;
        {false, none} -> look(State);
        {false, {Messages, Bytes}} -> take(Messages, Bytes, State)
    end;
take(State) ->
    State.

look(#state{module = Module, shape = Shape} = State) ->
    case Module:unread(Shape) of
        {nobody, Next} -> State#state{shape = Next};
        {absent, Next} -> looked(0, State#state{shape = Next, absent = true});
        {Unread, Next} -> looked(Unread, State#state{shape = Next, absent = false})
    end.

looked(Unread, #state{window = Window} = State) ->
    case erlmcp_native_window:look(Unread, Window) of
        {open, Open} ->
            take(State#state{window = Open});
        {shut, WaitMs, Shut} ->
            _ = erlang:send_after(WaitMs, self(), {?MODULE, take}),
            State#state{window = Shut, reminded = true}
    end.

take(Messages, Bytes, #state{guarded = Guarded} = State) ->
    {MaxItems, MaxBytes} = {min(Messages, ?TAKE_ITEMS), min(Bytes, ?TAKE_BYTES)},
    {Deliver, Status, Next} = erlmcp_native_guarded:take(MaxItems, MaxBytes, Guarded),
    Taken = if_absent(deliver(Deliver, State#state{guarded = Next})),
    answered(taken(Status, Taken)).

taken(Status, State) when Status =:= more; Status =:= again ->
    self() ! {?MODULE, take},
    State#state{reminded = true};
taken({down, _, _} = Down, State) ->
    down(Down, State);
taken(eof, #state{answered = Answered} = State) when Answered =/= none ->
    end_of_input(State#state{readable = false});
taken(_, State) ->
    State#state{readable = false}.

%% Only standard input, of which a half is left open for the answers.
end_of_input(#state{answered = Answered, guarded = Guarded, phase = open} = State) ->
    #{link := #{socket := #{frames_out := Sent}}} = erlmcp_native_guarded:info(Guarded),
    case erlmcp_native_answered:look(Sent, Answered) of
        done ->
            Closed = State#state{guarded = erlmcp_native_guarded:close(Guarded)},
            down({down, closed, final}, Closed);
        {again, WaitMs, Next} ->
            _ = erlang:send_after(WaitMs, self(), {?MODULE, answered}),
            State#state{answered = Next}
    end;
end_of_input(State) ->
    State.

heard(_, none) -> none;
heard(Messages, Answered) -> erlmcp_native_answered:heard(Messages, Answered).

deliver([], State) ->
    State;
deliver(Messages, #state{module = Module, shape = Shape, window = Window} = State) ->
    Undelivered = Module:deliver(Messages, Shape),
    Bytes = iolist_size(Messages),
    State#state{
        guarded = erlmcp_native_guarded:undelivered(Undelivered, State#state.guarded),
        window = erlmcp_native_window:sent(length(Messages), Bytes, Window),
        answered = heard(Messages, State#state.answered)
    }.

%% The peer learns now that nobody will answer.
if_absent(#state{absent = true, guarded = Guarded} = State) ->
    look_again(State#state{guarded = erlmcp_native_guarded:receiver_lost(Guarded)});
if_absent(State) ->
    State.

look_again(#state{options = Options} = State) ->
    State#state{window = window(Options)}.

window(#{max_owner_queue := Messages, max_owner_bytes := Bytes}) ->
    erlmcp_native_window:new(Messages, Bytes).

%% ---- from the receiver to the peer

claim(Caller, #state{module = Module, shape = Shape} = State) ->
    case Module:claim(Caller, Shape) of
        Shape -> State;
        Claimed -> take(decide(State#state{shape = Claimed}))
    end.

decide(#state{decided = false, module = Module, shape = Shape, guarded = Guarded} = State) ->
    case Module:guard(Shape) of
        undecided ->
            State;
        false ->
            State#state{decided = true};
        Receiver ->
            State#state{decided = true, guarded = erlmcp_native_guarded:guard(Receiver, Guarded)}
    end;
decide(State) ->
    State.

send_for(From, Data, #state{phase = connecting, held = Held} = State) when
    length(Held) < ?MAX_HELD
->
    _ = erlang:send_after(?HOLD_MS, self(), {?MODULE, {hold_expired, From}}),
    {noreply, State#state{held = [{From, Data} | Held]}};
send_for(From, Data, State) ->
    {noreply, send_and_reply({From, Data}, State)}.

send_and_reply({From, Data}, #state{guarded = Guarded} = State) ->
    {Result, Next} = erlmcp_native_guarded:send(Data, Guarded),
    gen_server:reply(From, result(Result, State)),
    State#state{guarded = Next}.

result({error, not_connected}, #state{failure = Failure}) -> {error, Failure};
result(Result, _) -> Result.

send_held(#state{held = Held} = State) ->
    lists:foldr(fun send_and_reply/2, State#state{held = []}, Held).

refuse_held(Reason, #state{held = Held} = State) ->
    lists:foreach(fun({From, _}) -> gen_server:reply(From, {error, Reason}) end, Held),
    State#state{held = []}.

release(From, #state{held = Held} = State) ->
    {Expired, Rest} = lists:partition(fun({Sender, _}) -> Sender =:= From end, Held),
    (refuse_held(not_connected, State#state{held = Expired}))#state{held = Rest}.

summary(#state{module = Module, shape = Shape, options = Options, guarded = Guarded} = State) ->
    (erlmcp_native_guarded:info(Guarded))#{
        shape => Module:info(Shape),
        phase => State#state.phase,
        options => Options
    }.

%% A connection that a listener gave is not made again.
noreply(#state{phase = closed, source = accept} = State) -> {stop, normal, State};
noreply(State) -> {noreply, State}.
