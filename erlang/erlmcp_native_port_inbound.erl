%% @private Packets of frames that wait for their owner. Pure.
-module(erlmcp_native_port_inbound).

-include("erlmcp_native_port.hrl").

-export([new/0, push/2, take/3, is_empty/1, waiting/1]).

-export_type([inbound/0]).

%% A packet that has been begun: how much of it is not frames, the places of the frames that are
%% left, and the bytes that these places are in.
-record(open, {
    cost :: non_neg_integer(),
    table :: binary(),
    block :: binary()
}).

-record(inbound, {
    open = none :: none | #open{},
    packets = queue:new() :: queue:queue(binary()),
    waiting = 0 :: non_neg_integer()
}).

-opaque inbound() :: #inbound{}.

%% Frames up to this size are copied: a reference would be larger and keep the packet.
-define(COPIED, 64).

-define(HEAD, 9).

-spec new() -> inbound().
new() ->
    #inbound{}.

-spec push(binary(), inbound()) -> inbound().
push(Packet, #inbound{packets = Packets, waiting = Waiting} = Inbound) ->
    Inbound#inbound{
        packets = queue:in(Packet, Packets), waiting = Waiting + byte_size(Packet) - ?HEAD
    }.

-spec is_empty(inbound()) -> boolean().
is_empty(#inbound{open = none, packets = Packets}) -> queue:is_empty(Packets);
is_empty(_) -> false.

%% @doc What waits, in bytes, as the program counts them.
-spec waiting(inbound()) -> non_neg_integer().
waiting(#inbound{waiting = Waiting}) ->
    Waiting.

%% @doc Takes at most `MaxItems' items and, beyond the first, at most `MaxBytes' bytes, and says
%% what the program may send instead.
-spec take(inbound(), non_neg_integer(), non_neg_integer()) ->
    {[erlmcp_native_path:item()], Cost :: non_neg_integer(), inbound()}.
take(Inbound, MaxItems, MaxBytes) ->
    take(Inbound, MaxItems, MaxBytes, [], 0).

take(#inbound{open = none} = Inbound, MaxItems, MaxBytes, Acc, Cost) when MaxItems > 0 ->
    case queue:out(Inbound#inbound.packets) of
        {empty, _} ->
            done(Acc, Cost, Inbound);
        {{value, Packet}, Rest} ->
            opened(Packet, Inbound#inbound{packets = Rest}, MaxItems, MaxBytes, Acc, Cost)
    end;
take(#inbound{open = #open{}} = Inbound, MaxItems, MaxBytes, Acc0, Cost0) when MaxItems > 0 ->
    #inbound{open = #open{table = Table0, block = Block, cost = PacketCost}} = Inbound,
    {Table, Left, Bytes, Acc} = frames(Table0, Block, MaxItems, MaxBytes, Acc0),
    case Table of
        <<>> ->
            Closed = Inbound#inbound{open = none},
            take(Closed, Left, Bytes, Acc, Cost0 + PacketCost);
        _ ->
            Open = (Inbound#inbound.open)#open{table = Table},
            done(Acc, Cost0, Inbound#inbound{open = Open})
    end;
take(Inbound, _, _, Acc, Cost) ->
    done(Acc, Cost, Inbound).

done(Acc, Cost, #inbound{waiting = Waiting} = Inbound) ->
    {lists:reverse(Acc), Cost, Inbound#inbound{waiting = Waiting - Cost}}.

opened(<<?FROM_FRAMES, _:64, Count:32, Rest/binary>> = Packet, Inbound, Items, Bytes, Acc, Cost) ->
    Size = 8 * Count,
    <<Table:Size/binary, Block/binary>> = Rest,
    Open = #open{cost = byte_size(Packet) - ?HEAD, table = Table, block = Block},
    take(Inbound#inbound{open = Open}, Items, Bytes, Acc, Cost);
opened(<<?FROM_OVERSIZED, _:64, Size:64>>, Inbound, Items, Bytes, Acc, Cost) ->
    take(Inbound, Items - 1, Bytes, [{oversized, Size} | Acc], Cost + 8).

%% Frames, as far as the bounds allow.
frames(<<Start:32, Len:32, Table/binary>>, Block, Items, Bytes, Acc) when
    Items > 0, Len =< Bytes orelse Acc =:= []
->
    frames(Table, Block, Items - 1, max(0, Bytes - Len), [frame(Block, Start, Len) | Acc]);
frames(Table, _, Items, Bytes, Acc) ->
    {Table, Items, Bytes, Acc}.

frame(Block, Start, Len) when Len =< ?COPIED -> binary:copy(binary:part(Block, Start, Len));
frame(Block, Start, Len) -> binary:part(Block, Start, Len).
