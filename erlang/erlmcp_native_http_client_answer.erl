%% @private Reads the answer to an HTTP request: what it is by its head, and the messages in its
%% body. Pure.
-module(erlmcp_native_http_client_answer).

-export([new/4, kind/1, status/1, headers/1, feed/2, finish/1]).
-export([challenge/1, retry_after_ms/1, location/1]).

-export_type([answer/0, item/0]).

-type item() ::
    {message, binary()}
    | {endpoint, binary()}
    | {event_id, binary()}
    | {retry_ms, non_neg_integer()}.

-record(answer, {
    kind :: json | stream | other,
    status :: 100..599,
    headers :: [{binary(), binary()}],
    max_bytes :: pos_integer(),
    bytes = 0 :: non_neg_integer(),
    parts = [] :: [binary()],
    parser = none :: erlmcp_native_sse:parser() | none
}).

-opaque answer() :: #answer{}.

%% So much of an answer that is not what was asked for is kept.
-define(MAX_OTHER_BYTES, 65536).

%% @doc `Expects': whether messages are expected at all, as in the answer to a notification they
%% are not.
-spec new(100..599, [{binary(), binary()}], Expects :: boolean(), MaxBytes :: pos_integer()) ->
    answer().
new(Status, Headers, Expects, MaxBytes) ->
    Kind =
        case Expects andalso Status >= 200 andalso Status < 300 andalso content_type(Headers) of
            <<"text/event-stream">> -> stream;
            <<"application/json">> -> json;
            _ -> other
        end,
    Answer = #answer{kind = Kind, status = Status, headers = Headers, max_bytes = MaxBytes},
    case Kind of
        stream -> Answer#answer{parser = erlmcp_native_sse:new(MaxBytes)};
        json -> Answer;
        other -> Answer#answer{max_bytes = ?MAX_OTHER_BYTES}
    end.

-spec kind(answer()) -> json | stream | other.
kind(#answer{kind = Kind}) -> Kind.

-spec status(answer()) -> 100..599.
status(#answer{status = Status}) -> Status.

-spec headers(answer()) -> [{binary(), binary()}].
headers(#answer{headers = Headers}) -> Headers.

%% @doc Takes the next parts of the body. `too_large': a message is, or a body that is none; what
%% came before it is in the items.
-spec feed([binary()], answer()) -> {[item()], answer()} | {[item()], too_large, answer()}.
feed(Parts, #answer{kind = stream} = Answer) ->
    parse(Parts, [], Answer);
feed(Parts, #answer{bytes = Bytes, max_bytes = Max, parts = Before} = Answer) ->
    Sum = Bytes + iolist_size(Parts),
    Next = Answer#answer{bytes = Sum, parts = lists:reverse(Parts, Before)},
    case Sum > Max of
        true -> {[], too_large, Next};
        false -> {[], Next}
    end.

%% @doc The body has ended: the message that it is, or what it is where it is none.
-spec finish(answer()) -> {[item()], Other :: binary()}.
finish(#answer{kind = stream}) ->
    {[], <<>>};
finish(#answer{kind = json} = Answer) ->
    {[{message, body(Answer)}], <<>>};
finish(#answer{kind = other} = Answer) ->
    {[], body(Answer)}.

%% @doc What a server wants of who is not authorized.
-spec challenge([{binary(), binary()}]) -> binary().
challenge(Headers) ->
    Values = [Value || {<<"www-authenticate">>, Value} <- Headers],
    iolist_to_binary(lists:join(<<", ">>, Values)).

%% @doc How long a server asks to wait, if it says so.
-spec retry_after_ms([{binary(), binary()}]) -> non_neg_integer() | none.
retry_after_ms(Headers) ->
    case lists:keyfind(<<"retry-after">>, 1, Headers) of
        {_, Value} ->
            case string:to_integer(Value) of
                {Seconds, <<>>} when Seconds >= 0 -> min(Seconds, 86400) * 1000;
                _ -> until(Value)
            end;
        false ->
            none
    end.

-spec location([{binary(), binary()}]) -> binary() | none.
location(Headers) ->
    case lists:keyfind(<<"location">>, 1, Headers) of
        {_, Location} -> Location;
        false -> none
    end.

parse([], Items, Answer) ->
    {lists:reverse(Items), Answer};
parse([Part | Parts], Items, #answer{parser = Parser} = Answer) ->
    case erlmcp_native_sse:feed(Part, Parser) of
        {ok, Events, Next} ->
            parse(Parts, read(Events, Parser, Next, Items), Answer#answer{parser = Next});
        {error, event_too_large, Events, Next} ->
            {lists:reverse(read(Events, Parser, Next, Items)), too_large, Answer}
    end.

read(Events, Before, After, Items) ->
    event_id(Before, After, lists:foldl(fun event/2, Items, Events)).

event({retry, Ms}, Items) -> [{retry_ms, Ms} | Items];
event({event, #{data := <<>>}}, Items) -> Items;
event({event, #{type := <<"message">>, data := Data}}, Items) -> [{message, Data} | Items];
event({event, #{type := <<"endpoint">>, data := Data}}, Items) -> [{endpoint, Data} | Items];
event(_, Items) -> Items.

%% Events without data count as well.
event_id(Before, After, Items) ->
    case {erlmcp_native_sse:last_id(Before), erlmcp_native_sse:last_id(After)} of
        {Id, Id} -> Items;
        {_, <<>>} -> Items;
        {_, Id} -> [{event_id, Id} | Items]
    end.

body(#answer{parts = [Body]}) -> Body;
body(#answer{parts = Parts}) -> iolist_to_binary(lists:reverse(Parts)).

content_type(Headers) ->
    case lists:keyfind(<<"content-type">>, 1, Headers) of
        {_, <<"application/json">> = Plain} ->
            Plain;
        {_, <<"text/event-stream">> = Plain} ->
            Plain;
        {_, Value} ->
            [Type | _] = binary:split(Value, <<";">>),
            string:lowercase(string:trim(Type));
        false ->
            none
    end.

%% The one form of a date that is not obsolete: Sun, 06 Nov 1994 08:49:37 GMT.
until(
    <<_:3/binary, ", ", D:2/binary, " ", M:3/binary, " ", Y:4/binary, " ", H:2/binary, ":",
        Mi:2/binary, ":", S:2/binary, " GMT">>
) ->
    try
        Date = {binary_to_integer(Y), month(M), binary_to_integer(D)},
        Time = {binary_to_integer(H), binary_to_integer(Mi), binary_to_integer(S)},
        At = calendar:datetime_to_gregorian_seconds({Date, Time}) - 62167219200,
        min(max(0, At - erlang:system_time(second)), 86400) * 1000
    catch
        error:_ -> none
    end;
until(_) ->
    none.

month(Name) ->
    Names = <<"JanFebMarAprMayJunJulAugSepOctNovDec">>,
    {At, 3} = binary:match(Names, Name),
    0 = At rem 3,
    At div 3 + 1.
