%% @doc Metrics as text, in the format of Prometheus (0.0.4) or of OpenMetrics (1.0). Pure.
%%
%% Names get the prefix `erlmcp_native_'; times are in seconds whatever the metric's unit, and its
%% name says so; counters end in `_total'.
-module(erlmcp_native_exposition).

-export([format/1, content_type/1, text/2]).

-export_type([format/0]).

-type format() :: prometheus | openmetrics.

-define(OPENMETRICS, <<"application/openmetrics-text">>).

%% Upper bounds of buckets: as they are recorded, and as they are written.
-define(SECONDS, [
    {100, <<"0.0001">>},
    {250, <<"0.00025">>},
    {500, <<"0.0005">>},
    {1000, <<"0.001">>},
    {2500, <<"0.0025">>},
    {5000, <<"0.005">>},
    {10000, <<"0.01">>},
    {25000, <<"0.025">>},
    {50000, <<"0.05">>},
    {100000, <<"0.1">>},
    {250000, <<"0.25">>},
    {500000, <<"0.5">>},
    {1000000, <<"1.0">>},
    {2500000, <<"2.5">>},
    {5000000, <<"5.0">>},
    {10000000, <<"10.0">>}
]).

%% @doc The format that a request asks for with its `Accept'; Prometheus where it does not matter.
-spec format([{binary(), binary()}]) -> format().
format(Headers) ->
    Ranges = [
        range(Range)
     || {<<"accept">>, Value} <- Headers, Range <- binary:split(Value, <<",">>, [global])
    ],
    Quality = fun(Types) ->
        lists:max([0 | [Q || {Type, Q} <- Ranges, lists:member(Type, Types)]])
    end,
    Open = Quality([?OPENMETRICS]),
    case Open > 0 andalso Open >= Quality([<<"text/plain">>, <<"text/*">>]) of
        true -> openmetrics;
        false -> prometheus
    end.

range(Range) ->
    [Type | Params] = [trim(Part) || Part <- binary:split(Range, <<";">>, [global])],
    {string:lowercase(Type), lists:foldl(fun quality/2, 1000, Params)}.

%% In thousandths, of which HTTP has three digits.
quality(<<Q, $=, Value/binary>>, _) when Q =:= $q; Q =:= $Q ->
    case re:run(Value, "^([01])(?:\\.([0-9]{0,3}))?$", [{capture, all_but_first, list}]) of
        {match, [Whole]} -> 1000 * list_to_integer(Whole);
        {match, [Whole, Part]} -> list_to_integer(Whole ++ lists:sublist(Part ++ "000", 3));
        nomatch -> 0
    end;
quality(_, Quality) ->
    Quality.

trim(Text) -> string:trim(Text, both, " \t").

-spec content_type(format()) -> binary().
content_type(prometheus) -> <<"text/plain; version=0.0.4; charset=utf-8">>;
content_type(openmetrics) -> <<?OPENMETRICS/binary, "; version=1.0.0; charset=utf-8">>.

%% @doc The text.
-spec text(format(), [erlmcp_native_metrics:family()]) -> iodata().
text(Format, Families) ->
    [[family(Format, Family) || Family <- Families] | last(Format)].

last(prometheus) -> [];
last(openmetrics) -> <<"# EOF\n">>.

family(Format, #{kind := Kind, unit := Unit, help := Help, series := Series} = Family) ->
    Name = name(Family),
    Described = described(Format, Kind, Name),
    [
        ["# TYPE ", Described, " ", atom_to_binary(Kind), "\n"],
        unit(Format, Described, Unit),
        ["# HELP ", Described, " ", escape(Format, Help), "\n"]
        | [samples(Kind, Name, Unit, labels(Family, Values), Value) || {Values, Value} <- Series]
    ].

name(#{name := Name, unit := Unit}) ->
    Text = atom_to_binary(Name),
    <<"erlmcp_native_", (in_seconds(Unit, Text))/binary>>.

in_seconds(Unit, Name) when Unit =:= ns; Unit =:= us; Unit =:= ms ->
    Suffix = <<"_", (atom_to_binary(Unit))/binary>>,
    Size = byte_size(Name) - byte_size(Suffix),
    case Name of
        <<Stem:Size/binary, Suffix/binary>> -> <<Stem/binary, "_seconds">>;
        _ -> <<Name/binary, "_seconds">>
    end;
in_seconds(_, Name) ->
    Name.

%% In the older format a counter is described by the name of its only sample.
described(prometheus, counter, Name) -> <<Name/binary, "_total">>;
described(_, _, Name) -> Name.

%% A unit may be given only where the name ends in it.
unit(prometheus, _, _) -> [];
unit(openmetrics, Name, Unit) when Unit =:= ns; Unit =:= us; Unit =:= ms -> unit(Name, "seconds");
unit(openmetrics, Name, bytes) ->
    case binary:longest_common_suffix([Name, <<"_bytes">>]) of
        6 -> unit(Name, "bytes");
        _ -> []
    end;
unit(openmetrics, _, _) -> [].

unit(Name, Unit) -> ["# UNIT ", Name, " ", Unit, "\n"].

escape(prometheus, Text) -> replace(Text, [{"\\\\", "\\\\\\\\"}, {"\n", "\\\\n"}]);
escape(openmetrics, Text) -> replace(escape(prometheus, Text), [{"\"", "\\\\\""}]).

replace(Text, Pairs) ->
    Replace = fun({What, By}, Acc) -> re:replace(Acc, What, By, [global, {return, binary}]) end,
    lists:foldl(Replace, Text, Pairs).

labels(#{labels := Names}, Values) ->
    [
        [atom_to_binary(Name), "=\"", escape(openmetrics, label(Value)), "\""]
     || {Name, Value} <- lists:zip(Names, Values)
    ].

label(Value) when is_atom(Value) -> atom_to_binary(Value);
label(Value) when is_binary(Value) -> Value.

samples(counter, Name, Unit, Labels, Value) ->
    sample([Name, "_total"], Labels, scaled(Unit, Value));
samples(gauge, Name, Unit, Labels, Value) ->
    sample(Name, Labels, scaled(Unit, Value));
samples(histogram, Name, Unit, Labels, Snapshot) ->
    Count = erlmcp_native_histogram:count(Snapshot),
    Upto = fun(Bound) -> erlmcp_native_histogram:count_at_most(Snapshot, Bound) end,
    Bucket = fun(Bound, N) ->
        sample([Name, "_bucket"], Labels ++ [["le=\"", Bound, "\""]], number(N))
    end,
    [
        [Bucket(Written, Upto(Bound)) || {Bound, Written} <- bounds(Unit)],
        Bucket("+Inf", Count),
        sample([Name, "_sum"], Labels, scaled(Unit, erlmcp_native_histogram:sum(Snapshot))),
        sample([Name, "_count"], Labels, number(Count))
    ].

bounds(us) -> ?SECONDS;
bounds(ns) -> [{1000 * Bound, Written} || {Bound, Written} <- ?SECONDS];
bounds(ms) -> [{Bound / 1000, Written} || {Bound, Written} <- ?SECONDS];
bounds(bytes) -> powers(4, 64, 12);
bounds(_) -> powers(10, 1, 9).

powers(_, _, 0) -> [];
powers(Base, Bound, N) ->
    [{Bound, [integer_to_binary(Bound), ".0"]} | powers(Base, Bound * Base, N - 1)].

sample(Name, [], Value) -> [Name, " ", Value, "\n"];
sample(Name, Labels, Value) -> [Name, "{", lists:join(",", Labels), "} ", Value, "\n"].

scaled(ns, Value) -> number(Value / 1.0e9);
scaled(us, Value) -> number(Value / 1.0e6);
scaled(ms, Value) -> number(Value / 1.0e3);
scaled(_, Value) -> number(Value).

number(Value) when is_integer(Value) -> integer_to_binary(Value);
number(Value) -> float_to_binary(Value, [short]).
