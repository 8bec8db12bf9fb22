%% Plain sockets of this machine: the other side of a connection, in the hands of the test.
-module(test_socket).

-export([listen/0, listen/1, accept/1, pair/1, pair/2, free_port/0, black_hole/0, write/2, read/1]).

-define(WAIT, 30000).

listen() -> listen([]).

listen(Options) ->
    Passive = [binary, {active, false}, {ip, {127, 0, 0, 1}}, {nodelay, true} | Options],
    {ok, Listen} = gen_tcp:listen(0, Passive),
    {ok, Port} = inet:port(Listen),
    {Listen, Port}.

accept(Listen) ->
    {ok, Peer} = gen_tcp:accept(Listen, ?WAIT),
    Peer.

%% A connection that the test owns, and its peer.
pair(Options) -> pair(Options, []).

pair(Options, PeerOptions) ->
    {Listen, Port} = listen(PeerOptions),
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, Options),
    Peer = accept(Listen),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    ok = gen_tcp:close(Listen),
    {Conn, Peer}.

%% A port where nobody listens.
free_port() ->
    {Listen, Port} = listen(),
    ok = gen_tcp:close(Listen),
    Port.

%% A port that answers no connection: the backlog of its listener is full.
black_hole() ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, {127, 0, 0, 1}}, {backlog, 0}]),
    {ok, Port} = inet:port(Listen),
    {ok, _} = gen_tcp:connect({127, 0, 0, 1}, Port, []),
    Port.

%% A message of JSON-RPC as a line.
write(Peer, Members) ->
    Json = erlmcp_native_json:encode(Members#{<<"jsonrpc">> => <<"2.0">>}),
    ok = gen_tcp:send(Peer, [Json, $\n]).

read(Peer) ->
    ok = inet:setopts(Peer, [{packet, line}, {recbuf, 1 bsl 20}, {buffer, 1 bsl 20}]),
    {ok, Line} = gen_tcp:recv(Peer, 0, ?WAIT),
    {ok, Message} = erlmcp_native_json:decode(string:trim(Line)),
    Message.
