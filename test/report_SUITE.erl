%% @doc The six analyses on live transports, and the report of them: as a table, as JSON that comes
%% back, and as a page that opens without a network. No figure is held to a bar here.
-module(report_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-export([all/0, groups/0, suite/0, init_per_suite/1, end_per_suite/1]).
-export([init_per_group/2, end_per_group/2]).
-export([
    switching/1, restart/1, reconnection/1, memory/1, buffering/1, registry/1,
    an_analysis/1,
    json_comes_back/1,
    the_page_needs_nothing_else/1,
    the_page_in_a_browser/1,
    the_page_escapes/1,
    every_plot_has_its_words_and_figures/1,
    the_table/1,
    two_runs/1,
    export/1,
    wrong_options/1,
    a_failure_is_said/1,
    recommended_options_exist/1,
    every_row_is_known/1,
    parallel_and_guarded/1
]).

suite() -> [{timetrap, {minutes, 5}}].

all() ->
    [
        {group, nif},
        {group, port},
        {group, beam},
        registry,
        an_analysis,
        json_comes_back,
        the_page_needs_nothing_else,
        the_page_in_a_browser,
        the_page_escapes,
        every_plot_has_its_words_and_figures,
        the_table,
        two_runs,
        export,
        wrong_options,
        a_failure_is_said,
        recommended_options_exist,
        every_row_is_known,
        parallel_and_guarded
    ].

groups() ->
    Cases = [switching, restart, reconnection, memory, buffering],
    [{Path, [parallel], Cases} || Path <- [nif, port, beam]].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) ->
    case lists:member(Path, erlmcp_native_report_machine:paths()) of
        true -> [{path, Path} | Config];
        false -> {skip, {no_path, Path}}
    end.

end_per_group(_, _) -> ok.

