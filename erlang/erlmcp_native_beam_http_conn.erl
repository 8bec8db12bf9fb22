%% @doc The process of an HTTP connection: it reads requests, has each served by a process of its
%% own, one after the other, and writes what they answer.
-module(erlmcp_native_beam_http_conn).

-export([start_link/3, drain/1]).
-export([init/3, resume/2]).

-export_type([config/0]).

-type config() :: #{
    options := erlmcp_native_http_options:listener(),
    tls := none | erlmcp_native_beam_tls:config(),
    serve := erlmcp_native_http_path:serve(),
    counts := erlmcp_native_beam_http_count:counts()
}.

%% What may be read ahead of the request that is being served.
-define(AHEAD, 65536).

%% Without a message for so long, the process hibernates.
-define(REST_MS, 1000).

%% Room for the garbage of a few requests, so that not each of them collects it. A process that
%% hibernates has none of it.
-define(HEAP_WORDS, 2500).

-record(conn, {
    manager :: pid(),
    config :: config(),
    peername :: erlmcp_native:address(),
    out :: erlmcp_native_beam_http_out:out(),
    link :: erlmcp_native_beam_http_exchange:link(),
    armed :: boolean(),
    %% `head': between requests, or in the head of one. `answered': the answer is being written.
    %% `discarding': the rest of a body. `flushing': the peer has to read before it is read from.
    phase = head :: head | serving | answered | discarding | flushing,
    fresh :: erlmcp_native_beam_http_head:parser(),
    parser :: erlmcp_native_beam_http_head:parser(),
    serving = none :: none | erlmcp_native_beam_http_serving:serving(),
    number = 0 :: non_neg_integer(),
    %% What has come after what the phase is about.
    buffer = <<>> :: binary(),
    deadline = infinity :: infinity | integer(),
    draining = false :: boolean()
}).

