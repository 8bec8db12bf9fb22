%% @doc The counters of the application, native ones included, in one place.
-module(erlmcp_native_metrics).

-export([overview/0]).

%% @doc All counters, by name. On a node without the native library those of the core are absent.
-spec overview() -> #{atom() => erlmcp_native:metric()}.
overview() ->
    maps:merge(native(erlmcp_native_nif:status()), supervised()).

native(loaded) ->
    maps:from_list([
        {Name, #{kind => Kind, help => Help, value => Value}}
     || {Name, Kind, Help, Value} <- erlmcp_native_nif:metrics_read()
    ]);
native({failed, _}) ->
    #{}.

supervised() ->
    #{
        connection_processes => gauge(
            erlmcp_native_conn_sup, <<"Connection processes under this application's supervisor">>
        ),
        listener_processes => gauge(
            erlmcp_native_listener_sup, <<"Listener processes under this application's supervisor">>
        ),
        http_client_processes => gauge(
            erlmcp_native_http_client_sup,
            <<"HTTP client processes under this application's supervisor">>
        )
    }.

gauge(Supervisor, Help) ->
    Value =
        case whereis(Supervisor) of
            undefined -> 0;
            _ -> proplists:get_value(active, supervisor:count_children(Supervisor))
        end,
    #{kind => gauge, help => Help, value => Value}.
