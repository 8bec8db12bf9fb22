%% @doc HTTP servers on the `nif' path: hyper inside the VM.
%%
%% A process beside the owner, the acceptor, is told when there are requests and starts a process
%% for each, so that an owner that is busy keeps no client waiting. The serving process takes its
%% request itself: the exchange is then known to that process alone and ends with it.
-module(erlmcp_native_nif_http).

-behaviour(erlmcp_native_http_path).

-export([listen/3, listener_handle_info/2, listener_info/1, listener_drain/2, listener_close/1]).
-export([read_body/2, reply/4, stream/3, send/2, finish/1, on_gone/2, on_exit/2, handle_info/2]).
-export([accept/1, serve/2]).

%% What a small request needs from its beginning to its end, so that it ends before its first
%% garbage collection.
-define(HEAP_WORDS, 1600).

%% The VM's own default.
-define(IDLE_HEAP_WORDS, 233).

-record(listener, {
    id :: non_neg_integer(),
    ref :: erlmcp_native_nif:http_listener()
}).

-type exchange() :: {Id :: non_neg_integer(), erlmcp_native_nif:http_exchange()}.

%% Copying this much takes about 0.2 ms; more goes to a dirty scheduler.
-define(LARGE, 1048576).

%% Processes started between two looks at the mailbox.
-define(BATCH, 64).

%% @private
-spec listen(
    erlmcp_native:endpoint(),
    erlmcp_native_http_options:listener(),
    erlmcp_native_http_path:serve()
) -> {ok, #listener{}} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options, Serve) ->
    Acceptor = spawn(?MODULE, accept, [self()]),
    try erlmcp_native_nif:http_listen(Endpoint, Options, Acceptor) of
        {ok, Id, Ref} ->
            Acceptor ! {?MODULE, Id, Ref, Serve},
            {ok, #listener{id = Id, ref = Ref}};
        {error, _} = Error ->
            exit(Acceptor, kill),
            Error
    catch
        error:badarg:Stacktrace ->
            exit(Acceptor, kill),
            erlang:raise(error, badarg, Stacktrace)
    end.

%% @private
-spec listener_handle_info(term(), #listener{}) ->
    {[{down, erlmcp_native:reason()} | drained], #listener{}} | unknown.
listener_handle_info({erlmcp_native_io, Id, drained}, #listener{id = Id} = Listener) ->
    {[drained], Listener};
listener_handle_info({erlmcp_native_io, Id, down}, #listener{id = Id} = Listener) ->
    {[{down, panic}], Listener};
listener_handle_info(_, _) ->
    unknown.

%% @private
-spec listener_info(#listener{}) ->
    #{
        sockname := erlmcp_native:address(),
        connections := non_neg_integer(),
        requests := non_neg_integer(),
        streams := non_neg_integer()
    }.
listener_info(#listener{ref = Ref}) ->
    erlmcp_native_nif:http_listener_info(Ref).

%% @private
-spec listener_drain(#listener{}, non_neg_integer()) -> #listener{}.
listener_drain(#listener{ref = Ref} = Listener, Ms) ->
    ok = erlmcp_native_nif:http_drain(Ref, Ms),
    Listener.

%% @private
-spec listener_close(#listener{}) -> ok.
listener_close(#listener{ref = Ref}) ->
    erlmcp_native_nif:http_close(Ref).

%% @private
-spec read_body(exchange(), timeout()) ->
    {ok, binary()} | {error, body_too_large | timeout | closed}.
read_body({Id, Ref}, Timeout) ->
    case erlmcp_native_nif:http_body(Ref) of
        waiting ->
            receive
                {erlmcp_native_io, Id, body} -> read_body({Id, Ref}, 0)
            after Timeout ->
                {error, timeout}
            end;
        Result ->
            Result
    end.

%% @private
-spec reply(
    exchange(),
    erlmcp_native_http_path:status(),
    erlmcp_native_http_path:headers(),
    iodata()
) -> ok | {error, closed}.
reply({_, Ref}, Status, Headers, Body) ->
    case is_large(Body) of
        false -> erlmcp_native_nif:http_reply(Ref, Status, Headers, Body);
        true -> erlmcp_native_nif:http_reply_large(Ref, Status, Headers, Body)
    end.

%% @private
-spec stream(exchange(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers()) ->
    ok | {error, closed}.
stream({_, Ref}, Status, Headers) ->
    %% It will live longer than a request, and be idle.
    _ = process_flag(min_heap_size, ?IDLE_HEAP_WORDS),
    erlmcp_native_nif:http_stream(Ref, Status, Headers).

%% @private
-spec send(exchange(), iodata()) -> ok | {error, busy | closed}.
send({_, Ref}, Data) ->
    case is_large(Data) of
        false -> erlmcp_native_nif:http_send(Ref, Data);
        true -> erlmcp_native_nif:http_send_large(Ref, Data)
    end.

%% @private
-spec finish(exchange()) -> ok | {error, closed}.
finish({_, Ref}) ->
    erlmcp_native_nif:http_finish(Ref).

%% @private
-spec on_gone(exchange(), notice | exit) -> ok.
on_gone({_, Ref}, What) ->
    case erlmcp_native_nif:http_on_gone(Ref, What) of
        gone when What =:= exit -> exit_gone(self());
        _ -> ok
    end.

%% @private
-spec on_exit(exchange(), erlmcp_native_http_path:status()) -> ok.
on_exit({_, Ref}, Status) ->
    erlmcp_native_nif:http_on_exit(Ref, Status).

%% @private
-spec handle_info(term(), exchange()) -> erlmcp_native_http_path:notice() | unknown.
handle_info({erlmcp_native_io, Id, gone}, {Id, _}) -> gone;
handle_info({erlmcp_native_io, Id, writable}, {Id, _}) -> writable;
handle_info(_, _) -> unknown.

is_large(Data) when is_binary(Data) -> byte_size(Data) >= ?LARGE;
is_large(Data) -> iolist_size(Data) >= ?LARGE.

%% @private
-spec accept(pid()) -> ok.
accept(Owner) ->
    Monitor = monitor(process, Owner),
    receive
        {?MODULE, Id, Ref, Serve} ->
            %% The native side watches the owner from here on.
            true = demonitor(Monitor, [flush]),
            accept_loop(Id, Ref, Serve);
        {'DOWN', Monitor, process, Owner, _} ->
            ok
    end.

%% Lives until all connections are closed, longer than the owner if need be.
accept_loop(Id, Ref, Serve) ->
    receive
        {erlmcp_native_io, Id, ready} ->
            ok = start_all(Ref, Serve),
            accept_loop(Id, Ref, Serve);
        {erlmcp_native_io, gone, Pid} ->
            ok = exit_gone(Pid),
            accept_loop(Id, Ref, Serve);
        {erlmcp_native_io, Id, closed} ->
            ok;
        _ ->
            accept_loop(Id, Ref, Serve)
    end.

start_all(Ref, Serve) ->
    case erlmcp_native_nif:http_claim(Ref, ?BATCH) of
        0 ->
            ok;
        Count ->
            ok = start(Count, Ref, Serve),
            start_all(Ref, Serve)
    end.

start(0, _, _) ->
    ok;
start(Count, Ref, Serve) ->
    _ = spawn_opt(?MODULE, serve, [Ref, Serve], [{min_heap_size, ?HEAP_WORDS}]),
    start(Count - 1, Ref, Serve).

exit_gone(Pid) ->
    true = exit(Pid, {shutdown, gone}),
    ok.

%% @private
-spec serve(erlmcp_native_nif:http_listener(), erlmcp_native_http_path:serve()) -> term().
serve(Ref, {Module, Function, Argument}) ->
    case erlmcp_native_nif:http_take(Ref) of
        {Id, Exchange, Request} ->
            Module:Function(Argument, {?MODULE, {Id, Exchange}}, Request);
        none ->
            ok
    end.
