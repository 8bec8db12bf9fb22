%% @private A session of a client that began with `initialize': its streams, what was sent on them,
%% and its end. Requests do not pass through this process; they read the table. What is streamed
%% does, because it is here that is known which connection a stream is on at present: each event
%% goes out on exactly one.
%%
%% A process that has a stream receives `{erlmcp_native_http, {event, Id, Data}}' and, when nothing
%% more comes, `{erlmcp_native_http, finish}'.
-module(erlmcp_native_http_session).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([new/1, start_link/1, close/1]).
-export([open/1, listen/1, resume/3, event/4, detach/2, send/2, post/2, update/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([start/0]).

-type start() :: #{
    config := erlmcp_native_http_config:config(),
    id := binary(),
    principal := term(),
    revision := binary(),
    state := term(),
    bound => pid()
}.
%% `bound': the session ends with that process; its one stream is not resumed.

-type stream() :: erlmcp_native_http_events:stream().
-type count() :: erlmcp_native_http_events:count().

-record(stream, {
    %% Who answers the request; of a stream that was opened with GET `none'.
    owner :: pid() | none,
    %% Who has the connection.
    sink :: pid() | none
}).

-record(state, {
    config :: erlmcp_native_http_config:config(),
    session :: erlmcp_native_http_tables:session(),
    bound :: reference() | none,
    listener :: reference(),
    %% Those that are not finished.
    streams = #{} :: #{stream() => #stream{}},
    events :: erlmcp_native_http_events:events(),
    next_stream = 1 :: pos_integer(),
    next_event = 1 :: pos_integer(),
    %% What waits for a stream that the client opens.
    waiting = queue:new() :: queue:queue(iodata()),
    waiting_bytes = 0 :: non_neg_integer()
}).

-define(CALL_TIMEOUT_MS, 30000).

%% Requests go on when their clients are gone, and are counted nowhere else then.
-define(MAX_STREAMS, 1000).

%% @doc Begins a session, unless there are too many.
-spec new(start()) -> {ok, erlmcp_native_http_tables:session()} | {error, too_many}.
new(#{config := #{sessions_open := Open, max_sessions := Max}, id := Id} = Start) ->
    case counters:get(Open, 1) < Max andalso erlmcp_native_http_sup:start_session(Start) of
        {ok, _} -> erlmcp_native_http_tables:session(Id);
        _ -> {error, too_many}
    end.

%% @doc Ends a session: its streams are finished and its requests stopped.
-spec close(pid()) -> ok.
close(Pid) ->
    case call(Pid, close) of
        ok -> ok;
        gone -> ok
    end.

%% @doc Opens a stream for the answer to a request, with the calling process as owner and sink.
%% `busy': there are too many to keep another.
-spec open(pid()) -> {ok, stream()} | busy | gone.
open(Pid) -> call(Pid, open).

%% @doc Opens a stream for what belongs to no request; the caller is its sink.
-spec listen(pid()) -> {ok, stream()} | gone.
listen(Pid) -> call(Pid, listen).

%% @doc Makes the caller the sink of a stream, after the event that it had last. `done': no more
%% than this.
-spec resume(pid(), stream(), count()) ->
    {ok, [{count(), iodata()}], live | done} | {error, unknown} | gone.
resume(Pid, Stream, After) -> call(Pid, {resume, Stream, After}).

%% @doc A message of a stream, from its owner: to be delivered by the caller, or it has been taken
%% care of.
-spec event(pid(), stream(), iodata(), more | last) -> {deliver, binary()} | stored | gone.
event(Pid, Stream, Data, More) -> call(Pid, {event, Stream, Data, More}).

%% @doc The caller has a connection no longer.
-spec detach(pid(), stream()) -> ok | gone.
detach(Pid, Stream) -> call(Pid, {detach, Stream}).

%% @doc A message that belongs to no request.
-spec send(pid(), iodata()) -> ok | {error, busy} | gone.
send(Pid, Data) -> call(Pid, {send, Data}).

%% @doc The same, for who cannot wait.
-spec post(pid(), iodata()) -> ok.
post(Pid, Data) -> gen_server:cast(Pid, {send, Data}).

%% @doc Sets what was agreed on after the session had begun.
-spec update(pid(), binary(), term()) -> ok | gone.
update(Pid, Revision, HandlerState) -> call(Pid, {update, Revision, HandlerState}).

call(Pid, Request) ->
    try
        gen_server:call(Pid, Request, ?CALL_TIMEOUT_MS)
    catch
        exit:{Reason, _} when Reason =/= timeout -> gone
    end.

-spec start_link(start()) -> {ok, pid()} | {error, term()}.
start_link(Start) ->
    gen_server:start_link(?MODULE, Start, []).

%% @private
-spec init(start()) -> {ok, #state{}}.
init(#{config := Config, id := Id} = Start) ->
    process_flag(trap_exit, true),
    #{key := Key, listener := Listener, sessions_open := Open} = Config,
    #{max_events := Max, max_event_bytes := MaxBytes, session_idle_ms := Idle} = Config,
    Clock = atomics:new(1, []),
    Session = (maps:with([principal, revision, state], Start))#{
        id => Id,
        pid => self(),
        key => Key,
        bound => is_map_key(bound, Start),
        clock => Clock
    },
    ok = erlmcp_native_http_tables:touch(Session),
    ok = counters:add(Open, 1, 1),
    true = erlmcp_native_http_tables:enter_session(Session),
    look_later(Idle),
    {ok, #state{
        config = Config,
        session = Session,
        bound = watch(Start),
        listener = monitor(process, Listener),
        events = erlmcp_native_http_events:new(Max, MaxBytes)
    }}.

watch(#{bound := Pid}) -> monitor(process, Pid);
watch(_) -> none.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call(open, _, #state{streams = Streams} = State) when map_size(Streams) >= ?MAX_STREAMS ->
    {reply, busy, State};
handle_call(open, {Pid, _}, State) ->
    opened(post, #stream{owner = Pid, sink = Pid}, State);
handle_call(listen, {Pid, _}, State) ->
    {reply, Reply, Opened} = opened(get, #stream{owner = none, sink = Pid}, State),
    {reply, Reply, flush(Opened)};
handle_call({resume, {_, Number} = Stream, After}, {Pid, _}, State) ->
    case Number < State#state.next_stream of
        true -> resumed(Stream, After, Pid, State);
        false -> {reply, {error, unknown}, State}
    end;
handle_call({event, Stream, Data, More}, {Pid, _}, State) ->
    {Count, Stored} = store(Stream, Data, State),
    #state{streams = #{Stream := #stream{sink = Sink}}} = State,
    Reply =
        case Sink of
            Pid -> {deliver, erlmcp_native_http_events:id(Stream, Count)};
            _ -> pass(Sink, Stream, Count, Data)
        end,
    {reply, Reply, ended(More, Sink =/= Pid, Stream, Stored)};
handle_call({detach, Stream}, {Pid, _}, #state{streams = Streams} = State) ->
    case Streams of
        #{Stream := #stream{sink = Pid} = Open} ->
            {reply, ok, State#state{streams = Streams#{Stream := Open#stream{sink = none}}}};
        #{} ->
            {reply, ok, State}
    end;
handle_call({send, Data}, _, State) ->
    sent(Data, State);
handle_call({update, Revision, HandlerState}, _, #state{session = Session} = State) ->
    Next = Session#{revision := Revision, state := HandlerState},
    true = erlmcp_native_http_tables:enter_session(Next),
    {reply, ok, State#state{session = Next}};
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({send, Data}, State) ->
    {reply, _, Next} = sent(Data, State),
    {noreply, Next};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({?MODULE, look}, State) ->
    look(State);
handle_info({'DOWN', Monitor, process, _, _}, #state{bound = Monitor} = State) ->
    {stop, normal, State};
handle_info({'DOWN', Monitor, process, _, _}, #state{listener = Monitor} = State) ->
    {stop, normal, State};
handle_info({'DOWN', _, process, Pid, _}, #state{streams = Streams, session = Session} = State) ->
    ok = erlmcp_native_http_tables:touch(Session),
    {noreply, State#state{streams = maps:filtermap(fun(_, S) -> without(Pid, S) end, Streams)}};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{session = Session, streams = Streams, config = Config}) ->
    #{id := Id, state := HandlerState} = Session,
    #{sessions_open := Open, handler := Handler} = Config,
    true = erlmcp_native_http_tables:leave_session(Id),
    ok = counters:sub(Open, 1, 1),
    Sinks = [Sink || #stream{sink = Sink} <- maps:values(Streams), Sink =/= none],
    lists:foreach(fun finish/1, Sinks),
    Stop = fun(Pid) -> exit(Pid, {shutdown, session_ended}) end,
    lists:foreach(Stop, erlmcp_native_http_tables:requests(Id, requests)),
    tell(Handler, Id, HandlerState).

tell({Module, _}, Id, HandlerState) ->
    case erlang:function_exported(Module, terminate_session, 2) of
        true ->
            try
                _ = Module:terminate_session(Id, HandlerState),
                ok
            catch
                Class:Reason:Stack ->
                    ?LOG_ERROR("erlmcp_native: ~p:terminate_session/2: ~0p", [
                        Module, {Class, Reason, Stack}
                    ])
            end;
        false ->
            ok
    end;
tell(none, _, _) ->
    ok.

%% ---- streams

opened(Kind, #stream{sink = Pid} = Stream, #state{next_stream = Next} = State) ->
    _ = monitor(process, Pid),
    Name = {Kind, Next},
    Streams = (State#state.streams)#{Name => Stream},
    {reply, {ok, Name}, State#state{next_stream = Next + 1, streams = Streams}}.

resumed({Kind, _} = Stream, After, Pid, #state{streams = Streams, events = Events} = State) ->
    Missed = erlmcp_native_http_events:since(Stream, After, Events),
    case {Streams, Kind} of
        {#{Stream := #stream{sink = Old} = Open}, _} ->
            finish(Old),
            attached(Stream, Open#stream{sink = Pid}, Missed, State);
        {_, get} ->
            attached(Stream, #stream{owner = none, sink = Pid}, Missed, State);
        {_, post} ->
            {reply, {ok, Missed, done}, State}
    end.

attached({Kind, _} = Name, #stream{sink = Pid} = Stream, Missed, State) ->
    _ = monitor(process, Pid),
    Attached = State#state{streams = (State#state.streams)#{Name => Stream}},
    Next =
        case Kind of
            get -> flush(Attached);
            post -> Attached
        end,
    {reply, {ok, Missed, live}, Next}.

%% What a process that has ended leaves of a stream: nobody else can go on with the answer to a
%% request, a stream of the client's can be resumed with no trace of it here.
without(Pid, #stream{owner = Pid, sink = Sink}) ->
    _ = Sink =/= Pid andalso finish(Sink),
    false;
without(Pid, #stream{owner = none, sink = Pid}) ->
    false;
without(Pid, #stream{sink = Pid} = Stream) ->
    {true, Stream#stream{sink = none}};
without(_, _) ->
    true.

ended(more, _, _, State) ->
    State;
ended(last, Elsewhere, Stream, #state{streams = Streams} = State) ->
    #{Stream := #stream{sink = Sink}} = Streams,
    _ = Elsewhere andalso finish(Sink),
    State#state{streams = maps:remove(Stream, Streams)}.

finish(none) ->
    ok;
finish(Pid) ->
    Pid ! {erlmcp_native_http, finish},
    ok.

pass(none, _, _, _) ->
    stored;
pass(Sink, Stream, Count, Data) ->
    Sink ! {erlmcp_native_http, {event, erlmcp_native_http_events:id(Stream, Count), Data}},
    stored.

store(Stream, Data, #state{next_event = Count, events = Events} = State) ->
    Stored = erlmcp_native_http_events:add(Stream, Count, Data, Events),
    {Count, State#state{next_event = Count + 1, events = Stored}}.

%% ---- messages that belong to no request

sent(Data, State) ->
    case listening(State) of
        none -> wait(Data, State);
        Stream -> {reply, ok, push(Stream, Data, State)}
    end.

%% The stream that was opened last is the one that most likely still has somebody at its end.
listening(#state{streams = Streams}) ->
    case [Stream || {{get, _} = Stream, _} <- maps:to_list(Streams)] of
        [] -> none;
        Open -> lists:max(Open)
    end.

push(Stream, Data, #state{streams = Streams} = State) ->
    #{Stream := #stream{sink = Sink}} = Streams,
    {Count, Stored} = store(Stream, Data, State),
    stored = pass(Sink, Stream, Count, Data),
    Stored.

wait(Data, #state{waiting = Waiting, waiting_bytes = Bytes, config = Config} = State) ->
    #{max_events := Max, max_event_bytes := MaxBytes} = Config,
    Sum = Bytes + iolist_size(Data),
    case queue:len(Waiting) < Max andalso Sum =< MaxBytes of
        true ->
            Next = State#state{waiting = queue:in(Data, Waiting), waiting_bytes = Sum},
            {reply, ok, Next};
        false ->
            {reply, {error, busy}, State}
    end.

flush(#state{waiting = Waiting} = State) ->
    Stream = listening(State),
    Push = fun(Data, Acc) -> push(Stream, Data, Acc) end,
    Empty = State#state{waiting = queue:new(), waiting_bytes = 0},
    lists:foldl(Push, Empty, queue:to_list(Waiting)).

%% ---- idleness

look(#state{session = Session, streams = Streams, bound = Bound} = State) ->
    #{session_idle_ms := Limit} = State#state.config,
    Idle = erlmcp_native_http_tables:idle_ms(Session),
    Held = Bound =/= none orelse map_size(Streams) > 0,
    case Idle >= Limit andalso not (Held orelse is_busy(Session)) of
        true ->
            {stop, normal, State};
        false when Idle >= Limit ->
            look_later(Limit),
            {noreply, State};
        false ->
            look_later(Limit - Idle),
            {noreply, State}
    end.

is_busy(#{id := Id}) -> erlmcp_native_http_tables:is_busy(Id).

look_later(Ms) ->
    _ = erlang:send_after(Ms, self(), {?MODULE, look}),
    ok.
