%% @doc The `nif' path: the Rust core inside the VM.
-module(erlmcp_native_nif_path).

-behaviour(erlmcp_native_path).

-export([open/2, take/3, send/2, sender/1, send_direct/2, handle_info/2, close/1, give/2, info/1]).
-export([listen/2, accept/2, listener_handle_info/2, listener_info/1, listener_close/1]).

-record(socket, {
    id :: non_neg_integer(),
    ref :: erlmcp_native_nif:connection()
}).

-record(listener, {
    id :: non_neg_integer(),
    ref :: erlmcp_native_nif:listener()
}).

%% Copying and scanning this much takes about 0.2 ms; more goes to a dirty scheduler.
-define(LARGE, 1048576).

%% Frames taken in one call: building their terms takes about 10 microseconds.
-define(SLICE, 256).

open(Endpoint, Options) ->
    {Id, Ref} = erlmcp_native_nif:connection_open(Endpoint, Options),
    {ok, #socket{id = Id, ref = Ref}}.

take(#socket{ref = Ref} = Socket, MaxItems, MaxBytes) ->
    {Items, Status} = erlmcp_native_nif:connection_take(Ref, min(MaxItems, ?SLICE), MaxBytes),
    {Items, Status, Socket}.

send(#socket{ref = Ref} = Socket, Data) ->
    {send_direct(Ref, Data), Socket}.

sender(#socket{ref = Ref}) ->
    {?MODULE, Ref}.

send_direct(Ref, Data) when is_binary(Data), byte_size(Data) < ?LARGE ->
    erlmcp_native_nif:connection_send(Ref, Data);
send_direct(Ref, Data) ->
    case iolist_size(Data) < ?LARGE of
        true -> erlmcp_native_nif:connection_send(Ref, Data);
        false -> erlmcp_native_nif:connection_send_large(Ref, Data)
    end.

handle_info({erlmcp_native_io, Id, Notice}, #socket{id = Id} = Socket) ->
    {Notice, Socket};
handle_info(_, _) ->
    unknown.

close(#socket{ref = Ref}) ->
    erlmcp_native_nif:connection_close(Ref).

give(#socket{ref = Ref} = Socket, NewOwner) ->
    ok = erlmcp_native_nif:connection_give(Ref, NewOwner),
    {ok, Socket}.

info(#socket{ref = Ref}) ->
    erlmcp_native_nif:connection_info(Ref).

listen(Endpoint, Options) ->
    case erlmcp_native_nif:listener_open(Endpoint, Options) of
        {ok, Id, Ref} -> {ok, #listener{id = Id, ref = Ref}};
        {error, _} = Error -> Error
    end.

accept(#listener{ref = Ref} = Listener, Max) ->
    {Connections, Status} = erlmcp_native_nif:listener_accept(Ref, Max),
    {[#socket{id = Id, ref = Connection} || {Id, Connection} <- Connections], Status, Listener}.

listener_handle_info({erlmcp_native_io, Id, Notice}, #listener{id = Id} = Listener) ->
    {Notice, Listener};
listener_handle_info(_, _) ->
    unknown.

listener_info(#listener{ref = Ref}) ->
    #{sockname => erlmcp_native_nif:listener_sockname(Ref)}.

listener_close(#listener{ref = Ref}) ->
    erlmcp_native_nif:listener_close(Ref).
