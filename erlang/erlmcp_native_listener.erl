%% @doc A listening socket as a process. Each connection gets a process of its own, started under
%% a supervisor, which is given the socket.
-module(erlmcp_native_listener).

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([config/0, handler/0]).

-type handler() :: {module(), atom(), [term()]}.
%% `apply(Module, Function, Args)' starts the process of a connection and returns `{ok, Pid}'. The
%% process receives `{erlmcp_native_socket, PathModule, Socket}' for
%% {@link erlmcp_native_link:adopt/2}.

-type config() :: #{
    owner := pid(),
    active := erlmcp_native_conn:active(),
    handler := handler() | none,
    max_connections := pos_integer(),
    path := module(),
    endpoint := erlmcp_native:endpoint(),
    listener := erlmcp_native_options:listener()
}.

-record(state, {
    path :: module(),
    listener :: erlmcp_native_path:listener(),
    owner :: pid(),
    monitor :: reference(),
    start :: {owner, erlmcp_native_conn:active()} | handler(),
    max :: pos_integer(),
    connections = #{} :: #{reference() => []},
    accepted = 0 :: non_neg_integer(),
    %% There may be connections to accept and no notice will come.
    pending = false :: boolean()
}).

-define(ACCEPT_BATCH, 16).

-spec start_link(config()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Config) ->
    case gen_server:start_link(?MODULE, Config, []) of
        {ok, Pid} -> {ok, Pid};
        {error, {shutdown, Reason}} -> {error, Reason}
    end.

%% @private
-spec init(config()) -> {ok, #state{}} | {stop, {shutdown, erlmcp_native:reason()}}.
init(#{path := Path, endpoint := Endpoint, listener := Options, owner := Owner} = Config) ->
    #{active := Active, handler := Handler, max_connections := Max} = Config,
    case Path:listen(Endpoint, Options) of
        {ok, Listener} ->
            {ok, #state{
                path = Path,
                listener = Listener,
                owner = Owner,
                monitor = monitor(process, Owner),
                start = start(Handler, Active),
                max = Max
            }};
        {error, Reason} ->
            {stop, {shutdown, Reason}}
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call(info, _, #state{path = Path, listener = Listener} = State) ->
    Info = (Path:listener_info(Listener))#{
        connections => map_size(State#state.connections),
        max_connections => State#state.max,
        accepted => State#state.accepted
    },
    {reply, {ok, Info}, State};
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
handle_info({'DOWN', Monitor, process, _, _}, #state{connections = Connections} = State) when
    is_map_key(Monitor, Connections)
->
    resume(State#state{connections = maps:remove(Monitor, Connections)});
handle_info({?MODULE, accept}, State) ->
    accept(State);
handle_info(Msg, #state{path = Path, listener = Listener} = State) ->
    case Path:listener_handle_info(Msg, Listener) of
        {ready, Next} -> accept(State#state{listener = Next});
        {none, Next} -> {noreply, State#state{listener = Next}};
        unknown -> {noreply, State}
    end.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{path = Path, listener = Listener}) ->
    Path:listener_close(Listener).

start(none, Active) -> {owner, Active};
start(Handler, _) -> Handler.

%% At the limit nothing is accepted: the kernel's backlog holds who comes, and then refuses.
accept(#state{connections = Connections, max = Max} = State) when map_size(Connections) >= Max ->
    {noreply, State#state{pending = true}};
accept(#state{path = Path, listener = Listener, connections = Connections, max = Max} = State) ->
    Room = min(?ACCEPT_BATCH, Max - map_size(Connections)),
    {Sockets, Status, Next} = Path:accept(Listener, Room),
    Accepted = lists:foldl(fun hand_over/2, State#state{listener = Next}, Sockets),
    case Status of
        armed ->
            {noreply, Accepted#state{pending = false}};
        more ->
            self() ! {?MODULE, accept},
            {noreply, Accepted#state{pending = false}};
        {down, Reason} ->
            Accepted#state.owner ! {erlmcp_native, self(), {down, Reason, final}},
            {stop, normal, Accepted}
    end.

resume(#state{pending = true} = State) -> accept(State);
resume(State) -> {noreply, State}.

hand_over(Socket, #state{path = Path} = State) ->
    case start_process(State) of
        {ok, Pid} ->
            Monitor = monitor(process, Pid),
            case Path:give(Socket, Pid) of
                {ok, Given} ->
                    announce(Pid, State),
                    Pid ! {erlmcp_native_socket, Path, Given},
                    ok;
                {error, _} ->
                    true = exit(Pid, shutdown),
                    ok
            end,
            #state{connections = Connections, accepted = Count} = State,
            State#state{connections = Connections#{Monitor => []}, accepted = Count + 1};
        {error, Reason} ->
            logger:error("erlmcp_native: no process for a connection: ~0p", [Reason]),
            ok = Path:close(Socket),
            State
    end.

start_process(#state{start = {owner, Active}, owner = Owner}) ->
    erlmcp_native_conn_sup:start_conn(#{owner => Owner, active => Active});
start_process(#state{start = {Module, Function, Args}}) ->
    try apply(Module, Function, Args) of
        {ok, Pid} when is_pid(Pid) -> {ok, Pid};
        Other -> {error, Other}
    catch
        Class:Reason:Stack -> {error, {Class, Reason, Stack}}
    end.

announce(Pid, #state{start = {owner, _}, owner = Owner}) ->
    Owner ! {erlmcp_native, self(), {accepted, Pid}},
    ok;
announce(_, _) ->
    ok.
