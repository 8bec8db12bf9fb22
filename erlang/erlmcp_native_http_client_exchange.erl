%% @private The requests of HTTP that a client has under way, and what of their answers arrives.
-module(erlmcp_native_http_client_exchange).

-export([post/2, post_batch/2, start/2, drop_exchange/2, leave/2, wire_event/2, fed/4]).
-export([redirected/3, is_redirect/2, waiting/2, still_wanted/2, touch/2, linger/2, end_session/1]).

-include_lib("kernel/include/logger.hrl").

-include("erlmcp_native_http_client.hrl").

-define(CLOSE_MS, 2000).

%% @doc Sends a message.
-spec post(message(), #core{}) -> {ok, #core{}} | {error, send_error(), #core{}}.
post(Message, Core) ->
    start(#exchange{role = {post, Message}, url = target(Core)}, Core).

%% @doc Sends a batch.
-spec post_batch(erlmcp_native_http_client_batch:batch(), #core{}) ->
    {ok, #core{}} | {error, send_error(), #core{}}.
post_batch(Batch, Core) ->
    start(#exchange{role = {batch, Batch}, url = target(Core)}, Core).

target(#core{mode = {sse, Endpoint}}) -> Endpoint;
target(#core{options = #{url := Url}}) -> Url.

%% @doc Sends a request of HTTP.
-spec start(#exchange{}, #core{}) -> {ok, #core{}} | {error, send_error(), #core{}}.
start(#exchange{role = Role, url = #{origin := Origin} = Url} = Exchange, Core) ->
    #core{wire = Wire} = Core,
    case own_headers(Origin, Core) of
        {ok, Own} ->
            {Method, Headers, Body} = http(Role, Origin, Core),
            case ?WIRE:request(Url, Method, Headers ++ Own, Body, infinity, Wire) of
                {ok, Key, Next} ->
                    Id = proplists:get_value(<<"mcp-session-id">>, Headers, none),
                    Started = Exchange#exchange{key = Key, session = Id, answer = none},
                    {ok, started(Started, Core#core{wire = Next})};
                {error, Reason, Next} ->
                    {error, Reason, Core#core{wire = Next}}
            end;
        {error, Reason} ->
            {error, Reason, Core}
    end.

http({post, #{text := Text} = Message}, Origin, #core{session = Session}) ->
    {<<"POST">>, ?SESSION:headers(Message, Origin, Session), Text};
http({batch, {Text, [Message | _]}}, Origin, #core{session = Session}) ->
    {<<"POST">>, ?SESSION:headers(Message, Origin, Session), Text};
http({resume, Id}, Origin, #core{session = Session, requests = Requests}) ->
    {ok, #{event_id := EventId}} = ?REQUESTS:find(Id, Requests),
    {<<"GET">>, resuming(EventId, Origin, Session), none};
http(listen, Origin, #core{session = Session, listen = #listen{event_id = EventId}}) ->
    {<<"GET">>, resuming(EventId, Origin, Session), none};
http(sse, Origin, #core{session = Session}) ->
    {<<"GET">>, ?SESSION:get_headers(Origin, Session), none}.

resuming(EventId, Origin, Session) ->
    [{<<"last-event-id">>, EventId} || EventId =/= none] ++
        ?SESSION:get_headers(Origin, Session).

%% What the owner gave is for the origin that the owner named.
own_headers(Origin, #core{options = #{url := #{origin := Origin}, headers := Given}}) ->
    own_headers(Given);
own_headers(_, _) ->
    {ok, []}.

own_headers({M, F, A}) ->
    try erlmcp_native_http_client_options:headers(apply(M, F, A)) of
        {ok, Headers} when is_list(Headers) -> {ok, Headers};
        _ -> {error, headers}
    catch
        Class:Reason ->
            ?LOG_ERROR("erlmcp_native: no headers from ~0p: ~0p", [{M, F}, {Class, Reason}]),
            {error, headers}
    end;
own_headers(Headers) ->
    {ok, Headers}.

started(#exchange{role = {post, #{kind := request, id := Id} = Message}} = Exchange, Core) ->
    waits(Id, Exchange, sent(Message, Core));
started(#exchange{role = {resume, Id}} = Exchange, Core) ->
    waits(Id, Exchange, Core);
started(#exchange{role = {post, Message}} = Exchange, Core) ->
    put_exchange(timed(Exchange, Core), sent(Message, Core));
started(#exchange{role = {batch, Batch}} = Exchange, Core) ->
    Sent = lists:foldl(fun sent/2, Core, ?BATCH:messages(Batch)),
    case ?BATCH:ids(Batch) of
        [] -> put_exchange(timed(Exchange, Sent), Sent);
        Ids -> lists:foldl(fun(Id, Acc) -> waits(Id, Exchange, Acc) end, Sent, Ids)
    end;
started(#exchange{role = listen, key = Key} = Exchange, #core{listen = Listen} = Core) ->
    put_exchange(timed(Exchange, Core), Core#core{listen = Listen#listen{key = Key}});
started(Exchange, Core) ->
    put_exchange(timed(Exchange, Core), Core).

waits(Id, #exchange{key = Key} = Exchange, #core{requests = Requests} = Core) ->
    Waits = ?REQUESTS:update(Id, #{exchange => Key}, Requests),
    put_exchange(Exchange, Core#core{requests = Waits}).

sent(Message, #core{session = Session} = Core) ->
    Core#core{session = ?SESSION:sent(Message, Session)}.

timed(#exchange{key = Key} = Exchange, #core{options = #{timeout_ms := Ms}}) ->
    Exchange#exchange{timer = ?REQUESTS:start_timer(Ms, {exchange, Key})}.

untimed(#exchange{timer = none} = Exchange) ->
    Exchange;
untimed(#exchange{timer = Timer} = Exchange) ->
    _ = erlang:cancel_timer(Timer),
    Exchange#exchange{timer = none}.

put_exchange(#exchange{key = Key} = Exchange, #core{exchanges = Exchanges} = Core) ->
    Core#core{exchanges = Exchanges#{Key => Exchange}}.

%% It has ended by itself.
remove_exchange(#exchange{key = Key} = Exchange, #core{exchanges = Exchanges} = Core) ->
    _ = untimed(Exchange),
    Core#core{exchanges = maps:remove(Key, Exchanges)}.

%% @doc Ends an exchange that is not to go on.
-spec drop_exchange(none | key(), #core{}) -> #core{}.
drop_exchange(Key, #core{exchanges = Exchanges, wire = Wire} = Core) ->
    case Exchanges of
        #{Key := Exchange} ->
            Cancelled = ?WIRE:cancel(Key, Wire),
            remove_exchange(Exchange, Core#core{wire = Cancelled});
        #{} ->
            Core
    end.

%% @doc A request no longer waits on an exchange, which ends with it unless it carries more: what
%% was not sent yet would be lost.
-spec leave(none | key(), #core{}) -> #core{}.
leave(Key, #core{exchanges = Exchanges} = Core) ->
    case {others_wait(Key, Exchanges, Core), Exchanges} of
        {true, _} -> Core;
        {false, #{Key := #exchange{role = {batch, Batch}}}} -> leave_batch(Key, Batch, Core);
        {false, _} -> drop_exchange(Key, Core)
    end.

leave_batch(Key, Batch, Core) ->
    case ?BATCH:is_mixed(Batch) of
        true -> linger(Key, Core);
        false -> drop_exchange(Key, Core)
    end.

others_wait(Key, Exchanges, Core) ->
    case Exchanges of
        #{Key := #exchange{role = {batch, _}} = Exchange} -> ?BATCH:waiting(Exchange, Core) =/= [];
        #{} -> false
    end.

-spec wire_event(?WIRE:event(), #core{}) -> #core{}.
wire_event({head, Key, Status, Headers}, #core{exchanges = Exchanges} = Core) ->
    case Exchanges of
        #{Key := Exchange} -> head(Status, Headers, Exchange, Core);
        #{} -> Core
    end;
wire_event({readable, Key}, #core{ready = Ready} = Core) ->
    Core#core{ready = Ready ++ [Key]};
wire_event({failed, Key, Failure}, #core{exchanges = Exchanges} = Core) ->
    case Exchanges of
        #{Key := Exchange} -> ?OUTCOME:broken(Failure, Exchange, remove_exchange(Exchange, Core));
        #{} -> Core
    end.

head(Status, Headers, #exchange{role = Role} = Exchange, Core) ->
    #core{options = #{max_message_bytes := Max}} = Core,
    Answer = ?ANSWER:new(Status, Headers, expects(Role), Max),
    Answered = Exchange#exchange{answer = Answer},
    case {Role, ?ANSWER:kind(Answer)} of
        {listen, stream} -> put_exchange(untimed(Answered), ?STREAM:listening(Core));
        {sse, stream} -> put_exchange(untimed(Answered), Core);
        _ -> put_exchange(Answered, touch(Exchange, Core))
    end.

expects({post, #{kind := request}}) -> true;
expects({post, _}) -> false;
expects({batch, Batch}) -> ?BATCH:ids(Batch) =/= [];
expects(_) -> true.

%% @doc Parts of a body have arrived.
-spec fed([binary()], Status :: term(), key(), #core{}) -> #core{}.
fed(Parts, Status, Key, #core{exchanges = Exchanges} = Core) ->
    #{Key := #exchange{answer = Answer} = Exchange} = Exchanges,
    case ?ANSWER:feed(Parts, Answer) of
        {Items, Next} ->
            Fed = put_exchange(Exchange#exchange{answer = Next}, Core),
            taken(Status, Key, ?INBOUND:items(Items, Exchange, Fed));
        {Items, too_large, Next} ->
            Fed = put_exchange(Exchange#exchange{answer = Next}, Core),
            too_large(Key, ?INBOUND:items(Items, Exchange, Fed))
    end.

taken(Status, Key, #core{exchanges = Exchanges, ready = Ready} = Core) ->
    case {Status, Exchanges} of
        {more, #{Key := _}} -> Core#core{ready = Ready ++ [Key]};
        {done, #{Key := Exchange}} -> ?OUTCOME:finished(Exchange, remove_exchange(Exchange, Core));
        {{failed, Failure}, #{Key := Exchange}} ->
            ?OUTCOME:broken(Failure, Exchange, remove_exchange(Exchange, Core));
        _ -> Core
    end.

too_large(Key, #core{exchanges = Exchanges} = Core) ->
    case Exchanges of
        #{Key := #exchange{answer = Answer} = Exchange} ->
            Dropped = drop_exchange(Key, Core),
            case {?ANSWER:kind(Answer), still_wanted(Exchange, Core)} of
                %% Enough of it is known.
                {other, _} -> ?OUTCOME:finished(Exchange, Dropped);
                {_, true} -> unreadable(Exchange, Dropped);
                {_, false} -> Dropped
            end;
        #{} ->
            Core
    end.

unreadable(#exchange{role = {post, #{kind := request, id := Id}}}, Core) ->
    ?OUTCOME:fail(Id, message_too_large, Core);
unreadable(#exchange{role = {post, Message}}, Core) ->
    %% It was in a batch, and its part of the answer is the status.
    ?OUTCOME:delivered(Message, Core);
unreadable(#exchange{role = {batch, _}} = Exchange, Core) ->
    ?BATCH:each(fun unreadable/2, Exchange, Core);
unreadable(#exchange{role = {resume, Id}}, Core) ->
    ?OUTCOME:fail(Id, message_too_large, Core);
unreadable(#exchange{role = listen}, Core) ->
    ?STREAM:listen_again(failed, Core);
unreadable(#exchange{role = sse} = Exchange, Core) ->
    ?STREAM:sse_ended(Exchange, Core).

%% @doc The requests that wait for their responses on this exchange. One that was answered elsewhere
%% does not, nor does another that was given the same id since.
-spec waiting(#exchange{}, #core{}) -> [id()].
waiting(#exchange{role = {post, #{kind := request, id := Id}}, key = Key}, Core) ->
    waits_on(Key, Id, Core);
waiting(#exchange{role = {resume, Id}, key = Key}, Core) ->
    waits_on(Key, Id, Core);
waiting(#exchange{role = {batch, _}} = Exchange, Core) ->
    ?BATCH:waiting(Exchange, Core);
waiting(_, _) ->
    [].

waits_on(Key, Id, #core{requests = Requests}) ->
    case ?REQUESTS:find(Id, Requests) of
        {ok, #{exchange := Key}} -> [Id];
        _ -> []
    end.

-spec touch(#exchange{}, #core{}) -> #core{}.
touch(Exchange, #core{requests = Requests} = Core) ->
    Core#core{requests = lists:foldl(fun ?REQUESTS:touch/2, Requests, waiting(Exchange, Core))}.

%% @doc A request has its response; its stream is read to the end, but not for ever.
-spec linger(none | key(), #core{}) -> #core{}.
linger(Key, #core{exchanges = Exchanges} = Core) ->
    case {others_wait(Key, Exchanges, Core), Exchanges} of
        {false, #{Key := Exchange}} -> put_exchange(timed(Exchange, Core), Core);
        _ -> Core
    end.

%% @doc The other kinds would make a GET of a POST.
-spec is_redirect(100..599, role()) -> boolean().
is_redirect(Status, {Kind, _}) when Kind =:= post; Kind =:= batch ->
    Status =:= 307 orelse Status =:= 308;
is_redirect(Status, _) -> lists:member(Status, [301, 302, 303, 307, 308]).

-spec redirected(300..399, #exchange{}, #core{}) -> #core{}.
redirected(Status, #exchange{url = Url, hops = Hops, answer = Answer} = Exchange, Core) ->
    #core{options = #{max_redirects := Max}} = Core,
    Location = ?ANSWER:location(?ANSWER:headers(Answer)),
    case Hops < Max andalso Location =/= none andalso redirect(Location, Url) of
        {ok, Next} ->
            Again = Exchange#exchange{url = Next, hops = Hops + 1},
            case still_wanted(Exchange, Core) andalso start(Again, Core) of
                {ok, Followed} -> Followed;
                {error, Reason, Stopped} -> given_up(Reason, Exchange, Stopped);
                false -> Core
            end;
        _ ->
            given_up({redirect, Status}, Exchange, Core)
    end.

redirect(Location, Url) -> ?URL:redirect(Location, Url).

%% @doc Whether an exchange is for a request that waits still, or for none.
-spec still_wanted(#exchange{}, #core{}) -> boolean().
still_wanted(#exchange{role = {post, #{kind := Kind}}}, _) when Kind =/= request -> true;
still_wanted(#exchange{role = Role}, _) when Role =:= listen; Role =:= sse -> true;
still_wanted(#exchange{role = {batch, Batch}} = Exchange, Core) ->
    ?BATCH:is_mixed(Batch) orelse waiting(Exchange, Core) =/= [];
still_wanted(Exchange, Core) ->
    waiting(Exchange, Core) =/= [].

given_up(Reason, #exchange{role = {post, Message}}, Core) -> ?OUTCOME:failed(Message, Reason, Core);
given_up(Reason, #exchange{role = {batch, _}} = Exchange, Core) ->
    ?BATCH:each(fun(One, Acc) -> given_up(Reason, One, Acc) end, Exchange, Core);
given_up(Reason, #exchange{role = {resume, Id}}, Core) -> ?OUTCOME:fail(Id, Reason, Core);
given_up(_, #exchange{role = listen}, Core) -> ?STREAM:deaf(Core);
given_up(_, #exchange{role = sse} = Exchange, Core) -> ?STREAM:sse_ended(Exchange, Core).

%% @doc Asks the server to end the session, and waits a little.
-spec end_session(#core{}) -> ?WIRE:wire().
end_session(#core{session = Session, wire = Wire, options = #{url := Url}} = Core) ->
    case ?SESSION:delete_headers(Session) of
        {Origin, Headers} ->
            {ok, Own} = own_headers_or_none(Origin, Core),
            Request = ?WIRE:request(
                Url#{origin := Origin}, <<"DELETE">>, Headers ++ Own, none, ?CLOSE_MS, Wire
            ),
            case Request of
                {ok, Key, Next} -> await_end(Key, erlang:monotonic_time(millisecond), Next);
                {error, _, Next} -> Next
            end;
        none ->
            Wire
    end.

own_headers_or_none(Origin, Core) ->
    case own_headers(Origin, Core) of
        {ok, Own} -> {ok, Own};
        {error, _} -> {ok, []}
    end.

%% The process ends: there is nothing else to do, and no other message that matters.
await_end(Key, Since, Wire) ->
    Left = max(0, ?CLOSE_MS - (erlang:monotonic_time(millisecond) - Since)),
    receive
        Msg ->
            case ?WIRE:handle_info(Msg, Wire) of
                {Events, Next} ->
                    case [Event || Event <- Events, element(2, Event) =:= Key] of
                        [] -> await_end(Key, Since, Next);
                        _ -> Next
                    end;
                unknown ->
                    await_end(Key, Since, Wire)
            end
    after Left -> Wire
    end.
