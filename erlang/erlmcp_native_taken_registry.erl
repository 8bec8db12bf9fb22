%% @private What erlmcp's registry does while it is taken over. The module of its name only leads
%% here: that one is replaced in a running node, which a process that waits in it would hold up.
%%
%% The process is erlmcp's own, which goes on under this code: its state stays a state of erlmcp's
%% at every moment, so that the original can go on with it whenever it is loaded again. The tables
%% ({@link erlmcp_native_registry_table}) follow the state.
%%
%% Until the tables are there, senders wait: what they cast to the original before must not be
%% overtaken by what they route now. Who waits sees to it that the tables come, after all that is
%% in the queue.
-module(erlmcp_native_taken_registry).

-export([start_link/0]).
-export([register_server/3, unregister_server/1, find_server/1, list_servers/0]).
-export([register_transport/3, unregister_transport/1, find_transport/1, list_transports/0]).
-export([bind_transport_to_server/2, unbind_transport/1, get_server_for_transport/1]).
-export([route_to_server/3, route_to_transport/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-type server_id() :: erlmcp_native_registry:server_id().
-type transport_id() :: erlmcp_native_registry:transport_id().
-type config() :: map().
-type state() :: erlmcp_native_registry_state:state().

-define(REGISTRY, erlmcp_registry).
-define(TABLE, erlmcp_native_registry_table).
-define(STATE, erlmcp_native_registry_state).

%% A sender may have been about to cast to the original while this code was loaded.
-define(SETTLE_MS, 20).

%% The original may be loaded again meanwhile, and answers nobody who waits.
-define(AWAIT_MS, 1000).

-spec start_link() -> {ok, pid()} | {error, term()}.
start_link() ->
    gen_server:start_link({local, ?REGISTRY}, ?REGISTRY, [], []).

-spec register_server(server_id(), pid(), config()) -> ok | {error, already_registered}.
register_server(Id, Pid, Config) when is_pid(Pid) ->
    gen_server:call(?REGISTRY, {register_server, Id, Pid, Config}).

-spec register_transport(transport_id(), pid(), config()) -> ok | {error, already_registered}.
register_transport(Id, Pid, Config) when is_pid(Pid) ->
    gen_server:call(?REGISTRY, {register_transport, Id, Pid, Config}).

-spec unregister_server(server_id()) -> ok.
unregister_server(Id) ->
    gen_server:call(?REGISTRY, {unregister_server, Id}).

-spec unregister_transport(transport_id()) -> ok.
unregister_transport(Id) ->
    gen_server:call(?REGISTRY, {unregister_transport, Id}).

-spec bind_transport_to_server(transport_id(), server_id()) ->
    ok | {error, server_not_found | transport_not_found}.
bind_transport_to_server(TransportId, ServerId) ->
    gen_server:call(?REGISTRY, {bind_transport_to_server, TransportId, ServerId}).

-spec unbind_transport(transport_id()) -> ok.
unbind_transport(TransportId) ->
    gen_server:call(?REGISTRY, {unbind_transport, TransportId}).

-spec find_server(server_id()) -> {ok, {pid(), config()}} | {error, not_found}.
find_server(Id) ->
    read({find_server, Id}, fun() -> ?TABLE:find(?REGISTRY, server, Id) end).

-spec find_transport(transport_id()) -> {ok, {pid(), config()}} | {error, not_found}.
find_transport(Id) ->
    read({find_transport, Id}, fun() -> ?TABLE:find(?REGISTRY, transport, Id) end).

-spec list_servers() -> [{server_id(), {pid(), config()}}].
list_servers() ->
    read(list_servers, fun() -> ?TABLE:list(?REGISTRY, server) end).

-spec list_transports() -> [{transport_id(), {pid(), config()}}].
list_transports() ->
    read(list_transports, fun() -> ?TABLE:list(?REGISTRY, transport) end).

-spec get_server_for_transport(transport_id()) -> {ok, server_id()} | {error, not_found}.
get_server_for_transport(Id) ->
    read({get_server_for_transport, Id}, fun() -> ?TABLE:server_of(?REGISTRY, Id) end).

%% Both versions of this module answer the call.
read(Request, Read) ->
    case ?TABLE:exists(?REGISTRY) of
        true -> Read();
        false -> gen_server:call(?REGISTRY, Request)
    end.

-spec route_to_server(server_id(), erlmcp_native_registry:sender(), term()) ->
    ok | {error, server_not_found}.
route_to_server(ServerId, TransportId, Message) ->
    case ?TABLE:route_to_server(?REGISTRY, ServerId, TransportId, Message) of
        ok ->
            ok;
        {error, not_found} ->
            case await() of
                published -> not_found(server, ServerId);
                again -> again(route_to_server, [ServerId, TransportId, Message])
            end
    end.

-spec route_to_transport(
    erlmcp_native_registry:sender() | broadcast, server_id(), term()
) -> ok | {error, transport_not_found}.
route_to_transport(TransportId, ServerId, Message) ->
    case ?TABLE:route_to_transport(?REGISTRY, TransportId, ServerId, Message) of
        ok ->
            ok;
        {error, not_found} ->
            case await() of
                published -> not_found(transport, TransportId);
                again -> again(route_to_transport, [TransportId, ServerId, Message])
            end
    end.

await() ->
    case ?TABLE:exists(?REGISTRY) of
        true ->
            published;
        false ->
            try gen_server:call(?REGISTRY, {erlmcp_native, await}, ?AWAIT_MS) of
                _ -> again
            catch
                exit:{timeout, _} -> again;
                %% There is no registry, and nobody is registered.
                exit:_ -> published
            end
    end.

%% By the code that is loaded now.
again(Function, Args) -> apply(registry(), Function, Args).

registry() -> ?REGISTRY.

not_found(Kind, Id) ->
    erlmcp_native_registry_counters:add(not_routed),
    erlmcp_native_registry_log:not_found(Kind, Id),
    {error, reason(Kind)}.

reason(server) -> server_not_found;
reason(transport) -> transport_not_found.

%% @private
-spec init([]) -> {ok, state()}.
init([]) ->
    process_flag(trap_exit, true),
    erlmcp_native_registry_log:started(),
    State = erlmcp_native_takeover_registry:fresh_state(),
    ok = ?TABLE:create(?REGISTRY),
    {ok, State}.

%% @private
-spec handle_call(term(), gen_server:from(), state()) ->
    {reply, term(), state()} | {noreply, state()}.
handle_call({register_server, Id, Pid, Config}, _, State) ->
    reply(?STATE:register(server, Id, Pid, Config, State));
handle_call({register_transport, Id, Pid, Config}, _, State) ->
    reply(?STATE:register(transport, Id, Pid, Config, State));
handle_call({unregister_server, Id}, _, State) ->
    {reply, ok, ?STATE:unregister(server, Id, State)};
handle_call({unregister_transport, Id}, _, State) ->
    {reply, ok, ?STATE:unregister(transport, Id, State)};
handle_call({bind_transport_to_server, TransportId, ServerId}, _, State) ->
    reply(?STATE:bind(TransportId, ServerId, State));
handle_call({unbind_transport, TransportId}, _, State) ->
    {reply, ok, ?STATE:unbind(TransportId, State)};
handle_call({erlmcp_native, await}, From, State) ->
    case ?TABLE:exists(?REGISTRY) of
        true ->
            {reply, ok, State};
        false ->
            _ = erlang:send_after(?SETTLE_MS, self(), {erlmcp_native, publish, From}),
            {noreply, State}
    end;
handle_call(Request, _, State) ->
    {reply, ?STATE:answer(Request, State), State}.

reply({Reply, State}) -> {reply, Reply, State}.

%% What was cast to the original, or by another node that has it.
%% @private
-spec handle_cast(term(), state()) -> {noreply, state()}.
handle_cast({route_to_server, ServerId, TransportId, Message}, State) ->
    _ = routed(server, ServerId, ?STATE:to_server(ServerId, TransportId, Message, State)),
    {noreply, State};
handle_cast({route_to_transport, TransportId, ServerId, Message}, State) ->
    _ = routed(transport, TransportId, ?STATE:to_transport(TransportId, ServerId, Message, State)),
    {noreply, State};
handle_cast(_, State) ->
    {noreply, State}.

routed(_, _, ok) -> ok;
routed(Kind, Id, {error, not_found}) -> not_found(Kind, Id).

%% @private
-spec handle_info(term(), state()) -> {noreply, state()}.
handle_info({erlmcp_native, publish, From}, State) ->
    ok = publish(State),
    gen_server:reply(From, ok),
    {noreply, State};
handle_info({erlmcp_native, rejoin}, State) ->
    ok = ?TABLE:rejoin(),
    {noreply, State};
handle_info({'DOWN', _, process, Pid, Reason}, State) when is_pid(Pid) ->
    {noreply, ?STATE:died(Pid, Reason, State)};
handle_info({'DOWN', _, process, _Scope, _}, State) ->
    ok = ?TABLE:rejoin_later({erlmcp_native, rejoin}),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

publish(State) ->
    case ?TABLE:exists(?REGISTRY) of
        true -> ok;
        false -> ?TABLE:create(?REGISTRY, ?STATE:entries(State))
    end.

%% @private
-spec terminate(term(), state()) -> ok.
terminate(_, _) ->
    ok = ?TABLE:drop(?REGISTRY),
    erlmcp_native_registry_log:ended().
