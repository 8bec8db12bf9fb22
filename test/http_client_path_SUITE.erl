%% What every path's HTTP client does: its contract is in erlmcp_native_http_client_path. The peers
%% are scripted on raw sockets (http_peers), so that they do what no real server would, and cowboy
%% and OTP's httpd.
-module(http_client_path_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_certs, [file/2]).

-define(WAIT, 10000).
-define(MIB, 1048576).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    Rust = cases() ++ rust_cases(),
    [{nif, Rust}, {port, Rust}, {beam, cases() ++ beam_cases()}].

cases() ->
    [
        answer_with_a_length,
        answer_in_chunks_cut_anywhere,
        answer_up_to_the_end,
        answers_without_a_body,
        interim_answers_are_skipped,
        stream_part_by_part,
        takes_are_bounded,
        one_notice_until_all_is_taken,
        who_does_not_take_makes_the_server_wait,
        five_mib_down,
        five_mib_up,
        upload_does_not_hold_the_owner,
        answer_before_the_upload_is_over,
        request_as_it_was_meant,
        unfit_requests,
        address_of_the_other_family,
        connection_is_kept,
        last_used_is_used_first,
        closed_when_the_server_says_so,
        closed_when_idle,
        server_closes_what_is_idle,
        requests_do_not_wait_for_each_other,
        bounds_of_pool_and_queue,
        no_queue,
        head_timeout,
        part_timeout,
        parts_in_time,
        total_timeout,
        timeout_in_the_queue,
        cancel_in_the_queue,
        cancel_while_dialling,
        cancel_before_the_head,
        cancel_in_the_body,
        cancel_what_is_over,
        truncated_body,
        truncated_chunks,
        reset_in_the_body,
        closed_before_the_head,
        not_http,
        ambiguous_answers,
        garbage_in_chunks,
        head_at_the_limit,
        reused_and_closed_is_sent_again,
        reused_and_closed_is_reported,
        refused,
        black_hole,
        no_such_name,
        owner_ends,
        close_ends_everything,
        options_and_files,
        tls,
        tls_names_server_and_protocol,
        tls_certificates,
        tls_plain_peer,
        tls_silent_peer,
        tls_cancel_in_the_upload,
        tls_in_bulk,
        proxy_for_http,
        proxy_for_https,
        proxy_declines,
        proxy_is_gone,
        httpd,
        cowboy,
        many_requests,
        anything_goes
    ].

rust_cases() ->
    [http2_over_tls, http2_by_prior_knowledge, http2_requests_share_a_connection].

beam_cases() ->
    [http1_only].

init_per_suite(Config) ->
    ok = peers(),
    test_config:start([erlmcp_native, cowboy, inets], test_certs:make(?MODULE, Config)).

%% Where test/peers.sh has put them.
peers() ->
    case code:which(cowboy) of
        non_existing ->
            Above = "../../../../",
            Root = filename:join(code:lib_dir(erlmcp_native), Above),
            code:add_pathsa(filelib:wildcard(filename:join(Root, "_build/peers/lib/*/ebin")));
        _ ->
            ok
    end.

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) ->
    {ok, Module} = erlmcp_native_http_client_path:use(Path),
    [{module, Module}, {path, Path} | Config].

end_per_group(_, _) -> ok.

%% Nothing of a client may outlive it.
end_per_testcase(_, Config) ->
    case get(client) of
        undefined -> ok;
        Client -> ok = (module(Config)):close(Client)
    end,
    nothing_is_left(erlang:monotonic_time(millisecond) + ?WAIT).

nothing_is_left(Deadline) ->
    case helpers() ++ native() of
        [] ->
            ok;
        Left ->
            case erlang:monotonic_time(millisecond) > Deadline of
                true ->
                    {fail, {left, Left}};
                false ->
                    receive
                    after 10 -> nothing_is_left(Deadline)
                    end
            end
    end.

native() ->
    [
        {Name, Value}
     || {Name, #{value := Value}} <- maps:to_list(erlmcp_native:overview()),
        Name =:= native_connections orelse Name =:= native_tasks,
        Value > 0
    ].

helpers() ->
    [Pid || Pid <- processes(), Pid =/= self(), is_helper(process_info(Pid, current_stacktrace))].

is_helper({current_stacktrace, Stack}) ->
    lists:any(fun({M, _, _, _}) -> is_ours(atom_to_list(M)) end, Stack);
is_helper(undefined) ->
    false.

is_ours("erlmcp_native_beam_http_client" ++ _) -> true;
is_ours("erlmcp_native_beam_" ++ Rest) -> lists:member(Rest, ["opening", "session", "dial"]);
is_ours(_) -> false.

%% Answers.

answer_with_a_length(Config) ->
    Json = <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{}}">>,
    serving(Config, fun(Conn) ->
        http_peers:send(Conn, [
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Two:  b \t\r\nx-two: c\r\n",
            "X-None:\r\nContent-Length: ", integer_to_list(byte_size(Json)), "\r\n\r\n", Json
        ])
    end),
    Id = request(get_request()),
    {200, Headers, {done, Json}} = answer(Id),
    Size = integer_to_binary(byte_size(Json)),
    ?assertEqual([
        {<<"content-type">>, <<"application/json">>},
        {<<"x-two">>, <<"b">>},
        {<<"x-two">>, <<"c">>},
        {<<"x-none">>, <<>>},
        {<<"content-length">>, Size}
    ], Headers).

answer_in_chunks_cut_anywhere(Config) ->
    Head = <<"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n">>,
    Body = <<"5\r\nhello\r\nA;name=\"v\"\r\n0123456789\r\n01\r\n!\r\n0\r\nTrailer: x\r\n\r\n">>,
    Stream = <<Head/binary, Body/binary>>,
    start(Config, http_peers:serve(fun(Conn) ->
        [
            begin
                #{line := _} = http_peers:request(Conn),
                [ok = http_peers:send(Conn, Piece) || Piece <- pieces(Stream, Size)]
            end
         || Size <- lists:seq(1, byte_size(Stream))
        ],
        http_peers:wait(never)
    end)),
    [
        ?assertMatch({200, _, {done, <<"hello0123456789!">>}}, answer(request(get_request())))
     || _ <- lists:seq(1, byte_size(Stream))
    ],
    counts(#{connections => 1, active => 0}).

pieces(Stream, Size) when byte_size(Stream) > Size ->
    <<Piece:Size/binary, Rest/binary>> = Stream,
    [Piece | pieces(Rest, Size)];
pieces(Stream, _) ->
    [Stream].

answer_up_to_the_end(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, "HTTP/1.0 200 OK\r\n\r\nall "),
        ok = http_peers:send(Conn, "there is"),
        http_peers:close(Conn)
    end),
    ?assertMatch({200, [], {done, <<"all there is">>}}, answer(request(get_request()))),
    ?assertMatch({200, [], {done, <<"all there is">>}}, answer(request(get_request()))).

