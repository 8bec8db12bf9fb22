%% @doc An established connection as its owner holds it: a plain socket, which it controls
%% itself, a TLS session, a child process, or standard input and output.
-module(erlmcp_native_beam_stream).

-export([tcp/1, tls/2, child/2, stdio/1, watch/1]).
-export([read_ahead/2, read_size/1]).
-export([arm/1, send/4, queued/1, give/2, close/2, keys/1, waiting/1, handle_info/2]).

-export_type([stream/0, arrival/0]).

%% Reads of what the peer has sent before a close, each of a chunk.
-define(LAST_READS, 64).

%% How often a socket that is being closed is asked whether its queue is empty.
-define(FIRST_LOOK_MS, 1).
-define(LAST_LOOK_MS, 50).

%% A smaller buffer is slow, and saves nothing.
-define(LEAST_BUFFER, 1024).

-record(tcp, {port :: gen_tcp:socket(), out :: erlmcp_native_beam_out:out()}).

-record(kept, {
    keeper :: erlmcp_native_beam_keeper:keeper(),
    to :: {tls, erlmcp_native_beam_session:session()} | {child, erlmcp_native_beam_out:out()}
}).

-record(stdio, {device :: erlmcp_native_beam_stdio:device()}).

-opaque stream() :: #tcp{} | #kept{} | #stdio{}.

-type arrival() :: {data, binary()} | {lost, erlmcp_native:reason()}.

%% @doc A plain socket, passive.
-spec tcp(gen_tcp:socket()) -> stream().
tcp(Port) -> #tcp{port = Port, out = erlmcp_native_beam_out:tcp(Port)}.

%% @doc A TLS session.
-spec tls(erlmcp_native_beam_keeper:keeper(), erlmcp_native_beam_session:session()) -> stream().
tls(Keeper, Session) -> #kept{keeper = Keeper, to = {tls, Session}}.

%% @doc A child process.
-spec child(erlmcp_native_beam_keeper:keeper(), erlmcp_native_beam_out:out()) -> stream().
child(Keeper, Out) -> #kept{keeper = Keeper, to = {child, Out}}.

%% @doc Standard input and output.
-spec stdio(erlmcp_native_beam_stdio:device()) -> stream().
stdio(Device) -> #stdio{device = Device}.

