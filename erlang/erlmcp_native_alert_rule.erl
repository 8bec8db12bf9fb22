%% @doc When an alert is raised and when it is cleared. Pure: no clock, no timer, no process.
%%
%% Between the threshold and the value at which it is cleared lies a band in which nothing changes:
%% a value that wanders there, or that crosses a limit for less than the time asked for, makes no
%% alert and ends none.
-module(erlmcp_native_alert_rule).

-export([new/1, step/3, state/1, threshold/1]).

-export_type([options/0, rule/0, state/0]).

-type options() :: #{
    above => number(),
    below => number(),
    clear => number(),
    for_ms => non_neg_integer(),
    clear_for_ms => non_neg_integer()
}.
%% One of `above' and `below'. `clear': at or beyond it, on the good side, the alert may be cleared;
%% the threshold itself if not given. `for_ms', `clear_for_ms': how long without a break; 0.

-type state() :: raised | cleared.

-record(rule, {
    side :: above | below,
    threshold :: number(),
    clear :: number(),
    for_ms :: non_neg_integer(),
    clear_for_ms :: non_neg_integer(),
    state = cleared :: state(),
    %% Since when the state would have changed.
    since = none :: integer() | none
}).

-opaque rule() :: #rule{}.

%% @doc A rule whose alert is cleared.
-spec new(options()) -> {ok, rule()} | {error, {Key :: term(), Value :: term()}}.
new(#{above := _, below := Below}) -> {error, {below, Below}};
new(#{above := Threshold} = Options) -> checked(above, Threshold, Options);
new(#{below := Threshold} = Options) -> checked(below, Threshold, Options);
new(Options) -> {error, {above, maps:get(above, Options, undefined)}}.

checked(Side, Threshold, Options) ->
    Clear = maps:get(clear, Options, Threshold),
    For = maps:get(for_ms, Options, 0),
    ClearFor = maps:get(clear_for_ms, Options, 0),
    Wrong = maps:keys(Options) -- [Side, clear, for_ms, clear_for_ms],
    Checks =
        [{Key, map_get(Key, Options), false} || Key <- Wrong] ++
            [
                {Side, Threshold, is_number(Threshold)},
                {clear, Clear, is_number(Clear) andalso not is_beyond(Side, Clear, Threshold)},
                {for_ms, For, is_ms(For)},
                {clear_for_ms, ClearFor, is_ms(ClearFor)}
            ],
    case [{Key, Value} || {Key, Value, false} <- Checks] of
        [] ->
            {ok, #rule{
                side = Side,
                threshold = Threshold,
                clear = Clear,
                for_ms = For,
                clear_for_ms = ClearFor
            }};
        [Refused | _] ->
            {error, Refused}
    end.

is_ms(Value) -> is_integer(Value) andalso Value >= 0.

is_beyond(above, Value, Limit) -> Value > Limit;
is_beyond(below, Value, Limit) -> Value < Limit.

%% @doc What the value at a time makes of the alert. A value that is not known changes nothing, and
%% breaks what has to last. `NowMs' is monotonic time.
-spec step(NowMs :: integer(), number() | unknown, rule()) -> {state() | same, rule()}.
step(_, unknown, Rule) ->
    {same, Rule#rule{since = none}};
step(NowMs, Value, #rule{state = cleared, side = Side, threshold = Threshold} = Rule) ->
    last(is_beyond(Side, Value, Threshold), raised, Rule#rule.for_ms, NowMs, Rule);
step(NowMs, Value, #rule{state = raised, side = Side, clear = Clear} = Rule) ->
    last(not is_beyond(Side, Value, Clear), cleared, Rule#rule.clear_for_ms, NowMs, Rule).

last(false, _, _, _, Rule) ->
    {same, Rule#rule{since = none}};
last(true, Next, LastMs, NowMs, #rule{since = none} = Rule) ->
    last(true, Next, LastMs, NowMs, Rule#rule{since = NowMs});
last(true, Next, LastMs, NowMs, #rule{since = Since} = Rule) when NowMs - Since >= LastMs ->
    {Next, Rule#rule{state = Next, since = none}};
last(true, _, _, _, Rule) ->
    {same, Rule}.

-spec state(rule()) -> state().
state(#rule{state = State}) -> State.

-spec threshold(rule()) -> {above | below, number()}.
threshold(#rule{side = Side, threshold = Threshold}) -> {Side, Threshold}.