options(Config, More) ->
    maps:merge(#{paths => [?config(path, Config)], thresholds => #{}}, More).

%% Whatever else becomes of a request, it has one outcome.
switching(Config) ->
    #{rows := Rows, metrics := Metrics, evidence := [Evidence]} =
        erlmcp_native_bottleneck_switching:run(
            options(Config, #{
                transports => [tcp], loads => [16], switches => 2, endpoint_kills => 1
            })
        ),
    #{switches := 2, kills := 1, unresolved := 0, requests := Requests} = Evidence,
    ?assert(Requests > 16),
    ?assertMatch(#{value := 0, reached := true}, row(switch_unplanned_unresolved, Rows)),
    has([avg_switch_time, max_switch_time, min_switch_time, total_switches, failure_rate,
        switch_details], Metrics).

restart(Config) ->
    #{rows := Rows, metrics := Metrics, evidence := [Evidence]} =
        erlmcp_native_bottleneck_restart:run(
            options(Config, #{
                kills => 30, children => 5, connections => 50, supervisor_kills => 1
            })
        ),
    #{kills := 30, cascades := 0, affected := 0, trees_lost := 0} = Evidence,
    #{restarted_us := #{count := 30}, supervisor_us := #{count := 1}} = Evidence,
    ?assertMatch(#{value := 0, reached := true, samples := 30}, row(restart_cascades, Rows)),
    ?assertMatch(#{value := Ms} when Ms > 0, row(restart_child, Rows)),
    has([avg_restart_time, max_restart_time, restart_frequency, cascade_failure_rate,
        avg_affected_processes, restart_details], Metrics).

reconnection(Config) ->
    #{rows := Rows, metrics := Metrics, evidence := Evidence} =
        erlmcp_native_bottleneck_reconnect:run(options(Config, #{rounds => 1, clients => 3})),
    Kinds = [{T, K} || #{transport := T, kind := K} <- Evidence],
    Failing = [{T, K} || T <- [http, tcp], K <- [refused, reset, shutdown, timeout]],
    ?assertEqual(lists:sort([{stdio, reset}, {stdio, shutdown} | Failing]), lists:sort(Kinds)),
    [?assertMatch(#{tries := N, successes := N} when N > 0, E) || E <- Evidence],
    [
        ?assertMatch(#{reasons := R} when map_size(R) > 0, E)
     || #{kind := refused, transport := tcp} = E <- Evidence
    ],
    [
        ?assertMatch(#{value := 100.0, reached := true}, Row)
     || #{row := reconnect_success} = Row <- Rows
    ],
    has([avg_reconnect_time, max_reconnect_time, backoff_efficiency, connection_stability,
        scenario_details], Metrics).

memory(Config) ->
    #{rows := Rows, metrics := Metrics, series := [Series]} =
        erlmcp_native_bottleneck_memory:run(
            options(Config, #{memory_s => 4, memory_connections => 20})
        ),
    ?assertMatch(#{value := 0}, row(memory_leaked_objects, Rows)),
    ?assertMatch(#{value := Mb} when is_number(Mb), row(memory_busy, Rows)),
    #{lines := [#{points := [_ | _]}]} = Series,
    #{leak_indicators := #{verdict := _}, memory_timeline := [[_, _] | _]} = Metrics,
    has([peak_memory_usage, memory_growth_rate, gc_pressure, process_memory_ratio], Metrics).

buffering(Config) ->
    #{rows := Rows, metrics := Metrics, evidence := Evidence} =
        erlmcp_native_bottleneck_buffering:run(options(Config, #{overload_s => 1})),
    Lost = [{T, V} || #{row := buffer_lost, transport := T, value := V} <- Rows],
    ?assertEqual([{http, 0}, {stdio, 0}, {tcp, 0}], lists:sort(Lost)),
    [
        ?assertMatch(#{offered := N, received := N} when N > 0, E)
     || #{transport := T} = E <- Evidence, T =/= http
    ],
    has([buffer_overflow_rate, avg_buffer_size, max_buffer_size, gc_frequency, size_efficiency,
        buffer_details], Metrics).

registry(_) ->
    #{rows := Rows, metrics := Metrics, evidence := Evidence, curves := Curves} =
        erlmcp_native_bottleneck_registry:run(#{
            senders => [1, 50], duration_ms => 50, runs => 1
        }),
    [?assertMatch(#{routed := N} when N > 0, E) || E <- Evidence],
    ?assertMatch(#{value := 0, reached := true}, row(registry_queue_max, Rows)),
    ?assertEqual(2, length(Curves)),
    has([avg_lookup_time, max_lookup_time, p95_lookup_time, avg_routing_latency,
        max_routing_latency, p95_routing_latency, avg_queue_depth, operations_per_second], Metrics).

an_analysis(_) ->
    Self = self(),
    Options = #{
        only => [registry],
        quick => true,
        senders => [50],
        duration_ms => 20,
        progress => fun(Line) -> Self ! {line, iolist_to_binary(Line)} end
    },
    {ok, Report} = erlmcp_performance_analysis:generate_full_report(Options),
    #{meta := Meta, analyses := [#{name := registry}], rows := [_ | _]} = Report,
    ?assertMatch(#{date := _, machine := #{cores := _}, versions := #{otp := _}}, Meta),
    receive
        {line, Line} -> ?assertMatch(<<"registry", _/binary>>, Line)
    end,
    Json = erlmcp_native_report_file:encode(Report),
    ?assertMatch({ok, _}, erlmcp_native_report_file:decode(Json)).

json_comes_back(Config) ->
    Report = report(),
    Dir = filename:join(?config(priv_dir, Config), "json"),
    {ok, #{json := Json}} = erlmcp_native_report_file:write(Report, Dir),
    {ok, Back} = erlmcp_native_report_file:read(Json),
    ?assertEqual(maps:get(rows, Report), maps:get(rows, Back)),
    ?assertEqual(maps:get(findings, Report), maps:get(findings, ids(Back))),
    ?assertEqual(maps:get(curves, Report), maps:get(curves, Back)),
    {error, enoent} = erlmcp_native_report_file:read(filename:join(Dir, "none.json")),
    {error, not_a_report} = erlmcp_native_report_file:decode(<<"{}">>),
    {error, {json, _}} = erlmcp_native_report_file:decode(<<"{">>).

%% An id is a name of a plot, or of a finding: in JSON both are text.
ids(#{findings := Findings} = Report) ->
    Report#{findings := [F#{id := binary_to_atom(Id)} || #{id := Id} = F <- Findings]}.

the_page_needs_nothing_else(_) ->
    Page = erlmcp_native_report_html:page(report()),
    ?assertEqual(nomatch, re:run(Page, "(src|href)=\"?(https?:)?//", [caseless])),
    ?assertEqual(nomatch, re:run(Page, "<script|@import|url\\(", [caseless])),
    ?assertMatch({match, _}, re:run(Page, "default-src 'none'")),
    ?assertMatch({match, _}, re:run(Page, "prefers-color-scheme:dark")),
    ?assert(is_list(unicode:characters_to_list(Page))).

every_plot_has_its_words_and_figures(_) ->
    Page = erlmcp_native_report_html:page(report()),
    Count = fun(Pattern) ->
        case re:run(Page, Pattern, [global]) of
            {match, Found} -> length(Found);
            nomatch -> 0
        end
    end,
    Plots = Count("<svg "),
    ?assert(Plots >= 3),
    ?assertEqual(Plots, Count("<desc id=")),
    ?assertEqual(Plots, Count("role=\"img\" aria-labelledby=")),
    ?assertEqual(Plots, Count("<summary>Figures</summary><div class=scroll tabindex=0><table>")).

%% At the width of a phone and of a desktop nothing is wider than the window, nothing is asked of
%% the network and nothing is complained of.
the_page_in_a_browser(Config) ->
    case lists:filtermap(fun browser/1, ["chromium", "chromium-browser", "google-chrome"]) of
        [] ->
            {skip, "no chromium in PATH"};
        [Browser | _] ->
            Dir = ?config(priv_dir, Config),
            [browse(Browser, Dir, Width) || Width <- [390, 1440]],
            ok
    end.

browser(Name) ->
    case os:find_executable(Name) of
        false -> false;
        File -> {true, File}
    end.

browse(Browser, Dir, Width) ->
    File = filename:join(Dir, "measured.html"),
    %% For this only, the page may run a script.
    Page = binary:replace(
        erlmcp_native_report_html:page(report()), <<"default-src 'none'">>,
        <<"default-src 'none'; script-src 'unsafe-inline'">>
    ),
    Script = <<
        "<script>addEventListener('load',()=>{document.querySelectorAll('details').forEach("
        "d=>d.open=true);const wide=[...document.querySelectorAll('body *')].filter(e=>"
        "e.getBoundingClientRect().right>innerWidth+1&&!e.closest('svg,.scroll')).length;"
        "parent.postMessage(`window ${innerWidth} page ${document.documentElement.scrollWidth} "
        "wide ${wide} loaded ${performance.getEntriesByType('resource').length}`,'*')})</script>"
    >>,
    ok = file:write_file(File, [Page, Script]),
    Frame = filename:join(Dir, "frame.html"),
    %% A window may not become as narrow as a phone; a frame may.
    ok = file:write_file(Frame, io_lib:format(
        "<script>onmessage=e=>document.title=e.data</script>"
        "<iframe src=measured.html style=\"width:~bpx;height:2000px;border:0\"></iframe>",
        [Width]
    )),
    Dom = run(Browser, [
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--hide-scrollbars", "--enable-logging=stderr",
        "--user-data-dir=" ++ filename:join(Dir, "profile"),
        "--window-size=1600,2200", "--virtual-time-budget=10000", "--dump-dom",
        "file://" ++ Frame
    ]),
    ?assertEqual(nomatch, re:run(Dom, "CONSOLE")),
    {match, Measured} = re:run(
        Dom, "<title>window ([0-9]+) page ([0-9]+) wide ([0-9]+) loaded ([0-9]+)</title>",
        [{capture, all_but_first, list}]
    ),
    Same = integer_to_list(Width),
    ?assertEqual([Same, Same, "0", "0"], Measured).

run(Program, Args) ->
    Port = open_port({spawn_executable, Program}, [
        {args, [lists:flatten(Arg) || Arg <- Args]}, binary, exit_status, stderr_to_stdout
    ]),
    output(Port, []).

output(Port, Acc) ->
    receive
        {Port, {data, Data}} -> output(Port, [Acc, Data]);
        {Port, {exit_status, _}} -> iolist_to_binary(Acc)
    end.

the_page_escapes(_) ->
    #{meta := Meta} = Report = report(),
    Page = erlmcp_native_report_html:page(Report#{meta := Meta#{title := <<"<b>&\"µ"/utf8>>}}),
    ?assertMatch({match, _}, re:run(Page, <<"<h1>&lt;b&gt;&amp;&quot;µ</h1>"/utf8>>)).

the_table(_) ->
    Text = unicode:characters_to_binary(erlmcp_native_report_table:text(report())),
    [
        ?assertMatch({match, _}, re:run(Text, Words))
     || Words <- [
            "nif +port +beam +erlmcp 0.5 +bar", "reached", "missed", "Findings", "bars reached"
        ]
    ].

two_runs(_) ->
    #{rows := Rows} = New = report(),
    Old = New#{rows := [old(Row) || Row <- Rows]},
    #{changes := Changes} = Comparison = erlmcp_native_report:compare(Old, New),
    Verdict = fun(Name) ->
        hd([V || #{row := N, path := nif, verdict := V} <- Changes, N =:= Name])
    end,
    ?assertEqual(better, Verdict(throughput)),
    ?assertEqual(worse, Verdict(restart_child)),
    ?assertEqual(same, Verdict(latency_p95)),
    Page = erlmcp_native_report_html:page(New#{comparison => Comparison}),
    ?assertMatch({match, _}, re:run(Page, "Before and after")).

old(#{row := throughput, value := V} = Row) -> Row#{value := V / 2};
old(#{row := restart_child, value := V} = Row) when V =/= null -> Row#{value := V / 2};
old(#{row := latency_p95, value := V} = Row) -> Row#{value := V * 1.05};
old(Row) -> Row.

export(Config) ->
    Dir = ?config(priv_dir, Config),
    [
        begin
            File = filename:join(Dir, "exported" ++ Extension),
            ok = performance_bottleneck_report:export_report(report(), File),
            {ok, Content} = file:read_file(File),
            ?assertMatch({match, _}, re:run(Content, Words))
        end
     || {Extension, Words} <- [
            {".html", "^<!doctype html>"}, {".json", "^{.*\"rows\""}, {".txt", "bars reached"}
        ]
    ],
    {error, enoent} = performance_bottleneck_report:export_report(report(), "/none/report.html").

wrong_options(_) ->
    [
        ?assertEqual(
            {error, {option, Key, Value}},
            performance_bottleneck_report:generate_full_report(#{Key => Value})
        )
     || {Key, Value} <- [
            {only, [nothing]}, {paths, []}, {paths, [other]}, {progress, yes}, {quick, 1}
        ]
    ],
    ?assertEqual(
        {error, {option, {thresholds, max_loss}, 1}},
        performance_bottleneck_report:generate_full_report(#{thresholds => #{max_loss => 1}})
    ).

%% A module that knows no techniques.
a_failure_is_said(_) ->
    {ok, #{analyses := [#{name := registry, failed := Why}], findings := []}} =
        performance_bottleneck_report:generate_full_report(#{
            only => [registry], baseline => ?MODULE
        }),
    ?assert(is_binary(Why)).

%% A recommendation that cannot be followed is none.
recommended_options_exist(_) ->
    Unknown = [
        {Scope, Option}
     || {Scope, Option} <- erlmcp_native_findings:options(),
        not lists:member(Option, known(Scope))
    ],
    ?assertEqual([], Unknown).

known(connection) ->
    {ok, Options} = erlmcp_native_options:connection(#{}),
    [owner, active, path, reconnect | maps:keys(Options)];
known(listener) ->
    {ok, Options} = erlmcp_native_options:listener(#{}),
    [owner, active, path, handler, max_connections | maps:keys(Options)];
known(reconnect) ->
    {ok, Options} = erlmcp_native_backoff:options(true),
    maps:keys(Options);
known(failover) ->
    Endpoints = [#{to => #{port => 1}}],
    {ok, _, Options} = erlmcp_native_failover_options:check(Endpoints, #{}),
    maps:keys(Options);
known(http_client) ->
    {ok, Options} = erlmcp_native_http_options:client(#{}),
    maps:keys(Options);
known(application) ->
    %% As the README lists them.
    [path, workers, log_level, port_ping_ms, takeover].

every_row_is_known(_) ->
    Groups = [Group || {Group, _} <- erlmcp_native_report_rows:groups()],
    [
        begin
            #{group := Group, unit := Unit, label := Label} = erlmcp_native_report_rows:row(Name),
            ?assert(lists:member(Group, Groups)),
            ?assert(is_binary(Unit) andalso is_binary(Label))
        end
     || Name <- erlmcp_native_report_rows:names()
    ].

parallel_and_guarded(_) ->
    [2, 4, 6] = erlmcp_native_parallel:map(fun(N) -> 2 * N end, [1, 2, 3]),
    {ok, done} = erlmcp_native_parallel:guarded(fun() -> done end),
    {error, _} = erlmcp_native_parallel:guarded(fun() -> exit(broken) end),
    {error, _} = erlmcp_native_parallel:guarded(fun() ->
        erlmcp_native_parallel:map(fun(N) -> N = 1 end, [1, 2])
    end),
    receive
        Message -> ct:fail(Message)
    after 0 -> ok
    end.

row(Name, Rows) ->
    [Row | _] = [R || #{row := N} = R <- Rows, N =:= Name],
    Row.

has(Keys, Metrics) ->
    ?assertEqual([], Keys -- maps:keys(Metrics)).

%% A report with something of everything.
report() ->
    Rows =
        [measured(throughput, tcp, P, V) || {P, V} <- [{nif, 210.5}, {port, 150.2}, {beam, 20},
            {erlmcp05, 18.25}]] ++
        [measured(throughput, http, P, V) || {P, V} <- [{nif, 12.5}, {port, 11}, {beam, 9.5}]] ++
        [measured(latency_p95, tcp, P, V) || {P, V} <- [{nif, 0.42}, {port, 0.8}, {beam, 1.5}]] ++
        [measured(restart_child, runtime, P, V) || {P, V} <- [{nif, 0.3}, {erlmcp05, null}]] ++
        [measured(registry_routes_per_s, registry, P, V) || {P, V} <- [{all, 1600000},
            {erlmcp05, 480000.5}]],
    Analysis = #{
        name => transports,
        rows => Rows,
        metrics => #{},
        evidence => [#{reasons => {closed, [a | b]}, pid => self()}],
        curves => [
            plot(<<"scaling">>, scaling, #{scale => log}, #{}, [[1, 20], [10, 180.5], [1000, 210]]),
            plot(<<"latency">>, latency, #{scale => percentile}, #{scale => log},
                [[50, 0.1], [99, 0.8], [99.9, 12]])
        ],
        series => [
            plot(<<"memory">>, memory, #{}, #{}, [[N, 50 + N rem 7] || N <- lists:seq(0, 90)])
        ]
    },
    Given = #{commit => <<"0123456789abcdef">>},
    Meta = erlmcp_native_report:meta(Given, {{2026, 1, 2}, {3, 4, 5}}),
    Report = erlmcp_native_report:new(Meta, [Analysis]),
    Report#{findings := erlmcp_native_findings:find(Rows, erlmcp_native_findings:thresholds())}.

measured(Name, Transport, Path, Value) ->
    erlmcp_native_report:row(Name, #{
        transport => Transport,
        path => Path,
        value => Value,
        samples => 100,
        spread => #{p50 => 1, p99 => 2},
        note => <<"as <measured>">>
    }).

plot(Id, Kind, X, Y, Points) ->
    #{
        id => Id,
        kind => Kind,
        title => <<"A plot of ", Id/binary>>,
        x => X#{label => <<"connections">>, unit => <<>>},
        y => Y#{label => <<"rate">>, unit => <<"us">>},
        lines => [
            #{label => atom_to_binary(P), transport => tcp, path => P, points => Points,
                knee => hd(Points)}
         || P <- [nif, port, beam, erlmcp05]
        ]
    }.
