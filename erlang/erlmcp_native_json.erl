%% @doc JSON (RFC 8259) for the messages of the Model Context Protocol.
%%
%% Objects are maps with binary keys, `null' is the atom `null', strings are binaries. On the path
%% `nif' this is done in Rust, on a dirty scheduler where it takes long; on `beam' and `port' by
%% OTP's `json' (OTP 27) or jsx. What both give is the same, but for what docs/json.md lists.
-module(erlmcp_native_json).

-export([decode/1, decode/2, encode/1, encode/2, scan/1, scan/2]).

-export_type([decode_options/0, encode_options/0, fault/0, refusal/0, envelope/0, id/0, why/0]).
-export_type([scan_options/0, scanned/0]).

-type decode_options() :: #{
    null => atom(),
    keys => binary | existing_atom,
    strings => copy | reference,
    max_depth => 1..1000000,
    path => erlmcp_native_path:path()
}.
%% `null': the atom that stands for null, `null' by default. `keys': `existing_atom' makes those
%% names atoms that are atoms already, the others stay binaries. `strings': with `reference' a
%% string of more than 64 bytes may be a part of the document and keep all of it in memory.
%% `max_depth': how deep arrays and objects may be nested, 512 by default. `path': the node's by
%% default.

-type encode_options() :: #{
    null => atom(),
    return => binary | iodata,
    path => erlmcp_native_path:path()
}.
%% `null': an atom that is written as null, beside `null'. `return': `iodata' spares copying large
%% strings.

-type scan_options() :: #{
    max_depth => 1..1000000,
    max_batch => 1..1000000,
    path => erlmcp_native_path:path()
}.
%% `max_depth': as above. `max_batch': how many messages a batch may have, 1,000 by default.

-type fault() :: {
    unexpected_end
    | unexpected_byte
    | invalid_utf8
    | invalid_escape
    | number_out_of_range
    | depth_limit
    | batch_limit,
    At :: non_neg_integer()
}.
%% What is wrong with a document, and the byte where it is, counted from 0. `unexpected_end': the
%% position is the size of the document. `invalid_escape': that of the backslash.
%% `number_out_of_range': an integer of more than 4,096 characters, or too large for a float; its
%% first byte. `depth_limit': the bracket that is one too many. `batch_limit': that of the batch.

-type refusal() ::
    {unsupported | unsupported_key | improper_list | invalid_utf8 | number_out_of_range, term()}.
%% Why a term has no JSON, and the part of it: a tuple or the like; a key that is not a binary,
%% an atom or an integer; the tail of a list; a binary; an integer of more than 4,096 characters.

-type id() :: integer() | binary() | null | undefined.
%% `undefined': the message has none.

-type envelope() :: #{
    kind := request | response | notification | invalid,
    id := id(),
    method := binary() | undefined,
    params := object | array | none | other,
    why => why()
}.
%% What a transport has to know of a message. `why' is there where the kind is `invalid'.

-type why() ::
    not_object
    | missing_version
    | wrong_version
    | invalid_method
    | invalid_id
    | missing_id
    | unknown_type.

-type scanned() ::
    {ok, envelope()}
    | {ok, {batch, [{Element :: binary(), envelope()}]}}
    | {error, fault()}.

-define(MAX_DEPTH, 512).
-define(MAX_BATCH, 1000).

%% In this many bytes there is nothing that holds a scheduler for long without the native side
%% noticing: a string of this size takes 0.05 ms, or 0.9 ms if all of it is escapes.
-define(DIRECT, 524288).

%% A scan is not watched: of the slowest documents, nothing but short numbers or strings, this
%% much takes 0.7 ms.
-define(DIRECT_SCAN, 131072).

%% Read for each message: an atom is found 16 ns sooner than a tuple.
-define(WORDS_KEY, ?MODULE).

%% @doc Decodes a document.
-spec decode(binary()) -> {ok, term()} | {error, fault()}.
decode(Text) when is_binary(Text) ->
    case erlmcp_native_path:default() of
        nif -> native_decode(Text, null, false, false, ?MAX_DEPTH);
        _ -> erlmcp_native_json_beam:decode(Text, decode_defaults())
    end;
decode(Text) ->
    error(badarg, [Text]).

%% @doc Decodes a document.
-spec decode(binary(), decode_options()) ->
    {ok, term()} | {error, fault() | erlmcp_native:reason()}.
