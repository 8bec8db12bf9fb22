%% @private The process of an HTTP client: owns the core and passes its events to the owner. What is
%% unread there is judged by the length of its mailbox ({@link erlmcp_native_window}); while too
%% much is, nothing more is taken from the server.
-module(erlmcp_native_http_client_proc).

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, format_status/1]).

-record(state, {
    core :: erlmcp_native_http_client_core:core(),
    options :: erlmcp_native_http_client_options:options(),
    owner :: pid(),
    monitor :: reference(),
    window :: erlmcp_native_window:window(),
    breaker :: erlmcp_native_http_client_breaker:breaker(),
    %% A reminder to take is in the mailbox, or a timer will send one.
    reminded = false :: boolean()
}).

%% A slice of taking: other messages are served in between.
-define(TAKES, 8).

-define(HIBERNATE_AFTER_MS, 1000).

-spec start_link(erlmcp_native_http_client_options:options()) ->
    {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Options) ->
    case gen_server:start_link(?MODULE, Options, [{hibernate_after, ?HIBERNATE_AFTER_MS}]) of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, Reason}} -> {error, Reason}
    end.

%% @private
-spec init(erlmcp_native_http_client_options:options()) ->
    {ok, #state{}} | {stop, {shutdown, erlmcp_native:reason()}}.
init(#{owner := Owner, max_owner_queue := Messages, max_owner_bytes := Bytes} = Options) ->
    %% The session is ended in terminate/2.
    process_flag(trap_exit, true),
    case erlmcp_native_http_client_core:new(Options) of
        {ok, Core} ->
            {ok, #state{
                core = Core,
                options = Options,
                owner = Owner,
                monitor = monitor(process, Owner),
                window = erlmcp_native_window:new(Messages, Bytes),
                breaker = erlmcp_native_http_client_breaker:new(Options)
            }};
        {error, Reason} ->
            {stop, {shutdown, Reason}}
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call({send, Message, Limits}, _, #state{breaker = Breaker} = State) ->
    case erlmcp_native_http_client_breaker:ask(Message, Breaker) of
        {ok, Ticket} -> send(Message, Limits, Ticket, State);
        {error, breaker_open} = Error -> {reply, Error, State}
    end;
handle_call({cancel, Id}, _, #state{core = Core} = State) ->
    {Events, Next} = erlmcp_native_http_client_core:cancel(Id, Core),
    {reply, ok, tell(Events, State#state{core = Next})};
handle_call(info, _, #state{core = Core, owner = Owner, options = Options} = State) ->
    #{revision := Offers} = Options,
    Info = erlmcp_native_http_client_core:info(Core),
    {reply, {ok, Info#{owner => Owner, offers => Offers}}, State};
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({?MODULE, take}, State) ->
    {noreply, take(?TAKES, State#state{reminded = false})};
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info(Msg, #state{core = Core} = State) ->
    case erlmcp_native_http_client_core:handle_info(Msg, Core) of
        {Events, Next} -> {noreply, take(?TAKES, tell(Events, State#state{core = Next}))};
        unknown -> {noreply, State}
    end.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{core = Core}) ->
    erlmcp_native_http_client_core:close(Core).

%% @private Tokens and messages are not for the log.
-spec format_status(gen_server:format_status()) -> gen_server:format_status().
format_status(Status) ->
    Summary = fun
        (state, #state{core = Core}) -> erlmcp_native_http_client_core:info(Core);
        (message, _) -> hidden;
        (_, Value) -> Value
    end,
    maps:map(Summary, Status).

take(_, #state{reminded = true} = State) ->
    State;
take(Takes, #state{core = Core, window = Window} = State) ->
    case erlmcp_native_http_client_core:is_readable(Core) of
        false ->
            State;
        true when Takes =:= 0 ->
            self() ! {?MODULE, take},
            State#state{reminded = true};
        true ->
            case erlmcp_native_window:room(Window) of
                none -> look(Takes, State);
                _ -> take_one(Takes, State)
            end
    end.

take_one(Takes, #state{core = Core} = State) ->
    {Events, Next} = erlmcp_native_http_client_core:take(Core),
    take(Takes - 1, tell(Events, State#state{core = Next})).

look(Takes, #state{window = Window, owner = Owner} = State) ->
    {Unread, Waits} = unread(Owner),
    case erlmcp_native_window:look(Unread, Waits, Window) of
        {open, Open} ->
            take_one(Takes, State#state{window = Open});
        {shut, WaitMs, Shut} ->
            _ = erlang:send_after(WaitMs, self(), {?MODULE, take}),
            State#state{window = Shut, reminded = true}
    end.

unread(Owner) when node(Owner) =:= node() ->
    case process_info(Owner, [message_queue_len, status]) of
        [{_, Length}, {_, Status}] -> {Length, Status =:= waiting};
        undefined -> {0, false}
    end;
unread(_) ->
    {0, false}.

send(Message, Limits, Ticket, #state{core = Core, breaker = Breaker} = State) ->
    {Result, Events, Next} = erlmcp_native_http_client_core:send(Message, Limits, Core),
    Sent = erlmcp_native_http_client_breaker:sent(Ticket, Result, Breaker),
    {reply, Result, tell(Events, State#state{core = Next, breaker = Sent})}.

tell([], State) ->
    State;
tell(Events, #state{breaker = Breaker} = State) ->
    Told = erlmcp_native_http_client_breaker:told(Events, Breaker),
    lists:foldl(fun tell_one/2, State#state{breaker = Told}, Events).

tell_one(Event, #state{owner = Owner, window = Window} = State) ->
    Owner ! {erlmcp_native, self(), Event},
    State#state{window = erlmcp_native_window:sent(1, bytes(Event), Window)}.

bytes({frames, Frames}) -> iolist_size(Frames);
bytes(_) -> 0.
