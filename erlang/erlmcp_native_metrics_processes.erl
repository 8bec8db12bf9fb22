%% @private The processes under this application's supervisors, as metrics.
-module(erlmcp_native_metrics_processes).

-behaviour(erlmcp_native_metrics).

-export([metrics/0, count/1]).

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        gauge(connection_processes, erlmcp_native_conn_sup, <<"Connection processes">>),
        gauge(listener_processes, erlmcp_native_listener_sup, <<"Listener processes">>),
        gauge(http_client_processes, erlmcp_native_http_client_sup, <<"HTTP client processes">>)
    ].

gauge(Name, Supervisor, What) ->
    #{
        name => Name,
        kind => gauge,
        group => runtime,
        help => <<What/binary, " under this application's supervisor">>,
        read => {?MODULE, count, [Supervisor]}
    }.

%% @doc How many children a supervisor has.
-spec count(atom()) -> non_neg_integer().
count(Supervisor) ->
    case whereis(Supervisor) of
        undefined -> 0;
        _ -> proplists:get_value(active, supervisor:count_children(Supervisor))
    end.
