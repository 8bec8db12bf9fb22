%% @doc The module that erlmcp's transport supervisor names for `tcp' and does not have. With this
%% application among the dependencies,
%%
%% ```
%% erlmcp_transport_sup:start_child(my_tcp, tcp, #{host => "127.0.0.1", port => 5000,
%%                                                 server_id => my_server}).
%% '''
%%
%% connects, and with `mode => server' listens and serves every client that connects, each under a
%% transport id of its own. See {@link erlmcp_native_transport_routed} and
%% {@link erlmcp_native_transport_listener}.
-module(erlmcp_transport_tcp_new).

-export([start_link/2, send/2, close/1, get_info/1]).

-spec start_link(erlmcp_native_registry:transport_id(), map()) -> {ok, pid()} | {error, term()}.
start_link(Id, #{mode := server} = Config) ->
    erlmcp_native_transport_listener:start_link(Id, maps:remove(mode, Config));
start_link(Id, #{mode := client} = Config) ->
    erlmcp_native_transport_routed:start_link(Id, maps:remove(mode, Config));
start_link(Id, Config) ->
    erlmcp_native_transport_routed:start_link(Id, Config).

-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Transport, Data) ->
    erlmcp_native_transport:send(Transport, Data).

-spec close(pid()) -> ok.
close(Transport) ->
    erlmcp_native_transport:close(Transport).

-spec get_info(pid()) -> map() | {error, not_connected}.
get_info(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).
