%% @doc HTTP messages in packets of the path `port', as docs/port_protocol.md has them.
-module(erlmcp_native_port_http_packet).

-export([request/1, head/2, client_request/1]).

-define(TLS, 1).
-define(PENDING, 2).

-define(INFINITY, 16#ffffffffffffffff).

-define(IS_OURS(Name),
    Name =:= <<"content-length">>;
    Name =:= <<"transfer-encoding">>;
    Name =:= <<"connection">>;
    Name =:= <<"keep-alive">>;
    Name =:= <<"date">>;
    Name =:= <<"upgrade">>
).

%% @doc A request as it is served, from what follows its number in the packet.
-spec request(binary()) -> erlmcp_native_http_path:request().
request(<<Flags, Term/binary>>) ->
    {{Method, Path, Query, Headers, Version, Peer}, Body} =
        erlmcp_native_port_term:read_first(Term),
    #{
        method => Method,
        path => Path,
        query => Query,
        headers => Headers,
        version => Version,
        scheme => scheme(Flags band ?TLS),
        peername => Peer,
        body => body(Flags band ?PENDING, Body)
    }.

scheme(0) -> http;
scheme(_) -> https.

body(0, Body) -> {complete, Body};
body(_, _) -> pending.

%% @doc Status and headers of an answer. `badarg' if there is a header that would be more than one
%% or is the path's business.
-spec head(erlmcp_native_http_path:status(), erlmcp_native_http_path:headers()) -> iolist().
head(Status, Headers) when Status >= 200, Status < 600 ->
    [<<Status:16, (length(Headers)):16>> | answer_fields(Headers)];
head(_, _) ->
    error(badarg).

answer_fields([{Name, Value} | Headers]) ->
    is_answers(Name) orelse error(badarg),
    Bytes = iolist_to_binary(Value),
    erlmcp_native_http_syntax:is_value(Bytes) orelse error(badarg),
    [field(Name, Bytes) | answer_fields(Headers)];
answer_fields([]) ->
    [].

is_answers(<<"content-type">>) -> true;
is_answers(Name) when ?IS_OURS(Name) -> false;
is_answers(Name) -> erlmcp_native_http_syntax:is_token(Name).

field(Name, Value) -> [<<(byte_size(Name)):16>>, Name, <<(byte_size(Value)):32>>, Value].

%% @doc A client's request up to its body; an error if it could not be read as what it is.
-spec client_request(erlmcp_native_http_client_path:request()) ->
    {ok, iolist()} | {error, erlmcp_native:reason()}.
client_request(#{method := Method, target := Target, headers := Headers} = Request) ->
    IsMethod = erlmcp_native_http_syntax:is_token(Method) andalso Method =/= <<"CONNECT">>,
    case {IsMethod, is_target(Target), client_fields(Headers, [])} of
        {true, true, {ok, Fields}} ->
            #{body := Body, timeout_ms := Timeout, total_timeout_ms := Total} = Request,
            Start = <<
                (ms(Timeout)):64,
                (ms(Total)):64,
                (has_body(Body)):8,
                (byte_size(Method)):16,
                Method/binary,
                (byte_size(Target)):32,
                Target/binary,
                (length(Fields)):16
            >>,
            {ok, [Start | Fields]};
        {false, _, _} ->
            {error, {option, method, Method}};
        {_, false, _} ->
            {error, {option, target, Target}};
        {_, _, {error, Name}} ->
            {error, {option, headers, Name}}
    end.

ms(infinity) -> ?INFINITY;
ms(Ms) -> Ms.

has_body(none) -> 0;
has_body(_) -> 1.

is_target(<<"/", Rest/binary>>) -> is_visible(Rest);
is_target(_) -> false.

is_visible(<<C, Rest/binary>>) when C > $\s, C =/= 127 -> is_visible(Rest);
is_visible(Rest) -> Rest =:= <<>>.

%% The value may be a secret, and is not told of. The program leaves out what is its business.
client_fields([{Name, Value} | Headers], Acc) ->
    Bytes = iolist_to_binary(Value),
    case erlmcp_native_http_syntax:is_token(Name) of
        true ->
            case erlmcp_native_http_syntax:is_value(Bytes) of
                true -> client_fields(Headers, [field(Name, Bytes) | Acc]);
                false -> {error, Name}
            end;
        false ->
            {error, Name}
    end;
client_fields([], Acc) ->
    {ok, lists:reverse(Acc)}.
