%% @doc A circuit breaker as a value: whether a call may be made, by how those before it ended.
%% Pure: the time is handed in.
%%
%% Closed, it lets everything through and watches the calls of a window. When at least
%% `min_calls' are in it, and the share of those that failed has reached `failure_rate', or of
%% those that took `slow_ms' or longer `slow_rate', it opens. Open, it lets nothing through for a
%% time, which is random between a half of and the whole of `open_ms' and doubles, up to
%% `open_max_ms', each time that it opens again without having closed. Then it is half open:
%% `probes' calls at a time may go through; that many successes close it, one failure opens it
%% again.
%%
%% A call is asked for with {@link ask/2}, and {@link done/5} tells how it ended, with the ticket
%% that `ask' gave. What ends after the state has changed says nothing about the new one, and is
%% ignored.
-module(erlmcp_native_breaker).

-export([options/1, new/1, ask/2, done/5, passed/3, force/3]).
-export([state/1, epoch/1, retry_at/1, lacking/2, info/2]).

-export_type([options/0, breaker/0, state/0, ticket/0, outcome/0]).

-type options() :: #{
    window := count | time,
    window_calls := pos_integer(),
    window_ms := pos_integer(),
    min_calls := pos_integer(),
    failure_rate := number(),
    slow_ms := pos_integer() | infinity,
    slow_rate := number(),
    open_ms := pos_integer(),
    open_max_ms := pos_integer(),
    probes := pos_integer()
}.
%% Defaults: count, 100, 10000, 10, 0.5, infinity, 0.5, 1000, 30000, 2.

-type state() :: closed | open | half_open.

-type outcome() :: ok | failed | cancelled.
%% `cancelled': nothing can be said of it.

-type ticket() :: {call | probe, Epoch :: non_neg_integer()}.

-record(breaker, {
    options :: options(),
    state = closed :: state(),
    %% Counts the changes of state.
    epoch = 0 :: non_neg_integer(),
    window :: erlmcp_native_breaker_window:window(),
    %% How often it has opened since it was closed last.
    openings = 0 :: non_neg_integer(),
    retry_at = none :: integer() | none,
    probing = 0 :: non_neg_integer(),
    proven = 0 :: non_neg_integer(),
    %% No clock of a caller turns it back.
    now :: integer() | undefined
}).

-opaque breaker() :: #breaker{}.

%% @doc Checks options and completes them; `true' means the defaults.
-spec options(term()) -> {ok, options()} | {error, {option, Key :: term(), Value :: term()}}.
options(true) ->
    {ok, defaults()};
options(Given) when is_map(Given) ->
    case [KV || {Key, Value} = KV <- maps:to_list(Given), not valid(Key, Value)] of
        [] -> fits(maps:merge(defaults(), Given));
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
options(Given) ->
    {error, {option, breaker, Given}}.

