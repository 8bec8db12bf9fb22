%% @private A transport over HTTP in erlmcp's shapes: as {@link erlmcp_native_transport} for
%% connections, with the same modules for the shapes. What becomes of each request the receiver
%% cannot be told in another way than by a response: one that failed is answered with an error in
%% the name of the server.
-module(erlmcp_native_http_transport).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, start_link/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, format_status/1]).

-record(state, {
    module :: module(),
    shape :: term(),
    options :: erlmcp_native_http_transport_options:options(),
    core :: erlmcp_native_http_client_core:core(),
    guard = undecided :: undecided | none | erlmcp_native_guard:guard(),
    window :: erlmcp_native_window:window(),
    %% Something has come back.
    connected = false :: boolean(),
    reminded = false :: boolean(),
    stats = erlmcp_native_transport_stats:new() :: erlmcp_native_transport_stats:stats()
}).

%% A slice of taking: other messages are served in between.
-define(TAKES, 8).

-define(FAILED, -32000).

-define(HIBERNATE_AFTER_MS, 1000).

%% @doc In the shape of {@link erlmcp_native_transport_owner}.
-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Given) ->
    start(erlmcp_native_transport_owner, fun(Options) -> Options end, Given).

%% @doc In the shape of {@link erlmcp_native_transport_routed}.
-spec start_link(erlmcp_native_registry:transport_id(), map()) -> {ok, pid()} | {error, term()}.
start_link(Id, Given) ->
    start(erlmcp_native_transport_routed, fun(Options) -> {dial, Id, Options} end, Given).

start(Module, Args, Given) ->
    case erlmcp_native_http_transport_options:check(Given) of
        {ok, Options} ->
            Start = {Module, Args(Options), Options},
            case gen_server:start_link(?MODULE, Start, [{hibernate_after, ?HIBERNATE_AFTER_MS}]) of
                {error, {shutdown, Reason}} -> {error, Reason};
                Result -> Result
            end;
        {error, _} = Error ->
            Error
    end.

