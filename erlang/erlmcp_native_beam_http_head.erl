%% @doc The head of an HTTP/1 request, and the trailers of a chunked body, found in chunks of any
%% size (RFC 9112).
%%
%% Nothing is repaired: what two readers could take for different requests is refused. Whatever is
%% wrong is found at the same byte however the stream is cut, and a limit is met there as well, so
%% that no more than a line of the largest size is ever kept unread.
-module(erlmcp_native_beam_http_head).

-export([new/1, trailers/1, parse/2, is_fresh/1, lowercase/1]).

-export_type([parser/0, limits/0, head/0, fields/0, refusal/0]).

%% A method that is longer is none that anybody serves.
-define(MAX_METHOD, 64).

-define(PRINTABLE(C), C >= 32, C < 127).

-record(parser, {
    stage = start :: start | fields,
    max_headers :: pos_integer(),
    max_header :: pos_integer(),
    max_target :: pos_integer(),
    %% Read and not understood: the beginning of a line.
    rest = <<>> :: binary(),
    line = none :: none | trailers | line(),
    count = 0 :: non_neg_integer(),
    fields = [] :: fields()
}).

-opaque parser() :: #parser{}.

-type line() ::
    {Method :: binary(), Target :: binary(), Query :: none | non_neg_integer(), version()}.
%% `Query': where in the target its question mark is.

-type version() :: {1, 0} | {1, 1}.

-type fields() :: [{Name :: binary(), Value :: binary()}].
%% Names in lower case.

-type head() :: {line(), fields()} | {trailers, fields()}.

-type limits() :: #{
    max_headers := pos_integer(),
    max_header_bytes := pos_integer(),
    max_target_bytes := pos_integer(),
    _ => _
}.

-type refusal() :: 400 | 414 | 431 | 501 | 505.

%% @doc A parser for the head of a request.
-spec new(limits()) -> parser().
new(#{max_headers := Headers, max_header_bytes := Header, max_target_bytes := Target}) ->
    #parser{max_headers = Headers, max_header = Header, max_target = Target}.

%% @doc A parser for what follows the last chunk of a body.
-spec trailers(limits()) -> parser().
trailers(Limits) ->
    (new(Limits))#parser{stage = fields, line = trailers}.

%% @doc Whether nothing of a head has been read.
-spec is_fresh(parser()) -> boolean().
is_fresh(#parser{stage = start, rest = <<>>}) -> true;
is_fresh(#parser{}) -> false.

%% @doc Reads on. `done' comes with what follows the head.
-spec parse(binary(), parser()) ->
    {more, parser()} | {done, head(), Rest :: binary()} | {error, refusal()}.
