%% @doc Medians, ratios and checks; the table and the file that they end in.
-module(bench_report).

-export([result/2, median/3, brief/1, print/1, write/2]).

-export_type([row/0, result/0]).

-type row() :: #{
    'case' := atom(),
    path := atom(),
    metric := binary(),
    unit := binary(),
    median := number(),
    min := number(),
    max := number(),
    runs := pos_integer()
}.

-type ratio() :: #{
    'case' := atom(), 'of' := atom(), to := atom(), ratio := float(), bar := number() | none
}.

-type result() :: #{rows := [row()], ratios := [ratio()], checks := [bench:check()]}.

%% @doc What the samples of a group amount to. A sample holds one value per case of the group.
-spec result(bench:group(), #{atom() => [[number()]]}) -> result().
result(#{cases := Cases, variants := Variants, ratios := Ratios} = Group, Samples) ->
    Paths = [Path || #{path := Path} <- Variants, is_map_key(Path, Samples)],
    Rows = [
        row(Case, Path, [lists:nth(Index, Values) || Values <- maps:get(Path, Samples)])
     || {Index, Case} <- lists:zip(lists:seq(1, length(Cases)), Cases), Path <- Paths
    ],
    #{
        rows => Rows,
        ratios => lists:append([ratio(Ratio, Cases, Rows) || Ratio <- Ratios]),
        checks => (maps:get(checks, Group, fun(_) -> [] end))(Rows)
    }.

row(#{name := Name, metric := Metric, unit := Unit}, Path, Values) ->
    Sorted = lists:sort(Values),
    #{
        'case' => Name,
        path => Path,
        metric => Metric,
        unit => Unit,
        median => middle(Sorted),
        min => hd(Sorted),
        max => lists:last(Sorted),
        runs => length(Sorted)
    }.

middle(Sorted) ->
    Length = length(Sorted),
    Upper = lists:nth(Length div 2 + 1, Sorted),
    case Length rem 2 of
        1 -> Upper;
        0 -> (lists:nth(Length div 2, Sorted) + Upper) / 2
    end.

ratio({Name, Of, To, Bar}, Cases, Rows) ->
    [Better] = [Better || #{name := Case, better := Better} <- Cases, Case =:= Name],
    case {median(Name, Of, Rows), median(Name, To, Rows)} of
        {A, B} when A > 0, B > 0, is_number(A), is_number(B) ->
            Ratio =
                case Better of
                    lower -> B / A;
                    higher -> A / B
                end,
            [#{'case' => Name, 'of' => Of, to => To, ratio => Ratio, bar => Bar}];
        _ ->
            []
    end.

%% @doc The median of a case on a path; `undefined' where it was not measured.
-spec median(atom(), atom(), [row()]) -> number() | undefined.
median(Name, Path, Rows) ->
    case [M || #{'case' := C, path := P, median := M} <- Rows, C =:= Name, P =:= Path] of
        [Median] -> Median;
        [] -> undefined
    end.

%% @doc The medians on one line.
-spec brief(result()) -> iodata().
brief(#{rows := Rows}) ->
    lists:join(", ", [
        io_lib:format("~s ~s ~s", [Path, number(Median), Unit])
     || #{path := Path, median := Median, unit := Unit} <- Rows
    ]).

%% @doc Prints everything as tables.
-spec print([result()]) -> ok.
print(Results) ->
    table(
        ["case", "path", "metric", "unit", "median", "min", "max", "runs"],
        [
            [C, P, M, U, number(Median), number(Min), number(Max), Runs]
         || #{rows := Rows} <- Results,
            #{
                'case' := C,
                path := P,
                metric := M,
                unit := U,
                median := Median,
                min := Min,
                max := Max,
                runs := Runs
            } <- Rows
        ]
    ),
    table(
        ["case", "of", "to", "ratio", "bar", ""],
        [
            [C, Of, To, io_lib:format("~.2f", [Ratio]) | bar(Ratio, Bar)]
         || #{ratios := Ratios} <- Results,
            #{'case' := C, 'of' := Of, to := To, ratio := Ratio, bar := Bar} <- Ratios
        ]
    ),
    table(
        ["check", "ok", "value", "unit"],
        [
            [C, Ok, number(Value), Unit]
         || #{checks := Checks} <- Results,
            #{'case' := C, ok := Ok, value := Value, unit := Unit} <- Checks
        ]
    ).

bar(_, none) -> ["", ""];
bar(Ratio, Bar) when Ratio >= Bar -> [number(Bar), "reached"];
bar(_, Bar) -> [number(Bar), "missed"].

table(_, []) ->
    ok;
table(Head, Rows) ->
    Cells = [[cell(Cell) || Cell <- Row] || Row <- [Head | Rows]],
    Widths = lists:foldl(
        fun(Row, Acc) -> lists:zipwith(fun erlang:max/2, [length(C) || C <- Row], Acc) end,
        [0 || _ <- Head],
        Cells
    ),
    io:nl(),
    lists:foreach(
        fun(Row) ->
            Line = [[string:pad(Cell, Width), "  "] || {Cell, Width} <- lists:zip(Row, Widths)],
            io:format("~s~n", [string:trim(lists:flatten(Line), trailing)])
        end,
        Cells
    ).

cell(Atom) when is_atom(Atom) -> atom_to_list(Atom);
cell(Integer) when is_integer(Integer) -> integer_to_list(Integer);
cell(Text) -> binary_to_list(iolist_to_binary(Text)).

number(Value) when is_integer(Value) -> integer_to_list(Value);
number(Value) when is_float(Value), abs(Value) >= 1000 -> integer_to_list(round(Value));
number(Value) when is_float(Value), abs(Value) >= 10 -> float_to_list(Value, [{decimals, 1}]);
number(Value) when is_float(Value) -> float_to_list(Value, [{decimals, 3}]);
number(Value) when is_binary(Value) -> Value.

%% @doc Writes the results, with what is needed to read them later.
-spec write(file:filename(), [result()]) -> ok.
write(File, Results) ->
    Document = #{
        machine => bench_os:machine(),
        otp => otp(),
        versions => versions(),
        commit => environment("BENCH_COMMIT"),
        rows => collect(rows, Results),
        ratios => [maps:remove(bar, Ratio) || Ratio <- collect(ratios, Results)],
        checks => collect(checks, Results)
    },
    ok = filelib:ensure_dir(File),
    ok = file:write_file(File, jsx:prettify(jsx:encode(Document))),
    io:format("~nwritten to ~s~n", [File]).

collect(Key, Results) ->
    lists:append([maps:get(Key, Result) || Result <- Results]).

otp() ->
    Release = erlang:system_info(otp_release),
    File = filename:join([code:root_dir(), "releases", Release, "OTP_VERSION"]),
    case file:read_file(File) of
        {ok, Version} -> string:trim(Version);
        {error, _} -> list_to_binary(Release)
    end.

versions() ->
    Applications = [erlmcp_native, jsx, jiffy, stdlib],
    _ = [application:load(Application) || Application <- Applications],
    maps:from_list(
        [{rustc, environment("BENCH_RUSTC")}] ++
            [
                {Application, list_to_binary(Version)}
             || Application <- Applications,
                {ok, Version} <- [application:get_key(Application, vsn)]
            ]
    ).

environment(Name) ->
    list_to_binary(os:getenv(Name, "unknown")).
