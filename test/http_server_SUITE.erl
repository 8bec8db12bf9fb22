%% MCP servers over HTTP: what the revisions of the protocol ask of a server's transport, over real
%% sockets and on every path. The names of the cases follow what they check.
-module(http_server_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(http_mcp, [
    post/3, start/3, method/4, initialize/2, initialize/3, modern/2, modern_headers/2,
    request/2, request/3, notification/2, head/1, event/1, message/1, answer/1, header/2
]).
-import(test_wait, [reason/1]).

-define(WAIT, 10000).
-define(A, <<"2024-11-05">>).
-define(B, <<"2025-03-26">>).
-define(C, <<"2025-06-18">>).
-define(D, <<"2025-11-25">>).
-define(E, <<"2026-07-28">>).

all() ->
    [{group, values}, {group, nif}, {group, port}, {group, beam}].

groups() ->
    [
        {values, [options_refused, revisions_negotiated, hosts_and_origins, mirrored_headers]},
        {nif, cases()},
        {port, cases()},
        {beam, cases()}
    ].

cases() ->
    [
        %% Framing
        not_json_is_a_parse_error,
        not_json_rpc_is_an_invalid_request,
        id_must_not_be_null,
        ids_of_two_clients_are_kept_apart,
        ids_of_one_client_are_kept_apart,
        notification_has_no_answer,
        batch_in_2025_03_26,
        batch_of_notifications_only,
        batch_as_a_stream,
        batch_with_a_cancelled_request,
        batch_without_initialize,
        batches_that_are_refused,
        array_since_2025_06_18,
        messages_at_the_limit,
        handler_that_crashes,
        handler_that_returns_what_has_no_json,
        handler_is_told,
        %% Endpoint and security
        one_path_for_post_and_get,
        other_paths_and_methods,
        origin_that_is_foreign,
        origin_that_is_local,
        origins_and_hosts_that_are_allowed,
        host_that_is_foreign,
        listens_on_loopback_only,
        content_type_and_accept,
        headers_that_are_no_text,
        %% Legacy
        initialize_in_every_revision,
        session_id_is_visible_ascii,
        session_id_that_is_missing,
        session_id_that_is_unknown,
        session_of_another_principal,
        session_of_another_listener,
        session_that_is_refused,
        sessions_at_the_limit,
        session_that_is_idle,
        session_that_is_deleted,
        without_sessions,
        version_header_that_is_bad,
        version_header_that_is_absent,
        request_with_a_json_answer,
        request_with_a_stream,
        answer_from_another_process,
        notification_and_response_are_accepted,
        priming_event_in_2025_11_25,
        no_priming_event_before,
        disconnect_is_no_cancel,
        cancelled_by_a_notification,
        cancel_of_nothing,
        server_asks_its_client,
        server_asks_another_client,
        stream_that_is_closed_to_be_polled,
        stream_that_is_resumed,
        stream_that_is_resumed_while_it_lives,
        stream_that_is_over_is_resumed,
        only_its_own_events_are_replayed,
        event_ids_are_unique_in_a_session,
        event_id_that_is_foreign,
        get_needs_its_media_type,
        get_stream_with_messages,
        get_streams_get_each_message_once,
        get_stream_that_comes_later,
        get_stream_that_is_resumed,
        get_stream_is_kept_alive,
        events_at_the_limit,
        client_that_does_not_read,
        %% Modern
        modern_request,
        modern_request_with_a_stream,
        modern_notification,
        modern_response_is_refused,
        modern_has_neither_get_nor_delete,
        modern_ignores_sessions,
        modern_version_missing,
        modern_version_mismatch,
        modern_version_unknown,
        modern_meta_missing,
        modern_method_unknown,
        modern_capability_missing,
        modern_mirrored_method,
        modern_mirrored_name,
        modern_mirrored_params,
        modern_disconnect_cancels,
        modern_disconnect_cancels_a_stream,
        modern_server_asks_nothing,
        modern_discover,
        modern_subscription,
        modern_only_names_its_versions,
        legacy_only_does_not_look_modern,
        both_eras_at_once,
        %% Authorization
        token_is_asked_for,
        token_is_checked_with_each_request,
        token_without_the_scope,
        metadata_is_published,
        %% HTTP+SSE
        sse_endpoint_and_messages,
        sse_streams_and_questions,
        sse_is_off,
        sse_session_ends_with_its_stream,
        %% Registry
        registry_answers,
        registry_keeps_ids_apart,
        registry_without_a_server,
        registry_server_that_dies,
        registry_notifications,
        %% The listener
        listener_tells_about_itself,
        listener_ends_with_its_owner,
        listener_that_is_closed,
        listener_that_is_drained
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) when Path =:= nif; Path =:= port; Path =:= beam ->
    test_config:use(erlmcp_native_http_path, Path, Config);
init_per_group(_, Config) ->
    Config.

end_per_group(_, _) -> ok.

init_per_testcase(_, Config) ->
    true = register(http_server_test, self()),
    Config.

%% The process of a case ends after this, and its servers with it.
end_per_testcase(_, _) ->
    ok.

%% ---- values

options_refused(_) ->
    Handler = #{handler => {http_handler, self()}},
    Refused = fun(Options) ->
        {error, {option, Key, _}} = erlmcp_native_http:listen(#{port => 0}, Options),
        Key
    end,
    ?assertEqual(handler, Refused(#{})),
    ?assertEqual(handler, Refused(#{handler => {no_such_module, 1}})),
    ?assertEqual(server_id, Refused(Handler#{server_id => a})),
    [
        ?assertEqual(Key, Refused(Handler#{Key => Value}))
     || {Key, Value} <- [
            {endpoint, <<"mcp">>},
            {endpoint, "/mcp"},
            {revisions, []},
            {revisions, [?A]},
            {http_sse, true},
            {http_sse, #{sse => <<"/a">>, messages => <<"/a">>}},
            {sessions, 1},
            {max_sessions, 0},
            {max_events, -1},
            {authorize, self},
            {resource_metadata, #{}},
            {allowed_hosts, <<"a">>},
            {owner, self},
            {max_body_bytes, 0},
            {no_such_option, 1}
        ]
    ],
    ?assertMatch(
        {error, {option, port, _}}, erlmcp_native_http:listen(#{port => -1}, Handler)
    ).

revisions_negotiated(_) ->
    Negotiate = fun(Version, Revisions) ->
        erlmcp_native_http:negotiate(#{<<"protocolVersion">> => Version}, Revisions)
    end,
    ?assertEqual(?C, Negotiate(?C, [?B, ?C, ?D, ?E])),
    ?assertEqual(?D, Negotiate(<<"2030-01-01">>, [?B, ?C, ?D, ?E])),
    ?assertEqual(?D, Negotiate(?E, [?B, ?C, ?D, ?E])),
    ?assertEqual(?B, Negotiate(?D, [?B])),
    ?assertEqual(?D, erlmcp_native_http:negotiate(#{}, [?B, ?D])).

hosts_and_origins(_) ->
    Hosts = [<<"localhost">>, <<"[::1]">>, <<"a.example:8080">>],
    Host = fun(Value) ->
        erlmcp_native_http_gate:check([{<<"host">>, Value}], Hosts, default) =:= ok
    end,
    [?assert(Host(H)) || H <- [
        <<"localhost">>, <<"LOCALHOST:1">>, <<"[::1]:9">>, <<"[::1]">>, <<"a.example:8080">>
    ]],
    [?assertNot(Host(H)) || H <- [
        <<"a.example">>, <<"localhost.example">>, <<>>, <<"a.example:80">>, <<"x@localhost">>
    ]],
    ?assertMatch({forbidden, _}, erlmcp_native_http_gate:check([], Hosts, default)),
    Origin = fun(Value, Allowed) ->
        erlmcp_native_http_gate:check([{<<"origin">>, Value}], any, Allowed) =:= ok
    end,
    [?assert(Origin(O, default)) || O <- [
        <<"http://localhost">>, <<"https://localhost:3000">>, <<"http://127.0.0.1:1">>,
        <<"http://[::1]:8080">>, <<"HTTP://LOCALHOST">>
    ]],
    [?assertNot(Origin(O, default)) || O <- [
        <<"null">>, <<"http://evil.example">>, <<"http://localhost.evil.example">>, <<>>,
        <<"http://localhost:1@evil.example">>, <<"http://localhost:x.evil.example">>,
        <<"ftp://localhost">>, <<"http://127.0.0.1.evil.example">>, <<"http://[::1].evil.example">>
    ]],
    ?assert(Origin(<<"https://App.example">>, [<<"https://app.example">>])),
    ?assertNot(Origin(<<"http://app.example">>, [<<"https://app.example">>])),
    ?assert(Origin(<<"null">>, any)).

mirrored_headers(_) ->
    Decode = fun erlmcp_native_http_mirror:decode/1,
    ?assertEqual({ok, <<"us-west1">>}, Decode(<<"us-west1">>)),
    ?assertEqual(
        {ok, <<"Hello, 世界"/utf8>>}, Decode(<<"=?base64?SGVsbG8sIOS4lueVjA==?=">>)
    ),
    ?assertEqual({ok, <<"=?base64?literal?=">>}, Decode(<<"=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=">>)),
    ?assertEqual({ok, <<"=?BASE64?eA==?=">>}, Decode(<<"=?BASE64?eA==?=">>)),
    ?assertEqual({ok, <<>>}, Decode(<<"=?base64??=">>)),
    [?assertEqual(error, Decode(V)) || V <- [
        <<"=?base64?%%%?=">>, <<"=?base64?/w==?=">>, <<"a", 16#e9>>, <<"a", 0>>
    ]].

%% ---- framing

not_json_is_a_parse_error(Config) ->
    {Port, _} = listen(Config),
    [
        begin
            {400, _, Body} = post(Port, [], Text),
            ?assertMatch(#{<<"id">> := null, <<"error">> := #{<<"code">> := -32700}}, Body)
        end
     || Text <- [<<"{">>, <<>>, <<"{\"a\":\"", 16#ff, "\"}">>, binary:copy(<<"[">>, 600)]
    ].

not_json_rpc_is_an_invalid_request(Config) ->
    {Port, _} = listen(Config),
    [
        begin
            {400, _, Body} = post(Port, [], Message),
            ?assertMatch(#{<<"error">> := #{<<"code">> := -32600}}, Body)
        end
     || Message <- [
            #{},
            #{<<"jsonrpc">> => <<"1.0">>, <<"id">> => 1, <<"method">> => <<"ping">>},
            #{<<"id">> => 1, <<"method">> => <<"ping">>},
            #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 1, <<"method">> => 7},
            <<"7">>,
            <<"\"ping\"">>
        ]
    ].

id_must_not_be_null(Config) ->
    {Port, Session} = session(Config, ?D),
    {400, _, Body} = post(Port, Session, request(null, <<"ping">>)),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32600}}, Body),
    {400, _, _} = post(Port, Session, request(1.5, <<"ping">>)).

ids_of_two_clients_are_kept_apart(Config) ->
    {Port, _} = listen(Config),
    Sockets = [
        {N, start(Port, initialize(Port, ?D), call(1, <<"wait">>, #{<<"n">> => N}))}
     || N <- [1, 2]
    ],
    Waiting = [
        receive
            {waiting, Pid, #{<<"n">> := N}} -> {N, Pid}
        after ?WAIT -> error(timeout)
        end
     || N <- [1, 2]
    ],
    [Pid ! {go, integer_to_binary(N)} || {N, Pid} <- lists:reverse(Waiting)],
    [?assertEqual(integer_to_binary(N), text(answer(Socket))) || {N, Socket} <- Sockets].

ids_of_one_client_are_kept_apart(Config) ->
    {Port, Session} = session(Config, ?D),
    Sockets = [
        {N, start(Port, Session, call(1, <<"later">>, #{<<"n">> => N}))}
     || N <- [1, 2]
    ],
    Later = [
        receive
            {later, _, Ref, #{<<"n">> := N}} -> {N, Ref}
        after ?WAIT -> error(timeout)
        end
     || N <- [1, 2]
    ],
    [
        begin
            ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => N}),
            ok = erlmcp_native_http:reply(Ref, reply(integer_to_binary(N)))
        end
     || {N, Ref} <- lists:reverse(Later)
    ],
    [
        begin
            {200, _} = head(Socket),
            {_, #{<<"params">> := #{<<"n">> := N}}} = message(Socket),
            {_, Response} = message(Socket),
            ?assertEqual(integer_to_binary(N), text(Response)),
            ?assertEqual(done, event(Socket))
        end
     || {N, Socket} <- Sockets
    ].

notification_has_no_answer(Config) ->
    {Port, Session} = session(Config, ?D),
    {202, Headers, <<>>} = post(Port, Session, notification(<<"notifications/x">>, #{})),
    ?assertEqual(none, header(<<"content-type">>, Headers)),
    receive
        {notification, <<"notifications/x">>, #{}, #{request := none, revision := ?D}} -> ok
    after ?WAIT -> error(timeout)
    end.

batch_in_2025_03_26(Config) ->
    {Port, Session} = session(Config, ?B),
    {200, Headers, Answers} = post(Port, Session, erlmcp_native_json:encode([
        call(1, <<"echo">>, #{<<"n">> => 1}),
        notification(<<"notifications/x">>, #{}),
        call(<<"two">>, <<"echo">>, #{<<"n">> => 2}),
        #{<<"jsonrpc">> => <<"2.0">>},
        7,
        request(3, <<"no/such/method">>),
        #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 4, <<"method">> => <<"x">>, <<"params">> => [1]}
    ])),
    ?assertEqual(<<"application/json">>, header(<<"content-type">>, Headers)),
    ?assertEqual(6, length(Answers)),
    ByIds = maps:from_list([{maps:get(<<"id">>, A), A} || A <- Answers]),
    ?assertEqual([1, 3, 4, null, <<"two">>], lists:sort(maps:keys(ByIds))),
    ?assertEqual(<<"{\"n\":1}">>, text(maps:get(1, ByIds))),
    ?assertEqual(<<"{\"n\":2}">>, text(maps:get(<<"two">>, ByIds))),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32601}}, maps:get(3, ByIds)),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32602}}, maps:get(4, ByIds)),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32600}}, maps:get(null, ByIds)),
    receive
        {notification, <<"notifications/x">>, _, _} -> ok
    after ?WAIT -> error(timeout)
    end.

batch_of_notifications_only(Config) ->
    {Port, Session} = session(Config, ?B),
    Batch = [
        notification(<<"notifications/x">>, #{}),
        #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => <<"x">>, <<"result">> => #{}}
    ],
    {202, _, <<>>} = post(Port, Session, erlmcp_native_json:encode(Batch)).

batch_as_a_stream(Config) ->
    {Port, Session} = session(Config, ?B),
    Batch = [call(1, <<"progress">>, #{<<"n">> => 2}), call(2, <<"echo">>, #{})],
    {200, Headers, Events} = post(Port, Session, erlmcp_native_json:encode(Batch)),
    ?assertEqual(<<"text/event-stream">>, header(<<"content-type">>, Headers)),
    Messages = messages(Events),
    ?assertEqual(2, length([M || #{<<"method">> := _} = M <- Messages])),
    ?assertEqual([1, 2], lists:sort([Id || #{<<"id">> := Id} <- Messages])).

batch_with_a_cancelled_request(Config) ->
    {Port, Session} = session(Config, ?B),
    Batch = [call(1, <<"wait">>, #{}), call(2, <<"echo">>, #{})],
    Socket = start(Port, Session, erlmcp_native_json:encode(Batch)),
    Worker = waiting(),
    Monitor = monitor(process, Worker),
    {202, _, _} = post(Port, Session, cancelled(1)),
    ?assertEqual({shutdown, cancelled}, reason(Monitor)),
    ?assertMatch({200, _, [#{<<"id">> := 2}]}, answer(Socket)).

batch_without_initialize(Config) ->
    {Port, Session} = session(Config, ?B),
    Batch = erlmcp_native_json:encode([request(1, <<"ping">>), request(2, <<"initialize">>)]),
    {400, _, #{<<"error">> := #{<<"code">> := -32600}}} = post(Port, Session, Batch).

batches_that_are_refused(Config) ->
    {Port, Session} = session(Config, ?B),
    Long = lists:duplicate(101, request(1, <<"ping">>)),
    {400, _, #{<<"error">> := #{<<"code">> := -32600}}} = post(Port, Session, <<"[]">>),
    {400, _, _} = post(Port, Session, erlmcp_native_json:encode(Long)),
    {400, _, _} = post(Port, [], erlmcp_native_json:encode([request(1, <<"ping">>)])).

array_since_2025_06_18(Config) ->
    {Port, _} = listen(Config),
    Batch = erlmcp_native_json:encode([request(1, <<"ping">>)]),
    [
        begin
            Session = initialize(Port, Revision),
            {400, _, Body} = post(Port, Session, Batch),
            ?assertMatch(#{<<"error">> := #{<<"code">> := -32600}}, Body),
            %% The session knows its revision.
            Bare = lists:keydelete(<<"mcp-protocol-version">>, 1, Session),
            {400, _, _} = post(Port, Bare, Batch)
        end
     || Revision <- [?C, ?D]
    ],
    {400, _, _} = post(Port, modern_headers(<<"ping">>, #{}), Batch).

messages_at_the_limit(Config) ->
    {Port, Session} = session(Config, ?D, #{max_body_bytes => 1000}),
    Message = fun(Size) ->
        Fixed = byte_size(erlmcp_native_json:encode(call(1, <<"echo">>, #{<<"x">> => <<>>}))),
        call(1, <<"echo">>, #{<<"x">> => binary:copy(<<"x">>, Size - Fixed)})
    end,
    {200, _, _} = post(Port, Session, Message(1000)),
    {413, _, _} = post(Port, Session, Message(1001)).

handler_that_crashes(Config) ->
    {Port, _} = listen(Config),
    {200, _, Legacy} = post(Port, initialize(Port, ?D), call(1, <<"crash">>, #{})),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32603}}, Legacy),
    {200, _, Modern} = modern_call(Port, <<"crash">>, #{}),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32603}}, Modern).

handler_that_returns_what_has_no_json(Config) ->
    {Port, _} = listen(Config),
    {200, _, Body} = post(Port, initialize(Port, ?D), call(1, <<"badterm">>, #{})),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32603}}, Body).

handler_is_told(Config) ->
    {Port, _} = listen(Config, #{authorize => {?MODULE, authorize, []}}),
    Session = initialize(Port, ?D, [{<<"authorization">>, <<"Bearer alice">>}]),
    Id = header(<<"mcp-session-id">>, Session),
    #{<<"params">> := Params} = Call = call(1, <<"context">>, #{}),
    Traced = Params#{<<"_meta">> => #{<<"traceparent">> => <<"00-1">>}},
    {200, _, _} = post(Port, Session ++ [{<<"x-mine">>, <<"1">>}], Call#{<<"params">> := Traced}),
    Context =
        receive
            {context, C} -> C
        after ?WAIT -> error(timeout)
        end,
    #{headers := Headers, peername := {{127, 0, 0, 1}, _}} = Context,
    ?assertEqual(<<"1">>, header(<<"x-mine">>, Headers)),
    ?assertMatch(
        #{
            revision := ?D,
            session := Id,
            state := #{client := #{<<"name">> := <<"c">>}},
            principal := <<"alice">>,
            meta := #{<<"traceparent">> := <<"00-1">>}
        },
        Context
    ).

%% ---- endpoint and security

one_path_for_post_and_get(Config) ->
    {Port, _} = listen(Config, #{endpoint => <<"/a/b">>}),
    Init = request(0, <<"initialize">>, #{<<"protocolVersion">> => ?D}),
    {200, Headers, _} = http_mcp:post(Port, "/a/b", [], Init),
    Socket = get_stream(Port, "/a/b", [
        {<<"mcp-session-id">>, header(<<"mcp-session-id">>, Headers)}
    ]),
    {200, _} = head(Socket),
    {404, _, _} = post(Port, [], request(1, <<"ping">>)).

other_paths_and_methods(Config) ->
    {Port, _} = listen(Config),
    {404, _, _} = http_mcp:post(Port, "/other", [], request(1, <<"ping">>)),
    {404, _, _} = http_mcp:post(Port, "/mcp/", [], request(1, <<"ping">>)),
    {405, Headers, _} = answer(method(Port, <<"PUT">>, "/mcp", [{<<"content-length">>, <<"0">>}])),
    ?assertNotEqual(none, header(<<"allow">>, Headers)).

origin_that_is_foreign(Config) ->
    {Port, _} = listen(Config),
    Evil = [{<<"origin">>, <<"http://evil.example">>}],
    {403, _, Body} = post(Port, Evil, request(1, <<"initialize">>)),
    ?assertMatch(#{<<"error">> := _}, Body),
    ?assertNot(is_map_key(<<"id">>, Body)),
    Session = initialize(Port, ?D),
    {403, _, _} = post(Port, Session ++ Evil, request(1, <<"ping">>)),
    {403, _, _} = answer(get_stream(Port, "/mcp", Session ++ Evil)),
    {403, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Session ++ Evil)),
    {403, _, _} = post(Port, Evil ++ modern_headers(<<"ping">>, #{}), modern(<<"ping">>, #{})).

origin_that_is_local(Config) ->
    {Port, _} = listen(Config),
    initialize(Port, ?D, [{<<"origin">>, <<"http://localhost:3000">>}]).

origins_and_hosts_that_are_allowed(Config) ->
    {Port, _} = listen(Config, #{
        allowed_hosts => [<<"mcp.example">>], allowed_origins => [<<"https://app.example">>]
    }),
    Host = {<<"host">>, <<"mcp.example">>},
    initialize(Port, ?D, [Host, {<<"origin">>, <<"https://app.example">>}]),
    {403, _, _} = post(Port, [Host, {<<"origin">>, <<"http://localhost">>}], #{}),
    {403, _, _} = post(Port, [], #{}).

host_that_is_foreign(Config) ->
    {Port, _} = listen(Config),
    Init = request(1, <<"initialize">>, #{<<"protocolVersion">> => ?D}),
    {403, _, _} = post(Port, [{<<"host">>, <<"evil.example">>}], Init),
    {403, _, _} = post(Port, [{<<"host">>, <<"localhost.evil.example:80">>}], Init),
    {200, _, _} = post(Port, [{<<"host">>, <<"127.0.0.1:1">>}], Init).

listens_on_loopback_only(Config) ->
    {_, Listener} = listen(Config),
    {ok, #{sockname := {Ip, _}}} = erlmcp_native_http:info(Listener),
    ?assertEqual({127, 0, 0, 1}, Ip).

content_type_and_accept(Config) ->
    {Port, Session} = session(Config, ?D),
    Ping = request(1, <<"ping">>),
    Status = fun(Headers) -> element(1, post(Port, Session ++ Headers, Ping)) end,
    ?assertEqual(415, Status([{<<"content-type">>, <<"text/plain">>}])),
    ?assertEqual(415, Status([{<<"content-type">>, none}])),
    ?assertEqual(200, Status([{<<"content-type">>, <<"Application/JSON; charset=utf-8">>}])),
    ?assertEqual(406, Status([{<<"accept">>, <<"application/json">>}])),
    ?assertEqual(406, Status([{<<"accept">>, <<"text/event-stream">>}])),
    ?assertEqual(406, Status([{<<"accept">>, <<"text/html">>}])),
    ?assertEqual(200, Status([{<<"accept">>, <<"*/*">>}])),
    ?assertEqual(200, Status([{<<"accept">>, none}])),
    ?assertEqual(200, Status([{<<"accept">>, <<"text/event-stream;q=1 , application/json">>}])).

headers_that_are_no_text(Config) ->
    {Port, Session} = session(Config, ?D, #{http_sse => sse()}),
    Bytes = <<"a", 16#ff, 16#c3>>,
    [
        begin
            {Status, _, _} = post(Port, [{Name, Bytes} | Session], request(1, <<"ping">>)),
            ?assert(Status >= 400 andalso Status < 500)
        end
     || Name <- [
            <<"host">>, <<"origin">>, <<"content-type">>, <<"accept">>, <<"mcp-protocol-version">>
        ]
    ],
    {404, _, _} = post(Port, [{<<"mcp-session-id">>, Bytes}], request(1, <<"ping">>)),
    {400, _, _} = answer(get_stream(Port, "/mcp", [{<<"last-event-id">>, Bytes} | Session])),
    Named = [
        {<<"mcp-protocol-version">>, ?E},
        {<<"mcp-method">>, <<"tools/call">>},
        {<<"mcp-name">>, Bytes}
    ],
    {400, _, _} = post(Port, Named, modern(<<"tools/call">>, #{<<"name">> => <<"echo">>})),
    [
        {404, _, _} = http_mcp:post(Port, ["/messages", Query], [], request(1, <<"ping">>))
     || Query <- ["", "?sessionId", "?sessionId=%ff", "?sessionId=%zz", "?x=1&sessionId=", "?%"]
    ].

%% ---- legacy

initialize_in_every_revision(Config) ->
    {Port, _} = listen(Config),
    [?assertNotEqual([], initialize(Port, Revision)) || Revision <- [?B, ?C, ?D]],
    {200, _, Body} =
        post(Port, [], request(0, <<"initialize">>, #{<<"protocolVersion">> => <<"1999-01-01">>})),
    ?assertMatch(#{<<"result">> := #{<<"protocolVersion">> := ?D}}, Body).

session_id_is_visible_ascii(Config) ->
    {Port, _} = listen(Config),
    Ids = [header(<<"mcp-session-id">>, initialize(Port, ?D)) || _ <- lists:seq(1, 20)],
    ?assertEqual(20, length(lists:usort(Ids))),
    [?assert(byte_size(Id) >= 22) || Id <- Ids],
    [?assert(C >= 16#21 andalso C =< 16#7e) || Id <- Ids, <<C>> <= Id].

session_id_that_is_missing(Config) ->
    {Port, _} = listen(Config),
    {400, _, _} = post(Port, [], request(1, <<"ping">>)),
    {400, _, _} = post(Port, [], notification(<<"notifications/initialized">>, #{})),
    {400, _, _} = answer(get_stream(Port, "/mcp", [])),
    {400, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", [])).

session_id_that_is_unknown(Config) ->
    {Port, _} = listen(Config),
    Headers = [{<<"mcp-session-id">>, <<"nonsense">>}],
    {404, _, _} = post(Port, Headers, request(1, <<"ping">>)),
    {404, _, _} = post(Port, Headers, notification(<<"notifications/initialized">>, #{})),
    {404, _, _} = answer(get_stream(Port, "/mcp", Headers)),
    {404, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Headers)).

session_of_another_principal(Config) ->
    {Port, _} = listen(Config, #{authorize => {?MODULE, authorize, []}}),
    Alice = initialize(Port, ?D, [{<<"authorization">>, <<"Bearer alice">>}]),
    {200, _, _} = post(Port, Alice, request(1, <<"ping">>)),
    Bob = lists:keystore(
        <<"authorization">>, 1, Alice, {<<"authorization">>, <<"Bearer bob">>}
    ),
    {404, _, _} = post(Port, Bob, request(1, <<"ping">>)),
    {404, _, _} = answer(get_stream(Port, "/mcp", Bob)),
    {404, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Bob)),
    {200, _, _} = post(Port, Alice, request(1, <<"ping">>)).

session_of_another_listener(Config) ->
    {One, _} = listen(Config),
    {Two, _} = listen(Config),
    {404, _, _} = post(Two, initialize(One, ?D), request(1, <<"ping">>)).

session_that_is_refused(Config) ->
    {Port, Listener} = listen(Config),
    Params = #{<<"protocolVersion">> => ?D, <<"refuse">> => true},
    {200, Headers, Body} = post(Port, [], request(0, <<"initialize">>, Params)),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32000}}, Body),
    ?assertEqual(none, header(<<"mcp-session-id">>, Headers)),
    {ok, #{sessions := 0}} = erlmcp_native_http:info(Listener).

sessions_at_the_limit(Config) ->
    {Port, First} = session(Config, ?D, #{max_sessions => 2}),
    _ = initialize(Port, ?D),
    Init = request(0, <<"initialize">>, #{<<"protocolVersion">> => ?D}),
    {503, Headers, _} = post(Port, [], Init),
    ?assertNotEqual(none, header(<<"retry-after">>, Headers)),
    {204, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", First)),
    initialize(Port, ?D).

session_that_is_idle(Config) ->
    {Port, Listener} = listen(Config, #{session_idle_ms => 300}),
    Session = initialize(Port, ?D),
    Id = header(<<"mcp-session-id">>, Session),
    {200, _, _} = post(Port, Session, request(1, <<"ping">>)),
    terminated(Id),
    {404, _, _} = post(Port, Session, request(1, <<"ping">>)),
    {ok, #{sessions := 0}} = erlmcp_native_http:info(Listener),
    %% One with a stream, or with a request, is in use.
    Streaming = initialize(Port, ?D),
    Socket = get_stream(Port, "/mcp", Streaming),
    {200, _} = head(Socket),
    Busy = initialize(Port, ?D),
    Answer = start(Port, Busy, call(1, <<"wait">>, #{})),
    Waiting = waiting(),
    receive
        {terminated, _, _} -> error(terminated)
    after 1000 -> ok
    end,
    Waiting ! {go, <<"x">>},
    {200, _, _} = answer(Answer),
    {200, _, _} = post(Port, Streaming, request(1, <<"ping">>)).

session_that_is_deleted(Config) ->
    {Port, Session} = session(Config, ?D),
    Stream = get_stream(Port, "/mcp", Session),
    {200, _} = head(Stream),
    Busy = start(Port, Session, call(1, <<"wait">>, #{})),
    Monitor = watch(waiting()),
    {204, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Session)),
    terminated(header(<<"mcp-session-id">>, Session)),
    ?assertEqual({shutdown, session_ended}, reason(Monitor)),
    ?assertMatch([{event, #{data := <<>>}}], http_mcp:events(Stream)),
    {202, _, _} = answer(Busy),
    {404, _, _} = post(Port, Session, request(1, <<"ping">>)),
    {404, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Session)).

without_sessions(Config) ->
    {Port, Headers} = session(Config, ?D, #{sessions => false}),
    ?assertEqual(none, header(<<"mcp-session-id">>, Headers)),
    {200, _, _} = post(Port, Headers, request(1, <<"ping">>)),
    {200, _, _} = post(Port, [], call(1, <<"echo">>, #{})),
    {200, _, Events} = post(Port, [], call(1, <<"progress">>, #{<<"n">> => 1})),
    ?assertEqual(2, length(messages(Events))),
    {405, _, _} = answer(get_stream(Port, "/mcp", [])),
    {405, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", [])).

version_header_that_is_bad(Config) ->
    {Port, _} = listen(Config),
    Session = lists:keydelete(<<"mcp-protocol-version">>, 1, initialize(Port, ?D)),
    [
        begin
            Bad = Session ++ [{<<"mcp-protocol-version">>, Value}],
            {400, _, _} = post(Port, Bad, request(1, <<"ping">>)),
            {400, _, _} = answer(get_stream(Port, "/mcp", Bad))
        end
     || Value <- [<<"1999-01-01">>, <<"nonsense">>, ?A]
    ].

version_header_that_is_absent(Config) ->
    {Port, _} = listen(Config),
    Session = lists:keydelete(<<"mcp-protocol-version">>, 1, initialize(Port, ?D)),
    {200, _, _} = post(Port, Session, call(1, <<"context">>, #{})),
    receive
        {context, #{revision := ?D}} -> ok
    after ?WAIT -> error(timeout)
    end,
    %% With nothing to know it from, it is the one before there was a header.
    {Stateless, _} = listen(Config, #{sessions => false}),
    {200, _, _} = post(Stateless, [], call(1, <<"context">>, #{})),
    receive
        {context, #{revision := ?B}} -> ok
    after ?WAIT -> error(timeout)
    end.

request_with_a_json_answer(Config) ->
    {Port, _} = listen(Config),
    {200, Headers, Body} = post(Port, initialize(Port, ?D), call(<<"a">>, <<"echo">>, #{})),
    ?assertEqual(<<"application/json">>, header(<<"content-type">>, Headers)),
    ?assertMatch(#{<<"jsonrpc">> := <<"2.0">>, <<"id">> := <<"a">>, <<"result">> := _}, Body).

request_with_a_stream(Config) ->
    {Port, _} = listen(Config),
    [
        begin
            Session = initialize(Port, Revision),
            {200, Headers, Events} = post(Port, Session, call(7, <<"progress">>, #{<<"n">> => 3})),
            ?assertEqual(<<"text/event-stream">>, header(<<"content-type">>, Headers)),
            ?assertEqual(<<"no-cache">>, header(<<"cache-control">>, Headers)),
            ?assertEqual(<<"no">>, header(<<"x-accel-buffering">>, Headers)),
            ?assertMatch(
                [
                    #{<<"params">> := #{<<"progress">> := 1}},
                    #{<<"params">> := #{<<"progress">> := 2}},
                    #{<<"params">> := #{<<"progress">> := 3}},
                    #{<<"id">> := 7, <<"result">> := _}
                ],
                messages(Events)
            )
        end
     || Revision <- [?B, ?C, ?D]
    ].

answer_from_another_process(Config) ->
    {Port, _} = listen(Config),
    Socket = start(Port, initialize(Port, ?D), call(1, <<"later">>, #{})),
    Ref = later(),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{}),
    ok = erlmcp_native_http:reply(Ref, {error, -7, <<"no">>, #{<<"why">> => 1}}),
    {error, gone} = erlmcp_native_http:reply(Ref, reply(<<"again">>)),
    {error, gone} = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{}),
    {200, _, Events} = answer(Socket),
    ?assertMatch(
        [_, #{<<"error">> := #{<<"code">> := -7, <<"data">> := #{<<"why">> := 1}}}],
        messages(Events)
    ).

notification_and_response_are_accepted(Config) ->
    {Port, Session} = session(Config, ?D),
    {202, _, <<>>} = post(Port, Session, notification(<<"notifications/initialized">>, #{})),
    Response = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 1, <<"result">> => #{}},
    {202, _, <<>>} = post(Port, Session, Response),
    {400, _, _} = post(Port, Session, (notification(<<"x">>, #{}))#{<<"params">> := [1]}).

priming_event_in_2025_11_25(Config) ->
    {Port, Session} = session(Config, ?D),
    {200, _, [{event, First} | _]} = post(Port, Session, call(1, <<"progress">>, #{<<"n">> => 1})),
    #{data := <<>>, id := Id} = First,
    ?assertNotEqual(<<>>, Id),
    {Off, _} = listen(Config, #{priming => false}),
    {200, _, Events} = post(Off, initialize(Off, ?D), call(1, <<"progress">>, #{<<"n">> => 1})),
    ?assertEqual([], [E || {event, #{data := <<>>} = E} <- Events]).

no_priming_event_before(Config) ->
    {Port, _} = listen(Config),
    [
        begin
            Session = initialize(Port, Revision),
            {200, _, Events} = post(Port, Session, call(1, <<"progress">>, #{<<"n">> => 1})),
            ?assertEqual([], [E || {event, #{data := <<>>} = E} <- Events])
        end
     || Revision <- [?B, ?C]
    ].

disconnect_is_no_cancel(Config) ->
    {Port, Session} = session(Config, ?D),
    Socket = start(Port, Session, call(1, <<"later">>, #{})),
    Ref = later(),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => 1}),
    {200, _} = head(Socket),
    {Id, _} = message(Socket),
    ok = http_mcp:close(Socket),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => 2}),
    ok = erlmcp_native_http:reply(Ref, reply(<<"late">>)),
    Resumed = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Id}]),
    {200, _} = head(Resumed),
    {_, #{<<"params">> := #{<<"n">> := 2}}} = message(Resumed),
    {_, Response} = message(Resumed),
    ?assertEqual(<<"late">>, text(Response)),
    ?assertEqual(done, event(Resumed)).

cancelled_by_a_notification(Config) ->
    {Port, Session} = session(Config, ?D),
    Socket = start(Port, Session, call(<<"x">>, <<"wait">>, #{})),
    Monitor = watch(waiting()),
    %% That of another client is not meant.
    {202, _, _} = post(Port, initialize(Port, ?D), cancelled(<<"x">>)),
    {202, _, _} = post(Port, Session, cancelled(<<"x">>)),
    ?assertEqual({shutdown, cancelled}, reason(Monitor)),
    %% The exchange ends, with no answer to the request in it.
    {202, _, <<>>} = answer(Socket),
    {200, _, _} = post(Port, Session, request(1, <<"ping">>)).

cancel_of_nothing(Config) ->
    {Port, Session} = session(Config, ?D),
    {202, _, _} = post(Port, Session, cancelled(99)),
    Malformed = notification(<<"notifications/cancelled">>, #{<<"requestId">> => #{}}),
    {202, _, _} = post(Port, Session, Malformed),
    {202, _, _} = post(Port, Session, notification(<<"notifications/cancelled">>, #{})),
    {200, _, _} = post(Port, Session, request(1, <<"ping">>)).

server_asks_its_client(Config) ->
    {Port, Session} = session(Config, ?C),
    Socket = start(Port, Session, call(1, <<"ask">>, #{})),
    {200, _} = head(Socket),
    {_, #{<<"id">> := Id, <<"method">> := <<"sampling/createMessage">>}} = message(Socket),
    Response = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => #{<<"a">> => 1}},
    {202, _, <<>>} = post(Port, Session, Response),
    {_, Answer} = message(Socket),
    ?assertEqual(<<"{\"a\":1}">>, text(Answer)),
    ?assertEqual(done, event(Socket)),
    %% A second answer is late.
    {202, _, <<>>} = post(Port, Session, Response).

server_asks_another_client(Config) ->
    {Port, Session} = session(Config, ?C),
    Socket = start(Port, Session, call(1, <<"ask">>, #{})),
    {200, _} = head(Socket),
    {_, #{<<"id">> := Id}} = message(Socket),
    Response = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => <<"false">>},
    {202, _, <<>>} = post(Port, initialize(Port, ?C), Response),
    Error = #{<<"code">> => -1, <<"message">> => <<"no">>},
    {202, _, <<>>} = post(Port, Session, #{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"error">> => Error
    }),
    {_, Answer} = message(Socket),
    ?assertEqual(<<"{rpc,-1,<<\"no\">>,undefined}">>, text(Answer)).

stream_that_is_closed_to_be_polled(Config) ->
    {Port, Session} = session(Config, ?D, #{retry_ms => 123}),
    Socket = start(Port, Session, call(1, <<"poll">>, #{})),
    {200, _} = head(Socket),
    Events = http_mcp:events(Socket),
    ?assertMatch([{event, #{data := <<>>}}, {retry, 123}], Events),
    [{event, #{id := Id}} | _] = Events,
    receive
        {closed, Pid} -> Pid ! {go, <<"polled">>}
    after ?WAIT -> error(timeout)
    end,
    Resumed = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Id}]),
    {200, _} = head(Resumed),
    {_, Response} = message(Resumed),
    ?assertEqual(<<"polled">>, text(Response)),
    ?assertEqual(done, event(Resumed)).

stream_that_is_resumed(Config) ->
    {Port, Session} = session(Config, ?D),
    {Socket, Ref} = streaming(Port, Session),
    {First, #{<<"params">> := #{<<"n">> := 1}}} = message(Socket),
    ok = http_mcp:close(Socket),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => 2}),
    Resumed = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, First}]),
    {200, _} = head(Resumed),
    {_, #{<<"params">> := #{<<"n">> := 2}}} = message(Resumed),
    %% What comes now comes at once.
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => 3}),
    {_, #{<<"params">> := #{<<"n">> := 3}}} = message(Resumed),
    ok = erlmcp_native_http:reply(Ref, reply(<<"done">>)),
    {_, #{<<"id">> := 1}} = message(Resumed),
    ?assertEqual(done, event(Resumed)).

stream_that_is_resumed_while_it_lives(Config) ->
    {Port, Session} = session(Config, ?D),
    {Socket, Ref} = streaming(Port, Session),
    {First, _} = message(Socket),
    Resumed = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, First}]),
    {200, _} = head(Resumed),
    ?assertEqual(done, event(Socket)),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => 2}),
    {_, #{<<"params">> := #{<<"n">> := 2}}} = message(Resumed),
    Again = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, First}]),
    {200, _} = head(Again),
    ?assertEqual(done, event(Resumed)),
    {_, #{<<"params">> := #{<<"n">> := 2}}} = message(Again),
    ok = erlmcp_native_http:reply(Ref, reply(<<"done">>)),
    {_, #{<<"id">> := 1}} = message(Again).

stream_that_is_over_is_resumed(Config) ->
    {Port, Session} = session(Config, ?D),
    {200, _, Events} = post(Port, Session, call(1, <<"progress">>, #{<<"n">> => 2})),
    [{event, #{id := Primed}}, {event, #{id := First}}, _, {event, #{id := Last}}] = Events,
    Count = fun(Id) ->
        {200, _, Replayed} =
            answer(get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Id}])),
        length(Replayed)
    end,
    ?assertEqual(3, Count(Primed)),
    ?assertEqual(2, Count(First)),
    ?assertEqual(0, Count(Last)).

only_its_own_events_are_replayed(Config) ->
    {Port, Session} = session(Config, ?D),
    {200, _, [{event, #{id := One}} | _]} =
        post(Port, Session, call(1, <<"progress">>, #{<<"n">> => 1})),
    {200, _, _} = post(Port, Session, call(2, <<"progress">>, #{<<"n">> => 1})),
    {200, _, Replayed} = answer(get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, One}])),
    ?assertEqual([1], [Id || #{<<"id">> := Id} <- messages(Replayed)]),
    %% Nor those of another session.
    Other = initialize(Port, ?D),
    {400, _, _} = answer(get_stream(Port, "/mcp", Other ++ [{<<"last-event-id">>, One}])).

event_ids_are_unique_in_a_session(Config) ->
    {Port, Session} = session(Config, ?D),
    Ids = lists:append([
        begin
            {200, _, Events} = post(Port, Session, call(1, <<"progress">>, #{<<"n">> => 3})),
            [Id || {event, #{id := Id}} <- Events]
        end
     || _ <- lists:seq(1, 5)
    ]),
    ?assertEqual(25, length(lists:usort(Ids))).

event_id_that_is_foreign(Config) ->
    {Port, Session} = session(Config, ?D),
    [
        {400, _, _} = answer(get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Id}]))
     || Id <- [<<"x">>, <<"p1-0">>, <<"g9-1">>, <<"p-1">>, binary:copy(<<"9">>, 1000)]
    ].

get_needs_its_media_type(Config) ->
    {Port, _} = listen(Config),
    Headers = [{<<"accept">>, <<"application/json">>} | initialize(Port, ?D)],
    {406, _, _} = answer(method(Port, <<"GET">>, "/mcp", Headers)).

get_stream_with_messages(Config) ->
    {Port, Session} = session(Config, ?C),
    Id = header(<<"mcp-session-id">>, Session),
    Socket = get_stream(Port, "/mcp", Session),
    {200, Headers} = head(Socket),
    ?assertEqual(<<"text/event-stream">>, header(<<"content-type">>, Headers)),
    %% Answers to requests do not come here.
    {200, _, _} = post(Port, Session, request(1, <<"ping">>)),
    ok = erlmcp_native_http:send(Id, <<"notifications/tools/list_changed">>, #{}),
    {_, #{<<"method">> := <<"notifications/tools/list_changed">>}} = message(Socket),
    {error, no_session} = erlmcp_native_http:send(<<"none">>, <<"x">>, #{}).

get_streams_get_each_message_once(Config) ->
    {Port, Session} = session(Config, ?C),
    Id = header(<<"mcp-session-id">>, Session),
    Sockets = [get_stream(Port, "/mcp", Session) || _ <- [1, 2, 3]],
    [{200, _} = head(Socket) || Socket <- Sockets],
    [ok = erlmcp_native_http:send(Id, <<"n">>, #{<<"n">> => N}) || N <- lists:seq(1, 5)],
    {204, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Session)),
    Got = [N || S <- Sockets, #{<<"params">> := #{<<"n">> := N}} <- messages(http_mcp:events(S))],
    ?assertEqual(lists:seq(1, 5), lists:sort(Got)).

get_stream_that_comes_later(Config) ->
    {Port, Session} = session(Config, ?D, #{max_events => 3}),
    Id = header(<<"mcp-session-id">>, Session),
    [ok = erlmcp_native_http:send(Id, <<"n">>, #{<<"n">> => N}) || N <- [1, 2, 3]],
    {error, busy} = erlmcp_native_http:send(Id, <<"n">>, #{<<"n">> => 4}),
    Socket = get_stream(Port, "/mcp", Session),
    {200, _} = head(Socket),
    [{_, #{<<"params">> := #{<<"n">> := N}}} = message(Socket) || N <- [1, 2, 3]].

get_stream_that_is_resumed(Config) ->
    {Port, Session} = session(Config, ?D),
    Id = header(<<"mcp-session-id">>, Session),
    Socket = get_stream(Port, "/mcp", Session),
    {200, _} = head(Socket),
    {event, #{data := <<>>, id := Primed}} = event(Socket),
    ok = erlmcp_native_http:send(Id, <<"n">>, #{<<"n">> => 1}),
    {First, _} = message(Socket),
    ok = erlmcp_native_http:send(Id, <<"n">>, #{<<"n">> => 2}),
    {_, _} = message(Socket),
    ok = http_mcp:close(Socket),
    Resumed = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, First}]),
    {200, _} = head(Resumed),
    {_, #{<<"params">> := #{<<"n">> := 2}}} = message(Resumed),
    ok = erlmcp_native_http:send(Id, <<"n">>, #{<<"n">> => 3}),
    {_, #{<<"params">> := #{<<"n">> := 3}}} = message(Resumed),
    Again = get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Primed}]),
    {200, _} = head(Again),
    [{_, #{<<"params">> := #{<<"n">> := N}}} = message(Again) || N <- [1, 2, 3]].

get_stream_is_kept_alive(Config) ->
    {Port, _} = listen(Config, #{keepalive_ms => 50}),
    Socket = get_stream(Port, "/mcp", initialize(Port, ?C)),
    {200, _} = head(Socket),
    ?assertEqual(<<":\n\n">>, http_raw:part(Socket)),
    ?assertEqual(<<":\n\n">>, http_raw:part(Socket)),
    %% And so is the stream of an answer.
    {Answer, _} = streaming(Port, initialize(Port, ?C)),
    {_, _} = message(Answer),
    ?assertEqual(<<":\n\n">>, http_raw:part(Answer)).

events_at_the_limit(Config) ->
    {Port, Session} = session(Config, ?D, #{max_events => 2}),
    {200, _, [{event, #{id := Primed}} | _]} =
        post(Port, Session, call(1, <<"progress">>, #{<<"n">> => 5})),
    {200, _, Replayed} =
        answer(get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Primed}])),
    ?assertEqual(2, length(Replayed)),
    {Off, _} = listen(Config, #{max_events => 0}),
    {200, _, Events} = post(Off, initialize(Off, ?D), call(1, <<"progress">>, #{<<"n">> => 2})),
    ?assertEqual([<<>>, <<>>, <<>>], [Id || {event, #{id := Id}} <- Events]).

%% It is cut off rather than waited for, and finds the rest when it comes again.
client_that_does_not_read(Config) ->
    {Port, Session} = session(Config, ?D, #{max_stream_bytes => 10000}),
    {Socket, Ref} = streaming(Port, Session),
    {Id, _} = message(Socket),
    Big = #{<<"x">> => binary:copy(<<"x">>, 100000)},
    [ok = erlmcp_native_http:notify(Ref, <<"notifications/x">>, Big) || _ <- lists:seq(1, 100)],
    ok = erlmcp_native_http:reply(Ref, reply(<<"end">>)),
    ok = http_mcp:close(Socket),
    {200, _, Replayed} = answer(get_stream(Port, "/mcp", Session ++ [{<<"last-event-id">>, Id}])),
    ?assertEqual(<<"end">>, text(lists:last(messages(Replayed)))).

%% ---- modern

modern_request(Config) ->
    {Port, _} = listen(Config),
    {200, Headers, Body} = modern_call(Port, <<"echo">>, #{<<"a">> => 1}),
    ?assertEqual(<<"application/json">>, header(<<"content-type">>, Headers)),
    ?assertEqual(none, header(<<"mcp-session-id">>, Headers)),
    ?assertEqual(<<"{\"a\":1}">>, text(Body)),
    ?assertMatch(#{<<"result">> := #{<<"resultType">> := <<"complete">>}}, Body).

modern_request_with_a_stream(Config) ->
    {Port, _} = listen(Config),
    {200, Headers, Events} = modern_call(Port, <<"progress">>, #{<<"n">> => 2}),
    ?assertEqual(<<"text/event-stream">>, header(<<"content-type">>, Headers)),
    ?assertEqual(<<"no">>, header(<<"x-accel-buffering">>, Headers)),
    ?assertEqual([<<>>, <<>>, <<>>], [Id || {event, #{id := Id}} <- Events]),
    ?assertMatch([_, _, #{<<"id">> := 1, <<"result">> := _}], messages(Events)).

modern_notification(Config) ->
    {Port, _} = listen(Config),
    Headers = [{<<"mcp-protocol-version">>, ?E}],
    {202, _, <<>>} = post(Port, Headers, notification(<<"notifications/x">>, #{})),
    receive
        {notification, <<"notifications/x">>, _, #{revision := ?E, session := none}} -> ok
    after ?WAIT -> error(timeout)
    end.

modern_response_is_refused(Config) ->
    {Port, _} = listen(Config),
    Response = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 1, <<"result">> => #{}},
    {400, _, _} = post(Port, [{<<"mcp-protocol-version">>, ?E}], Response).

modern_has_neither_get_nor_delete(Config) ->
    {Port, _} = listen(Config),
    Headers = [{<<"mcp-protocol-version">>, ?E}],
    {405, _, _} = answer(get_stream(Port, "/mcp", Headers)),
    {405, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Headers)),
    {Only, _} = listen(Config, #{revisions => [?E]}),
    {405, _, _} = answer(get_stream(Only, "/mcp", [])),
    {405, _, _} = answer(method(Only, <<"DELETE">>, "/mcp", [])).

modern_ignores_sessions(Config) ->
    {Port, _} = listen(Config),
    Params = #{<<"name">> => <<"context">>},
    Extra = [{<<"mcp-session-id">>, <<"nonsense">>}, {<<"last-event-id">>, <<"p1-1">>}],
    Headers = modern_headers(<<"tools/call">>, Params) ++ Extra,
    {200, Answer, _} = post(Port, Headers, modern(<<"tools/call">>, Params)),
    ?assertEqual(none, header(<<"mcp-session-id">>, Answer)),
    receive
        {context, #{session := none, state := undefined, revision := ?E}} -> ok
    after ?WAIT -> error(timeout)
    end.

modern_version_missing(Config) ->
    {Port, _} = listen(Config),
    Headers = lists:keydelete(
        <<"mcp-protocol-version">>, 1, modern_headers(<<"ping">>, #{})
    ),
    {400, _, Body} = post(Port, Headers, modern(<<"ping">>, #{})),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32020}}, Body).

modern_version_mismatch(Config) ->
    {Port, _} = listen(Config),
    [
        begin
            Headers = lists:keystore(
                <<"mcp-protocol-version">>, 1, modern_headers(<<"ping">>, #{}),
                {<<"mcp-protocol-version">>, Version}
            ),
            {400, _, Body} = post(Port, Headers, modern(<<"ping">>, #{})),
            ?assertMatch(#{<<"error">> := #{<<"code">> := -32020}}, Body)
        end
     || Version <- [?D, <<"1999-01-01">>]
    ].

modern_version_unknown(Config) ->
    {Port, _} = listen(Config),
    Version = <<"2030-01-01">>,
    #{<<"params">> := #{<<"_meta">> := Meta}} = Ping = modern(<<"ping">>, #{}),
    Unknown = Meta#{<<"io.modelcontextprotocol/protocolVersion">> := Version},
    Headers = [{<<"mcp-protocol-version">>, Version}, {<<"mcp-method">>, <<"ping">>}],
    {400, _, Body} = post(Port, Headers, Ping#{<<"params">> := #{<<"_meta">> => Unknown}}),
    ?assertMatch(
        #{
            <<"id">> := 1,
            <<"error">> := #{
                <<"code">> := -32022,
                <<"data">> := #{
                    <<"supported">> := [?E, ?D, ?C, ?B], <<"requested">> := Version
                }
            }
        },
        Body
    ).

modern_meta_missing(Config) ->
    {Port, _} = listen(Config),
    Headers = modern_headers(<<"ping">>, #{}),
    #{<<"params">> := #{<<"_meta">> := Meta}} = Ping = modern(<<"ping">>, #{}),
    [
        begin
            {400, _, Body} = post(Port, Headers, Ping#{<<"params">> := Params}),
            ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32602}}, Body)
        end
     || Params <- [
            #{},
            #{<<"_meta">> => #{}},
            #{<<"_meta">> => maps:remove(<<"io.modelcontextprotocol/protocolVersion">>, Meta)},
            #{<<"_meta">> => maps:remove(<<"io.modelcontextprotocol/clientCapabilities">>, Meta)},
            #{<<"_meta">> => Meta#{<<"io.modelcontextprotocol/clientCapabilities">> := 1}}
        ]
    ].

modern_method_unknown(Config) ->
    {Port, _} = listen(Config),
    Method = <<"no/such/method">>,
    {404, _, Body} = post(Port, modern_headers(Method, #{}), modern(Method, #{})),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32601}}, Body),
    %% Legacy clients know an error when they see one.
    {200, _, _} = post(Port, initialize(Port, ?D), request(1, Method)).

modern_capability_missing(Config) ->
    {Port, _} = listen(Config),
    {400, _, Body} = modern_call(Port, <<"needs">>, #{}),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32021}}, Body).

modern_mirrored_method(Config) ->
    {Port, _} = listen(Config),
    Version = {<<"mcp-protocol-version">>, ?E},
    [
        begin
            {400, _, Body} = post(Port, [Version | Method], modern(<<"ping">>, #{})),
            ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32020}}, Body)
        end
     || Method <- [
            [],
            [{<<"mcp-method">>, <<"tools/list">>}],
            [{<<"mcp-method">>, <<"PING">>}]
        ]
    ],
    {200, _, _} =
        post(Port, [Version, {<<"MCP-METHOD">>, <<"ping">>}], modern(<<"ping">>, #{})).

modern_mirrored_name(Config) ->
    {Port, _} = listen(Config),
    Status = fun(Name, Header) ->
        Params = #{<<"name">> => Name},
        Headers = [
            {<<"mcp-protocol-version">>, ?E}, {<<"mcp-method">>, <<"tools/call">>},
            {<<"mcp-name">>, Header}
        ],
        {Code, _, Body} = post(Port, Headers, modern(<<"tools/call">>, Params)),
        {Code, maps:get(<<"code">>, maps:get(<<"error">>, Body, #{}), none)}
    end,
    ?assertEqual({200, none}, Status(<<"echo">>, <<"echo">>)),
    ?assertEqual({200, none}, Status(<<"echo">>, <<"=?base64?ZWNobw==?=">>)),
    ?assertEqual({200, none}, Status(<<"name ü"/utf8>>, <<"=?base64?bmFtZSDDvA==?=">>)),
    ?assertEqual({400, -32020}, Status(<<"echo">>, none)),
    ?assertEqual({400, -32020}, Status(<<"echo">>, <<"Echo">>)),
    ?assertEqual({400, -32020}, Status(<<"echo">>, <<"=?base64?ZWNobx==">>)),
    ?assertEqual({400, -32020}, Status(<<"echo">>, <<"=?base64?!?=">>)),
    Read = #{<<"uri">> => <<"file:///a">>},
    Bad = lists:keydelete(<<"mcp-name">>, 1, modern_headers(<<"resources/read">>, Read)),
    {400, _, _} = post(Port, Bad, modern(<<"resources/read">>, Read)),
    {404, _, _} =
        post(Port, modern_headers(<<"resources/read">>, Read), modern(<<"resources/read">>, Read)).

modern_mirrored_params(Config) ->
    {Port, _} = listen(Config),
    Status = fun(Arguments, Mirrored) ->
        Params = #{<<"name">> => <<"region">>, <<"arguments">> => Arguments},
        Headers = modern_headers(<<"tools/call">>, Params) ++ Mirrored,
        {Code, _, _} = post(Port, Headers, modern(<<"tools/call">>, Params)),
        Code
    end,
    Region = #{<<"region">> => <<"us">>},
    ?assertEqual(200, Status(#{}, [])),
    ?assertEqual(200, Status(#{<<"region">> => null}, [])),
    ?assertEqual(200, Status(Region, [{<<"mcp-param-region">>, <<"us">>}])),
    ?assertEqual(200, Status(Region, [{<<"Mcp-Param-REGION">>, <<"=?base64?dXM=?=">>}])),
    ?assertEqual(400, Status(Region, [])),
    ?assertEqual(400, Status(Region, [{<<"mcp-param-region">>, <<"US">>}])),
    ?assertEqual(400, Status(#{}, [{<<"mcp-param-region">>, <<"us">>}])),
    At = fun(X, On) -> #{<<"at">> => #{<<"x">> => X, <<"on">> => On}} end,
    On = {<<"mcp-param-on">>, <<"true">>},
    ?assertEqual(200, Status(At(42, true), [{<<"mcp-param-x">>, <<"42">>}, On])),
    ?assertEqual(200, Status(At(42, true), [{<<"mcp-param-x">>, <<"42.0">>}, On])),
    ?assertEqual(400, Status(At(42, true), [{<<"mcp-param-x">>, <<"43">>}, On])),
    ?assertEqual(400, Status(At(42, false), [{<<"mcp-param-x">>, <<"42">>}, On])),
    %% One that no schema asks for is nobody's business.
    ?assertEqual(200, Status(#{}, [{<<"mcp-param-other">>, <<"x">>}])).

modern_disconnect_cancels(Config) ->
    {Port, _} = listen(Config),
    Socket = modern_start(Port, <<"wait">>, #{}),
    Monitor = watch(waiting()),
    ok = http_mcp:close(Socket),
    ?assertEqual({shutdown, gone}, reason(Monitor)).

modern_disconnect_cancels_a_stream(Config) ->
    {Port, _} = listen(Config),
    Socket = modern_start(Port, <<"later">>, #{}),
    {Pid, Ref} = later_in(),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{}),
    {200, _} = head(Socket),
    {_, _} = message(Socket),
    Monitor = watch(Pid),
    ok = http_mcp:close(Socket),
    ?assertEqual({shutdown, gone}, reason(Monitor)),
    {error, gone} = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{}).

modern_server_asks_nothing(Config) ->
    {Port, _} = listen(Config),
    {200, _, Body} = modern_call(Port, <<"ask">>, #{}),
    ?assertEqual(<<"not_allowed">>, text(Body)).

modern_discover(Config) ->
    {Port, _} = listen(Config),
    Method = <<"server/discover">>,
    {200, _, Body} = post(Port, modern_headers(Method, #{}), modern(Method, #{})),
    ?assertMatch(#{<<"result">> := #{<<"supportedVersions">> := _}}, Body).

modern_subscription(Config) ->
    {Port, Listener} = listen(Config),
    Method = <<"subscriptions/listen">>,
    Params = #{<<"notifications">> => #{<<"toolsListChanged">> => true}},
    Socket = start(Port, modern_headers(Method, #{}), http_mcp:modern(<<"s">>, Method, Params)),
    {200, _} = head(Socket),
    Id = <<"io.modelcontextprotocol/subscriptionId">>,
    {_, Ack} = message(Socket),
    ?assertMatch(
        #{
            <<"method">> := <<"notifications/subscriptions/acknowledged">>,
            <<"params">> := #{<<"_meta">> := #{Id := <<"s">>}}
        },
        Ack
    ),
    Ref =
        receive
            {listening, R} -> R
        after ?WAIT -> error(timeout)
        end,
    ok = erlmcp_native_http:notify(Ref, <<"notifications/tools/list_changed">>, #{}),
    {_, Changed} = message(Socket),
    ?assertMatch(#{<<"params">> := #{<<"_meta">> := #{Id := <<"s">>}}}, Changed),
    %% The end is graceful.
    ok = erlmcp_native_http:drain(Listener),
    {_, End} = message(Socket),
    ?assertMatch(
        #{
            <<"id">> := <<"s">>,
            <<"result">> := #{
                <<"resultType">> := <<"complete">>, <<"_meta">> := #{Id := <<"s">>}
            }
        },
        End
    ),
    ?assertEqual(done, event(Socket)).

modern_only_names_its_versions(Config) ->
    {Port, _} = listen(Config, #{revisions => [?E]}),
    Init = request(0, <<"initialize">>, #{<<"protocolVersion">> => ?D}),
    {400, _, Body} = post(Port, [], Init),
    ?assertMatch(
        #{<<"error">> := #{<<"code">> := -32022, <<"data">> := #{<<"supported">> := [?E]}}}, Body
    ).

legacy_only_does_not_look_modern(Config) ->
    {Port, _} = listen(Config, #{revisions => [?C, ?D]}),
    {400, _, Body} = post(Port, modern_headers(<<"ping">>, #{}), modern(<<"ping">>, #{})),
    #{<<"error">> := #{<<"code">> := Code}} = Body,
    ?assertNot(lists:member(Code, [-32020, -32021, -32022, -32601])),
    initialize(Port, ?D).

both_eras_at_once(Config) ->
    {Port, Session} = session(Config, ?C),
    {200, _, Modern} = modern_call(Port, <<"echo">>, #{}),
    {200, _, Legacy} = post(Port, Session, call(1, <<"echo">>, #{})),
    ?assertMatch(#{<<"result">> := #{<<"resultType">> := _}}, Modern),
    #{<<"result">> := Result} = Legacy,
    ?assertNot(is_map_key(<<"resultType">>, Result)).

%% ---- authorization

authorize(#{headers := Headers} = Head) ->
    false = is_map_key(body, Head),
    case header(<<"authorization">>, Headers) of
        none -> {unauthorized, <<>>};
        <<"Bearer weak">> -> {forbidden, <<"error=\"insufficient_scope\", scope=\"mcp\"">>};
        <<"Bearer ", Name/binary>> when Name =:= <<"alice">>; Name =:= <<"bob">> -> {ok, Name};
        _ -> {unauthorized, <<"error=\"invalid_token\"">>}
    end.

token_is_asked_for(Config) ->
    {Port, _} = listen(Config, #{
        authorize => {?MODULE, authorize, []},
        resource_metadata => #{<<"resource">> => <<"http://localhost/mcp">>}
    }),
    {401, Headers, _} = post(Port, [], request(0, <<"initialize">>)),
    ?assertEqual(
        <<"Bearer resource_metadata=\"http://localhost/.well-known/"
            "oauth-protected-resource/mcp\"">>,
        header(<<"www-authenticate">>, Headers)
    ),
    {401, Wrong, _} = post(Port, [{<<"authorization">>, <<"Bearer x">>}], request(0, <<"ping">>)),
    ?assertMatch(
        {match, _}, re:run(header(<<"www-authenticate">>, Wrong), "error=\"invalid_token\"")
    ).

token_is_checked_with_each_request(Config) ->
    {Port, _} = listen(Config, #{authorize => {?MODULE, authorize, []}}),
    Session = initialize(Port, ?D, [{<<"authorization">>, <<"Bearer alice">>}]),
    Without = lists:keydelete(<<"authorization">>, 1, Session),
    {401, _, _} = post(Port, Without, request(1, <<"ping">>)),
    {401, _, _} = answer(get_stream(Port, "/mcp", Without)),
    {401, _, _} = answer(method(Port, <<"DELETE">>, "/mcp", Without)),
    {401, _, _} = post(Port, modern_headers(<<"ping">>, #{}), modern(<<"ping">>, #{})),
    {200, _, _} = post(Port, Session, request(1, <<"ping">>)).

token_without_the_scope(Config) ->
    {Port, _} = listen(Config, #{authorize => {?MODULE, authorize, []}}),
    {403, Headers, _} =
        post(Port, [{<<"authorization">>, <<"Bearer weak">>}], request(0, <<"ping">>)),
    ?assertEqual(
        <<"Bearer error=\"insufficient_scope\", scope=\"mcp\"">>,
        header(<<"www-authenticate">>, Headers)
    ).

metadata_is_published(Config) ->
    Document = #{
        <<"resource">> => <<"https://mcp.example/mcp">>,
        <<"authorization_servers">> => [<<"https://as.example">>]
    },
    {Port, _} = listen(Config, #{
        authorize => {?MODULE, authorize, []}, resource_metadata => Document
    }),
    Get = fun(Path) -> answer(method(Port, <<"GET">>, Path, [])) end,
    ?assertMatch({200, _, Document}, Get("/.well-known/oauth-protected-resource")),
    ?assertMatch({200, _, Document}, Get("/.well-known/oauth-protected-resource/mcp")),
    ?assertMatch({404, _, _}, Get("/.well-known/oauth-protected-resource/other")),
    {Without, _} = listen(Config),
    {404, _, _} =
        answer(method(Without, <<"GET">>, "/.well-known/oauth-protected-resource", [])).

%% ---- HTTP+SSE

sse_endpoint_and_messages(Config) ->
    {Port, _} = listen(Config, #{http_sse => sse()}),
    {Socket, Target} = sse_session(Port),
    Init = request(0, <<"initialize">>, #{<<"protocolVersion">> => ?A}),
    {202, _, _} = http_mcp:post(Port, Target, [], Init),
    {_, #{<<"id">> := 0, <<"result">> := #{<<"protocolVersion">> := ?A}}} = message(Socket),
    {202, _, _} = http_mcp:post(
        Port, Target, [], notification(<<"notifications/initialized">>, #{})
    ),
    {202, _, _} = http_mcp:post(Port, Target, [], call(1, <<"echo">>, #{<<"x">> => 1})),
    {_, Answer} = message(Socket),
    ?assertEqual(<<"{\"x\":1}">>, text(Answer)),
    {400, _, _} = http_mcp:post(Port, Target, [], <<"{">>),
    {404, _, _} = http_mcp:post(Port, "/messages?sessionId=x", [], request(1, <<"ping">>)),
    {405, _, _} = http_mcp:post(Port, "/sse", [], request(1, <<"ping">>)),
    {403, _, _} = answer(
        get_stream(Port, "/sse", [{<<"origin">>, <<"http://evil.example">>}])
    ).

sse_streams_and_questions(Config) ->
    {Port, _} = listen(Config, #{http_sse => sse()}),
    {Socket, Target} = sse_session(Port),
    {202, _, _} = http_mcp:post(Port, Target, [], call(1, <<"progress">>, #{<<"n">> => 2})),
    {_, #{<<"method">> := _}} = message(Socket),
    {_, #{<<"method">> := _}} = message(Socket),
    {_, #{<<"id">> := 1}} = message(Socket),
    {202, _, _} = http_mcp:post(Port, Target, [], call(2, <<"ask">>, #{})),
    {_, #{<<"id">> := Id, <<"method">> := _}} = message(Socket),
    Response = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => #{}},
    {202, _, _} = http_mcp:post(Port, Target, [], Response),
    {_, #{<<"id">> := 2}} = message(Socket),
    {202, _, _} = http_mcp:post(Port, Target, [], call(3, <<"wait">>, #{})),
    Monitor = watch(waiting()),
    {202, _, _} = http_mcp:post(Port, Target, [], cancelled(3)),
    ?assertEqual({shutdown, cancelled}, reason(Monitor)).

sse_is_off(Config) ->
    {Port, _} = listen(Config),
    {404, _, _} = answer(get_stream(Port, "/sse", [])).

sse_session_ends_with_its_stream(Config) ->
    {Port, _} = listen(Config, #{http_sse => sse()}),
    {Socket, Target} = sse_session(Port),
    ok = http_mcp:close(Socket),
    receive
        {terminated, _, _} -> ok
    after ?WAIT -> error(timeout)
    end,
    {404, _, _} = http_mcp:post(Port, Target, [], request(1, <<"ping">>)).

sse() -> #{sse => <<"/sse">>, messages => <<"/messages">>}.

sse_session(Port) ->
    Socket = get_stream(Port, "/sse", []),
    {200, _} = head(Socket),
    {event, #{type := <<"endpoint">>, data := Target}} = event(Socket),
    {Socket, Target}.

%% ---- registry

registry_answers(Config) ->
    {Port, _} = routed(Config),
    _ = server(<<"calc">>),
    Session = initialize(Port, ?D),
    {200, _, Body} = post(Port, Session, request(<<"x">>, <<"echo">>, #{<<"a">> => 1})),
    ?assertMatch(#{<<"id">> := <<"x">>, <<"result">> := #{<<"a">> := 1}}, Body),
    {200, _, Error} = post(Port, Session, request(2, <<"fail">>)),
    ?assertMatch(#{<<"id">> := 2, <<"error">> := #{<<"code">> := -7}}, Error),
    {202, _, _} = post(Port, Session, notification(<<"notifications/x">>, #{})),
    receive
        {server_got, <<"notifications/x">>} -> ok
    after ?WAIT -> error(timeout)
    end,
    Echo = <<"echo">>,
    {200, _, Modern} = post(Port, modern_headers(Echo, #{}), modern(Echo, #{<<"b">> => 2})),
    ?assertMatch(#{<<"id">> := 1, <<"result">> := #{<<"b">> := 2}}, Modern).

registry_keeps_ids_apart(Config) ->
    {Port, _} = routed(Config),
    Server = server(<<"calc">>),
    Sessions = [initialize(Port, ?D), initialize(Port, ?D)],
    Sockets = [
        {N, start(Port, Session, request(1, <<"hold">>, #{<<"n">> => N}))}
     || {N, Session} <- [{1, hd(Sessions)}, {2, lists:last(Sessions)}, {3, hd(Sessions)}]
    ],
    [
        receive
            {server_got, <<"hold">>} -> ok
        after ?WAIT -> error(timeout)
        end
     || _ <- Sockets
    ],
    Server ! release,
    [
        ?assertMatch(
            {200, _, #{<<"id">> := 1, <<"result">> := #{<<"n">> := N}}}, answer(Socket)
        )
     || {N, Socket} <- Sockets
    ].

registry_without_a_server(Config) ->
    {Port, _} = routed(Config),
    Init = request(0, <<"initialize">>, #{<<"protocolVersion">> => ?D}),
    {200, Headers, Body} = post(Port, [], Init),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32603}}, Body),
    ?assertEqual(none, header(<<"mcp-session-id">>, Headers)).

registry_server_that_dies(Config) ->
    {Port, _} = routed(Config),
    Server = server(<<"calc">>),
    Session = initialize(Port, ?D),
    Socket = start(Port, Session, request(1, <<"hold">>)),
    receive
        {server_got, <<"hold">>} -> ok
    after ?WAIT -> error(timeout)
    end,
    true = unlink(Server),
    true = exit(Server, kill),
    {200, _, #{<<"error">> := #{<<"code">> := -32603}}} = answer(Socket),
    ok = gone_from_registry(<<"calc">>),
    _ = server(<<"calc">>),
    {200, _, #{<<"result">> := _}} = post(Port, Session, request(1, <<"echo">>)).

registry_notifications(Config) ->
    {Port, _} = routed(Config),
    _ = server(<<"calc">>),
    Socket = get_stream(Port, "/mcp", initialize(Port, ?D)),
    {200, _} = head(Socket),
    Json = erlmcp_native_json:encode(notification(<<"notifications/tools/list_changed">>, #{})),
    ok = erlmcp_native_registry:route_to_transport(broadcast, <<"calc">>, Json),
    {_, #{<<"method">> := <<"notifications/tools/list_changed">>}} = message(Socket).

routed(Config) ->
    listen(Config, #{server_id => <<"calc">>}, #{}).

server(Id) ->
    Test = self(),
    ok = gone_from_registry(Id),
    Pid = spawn_link(fun() -> serve(Id, Test, []) end),
    ok = erlmcp_native_registry:register_server(Id, Pid, #{}),
    Pid.

serve(Id, Test, Held) ->
    receive
        {mcp_message, Transport, Json} ->
            {ok, #{<<"method">> := Method} = Message} = erlmcp_native_json:decode(Json),
            Test ! {server_got, Method},
            case serve_method(Method, Message) of
                held ->
                    serve(Id, Test, [{Transport, Message} | Held]);
                none ->
                    serve(Id, Test, Held);
                Answer ->
                    server_answer(Id, Transport, Message, Answer),
                    serve(Id, Test, Held)
            end;
        release ->
            [
                server_answer(Id, T, M, #{<<"result">> => maps:get(<<"params">>, M)})
             || {T, M} <- Held
            ],
            serve(Id, Test, [])
    end.

serve_method(<<"initialize">>, _) -> #{<<"result">> => #{<<"protocolVersion">> => ?D}};
serve_method(<<"echo">>, #{<<"params">> := Params}) -> #{<<"result">> => Params};
serve_method(<<"hold">>, _) -> held;
serve_method(<<"fail">>, _) ->
    #{<<"error">> => #{<<"code">> => -7, <<"message">> => <<"no">>}};
serve_method(_, _) -> none.

server_answer(Id, Transport, #{<<"id">> := RequestId}, Answer) ->
    Json = erlmcp_native_json:encode(Answer#{<<"jsonrpc">> => <<"2.0">>, <<"id">> => RequestId}),
    erlmcp_native_registry:route_to_transport(Transport, Id, Json).

gone_from_registry(Id) ->
    case erlmcp_native_registry:find_server(Id) of
        {error, not_found} -> ok;
        {ok, _} ->
            erlang:yield(),
            gone_from_registry(Id)
    end.

%% ---- the listener

listener_tells_about_itself(Config) ->
    {Port, Listener} = listen(Config),
    _ = initialize(Port, ?D),
    ?assertMatch(
        {ok, #{sockname := {_, Port}, endpoint := <<"/mcp">>, sessions := 1, requests := _}},
        erlmcp_native_http:info(Listener)
    ).

listener_ends_with_its_owner(Config) ->
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() ->
        Test ! listen(Config),
        receive
            stop -> ok
        end
    end),
    {Port, Listener} =
        receive
            {_, L} = Listening when is_pid(L) -> Listening
        after ?WAIT -> error(timeout)
        end,
    Session = initialize(Port, ?D),
    Ended = monitor(process, Listener),
    Owner ! stop,
    _ = reason(Monitor),
    normal = reason(Ended),
    terminated(header(<<"mcp-session-id">>, Session)),
    {error, closed} = erlmcp_native_http:info(Listener).

listener_that_is_closed(Config) ->
    {Port, Listener} = listen(Config),
    Session = initialize(Port, ?D),
    Socket = get_stream(Port, "/mcp", Session),
    {200, _} = head(Socket),
    {event, #{data := <<>>}} = http_mcp:event(Socket),
    ok = erlmcp_native_http:close(Listener),
    ok = erlmcp_native_http:close(Listener),
    terminated(header(<<"mcp-session-id">>, Session)),
    ?assertEqual([], [Event || {event, _} = Event <- http_mcp:events(Socket)]).

listener_that_is_drained(Config) ->
    {Port, Listener} = listen(Config),
    Session = initialize(Port, ?D),
    Stream = get_stream(Port, "/mcp", Session),
    {200, _} = head(Stream),
    Busy = start(Port, Session, call(1, <<"wait">>, #{})),
    Waiting = waiting(),
    Test = self(),
    _ = spawn_link(fun() ->
        ok = erlmcp_native_http:drain(Listener),
        Test ! drained
    end),
    ?assertMatch([{event, #{data := <<>>}}], http_mcp:events(Stream)),
    Waiting ! {go, <<"done">>},
    ?assertEqual(<<"done">>, text(answer(Busy))),
    receive
        drained -> ok
    after ?WAIT -> error(timeout)
    end,
    {error, econnrefused} = gen_tcp:connect({127, 0, 0, 1}, Port, [], ?WAIT).

%% ---- helpers

listen(Config) -> listen(Config, #{}).

listen(Config, Options) ->
    listen(Config, #{handler => {http_handler, whereis(http_server_test)}}, Options).

listen(Config, Serves, Options) ->
    Given = maps:merge(Serves#{path => proplists:get_value(path, Config)}, Options),
    {ok, Listener} = erlmcp_native_http:listen(#{port => 0}, Given),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    {Port, Listener}.

%% A session that stands: the port of its server, and its headers.
session(Config, Revision) -> session(Config, Revision, #{}).

session(Config, Revision, Options) ->
    {Port, _} = listen(Config, Options),
    {Port, initialize(Port, Revision)}.

call(Id, Tool, Arguments) ->
    request(Id, <<"tools/call">>, #{<<"name">> => Tool, <<"arguments">> => Arguments}).

modern_start(Port, Tool, Arguments) ->
    Params = #{<<"name">> => Tool, <<"arguments">> => Arguments},
    Headers = modern_headers(<<"tools/call">>, Params),
    start(Port, Headers, modern(<<"tools/call">>, Params)).

modern_call(Port, Tool, Arguments) ->
    answer(modern_start(Port, Tool, Arguments)).

get_stream(Port, Target, Headers) ->
    method(Port, <<"GET">>, Target, [{<<"accept">>, <<"text/event-stream">>} | Headers]).

cancelled(Id) ->
    notification(<<"notifications/cancelled">>, #{<<"requestId">> => Id}).

reply(Text) ->
    {reply, #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]}}.

%% The text that a tool has answered with.
text({200, _, Body}) -> text(Body);
text(#{<<"result">> := #{<<"content">> := [#{<<"text">> := Text}]}}) -> Text.

messages(Events) ->
    [
        begin
            {ok, Message} = erlmcp_native_json:decode(Data),
            Message
        end
     || {event, #{data := Data}} <- Events, Data =/= <<>>
    ].

%% A request whose answer streams already, with one notification.
streaming(Port, Session) ->
    Socket = start(Port, Session, call(1, <<"later">>, #{})),
    Ref = later(),
    ok = erlmcp_native_http:notify(Ref, <<"notifications/progress">>, #{<<"n">> => 1}),
    {200, _} = head(Socket),
    {Socket, Ref}.

later() -> element(2, later_in()).

later_in() ->
    receive
        {later, Pid, Ref, _} -> {Pid, Ref}
    after ?WAIT -> error(timeout)
    end.

waiting() ->
    receive
        {waiting, Pid, _} -> Pid
    after ?WAIT -> error(timeout)
    end.

terminated(Id) ->
    receive
        {terminated, Id, _} -> ok
    after ?WAIT -> error(timeout)
    end.

%% The VM may hold a monitor back until its maker is scheduled out: what others do to the process
%% could overtake it.
watch(Pid) ->
    Monitor = monitor(process, Pid),
    true = erlang:yield(),
    Monitor.