%% @doc To be called once by each owner.
-spec watch(stream()) -> stream().
watch(#tcp{} = Stream) -> Stream;
watch(#stdio{} = Stream) -> Stream;
watch(#kept{keeper = Keeper} = Stream) ->
    Stream#kept{keeper = erlmcp_native_beam_keeper:watch(Keeper)}.

%% @doc Asks for one chunk, or the end, as a message.
-spec arm(stream()) -> ok | {error, closed}.
arm(#tcp{port = Port}) ->
    case inet:setopts(Port, [{active, once}]) of
        ok -> ok;
        {error, _} -> {error, closed}
    end;
arm(#stdio{device = Device}) ->
    erlmcp_native_beam_stdio:arm(Device);
arm(#kept{keeper = Keeper}) ->
    erlmcp_native_beam_keeper:arm(Keeper).

%% @doc Queues a message of `Size' bytes on the wire, unless that makes too much. With a number for
%% the most, nothing overtakes and nothing is overtaken.
-spec send(
    stream(), iodata(), Size :: pos_integer(), erlmcp_native_beam_out:sending() | pos_integer()
) ->
    {ok | {error, busy | closed | reset}, stream()}.
send(Stream, Wire, Size, Max) when is_integer(Max) ->
    Sending = #{priority => normal, max => Max, reserve => 0, message => <<>>},
    send(Stream, Wire, Size, Sending);
send(#tcp{out = Out} = Stream, Wire, Size, Sending) ->
    {Result, Next} = erlmcp_native_beam_out:send(Out, Wire, Size, Sending),
    {Result, Stream#tcp{out = Next}};
send(#stdio{device = Device}, Wire, Size, Sending) ->
    {Result, Next} = erlmcp_native_beam_stdio:send(Device, Wire, Size, Sending),
    {Result, #stdio{device = Next}};
send(#kept{to = {tls, Session}} = Stream, Wire, Size, Sending) ->
    {erlmcp_native_beam_session:send(Session, Wire, Size, Sending), Stream};
send(#kept{to = {child, Out}} = Stream, Wire, Size, Sending) ->
    {Result, Next} = erlmcp_native_beam_out:send(Out, Wire, Size, Sending),
    {Result, Stream#kept{to = {child, Next}}}.

%% @doc Bytes that wait to be sent.
-spec queued(stream()) -> {non_neg_integer(), stream()}.
queued(#tcp{out = Out} = Stream) ->
    {Bytes, Next} = erlmcp_native_beam_out:queued(Out),
    {Bytes, Stream#tcp{out = Next}};
queued(#stdio{device = Device} = Stream) ->
    {erlmcp_native_beam_stdio:queued(Device), Stream};
queued(#kept{to = {tls, Session}} = Stream) ->
    {erlmcp_native_beam_session:queued(Session), Stream};
queued(#kept{to = {child, Out}} = Stream) ->
    {Bytes, Next} = erlmcp_native_beam_out:queued(Out),
    {Bytes, Stream#kept{to = {child, Next}}}.

%% @doc How much is read ahead, where that can be chosen.
-spec read_ahead(stream(), pos_integer()) -> ok.
read_ahead(#tcp{port = Port}, Bytes) ->
    _ = inet:setopts(Port, [{buffer, max(?LEAST_BUFFER, Bytes)}]),
    ok;
read_ahead(_, _) ->
    ok.

%% @doc How much is read at once.
-spec read_size(stream()) -> non_neg_integer().
read_size(#tcp{port = Port}) ->
    case inet:getopts(Port, [buffer]) of
        {ok, [{buffer, Bytes}]} -> Bytes;
        _ -> 0
    end;
read_size(_) ->
    0.

%% @doc Makes another process the owner. Returns what has come for the old one, in order. `badarg'
%% if the caller does not own the stream.
-spec give(stream(), pid()) -> [arrival()].
give(#tcp{port = Port}, NewOwner) ->
    case erlang:port_info(Port, connected) of
        {connected, Other} when Other =/= self() -> error(badarg);
        _ -> give_port(Port, NewOwner)
    end;
give(#stdio{device = Device}, NewOwner) ->
    erlmcp_native_beam_stdio:give(Device, NewOwner);
give(#kept{keeper = Keeper}, NewOwner) ->
    erlmcp_native_beam_keeper:give(Keeper, NewOwner).

give_port(Port, NewOwner) ->
    Arrivals = disarm(Port),
    case gen_tcp:controlling_process(Port, NewOwner) of
        ok -> ok;
        %% Either the port is gone or the new owner.
        {error, _} -> erlmcp_native_beam_inet:abort(Port)
    end,
    Arrivals.

disarm(Port) ->
    _ = inet:setopts(Port, [{active, false}]),
    mailbox(Port).

mailbox(Port) ->
    receive
        {tcp, Port, Data} -> [{data, Data} | mailbox(Port)];
        {tcp_error, Port, Reason} -> [{lost, lost(Reason)} | mailbox(Port)];
        {tcp_closed, Port} -> [{lost, closed} | mailbox(Port)]
    after 0 -> []
    end.

%% @doc Closes: what is queued is sent first, for `LingerMs' at most and without holding the
%% caller.
-spec close(stream(), LingerMs :: non_neg_integer()) -> ok.
close(#tcp{port = Port, out = Out}, LingerMs) ->
    _ = disarm(Port),
    Pid = spawn(fun() ->
        receive
            go -> linger(Port, Out, now_ms() + LingerMs, ?FIRST_LOOK_MS)
        end
    end),
    case gen_tcp:controlling_process(Port, Pid) of
        ok -> ok;
        %% Closed before.
        {error, _} -> exit(Pid, kill)
    end,
    Pid ! go,
    ok;
close(#stdio{device = Device}, _) ->
    erlmcp_native_beam_stdio:close(Device);
close(#kept{keeper = Keeper}, LingerMs) ->
    erlmcp_native_beam_keeper:close(Keeper, LingerMs).

%% The driver tells nobody but a suspended sender that its queue has room.
linger(Port, Out, Deadline, Wait) ->
    case {erlmcp_native_beam_out:pending(Out), Deadline - now_ms()} of
        {0, _} ->
            finish(Port);
        {_, Left} when Left > 0 ->
            receive
            after min(Left, Wait) -> linger(Port, Out, Deadline, min(2 * Wait, ?LAST_LOOK_MS))
            end;
        _ ->
            erlmcp_native_beam_inet:abort(Port)
    end.

%% Closing a socket with unread data resets the connection, and the reset can destroy what was
%% just sent.
finish(Port) ->
    _ = gen_tcp:shutdown(Port, write),
    drop(Port, ?LAST_READS),
    gen_tcp:close(Port).

drop(_, 0) ->
    ok;
drop(Port, Reads) ->
    case gen_tcp:recv(Port, 0, 0) of
        {ok, _} -> drop(Port, Reads - 1);
        {error, _} -> ok
    end.

%% @doc What the messages that are meant for it can be told by: the socket, or the first element of
%% a pair, or the reference of a `DOWN'.
-spec keys(stream()) -> [gen_tcp:socket() | reference()].
keys(#tcp{port = Port}) -> [Port];
keys(#stdio{device = Device}) -> erlmcp_native_beam_stdio:keys(Device);
keys(#kept{keeper = Keeper}) -> erlmcp_native_beam_keeper:keys(Keeper).

%% @doc What waits in the owner's mailbox.
-spec waiting(stream()) -> arrival() | none.
waiting(#tcp{port = Port}) ->
    receive
        {tcp, Port, Data} -> {data, Data};
        {tcp_error, Port, Reason} -> {lost, lost(Reason)};
        {tcp_closed, Port} -> {lost, closed}
    after 0 -> none
    end;
waiting(#stdio{device = Device}) ->
    erlmcp_native_beam_stdio:waiting(Device);
waiting(#kept{keeper = Keeper}) ->
    erlmcp_native_beam_keeper:waiting(Keeper).

%% @doc Gives meaning to a message in the owner's mailbox.
-spec handle_info(term(), stream()) -> arrival() | unknown.
handle_info({tcp, Port, Data}, #tcp{port = Port}) -> {data, Data};
handle_info({tcp_error, Port, Reason}, #tcp{port = Port}) -> {lost, lost(Reason)};
handle_info({tcp_closed, Port}, #tcp{port = Port}) -> {lost, closed};
handle_info(Msg, #stdio{device = Device}) -> erlmcp_native_beam_stdio:handle_info(Msg, Device);
handle_info(Msg, #kept{keeper = Keeper}) -> erlmcp_native_beam_keeper:handle_info(Msg, Keeper);
handle_info(_, _) -> unknown.

lost(Reason) -> erlmcp_native_beam_inet:reason(Reason).

now_ms() -> erlang:monotonic_time(millisecond).
