%% @doc What the head of a request means: where the request goes, how its body is delimited
%% (RFC 9112, 6), and what becomes of the connection.
-module(erlmcp_native_beam_http_request).

-export([new/2]).

-export_type([meaning/0]).

-type meaning() :: #{
    method := binary(),
    path := binary(),
    query := binary(),
    headers := erlmcp_native_beam_http_head:fields(),
    version := {1, 0} | {1, 1},
    body := erlmcp_native_beam_http_body:framing(),
    keep := boolean(),
    expect := boolean()
}.
%% `keep': the client wants the connection kept. `expect': it waits for a 100.

-record(seen, {
    host = none :: none | binary(),
    length = none :: none | non_neg_integer(),
    coding = none :: none | chunked,
    close = false :: boolean(),
    expect = false :: boolean()
}).

%% @doc Refuses a head that could be read in more than one way, and a body that is too large.
-spec new(erlmcp_native_beam_http_head:head(), erlmcp_native_http_options:listener()) ->
    {ok, meaning()} | {error, erlmcp_native_http_path:status()}.
new({{Method, Target, Query, Version}, Fields}, Options) ->
    try
        {Authority, Path, QueryString} = target(Target, Query, Method),
        Seen = seen(Fields, #seen{}),
        ok = check_host(Seen#seen.host, Version),
        {ok, #{
            method => Method,
            path => Path,
            query => QueryString,
            headers => headers(Authority, Fields),
            version => Version,
            body => framing(Seen, Version, Options),
            keep => Version =:= {1, 1} andalso not Seen#seen.close,
            expect => Version =:= {1, 1} andalso Seen#seen.expect
        }}
    catch
        throw:Status -> {error, Status}
    end.

seen([], Seen) ->
    Seen;
seen([{<<"host">>, Host} | Fields], Seen) ->
    case Seen of
        #seen{host = none} -> seen(Fields, Seen#seen{host = Host});
        _ -> throw(400)
    end;
seen([{<<"content-length">>, Value} | Fields], Seen) ->
    case {length_of(Value), Seen} of
        {Length, #seen{length = none}} -> seen(Fields, Seen#seen{length = Length});
        {Length, #seen{length = Length}} -> seen(Fields, Seen);
        _ -> throw(400)
    end;
seen([{<<"transfer-encoding">>, Value} | Fields], Seen) ->
    case {lowercase(Value), Seen} of
        {<<"chunked">>, #seen{coding = none}} -> seen(Fields, Seen#seen{coding = chunked});
        {<<"chunked">>, _} -> throw(400);
        _ -> throw(501)
    end;
seen([{<<"connection">>, Value} | Fields], Seen) ->
    Close = Seen#seen.close orelse lists:member(<<"close">>, tokens(Value)),
    seen(Fields, Seen#seen{close = Close});
seen([{<<"expect">>, Value} | Fields], Seen) ->
    case lowercase(Value) of
        <<"100-continue">> -> seen(Fields, Seen#seen{expect = true});
        _ -> throw(417)
    end;
seen([_ | Fields], Seen) ->
    seen(Fields, Seen).

tokens(Value) ->
    binary:split(lowercase(Value), [<<",">>, <<" ">>, <<"\t">>], [global]).

lowercase(Value) -> erlmcp_native_beam_http_head:lowercase(Value).

%% Digits only: a sign, a list or an empty value is what others read differently.
length_of(Value) when byte_size(Value) > 0, byte_size(Value) < 20 -> digits(Value, 0);
length_of(_) -> throw(400).

digits(<<C, Rest/binary>>, N) when C >= $0, C =< $9 -> digits(Rest, N * 10 + C - $0);
digits(<<>>, N) -> N;
digits(_, _) -> throw(400).

framing(#seen{coding = chunked, length = none}, {1, 1}, _) -> chunked;
framing(#seen{coding = chunked}, _, _) -> throw(400);
framing(#seen{length = none}, _, _) -> {length, 0};
framing(#seen{length = Length}, _, #{max_body_bytes := Max}) when Length > Max -> throw(413);
framing(#seen{length = Length}, _, _) -> {length, Length}.

check_host(none, {1, 0}) -> ok;
check_host(none, _) -> throw(400);
check_host(Host, _) -> authority(Host).

%% A name or an address, and perhaps a port. The user's part of an authority is not for hosts.
authority(<<C, Rest/binary>>) when
    C >= $a, C =< $z; C >= $0, C =< $9; C >= $A, C =< $Z; C =:= $.; C =:= $-; C =:= $:
->
    authority(Rest);
authority(<<C, Rest/binary>>) ->
    case lists:member(C, "[]_~%!$&'()*+,;=") of
        true -> authority(Rest);
        false -> throw(400)
    end;
authority(<<>>) ->
    ok.

target(<<$/, _/binary>> = Target, Query, _) ->
    {Path, QueryString} = split(Target, Query),
    {none, Path, QueryString};
target(<<"*">>, none, <<"OPTIONS">>) ->
    {none, <<"*">>, <<>>};
target(_, _, <<"CONNECT">>) ->
    throw(501);
target(Target, _, _) ->
    absolute(Target).

split(Target, none) ->
    {Target, <<>>};
split(Target, Size) ->
    <<Path:Size/binary, $?, QueryString/binary>> = Target,
    {Path, QueryString}.

absolute(Target) ->
    case binary:split(Target, <<"://">>) of
        [Scheme, Rest] ->
            ok = scheme(lowercase(Scheme)),
            absolute_parts(Rest);
        [_] ->
            throw(400)
    end.

scheme(<<"http">>) -> ok;
scheme(<<"https">>) -> ok;
scheme(_) -> throw(400).

absolute_parts(Rest) ->
    Size =
        case binary:match(Rest, [<<"/">>, <<"?">>]) of
            {At, _} -> At;
            nomatch -> byte_size(Rest)
        end,
    <<Authority:Size/binary, After/binary>> = Rest,
    ok = authority(Authority),
    Size > 0 orelse throw(400),
    case binary:split(After, <<"?">>) of
        [<<>> | Query] -> {Authority, <<"/">>, iolist_to_binary(Query)};
        [Path | Query] -> {Authority, Path, iolist_to_binary(Query)}
    end.

%% The authority of the target counts, whatever the field says (RFC 9112, 3.2.2).
headers(none, Fields) -> Fields;
headers(Authority, Fields) -> [{<<"host">>, Authority} | lists:keydelete(<<"host">>, 1, Fields)].
