%% Batches that a client of Streamable HTTP sends, which 2025-03-26 alone has.
-module(http_client_batch_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [event/1, messages/2, until/1]).

-define(CLIENT, erlmcp_native_http_client).
-define(BREAKERS, erlmcp_native_breakers).
-define(WAIT, 10000).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{Path, cases()} || Path <- [nif, port, beam]].

cases() ->
    [
        one_post_answered_with_an_array,
        one_post_answered_on_a_stream,
        without_requests_it_is_accepted,
        of_this_revision_alone,
        what_may_not_be_in_one,
        bounds,
        waits_for_the_session,
        one_is_cancelled,
        cancelled_within,
        cancelled_beside_others,
        one_times_out,
        stream_that_is_cut_is_resumed_for_each,
        refused_for_each,
        server_that_is_busy_is_asked_again_for_each,
        broken_off_for_each,
        session_that_ended,
        redirected_whole,
        counted_by_the_breaker,
        probes_a_breaker_whatever_its_size,
        too_large_an_answer,
        our_server
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_http_client_path, Path, Config).

end_per_group(_, _) -> ok.

init_per_testcase(_, Config) ->
    process_flag(trap_exit, true),
    [{peer, http_peer:listen()} | Config].

%% ---- what is sent

one_post_answered_with_an_array(Config) ->
    P = peer(Config),
    C = ready(Config),
    Batch = [call(2, <<"tools/list">>), note(<<"notifications/n">>), call(<<"3">>, <<"ping">>)],
    R = asked(C, P, Batch),
    ?assertEqual(Batch, http_peer:body(R)),
    ?assertEqual(<<"s1">>, http_peer:header(<<"mcp-session-id">>, R)),
    ?assertMatch({ok, #{pending := 2}}, ?CLIENT:info(C)),
    http_peer:json(R, [result(<<"3">>, #{}), result(2, #{})]),
    ?assertEqual([<<"3">>, 2], ids(C, 2)),
    ?assertMatch({ok, #{pending := 0}}, ?CLIENT:info(C)),
    http_peer:none(P, 50).

one_post_answered_on_a_stream(Config) ->
    C = ready(Config),
    ok = send(C, [call(2, <<"a">>), call(3, <<"b">>)]),
    R = http_peer:next(peer(Config)),
    http_peer:stream(R),
    http_peer:event(R, #{data => result(3, #{})}),
    ?assertEqual([3], ids(C, 1)),
    http_peer:event(R, #{data => note(<<"n">>)}),
    http_peer:event(R, #{data => result(2, #{})}),
    ?assertMatch([#{<<"method">> := <<"n">>}, #{<<"id">> := 2}], messages(C, 2)),
    http_peer:finish(R).

without_requests_it_is_accepted(Config) ->
    P = peer(Config),
    C = ready(Config),
    Answer = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 7, <<"result">> => #{}},
    http_peer:accepted(asked(C, P, [note(<<"n">>), Answer])),
    http_peer:answer(asked(C, P, [note(<<"n">>), note(<<"m">>)]), 400, [], <<>>),
    ?assertEqual({failed, none, {status, 400, <<>>}}, event(C)),
    ?assertEqual({failed, none, {status, 400, <<>>}}, event(C)).

of_this_revision_alone(Config) ->
    Batch = [call(2, <<"ping">>)],
    Ready = fun(Revision) -> ready([{peer, http_peer:listen()} | Config], #{}, Revision) end,
    [
        ?assertEqual({error, not_allowed}, send(Ready(Revision), Batch))
     || Revision <- [<<"2024-11-05">>, <<"2025-06-18">>, <<"2025-11-25">>]
    ],
    ?assertEqual({error, not_allowed}, send(start(Config, #{}), Batch)).

what_may_not_be_in_one(Config) ->
    C = ready(Config),
    Meta = #{<<"_meta">> => #{<<"io.modelcontextprotocol/protocolVersion">> => <<"2026-07-28">>}},
    [
        ?assertEqual({error, invalid_message}, send(C, Batch))
     || Batch <- [
            [],
            [call(2, <<"a">>), 1],
            [[call(2, <<"a">>)]],
            [call(2, <<"a">>), #{}],
            [call(2, <<"initialize">>)],
            [call(null, <<"a">>)],
            [(call(2, <<"a">>))#{<<"params">> => Meta}]
        ]
    ],
    ?assertEqual({error, duplicate_id}, send(C, [call(2, <<"a">>), call(2, <<"b">>)])),
    ok = ?CLIENT:send(C, encode(call(2, <<"a">>))),
    ?assertEqual({error, duplicate_id}, send(C, [call(3, <<"a">>), call(2, <<"b">>)])),
    ?assertEqual(2, id(http_peer:next(peer(Config)))),
    ?assertMatch({ok, #{pending := 1}}, ?CLIENT:info(C)),
    http_peer:none(peer(Config), 50).

bounds(Config) ->
    P = peer(Config),
    C = ready(Config, #{max_pending => 100}),
    Calls = fun(Count) -> [call(Id, <<"a">>) || Id <- lists:seq(1, Count)] end,
    ?assertEqual({error, invalid_message}, send(C, Calls(101))),
    ok = send(C, Calls(99)),
    ?assertEqual({error, busy}, send(C, [call(a(I), <<"a">>) || I <- [1, 2]])),
    ok = send(C, [call(<<"last">>, <<"a">>)]),
    [R, _] = [http_peer:next(P) || _ <- [1, 2]],
    http_peer:json(R, [result(Id, #{}) || Id <- lists:seq(1, 99)]),
    ?assertEqual(lists:seq(1, 99), ids(C, 99)),
    ok = ?CLIENT:cancel(C, <<"last">>),
    ?assertEqual({failed, <<"last">>, cancelled}, event(C)),
    http_peer:accepted(http_peer:next(P)),
    ok = send(C, Calls(100)),
    ?assertEqual(100, length(http_peer:body(http_peer:next(P)))).

%% What has to wait goes message by message when its time has come.
waits_for_the_session(Config) ->
    P = peer(Config),
    C = start(Config, #{}),
    ok = ?CLIENT:send(C, encode(initialize(1))),
    http_peer:json(http_peer:next(P), initialized(1, <<"2025-03-26">>)),
    [1] = ids(C, 1),
    ok = ?CLIENT:send(C, encode(note(<<"notifications/initialized">>))),
    Confirmation = http_peer:next(P),
    ok = send(C, [call(2, <<"a">>), call(3, <<"b">>)]),
    http_peer:none(P, 50),
    http_peer:accepted(Confirmation),
    Requests = [http_peer:next(P, <<"POST">>) || _ <- [1, 2]],
    ?assertEqual([2, 3], lists:sort([id(R) || R <- Requests])),
    [http_peer:json(R, result(id(R), #{})) || R <- Requests],
    ?assertEqual([2, 3], lists:sort(ids(C, 2))).

%% ---- each has its own end

one_is_cancelled(Config) ->
    P = peer(Config),
    C = ready(Config),
    R = asked(C, P, [call(2, <<"a">>), call(3, <<"b">>)]),
    http_peer:stream(R),
    ok = ?CLIENT:cancel(C, 2),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    Cancelled = http_peer:next(P),
    ?assertMatch(#{<<"params">> := #{<<"requestId">> := 2}}, http_peer:body(Cancelled)),
    http_peer:accepted(Cancelled),
    http_peer:event(R, #{data => result(2, #{})}),
    http_peer:event(R, #{data => result(3, #{})}),
    ?assertEqual([3], ids(C, 1)),
    ?assertMatch({ok, #{ignored := 1, pending := 0}}, ?CLIENT:info(C)).

%% Nobody waits for a stream on which nothing is expected.
cancelled_within(Config) ->
    P = peer(Config),
    C = ready(Config),
    Params = #{<<"params">> => #{<<"requestId">> => 2}},
    Cancelled = maps:merge(note(<<"notifications/cancelled">>), Params),
    ok = send(C, [call(2, <<"a">>), Cancelled]),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    ?assertMatch({ok, #{pending := 0}}, ?CLIENT:info(C)),
    ok = ?CLIENT:send(C, encode(call(2, <<"again">>))),
    R = next_with_id(2, P),
    http_peer:json(R, result(2, #{})),
    ?assertEqual([2], ids(C, 1)).

%% Whoever waits for it no longer, the rest is sent and its answer read.
cancelled_beside_others(Config) ->
    P = peer(Config),
    C = ready(Config),
    Batch = [call(2, <<"a">>), note(<<"n">>)],
    ok = send(C, Batch),
    ok = ?CLIENT:cancel(C, 2),
    ?assertEqual({failed, 2, cancelled}, event(C)),
    R = next_batch(P),
    ?assertEqual(Batch, http_peer:body(R)),
    http_peer:answer(R, 400, [], <<>>),
    ?assertEqual({failed, none, {status, 400, <<>>}}, event(C)).

one_times_out(Config) ->
    P = peer(Config),
    C = ready(Config, #{timeout_ms => 400, total_timeout_ms => infinity}),
    R = asked(C, P, [call(2, <<"a">>), call(3, <<"b">>)]),
    http_peer:stream(R),
    http_peer:event(R, #{data => result(2, #{})}),
    ?assertEqual([2], ids(C, 1)),
    ?assertEqual({failed, 3, timeout}, event(C)),
    ?assertMatch(
        #{<<"params">> := #{<<"requestId">> := 3}}, http_peer:body(http_peer:next(P))
    ).

stream_that_is_cut_is_resumed_for_each(Config) ->
    P = peer(Config),
    C = ready(Config),
    R = asked(C, P, [call(2, <<"a">>), call(3, <<"b">>), call(4, <<"c">>), note(<<"n">>)]),
    http_peer:stream(R),
    http_peer:event(R, #{id => <<"e1">>, retry => 1, data => result(3, #{})}),
    ?assertEqual([3], ids(C, 1)),
    http_peer:cut(R),
    Streams = [http_peer:next(P, <<"GET">>) || _ <- [2, 4]],
    [?assertEqual(<<"e1">>, http_peer:header(<<"last-event-id">>, S)) || S <- Streams],
    %% Both replay what is left.
    [http_peer:stream(S) || S <- Streams],
    [http_peer:event(S, #{data => result(Id, #{})}) || S <- Streams, Id <- [2, 4]],
    ?assertEqual([2, 4], lists:sort(ids(C, 2))),
    ?assertMatch({ok, #{pending := 0}}, ?CLIENT:info(C)).

refused_for_each(Config) ->
    C = ready(Config),
    ok = send(C, [call(2, <<"a">>), note(<<"n">>), call(3, <<"b">>)]),
    http_peer:answer(http_peer:next(peer(Config)), 400, [], <<"no">>),
    [
        ?assertEqual({failed, Id, {status, 400, <<"no">>}}, event(C))
     || Id <- [2, none, 3]
    ].

server_that_is_busy_is_asked_again_for_each(Config) ->
    P = peer(Config),
    C = ready(Config, #{retry_min_ms => 1}),
    http_peer:answer(asked(C, P, [call(2, <<"a">>), call(3, <<"b">>)]), 429, [], <<>>),
    Again = [http_peer:next(P), http_peer:next(P)],
    ?assertEqual([2, 3], lists:sort([id(R) || R <- Again])),
    [http_peer:json(R, result(id(R), #{})) || R <- Again],
    ?assertEqual([2, 3], lists:sort(ids(C, 2))).

%% Whether they were heard is not known.
broken_off_for_each(Config) ->
    P = peer(Config),
    C = ready(Config),
    http_peer:cut(asked(C, P, [call(2, <<"a">>), call(3, <<"b">>)])),
    [?assertEqual({failed, Id, closed}, event(C)) || Id <- [2, 3]],
    %% An array with less than was asked for.
    http_peer:json(asked(C, P, [call(4, <<"a">>), call(5, <<"b">>)]), [result(5, #{})]),
    ?assertEqual([5], ids(C, 1)),
    ?assertEqual({failed, 4, no_response}, event(C)).

session_that_ended(Config) ->
    P = peer(Config),
    C = ready(Config, #{reinitialize => true}),
    http_peer:answer(asked(C, P, [call(2, <<"a">>), call(3, <<"b">>)]), 404, [], <<>>),
    Initialize = http_peer:next(P),
    Given = [{<<"mcp-session-id">>, <<"s2">>}],
    http_peer:json(Initialize, Given, initialized(id(Initialize), <<"2025-03-26">>)),
    http_peer:accepted(http_peer:next(P)),
    ?assertEqual(session_renewed, event(C)),
    Again = [http_peer:next(P, <<"POST">>) || _ <- [1, 2]],
    ?assertEqual([2, 3], lists:sort([id(R) || R <- Again])),
    [?assertEqual(<<"s2">>, http_peer:header(<<"mcp-session-id">>, R)) || R <- Again].

redirected_whole(Config) ->
    P = peer(Config),
    C = ready(Config),
    Batch = [call(2, <<"a">>), call(3, <<"b">>)],
    http_peer:answer(asked(C, P, Batch), 307, [{<<"location">>, <<"/other">>}], <<>>),
    R = http_peer:next(P),
    ?assertEqual(Batch, http_peer:body(R)),
    http_peer:json(R, [result(2, #{}), result(3, #{})]),
    ?assertEqual([2, 3], ids(C, 2)).

counted_by_the_breaker(Config) ->
    P = peer(Config),
    C = ready(Config, #{breaker => #{min_calls => 3, window_calls => 3, failure_rate => 0.5}}),
    Fail = fun(Ids) ->
        http_peer:answer(asked(C, P, [call(Id, <<"a">>) || Id <- Ids]), 500, [], <<>>),
        [?assertMatch({failed, Id, {status, 500, _}}, event(C)) || Id <- Ids]
    end,
    %% Each is one call, as `initialize' was.
    Fail([2, 3]),
    ?assertEqual(closed, breaker(P)),
    Fail([4, 5]),
    %% It is a process that counts failures.
    until(fun() -> breaker(P) =:= open end),
    ?assertEqual({error, breaker_open}, send(C, [note(<<"n">>), call(6, <<"a">>)])),
    http_peer:accepted(asked(C, P, [note(<<"n">>)])).

probes_a_breaker_whatever_its_size(Config) ->
    P = peer(Config),
    Breaker = #{min_calls => 2, window_calls => 2, failure_rate => 0.5},
    C = ready(Config, #{breaker => Breaker#{open_ms => 20, probes => 1}}),
    Ids = lists:seq(2, 21),
    Batch = [call(Id, <<"a">>) || Id <- Ids],
    http_peer:answer(asked(C, P, Batch), 500, [], <<>>),
    [{failed, Id, _} = event(C) || Id <- Ids],
    until(fun() -> breaker(P) =/= closed end),
    until(fun() -> send(C, Batch) =:= ok end),
    http_peer:json(http_peer:next(P), [result(Id, #{}) || Id <- Ids]),
    ?assertEqual(Ids, ids(C, length(Ids))),
    until(fun() -> breaker(P) =:= closed end).

too_large_an_answer(Config) ->
    P = peer(Config),
    C = ready(Config, #{max_message_bytes => 1000}),
    ok = send(C, [call(2, <<"a">>), note(<<"n">>), call(3, <<"b">>)]),
    Large = #{<<"text">> => binary:copy(<<"x">>, 1000)},
    http_peer:json(http_peer:next(P), [result(2, #{}), result(3, Large)]),
    %% The notification has arrived.
    [?assertEqual({failed, Id, message_too_large}, event(C)) || Id <- [2, 3]],
    ok = ?CLIENT:send(C, encode(call(4, <<"a">>))),
    http_peer:json(http_peer:next(P), result(4, #{})),
    ?assertEqual([4], ids(C, 1)).

%% ---- against this application's own server

our_server(Config) ->
    {ok, Server} = erlmcp_native_http:listen(#{port => 0}, #{
        handler => {erlmcp_native_analysis_echo, none}, path => path(Config)
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Server),
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/mcp", [Port])),
    {ok, C} = ?CLIENT:start(Url, #{path => path(Config), revision => <<"2025-03-26">>}),
    {ok, _} = ?CLIENT:initialize(C, #{}, ?WAIT),
    Echo = fun(Id) ->
        Text = integer_to_binary(Id),
        Arguments = #{<<"name">> => <<"echo">>, <<"arguments">> => #{<<"text">> => Text}},
        (call(Id, <<"tools/call">>))#{<<"params">> => Arguments}
    end,
    ok = send(C, [Echo(Id) || Id <- lists:seq(1, 100)]),
    Texts = [
        {Id, Text}
     || #{<<"id">> := Id, <<"result">> := #{<<"content">> := [#{<<"text">> := Text}]}} <-
            messages(C, 100)
    ],
    ?assertEqual([{Id, integer_to_binary(Id)} || Id <- lists:seq(1, 100)], lists:sort(Texts)),
    ok = ?CLIENT:close(C),
    ok = erlmcp_native_http:close(Server).

%% ----

start(Config, Options) ->
    Given = #{path => path(Config), revision => <<"2025-03-26">>},
    {ok, C} = ?CLIENT:start(http_peer:url(peer(Config)), maps:merge(Given, Options)),
    C.

ready(Config) -> ready(Config, #{}).

ready(Config, Options) -> ready(Config, Options, <<"2025-03-26">>).

%% A session that stands, without a stream of its own.
ready(Config, Options, Revision) ->
    P = peer(Config),
    C = start(Config, Options#{get_stream => false}),
    ok = ?CLIENT:send(C, encode(initialize(1))),
    http_peer:json(
        http_peer:next(P), [{<<"mcp-session-id">>, <<"s1">>}], initialized(1, Revision)
    ),
    [1] = ids(C, 1),
    ok = ?CLIENT:send(C, encode(note(<<"notifications/initialized">>))),
    http_peer:accepted(http_peer:next(P, <<"POST">>)),
    until(fun() -> maps:get(phase, element(2, ?CLIENT:info(C))) =:= ready end),
    C.

breaker(#{port := Port}) ->
    [State] = [S || {{http, #{port := At}}, S} <- maps:to_list(?BREAKERS:all()), At =:= Port],
    State.

peer(Config) -> proplists:get_value(peer, Config).

path(Config) -> proplists:get_value(path, Config).

send(C, Batch) -> ?CLIENT:send(C, encode(Batch)).

%% What the server is asked with a batch.
asked(C, P, Batch) ->
    ok = send(C, Batch),
    http_peer:next(P).

%% The next request with this id, whatever comes before it.
next_with_id(Id, P) ->
    R = http_peer:next(P),
    case http_peer:body(R) of
        #{<<"id">> := Id} -> R;
        _ -> next_with_id(Id, P)
    end.

next_batch(P) ->
    R = http_peer:next(P),
    case http_peer:body(R) of
        Batch when is_list(Batch) -> R;
        _ -> next_batch(P)
    end.

ids(C, Count) -> [Id || #{<<"id">> := Id} <- messages(C, Count)].

id(Request) -> maps:get(<<"id">>, http_peer:body(Request)).

encode(Term) -> iolist_to_binary(erlmcp_native_json:encode(Term)).

a(Number) -> <<"a", (integer_to_binary(Number))/binary>>.

initialize(Id) ->
    Params = #{<<"protocolVersion">> => <<"2025-03-26">>, <<"capabilities">> => #{}},
    (call(Id, <<"initialize">>))#{<<"params">> => Params}.

initialized(Id, Revision) ->
    result(Id, #{<<"protocolVersion">> => Revision, <<"capabilities">> => #{}}).

call(Id, Method) -> #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => Method}.

note(Method) -> #{<<"jsonrpc">> => <<"2.0">>, <<"method">> => Method}.

result(Id, Result) -> #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => Result}.
