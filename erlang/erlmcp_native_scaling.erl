%% @doc How many connections a pool should have. Pure: the time is the caller's.
%%
%% Little's law says how many requests are in progress at once: as many as arrive in the time that
%% one takes. This demand is smoothed twice (Holt's double exponential smoothing: a level and a
%% trend), and what it comes to is held until the level is a fifth away from that: a load whose
%% mean is near a threshold would have it crossed by chance, at any time. To it comes what
%% `horizon_ms' will add, and what it takes to work off the queue in `drain_ms'. That over what a
%% connection takes at once (`per_connection') is the need.
%%
%% A pool grows at once when the need is more than 0.8 of its size, to where it is 0.6. It shrinks,
%% to where it is 0.6 too, when the highest need of the last `cooldown_ms' was at most 0.4 of its
%% size and at most three quarters of the need that the size was made for, and it was not resized
%% meanwhile. The latter counts for small pools, whose sizes are coarse.
-module(erlmcp_native_scaling).

-export([options/1, new/1, size/1, step/3]).

-export_type([options/0, scaling/0, sample/0, step/0]).

-type options() :: #{
    min := pos_integer(),
    max := pos_integer(),
    per_connection := pos_integer(),
    horizon_ms := non_neg_integer(),
    drain_ms := pos_integer(),
    cooldown_ms := non_neg_integer()
}.

-type sample() :: #{
    arrivals := non_neg_integer(),
    span_ms := pos_integer(),
    service_ms := number(),
    queued := non_neg_integer()
}.
%% Requests that arrived in this time, how long one takes a connection, and how many wait for one.

-type step() :: #{
    from := pos_integer(),
    to := pos_integer(),
    reason := demand | trend | backlog | idle,
    demand := float(),
    trend := float(),
    queued := non_neg_integer()
}.
%% What has decided: the demand as it is, as it will be, the queue; or that there was less to do.
%% `demand' is in requests at once, `trend' what `horizon_ms' add to it.

-record(scaling, {
    options :: options(),
    size :: pos_integer(),
    level = none :: none | float(),
    %% Of one step.
    trend = 0.0 :: float(),
    %% What the level is taken for, and of how many samples it was made, up to so many.
    held = 0.0 :: float(),
    seen = 0 :: non_neg_integer(),
    %% The need that the size was made for.
    made_for = 0.0 :: float(),
    %% The needs since the last change, latest first, and when that was.
    needs = [] :: [{integer(), float()}],
    changed = none :: none | integer()
}).

-opaque scaling() :: #scaling{}.

-define(ALPHA, 0.2).
-define(BETA, 0.1).

%% Samples until the level is near the mean, which is then held, and how far it may be from that.
-define(SETTLED, 20).
-define(HELD, 1.2).

%% A trend that adds less than that is noise, for which a pool that is not full has room.
-define(TREND_ABOVE, 0.25).

-define(GROW_ABOVE, 0.8).
-define(AIM, 0.6).
-define(SHRINK_BELOW, 0.4).
-define(LESS, 0.75).

%% @doc Completes options with defaults: 1 to 8 connections of one request at a time, 1 s ahead,
%% a queue worked off in 0.5 s, 10 s to cool down.
-spec options(map()) -> {ok, options()} | {error, {Key :: term(), Value :: term()}}.
options(Given) ->
    Defaults = #{
        min => 1,
        max => 8,
        per_connection => 1,
        horizon_ms => 1000,
        drain_ms => 500,
        cooldown_ms => 10000
    },
    Options = maps:merge(Defaults, Given),
    case [KV || {Key, Value} = KV <- maps:to_list(Options), not valid(Key, Value)] of
        [] -> in_order(Options);
        [Wrong | _] -> {error, Wrong}
    end.

