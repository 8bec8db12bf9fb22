%% @private The state of erlmcp's registry, of 0.5.0 and of the fork, as the code that takes its
%% place keeps it: after each change it is what the original would go on with. The tables of the
%% registry are changed along, where they are there.
-module(erlmcp_native_registry_state).

-export([is_state/1, renew/1, register/5, unregister/3, bind/3, unbind/2, died/3]).
-export([to_server/4, to_transport/4, answer/2, entries/1]).

-export_type([state/0]).

-type kind() :: erlmcp_native_registry_table:kind().
-type id() :: erlmcp_native_registry_table:id().

-type state() :: tuple().
%% The fields are in the order of the record of erlmcp's; the fork has three more.

-define(TABLE, erlmcp_native_registry_table).
-define(REGISTRY, erlmcp_registry).

-define(SERVERS, 2).
-define(TRANSPORTS, 3).
-define(BOUND, 4).
-define(CAPABILITIES, 5).
%% One name of each process, and its monitor.
-define(NAMES, 6).
-define(MONITORS, 7).
-define(METADATA, 8).
-define(START_TIME, 10).

-define(SIZE, 7).
-define(SIZE_OF_FORK, 10).

%% @doc Whether it is a state of one of the versions that are known.
-spec is_state(term()) -> boolean().
is_state(State) when
    element(1, State) =:= registry_state,
    tuple_size(State) =:= ?SIZE orelse tuple_size(State) =:= ?SIZE_OF_FORK
->
    lists:all(fun(N) -> is_map(element(N, State)) end, lists:seq(?SERVERS, ?MONITORS));
is_state(_) ->
    false.

%% @doc The state that a registry begins with, now.
-spec renew(state()) -> state().
renew(Fresh) when tuple_size(Fresh) =:= ?SIZE_OF_FORK ->
    setelement(?START_TIME, Fresh, erlang:system_time(second));
renew(Fresh) ->
    Fresh.

-spec register(kind(), id(), pid(), map(), state()) ->
    {ok | {error, already_registered}, state()}.
register(Kind, Id, Pid, Config, State) ->
    case get(field(Kind), Id, State) of
        {ok, {Existing, _}} ->
            erlmcp_native_registry_log:taken(Kind, Id, Existing),
            {{error, already_registered}, State};
        error ->
            Entered = watch(Pid, {Id, Kind}, put(field(Kind), Id, {Pid, Config}, State)),
            _ = in_table(fun() -> ?TABLE:insert(?REGISTRY, Kind, Id, Pid, Config) end),
            erlmcp_native_registry_log:registered(Kind, Id, Pid),
            {ok, configured(Kind, Id, Config, Entered)}
    end.

