%% @doc A pool of connections to one endpoint, whose size follows the load within bounds
%% ({@link erlmcp_native_scaling}).
%%
%% ```
%% {ok, Pool} = erlmcp_native_pool:start_link(#{
%%     endpoint => #{command => "npx", args => ["-y", "@modelcontextprotocol/server-everything"]},
%%     initialize => #{protocolVersion => <<"2025-11-25">>, capabilities => #{},
%%                     clientInfo => #{name => <<"mine">>, version => <<"1">>}},
%%     scaling => #{min => 1, max => 8}
%% }),
%% {ok, Id} = erlmcp_native_pool:request(Pool, #{method => <<"tools/list">>}),
%% receive
%%     {erlmcp_native, Pool, {outcome, Id, {ok, Result}}} -> Result;
%%     {erlmcp_native, Pool, {outcome, Id, {error, Reason}}} -> Reason
%% end.
%% '''
%%
%% Each connection is a session of its own: what one request leaves behind in a server, such as a
%% subscription, is not there for the next. `initialize' holds the parameters of the request that
%% opens each session; it is followed by `notifications/initialized'.
%%
%% Every request that was accepted has exactly one outcome. It waits where all connections have
%% `per_connection' requests, and goes to the one that has least. What was under way when a
%% connection is lost ends with `{error, {connection, Reason}}', for nobody knows how far it got;
%% what waits is sent on another.
-module(erlmcp_native_pool).

-behaviour(gen_server).

-export([start_link/1, request/2, request/3, send/3, info/1, stop/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

-export_type([options/0, event/0, request_error/0, reason/0]).

-type options() :: #{
    endpoint := map() | binary() | string(),
    connect => map(),
    initialize => none | map(),
    scaling => map(),
    owner => pid(),
    interval_ms => pos_integer(),
    max_queue => pos_integer(),
    initialize_timeout_ms => pos_integer()
}.
%% `endpoint' is one of {@link erlmcp_native:connect/2}, or a URL. `connect' are the options of its
%% connections, or of its HTTP clients. `scaling': see {@link erlmcp_native_scaling:options/1}.
%% `owner' (the caller) is told what servers send unasked. Defaults: the load is looked at each
%% 100 ms, 10,000 requests may wait, an answer to `initialize' for 30 s.

-type reason() :: {rpc, Error :: map()} | timeout | closed | {connection, term()}.
%% `rpc': the server has answered with an error. `connection': it was lost, and why.

-type event() ::
    {outcome, Id :: pos_integer(), {ok, Result :: term()} | {error, reason()}}
    | {message, Conn :: pid(), Message :: map()}.
