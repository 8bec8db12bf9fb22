%% @private The calls that a circuit breaker judges by: the last so many, or those of the last so
%% many milliseconds. Pure.
-module(erlmcp_native_breaker_window).

-export([new/1, add/4, counts/2]).

-export_type([window/0, kind/0, counts/0]).

-type kind() :: ok | slow | failed | slow_failed.

-type counts() :: #{
    calls := non_neg_integer(), failed := non_neg_integer(), slow := non_neg_integer()
}.

%% A window of time moves in steps of a tenth of its length.
-define(BUCKETS, 10).

-record(last, {
    size :: pos_integer(),
    %% Runs of calls of one kind, the oldest first.
    runs = queue:new() :: queue:queue({kind(), pos_integer()}),
    counts :: counts()
}).

-record(timed, {
    bucket_ms :: pos_integer(),
    %% The latest first.
    buckets = [] :: [{Number :: integer(), counts()}]
}).

-opaque window() :: #last{} | #timed{}.

-spec new(erlmcp_native_breaker:options()) -> window().
new(#{window := count, window_calls := Size}) -> #last{size = Size, counts = none()};
new(#{window := time, window_ms := Ms}) -> #timed{bucket_ms = max(1, Ms div ?BUCKETS)}.

%% @doc Adds so many calls of one kind, which have ended now.
-spec add(kind(), pos_integer(), NowMs :: integer(), window()) -> window().
add(Kind, N, _, #last{runs = Runs, counts = Counts} = Window) ->
    trim(Window#last{runs = joined(Kind, N, Runs), counts = count(Kind, N, Counts)});
add(Kind, N, Now, #timed{bucket_ms = Ms, buckets = Buckets} = Window) ->
    Number = floor(Now / Ms),
    Added =
        case Buckets of
            %% What comes late is not put before what is there.
            [{Latest, Counts} | Older] when Latest >= Number ->
                [{Latest, count(Kind, N, Counts)} | Older];
            _ ->
                [{Number, count(Kind, N, none())} | Buckets]
        end,
    Window#timed{buckets = recent(Added)}.

%% @doc What is in the window now.
-spec counts(NowMs :: integer(), window()) -> counts().
counts(_, #last{counts = Counts}) ->
    Counts;
counts(Now, #timed{bucket_ms = Ms, buckets = Buckets}) ->
    Oldest = floor(Now / Ms) - ?BUCKETS + 1,
    lists:foldl(fun sum/2, none(), [Counts || {Number, Counts} <- Buckets, Number >= Oldest]).

recent([{Latest, _} | _] = Buckets) ->
    lists:takewhile(fun({Number, _}) -> Number > Latest - ?BUCKETS end, Buckets).

joined(Kind, N, Runs) ->
    case queue:out_r(Runs) of
        {{value, {Kind, M}}, Older} -> queue:in({Kind, M + N}, Older);
        _ -> queue:in({Kind, N}, Runs)
    end.

trim(#last{size = Size, counts = #{calls := Calls} = Counts, runs = Runs} = Window) when
    Calls > Size
->
    {{value, {Kind, N}}, Rest} = queue:out(Runs),
    case Calls - Size of
        Surplus when Surplus >= N ->
            trim(Window#last{runs = Rest, counts = count(Kind, -N, Counts)});
        Surplus ->
            Kept = queue:in_r({Kind, N - Surplus}, Rest),
            Window#last{runs = Kept, counts = count(Kind, -Surplus, Counts)}
    end;
trim(Window) ->
    Window.

none() -> #{calls => 0, failed => 0, slow => 0}.

count(Kind, N, #{calls := Calls, failed := Failed, slow := Slow}) ->
    {F, S} = weight(Kind),
    #{calls => Calls + N, failed => Failed + F * N, slow => Slow + S * N}.

weight(ok) -> {0, 0};
weight(slow) -> {0, 1};
weight(failed) -> {1, 0};
weight(slow_failed) -> {1, 1}.

sum(#{calls := A, failed := B, slow := C}, #{calls := D, failed := E, slow := F}) ->
    #{calls => A + D, failed => B + E, slow => C + F}.
