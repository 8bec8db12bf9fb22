%% What stands between the wire and an erlmcp process, as values: no process, no socket.
-module(guard_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

all() ->
    [
        what_is_fine_passes_unchanged,
        what_cannot_be_read_is_answered,
        ids_that_are_none,
        client_sees_no_request,
        client_bears_its_notifications,
        client_bears_the_answer_to_initialize,
        client_hears_of_a_lost_connection,
        server_sees_no_response,
        server_bears_its_params,
        server_bears_its_notifications,
        what_receivers_read_is_what_is_judged,
        nested_too_deep,
        oversized_is_answered,
        answer_that_makes_no_frame_is_replaced,
        batch_is_split_and_gathered,
        batch_of_notifications_is_not_answered,
        batch_answers_may_come_in_any_order,
        batch_ids_are_not_mixed_up,
        batch_of_a_server_is_answered_at_once,
        batch_without_initialize,
        batch_empty_or_too_long,
        batches_end_with_the_revision,
        batches_that_are_never_answered,
        batch_answers_are_bounded,
        dead_server_is_answered_for,
        dead_server_ends_batches,
        answers_of_an_earlier_connection,
        in_flight_is_bounded,
        counters_are_declared,
        garbage
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

%% Single messages

what_is_fine_passes_unchanged(_) ->
    Request = request(1, <<"tools/list">>, #{}),
    Notification = notification(<<"notifications/cancelled">>, #{<<"requestId">> => 1}),
    Response = response(1, #{<<"any">> => [1, 2]}),
    Server = server(),
    {[Request], [], Server1} = erlmcp_native_guard:inbound(Request, Server),
    {[Notification], [], Server2} = erlmcp_native_guard:inbound(Notification, Server1),
    {[Response], _} = erlmcp_native_guard:outbound(Response, Server2),
    Client = client(),
    {[Request], Client1} = erlmcp_native_guard:outbound(Request, Client),
    {[Response], [], Client2} = erlmcp_native_guard:inbound(Response, Client1),
    {[Notification], [], Client3} = erlmcp_native_guard:inbound(Notification, Client2),
    [?assertEqual(#{}, counters(G)) || G <- [Server2, Client3]].

what_cannot_be_read_is_answered(_) ->
    Cases = [
        {<<"nonsense">>, -32700, parse_errors},
        {<<"{\"jsonrpc\":\"2.0\",">>, -32700, parse_errors},
        {<<255>>, -32700, parse_errors},
        {<<"{}">>, -32600, invalid_requests},
        {<<"7">>, -32600, invalid_requests},
        {<<"{\"jsonrpc\":\"1.0\",\"method\":\"a\"}">>, -32600, invalid_requests},
        {<<"{\"jsonrpc\":\"2.0\",\"method\":7}">>, -32600, invalid_requests}
    ],
    [
        begin
            {[], [Answer], Guard} = erlmcp_native_guard:inbound(Message, Fresh),
            ?assertMatch(#{<<"id">> := null, <<"error">> := #{<<"code">> := Code}}, json(Answer)),
            ?assertEqual(#{Counter => 1}, counters(Guard))
        end
     || {Message, Code, Counter} <- Cases, Fresh <- [server(), client()]
    ],
    Named = <<"{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"method\":7}">>,
    {[], [Answer], _} = erlmcp_native_guard:inbound(Named, server()),
    ?assertMatch(#{<<"id">> := <<"x">>, <<"error">> := #{<<"code">> := -32600}}, json(Answer)).

ids_that_are_none(_) ->
    [
        begin
            Message = [<<"{\"jsonrpc\":\"2.0\",\"id\":">>, Id, <<",\"method\":\"tools/list\"}">>],
            {[], [Answer], _} = erlmcp_native_guard:inbound(iolist_to_binary(Message), server()),
            ?assertMatch(#{<<"id">> := null, <<"error">> := #{<<"code">> := -32600}}, json(Answer))
        end
     || Id <- [<<"null">>, <<"1.5">>, <<"true">>, <<"[1]">>, <<"{}">>]
    ].

client_sees_no_request(_) ->
    {[], [Pong], Guard} = erlmcp_native_guard:inbound(request(<<"p">>, <<"ping">>), client()),
    ?assertEqual(
        #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => <<"p">>, <<"result">> => #{}}, json(Pong)
    ),
    {[], [Refusal], Guard1} =
        erlmcp_native_guard:inbound(request(9, <<"roots/list">>), Guard),
    ?assertMatch(#{<<"id">> := 9, <<"error">> := #{<<"code">> := -32601}}, json(Refusal)),
    ?assertEqual(#{pings_answered => 1, requests_refused => 1}, counters(Guard1)).

client_bears_its_notifications(_) ->
    Fine = notification(<<"resources/updated">>, #{<<"uri">> => <<"u">>}),
    {[Fine], [], _} = erlmcp_native_guard:inbound(Fine, client()),
    Bare = notification(<<"resources/updated">>),
    {[], [], Guard} = erlmcp_native_guard:inbound(Bare, client()),
    Array = notification(<<"resources/updated">>, [1]),
    {[], [], Guard1} = erlmcp_native_guard:inbound(Array, Guard),
    ?assertEqual(#{notifications_dropped => 2}, counters(Guard1)).

client_bears_the_answer_to_initialize(_) ->
    {[_], Guard} = erlmcp_native_guard:outbound(request(4, <<"initialize">>, #{}), client()),
    Result = #{<<"protocolVersion">> => <<"2025-03-26">>, <<"capabilities">> => #{}},
    Good = response(4, Result),
    {[Good], [], Learnt} = erlmcp_native_guard:inbound(Good, Guard),
    ?assertMatch(#{revision := <<"2025-03-26">>}, erlmcp_native_guard:info(Learnt)),
    Error = error_response(4, -1),
    {[Error], [], _} = erlmcp_native_guard:inbound(Error, Guard),
    [
        begin
            {[Replaced], [], Next} = erlmcp_native_guard:inbound(response(4, Bad), Guard),
            ?assertMatch(#{<<"id">> := 4, <<"error">> := #{<<"code">> := -32603}}, json(Replaced)),
            ?assertEqual(#{invalid_results => 1}, counters(Next))
        end
     || Bad <- [<<"text">>, null, [], Result#{<<"capabilities">> := null}]
    ],
    %% What bears the same id later is an answer as any other.
    Again = response(4, <<"text">>),
    {[Again], [], _} = erlmcp_native_guard:inbound(Again, Learnt).

client_hears_of_a_lost_connection(_) ->
    Guard = lists:foldl(
        fun(Id, Acc) ->
            {[_], Next} = erlmcp_native_guard:outbound(request(Id, <<"tools/list">>), Acc),
            Next
        end,
        client(),
        [1, 2, <<"three">>]
    ),
    {[_], [], Answered} = erlmcp_native_guard:inbound(response(2, #{}), Guard),
    {Errors, Lost} = erlmcp_native_guard:connection_lost(Answered),
    Ids = [
        begin
            #{<<"id">> := Id, <<"error">> := #{<<"code">> := -32000}} = json(Error),
            Id
        end
     || Error <- Errors
    ],
    ?assertEqual([1, <<"three">>], lists:sort(Ids)),
    ?assertEqual(#{answers_in_place => 2}, counters(Lost)),
    ?assertMatch({[], _}, erlmcp_native_guard:connection_lost(Lost)).

server_sees_no_response(_) ->
    Messages = [response(1, #{}), error_response(2, -1), error_response(null, -32700)],
    Guard = lists:foldl(
        fun(Message, Acc) ->
            {[], [], Next} = erlmcp_native_guard:inbound(Message, Acc),
            Next
        end,
        server(),
        Messages
    ),
    ?assertEqual(#{responses_dropped => 3}, counters(Guard)).

server_bears_its_params(_) ->
    Bad = [
        request(1, <<"tools/call">>),
        request(1, <<"tools/call">>, []),
        request(1, <<"tools/call">>, 7),
        request(1, <<"tools/call">>, #{<<"name">> => <<"t">>, <<"arguments">> => []}),
        request(1, <<"tools/call">>, #{<<"name">> => <<"t">>, <<"arguments">> => null}),
        request(1, <<"resources/read">>),
        request(1, <<"resources/subscribe">>),
        request(1, <<"resources/subscribe">>, #{}),
        request(1, <<"resources/unsubscribe">>, #{<<"url">> => <<"u">>}),
        request(1, <<"prompts/get">>, [<<"p">>]),
        request(1, <<"tools/list">>, [])
    ],
    [
        begin
            {[], [Answer], Guard} = erlmcp_native_guard:inbound(Message, server()),
            ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32602}}, json(Answer)),
            ?assertEqual(#{invalid_params => 1}, counters(Guard))
        end
     || Message <- Bad
    ],
    Good = [
        request(1, <<"tools/call">>, #{<<"name">> => <<"t">>, <<"arguments">> => #{}}),
        request(1, <<"tools/call">>, #{<<"name">> => <<"t">>}),
        request(1, <<"resources/read">>, #{<<"uri">> => <<"u">>}),
        request(1, <<"resources/subscribe">>, #{<<"uri">> => <<"u">>}),
        request(1, <<"prompts/get">>, #{}),
        request(1, <<"tools/list">>),
        request(1, <<"anything">>, #{})
    ],
    [{[Message], [], _} = erlmcp_native_guard:inbound(Message, server()) || Message <- Good].

server_bears_its_notifications(_) ->
    Bare = notification(<<"notifications/initialized">>),
    {[Bare], [], Guard} = erlmcp_native_guard:inbound(Bare, server()),
    {[], [], Guard1} = erlmcp_native_guard:inbound(notification(<<"x">>, [1]), Guard),
    {[], [], Guard2} = erlmcp_native_guard:inbound(notification(<<"x">>, <<"y">>), Guard1),
    ?assertEqual(#{notifications_dropped => 2}, counters(Guard2)).

%% A message that one reader takes for a request and the other for a response would get through.
what_receivers_read_is_what_is_judged(_) ->
    Twice =
        <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"m\",\"params\":{},\"params\":[]}">>,
    {[], [_], _} = erlmcp_native_guard:inbound(Twice, server()),
    Escaped = <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools\\/c\\u0061ll\"}">>,
    {[], [_], _} = erlmcp_native_guard:inbound(Escaped, server()),
    Key = <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"m\\u0065thod\":\"roots/list\",\"result\":1}">>,
    {[], [Answer], _} = erlmcp_native_guard:inbound(Key, client()),
    ?assertMatch(#{<<"error">> := #{<<"code">> := _}}, json(Answer)).

nested_too_deep(_) ->
    Deep = [lists:duplicate(5000, $[), lists:duplicate(5000, $])],
    Message = iolist_to_binary([
        <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\",\"params\":{\"a\":">>, Deep, <<"}}">>
    ]),
    {[], [Answer], _} = erlmcp_native_guard:inbound(Message, server()),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32600}}, json(Answer)).

oversized_is_answered(_) ->
    {[], [Answer], Guard} = erlmcp_native_guard:oversized(server()),
    ?assertMatch(#{<<"id">> := null, <<"error">> := #{<<"code">> := -32600}}, json(Answer)),
    ?assertEqual(#{oversized => 1}, counters(Guard)).

answer_that_makes_no_frame_is_replaced(_) ->
    {[Answer], G1} = erlmcp_native_guard:unsendable(response(<<"a">>, <<"big">>), server()),
    ?assertMatch(#{<<"id">> := <<"a">>, <<"error">> := #{<<"code">> := -32603}}, json(Answer)),
    {[Array], G2} = erlmcp_native_guard:unsendable(array([response(1, 1), response(2, 2)]), G1),
    ?assertMatch(
        [#{<<"id">> := 1, <<"error">> := #{}}, #{<<"id">> := 2, <<"error">> := #{}}], json(Array)
    ),
    ?assertEqual(#{answers_unsendable => 3}, counters(G2)),
    %% Nobody waits for an answer to these.
    Notification = notification(<<"notifications/progress">>, #{}),
    ?assertEqual({[], G2}, erlmcp_native_guard:unsendable(Notification, G2)),
    Client = client(),
    ?assertEqual({[], Client}, erlmcp_native_guard:unsendable(response(1, 1), Client)).

%% Batches

batch_is_split_and_gathered(_) ->
    One = request(1, <<"tools/list">>),
    Note = notification(<<"n">>),
    Two = request(<<"1">>, <<"prompts/list">>),
    Bad = request(3, <<"tools/call">>, []),
    {Deliver, [], Guard} =
        erlmcp_native_guard:inbound(array([One, <<"7">>, Note, Two, Bad]), server()),
    ?assertEqual([json(M) || M <- [One, Note, Two]], [json(M) || M <- Deliver]),
    {[], Guard1} = erlmcp_native_guard:outbound(response(1, <<"one">>), Guard),
    {[Answers], Guard2} = erlmcp_native_guard:outbound(response(<<"1">>, <<"two">>), Guard1),
    ?assertMatch(
        [
            #{<<"id">> := null, <<"error">> := #{<<"code">> := -32600}},
            #{<<"id">> := 3, <<"error">> := #{<<"code">> := -32602}},
            #{<<"id">> := 1, <<"result">> := <<"one">>},
            #{<<"id">> := <<"1">>, <<"result">> := <<"two">>}
        ],
        json(Answers)
    ),
    ?assertMatch(#{in_flight := 0, counters := #{batches_split := 1}}, info(Guard2)).

batch_of_notifications_is_not_answered(_) ->
    Notes = [notification(<<"a">>), notification(<<"b">>)],
    {[_, _], [], Guard} = erlmcp_native_guard:inbound(array(Notes), server()),
    ?assertMatch(#{in_flight := 0}, info(Guard)),
    {[], [], _} = erlmcp_native_guard:inbound(array([response(1, 1)]), server()).

batch_answers_may_come_in_any_order(_) ->
    Ids = lists:seq(1, 50),
    {_, [], Guard} = erlmcp_native_guard:inbound(
        array([request(Id, <<"tools/list">>) || Id <- Ids]), server()
    ),
    {Sent, _} = answer_all([{rand:uniform(), Id} || Id <- Ids], Guard),
    [Answers] = Sent,
    ?assertEqual(Ids, lists:sort([Id || #{<<"id">> := Id} <- json(Answers)])).

%% Answers to requests that came alone, to two batches and to nothing, in one stream.
batch_ids_are_not_mixed_up(_) ->
    {[_], [], G1} = erlmcp_native_guard:inbound(request(1, <<"tools/list">>), server()),
    {[_, _], [], G2} = erlmcp_native_guard:inbound(
        array([request(2, <<"tools/list">>), request(3, <<"tools/list">>)]), G1
    ),
    %% 1 is in flight and 3 in the other batch: their answers could not be told apart.
    {[_], [], G3} = erlmcp_native_guard:inbound(
        array([request(Id, <<"tools/list">>) || Id <- [1, 3, 4]]), G2
    ),
    {[], [Reused], G4} = erlmcp_native_guard:inbound(request(2, <<"tools/list">>), G3),
    ?assertMatch(#{<<"id">> := 2, <<"error">> := #{<<"code">> := -32600}}, json(Reused)),
    Note = notification(<<"notifications/progress">>, #{}),
    {[Note], G5} = erlmcp_native_guard:outbound(Note, G4),
    {[], G6} = erlmcp_native_guard:outbound(response(3, <<"c">>), G5),
    {[Second], G7} = erlmcp_native_guard:outbound(response(4, <<"d">>), G6),
    {[Alone], G8} = erlmcp_native_guard:outbound(response(1, <<"a">>), G7),
    {[First], G9} = erlmcp_native_guard:outbound(response(2, <<"b">>), G8),
    Unknown = response(77, <<"x">>),
    {[Unknown], _} = erlmcp_native_guard:outbound(Unknown, G9),
    ?assertMatch(
        [
            #{<<"id">> := 1, <<"error">> := #{<<"code">> := -32600}},
            #{<<"id">> := 3, <<"error">> := #{<<"code">> := -32600}},
            #{<<"id">> := 4, <<"result">> := <<"d">>}
        ],
        json(Second)
    ),
    ?assertMatch(#{<<"id">> := 1, <<"result">> := <<"a">>}, json(Alone)),
    ?assertMatch([#{<<"result">> := <<"c">>}, #{<<"result">> := <<"b">>}], json(First)).

batch_of_a_server_is_answered_at_once(_) ->
    {[_], Asked} = erlmcp_native_guard:outbound(request(1, <<"tools/list">>), client()),
    Answer = response(1, #{}),
    Batch = array([request(5, <<"ping">>), Answer, request(6, <<"sampling/createMessage">>)]),
    {[Delivered], [Answers], Guard} = erlmcp_native_guard:inbound(Batch, Asked),
    ?assertEqual(json(Answer), json(Delivered)),
    ?assertMatch(
        [
            #{<<"id">> := 5, <<"result">> := #{}},
            #{<<"id">> := 6, <<"error">> := #{<<"code">> := -32601}}
        ],
        json(Answers)
    ),
    ?assertMatch(#{in_flight := 0}, info(Guard)).

batch_without_initialize(_) ->
    {[], [Answers], _} =
        erlmcp_native_guard:inbound(array([request(1, <<"initialize">>, #{})]), server()),
    ?assertMatch([#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32600}}], json(Answers)).

batch_empty_or_too_long(_) ->
    Long = array(lists:duplicate(1001, notification(<<"n">>))),
    Longest = array(lists:duplicate(1000, notification(<<"n">>))),
    [
        begin
            {[], [Answer], Guard} = erlmcp_native_guard:inbound(Message, server()),
            ?assertMatch(#{<<"id">> := null, <<"error">> := #{<<"code">> := -32600}}, json(Answer)),
            ?assertEqual(#{batches_refused => 1}, counters(Guard))
        end
     || Message <- [<<"[]">>, Long]
    ],
    {Deliver, [], _} = erlmcp_native_guard:inbound(Longest, server()),
    ?assertEqual(1000, length(Deliver)).

batches_end_with_the_revision(_) ->
    [
        begin
            {[_], [], Asked} =
                erlmcp_native_guard:inbound(request(1, <<"initialize">>, #{}), server()),
            Answer = response(1, #{<<"protocolVersion">> => Revision}),
            {[Answer], Guard} = erlmcp_native_guard:outbound(Answer, Asked),
            {Deliver, Replies, _} =
                erlmcp_native_guard:inbound(array([notification(<<"n">>)]), Guard),
            ?assertEqual({Revision, Expected}, {Revision, {length(Deliver), length(Replies)}}),
            %% The next connection agrees on its own.
            {[], Anew} = erlmcp_native_guard:connection_lost(Guard),
            {[_], [], _} = erlmcp_native_guard:inbound(array([notification(<<"n">>)]), Anew)
        end
     || {Revision, Expected} <- [
            {<<"2024-11-05">>, {1, 0}},
            {<<"2025-03-26">>, {1, 0}},
            {<<"2025-06-18">>, {0, 1}},
            {<<"2026-07-28">>, {0, 1}}
        ]
    ].

%% A server that leaves requests unanswered must not fill the memory.
batches_that_are_never_answered(_) ->
    Batch = fun(N) -> array([request({N, K}, <<"tools/list">>) || K <- [1, 2]]) end,
    {Sent, Guard} = lists:foldl(
        fun(N, {Out, Acc}) ->
            {[_, _], Replies, Next} = erlmcp_native_guard:inbound(Batch(N), Acc),
            {[], Half} = erlmcp_native_guard:outbound(response({N, 1}, N), Next),
            {Out ++ Replies, Half}
        end,
        {[], server()},
        lists:seq(1, 65)
    ),
    %% The oldest went out as far as it got; what comes later goes alone.
    [Early] = Sent,
    ?assertMatch([#{<<"result">> := 1}], json(Early)),
    Late = response({1, 2}, <<"late">>),
    {[Late], _} = erlmcp_native_guard:outbound(Late, Guard).

batch_answers_are_bounded(_) ->
    Ids = lists:seq(1, 10),
    {_, [], Guard} = erlmcp_native_guard:inbound(
        array([request(Id, <<"resources/list">>) || Id <- Ids]), server()
    ),
    Big = binary:copy(<<"x">>, 300000),
    {Sent, _} = lists:foldl(
        fun(Id, {Out, Acc}) ->
            {Now, Next} = erlmcp_native_guard:outbound(response(Id, Big), Acc),
            {Out ++ Now, Next}
        end,
        {[], Guard},
        Ids
    ),
    [?assert(iolist_size(Array) < 1500000) || Array <- Sent],
    ?assertEqual(Ids, [Id || Array <- Sent, #{<<"id">> := Id} <- json(Array)]).

%% Receivers and connections that are lost

dead_server_is_answered_for(_) ->
    {[_], [], G1} = erlmcp_native_guard:inbound(request(1, <<"tools/list">>), server()),
    {[_], [], G2} = erlmcp_native_guard:inbound(request(2, <<"tools/list">>), G1),
    {[_], G3} = erlmcp_native_guard:outbound(response(1, 1), G2),
    {[Answer], G4} = erlmcp_native_guard:receiver_lost(G3),
    ?assertMatch(#{<<"id">> := 2, <<"error">> := #{<<"code">> := -32603}}, json(Answer)),
    ?assertMatch(#{in_flight := 0, counters := #{answers_in_place := 1}}, info(G4)),
    ?assertMatch({[], _}, erlmcp_native_guard:receiver_lost(G4)).

dead_server_ends_batches(_) ->
    {_, [], G1} = erlmcp_native_guard:inbound(
        array([request(Id, <<"tools/list">>) || Id <- [1, 2, 3]]), server()
    ),
    {[], G2} = erlmcp_native_guard:outbound(response(2, <<"two">>), G1),
    {[Answers], _} = erlmcp_native_guard:receiver_lost(G2),
    ?assertEqual([1, 2, 3], lists:sort([Id || #{<<"id">> := Id} <- json(Answers)])),
    ?assertEqual(2, length([Id || #{<<"id">> := Id, <<"error">> := _} <- json(Answers)])).

%% A client that connects again begins to count anew: the old answer to 1 is none to the new 1.
answers_of_an_earlier_connection(_) ->
    {[_], [], G1} = erlmcp_native_guard:inbound(request(1, <<"tools/list">>), server()),
    {[_], [], G2} = erlmcp_native_guard:inbound(request(2, <<"tools/list">>), G1),
    {[], G3} = erlmcp_native_guard:connection_lost(G2),
    {[_], [], G4} = erlmcp_native_guard:inbound(request(1, <<"prompts/list">>), G3),
    {[], G5} = erlmcp_native_guard:outbound(response(1, <<"old">>), G4),
    New = response(1, <<"new">>),
    {[New], G6} = erlmcp_native_guard:outbound(New, G5),
    ?assertMatch(#{in_flight := 0, counters := #{answers_stale := 1}}, info(G6)),
    %% 2 was never answered; the server is past it, and a new 2 is not taken for it.
    {[_], [], G7} = erlmcp_native_guard:inbound(request(2, <<"tools/list">>), G6),
    Second = response(2, <<"new">>),
    {[Second], _} = erlmcp_native_guard:outbound(Second, G7).

in_flight_is_bounded(_) ->
    Ids = lists:seq(1, 16384 + 10),
    Guard = lists:foldl(
        fun(Id, Acc) ->
            {[_], [], Next} = erlmcp_native_guard:inbound(request(Id, <<"tools/list">>), Acc),
            Next
        end,
        server(),
        Ids
    ),
    ?assertMatch(#{in_flight := 16384}, info(Guard)),
    Last = response(lists:last(Ids), 1),
    {[Last], _} = erlmcp_native_guard:outbound(Last, Guard).

counters_are_declared(_) ->
    Declared = erlmcp_native_guard:counters(),
    ?assertEqual(length(Declared), length(lists:usort([Name || {Name, _, _} <- Declared]))),
    [?assert(length(Help) > 0) || {_, counter, Help} <- Declared].

garbage(_) ->
    rand:seed(exsss, {1, 2, 3}),
    Seeds = [
        request(1, <<"tools/call">>, #{<<"name">> => <<"t">>}),
        array([request(1, <<"ping">>), response(2, #{})]),
        response(1, #{<<"capabilities">> => #{}})
    ],
    lists:foldl(
        fun(_, {Server, Client}) ->
            Message = mutated(lists:nth(rand:uniform(length(Seeds)), Seeds)),
            {Deliver, Replies, Server1} = erlmcp_native_guard:inbound(Message, Server),
            [?assert(is_binary(M)) || M <- Deliver],
            [?assert(iolist_size(R) > 0) || R <- Replies],
            {_, Server2} = erlmcp_native_guard:outbound(Message, Server1),
            {_, _, Client1} = erlmcp_native_guard:inbound(Message, Client),
            {_, Client2} = erlmcp_native_guard:outbound(Message, Client1),
            {Server2, Client2}
        end,
        {server(), client()},
        lists:seq(1, 3000)
    ).

%% ----

server() -> erlmcp_native_guard:new(server).

client() -> erlmcp_native_guard:new(client).

info(Guard) -> erlmcp_native_guard:info(Guard).

counters(Guard) -> maps:get(counters, info(Guard)).

answer_all(Keyed, Guard) ->
    lists:foldl(
        fun({_, Id}, {Out, Acc}) ->
            {Now, Next} = erlmcp_native_guard:outbound(response(Id, Id), Acc),
            {Out ++ Now, Next}
        end,
        {[], Guard},
        lists:sort(Keyed)
    ).

mutated(Message) ->
    Size = byte_size(Message),
    At = rand:uniform(Size) - 1,
    <<Before:At/binary, Byte, After/binary>> = Message,
    case rand:uniform(4) of
        1 -> <<Before/binary, (rand:uniform(256) - 1), After/binary>>;
        2 -> <<Before/binary, After/binary>>;
        3 -> <<Before/binary, Byte, Byte, After/binary>>;
        4 -> Before
    end.

request(Id, Method) -> encode(#{<<"id">> => id(Id), <<"method">> => Method}).

request(Id, Method, Params) ->
    encode(#{<<"id">> => id(Id), <<"method">> => Method, <<"params">> => Params}).

notification(Method) -> encode(#{<<"method">> => Method}).

notification(Method, Params) -> encode(#{<<"method">> => Method, <<"params">> => Params}).

response(Id, Result) -> encode(#{<<"id">> => id(Id), <<"result">> => Result}).

error_response(Id, Code) ->
    Error = #{<<"code">> => Code, <<"message">> => <<"m">>},
    encode(#{<<"id">> => id(Id), <<"error">> => Error}).

id({A, B}) -> A * 100 + B;
id(Id) -> Id.

array(Messages) -> iolist_to_binary([$[, lists:join($,, Messages), $]]).

encode(Members) ->
    iolist_to_binary(erlmcp_native_json:encode(Members#{<<"jsonrpc">> => <<"2.0">>})).

json(Data) ->
    {ok, Term} = erlmcp_native_json:decode(iolist_to_binary(Data)),
    Term.
