%% @doc Where messages begin and end in a stream of bytes. Pure.
%%
%% Bytes go in as the chunks in which they arrive (`push/2') and come out as frames (`take/3').
%% Every byte is looked at once, however it arrives: a chunk is searched for all of its newlines
%% when it comes in, and what follows the last of them is kept and not searched again.
%%
%% Bytes that no delimiter follows are no frame. At the end of the stream they are dropped.
-module(erlmcp_native_beam_frame).

-export([new/1, push/2, take/3, waiting/1, encode/3]).

-export_type([frames/0, settings/0]).

%% Frames up to this size become heap binaries: a reference to the chunk would cost as much
%% and keep the whole chunk alive.
-define(SMALL, 64).

%% Incomplete frames are gathered in pieces of this size, so that a peer that sends byte by byte
%% costs a byte of memory for each, not a binary and a list cell.
-define(PIECE, 65536).
-define(SMALL_PIECE, 4096).

-type settings() :: #{
    framing := erlmcp_native_options:framing(),
    max_frame_bytes := pos_integer(),
    on_oversize := close | discard,
    copy := boolean(),
    _ => _
}.

-record(frames, {
    framing :: erlmcp_native_options:framing(),
    max :: pos_integer(),
    on_oversize :: close | discard,
    copy :: boolean(),
    newline :: binary:cp(),
    %% The last chunk, how much of it is done with, and the newlines in the rest.
    chunk = <<>> :: binary(),
    pos = 0 :: non_neg_integer(),
    newlines = [] :: [{non_neg_integer(), 1}],
    %% The beginning of a frame from earlier chunks: its size, and its pieces, last first.
    held = 0 :: non_neg_integer(),
    tail = <<>> :: binary(),
    pieces = [] :: [binary()],
    %% Length of the frame whose prefix has been read (length-prefixed).
    length = none :: non_neg_integer() | none,
    %% A frame over the limit that is being dropped. Line: its size so far without, and whether
    %% there is, a last carriage return. Length-prefixed: its size, and what is still to come.
    skip = none ::
        none | {line, non_neg_integer(), boolean()} | {length, pos_integer(), non_neg_integer()},
    failed = false :: boolean()
}).

-opaque frames() :: #frames{}.

%% @doc At the start of a stream.
-spec new(settings()) -> frames().
new(#{framing := Framing, max_frame_bytes := Max, on_oversize := OnOversize, copy := Copy}) ->
    #frames{
        framing = Framing,
        max = Max,
        on_oversize = OnOversize,
        copy = Copy,
        newline = binary:compile_pattern(<<"\n">>)
    }.

