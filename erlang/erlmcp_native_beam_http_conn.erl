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

%% A body up to this size that has come with its head goes to the serving process at once. It is
%% also what is read ahead of it, and what is read of a body that nobody wants so that the
%% connection can be kept.
-define(AHEAD, 65536).

%% Without a message for so long, the process hibernates.
-define(REST_MS, 1000).

%% How long the peer may take to close its side, so that closing ours does not destroy what it has
%% not read yet.
-define(LINGER_MS, 2000).

%% How often a socket's queue is looked at: nobody tells when it has room.
-define(FIRST_LOOK_MS, 1).
-define(LAST_LOOK_MS, 50).

%% The request that is being served.
-record(exchange, {
    pid :: pid(),
    monitor :: reference(),
    method :: binary(),
    version :: {1, 0} | {1, 1},
    %% Whether the connection can be kept after it, as far as the client is concerned.
    keep :: boolean(),
    %% The client waits to be asked for the body.
    expect :: boolean(),
    body :: {complete, binary()} | {pending, body()} | {failed, body_too_large | timeout},
    body_deadline = infinity :: deadline(),
    reader = none :: none | reference(),
    on_gone = notice :: notice | exit,
    on_exit = 500 :: erlmcp_native_http_path:status(),
    stream = not_yet :: not_yet | erlmcp_native_beam_http_answer:framing(),
    %% Bytes of the stream that were handed to the socket and not seen to have left.
    out = 0 :: non_neg_integer(),
    busy = false :: boolean()
}).

