%% @private A stream that a client of the legacy revisions opens with GET: for what belongs to no
%% request, or to go on with a stream that was cut off.
-module(erlmcp_native_http_stream).

-export([serve/1, run/4]).

-type call() :: erlmcp_native_http_answer:call().

-define(INVALID_REQUEST, -32600).
-define(FIRST_WITH_PRIMING, <<"2025-11-25">>).

%% So many events wait at most for a client to read.
-define(MAX_WAITING, 1000).

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
    First = [
        #{id => erlmcp_native_http_events:id(Stream, Count), data => Data}
     || {Count, Data} <- Events
    ],
    run(First, More, Exchange, Config).

%% @doc Sends events, and then those that come as messages.
-spec run([erlmcp_native_sse:fields()], live | done, erlmcp_native_http_path:exchange(), map()) ->
    ok.
run(Events, More, Exchange, Config) ->
    _ =
        case erlmcp_native_http_out:open(Exchange, []) of
            ok ->
                %% A stream may be silent for hours. What its request was is not needed any more.
                true = garbage_collect(),
                send(queue:from_list(Events), More, Exchange, Config);
            {error, closed} ->
                ok
        end,
    true = erlmcp_native_http_tables:end_request(),
    ok.

send(Events, More, Exchange, Config) ->
    case {queue:out(Events), More} of
        {{empty, _}, live} -> loop(Events, More, Exchange, Config);
        {{empty, _}, done} -> erlmcp_native_http_path:finish(Exchange);
        {{{value, Event}, Rest}, _} ->
            case erlmcp_native_http_out:send(Exchange, Event) of
                ok -> send(Rest, More, Exchange, Config);
                {error, busy} -> loop(Events, More, Exchange, Config);
                {error, closed} -> ok
            end
    end.

%% What is in the queue waits for the client to read.
loop(Events, More, Exchange, #{keepalive_ms := KeepAlive} = Config) ->
    receive
        {erlmcp_native_http, {event, Id, Data}} ->
            event(#{id => Id, data => Data}, Events, More, Exchange, Config);
        {erlmcp_native_http, End} when End =:= finish; End =:= drain ->
            waiting(queue:is_empty(Events), Events, done, Exchange, Config);
        Msg ->
            case erlmcp_native_http_path:handle_info(Msg, Exchange) of
                gone -> ok;
                writable -> send(Events, More, Exchange, Config);
                unknown -> loop(Events, More, Exchange, Config)
            end
    after KeepAlive ->
        case erlmcp_native_http_out:keepalive(Exchange) of
            ok -> loop(Events, More, Exchange, Config);
            {error, closed} -> ok
        end
    end.

event(Event, Events, More, Exchange, Config) ->
    case queue:len(Events) of
        0 ->
            send(queue:in(Event, Events), More, Exchange, Config);
        Length when Length < ?MAX_WAITING ->
            loop(queue:in(Event, Events), More, Exchange, Config);
        %% A client that does not read is sent away; what it has missed it gets when it comes again.
        _ ->
            erlmcp_native_http_path:finish(Exchange)
    end.

waiting(true, Events, More, Exchange, Config) -> send(Events, More, Exchange, Config);
waiting(false, Events, More, Exchange, Config) -> loop(Events, More, Exchange, Config).