%% @doc Appends a chunk. Only after `take/3' has said `empty'.
-spec push(binary(), frames()) -> frames().
push(Chunk, #frames{framing = line, newline = Newline} = F) ->
    F#frames{chunk = Chunk, pos = 0, newlines = binary:matches(Chunk, Newline)};
push(Chunk, F) ->
    F#frames{chunk = Chunk, pos = 0}.

%% @doc At most `MaxItems' items and, beyond the first, at most `MaxBytes' bytes. `empty': the
%% next needs another chunk. `too_large': the next frame is over the limit, and frames over the
%% limit are not discarded; nothing comes after it.
-spec take(frames(), MaxItems :: non_neg_integer(), MaxBytes :: non_neg_integer()) ->
    {[erlmcp_native_path:item()], more | empty | too_large, frames()}.
take(#frames{failed = true} = F, _, _) ->
    {[], too_large, F};
take(#frames{framing = line} = F, N, Bytes) ->
    begun_line(F, N, Bytes);
take(F, N, Bytes) ->
    lengths(F, N, Bytes, []).

%% @doc Bytes that have been pushed and not been taken or dropped.
-spec waiting(frames()) -> non_neg_integer().
waiting(#frames{chunk = Chunk, pos = Pos, held = Held}) ->
    Held + byte_size(Chunk) - Pos.

%% @doc What goes on the wire for a message, and its size. `badarg' if it is no iodata.
-spec encode(erlmcp_native_options:framing(), Max :: pos_integer(), iodata()) ->
    {ok, iodata(), Size :: pos_integer()} | {error, erlmcp_native:reason()}.
encode(Framing, Max, Data) ->
    case iolist_size(Data) of
        Size when Size > Max -> {error, frame_too_large};
        Size when Framing =:= length4 -> {ok, [<<Size:32>>, Data], Size + 4};
        0 -> {error, empty_message};
        Size -> encode_line(Data, Size)
    end.

encode_line(Data, Size) when is_binary(Data), Size > ?SMALL_PIECE ->
    case binary:match(Data, <<"\n">>) of
        nomatch -> {ok, [Data, $\n], Size + 1};
        _ -> {error, embedded_newline}
    end;
encode_line(Data, Size) ->
    Line = iolist_to_binary([Data, $\n]),
    case binary:match(Line, <<"\n">>) of
        {Size, 1} -> {ok, Line, Size + 1};
        _ -> {error, embedded_newline}
    end.

%% The first line of a chunk may have begun in an earlier one.
begun_line(#frames{newlines = []} = F, _, _) ->
    rest_of_line(F, []);
begun_line(#frames{skip = {line, _, _}} = F, N, Bytes) ->
    dropped_line(F, N, Bytes);
begun_line(#frames{held = 0} = F, N, Bytes) ->
    #frames{newlines = Newlines, chunk = Chunk, pos = Pos} = F,
    lines(Newlines, Pos, Chunk, N, Bytes, F, []);
begun_line(F, N, Bytes) ->
    held_line(F, N, Bytes).

dropped_line(#frames{skip = {line, _, _}} = F, 0, _) ->
    {[], more, F};
dropped_line(#frames{skip = Skip, newlines = [{End, _} | Newlines]} = F, N, Bytes) ->
    #frames{chunk = Chunk, pos = Pos} = F,
    {line, Size, _} = drop_line(binary_part(Chunk, Pos, End - Pos), Skip),
    After = F#frames{skip = none, newlines = Newlines, pos = End + 1},
    lines(Newlines, End + 1, Chunk, N - 1, Bytes, After, [{oversized, Size}]).

held_line(#frames{newlines = [{End, _} | Newlines], chunk = Chunk, pos = Pos} = F, N, Bytes) ->
    Size = F#frames.held + End - Pos - returns(F, binary_part(Chunk, Pos, End - Pos)),
    case fits(Size, N, F) of
        skip ->
            After = release(F#frames{newlines = Newlines, pos = End + 1}),
            lines(Newlines, End + 1, Chunk, N, Bytes, After, []);
        failed ->
            fail(F, []);
        more ->
            {[], more, F};
        Fit ->
            Item = held_item(Fit, F, Size, binary_part(Chunk, Pos, End - Pos)),
            After = release(F#frames{newlines = Newlines, pos = End + 1}),
            lines(Newlines, End + 1, Chunk, N - 1, Bytes - Size, After, [Item])
    end.

held_item(oversized, _, Size, _) -> {oversized, Size};
held_item(frame, F, Size, Part) -> binary_part(join(F, Part), 0, Size).

%% The lines that lie within the chunk.
lines([{End, _} | Rest] = Newlines, Pos, Chunk, N, Bytes, F, Acc) ->
    case line_size(Chunk, Pos, End) of
        0 ->
            lines(Rest, End + 1, Chunk, N, Bytes, F, Acc);
        Size when Size > F#frames.max ->
            case fits(Size, N, F) of
                failed ->
                    fail(F, Acc);
                more ->
                    {lists:reverse(Acc), more, F#frames{newlines = Newlines, pos = Pos}};
                oversized ->
                    lines(Rest, End + 1, Chunk, N - 1, Bytes, F, [{oversized, Size} | Acc])
            end;
        Size when N =:= 0; Size > Bytes, Acc =/= [] ->
            {lists:reverse(Acc), more, F#frames{newlines = Newlines, pos = Pos}};
        Size ->
            Frame = cut(Chunk, Pos, Size, F#frames.copy),
            lines(Rest, End + 1, Chunk, N - 1, Bytes - Size, F, [Frame | Acc])
    end;
lines([], Pos, _, _, _, F, Acc) ->
    rest_of_line(F#frames{newlines = [], pos = Pos}, Acc).

line_size(_, Pos, Pos) ->
    0;
line_size(Chunk, Pos, End) ->
    case binary:at(Chunk, End - 1) of
        $\r -> End - 1 - Pos;
        _ -> End - Pos
    end.

%% What is to be done with a complete frame.
fits(0, _, _) -> skip;
fits(Size, _, #frames{max = Max, on_oversize = close}) when Size > Max -> failed;
fits(_, 0, _) -> more;
fits(Size, _, #frames{max = Max}) when Size > Max -> oversized;
fits(_, _, _) -> frame.

%% The bytes after the last newline: kept, or, once they must be over the limit, dropped. A
%% carriage return at their end does not count yet, it may belong to the delimiter.
rest_of_line(#frames{chunk = Chunk, pos = Pos} = F, Acc) ->
    Rest = binary_part(Chunk, Pos, byte_size(Chunk) - Pos),
    Size = F#frames.held + byte_size(Rest),
    Returns = returns(F, Rest),
    Done = F#frames{chunk = <<>>, pos = 0},
    case F of
        #frames{skip = {line, _, _} = Skip} ->
            {lists:reverse(Acc), empty, Done#frames{skip = drop_line(Rest, Skip)}};
        #frames{max = Max} when Size - Returns =< Max ->
            {lists:reverse(Acc), empty, hold(Rest, byte_size(Chunk), Done)};
        #frames{on_oversize = close} ->
            fail(F, Acc);
        _ ->
            Skip = {line, Size - Returns, Returns =:= 1},
            {lists:reverse(Acc), empty, (release(Done))#frames{skip = Skip}}
    end.

drop_line(<<>>, Skip) ->
    Skip;
drop_line(Part, {line, Size, HadReturn}) ->
    HasReturn = binary:last(Part) =:= $\r,
    {line, Size + one(HadReturn) + byte_size(Part) - one(HasReturn), HasReturn}.

%% 1 if what is held and `Part' together end in a carriage return.
returns(#frames{held = 0}, <<>>) -> 0;
returns(#frames{tail = <<>>, pieces = [Last | _]}, <<>>) -> one(binary:last(Last) =:= $\r);
returns(#frames{tail = Tail}, <<>>) -> one(binary:last(Tail) =:= $\r);
returns(_, Part) -> one(binary:last(Part) =:= $\r).

one(true) -> 1;
one(false) -> 0.

lengths(#frames{skip = {length, Size, Left}} = F, N, Bytes, Acc) ->
    #frames{chunk = Chunk, pos = Pos} = F,
    case byte_size(Chunk) - Pos of
        Available when Available < Left ->
            Skip = {length, Size, Left - Available},
            {lists:reverse(Acc), empty, F#frames{chunk = <<>>, pos = 0, skip = Skip}};
        _ when N =:= 0 ->
            {lists:reverse(Acc), more, F};
        _ ->
            After = F#frames{pos = Pos + Left, skip = none},
            lengths(After, N - 1, Bytes, [{oversized, Size} | Acc])
    end;
lengths(#frames{length = none} = F, N, Bytes, Acc) ->
    case prefix(F) of
        {Size, After} when Size =< F#frames.max ->
            lengths(After#frames{length = Size}, N, Bytes, Acc);
        {_, #frames{on_oversize = close}} ->
            fail(F, Acc);
        {Size, After} ->
            lengths(After#frames{skip = {length, Size, Size}}, N, Bytes, Acc);
        none ->
            {lists:reverse(Acc), empty, hold_rest(F)}
    end;
lengths(#frames{length = Size, held = Held, chunk = Chunk, pos = Pos} = F, N, Bytes, Acc) ->
    Missing = Size - Held,
    case byte_size(Chunk) - Pos of
        Available when Available < Missing ->
            {lists:reverse(Acc), empty, hold_rest(F)};
        _ when N =:= 0; Size > Bytes, Acc =/= [] ->
            {lists:reverse(Acc), more, F};
        _ ->
            Frame = length_frame(F, Missing),
            After = release(F#frames{length = none, pos = Pos + Missing}),
            lengths(After, N - 1, Bytes - Size, [Frame | Acc])
    end.

length_frame(#frames{held = 0, chunk = Chunk, pos = Pos, copy = Copy}, Size) ->
    cut(Chunk, Pos, Size, Copy);
length_frame(#frames{chunk = Chunk, pos = Pos} = F, Missing) ->
    join(F, binary_part(Chunk, Pos, Missing)).

prefix(#frames{held = Held, chunk = Chunk, pos = Pos} = F) ->
    Missing = 4 - Held,
    case byte_size(Chunk) - Pos of
        Available when Available < Missing ->
            none;
        _ ->
            <<Size:32>> = join(F, binary_part(Chunk, Pos, Missing)),
            {Size, release(F#frames{pos = Pos + Missing})}
    end.

hold_rest(#frames{chunk = Chunk, pos = Pos} = F) ->
    Rest = binary_part(Chunk, Pos, byte_size(Chunk) - Pos),
    hold(Rest, byte_size(Chunk), F#frames{chunk = <<>>, pos = 0}).

hold(<<>>, _, F) ->
    F;
hold(Part, ChunkSize, #frames{held = Held, tail = <<>>, pieces = Pieces} = F) when
    byte_size(Part) >= ?SMALL_PIECE
->
    F#frames{held = Held + byte_size(Part), pieces = [unshare(Part, ChunkSize) | Pieces]};
hold(Part, _, #frames{held = Held, tail = Tail, pieces = Pieces} = F) ->
    Grown = F#frames{held = Held + byte_size(Part)},
    case <<Tail/binary, Part/binary>> of
        Piece when byte_size(Piece) >= ?PIECE ->
            Grown#frames{tail = <<>>, pieces = [Piece | Pieces]};
        Piece ->
            Grown#frames{tail = Piece}
    end.

%% The end of a chunk must not keep a chunk alive that is much larger, perhaps for hours.
unshare(Part, ChunkSize) when byte_size(Part) * 2 =< ChunkSize -> binary:copy(Part);
unshare(Part, _) -> Part.

join(#frames{held = 0}, Part) -> Part;
join(#frames{tail = T, pieces = Ps}, Part) -> iolist_to_binary(lists:reverse(Ps, [T, Part])).

release(F) ->
    F#frames{held = 0, tail = <<>>, pieces = []}.

fail(F, Acc) ->
    Failed = release(F#frames{chunk = <<>>, pos = 0, newlines = [], failed = true}),
    {lists:reverse(Acc), too_large, Failed}.

cut(Chunk, Pos, Size, Copy) when Copy; Size =< ?SMALL ->
    binary:copy(binary_part(Chunk, Pos, Size));
cut(Chunk, Pos, Size, _) ->
    binary_part(Chunk, Pos, Size).
