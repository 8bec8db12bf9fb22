%% @doc Properties of the reader of HTTP answers: what it makes of a stream does not depend on how
%% the stream is cut, and is what was put into it.
-module(http_response_props).

-include("props.hrl").

-import(proper_types, [
    binary/0, boolean/0, byte/0, frequency/1, integer/2, list/1, non_empty/1, oneof/1
]).
-import(test_property, [chunks/2, same/2]).

-export([
    prop_answers_come_back/0,
    prop_any_bytes_in_any_chunks/0,
    prop_almost_answers_in_any_chunks/0
]).

-define(LARGE, 100000).

%% Within the reach of what looks like an answer.
-define(SMALL, 400).

%% @doc An answer comes back as it was meant, with interim ones before it.
prop_answers_come_back() ->
    ?FORALL(
        {Interim, {Status, Fields, Body, Framing}, Cuts},
        {list(oneof([100, 102, 103])), answer(), cuts()},
        begin
            Stream = iolist_to_binary([
                [head(Code, []) || Code <- Interim], written(Status, Fields, Body, Framing)
            ]),
            Expected = {Status, Fields, body(Status, Body), ending(Status, Framing)},
            same(Expected, meaning(run(?LARGE, Stream, Cuts)))
        end
    ).

%% @doc Garbage is the same garbage in any chunks.
prop_any_bytes_in_any_chunks() ->
    ?FORALL({Bytes, Cuts}, {list(byte()), cuts()}, same_in_chunks(list_to_binary(Bytes), Cuts)).

%% @doc So is what looks like an answer: pieces of answers in any order.
prop_almost_answers_in_any_chunks() ->
    ?FORALL(
        {Pieces, Cuts},
        {list(piece()), cuts()},
        same_in_chunks(iolist_to_binary(["HTTP/1.1 200 OK\r\n" | Pieces]), Cuts)
    ).

same_in_chunks(Stream, Cuts) ->
    same(meaning(run(?SMALL, Stream, [1000000])), meaning(run(?SMALL, Stream, Cuts))).

run(MaxHead, Stream, Cuts) ->
    Response = erlmcp_native_beam_http_response:new(<<"GET">>, MaxHead),
    feed(chunks(Stream, Cuts), Response, []).

%% Until it is over: what follows is read by nobody.
feed([Chunk | Chunks], Response0, Acc) ->
    {Events, Response} = erlmcp_native_beam_http_response:feed(Chunk, Response0),
    case is_over(Events) of
        true -> {lists:append(lists:reverse(Acc, [Events])), Chunks};
        false -> feed(Chunks, Response, [Events | Acc])
    end;
feed([], Response, Acc) ->
    {lists:append(lists:reverse(Acc, [erlmcp_native_beam_http_response:eof(Response)])), []}.

is_over([]) -> false;
is_over(Events) -> lists:last(Events) =:= fault orelse element(1, lists:last(Events)) =:= done.

%% Bytes that follow make a connection unfit; whether they come with the last chunk or later is a
%% matter of the cut.
meaning({Events, After}) ->
    Head = [{Status, Fields} || {head, Status, Fields} <- Events],
    Body = iolist_to_binary([Data || {data, Data} <- Events]),
    End =
        case [E || E <- Events, E =:= fault orelse element(1, E) =:= done] of
            [{done, keep}] when After =/= [] -> {done, close};
            [One] -> One;
            [] -> incomplete
        end,
    case Head of
        [{Status, Fields}] -> {Status, Fields, Body, End};
        [] -> {none, Body, End}
    end.

%% Generators.

answer() ->
    ?LET(
        {Status, Own, Body, Framing},
        {oneof([200, 202, 204, 304, 404, 500]), list(field()), parts(), framing()},
        {Status, fields(Own, Body, Framing), Body, Framing}
    ).

parts() -> list(non_empty(binary())).

framing() ->
    ?LET(
        {Kind, Close},
        {oneof([length, chunked, to_the_end]), boolean()},
        {Kind, Close orelse Kind =:= to_the_end}
    ).

field() ->
    {oneof([<<"x">>, <<"x-a">>, <<"content-type">>]), value()}.

value() ->
    ?LET(Words, list(oneof([<<"a">>, <<"b:c">>, <<"\"d\"">>])), join(Words)).

join(Words) -> iolist_to_binary(lists:join(" \t", Words)).

fields(Own, Body, {Kind, Close}) ->
    lists:sublist(Own, 5) ++
        [{<<"connection">>, <<"close">>} || Close] ++
        case Kind of
            length -> [{<<"content-length">>, integer_to_binary(iolist_size(Body))}];
            chunked -> [{<<"transfer-encoding">>, <<"chunked">>}];
            to_the_end -> []
        end.

written(Status, Fields, Body, {Kind, _}) ->
    [
        head(Status, Fields),
        case Kind of
            _ when Status =:= 204; Status =:= 304 -> [];
            chunked -> coded(Body);
            _ -> Body
        end
    ].

head(Status, Fields) ->
    [
        ["HTTP/1.1 ", integer_to_list(Status), " Some\r\n"],
        [[string:titlecase(Name), ":  ", Value, " \r\n"] || {Name, Value} <- Fields],
        "\r\n"
    ].

coded(Parts) ->
    [
        [[integer_to_list(byte_size(Part), 16), ";x=y\r\n", Part, "\r\n"] || Part <- Parts],
        "0\r\nTrailer: x\r\n\r\n"
    ].

body(Status, _) when Status =:= 204; Status =:= 304 -> <<>>;
body(_, Body) -> iolist_to_binary(Body).

ending(_, {_, true}) -> {done, close};
ending(_, {_, false}) -> {done, keep}.

piece() ->
    oneof([
        <<"Content-Length: 3\r\n">>,
        <<"Content-Length: 2, 2\r\n">>,
        <<"content-length:0\r\n">>,
        <<"Transfer-Encoding: chunked\r\n">>,
        <<"transfer-encoding: gzip, chunked\r\n">>,
        <<"Connection: close\r\n">>,
        <<"X: y\r\n">>,
        <<" folded\r\n">>,
        <<"\r\n">>,
        <<"\r\n">>,
        <<"\r">>,
        <<"\n">>,
        <<"3\r\nabc\r\n">>,
        <<"0\r\n\r\n">>,
        <<"0\r\n">>,
        <<"HTTP/1.1 100 Continue\r\n\r\n">>,
        <<"abc">>,
        ?LET(N, integer(0, 200), binary:copy(<<"x">>, N)),
        binary()
    ]).

%% Sizes of chunks, used in turn; a mean of 1 is the byte-at-a-time peer.
cuts() ->
    frequency([{1, [1]}, {1, [1000000]}, {3, non_empty(list(integer(1, 9)))}]).
