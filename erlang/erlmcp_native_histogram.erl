%% @doc A histogram of values of which nobody knows beforehand how large they are: latencies,
%% sizes. Values up to 127 are kept exactly; of a larger one up to 2^48 - 1 it is known within
%% 1/128 of itself. It holds no unit: who records says what it is.
%%
%% Two shapes. The histogram itself is a handle to counters that any number of processes record
%% into at the same time, without a lock and without losing one. A snapshot is a value of them at
%% a time, an ordinary term: it can be sent, kept, merged with others and asked for percentiles.
%%
%% Memory: 22 KB for each scheduler and once more, or 22 KB in all with
%% `#{write_concurrency => false}', which is for recording from one process.
-module(erlmcp_native_histogram).

-export([
    new/0,
    new/1,
    record/2,
    record/3,
    record_corrected/3,
    snapshot/1,
    empty/0,
    counted/3,
    bucket/1,
    merge/2,
    subtract/2,
    percentile/2,
    mean/1,
    min/1,
    max/1,
    sum/1,
    count/1,
    count_at_most/2
]).

-export_type([histogram/0, snapshot/0]).

%% Each power of two is divided into 64 buckets, so a bucket is at most 1/64 of its values wide
%% and its middle at most 1/128 of any of them away.
-define(PER_OCTAVE, 64).
-define(LARGEST, 16#ffffffffffff).
-define(SUM, 1).
-define(FIRST, 2).
-define(BUCKETS, (43 * ?PER_OCTAVE)).

-record(histogram, {counters :: counters:counters_ref(), largest :: atomics:atomics_ref()}).

-opaque histogram() :: #histogram{}.

-type snapshot() :: #{
    count := non_neg_integer(),
    sum := integer(),
    max := non_neg_integer(),
    buckets := #{non_neg_integer() => pos_integer()}
}.
%% `max' is exact. `sum' is, as long as it stays below 2^63. The keys of `buckets' are nobody
%% else's business: they may change with a release, so do not keep snapshots across one.

%% @equiv new(#{write_concurrency => true})
-spec new() -> histogram().
new() ->
    new(#{write_concurrency => true}).

%% @doc An empty histogram.
-spec new(#{write_concurrency := boolean()}) -> histogram().
new(#{write_concurrency := Concurrent}) ->
    Options =
        case Concurrent of
            true -> [write_concurrency];
            false -> [atomics]
        end,
    #histogram{
        counters = counters:new(?FIRST + ?BUCKETS - 1, Options),
        largest = atomics:new(1, [{signed, true}])
    }.

%% @doc Records a value once. Of one that is larger than 2^48 - 1 only that is known, and the
%% maximum.
-spec record(histogram(), Value :: non_neg_integer()) -> ok.
record(#histogram{counters = Counters, largest = Largest}, Value) when
    is_integer(Value), Value >= 0
->
    ok = counters:add(Counters, ?FIRST + bucket(min(Value, ?LARGEST)), 1),
    ok = counters:add(Counters, ?SUM, Value),
    case atomics:get(Largest, 1) of
        Known when Known >= Value -> ok;
        Known -> exchange(Largest, Known, Value, 1)
    end.

%% @doc Records a value `Count' times.
-spec record(histogram(), Value :: non_neg_integer(), Count :: non_neg_integer()) -> ok.
record(#histogram{counters = Counters, largest = Largest}, Value, Count) when
    is_integer(Value), Value >= 0, is_integer(Count), Count >= 0
->
    ok = counters:add(Counters, ?FIRST + bucket(min(Value, ?LARGEST)), Count),
    ok = counters:add(Counters, ?SUM, Value * Count),
    raise(Largest, Value, Count).

%% @doc Records the latency of a request that was one of a series, one each `Interval', and
%% what the requests that should have been sent meanwhile would have waited: `Value - Interval',
%% `Value - 2 * Interval' and so on. Only for who sends the next request after the answer to the
%% last: who sends on time records plain values, from the time when each should have been sent.
-spec record_corrected(histogram(), Value :: non_neg_integer(), Interval :: pos_integer()) -> ok.
record_corrected(Histogram, Value, Interval) when is_integer(Interval), Interval > 0 ->
    ok = record(Histogram, Value),
    record_missed(Histogram, Value - Interval, Interval).

%% All that fall into one bucket at once: a stall of a minute at an interval of a microsecond
%% is sixty million of them.
record_missed(_, Value, Interval) when Value < Interval ->
    ok;
record_missed(#histogram{counters = Counters} = Histogram, Value, Interval) ->
    Bucket = bucket(min(Value, ?LARGEST)),
    Count = (Value - max(lower(Bucket), Interval)) div Interval + 1,
    Sum = Count * Value - Interval * (Count * (Count - 1) div 2),
    ok = counters:add(Counters, ?FIRST + Bucket, Count),
    ok = counters:add(Counters, ?SUM, Sum),
    record_missed(Histogram, Value - Count * Interval, Interval).

raise(_, _, 0) ->
    ok;
raise(Largest, Value, Count) ->
    case atomics:get(Largest, 1) of
        Known when Known >= Value -> ok;
        Known -> exchange(Largest, Known, Value, Count)
    end.

exchange(Largest, Known, Value, Count) ->
    case atomics:compare_exchange(Largest, 1, Known, Value) of
        ok -> ok;
        _ -> raise(Largest, Value, Count)
    end.

%% @doc What has been recorded. A value that is being recorded at this moment may be in one part
%% of it and not yet in another.
-spec snapshot(histogram()) -> snapshot().
snapshot(#histogram{counters = Counters, largest = Largest}) ->
    Buckets = [
        {Bucket, Count}
     || Bucket <- lists:seq(0, ?BUCKETS - 1),
        Count <- [counters:get(Counters, ?FIRST + Bucket)],
        Count > 0
    ],
    #{
        count => lists:sum([Count || {_, Count} <- Buckets]),
        sum => counters:get(Counters, ?SUM),
        max => atomics:get(Largest, 1),
        buckets => maps:from_list(Buckets)
    }.

%% @doc A snapshot of nothing.
-spec empty() -> snapshot().
empty() ->
    #{count => 0, sum => 0, max => 0, buckets => #{}}.

%% @private A snapshot of what the native core has counted, in the same buckets.
-spec counted(Sum, Max, [{Bucket :: non_neg_integer(), pos_integer()}]) -> snapshot() when
    Sum :: non_neg_integer(), Max :: non_neg_integer().
counted(Sum, Max, Buckets) ->
    Count = lists:sum([N || {_, N} <- Buckets]),
    #{count => Count, sum => Sum, max => Max, buckets => maps:from_list(Buckets)}.

%% @doc The snapshot that a histogram would give into which both had been recorded.
-spec merge(snapshot(), snapshot()) -> snapshot().
merge(A, B) ->
    #{
        count => count(A) + count(B),
        sum => sum(A) + sum(B),
        max => max(max(A), max(B)),
        buckets => maps:fold(fun add_bucket/3, buckets(A), buckets(B))
    }.

add_bucket(Bucket, Count, Buckets) ->
    maps:update_with(Bucket, fun(Known) -> Known + Count end, Count, Buckets).

%% @doc What has been recorded between two snapshots of one histogram. Its maximum is known only
%% within 1/128, unless it is the one of all.
-spec subtract(Later :: snapshot(), Earlier :: snapshot()) -> snapshot().
subtract(Later, Earlier) ->
    Buckets = maps:filtermap(
        fun(Bucket, Count) ->
            case Count - maps:get(Bucket, buckets(Earlier), 0) of
                More when More > 0 -> {true, More};
                _ -> false
            end
        end,
        buckets(Later)
    ),
    #{
        count => lists:sum(maps:values(Buckets)),
        sum => sum(Later) - sum(Earlier),
        max => largest(Buckets, max(Later)),
        buckets => Buckets
    }.

largest(Buckets, _) when map_size(Buckets) =:= 0 -> 0;
largest(Buckets, Max) -> min(Max, middle(lists:max(maps:keys(Buckets)))).

%% @doc The value below or at which `Percent' of the recorded ones lie (the nearest rank); 0
%% when there are none. `percentile(S, 100)' is the maximum.
-spec percentile(snapshot(), Percent :: number()) -> non_neg_integer().
percentile(#{count := 0}, Percent) when Percent >= 0, Percent =< 100 ->
    0;
percentile(#{count := Count, max := Max, buckets := Buckets}, Percent) when
    is_number(Percent), Percent >= 0, Percent =< 100
->
    case ceil(Percent * Count / 100) of
        Count -> Max;
        Rank -> min(Max, ranked(lists:sort(maps:to_list(Buckets)), max(1, Rank)))
    end.

ranked([{Bucket, Count} | _], Rank) when Rank =< Count -> middle(Bucket);
ranked([{_, Count} | Buckets], Rank) -> ranked(Buckets, Rank - Count).

%% @doc The mean of all values; 0.0 when there are none.
-spec mean(snapshot()) -> float().
mean(#{count := 0}) -> 0.0;
mean(#{count := Count, sum := Sum}) -> Sum / Count.

%% @doc The smallest value, within 1/128; 0 when there is none.
-spec min(snapshot()) -> non_neg_integer().
min(Snapshot) -> percentile(Snapshot, 0).

%% @doc The largest value, exactly; 0 when there is none.
-spec max(snapshot()) -> non_neg_integer().
max(#{max := Max}) -> Max.

%% @doc The sum of all values.
-spec sum(snapshot()) -> integer().
sum(#{sum := Sum}) -> Sum.

%% @doc How many values there are.
-spec count(snapshot()) -> non_neg_integer().
count(#{count := Count}) -> Count.

%% @doc How many values are at most `Value'. A value counts as the middle of its bucket, which is
%% within 1/128 of it.
-spec count_at_most(snapshot(), Value :: number()) -> non_neg_integer().
count_at_most(#{max := Max, count := Count}, Value) when Value >= Max ->
    Count;
count_at_most(Snapshot, Value) ->
    lists:sum([
        Count
     || {Bucket, Count} <- maps:to_list(buckets(Snapshot)), middle(Bucket) =< Value
    ]).

buckets(#{buckets := Buckets}) -> Buckets.

%% @private A value of 7 bits or less is its own bucket; of a larger one the first 7 bits count.
-spec bucket(non_neg_integer()) -> non_neg_integer().
bucket(Value) ->
    Shift = shift(Value, 0),
    Shift * ?PER_OCTAVE + (Value bsr Shift).

shift(Value, Shift) when Value >= 1 bsl 31 -> shift(Value bsr 24, Shift + 24);
shift(Value, Shift) when Value >= 1 bsl 15 -> shift(Value bsr 8, Shift + 8);
shift(Value, Shift) when Value >= 1 bsl 11 -> shift(Value bsr 4, Shift + 4);
shift(Value, Shift) when Value >= 1 bsl 9 -> shift(Value bsr 2, Shift + 2);
shift(Value, Shift) when Value >= 1 bsl 7 -> shift(Value bsr 1, Shift + 1);
shift(_, Shift) -> Shift.

lower(Bucket) when Bucket < 2 * ?PER_OCTAVE ->
    Bucket;
lower(Bucket) ->
    Shift = Bucket div ?PER_OCTAVE - 1,
    (Bucket - Shift * ?PER_OCTAVE) bsl Shift.

middle(Bucket) when Bucket < 2 * ?PER_OCTAVE ->
    Bucket;
middle(Bucket) ->
    lower(Bucket) + (1 bsl (Bucket div ?PER_OCTAVE - 2)).
