%% @doc How fast an objective's error budget is spent. Pure: no clock, no timer, no process.
%%
%% An objective of 99.9 % leaves 0.1 % that may fail. The burn rate over a window is how many times
%% as much of it failed: at 1 the budget lasts just as long as it should. An alert wants a high
%% rate over a long window, so that little things do not raise it, and over a short one, so that
%% it is cleared soon after.
-module(erlmcp_native_burn_rate).

-export([new/2, windows/0, add/4, rates/1, rate/2, budget_left/1, totals/1]).

-export_type([window/0, burn/0, rate/0]).

-type window() :: #{
    long_ms := pos_integer(), short_ms := pos_integer(), factor := number(), severity := atom()
}.

-type rate() :: #{
    severity := atom(),
    long := float(),
    short := float(),
    factor := number(),
    state := raised | cleared
}.

%% Sums up to a time.
-type sample() :: {AtMs :: integer(), Good :: non_neg_integer(), Total :: non_neg_integer()}.

-record(burn, {
    target :: float(),
    windows :: [window()],
    step_ms :: pos_integer(),
    keep_ms :: pos_integer(),
    %% The latest first; never empty once something was added, at most one in each step.
    samples = [] :: [sample()],
    good = 0 :: non_neg_integer(),
    total = 0 :: non_neg_integer(),
    raised = #{} :: #{window() => true}
}).

-opaque burn() :: #burn{}.

%% Part of the factor below which the rate over the short window has to fall.
-define(CLEARED_AT, 0.9).

%% Samples in the shortest window: what decides how exact its edge is.
-define(PER_WINDOW, 10).

%% @doc The usual windows of an objective for thirty days, as far as a day goes: 2 % of the budget
%% in an hour, 5 % in six, 10 % in a day.
-spec windows() -> [window()].
windows() ->
    [
        #{long_ms => 3600000, short_ms => 300000, factor => 14.4, severity => page},
        #{long_ms => 21600000, short_ms => 1800000, factor => 6, severity => page},
        #{long_ms => 86400000, short_ms => 7200000, factor => 3, severity => ticket}
    ].

%% @doc An objective of which nothing is known yet. `Target' is the part that has to be good.
-spec new(Target :: float(), [window(), ...]) -> burn().
new(Target, Windows) when Target > 0, Target < 1 ->
    Shortest = lists:min([Short || #{short_ms := Short} <- Windows]),
    Longest = lists:max([Long || #{long_ms := Long} <- Windows]),
    Step = max(1, Shortest div ?PER_WINDOW),
    #burn{target = Target, windows = Windows, step_ms = Step, keep_ms = Longest + Step}.

%% @doc Notes how many more there were and how many of them were good, and says what that has raised
%% or cleared.
-spec add(NowMs :: integer(), Good, Total, burn()) -> {[{raised | cleared, rate()}], burn()} when
    Good :: non_neg_integer(), Total :: non_neg_integer().
add(NowMs, Good, Total, #burn{good = Known, total = All} = Burn) when Good =< Total ->
    Next = Burn#burn{good = Known + Good, total = All + Total},
    Samples = kept(NowMs - Burn#burn.keep_ms, sampled(NowMs, Burn, Next)),
    decide(Next#burn{samples = Samples}).

%% The first sample is what there was before anything was noted.
sampled(NowMs, #burn{samples = []} = Before, After) ->
    [sample(NowMs, After), sample(NowMs - 1, Before)];
%% The latest is moved until a step is full.
sampled(NowMs, #burn{samples = [_, {At, _, _} = Last | Samples], step_ms = Step}, After) when
    NowMs - At < Step
->
    [sample(NowMs, After), Last | Samples];
sampled(NowMs, #burn{samples = Samples}, After) ->
    [sample(NowMs, After) | Samples].

sample(AtMs, #burn{good = Good, total = Total}) -> {AtMs, Good, Total}.

%% One beyond the longest window, for its beginning.
kept(Since, [{At, _, _} = Sample | _]) when At =< Since -> [Sample];
kept(Since, [Sample | Samples]) -> [Sample | kept(Since, Samples)];
kept(_, []) -> [].

decide(Burn) ->
    Changes = [
        Change
     || Window <- Burn#burn.windows, Change <- change(Window, rate_of(Window, Burn))
    ],
    Raised = lists:foldl(fun put_state/2, Burn#burn.raised, Changes),
    {[{State, Rate} || {State, _, Rate} <- Changes], Burn#burn{raised = Raised}}.

put_state({raised, Window, _}, Raised) -> Raised#{Window => true};
put_state({cleared, Window, _}, Raised) -> maps:remove(Window, Raised).

change(Window, #{state := cleared, long := Long, short := Short, factor := Factor} = Rate) when
    Long >= Factor, Short >= Factor
->
    [{raised, Window, Rate#{state := raised}}];
change(Window, #{state := raised, short := Short, factor := Factor} = Rate) when
    Short < Factor * ?CLEARED_AT
->
    [{cleared, Window, Rate#{state := cleared}}];
change(_, _) ->
    [].

%% @doc The rates over all windows.
-spec rates(burn()) -> [rate()].
rates(#burn{windows = Windows} = Burn) ->
    [rate_of(Window, Burn) || Window <- Windows].

rate_of(Window, #burn{raised = Raised} = Burn) ->
    #{long_ms := Long, short_ms := Short, factor := Factor, severity := Severity} = Window,
    #{
        severity => Severity,
        long => rate(Long, Burn),
        short => rate(Short, Burn),
        factor => Factor,
        state =>
            case Raised of
                #{Window := true} -> raised;
                #{} -> cleared
            end
    }.

%% @doc The rate over the last so many milliseconds, or over all time that is known.
-spec rate(Ms :: pos_integer(), burn()) -> float().
rate(_, #burn{samples = []}) ->
    0.0;
rate(Ms, #burn{samples = [{Now, Good, Total} | _] = Samples, target = Target}) ->
    {_, GoodBefore, Before} = at(Now - Ms, Samples),
    case Total - Before of
        0 -> 0.0;
        Count -> (Count - (Good - GoodBefore)) / Count / (1 - Target)
    end.

%% The latest sample that is not after a time.
at(Since, [{At, _, _} = Sample | _]) when At =< Since -> Sample;
at(_, [Sample]) -> Sample;
at(Since, [_ | Samples]) -> at(Since, Samples).

%% @doc The part of the budget that is left over the longest window; less than 0 if it is overdrawn.
-spec budget_left(burn()) -> float().
budget_left(#burn{windows = Windows} = Burn) ->
    1 - rate(lists:max([Long || #{long_ms := Long} <- Windows]), Burn).

%% @doc How many there were since it began, and how many of them were good.
-spec totals(burn()) -> #{good := non_neg_integer(), total := non_neg_integer()}.
totals(#burn{good = Good, total = Total}) -> #{good => Good, total => Total}.
