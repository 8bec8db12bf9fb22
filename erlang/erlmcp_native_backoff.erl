%% @doc When to try a connection again. Pure: no clock, no timer, no process.
%%
%% The first try after a loss is made at once. Each further delay is drawn uniformly between 0
%% and `min_ms * 2^n', at most `max_ms' ("full jitter"), so that the clients of a server that
%% comes back do not arrive together. The count starts again only after a connection has
%% held for `stable_ms': a server that accepts and drops is not hammered.
-module(erlmcp_native_backoff).

-export([options/1, new/1, next/2, connected/2, attempts/1]).

-export_type([options/0, backoff/0]).

-type options() :: #{
    min_ms := pos_integer(),
    max_ms := pos_integer(),
    max_attempts := pos_integer() | infinity,
    stable_ms := non_neg_integer()
}.
%% Defaults: 50, 5000, infinity, 5000. `max_attempts' counts failed tries in a row.

-record(backoff, {
    options :: options(),
    attempts = 0 :: non_neg_integer(),
    connected_at = undefined :: integer() | undefined
}).

-opaque backoff() :: #backoff{}.

%% @doc Checks reconnect options; `true' means the defaults.
-spec options(term()) -> {ok, options()} | {error, {Key :: term(), Value :: term()} | badmap}.
options(true) ->
    {ok, defaults()};
options(Given) when is_map(Given) ->
    Step = fun
        (_, _, {error, _} = Error) ->
            Error;
        (Key, Value, {ok, Acc}) ->
            case valid(Key, Value) of
                true -> {ok, Acc#{Key := Value}};
                false -> {error, {Key, Value}}
            end
    end,
    case maps:fold(Step, {ok, defaults()}, Given) of
        {ok, #{min_ms := Min, max_ms := Max}} when Min > Max -> {error, {min_ms, Min}};
        Result -> Result
    end;
options(_) ->
    {error, badmap}.

%% @doc A fresh count.
-spec new(options()) -> backoff().
new(Options) ->
    #backoff{options = Options}.

%% @doc The delay in milliseconds before the next try, or that there is to be none. `NowMs' is
%% monotonic time.
-spec next(NowMs :: integer(), backoff()) -> {DelayMs :: non_neg_integer(), backoff()} | exhausted.
next(NowMs, Backoff) ->
    try_again(forget_if_stable(NowMs, Backoff)).

%% @doc Notes that a connection stands.
-spec connected(NowMs :: integer(), backoff()) -> backoff().
connected(NowMs, Backoff) ->
    Backoff#backoff{connected_at = NowMs}.

%% @doc Tries since the last stable connection.
-spec attempts(backoff()) -> non_neg_integer().
attempts(#backoff{attempts = Attempts}) ->
    Attempts.

try_again(#backoff{attempts = N, options = #{max_attempts := Max}}) when N >= Max ->
    exhausted;
try_again(#backoff{attempts = 0} = Backoff) ->
    {0, Backoff#backoff{attempts = 1}};
try_again(#backoff{attempts = N, options = #{min_ms := Min, max_ms := Max}} = Backoff) ->
    %% Beyond 2^20 the cap has long been reached; the shift must not grow without end.
    Ceiling = min(Max, Min bsl min(N - 1, 20)),
    {rand:uniform(Ceiling + 1) - 1, Backoff#backoff{attempts = N + 1}}.

forget_if_stable(
    NowMs, #backoff{connected_at = At, options = #{stable_ms := Stable}} = Backoff
) when is_integer(At), NowMs - At >= Stable ->
    Backoff#backoff{attempts = 0, connected_at = undefined};
forget_if_stable(_, Backoff) ->
    Backoff#backoff{connected_at = undefined}.

defaults() ->
    #{min_ms => 50, max_ms => 5000, max_attempts => infinity, stable_ms => 5000}.

valid(min_ms, V) -> in(V, 1, 600000);
valid(max_ms, V) -> in(V, 1, 600000);
valid(max_attempts, infinity) -> true;
valid(max_attempts, V) -> in(V, 1, 1000000);
valid(stable_ms, V) -> in(V, 0, 600000);
valid(_, _) -> false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.
