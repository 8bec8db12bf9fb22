%% @doc A report of an analysis: what was measured, what it was measured against, and what follows.
%%
%% One map serves every output: the table of the terminal, JSON and HTML. It holds only atoms,
%% binaries, numbers, lists and maps, with `null' for what there is not, so that
%% {@link erlmcp_native_json:encode/1} takes it as it is.
-module(erlmcp_native_report).

-export([row/2, new/2]).

-export_type([report/0, meta/0, row/0, analysis/0, finding/0, plot/0, line/0, point/0]).
-export_type([transport/0, path/0, severity/0, spread/0, or_null/1, percentiles/0]).

-type or_null(Type) :: Type | null.

-type transport() :: stdio | tcp | http | registry | runtime.
%% What is not about a transport is about the registry or the runtime.

-type path() :: nif | port | beam | all | erlmcp05.
%% `all' is what is the same on every path; `erlmcp05' the technique of erlmcp 0.5, measured in the
%% same run.

-type severity() :: low | medium | high | critical.

-type report() :: #{
    meta := meta(),
    rows := [row()],
    analyses := [analysis()],
    findings := [finding()],
    curves := [plot()],
    series := [plot()]
}.
%% `rows' are those of all analyses, each with its baseline; `curves' have something else than time
%% along the x axis, `series' have time in seconds.

-type meta() :: #{
    title := binary(),
    date := binary(),
    command := binary(),
    commit := or_null(binary()),
    duration_ms := non_neg_integer(),
    machine := #{cpu := binary(), cores := pos_integer(), memory_bytes := or_null(pos_integer()),
        system := binary()},
    versions := #{atom() => binary()},
    options := #{atom() => term()}
}.

-type row() :: #{
    row := erlmcp_native_report_rows:name(),
    transport := transport(),
    path := path(),
    value := or_null(number()),
    unit := binary(),
    better := lower | higher,
    bar := or_null(number()),
    reached := or_null(boolean()),
    samples := non_neg_integer(),
    spread := or_null(spread()),
    baseline := or_null(number()),
    note := or_null(binary())
}.
%% One measured figure. `value' is `null' where it could not be measured, and then `note' says why.
%% `baseline' is what the technique of erlmcp 0.5 gave for the same row and transport. Units,
%% direction and bar come from {@link erlmcp_native_report_rows}.

-type spread() :: #{atom() => number()}.
%% Such as `#{min, max}' of runs or `#{p50, p95, p99}' of a distribution, in the row's unit.

-type percentiles() :: #{p50 := number(), p90 := number(), p95 := number(), p99 := number(),
    p999 := number(), max := number()}.

-type analysis() :: #{
    name := atom(),
    rows := [row()],
    metrics := #{atom() => term()},
    evidence := [#{atom() => term()}],
    curves => [plot()],
    series => [plot()]
}.
%% What a measuring module returns. `metrics' has the documented keys of that analysis;
%% `evidence' what they were computed from, one map for each case that was measured.

-type finding() :: #{
    id := atom(),
    analysis := atom(),
    transport := transport(),
    path := path(),
    severity := severity(),
    what := binary(),
    evidence := #{value := number(), unit := binary(), samples := pos_integer(), atom() => term()},
    threshold := #{name := atom(), value := number()},
    recommendation := #{text := binary(), options := [#{'of' := atom(), option := atom()}, ...]}
}.
%% A bottleneck. `threshold' names the option of {@link erlmcp_native_findings} that was crossed;
%% `recommendation' the options of this library that act on it, and whose they are.

-type plot() :: #{
    id := binary(),
    kind := throughput | latency | scaling | memory | atom(),
    title := binary(),
    x := #{label := binary(), unit := binary(), scale => linear | log},
    y := #{label := binary(), unit := binary(), scale => linear | log},
    lines := [line()]
}.
%% `id' is unique within the report.

-type line() :: #{
    label := binary(),
    transport := transport(),
    path := path(),
    points := [point()],
    knee => or_null(point())
}.
%% `knee': where more load stops giving more.

-type point() :: [number()].
%% `[X, Y]'.

%% @doc A row with what is known of it by its name: unit, direction and bar, and whether the bar is
%% reached. `path', `value' and `samples' are needed, and `transport' where it is not the
%% registry's or the runtime's.
-spec row(erlmcp_native_report_rows:name(), map()) -> row().
row(Name, #{path := _, value := Value, samples := _} = Measured) ->
    Transport = maps:get(transport, Measured, runtime),
    #{unit := Unit, better := Better} = erlmcp_native_report_rows:row(Name),
    Bar = erlmcp_native_report_rows:bar(Name, Transport),
    Defaults = #{
        row => Name,
        transport => Transport,
        unit => Unit,
        better => Better,
        bar => Bar,
        reached => reached(Value, Better, Bar),
        spread => null,
        baseline => null,
        note => null
    },
    maps:merge(Defaults, Measured).

reached(null, _, null) -> null;
reached(null, _, _) -> false;
reached(_, _, null) -> null;
reached(Value, lower, Bar) -> Value =< Bar;
reached(Value, higher, Bar) -> Value >= Bar.

%% @doc The report of some analyses, without findings.
-spec new(meta(), [analysis()]) -> report().
new(Meta, Analyses) ->
    Rows = collect(rows, Analyses),
    #{
        meta => Meta,
        rows => [Row#{baseline := baseline(Row, Rows)} || Row <- Rows],
        analyses => Analyses,
        findings => [],
        curves => collect(curves, Analyses),
        series => collect(series, Analyses)
    }.

collect(Key, Analyses) ->
    lists:append([maps:get(Key, Analysis, []) || Analysis <- Analyses]).

%% What the technique of erlmcp 0.5 gave for the same question.
baseline(#{path := erlmcp05}, _) ->
    null;
baseline(#{row := Name, transport := Transport}, Rows) ->
    Same = [
        Value
     || #{row := N, transport := T, path := erlmcp05, value := Value} <- Rows,
        N =:= Name,
        T =:= Transport
    ],
    case Same of
        [Value | _] -> Value;
        [] -> null
    end.
