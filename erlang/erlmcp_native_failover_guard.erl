%% @private The circuit breakers of a failover's endpoints, as a value in its process: what each is
%% owed for what was sent.
-module(erlmcp_native_failover_guard).

-export([new/2, state/2, sent/3, settle/3, forgive/2, probe/2, probed/2, delete/2]).

-export_type([guard/0]).

-define(BREAKERS, erlmcp_native_breakers).

-type name() :: erlmcp_native_failover_plan:name().
-type wire() :: erlmcp_native_failover_plan:wire().

-record(guard, {
    options :: true | map(),
    tickets = #{} :: #{wire() => {name(), ?BREAKERS:ticket()}}
}).

-opaque guard() :: none | #guard{}.

%% @doc Makes a breaker for each endpoint; the calling process is told of their changes as
%% `{erlmcp_native, {breaker, {_, _, Name}}, {state, From, To}}'.
-spec new(boolean() | map(), [name()]) -> guard().
new(false, _) ->
    none;
new(Options, Names) ->
    lists:foreach(fun(Name) -> make(Name, Options) end, Names),
    #guard{options = Options}.

make(Name, Options) ->
    Key = key(Name),
    _ = ?BREAKERS:ensure(Key, Options, self()),
    _ = ?BREAKERS:subscribe(Key),
    ok.

key(Name) -> {erlmcp_native_failover, self(), Name}.

-spec state(name(), guard()) -> erlmcp_native_breaker:state().
state(_, none) ->
    closed;
state(Name, #guard{options = Options}) ->
    case ?BREAKERS:state(key(Name)) of
        unknown ->
            %% The process of all breakers has been started again.
            ok = make(Name, Options),
            closed;
        State ->
            State
    end.

%% @doc Notes what was sent.
-spec sent(name(), wire(), guard()) -> guard().
sent(_, _, none) ->
    none;
sent(Name, Wire, #guard{tickets = Tickets} = Guard) ->
    case ?BREAKERS:ask(key(Name)) of
        {ok, Ticket} -> Guard#guard{tickets = Tickets#{Wire => {Name, Ticket}}};
        %% It has opened just now; the message that says so is under way.
        {error, breaker_open} -> Guard
    end.

%% @doc Tells how it has ended.
-spec settle(wire(), erlmcp_native_breaker:outcome(), guard()) -> guard().
settle(_, _, none) ->
    none;
settle(Wire, Outcome, #guard{tickets = Tickets} = Guard) ->
    case maps:take(Wire, Tickets) of
        {{_, Ticket}, Rest} ->
            ok = ?BREAKERS:done(Ticket, Outcome),
            Guard#guard{tickets = Rest};
        error ->
            Guard
    end.

%% @doc An endpoint is lost, which says more than its breaker could.
-spec forgive(name(), guard()) -> guard().
forgive(_, none) ->
    none;
forgive(Name, #guard{tickets = Tickets} = Guard) ->
    Guard#guard{tickets = maps:filter(fun(_, {At, _}) -> At =/= Name end, Tickets)}.

%% @doc Leave to probe an endpoint, where its breaker wants that.
-spec probe(name(), guard()) -> {ok, ?BREAKERS:ticket()} | no.
probe(_, none) ->
    no;
probe(Name, #guard{}) ->
    Key = key(Name),
    case ?BREAKERS:wants_probe(Key) andalso ?BREAKERS:ask(Key) of
        {ok, _} = Leave -> Leave;
        _ -> no
    end.

-spec probed(?BREAKERS:ticket(), erlmcp_native_breaker:outcome()) -> ok.
probed(Ticket, Outcome) -> ?BREAKERS:done(Ticket, Outcome).

-spec delete([name()], guard()) -> ok.
delete(_, none) -> ok;
delete(Names, #guard{}) -> lists:foreach(fun(Name) -> ?BREAKERS:delete(key(Name)) end, Names).
