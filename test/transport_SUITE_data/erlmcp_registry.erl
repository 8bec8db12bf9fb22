%% Stands in for erlmcp's registry: one process, routing by casts.
-module(erlmcp_registry).

-behaviour(gen_server).

-export([start_link/0, register_server/3, register_transport/3, unregister_transport/1]).
-export([find_server/1, find_transport/1, get_server_for_transport/1]).
-export([route_to_server/3, route_to_transport/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

start_link() -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

register_server(Id, Pid, Config) -> call({register, {server, Id}, Pid, Config}).

register_transport(Id, Pid, Config) -> call({register, {transport, Id}, Pid, Config}).

unregister_transport(Id) -> call({unregister, {transport, Id}}).

find_server(Id) -> call({find, {server, Id}}).

find_transport(Id) -> call({find, {transport, Id}}).

get_server_for_transport(Id) ->
    case find_transport(Id) of
        {ok, {_, #{server_id := ServerId}}} -> {ok, ServerId};
        _ -> {error, not_found}
    end.

route_to_server(ServerId, TransportId, Message) ->
    gen_server:cast(?MODULE, {{server, ServerId}, {mcp_message, TransportId, Message}}).

route_to_transport(TransportId, ServerId, Message) ->
    gen_server:cast(?MODULE, {{transport, TransportId}, {mcp_response, ServerId, Message}}).

init([]) -> {ok, #{}}.

handle_call({register, Name, _, _}, _, Names) when is_map_key(Name, Names) ->
    {reply, {error, already_registered}, Names};
handle_call({register, Name, Pid, Config}, _, Names) ->
    _ = monitor(process, Pid),
    {reply, ok, Names#{Name => {Pid, Config}}};
handle_call({unregister, Name}, _, Names) ->
    {reply, ok, maps:remove(Name, Names)};
handle_call({find, Name}, _, Names) ->
    case Names of
        #{Name := Found} -> {reply, {ok, Found}, Names};
        #{} -> {reply, {error, not_found}, Names}
    end.

handle_cast({Name, Message}, Names) ->
    case Names of
        #{Name := {Pid, _}} -> Pid ! Message;
        #{} -> dropped
    end,
    {noreply, Names}.

handle_info({'DOWN', _, process, Pid, _}, Names) ->
    {noreply, maps:filter(fun(_, {Registered, _}) -> Registered =/= Pid end, Names)}.

call(Request) -> gen_server:call(?MODULE, Request).
