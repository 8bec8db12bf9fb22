%% @doc A transport that listens, in the shape of erlmcp's fork: every client that connects is
%% served under a transport id of its own, `ID:1', `ID:2' and so on, so that the same request id
%% of two clients is not mixed up. The connections end with the listener.
%%
%% Options: `port' and, if not 127.0.0.1, `host', or `endpoint'; `server_id'; `path';
%% `max_connections'; `guard', `max_owner_queue', `max_owner_bytes', `max_answer_bytes' and
%% `test_mode' as {@link erlmcp_native_transport_options} has them; and those of
%% {@link erlmcp_native_options:listener()}.
%%
%% A message that the registry routes to the listener's own id goes to all its clients.
-module(erlmcp_native_transport_listener).

-behaviour(gen_server).

-export([start_link/2, start_connection/4]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-record(state, {
    id :: erlmcp_native_registry:transport_id(),
    config :: map(),
    registry :: module(),
    listener :: pid(),
    monitor :: reference(),
    %% Apart from this process, which must be able to close the listener while it starts a
    %% connection.
    connections :: pid()
}).

-define(OF_TRANSPORT, [
    server_id,
    guard,
    max_owner_queue,
    max_owner_bytes,
    max_answer_bytes,
    test_mode
]).
-define(OF_LISTENER, [path, max_connections]).
-define(SAYS_NOTHING, [transport_id, type, pid, started_at]).

-spec start_link(erlmcp_native_registry:transport_id(), map()) -> {ok, pid()} | {error, term()}.
start_link(Id, Config) ->
    case {check(Config), whereis(erlmcp_native_listener_sup)} of
        {{error, Reason}, _} ->
            {error, {invalid_config, Reason}};
        %% Under erlmcp's supervisor it outlives this application, and may be started again.
        {_, undefined} ->
            {error, not_running};
        {{ok, Checked}, _} ->
            case gen_server:start_link(?MODULE, {Id, Config, Checked}, []) of
                {error, {shutdown, Reason}} -> {error, Reason};
                Result -> Result
            end
    end.

%% @private Called by the listener for each connection.
-spec start_connection(
    erlmcp_native_registry:transport_id(),
    map(),
    erlmcp_native_options:listener(),
    counters:counters_ref()
) -> {ok, pid()} | {error, term()}.
start_connection(Id, Transport, Socket, Numbers) ->
    ok = counters:add(Numbers, 1, 1),
    ConnectionId = connection_id(Id, counters:get(Numbers, 1)),
    case erlmcp_native_transport_routed:start_accepted(ConnectionId, Transport, Socket) of
        %% Where a listener is started again at once, connections of the one before it may still
        %% be ending.
        {error, {registry_registration_failed, already_registered}} ->
            start_connection(Id, Transport, Socket, Numbers);
        Result ->
            Result
    end.

%% @private
-spec init({erlmcp_native_registry:transport_id(), map(), map()}) ->
    {ok, #state{}} | {stop, {shutdown, term()}}.
init({Id, Config, Checked}) ->
    process_flag(trap_exit, true),
    Registry = erlmcp_native_registry:module(),
    case enter(Registry, Id, Config) of
        ok ->
            case listen(Id, Checked) of
                {ok, Listener, Connections} ->
                    {ok, #state{
                        id = Id,
                        config = Config,
                        registry = Registry,
                        listener = Listener,
                        monitor = monitor(process, Listener),
                        connections = Connections
                    }};
                {error, Reason} ->
                    leave(Registry, Id, Config),
                    {stop, {shutdown, Reason}}
            end;
        {error, Reason} ->
            {stop, {shutdown, {registry_registration_failed, Reason}}}
    end.

listen(Id, Checked) ->
    #{endpoint := Endpoint, listen := Listen, transport := Transport, socket := Socket} = Checked,
    Start = {?MODULE, start_connection, [Id, Transport, Socket, counters:new(1, [])]},
    {ok, Connections} = erlmcp_native_transport_sup:start_link(Start),
    Handler = {erlmcp_native_transport_sup, start_transport, [Connections, []]},
    case erlmcp_native:listen(Endpoint, Listen#{handler => Handler}) of
        {ok, Listener} -> {ok, Listener, Connections};
        {error, _} = Error -> Error
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call({send, Data}, _, State) ->
    {reply, to_all(Data, State), State};
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call(get_info, _, State) ->
    {reply, info(State), State};
handle_call(Request, _, State) ->
    {reply, erlmcp_native_transport_info:brief(Request, connected), State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({mcp_response, _, Data}, State) ->
    _ = to_all(Data, State),
    {noreply, State};
handle_info({'EXIT', Connections, Reason}, #state{connections = Connections} = State) ->
    {stop, Reason, State};
handle_info({'DOWN', Monitor, process, _, Reason}, #state{monitor = Monitor} = State) ->
    {stop, {listener_down, Reason}, State};
handle_info(_, State) ->
    {noreply, State}.

%% The supervisor of the connections is linked and ends with this process.
%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{id = Id, config = Config, registry = Registry, listener = Listener}) ->
    ok = erlmcp_native:close(Listener),
    leave(Registry, Id, Config).

check(Config) when is_map(Config) ->
    Transport = maps:with(?OF_TRANSPORT, Config),
    Own = ?OF_TRANSPORT ++ ?OF_LISTENER ++ ?SAYS_NOTHING ++ [host, port, endpoint],
    Socket = maps:without(Own, Config),
    Listen = maps:merge(maps:with(?OF_LISTENER, Config), Socket),
    Endpoint = maps:get(endpoint, Config, maps:with([host, port], Config)),
    case {erlmcp_native_options:endpoint(Endpoint), erlmcp_native_options:listener(Socket)} of
        {{ok, _}, {ok, Checked}} ->
            case erlmcp_native_transport_options:check_accepted(Transport, Checked) of
                {ok, _} ->
                    {ok, #{
                        endpoint => Endpoint,
                        listen => Listen,
                        transport => Transport,
                        socket => Checked
                    }};
                {error, {invalid_config, Reason}} ->
                    {error, Reason}
            end;
        {{error, Reason}, _} ->
            {error, Reason};
        {_, {error, Reason}} ->
            {error, Reason}
    end;
check(Config) ->
    {error, {option, options, Config}}.

%% Its connections are bound to the server: with itself they would get a broadcast twice.
enter(Registry, Id, Config) ->
    Entry = (maps:remove(server_id, Config))#{
        type => tcp, pid => self(), started_at => erlang:system_time(millisecond)
    },
    case registers(Config) of
        true -> erlmcp_native_registry:enter(Registry, Id, Entry);
        false -> ok
    end.

leave(Registry, Id, Config) ->
    case registers(Config) of
        true -> erlmcp_native_registry:leave(Registry, Id);
        false -> ok
    end.

registers(Config) -> not maps:get(test_mode, Config, false).

%% Binaries: an atom for each connection would never be freed.
connection_id(Id, Count) when is_atom(Id) ->
    connection_id(atom_to_binary(Id), Count);
connection_id(Id, Count) ->
    <<Id/binary, $:, (integer_to_binary(Count))/binary>>.

%% Not by calls: a connection that is busy would hold up the others.
to_all(Data, #state{connections = Connections, config = Config}) ->
    Message = {mcp_response, maps:get(server_id, Config, undefined), Data},
    Tell = fun(Pid) -> Pid ! Message end,
    lists:foreach(Tell, erlmcp_native_transport_sup:transports(Connections)).

info(#state{id = Id, config = Config, listener = Listener, connections = Connections}) ->
    Open = #{connections => length(erlmcp_native_transport_sup:transports(Connections))},
    #{
        transport_id => Id,
        type => tcp,
        status => listening,
        config => Config,
        connection => maps:merge(Open, socket(erlmcp_native:info(Listener)))
    }.

socket({ok, #{accepted := Accepted, sockname := Name}}) ->
    maps:put(accepted, Accepted, address(Name));
socket({error, _}) ->
    #{}.

address({Ip, Port}) when is_tuple(Ip) -> #{host => Ip, port => Port};
address(Address) -> #{endpoint => Address}.
