%% @private The tables of a registry, of this application's or of erlmcp's where that has been taken
%% over. Any process reads them and routes by them; the registry's process, which owns them,
%% changes them. What is not here may be on another node, see {@link erlmcp_native_registry_scope}.
%%
%% A lookup copies the pid and nothing else, however large the configuration is. What a broadcast
%% goes to is in an ordered table of its own, so that its cost is that of what is bound.
-module(erlmcp_native_registry_table).

-export([create/1, create/2, drop/1, exists/1]).
-export([insert/5, remove/3, names/2, bind/3, unbind/2]).
-export([rejoin/0, rejoin_later/1]).
-export([find/3, list/2, size/2, server_of/2]).
-export([route_to_server/4, route_to_transport/4, deliver/2]).

-export_type([registry/0, kind/0, id/0, entries/0]).

-type registry() :: erlmcp_native_registry | erlmcp_registry.
-type kind() :: server | transport.
-type id() :: erlmcp_native_registry:server_id() | erlmcp_native_registry:transport_id().
-type sender() :: erlmcp_native_registry:sender().
-type entry() :: {pid(), Config :: map()}.

-type entries() :: #{
    server := #{id() => entry()},
    transport := #{id() => entry()},
    bound := #{Transport :: id() => Server :: id()}
}.

%% In `transports' stands what the transport is bound to; who has no server there is not bound.
-define(UNBOUND, undefined).

-define(REJOIN_MS, 100).
-define(THERE_MS, 1000).

%% A number is less than any id.
-define(BEFORE_ALL_IDS, 0).

%% @doc Makes the tables, empty. The caller owns them.
-spec create(registry()) -> ok.
create(Registry) ->
    create(Registry, #{server => #{}, transport => #{}, bound => #{}}).

%% @doc Makes the tables; nobody sees one that is not full yet.
-spec create(registry(), entries()) -> ok.
create(Registry, #{server := Servers, transport := Transports, bound := Bound}) ->
    Of = fun(Id) -> maps:get(Id, Bound, ?UNBOUND) end,
    make(names(Registry), [private, ordered_set], [
        {{Pid, Kind, Id}}
     || {Kind, Entries} <- [{server, Servers}, {transport, Transports}],
        {Id, {Pid, _}} <- maps:to_list(Entries)
    ]),
    make(bound(Registry), [ordered_set, {read_concurrency, true}], [
        {{ServerId, Id}, Pid}
     || {Id, {Pid, _}} <- maps:to_list(Transports),
        ServerId <- [Of(Id)],
        ServerId =/= ?UNBOUND
    ]),
    make(transports(Registry), [{read_concurrency, true}], [
        {Id, Pid, Of(Id), Config}
     || {Id, {Pid, Config}} <- maps:to_list(Transports)
    ]),
    make(servers(Registry), [{read_concurrency, true}], [
        {Id, Pid, Config}
     || {Id, {Pid, Config}} <- maps:to_list(Servers)
    ]),
    rejoin().

make(Name, Options, Rows) ->
    Filling = filling(Name),
    Filling = ets:new(Filling, [named_table | Options]),
    true = ets:insert(Filling, Rows),
    Name = ets:rename(Filling, Name),
    ok.

%% @doc Removes the tables of the calling process, if it has any.
-spec drop(registry()) -> ok.
drop(Registry) ->
    Tables = [servers(Registry), transports(Registry), bound(Registry), names(Registry)],
    _ = [ets:delete(Table) || Table <- Tables, ets:info(Table, owner) =:= self()],
    share().

-spec exists(registry()) -> boolean().
exists(Registry) -> ets:whereis(servers(Registry)) =/= undefined.

%% ---- for the owner

%% @doc `false' if the id is taken. A transport is bound to the server that its configuration names.
-spec insert(registry(), kind(), id(), pid(), map()) -> boolean().
insert(Registry, Kind, Id, Pid, Config) ->
    case ets:insert_new(table(Registry, Kind), row(Kind, Id, Pid, Config)) of
        true ->
            true = ets:insert(names(Registry), {{Pid, Kind, Id}}),
            ok = erlmcp_native_registry_scope:join({Kind, Id}, Pid),
            ok = bind_at_once(Registry, Kind, Id, Config),
            true;
        false ->
            false
    end.

row(server, Id, Pid, Config) -> {Id, Pid, Config};
row(transport, Id, Pid, Config) -> {Id, Pid, ?UNBOUND, Config}.

