%% The MCP client over HTTP, on every path: each duty of a client that the revisions of the protocol
%% name, then what servers and networks do wrong. The peer is in the hands of the test.
-module(http_client_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [event/1, messages/2, reason/1, until/1]).

-define(CLIENT, erlmcp_native_http_client).
-define(WAIT, 10000).
-define(META, <<"io.modelcontextprotocol/protocolVersion">>).

all() ->
    [{group, values}, {group, nif}, {group, port}, {group, beam}].

groups() ->
    [
        {values, [parallel], values()},
        {nif, [{group, duties}, {group, faults}, {group, server}]},
        {port, [{group, duties}, {group, faults}, {group, server}]},
        {beam, [{group, duties}, {group, faults}, {group, server}]},
        {duties, duties()},
        {faults, faults()},
        {server, server()}
    ].

values() ->
    [
        urls,
        urls_refused,
        options_refused,
        header_values_are_encoded,
        marks_of_a_tool,
        marks_refused,
        retry_after
    ].

duties() ->
    [
        %% Framing.
        no_batches_are_sent,
        batches_are_accepted,
        ids_are_not_null_and_not_repeated,
        %% HTTP+SSE.
        falls_back_to_http_sse,
        everything_is_posted_to_the_endpoint,
        endpoint_of_another_origin_is_refused,
        no_fallback_where_the_server_is_modern,
        fallback_that_fails_tells_the_first_refusal,
        %% Streamable HTTP, 2025-03-26 to 2025-11-25.
        every_message_is_a_post_that_accepts_both_types,
        json_and_stream_answers,
        messages_before_the_response,
        in_flight_together,
        honours_retry_and_reconnects,
        resumes_with_get_whatever_opened_the_stream,
        resumes_as_often_as_it_is_cut,
        cancels_with_a_notification,
        owner_cancels_by_itself,
        get_stream_accepts_event_streams,
        get_stream_is_not_a_must,
        get_stream_is_resumed,
        get_stream_can_be_off,
        session_id_is_echoed,
        session_that_ended_is_told,
        session_that_ended_is_made_again,
        delete_when_done,
        delete_may_be_refused,
        version_header_after_initialize,
        only_pings_before_initialize_is_answered,
        nothing_overtakes_initialized,
        initialized_for_those_who_do_not_send_it,
        %% Streamable HTTP, 2026-07-28.
        modern_headers_mirror_the_body,
        modern_responses_are_not_sent,
        modern_comments_are_ignored,
        modern_cancel_closes_the_stream,
        modern_streams_are_not_resumed,
        modern_errors_are_responses,
        modern_session_ids_are_ignored,
        modern_tools_are_checked,
        modern_params_are_mirrored,
        modern_mismatch_looks_the_tools_up,
        modern_mismatch_that_stays,
        %% Time.
        requests_time_out_and_are_cancelled,
        initialize_times_out_and_is_not_cancelled,
        progress_extends_up_to_a_cap,
        requests_have_timeouts_of_their_own,
        subscriptions_do_not_time_out,
        late_responses_are_ignored,
        %% Authorization.
        token_in_a_header_of_every_request,
        tokens_that_change,
        unauthorized_and_forbidden
    ].

faults() ->
    [
        redirects_are_followed,
        credentials_stay_at_home,
        redirects_that_lead_nowhere,
        busy_servers_are_asked_again,
        failures_are_not_repeated_where_unsafe,
        server_that_is_not_there,
        answer_that_is_none,
        answer_that_is_cut_off,
        message_too_large,
        refusals_of_notifications,
        slow_owner_makes_the_server_wait,
        pending_is_bounded,
        owner_that_dies_ends_the_session,
        close_gives_up_what_is_pending,
        linked_to_its_owner,
        resumption_that_is_refused,
        session_lost_while_resuming,
        session_that_is_refused_again,
        session_lost_beside_modern_requests,
        response_on_another_stream,
        initialize_leaves_what_is_not_its_own,
        session_that_does_not_help,
        get_that_is_not_found,
        id_that_is_used_again,
        cancelled_while_it_waits_to_resume,
        garbage_is_survived
    ].

server() ->
    [
        our_server_answers,
        our_server_streams_and_asks,
        our_server_closes_the_stream_and_is_polled,
        our_server_sends_on_the_get_stream,
        our_server_ends_the_session,
        our_server_of_2026,
        our_server_of_2024,
        our_server_wants_a_token,
        our_server_is_cancelled,
        our_server_over_tls,
        our_server_over_http2
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) when Path =:= nif; Path =:= port; Path =:= beam ->
    test_config:use(erlmcp_native_http_client_path, Path, Config);
init_per_group(_, Config) ->
    Config.

end_per_group(_, _) -> ok.

init_per_testcase(_, Config) ->
    process_flag(trap_exit, true),
    case proplists:get_value(path, Config) of
        undefined -> Config;
        _ -> [{peer, http_peer:listen()} | Config]
    end.

%% ---- values

