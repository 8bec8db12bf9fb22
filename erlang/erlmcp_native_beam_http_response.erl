%% @doc Answers of HTTP/1.1 servers (RFC 9112), read as they arrive.
%%
%% Strict wherever two readers could disagree about where an answer ends: line ends are CRLF, names
%% are tokens directly before their colon, values have no control characters, no field is folded, a
%% body has one length. What is not so is a fault, and the connection is of no further use.
-module(erlmcp_native_beam_http_response).

-export([new/2, feed/2, eof/1, is_untouched/1]).

-export_type([response/0, event/0, headers/0]).

%% As a listener has them for its requests.
-define(TRAILERS, #{max_headers => 100, max_header_bytes => 8192, max_target_bytes => 1}).

-record(response, {
    method :: binary(),
    max_head :: pos_integer(),
    %% The beginning of a head.
    head = <<>> :: binary(),
    part = untouched :: part()
}).

-opaque response() :: #response{}.

-type headers() :: [{Name :: binary(), Value :: binary()}].

-type event() ::
    {head, Status :: 200..599, headers()} | {data, binary()} | {done, keep | close} | fault.
%% `data': as much of the body as one chunk of input had. `done', `fault': the last event. `keep':
%% the connection can serve another request.

-type part() ::
    untouched
    | head
    | {left, pos_integer(), keep | close}
    | {chunked, erlmcp_native_beam_http_chunked:decoder(), keep | close}
    | to_the_end
    | over.

%% @doc The answer to a request, whose head may have `MaxHead' bytes.
-spec new(Method :: binary(), MaxHead :: pos_integer()) -> response().
new(Method, MaxHead) -> #response{method = Method, max_head = MaxHead}.

%% @doc What comes of the next bytes.
-spec feed(binary(), response()) -> {[event()], response()}.
feed(<<>>, R) -> {[], R};
feed(Bytes, #response{part = untouched} = R) -> head(Bytes, R#response{part = head});
feed(Bytes, #response{part = head, head = <<>>} = R) -> head(Bytes, R);
feed(Bytes, #response{part = head, head = Before} = R) -> head(<<Before/binary, Bytes/binary>>, R);
feed(Bytes, R) -> body(Bytes, R).

%% @doc What comes of the orderly end of the connection; nothing if it is not the end of an answer.
-spec eof(response()) -> [event()].
eof(#response{part = to_the_end}) -> [{done, close}];
eof(_) -> [].

%% @doc Whether no byte has come yet.
-spec is_untouched(response()) -> boolean().
is_untouched(#response{part = Part}) -> Part =:= untouched.

head(Bytes, #response{max_head = Max} = R) ->
    case binary:match(Bytes, <<"\r\n\r\n">>) of
        {End, 4} when End + 4 =< Max ->
            <<Head:End/binary, "\r\n\r\n", Rest/binary>> = Bytes,
            parsed(parse(Head), Rest, R#response{head = <<>>});
        nomatch when byte_size(Bytes) < Max ->
            case may_be_http(Bytes) of
                true -> {[], R#response{head = Bytes}};
                false -> fault([], R)
            end;
        _ ->
            fault([], R)
    end.

%% Of a server of something else nobody need wait for the rest.
may_be_http(<<"HTTP/1.", _/binary>>) -> true;
may_be_http(Bytes) -> binary:longest_common_prefix([Bytes, <<"HTTP/1.">>]) =:= byte_size(Bytes).

parsed({ok, _, 101, _}, _, R) ->
    %% Nobody asked for another protocol.
    fault([], R);
parsed({ok, _, Status, _}, Rest, R) when Status < 200 ->
    feed(Rest, R);
parsed({ok, Minor, Status, Headers}, Rest, R) ->
    case framing(Minor, Status, Headers, R) of
        fault -> fault([], R);
        {empty, Keep} -> before({head, Status, Headers}, over(Rest, Keep, [], R));
        Part -> before({head, Status, Headers}, feed(Rest, R#response{part = Part}))
    end;
parsed(fault, _, R) ->
    fault([], R).

before(Event, {Events, R}) -> {[Event | Events], R}.

%% What comes after an answer was not asked for.
over(<<>>, Keep, Events, R) -> {Events ++ [{done, Keep}], R#response{part = over}};
over(_, _, Events, R) -> {Events ++ [{done, close}], R#response{part = over}}.

fault(Events, R) -> {Events ++ [fault], R#response{part = over}}.

body(Bytes, #response{part = {left, Left, Keep}} = R) ->
    case Bytes of
        <<Data:Left/binary, Rest/binary>> -> over(Rest, Keep, [{data, Data}], R);
        _ -> {[{data, Bytes}], R#response{part = {left, Left - byte_size(Bytes), Keep}}}
    end;
body(Bytes, #response{part = {chunked, Decoder0, Keep}} = R) ->
    case erlmcp_native_beam_http_chunked:decode(Bytes, Decoder0) of
        {more, Data, Decoder} -> {data(Data), R#response{part = {chunked, Decoder, Keep}}};
        {done, Data, Rest} -> over(Rest, Keep, data(Data), R);
        {error, _, Data} -> fault(data(Data), R)
    end;
body(Bytes, #response{part = to_the_end} = R) ->
    {[{data, Bytes}], R};
body(_, #response{part = over} = R) ->
    {[], R}.

%% Joined: many tiny chunks would cost more for what describes them than for their bytes.
data([]) -> [];
data([Data]) -> [{data, Data}];
data(Parts) -> [{data, iolist_to_binary(Parts)}].

parse(Head) ->
    [StatusLine | Lines] = binary:split(Head, <<"\r\n">>, [global]),
    case status(StatusLine) of
        {ok, Minor, Status} -> fields(Lines, [], Minor, Status);
        fault -> fault
    end.

status(<<"HTTP/1.", Minor, " ", A, B, C, Reason/binary>>) when
    Minor >= $0, Minor =< $9, A >= $1, A =< $5, B >= $0, B =< $9, C >= $0, C =< $9
->
    case reason(Reason) of
        true -> {ok, Minor - $0, (A - $0) * 100 + (B - $0) * 10 + C - $0};
        false -> fault
    end;
status(_) ->
    fault.

%% Some servers leave out the space before a reason phrase that is empty.
reason(<<>>) -> true;
reason(<<" ", Text/binary>>) -> erlmcp_native_http_syntax:is_value(Text);
reason(_) -> false.

fields([Line | Lines], Acc, Minor, Status) ->
    case field(Line) of
        {_, _} = Field -> fields(Lines, [Field | Acc], Minor, Status);
        fault -> fault
    end;
fields([], Acc, Minor, Status) ->
    {ok, Minor, Status, lists:reverse(Acc)}.

field(Line) ->
    case binary:split(Line, <<":">>) of
        [Name, Value] -> field(Name, Value);
        [_] -> fault
    end.

field(Name, Value) ->
    case
        erlmcp_native_http_syntax:is_token(Name) andalso
            erlmcp_native_http_syntax:is_value(Value)
    of
        true -> {lowercase(Name), erlmcp_native_http_syntax:trim(Value)};
        false -> fault
    end.

lowercase(Bytes) -> erlmcp_native_beam_http_head:lowercase(Bytes).

%% How long the body is (RFC 9112, 6.3).
framing(Minor, Status, Headers, #response{method = Method}) ->
    Keep = persistence(Minor, Status, tokens(<<"connection">>, Headers), Method),
    Codings = tokens(<<"transfer-encoding">>, Headers),
    case {length(tokens(<<"content-length">>, Headers)), Codings} of
        {N, [_ | _]} when N > 0; Minor =:= 0 -> fault;
        _ -> body_part(is_bodiless(Method, Status), Codings, content_length(Headers), Keep)
    end.

body_part(_, _, fault, _) -> fault;
body_part(true, _, _, Keep) -> {empty, Keep};
body_part(false, [<<"chunked">>], _, Keep) ->
    {chunked, erlmcp_native_beam_http_chunked:new(?TRAILERS), Keep};
body_part(false, [_ | _], _, _) -> fault;
body_part(false, [], none, _) -> to_the_end;
body_part(false, [], 0, Keep) -> {empty, Keep};
body_part(false, [], Length, Keep) -> {left, Length, Keep}.

is_bodiless(<<"HEAD">>, _) -> true;
is_bodiless(<<"CONNECT">>, Status) when Status < 300 -> true;
is_bodiless(_, Status) -> Status =:= 204 orelse Status =:= 304.

%% Many proxies open a tunnel in HTTP/1.0.
persistence(_, Status, _, <<"CONNECT">>) when Status < 300 ->
    keep;
persistence(Minor, _, Tokens, _) ->
    case lists:member(<<"close">>, Tokens) of
        false when Minor > 0 -> keep;
        false -> kept_alive(lists:member(<<"keep-alive">>, Tokens));
        true -> close
    end.

kept_alive(true) -> keep;
kept_alive(false) -> close.

%% The same length more than once is one length.
content_length(Headers) ->
    case lists:usort(tokens(<<"content-length">>, Headers)) of
        [] -> none;
        [Length] -> digits(Length);
        _ -> fault
    end.

digits(Digits) when byte_size(Digits) > 0, byte_size(Digits) =< 18 ->
    case << <<C>> || <<C>> <= Digits, C >= $0, C =< $9 >> of
        Digits -> binary_to_integer(Digits);
        _ -> fault
    end;
digits(_) ->
    fault.

tokens(Name, Headers) ->
    [
        lowercase(erlmcp_native_http_syntax:trim(Token))
     || {N, V} <- Headers, N =:= Name, Token <- split(V)
    ].

split(Value) -> binary:split(Value, <<",">>, [global]).
