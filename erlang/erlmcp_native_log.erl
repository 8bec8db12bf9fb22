%% @doc Passes the native core's log events to `logger', at the level set there for this module.
-module(erlmcp_native_log).

-behaviour(gen_server).

-export([start_link/0, set_level/1, event/1, level_number/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(LEVEL_KEY, {?MODULE, level}).

-spec start_link() -> gen_server:start_ret().
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

%% @doc Sets the level below which the core makes no events; the start takes it from the
%% application setting `log_level', `warning' by default.
-spec set_level(none | error | warning | info | debug | trace) -> ok.
set_level(Level) ->
    gen_server:call(?MODULE, {level, Level}).

%% @doc Logs an event of the port program, as it has sent it.
-spec event(binary()) -> ok.
event(Term) ->
    gen_server:cast(?MODULE, {event, Term}).

%% @doc The level as the port program is told of it.
-spec level_number() -> 0..5.
level_number() ->
    number(persistent_term:get(?LEVEL_KEY, warning)).

%% @private
-spec init([]) -> {ok, none}.
init([]) ->
    ok = forward(application:get_env(erlmcp_native, log_level, warning)),
    {ok, none}.

%% @private
-spec handle_call(term(), gen_server:from(), none) -> {reply, term(), none}.
handle_call({level, Level}, _, State) ->
    {reply, forward(Level), State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), none) -> {noreply, none}.
handle_cast({event, Term}, State) ->
    {Level, Target, Message, Dropped} = erlmcp_native_port_term:read(Term),
    handle_info({erlmcp_native_log, Level, Target, Message, Dropped}, State);
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), none) -> {noreply, none}.
handle_info({erlmcp_native_log, Level, Target, Message, Dropped}, State) ->
    logger:log(Level, "~ts: ~ts", [Target, Message], #{domain => [erlmcp_native, native]}),
    Dropped > 0 andalso
        logger:warning("erlmcp_native: ~b native log events were dropped", [Dropped]),
    {noreply, State};
handle_info(_, State) ->
    {noreply, State}.

forward(Level) ->
    ok = persistent_term:put(?LEVEL_KEY, Level),
    ok = erlmcp_native_port:log_level(number(Level)),
    case erlmcp_native_nif:is_loaded() of
        true -> erlmcp_native_nif:log_to(self(), Level);
        false -> ok
    end.

number(none) -> 0;
number(error) -> 1;
number(warning) -> 2;
number(info) -> 3;
number(debug) -> 4;
number(trace) -> 5.
