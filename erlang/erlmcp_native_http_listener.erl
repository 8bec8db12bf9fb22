%% @private The process that owns a listening socket and what its requests read. In registry mode
%% it is also the transport that answers come to.
-module(erlmcp_native_http_listener).

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([start/0]).

-type start() :: #{
    endpoint := erlmcp_native:endpoint(),
    path := module(),
    checked := erlmcp_native_http_config:checked()
}.

-record(state, {
    path :: module(),
    listener :: erlmcp_native_http_path:listener(),
    config :: erlmcp_native_http_config:config(),
    owner :: pid() | none,
    monitor :: reference() | none,
    draining = none :: gen_server:from() | none
}).

-define(REGISTER_AGAIN_MS, 100).

-spec start_link(start()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Start) ->
    case gen_server:start_link(?MODULE, Start, []) of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, Reason}} -> {error, Reason}
    end.

%% @private
-spec init(start()) -> {ok, #state{}} | {stop, {shutdown, erlmcp_native:reason()}}.
init(#{endpoint := Endpoint, path := Path, checked := Checked}) ->
    process_flag(trap_exit, true),
    #{own := #{owner := Owner}, listener := Options} = Checked,
    Key = {erlmcp_native_http_config, make_ref()},
    Completed = erlmcp_native_http_config:complete(Key, Path, Checked),
    Config = erlmcp_native_http_routed:enter(Completed#{listener => self()}),
    ok = persistent_term:put(Key, Config),
    case Path:listen(Endpoint, Options, {erlmcp_native_http_endpoint, serve, Key}) of
        {ok, Listener} ->
            {ok, #state{
                path = Path,
                listener = Listener,
                config = Config,
                owner = Owner,
                monitor = watch(Owner)
            }};
        {error, Reason} ->
            _ = persistent_term:erase(Key),
            ok = erlmcp_native_http_routed:leave(Config),
            {stop, {shutdown, Reason}}
    end.

watch(none) -> none;
watch(Owner) -> monitor(process, Owner).

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {noreply, #state{}} | {stop, normal, ok, #state{}}.
handle_call(info, _, #state{path = Path, listener = Listener, config = Config} = State) ->
    #{sessions_open := Open, endpoint := Endpoint} = Config,
    Info = Path:listener_info(Listener),
    {reply, {ok, Info#{sessions => counters:get(Open, 1), endpoint => Endpoint}}, State};
handle_call(drain, From, #state{path = Path, listener = Listener, config = Config} = State) ->
    #{key := Key, drain_ms := Ms} = Config,
    Draining = Path:listener_drain(Listener, Ms),
    Tell = fun(Pid) -> Pid ! {erlmcp_native_http, drain} end,
    lists:foreach(Tell, erlmcp_native_http_tables:of_listener(Key)),
    {noreply, State#state{listener = Draining, draining = From}};
handle_call(close, _, State) ->
    {stop, normal, ok, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info({mcp_response, _, Message}, #state{config = Config} = State) ->
    ok = erlmcp_native_http_routed:response(Config, Message),
    {noreply, State};
handle_info({'DOWN', Monitor, process, _, _}, #state{config = Config} = State) when
    Monitor =:= map_get(registry_monitor, Config)
->
    _ = erlang:send_after(?REGISTER_AGAIN_MS, self(), {?MODULE, register}),
    {noreply, State};
handle_info({?MODULE, register}, #state{config = Config} = State) ->
    {noreply, State#state{config = erlmcp_native_http_routed:restarted(Config)}};
handle_info(Msg, #state{path = Path, listener = Listener} = State) ->
    case Path:listener_handle_info(Msg, Listener) of
        {Events, Next} -> events(Events, State#state{listener = Next});
        unknown -> {noreply, State}
    end.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{path = Path, listener = Listener, config = #{key := Key} = Config}) ->
    ok = Path:listener_close(Listener),
    ok = erlmcp_native_http_routed:leave(Config),
    _ = persistent_term:erase(Key),
    ok.

events([], State) ->
    {noreply, State};
events([drained | _], #state{draining = From} = State) when From =/= none ->
    gen_server:reply(From, ok),
    {stop, normal, State};
events([{down, Reason} | _], #state{owner = Owner} = State) ->
    _ = Owner =/= none andalso (Owner ! {erlmcp_native, self(), {down, Reason, final}}),
    {stop, normal, State};
events([_ | Events], State) ->
    events(Events, State).
