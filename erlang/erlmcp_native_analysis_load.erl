%% @doc Puts a load on a subject and says what became of it.
%%
%% A closed load has so many workers with so many requests under way each: it finds out how much
%% goes through. An open load sends at a fixed rate, and counts latency from the time when each
%% request was due ({@link erlmcp_native_analysis_schedule}): it finds out how long one waits.
-module(erlmcp_native_analysis_load).

-export([check/1, run/2, summary/1]).

-export_type([load/0, result/0, summary/0]).

-type load() :: #{
    workers => pos_integer(),
    window => pos_integer(),
    bytes => pos_integer(),
    count => pos_integer() | infinity,
    duration_ms => pos_integer() | infinity,
    rate_per_s => number() | closed,
    drain_ms => pos_integer(),
    progress => fun((iodata()) -> term())
}.
%% `workers' 1, each with a connection of its own as long as the subject has enough of them;
%% `window' 1: requests under way for each worker of a closed load. `bytes' 1,024: of a request.
%% The load is over after `count' requests or `duration_ms', of which one must be given.
%% `rate_per_s': of an open load, for all workers together. `drain_ms' 5,000: how long answers are
%% waited for after the end. `progress' is called with a line each second.

-type result() :: #{
    workers := pos_integer(),
    connections := non_neg_integer(),
    connect_errors := #{term() => pos_integer()},
    bytes := pos_integer(),
    sent := non_neg_integer(),
    ok := non_neg_integer(),
    in_time := non_neg_integer(),
    lost := non_neg_integer(),
    errors := #{term() => pos_integer()},
    duration_ns := pos_integer(),
    latency := erlmcp_native_histogram:snapshot()
}.
%% `ok': answered with a result, `in_time' before the load was over; `errors': answered otherwise,
%% or not accepted, by reason; `lost': due and not answered at all. `duration_ns': from the first
%% request to the end of the load. `latency' is in nanoseconds.

-type summary() :: #{
    total_operations := non_neg_integer(),
    successful_operations := non_neg_integer(),
    total_errors := non_neg_integer(),
    success_rate := float(),
    operations_per_second := float(),
    bytes_per_s := float(),
    duration_ms := float(),
    latency_us := erlmcp_native_report:percentiles(),
    avg_latency_us := float(),
    errors := #{term() => pos_integer()}
}.

-define(TELL_MS, 1000).

%% How many connect at the same time.
-define(OPENING, 32).

-define(DEFAULTS, #{
    workers => 1,
    window => 1,
    bytes => 1024,
    count => infinity,
    duration_ms => infinity,
    rate_per_s => closed,
    drain_ms => 5000
}).

%% @doc Refuses what is no option of a load.
-spec check(term()) -> ok | {error, {option, term(), term()}}.
check(Load) when is_map(Load) ->
    case [KV || {Key, Value} = KV <- maps:to_list(Load), not valid(Key, Value)] of
        [] -> ok;
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end;
check(Load) ->
    {error, {option, load, Load}}.

valid(Key, infinity) when Key =:= count; Key =:= duration_ms -> true;
valid(rate_per_s, V) -> V =:= closed orelse (is_number(V) andalso V > 0);
valid(Key, V) -> is_map_key(Key, ?DEFAULTS) andalso is_integer(V) andalso V > 0.

%% @doc Runs a load; the calling process should have no other messages to wait for. An error is the
%% reason for which not one worker could connect.
-spec run(erlmcp_native_analysis_subject:subject(), load()) ->
    {ok, result()} | {error, erlmcp_native_analysis_subject:reason()}.
run(Subject, Given) ->
    Load = maps:merge(?DEFAULTS, Given),
    #{workers := Workers} = Load,
    Clients = min(Workers, erlmcp_native_analysis_subject:max_clients(Subject)),
    Latency = erlmcp_native_histogram:new(),
    Run = #{ref => make_ref(), latency => Latency, tell => tell_of(Subject, Latency, Load)},
    Plans = plans(Subject, Load, Run, Clients),
    case open(Plans, [], 0, [], []) of
        {[], [Reason | _]} -> {error, Reason};
        {Opened, Failed} -> {ok, measured(Opened, Failed, Load, Run)}
    end.

tell_of(Subject, Latency, Load) ->
    #{transport := Transport, path := Path} = erlmcp_native_analysis_subject:describe(Subject),
    fun() ->
        Count = erlmcp_native_histogram:count(erlmcp_native_histogram:snapshot(Latency)),
        erlmcp_native_progress:say(Load, "~s on ~s: ~b calls answered", [Transport, Path, Count])
    end.

plans(Subject, Load, #{ref := Ref, latency := Latency}, Clients) ->
    #{workers := Workers, window := Window, count := Count, rate_per_s := Rate} = Load,
    #{call := Call} = erlmcp_native_analysis_subject:describe(Subject),
    Maker = erlmcp_native_analysis_call:maker(Call, maps:get(bytes, Load)),
    [
        #{
            subject => Subject,
            parent => self(),
            ref => Ref,
            maker => Maker,
            latency => Latency,
            mode => mode(Rate, Window * share(Workers, Clients, Index), Clients, Index),
            count => share(Count, Clients, Index)
        }
     || Index <- lists:seq(0, Clients - 1)
    ].

mode(closed, Window, _, _) -> {closed, Window};
mode(Rate, _, Clients, Index) -> {open, erlmcp_native_analysis_schedule:new(Rate, Clients, Index)}.

share(infinity, _, _) -> infinity;
share(Whole, Parts, Index) when Index < Whole rem Parts -> Whole div Parts + 1;
share(Whole, Parts, _) -> Whole div Parts.

open([Plan | Plans], Ref, Opening, Opened, Failed) when Opening < ?OPENING ->
    Pid = erlmcp_native_analysis_worker:start_link(Plan),
    open(Plans, [Pid | Ref], Opening + 1, Opened, Failed);
open([], _, 0, Opened, Failed) ->
    {Opened, Failed};
open(Plans, Pids, Opening, Opened, Failed) ->
    receive
        {_, Pid, opened} -> open(Plans, Pids, Opening - 1, [Pid | Opened], Failed);
        {_, _, {failed, Reason}} -> open(Plans, Pids, Opening - 1, Opened, [Reason | Failed])
    end.

measured(Opened, Failed, #{duration_ms := DurationMs, drain_ms := DrainMs} = Load, Run) ->
    #{ref := Ref, latency := Latency, tell := Tell} = Run,
    Begin = soon(),
    tell(Opened, {Ref, go, Begin}),
    Until = until(DurationMs, Begin),
    Tallies = collected(Opened, Ref, Until, DrainMs, Tell),
    End = last(DurationMs, Begin, Tallies),
    tell(Opened, {Ref, leave}),
    erlmcp_native_parallel:gone(Opened),
    Sum = fun(Key) -> lists:sum([maps:get(Key, Tally) || Tally <- Tallies]) end,
    #{
        workers => maps:get(workers, Load),
        connections => length(Opened),
        connect_errors => count(Failed),
        bytes => maps:get(bytes, Load),
        sent => Sum(sent),
        ok => Sum(ok),
        in_time => Sum(in_time),
        lost => Sum(lost),
        errors => errors(Tallies),
        duration_ns => max(1, erlang:convert_time_unit(End - Begin, native, nanosecond)),
        latency => erlmcp_native_histogram:snapshot(Latency)
    }.

%% On the grid of the schedule.
soon() ->
    Ms = erlang:monotonic_time(millisecond) + 2,
    erlang:convert_time_unit(Ms, millisecond, native).

tell(Pids, Message) ->
    lists:foreach(fun(Pid) -> Pid ! Message end, Pids).

%% All that is due until then is due: a worker that is told to stop looks at the clock.
until(infinity, _) ->
    infinity;
until(DurationMs, Begin) ->
    erlang:convert_time_unit(Begin, native, millisecond) + DurationMs.

collected(Opened, Ref, Until, DrainMs, Tell) ->
    Done = watch(Opened, Ref, Until, Tell, []),
    Left = Opened -- [Pid || {Pid, _} <- Done],
    tell(Left, {Ref, stop}),
    Drained = collect(Left, Ref, deadline(DrainMs), Done),
    Stuck = Left -- [Pid || {Pid, _} <- Drained],
    tell(Stuck, {Ref, give_up}),
    [Tally || {_, Tally} <- collect(Stuck, Ref, infinity, Drained)].

watch([], _, _, _, Done) ->
    Done;
watch(Pids, Ref, Until, Tell, Done) ->
    Next = min(deadline(?TELL_MS), Until),
    Now = collect(Pids, Ref, Next, Done),
    case Next of
        Until ->
            Now;
        _ ->
            Left = Pids -- [Pid || {Pid, _} <- Now],
            _ = Left =/= [] andalso Tell(),
            watch(Left, Ref, Until, Tell, Now)
    end.

collect([], _, _, Done) ->
    Done;
collect(Pids, Ref, Deadline, Done) ->
    receive
        {Ref, Pid, {done, Tally}} ->
            collect(lists:delete(Pid, Pids), Ref, Deadline, [{Pid, Tally} | Done])
    after left(Deadline) ->
        Done
    end.

deadline(Ms) -> erlang:monotonic_time(millisecond) + Ms.

left(infinity) -> infinity;
left(Deadline) -> max(0, Deadline - erlang:monotonic_time(millisecond)).

%% A load that was over early was over with its last answer.
last(DurationMs, Begin, Tallies) ->
    Last = lists:max([Ended || #{ended := Ended} <- Tallies]),
    case DurationMs of
        infinity -> Last;
        _ -> min(Last, Begin + erlang:convert_time_unit(DurationMs, millisecond, native))
    end.

count(Reasons) ->
    lists:foldl(
        fun(Reason, Acc) -> maps:update_with(Reason, fun(N) -> N + 1 end, 1, Acc) end,
        #{},
        Reasons
    ).

errors(Tallies) ->
    lists:foldl(
        fun(#{errors := Errors}, Acc) ->
            maps:fold(
                fun(Kind, N, Sum) -> maps:update_with(Kind, fun(M) -> M + N end, N, Sum) end,
                Acc,
                Errors
            )
        end,
        #{},
        Tallies
    ).

%% @doc A result in the units and under the names that users see. Rates are of what was answered
%% with a result while the load lasted; `success_rate' is in percent of what was due.
-spec summary(result()) -> summary().
summary(#{ok := Ok, in_time := InTime, lost := Lost, errors := Errors} = Result) ->
    #{duration_ns := Ns, bytes := Bytes, latency := Latency} = Result,
    Failed = lists:sum(maps:values(Errors)) + Lost,
    PerSecond = InTime * 1.0e9 / Ns,
    #{
        total_operations => Ok + Failed,
        successful_operations => Ok,
        total_errors => Failed,
        success_rate => percent(Ok, Ok + Failed),
        operations_per_second => PerSecond,
        bytes_per_s => PerSecond * Bytes,
        duration_ms => Ns / 1.0e6,
        latency_us => percentiles(Latency),
        avg_latency_us => erlmcp_native_histogram:mean(Latency) / 1000,
        errors => Errors
    }.

percent(_, 0) -> 0.0;
percent(Part, Whole) -> Part * 100 / Whole.

percentiles(Latency) ->
    maps:from_list([
        {Name, erlmcp_native_histogram:percentile(Latency, Percent) / 1000}
     || {Name, Percent} <- [
            {p50, 50}, {p90, 90}, {p95, 95}, {p99, 99}, {p999, 99.9}, {max, 100}
        ]
    ]).
