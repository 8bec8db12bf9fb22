%% @doc The counters of the application, native ones included, in one place.
-module(erlmcp_native_metrics).

-export([overview/0]).

%% @doc All counters, by name. Those of the core are absent on a node
%% that does not run it; where both library and program do, they are the library's, and the
%% program's have names of their own (`port_*').
-spec overview() -> #{atom() => erlmcp_native:metric()}.
overview() ->
    lists:foldl(fun maps:merge/2, supervised(), [program(), native()]).

native() ->
    case erlmcp_native_nif:is_loaded() of
        true -> metrics(erlmcp_native_nif:metrics_read());
        false -> #{}
    end.

program() ->
    metrics(erlmcp_native_port:metrics()).

metrics(Read) ->
    maps:from_list([
        {Name, #{kind => Kind, help => Help, value => Value}}
     || {Name, Kind, Help, Value} <- Read
    ]).

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
