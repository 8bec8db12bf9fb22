%% @doc A report as one HTML page that needs nothing else: no script, no font, no network. The plots
%% are SVG, each with its figures as a table below.
-module(erlmcp_native_report_html).

-export([page/1, escape/1]).

-define(PATHS, [nif, port, beam, erlmcp05]).

%% @doc The page, in UTF-8.
-spec page(erlmcp_native_report:report()) -> binary().
page(#{meta := #{title := Title} = Meta, rows := Rows} = Report) ->
    Paths = [P || P <- ?PATHS, lists:any(fun(#{path := Path}) -> Path =:= P end, Rows)],
    unicode:characters_to_binary([
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
        "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'; "
        "style-src 'unsafe-inline'; img-src data:\">"
        "<link rel=icon href=\"data:,\"><title>",
        escape(Title),
        "</title><style>",
        erlmcp_native_report_style:css(),
        "</style></head><body><main>",
        head(Report, Paths),
        figures(Rows, Paths),
        comparison(maps:get(comparison, Report, null)),
        findings(Report),
        plots(Report),
        failures(Report),
        foot(Meta),
        "</main></body></html>\n"
    ]).

head(#{meta := #{title := Title} = Meta, rows := Rows, findings := Findings}, Paths) ->
    {Reached, Missed} = erlmcp_native_report:bars(Rows),
    [
        "<header><h1>", escape(Title), "</h1>",
        "<p class=lead>", verdict(length(Reached), length(Missed)), " ",
        found(length(Findings)), "</p>",
        "<p class=facts>", escape(facts(Meta)), "</p>",
        "<ul class=legend>",
        [["<li class=p-", atom_to_list(P), ">", path_long(P), "</li>"] || P <- Paths],
        "</ul><p class=facts>In the strip beside a figure each path is a point and the bar a line, "
        "on a logarithmic scale. <i>n</i> is the number of samples.</p></header>"
    ].

verdict(0, 0) -> "No bar was looked at.";
verdict(Reached, 0) -> io_lib:format("All ~b bars are reached.", [Reached]);
verdict(Reached, Missed) ->
    io_lib:format("~b of ~b bars are reached, ~b missed.", [Reached, Reached + Missed, Missed]).

found(0) -> "No bottleneck crossed a threshold.";
found(1) -> "One bottleneck was found.";
found(Count) -> io_lib:format("~b bottlenecks were found.", [Count]).

facts(#{machine := #{cpu := Cpu, cores := Cores} = Machine, versions := Versions} = Meta) ->
    #{date := Date, commit := Commit, duration_ms := Ms} = Meta,
    lists:join(" · ", [
        Date,
        [Cpu, io_lib:format(", ~b cores", [Cores])],
        maps:get(system, Machine, <<>>),
        lists:join(", ", [[atom_to_list(N), " ", V] || {N, V} <- maps:to_list(Versions)]),
        io_lib:format("took ~b s", [Ms div 1000])
    ] ++ [["commit ", binary:part(Commit, 0, min(12, byte_size(Commit)))] || Commit =/= null]).

path(erlmcp05) -> "erlmcp 0.5";
path(all) -> "every path";
path(Path) -> atom_to_list(Path).

path_long(nif) -> "<b>nif</b>&ensp;Rust in the VM";
path_long(port) -> "<b>port</b>&ensp;the same in a program of its own";
path_long(beam) -> "<b>beam</b>&ensp;Erlang alone";
path_long(erlmcp05) -> "<b>erlmcp 0.5</b>&ensp;its technique, in the same run".

%% The figures, a table for each group; on a phone each row is a card.
figures(Rows, Paths) ->
    [
        [
            "<section><h2>", escape(Title), "</h2>",
            "<table class=rows><thead><tr><th scope=col>Figure<th><span class=soft></span>",
            [["<th scope=col class=n>", path(P)] || P <- Paths],
            "<th scope=col class=n>Bar<th scope=col class=n>Reached</tr></thead><tbody>",
            [figure(Name, Transport, Cells, Paths) || {{Name, Transport}, Cells} <- Cases],
            "</tbody></table></section>"
        ]
     || {Title, [_ | _] = Cases} <- erlmcp_native_report:grouped(Rows)
    ].

figure(Name, Transport, Cells, Paths) ->
    #{label := Label, unit := Unit} = erlmcp_native_report_rows:row(Name),
    Bar = erlmcp_native_report_rows:bar(Name, Transport),
    [
        "<tr><td class=what>", escape(Label), soft(transport(Transport)), soft(words(Unit, Label)),
        [["<small>", escape(Note), "</small>"] || Note <- notes(Cells)],
        "<td class=strip>", strip(Cells, Bar),
        [cell(P, Cells, Unit) || P <- Paths],
        "<td class=n data-c=bar>", bar(Bar, Name, Unit),
        "<td class=\"n mark\" data-c=\"bar on nif\">", mark(Cells)
    ].

transport(Transport) when Transport =:= registry; Transport =:= runtime -> [];
transport(Transport) -> atom_to_list(Transport).

%% A unit that is a word stands beside what is counted, not in each cell.
words(Unit, Label) ->
    [Unit || not is_symbol(Unit), string:find(string:lowercase(Label), Unit) =:= nomatch].

symbol(Unit) ->
    case is_symbol(Unit) of
        true -> Unit;
        false -> <<>>
    end.

is_symbol(Unit) -> byte_size(Unit) =< 4.

soft([]) -> [];
soft(Text) -> [" <span class=soft>", escape(Text), "</span>"].

%% What is said of several paths is said once.
notes(Cells) ->
    Notes = lists:usort([Note || #{note := Note} <- Cells, Note =/= null]),
    [[lists:join(", ", of_note(Note, Cells)), ": ", Note] || Note <- Notes].

of_note(Note, Cells) -> [path(P) || #{path := P, note := N} <- Cells, N =:= Note].

cell(Path, Cells, Unit) ->
    ["<td class=\"n v p-", atom_to_list(Path), "\" data-c=\"", path(Path), "\">",
        measured(of_path(Path, Cells), Unit)].

%% What is the same on every path stands where the bar is looked at.
of_path(nif, Cells) -> [C || #{path := P} = C <- Cells, P =:= nif orelse P =:= all];
of_path(Path, Cells) -> [C || #{path := P} = C <- Cells, P =:= Path].

measured([#{value := null} | _], _) ->
    "<span class=soft>&ndash;</span>";
measured([#{value := Value, samples := Samples} = Row | _], Unit) ->
    [
        "<span title=\"", spread(Row), "\">",
        escape(erlmcp_native_report_number:text(Value, symbol(Unit))),
        "</span><small>n ", erlmcp_native_report_number:text(Samples), "</small>"
    ];
measured([], _) ->
    "<span class=soft>&ndash;</span>".

spread(#{spread := null, samples := Samples}) ->
    io_lib:format("~b samples", [Samples]);
spread(#{spread := Spread, samples := Samples}) ->
    escape([
        io_lib:format("~b samples", [Samples])
        | [
            [", ", atom_to_list(K), " ", erlmcp_native_report_number:text(V)]
         || {K, V} <- lists:keysort(2, maps:to_list(Spread))
        ]
    ]).

bar(null, _, _) -> "<span class=soft>&ndash;</span>";
bar(Bar, Name, Unit) ->
    #{better := Better} = erlmcp_native_report_rows:row(Name),
    [sign(Better, Bar), escape(erlmcp_native_report_number:text(Bar, symbol(Unit)))].

sign(lower, Bar) when Bar == 0 -> "";
sign(lower, _) -> "&le;&thinsp;";
sign(higher, _) -> "&ge;&thinsp;".

mark(Cells) ->
    case [Reached || #{reached := Reached} <- of_path(nif, Cells)] of
        [true | _] -> "<span class=ok>&#10003; reached</span>";
        [false | _] -> "<span class=no>&#10007; missed</span>";
        _ -> "<span class=soft>&ndash;</span>"
    end.

%% A point for each path and a line for the bar, on a logarithmic scale. The figures beside it
%% say the same.
strip(Cells, Bar) ->
    Values = [V || #{value := V} <- Cells, V =/= null] ++ [Bar || Bar =/= null],
    Scale = erlmcp_native_report_scale:new(log, Values),
    [
        "<span class=s aria-hidden=true>",
        [["<b style=\"left:", place(Bar, Scale), "\"></b>"] || Bar =/= null],
        [
            ["<i class=p-", atom_to_list(P), " style=\"left:", place(V, Scale), "\"></i>"]
         || #{path := P, value := V} <- lists:reverse(Cells), V =/= null
        ],
        "</span>"
    ].

place(Value, Scale) ->
    Place = erlmcp_native_report_scale:at(Value, Scale),
    [float_to_list(100 * Place, [{decimals, 1}]), "%"].

%% Two runs. What is the same is there for who asks.
comparison(null) ->
    [];
comparison(#{old := Old, changes := Changes}) ->
    {Same, Changed} = lists:partition(fun(#{verdict := V}) -> V =:= same end, Changes),
    [
        "<section><h2>Before and after</h2><p class=soft>Before: ", escape(when_was(Old)),
        ". The line in a strip is what was before, the point what is now. Changes under 10% and ",
        "those within the spread of the runs are not counted as such.</p>",
        changes(Changed),
        io_lib:format("<details><summary>~b figures are the same</summary>", [length(Same)]),
        changes(Same),
        "</details></section>"
    ].

changes([]) ->
    "<p class=soft>None.</p>";
changes(Changes) ->
    [
        "<table class=rows><thead><tr><th scope=col>Figure<th><span class=soft></span>",
        "<th scope=col class=n>Before<th scope=col class=n>After<th scope=col class=n>Change"
        "</tr></thead><tbody>",
        [change(Change) || Change <- Changes],
        "</tbody></table>"
    ].

when_was(#{date := Date, commit := null}) -> Date;
when_was(#{date := Date, commit := Commit}) -> [Date, ", commit ", Commit].

change(#{row := Name, transport := Transport, path := Path, old := Old, new := New} = Change) ->
    #{label := Label, unit := Unit} = erlmcp_native_report_rows:row(Name),
    #{change_percent := Percent, verdict := Verdict} = Change,
    Scale = erlmcp_native_report_scale:new(log, [V || V <- [Old, New], V =/= null]),
    [
        "<tr class=p-", atom_to_list(Path), "><td class=what>", escape(Label),
        soft(transport(Transport)), soft(path(Path)), soft(words(Unit, Label)),
        "<td class=strip><span class=s aria-hidden=true>",
        [["<b style=\"left:", place(Old, Scale), "\"></b>"] || Old =/= null],
        [["<i style=\"left:", place(New, Scale), "\"></i>"] || New =/= null],
        "</span><td class=n data-c=before>",
        escape(erlmcp_native_report_number:text(Old, symbol(Unit))), "<td class=n data-c=after>",
        escape(erlmcp_native_report_number:text(New, symbol(Unit))),
        "<td class=\"n mark\" data-c=change>", changed(Percent, Verdict)
    ].

changed(null, Verdict) -> word(Verdict);
changed(Percent, Verdict) -> [signed(Percent), "% ", word(Verdict)].

signed(Percent) when Percent > 0 -> ["+", integer_to_list(round(Percent))];
signed(Percent) -> ["&minus;", integer_to_list(abs(round(Percent)))].

word(better) -> "<span class=ok>better</span>";
word(worse) -> "<span class=no>worse</span>";
word(same) -> "<span class=soft>same</span>".

findings(#{findings := []}) ->
    "<section><h2>Findings</h2><p class=soft>Nothing crossed a threshold.</p></section>";
findings(#{findings := Findings}) ->
    {First, Others} = lists:partition(
        fun(#{path := Path}) -> Path =:= nif orelse Path =:= all end, Findings
    ),
    [
        "<section><h2>Findings</h2>",
        [finding(F) || F <- First],
        [
            [
                io_lib:format("<details><summary>~b on other paths</summary>", [length(Others)]),
                [finding(F) || F <- Others],
                "</details>"
            ]
         || Others =/= []
        ],
        "</section>"
    ].

finding(#{what := What, severity := Severity, evidence := Evidence} = Finding) ->
    #{threshold := #{name := Name, value := Threshold}, recommendation := Advice} = Finding,
    #{path := Path, transport := Transport} = Finding,
    #{text := Text, options := Options} = Advice,
    #{value := Value, unit := Unit, samples := Samples} = Evidence,
    [
        "<article class=finding><h3><span class=\"tag ", atom_to_list(Severity), "\">",
        atom_to_list(Severity), "</span>", escape(What), "</h3><dl><dt>Where<dd>",
        [[atom_to_list(Transport), ", "] || transport(Transport) =/= []], path(Path),
        "<dt>Evidence<dd>", escape(erlmcp_native_report_number:text(Value, Unit)),
        io_lib:format(" (~b samples)", [Samples]),
        "<dt>Threshold<dd><code>", atom_to_list(Name), "</code> ",
        escape(erlmcp_native_report_number:text(Threshold, Unit)),
        "<dt>What helps<dd>", escape(Text), " ",
        lists:join(" ", [
            ["<code>", atom_to_list(Option), "</code> of ", escape(owner(Of))]
         || #{option := Option, scope := Of} <- Options
        ]),
        "</dl></article>"
    ].

owner(Of) -> string:replace(atom_to_list(Of), "_", " ", all).

plots(#{curves := [], series := []}) ->
    [];
plots(#{curves := Curves, series := Series}) ->
    [
        "<section><h2>Curves</h2><div class=plots>", [drawn(P) || P <- Curves, drawable(P)],
        "</div></section>",
        [
            ["<section><h2>Over time</h2><div class=plots>", [drawn(P) || P <- Series, drawable(P)],
                "</div></section>"]
         || Series =/= []
        ]
    ].

%% An analysis that could not measure is not passed over.
failures(#{analyses := Analyses}) ->
    case [{Name, Why} || #{name := Name, failed := Why} <- Analyses] of
        [] ->
            [];
        Failed ->
            [
                "<section><h2>Analyses that failed</h2>",
                [
                    ["<p class=no>", escape(io_lib:format("~s: ~ts", [Name, Why])), "</p>"]
                 || {Name, Why} <- Failed
                ],
                "</section>"
            ]
    end.

drawable(#{lines := Lines}) ->
    lists:any(fun(#{points := Points}) -> Points =/= [] end, Lines).

drawn(#{title := Title} = Plot) ->
    [
        "<figure><figcaption>", escape(Title), "</figcaption>",
        erlmcp_native_report_svg:plot(Plot),
        "<details><summary>Figures</summary><div class=scroll tabindex=0>", data(Plot),
        "</div></details></figure>"
    ].

data(#{x := #{label := XLabel, unit := XUnit}, y := #{unit := YUnit}, lines := Lines}) ->
    Xs = lists:usort([X || #{points := Points} <- Lines, [X, _] <- thinned(Points)]),
    [
        "<table><thead><tr><th scope=col>", escape([XLabel, in(XUnit)]),
        [["<th scope=col class=n>", escape([L, in(YUnit)])] || #{label := L} <- Lines],
        "</tr></thead><tbody>",
        [
            [
                "<tr><th scope=row>", erlmcp_native_report_number:short(X),
                [["<td class=n>", value_at(X, Points)] || #{points := Points} <- Lines]
            ]
         || X <- Xs
        ],
        "</tbody></table>"
    ].

in(<<>>) -> [];
in(Unit) -> [" (", erlmcp_native_report_number:unit(Unit), ")"].

value_at(X, Points) ->
    case [Y || [PX, Y] <- Points, PX == X] of
        [Y | _] -> erlmcp_native_report_number:text(Y);
        [] -> ""
    end.

%% A table of thousands of points tells nobody anything.
thinned(Points) when length(Points) =< 60 -> Points;
thinned(Points) ->
    Each = length(Points) div 30,
    [P || {I, P} <- lists:zip(lists:seq(0, length(Points) - 1), Points), I rem Each =:= 0].

foot(#{command := Command}) ->
    [
        "<footer><p>Made by <code>", escape(Command), "</code>. The technique of erlmcp 0.5 was "
        "written anew for comparison and measured in the same run. Bars are those of the path nif; "
        "a missed one is shown as missed.</p></footer>"
    ].

%% @doc Text that may stand in an element or in an attribute with double quotes.
-spec escape(unicode:chardata()) -> unicode:chardata().
escape(Text) ->
    lists:map(fun escaped/1, unicode:characters_to_list(Text)).

escaped($<) -> "&lt;";
escaped($>) -> "&gt;";
escaped($&) -> "&amp;";
escaped($") -> "&quot;";
escaped(Character) -> Character.
