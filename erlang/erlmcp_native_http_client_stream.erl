%% @private The event streams of a client and its session, and what is done when they end.
-module(erlmcp_native_http_client_stream).

-export([stream_ended/3, resume/2]).
-export([new_listen/1, listen/1, listening/1, listen_again/2, deaf/1]).
-export([session_gone/3, lose_session/1]).
-export([probe/4, endpoint/3, sse_ended/2, unprobe/2]).

-include("erlmcp_native_http_client.hrl").

%% @doc A stream has ended before the response came.
-spec stream_ended(id(), orderly | failed, #core{}) -> #core{}.
stream_ended(Id, How, #core{requests = Requests} = Core) ->
    {ok, Request} = ?REQUESTS:find(Id, Requests),
    case Request of
        #{event_id := EventId, message := #{modern := none}} when EventId =/= none ->
            resume_later(Id, How, Request, Core);
        _ ->
            ?OUTCOME:fail(Id, closed, Core)
    end.

resume_later(Id, How, #{resumes := Resumes, retry_ms := RetryMs}, Core) ->
    #core{requests = Requests} = Core,
    case ?REQUESTS:next(Resumes) of
        {Delay, Left} ->
            _ = ?REQUESTS:start_timer(delay(How, RetryMs, Delay), {resume, Id}),
            Changes = #{resumes => Left, exchange => none},
            Core#core{requests = ?REQUESTS:update(Id, Changes, Requests)};
        exhausted ->
            ?OUTCOME:fail(Id, closed, Core)
    end.

%% As the server asks; at random only where it is in trouble.
delay(_, none, Delay) -> Delay;
delay(orderly, RetryMs, _) -> RetryMs;
delay(_, RetryMs, Delay) -> RetryMs + Delay.

-spec resume(id(), #core{}) -> #core{}.
resume(Id, #core{options = #{url := Url}, requests = Requests} = Core) ->
    case ?REQUESTS:find(Id, Requests) of
        {ok, #{exchange := none} = Request} ->
            case ?EXCHANGE:start(#exchange{role = {resume, Id}, url = Url}, Core) of
                {ok, Resumed} -> Resumed;
                {error, _, Stopped} -> resume_later(Id, failed, Request, Stopped)
            end;
        _ ->
            Core
    end.

-spec new_listen(erlmcp_native_http_client_options:options()) -> #listen{}.
new_listen(Options) ->
    #listen{again = ?REQUESTS:again(infinity, Options)}.

%% @doc Opens the stream for what belongs to no request, where there is to be one.
-spec listen(#core{}) -> #core{}.
listen(#core{mode = streamable, options = #{get_stream := true, url := Url}} = Core) ->
    #core{session = Session, listen = #listen{key = Key}} = Core,
    case ?SESSION:is_legacy(Session) andalso Key =:= none of
        true ->
            case ?EXCHANGE:start(#exchange{role = listen, url = Url}, Core) of
                {ok, Listening} -> Listening;
                {error, Reason, Stopped} -> listen_again({lost, Reason}, Stopped)
            end;
        false ->
            Core
    end;
listen(Core) ->
    Core.

-spec listening(#core{}) -> #core{}.
listening(#core{listen = #listen{again = Again} = Listen} = Core) ->
    Now = erlang:monotonic_time(millisecond),
    Connected = erlmcp_native_backoff:connected(Now, Again),
    Core#core{listen = Listen#listen{again = Connected, known = true}}.

-spec listen_again(orderly | failed | {lost, reason()}, #core{}) -> #core{}.
listen_again(How, #core{listen = #listen{again = Again, retry_ms = RetryMs} = Listen} = Core) ->
    {Delay, Left} = ?REQUESTS:next(failure(How), Again),
    Timer = ?REQUESTS:start_timer(delay(How, RetryMs, Delay), listen),
    Core#core{listen = Listen#listen{key = none, timer = Timer, again = Left}}.

%% Only what came of no answer is tried again eagerly.
failure({lost, Reason}) -> erlmcp_native_failure:kind(Reason);
failure(_) -> other.

%% @doc The server has no such stream, or not for us.
-spec deaf(#core{}) -> #core{}.
deaf(#core{listen = Listen} = Core) ->
    Core#core{listen = Listen#listen{key = none, timer = none}}.

stop_listening(#core{listen = #listen{key = Key}, options = Options} = Core) ->
    ?EXCHANGE:drop_exchange(Key, Core#core{listen = new_listen(Options)}).

%% @doc The server does not know the session that something was sent in.
-spec session_gone({post, message()} | {resume, id()} | listen, #exchange{}, #core{}) -> #core{}.
session_gone(What, #exchange{session = Sent}, #core{session = Session} = Core) ->
    Restart = may_restart(What, Core) andalso ?SESSION:restart(Session),
    case ?SESSION:id(Session) of
        Sent when is_tuple(Restart) -> restart(Restart, not_done(What, restarting(Core, Restart)));
        Sent -> lose_session(Core);
        _ when is_tuple(Restart) -> not_done(What, Core);
        _ -> gone_with(What, Core)
    end.

%% What a new session did not help, another will not.
may_restart({post, #{renewed := true}}, _) -> false;
may_restart(_, #core{options = #{reinitialize := May}}) -> May.

%% A message that was refused has not been acted upon. Of a stream nobody knows.
not_done({post, Message}, Core) -> ?CORE:resubmit(Message#{renewed => true}, Core);
not_done(What, Core) -> gone_with(What, Core).

gone_with({post, Message}, Core) -> ?OUTCOME:failed(Message, session_lost, Core);
gone_with({resume, Id}, Core) -> ?OUTCOME:fail(Id, session_lost, Core);
gone_with(listen, Core) -> deaf(Core).

restarting(#core{session = Session} = Core, {_, Confirmation}) ->
    stop_listening(Core#core{
        session = ?SESSION:lost(Session),
        restarting = Confirmation
    }).

restart({Initialize, _}, #core{requests = Requests} = Core) ->
    Message = (maps:remove(again, Initialize))#{from := client},
    ?CORE:resubmit(Message, Core#core{
        requests = ?REQUESTS:add(Message, Requests)
    }).

-spec lose_session(#core{}) -> #core{}.
lose_session(#core{session = Session, requests = Requests, held = Held} = Core) ->
    Lost = stop_listening(Core#core{
        session = ?SESSION:lost(Session),
        restarting = none,
        held = queue:new()
    }),
    Told = ?INBOUND:tell(session_lost, Lost),
    Drop = fun(Id, Acc) -> ?OUTCOME:dropped(Id, session_lost, Acc) end,
    Dropped = lists:foldl(Drop, Told, ?REQUESTS:ids_of_session(Requests)),
    Notes = [Message || #{kind := Kind} = Message <- queue:to_list(Held), Kind =/= request],
    Fail = fun(#{from := From}, Acc) -> ?OUTCOME:tell_owner(From, none, session_lost, Acc) end,
    lists:foldl(Fail, Dropped, Notes).

%% @doc Whether a server that refused `initialize' speaks HTTP+SSE.
-spec probe(message(), binary(), #exchange{}, #core{}) -> #core{}.
probe(Message, Body, #exchange{url = Url} = Refused, Core) ->
    case ?EXCHANGE:start(#exchange{role = sse, url = Url}, Core) of
        {ok, Probing} ->
            Probing#core{mode = {probing, Message, Refused, Body}};
        {error, _, Stopped} ->
            not_sse(Message, Refused, Body, Stopped)
    end.

not_sse(Message, #exchange{answer = Answer} = Refused, Body, Core) ->
    Status = ?ANSWER:status(Answer),
    ?OUTCOME:refused_finally(Message, Status, Body, Refused, Core#core{mode = streamable}).

%% @doc The server says where it wants its messages. Another origin could be any server in reach
%% of this client.
-spec endpoint(binary(), #exchange{}, #core{}) -> #core{}.
endpoint(Reference, #exchange{url = #{origin := Origin} = Url} = Exchange, Core) ->
    case {?URL:resolve(Reference, Url), Core} of
        {{ok, #{origin := Origin} = Endpoint}, #core{mode = {probing, Message, _, _}}} ->
            ?CORE:resubmit(Message, Core#core{mode = {sse, Endpoint}});
        {_, #core{mode = {probing, _, _, _}}} ->
            sse_ended(Exchange, ?EXCHANGE:drop_exchange(Exchange#exchange.key, Core));
        _ ->
            Core
    end.

-spec sse_ended(#exchange{}, #core{}) -> #core{}.
sse_ended(_, #core{mode = {probing, Message, Refused, Body}} = Core) ->
    not_sse(Message, Refused, Body, Core);
sse_ended(_, #core{mode = {sse, _}} = Core) ->
    lose_session(Core#core{mode = streamable});
sse_ended(_, Core) ->
    Core.

%% @doc Nobody waits for what a probe would bring.
-spec unprobe(id(), #core{}) -> #core{}.
unprobe(Id, #core{mode = {probing, #{id := Id}, _, _}, exchanges = Exchanges} = Core) ->
    Probes = [Key || {Key, #exchange{role = sse}} <- maps:to_list(Exchanges)],
    lists:foldl(fun ?EXCHANGE:drop_exchange/2, Core#core{mode = streamable}, Probes);
unprobe(_, Core) ->
    Core.