urls(_) ->
    Url = fun(Text) -> element(2, erlmcp_native_http_client_url:parse(Text)) end,
    ?assertEqual(
        #{origin => #{scheme => http, host => <<"h">>, port => 80}, target => <<"/">>},
        Url(<<"http://H">>)
    ),
    ?assertEqual(
        #{origin => #{scheme => https, host => <<"::1">>, port => 8443}, target => <<"/a?b=c">>},
        Url("HTTPS://[::1]:8443/a?b=c#d")
    ),
    V6 = Url("https://[::1]:8443/a"),
    ?assertEqual(<<"https://[::1]:8443/a">>, erlmcp_native_http_client_url:text(V6)),
    Base = Url("http://h/sse"),
    ?assertMatch({ok, #{target := <<"/m?s=1">>}}, resolve(<<"/m?s=1">>, Base)),
    ?assertMatch({ok, #{target := <<"/m">>}}, resolve(<<"m">>, Base)),
    ?assertMatch({ok, #{origin := #{host := <<"o">>}}}, resolve(<<"//o/m">>, Base)),
    ?assertEqual(error, erlmcp_native_http_client_url:redirect(<<"http://h/">>, V6)),
    ?assertMatch({ok, _}, erlmcp_native_http_client_url:redirect(<<"https://h/">>, Base)).

resolve(Reference, Base) -> erlmcp_native_http_client_url:resolve(Reference, Base).

urls_refused(_) ->
    [
        ?assertEqual({Text, error}, {Text, erlmcp_native_http_client_url:parse(Text)})
     || Text <- [
            <<>>, <<"/mcp">>, <<"ftp://h/">>, <<"http:///x">>, <<"http://u:p@h/">>,
            <<"http://h:0/">>, <<"http://h:65536/">>, <<"http://h/a b">>, <<"http://h/\r\nx: y">>,
            <<"http://h/\xc3\xa9"/utf8>>, [16#110000], 17, undefined
        ]
    ].

options_refused(_) ->
    Url = <<"http://127.0.0.1:1/">>,
    [
        ?assertMatch({error, {option, Key, _}}, ?CLIENT:start(Url, #{Key => V}))
     || {Key, V} <- [
            {no_such, 1}, {headers, [{"a b", "c"}]}, {headers, [{"a", "b\r\nc: d"}]},
            {headers, [{"Mcp-Session-Id", "x"}]}, {headers, [{"Host", "x"}]}, {timeout_ms, 0},
            {path, rust}, {retries, -1}, {owner, me}, {max_connections, 0}
        ]
    ],
    ?assertEqual({error, {option, url, "x"}}, ?CLIENT:start("x", #{})),
    ?assertEqual({error, {option, options, 1}}, ?CLIENT:start("http://127.0.0.1/", 1)).

header_values_are_encoded(_) ->
    Encode = fun erlmcp_native_http_client_mirror:encode/1,
    [
        ?assertEqual(Encoded, Encode(Value))
     || {Value, Encoded} <- [
            {<<"us-west1">>, <<"us-west1">>},
            {<<"a b\tc">>, <<"a b\tc">>},
            {<<"Hello, 世界"/utf8>>, <<"=?base64?SGVsbG8sIOS4lueVjA==?=">>},
            {<<" padded ">>, <<"=?base64?IHBhZGRlZCA=?=">>},
            {<<"line1\nline2">>, <<"=?base64?bGluZTEKbGluZTI=?=">>},
            {<<"a\n">>, <<"=?base64?YQo=?=">>},
            {<<>>, <<"=?base64??=">>},
            {<<"=?base64?literal?=">>, <<"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=">>},
            {<<"=?BASE64?x?=">>, <<"=?BASE64?x?=">>}
        ]
    ].

marks_of_a_tool(_) ->
    String = #{<<"type">> => <<"string">>},
    Tool = tool(#{
        <<"region">> => String#{<<"x-mcp-header">> => <<"Region">>},
        %% The name of a property is no keyword.
        <<"x-mcp-header">> => String,
        <<"nested">> => #{
            <<"type">> => <<"object">>,
            <<"properties">> => #{
                <<"n">> => #{<<"type">> => <<"integer">>, <<"x-mcp-header">> => <<"N">>}
            }
        },
        <<"data">> => String#{<<"default">> => #{<<"x-mcp-header">> => <<"D">>}}
    }),
    {ok, <<"t">>, Marks} = erlmcp_native_http_client_mirror:tool(Tool),
    ?assertEqual(
        [{<<"n">>, [<<"nested">>, <<"n">>]}, {<<"region">>, [<<"region">>]}], lists:sort(Marks)
    ),
    Plain = #{<<"name">> => <<"t">>},
    ?assertEqual({ok, <<"t">>, []}, erlmcp_native_http_client_mirror:tool(Plain)).

marks_refused(_) ->
    Mark = fun(Type, Header) -> #{<<"type">> => Type, <<"x-mcp-header">> => Header} end,
    S = <<"string">>,
    [
        ?assertEqual({error, Fault}, erlmcp_native_http_client_mirror:tool(tool(Properties)))
     || {Fault, Properties} <- [
            {not_a_token, #{<<"a">> => Mark(S, <<>>)}},
            {not_a_token, #{<<"a">> => Mark(S, <<"a b">>)}},
            {not_a_token, #{<<"a">> => Mark(S, <<"a\n">>)}},
            {not_a_token, #{<<"a">> => Mark(S, 1)}},
            {not_primitive, #{<<"a">> => Mark(<<"number">>, <<"A">>)}},
            {not_primitive, #{<<"a">> => Mark([S], <<"A">>)}},
            {not_primitive, #{<<"a">> => #{<<"x-mcp-header">> => <<"A">>}}},
            {not_unique, #{<<"a">> => Mark(S, <<"A">>), <<"b">> => Mark(S, <<"a">>)}},
            {not_reachable, #{<<"a">> => #{<<"items">> => Mark(S, <<"A">>)}}},
            {not_reachable, #{<<"a">> => #{<<"anyOf">> => [#{}, Mark(S, <<"A">>)]}}},
            {not_reachable, #{
                <<"a">> => #{<<"$defs">> => #{<<"d">> => Mark(S, <<"A">>)}}
            }}
        ]
    ].

tool(Properties) ->
    #{
        <<"name">> => <<"t">>,
        <<"inputSchema">> => #{<<"type">> => <<"object">>, <<"properties">> => Properties}
    }.

retry_after(_) ->
    After = fun(V) -> erlmcp_native_http_client_answer:retry_after_ms([{<<"retry-after">>, V}]) end,
    ?assertEqual(0, After(<<"0">>)),
    ?assertEqual(3000, After(<<"3">>)),
    ?assertEqual(86400000, After(<<"999999999">>)),
    ?assertEqual(none, After(<<"-1">>)),
    ?assertEqual(none, After(<<"soon">>)),
    ?assertEqual(none, After(<<"Sun, 06 Now 1994 08:49:37 GMT">>)),
    ?assertEqual(0, After(<<"Sun, 06 Nov 1994 08:49:37 GMT">>)),
    ?assertEqual(86400000, After(<<"Sun, 06 Nov 2094 08:49:37 GMT">>)),
    ?assertEqual(none, erlmcp_native_http_client_answer:retry_after_ms([])).

%% ---- framing

no_batches_are_sent(Config) ->
    C = start(Config),
    [
        ?assertEqual({error, invalid_message}, ?CLIENT:send(C, Text))
     || Text <- [<<"[]">>, <<"{}">>, <<"x">>, <<>>, <<"\xff">>]
    ],
    ?assertEqual({error, not_allowed}, ?CLIENT:send(C, ["[", call(1, <<"ping">>), "]"])),
    http_peer:none(peer(Config), 0).

batches_are_accepted(Config) ->
    C = start(Config),
    P = peer(Config),
    ok = ?CLIENT:send(C, call(1, <<"ping">>)),
    Batch = [#{<<"jsonrpc">> => <<"2.0">>, <<"method">> => <<"n">>}, result(1, #{})],
    http_peer:json(http_peer:next(P), Batch),
    ?assertMatch([#{<<"method">> := <<"n">>}, #{<<"id">> := 1}], messages(C, 2)).

ids_are_not_null_and_not_repeated(Config) ->
    C = start(Config),
    P = peer(Config),
    Null = <<"{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}">>,
    ?assertEqual({error, invalid_message}, ?CLIENT:send(C, Null)),
    ok = ?CLIENT:send(C, call(1, <<"ping">>)),
    ?assertEqual({error, duplicate_id}, ?CLIENT:send(C, call(1, <<"ping">>))),
    ok = ?CLIENT:send(C, call(<<"1">>, <<"ping">>)),
    [http_peer:json(R, result(id(R), #{})) || R <- [http_peer:next(P), http_peer:next(P)]],
    ?assertEqual([1, <<"1">>], lists:sort([Id || #{<<"id">> := Id} <- messages(C, 2)])).

%% ---- HTTP+SSE

falls_back_to_http_sse(Config) ->
    [falls_back(Status, Config) || Status <- [400, 404, 405]].

falls_back(Status, Config) ->
    {C, Stream, _} = old_server(Status, <<"/messages?s=1">>, Config),
    ?assertMatch(
        {ok, #{transport := http_sse, session := none, phase := answered}}, ?CLIENT:info(C)
    ),
    http_peer:event(Stream, #{data => note_map(<<"notifications/message">>)}),
    ?assertMatch([#{<<"method">> := <<"notifications/message">>}], messages(C, 1)),
    http_peer:cut(Stream),
    ?assertEqual(session_lost, event(C)),
    ok = ?CLIENT:close(C).

everything_is_posted_to_the_endpoint(Config) ->
    P = peer(Config),
    {C, Stream, Url} = old_server(405, http_peer:url(peer(Config), "/messages?s=1"), Config),
    Confirmed = asked(C, P, note(<<"notifications/initialized">>)),
    ?assertMatch(#{target := Url, method := <<"POST">>}, Confirmed),
    http_peer:answer(Confirmed, 202, [], <<"Accepted">>),
    List = asked(C, P, call(2, <<"tools/list">>)),
    ?assertMatch(#{target := Url, method := <<"POST">>}, List),
    http_peer:accepted(List),
    http_peer:event(Stream, #{event => <<"message">>, data => result(2, #{})}),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)),
    %% No stream of the newer kind, and no session to end.
    ok = ?CLIENT:close(C),
    http_peer:none(P, 0).

old_server(Status, Endpoint, Config) ->
    P = peer(Config),
    C = start(Config),
    http_peer:answer(asked(C, P, initialize(1)), Status, [], <<"no">>),
    Stream = http_peer:next(P),
    ?assertMatch(#{method := <<"GET">>, target := <<"/mcp">>}, Stream),
    ?assertEqual(<<"text/event-stream">>, http_peer:header(<<"accept">>, Stream)),
    http_peer:stream(Stream),
    http_peer:event(Stream, #{event => <<"endpoint">>, data => Endpoint}),
    Post = http_peer:next(P),
    ?assertMatch(#{method := <<"POST">>, target := <<"/messages?s=1">>}, Post),
    ?assertMatch(#{<<"method">> := <<"initialize">>}, http_peer:body(Post)),
    http_peer:accepted(Post),
    http_peer:event(Stream, #{data => initialized(1, <<"2024-11-05">>)}),
    ?assertMatch([#{<<"id">> := 1}], messages(C, 1)),
    {C, Stream, <<"/messages?s=1">>}.

endpoint_of_another_origin_is_refused(Config) ->
    P = peer(Config),
    Other = http_peer:listen(),
    C = start(Config),
    http_peer:answer(asked(C, P, initialize(1)), 404, [], <<>>),
    Stream = http_peer:next(P),
    http_peer:stream(Stream),
    http_peer:event(Stream, #{event => <<"endpoint">>, data => http_peer:url(Other)}),
    ?assertEqual({failed, 1, {status, 404, <<>>}}, event(C)),
    http_peer:none(Other, 0).

no_fallback_where_the_server_is_modern(Config) ->
    P = peer(Config),
    C = start(Config),
    ok = ?CLIENT:send(C, initialize(1)),
    Error = #{<<"code">> => -32022, <<"message">> => <<"no">>, <<"data">> => #{}},
    Body = erlmcp_native_json:encode(
        #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 1, <<"error">> => Error}
    ),
    http_peer:answer(http_peer:next(P), 400, [], Body),
    ?assertMatch([#{<<"error">> := #{<<"code">> := -32022}}], messages(C, 1)),
    http_peer:none(P, 100).

fallback_that_fails_tells_the_first_refusal(Config) ->
    P = peer(Config),
    C = start(Config),
    http_peer:answer(asked(C, P, initialize(1)), 400, [], <<"who are you">>),
    http_peer:answer(http_peer:next(P, <<"GET">>), 405, [], <<>>),
    ?assertEqual({failed, 1, {status, 400, <<"who are you">>}}, event(C)),
    %% An error of JSON-RPC that is none of the newer ones counts as the answer.
    ok = ?CLIENT:send(C, initialize(2)),
    Body = erlmcp_native_json:encode(error_map(2, -32602)),
    http_peer:answer(http_peer:next(P), 400, [], Body),
    http_peer:answer(http_peer:next(P, <<"GET">>), 200, [], <<"a page">>),
    ?assertMatch([#{<<"error">> := #{<<"code">> := -32602}}], messages(C, 1)).

%% ---- Streamable HTTP, 2025-03-26 to 2025-11-25

every_message_is_a_post_that_accepts_both_types(Config) ->
    P = peer(Config),
    C = ready(Config),
    ok = ?CLIENT:send(C, call(2, <<"ping">>)),
    ok = ?CLIENT:send(C, note(<<"notifications/roots/list_changed">>)),
    ok = ?CLIENT:send(C, erlmcp_native_json:encode(result(<<"s">>, #{}))),
    [post(http_peer:next(P)) || _ <- [1, 2, 3]].

post(#{method := <<"POST">>, target := <<"/mcp">>} = R) ->
    ?assertEqual(
        <<"application/json, text/event-stream">>, http_peer:header(<<"accept">>, R)
    ),
    ?assertEqual(<<"application/json">>, http_peer:header(<<"content-type">>, R)),
    ok.

json_and_stream_answers(Config) ->
    P = peer(Config),
    C = ready(Config),
    ok = ?CLIENT:send(C, call(2, <<"tools/list">>)),
    Charset = {<<"content-type">>, <<"Application/JSON; charset=utf-8">>},
    R2 = http_peer:next(P),
    http_peer:answer(R2, 200, [Charset], erlmcp_native_json:encode(result(2, #{}))),
    ?assertMatch([#{<<"id">> := 2, <<"result">> := #{}}], messages(C, 1)),
    R3 = streamed(C, P, call(3, <<"tools/list">>)),
    http_peer:event(R3, #{event => <<"message">>, data => result(3, #{})}),
    ?assertMatch([#{<<"id">> := 3}], messages(C, 1)),
    http_peer:finish(R3),
    %% It was read to its end: its connection serves the next request.
    ok = ?CLIENT:send(C, call(4, <<"tools/list">>)),
    ?assertMatch(#{method := <<"POST">>}, http_peer:next(P)).

messages_before_the_response(Config) ->
    P = peer(Config),
    C = ready(Config),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    http_peer:event(R, #{data => note_map(<<"notifications/progress">>)}),
    ?assertMatch([#{<<"method">> := <<"notifications/progress">>}], messages(C, 1)),
    %% A request of the server, answered in a POST of its own.
    http_peer:event(R, #{data => call_map(9, <<"roots/list">>)}),
    ?assertMatch([#{<<"method">> := <<"roots/list">>}], messages(C, 1)),
    Answer = asked(C, P, erlmcp_native_json:encode(result(9, #{}))),
    ?assertMatch(#{<<"id">> := 9}, http_peer:body(Answer)),
    http_peer:accepted(Answer),
    http_peer:event(R, #{data => result(2, #{})}),
    http_peer:finish(R),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

in_flight_together(Config) ->
    P = peer(Config),
    C = ready(Config),
    Ids = lists:seq(2, 9),
    [ok = ?CLIENT:send(C, call(Id, <<"tools/call">>)) || Id <- Ids],
    Requests = [http_peer:next(P) || _ <- Ids],
    [http_peer:json(R, result(id(R), #{})) || R <- lists:reverse(Requests)],
    ?assertEqual(Ids, lists:sort([Id || #{<<"id">> := Id} <- messages(C, length(Ids))])).

honours_retry_and_reconnects(Config) ->
    P = peer(Config),
    C = ready(Config),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    %% The priming event: an id and no data.
    http_peer:event(R, #{id => <<"a1">>, data => <<>>}),
    http_peer:event(R, #{retry => 300}),
    http_peer:finish(R),
    Since = erlang:monotonic_time(millisecond),
    Resumed = http_peer:next(P),
    ?assert(erlang:monotonic_time(millisecond) - Since >= 250),
    ?assertMatch(#{method := <<"GET">>, target := <<"/mcp">>}, Resumed),
    ?assertEqual(<<"a1">>, http_peer:header(<<"last-event-id">>, Resumed)),
    ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, Resumed)),
    http_peer:stream(Resumed),
    http_peer:event(Resumed, #{id => <<"a2">>, data => result(2, #{})}),
    http_peer:finish(Resumed),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

resumes_with_get_whatever_opened_the_stream(Config) ->
    P = peer(Config),
    C = ready(Config),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    http_peer:event(R, #{id => <<"e1">>, data => note_map(<<"n">>)}),
    ?assertMatch([#{<<"method">> := <<"n">>}], messages(C, 1)),
    http_peer:cut(R),
    Resumed = http_peer:next(P),
    ?assertMatch(#{method := <<"GET">>}, Resumed),
    ?assertEqual(<<"e1">>, http_peer:header(<<"last-event-id">>, Resumed)),
    http_peer:stream(Resumed),
    http_peer:event(Resumed, #{data => result(2, #{})}),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

resumes_as_often_as_it_is_cut(Config) ->
    P = peer(Config),
    C = ready(Config, #{max_resumes => 2, retry_min_ms => 1}),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    http_peer:event(R, #{id => <<"0">>, retry => 1}),
    http_peer:cut(R),
    Cut = fun(N) ->
        Resumed = http_peer:next(P, <<"GET">>),
        http_peer:stream(Resumed),
        http_peer:event(Resumed, #{id => integer_to_binary(N), data => note_map(<<"n">>)}),
        http_peer:cut(Resumed)
    end,
    %% With each event it may begin again.
    [Cut(N) || N <- lists:seq(1, 5)],
    _ = messages(C, 5),
    Refuse = fun() -> http_peer:cut(http_peer:next(P, <<"GET">>)) end,
    Refuse(),
    Refuse(),
    ?assertEqual({failed, 2, closed}, event(C)),
    http_peer:none(P, 50).

cancels_with_a_notification(Config) ->
    P = peer(Config),
    C = ready(Config),
    _ = streamed(C, P, call(2, <<"tools/call">>)),
    ok = ?CLIENT:cancel(C, 2),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    Cancelled = http_peer:next(P),
    ?assertMatch(
        #{<<"method">> := <<"notifications/cancelled">>, <<"params">> := #{<<"requestId">> := 2}},
        http_peer:body(Cancelled)
    ),
    http_peer:accepted(Cancelled),
    ok = ?CLIENT:cancel(C, 2),
    ok = ?CLIENT:cancel(C, <<"unknown">>),
    http_peer:none(P, 50).

owner_cancels_by_itself(Config) ->
    P = peer(Config),
    C = ready(Config),
    _ = streamed(C, P, call(2, <<"tools/call">>)),
    Cancelled = note(<<"notifications/cancelled">>, #{<<"requestId">> => 2}),
    ok = ?CLIENT:send(C, Cancelled),
    Passed = http_peer:body(http_peer:next(P)),
    ?assertMatch(#{<<"method">> := <<"notifications/cancelled">>}, Passed),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    %% Of what nobody waits for nothing is sent.
    ok = ?CLIENT:send(C, Cancelled),
    http_peer:none(P, 50).

get_stream_accepts_event_streams(Config) ->
    P = peer(Config),
    C = ready(Config, #{}, stream),
    Stream = http_peer:next(P, <<"GET">>),
    ?assertEqual(<<"text/event-stream">>, http_peer:header(<<"accept">>, Stream)),
    ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, Stream)),
    ?assertEqual(none, http_peer:header(<<"last-event-id">>, Stream)),
    http_peer:stream(Stream),
    http_peer:event(Stream, #{data => note_map(<<"notifications/tools/list_changed">>)}),
    ?assertMatch([#{<<"method">> := <<"notifications/tools/list_changed">>}], messages(C, 1)),
    ?assertMatch({ok, #{listening := true}}, ?CLIENT:info(C)).

get_stream_is_not_a_must(Config) ->
    P = peer(Config),
    C = ready(Config),
    http_peer:json(asked(C, P, call(2, <<"ping">>)), result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)),
    until(fun() -> not maps:get(listening, element(2, ?CLIENT:info(C))) end),
    http_peer:none(P, 50).

get_stream_is_resumed(Config) ->
    P = peer(Config),
    C = ready(Config, #{retry_min_ms => 1}, stream),
    Stream = http_peer:next(P, <<"GET">>),
    http_peer:stream(Stream),
    http_peer:event(Stream, #{id => <<"g1">>, data => note_map(<<"n">>), retry => 100}),
    _ = messages(C, 1),
    http_peer:finish(Stream),
    Again = http_peer:next(P, <<"GET">>),
    ?assertEqual(<<"g1">>, http_peer:header(<<"last-event-id">>, Again)),
    http_peer:stream(Again),
    http_peer:cut(Again),
    http_peer:answer(http_peer:next(P, <<"GET">>), 503, [], <<>>),
    Third = http_peer:next(P, <<"GET">>),
    ?assertEqual(<<"g1">>, http_peer:header(<<"last-event-id">>, Third)).

get_stream_can_be_off(Config) ->
    P = peer(Config),
    C = ready(Config, #{get_stream => false}, stream),
    http_peer:none(P, 100),
    ok = ?CLIENT:send(C, call(2, <<"ping">>)),
    ?assertMatch(#{method := <<"POST">>}, http_peer:next(P)).

session_id_is_echoed(Config) ->
    P = peer(Config),
    C = ready(Config),
    ok = ?CLIENT:send(C, call(2, <<"tools/list">>)),
    ok = ?CLIENT:send(C, note(<<"notifications/roots/list_changed">>)),
    ok = ?CLIENT:send(C, erlmcp_native_json:encode(result(7, #{}))),
    [
        ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, http_peer:next(P)))
     || _ <- [1, 2, 3]
    ].

session_that_ended_is_told(Config) ->
    P = peer(Config),
    C = ready(Config, #{}, stream),
    Stream = http_peer:next(P, <<"GET">>),
    http_peer:stream(Stream),
    Slow = asked(C, P, call(2, <<"tools/call">>)),
    http_peer:answer(asked(C, P, call(3, <<"tools/call">>)), 404, [], <<>>),
    ?assertEqual(session_lost, event(C)),
    Failed = [event(C), event(C)],
    ?assertEqual([{failed, 2, session_lost}, {failed, 3, session_lost}], lists:sort(Failed)),
    http_peer:gone(Stream),
    http_peer:gone(Slow),
    %% The owner begins anew, without an id.
    Again = asked(C, P, initialize(4)),
    ?assertEqual(none, http_peer:header(<<"mcp-session-id">>, Again)),
    ?assertEqual(none, http_peer:header(<<"mcp-protocol-version">>, Again)),
    http_peer:json(Again, [{<<"mcp-session-id">>, <<"s2">>}], initialized(4)),
    ?assertMatch([#{<<"id">> := 4}], messages(C, 1)),
    ?assertMatch({ok, #{session := <<"s2">>}}, ?CLIENT:info(C)).

session_that_ended_is_made_again(Config) ->
    P = peer(Config),
    C = ready(Config, #{reinitialize => true}),
    ok = ?CLIENT:send(C, call(2, <<"tools/call">>)),
    ok = ?CLIENT:send(C, call(3, <<"tools/call">>)),
    [A, B] = [http_peer:next(P), http_peer:next(P)],
    http_peer:answer(A, 404, [], <<>>),
    Again = http_peer:next(P),
    ?assertMatch(#{<<"method">> := <<"initialize">>, <<"id">> := 1}, http_peer:body(Again)),
    ?assertEqual(none, http_peer:header(<<"mcp-session-id">>, Again)),
    %% What is sent meanwhile waits.
    ok = ?CLIENT:send(C, call(4, <<"ping">>)),
    http_peer:answer(B, 404, [], <<>>),
    http_peer:json(Again, [{<<"mcp-session-id">>, <<"s2">>}], initialized(1)),
    Confirmed = http_peer:next(P),
    ?assertMatch(#{<<"method">> := <<"notifications/initialized">>}, http_peer:body(Confirmed)),
    http_peer:accepted(Confirmed),
    ?assertEqual(session_renewed, event(C)),
    http_peer:answer(http_peer:next(P, <<"GET">>), 405, [], <<>>),
    Calls = [http_peer:next(P) || _ <- [1, 2, 3]],
    [?assertEqual(<<"s2">>, http_peer:header(<<"mcp-session-id">>, R)) || R <- Calls],
    [http_peer:json(R, result(id(R), #{})) || R <- Calls],
    ?assertEqual([2, 3, 4], lists:sort([Id || #{<<"id">> := Id} <- messages(C, 3)])),
    http_peer:none(P, 50).

delete_when_done(Config) ->
    P = peer(Config),
    C = ready(Config),
    Closing = closing(C),
    Delete = http_peer:next(P),
    ?assertMatch(#{method := <<"DELETE">>, target := <<"/mcp">>}, Delete),
    ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, Delete)),
    http_peer:answer(Delete, 200, [], <<>>),
    closed(Closing),
    ?assertEqual(ok, ?CLIENT:close(C)),
    ?assertEqual({error, closed}, ?CLIENT:send(C, call(2, <<"ping">>))).

delete_may_be_refused(Config) ->
    P = peer(Config),
    Closing = closing(ready(Config)),
    http_peer:answer(http_peer:next(P, <<"DELETE">>), 405, [], <<>>),
    closed(Closing),
    %% Or not be answered at all.
    Other = closing(ready(Config)),
    _ = http_peer:next(P, <<"DELETE">>),
    closed(Other).

version_header_after_initialize(Config) ->
    P = peer(Config),
    C = start(Config),
    R = asked(C, P, initialize(1)),
    ?assertEqual(none, http_peer:header(<<"mcp-protocol-version">>, R)),
    http_peer:json(R, initialized(1, <<"2025-06-18">>)),
    _ = messages(C, 1),
    Version = fun(Request) -> http_peer:header(<<"mcp-protocol-version">>, Request) end,
    Confirmed = asked(C, P, note(<<"notifications/initialized">>)),
    ?assertEqual(<<"2025-06-18">>, Version(Confirmed)),
    http_peer:accepted(Confirmed),
    ?assertEqual(<<"2025-06-18">>, Version(http_peer:next(P, <<"GET">>))),
    ok = ?CLIENT:send(C, call(2, <<"ping">>)),
    ?assertEqual(<<"2025-06-18">>, Version(http_peer:next(P))).

only_pings_before_initialize_is_answered(Config) ->
    P = peer(Config),
    C = start(Config),
    R = asked(C, P, initialize(1)),
    ok = ?CLIENT:send(C, call(2, <<"tools/list">>)),
    Ping = asked(C, P, call(3, <<"ping">>)),
    ?assertMatch(#{<<"method">> := <<"ping">>}, http_peer:body(Ping)),
    http_peer:none(P, 50),
    http_peer:json(R, [{<<"mcp-session-id">>, <<"s1">>}], initialized(1)),
    List = http_peer:next(P),
    ?assertMatch(#{<<"method">> := <<"tools/list">>}, http_peer:body(List)),
    ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, List)).

nothing_overtakes_initialized(Config) ->
    P = peer(Config),
    C = start(Config),
    http_peer:json(asked(C, P, initialize(1)), initialized(1)),
    _ = messages(C, 1),
    ok = ?CLIENT:send(C, note(<<"notifications/initialized">>)),
    Confirmed = asked(C, P, call(2, <<"tools/list">>)),
    ?assertMatch(#{<<"method">> := <<"notifications/initialized">>}, http_peer:body(Confirmed)),
    http_peer:none(P, 50),
    http_peer:accepted(Confirmed),
    ?assertMatch(#{<<"id">> := 2}, http_peer:body(http_peer:next(P, <<"POST">>))).

initialized_for_those_who_do_not_send_it(Config) ->
    P = peer(Config),
    C = start(Config, #{initialized => auto, get_stream => false}),
    http_peer:json(asked(C, P, initialize(1)), initialized(1)),
    Confirmed = http_peer:next(P),
    ?assertMatch(#{<<"method">> := <<"notifications/initialized">>}, http_peer:body(Confirmed)),
    _ = messages(C, 1),
    ok = ?CLIENT:send(C, call(2, <<"tools/list">>)),
    http_peer:none(P, 50),
    http_peer:accepted(Confirmed),
    ?assertMatch(#{<<"id">> := 2}, http_peer:body(http_peer:next(P))).

%% ---- Streamable HTTP, 2026-07-28

modern_headers_mirror_the_body(Config) ->
    P = peer(Config),
    C = start(Config),
    Check = fun(Id, Method, Params, Name) ->
        Trace = #{<<"traceparent">> => <<"00-0af7-b7ad-01">>},
        R = asked(C, P, modern(Id, Method, Params, Trace)),
        post(R),
        ?assertEqual(<<"2026-07-28">>, http_peer:header(<<"mcp-protocol-version">>, R)),
        ?assertEqual(Method, http_peer:header(<<"mcp-method">>, R)),
        ?assertEqual(Name, http_peer:header(<<"mcp-name">>, R)),
        ?assertMatch(
            #{<<"params">> := #{<<"_meta">> := #{<<"traceparent">> := <<"00-0af7-b7ad-01">>}}},
            http_peer:body(R)
        ),
        http_peer:json(R, result(Id, #{})),
        ?assertMatch([#{<<"id">> := Id}], messages(C, 1))
    end,
    Check(1, <<"server/discover">>, #{}, none),
    Check(2, <<"tools/call">>, #{<<"name">> => <<"echo">>}, <<"echo">>),
    Check(3, <<"prompts/get">>, #{<<"name">> => <<"p q">>}, <<"p q">>),
    Check(4, <<"resources/read">>, #{<<"uri">> => <<"file:///a">>}, <<"file:///a">>),
    Check(5, <<"tools/call">>, #{<<"name">> => <<"é"/utf8>>}, <<"=?base64?w6k=?=">>),
    %% What names no revision belongs to the last one.
    Note = asked(C, P, note(<<"notifications/x">>)),
    ?assertEqual(<<"2026-07-28">>, http_peer:header(<<"mcp-protocol-version">>, Note)).

modern_responses_are_not_sent(Config) ->
    P = peer(Config),
    C = start(Config),
    _ = asked(C, P, modern(1, <<"tools/list">>, #{})),
    Response = erlmcp_native_json:encode(result(7, #{})),
    ?assertEqual({error, not_allowed}, ?CLIENT:send(C, Response)).

modern_comments_are_ignored(Config) ->
    P = peer(Config),
    C = start(Config, #{timeout_ms => 300}),
    R = streamed(C, P, modern(1, <<"tools/call">>, #{<<"name">> => <<"t">>})),
    http_peer:event(R, <<":\n">>),
    http_peer:event(R, <<": still here\n">>),
    http_peer:event(R, #{data => result(1, #{})}),
    http_peer:finish(R),
    ?assertMatch([#{<<"id">> := 1}], messages(C, 1)).

modern_cancel_closes_the_stream(Config) ->
    P = peer(Config),
    C = start(Config),
    R = streamed(C, P, modern(1, <<"tools/call">>, #{<<"name">> => <<"t">>})),
    ok = ?CLIENT:cancel(C, 1),
    http_peer:gone(R),
    ?assertEqual({failed, 1, cancelled}, event(C)),
    %% The same for an owner that knows the way of stdio.
    R2 = asked(C, P, modern(2, <<"tools/call">>, #{<<"name">> => <<"t">>})),
    ok = ?CLIENT:send(C, note(<<"notifications/cancelled">>, #{<<"requestId">> => 2})),
    http_peer:gone(R2),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    http_peer:none(P, 50).

modern_streams_are_not_resumed(Config) ->
    P = peer(Config),
    C = start(Config),
    R = streamed(C, P, modern(1, <<"tools/call">>, #{<<"name">> => <<"t">>})),
    http_peer:event(R, #{id => <<"x">>, data => note_map(<<"n">>)}),
    http_peer:cut(R),
    _ = messages(C, 1),
    ?assertEqual({failed, 1, closed}, event(C)),
    http_peer:none(P, 50).

modern_errors_are_responses(Config) ->
    P = peer(Config),
    C = start(Config),
    Check = fun(Id, Status, Code) ->
        ok = ?CLIENT:send(C, modern(Id, <<"tools/list">>, #{})),
        Body = erlmcp_native_json:encode(error_map(Id, Code)),
        http_peer:answer(http_peer:next(P), Status, [], Body),
        ?assertMatch([#{<<"id">> := Id, <<"error">> := #{<<"code">> := Code}}], messages(C, 1))
    end,
    Check(1, 404, -32601),
    Check(2, 400, -32020),
    Check(3, 400, -32022),
    http_peer:answer(asked(C, P, modern(4, <<"tools/list">>, #{})), 400, [], <<>>),
    ?assertEqual({failed, 4, {status, 400, <<>>}}, event(C)).

modern_session_ids_are_ignored(Config) ->
    P = peer(Config),
    C = start(Config),
    ok = ?CLIENT:send(C, modern(1, <<"server/discover">>, #{})),
    http_peer:json(http_peer:next(P), [{<<"mcp-session-id">>, <<"s">>}], result(1, #{})),
    _ = messages(C, 1),
    R = asked(C, P, modern(2, <<"tools/list">>, #{})),
    ?assertEqual(none, http_peer:header(<<"mcp-session-id">>, R)),
    http_peer:answer(R, 404, [], <<>>),
    ?assertEqual({failed, 2, {status, 404, <<>>}}, event(C)),
    ok = ?CLIENT:close(C),
    http_peer:none(P, 0).

modern_tools_are_checked(Config) ->
    P = peer(Config),
    C = start(Config),
    Good = #{<<"type">> => <<"string">>, <<"x-mcp-header">> => <<"Region">>},
    Bad = #{<<"type">> => <<"number">>, <<"x-mcp-header">> => <<"N">>},
    Tools = [
        (tool(#{<<"r">> => Good}))#{<<"name">> := <<"good">>},
        (tool(#{<<"n">> => Bad}))#{<<"name">> := <<"bad">>},
        #{<<"name">> => <<"plain">>}
    ],
    ok = ?CLIENT:send(C, modern(1, <<"tools/list">>, #{})),
    http_peer:json(http_peer:next(P), result(1, #{<<"tools">> => Tools})),
    [#{<<"result">> := #{<<"tools">> := Kept}}] = messages(C, 1),
    ?assertEqual([<<"good">>, <<"plain">>], [Name || #{<<"name">> := Name} <- Kept]).

modern_params_are_mirrored(Config) ->
    P = peer(Config),
    C = start(Config),
    Mark = fun(Type, Name) -> #{<<"type">> => Type, <<"x-mcp-header">> => Name} end,
    Tool = tool(#{
        <<"s">> => Mark(<<"string">>, <<"Str">>),
        <<"i">> => Mark(<<"integer">>, <<"Int">>),
        <<"b">> => Mark(<<"boolean">>, <<"Bool">>),
        <<"o">> => #{
            <<"type">> => <<"object">>,
            <<"properties">> => #{<<"d">> => Mark(<<"string">>, <<"Deep">>)}
        }
    }),
    ok = ?CLIENT:send(C, modern(1, <<"tools/list">>, #{})),
    http_peer:json(http_peer:next(P), result(1, #{<<"tools">> => [Tool]})),
    _ = messages(C, 1),
    Headers = fun(Id, Arguments) ->
        Params = #{<<"name">> => <<"t">>, <<"arguments">> => Arguments},
        ok = ?CLIENT:send(C, modern(Id, <<"tools/call">>, Params)),
        #{headers := All} = http_peer:next(P),
        lists:sort([{Name, Value} || {<<"mcp-param-", Name/binary>>, Value} <- All])
    end,
    ?assertEqual(
        [
            {<<"bool">>, <<"false">>},
            {<<"deep">>, <<"=?base64?IHg=?=">>},
            {<<"int">>, <<"-7">>},
            {<<"str">>, <<"us west">>}
        ],
        Headers(2, #{
            <<"s">> => <<"us west">>, <<"i">> => -7, <<"b">> => false,
            <<"o">> => #{<<"d">> => <<" x">>}
        })
    ),
    ?assertEqual([], Headers(3, #{<<"s">> => null, <<"o">> => #{}})).

modern_mismatch_looks_the_tools_up(Config) ->
    P = peer(Config),
    C = start(Config),
    Params = #{<<"name">> => <<"t">>, <<"arguments">> => #{<<"r">> => <<"eu">>}},
    ok = ?CLIENT:send(C, modern(1, <<"tools/call">>, Params)),
    ok = ?CLIENT:send(C, modern(2, <<"tools/call">>, Params)),
    Refuse = fun(R) ->
        Body = erlmcp_native_json:encode(error_map(id(R), -32020)),
        http_peer:answer(R, 400, [], Body)
    end,
    [A, B] = [http_peer:next(P), http_peer:next(P)],
    Refuse(A),
    List = http_peer:next(P),
    ?assertMatch(#{<<"method">> := <<"tools/list">>}, http_peer:body(List)),
    ?assertEqual(<<"2026-07-28">>, http_peer:header(<<"mcp-protocol-version">>, List)),
    Refuse(B),
    Plain = #{<<"name">> => <<"u">>},
    http_peer:json(List, result(id(List), #{<<"tools">> => [Plain], <<"nextCursor">> => <<"2">>})),
    More = http_peer:next(P),
    ?assertMatch(#{<<"params">> := #{<<"cursor">> := <<"2">>}}, http_peer:body(More)),
    %% Both refusals have arrived.
    until(fun() -> maps:get(active, maps:get(http, element(2, ?CLIENT:info(C)))) =:= 1 end),
    Mark = #{<<"type">> => <<"string">>, <<"x-mcp-header">> => <<"Region">>},
    http_peer:json(More, result(id(More), #{<<"tools">> => [tool(#{<<"r">> => Mark})]})),
    Calls = [http_peer:next(P), http_peer:next(P)],
    [
        begin
            ?assertEqual(<<"eu">>, http_peer:header(<<"mcp-param-region">>, R)),
            http_peer:json(R, result(id(R), #{}))
        end
     || R <- Calls
    ],
    ?assertEqual([1, 2], lists:sort([Id || #{<<"id">> := Id} <- messages(C, 2)])).

modern_mismatch_that_stays(Config) ->
    P = peer(Config),
    C = start(Config),
    Refuse = fun() ->
        R = http_peer:next(P),
        http_peer:answer(R, 400, [], erlmcp_native_json:encode(error_map(id(R), -32020)))
    end,
    Call = fun(Id) ->
        ok = ?CLIENT:send(C, modern(Id, <<"tools/call">>, #{<<"name">> => <<"t">>})),
        Refuse()
    end,
    Call(1),
    List = http_peer:next(P),
    http_peer:json(List, result(id(List), #{<<"tools">> => []})),
    Refuse(),
    ?assertMatch([#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32020}}], messages(C, 1)),
    Call(2),
    http_peer:answer(http_peer:next(P), 500, [], <<>>),
    ?assertMatch([#{<<"id">> := 2, <<"error">> := #{<<"code">> := -32020}}], messages(C, 1)),
    Call(3),
    Refused = http_peer:next(P),
    http_peer:json(Refused, error_map(id(Refused), -32601)),
    ?assertMatch([#{<<"id">> := 3, <<"error">> := #{<<"code">> := -32020}}], messages(C, 1)),
    http_peer:none(P, 50).

%% ---- time

requests_time_out_and_are_cancelled(Config) ->
    P = peer(Config),
    C = ready(Config, #{timeout_ms => 200}),
    R = asked(C, P, call(2, <<"tools/call">>)),
    ?assertEqual({failed, 2, timeout}, event(C)),
    ?assertMatch(
        #{<<"method">> := <<"notifications/cancelled">>, <<"params">> := #{<<"requestId">> := 2}},
        http_peer:body(http_peer:next(P))
    ),
    http_peer:gone(R).

initialize_times_out_and_is_not_cancelled(Config) ->
    P = peer(Config),
    C = start(Config, #{timeout_ms => 100}),
    _ = asked(C, P, initialize(1)),
    ok = ?CLIENT:send(C, note(<<"notifications/x">>)),
    ?assertEqual({failed, 1, timeout}, event(C)),
    %% What was held is sent, and nothing else.
    ?assertMatch(#{<<"method">> := <<"notifications/x">>}, http_peer:body(http_peer:next(P))),
    http_peer:none(P, 50).

progress_extends_up_to_a_cap(Config) ->
    P = peer(Config),
    C = ready(Config, #{timeout_ms => 400, total_timeout_ms => 1000}),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    Since = erlang:monotonic_time(millisecond),
    Progress = fun Again(N) ->
        http_peer:event(R, #{data => note_map(<<"notifications/progress">>)}),
        receive
            {erlmcp_native, C, {failed, 2, timeout}} -> N
        after 150 -> Again(N + 1)
        end
    end,
    ?assert(Progress(0) >= 3),
    ?assert(erlang:monotonic_time(millisecond) - Since >= 900).

requests_have_timeouts_of_their_own(Config) ->
    P = peer(Config),
    C = ready(Config, #{timeout_ms => 100}),
    ok = ?CLIENT:send(C, call(2, <<"tools/call">>), #{timeout_ms => infinity}),
    R = http_peer:next(P),
    ok = ?CLIENT:send(C, call(3, <<"tools/call">>), #{total_timeout_ms => 50}),
    ?assertEqual({failed, 3, timeout}, event(C)),
    receive
        {erlmcp_native, C, Event} -> error(Event)
    after 200 -> ok
    end,
    http_peer:json(R, result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)),
    [
        ?assertEqual(
            {error, {option, Key, Value}},
            ?CLIENT:send(C, call(4, <<"ping">>), #{Key => Value})
        )
     || {Key, Value} <- [{timeout_ms, 0}, {total_timeout_ms, x}, {other, 1}]
    ].

subscriptions_do_not_time_out(Config) ->
    P = peer(Config),
    C = start(Config, #{timeout_ms => 50}),
    R = streamed(C, P, modern(1, <<"subscriptions/listen">>, #{})),
    receive
        {erlmcp_native, C, Event} -> error(Event)
    after 200 -> ok
    end,
    http_peer:event(R, #{data => note_map(<<"notifications/tools/list_changed">>)}),
    ?assertMatch([#{<<"method">> := _}], messages(C, 1)).

late_responses_are_ignored(Config) ->
    P = peer(Config),
    C = ready(Config, #{}, stream),
    Stream = http_peer:next(P, <<"GET">>),
    http_peer:stream(Stream),
    _ = asked(C, P, call(2, <<"tools/call">>)),
    ok = ?CLIENT:cancel(C, 2),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    http_peer:event(Stream, #{data => result(2, #{})}),
    http_peer:event(Stream, #{data => result(77, #{})}),
    http_peer:event(Stream, #{data => <<"{}">>}),
    http_peer:event(Stream, #{data => <<"no json">>}),
    http_peer:event(Stream, #{event => <<"other">>, data => result(2, #{})}),
    http_peer:event(Stream, #{data => note_map(<<"n">>)}),
    ?assertMatch([#{<<"method">> := <<"n">>}], messages(C, 1)),
    ?assertMatch({ok, #{ignored := 4}}, ?CLIENT:info(C)).

%% ---- authorization

token_in_a_header_of_every_request(Config) ->
    P = peer(Config),
    C = ready(Config, #{headers => [{"Authorization", "Bearer t1"}]}, stream),
    Token = fun(R) -> http_peer:header(<<"authorization">>, R) end,
    ?assertEqual(<<"Bearer t1">>, Token(http_peer:next(P, <<"GET">>))),
    ok = ?CLIENT:send(C, call(2, <<"ping">>)),
    ?assertEqual(<<"Bearer t1">>, Token(http_peer:next(P))),
    Closing = closing(C),
    Delete = http_peer:next(P),
    ?assertEqual(<<"Bearer t1">>, Token(Delete)),
    http_peer:answer(Delete, 200, [], <<>>),
    closed(Closing).

tokens_that_change(Config) ->
    P = peer(Config),
    Counter = counters:new(1, []),
    C = start(Config, #{headers => {?MODULE, token, [Counter]}}),
    Token = fun(Id) ->
        ok = ?CLIENT:send(C, call(Id, <<"ping">>)),
        http_peer:header(<<"authorization">>, http_peer:next(P))
    end,
    ?assertEqual(<<"Bearer 1">>, Token(1)),
    ?assertEqual(<<"Bearer 2">>, Token(2)),
    ?assertEqual({error, headers}, ?CLIENT:send(C, call(3, <<"ping">>))).

token(Counter) ->
    ok = counters:add(Counter, 1, 1),
    case counters:get(Counter, 1) of
        3 -> [{"a b", "broken"}];
        N -> [{"Authorization", ["Bearer ", integer_to_list(N)]}]
    end.

unauthorized_and_forbidden(Config) ->
    P = peer(Config),
    C = start(Config),
    Challenge = <<"Bearer resource_metadata=\"https://h/.well-known/x\"">>,
    [
        begin
            R = asked(C, P, call(Status, <<"ping">>)),
            http_peer:answer(R, Status, [{<<"www-authenticate">>, Challenge}], <<"no">>),
            ?assertEqual({failed, Status, {Reason, Challenge}}, event(C))
        end
     || {Status, Reason} <- [{401, unauthorized}, {403, forbidden}]
    ].

%% ---- faults

redirects_are_followed(Config) ->
    P = peer(Config),
    C = ready(Config),
    [
        begin
            R = asked(C, P, call(Status, <<"tools/call">>)),
            http_peer:answer(R, Status, [{<<"location">>, <<"/there?x">>}], <<>>),
            There = http_peer:next(P),
            ?assertMatch(#{method := <<"POST">>, target := <<"/there?x">>}, There),
            ?assertEqual(maps:get(body, R), maps:get(body, There)),
            ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, There)),
            http_peer:json(There, result(Status, #{})),
            ?assertMatch([#{<<"id">> := Status}], messages(C, 1))
        end
     || Status <- [307, 308]
    ].

credentials_stay_at_home(Config) ->
    P = peer(Config),
    Other = http_peer:listen(),
    C = ready(Config, #{headers => [{"Authorization", "Bearer t"}, {"X-Key", "k"}]}),
    R = asked(C, P, call(2, <<"tools/call">>)),
    ?assertEqual(<<"k">>, http_peer:header(<<"x-key">>, R)),
    http_peer:answer(R, 307, [{<<"location">>, http_peer:url(Other)}], <<>>),
    There = http_peer:next(Other),
    [
        ?assertEqual({Name, none}, {Name, http_peer:header(Name, There)})
     || Name <- [<<"authorization">>, <<"x-key">>, <<"mcp-session-id">>]
    ],
    http_peer:json(There, result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

redirects_that_lead_nowhere(Config) ->
    P = peer(Config),
    C = start(Config, #{max_redirects => 2, http_sse => false}),
    Refused = fun(Id, Status, Headers) ->
        http_peer:answer(asked(C, P, call(Id, <<"ping">>)), Status, Headers, <<>>),
        ?assertEqual({failed, Id, {redirect, Status}}, event(C))
    end,
    Refused(1, 302, [{<<"location">>, <<"/x">>}]),
    Refused(2, 301, [{<<"location">>, <<"/x">>}]),
    Refused(3, 307, []),
    Refused(4, 307, [{<<"location">>, <<"ftp://h/">>}]),
    Refused(5, 307, [{<<"location">>, <<"http://u:p@h/">>}]),
    ok = ?CLIENT:send(C, call(6, <<"ping">>)),
    Round = fun() ->
        http_peer:answer(http_peer:next(P), 307, [{<<"location">>, <<"/round">>}], <<>>)
    end,
    [Round() || _ <- [1, 2, 3]],
    ?assertEqual({failed, 6, {redirect, 307}}, event(C)).

busy_servers_are_asked_again(Config) ->
    P = peer(Config),
    C = start(Config, #{retries => 2}),
    Busy = fun(Status, After) ->
        http_peer:answer(http_peer:next(P), Status, [{<<"retry-after">>, After}], <<>>)
    end,
    ok = ?CLIENT:send(C, call(1, <<"tools/call">>)),
    Since = erlang:monotonic_time(millisecond),
    Busy(429, <<"1">>),
    R = http_peer:next(P),
    ?assert(erlang:monotonic_time(millisecond) - Since >= 900),
    http_peer:json(R, result(1, #{})),
    _ = messages(C, 1),
    %% What may be said twice.
    ok = ?CLIENT:send(C, call(2, <<"tools/list">>)),
    [Busy(503, <<"0">>) || _ <- [1, 2, 3]],
    ?assertEqual({failed, 2, {status, 503, <<>>}}, event(C)),
    %% Longer than anybody waits.
    ok = ?CLIENT:send(C, call(3, <<"tools/list">>)),
    Busy(503, <<"3600">>),
    ?assertEqual({failed, 3, {status, 503, <<>>}}, event(C)).

failures_are_not_repeated_where_unsafe(Config) ->
    P = peer(Config),
    C = start(Config),
    ok = ?CLIENT:send(C, call(1, <<"tools/call">>)),
    http_peer:answer(http_peer:next(P), 503, [{<<"retry-after">>, <<"0">>}], <<>>),
    ?assertEqual({failed, 1, {status, 503, <<>>}}, event(C)),
    http_peer:cut(asked(C, P, call(2, <<"tools/call">>))),
    ?assertMatch({failed, 2, Reason} when is_atom(Reason), event(C)),
    http_peer:none(P, 50),
    %% The owner may allow it.
    U = start(Config, #{retry_unsafe => true, retry_min_ms => 1}),
    ok = ?CLIENT:send(U, call(1, <<"tools/call">>)),
    http_peer:answer(http_peer:next(P), 503, [{<<"retry-after">>, <<"0">>}], <<>>),
    http_peer:cut(http_peer:next(P)),
    http_peer:json(http_peer:next(P), result(1, #{})),
    ?assertMatch([#{<<"id">> := 1}], messages(U, 1)).

server_that_is_not_there(Config) ->
    P = peer(Config),
    Url = http_peer:url(P),
    ok = http_peer:close(P),
    {ok, C} = ?CLIENT:start(Url, #{path => path(Config), retries => 2, retry_min_ms => 1}),
    ok = ?CLIENT:send(C, call(1, <<"tools/call">>)),
    ?assertEqual({failed, 1, refused}, event(C)),
    ok = ?CLIENT:send(C, note(<<"notifications/x">>)),
    ?assertEqual({failed, none, refused}, event(C)),
    ?assertMatch({ok, #{pending := 0}}, ?CLIENT:info(C)),
    ok = ?CLIENT:close(C).

answer_that_is_none(Config) ->
    P = peer(Config),
    C = start(Config),
    Answer = fun(Id, Status, Type, Body) ->
        ok = ?CLIENT:send(C, call(Id, <<"ping">>)),
        http_peer:answer(http_peer:next(P), Status, [{<<"content-type">>, Type}], Body),
        event(C)
    end,
    Json = <<"application/json">>,
    ?assertEqual({failed, 1, no_response}, Answer(1, 202, Json, <<>>)),
    ?assertEqual({failed, 2, no_response}, Answer(2, 200, <<"text/html">>, <<"<p>">>)),
    ?assertEqual({failed, 3, no_response}, Answer(3, 200, Json, <<"{\"jsonrpc\"">>)),
    Other = erlmcp_native_json:encode(result(99, #{})),
    ?assertEqual({failed, 4, no_response}, Answer(4, 200, Json, Other)),
    ?assertEqual({failed, 5, closed}, Answer(5, 200, <<"text/event-stream">>, <<": x\n\n">>)),
    ?assertEqual({failed, 6, {status, 500, <<"oops">>}}, Answer(6, 500, Json, <<"oops">>)).

answer_that_is_cut_off(Config) ->
    P = peer(Config),
    C = start(Config),
    R = asked(C, P, call(1, <<"tools/call">>)),
    http_peer:raw(R, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"),
    http_peer:raw(R, "content-length: 100\r\n\r\n{"),
    http_peer:cut(R),
    ?assertMatch({failed, 1, Reason} when is_atom(Reason), event(C)),
    Garbage = asked(C, P, call(2, <<"tools/call">>)),
    http_peer:raw(Garbage, "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    ?assertEqual({failed, 2, protocol}, event(C)).

message_too_large(Config) ->
    P = peer(Config),
    C = ready(Config, #{max_message_bytes => 1000}),
    Large = #{<<"x">> => binary:copy(<<"x">>, 2000)},
    http_peer:json(asked(C, P, call(2, <<"tools/call">>)), result(2, Large)),
    ?assertEqual({failed, 2, message_too_large}, event(C)),
    R = streamed(C, P, call(3, <<"tools/call">>)),
    http_peer:event(R, #{data => note_map(<<"n">>)}),
    ?assertMatch([#{<<"method">> := <<"n">>}], messages(C, 1)),
    http_peer:event(R, #{data => result(3, Large)}),
    ?assertEqual({failed, 3, message_too_large}, event(C)),
    %% A refusal may say what it likes, but is not kept.
    ok = ?CLIENT:send(C, call(4, <<"tools/call">>)),
    http_peer:answer(http_peer:next(P), 500, [], binary:copy(<<"y">>, 1000000)),
    {failed, 4, {status, 500, Body}} = event(C),
    ?assert(byte_size(Body) < 500000).

refusals_of_notifications(Config) ->
    P = peer(Config),
    C = ready(Config),
    http_peer:answer(asked(C, P, note(<<"notifications/x">>)), 400, [], <<"no">>),
    ?assertEqual({failed, none, {status, 400, <<"no">>}}, event(C)),
    http_peer:answer(asked(C, P, note(<<"notifications/x">>)), 204, [], <<>>),
    http_peer:json(asked(C, P, call(2, <<"ping">>)), result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

slow_owner_makes_the_server_wait(Config) ->
    P = peer(Config),
    Options = #{max_owner_queue => 10, high_water_bytes => 65536},
    C = ready(Config, Options),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    Note = (note_map(<<"n">>))#{<<"params">> => #{<<"x">> => binary:copy(<<"x">>, 10000)}},
    Text = erlmcp_native_json:encode(Note),
    [http_peer:event(R, #{data => Text}) || _ <- lists:seq(1, 2000)],
    http_peer:event(R, #{data => result(2, #{})}),
    http_peer:finish(R),
    until(fun() -> queue_length() >= 10 end),
    %% Of 20 MB far less than all is here, and it stays so.
    receive
    after 300 -> ok
    end,
    ?assert(queue_length() < 50),
    ?assertEqual(2001, length(messages(C, 2001))).

pending_is_bounded(Config) ->
    P = peer(Config),
    C = start(Config, #{max_pending => 2}),
    ok = ?CLIENT:send(C, call(1, <<"ping">>)),
    ok = ?CLIENT:send(C, call(2, <<"ping">>)),
    ?assertEqual({error, busy}, ?CLIENT:send(C, call(3, <<"ping">>))),
    R = http_peer:next(P),
    http_peer:json(R, result(id(R), #{})),
    _ = messages(C, 1),
    ok = ?CLIENT:send(C, call(3, <<"ping">>)).

owner_that_dies_ends_the_session(Config) ->
    P = peer(Config),
    Test = self(),
    Owner = spawn(fun() ->
        receive
            {run, C} ->
                Test ! {initialized, ?CLIENT:initialize(C, #{}, ?WAIT)},
                receive
                    stop -> ok
                end
        end
    end),
    {ok, C} = ?CLIENT:start(http_peer:url(P), #{
        path => path(Config), owner => Owner, get_stream => false
    }),
    Owner ! {run, C},
    R = http_peer:next(P),
    Headers = [{<<"mcp-session-id">>, <<"s1">>}],
    http_peer:json(R, Headers, initialized(id(R))),
    http_peer:accepted(http_peer:next(P)),
    receive
        {initialized, Result} -> ?assertMatch({ok, #{}}, Result)
    end,
    Monitor = monitor(process, C),
    Owner ! stop,
    Delete = http_peer:next(P, <<"DELETE">>),
    ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, Delete)),
    http_peer:answer(Delete, 200, [], <<>>),
    receive
        {'DOWN', Monitor, process, C, Reason} -> ?assertEqual(normal, Reason)
    after ?WAIT -> error(timeout)
    end.

close_gives_up_what_is_pending(Config) ->
    P = peer(Config),
    C = start(Config),
    R = streamed(C, P, call(1, <<"tools/call">>)),
    ok = ?CLIENT:close(C),
    http_peer:gone(R).

linked_to_its_owner(Config) ->
    {ok, C} = ?CLIENT:start_link(http_peer:url(peer(Config)), #{path => path(Config)}),
    {links, Links} = process_info(self(), links),
    ?assert(lists:member(C, Links)),
    ok = ?CLIENT:close(C),
    receive
        {'EXIT', C, normal} -> ok
    after ?WAIT -> error(timeout)
    end.

resumption_that_is_refused(Config) ->
    P = peer(Config),
    C = ready(Config),
    [
        begin
            R = streamed(C, P, call(Status, <<"tools/call">>)),
            http_peer:event(R, #{id => <<"e">>, retry => 1}),
            http_peer:finish(R),
            http_peer:answer(http_peer:next(P, <<"GET">>), Status, [], <<>>),
            ?assertEqual({failed, Status, Reason}, event(C))
        end
     || {Status, Reason} <- [
            {405, {status, 405, <<>>}}, {400, {status, 400, <<>>}}, {401, {unauthorized, <<>>}}
        ]
    ].

session_lost_while_resuming(Config) ->
    P = peer(Config),
    C = ready(Config, #{reinitialize => true}),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    http_peer:event(R, #{id => <<"e">>, retry => 1}),
    http_peer:finish(R),
    http_peer:answer(http_peer:next(P, <<"GET">>), 404, [], <<>>),
    %% Nobody knows how far it got.
    ?assertEqual({failed, 2, session_lost}, event(C)),
    Again = http_peer:next(P, <<"POST">>),
    ?assertMatch(#{<<"method">> := <<"initialize">>}, http_peer:body(Again)),
    %% A new session that is refused is none.
    http_peer:answer(Again, 500, [], <<>>),
    ?assertEqual(session_lost, event(C)).

session_that_is_refused_again(Config) ->
    P = peer(Config),
    C = ready(Config, #{reinitialize => true}),
    http_peer:answer(asked(C, P, call(2, <<"tools/call">>)), 404, [], <<>>),
    %% It is no older server all of a sudden.
    http_peer:answer(http_peer:next(P), 404, [], <<>>),
    ?assertEqual(session_lost, event(C)),
    ?assertEqual({failed, 2, session_lost}, event(C)),
    http_peer:none(P, 50).

session_lost_beside_modern_requests(Config) ->
    P = peer(Config),
    C = ready(Config),
    Modern = asked(C, P, modern(2, <<"tools/call">>, #{<<"name">> => <<"t">>})),
    ?assertEqual(none, http_peer:header(<<"mcp-session-id">>, Modern)),
    http_peer:answer(asked(C, P, call(3, <<"tools/call">>)), 404, [], <<>>),
    ?assertEqual(session_lost, event(C)),
    ?assertEqual({failed, 3, session_lost}, event(C)),
    http_peer:json(Modern, result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

%% Its own stream is not waited for long.
response_on_another_stream(Config) ->
    P = peer(Config),
    C = ready(Config, #{timeout_ms => 300}),
    R2 = streamed(C, P, call(2, <<"tools/call">>)),
    R3 = streamed(C, P, call(3, <<"tools/call">>)),
    http_peer:event(R3, #{data => result(2, #{})}),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)),
    http_peer:event(R3, #{data => result(3, #{})}),
    ?assertMatch([#{<<"id">> := 3}], messages(C, 1)),
    http_peer:gone(R2),
    http_peer:gone(R3).

initialize_leaves_what_is_not_its_own(Config) ->
    P = peer(Config),
    Test = self(),
    Owner = spawn_link(fun() ->
        receive
            {run, C} ->
                Test ! {?CLIENT:initialize(C, #{}, ?WAIT), messages(C, 1)},
                receive
                    stop -> ok
                end
        end
    end),
    Owner ! {run, start(Config, #{owner => Owner, get_stream => false})},
    R = http_peer:next(P),
    http_peer:stream(R),
    http_peer:event(R, #{data => note_map(<<"n">>)}),
    http_peer:event(R, #{data => initialized(id(R))}),
    http_peer:accepted(http_peer:next(P)),
    receive
        {Result, Rest} ->
            ?assertMatch({ok, #{<<"protocolVersion">> := _}}, Result),
            ?assertMatch([#{<<"method">> := <<"n">>}], Rest)
    after ?WAIT -> error(timeout)
    end.

session_that_does_not_help(Config) ->
    P = peer(Config),
    C = ready(Config, #{reinitialize => true, get_stream => false}, none),
    http_peer:answer(asked(C, P, call(2, <<"tools/call">>)), 404, [], <<>>),
    http_peer:json(http_peer:next(P), [{<<"mcp-session-id">>, <<"s2">>}], initialized(1)),
    http_peer:accepted(http_peer:next(P)),
    ?assertEqual(session_renewed, event(C)),
    http_peer:answer(http_peer:next(P), 404, [], <<>>),
    ?assertEqual(session_lost, event(C)),
    ?assertEqual({failed, 2, session_lost}, event(C)),
    http_peer:none(P, 50).

get_that_is_not_found(Config) ->
    P = peer(Config),
    C = ready(Config, #{reinitialize => true}, stream),
    http_peer:answer(http_peer:next(P, <<"GET">>), 404, [], <<>>),
    http_peer:json(asked(C, P, call(2, <<"ping">>)), result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)),
    http_peer:none(P, 50),
    %% Where there was a stream it means the session.
    D = ready(Config, #{reinitialize => true, retry_min_ms => 1}, stream),
    Stream = http_peer:next(P, <<"GET">>),
    http_peer:stream(Stream),
    http_peer:event(Stream, #{data => note_map(<<"n">>)}),
    _ = messages(D, 1),
    http_peer:finish(Stream),
    http_peer:answer(http_peer:next(P, <<"GET">>), 404, [], <<>>),
    ?assertMatch(#{<<"method">> := <<"initialize">>}, http_peer:body(http_peer:next(P))).

%% From 2026-07-28 on an id is free when its request was answered. The stream may still be there.
id_that_is_used_again(Config) ->
    P = peer(Config),
    C = start(Config),
    Call = modern(1, <<"tools/call">>, #{<<"name">> => <<"t">>}),
    First = streamed(C, P, Call),
    http_peer:event(First, #{data => result(1, #{<<"n">> => 1})}),
    ?assertMatch([#{<<"result">> := #{<<"n">> := 1}}], messages(C, 1)),
    Second = asked(C, P, Call),
    http_peer:cut(First),
    http_peer:json(Second, result(1, #{<<"n">> => 2})),
    ?assertMatch([#{<<"result">> := #{<<"n">> := 2}}], messages(C, 1)).

cancelled_while_it_waits_to_resume(Config) ->
    P = peer(Config),
    C = ready(Config),
    R = streamed(C, P, call(2, <<"tools/call">>)),
    http_peer:event(R, #{id => <<"e">>, data => note_map(<<"n">>), retry => 60000}),
    _ = messages(C, 1),
    http_peer:finish(R),
    until(fun() -> maps:get(active, maps:get(http, element(2, ?CLIENT:info(C)))) =:= 0 end),
    ok = ?CLIENT:cancel(C, 2),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    ?assertMatch(
        #{<<"method">> := <<"notifications/cancelled">>}, http_peer:body(http_peer:next(P))
    ).

garbage_is_survived(Config) ->
    P = peer(Config),
    C = ready(Config, #{max_resumes => 0, max_message_bytes => 2000}),
    Pieces = [
        <<"data: {}\n\n">>, <<"id: 1\n">>, <<"retry: 1\n">>, <<"data: [1,{},[]]\n\n">>, <<"\r">>,
        <<"data: {\"jsonrpc\":\"2.0\",\"id\":null,\"result\":1}\n\n">>, <<"\n\n">>, <<255, 0>>,
        <<"data: {\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"x\"}\n\n">>, <<"event: endpoint\n">>,
        <<"{\"jsonrpc\":\"2.0\",\"id\":99,\"error\":7}">>, <<"[]">>, <<"data\n">>, <<":\n">>
    ],
    Body = fun() ->
        Length = rand:uniform(8),
        Piece = fun(_) -> lists:nth(rand:uniform(length(Pieces)), Pieces) end,
        iolist_to_binary(lists:map(Piece, lists:seq(1, Length)))
    end,
    Types = [<<"application/json">>, <<"text/event-stream">>, <<"text/plain">>, <<";;">>],
    Try = fun(Id) ->
        ok = ?CLIENT:send(C, call(Id, <<"tools/call">>)),
        Type = {<<"content-type">>, lists:nth(rand:uniform(4), Types)},
        Status = lists:nth(rand:uniform(4), [200, 200, 400, 500]),
        http_peer:answer(http_peer:next(P, <<"POST">>), Status, [Type], Body()),
        ?assertMatch({failed, Id, _}, event(C))
    end,
    [Try(Id) || Id <- lists:seq(100, 250)],
    ok = ?CLIENT:send(C, call(2, <<"ping">>)),
    http_peer:json(http_peer:next(P, <<"POST">>), result(2, #{})),
    ?assertMatch([#{<<"id">> := 2}], messages(C, 1)).

%% ---- our own server

our_server_answers(Config) ->
    [
        begin
            {_, C} = served(Config, #{}, #{revision => Revision}),
            {ok, Result} = ?CLIENT:initialize(C, #{}, ?WAIT),
            ?assertMatch(#{<<"protocolVersion">> := Revision}, Result),
            ok = ?CLIENT:send(C, call(1, <<"tools/list">>)),
            ?assertMatch([#{<<"result">> := #{<<"tools">> := [_ | _]}}], messages(C, 1)),
            ?assertEqual(<<"hello">>, tool(C, 2, <<"echo">>, #{<<"text">> => <<"hello">>})),
            ok = ?CLIENT:close(C)
        end
     || Revision <- [<<"2025-03-26">>, <<"2025-06-18">>, <<"2025-11-25">>]
    ].

our_server_streams_and_asks(Config) ->
    {_, C} = served(Config, #{}, #{}),
    {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
    ok = ?CLIENT:send(C, tool_call(1, <<"ask">>, #{})),
    [#{<<"method">> := <<"notifications/progress">>}, #{<<"id">> := Id}] = messages(C, 2),
    ok = ?CLIENT:send(C, erlmcp_native_json:encode(result(Id, #{<<"text">> => <<"me">>}))),
    ?assertEqual(<<"me">>, text(C, 1)).

our_server_closes_the_stream_and_is_polled(Config) ->
    {_, C} = served(Config, #{retry_ms => 50}, #{}),
    {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
    ok = ?CLIENT:send(C, tool_call(1, <<"poll">>, #{})),
    Pid = receive {polled, Handler} -> Handler after ?WAIT -> error(timeout) end,
    Pid ! go_on,
    ?assertEqual(<<"polled">>, text(C, 1)).

our_server_sends_on_the_get_stream(Config) ->
    {_, C} = served(Config, #{}, #{}),
    {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
    until(fun() -> listening(C) end),
    {ok, #{session := Session}} = ?CLIENT:info(C),
    ok = erlmcp_native_http:send(Session, <<"notifications/tools/list_changed">>, #{}),
    ?assertMatch([#{<<"method">> := <<"notifications/tools/list_changed">>}], messages(C, 1)).

listening(C) ->
    {ok, #{listening := Listening}} = ?CLIENT:info(C),
    Listening.

our_server_ends_the_session(Config) ->
    {Server, C} = served(Config, #{}, #{reinitialize => true, get_stream => false}),
    {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
    until(fun() -> maps:get(phase, element(2, ?CLIENT:info(C))) =:= ready end),
    {ok, #{session := First}} = ?CLIENT:info(C),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Server),
    ok = erlmcp_native_http:close(Server),
    %% What is sent on a connection that the server has just closed is answered `closed': whether
    %% it was heard is not known.
    until(fun() -> maps:get(connections, maps:get(http, element(2, ?CLIENT:info(C)))) =:= 0 end),
    _ = serve(Config, Port, #{}),
    ok = ?CLIENT:send(C, tool_call(1, <<"echo">>, #{<<"text">> => <<"again">>})),
    ?assertEqual(session_renewed, event(C)),
    ?assertEqual(<<"again">>, text(C, 1)),
    {ok, #{session := Second}} = ?CLIENT:info(C),
    ?assertNotEqual(First, Second).

our_server_of_2026(Config) ->
    {_, C} = served(Config, #{}, #{}),
    ok = ?CLIENT:send(C, modern(1, <<"server/discover">>, #{})),
    ?assertMatch([#{<<"id">> := 1, <<"result">> := #{}}], messages(C, 1)),
    Region = fun(Id, Name) ->
        Params = #{<<"name">> => <<"region">>, <<"arguments">> => #{<<"region">> => Name}},
        ok = ?CLIENT:send(C, modern(Id, <<"tools/call">>, Params)),
        [Answer] = messages(C, 1),
        Answer
    end,
    %% Its definition was not seen: it is refused, looked up and called again.
    ?assertMatch(#{<<"result">> := #{}}, Region(2, <<"x">>)),
    ok = ?CLIENT:send(C, modern(3, <<"tools/list">>, #{})),
    ?assertMatch([#{<<"result">> := #{}}], messages(C, 1)),
    ?assertMatch(#{<<"result">> := #{}}, Region(4, <<"eu-west">>)),
    ?assertMatch(#{<<"result">> := #{}}, Region(5, <<"łódź"/utf8>>)),
    ok = ?CLIENT:send(C, modern(6, <<"no/such">>, #{})),
    ?assertMatch([#{<<"error">> := #{<<"code">> := -32601}}], messages(C, 1)).

our_server_of_2024(Config) ->
    Old = #{sse => <<"/sse">>, messages => <<"/messages">>},
    {Server, _} = served(Config, #{http_sse => Old}, #{}),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Server),
    Url = io_lib:format("http://127.0.0.1:~b/sse", [Port]),
    {ok, C} = ?CLIENT:start(lists:flatten(Url), #{
        path => path(Config), revision => <<"2024-11-05">>
    }),
    ?assertMatch({ok, #{}}, ?CLIENT:initialize(C, #{}, ?WAIT)),
    ?assertMatch({ok, #{transport := http_sse}}, ?CLIENT:info(C)),
    ?assertEqual(<<"old">>, tool(C, 1, <<"echo">>, #{<<"text">> => <<"old">>})),
    ok = ?CLIENT:close(C).

our_server_wants_a_token(Config) ->
    Authorize = #{authorize => {?MODULE, authorize, []}},
    {Server, C} = served(Config, Authorize, #{}),
    ?assertMatch(
        {error, {unauthorized, <<"Bearer realm=\"x\"", _/binary>>}},
        ?CLIENT:initialize(C, #{}, ?WAIT)
    ),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Server),
    Token = #{path => path(Config), headers => [{"Authorization", "Bearer good"}]},
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/mcp", [Port])),
    {ok, With} = ?CLIENT:start(Url, Token),
    ?assertMatch({ok, #{}}, ?CLIENT:initialize(With, #{}, ?WAIT)).

authorize(#{headers := Headers}) ->
    case lists:keyfind(<<"authorization">>, 1, Headers) of
        {_, <<"Bearer good">>} -> {ok, me};
        _ -> {unauthorized, <<"realm=\"x\"">>}
    end.

our_server_is_cancelled(Config) ->
    {_, C} = served(Config, #{}, #{}),
    {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
    Cancel = fun(Id, Message) ->
        ok = ?CLIENT:send(C, Message),
        Pid = receive {waiting, Handler} -> Handler after ?WAIT -> error(timeout) end,
        Monitor = monitor(process, Pid),
        ok = ?CLIENT:cancel(C, Id),
        ?assertEqual({failed, Id, cancelled}, event(C)),
        reason(Monitor)
    end,
    Cancel(1, tool_call(1, <<"wait">>, #{})),
    Params = #{<<"name">> => <<"wait">>, <<"arguments">> => #{}},
    Cancel(2, modern(2, <<"tools/call">>, Params)).

our_server_over_tls(Config) ->
    Dir = filename:join([proplists:get_value(priv_dir, Config), path(Config), "certificates"]),
    ok = test_certs:make(Dir),
    File = fun(Name) -> filename:join(Dir, Name) end,
    {_, Port} = serve(Config, 0, #{
        tls => #{certfile => File("server.pem"), keyfile => File("server.key")}
    }),
    Url = lists:flatten(io_lib:format("https://127.0.0.1:~b/mcp", [Port])),
    With = fun(Tls) ->
        {ok, C} = ?CLIENT:start(Url, #{path => path(Config), tls => Tls, retries => 0}),
        {?CLIENT:initialize(C, #{}, ?WAIT), C}
    end,
    {{ok, _}, C} = With(#{cacertfile => File("ca.pem")}),
    ?assertEqual(<<"safe">>, tool(C, 1, <<"echo">>, #{<<"text">> => <<"safe">>})),
    ok = ?CLIENT:close(C),
    ?assertMatch({{error, {tls, unknown_ca}}, _}, With(#{cacertfile => File("other_ca.pem")})),
    %% Nothing goes out in the clear because nothing was said of TLS.
    ?assertMatch({{error, {tls, _}}, _}, With(false)).

our_server_over_http2(Config) ->
    case path(Config) of
        beam ->
            {skip, "the path beam has HTTP/1.1 only"};
        _ ->
            {_, C} = served(Config, #{}, #{protocols => [http2]}),
            {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
            Ids = lists:seq(1, 50),
            Echo = fun(Id) -> tool_call(Id, <<"echo">>, #{<<"text">> => <<"2">>}) end,
            [ok = ?CLIENT:send(C, Echo(Id)) || Id <- Ids],
            Answered = lists:sort([Id || #{<<"id">> := Id} <- messages(C, 50)]),
            ?assertEqual(Ids, Answered),
            ?assertMatch({ok, #{http := #{connections := 1}}}, ?CLIENT:info(C)),
            ok = ?CLIENT:close(C)
    end.

served(Config, Options, ClientOptions) ->
    {Server, Port} = serve(Config, 0, Options),
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/mcp", [Port])),
    {ok, C} = ?CLIENT:start(Url, ClientOptions#{path => path(Config)}),
    {Server, C}.

serve(Config, Port, Options) ->
    Given = Options#{handler => {?MODULE, self()}, path => path(Config)},
    {ok, Server} = erlmcp_native_http:listen(#{port => Port}, Given),
    {ok, #{sockname := {_, At}}} = erlmcp_native_http:info(Server),
    {Server, At}.

tool(C, Id, Name, Arguments) ->
    ok = ?CLIENT:send(C, tool_call(Id, Name, Arguments)),
    text(C, Id).

tool_call(Id, Name, Arguments) ->
    erlmcp_native_json:encode((call_map(Id, <<"tools/call">>))#{
        <<"params">> => #{<<"name">> => Name, <<"arguments">> => Arguments}
    }).

text(C, Id) ->
    [#{<<"id">> := Id, <<"result">> := #{<<"content">> := [#{<<"text">> := Text}]}}] =
        messages(C, 1),
    Text.

%% As its handler.

handle_request(<<"initialize">>, _, #{revision := Revision}) ->
    {reply, maps:get(<<"result">>, initialized(1, Revision))};
handle_request(<<"server/discover">>, _, _) ->
    {reply, #{<<"supportedVersions">> => [<<"2026-07-28">>], <<"capabilities">> => #{}}};
handle_request(<<"tools/list">>, _, _) ->
    Region = #{
        <<"name">> => <<"region">>,
        <<"inputSchema">> => input_schema(<<"region">>, none)
    },
    {reply, #{<<"tools">> => [Region]}};
handle_request(<<"tools/call">>, #{<<"name">> := Name, <<"arguments">> := Arguments}, Context) ->
    {reply, #{
        <<"content">> => [
            #{<<"type">> => <<"text">>, <<"text">> => call_tool(Name, Arguments, Context)}
        ]
    }};
handle_request(_, _, _) ->
    {error, -32601, <<"Method not found">>}.

input_schema(<<"region">>, _) ->
    Mark = #{<<"type">> => <<"string">>, <<"x-mcp-header">> => <<"Region">>},
    maps:get(<<"inputSchema">>, tool(#{<<"region">> => Mark}));
input_schema(_, _) ->
    undefined.

call_tool(<<"echo">>, #{<<"text">> := Text}, _) ->
    Text;
call_tool(<<"region">>, #{<<"region">> := Region}, _) ->
    Region;
call_tool(<<"ask">>, _, #{request := Ref}) ->
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"progress">> => 1}),
    {ok, #{<<"text">> := Text}} = erlmcp_native_http:request(Ref, <<"roots/list">>, #{}, ?WAIT),
    Text;
call_tool(<<"poll">>, _, #{request := Ref, arg := Test}) ->
    ok = erlmcp_native_http:close_stream(Ref),
    Test ! {polled, self()},
    receive
        go_on -> <<"polled">>
    end;
call_tool(<<"wait">>, _, #{arg := Test}) ->
    Test ! {waiting, self()},
    receive
        never -> <<>>
    end.

%% ----

start(Config) -> start(Config, #{}).

start(Config, Options) ->
    Url = http_peer:url(peer(Config)),
    {ok, C} = ?CLIENT:start(Url, maps:merge(#{path => path(Config)}, Options)),
    C.

ready(Config) -> ready(Config, #{}).

ready(Config, Options) -> ready(Config, Options, 405).

%% A session that stands.
ready(Config, Options, Listening) ->
    P = peer(Config),
    C = start(Config, Options),
    http_peer:json(asked(C, P, initialize(1)), [{<<"mcp-session-id">>, <<"s1">>}], initialized(1)),
    [#{<<"id">> := 1}] = messages(C, 1),
    ok = ?CLIENT:send(C, note(<<"notifications/initialized">>)),
    http_peer:accepted(http_peer:next(P, <<"POST">>)),
    Listening =:= 405 andalso http_peer:answer(http_peer:next(P, <<"GET">>), 405, [], <<>>),
    C.

%% What the server is asked with a message.
asked(C, P, Message) ->
    ok = ?CLIENT:send(C, Message),
    http_peer:next(P).

%% The same, where a stream has begun.
streamed(C, P, Message) ->
    Request = asked(C, P, Message),
    http_peer:stream(Request),
    Request.

peer(Config) -> proplists:get_value(peer, Config).

path(Config) -> proplists:get_value(path, Config).

closing(C) ->
    Test = self(),
    spawn_link(fun() -> Test ! {closed, self(), ?CLIENT:close(C)} end).

closed(Closing) ->
    receive
        {closed, Closing, Result} -> ?assertEqual(ok, Result)
    after ?WAIT -> error(timeout)
    end.

queue_length() ->
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    Length.

id(Request) -> maps:get(<<"id">>, http_peer:body(Request)).

initialize(Id) ->
    erlmcp_native_json:encode((call_map(Id, <<"initialize">>))#{
        <<"params">> => #{<<"protocolVersion">> => <<"2025-11-25">>, <<"capabilities">> => #{}}
    }).

initialized(Id) -> initialized(Id, <<"2025-11-25">>).

initialized(Id, Revision) ->
    result(Id, #{<<"protocolVersion">> => Revision, <<"capabilities">> => #{}}).

call(Id, Method) -> erlmcp_native_json:encode(call_map(Id, Method)).

call_map(Id, Method) -> #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => Method}.

modern(Id, Method, Params) -> modern(Id, Method, Params, #{}).

modern(Id, Method, Params, Meta) ->
    All = Meta#{
        ?META => <<"2026-07-28">>, <<"io.modelcontextprotocol/clientCapabilities">> => #{}
    },
    erlmcp_native_json:encode((call_map(Id, Method))#{<<"params">> => Params#{<<"_meta">> => All}}).

note(Method) -> erlmcp_native_json:encode(note_map(Method)).

note(Method, Params) -> erlmcp_native_json:encode((note_map(Method))#{<<"params">> => Params}).

note_map(Method) -> #{<<"jsonrpc">> => <<"2.0">>, <<"method">> => Method}.

result(Id, Result) -> #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => Result}.

error_map(Id, Code) ->
    Error = #{<<"code">> => Code, <<"message">> => <<"no">>},
    #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"error">> => Error}.
