%% @doc When to try a connection again. Pure: no clock, no timer, no process.
%%
%% The first try after a loss is made at once. Each further delay is drawn uniformly between 0
%% and a ceiling ("full jitter"), so that the clients of a server that comes back do not arrive
%% together. The ceiling depends on what has failed and for how long:
%%
%% <ul>
%% <li>`eager_cap_ms', as long as an outage is younger than `eager_ms' and its failures cost the
%% server and the network next to nothing: nobody listens, or what accepted has closed at once,
%% or a try was not answered. A server that restarts is back within seconds, and is to be found
%% at once.</li>
%% <li>`min_ms * 2^n', at most `max_ms', after that and for all other failures (TLS, a name without
%% an address, a child process that ends).</li>
%% </ul>
%%
%% What a try that was not answered has taken counts towards its delay, down to what is drawn
%% below `eager_cap_ms': a client that has waited five seconds for nothing need not wait again.
%%
%% With `max_attempts' nothing is eager: a number of tries would be used up in no time.
%%
%% An outage is over, and the count starts again, only after a connection has held for `stable_ms':
%% a server that accepts and drops is not hammered. docs/resilience.md has the arithmetic.
-module(erlmcp_native_backoff).

-export([options/1, new/1, trying/2, next/3, connected/2, attempts/1]).

-export_type([options/0, backoff/0]).

-type options() :: #{
    min_ms := pos_integer(),
    max_ms := pos_integer(),
    max_attempts := pos_integer() | infinity,
    stable_ms := non_neg_integer(),
    eager_ms := non_neg_integer(),
    eager_cap_ms := pos_integer()
}.
%% Defaults: 50, 5000, infinity, 5000, 30000, 80. `max_attempts' counts failed tries in a row;
%% `eager_ms => 0' tries no more often than `min_ms' and `max_ms' say.

-record(backoff, {
    options :: options(),
    attempts = 0 :: non_neg_integer(),
    %% How often the ceiling was doubled.
    doublings = 0 :: non_neg_integer(),
    connected_at = undefined :: integer() | undefined,
    %% Of the first failure of the outage, and of the start of the present try.
    failed_at = undefined :: integer() | undefined,
    trying_since = undefined :: integer() | undefined
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

%% @doc Notes that a try begins.
-spec trying(NowMs :: integer(), backoff()) -> backoff().
trying(NowMs, Backoff) ->
    Backoff#backoff{trying_since = NowMs}.

%% @doc The delay in milliseconds before the next try, or that there is to be none. `NowMs' is
%% monotonic time.
-spec next(NowMs :: integer(), erlmcp_native:failure(), backoff()) ->
    {DelayMs :: non_neg_integer(), backoff()} | exhausted.
next(NowMs, Failure, Backoff) ->
    try_again(NowMs, Failure, in_outage(NowMs, forget_if_stable(NowMs, Backoff))).

%% @doc Notes that a connection stands.
-spec connected(NowMs :: integer(), backoff()) -> backoff().
connected(NowMs, Backoff) ->
    Backoff#backoff{connected_at = NowMs}.

%% @doc Tries since the last stable connection.
-spec attempts(backoff()) -> non_neg_integer().
attempts(#backoff{attempts = Attempts}) ->
    Attempts.

try_again(_, _, #backoff{attempts = N, options = #{max_attempts := Max}}) when N >= Max ->
    exhausted;
try_again(_, _, #backoff{attempts = 0} = Backoff) ->
    {0, Backoff#backoff{attempts = 1}};
try_again(NowMs, Failure, #backoff{attempts = N} = Backoff) ->
    {Delay, Next} =
        case is_eager(NowMs, Failure, Backoff) of
            true -> {below(eager_cap(Backoff)), Backoff};
            false -> doubled(NowMs, Failure, Backoff)
        end,
    {Delay, Next#backoff{attempts = N + 1}}.

is_eager(NowMs, Failure, #backoff{failed_at = At, options = Options}) ->
    #{eager_ms := Eager, max_attempts := Max} = Options,
    Max =:= infinity andalso NowMs - At < Eager andalso is_cheap(Failure).

is_cheap(Failure) -> lists:member(Failure, [refused, reset, shutdown, timeout, native]).

eager_cap(#backoff{options = #{eager_cap_ms := Cap}}) -> Cap.

doubled(NowMs, Failure, #backoff{doublings = N, options = Options} = Backoff) ->
    #{min_ms := Min, max_ms := Max, eager_cap_ms := Cap} = Options,
    %% Beyond 2^20 the cap has long been reached; the shift must not grow without end.
    Ceiling = min(Max, Min bsl min(N, 20)),
    Next = Backoff#backoff{doublings = N + 1},
    case Failure of
        timeout ->
            Waited = NowMs - since(NowMs, Backoff),
            {max(below(min(Cap, Ceiling)), below(Ceiling) - Waited), Next};
        _ ->
            {below(Ceiling), Next}
    end.

since(NowMs, #backoff{trying_since = undefined}) -> NowMs;
since(_, #backoff{trying_since = Since}) -> Since.

below(Ceiling) -> rand:uniform(Ceiling + 1) - 1.

in_outage(NowMs, #backoff{failed_at = undefined} = Backoff) -> Backoff#backoff{failed_at = NowMs};
in_outage(_, Backoff) -> Backoff.

forget_if_stable(
    NowMs, #backoff{connected_at = At, options = #{stable_ms := Stable} = Options}
) when is_integer(At), NowMs - At >= Stable ->
    new(Options);
forget_if_stable(_, Backoff) ->
    Backoff#backoff{connected_at = undefined}.

defaults() ->
    #{
        min_ms => 50,
        max_ms => 5000,
        max_attempts => infinity,
        stable_ms => 5000,
        eager_ms => 30000,
        eager_cap_ms => 80
    }.

valid(min_ms, V) -> in(V, 1, 600000);
valid(max_ms, V) -> in(V, 1, 600000);
valid(max_attempts, infinity) -> true;
valid(max_attempts, V) -> in(V, 1, 1000000);
valid(stable_ms, V) -> in(V, 0, 600000);
valid(eager_ms, V) -> in(V, 0, 86400000);
valid(eager_cap_ms, V) -> in(V, 1, 600000);
valid(_, _) -> false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.
