%% @private What becomes of a message that was sent: answered, refused, sent again, or given up.
-module(erlmcp_native_http_client_outcome).

-export([finished/2, delivered/2, refused_finally/5, broken/3, failed/3]).
-export([tell_owner/4, fail/3, dropped/3]).

-include("erlmcp_native_http_client.hrl").

%% @doc The body of an answer was read to its end.
-spec finished(#exchange{}, #core{}) -> #core{}.
finished(#exchange{answer = Answer} = Exchange, Core) ->
    {Items, Other} = ?ANSWER:finish(Answer),
    outcome(Exchange, Other, ?INBOUND:items(Items, Exchange, Core)).

outcome(#exchange{role = Role, answer = Answer} = Exchange, Other, Core) ->
    Status = ?ANSWER:status(Answer),
    case {?EXCHANGE:is_redirect(Status, Role), Role, Status div 100} of
        {true, _, _} -> ?EXCHANGE:redirected(Status, Exchange, Core);
        {false, {batch, _}, _} -> ?BATCH:each(outcome_of(Other), Exchange, Core);
        {false, _, 2} -> succeeded(Role, Exchange, Core);
        {false, _, _} -> refused(Role, Status, Other, Exchange, Core)
    end.

outcome_of(Other) -> fun(Exchange, Core) -> outcome(Exchange, Other, Core) end.

succeeded({post, #{kind := request, id := Id}}, Exchange, #core{mode = Mode} = Core) ->
    Kind = ?ANSWER:kind(Exchange#exchange.answer),
    case {?EXCHANGE:still_wanted(Exchange, Core), Kind, Mode} of
        {false, _, _} -> Core;
        {true, stream, _} -> ?STREAM:stream_ended(Id, orderly, Core);
        {true, _, {sse, _}} -> Core;
        {true, _, _} -> fail(Id, no_response, Core)
    end;
succeeded({post, Message}, _, Core) ->
    delivered(Message, Core);
succeeded({resume, Id}, Exchange, Core) ->
    case ?EXCHANGE:still_wanted(Exchange, Core) of
        true -> ?STREAM:stream_ended(Id, orderly, Core);
        false -> Core
    end;
succeeded(listen, #exchange{answer = Answer}, Core) ->
    case ?ANSWER:kind(Answer) of
        stream -> ?STREAM:listen_again(orderly, Core);
        _ -> ?STREAM:deaf(Core)
    end;
succeeded(sse, Exchange, Core) ->
    ?STREAM:sse_ended(Exchange, Core).

refused({post, Message}, Status, Body, Exchange, Core) ->
    case ?EXCHANGE:still_wanted(Exchange, Core) of
        true -> refused_post(Message, Status, Body, Exchange, Core);
        false -> Core
    end;
refused({resume, Id}, Status, Body, Exchange, Core) ->
    case ?EXCHANGE:still_wanted(Exchange, Core) of
        true when Status =:= 404, Exchange#exchange.session =/= none ->
            ?STREAM:session_gone({resume, Id}, Exchange, Core);
        true when Status >= 500 -> ?STREAM:stream_ended(Id, failed, Core);
        true -> fail(Id, why(Status, Body, Exchange), Core);
        false -> Core
    end;
refused(listen, 404, _, #exchange{session = Session} = Exchange, Core) when
    Session =/= none, (Core#core.listen)#listen.known
->
    %% Else it may just be the answer to GET of a server that has no such stream.
    ?STREAM:session_gone(listen, Exchange, Core);
refused(listen, Status, _, _, Core) when Status >= 500; Status =:= 429 ->
    ?STREAM:listen_again(failed, Core);
refused(listen, _, _, _, Core) ->
    ?STREAM:deaf(Core);
refused(sse, _, _, Exchange, Core) ->
    ?STREAM:sse_ended(Exchange, Core).

refused_post(#{modern := none} = Message, 404, _, Exchange, Core) when
    Exchange#exchange.session =/= none
->
    ?STREAM:session_gone({post, Message}, Exchange, Core);
refused_post(#{method := <<"initialize">>, from := owner} = Message, Status, Body, Exchange, Core)
when
    Status =:= 400; Status =:= 404; Status =:= 405
->
    #core{mode = Mode, options = #{http_sse := Fallback}} = Core,
    Old = not ?MESSAGE:modern_error(Body),
    case Fallback andalso Mode =:= streamable andalso Old of
        true -> ?STREAM:probe(Message, Body, Exchange, Core);
        false -> refused_finally(Message, Status, Body, Exchange, Core)
    end;
refused_post(Message, Status, Body, #exchange{answer = Answer} = Exchange, Core) when
    Status >= 500; Status =:= 429
->
    #core{options = #{retry_unsafe := Unsafe}} = Core,
    Headers = ?ANSWER:headers(Answer),
    After = ?ANSWER:retry_after_ms(Headers),
    %% 429 and a mention of when to come again say that it was not done; of the latter one cannot
    %% be sure.
    Safe =
        Status =:= 429 orelse
            (After =/= none andalso
                (Unsafe orelse ?MESSAGE:is_repeatable(Message))),
    case Safe andalso try_again(Message, After, Core) of
        {ok, Later} -> Later;
        _ -> refused_finally(Message, Status, Body, Exchange, Core)
    end;
refused_post(Message, Status, Body, Exchange, Core) ->
    refused_finally(Message, Status, Body, Exchange, Core).

%% @doc An error of JSON-RPC says more than the status does.
-spec refused_finally(message(), 100..599, binary(), #exchange{}, #core{}) -> #core{}.
refused_finally(#{kind := request, id := Id} = Message, Status, Body, Exchange, Core) when
    Status =/= 401, Status =/= 403
->
    case erlmcp_native_json:scan(Body) of
        {ok, #{kind := response, id := Id}} -> ?INBOUND:item({message, Body}, Exchange, Core);
        _ -> failed(Message, why(Status, Body, Exchange), Core)
    end;
refused_finally(Message, Status, Body, Exchange, Core) ->
    failed(Message, why(Status, Body, Exchange), Core).

why(401, _, #exchange{answer = Answer}) ->
    {unauthorized, challenge(Answer)};
why(403, _, #exchange{answer = Answer}) ->
    {forbidden, challenge(Answer)};
why(Status, _, _) when Status >= 300, Status < 400 ->
    {redirect, Status};
why(Status, Body, _) ->
    {status, Status, Body}.

challenge(Answer) ->
    Headers = ?ANSWER:headers(Answer),
    ?ANSWER:challenge(Headers).

%% @doc There is no answer, or no more of it.
-spec broken(erlmcp_native_http_client_path:failure(), #exchange{}, #core{}) -> #core{}.
broken(Failure, #exchange{role = {batch, _}} = Exchange, Core) ->
    ?BATCH:each(fun(One, Acc) -> broken(Failure, One, Acc) end, Exchange, Core);
broken(#{reason := Reason} = Failure, #exchange{role = Role, answer = Answer} = Exchange, Core) ->
    case {Role, ?EXCHANGE:still_wanted(Exchange, Core)} of
        {_, false} ->
            Core;
        {{post, Message}, true} when Answer =:= none ->
            unanswered(Message, Failure, Core);
        {{post, Message}, true} ->
            cut_off(Message, Reason, Exchange, Core);
        {{resume, Id}, true} ->
            ?STREAM:stream_ended(Id, failed, Core);
        {listen, _} when Answer =:= none ->
            ?STREAM:listen_again({lost, Reason}, Core);
        {listen, _} ->
            ?STREAM:listen_again(failed, Core);
        {sse, _} ->
            ?STREAM:sse_ended(Exchange, Core)
    end.

unanswered(Message, #{reason := Reason, safe := true}, Core) ->
    case try_again(Message, none, Core) of
        {ok, Later} -> Later;
        exhausted -> failed(Message, Reason, Core)
    end;
unanswered(Message, #{reason := Reason}, #core{options = #{retry_unsafe := true}} = Core) ->
    unanswered(Message, #{reason => Reason, safe => true}, Core);
unanswered(Message, #{reason := Reason}, Core) ->
    failed(Message, Reason, Core).

cut_off(#{kind := Kind} = Message, Reason, #exchange{answer = Answer} = Exchange, Core) ->
    Status = ?ANSWER:status(Answer),
    case ?ANSWER:kind(Answer) of
        _ when Kind =/= request, Status div 100 =:= 2 -> delivered(Message, Core);
        stream -> ?STREAM:stream_ended(maps:get(id, Message), failed, Core);
        json -> failed(Message, Reason, Core);
        other -> refused({post, Message}, Status, <<>>, Exchange, Core)
    end.

try_again(Message, After, #core{options = #{retries := Retries} = Options} = Core) ->
    Again =
        case Message of
            #{again := Given} -> Given;
            #{} -> ?REQUESTS:again(Retries, Options)
        end,
    case ?REQUESTS:next(Again) of
        {Delay, Left} ->
            Ms =
                case After of
                    none -> Delay;
                    _ -> After + Delay
                end,
            case Ms < left_ms(Message, Core) of
                true ->
                    _ = ?REQUESTS:start_timer(Ms, {again, Message#{again => Left}}),
                    {ok, Core};
                false ->
                    exhausted
            end;
        exhausted ->
            exhausted
    end.

left_ms(#{kind := request, id := Id}, #core{requests = Requests}) ->
    ?REQUESTS:left_ms(Id, Requests);
left_ms(_, #core{options = #{timeout_ms := Ms}}) ->
    Ms.

%% @doc What wants no response has arrived.
-spec delivered(message(), #core{}) -> #core{}.
delivered(#{method := <<"notifications/initialized">>, modern := none}, Core) ->
    #core{session = Session, restarting = Restarting} = Core,
    Confirmed = Core#core{
        session = ?SESSION:confirmed(Session),
        restarting = none
    },
    case Restarting of
        none -> ?CORE:flush(?STREAM:listen(Confirmed));
        _ -> ?CORE:flush(?STREAM:listen(?INBOUND:tell(session_renewed, Confirmed)))
    end;
delivered(_, Core) ->
    Core.

-spec failed(message(), reason(), #core{}) -> #core{}.
failed(#{kind := request, id := Id}, Reason, Core) ->
    fail(Id, Reason, Core);
failed(#{method := <<"notifications/initialized">>, modern := none, from := From}, Reason, Core) ->
    #core{session = Session, restarting = Restarting} = Core,
    case Restarting of
        none ->
            Confirmed = ?SESSION:confirmed(Session),
            ?CORE:flush(tell_owner(From, none, Reason, Core#core{session = Confirmed}));
        _ ->
            ?STREAM:lose_session(Core)
    end;
failed(#{from := From}, Reason, Core) ->
    tell_owner(From, none, Reason, Core).

-spec tell_owner(owner | client, id() | none, reason(), #core{}) -> #core{}.
tell_owner(owner, Id, Reason, Core) -> ?INBOUND:tell({failed, Id, Reason}, Core);
tell_owner(client, _, _, Core) -> Core.

%% @doc A request gets no response any more.
-spec fail(id(), reason(), #core{}) -> #core{}.
fail(Id, Reason, #core{session = Session} = Core) ->
    case removed(Id, Reason, Core) of
        {#{method := <<"initialize">>, from := client}, Removed} ->
            ?STREAM:lose_session(Removed);
        {#{method := <<"initialize">>}, Removed} ->
            Unanswered = ?SESSION:unanswered(Session),
            ?CORE:flush(?INBOUND:tell({failed, Id, Reason}, Removed#core{session = Unanswered}));
        {#{from := client}, Removed} ->
            ?TOOLS:unlisted(Removed);
        {_, Removed} ->
            ?INBOUND:tell({failed, Id, Reason}, Removed);
        error ->
            Core
    end.

%% @doc The same without consequences for the session.
-spec dropped(id(), reason(), #core{}) -> #core{}.
dropped(Id, Reason, Core) ->
    case removed(Id, Reason, Core) of
        {#{from := From}, Removed} -> tell_owner(From, Id, Reason, Removed);
        error -> Core
    end.

removed(Id, Reason, #core{requests = Requests, options = #{path := Path}} = Core) ->
    case ?REQUESTS:remove(Id, Requests) of
        {#{message := Message, exchange := Key} = Request, Rest} ->
            ok = erlmcp_native_http_client_measure:ended(Path, Reason, Request),
            {Message, ?EXCHANGE:leave(Key, Core#core{requests = Rest})};
        error ->
            error
    end.