decode(Text, Given) when is_binary(Text) ->
    case options(Given, decode_defaults()) of
        {ok, #{path := beam} = Options} ->
            erlmcp_native_json_beam:decode(Text, Options);
        {ok, #{null := Null, keys := Keys, strings := Strings, max_depth := MaxDepth}} ->
            Atoms = Keys =:= existing_atom,
            native_decode(Text, Null, Atoms, Strings =:= reference, MaxDepth);
        {error, _} = Error ->
            Error
    end;
decode(Text, Given) ->
    error(badarg, [Text, Given]).

%% @doc Encodes a term: maps as objects, lists as arrays, binaries and atoms as strings, but for
%% `true', `false' and `null'. Raises an error of type {@link refusal()} for what has no JSON.
-spec encode(term()) -> binary().
encode(Term) ->
    case erlmcp_native_path:default() of
        nif -> native_encode(Term, null, false);
        _ -> erlmcp_native_json_beam:encode(Term, encode_defaults())
    end.

%% @doc Encodes a term. Options that are none raise `{option, Key, Value}'.
-spec encode(term(), encode_options()) -> iodata().
encode(Term, Given) ->
    case options(Given, encode_defaults()) of
        {ok, #{path := beam} = Options} -> erlmcp_native_json_beam:encode(Term, Options);
        {ok, #{null := Null, return := Return}} -> native_encode(Term, Null, Return =:= iodata);
        {error, Reason} -> error(Reason, [Term, Given])
    end.

%% @doc What a transport has to know of a message to pass it on, answer it or hold it back. The
%% document is checked to its end.
-spec scan(binary()) -> scanned().
scan(Text) when is_binary(Text) ->
    scanned(Text, codec(erlmcp_native_path:default()), ?MAX_DEPTH, ?MAX_BATCH);
scan(Text) ->
    error(badarg, [Text]).

%% @doc The same with other limits.
-spec scan(binary(), scan_options()) -> scanned() | {error, erlmcp_native:reason()}.
scan(Text, Given) when is_binary(Text) ->
    case options(Given, scan_defaults()) of
        {ok, #{path := Path, max_depth := MaxDepth, max_batch := MaxBatch}} ->
            scanned(Text, Path, MaxDepth, MaxBatch);
        {error, _} = Error ->
            Error
    end;
scan(Text, Given) ->
    error(badarg, [Text, Given]).

scanned(Text, beam, MaxDepth, MaxBatch) ->
    Options = (decode_defaults())#{max_depth := MaxDepth},
    erlmcp_native_json_beam:scan(Text, MaxBatch, Options);
scanned(Text, nif, MaxDepth, MaxBatch) when byte_size(Text) > ?DIRECT_SCAN ->
    erlmcp_native_nif:json_scan_dirty(Text, MaxDepth, MaxBatch);
scanned(Text, nif, MaxDepth, MaxBatch) ->
    erlmcp_native_nif:json_scan(Text, MaxDepth, MaxBatch).

native_decode(Text, Null, Atoms, References, MaxDepth) when byte_size(Text) > ?DIRECT ->
    erlmcp_native_nif:json_decode_dirty(Text, words(), Null, Atoms, References, MaxDepth);
native_decode(Text, Null, Atoms, References, MaxDepth) ->
    Words = words(),
    case erlmcp_native_nif:json_decode(Text, Words, Null, Atoms, References, MaxDepth) of
        late ->
            erlmcp_native_nif:json_decode_dirty(Text, Words, Null, Atoms, References, MaxDepth);
        Result ->
            Result
    end.

native_encode(Term, Null, Pieces) ->
    case erlmcp_native_nif:json_encode(Term, Null, Pieces) of
        {ok, Json} -> Json;
        {error, Refusal} -> error(Refusal);
        late -> native_encode_dirty(Term, Null, Pieces)
    end.

native_encode_dirty(Term, Null, Pieces) ->
    case erlmcp_native_nif:json_encode_dirty(Term, Null, Pieces) of
        {ok, Json} -> Json;
        {error, Refusal} -> error(Refusal)
    end.

%% The native side takes the most frequent names from here instead of making them each time: what
%% is in a persistent term belongs to no process and is not copied.
words() ->
    case persistent_term:get(?WORDS_KEY, undefined) of
        undefined ->
            Words = erlmcp_native_nif:json_words(),
            persistent_term:put(?WORDS_KEY, Words),
            Words;
        Words ->
            Words
    end.

decode_defaults() ->
    #{null => null, keys => binary, strings => copy, max_depth => ?MAX_DEPTH, path => default}.

encode_defaults() ->
    #{null => null, return => binary, path => default}.

scan_defaults() ->
    #{max_depth => ?MAX_DEPTH, max_batch => ?MAX_BATCH, path => default}.

options(Given, Defaults) when is_map(Given) ->
    Step = fun
        (_, _, {error, _} = Error) ->
            Error;
        (Key, Value, {ok, Options}) ->
            case is_map_key(Key, Defaults) andalso valid(Key, Value) of
                true -> {ok, Options#{Key := Value}};
                false -> {error, {option, Key, Value}}
            end
    end,
    case maps:fold(Step, {ok, Defaults}, Given) of
        {ok, #{path := default} = Options} ->
            {ok, with_codec(erlmcp_native_path:default(), Options)};
        {ok, #{path := Path} = Options} ->
            available(with_codec(Path, Options));
        {error, _} = Error ->
            Error
    end;
options(Given, _) ->
    {error, {option, options, Given}}.

%% On the path `port' JSON becomes terms in the program, together with the frames that it comes in;
%% what is left to be done here is done in Erlang, for nothing native is in the VM.
codec(port) -> beam;
codec(Path) -> Path.

with_codec(Path, Options) -> Options#{path := codec(Path)}.

available(#{path := nif} = Options) -> available(erlmcp_native_path:use(nif), Options);
available(#{path := beam} = Options) -> available(erlmcp_native_json_beam:codec(), Options).

available({ok, _}, Options) -> {ok, Options};
available({error, _} = Error, _) -> Error.

valid(null, V) -> is_atom(V);
valid(keys, V) -> V =:= binary orelse V =:= existing_atom;
valid(strings, V) -> V =:= copy orelse V =:= reference;
valid(max_depth, V) -> is_integer(V) andalso V >= 1 andalso V =< 1000000;
valid(max_batch, V) -> is_integer(V) andalso V >= 1 andalso V =< 1000000;
valid(return, V) -> V =:= binary orelse V =:= iodata;
valid(path, V) -> lists:member(V, [nif, port, beam]).
