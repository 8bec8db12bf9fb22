%% Metrics: what is declared, counted and measured on each path, and what is made of it.
-module(metrics_SUITE).

-behaviour(erlmcp_native_http_handler).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(http_mcp, [post/3, method/4, answer/1, header/2, request/2, request/3, modern/2]).
-import(test_wait, [event/1, reason/1, until/1]).

-define(WAIT, 60000).
-define(TRACE, <<"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01">>).
-define(OTHER, <<"00-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-bbbbbbbbbbbbbbbb-00">>).

all() ->
    [{group, values}, {group, nif}, {group, port}, {group, beam}].

groups() ->
    [{values, values()}, {nif, cases()}, {port, cases()}, {beam, cases()}].

values() ->
    [
        declared_is_right,
        counted_is_declared,
        beam_counts_under_names_of_the_core,
        buckets_are_those_of_the_core,
        page_is_up_to_date,
        counters_and_gauges,
        histograms,
        histograms_off,
        labels,
        selections,
        declared_twice,
        declarations_that_are_wrong,
        virtual_machine,
        format_that_is_asked_for,
        text_that_others_read,
        trace_contexts,
        alert_that_comes_and_goes,
        alert_on_a_series,
        alerts_refused,
        alerts_end_with_their_owner,
        objective_for_latency,
        objective_for_errors,
        objective_for_availability,
        objectives_refused,
        history_by_the_second,
        history_survives_its_process,
        history_refused,
        telemetry_where_it_is_not
    ].

cases() ->
    [
        tcp_is_counted,
        stdio_is_counted,
        http_is_measured,
        http_stream_is_measured,
        http_answers_by_status,
        client_that_fails,
        path_is_off,
        path_in_both_formats,
        path_is_guarded,
        path_wants_authorization,
        trace_of_a_message,
        trace_of_a_client,
        telemetry_where_it_is
    ].

init_per_suite(Config) ->
    Started = test_config:start([erlmcp_native], Config),
    ok = erlmcp_native_metrics:declare([
        #{name => Name, kind => Kind, group => metrics_test, help => <<"For tests">>, unit => Unit}
     || {Name, Kind, Unit} <- [
            {test_counter, counter, none},
            {test_gauge, gauge, none},
            {test_histogram, histogram, us}
        ]
    ]),
    ok = erlmcp_native_metrics:declare([
        #{
            name => test_labelled,
            kind => counter,
            group => metrics_test,
            help => <<"For tests">>,
            labels => [{side, [left, right]}, {part, [a, b]}]
        },
        #{
            name => test_text,
            kind => gauge,
            group => metrics_test,
            help => <<"Back\\slash, \"quotes\"\nand a new line">>,
            labels => [{text, any}],
            read => {?MODULE, texts, []}
        }
    ]),
    Started.

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) when Path =:= nif; Path =:= port; Path =:= beam ->
    test_config:use(erlmcp_native_path, Path, Config);
init_per_group(_, Config) ->
    Config.

end_per_group(_, _) -> ok.

%% The process of a case ends after this, and its servers and clients with it.
end_per_testcase(_, _) ->
    ok.

texts() -> [{[<<"a \"b\" \\ c\nd">>], 1}, {[plain], 2.5}].

%% ---- values

