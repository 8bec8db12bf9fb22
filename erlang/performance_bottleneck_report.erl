%% @doc The six analyses that the performance analysis of erlmcp names, with real faults, and the
%% report of all. docs/analysis.md says how to read it.
%%
%% ```
%% {ok, Report} = performance_bottleneck_report:generate_full_report(),
%% ok = performance_bottleneck_report:export_report(Report, "report.html").
%% '''
%%
%% What is killed, flooded and cut off runs in VMs of their own, on this machine; the node that
%% calls is left alone, but for the processor time.
-module(performance_bottleneck_report).

-export([generate_full_report/0, generate_full_report/1, export_report/2]).
-export([
    analyze_transport_switching_overhead/0,
    analyze_registry_routing_performance/0,
    analyze_message_buffering_efficiency/0,
    analyze_reconnection_strategies/0,
    analyze_supervisor_restart_costs/0,
    analyze_memory_usage_patterns/0
]).

-export_type([perf_analysis/0]).

-type perf_analysis() :: #{
    component := atom(),
    bottleneck_type := atom(),
    severity := erlmcp_native_report:severity() | none,
    description := binary(),
    impact := binary(),
    recommendations := [binary()],
    metrics := map(),
    rows := [erlmcp_native_report:row()],
    findings := [erlmcp_native_report:finding()]
}.
%% One analysis: what the worst finding says, or `none', and the documented metrics.

%% @equiv generate_full_report(#{})
-spec generate_full_report() -> {ok, erlmcp_native_report:report()} | {error, term()}.
generate_full_report() ->
    generate_full_report(#{}).

%% @doc Runs the analyses and makes the report. Options: those of
%% {@link erlmcp_native_report_run:options()}.
-spec generate_full_report(erlmcp_native_report_run:options()) ->
    {ok, erlmcp_native_report:report()} | {error, term()}.
generate_full_report(Options) ->
    erlmcp_native_report_run:run(Options).

%% @doc Writes a report: a page where the name ends in `.html', JSON where it ends in `.json',
%% otherwise the text of the terminal.
-spec export_report(erlmcp_native_report:report(), file:filename_all()) ->
    ok | {error, file:posix() | badarg | terminated | system_limit}.
export_report(Report, Path) ->
    Content =
        case string:lowercase(filename:extension(unicode:characters_to_list(Path))) of
            ".html" -> erlmcp_native_report_html:page(Report);
            ".json" -> erlmcp_native_report_file:encode(Report);
            _ -> unicode:characters_to_binary(erlmcp_native_report_table:text(Report))
        end,
    file:write_file(Path, Content).

%% @doc What a switch to another endpoint costs, planned and not.
-spec analyze_transport_switching_overhead() -> perf_analysis() | {error, term()}.
analyze_transport_switching_overhead() -> analyze(switching).

%% @doc What routing costs, and what waits in front of the registry.
-spec analyze_registry_routing_performance() -> perf_analysis() | {error, term()}.
analyze_registry_routing_performance() -> analyze(registry).

%% @doc What becomes of messages that come ten times as fast as they are taken.
-spec analyze_message_buffering_efficiency() -> perf_analysis() | {error, term()}.
analyze_message_buffering_efficiency() -> analyze(buffering).

%% @doc How soon connections are back after their server is.
-spec analyze_reconnection_strategies() -> perf_analysis() | {error, term()}.
analyze_reconnection_strategies() -> analyze(reconnection).

%% @doc What killed processes cost.
-spec analyze_supervisor_restart_costs() -> perf_analysis() | {error, term()}.
analyze_supervisor_restart_costs() -> analyze(restart).

%% @doc What busy connections take in memory, and whether that grows.
-spec analyze_memory_usage_patterns() -> perf_analysis() | {error, term()}.
analyze_memory_usage_patterns() -> analyze(memory).

analyze(Name) ->
    case erlmcp_native_report_run:run(#{only => [Name]}) of
        {ok, #{analyses := [#{metrics := Metrics, rows := Rows}], findings := Findings}} ->
            (worst(Findings))#{
                component => Name,
                metrics => Metrics,
                rows => Rows,
                findings => Findings,
                recommendations => lists:usort([
                    Text
                 || #{recommendation := #{text := Text}} <- Findings
                ])
            };
        {ok, #{analyses := [#{failed := Why}]}} ->
            {error, {analysis_failed, Why}};
        {error, _} = Error ->
            Error
    end.

worst([]) ->
    #{
        bottleneck_type => none,
        severity => none,
        description => <<"nothing crossed a threshold">>,
        impact => <<"none">>
    };
worst([#{id := Id, severity := Severity, what := What, threshold := Threshold} | Others]) ->
    #{name := Name, value := Value} = Threshold,
    #{
        bottleneck_type => Id,
        severity => Severity,
        description => What,
        impact => iolist_to_binary(
            io_lib:format("~s is ~p; ~b more findings", [Name, Value, length(Others)])
        )
    }.
