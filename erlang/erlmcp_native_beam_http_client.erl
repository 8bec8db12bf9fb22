%% @doc HTTP clients of the `beam' path: HTTP/1.1 with `gen_tcp' and `ssl'.
%%
%% All is state of the owner: its connections are sockets that it controls or TLS sessions that end
%% with it, read one chunk at a time and not beyond `high_water_bytes' ahead of the owner. A
%% connection is opened for a request and carries it; the one used last is used first.
%%
%% A request that a reused connection has failed before a byte came back is sent once more, on a
%% new connection: if nothing of it can have been sent, or else if its method is idempotent.
%%
%% Two things are known of `gen_tcp' and `ssl' and not mended here: the answer of a server that
%% resets the connection while a large request is still being sent is lost with it, and over TLS a
%% body that goes up to the end of its connection is taken for complete without a close_notify.
-module(erlmcp_native_beam_http_client).

-behaviour(erlmcp_native_http_client_path).

-export([open/2, request/2, handle_info/2, take/3, cancel/2, info/1, close/1]).

-export_type([client/0]).

-record(request, {
    method :: binary(),
    wire :: iodata(),
    conn = none :: erlmcp_native_beam_http_client_pool:id() | none,
    exchange :: erlmcp_native_beam_http_client_exchange:exchange(),
    timeout :: timeout(),
    %% Of what is waited for now; looked at when the timer runs out, not set with each arrival.
    deadline :: integer() | infinity,
    timer :: reference() | none,
    total :: reference() | none
}).

-record(client, {
    settings :: erlmcp_native_beam_http_client_settings:settings(),
    %% Own messages carry it.
    tag = make_ref() :: reference(),
    pool = erlmcp_native_beam_http_client_pool:new() :: erlmcp_native_beam_http_client_pool:pool(),
    requests = #{} :: #{id() => #request{}},
    %% Those that wait for a connection.
    queue = gb_sets:new() :: gb_sets:set(id())
}).

-opaque client() :: #client{}.

-type id() :: integer().

-type events() :: [erlmcp_native_http_client_path:event()].

%% @private
-spec open(erlmcp_native_http_client_path:origin(), erlmcp_native_http_options:client()) ->
    {ok, client()} | {error, erlmcp_native:reason()}.
