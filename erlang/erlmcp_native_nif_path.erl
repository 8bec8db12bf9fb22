%% @doc The `nif' path: the Rust core inside the VM.
-module(erlmcp_native_nif_path).

-behaviour(erlmcp_native_path).

-export([open/2, take/3, send/3, sender/1, send_direct/3, handle_info/2, close/1, give/2, info/1]).
-export([listen/2, accept/2, listener_handle_info/2, listener_info/1, listener_close/1]).
-export([claim_stdio/0]).

-record(socket, {
    id :: non_neg_integer(),
    ref :: erlmcp_native_nif:connection(),
    decode :: none | json
}).

-record(listener, {
    id :: non_neg_integer(),
    ref :: erlmcp_native_nif:listener(),
    decode :: none | json
}).

%% Copying and scanning this much takes about 0.2 ms; more goes to a dirty scheduler.
-define(LARGE, 1048576).

%% Frames taken in one call: building their terms takes about 10 microseconds.
-define(SLICE, 256).

%% Bytes taken in one call beyond the first frame: they may have to be copied.
-define(SLICE_BYTES, 262144).

%% @private
-spec open(erlmcp_native:endpoint(), erlmcp_native_options:connection()) ->
    {ok, #socket{}} | {error, erlmcp_native:reason()}.
open(stdio, #{decode := Decode} = Options) ->
    erlmcp_native_stdio:open(Options, fun() ->
        case erlmcp_native_nif:stdio_open(Options) of
            {ok, Id, Ref} -> {ok, #socket{id = Id, ref = Ref, decode = Decode}, leaving()};
            {error, _} = Error -> Error
        end
    end);
open(Endpoint, Options) ->
    #{decode := Decode} = Options,
    {Id, Ref} = erlmcp_native_nif:connection_open(Endpoint, Options),
    {ok, #socket{id = Id, ref = Ref, decode = Decode}}.

leaving() ->
    {fun erlmcp_native_nif:stdio_is_leaving/0, fun() -> ok end}.

%% @private
-spec take(#socket{}, non_neg_integer(), non_neg_integer()) ->
    {[erlmcp_native_path:item()], erlmcp_native_path:status(), #socket{}}.
take(#socket{ref = Ref, decode = Decode} = Socket, MaxItems, MaxBytes) ->
    {Items, Status} = erlmcp_native_nif:connection_take(
        Ref, min(MaxItems, ?SLICE), min(MaxBytes, ?SLICE_BYTES)
    ),
    {erlmcp_native_decode:items(Decode, nif, Items), Status, Socket}.

%% @private
-spec send(#socket{}, iodata(), erlmcp_native_path:priority()) ->
    {ok | {error, erlmcp_native:reason()}, #socket{}}.
send(#socket{ref = Ref} = Socket, Data, Priority) ->
    {send_direct(Ref, Data, Priority), Socket}.

%% @private
-spec sender(#socket{}) -> erlmcp_native_path:sender().
sender(#socket{ref = Ref}) ->
    {?MODULE, Ref}.

%% @private
-spec send_direct(erlmcp_native_nif:connection(), iodata(), erlmcp_native_path:priority()) ->
    ok | {error, erlmcp_native:reason()}.
send_direct(Ref, Data, Priority) when is_binary(Data), byte_size(Data) < ?LARGE ->
    erlmcp_native_nif:connection_send(Ref, Data, Priority);
send_direct(Ref, Data, Priority) ->
    case iolist_size(Data) < ?LARGE of
        true -> erlmcp_native_nif:connection_send(Ref, Data, Priority);
        false -> erlmcp_native_nif:connection_send_large(Ref, Data, Priority)
    end.

%% @private
-spec handle_info(term(), #socket{}) -> {erlmcp_native_path:notice(), #socket{}} | unknown.
handle_info({erlmcp_native_io, Id, Notice}, #socket{id = Id} = Socket) ->
    {Notice, Socket};
handle_info(_, _) ->
    unknown.

%% @private
-spec close(#socket{}) -> ok.
close(#socket{ref = Ref}) ->
    erlmcp_native_nif:connection_close(Ref).

%% @private
-spec give(#socket{}, pid()) -> {ok, #socket{}}.
give(#socket{ref = Ref} = Socket, NewOwner) ->
    ok = erlmcp_native_nif:connection_give(Ref, NewOwner),
    {ok, Socket}.

%% @private
-spec info(#socket{}) -> erlmcp_native:socket_info().
info(#socket{ref = Ref}) ->
    erlmcp_native_nif:connection_info(Ref).

%% @private
-spec listen(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, #listener{}} | {error, erlmcp_native:reason()}.
listen(Endpoint, #{decode := Decode} = Options) ->
    case erlmcp_native_nif:listener_open(Endpoint, Options) of
        {ok, Id, Ref} -> {ok, #listener{id = Id, ref = Ref, decode = Decode}};
        {error, _} = Error -> Error
    end.

%% @private
-spec accept(#listener{}, pos_integer()) ->
    {[#socket{}], armed | more | {down, erlmcp_native:reason()}, #listener{}}.
accept(#listener{ref = Ref, decode = Decode} = Listener, Max) ->
    {Connections, Status} = erlmcp_native_nif:listener_accept(Ref, Max),
    Sockets = [
        #socket{id = Id, ref = Connection, decode = Decode}
     || {Id, Connection} <- Connections
    ],
    {Sockets, Status, Listener}.

%% @private
-spec listener_handle_info(term(), #listener{}) -> {ready | none, #listener{}} | unknown.
listener_handle_info({erlmcp_native_io, Id, Notice}, #listener{id = Id} = Listener) ->
    {Notice, Listener};
listener_handle_info(_, _) ->
    unknown.

%% @private
-spec listener_info(#listener{}) -> #{sockname := erlmcp_native:address()}.
listener_info(#listener{ref = Ref}) ->
    #{sockname => erlmcp_native_nif:listener_sockname(Ref)}.

%% @private
-spec listener_close(#listener{}) -> ok.
listener_close(#listener{ref = Ref}) ->
    erlmcp_native_nif:listener_close(Ref).

%% @doc Puts the node's own standard input and output aside, before there is a connection over them.
-spec claim_stdio() -> ok | {error, erlmcp_native_stdio:refusal()}.
claim_stdio() ->
    erlmcp_native_nif:stdio_claim().
