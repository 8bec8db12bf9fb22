%% @doc Properties of event streams. The reference looks at the whole stream at once.
-module(sse_props).

-include("props.hrl").

-import(proper_types, [binary/0, frequency/1, integer/2, list/1, oneof/1, vector/2]).
-import(test_property, [chunks/2, cuts/0, same/2]).

-export([
    prop_any_chunks/0,
    prop_encoded_events_come_back/0,
    prop_size_is_bounded/0,
    prop_events_before_one_too_large/0
]).

%% @doc The events do not depend on how the stream is cut into chunks.
prop_any_chunks() ->
    ?FORALL(
        {Stream, Cuts},
        {stream(), cuts()},
        same(reference(Stream), run(chunks(Stream, Cuts), erlmcp_native_sse:new()))
    ).

%% @doc What is encoded comes back, whatever lies between.
prop_encoded_events_come_back() ->
    ?FORALL(
        {Events, Cuts},
        {list({word(), word(), lines()}), cuts()},
        begin
            Stream = iolist_to_binary([
                [
                    erlmcp_native_sse:comment(),
                    erlmcp_native_sse:encode(#{id => Id, event => Type, data => [Data]})
                ]
             || {Id, Type, Data} <- Events
            ]),
            Expected = [
                {event, #{id => Id, type => type(Type), data => unified(Data)}}
             || {Id, Type, Data} <- Events
            ],
            {Items, _} = run(chunks(Stream, Cuts), erlmcp_native_sse:new()),
            same(Expected, Items)
        end
    ).

%% @doc An event over the limit is refused, one at the limit is not, however it arrives.
prop_size_is_bounded() ->
    ?FORALL(
        {Size, Cuts},
        {integer(1, 40), cuts()},
        begin
            Stream = <<"data:", (binary:copy(<<"x">>, Size))/binary, "\n\n">>,
            Got = run(chunks(Stream, Cuts), erlmcp_native_sse:new(25)),
            same(Size > 20, Got =:= {error, event_too_large, [], <<>>})
        end
    ).

%% @doc What is complete before an event over the limit is not lost, however it arrives.
prop_events_before_one_too_large() ->
    ?FORALL(
        {Count, Cuts},
        {integer(0, 5), cuts()},
        begin
            Before = [
                erlmcp_native_sse:encode(#{id => integer_to_binary(N), data => <<"x">>})
             || N <- lists:seq(1, Count)
            ],
            Over = erlmcp_native_sse:encode(#{data => binary:copy(<<"y">>, 30)}),
            Stream = iolist_to_binary([Before, Over]),
            {error, event_too_large, Items, LastId} =
                run(chunks(Stream, Cuts), erlmcp_native_sse:new(25)),
            Ids = [Id || {event, #{id := Id}} <- Items],
            Expected = [integer_to_binary(N) || N <- lists:seq(1, Count)],
            same({Expected, lists:last([<<>> | Expected])}, {Ids, LastId})
        end
    ).

%% The reference.

reference(<<16#ef, 16#bb, 16#bf, Stream/binary>>) -> reference(Stream, start);
reference(Stream) -> reference(Stream, start).

reference(Stream, start) ->
    Lines = lists:droplast(
        binary:split(Stream, [<<"\r\n">>, <<"\n">>, <<"\r">>], [global])
    ),
    read(Lines, {<<>>, <<>>, <<>>}, <<>>, []).

read([], _, LastId, Items) ->
    {lists:reverse(Items), LastId};
read([<<>> | Lines], {<<>>, _, Id}, _, Items) ->
    read(Lines, {<<>>, <<>>, Id}, Id, Items);
read([<<>> | Lines], {Data, Type, Id}, _, Items) ->
    Event = #{
        data => binary:part(Data, 0, byte_size(Data) - 1), type => type(Type), id => Id
    },
    read(Lines, {<<>>, <<>>, Id}, Id, [{event, Event} | Items]);
read([Line | Lines], Event, LastId, Items) ->
    {Name, Value} =
        case re:run(Line, "^([^:]*)(?:: ?(.*))?$", [{capture, [1, 2], binary}, dotall]) of
            {match, [A, B]} -> {A, B};
            {match, [A]} -> {A, <<>>}
        end,
    {Next, More} = field(Name, Value, Event),
    read(Lines, Next, LastId, More ++ Items).

field(<<"data">>, Value, {Data, Type, Id}) ->
    {{<<Data/binary, Value/binary, "\n">>, Type, Id}, []};
field(<<"event">>, Value, {Data, _, Id}) ->
    {{Data, Value, Id}, []};
field(<<"id">>, Value, {Data, Type, Id}) ->
    case lists:member(0, binary_to_list(Value)) of
        true -> {{Data, Type, Id}, []};
        false -> {{Data, Type, Value}, []}
    end;
field(<<"retry">>, Value, Event) ->
    case re:run(Value, "^[0-9]{1,9}\\z") of
        {match, _} -> {Event, [{retry, binary_to_integer(Value)}]};
        nomatch -> {Event, []}
    end;
field(_, _, Event) ->
    {Event, []}.

type(<<>>) -> <<"message">>;
type(Type) -> Type.

unified(Data) ->
    Lines = binary:split(Data, [<<"\r\n">>, <<"\n">>, <<"\r">>], [global]),
    iolist_to_binary(lists:join("\n", Lines)).

%% The parser under test.

run(Chunks, Parser) -> run(Chunks, Parser, []).

run([], Parser, Items) ->
    {lists:append(lists:reverse(Items)), erlmcp_native_sse:last_id(Parser)};
run([Chunk | Chunks], Parser, Items) ->
    case erlmcp_native_sse:feed(Chunk, Parser) of
        {ok, New, Next} -> run(Chunks, Next, [New | Items]);
        {error, Reason, New, Next} ->
            {error, Reason, lists:append(lists:reverse(Items, [New])),
                erlmcp_native_sse:last_id(Next)}
    end.

%% Generators.

stream() ->
    ?LET(
        {Mark, Parts},
        {
            oneof([<<>>, <<16#ef, 16#bb, 16#bf>>, <<16#ef, 16#bb>>, <<16#ef>>]),
            list(
                frequency([
                    {6, oneof([<<"data">>, <<"id">>, <<"event">>, <<"retry">>])},
                    {4, oneof([<<":">>, <<": ">>, <<":  ">>])},
                    {4, oneof([<<"x">>, <<"12">>, <<0>>, <<16#ef, 16#bb, 16#bf>>, <<" ">>])},
                    {8, oneof([<<"\n">>, <<"\r">>, <<"\r\n">>, <<"\n\n">>, <<"\r\r\n">>])}
                ])
            )
        },
        iolist_to_binary([Mark | Parts])
    ).

word() ->
    ?LET(
        {Length, Letters},
        {integer(0, 5), vector(5, oneof([$a, $:, $\s, 16#c3]))},
        list_to_binary(lists:sublist([$w | Letters], Length))
    ).

lines() ->
    ?LET(
        Parts,
        list(oneof([binary(), <<"\n">>, <<"\r">>, <<"\r\n">>, <<" ">>, <<":">>])),
        iolist_to_binary(Parts)
    ).