open(Origin, Options) ->
    case erlmcp_native_beam_http_client_settings:make(Origin, Options) of
        {ok, Settings} -> {ok, #client{settings = Settings}};
        {error, _} = Error -> Error
    end.

%% @private
-spec request(erlmcp_native_http_client_path:request(), client()) ->
    {ok, id(), client()} | {error, busy | erlmcp_native:reason(), client()}.
request(#{method := Method} = Request, #client{settings = Settings} = C0) ->
    #{route := Route, max_queue := MaxQueue} = Settings,
    case erlmcp_native_beam_http_client_wire:encode(Request, Route) of
        {ok, Wire} ->
            case has_room(C0) orelse gb_sets:size(C0#client.queue) < MaxQueue of
                true ->
                    Id = erlang:unique_integer([monotonic]),
                    {ok, Id, advance(enqueue(Id, Method, Wire, Request, C0))};
                false ->
                    {error, busy, C0}
            end;
        {error, Reason} ->
            {error, Reason, C0}
    end.

enqueue(Id, Method, Wire, #{timeout_ms := Timeout, total_timeout_ms := Total}, C) ->
    #client{settings = #{max_head_bytes := MaxHead}, requests = Requests, queue = Queue} = C,
    Request = #request{
        method = Method,
        wire = Wire,
        exchange = erlmcp_native_beam_http_client_exchange:new(Method, MaxHead),
        timeout = Timeout,
        deadline = deadline(Timeout),
        timer = start_timer(Timeout, {wait, Id}, C),
        total = start_timer(Total, {total, Id}, C)
    },
    C#client{requests = Requests#{Id => Request}, queue = gb_sets:add_element(Id, Queue)}.

%% Whether a request could have a connection at once. One that has ended and was not taken yet
%% counts: its answer takes memory.
has_room(#client{settings = #{max_connections := Max}} = C) -> active(C) < Max.

active(#client{requests = Requests, queue = Queue}) -> map_size(Requests) - gb_sets:size(Queue).

%% Lets requests that wait begin, as many as may.
advance(#client{queue = Queue0} = C) ->
    case not gb_sets:is_empty(Queue0) andalso has_room(C) of
        true ->
            {Id, Queue} = gb_sets:take_smallest(Queue0),
            advance(begin_request(Id, C#client{queue = Queue}));
        false ->
            C
    end.

begin_request(Id, #client{pool = Pool0} = C) ->
    case erlmcp_native_beam_http_client_pool:next_idle(Pool0) of
        {ConnId, Pool} -> reuse(Id, ConnId, C#client{pool = Pool});
        none -> dial(Id, C)
    end.

%% A connection that turns out to be closed has not sent anything.
reuse(Id, ConnId, #client{pool = Pool} = C0) ->
    Conn = erlmcp_native_beam_http_client_pool:conn(ConnId, Pool),
    case erlmcp_native_beam_http_client_conn:is_idle(Conn) of
        true ->
            Lent = erlmcp_native_beam_http_client_pool:lend(ConnId, Id, Pool),
            case transmit(Id, ConnId, Conn, C0#client{pool = Lent}) of
                {ok, C} -> C;
                {error, _, C} -> dial(Id, drop(ConnId, C))
            end;
        false ->
            begin_request(Id, drop(ConnId, C0))
    end.

dial(Id, #client{settings = Settings, pool = Pool} = C) ->
    #{endpoint := Endpoint, dialling := Dialling, manner := Manner} = Settings,
    Conn = erlmcp_native_beam_http_client_conn:dial(Endpoint, Dialling, Manner),
    ConnId = erlang:unique_integer([monotonic]),
    given(Id, ConnId, C#client{
        pool = erlmcp_native_beam_http_client_pool:add(ConnId, Conn, Id, Pool)
    }).

given(Id, ConnId, #client{requests = Requests} = C) ->
    #{Id := Request} = Requests,
    put_request(Id, Request#request{conn = ConnId}, C).

transmit(Id, ConnId, Conn0, #client{requests = Requests} = C) ->
    #{Id := #request{wire = Wire}} = Requests,
    {Result, Conn} = erlmcp_native_beam_http_client_conn:send(Wire, iolist_size(Wire), Conn0),
    Given = given(Id, ConnId, set_conn(ConnId, Conn, C)),
    case Result of
        ok -> {ok, arm(ConnId, Given)};
        {error, Reason} -> {error, Reason, Given}
    end.

arm(ConnId, #client{tag = Tag} = C) ->
    {Result, Conn} = erlmcp_native_beam_http_client_conn:arm(conn(ConnId, C)),
    %% The owner cannot be told here.
    _ = [self() ! {Tag, {lost, ConnId}} || Result =/= ok],
    set_conn(ConnId, Conn, C).

conn(ConnId, #client{pool = Pool}) -> erlmcp_native_beam_http_client_pool:conn(ConnId, Pool).

set_conn(ConnId, Conn, #client{pool = Pool} = C) ->
    C#client{pool = erlmcp_native_beam_http_client_pool:set(ConnId, Conn, Pool)}.

drop(ConnId, #client{pool = Pool} = C) ->
    C#client{pool = erlmcp_native_beam_http_client_pool:drop(ConnId, Pool)}.

%% @private
-spec handle_info(term(), client()) -> {events(), client()} | unknown.
handle_info({timeout, Timer, {Tag, What}}, #client{tag = Tag} = C) ->
    ran_out(What, Timer, C);
handle_info({Tag, {lost, ConnId}}, #client{tag = Tag, pool = Pool} = C) ->
    case erlmcp_native_beam_http_client_pool:has(ConnId, Pool) of
        true -> lost(closed, ConnId, C);
        false -> {[], C}
    end;
handle_info(Msg, #client{pool = Pool} = C) ->
    case erlmcp_native_beam_http_client_pool:whose(Msg, Pool) of
        {ok, ConnId} ->
            News = erlmcp_native_beam_http_client_conn:handle_info(Msg, conn(ConnId, C)),
            heard(News, ConnId, erlmcp_native_beam_http_client_pool:request(ConnId, Pool), C);
        error ->
            unknown
    end.

heard({opened, Conn}, ConnId, Id, #client{pool = Pool} = C0) ->
    Opened = erlmcp_native_beam_http_client_pool:opened(ConnId, Conn, Pool),
    case transmit(Id, ConnId, Conn, C0#client{pool = Opened}) of
        {ok, C} -> {[], C};
        {error, Reason, C} -> fail(Id, #{reason => Reason, safe => true}, C)
    end;
heard({failed, Reason}, _, Id, C) ->
    fail(Id, #{reason => Reason, safe => true}, C);
heard({data, Bytes, Conn}, ConnId, Id, C) ->
    came(Bytes, ConnId, Id, set_conn(ConnId, Conn, C));
heard({lost, Reason}, ConnId, _, C) ->
    lost(Reason, ConnId, C);
heard(unknown, _, _, _) ->
    unknown.

%% What nobody asked for could be taken for the next answer.
came(_, ConnId, none, C) ->
    {[], drop(ConnId, C)};
came(Bytes, _, Id, #client{requests = Requests} = C) ->
    #{Id := #request{exchange = X} = Request} = Requests,
    case erlmcp_native_beam_http_client_exchange:ending(X) of
        none -> settle(Id, Request, erlmcp_native_beam_http_client_exchange:received(Bytes, X), C);
        _ -> {[], detach(Id, C)}
    end.

lost(Reason, ConnId, #client{pool = Pool} = C) ->
    case erlmcp_native_beam_http_client_pool:request(ConnId, Pool) of
        none -> {[], drop(ConnId, C)};
        Id -> lost(Reason, ConnId, Id, maps:get(Id, C#client.requests), C)
    end.

lost(Reason, ConnId, Id, #request{exchange = X} = Request, C) ->
    Ending = erlmcp_native_beam_http_client_exchange:ending(X),
    case is_repeatable(Request, conn(ConnId, C)) of
        _ when Ending =/= none -> {[], detach(Id, C)};
        true -> {[], dial(Id, drop(ConnId, C))};
        false -> settle(Id, Request, erlmcp_native_beam_http_client_exchange:lost(Reason, X), C)
    end.

is_repeatable(#request{method = Method, exchange = X}, Conn) ->
    erlmcp_native_beam_http_client_conn:is_used(Conn) andalso
        erlmcp_native_beam_http_client_exchange:is_untouched(X) andalso
        erlmcp_native_beam_http_client_wire:is_idempotent(Method).

fail(Id, Failure, #client{requests = Requests} = C) ->
    #{Id := #request{exchange = X} = Request} = Requests,
    settle(Id, Request, erlmcp_native_beam_http_client_exchange:fail(Failure, X), C).

%% Goes on with an exchange to which something has happened.
settle(Id, #request{timeout = Timeout} = Request0, {Notices, X}, C0) ->
    HasHead = erlmcp_native_beam_http_client_exchange:has_head(X),
    Request =
        case HasHead of
            true -> Request0#request{exchange = X, wire = <<>>, deadline = deadline(Timeout)};
            false -> Request0#request{exchange = X}
        end,
    C = put_request(Id, Request, C0),
    Events = [event(Id, Notice) || Notice <- Notices],
    case erlmcp_native_beam_http_client_exchange:ending(X) of
        none -> {Events, read_on(Request, C)};
        {done, keep} -> {Events, complete(Id, Request, C)};
        {done, close} -> {Events, detach(Id, C)};
        {failed, _} when HasHead -> {Events, detach(Id, C)};
        {failed, _} -> {Events, advance(remove(Id, detach(Id, C)))}
    end.

event(Id, {head, Status, Headers}) -> {head, Id, Status, Headers};
event(Id, readable) -> {readable, Id};
event(Id, {failed, Failure}) -> {failed, Id, Failure}.

put_request(Id, Request, #client{requests = Requests} = C) ->
    C#client{requests = Requests#{Id := Request}}.

read_on(#request{conn = ConnId, exchange = X}, #client{settings = Settings} = C) ->
    #{high_water_bytes := HighWater} = Settings,
    case erlmcp_native_beam_http_client_exchange:has_room(HighWater, X) of
        true -> arm(ConnId, C);
        false -> C
    end.

%% The connection waits for the owner to have taken everything. An answer may come before the
%% whole request is sent; the rest is of no use to anybody.
complete(Id, #request{conn = ConnId} = Request, C) ->
    case erlmcp_native_beam_http_client_conn:is_flushed(conn(ConnId, C)) of
        true -> arm(ConnId, put_request(Id, stop_timers(Request), C));
        false -> detach(Id, C)
    end.

%% Separates a request that is over from its connection, which is of no further use.
detach(Id, #client{requests = Requests} = C) ->
    #{Id := #request{conn = ConnId} = Request} = Requests,
    Detached = put_request(Id, (stop_timers(Request))#request{conn = none}, C),
    case ConnId of
        none -> Detached;
        _ -> drop(ConnId, Detached)
    end.

remove(Id, #client{requests = Requests, queue = Queue} = C) ->
    {Request, Rest} = maps:take(Id, Requests),
    _ = stop_timers(Request),
    C#client{requests = Rest, queue = gb_sets:del_element(Id, Queue)}.

ran_out({idle, ConnId}, Timer, #client{pool = Pool} = C) ->
    case erlmcp_native_beam_http_client_pool:is_idle_since(Timer, ConnId, Pool) of
        true -> {[], drop(ConnId, C)};
        false -> {[], C}
    end;
ran_out({total, Id}, Timer, #client{requests = Requests} = C) ->
    case Requests of
        #{Id := #request{total = Timer} = Request} -> timed_out(Id, Request, C);
        _ -> {[], C}
    end;
ran_out({wait, Id}, Timer, #client{requests = Requests} = C) ->
    case Requests of
        #{Id := #request{timer = Timer, deadline = Deadline} = Request} ->
            waited(Id, Request, Deadline - now_ms(), C);
        _ ->
            {[], C}
    end.

waited(Id, Request, Left, C) when Left > 0 ->
    {[], wait_again(Id, Request, Left, C)};
waited(Id, #request{timeout = Timeout} = Request, _, C) ->
    case is_paused(Request, C) of
        true -> {[], wait_again(Id, Request, Timeout, C)};
        false -> timed_out(Id, Request, C)
    end.

wait_again(Id, Request, Ms, C) ->
    Timer = start_timer(Ms, {wait, Id}, C),
    put_request(Id, Request#request{timer = Timer, deadline = deadline(Ms)}, C).

timed_out(Id, Request, C) ->
    fail(Id, #{reason => timeout, safe => not is_begun(Request, C)}, C).

is_begun(#request{conn = none}, _) -> false;
is_begun(#request{conn = Id}, C) -> erlmcp_native_beam_http_client_conn:is_open(conn(Id, C)).

%% Whether it is the owner who is waited for.
is_paused(#request{conn = ConnId} = Request, C) ->
    is_begun(Request, C) andalso
        not erlmcp_native_beam_http_client_conn:is_armed(conn(ConnId, C)).

%% @private
-spec take(id(), pos_integer(), client()) ->
    {[binary()], more | armed | done | {failed, erlmcp_native_http_client_path:failure()},
        client()}.
take(Id, MaxBytes, #client{requests = Requests} = C0) ->
    case Requests of
        #{Id := #request{exchange = X0} = Request0} ->
            {Parts, Status, X} = erlmcp_native_beam_http_client_exchange:take(MaxBytes, X0),
            Request = Request0#request{exchange = X},
            {Parts, Status, taken(Status, Id, Request, put_request(Id, Request, C0))};
        _ ->
            {[], {failed, #{reason => closed, safe => false}}, C0}
    end.

taken(done, Id, Request, C) ->
    advance(release(Id, Request, C));
taken({failed, _}, Id, _, C) ->
    advance(remove(Id, C));
taken(_, Id, #request{exchange = X, timeout = Timeout} = Request, C) ->
    Ending = erlmcp_native_beam_http_client_exchange:ending(X),
    case Ending =:= none andalso is_paused(Request, C) of
        true ->
            Resumed = Request#request{deadline = deadline(Timeout)},
            read_on(Resumed, put_request(Id, Resumed, C));
        false ->
            C
    end.

%% Its connection serves the next one.
release(Id, #request{conn = none}, C) ->
    remove(Id, C);
release(Id, #request{conn = ConnId}, #client{settings = Settings, pool = Pool} = C) ->
    #{idle_timeout_ms := Timeout} = Settings,
    Timer = start_timer(Timeout, {idle, ConnId}, C),
    remove(Id, C#client{pool = erlmcp_native_beam_http_client_pool:idle(ConnId, Timer, Pool)}).

%% @private
-spec cancel(id(), client()) -> client().
cancel(Id, #client{requests = Requests} = C) ->
    case Requests of
        #{Id := #request{exchange = X} = Request} ->
            case erlmcp_native_beam_http_client_exchange:ending(X) of
                {done, _} -> advance(release(Id, Request, C));
                _ -> advance(remove(Id, detach(Id, C)))
            end;
        _ ->
            C
    end.

%% @private
-spec info(client()) ->
    #{connections := non_neg_integer(), active := non_neg_integer(), queued := non_neg_integer()}.
info(#client{pool = Pool, queue = Queue} = C) ->
    #{
        connections => erlmcp_native_beam_http_client_pool:count(Pool),
        active => active(C),
        queued => gb_sets:size(Queue)
    }.

%% @private
-spec close(client()) -> ok.
close(#client{pool = Pool, requests = Requests, tag = Tag} = C) ->
    _ = maps:map(fun(_, Request) -> stop_timers(Request) end, Requests),
    _ = lists:foldl(fun drop/2, C, erlmcp_native_beam_http_client_pool:ids(Pool)),
    flush(Tag).

flush(Tag) ->
    receive
        {timeout, _, {Tag, _}} -> flush(Tag);
        {Tag, _} -> flush(Tag)
    after 0 -> ok
    end.

stop_timers(#request{timer = Timer, total = Total} = Request) ->
    ok = stop_timer(Timer),
    ok = stop_timer(Total),
    Request#request{timer = none, total = none}.

start_timer(infinity, _, _) -> none;
start_timer(Ms, What, #client{tag = Tag}) -> erlang:start_timer(Ms, self(), {Tag, What}).

stop_timer(none) ->
    ok;
stop_timer(Timer) ->
    erlang:cancel_timer(Timer, [{info, false}]).

deadline(infinity) -> infinity;
deadline(Ms) -> now_ms() + Ms.

now_ms() -> erlang:monotonic_time(millisecond).
