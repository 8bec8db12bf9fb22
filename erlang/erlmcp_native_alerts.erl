%% @doc Alerts on any metric. A process looks at them in intervals, and tells its owner and the log
%% when one is raised or cleared.
%%
%% ```
%% {ok, Alerts} = erlmcp_native_alerts:start_link(#{
%%     alerts => #{
%%         slow => #{metric => http_server_request_us, measure => {percentile, 99},
%%                   above => 50000, clear => 20000, for_ms => 30000},
%%         refused => #{metric => sends_refused_busy, above => 0, clear_for_ms => 60000}
%%     }
%% }),
%% receive {erlmcp_native, Alerts, {alert, slow, raised, #{value := P99}}} -> P99 end.
%% '''
-module(erlmcp_native_alerts).

-behaviour(gen_server).
-behaviour(erlmcp_native_metrics).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, states/1, stop/1]).
-export([metrics/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0, alert/0, event/0]).

-type alert() :: #{
    metric := erlmcp_native_metric_reader:source(),
    measure => erlmcp_native_metric_reader:measure(),
    above => number(),
    below => number(),
    clear => number(),
    for_ms => non_neg_integer(),
    clear_for_ms => non_neg_integer()
}.
%% What is looked at ({@link erlmcp_native_metric_reader}), and when it is an alert
%% ({@link erlmcp_native_alert_rule}).

-type options() :: #{
    alerts := #{Name :: term() => alert()},
    owner => pid() | none,
    interval_ms => pos_integer()
}.
%% `owner': the caller; the process ends with it. `interval_ms': 1000.

-type event() ::
    {alert, Name :: term(), raised | cleared, #{
        value := number(),
        threshold := {above | below, number()},
        metric := erlmcp_native_metric_reader:source()
    }}.
