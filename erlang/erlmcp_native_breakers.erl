%% @doc The circuit breakers of this node, by key, most often the endpoint that they stand before.
%%
%% ```
%% ok = erlmcp_native_breakers:ensure(Key, #{}),
%% case erlmcp_native_breakers:ask(Key) of
%%     {ok, Ticket} -> ..., erlmcp_native_breakers:done(Ticket, ok);
%%     {error, breaker_open} -> ...
%% end.
%% '''
%%
%% Whether a call may be made is a look at a table, and that it has ended well an addition to a
%% counter: nothing passes through a process but failures, slow calls, and the probes of one that
%% is half open. {@link erlmcp_native_breaker} decides; its options are described there. Changes
%% reach subscribers as `{erlmcp_native, {breaker, Key}, {state, From, To}}'.
-module(erlmcp_native_breakers).

-behaviour(gen_server).
-behaviour(erlmcp_native_metrics).

-export([start_link/0, ensure/2, ensure/3, delete/1, ask/1, ask/2, done/2, run/2, force/2]).
-export([state/1, wants_probe/1, info/1, all/0, subscribe/1, unsubscribe/1]).
-export([metrics/0, states/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([key/0, ticket/0]).

-type key() :: term().

-opaque ticket() ::
    none
    | {key(), erlmcp_native_breaker:ticket(), StartNs :: integer(), atomics:atomics_ref()}.

-define(TABLE, ?MODULE).
-define(CALL_TIMEOUT_MS, 5000).

%% Of the counters that callers share with this process.
-define(PASSED, 1).
%% How many are lacking for what was seen to count; 0 for none.
-define(LACKING, 2).
%% From when on a call is slow, in ms; 0 for never.
-define(SLOW, 3).

%% What is written of a breaker of a time window is at most so much of its length old.
-define(FOLDS_PER_WINDOW, 10).

-record(state, {
    breakers = #{} :: #{key() => #{breaker := erlmcp_native_breaker:breaker(), options := map()}},
    %% Who probes, so that the probe of a process that dies is given back.
    probing = #{} :: #{reference() => {key(), erlmcp_native_breaker:ticket()}},
    subscribers = #{} :: #{{pid(), key() | all} => reference()},
    %% Breakers that go with a process.
    owners = #{} :: #{reference() => key()}
}).

%% @private
-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Makes a breaker where there is none of this key.
-spec ensure(key(), map() | true) -> ok | {error, {option, term(), term()}}.
ensure(Key, Options) ->
    case erlmcp_native_breaker:options(Options) of
        {ok, Checked} -> call({ensure, Key, Checked, none});
        {error, _} = Error -> Error
    end.

%% @doc The same, of one that goes with a process.
-spec ensure(key(), map() | true, pid()) -> ok | {error, {option, term(), term()}}.
ensure(Key, Options, Pid) ->
    case erlmcp_native_breaker:options(Options) of
        {ok, Checked} -> call({ensure, Key, Checked, Pid});
        {error, _} = Error -> Error
    end.

-spec delete(key()) -> ok.
delete(Key) -> call({delete, Key}).

%% @doc Whether a call may be made. Of a key that has no breaker everything may.
-spec ask(key()) -> {ok, ticket()} | {error, breaker_open}.
ask(Key) ->
    case look(Key) of
        [Row] -> asked(Row);
        [] -> {ok, none}
    end.

%% @doc The same, and makes the breaker if there is none.
-spec ask(key(), map() | true) -> {ok, ticket()} | {error, breaker_open}.
ask(Key, Options) ->
    case look(Key) of
        [Row] ->
            asked(Row);
        [] ->
            _ = ensure(Key, Options),
            ask(Key)
    end.

asked({Key, closed, _, Epoch, Counters}) ->
    {ok, {Key, {call, Epoch}, now_ns(), Counters}};
asked({Key, _, RetryAt, _, Counters}) ->
    case RetryAt =:= none orelse RetryAt =< now_ms() of
        true -> probe(call({ask, Key}), Key, Counters);
        false -> rejected()
    end.

probe({ok, Ticket}, Key, Counters) -> {ok, {Key, Ticket, now_ns(), Counters}};
probe({error, breaker_open}, _, _) -> rejected();
%% The process is being started again: better a call too many than none.
probe(_, _, _) -> {ok, none}.

rejected() ->
    _ = erlmcp_native_metrics:add(breaker_rejected, 1),
    {error, breaker_open}.

%% @doc Tells how a call has ended. `cancelled': nothing can be said of it.
-spec done(ticket(), erlmcp_native_breaker:outcome()) -> ok.
done(none, _) ->
    ok;
done({Key, {call, _} = Ticket, StartNs, Counters}, ok) ->
    TookMs = (now_ns() - StartNs) div 1000000,
    case atomics:get(Counters, ?SLOW) of
        Slow when Slow > 0, TookMs >= Slow ->
            tell({done, Key, Ticket, ok, TookMs});
        _ ->
            case {atomics:add_get(Counters, ?PASSED, 1), atomics:get(Counters, ?LACKING)} of
                {N, N} -> tell({fold, Key});
                _ -> ok
            end
    end;
done({_, {call, _}, _, _}, cancelled) ->
    ok;
done({Key, Ticket, StartNs, _}, Outcome) ->
    tell({done, Key, Ticket, Outcome, (now_ns() - StartNs) div 1000000}).

%% @doc Makes a call: what it returns, `{error, _}' counts as a failure, and so does an exception.
-spec run(key(), fun(() -> Result)) -> Result | {error, breaker_open}.
run(Key, Call) ->
    case ask(Key) of
        {ok, Ticket} -> run_with(Ticket, Call);
        {error, _} = Error -> Error
    end.

run_with(Ticket, Call) ->
    try Call() of
        {error, _} = Error ->
            ok = done(Ticket, failed),
            Error;
        Result ->
            ok = done(Ticket, ok),
            Result
    catch
        Class:Reason:Stack ->
            ok = done(Ticket, failed),
            erlang:raise(Class, Reason, Stack)
    end.

%% @doc Opens or closes a breaker by command.
-spec force(key(), open | closed) -> ok | {error, unknown}.
force(Key, State) when State =:= open; State =:= closed -> call({force, Key, State}).

%% @doc A look at the table. One that is open is so until somebody asks.
-spec state(key()) -> erlmcp_native_breaker:state() | unknown.
state(Key) ->
    case look(Key) of
        [{_, State, _, _, _}] -> State;
        [] -> unknown
    end.

%% @doc Whether one that has been open may let a call through. A look at the table.
-spec wants_probe(key()) -> boolean().
wants_probe(Key) ->
    case look(Key) of
        [{_, closed, _, _, _}] -> false;
        [{_, _, RetryAt, _, _}] -> RetryAt =< now_ms();
        [] -> false
    end.

%% @doc State, and the calls that it goes by.
-spec info(key()) -> {ok, map()} | {error, unknown}.
info(Key) -> call({info, Key}).

-spec all() -> #{key() => erlmcp_native_breaker:state()}.
all() ->
    maps:from_list([{Key, State} || {Key, State, _, _, _} <- rows()]).

%% @doc Has the calling process told of each change of one breaker, or of all.
-spec subscribe(key() | all) -> ok.
subscribe(Key) -> call({subscribe, self(), Key}).

-spec unsubscribe(key() | all) -> ok.
unsubscribe(Key) -> call({unsubscribe, self(), Key}).

%% @private
-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    Counter = fun(Name, Help) ->
        #{name => Name, kind => counter, group => breaker, help => Help}
    end,
    [
        Counter(breaker_opened, <<"Circuit breakers that have opened">>),
        Counter(breaker_half_opened, <<"Circuit breakers that have let probes through">>),
        Counter(breaker_closed, <<"Circuit breakers that have closed again">>),
        Counter(breaker_rejected, <<"Calls that a circuit breaker has refused">>),
        #{
            name => breakers,
            kind => gauge,
            group => breaker,
            help => <<"Circuit breakers by state">>,
            labels => [{state, [closed, open, half_open]}],
            read => {?MODULE, states, []}
        }
    ].

%% @private
-spec states() -> [{[erlmcp_native_breaker:state()], non_neg_integer()}].
states() ->
    States = [State || {_, State, _, _, _} <- rows()],
    [{[State], length([S || S <- States, S =:= State])} || State <- [closed, open, half_open]].

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    ?TABLE = ets:new(?TABLE, [named_table, protected, {read_concurrency, true}]),
    {ok, #state{}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({ensure, Key, Options, Pid}, _, #state{breakers = Breakers} = State) ->
    case is_map_key(Key, Breakers) of
        true -> {reply, ok, State};
        false -> {reply, ok, owned(Pid, Key, made(Key, Options, State))}
    end;
handle_call({delete, Key}, _, State) ->
    {reply, ok, deleted(Key, State)};
handle_call({ask, Key}, {Pid, _}, State) ->
    asked(Key, Pid, State);
handle_call({force, Key, To}, _, State) ->
    change(Key, fun(Breaker) -> erlmcp_native_breaker:force(To, now_ms(), Breaker) end, State);
handle_call({info, Key}, _, #state{breakers = Breakers} = State) ->
    case Breakers of
        #{Key := #{breaker := Breaker}} ->
            Folded = folded(Key, Breaker),
            Next = put_breaker(Key, Breaker, Folded, State),
            {reply, {ok, erlmcp_native_breaker:info(now_ms(), Folded)}, Next};
        #{} ->
            {reply, {error, unknown}, State}
    end;
handle_call({subscribe, Pid, Key}, _, #state{subscribers = Subscribers} = State) ->
    case is_map_key({Pid, Key}, Subscribers) of
        true -> {reply, ok, State};
        false ->
            Next = Subscribers#{{Pid, Key} => monitor(process, Pid)},
            {reply, ok, State#state{subscribers = Next}}
    end;
handle_call({unsubscribe, Pid, Key}, _, #state{subscribers = Subscribers} = State) ->
    case maps:take({Pid, Key}, Subscribers) of
        {Monitor, Rest} ->
            true = demonitor(Monitor, [flush]),
            {reply, ok, State#state{subscribers = Rest}};
        error ->
            {reply, ok, State}
    end;
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast({done, Key, Ticket, Outcome, TookMs}, State) ->
    Done = fun(Breaker) ->
        erlmcp_native_breaker:done(Ticket, Outcome, TookMs, now_ms(), Breaker)
    end,
    {reply, _, Next} = change(Key, Done, given_back(Key, Ticket, State)),
    {noreply, Next};
handle_cast({fold, Key}, State) ->
    {reply, _, Next} = change(Key, fun(Breaker) -> Breaker end, State),
    {noreply, Next};
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', Monitor, process, _, _}, #state{probing = Probing} = State) ->
    case maps:take(Monitor, Probing) of
        {{Key, Ticket}, Rest} ->
            handle_cast({done, Key, Ticket, cancelled, 0}, State#state{probing = Rest});
        error ->
            {noreply, gone(Monitor, State)}
    end;
handle_info({fold, Key}, #state{breakers = Breakers} = State) ->
    case Breakers of
        #{Key := #{options := Options}} ->
            ok = fold_later(Key, Options),
            handle_cast({fold, Key}, State);
        #{} ->
            {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

gone(Monitor, #state{owners = Owners, subscribers = Subscribers} = State) ->
    case maps:take(Monitor, Owners) of
        {Key, Rest} ->
            deleted(Key, State#state{owners = Rest});
        error ->
            Left = maps:filter(fun(_, M) -> M =/= Monitor end, Subscribers),
            State#state{subscribers = Left}
    end.

owned(none, _, State) ->
    State;
owned(Pid, Key, #state{owners = Owners} = State) ->
    State#state{owners = Owners#{monitor(process, Pid) => Key}}.

deleted(Key, #state{breakers = Breakers} = State) ->
    true = ets:delete(?TABLE, Key),
    State#state{breakers = maps:remove(Key, Breakers)}.

made(Key, Options, #state{breakers = Breakers} = State) ->
    Breaker = erlmcp_native_breaker:new(Options),
    ok = fold_later(Key, Options),
    ok = write(Key, Options, Breaker),
    State#state{breakers = Breakers#{Key => #{breaker => Breaker, options => Options}}}.

%% When calls have ended is known only to this process.
fold_later(Key, #{window := time, window_ms := Ms}) ->
    _ = erlang:send_after(max(10, Ms div ?FOLDS_PER_WINDOW), self(), {fold, Key}),
    ok;
fold_later(_, _) ->
    ok.

asked(Key, Pid, #state{breakers = Breakers, probing = Probing} = State) ->
    case Breakers of
        #{Key := #{breaker := Breaker}} ->
            {Answer, Next} = erlmcp_native_breaker:ask(now_ms(), Breaker),
            Written = put_breaker(Key, Breaker, Next, State),
            case Answer of
                {ok, {probe, _} = Ticket} ->
                    Monitor = monitor(process, Pid),
                    {reply, Answer, Written#state{probing = Probing#{Monitor => {Key, Ticket}}}};
                _ ->
                    {reply, Answer, Written}
            end;
        #{} ->
            {reply, unknown, State}
    end.

%% Which of several probes it was makes no difference.
given_back(Key, {probe, _} = Ticket, #state{probing = Probing} = State) ->
    case [Monitor || {Monitor, Of} <- maps:to_list(Probing), Of =:= {Key, Ticket}] of
        [Monitor | _] ->
            true = demonitor(Monitor, [flush]),
            State#state{probing = maps:remove(Monitor, Probing)};
        [] ->
            State
    end;
given_back(_, _, State) ->
    State.

change(Key, Change, #state{breakers = Breakers} = State) ->
    case Breakers of
        #{Key := #{breaker := Breaker}} ->
            Changed = Change(folded(Key, Breaker)),
            {reply, ok, put_breaker(Key, Breaker, Changed, State)};
        #{} ->
            {reply, {error, unknown}, State}
    end.

%% Counts what has ended well since the last look.
folded(Key, Breaker) ->
    [{_, _, _, _, Counters}] = ets:lookup(?TABLE, Key),
    Passed = atomics:exchange(Counters, ?PASSED, 0),
    erlmcp_native_breaker:passed(Passed, now_ms(), Breaker).

put_breaker(Key, Before, After, #state{breakers = Breakers} = State) ->
    #{Key := #{options := Options} = Entry} = Breakers,
    case {erlmcp_native_breaker:epoch(Before), erlmcp_native_breaker:epoch(After)} of
        {Same, Same} -> ok = watch(Key, After);
        _ -> ok = changed(Key, Options, Before, After, State)
    end,
    State#state{breakers = Breakers#{Key := Entry#{breaker := After}}}.

changed(Key, Options, Before, After, #state{subscribers = Subscribers}) ->
    ok = write(Key, Options, After),
    case {erlmcp_native_breaker:state(Before), erlmcp_native_breaker:state(After)} of
        {Same, Same} ->
            ok;
        {From, To} ->
            _ = erlmcp_native_metrics:add(counter(To), 1),
            Event = {erlmcp_native, {breaker, Key}, {state, From, To}},
            Told = [Pid || {Pid, Of} <- maps:keys(Subscribers), Of =:= Key orelse Of =:= all],
            lists:foreach(fun(Pid) -> Pid ! Event end, Told)
    end.

counter(open) -> breaker_opened;
counter(half_open) -> breaker_half_opened;
counter(closed) -> breaker_closed.

%% Counters of its own for each state: what ends late is counted where nobody looks.
write(Key, Options, Breaker) ->
    Counters = atomics:new(3, []),
    case Options of
        #{slow_ms := infinity} -> ok;
        #{slow_ms := Slow} -> ok = atomics:put(Counters, ?SLOW, Slow)
    end,
    State = erlmcp_native_breaker:state(Breaker),
    Retry = erlmcp_native_breaker:retry_at(Breaker),
    true = ets:insert(?TABLE, {Key, State, Retry, erlmcp_native_breaker:epoch(Breaker), Counters}),
    watch(Key, Breaker).

watch(Key, Breaker) ->
    [{_, _, _, _, Counters}] = ets:lookup(?TABLE, Key),
    case erlmcp_native_breaker:lacking(now_ms(), Breaker) of
        none -> atomics:put(Counters, ?LACKING, 0);
        N -> atomics:put(Counters, ?LACKING, N)
    end.

look(Key) ->
    try
        ets:lookup(?TABLE, Key)
    catch
        %% The process is being started again.
        error:badarg -> []
    end.

rows() ->
    try
        ets:tab2list(?TABLE)
    catch
        error:badarg -> []
    end.

call(Request) ->
    try
        gen_server:call(?MODULE, Request, ?CALL_TIMEOUT_MS)
    catch
        exit:{noproc, _} -> {error, unknown}
    end.

tell(Message) -> gen_server:cast(?MODULE, Message).

now_ms() -> erlang:monotonic_time(millisecond).

now_ns() -> erlang:monotonic_time(nanosecond).
