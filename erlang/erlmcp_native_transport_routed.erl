%% @doc A transport in the shape of erlmcp's fork, which is also the one that erlmcp's transport
%% supervisor starts: it has a name in the registry, passes what arrives to a server, and sends
%% what the server answers.
%%
%% The registry is erlmcp's where erlmcp runs, else {@link erlmcp_native_registry}; the transport
%% is entered at its start, again should the registry have been restarted, and removed at its end.
%% The server is the option `server_id', or else what the transport is bound to in the registry.
%% A server of erlmcp is guarded: what it could not answer, because it is not there or has
%% died, is answered with an error.
%%
%% The options are those of {@link erlmcp_native_transport_options}.
-module(erlmcp_native_transport_routed).

-behaviour(erlmcp_native_transport).

-include_lib("kernel/include/logger.hrl").

-export([start_link/2, start_accepted/3, send/2, close/1, get_info/1]).
-export([init/1, claim/2, guard/1, unread/1, deliver/2, event/2, handle_info/2, info/1]).
-export([terminate/1]).

-type id() :: erlmcp_native_registry:transport_id().

-record(shape, {
    id :: id(),
    %% As given, or as the registry's binding was at the last look.
    server_id :: erlmcp_native_registry:server_id() | undefined,
    given :: boolean(),
    guard :: auto | false | erlmcp_native_guard:receiver(),
    registered :: false | map(),
    registry :: module(),
    registry_monitor = none :: reference() | none,
    server = none :: {pid(), reference()} | none
}).

%% A registry that has this much to do is not also called.
-define(CALL_BELOW, 10).

-define(REGISTER_AGAIN_MS, 100).

-spec start_link(id(), map()) -> {ok, pid()} | {error, term()}.
start_link(Id, Given) ->
    case erlmcp_native_transport_options:check(Given) of
        {ok, Options} -> erlmcp_native_transport:start_link(?MODULE, {dial, Id, Options});
        {error, _} = Error -> Error
    end.

%% @doc For a connection that a listener will give.
-spec start_accepted(id(), map(), erlmcp_native_options:listener()) ->
    {ok, pid()} | {error, term()}.
start_accepted(Id, Given, Listener) ->
    case erlmcp_native_transport_options:check_accepted(Given, Listener) of
        {ok, Options} -> erlmcp_native_transport:start_link(?MODULE, {accept, Id, Options});
        {error, _} = Error -> Error
    end.

-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Transport, Data) ->
    erlmcp_native_transport:send(Transport, Data).

%% @doc Ends the transport; its supervisor may start it again.
-spec close(pid()) -> ok.
close(Transport) ->
    erlmcp_native_transport:close(Transport).

-spec get_info(pid()) -> map() | {error, not_connected}.
get_info(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).

%% @private
-spec init({erlmcp_native_transport:source(), id(), erlmcp_native_transport_options:options()}) ->
    {ok, erlmcp_native_transport:source(), erlmcp_native_transport_options:options(), #shape{}}
    | {stop, {shutdown, term()}}.
init({Source, Id, Options}) ->
    #{server_id := ServerId, guard := Guard, register := Register, given := Given} = Options,
    Type = maps:get(type, Options, tcp),
    Entry = Given#{type => Type, pid => self(), started_at => erlang:system_time(millisecond)},
    Shape = #shape{
        id = Id,
        server_id = ServerId,
        given = ServerId =/= undefined,
        guard = Guard,
        registered = Register andalso Entry,
        registry = erlmcp_native_registry:module()
    },
    case register(Shape) of
        {ok, Registered} -> {ok, Source, Options, Registered};
        {error, Reason} -> {stop, {shutdown, {registry_registration_failed, Reason}}}
    end.

%% @private
-spec claim(pid(), #shape{}) -> #shape{}.
claim(_, Shape) ->
    Shape.

%% @private
-spec guard(#shape{}) -> erlmcp_native_guard:receiver() | false.
guard(#shape{guard = auto, registry = erlmcp_registry}) -> server;
guard(#shape{guard = auto}) -> false;
guard(#shape{guard = Guard}) -> Guard.

%% @private
-spec unread(#shape{}) -> {non_neg_integer() | absent, #shape{}}.
unread(#shape{registry = Registry} = Shape) ->
    Routed = queue_length(whereis(Registry)),
    case find(Routed, Shape) of
        #shape{server = none} = Absent -> {absent, Absent};
        #shape{server = {Pid, _}} = Found -> {Routed + queue_length(Pid), Found}
    end.

%% @private
-spec deliver([binary()], #shape{}) -> Undelivered :: [binary()].
deliver(Messages, #shape{server_id = undefined, id = Id}) ->
    ?LOG_WARNING("erlmcp_native: transport ~0p is bound to no server", [Id]),
    Messages;
deliver(Messages, #shape{registry = Registry, server_id = ServerId, id = Id}) ->
    [Message || Message <- Messages, Registry:route_to_server(ServerId, Id, Message) =/= ok].

%% @private
-spec event(term(), #shape{}) -> ok.
event({down, Was, Reason, Next}, #shape{id = Id}) when Was =:= open; Next =:= final ->
    ?LOG_NOTICE("erlmcp_native: transport ~0p is down: ~0p, ~0p", [Id, Reason, Next]);
event(_, _) ->
    ok.

%% @private
-spec handle_info(term(), #shape{}) ->
    {ok | {answer, iodata()} | receiver_lost, #shape{}} | unknown.
handle_info({mcp_response, ServerId, Data}, #shape{server_id = ServerId} = Shape) ->
    {{answer, Data}, Shape};
handle_info({mcp_response, _, Data}, #shape{given = false} = Shape) ->
    {{answer, Data}, Shape};
handle_info({mcp_response, ServerId, _}, #shape{id = Id} = Shape) ->
    ?LOG_WARNING("erlmcp_native: transport ~0p is not bound to ~0p, which answers", [Id, ServerId]),
    {ok, Shape};
handle_info({'DOWN', Monitor, process, _, _}, #shape{server = {_, Monitor}} = Shape) ->
    {receiver_lost, Shape#shape{server = none}};
handle_info({'DOWN', Monitor, process, _, _}, #shape{registry_monitor = Monitor} = Shape) ->
    {ok, register_later(Shape#shape{registry_monitor = none})};
handle_info({?MODULE, register}, #shape{} = Shape) ->
    {ok, register_again(Shape)};
handle_info(_, _) ->
    unknown.

%% @private
-spec info(#shape{}) -> #{transport_id := id(), server_id := term()}.
info(#shape{id = Id, server_id = ServerId}) ->
    #{transport_id => Id, server_id => ServerId}.

%% @private
-spec terminate(#shape{}) -> ok.
terminate(#shape{registered = false}) ->
    ok;
terminate(#shape{id = Id, registry = Registry, registry_monitor = Monitor}) ->
    _ = Monitor =/= none andalso erlmcp_native_registry:leave(Registry, Id),
    ok.

register(#shape{registered = false} = Shape) ->
    {ok, Shape};
register(#shape{id = Id, registry = Registry, registered = Entry} = Shape) ->
    Monitor = monitor(process, Registry),
    case erlmcp_native_registry:enter(Registry, Id, Entry) of
        ok ->
            {ok, Shape#shape{registry_monitor = Monitor}};
        {error, _} = Error ->
            true = demonitor(Monitor, [flush]),
            Error
    end.

register_later(Shape) ->
    _ = erlang:send_after(?REGISTER_AGAIN_MS, self(), {?MODULE, register}),
    Shape.

register_again(#shape{id = Id} = Shape) ->
    case register(Shape) of
        {ok, Registered} ->
            Registered;
        {error, already_registered} ->
            ?LOG_ERROR("erlmcp_native: the name of transport ~0p was taken by another", [Id]),
            Shape;
        {error, _} ->
            register_later(Shape)
    end.

%% The lookup is a call into the registry's queue.
find(Routed, #shape{server = {_, _}} = Shape) when Routed >= ?CALL_BELOW ->
    Shape;
find(_, Shape) ->
    #shape{registry = Registry, server_id = ServerId} = Bound = bound(Shape),
    case ServerId =/= undefined andalso call(fun() -> Registry:find_server(ServerId) end) of
        {ok, {Pid, _}} -> watch(Pid, Bound);
        _ -> watch(none, Bound)
    end.

bound(#shape{given = true} = Shape) ->
    Shape;
bound(#shape{registry = Registry, id = Id} = Shape) ->
    case call(fun() -> Registry:get_server_for_transport(Id) end) of
        {ok, ServerId} -> Shape#shape{server_id = ServerId};
        {error, _} -> Shape#shape{server_id = undefined}
    end.

watch(Pid, #shape{server = {Pid, _}} = Shape) ->
    Shape;
watch(Next, #shape{server = {_, Monitor}} = Shape) ->
    true = demonitor(Monitor, [flush]),
    watch(Next, Shape#shape{server = none});
watch(none, Shape) ->
    Shape;
watch(Pid, Shape) ->
    Shape#shape{server = {Pid, monitor(process, Pid)}}.

queue_length(Pid) when is_pid(Pid), node(Pid) =:= node() ->
    case process_info(Pid, message_queue_len) of
        {_, Length} -> Length;
        undefined -> 0
    end;
queue_length(_) ->
    0.

%% The registry may be gone, or be restarting.
call(Fun) ->
    try
        Fun()
    catch
        exit:{Reason, _} -> {error, {registry, Reason}}
    end.
