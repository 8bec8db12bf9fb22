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

-behaviour(erlmcp_native_lookout).

-include_lib("kernel/include/logger.hrl").

-export([start_link/1, states/1, stop/1]).
-export([look/3, announce/2, describe/1]).

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

-define(READER, [metric, measure]).

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
        [] -> erlmcp_native_lookout:start_link(?MODULE, Alerts, Checked);
        [{Name, Key, Value} | _] -> {error, {option, {Name, Key}, Value}}
    end.

valid(alerts, V) -> is_map(V);
valid(Key, V) -> erlmcp_native_lookout:valid(Key, V).

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
    erlmcp_native_lookout:report(Alerts).

-spec stop(pid()) -> ok.
stop(Alerts) ->
    gen_server:stop(Alerts).

%% @private
-spec look(integer(), term(), #alert{}) -> {[event()], #alert{}}.
look(Now, Name, #alert{reader = Reader, rule = Rule, metric = Metric} = Alert) ->
    {Value, Read} = erlmcp_native_metric_reader:read(Now, Reader),
    {Change, Decided} = erlmcp_native_alert_rule:step(Now, Value, Rule),
    Threshold = erlmcp_native_alert_rule:threshold(Decided),
    Details = #{value => Value, threshold => Threshold, metric => Metric},
    Next = Alert#alert{reader = Read, rule = Decided, value = Value},
    {[{alert, Name, Change, Details} || Change =/= same], Next}.

%% @private
-spec announce(logger:level(), event()) -> ok.
announce(Level, {alert, Name, Change, Details}) ->
    #{value := Value, threshold := {Side, Limit} = Threshold, metric := Metric} = Details,
    ?LOG(Level, "erlmcp_native: alert ~0tp ~s: ~0tp is ~0tp (~s ~0tp)", [
        Name, Change, Metric, Value, Side, Limit
    ]),
    erlmcp_native_telemetry:execute([alert], #{value => Value}, #{
        name => Name, state => Change, metric => Metric, threshold => Threshold
    }).

%% @private
-spec describe(#alert{}) -> #{state := raised | cleared, value := number() | unknown}.
describe(#alert{rule = Rule, value = Value}) ->
    #{state => erlmcp_native_alert_rule:state(Rule), value => Value}.
