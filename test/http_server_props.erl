%% @doc Properties of what an MCP server over HTTP decides without sockets.
-module(http_server_props).

-include("props.hrl").

-import(proper_types, [
    binary/0, elements/1, frequency/1, integer/0, integer/2, list/1, oneof/1
]).

-export([
    prop_events_are_kept_within_bounds/0,
    prop_event_ids_come_back/0,
    prop_encoded_headers_come_back/0,
    prop_gate_bears_anything/0,
    prop_era_bears_anything/0
]).

-define(REVISIONS, [<<"2026-07-28">>, <<"2025-11-25">>, <<"2025-06-18">>, <<"2025-03-26">>]).
-define(META, "io.modelcontextprotocol/").

%% @doc What is kept is the end of what was added, as much as the bounds allow, and of a stream
%% it is that stream's.
prop_events_are_kept_within_bounds() ->
    ?FORALL(
        {Added, Max, MaxBytes, Stream, After},
        {list({stream(), binary()}), integer(0, 6), integer(0, 40), stream(), integer(0, 10)},
        begin
            Numbered = lists:zip(lists:seq(1, length(Added)), Added),
            Add = fun({N, {S, Data}}, Acc) -> erlmcp_native_http_events:add(S, N, Data, Acc) end,
            New = erlmcp_native_http_events:new(Max, MaxBytes),
            Events = lists:foldl(Add, New, Numbered),
            Expected = [
                {N, Data}
             || {N, {S, Data}} <- kept(lists:reverse(Numbered), Max, MaxBytes, []),
                S =:= Stream,
                N > After
            ],
            Expected =:= erlmcp_native_http_events:since(Stream, After, Events)
        end
    ).

%% @doc Every id is read as what it was made of, and nothing else is read at all.
prop_event_ids_come_back() ->
    ?FORALL(
        {Stream, Count, Garbage},
        {stream(), integer(0, 1000000), binary()},
        begin
            Id = erlmcp_native_http_events:id(Stream, Count),
            {ok, {Stream, Count}} =:= erlmcp_native_http_events:parse(Id) andalso
                case erlmcp_native_http_events:parse(Garbage) of
                    error -> true;
                    {ok, {S, C}} -> erlmcp_native_http_events:id(S, C) =:= Garbage
                end
        end
    ).

%% @doc A value of a header means the same in Base64, and what is refused is so without a crash.
prop_encoded_headers_come_back() ->
    ?FORALL(
        {Text, Garbage},
        {list(integer(0, 16#d7ff)), binary()},
        begin
            Value = unicode:characters_to_binary(Text),
            Encoded = <<"=?base64?", (base64:encode(Value))/binary, "?=">>,
            _ = erlmcp_native_http_mirror:decode(Garbage),
            _ = erlmcp_native_http_mirror:decode(<<"=?base64?", Garbage/binary, "?=">>),
            {ok, Value} =:= erlmcp_native_http_mirror:decode(Encoded)
        end
    ).

%% @doc Whatever the headers say, there is a verdict, and it is none in favour of others.
prop_gate_bears_anything() ->
    ?FORALL(
        {Host, Origin},
        {oneof([binary(), authority()]), oneof([binary(), origin()])},
        begin
            Headers = [{<<"host">>, Host}, {<<"origin">>, Origin}],
            case erlmcp_native_http_gate:check(Headers, [<<"localhost">>], default) of
                ok -> is_local(Host) andalso is_local_origin(Origin);
                {forbidden, Text} -> is_binary(Text)
            end
        end
    ).

%% @doc Whatever a message says of its revision, it is one that is served, or refused.
prop_era_bears_anything() ->
    ?FORALL(
        {Header, Message, Revisions},
        {oneof([none, revision(), binary()]), message(), revisions()},
        case erlmcp_native_http_era:decide(Header, Message, Revisions) of
            {modern, Revision} -> lists:member(Revision, Revisions) andalso Revision =:= Header;
            {legacy, none} -> Header =:= none;
            {legacy, Header} -> lists:member(Header, Revisions);
            {refused, Code, Text, Data} ->
                is_binary(erlmcp_native_http_message:failure(null, Code, Text, Data))
        end
    ).

%% The references.

kept([{_, {_, Data}} = Event | Older], Max, MaxBytes, Kept) when
    Max > 0, byte_size(Data) =< MaxBytes
->
    kept(Older, Max - 1, MaxBytes - byte_size(Data), [Event | Kept]);
kept(_, _, _, Kept) ->
    Kept.

is_local(Host) ->
    re:run(Host, "^localhost(:|\\z)", [caseless, {capture, none}]) =:= match.

is_local_origin(Origin) ->
    Pattern = "^https?://(localhost|127(\\.[0-9]+){3}|\\[::1\\])(:[0-9]{1,5})?\\z",
    re:run(Origin, Pattern, [caseless, {capture, none}]) =:= match.

%% Generators.

stream() -> {oneof([get, post]), integer(1, 3)}.

authority() ->
    ?LET(
        Parts,
        list(elements([
            <<"localhost">>, <<"LOCALHOST">>, <<".">>, <<":">>, <<"80">>, <<"127.0.0.1">>,
            <<"[::1]">>, <<"evil">>, <<"@">>, <<"/">>, <<" ">>, <<"[">>, <<"]">>
        ])),
        iolist_to_binary(Parts)
    ).

origin() ->
    ?LET(
        {Scheme, Authority},
        {elements([<<"http://">>, <<"https://">>, <<"file://">>, <<>>]), authority()},
        <<Scheme/binary, Authority/binary>>
    ).

revision() -> elements([<<"2024-11-05">>, <<"2030-01-01">> | ?REVISIONS]).

revisions() ->
    ?LET(
        Chosen,
        list(elements(?REVISIONS)),
        case lists:reverse(lists:usort(Chosen)) of
            [] -> ?REVISIONS;
            Revisions -> Revisions
        end
    ).

message() ->
    ?LET(
        {Id, Method, Params},
        {elements([#{}, #{<<"id">> => 1}]), elements([<<"initialize">>, <<"ping">>]), params()},
        maps:merge(Id, maps:merge(#{<<"method">> => Method}, Params))
    ).

params() ->
    frequency([
        {1, elements([#{}, #{<<"params">> => []}, #{<<"params">> => #{<<"_meta">> => 1}}])},
        {1, #{<<"params">> => #{<<"protocolVersion">> => 7}}},
        {4, ?LET(Meta, meta(), #{<<"params">> => #{<<"_meta">> => Meta}})}
    ]).

meta() ->
    ?LET(
        {Version, Capabilities},
        {oneof([none, integer(), revision(), <<"x">>]), elements([none, 1, #{}])},
        maps:from_list(
            [{<<?META, "protocolVersion">>, Version} || Version =/= none] ++
                [{<<?META, "clientCapabilities">>, Capabilities} || Capabilities =/= none]
        )
    ).
