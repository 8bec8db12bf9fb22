%% @doc A report of an analysis: what was measured, what it was measured against, and what follows.
%%
%% One map serves every output: the table of the terminal, JSON and HTML. It holds only atoms,
%% binaries, numbers, lists and maps, with `null' for what there is not, so that
%% {@link erlmcp_native_json:encode/1} takes it as it is.
-module(erlmcp_native_report).

-export([row/2, new/2, bars/1, grouped/1, compare/2, meta/2]).

-export_type([report/0, meta/0, row/0, analysis/0, finding/0, plot/0, line/0, point/0]).
-export_type([transport/0, path/0, severity/0, spread/0, or_null/1, percentiles/0]).
-export_type([comparison/0, change/0]).

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
    series := [plot()],
    comparison => or_null(comparison())
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
    series => [plot()],
    failed => binary()
}.
%% What a measuring module returns. `metrics' has the documented keys of that analysis, `evidence'
%% what they were computed from, one map for each case that was measured. `failed': it could not
%% measure, and why.

-type finding() :: #{
    id := atom(),
    analysis := atom(),
    transport := transport(),
    path := path(),
    severity := severity(),
    what := binary(),
    evidence := #{
        value := number(),
        unit := binary(),
        samples := pos_integer(),
        atom() => term()
    },
    threshold := #{name := atom(), value := number()},
    recommendation := #{
        text := binary(),
        options := [#{scope := atom(), option := atom()}, ...]
    }
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

-type comparison() :: #{old := meta(), changes := [change()]}.

-type change() :: #{
    row := erlmcp_native_report_rows:name(),
    transport := transport(),
    path := path(),
    unit := binary(),
    old := or_null(number()),
    new := or_null(number()),
    change_percent := or_null(number()),
    verdict := better | worse | same
}.
%% `same' where the change is under 10 %, or the spreads of the two runs overlap.

-define(NOISE_PERCENT, 10).

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

%% @doc The rows that the bars are looked at, those of `nif' and of what is the same on every path:
%% reached and missed.
-spec bars([row()]) -> {Reached :: [row()], Missed :: [row()]}.
bars(Rows) ->
    lists:partition(
        fun(#{reached := Reached}) -> Reached end,
        [
            Row
         || #{path := Path, reached := Reached} = Row <- Rows,
            is_boolean(Reached),
            Path =:= nif orelse Path =:= all
        ]
    ).

%% @doc The rows by group, with its title, and within it by figure and transport.
-spec grouped([row()]) ->
    [{Title :: binary(), [{{erlmcp_native_report_rows:name(), transport()}, [row()]}]}].
grouped(Rows) ->
    [
        {Title, [
            {{Name, Transport}, [R || #{row := N, transport := T} = R <- Rows,
                N =:= Name, T =:= Transport]}
         || Name <- erlmcp_native_report_rows:names(),
            maps:get(group, erlmcp_native_report_rows:row(Name)) =:= Group,
            Transport <- [stdio, tcp, http, registry, runtime],
            lists:any(
                fun(#{row := N, transport := T}) -> N =:= Name andalso T =:= Transport end, Rows
            )
        ]}
     || {Group, Title} <- erlmcp_native_report_rows:groups()
    ].

%% @doc What has changed between two reports, for the figures that both have.
-spec compare(Old :: report(), New :: report()) -> comparison().
compare(#{meta := Meta, rows := Before}, #{rows := After}) ->
    #{
        old => Meta,
        changes => [
            change(Old, New)
         || #{row := Name, transport := Transport, path := Path} = New <- After,
            #{row := N, transport := T, path := P} = Old <- Before,
            N =:= Name,
            T =:= Transport,
            P =:= Path
        ]
    }.

change(#{value := Old} = Before, #{value := New} = After) ->
    Percent = percent(Old, New),
    (maps:with([row, transport, path, unit], After))#{
        old => Old,
        new => New,
        change_percent => Percent,
        verdict => verdict(Percent, Before, After)
    }.

percent(Old, New) when Old =:= null; New =:= null; Old == 0 -> null;
percent(Old, New) -> 100 * (New - Old) / Old.

verdict(_, #{value := Old}, #{value := New}) when Old =:= null; New =:= null; Old == New ->
    same;
verdict(Percent, _, _) when Percent =/= null, abs(Percent) < ?NOISE_PERCENT ->
    same;
verdict(_, #{value := Old} = Before, #{value := New, better := Better} = After) ->
    case overlap(range(Before), range(After)) of
        true -> same;
        false when (New > Old) =:= (Better =:= higher) -> better;
        false -> worse
    end.

%% Only what several runs gave says how far runs lie apart.
range(#{spread := #{min := Min, max := Max} = Spread}) when map_size(Spread) =:= 2 -> {Min, Max};
range(#{value := Value}) -> {Value, Value}.

overlap({Min1, Max1}, {Min2, Max2}) -> Min1 =< Max2 andalso Min2 =< Max1.

%% @doc Where and when a report was made. `Given' may hold `title', `command', `commit',
%% `duration_ms' and `options'.
-spec meta(map(), calendar:datetime()) -> meta().
meta(Given, {{Year, Month, Day}, {Hour, Minute, _}}) ->
    Date = io_lib:format("~4..0b-~2..0b-~2..0b ~2..0b:~2..0b UTC", [
        Year, Month, Day, Hour, Minute
    ]),
    Defaults = #{
        title => <<"erlmcp_native, analysed">>,
        date => iolist_to_binary(Date),
        command => <<"erlmcp_performance_analysis:generate_full_report()">>,
        commit => null,
        duration_ms => 0,
        machine => erlmcp_native_report_machine:machine(),
        versions => erlmcp_native_report_machine:versions(),
        options => #{}
    },
    maps:merge(Defaults, Given).