configured(server, Id, #{capabilities := Capabilities}, State) when Capabilities =/= undefined ->
    put(?CAPABILITIES, Id, Capabilities, State);
configured(transport, Id, #{server_id := ServerId}, State) when ServerId =/= undefined ->
    put(?BOUND, Id, ServerId, State);
configured(_, _, _, State) ->
    State.

-spec unregister(kind(), id(), state()) -> state().
unregister(Kind, Id, State) ->
    case get(field(Kind), Id, State) of
        {ok, {Pid, _}} ->
            erlmcp_native_registry_log:unregistered(Kind, Id),
            unwatch(Pid, remove(Kind, Id, State));
        error ->
            State
    end.

remove(Kind, Id, State) ->
    Less = unbind_all(Kind, Id, delete(field(Kind), Id, State)),
    _ = in_table(fun() -> ?TABLE:remove(?REGISTRY, Kind, Id) end),
    Less.

unbind_all(transport, Id, State) ->
    delete(?BOUND, Id, State);
unbind_all(server, Id, State) ->
    Others = maps:filter(fun(_, ServerId) -> ServerId =/= Id end, element(?BOUND, State)),
    setelement(?BOUND, delete(?CAPABILITIES, Id, State), Others).

-spec bind(Transport :: id(), Server :: id(), state()) ->
    {ok | {error, server_not_found | transport_not_found}, state()}.
bind(Id, ServerId, State) ->
    Known = get(?SERVERS, ServerId, State) =/= error orelse
        erlmcp_native_registry_scope:find({server, ServerId}) =/= {error, not_found},
    case {Known, get(?TRANSPORTS, Id, State)} of
        {true, {ok, _}} ->
            _ = in_table(fun() -> ?TABLE:bind(?REGISTRY, Id, ServerId) end),
            erlmcp_native_registry_log:bound(Id, ServerId),
            {ok, put(?BOUND, Id, ServerId, State)};
        {false, _} ->
            {{error, server_not_found}, State};
        {true, error} ->
            {{error, transport_not_found}, State}
    end.

-spec unbind(Transport :: id(), state()) -> state().
unbind(Id, State) ->
    _ = in_table(fun() -> ?TABLE:unbind(?REGISTRY, Id) end),
    delete(?BOUND, Id, State).

%% @doc Forgets all that a process was registered as. The original has a monitor for each name, and
%% knows one of them.
-spec died(pid(), Reason :: term(), state()) -> state().
died(Pid, Reason, State) ->
    case names(Pid, State) of
        [] ->
            erlmcp_native_registry_log:unknown_died(Pid, Reason),
            unwatch(Pid, State);
        Names ->
            Forget = fun({Kind, Id}, Acc) ->
                erlmcp_native_registry_log:died(Kind, Id, Pid, Reason),
                remove(Kind, Id, Acc)
            end,
            unwatch(Pid, lists:foldl(Forget, State, Names))
    end.

%% @doc Routes what was given to the process.
-spec to_server(Server :: id(), Transport :: id(), term(), state()) -> ok | {error, not_found}.
to_server(ServerId, TransportId, Message, State) ->
    case get(?SERVERS, ServerId, State) of
        {ok, {Pid, _}} -> send([Pid], {mcp_message, TransportId, Message}, routed_to_servers);
        error -> {error, not_found}
    end.

-spec to_transport(Transport :: id() | broadcast, Server :: id(), term(), state()) ->
    ok | {error, not_found}.
to_transport(Id, ServerId, Message, State) ->
    Response = {mcp_response, ServerId, Message},
    case get(?TRANSPORTS, Id, State) of
        {ok, {Pid, _}} -> send([Pid], Response, routed_to_transports);
        error when Id =:= broadcast -> send(bound(ServerId, State), Response, broadcast_deliveries);
        error -> {error, not_found}
    end.

send(Pids, Message, Counter) ->
    lists:foreach(fun(Pid) -> Pid ! Message end, Pids),
    erlmcp_native_registry_counters:add(Counter, length(Pids)).

bound(ServerId, State) ->
    [
        Pid
     || {Id, Server} <- maps:to_list(element(?BOUND, State)),
        Server =:= ServerId,
        {ok, {Pid, _}} <- [get(?TRANSPORTS, Id, State)]
    ].

%% @doc Answers a question about the state.
-spec answer(term(), state()) -> term().
answer({find_server, Id}, State) ->
    found(get(?SERVERS, Id, State));
answer({find_transport, Id}, State) ->
    found(get(?TRANSPORTS, Id, State));
answer({get_server_for_transport, Id}, State) ->
    found(get(?BOUND, Id, State));
answer(list_servers, State) ->
    maps:to_list(element(?SERVERS, State));
answer(list_transports, State) ->
    maps:to_list(element(?TRANSPORTS, State));
answer(Request, State) when tuple_size(State) =:= ?SIZE_OF_FORK ->
    answer_of_fork(Request, State);
answer(_, _) ->
    {error, unknown_request}.

found({ok, Value}) -> {ok, Value};
found(error) -> {error, not_found}.

answer_of_fork({test_health_check}, _) ->
    {ok, healthy};
answer_of_fork(get_health_status, State) ->
    #{
        servers_count => map_size(element(?SERVERS, State)),
        transports_count => map_size(element(?TRANSPORTS, State)),
        metadata_count => map_size(element(?METADATA, State)),
        uptime => erlang:system_time(second) - element(?START_TIME, State),
        status => healthy
    };
answer_of_fork(get_registry_stats, State) ->
    #{routed_to_servers := ToServers, routed_to_transports := ToTransports} =
        erlmcp_native_registry_counters:read(),
    #{
        servers => maps:keys(element(?SERVERS, State)),
        transports => maps:keys(element(?TRANSPORTS, State)),
        metadata_keys => maps:keys(element(?METADATA, State)),
        total_routes => ToServers + ToTransports
    };
answer_of_fork(_, _) ->
    {error, unknown_request}.

%% @doc What the tables are made of.
-spec entries(state()) -> erlmcp_native_registry_table:entries().
entries(State) ->
    #{
        server => element(?SERVERS, State),
        transport => element(?TRANSPORTS, State),
        bound => element(?BOUND, State)
    }.

%% ----

watch(Pid, Name, State) ->
    Named = put(?NAMES, Pid, Name, State),
    case get(?MONITORS, Pid, State) of
        {ok, _} -> Named;
        error -> put(?MONITORS, Pid, monitor(process, Pid), Named)
    end.

unwatch(Pid, State) ->
    case {names(Pid, State), get(?MONITORS, Pid, State)} of
        {[{Kind, Id} | _], _} ->
            put(?NAMES, Pid, {Id, Kind}, State);
        {[], {ok, Monitor}} ->
            true = demonitor(Monitor, [flush]),
            delete(?MONITORS, Pid, delete(?NAMES, Pid, State));
        {[], error} ->
            State
    end.

%% The table has them at hand.
names(Pid, State) ->
    case ?TABLE:exists(?REGISTRY) of
        true ->
            ?TABLE:names(?REGISTRY, Pid);
        false ->
            [
                {Kind, Id}
             || Kind <- [server, transport],
                {Id, {P, _}} <- maps:to_list(element(field(Kind), State)),
                P =:= Pid
            ]
    end.

in_table(Change) ->
    ?TABLE:exists(?REGISTRY) andalso Change().

field(server) -> ?SERVERS;
field(transport) -> ?TRANSPORTS.

get(Field, Key, State) -> maps:find(Key, element(Field, State)).

put(Field, Key, Value, State) ->
    setelement(Field, State, maps:put(Key, Value, element(Field, State))).

delete(Field, Key, State) -> setelement(Field, State, maps:remove(Key, element(Field, State))).
