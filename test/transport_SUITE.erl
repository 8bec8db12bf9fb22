%% Transports in erlmcp's two shapes, on every path, against plain sockets and against modules
%% that stand in for erlmcp's where those are the receivers.
-module(transport_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_socket, [accept/1, listen/0, read/1, write/2]).

-define(WAIT, 10000).

-define(OWNER, erlmcp_native_transport_owner).
-define(ROUTED, erlmcp_native_transport_routed).

all() ->
    [{group, values}, {group, nif}, {group, port}, {group, beam}].

groups() ->
    [
        {values, [
            window_opens_and_shuts,
            window_counts_bytes,
            window_waits_longer,
        window_believes_a_receiver_that_waits,
            options_of_erlmcp,
            options_refused,
            options_of_accepted
        ]},
        {nif, [{group, owner}, {group, client}, {group, routed}, {group, served}]},
        {port, [{group, owner}, {group, client}, {group, routed}, {group, served}]},
        {beam, [{group, owner}, {group, client}, {group, routed}, {group, served}]},
        {owner, [
            owner_is_told,
            line_endings_and_empty_lines,
            first_sender_owns,
            send_waits_for_the_connection,
            send_gives_up_waiting,
            not_connected_any_more,
            message_with_a_newline,
            connect_timeout_is_kept,
            gives_up_and_says_so,
            never_tries_again,
            peer_that_stops_reading,
            slow_owner,
            slow_owner_of_large_messages,
            without_a_newline,
            a_long_line_takes_its_time_only,
            owner_dies,
            owner_was_dead,
            connects_elsewhere,
            closes,
            tells_about_itself,
            ends_when_told_to,
            refuses_what_it_does_not_know
        ]},
        {client, [
            client_by_pid,
            client_survives_its_server,
            client_hears_of_a_lost_connection,
            client_under_a_supervisor,
            no_guard_for_others
        ]},
        {routed, [
            registers_and_routes,
            answered_where_there_is_no_server,
            a_broadcast_comes_once,
            a_broadcast_to_a_child,
            name_is_taken,
            not_registered_in_test_mode,
            bound_in_the_registry,
            answer_of_another_server,
            slow_server,
            peer_that_does_not_read_answers,
            peer_that_ends_with_answers_unread,
            peer_that_never_reads_answers,
            answer_over_the_limit,
            listens,
            listener_ends_with_its_connections,
            listener_skips_names_that_are_taken,
            listener_options_refused,
            listener_of_an_application_that_is_stopped
        ]},
        {served, [
            started_by_erlmcps_supervisor,
            server_survives_its_clients,
            server_that_dies_is_answered_for,
            server_that_is_not_there_is_answered_for,
            registry_that_is_restarted,
            same_ids_of_two_clients
        ]}
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) when
    Path =:= nif; Path =:= port; Path =:= beam
->
    test_config:use(erlmcp_native_path, Path, Config);
init_per_group(Group, Config) when Group =:= client; Group =:= served ->
    Files = filename:join(proplists:get_value(data_dir, Config), "*.erl"),
    Out = filename:join(proplists:get_value(priv_dir, Config), "standins"),
    [{standins, standins:load(filelib:wildcard(Files), Out)} | Config];
init_per_group(_, Config) ->
    Config.

end_per_group(Group, Config) when Group =:= client; Group =:= served ->
    standins:unload(proplists:get_value(standins, Config));
end_per_group(_, _) ->
    ok.

init_per_testcase(_, Config) ->
    process_flag(trap_exit, true),
    Config.

%% ---- values

window_opens_and_shuts(_) ->
    W0 = erlmcp_native_window:new(10, 1000),
    ?assertEqual(none, erlmcp_native_window:room(W0)),
    {open, W1} = erlmcp_native_window:look(3, W0),
    ?assertEqual({7, 1000}, erlmcp_native_window:room(W1)),
    W2 = erlmcp_native_window:sent(7, 70, W1),
    ?assertEqual(none, erlmcp_native_window:room(W2)),
    {shut, _, W3} = erlmcp_native_window:look(10, W2),
    %% Once shut it opens at half.
    {shut, _, W4} = erlmcp_native_window:look(6, W3),
    {open, W5} = erlmcp_native_window:look(5, W4),
    ?assertMatch({5, _}, erlmcp_native_window:room(W5)).

window_counts_bytes(_) ->
    {open, W0} = erlmcp_native_window:look(0, erlmcp_native_window:new(1000, 1000)),
    W1 = erlmcp_native_window:sent(1, 600, W0),
    W2 = erlmcp_native_window:sent(1, 600, W1),
    ?assertEqual(none, erlmcp_native_window:room(W2)),
    {shut, _, W3} = erlmcp_native_window:look(2, W2),
    %% The first of the two has been read, the second not.
    {shut, _, W4} = erlmcp_native_window:look(1, W3),
    {open, W5} = erlmcp_native_window:look(0, W4),
    ?assertEqual({1000, 1000}, erlmcp_native_window:room(W5)),
    %% One message may be larger than everything that is allowed.
    {open, W6} = erlmcp_native_window:look(0, erlmcp_native_window:sent(1, 100000, W5)),
    ?assertEqual({1000, 1000}, erlmcp_native_window:room(W6)).

%% What others sent lies before what was sent, for ever.
window_believes_a_receiver_that_waits(_) ->
    {open, W0} = erlmcp_native_window:look(1, true, erlmcp_native_window:new(10, 1000)),
    Shut = lists:foldl(
        fun(_, W) ->
            {shut, _, Next} = erlmcp_native_window:look(1, true, W),
            Next
        end,
        erlmcp_native_window:sent(1, 5000, W0),
        lists:seq(1, 12)
    ),
    {shut, _, _} = erlmcp_native_window:look(1, false, Shut),
    {open, W1} = erlmcp_native_window:look(1, true, Shut),
    ?assertEqual({1, 1}, erlmcp_native_window:room(W1)),
    W2 = erlmcp_native_window:sent(1, 10, W1),
    ?assertEqual(none, erlmcp_native_window:room(W2)),
    {open, W3} = erlmcp_native_window:look(1, true, W2),
    ?assertEqual({9, 990}, erlmcp_native_window:room(W3)).

window_waits_longer(_) ->
    {open, W} = erlmcp_native_window:look(0, erlmcp_native_window:new(1, 1)),
    {Waits, _} = lists:mapfoldl(
        fun(_, Acc) ->
            {shut, Ms, Next} = erlmcp_native_window:look(5, Acc),
            {Ms, Next}
        end,
        erlmcp_native_window:sent(1, 1, W),
        lists:seq(1, 40)
    ),
    ?assertEqual([1, 2, 4, 8, 16, 20, 20], lists:sublist(Waits, 7)),
    ?assertEqual(20, lists:max(Waits)).

