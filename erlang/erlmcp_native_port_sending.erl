%% @private What the processes that send on a connection of the path `port' share: how many bytes
%% are under way, whether one of them was refused, and whether it is over.
-module(erlmcp_native_port_sending).

-export([new/0, admit/3, want_room/1, left/2, has_room/1, close/1, under_way/1]).

-export_type([sending/0]).

-opaque sending() :: atomics:atomics_ref().

-define(BYTES, 1).
-define(REFUSED, 2).
-define(CLOSED, 3).

-spec new() -> sending().
new() ->
    atomics:new(3, [{signed, true}]).

%% @doc Counts a message that is to be sent, or refuses it. One is always admitted where nothing
%% is under way, however long.
-spec admit(Size :: pos_integer(), Max :: non_neg_integer(), sending()) ->
    ok | {error, busy | closed}.
admit(Size, Max, Sending) ->
    case atomics:get(Sending, ?CLOSED) of
        0 ->
            case atomics:add_get(Sending, ?BYTES, Size) of
                Bytes when Bytes =< Max; Bytes =:= Size ->
                    ok;
                _ ->
                    ok = atomics:sub(Sending, ?BYTES, Size),
                    {error, busy}
            end;
        _ ->
            {error, closed}
    end.

%% @doc Whether the program is to be asked for room: once, until there is.
-spec want_room(sending()) -> boolean().
want_room(Sending) ->
    atomics:exchange(Sending, ?REFUSED, 1) =:= 0.

%% @doc So many bytes are under way no more.
-spec left(non_neg_integer(), sending()) -> ok.
left(Bytes, Sending) ->
    atomics:sub(Sending, ?BYTES, Bytes).

%% @doc There is room again for those that were refused.
-spec has_room(sending()) -> ok.
has_room(Sending) ->
    atomics:put(Sending, ?REFUSED, 0).

%% @doc Nothing is admitted any more.
-spec close(sending()) -> ok.
close(Sending) ->
    atomics:put(Sending, ?CLOSED, 1).

-spec under_way(sending()) -> non_neg_integer().
under_way(Sending) ->
    max(0, atomics:get(Sending, ?BYTES)).
