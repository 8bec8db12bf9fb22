%% Stands in for erlmcp's registry: one process that keeps the names in a record of the original's
%% shape, which begins as ?STATE, and routes what is cast to it.

-behaviour(gen_server).

-export([start_link/0]).
-export([register_server/3, unregister_server/1, find_server/1, list_servers/0]).
-export([register_transport/3, unregister_transport/1, find_transport/1, list_transports/0]).
-export([bind_transport_to_server/2, unbind_transport/1, get_server_for_transport/1]).
-export([route_to_server/3, route_to_transport/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

register_server(Id, Pid, Config) -> call({register_server, Id, Pid, Config}).
register_transport(Id, Pid, Config) -> call({register_transport, Id, Pid, Config}).
unregister_server(Id) -> call({unregister_server, Id}).
unregister_transport(Id) -> call({unregister_transport, Id}).
find_server(Id) -> call({find_server, Id}).
find_transport(Id) -> call({find_transport, Id}).
list_servers() -> call(list_servers).
list_transports() -> call(list_transports).
bind_transport_to_server(Id, Server) -> call({bind_transport_to_server, Id, Server}).
unbind_transport(Id) -> call({unbind_transport, Id}).
get_server_for_transport(Id) -> call({get_server_for_transport, Id}).
route_to_server(Id, From, Message) -> cast({route_to_server, Id, From, Message}).
route_to_transport(Id, From, Message) -> cast({route_to_transport, Id, From, Message}).

call(Request) -> gen_server:call(?MODULE, Request).
cast(Request) -> gen_server:cast(?MODULE, Request).

init([]) ->
    process_flag(trap_exit, true),
    logger:info("Starting MCP registry"),
    {ok, ?STATE}.

handle_call({register_server, Id, Pid, Config}, _, State) ->
    register(server, 2, Id, Pid, Config, State);
handle_call({register_transport, Id, Pid, Config}, _, State) ->
    register(transport, 3, Id, Pid, Config, State);
handle_call({unregister_server, Id}, _, State) ->
    {reply, ok, unregister(2, Id, State)};
handle_call({unregister_transport, Id}, _, State) ->
    {reply, ok, unregister(3, Id, State)};
handle_call({find_server, Id}, _, State) ->
    {reply, found(maps:find(Id, element(2, State))), State};
handle_call({find_transport, Id}, _, State) ->
    {reply, found(maps:find(Id, element(3, State))), State};
handle_call({get_server_for_transport, Id}, _, State) ->
    {reply, found(maps:find(Id, element(4, State))), State};
handle_call(list_servers, _, State) ->
    {reply, maps:to_list(element(2, State)), State};
handle_call(list_transports, _, State) ->
    {reply, maps:to_list(element(3, State)), State};
handle_call({bind_transport_to_server, Id, Server}, _, State) ->
    case {is_map_key(Server, element(2, State)), is_map_key(Id, element(3, State))} of
        {true, true} -> {reply, ok, put_in(4, Id, Server, State)};
        {false, _} -> {reply, {error, server_not_found}, State};
        {true, false} -> {reply, {error, transport_not_found}, State}
    end;
handle_call({unbind_transport, Id}, _, State) ->
    {reply, ok, take_from(4, Id, State)};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

handle_cast({route_to_server, Id, From, Message}, State) ->
    send(maps:find(Id, element(2, State)), {mcp_message, From, Message}),
    {noreply, State};
handle_cast({route_to_transport, Id, From, Message}, State) ->
    send(maps:find(Id, element(3, State)), {mcp_response, From, Message}),
    {noreply, State}.

handle_info({'DOWN', _, process, Pid, _}, State) ->
    case element(6, State) of
        #{Pid := {Id, server}} -> {noreply, unregister(2, Id, State)};
        #{Pid := {Id, transport}} -> {noreply, unregister(3, Id, State)};
        #{} -> {noreply, State}
    end;
handle_info(_, State) ->
    {noreply, State}.

terminate(_, _) -> ok.

code_change(_, State, _) -> {ok, State}.

%% As the original does it: a monitor for each name, of which it knows the last.
register(Kind, Field, Id, Pid, Config, State) ->
    case element(Field, State) of
        #{Id := _} ->
            {reply, {error, already_registered}, State};
        #{} ->
            Named = put_in(6, Pid, {Id, Kind}, put_in(Field, Id, {Pid, Config}, State)),
            Watched = put_in(7, Pid, monitor(process, Pid), Named),
            {reply, ok, configured(Kind, Id, Config, Watched)}
    end.

configured(server, Id, #{capabilities := Some}, State) -> put_in(5, Id, Some, State);
configured(transport, Id, #{server_id := Server}, State) -> put_in(4, Id, Server, State);
configured(_, _, _, State) -> State.

unregister(Field, Id, State) ->
    case element(Field, State) of
        #{Id := {Pid, _}} ->
            _ = demonitor(maps:get(Pid, element(7, State), make_ref()), [flush]),
            Less = lists:foldl(fun(N, S) -> take_from(N, Pid, S) end, State, [6, 7]),
            unbind_all(Field, Id, take_from(Field, Id, Less));
        #{} ->
            State
    end.

unbind_all(3, Id, State) ->
    take_from(4, Id, State);
unbind_all(2, Id, State) ->
    Others = maps:filter(fun(_, Server) -> Server =/= Id end, element(4, State)),
    setelement(4, take_from(5, Id, State), Others).

found({ok, Value}) -> {ok, Value};
found(error) -> {error, not_found}.

send({ok, {Pid, _}}, Message) -> Pid ! Message;
send(error, _) -> dropped.

put_in(N, Key, Value, State) -> setelement(N, State, maps:put(Key, Value, element(N, State))).

take_from(N, Key, State) -> setelement(N, State, maps:remove(Key, element(N, State))).
