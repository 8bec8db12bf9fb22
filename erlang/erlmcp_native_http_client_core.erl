%% @private An MCP client over HTTP as a value in the process that owns it, as
%% {@link erlmcp_native_link} is for a connection. It sends messages, reads answers and streams,
%% resumes, retries and times out; what there is to tell comes back as events.
%%
%% Nothing is read before {@link take/1} is called, as often as {@link is_readable/1} says that
%% there is something: who cannot take more makes the server wait.
-module(erlmcp_native_http_client_core).

-export([new/1, send/3, cancel/2, handle_info/2, is_readable/1, take/1, info/1, close/1]).
-export([resubmit/2, flush/1]).

-export_type([core/0, event/0, reason/0, send_error/0]).

-include("erlmcp_native_http_client.hrl").

-opaque core() :: #core{}.

-define(TAKE_BYTES, 65536).
-define(TIMER, erlmcp_native_http_client).

-spec new(erlmcp_native_http_client_options:options()) ->
    {ok, core()} | {error, erlmcp_native:reason()}.
new(#{url := #{origin := Origin}, path := Path, http := Http} = Options) ->
    case ?WIRE:new(Origin, Path, Http) of
        {ok, Wire} ->
            {ok, #core{
                options = Options,
                wire = Wire,
                session = ?SESSION:new(),
                requests = ?REQUESTS:new(Options),
                listen = ?STREAM:new_listen(Options)
            }};
        {error, _} = Error ->
            Error
    end.

