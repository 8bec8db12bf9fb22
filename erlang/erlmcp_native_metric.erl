%% @doc One metric: how it is declared, where it is counted, what its value is. Nothing here knows
%% which metrics there are; that is {@link erlmcp_native_metrics}.
-module(erlmcp_native_metric).

-export([check/1, cells/1, add/2, set/2, observe/2, value/1, series/2, total/2, present/1]).

-export_type([declaration/0, checked/0, kind/0, unit/0, label_value/0, cell/0, value/0, series/0]).

-type kind() :: counter | gauge | histogram.
%% A counter only goes up; a gauge goes up and down; a histogram keeps how many values of which
%% size there were.

-type unit() :: none | bytes | ns | us | ms | ratio.
%% Of the value. `ratio' is between 0 and 1.

-type label_value() :: atom() | binary().

-type declaration() :: #{
    name := atom(),
    kind := kind(),
    group := atom(),
    help := binary(),
    unit => unit(),
    labels => [{Label :: atom(), [atom(), ...] | any}],
    read => {module(), Function :: atom(), Args :: [term()]}
}.
%% `unit' is `none' if not said. What is counted with labels lists the values that each can have;
%% there is a series for each combination. With `read' nothing is counted: the function is called
%% when somebody wants to know. It returns a value, or, where there are labels, whose values may
%% then be `any', a list of `{LabelValues, Value}'. Without labels `undefined' says that it is not
%% known.
%% The value of a histogram is a snapshot.

-type checked() :: #{
    name := atom(),
    kind := kind(),
    group := atom(),
    help := binary(),
    unit := unit(),
    labels := [{atom(), [atom(), ...] | any}],
    read := none | {module(), atom(), [term()]}
}.

-type cell() ::
    {counter | gauge, counters:counters_ref()}
    | {histogram, erlmcp_native_histogram:histogram()}.

-type value() :: number() | erlmcp_native_histogram:snapshot().

-type series() :: [{[label_value()], value()}].
%% The values of the labels, in the order of their declaration.

-define(OPTIONAL, #{unit => none, labels => [], read => none}).

%% @doc Completes a declaration; one that is wrong is an error of the program.
-spec check(declaration()) -> checked().
check(Declaration) ->
    Complete = maps:merge(?OPTIONAL, Declaration),
    case valid(Complete) of
        true -> Complete;
        false -> error({bad_metric, Declaration})
    end.

valid(#{name := Name, kind := Kind, group := Group, help := Help, unit := Unit} = Declaration) ->
    #{labels := Labels, read := Read} = Declaration,
    map_size(Declaration) =:= 7 andalso is_atom(Name) andalso is_atom(Group) andalso
        is_binary(Help) andalso lists:member(Kind, [counter, gauge, histogram]) andalso
        lists:member(Unit, [none, bytes, ns, us, ms, ratio]) andalso
        lists:all(fun(Label) -> valid_label(Label, Read) end, Labels) andalso
        valid_read(Read);
valid(_) ->
    false.

valid_label({Label, any}, Read) -> is_atom(Label) andalso Read =/= none;
valid_label({Label, [_ | _] = Values}, _) -> lists:all(fun is_atom/1, [Label | Values]);
valid_label(_, _) -> false.

valid_read(none) -> true;
valid_read({M, F, A}) -> is_atom(M) andalso is_atom(F) andalso is_list(A);
valid_read(_) -> false.

%% @doc New cells, one for each combination of values of the labels.
-spec cells(checked()) -> [{[atom()], cell()}].
cells(#{read := none, kind := Kind, labels := Labels}) ->
    [{Values, cell(Kind)} || Values <- combinations([Values || {_, Values} <- Labels])];
cells(#{}) ->
    [].

combinations([]) -> [[]];
combinations([Values | Labels]) -> [[V | Rest] || V <- Values, Rest <- combinations(Labels)].

cell(counter) -> {counter, counters:new(1, [write_concurrency])};
%% What is set has to be in one place.
cell(gauge) -> {gauge, counters:new(1, [atomics])};
cell(histogram) -> {histogram, erlmcp_native_histogram:new()}.

-spec add(cell(), integer()) -> ok.
add({_, Ref}, N) -> counters:add(Ref, 1, N).

-spec set(cell(), integer()) -> ok.
set({gauge, Ref}, Value) -> counters:put(Ref, 1, Value).

-spec observe(cell(), non_neg_integer()) -> ok.
observe({histogram, Histogram}, Value) -> erlmcp_native_histogram:record(Histogram, Value).

-spec value(cell()) -> value().
value({histogram, Histogram}) -> erlmcp_native_histogram:snapshot(Histogram);
value({_, Ref}) -> counters:get(Ref, 1).

%% @doc All values there are now. `Cell' finds the cell of a combination.
-spec series(checked(), fun(([atom()]) -> cell())) -> series().
series(#{read := none, labels := Labels}, Cell) ->
    Combinations = combinations([Values || {_, Values} <- Labels]),
    [{Values, value(Cell(Values))} || Values <- Combinations];
series(#{read := {Module, Function, Args}, labels := Labels}, _) ->
    %% What is asked may be restarting.
    try {apply(Module, Function, Args), Labels} of
        {undefined, []} -> [];
        {Value, []} -> [{[], Value}];
        {Series, _} -> lists:sort(Series)
    catch
        exit:_ -> []
    end.

%% @doc The value of all series together.
-spec total(kind(), series()) -> value().
total(histogram, Series) ->
    Merge = fun({_, Snapshot}, Acc) -> erlmcp_native_histogram:merge(Acc, Snapshot) end,
    lists:foldl(Merge, erlmcp_native_histogram:empty(), Series);
total(_, Series) ->
    lists:sum([Value || {_, Value} <- Series]).

%% @doc A value as a person reads it.
-spec present(value()) -> number() | #{atom() => number()}.
present(#{} = Snapshot) ->
    Percentile = fun(Percent) -> erlmcp_native_histogram:percentile(Snapshot, Percent) end,
    #{
        count => erlmcp_native_histogram:count(Snapshot),
        sum => erlmcp_native_histogram:sum(Snapshot),
        mean => erlmcp_native_histogram:mean(Snapshot),
        p50 => Percentile(50),
        p90 => Percentile(90),
        p99 => Percentile(99),
        p999 => Percentile(99.9),
        max => erlmcp_native_histogram:max(Snapshot)
    };
present(Value) ->
    Value.
