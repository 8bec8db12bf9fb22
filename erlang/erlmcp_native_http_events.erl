%% @private What was sent on the streams of a session, kept for clients that resume one. Bounded
%% by number and bytes; the oldest goes first. Pure.
-module(erlmcp_native_http_events).

-export([new/2, add/4, since/3, id/2, parse/1]).

-export_type([events/0, stream/0, count/0]).

-type stream() :: {get | post, pos_integer()}.
%% By the method that opened it.

-type count() :: non_neg_integer().
%% Of an event within its session.

-record(events, {
    queue = queue:new() :: queue:queue({stream(), count(), iodata(), non_neg_integer()}),
    length = 0 :: non_neg_integer(),
    bytes = 0 :: non_neg_integer(),
    max_length :: non_neg_integer(),
    max_bytes :: non_neg_integer()
}).

-opaque events() :: #events{}.

-spec new(MaxLength :: non_neg_integer(), MaxBytes :: non_neg_integer()) -> events().
new(MaxLength, MaxBytes) ->
    #events{max_length = MaxLength, max_bytes = MaxBytes}.

%% @doc Counts rise.
-spec add(stream(), count(), iodata(), events()) -> events().
add(Stream, Count, Data, #events{queue = Queue, length = Length, bytes = Bytes} = Events) ->
    Size = iolist_size(Data),
    trim(Events#events{
        queue = queue:in({Stream, Count, Data, Size}, Queue),
        length = Length + 1,
        bytes = Bytes + Size
    }).

%% @doc What was sent on a stream after an event, in order.
-spec since(stream(), count(), events()) -> [{count(), iodata()}].
since(Stream, After, #events{queue = Queue}) ->
    [{N, Data} || {S, N, Data, _} <- queue:to_list(Queue), S =:= Stream, N > After].

%% @doc The id of an event says which stream it belongs to.
-spec id(stream(), count()) -> binary().
id({Kind, Stream}, Count) ->
    <<(letter(Kind)), (integer_to_binary(Stream))/binary, $-, (integer_to_binary(Count))/binary>>.

-spec parse(binary()) -> {ok, {stream(), count()}} | error.
parse(<<Letter, Id/binary>>) when byte_size(Id) =< 40, (Letter =:= $g orelse Letter =:= $p) ->
    case re:run(Id, "^([1-9][0-9]*)-(0|[1-9][0-9]*)\\z", [{capture, all_but_first, binary}]) of
        {match, [Stream, Count]} ->
            {ok, {{kind(Letter), binary_to_integer(Stream)}, binary_to_integer(Count)}};
        nomatch ->
            error
    end;
parse(_) ->
    error.

letter(get) -> $g;
letter(post) -> $p.

kind($g) -> get;
kind($p) -> post.

trim(#events{length = Length, bytes = Bytes, max_length = Max, max_bytes = MaxBytes} = Events) when
    Length > Max; Bytes > MaxBytes
->
    {{value, {_, _, _, Size}}, Rest} = queue:out(Events#events.queue),
    trim(Events#events{queue = Rest, length = Length - 1, bytes = Bytes - Size});
trim(Events) ->
    Events.
