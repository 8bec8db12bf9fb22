%% @doc Properties of findings, scales, numbers and statistics.
-module(report_props).

-include("props.hrl").

-import(proper_types, [
    choose/2, float/2, integer/0, list/1, non_empty/1, oneof/1
]).

-export([
    prop_no_finding_within_the_thresholds/0,
    prop_a_finding_has_evidence/0,
    prop_worse_is_not_less_severe/0,
    prop_wider_thresholds_find_no_more/0,
    prop_findings_come_worst_first/0,
    prop_values_lie_on_the_axis_in_order/0,
    prop_ticks_are_within_and_in_order/0,
    prop_numbers_are_short/0,
    prop_a_summary_is_in_order/0,
    prop_the_same_run_has_not_changed/0
]).

%% @doc What does not cross its threshold is no bottleneck.
prop_no_finding_within_the_thresholds() ->
    ?FORALL(
        Rows,
        rows(),
        begin
            Thresholds = erlmcp_native_findings:thresholds(),
            Found = erlmcp_native_findings:find(Rows, Thresholds),
            lists:all(
                fun(#{evidence := #{value := V}, threshold := #{value := T}, id := Name}) ->
                    case erlmcp_native_report_rows:row(Name) of
                        #{better := lower} -> V > T;
                        #{better := higher} -> V < T
                    end
                end,
                Found
            )
        end
    ).

%% @doc Every finding has a figure from samples, a threshold that exists and an option.
prop_a_finding_has_evidence() ->
    ?FORALL(
        Rows,
        rows(),
        begin
            Thresholds = erlmcp_native_findings:thresholds(),
            lists:all(
                fun(#{evidence := Evidence, threshold := #{name := Name}, what := What} = F) ->
                    #{value := Value, samples := Samples} = Evidence,
                    #{path := Path, recommendation := #{options := Options}} = F,
                    is_number(Value) andalso Samples > 0 andalso Path =/= erlmcp05 andalso
                        is_map_key(Name, Thresholds) andalso is_binary(What) andalso
                        Options =/= []
                end,
                erlmcp_native_findings:find(Rows, Thresholds)
            )
        end
    ).

%% @doc The further from the threshold, the more severe, or as severe.
prop_worse_is_not_less_severe() ->
    ?FORALL(
        {Row, Factor},
        {row(), float(1.0, 100.0)},
        begin
            Thresholds = erlmcp_native_findings:thresholds(),
            rank(erlmcp_native_findings:find([worse(Row, Factor)], Thresholds)) >=
                rank(erlmcp_native_findings:find([Row], Thresholds))
        end
    ).

worse(#{value := null} = Row, _) -> Row;
worse(#{better := lower, value := V} = Row, Factor) -> Row#{value := V * Factor};
worse(#{better := higher, value := V} = Row, Factor) -> Row#{value := V / Factor}.

rank([]) -> 0;
rank([#{severity := S}]) -> maps:get(S, #{low => 1, medium => 2, high => 3, critical => 4}).

%% @doc With thresholds that allow more, nothing is found that was not found before.
prop_wider_thresholds_find_no_more() ->
    ?FORALL(
        {Rows, Factor},
        {rows(), float(1.0, 10.0)},
        begin
            Strict = erlmcp_native_findings:thresholds(),
            Wide = maps:map(
                fun(Name, Value) ->
                    case atom_to_list(Name) of
                        "min_" ++ _ -> Value / Factor;
                        "max_" ++ _ -> Value * Factor
                    end
                end,
                Strict
            ),
            Of = fun(Thresholds) ->
                [
                    {Id, T, P}
                 || #{id := Id, transport := T, path := P} <-
                        erlmcp_native_findings:find(Rows, Thresholds)
                ]
            end,
            Of(Wide) -- Of(Strict) =:= []
        end
    ).

prop_findings_come_worst_first() ->
    ?FORALL(
        Rows,
        rows(),
        begin
            Ranks = [
                rank([F])
             || F <- erlmcp_native_findings:find(Rows, erlmcp_native_findings:thresholds())
            ],
            Ranks =:= lists:reverse(lists:sort(Ranks))
        end
    ).

%% @doc Larger values lie further along the axis, none beside it.
prop_values_lie_on_the_axis_in_order() ->
    ?FORALL(
        {Kind, Values},
        {oneof([linear, log]), non_empty(list(value()))},
        begin
            Scale = erlmcp_native_report_scale:new(Kind, Values),
            Places = [erlmcp_native_report_scale:at(V, Scale) || V <- lists:sort(Values)],
            Places =:= lists:sort(Places) andalso
                lists:all(fun(P) -> P >= 0 andalso P =< 1 end, Places)
        end
    ).

prop_ticks_are_within_and_in_order() ->
    ?FORALL(
        {Kind, Values, Wanted},
        {oneof([linear, log]), non_empty(list(value())), choose(2, 10)},
        begin
            Scale = erlmcp_native_report_scale:new(Kind, Values),
            Ticks = erlmcp_native_report_scale:ticks(Wanted, Scale),
            Ticks =:= lists:usort(Ticks) andalso length(Ticks) =< 4 * Wanted + 4
        end
    ).

%% @doc However large, a number takes few characters.
prop_numbers_are_short() ->
    ?FORALL(
        Value,
        oneof([value(), 0, integer(), choose(0, 1000000000000)]),
        string:length(erlmcp_native_report_number:text(Value)) =< 10
    ).

prop_a_summary_is_in_order() ->
    ?FORALL(
        Values,
        non_empty(list(value())),
        begin
            #{min := Min, p50 := P50, p90 := P90, p95 := P95, p99 := P99, max := Max, count := N} =
                erlmcp_native_statistics:summary(Values),
            Order = [Min, P50, P90, P95, P99, Max],
            N =:= length(Values) andalso Order =:= lists:sort(Order) andalso
                lists:all(fun(V) -> lists:member(V, Values) end, Order)
        end
    ).

prop_the_same_run_has_not_changed() ->
    ?FORALL(
        Rows,
        rows(),
        begin
            Meta = erlmcp_native_report:meta(#{}, {{2026, 1, 1}, {0, 0, 0}}),
            Report = erlmcp_native_report:new(Meta, [#{name => x, rows => Rows, metrics => #{},
                evidence => []}]),
            #{changes := Changes} = erlmcp_native_report:compare(Report, Report),
            Same = [
                C
             || #{old := Value, new := Value} = C <- Changes, maps:get(verdict, C) =/= same
            ],
            Same =:= []
        end
    ).

value() ->
    oneof([float(0.0, 1.0), float(0.0, 1000.0), float(0.0, 1.0e9)]).

rows() ->
    list(row()).

row() ->
    ?LET(
        {Name, Transport, Path, Value, Samples},
        {
            oneof(erlmcp_native_report_rows:names()),
            oneof([stdio, tcp, http, registry, runtime]),
            oneof([nif, port, beam, all, erlmcp05]),
            oneof([null, 0, value(), value(), value()]),
            choose(0, 1000)
        },
        erlmcp_native_report:row(Name, #{
            transport => Transport, path => Path, value => Value, samples => Samples
        })
    ).
