%% @doc The files of JSONTestSuite, 318 in test_parsing and 22 in test_transform, on both paths,
%% and what jsx and OTP's `json' make of them.
-module(json_files_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

all() ->
    [{group, nif}, {group, beam}, paths_agree].

groups() ->
    [{nif, cases()}, {beam, cases()}].

cases() ->
    [must_parse, must_fail, may_parse, as_jsx, as_json].

init_per_suite(Config) ->
    Root = filename:join(code:lib_dir(erlmcp_native), "../../../.."),
    Files = filename:join(Root, "../shared/json-test-suite"),
    case filelib:is_dir(Files) of
        true ->
            test_config:start([erlmcp_native], [{files, Files} | Config]);
        false ->
            {skip, "no ../shared/json-test-suite beside the checkout"}
    end.

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

init_per_testcase(as_json, Config) ->
    case erlmcp_native_json_beam:codec() of
        {ok, {otp, json}} -> Config;
        {ok, {jsx, jsx}} -> {skip, "OTP has json from release 27 on"}
    end;
init_per_testcase(_, Config) ->
    Config.

must_parse(Config) ->
    Texts = texts("test_parsing/y_*", 95, Config),
    ?assertEqual([], [{N, R} || {N, T} <- Texts, {error, _} = R <- [decode(T, Config)]]).

must_fail(Config) ->
    Texts = texts("test_parsing/n_*", 188, Config),
    ?assertEqual([], [{N, R} || {N, T} <- Texts, {ok, _} = R <- [decode(T, Config)]]),
    [?assertMatch({_, {error, {_, At}}} when At =< byte_size(T), {N, decode(T, Config)})
     || {N, T} <- Texts].

%% Here is what is made of what may be refused.
may_parse(Config) ->
    Texts = texts("test_parsing/i_*", 35, Config),
    Refused = [{N, Fault} || {N, T} <- Texts, {error, Fault} <- [decode(T, Config)]],
    ?assertEqual(
        [
            {"i_number_huge_exp", {number_out_of_range, 1}},
            {"i_number_neg_int_huge_exp", {number_out_of_range, 1}},
            {"i_number_pos_double_huge_exp", {number_out_of_range, 1}},
            {"i_number_real_neg_overflow", {number_out_of_range, 1}},
            {"i_number_real_pos_overflow", {number_out_of_range, 1}},
            {"i_string_UTF-16LE_with_BOM", {unexpected_byte, 0}},
            {"i_string_UTF-8_invalid_sequence", {invalid_utf8, 7}},
            {"i_string_UTF8_surrogate_U+D800", {invalid_utf8, 2}},
            {"i_string_invalid_utf-8", {invalid_utf8, 2}},
            {"i_string_iso_latin_1", {invalid_utf8, 2}},
            {"i_string_lone_utf8_continuation_byte", {invalid_utf8, 2}},
            {"i_string_not_in_unicode_range", {invalid_utf8, 2}},
            {"i_string_overlong_sequence_2_bytes", {invalid_utf8, 2}},
            {"i_string_overlong_sequence_6_bytes", {invalid_utf8, 2}},
            {"i_string_overlong_sequence_6_bytes_null", {invalid_utf8, 2}},
            {"i_string_truncated-utf-8", {invalid_utf8, 2}},
            {"i_string_utf16BE_no_BOM", {unexpected_byte, 0}},
            {"i_string_utf16LE_no_BOM", {unexpected_byte, 1}}
        ],
        Refused
    ).

%% jsx takes what follows half of a surrogate pair with it, or refuses that.
as_jsx(Config) ->
    Other = [
        "i_string_1st_valid_surrogate_2nd_invalid",
        "i_string_incomplete_surrogate_and_escape_valid"
    ],
    ?assertEqual(Other, differing(fun(T) -> jsx:decode(T, [return_maps]) end, Config)).

%% `json' refuses halves of surrogate pairs and byte order marks, and takes the first of members
%% with one name.
as_json(Config) ->
    {ok, {otp, Json}} = erlmcp_native_json_beam:codec(),
    Other = [
        "i_object_key_lone_2nd_surrogate",
        "i_string_1st_surrogate_but_2nd_missing",
        "i_string_1st_valid_surrogate_2nd_invalid",
        "i_string_incomplete_surrogate_and_escape_valid",
        "i_string_incomplete_surrogate_pair",
        "i_string_incomplete_surrogates_escape_valid",
        "i_string_invalid_lonely_surrogate",
        "i_string_invalid_surrogate",
        "i_string_inverted_surrogates_U+1D11E",
        "i_string_lone_second_surrogate",
        "i_structure_UTF-8_BOM_empty_object",
        "object_same_key_different_values",
        "string_1_escaped_invalid_codepoint",
        "string_2_escaped_invalid_codepoints",
        "string_3_escaped_invalid_codepoints",
        "y_object_duplicated_key"
    ],
    ?assertEqual(Other, differing(fun(T) -> Json:decode(T) end, Config)).

%% Of the documents that are accepted, those of which the codec makes another term, or none.
differing(Codec, Config) ->
    Texts = texts("test_parsing/*", 318, Config) ++ texts("test_transform/*", 22, Config),
    Accepted = [{N, T, Term} || {N, T} <- Texts, {ok, Term} <- [decode(T, Config)]],
    Made = fun(Text) ->
        try
            {ok, Codec(Text)}
        catch
            error:Reason -> {error, Reason}
        end
    end,
    lists:sort([N || {N, T, Term} <- Accepted, not is_same({ok, Term}, Made(T))]).

paths_agree(Config) ->
    Texts = texts("test_parsing/*", 318, Config) ++ texts("test_transform/*", 22, Config),
    Answers = fun(Text, Path) ->
        Options = #{path => Path},
        {erlmcp_native_json:decode(Text, Options), erlmcp_native_json:scan(Text, Options)}
    end,
    ?assertEqual([], [N || {N, T} <- Texts, not is_same(Answers(T, nif), Answers(T, beam))]).

texts(Names, Count, Config) ->
    Files = filelib:wildcard(filename:join(?config(files, Config), Names ++ ".json")),
    ?assertEqual(Count, length(Files)),
    [{filename:basename(File, ".json"), read(File)} || File <- lists:sort(Files)].

read(File) ->
    {ok, Text} = file:read_file(File),
    Text.

decode(Text, Config) ->
    erlmcp_native_json:decode(Text, #{path => ?config(path, Config)}).

%% Tells 0.0 from -0.0 on each release.
is_same(A, B) ->
    term_to_binary(A, [deterministic]) =:= term_to_binary(B, [deterministic]).
