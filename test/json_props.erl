%% @doc Properties of JSON: what is encoded comes back, and both paths give the same answer to
%% every document and every term. Where the native library is not loaded, the path `beam' is
%% compared with itself.
-module(json_props).

-include("props.hrl").

-import(proper_types, [binary/0, boolean/0, float/0, integer/2, oneof/1]).

-export([
    prop_what_is_encoded_comes_back/0,
    prop_floats_are_written_as_the_vm_writes_them/0,
    prop_documents_give_the_same_terms/0,
    prop_options_give_the_same_terms/0,
    prop_documents_give_what_jsx_gives/0,
    prop_documents_give_what_json_gives/0,
    prop_broken_documents_have_the_same_faults/0,
    prop_garbage_is_answered/0,
    prop_cut_documents_end_too_early/0,
    prop_terms_have_the_same_json_or_refusal/0,
    prop_pieces_are_the_document/0,
    prop_messages_have_the_same_envelopes/0,
    prop_broken_messages_have_the_same_faults/0
]).

%% @doc On both paths, written by either.
prop_what_is_encoded_comes_back() ->
    ?FORALL(
        {Term, Writer, Reader},
        {json_gen:term(), path(), path()},
        same({ok, Term}, decode(encode(Term, #{path => Writer}), #{path => Reader}))
    ).

%% @doc Digit for digit.
prop_floats_are_written_as_the_vm_writes_them() ->
    ?FORALL(
        Float,
        any_float(),
        same(float_to_binary(Float, [short]), encode(Float, #{path => native()}))
    ).

%% @doc Also the sign of a zero, and whether a number is a float.
prop_documents_give_the_same_terms() ->
    ?FORALL(
        Text,
        json_gen:document(),
        same(decode(Text, #{path => beam}), decode(Text, #{path => native()}))
    ).

%% @doc The same with other options.
prop_options_give_the_same_terms() ->
    ?FORALL(
        {Text, Options},
        {json_gen:document(), decode_options()},
        same(decode(Text, Options#{path => beam}), decode(Text, Options#{path => native()}))
    ).

%% @doc Where a document has no half of a surrogate pair and no number out of range, its terms
%% are those of jsx.
prop_documents_give_what_jsx_gives() ->
    ?FORALL(
        Text,
        json_gen:document(),
        case decode(Text, #{path => native()}) of
            {ok, Term} -> has_half(Text) orelse same(jsx:decode(Text, [return_maps]), Term);
            {error, {number_out_of_range, _}} -> true
        end
    ).

%% @doc Where there is no name twice in an object either, and no zero with an exponent alone, they
%% are those of OTP's `json'.
prop_documents_give_what_json_gives() ->
    ?FORALL(
        Text,
        json_gen:document(),
        case decode(Text, #{path => native()}) of
            {ok, Term} -> has_half(Text) orelse same_as_json(Text, Term);
            {error, {number_out_of_range, _}} -> true
        end
    ).

%% @doc The fault and its position.
prop_broken_documents_have_the_same_faults() ->
    ?FORALL(
        {Text, Options},
        {json_gen:broken(), decode_options()},
        same(decode(Text, Options#{path => beam}), decode(Text, Options#{path => native()}))
    ).

%% @doc Any bytes are a document or have a fault, which lies within them.
prop_garbage_is_answered() ->
    ?FORALL(
        {Text, Path},
        {binary(), path()},
        case decode(Text, #{path => Path}) of
            {ok, _} -> true;
            {error, {Fault, At}} -> is_atom(Fault) andalso At >= 0 andalso At =< byte_size(Text)
        end
    ).

%% @doc A beginning of a document is no document, and nothing else is wrong with it.
prop_cut_documents_end_too_early() ->
    ?FORALL(
        {Text, Cut, Path},
        {json_gen:document(), integer(0, 1000), path()},
        begin
            Beginning = binary_part(<<"[", Text/binary>>, 0, Cut rem (byte_size(Text) + 1)),
            case decode(Beginning, #{path => Path}) of
                {error, {unexpected_end, At}} -> same(byte_size(Beginning), At);
                {error, {number_out_of_range, _}} -> true;
                {error, {invalid_utf8, At}} -> At >= byte_size(Beginning) - 3
            end
        end
    ).

%% @doc What is written may differ in the order of members and in how floats are written.
prop_terms_have_the_same_json_or_refusal() ->
    ?FORALL(
        {Term, Null},
        {json_gen:strange_term(), oneof([null, undefined, atom, true])},
        same(
            decoded_encode(Term, #{null => Null, path => beam}),
            decoded_encode(Term, #{null => Null, path => native()})
        )
    ).

%% @doc `iodata' is `binary' in pieces.
prop_pieces_are_the_document() ->
    ?FORALL(
        {Term, Path, Long},
        {json_gen:term(), path(), integer(4000, 4200)},
        begin
            Whole = [binary:copy(<<"x">>, Long), Term, binary:copy(<<"é"/utf8>>, Long)],
            Pieces = erlmcp_native_json:encode(Whole, #{return => iodata, path => Path}),
            same(encode(Whole, #{path => Path}), iolist_to_binary(Pieces))
        end
    ).

%% @doc Of single messages and of batches, with each message as it stands.
prop_messages_have_the_same_envelopes() ->
    ?FORALL(Text, json_gen:message(), same(scan(beam, Text), scan(native(), Text))).

%% @doc The fault of a message that is broken is that of the document.
prop_broken_messages_have_the_same_faults() ->
    ?FORALL(
        Text,
        json_gen:broken(),
        begin
            Scanned = scan(native(), Text),
            same(scan(beam, Text), Scanned) andalso
                same(fault(decode(Text, #{path => native()})), fault(Scanned))
        end
    ).

fault({error, _} = Error) -> Error;
fault({ok, _}) -> ok.

path() ->
    oneof([native(), beam]).

native() ->
    case erlmcp_native_nif:status() of
        loaded -> nif;
        {failed, _} -> beam
    end.

decode(Text, Options) ->
    erlmcp_native_json:decode(Text, Options).

encode(Term, Options) ->
    erlmcp_native_json:encode(Term, Options).

scan(Path, Text) ->
    erlmcp_native_json:scan(Text, #{path => Path}).

decoded_encode(Term, Options) ->
    try encode(Term, Options) of
        Json -> decode(Json, #{path => beam})
    catch
        error:Refusal -> Refusal
    end.

same_as_json(Text, Term) ->
    case erlmcp_native_json_beam:codec() of
        {ok, {otp, Json}} -> is_json_alone(Json, Text) orelse same(Json:decode(Text), Term);
        {ok, {jsx, _}} -> true
    end.

%% Whether `json' stands alone with what it makes of a document.
is_json_alone(Json, Text) ->
    Finish = fun(Members, Outer) ->
        Map = maps:from_list(Members),
        map_size(Map) =:= length(Members) orelse throw(name_twice),
        {Map, Outer}
    end,
    Float = fun
        (<<"0.0e", _/binary>>) -> error(alone);
        (Float) -> binary_to_float(Float)
    end,
    try Json:decode(Text, ok, #{object_finish => Finish, float => Float}) of
        {_, ok, _} -> false
    catch
        throw:name_twice -> true;
        error:{unexpected_sequence, <<"0.0e", _/binary>>} -> true
    end.

%% Whether an escape stands for half of a surrogate pair without its other half.
has_half(Text) ->
    Pairs = "(?i)\\\\ud[89ab][0-9a-f]{2}\\\\ud[c-f][0-9a-f]{2}",
    NoSlashes = binary:replace(Text, <<"\\\\">>, <<"x">>, [global]),
    Rest = re:replace(NoSlashes, Pairs, "", [global, {return, binary}]),
    re:run(Rest, "(?i)\\\\ud[89a-f][0-9a-f]{2}") =/= nomatch.

any_float() ->
    oneof([float(), ?LET(Bits, binary_of_float(), to_float(Bits))]).

binary_of_float() ->
    ?LET(Bits, integer(0, 16#ffffffffffffffff), <<Bits:64>>).

%% What has no float is one half.
to_float(<<Float/float>>) -> Float;
to_float(_) -> 0.5.

decode_options() ->
    ?LET(
        {Null, Keys, Strings, Depth, Default},
        {
            oneof([null, undefined, nil]),
            oneof([binary, existing_atom]),
            oneof([copy, reference]),
            integer(1, 6),
            boolean()
        },
        case Default of
            true -> #{null => Null, keys => Keys, strings => Strings};
            false -> #{null => Null, keys => Keys, strings => Strings, max_depth => Depth}
        end
    ).

%% The external format tells 0.0 from -0.0 where OTP does.
same(Expected, Got) ->
    case term_to_binary(Expected, [deterministic]) =:= term_to_binary(Got, [deterministic]) of
        true ->
            true;
        false ->
            io:format("expected ~p~ngot      ~p~n", [Expected, Got]),
            false
    end.
