%% @doc The process of an HTTP listener: it accepts, starts the processes of connections, counts
%% them against the limits, and ends them.
-module(erlmcp_native_beam_http_acceptor).

-export([start/5, drain/2, stop/1]).

%% Accepted at a time.
-define(BATCH, 64).

%% A connection ends at once when told; one that does not has a defect.
-define(STOP_MS, 5000).

-record(state, {
    owner :: pid(),
    owner_monitor :: reference(),
    tag :: reference(),
    config :: erlmcp_native_beam_http_conn:config(),
    listener :: erlmcp_native_beam_listener:listener() | closed,
    connections = #{} :: #{pid() => peer()},
    peers = #{} :: #{peer() => pos_integer()},
    %% There may be connections to accept and no notice will come.
    pending = false :: boolean(),
    draining = false :: boolean()
}).

%% Who is counted as one; peers on a Unix-domain socket are not counted.
-type peer() :: inet:ip_address() | none.

%% @doc Starts a listener that belongs to the calling process, to which messages with the tag are
%% sent.
-spec start(
    reference(),
    erlmcp_native:endpoint(),
    erlmcp_native_http_options:listener(),
    erlmcp_native_http_path:serve(),
    erlmcp_native_beam_http_count:counts()
) -> {ok, pid(), reference(), erlmcp_native:address()} | {error, erlmcp_native:reason()}.
start(Tag, Endpoint, #{tls := Tls} = Options, Serve, Counts) ->
    case tls(Tls) of
        {ok, TlsConfig} ->
            Config = #{options => Options, tls => TlsConfig, serve => Serve, counts => Counts},
            await_start(Tag, self(), Endpoint, Config);
        {error, _} = Error ->
            Error
    end.

tls(false) ->
    {ok, none};
tls(Tls) ->
    case erlmcp_native_beam_tls:server(Tls) of
        {ok, Config} -> {ok, erlmcp_native_beam_tls:with_alpn([<<"http/1.1">>], Config)};
        {error, _} = Error -> Error
    end.

await_start(Tag, Owner, Endpoint, Config) ->
    {Pid, Monitor} = spawn_monitor(fun() -> init(Owner, Tag, Endpoint, Config) end),
    receive
        {Tag, listening, SockName} ->
            {ok, Pid, Monitor, SockName};
        {'DOWN', Monitor, process, _, {shutdown, Reason}} ->
            {error, Reason};
        {'DOWN', Monitor, process, _, _} ->
            {error, panic}
    end.

%% @doc Stops accepting, and lets requests in progress end for so long.
-spec drain(pid(), non_neg_integer()) -> ok.
drain(Pid, Ms) ->
    Pid ! {drain, Ms},
    ok.

%% @doc Ends the listener and its connections, and returns when they have ended.
-spec stop(pid()) -> ok.
stop(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

init(Owner, Tag, Endpoint, #{options := Options, tls := Tls} = Config) ->
    _ = process_flag(trap_exit, true),
    Listen = Options#{high_water_bytes => buffer()},
    case erlmcp_native_beam_listener:listen(Endpoint, Listen, Tls) of
        {ok, Listener} ->
            #{sockname := SockName} = erlmcp_native_beam_listener:info(Listener),
            Owner ! {Tag, listening, SockName},
            loop(#state{
                owner = Owner,
                owner_monitor = monitor(process, Owner),
                tag = Tag,
                config = Config,
                listener = Listener
            });
        {error, Reason} ->
            exit({shutdown, Reason})
    end.

%% What is read at once: a few requests, or a piece of a body.
buffer() -> 16384.

loop(#state{owner_monitor = Owner} = S) ->
    receive
        {'EXIT', Pid, _} when is_map_key(Pid, S#state.connections) -> loop(resume(ended(Pid, S)));
        {'EXIT', _, _} -> loop(S);
        accept -> loop(accept(S));
        {drain, Ms} -> loop(drained(begin_drain(Ms, S)));
        deadline -> loop(end_drain(S));
        stop -> stop_all(S);
        {'DOWN', Owner, process, _, _} -> stop_all(S);
        Msg -> loop(notice(Msg, S))
    end.

notice(_, #state{listener = closed} = S) ->
    S;
notice(Msg, #state{listener = Listener} = S) ->
    case erlmcp_native_beam_listener:handle_info(Msg, Listener) of
        {ready, Next} -> accept(S#state{listener = Next});
        {none, Next} -> S#state{listener = Next};
        unknown -> S
    end.

%% At the limit nothing is accepted: the kernel's backlog holds who comes.
accept(#state{listener = closed} = S) ->
    S;
accept(#state{config = #{options := #{max_connections := Max}}, listener = Listener} = S) ->
    case min(?BATCH, Max - map_size(S#state.connections)) of
        0 ->
            S#state{pending = true};
        Room ->
            {Accepted, Status, Next} = erlmcp_native_beam_listener:accept_ports(Listener, Room),
            Started = lists:foldl(fun start_connection/2, S#state{listener = Next}, Accepted),
            accepted(Status, Started#state{pending = false})
    end.

accepted(armed, S) ->
    S;
accepted(more, S) ->
    self() ! accept,
    S;
accepted({down, Reason}, #state{owner = Owner, tag = Tag} = S) ->
    Owner ! {Tag, {down, Reason}},
    S.

resume(#state{pending = true} = S) -> accept(S);
resume(S) -> S.

start_connection({Port, #{peername := undefined}}, S) ->
    ok = gen_tcp:close(Port),
    S;
start_connection({Port, #{peername := PeerName}}, #state{peers = Peers, config = Config} = S) ->
    #{options := #{max_connections_per_peer := Max}} = Config,
    Peer = peer(PeerName),
    case maps:get(Peer, Peers, 0) of
        Count when Count >= Max ->
            ok = gen_tcp:close(Port),
            S;
        Count ->
            start_connection(Port, PeerName, S#state{peers = counted(Peer, Count + 1, Peers)})
    end.

start_connection(Port, PeerName, #state{config = #{counts := Counts} = Config} = S) ->
    Pid = erlmcp_native_beam_http_conn:start_link(Config, Port, PeerName),
    ok = erlmcp_native_beam_http_count:connections(Counts, 1),
    Pid ! {go, gen_tcp:controlling_process(Port, Pid)},
    S#state{connections = (S#state.connections)#{Pid => peer(PeerName)}}.

peer({Ip, _}) when is_tuple(Ip) -> Ip;
peer(_) -> none.

counted(none, _, Peers) -> Peers;
counted(Peer, 0, Peers) -> maps:remove(Peer, Peers);
counted(Peer, Count, Peers) -> Peers#{Peer => Count}.

ended(Pid, #state{connections = Connections, peers = Peers, config = #{counts := Counts}} = S) ->
    {Peer, Others} = maps:take(Pid, Connections),
    ok = erlmcp_native_beam_http_count:connections(Counts, -1),
    Count = maps:get(Peer, Peers, 1),
    drained(S#state{connections = Others, peers = counted(Peer, Count - 1, Peers)}).

begin_drain(Ms, #state{connections = Connections} = S) ->
    ok = close_listener(S),
    lists:foreach(fun erlmcp_native_beam_http_conn:drain/1, maps:keys(Connections)),
    _ = erlang:send_after(Ms, self(), deadline),
    S#state{listener = closed, draining = true}.

end_drain(#state{connections = Connections} = S) ->
    lists:foreach(fun(Pid) -> exit(Pid, shutdown) end, maps:keys(Connections)),
    S.

drained(#state{draining = true, connections = Connections} = S) when
    map_size(Connections) =:= 0
->
    S#state.owner ! {S#state.tag, drained},
    S#state{draining = false};
drained(S) ->
    S.

close_listener(#state{listener = closed}) -> ok;
close_listener(#state{listener = Listener}) -> erlmcp_native_beam_listener:close(Listener).

-spec stop_all(#state{}) -> no_return().
stop_all(#state{connections = Connections} = S) ->
    ok = close_listener(S),
    lists:foreach(fun(Pid) -> exit(Pid, shutdown) end, maps:keys(Connections)),
    Timer = erlang:send_after(?STOP_MS, self(), kill),
    _ = await_ends(S),
    _ = erlang:cancel_timer(Timer),
    exit(normal).

await_ends(#state{connections = Connections} = S) when map_size(Connections) =:= 0 ->
    S;
await_ends(#state{connections = Connections} = S) ->
    receive
        {'EXIT', Pid, _} when is_map_key(Pid, Connections) ->
            await_ends(ended(Pid, S));
        kill ->
            lists:foreach(fun(Pid) -> exit(Pid, kill) end, maps:keys(Connections)),
            await_ends(S)
    end.
