%% @doc How much goes through a transport and how long one waits: throughput of decoded calls of
%% 1 KB, latency against load up to saturation and beyond, and throughput against the size of the
%% messages. Each transport and path in a VM of its own, one after the other.
%%
%% Throughput: closed loads by 2 clients, of a tool that returns the length of its text, so that
%% what is counted is what the server has decoded; the median of some runs. The figure is what goes
%% through one message a call, 64 under way for each client; its note says what goes through in
%% batches of up to 100 calls, which revision 2025-03-26 has, with 200 calls under way. Latency:
%% open loads, one message a call, at shares of what went through so, counted from when each call
%% was due. What is given as the knee is the highest load up to which p99 stays within 5 times that
%% of the lowest load.
-module(erlmcp_native_bottleneck_transport).

-export([run/1]).

%% Called in the other VM.
-export([measure/2]).

-define(TRANSPORTS, [stdio, tcp, http]).
-define(PATHS, [nif, port, beam]).
-define(DURATION_MS, 400).
-define(RUNS, 3).
-define(WORKERS, 2).
-define(WINDOW, 64).
-define(BATCH, 100).
-define(BATCHED, 200).
-define(BYTES, 1024).
-define(SHARES, [0.1, 0.25, 0.5, 0.75, 0.9, 1.1]).
-define(HALF, 0.5).
-define(KNEE, 5).
-define(DRAIN_MS, 1000).
-define(LARGEST_MS, 3000).

%% OTP's own: nothing else is to run beside what is measured.
-define(FLAGS, ["+sbwt", "medium", "+sbwtdcpu", "short", "+sbwtdio", "short"]).
-define(MIB, 1048576).
-define(SIZES, [64, 1024, 16384, 262144, ?MIB, 16 * ?MIB]).

