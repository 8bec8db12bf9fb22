%% TLS on every path, against OTP's ssl as the peer wherever one side alone is under test.
-module(tls_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_certs, [file/2]).
-import(test_wait, [event/1]).

-define(WAIT, 10000).

all() ->
    [{group, nif}, {group, port}, {group, beam}, {group, nif_beam}, {group, beam_nif}].

%% The mixed groups have one path dial and the other listen.
groups() ->
    [
        {nif, cases()},
        {port, cases()},
        {beam, cases()},
        {nif_beam, [messages_go_both_ways, mutual]},
        {beam_nif, [messages_go_both_ways, mutual]}
    ].

cases() ->
    [
        messages_go_both_ways,
        over_a_unix_socket,
        large_frame_both_ways,
        many_messages_both_ways,
        system_roots_do_not_know_the_test_ca,
        unknown_ca,
        self_signed,
        expired,
        other_name,
        server_name_option,
        address_as_name,
        verification_off,
        mutual,
        client_certificate_missing,
        client_certificate_of_another_ca,
        oldest_version,
        peer_certificate,
        bad_files,
        plain_peer,
        silent_peer,
        silent_client_does_not_hold_up_others,
        peer_that_stops_reading,
        close_flushes,
        ssl_server_closes
    ].

init_per_suite(Config) ->
    test_config:start([erlmcp_native], test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(nif_beam, Config) -> [{client, nif}, {server, beam} | Config];
init_per_group(beam_nif, Config) -> [{client, beam}, {server, nif} | Config];
init_per_group(Path, Config) -> [{client, Path}, {server, Path} | Config].

end_per_group(_, _) -> ok.

messages_go_both_ways(Config) ->
    {Client, Server} = pair(Config, trusting(Config), #{}),
    echo(Client, Server).

over_a_unix_socket(Config) ->
    Unique = integer_to_list(erlang:unique_integer([positive])),
    Name = iolist_to_binary(["tls", Unique, os:getpid()]),
    Endpoint =
        case os:type() of
            {unix, linux} -> #{abstract => Name};
            _ -> #{path => <<"/tmp/", Name/binary>>}
        end,
    {ok, Listener} = erlmcp_native:listen(Endpoint, server(Config, #{})),
    Tls = (trusting(Config))#{server_name => "localhost"},
    {ok, Client} = erlmcp_native:connect(Endpoint, client(Config, Tls)),
    ok = erlmcp_native:await_connected(Client, ?WAIT),
    echo(Client, accepted(Listener)),
    Unnamed = client(Config, trusting(Config)),
    {ok, NoName} = erlmcp_native:connect(Endpoint, Unnamed),
    ?assertEqual({error, {tls, hostname_mismatch}}, erlmcp_native:await_connected(NoName, ?WAIT)).

large_frame_both_ways(Config) ->
    {Client, Server} = pair(Config, trusting(Config), #{}),
    Large = binary:copy(<<"0123456789abcdef">>, 512 * 1024),
    ok = erlmcp_native:send(Client, Large),
    ?assertEqual([Large], frames(Server, 1)),
    ok = erlmcp_native:send(Server, Large),
    ?assertEqual([Large], frames(Client, 1)).

many_messages_both_ways(Config) ->
    {Client, Server} = pair(Config, trusting(Config), #{}),
    Messages = [integer_to_binary(N) || N <- lists:seq(1, 2000)],
    [ok = erlmcp_native:send(From, M) || M <- Messages, From <- [Client, Server]],
    ?assertEqual(Messages, frames(Server, 2000)),
    ?assertEqual(Messages, frames(Client, 2000)).

system_roots_do_not_know_the_test_ca(Config) ->
    {error, {tls, Reason}} = dial(Config, true, "server"),
    %% A machine without any roots says so.
    ?assert(lists:member(Reason, [unknown_ca, bad_file])).

unknown_ca(Config) ->
    Tls = #{cacertfile => file(Config, "other_ca.pem")},
    ?assertEqual({error, {tls, unknown_ca}}, dial(Config, Tls, "server")).

self_signed(Config) ->
    ?assertEqual({error, {tls, unknown_ca}}, dial(Config, trusting(Config), "self")).

expired(Config) ->
    ?assertEqual({error, {tls, certificate_expired}}, dial(Config, trusting(Config), "expired")).

other_name(Config) ->
    ?assertEqual({error, {tls, hostname_mismatch}}, dial(Config, trusting(Config), "other")).

server_name_option(Config) ->
    Tls = (trusting(Config))#{server_name => "other.example"},
    ?assertEqual(ok, dial(Config, Tls, "other")),
    ?assertEqual({error, {tls, hostname_mismatch}}, dial(Config, Tls, "server")).

address_as_name(Config) ->
    Host = {127, 0, 0, 1},
    ?assertEqual(ok, dial(Config, trusting(Config), "server", Host)),
    ?assertEqual({error, {tls, hostname_mismatch}}, dial(Config, trusting(Config), "other", Host)).

verification_off(Config) ->
    Names = ["self", "expired", "other"],
    [?assertEqual(ok, dial(Config, #{verify => none}, Name)) || Name <- Names].

mutual(Config) ->
    Own = #{certfile => file(Config, "client.pem"), keyfile => file(Config, "client.key")},
    Require = #{verify => peer, cacertfile => file(Config, "ca.pem")},
    {Client, Server} = pair(Config, maps:merge(trusting(Config), Own), Require),
    echo(Client, Server),
    {ok, #{socket := #{peercert := Der}}} = erlmcp_native:info(Server),
    ?assertEqual(der(Config, "client"), Der).

client_certificate_missing(Config) ->
    Require = #{verify => peer, cacertfile => file(Config, "ca.pem")},
    ?assertEqual({tls, certificate_required}, refused_by_server(Config, #{}, Require)).

client_certificate_of_another_ca(Config) ->
    Own = #{certfile => file(Config, "self.pem"), keyfile => file(Config, "self.key")},
    Require = #{verify => peer, cacertfile => file(Config, "ca.pem")},
    ?assertEqual({tls, unknown_ca}, refused_by_server(Config, Own, Require)).

oldest_version(Config) ->
    Old = [{versions, ['tlsv1.2']} | ssl_server(Config, "server")],
    Dial = fun(Tls) -> dial_server(Old, "localhost", client(Config, Tls)) end,
    ?assertEqual(ok, Dial(trusting(Config))),
    Only13 = (trusting(Config))#{min_version => 'tlsv1.3'},
    ?assertEqual({error, {tls, protocol_version}}, Dial(Only13)).

peer_certificate(Config) ->
    {Client, Server} = pair(Config, trusting(Config), #{}),
    {ok, #{socket := #{peercert := Der}}} = erlmcp_native:info(Client),
    ?assertEqual(der(Config, "server"), Der),
    ?assertMatch({ok, #{socket := #{peercert := undefined}}}, erlmcp_native:info(Server)).

bad_files(Config) ->
    Bad = {error, {tls, bad_file}},
    Missing = file(Config, "missing.pem"),
    Key = file(Config, "server.key"),
    ?assertEqual(Bad, listen(Config, #{certfile => Missing, keyfile => Key})),
    ?assertEqual(Bad, listen(Config, #{certfile => Key, keyfile => Key})),
    ?assertEqual(Bad, dial(Config, #{cacertfile => Missing}, "server")),
    Own = #{certfile => file(Config, "client.pem"), keyfile => Missing},
    ?assertEqual(Bad, dial(Config, maps:merge(trusting(Config), Own), "server")).

plain_peer(Config) ->
    {ok, Listener} = listen(Config, #{}),
    {ok, Peer} = gen_tcp:connect({127, 0, 0, 1}, port(Listener), [binary, {active, false}]),
    {accepted, Conn} = event(Listener),
    ok = gen_tcp:send(Peer, <<"GET / HTTP/1.1\r\n\r\n">>),
    ?assertMatch({down, {tls, handshake_failure}, final}, event(Conn)).

silent_peer(Config) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}]),
    {ok, Port} = inet:port(Listen),
    Options = (client(Config, trusting(Config)))#{handshake_timeout_ms => 100},
    {ok, Conn} = erlmcp_native:connect(#{host => "localhost", port => Port}, Options),
    ?assertEqual({error, {tls, timeout}}, erlmcp_native:await_connected(Conn, ?WAIT)).

silent_client_does_not_hold_up_others(Config) ->
    Options = (server(Config, #{}))#{handshake_timeout_ms => 300},
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, Options),
    {ok, _Silent} = gen_tcp:connect({127, 0, 0, 1}, port(Listener), []),
    {accepted, Held} = event(Listener),
    Endpoint = #{host => "localhost", port => port(Listener)},
    {ok, Client} = erlmcp_native:connect(Endpoint, client(Config, trusting(Config))),
    ok = erlmcp_native:await_connected(Client, ?WAIT),
    echo(Client, accepted(Listener)),
    ?assertEqual({down, {tls, timeout}, final}, event(Held)).

peer_that_stops_reading(Config) ->
    {Conn, Peer} = with_ssl_server(Config, #{max_queue_bytes => 100000}),
    Message = binary:copy(<<"m">>, 1000),
    Accepted = send_until_busy(Conn, Message, 0),
    {ok, Data} = ssl:recv(Peer, Accepted * 1001, ?WAIT),
    ?assertEqual(binary:copy(<<Message/binary, "\n">>, Accepted), Data),
    ?assertEqual(writable, event(Conn)),
    ok = erlmcp_native:send(Conn, <<"again">>),
    ?assertEqual({ok, <<"again\n">>}, ssl:recv(Peer, 6, ?WAIT)).

close_flushes(Config) ->
    {Conn, Peer} = with_ssl_server(Config, #{}),
    Large = binary:copy(<<"f">>, 4000000),
    ok = erlmcp_native:send(Conn, Large),
    ok = erlmcp_native:close(Conn),
    ?assertEqual({ok, <<Large/binary, "\n">>}, ssl:recv(Peer, 4000001, ?WAIT)),
    ?assertEqual({error, closed}, ssl:recv(Peer, 0, ?WAIT)).

ssl_server_closes(Config) ->
    {Conn, Peer} = with_ssl_server(Config, #{}),
    ok = ssl:send(Peer, <<"last\nhalf">>),
    ok = ssl:close(Peer),
    ?assertEqual([<<"last">>], frames(Conn, 1)),
    ?assertEqual({down, closed, final}, event(Conn)).

%% Helpers

echo(Client, Server) ->
    ok = erlmcp_native:send(Client, <<"question">>),
    ?assertEqual([<<"question">>], frames(Server, 1)),
    ok = erlmcp_native:send(Server, <<"answer">>),
    ?assertEqual([<<"answer">>], frames(Client, 1)).

pair(Config, ClientTls, ServerTls) ->
    {ok, Listener} = listen(Config, ServerTls),
    Endpoint = #{host => "localhost", port => port(Listener)},
    {ok, Client} = erlmcp_native:connect(Endpoint, client(Config, ClientTls)),
    ok = erlmcp_native:await_connected(Client, ?WAIT),
    {Client, accepted(Listener)}.

listen(Config, Tls) ->
    erlmcp_native:listen(#{port => 0}, server(Config, Tls)).

%% With TLS 1.3 a client is through before the server has looked at its certificate.
refused_by_server(Config, ClientTls, ServerTls) ->
    {ok, Listener} = listen(Config, ServerTls),
    Endpoint = #{host => "localhost", port => port(Listener)},
    Options = client(Config, maps:merge(trusting(Config), ClientTls)),
    {ok, Client} = erlmcp_native:connect(Endpoint, Options),
    {accepted, Server} = event(Listener),
    {down, Reason, final} = event(Server),
    ?assertMatch({down, _, final}, last(Client)),
    Reason.

last(Conn) ->
    case event(Conn) of
        connected -> event(Conn);
        Event -> Event
    end.

%% Dials OTP's ssl with a certificate of the given name.
dial(Config, Tls, Name) ->
    dial(Config, Tls, Name, "localhost").

dial(Config, Tls, Name, Host) ->
    dial_server(ssl_server(Config, Name), Host, client(Config, Tls)).

%% The server outlives the handshake: what it closes may be closed before it was seen open.
dial_server(ServerOptions, Host, ClientOptions) ->
    {ok, Listen} = ssl:listen(0, ServerOptions),
    spawn_link(fun() ->
        {ok, Socket} = ssl:transport_accept(Listen),
        ssl:handshake(Socket, ?WAIT),
        receive after ?WAIT -> ok end
    end),
    {ok, {_, Port}} = ssl:sockname(Listen),
    {ok, Conn} = erlmcp_native:connect(#{host => Host, port => Port}, ClientOptions),
    erlmcp_native:await_connected(Conn, ?WAIT).

with_ssl_server(Config, Options) ->
    {ok, Listen} = ssl:listen(0, ssl_server(Config, "server")),
    {ok, {_, Port}} = ssl:sockname(Listen),
    All = maps:merge(client(Config, trusting(Config)), Options),
    {ok, Conn} = erlmcp_native:connect(#{host => "localhost", port => Port}, All),
    {ok, Accepted} = ssl:transport_accept(Listen, ?WAIT),
    {ok, Peer} = ssl:handshake(Accepted, ?WAIT),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    {Conn, Peer}.

ssl_server(Config, Name) ->
    [
        binary,
        {active, false},
        {ip, {127, 0, 0, 1}},
        {certfile, file(Config, Name ++ ".pem")},
        {keyfile, file(Config, Name ++ ".key")},
        {log_level, none}
    ].

client(Config, Tls) ->
    #{path => proplists:get_value(client, Config), active => true, tls => Tls}.

server(Config, Tls) ->
    Own = #{certfile => file(Config, "server.pem"), keyfile => file(Config, "server.key")},
    #{path => proplists:get_value(server, Config), active => true, tls => maps:merge(Own, Tls)}.

trusting(Config) ->
    #{cacertfile => file(Config, "ca.pem")}.

der(Config, Name) ->
    {ok, Pem} = file:read_file(file(Config, Name ++ ".pem")),
    [{'Certificate', Der, not_encrypted}] = public_key:pem_decode(Pem),
    Der.

port(Listener) ->
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    Port.

accepted(Listener) ->
    {accepted, Conn} = event(Listener),
    connected = event(Conn),
    Conn.

frames(_, 0) ->
    [];
frames(Conn, Count) ->
    {frames, Frames} = event(Conn),
    Frames ++ frames(Conn, Count - length(Frames)).

send_until_busy(Conn, Message, Count) ->
    case erlmcp_native:send(Conn, Message) of
        ok -> send_until_busy(Conn, Message, Count + 1);
        {error, busy} -> Count
    end.
