%% @doc Event streams (`text/event-stream', the "Server-sent events" section of the HTML standard):
%% writing events, and reading them from a stream that arrives in pieces of any size.
%%
%% ```
%% P0 = erlmcp_native_sse:new(),
%% {ok, [], P1} = erlmcp_native_sse:feed(<<"id: 7\ndata: {}\n">>, P0),
%% {ok, [{event, #{id := <<"7">>, data := <<"{}">>}}], P2} =
%%     erlmcp_native_sse:feed(<<"\n">>, P1).
%% '''
-module(erlmcp_native_sse).

-export([encode/1, comment/0]).
-export([new/0, new/1, feed/2, last_id/1]).

-export_type([fields/0, event/0, item/0, parser/0]).

-type fields() :: #{
    id => iodata(),
    event => iodata(),
    retry => non_neg_integer(),
    data => iodata()
}.
%% What an event is written from. Data may have lines; an id and a name must be of one. An event
%% without `data' sets the reader's last id or time to retry, and is not given to its user.

-type event() :: #{type := binary(), data := binary(), id := binary()}.
%% `type' is <<"message">> where the stream names none. `id' is that of the event or of the last
%% one that had any. Data may be a part of the binary that was fed.

-type item() :: {event, event()} | {retry, Ms :: non_neg_integer()}.

-record(parser, {
    %% Bytes that may be the start of a byte order mark, before anything else was read.
    mark = <<>> :: binary() | done,
    line_feed :: binary:cp(),
    %% The last byte was a carriage return, which ended its line: a line feed belongs to it.
    after_cr = false :: boolean(),
    %% The unfinished line, last piece first.
    line = [] :: [binary()],
    line_bytes = 0 :: non_neg_integer(),
    %% The lines of data of the unfinished event, last line first.
    data = [] :: [binary()],
    data_bytes = 0 :: non_neg_integer(),
    type = <<>> :: binary(),
    id = <<>> :: binary(),
    last_id = <<>> :: binary(),
    max_bytes :: pos_integer()
}).

-opaque parser() :: #parser{}.

-define(MARK, <<16#ef, 16#bb, 16#bf>>).

%% As the largest message of the transports.
-define(MAX_BYTES, 16777216).

%% More digits than any time that makes sense.
-define(MAX_RETRY_DIGITS, 9).

%% @doc Writes an event.
-spec encode(fields()) -> iodata().
encode(Fields) ->
    [
        field(<<"id: ">>, id, Fields),
        field(<<"event: ">>, event, Fields),
        retry(Fields),
        data(Fields),
        $\n
    ].

%% @doc A line that readers skip; it keeps a connection from looking dead.
-spec comment() -> binary().
comment() -> <<":\n\n">>.

field(Name, Key, Fields) ->
    case Fields of
        #{Key := Value} ->
            Flat = iolist_to_binary(Value),
            case binary:match(Flat, [<<"\n">>, <<"\r">>, <<0>>]) of
                nomatch -> [Name, Flat, $\n];
                _ -> error(badarg, [Fields])
            end;
        #{} ->
            []
    end.

retry(#{retry := Ms}) when is_integer(Ms), Ms >= 0 -> [<<"retry: ">>, integer_to_binary(Ms), $\n];
retry(#{retry := _} = Fields) -> error(badarg, [Fields]);
retry(_) -> [].

data(#{data := Data}) ->
    Flat = iolist_to_binary(Data),
    case binary:match(Flat, [<<"\n">>, <<"\r">>]) of
        nomatch -> [<<"data: ">>, Flat, $\n];
        _ -> [[<<"data: ">>, Line, $\n] || Line <- split(Flat)]
    end;
data(_) ->
    [].

split(Text) -> binary:split(Text, [<<"\r\n">>, <<"\n">>, <<"\r">>], [global]).

%% @equiv new(16777216)
-spec new() -> parser().
new() ->
    new(?MAX_BYTES).

%% @doc A reader of one stream. At most so many bytes of an unfinished line and of an unfinished
%% event's data are kept.
-spec new(MaxBytes :: pos_integer()) -> parser().
new(MaxBytes) ->
    #parser{max_bytes = MaxBytes, line_feed = binary:compile_pattern([<<"\n">>, <<"\r">>])}.

%% @doc Reads what has arrived. After an error the stream is of no use, but the events that were
%% complete before come with it. What is unfinished at the end of a stream is no event.
-spec feed(binary(), parser()) ->
    {ok, [item()], parser()} | {error, event_too_large, [item()], parser()}.
feed(Chunk, #parser{mark = done} = Parser) ->
    lines(Chunk, [], Parser);
feed(Chunk, #parser{mark = Seen} = Parser) ->
    case <<Seen/binary, Chunk/binary>> of
        <<16#ef, 16#bb, 16#bf, Rest/binary>> ->
            lines(Rest, [], Parser#parser{mark = done});
        Bytes when byte_size(Bytes) < 3 ->
            case binary:longest_common_prefix([Bytes, ?MARK]) of
                Length when Length =:= byte_size(Bytes) -> {ok, [], Parser#parser{mark = Bytes}};
                _ -> lines(Bytes, [], Parser#parser{mark = done})
            end;
        Bytes ->
            lines(Bytes, [], Parser#parser{mark = done})
    end.

%% @doc The id to resume the stream with: that of the last event that is complete, with or without
%% data; empty if there was none.
-spec last_id(parser()) -> binary().
last_id(#parser{last_id = Id}) -> Id.

lines(<<>>, Items, Parser) ->
    {ok, lists:reverse(Items), Parser};
lines(<<$\n, Rest/binary>>, Items, #parser{after_cr = true} = Parser) ->
    lines(Rest, Items, Parser#parser{after_cr = false});
lines(Bytes, Items, #parser{line_feed = Pattern} = Parser) ->
    case binary:match(Bytes, Pattern) of
        {At, 1} ->
            <<Piece:At/binary, End, Rest/binary>> = Bytes,
            case extend(Piece, Parser#parser{after_cr = End =:= $\r}) of
                {ok, #parser{line = Line} = Extended} ->
                    Ended = Extended#parser{line = [], line_bytes = 0},
                    line(join(Line, <<>>), Rest, Items, Ended);
                too_large ->
                    too_large(Items, Parser)
            end;
        nomatch ->
            case extend(Bytes, Parser#parser{after_cr = false}) of
                {ok, Extended} -> {ok, lists:reverse(Items), Extended};
                too_large -> too_large(Items, Parser)
            end
    end.

too_large(Items, Parser) ->
    {error, event_too_large, lists:reverse(Items), Parser}.

extend(Piece, #parser{line = Line, line_bytes = Bytes, max_bytes = Max} = Parser) ->
    case Bytes + byte_size(Piece) of
        Sum when Sum + Parser#parser.data_bytes > Max -> too_large;
        Sum -> {ok, Parser#parser{line = [Piece | Line], line_bytes = Sum}}
    end.

line(<<>>, Rest, Items, Parser) ->
    dispatch(Rest, Items, Parser);
line(<<$:, _/binary>>, Rest, Items, Parser) ->
    lines(Rest, Items, Parser);
line(Line, Rest, Items, Parser) ->
    {Name, Value} =
        case binary:split(Line, <<":">>) of
            [Before, <<" ", After/binary>>] -> {Before, After};
            [Before, After] -> {Before, After};
            [All] -> {All, <<>>}
        end,
    case field(Name, Value, Items, Parser) of
        {ok, Next, Read} -> lines(Rest, Next, Read);
        too_large -> too_large(Items, Parser)
    end.

field(<<"data">>, Value, Items, #parser{data = Data, data_bytes = Bytes} = Parser) ->
    %% Each line counts as one byte more, so that empty ones are not for nothing.
    case Bytes + byte_size(Value) + 1 of
        Sum when Sum > Parser#parser.max_bytes + 1 -> too_large;
        Sum -> {ok, Items, Parser#parser{data = [Value | Data], data_bytes = Sum}}
    end;
field(<<"event">>, Value, Items, Parser) ->
    {ok, Items, Parser#parser{type = Value}};
field(<<"id">>, Value, Items, Parser) ->
    case binary:match(Value, <<0>>) of
        nomatch -> {ok, Items, Parser#parser{id = binary:copy(Value)}};
        _ -> {ok, Items, Parser}
    end;
field(<<"retry">>, Value, Items, Parser) ->
    case byte_size(Value) =< ?MAX_RETRY_DIGITS andalso digits(Value, 0) of
        Ms when is_integer(Ms), Value =/= <<>> -> {ok, [{retry, Ms} | Items], Parser};
        _ -> {ok, Items, Parser}
    end;
field(_, _, Items, Parser) ->
    {ok, Items, Parser}.

digits(<<D, Rest/binary>>, Acc) when D >= $0, D =< $9 -> digits(Rest, 10 * Acc + D - $0);
digits(<<>>, Acc) -> Acc;
digits(_, _) -> none.

dispatch(Rest, Items, #parser{data = [], id = Id} = Parser) ->
    lines(Rest, Items, Parser#parser{type = <<>>, last_id = Id});
dispatch(Rest, Items, #parser{data = Data, type = Type, id = Id} = Parser) ->
    Event = {event, #{type => type(Type), data => join(Data, <<"\n">>), id => Id}},
    Next = Parser#parser{data = [], data_bytes = 0, type = <<>>, last_id = Id},
    lines(Rest, [Event | Items], Next).

type(<<>>) -> <<"message">>;
type(Type) -> Type.

join([One], _) -> One;
join(Pieces, Between) -> iolist_to_binary(lists:join(Between, lists:reverse(Pieces))).
