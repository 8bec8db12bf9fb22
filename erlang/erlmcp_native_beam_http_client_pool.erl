%% @doc The connections of a client: which request has which, which are idle, whose a message is.
-module(erlmcp_native_beam_http_client_pool).

-export([new/0, add/4, whose/2, conn/2, request/2, set/3, opened/3, lend/3, drop/2]).
-export([idle/3, next_idle/1, is_idle_since/3, has/2, ids/1, count/1]).

-export_type([pool/0, id/0]).

-record(slot, {
    conn :: erlmcp_native_beam_http_client_conn:conn(),
    keys :: [erlmcp_native_beam_http_client_conn:key()],
    request :: term() | none,
    %% Runs while it is idle.
    timer = none :: reference() | none
}).

-record(pool, {
    slots = #{} :: #{id() => #slot{}},
    %% What messages can be told by.
    keys = #{} :: #{erlmcp_native_beam_http_client_conn:key() => id()},
    %% The one used last first.
    idle = [] :: [id()]
}).

-opaque pool() :: #pool{}.

-type id() :: integer().

%% @doc A pool without connections.
-spec new() -> pool().
new() -> #pool{}.

%% @doc Adds a connection that is being opened for a request.
-spec add(id(), erlmcp_native_beam_http_client_conn:conn(), Request :: term(), pool()) -> pool().
add(Id, Conn, Request, Pool) ->
    index(Id, #slot{conn = Conn, keys = [], request = Request}, Pool).

%% @doc The connection that a message is for.
-spec whose(Msg :: term(), pool()) -> {ok, id()} | error.
whose(Msg, #pool{keys = Keys}) -> maps:find(key(Msg), Keys).

key({tcp, Port, _}) -> Port;
key({tcp_closed, Port}) -> Port;
key({tcp_error, Port, _}) -> Port;
key({'DOWN', Monitor, process, _, _}) -> Monitor;
key({Tag, _}) -> Tag;
key(_) -> none.

%% @doc A connection that is there.
-spec conn(id(), pool()) -> erlmcp_native_beam_http_client_conn:conn().
conn(Id, #pool{slots = Slots}) -> (maps:get(Id, Slots))#slot.conn.

%% @doc The request that has a connection; `none' where it is idle.
-spec request(id(), pool()) -> term() | none.
request(Id, #pool{slots = Slots}) -> (maps:get(Id, Slots))#slot.request.

%% @doc Replaces a connection by what has become of it.
-spec set(id(), erlmcp_native_beam_http_client_conn:conn(), pool()) -> pool().
set(Id, Conn, #pool{slots = Slots} = Pool) ->
    #{Id := Slot} = Slots,
    Pool#pool{slots = Slots#{Id := Slot#slot{conn = Conn}}}.

%% @doc A connection that was being opened is open. Its messages are others from now on.
-spec opened(id(), erlmcp_native_beam_http_client_conn:conn(), pool()) -> pool().
opened(Id, Conn, #pool{slots = Slots} = Pool) ->
    #{Id := Slot} = Slots,
    index(Id, Slot#slot{conn = Conn}, Pool).

index(Id, #slot{conn = Conn, keys = Former} = Slot, #pool{slots = Slots, keys = Keys0} = Pool) ->
    New = erlmcp_native_beam_http_client_conn:keys(Conn),
    Keys = maps:merge(maps:without(Former, Keys0), maps:from_list([{Key, Id} || Key <- New])),
    Pool#pool{slots = Slots#{Id => Slot#slot{keys = New}}, keys = Keys}.

%% @doc Gives a connection that was taken from the idle ones to a request.
-spec lend(id(), Request :: term(), pool()) -> pool().
lend(Id, Request, #pool{slots = Slots} = Pool) ->
    #{Id := Slot} = Slots,
    Pool#pool{slots = Slots#{Id := Slot#slot{request = Request}}}.

%% @doc A connection is done with its request and idle, until the timer runs out.
-spec idle(id(), Timer :: reference(), pool()) -> pool().
idle(Id, Timer, #pool{slots = Slots, idle = Idle} = Pool) ->
    #{Id := Slot} = Slots,
    Pool#pool{
        slots = Slots#{Id := Slot#slot{request = none, timer = Timer}},
        idle = [Id | Idle]
    }.

%% @doc Takes the connection that was used last from the idle ones.
-spec next_idle(pool()) -> {id(), pool()} | none.
next_idle(#pool{idle = []}) ->
    none;
next_idle(#pool{idle = [Id | Idle], slots = Slots} = Pool) ->
    #{Id := Slot} = Slots,
    ok = stop(Slot),
    {Id, Pool#pool{idle = Idle, slots = Slots#{Id := Slot#slot{timer = none}}}}.

%% @doc Whether a connection has been idle since that timer was started.
-spec is_idle_since(Timer :: reference(), id(), pool()) -> boolean().
is_idle_since(Timer, Id, #pool{slots = Slots}) ->
    case Slots of
        #{Id := #slot{timer = Timer}} -> true;
        _ -> false
    end.

%% @doc Closes a connection and forgets it.
-spec drop(id(), pool()) -> pool().
drop(Id, #pool{slots = Slots, keys = Keys, idle = Idle}) ->
    {#slot{conn = Conn, keys = Own} = Slot, Rest} = maps:take(Id, Slots),
    ok = stop(Slot),
    ok = erlmcp_native_beam_http_client_conn:close(Conn),
    #pool{slots = Rest, keys = maps:without(Own, Keys), idle = lists:delete(Id, Idle)}.

stop(#slot{timer = none}) -> ok;
stop(#slot{timer = Timer}) -> erlang:cancel_timer(Timer, [{info, false}]).

%% @doc Whether a connection is there.
-spec has(id(), pool()) -> boolean().
has(Id, #pool{slots = Slots}) -> is_map_key(Id, Slots).

%% @doc All connections.
-spec ids(pool()) -> [id()].
ids(#pool{slots = Slots}) -> maps:keys(Slots).

%% @doc How many there are, being opened or open.
-spec count(pool()) -> non_neg_integer().
count(#pool{slots = Slots}) -> map_size(Slots).