fits(#{window := count, window_calls := Size, min_calls := Min}) when Min > Size ->
    {error, {option, min_calls, Min}};
fits(#{open_ms := Open, open_max_ms := Max}) when Open > Max ->
    {error, {option, open_ms, Open}};
fits(Options) ->
    {ok, Options}.

defaults() ->
    #{
        window => count,
        window_calls => 100,
        window_ms => 10000,
        min_calls => 10,
        failure_rate => 0.5,
        slow_ms => infinity,
        slow_rate => 0.5,
        open_ms => 1000,
        open_max_ms => 30000,
        probes => 2
    }.

valid(window, V) -> V =:= count orelse V =:= time;
valid(window_calls, V) -> in(V, 1, 1000000);
valid(window_ms, V) -> in(V, 10, 86400000);
valid(min_calls, V) -> in(V, 1, 1000000);
valid(Rate, V) when Rate =:= failure_rate; Rate =:= slow_rate ->
    is_number(V) andalso V > 0 andalso V =< 1;
valid(slow_ms, V) -> V =:= infinity orelse in(V, 1, 86400000);
valid(open_ms, V) -> in(V, 1, 86400000);
valid(open_max_ms, V) -> in(V, 1, 86400000);
valid(probes, V) -> in(V, 1, 10000);
valid(_, _) -> false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.

%% @doc A closed one that has seen nothing.
-spec new(options()) -> breaker().
new(Options) ->
    #breaker{options = Options, window = erlmcp_native_breaker_window:new(Options)}.

%% @doc Whether a call may be made now.
-spec ask(NowMs :: integer(), breaker()) -> {{ok, ticket()} | {error, breaker_open}, breaker()}.
ask(NowMs, Breaker) ->
    admit(clock(NowMs, Breaker)).

admit(#breaker{state = closed, epoch = Epoch} = Breaker) ->
    {{ok, {call, Epoch}}, Breaker};
admit(#breaker{state = open, retry_at = At, now = Now} = Breaker) when At =< Now ->
    admit((to(half_open, Breaker))#breaker{probing = 0, proven = 0});
admit(#breaker{state = half_open, probing = N, options = #{probes := Max}} = Breaker) when
    N < Max
->
    {{ok, {probe, Breaker#breaker.epoch}}, Breaker#breaker{probing = N + 1}};
admit(Breaker) ->
    {{error, breaker_open}, Breaker}.

%% @doc Tells how a call has ended, and how long it took.
-spec done(ticket(), outcome(), TookMs :: number(), NowMs :: integer(), breaker()) -> breaker().
done({_, Epoch}, _, _, NowMs, #breaker{epoch = Other} = Breaker) when Epoch =/= Other ->
    clock(NowMs, Breaker);
done({call, _}, cancelled, _, NowMs, Breaker) ->
    clock(NowMs, Breaker);
done({call, _}, Outcome, TookMs, NowMs, #breaker{options = Options} = Breaker) ->
    added(kind(Outcome, is_slow(TookMs, Options)), 1, clock(NowMs, Breaker));
done({probe, _}, Outcome, TookMs, NowMs, #breaker{probing = N, options = Options} = Breaker) ->
    Probed = (clock(NowMs, Breaker))#breaker{probing = N - 1},
    probed(kind(Outcome, is_slow(TookMs, Options)), Probed).

%% @doc So many calls have ended well, in time, in the present state.
-spec passed(non_neg_integer(), NowMs :: integer(), breaker()) -> breaker().
passed(N, NowMs, #breaker{state = closed} = Breaker) when N > 0 ->
    added(ok, N, clock(NowMs, Breaker));
passed(_, NowMs, Breaker) ->
    clock(NowMs, Breaker).

%% @doc Opens or closes it, whatever it has seen.
-spec force(open | closed, NowMs :: integer(), breaker()) -> breaker().
force(open, NowMs, Breaker) -> opened(clock(NowMs, Breaker));
force(closed, NowMs, Breaker) -> closed(clock(NowMs, Breaker)).

-spec state(breaker()) -> state().
state(#breaker{state = State}) -> State.

%% @doc How often the state has changed.
-spec epoch(breaker()) -> non_neg_integer().
epoch(#breaker{epoch = Epoch}) -> Epoch.

%% @doc When one that is open lets a call through.
-spec retry_at(breaker()) -> integer() | none.
retry_at(#breaker{retry_at = At}) -> At.

%% @doc How many calls that end well are lacking for what was seen to count, `none' where nothing
%% that would count has been seen.
-spec lacking(NowMs :: integer(), breaker()) -> pos_integer() | none.
lacking(NowMs, #breaker{state = closed, window = Window, options = #{min_calls := Min}}) ->
    case erlmcp_native_breaker_window:counts(NowMs, Window) of
        #{failed := 0, slow := 0} -> none;
        #{calls := Calls} when Calls < Min -> Min - Calls;
        _ -> none
    end;
lacking(_, _) ->
    none.

%% @doc State, and the calls that it goes by.
-spec info(NowMs :: integer(), breaker()) -> map().
info(NowMs, #breaker{window = Window, state = State} = Breaker) ->
    Counts = erlmcp_native_breaker_window:counts(NowMs, Window),
    Retry =
        case Breaker#breaker.retry_at of
            At when State =:= open, is_integer(At) -> max(0, At - NowMs);
            _ -> none
        end,
    Counts#{
        state => State,
        retry_in_ms => Retry,
        openings => Breaker#breaker.openings,
        probing => Breaker#breaker.probing
    }.

clock(NowMs, #breaker{now = undefined} = Breaker) -> Breaker#breaker{now = NowMs};
clock(NowMs, #breaker{now = Before} = Breaker) -> Breaker#breaker{now = max(NowMs, Before)}.

is_slow(TookMs, #{slow_ms := Slow}) -> is_integer(Slow) andalso TookMs >= Slow.

kind(cancelled, _) -> cancelled;
kind(ok, false) -> ok;
kind(ok, true) -> slow;
kind(failed, false) -> failed;
kind(failed, true) -> slow_failed.

added(Kind, N, #breaker{window = Window, now = Now} = Breaker) ->
    judged(Breaker#breaker{window = erlmcp_native_breaker_window:add(Kind, N, Now, Window)}).

judged(#breaker{window = Window, now = Now, options = Options} = Breaker) ->
    #{min_calls := Min, failure_rate := Failures, slow_rate := Slows} = Options,
    #{calls := Calls, failed := Failed, slow := Slow} =
        erlmcp_native_breaker_window:counts(Now, Window),
    TooMany = (Failed > 0 andalso Failed >= Failures * Calls) orelse
        (Slow > 0 andalso Slow >= Slows * Calls),
    case Calls >= Min andalso TooMany of
        true -> opened(Breaker);
        false -> Breaker
    end.

probed(cancelled, Breaker) ->
    Breaker;
probed(ok, #breaker{proven = N, options = #{probes := Wanted}} = Breaker) when N + 1 >= Wanted ->
    closed(Breaker);
probed(ok, #breaker{proven = N} = Breaker) ->
    Breaker#breaker{proven = N + 1};
probed(_, Breaker) ->
    opened(Breaker).

opened(#breaker{openings = N, now = Now, options = Options} = Breaker) ->
    #{open_ms := Open, open_max_ms := Max} = Options,
    Most = min(Max, Open bsl min(N, 20)),
    %% Clients of one server do not all probe it at once.
    Time = Most - rand:uniform(Most div 2 + 1) + 1,
    (to(open, Breaker))#breaker{openings = N + 1, retry_at = Now + Time}.

closed(#breaker{options = Options} = Breaker) ->
    Window = erlmcp_native_breaker_window:new(Options),
    (to(closed, Breaker))#breaker{window = Window, openings = 0, retry_at = none}.

to(State, #breaker{epoch = Epoch} = Breaker) ->
    Breaker#breaker{state = State, epoch = Epoch + 1, probing = 0, proven = 0}.