%% @doc Options: `paths', `transports', `baseline' (a module whose `subject/1' tells what to compare
%% a transport with, or `none'), `duration_ms' of each run (400), `runs' (3), `shares' of the
%% throughput at which latency is measured, `sizes' in bytes.
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Cases = [
        #{transport => Transport, path => Path}
     || Transport <- maps:get(transports, Options, ?TRANSPORTS),
        Path <- maps:get(paths, Options, ?PATHS)
    ] ++ baseline(Options),
    Measured = [measured(Case, Options) || Case <- Cases],
    #{
        name => transport,
        rows => lists:append([rows(M) || M <- Measured]),
        metrics => metrics(Measured),
        evidence => [evidence(M) || M <- Measured],
        curves => [curve(Kind, Measured) || Kind <- [throughput, latency, sizes]]
    }.

baseline(#{baseline := Baseline} = Options) when Baseline =/= none ->
    [
        #{transport => Transport, path => erlmcp05, subject => Baseline:subject(Transport)}
     || Transport <- maps:get(transports, Options, ?TRANSPORTS)
    ];
baseline(_) ->
    [].

measured(#{subject := none} = Case, _) ->
    Case#{error => <<"erlmcp 0.5 has no transport of this kind that works">>};
measured(#{path := Path, transport := Transport} = Case, Options) ->
    erlmcp_native_progress:say(Options, "throughput and latency: ~s on ~s", [Transport, Path]),
    Given = maps:without([progress, baseline], Options),
    Result = erlmcp_native_analysis_vm:with(Path, ?FLAGS, fun(Vm) ->
        erlmcp_native_analysis_vm:call(Vm, ?MODULE, measure, [Case, Given])
    end),
    maps:merge(Case, Result).

%% @private
-spec measure(erlmcp_native_analysis_subject:given(), map()) -> map().
measure(Case, Options) ->
    case erlmcp_native_analysis_subject:start(Case#{call => size}) of
        {ok, Subject} ->
            try
                measure(Case, Subject, Options)
            after
                erlmcp_native_analysis_subject:stop(Subject)
            end;
        {error, Reason} ->
            #{error => said(Reason)}
    end.

measure(Case, Subject, Options) ->
    DurationMs = maps:get(duration_ms, Options, ?DURATION_MS),
    Closed = #{
        workers => ?WORKERS, window => ?WINDOW, bytes => ?BYTES, duration_ms => DurationMs
    },
    %% Code is loaded and connections are warm after this.
    case erlmcp_native_analysis_load:run(Subject, Closed#{duration_ms := DurationMs div 2}) of
        {ok, _} ->
            Runs = [
                loaded(Subject, Closed) || _ <- lists:seq(1, maps:get(runs, Options, ?RUNS))
            ],
            Rate = median([R || #{operations_per_second := R} <- Runs]),
            #{
                throughput => Runs,
                batched => batched(Case, Closed#{window := ?BATCHED}, Options),
                latency => latency(Subject, Rate, DurationMs, Options),
                sizes => sizes(Case, DurationMs, Options)
            };
        {error, Reason} ->
            #{error => said(Reason)}
    end.

%% erlmcp 0.5 has no batches.
batched(#{path := erlmcp05}, _, _) ->
    [];
batched(Case, Closed, Options) ->
    with(Case#{batch => ?BATCH}, fun(Subject) ->
        _ = loaded(Subject, Closed#{duration_ms := 100}),
        [loaded(Subject, Closed) || _ <- lists:seq(1, maps:get(runs, Options, ?RUNS))]
    end).

%% What cannot be started has no figures.
with(Given, Fun) ->
    case erlmcp_native_analysis_subject:start(Given#{call => size}) of
        {ok, Subject} ->
            try
                Fun(Subject)
            after
                erlmcp_native_analysis_subject:stop(Subject)
            end;
        {error, _} ->
            []
    end.

loaded(Subject, Load) ->
    {ok, Result} = erlmcp_native_analysis_load:run(Subject, Load#{drain_ms => ?DRAIN_MS}),
    Summary = erlmcp_native_analysis_load:summary(Result),
    Summary#{errors => said(maps:get(errors, Summary))}.

said(Term) -> iolist_to_binary(io_lib:format("~0p", [Term])).

median_or_null([]) -> null;
median_or_null(Values) -> median(Values).

median(Values) ->
    erlmcp_native_statistics:percentile(50, Values).

latency(Subject, Rate, DurationMs, Options) ->
    Runs = maps:get(runs, Options, ?RUNS),
    [
        at_share(Subject, Share, Rate, DurationMs, Runs)
     || Rate > 0, Share <- maps:get(shares, Options, ?SHARES)
    ].

%% Where the row is read, the median of some runs.
at_share(Subject, ?HALF, Rate, DurationMs, Runs) when Runs > 1 ->
    All = [at_share(Subject, ?HALF, Rate, DurationMs, 1) || _ <- lists:seq(1, Runs)],
    Sorted = lists:sort([{P95, Run} || #{latency_us := #{p95 := P95}} = Run <- All]),
    {_, Median} = lists:nth((Runs + 1) div 2, Sorted),
    Median#{p95_of_runs_us => [P95 || {P95, _} <- Sorted]};
at_share(Subject, Share, Rate, DurationMs, _) ->
    Load = #{
        workers => ?WORKERS,
        bytes => ?BYTES,
        rate_per_s => max(1.0, Rate * Share),
        duration_ms => DurationMs
    },
    (loaded(Subject, Load))#{share => Share, rate_per_s => Rate * Share}.

%% The largest messages want limits of their own.
sizes(Case, DurationMs, Options) ->
    Limits = #{max_frame_bytes => 64 * ?MIB, max_queue_bytes => 64 * ?MIB},
    with(limits(Case, Limits), fun(Subject) ->
        [
            (loaded(Subject, (of_size(Bytes, max(100, DurationMs div 2)))#{
                workers => ?WORKERS, bytes => Bytes
            }))#{bytes => Bytes}
         || Bytes <- maps:get(sizes, Options, ?SIZES)
        ]
    end).

%% Of the largest one for each client, however long that takes.
of_size(Bytes, _) when Bytes > ?MIB ->
    #{window => 1, count => ?WORKERS, duration_ms => ?LARGEST_MS};
of_size(Bytes, DurationMs) ->
    #{window => max(1, min(?WINDOW, ?MIB div Bytes)), duration_ms => DurationMs}.

limits(#{path := erlmcp05} = Given, _) -> Given;
limits(#{transport := tcp} = Given, Limits) -> Given#{options => Limits, server_options => Limits};
limits(#{transport := stdio} = Given, Limits) -> Given#{options => Limits};
limits(#{transport := http} = Given, _) -> Given.

rows(#{transport := Transport, path := Path, error := Why}) ->
    [
        erlmcp_native_report:row(Name, #{
            transport => Transport, path => Path, value => null, samples => 0, note => Why
        })
     || Name <- [throughput, latency_p95]
    ];
rows(#{transport := Transport, path := Path, throughput := Runs, latency := Latency} = M) ->
    #{batched := Batched} = M,
    Row = fun(Name, Fields) ->
        erlmcp_native_report:row(Name, Fields#{transport => Transport, path => Path})
    end,
    [
        Row(throughput, throughput(Batched, Runs)),
        Row(latency_p95, half(at(?HALF, Latency)))
    ].

throughput([], Runs) ->
    (rates(Runs))#{note => note(failures(Runs))};
throughput(Batched, Runs) ->
    #{value := Each} = rates(Batched),
    InBatches = io_lib:format("in batches of up to ~b calls: ~.1f MB/s", [?BATCH, float(Each)]),
    (rates(Runs))#{note => note([InBatches | failures(Batched ++ Runs)])}.

rates(Runs) ->
    Rates = [Rate / 1.0e6 || #{bytes_per_s := Rate} <- Runs],
    #{
        value => median(Rates),
        samples => lists:sum([N || #{successful_operations := N} <- Runs]),
        spread => #{min => lists:min(Rates), max => lists:max(Rates)}
    }.

failures(Runs) ->
    [io_lib:format("~b calls failed", [N]) || N <- [failed(Runs)], N > 0].

failed(Runs) -> lists:sum([N || #{total_errors := N} <- Runs]).

note(Parts) -> iolist_to_binary(lists:join("; ", Parts)).

at(Share, Latency) ->
    case [L || #{share := S} = L <- Latency, S == Share] of
        [L] -> L;
        [] -> none
    end.

half(none) ->
    #{value => null, samples => 0, note => <<"not measured">>};
half(#{latency_us := Us, total_operations := Samples, rate_per_s := Rate} = Half) ->
    #{
        value => maps:get(p95, Us) / 1000,
        samples => Samples,
        spread => maps:map(fun(_, V) -> V / 1000 end, Us),
        note => note([io_lib:format("at ~b calls/s", [round(Rate)]) | failures([Half])])
    }.

%% By transport and path, in the units of their names.
metrics(Measured) ->
    maps:from_list([
        {Transport,
            maps:from_list([
                {Path, figures(M)}
             || #{transport := T, path := Path, throughput := _} = M <- Measured, T =:= Transport
            ])}
     || Transport <- lists:usort([T || #{transport := T} <- Measured])
    ]).

figures(#{throughput := Runs, batched := Batched, latency := Latency} = M) ->
    Figures = #{
        bytes_per_s => median([R || #{bytes_per_s := R} <- Runs]),
        batched_bytes_per_s => median_or_null([R || #{bytes_per_s := R} <- Batched]),
        operations_per_s => median([R || #{operations_per_second := R} <- Runs]),
        knee_operations_per_s => knee_x(knee(M))
    },
    case at(?HALF, Latency) of
        #{latency_us := #{p50 := P50, p95 := P95, p99 := P99}} ->
            Figures#{p50_us => P50, p95_us => P95, p99_us => P99};
        none ->
            Figures
    end.

knee(#{latency := Latency}) ->
    Points = [{Rate, P99} || #{rate_per_s := Rate, latency_us := #{p99 := P99}} <- Latency],
    erlmcp_native_analysis_knee:of_latency(Points, #{factor => ?KNEE}).

knee_x({knee, {X, _}}) -> X;
knee_x(none) -> null.

knee_point({knee, {X, Y}}) -> [X, Y / 1000];
knee_point(none) -> null.

evidence(M) ->
    maps:without([subject], M).

curve(throughput, Measured) ->
    plot(<<"throughput_by_load">>, throughput, <<"Answered against offered">>,
        {<<"offered">>, <<"calls/s">>}, {<<"answered">>, <<"calls/s">>}, #{},
        [{M, answered(M), null} || #{latency := _} = M <- Measured]);
curve(latency, Measured) ->
    plot(<<"latency_by_load">>, latency, <<"Latency against load, p99">>,
        {<<"offered">>, <<"calls/s">>}, {<<"p99">>, <<"ms">>}, #{scale => log},
        [{M, p99(M), knee_point(knee(M))} || #{latency := _} = M <- Measured]);
curve(sizes, Measured) ->
    plot(<<"throughput_by_size">>, scaling, <<"Throughput against the size of messages">>,
        {<<"message">>, <<"bytes">>}, {<<"throughput">>, <<"MB/s">>}, #{scale => log},
        [{M, by_size(M), null} || #{sizes := _} = M <- Measured]).

answered(#{latency := Latency}) ->
    [[X, Y] || #{rate_per_s := X, operations_per_second := Y} <- Latency].

p99(#{latency := Latency}) ->
    [[X, P99 / 1000] || #{rate_per_s := X, latency_us := #{p99 := P99}} <- Latency].

by_size(#{sizes := Sizes}) ->
    [[Bytes, Rate / 1.0e6] || #{bytes := Bytes, bytes_per_s := Rate} <- Sizes, Rate > 0].

plot(Id, Kind, Title, {XLabel, XUnit}, {YLabel, YUnit}, Y, Lines) ->
    #{
        id => Id,
        kind => Kind,
        title => Title,
        x => #{label => XLabel, unit => XUnit, scale => log},
        y => Y#{label => YLabel, unit => YUnit},
        lines => [
            #{
                label => iolist_to_binary(io_lib:format("~s ~s", [Transport, Path])),
                transport => Transport,
                path => Path,
                points => Points,
                knee => Knee
            }
         || {#{transport := Transport, path := Path}, Points, Knee} <- Lines
        ]
    }.
