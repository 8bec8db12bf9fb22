%% @doc Runs the analyses one after the other and makes their report. An analysis that fails is
%% said to have failed; the others go on.
-module(erlmcp_native_report_run).

-export([run/1]).

-export_type([options/0, progress/0]).

-type progress() :: fun((iodata()) -> term()).

-type options() :: #{
    only => [analysis()],
    paths => [erlmcp_native_path:path()],
    baseline => none | module(),
    thresholds => erlmcp_native_findings:thresholds(),
    progress => none | progress(),
    quick => boolean(),
    title => binary(),
    command => binary(),
    commit => binary() | null,
    atom() => term()
}.
%% `only': these analyses. `paths': those that can be had here, unless said otherwise. `baseline': a
%% module that knows the techniques to compare with (bench/bench_baseline.erl). `progress': what
%% is called with a line of text as a run goes on. `quick': smaller figures, for a first look.
%% All other options are passed on to the analyses, which say what they take.

-type analysis() ::
    transport
    | registry
    | switching
    | reconnection
    | restart
    | memory
    | buffering
    | connections.

-define(ANALYSES, [
    {transport, erlmcp_native_bottleneck_transport},
    {registry, erlmcp_native_bottleneck_registry},
    {switching, erlmcp_native_bottleneck_switching},
    {reconnection, erlmcp_native_bottleneck_reconnect},
    {restart, erlmcp_native_bottleneck_restart},
    {connections, erlmcp_native_bottleneck_connections},
    {memory, erlmcp_native_bottleneck_memory},
    {buffering, erlmcp_native_bottleneck_buffering}
]).

%% These take a minute each, most of which they spend waiting, and their figures are about
%% memory: they run at the same time.
-define(TOGETHER, [memory, buffering]).

%% What a first look is content with.
-define(QUICK, #{
    senders => [1, 10, 50],
    runs => 1,
    rounds => 1,
    kills => 200,
    loads => [16],
    switches => 20,
    endpoint_kills => 1,
    supervisor_kills => 1,
    memory_s => 10,
    overload_s => 5,
    quick => true
}).

%% @doc The report, with findings. Ends with the caller, and with
%% {@link erlmcp_performance_analysis:stop/0}.
-spec run(options()) -> {ok, erlmcp_native_report:report()} | {error, term()}.
run(Options) when is_map(Options) ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    case check(Options) of
        {ok, Checked} -> erlmcp_native_analysis_run:run(fun() -> {ok, report(Checked)} end);
        {error, _} = Error -> Error
    end;
run(Options) ->
    {error, {option, options, Options}}.

check(Given) ->
    Options = maps:merge(defaults(Given), Given),
    case [{K, V} || {K, V} <- maps:to_list(Options), not valid(K, V)] of
        [] -> thresholds(Options);
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end.

defaults(Given) ->
    Defaults = #{
        only => [Name || {Name, _} <- ?ANALYSES],
        paths => erlmcp_native_report_machine:paths(),
        baseline => none,
        thresholds => #{},
        progress => none
    },
    case maps:get(quick, Given, false) of
        true -> maps:merge(Defaults, ?QUICK);
        _ -> Defaults
    end.

valid(only, V) -> is_list(V) andalso V -- [Name || {Name, _} <- ?ANALYSES] =:= [];
valid(paths, V) -> is_list(V) andalso V =/= [] andalso V -- [nif, port, beam] =:= [];
valid(baseline, V) -> is_atom(V);
valid(progress, V) -> V =:= none orelse is_function(V, 1);
valid(quick, V) -> is_boolean(V);
valid(_, _) -> true.

thresholds(#{thresholds := Given} = Options) ->
    case erlmcp_native_findings:check(Given) of
        {ok, Thresholds} -> {ok, Options#{thresholds := Thresholds}};
        {error, _} = Error -> Error
    end.

report(#{only := Only, thresholds := Thresholds} = Options) ->
    Begin = erlang:monotonic_time(millisecond),
    Chosen = [Analysis || {Name, _} = Analysis <- ?ANALYSES, lists:member(Name, Only)],
    {Together, Alone} = lists:partition(
        fun({Name, _}) -> lists:member(Name, ?TOGETHER) end, Chosen
    ),
    Run = fun(Analysis) -> analysis(Analysis, Options) end,
    Analyses = lists:map(Run, Alone) ++ erlmcp_native_parallel:map(Run, Together),
    Took = erlang:monotonic_time(millisecond) - Begin,
    Given = maps:with([title, command, commit], Options),
    Meta = erlmcp_native_report:meta(
        Given#{duration_ms => Took, options => maps:without([progress, title, command], Options)},
        calendar:universal_time()
    ),
    #{rows := Rows} = Report = erlmcp_native_report:new(Meta, Analyses),
    Report#{findings := erlmcp_native_findings:find(Rows, Thresholds)}.

analysis({Name, Module}, Options) ->
    Begin = erlang:monotonic_time(millisecond),
    Result = erlmcp_native_parallel:guarded(fun() -> Module:run(Options) end),
    Seconds = (erlang:monotonic_time(millisecond) - Begin) div 1000,
    case Result of
        {ok, Analysis} ->
            erlmcp_native_progress:say(Options, "~s: done in ~b s", [Name, Seconds]),
            Analysis;
        {error, Reason} ->
            Why = iolist_to_binary(io_lib:format("~0p", [Reason])),
            erlmcp_native_progress:say(Options, "~s: failed: ~s", [Name, Why]),
            #{name => Name, rows => [], metrics => #{}, evidence => [], failed => Why}
    end.
