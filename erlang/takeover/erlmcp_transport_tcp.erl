%% @doc Takes the place of erlmcp's module of this name, see {@link erlmcp_native_takeover}. Speaks
%% both of its shapes: that of 0.5 (`start_link/1', owner messages) and that of the fork
%% (`start_link/2', registry).
%%
%% Where erlmcp's client passes its options as if they were a transport's state, the first message
%% connects.
-module(erlmcp_transport_tcp).

-export([start_link/1, start_link/2, connect/2, send/2, close/1, get_info/1]).

-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    erlmcp_native_transport_owner:start_link(Options).

-spec start_link(atom() | binary(), map()) -> {ok, pid()} | {error, term()}.
start_link(TransportId, Config) ->
    erlmcp_transport_tcp_new:start_link(TransportId, Config).

-spec connect(pid(), map()) -> ok | {error, term()}.
connect(Transport, Options) ->
    erlmcp_native_transport_owner:connect(Transport, Options).

-spec send(pid() | map(), iodata()) -> ok | {error, term()}.
send(Transport, Data) when is_pid(Transport) ->
    erlmcp_native_transport:send(Transport, Data);
send(#{transport := Transport}, Data) when is_pid(Transport) ->
    erlmcp_native_transport:send(Transport, Data);
send(Options, Data) when is_map(Options) ->
    erlmcp_native_on_demand:send(Options, Data).

-spec close(pid() | map()) -> ok.
close(Transport) when is_pid(Transport) ->
    erlmcp_native_transport:close(Transport);
close(#{transport := Transport}) when is_pid(Transport) ->
    erlmcp_native_transport:close(Transport);
close(Options) when is_map(Options) ->
    erlmcp_native_on_demand:close(Options).

-spec get_info(pid() | map()) -> map() | {error, not_connected}.
get_info(Transport) when is_pid(Transport) ->
    erlmcp_native_transport:call(Transport, get_info);
get_info(#{transport := Transport}) when is_pid(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).
