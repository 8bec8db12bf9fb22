%% @doc The options of HTTP listeners and clients, checked once and completed with defaults. What
%% they say of MCP is in the modules that speak it.
-module(erlmcp_native_http_options).

-export([listener/1, client/1]).

-export_type([listener/0, client/0, proxy/0]).

-type listener() :: #{
    protocols := [http1 | http2, ...],
    max_body_bytes := pos_integer(),
    max_headers := pos_integer(),
    max_header_bytes := pos_integer(),
    max_target_bytes := pos_integer(),
    header_timeout_ms := pos_integer(),
    body_timeout_ms := pos_integer(),
    idle_timeout_ms := pos_integer(),
    max_connections := pos_integer(),
    max_connections_per_peer := pos_integer(),
    max_requests := pos_integer(),
    max_streams := pos_integer(),
    max_concurrent_streams := pos_integer(),
    max_stream_bytes := pos_integer(),
    nodelay := boolean(),
    keepalive := boolean(),
    handshake_timeout_ms := pos_integer(),
    backlog := pos_integer(),
    tls := false | erlmcp_native_options:tls()
}.
%% `protocols': HTTP/2 is by prior knowledge, or by ALPN under TLS; the path `beam' has HTTP/1.1
%% only and goes without the other. `max_body_bytes': 16 MiB; more is 413. `max_headers': 100 fields
%% of `max_header_bytes', 8 KiB, each, name and value; more is 431. `max_target_bytes': 8 KiB; more
%% is 414. `header_timeout_ms': 10 s from the first byte of a request to the end of its head.
%% `body_timeout_ms': 30 s for its body. `idle_timeout_ms': 60 s between requests. Beyond
%% `max_connections', 10,000, connections wait in the kernel's backlog; beyond
%% `max_connections_per_peer', 10,000, those of that address are closed. `max_requests': 1,024 that
%% have not begun to be answered, and `max_streams': 10,000 answers that stream; more is 503 with
%% `retry-after'. `max_concurrent_streams': 100 on one HTTP/2 connection. `max_stream_bytes': 1 MiB
%% queued for one stream.

-type client() :: #{
    protocols := [http1 | http2, ...],
    max_connections := pos_integer(),
    max_queue := pos_integer(),
    max_head_bytes := pos_integer(),
    high_water_bytes := pos_integer(),
    idle_timeout_ms := pos_integer(),
    connect_timeout_ms := pos_integer(),
    attempt_delay_ms := pos_integer(),
    handshake_timeout_ms := pos_integer(),
    bind := inet:ip_address() | any,
    nodelay := boolean(),
    keepalive := boolean(),
    proxy := none | proxy(),
    tls := false | erlmcp_native_options:tls()
}.
%% `protocols': HTTP/2 where ALPN agrees on it, or, if it is the only one, by prior knowledge; the
%% path `beam' has HTTP/1.1 only. `max_connections': 16 over HTTP/1.1. `max_queue': 1,000 requests
%% that wait for one. `max_head_bytes': 64 KiB for the head of an answer. `high_water_bytes': 1 MiB
%% of a body read ahead of the owner. `idle_timeout_ms': 60 s that a connection is kept unused.
%% `proxy': requests go to that HTTP proxy, those of `https' through a CONNECT tunnel;
%% `authorization' is the value of `proxy-authorization'. `tls' of an `https' origin is `true' where
%% nothing else is said.

-type proxy() :: #{
    host := binary(),
    port := inet:port_number(),
    authorization := binary() | none
}.

-define(KIB, 1024).
-define(MIB, 1048576).

%% @doc Checks the options of a listener.
-spec listener(term()) -> {ok, listener()} | {error, erlmcp_native:reason()}.
listener(Options) ->
    Defaults = #{
        protocols => [http1, http2],
        max_body_bytes => 16 * ?MIB,
        max_headers => 100,
        max_header_bytes => 8 * ?KIB,
        max_target_bytes => 8 * ?KIB,
        header_timeout_ms => 10000,
        body_timeout_ms => 30000,
        idle_timeout_ms => 60000,
        max_connections => 10000,
        max_connections_per_peer => 10000,
        max_requests => 1024,
        max_streams => 10000,
        max_concurrent_streams => 100,
        max_stream_bytes => ?MIB,
        nodelay => true,
        keepalive => true,
        handshake_timeout_ms => 10000,
        backlog => 1024,
        tls => false
    },
    erlmcp_native_options:check(Options, Defaults, fun valid/2, server).

%% @doc Checks the options of a client.
-spec client(term()) -> {ok, client()} | {error, erlmcp_native:reason()}.
client(Options) ->
    Defaults = #{
        protocols => [http1, http2],
        max_connections => 16,
        max_queue => 1000,
        max_head_bytes => 64 * ?KIB,
        high_water_bytes => ?MIB,
        idle_timeout_ms => 60000,
        connect_timeout_ms => 5000,
        attempt_delay_ms => 250,
        handshake_timeout_ms => 10000,
        bind => any,
        nodelay => true,
        keepalive => true,
        proxy => none,
        tls => false
    },
    erlmcp_native_options:check(Options, Defaults, fun valid/2, client).

valid(protocols, V) -> is_list(V) andalso V =/= [] andalso V -- [http1, http2] =:= [];
valid(max_body_bytes, V) -> in(V, 1, 16#ffffffff);
valid(max_headers, V) -> in(V, 1, 1000);
valid(max_header_bytes, V) -> in(V, 64, 64 * ?KIB);
valid(max_target_bytes, V) -> in(V, 1, 64 * ?KIB);
valid(max_connections, V) -> in(V, 1, 1000000);
valid(max_connections_per_peer, V) -> in(V, 1, 1000000);
valid(max_requests, V) -> in(V, 1, 1000000);
valid(max_streams, V) -> in(V, 1, 1000000);
valid(max_concurrent_streams, V) -> in(V, 1, 10000);
valid(max_stream_bytes, V) -> in(V, 1, 16#ffffffff);
valid(max_queue, V) -> in(V, 0, 1000000);
valid(max_head_bytes, V) -> in(V, 1024, ?MIB);
valid(high_water_bytes, V) -> in(V, 1, 16#ffffffff);
valid(header_timeout_ms, V) -> in(V, 1, 600000);
valid(body_timeout_ms, V) -> in(V, 1, 3600000);
valid(idle_timeout_ms, V) -> in(V, 1, 86400000);
valid(connect_timeout_ms, V) -> in(V, 1, 600000);
valid(attempt_delay_ms, V) -> in(V, 10, 2000);
valid(handshake_timeout_ms, V) -> in(V, 1, 600000);
valid(backlog, V) -> in(V, 1, 65535);
valid(nodelay, V) -> is_boolean(V);
valid(keepalive, V) -> is_boolean(V);
valid(bind, V) -> V =:= any orelse inet:is_ip_address(V);
valid(proxy, V) -> proxy(V);
valid(_, _) -> false.

proxy(none) ->
    true;
proxy(#{host := Host, port := Port, authorization := Value} = Proxy) ->
    map_size(Proxy) =:= 3 andalso is_binary(Host) andalso Host =/= <<>> andalso
        in(Port, 1, 65535) andalso (Value =:= none orelse is_binary(Value));
proxy(_) ->
    false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.
