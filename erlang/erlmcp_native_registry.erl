%% @doc Who serves and who carries: names of servers and transports, and the way of a message from
%% one to the other. The functions and messages are those of erlmcp's registry, for nodes that
%% run without erlmcp; where erlmcp runs, the transports use its own ({@link module/0}).
%%
%% A server receives `{mcp_message, TransportId, Message}', a transport
%% `{mcp_response, ServerId, Message}'. The transport id `broadcast' stands for every transport
%% that is bound to the server.
%%
%% Reading and routing happen in the calling process; only changes pass through the registry's.
%% A process that ends is forgotten together with its bindings.
-module(erlmcp_native_registry).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, module/0]).
-export([register_server/3, unregister_server/1, find_server/1, list_servers/0]).
-export([register_transport/3, unregister_transport/1, find_transport/1, list_transports/0]).
-export([bind_transport_to_server/2, unbind_transport/1, get_server_for_transport/1]).
-export([route_to_server/3, route_to_transport/3]).
-export([enter/3, leave/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([server_id/0, transport_id/0, server_config/0, transport_config/0]).

-type server_id() :: atom() | binary().
-type transport_id() :: atom() | binary().
-type server_config() :: map().
-type transport_config() :: #{server_id => server_id(), type => atom(), term() => term()}.
%% `server_id' binds the transport as it is registered.

-define(SERVERS, erlmcp_native_registry_servers).
-define(TRANSPORTS, erlmcp_native_registry_transports).
-define(BINDINGS, erlmcp_native_registry_bindings).

%% Which names a monitored process has.
-record(state, {monitors = #{} :: #{pid() => {reference(), [name()]}}}).

-type table() :: ?SERVERS | ?TRANSPORTS.
-type name() :: {table(), server_id() | transport_id()}.

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
    gen_server:call(?MODULE, {register, ?SERVERS, Id, Pid, Config}).

-spec register_transport(transport_id(), pid(), transport_config()) ->
    ok | {error, already_registered}.
register_transport(Id, Pid, Config) when is_pid(Pid) ->
    gen_server:call(?MODULE, {register, ?TRANSPORTS, Id, Pid, Config}).

%% @doc Also unbinds the transports that were bound to the server.
-spec unregister_server(server_id()) -> ok.
unregister_server(Id) ->
    gen_server:call(?MODULE, {unregister, ?SERVERS, Id}).

-spec unregister_transport(transport_id()) -> ok.
unregister_transport(Id) ->
    gen_server:call(?MODULE, {unregister, ?TRANSPORTS, Id}).

-spec bind_transport_to_server(transport_id(), server_id()) ->
    ok | {error, server_not_found | transport_not_found}.
bind_transport_to_server(TransportId, ServerId) ->
    gen_server:call(?MODULE, {bind, TransportId, ServerId}).

-spec unbind_transport(transport_id()) -> ok.
unbind_transport(TransportId) ->
    gen_server:call(?MODULE, {unbind, TransportId}).

-spec find_server(server_id()) -> {ok, {pid(), server_config()}} | {error, not_found}.
find_server(Id) ->
    find(?SERVERS, Id).

-spec find_transport(transport_id()) -> {ok, {pid(), transport_config()}} | {error, not_found}.
find_transport(Id) ->
    find(?TRANSPORTS, Id).

-spec list_servers() -> [{server_id(), {pid(), server_config()}}].
list_servers() ->
    [{Id, {Pid, Config}} || {Id, Pid, Config} <- ets:tab2list(?SERVERS)].

-spec list_transports() -> [{transport_id(), {pid(), transport_config()}}].
list_transports() ->
    [{Id, {Pid, Config}} || {Id, Pid, Config} <- ets:tab2list(?TRANSPORTS)].

-spec get_server_for_transport(transport_id()) -> {ok, server_id()} | {error, not_found}.
get_server_for_transport(TransportId) ->
    case ets:lookup(?BINDINGS, TransportId) of
        [{_, ServerId}] -> {ok, ServerId};
        [] -> {error, not_found}
    end.

%% @doc Sends `{mcp_message, TransportId, Message}' to the server. An unknown server is logged.
-spec route_to_server(server_id(), transport_id(), term()) -> ok.
route_to_server(ServerId, TransportId, Message) ->
    case find(?SERVERS, ServerId) of
        {ok, {Pid, _}} ->
            Pid ! {mcp_message, TransportId, Message},
            ok;
        {error, not_found} ->
            unknown(server, ServerId)
    end.

%% @doc Sends `{mcp_response, ServerId, Message}' to the transport, or to all that are bound to
%% the server if the id is `broadcast'. An unknown transport is logged.
-spec route_to_transport(transport_id() | broadcast, server_id(), term()) -> ok.
route_to_transport(TransportId, ServerId, Message) ->
    case find(?TRANSPORTS, TransportId) of
        {ok, {Pid, _}} ->
            Pid ! {mcp_response, ServerId, Message},
            ok;
        {error, not_found} when TransportId =:= broadcast ->
            broadcast(ServerId, Message);
        {error, not_found} ->
            unknown(transport, TransportId)
    end.

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
    _ = [
        ets:new(Table, [named_table, {read_concurrency, true}])
     || Table <- [?SERVERS, ?TRANSPORTS, ?BINDINGS]
    ],
    {ok, #state{}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call({register, Table, Id, Pid, Config}, _, State) ->
    case ets:insert_new(Table, {Id, Pid, Config}) of
        true ->
            bind_at_once(Table, Id, Config),
            {reply, ok, watch(Pid, {Table, Id}, State)};
        false ->
            {reply, {error, already_registered}, State}
    end;
handle_call({unregister, Table, Id}, _, State) ->
    case ets:lookup(Table, Id) of
        [{_, Pid, _}] ->
            forget({Table, Id}),
            {reply, ok, unwatch(Pid, {Table, Id}, State)};
        [] ->
            {reply, ok, State}
    end;
handle_call({bind, TransportId, ServerId}, _, State) ->
    {reply, bind(TransportId, ServerId), State};
handle_call({unbind, TransportId}, _, State) ->
    true = ets:delete(?BINDINGS, TransportId),
    {reply, ok, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({'DOWN', _, process, Pid, _}, #state{monitors = Monitors} = State) ->
    case maps:take(Pid, Monitors) of
        {{_, Names}, Rest} ->
            lists:foreach(fun forget/1, Names),
            {noreply, State#state{monitors = Rest}};
        error ->
            {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

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

find(Table, Id) ->
    case ets:lookup(Table, Id) of
        [{_, Pid, Config}] -> {ok, {Pid, Config}};
        [] -> {error, not_found}
    end.

broadcast(ServerId, Message) ->
    Bound = [{{'$1', '$2'}, [{'=:=', '$2', {const, ServerId}}], ['$1']}],
    _ = [
        Pid ! {mcp_response, ServerId, Message}
     || TransportId <- ets:select(?BINDINGS, Bound),
        {ok, {Pid, _}} <- [find(?TRANSPORTS, TransportId)]
    ],
    ok.

unknown(Kind, Id) ->
    ?LOG_WARNING("erlmcp_native: no ~s is registered as ~0p, a message was dropped", [Kind, Id]).

bind_at_once(?TRANSPORTS, TransportId, #{server_id := ServerId}) ->
    true = ets:insert(?BINDINGS, {TransportId, ServerId}),
    ok;
bind_at_once(_, _, _) ->
    ok.

bind(TransportId, ServerId) ->
    case {ets:member(?SERVERS, ServerId), ets:member(?TRANSPORTS, TransportId)} of
        {true, true} ->
            true = ets:insert(?BINDINGS, {TransportId, ServerId}),
            ok;
        {false, _} ->
            {error, server_not_found};
        {true, false} ->
            {error, transport_not_found}
    end.

forget({?SERVERS, Id}) ->
    Bound = [{{'_', '$1'}, [{'=:=', '$1', {const, Id}}], [true]}],
    _ = ets:select_delete(?BINDINGS, Bound),
    true = ets:delete(?SERVERS, Id);
forget({?TRANSPORTS, Id}) ->
    true = ets:delete(?BINDINGS, Id),
    true = ets:delete(?TRANSPORTS, Id).

%% One process may carry several names, as a test or a gateway does: one monitor for all of them.
watch(Pid, Name, #state{monitors = Monitors} = State) ->
    {Monitor, Names} =
        case Monitors of
            #{Pid := Watched} -> Watched;
            #{} -> {monitor(process, Pid), []}
        end,
    State#state{monitors = Monitors#{Pid => {Monitor, [Name | Names]}}}.

unwatch(Pid, Name, #state{monitors = Monitors} = State) ->
    #{Pid := {Monitor, Names}} = Monitors,
    case lists:delete(Name, Names) of
        [] ->
            true = demonitor(Monitor, [flush]),
            State#state{monitors = maps:remove(Pid, Monitors)};
        Rest ->
            State#state{monitors = Monitors#{Pid := {Monitor, Rest}}}
    end.
