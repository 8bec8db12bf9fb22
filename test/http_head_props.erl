%% @doc Properties of what the `beam' path makes of the bytes of requests: heads, chunked bodies,
%% and what they mean.
-module(http_head_props).

-include("props.hrl").

-import(proper_types, [binary/0, frequency/1, integer/2, list/1, non_empty/1, oneof/1, vector/2]).
-import(test_property, [chunks/2, same/2]).

-export([
    prop_head_in_any_chunks/0,
    prop_head_comes_back/0,
    prop_chunks_in_any_chunks/0,
    prop_chunks_come_back/0,
    prop_body_in_any_chunks/0,
    prop_meaning_of_any_head/0
]).

-define(HEAD, erlmcp_native_beam_http_head).
-define(CHUNKED, erlmcp_native_beam_http_chunked).
-define(BODY, erlmcp_native_beam_http_body).
-define(REQUEST, erlmcp_native_beam_http_request).
-define(ANSWER, erlmcp_native_beam_http_answer).

%% @doc What a head is, or what is wrong with it, does not depend on how the stream is cut.
prop_head_in_any_chunks() ->
    ?FORALL(
        {Stream, Cuts, Options},
        {head_soup(), cuts(), options()},
        same(
            run(fun ?HEAD:parse/2, [Stream], ?HEAD:new(Options)),
            run(fun ?HEAD:parse/2, chunks(Stream, Cuts), ?HEAD:new(Options))
        )
    ).

%% @doc A head that is in order is found as it was sent, and nothing behind it is touched.
prop_head_comes_back() ->
    ?FORALL(
        {Method, Target, Fields, Rest, Cuts},
        {token(), target(), list({token(), value()}), binary(), cuts()},
        begin
            Lines = [[Name, <<": ">>, Value, <<"\r\n">>] || {Name, Value} <- Fields],
            Head = [Method, $\s, Target, <<" HTTP/1.1\r\n">>, Lines, <<"\r\n">>],
            Stream = iolist_to_binary([Head, Rest]),
            Sent = [{string:lowercase(Name), Value} || {Name, Value} <- Fields],
            {done, {{M, T, _, {1, 1}}, Got}, After} =
                run(fun ?HEAD:parse/2, chunks(Stream, Cuts), ?HEAD:new(generous())),
            same({Method, Target, Sent, Rest}, {M, T, Got, After})
        end
    ).

%% @doc The same of a chunked body, up to the fault if there is one.
prop_chunks_in_any_chunks() ->
    ?FORALL(
        {Stream, Cuts, Options},
        {chunk_soup(), cuts(), options()},
        same(
            run(fun decode/2, [Stream], {[], ?CHUNKED:new(Options)}),
            run(fun decode/2, chunks(Stream, Cuts), {[], ?CHUNKED:new(Options)})
        )
    ).

%% @doc What is encoded comes back.
prop_chunks_come_back() ->
    ?FORALL(
        {Parts, Rest, Cuts},
        {list(non_empty(binary())), binary(), cuts()},
        begin
            Encoded = [?ANSWER:chunk(Part, byte_size(Part)) || Part <- Parts],
            Stream = iolist_to_binary([Encoded, ?ANSWER:last_chunk(), Rest]),
            Expected = {done, iolist_to_binary(Parts), Rest},
            Decoder = {[], ?CHUNKED:new(generous())},
            same(Expected, run(fun decode/2, chunks(Stream, Cuts), Decoder))
        end
    ).

%% @doc A body is the same, or too large, however it is cut.
prop_body_in_any_chunks() ->
    ?FORALL(
        {Stream, Framing, Cuts, Options},
        {chunk_soup(), oneof([chunked, {length, integer(1, 30)}]), cuts(), options()},
        begin
            Body = ?BODY:new(Framing, Options),
            Whole = faults(run(fun ?BODY:push/2, [Stream], Body)),
            same(Whole, faults(run(fun ?BODY:push/2, chunks(Stream, Cuts), Body)))
        end
    ).

%% A body that is both too large and wrong may be found to be either.
faults({error, _}) -> error;
faults(Result) -> Result.

%% @doc Every head has a meaning or a status, and a meaning has one length.
prop_meaning_of_any_head() ->
    ?FORALL(
        {Method, Target, Fields},
        {oneof([<<"GET">>, <<"CONNECT">>, <<"OPTIONS">>, token()]), any_target(), fields()},
        begin
            Lines = [[Name, $:, Value, <<"\r\n">>] || {Name, Value} <- Fields],
            Head = iolist_to_binary([Method, $\s, Target, <<" HTTP/1.1\r\n">>, Lines, <<"\r\n">>]),
            case ?HEAD:parse(Head, ?HEAD:new(generous())) of
                {done, Parsed, <<>>} -> means(?REQUEST:new(Parsed, generous()));
                {error, Status} -> Status >= 400
            end
        end
    ).

means({ok, #{path := Path, headers := Headers, body := Body}}) ->
    Hosts = [Host || {<<"host">>, Host} <- Headers],
    Path =/= <<>> andalso length(Hosts) =:= 1 andalso one_length(Body, Headers);
means({error, Status}) ->
    Status >= 400 andalso Status < 600.

one_length(chunked, Headers) ->
    not lists:keymember(<<"content-length">>, 1, Headers);
one_length({length, Length}, Headers) ->
    Given = [binary_to_integer(V) || {<<"content-length">>, V} <- Headers],
    not lists:keymember(<<"transfer-encoding">>, 1, Headers) andalso
        lists:all(fun(G) -> G =:= Length end, Given) andalso (Given =/= [] orelse Length =:= 0).

%% Running a parser over chunks; what is left of them belongs to the rest.

run(_, [], _) ->
    more;
run(Parse, [Chunk | Chunks], State) ->
    case Parse(Chunk, State) of
        {more, Next} -> run(Parse, Chunks, Next);
        {done, Result, Rest} -> {done, Result, iolist_to_binary([Rest | Chunks])};
        {error, _} = Error -> Error
    end.

decode(Chunk, {Acc, Decoder0}) ->
    case ?CHUNKED:decode(Chunk, Decoder0) of
        {more, Data, Decoder} -> {more, {[Acc | Data], Decoder}};
        {done, Data, Rest} -> {done, iolist_to_binary([Acc | Data]), Rest};
        {error, Refusal, Data} -> {error, {Refusal, iolist_to_binary([Acc | Data])}}
    end.

%% Generators.

options() ->
    ?LET(
        {Headers, Header, Target, Body},
        {integer(1, 5), oneof([integer(4, 20), integer(64, 80)]), integer(1, 12), integer(1, 30)},
        #{
            max_headers => Headers,
            max_header_bytes => Header,
            max_target_bytes => Target,
            max_body_bytes => Body
        }
    ).

generous() ->
    #{
        max_headers => 1000,
        max_header_bytes => 65536,
        max_target_bytes => 65536,
        max_body_bytes => 1000
    }.

%% Mostly right, with everything in it that is not.
head_soup() ->
    ?LET(
        {Before, Line, Fields, End, Rest},
        {
            oneof([<<>>, <<>>, <<>>, <<"\r\n">>, <<"\r\n\r\n">>, <<"\n">>, <<"\r">>, <<" ">>]),
            request_line(),
            list(field_soup()),
            frequency([{8, <<"\r\n">>}, {1, <<"\n">>}, {1, <<"\r">>}, {1, <<>>}]),
            oneof([<<>>, <<"body">>, binary()])
        },
        iolist_to_binary([Before, Line, Fields, End, Rest])
    ).

request_line() ->
    frequency([
        {8, [oneof([<<"GET ">>, <<"POST ">>]), target(), <<" HTTP/1.1\r\n">>]},
        {1, [token(), <<" ">>, target(), <<" HTTP/1.">>, integer($0, $9), <<"\r\n">>]},
        {1, [<<"PRI * HTTP/2.0\r\n">>]},
        {1, [binary(), <<" HTTP/1.1\r\n">>]},
        {1, [<<"GET / ">>, binary(), <<"\r\n">>]}
    ]).

field_soup() ->
    frequency([
        {3, [known(), <<":">>, blanks(), list(value()), <<"\r\n">>]},
        {6, [token(), <<":">>, blanks(), value(), blanks(), <<"\r\n">>]},
        {1, [binary(), <<":">>, binary(), <<"\r\n">>]},
        {1, [<<" folded\r\n">>]},
        {1, [token(), <<": v">>, oneof([<<"\n">>, <<"\r">>, <<"\r\r\n">>, <<0>>])]}
    ]).

known() -> oneof([<<"host">>, <<"Host">>, <<"Content-Length">>, <<"accept">>]).

blanks() -> list(oneof([$\s, $\t])).

token() ->
    ?LET(Chars, non_empty(list(oneof("abzXYZ019-_!#$%&'*+.^`|~"))), list_to_binary(Chars)).