%% @doc Sends a message, or keeps it until it may be sent.
-spec send(iodata(), Limits :: term(), core()) -> {ok | {error, send_error()}, [event()], core()}.
send(Data, #{trace := Trace} = Given, Core) ->
    Limits = maps:remove(trace, Given),
    case erlmcp_native_trace_context:check(Trace) of
        true -> traced(erlmcp_native_trace_context:into(Data, Trace), Limits, Core);
        false -> {{error, {option, trace, Trace}}, [], Core}
    end;
send(Data, Given, Core) ->
    case {?REQUESTS:limits(Given), ?MESSAGE:read(Data)} of
        {{ok, Limits}, {ok, Message}} ->
            {Result, Next} = accept(Message#{limits => Limits}, Core),
            {Events, Told} = ?INBOUND:told(Next),
            {Result, Events, Told};
        {{ok, Limits}, {batch, Text}} ->
            send_batch(?BATCH:read(Text), Limits, Core);
        {{error, _} = Error, _} ->
            {Error, [], Core};
        {_, {error, _} = Error} ->
            {Error, [], Core}
    end.

traced({ok, Message}, Limits, Core) -> send(Message, Limits, Core);
traced(error, _, Core) -> {{error, invalid_message}, [], Core}.

send_batch({ok, {Text, Messages}}, Limits, Core) ->
    Batch = {Text, [Message#{limits => Limits} || Message <- Messages]},
    {Result, Next} = accept_batch(Batch, Core),
    {Events, Told} = ?INBOUND:told(Next),
    {Result, Events, Told};
send_batch({error, _} = Error, _, Core) ->
    {Error, [], Core}.

%% @doc Stops waiting for a response and lets the server know.
-spec cancel(id(), core()) -> {[event()], core()}.
cancel(Id, Core) ->
    ?INBOUND:told(give_up(Id, cancelled, Core)).

-spec handle_info(term(), core()) -> {[event()], core()} | unknown.
handle_info({timeout, Timer, {?TIMER, What}}, Core) ->
    ?INBOUND:told(expired(What, Timer, Core));
handle_info(Msg, #core{wire = Wire} = Core) ->
    case ?WIRE:handle_info(Msg, Wire) of
        {Events, Next} ->
            Handle = fun ?EXCHANGE:wire_event/2,
            ?INBOUND:told(lists:foldl(Handle, Core#core{wire = Next}, Events));
        unknown ->
            unknown
    end.

-spec is_readable(core()) -> boolean().
is_readable(#core{ready = Ready}) -> Ready =/= [].

%% @doc Takes a part of what has arrived.
-spec take(core()) -> {[event()], core()}.
take(#core{ready = []} = Core) ->
    {[], Core};
take(#core{ready = [Key | Ready], exchanges = Exchanges, wire = Wire} = Core) ->
    case Exchanges of
        #{Key := #exchange{answer = Answer}} when Answer =/= none ->
            {Parts, Status, Next} = ?WIRE:take(Key, ?TAKE_BYTES, Wire),
            ?INBOUND:told(?EXCHANGE:fed(Parts, Status, Key, Core#core{ready = Ready, wire = Next}));
        #{} ->
            {[], Core#core{ready = Ready}}
    end.

-spec info(core()) -> map().
info(#core{session = Session, requests = Requests, wire = Wire, listen = Listen} = Core) ->
    (?SESSION:info(Session))#{
        url => ?URL:text(maps:get(url, Core#core.options)),
        transport =>
            case Core#core.mode of
                {sse, _} -> http_sse;
                _ -> streamable_http
            end,
        pending => ?REQUESTS:count(Requests),
        listening => Listen#listen.key =/= none,
        ignored => Core#core.ignored,
        http => ?WIRE:info(Wire)
    }.

%% @doc Ends everything, and the session, for which it waits a little.
-spec close(core()) -> ok.
close(#core{exchanges = Exchanges} = Core) ->
    Quiet = lists:foldl(fun ?EXCHANGE:drop_exchange/2, Core, maps:keys(Exchanges)),
    Wire = ?EXCHANGE:end_session(Quiet),
    ?WIRE:close(Wire).

%% ---- from the owner

accept(#{kind := request, id := Id} = Message, #core{requests = Requests} = Core) ->
    case ?REQUESTS:is_waiting(Id, Requests) of
        true ->
            {{error, duplicate_id}, Core};
        false ->
            room(
                fun(C) -> submit(Message, C#core{requests = ?REQUESTS:add(Message, Requests)}) end,
                Core
            )
    end;
accept(#{kind := notification, method := <<"notifications/cancelled">>} = Message, Core) ->
    owner_cancels(Message, Core);
accept(
    #{kind := notification, method := <<"notifications/initialized">>, modern := none},
    #core{options = #{initialized := auto}} = Core
) ->
    {ok, Core};
accept(#{kind := response} = Message, #core{session = Session} = Core) ->
    %% From 2026-07-28 on there are no requests of a server.
    case {?SESSION:is_legacy(Session), ?SESSION:revision(Session)} of
        {false, Revision} when Revision =/= none -> {{error, not_allowed}, Core};
        _ -> submit(Message, Core)
    end;
accept(Message, Core) ->
    room(fun(C) -> submit(Message, C) end, Core).

accept_batch({_, Messages} = Batch, #core{requests = Requests, session = Session} = Core) ->
    Ids = ?BATCH:ids(Batch),
    IsWaiting = fun(Id) -> ?REQUESTS:is_waiting(Id, Requests) end,
    Repeats = length(lists:usort(Ids)) < length(Ids) orelse lists:any(IsWaiting, Ids),
    case {?SESSION:takes_batches(Session), Repeats} of
        {false, _} -> {{error, not_allowed}, Core};
        {true, true} -> {{error, duplicate_id}, Core};
        {true, false} -> room(length(Messages), fun(C) -> submit_batch(Batch, C) end, Core)
    end.

submit_batch({_, Messages} = Batch, #core{requests = Requests} = Core) ->
    Asked = [Message || #{kind := request} = Message <- Messages],
    Added = Core#core{requests = lists:foldl(fun ?REQUESTS:add/2, Requests, Asked)},
    Posted =
        case may_leave_together(Messages, Added) of
            true -> ?EXCHANGE:post_batch(Batch, Added);
            false -> {ok, lists:foldl(fun resubmit/2, Added, Messages)}
        end,
    case Posted of
        {ok, Sent} -> {ok, lists:foldl(fun unasked/2, Sent, Messages)};
        {error, Reason, Unsent} -> {{error, Reason}, lists:foldl(fun forget/2, Unsent, Asked)}
    end.

%% It cancels in the same breath.
unasked(#{kind := notification, method := <<"notifications/cancelled">>} = Message, Core) ->
    ?OUTCOME:dropped(cancelled_id(Message), cancelled, Core);
unasked(_, Core) ->
    Core.

%% If some of it has to wait, its messages go one by one, in order, as the others do that wait.
may_leave_together(Messages, Core) ->
    lists:all(fun(Message) -> gate(Message, Core) =:= pass end, Messages).

room(Then, Core) ->
    room(1, Then, Core).

room(More, Then, #core{requests = Requests, held = Held} = Core) ->
    #core{options = #{max_pending := Max}} = Core,
    Pending = ?REQUESTS:count(Requests),
    case Pending + More =< Max andalso queue:len(Held) + More =< Max of
        true -> Then(Core);
        false -> {{error, busy}, Core}
    end.

submit(Message, Core) ->
    case gate(Message, Core) of
        hold ->
            {ok, hold(Message, Core)};
        pass ->
            case ?EXCHANGE:post(Message, Core) of
                {ok, Sent} -> {ok, Sent};
                {error, Reason, Unsent} -> {{error, Reason}, forget(Message, Unsent)}
            end
    end.

%% @doc Sends what was accepted before.
-spec resubmit(message(), #core{}) -> #core{}.
resubmit(#{kind := request, id := Id, ref := Ref} = Message, #core{requests = Requests} = Core) ->
    case ?REQUESTS:find(Id, Requests) of
        {ok, #{message := #{ref := Ref}}} -> resubmitted(Message, Core);
        _ -> Core
    end;
resubmit(Message, Core) ->
    resubmitted(Message, Core).

resubmitted(Message, Core) ->
    case gate(Message, Core) of
        hold ->
            hold(Message, Core);
        pass ->
            case ?EXCHANGE:post(Message, Core) of
                {ok, Sent} -> Sent;
                {error, Reason, Unsent} -> ?OUTCOME:failed(Message, Reason, Unsent)
            end
    end.

gate(#{from := owner, modern := none}, #core{restarting = Restarting}) when Restarting =/= none ->
    hold;
gate(#{modern := none}, #core{mode = {probing, _, _, _}}) ->
    hold;
gate(Message, #core{session = Session}) ->
    ?SESSION:gate(Message, Session).

hold(Message, #core{held = Held} = Core) ->
    Core#core{held = queue:in(Message, Held)}.

%% @doc Sends what was held, or holds it further.
-spec flush(#core{}) -> #core{}.
flush(#core{held = Held} = Core) ->
    lists:foldl(fun resubmit/2, Core#core{held = queue:new()}, queue:to_list(Held)).

forget(#{kind := request, id := Id}, #core{requests = Requests} = Core) ->
    case ?REQUESTS:remove(Id, Requests) of
        {_, Rest} -> Core#core{requests = Rest};
        error -> Core
    end;
forget(_, Core) ->
    Core.

%% An owner that cancels by itself wants no response either.
owner_cancels(#{modern := Modern} = Message, Core) ->
    Id = cancelled_id(Message),
    case ?REQUESTS:find(Id, Core#core.requests) of
        {ok, #{message := #{modern := none}, exchange := Key}} when
            Modern =:= none, Key =/= none
        ->
            {Result, Sent} = submit(Message, Core),
            {Result, ?OUTCOME:dropped(Id, cancelled, Sent)};
        {ok, _} ->
            {ok, ?OUTCOME:dropped(Id, cancelled, Core)};
        error ->
            {ok, Core}
    end.

cancelled_id(#{text := Text}) ->
    case erlmcp_native_json:decode(Text) of
        {ok, #{<<"params">> := #{<<"requestId">> := Id}}} -> Id;
        _ -> none
    end.

%% Nobody waits any more, which the server may want to know. Of a request of 2026-07-28 it learns by
%% the end of the stream, of `initialize' it must not.
give_up(Id, Reason, #core{requests = Requests} = Core) ->
    case ?REQUESTS:find(Id, Requests) of
        {ok, #{message := #{modern := none, method := Method}, exchange := Key} = Request} when
            %% While its stream waits to be resumed it has no exchange.
            Method =/= <<"initialize">>, Key =/= none orelse map_get(event_id, Request) =/= none
        ->
            Why = atom_to_binary(Reason),
            Cancelled = ?MESSAGE:cancelled(Id, Why),
            resubmit(Cancelled, ?STREAM:unprobe(Id, ?OUTCOME:fail(Id, Reason, Core)));
        {ok, _} ->
            ?STREAM:unprobe(Id, ?OUTCOME:fail(Id, Reason, Core));
        error ->
            Core
    end.

expired({expired, Id}, Timer, #core{requests = Requests} = Core) ->
    case ?REQUESTS:expired(Id, Timer, Requests) of
        true -> give_up(Id, timeout, Core);
        false -> Core
    end;
expired({exchange, Key}, Timer, #core{exchanges = Exchanges} = Core) ->
    case Exchanges of
        #{Key := #exchange{timer = Timer} = Exchange} ->
            Dropped = ?EXCHANGE:drop_exchange(Key, Core),
            ?OUTCOME:broken(#{reason => timeout, safe => false}, Exchange, Dropped);
        #{} ->
            Core
    end;
expired({again, Message}, _, Core) ->
    resubmit(Message, Core);
expired({resume, Id}, _, Core) ->
    ?STREAM:resume(Id, Core);
expired(listen, Timer, #core{listen = #listen{timer = Timer} = Listen} = Core) ->
    ?STREAM:listen(Core#core{listen = Listen#listen{timer = none}});
expired(_, _, Core) ->
    Core.
