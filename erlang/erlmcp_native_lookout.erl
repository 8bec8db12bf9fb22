%% @private A process that looks at alerts or objectives in intervals, counts those that are raised
%% and tells its owner of each change.
-module(erlmcp_native_lookout).

-behaviour(gen_server).
-behaviour(erlmcp_native_metrics).

-export([start_link/3, valid/2, report/1]).
-export([metrics/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-type event() :: {Kind :: atom(), Name :: term(), raised | cleared, Details :: map()}.

-callback look(NowMs :: integer(), Name :: term(), Item) -> {[event()], Item}.

-callback announce(logger:level(), event()) -> ok.
%% To the log and to telemetry.

-callback describe(Item :: term()) -> map().

-record(state, {
    module :: module(),
    owner :: pid() | none,
    monitor :: reference() | none,
    interval_ms :: pos_integer(),
    items :: #{Name :: term() => Item :: term()},
    %% An objective may be so more than once.
    raised = 0 :: non_neg_integer()
}).

%% @private
-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        #{
            name => alerts_raised,
            kind => counter,
            group => alert,
            help => <<"Alerts that were raised, those of objectives included">>
        },
        #{
            name => alerts_active,
            kind => gauge,
            group => alert,
            help => <<"Alerts that are raised, those of objectives included">>
        }
    ].

%% @doc `Options' are checked.
-spec start_link(module(), #{Name :: term() => Item :: term()}, Options :: map()) ->
    {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Module, Items, #{owner := Owner, interval_ms := Interval}) ->
    gen_server:start_link(?MODULE, {Module, Items, Owner, Interval}, []).

%% @doc The options that say for whom and how often.
-spec valid(term(), term()) -> boolean().
valid(owner, V) -> is_pid(V) orelse V =:= none;
valid(interval_ms, V) -> is_integer(V) andalso V > 0 andalso V =< 3600000;
valid(_, _) -> false.

-spec report(pid()) -> #{Name :: term() => map()}.
report(Lookout) ->
    gen_server:call(Lookout, report).

%% @private
-spec init({module(), map(), pid() | none, pos_integer()}) -> {ok, #state{}}.
init({Module, Items, Owner, Interval}) ->
    process_flag(trap_exit, true),
    self() ! look,
    {ok, #state{
        module = Module,
        owner = Owner,
        monitor = watch(Owner),
        interval_ms = Interval,
        items = Items
    }}.

watch(none) -> none;
watch(Owner) -> monitor(process, Owner).

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(report, _, #state{module = Module, items = Items} = State) ->
    {reply, maps:map(fun(_, Item) -> Module:describe(Item) end, Items), State};
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, term(), #state{}}.
handle_info(look, #state{module = Module, items = Items, interval_ms = Interval} = State) ->
    Now = erlang:monotonic_time(millisecond),
    Look = fun({Name, Item}, Events) ->
        {New, Looked} = Module:look(Now, Name, Item),
        {{Name, Looked}, New ++ Events}
    end,
    {Looked, Events} = lists:mapfoldl(Look, [], maps:to_list(Items)),
    Told = lists:foldl(fun tell/2, State, Events),
    _ = erlang:send_after(Interval, self(), look),
    {noreply, Told#state{items = maps:from_list(Looked)}};
handle_info({'DOWN', Monitor, process, _, _}, #state{monitor = Monitor} = State) ->
    {stop, normal, State};
handle_info({'EXIT', _, Reason}, State) ->
    {stop, Reason, State};
handle_info(_, State) ->
    {noreply, State}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{raised = Raised}) ->
    erlmcp_native_metrics:add(alerts_active, -Raised).

tell({_, _, Change, _} = Event, #state{module = Module, owner = Owner, raised = Raised} = State) ->
    {Level, Step} =
        case Change of
            raised -> {warning, 1};
            cleared -> {notice, -1}
        end,
    _ = Change =:= raised andalso erlmcp_native_metrics:add(alerts_raised, 1),
    ok = erlmcp_native_metrics:add(alerts_active, Step),
    ok = Module:announce(Level, Event),
    _ = Owner =/= none andalso (Owner ! {erlmcp_native, self(), Event}),
    State#state{raised = Raised + Step}.
