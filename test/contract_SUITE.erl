%% What every path promises. One list of cases, run once for each path, against plain sockets of
%% the operating system wherever the peer is to misbehave.
-module(contract_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [event/1, reason/1, until/1]).

-define(WAIT, 10000).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{nif, cases()}, {port, cases()}, {beam, cases()}].

cases() ->
    [
        messages_go_both_ways,
        a_byte_at_a_time,
        any_chunking,
        carriage_returns_and_empty_lines,
        length_prefixed_frames,
        largest_frame,
        oversized_frame_closes,
        oversized_frame_is_discarded,
        message_that_cannot_be_framed,
        large_frame_both_ways,
        copied_frames,
        decoded_frames,
        decoded_within_bounds,
        active_once,
        active_window,
        ready_after_the_window,
        active_false_and_take,
        ready_after_everything_was_taken,
        take_bounds,
        recv_waits,
        reset_mid_frame,
        unterminated_frame_is_dropped,
        half_close,
        close_after_half_close_by_default,
        peer_that_stops_reading,
        more_than_the_queue_both_ways,
        slow_owner_is_bounded,
        smallest_window,
        peer_that_says_nothing,
        close_flushes,
        close_twice,
        owner_killed_with_data_in_flight,
        hand_over_under_load,
        hand_over_announces_what_waits,
        only_the_owner_hands_over,
        sender_from_another_process,
        connect_refused,
        connect_no_such_name,
        connect_timeout,
        connect_to_name,
        bind_address,
        port_in_use,
        listener_outlives_nothing,
        max_connections,
        handler_per_connection,
        answer_does_not_wait_for_the_next,
        thousand_closed_at_once,
        unix_path,
        unix_abstract,
        unix_stale_file,
        reconnects,
        gives_up_reconnecting,
        options_are_checked,
        addresses,
        counters
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

%% Framing

messages_go_both_ways(Config) ->
    {Client, Server} = pair(Config, #{}, #{}),
    ok = erlmcp_native:send(Client, <<"one">>),
    ok = erlmcp_native:send(Client, [<<"tw">>, $o, ["" | <<>>]]),
    ?assertEqual([<<"one">>, <<"two">>], receive_frames(Server, 2)),
    ok = erlmcp_native:send(Server, <<"three">>),
    ?assertEqual([<<"three">>], receive_frames(Client, 1)).

a_byte_at_a_time(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Text = <<"first line\r\nsecond\n">>,
    [ok = gen_tcp:send(Peer, <<Byte>>) || <<Byte>> <= Text],
    ?assertEqual([<<"first line">>, <<"second">>], receive_frames(Conn, 2)).

any_chunking(Config) ->
    Property = stream_props:prop_any_chunking(fun(Options) -> raw_pair(Config, Options) end),
    ?assert(proper:quickcheck(Property, [{numtests, 200}, {to_file, user}])).

carriage_returns_and_empty_lines(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    ok = gen_tcp:send(Peer, <<"one\r\n\n\r\na\rb\n\r\r\nend\n">>),
    ?assertEqual([<<"one">>, <<"a\rb">>, <<"\r">>, <<"end">>], receive_frames(Conn, 4)).

length_prefixed_frames(Config) ->
    {Conn, Peer} = raw_pair(Config, #{framing => length4, max_frame_bytes => 5}),
    ok = gen_tcp:send(Peer, <<0, 0>>),
    ok = gen_tcp:send(Peer, <<0, 2, "a\n", 0:32, 5:32, "12345">>),
    ?assertEqual([<<"a\n">>, <<>>, <<"12345">>], receive_frames(Conn, 3)),
    ok = erlmcp_native:send(Conn, <<"x\ny">>),
    ?assertEqual({ok, <<3:32, "x\ny">>}, gen_tcp:recv(Peer, 7, ?WAIT)),
    ?assertEqual({error, frame_too_large}, erlmcp_native:send(Conn, <<"123456">>)),
    ok = gen_tcp:send(Peer, <<6:32, "123456">>),
    ?assertEqual(frame_too_large, receive_down(Conn)).

largest_frame(Config) ->
    {Conn, Peer} = raw_pair(Config, #{max_frame_bytes => 1000}),
    Under = binary:copy(<<"u">>, 999),
    At = binary:copy(<<"a">>, 1000),
    ok = gen_tcp:send(Peer, [Under, $\n, At, $\n, At, "\r\n"]),
    ?assertEqual([Under, At, At], receive_frames(Conn, 3)),
    ok = erlmcp_native:send(Conn, At),
    ?assertEqual({error, frame_too_large}, erlmcp_native:send(Conn, [At, $x])),
    ?assertEqual({ok, <<At/binary, "\n">>}, gen_tcp:recv(Peer, 1001, ?WAIT)).

oversized_frame_closes(Config) ->
    {Conn, Peer} = raw_pair(Config, #{max_frame_bytes => 1000}),
    ok = gen_tcp:send(Peer, ["before\n", binary:copy(<<"x">>, 1001)]),
    ?assertEqual([<<"before">>], receive_frames(Conn, 1)),
    ?assertEqual(frame_too_large, receive_down(Conn)),
    ?assertMatch({error, _}, gen_tcp:recv(Peer, 0, ?WAIT)).

oversized_frame_is_discarded(Config) ->
    {Conn, Peer} = raw_pair(Config, #{max_frame_bytes => 10, on_oversize => discard}),
    Large = binary:copy(<<"x">>, 100000),
    ok = gen_tcp:send(Peer, ["before\n", Large, "\r\n", "12345678901\n", "after\n"]),
    ?assertEqual(
        [<<"before">>, {oversized, 100000}, {oversized, 11}, <<"after">>], receive_frames(Conn, 4)
    ).

message_that_cannot_be_framed(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    ?assertEqual({error, embedded_newline}, erlmcp_native:send(Conn, <<"a\nb">>)),
    ?assertEqual({error, embedded_newline}, erlmcp_native:send(Conn, ["a", <<"\n">>])),
    ?assertEqual({error, empty_message}, erlmcp_native:send(Conn, <<>>)),
    ok = erlmcp_native:send(Conn, <<"ok">>),
    ?assertEqual({ok, <<"ok\n">>}, gen_tcp:recv(Peer, 3, ?WAIT)).

large_frame_both_ways(Config) ->
    {Client, Server} = pair(Config, #{}, #{}),
    Large = binary:copy(<<"0123456789abcdef">>, 1024 * 1024),
    ok = erlmcp_native:send(Client, Large),
    ?assertEqual([Large], receive_frames(Server, 1)),
    ok = erlmcp_native:send(Server, [Large]),
    ?assertEqual([Large], receive_frames(Client, 1)).

copied_frames(Config) ->
    {Conn, Peer} = raw_pair(Config, #{copy => true}),
    Frames = [binary:copy(<<C>>, 200) || C <- lists:seq($a, $z)],
    ok = gen_tcp:send(Peer, [[F, $\n] || F <- Frames]),
    Received = receive_frames(Conn, 26),
    ?assertEqual(Frames, Received),
    %% Nothing larger than itself is kept alive by a frame.
    [?assert(binary:referenced_byte_size(F) =< 256) || F <- Received].

decoded_frames(Config) ->
    {Conn, Peer} = raw_pair(Config, #{
        decode => json, max_frame_bytes => 1000, on_oversize => discard
    }),
    Deep = [binary:copy(<<"[">>, 513), binary:copy(<<"]">>, 513)],
    ok = gen_tcp:send(Peer, [
        "{\"id\":1,\"id\":-7.5e0,\"text\":\"\\u00e9\\n\",\"list\":[true,null,[],{}]}\r\n",
        "nonsense\n\n",
        binary:copy(<<"1">>, 900), "\n",
        "[\"", binary:copy(<<"x">>, 1000), "\"]\n",
        Deep, "\n",
        "18446744073709551616\n"
    ]),
    Long = binary_to_integer(binary:copy(<<"1">>, 900)),
    Object = #{
        <<"id">> => -7.5,
        <<"text">> => <<"\303\251\n">>,
        <<"list">> => [true, null, [], #{}]
    },
    ?assertEqual(
        [
            {json, Object},
            {bad_json, {unexpected_byte, 1}, <<"nonsense">>},
            {json, Long},
            {oversized, 1004},
            {oversized, 1026},
            {json, 18446744073709551616}
        ],
        receive_frames(Conn, 6)
    ).

%% Bounds count the bytes of frames, and what is left is as it was.
decoded_within_bounds(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false, decode => json}),
    ok = gen_tcp:send(Peer, [[integer_to_list(N), $\n] || N <- lists:seq(10, 19)]),
    ?assertEqual(ready, event(Conn)),
    ?assertEqual({ok, [{json, 10}]}, erlmcp_native:take(Conn, 1)),
    ?assertEqual({ok, [{json, 11}, {json, 12}]}, erlmcp_native:take(Conn, 9, 5)),
    {ok, Rest} = erlmcp_native:take(Conn, 100),
    ?assertEqual([{json, N} || N <- lists:seq(13, 19)], Rest).

%% Windows

active_once(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => once}),
    ok = gen_tcp:send(Peer, <<"1\n2\n3\n">>),
    ?assertEqual({frames, [<<"1">>]}, event(Conn)),
    ?assertEqual(passive, event(Conn)),
    ok = erlmcp_native:set_active(Conn, once),
    ?assertEqual([<<"2">>], receive_frames(Conn, 1)).

active_window(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => 5}),
    ok = gen_tcp:send(Peer, [[integer_to_list(N), $\n] || N <- lists:seq(1, 20)]),
    Numbers = fun(From, To) -> [integer_to_binary(N) || N <- lists:seq(From, To)] end,
    ?assertEqual(Numbers(1, 5), receive_frames(Conn, 5)),
    ?assertEqual(passive, event(Conn)),
    ?assertEqual({error, {option, active, 0}}, erlmcp_native:set_active(Conn, 0)),
    ok = erlmcp_native:set_active(Conn, 10),
    ?assertEqual(Numbers(6, 15), receive_frames(Conn, 10)),
    ?assertEqual(passive, event(Conn)),
    ok = erlmcp_native:set_active(Conn, true),
    ?assertEqual(Numbers(16, 20), receive_frames(Conn, 5)).

%% What came together uses the window up; what comes later is announced, and so is the end.
ready_after_the_window(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => 2}),
    ok = gen_tcp:send(Peer, <<"a\nb\n">>),
    ?assertEqual([<<"a">>, <<"b">>], receive_frames(Conn, 2)),
    ?assertEqual(passive, event(Conn)),
    ok = gen_tcp:send(Peer, <<"c\nd\n">>),
    ?assertEqual(ready, event(Conn)),
    %% They may come one after the other.
    ?assertEqual([<<"c">>, <<"d">>], taken(Conn, 2)),
    ok = erlmcp_native:set_active(Conn, 2),
    ok = gen_tcp:send(Peer, <<"e\nf\n">>),
    ?assertEqual([<<"e">>, <<"f">>], receive_frames(Conn, 2)),
    ?assertEqual(passive, event(Conn)),
    ok = gen_tcp:close(Peer),
    ?assertEqual(ready, event(Conn)),
    ?assertEqual({ok, []}, erlmcp_native:take(Conn, 1)),
    ?assertEqual({down, closed, final}, event(Conn)).

taken(Conn, Count) when Count > 0 ->
    {ok, Frames} = erlmcp_native:take(Conn, Count),
    case Count - length(Frames) of
        0 -> Frames;
        Left ->
            _ = [ready = event(Conn) || Frames =:= []],
            Frames ++ taken(Conn, Left)
    end.

active_false_and_take(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false}),
    ?assertEqual({ok, []}, erlmcp_native:take(Conn, 10)),
    ok = gen_tcp:send(Peer, <<"1\n">>),
    ?assertEqual(ready, event(Conn)),
    ?assertEqual({ok, [<<"1">>]}, erlmcp_native:take(Conn, 10)),
    ?assertEqual({ok, []}, erlmcp_native:take(Conn, 10)),
    ok = gen_tcp:send(Peer, <<"2\n">>),
    ?assertEqual(ready, event(Conn)),
    ok = erlmcp_native:set_active(Conn, true),
    ?assertEqual({frames, [<<"2">>]}, event(Conn)),
    ?assertEqual({error, active}, erlmcp_native:take(Conn, 10)).

%% After much as after little, and whether the owner asked for more than there was or not.
ready_after_everything_was_taken(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false}),
    Frame = binary:copy(<<"x">>, 1023),
    [
        begin
            ok = gen_tcp:send(Peer, [[Frame, $\n] || _ <- lists:seq(1, Count)]),
            ok = taken_by_events(Conn, Count)
        end
     || Count <- [1, 15, 16, 17, 40, 250, 1]
    ].

%% An owner that takes once for each `ready'.
taken_by_events(_, 0) ->
    ok;
taken_by_events(Conn, Count) ->
    ?assertEqual(ready, event(Conn)),
    {ok, Items} = erlmcp_native:take(Conn, 1000, 10000000),
    taken_by_events(Conn, Count - length(Items)).

take_bounds(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false}),
    Frame = binary:copy(<<"x">>, 100),
    ok = gen_tcp:send(Peer, [[Frame, $\n] || _ <- lists:seq(1, 10)]),
    ?assertEqual(ready, event(Conn)),
    ?assertEqual({ok, [Frame, Frame]}, erlmcp_native:take(Conn, 2, 1000)),
    ?assertEqual({ok, [Frame]}, erlmcp_native:take(Conn, 5, 0)),
    ?assertEqual({ok, [Frame, Frame]}, erlmcp_native:take(Conn, 5, 299)),
    {ok, Rest} = erlmcp_native:take(Conn, 100, 1000),
    ?assertEqual(5, length(Rest)).

recv_waits(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false}),
    ?assertEqual({error, timeout}, erlmcp_native:recv(Conn, 10)),
    ok = gen_tcp:send(Peer, <<"late\n">>),
    ?assertEqual({ok, [<<"late">>]}, erlmcp_native:recv(Conn, ?WAIT)),
    ok = gen_tcp:close(Peer),
    ?assertEqual({error, closed}, erlmcp_native:recv(Conn, ?WAIT)).

%% Peers

reset_mid_frame(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    ok = gen_tcp:send(Peer, <<"whole\nhalf">>),
    ?assertEqual([<<"whole">>], receive_frames(Conn, 1)),
    ok = inet:setopts(Peer, [{linger, {true, 0}}]),
    ok = gen_tcp:close(Peer),
    ?assertEqual(reset, receive_down(Conn)).

unterminated_frame_is_dropped(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    ok = gen_tcp:send(Peer, <<"whole\nhalf">>),
    ok = gen_tcp:close(Peer),
    ?assertEqual([<<"whole">>], receive_frames(Conn, 1)),
    ?assertEqual(closed, receive_down(Conn)).

half_close(Config) ->
    {Conn, Peer} = raw_pair(Config, #{half_close => true}),
    ok = gen_tcp:send(Peer, <<"question\n">>),
    ok = gen_tcp:shutdown(Peer, write),
    ?assertEqual([<<"question">>], receive_frames(Conn, 1)),
    ?assertEqual(eof, event(Conn)),
    ok = erlmcp_native:send(Conn, <<"answer">>),
    ?assertEqual({ok, <<"answer\n">>}, gen_tcp:recv(Peer, 7, ?WAIT)),
    ok = erlmcp_native:close(Conn),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

close_after_half_close_by_default(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    ok = gen_tcp:send(Peer, <<"question\n">>),
    ok = gen_tcp:shutdown(Peer, write),
    ?assertEqual([<<"question">>], receive_frames(Conn, 1)),
    ?assertEqual(closed, receive_down(Conn)),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

peer_that_stops_reading(Config) ->
    Limit = 100000,
    {Conn, Peer} = raw_pair(Config, #{max_queue_bytes => Limit}),
    Message = binary:copy(<<"m">>, 1000),
    Accepted = send_until_stuck(Conn, Message, 0),
    {ok, #{socket := #{queue_bytes := Queued}}} = erlmcp_native:info(Conn),
    ?assert(Queued =< Limit),
    ?assert(Queued + 1001 > least_queued(Limit, Config)),
    ?assertEqual({ok, lists:duplicate(Accepted, Message)}, read_lines(Peer, Accepted, 1001)),
    ?assertEqual(writable, event(Conn)),
    ok = erlmcp_native:send(Conn, <<"again">>),
    ?assertEqual({ok, <<"again\n">>}, gen_tcp:recv(Peer, 6, ?WAIT)).

%% Room that was used comes back, for the side that dialled and for the one that accepted.
more_than_the_queue_both_ways(Config) ->
    Options = #{max_queue_bytes => 50000, high_water_bytes => 50000},
    {Client, Server} = pair(Config, Options, Options),
    Message = binary:copy(<<"m">>, 999),
    [
        begin
            [ok = erlmcp_native:send(From, Message, ?WAIT) || _ <- lists:seq(1, 500)],
            ?assertEqual(lists:duplicate(500, Message), receive_frames(To, 500))
        end
     || {From, To} <- [{Client, Server}, {Server, Client}]
    ].

slow_owner_is_bounded(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false, high_water_bytes => 65536}),
    Line = [binary:copy(<<"s">>, 1023), $\n],
    Count = 20000,
    Sender = spawn_link(fun() -> [ok = gen_tcp:send(Peer, Line) || _ <- lists:seq(1, Count)] end),
    Monitor = monitor(process, Sender),
    ?assertEqual(ready, event(Conn)),
    %% The peer is held up, and what waits here stays near the mark.
    receive {'DOWN', Monitor, _, _, _} -> ct:fail(no_back_pressure) after 300 -> ok end,
    {ok, #{socket := #{inbound_bytes := Waiting}}} = erlmcp_native:info(Conn),
    ?assert(Waiting < 65536 + 2 * 262144),
    ?assertEqual(Count, count_frames(Conn, Count)),
    ended(Monitor).

%% Whatever is large, empty or discarded: each comes, in order, through a window of one byte.
smallest_window(Config) ->
    Options = #{
        framing => length4, high_water_bytes => 1, max_frame_bytes => 100000, on_oversize => discard
    },
    {Conn, Peer} = raw_pair(Config, Options#{active => false}),
    Large = binary:copy(<<"l">>, 100000),
    Frames = lists:append(lists:duplicate(20, [Large, <<>>, <<"small">>, <<>>, <<>>])),
    Sent = [[<<(byte_size(F)):32>>, F] || F <- Frames],
    Over = <<100001:32, 0:100001/unit:8>>,
    spawn_link(fun() -> ok = gen_tcp:send(Peer, [Sent, Over, <<0:32>>, Over, <<1:32, "e">>]) end),
    Expected = Frames ++ [{oversized, 100001}, <<>>, {oversized, 100001}, <<"e">>],
    ?assertEqual(Expected, received_by_one(Conn, length(Expected))).

received_by_one(_, 0) ->
    [];
received_by_one(Conn, Count) ->
    {ok, [Item]} = recv_one(Conn),
    [Item | received_by_one(Conn, Count - 1)].

recv_one(Conn) ->
    case erlmcp_native:take(Conn, 1) of
        {ok, []} ->
            ready = event(Conn),
            recv_one(Conn);
        Result ->
            Result
    end.

peer_that_says_nothing(Config) ->
    {Conn, _Peer} = raw_pair(Config, #{}),
    {ok, #{phase := open}} = erlmcp_native:info(Conn),
    ok = erlmcp_native:close(Conn).

close_flushes(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Large = binary:copy(<<"f">>, 8000000),
    ok = erlmcp_native:send(Conn, Large),
    ok = erlmcp_native:close(Conn),
    ?assertEqual({ok, <<Large/binary, "\n">>}, gen_tcp:recv(Peer, 8000001, ?WAIT)),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

close_twice(Config) ->
    {Conn, _Peer} = raw_pair(Config, #{}),
    Monitor = monitor(process, Conn),
    ok = erlmcp_native:close(Conn),
    ended(Monitor),
    ok = erlmcp_native:close(Conn),
    ?assertEqual({error, closed}, erlmcp_native:send(Conn, <<"x">>)),
    ?assertEqual({error, closed}, erlmcp_native:take(Conn, 1)),
    ?assertEqual({error, closed}, erlmcp_native:info(Conn)).

%% Owners

owner_killed_with_data_in_flight(Config) ->
    {Listen, Port} = test_socket:listen(),
    Test = self(),
    Owner = spawn(fun() ->
        {ok, Conn} = erlmcp_native:connect(#{port => Port}, options(Config, #{active => 1})),
        Test ! {conn, Conn},
        receive never -> ok end
    end),
    Conn = receive {conn, C} -> C after ?WAIT -> ct:fail(no_connection) end,
    Monitor = monitor(process, Conn),
    {ok, Peer} = gen_tcp:accept(Listen, ?WAIT),
    ok = gen_tcp:send(Peer, binary:copy(<<"data\n">>, 10000)),
    exit(Owner, kill),
    ended(Monitor),
    ?assertMatch({error, _}, gen_tcp:recv(Peer, 0, ?WAIT)),
    no_native_connections().

hand_over_under_load(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => true}),
    Count = 20000,
    Lines = [[integer_to_binary(N), $\n] || N <- lists:seq(1, Count)],
    spawn_link(fun() -> [ok = gen_tcp:send(Peer, Chunk) || Chunk <- chunks(Lines, 50)] end),
    Expected = lists:seq(1, Count),
    Test = self(),
    Owners = [
        spawn_link(fun() ->
            receive start -> ok end,
            Part = numbers(Conn, []),
            Test ! {self(), Part}
        end)
     || _ <- lists:seq(1, 5)
    ],
    Last = lists:foldl(fun(Next, Acc) -> pass_to(Conn, Next, Acc) end, {self, []}, Owners),
    ?assertEqual(Expected, collect(Last, Conn, Count)).

hand_over_announces_what_waits(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false}),
    ok = gen_tcp:send(Peer, <<"1\n2\n">>),
    ?assertEqual(ready, event(Conn)),
    {ok, [<<"1">>]} = erlmcp_native:take(Conn, 1),
    Test = self(),
    Next = spawn_link(fun() ->
        ready = event(Conn),
        Test ! {took, erlmcp_native:take(Conn, 10)}
    end),
    ok = erlmcp_native:controlling_process(Conn, Next),
    receive {took, Took} -> ?assertEqual({ok, [<<"2">>]}, Took) after ?WAIT -> ct:fail(lost) end.

only_the_owner_hands_over(Config) ->
    {Conn, _Peer} = raw_pair(Config, #{}),
    Test = self(),
    spawn_link(fun() -> Test ! {result, erlmcp_native:controlling_process(Conn, self())} end),
    receive {result, Result} -> ?assertEqual({error, not_owner}, Result) end.

sender_from_another_process(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Sender =
        case erlmcp_native:sender(Conn) of
            none -> Conn;
            Direct -> Direct
        end,
    Send = fun(Id) -> [ok = erlmcp_native:send(Sender, <<Id>>) || _ <- lists:seq(1, 100)] end,
    Senders = [spawn_monitor(fun() -> Send(Id) end) || Id <- lists:seq($a, $j)],
    [ended(Ref) || {_, Ref} <- Senders],
    {ok, Lines} = gen_tcp:recv(Peer, 2000, ?WAIT),
    Counts = [length(binary:matches(Lines, <<Id, "\n">>)) || Id <- lists:seq($a, $j)],
    ?assertEqual(lists:duplicate(10, 100), Counts).

%% Dialling and listening

connect_refused(Config) ->
    Endpoint = #{port => test_socket:free_port()},
    {ok, Conn} = erlmcp_native:connect(Endpoint, options(Config, #{})),
    ?assertEqual({error, refused}, erlmcp_native:await_connected(Conn, ?WAIT)).

connect_no_such_name(Config) ->
    Endpoint = #{host => "no-such-name.invalid", port => 1},
    {ok, Conn} = erlmcp_native:connect(Endpoint, options(Config, #{})),
    ?assertEqual({error, nxdomain}, erlmcp_native:await_connected(Conn, ?WAIT)).

connect_timeout(Config) ->
    Options = options(Config, #{connect_timeout_ms => 200}),
    {ok, Conn} = erlmcp_native:connect(#{port => test_socket:black_hole()}, Options),
    ?assertEqual({error, not_connected}, erlmcp_native:send(Conn, <<"early">>)),
    ?assertEqual({error, timeout}, erlmcp_native:await_connected(Conn, ?WAIT)).

connect_to_name(Config) ->
    {_, Port} = test_socket:listen(),
    [
        begin
            {ok, Conn} = erlmcp_native:connect(#{host => Name, port => Port}, options(Config, #{})),
            ?assertEqual(ok, erlmcp_native:await_connected(Conn, ?WAIT))
        end
     || Name <- ["localhost", <<"localhost">>, localhost, "127.0.0.1", {127, 0, 0, 1}]
    ].

bind_address(Config) ->
    {Listen, Port} = test_socket:listen(),
    Options = options(Config, #{bind => {127, 0, 0, 9}}),
    {ok, _} = erlmcp_native:connect(#{port => Port}, Options),
    {ok, Peer} = gen_tcp:accept(Listen, ?WAIT),
    ?assertMatch({ok, {{127, 0, 0, 9}, _}}, inet:peername(Peer)).

port_in_use(Config) ->
    {_, Port} = test_socket:listen(),
    Result = erlmcp_native:listen(#{port => Port}, options(Config, #{})),
    ?assertEqual({error, address_in_use}, Result).

listener_outlives_nothing(Config) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, options(Config, #{})),
    Port = port(Listener),
    {ok, Peer} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Conn = accepted(Listener),
    ok = erlmcp_native:close(Listener),
    ?assertEqual({error, econnrefused}, gen_tcp:connect({127, 0, 0, 1}, Port, [])),
    ok = gen_tcp:send(Peer, <<"still\n">>),
    ?assertEqual([<<"still">>], receive_frames(Conn, 1)),
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, Owned} = erlmcp_native:listen(#{port => 0}, options(Config, #{owner => Owner})),
    Monitor = monitor(process, Owned),
    Owner ! stop,
    ended(Monitor).

max_connections(Config) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, options(Config, #{max_connections => 2})),
    Connect = fun() ->
        {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, port(Listener), [binary, {active, false}]),
        ok = gen_tcp:send(Socket, <<"hello\n">>),
        Socket
    end,
    [First | _] = [Connect() || _ <- lists:seq(1, 3)],
    One = accepted(Listener),
    Two = accepted(Listener),
    [?assertEqual([<<"hello">>], receive_frames(C, 1)) || C <- [One, Two]],
    receive {erlmcp_native, Listener, _} -> ct:fail(over_the_limit) after 100 -> ok end,
    {ok, #{connections := 2}} = erlmcp_native:info(Listener),
    ok = gen_tcp:close(First),
    Three = accepted(Listener),
    ?assertEqual([<<"hello">>], receive_frames(Three, 1)).

handler_per_connection(Config) ->
    Options = options(Config, #{handler => {?MODULE, start_echo, [none]}}),
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, maps:remove(active, Options)),
    Peers = [
        begin
            {ok, Peer} = gen_tcp:connect({127, 0, 0, 1}, port(Listener), [binary, {active, false}]),
            ok = gen_tcp:send(Peer, <<"echo\n">>),
            Peer
        end
     || _ <- lists:seq(1, 20)
    ],
    [?assertEqual({ok, <<"echo\n">>}, gen_tcp:recv(Peer, 5, ?WAIT)) || Peer <- Peers].

%% What an owner answers leaves together with the next answer, but does not wait for it for long.
answer_does_not_wait_for_the_next(Config) ->
    Options = options(Config, #{handler => {?MODULE, start_echo, [self()]}}),
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, maps:remove(active, Options)),
    {ok, Peer} = gen_tcp:connect({127, 0, 0, 1}, port(Listener), [binary, {active, false}]),
    [
        begin
            ok = gen_tcp:send(Peer, <<"1\n2\n3\n">>),
            Working = receive {working, Pid} -> Pid after ?WAIT -> ct:fail(idle) end,
            ?assertEqual({ok, <<"1\n">>}, gen_tcp:recv(Peer, 2, ?WAIT)),
            Working ! go,
            receive {working, Working} -> Working ! go end,
            ?assertEqual({ok, <<"2\n3\n">>}, gen_tcp:recv(Peer, 4, ?WAIT))
        end
     || _ <- [1, 2]
    ],
    ok = gen_tcp:close(Peer).

%% Echoes, and before all but a 1 waits until the test lets it go on.
start_echo(Test) ->
    {ok,
        spawn(fun() ->
            receive
                {erlmcp_native_socket, Path, Socket} ->
                    echo(erlmcp_native_link:adopt(Path, Socket), Test)
            end
        end)}.

echo({Events, Link}, Test) ->
    case {lists:member(readable, Events), lists:keymember(down, 1, Events)} of
        {true, _} ->
            {Frames, Status, Taken} = erlmcp_native_link:take(Link, 100, 100000),
            Echo = fun(Frame, Acc) -> echoed(Frame, Acc, Test) end,
            Sent = lists:foldl(Echo, Taken, Frames),
            Next =
                case Status of
                    empty -> [];
                    {down, _, _} -> [Status];
                    _ -> [readable]
                end,
            echo({Next, Sent}, Test);
        {false, false} ->
            receive
                Msg -> echo(erlmcp_native_link:handle_info(Msg, Link), Test)
            end;
        {false, true} ->
            ok
    end.

echoed(Frame, Link, Test) ->
    ok = work(Frame, Test),
    {ok, Sent} = erlmcp_native_link:send(Frame, Link),
    Sent.

work(Frame, Test) when Frame =:= <<"1">>; Test =:= none ->
    ok;
work(_, Test) ->
    Test ! {working, self()},
    receive go -> ok end.

thousand_closed_at_once(Config) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, options(Config, #{backlog => 1000})),
    Port = port(Listener),
    Conns = [
        begin
            {ok, Conn} = erlmcp_native:connect(#{port => Port}, options(Config, #{})),
            ok = erlmcp_native:await_connected(Conn, ?WAIT),
            {Conn, accepted(Listener)}
        end
     || _ <- lists:seq(1, 1000)
    ],
    Monitors = [monitor(process, Server) || {_, Server} <- Conns],
    [spawn(fun() -> erlmcp_native:close(Client) end) || {Client, _} <- Conns],
    [ended(M) || M <- Monitors],
    no_native_connections().

unix_path(Config) ->
    File = filename:join(proplists:get_value(priv_dir, Config), "u.sock"),
    Short = short(File, Config),
    unix(Config, #{path => Short}, {path, list_to_binary(Short)}),
    until(fun() -> not exists(Short) end).

unix_abstract(Config) ->
    case os:type() of
        {unix, linux} ->
            Unique = integer_to_list(erlang:unique_integer([positive])),
            Name = iolist_to_binary(["erlmcp_native", Unique, os:getpid()]),
            unix(Config, #{abstract => Name}, {abstract, Name});
        _ ->
            {comment, "abstract names are Linux's own"}
    end.

unix(Config, Endpoint, Address) ->
    {ok, Listener} = erlmcp_native:listen(Endpoint, options(Config, #{})),
    ?assertMatch({ok, #{sockname := Address}}, erlmcp_native:info(Listener)),
    {ok, Client} = erlmcp_native:connect(Endpoint, options(Config, #{})),
    ok = erlmcp_native:await_connected(Client, ?WAIT),
    Server = accepted(Listener),
    ok = erlmcp_native:send(Client, <<"over a Unix socket">>),
    ?assertEqual([<<"over a Unix socket">>], receive_frames(Server, 1)),
    {ok, #{socket := #{peername := Address, sockname := unnamed}}} = erlmcp_native:info(Client),
    ?assertEqual({error, address_in_use}, erlmcp_native:listen(Endpoint, options(Config, #{}))),
    ok = erlmcp_native:close(Client),
    ?assertEqual(closed, receive_down(Server)),
    closed_listener(Listener).

unix_stale_file(Config) ->
    File = short(filename:join(proplists:get_value(priv_dir, Config), "stale.sock"), Config),
    {ok, Dead} = gen_tcp:listen(0, [{ifaddr, {local, File}}]),
    ok = gen_tcp:close(Dead),
    ?assert(exists(File)),
    {ok, Listener} = erlmcp_native:listen(#{path => File}, options(Config, #{})),
    closed_listener(Listener),
    until(fun() -> not exists(File) end),
    ok = file:write_file(File, <<"not a socket">>),
    Result = erlmcp_native:listen(#{path => File}, options(Config, #{})),
    ?assertEqual({error, address_in_use}, Result),
    ok = file:delete(File).

%% Reconnecting

reconnects(Config) ->
    Passive = [binary, {active, false}, {ip, {127, 0, 0, 1}}, {reuseaddr, true}],
    {ok, Listen} = gen_tcp:listen(0, Passive),
    {ok, Port} = inet:port(Listen),
    Reconnect = #{min_ms => 5, max_ms => 20},
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, options(Config, #{reconnect => Reconnect})),
    {ok, First} = gen_tcp:accept(Listen, ?WAIT),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    ok = gen_tcp:send(First, <<"before\n">>),
    ?assertEqual([<<"before">>], receive_frames(Conn, 1)),
    ok = gen_tcp:close(Listen),
    ok = gen_tcp:close(First),
    ?assertEqual({down, closed, {retry_in, 0}}, event(Conn)),
    ?assertMatch({down, refused, {retry_in, _}}, event(Conn)),
    {ok, Again} = gen_tcp:listen(Port, Passive),
    {ok, Second} = gen_tcp:accept(Again, ?WAIT),
    ?assertEqual(connected, receive_until(Conn, connected)),
    ok = erlmcp_native:send(Conn, <<"after">>),
    ?assertEqual({ok, <<"after\n">>}, gen_tcp:recv(Second, 6, ?WAIT)).

gives_up_reconnecting(Config) ->
    Port = test_socket:free_port(),
    Reconnect = #{min_ms => 1, max_ms => 2, max_attempts => 3},
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, options(Config, #{reconnect => Reconnect})),
    [?assertMatch({down, refused, {retry_in, _}}, event(Conn)) || _ <- lists:seq(1, 3)],
    ?assertEqual({down, refused, final}, event(Conn)).

%% Options and counters

options_are_checked(Config) ->
    Connect = fun(Options) -> erlmcp_native:connect(#{port => 1}, options(Config, Options)) end,
    Listen = fun(Options) -> erlmcp_native:listen(#{port => 0}, options(Config, Options)) end,
    Refused = fun(Key, Value) -> {error, {option, Key, Value}} end,
    [
        ?assertEqual(Refused(Key, Value), Call(#{Key => Value}))
     || {Key, Values} <- bad_options(),
        Value <- Values,
        Call <- [Connect, Listen]
    ],
    [
        ?assertEqual(Refused(Key, Value), Connect(#{Key => Value}))
     || {Key, Value} <- [{bind, "127.0.0.1"}, {connect_timeout_ms, 0}, {attempt_delay_ms, 9},
            {reconnect, 1}, {max_connections, 1}, {backlog, 1}]
    ],
    [
        ?assertEqual(Refused(Key, Value), Listen(#{Key => Value}))
     || {Key, Value} <- [
            {handler, m}, {max_connections, 0}, {backlog, 0}, {reconnect, true}, {bind, any}
        ]
    ],
    ?assertEqual(Refused({reconnect, min_ms}, 0), Connect(#{reconnect => #{min_ms => 0}})),
    ?assertEqual(Refused({tls, verify}, some), Connect(#{tls => #{verify => some}})),
    ?assertEqual(Refused({tls, keyfile}, none), Connect(#{tls => #{certfile => "c"}})),
    ?assertEqual(Refused({tls, certfile}, undefined), Listen(#{tls => #{keyfile => "k"}})),
    ?assertEqual(Refused(tls, true), Listen(#{tls => true})),
    ?assertEqual(Refused(port, 65536), erlmcp_native:connect(#{port => 65536}, #{})),
    ?assertEqual(Refused(host, ""), erlmcp_native:connect(#{host => "", port => 1}, #{})),
    Long = lists:duplicate(104, $p),
    ?assertEqual(Refused(path, Long), erlmcp_native:connect(#{path => Long}, #{})),
    ?assertEqual(Refused(endpoint, #{}), erlmcp_native:connect(#{}, #{})),
    ?assertEqual(Refused(options, []), erlmcp_native:connect(#{port => 1}, [])).

bad_options() ->
    [
        {unknown_key, [1]},
        {owner, [self]},
        {active, [0, -1, twice]},
        {path, [rust]},
        {framing, [lines]},
        {max_frame_bytes, [0, 1 bsl 32, 1.0]},
        {on_oversize, [truncate]},
        {high_water_bytes, [0]},
        {decode, [true, jsx]},
        {max_queue_bytes, [0]},
        {copy, [yes]},
        {half_close, [1]},
        {nodelay, [1]},
        {keepalive, [on]},
        {linger_ms, [-1, 600001]},
        {handshake_timeout_ms, [0, 600001]},
        {tls, [yes]}
    ].

addresses(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    {ok, Local} = inet:sockname(Peer),
    {ok, Remote} = inet:peername(Peer),
    {ok, #{socket := Info}} = erlmcp_native:info(Conn),
    ?assertMatch(#{peername := Local, sockname := Remote, peercert := undefined}, Info).

counters(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    ok = gen_tcp:send(Peer, <<"12345\r\n\n678\n">>),
    _ = receive_frames(Conn, 2),
    ok = erlmcp_native:send(Conn, <<"abc">>),
    {ok, _} = gen_tcp:recv(Peer, 4, ?WAIT),
    {ok, #{socket := Info}} = erlmcp_native:info(Conn),
    ?assertMatch(
        #{frames_in := 2, bytes_in := 12, frames_out := 1, bytes_out := 4, inbound_bytes := 0,
            queue_bytes := 0, state := open},
        Info
    ).

%% Helpers

options(Config, Options) ->
    maps:merge(#{path => proplists:get_value(path, Config), active => true}, Options).

%% Two connections of the path under test, both active.
pair(Config, ClientOptions, ListenOptions) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, options(Config, ListenOptions)),
    {ok, Client} = erlmcp_native:connect(#{port => port(Listener)}, options(Config, ClientOptions)),
    ok = erlmcp_native:await_connected(Client, ?WAIT),
    {Client, accepted(Listener)}.

%% A connection of the path under test and a plain socket as its peer.
raw_pair(Config, Options) -> test_socket:pair(options(Config, Options)).

port(Listener) ->
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    Port.

accepted(Listener) ->
    {accepted, Conn} = event(Listener),
    connected = event(Conn),
    Conn.

ended(Monitor) -> ?assertEqual(normal, reason(Monitor)).

closed_listener(Listener) ->
    Monitor = monitor(process, Listener),
    ok = erlmcp_native:close(Listener),
    ended(Monitor).

receive_until(Conn, Event) ->
    case event(Conn) of
        Event -> Event;
        _ -> receive_until(Conn, Event)
    end.

receive_down(Conn) ->
    {down, Reason, final} = event(Conn),
    Reason.

receive_frames(_, 0) ->
    [];
receive_frames(Conn, Count) ->
    {frames, Frames} = event(Conn),
    ?assert(length(Frames) =< Count),
    Frames ++ receive_frames(Conn, Count - length(Frames)).

count_frames(_, 0) ->
    0;
count_frames(Conn, Count) ->
    {ok, Frames} = erlmcp_native:recv(Conn, ?WAIT),
    length(Frames) + count_frames(Conn, Count - length(Frames)).

send_until_busy(Conn, Message, Count) ->
    case erlmcp_native:send(Conn, Message) of
        ok -> send_until_busy(Conn, Message, Count + 1);
        {error, busy} -> Count
    end.

%% Until the peer's end of the connection holds no more: what is under way to the port program
%% counts as queued, too.
send_until_stuck(Conn, Message, Sent) ->
    Accepted = send_until_busy(Conn, Message, Sent),
    receive
        {erlmcp_native, Conn, writable} -> send_until_stuck(Conn, Message, Accepted)
    after 200 -> Accepted
    end.

%% The port program tells of room when half of the queue is free, so less than that may be queued.
least_queued(Limit, Config) ->
    case proplists:get_value(path, Config) of
        port -> Limit div 2;
        _ -> Limit
    end.

read_lines(Peer, Count, Size) ->
    {ok, Data} = gen_tcp:recv(Peer, Count * Size, ?WAIT),
    {ok, lists:droplast(binary:split(Data, <<"\n">>, [global]))}.

%% Hand-over: each owner keeps what it received and passes the connection on when told to.
pass_to(Conn, Next, {self, []}) ->
    ok = erlmcp_native:controlling_process(Conn, Next),
    Next ! start,
    {[Next], Conn};
pass_to(Conn, Next, {[Current | _] = Owners, Conn}) ->
    Current ! {pass, Next},
    Next ! start,
    {[Next | Owners], Conn}.

collect({[Last | _] = Owners, _}, _, Count) ->
    Last ! {stop_at, Count},
    Part = fun(Owner) ->
        receive
            {Owner, Numbers} -> Numbers
        after ?WAIT -> ct:fail(lost)
        end
    end,
    lists:flatmap(Part, lists:reverse(Owners)).

numbers(Conn, Acc) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            numbers(Conn, lists:reverse([binary_to_integer(F) || F <- Frames], Acc));
        {pass, Next} when Acc =/= [] ->
            ok = erlmcp_native:controlling_process(Conn, Next),
            lists:reverse(Acc);
        {stop_at, Count} when hd(Acc) =:= Count ->
            lists:reverse(Acc)
    after ?WAIT -> lists:reverse(Acc)
    end.

chunks([], _) -> [];
chunks(List, N) when length(List) =< N -> [List];
chunks(List, N) ->
    {Chunk, Rest} = lists:split(N, List),
    [Chunk | chunks(Rest, N)].

%% A path for a Unix socket must be short; ct's directories are not.
short(File, Config) ->
    Dir = filename:join("/tmp", "erlmcp_native_" ++ os:getpid()),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    filename:join(Dir, atom_to_list(proplists:get_value(path, Config)) ++ filename:basename(File)).

exists(File) ->
    case file:read_link_info(File) of
        {ok, _} -> true;
        {error, enoent} -> false
    end.

%% Native objects go with their tasks, shortly after the processes.
no_native_connections() ->
    until(fun() ->
        Overview = erlmcp_native:overview(),
        lists:all(
            fun(Name) ->
                maps:get(value, maps:get(Name, Overview, #{value => 0})) =:= 0
            end,
            [native_connections]
        )
    end).
