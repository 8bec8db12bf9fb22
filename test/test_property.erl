%% What properties compare with, and streams that they cut.
-module(test_property).

-export([same/2, cuts/0, chunks/2]).

-import(proper_types, [integer/2, list/1, non_empty/1, oneof/1]).

same(Same, Same) ->
    true;
same(Expected, Got) ->
    io:format("expected ~p~ngot      ~p~n", [Expected, Got]),
    false.

%% Sizes of chunks, used in turn; a mean of 1 is the byte-at-a-time peer.
cuts() ->
    oneof([[1], [1000000], non_empty(list(integer(1, 9)))]).

chunks(Stream, Cuts) ->
    chunks(Stream, Cuts, Cuts).

chunks(<<>>, _, _) ->
    [];
chunks(Stream, [], Cuts) ->
    chunks(Stream, Cuts, Cuts);
chunks(Stream, [Size | Sizes], Cuts) ->
    Taken = min(Size, byte_size(Stream)),
    <<Chunk:Taken/binary, Rest/binary>> = Stream,
    [Chunk | chunks(Rest, Sizes, Cuts)].