%% What is received as `{erlmcp_native, Pool, Event}': an outcome by the process that has made the
%% request, as from {@link erlmcp_native_failover}; a message, which is no answer, by the owner, who
%% answers a request with {@link send/3}. Pings are answered by the pool.

-type request_error() :: busy | closed | {option, Key :: term(), Value :: term()}.

-record(state, {
    owner :: pid(),
    options :: map(),
    scaling :: erlmcp_native_scaling:scaling(),
    members :: erlmcp_native_pool_members:members(),
    requests = erlmcp_native_pool_requests:new() :: erlmcp_native_pool_requests:requests(),
    timer = none :: none | reference(),
    looked :: integer(),
    arrivals = 0 :: non_neg_integer(),
    %% How long a request takes a connection, smoothed.
    service_ms = 0.0 :: float(),
    steps = [] :: [map()],
    counters = #{accepted => 0, answered => 0, failed => 0} :: map()
}).

-define(CALL_TIMEOUT_MS, 30000).
-define(STEPS_KEPT, 50).
-define(WEIGHT, 0.1).
-define(RETRY_MS, 500).

-define(DEFAULTS, #{
    connect => #{},
    initialize => none,
    scaling => #{},
    interval_ms => 100,
    max_queue => 10000,
    initialize_timeout_ms => 30000
}).

%% @doc Starts a pool with the least number of connections.
-spec start_link(options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Options) ->
    case options(Options) of
        {ok, Checked} ->
            case gen_server:start_link(?MODULE, Checked, []) of
                {ok, Pool} -> {ok, Pool};
                {error, {shutdown, Reason}} -> {error, Reason}
            end;
        {error, _} = Error ->
            Error
    end.

%% @equiv request(Pool, Request, #{})
-spec request(pid(), #{method := binary(), params => map()}) ->
    {ok, Id :: pos_integer()} | {error, request_error()}.
request(Pool, Request) ->
    request(Pool, Request, #{}).

%% @doc Makes a request. The caller receives its outcome, after `timeout_ms' (30000) at the latest.
-spec request(pid(), #{method := binary(), params => map()}, #{timeout_ms => timeout()}) ->
    {ok, Id :: pos_integer()} | {error, request_error()}.
request(Pool, #{method := _} = Request, Options) ->
    case maps:to_list(maps:merge(#{timeout_ms => 30000}, Options)) of
        [{timeout_ms, Ms}] when Ms =:= infinity; is_integer(Ms), Ms >= 0 ->
            %% Encoded here and not in the pool's process: there are many callers.
            Id = erlang:unique_integer([positive]),
            Message = maps:with([method, params], Request),
            Text = erlmcp_native_json:encode(Message#{jsonrpc => <<"2.0">>, id => Id}),
            call(Pool, {request, Id, Text, Ms});
        Given ->
            [{Key, Value} | _] = lists:keydelete(timeout_ms, 1, Given) ++ Given,
            {error, {option, Key, Value}}
    end.

%% @doc Sends a message on one of the connections, usually an answer.
-spec send(pid(), Conn :: pid(), Message :: map()) -> ok | {error, term()}.
send(Pool, Conn, Message) ->
    call(Pool, {send, Conn, erlmcp_native_json:encode(Message)}).

%% @doc Sizes, bounds, the load as it was measured last, and the last 50 changes of size, each with
%% what has decided it.
-spec info(pid()) -> {ok, map()} | {error, closed}.
info(Pool) ->
    call(Pool, info).

%% @doc Ends the pool and its connections; what is under way ends with `{error, closed}'.
-spec stop(pid()) -> ok.
stop(Pool) ->
    case call(Pool, stop) of
        ok -> ok;
        {error, closed} -> ok
    end.

options(Options) when is_map(Options), is_map_key(endpoint, Options) ->
    All = maps:merge(maps:put(owner, self(), ?DEFAULTS), Options),
    case [KV || {Key, Value} = KV <- maps:to_list(All), not valid(Key, Value)] of
        [] -> scaling(All);
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
options(Options) ->
    {error, {option, options, Options}}.

scaling(#{scaling := Scaling} = All) ->
    case erlmcp_native_scaling:options(Scaling) of
        {ok, Checked} -> {ok, All#{scaling := Checked}};
        {error, {Key, Value}} -> {error, {option, {scaling, Key}, Value}}
    end.

valid(endpoint, V) -> is_map(V) orelse is_binary(V) orelse is_list(V);
valid(owner, V) -> is_pid(V);
valid(initialize, none) -> true;
valid(Key, V) when Key =:= connect; Key =:= initialize; Key =:= scaling -> is_map(V);
valid(Key, V) when Key =:= interval_ms; Key =:= max_queue; Key =:= initialize_timeout_ms ->
    is_integer(V) andalso V > 0;
valid(_, _) -> false.

call(Pool, Request) ->
    try
        gen_server:call(Pool, Request, ?CALL_TIMEOUT_MS)
    catch
        exit:{Reason, _} when Reason =:= noproc; Reason =:= normal; Reason =:= shutdown ->
            {error, closed}
    end.

%% @private
-spec init(map()) -> {ok, #state{}} | {stop, {shutdown, erlmcp_native:reason()}}.
init(#{owner := Owner, scaling := Scaling} = Options) ->
    process_flag(trap_exit, true),
    _ = monitor(process, Owner),
    State = #state{
        owner = Owner,
        options = Options,
        scaling = erlmcp_native_scaling:new(Scaling),
        members = erlmcp_native_pool_members:new(Options),
        looked = now_ms()
    },
    case fill(State) of
        {ok, Filled} -> {ok, tick(Filled)};
        {error, Reason} -> {stop, {shutdown, Reason}}
    end.

%% @private
-spec handle_call(term(), gen_server:from(), #state{}) ->
    {reply, term(), #state{}} | {stop, normal, ok, #state{}}.
handle_call({request, Id, Message, Ms}, {From, _}, #state{requests = Requests} = S) ->
    #state{options = #{max_queue := Max}} = S,
    case erlmcp_native_pool_requests:add(Id, Message, From, Ms, Max, Requests) of
        {ok, Next} ->
            Counted = count(accepted, S#state{requests = Next, arrivals = S#state.arrivals + 1}),
            ok = erlmcp_native_pool_measure:accepted(),
            {reply, {ok, Id}, tick(dispatch(Counted))};
        {error, busy} = Error ->
            ok = erlmcp_native_pool_measure:refused(),
            {reply, Error, S}
    end;
handle_call({send, Conn, Message}, _, #state{members = Members} = S) ->
    {reply, erlmcp_native_pool_members:send(Conn, Message, Members), S};
handle_call(info, _, S) ->
    {reply, {ok, info_of(S)}, S};
handle_call(stop, _, S) ->
    {stop, normal, ok, S};
handle_call(_, _, S) ->
    {reply, {error, unknown_request}, S}.

%% @private
-spec handle_cast(term(), #state{}) -> {noreply, #state{}}.
handle_cast(_, S) ->
    {noreply, S}.

%% @private
-spec handle_info(term(), #state{}) -> {noreply, #state{}} | {stop, normal, #state{}}.
handle_info({erlmcp_native, Conn, Event}, #state{members = Members} = S) ->
    {Happened, Next} = erlmcp_native_pool_members:event(Conn, Event, Members),
    {noreply, dispatch(lists:foldl(fun happened/2, S#state{members = Next}, Happened))};
handle_info({timeout, Timer, look}, #state{timer = Timer} = S) ->
    {noreply, look(S#state{timer = none})};
handle_info({timeout, _, {request, Id}}, S) ->
    {noreply, timed_out(Id, S)};
handle_info({timeout, _, {member, Conn}}, #state{members = Members} = S) ->
    {Happened, Next} = erlmcp_native_pool_members:too_late(Conn, Members),
    {noreply, dispatch(lists:foldl(fun happened/2, S#state{members = Next}, Happened))};
handle_info(refill, S) ->
    {noreply, refill(S)};
handle_info({'DOWN', _, process, Owner, _}, #state{owner = Owner} = S) ->
    {stop, normal, S};
handle_info({'DOWN', _, process, Conn, Reason}, #state{members = Members} = S) ->
    {Happened, Next} = erlmcp_native_pool_members:gone(Conn, Reason, Members),
    {noreply, dispatch(lists:foldl(fun happened/2, S#state{members = Next}, Happened))};
handle_info(_, S) ->
    {noreply, S}.

%% @private
-spec terminate(term(), #state{}) -> ok.
terminate(_, #state{requests = Requests, members = Members} = S) ->
    Ids = erlmcp_native_pool_requests:ids(Requests),
    _ = lists:foldl(fun(Id, Acc) -> outcome(Id, {error, closed}, Acc) end, S, Ids),
    erlmcp_native_pool_members:close(Members).

happened({answer, Id, Outcome}, S) -> outcome(Id, Outcome, S);
happened({failed, Id, Reason}, S) -> outcome(Id, {error, {connection, Reason}}, S);
happened({message, Conn, Message}, S) -> tell(S#state.owner, {message, Conn, Message}, S);
happened(lost, S) ->
    _ = erlang:send_after(?RETRY_MS, self(), refill),
    S.

outcome(Id, Outcome, #state{requests = Requests} = S) ->
    case erlmcp_native_pool_requests:take(Id, Requests) of
        {#{from := From, accepted := Accepted, taken_ms := Taken}, Next} ->
            Counted = count(counter(Outcome), S#state{requests = Next}),
            ok = erlmcp_native_pool_measure:ended(counter(Outcome), Accepted),
            tell(From, {outcome, Id, Outcome}, served(Taken, Counted));
        error ->
            S
    end.

counter({ok, _}) -> answered;
counter({error, {rpc, _}}) -> answered;
counter({error, _}) -> failed.

%% Only what a connection has taken says how long that takes.
served(none, S) ->
    S;
served(Ms, #state{service_ms = Before} = S) when Before == 0 ->
    S#state{service_ms = float(Ms)};
served(Ms, #state{service_ms = Before} = S) ->
    S#state{service_ms = Before + ?WEIGHT * (Ms - Before)}.

timed_out(Id, #state{members = Members} = S) ->
    Next = erlmcp_native_pool_members:give_up(Id, Members),
    dispatch(outcome(Id, {error, timeout}, S#state{members = Next})).

tell(To, Event, S) ->
    To ! {erlmcp_native, self(), Event},
    S.

count(Name, #state{counters = Counters} = S) ->
    S#state{counters = maps:update_with(Name, fun(N) -> N + 1 end, Counters)}.

%% Sends what waits as long as a connection takes it.
dispatch(#state{requests = Requests, members = Members} = S) ->
    case erlmcp_native_pool_members:free(Members) of
        none ->
            S;
        {ok, Conn} ->
            case erlmcp_native_pool_requests:next(Requests) of
                empty -> S;
                {Id, Message, Accepted, Next} ->
                    ok = erlmcp_native_pool_measure:taken(Accepted),
                    dispatch(sent(Id, Message, Conn, S#state{requests = Next}))
            end
    end.

sent(Id, Message, Conn, #state{members = Members} = S) ->
    case erlmcp_native_pool_members:request(Conn, Id, Message, Members) of
        {ok, Next} -> S#state{members = Next};
        {{error, Reason}, Next} ->
            outcome(Id, {error, {connection, Reason}}, S#state{members = Next})
    end.

%% A pool at its least that has nothing to do need not look.
tick(#state{timer = none, options = #{interval_ms := Ms}} = S) ->
    S#state{timer = erlang:start_timer(Ms, self(), look), looked = now_ms()};
tick(S) ->
    S.

look(#state{scaling = Scaling0, requests = Requests, looked = Looked} = S) ->
    Now = now_ms(),
    Sample = #{
        arrivals => S#state.arrivals,
        span_ms => max(1, Now - Looked),
        service_ms => S#state.service_ms,
        queued => erlmcp_native_pool_requests:queued(Requests)
    },
    {Outcome, Scaling} = erlmcp_native_scaling:step(Sample, Now, Scaling0),
    resized(Outcome, Sample, S#state{scaling = Scaling, arrivals = 0}).

resized({resize, #{from := From, to := To} = Step}, _, #state{steps = Steps} = S) ->
    ok = erlmcp_native_pool_measure:resized(From, To),
    At = erlang:system_time(millisecond),
    Kept = lists:sublist([Step#{at_ms => At} | Steps], ?STEPS_KEPT),
    tick(dispatch(refill(S#state{steps = Kept})));
resized(keep, #{arrivals := 0, queued := 0}, #state{options = #{scaling := #{min := Min}}} = S) ->
    case erlmcp_native_scaling:size(S#state.scaling) of
        Min -> S;
        _ -> tick(S)
    end;
resized(keep, _, S) ->
    tick(S).

refill(S) ->
    case fill(S) of
        {ok, Filled} ->
            Filled;
        {error, _} ->
            _ = erlang:send_after(?RETRY_MS, self(), refill),
            S
    end.

fill(#state{members = Members, scaling = Scaling} = S) ->
    case erlmcp_native_pool_members:resize(erlmcp_native_scaling:size(Scaling), Members) of
        {ok, Next} -> {ok, S#state{members = Next}};
        {error, _} = Error -> Error
    end.

info_of(#state{members = Members, requests = Requests, options = Options} = S) ->
    #{scaling := #{min := Min, max := Max}} = Options,
    (erlmcp_native_pool_members:info(Members))#{
        size => erlmcp_native_scaling:size(S#state.scaling),
        min => Min,
        max => Max,
        queued => erlmcp_native_pool_requests:queued(Requests),
        service_ms => S#state.service_ms,
        steps => S#state.steps,
        counters => S#state.counters
    }.

now_ms() -> erlang:monotonic_time(millisecond).
