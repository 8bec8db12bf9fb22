%% @doc Puts this application's implementations in the place of modules of erlmcp,
%% `erlmcp_transport_tcp', `erlmcp_transport_http', `erlmcp_transport_stdio',
%% `erlmcp_transport_stdio_new', `erlmcp_stdio' and `erlmcp_json_rpc', while the application runs.
%% Asked for with
%%
%% ```
%% {erlmcp_native, [{takeover, true}]}
%% '''
%%
%% Unchanged calls such as `erlmcp_client:start_link({tcp, #{host => Host, port => Port}}, #{})'
%% then work. The replacements were compiled apart and lie in `priv/takeover': they are not on the
%% code path, where two modules of one name would be an error to dialyzer and to releases.
%%
%% It is refused, with an error in the log, unless every function of the module that is found is
%% offered by its replacement, and while processes run in that module. A reload of one of
%% the modules, by hand or by a release upgrade, undoes it; that is noticed within
%% `takeover_check_ms' (5000), logged, and put right, where the module that was loaded is still of
%% a known shape. The originals are put back by {@link restore/0} and when the application stops.
-module(erlmcp_native_takeover).

-behaviour(gen_server).

-include_lib("kernel/include/logger.hrl").

-export([start_link/0, status/0, install/0, check/0, restore/0, open/1, open_http/1]).
-export([start_transport/2]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([status/0]).

-type status() :: off | active | restored | {refused, erlmcp_native_takeover_code:reason()}.

-record(state, {
    status = restored :: active | restored | {refused, erlmcp_native_takeover_code:reason()},
    replaced = [] :: [erlmcp_native_takeover_code:replaced()],
    transports :: pid(),
    check_ms :: pos_integer()
}).

-define(CHECK_MS, 5000).

%% @doc Starts nothing unless the takeover is asked for.
-spec start_link() -> {ok, pid()} | ignore | {error, term()}.
start_link() ->
    case application:get_env(erlmcp_native, takeover, false) of
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

%% @doc Puts the originals back and ends the connections that were made for unchanged calls.
-spec restore() -> status().
restore() ->
    call(restore).

%% @private The transport of a process that sends by its options alone.
-spec open(map()) -> {ok, pid()} | {error, term()}.
open(Options) ->
    open(erlmcp_native_transport_owner, Options).

%% @private The same over HTTP.
-spec open_http(map()) -> {ok, pid()} | {error, term()}.
open_http(Options) ->
    open(erlmcp_native_http_transport, Options).

open(Module, Options) ->
    case call({open, Module, Options}) of
        off -> {error, not_connected};
        Result -> Result
    end.

%% @private
-spec start_transport(module(), map()) -> {ok, pid()} | {error, term()}.
start_transport(Module, Options) ->
    Module:start_link(Options).

%% @private
-spec init([]) -> {ok, #state{}}.
init([]) ->
    process_flag(trap_exit, true),
    Start = {?MODULE, start_transport, []},
    {ok, Transports} = erlmcp_native_transport_sup:start_link(Start),
    CheckMs = application:get_env(erlmcp_native, takeover_check_ms, ?CHECK_MS),
    remind(CheckMs),
    {ok, put_in_place(#state{transports = Transports, check_ms = CheckMs})}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(status, _, State) ->
    {reply, State#state.status, State};
handle_call(install, _, #state{status = active} = State) ->
    reply_status(look(State));
handle_call(install, _, State) ->
    reply_status(put_in_place(State));
handle_call(check, _, State) ->
    reply_status(look(State));
handle_call(restore, _, State) ->
    ok = erlmcp_native_transport_sup:stop_all(State#state.transports),
    reply_status(put_back(State));
handle_call({open, Module, Options}, _, #state{transports = Transports} = State) ->
    Result = erlmcp_native_transport_sup:start_transport(Transports, [Module, Options]),
    {reply, Result, State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info({?MODULE, check}, #state{check_ms = CheckMs} = State) ->
    remind(CheckMs),
    {noreply, look(State)};
handle_info({'EXIT', Transports, Reason}, #state{transports = Transports} = State) ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, State) ->
    _ = put_back(State),
    ok.

put_in_place(State) ->
    case erlmcp_native_takeover_code:replace(modules()) of
        {ok, Replaced} ->
            ?LOG_NOTICE("erlmcp_native: took the place of ~0p", [modules()]),
            State#state{status = active, replaced = Replaced};
        {error, Reason} ->
            ?LOG_ERROR("erlmcp_native: takeover refused, erlmcp is left as it is: ~0p", [Reason]),
            %% After a reload of one module the other is still replaced.
            (put_back(State))#state{status = {refused, Reason}}
    end.

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

put_back(#state{status = active, replaced = Replaced} = State) ->
    case erlmcp_native_takeover_code:restore(Replaced) of
        [] ->
            ?LOG_NOTICE("erlmcp_native: put the originals of ~0p back", [modules()]);
        Failed ->
            ?LOG_ERROR("erlmcp_native: could not put the originals back: ~0p", [Failed])
    end,
    State#state{status = restored, replaced = []};
put_back(State) ->
    State.

reply_status(#state{status = Status} = State) ->
    {reply, Status, State}.

%% An erlmcp without one of the last does not need it.
modules() ->
    Some = [
        erlmcp_transport_http, erlmcp_transport_stdio, erlmcp_transport_stdio_new, erlmcp_stdio
    ],
    Found = [Module || Module <- Some, code:which(Module) =/= non_existing],
    [erlmcp_transport_tcp, erlmcp_json_rpc | Found].

remind(CheckMs) ->
    erlang:send_after(CheckMs, self(), {?MODULE, check}).

call(Request) ->
    try
        gen_server:call(?MODULE, Request, infinity)
    catch
        exit:{noproc, _} -> off
    end.
