%% What only the native library can get wrong: its terms, its loading, what it leaves behind.
-module(nif_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_socket, [accept/1]).

-define(WAIT, 10000).

all() ->
    [
        garbage_arguments,
        arguments_of_other_resources,
        reload_is_refused,
        purge_leaves_connections_alone,
        collected_connection_closes,
        collected_listener_closes,
        collected_http_client_closes,
        only_the_owner_gives,
        given_to_the_dead,
        frames_outlive_their_connection,
        nothing_is_left,
        log_reaches_logger,
        workers
    ].

init_per_suite(Config) ->
    Started = test_config:start([erlmcp_native], Config),
    loaded = erlmcp_native_nif:status(),
    Started.

end_per_suite(Config) -> test_config:stop(Config).

%% Every exported function with terms of every kind in each place, the other places lawful, for
%% the first argument that is none hides those behind it: `badarg', an error term or a lawful
%% result, and the node lives.
garbage_arguments(_) ->
    Lawful = lawful(),
    Exports = [
        {F, A}
     || {F, A} <- erlmcp_native_nif:module_info(exports),
        F =/= module_info,
        F =/= status,
        F =/= is_loaded,
        F =/= set_workers,
        %% Lawful, they take the standard input and output of the tests.
        F =/= stdio_claim,
        F =/= stdio_open
    ],
    ?assertEqual(lists:sort(Exports), lists:sort([{F, length(Args)} || {F, Args} <- Lawful])),
    [apply(erlmcp_native_nif, F, Args) || {F, Args} <- Lawful],
    [
        call(F, lists:sublist(Args, Place - 1) ++ [Term | lists:nthtail(Place, Args)])
     || {F, Args} <- Lawful,
        Place <- lists:seq(1, length(Args)),
        Term <- garbage()
    ],
    [call(F, [Term || _ <- Args]) || {F, Args} <- Lawful, Term <- garbage()],
    [?assertError(badarg, erlmcp_native_nif:stdio_open(Term)) || Term <- garbage()],
    ok = erlmcp_native_log:set_level(warning),
    ok = erlmcp_native_nif:metrics_recording(true),
    ?assertEqual(loaded, erlmcp_native_nif:status()).

call(Function, Args) ->
    try
        apply(erlmcp_native_nif, Function, Args)
    catch
        error:badarg -> ok
    end.

lawful() ->
    {_, Connection} = open(1),
    {ok, _, Listener} = listen(),
    {ok, ConnectionOptions} = erlmcp_native_options:connection(#{}),
    {ok, ListenerOptions} = erlmcp_native_options:listener(#{}),
    Local = #{host => {127, 0, 0, 1}, port => 0},
    Json = <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}">>,
    Decode = [Json, erlmcp_native_nif:json_words(), null, false, false, 512],
    {ok, HttpOptions} = erlmcp_native_http_options:client(#{}),
    Origin = #{scheme => http, host => <<"127.0.0.1">>, port => 1},
    {ok, _, Client} = erlmcp_native_nif:http_client_open(Origin, HttpOptions),
    Request = [Client, {<<"POST">>, <<"/">>}, [{<<"name">>, <<"value">>}], <<"text">>, {1, 1}],
    {ok, ServerOptions} = erlmcp_native_http_options:listener(#{}),
    {Server, Exchange} = exchange(ServerOptions),
    Encode = [#{<<"jsonrpc">> => [<<"2.0">>, null]}, null, false],
    [
        {connection_open, [Local#{port := 1}, ConnectionOptions]},
        {connection_take, [Connection, 1, 1]},
        {connection_send, [Connection, <<"text">>, auto]},
        {connection_send_large, [Connection, <<"text">>, auto]},
        {connection_give, [Connection, self()]},
        {connection_close, [Connection]},
        {connection_info, [Connection]},
        {listener_open, [Local, ListenerOptions]},
        {listener_accept, [Listener, 1]},
        {listener_sockname, [Listener]},
        {listener_close, [Listener]},
        {http_client_open, [Origin, HttpOptions]},
        {http_client_request, Request},
        {http_client_request_large, Request},
        {http_client_events, [Client, 1]},
        {http_client_take, [Client, 1, 1]},
        {http_client_cancel, [Client, 1]},
        {http_client_info, [Client]},
        {http_client_close, [Client]},
        {http_listen, [Local, ServerOptions, self()]},
        {http_claim, [Server, 1]},
        {http_take, [Server]},
        {http_listener_info, [Server]},
        {http_body, [Exchange]},
        {http_stream, [Exchange, 200, []]},
        {http_send, [Exchange, <<"text">>]},
        {http_send_large, [Exchange, <<"text">>]},
        {http_finish, [Exchange]},
        {http_reply, [Exchange, 200, [], <<"text">>]},
        {http_reply_large, [Exchange, 200, [], <<"text">>]},
        {http_on_gone, [Exchange, notice]},
        {http_on_exit, [Exchange, 500]},
        {http_drain, [Server, 0]},
        {http_close, [Server]},
        {log_to, [whereis(erlmcp_native_log), warning]},
        {metrics_read, []},
        {metrics_recording, [true]},
        {stdio_is_leaving, []},
        {json_words, []},
        {json_decode, Decode},
        {json_decode_dirty, Decode},
        {json_encode, Encode},
        {json_encode_dirty, Encode},
        {json_scan, [Json, 512, 100]},
        {json_scan_dirty, [Json, 512, 100]}
    ].

%% A request that a client waits for.
exchange(Options) ->
    Local = #{host => {127, 0, 0, 1}, port => 0},
    {ok, Id, Server} = erlmcp_native_nif:http_listen(Local, Options, self()),
    #{sockname := {_, Port}} = erlmcp_native_nif:http_listener_info(Server),
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, []),
    ok = gen_tcp:send(Socket, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    receive {erlmcp_native_io, Id, ready} -> ok after ?WAIT -> ct:fail(no_request) end,
    1 = erlmcp_native_nif:http_claim(Server, 10),
    {_, Exchange, #{}} = erlmcp_native_nif:http_take(Server),
    {Server, Exchange}.

garbage() ->
    [
        atom, 0, -1, 1 bsl 80, 1.5, <<>>, <<"text">>, <<1:3>>, "list", [a | b], {}, {a, b}, #{},
        #{a => 1}, self(), make_ref(), fun() -> ok end
    ].

arguments_of_other_resources(_) ->
    {_, Connection} = open(1),
    {ok, _, Listener} = listen(),
    ?assertError(badarg, erlmcp_native_nif:connection_take(Listener, 1, 1)),
    ?assertError(badarg, erlmcp_native_nif:listener_accept(Connection, 1)),
    ?assertError(badarg, erlmcp_native_nif:connection_take(Connection, -1, 1)),
    ?assertError(badarg, erlmcp_native_nif:connection_send(Connection, [not_iodata], auto)),
    ?assertError(badarg, erlmcp_native_nif:connection_send(Connection, <<1:1>>, auto)),
    ?assertError(badarg, erlmcp_native_nif:connection_open(#{port => 1}, #{})).

reload_is_refused(_) ->
    ?assertMatch({error, on_load_failure}, code:load_file(erlmcp_native_nif)),
    ?assertEqual(loaded, erlmcp_native_nif:status()),
    ?assertMatch([_ | _], erlmcp_native_nif:metrics_read()).

purge_leaves_connections_alone(_) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{path => nif, active => true}),
    {Client, Server} = pair(Listener),
    ?assertEqual(false, code:purge(erlmcp_native_nif)),
    ok = erlmcp_native:send(Client, <<"still here">>),
    receive
        {erlmcp_native, Server, {frames, [<<"still here">>]}} -> ok
    after ?WAIT -> ct:fail(lost)
    end.

collected_connection_closes(_) ->
    {Listen, Port} = test_socket:listen(),
    {Pid, Monitor} = spawn_monitor(fun() -> _ = open(Port), receive forget -> ok end,
        true = garbage_collect(), receive stop -> ok end end),
    Peer = accept(Listen),
    ?assertEqual({error, timeout}, gen_tcp:recv(Peer, 0, 50)),
    Pid ! forget,
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    Pid ! stop,
    receive {'DOWN', Monitor, _, _, normal} -> ok end.

collected_http_client_closes(_) ->
    {Listen, Port} = test_socket:listen(),
    {Pid, Monitor} = spawn_monitor(fun() -> _ = http_request(Port), receive forget -> ok end,
        true = garbage_collect(), receive stop -> ok end end),
    Peer = accept(Listen),
    {ok, <<"GET / HTTP/1.1\r\n", _/binary>>} = gen_tcp:recv(Peer, 0, ?WAIT),
    ?assertEqual({error, timeout}, gen_tcp:recv(Peer, 0, 50)),
    Pid ! forget,
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    Pid ! stop,
    receive {'DOWN', Monitor, _, _, normal} -> ok end.

http_request(Port) ->
    {ok, Options} = erlmcp_native_http_options:client(#{}),
    Origin = #{scheme => http, host => <<"127.0.0.1">>, port => Port},
    {ok, _, Client} = erlmcp_native_nif:http_client_open(Origin, Options),
    Timeouts = {infinity, infinity},
    erlmcp_native_nif:http_client_request(Client, {<<"GET">>, <<"/">>}, [], none, Timeouts).

collected_listener_closes(_) ->
    Test = self(),
    Pid = spawn_link(fun() ->
        Port = abandoned_listener(),
        true = garbage_collect(),
        Test ! {abandoned, Port},
        receive stop -> ok end
    end),
    Port = receive {abandoned, P} -> P after ?WAIT -> ct:fail(no_port) end,
    refused_at_last(Port, erlang:monotonic_time(millisecond) + ?WAIT),
    Pid ! stop.

%% The VM frees resources after the collection, not within it.
refused_at_last(Port, Deadline) ->
    case gen_tcp:connect({127, 0, 0, 1}, Port, []) of
        {error, econnrefused} ->
            ok;
        {error, econnreset} ->
            refused_at_last(Port, Deadline);
        {ok, Socket} ->
            ok = gen_tcp:close(Socket),
            erlang:monotonic_time(millisecond) < Deadline orelse ct:fail(alive),
            refused_at_last(Port, Deadline)
    end.

abandoned_listener() ->
    {ok, _, Listener} = listen(),
    {_, Port} = erlmcp_native_nif:listener_sockname(Listener),
    Port.

only_the_owner_gives(_) ->
    {_, Connection} = open(1),
    Give = fun() -> erlmcp_native_nif:connection_give(Connection, self()) end,
    {_, Monitor} = spawn_monitor(fun() -> ?assertError(badarg, Give()) end),
    receive {'DOWN', Monitor, _, _, Reason} -> ?assertEqual(normal, Reason) end.

given_to_the_dead(_) ->
    {Listen, Port} = test_socket:listen(),
    {_, Connection} = open(Port),
    Peer = accept(Listen),
    {Dead, Monitor} = spawn_monitor(fun() -> ok end),
    receive {'DOWN', Monitor, _, _, _} -> ok end,
    ok = erlmcp_native_nif:connection_give(Connection, Dead),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

frames_outlive_their_connection(_) ->
    {Listen, Port} = test_socket:listen(),
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, #{path => nif, active => true}),
    Peer = accept(Listen),
    Frames = [binary:copy(<<C>>, 1000) || C <- lists:seq($a, $z)],
    ok = gen_tcp:send(Peer, [[F, $\n] || F <- Frames]),
    ok = gen_tcp:close(Peer),
    ?assertEqual(Frames, until_down(Conn, [])),
    garbage_collect().

nothing_is_left(_) ->
    eventually_zero([native_connections, native_tasks, native_listeners, native_blocks]).

log_reaches_logger(_) ->
    ok = logger:add_handler(?MODULE, ?MODULE, #{config => #{receiver => self()}}),
    #{level := Level} = logger:get_primary_config(),
    ok = logger:set_primary_config(level, debug),
    ok = erlmcp_native_log:set_level(debug),
    {_, _} = open(1),
    receive
        {logged, debug, Text} -> ?assertMatch({match, _}, re:run(Text, "not connected"))
    after ?WAIT -> ct:fail(no_log)
    end,
    ok = erlmcp_native_log:set_level(warning),
    ok = logger:set_primary_config(level, Level),
    ok = logger:remove_handler(?MODULE).

%% logger handler
log(#{meta := #{domain := [erlmcp_native, native]}} = Event, #{config := #{receiver := Pid}}) ->
    #{level := Level, msg := {Format, Args}} = Event,
    Pid ! {logged, Level, io_lib:format(Format, Args)};
log(_, _) ->
    ok.

workers(_) ->
    %% The runtime runs: the number is taken for nothing any more.
    ?assertEqual(false, erlmcp_native_nif:set_workers(2)),
    [?assertError(badarg, erlmcp_native_nif:set_workers(N)) || N <- [0, 1025, -1, many]].

%% Helpers

open(Port) ->
    {ok, Options} = erlmcp_native_options:connection(#{}),
    erlmcp_native_nif:connection_open(#{host => {127, 0, 0, 1}, port => Port}, Options).

listen() ->
    {ok, Options} = erlmcp_native_options:listener(#{}),
    erlmcp_native_nif:listener_open(#{host => {127, 0, 0, 1}, port => 0}, Options).

pair(Listener) ->
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    {ok, Client} = erlmcp_native:connect(#{port => Port}, #{path => nif, active => true}),
    ok = erlmcp_native:await_connected(Client, ?WAIT),
    receive
        {erlmcp_native, Listener, {accepted, Server}} -> {Client, Server}
    after ?WAIT -> ct:fail(none)
    end.

until_down(Conn, Acc) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} -> until_down(Conn, [Frames | Acc]);
        {erlmcp_native, Conn, {down, _, _}} -> lists:append(lists:reverse(Acc));
        {erlmcp_native, Conn, _} -> until_down(Conn, Acc)
    after ?WAIT -> ct:fail(no_end)
    end.

eventually_zero(Gauges) ->
    eventually_zero(Gauges, erlang:monotonic_time(millisecond) + ?WAIT).

eventually_zero(Gauges, Deadline) ->
    [garbage_collect(Pid) || Pid <- processes()],
    Overview = erlmcp_native:overview(),
    Values = [{Gauge, maps:get(value, maps:get(Gauge, Overview))} || Gauge <- Gauges],
    case [Counted || {_, Value} = Counted <- Values, Value > 0] of
        [] ->
            ok;
        Left ->
            erlang:monotonic_time(millisecond) < Deadline orelse ct:fail({left, Left}),
            receive after 10 -> eventually_zero(Gauges, Deadline) end
    end.