-record(conn, {
    manager :: pid(),
    config :: config(),
    peername :: erlmcp_native:address(),
    wire :: erlmcp_native_beam_http_wire:wire(),
    link :: erlmcp_native_beam_http_exchange:link(),
    armed :: boolean(),
    %% `head': between requests, or in the head of one. `answered': the answer is being written.
    %% `discarding': the rest of a body. `flushing': the peer has to read before it is read from.
    %% `closing': all is said.
    phase = head :: head | serving | answered | discarding | flushing | closing,
    fresh :: erlmcp_native_beam_http_head:parser(),
    parser :: erlmcp_native_beam_http_head:parser(),
    exchange = none :: none | #exchange{},
    number = 0 :: non_neg_integer(),
    %% What has come after what the phase is about.
    buffer = <<>> :: binary(),
    deadline = infinity :: deadline(),
    %% Bytes handed to the socket since its queue was last looked at, and that queue.
    handed = 0 :: non_neg_integer(),
    %% A look at it is due.
    looking = false :: boolean(),
    %% The peer's side has ended, and ours.
    eof = false :: boolean(),
    shut = false :: boolean(),
    draining = false :: boolean(),
    clock = none :: erlmcp_native_beam_http_answer:clock()
}).

-type body() :: erlmcp_native_beam_http_body:body().
-type deadline() :: infinity | integer().

%% @doc Starts the process of a connection. It is to be given the socket, and then `{go, ok}'.
-spec start_link(config(), gen_tcp:socket(), erlmcp_native:address()) -> pid().
start_link(Config, Port, PeerName) ->
    spawn_link(?MODULE, init, [Config, Port, {self(), PeerName}]).

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
    #{handshake_timeout_ms := Timeout, max_stream_bytes := MaxQueued} = Options,
    case erlmcp_native_beam_http_wire:open(Port, Tls, Timeout) of
        {ok, Wire, Armed} ->
            %% Until here the manager's exit ends this process as well.
            _ = process_flag(trap_exit, true),
            Fresh = erlmcp_native_beam_http_head:new(Options),
            S = #conn{
                manager = Manager,
                config = Config,
                peername = PeerName,
                wire = Wire,
                link = erlmcp_native_beam_http_exchange:link(self(), MaxQueued),
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

arm(#conn{armed = false, eof = false, wire = Wire} = S) ->
    case wants(S) andalso erlmcp_native_beam_http_wire:arm(Wire) of
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
handle({'DOWN', Monitor, process, _, _}, #conn{exchange = #exchange{monitor = Monitor}} = S) ->
    died(S);
handle({tcp_passive, _}, S) -> S#conn{armed = false};
handle({part, N, Data, Size}, #conn{number = N, phase = serving} = S) -> part(Data, Size, S);
handle({stream, N, From, {Status, Fields}}, #conn{number = N, phase = serving} = S) ->
    stream(From, Status, Fields, S);
handle({finish, N}, #conn{number = N, phase = serving} = S) -> finish(S);
handle({busy, N}, #conn{number = N, phase = serving, exchange = E} = S) ->
    look(?FIRST_LOOK_MS, S#conn{exchange = E#exchange{busy = true}});
handle({on_gone, N, What}, #conn{number = N, phase = serving, exchange = E} = S) ->
    S#conn{exchange = E#exchange{on_gone = What}};
handle({on_exit, N, Status}, #conn{number = N, phase = serving, exchange = E} = S) ->
    S#conn{exchange = E#exchange{on_exit = Status}};
handle({read_body, N, From, Timeout}, #conn{number = N, phase = serving} = S) ->
    read_body(From, Timeout, S);
handle({Call, _, From, _}, S) when Call =:= read_body; Call =:= stream ->
    answer_call(From, {error, closed}),
    S;
handle({look, Ms}, S) -> look(min(2 * Ms, ?LAST_LOOK_MS), S#conn{looking = false});
handle({ssl, _, Data}, S) -> data(Data, S#conn{armed = false});
handle({tcp_closed, _}, S) -> ended(S#conn{eof = true});
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
await(#conn{config = #{options := #{idle_timeout_ms := Idle}}, fresh = Fresh} = S) ->
    S#conn{phase = head, parser = Fresh, exchange = none, deadline = now_ms() + Idle}.

data(Data, #conn{phase = head, parser = Parser0} = S) ->
    case erlmcp_native_beam_http_head:parse(Data, Parser0) of
        {more, Parser} -> S#conn{parser = Parser, deadline = head_deadline(S)};
        {done, Head, Rest} -> request(Head, Rest, S);
        {error, Status} -> refuse(Status, S)
    end;
data(Data, #conn{phase = serving, exchange = #exchange{reader = Reader}} = S) when
    Reader =/= none
->
    collect(Data, S);
data(Data, #conn{phase = discarding} = S) ->
    discard(Data, S);
data(_, #conn{phase = closing} = S) ->
    S;
data(Data, #conn{buffer = <<>>} = S) ->
    S#conn{buffer = Data};
data(Data, #conn{buffer = Buffer} = S) ->
    S#conn{buffer = <<Buffer/binary, Data/binary>>}.

head_deadline(#conn{parser = Parser, deadline = Deadline, config = #{options := Options}}) ->
    case erlmcp_native_beam_http_head:is_fresh(Parser) of
        true -> now_ms() + maps:get(header_timeout_ms, Options);
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

admit(Meaning, Body, After, #conn{config = #{options := Options, counts := Counts}} = S) ->
    #{max_requests := Max} = Options,
    case erlmcp_native_beam_http_count:admit(Counts, requests, Max) of
        ok -> serve(Meaning, Body, S#conn{buffer = After});
        full -> unavailable(Meaning, Body, S#conn{buffer = After})
    end.

serve(Meaning, Body, #conn{config = Config, number = Last, link = Link} = S) ->
    #{method := Method, version := Version, keep := Keep, expect := Expect} = Meaning,
    #{serve := {Module, Function, Argument}} = Config,
    Number = Last + 1,
    Exchange = {erlmcp_native_beam_http, erlmcp_native_beam_http_exchange:new(Link, Number)},
    Args = [Argument, Exchange, to_serve(Meaning, Body, S)],
    {Pid, Monitor} = spawn_opt(Module, Function, Args, [monitor]),
    S#conn{
        phase = serving,
        number = Number,
        deadline = infinity,
        exchange = #exchange{
            pid = Pid,
            monitor = Monitor,
            method = Method,
            version = Version,
            keep = Keep,
            expect = Expect,
            body = Body,
            body_deadline = body_deadline(Body, Expect, S)
        }
    }.

to_serve(Meaning, Body, #conn{config = #{tls := Tls}, peername = PeerName}) ->
    #{method := Method, path := Path, query := Query, headers := Fields, version := Version} =
        Meaning,
    #{
        method => Method,
        path => Path,
        query => Query,
        headers => Fields,
        version => Version,
        scheme => scheme(Tls),
        peername => PeerName,
        body => body_to_serve(Body)
    }.

scheme(none) -> http;
scheme(_) -> https.

body_to_serve({complete, Whole} = Body) when byte_size(Whole) =< ?AHEAD -> Body;
body_to_serve(_) -> pending.

%% The time runs when the client is free to send it.
body_deadline({pending, _}, false, #conn{config = #{options := Options}}) ->
    now_ms() + maps:get(body_timeout_ms, Options);
body_deadline(_, _, _) ->
    infinity.

unavailable(#{method := Method, keep := Keep}, Body, S) ->
    Kept = Keep andalso is_complete(Body) andalso not S#conn.draining,
    answer(503, retry_after(), <<>>, 0, Method, Kept, S).

is_complete({complete, _}) -> true;
is_complete(_) -> false.

retry_after() -> <<"retry-after: 1\r\n">>.

refuse(Status, S) ->
    answer(Status, <<>>, <<>>, 0, <<"GET">>, false, S).

%% Bodies.

read_body(From, _, #conn{exchange = #exchange{body = {complete, Whole}}} = S) ->
    answer_call(From, {ok, Whole}),
    S;
read_body(From, _, #conn{exchange = #exchange{body = {failed, Why}}} = S) ->
    answer_call(From, {error, Why}),
    S;
read_body(From, Timeout, #conn{buffer = Buffer} = S0) ->
    #conn{exchange = #exchange{body_deadline = Limit} = E} = S = ask_for_body(S0),
    Deadline = min(Limit, deadline(Timeout)),
    collect(Buffer, S#conn{
        buffer = <<>>, deadline = Deadline, exchange = E#exchange{reader = From}
    }).

ask_for_body(#conn{exchange = #exchange{expect = true} = E, config = Config} = S) ->
    #{options := #{body_timeout_ms := Timeout}} = Config,
    Asked = E#exchange{expect = false, body_deadline = now_ms() + Timeout},
    case E#exchange.stream of
        not_yet -> write(erlmcp_native_beam_http_answer:continue(), 0, S#conn{exchange = Asked});
        _ -> S#conn{exchange = Asked}
    end;
ask_for_body(S) ->
    S.

%% An atom is larger than any number.
deadline(infinity) -> infinity;
deadline(Timeout) -> now_ms() + Timeout.

collect(Data, #conn{exchange = #exchange{body = {pending, Body}, reader = From} = E} = S) ->
    case erlmcp_native_beam_http_body:push(Data, Body) of
        {more, More} ->
            S#conn{exchange = E#exchange{body = {pending, More}}};
        {done, Whole, Rest} ->
            answer_call(From, {ok, Whole}),
            read_up({complete, Whole}, S#conn{buffer = Rest});
        {error, body_too_large} ->
            answer_call(From, {error, body_too_large}),
            read_up({failed, body_too_large}, S);
        {error, Status} ->
            bad_body(Status, S)
    end.

read_up(Body, #conn{exchange = E} = S) ->
    S#conn{deadline = infinity, exchange = E#exchange{body = Body, reader = none}}.

bad_body(Status, #conn{exchange = #exchange{reader = From}, link = Link, number = N} = S) ->
    ok = erlmcp_native_beam_http_exchange:over(Link, N),
    answer_call(From, {error, closed}),
    case S#conn.exchange of
        #exchange{stream = not_yet} -> refuse(Status, release(S));
        _ -> cut(S)
    end.

answer_call(From, Result) ->
    From ! {From, Result},
    ok.

discard(Data, #conn{exchange = #exchange{body = {pending, Body}} = E} = S) ->
    case erlmcp_native_beam_http_body:push(Data, Body) of
        {more, More} -> S#conn{exchange = E#exchange{body = {pending, More}}};
        {done, _, Rest} -> next(S#conn{buffer = Rest});
        {error, _} -> close(S)
    end.

%% Answers.

reply(Status, Fields, Body, Size, #conn{exchange = #exchange{method = Method}} = S) ->
    answer(Status, Fields, Body, Size, Method, keep(S), release(S)).

%% What the serving process was counted as.
release(#conn{exchange = #exchange{monitor = Monitor, stream = Stream}, config = Config} = S) ->
    #{counts := Counts} = Config,
    true = demonitor(Monitor, [flush]),
    What =
        case Stream of
            not_yet -> requests;
            _ -> streams
        end,
    ok = erlmcp_native_beam_http_count:release(Counts, What),
    S#conn{phase = answered}.

keep(#conn{draining = true}) -> false;
keep(#conn{exchange = #exchange{keep = false}}) -> false;
keep(#conn{exchange = #exchange{body = {complete, _}}}) -> true;
keep(#conn{exchange = #exchange{body = {failed, _}}}) -> false;
keep(#conn{exchange = #exchange{expect = true}}) -> false;
keep(#conn{exchange = #exchange{body = {pending, Body}}}) ->
    case erlmcp_native_beam_http_body:left(Body) of
        unknown -> true;
        Left -> Left =< ?AHEAD
    end.

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

head(Status, Fields, Framing, Keep, #conn{clock = Clock} = S) ->
    {_, Date} = Now = erlmcp_native_beam_http_answer:date(Clock),
    About = #{date => Date, keep => Keep},
    {erlmcp_native_beam_http_answer:head(Status, Fields, Framing, About), S#conn{clock = Now}}.

answered(false, S) ->
    close(S);
answered(true, #conn{exchange = #exchange{body = {pending, Body}} = E} = S) ->
    Limited = E#exchange{body = {pending, erlmcp_native_beam_http_body:limit(?AHEAD, Body)}},
    discard(S#conn.buffer, S#conn{
        phase = discarding, buffer = <<>>, exchange = Limited, deadline = E#exchange.body_deadline
    });
answered(true, S) ->
    next(S).

stream(From, Status, Fields, #conn{config = Config, exchange = E} = S) ->
    #{counts := Counts, options := #{max_streams := Max}} = Config,
    case E of
        #exchange{stream = not_yet} ->
            case erlmcp_native_beam_http_count:move(Counts, requests, streams, Max) of
                ok -> begin_stream(From, Status, Fields, S);
                full -> no_stream(From, S)
            end;
        _ ->
            answer_call(From, {error, closed}),
            S
    end.

no_stream(From, #conn{link = Link, number = N, exchange = #exchange{method = Method}} = S) ->
    ok = erlmcp_native_beam_http_exchange:over(Link, N),
    answer_call(From, {error, closed}),
    answer(503, retry_after(), <<>>, 0, Method, keep(S), release(S)).

begin_stream(From, Status, Fields, #conn{exchange = #exchange{method = Method} = E} = S0) ->
    answer_call(From, ok),
    Framing =
        case {erlmcp_native_beam_http_answer:has_body(Method, Status), E#exchange.version} of
            {false, _} -> none;
            {true, {1, 1}} -> chunked;
            {true, {1, 0}} -> until_close
        end,
    Keep = keep(S0) andalso Framing =/= until_close,
    {Head, S} = head(Status, Fields, Framing, Keep, S0),
    write(Head, 0, S#conn{exchange = E#exchange{stream = Framing, keep = Keep}}).

part(Data, Size, #conn{exchange = #exchange{stream = Framing, out = Out} = E} = S0) ->
    S = S0#conn{exchange = E#exchange{out = Out + Size}},
    case Framing of
        chunked -> settle(write(erlmcp_native_beam_http_answer:chunk(Data, Size), Size, S));
        until_close -> settle(write(Data, Size, S));
        none -> saw(0, S)
    end.

%% Half of what may wait was handed over since the queue was last looked at.
settle(#conn{exchange = #exchange{out = Out}} = S) ->
    case 2 * Out >= max_queued(S) of
        true -> saw(erlmcp_native_beam_http_wire:pending(S#conn.wire), S);
        false -> S
    end.

%% So much is in the socket's queue.
saw(Pending, #conn{exchange = #exchange{out = Out} = E, link = Link} = S) ->
    Left = min(Out, Pending),
    ok = erlmcp_native_beam_http_exchange:left(Link, Out - Left),
    S#conn{handed = Pending, exchange = E#exchange{out = Left}}.

finish(#conn{exchange = #exchange{stream = not_yet}} = S) ->
    died(S);
finish(#conn{exchange = #exchange{stream = Framing}, link = Link} = S0) ->
    S = release(S0),
    ok = erlmcp_native_beam_http_exchange:reset(Link),
    case Framing of
        chunked ->
            answered(keep(S), write(erlmcp_native_beam_http_answer:last_chunk(), 5, S));
        _ ->
            answered(keep(S), S)
    end.

died(#conn{exchange = #exchange{stream = not_yet, on_exit = Status}} = S) ->
    ok = erlmcp_native_beam_http_exchange:over(S#conn.link, S#conn.number),
    reply(Status, [], <<>>, 0, S);
died(S) ->
    cut(S).

%% The peer must be able to see that something is missing.
cut(#conn{exchange = #exchange{stream = until_close}, wire = Wire} = S) ->
    _ = release(S),
    ok = erlmcp_native_beam_http_wire:abort(Wire),
    exit(normal);
cut(S) ->
    close(release(S)).

write(Data, Size, #conn{wire = Wire, handed = Handed} = S) ->
    case erlmcp_native_beam_http_wire:send(Wire, Data) of
        ok -> S#conn{handed = Handed + Size};
        {error, closed} -> gone(S)
    end.

%% The next request, unless the peer leaves too much unread.
next(#conn{handed = Handed} = S) ->
    case Handed >= max_queued(S) of
        true -> look(?FIRST_LOOK_MS, S#conn{phase = flushing, deadline = idle_deadline(S)});
        false -> go_on(S)
    end.

flush(Pending, Ms, S) ->
    case Pending >= max_queued(S) of
        true -> look_later(Ms, S);
        false -> go_on(S#conn{handed = Pending})
    end.

go_on(#conn{buffer = <<>>} = S) -> await(S);
go_on(#conn{buffer = Buffer} = S) ->
    case await(S#conn{buffer = <<>>}) of
        #conn{phase = head} = Ready -> data(Buffer, Ready);
        Closing -> Closing
    end.

max_queued(#conn{config = #{options := #{max_stream_bytes := Max}}}) -> Max.

idle_deadline(#conn{config = #{options := #{idle_timeout_ms := Idle}}}) -> now_ms() + Idle.

%% Looking at the queue.

look(Ms, #conn{wire = Wire} = S) ->
    looked(erlmcp_native_beam_http_wire:pending(Wire), Ms, S).

looked(Pending, Ms, #conn{phase = serving, exchange = #exchange{busy = true}} = S0) ->
    #conn{exchange = E, link = Link, number = N} = S = saw(Pending, S0),
    case 2 * erlmcp_native_beam_http_exchange:queued(Link) =< max_queued(S) of
        true ->
            ok = erlmcp_native_beam_http_exchange:notice(E#exchange.pid, N, writable),
            S#conn{exchange = E#exchange{busy = false}};
        false ->
            look_later(Ms, S)
    end;
looked(Pending, Ms, #conn{phase = flushing} = S) ->
    flush(Pending, Ms, S);
looked(0, _, #conn{phase = closing, eof = true} = S) ->
    gone(S);
looked(0, _, #conn{phase = closing, shut = false, wire = Wire} = S) ->
    ok = erlmcp_native_beam_http_wire:shutdown(Wire),
    S#conn{shut = true, deadline = now_ms() + ?LINGER_MS};
looked(_, Ms, #conn{phase = closing, shut = false} = S) ->
    look_later(Ms, S);
looked(_, _, S) ->
    S.

look_later(Ms, #conn{looking = false} = S) ->
    _ = erlang:send_after(Ms, self(), {look, Ms}),
    S#conn{looking = true};
look_later(_, S) ->
    S.

%% Ends.

%% Our side is closed after what is queued, the other is given time.
close(#conn{phase = closing} = S) ->
    S;
close(S) ->
    Closing = S#conn{phase = closing, exchange = none, buffer = <<>>, deadline = idle_deadline(S)},
    look(?FIRST_LOOK_MS, Closing).

%% A client that waits for an answer and has closed its side is taken for gone; what was answered
%% is still sent.
ended(#conn{phase = serving} = S) -> gone(S);
ended(#conn{phase = closing, shut = true} = S) -> gone(S);
ended(S) -> close(S).

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
expired(#conn{phase = serving, exchange = #exchange{reader = From} = E} = S) when From =/= none ->
    answer_call(From, {error, timeout}),
    Waiting = S#conn{deadline = infinity, exchange = E#exchange{reader = none}},
    case now_ms() >= E#exchange.body_deadline of
        true -> read_up({failed, timeout}, Waiting);
        false -> Waiting
    end;
expired(#conn{phase = discarding} = S) ->
    close(S);
expired(#conn{wire = Wire}) ->
    ok = erlmcp_native_beam_http_wire:close(Wire),
    exit(normal).

-spec gone(#conn{}) -> no_return().
gone(#conn{wire = Wire} = S) ->
    tell_gone(S),
    ok = erlmcp_native_beam_http_wire:close(Wire),
    exit(normal).

-spec stop(#conn{}) -> no_return().
stop(#conn{wire = Wire} = S) ->
    tell_gone(S),
    ok = erlmcp_native_beam_http_wire:abort(Wire),
    exit(normal).

tell_gone(#conn{phase = serving, exchange = #exchange{pid = Pid}} = S) ->
    #conn{link = Link, number = N} = S,
    ok = erlmcp_native_beam_http_exchange:gone(Link, N),
    _ = release(S),
    case wish(N, S#conn.exchange#exchange.on_gone) of
        exit -> exit(Pid, {shutdown, gone});
        notice -> erlmcp_native_beam_http_exchange:notice(Pid, N, gone)
    end;
tell_gone(_) ->
    ok.

%% What the serving process said before it could see that the client has gone.
wish(N, Last) ->
    receive
        {on_gone, N, What} -> wish(N, What)
    after 0 -> Last
    end.

now_ms() -> erlang:monotonic_time(millisecond).
