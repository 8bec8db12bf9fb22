%% Transports over HTTP in erlmcp's shapes, on every path, with modules that stand in for erlmcp's
%% where those are the receivers.
-module(http_transport_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(WAIT, 10000).
-define(TRANSPORT, erlmcp_native_http_transport).
-define(NEW, erlmcp_transport_http_new).

all() ->
    [{group, values}, {group, nif}, {group, port}, {group, beam}].

groups() ->
    [
        {values, [options_of_erlmcp, options_refused]},
        {nif, [{group, owner}, {group, routed}, {group, takeover}]},
        {port, [{group, owner}, {group, routed}, {group, takeover}]},
        {beam, [{group, owner}, {group, routed}, {group, takeover}]},
        {owner, [
            owner_is_told,
            first_sender_owns,
            requests_that_fail_are_answered,
            owner_dies,
            session_is_renewed,
            slow_owner,
            tells_about_itself,
            tokens_are_not_told
        ]},
        {routed, [
            registers_and_routes,
            answered_where_there_is_no_server,
            started_by_erlmcps_supervisor,
            owner_without_a_server,
            name_is_taken,
            serves_for_the_registry,
            serving_is_refused
        ]},
        {takeover, [
            unchanged_client_talks,
            unchanged_client_that_stops_ends_its_session,
            unchanged_client_hears_of_what_fails,
            unchanged_options_are_checked,
            unchanged_module_in_the_shape_of_the_fork
        ]}
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) when Path =:= nif; Path =:= port; Path =:= beam ->
    test_config:use(erlmcp_native_http_client_path, Path, Config);
init_per_group(_, Config) ->
    Config.

end_per_group(_, _) -> ok.

init_per_testcase(Case, Config) ->
    process_flag(trap_exit, true),
    case proplists:get_value(path, Config) of
        undefined -> Config;
        _ -> [{peer, http_peer:listen()} | with_standins(Case, Config)]
    end.

end_per_testcase(_, Config) ->
    case proplists:get_value(standins, Config) of
        undefined ->
            ok;
        StandIns ->
            ok = application:stop(erlmcp_native),
            ok = application:unset_env(erlmcp_native, takeover),
            standins:unload(StandIns),
            ok = application:start(erlmcp_native)
    end.

with_standins(Case, Config) ->
    case atom_to_list(Case) of
        "unchanged_" ++ _ -> taken_over(Case, Config);
        _ -> Config
    end.

taken_over(Case, Config) ->
    Tests = tests(Config),
    Shape =
        case Case of
            unchanged_module_in_the_shape_of_the_fork -> "routed";
            _ -> "owner"
        end,
    Originals = filelib:wildcard(filename:join([Tests, "takeover_SUITE_data", Shape, "*.erl"])),
    Client = filename:join([Tests, "transport_SUITE_data", "erlmcp_client.erl"]),
    Out = filename:join([proplists:get_value(priv_dir, Config), path(Config), Case]),
    StandIns = standins:load([Client | Originals], Out),
    ok = application:stop(erlmcp_native),
    ok = application:set_env(erlmcp_native, takeover, true),
    ok = application:start(erlmcp_native),
    active = erlmcp_native_takeover:status(),
    [{standins, StandIns} | Config].

%% The folder of this suite, which has no data of its own.
tests(Config) ->
    filename:dirname(string:trim(proplists:get_value(data_dir, Config), trailing, "/")).

%% ---- values

options_of_erlmcp(_) ->
    {ok, #{client := Client, owner := Owner, register := Register}} = check(#{
        url => "http://127.0.0.1:1/mcp",
        owner => self(),
        method => post,
        headers => #{"Authorization" => "Bearer x", 'Content-Type' => "application/json"},
        timeout => 7000,
        connect_timeout => infinity,
        max_retries => 2,
        retry_delay => 500,
        pool_size => 4,
        http_options => [],
        ssl_options => [
            {verify, verify_none}, {versions, ['tlsv1.3']}, {server_name_indication, "h"}
        ],
        test_mode => true,
        type => http,
        port => 80
    }),
    ?assertEqual({self(), false}, {Owner, Register}),
    ?assertMatch(
        #{
            headers := [{<<"authorization">>, <<"Bearer x">>}],
            timeout_ms := 7000,
            retries := 2,
            retry_min_ms := 500,
            reinitialize := true,
            initialized := auto,
            http := #{
                max_connections := 4,
                connect_timeout_ms := 600000,
                tls := #{verify := none, min_version := 'tlsv1.3', server_name := <<"h">>}
            }
        },
        Client
    ),
    ?assertMatch({ok, #{client := #{http := #{tls := false}}}}, check(#{url => <<"http://h">>})).

options_refused(_) ->
    ?assertEqual({error, {invalid_config, {missing_required_fields, [url]}}}, check(#{})),
    [
        ?assertEqual(
            {error, {invalid_config, {option, Key, Value}}},
            check(#{url => "http://127.0.0.1:1/", Key => Value})
        )
     || {Key, Value} <- [
            {method, get}, {owner, me}, {guard, x}, {no_such, 1}, {headers, [{"a b", "c"}]},
            {ssl_options, [{fail_if_no_peer_cert, true}]}, {ssl_options, [{versions, ['tlsv1']}]},
            {http_options, [{autoredirect, false}]}
        ]
    ],
    ?assertEqual({error, {invalid_config, {option, url, "x"}}}, check(#{url => "x"})),
    ?assertEqual({error, {invalid_config, {option, options, 1}}}, check(1)).

check(Given) -> erlmcp_native_http_transport_options:check(Given).

%% ---- owner

owner_is_told(Config) ->
    P = peer(Config),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{owner => self()})),
    ok = send(T, call(1, <<"ping">>)),
    http_peer:json(http_peer:next(P), result(1)),
    ?assertEqual({transport_connected, T}, next()),
    ?assertEqual(result(1), message()),
    ok = erlmcp_native_transport:close(T),
    ?assertEqual({'EXIT', T, normal}, next()),
    ok = erlmcp_native_transport:close(T),
    ?assertEqual({error, not_connected}, send(T, call(2, <<"ping">>))).

first_sender_owns(Config) ->
    P = peer(Config),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{})),
    ok = send(T, call(1, <<"ping">>)),
    http_peer:json(http_peer:next(P), result(1)),
    ?assertEqual({transport_connected, T}, next()),
    ?assertEqual(result(1), message()).

requests_that_fail_are_answered(Config) ->
    P = peer(Config),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{owner => self(), max_retries => 0})),
    ok = send(T, call(1, <<"ping">>)),
    http_peer:answer(http_peer:next(P), 500, [], <<"oops">>),
    ?assertMatch(#{<<"id">> := 1, <<"error">> := #{<<"code">> := -32000}}, message()),
    ok = send(T, call(2, <<"ping">>)),
    http_peer:cut(http_peer:next(P)),
    ?assertMatch(#{<<"id">> := 2, <<"error">> := #{<<"code">> := -32000}}, message()),
    ?assertEqual({error, invalid_message}, send(T, <<"no json">>)),
    ?assertMatch(#{statistics := #{errors := 3}}, ?NEW:get_info(T)).

owner_dies(Config) ->
    P = peer(Config),
    Owner = spawn(fun() -> receive stop -> ok end end),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{owner => Owner})),
    initialize(T, P),
    Owner ! stop,
    http_peer:answer(http_peer:next(P, <<"DELETE">>), 200, [], <<>>),
    ?assertEqual({'EXIT', T, {owner_died, normal}}, next()).

session_is_renewed(Config) ->
    P = peer(Config),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{owner => self()})),
    initialize(T, P),
    ?assertEqual({transport_connected, T}, next()),
    ?assertMatch(#{<<"id">> := 1}, message()),
    ok = send(T, call(2, <<"tools/list">>)),
    http_peer:answer(http_peer:next(P, <<"POST">>), 404, [], <<>>),
    initialized(P),
    http_peer:json(http_peer:next(P, <<"POST">>), result(2)),
    ?assertEqual(result(2), message()),
    %% A server that wants no more of it.
    ok = send(T, call(3, <<"tools/list">>)),
    http_peer:answer(http_peer:next(P, <<"POST">>), 404, [], <<>>),
    http_peer:answer(http_peer:next(P, <<"POST">>), 500, [], <<>>),
    ?assertEqual({transport_disconnected, T, session_lost}, next()),
    ?assertMatch(#{<<"id">> := 3, <<"error">> := #{}}, message()).

slow_owner(Config) ->
    P = peer(Config),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{owner => self(), max_owner_queue => 10})),
    ok = send(T, call(1, <<"tools/call">>)),
    R = http_peer:next(P),
    http_peer:stream(R),
    Text = erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"method">> => <<"n">>,
        <<"params">> => #{<<"x">> => binary:copy(<<"x">>, 60000)}
    }),
    [http_peer:event(R, #{data => Text}) || _ <- lists:seq(1, 200)],
    http_peer:event(R, #{data => result(1)}),
    http_peer:finish(R),
    receive
    after 500 -> ok
    end,
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    ?assert(Length < 50),
    ?assertEqual({transport_connected, T}, next()),
    [?assertMatch(#{<<"method">> := <<"n">>}, message()) || _ <- lists:seq(1, 200)],
    ?assertEqual(result(1), message()).

tells_about_itself(Config) ->
    P = peer(Config),
    {ok, T} = ?TRANSPORT:start_link(options(Config, #{owner => self()})),
    ?assertMatch(#{type := http, status := connecting, transport_id := T}, ?NEW:get_info(T)),
    ?assertEqual({ok, degraded}, gen_server:call(T, {server_status})),
    initialize(T, P),
    ?assertEqual({transport_connected, T}, next()),
    ?assertMatch(
        #{
            status := connected,
            connection := #{connected := true, session := <<"s">>, phase := ready},
            statistics := #{messages_sent := 1, messages_received := 1}
        },
        ?NEW:get_info(T)
    ),
    ?assertEqual({ok, running}, gen_server:call(T, {server_status})),
    ?assertEqual({ok, healthy}, gen_server:call(T, {health_check})),
    ?assertEqual({ok, connected}, gen_server:call(T, {connection_status})),
    ?assertMatch({ok, #{transport := T}}, gen_server:call(T, get_state)),
    ?assertEqual({error, unknown_request}, gen_server:call(T, {transport_call, x})).

tokens_are_not_told(Config) ->
    Options = options(Config, #{owner => self(), headers => [{"Authorization", "Bearer xyzzy"}]}),
    {ok, T} = ?TRANSPORT:start_link(Options),
    {status, _, _, Status} = sys:get_status(T),
    Told = [?NEW:get_info(T), Status],
    ?assertEqual(nomatch, string:find(io_lib:format("~p", [Told]), "xyzzy")).

%% ---- routed

registers_and_routes(Config) ->
    P = peer(Config),
    Registry = erlmcp_native_registry,
    ok = Registry:register_server(http_server, self(), #{}),
    {ok, T} = ?NEW:start_link(http_out, options(Config, #{server_id => http_server})),
    ?assertMatch({ok, {T, #{type := http}}}, Registry:find_transport(http_out)),
    ok = Registry:route_to_transport(http_out, http_server, call(1, <<"ping">>)),
    http_peer:json(http_peer:next(P), result(1)),
    receive
        {mcp_message, http_out, Message} ->
            ?assertEqual({ok, result(1)}, erlmcp_native_json:decode(Message))
    after ?WAIT -> error(timeout)
    end,
    ?assertMatch(#{transport_id := http_out, server_id := http_server}, ?NEW:get_info(T)),
    ok = Registry:route_to_transport(broadcast, http_server, call(2, <<"ping">>)),
    http_peer:json(http_peer:next(P), result(2)),
    receive
        {mcp_message, http_out, Answer} ->
            ?assertEqual({ok, result(2)}, erlmcp_native_json:decode(Answer))
    after ?WAIT -> error(timeout)
    end,
    ok = ?NEW:close(T),
    ?assertEqual({error, not_found}, Registry:find_transport(http_out)),
    ok = Registry:unregister_server(http_server).

%% What the peer asks of a server that is not there.
answered_where_there_is_no_server(Config) ->
    P = peer(Config),
    {ok, T} = ?NEW:start_link(http_out, options(Config, #{server_id => http_gone})),
    ok = ?NEW:send(T, call(1, <<"ping">>)),
    Stream = http_peer:next(P),
    http_peer:stream(Stream),
    http_peer:event(Stream, #{data => http_peer_call(7, <<"roots/list">>)}),
    Answer = http_peer:next(P),
    ?assertMatch(
        #{<<"id">> := 7, <<"error">> := #{<<"code">> := -32603}}, http_peer:body(Answer)
    ),
    http_peer:accepted(Answer),
    http_peer:finish(Stream),
    ok = ?NEW:close(T).

started_by_erlmcps_supervisor(Config) ->
    Data = filename:join(tests(Config), "transport_SUITE_data"),
    Out = filename:join([proplists:get_value(priv_dir, Config), path(Config), "sup"]),
    StandIns = standins:load([filename:join(Data, "erlmcp_transport_sup.erl")], Out),
    {ok, Sup} = erlmcp_transport_sup:start_link(),
    {ok, T} = erlmcp_transport_sup:start_child(http_child, http, options(Config, #{})),
    ?assertMatch(#{transport_id := http_child, type := http}, ?NEW:get_info(T)),
    true = unlink(Sup),
    exit(Sup, kill),
    standins:unload(StandIns).

owner_without_a_server(Config) ->
    P = peer(Config),
    {ok, T} = ?NEW:start_link(unused, options(Config, #{owner => self()})),
    ok = ?NEW:send(T, call(1, <<"ping">>)),
    http_peer:json(http_peer:next(P), result(1)),
    ?assertEqual({transport_connected, T}, next()),
    ?assertEqual(result(1), message()).

name_is_taken(Config) ->
    {ok, _} = ?NEW:start_link(http_twice, options(Config, #{})),
    ?assertEqual(
        {error, {registry_registration_failed, already_registered}},
        ?NEW:start_link(http_twice, options(Config, #{}))
    ),
    {ok, _} = ?NEW:start_link(http_twice, options(Config, #{test_mode => true})).

serves_for_the_registry(Config) ->
    Registry = erlmcp_native_registry,
    ok = Registry:register_server(http_served, self(), #{}),
    {ok, T} = ?NEW:start_link(http_in, #{
        mode => server, port => 0, server_id => http_served, path => path(Config)
    }),
    ?assertMatch({ok, {T, #{type := http}}}, Registry:find_transport(http_in)),
    #{status := listening, connection := #{sockname := {_, Port}}} = ?NEW:get_info(T),
    Url = lists:flatten(io_lib:format("http://127.0.0.1:~b/mcp", [Port])),
    {ok, C} = erlmcp_native_http_client:start(Url, #{path => path(Config)}),
    ok = erlmcp_native_http_client:send(C, call(<<"a">>, <<"initialize">>)),
    serve(#{<<"protocolVersion">> => <<"2025-06-18">>, <<"capabilities">> => #{}}),
    ?assertMatch(#{<<"id">> := <<"a">>, <<"result">> := #{}}, frame(C)),
    Initialized = #{<<"jsonrpc">> => <<"2.0">>, <<"method">> => <<"notifications/initialized">>},
    ok = erlmcp_native_http_client:send(C, erlmcp_native_json:encode(Initialized)),
    ok = erlmcp_native_http_client:send(C, call(<<"b">>, <<"tools/list">>)),
    serve(#{<<"tools">> => []}),
    ?assertMatch(#{<<"id">> := <<"b">>, <<"result">> := #{<<"tools">> := []}}, frame(C)),
    %% To all sessions, by the name of the transport.
    listening(C, 500),
    Changed = #{
        <<"jsonrpc">> => <<"2.0">>, <<"method">> => <<"notifications/tools/list_changed">>
    },
    ok = Registry:route_to_transport(http_in, http_served, erlmcp_native_json:encode(Changed)),
    ?assertEqual(Changed, frame(C)),
    ok = erlmcp_native_http_client:close(C),
    ok = ?NEW:close(T),
    ?assertEqual({'EXIT', T, normal}, exited(T)),
    ?assertEqual({error, not_found}, Registry:find_transport(http_in)),
    ok = Registry:unregister_server(http_served).

%% As a server of the registry: requests in the order in which they come.
serve(Result) ->
    receive
        {mcp_message, Transport, Message} ->
            case erlmcp_native_json:decode(Message) of
                {ok, #{<<"id">> := Id}} ->
                    Answer = erlmcp_native_json:encode((result(Id))#{<<"result">> := Result}),
                    erlmcp_native_registry:route_to_transport(Transport, http_served, Answer);
                {ok, _} ->
                    serve(Result)
            end
    after ?WAIT -> error(timeout)
    end.

listening(C, Tries) when Tries > 0 ->
    case erlmcp_native_http_client:info(C) of
        {ok, #{listening := true, http := #{active := Active}}} when Active > 0 -> ok;
        _ -> receive after 20 -> listening(C, Tries - 1) end
    end.

frame(C) ->
    receive
        {erlmcp_native, C, {frames, [Frame]}} ->
            {ok, Decoded} = erlmcp_native_json:decode(Frame),
            Decoded
    after ?WAIT -> error({timeout, process_info(self(), messages)})
    end.

exited(Pid) ->
    receive
        {'EXIT', Pid, _} = Exit -> Exit
    after ?WAIT -> error(timeout)
    end.

serving_is_refused(Config) ->
    Serve = fun(More) -> ?NEW:start_link(http_refused, More#{mode => server}) end,
    ?assertEqual({error, {invalid_config, {missing_required_fields, [server_id]}}}, Serve(#{})),
    Options = #{server_id => s, port => 0, path => path(Config)},
    ?assertEqual(
        {error, {invalid_config, {option, no_such, 1}}}, Serve(Options#{no_such => 1})
    ),
    ?assertMatch({error, {invalid_config, {option, _, _}}}, Serve(maps:remove(port, Options))),
    ?assertEqual(
        {error, {invalid_config, {option, handler, x}}}, Serve(Options#{handler => x})
    ),
    {ok, T} = Serve(Options),
    ?assertEqual(
        {error, {registry_registration_failed, already_registered}}, Serve(Options)
    ),
    ok = ?NEW:close(T).

%% ---- takeover

unchanged_client_talks(Config) ->
    P = peer(Config),
    {ok, C} = erlmcp_client:start_link({http, options(Config, #{owner => self()})}, #{}),
    Initialize = request(C, <<"initialize">>),
    initialized(P),
    ?assertMatch({ok, #{<<"protocolVersion">> := <<"2025-06-18">>}}, answer(Initialize)),
    List = request(C, <<"tools/list">>),
    R = http_peer:next(P, <<"POST">>),
    ?assertEqual(<<"s">>, http_peer:header(<<"mcp-session-id">>, R)),
    http_peer:stream(R),
    %% It is guarded: a request of the server would end it.
    http_peer:event(R, #{data => http_peer_call(9, <<"ping">>)}),
    Pong = http_peer:next(P, <<"POST">>),
    ?assertMatch(#{<<"id">> := 9, <<"result">> := #{}}, http_peer:body(Pong)),
    http_peer:accepted(Pong),
    http_peer:event(R, #{data => (result(2))#{<<"result">> := #{<<"tools">> => []}}}),
    http_peer:finish(R),
    ?assertEqual({ok, #{<<"tools">> => []}}, answer(List)),
    stop_client(C, P).

unchanged_client_that_stops_ends_its_session(Config) ->
    P = peer(Config),
    {ok, C} = erlmcp_client:start_link({http, options(Config, #{})}, #{}),
    Initialize = request(C, <<"initialize">>),
    initialized(P),
    {ok, _} = answer(Initialize),
    true = unlink(C),
    exit(C, kill),
    Delete = http_peer:next(P, <<"DELETE">>),
    ?assertEqual(<<"s">>, http_peer:header(<<"mcp-session-id">>, Delete)),
    http_peer:answer(Delete, 200, [], <<>>).

unchanged_client_hears_of_what_fails(Config) ->
    P = peer(Config),
    Url = http_peer:url(P),
    ok = http_peer:close(P),
    Options = (options(Config, #{max_retries => 0}))#{url := Url},
    {ok, C} = erlmcp_client:start_link({http, Options}, #{}),
    ?assertMatch({error, _}, answer(request(C, <<"initialize">>))),
    ?assert(is_process_alive(C)),
    ok = erlmcp_client:stop(C).

unchanged_options_are_checked(Config) ->
    ?assertEqual(
        {error, {invalid_config, {option, no_such, 1}}},
        erlmcp_client:start_link({http, options(Config, #{no_such => 1})}, #{})
    ),
    ?assertMatch({error, {invalid_config, _}}, erlmcp_transport_http:start_link(#{})).

unchanged_module_in_the_shape_of_the_fork(Config) ->
    P = peer(Config),
    Options = options(Config, #{owner => self()}),
    {ok, T} = erlmcp_transport_http:start_link(fork, http_named, Options),
    ?assertEqual(T, whereis(http_named)),
    ok = erlmcp_transport_http:send(T, call(1, <<"ping">>)),
    http_peer:json(http_peer:next(P), result(1)),
    ?assertEqual({transport_connected, T}, next()),
    ?assertEqual(result(1), message()),
    ?assertMatch(#{type := http}, erlmcp_transport_http:get_info(T)),
    ?assertEqual({error, unknown_request}, erlmcp_transport_http:handle_transport_call(x, T)),
    ok = erlmcp_transport_http:stop(T).

%% ----

peer(Config) -> proplists:get_value(peer, Config).

path(Config) -> proplists:get_value(path, Config).

options(Config, More) ->
    maps:merge(#{url => http_peer:url(peer(Config)), path => path(Config)}, More).

send(Transport, Data) -> erlmcp_native_transport:send(Transport, Data).

initialize(Transport, Peer) ->
    ok = send(Transport, call(1, <<"initialize">>)),
    initialized(Peer).

%% The handshake, of which the transport does the second half.
initialized(Peer) ->
    R = http_peer:next(Peer, <<"POST">>),
    #{<<"method">> := <<"initialize">>, <<"id">> := Id} = http_peer:body(R),
    Result = #{<<"protocolVersion">> => <<"2025-06-18">>, <<"capabilities">> => #{}},
    http_peer:json(R, [{<<"mcp-session-id">>, <<"s">>}], (result(Id))#{<<"result">> := Result}),
    Confirmed = http_peer:next(Peer, <<"POST">>),
    #{<<"method">> := <<"notifications/initialized">>} = http_peer:body(Confirmed),
    http_peer:accepted(Confirmed),
    http_peer:answer(http_peer:next(Peer, <<"GET">>), 405, [], <<>>).

request(Client, Method) ->
    Test = self(),
    Ref = make_ref(),
    spawn(fun() -> Test ! {Ref, erlmcp_client:request(Client, Method, #{})} end),
    Ref.

answer(Ref) ->
    receive
        {Ref, Result} -> Result
    after ?WAIT -> error(timeout)
    end.

stop_client(Client, Peer) ->
    spawn_link(fun() -> ok = erlmcp_client:stop(Client) end),
    http_peer:answer(http_peer:next(Peer, <<"DELETE">>), 200, [], <<>>).

next() ->
    receive
        Message when element(1, Message) =/= gone -> Message
    after ?WAIT -> error(timeout)
    end.

message() ->
    receive
        {transport_message, Message} ->
            {ok, Decoded} = erlmcp_native_json:decode(Message),
            Decoded
    after ?WAIT -> error({timeout, process_info(self(), messages)})
    end.

call(Id, Method) -> erlmcp_native_json:encode(http_peer_call(Id, Method)).

http_peer_call(Id, Method) ->
    #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => Method}.

result(Id) -> #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => #{}}.
