%% @doc What an HTTP listener or client is in the process that owns it: an id in the port program,
%% packets for it and from it, and the end of the program.
-module(erlmcp_native_port_http_link).

-include("erlmcp_native_port.hrl").
-include("erlmcp_native_port_http.hrl").

-export([open/0, tell/3, await/2, message/2, counts/2, close/1, forget/1]).

-export_type([link/0]).

-record(link, {
    id :: erlmcp_native_port:id(),
    handle :: erlmcp_native_port:handle(),
    %% Should that process be killed, the program is gone with it.
    router :: reference(),
    %% Whoever keeps the value after it was closed is not to wait for anything.
    closed = atomics:new(1, []) :: atomics:atomics_ref()
}).

-opaque link() :: #link{}.

%% Names are looked up and files read.
-define(OPEN_MS, 30000).

%% What is asked is answered at once.
-define(CALL_MS, 10000).

%% @doc Of the calling process.
-spec open() -> {ok, link()} | {error, erlmcp_native:reason()}.
open() ->
    case erlmcp_native_port:open(none) of
        {ok, Id, Handle} ->
            Router = monitor(process, erlmcp_native_port),
            {ok, #link{id = Id, handle = Handle, router = Router}};
        {error, _} = Error ->
            Error
    end.

-spec tell(byte(), iodata(), link()) -> ok | {error, closed}.
tell(Op, Body, #link{id = Id, handle = Handle}) ->
    erlmcp_native_port:command(Handle, Op, Id, Body).

%% @doc Waits for the packet that says that it is open.
-spec await(byte(), link()) -> {ok, binary()} | {error, erlmcp_native:reason()}.
await(Op, #link{id = Id, router = Router} = Link) ->
    Result =
        receive
            {erlmcp_native_io, Id, <<Op, _:64, Body/binary>>} -> {ok, Body};
            {erlmcp_native_io, Id, <<?FROM_DOWN, _:64, Why/binary>>} ->
                {error, erlmcp_native_port_term:reason(Why)};
            {erlmcp_native_io, Id, {down, Why}} -> {error, Why};
            {'DOWN', Router, process, _, _} -> {error, port_program}
        after ?OPEN_MS -> {error, timeout}
        end,
    _ = [forget(Link) || element(1, Result) =:= error],
    Result.

%% @doc Gives meaning to a message in the owner's mailbox. `down' is its end in the program,
%% `lost' that of the program.
-spec message(term(), link()) ->
    {packet, byte(), binary()}
    | {down, erlmcp_native:reason()}
    | {lost, erlmcp_native:reason()}
    | unknown.
message({erlmcp_native_io, Id, <<?FROM_DOWN, _:64, Why/binary>>}, #link{id = Id}) ->
    {down, erlmcp_native_port_term:reason(Why)};
message({erlmcp_native_io, Id, <<Op, _:64, Body/binary>>}, #link{id = Id}) ->
    {packet, Op, Body};
message({erlmcp_native_io, Id, {down, Why}}, #link{id = Id} = Link) ->
    ok = forget(Link),
    {lost, Why};
message({'DOWN', Router, process, _, _}, #link{router = Router} = Link) ->
    ok = forget(Link),
    {lost, port_program};
message(_, _) ->
    unknown.

%% @doc The three numbers that it answers with; 0 where it is gone.
-spec counts(byte(), link()) -> {non_neg_integer(), non_neg_integer(), non_neg_integer()}.
counts(Op, #link{id = Id, router = Router} = Link) ->
    Question = erlang:unique_integer([positive]),
    _ = tell(Op, <<Question:64>>, Link),
    receive
        {erlmcp_native_io, Id, <<?FROM_HTTP_INFO, _:64, Question:64, A:64, B:64, C:64>>} ->
            {A, B, C};
        {erlmcp_native_io, Id, {down, _}} = Lost ->
            later(Lost);
        {'DOWN', Router, process, _, _} = Lost ->
            later(Lost)
    after patience(Link) -> {0, 0, 0}
    end.

%% For whoever gives meaning to messages.
later(Msg) ->
    self() ! Msg,
    {0, 0, 0}.

%% @doc Closes it, and has it closed when this returns.
-spec close(link()) -> ok.
close(#link{id = Id, router = Router} = Link) ->
    _ = tell(?TO_CLOSE, [], Link),
    _ = tell(?TO_PING, [], Link),
    receive
        {erlmcp_native_io, Id, <<?FROM_PONG, _:64>>} -> ok;
        {erlmcp_native_io, Id, {down, _}} -> ok;
        {'DOWN', Router, process, _, _} -> ok
    after patience(Link) -> ok
    end,
    forget(Link).

%% @doc Closes it without waiting.
-spec forget(link()) -> ok.
forget(#link{id = Id, router = Router, closed = Closed}) ->
    true = demonitor(Router, [flush]),
    ok = atomics:put(Closed, 1, 1),
    erlmcp_native_port:forget(Id).

%% Nobody answers where it was closed, or where the program has gone.
patience(#link{handle = Handle, closed = Closed}) ->
    case {atomics:get(Closed, 1), erlang:port_info(Handle, id)} of
        {0, {id, _}} -> ?CALL_MS;
        _ -> 0
    end.
