%% @doc A connection of `erlmcp_native_link' in the calling process.
-module(bench_link).

-export([connect/3, send/2, fold/4, close/1]).

-define(TAKE_ITEMS, 256).
-define(TAKE_BYTES, 262144).
-define(TIMEOUT_MS, 60000).

%% @doc Connects to a port of this machine and waits until the connection stands.
-spec connect(erlmcp_native_path:path(), inet:port_number(), map()) -> erlmcp_native_link:link().
connect(Path, Port, Options) ->
    {ok, Endpoint} = erlmcp_native_options:endpoint(#{host => {127, 0, 0, 1}, port => Port}),
    {ok, Connection} = erlmcp_native_options:connection(Options),
    {ok, Link} = erlmcp_native_link:dial(Endpoint, #{
        path => Path, reconnect => false, connection => Connection
    }),
    await_connected(Link).

await_connected(Link) ->
    case await_events(Link) of
        {[connected | _], Next} -> Next;
        {[], Next} -> await_connected(Next);
        {[{down, Reason, _} | _], _} -> exit({connect, Reason})
    end.

await_events(Link) ->
    receive
        Msg ->
            case erlmcp_native_link:handle_info(Msg, Link) of
                %% A notice to a link that was closed while it was on its way.
                unknown -> await_events(Link);
                {Events, Next} -> {Events, Next}
            end
    after ?TIMEOUT_MS ->
        exit(timeout)
    end.

-spec send(iodata(), erlmcp_native_link:link()) -> erlmcp_native_link:link().
send(Data, Link) ->
    {ok, Next} = erlmcp_native_link:send(Data, Link),
    Next.

%% @doc Folds over the next `Count' frames, of which the peer sends no more before it is asked.
%% Ends early, with the reason, where the connection does.
-spec fold(fun((binary(), Acc) -> Acc), Acc, non_neg_integer(), erlmcp_native_link:link()) ->
    {ok | {down, erlmcp_native:reason()}, Acc, erlmcp_native_link:link()}.
fold(_, Acc, 0, Link) ->
    {ok, Acc, Link};
fold(Fun, Acc, Left, Link) when Left > 0 ->
    case await_events(Link) of
        {[readable | _], Next} -> take(Fun, Acc, Left, Next);
        {[{down, Reason, _} | _], Next} -> {{down, Reason}, Acc, Next};
        {_, Next} -> fold(Fun, Acc, Left, Next)
    end.

take(Fun, Acc0, Left0, Link) ->
    {Items, Status, Next} = erlmcp_native_link:take(Link, ?TAKE_ITEMS, ?TAKE_BYTES),
    Acc = lists:foldl(Fun, Acc0, Items),
    Left = Left0 - length(Items),
    case Status of
        more -> take(Fun, Acc, Left, Next);
        again -> take(Fun, Acc, Left, Next);
        empty -> fold(Fun, Acc, Left, Next);
        {down, _, _} when Left =:= 0 -> {ok, Acc, Next};
        {down, Reason, _} -> {{down, Reason}, Acc, Next}
    end.

-spec close(erlmcp_native_link:link()) -> ok.
close(Link) ->
    _ = erlmcp_native_link:close(Link),
    ok.
