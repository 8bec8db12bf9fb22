%% @doc An HTTP server as a transport of erlmcp's fork: the sessions of all clients are served by
%% the server `server_id' of the registry, as {@link erlmcp_native_http} does it.
%%
%% Options: `port' and, if not 127.0.0.1, `host'; `server_id'; `test_mode' (is not registered); and
%% those of {@link erlmcp_native_http:listen/2}, but for `handler' and `owner'. What the registry
%% routes to the transport's id goes to all sessions.
-module(erlmcp_native_http_transport_listener).

-behaviour(gen_server).

-export([start_link/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-record(state, {
    id :: erlmcp_native_registry:transport_id(),
    config :: map(),
    registry :: module(),
    listener :: pid()
}).

-define(NOT_OF_THE_LISTENER, [
    host, port, handler, owner, test_mode, transport_id, type, pid, started_at
]).

-spec start_link(erlmcp_native_registry:transport_id(), map()) -> {ok, pid()} | {error, term()}.
start_link(_, #{handler := Handler}) ->
    {error, {invalid_config, {option, handler, Handler}}};
start_link(Id, #{server_id := _} = Config) ->
    %% Under erlmcp's supervisor it outlives this application, and may be started again.
    case whereis(erlmcp_native_http_sup) of
        undefined ->
            {error, not_running};
        _ ->
            case gen_server:start_link(?MODULE, {Id, Config}, []) of
                {error, {shutdown, Reason}} -> {error, Reason};
                Result -> Result
            end
    end;
start_link(_, Config) when is_map(Config) ->
    {error, {invalid_config, {missing_required_fields, [server_id]}}};
start_link(_, Config) ->
    {error, {invalid_config, {option, options, Config}}}.

%% @private
-spec init({erlmcp_native_registry:transport_id(), map()}) ->
    {ok, #state{}} | {stop, {shutdown, term()}}.
init({Id, Config}) ->
    process_flag(trap_exit, true),
    Registry = erlmcp_native_registry:module(),
    Options = maps:without(?NOT_OF_THE_LISTENER, Config),
    case erlmcp_native_http:listen(maps:with([host, port], Config), Options#{owner => self()}) of
        {ok, Listener} ->
            State = #state{id = Id, config = Config, registry = Registry, listener = Listener},
            entered(enter(State), State);
        {error, {option, _, _} = Reason} ->
            {stop, {shutdown, {invalid_config, Reason}}};
        {error, Reason} ->
            {stop, {shutdown, Reason}}
    end.

%% The listener is in the registry as well, bound to the server: this name is only another for it.
enter(#state{config = #{test_mode := true}}) ->
    ok;
enter(#state{id = Id, config = Config, registry = Registry}) ->
    Entry = maps:without([server_id, tls], Config),
    erlmcp_native_registry:enter(Registry, Id, Entry#{
        type => http, pid => self(), started_at => erlang:system_time(millisecond)
    }).

entered(ok, State) ->
    {ok, State};
entered({error, Reason}, #state{listener = Listener}) ->
    ok = erlmcp_native_http:close(Listener),
    {stop, {shutdown, {registry_registration_failed, Reason}}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call({send, Data}, _, #state{config = #{server_id := ServerId}} = State) ->
    {noreply, Sent} = handle_info({mcp_response, ServerId, iolist_to_binary(Data)}, State),
    {reply, ok, Sent};
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
handle_info({mcp_response, _, _} = Message, #state{listener = Listener} = State) ->
    Listener ! Message,
    {noreply, State};
handle_info({erlmcp_native, Listener, {down, Reason, final}}, State) when
    Listener =:= State#state.listener
->
    {stop, {listener_down, Reason}, State};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{id = Id, config = Config, registry = Registry, listener = Listener}) ->
    ok = erlmcp_native_http:close(Listener),
    case Config of
        #{test_mode := true} -> ok;
        #{} -> erlmcp_native_registry:leave(Registry, Id)
    end.

info(#state{id = Id, config = Config, listener = Listener}) ->
    #{
        transport_id => Id,
        type => http,
        status => listening,
        config => maps:without([tls], Config),
        connection =>
            case erlmcp_native_http:info(Listener) of
                {ok, Info} -> Info;
                {error, _} -> #{}
            end
    }.
