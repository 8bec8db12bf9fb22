%% @doc Generators of JSON documents, of documents that are broken, and of terms.
-module(json_gen).

-include("props.hrl").

-import(proper_types, [
    binary/0, float/0, frequency/1, integer/0, integer/2, list/1, oneof/1, vector/2
]).

-export([document/0, broken/0, term/0, strange_term/0, message/0]).

%% @doc A document with a comma, a space and a line break wherever one may be.
document() ->
    sized(fun(Size) -> ?LET(Parts, value(min(Size, 12)), iolist_to_binary(Parts)) end).

%% @doc A document in which something was changed.
broken() ->
    ?LET(
        {Text, Changes},
        {oneof([document(), message()]), list(change())},
        lists:foldl(fun changed/2, Text, Changes)
    ).

%% @doc A term that has JSON and comes back as it is.
term() ->
    sized(fun(Size) -> term(min(Size, 12)) end).

%% @doc A term that may have parts that have no JSON.
strange_term() ->
    sized(fun(Size) -> strange(min(Size, 12)) end).

%% @doc A JSON-RPC message, a batch, or something close to one.
message() ->
    ?LET(
        Parts,
        oneof([request(), [$[, space(), joined(list(request())), space(), $]]]),
        iolist_to_binary([Parts])
    ).

sized(Fun) ->
    ?LET(Size, integer(0, 40), Fun(Size)).

%% Documents.

value(0) ->
    spaced(scalar());
value(Size) ->
    Less = Size div 3,
    frequency([
        {2, spaced(scalar())},
        {2, spaced([$[, space(), joined(list_of(Less, value(Less))), $]])},
        {3, spaced([${, space(), joined(list_of(Less, member(Less))), $}])}
    ]).

list_of(Size, Type) ->
    ?LET(Count, integer(0, Size + 2), vector(Count, Type)).

joined(Type) ->
    ?LET(Items, Type, lists:join($,, Items)).

spaced(Type) ->
    [space(), Type, space()].

space() ->
    frequency([{6, []}, {1, list(oneof([$\s, $\n, $\r, $\t]))}]).

member(Size) ->
    [space(), key(), space(), $:, value(Size)].

%% Few, so that they come more than once, also with and without escapes.
key() ->
    frequency([
        {3,
            oneof([
                <<"\"a\"">>,
                <<"\"\\u0061\"">>,
                <<"\"id\"">>,
                <<"\"inputSchema\"">>,
                <<"\"\"">>
            ])},
        {1, <<"\"structuredContents\"">>},
        {1, string()}
    ]).

scalar() ->
    frequency([
        {1, oneof([<<"true">>, <<"false">>, <<"null">>])},
        {2, number()},
        {3, string()}
    ]).

number() ->
    frequency([
        {3, ?LET(I, integer(), integer_to_binary(I))},
        {2, edge()},
        {1, ?LET({I, Digits}, {oneof([<<>>, <<"-">>]), digits()}, [I, "1", Digits])},
        {2, [
            oneof([<<"0">>, <<"-0">>, <<"7">>, <<"-12">>, <<"123456789012345678901">>]),
            oneof([[], [$., digits(), digit()]]),
            oneof([[], [oneof("eE"), oneof([[], $+, $-]), digit()], [oneof("eE"), exponent()]])
        ]}
    ]).

exponent() ->
    ?LET(E, integer(-400, 400), integer_to_binary(E)).

digit() -> integer($0, $9).

digits() -> list(digit()).

edge() ->
    oneof([
        <<"-0">>,
        <<"-0.0">>,
        <<"-0e1">>,
        <<"999999999999999999">>,
        <<"1000000000000000000">>,
        <<"9223372036854775807">>,
        <<"9223372036854775808">>,
        <<"-9223372036854775808">>,
        <<"-9223372036854775809">>,
        <<"576460752303423487">>,
        <<"576460752303423488">>,
        <<"-576460752303423489">>,
        <<"18446744073709551615">>,
        <<"18446744073709551616">>,
        <<"1.7976931348623157e308">>,
        <<"1.7976931348623159e308">>,
        <<"1e308">>,
        <<"1e309">>,
        <<"2.2250738585072014e-308">>,
        <<"5e-324">>,
        <<"2e-324">>,
        <<"1e-400">>,
        <<"9007199254740993.0">>,
        binary:copy(<<"9">>, 300),
        binary:copy(<<"8">>, 4096),
        binary:copy(<<"8">>, 4097)
    ]).

string() ->
    [$", list(piece()), $"].

