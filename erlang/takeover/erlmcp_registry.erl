%% @doc Takes the place of erlmcp's registry, see {@link erlmcp_native_takeover_registry}: the same
%% functions, messages and log lines, but messages are routed in the process that sends them.
-module(erlmcp_registry).

-behaviour(gen_server).

%% How it is told from the original.
-erlmcp_native(takeover).

-export([start_link/0]).
-export([register_server/3, unregister_server/1, find_server/1, list_servers/0]).
-export([register_transport/3, unregister_transport/1, find_transport/1, list_transports/0]).
-export([bind_transport_to_server/2, unbind_transport/1, get_server_for_transport/1]).
-export([route_to_server/3, route_to_transport/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

-export_type([server_id/0, transport_id/0]).

-type server_id() :: erlmcp_native_registry:server_id().
-type transport_id() :: erlmcp_native_registry:transport_id().
-type state() :: erlmcp_native_registry_state:state().

%% Calls from here are the last that a function does.
-define(TAKEN, erlmcp_native_taken_registry).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() -> ?TAKEN:start_link().

-spec register_server(server_id(), pid(), map()) -> ok | {error, already_registered}.
register_server(Id, Pid, Config) -> ?TAKEN:register_server(Id, Pid, Config).

-spec unregister_server(server_id()) -> ok.
unregister_server(Id) -> ?TAKEN:unregister_server(Id).

-spec find_server(server_id()) -> {ok, {pid(), map()}} | {error, not_found}.
find_server(Id) -> ?TAKEN:find_server(Id).

-spec list_servers() -> [{server_id(), {pid(), map()}}].
list_servers() -> ?TAKEN:list_servers().

-spec register_transport(transport_id(), pid(), map()) -> ok | {error, already_registered}.
register_transport(Id, Pid, Config) -> ?TAKEN:register_transport(Id, Pid, Config).

-spec unregister_transport(transport_id()) -> ok.
unregister_transport(Id) -> ?TAKEN:unregister_transport(Id).

-spec find_transport(transport_id()) -> {ok, {pid(), map()}} | {error, not_found}.
find_transport(Id) -> ?TAKEN:find_transport(Id).

-spec list_transports() -> [{transport_id(), {pid(), map()}}].
list_transports() -> ?TAKEN:list_transports().

-spec bind_transport_to_server(transport_id(), server_id()) ->
    ok | {error, server_not_found | transport_not_found}.
bind_transport_to_server(TransportId, ServerId) ->
    ?TAKEN:bind_transport_to_server(TransportId, ServerId).

-spec unbind_transport(transport_id()) -> ok.
unbind_transport(Id) -> ?TAKEN:unbind_transport(Id).

-spec get_server_for_transport(transport_id()) -> {ok, server_id()} | {error, not_found}.
get_server_for_transport(Id) -> ?TAKEN:get_server_for_transport(Id).

-spec route_to_server(server_id(), erlmcp_native_registry:sender(), term()) ->
    ok | {error, server_not_found}.
route_to_server(ServerId, TransportId, Message) ->
    ?TAKEN:route_to_server(ServerId, TransportId, Message).

-spec route_to_transport(
    erlmcp_native_registry:sender() | broadcast, server_id(), term()
) -> ok | {error, transport_not_found}.
route_to_transport(TransportId, ServerId, Message) ->
    ?TAKEN:route_to_transport(TransportId, ServerId, Message).

%% @private
-spec init([]) -> {ok, state()}.
init([]) -> ?TAKEN:init([]).

%% @private
-spec handle_call(term(), gen_server:from(), state()) ->
    {reply, term(), state()} | {noreply, state()}.
handle_call(Request, From, State) -> ?TAKEN:handle_call(Request, From, State).

%% @private
-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast(Request, State) -> ?TAKEN:handle_cast(Request, State).

%% @private
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info(Msg, State) -> ?TAKEN:handle_info(Msg, State).

%% @private
-spec terminate(term(), state()) -> ok.
terminate(Reason, State) -> ?TAKEN:terminate(Reason, State).

%% @private
-spec code_change(term(), state(), term()) -> {ok, state()}.
code_change(_, State, _) -> {ok, State}.
