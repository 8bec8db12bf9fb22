%% @doc What metrics have been: an hour of it by the second, a day by the minute. The oldest goes
%% when a new one comes.
%%
%% It is off unless the application setting `history' is `true' or a map of options, or somebody
%% starts it. The values are in a table that belongs to the application's supervisor: when this
%% process is restarted it goes on where it has stopped.
-module(erlmcp_native_history).

-behaviour(gen_server).

-export([start_link/1, query/3, query/4, names/0]).
-export([make_table/0, child_specs/0]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-export_type([options/0, name/0, value/0, resolution/0]).

-type name() :: atom() | {atom(), Labels :: [erlmcp_native_metric:label_value()]}.
%% A metric, all its series together, or one series of it.

-type options() :: #{metrics => all | [name()]}.
%% `metrics': of which there is history, `all' of them without their series. A full table of all is
%% some 25 MB; a counter or a gauge takes 200 KB, a histogram 1 MB.

-type value() :: number() | #{atom() => number()}.
%% Of a counter its value. Of a gauge its value, or, by the minute, the mean of them. Of a histogram
%% what was recorded since the value before: `count', `mean', `p50', `p99', `max' and so on.

-type resolution() :: second | minute.

-define(TABLE, ?MODULE).
-define(SECOND, #{step_ms => 1000, slots => 3600}).
-define(MINUTE, #{step_ms => 60000, slots => 1440}).

-record(state, {
    metrics :: all | [name()],
    %% Histograms as they were when last looked at, by the second and by the minute.
    second = #{} :: #{name() => erlmcp_native_histogram:snapshot()},
    minute = #{} :: #{name() => erlmcp_native_histogram:snapshot()},
    %% Gauges of this minute: how many values, and their sum.
    gauges = #{} :: #{name() => {pos_integer(), number()}},
    minute_at :: integer()
}).

-spec start_link(options()) -> {ok, pid()} | {error, {option, term(), term()} | term()}.
start_link(Options) ->
    Checked = erlmcp_native_options:check(Options, #{metrics => all}, fun valid/2, server),
    case Checked of
        {ok, #{metrics := Metrics}} ->
            gen_server:start_link({local, ?MODULE}, ?MODULE, Metrics, []);
        {error, _} = Error ->
            Error
    end.

%% @doc The values of a metric between two times, which are `erlang:system_time(millisecond)', the
%% oldest first: by the second as far as that reaches, by the minute before.
-spec query(name(), FromMs :: integer(), ToMs :: integer()) -> [{AtMs :: integer(), value()}].
query(Name, From, To) ->
    Fine = query(Name, From, To, second),
    case Fine of
        [{First, _} | _] -> query(Name, From, min(To, First - 1), minute) ++ Fine;
        [] -> query(Name, From, To, minute)
    end.

%% @doc The same at one resolution.
-spec query(name(), FromMs :: integer(), ToMs :: integer(), resolution()) ->
    [{AtMs :: integer(), value()}].
query(Name, From, To, Resolution) ->
    Now = erlang:system_time(millisecond),
    Ring = ring(Resolution),
    Pattern = {{{Resolution, '_'}, '$1', #{Name => '$2'}}, [
        {'>=', '$1', From}, {'=<', '$1', To}
    ], [{{'$1', '$2'}}]},
    lists:sort([
        Found
     || {At, _} = Found <- ets:select(?TABLE, [Pattern]), erlmcp_native_ring:is_kept(At, Now, Ring)
    ]).

%% @doc Of which there is history at this time.
-spec names() -> [name()].
names() ->
    case ets:select_reverse(?TABLE, [{{{second, '_'}, '$1', '$2'}, [], [{{'$1', '$2'}}]}]) of
        [] -> [];
        Rows -> lists:sort(maps:keys(element(2, lists:max(Rows))))
    end.

%% @private Called by the supervisor, to which the table belongs.
-spec make_table() -> ok.
make_table() ->
    ?TABLE = ets:new(?TABLE, [named_table, public, {read_concurrency, true}]),
    ok.

%% @private The process as a child of this application's supervisor, if it is wanted.
-spec child_specs() -> [supervisor:child_spec()].
child_specs() ->
    case application:get_env(erlmcp_native, history, false) of
        false -> [];
        true -> [child_spec(#{})];
        Options -> [child_spec(Options)]
    end.

child_spec(Options) ->
    #{id => history, start => {?MODULE, start_link, [Options]}}.

valid(metrics, all) -> true;
valid(metrics, Names) when is_list(Names) -> lists:all(fun is_name/1, Names);
valid(_, _) -> false.

is_name({Name, Labels}) -> is_atom(Name) andalso is_list(Labels);
is_name(Name) -> is_atom(Name).

%% @private
-spec init(all | [name()]) -> {ok, #state{}}.
init(Metrics) ->
    Now = erlang:system_time(millisecond),
    State = #state{metrics = Metrics, minute_at = erlmcp_native_ring:begins(Now, ?MINUTE)},
    Read = read(State),
    Histograms = maps:from_list([{Name, Value} || {Name, histogram, Value} <- Read]),
    ok = wait(Now),
    {ok, State#state{second = Histograms, minute = Histograms}}.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) -> {reply, term(), #state{}}.
handle_call(_, _, State) ->
    {reply, {error, unknown_request}, State}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}}.
handle_info(look, State) ->
    Now = erlang:system_time(millisecond),
    Read = read(State),
    ok = keep(second, Now, values(Read, State#state.second)),
    Next = minute(Now, Read, noted(Read, State)),
    ok = wait(Now),
    {noreply, Next};
handle_info(_, State) ->
    {noreply, State}.

%% At the next whole second, so that no step is left out.
wait(Now) ->
    #{step_ms := Step} = ?SECOND,
    _ = erlang:send_after(Step - Now rem Step, self(), look),
    ok.

keep(Resolution, At, Values) ->
    true = ets:insert(
        ?TABLE, {{Resolution, erlmcp_native_ring:slot(At, ring(Resolution))}, At, Values}
    ),
    ok.

ring(second) -> ?SECOND;
ring(minute) -> ?MINUTE.

noted(Read, #state{gauges = Gauges} = State) ->
    Note = fun
        ({Name, gauge, Value}, Acc) ->
            {Count, Sum} = maps:get(Name, Acc, {0, 0}),
            Acc#{Name => {Count + 1, Sum + Value}};
        (_, Acc) ->
            Acc
    end,
    Histograms = maps:from_list([{Name, Value} || {Name, histogram, Value} <- Read]),
    State#state{second = Histograms, gauges = lists:foldl(Note, Gauges, Read)}.

minute(Now, Read, #state{minute_at = At, gauges = Gauges} = State) ->
    case erlmcp_native_ring:begins(Now, ?MINUTE) of
        At ->
            State;
        Next ->
            Means = maps:map(fun(_, {Count, Sum}) -> Sum / Count end, Gauges),
            ok = keep(minute, Now, maps:merge(values(Read, State#state.minute), Means)),
            State#state{minute_at = Next, gauges = #{}, minute = State#state.second}
    end.

values(Read, Before) ->
    maps:from_list([{Name, value(Name, Kind, Value, Before)} || {Name, Kind, Value} <- Read]).

value(Name, histogram, Snapshot, Before) ->
    Earlier = maps:get(Name, Before, erlmcp_native_histogram:empty()),
    erlmcp_native_metric:present(erlmcp_native_histogram:subtract(Snapshot, Earlier));
value(_, _, Value, _) ->
    Value.

read(#state{metrics = all}) ->
    [total(Family) || Family <- erlmcp_native_metrics:families(all)];
read(#state{metrics = Names}) ->
    Wanted = lists:usort([family_name(Name) || Name <- Names]),
    Families = erlmcp_native_metrics:families(Wanted),
    [Found || #{name := Name} = F <- Families, lists:member(Name, Names), Found <- [total(F)]] ++
        [
            {{Name, Labels}, Kind, Value}
         || #{name := Name, kind := Kind, series := Series} <- Families,
            {Labels, Value} <- Series,
            lists:member({Name, Labels}, Names)
        ].

family_name({Name, _}) -> Name;
family_name(Name) -> Name.

total(#{name := Name, kind := Kind, series := Series}) ->
    {Name, Kind, erlmcp_native_metric:total(Kind, Series)}.
