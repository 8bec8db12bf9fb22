%% @private The process of a failover: carries out what the plan decides, and tells it what happens.
-module(erlmcp_native_failover_proc).

-behaviour(gen_server).
-behaviour(erlmcp_native_metrics).

-export([start_link/1, metrics/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([config/0]).

-define(PLAN, erlmcp_native_failover_plan).
-define(PEER, erlmcp_native_failover_peer).
-define(GUARD, erlmcp_native_failover_guard).

-type config() :: {
    [erlmcp_native_failover_options:endpoint(), ...], erlmcp_native_failover_options:options()
}.

-record(request, {
    message :: map(),
    to :: owner | gen_server:from(),
    timer :: reference() | none
}).

-record(state, {
    settings :: erlmcp_native_failover_options:options(),
    owner :: pid(),
    monitor :: reference(),
    plan :: ?PLAN:plan(),
    peers :: #{?PLAN:name() => ?PEER:peer()},
    pids = #{} :: #{pid() => ?PLAN:name()},
    requests = #{} :: #{?PLAN:id() => #request{}},
    guard :: ?GUARD:guard(),
    window :: erlmcp_native_window:window(),
    %% Endpoints that wait until the owner has read.
    paused = [] :: [?PLAN:name()],
    late = 0 :: non_neg_integer(),
    switches = 0 :: non_neg_integer(),
    tick_ms :: pos_integer()
}).

-define(LONGEST_TICK_MS, 50).
-define(WINDOW_BYTES, 1048576).

-spec start_link(config()) -> {ok, pid()} | {error, term()}.
start_link(Config) -> gen_server:start_link(?MODULE, Config, []).

%% @private
-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    Counter = fun(Name, Help) ->
        #{name => Name, kind => counter, group => failover, help => Help}
    end,
    [
        Counter(failover_switches, <<"Times that a failover has made another endpoint active">>),
        Counter(failover_requests, <<"Requests that failovers have taken on">>),
        Counter(failover_switched_requests, <<"Requests that were lost with their endpoint">>),
        Counter(failover_late_answers, <<"Answers that nobody waited for any more">>)
    ].

%% @private
-spec init(config()) -> {ok, #state{}}.
init({Endpoints, #{owner := Owner, ping_ms := Ping, ping_timeout_ms := Timeout} = Settings}) ->
    _ = process_flag(trap_exit, true),
    {ok, Backoff} = erlmcp_native_backoff:options(true),
    Names = [Name || #{name := Name} <- Endpoints],
    Limits = maps:with([max_in_flight, max_queue, retries, failback], Settings),
    Peers = [{Name, ?PEER:new(E, Settings, Backoff)} || #{name := Name} = E <- Endpoints],
    Tick = max(5, min(?LONGEST_TICK_MS, min(Ping, Timeout) div 4)),
    State = #state{
        settings = Settings,
        owner = Owner,
        monitor = monitor(process, Owner),
        plan = ?PLAN:new(Names, Limits),
        peers = maps:from_list(Peers),
        guard = ?GUARD:new(maps:get(breaker, Settings), Names),
        window = erlmcp_native_window:new(maps:get(max_owner_queue, Settings), ?WINDOW_BYTES),
        tick_ms = Tick
    },
    _ = erlang:send_after(Tick, self(), tick),
    {ok, lists:foldl(fun(Name, S) -> peer(Name, fun ?PEER:open/1, S) end, State, Names)}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}}.
handle_call({request, Message, Options}, _, State) ->
    case requested(Message, Options, owner, State) of
        {ok, Id, Effects, Next} -> {reply, {ok, Id}, effects(Effects, Next)};
        {error, _} = Error -> {reply, Error, State}
    end;
handle_call({call, Message, Options}, From, State) ->
    case requested(Message, Options, From, State) of
        {ok, _, Effects, Next} -> {noreply, effects(Effects, Next)};
        {error, _} = Error -> {reply, Error, State}
    end;
handle_call({cancel, Id}, _, State) ->
    case withdraw(Id, cancelled, State) of
        {ok, Next} -> {reply, ok, Next};
        unknown -> {reply, {error, unknown}, State}
    end;
handle_call({notify, To, Message}, _, #state{plan = Plan, peers = Peers} = State) ->
    Name =
        case To of
            active -> ?PLAN:active(Plan);
            {name, Given} -> Given
        end,
    case Peers of
        #{Name := Peer} -> {reply, ?PEER:send(Message#{jsonrpc => <<"2.0">>}, Peer), State};
        #{} -> {reply, {error, not_connected}, State}
    end;
handle_call({switch, To}, _, #state{plan = Plan} = State) ->
    case ?PLAN:switch(To, command, Plan) of
        {ok, Effects, Next} -> {reply, ok, effects(Effects, State#state{plan = Next})};
        {error, _} = Error -> {reply, Error, State}
    end;
handle_call(info, _, State) ->
    {reply, {ok, info(State)}, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) -> {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({erlmcp_native, Pid, Event}, #state{pids = Pids} = State) when
    is_map_key(Pid, Pids)
->
    #{Pid := Name} = Pids,
    {noreply, peer(Name, fun(Peer) -> ?PEER:event(Event, Peer) end, State)};
handle_info({erlmcp_native, {breaker, {_, _, Name}}, {state, _, To}}, State) ->
    {noreply, breaker_is(To, Name, State)};
handle_info({timeout, _, {request, Id}}, State) ->
    case withdraw(Id, timeout, State) of
        {ok, Next} -> {noreply, Next};
        unknown -> {noreply, State}
    end;
handle_info(tick, #state{tick_ms = Ms, plan = Plan, peers = Peers} = State) ->
    _ = erlang:send_after(Ms, self(), tick),
    Ready = ?PLAN:ready(Plan),
    Tick = fun(Name, Peer, S) ->
        BreakerState = ?GUARD:state(Name, S#state.guard),
        Probed =
            case lists:member(Name, Ready) of
                true -> S;
                false -> probe(BreakerState, Name, Peer, S)
            end,
        peer(Name, fun ?PEER:tick/1, Probed)
    end,
    {noreply, look(maps:fold(Tick, State, Peers))};
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info({'DOWN', _, process, Pid, Reason}, #state{pids = Pids} = State) when
    is_map_key(Pid, Pids)
->
    #{Pid := Name} = Pids,
    Gone = fun(Peer) -> ?PEER:gone(closed(Reason), erlang:monotonic_time(millisecond), Peer) end,
    {noreply, peer(Name, Gone, State)};
handle_info(_, State) ->
    {noreply, State}.

closed(normal) -> closed;
closed(noproc) -> closed;
closed(Reason) -> {exit, Reason}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{requests = Requests, peers = Peers} = State) ->
    _ = maps:fold(fun(Id, _, S) -> outcome(Id, {error, closed}, S) end, State, Requests),
    lists:foreach(fun ?PEER:close/1, maps:values(Peers)),
    ?GUARD:delete(maps:keys(Peers), State#state.guard).

requested(Message, Options, To, #state{plan = Plan, settings = Settings} = State) ->
    case ?PLAN:request(maps:get(safe, Options, false), Plan) of
        {ok, Id, Effects, Next} ->
            _ = erlmcp_native_metrics:add(failover_requests, 1),
            Timeout = maps:get(timeout_ms, Options, maps:get(timeout_ms, Settings)),
            Request = #request{message = Message, to = To, timer = timer(Id, Timeout)},
            Requests = (State#state.requests)#{Id => Request},
            {ok, Id, Effects, State#state{plan = Next, requests = Requests}};
        {error, _} = Error ->
            Error
    end.

timer(_, infinity) -> none;
timer(Id, Ms) -> erlang:start_timer(Ms, self(), {request, Id}).

withdraw(Id, Reason, #state{plan = Plan} = State) ->
    case ?PLAN:withdraw(Id, Reason, Plan) of
        {Effects, Next} ->
            Late = #{timeout => failed, cancelled => cancelled},
            Owed = [Wire || {withdrawn, _, Wire} <- Effects],
            Settled = lists:foldl(
                fun(Wire, S) -> settle(Wire, maps:get(Reason, Late), S) end,
                State#state{plan = Next},
                Owed
            ),
            {ok, effects(Effects, Settled)};
        unknown ->
            unknown
    end.

%% What an endpoint does, as notices.
peer(Name, Do, #state{peers = Peers, pids = Pids} = State) ->
    #{Name := Before} = Peers,
    {Notices, After} = Do(Before),
    Known =
        case {?PEER:pid(Before), ?PEER:pid(After)} of
            {Same, Same} -> Pids;
            {none, New} -> Pids#{New => Name};
            {Old, none} -> maps:remove(Old, Pids);
            {Old, New} -> (maps:remove(Old, Pids))#{New => Name}
        end,
    Next = State#state{peers = Peers#{Name := After}, pids = Known},
    lists:foldl(fun(Notice, S) -> notice(Notice, Name, S) end, Next, Notices).

notice({answer, Wire, Answer}, Name, #state{plan = Plan} = State) ->
    case ?PLAN:answered(Name, Wire, Plan) of
        {[{outcome, Id, _} | Effects], Next} ->
            Answered = settle(Wire, ok, State#state{plan = Next}),
            effects(Effects, outcome(Id, result(Answer), Answered));
        late ->
            _ = erlmcp_native_metrics:add(failover_late_answers, 1),
            State#state{late = State#state.late + 1}
    end;
notice(ready, Name, State) ->
    case ?GUARD:state(Name, State#state.guard) of
        closed -> plan(fun(Plan) -> ?PLAN:ready(Name, Plan) end, State);
        _ -> State
    end;
notice({down, Reason}, Name, State) ->
    Lost = fun(Plan) -> ?PLAN:down(Name, Reason, Plan) end,
    plan(Lost, unpaused(Name, State#state{guard = ?GUARD:forgive(Name, State#state.guard)}));
notice({leave, Reason}, Name, State) ->
    plan(fun(Plan) -> ?PLAN:leave(Name, Reason, Plan) end, State);
notice({failed, Wire, Reason}, Name, State) ->
    failed(erlmcp_native_failure:kind(Reason), Wire, Reason, Name, State);
notice({ponged, none, _}, _, State) ->
    State;
notice({ponged, Ticket, Outcome}, _, State) ->
    ok = ?GUARD:probed(Ticket, Outcome),
    State;
notice({initialized, Result}, Name, State) ->
    tell({initialized, Name, Result}, State);
notice({message, Message}, Name, State) ->
    tell({message, Name, Message}, State);
notice(writable, Name, State) ->
    plan(fun(Plan) -> ?PLAN:writable(Name, Plan) end, State);
notice(passive, Name, #state{paused = Paused} = State) ->
    look(State#state{paused = [Name | Paused]}).

result(#{<<"result">> := Result}) -> {ok, Result};
result(#{<<"error">> := Error}) -> {error, {rpc, Error}};
result(_) -> {error, invalid_answer}.

%% Over HTTP. What could not be sent is as good as new; of what was cut off nobody knows.
failed(Kind, Wire, Reason, Name, State) when Kind =:= refused; Kind =:= unreachable; Kind =:= tls ->
    Doubted = doubt(Name, Reason, settle(Wire, failed, State)),
    plan(fun(Plan) -> ?PLAN:unsent(Wire, Plan) end, Doubted);
failed(Kind, Wire, Reason, Name, State) when
    Kind =:= timeout; Kind =:= reset; Kind =:= shutdown; Kind =:= native
->
    Doubted = doubt(Name, Reason, settle(Wire, failed, State)),
    plan(fun(Plan) -> ?PLAN:lost(Wire, Reason, Plan) end, Doubted);
failed(Kind, Wire, Reason, _, State) ->
    Outcome =
        case Kind of
            protocol -> failed;
            _ -> cancelled
        end,
    Settled = settle(Wire, Outcome, State),
    plan(fun(Plan) -> ?PLAN:failed(Wire, Reason, Plan) end, Settled).

doubt(Name, Reason, #state{peers = Peers} = State) ->
    case ?PEER:is_ready(maps:get(Name, Peers)) of
        true -> peer(Name, fun(Peer) -> ?PEER:doubt(Reason, Peer) end, State);
        false -> State
    end.

breaker_is(open, Name, State) ->
    plan(fun(Plan) -> ?PLAN:leave(Name, breaker_open, Plan) end, State);
breaker_is(half_open, _, State) ->
    State;
breaker_is(closed, Name, #state{peers = Peers} = State) ->
    case Peers of
        #{Name := Peer} ->
            case ?PEER:is_ready(Peer) of
                true -> plan(fun(Plan) -> ?PLAN:ready(Name, Plan) end, State);
                false -> State
            end;
        #{} ->
            State
    end.

%% An endpoint whose breaker wants a probe is pinged: no request is staked for that.
probe(closed, Name, Peer, State) ->
    %% It may have been made anew while the endpoint was out of use.
    case ?PEER:is_ready(Peer) of
        true -> plan(fun(Plan) -> ?PLAN:ready(Name, Plan) end, State);
        false -> State
    end;
probe(_, Name, Peer, #state{guard = Guard} = State) ->
    case ?PEER:is_ready(Peer) andalso ?GUARD:probe(Name, Guard) of
        {ok, Ticket} -> peer(Name, fun(P) -> {[], ?PEER:ping(Ticket, P)} end, State);
        _ -> State
    end.

plan(Tell, #state{plan = Plan} = State) ->
    {Effects, Next} = Tell(Plan),
    effects(Effects, State#state{plan = Next}).

effects(Effects, State) -> lists:foldl(fun effect/2, State, Effects).

effect({send, Name, Wire, Id}, #state{peers = Peers, requests = Requests} = State) ->
    #{Id := #request{message = Message}} = Requests,
    case ?PEER:send(Message#{id => Wire}, maps:get(Name, Peers)) of
        ok -> State#state{guard = ?GUARD:sent(Name, Wire, State#state.guard)};
        %% There will be room, or its end will be told.
        {error, Again} when Again =:= busy; Again =:= closed; Again =:= not_connected ->
            plan(fun(Plan) -> ?PLAN:stalled(Wire, Plan) end, State);
        {error, Reason} ->
            plan(fun(Plan) -> ?PLAN:failed(Wire, Reason, Plan) end, State)
    end;
effect({outcome, Id, {failed, {switched, _, _, _} = Reason}}, State) ->
    _ = erlmcp_native_metrics:add(failover_switched_requests, 1),
    outcome(Id, {error, Reason}, State);
effect({outcome, Id, {failed, Reason}}, State) ->
    outcome(Id, {error, Reason}, State);
effect({withdrawn, Name, Wire}, State) ->
    peer(Name, fun(Peer) -> {[], ?PEER:withdraw(Wire, Peer)} end, State);
effect({switched, From, To, Reason}, #state{switches = N} = State) ->
    _ = erlmcp_native_metrics:add(failover_switches, 1),
    tell({switched, From, To, Reason}, State#state{switches = N + 1}).

settle(Wire, Outcome, #state{guard = Guard} = State) ->
    State#state{guard = ?GUARD:settle(Wire, Outcome, Guard)}.

outcome(Id, Outcome, #state{requests = Requests} = State) ->
    {#request{to = To, timer = Timer}, Rest} = maps:take(Id, Requests),
    _ = is_reference(Timer) andalso erlang:cancel_timer(Timer, [{async, true}, {info, false}]),
    Ended = State#state{requests = Rest},
    case To of
        owner ->
            tell({outcome, Id, Outcome}, Ended);
        From ->
            gen_server:reply(From, Outcome),
            Ended
    end.

tell(Event, #state{owner = Owner, window = Window} = State) ->
    Owner ! {erlmcp_native, self(), Event},
    State#state{window = erlmcp_native_window:sent(1, 0, Window)}.

unpaused(Name, #state{paused = Paused} = State) ->
    State#state{paused = [Other || Other <- Paused, Other =/= Name]}.

%% Lets endpoints go on where the owner has read what there was.
look(#state{paused = []} = State) ->
    State;
look(#state{window = Window, owner = Owner} = State) ->
    case erlmcp_native_window:room(Window) of
        none ->
            {Unread, Waits} = unread(Owner),
            case erlmcp_native_window:look(Unread, Waits, Window) of
                {open, Open} -> go_on(State#state{window = Open});
                {shut, _, Shut} -> State#state{window = Shut}
            end;
        _ ->
            go_on(State)
    end.

go_on(#state{paused = Paused, peers = Peers} = State) ->
    lists:foreach(fun(Name) -> ?PEER:go_on(maps:get(Name, Peers)) end, Paused),
    State#state{paused = []}.

unread(Owner) when node(Owner) =:= node() ->
    case process_info(Owner, [message_queue_len, status]) of
        [{_, Length}, {_, Status}] -> {Length, Status =:= waiting};
        undefined -> {0, false}
    end;
unread(_) ->
    {0, false}.

info(#state{plan = Plan, peers = Peers, late = Late, switches = Switches} = State) ->
    Endpoint = fun(Name, Peer) ->
        (?PEER:info(Peer))#{
            in_flight => ?PLAN:in_flight(Name, Plan),
            breaker => ?GUARD:state(Name, State#state.guard)
        }
    end,
    (?PLAN:counts(Plan))#{
        active => ?PLAN:active(Plan),
        ready => ?PLAN:ready(Plan),
        endpoints => maps:map(Endpoint, Peers),
        late => Late,
        switches => Switches
    }.
