%% @doc Properties of the framing of the `beam' path. Each compares it with a reference that
%% looks at the whole stream at once.
-module(frame_props).

-include("props.hrl").

-import(proper_types, [binary/0, binary/1, boolean/0, frequency/1, integer/2, list/1, oneof/1]).
-import(test_property, [chunks/2, cuts/0, same/2]).

-export([
    prop_lines_in_any_chunks/0,
    prop_lengths_in_any_chunks/0,
    prop_waiting_counts_every_byte/0,
    prop_encoded_messages_come_back/0
]).

%% @doc Newline framing: the frames do not depend on how the stream is cut into chunks, nor on
%% how many are taken at a time.
prop_lines_in_any_chunks() ->
    ?FORALL(
        {Stream, Cuts, Batch, Settings},
        {line_stream(), cuts(), batch(), settings(line)},
        same(reference_lines(Stream, Settings), run(chunks(Stream, Cuts), Batch, Settings))
    ).

%% @doc The same for length-prefixed framing.
prop_lengths_in_any_chunks() ->
    ?FORALL(
        {Stream, Cuts, Batch, Settings},
        {length_stream(), cuts(), batch(), settings(length4)},
        same(reference_lengths(Stream, Settings), run(chunks(Stream, Cuts), Batch, Settings))
    ).

%% @doc Nothing that could still become a frame is forgotten: what waits is the unfinished end of
%% the stream.
prop_waiting_counts_every_byte() ->
    ?FORALL(
        {Stream, Cuts},
        {line_stream(), cuts()},
        begin
            Settings = settings(line, 1000000, close, false),
            {_, empty, Frames} = run_frames(chunks(Stream, Cuts), {100, 1000}, Settings),
            Unfinished = lists:last(binary:split(Stream, <<"\n">>, [global])),
            same(byte_size(Unfinished), erlmcp_native_beam_frame:waiting(Frames))
        end
    ).

%% @doc What is encoded comes back, whatever lies between; what cannot come back is refused.
prop_encoded_messages_come_back() ->
    ?FORALL(
        {Framing, Messages, Cuts},
        {oneof([line, length4]), list(iodata()), cuts()},
        begin
            Max = 50,
            {Wires, Accepted} = lists:unzip(
                [{Wire, iolist_to_binary(M)} || M <- Messages, Wire <- encode(Framing, Max, M)]
            ),
            Settings = settings(Framing, Max, close, false),
            {Items, _} = run(chunks(iolist_to_binary(Wires), Cuts), {3, 40}, Settings),
            same(Accepted, Items)
        end
    ).

encode(Framing, Max, Message) ->
    Flat = iolist_to_binary(Message),
    Newline = binary:match(Flat, <<"\n">>) =/= nomatch,
    case erlmcp_native_beam_frame:encode(Framing, Max, Message) of
        {ok, Wire, Size} ->
            Size = iolist_size(Wire),
            true = byte_size(Flat) =< Max,
            %% A last carriage return is taken for a part of the delimiter.
            [Wire || Framing =:= length4 orelse binary:last(Flat) =/= $\r];
        {error, frame_too_large} when byte_size(Flat) > Max -> [];
        {error, empty_message} when Framing =:= line, Flat =:= <<>> -> [];
        {error, embedded_newline} when Framing =:= line, Newline -> []
    end.

%% The references.

reference_lines(Stream, Settings) ->
    Parts = [strip(Part) || Part <- binary:split(Stream, <<"\n">>, [global])],
    classify(lists:droplast(Parts), lists:last(Parts), Settings).

classify(Lines, _, #{max_frame_bytes := Max, on_oversize := discard}) ->
    {[limited(Line, Max) || Line <- Lines, Line =/= <<>>], empty};
classify(Lines, Unfinished, #{max_frame_bytes := Max, on_oversize := close}) ->
    Good = lists:takewhile(fun(Line) -> byte_size(Line) =< Max end, Lines),
    Items = [Line || Line <- Good, Line =/= <<>>],
    case Good =:= Lines andalso byte_size(Unfinished) =< Max of
        true -> {Items, empty};
        false -> {Items, too_large}
    end.

limited(Line, Max) when byte_size(Line) > Max -> {oversized, byte_size(Line)};
limited(Line, _) -> Line.

strip(Line) ->
    case Line =/= <<>> andalso binary:last(Line) of
        $\r -> binary:part(Line, 0, byte_size(Line) - 1);
        _ -> Line
    end.

reference_lengths(<<Size:32, Rest/binary>>, #{max_frame_bytes := Max} = Settings) when Size > Max ->
    case {Settings, Rest} of
        {#{on_oversize := close}, _} ->
            {[], too_large};
        {_, <<_:Size/binary, After/binary>>} ->
            before({oversized, Size}, reference_lengths(After, Settings));
        _ ->
            {[], empty}
    end;
reference_lengths(<<Size:32, Frame:Size/binary, Rest/binary>>, Settings) ->
    before(Frame, reference_lengths(Rest, Settings));
reference_lengths(_, _) ->
    {[], empty}.

before(Item, {Items, End}) -> {[Item | Items], End}.

%% The framing under test.

run(Chunks, Batch, Settings) ->
    {Items, End, _} = run_frames(Chunks, Batch, Settings),
    {Items, End}.

run_frames(Chunks, Batch, Settings) ->
    feed(Chunks, Batch, erlmcp_native_beam_frame:new(Settings), []).

feed([], _, Frames, Acc) ->
    {lists:append(lists:reverse(Acc)), empty, Frames};
feed([Chunk | Chunks], Batch, Frames0, Acc0) ->
    case drain(erlmcp_native_beam_frame:push(Chunk, Frames0), Batch, Acc0) of
        {empty, Frames, Acc} -> feed(Chunks, Batch, Frames, Acc);
        {too_large, Frames, Acc} -> {lists:append(lists:reverse(Acc)), too_large, Frames}
    end.

drain(Frames0, {MaxItems, MaxBytes} = Batch, Acc) ->
    %% Looking changes nothing, and does not promise what is not there.
    {[], Glance, Seen} = erlmcp_native_beam_frame:take(Frames0, 0, 0),
    {Items, Status, Frames} = erlmcp_native_beam_frame:take(Seen, MaxItems, MaxBytes),
    true = length(Items) =< MaxItems,
    true = within(Items, MaxBytes),
    true = Glance =:= more orelse Items =:= [],
    true = Glance =/= more orelse Items =/= [],
    case Status of
        more -> drain(Frames, Batch, [Items | Acc]);
        _ -> {Status, Frames, [Items | Acc]}
    end.

within([], _) ->
    true;
within([First | _] = Items, MaxBytes) ->
    lists:sum([size_of(Item) || Item <- Items]) =< max(size_of(First), MaxBytes).

size_of({oversized, _}) -> 0;
size_of(Frame) -> byte_size(Frame).

%% Generators.

settings(Framing) ->
    ?LET(
        {Max, OnOversize, Copy},
        {integer(1, 12), oneof([close, discard]), boolean()},
        settings(Framing, Max, OnOversize, Copy)
    ).

settings(Framing, Max, OnOversize, Copy) ->
    #{framing => Framing, max_frame_bytes => Max, on_oversize => OnOversize, copy => Copy}.

batch() ->
    {integer(1, 5), integer(0, 30)}.

%% Delimiters, lone carriage returns and lengths around the limit are what matters.
line_stream() ->
    ?LET(
        Parts,
        list(frequency([{3, <<"\n">>}, {2, <<"\r">>}, {2, <<"\r\n">>}, {4, text(14)}])),
        iolist_to_binary(Parts)
    ).

text(Max) ->
    ?LET(N, integer(0, Max), binary:copy(<<"x">>, N)).

length_stream() ->
    ?LET(
        {Frames, Tail},
        {list(text(14)), oneof([<<>>, binary(3), <<0, 0, 0, 9, "abc">>])},
        iolist_to_binary([[[<<(byte_size(F)):32>>, F] || F <- Frames], Tail])
    ).

iodata() ->
    ?LET(
        Parts,
        list(oneof([binary(), integer(0, 255), <<"\n">>, <<"\r">>, [binary()]])),
        Parts
    ).