answers_without_a_body(Config) ->
    start(Config, http_peers:serve(fun(Conn) ->
        [
            begin
                #{line := _} = http_peers:request(Conn),
                http_peers:send(Conn, ["HTTP/1.1 ", Rest, "\r\n\r\n"])
            end
         || Rest <- [
                "200 OK\r\nContent-Length: 5",
                "200 OK\r\nTransfer-Encoding: chunked",
                "204 No Content",
                "304 Not Modified\r\nContent-Length: 5",
                "202 Accepted\r\nContent-Length: 0"
            ]
        ],
        http_peers:wait(never)
    end)),
    Head = (get_request())#{method := <<"HEAD">>},
    Expected = [{Head, 200}, {Head, 200}, {post(<<"x">>), 204}, {get_request(), 304}] ++
        [{post(<<"x">>), 202}],
    [?assertMatch({Status, _, {done, <<>>}}, answer(request(R))) || {R, Status} <- Expected],
    ?assertMatch([opened], told()).

interim_answers_are_skipped(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early"),
        ok = http_peers:send(Conn, " Hints\r\nLink: <x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"),
        http_peers:answer(Conn, {201, <<"made">>})
    end),
    Answer = answer(request(post(<<"x">>))),
    ?assertMatch({201, [{<<"content-length">>, _}], {done, <<"made">>}}, Answer).

%% Taking.

stream_part_by_part(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, event_stream()),
        ok = http_peers:tell(Conn, started),
        [
            begin
                ok = http_peers:wait(go),
                ok = http_peers:send(Conn, chunk(["data: ", integer_to_list(N), "\n\n"]))
            end
         || N <- lists:seq(1, 5)
        ],
        ok = http_peers:wait(go),
        ok = http_peers:send(Conn, "0\r\n\r\n"),
        http_peers:wait(never)
    end),
    Id = request(get_request()),
    {head, Id, 200, _} = event(Id),
    ?assertEqual({[], armed}, take(Id)),
    Server = teller(started),
    [
        begin
            Server ! go,
            ?assertEqual({readable, Id}, event(Id)),
            Part = iolist_to_binary(["data: ", integer_to_list(N), "\n\n"]),
            ?assertEqual({[Part], armed}, take(Id))
        end
     || N <- lists:seq(1, 5)
    ],
    Server ! go,
    ?assertEqual({readable, Id}, event(Id)),
    ?assertEqual({[], done}, take(Id)).

event_stream() ->
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n".

chunk(Data) ->
    [integer_to_list(iolist_size(Data), 16), "\r\n", Data, "\r\n"].

takes_are_bounded(Config) ->
    Body = rand:bytes(300000),
    serving(Config, fun(Conn) ->
        http_peers:answer(Conn, {200, Body}),
        http_peers:wait(never)
    end),
    Id = request(get_request()),
    {head, Id, 200, _} = event(Id),
    ?assert(Body =:= iolist_to_binary(in_takes(Id, 1, []))).

%% One part at a time is what a limit of one byte allows.
in_takes(Id, Max, Acc) ->
    case take(Id, Max) of
        {Parts, more} when length(Parts) =:= 1 -> in_takes(Id, Max, [Acc, Parts]);
        {Parts, armed} when length(Parts) =< 1 ->
            {readable, Id} = event(Id),
            in_takes(Id, Max, [Acc, Parts]);
        {Parts, done} when length(Parts) =< 1 -> [Acc, Parts]
    end.

one_notice_until_all_is_taken(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, event_stream()),
        [
            begin
                ok = http_peers:send(Conn, chunk("x")),
                ok = http_peers:tell(Conn, sent),
                ok = http_peers:wait(go)
            end
         || _ <- lists:seq(1, 10)
        ],
        http_peers:send(Conn, "0\r\n\r\n")
    end),
    Id = request(get_request()),
    [teller(sent) ! go || _ <- lists:seq(1, 10)],
    {head, Id, 200, _} = event(Id),
    {readable, Id} = event(Id),
    ok = quiet(200),
    ?assertEqual([], events()),
    {Parts, done} = take(Id),
    ?assertEqual(<<"xxxxxxxxxx">>, iolist_to_binary(Parts)).

