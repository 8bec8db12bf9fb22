%% @doc The chunked coding (RFC 9112, 7.1) of a body, of either side, that comes in pieces of any
%% size.
%%
%% Extensions are read over and trailers dropped.
-module(erlmcp_native_beam_http_chunked).

-export([new/1, decode/2]).

-export_type([decoder/0]).

%% Digits of a chunk's size, leading zeros included.
-define(MAX_DIGITS, 16).

%% Of all extensions of a body: one on each byte would make the body many times its size.
-define(MAX_EXTENSIONS, 16384).

-record(decoder, {
    state = size ::
        size
        | {size, Digits :: pos_integer(), Size :: non_neg_integer()}
        | {extension, Size :: non_neg_integer()}
        | {size_end, Size :: non_neg_integer()}
        | {data, Left :: pos_integer()}
        | data_end
        | data_cr
        | trailers,
    extensions = 0 :: non_neg_integer(),
    trailers :: erlmcp_native_beam_http_head:parser()
}).

-opaque decoder() :: #decoder{}.

-spec new(erlmcp_native_beam_http_head:limits()) -> decoder().
new(Limits) ->
    #decoder{trailers = erlmcp_native_beam_http_head:trailers(Limits)}.

%% @doc Decodes on. `done' comes with what follows the body, an error with what came before it.
-spec decode(binary(), decoder()) ->
    {more, [binary()], decoder()}
    | {done, [binary()], Rest :: binary()}
    | {error, erlmcp_native_beam_http_head:refusal(), [binary()]}.
decode(Bin, #decoder{state = State} = D) ->
    decode(State, Bin, [], D).

decode(State, <<>>, Acc, D) ->
    {more, lists:reverse(Acc), D#decoder{state = State}};
decode(size, <<C, Rest/binary>>, Acc, D) ->
    case digit(C) of
        none -> refuse(400, Acc);
        Digit -> decode({size, 1, Digit}, Rest, Acc, D)
    end;
decode({size, Digits, Size}, <<C, Rest/binary>>, Acc, D) ->
    case digit(C) of
        none -> size_over(C, Size, Rest, Acc, D);
        _ when Digits =:= ?MAX_DIGITS -> refuse(400, Acc);
        Digit -> decode({size, Digits + 1, Size * 16 + Digit}, Rest, Acc, D)
    end;
decode({extension, Size}, <<C, Rest/binary>>, Acc, #decoder{extensions = Seen} = D) ->
    case C of
        $\r -> decode({size_end, Size}, Rest, Acc, D);
        _ when Seen =:= ?MAX_EXTENSIONS -> refuse(400, Acc);
        _ when C >= 32, C =/= 127; C =:= $\t ->
            decode({extension, Size}, Rest, Acc, D#decoder{extensions = Seen + 1});
        _ -> refuse(400, Acc)
    end;
decode({size_end, 0}, <<$\n, Rest/binary>>, Acc, D) ->
    decode(trailers, Rest, Acc, D);
decode({size_end, Size}, <<$\n, Rest/binary>>, Acc, D) ->
    decode({data, Size}, Rest, Acc, D);
decode({data, Left}, Bin, Acc, D) ->
    case Bin of
        <<Data:Left/binary, Rest/binary>> -> decode(data_end, Rest, [Data | Acc], D);
        _ -> decode({data, Left - byte_size(Bin)}, <<>>, [Bin | Acc], D)
    end;
decode(data_end, <<$\r, Rest/binary>>, Acc, D) ->
    decode(data_cr, Rest, Acc, D);
decode(data_cr, <<$\n, Rest/binary>>, Acc, D) ->
    decode(size, Rest, Acc, D);
decode(trailers, Bin, Acc, #decoder{trailers = Parser} = D) ->
    case erlmcp_native_beam_http_head:parse(Bin, Parser) of
        {more, More} -> decode(trailers, <<>>, Acc, D#decoder{trailers = More});
        {done, _, Rest} -> {done, lists:reverse(Acc), Rest};
        {error, Refusal} -> refuse(Refusal, Acc)
    end;
decode(_, _, Acc, _) ->
    refuse(400, Acc).

refuse(Refusal, Acc) -> {error, Refusal, lists:reverse(Acc)}.

size_over($\r, Size, Rest, Acc, D) -> decode({size_end, Size}, Rest, Acc, D);
size_over($;, Size, Rest, Acc, D) -> decode({extension, Size}, Rest, Acc, D);
size_over(_, _, _, Acc, _) -> refuse(400, Acc).

digit(C) when C >= $0, C =< $9 -> C - $0;
digit(C) when C >= $a, C =< $f -> C - $a + 10;
digit(C) when C >= $A, C =< $F -> C - $A + 10;
digit(_) -> none.