piece() ->
    frequency([
        {4, oneof([<<"a">>, <<"word">>, <<"exactly sixteen.">>, <<"/">>, <<16#7f>>])},
        {1, ?LET(N, integer(0, 90), binary:copy(<<"x">>, N))},
        {2, oneof(["\\\"", "\\\\", "\\/", "\\b", "\\f", "\\n", "\\r", "\\t"])},
        {2, unicode_escape()},
        {2, oneof([<<"é"/utf8>>, <<"€"/utf8>>, <<"😀"/utf8>>, <<16#10ffff/utf8>>, <<"߿"/utf8>>])}
    ]).

unicode_escape() ->
    frequency([
        {3, ?LET(Unit, integer(0, 16#ffff), io_lib:format("\\u~4.16.0b", [Unit]))},
        {1, ?LET(Unit, integer(16#d7f0, 16#e00f), io_lib:format("\\u~4.16.0B", [Unit]))},
        {1,
            oneof([
                "\\ud83d\\ude00",
                "\\uD83D\\uDE00",
                "\\ud83d\\ud83d\\ude00",
                "\\u0000",
                "\\ude00"
            ])}
    ]).

%% Changes.

change() ->
    oneof([
        {flip, integer(0, 1000), integer(1, 255)},
        {cut, integer(0, 1000)},
        {drop, integer(0, 1000)},
        {insert, integer(0, 1000),
            oneof(
                [<<C>> || C <- ",]}[{\"\\:0-.e"] ++
                    [
                        <<0>>,
                        <<16#80>>,
                        <<16#c3>>,
                        <<16#ed, 16#a0, 16#80>>,
                        <<16#f4, 16#90>>,
                        <<16#ef, 16#bb, 16#bf>>,
                        <<"\\u12">>,
                        <<"tru">>,
                        binary:copy(<<"[">>, 513)
                    ]
            )}
    ]).

changed(_, <<>>) ->
    <<>>;
changed({cut, At}, Text) ->
    binary_part(Text, 0, At rem byte_size(Text));
changed({insert, At0, Part}, Text) ->
    At = At0 rem byte_size(Text),
    <<Before:At/binary, After/binary>> = Text,
    <<Before/binary, Part/binary, After/binary>>;
changed({drop, At0}, Text) ->
    At = At0 rem byte_size(Text),
    <<Before:At/binary, _, After/binary>> = Text,
    <<Before/binary, After/binary>>;
changed({flip, At0, Mask}, Text) ->
    At = At0 rem byte_size(Text),
    <<Before:At/binary, C, After/binary>> = Text,
    <<Before/binary, (C bxor Mask), After/binary>>.

%% Messages.

request() ->
    Members = [
        oneof([[], <<"\"jsonrpc\":\"2.0\"">>, <<"\"jsonrpc\":\"1.0\"">>, <<"\"jsonrpc\":2">>]),
        oneof([[], [<<"\"id\":">>, oneof([number(), string(), <<"null">>, <<"{}">>])]]),
        oneof([
            [],
            [<<"\"method\":">>, oneof([string(), <<"1">>, <<"null">>])],
            <<"\"\\u006dethod\":\"b\"">>
        ]),
        oneof([[], [<<"\"params\":">>, oneof([value(2), <<"{}">>, <<"[ ]">>])]]),
        oneof([[], [<<"\"result\":">>, value(3)], <<"\"error\":{}">>]),
        oneof([[], <<"\"jsonrpc\":\"2\\u002e0\"">>, <<"\"id\":1">>])
    ],
    frequency([
        {8, ?LET(Given, Members, [${, lists:join($,, [M || M <- Given, M =/= []]), space(), $}])},
        {1, value(3)}
    ]).

%% Terms.

term(0) ->
    oneof([true, false, null, integer(), big(), float(), text()]);
term(Size) ->
    Less = Size div 3,
    frequency([
        {2, term(0)},
        {2, list_of(Less, term(Less))},
        {2, map_of(Less, text(), term(Less))},
        {1, large_map(text(), term(0))}
    ]).

map_of(Size, Key, Value) ->
    ?LET(Pairs, list_of(Size, {Key, Value}), maps:from_list(Pairs)).

%% More than 32 keys: the VM keeps these in another way.
large_map(Key, Value) ->
    ?LET(Pairs, vector(40, {Key, Value}), maps:from_list(Pairs)).

big() ->
    ?LET(
        {Bits, Sign, Low},
        {oneof([58, 59, 60, 62, 63, 64, 65, 128, 1000, 13600]), oneof([1, -1]), integer(-2, 2)},
        Sign * ((1 bsl Bits) + Low)
    ).

text() ->
    ?LET(
        Chars,
        list(
            oneof([
                integer(0, 127),
                integer(0, 31),
                oneof("\"\\/"),
                integer(128, 16#d7ff),
                integer(16#e000, 16#10ffff)
            ])
        ),
        unicode:characters_to_binary(Chars)
    ).

%% In a map of more than 32 keys there is one thing to refuse: which of several comes first is for
%% the VM to say.
strange(0) ->
    frequency([
        {3, term(0)},
        {1, oneof([atom, '', 'é', {}, {1, 2}, self(), fun erlang:self/0, <<1:3>>])},
        {1, oneof([<<16#ff>>, <<"a", 16#c3>>, <<16#ed, 16#a0, 16#80>>, binary()])},
        {1, huge()}
    ]);
strange(Size) ->
    Less = Size div 3,
    frequency([
        {1, strange(0)},
        {3, list_of(Less, strange(Less))},
        {1, [strange(0) | oneof([1, <<"tail">>, atom, #{}])]},
        {3, map_of(Less, strange_key(), strange(Less))},
        {1, ?LET(Map, large_map(text(), term(0)), Map#{<<"one">> => {Map}})}
    ]).

strange_key() ->
    frequency([
        {4, text()},
        {2, oneof([atom, true, null, 'é', '日本', 1, -17, huge()])},
        {1, oneof([1.5, <<16#ff>>, <<1:3>>, [], {a}, #{}])}
    ]).

huge() ->
    ?LET(Digits, integer(4090, 4100), binary_to_integer(binary:copy(<<"7">>, Digits))).
