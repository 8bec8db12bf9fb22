%% @private A stream that a client of the legacy revisions opens with GET: for what belongs to no
%% request, or to go on with a stream that was cut off.
-module(erlmcp_native_http_stream).

-export([serve/1, run/4]).

-type call() :: erlmcp_native_http_answer:call().

-define(INVALID_REQUEST, -32600).
-define(FIRST_WITH_PRIMING, <<"2025-11-25">>).

-spec serve(call()) -> term().
serve(#{request := #{headers := Headers}} = Call) ->
    case erlmcp_native_http_post:session(Call) of
        {ok, Revision, #{pid := Pid} = Session} ->
            case lists:keyfind(<<"last-event-id">>, 1, Headers) of
                {_, Last} -> resume(erlmcp_native_http_events:parse(Last), Session, Call);
                false -> listen(erlmcp_native_http_session:listen(Pid), Revision, Session, Call)
            end;
        {error, Status, Text} ->
            refuse(Status, Text, Call)
    end.

refuse(Status, Text, Call) ->
    erlmcp_native_http_post:refuse(Status, null, {?INVALID_REQUEST, Text}, Call).

listen(gone, _, _, Call) ->
    refuse(404, <<"Session not found">>, Call);
listen({ok, Stream}, Revision, Session, #{config := #{priming := Priming}} = Call) ->
    First =
        case Priming andalso Revision >= ?FIRST_WITH_PRIMING of
            true -> [{0, <<>>}];
            false -> []
        end,
    begin_with(First, live, Stream, Session, Call).

resume(error, _, Call) ->
    refuse(400, <<"Last-Event-ID is none of this session">>, Call);
resume({ok, {Stream, Count}}, #{pid := Pid} = Session, Call) ->
    case erlmcp_native_http_session:resume(Pid, Stream, Count) of
        {ok, Missed, More} -> begin_with(Missed, More, Stream, Session, Call);
        {error, unknown} -> resume(error, Session, Call);
        gone -> refuse(404, <<"Session not found">>, Call)
    end.

begin_with(Events, More, Stream, #{id := Id}, #{exchange := Exchange} = Call) ->
    #{config := #{key := Key} = Config} = Call,
    true = erlmcp_native_http_tables:begin_request(self(), Id, stream, Key),
    Encoded = [
        erlmcp_native_sse:encode(#{
            id => erlmcp_native_http_events:id(Stream, Count), data => Data
        })
     || {Count, Data} <- Events
    ],
    run(Encoded, More, Exchange, Config).

%% @doc Sends events, and then those that come as messages.
-spec run([iodata()], live | done, erlmcp_native_http_path:exchange(), map()) -> ok.
run(Events, More, Exchange, Config) ->
    case erlmcp_native_http_path:stream(Exchange, 200, headers()) of
        ok -> sent(erlmcp_native_http_path:send(Exchange, Events), More, Exchange, Config);
        {error, closed} -> ok
    end,
    true = erlmcp_native_http_tables:end_request(),
    ok.

headers() ->
    [
        {<<"content-type">>, <<"text/event-stream">>},
        {<<"cache-control">>, <<"no-cache">>},
        {<<"x-accel-buffering">>, <<"no">>}
    ].

%% A client that does not read is cut off; what it has missed it gets when it comes again.
sent(ok, live, Exchange, Config) -> loop(Exchange, Config);
sent(ok, done, Exchange, _) -> erlmcp_native_http_path:finish(Exchange);
sent({error, _}, _, _, _) -> ok.

loop(Exchange, #{keepalive_ms := KeepAlive} = Config) ->
    receive
        {erlmcp_native_http, {event, Fields}} ->
            send(erlmcp_native_sse:encode(Fields), Exchange, Config);
        {erlmcp_native_http, {event, Id, Data}} ->
            send(erlmcp_native_sse:encode(#{id => Id, data => Data}), Exchange, Config);
        {erlmcp_native_http, finish} ->
            erlmcp_native_http_path:finish(Exchange);
        {erlmcp_native_http, drain} ->
            erlmcp_native_http_path:finish(Exchange);
        Msg ->
            case erlmcp_native_http_path:handle_info(Msg, Exchange) of
                gone -> ok;
                _ -> loop(Exchange, Config)
            end
    after KeepAlive ->
        send(erlmcp_native_sse:comment(), Exchange, Config)
    end.

send(Event, Exchange, Config) ->
    sent(erlmcp_native_http_path:send(Exchange, Event), live, Exchange, Config).
