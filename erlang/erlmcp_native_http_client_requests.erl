%% @private The requests that wait for a response, each with its timer, as one value.
-module(erlmcp_native_http_client_requests).

-export([new/1, add/2, find/2, is_waiting/2, update/3, heard/3, touch/2, remove/2, size/1]).
-export([ids_of_session/1]).
-export([expired/3, left_ms/2, again/2, next/1, start_timer/2]).

-export_type([requests/0, request/0, id/0, again/0]).

-type id() :: integer() | binary().

-type request() :: #{
    message := erlmcp_native_http_client_message:message(),
    exchange := none | erlmcp_native_http_client_wire:key(),
    resumes := again(),
    event_id := none | binary(),
    retry_ms := none | non_neg_integer(),
    deadline := integer() | infinity,
    timer := reference()
}.
%% `exchange': where the response is expected. `resumes': how often in a row its stream may be
%% resumed without anything new. `event_id', `retry_ms': as the stream said last.

-type again() :: none | erlmcp_native_backoff:backoff().

-record(requests, {
    timeout_ms :: pos_integer(),
    resumes :: again(),
    total_ms :: pos_integer() | infinity,
    waiting = #{} :: #{id() => request()}
}).

-opaque requests() :: #requests{}.

-spec new(erlmcp_native_http_client_options:options()) -> requests().
new(#{timeout_ms := Timeout, total_timeout_ms := Total, max_resumes := Resumes} = Options) ->
    #requests{timeout_ms = Timeout, total_ms = Total, resumes = again(Resumes, Options)}.

%% @doc Delays for so many tries more.
-spec again(non_neg_integer() | infinity, erlmcp_native_http_client_options:options()) -> again().
again(0, _) ->
    none;
again(Times, #{retry_min_ms := Min, retry_max_ms := Max}) ->
    erlmcp_native_backoff:new(#{
        min_ms => Min, max_ms => max(Min, Max), max_attempts => Times, stable_ms => 5000
    }).

-spec next(again()) -> {DelayMs :: non_neg_integer(), again()} | exhausted.
next(none) -> exhausted;
next(Backoff) -> erlmcp_native_backoff:next(now_ms(), Backoff).

%% @doc How long a request may still take.
-spec left_ms(id(), requests()) -> non_neg_integer() | infinity.
left_ms(Id, #requests{waiting = Waiting}) ->
    case Waiting of
        #{Id := #{timer := Timer}} -> left(erlang:read_timer(Timer));
        #{} -> infinity
    end.

-spec add(erlmcp_native_http_client_message:message(), requests()) -> requests().
add(#{id := Id} = Message, Requests) ->
    #requests{waiting = Waiting, total_ms = Total, resumes = Resumes} = Requests,
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
        deadline => Deadline,
        timer => start_timer(Id, Deadline, Requests)
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
        #{Id := #{timer := Timer, deadline := Deadline}} ->
            _ = erlang:cancel_timer(Timer),
            update(Id, #{timer => start_timer(Id, Deadline, Requests)}, Requests);
        #{} ->
            Requests
    end.

-spec remove(id(), requests()) -> {request(), requests()} | error.
remove(Id, #requests{waiting = Waiting} = Requests) ->
    case maps:take(Id, Waiting) of
        {#{timer := Timer} = Request, Rest} ->
            _ = erlang:cancel_timer(Timer),
            {Request, Requests#requests{waiting = Rest}};
        error ->
            error
    end.

%% @doc The requests that go down with a session.
-spec ids_of_session(requests()) -> [id()].
ids_of_session(#requests{waiting = Waiting}) ->
    [Id || {Id, #{message := #{modern := none}}} <- maps:to_list(Waiting)].

-spec size(requests()) -> non_neg_integer().
size(#requests{waiting = Waiting}) -> map_size(Waiting).

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

start_timer(Id, infinity, #requests{timeout_ms = Timeout}) ->
    start_timer(Timeout, {expired, Id});
start_timer(Id, Deadline, #requests{timeout_ms = Timeout}) ->
    start_timer(max(0, min(Timeout, Deadline - now_ms())), {expired, Id}).

left(false) -> 0;
left(Ms) -> Ms.

now_ms() -> erlang:monotonic_time(millisecond).
