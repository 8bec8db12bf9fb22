%% The contract of erlmcp_native_http_path, over real sockets and on every path. The test process
%% is the owner of its listeners.
-module(http_path_SUITE).

-compile([export_all, nowarn_export_all, {no_auto_import, [get/1]}]).

-include_lib("stdlib/include/assert.hrl").

-import(http_raw, [ask/2, answer/1, answer/2, head/1, part/1, rest/1, ended/1, post/1, get/1]).
-import(test_certs, [file/2]).
-import(test_wait, [reason/1, until/1]).

-define(WAIT, 10000).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [
        {nif, cases()},
        {port, cases()},
        {beam, cases() ++ beam_cases()}
    ].

cases() ->
    [
        request_as_it_is_given,
        target_of_every_form,
        body_in_the_same_segment,
        body_that_comes_later,
        body_larger_than_what_is_given_at_once,
        chunked_body,
        chunked_body_byte_by_byte,
        client_is_asked_for_the_body,
        client_is_not_asked_for_the_body,
        body_that_nobody_reads,
        keep_alive,
        pipelined_requests_in_order,
        connection_close,
        version_1_0,
        answers_without_a_body,
        answer_of_many_parts,
        answer_once,
        headers_that_are_not_the_callers,
        target_at_the_limit,
        header_at_the_limit,
        headers_at_the_limit,
        length_at_the_limit,
        chunks_at_the_limit,
        slow_head,
        slow_body,
        impatient_reader,
        idle_connection,
        half_a_head_and_no_more,
        refuses_what_could_smuggle,
        refuses_bad_chunks,
        connections_at_the_limit,
        connections_of_one_peer,
        requests_at_the_limit,
        streams_at_the_limit,
        stream_parts_arrive_at_once,
        stream_for_version_1_0,
        stream_without_a_body,
        stream_keeps_the_connection,
        peer_that_does_not_read,
        peer_that_does_not_read_an_answer,
        peer_that_reads_slowly,
        peer_that_never_reads,
        killed_before_the_answer,
        killed_in_mid_stream,
        killed_in_mid_stream_for_version_1_0,
        status_of_an_exit,
        gone_as_a_notice,
        gone_as_an_exit,
        gone_in_mid_stream,
        gone_by_reset,
        gone_while_the_body_comes,
        owner_ends,
        close_ends_all,
        drain_closes_what_is_idle,
        drain_waits_for_requests,
        drain_cuts_off,
        many_connections_closed_at_once,
        address_in_use,
        unix_domain_socket,
        two_listeners,
        tls,
        tls_stream,
        tls_client_gone,
        tls_protocols,
        tls_bad_handshake
    ].

%% What only the path beam promises, or where it differs.
beam_cases() ->
    [preface_of_another_version, idle_connection_hibernates, garbage].

init_per_suite(Config) ->
    test_config:start([erlmcp_native, ssl], test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_http_path, Path, Config).

end_per_group(_, _) -> ok.

%% Requests

request_as_it_is_given(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    ok = http_raw:send(Client, [
        "POST /mcp?a=%20b&c HTTP/1.1\r\n",
        "Host: localhost:1234\r\nX-Mixed_Case: \t  two words \t\r\nEMPTY:\r\n",
        "repeated: 1\r\nrepeated: 2\r\nContent-Length: 2\r\n\r\nhi"
    ]),
    {_, Exchange, Request} = request(),
    #{headers := Headers, peername := {{127, 0, 0, 1}, _}} = Request,
    ?assertMatch(
        #{
            method := <<"POST">>,
            path := <<"/mcp">>,
            query := <<"a=%20b&c">>,
            version := {1, 1},
            scheme := http,
            body := {complete, <<"hi">>}
        },
        Request
    ),
    ?assertEqual(
        [
            {<<"host">>, <<"localhost:1234">>},
            {<<"x-mixed_case">>, <<"two words">>},
            {<<"empty">>, <<>>},
            {<<"repeated">>, <<"1">>},
            {<<"repeated">>, <<"2">>},
            {<<"content-length">>, <<"2">>}
        ],
        Headers
    ),
    Own = [{<<"x-own">>, [<<"a">>, "b"]}],
    then(Exchange, fun(X) -> reply(X, 200, Own, ["an", <<"swer">>]) end),
    {200, Answered, <<"answer">>} = answer(Client),
    ?assertEqual({<<"x-own">>, <<"ab">>}, lists:keyfind(<<"x-own">>, 1, Answered)),
    {_, Date} = lists:keyfind(<<"date">>, 1, Answered),
    ?assertEqual(29, byte_size(Date)).

target_of_every_form(Config) ->
    Server = listen(Config, #{}, fun(X, #{path := Path, query := Query, headers := Headers}) ->
        {_, Host} = lists:keyfind(<<"host">>, 1, Headers),
        reply(X, 200, [], [Path, " ", Query, " ", Host])
    end),
    Client = connect(Server),
    Given = fun(Line) -> ask(Client, [Line, " HTTP/1.1\r\nhost: field\r\n\r\n"]) end,
    ?assertMatch({200, _, <<"/  field">>}, Given("GET /")),
    ?assertMatch({200, _, <<"/a/b q=1 field">>}, Given("GET /a/b?q=1")),
    ?assertMatch({200, _, <<"/  field">>}, Given("GET /?")),
    ?assertMatch({200, _, <<"/a q target:8">>}, Given("GET http://target:8/a?q")),
    ?assertMatch({200, _, <<"/  target">>}, Given("GET http://target")).

