%% @doc Properties of histograms. The reference is the sorted list of all values.
-module(histogram_props).

-include("props.hrl").

-import(proper_types, [choose/2, integer/2, list/1, non_empty/1, oneof/1]).
-import(test_property, [same/2]).

-export([
    prop_percentile_is_near/0,
    prop_percentile_is_monotone/0,
    prop_merge_is_record_of_both/0,
    prop_subtract_is_what_came_between/0,
    prop_moments/0,
    prop_count_at_most_is_near/0,
    prop_repeated_record/0,
    prop_corrected_is_each_missed_request/0,
    prop_nothing_is_lost_between_processes/0
]).

-define(LARGEST, 16#ffffffffffff).

%% @doc Each percentile is within 1/128 of the value of that rank.
prop_percentile_is_near() ->
    ?FORALL(
        {Values, Percent},
        {non_empty(list(value())), percent()},
        begin
            Rank = max(1, ceil(Percent * length(Values) / 100)),
            Exact = lists:nth(Rank, lists:sort(Values)),
            near(Exact, erlmcp_native_histogram:percentile(recorded(Values), Percent))
        end
    ).

%% @doc A larger part is never below a smaller one, and never above the maximum.
prop_percentile_is_monotone() ->
    ?FORALL(
        {Values, Percents},
        {list(value()), list(percent())},
        begin
            Snapshot = recorded(Values),
            Found = [
                erlmcp_native_histogram:percentile(Snapshot, Percent)
             || Percent <- lists:sort(Percents) ++ [100]
            ],
            Found =:= lists:sort(Found) andalso
                lists:last(Found) =:= lists:max([0 | Values])
        end
    ).

prop_merge_is_record_of_both() ->
    ?FORALL(
        {A, B},
        {list(value()), list(value())},
        same(
            recorded(A ++ B),
            erlmcp_native_histogram:merge(recorded(A), recorded(B))
        )
    ).

%% @doc All but the maximum is exact, and that is near.
prop_subtract_is_what_came_between() ->
    ?FORALL(
        {A, B},
        {list(value()), list(value())},
        begin
            Between = erlmcp_native_histogram:subtract(recorded(A ++ B), recorded(A)),
            same(maps:remove(max, recorded(B)), maps:remove(max, Between)) andalso
                near(lists:max([0 | B]), erlmcp_native_histogram:max(Between))
        end
    ).

prop_moments() ->
    ?FORALL(
        Values,
        non_empty(list(value())),
        begin
            Snapshot = recorded(Values),
            same(
                {length(Values), lists:sum(Values), lists:max(Values)},
                {
                    erlmcp_native_histogram:count(Snapshot),
                    erlmcp_native_histogram:sum(Snapshot),
                    erlmcp_native_histogram:max(Snapshot)
                }
            ) andalso near(lists:min(Values), erlmcp_native_histogram:min(Snapshot)) andalso
                same(lists:sum(Values) / length(Values), erlmcp_native_histogram:mean(Snapshot))
        end
    ).

%% @doc Only what is within 1/128 of the bound may be counted on the wrong side of it.
prop_count_at_most_is_near() ->
    ?FORALL(
        {Values, Bound},
        {list(value()), value()},
        begin
            Found = erlmcp_native_histogram:count_at_most(recorded(Values), Bound),
            Surely = length([V || V <- Values, V + V / 128 =< Bound]),
            Perhaps = length([V || V <- Values, V - V / 128 =< Bound]),
            Surely =< Found andalso Found =< Perhaps
        end
    ).

prop_repeated_record() ->
    ?FORALL(
        {Value, Count},
        {value(), integer(0, 20)},
        begin
            Histogram = erlmcp_native_histogram:new(),
            ok = erlmcp_native_histogram:record(Histogram, Value, Count),
            same(
                recorded(lists:duplicate(Count, Value)),
                erlmcp_native_histogram:snapshot(Histogram)
            )
        end
    ).

prop_corrected_is_each_missed_request() ->
    ?FORALL(
        {Interval, Missed, More},
        {integer(1, 100000), integer(0, 1000), integer(0, 100000)},
        begin
            Value = Interval * Missed + More rem Interval,
            Histogram = erlmcp_native_histogram:new(),
            ok = erlmcp_native_histogram:record_corrected(Histogram, Value, Interval),
            Each = [Value | missed(Value - Interval, Interval)],
            same(recorded(Each), erlmcp_native_histogram:snapshot(Histogram))
        end
    ).

missed(Value, Interval) when Value >= Interval ->
    [Value | missed(Value - Interval, Interval)];
missed(_, _) ->
    [].

prop_nothing_is_lost_between_processes() ->
    ?FORALL(
        {Lists, Concurrent},
        {list(list(value())), oneof([true, false])},
        begin
            Histogram = erlmcp_native_histogram:new(#{write_concurrency => Concurrent}),
            Recorders = [
                spawn_monitor(fun() ->
                    [ok = erlmcp_native_histogram:record(Histogram, Value) || Value <- Values]
                end)
             || Values <- Lists
            ],
            [
                receive
                    {'DOWN', Monitor, process, Pid, normal} -> ok
                end
             || {Pid, Monitor} <- Recorders
            ],
            same(
                recorded(lists:append(Lists)),
                erlmcp_native_histogram:snapshot(Histogram)
            )
        end
    ).

recorded(Values) ->
    Histogram = erlmcp_native_histogram:new(#{write_concurrency => false}),
    [ok = erlmcp_native_histogram:record(Histogram, Value) || Value <- Values],
    erlmcp_native_histogram:snapshot(Histogram).

near(Exact, Found) when abs(Exact - Found) * 128 =< Exact -> true;
near(Exact, Found) -> same(Exact, Found).

%% Of every magnitude, and around each power of two.
value() ->
    ?LET(
        {Bits, Near, More},
        {choose(0, 47), choose(-2, 2), oneof([0, choose(0, 1 bsl 48)])},
        min(?LARGEST, max(0, (1 bsl Bits) + Near + More rem (1 bsl Bits)))
    ).

percent() ->
    oneof([0, 50, 90, 99, 99.9, 100, choose(0, 100)]).
