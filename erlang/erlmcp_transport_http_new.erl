%% @doc The module that erlmcp's transport supervisor names for `http' and does not have. With this
%% application among the dependencies,
%%
%% ```
%% erlmcp_transport_sup:start_child(my_http, http, #{url => "http://127.0.0.1:8080/mcp",
%%                                                   server_id => my_server}).
%% '''
%%
%% is a client of that server, see {@link erlmcp_native_http_transport_options}. What it sends is
%% what the registry gives it for the transport, what comes back goes to the server `server_id', or,
%% where only an `owner' is named, to that process. With `mode => server' and a `port' it is a
%% server itself, see {@link erlmcp_native_http_transport_listener}.
-module(erlmcp_transport_http_new).

-export([start_link/2, send/2, close/1, get_info/1]).

-spec start_link(erlmcp_native_registry:transport_id(), map()) -> {ok, pid()} | {error, term()}.
start_link(Id, #{mode := server} = Config) ->
    erlmcp_native_http_transport_listener:start_link(Id, maps:remove(mode, Config));
start_link(Id, #{mode := client} = Config) ->
    start_link(Id, maps:remove(mode, Config));
start_link(_, #{owner := Owner} = Config) when
    is_pid(Owner), not is_map_key(server_id, Config)
->
    erlmcp_native_http_transport:start_link(Config);
start_link(Id, Config) ->
    erlmcp_native_http_transport:start_link(Id, Config).

-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Transport, Data) ->
    erlmcp_native_transport:send(Transport, Data).

%% @doc Ends the transport, and its session at the server.
-spec close(pid()) -> ok.
close(Transport) ->
    erlmcp_native_transport:close(Transport).

-spec get_info(pid()) -> map() | {error, not_connected}.
get_info(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).