%% What the owner receives as `{erlmcp_native, Alerts, Event}'.

-record(alert, {
    reader :: erlmcp_native_metric_reader:reader(),
    rule :: erlmcp_native_alert_rule:rule(),
    metric :: erlmcp_native_metric_reader:source(),
    value = unknown :: number() | unknown
}).

-record(state, {
    owner :: pid() | none,
    monitor :: reference() | none,
    interval_ms :: pos_integer(),
    alerts :: #{term() => #alert{}}
}).

-define(READER, [metric, measure]).

%% @private
-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        #{
            name => alerts_raised,
            kind => counter,
            group => alert,
            help => <<"Alerts that were raised, those of objectives included">>
        },
        #{
            name => alerts_active,
            kind => gauge,
            group => alert,
            help => <<"Alerts that are raised, those of objectives included">>
        }
    ].

-spec start_link(options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Options) ->
    Defaults = #{alerts => #{}, owner => self(), interval_ms => 1000},
    case erlmcp_native_options:check(Options, Defaults, fun valid/2, server) of
        {ok, #{alerts := Alerts}} when map_size(Alerts) =:= 0 ->
            {error, {option, alerts, Alerts}};
        {ok, #{alerts := Alerts} = Checked} ->
            started(maps:map(fun(_, Alert) -> alert(Alert) end, Alerts), Checked);
        {error, _} = Error ->
            Error
    end.

started(Alerts, Checked) ->
    case [{Name, Key, Value} || {Name, {error, {Key, Value}}} <- maps:to_list(Alerts)] of
        [] -> gen_server:start_link(?MODULE, Checked#{alerts := Alerts}, []);
        [{Name, Key, Value} | _] -> {error, {option, {Name, Key}, Value}}
    end.

valid(alerts, V) -> is_map(V);
valid(owner, V) -> is_pid(V) orelse V =:= none;
valid(interval_ms, V) -> is_integer(V) andalso V > 0 andalso V =< 3600000;
valid(_, _) -> false.

alert(#{metric := Metric} = Alert) ->
    case erlmcp_native_metric_reader:check(maps:with(?READER, Alert)) of
        true -> ruled(Alert, erlmcp_native_alert_rule:new(maps:without(?READER, Alert)));
        false -> {error, {metric, Metric}}
    end;
alert(Alert) ->
    {error, {metric, Alert}}.

ruled(#{metric := Metric} = Alert, {ok, Rule}) ->
    Reader = erlmcp_native_metric_reader:new(maps:with(?READER, Alert)),
    #alert{reader = Reader, rule = Rule, metric = Metric};
ruled(_, {error, _} = Error) ->
    Error.

%% @doc What each alert is, and the value that was seen last.
-spec states(pid()) ->
    #{term() => #{state := raised | cleared, value := number() | unknown}}.
states(Alerts) ->
    gen_server:call(Alerts, states).

-spec stop(pid()) -> ok.
stop(Alerts) ->
    gen_server:stop(Alerts).

%% @private
-spec init(map()) -> {ok, #state{}}.
init(#{alerts := Alerts, owner := Owner, interval_ms := Interval}) ->
    process_flag(trap_exit, true),
    self() ! look,
    {ok, #state{
        owner = Owner,
        monitor = watch(Owner),
        interval_ms = Interval,
        alerts = Alerts
    }}.

watch(none) -> none;
watch(Owner) -> monitor(process, Owner).

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(states, _, #state{alerts = Alerts} = State) ->
    States = maps:map(
        fun(_, #alert{rule = Rule, value = Value}) ->
            #{state => erlmcp_native_alert_rule:state(Rule), value => Value}
        end,
        Alerts
    ),
    {reply, States, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info(look, #state{alerts = Alerts, interval_ms = Interval} = State) ->
    {Changes, Looked} = look(Alerts),
    lists:foreach(fun(Change) -> tell(Change, State) end, Changes),
    ok = wait(Interval),
    {noreply, State#state{alerts = Looked}};
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info({'EXIT', _, Reason}, State) ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{alerts = Alerts}) ->
    States = [erlmcp_native_alert_rule:state(Rule) || #alert{rule = Rule} <- maps:values(Alerts)],
    Active = length([raised || raised <- States]),
    erlmcp_native_metrics:add(alerts_active, -Active).

wait(Interval) ->
    _ = erlang:send_after(Interval, self(), look),
    ok.

look(Alerts) ->
    Now = erlang:monotonic_time(millisecond),
    maps:fold(
        fun(Name, Alert, {Changes, Looked}) ->
            {Change, Next} = look(Now, Alert),
            {[{Name, Change, Next} || Change =/= same] ++ Changes, Looked#{Name => Next}}
        end,
        {[], #{}},
        Alerts
    ).

look(Now, #alert{reader = Reader, rule = Rule} = Alert) ->
    {Value, Read} = erlmcp_native_metric_reader:read(Now, Reader),
    {Change, Decided} = erlmcp_native_alert_rule:step(Now, Value, Rule),
    {Change, Alert#alert{reader = Read, rule = Decided, value = Value}}.

tell({Name, Change, #alert{rule = Rule, value = Value, metric = Metric}}, #state{owner = Owner}) ->
    {Side, Limit} = Threshold = erlmcp_native_alert_rule:threshold(Rule),
    ok = count(Change),
    Level =
        case Change of
            raised -> warning;
            cleared -> notice
        end,
    ?LOG(Level, "erlmcp_native: alert ~0tp ~s: ~0tp is ~0tp (~s ~0tp)", [
        Name, Change, Metric, Value, Side, Limit
    ]),
    ok = erlmcp_native_telemetry:execute([alert], #{value => Value}, #{
        name => Name, state => Change, metric => Metric, threshold => Threshold
    }),
    Details = #{value => Value, threshold => Threshold, metric => Metric},
    _ = Owner =/= none andalso (Owner ! {erlmcp_native, self(), {alert, Name, Change, Details}}),
    ok.

count(raised) ->
    ok = erlmcp_native_metrics:add(alerts_raised, 1),
    erlmcp_native_metrics:add(alerts_active, 1);
count(cleared) ->
    erlmcp_native_metrics:add(alerts_active, -1).
