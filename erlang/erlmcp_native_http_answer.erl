%% @private The answer to a POST, in the process that serves it: one JSON document if nothing was
%% sent before, or else an event stream, which a client of the legacy revisions may resume.
%%
%% It is kept in the process dictionary, because it is the handler in between that calls here. What
%% other processes send for a request comes as messages and is carried out when the handler has
%% returned `noreply'.
-module(erlmcp_native_http_answer).

-export([new/4, add/2, set_headers/1, set_batch/0, set_elsewhere/0, add_worker/2, add_done/1]).
-export([answer/2, wait/0]).
-export([ask/2, perform/2, subscription/1]).

-export_type([call/0, ref/0, op/0]).

-type call() :: #{
    exchange := erlmcp_native_http_path:exchange(),
    request := erlmcp_native_http_path:request(),
    principal := term(),
    config := erlmcp_native_http_config:config()
}.
%% A request that may be served, with who sends it.

-opaque ref() :: {pid(), reference(), none | {subscription, integer() | binary()}}.

-type op() ::
    {send, iodata()}
    | {ask, Id :: binary(), iodata()}
    | {respond, erlmcp_native_http_handler:answer()}
    | keepalive
    | close_stream.

-type wanted() :: {Id :: integer() | binary(), Method :: binary()}.

-record(answer, {
    call :: call(),
    era :: legacy | modern,
    revision :: binary(),
    session :: none | erlmcp_native_http_tables:session(),
    headers = [] :: erlmcp_native_http_path:headers(),
    %% `detached': without a connection, but the session keeps what is sent. `elsewhere': on a
    %% stream of another process. `over': in vain.
    mode = whole :: whole | stream | detached | elsewhere | over,
    stream = none :: none | erlmcp_native_http_events:stream(),
    open = #{} :: #{reference() => wanted()},
    workers = #{} :: #{reference() => reference()},
    batch = false :: boolean(),
    %% The elements of a batch are not all known yet.
    held = false :: boolean(),
    %% Answers of a batch, the last first.
    done = [] :: [binary()]
}).

-define(KEY, ?MODULE).
-define(SUBSCRIBE, <<"subscriptions/listen">>).
-define(FIRST_WITH_PRIMING, <<"2025-11-25">>).
-define(INTERNAL_ERROR, -32603).

%% How long a process waits for the one that serves the request.
-define(ASK_TIMEOUT_MS, 5000).

%% @doc Begins an answer, of the calling process.
-spec new(call(), legacy | modern, binary(), none | erlmcp_native_http_tables:session()) -> ok.
new(Call, Era, Revision, Session) ->
    put_answer(#answer{call = Call, era = Era, revision = Revision, session = Session}).

%% @doc A request that is to be answered.
-spec add(integer() | binary(), binary()) -> ref().
add(Id, Method) ->
    #answer{open = Open, era = Era} = Answer = get_answer(),
    Ref = make_ref(),
    put_answer(Answer#answer{open = Open#{Ref => {Id, Method}}}),
    {self(), Ref, subscription(Era, Id, Method)}.

subscription(modern, Id, ?SUBSCRIBE) -> {subscription, Id};
subscription(_, _, _) -> none.

%% @doc What the head of the answer says beside.
-spec set_headers(erlmcp_native_http_path:headers()) -> ok.
set_headers(Headers) ->
    put_answer((get_answer())#answer{headers = Headers}).

%% @doc The answers are those of a batch and go out together.
-spec set_batch() -> ok.
set_batch() ->
    put_answer((get_answer())#answer{batch = true, held = true}).

%% @doc Everything goes to the stream of the session.
-spec set_elsewhere() -> ok.
set_elsewhere() ->
    put_answer((get_answer())#answer{mode = elsewhere}).

%% @doc Who works on a request of a batch, by its monitor.
-spec add_worker(reference(), ref()) -> ok.
add_worker(Monitor, {_, Ref, _}) ->
    #answer{workers = Workers} = Answer = get_answer(),
    put_answer(Answer#answer{workers = Workers#{Monitor => Ref}}).

%% @doc An answer of a batch that was ready at once.
-spec add_done(binary()) -> ok.
add_done(Json) ->
    #answer{done = Done} = Answer = get_answer(),
    put_answer(Answer#answer{done = [Json | Done]}).

%% @doc Answers what the handler has returned, or waits for the answer.
-spec answer(ref(), erlmcp_native_http_handler:answer()) -> ok.
answer(_, noreply) ->
    wait();
answer({_, Ref, _}, Answer) ->
    _ = perform(Ref, {respond, Answer}),
    ok.

%% @doc Serves who has the references, until everything is answered.
-spec wait() -> ok.
wait() ->
    #answer{call = #{request := Request} = Call} = Answer = get_answer(),
    %% What waits for long holds no body.
    Without = Request#{body := {complete, <<>>}},
    Lean = Answer#answer{call = Call#{request := Without}, held = false},
    put_answer(Lean),
    true = garbage_collect(),
    loop(complete(Lean)).

loop(#answer{open = Open} = Answer) when map_size(Open) =:= 0 ->
    put_answer(Answer);
loop(#answer{mode = over}) ->
    ok;
loop(#answer{call = #{config := #{keepalive_ms := KeepAlive}}} = Answer) ->
    receive
        {erlmcp_native_http, {ask, From, Tag, Deadline}, Ref, Op} ->
            loop(asked(From, Tag, Deadline, Ref, Op, Answer));
        {erlmcp_native_http, finish} ->
            loop(leave(Answer));
        {erlmcp_native_http, drain} ->
            loop(drain(Answer));
        {'DOWN', Monitor, process, _, Reason} ->
            loop(worker_down(Monitor, Reason, Answer));
        Msg ->
            loop(info(Msg, Answer))
    after KeepAlive ->
        {_, Next} = do(none, keepalive, Answer),
        loop(Next)
    end.

asked(From, Tag, Deadline, Ref, Op, Answer) ->
    case erlang:monotonic_time(millisecond) =< Deadline of
        true ->
            {Result, Next} = do(Ref, Op, Answer),
            From ! {Tag, Result},
            Next;
        false ->
            Answer
    end.

info(Msg, #answer{call = #{exchange := Exchange}} = Answer) ->
    case erlmcp_native_http_path:handle_info(Msg, Exchange) of
        gone -> gone(Answer);
        _ -> Answer
    end.

%% The client has gone. Of an answer that it has not begun to read it knows nothing to resume.
gone(#answer{mode = stream, stream = Stream} = Answer) when Stream =/= none -> leave(Answer);
gone(#answer{mode = detached} = Answer) -> Answer;
gone(#answer{mode = elsewhere} = Answer) -> Answer;
gone(Answer) -> Answer#answer{mode = over}.

%% Somebody else has the connection, or nobody.
leave(#answer{mode = stream, stream = Stream, session = #{pid := Pid}} = Answer) ->
    #answer{call = #{exchange := Exchange}} = Answer,
    _ = erlmcp_native_http_path:finish(Exchange),
    _ = erlmcp_native_http_session:detach(Pid, Stream),
    Answer#answer{mode = detached};
leave(Answer) ->
    Answer.

%% A subscription has no other end; it is to be a graceful one.
drain(#answer{era = modern, open = Open} = Answer) ->
    Subscriptions = [Ref || {Ref, {_, ?SUBSCRIBE}} <- maps:to_list(Open)],
    Respond = fun(Ref, Acc) -> element(2, do(Ref, {respond, {reply, #{}}}, Acc)) end,
    lists:foldl(Respond, Answer, Subscriptions);
drain(Answer) ->
    Answer.

worker_down(Monitor, Reason, #answer{workers = Workers} = Answer) ->
    case maps:take(Monitor, Workers) of
        {_, Rest} when Reason =:= normal -> Answer#answer{workers = Rest};
        {Ref, Rest} -> worker_failed(Ref, Reason, Answer#answer{workers = Rest});
        error -> Answer
    end.

worker_failed(Ref, {shutdown, _}, #answer{open = Open} = Answer) ->
    complete(Answer#answer{open = maps:remove(Ref, Open)});
worker_failed(Ref, _, Answer) ->
    {_, Next} = do(Ref, {respond, {error, ?INTERNAL_ERROR, <<"Internal error">>}}, Answer),
    Next.

%% What was cancelled was the last that the batch waited for.
complete(#answer{batch = false} = Answer) ->
    Answer;
complete(#answer{open = Open, mode = whole, done = Done} = Answer) when map_size(Open) =:= 0 ->
    array(Done, Answer);
complete(#answer{open = Open, mode = Mode} = Answer) when map_size(Open) =:= 0, Mode =/= over ->
    #answer{call = #{exchange := Exchange}} = Answer,
    _ = erlmcp_native_http_path:finish(Exchange),
    Answer#answer{mode = over};
complete(Answer) ->
    Answer.

%% @doc Whether a request is a subscription, whose notifications bear its id.
-spec subscription(ref()) -> none | {subscription, integer() | binary()}.
subscription({_, _, Subscription}) -> Subscription.

%% @doc Lets the process that serves a request do something, wherever this one is.
-spec ask(ref(), op()) -> ok | {error, gone | busy | not_allowed}.
ask({Pid, Ref, _}, Op) when Pid =:= self() ->
    perform(Ref, Op);
ask({Pid, Ref, _}, Op) ->
    Monitor = monitor(process, Pid),
    Deadline = erlang:monotonic_time(millisecond) + ?ASK_TIMEOUT_MS,
    Pid ! {erlmcp_native_http, {ask, self(), Monitor, Deadline}, Ref, Op},
    receive
        {Monitor, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, _, _} ->
            {error, gone}
    after ?ASK_TIMEOUT_MS ->
        true = demonitor(Monitor, [flush]),
        {error, busy}
    end.

%% @doc Does something in the process that serves the request.
-spec perform(reference() | none, op()) -> ok | {error, gone | busy | not_allowed}.
perform(Ref, Op) ->
    {Result, Next} = do(Ref, Op, get_answer()),
    put_answer(Next),
    Result.

do(Ref, {respond, Response}, #answer{open = Open} = Answer) ->
    case maps:take(Ref, Open) of
        {Wanted, Rest} -> respond(Wanted, Response, Answer#answer{open = Rest});
        error -> {{error, gone}, Answer}
    end;
do(_, keepalive, #answer{mode = stream, call = #{exchange := Exchange}} = Answer) ->
    case erlmcp_native_http_out:keepalive(Exchange) of
        {error, closed} -> {ok, gone(Answer)};
        ok -> {ok, Answer}
    end;
do(_, keepalive, Answer) ->
    {ok, Answer};
do(_, {ask, _, _}, #answer{era = modern} = Answer) ->
    {{error, not_allowed}, Answer};
do(Ref, Op, #answer{open = Open} = Answer) when is_map_key(Ref, Open) ->
    open(Op, streaming(Answer));
do(_, _, Answer) ->
    {{error, gone}, Answer}.

open(close_stream, #answer{stream = none} = Answer) ->
    {ok, Answer};
open(close_stream, #answer{mode = stream, call = #{exchange := Exchange} = Call} = Answer) ->
    #{config := #{retry_ms := Retry}} = Call,
    _ = erlmcp_native_http_out:send(Exchange, #{retry => Retry}),
    {ok, leave(Answer)};
open(close_stream, Answer) ->
    {ok, Answer};
open({ask, Id, Json}, #answer{session = Session} = Answer) ->
    %% Nobody but the client of this session may answer.
    true = erlmcp_native_http_tables:address_question(Id, session_id(Session)),
    event(Json, more, Answer);
open({send, Json}, Answer) ->
    event(Json, more, Answer).

session_id(none) -> none;
session_id(#{id := Id}) -> Id.

%% ---- responses

respond({Id, Method}, Response, #answer{era = Era} = Answer) ->
    ok = erlmcp_native_http_measure:answered(Method, Response),
    Complete =
        case Era of
            modern -> erlmcp_native_http_message:complete(Id, Method, Response);
            legacy -> Response
        end,
    try erlmcp_native_http_message:response(Id, Complete) of
        Json -> finished(Json, Response, Answer)
    catch
        error:Refusal ->
            logger:error("erlmcp_native: a result has no JSON: ~0p", [Refusal]),
            Failure = {error, ?INTERNAL_ERROR, <<"Internal error">>},
            Json = erlmcp_native_http_message:response(Id, Failure),
            finished(Json, Failure, Answer)
    end.

finished(Json, Response, #answer{mode = whole, batch = false} = Answer) ->
    #answer{era = Era, headers = Headers} = Answer,
    Status =
        case Era of
            modern -> erlmcp_native_http_message:status(Response);
            legacy -> 200
        end,
    whole(Status, [{<<"content-type">>, <<"application/json">>} | Headers], Json, Answer);
finished(Json, _, #answer{mode = whole, open = Open, done = Done, held = Held} = Answer) ->
    case map_size(Open) of
        0 when not Held -> {ok, array([Json | Done], Answer)};
        _ -> {ok, Answer#answer{done = [Json | Done]}}
    end;
finished(Json, _, #answer{open = Open} = Answer) when map_size(Open) > 0 ->
    event(Json, more, Answer);
finished(Json, _, Answer) ->
    {Result, Next} = event(Json, last, Answer),
    {Result, ended(Next)}.

ended(#answer{mode = stream, call = #{exchange := Exchange}} = Answer) ->
    _ = erlmcp_native_http_path:finish(Exchange),
    Answer#answer{mode = over};
ended(Answer) ->
    Answer#answer{mode = over}.

array([], Answer) ->
    element(2, whole(202, [], <<>>, Answer));
array(Done, Answer) ->
    Body = [$[, lists:join($,, lists:reverse(Done)), $]],
    Headers = [{<<"content-type">>, <<"application/json">>}],
    element(2, whole(200, Headers, Body, Answer)).

whole(Status, Headers, Body, #answer{call = #{exchange := Exchange}} = Answer) ->
    case erlmcp_native_http_path:reply(Exchange, Status, Headers, Body) of
        ok -> {ok, Answer#answer{mode = over}};
        {error, closed} -> {{error, gone}, Answer#answer{mode = over}}
    end.

%% ---- the stream

streaming(#answer{mode = whole, call = #{exchange := Exchange}, headers = Headers} = Answer) ->
    Stream = resumable(Answer),
    Opened = Answer#answer{mode = stream, stream = Stream},
    case erlmcp_native_http_out:open(Exchange, Headers) of
        ok -> begun(primed(Opened));
        {error, closed} -> gone(Opened)
    end;
streaming(Answer) ->
    Answer.

%% Answers of a batch that were ready before there was a stream.
begun(#answer{done = Done} = Answer) ->
    Send = fun(Json, Acc) -> element(2, event(Json, more, Acc)) end,
    lists:foldl(Send, Answer#answer{done = []}, lists:reverse(Done)).

resumable(#answer{era = legacy, session = #{pid := Pid}, call = #{config := Config}}) ->
    case Config of
        #{max_events := 0} ->
            none;
        #{} ->
            case erlmcp_native_http_session:open(Pid) of
                {ok, Stream} -> Stream;
                _ -> none
            end
    end;
resumable(_) ->
    none.

primed(#answer{revision = Revision, stream = Stream} = Answer) when
    Stream =/= none, Revision >= ?FIRST_WITH_PRIMING
->
    case Answer of
        #answer{call = #{config := #{priming := true}, exchange := Exchange}} ->
            Id = erlmcp_native_http_events:id(Stream, 0),
            case erlmcp_native_http_out:send(Exchange, #{id => Id, data => <<>>}) of
                {error, closed} -> gone(Answer);
                _ -> Answer
            end;
        #answer{} ->
            Answer
    end;
primed(Answer) ->
    Answer.

event(_, _, #answer{mode = over} = Answer) ->
    {{error, gone}, Answer};
event(Json, _, #answer{mode = elsewhere, session = #{pid := Pid}} = Answer) ->
    case erlmcp_native_http_session:send(Pid, Json) of
        gone -> {{error, gone}, Answer};
        Result -> {Result, Answer}
    end;
event(Json, More, #answer{stream = none} = Answer) ->
    direct(#{data => Json}, More, Answer);
event(Json, More, #answer{stream = Stream, session = #{pid := Pid}} = Answer) ->
    case erlmcp_native_http_session:event(Pid, Stream, Json, More) of
        {deliver, Id} -> {ok, deliver(Id, Json, Answer)};
        stored -> {ok, leave(Answer)};
        gone -> {{error, gone}, Answer#answer{mode = over}}
    end.

%% A client that does not read what the session keeps gets it when it comes again.
deliver(Id, Json, #answer{call = #{exchange := Exchange}} = Answer) ->
    case erlmcp_native_http_out:send(Exchange, #{id => Id, data => Json}) of
        ok -> Answer;
        {error, _} -> leave(Answer)
    end.

direct(Event, last, #answer{call = #{exchange := Exchange}} = Answer) ->
    directly(erlmcp_native_http_out:send_last(Exchange, Event), Answer);
direct(Event, more, #answer{call = #{exchange := Exchange}} = Answer) ->
    directly(erlmcp_native_http_out:send(Exchange, Event), Answer).

directly({error, closed}, Answer) -> {{error, gone}, Answer#answer{mode = over}};
directly(Result, Answer) -> {Result, Answer}.

get_answer() -> get(?KEY).

put_answer(Answer) ->
    _ = put(?KEY, Answer),
    ok.
