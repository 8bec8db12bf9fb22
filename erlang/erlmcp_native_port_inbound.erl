%% @private Packets of frames that wait for their owner. Pure.
%%
%% A packet is opened when something of it is taken. It counts as taken when all of it was.
-module(erlmcp_native_port_inbound).

-include("erlmcp_native_port.hrl").

-export([new/1, push/2, take/3, is_empty/1, waiting/1]).

-export_type([inbound/0]).

-record(open, {
    cost :: non_neg_integer(),
    %% Of the frames that are left, where they are in the block, or how long they were.
    table :: binary(),
    from :: {block, binary()} | {terms, [erlmcp_native_path:item()]}
}).

-record(inbound, {
    copied :: non_neg_integer() | infinity,
    open = none :: none | #open{},
    packets = queue:new() :: queue:queue(binary()),
    waiting = 0 :: non_neg_integer()
}).

-opaque inbound() :: #inbound{}.

%% Frames up to this size are copied: a reference would be larger and keep the packet.
-define(COPIED, 64).

-define(HEAD, 9).

-spec new(Copy :: boolean()) -> inbound().
new(true) -> #inbound{copied = infinity};
new(false) -> #inbound{copied = ?COPIED}.

%% @doc Says also how much of the window the packet has taken.
-spec push(binary(), inbound()) -> {Cost :: non_neg_integer(), inbound()}.
push(Packet, #inbound{packets = Packets, waiting = Waiting} = Inbound) ->
    Cost = cost(Packet),
    {Cost, Inbound#inbound{packets = queue:in(Packet, Packets), waiting = Waiting + Cost}}.

-spec is_empty(inbound()) -> boolean().
is_empty(#inbound{open = none, packets = Packets}) -> queue:is_empty(Packets);
is_empty(_) -> false.

%% @doc What waits, in bytes, as the program counts them.
-spec waiting(inbound()) -> non_neg_integer().
waiting(#inbound{waiting = Waiting}) ->
    Waiting.

%% @doc Takes at most `MaxItems' items and, beyond the first, at most `MaxBytes' bytes, and says
%% how many bytes the program may send instead.
-spec take(inbound(), non_neg_integer(), non_neg_integer()) ->
    {[erlmcp_native_path:item()], Cost :: non_neg_integer(), inbound()}.
take(Inbound, MaxItems, MaxBytes) ->
    take(Inbound, MaxItems, MaxBytes, [], 0).

take(#inbound{open = none, packets = Packets} = Inbound, Items, Bytes, Acc, Cost) when
    Items > 0
->
    case queue:out(Packets) of
        {empty, _} ->
            done(Acc, Cost, Inbound);
        {{value, Packet}, Rest} ->
            Opened = Inbound#inbound{open = open(Packet), packets = Rest},
            take(Opened, Items, Bytes, Acc, Cost)
    end;
take(#inbound{open = #open{} = Open} = Inbound, Items, Bytes, Acc0, Cost) when Items > 0 ->
    #open{table = Table, from = From} = Open,
    case frames(Table, From, Items, Bytes, Acc0, Inbound#inbound.copied) of
        {<<>>, _, ItemsLeft, BytesLeft, Acc} ->
            Next = Inbound#inbound{open = none},
            take(Next, ItemsLeft, BytesLeft, Acc, Cost + Open#open.cost);
        {Left, Rest, _, _, Acc} ->
            done(Acc, Cost, Inbound#inbound{open = Open#open{table = Left, from = Rest}})
    end;
take(Inbound, _, _, Acc, Cost) ->
    done(Acc, Cost, Inbound).

done(Acc, Cost, #inbound{waiting = Waiting} = Inbound) ->
    {lists:reverse(Acc), Cost, Inbound#inbound{waiting = Waiting - Cost}}.

open(<<?FROM_FRAMES, _:64, Count:32, Rest/binary>> = Packet) ->
    {Table, Block} = split_binary(Rest, 8 * Count),
    #open{cost = cost(Packet), table = Table, from = {block, Block}};
open(<<?FROM_JSON, _:64, Count:32, Rest/binary>> = Packet) ->
    {Table, Terms} = split_binary(Rest, 4 * Count),
    #open{cost = cost(Packet), table = Table, from = {terms, erlmcp_native_port_term:read(Terms)}};
open(<<?FROM_OVERSIZED, _:64, Size:64>> = Packet) ->
    #open{cost = cost(Packet), table = <<0:32>>, from = {terms, [{oversized, Size}]}}.

cost(Packet) -> byte_size(Packet) - ?HEAD.

%% Frames, as far as the bounds allow.
frames(<<Start:32, Len:32, Table/binary>>, {block, Block} = From, Items, Bytes, Acc, Copied) when
    Items > 0, Len =< Bytes orelse Acc =:= []
->
    Frame = frame(binary:part(Block, Start, Len), Copied),
    frames(Table, From, Items - 1, max(0, Bytes - Len), [Frame | Acc], Copied);
frames(<<Len:32, Table/binary>>, {terms, [Item | Terms]}, Items, Bytes, Acc, Copied) when
    Items > 0, Len =< Bytes orelse Acc =:= []
->
    frames(Table, {terms, Terms}, Items - 1, max(0, Bytes - Len), [Item | Acc], Copied);
frames(Table, From, Items, Bytes, Acc, _) ->
    {Table, From, Items, Bytes, Acc}.

%% Atoms are larger than numbers.
frame(Frame, Copied) when byte_size(Frame) =< Copied -> binary:copy(Frame);
frame(Frame, _) -> Frame.