parse(Chunk, #parser{rest = <<>>} = P) ->
    resume(Chunk, P);
parse(Chunk, #parser{rest = Rest} = P) ->
    resume(<<Rest/binary, Chunk/binary>>, P).

%% @doc Of ASCII only: what else there is need not be UTF-8.
-spec lowercase(binary()) -> binary().
lowercase(Bin) -> <<<<(lower(C))>> || <<C>> <= Bin>>.

resume(Bin, #parser{stage = start} = P) -> start(Bin, P);
resume(Bin, #parser{stage = fields, count = Count, fields = Fields} = P) ->
    fields(Bin, Count, Fields, P).

%% Empty lines before a request are what some clients send after a body.
start(<<"\r\n", Rest/binary>>, P) -> start(Rest, P);
start(<<"POST ", Rest/binary>> = Bin, P) -> target(<<"POST">>, Rest, Bin, P);
start(<<"GET ", Rest/binary>> = Bin, P) -> target(<<"GET">>, Rest, Bin, P);
start(<<"\r">> = Bin, P) -> more(Bin, P);
start(Bin, P) -> method(Bin, Bin, 0, P).

method(<<$\s, Rest/binary>>, Bin, Size, P) when Size > 0 ->
    target(binary:part(Bin, 0, Size), Rest, Bin, P);
method(<<_, _/binary>>, _, ?MAX_METHOD, _) ->
    {error, 501};
method(<<C, Rest/binary>>, Bin, Size, P) ->
    case is_token(C) of
        true -> method(Rest, Bin, Size + 1, P);
        false -> {error, 400}
    end;
method(<<>>, Bin, _, P) ->
    more(Bin, P).

target(Method, Rest, Bin, #parser{max_target = Max} = P) ->
    case scan(Rest, 0, Max, none) of
        {Size, Query} when is_integer(Size) ->
            <<Target:Size/binary, _, After/binary>> = Rest,
            version(After, Method, Target, Query, Bin, P);
        more ->
            more(Bin, P);
        {error, _} = Error ->
            Error
    end.

scan(<<$\s, _/binary>>, Size, _, Query) when Size > 0 -> {Size, Query};
scan(<<_, _/binary>>, Max, Max, _) -> {error, 414};
scan(<<$?, Rest/binary>>, Size, Max, none) -> scan(Rest, Size + 1, Max, Size);
scan(<<$#, _/binary>>, _, _, _) -> {error, 400};
scan(<<C, Rest/binary>>, Size, Max, Query) when C > 32, C < 127 ->
    scan(Rest, Size + 1, Max, Query);
scan(<<>>, _, _, _) -> more;
scan(_, _, _, _) -> {error, 400}.

version(<<"HTTP/1.1\r\n", Rest/binary>>, Method, Target, Query, _, P) ->
    first_field(Rest, {Method, Target, Query, {1, 1}}, P);
version(<<"HTTP/1.0\r\n", Rest/binary>>, Method, Target, Query, _, P) ->
    first_field(Rest, {Method, Target, Query, {1, 0}}, P);
%% Any other 1.x is to be answered as 1.1 is.
version(<<"HTTP/1.", C, "\r\n", Rest/binary>>, Method, Target, Query, _, P) when
    C > $1, C =< $9
->
    first_field(Rest, {Method, Target, Query, {1, 1}}, P);
version(<<"HTTP/", A, ".", B, "\r\n", _/binary>>, _, _, _, _, _) when
    A >= $0, A =< $9, B >= $0, B =< $9
->
    {error, 505};
version(Bin, _, _, _, _, _) when byte_size(Bin) >= 10 ->
    {error, 400};
version(_, _, _, _, Bin, P) ->
    more(Bin, P).

first_field(Bin, Line, P) ->
    fields(Bin, 0, [], P#parser{stage = fields, line = Line}).

fields(<<"\r\n", Rest/binary>>, _, Fields, #parser{line = Line}) ->
    {done, {Line, lists:reverse(Fields)}, Rest};
fields(Bin, Count, Fields, P) when byte_size(Bin) =:= 0; Bin =:= <<"\r">> ->
    more(Bin, P#parser{count = Count, fields = Fields});
fields(<<"\r", _/binary>>, _, _, _) ->
    {error, 400};
fields(_, Max, _, #parser{max_headers = Max}) ->
    {error, 431};
fields(Bin, Count, Fields, #parser{max_header = Max} = P) ->
    case field(Bin, Max) of
        {Name, Value, Rest} -> fields(Rest, Count + 1, [{Name, Value} | Fields], P);
        more -> more(Bin, P#parser{count = Count, fields = Fields});
        {error, _} = Error -> Error
    end.

more(Rest, P) ->
    {more, P#parser{rest = Rest}}.

%% The names that nearly every request has are known at sight; no limit is as small as these.
field(<<"host:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"host">>, Max - 4, Max);
field(<<"Host:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"host">>, Max - 4, Max);
field(<<"content-length:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"content-length">>, Max - 14, Max);
field(<<"Content-Length:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"content-length">>, Max - 14, Max);
field(<<"content-type:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"content-type">>, Max - 12, Max);
field(<<"Content-Type:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"content-type">>, Max - 12, Max);
field(<<"accept:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"accept">>, Max - 6, Max);
field(<<"Accept:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"accept">>, Max - 6, Max);
field(<<"mcp-session-id:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"mcp-session-id">>, Max - 14, Max);
field(<<"mcp-protocol-version:", Rest/binary>>, Max) when Max >= 64 ->
    value(Rest, <<"mcp-protocol-version">>, Max - 20, Max);
field(Bin, Max) ->
    name(Bin, Bin, 0, Max, lower).

name(<<$:, Rest/binary>>, Line, Size, Max, Case) when Size > 0 ->
    value(Rest, lower(binary:part(Line, 0, Size), Case), Max - Size, Max);
name(<<_, _/binary>>, _, Max, Max, _) ->
    {error, 431};
name(<<C, Rest/binary>>, Line, Size, Max, Case) when C >= $a, C =< $z; C =:= $- ->
    name(Rest, Line, Size + 1, Max, Case);
name(<<C, Rest/binary>>, Line, Size, Max, _) when C >= $A, C =< $Z ->
    name(Rest, Line, Size + 1, Max, mixed);
name(<<C, Rest/binary>>, Line, Size, Max, Case) ->
    case is_token(C) of
        true -> name(Rest, Line, Size + 1, Max, Case);
        false -> {error, 400}
    end;
name(<<>>, _, _, _, _) ->
    more.

%% More white space before a value than there may be of the value is no header either.
value(<<C, Rest/binary>>, Name, Max, Blanks) when C =:= $\s orelse C =:= $\t ->
    case Blanks of
        0 -> {error, 431};
        _ -> value(Rest, Name, Max, Blanks - 1)
    end;
value(Bin, Name, Max, _) ->
    value(Bin, Bin, 0, Name, Max).

%% Four at a time where they are what nearly all are.
value(<<A, B, C, D, Rest/binary>>, Line, Size, Name, Max) when
    ?PRINTABLE(A), ?PRINTABLE(B), ?PRINTABLE(C), ?PRINTABLE(D), Size + 4 =< Max
->
    value(Rest, Line, Size + 4, Name, Max);
value(<<"\r\n", Rest/binary>>, Line, Size, Name, _) ->
    {Name, erlmcp_native_http_syntax:trim(binary:part(Line, 0, Size)), Rest};
value(<<$\r>>, _, _, _, _) ->
    more;
value(<<C, _/binary>>, _, Max, _, Max) when C =/= $\r ->
    {error, 431};
value(<<C, Rest/binary>>, Line, Size, Name, Max) when C >= 32, C =/= 127; C =:= $\t ->
    value(Rest, Line, Size + 1, Name, Max);
value(<<>>, _, _, _, _) ->
    more;
value(_, _, _, _, _) ->
    {error, 400}.

lower(Name, lower) -> Name;
lower(Name, mixed) -> lowercase(Name).

lower(C) when C >= $A, C =< $Z -> C + 32;
lower(C) -> C.

is_token(C) when C >= $a, C =< $z -> true;
is_token(C) when C >= $A, C =< $Z -> true;
is_token(C) when C >= $0, C =< $9 -> true;
is_token($-) -> true;
is_token($_) -> true;
is_token($.) -> true;
is_token($!) -> true;
is_token($#) -> true;
is_token($$) -> true;
is_token($%) -> true;
is_token($&) -> true;
is_token($') -> true;
is_token($*) -> true;
is_token($+) -> true;
is_token($^) -> true;
is_token($`) -> true;
is_token($|) -> true;
is_token($~) -> true;
is_token(_) -> false.
