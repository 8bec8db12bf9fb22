%% @doc What the benches have in common that run for minutes and look at what is left: memory that
%% does not grow, and nothing alive afterwards.
-module(bench_steady).

-export([seconds/0, timeout_ms/1, sample/1, growth_percent/1, live_objects/0, settled/2]).
-export([none/3, flat/2]).

-define(SECONDS, "600").
-define(SAMPLES, 100).
-define(DRAIN_MS, 30000).

%% What the median of the last fifth may be over that of the second one.
-define(NOISE_PERCENT, 5).

%% @doc How long such a bench takes; SOAK_SECONDS says.
-spec seconds() -> pos_integer().
seconds() ->
    list_to_integer(os:getenv("SOAK_SECONDS", ?SECONDS)).

-spec timeout_ms(pos_integer()) -> pos_integer().
timeout_ms(Seconds) ->
    Seconds * 1000 + 4 * ?DRAIN_MS.

%% @doc Resident memory over so many seconds. Ends with the first process that the caller monitors.
-spec sample(pos_integer()) -> [non_neg_integer()].
sample(Seconds) ->
    sample(Seconds * 1000 div ?SAMPLES, ?SAMPLES).

sample(_, 0) ->
    [];
sample(EveryMs, Left) ->
    receive
        {'DOWN', _, process, _, Reason} -> exit(Reason)
    after EveryMs -> [bench_os:rss_bytes() | sample(EveryMs, Left - 1)]
    end.

-spec growth_percent([non_neg_integer()]) -> float().
growth_percent(Memory) ->
    Fifth = length(Memory) div 5,
    Early = erlmcp_native_statistics:percentile(50, lists:sublist(Memory, Fifth + 1, Fifth)),
    Late = erlmcp_native_statistics:percentile(50, lists:nthtail(length(Memory) - Fifth, Memory)),
    (Late - Early) * 100 / Early.

%% @doc The native objects that are still alive once everything has been closed and collected.
-spec live_objects() -> non_neg_integer().
live_objects() ->
    Live = fun() ->
        lists:foreach(fun erlang:garbage_collect/1, processes()),
        lists:sum([Value || {_, gauge, _, Value} <- erlmcp_native_nif:metrics_read()])
    end,
    settled(Live, 0).

%% @doc What a count comes down to; it is given time as long as it is over what is wanted.
-spec settled(fun(() -> number()), number()) -> number().
settled(Count, Wanted) ->
    settled(Count, Wanted, erlang:monotonic_time(millisecond) + ?DRAIN_MS).

settled(Count, Wanted, Deadline) ->
    Now = Count(),
    case Now > Wanted andalso erlang:monotonic_time(millisecond) < Deadline of
        true ->
            receive
            after 100 -> settled(Count, Wanted, Deadline)
            end;
        false ->
            Now
    end.

%% @doc The check that a case has come to nothing.
-spec none(atom(), Unit :: binary(), [bench_report:row()]) -> [bench:check()].
none(Case, Unit, Rows) ->
    checked(Case, Unit, Rows, fun(Value) -> Value == 0 end).

%% @doc The check that memory has not grown.
-spec flat(atom(), [bench_report:row()]) -> [bench:check()].
flat(Case, Rows) ->
    checked(Case, <<"percent of growth">>, Rows, fun(Value) -> Value =< ?NOISE_PERCENT end).

checked(Case, Unit, Rows, Good) ->
    [
        #{'case' => Case, ok => Good(Value), value => Value, unit => Unit}
     || Value <- [bench_report:median(Case, nif, Rows)], is_number(Value)
    ].