bind_at_once(Registry, transport, Id, #{server_id := ServerId}) -> bind(Registry, Id, ServerId);
bind_at_once(_, _, _, _) -> ok.

%% @doc Says who it was.
-spec remove(registry(), kind(), id()) -> {ok, pid()} | {error, not_found}.
remove(Registry, Kind, Id) ->
    case pid(table(Registry, Kind), Id) of
        {error, _} = Error ->
            Error;
        Pid ->
            ok = unbind_all(Registry, Kind, Id),
            true = ets:delete(table(Registry, Kind), Id),
            true = ets:delete(names(Registry), {Pid, Kind, Id}),
            ok = erlmcp_native_registry_scope:leave({Kind, Id}, Pid),
            {ok, Pid}
    end.

unbind_all(Registry, transport, Id) ->
    unbind(Registry, Id);
unbind_all(Registry, server, Id) ->
    Transports = [Transport || {{_, Transport}, _} <- bound_to(Registry, Id)],
    lists:foreach(fun(Transport) -> unbind(Registry, Transport) end, Transports).

%% @doc What a process is registered as.
-spec names(registry(), pid()) -> [{kind(), id()}].
names(Registry, Pid) ->
    Start = {Pid, ?BEFORE_ALL_IDS, ?BEFORE_ALL_IDS},
    names(names(Registry), Pid, ets:next(names(Registry), Start)).

names(Table, Pid, {Pid, Kind, Id} = Key) -> [{Kind, Id} | names(Table, Pid, ets:next(Table, Key))];
names(_, _, _) -> [].

%% @doc Binds a transport that is there; whether the server is, does not matter.
-spec bind(registry(), Transport :: id(), Server :: id()) -> ok | {error, not_found}.
bind(Registry, Id, ServerId) ->
    ok = unbind(Registry, Id),
    case pid(transports(Registry), Id) of
        {error, _} = Error ->
            Error;
        _ when ServerId =:= ?UNBOUND ->
            ok;
        Pid ->
            true = ets:insert(bound(Registry), {{ServerId, Id}, Pid}),
            true = ets:update_element(transports(Registry), Id, {3, ServerId}),
            erlmcp_native_registry_scope:join({bound, ServerId}, Pid)
    end.

-spec unbind(registry(), Transport :: id()) -> ok.
unbind(Registry, Id) ->
    case server_of(Registry, Id) of
        {ok, ServerId} ->
            true = ets:update_element(transports(Registry), Id, {3, ?UNBOUND}),
            true = ets:delete(bound(Registry), {ServerId, Id}),
            Pid = pid(transports(Registry), Id),
            erlmcp_native_registry_scope:leave({bound, ServerId}, Pid);
        {error, not_found} ->
            ok
    end.

%% @doc Makes the scope know who is registered on this node, and has the caller told when it ends.
-spec rejoin() -> ok.
rejoin() ->
    ok = erlmcp_native_registry_scope:watch(),
    share().

share() ->
    Members = [
        Member
     || Registry <- [erlmcp_native_registry, erlmcp_registry],
        exists(Registry),
        Member <- shared(Registry)
    ],
    erlmcp_native_registry_scope:share(Members).

shared(Registry) ->
    Bound = [{{bound, ServerId}, Pid} || {{ServerId, _}, Pid} <- ets:tab2list(bound(Registry))],
    Named = [
        {{Kind, Id}, Pid}
     || Kind <- [server, transport], {Id, {Pid, _}} <- list(Registry, Kind)
    ],
    Bound ++ Named.

%% @doc A scope that has ended is being started again.
-spec rejoin_later(term()) -> ok.
rejoin_later(Message) ->
    _ = erlang:send_after(?REJOIN_MS, self(), Message),
    ok.

%% ---- for everybody

%% @doc Of a process on another node only the node is known.
-spec find(registry(), kind(), id()) -> {ok, entry()} | {error, not_found}.
find(Registry, Kind, Id) ->
    case find_here(Registry, Kind, Id) of
        {error, not_found} ->
            case erlmcp_native_registry_scope:find({Kind, Id}) of
                {ok, Pid} -> {ok, {Pid, #{node => node(Pid)}}};
                {error, _} = Error -> Error
            end;
        Found ->
            Found
    end.

find_here(Registry, Kind, Id) ->
    try ets:lookup(table(Registry, Kind), Id) of
        [Row] -> {ok, entry(Row)};
        [] -> {error, not_found}
    catch
        error:badarg -> {error, not_found}
    end.

%% @doc What is registered on this node.
-spec list(registry(), kind()) -> [{id(), entry()}].
list(Registry, Kind) ->
    try ets:tab2list(table(Registry, Kind)) of
        Rows -> [{element(1, Row), entry(Row)} || Row <- Rows]
    catch
        error:badarg -> []
    end.

-spec size(registry(), kind()) -> non_neg_integer().
size(Registry, Kind) ->
    case ets:info(table(Registry, Kind), size) of
        undefined -> 0;
        Size -> Size
    end.

entry({_, Pid, Config}) -> {Pid, Config};
entry({_, Pid, _, Config}) -> {Pid, Config}.

-spec server_of(registry(), Transport :: id()) -> {ok, id()} | {error, not_found}.
server_of(Registry, Id) ->
    try ets:lookup_element(transports(Registry), Id, 3) of
        ?UNBOUND -> {error, not_found};
        ServerId -> {ok, ServerId}
    catch
        error:badarg -> {error, not_found}
    end.

%% @doc Sends a message to a server.
-spec route_to_server(registry(), Server :: id(), sender(), term()) -> ok | {error, not_found}.
route_to_server(Registry, ServerId, TransportId, Message) ->
    case pid(servers(Registry), ServerId) of
        {error, not_found} ->
            Elsewhere = erlmcp_native_registry_scope:find({server, ServerId}),
            send(Elsewhere, {mcp_message, sender(TransportId), Message}, routed_to_servers);
        Pid ->
            send(Pid, {mcp_message, TransportId, Message}, routed_to_servers)
    end.

%% @doc Sends a message to a transport, or with `broadcast' to all that are bound to the server.
-spec route_to_transport(registry(), sender() | broadcast, Server :: id(), term()) ->
    ok | {error, not_found}.
route_to_transport(Registry, TransportId, ServerId, Message) ->
    Response = {mcp_response, ServerId, Message},
    case pid(transports(Registry), TransportId) of
        {error, not_found} when TransportId =:= broadcast ->
            broadcast(Registry, ServerId, Response);
        {error, not_found} ->
            elsewhere(Registry, TransportId, Response);
        Pid ->
            send(Pid, Response, routed_to_transports)
    end.

send({error, not_found} = Error, _, _) ->
    Error;
send({ok, Pid}, Message, Counter) ->
    send(Pid, Message, Counter);
send(Pid, Message, Counter) ->
    _ = Pid ! Message,
    erlmcp_native_registry_counters:add(Counter).

%% Two nodes may have transports of one id: a server hears which node it was, and answers there.
sender({_, Node} = TransportId) when is_atom(Node) -> TransportId;
sender(TransportId) -> {TransportId, node()}.

elsewhere(Registry, {TransportId, Node}, Response) when Node =:= node() ->
    send(pid(transports(Registry), TransportId), Response, routed_to_transports);
elsewhere(_, {TransportId, Node}, Response) when is_atom(Node) ->
    case erlmcp_native_registry_scope:find({transport, TransportId}, Node) of
        {ok, Pid} -> send(Pid, Response, routed_to_transports);
        {error, _} -> there(Node, TransportId, Response)
    end;
elsewhere(_, TransportId, Response) ->
    Found = erlmcp_native_registry_scope:find({transport, TransportId}),
    send(Found, Response, routed_to_transports).

%% It has sent a question, which may have come sooner than the news that it is registered.
there(Node, TransportId, Response) ->
    try lists:member(Node, nodes()) andalso
        erpc:call(Node, ?MODULE, deliver, [TransportId, Response], ?THERE_MS)
    of
        ok -> erlmcp_native_registry_counters:add(routed_to_transports);
        _ -> {error, not_found}
    catch
        _:_ -> {error, not_found}
    end.

%% @private For another node.
-spec deliver(Transport :: id(), term()) -> ok | {error, not_found}.
deliver(TransportId, Response) ->
    Registries = [erlmcp_native_registry, erlmcp_registry],
    case [Pid || R <- Registries, Pid <- [pid(transports(R), TransportId)], is_pid(Pid)] of
        [Pid | _] ->
            _ = Pid ! Response,
            ok;
        [] ->
            {error, not_found}
    end.

broadcast(Registry, ServerId, Response) ->
    Here = [Pid || {_, Pid} <- bound_to(Registry, ServerId)],
    Pids = Here ++ erlmcp_native_registry_scope:elsewhere({bound, ServerId}),
    lists:foreach(fun(Pid) -> Pid ! Response end, Pids),
    erlmcp_native_registry_counters:add(broadcast_deliveries, length(Pids)).

%% Not by a pattern: an id may look like one.
bound_to(Registry, ServerId) ->
    Table = bound(Registry),
    try ets:next(Table, {ServerId, ?BEFORE_ALL_IDS}) of
        Key -> bound_to(Table, ServerId, Key)
    catch
        error:badarg -> []
    end.

bound_to(Table, ServerId, {ServerId, _} = Key) ->
    Next = ets:next(Table, Key),
    ets:lookup(Table, Key) ++ bound_to(Table, ServerId, Next);
bound_to(_, _, _) ->
    [].

%% Where there is no registry nobody is registered.
pid(Table, Id) ->
    try
        ets:lookup_element(Table, Id, 2)
    catch
        error:badarg -> {error, not_found}
    end.

table(Registry, server) -> servers(Registry);
table(Registry, transport) -> transports(Registry).

servers(erlmcp_native_registry) -> erlmcp_native_registry_servers;
servers(erlmcp_registry) -> erlmcp_registry_servers.

transports(erlmcp_native_registry) -> erlmcp_native_registry_transports;
transports(erlmcp_registry) -> erlmcp_registry_transports.

bound(erlmcp_native_registry) -> erlmcp_native_registry_bound;
bound(erlmcp_registry) -> erlmcp_registry_bound.

names(erlmcp_native_registry) -> erlmcp_native_registry_names;
names(erlmcp_registry) -> erlmcp_registry_names.

filling(Name) -> list_to_atom(atom_to_list(Name) ++ "_filling").