%% @doc Starts the process of a connection. It is to be given the socket, and then `{go, ok}'.
-spec start_link(config(), gen_tcp:socket(), erlmcp_native:address()) -> pid().
start_link(Config, Port, PeerName) ->
    Args = [Config, Port, {self(), PeerName}],
    spawn_opt(?MODULE, init, Args, [link, {min_heap_size, ?HEAP_WORDS}]).

%% @doc Closes once the request in progress has been answered.
-spec drain(pid()) -> ok.
drain(Pid) ->
    Pid ! drain,
    ok.

%% @private
-spec init(config(), gen_tcp:socket(), {pid(), erlmcp_native:address()}) -> no_return().
init(#{options := Options, tls := Tls} = Config, Port, {Manager, PeerName}) ->
    receive
        {go, ok} -> ok;
        {go, _} -> exit(normal)
    end,
    #{handshake_timeout_ms := Timeout, max_stream_bytes := Max} = Options,
    case erlmcp_native_beam_http_wire:open(Port, Tls, Timeout) of
        {ok, Wire, Armed} ->
            %% Until here the manager's exit ends this process as well.
            _ = process_flag(trap_exit, true),
            Link = erlmcp_native_beam_http_exchange:link(self(), Max),
            Fresh = erlmcp_native_beam_http_head:new(Options),
            S = #conn{
                manager = Manager,
                config = Config,
                peername = PeerName,
                out = erlmcp_native_beam_http_out:new(Wire, Link, Max),
                link = Link,
                armed = Armed =:= armed,
                fresh = Fresh,
                parser = Fresh
            },
            loop(await(S));
        {error, _} ->
            exit(normal)
    end.

loop(S0) ->
    S = arm(S0),
    receive
        Msg -> loop(handle(Msg, S))
    after wait(S) -> quiet(S)
    end.

arm(#conn{armed = false, out = Out} = S) ->
    case wants(S) andalso erlmcp_native_beam_http_out:arm(Out) of
        false -> S;
        ok -> S#conn{armed = true};
        {error, closed} -> gone(S)
    end;
arm(S) ->
    S.

wants(#conn{phase = flushing}) -> false;
wants(#conn{buffer = Buffer}) -> byte_size(Buffer) < ?AHEAD.

wait(#conn{deadline = infinity}) -> ?REST_MS;
wait(#conn{deadline = Deadline}) -> max(0, min(?REST_MS, Deadline - now_ms())).

quiet(#conn{deadline = Deadline} = S) ->
    Now = now_ms(),
    case Deadline of
        infinity -> hibernate(S, none);
        _ when Now >= Deadline -> loop(expired(S));
        _ -> hibernate(S, erlang:start_timer(Deadline - Now, self(), rest))
    end.

hibernate(S, Timer) ->
    erlang:hibernate(?MODULE, resume, [S, Timer]).

%% @private
-spec resume(#conn{}, none | reference()) -> no_return().
resume(S, Timer) ->
    receive
        Msg ->
            _ = Timer =/= none andalso erlang:cancel_timer(Timer),
            loop(handle(Msg, S))
    end.

handle({tcp, _, Data}, S) -> data(Data, S);
handle({reply, N, Status, Fields, Body, Size}, #conn{number = N, phase = serving} = S) ->
    reply(Status, Fields, Body, Size, S);
handle({'DOWN', Monitor, process, _, _}, #conn{phase = serving} = S) -> died(Monitor, S);
handle({tcp_passive, _}, S) -> S#conn{armed = false};
handle({part, N, Data, Size}, #conn{number = N, phase = serving} = S) -> part(Data, Size, S);
handle({stream, N, From, {Status, Fields}}, #conn{number = N, phase = serving} = S) ->
    stream(From, Status, Fields, S);
handle({finish, N}, #conn{number = N, phase = serving} = S) -> finish(S);
handle({busy, N}, #conn{number = N, phase = serving, serving = Serving} = S) ->
    Busy = S#conn{serving = erlmcp_native_beam_http_serving:busy(Serving)},
    look(erlmcp_native_beam_http_out:first_look(), Busy);
handle({on_gone, N, What}, #conn{number = N, phase = serving, serving = Serving} = S) ->
    S#conn{serving = erlmcp_native_beam_http_serving:on_gone(What, Serving)};
handle({on_exit, N, Status}, #conn{number = N, phase = serving, serving = Serving} = S) ->
    S#conn{serving = erlmcp_native_beam_http_serving:on_exit(Status, Serving)};
handle({read_body, N, From, Timeout}, #conn{number = N, phase = serving} = S) ->
    read_body(From, Timeout, S);
handle({Call, _, From, _}, S) when Call =:= read_body; Call =:= stream ->
    answer_call(From, {error, closed}),
    S;
handle({look, Ms}, #conn{out = Out} = S) ->
    {Next, Looked} = erlmcp_native_beam_http_out:looked(Ms, Out),
    look(Next, S#conn{out = Looked});
handle({ssl, _, Data}, S) -> data(Data, S#conn{armed = false});
handle({tcp_closed, _}, S) -> ended(S);
handle({tcp_error, _, _}, S) -> gone(S);
handle({ssl_closed, _}, S) -> gone(S);
handle({ssl_error, _, _}, S) -> gone(S);
handle(drain, S) -> drained(S#conn{draining = true});
handle({'EXIT', Manager, _}, #conn{manager = Manager} = S) -> stop(S);
handle({'EXIT', Sender, _}, S) when is_pid(Sender) -> gone(S);
handle(_, S) -> S.

%% Requests.

await(#conn{draining = true} = S) ->
    close(S);
await(#conn{fresh = Fresh} = S) ->
    S#conn{
        phase = head, parser = Fresh, serving = none, deadline = from_now(idle_timeout_ms, S)
    }.

data(Data, #conn{phase = head, parser = Parser0} = S) ->
    case erlmcp_native_beam_http_head:parse(Data, Parser0) of
        {more, Parser} -> S#conn{parser = Parser, deadline = head_deadline(S)};
        {done, Head, Rest} -> request(Head, Rest, S);
        {error, Status} -> refuse(Status, S)
    end;
data(Data, #conn{phase = discarding} = S) ->
    discard(Data, S);
data(Data, #conn{phase = serving} = S) ->
    case erlmcp_native_beam_http_intake:is_read(intake(S)) of
        true -> collect(Data, S);
        false -> keep_for_later(Data, S)
    end;
data(Data, S) ->
    keep_for_later(Data, S).

keep_for_later(Data, #conn{buffer = <<>>} = S) -> S#conn{buffer = Data};
keep_for_later(Data, #conn{buffer = Buffer} = S) -> S#conn{buffer = <<Buffer/binary, Data/binary>>}.

head_deadline(#conn{parser = Parser, deadline = Deadline} = S) ->
    case erlmcp_native_beam_http_head:is_fresh(Parser) of
        true -> from_now(header_timeout_ms, S);
        false -> Deadline
    end.

request(Head, Rest, #conn{config = #{options := Options}} = S) ->
    case erlmcp_native_beam_http_request:new(Head, Options) of
        {ok, #{body := Framing} = Meaning} ->
            Body = erlmcp_native_beam_http_body:new(Framing, Options),
            case erlmcp_native_beam_http_body:push(Rest, Body) of
                {done, Whole, After} -> admit(Meaning, {complete, Whole}, After, S);
                {more, More} -> admit(Meaning, {pending, More}, <<>>, S);
                {error, body_too_large} -> refuse(413, S);
                {error, Status} -> refuse(Status, S)
            end;
        {error, Status} ->
            refuse(Status, S)
    end.

admit(#{expect := Expect} = Meaning, Body, After, #conn{config = Config} = S0) ->
    #{options := #{max_requests := Max}, counts := Counts} = Config,
    Intake = erlmcp_native_beam_http_intake:new(Body, Expect, from_now(body_timeout_ms, S0)),
    S = S0#conn{buffer = After},
    case erlmcp_native_beam_http_count:admit(Counts, requests, Max) of
        ok -> serve(Meaning, Intake, S);
        full -> unavailable(Meaning, Intake, S)
    end.

serve(Meaning, Intake, #conn{config = #{serve := Serve} = Config, link = Link} = S) ->
    Number = S#conn.number + 1,
    Exchange = {erlmcp_native_beam_http, erlmcp_native_beam_http_exchange:new(Link, Number)},
    Client = {scheme(Config), S#conn.peername},
    Serving = erlmcp_native_beam_http_serving:start(Serve, Exchange, Meaning, Intake, Client),
    S#conn{phase = serving, number = Number, deadline = infinity, serving = Serving}.

scheme(#{tls := none}) -> http;
scheme(_) -> https.

unavailable(#{method := Method, keep := Keep}, Intake, S) ->
    Kept = Keep andalso erlmcp_native_beam_http_intake:kept(Intake) =:= yes,
    answer(503, retry_after(), <<>>, 0, Method, Kept andalso not S#conn.draining, S).

retry_after() -> <<"retry-after: 1\r\n">>.

-spec refuse(erlmcp_native_http_path:status(), #conn{}) -> no_return().
refuse(Status, S) ->
    answer(Status, <<>>, <<>>, 0, <<"GET">>, false, S).

%% Bodies.

read_body(From, Timeout, S0) ->
    Limit = from_now(body_timeout_ms, S0),
    {What, Intake} = erlmcp_native_beam_http_intake:read(
        From, deadline(Timeout), Limit, intake(S0)
    ),
    Deadline = erlmcp_native_beam_http_intake:deadline(Intake),
    #conn{buffer = Buffer} = S = set_intake(Intake, S0#conn{deadline = Deadline}),
    case What of
        answered -> S;
        ask -> collect(Buffer, S#conn{buffer = <<>>, out = ask(S)});
        wait -> collect(Buffer, S#conn{buffer = <<>>})
    end.

intake(#conn{serving = Serving}) -> erlmcp_native_beam_http_serving:intake(Serving).

set_intake(Intake, #conn{serving = Serving} = S) ->
    S#conn{serving = erlmcp_native_beam_http_serving:set_intake(Intake, Serving)}.

stream(#conn{serving = Serving}) -> erlmcp_native_beam_http_serving:stream(Serving).

%% Not any more if the answer has begun.
ask(#conn{out = Out} = S) ->
    case stream(S) of
        not_yet ->
            #conn{out = Asked} = write(erlmcp_native_beam_http_answer:continue(), 0, S),
            Asked;
        _ ->
            Out
    end.

deadline(infinity) -> infinity;
deadline(Timeout) -> now_ms() + Timeout.

collect(Data, #conn{link = Link, number = Number} = S) ->
    case erlmcp_native_beam_http_intake:push(Data, intake(S)) of
        {more, More} ->
            set_intake(More, S);
        {done, Rest, Whole} ->
            set_intake(Whole, S#conn{buffer = Rest, deadline = infinity});
        {failed, Failed} ->
            set_intake(Failed, S#conn{deadline = infinity});
        {bad, Status} ->
            ok = erlmcp_native_beam_http_exchange:over(Link, Number),
            bad_body(Status, stream(S), S)
    end.

-spec bad_body(
    erlmcp_native_beam_http_head:refusal(), erlmcp_native_beam_http_serving:stream(), #conn{}
) -> no_return().
bad_body(Status, not_yet, S) -> refuse(Status, release(S));
bad_body(_, _, S) -> cut(S).

answer_call(From, Result) ->
    From ! {From, Result},
    ok.

discard(Data, S) ->
    case erlmcp_native_beam_http_intake:push(Data, intake(S)) of
        {more, More} -> set_intake(More, S);
        {done, Rest, _} -> next(S#conn{buffer = Rest});
        _ -> close(S)
    end.

%% Answers.

reply(Status, Fields, Body, Size, #conn{serving = Serving} = S) ->
    Method = erlmcp_native_beam_http_serving:method(Serving),
    answer(Status, Fields, Body, Size, Method, keep(S), release(S)).

release(#conn{serving = Serving, config = #{counts := Counts}} = S) ->
    ok = erlmcp_native_beam_http_serving:release(Counts, Serving),
    S#conn{phase = answered}.

keep(#conn{draining = true}) -> false;
keep(#conn{serving = Serving}) -> erlmcp_native_beam_http_serving:keep(Serving).

answer(Status, Fields, Body, Size, Method, Keep, S0) ->
    HasBody = erlmcp_native_beam_http_answer:has_body(Method, Status),
    {Head, S} = head(Status, Fields, framing(HasBody, Method, Status, Size), Keep, S0),
    case HasBody of
        true -> answered(Keep, write([Head | Body], Size, S));
        false -> answered(Keep, write(Head, 0, S))
    end.

framing(true, _, _, Size) -> {length, Size};
framing(false, <<"HEAD">>, Status, Size) when Status =/= 204, Status =/= 304 -> {length, Size};
framing(false, _, _, _) -> none.

head(Status, Fields, Framing, Keep, #conn{out = Out0} = S) ->
    {Head, Out} = erlmcp_native_beam_http_out:head(Status, Fields, Framing, Keep, Out0),
    {Head, S#conn{out = Out}}.

write(Data, Size, #conn{out = Out} = S) ->
    written(erlmcp_native_beam_http_out:write(Data, Size, Out), S).

written({ok, Out}, S) -> S#conn{out = Out};
written({error, closed}, S) -> gone(S).

answered(false, S) ->
    close(S);
answered(true, #conn{serving = none} = S) ->
    next(S);
answered(true, #conn{buffer = Buffer} = S) ->
    case erlmcp_native_beam_http_intake:kept(intake(S)) of
        yes ->
            next(S);
        rest ->
            {Rest, Deadline} = erlmcp_native_beam_http_intake:rest(intake(S)),
            Discarding = S#conn{phase = discarding, buffer = <<>>, deadline = Deadline},
            discard(Buffer, set_intake(Rest, Discarding))
    end.

stream(From, Status, Fields, #conn{config = Config} = S) ->
    #{counts := Counts, options := #{max_streams := Max}} = Config,
    case
        stream(S) =:= not_yet andalso
            erlmcp_native_beam_http_count:move(Counts, requests, streams, Max)
    of
        ok ->
            answer_call(From, ok),
            begin_stream(Status, Fields, S);
        full ->
            ok = erlmcp_native_beam_http_exchange:over(S#conn.link, S#conn.number),
            answer_call(From, {error, closed}),
            reply(503, retry_after(), <<>>, 0, S);
        false ->
            answer_call(From, {error, closed}),
            S
    end.

begin_stream(Status, Fields, #conn{serving = Serving} = S0) ->
    {Stream, Begun} = erlmcp_native_beam_http_serving:begin_stream(Status, Serving),
    S1 = S0#conn{serving = Begun},
    {Head, S} = head(Status, Fields, Stream, keep(S1), S1),
    write(Head, 0, S).

part(Data, Size, #conn{out = Out} = S) ->
    Framing =
        case stream(S) of
            %% Nobody would understand it.
            not_yet -> none;
            Stream -> Stream
        end,
    written(erlmcp_native_beam_http_out:part(Data, Size, Framing, Out), S).

finish(#conn{out = Out} = S0) ->
    case stream(S0) of
        not_yet ->
            no_answer(S0);
        Stream ->
            S = release(S0#conn{out = erlmcp_native_beam_http_out:end_stream(Out)}),
            answered(keep(S), end_stream(Stream, S))
    end.

end_stream(chunked, S) -> write(erlmcp_native_beam_http_answer:last_chunk(), 0, S);
end_stream(_, S) -> S.

died(Monitor, #conn{serving = Serving} = S) ->
    case erlmcp_native_beam_http_serving:is_served_by(Monitor, Serving) of
        true -> no_more(stream(S), S);
        false -> S
    end.

no_more(not_yet, S) -> no_answer(S);
no_more(_, S) -> cut(S).

no_answer(#conn{serving = Serving} = S) ->
    ok = erlmcp_native_beam_http_exchange:over(S#conn.link, S#conn.number),
    reply(erlmcp_native_beam_http_serving:on_exit(Serving), [], <<>>, 0, S).

%% The peer must be able to see that something is missing.
-spec cut(#conn{}) -> no_return().
cut(#conn{out = Out} = S) ->
    Released = release(S),
    case stream(S) of
        until_close ->
            ok = erlmcp_native_beam_http_out:abort(Out),
            exit(normal);
        _ ->
            close(Released)
    end.

%% The next request, unless the peer leaves too much unread.
next(#conn{out = Out0} = S0) ->
    {HasRoom, Out} = erlmcp_native_beam_http_out:has_room(Out0),
    S = S0#conn{out = Out},
    case HasRoom of
        true ->
            go_on(S);
        false ->
            Deadline = from_now(idle_timeout_ms, S),
            look_later(
                erlmcp_native_beam_http_out:first_look(),
                S#conn{phase = flushing, serving = none, deadline = Deadline}
            )
    end.

go_on(#conn{buffer = <<>>} = S) ->
    await(S);
go_on(#conn{buffer = Buffer} = S) ->
    data(Buffer, await(S#conn{buffer = <<>>})).

%% Looking at the queue.

look(Ms, #conn{phase = serving, serving = Serving} = S) ->
    case erlmcp_native_beam_http_serving:is_busy(Serving) of
        true -> look_for_room(Ms, S);
        false -> S
    end;
look(Ms, #conn{phase = flushing, out = Out0} = S0) ->
    {HasRoom, Out} = erlmcp_native_beam_http_out:has_room(Out0),
    S = looked(Out, S0),
    case HasRoom of
        true -> go_on(S);
        false -> look_later(Ms, S)
    end;
look(_, S) ->
    S.

%% A peer may read as slowly as it likes, but it has to read.
looked(Out, #conn{out = Before} = S) ->
    case erlmcp_native_beam_http_out:has_moved(Before, Out) of
        true -> S#conn{out = Out, deadline = from_now(idle_timeout_ms, S)};
        false -> S#conn{out = Out}
    end.

look_for_room(Ms, #conn{out = Out0, serving = Serving, number = Number} = S0) ->
    {HasRoom, Out} = erlmcp_native_beam_http_out:room(Out0),
    S = S0#conn{out = Out},
    case HasRoom of
        true -> S#conn{serving = erlmcp_native_beam_http_serving:writable(Number, Serving)};
        false -> look_later(Ms, S)
    end.

look_later(Ms, #conn{out = Out} = S) ->
    S#conn{out = erlmcp_native_beam_http_out:look_later(Ms, Out)}.

%% Ends.

-spec close(#conn{}) -> no_return().
close(S) -> close(false, S).

-spec close(Eof :: boolean(), #conn{}) -> no_return().
close(Eof, #conn{manager = Manager, out = Out, armed = Armed, config = #{options := Options}}) ->
    #{idle_timeout_ms := Idle} = Options,
    Peer = #{armed => Armed, eof => Eof},
    erlmcp_native_beam_http_closing:run(Manager, Out, Idle, Peer).

%% A client that waits for an answer and has closed its side is taken for gone; what was answered
%% is still sent.
-spec ended(#conn{}) -> no_return().
ended(#conn{phase = serving} = S) -> gone(S);
ended(S) -> close(true, S).

drained(#conn{phase = head, parser = Parser} = S) ->
    case erlmcp_native_beam_http_head:is_fresh(Parser) of
        true -> close(S);
        false -> S
    end;
drained(S) ->
    S.

expired(#conn{phase = head, parser = Parser} = S) ->
    case erlmcp_native_beam_http_head:is_fresh(Parser) of
        true -> close(S);
        false -> refuse(408, S)
    end;
expired(#conn{phase = serving} = S) ->
    set_intake(erlmcp_native_beam_http_intake:expired(intake(S)), S#conn{deadline = infinity});
expired(#conn{phase = discarding} = S) ->
    close(S);
expired(#conn{out = Out}) ->
    ok = erlmcp_native_beam_http_out:close(Out),
    exit(normal).

-spec gone(#conn{}) -> no_return().
gone(#conn{out = Out} = S) ->
    ok = tell_gone(S),
    ok = erlmcp_native_beam_http_out:close(Out),
    exit(normal).

-spec stop(#conn{}) -> no_return().
stop(#conn{out = Out} = S) ->
    ok = tell_gone(S),
    ok = erlmcp_native_beam_http_out:abort(Out),
    exit(normal).

tell_gone(#conn{phase = serving, serving = Serving, link = Link, number = Number} = S) ->
    _ = release(S),
    erlmcp_native_beam_http_serving:gone(Link, Number, Serving);
tell_gone(_) ->
    ok.

from_now(Timeout, #conn{config = #{options := Options}}) ->
    now_ms() + maps:get(Timeout, Options).

now_ms() -> erlang:monotonic_time(millisecond).
