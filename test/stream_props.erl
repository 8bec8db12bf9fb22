%% Any bytes, cut in any way, give the same frames on every path.
-module(stream_props).

-include("props.hrl").

-import(proper_types, [byte/0, frequency/1, list/1, oneof/1]).

-export([prop_any_chunking/1]).

-define(WAIT, 10000).
-define(MAX, 12).

%% `Pair' opens a connection whose peer is a plain socket; see contract_SUITE.
prop_any_chunking(Pair) ->
    ?FORALL({Chunks, Policy}, {list(chunk()), oneof([close, discard])},
        begin
            {Conn, Peer} = Pair(#{max_frame_bytes => ?MAX, on_oversize => Policy}),
            _ = [gen_tcp:send(Peer, Chunk) || Chunk <- Chunks],
            ok = gen_tcp:close(Peer),
            Expected = expected(reference(iolist_to_binary(Chunks)), Policy),
            Received = received(Conn, []),
            agree(Expected, Received)
        end).

chunk() ->
    Byte = frequency([{3, $\n}, {2, $\r}, {12, $x}, {1, byte()}]),
    ?LET(Bytes, list(Byte), list_to_binary(Bytes)).

%% Newline framing without any regard to cost: what is complete, and how long the rest is.
reference(Stream) ->
    Lines = binary:split(Stream, <<"\n">>, [global]),
    Whole = [Line || Raw <- lists:droplast(Lines), Line <- [strip(Raw)], Line =/= <<>>],
    {Whole, byte_size(strip(lists:last(Lines)))}.

strip(Line) ->
    Size = byte_size(Line) - 1,
    case Line of
        <<Start:Size/binary, "\r">> when Size >= 0 -> Start;
        _ -> Line
    end.

expected({Lines, _}, discard) ->
    {[item(Line) || Line <- Lines], closed};
expected({Lines, Rest}, close) ->
    case lists:splitwith(fun(Line) -> byte_size(Line) =< ?MAX end, Lines) of
        {Good, []} when Rest =< ?MAX -> {Good, closed};
        {Good, _} -> {Good, frame_too_large}
    end.

item(Line) when byte_size(Line) =< ?MAX -> Line;
item(Line) -> {oversized, byte_size(Line)}.

received(Conn, Acc) ->
    receive
        {erlmcp_native, Conn, {frames, Items}} -> received(Conn, [Items | Acc]);
        {erlmcp_native, Conn, {down, Reason, final}} -> {lists:append(lists:reverse(Acc)), Reason}
    after ?WAIT -> {lists:append(lists:reverse(Acc)), nothing}
    end.

%% A socket that is closed while the peer still sends is reset, which may overtake the frames'
%% reader: what was received is then a beginning of what was expected.
agree(Same, Same) -> true;
agree({Items, _}, {Items, reset}) -> true;
agree(_, _) -> false.
