%% @doc The other side of a connection, in an OS process of its own, so that its CPU time and its
%% memory are not counted; and fresh VMs for what is measured only once in a VM's life.
-module(bench_peer).

-export([start_sender/0, start_vm/0, stop/1, call/4, serve/2, hold/3]).
-export([frame/1, numbered/2, padded/3]).

%% Called in the other VM.
-export([do_call/3, do_serve/1, do_hold/2]).

-export_type([peer/0, behaviour/0]).

-opaque peer() :: pid().

-type behaviour() ::
    echo
    | {blast, FrameBytes :: pos_integer(), Count :: pos_integer()}
    | {numbered, FrameBytes :: pos_integer(), Count :: pos_integer()}
    | {endless, BytesPerSecond :: pos_integer()}.
%% What a server does with each connection. `echo' returns every byte. The others wait for the
%% first byte and then send: frames that are all alike, frames that carry their number, or
%% bytes without a newline until the connection ends.

-define(CALL_TIMEOUT_MS, 120000).
-define(CHUNK_BYTES, 262144).

%% @doc A VM for the load: one scheduler, which sleeps when it is idle, so that it takes no more
%% of the machine than it needs.
-spec start_sender() -> peer().
start_sender() ->
    start(["+S", "1:1", "+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"]).

%% @doc A VM with the default flags that runs the application.
-spec start_vm() -> peer().
start_vm() ->
    Peer = start([]),
    {ok, _} = call(Peer, application, ensure_all_started, [erlmcp_native]),
    Peer.

start(Flags) ->
    Paths = lists:append([Dirs || {pa, Dirs} <- init:get_arguments()]),
    {ok, Peer, _} = peer:start_link(#{
        connection => standard_io,
        args => Flags ++ ["-pa" | Paths]
    }),
    Peer.

-spec stop(peer()) -> ok.
stop(Peer) ->
    peer:stop(Peer).

-spec call(peer(), module(), atom(), [term()]) -> term().
call(Peer, Module, Function, Args) ->
    case peer:call(Peer, ?MODULE, do_call, [Module, Function, Args], ?CALL_TIMEOUT_MS) of
        {ok, Result} -> Result;
        Failed -> exit({in_peer, Failed})
    end.

%% @doc Starts a server in the other VM; its port.
-spec serve(peer(), behaviour()) -> inet:port_number().
serve(Peer, Behaviour) ->
    call(Peer, ?MODULE, do_serve, [Behaviour]).

%% @doc Opens connections from the other VM and holds them.
-spec hold(peer(), inet:port_number(), pos_integer()) -> ok.
hold(Peer, Port, Count) ->
    call(Peer, ?MODULE, do_hold, [Port, Count]).

%% Beside this, `peer:call/5' returns `badarg' when the process that ran it was killed by a link.
%% @private
-spec do_call(module(), atom(), [term()]) -> {ok, term()} | {failed, term()}.
do_call(Module, Function, Args) ->
    try
        {ok, apply(Module, Function, Args)}
    catch
        Class:Reason:Stack -> {failed, {Class, Reason, Stack}}
    end.

%% @private
-spec do_serve(behaviour()) -> inet:port_number().
do_serve(Behaviour) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [
            binary,
            {ip, {127, 0, 0, 1}},
            {active, false},
            {nodelay, true},
            {backlog, 1024},
            {sndbuf, 1048576}
        ]),
        {ok, Port} = inet:port(Listener),
        {Port, fun() -> accept(Listener, action(Behaviour)) end}
    end).

%% @private
-spec do_hold(inet:port_number(), pos_integer()) -> ok.
do_hold(Port, Count) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        Sockets = [connect(Port) || _ <- lists:seq(1, Count)],
        {ok, fun() -> receive {stop, Sockets} -> ok end end}
    end).

connect(Port) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Socket.

accept(Listener, Action) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() ->
        receive
            go -> Action(Socket)
        end
    end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener, Action).