%% @private
-spec init({module(), term(), erlmcp_native_http_transport_options:options()}) ->
    {ok, #state{}} | {stop, term()}.
init({Module, Args, #{client := Client} = Options}) ->
    process_flag(trap_exit, true),
    case erlmcp_native_http_client_core:new(Client) of
        {ok, Core} -> init(Module, Module:init(Args), Core, Options);
        {error, Reason} -> {stop, {shutdown, Reason}}
    end.

init(Module, {ok, _, _, Shape}, Core, Options) ->
    {ok, decide(#state{
        module = Module,
        shape = Shape,
        options = Options,
        core = Core,
        window = window(Options)
    })};
init(_, {stop, Reason}, Core, _) ->
    ok = erlmcp_native_http_client_core:close(Core),
    {stop, Reason}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call({send, Data}, {Caller, _}, State) ->
    {Result, Sent} = send(Data, claim(Caller, State)),
    {reply, Result, Sent};
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call({transport_call, Request}, From, State) ->
    handle_call(Request, From, State);
handle_call(get_info, _, State) ->
    {reply, info(State), State};
handle_call(get_state, _, State) ->
    {reply, {ok, (info(State))#{transport => self()}}, State};
handle_call(Request, _, State) ->
    {reply, erlmcp_native_transport_info:brief(Request, status(State)), State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({?MODULE, take}, State) ->
    {noreply, take(?TAKES, State#state{reminded = false})};
handle_info(Msg, #state{module = Module, shape = Shape, core = Core} = State) ->
    case Module:handle_info(Msg, Shape) of
        {What, Next} ->
            shape_says(What, State#state{shape = Next});
        unknown ->
            case erlmcp_native_http_client_core:handle_info(Msg, Core) of
                {Events, Next} -> {noreply, take(?TAKES, events(Events, State#state{core = Next}))};
                unknown -> {noreply, State}
            end
    end.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{module = Module, shape = Shape, core = Core}) ->
    ok = erlmcp_native_http_client_core:close(Core),
    Module:terminate(Shape).

%% @private Tokens and messages are not for the log.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    Summary = fun
        (state, #state{} = State) -> info(State);
        (message, _) -> hidden;
        (_, Value) -> Value
    end,
    maps:map(Summary, Status).

shape_says(ok, State) ->
    {noreply, State};
shape_says({answer, Data}, State) ->
    {Result, Sent} = send(Data, State),
    Result =:= ok orelse
        ?LOG_WARNING("erlmcp_native: a message could not be sent: ~0p", [Result]),
    {noreply, Sent};
shape_says(receiver_lost, #state{guard = Guard} = State) when Guard =/= undecided, Guard =/= none ->
    {Replies, Next} = erlmcp_native_guard:receiver_lost(Guard),
    {noreply, post(Replies, State#state{guard = Next, window = window(State#state.options)})};
shape_says(receiver_lost, State) ->
    {noreply, State#state{window = window(State#state.options)}};
shape_says({stop, Reason}, State) ->
    {stop, Reason, State}.

claim(Caller, #state{module = Module, shape = Shape} = State) ->
    decide(State#state{shape = Module:claim(Caller, Shape)}).

decide(#state{guard = undecided, module = Module, shape = Shape} = State) ->
    case Module:guard(Shape) of
        undecided -> State;
        false -> State#state{guard = none};
        Receiver -> State#state{guard = erlmcp_native_guard:new(Receiver)}
    end;
decide(State) ->
    State.

%% ---- from the receiver to the server

send(Data, #state{guard = Guard} = State) when Guard =:= undecided; Guard =:= none ->
    send_one(Data, State);
send(Data, #state{guard = Guard} = State) ->
    {Messages, Next} = erlmcp_native_guard:outbound(Data, Guard),
    Send = fun
        (Message, {ok, Acc}) -> send_one(Message, Acc);
        (_, Failed) -> Failed
    end,
    case lists:foldl(Send, {ok, State#state{guard = Next}}, Messages) of
        {ok, Sent} -> {ok, Sent};
        %% It waits for nothing.
        {Error, Unsent} -> {Error, Unsent#state{guard = Guard}}
    end.

send_one(Data, #state{core = Core, stats = Stats} = State) ->
    {Result, Events, Next} = erlmcp_native_http_client_core:send(Data, #{}, Core),
    Counted =
        case Result of
            ok -> erlmcp_native_transport_stats:sent(iolist_size(Data), Stats);
            {error, _} -> erlmcp_native_transport_stats:error(Stats)
        end,
    {Result, events(Events, State#state{core = Next, stats = Counted})}.

post(Messages, State) ->
    Post = fun(Message, Acc) -> element(2, send_one(Message, Acc)) end,
    lists:foldl(Post, State, Messages).

%% ---- from the server to the receiver

take(_, #state{reminded = true} = State) ->
    State;
take(Takes, #state{core = Core, window = Window} = State) ->
    case {erlmcp_native_http_client_core:is_readable(Core), erlmcp_native_window:room(Window)} of
        {false, _} -> State;
        {true, none} -> look(Takes, State);
        {true, _} when Takes =:= 0 -> remind(0, State);
        {true, _} -> take_one(Takes, State)
    end.

take_one(Takes, #state{core = Core} = State) ->
    {Events, Next} = erlmcp_native_http_client_core:take(Core),
    take(Takes - 1, events(Events, State#state{core = Next})).

look(Takes, #state{module = Module, shape = Shape, window = Window} = State) ->
    {Unread, Next} = Module:unread(Shape),
    case erlmcp_native_window:look(length_of(Unread), Window) of
        {open, Open} -> take_one(max(1, Takes), State#state{shape = Next, window = Open});
        {shut, WaitMs, Shut} -> remind(WaitMs, State#state{shape = Next, window = Shut})
    end.

%% There is nobody: what arrives is logged and dropped by the shape.
length_of(Unread) when is_integer(Unread) -> Unread;
length_of(_) -> 0.

remind(WaitMs, State) ->
    _ = erlang:send_after(WaitMs, self(), {?MODULE, take}),
    State#state{reminded = true}.

window(#{client := #{max_owner_queue := Messages, max_owner_bytes := Bytes}}) ->
    erlmcp_native_window:new(Messages, Bytes).

events(Events, State) -> lists:foldl(fun event/2, State, Events).

event({frames, Frames}, State) ->
    lists:foldl(fun inbound/2, connected(State), Frames);
event({failed, none, Reason}, #state{stats = Stats} = State) ->
    ?LOG_NOTICE("erlmcp_native: a message was not accepted: ~0p", [Reason]),
    State#state{stats = erlmcp_native_transport_stats:error(Stats)};
event({failed, Id, Reason}, #state{stats = Stats} = State) ->
    Failed = State#state{stats = erlmcp_native_transport_stats:error(Stats)},
    judged(error_response(Id, Reason), Failed);
event(session_lost, #state{module = Module, shape = Shape} = State) ->
    ok = Module:event({down, open, session_lost, {retry_in, 0}}, Shape),
    State#state{connected = false};
event(session_renewed, State) ->
    State.

connected(#state{connected = true} = State) ->
    State;
connected(#state{module = Module, shape = Shape, stats = Stats} = State) ->
    ok = Module:event(connected, Shape),
    Now = erlang:system_time(millisecond),
    State#state{connected = true, stats = erlmcp_native_transport_stats:connected(Now, Stats)}.

inbound(Frame, #state{stats = Stats} = State) ->
    Received = erlmcp_native_transport_stats:received(byte_size(Frame), Stats),
    judged(Frame, State#state{stats = Received}).

judged(Frame, #state{guard = Guard} = State) when Guard =:= undecided; Guard =:= none ->
    deliver([Frame], State);
judged(Frame, #state{guard = Guard} = State) ->
    {Deliver, Replies, Next} = erlmcp_native_guard:inbound(Frame, Guard),
    post(Replies, deliver(Deliver, State#state{guard = Next})).

deliver([], State) ->
    State;
deliver(Frames, #state{module = Module, shape = Shape, window = Window} = State) ->
    Undelivered = Module:deliver(Frames, Shape),
    Bytes = iolist_size(Frames),
    Sent = State#state{window = erlmcp_native_window:sent(length(Frames), Bytes, Window)},
    undelivered(Undelivered, Sent).

undelivered([], State) ->
    State;
undelivered(Frames, #state{guard = Guard} = State) when Guard =:= undecided; Guard =:= none ->
    post(erlmcp_native_undelivered:answers(Frames), State);
undelivered(_, #state{guard = Guard} = State) ->
    {Replies, Next} = erlmcp_native_guard:receiver_lost(Guard),
    post(Replies, State#state{guard = Next}).

error_response(Id, Reason) ->
    Text = unicode:characters_to_binary(io_lib:format("HTTP: ~0tp", [brief(Reason)])),
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"error">> => #{<<"code">> => ?FAILED, <<"message">> => Text}
    }).

brief({status, Status, _}) -> {status, Status};
brief(Reason) -> Reason.

%% ---- what it says of itself

info(#state{module = Module, shape = Shape, core = Core, options = Options} = State) ->
    #{given := Given} = Options,
    Connection = erlmcp_native_http_client_core:info(Core),
    (Module:info(Shape))#{
        type => http,
        status => status(State),
        config => Given,
        connection => Connection#{connected => State#state.connected},
        guard =>
            case State#state.guard of
                Guard when Guard =:= undecided; Guard =:= none -> false;
                Guard -> erlmcp_native_guard:info(Guard)
            end,
        statistics => erlmcp_native_transport_stats:report(State#state.stats)
    }.

status(#state{connected = true}) -> connected;
status(#state{connected = false}) -> connecting.
