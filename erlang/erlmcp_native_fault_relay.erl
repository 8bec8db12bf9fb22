%% @private One connection through the fault proxy: has both sockets, a pump for each direction, and
%% ends with the proxy.
-module(erlmcp_native_fault_relay).

-export([start/4, accepted/2, changed/1, cut/2]).

-define(CONNECT_TIMEOUT_MS, 5000).
%% How long the sides are given to close after an orderly end, and relays to obey.
-define(LINGER_MS, 1000).
-define(CUT_TIMEOUT_MS, 2000).

-record(relay, {
    proxy :: reference(),
    sockets :: [gen_tcp:socket()],
    pumps = [] :: [pid()]
}).

%% @doc Starts the process; what it is to do comes with the socket.
-spec start(
    erlmcp_native:endpoint(),
    erlmcp_native_fault_proxy:mode(),
    erlmcp_native_fault_pump:settings(),
    counters:counters_ref()
) -> {pid(), reference()}.
start(Target, Mode, Settings, Counters) ->
    Proxy = self(),
    spawn_monitor(fun() ->
        Monitor = monitor(process, Proxy),
        receive
            {accepted, Socket} -> serve(Mode, Socket, Target, {Settings, Counters}, Monitor);
            {'DOWN', Monitor, process, _, _} -> ok
        end
    end).

%% @doc Says that the relay owns the socket now.
-spec accepted(pid(), gen_tcp:socket()) -> ok.
accepted(Relay, Socket) ->
    Relay ! {accepted, Socket},
    ok.

%% @doc Says that the settings have changed.
-spec changed([pid()]) -> ok.
changed(Relays) ->
    lists:foreach(fun(Relay) -> Relay ! changed end, Relays).

%% @doc Ends connections; returns when they have been.
-spec cut([pid()], reset | shutdown) -> ok.
cut(Relays, How) ->
    Monitors = [{Relay, monitor(process, Relay)} || Relay <- Relays],
    lists:foreach(fun({Relay, Ref}) -> Relay ! {cut, self(), Ref, How} end, Monitors),
    Deadline = erlang:monotonic_time(millisecond) + ?CUT_TIMEOUT_MS,
    lists:foreach(fun(Asked) -> obeyed(Asked, Deadline) end, Monitors).

obeyed({Relay, Ref}, Deadline) ->
    receive
        {cut, Ref} -> ok;
        {'DOWN', Ref, process, _, _} -> ok
    after max(0, Deadline - erlang:monotonic_time(millisecond)) ->
        %% It is still on its way to the server.
        exit(Relay, kill)
    end,
    true = demonitor(Ref, [flush]),
    receive
        {cut, Ref} -> ok
    after 0 -> ok
    end.

serve(reset, Socket, _, _, _) ->
    erlmcp_native_beam_inet:abort(Socket);
serve(shutdown, Socket, _, _, Monitor) ->
    closing(#relay{proxy = Monitor, sockets = [Socket]});
serve(silent, Socket, _, Means, Monitor) ->
    alone(Socket, Means, Monitor);
serve({answer, Bytes}, Socket, _, Means, Monitor) ->
    _ = gen_tcp:send(Socket, Bytes),
    alone(Socket, Means, Monitor);
serve(_, Socket, Target, {Settings, Counters}, Monitor) ->
    case connect(Target) of
        {ok, Server} ->
            Up = erlmcp_native_fault_pump:start(up, Socket, Server, Settings, Counters),
            Down = erlmcp_native_fault_pump:start(down, Server, Socket, Settings, Counters),
            loop(#relay{proxy = Monitor, sockets = [Socket, Server], pumps = [Up, Down]});
        {error, _} ->
            erlmcp_native_beam_inet:abort(Socket)
    end.

%% What a client says to nobody is read and thrown away.
alone(Socket, {_, Counters}, Monitor) ->
    Pump = erlmcp_native_fault_pump:start_sink(Socket, Counters),
    loop(#relay{proxy = Monitor, sockets = [Socket], pumps = [Pump]}).

loop(#relay{proxy = Proxy, pumps = Pumps, sockets = Sockets} = Relay) ->
    receive
        changed ->
            lists:foreach(fun(Pump) -> Pump ! changed end, Pumps),
            loop(Relay);
        {ended, Pump} when Pumps =:= [Pump] ->
            close(Sockets);
        {ended, Pump} ->
            loop(Relay#relay{pumps = lists:delete(Pump, Pumps)});
        {broken, _} ->
            abort(Relay);
        {cut, From, Ref, reset} ->
            abort(Relay),
            From ! {cut, Ref};
        {cut, From, Ref, shutdown} ->
            shutdown(Relay),
            From ! {cut, Ref},
            drained(Relay);
        {'DOWN', Proxy, process, _, _} ->
            abort(Relay)
    end.

abort(#relay{sockets = Sockets, pumps = Pumps}) ->
    %% Their sockets would be closed with them, in order.
    lists:foreach(fun erlmcp_native_beam_inet:abort/1, Sockets),
    lists:foreach(fun stop/1, Pumps).

stop(Pump) ->
    unlink(Pump),
    exit(Pump, kill).

shutdown(#relay{sockets = Sockets, pumps = Pumps}) ->
    lists:foreach(fun(Pump) -> Pump ! sink end, Pumps),
    lists:foreach(fun(Socket) -> gen_tcp:shutdown(Socket, write) end, Sockets).

closing(#relay{sockets = [Socket]} = Relay) ->
    Pump = erlmcp_native_fault_pump:start_sink(Socket, counters:new(3, [])),
    Closing = Relay#relay{pumps = [Pump]},
    shutdown(Closing),
    drained(Closing).

%% To close with unread data would be to break off.
drained(#relay{pumps = []} = Relay) ->
    close(Relay#relay.sockets);
drained(#relay{pumps = Pumps, proxy = Proxy, sockets = Sockets} = Relay) ->
    receive
        {ended, Pump} -> drained(Relay#relay{pumps = lists:delete(Pump, Pumps)});
        {broken, Pump} -> drained(Relay#relay{pumps = lists:delete(Pump, Pumps)});
        {cut, From, Ref, _} ->
            From ! {cut, Ref},
            drained(Relay);
        {'DOWN', Proxy, process, _, _} -> abort(Relay)
    after ?LINGER_MS -> close(Sockets)
    end.

close(Sockets) ->
    lists:foreach(fun gen_tcp:close/1, Sockets).

connect(#{host := Name, port := Port}) when is_binary(Name) ->
    connect(binary_to_list(Name), Port);
connect(#{host := Ip, port := Port}) ->
    connect(Ip, Port);
connect(#{path := Path}) ->
    connect({local, Path}, 0);
connect(#{abstract := Name}) ->
    connect({local, <<0, Name/binary>>}, 0).

connect(Address, Port) ->
    Options = [
        binary, {packet, raw}, {active, false}, {exit_on_close, false}, {show_econnreset, true}
    ],
    gen_tcp:connect(Address, Port, nodelay(Address) ++ Options, ?CONNECT_TIMEOUT_MS).

nodelay({local, _}) -> [];
nodelay({_, _, _, _, _, _, _, _}) -> [inet6, {nodelay, true}];
nodelay(_) -> [{nodelay, true}].
