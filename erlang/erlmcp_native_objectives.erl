%% @doc Service-level objectives: how much of what is served is quick enough, succeeds or is there,
%% and how fast the part that may fail is being spent ({@link erlmcp_native_burn_rate}). A process
%% looks in intervals, and tells its owner and the log when a budget burns too fast.
%%
%% ```
%% {ok, Objectives} = erlmcp_native_objectives:start_link(#{
%%     objectives => #{
%%         quick => #{kind => latency, metric => http_server_request_us, within => 100000,
%%                    target => 0.99},
%%         good => #{kind => errors, total => [http_server_responses],
%%                   failed => [{http_server_responses, ['_', '5xx']}], target => 0.999},
%%         there => #{kind => availability, metric => native_http_listeners, at_least => 1,
%%                    target => 0.9995}
%%     }
%% }).
%% '''
-module(erlmcp_native_objectives).

-behaviour(erlmcp_native_lookout).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, report/1, stop/1]).
-export([look/3, announce/2, describe/1]).

-export_type([options/0, objective/0, report/0, event/0]).

-type objective() ::
    #{
        kind := latency,
        metric := erlmcp_native_metric_reader:source(),
        within := number(),
        target := float()
    }
    | #{
        kind := errors,
        total := [erlmcp_native_metric_reader:source(), ...],
        failed := [erlmcp_native_metric_reader:source(), ...],
        target := float()
    }
    | #{
        kind := availability,
        metric := erlmcp_native_metric_reader:source(),
        at_least := number(),
        target := float()
    }.
%% `target': the part that has to be good, between 0 and 1. `within': in the unit of the metric.
%% Availability counts looks: one at which the metric is less, or is not there, is a bad one.

-type options() :: #{
    objectives := #{Name :: term() => objective()},
    owner => pid() | none,
    interval_ms => pos_integer(),
    windows => [erlmcp_native_burn_rate:window(), ...]
}.
%% `interval_ms': 5000. `windows': {@link erlmcp_native_burn_rate:windows()}.

-type report() :: #{
    target := float(),
    good := non_neg_integer(),
    total := non_neg_integer(),
    budget_left := float(),
    rates := [erlmcp_native_burn_rate:rate()]
}.

-type event() ::
    {objective, Name :: term(), raised | cleared, #{
        severity := atom(),
        long := float(),
        short := float(),
        factor := number(),
        budget_left := float()
    }}.