in_order(#{min := Min, max := Max}) when Min > Max -> {error, {max, Max}};
in_order(Options) -> {ok, Options}.

valid(Key, V) when Key =:= min; Key =:= max; Key =:= per_connection; Key =:= drain_ms ->
    is_integer(V) andalso V > 0;
valid(Key, V) when Key =:= horizon_ms; Key =:= cooldown_ms -> is_integer(V) andalso V >= 0;
valid(_, _) -> false.

%% @doc Begins with the least.
-spec new(options()) -> scaling().
new(#{min := Min} = Options) ->
    #scaling{options = Options, size = Min}.

-spec size(scaling()) -> pos_integer().
size(#scaling{size = Size}) -> Size.

%% @doc Learns from what has happened since the last time.
-spec step(sample(), NowMs :: integer(), scaling()) -> {keep | {resize, step()}, scaling()}.
step(#{span_ms := Span} = Sample, Now, #scaling{options = Options} = S0) ->
    S = hold(smooth(demand(Sample), S0)),
    #{horizon_ms := Horizon} = Options,
    Ahead = ahead(S#scaling.trend * Horizon / Span, S#scaling.level),
    Backlog = backlog(Sample, Options),
    Needs = needs(S#scaling.held, Ahead, Backlog, Options),
    %% What is held may be a little less than there is.
    Most = needs(max(S#scaling.level, S#scaling.held), Ahead, Backlog, Options),
    decide(Needs, Sample, remember(lists:sum(Most), Now, S), Now).

ahead(Trend, Level) when Trend > ?TREND_ABOVE * Level -> Trend;
ahead(_, _) -> 0.0.

demand(#{arrivals := Arrivals, span_ms := Span, service_ms := Service}) ->
    Arrivals * Service / Span.

backlog(#{queued := Queued, service_ms := Service}, #{drain_ms := Drain}) ->
    Queued * Service / Drain.

smooth(Demand, #scaling{level = none} = S) ->
    S#scaling{level = float(Demand)};
smooth(Demand, #scaling{level = Level0, trend = Trend0} = S) ->
    Level = max(0.0, ?ALPHA * Demand + (1 - ?ALPHA) * (Level0 + Trend0)),
    S#scaling{level = Level, trend = ?BETA * (Level - Level0) + (1 - ?BETA) * Trend0}.

hold(#scaling{level = Level, seen = Seen} = S) when Seen < ?SETTLED ->
    S#scaling{held = Level, seen = Seen + 1};
hold(#scaling{level = Level, held = Held} = S) when
    Level > ?HELD * Held; Level * ?HELD < Held
->
    S#scaling{held = Level};
hold(S) ->
    S.

%% In connections.
needs(Level, Ahead, Backlog, #{per_connection := Per}) ->
    [Level / Per, Ahead / Per, Backlog / Per].

remember(Need, Now, #scaling{needs = Needs, options = #{cooldown_ms := Cooldown}} = S) ->
    Recent = lists:takewhile(fun({At, _}) -> Now - At =< Cooldown end, Needs),
    S#scaling{needs = [{Now, Need} | Recent]}.

decide(Needs, Sample, #scaling{size = Size, changed = Changed, options = Options} = S, Now) ->
    #{min := Min, max := Max, cooldown_ms := Cooldown} = Options,
    Need = lists:sum(Needs),
    case within(ceil(Need / ?AIM), Min, Max) of
        To when Need > ?GROW_ABOVE * Size, To > Size ->
            resize(To, growth(Needs, Size), Sample, Now, S#scaling{made_for = Need});
        _ when Changed =:= none ->
            {keep, S#scaling{changed = Now}};
        _ when Size > Min, Now - Changed > Cooldown ->
            shrink(Sample, Now, S);
        _ ->
            {keep, S}
    end.

growth([Demand, _, _], Size) when Demand > ?GROW_ABOVE * Size -> demand;
growth([Demand, Ahead, _], Size) when Demand + Ahead > ?GROW_ABOVE * Size -> trend;
growth(_, _) -> backlog.

shrink(Sample, Now, #scaling{size = Size, needs = Needs, options = Options} = S) ->
    #{min := Min, max := Max} = Options,
    Most = lists:max([Need || {_, Need} <- Needs]),
    IsLess = Most =< ?SHRINK_BELOW * Size andalso Most =< ?LESS * S#scaling.made_for,
    case within(ceil(Most / ?AIM), Min, Max) of
        To when IsLess, To < Size -> resize(To, idle, Sample, Now, S#scaling{made_for = Most});
        _ -> {keep, S}
    end.

within(Size, Min, Max) -> min(Max, max(Min, Size)).

resize(To, Reason, #{span_ms := Span, queued := Queued}, Now, #scaling{size = From} = S) ->
    #scaling{level = Level, trend = Trend, options = #{horizon_ms := Horizon}} = S,
    Step = #{
        from => From,
        to => To,
        reason => Reason,
        demand => Level,
        trend => Trend * Horizon / Span,
        queued => Queued
    },
    {{resize, Step}, S#scaling{size = To, changed = Now, needs = []}}.