target() ->
    ?LET(Chars, list(oneof("/?ab%=&;:@.-~")), list_to_binary([$/ | Chars])).

any_target() ->
    frequency([
        {3, target()},
        {1, <<"*">>},
        {1, <<"h:80">>},
        {3, [oneof([<<"http">>, <<"HTTPS">>, <<"ftp">>]), <<"://">>, list(oneof("h:8/?@[]#"))]}
    ]).

%% Without blanks at its ends.
value() ->
    ?LET(Chars, list(oneof("aZ09,;=/\"\xe9")), list_to_binary(Chars)).

fields() ->
    list({
        oneof([
            <<"host">>,
            <<"Content-Length">>,
            <<"content-length">>,
            <<"Transfer-Encoding">>,
            <<"connection">>,
            <<"expect">>,
            <<"x">>
        ]),
        oneof([
            <<"h">>,
            <<"h:1">>,
            <<"0">>,
            <<"7">>,
            <<"07">>,
            <<"7, 7">>,
            <<"chunked">>,
            <<"Chunked">>,
            <<"gzip, chunked">>,
            <<"close">>,
            <<"100-continue">>,
            <<"2000">>,
            <<>>,
            value()
        ])
    }).

chunk_soup() ->
    ?LET(
        {Parts, End, Rest},
        {
            list(frequency([{6, chunk()}, {1, binary()}])),
            oneof([
                <<"0\r\n\r\n">>,
                <<"00\r\na: b\r\n\r\n">>,
                <<"0;e\r\n\r\n">>,
                <<"0\r\n">>,
                <<>>
            ]),
            oneof([<<>>, binary()])
        },
        iolist_to_binary([Parts, End, Rest])
    ).

chunk() ->
    ?LET(
        {Size, Extension, End},
        {
            integer(1, 20),
            oneof([<<>>, <<>>, <<";e=f">>, <<" ">>]),
            frequency([{8, <<"\r\n">>}, {1, <<"\n">>}, {1, <<"x">>}])
        },
        [integer_to_binary(Size, 16), Extension, <<"\r\n">>, binary:copy(<<"d">>, Size), End]
    ).

cuts() ->
    oneof([[1], [2], non_empty(vector(3, integer(1, 9))), non_empty(list(integer(1, 40)))]).
