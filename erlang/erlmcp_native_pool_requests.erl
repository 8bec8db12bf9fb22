%% @private The requests of a pool, by id: those that wait, in order, and those under way. Its
%% process is told when the time of one is over: `{timeout, _, {request, Id}}'.
-module(erlmcp_native_pool_requests).

-export([new/0, add/6, next/1, take/2, queued/1, ids/1]).

-export_type([requests/0, id/0]).

-type id() :: pos_integer().

-record(request, {
    message :: binary() | sent,
    from :: pid(),
    timer :: reference() | none,
    accepted :: integer(),
    %% When it was sent.
    at = none :: integer() | none
}).

-record(requests, {
    all = #{} :: #{id() => #request{}},
    %% Some of these may be over.
    waiting = queue:new() :: queue:queue({id(), reference() | none}),
    queued = 0 :: non_neg_integer()
}).

-opaque requests() :: #requests{}.

-spec new() -> requests().
new() -> #requests{}.

%% @doc Appends a request, if no more than so many wait.
-spec add(id(), binary(), pid(), timeout(), pos_integer(), requests()) ->
    {ok, requests()} | {error, busy}.
add(_, _, _, _, Max, #requests{queued = Queued}) when Queued >= Max ->
    {error, busy};
add(Id, Message, From, Ms, _, #requests{all = All, waiting = Waiting, queued = Queued} = R) ->
    Timer = timer(Id, Ms),
    Request = #request{message = Message, from = From, timer = Timer, accepted = now_us()},
    {ok, R#requests{
        all = All#{Id => Request},
        waiting = queue:in({Id, Timer}, Waiting),
        queued = Queued + 1
    }}.

timer(_, infinity) -> none;
timer(Id, Ms) -> erlang:start_timer(Ms, self(), {request, Id}).

%% @doc The first that waits, which is under way from now on.
-spec next(requests()) -> {id(), binary(), AcceptedUs :: integer(), requests()} | empty.
next(#requests{waiting = Waiting0, all = All, queued = Queued} = R) ->
    case queue:out(Waiting0) of
        {empty, _} ->
            empty;
        {{value, {Id, Timer}}, Waiting} ->
            Rest = R#requests{waiting = Waiting},
            case All of
                #{Id := #request{message = Message, timer = Timer} = Request} when
                    Message =/= sent
                ->
                    Sent = Request#request{message = sent, at = now_us()},
                    Left = Rest#requests{all = All#{Id := Sent}, queued = Queued - 1},
                    {Id, Message, Request#request.accepted, Left};
                #{} ->
                    next(Rest)
            end
    end.

%% @doc Takes a request out, of which the outcome is known.
-spec take(id(), requests()) ->
    {#{from := pid(), accepted := integer(), taken_ms := float() | none}, requests()} | error.
take(Id, #requests{all = All, queued = Queued} = R) ->
    case maps:take(Id, All) of
        {#request{from = From, timer = Timer, at = At, message = Message} = Request, Rest} ->
            _ = Timer =:= none orelse erlang:cancel_timer(Timer),
            Left = R#requests{all = Rest, queued = Queued - waits(Message)},
            {#{from => From, accepted => Request#request.accepted, taken_ms => since(At)}, Left};
        error ->
            error
    end.

waits(sent) -> 0;
waits(_) -> 1.

since(none) -> none;
since(At) -> (now_us() - At) / 1000.

%% @doc How many wait.
-spec queued(requests()) -> non_neg_integer().
queued(#requests{queued = Queued}) -> Queued.

-spec ids(requests()) -> [id()].
ids(#requests{all = All}) -> maps:keys(All).

now_us() -> erlang:monotonic_time(microsecond).