options_of_erlmcp(_) ->
    {ok, Options} = check(#{
        host => "127.0.0.1",
        port => 5000,
        owner => self(),
        server_id => s,
        connect_timeout => 100,
        keepalive => false,
        nodelay => false,
        buffer_size => 65536,
        max_reconnect_attempts => 3,
        transport_id => t,
        type => tcp,
        test_mode => true
    }),
    ?assertMatch(
        #{
            endpoint := #{host := {127, 0, 0, 1}, port := 5000},
            server_id := s,
            register := false,
            dial := #{
                reconnect := #{max_attempts := 3},
                connection := #{
                    connect_timeout_ms := 100,
                    keepalive := false,
                    nodelay := false,
                    high_water_bytes := 65536
                }
            }
        },
        Options
    ),
    {ok, #{dial := #{reconnect := false}}} = check(minimal(#{max_reconnect_attempts => 0})),
    {ok, #{dial := #{connection := #{tls := #{certfile := <<"c">>, keyfile := <<"k">>}}}}} =
        check(minimal(#{ssl => true, certfile => "c", keyfile => "k"})),
    {ok, #{dial := #{connection := #{tls := #{verify := peer}}}}} = check(minimal(#{ssl => true})),
    {ok, #{dial := #{connection := #{tls := false}}}} = check(minimal(#{ssl => false})),
    {ok, #{endpoint := #{path := <<"/run/x">>}}} = check(#{endpoint => #{path => "/run/x"}}),
    {ok, #{dial := #{connection := #{max_frame_bytes := 7}}}} =
        check(minimal(#{max_frame_bytes => 7})).

options_refused(_) ->
    [
        ?assertEqual({error, {invalid_config, Reason}}, check(Given))
     || {Given, Reason} <- [
            {#{}, {missing_required_fields, [host, port]}},
            {#{host => "h"}, {missing_required_fields, [port]}},
            {minimal(#{port => 0}), {option, port, 0}},
            {minimal(#{port => 65536}), {option, port, 65536}},
            {minimal(#{host => 7}), {option, host, 7}},
            {minimal(#{no_such => 1}), {option, no_such, 1}},
            {minimal(#{owner => me}), {option, owner, me}},
            {minimal(#{guard => both}), {option, guard, both}},
            {minimal(#{path => rust}), {option, path, rust}},
            {minimal(#{max_owner_queue => 0}), {option, max_owner_queue, 0}},
            {minimal(#{max_owner_bytes => -1}), {option, max_owner_bytes, -1}},
            {minimal(#{max_answer_bytes => 0}), {option, max_answer_bytes, 0}},
            {minimal(#{connect_timeout => 0}), {option, connect_timeout_ms, 0}},
            {minimal(#{max_reconnect_attempts => -1}), {option, max_reconnect_attempts, -1}},
            {minimal(#{reconnect => 7}), {option, reconnect, 7}},
            {minimal(#{reconnect => #{min_ms => 0}}), {option, {reconnect, min_ms}, 0}},
            {minimal(#{tls => 7}), {option, tls, 7}},
            {[], {option, options, []}}
        ]
    ],
    ?assertMatch({error, {invalid_config, _}}, ?OWNER:start_link(#{})),
    ?assertMatch({error, {invalid_config, _}}, ?ROUTED:start_link(t, #{})),
    receive
        Message -> error({unexpected, Message})
    after 0 -> ok
    end.

options_of_accepted(_) ->
    {ok, Listener} = erlmcp_native_options:listener(#{max_queue_bytes => 77}),
    {ok, Options} = erlmcp_native_transport_options:check_accepted(#{server_id => s}, Listener),
    ?assertMatch(#{dial := #{connection := #{max_queue_bytes := 77}}}, Options),
    ?assertNot(is_map_key(endpoint, Options)).

%% ---- owner messages

owner_is_told(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{owner => self()})),
    Peer = accept(Listen),
    ?assertEqual({transport_connected, T}, next()),
    ok = gen_tcp:send(Peer, <<"one\ntwo\nunfinished">>),
    ?assertEqual({transport_message, <<"one">>}, next()),
    ?assertEqual({transport_message, <<"two">>}, next()),
    ok = ?OWNER:send(T, [<<"th">>, "ree"]),
    ?assertEqual({ok, <<"three\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ok = gen_tcp:close(Peer),
    ?assertEqual({transport_disconnected, T, normal}, next()),
    Again = accept(Listen),
    ?assertEqual({transport_connected, T}, next()),
    ok = gen_tcp:send(Again, <<"four\n">>),
    ?assertEqual({transport_message, <<"four">>}, next()).

line_endings_and_empty_lines(Config) ->
    {_, Peer} = connected(Config, #{}),
    ok = gen_tcp:send(Peer, <<"one\r\n\n\r\ntwo\n">>),
    ?assertEqual({transport_message, <<"one">>}, next()),
    ?assertEqual({transport_message, <<"two">>}, next()).

first_sender_owns(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{})),
    Peer = accept(Listen),
    %% What arrives before there is an owner waits for it.
    ok = gen_tcp:send(Peer, <<"early\n">>),
    ok = ?OWNER:send(T, <<"mine">>),
    ?assertEqual({ok, <<"mine\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ?assertEqual({transport_message, <<"early">>}, next_message()),
    Test = self(),
    spawn_link(fun() -> Test ! {sent, ?OWNER:send(T, <<"theirs">>)} end),
    ?assertEqual({sent, ok}, next_message()),
    ok = gen_tcp:send(Peer, <<"late\n">>),
    ?assertEqual({transport_message, <<"late">>}, next_message()),
    ?assertMatch(#{owner := Test}, ?OWNER:get_info(T)).

send_waits_for_the_connection(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{})),
    Results = [?OWNER:send(T, integer_to_binary(N)) || N <- [1, 2]],
    ?assertEqual([ok, ok], Results),
    ?assertEqual({ok, <<"1\n2\n">>}, gen_tcp:recv(accept(Listen), 4, ?WAIT)).

send_gives_up_waiting(Config) ->
    {Listen, Port} = listen(),
    ok = gen_tcp:close(Listen),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{max_reconnect_attempts => 0})),
    ?assertEqual({error, refused}, ?OWNER:send(T, <<"m">>)),
    ?assertEqual({error, refused}, ?OWNER:send(T, <<"m">>)).

not_connected_any_more(Config) ->
    {T, Peer} = connected(Config, #{reconnect => false}),
    ok = gen_tcp:close(Peer),
    {transport_disconnected, T, normal} = next(),
    ?assertEqual({error, not_connected}, ?OWNER:send(T, <<"m">>)).

message_with_a_newline(Config) ->
    {T, Peer} = connected(Config, #{}),
    ?assertEqual({error, embedded_newline}, ?OWNER:send(T, <<"one\ntwo">>)),
    ok = ?OWNER:send(T, <<"three">>),
    ?assertEqual({ok, <<"three\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ?assertMatch(#{statistics := #{errors := 1, messages_sent := 1}}, ?OWNER:get_info(T)).

connect_timeout_is_kept(Config) ->
    Port = test_socket:black_hole(),
    Options = #{owner => self(), connect_timeout => 200, max_reconnect_attempts => 0},
    Start = erlang:monotonic_time(millisecond),
    {ok, T} = ?OWNER:start_link(options(Config, Port, Options)),
    ?assertEqual({transport_disconnected, T, {gave_up, timeout}}, next()),
    ?assert(erlang:monotonic_time(millisecond) - Start < 3000).

gives_up_and_says_so(Config) ->
    {Listen, Port} = listen(),
    ok = gen_tcp:close(Listen),
    Options = #{
        owner => self(),
        max_reconnect_attempts => 2,
        reconnect => #{min_ms => 1, max_ms => 10}
    },
    {ok, T} = ?OWNER:start_link(options(Config, Port, Options)),
    ?assertEqual({transport_disconnected, T, {gave_up, refused}}, next()),
    ?assertMatch(
        #{status := disconnected, statistics := #{failed_connects := 3}}, ?OWNER:get_info(T)
    ),
    {Listen1, Port1} = listen(),
    ok = ?OWNER:connect(T, #{port => Port1}),
    _ = accept(Listen1),
    ?assertEqual({transport_connected, T}, next()).

never_tries_again(Config) ->
    {T, Peer} = connected(Config, #{reconnect => false}),
    ok = gen_tcp:close(Peer),
    ?assertEqual({transport_disconnected, T, normal}, next()),
    ?assertMatch(#{status := disconnected}, ?OWNER:get_info(T)).

peer_that_stops_reading(Config) ->
    {T, Peer} = connected(Config, #{max_queue_bytes => 1000000}),
    Message = binary:copy(<<"x">>, 99999),
    {Micros, Sent} = timer:tc(fun() -> send_until_busy(T, Message, 0) end),
    %% Sockets take some megabytes, the queue one; nobody waited for the peer, nor for the port
    %% program to read.
    ?assert(Sent >= 9),
    ?assert(Micros < 5000000),
    ok = receive_bytes(Peer, Sent * 100000),
    ok = send_when_there_is_room(T, <<"again">>),
    ?assertEqual({ok, <<"again\n">>}, gen_tcp:recv(Peer, 6, ?WAIT)).

slow_owner(Config) ->
    {T, Peer} = connected(Config, #{}),
    Count = 30000,
    Padding = binary:copy(<<"p">>, 1000),
    Before = memory(),
    Sender = spawn_link(fun() ->
        [ok = gen_tcp:send(Peer, [number(N), Padding, $\n]) || N <- numbers(Count)]
    end),
    settled(T),
    Unread = unread(transport_message),
    ?assert(Unread =< 1000, Unread),
    ?assert(memory() - Before < 8 * 1024 * 1024),
    ?assert(is_process_alive(Sender)),
    [
        ?assertEqual({transport_message, <<(number(N))/binary, Padding/binary>>}, next_message())
     || N <- numbers(Count)
    ].

slow_owner_of_large_messages(Config) ->
    {T, Peer} = connected(Config, #{}),
    Large = binary:copy(<<"l">>, 1000000),
    Sender = spawn_link(fun() -> [ok = gen_tcp:send(Peer, [Large, $\n]) || _ <- numbers(50)] end),
    settled(T),
    Unread = unread(transport_message),
    ?assert(Unread =< 2, Unread),
    ?assert(is_process_alive(Sender)),
    [?assertEqual({transport_message, Large}, next_message()) || _ <- numbers(50)].

without_a_newline(Config) ->
    {T, Peer} = connected(Config, #{max_frame_bytes => 100000}),
    _ = gen_tcp:send(Peer, binary:copy(<<"x">>, 300000)),
    ?assertEqual({transport_disconnected, T, frame_too_large}, next()).

%% Splitting anew with every chunk takes 16 times as long for a byte of a line 16 times as long.
a_long_line_takes_its_time_only(Config) ->
    {_, Peer} = connected(Config, #{max_frame_bytes => 1 bsl 26}),
    Time = fun(Bytes) ->
        Line = [binary:copy(<<"x">>, Bytes), $\n],
        {Micros, _} = timer:tc(fun() ->
            spawn_link(fun() -> ok = gen_tcp:send(Peer, Line) end),
            {transport_message, Message} = next_message(),
            Bytes = byte_size(Message)
        end),
        Micros / Bytes
    end,
    Short = lists:min([Time(1 bsl 20) || _ <- [1, 2, 3]]),
    Long = lists:min([Time(1 bsl 24) || _ <- [1, 2, 3]]),
    ?assert(Long < 6 * Short).

owner_dies(Config) ->
    {Listen, Port} = listen(),
    Owner = spawn(fun() -> receive stop -> exit(enough) end end),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{owner => Owner})),
    Peer = accept(Listen),
    Owner ! stop,
    ?assertEqual({'EXIT', T, {owner_died, enough}}, next()),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

owner_was_dead(Config) ->
    Owner = spawn(fun() -> ok end),
    Monitor = monitor(process, Owner),
    receive
        {'DOWN', Monitor, _, _, _} -> ok
    end,
    {_, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{owner => Owner})),
    ?assertEqual({'EXIT', T, {owner_died, noproc}}, next()).

connects_elsewhere(Config) ->
    {T, Peer} = connected(Config, #{}),
    {Listen, Port} = listen(),
    ok = ?OWNER:connect(T, #{port => Port}),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    Other = accept(Listen),
    %% It was asked for: nobody is told of a loss.
    ?assertEqual({transport_connected, T}, next()),
    ok = ?OWNER:send(T, <<"here">>),
    ?assertEqual({ok, <<"here\n">>}, gen_tcp:recv(Other, 0, ?WAIT)),
    ?assertMatch({error, {invalid_config, _}}, ?OWNER:connect(T, #{no_such => 1})),
    ?assertMatch({error, {invalid_config, _}}, ?OWNER:connect(T, nonsense)).

closes(Config) ->
    {T, Peer} = connected(Config, #{}),
    ok = ?OWNER:send(T, <<"last">>),
    ok = ?OWNER:close(T),
    ?assertEqual({'EXIT', T, normal}, exit_of(T)),
    ok = ?OWNER:close(T),
    ?assertEqual({error, not_connected}, ?OWNER:send(T, <<"more">>)),
    ?assertEqual({ok, <<"last\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    {T1, Peer1} = connected(Config, #{}),
    ok = gen_server:stop(T1),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer1, 0, ?WAIT)).

tells_about_itself(Config) ->
    {T, Peer} = connected(Config, #{}),
    ok = gen_tcp:send(Peer, <<"in\n">>),
    {transport_message, <<"in">>} = next(),
    ok = ?OWNER:send(T, <<"out">>),
    {ok, {_, Port}} = inet:sockname(Peer),
    Info = ?OWNER:get_info(T),
    ?assertMatch(
        #{
            transport_id := T,
            type := tcp,
            status := connected,
            config := #{port := Port},
            connection := #{connected := true, port := Port, reconnect_attempts := 0},
            guard := false,
            statistics := #{
                messages_sent := 1,
                messages_received := 1,
                bytes_sent := 3,
                bytes_received := 2,
                errors := 0,
                connection_time := _,
                last_message_time := _,
                reconnect_count := 0
            }
        },
        Info
    ),
    {ok, State} = gen_server:call(T, get_state),
    Keys = [
        socket,
        owner,
        host,
        port,
        options,
        buffer,
        connected,
        reconnect_timer,
        reconnect_attempts,
        max_reconnect_attempts
    ],
    ?assertEqual([], Keys -- maps:keys(State)),
    ?assertMatch(#{owner := Owner, connected := true} when Owner =:= self(), State),
    ?assertEqual({ok, healthy}, gen_server:call(T, {health_check})),
    ?assertEqual({ok, connected}, gen_server:call(T, {connection_status})),
    ?assertEqual({ok, running}, gen_server:call(T, {server_status})),
    ?assertEqual(Info, gen_server:call(T, {transport_call, get_info})).

ends_when_told_to(Config) ->
    {T, Peer} = connected(Config, #{}),
    spawn(fun() -> exit(T, shutdown) end),
    ?assertEqual({'EXIT', T, shutdown}, exit_of(T)),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

refuses_what_it_does_not_know(Config) ->
    {T, Peer} = connected(Config, #{}),
    ?assertEqual({error, unknown_request}, gen_server:call(T, nonsense)),
    ?assertEqual({error, unknown_request}, gen_server:call(T, {transport_call, nonsense})),
    gen_server:cast(T, nonsense),
    T ! nonsense,
    ok = gen_tcp:send(Peer, <<"still\n">>),
    ?assertEqual({transport_message, <<"still">>}, next()).

%% ---- erlmcp's client

client_by_pid(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{})),
    {ok, C} = erlmcp_client:start_link({tcp, T}, #{}),
    Call = call(C, <<"initialize">>),
    Peer = accept(Listen),
    ?assertMatch(#{<<"id">> := 1, <<"method">> := <<"initialize">>}, read(Peer)),
    write(Peer, #{<<"id">> => 1, <<"result">> => #{<<"capabilities">> => #{}}}),
    ?assertMatch({ok, #{<<"capabilities">> := #{}}}, result(Call)),
    ?assertMatch(#{guard := #{receiver := client}, owner := C}, ?OWNER:get_info(T)),
    ok = erlmcp_client:stop(C),
    ?assertEqual({'EXIT', T, normal}, exit_of(T)).

client_survives_its_server(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{})),
    {ok, C} = erlmcp_client:start_link({tcp, T}, #{}),
    Call = call(C, <<"initialize">>),
    Peer = accept(Listen),
    #{<<"id">> := 1} = read(Peer),
    write(Peer, #{<<"id">> => 7, <<"method">> => <<"ping">>}),
    ?assertMatch(#{<<"id">> := 7, <<"result">> := #{}}, read(Peer)),
    write(Peer, #{<<"id">> => 8, <<"method">> => <<"sampling/createMessage">>}),
    ?assertMatch(#{<<"id">> := 8, <<"error">> := #{<<"code">> := -32601}}, read(Peer)),
    ok = gen_tcp:send(Peer, <<"nonsense\n">>),
    ?assertMatch(#{<<"error">> := #{<<"code">> := -32700}}, read(Peer)),
    write(Peer, #{<<"method">> => <<"resources/updated">>}),
    write(Peer, #{<<"id">> => 1, <<"result">> => #{<<"capabilities">> => 7}}),
    ?assertMatch({error, #{<<"code">> := -32603}}, result(Call)),
    ?assertMatch(
        #{guard := #{counters := #{notifications_dropped := 1, invalid_results := 1}}},
        ?OWNER:get_info(T)
    ),
    ?assert(is_process_alive(C)).

client_hears_of_a_lost_connection(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, #{})),
    {ok, C} = erlmcp_client:start_link({tcp, T}, #{}),
    Call = call(C, <<"tools/list">>),
    Peer = accept(Listen),
    #{<<"id">> := 1} = read(Peer),
    ok = gen_tcp:close(Peer),
    ?assertMatch({error, #{<<"code">> := -32000}}, result(Call)),
    Again = call(C, <<"tools/list">>),
    Peer1 = accept(Listen),
    case result_now(Again) of
        {error, not_connected} -> ok;
        none -> #{<<"id">> := 2} = read(Peer1)
    end,
    ?assert(is_process_alive(C)).

client_under_a_supervisor(Config) ->
    {Listen, Port} = listen(),
    Options = #{
        id => mine,
        name => {local, ?MODULE},
        transport => maps:remove(owner, options(Config, Port, #{}))
    },
    {ok, Top} = supervisor:start_link(?MODULE, [erlmcp_native_client:child_spec(Options)]),
    Peer = accept(Listen),
    {ok, C} = erlmcp_native_client:client(?MODULE),
    {ok, T} = erlmcp_native_client:transport(?MODULE),
    Call = call(C, <<"tools/list">>),
    #{<<"id">> := 1} = read(Peer),
    write(Peer, #{<<"id">> => 1, <<"result">> => #{}}),
    ?assertEqual({ok, #{}}, result(Call)),
    %% The death of either is that of both, and both come back.
    [
        begin
            {ok, C0} = erlmcp_native_client:client(?MODULE),
            {ok, T0} = erlmcp_native_client:transport(?MODULE),
            Monitors = [monitor(process, Pid) || Pid <- [C0, T0]],
            exit(Victim(C0, T0), kill),
            [
                receive
                    {'DOWN', Monitor, _, _, _} -> ok
                end
             || Monitor <- Monitors
            ],
            Next = accept(Listen),
            {ok, C1} = erlmcp_native_client:client(?MODULE),
            Again = call(C1, <<"tools/list">>),
            #{<<"id">> := 1} = read(Next),
            write(Next, #{<<"id">> => 1, <<"result">> => #{}}),
            ?assertEqual({ok, #{}}, result(Again))
        end
     || Victim <- [fun(C0, _) -> C0 end, fun(_, T0) -> T0 end]
    ],
    ?assertNot(is_process_alive(C)),
    ?assertNot(is_process_alive(T)),
    true = exit(Top, shutdown),
    ?assertEqual({'EXIT', Top, shutdown}, exit_of(Top)),
    ?assertExit({noproc, _}, erlmcp_native_client:client(?MODULE)).

no_guard_for_others(Config) ->
    {_, Peer} = connected(Config, #{}),
    Request = <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}">>,
    ok = gen_tcp:send(Peer, [Request, "\nnonsense\n"]),
    ?assertEqual({transport_message, Request}, next()),
    ?assertEqual({transport_message, <<"nonsense">>}, next()).

%% ---- registry routing, with this application's registry

registers_and_routes(Config) ->
    {Listen, Port} = listen(),
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, #{server_id => s})),
    Peer = accept(Listen),
    ?assertMatch(
        {ok, {T, #{type := tcp, server_id := s}}}, erlmcp_native_registry:find_transport(t)
    ),
    ok = gen_tcp:send(Peer, <<"question\n">>),
    ?assertEqual({mcp_message, t, <<"question">>}, next()),
    ok = erlmcp_native_registry:route_to_transport(t, s, <<"answer">>),
    ?assertEqual({ok, <<"answer\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ok = erlmcp_native_registry:route_to_transport(broadcast, s, <<"change">>),
    ?assertEqual({ok, <<"change\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ?assertMatch(#{transport_id := t, guard := false}, ?ROUTED:get_info(T)),
    ok = ?ROUTED:close(T),
    ?assertEqual({error, not_found}, erlmcp_native_registry:find_transport(t)),
    ok = erlmcp_native_registry:unregister_server(s).

%% With no guard: where this application's registry routes there is none.
answered_where_there_is_no_server(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, #{server_id => gone})),
    Peer = accept(Listen),
    ok = gen_tcp:send(Peer, <<"nonsense\n">>),
    write(Peer, #{<<"method">> => <<"notifications/x">>}),
    ask(Peer, 1, #{}),
    Unavailable = #{<<"code">> => -32603, <<"message">> => <<"The server is not available">>},
    ?assertMatch(#{<<"id">> := 1, <<"error">> := Unavailable}, read(Peer)),
    Batch = [<<"{\"jsonrpc\":\"2.0\",\"method\":\"m\"", Id/binary, "}">> ||
        Id <- [<<",\"id\":2">>, <<>>, <<",\"id\":\"c\"">>]],
    ok = gen_tcp:send(Peer, [$[, lists:join($,, Batch), "]\n"]),
    ?assertMatch(
        [#{<<"id">> := 2, <<"error">> := _}, #{<<"id">> := <<"c">>, <<"error">> := _}], read(Peer)
    ),
    ok = ?ROUTED:close(T),
    %% The same for one that is bound to no server.
    {ok, Unbound} = ?ROUTED:start_link(t, options(Config, Port, #{})),
    Next = accept(Listen),
    ask(Next, 3, #{}),
    ?assertMatch(#{<<"id">> := 3, <<"error">> := Unavailable}, read(Next)),
    ok = ?ROUTED:close(Unbound).

a_broadcast_comes_once(Config) ->
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, L} = listening(Config, #{server_id => s}),
    #{connection := #{port := Port}} = erlmcp_transport_tcp_new:get_info(L),
    Peers = [connect(Port) || _ <- [a, b]],
    [ok = gen_tcp:send(Peer, <<"here\n">>) || Peer <- Peers],
    [{mcp_message, _, <<"here">>} = next_message() || _ <- Peers],
    ok = erlmcp_native_registry:route_to_transport(broadcast, s, <<"change">>),
    ok = erlmcp_native_registry:route_to_transport(in, s, <<"end">>),
    Together = <<"change\nend\n">>,
    [
        ?assertEqual({ok, Together}, gen_tcp:recv(Peer, byte_size(Together), ?WAIT))
     || Peer <- Peers
    ],
    ok = erlmcp_transport_tcp_new:close(L),
    ok = erlmcp_native_registry:unregister_server(s).

%% The child gives back what it gets.
a_broadcast_to_a_child(Config) ->
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, T} = ?ROUTED:start_link(t, #{
        command => "cat", server_id => s, path => proplists:get_value(path, Config)
    }),
    connected = status(T),
    ok = erlmcp_native_registry:route_to_transport(broadcast, s, <<"change">>),
    ?assertEqual({mcp_message, t, <<"change">>}, next_message()),
    ok = ?ROUTED:close(T),
    ok = erlmcp_native_registry:unregister_server(s).

name_is_taken(Config) ->
    {_, Port} = listen(),
    ok = erlmcp_native_registry:register_transport(t, self(), #{}),
    ?assertEqual(
        {error, {registry_registration_failed, already_registered}},
        ?ROUTED:start_link(t, options(Config, Port, #{}))
    ),
    ok = erlmcp_native_registry:unregister_transport(t).

not_registered_in_test_mode(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, #{test_mode => true})),
    _ = accept(Listen),
    ?assertEqual({error, not_found}, erlmcp_native_registry:find_transport(t)),
    ok = ?ROUTED:close(T).

bound_in_the_registry(Config) ->
    {Listen, Port} = listen(),
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, #{})),
    Peer = accept(Listen),
    ok = erlmcp_native_registry:bind_transport_to_server(t, s),
    ok = gen_tcp:send(Peer, <<"question\n">>),
    ?assertEqual({mcp_message, t, <<"question">>}, next()),
    ok = erlmcp_native_registry:route_to_transport(t, s, <<"answer">>),
    ?assertEqual({ok, <<"answer\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ok = ?ROUTED:close(T),
    ok = erlmcp_native_registry:unregister_server(s).

answer_of_another_server(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, #{server_id => s})),
    Peer = accept(Listen),
    connected = status(T),
    ok = erlmcp_native_registry:route_to_transport(t, other, <<"wrong">>),
    ok = erlmcp_native_registry:route_to_transport(t, s, <<"right">>),
    ?assertEqual({ok, <<"right\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ok = ?ROUTED:close(T).

%% 100 MB: a kernel with large buffers takes over 30 of them before the sender has to wait.
slow_server(Config) ->
    {T, Peer} = routed_here(Config, #{}),
    Count = 100000,
    Padding = binary:copy(<<"p">>, 1000),
    Sender = spawn_link(fun() ->
        [ok = gen_tcp:send(Peer, [number(N), Padding, $\n]) || N <- numbers(Count)]
    end),
    settled(T),
    Unread = unread(mcp_message),
    ?assert(Unread =< 1000, Unread),
    ?assert(is_process_alive(Sender)),
    [
        ?assertEqual({mcp_message, t, <<(number(N))/binary, Padding/binary>>}, next_message())
     || N <- numbers(Count)
    ],
    ended(T).

%% Answers have no caller to hear of a full queue: they wait, and with them new questions.
peer_that_does_not_read_answers(Config) ->
    {T, Peer} = routed_here(Config, #{max_queue_bytes => 200000}),
    Count = 200,
    Padding = binary:copy(<<"a">>, 99991),
    ok = gen_tcp:send(Peer, [[number(N), $\n] || N <- numbers(Count)]),
    [
        begin
            {mcp_message, t, Number} = next_message(),
            ok = erlmcp_native_registry:route_to_transport(t, s, [Number, Padding])
        end
     || _ <- numbers(Count)
    ],
    settled(T),
    ok = gen_tcp:send(Peer, <<"one more\n">>),
    settled(T),
    ?assertEqual(0, unread(mcp_message)),
    [
        ?assertEqual(
            {ok, <<(number(N))/binary, Padding/binary, $\n>>}, gen_tcp:recv(Peer, 100000, ?WAIT)
        )
     || N <- numbers(Count)
    ],
    ?assertEqual({mcp_message, t, <<"one more">>}, next_message()),
    ?assertMatch(#{statistics := #{errors := 0}}, ?ROUTED:get_info(T)),
    ended(T).

%% An answer that was lost would be waited for: the peer hears of it by the connection's end.
peer_that_never_reads_answers(Config) ->
    {Listen, Port} = listen(),
    Limits = #{server_id => s, max_queue_bytes => 200000, max_answer_bytes => 1000000},
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, Limits#{linger_ms => 0})),
    Peer = accept(Listen),
    ok = gen_tcp:send(Peer, <<"question\n">>),
    {mcp_message, t, <<"question">>} = next_message(),
    Answer = binary:copy(<<"a">>, 99999),
    [ok = erlmcp_native_registry:route_to_transport(t, s, Answer) || _ <- numbers(500)],
    Next = accept(Listen),
    ok = gen_tcp:send(Next, <<"again\n">>),
    ?assertEqual({mcp_message, t, <<"again">>}, next_message()),
    ended(T).

%% Nothing is taken while answers wait, and yet the end is found.
peer_that_ends_with_answers_unread(Config) ->
    {Listen, Port} = listen(),
    Limits = #{server_id => s, max_queue_bytes => 200000, linger_ms => 0},
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, Limits)),
    Answer = binary:copy(<<"a">>, 99999),
    Round = fun(_, Peer) ->
        ok = gen_tcp:send(Peer, <<"question\n">>),
        until_message({mcp_message, t, <<"question">>}),
        [ok = erlmcp_native_registry:route_to_transport(t, s, Answer) || _ <- numbers(150)],
        settled(T),
        ok = gen_tcp:send(Peer, <<"unread\nunread\n">>),
        settled(T),
        ok = inet:setopts(Peer, [{linger, {true, 0}}]),
        ok = gen_tcp:close(Peer),
        accept(Listen)
    end,
    Last = lists:foldl(Round, accept(Listen), [1, 2]),
    ok = gen_tcp:send(Last, <<"again\n">>),
    until_message({mcp_message, t, <<"again">>}),
    ended(T).

%% What was read before an end may be delivered after it.
until_message(Message) ->
    case next_message() of
        Message -> ok;
        {mcp_message, t, <<"unread">>} -> until_message(Message)
    end.

answer_over_the_limit(Config) ->
    {T, Peer} = routed_here(Config, #{guard => server, max_frame_bytes => 1000}),
    ask(Peer, 1, #{}),
    {mcp_message, t, _} = next(),
    Big = #{<<"text">> => binary:copy(<<"x">>, 1000)},
    reply(T, 1, Big),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32603}}, read(Peer)),
    ask(Peer, 2, #{}),
    {mcp_message, t, _} = next(),
    reply(T, 2, 2),
    ?assertMatch(#{<<"id">> := 2, <<"result">> := 2}, read(Peer)),
    %% Nor does what would replace it fit here.
    Id = binary:copy(<<"i">>, 1000),
    reply(T, Id, Big),
    ?assertMatch(
        #{guard := #{counters := #{answers_unsendable := 3}}, statistics := #{errors := 3}},
        ?ROUTED:get_info(T)
    ),
    ended(T).

listens(Config) ->
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, L} = listening(Config, #{server_id => s}),
    #{status := listening, connection := #{port := Port}} = erlmcp_transport_tcp_new:get_info(L),
    [A, B] = [connect(Port) || _ <- [a, b]],
    ok = gen_tcp:send(A, <<"from a\n">>),
    {mcp_message, IdA, <<"from a">>} = next_message(),
    ok = gen_tcp:send(B, <<"from b\n">>),
    {mcp_message, IdB, <<"from b">>} = next_message(),
    ?assertEqual([<<"in:1">>, <<"in:2">>], lists:sort([IdA, IdB])),
    ok = erlmcp_native_registry:route_to_transport(IdB, s, <<"to b">>),
    ok = erlmcp_native_registry:route_to_transport(IdA, s, <<"to a">>),
    ?assertEqual({ok, <<"to a\n">>}, gen_tcp:recv(A, 0, ?WAIT)),
    ?assertEqual({ok, <<"to b\n">>}, gen_tcp:recv(B, 0, ?WAIT)),
    ok = erlmcp_native_registry:route_to_transport(in, s, <<"to all">>),
    [?assertEqual({ok, <<"to all\n">>}, gen_tcp:recv(Peer, 0, ?WAIT)) || Peer <- [A, B]],
    %% A client that leaves is forgotten.
    {ok, {Pid, _}} = erlmcp_native_registry:find_transport(IdA),
    Monitor = monitor(process, Pid),
    ok = gen_tcp:close(A),
    receive
        {'DOWN', Monitor, _, _, normal} -> ok
    end,
    ?assertEqual({error, not_found}, erlmcp_native_registry:find_transport(IdA)),
    until_open(L, 1),
    ?assertMatch(#{connection := #{accepted := 2}}, erlmcp_transport_tcp_new:get_info(L)),
    ok = erlmcp_transport_tcp_new:close(L),
    ok = erlmcp_native_registry:unregister_server(s).

listener_ends_with_its_connections(Config) ->
    {ok, L} = listening(Config, #{}),
    #{connection := #{port := Port}} = erlmcp_transport_tcp_new:get_info(L),
    Peer = connect(Port),
    ok = erlmcp_transport_tcp_new:close(L),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ?assertEqual({error, not_found}, erlmcp_native_registry:find_transport(in)),
    %% The port is free as soon as it has ended: a supervisor starts it again at once.
    {ok, Again} = listening(Config, #{port => Port}),
    exit(Again, kill),
    ?assertEqual({'EXIT', Again, killed}, exit_of(Again)).

listener_skips_names_that_are_taken(Config) ->
    ok = erlmcp_native_registry:register_transport(<<"in:1">>, self(), #{}),
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, L} = listening(Config, #{server_id => s}),
    #{connection := #{port := Port}} = erlmcp_transport_tcp_new:get_info(L),
    ok = gen_tcp:send(connect(Port), <<"hello\n">>),
    ?assertEqual({mcp_message, <<"in:2">>, <<"hello">>}, next_message()),
    ?assertMatch(#{connection := #{accepted := 1}}, erlmcp_transport_tcp_new:get_info(L)),
    ok = erlmcp_transport_tcp_new:close(L),
    ok = erlmcp_native_registry:unregister_transport(<<"in:1">>),
    ok = erlmcp_native_registry:unregister_server(s).

listener_options_refused(Config) ->
    [
        ?assertEqual({error, {invalid_config, Reason}}, listening(Config, Given))
     || {Given, Reason} <- [
            {#{no_such => 1}, {option, no_such, 1}},
            {#{guard => both}, {option, guard, both}},
            {#{port => -1}, {option, port, -1}},
            {#{backlog => 0}, {option, backlog, 0}}
        ]
    ],
    {_, Port} = listen(),
    ?assertEqual({error, address_in_use}, listening(Config, #{port => Port})),
    ?assertEqual({error, not_found}, erlmcp_native_registry:find_transport(in)).

listener_of_an_application_that_is_stopped(Config) ->
    {ok, L} = listening(Config, #{}),
    ok = application:stop(erlmcp_native),
    ?assertMatch({'EXIT', L, {listener_down, _}}, exit_of(L)),
    ?assertEqual({error, not_running}, listening(Config, #{})),
    ok = application:start(erlmcp_native),
    {ok, _} = erlmcp_native_path:use(proplists:get_value(path, Config)),
    {ok, Again} = listening(Config, #{}),
    ok = erlmcp_transport_tcp_new:close(Again).

%% ---- registry routing, with what stands in for erlmcp's registry and server

started_by_erlmcps_supervisor(Config) ->
    {Registry, _} = served(),
    {ok, Sup} = erlmcp_transport_sup:start_link(),
    {Listen, Port} = listen(),
    {ok, T} = erlmcp_transport_sup:start_child(t, tcp, options(Config, Port, #{server_id => s})),
    Peer = accept(Listen),
    ?assertMatch({ok, {T, _}}, erlmcp_registry:find_transport(t)),
    ask(Peer, 1, #{<<"text">> => <<"hello">>}),
    ?assertMatch(#{<<"id">> := 1, <<"result">> := #{<<"text">> := <<"hello">>}}, read(Peer)),
    ok = erlmcp_transport_tcp_new:close(T),
    stop([Sup, Registry]).

server_survives_its_clients(Config) ->
    {Registry, Server} = served(),
    {T, Peer} = routed(Config),
    Bad = [
        {<<"nonsense">>, -32700},
        {<<"[]">>, -32600},
        {<<"{}">>, -32600},
        {<<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}">>, -32602},
        {<<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":[]}">>, -32602},
        {<<"{\"jsonrpc\":\"2.0\",\"id\":1.5,\"method\":\"tools/list\"}">>, -32600}
    ],
    [
        begin
            ok = gen_tcp:send(Peer, [Message, $\n]),
            ?assertMatch(#{<<"error">> := #{<<"code">> := Code}}, read(Peer))
        end
     || {Message, Code} <- Bad
    ],
    write(Peer, #{<<"id">> => 1, <<"result">> => #{}}),
    ask(Peer, 2, #{}),
    ?assertMatch(#{<<"id">> := 2}, read(Peer)),
    Batch = [<<"{\"jsonrpc\":\"2.0\",\"id\":", (integer_to_binary(Id))/binary,
        ",\"method\":\"tools/list\"}">> || Id <- [3, 4]],
    ok = gen_tcp:send(Peer, [$[, lists:join($,, Batch), "]\n"]),
    ?assertMatch([#{<<"id">> := 3}, #{<<"id">> := 4}], read(Peer)),
    write(Peer, #{<<"id">> => 5, <<"method">> => <<"initialize">>, <<"params">> => #{}}),
    ?assertMatch(#{<<"id">> := 5}, read(Peer)),
    ok = gen_tcp:send(Peer, [$[, lists:join($,, Batch), "]\n"]),
    ?assertMatch(#{<<"id">> := null, <<"error">> := #{<<"code">> := -32600}}, read(Peer)),
    ?assert(is_process_alive(Server)),
    ?assertMatch(
        #{guard := #{revision := <<"2025-06-18">>, counters := #{responses_dropped := 1}}},
        ?ROUTED:get_info(T)
    ),
    ok = ?ROUTED:close(T),
    stop([Registry, Server]).

server_that_dies_is_answered_for(Config) ->
    {Registry, Server} = served(),
    {T, Peer} = routed(Config),
    ask(Peer, 1, #{}),
    #{<<"id">> := 1} = read(Peer),
    ok = sys:suspend(Server),
    ask(Peer, 2, #{}),
    ask(Peer, 3, #{}),
    settled(T),
    exit(Server, kill),
    Answers = [read(Peer), read(Peer)],
    ?assertEqual(
        [{2, -32603}, {3, -32603}],
        lists:sort([{Id, C} || #{<<"id">> := Id, <<"error">> := #{<<"code">> := C}} <- Answers])
    ),
    %% The next server of that name is found.
    {ok, Next} = erlmcp_server:start_link(s),
    ok = erlmcp_registry:register_server(s, Next, #{}),
    ask(Peer, 4, #{<<"text">> => <<"new">>}),
    ?assertMatch(#{<<"id">> := 4, <<"result">> := #{<<"text">> := <<"new">>}}, read(Peer)),
    ok = ?ROUTED:close(T),
    stop([Registry, Next]).

server_that_is_not_there_is_answered_for(Config) ->
    {ok, Registry} = erlmcp_registry:start_link(),
    {T, Peer} = routed(Config),
    ask(Peer, 1, #{}),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32603}}, read(Peer)),
    {ok, Server} = erlmcp_server:start_link(s),
    ok = erlmcp_registry:register_server(s, Server, #{}),
    ask(Peer, 2, #{}),
    ?assertMatch(#{<<"id">> := 2, <<"result">> := #{}}, read(Peer)),
    ok = ?ROUTED:close(T),
    stop([Registry, Server]).

registry_that_is_restarted(Config) ->
    {Registry, Server} = served(),
    {T, Peer} = routed(Config),
    stop([Registry]),
    {ok, Next} = erlmcp_registry:start_link(),
    ok = erlmcp_registry:register_server(s, Server, #{}),
    1 = erlang:trace(Next, true, ['receive']),
    receive
        {trace, Next, 'receive', {'$gen_call', _, {register, {transport, t}, T, _}}} -> ok
    after ?WAIT -> error(timeout)
    end,
    1 = erlang:trace(Next, false, ['receive']),
    ask(Peer, 1, #{}),
    ?assertMatch(#{<<"id">> := 1, <<"result">> := #{}}, read(Peer)),
    ok = ?ROUTED:close(T),
    stop([Next, Server]).

same_ids_of_two_clients(Config) ->
    {Registry, Server} = served(),
    {ok, L} = listening(Config, #{server_id => s}),
    #{connection := #{port := Port}} = erlmcp_transport_tcp_new:get_info(L),
    Peers = [{N, connect(Port)} || N <- numbers(20)],
    [ask(Peer, Id, #{<<"n">> => N, <<"id">> => Id}) || Id <- numbers(10), {N, Peer} <- Peers],
    [
        ?assertMatch(
            #{<<"id">> := Id, <<"result">> := #{<<"n">> := N, <<"id">> := Id}}, read(Peer)
        )
     || Id <- numbers(10), {N, Peer} <- Peers
    ],
    ok = erlmcp_transport_tcp_new:close(L),
    stop([Registry, Server]).

%% ---- as a supervisor

init(Children) -> {ok, {#{}, Children}}.

%% ----

check(Given) -> erlmcp_native_transport_options:check(Given).

minimal(More) -> maps:merge(#{host => "127.0.0.1", port => 5000}, More).

numbers(Count) -> lists:seq(1, Count).

%% Eight bytes that are no newline.
number(N) -> integer_to_binary(10000000 + N).

options(Config, Port, More) ->
    Path = proplists:get_value(path, Config),
    maps:merge(#{host => "127.0.0.1", port => Port, path => Path}, More).

connect(Port) ->
    {ok, Peer} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}, {nodelay, true}]),
    Peer.

connected(Config, More) ->
    {Listen, Port} = listen(),
    {ok, T} = ?OWNER:start_link(options(Config, Port, More#{owner => self()})),
    Peer = accept(Listen),
    {transport_connected, T} = next(),
    {T, Peer}.

routed(Config) ->
    {Listen, Port} = listen(),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, #{server_id => s})),
    {T, accept(Listen)}.

%% A call that is held until the connection stands.
status(T) ->
    _ = ?ROUTED:send(T, <<>>),
    maps:get(status, ?ROUTED:get_info(T)).

%% This process is the server.
routed_here(Config, More) ->
    {Listen, Port} = listen(),
    ok = erlmcp_native_registry:register_server(s, self(), #{}),
    {ok, T} = ?ROUTED:start_link(t, options(Config, Port, More#{server_id => s})),
    {T, accept(Listen)}.

reply(T, Id, Result) ->
    Answer = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => Result},
    T ! {mcp_response, s, erlmcp_native_json:encode(Answer)}.

ended(T) ->
    ok = ?ROUTED:close(T),
    ok = erlmcp_native_registry:unregister_server(s).

listening(Config, More) ->
    Path = proplists:get_value(path, Config),
    Options = maps:merge(#{mode => server, port => 0, path => Path}, More),
    erlmcp_transport_tcp_new:start_link(in, Options).

served() ->
    {ok, Registry} = erlmcp_registry:start_link(),
    {ok, Server} = erlmcp_server:start_link(s),
    ok = erlmcp_registry:register_server(s, Server, #{}),
    {Registry, Server}.

stop(Pids) ->
    [
        begin
            exit(Pid, shutdown),
            _ = exit_of(Pid)
        end
     || Pid <- Pids
    ],
    ok.

exit_of(Pid) ->
    receive
        {'EXIT', Pid, _} = Exit -> Exit
    after ?WAIT -> error(timeout)
    end.

next() ->
    receive
        {'EXIT', _, normal} -> next();
        Message -> Message
    after ?WAIT -> error(timeout)
    end.

%% The next that is no news of a connection.
next_message() ->
    case next() of
        {transport_connected, _} -> next_message();
        Message -> Message
    end.

%% The supervisor of a listener's connections may hear of an end after the test has.
until_open(Listener, Count) ->
    case erlmcp_transport_tcp_new:get_info(Listener) of
        #{connection := #{connections := Count}} ->
            ok;
        #{connection := #{connections := More}} when More > Count ->
            receive
            after 5 -> until_open(Listener, Count)
            end
    end.

%% Waits until the transport has done all it can: two looks at what it has taken agree.
settled(T) -> settled(T, none).

settled(T, Before) ->
    #{statistics := #{messages_received := Count}} = gen_server:call(T, get_info),
    case Count of
        Before ->
            ok;
        _ ->
            receive
            after 300 -> settled(T, Count)
            end
    end.

%% A port that was closed may still tell of its end, which no transport has sent.
unread(Tag) ->
    {messages, Messages} = process_info(self(), messages),
    length([Message || Message <- Messages, element(1, Message) =:= Tag]).

memory() ->
    _ = [garbage_collect(Pid) || Pid <- processes()],
    erlang:memory(total).

send_until_busy(T, Message, Count) ->
    case ?OWNER:send(T, Message) of
        ok -> send_until_busy(T, Message, Count + 1);
        {error, busy} -> Count
    end.

send_when_there_is_room(T, Message) ->
    case ?OWNER:send(T, Message) of
        {error, busy} -> receive after 5 -> send_when_there_is_room(T, Message) end;
        Result -> Result
    end.

receive_bytes(_, 0) ->
    ok;
receive_bytes(Peer, Count) ->
    {ok, Bytes} = gen_tcp:recv(Peer, min(Count, 100000), ?WAIT),
    receive_bytes(Peer, Count - byte_size(Bytes)).

call(Client, Method) ->
    Test = self(),
    Ref = make_ref(),
    spawn_link(fun() -> Test ! {Ref, erlmcp_client:request(Client, Method, #{})} end),
    Ref.

result(Ref) ->
    receive
        {Ref, Result} -> Result
    after ?WAIT -> error(timeout)
    end.

result_now(Ref) ->
    receive
        {Ref, Result} -> Result
    after 300 -> none
    end.

ask(Peer, Id, Arguments) ->
    write(Peer, #{
        <<"id">> => Id,
        <<"method">> => <<"tools/call">>,
        <<"params">> => #{<<"name">> => <<"t">>, <<"arguments">> => Arguments}
    }).
