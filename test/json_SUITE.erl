%% @doc JSON: one list of cases for both paths.
-module(json_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-define(BOM, 16#ef, 16#bb, 16#bf).

all() ->
    [{group, nif}, {group, beam}].

groups() ->
    [{nif, cases()}, {beam, cases()}].

cases() ->
    [
        names_that_come_twice,
        numbers,
        surrogates,
        byte_order_mark,
        faults,
        depth_limit,
        null_atom,
        existing_atoms,
        copied_strings,
        referred_strings,
        iodata,
        written,
        null_atom_written,
        refusals,
        envelopes,
        batches,
        batch_limit,
        wrong_options,
        wrong_arguments
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

%% What is made of a document where others do otherwise.

names_that_come_twice(Config) ->
    Decoded = fun(Text) -> decoded(Text, Config) end,
    ?assertEqual(#{<<"a">> => 3}, Decoded(<<"{\"a\":1,\"a\":2,\"\\u0061\":3}">>)),
    Members = [[",\"", integer_to_binary(I rem 40), "\":", integer_to_binary(I)]
     || I <- lists:seq(1, 4000)],
    Text = iolist_to_binary(["{\"0\":0", Members, "}"]),
    Expected = maps:from_list([{integer_to_binary(I rem 40), I} || I <- lists:seq(1, 4000)]),
    ?assertEqual(Expected, Decoded(Text)).

numbers(Config) ->
    Big = 123456789012345678901234567890,
    Longest = binary:copy(<<"7">>, 4096),
    Cases = [
        {<<"0">>, 0},
        {<<"-0">>, 0},
        {<<"-0.0">>, -0.0},
        {<<"-0e1">>, -0.0},
        {<<"0e-1">>, 0.0},
        {<<"1E2">>, 100.0},
        {<<"1.0">>, 1.0},
        {<<"576460752303423488">>, 1 bsl 59},
        {<<"-9223372036854775809">>, -(1 bsl 63) - 1},
        {<<"18446744073709551616">>, 1 bsl 64},
        {integer_to_binary(Big), Big},
        {<<"1.7976931348623157e308">>, 1.7976931348623157e308},
        {<<"5e-324">>, 5.0e-324},
        {<<"1e-400">>, 0.0},
        {Longest, binary_to_integer(Longest)}
    ],
    [?assert(is_same(Expected, decoded(Text, Config)), Text) || {Text, Expected} <- Cases],
    Out = [{<<"[1e400]">>, 1}, {<<"[0, -1.0E+400]">>, 4}, {<<"[", Longest/binary, "7]">>, 1}],
    [?assertEqual({error, {number_out_of_range, At}}, decode(Text, Config)) || {Text, At} <- Out].

surrogates(Config) ->
    Cases = [
        {"\\ud83d\\ude00", <<"😀"/utf8>>},
        {"\\ud83d", <<"\x{fffd}"/utf8>>},
        {"\\ude00x", <<"\x{fffd}x"/utf8>>},
        {"\\ud83d\\u0041", <<"\x{fffd}A"/utf8>>},
        {"\\ud83d\\n", <<"\x{fffd}\n"/utf8>>},
        {"\\ud83d\\ud83d\\ude00", <<"\x{fffd}😀"/utf8>>},
        {"\\\\ud83d", <<"\\ud83d">>},
        {"\\u0000", <<0>>},
        {"-0e1\\ud83d", <<"-0e1\x{fffd}"/utf8>>}
    ],
    [?assertEqual(Expected, decoded(iolist_to_binary([$", Text, $"]), Config))
     || {Text, Expected} <- Cases].

byte_order_mark(Config) ->
    ?assertEqual([1], decoded(<<?BOM, " [1]">>, Config)),
    ?assertEqual({error, {unexpected_end, 3}}, decode(<<?BOM>>, Config)),
    ?assertEqual({error, {unexpected_byte, 1}}, decode(<<" ", ?BOM, "1">>, Config)).

faults(Config) ->
    Cases = [
        {<<>>, {unexpected_end, 0}},
        {<<" \n">>, {unexpected_end, 2}},
        {<<"[1,">>, {unexpected_end, 3}},
        {<<"{\"a\":1">>, {unexpected_end, 6}},
        {<<"\"ab">>, {unexpected_end, 3}},
        {<<"\"a\\u12">>, {unexpected_end, 6}},
        {<<"tru">>, {unexpected_end, 3}},
        {<<"-">>, {unexpected_end, 1}},
        {<<"[1,]">>, {unexpected_byte, 3}},
        {<<"[1 2]">>, {unexpected_byte, 3}},
        {<<"{\"a\":1,}">>, {unexpected_byte, 7}},
        {<<"{1:1}">>, {unexpected_byte, 1}},
        {<<"[1}">>, {unexpected_byte, 2}},
        {<<"nulx">>, {unexpected_byte, 3}},
        {<<"01">>, {unexpected_byte, 1}},
        {<<"-.0">>, {unexpected_byte, 1}},
        {<<"1.e1">>, {unexpected_byte, 2}},
        {<<"{} x">>, {unexpected_byte, 3}},
        {<<"\"a\tb\"">>, {unexpected_byte, 2}},
        {<<"'a'">>, {unexpected_byte, 0}},
        {<<"[1] // one">>, {unexpected_byte, 4}},
        {<<"\"a\\x\"">>, {invalid_escape, 2}},
        {<<"\"\\u12\"">>, {invalid_escape, 1}},
        {<<"\"a", 16#ff, "\"">>, {invalid_utf8, 2}},
        {<<"\"é"/utf8, 16#e2, 16#82, "\"">>, {invalid_utf8, 3}},
        {<<"\"", 16#ed, 16#a0, 16#80, "\"">>, {invalid_utf8, 1}}
    ],
    [begin
        ?assertEqual({Text, {error, Fault}}, {Text, decode(Text, Config)}),
        ?assertEqual({Text, {error, Fault}}, {Text, scan(Text, Config)})
     end || {Text, Fault} <- Cases].

%% Options of decoding.

depth_limit(Config) ->
    Check = fun(Limit, Options) ->
        [?assertMatch({ok, _}, decode(nested(Limit - I, T), Options, Config))
         || T <- ["[]", "{}", "[{}]"], I <- [0, 1], Limit - I > 1],
        Over = {error, {depth_limit, Limit}},
        ?assertEqual(Over, decode(nested(Limit + 1, "[]"), Options, Config)),
        ?assertEqual(Over, decode(nested(Limit + 100, "{}"), Options, Config)),
        ?assertMatch({ok, _}, scan(nested(Limit, "[]"), Options, Config)),
        ?assertEqual(Over, scan(nested(Limit + 1, "[]"), Options, Config))
    end,
    Check(512, #{}),
    [Check(Limit, #{max_depth => Limit}) || Limit <- [1, 2, 511, 513, 100000]],
    ?assertMatch({ok, _}, decode(<<"1">>, #{max_depth => 1}, Config)),
    %% The brackets of a string nest nothing.
    ?assertMatch({ok, _}, decode(<<"[\"[[[[[[\"]">>, #{max_depth => 1}, Config)).

%% A document of this depth, with these brackets inside.
nested(Depth, Inner) ->
    Outer = Depth - length([C || C <- Inner, C =:= $[ orelse C =:= ${]),
    iolist_to_binary([lists:duplicate(Outer, $[), Inner, lists:duplicate(Outer, $])]).

null_atom(Config) ->
    Text = <<"[null,{\"null\":null},\"null\"]">>,
    Decoded = fun(Options) -> {ok, Term} = decode(Text, Options, Config), Term end,
    ?assertEqual([null, #{<<"null">> => null}, <<"null">>], Decoded(#{})),
    ?assertEqual([nil, #{<<"null">> => nil}, <<"null">>], Decoded(#{null => nil})),
    Both = #{null => true, keys => existing_atom},
    ?assertEqual([true, #{null => true}, <<"null">>], Decoded(Both)).

existing_atoms(Config) ->
    Unknown = iolist_to_binary(["no_atom_", integer_to_binary(erlang:unique_integer([positive]))]),
    Long = binary:copy(<<"l">>, 256),
    Text = unicode:characters_to_binary([
        "{\"method\":1,\"m\\u0065ssage\":2,\"\":3,\"é\":4,\"日本\":5,\"",
        [Unknown, "\":{\"id\":\"id\"},\"", Long, "\":7}"]
    ]),
    {ok, Map} = decode(Text, #{keys => existing_atom}, Config),
    ?assertEqual(
        #{
            method => 1,
            message => 2,
            '' => 3,
            'é' => 4,
            '日本' => 5,
            Unknown => #{id => <<"id">>},
            Long => 7
        },
        Map
    ),
    ?assertError(badarg, binary_to_existing_atom(Unknown)),
    ?assertEqual(
        {ok, #{id => 2}},
        decode(<<"{\"id\":1,\"\\u0069d\":2}">>, #{keys => existing_atom}, Config)
    ).

copied_strings(Config) ->
    [begin
        {ok, [_, S64, S65, Long, #{}, Escaped | _]} = decode(with_strings(), Options, Config),
        [?assert(binary:referenced_byte_size(S) < 1000 + 3 * byte_size(S))
         || S <- [S64, S65, Long, Escaped]]
     end || Options <- [#{}, #{strings => copy}]].

%% jsx makes binaries of its own whatever is asked for.
referred_strings(Config) ->
    Text = with_strings(),
    Options = #{strings => reference},
    {ok, [_, S64, S65, Long, _, Escaped | _] = Term} = decode(Text, Options, Config),
    ?assertEqual({ok, Term}, decode(Text, #{strings => copy}, Config)),
    ?assert(binary:referenced_byte_size(S64) < 1000),
    ?assert(binary:referenced_byte_size(Escaped) < 1000),
    case {?config(path, Config), erlmcp_native_json_beam:codec()} of
        {beam, {ok, {jsx, _}}} -> ok;
        _ -> [?assertEqual(byte_size(Text), binary:referenced_byte_size(S)) || S <- [S65, Long]]
    end.

with_strings() ->
    Quoted = fun(Text) -> [$", Text, $"] end,
    Strings = [
        Quoted(binary:copy(<<"s">>, 64)),
        Quoted(binary:copy(<<"s">>, 65)),
        Quoted(binary:copy(<<"é"/utf8>>, 5000)),
        "{}",
        Quoted([binary:copy(<<"e">>, 100), "\\n"])
    ],
    Last = Quoted(binary:copy(<<"x">>, 100000)),
    iolist_to_binary(["[1,", lists:join($,, Strings), ",", Last, "]"]).

%% Encoding.

written(Config) ->
    Cases = [
        {[], <<"[]">>},
        {#{}, <<"{}">>},
        {[1, -17, 1 bsl 70], <<"[1,-17,1180591620717411303424]">>},
        {[0.1, -0.0, 1.0e300, 5.0e-324], [0.1, -0.0, 1.0e300, 5.0e-324]},
        {[true, false, null, undefined, 'é'],
            <<"[true,false,null,\"undefined\",\"é\"]"/utf8>>},
        {"abc", <<"[97,98,99]">>},
        {<<>>, <<"\"\"">>},
        {<<"a\"b\\c/\b\f\n\r\t">>, <<"\"a\\\"b\\\\c/\\b\\f\\n\\r\\t\"">>},
        {<<0, 31, 127>>, <<"\"\\u0000\\u001f", 127, "\"">>},
        {<<"日本😀"/utf8>>, <<"\"日本😀\""/utf8>>},
        {#{a => 1}, <<"{\"a\":1}">>},
        {#{true => 1}, <<"{\"true\":1}">>},
        {#{17 => #{<<"b">> => []}}, <<"{\"17\":{\"b\":[]}}">>}
    ],
    [?assert(is_written(Expected, encode(Term, #{}, Config)), Term) || {Term, Expected} <- Cases].

%% Which digits a float is written with is not promised, its value is.
is_written(Json, Json) -> true;
is_written(Term, Json) when is_list(Term) -> is_same({ok, Term}, erlmcp_native_json:decode(Json));
is_written(Expected, Json) -> string:casefold(Json) =:= Expected.

null_atom_written(Config) ->
    Written = fun(Options) -> encode([nil, null, <<"nil">>, #{nil => nil}], Options, Config) end,
    ?assertEqual(<<"[\"nil\",null,\"nil\",{\"nil\":\"nil\"}]">>, Written(#{})),
    ?assertEqual(<<"[null,null,\"nil\",{\"nil\":null}]">>, Written(#{null => nil})),
    ?assertEqual(<<"[null]">>, encode([true], #{null => true}, Config)).

iodata(Config) ->
    Plain = binary:copy(<<"p">>, 1000000),
    Term = #{<<"a">> => [Plain, <<"short">>, <<Plain/binary, "\n">>]},
    Whole = encode(Term, #{}, Config),
    ?assert(is_binary(Whole)),
    ?assertEqual(Whole, encode(Term, #{return => binary}, Config)),
    Pieces = encode(Term, #{return => iodata}, Config),
    ?assertEqual(Whole, iolist_to_binary(Pieces)),
    ?assertEqual({ok, Term}, decode(Whole, Config)),
    %% The string itself is one of the pieces.
    ?config(path, Config) =:= nif andalso ?assert(lists:member(Plain, Pieces)).

refusals(Config) ->
    Huge = binary_to_integer(binary:copy(<<"7">>, 4097)),
    Cases = [
        {{1, 2}, {unsupported, {1, 2}}},
        {[1, self()], {unsupported, self()}},
        {#{<<"a">> => [<<1:3>>]}, {unsupported, <<1:3>>}},
        {#{1.5 => a}, {unsupported_key, 1.5}},
        {#{"a" => a}, {unsupported_key, "a"}},
        {#{<<1:3>> => a}, {unsupported_key, <<1:3>>}},
        {[1 | 2], {improper_list, 2}},
        {[[<<"a">> | <<"b">>]], {improper_list, <<"b">>}},
        {<<"a", 16#ff>>, {invalid_utf8, <<"a", 16#ff>>}},
        {[<<16#ed, 16#a0, 16#80>>], {invalid_utf8, <<16#ed, 16#a0, 16#80>>}},
        {#{<<16#c3>> => a}, {invalid_utf8, <<16#c3>>}},
        {[-Huge], {number_out_of_range, -Huge}},
        {#{Huge => a}, {number_out_of_range, Huge}}
    ],
    [?assertError(Refusal, encode(Term, #{}, Config)) || {Term, Refusal} <- Cases],
    %% In slices, of which one ends within a character.
    [begin
        Text = binary:copy(<<"x€"/utf8>>, Count),
        ?assertEqual(<<$", Text/binary, $">>, encode(Text, #{}, Config)),
        Cut = binary_part(Text, 0, byte_size(Text) - 1),
        ?assertError({invalid_utf8, Cut}, encode(Cut, #{}, Config)),
        Broken = <<Text/binary, 16#ff, Text/binary>>,
        ?assertError({invalid_utf8, Broken}, encode(Broken, #{}, Config))
     end || Count <- [16383, 16384, 16385, 50000]],
    Longest = binary:copy(<<"7">>, 4096),
    ?assertEqual(Longest, encode(binary_to_integer(Longest), #{}, Config)).

%% Scanning.

envelopes(Config) ->
    Invalid = fun(Why, Id) ->
        #{kind => invalid, why => Why, id => Id, method => undefined, params => none}
    end,
    Valid = fun(Kind, Id, Method, Params) ->
        #{kind => Kind, id => Id, method => Method, params => Params}
    end,
    V = "\"jsonrpc\":\"2.0\"",
    Cases = [
        {["{", V, ",\"id\":1,\"method\":\"m\"}"], Valid(request, 1, <<"m">>, none)},
        {["{", V, ",\"\\u0069d\":\"a\\n\",\"method\":\"\\u006d\",\"params\":{}}"],
            Valid(request, <<"a\n">>, <<"m">>, object)},
        {["{", V, ",\"method\":\"m\",\"params\":[]}"],
            Valid(notification, undefined, <<"m">>, array)},
        {["{", V, ",\"id\":18446744073709551616,\"result\":{\"method\":1}}"],
            Valid(response, 1 bsl 64, undefined, none)},
        {["{", V, ",\"id\":null,\"error\":{},\"params\":1}"],
            Valid(response, null, undefined, other)},
        {["{", V, ",\"id\":1,\"id\":2,\"method\":\"m\"}"], Valid(request, 2, <<"m">>, none)},
        {"1", Invalid(not_object, undefined)},
        {"{\"id\":1}", Invalid(missing_version, 1)},
        {"{\"jsonrpc\":2.0,\"id\":1}", Invalid(wrong_version, 1)},
        {["{", V, ",\"id\":1,\"method\":1}"], Invalid(invalid_method, 1)},
        {["{", V, ",\"id\":1.0,\"result\":1}"], Invalid(invalid_id, undefined)},
        {["{", V, ",\"id\":null,\"method\":\"m\"}"],
            (Invalid(invalid_id, null))#{method := <<"m">>}},
        {["{", V, ",\"result\":1}"], Invalid(missing_id, undefined)},
        {["{", V, ",\"id\":1}"], Invalid(unknown_type, 1)}
    ],
    [?assertEqual({ok, Envelope}, scan(iolist_to_binary(Text), Config))
     || {Text, Envelope} <- Cases].

batches(Config) ->
    One = <<"{ \"jsonrpc\":\"2.0\", \"id\":\"],[\",\"method\":\"a\"}">>,
    {ok, Envelope} = scan(One, Config),
    {ok, NoMessage} = scan(<<"1">>, Config),
    ?assertEqual(
        {ok, {batch, [{One, Envelope}, {<<"[1, 2]">>, NoMessage}, {One, Envelope}]}},
        scan(<<?BOM, " [\n", One/binary, " ,[1, 2]\t,", One/binary, "] ">>, Config)
    ),
    ?assertEqual({ok, {batch, []}}, scan(<<"[ ]">>, Config)).

batch_limit(Config) ->
    Batch = fun(Count) ->
        iolist_to_binary([" [", lists:join($,, lists:duplicate(Count, $1)), $]])
    end,
    Check = fun(Limit, Options) ->
        {ok, {batch, Elements}} = scan(Batch(Limit), Options, Config),
        ?assertEqual(Limit, length(Elements)),
        ?assertMatch({ok, _}, scan(Batch(Limit - 1), Options, Config)),
        ?assertEqual({error, {batch_limit, 1}}, scan(Batch(Limit + 1), Options, Config)),
        %% What is no JSON is worse.
        Broken = <<(Batch(Limit + 1))/binary, "]">>,
        Fault = {unexpected_byte, byte_size(Broken) - 1},
        ?assertEqual({error, Fault}, scan(Broken, Options, Config))
    end,
    Check(1000, #{}),
    [Check(Limit, #{max_batch => Limit}) || Limit <- [1, 2, 1001, 100000]].

%% Options and arguments.

wrong_options(Config) ->
    Decode = fun(Key, Value) -> decode(<<"1">>, #{Key => Value}, Config) end,
    Scan = fun(Key, Value) -> scan(<<"1">>, #{Key => Value}, Config) end,
    Encode = fun(Key, Value) ->
        try
            {ok, encode(1, #{Key => Value}, Config)}
        catch
            error:Reason -> {error, Reason}
        end
    end,
    Limits = fun(Key) -> [{Key, V} || V <- [0, -1, 1000001, 1.0, infinity, 1 bsl 70]] end,
    Paths = [{path, V} || V <- [rust, default, <<"nif">>]],
    Wrong = [
        {Decode, [{null, <<"null">>}, {null, 0}, {keys, atom}, {strings, referred}]},
        {Decode, [{return, binary}, {max_batch, 1}, {<<"null">>, nil} | Limits(max_depth)]},
        {Decode, Paths},
        {Scan, [{null, nil}, {unknown, 1} | Limits(max_depth) ++ Limits(max_batch)] ++ Paths},
        {Encode, [{null, "null"}, {return, iolist}, {max_depth, 1}, {unknown, true} | Paths]}
    ],
    [?assertEqual({error, {option, Key, Value}}, Fun(Key, Value))
     || {Fun, Options} <- Wrong, {Key, Value} <- Options],
    Right = [
        {Decode, [{max_depth, 1}, {max_depth, 1000000}, {null, ''}, {keys, binary}]},
        {Scan, [{max_depth, 1000000}, {max_batch, 1}, {max_batch, 1000000}]},
        {Encode, [{null, ''}, {return, iodata}]}
    ],
    [?assertMatch({ok, _}, Fun(Key, Value)) || {Fun, Options} <- Right, {Key, Value} <- Options].

wrong_arguments(_) ->
    [begin
        ?assertError(badarg, erlmcp_native_json:decode(Text)),
        ?assertError(badarg, erlmcp_native_json:decode(Text, #{})),
        ?assertError(badarg, erlmcp_native_json:scan(Text)),
        ?assertError(badarg, erlmcp_native_json:scan(Text, #{}))
     end || Text <- [text, "[]", [<<"[]">>], <<1:3>>, 1, #{}]],
    [begin
        ?assertEqual({error, {option, options, Given}}, erlmcp_native_json:decode(<<"1">>, Given)),
        ?assertEqual({error, {option, options, Given}}, erlmcp_native_json:scan(<<"1">>, Given)),
        ?assertError({option, options, Given}, erlmcp_native_json:encode(1, Given))
     end || Given <- [[], [{null, nil}], nil, <<"null">>]].

%% With the path of the group.

decode(Text, Config) -> decode(Text, #{}, Config).

decode(Text, Options, Config) -> erlmcp_native_json:decode(Text, on_path(Options, Config)).

decoded(Text, Config) ->
    {ok, Term} = decode(Text, Config),
    Term.

encode(Term, Options, Config) -> erlmcp_native_json:encode(Term, on_path(Options, Config)).

scan(Text, Config) -> scan(Text, #{}, Config).

scan(Text, Options, Config) -> erlmcp_native_json:scan(Text, on_path(Options, Config)).

on_path(Options, Config) -> maps:merge(#{path => ?config(path, Config)}, Options).

%% Tells 0.0 from -0.0 on each release.
is_same(A, B) ->
    term_to_binary(A, [deterministic]) =:= term_to_binary(B, [deterministic]).