body_in_the_same_segment(Config) ->
    Client = connect(listen(Config, #{}, fun echo/2)),
    Bodies = [<<>>, <<"1">>, binary:copy(<<"k">>, 1024)],
    [?assertMatch({200, _, Body}, ask(Client, post(Body))) || Body <- Bodies].

body_that_comes_later(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 6\r\n\r\n"),
    {_, Exchange, #{body := pending}} = request(),
    then(Exchange, fun(X) -> echo(X, #{body => pending}) end),
    ok = http_raw:send(Client, "thr"),
    ok = http_raw:send(Client, "ice"),
    ?assertMatch({200, _, <<"thrice">>}, answer(Client)).

body_larger_than_what_is_given_at_once(Config) ->
    Server = listen(Config, #{}, fun(X, #{body := pending} = Request) -> echo(X, Request) end),
    Client = connect(Server),
    [
        begin
            Body = binary:copy(<<"0123456789abcdef">>, Size div 16),
            ?assertMatch({200, _, Body}, ask(Client, post(Body)))
        end
     || Size <- [65536 + 16, 1048576, 8 * 1048576]
    ].

chunked_body(Config) ->
    Client = connect(listen(Config, #{}, fun echo/2)),
    Ask = fun(Body) -> ask(Client, [chunked_head(), Body]) end,
    ?assertMatch({200, _, <<>>}, Ask("0\r\n\r\n")),
    ?assertMatch({200, _, <<"hello world">>}, Ask("5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")),
    ?assertMatch({200, _, <<"0123456789">>}, Ask("00A;x=\"y\"\r\n0123456789\r\n000\r\n\r\n")),
    ?assertMatch({200, _, <<"t">>}, Ask("1\r\nt\r\n0\r\ntrailer: dropped\r\n\r\n")).

chunked_body_byte_by_byte(Config) ->
    Client = connect(listen(Config, #{}, fun echo/2)),
    Request = iolist_to_binary([chunked_head(), "5;e\r\nhello\r\n0\r\nt: v\r\n\r\n"]),
    [ok = http_raw:send(Client, <<Byte>>) || <<Byte>> <= Request],
    ?assertMatch({200, _, <<"hello">>}, answer(Client)),
    ?assertMatch({200, _, <<"next">>}, ask(Client, post("next"))).

client_is_asked_for_the_body(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    ok = http_raw:send(Client, expecting(5)),
    {_, Exchange, #{body := pending}} = request(),
    then(Exchange, fun(X) -> echo(X, #{body => pending}) end),
    ?assertMatch({100, []}, head(Client)),
    ?assertMatch({200, _, <<"asked">>}, ask(Client, "asked")).

client_is_not_asked_for_the_body(Config) ->
    Client = connect(listen(Config, #{}, fun(X, _) -> reply(X, 403, [], <<"no">>) end)),
    ?assertMatch({403, _, <<"no">>}, ask(Client, expecting(5))),
    %% Whether the body follows cannot be known.
    ?assert(ended(Client)).

body_that_nobody_reads(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1000000\r\n\r\n"),
    {_, Exchange, _} = request(),
    then(Exchange, fun(X) -> reply(X, 404, [], <<"nothing">>) end),
    %% The answer reaches a client that goes on sending.
    _ = [http_raw:send(Client, binary:copy(<<"x">>, 1000)) || _ <- lists:seq(1, 100)],
    ?assertMatch({404, _, <<"nothing">>}, answer(Client)).

%% Connections

keep_alive(Config) ->
    Server = listen(Config, #{}, fun echo/2),
    Client = connect(Server),
    [?assertMatch({200, _, <<"again">>}, ask(Client, post("again"))) || _ <- lists:seq(1, 200)],
    ?assertMatch(#{connections := 1, requests := 0}, info(Server)).

pipelined_requests_in_order(Config) ->
    Client = connect(listen(Config, #{}, fun echo/2)),
    Bodies = [integer_to_binary(N) || N <- lists:seq(1, 100)],
    ok = http_raw:send(Client, [post(Body) || Body <- Bodies]),
    ?assertEqual(Bodies, [element(3, answer(Client)) || _ <- Bodies]).

connection_close(Config) ->
    Client = connect(listen(Config, #{}, fun echo/2)),
    Request = "POST / HTTP/1.1\r\nhost: h\r\nconnection: x, Close\r\ncontent-length: 1\r\n\r\nc",
    {200, Headers, <<"c">>} = ask(Client, Request),
    ?assertEqual({<<"connection">>, <<"close">>}, lists:keyfind(<<"connection">>, 1, Headers)),
    ?assert(ended(Client)).

version_1_0(Config) ->
    Server = listen(Config, #{}, fun(X, #{version := {1, 0}} = Request) -> echo(X, Request) end),
    Client = connect(Server),
    Request = "POST / HTTP/1.0\r\ncontent-length: 3\r\n\r\nold",
    ?assertMatch({200, _, <<"old">>}, ask(Client, Request)),
    ?assert(ended(Client)).

answers_without_a_body(Config) ->
    Server = listen(Config, #{}, fun(X, #{path := <<"/", Status/binary>>}) ->
        reply(X, binary_to_integer(Status), [], <<"body">>)
    end),
    Client = connect(Server),
    ok = http_raw:send(Client, "HEAD /200 HTTP/1.1\r\nhost: h\r\n\r\n"),
    {200, Headers, none} = answer(Client, no_body),
    ?assertEqual({<<"content-length">>, <<"4">>}, lists:keyfind(<<"content-length">>, 1, Headers)),
    {204, NoContent, none} = ask(Client, get("/204")),
    ?assertEqual(false, lists:keyfind(<<"content-length">>, 1, NoContent)),
    ?assertEqual(false, lists:keyfind(<<"transfer-encoding">>, 1, NoContent)),
    ?assertMatch({304, _, none}, ask(Client, get("/304"))),
    ?assertMatch({200, _, <<"body">>}, ask(Client, get("/200"))).

answer_of_many_parts(Config) ->
    Part = binary:copy(<<"p">>, 10000),
    Server = listen(Config, #{}, fun(X, _) ->
        reply(X, 200, [], [[Part, $x], "text", [[], <<>>, Part]])
    end),
    Expected = <<Part/binary, "xtext", Part/binary>>,
    ?assertMatch({200, _, Expected}, ask(connect(Server), get("/"))).

answer_once(Config) ->
    Test = self(),
    Server = listen(Config, #{}, fun(X, _) ->
        ok = reply(X, 200, [], <<"first">>),
        Test ! {self(), [
            reply(X, 200, [], <<"second">>),
            erlmcp_native_http_path:stream(X, 200, []),
            erlmcp_native_http_path:send(X, <<"part">>),
            erlmcp_native_http_path:finish(X),
            erlmcp_native_http_path:read_body(X, 0)
        ]}
    end),
    Client = connect(Server),
    ?assertMatch({200, _, <<"first">>}, ask(Client, get("/"))),
    receive
        {_, Results} -> ?assertEqual(lists:duplicate(5, {error, closed}), Results)
    after ?WAIT -> ct:fail(no_results)
    end,
    ?assertMatch({200, _, <<"first">>}, ask(Client, get("/"))).

%% A header that would be more than one is the caller's defect, and costs the caller alone.
headers_that_are_not_the_callers(Config) ->
    Server = listen(Config, #{}, fun
        (X, #{path := <<"/line">>}) -> reply(X, 200, [{<<"a">>, <<"b\r\nc: d">>}], <<>>);
        (X, #{path := <<"/name">>}) -> reply(X, 200, [{<<"a: b">>, <<"c">>}], <<>>);
        (X, #{path := <<"/own">>}) -> reply(X, 200, [{<<"content-length">>, <<"9">>}], <<>>);
        (X, #{path := <<"/status">>}) -> reply(X, 102, [], <<>>);
        (X, _) -> reply(X, 200, [], <<>>)
    end),
    Client = connect(Server),
    ?assertMatch({500, _, _}, ask(Client, get("/line"))),
    ?assertMatch({500, _, _}, ask(Client, get("/name"))),
    ?assertMatch({500, _, _}, ask(Client, get("/own"))),
    ?assertMatch({500, _, _}, ask(Client, get("/status"))),
    ?assertMatch({200, _, _}, ask(Client, get("/"))).

%% Limits

target_at_the_limit(Config) ->
    Server = listen(Config, #{max_target_bytes => 100}, fun echo/2),
    around(Server, 100, 414, fun(Size) -> get(["/", text(Size - 1)]) end),
    %% A line that never ends is not waited for.
    Client = connect(Server),
    ok = http_raw:send(Client, ["GET /", text(101)]),
    ?assertMatch({414, _, _}, answer(Client)).

header_at_the_limit(Config) ->
    Server = listen(Config, #{max_header_bytes => 100}, fun echo/2),
    Name = "a-name",
    around(Server, 100, 431, fun(Size) ->
        ["GET / HTTP/1.1\r\nhost: h\r\n", Name, ": ", text(Size - length(Name)), "\r\n\r\n"]
    end),
    around(Server, 100, 431, fun(Size) ->
        ["GET / HTTP/1.1\r\nhost: h\r\n", text(Size - 1), ": v\r\n\r\n"]
    end),
    Client = connect(Server),
    ok = http_raw:send(Client, ["GET / HTTP/1.1\r\nhost: h\r\nlong: ", text(200)]),
    ?assertMatch({431, _, _}, answer(Client)).

headers_at_the_limit(Config) ->
    Server = listen(Config, #{max_headers => 20}, fun echo/2),
    around(Server, 20, 431, fun(Count) ->
        Fields = ["a: b\r\n" || _ <- lists:seq(2, Count)],
        ["GET / HTTP/1.1\r\nhost: h\r\n", Fields, "\r\n"]
    end).

length_at_the_limit(Config) ->
    Server = listen(Config, #{max_body_bytes => 1000}, fun echo/2),
    around(Server, 1000, 413, fun(Size) -> post(text(Size)) end),
    %% Refused before it comes.
    Client = connect(Server),
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 1001\r\n\r\n"),
    ?assertMatch({413, _, _}, answer(Client)).

chunks_at_the_limit(Config) ->
    Server = listen(Config, #{max_body_bytes => 1000}, fun echo/2),
    around(Server, 1000, 413, fun(Size) ->
        Rest = Size - 500,
        [
            chunked_head(),
            ["1f4\r\n", text(500), "\r\n", integer_to_list(Rest, 16), "\r\n", text(Rest), "\r\n"],
            "0\r\n\r\n"
        ]
    end).

%% Under the limit and at it there is an answer, over it the refusal, and the connection ends. Each
%% is served as the second request too.
around(Server, Limit, Status, Request) ->
    Client = connect(Server),
    ?assertMatch({200, _, _}, ask(Client, Request(Limit - 1))),
    ?assertMatch({200, _, _}, ask(Client, Request(Limit))),
    ?assertMatch({Status, _, _}, ask(Client, Request(Limit + 1))),
    ?assert(ended(Client)),
    Fresh = connect(Server),
    ?assertMatch({Status, _, _}, ask(Fresh, Request(Limit + 1))),
    ?assert(ended(Fresh)).

%% Times

slow_head(Config) ->
    Server = listen(Config, #{header_timeout_ms => 100, idle_timeout_ms => 60000}, fun echo/2),
    Client = connect(Server),
    ?assertMatch({200, _, _}, ask(Client, post("fast"))),
    ok = http_raw:send(Client, "GET / HTTP/1.1\r\nhost: h\r\n"),
    ?assertMatch({408, _, _}, answer(Client)),
    ?assert(ended(Client)).

slow_body(Config) ->
    Server = listen(Config, #{body_timeout_ms => 100}, fun(X, _) ->
        {error, timeout} = erlmcp_native_http_path:read_body(X, infinity),
        reply(X, 408, [], <<"too slow">>)
    end),
    Client = connect(Server),
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n1"),
    ?assertMatch({408, _, <<"too slow">>}, answer(Client)),
    ?assert(ended(Client)).

%% The reader's patience is not the client's time.
impatient_reader(Config) ->
    Server = listen(Config, #{}, fun(X, _) ->
        {error, timeout} = erlmcp_native_http_path:read_body(X, 10),
        reply(X, 503, [], <<"later">>)
    end),
    Client = connect(Server),
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n1"),
    ?assertMatch({503, _, <<"later">>}, answer(Client)).

idle_connection(Config) ->
    Server = listen(Config, #{idle_timeout_ms => 100}, fun echo/2),
    Used = connect(Server),
    ?assertMatch({200, _, _}, ask(Used, post("once"))),
    Unused = connect(Server),
    ?assert(ended(Used)),
    ?assert(ended(Unused)),
    comes_to(Server, #{connections => 0}).

half_a_head_and_no_more(Config) ->
    Server = listen(Config, #{}, fun echo/2),
    Client = connect(Server),
    ok = http_raw:send(Client, "GET / HT"),
    ok = http_raw:close(Client),
    ?assertMatch({200, _, <<"other">>}, ask(connect(Server), post("other"))),
    comes_to(Server, #{connections => 1}).

%% Refusals

refuses_what_could_smuggle(Config) ->
    Server = listen(Config, #{}, fun echo/2),
    Other = connect(Server),
    Next = "GET /smuggled HTTP/1.1\r\nhost: h\r\n\r\n",
    [refused(Server, Other, [Bad, Next], Statuses) || {Statuses, Bad} <- smuggling()].

%% With one of these, and the connection ends; others go on.
refused(Server, Other, Request, Statuses) ->
    Client = connect(Server),
    ok = http_raw:send(Client, Request),
    {Got, _, _} = answer(Client),
    ?assertEqual({Request, Got, true}, {Request, Got, lists:member(Got, Statuses)}),
    ?assertEqual({Request, true}, {Request, ended(Client)}),
    ?assertMatch({200, _, <<"other">>}, ask(Other, post("other"))).

%% Of a coding that is not known and not chunked in the end RFC 9112 says both: 6.1 and 6.3.
smuggling() ->
    Post = "POST / HTTP/1.1\r\nhost: h\r\n",
    Get = "GET / HTTP/1.1\r\n",
    Chunked = "transfer-encoding: chunked\r\n",
    [
        {[400], Post ++ "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"},
        {[400], Post ++ "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n"},
        {[400], Post ++ "content-length: 3\r\ncontent-length: 4\r\n\r\nabc"},
        {[400], Post ++ "content-length: 3, 4\r\n\r\nabc"},
        {[400], Post ++ "content-length: +3\r\n\r\nabc"},
        {[400], Post ++ "content-length: -1\r\n\r\n"},
        {[400], Post ++ "content-length: 0x3\r\n\r\nabc"},
        {[400], Post ++ "content-length:\r\n\r\n"},
        {[400], Post ++ "content-length: 99999999999999999999999999\r\n\r\n"},
        {[400, 501], Post ++ "transfer-encoding: gzip\r\n\r\n"},
        {[501], Post ++ "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
        {[400, 501], Post ++ "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"},
        {[400, 501], Post ++ "transfer-encoding: identity\r\n\r\n"},
        {[400], Post ++ Chunked ++ Chunked ++ "\r\n0\r\n\r\n"},
        {[400], "POST / HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"},
        {[400], Post ++ "content-length : 3\r\n\r\nabc"},
        {[400], Post ++ "transfer-encoding : chunked\r\n\r\n0\r\n\r\n"},
        {[400], Post ++ " content-length: 3\r\n\r\nabc"},
        {[400], Post ++ "a: b\r\n continued\r\n\r\n"},
        {[400], Post ++ "a: b\r\n\tcontinued\r\n\r\n"},
        {[400], Post ++ "a: b\nc: d\r\n\r\n"},
        {[400], Post ++ "a: b\rc: d\r\n\r\n"},
        {[400], Post ++ "a: b\r\n\n"},
        {[400], "POST / HTTP/1.1\nhost: h\n\n"},
        {[400], Post ++ [$a, $:, 0] ++ "\r\n\r\n"},
        {[400], Post ++ "a: " ++ [1] ++ "\r\n\r\n"},
        {[400, 501], Post ++ "transfer-encoding: " ++ [233] ++ "\r\n\r\n"},
        {[400], Post ++ "no colon\r\n\r\n"},
        {[400], Post ++ ": no name\r\n\r\n"},
        {[400], Post ++ "na me: v\r\n\r\n"},
        {[400], Post ++ "na(me: v\r\n\r\n"},
        {[400], Post ++ "na" ++ [233] ++ "me: v\r\n\r\n"},
        {[400], Get ++ "\r\n"},
        {[400], Get ++ "host: a\r\nhost: b\r\n\r\n"},
        {[400], Get ++ "host: a\r\nhost: a\r\n\r\n"},
        {[400], Get ++ "host: a b\r\n\r\n"},
        {[400], Get ++ "host: a@b\r\n\r\n"},
        {[400], Get ++ "host: a/b\r\n\r\n"},
        {[400], "GET  / HTTP/1.1\r\nhost: h\r\n\r\n"},
        {[400], "GET /  HTTP/1.1\r\nhost: h\r\n\r\n"},
        {[400], "GET /a b HTTP/1.1\r\nhost: h\r\n\r\n"},
        {[400], "GET / HTTP/1.1 \r\nhost: h\r\n\r\n"},
        {[400], "GET / http/1.1\r\nhost: h\r\n\r\n"},
        {[400], "GET /\r\nhost: h\r\n\r\n"},
        {[400], "G(T / HTTP/1.1\r\nhost: h\r\n\r\n"},
        {[505], "GET / HTTP/2.0\r\nhost: h\r\n\r\n"},
        {[505], "GET / HTTP/0.9\r\nhost: h\r\n\r\n"}
    ].

refuses_bad_chunks(Config) ->
    Server = listen(Config, #{}, fun echo/2),
    Other = connect(Server),
    [
        refused(Server, Other, [chunked_head(), Bad], [400])
     || Bad <- [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "+1\r\na\r\n0\r\n\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "1\na\r\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\na0\r\n\r\n",
            "1;a\nb\r\na\r\n0\r\n\r\n",
            ["1;", binary:copy(<<"e">>, 20000), "\r\na\r\n0\r\n\r\n"],
            "11111111111111111\r\n",
            "0\r\nbad trailer\r\n\r\n"
        ]
    ].

preface_of_another_version(Config) ->
    Client = connect(listen(Config, #{protocols => [http1]}, fun echo/2)),
    ?assertMatch({505, _, _}, ask(Client, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")),
    ?assert(ended(Client)).

connections_at_the_limit(Config) ->
    Server = listen(Config, #{max_connections => 2}, fun echo/2),
    [First, Second] = Served = [connect(Server) || _ <- [1, 2]],
    [?assertMatch({200, _, <<"s">>}, ask(Client, post("s"))) || Client <- Served],
    %% The kernel takes it, the listener does not.
    Third = connect(Server),
    ok = http_raw:send(Third, post("waited")),
    ?assertMatch({200, _, <<"s">>}, ask(Second, post("s"))),
    ?assertMatch(#{connections := 2, requests := 0}, info(Server)),
    ok = http_raw:close(First),
    ?assertMatch({200, _, <<"waited">>}, answer(Third)).

connections_of_one_peer(Config) ->
    Server = listen(Config, #{max_connections_per_peer => 2}, fun echo/2),
    [First | _] = Served = [connect(Server) || _ <- [1, 2]],
    [?assertMatch({200, _, <<"s">>}, ask(Client, post("s"))) || Client <- Served],
    ?assert(ended(connect(Server))),
    Elsewhere = connect(Server, [{ip, {127, 0, 0, 2}}]),
    ?assertMatch({200, _, <<"s">>}, ask(Elsewhere, post("s"))),
    ok = http_raw:close(First),
    comes_to(Server, #{connections => 2}),
    ?assertMatch({200, _, <<"s">>}, ask(connect(Server), post("s"))).

requests_at_the_limit(Config) ->
    Server = listen(Config, #{max_requests => 2}, tell()),
    Waiting = [connect(Server) || _ <- [1, 2]],
    [ok = http_raw:send(Client, get("/")) || Client <- Waiting],
    Exchanges = [element(2, request()) || _ <- Waiting],
    ?assertMatch(#{requests := 2, streams := 0}, info(Server)),
    Third = connect(Server),
    {503, Headers, _} = ask(Third, get("/")),
    ?assertEqual({<<"retry-after">>, <<"1">>}, lists:keyfind(<<"retry-after">>, 1, Headers)),
    [then(X, fun(Own) -> reply(Own, 200, [], <<>>) end) || X <- Exchanges],
    [?assertMatch({200, _, _}, answer(Client)) || Client <- Waiting],
    comes_to(Server, #{requests => 0}),
    Fourth = connect(Server),
    then(exchange(Fourth), fun(Own) -> reply(Own, 200, [], <<>>) end),
    ?assertMatch({200, _, _}, answer(Fourth)).

streams_at_the_limit(Config) ->
    Server = listen(Config, #{max_streams => 1, max_requests => 1}, tell()),
    First = connect(Server),
    Exchange = streaming(First),
    %% A stream does not count as a request that waits.
    comes_to(Server, #{requests => 1, streams => 1}),
    Second = connect(Server),
    Test = self(),
    then(exchange(Second), fun(X) ->
        Test ! {result, erlmcp_native_http_path:stream(X, 200, [])}
    end),
    {503, Headers, _} = answer(Second),
    ?assertEqual({<<"retry-after">>, <<"1">>}, lists:keyfind(<<"retry-after">>, 1, Headers)),
    ?assertEqual({error, closed}, result()),
    then(Exchange, fun(X) -> ok = erlmcp_native_http_path:finish(X) end),
    ?assertEqual(done, part(First)),
    comes_to(Server, #{requests => 0, streams => 0}).

%% Streams

stream_parts_arrive_at_once(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    Exchange = exchange(Client),
    then(Exchange, fun begin_stream/1),
    {200, Headers} = head(Client),
    ?assertEqual(
        {<<"transfer-encoding">>, <<"chunked">>}, lists:keyfind(<<"transfer-encoding">>, 1, Headers)
    ),
    [
        begin
            then(Exchange, fun(X) -> ok = erlmcp_native_http_path:send(X, Part) end),
            ?assertEqual(iolist_to_binary(Part), part(Client))
        end
     || Part <- [<<"one">>, ["t", [$w | <<"o">>]], binary:copy(<<"3">>, 100000)]
    ],
    then(Exchange, fun(X) -> ok = erlmcp_native_http_path:send(X, <<>>) end),
    then(Exchange, fun(X) -> ok = erlmcp_native_http_path:finish(X) end),
    ?assertEqual(done, part(Client)).

stream_for_version_1_0(Config) ->
    Client = connect(listen(Config, #{}, fun count_to_three/2)),
    {200, Headers, Body} = ask(Client, "GET / HTTP/1.0\r\n\r\n"),
    ?assertEqual(<<"1,2,3,">>, Body),
    ?assertEqual(false, lists:keyfind(<<"transfer-encoding">>, 1, Headers)).

stream_without_a_body(Config) ->
    Client = connect(listen(Config, #{}, fun count_to_three/2)),
    ok = http_raw:send(Client, "HEAD / HTTP/1.1\r\nhost: h\r\n\r\n"),
    ?assertMatch({200, _, none}, answer(Client, no_body)),
    ?assertMatch({200, _, <<"1,2,3,">>}, ask(Client, get("/"))).

stream_keeps_the_connection(Config) ->
    Client = connect(listen(Config, #{}, fun count_to_three/2)),
    ok = http_raw:send(Client, [get("/") || _ <- lists:seq(1, 20)]),
    [?assertMatch({200, _, <<"1,2,3,">>}, answer(Client)) || _ <- lists:seq(1, 20)].

peer_that_does_not_read(Config) ->
    Max = 100000,
    Server = listen(Config, #{max_stream_bytes => Max}, tell()),
    Client = connect(Server, [{recbuf, 8192}]),
    Part = binary:copy(<<"p">>, 1000),
    Sent = fill(exchange(Client), Part),
    ?assert(Sent * 1000 >= Max),
    %% Others are served meanwhile.
    Other = connect(Server),
    then(exchange(Other), fun(X) -> reply(X, 200, [], <<"other">>) end),
    ?assertMatch({200, _, <<"other">>}, answer(Other)),
    {200, _, Body} = answer(Client),
    ?assertEqual(<<(binary:copy(Part, Sent))/binary, "room">>, Body).

%% The next request waits until its peer reads.
peer_that_does_not_read_an_answer(Config) ->
    Test = self(),
    Body = binary:copy(<<"b">>, 1000000),
    Server = listen(Config, #{max_stream_bytes => 100000}, fun(X, _) ->
        Test ! answered,
        reply(X, 200, [], Body)
    end),
    Client = connect(Server, [{recbuf, 8192}]),
    Count = 40,
    ok = http_raw:send(Client, [get("/") || _ <- lists:seq(1, Count)]),
    receive
        answered -> ok
    after ?WAIT -> ct:fail(no_request)
    end,
    ?assertMatch({200, _, _}, ask(connect(Server), get("/"))),
    ?assert(messages(answered) < Count),
    [?assertMatch({200, _, Body}, answer(Client)) || _ <- lists:seq(1, Count)].

%% It takes longer than a connection may be idle, and gets everything.
peer_that_reads_slowly(Config) ->
    Size = 30000000,
    Body = binary:copy(<<"s">>, Size),
    Server = listen(Config, #{idle_timeout_ms => 500}, fun(X, _) -> reply(X, 200, [], Body) end),
    {gen_tcp, Socket} = Client = connect(Server, [{recbuf, 65536}]),
    ok = http_raw:send(Client, "GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"),
    ?assertMatch({200, _}, head(Client)),
    ok = inet:setopts(Socket, [{packet, raw}]),
    Step = Size div 10,
    [
        begin
            {ok, _} = gen_tcp:recv(Socket, Step, ?WAIT),
            receive after 100 -> ok end
        end
     || _ <- lists:seq(1, 10)
    ],
    ?assert(ended(Client)).

peer_that_never_reads(Config) ->
    Test = self(),
    Body = binary:copy(<<"n">>, 30000000),
    Server = listen(Config, #{idle_timeout_ms => 100}, fun(X, _) ->
        Test ! {result, reply(X, 200, [], Body)}
    end),
    Client = connect(Server, [{recbuf, 8192}]),
    ok = http_raw:send(Client, get("/")),
    ok = result(),
    comes_to(Server, #{connections => 0}),
    ok = http_raw:close(Client).

%% Serving processes that end

killed_before_the_answer(Config) ->
    Server = listen(Config, #{}, fun(_, _) -> exit(self(), kill) end),
    Client = connect(Server),
    [?assertMatch({500, _, _}, ask(Client, get("/"))) || _ <- [1, 2]],
    comes_to(Server, #{requests => 0}).

killed_in_mid_stream(Config) ->
    Server = listen(Config, #{}, fun(X, _) ->
        begin_stream(X),
        ok = erlmcp_native_http_path:send(X, <<"part">>),
        exit(self(), kill)
    end),
    Client = connect(Server),
    ok = http_raw:send(Client, get("/")),
    ?assertMatch({200, _}, head(Client)),
    ?assertEqual(<<"part">>, part(Client)),
    ?assertMatch({error, _}, part(Client)),
    ok = http_raw:close(Client),
    comes_to(Server, #{connections => 0, requests => 0, streams => 0}).

%% The end of the connection would be the end of the answer, so it has to be another.
killed_in_mid_stream_for_version_1_0(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server, [{show_econnreset, true}]),
    ok = http_raw:send(Client, "GET / HTTP/1.0\r\n\r\n"),
    {Pid, Exchange, _} = request(),
    then(Exchange, fun begin_stream/1),
    ?assertMatch({200, _}, head(Client)),
    exit(Pid, kill),
    {gen_tcp, Socket} = Client,
    ?assertEqual({error, econnreset}, gen_tcp:recv(Socket, 0, ?WAIT)).

status_of_an_exit(Config) ->
    Server = listen(Config, #{}, fun(X, _) ->
        ok = erlmcp_native_http_path:on_exit(X, 202),
        exit({shutdown, cancelled})
    end),
    Client = connect(Server),
    [?assertMatch({202, _, _}, ask(Client, get("/"))) || _ <- [1, 2]].

%% Clients that go

gone_as_a_notice(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server),
    Exchange = exchange(Client),
    Test = self(),
    then(Exchange, fun(X) -> Test ! {result, {notice(X), reply(X, 200, [], <<>>)}} end),
    ok = http_raw:close(Client),
    ?assertEqual({gone, {error, closed}}, result()),
    comes_to(Server, #{connections => 0, requests => 0}).

gone_as_an_exit(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    {Pid, _} = Exchange = exchange(Client),
    Monitor = monitor(process, Pid),
    Test = self(),
    then(Exchange, fun(X) ->
        ok = erlmcp_native_http_path:on_gone(X, exit),
        Test ! {result, set},
        receive after infinity -> ok end
    end),
    set = result(),
    ok = http_raw:close(Client),
    ?assertEqual({shutdown, gone}, reason(Monitor)).

gone_in_mid_stream(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server),
    {Pid, _} = Exchange = exchange(Client),
    Monitor = monitor(process, Pid),
    then(Exchange, fun(X) ->
        ok = erlmcp_native_http_path:on_gone(X, exit),
        begin_stream(X)
    end),
    ?assertMatch({200, _}, head(Client)),
    ok = http_raw:close(Client),
    ?assertEqual({shutdown, gone}, reason(Monitor)),
    comes_to(Server, #{connections => 0, requests => 0, streams => 0}).

gone_by_reset(Config) ->
    Client = connect(listen(Config, #{}, tell())),
    tell_notice(streaming(Client)),
    ok = http_raw:reset(Client),
    ?assertEqual(gone, result()).

gone_while_the_body_comes(Config) ->
    Test = self(),
    Server = listen(Config, #{}, fun(X, #{body := pending}) ->
        Test ! {result, reading},
        Test ! {result, erlmcp_native_http_path:read_body(X, infinity)}
    end),
    Client = connect(Server),
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n1"),
    reading = result(),
    ok = http_raw:close(Client),
    ?assertEqual({error, closed}, result()).

%% Ends of listeners

owner_ends(Config) ->
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() ->
        Test ! {server, listen(Config, #{}, tell(Test))},
        receive after infinity -> ok end
    end),
    Server =
        receive
            {server, S} -> S
        after ?WAIT -> ct:fail(no_server)
        end,
    Idle = connect(Server),
    Busy = connect(Server),
    {Pid, _} = Exchange = exchange(Busy),
    Serving = monitor(process, Pid),
    then(Exchange, fun(X) ->
        ok = erlmcp_native_http_path:on_gone(X, exit),
        begin_stream(X)
    end),
    ?assertMatch({200, _}, head(Busy)),
    exit(Owner, kill),
    killed = reason(Monitor),
    ?assert(ended(Idle)),
    ?assertMatch({error, _}, part(Busy)),
    ?assertEqual({shutdown, gone}, reason(Serving)),
    until(fun() -> not accepts(Server) end).

close_ends_all(Config) ->
    Server = listen(Config, #{}, tell()),
    Idle = connect(Server),
    Busy = connect(Server),
    tell_notice(streaming(Busy)),
    ok = close(Server),
    ?assert(ended(Idle)),
    ?assertMatch({error, _}, part(Busy)),
    ?assertEqual(gone, result()),
    ?assertNot(accepts(Server)),
    ?assertEqual([], own_messages()).

drain_closes_what_is_idle(Config) ->
    Server = listen(Config, #{}, fun echo/2),
    Unused = connect(Server),
    Used = connect(Server),
    ?assertMatch({200, _, _}, ask(Used, post("x"))),
    Draining = drain(60000, Server),
    ?assert(ended(Unused)),
    ?assert(ended(Used)),
    [http_raw:close(Client) || Client <- [Used, Unused]],
    drained(Draining),
    ?assertNot(accepts(Draining)).

drain_waits_for_requests(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server),
    Exchange = exchange(Client),
    Streaming = connect(Server),
    Stream = streaming(Streaming),
    Draining = drain(60000, Server),
    until(fun() -> not accepts(Draining) end),
    then(Exchange, fun(X) -> reply(X, 200, [], <<"last">>) end),
    ?assertMatch({200, _, <<"last">>}, answer(Client)),
    ?assert(ended(Client)),
    then(Stream, fun(X) -> ok = erlmcp_native_http_path:finish(X) end),
    ?assertEqual(done, part(Streaming)),
    ?assert(ended(Streaming)),
    [http_raw:close(C) || C <- [Client, Streaming]],
    drained(Draining),
    ?assertMatch(#{connections := 0, requests := 0, streams := 0}, info(Draining)).

drain_cuts_off(Config) ->
    Server = listen(Config, #{}, tell()),
    Client = connect(Server),
    tell_notice(streaming(Client)),
    Draining = drain(50, Server),
    ?assertMatch({error, _}, part(Client)),
    ?assertEqual(gone, result()),
    drained(Draining),
    ?assertMatch(#{connections := 0, requests := 0, streams := 0}, info(Draining)).

many_connections_closed_at_once(Config) ->
    Count = 1000,
    Server = listen(Config, #{}, fun(X, _) ->
        ok = erlmcp_native_http_path:on_gone(X, exit),
        begin_stream(X),
        receive after infinity -> ok end
    end),
    Clients = [connect(Server) || _ <- lists:seq(1, Count)],
    [ok = http_raw:send(Client, get("/")) || Client <- Clients],
    [?assertMatch({200, _}, head(Client)) || Client <- Clients],
    ?assertMatch(#{connections := Count, requests := Count, streams := Count}, info(Server)),
    [ok = http_raw:close(Client) || Client <- Clients],
    comes_to(Server, #{connections => 0, requests => 0, streams => 0}).

address_in_use(Config) ->
    {Module, _} = Server = listen(Config, #{}, fun echo/2),
    {ok, Options} = erlmcp_native_http_options:listener(#{}),
    Endpoint = #{host => {127, 0, 0, 1}, port => port(Server)},
    Serve = {?MODULE, serve, fun echo/2},
    ?assertEqual({error, address_in_use}, Module:listen(Endpoint, Options, Serve)).

unix_domain_socket(Config) ->
    {ok, Module} = erlmcp_native_http_path:use(proplists:get_value(path, Config)),
    {ok, Options} = erlmcp_native_http_options:listener(#{max_connections_per_peer => 1}),
    Unique = integer_to_list(erlang:unique_integer([positive])),
    Path = iolist_to_binary(["/tmp/http_path_", os:getpid(), "_", Unique]),
    Serve = {?MODULE, serve, fun(X, #{peername := unnamed} = Request) -> echo(X, Request) end},
    {ok, Listener} = Module:listen(#{path => Path}, Options, Serve),
    ?assertMatch(#{sockname := {path, Path}}, Module:listener_info(Listener)),
    Dial = fun() ->
        {ok, Socket} = gen_tcp:connect({local, Path}, 0, [local, binary, {active, false}]),
        {gen_tcp, Socket}
    end,
    %% Its peers have no address that could be counted.
    [?assertMatch({200, _, <<"u">>}, ask(Client, post("u"))) || Client <- [Dial(), Dial()]],
    ok = Module:listener_close(Listener),
    ?assertEqual({error, enoent}, file:read_link_info(Path)).

%% What one listener counts and drains is not another's.
two_listeners(Config) ->
    [First, Second] = Servers = [listen(Config, #{}, fun echo/2) || _ <- [1, 2]],
    Clients = [connect(Server) || Server <- Servers],
    [?assertMatch({200, _, _}, ask(Client, post("x"))) || Client <- Clients],
    [?assertMatch(#{connections := 1}, info(Server)) || Server <- Servers],
    drained(drain(0, First)),
    ?assertMatch(#{connections := 1}, info(Second)),
    ?assertMatch({200, _, _}, ask(lists:last(Clients), post("x"))).

%% TLS

tls(Config) ->
    Server = listen(Config, tls_options(Config), fun(X, #{scheme := https} = Request) ->
        echo(X, Request)
    end),
    Client = connect_tls(Config, Server, []),
    Large = binary:copy(<<"0123456789abcdef">>, 65536),
    [?assertMatch({200, _, Body}, ask(Client, post(Body))) || Body <- [<<>>, <<"x">>, Large]],
    ok = http_raw:send(Client, "POST / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"),
    ?assertMatch({200, _, <<>>}, answer(Client)),
    ?assert(ended(Client)),
    comes_to(Server, #{connections => 0}).

tls_stream(Config) ->
    Options = (tls_options(Config))#{max_stream_bytes => 100000},
    Server = listen(Config, Options, tell()),
    Client = connect_tls(Config, Server, [{recbuf, 8192}]),
    Part = binary:copy(<<"p">>, 1000),
    Sent = fill(exchange(Client), Part),
    {200, _, Body} = answer(Client),
    ?assertEqual(<<(binary:copy(Part, Sent))/binary, "room">>, Body).

tls_client_gone(Config) ->
    Server = listen(Config, tls_options(Config), tell()),
    Client = connect_tls(Config, Server, []),
    tell_notice(streaming(Client)),
    ok = http_raw:close(Client),
    ?assertEqual(gone, result()),
    comes_to(Server, #{connections => 0, streams => 0}).

tls_protocols(Config) ->
    Server = listen(Config, (tls_options(Config))#{protocols => [http1]}, fun echo/2),
    Offer = [{alpn_advertised_protocols, [<<"h2">>, <<"http/1.1">>]}],
    {ssl, Socket} = Client = connect_tls(Config, Server, Offer),
    ?assertEqual({ok, <<"http/1.1">>}, ssl:negotiated_protocol(Socket)),
    ?assertMatch({200, _, <<"x">>}, ask(Client, post("x"))).

tls_bad_handshake(Config) ->
    Server = listen(Config, tls_options(Config), fun echo/2),
    {gen_tcp, Socket} = connect(Server),
    ok = gen_tcp:send(Socket, "GET / HTTP/1.1\r\nhost: h\r\n\r\n"),
    comes_to(Server, #{connections => 0}),
    ?assertMatch({200, _, <<"x">>}, ask(connect_tls(Config, Server, []), post("x"))).

%% The path beam

idle_connection_hibernates(Config) ->
    Client = connect(listen(Config, #{}, fun echo/2)),
    Before = processes(),
    ?assertMatch({200, _, _}, ask(Client, post("x"))),
    true = is_list(Before),
    [Conn] = connection_processes(),
    until(fun() ->
        process_info(Conn, current_function) =:= {current_function, {erlang, hibernate, 3}}
    end),
    ?assertMatch({200, _, <<"y">>}, ask(Client, post("y"))).

garbage(Config) ->
    Server = listen(Config, #{header_timeout_ms => 50}, fun echo/2),
    [
        begin
            Client = connect(Server),
            _ = http_raw:send(Client, rand:bytes(rand:uniform(5000))),
            _ = http_raw:reset(Client)
        end
     || _ <- lists:seq(1, 100)
    ],
    ?assertMatch({200, _, <<"x">>}, ask(connect(Server), post("x"))),
    comes_to(Server, #{connections => 1}).

connection_processes() ->
    [
        Pid
     || Pid <- processes(),
        {initial_call, {erlmcp_native_beam_http_conn, init, 3}} <-
            [process_info(Pid, initial_call)]
    ].

%% Servers. What serves is a function of the exchange and the request.

serve(Fun, Exchange, Request) ->
    Fun(Exchange, Request).

echo(Exchange, #{body := {complete, Body}}) ->
    reply(Exchange, 200, [{<<"content-type">>, <<"application/json">>}], Body);
echo(Exchange, #{body := pending}) ->
    case erlmcp_native_http_path:read_body(Exchange, ?WAIT) of
        {ok, Body} -> reply(Exchange, 200, [], Body);
        {error, body_too_large} -> reply(Exchange, 413, [], <<>>);
        {error, closed} -> ok
    end.

%% Tells the test of the request and then does what it is told.
tell() ->
    tell(self()).

tell(Test) ->
    fun(Exchange, Request) ->
        Test ! {request, self(), {self(), Exchange}, Request},
        obey(Exchange)
    end.

obey(Exchange) ->
    receive
        {do, Fun} ->
            _ = Fun(Exchange),
            obey(Exchange)
    end.

request() ->
    receive
        {request, Pid, Exchange, Request} -> {Pid, Exchange, Request}
    after ?WAIT -> ct:fail(no_request)
    end.

then({Pid, _}, Fun) ->
    Pid ! {do, Fun},
    ok.

%% A request that waits for what its process is told.
exchange(Client) ->
    ok = http_raw:send(Client, get("/")),
    {_, Exchange, _} = request(),
    Exchange.

%% The same with a stream that has begun.
streaming(Client) ->
    Exchange = exchange(Client),
    then(Exchange, fun begin_stream/1),
    ?assertMatch({200, _}, head(Client)),
    Exchange.

%% How many parts there is room for, before a last one that is sent when there is room again.
fill(Exchange, Part) ->
    Test = self(),
    then(Exchange, fun(X) ->
        begin_stream(X),
        Test ! {result, send_until_busy(X, Part, 0)},
        writable = notice(X),
        ok = erlmcp_native_http_path:send(X, <<"room">>),
        ok = erlmcp_native_http_path:finish(X)
    end),
    result().

%% The next notice will be the result.
tell_notice(Exchange) ->
    Test = self(),
    then(Exchange, fun(X) -> Test ! {result, notice(X)} end).

reply(Exchange, Status, Headers, Body) ->
    erlmcp_native_http_path:reply(Exchange, Status, Headers, Body).

begin_stream(Exchange) ->
    ok = erlmcp_native_http_path:stream(Exchange, 200, [{<<"content-type">>, <<"text/plain">>}]).

count_to_three(Exchange, _) ->
    begin_stream(Exchange),
    [ok = erlmcp_native_http_path:send(Exchange, [N, $,]) || N <- "123"],
    ok = erlmcp_native_http_path:finish(Exchange).

send_until_busy(Exchange, Part, Sent) ->
    case erlmcp_native_http_path:send(Exchange, Part) of
        ok -> send_until_busy(Exchange, Part, Sent + 1);
        {error, busy} -> Sent
    end.

notice(Exchange) ->
    receive
        Msg ->
            case erlmcp_native_http_path:handle_info(Msg, Exchange) of
                unknown -> notice(Exchange);
                Notice -> Notice
            end
    end.

result() ->
    receive
        {result, Result} -> Result
    after ?WAIT -> ct:fail({no_result, process_info(self(), messages)})
    end.

messages(Msg) ->
    receive
        Msg -> 1 + messages(Msg)
    after 0 -> 0
    end.

own_messages() ->
    {messages, Messages} = process_info(self(), messages),
    Messages.

%% Listeners: the path's module and its value.

listen(Config, Options, Fun) ->
    {ok, Module} = erlmcp_native_http_path:use(proplists:get_value(path, Config)),
    {ok, Checked} = erlmcp_native_http_options:listener(Options),
    Endpoint = #{host => {127, 0, 0, 1}, port => 0},
    {ok, Listener} = Module:listen(Endpoint, Checked, {?MODULE, serve, Fun}),
    {Module, Listener}.

info({Module, Listener}) -> Module:listener_info(Listener).

comes_to(Server, Counts) ->
    until(fun() -> maps:with(maps:keys(Counts), info(Server)) =:= Counts end).

close({Module, Listener}) -> Module:listener_close(Listener).

drain(Ms, {Module, Listener}) -> {Module, Module:listener_drain(Listener, Ms)}.

drained({Module, Listener}) ->
    receive
        Msg ->
            case Module:listener_handle_info(Msg, Listener) of
                unknown -> drained({Module, Listener});
                {Events, Next} -> lists:member(drained, Events) orelse drained({Module, Next})
            end
    after ?WAIT -> ct:fail(not_drained)
    end.

port(Server) ->
    #{sockname := {_, Port}} = info(Server),
    Port.

connect(Server) -> connect(Server, []).

connect(Server, Options) -> http_raw:connect(port(Server), Options).

accepts(Server) ->
    case gen_tcp:connect({127, 0, 0, 1}, port(Server), [], ?WAIT) of
        {ok, Socket} ->
            ok = gen_tcp:close(Socket),
            true;
        {error, _} ->
            false
    end.

tls_options(Config) ->
    #{tls => #{certfile => file(Config, "server.pem"), keyfile => file(Config, "server.key")}}.

connect_tls(Config, Server, Options) ->
    Trust = [{cacertfile, file(Config, "ca.pem")}, {verify, verify_peer}, {log_level, none}],
    http_raw:connect(port(Server), {tls, Trust ++ Options}).

%% Requests

chunked_head() ->
    "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n".

expecting(Length) ->
    [
        "POST / HTTP/1.1\r\nhost: h\r\nexpect: 100-continue\r\ncontent-length: ",
        [integer_to_list(Length), "\r\n\r\n"]
    ].

text(Size) -> lists:duplicate(Size, $a).
