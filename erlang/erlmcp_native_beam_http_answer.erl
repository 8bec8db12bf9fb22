%% @doc Heads of answers, and the chunks of streams.
-module(erlmcp_native_beam_http_answer).

-export([fields/1, head/4, has_body/2, chunk/2, last_chunk/0, continue/0, date/1]).

-export_type([framing/0, clock/0]).

-type framing() :: {length, non_neg_integer()} | chunked | until_close | none.

-type clock() :: {Second :: integer(), Date :: binary()} | none.

%% @doc The lines of the caller's fields. `badarg' if there is one that would be more than a field
%% or is the path's business.
-spec fields(erlmcp_native_http_path:headers()) -> iolist().
fields([{Name, Value} | Fields]) ->
    is_name(Name) orelse error(badarg),
    [Name, <<": ">>, value(Value), <<"\r\n">> | fields(Fields)];
fields([]) ->
    [].

is_name(<<"content-type">>) -> true;
is_name(<<"content-length">>) -> false;
is_name(<<"transfer-encoding">>) -> false;
is_name(<<"connection">>) -> false;
is_name(<<"keep-alive">>) -> false;
is_name(<<"date">>) -> false;
is_name(<<"upgrade">>) -> false;
is_name(Name) ->
    erlmcp_native_http_syntax:is_token(Name) andalso
        erlmcp_native_beam_http_head:lowercase(Name) =:= Name.

value(Value) when is_binary(Value) ->
    erlmcp_native_http_syntax:is_value(Value) orelse error(badarg),
    Value;
value(Value) ->
    value(iolist_to_binary(Value)).

%% @doc A whole head.
-spec head(
    erlmcp_native_http_path:status(),
    Fields :: iodata(),
    framing(),
    #{date := binary(), keep := boolean()}
) -> iolist().
head(Status, Fields, Framing, #{date := Date, keep := Keep}) ->
    [
        status(Status),
        <<"date: ">>,
        Date,
        <<"\r\n">>,
        Fields,
        framing(Framing) | connection(Keep)
    ].

framing({length, Size}) -> [<<"content-length: ">>, integer_to_binary(Size), <<"\r\n">>];
framing(chunked) -> <<"transfer-encoding: chunked\r\n">>;
framing(_) -> <<>>.

connection(true) -> [<<"\r\n">>];
connection(false) -> [<<"connection: close\r\n\r\n">>].

%% @doc Whether an answer to that method, with that status, may have a body.
-spec has_body(Method :: binary(), erlmcp_native_http_path:status()) -> boolean().
has_body(<<"HEAD">>, _) -> false;
has_body(_, Status) -> Status >= 200 andalso Status =/= 204 andalso Status =/= 304.

%% @doc One chunk; the data must not be empty.
-spec chunk(iodata(), pos_integer()) -> iolist().
chunk(Data, Size) ->
    [integer_to_binary(Size, 16), <<"\r\n">>, Data, <<"\r\n">>].

-spec last_chunk() -> binary().
last_chunk() -> <<"0\r\n\r\n">>.

-spec continue() -> binary().
continue() -> <<"HTTP/1.1 100 Continue\r\n\r\n">>.

%% @doc The date of now, made anew once in a second.
-spec date(clock()) -> {Second :: integer(), Date :: binary()}.
date(Clock) ->
    Now = erlang:system_time(second),
    case Clock of
        {Now, _} -> Clock;
        _ -> {Now, format(calendar:system_time_to_universal_time(Now, second))}
    end.

format({{Year, Month, Day} = Date, {Hour, Minute, Second}}) ->
    WeekDay = element(
        calendar:day_of_the_week(Date), {"Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"}
    ),
    Name = element(
        Month,
        {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"}
    ),
    iolist_to_binary([
        WeekDay,
        ", ",
        two(Day),
        $\s,
        Name,
        $\s,
        integer_to_binary(Year),
        $\s,
        two(Hour),
        $:,
        two(Minute),
        $:,
        two(Second),
        " GMT"
    ]).

two(N) -> [$0 + N div 10, $0 + N rem 10].

status(200) -> <<"HTTP/1.1 200 OK\r\n">>;
status(202) -> <<"HTTP/1.1 202 Accepted\r\n">>;
status(Status) -> [<<"HTTP/1.1 ">>, integer_to_binary(Status), $\s, reason(Status), <<"\r\n">>].

reason(201) -> <<"Created">>;
reason(204) -> <<"No Content">>;
reason(304) -> <<"Not Modified">>;
reason(400) -> <<"Bad Request">>;
reason(401) -> <<"Unauthorized">>;
reason(403) -> <<"Forbidden">>;
reason(404) -> <<"Not Found">>;
reason(405) -> <<"Method Not Allowed">>;
reason(406) -> <<"Not Acceptable">>;
reason(408) -> <<"Request Timeout">>;
reason(413) -> <<"Content Too Large">>;
reason(414) -> <<"URI Too Long">>;
reason(415) -> <<"Unsupported Media Type">>;
reason(417) -> <<"Expectation Failed">>;
reason(421) -> <<"Misdirected Request">>;
reason(429) -> <<"Too Many Requests">>;
reason(431) -> <<"Request Header Fields Too Large">>;
reason(500) -> <<"Internal Server Error">>;
reason(501) -> <<"Not Implemented">>;
reason(503) -> <<"Service Unavailable">>;
reason(505) -> <<"HTTP Version Not Supported">>;
%% A reason may be empty (RFC 9112, 4).
reason(_) -> <<>>.
