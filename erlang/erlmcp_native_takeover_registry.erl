%% @doc Puts this application's routing in the place of erlmcp's registry while the application
%% runs. Asked for with
%%
%% ```
%% {erlmcp_native, [{takeover_registry, true}]}
%% '''
%%
%% apart from {@link erlmcp_native_takeover}, since a registry is erlmcp's own and works. One that
%% runs goes on under the other code, with its pid, its registrations, bindings and monitors; what
%% is in its queue is dealt with first. {@link restore/0}, or stopping the application, gives it
%% back in the same way.
%%
%% It is refused, with an error in the log, where the registry that is found is of no known shape,
%% or its state is of none. A reload of the module undoes it, without harm to the registry; that is
%% noticed within `takeover_check_ms' (5000), logged, and put right.
-module(erlmcp_native_takeover_registry).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, status/0, install/0, check/0, restore/0]).
-export([fresh_state/0, drop_tables/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([status/0, reason/0]).

-type status() :: off | active | restored | {refused, reason()}.

-type reason() ::
    erlmcp_native_takeover_code:reason()
    | {unknown_state, term()}
    %% The registry did not answer.
    | {registry, term()}.

-record(state, {
    status = restored :: active | restored | {refused, reason()},
    replaced = [] :: [erlmcp_native_takeover_code:replaced()],
    check_ms :: pos_integer()
}).

-define(REGISTRY, erlmcp_registry).
-define(CHECK_MS, 5000).

%% Its queue may be long.
-define(ANSWER_MS, 30000).

%% @doc Starts nothing unless the takeover is asked for.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    case application:get_env(erlmcp_native, takeover_registry, false) of
        true -> gen_server:start_link({local, ?MODULE}, ?MODULE, [], []);
        false -> ignore
    end.

-spec status() -> status().
status() ->
    call(status).

%% @doc Tries again after {@link restore/0} or a refusal.
-spec install() -> status().
install() ->
    call(install).

%% @doc Looks now whether a reload has undone it.
-spec check() -> status().
check() ->
    call(check).

%% @doc Gives the registry back.
-spec restore() -> status().
restore() ->
    call(restore).

%% @private The state of a registry that is started: what the original would begin with.
-spec fresh_state() -> erlmcp_native_registry_state:state().
fresh_state() ->
    {ok, Fresh} = application:get_env(erlmcp_native, ?MODULE),
    erlmcp_native_registry_state:renew(Fresh).

%% @private Called in the registry's process.
-spec drop_tables(State) -> State.
drop_tables(State) ->
    case erlmcp_native_registry_state:is_state(State) of
        true -> ok = erlmcp_native_registry_table:drop(?REGISTRY);
        false -> ok
    end,
    State.

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    CheckMs = application:get_env(erlmcp_native, takeover_check_ms, ?CHECK_MS),
    remind(CheckMs),
    {ok, put_in_place(#state{check_ms = CheckMs})}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(status, _, State) ->
    reply_status(State);
handle_call(install, _, #state{status = active} = State) ->
    reply_status(look(State));
handle_call(install, _, State) ->
    reply_status(put_in_place(State));
handle_call(check, _, State) ->
    reply_status(look(State));
handle_call(restore, _, State) ->
    reply_status(put_back(State));
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info({?MODULE, check}, #state{check_ms = CheckMs} = State) ->
    remind(CheckMs),
    {noreply, look(State)};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, State) ->
    _ = put_back(State),
    ok.

put_in_place(State) ->
    ok = erlmcp_native_registry_counters:new(),
    Learn = fun() -> learn_fresh_state(?REGISTRY) end,
    case each([fun found/0, Learn, fun forget_stale_tables/0]) of
        ok -> replace(State);
        {error, Reason} -> refused(Reason, State)
    end.

replace(State) ->
    case erlmcp_native_takeover_code:replace([?REGISTRY]) of
        {ok, Replaced} ->
            publish(),
            ?LOG_NOTICE("erlmcp_native: took the place of ~0p", [?REGISTRY]),
            State#state{status = active, replaced = Replaced};
        {error, Reason} ->
            refused(Reason, State)
    end.

refused(Reason, State) ->
    ?LOG_ERROR("erlmcp_native: takeover of erlmcp's registry refused: ~0p", [Reason]),
    State#state{status = {refused, Reason}, replaced = []}.

look(#state{status = active, replaced = Replaced} = State) ->
    case erlmcp_native_takeover_code:undone(Replaced) of
        [] ->
            State;
        Undone ->
            ?LOG_WARNING("erlmcp_native: a reload of ~0p undid the takeover", [Undone]),
            put_in_place(State)
    end;
look(State) ->
    State.

%% The tables go last: who still runs in the code that goes looks at them.
put_back(#state{status = active, replaced = Replaced} = State) ->
    case erlmcp_native_takeover_code:restore(Replaced) of
        [] ->
            _ = forget_tables(),
            ?LOG_NOTICE("erlmcp_native: put the original of ~0p back", [?REGISTRY]);
        Failed ->
            ?LOG_ERROR("erlmcp_native: could not put the original back: ~0p", [Failed])
    end,
    State#state{status = restored, replaced = []};
put_back(State) ->
    State.

%% ---- what goes before

each([]) ->
    ok;
each([Step | Steps]) ->
    case Step() of
        ok -> each(Steps);
        {error, _} = Error -> Error
    end.

found() ->
    case erlmcp_native_takeover_code:examine([?REGISTRY]) of
        {ok, _} -> ok;
        {error, _} = Error -> Error
    end.

%% The original's own word for it, in a process that nobody hears of.
learn_fresh_state(Module) ->
    case {code:ensure_loaded(Module), is_ours(Module)} of
        {{module, _}, true} ->
            ok;
        {{module, _}, false} ->
            {Pid, Monitor} = spawn_monitor(fun() ->
                receive
                    go -> exit({began, Module:init([])})
                end
            end),
            ok = logger:add_primary_filter(?MODULE, {fun is_not_of/2, Pid}),
            Pid ! go,
            Began =
                receive
                    {'DOWN', Monitor, process, _, Reason} -> Reason
                end,
            ok = logger:remove_primary_filter(?MODULE),
            keep_fresh_state(Began);
        {{error, Reason}, _} ->
            {error, {not_loaded, Module, Reason}}
    end.

is_ours(Module) ->
    erlang:module_loaded(Module) andalso
        lists:keymember(erlmcp_native, 1, Module:module_info(attributes)).

is_not_of(#{meta := #{pid := Pid}}, Pid) -> stop;
is_not_of(_, _) -> ignore.

keep_fresh_state({began, {ok, Fresh}}) ->
    case erlmcp_native_registry_state:is_state(Fresh) of
        true -> application:set_env(erlmcp_native, ?MODULE, Fresh);
        false -> {error, {unknown_state, Fresh}}
    end;
keep_fresh_state(Other) ->
    {error, {unknown_state, Other}}.

%% Those of an earlier takeover that a reload has undone: nobody has kept them since. Where there
%% are none the registry is not asked: one that is overloaded would answer late, and has its senders
%% wait as soon as it is taken over.
forget_stale_tables() ->
    case erlmcp_native_registry_table:exists(?REGISTRY) of
        true -> forget_tables();
        false -> ok
    end.

forget_tables() ->
    case whereis(?REGISTRY) of
        undefined -> ok;
        Registry -> forget_tables(Registry)
    end.

forget_tables(Registry) ->
    try sys:replace_state(Registry, fun ?MODULE:drop_tables/1, ?ANSWER_MS) of
        State ->
            case erlmcp_native_registry_state:is_state(State) of
                true -> ok;
                false -> {error, {unknown_state, State}}
            end
    catch
        exit:{Reason, _} when Reason =:= noproc; Reason =:= normal; Reason =:= shutdown -> ok;
        exit:{Reason, _} -> {error, {registry, Reason}}
    end.

%% Not waited for longer than for the rest: whoever routes next sees to it as well.
publish() ->
    try
        _ = gen_server:call(?REGISTRY, {erlmcp_native, await}, ?ANSWER_MS),
        ok
    catch
        exit:_ -> ok
    end.

reply_status(#state{status = Status} = State) ->
    {reply, Status, State}.

remind(CheckMs) ->
    erlang:send_after(CheckMs, self(), {?MODULE, check}).

call(Request) ->
    try
        gen_server:call(?MODULE, Request, infinity)
    catch
        exit:{noproc, _} -> off
    end.