%% What the owner receives as `{erlmcp_native, Objectives, Event}'.

-record(objective, {
    given :: objective(),
    %% Sums at the last look.
    before = none :: none | {Good :: non_neg_integer(), Total :: non_neg_integer()},
    burn :: erlmcp_native_burn_rate:burn()
}).

-spec start_link(options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Options) ->
    Defaults = #{
        objectives => #{},
        owner => self(),
        interval_ms => 5000,
        windows => erlmcp_native_burn_rate:windows()
    },
    case erlmcp_native_options:check(Options, Defaults, fun valid/2, server) of
        {ok, #{objectives := Objectives}} when map_size(Objectives) =:= 0 ->
            {error, {option, objectives, Objectives}};
        {ok, #{objectives := Objectives} = Checked} ->
            Pairs = maps:to_list(Objectives),
            case [Wrong || {_, Given} = Wrong <- Pairs, not is_objective(Given)] of
                [] -> erlmcp_native_lookout:start_link(?MODULE, new(Checked), Checked);
                [{Name, Given} | _] -> {error, {option, Name, Given}}
            end;
        {error, _} = Error ->
            Error
    end.

valid(objectives, V) -> is_map(V);
valid(windows, V) -> is_list(V) andalso V =/= [] andalso lists:all(fun is_window/1, V);
valid(Key, V) -> erlmcp_native_lookout:valid(Key, V).

is_window(#{long_ms := Long, short_ms := Short, factor := Factor, severity := Severity} = Window) ->
    map_size(Window) =:= 4 andalso is_integer(Long) andalso is_integer(Short) andalso
        Short > 0 andalso Long >= Short andalso is_number(Factor) andalso is_atom(Severity);
is_window(_) ->
    false.

is_objective(#{kind := latency, metric := Metric, within := Limit, target := T} = Given) ->
    map_size(Given) =:= 4 andalso is_source(Metric) andalso is_number(Limit) andalso is_target(T);
is_objective(#{kind := errors, total := Total, failed := Failed, target := Target} = Given) ->
    map_size(Given) =:= 4 andalso is_target(Target) andalso are_sources(Total) andalso
        are_sources(Failed);
is_objective(#{kind := availability, metric := Metric, at_least := Least, target := T} = Given) ->
    map_size(Given) =:= 4 andalso is_source(Metric) andalso is_number(Least) andalso is_target(T);
is_objective(_) ->
    false.

is_source(Source) -> erlmcp_native_metric_reader:check(#{metric => Source}).

are_sources(Sources) ->
    is_list(Sources) andalso Sources =/= [] andalso lists:all(fun is_source/1, Sources).

is_target(Target) -> is_float(Target) andalso Target > 0 andalso Target < 1.

%% @doc How each objective stands.
-spec report(pid()) -> #{term() => report()}.
report(Objectives) ->
    erlmcp_native_lookout:report(Objectives).

-spec stop(pid()) -> ok.
stop(Objectives) ->
    gen_server:stop(Objectives).

new(#{objectives := Given, windows := Windows}) ->
    New = fun(_, #{target := Target} = Objective) ->
        #objective{given = Objective, burn = erlmcp_native_burn_rate:new(Target, Windows)}
    end,
    maps:map(New, Given).

%% @private
-spec describe(#objective{}) -> report().
describe(#objective{given = #{target := Target}, burn = Burn}) ->
    (erlmcp_native_burn_rate:totals(Burn))#{
        target => Target,
        budget_left => erlmcp_native_burn_rate:budget_left(Burn),
        rates => erlmcp_native_burn_rate:rates(Burn)
    }.

%% @private
-spec look(integer(), term(), #objective{}) -> {[event()], #objective{}}.
look(Now, Name, #objective{given = Given, before = Before, burn = Burn} = Objective) ->
    Sums = sums(Given, Before),
    {Good, Total} = more(Sums, Before),
    {Changes, Next} = erlmcp_native_burn_rate:add(Now, Good, Total, Burn),
    Left = erlmcp_native_burn_rate:budget_left(Next),
    Event = fun({Change, Rate}) ->
        Details = maps:with([severity, long, short, factor], Rate),
        {objective, Name, Change, Details#{budget_left => Left}}
    end,
    {lists:map(Event, Changes), Objective#objective{before = Sums, burn = Next}}.

sums(#{kind := latency, metric := Metric, within := Limit}, Before) ->
    case erlmcp_native_metric_reader:count(Metric) of
        #{count := Total} = Recorded ->
            {erlmcp_native_histogram:count_at_most(Recorded, Limit), Total};
        _ ->
            Before
    end;
sums(#{kind := errors, total := Totals, failed := Failures}, Before) ->
    case {sum(Totals), sum(Failures)} of
        {Total, Failed} when is_number(Total), is_number(Failed) ->
            {max(0, Total - Failed), Total};
        _ ->
            Before
    end;
sums(#{kind := availability, metric := Metric, at_least := Least}, Before) ->
    {Good, Total} = before(Before),
    case erlmcp_native_metric_reader:count(Metric) of
        Value when is_number(Value), Value >= Least -> {Good + 1, Total + 1};
        _ -> {Good, Total + 1}
    end.

before(none) -> {0, 0};
before(Sums) -> Sums.

sum(Sources) ->
    Counts = [erlmcp_native_metric_reader:count(Source) || Source <- Sources],
    Known = [count(Count) || Count <- Counts, Count =/= unknown],
    case Known of
        [] -> unknown;
        _ -> lists:sum(Known)
    end.

count(#{count := Count}) -> Count;
count(Count) -> Count.

%% What was counted before the first look is nothing to it. What counts may have been started anew.
more(none, _) -> {0, 0};
more(_, none) -> {0, 0};
more({Good, Total}, {GoodBefore, Before}) when Total >= Before, Good >= GoodBefore ->
    {min(Good - GoodBefore, Total - Before), Total - Before};
more({Good, Total}, _) ->
    {Good, Total}.

%% @private
-spec announce(logger:level(), event()) -> ok.
announce(Level, {objective, Name, Change, Details}) ->
    #{severity := Severity, long := Long, short := Short, factor := Factor} = Details,
    #{budget_left := Left} = Details,
    ?LOG(
        Level,
        "erlmcp_native: objective ~0tp ~s (~s): its budget burns ~.2f and ~.2f times as fast as"
        " it may, the limit is ~0tp; ~.1f % of it is left",
        [Name, Change, Severity, Long, Short, Factor, 100 * Left]
    ),
    erlmcp_native_telemetry:execute(
        [objective],
        maps:with([long, short, budget_left], Details),
        #{name => Name, state => Change, severity => Severity}
    ).