declared_is_right(_) ->
    Families = erlmcp_native_metrics:families(all),
    Names = [Name || #{name := Name} <- Families],
    ?assertEqual(Names, lists:usort(Names)),
    [
        ?assertMatch({match, _}, re:run(atom_to_list(Name), "^[a-z][a-z0-9_]*$"), Name)
     || Name <- Names
    ],
    %% The unit comes last in the name, where the name has one.
    [
        ?assertEqual(Unit, Last, Name)
     || #{name := Name, unit := Unit} <- Families,
        Last <- [list_to_atom(lists:last(string:split(atom_to_list(Name), "_", all)))],
        lists:member(Last, [us, ns, ms, bytes])
    ].

%% Whatever the code adds to by name is declared, and of the right kind.
counted_is_declared(_) ->
    {ok, Modules} = application:get_key(erlmcp_native, modules),
    Counted = lists:usort(lists:append([counted(Module) || Module <- Modules])),
    ?assertMatch([_ | _], Counted),
    Declared = erlmcp_native_metrics:declared(),
    ?assertEqual(
        [],
        [
            Wrong
         || {Function, Name} = Wrong <- Counted,
            not fits(Function, maps:get(Name, Declared, none))
        ]
    ).

fits(_, none) -> false;
fits(add, #{kind := Kind, read := none}) -> Kind =/= histogram;
fits(cell, #{read := none}) -> true;
fits(set, #{kind := gauge, read := none}) -> true;
fits(Observe, #{kind := histogram, read := none}) ->
    lists:member(Observe, [observe, observe_since, snapshot]);
fits(_, _) -> false.

counted(Module) ->
    {ok, {_, [{abstract_code, {_, Forms}}]}} =
        beam_lib:chunks(code:which(Module), [abstract_code]),
    calls(Forms, []).

calls({call, _, {remote, _, {atom, _, erlmcp_native_metrics}, {atom, _, F}}, Args}, Acc) ->
    case {lists:member(F, [add, set, observe, observe_since, snapshot, cell]), Args} of
        {true, [{atom, _, Name} | _]} -> calls(Args, [{F, Name} | Acc]);
        _ -> calls(Args, Acc)
    end;
calls(Form, Acc) when is_tuple(Form) -> calls(tuple_to_list(Form), Acc);
calls([Form | Forms], Acc) -> calls(Forms, calls(Form, Acc));
calls(_, Acc) -> Acc.

beam_counts_under_names_of_the_core(_) ->
    Core = erlmcp_native_metrics_core:families(),
    Keys = [name, kind, group, unit, help],
    Same = [maps:with(Keys, Family) || Family <- Core],
    [
        ?assert(lists:member(maps:with(Keys, Declaration), Same), Declaration)
     || Declaration <- erlmcp_native_beam_count:metrics()
    ].

%% The same pairs are in native/core/src/metrics.rs.
buckets_are_those_of_the_core(_) ->
    [
        ?assertEqual(Bucket, erlmcp_native_histogram:bucket(Value))
     || {Value, Bucket} <- [
            {0, 0},
            {127, 127},
            {128, 128},
            {129, 128},
            {255, 191},
            {256, 192},
            {1000, 317},
            {65536, 704},
            {1 bsl 24, 1216},
            {1 bsl 33 - 1, 1791}
        ]
    ].

%% With METRICS_PAGE=write in the environment this writes the table instead of comparing it.
page_is_up_to_date(_) ->
    Page = mcp_programs:source("../docs/metrics.md"),
    case os:getenv("METRICS_PAGE") of
        "write" -> ok = metrics_page:write(Page);
        _ -> ok
    end,
    Lines = fun(Table) -> binary:split(Table, <<"\n">>, [global]) end,
    Table = Lines(metrics_page:table()),
    Written = Lines(metrics_page:written(Page)),
    ?assertEqual({[], []}, {Table -- Written, Written -- Table}).

counters_and_gauges(_) ->
    Before = value(test_counter),
    ok = erlmcp_native_metrics:add(test_counter, 1),
    ok = erlmcp_native_metrics:add(test_counter, 41),
    ?assertEqual(Before + 42, value(test_counter)),
    ok = erlmcp_native_metrics:set(test_gauge, 7),
    ok = erlmcp_native_metrics:add(test_gauge, -2),
    ?assertEqual(5, value(test_gauge)),
    %% What is not declared is not counted, and hurts nobody.
    ok = erlmcp_native_metrics:add(no_such_metric, 1),
    ok = erlmcp_native_metrics:set(no_such_metric, 1),
    ok = erlmcp_native_metrics:observe(no_such_metric, 1),
    ?assertEqual(#{}, erlmcp_native_metrics:overview(no_such_metric)),
    ?assertEqual(error, erlmcp_native_metrics:family(no_such_metric)),
    ?assertEqual(erlmcp_native_histogram:empty(), erlmcp_native_metrics:snapshot(no_such_metric)).

histograms(_) ->
    Before = erlmcp_native_metrics:snapshot(test_histogram),
    [ok = erlmcp_native_metrics:observe(test_histogram, Value) || Value <- lists:seq(1, 100)],
    Started = erlmcp_native_metrics:started(),
    ok = erlmcp_native_metrics:observe_since(test_histogram, [], Started),
    After = erlmcp_native_metrics:snapshot(test_histogram),
    More = erlmcp_native_histogram:subtract(After, Before),
    ?assertEqual(101, erlmcp_native_histogram:count(More)),
    #{test_histogram := #{value := Value}} = erlmcp_native:overview(),
    ?assertMatch(#{count := _, sum := _, mean := _, p50 := _, p99 := _, max := _}, Value).

histograms_off(_) ->
    Before = erlmcp_native_metrics:snapshot(test_histogram),
    ok = erlmcp_native_metrics:recording(false),
    try
        ?assertEqual(off, erlmcp_native_metrics:started()),
        ok = erlmcp_native_metrics:observe(test_histogram, 1),
        ok = erlmcp_native_metrics:observe_since(test_histogram, [], off),
        ?assertEqual(Before, erlmcp_native_metrics:snapshot(test_histogram))
    after
        ok = erlmcp_native_metrics:recording(true)
    end,
    ok = erlmcp_native_metrics:observe(test_histogram, 1),
    ?assertNotEqual(Before, erlmcp_native_metrics:snapshot(test_histogram)).

labels(_) ->
    ok = erlmcp_native_metrics:add(test_labelled, [left, b], 3),
    ok = erlmcp_native_metrics:add(test_labelled, [right, a], 4),
    %% Neither a label more nor a value that was not declared.
    ok = erlmcp_native_metrics:add(test_labelled, [left], 100),
    ok = erlmcp_native_metrics:add(test_labelled, [left, c], 100),
    #{test_labelled := #{value := 7, series := Series}} =
        erlmcp_native_metrics:overview(test_labelled),
    ?assertEqual(
        [
            {#{side => left, part => a}, 0},
            {#{side => left, part => b}, 3},
            {#{side => right, part => a}, 4},
            {#{side => right, part => b}, 0}
        ],
        Series
    ).

selections(_) ->
    All = erlmcp_native_metrics:overview(),
    ?assertEqual(lists:sort(maps:keys(All)), lists:sort(maps:keys(erlmcp_native:overview()))),
    Group = fun(Name) -> maps:keys(maps:filter(fun(_, #{group := G}) -> G =:= Name end, All)) end,
    [
        ?assertEqual(Group(Name), maps:keys(erlmcp_native_metrics:overview(Name)))
     || Name <- [transport, http, http_client, registry, runtime, breaker, metrics_test]
    ],
    [?assertMatch([_ | _], Group(Name)) || Name <- [transport, http, registry, runtime]],
    ?assertEqual(
        lists:sort([bytes_in, test_gauge | Group(registry)]),
        lists:sort(maps:keys(erlmcp_native_metrics:overview([bytes_in, test_gauge, registry])))
    ).

declared_twice(_) ->
    ok = erlmcp_native_metrics:add(test_counter, 1),
    Before = value(test_counter),
    Declared = erlmcp_native_metrics:declared(),
    ok = erlmcp_native_metrics:declare([
        #{name => test_counter, kind => gauge, group => metrics_test, help => <<"Another">>}
    ]),
    ?assertEqual(Declared, erlmcp_native_metrics:declared()),
    ?assertEqual(Before, value(test_counter)).

declarations_that_are_wrong(_) ->
    Right = #{name => x, kind => counter, group => x, help => <<>>},
    [
        ?assertError({bad_metric, _}, erlmcp_native_metrics:declare([maps:merge(Right, Wrong)]))
     || Wrong <- [
            #{kind => meter},
            #{help => "text"},
            #{unit => furlong},
            #{labels => [path]},
            #{labels => [{path, any}]},
            #{labels => [{path, []}]},
            #{read => fun() -> 1 end},
            #{more => 1}
        ]
    ],
    ?assertError({bad_metric, _}, erlmcp_native_metrics:declare([maps:remove(help, Right)])),
    ?assertNot(is_map_key(x, erlmcp_native_metrics:declared())).

virtual_machine(_) ->
    Overview = erlmcp_native_metrics:overview(runtime),
    #{vm_memory_bytes := #{value := Memory, series := Kinds}} = Overview,
    ?assertEqual(
        [atom, binary, code, ets, other, processes],
        lists:sort([Kind || {#{kind := Kind}, _} <- Kinds])
    ),
    ?assert(Memory > 1000000),
    [
        ?assertMatch(#{Name := #{value := Value}} when Value > 0, Overview)
     || Name <- [vm_processes, vm_reductions, vm_garbage_collections, vm_schedulers, vm_atoms]
    ],
    ?assertMatch(#{tokio_workers := #{value := _}, tokio_tasks := #{value := _}}, Overview).

format_that_is_asked_for(_) ->
    Format = fun(Values) ->
        erlmcp_native_exposition:format([{<<"accept">>, Value} || Value <- Values])
    end,
    Open = <<"application/openmetrics-text">>,
    ?assertEqual(prometheus, Format([])),
    ?assertEqual(prometheus, Format([<<"*/*">>])),
    ?assertEqual(prometheus, Format([<<"text/html, */*;q=0.1">>])),
    ?assertEqual(openmetrics, Format([Open])),
    ?assertEqual(openmetrics, Format([<<"text/plain;q=0.2">>, <<Open/binary, "; q=0.3">>])),
    ?assertEqual(prometheus, Format([<<Open/binary, ";q=0.2, text/plain;q=0.3">>])),
    ?assertEqual(prometheus, Format([<<Open/binary, ";q=0">>])),
    ?assertEqual(prometheus, Format([<<Open/binary, ";q=lots">>])),
    %% What Prometheus sends.
    ?assertEqual(
        openmetrics,
        Format([
            <<"application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,",
                "application/openmetrics-text;version=0.0.1;q=0.5,",
                "text/plain;version=0.0.4;q=0.3,*/*;q=0.2">>
        ])
    ).

text_that_others_read(Config) ->
    ok = erlmcp_native_metrics:add(test_labelled, [left, a], 1),
    Families = erlmcp_native_metrics:families(metrics_test),
    Counted = value(test_labelled),
    [
        begin
            Text = erlmcp_native_exposition:text(Format, Families),
            Read = others_read(Format, Text, Config),
            #{<<"test_text">> := #{<<"samples">> := Texts, <<"help">> := Help}} = Read,
            ?assertEqual(<<"Back\\slash, \"quotes\"\nand a new line">>, Help),
            ?assertEqual(
                [{<<"a \"b\" \\ c\nd">>, 1.0}, {<<"plain">>, 2.5}],
                lists:sort([{Label, V} || {_, #{<<"text">> := Label}, V} <- Texts])
            ),
            #{<<"test_labelled">> := #{<<"type">> := <<"counter">>, <<"samples">> := Sides}} = Read,
            ?assertEqual(
                float(Counted),
                lists:sum([V || {<<"erlmcp_native_test_labelled_total">>, _, V} <- Sides])
            ),
            ?assertEqual(Format =:= prometheus, not lists:suffix("# EOF\n", text(Text)))
        end
     || Format <- [prometheus, openmetrics]
    ].

text(Data) -> binary_to_list(iolist_to_binary(Data)).

trace_contexts(_) ->
    Find = fun(Meta, Headers) ->
        erlmcp_native_trace_context:find(maps:from_list(Meta), Headers)
    end,
    Parent = {<<"traceparent">>, ?TRACE},
    State = {<<"tracestate">>, <<"a=1, b@c=2">>},
    ?assertEqual(none, Find([], [])),
    ?assertEqual(#{traceparent => ?TRACE}, Find([Parent], [])),
    ?assertEqual(#{traceparent => ?TRACE}, Find([], [Parent])),
    ?assertEqual(
        #{traceparent => ?TRACE, tracestate => <<"a=1, b@c=2">>}, Find([Parent, State], [])
    ),
    %% That of the message goes before that of the request, as a whole.
    ?assertEqual(
        #{traceparent => ?TRACE}, Find([Parent], [{<<"traceparent">>, ?OTHER}, State])
    ),
    %% One of the message that is none is as if it were not there.
    ?assertEqual(
        #{traceparent => ?OTHER},
        Find([{<<"traceparent">>, <<"nonsense">>}], [{<<"traceparent">>, ?OTHER}])
    ),
    ?assertEqual(none, Find([], [Parent, {<<"traceparent">>, ?OTHER}])),
    ?assertEqual(
        #{traceparent => ?TRACE, tracestate => <<"a=1,b=2">>},
        Find([], [{<<"tracestate">>, <<"a=1">>}, Parent, {<<"tracestate">>, <<"b=2">>}])
    ),
    %% A state does not come alone, and one that is malformed is dropped alone.
    ?assertEqual(none, Find([State], [])),
    [
        ?assertEqual(#{traceparent => ?TRACE}, Find([Parent, {<<"tracestate">>, Bad}], []))
     || Bad <- [<<"a">>, <<"a=">>, <<"a=1,a=2">>, <<"A=1">>, <<>>, 1, too_many()]
    ],
    [
        ?assertEqual(error, erlmcp_native_trace_context:parse(Bad))
     || Bad <- [
            <<>>,
            <<"00-00000000000000000000000000000000-b7ad6b7169203331-01">>,
            <<"00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01">>,
            <<"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01">>,
            <<"ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01">>,
            <<?TRACE/binary, "-more">>,
            <<?TRACE/binary, "\n">>,
            none
        ]
    ],
    ?assertMatch(
        {ok, #{version := <<"01">>, sampled := true}},
        erlmcp_native_trace_context:parse(
            <<"01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more">>
        )
    ).

too_many() ->
    iolist_to_binary(lists:join($,, [[$a, integer_to_list(N), "=1"] || N <- lists:seq(1, 33)])).

%% ---- alerts and objectives

alert_that_comes_and_goes(_) ->
    ok = erlmcp_native_metrics:set(test_gauge, 0),
    Raised = value(alerts_raised),
    Active = value(alerts_active),
    {ok, Alerts} = erlmcp_native_alerts:start_link(#{
        interval_ms => 5,
        alerts => #{
            high => #{metric => test_gauge, above => 10, clear => 5},
            low => #{metric => test_gauge, below => -10}
        }
    }),
    ok = erlmcp_native_metrics:set(test_gauge, 11),
    ?assertMatch(
        {alert, high, raised, #{value := 11, threshold := {above, 10}, metric := test_gauge}},
        event(Alerts)
    ),
    ?assertEqual({Raised + 1, Active + 1}, {value(alerts_raised), value(alerts_active)}),
    %% In the band: the next that comes is of the other alert.
    ok = erlmcp_native_metrics:set(test_gauge, 6),
    until(fun() ->
        maps:get(high, erlmcp_native_alerts:states(Alerts)) =:= #{state => raised, value => 6}
    end),
    ok = erlmcp_native_metrics:set(test_gauge, -11),
    Both = [event(Alerts), event(Alerts)],
    ?assertMatch([{alert, high, cleared, _}, {alert, low, raised, _}], lists:sort(Both)),
    ok = erlmcp_native_alerts:stop(Alerts),
    ?assertEqual(Active, value(alerts_active)).

alert_on_a_series(_) ->
    {ok, Alerts} = erlmcp_native_alerts:start_link(#{
        interval_ms => 5,
        alerts => #{
            rate => #{metric => {test_labelled, ['_', b]}, above => 0, clear_for_ms => 1},
            slow => #{metric => test_histogram, measure => {percentile, 50}, above => 1000}
        }
    }),
    %% Not before there is something to compare with.
    until(fun() ->
        #{rate := #{value := Rate}} = erlmcp_native_alerts:states(Alerts),
        Rate =/= unknown
    end),
    ok = erlmcp_native_metrics:add(test_labelled, [left, a], 1000),
    ok = erlmcp_native_metrics:add(test_labelled, [right, b], 1),
    ?assertMatch({alert, rate, raised, #{value := Rate}} when Rate > 0, event(Alerts)),
    ?assertMatch({alert, rate, cleared, #{value := +0.0}}, event(Alerts)),
    ok = erlmcp_native_metrics:observe(test_histogram, 2000),
    ?assertMatch({alert, slow, raised, #{value := 2000}}, event(Alerts)),
    ?assertMatch({alert, slow, cleared, #{value := 0}}, event(Alerts)),
    ok = erlmcp_native_alerts:stop(Alerts).

alerts_refused(_) ->
    Refused = fun(Options) ->
        {error, {option, Key, _}} = erlmcp_native_alerts:start_link(Options),
        Key
    end,
    Alert = #{metric => test_gauge, above => 1},
    ?assertEqual(alerts, Refused(#{})),
    ?assertEqual(interval_ms, Refused(#{alerts => #{a => Alert}, interval_ms => 0})),
    ?assertEqual(more, Refused(#{alerts => #{a => Alert}, more => 1})),
    [
        ?assertEqual({a, Key}, Refused(#{alerts => #{a => Wrong}}))
     || {Key, Wrong} <- [
            {above, maps:remove(above, Alert)},
            {metric, Alert#{metric := "x"}},
            {metric, Alert#{measure => median}},
            {metric, #{}},
            {below, Alert#{below => 0}},
            {clear, Alert#{clear => 2}},
            {for_ms, Alert#{for_ms => -1}},
            {more, Alert#{more => 1}}
        ]
    ].

alerts_end_with_their_owner(_) ->
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Alerts} = erlmcp_native_alerts:start_link(#{
        owner => Owner, alerts => #{a => #{metric => test_gauge, above => 1000000}}
    }),
    Monitor = monitor(process, Alerts),
    Owner ! stop,
    ?assertEqual(normal, reason(Monitor)).

objective_for_latency(_) ->
    Objectives = objectives(quick, #{
        kind => latency, metric => test_histogram, within => 1000, target => 0.9
    }),
    ok = erlmcp_native_metrics:observe(test_histogram, 500),
    total(quick, 1, Objectives),
    [ok = erlmcp_native_metrics:observe(test_histogram, 5000) || _ <- lists:seq(1, 9)],
    ?assertMatch(
        {objective, quick, raised, #{severity := page, factor := 5, long := Long}} when Long >= 5,
        event(Objectives)
    ),
    total(quick, 10, Objectives),
    #{quick := Report} = erlmcp_native_objectives:report(Objectives),
    ?assertMatch(#{good := 1, total := 10, target := 0.9}, Report),
    ?assertMatch(#{budget_left := Left} when Left < 0, Report),
    %% After the short window it is over.
    ?assertMatch({objective, quick, cleared, #{severity := page}}, event(Objectives)),
    ok = erlmcp_native_objectives:stop(Objectives).

objective_for_errors(_) ->
    Objectives = objectives(good, #{
        kind => errors,
        total => [test_labelled],
        failed => [{test_labelled, [right, '_']}],
        target => 0.5
    }),
    ok = erlmcp_native_metrics:add(test_labelled, [left, a], 6),
    ok = erlmcp_native_metrics:add(test_labelled, [right, a], 2),
    total(good, 8, Objectives),
    ?assertMatch(
        #{good := #{good := 6, total := 8}}, erlmcp_native_objectives:report(Objectives)
    ),
    ok = erlmcp_native_objectives:stop(Objectives).

objective_for_availability(_) ->
    ok = erlmcp_native_metrics:set(test_gauge, 1),
    Objectives = objectives(there, #{
        kind => availability, metric => test_gauge, at_least => 1, target => 0.9
    }),
    until(fun() -> maps:get(total, report(there, Objectives)) > 1 end),
    #{good := Same, total := Same} = report(there, Objectives),
    ok = erlmcp_native_metrics:set(test_gauge, 0),
    ?assertMatch({objective, there, raised, _}, event(Objectives)),
    ok = erlmcp_native_objectives:stop(Objectives).

objectives(Name, Objective) ->
    {ok, Objectives} = erlmcp_native_objectives:start_link(#{
        interval_ms => 5,
        objectives => #{Name => Objective},
        windows => [#{long_ms => 1000, short_ms => 500, factor => 5, severity => page}]
    }),
    %% What was counted before it has looked is nothing to it: a report is answered after that.
    _ = erlmcp_native_objectives:report(Objectives),
    Objectives.

report(Name, Objectives) -> maps:get(Name, erlmcp_native_objectives:report(Objectives)).

total(Name, Total, Objectives) ->
    until(fun() -> maps:get(total, report(Name, Objectives)) =:= Total end).

objectives_refused(_) ->
    Refused = fun(Options) ->
        {error, {option, Key, _}} = erlmcp_native_objectives:start_link(Options),
        Key
    end,
    Right = #{kind => availability, metric => test_gauge, at_least => 1, target => 0.9},
    ?assertEqual(objectives, Refused(#{})),
    ?assertEqual(windows, Refused(#{objectives => #{a => Right}, windows => []})),
    [
        ?assertEqual(a, Refused(#{objectives => #{a => maps:merge(Right, Wrong)}}))
     || Wrong <- [#{target => 1.0}, #{kind => luck}, #{at_least => x}, #{more => 1}]
    ].

%% ---- history

history_by_the_second(_) ->
    ok = erlmcp_native_metrics:set(test_gauge, 77),
    {ok, History} = erlmcp_native_history:start_link(#{
        metrics => [test_gauge, test_histogram, test_labelled, {test_labelled, [left, a]}]
    }),
    ok = erlmcp_native_metrics:observe(test_histogram, 1234),
    Found = until(fun() ->
        All = erlmcp_native_history:query(test_gauge, 0, later()),
        length(All) >= 2 andalso All
    end),
    {Times, Values} = lists:unzip(Found),
    ?assertEqual([77], lists:usort(Values)),
    ?assertEqual(Times, lists:usort(Times)),
    [First | _] = Times,
    ?assertEqual([{First, 77}], erlmcp_native_history:query(test_gauge, First, First)),
    ?assertEqual([], erlmcp_native_history:query(test_gauge, 0, First - 1)),
    ?assertEqual([], erlmcp_native_history:query(test_gauge, 0, later(), minute)),
    ?assertEqual([], erlmcp_native_history:query(no_such_metric, 0, later())),
    %% Of a histogram only what came in between.
    Recorded = erlmcp_native_history:query(test_histogram, 0, later()),
    ?assertMatch([Max] when abs(Max - 1234) < 10, [M || {_, #{count := 1, max := M}} <- Recorded]),
    ?assertEqual(
        lists:sort([test_gauge, test_histogram, test_labelled, {test_labelled, [left, a]}]),
        erlmcp_native_history:names()
    ),
    ok = gen_server:stop(History).

history_survives_its_process(_) ->
    {ok, History} = erlmcp_native_history:start_link(#{metrics => [test_gauge]}),
    ok = erlmcp_native_metrics:set(test_gauge, 78),
    Of = fun(Value) ->
        [At || {At, V} <- erlmcp_native_history:query(test_gauge, 0, later()), V =:= Value]
    end,
    Before = until(fun() -> Of(78) =/= [] andalso Of(78) end),
    true = unlink(History),
    Monitor = monitor(process, History),
    exit(History, kill),
    _ = reason(Monitor),
    ?assertEqual(Before, Before -- (Before -- Of(78))),
    ok = erlmcp_native_metrics:set(test_gauge, 79),
    {ok, Again} = erlmcp_native_history:start_link(#{metrics => [test_gauge]}),
    _ = until(fun() -> Of(79) =/= [] end),
    ?assertEqual([], Before -- Of(78)),
    ok = gen_server:stop(Again).

history_refused(_) ->
    ?assertMatch(
        {error, {option, metrics, _}}, erlmcp_native_history:start_link(#{metrics => "x"})
    ),
    ?assertMatch({error, {option, more, _}}, erlmcp_native_history:start_link(#{more => 1})).

later() -> erlang:system_time(millisecond) + 1000.

%% ---- telemetry

telemetry_where_it_is_not(_) ->
    case code:which(telemetry) of
        non_existing ->
            ?assertNot(erlmcp_native_telemetry:is_on()),
            ok = erlmcp_native_telemetry:execute([test], #{}, #{});
        _ ->
            {skip, "telemetry is on the code path"}
    end.

telemetry_where_it_is(Config) ->
    case code:which(telemetry) of
        non_existing -> {skip, "telemetry is not on the code path"};
        _ -> with_telemetry(Config)
    end.

with_telemetry(Config) ->
    {ok, Started} = application:ensure_all_started(telemetry),
    ok = erlmcp_native_telemetry:start(),
    Events = [[erlmcp_native, http_server, request], [erlmcp_native, http_server, rpc],
        [erlmcp_native, http_client, request]],
    ok = apply(telemetry, attach_many, [?MODULE, Events, fun ?MODULE:telemetry/4, self()]),
    try
        Path = path(Config),
        {_, Client} = served(#{}, Config),
        ok = call(Client, 1),
        [Request, Rpc, Asked] = [telemetry_event(Event) || Event <- Events],
        ?assertMatch(
            {#{duration := D, response_bytes := _}, #{path := Path, status := 200}} when D > 0,
            Request
        ),
        ?assertMatch({_, #{method := <<"tools/call">>, outcome := result}}, Rpc),
        ?assertMatch(
            {#{duration := _}, #{path := Path, outcome := answered, method := <<"tools/call">>}},
            Asked
        )
    after
        apply(telemetry, detach, [?MODULE]),
        [application:stop(App) || App <- Started]
    end.

telemetry(Event, Measurements, Metadata, Test) ->
    Test ! {telemetry, Event, Measurements, Metadata}.

%% Those of `initialize' come before.
telemetry_event(Event) ->
    receive
        {telemetry, Event, _, #{method := Method}} when Method =/= <<"tools/call">> ->
            telemetry_event(Event);
        {telemetry, Event, Measurements, Metadata} when
            not is_map_key(status, Metadata) orelse map_get(status, Metadata) =:= 200
        ->
            {Measurements, Metadata}
    after ?WAIT -> ct:fail(Event)
    end.

%% ---- on each path

tcp_is_counted(Config) ->
    Path = path(Config),
    Before = counts(Path, tcp),
    Options = #{path => Path, active => true},
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, Options),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, Options),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    Served = receive {erlmcp_native, Listener, {accepted, Accepted}} -> Accepted end,
    Sizes = recorded(frame_in_bytes, Path),
    [ok = erlmcp_native:send(Conn, binary:copy(<<"x">>, 9)) || _ <- lists:seq(1, 10)],
    10 = frames(Served, 10),
    ok = erlmcp_native:close(Conn),
    receive {erlmcp_native, Served, {down, closed, final}} -> ok after ?WAIT -> ct:fail(no_end) end,
    Expected = #{
        connections_opened => 2,
        connections_ended => 2,
        connections_failed => 0,
        frames_in => 10,
        frames_out => 10,
        bytes_in => 100,
        bytes_out => 100
    },
    await(Expected, Before, fun() -> counts(Path, tcp) end),
    %% Nobody listens there any more.
    ok = erlmcp_native:close(Listener),
    {ok, Refused} = erlmcp_native:connect(#{port => Port}, Options),
    {error, refused} = erlmcp_native:await_connected(Refused, ?WAIT),
    await(Expected#{connections_failed := 1}, Before, fun() -> counts(Path, tcp) end),
    %% On `beam' the size of each message would cost too much.
    case Path of
        beam -> ok;
        _ -> ?assertEqual({10, 90}, grown(frame_in_bytes, Path, Sizes))
    end.

stdio_is_counted(Config) ->
    Path = path(Config),
    %% Children of the path `nif' live in the port program.
    Where =
        case Path of
            nif -> port;
            _ -> Path
        end,
    Before = counts(Where, stdio),
    {ok, Conn} = erlmcp_native:connect(#{command => "cat"}, #{path => Path, active => true}),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    ok = erlmcp_native:send(Conn, <<"123456789">>),
    1 = frames(Conn, 1),
    ok = erlmcp_native:close(Conn),
    Expected = #{
        connections_opened => 1,
        connections_ended => 1,
        connections_failed => 0,
        frames_in => 1,
        frames_out => 1,
        bytes_in => 10,
        bytes_out => 10
    },
    await(Expected, Before, fun() -> counts(Where, stdio) end).

frames(_, 0) ->
    0;
frames(Conn, Left) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            length(Frames) + frames(Conn, Left - length(Frames))
    after ?WAIT -> ct:fail({missing, Left})
    end.

http_is_measured(Config) ->
    Path = path(Config),
    {_, Client} = served(#{}, Config),
    Server = recorded(http_server_request_us, Path),
    Asked = recorded(http_client_request_us, Path),
    Requests = erlmcp_native_metrics:snapshot(http_server_request_bytes),
    Responses = erlmcp_native_metrics:snapshot(http_server_response_bytes),
    Answers = series(http_server_responses, [Path, '2xx']),
    Results = series(http_server_rpc_answers, [result]),
    Outcomes = series(http_client_outcomes, [Path, answered]),
    [ok = call(Client, Id) || Id <- lists:seq(1, 10)],
    %% The pool of the path `beam' is Erlang's.
    ?assert(Path =:= beam orelse series(native_http_client_connections, [Path]) > 0),
    %% A server measures after it has answered.
    until(fun() -> element(1, grown(http_server_request_us, Path, Server)) =:= 10 end),
    ?assertMatch({10, Us} when Us > 0, grown(http_server_request_us, Path, Server)),
    ?assertMatch({10, Us} when Us > 0, grown(http_client_request_us, Path, Asked)),
    ?assertEqual(10, series(http_server_responses, [Path, '2xx']) - Answers),
    ?assertEqual(10, series(http_server_rpc_answers, [result]) - Results),
    ?assertEqual(10, series(http_client_outcomes, [Path, answered]) - Outcomes),
    [
        ?assertEqual(
            10,
            erlmcp_native_histogram:count(
                erlmcp_native_histogram:subtract(erlmcp_native_metrics:snapshot(Name), Before)
            )
        )
     || {Name, Before} <- [
            {http_server_request_bytes, Requests}, {http_server_response_bytes, Responses}
        ]
    ].

%% An answer that is a stream is measured at its end.
http_stream_is_measured(Config) ->
    Path = path(Config),
    {_, Client} = served(#{}, Config),
    Server = recorded(http_server_request_us, Path),
    ok = call(Client, <<"streamed">>, 1),
    until(fun() -> element(1, grown(http_server_request_us, Path, Server)) =:= 1 end).

http_answers_by_status(Config) ->
    Path = path(Config),
    {Port, Client} = served(#{}, Config),
    Client4 = series(http_server_responses, [Path, '4xx']),
    Errors = [series(http_server_rpc_answers, [O]) || O <- [client_error, server_error]],
    {404, _, _} = answer(method(Port, <<"GET">>, <<"/other">>, [])),
    {400, _, _} = post(Port, [], <<"no JSON">>),
    until(fun() -> series(http_server_responses, [Path, '4xx']) =:= Client4 + 2 end),
    {error, -32601} = call(Client, <<"unknown">>, 1),
    {error, -32603} = call(Client, <<"crashes">>, 2),
    ?assertEqual(
        [N + 1 || N <- Errors],
        [series(http_server_rpc_answers, [O]) || O <- [client_error, server_error]]
    ).

client_that_fails(Config) ->
    Path = path(Config),
    {_, Client} = served(#{}, Config),
    Before = [series(http_client_outcomes, [Path, O]) || O <- [timeout, cancelled]],
    Silent = fun(Id) -> erlmcp_native_json:encode(request(Id, <<"silent">>)) end,
    ok = erlmcp_native_http_client:send(Client, Silent(1), #{timeout_ms => 10}),
    receive {erlmcp_native, Client, {failed, 1, timeout}} -> ok after ?WAIT -> ct:fail(none) end,
    ok = erlmcp_native_http_client:send(Client, Silent(2)),
    ok = erlmcp_native_http_client:cancel(Client, 2),
    receive {erlmcp_native, Client, {failed, 2, cancelled}} -> ok after ?WAIT -> ct:fail(none) end,
    ?assertEqual(
        [N + 1 || N <- Before],
        [series(http_client_outcomes, [Path, O]) || O <- [timeout, cancelled]]
    ).

path_is_off(Config) ->
    {Port, _} = served(#{}, Config),
    ?assertMatch({404, _, _}, answer(method(Port, <<"GET">>, <<"/metrics">>, []))),
    Refused = fun(Value) ->
        erlmcp_native_http:listen(#{port => 0}, #{
            handler => {?MODULE, self()}, metrics => Value, path => path(Config)
        })
    end,
    [
        ?assertMatch({error, {option, metrics, Value}}, Refused(Value))
     || Value <- [true, <<"metrics">>, <<"/mcp">>]
    ].

path_in_both_formats(Config) ->
    Path = path(Config),
    {Port, Client} = served(#{metrics => <<"/metrics">>}, Config),
    ok = call(Client, 1),
    until(fun() -> element(1, recorded(http_server_request_us, Path)) > 0 end),
    [
        begin
            {200, Headers, Text} = scrape(Port, Accept),
            ?assertEqual(erlmcp_native_exposition:content_type(Format),
                header(<<"content-type">>, Headers)),
            has_request(Path, others_read(Format, Text, Config))
        end
     || {Format, Accept} <- [
            {prometheus, []},
            {openmetrics, [{<<"accept">>, <<"application/openmetrics-text; version=1.0.0">>}]}
        ]
    ],
    ?assertMatch({405, _, _}, answer(method(Port, <<"PUT">>, <<"/metrics">>, []))).

has_request(Path, Read) ->
    Label = atom_to_binary(Path),
    Name = <<"http_server_request_seconds">>,
    #{Name := #{<<"type">> := <<"histogram">>, <<"samples">> := Samples}} = Read,
    Of = fun(Suffix) ->
        Full = <<"erlmcp_native_", Name/binary, Suffix/binary>>,
        [V || {Sample, #{<<"path">> := P}, V} <- Samples, P =:= Label, Sample =:= Full]
    end,
    [Count] = Of(<<"_count">>),
    [Sum] = Of(<<"_sum">>),
    ?assert(Count >= 1),
    ?assert(Sum > 0),
    Buckets = Of(<<"_bucket">>),
    ?assertEqual(Buckets, lists:sort(Buckets)),
    ?assertEqual(Count, lists:last(Buckets)),
    #{<<"vm_processes">> := #{<<"type">> := <<"gauge">>}} = Read.

path_is_guarded(Config) ->
    {Port, _} = served(#{metrics => <<"/metrics">>}, Config),
    Get = fun(Headers) -> element(1, scrape(Port, Headers)) end,
    ?assertEqual(403, Get([{<<"host">>, <<"evil.example.org">>}])),
    ?assertEqual(403, Get([{<<"origin">>, <<"http://evil.example.org">>}])),
    ?assertEqual(200, Get([{<<"origin">>, <<"http://localhost">>}])).

path_wants_authorization(Config) ->
    {Port, _} = serve(
        #{metrics => <<"/metrics">>, authorize => {?MODULE, authorize, []}}, Config
    ),
    ?assertMatch({401, _, _}, scrape(Port, [])),
    ?assertMatch({200, _, _}, scrape(Port, [{<<"authorization">>, <<"Bearer good">>}])).

authorize(#{headers := Headers}) ->
    case lists:member({<<"authorization">>, <<"Bearer good">>}, Headers) of
        true -> {ok, somebody};
        false -> {unauthorized, <<>>}
    end.

trace_of_a_message(Config) ->
    {Port, _} = serve(#{}, Config),
    Ask = fun(Meta, Headers) ->
        #{<<"params">> := #{<<"_meta">> := Needed}} = Message = modern(<<"trace">>, #{}),
        Traced = Message#{<<"params">> := #{<<"_meta">> => maps:merge(Needed, Meta)}},
        All = http_mcp:modern_headers(<<"trace">>, #{}) ++ Headers,
        {200, _, #{<<"result">> := #{<<"trace">> := Trace}}} = post(Port, All, Traced),
        Trace
    end,
    ?assertEqual(<<"none">>, Ask(#{}, [])),
    ?assertEqual(#{<<"traceparent">> => ?TRACE}, Ask(#{<<"traceparent">> => ?TRACE}, [])),
    ?assertEqual(
        #{<<"traceparent">> => ?TRACE, <<"tracestate">> => <<"a=1">>},
        Ask(
            #{<<"traceparent">> => ?TRACE, <<"tracestate">> => <<"a=1">>},
            [{<<"traceparent">>, ?OTHER}]
        )
    ),
    ?assertEqual(#{<<"traceparent">> => ?OTHER}, Ask(#{}, [{<<"traceparent">>, ?OTHER}])),
    ?assertEqual(<<"none">>, Ask(#{<<"traceparent">> => <<"x">>}, [{<<"traceparent">>, <<>>}])).

trace_of_a_client(Config) ->
    {_, Client} = served(#{}, Config),
    Meta = #{<<"_meta">> => #{<<"k">> => 1}},
    Message = erlmcp_native_json:encode(request(1, <<"trace">>, Meta)),
    Trace = #{traceparent => ?TRACE, tracestate => <<"a=1">>},
    ok = erlmcp_native_http_client:send(Client, Message, #{trace => Trace, timeout_ms => ?WAIT}),
    #{<<"result">> := Result} = response(Client),
    ?assertEqual(
        #{
            <<"trace">> => #{<<"traceparent">> => ?TRACE, <<"tracestate">> => <<"a=1">>},
            <<"meta">> => #{
                <<"k">> => 1, <<"traceparent">> => ?TRACE, <<"tracestate">> => <<"a=1">>
            }
        },
        Result
    ),
    ?assertMatch(
        {error, {option, trace, _}},
        erlmcp_native_http_client:send(Client, Message, #{trace => #{traceparent => <<"x">>}})
    ).

%% ---- the server

handle_request(<<"initialize">>, _, #{revision := Revision}) ->
    {reply, #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"serverInfo">> => #{<<"name">> => <<"metrics">>, <<"version">> => <<"1">>}
    }};
handle_request(<<"tools/call">>, _, _) ->
    {reply, #{<<"content">> => []}};
handle_request(<<"streamed">>, _, #{request := Ref}) ->
    ok = erlmcp_native_http:notify(Ref, <<"notifications/message">>, #{}),
    {reply, #{}};
handle_request(<<"trace">>, _, #{trace := Trace, meta := Meta}) ->
    {reply, #{<<"trace">> => Trace, <<"meta">> => Meta}};
handle_request(<<"silent">>, _, _) ->
    noreply;
handle_request(<<"crashes">>, _, _) ->
    error(on_purpose);
handle_request(_, _, _) ->
    {error, -32601, <<"Method not found">>}.

serve(Options, Config) ->
    {ok, Listener} = erlmcp_native_http:listen(
        #{port => 0}, Options#{handler => {?MODULE, self()}, path => path(Config)}
    ),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    {Port, Listener}.

%% With a client that has begun a session, and nothing of that under way.
served(Options, Config) ->
    {Port, _} = serve(Options, Config),
    Path = path(Config),
    Before = recorded(http_server_request_us, Path),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    {ok, Client} = erlmcp_native_http_client:start(Url, #{path => Path, get_stream => false}),
    {ok, _} = erlmcp_native_http_client:initialize(Client, #{}, ?WAIT),
    until(fun() -> element(1, grown(http_server_request_us, Path, Before)) =:= 2 end),
    {Port, Client}.

call(Client, Id) -> call(Client, <<"tools/call">>, Id).

call(Client, Method, Id) ->
    ok = erlmcp_native_http_client:send(Client, erlmcp_native_json:encode(request(Id, Method))),
    case response(Client) of
        #{<<"id">> := Id, <<"result">> := _} -> ok;
        #{<<"id">> := Id, <<"error">> := #{<<"code">> := Code}} -> {error, Code}
    end.

response(Client) ->
    receive
        {erlmcp_native, Client, {frames, Frames}} ->
            All = [element(2, erlmcp_native_json:decode(Frame)) || Frame <- Frames],
            case [Message || #{<<"id">> := _} = Message <- All] of
                [Response] -> Response;
                [] -> response(Client)
            end
    after ?WAIT -> ct:fail(no_response)
    end.

scrape(Port, Headers) ->
    answer(method(Port, <<"GET">>, <<"/metrics">>, Headers)).

%% What Prometheus' own parser makes of a text, by the names without our prefix.
others_read(Format, Text, Config) ->
    Python = mcp_programs:path("prometheus/bin/python"),
    case filelib:is_file(Python) of
        true -> ok;
        false -> throw({skip, "not in _build/mcp_peers (see test/mcp_peers.sh): prometheus"})
    end,
    File = filename:join(proplists:get_value(priv_dir, Config), atom_to_list(Format) ++ ".txt"),
    ok = file:write_file(File, Text),
    Script = mcp_programs:source("mcp_peers/read_metrics.py"),
    Port = open_port({spawn_executable, Python}, [
        {args, [Script, atom_to_list(Format), File]}, binary, exit_status, use_stdio
    ]),
    {ok, Families} = erlmcp_native_json:decode(output(Port, [])),
    maps:from_list([
        {Name, Family#{
            <<"samples">> := [
                {S, Labels, number(V)}
             || #{<<"name">> := S, <<"labels">> := Labels, <<"value">> := V} <- Samples
            ]
        }}
     || #{<<"name">> := <<"erlmcp_native_", Name/binary>>, <<"samples">> := Samples} = Family <-
            Families
    ]).

number(Text) ->
    case string:to_float(Text) of
        {error, no_float} -> float(binary_to_integer(Text));
        {Value, _} -> Value
    end.

output(Port, Acc) ->
    receive
        {Port, {data, Data}} -> output(Port, [Acc, Data]);
        {Port, {exit_status, 0}} -> iolist_to_binary(Acc);
        {Port, {exit_status, Status}} -> ct:fail({refused, Status})
    after ?WAIT -> ct:fail(no_output)
    end.

%% ---- looking at metrics

path(Config) -> proplists:get_value(path, Config).

value(Name) ->
    #{Name := #{value := Value}} = erlmcp_native_metrics:overview(Name),
    Value.

series(Name, Labels) ->
    {ok, #{series := Series}} = erlmcp_native_metrics:family(Name),
    proplists:get_value(Labels, Series, 0).

counts(Path, Transport) ->
    maps:from_list([
        {Name, series(Name, [Path, Transport])}
     || Name <- [connections_opened, connections_ended, connections_failed, frames_in, frames_out,
            bytes_in, bytes_out]
    ]).

await(Expected, Before, Read) ->
    until(fun() ->
        maps:map(fun(Name, Value) -> Value - maps:get(Name, Before) end, Read()) =:= Expected
    end).

%% How many values, and their sum.
recorded(Name, Path) ->
    Snapshot = erlmcp_native_metrics:snapshot(Name, [Path]),
    {erlmcp_native_histogram:count(Snapshot), erlmcp_native_histogram:sum(Snapshot)}.

grown(Name, Path, {Count, Sum}) ->
    {CountNow, SumNow} = recorded(Name, Path),
    {CountNow - Count, SumNow - Sum}.
