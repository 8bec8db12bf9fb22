%% @doc A connection as a process: owns the link and passes what arrives to its owner.
%%
%% The process ends when the connection is down for good, when it is closed, or when its owner
%% dies. What it sends to its owner is `erlmcp_native:event()'; how much, the `active' window says.
-module(erlmcp_native_conn).

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([config/0, active/0]).

-type active() :: false | true | once | pos_integer().

-type config() :: #{
    owner := pid(),
    active := active(),
    dial => {erlmcp_native:endpoint(), erlmcp_native_link:options()}
}.
%% Without `dial' the process waits for the socket that a listener gives it.

-record(state, {
    link = none :: erlmcp_native_link:link() | none,
    owner :: pid(),
    monitor :: reference(),
    %% Frames that may still be passed on; 0 leaves them to the owner's take.
    window = 0 :: non_neg_integer() | infinity,
    %% What there is to take has been announced, or is being pushed.
    readable = false :: boolean(),
    %% A reminder to go on pushing is in the mailbox.
    reminded = false :: boolean(),
    stderr = none :: erlmcp_native_stderr:stderr() | none,
    %% What becomes of the end of the peer's data: an event, or the end when all is answered.
    eof = event :: event | {answered, erlmcp_native_answered:answered()}
}).

%% A slice of pushing: other messages are served in between.
-define(PUSH_ITEMS, 256).
-define(PUSH_BYTES, 262144).

%% An idle connection gives its heap back.
-define(HIBERNATE_AFTER_MS, 1000).

-spec start_link(config()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Config) ->
    case gen_server:start_link(?MODULE, Config, [{hibernate_after, ?HIBERNATE_AFTER_MS}]) of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, Reason}} -> {error, Reason}
    end.

%% @private
-spec init(config()) -> {ok, #state{}} | {stop, {shutdown, erlmcp_native:reason()}}.
init(#{owner := Owner, active := Active} = Config) ->
    State = #state{owner = Owner, monitor = monitor(process, Owner), window = window(Active)},
    case Config of
        #{dial := {Endpoint, Options}} ->
            case erlmcp_native_link:dial(Endpoint, Options) of
                {ok, Link} -> {ok, State#state{link = Link, eof = eof(Endpoint, Options)}};
                {error, Reason} -> {stop, {shutdown, Reason}}
            end;
        #{} ->
            {ok, State}
    end.

eof(stdio, #{connection := #{stdio := #{half_close := false}}}) ->
    {answered, erlmcp_native_answered:new()};
eof(_, _) -> event.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}} | {stop, term(), #state{}}
    | {stop, term(), term(), #state{}}.
handle_call(_, _, #state{link = none} = State) ->
    {reply, {error, not_connected}, State};
handle_call({send, Data, Priority}, _, #state{link = Link} = State) ->
    {Result, Next} = erlmcp_native_link:send(Data, Priority, Link),
    {reply, Result, State#state{link = Next}};
handle_call({take, MaxItems, MaxBytes}, From, State) ->
    take(MaxItems, MaxBytes, From, State);
handle_call({active, Active}, _, State) ->
    reply_and(ok, push(State#state{window = window(Active)}));
handle_call(sender, _, #state{link = Link} = State) ->
    {reply, erlmcp_native_link:sender(Link), State};
handle_call(info, _, #state{link = Link, owner = Owner, window = Window} = State) ->
    Info = erlmcp_native_link:info(Link),
    {reply, {ok, Info#{owner => Owner, window => Window}}, State};
handle_call({give, NewOwner}, {Owner, _} = From, #state{owner = Owner} = State) ->
    give(NewOwner, From, State);
handle_call({give, _}, _, State) ->
    {reply, {error, not_owner}, State};
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) ->
    {noreply, #state{}} | {noreply, #state{}, hibernate} | {stop, term(), #state{}}.
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info({?MODULE, push}, State) ->
    noreply(push(State#state{reminded = false}));
handle_info({?MODULE, answered}, State) ->
    noreply(answered(State));
handle_info({erlmcp_native_socket, Path, Socket}, #state{link = none} = State) ->
    {Events, Link} = erlmcp_native_link:adopt(Path, Socket),
    at_rest(noreply(events(Events, State#state{link = Link})));
handle_info(Msg, #state{link = Link} = State) when Link =/= none ->
    case erlmcp_native_link:handle_info(Msg, Link) of
        {Events, Next} -> noreply(events(Events, State#state{link = Next}));
        unknown -> {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{link = none}) ->
    ok;
terminate(_, #state{link = Link}) ->
    _ = erlmcp_native_link:close(Link),
    ok.

events([], State) ->
    {ok, State};
events([readable | Events], State) ->
    continue(readable(State), Events);
events([{down, Reason, final} | _], State) ->
    {final, tell({down, Reason, final}, State)};
events([{stderr, Lines} | Events], State) ->
    events(Events, stderr(Lines, State));
events([Event | Events], State) ->
    events(Events, tell(Event, State)).

stderr(Lines, #state{stderr = none} = State) ->
    stderr(Lines, State#state{stderr = erlmcp_native_stderr:new()});
stderr(Lines, #state{owner = Owner, stderr = Stderr} = State) ->
    case erlmcp_native_stderr:pass(Lines, Owner, Stderr) of
        {[], Next} -> State#state{stderr = Next};
        {Passed, Next} -> tell({stderr, Passed}, State#state{stderr = Next})
    end.

continue({ok, State}, Events) -> events(Events, State);
continue({final, _} = Final, _) -> Final.

readable(#state{window = 0} = State) ->
    {ok, tell(ready, State#state{readable = true})};
readable(State) ->
    push(State#state{readable = true}).

push(#state{window = 0, readable = true} = State) ->
    {ok, tell(ready, State)};
push(#state{readable = true, window = Window, link = Link} = State) ->
    Max = min(Window, ?PUSH_ITEMS),
    {Items, Status, Next} = erlmcp_native_link:take(Link, Max, ?PUSH_BYTES),
    Pushed = deliver(Items, heard(Items, State#state{link = Next})),
    case Status of
        more -> {ok, remind(Pushed)};
        again when Pushed#state.window =:= 0 -> look(Pushed);
        again -> {ok, remind(Pushed)};
        _ -> drained(Status, Pushed)
    end;
push(State) ->
    {ok, State}.

%% Everything that had arrived was taken.
drained(empty, State) ->
    {ok, State#state{readable = false}};
drained(eof, #state{eof = event} = State) ->
    {ok, tell(eof, State#state{readable = false})};
drained(eof, State) ->
    answered(State#state{readable = false});
drained({down, _, final} = Down, State) ->
    {final, tell(Down, State)};
drained({down, _, _} = Down, State) ->
    {ok, tell(Down, State#state{readable = false})}.

answered(#state{eof = {answered, Answered}, link = Link} = State) ->
    Sent =
        case erlmcp_native_link:info(Link) of
            #{socket := #{frames_out := Frames}} -> Frames;
            #{} -> 0
        end,
    case erlmcp_native_answered:look(Sent, Answered) of
        done ->
            {final, tell({down, closed, final}, State)};
        {again, WaitMs, Next} ->
            _ = erlang:send_after(WaitMs, self(), {?MODULE, answered}),
            {ok, State#state{eof = {answered, Next}}}
    end.

%% With the window used up, `passive' has said that there may be more.
remind(#state{window = Window, reminded = Reminded} = State) when Window =:= 0; Reminded ->
    State;
remind(State) ->
    self() ! {?MODULE, push},
    State#state{reminded = true}.

heard(_, #state{eof = event} = State) ->
    State;
heard(Items, #state{eof = {answered, Answered}} = State) ->
    State#state{eof = {answered, erlmcp_native_answered:heard(Items, Answered)}}.

deliver([], State) ->
    State;
deliver(Items, #state{window = Window} = State) ->
    passed(Window, length(Items), tell({frames, Items}, State)).

passed(infinity, _, State) ->
    State;
passed(Window, Count, State) when Count >= Window ->
    tell(passive, State#state{window = 0});
passed(Window, Count, State) ->
    State#state{window = Window - Count}.

take(MaxItems, MaxBytes, From, #state{link = Link, window = 0} = State) ->
    {Items, Status, Next} = erlmcp_native_link:take(Link, MaxItems, MaxBytes),
    %% The items reach the owner before what is told after them.
    gen_server:reply(From, {ok, Items}),
    Taken = heard(Items, State#state{link = Next}),
    case Status of
        more -> {noreply, Taken};
        again -> noreply(look(Taken));
        _ -> noreply(drained(Status, Taken))
    end;
take(_, _, _, State) ->
    {reply, {error, active}, State}.

%% Everything was taken, and the owner waits for `ready'.
look(#state{link = Link} = State) ->
    {[], Status, Next} = erlmcp_native_link:take(Link, 0, 0),
    Looked = State#state{link = Next},
    case Status of
        more -> {ok, tell(ready, Looked)};
        _ -> drained(Status, Looked)
    end.

%% The former owner passes on the events in its mailbox and says when it is done; nothing is
%% delivered in between, so that the new owner sees everything once and in order.
give(NewOwner, From, #state{monitor = Monitor} = State) ->
    Ref = make_ref(),
    gen_server:reply(From, {ok, Ref}),
    receive
        {given, Ref} ->
            true = demonitor(Monitor, [flush]),
            Given = State#state{owner = NewOwner, monitor = monitor(process, NewOwner)},
            {noreply, announce(Given)};
        {'DOWN', Monitor, process, _, _} ->
            {stop, normal, State}
    end.

%% A new owner does not know what the former one has been told but not taken.
announce(#state{window = 0, readable = true} = State) -> tell(ready, State);
announce(State) -> State.

tell(Event, #state{owner = Owner} = State) ->
    Owner ! {erlmcp_native, self(), Event},
    State.

%% Starting leaves garbage, which the peak of thousands that come at once is made of.
at_rest({noreply, State}) -> {noreply, State, hibernate};
at_rest(Stop) -> Stop.

noreply({ok, State}) -> {noreply, State};
noreply({final, State}) -> {stop, normal, State}.

reply_and(Reply, {ok, State}) -> {reply, Reply, State};
reply_and(Reply, {final, State}) -> {stop, normal, Reply, State}.

window(false) -> 0;
window(true) -> infinity;
window(once) -> 1;
window(N) -> N.
