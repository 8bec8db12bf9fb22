%% @doc How far the answer to a request is on the path `port', shared by the process that serves it
%% and the acceptor, which hears from the program.
%%
%% The serving process asks nobody before it answers: what it has to know, whether the client is
%% gone and how much of its stream waits, the acceptor writes where it reads it.
-module(erlmcp_native_port_http_answer).

-export([new/1, streams/2]).
-export([answer/1, stream/1, finish/1, count/2, refuse/1, is_streaming/1, is_waiting/1]).
-export([on_gone/2, on_exit/2, status/1]).
-export([gone/1, exits/1, taken/2, room/2, over/1]).

-export_type([answer/0, streams/0]).

-record(answer, {
    state :: atomics:atomics_ref(),
    streams :: streams()
}).

-record(streams, {
    count :: atomics:atomics_ref(),
    max_streams :: pos_integer(),
    max_stream_bytes :: pos_integer()
}).

-opaque answer() :: #answer{}.

-opaque streams() :: #streams{}.
%% Those of a listener.

-define(PHASE, 1).
-define(GONE, 2).
-define(EXITS, 3).
-define(STATUS, 4).
-define(SENT, 5).
-define(TAKEN, 6).
-define(REFUSED, 7).
-define(SLOTS, 7).

%% Phases.
-define(WAITING, 0).
-define(STREAMING, 1).
-define(OVER, 2).

%% @doc Of a request that has come.
-spec new(streams()) -> answer().
new(Streams) ->
    #answer{state = atomics:new(?SLOTS, []), streams = Streams}.

%% @doc The streams of a listener: how many there may be, and how much may wait in each.
-spec streams(pos_integer(), pos_integer()) -> streams().
streams(Max, MaxBytes) ->
    #streams{count = atomics:new(1, []), max_streams = Max, max_stream_bytes = MaxBytes}.

%% The serving process.

%% @doc Whether it can be answered; it is, then.
-spec answer(answer()) -> boolean().
answer(#answer{state = State}) ->
    atomics:compare_exchange(State, ?PHASE, ?WAITING, ?OVER) =:= ok.

%% @doc Whether it can be answered, and with a stream; `full' where there are too many of them.
-spec stream(answer()) -> ok | full | closed.
stream(#answer{state = State, streams = #streams{count = Count, max_streams = Max}}) ->
    IsRoom = atomics:add_get(Count, 1, 1) =< Max,
    Phase =
        case IsRoom of
            true -> ?STREAMING;
            false -> ?OVER
        end,
    case atomics:compare_exchange(State, ?PHASE, ?WAITING, Phase) of
        ok when IsRoom ->
            ok;
        Result ->
            ok = atomics:sub(Count, 1, 1),
            case Result of
                ok -> full;
                _ -> closed
            end
    end.

%% @doc Whether it is a stream that was not ended; it is, then.
-spec finish(answer()) -> boolean().
finish(#answer{state = State, streams = #streams{count = Count}}) ->
    case atomics:compare_exchange(State, ?PHASE, ?STREAMING, ?OVER) of
        ok ->
            ok = atomics:sub(Count, 1, 1),
            true;
        _ ->
            false
    end.

-spec is_waiting(answer()) -> boolean().
is_waiting(#answer{state = State}) -> atomics:get(State, ?PHASE) =:= ?WAITING.

-spec is_streaming(answer()) -> boolean().
is_streaming(#answer{state = State}) -> atomics:get(State, ?PHASE) =:= ?STREAMING.

%% @doc Counts a part of a stream, unless too much waits.
-spec count(pos_integer(), answer()) -> ok | busy.
count(Size, #answer{state = State, streams = #streams{max_stream_bytes = Max}}) ->
    Waiting = atomics:get(State, ?SENT) - atomics:get(State, ?TAKEN),
    case Waiting > 0 andalso Waiting + Size > Max of
        true -> busy;
        false -> atomics:add(State, ?SENT, Size)
    end.

%% @doc Whether the program has yet to be asked to tell of room.
-spec refuse(answer()) -> boolean().
refuse(#answer{state = State}) ->
    atomics:compare_exchange(State, ?REFUSED, 0, 1) =:= ok.

%% @doc Sets what becomes of the process when the client goes. Whether it has gone already.
-spec on_gone(notice | exit, answer()) -> boolean().
on_gone(What, #answer{state = State}) ->
    ok = atomics:put(State, ?EXITS, exits_slot(What)),
    atomics:get(State, ?GONE) =:= 1.

exits_slot(exit) -> 1;
exits_slot(notice) -> 0.

-spec on_exit(erlmcp_native_http_path:status(), answer()) -> ok.
on_exit(Status, #answer{state = State}) -> atomics:put(State, ?STATUS, Status).

%% The acceptor.

%% @doc The client is gone.
-spec gone(answer()) -> ok.
gone(#answer{state = State} = Answer) ->
    ok = atomics:put(State, ?GONE, 1),
    over(Answer).

%% @doc Nothing more can be said.
-spec over(answer()) -> ok.
over(#answer{state = State, streams = #streams{count = Count}}) ->
    case atomics:exchange(State, ?PHASE, ?OVER) of
        ?STREAMING -> atomics:sub(Count, 1, 1);
        _ -> ok
    end.

%% @doc Whether the process is to end when its client goes.
-spec exits(answer()) -> boolean().
exits(#answer{state = State}) -> atomics:get(State, ?EXITS) =:= 1.

%% @doc The status that answers for the process; 0 where it has set none.
-spec status(answer()) -> non_neg_integer().
status(#answer{state = State}) -> atomics:get(State, ?STATUS).

%% @doc So many bytes of the stream have left its queue in all.
-spec taken(non_neg_integer(), answer()) -> ok.
taken(Total, #answer{state = State}) -> atomics:put(State, ?TAKEN, Total).

%% @doc The same, with room for a process that was refused.
-spec room(non_neg_integer(), answer()) -> ok.
room(Total, #answer{state = State} = Answer) ->
    ok = taken(Total, Answer),
    atomics:put(State, ?REFUSED, 0).
