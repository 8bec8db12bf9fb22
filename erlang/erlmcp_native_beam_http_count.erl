%% @doc What a listener counts: connections, requests that have not begun to be answered, and
%% answers that stream. The last two are limited.
-module(erlmcp_native_beam_http_count).

-export([new/0, connections/2, admit/3, move/4, release/2, read/1]).

-export_type([counts/0, what/0]).

-define(CONNECTIONS, 1).

-type counts() :: atomics:atomics_ref().
-type what() :: requests | streams.

-spec new() -> counts().
new() -> atomics:new(3, []).

-spec connections(counts(), integer()) -> ok.
connections(Counts, More) -> atomics:add(Counts, ?CONNECTIONS, More).

%% @doc Counts one more, unless there are `Max'.
-spec admit(counts(), what(), Max :: pos_integer()) -> ok | full.
admit(Counts, What, Max) ->
    case atomics:add_get(Counts, slot(What), 1) of
        N when N =< Max ->
            ok;
        _ ->
            ok = release(Counts, What),
            full
    end.

%% @doc Counts one as what it has become, unless there are `Max' of those.
-spec move(counts(), what(), what(), Max :: pos_integer()) -> ok | full.
move(Counts, From, To, Max) ->
    case admit(Counts, To, Max) of
        ok -> release(Counts, From);
        full -> full
    end.

-spec release(counts(), what()) -> ok.
release(Counts, What) -> atomics:sub(Counts, slot(What), 1).

-spec read(counts()) ->
    #{
        connections := non_neg_integer(),
        requests := non_neg_integer(),
        streams := non_neg_integer()
    }.
read(Counts) ->
    Streams = atomics:get(Counts, slot(streams)),
    #{
        connections => atomics:get(Counts, ?CONNECTIONS),
        requests => atomics:get(Counts, slot(requests)) + Streams,
        streams => Streams
    }.

slot(requests) -> 2;
slot(streams) -> 3.
