%% @doc The chunked transfer coding (RFC 9112, 7.1), decoded as it arrives.
%%
%% Nothing but the beginning of a line is kept. Lines end with CRLF and have no other control
%% characters than tabs: what one reader takes for the end of a line and another does not is how
%% requests are smuggled. Extensions and trailers are checked and dropped.
-module(erlmcp_native_beam_http_client_chunked).

-export([new/0, decode/2]).

-export_type([decoder/0]).

%% Of one line, the size of a chunk with its extensions or a field of the trailer.
-define(MAX_LINE, 4096).

%% Of all lines of the trailer.
-define(MAX_TRAILER, 16384).

%% 60 bits: a small integer.
-define(MAX_DIGITS, 15).

-record(decoder, {
    part = size :: part(),
    line = <<>> :: binary(),
    trailer = 0 :: non_neg_integer()
}).

-opaque decoder() :: #decoder{}.

-type part() :: size | {data, pos_integer()} | data_end | trailer.

%% @doc At the beginning of a body.
-spec new() -> decoder().
new() -> #decoder{}.

%% @doc Decodes what has arrived. The data are parts of it, not copied. `done': the body is
%% complete, with what follows it. `malformed': what came before the fault.
-spec decode(binary(), decoder()) ->
    {more, [binary()], decoder()}
    | {done, [binary()], Rest :: binary()}
    | {malformed, [binary()]}.
decode(Bytes, #decoder{part = Part, line = <<>>} = D) ->
    step(Part, Bytes, [], D);
decode(Bytes, #decoder{part = Part, line = Line} = D) ->
    step(Part, <<Line/binary, Bytes/binary>>, [], D#decoder{line = <<>>}).

step(size, In, Acc, D) ->
    case line(In) of
        {ok, Line, Rest} -> sized(chunk_size(Line), Rest, Acc, D);
        more -> wait(size, In, Acc, D);
        malformed -> malformed(Acc)
    end;
step({data, Left}, In, Acc, D) ->
    case In of
        <<Data:Left/binary, Rest/binary>> -> step(data_end, Rest, [Data | Acc], D);
        <<>> -> wait({data, Left}, <<>>, Acc, D);
        _ -> wait({data, Left - byte_size(In)}, <<>>, [In | Acc], D)
    end;
step(data_end, <<"\r\n", Rest/binary>>, Acc, D) ->
    step(size, Rest, Acc, D);
step(data_end, In, Acc, D) when In =:= <<>>; In =:= <<"\r">> ->
    wait(data_end, In, Acc, D);
step(data_end, _, Acc, _) ->
    malformed(Acc);
step(trailer, In, Acc, D) ->
    case line(In) of
        {ok, <<>>, Rest} -> {done, lists:reverse(Acc), Rest};
        {ok, Line, Rest} -> trailer(Line, Rest, Acc, D);
        more -> wait(trailer, In, Acc, D);
        malformed -> malformed(Acc)
    end.

sized({ok, 0}, Rest, Acc, D) -> step(trailer, Rest, Acc, D);
sized({ok, Size}, Rest, Acc, D) -> step({data, Size}, Rest, Acc, D);
sized(malformed, _, Acc, _) -> malformed(Acc).

trailer(Line, Rest, Acc, #decoder{trailer = Before} = D) ->
    case Before + byte_size(Line) of
        Size when Size =< ?MAX_TRAILER -> step(trailer, Rest, Acc, D#decoder{trailer = Size});
        _ -> malformed(Acc)
    end.

wait(Part, Line, Acc, D) ->
    {more, lists:reverse(Acc), D#decoder{part = Part, line = Line}}.

malformed(Acc) ->
    {malformed, lists:reverse(Acc)}.

line(In) ->
    case binary:match(In, <<"\n">>) of
        nomatch when byte_size(In) =< ?MAX_LINE + 1 -> more;
        {End, 1} when End > 0, End =< ?MAX_LINE + 1 -> crlf(In, End - 1);
        _ -> malformed
    end.

crlf(In, Size) ->
    case In of
        <<Line:Size/binary, "\r\n", Rest/binary>> ->
            case is_text(Line) of
                true -> {ok, Line, Rest};
                false -> malformed
            end;
        _ ->
            malformed
    end.

is_text(<<C, Rest/binary>>) when C >= $\s, C =/= 127; C =:= $\t -> is_text(Rest);
is_text(<<>>) -> true;
is_text(_) -> false.

chunk_size(Line) -> chunk_size(Line, 0, 0).

chunk_size(<<C, Rest/binary>>, Digits, Size) when C >= $0, C =< $9, Digits < ?MAX_DIGITS ->
    chunk_size(Rest, Digits + 1, Size * 16 + C - $0);
chunk_size(<<C, Rest/binary>>, Digits, Size) when C >= $a, C =< $f, Digits < ?MAX_DIGITS ->
    chunk_size(Rest, Digits + 1, Size * 16 + C - $a + 10);
chunk_size(<<C, Rest/binary>>, Digits, Size) when C >= $A, C =< $F, Digits < ?MAX_DIGITS ->
    chunk_size(Rest, Digits + 1, Size * 16 + C - $A + 10);
chunk_size(Rest, Digits, Size) when Digits > 0 ->
    extension(Rest, Size);
chunk_size(_, _, _) ->
    malformed.

%% Some servers pad the size with spaces.
extension(<<C, Rest/binary>>, Size) when C =:= $\s; C =:= $\t -> extension(Rest, Size);
extension(<<$;, _/binary>>, Size) -> {ok, Size};
extension(<<>>, Size) -> {ok, Size};
extension(_, _) -> malformed.
