%% @private The requests that wait for a response, each with its timer, as one value.
-module(erlmcp_native_http_client_requests).

-export([new/1, add/2, find/2, is_waiting/2, update/3, heard/3, touch/2, remove/2]).
-export([count/1, ids_of_session/1]).
-export([limits/1, expired/3, left_ms/2, again/2, next/1, next/2, start_timer/2]).

-export_type([requests/0, request/0, id/0, again/0, limits/0]).

-type id() :: integer() | binary().

-type request() :: #{
    message := erlmcp_native_http_client_message:message(),
    exchange := none | erlmcp_native_http_client_wire:key(),
    resumes := again(),
    event_id := none | binary(),
    retry_ms := none | non_neg_integer(),
    timeout_ms := pos_integer() | infinity,
    deadline := integer() | infinity,
    timer := reference() | none,
    started := integer()
}.
%% `exchange': where the response is expected. `resumes': how often in a row its stream may be
%% resumed without anything new. `event_id', `retry_ms': as the stream said last.

-type again() :: none | erlmcp_native_backoff:backoff().

-type limits() :: #{
    timeout_ms => pos_integer() | infinity,
    total_timeout_ms => pos_integer() | infinity
}.

-record(requests, {
    limits :: limits(),
    resumes :: again(),
    waiting = #{} :: #{id() => request()}
}).

-opaque requests() :: #requests{}.

-define(LONGEST_MS, 86400000).

