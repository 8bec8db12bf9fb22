%% What is sent before what, how much may wait where, and that nothing is lost where one is slow.
-module(flow_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [event/1]).

-define(WAIT, 30000).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{Path, cases()} || Path <- [nif, port, beam]].

cases() ->
    [
        urgent_messages_overtake,
        urgent_messages_overtake_under_tls,
        urgent_messages_overtake_on_a_unix_socket,
        urgent_messages_overtake_to_a_child,
        length_prefixed_messages_overtake,
        cancellation_stays_behind_its_request,
        answer_stays_behind_progress,
        priority_of_the_senders_choice,
        urgent_messages_have_a_reserve,
        options_of_sending,
        slow_owner_under_tls,
        slow_peer_under_tls,
        slow_owner_of_a_child,
        slow_child,
        high_water_follows_the_owner,
        high_water_that_is_fixed
    ].

init_per_suite(Config) ->
    test_config:start([erlmcp_native], test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

%% Priorities

urgent_messages_overtake(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Bulk = fill(Conn, fun result/1),
    Urgent = [ping(1), error_of(2), cancellation(3), pong(4)],
    [?assertEqual(ok, erlmcp_native:send(Conn, Message)) || Message <- Urgent],
    overtaken(Bulk, Urgent, lines(Peer, length(Bulk) + 4)).

urgent_messages_overtake_under_tls(Config) ->
    {Conn, Peer} = tls_pair(Config, #{}),
    Bulk = fill(Conn, fun result/1),
    Urgent = [ping(1), error_of(2), cancellation(3), pong(4)],
    [?assertEqual(ok, erlmcp_native:send(Conn, Message)) || Message <- Urgent],
    overtaken(Bulk, Urgent, tls_lines(Peer, length(Bulk) + 4)).

urgent_messages_overtake_on_a_unix_socket(Config) ->
    {Conn, Peer} = unix_pair(Config, #{}),
    Bulk = fill(Conn, fun result/1),
    Urgent = [ping(1), error_of(2), cancellation(3), pong(4)],
    [?assertEqual(ok, erlmcp_native:send(Conn, Message)) || Message <- Urgent],
    overtaken(Bulk, Urgent, lines(Peer, length(Bulk) + 4)).

urgent_messages_overtake_to_a_child(Config) ->
    Go = filename:join(proplists:get_value(priv_dir, Config), "overtake_go"),
    Conn = waiting_child(Go, Config),
    Bulk = fill(Conn, fun result/1),
    Urgent = [ping(1), error_of(2)],
    [?assertEqual(ok, erlmcp_native:send(Conn, Message)) || Message <- Urgent],
    ok = file:write_file(Go, <<>>),
    overtaken(Bulk, Urgent, child_frames(Conn, length(Bulk) + 2)),
    ok = erlmcp_native:close(Conn).

length_prefixed_messages_overtake(Config) ->
    {Conn, Peer} = raw_pair(Config, #{framing => length4}),
    Bulk = fill(Conn, fun result/1),
    ok = erlmcp_native:send(Conn, ping(1)),
    ok = inet:setopts(Peer, [{packet, 4}]),
    Received = [element(2, {ok, _} = gen_tcp:recv(Peer, 0, ?WAIT)) || _ <- [ping | Bulk]],
    overtaken(Bulk, [ping(1)], Received).

%% The server would not know what to cancel.
cancellation_stays_behind_its_request(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Bulk = fill(Conn, fun request/1),
    Last = length(Bulk),
    Cancellations = [cancellation(I) || I <- [Last - 2, Last, Last + 1]],
    [ok = erlmcp_native:send(Conn, Cancellation) || Cancellation <- Cancellations],
    Received = lines(Peer, Last + 3),
    ?assertEqual(Bulk, Received -- Cancellations),
    %% The last of these names no request that waits.
    {Before, [First | After]} = lists:splitwith(fun(M) -> M =/= request(Last - 2) end, Received),
    ?assertEqual(request(Last - 2), First),
    ?assertEqual(
        [cancellation(Last - 2), request(Last - 1), request(Last), cancellation(Last)], After
    ),
    ?assert(lists:member(cancellation(Last + 1), Before)).

%% Nothing may be said of a request after its answer.
answer_stays_behind_progress(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Bulk = fill(Conn, fun progress/1),
    [ok = erlmcp_native:send(Conn, M) || M <- [error_of(1), pong(2), ping(3)]],
    Received = lines(Peer, length(Bulk) + 3),
    ?assertEqual(Bulk ++ [error_of(1), pong(2)], Received -- [ping(3)]),
    ?assertNotEqual(ping(3), lists:last(Received)).

priority_of_the_senders_choice(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Bulk = fill(Conn, fun result/1),
    Chosen = result(100000),
    ?assertEqual(ok, erlmcp_native:send(Conn, Chosen, #{priority => urgent})),
    ?assertEqual({error, busy}, erlmcp_native:send(Conn, ping(7), #{priority => normal})),
    overtaken(Bulk, [Chosen], lines(Peer, length(Bulk) + 1)),
    ?assertEqual(writable, event(Conn)).

urgent_messages_have_a_reserve(Config) ->
    {Conn, Peer} = raw_pair(Config, #{max_urgent_bytes => 5000}),
    Bulk = fill(Conn, fun result/1),
    Urgent = send_urgent(Conn, 1),
    ?assert(length(Urgent) >= 1),
    ?assert(iolist_size(Urgent) =< 5000 + 2000),
    {ok, #{socket := #{queue_bytes := Queued}}} = erlmcp_native:info(Conn),
    ?assert(Queued =< queue_bytes() + 5000),
    overtaken(Bulk, Urgent, lines(Peer, length(Bulk) + length(Urgent))),
    ?assertEqual(writable, event(Conn)).

send_urgent(Conn, I) ->
    case erlmcp_native:send(Conn, ping(I)) of
        ok -> [ping(I) | send_urgent(Conn, I + 1)];
        {error, busy} -> []
    end.

options_of_sending(Config) ->
    {Conn, Peer} = raw_pair(Config, #{}),
    Refused = fun(Key, Value) ->
        ?assertEqual(
            {error, {option, Key, Value}}, erlmcp_native:send(Conn, <<"x">>, #{Key => Value})
        )
    end,
    Refused(priority, high),
    Refused(timeout_ms, -1),
    Refused(urgent, true),
    ok = erlmcp_native:send(Conn, <<"a">>, #{priority => urgent, timeout_ms => 1000}),
    ok = erlmcp_native:send(Conn, <<"b">>, #{}),
    ok = erlmcp_native:send(Conn, <<"c">>, 1000),
    ?assertEqual([<<"a">>, <<"b">>, <<"c">>], lines(Peer, 3)).

%% Slow owners and slow peers, where other suites do not have them

slow_owner_under_tls(Config) ->
    {Conn, Peer} = tls_pair(Config, #{active => false, high_water_bytes => 65536}),
    Count = 20000,
    Line = [binary:copy(<<"s">>, 1023), $\n],
    Sender = spawn_link(fun() ->
        receive go -> [ok = ssl:send(Peer, Line) || _ <- lists:seq(1, Count)] end
    end),
    ok = ssl:controlling_process(Peer, Sender),
    Sender ! go,
    ?assert(at_rest(Conn, inbound_bytes) < 65536 + 2 * 262144),
    ?assertEqual(Count, count_frames(Conn, Count)).

slow_peer_under_tls(Config) ->
    {Conn, Peer} = tls_pair(Config, #{}),
    Bulk = fill(Conn, fun result/1),
    ?assert(at_rest(Conn, queue_bytes) =< queue_bytes()),
    ?assertEqual({error, busy}, erlmcp_native:send(Conn, result(0))),
    ?assertEqual(Bulk, tls_lines(Peer, length(Bulk))),
    ?assertEqual(writable, event(Conn)).

slow_owner_of_a_child(Config) ->
    Count = 200000,
    Line = lists:duplicate(99, $c),
    Command = "yes " ++ Line ++ " | head -n " ++ integer_to_list(Count) ++ "; read end",
    {ok, Conn} = erlmcp_native:connect(
        #{command => "/bin/sh", args => ["-c", Command], stderr => null},
        options(Config, #{active => false, high_water_bytes => 65536})
    ),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    %% On `port' as much may wait in the program.
    ?assert(at_rest(Conn, inbound_bytes) < 3 * 65536 + 2 * 262144),
    ?assertEqual(Count, count_frames(Conn, Count)),
    ok = erlmcp_native:close(Conn).

slow_child(Config) ->
    Go = filename:join(proplists:get_value(priv_dir, Config), "slow_child_go"),
    Conn = waiting_child(Go, Config),
    Bulk = fill(Conn, fun result/1),
    ?assert(at_rest(Conn, queue_bytes) =< queue_bytes()),
    ok = file:write_file(Go, <<>>),
    ?assertEqual(Bulk, child_frames(Conn, length(Bulk))),
    ok = erlmcp_native:close(Conn).

%% How much is read ahead

high_water_follows_the_owner(Config) ->
    Bounds = {4096, 32768},
    {Conn, Peer} = raw_pair(Config, #{active => false, high_water_bytes => Bounds}),
    ?assertMatch(
        #{min := 4096, max := 32768, high_water_bytes := 4096, reason := start}, buffers(Conn)
    ),
    Line = [binary:copy(<<"s">>, 1023), $\n],
    Sender = spawn_link(fun() -> send_for_ever(Peer, Line) end),
    Quick = take_until(Conn, 1000, 0, fun(#{reason := Reason}) -> Reason =:= quick_owner end),
    ?assert(maps:get(high_water_bytes, Quick) > 4096),
    _ = take_until(Conn, 1000, 0, fun(#{high_water_bytes := Mark}) -> Mark =:= 32768 end),
    Slow = take_until(Conn, 1, 15, fun(#{reason := Reason}) -> Reason =:= slow_owner end),
    ?assert(maps:get(high_water_bytes, Slow) < 32768),
    true = unlink(Sender),
    exit(Sender, kill),
    ok = erlmcp_native:close(Conn).

high_water_that_is_fixed(Config) ->
    {Conn, Peer} = raw_pair(Config, #{active => false, high_water_bytes => 10000}),
    Line = [binary:copy(<<"s">>, 1023), $\n],
    spawn_link(fun() -> [ok = gen_tcp:send(Peer, Line) || _ <- lists:seq(1, 1000)] end),
    ?assertEqual(1000, count_frames(Conn, 1000)),
    ?assertMatch(
        #{min := 10000, max := 10000, high_water_bytes := 10000, reason := fixed}, buffers(Conn)
    ),
    ?assertEqual(
        [{error, {option, high_water_bytes, V}} || V <- [{2, 1}, {0, 1}, {1, 1 bsl 32}, 0]],
        [erlmcp_native:connect(#{port => 1}, #{high_water_bytes => V}) || V <- [
            {2, 1}, {0, 1}, {1, 1 bsl 32}, 0
        ]]
    ).

take_until(Conn, Items, WaitMs, Done) ->
    case erlmcp_native:take(Conn, Items, 16384) of
        {ok, []} -> receive {erlmcp_native, Conn, ready} -> ok after ?WAIT -> ct:fail(stuck) end;
        {ok, _} -> ok
    end,
    receive after WaitMs -> ok end,
    Buffers = buffers(Conn),
    case Done(Buffers) of
        true -> Buffers;
        false -> take_until(Conn, Items, WaitMs, Done)
    end.

send_for_ever(Peer, Line) ->
    case gen_tcp:send(Peer, Line) of
        ok -> send_for_ever(Peer, Line);
        {error, _} -> ok
    end.

buffers(Conn) ->
    {ok, #{socket := #{buffers := Buffers}}} = erlmcp_native:info(Conn),
    Buffers.

%% Messages

result(I) ->
    padded([
        "{\"jsonrpc\":\"2.0\",\"id\":", integer_to_list(I), ",\"result\":{\"text\":\""
    ]).

request(I) ->
    padded([
        "{\"jsonrpc\":\"2.0\",\"id\":", integer_to_list(I),
        ",\"method\":\"tools/call\",\"params\":{\"text\":\""
    ]).

progress(I) ->
    padded([
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"params\":{\"progress\":",
        integer_to_list(I), ",\"message\":\""
    ]).

padded(Head) ->
    iolist_to_binary([Head, binary:copy(<<"x">>, 2000), "\"}}"]).

ping(I) ->
    iolist_to_binary(["{\"jsonrpc\":\"2.0\",\"id\":", integer_to_list(I), ",\"method\":\"ping\"}"]).

pong(I) ->
    iolist_to_binary(["{\"jsonrpc\":\"2.0\",\"id\":", integer_to_list(I), ",\"result\":{}}"]).

error_of(I) ->
    iolist_to_binary([
        "{\"jsonrpc\":\"2.0\",\"id\":", integer_to_list(I),
        ",\"error\":{\"code\":-32603,\"message\":\"no\"}}"
    ]).

cancellation(I) ->
    iolist_to_binary([
        "{\"jsonrpc\":\"2.0\",\"method\":\"notifications/cancelled\",\"params\":{\"requestId\":",
        integer_to_list(I), "}}"
    ]).

%% Helpers

queue_bytes() -> 524288.

options(Config, Options) ->
    Defaults = #{
        path => proplists:get_value(path, Config), active => true, max_queue_bytes => queue_bytes()
    },
    maps:merge(Defaults, Options).

%% A connection of the path under test and a plain socket as its peer, which holds little.
raw_pair(Config, Options) -> test_socket:pair(options(Config, Options), [{recbuf, 16384}]).

unix_pair(Config, Options) ->
    %% What is below priv_dir may be too long for an address.
    Name = io_lib:format("/tmp/erlmcp_native-~s-~b.sock", [
        os:getpid(), erlang:unique_integer([positive])
    ]),
    File = lists:flatten(Name),
    {ok, Listen} = gen_tcp:listen(0, [binary, {active, false}, {ifaddr, {local, File}}]),
    {ok, Conn} = erlmcp_native:connect(#{path => File}, options(Config, Options)),
    {ok, Peer} = gen_tcp:accept(Listen, ?WAIT),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    ok = gen_tcp:close(Listen),
    ok = file:delete(File),
    {Conn, Peer}.

tls_pair(Config, Options) ->
    File = fun(Name) -> test_certs:file(Config, Name) end,
    {ok, Listen} = ssl:listen(0, [
        binary, {active, false}, {ip, {127, 0, 0, 1}}, {recbuf, 16384},
        {certfile, File("server.pem")}, {keyfile, File("server.key")}
    ]),
    {ok, {_, Port}} = ssl:sockname(Listen),
    Tls = #{cacertfile => File("ca.pem")},
    {ok, Conn} = erlmcp_native:connect(
        #{host => "localhost", port => Port}, options(Config, Options#{tls => Tls})
    ),
    {ok, Transport} = ssl:transport_accept(Listen, ?WAIT),
    {ok, Peer} = ssl:handshake(Transport, ?WAIT),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    ok = ssl:close(Listen),
    {Conn, Peer}.

%% It reads nothing before the file is there.
waiting_child(Go, Config) ->
    _ = file:delete(Go),
    Script = "while [ ! -e '" ++ Go ++ "' ]; do sleep 0.05; done; exec cat",
    {ok, Conn} = erlmcp_native:connect(
        #{command => "/bin/sh", args => ["-c", Script], stderr => null}, options(Config, #{})
    ),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    Conn.

%% Sends until nothing more is accepted, and nothing more leaves.
fill(Conn, Message) ->
    lists:reverse(fill(Conn, Message, [])).

fill(Conn, Message, Sent) ->
    Next = Message(length(Sent) + 1),
    case offered(Conn, Next) of
        ok -> fill(Conn, Message, [Next | Sent]);
        {error, busy} -> Sent
    end.

%% Refused is what is refused although everything before it has come to rest.
offered(Conn, Message) ->
    case erlmcp_native:send(Conn, Message) of
        {error, busy} ->
            _ = at_rest(Conn, queue_bytes),
            receive
                {erlmcp_native, Conn, writable} -> ok
            after 0 -> ok
            end,
            erlmcp_native:send(Conn, Message);
        ok ->
            ok
    end.

%% What waits, when it has not changed for a while.
at_rest(Conn, Key) ->
    at_rest(Conn, Key, 0, 10).

at_rest(_, _, Last, 0) ->
    Last;
at_rest(Conn, Key, Last, Looks) ->
    receive after 50 -> ok end,
    {ok, #{socket := #{Key := Now}}} = erlmcp_native:info(Conn),
    case Now of
        %% Nothing has come in yet.
        0 when Key =:= inbound_bytes -> at_rest(Conn, Key, 0, 10);
        Last -> at_rest(Conn, Key, Last, Looks - 1);
        _ -> at_rest(Conn, Key, Now, 10)
    end.

%% All have come, each kind in its order, and the urgent ones before the last of the others.
overtaken(Bulk, Urgent, Received) ->
    ?assertEqual(Bulk, [M || M <- Received, not lists:member(M, Urgent)]),
    ?assertEqual(Urgent, [M || M <- Received, lists:member(M, Urgent)]),
    ?assertEqual(lists:last(Bulk), lists:last(Received)).

lines(Peer, Count) ->
    ok = inet:setopts(Peer, [{recbuf, 262144}]),
    lines(fun() -> gen_tcp:recv(Peer, 0, ?WAIT) end, Count, <<>>).

tls_lines(Peer, Count) ->
    lines(fun() -> ssl:recv(Peer, 0, ?WAIT) end, Count, <<>>).

lines(Read, Count, Rest) ->
    Parts = binary:split(Rest, <<"\n">>, [global]),
    {Lines, [Begun]} = lists:split(length(Parts) - 1, Parts),
    case Count - length(Lines) of
        0 ->
            Lines;
        Left ->
            {ok, Data} = Read(),
            Lines ++ lines(Read, Left, <<Begun/binary, Data/binary>>)
    end.

%% Whatever else is told meanwhile.
child_frames(_, 0) ->
    [];
child_frames(Conn, Count) ->
    case event(Conn) of
        {frames, Frames} -> Frames ++ child_frames(Conn, Count - length(Frames));
        writable -> child_frames(Conn, Count)
    end.

count_frames(_, 0) ->
    0;
count_frames(Conn, Count) ->
    {ok, Frames} = erlmcp_native:recv(Conn, ?WAIT),
    length(Frames) + count_frames(Conn, Count - length(Frames)).
