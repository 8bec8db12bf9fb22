%% @doc Who serves and who carries: names of servers and transports, and the way of a message from
%% one to the other. The functions, messages and log lines are those of erlmcp's registry, for nodes
%% that run without erlmcp; where erlmcp runs, the transports use its own ({@link module/0}).
%%
%% A server receives `{mcp_message, TransportId, Message}', a transport
%% `{mcp_response, ServerId, Message}'. The transport id `broadcast' stands for every transport
%% that is bound to the server.
%%
%% Reading and routing happen in the calling process; only changes pass through the registry's.
%% A process that ends is forgotten together with its bindings. See docs/registry.md, also for
%% registrations that all nodes see ({@link erlmcp_native_registry_scope}).
-module(erlmcp_native_registry).

-behaviour(gen_server).

-export([start_link/0, module/0]).
-export([register_server/3, unregister_server/1, find_server/1, list_servers/0]).
-export([register_transport/3, unregister_transport/1, find_transport/1, list_transports/0]).
-export([bind_transport_to_server/2, unbind_transport/1, get_server_for_transport/1]).
-export([route_to_server/3, route_to_transport/3, counters/0]).
-export([enter/3, leave/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([server_id/0, transport_id/0, sender/0, server_config/0, transport_config/0]).

-type server_id() :: atom() | binary().
-type transport_id() :: atom() | binary().
-type sender() :: transport_id() | {transport_id(), node()}.
%% What a server is given, and answers to: with the node where it is another one's transport.
-type server_config() :: map().
-type transport_config() :: #{server_id => server_id(), type => atom(), term() => term()}.
%% `server_id' binds the transport as it is registered.

-record(state, {monitors = #{} :: #{pid() => reference()}}).

-define(TABLE, erlmcp_native_registry_table).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc The registry of this node: erlmcp's where erlmcp runs.
-spec module() -> module().
module() ->
    case whereis(erlmcp_registry) of
        undefined -> ?MODULE;
        _ -> erlmcp_registry
    end.

-spec register_server(server_id(), pid(), server_config()) -> ok | {error, already_registered}.
register_server(Id, Pid, Config) when is_pid(Pid) ->
    gen_server:call(?MODULE, {register, server, Id, Pid, Config}).

-spec register_transport(transport_id(), pid(), transport_config()) ->
    ok | {error, already_registered}.
register_transport(Id, Pid, Config) when is_pid(Pid) ->
    gen_server:call(?MODULE, {register, transport, Id, Pid, Config}).

%% @doc Also unbinds the transports that were bound to the server.
-spec unregister_server(server_id()) -> ok.
unregister_server(Id) ->
    gen_server:call(?MODULE, {unregister, server, Id}).

-spec unregister_transport(transport_id()) -> ok.
unregister_transport(Id) ->
    gen_server:call(?MODULE, {unregister, transport, Id}).

-spec bind_transport_to_server(transport_id(), server_id()) ->
    ok | {error, server_not_found | transport_not_found}.
bind_transport_to_server(TransportId, ServerId) ->
    gen_server:call(?MODULE, {bind, TransportId, ServerId}).

-spec unbind_transport(transport_id()) -> ok.
unbind_transport(TransportId) ->
    gen_server:call(?MODULE, {unbind, TransportId}).

-spec find_server(server_id()) -> {ok, {pid(), server_config()}} | {error, not_found}.
find_server(Id) ->
    ?TABLE:find(?MODULE, server, Id).

-spec find_transport(transport_id()) -> {ok, {pid(), transport_config()}} | {error, not_found}.
find_transport(Id) ->
    ?TABLE:find(?MODULE, transport, Id).

%% @doc Those of this node.
-spec list_servers() -> [{server_id(), {pid(), server_config()}}].
list_servers() ->
    ?TABLE:list(?MODULE, server).

%% @doc Those of this node.
-spec list_transports() -> [{transport_id(), {pid(), transport_config()}}].
list_transports() ->
    ?TABLE:list(?MODULE, transport).

-spec get_server_for_transport(transport_id()) -> {ok, server_id()} | {error, not_found}.
get_server_for_transport(TransportId) ->
    ?TABLE:server_of(?MODULE, TransportId).

%% @doc Sends `{mcp_message, TransportId, Message}' to the server. That there is none of the name is
%% logged, too.
-spec route_to_server(server_id(), sender(), term()) -> ok | {error, server_not_found}.
route_to_server(ServerId, TransportId, Message) ->
    case ?TABLE:route_to_server(?MODULE, ServerId, TransportId, Message) of
        ok ->
            ok;
        {error, not_found} ->
            erlmcp_native_registry_counters:add(not_routed),
            erlmcp_native_registry_log:not_found(server, ServerId),
            {error, server_not_found}
    end.

%% @doc Sends `{mcp_response, ServerId, Message}' to the transport, or to all that are bound to
%% the server if the id is `broadcast'. That there is none of the name is logged, too; a broadcast
%% that nobody is bound to hear is no error.
-spec route_to_transport(sender() | broadcast, server_id(), term()) ->
    ok | {error, transport_not_found}.
route_to_transport(TransportId, ServerId, Message) ->
    case ?TABLE:route_to_transport(?MODULE, TransportId, ServerId, Message) of
        ok ->
            ok;
        {error, not_found} ->
            erlmcp_native_registry_counters:add(not_routed),
            erlmcp_native_registry_log:not_found(transport, TransportId),
            {error, transport_not_found}
    end.

%% @doc What has been routed on this node since it was started, also by a registry of erlmcp's that
%% has been taken over.
-spec counters() -> #{erlmcp_native_registry_counters:counter() => non_neg_integer()}.
counters() ->
    erlmcp_native_registry_counters:read().

%% @private Registers the calling process as a transport, with this registry or erlmcp's. A name is
%% taken over from a process that has ended without the registry having noticed.
-spec enter(module(), transport_id(), transport_config()) ->
    ok | {error, already_registered | {registry, term()}}.
enter(Registry, Id, Config) ->
    case reach(fun() -> Registry:register_transport(Id, self(), Config) end) of
        {error, already_registered} ->
            case reach(fun() -> Registry:find_transport(Id) end) of
                {ok, {Pid, _}} when Pid =:= self() ->
                    ok;
                {ok, {Pid, _}} ->
                    take_over(is_alive(Pid), Registry, Id, Config);
                {error, _} ->
                    enter(Registry, Id, Config)
            end;
        Result ->
            Result
    end.

%% @private A registry that cannot be reached forgets who has ended by itself.
-spec leave(module(), transport_id()) -> ok.
leave(Registry, Id) ->
    _ = reach(fun() -> Registry:unregister_transport(Id) end),
    ok.

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    erlmcp_native_registry_log:started(),
    ok = erlmcp_native_registry_counters:new(),
    ok = ?TABLE:create(?MODULE),
    {ok, #state{}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({register, Kind, Id, Pid, Config}, _, State) ->
    case ?TABLE:insert(?MODULE, Kind, Id, Pid, Config) of
        true ->
            erlmcp_native_registry_log:registered(Kind, Id, Pid),
            {reply, ok, watch(Pid, State)};
        false ->
            {ok, {Registered, _}} = ?TABLE:find(?MODULE, Kind, Id),
            erlmcp_native_registry_log:taken(Kind, Id, Registered),
            {reply, {error, already_registered}, State}
    end;
handle_call({unregister, Kind, Id}, _, State) ->
    case ?TABLE:remove(?MODULE, Kind, Id) of
        {ok, Pid} ->
            erlmcp_native_registry_log:unregistered(Kind, Id),
            {reply, ok, unwatch(Pid, State)};
        {error, not_found} ->
            {reply, ok, State}
    end;
handle_call({bind, TransportId, ServerId}, _, State) ->
    {reply, bind(TransportId, ServerId), State};
handle_call({unbind, TransportId}, _, State) ->
    {reply, ?TABLE:unbind(?MODULE, TransportId), State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', _, process, Pid, Reason}, #state{monitors = Monitors} = State) when
    is_pid(Pid)
->
    Forget = fun({Kind, Id}) ->
        erlmcp_native_registry_log:died(Kind, Id, Pid, Reason),
        {ok, Pid} = ?TABLE:remove(?MODULE, Kind, Id)
    end,
    lists:foreach(Forget, ?TABLE:names(?MODULE, Pid)),
    {noreply, State#state{monitors = maps:remove(Pid, Monitors)}};
handle_info({'DOWN', _, process, _Scope, _}, State) ->
    ok = ?TABLE:rejoin_later({?MODULE, rejoin}),
    {noreply, State};
handle_info({?MODULE, rejoin}, State) ->
    ok = ?TABLE:rejoin(),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, _) ->
    ok = ?TABLE:drop(?MODULE),
    erlmcp_native_registry_log:ended().

take_over(true, _, _, _) ->
    {error, already_registered};
take_over(false, Registry, Id, Config) ->
    ok = leave(Registry, Id),
    enter(Registry, Id, Config).

is_alive(Pid) when node(Pid) =:= node() -> is_process_alive(Pid);
is_alive(_) -> true.

%% The registry may be gone, or be restarting.
reach(Fun) ->
    try
        Fun()
    catch
        exit:{Reason, _} -> {error, {registry, Reason}}
    end.

bind(TransportId, ServerId) ->
    case ?TABLE:find(?MODULE, server, ServerId) of
        {ok, _} ->
            case ?TABLE:bind(?MODULE, TransportId, ServerId) of
                ok -> erlmcp_native_registry_log:bound(TransportId, ServerId);
                {error, not_found} -> {error, transport_not_found}
            end;
        {error, not_found} ->
            {error, server_not_found}
    end.

%% One process may carry several names, as a test or a gateway does: one monitor for all of them.
watch(Pid, #state{monitors = Monitors} = State) ->
    case Monitors of
        #{Pid := _} -> State;
        #{} -> State#state{monitors = Monitors#{Pid => monitor(process, Pid)}}
    end.

unwatch(Pid, #state{monitors = Monitors} = State) ->
    case ?TABLE:names(?MODULE, Pid) of
        [] ->
            #{Pid := Monitor} = Monitors,
            true = demonitor(Monitor, [flush]),
            State#state{monitors = maps:remove(Pid, Monitors)};
        _ ->
            State
    end.