-spec new(erlmcp_native_http_client_options:options()) -> requests().
new(#{timeout_ms := Timeout, total_timeout_ms := Total, max_resumes := Resumes} = Options) ->
    Limits = #{timeout_ms => Timeout, total_timeout_ms => Total},
    #requests{limits = Limits, resumes = again(Resumes, Options)}.

%% @doc Checks limits that are given for one request.
-spec limits(term()) -> {ok, limits()} | {error, {option, term(), term()}}.
limits(Given) when is_map(Given) ->
    case [{Key, Value} || {Key, Value} <- maps:to_list(Given), not is_limit(Key, Value)] of
        [] -> {ok, Given};
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
limits(Given) ->
    {error, {option, options, Given}}.

%% @doc Delays for so many tries more.
-spec again(non_neg_integer() | infinity, erlmcp_native_http_client_options:options()) -> again().
again(0, _) ->
    none;
again(Times, #{retry_min_ms := Min, retry_max_ms := Max}) ->
    {ok, Backoff} = erlmcp_native_backoff:options(#{
        min_ms => Min, max_ms => max(Min, Max), max_attempts => Times
    }),
    erlmcp_native_backoff:new(Backoff).

-spec next(again()) -> {DelayMs :: non_neg_integer(), again()} | exhausted.
next(Again) -> next(other, Again).

%% @doc The same for a failure whose kind is known.
-spec next(erlmcp_native:failure(), again()) ->
    {DelayMs :: non_neg_integer(), again()} | exhausted.
next(_, none) -> exhausted;
next(Failure, Backoff) -> erlmcp_native_backoff:next(now_ms(), Failure, Backoff).

%% @doc How long a request may still take.
-spec left_ms(id(), requests()) -> non_neg_integer() | infinity.
left_ms(Id, #requests{waiting = Waiting}) ->
    case Waiting of
        #{Id := #{timer := Timer}} when Timer =/= none -> left(erlang:read_timer(Timer));
        #{} -> infinity
    end.

-spec add(erlmcp_native_http_client_message:message(), requests()) -> requests().
add(#{id := Id} = Message, Requests) ->
    #requests{waiting = Waiting, limits = Defaults, resumes = Resumes} = Requests,
    #{timeout_ms := Timeout, total_timeout_ms := Total} = limits_of(Message, Defaults),
    Deadline =
        case Total of
            infinity -> infinity;
            _ -> now_ms() + Total
        end,
    Request = #{
        message => Message,
        exchange => none,
        resumes => Resumes,
        event_id => none,
        retry_ms => none,
        timeout_ms => Timeout,
        deadline => Deadline,
        timer => start_timer(Id, Timeout, Deadline),
        started => erlang:monotonic_time(microsecond)
    },
    Requests#requests{waiting = Waiting#{Id => Request}}.

-spec find(id(), requests()) -> {ok, request()} | error.
find(Id, #requests{waiting = Waiting}) -> maps:find(Id, Waiting).

-spec is_waiting(term(), requests()) -> boolean().
is_waiting(Id, #requests{waiting = Waiting}) -> is_map_key(Id, Waiting).

-spec update(id(), map(), requests()) -> requests().
update(Id, Changes, #requests{waiting = Waiting} = Requests) ->
    Update = fun(Request) -> maps:merge(Request, Changes) end,
    Requests#requests{waiting = maps:update_with(Id, Update, Waiting)}.

%% @doc What the stream of a request says of its resumption.
-spec heard(id(), {event_id, binary()} | {retry_ms, non_neg_integer()}, requests()) -> requests().
heard(Id, Item, #requests{waiting = Waiting, resumes = Resumes} = Requests) ->
    case {Waiting, Item} of
        {#{Id := _}, {event_id, EventId}} ->
            update(Id, #{event_id => EventId, resumes => Resumes}, Requests);
        {#{Id := _}, {retry_ms, Ms}} ->
            update(Id, #{retry_ms => Ms}, Requests);
        _ ->
            Requests
    end.

%% @doc Something was heard of a request: its time begins again, up to the deadline.
-spec touch(id(), requests()) -> requests().
touch(Id, #requests{waiting = Waiting} = Requests) ->
    case Waiting of
        #{Id := #{timer := Timer, timeout_ms := Timeout, deadline := Deadline}} when
            Timer =/= none
        ->
            _ = erlang:cancel_timer(Timer),
            update(Id, #{timer => start_timer(Id, Timeout, Deadline)}, Requests);
        #{} ->
            Requests
    end.

-spec remove(id(), requests()) -> {request(), requests()} | error.
remove(Id, #requests{waiting = Waiting} = Requests) ->
    case maps:take(Id, Waiting) of
        {#{timer := Timer} = Request, Rest} ->
            _ = Timer =/= none andalso erlang:cancel_timer(Timer),
            {Request, Requests#requests{waiting = Rest}};
        error ->
            error
    end.

%% @doc The requests that go down with a session.
-spec ids_of_session(requests()) -> [id()].
ids_of_session(#requests{waiting = Waiting}) ->
    [Id || {Id, #{message := #{modern := none}}} <- maps:to_list(Waiting)].

-spec count(requests()) -> non_neg_integer().
count(#requests{waiting = Waiting}) -> map_size(Waiting).

%% @doc Whether a timer's message is that of a request that waits still.
-spec expired(id(), reference(), requests()) -> boolean().
expired(Id, Timer, #requests{waiting = Waiting}) ->
    case Waiting of
        #{Id := #{timer := Timer}} -> true;
        #{} -> false
    end.

%% @doc A timer whose message the client's core knows: `{timeout, Timer, {Tag, What}}'.
-spec start_timer(non_neg_integer(), term()) -> reference().
start_timer(Ms, What) ->
    erlang:start_timer(Ms, self(), {erlmcp_native_http_client, What}).

start_timer(_, infinity, infinity) ->
    none;
start_timer(Id, Timeout, infinity) ->
    start_timer(Timeout, {expired, Id});
start_timer(Id, Timeout, Deadline) ->
    %% Any integer is less than an atom.
    start_timer(max(0, min(Timeout, Deadline - now_ms())), {expired, Id}).

is_limit(Key, Value) when Key =:= timeout_ms; Key =:= total_timeout_ms ->
    Value =:= infinity orelse (is_integer(Value) andalso Value > 0 andalso Value =< ?LONGEST_MS);
is_limit(_, _) ->
    false.

%% A subscription is a request that is not meant to be answered soon.
limits_of(#{method := <<"subscriptions/listen">>} = Message, _) ->
    maps:merge(
        #{timeout_ms => infinity, total_timeout_ms => infinity}, maps:get(limits, Message, #{})
    );
limits_of(Message, Defaults) ->
    maps:merge(Defaults, maps:get(limits, Message, #{})).

left(false) -> 0;
left(Ms) -> Ms.

now_ms() -> erlang:monotonic_time(millisecond).
