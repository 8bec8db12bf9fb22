%% @doc What the modules of the `beam' path know of `inet': options, addresses, errors.
-module(erlmcp_native_beam_inet).

-export([
    connect_options/2,
    listen_options/2,
    peername/1,
    sockname/1,
    reason/1,
    abort/1
]).

-export_type([listen_options/0]).

-type listen_options() :: #{
    backlog := pos_integer(),
    high_water_bytes := pos_integer(),
    nodelay := boolean(),
    keepalive := boolean(),
    tls := false | erlmcp_native_options:tls(),
    atom() => term()
}.
%% What counts of a listener's options, whatever it serves.

%% Frames are found in chunks of this size; a connection that has read a chunk waits for its
%% owner, so this is also the most that it reads ahead.
-define(CHUNK, 65536).

%% The driver must never suspend a sender: what may be queued is decided here, and the driver is
%% given limits that it does not reach. TLS has a process that sends, which is to be suspended.
-define(UNLIMITED, 16#7fffffff).

%% @doc Options for connecting to an endpoint.
-spec connect_options(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    [gen_tcp:connect_option()].
connect_options(Endpoint, Options) ->
    bind(Endpoint, Options) ++ common(Endpoint, Options).

%% @doc Options for listening at an endpoint, which the accepted sockets inherit.
-spec listen_options(erlmcp_native:endpoint(), listen_options()) -> [gen_tcp:listen_option()].
listen_options(Endpoint, #{backlog := Backlog} = Options) ->
    [{backlog, Backlog}, {reuseaddr, true} | common(Endpoint, Options)].

common(Endpoint, #{tls := Tls, high_water_bytes := HighWater} = Options) ->
    Ahead = min(HighWater, maps:get(high_water_min_bytes, Options, HighWater)),
    [binary, {packet, raw}, {active, false}, {buffer, min(?CHUNK, max(1024, Ahead))}] ++
        plain(Tls) ++ tcp(Endpoint, Options).

%% The end of the peer's data is not the end of the connection: what is queued is still sent.
plain(false) ->
    [
        {exit_on_close, false},
        {show_econnreset, true},
        {high_watermark, ?UNLIMITED},
        {low_watermark, ?UNLIMITED div 2}
    ];
plain(_) ->
    [].

tcp(#{host := _}, #{nodelay := NoDelay, keepalive := KeepAlive}) ->
    [{nodelay, NoDelay}, {keepalive, KeepAlive}];
tcp(_, _) ->
    [].

bind(#{host := _}, #{bind := Ip}) when Ip =/= any -> [{ip, Ip}];
bind(_, _) -> [].

%% @doc The peer's address, as long as it is known.
-spec peername(inet:socket()) -> erlmcp_native:address() | undefined.
peername(Socket) -> known(inet:peername(Socket)).

%% @doc The own address, as long as it is known.
-spec sockname(inet:socket()) -> erlmcp_native:address() | undefined.
sockname(Socket) -> known(inet:sockname(Socket)).

known({ok, Address}) -> address(Address);
known({error, _}) -> undefined.

address({local, <<>>}) -> unnamed;
address({local, <<0, Name/binary>>}) -> {abstract, Name};
address({local, Path}) when is_binary(Path) -> {path, Path};
address({local, Path}) -> {path, unicode:characters_to_binary(Path)};
address({Ip, Port}) when is_tuple(Ip), is_integer(Port) -> {Ip, Port};
address(_) -> unnamed.

%% @doc An error of `inet' or `gen_tcp' as ours.
-spec reason(atom()) -> erlmcp_native:reason().
reason(closed) -> closed;
reason(epipe) -> closed;
reason(enotconn) -> closed;
reason(econnreset) -> reset;
reason(econnaborted) -> reset;
reason(econnrefused) -> refused;
reason(timeout) -> timeout;
reason(etimedout) -> timeout;
reason(ehostunreach) -> unreachable;
reason(enetunreach) -> unreachable;
reason(nxdomain) -> nxdomain;
reason(eaddrinuse) -> address_in_use;
reason(Posix) -> {posix, Posix}.

%% @doc Closes a socket at once, whoever owns it, and drops what is queued.
-spec abort(gen_tcp:socket()) -> ok.
abort(Port) ->
    _ = inet:setopts(Port, [{linger, {true, 0}}]),
    gen_tcp:close(Port).
