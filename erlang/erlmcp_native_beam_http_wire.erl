%% @doc The socket under an HTTP connection, plain or TLS, as the connection's process holds it.
%%
%% Nothing here waits for the peer. What a plain socket does not take at once its driver queues;
%% `ssl:send/2' does wait, so a process does it.
-module(erlmcp_native_beam_http_wire).

-export([open/3, arm/1, send/2, pending/1, shutdown/1, close/1, abort/1]).

-export_type([wire/0]).

%% Reads of a plain socket before it is to be armed anew: a system call less for each.
-define(READS, 16).

%% Of the atomics of a TLS connection.
-define(PENDING, 1).

-type wire() ::
    {tcp, gen_tcp:socket()}
    | {tls, ssl:sslsocket(), gen_tcp:socket(), Sender :: pid(), atomics:atomics_ref()}.

%% @doc The wire of an accepted socket that the calling process owns, after the TLS handshake if
%% there is to be one. Arrivals are those of `gen_tcp' or `ssl'; `armed' says whether one is due.
-spec open(gen_tcp:socket(), none | erlmcp_native_beam_tls:config(), timeout()) ->
    {ok, wire(), armed | passive} | {error, erlmcp_native:reason()}.
open(Port, none, _) ->
    {ok, {tcp, Port}, passive};
open(Port, Tls, Timeout) ->
    case erlmcp_native_beam_tls:handshake(Port, Tls, Timeout) of
        {ok, Socket} ->
            Pending = atomics:new(1, []),
            Sender = spawn_link(fun() -> sender(Socket, Pending) end),
            {ok, {tls, Socket, Port, Sender, Pending}, armed};
        {error, _} = Error ->
            Error
    end.

%% @doc Asks for arrivals, of which `tcp_passive' is the last of a plain socket, and the first
%% the last under TLS.
-spec arm(wire()) -> ok | {error, closed}.
arm({tcp, Port}) -> armed(inet:setopts(Port, [{active, ?READS}]));
arm({tls, Socket, _, _, _}) -> armed(ssl:setopts(Socket, [{active, once}])).

armed(ok) -> ok;
armed({error, _}) -> {error, closed}.

%% @doc Sends or queues.
-spec send(wire(), iodata()) -> ok | {error, closed}.
send({tcp, Port}, Data) ->
    armed(gen_tcp:send(Port, Data));
send({tls, _, _, Sender, Pending}, Data) ->
    Size = iolist_size(Data),
    ok = atomics:add(Pending, ?PENDING, Size),
    Sender ! {send, Data, Size},
    ok.

%% @doc Bytes that wait for the peer.
-spec pending(wire()) -> non_neg_integer().
pending({tcp, Port}) ->
    case inet:getstat(Port, [send_pend]) of
        {ok, [{send_pend, Bytes}]} -> Bytes;
        {error, _} -> 0
    end;
pending({tls, _, Port, _, Pending}) ->
    atomics:get(Pending, ?PENDING) + pending({tcp, Port}).

%% @doc Says that nothing more will be sent, after what is queued.
-spec shutdown(wire()) -> ok.
shutdown({tcp, Port}) ->
    _ = gen_tcp:shutdown(Port, write),
    ok;
shutdown({tls, _, _, Sender, _}) ->
    Sender ! shutdown,
    ok.

%% @doc Closes. What a plain socket has not sent by now is lost.
-spec close(wire()) -> ok.
close({tcp, Port}) ->
    _ = abort_queued(Port),
    gen_tcp:close(Port);
close({tls, _, Port, Sender, _}) ->
    true = unlink(Sender),
    true = exit(Sender, kill),
    _ = abort_queued(Port),
    gen_tcp:close(Port).

%% Closing would wait for the driver's queue.
abort_queued(Port) ->
    case pending({tcp, Port}) of
        0 -> ok;
        _ -> inet:setopts(Port, [{linger, {true, 0}}])
    end.

%% @doc Closes so that the peer can tell it from an orderly end.
-spec abort(wire()) -> ok.
abort({tcp, Port}) ->
    erlmcp_native_beam_inet:abort(Port);
abort({tls, _, Port, Sender, _}) ->
    true = unlink(Sender),
    true = exit(Sender, kill),
    erlmcp_native_beam_inet:abort(Port).

sender(Socket, Pending) ->
    receive
        {send, Data, Size} ->
            %% A failure comes to the connection as the end of its socket.
            _ = ssl:send(Socket, Data),
            ok = atomics:sub(Pending, ?PENDING, Size),
            sender(Socket, Pending);
        shutdown ->
            _ = ssl:shutdown(Socket, write),
            sender(Socket, Pending)
    end.
