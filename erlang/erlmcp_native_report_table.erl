%% @doc A report for a terminal.
-module(erlmcp_native_report_table).

-export([text/1]).

-define(PATHS, [nif, port, beam, erlmcp05]).

%% @doc The figures as tables, the findings as paragraphs.
-spec text(erlmcp_native_report:report()) -> unicode:chardata().
text(#{rows := Rows, findings := Findings} = Report) ->
    {Reached, Missed} = erlmcp_native_report:bars(Rows),
    Paths = [P || P <- ?PATHS, lists:any(fun(#{path := Path}) -> Path =:= P end, Rows)],
    [
        [
            ["\n", Title, "\n", table(Paths, Cases)]
         || {Title, [_ | _] = Cases} <- erlmcp_native_report:grouped(Rows)
        ],
        "\nFindings\n",
        [finding(F) || F <- Findings],
        ["  none: nothing crossed a threshold\n" || Findings =:= []],
        [
            io_lib:format("\n~s could not be measured: ~ts\n", [Name, Why])
         || #{name := Name, failed := Why} <- maps:get(analyses, Report)
        ],
        io_lib:format("\n~b of ~b bars reached\n", [
            length(Reached), length(Reached) + length(Missed)
        ])
    ].

table(Paths, Cases) ->
    Head = [""] ++ [head(P) || P <- Paths] ++ ["bar", ""],
    Lines = [Head | [line(Name, T, Cells, Paths) || {{Name, T}, Cells} <- Cases]],
    Widths = lists:foldl(
        fun(Line, Acc) -> lists:zipwith(fun(C, W) -> max(string:length(C), W) end, Line, Acc) end,
        [0 || _ <- Head],
        Lines
    ),
    [["  ", padded(Line, Widths), "\n"] || Line <- Lines].

head(erlmcp05) -> "erlmcp 0.5";
head(Path) -> atom_to_list(Path).

padded([First | Rest], [Width | Widths]) ->
    Padded = [string:pad(C, W, leading) || {C, W} <- lists:zip(Rest, Widths)],
    lists:join("  ", [string:pad(First, Width) | Padded]).

line(Name, Transport, Cells, Paths) ->
    #{label := Label, unit := Unit} = erlmcp_native_report_rows:row(Name),
    Bar = erlmcp_native_report_rows:bar(Name, Transport),
    [[Label, transport(Transport)]] ++
        [value(of_path(P, Cells), Unit) || P <- Paths] ++
        [erlmcp_native_report_number:text(Bar, Unit), mark(of_path(nif, Cells))].

transport(Transport) when Transport =:= registry; Transport =:= runtime -> "";
transport(Transport) -> [", ", atom_to_list(Transport)].

of_path(nif, Cells) -> [C || #{path := P} = C <- Cells, P =:= nif orelse P =:= all];
of_path(Path, Cells) -> [C || #{path := P} = C <- Cells, P =:= Path].

value([#{value := Value} | _], Unit) -> erlmcp_native_report_number:text(Value, Unit);
value([], _) -> "".

mark([#{reached := true} | _]) -> "reached";
mark([#{reached := false} | _]) -> "missed";
mark(_) -> "".

finding(#{what := What, severity := Severity, path := Path, transport := Transport} = Finding) ->
    #{evidence := #{value := Value, unit := Unit, samples := Samples}} = Finding,
    #{threshold := #{name := Name, value := Threshold}, recommendation := Advice} = Finding,
    #{text := Text, options := Options} = Advice,
    [
        io_lib:format("  ~s: ~ts (~s~s)\n", [Severity, What, Path, transport(Transport)]),
        io_lib:format("    ~ts from ~b samples, ~s is ~ts\n", [
            erlmcp_native_report_number:text(Value, Unit), Samples, Name,
            erlmcp_native_report_number:text(Threshold, Unit)
        ]),
        io_lib:format("    ~ts Options: ~ts\n", [
            Text,
            lists:join(", ", [
                io_lib:format("~s of ~s", [Option, Of])
             || #{option := Option, scope := Of} <- Options
            ])
        ])
    ].
