%% @doc What the application counts and measures, native parts included, in one place.
%%
%% Each metric is declared once, by the module that counts it, in its `metrics/0'; those modules are
%% listed here. The declarations are read when the application starts. After that counting is
%% a look at a persistent term and an addition to a counter that processes do not share with
%% each other. Of what is not declared, and before the application has started, nothing is counted.
%%
%% ```
%% metrics() ->
%%     [#{name => breaker_opened, kind => counter, group => breaker,
%%        help => <<"Circuit breakers that have opened">>}].
%%
%% ok = erlmcp_native_metrics:add(breaker_opened, 1).
%% '''
-module(erlmcp_native_metrics).

-export([start/0, declare/1, declared/0]).
-export([add/2, add/3, set/2, set/3, observe/2, observe/3, started/0, observe_since/3]).
-export([cell/2, add_to/2, observe_in/2]).
-export([recording/1, is_recording/0]).
-export([overview/0, overview/1, families/1, family/1, snapshot/1, snapshot/2]).

-export_type([selection/0, metric/0, family/0]).

-type selection() :: all | atom() | [atom()].
%% Names of metrics, and groups of them.

-type metric() :: #{
    kind := erlmcp_native_metric:kind(),
    group := atom(),
    unit := erlmcp_native_metric:unit(),
    help := binary(),
    value := number() | #{atom() => number()},
    series => [{#{atom() => erlmcp_native_metric:label_value()}, number() | #{atom() => number()}}]
}.
%% `value' of a histogram is a map of `count', `sum', `mean', `p50', `p90', `p99', `p999', `max'.
%% Where a metric has labels, `value' is that of all together and `series' has each.

-type family() :: #{
    name := atom(),
    kind := erlmcp_native_metric:kind(),
    group := atom(),
    unit := erlmcp_native_metric:unit(),
    help := binary(),
    labels := [atom()],
    series := erlmcp_native_metric:series()
}.

-callback metrics() -> [erlmcp_native_metric:declaration()].

%% Read for each addition: an atom is found sooner than a tuple.
-define(RECORDING, erlmcp_native_metrics_recording).
-define(DECLARED, ?MODULE).
-define(CELL(Name, Labels), [?MODULE, Name | Labels]).

%% The modules that have `metrics/0', one a line.
-define(DECLARING, [
    erlmcp_native_beam_count,
    erlmcp_native_breakers,
    erlmcp_native_http_client_measure,
    erlmcp_native_http_measure,
    erlmcp_native_http_tables,
    erlmcp_native_failover_proc,
    erlmcp_native_lookout,
    erlmcp_native_metrics_processes,
    erlmcp_native_metrics_vm,
    erlmcp_native_pool_measure,
    erlmcp_native_registry_counters
]).

%% @private Called when the application starts. What was counted before a restart stays.
-spec start() -> ok.
start() ->
    ok = recording(application:get_env(erlmcp_native, histograms, true) =/= false),
    declare(lists:append([Module:metrics() || Module <- ?DECLARING])).

%% @doc Declares metrics, before anything counts them. What has been declared already stays, with
%% what was counted. Costs a global garbage collection: not for use while running.
-spec declare([erlmcp_native_metric:declaration()]) -> ok.
declare(Declarations) ->
    Known = declared(),
    Checked = [erlmcp_native_metric:check(Declaration) || Declaration <- Declarations],
    Named = maps:from_list([{Name, Declaration} || #{name := Name} = Declaration <- Checked]),
    New = maps:without(maps:keys(Known), Named),
    Put = fun({Labels, Cell}, Name) ->
        ok = persistent_term:put(?CELL(Name, Labels), Cell),
        Name
    end,
    maps:foreach(
        fun(Name, Declaration) ->
            lists:foldl(Put, Name, erlmcp_native_metric:cells(Declaration))
        end,
        New
    ),
    persistent_term:put(?DECLARED, maps:merge(Known, New)).

%% @doc All declarations, by name; those of the native core are not among them.
-spec declared() -> #{atom() => erlmcp_native_metric:checked()}.
declared() ->
    persistent_term:get(?DECLARED, #{}).

%% @equiv add(Name, [], N)
-spec add(atom(), integer()) -> ok.
add(Name, N) ->
    add(Name, [], N).

%% @doc Adds to a counter, or, also less than 0, to a gauge.
-spec add(atom(), Labels :: [atom()], integer()) -> ok.
add(Name, Labels, N) ->
    case persistent_term:get(?CELL(Name, Labels), none) of
        none -> ok;
        Cell -> erlmcp_native_metric:add(Cell, N)
    end.

%% @doc What {@link add_to/2} adds to, for who adds often and can keep it.
-spec cell(atom(), Labels :: [atom()]) -> erlmcp_native_metric:cell() | none.
cell(Name, Labels) ->
    persistent_term:get(?CELL(Name, Labels), none).

%% @doc As {@link observe/3}, without looking for it.
-spec observe_in(erlmcp_native_metric:cell() | none, non_neg_integer()) -> ok.
observe_in(none, _) ->
    ok;
observe_in(Cell, Value) ->
    case is_recording() of
        true -> erlmcp_native_metric:observe(Cell, Value);
        false -> ok
    end.

%% @doc As {@link add/3}, without looking for it.
-spec add_to(erlmcp_native_metric:cell() | none, integer()) -> ok.
add_to(none, _) -> ok;
add_to(Cell, N) -> erlmcp_native_metric:add(Cell, N).

%% @equiv set(Name, [], Value)
-spec set(atom(), integer()) -> ok.
set(Name, Value) ->
    set(Name, [], Value).

%% @doc Sets a gauge.
-spec set(atom(), Labels :: [atom()], integer()) -> ok.
set(Name, Labels, Value) ->
    case persistent_term:get(?CELL(Name, Labels), none) of
        none -> ok;
        Cell -> erlmcp_native_metric:set(Cell, Value)
    end.

%% @equiv observe(Name, [], Value)
-spec observe(atom(), non_neg_integer()) -> ok.
observe(Name, Value) ->
    observe(Name, [], Value).

%% @doc Records a value in a histogram, unless that is switched off.
-spec observe(atom(), Labels :: [atom()], non_neg_integer()) -> ok.
observe(Name, Labels, Value) ->
    case is_recording() andalso persistent_term:get(?CELL(Name, Labels), none) of
        false -> ok;
        none -> ok;
        Cell -> erlmcp_native_metric:observe(Cell, Value)
    end.

%% @doc The beginning of what is to be measured, in microseconds of monotonic time; `off' where
%% nothing is recorded.
-spec started() -> integer() | off.
started() ->
    case is_recording() of
        true -> erlang:monotonic_time(microsecond);
        false -> off
    end.

%% @doc Records the microseconds since {@link started/0}.
-spec observe_since(atom(), Labels :: [atom()], integer() | off) -> ok.
observe_since(_, _, off) ->
    ok;
observe_since(Name, Labels, Started) ->
    observe(Name, Labels, erlang:monotonic_time(microsecond) - Started).

%% @doc Switches the recording of histograms on or off; counters and gauges count always. The
%% application setting `histograms' says what it is at the start.
-spec recording(boolean()) -> ok.
recording(On) when is_boolean(On) ->
    ok = erlmcp_native_metrics_core:set_recording(On),
    persistent_term:put(?RECORDING, On).

%% @doc Whether histograms are recorded.
-spec is_recording() -> boolean().
is_recording() ->
    persistent_term:get(?RECORDING, false).

%% @equiv overview(all)
-spec overview() -> #{atom() => metric()}.
overview() ->
    overview(all).

%% @doc Metrics, by name. Those of the core are absent on a node that does not run it.
-spec overview(selection()) -> #{atom() => metric()}.
overview(Selection) ->
    maps:from_list([{Name, metric(Family)} || #{name := Name} = Family <- families(Selection)]).

metric(#{labels := Labels, series := Series, kind := Kind} = Family) ->
    Total = erlmcp_native_metric:total(Kind, Series),
    Metric = maps:with([kind, group, unit, help], Family),
    labelled(Labels, Series, Metric#{value => erlmcp_native_metric:present(Total)}).

labelled([], _, Metric) ->
    Metric;
labelled(Labels, Series, Metric) ->
    Metric#{
        series => [
            {maps:from_list(lists:zip(Labels, Values)), erlmcp_native_metric:present(Value)}
         || {Values, Value} <- Series
        ]
    }.

%% @doc Metrics as they are, for who works on them further, sorted by name.
-spec families(selection()) -> [family()].
families(Selection) ->
    Core = [Family || Family <- core(Selection), selected(Selection, Family)],
    Wanted = [D || D <- maps:values(declared()), selected(Selection, D)],
    All = lists:foldl(fun join/2, named(Core), [read(Declaration) || Declaration <- Wanted]),
    [Family || {_, Family} <- lists:sort(maps:to_list(All)), is_known(Family)].

named(Families) ->
    maps:from_list([{Name, Family} || #{name := Name} = Family <- Families]).

%% What the path `beam' counts is declared a second time, for nodes without the core.
join(#{name := Name, series := Series} = Family, All) ->
    case All of
        #{Name := #{series := Core} = Known} -> All#{Name := Known#{series := Core ++ Series}};
        #{} -> All#{Name => Family}
    end.

is_known(#{labels := [], series := []}) -> false;
is_known(_) -> true.

%% To read them means asking another program.
core(Selection) ->
    case is_ours_alone(Selection) of
        true -> [];
        false -> erlmcp_native_metrics_core:families()
    end.

is_ours_alone(all) -> false;
is_ours_alone(Names) when is_list(Names) -> lists:all(fun is_ours_alone/1, Names);
is_ours_alone(Name) ->
    case declared() of
        #{Name := #{labels := [{path, [beam]} | _]}} -> false;
        #{Name := _} -> true;
        #{} -> false
    end.

read(#{name := Name, labels := Labels} = Declaration) ->
    Cell = fun(Values) -> persistent_term:get(?CELL(Name, Values)) end,
    (maps:remove(read, Declaration))#{
        labels := [Label || {Label, _} <- Labels],
        series => erlmcp_native_metric:series(Declaration, Cell)
    }.

selected(all, _) -> true;
selected(List, #{name := Name, group := Group}) when is_list(List) ->
    lists:member(Name, List) orelse lists:member(Group, List);
selected(One, Family) -> selected([One], Family).

%% @doc One metric.
-spec family(atom()) -> {ok, family()} | error.
family(Name) ->
    case [Family || #{name := Found} = Family <- families(Name), Found =:= Name] of
        [Family] -> {ok, Family};
        [] -> error
    end.

%% @doc What a histogram has recorded, all its series together.
-spec snapshot(atom()) -> erlmcp_native_histogram:snapshot().
snapshot(Name) ->
    case family(Name) of
        {ok, #{kind := histogram, series := Series}} ->
            erlmcp_native_metric:total(histogram, Series);
        _ ->
            erlmcp_native_histogram:empty()
    end.

%% @doc What one series of a histogram has recorded.
-spec snapshot(atom(), Labels :: [atom()]) -> erlmcp_native_histogram:snapshot().
snapshot(Name, Labels) ->
    case family(Name) of
        {ok, #{kind := histogram, series := Series}} ->
            proplists:get_value(Labels, Series, erlmcp_native_histogram:empty());
        _ ->
            erlmcp_native_histogram:empty()
    end.
