%% @doc One number out of a metric, looked at again and again: the value of a gauge, how fast a
%% counter grows, a percentile of what a histogram has recorded since the look before.
-module(erlmcp_native_metric_reader).

-export([check/1, new/1, read/2, count/1]).

-export_type([source/0, measure/0, reader/0]).

-type measure() :: value | rate | mean | {percentile, number()}.

-type source() ::
    atom() | {atom(), Labels :: ['_' | erlmcp_native_metric:label_value()]}.
%% A metric, or those of its series whose labels match; `_' matches any value.

-record(reader, {
    source :: source(),
    measure :: measure() | default,
    before = none :: none | {AtMs :: integer(), erlmcp_native_metric:value()}
}).

-opaque reader() :: #reader{}.

%% @doc Whether it can be read. What is not declared on this node may be so by the core.
-spec check(#{metric := term(), measure => term()}) -> boolean().
check(#{metric := Source} = Given) ->
    is_source(Source) andalso is_measure(maps:get(measure, Given, default));
check(_) ->
    false.

is_source({Name, Labels}) -> is_atom(Name) andalso is_list(Labels);
is_source(Name) -> is_atom(Name).

is_measure({percentile, P}) -> is_number(P) andalso P >= 0 andalso P =< 100;
is_measure(Measure) -> lists:member(Measure, [default, value, rate, mean]).

%% @doc Reads the metric. Not said, the measure is the rate of a counter, the value of a gauge and
%% the 99th percentile of a histogram.
-spec new(#{metric := source(), measure => measure()}) -> reader().
new(#{metric := Source} = Given) ->
    #reader{source = Source, measure = maps:get(measure, Given, default)}.

%% @doc The number at this time; unknown if there is no such metric, or nothing to compare with yet.
%% A histogram into which nothing was recorded since gives 0.
-spec read(NowMs :: integer(), reader()) -> {number() | unknown, reader()}.
read(NowMs, #reader{source = Source, measure = Measure, before = Before} = Reader) ->
    case find(Source) of
        {ok, Kind, Value} ->
            Number = number(measure(Measure, Kind), NowMs, Value, Before),
            {Number, Reader#reader{before = {NowMs, Value}}};
        error ->
            {unknown, Reader}
    end.

measure(default, counter) -> rate;
measure(default, gauge) -> value;
measure(default, histogram) -> {percentile, 99};
measure(Measure, _) -> Measure.

number(value, _, #{count := Count}, _) -> Count;
number(value, _, Value, _) -> Value;
number(_, _, _, none) -> unknown;
number(rate, Now, Value, {Then, Before}) when Now > Then ->
    1000 * grown(amount(Value), amount(Before)) / (Now - Then);
number(mean, _, #{} = Value, {_, Before}) ->
    erlmcp_native_histogram:mean(erlmcp_native_histogram:subtract(Value, Before));
number({percentile, P}, _, #{} = Value, {_, Before}) ->
    erlmcp_native_histogram:percentile(erlmcp_native_histogram:subtract(Value, Before), P);
number(_, _, _, _) ->
    unknown.

amount(#{count := Count}) -> Count;
amount(Value) -> Value.

%% What counts may have been started anew.
grown(Now, Before) when Now >= Before -> Now - Before;
grown(Now, _) -> Now.

%% @doc What a counter has counted, or a histogram recorded, and the value of a gauge.
-spec count(source()) -> erlmcp_native_metric:value() | unknown.
count(Source) ->
    case find(Source) of
        {ok, _, Value} -> Value;
        error -> unknown
    end.

find({Name, Wanted}) ->
    matching(Name, fun(Labels) -> matches(Wanted, Labels) end);
find(Name) ->
    matching(Name, fun(_) -> true end).

matching(Name, Matches) ->
    case erlmcp_native_metrics:family(Name) of
        {ok, #{kind := Kind, series := Series}} ->
            case [One || {Labels, _} = One <- Series, Matches(Labels)] of
                [] -> error;
                Found -> {ok, Kind, erlmcp_native_metric:total(Kind, Found)}
            end;
        error ->
            error
    end.

matches([], []) -> true;
matches(['_' | Wanted], [_ | Labels]) -> matches(Wanted, Labels);
matches([Label | Wanted], [Label | Labels]) -> matches(Wanted, Labels);
matches(_, _) -> false.