who_does_not_take_makes_the_server_wait(Config) ->
    Pieces = 1024,
    Piece = binary:copy(<<"0123456789abcdef">>, 2048),
    Script = fun(Conn) ->
        _ = http_peers:request(Conn),
        Length = integer_to_list(Pieces * byte_size(Piece)),
        ok = http_peers:send(Conn, ["HTTP/1.1 200 OK\r\nContent-Length: ", Length, "\r\n\r\n"]),
        [
            begin
                ok = http_peers:send(Conn, Piece),
                ok = http_peers:tell(Conn, sent)
            end
         || _ <- lists:seq(1, Pieces)
        ],
        http_peers:wait(never)
    end,
    Port = http_peers:serve(Script, #{tcp => [{sndbuf, 65536}]}),
    start(Config, Port, #{high_water_bytes => 65536}),
    Id = request((get_request())#{timeout_ms := 1000}),
    {head, Id, 200, _} = event(Id),
    %% Longer than the timeout: it is not the server who is waited for.
    ok = serving(1500),
    Sent = length([sent || sent <- told()]),
    ?assert(Sent < Pieces div 2, Sent),
    {done, Body} = body(Id),
    ?assertEqual(Pieces * byte_size(Piece), byte_size(Body)).

five_mib_down(Config) ->
    Body = rand:bytes(5 * ?MIB),
    serving(Config, fun(Conn) ->
        http_peers:answer(Conn, {200, Body})
    end),
    {200, _, {done, Got}} = answer(request(get_request())),
    ?assert(Body =:= Got).

five_mib_up(Config) ->
    Body = rand:bytes(5 * ?MIB),
    start(Config, http_peers:serve(fun http_peers:echo/1)),
    {200, _, {done, Got}} = answer(request(post([<<>>, [Body, $!]]))),
    ?assert(<<Body/binary, $!>> =:= Got),
    {200, _, {done, <<"small">>}} = answer(request(post(<<"small">>))),
    ?assertMatch([opened], told()).

upload_does_not_hold_the_owner(Config) ->
    start(Config, http_peers:serve(fun(Conn) ->
        case http_peers:head(Conn) of
            #{line := <<"GET ", _/binary>>} -> http_peers:answer(Conn, {200, <<"quick">>});
            _ -> http_peers:tell(Conn, stuck)
        end,
        http_peers:wait(read),
        http_peers:drain(Conn)
    end)),
    Upload = request(post(binary:copy(<<"x">>, 32 * ?MIB))),
    Server = teller(stuck),
    ?assertMatch({200, _, {done, <<"quick">>}}, answer(request(get_request()))),
    cancel(Upload),
    Server ! read,
    ?assertEqual(Server, teller(closed)),
    ?assertEqual([], [E || E <- events(), element(2, E) =:= Upload]).

%% What is left of it may be sent or not; the next request has its answer either way.
answer_before_the_upload_is_over(Config) ->
    Size = 32 * ?MIB,
    start(Config, http_peers:serve(fun(Conn) ->
        case http_peers:head(Conn) of
            #{line := <<"POST ", _/binary>>} ->
                _ = http_peers:answer(Conn, {413, <<"no">>}),
                _ = http_peers:skip(Conn, Size);
            _ ->
                http_peers:answer(Conn, {200, <<"yes">>})
        end,
        http_peers:echo(Conn)
    end)),
    Id = request(post(binary:copy(<<"x">>, Size))),
    ?assertMatch({413, _, {done, <<"no">>}}, answer(Id)),
    ?assertMatch({200, _, {done, _}}, answer(request(get_request()))).

%% Requests.

request_as_it_was_meant(Config) ->
    Port = http_peers:serve(fun(Conn) ->
        [
            begin
                http_peers:tell(Conn, http_peers:request(Conn)),
                http_peers:answer(Conn, {200, <<>>})
            end
         || _ <- lists:seq(1, 3)
        ],
        http_peers:wait(never)
    end),
    start(Config, Port),
    %% What is the path's business is left to it.
    Ours = [<<"Host">>, <<"content-length">>, <<"Transfer-Encoding">>, <<"connection">>],
    Headers = [
        {<<"accept">>, <<"text/event-stream">>},
        {<<"x-list">>, ["a", <<"b">>, $c]}
        | [{Name, <<"7">>} || Name <- Ours]
    ],
    Requests = [
        (get_request())#{target := <<"/a/b?c=d&e">>, headers := Headers},
        post(["{", <<"}">>]),
        (post(<<>>))#{method := <<"DELETE">>, body := none}
    ],
    [{200, _, {done, <<>>}} = answer(request(R)) || R <- Requests],
    Host = iolist_to_binary(["127.0.0.1:", integer_to_list(Port)]),
    [Get, Post, Delete] = [Request || #{line := _} = Request <- told()],
    ?assertMatch(#{line := <<"GET /a/b?c=d&e HTTP/1.1">>, body := <<>>}, Get),
    ?assertEqual([Host], proplists:get_all_values(<<"host">>, maps:get(headers, Get))),
    ?assertEqual(<<"text/event-stream">>, header(<<"accept">>, Get)),
    ?assertEqual(<<"abc">>, header(<<"x-list">>, Get)),
    ?assertEqual(none, header(<<"content-length">>, Get)),
    ?assertEqual(none, header(<<"transfer-encoding">>, Get)),
    ?assertMatch(#{line := <<"POST / HTTP/1.1">>, body := <<"{}">>}, Post),
    ?assertEqual(<<"2">>, header(<<"content-length">>, Post)),
    ?assertMatch(#{line := <<"DELETE / HTTP/1.1">>, body := <<>>}, Delete).

header(Name, #{headers := Headers}) ->
    proplists:get_value(Name, Headers, none).

%% What would be read as something else is not sent.
unfit_requests(Config) ->
    start(Config, test_socket:free_port()),
    Get = get_request(),
    Unfit = [
        Get#{target := <<"/a b">>},
        Get#{target := <<"/\r\nx: y">>},
        Get#{method := <<"GET /\r\n">>},
        Get#{headers := [{<<"x">>, <<"a\r\nb: c">>}]},
        Get#{headers := [{<<"x">>, <<"a\nb">>}]},
        Get#{headers := [{<<"x">>, <<0>>}]},
        Get#{headers := [{<<"x y">>, <<"z">>}]},
        Get#{headers := [{<<"x:">>, <<"z">>}]},
        Get#{headers := [{<<>>, <<"z">>}]}
    ],
    [?assertMatch({R, {error, {option, _, _}}}, {R, request(R)}) || R <- Unfit],
    counts(#{connections => 0, active => 0, queued => 0}).

address_of_the_other_family(Config) ->
    Loopback = {0, 0, 0, 0, 0, 0, 0, 1},
    case gen_tcp:listen(0, [inet6, {ip, Loopback}]) of
        {ok, Probe} ->
            ok = gen_tcp:close(Probe),
            Port = http_peers:serve(fun(Conn) ->
                http_peers:tell(Conn, http_peers:request(Conn)),
                http_peers:answer(Conn, {200, <<>>})
            end, #{tcp => [inet6], ip => Loopback}),
            open(Config, origin(http, <<"::1">>, Port), #{}),
            {200, _, {done, <<>>}} = answer(request(get_request())),
            Host = iolist_to_binary(["[::1]:", integer_to_list(Port)]),
            [opened, Request] = told(),
            ?assertEqual(Host, header(<<"host">>, Request));
        {error, _} ->
            {skip, no_ipv6}
    end.

%% The pool.

connection_is_kept(Config) ->
    start(Config, http_peers:serve(fun http_peers:echo/1)),
    Ports = [begin {200, _, {done, P}} = answer(request(get_request())), P end || _ <- [1, 2, 3]],
    ?assertMatch([_], lists:usort(Ports)),
    counts(#{connections => 1, active => 0, queued => 0}).

last_used_is_used_first(Config) ->
    start(Config, gated()),
    {A, First} = {request(get_request()), gate()},
    {B, Second} = {request(get_request()), gate()},
    [
        begin
            Server ! {go, <<>>},
            {200, _, {done, <<>>}} = answer(Id)
        end
     || {Id, Server} <- [{A, First}, {B, Second}]
    ],
    C = request(get_request()),
    ?assertEqual(Second, gate()),
    D = request(get_request()),
    ?assertEqual(First, gate()),
    [Pid ! {go, <<>>} || Pid <- [First, Second]],
    [{200, _, {done, <<>>}} = answer(Id) || Id <- [C, D]].

%% A server that tells of each request and answers when it is told to, with what it is told.
gated() ->
    http_peers:serve(fun gated/1).

gated(Conn) ->
    case http_peers:request(Conn) of
        closed ->
            http_peers:tell(Conn, closed);
        _ ->
            ok = http_peers:tell(Conn, gate),
            receive
                {go, Body} -> http_peers:answer(Conn, {200, Body})
            end,
            gated(Conn)
    end.

gate() -> teller(gate).

closed_when_the_server_says_so(Config) ->
    serving(Config, fun(Conn) ->
        Fields = "Connection: close\r\nContent-Length: 0\r\n\r\n",
        ok = http_peers:send(Conn, ["HTTP/1.1 200 OK\r\n", Fields]),
        http_peers:drain(Conn)
    end),
    {200, _, {done, <<>>}} = answer(request(get_request())),
    _ = teller(closed),
    {200, _, {done, <<>>}} = answer(request(get_request())),
    _ = teller(closed),
    counts(#{active => 0}).

closed_when_idle(Config) ->
    serving(Config, fun(Conn) ->
        http_peers:answer(Conn, {200, <<>>}),
        http_peers:drain(Conn)
    end, #{idle_timeout_ms => 50}),
    {200, _, {done, <<>>}} = answer(request(get_request())),
    _ = teller(closed),
    {200, _, {done, <<>>}} = answer(request(get_request())).

%% The end of a connection is seen where it is seen first: nothing is lost, whatever the method.
server_closes_what_is_idle(Config) ->
    serving(Config, fun(Conn) ->
        http_peers:answer(Conn, {200, <<>>}),
        ok = http_peers:close(Conn),
        http_peers:tell(Conn, gone)
    end),
    [
        begin
            {200, _, {done, <<>>}} = answer(request(post(<<"x">>))),
            _ = teller(gone),
            ok = quiet(50)
        end
     || _ <- lists:seq(1, 3)
    ].

requests_do_not_wait_for_each_other(Config) ->
    start(Config, http_peers:serve(fun slow_or_quick/1)),
    Slow = request((get_request())#{target := <<"/slow">>}),
    Server = teller(slow),
    Quick = [request(get_request()) || _ <- lists:seq(1, 5)],
    [{200, _, {done, <<"ok">>}} = answer(Id) || Id <- Quick],
    Server ! go,
    {200, _, {done, <<"ok">>}} = answer(Slow).

slow_or_quick(Conn) ->
    case http_peers:request(Conn) of
        closed ->
            ok;
        #{line := <<"GET /slow ", _/binary>>} ->
            http_peers:tell(Conn, slow),
            http_peers:wait(go),
            quick(Conn);
        _ ->
            quick(Conn)
    end.

quick(Conn) ->
    _ = http_peers:answer(Conn, {200, <<"ok">>}),
    slow_or_quick(Conn).

bounds_of_pool_and_queue(Config) ->
    start(Config, gated(), #{max_connections => 2, max_queue => 2, protocols => [http1]}),
    Ids = [request(get_request()) || _ <- lists:seq(1, 4)],
    ?assertEqual({error, busy}, request(get_request())),
    Servers = [gate(), gate()],
    counts(#{active => 2, queued => 2}),
    ok = quiet(50),
    ?assertEqual(2, length([opened || opened <- told()])),
    [Pid ! {go, <<"1">>} || Pid <- Servers],
    [{200, _, {done, <<"1">>}} = answer(Id) || Id <- lists:sublist(Ids, 2)],
    Next = [gate(), gate()],
    counts(#{active => 2, queued => 0}),
    More = [request(get_request()), request(get_request())],
    ?assertEqual({error, busy}, request(get_request())),
    [Pid ! {go, <<"2">>} || Pid <- Next],
    [{200, _, {done, <<"2">>}} = answer(Id) || Id <- lists:nthtail(2, Ids)],
    [gate() ! {go, <<"3">>} || _ <- [1, 2]],
    [{200, _, {done, <<"3">>}} = answer(Id) || Id <- More],
    counts(#{connections => 2, active => 0, queued => 0}).

no_queue(Config) ->
    start(Config, gated(), #{max_connections => 1, max_queue => 0, protocols => [http1]}),
    First = request(get_request()),
    ?assertEqual({error, busy}, request(get_request())),
    gate() ! {go, <<>>},
    {200, _, {done, <<>>}} = answer(First),
    Second = request(get_request()),
    gate() ! {go, <<>>},
    {200, _, {done, <<>>}} = answer(Second).

%% Time.

head_timeout(Config) ->
    start(Config, http_peers:serve(fun silent/1)),
    Id = request((get_request())#{timeout_ms := 100}),
    ?assertEqual({failed, Id, #{reason => timeout, safe => false}}, event(Id)),
    _ = teller(closed),
    counts(#{active => 0, queued => 0}).

silent(Conn) ->
    _ = http_peers:request(Conn),
    http_peers:tell(Conn, asked),
    http_peers:drain(Conn).

part_timeout(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, [event_stream(), chunk("one")]),
        http_peers:drain(Conn)
    end),
    Id = request((get_request())#{timeout_ms := 1000}),
    Failure = #{reason => timeout, safe => false},
    ?assertMatch({200, _, {failed, Failure, <<"one">>}}, answer(Id)),
    _ = teller(closed).

%% Each wait is bounded, not their sum.
parts_in_time(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, event_stream()),
        [
            receive
            after 100 -> ok = http_peers:send(Conn, chunk("x"))
            end
         || _ <- lists:seq(1, 8)
        ],
        http_peers:send(Conn, "0\r\n\r\n")
    end),
    Id = request((get_request())#{timeout_ms := 500}),
    ?assertMatch({200, _, {done, <<"xxxxxxxx">>}}, answer(Id)).

total_timeout(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, event_stream()),
        babble(Conn)
    end),
    Id = request((get_request())#{timeout_ms := 1000, total_timeout_ms := 300}),
    Failure = #{reason => timeout, safe => false},
    ?assertMatch({200, _, {failed, Failure, _}}, answer(Id)),
    _ = teller(closed).

babble(Conn) ->
    case http_peers:send(Conn, chunk("x")) of
        ok ->
            receive
            after 20 -> babble(Conn)
            end;
        {error, _} ->
            http_peers:tell(Conn, closed)
    end.

timeout_in_the_queue(Config) ->
    start(Config, gated(), #{max_connections => 1, protocols => [http1]}),
    First = request(get_request()),
    Second = request((get_request())#{timeout_ms := 50}),
    ?assertEqual({failed, Second, #{reason => timeout, safe => true}}, event(Second)),
    gate() ! {go, <<"1">>},
    {200, _, {done, <<"1">>}} = answer(First),
    counts(#{active => 0, queued => 0}).

%% Cancelling.

cancel_in_the_queue(Config) ->
    start(Config, gated(), #{max_connections => 1, protocols => [http1]}),
    [First, Second, Third] = [request(get_request()) || _ <- lists:seq(1, 3)],
    Server = gate(),
    cancel(Second),
    counts(#{active => 1, queued => 1}),
    Server ! {go, <<"1">>},
    {200, _, {done, <<"1">>}} = answer(First),
    gate() ! {go, <<"3">>},
    {200, _, {done, <<"3">>}} = answer(Third),
    ok = quiet(50),
    ?assertEqual([], [gate || gate <- told()]),
    ?assertEqual([], events()).

cancel_while_dialling(Config) ->
    start(Config, test_socket:black_hole()),
    Id = request(get_request()),
    cancel(Id),
    ok = quiet(50),
    ?assertEqual([], events()),
    counts(#{connections => 0, active => 0, queued => 0}).

cancel_before_the_head(Config) ->
    start(Config, http_peers:serve(fun silent/1)),
    Id = request(get_request()),
    Server = teller(asked),
    cancel(Id),
    ?assertEqual(Server, teller(closed)),
    ?assertEqual([], events()),
    counts(#{active => 0, queued => 0}).

cancel_in_the_body(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, event_stream()),
        babble(Conn)
    end),
    Id = request(get_request()),
    {head, Id, 200, _} = event(Id),
    {readable, Id} = event(Id),
    cancel(Id),
    _ = teller(closed),
    ?assertEqual([], events()),
    counts(#{active => 0, queued => 0}).

cancel_what_is_over(Config) ->
    start(Config, http_peers:serve(fun http_peers:echo/1)),
    Id = request(get_request()),
    {200, _, {done, Port}} = answer(Id),
    cancel(Id),
    cancel(Id),
    ?assertMatch({200, _, {done, Port}}, answer(request(get_request()))).

%% Failures.

truncated_body(Config) ->
    ?assertMatch(
        {200, _, {failed, #{reason := closed, safe := false}, <<"half">>}},
        answer_to(Config, "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
    ).

truncated_chunks(Config) ->
    [
        ?assertMatch(
            {Rest, {200, _, {failed, #{reason := closed, safe := false}, <<"half">>}}},
            {Rest, answer_to(Config, [event_stream(), "4\r\nhalf", Rest])}
        )
     || Rest <- ["", "\r", "\r\n", "\r\n4", "\r\n0\r\n", "\r\n0\r\n\r", "\r\n0\r\nx: y\r\n"]
    ].

%% The answer to a request from a server that sends this and closes.
answer_to(Config, Bytes) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, Bytes),
        http_peers:close(Conn)
    end),
    answer(request(post(<<"x">>))).

reset_in_the_body(Config) ->
    serving(Config, fun(Conn) ->
        ok = http_peers:send(Conn, [event_stream(), chunk("one")]),
        ok = http_peers:wait(go),
        http_peers:reset(Conn)
    end),
    Id = request(get_request()),
    {head, Id, 200, _} = event(Id),
    {readable, Id} = event(Id),
    {[<<"one">>], armed} = take(Id),
    [Server] = [Pid || {Pid, opened} <- tellers()],
    Server ! go,
    {readable, Id} = event(Id),
    ?assertEqual({[], {failed, #{reason => reset, safe => false}}}, take(Id)).

closed_before_the_head(Config) ->
    ?assertMatch(
        {failed, #{reason := closed, safe := false}},
        answer_to(Config, "")
    ),
    ?assertMatch(
        {failed, #{safe := false}},
        answer_to(Config, "HTTP/1.1 200 OK\r\nContent-")
    ).

not_http(Config) ->
    [
        ?assertEqual({Bytes, {failed, failure()}}, {Bytes, answer_to(Config, [Bytes, "\r\n\r\n"])})
     || Bytes <- [
            "SSH-2.0-OpenSSH_9.2p1 Debian-2",
            "HTTP/2.0 200 OK",
            "HTTP/1.1 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
            "HTTP/1.1 200 OK\r\nno colon",
            "HTTP/1.1 200 OK\r\n: no name"
        ]
    ].

failure() ->
    #{reason => protocol, safe => false}.

%% Two readers could disagree about where they end.
ambiguous_answers(Config) ->
    [
        ?assertEqual(
            {Fields, {failed, failure()}},
            {Fields, answer_to(Config, ["HTTP/1.1 200 OK\r\n", Fields, "\r\n\r\nhello"])}
        )
     || Fields <- [
            "Content-Length: 5\r\nContent-Length: 6",
            "Content-Length: 5, 6",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: -5",
            "Content-Length: 5 5",
            "Content-Length:",
            "Content-Length: 99999999999999999999999",
            "Content-Length : 5",
            "Content-Length: 5\r\n folded",
            "X: \0"
        ]
    ].

garbage_in_chunks(Config) ->
    [
        ?assertEqual(
            {Garbage, {failed, failure(), <<"half">>}},
            {Garbage, element(3, answer_to(Config, [event_stream(), "4\r\nhalf", Garbage]))}
        )
     || Garbage <- ["XX", "\r\nX\r\n", "\r\n-1\r\n", "\r\n\r\n", "\r\n11111111111111111\r\n"]
    ].

head_at_the_limit(Config) ->
    Max = 16384,
    Start = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: ",
    Fill = Max - length(Start) - 4,
    Head = fun(Extra) ->
        [Start, binary:copy(<<"x">>, Fill + Extra), "\r\n\r\n"]
    end,
    Answer = fun(Bytes) ->
        start(Config, http_peers:serve(fun(Conn) ->
            _ = http_peers:request(Conn),
            _ = http_peers:send(Conn, Bytes),
            http_peers:drain(Conn)
        end), #{max_head_bytes => Max}),
        answer(request(get_request()))
    end,
    ?assertEqual(Max, iolist_size(Head(0))),
    ?assertMatch({200, _, {done, <<>>}}, Answer(Head(0))),
    ?assertEqual({failed, failure()}, Answer(Head(1))),
    Endless = [Start, binary:copy(<<"x">>, 4 * Max)],
    ?assertEqual({failed, failure()}, Answer(Endless)).

%% On a connection that was used before, whose server closes it instead of answering. The path
%% sends it again, or tells that it may be sent again.
reused_and_closed_is_sent_again(Config) ->
    start(Config, http_peers:serve(fun once/1)),
    {200, _, {done, _}} = answer(request(get_request())),
    case answer(request(get_request())) of
        {200, _, {done, _}} ->
            ?assertEqual([opened, gone, opened], told());
        {failed, Failure} ->
            ?assertEqual(#{reason => closed, safe => true}, Failure),
            ?assertEqual([opened, gone], told())
    end.

reused_and_closed_is_reported(Config) ->
    start(Config, http_peers:serve(fun once/1)),
    {200, _, {done, _}} = answer(request(get_request())),
    {failed, Failure} = answer(request(post(<<"x">>))),
    ?assertMatch(#{reason := closed, safe := false}, Failure),
    ?assertEqual([opened, gone], told()).

%% Answers one request and reads another.
once(Conn) ->
    #{line := _} = http_peers:request(Conn),
    _ = http_peers:answer(Conn, {200, <<>>}),
    case http_peers:request(Conn) of
        closed ->
            ok;
        _ ->
            ok = http_peers:tell(Conn, gone),
            http_peers:close(Conn)
    end.

refused(Config) ->
    start(Config, test_socket:free_port()),
    ?assertEqual({failed, #{reason => refused, safe => true}}, answer(request(post(<<"x">>)))),
    counts(#{connections => 0, active => 0}).

black_hole(Config) ->
    start(Config, test_socket:black_hole(), #{connect_timeout_ms => 100}),
    ?assertEqual({failed, #{reason => timeout, safe => true}}, answer(request(post(<<"x">>)))),
    start(Config, test_socket:black_hole()),
    Id = request((post(<<"x">>))#{timeout_ms := 100}),
    ?assertEqual({failed, #{reason => timeout, safe => true}}, answer(Id)),
    counts(#{connections => 0, active => 0}).

no_such_name(Config) ->
    Origin = #{scheme => http, host => <<"no-such-name.invalid">>, port => 80},
    open(Config, Origin, #{}),
    ?assertMatch({failed, #{safe := true}}, answer(request(get_request()))).

%% Ends.

owner_ends(Config) ->
    Module = module(Config),
    Port = http_peers:serve(fun silent/1),
    {Owner, Monitor} = spawn_monitor(fun() ->
        start(Config, Port),
        _ = [request(get_request()) || _ <- [1, 2]],
        absorbing(Module)
    end),
    Servers = [teller(asked), teller(asked)],
    exit(Owner, kill),
    receive
        {'DOWN', Monitor, process, _, killed} -> ok
    end,
    ?assertEqual(lists:sort(Servers), lists:sort([teller(closed), teller(closed)])).

absorbing(Module) ->
    receive
        Msg -> absorb(Msg)
    end,
    absorbing(Module).

close_ends_everything(Config) ->
    start(Config, http_peers:serve(fun silent/1), #{max_connections => 2, protocols => [http1]}),
    _ = [request(get_request()) || _ <- [1, 2, 3]],
    Servers = [teller(asked), teller(asked)],
    ok = (module(Config)):close(erase(client)),
    Closed = [receive {peer, Pid, closed} -> Pid after ?WAIT -> ct:fail(open) end || _ <- [1, 2]],
    ?assertEqual(lists:sort(Servers), lists:sort(Closed)),
    receive
        {peer, _, asked} -> ct:fail(sent_after_close)
    after 50 -> ok
    end.

options_and_files(Config) ->
    Https = #{scheme => https, host => <<"localhost">>, port => 1},
    Missing = #{cacertfile => <<"/nonexistent">>},
    ?assertEqual({error, {tls, bad_file}}, try_open(Config, Https, #{tls => Missing})),
    Unfit = #{scheme => http, host => <<"a b\r\n">>, port => 1},
    ?assertMatch({error, _}, try_open(Config, Unfit, #{})).

%% TLS.

tls(Config) ->
    Port = http_peers:serve(fun http_peers:echo/1, #{tls => server(Config, "server")}),
    secure(Config, <<"localhost">>, Port),
    {200, _, {done, <<"hello">>}} = answer(request(post(<<"hello">>))),
    {200, _, {done, <<"again">>}} = answer(request(post(<<"again">>))),
    ?assertEqual([opened], told()),
    secure(Config, <<"127.0.0.1">>, Port),
    {200, _, {done, <<"hello">>}} = answer(request(post(<<"hello">>))).

tls_names_server_and_protocol(Config) ->
    Tls = [{alpn_preferred_protocols, [<<"http/1.1">>]} | server(Config, "server")],
    Port = http_peers:serve(fun(#{socket := Socket} = Conn) ->
        {ok, [{sni_hostname, Name}]} = ssl:connection_information(Socket, [sni_hostname]),
        ok = http_peers:tell(Conn, {ssl:negotiated_protocol(Socket), Name}),
        http_peers:echo(Conn)
    end, #{tls => Tls}),
    secure(Config, <<"localhost">>, Port),
    {200, _, {done, <<"hello">>}} = answer(request(post(<<"hello">>))),
    ?assertEqual([opened, {{ok, <<"http/1.1">>}, "localhost"}], told()).

tls_certificates(Config) ->
    [
        ?assertEqual({Name, {failed, #{reason => {tls, Reason}, safe => true}}}, {Name, Answer})
     || {Name, Reason} <- [
            {"other", hostname_mismatch}, {"self", unknown_ca}, {"expired", certificate_expired}
        ],
        Answer <- [answer_by(Config, Name, #{cacertfile => file(Config, "ca.pem")})]
    ],
    {failed, #{reason := {tls, unknown_ca}}} =
        answer_by(Config, "server", #{cacertfile => file(Config, "other_ca.pem")}),
    {200, _, {done, <<"x">>}} = answer_by(Config, "self", #{verify => none}),
    %% Verification is what happens if nothing is said; a machine without any roots says so first.
    Port = http_peers:serve(fun http_peers:echo/1, #{tls => server(Config, "server")}),
    case try_open(Config, origin(https, <<"localhost">>, Port), #{}) of
        ok ->
            ?assertMatch(
                {failed, #{reason := {tls, unknown_ca}, safe := true}},
                answer(request(post(<<"x">>)))
            );
        {error, Reason} ->
            ?assertEqual({tls, bad_file}, Reason)
    end.

answer_by(Config, Certificate, Tls) ->
    Port = http_peers:serve(fun http_peers:echo/1, #{tls => server(Config, Certificate)}),
    open(Config, origin(https, <<"localhost">>, Port), #{tls => Tls}),
    answer(request(post(<<"x">>))).

tls_plain_peer(Config) ->
    Port = http_peers:serve(fun(Conn) -> http_peers:send(Conn, "HTTP/1.1 400 No\r\n\r\n") end),
    secure(Config, <<"localhost">>, Port),
    ?assertMatch({failed, #{safe := true}}, answer(request(get_request()))).

tls_silent_peer(Config) ->
    Port = http_peers:serve(fun(Conn) -> http_peers:drain(Conn) end),
    open(Config, origin(https, <<"localhost">>, Port), #{
        tls => #{cacertfile => file(Config, "ca.pem")}, handshake_timeout_ms => 100
    }),
    Answer = answer(request(get_request())),
    ?assertEqual({failed, #{reason => {tls, timeout}, safe => true}}, Answer),
    _ = teller(closed).

tls_cancel_in_the_upload(Config) ->
    Port = http_peers:serve(fun(Conn) ->
        _ = http_peers:head(Conn),
        ok = http_peers:tell(Conn, stuck),
        ok = http_peers:wait(read),
        http_peers:drain(Conn)
    end, #{tls => server(Config, "server")}),
    secure(Config, <<"localhost">>, Port),
    Id = request(post(binary:copy(<<"x">>, 32 * ?MIB))),
    Server = teller(stuck),
    cancel(Id),
    Server ! read,
    ?assertEqual(Server, teller(closed)),
    ?assertEqual([], events()),
    counts(#{active => 0, queued => 0}).

tls_in_bulk(Config) ->
    Port = http_peers:serve(fun http_peers:echo/1, #{tls => server(Config, "server")}),
    secure(Config, <<"localhost">>, Port),
    Body = rand:bytes(5 * ?MIB),
    {200, _, {done, Got}} = answer(request(post(Body))),
    ?assert(Body =:= Got).

%% Proxies.

proxy_for_http(Config) ->
    Proxy = http_peers:proxy(<<>>),
    open(Config, origin(http, <<"origin.invalid">>, 8080), #{
        proxy => #{host => <<"127.0.0.1">>, port => Proxy, authorization => <<"Basic eDp5">>}
    }),
    Request = (get_request())#{target := <<"/a?b">>},
    {200, _, {done, <<"from the proxy">>}} = answer(request(Request)),
    {200, _, {done, <<"from the proxy">>}} = answer(request(Request)),
    [opened, Seen, Again] = told(),
    ?assertMatch(#{line := <<"GET http://origin.invalid:8080/a?b HTTP/1.1">>}, Seen),
    ?assertEqual(<<"origin.invalid:8080">>, header(<<"host">>, Seen)),
    ?assertEqual(<<"Basic eDp5">>, header(<<"proxy-authorization">>, Seen)),
    ?assertEqual(Seen, Again).

proxy_for_https(Config) ->
    Established = <<"HTTP/1.0 200 Connection established\r\nVia: test\r\n\r\n">>,
    Proxy = http_peers:proxy(Established),
    Port = http_peers:serve(fun(Conn) ->
        ok = http_peers:tell(Conn, http_peers:request(Conn)),
        http_peers:answer(Conn, {200, <<"through">>})
    end, #{tls => server(Config, "server")}),
    open(Config, origin(https, <<"localhost">>, Port), #{
        proxy => #{host => <<"127.0.0.1">>, port => Proxy, authorization => <<"Basic eDp5">>},
        tls => #{cacertfile => file(Config, "ca.pem")}
    }),
    {200, _, {done, <<"through">>}} = answer(request(get_request())),
    Authority = iolist_to_binary(["localhost:", integer_to_list(Port)]),
    [opened, Connect, opened, Get] = told(),
    ?assertEqual(<<"CONNECT ", Authority/binary, " HTTP/1.1">>, maps:get(line, Connect)),
    ?assertEqual(Authority, header(<<"host">>, Connect)),
    ?assertEqual(<<"Basic eDp5">>, header(<<"proxy-authorization">>, Connect)),
    ?assertEqual(<<"GET / HTTP/1.1">>, maps:get(line, Get)),
    ?assertEqual(none, header(<<"proxy-authorization">>, Get)).

proxy_declines(Config) ->
    [
        begin
            Proxy = http_peers:serve(fun(Conn) ->
                _ = http_peers:request(Conn),
                _ = http_peers:send(Conn, Answer),
                http_peers:drain(Conn)
            end),
            open(Config, origin(https, <<"localhost">>, 443), #{
                proxy => #{host => <<"127.0.0.1">>, port => Proxy, authorization => none},
                tls => #{cacertfile => file(Config, "ca.pem")}
            }),
            {failed, Failure} = answer(request(post(<<"x">>))),
            ?assertMatch({Answer, #{safe := true}}, {Answer, Failure})
        end
     || Answer <- [
            <<"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n">>,
            <<"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 4\r\n\r\noops">>,
            <<"SSH-2.0-OpenSSH_9.2p1\r\n\r\n">>
        ]
    ].

proxy_is_gone(Config) ->
    open(Config, origin(http, <<"origin.invalid">>, 80), #{
        proxy => #{host => <<"127.0.0.1">>, port => test_socket:free_port(), authorization => none}
    }),
    ?assertEqual({failed, #{reason => refused, safe => true}}, answer(request(get_request()))).

%% Real servers.

httpd(Config) ->
    Root = filename:join(proplists:get_value(priv_dir, Config), ?MODULE_STRING ++ "_httpd"),
    ok = filelib:ensure_path(Root),
    File = rand:bytes(5 * ?MIB),
    ok = file:write_file(filename:join(Root, "file"), File),
    {ok, Httpd} = inets:start(httpd, [
        {port, 0},
        {bind_address, {127, 0, 0, 1}},
        {server_name, "httpd"},
        {server_root, Root},
        {document_root, Root}
    ]),
    [{port, Port}] = httpd:info(Httpd, [port]),
    start(Config, Port),
    Get = (get_request())#{target := <<"/file">>},
    {200, _, {done, Got}} = answer(request(Get)),
    ?assert(File =:= Got),
    {200, Headers, {done, <<>>}} = answer(request(Get#{method := <<"HEAD">>})),
    ?assertEqual(<<"5242880">>, proplists:get_value(<<"content-length">>, Headers)),
    {404, _, {done, _}} = answer(request(Get#{target := <<"/none">>})),
    counts(#{active => 0}),
    ok = inets:stop(httpd, Httpd).

cowboy(Config) ->
    Port = cowboy_listen(clear, []),
    start(Config, Port, #{protocols => [http1]}),
    cowboy_answers(),
    ok = cowboy:stop_listener(?MODULE).

cowboy_answers() ->
    Post = post(<<"hello">>),
    {200, _, {done, <<"hello">>}} = answer(request(Post#{target := <<"/echo">>})),
    Body = rand:bytes(5 * ?MIB),
    {200, _, {done, Echoed}} = answer(request((post(Body))#{target := <<"/echo">>})),
    ?assert(Body =:= Echoed),
    Stream = (get_request())#{target := <<"/stream">>},
    {200, Headers, {done, Events}} = answer(request(Stream)),
    ?assertEqual(<<"text/event-stream">>, proplists:get_value(<<"content-type">>, Headers)),
    Expected = [["data: ", integer_to_list(N), "\n\n"] || N <- lists:seq(1, 100)],
    ?assertEqual(iolist_to_binary(Expected), Events),
    {204, _, {done, <<>>}} = answer(request((get_request())#{target := <<"/none">>})).

cowboy_listen(Kind, Tcp) ->
    Dispatch = cowboy_router:compile([{'_', [{'_', ?MODULE, self()}]}]),
    Options = [{ip, {127, 0, 0, 1}}, {port, 0} | Tcp],
    Env = #{env => #{dispatch => Dispatch}},
    {ok, _} =
        case Kind of
            clear -> cowboy:start_clear(?MODULE, Options, Env);
            tls -> cowboy:start_tls(?MODULE, Options, Env)
        end,
    ranch:get_port(?MODULE).

%% A cowboy handler.
init(Req0, Test) ->
    Req =
        case cowboy_req:path(Req0) of
            <<"/echo">> ->
                {ok, Body, Read} = whole_body(Req0, []),
                cowboy_req:reply(200, #{}, Body, Read);
            <<"/stream">> ->
                Head = #{<<"content-type">> => <<"text/event-stream">>},
                Streaming = cowboy_req:stream_reply(200, Head, Req0),
                [
                    cowboy_req:stream_body(["data: ", integer_to_list(N), "\n\n"], nofin, Streaming)
                 || N <- lists:seq(1, 100)
                ],
                ok = cowboy_req:stream_body(<<>>, fin, Streaming),
                Streaming;
            <<"/gate">> ->
                Test ! {peer, self(), {gate, element(2, cowboy_req:peer(Req0))}},
                receive
                    go -> cowboy_req:reply(200, #{}, <<"ok">>, Req0)
                end;
            <<"/none">> ->
                cowboy_req:reply(204, Req0)
        end,
    {ok, Req, Test}.

whole_body(Req0, Acc) ->
    case cowboy_req:read_body(Req0) of
        {more, Part, Req} -> whole_body(Req, [Acc, Part]);
        {ok, Part, Req} -> {ok, [Acc, Part], Req}
    end.

many_requests(Config) ->
    start(Config, http_peers:serve(fun http_peers:echo/1), #{max_connections => 8}),
    Ids = [{request(post(integer_to_binary(N))), integer_to_binary(N)} || N <- lists:seq(1, 500)],
    [?assertMatch({200, _, {done, Body}}, answer(Id)) || {Id, Body} <- Ids],
    counts(#{active => 0, queued => 0}).

anything_goes(Config) ->
    Port = http_peers:serve(fun http_client_chaos:serve/1),
    Options = #{max_connections => 5, max_queue => 20, idle_timeout_ms => 20},
    start(Config, Port, Options#{protocols => [http1]}),
    _ = rand:seed(exsss),
    ct:log("~p", [rand:export_seed()]),
    {Ended, Client} = http_client_chaos:run(module(Config), get(client), 4000),
    put(client, Client),
    ?assert(Ended > 100, Ended),
    ok = quiet(50),
    counts(#{active => 0, queued => 0}).

%% HTTP/2, on the path that has it.

http2_over_tls(Config) ->
    Port = cowboy_listen(tls, server(Config, "server")),
    secure(Config, <<"localhost">>, Port),
    cowboy_answers(),
    ok = cowboy:stop_listener(?MODULE).

http2_by_prior_knowledge(Config) ->
    Port = cowboy_listen(clear, []),
    start(Config, Port, #{protocols => [http2]}),
    cowboy_answers(),
    ok = cowboy:stop_listener(?MODULE).

http2_requests_share_a_connection(Config) ->
    Port = cowboy_listen(clear, []),
    start(Config, Port, #{protocols => [http2]}),
    Gate = (get_request())#{target := <<"/gate">>},
    Ids = [request(Gate) || _ <- lists:seq(1, 20)],
    Gates = [tale(fun({Pid, {gate, From}}) -> {ok, {Pid, From}}; (_) -> no end) || _ <- Ids],
    ?assertMatch([_], lists:usort([From || {_, From} <- Gates])),
    {Cancelled, [Kept | _]} = lists:split(10, Ids),
    [cancel(Id) || Id <- Cancelled],
    [Pid ! go || {Pid, _} <- Gates],
    {200, _, {done, <<"ok">>}} = answer(Kept),
    [{200, _, {done, <<"ok">>}} = answer(Id) || Id <- lists:nthtail(11, Ids)],
    ok = cowboy:stop_listener(?MODULE).

http1_only(Config) ->
    Error = {error, {path_unavailable, beam, http2}},
    Origin = origin(http, <<"127.0.0.1">>, 1),
    ?assertEqual(Error, try_open(Config, Origin, #{protocols => [http2]})),
    ok = try_open(Config, Origin, #{protocols => [http1, http2]}).

%% The client, kept in the process dictionary, and what has come for it.

start(Config, Port) ->
    start(Config, Port, #{}).

start(Config, Port, Options) ->
    open(Config, origin(http, <<"127.0.0.1">>, Port), Options).

%% With a server that reads a request before it does this.
serving(Config, Script) ->
    serving(Config, Script, #{}).

serving(Config, Script, Options) ->
    Port = http_peers:serve(fun(Conn) ->
        _ = http_peers:request(Conn),
        Script(Conn)
    end),
    start(Config, Port, Options).

secure(Config, Host, Port) ->
    open(Config, origin(https, Host, Port), #{tls => #{cacertfile => file(Config, "ca.pem")}}).

origin(Scheme, Host, Port) ->
    #{scheme => Scheme, host => Host, port => Port}.

open(Config, Origin, Options) ->
    ok = try_open(Config, Origin, Options).

%% One client at a time.
try_open(Config, Origin, Options) ->
    Module = module(Config),
    put(module, Module),
    _ = [Module:close(Client) || Client <- [erase(client)], Client =/= undefined],
    {ok, Checked} = erlmcp_native_http_options:client(Options),
    case Module:open(Origin, Checked) of
        {ok, Client} ->
            put(client, Client),
            put(events, []),
            put(tales, []),
            ok;
        {error, _} = Error ->
            Error
    end.

get_request() ->
    #{
        method => <<"GET">>,
        target => <<"/">>,
        headers => [],
        body => none,
        timeout_ms => ?WAIT,
        total_timeout_ms => infinity
    }.

post(Body) ->
    (get_request())#{
        method := <<"POST">>,
        headers := [{<<"content-type">>, <<"application/json">>}],
        body := Body
    }.

request(Request) ->
    case (get(module)):request(Request, get(client)) of
        {ok, Id, Client} ->
            put(client, Client),
            Id;
        {error, Reason, Client} ->
            put(client, Client),
            {error, Reason}
    end.

take(Id) -> take(Id, 65536).

take(Id, Max) ->
    {Parts, Status, Client} = (get(module)):take(Id, Max, get(client)),
    put(client, Client),
    {Parts, Status}.

cancel(Id) ->
    put(client, (get(module)):cancel(Id, get(client))),
    put(events, [E || E <- get(events), element(2, E) =/= Id]).

%% Comes to have these counts. A peer may see the end of a connection before it is counted.
counts(Counts) -> counts(Counts, 500).

counts(Counts, Tries) ->
    case maps:with(maps:keys(Counts), info()) of
        Counts ->
            ok;
        _ when Tries > 0 ->
            ok = quiet(10),
            counts(Counts, Tries - 1);
        Other ->
            ?assertEqual(Counts, Other)
    end.

info() -> (get(module)):info(get(client)).

%% The whole of an answer.
answer(Id) ->
    case event(Id) of
        {head, Id, Status, Headers} -> {Status, Headers, body(Id)};
        {failed, Id, Failure} -> {failed, Failure}
    end.

body(Id) ->
    {readable, Id} = event(Id),
    body(Id, []).

body(Id, Acc) ->
    case take(Id) of
        {Parts, more} ->
            body(Id, [Acc, Parts]);
        {Parts, armed} ->
            {readable, Id} = event(Id),
            body(Id, [Acc, Parts]);
        {Parts, done} ->
            {done, iolist_to_binary([Acc, Parts])};
        {Parts, {failed, Failure}} ->
            {failed, Failure, iolist_to_binary([Acc, Parts])}
    end.

%% The next event of a request.
event(Id) ->
    await(events, fun(Event) ->
        case element(2, Event) of
            Id -> {ok, Event};
            _ -> no
        end
    end).

%% All events that have come.
events() -> get(events).

%% The next server that tells this.
teller(What) ->
    tale(fun
        ({Pid, Told}) when Told =:= What -> {ok, Pid};
        (_) -> no
    end).

tale(Pick) -> await(tales, Pick).

%% Takes what servers have told.
told() -> [What || {_, What} <- tellers()].

tellers() ->
    ok = quiet(0),
    put(tales, []).

await(Kind, Pick) ->
    case pick(Pick, get_list(Kind), []) of
        {ok, Value, Rest} ->
            put(Kind, Rest),
            Value;
        no ->
            receive
                Msg -> absorb(Msg)
            after ?WAIT -> ct:fail({nothing, Kind, get(events), get(tales)})
            end,
            await(Kind, Pick)
    end.

pick(Pick, [First | Rest], Before) ->
    case Pick(First) of
        {ok, Value} -> {ok, Value, lists:reverse(Before, Rest)};
        no -> pick(Pick, Rest, [First | Before])
    end;
pick(_, [], _) ->
    no.

%% Lets come what comes for so long.
serving(Ms) ->
    Timer = erlang:start_timer(Ms, self(), enough),
    serving_until(Timer).

serving_until(Timer) ->
    receive
        {timeout, Timer, enough} ->
            ok;
        Msg ->
            absorb(Msg),
            serving_until(Timer)
    end.

%% Lets come what comes, until nothing does for so long.
quiet(Ms) ->
    receive
        Msg ->
            absorb(Msg),
            quiet(Ms)
    after Ms -> ok
    end.

absorb({peer, Pid, What}) ->
    put(tales, get_list(tales) ++ [{Pid, What}]);
absorb(Msg) ->
    case (get(module)):handle_info(Msg, get(client)) of
        {Events, Client} ->
            put(client, Client),
            put(events, get_list(events) ++ Events);
        unknown ->
            %% A notice of what was closed may have been on its way.
            ok
    end.

get_list(Key) ->
    case get(Key) of
        undefined -> [];
        List -> List
    end.

module(Config) -> proplists:get_value(module, Config).

server(Config, Name) ->
    [{certfile, file(Config, Name ++ ".pem")}, {keyfile, file(Config, Name ++ ".key")}].
