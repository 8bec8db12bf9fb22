%% @doc Transports that send their owner messages, in the shape of erlmcp 0.5: ours on a path, and
%% the baseline. The caller is the owner.
-module(bench_owner).

-export([start/2, send/2, fold/3, close/1]).

-export_type([path/0, transport/0]).

-type path() :: erlmcp_native_path:path() | erlmcp05.
-type transport() :: {module(), pid()}.

-define(TIMEOUT_MS, 60000).

%% @doc Connects to a port of this machine and waits until the connection stands.
-spec start(path(), inet:port_number()) -> transport().
start(erlmcp05, Port) ->
    {ok, Pid} = bench_line_transport:start_link(Port),
    {bench_line_transport, Pid};
start(Path, Port) ->
    {ok, Pid} = erlmcp_native_transport_owner:start_link(#{
        host => {127, 0, 0, 1},
        port => Port,
        owner => self(),
        path => Path,
        max_reconnect_attempts => 0
    }),
    receive
        {transport_connected, Pid} -> {erlmcp_native_transport_owner, Pid}
    after ?TIMEOUT_MS -> exit(timeout)
    end.

-spec send(iodata(), transport()) -> ok.
send(Data, {Module, Pid}) ->
    Module:send(Pid, Data).

%% @doc Folds over the next `Count' messages.
-spec fold(fun((binary(), Acc) -> Acc), Acc, non_neg_integer()) -> Acc.
fold(_, Acc, 0) ->
    Acc;
fold(Fun, Acc, Left) ->
    receive
        {transport_message, Message} -> fold(Fun, Fun(Message, Acc), Left - 1)
    after ?TIMEOUT_MS ->
        exit(timeout)
    end.

-spec close(transport()) -> ok.
close({Module, Pid}) ->
    Module:close(Pid).