action(echo) ->
    fun(Socket) ->
        ok = inet:setopts(Socket, [{active, true}]),
        echo(Socket)
    end;
action({blast, Bytes, Count}) ->
    Chunks = chunks(frame(Bytes), Count),
    fun(Socket) -> on_request(Socket, fun() -> send_all(Socket, Chunks) end) end;
action({numbered, Bytes, Count}) ->
    fun(Socket) -> on_request(Socket, fun() -> send_numbered(Socket, Bytes, 1, Count) end) end;
action({endless, BytesPerSecond}) ->
    Bytes = min(?CHUNK_BYTES, BytesPerSecond div 100),
    Chunk = binary:copy(<<"x">>, Bytes),
    Pause = Bytes * 1000 div BytesPerSecond,
    fun(Socket) -> on_request(Socket, fun() -> endless(Socket, Chunk, Pause) end) end.

echo(Socket) ->
    receive
        {tcp, Socket, Data} ->
            _ = gen_tcp:send(Socket, Data),
            echo(Socket);
        {tcp_closed, Socket} ->
            ok;
        {tcp_error, Socket, _} ->
            ok
    end.

on_request(Socket, Send) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, _} ->
            Send(),
            %% The receiver closes first: what has been sent is not cut short.
            gen_tcp:recv(Socket, 0);
        {error, _} = Error ->
            Error
    end.

%% A chunk of many frames, and how often it is sent.
chunks(Frame, Count) when byte_size(Frame) < ?CHUNK_BYTES div 2 ->
    Line = <<Frame/binary, "\n">>,
    PerChunk = min(Count, ?CHUNK_BYTES div byte_size(Line)),
    [
        {binary:copy(Line, PerChunk), Count div PerChunk},
        {binary:copy(Line, Count rem PerChunk), 1}
    ];
chunks(Frame, Count) ->
    [{<<Frame/binary, "\n">>, Count}].

send_all(Socket, [{Chunk, Times} | Chunks]) when Times > 0 ->
    case gen_tcp:send(Socket, Chunk) of
        ok -> send_all(Socket, [{Chunk, Times - 1} | Chunks]);
        {error, _} = Error -> Error
    end;
send_all(Socket, [_ | Chunks]) ->
    send_all(Socket, Chunks);
send_all(_, []) ->
    ok.

send_numbered(Socket, Bytes, From, Last) when From =< Last ->
    To = min(From + 255, Last),
    case gen_tcp:send(Socket, [[numbered(Bytes, N), $\n] || N <- lists:seq(From, To)]) of
        ok -> send_numbered(Socket, Bytes, To + 1, Last);
        {error, _} = Error -> Error
    end;
send_numbered(_, _, _, _) ->
    ok.

endless(Socket, Chunk, Pause) ->
    case gen_tcp:send(Socket, Chunk) of
        ok ->
            receive
            after Pause -> endless(Socket, Chunk, Pause)
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc A tools/call of exactly this size.
-spec frame(Bytes :: pos_integer()) -> binary().
frame(Bytes) ->
    padded(<<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",",
        "\"params\":{\"name\":\"echo\",",
        "\"arguments\":{\"text\":\"">>, <<"\"}}}">>, Bytes).

%% @doc A frame of exactly this size that says which one it is.
-spec numbered(Bytes :: pos_integer(), Number :: pos_integer()) -> binary().
numbered(Bytes, Number) ->
    padded(<<"{\"jsonrpc\":\"2.0\",\"method\":\"count\",\"params\":{\"n\":",
        (integer_to_binary(Number))/binary, ",\"pad\":\"">>, <<"\"}}">>, Bytes).

%% @doc Text that is exactly so long, with padding between its ends.
-spec padded(Head :: binary(), Tail :: binary(), Bytes :: pos_integer()) -> binary().
padded(Head, Tail, Bytes) ->
    Padding = binary:copy(<<"x">>, Bytes - byte_size(Head) - byte_size(Tail)),
    <<Head/binary, Padding/binary, Tail/binary>>.
