%% @doc What routing costs, and what waits in front of the registry, against the number of senders
%% that route at once. The baseline is a registry whose process does the routing, as erlmcp's.
%%
%% Two phases for each number of senders, in a VM of its own. Flat out: each sender routes for a
%% while as fast as it can, and the time runs until the last message has been received. Timed: the
%% same with one call in 16 timed, so that timing does not count into the first.
-module(erlmcp_native_bottleneck_registry).

-export([run/1]).

%% Called in the other VM.
-export([measure/3]).

-export_type([measured/0]).

-type measured() :: #{
    senders := pos_integer(),
    routed := non_neg_integer(),
    received := non_neg_integer(),
    duration_us := pos_integer(),
    routes_per_s := float(),
    queue_max := non_neg_integer(),
    queue_avg := float(),
    call_ns := map(),
    delivery_ns := map(),
    lookup_ns := map()
}.

-define(SENDERS, [1, 5, 20, 50, 100]).
-define(ROW_SENDERS, 50).
-define(PAYLOAD, <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}">>).
-define(TIMED_1_IN, 16).
-define(SAMPLE_MS, 2).

%% @doc Options: `senders' (a list), `duration_ms' of each phase, `baseline' (a module that tells
%% the registry to compare with, or `none'), `runs'.
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Senders = maps:get(senders, Options, ?SENDERS),
    Cases = [{all, erlmcp_native_registry}] ++ baseline(Options),
    Measured = [{Path, curve(Path, Registry, Senders, Options)} || {Path, Registry} <- Cases],
    {_, Ours} = hd(Measured),
    #{
        name => registry,
        rows => rows(Measured),
        metrics => metrics(at(?ROW_SENDERS, Ours)),
        evidence => [M#{path => Path} || {Path, Curve} <- Measured, M <- Curve],
        curves => [
            plot(<<"registry_scaling">>, scaling, <<"Routes against senders">>, <<"routes/s">>,
                fun(#{routes_per_s := Rate}) -> Rate end, Measured),
            plot(<<"registry_queue">>, queue, <<"Longest queue at the registry's process">>,
                <<"messages">>, fun(#{queue_max := Max}) -> Max end, Measured)
        ]
    }.

baseline(#{baseline := Baseline}) when Baseline =/= none ->
    [{erlmcp05, Baseline:registry()}];
baseline(_) ->
    [].

curve(Path, Registry, Senders, Options) ->
    DurationMs = maps:get(duration_ms, Options, 500),
    erlmcp_native_progress:say(Options, "registry: ~s", [Path]),
    [point(Path, Registry, Count, DurationMs, Options) || Count <- Senders].

%% The median of some runs where the bar is looked at.
point(Path, Registry, Count, DurationMs, Options) ->
    Runs =
        case Count of
            ?ROW_SENDERS -> maps:get(runs, Options, 3);
            _ -> 1
        end,
    All = [
        erlmcp_native_analysis_vm:with(Path, [], fun(Vm) ->
            erlmcp_native_analysis_vm:call(Vm, ?MODULE, measure, [Registry, Count, DurationMs])
        end)
     || _ <- lists:seq(1, Runs)
    ],
    Sorted = lists:sort(fun(#{routes_per_s := A}, #{routes_per_s := B}) -> A =< B end, All),
    Median = lists:nth((Runs + 1) div 2, Sorted),
    Median#{
        runs => Runs,
        routes_per_s_min => maps:get(routes_per_s, hd(Sorted)),
        routes_per_s_max => maps:get(routes_per_s, lists:last(Sorted))
    }.

%% @private
-spec measure(module(), pos_integer(), pos_integer()) -> measured().
measure(Registry, Senders, DurationMs) ->
    Pid = started(Registry),
    Ids = [<<"server-", (integer_to_binary(N))/binary>> || N <- lists:seq(1, Senders)],
    Sinks = [sink(Registry, Id) || Id <- Ids],
    {Routed, DurationUs, Queue} = flat_out(Registry, Pid, Ids, Sinks, DurationMs),
    Times = timed(Registry, Ids, Sinks, DurationMs),
    Received = lists:sum([ask(Sink, count) || Sink <- Sinks]),
    Times#{
        senders => Senders,
        routed => Routed,
        received => Received,
        duration_us => DurationUs,
        routes_per_s => Routed * 1.0e6 / DurationUs,
        queue_max => lists:max([0 | Queue]),
        queue_avg => lists:sum(Queue) / max(1, length(Queue))
    }.

started(Registry) ->
    case whereis(Registry) of
        undefined ->
            {ok, Pid} = Registry:start_link(),
            Pid;
        Pid ->
            Pid
    end.

sink(Registry, Id) ->
    Sink = spawn_link(fun() -> sink(0) end),
    ok = Registry:register_server(Id, Sink, #{}),
    Sink.

sink(Count) ->
    receive
        {mcp_message, _, Message} when is_binary(Message) ->
            sink(Count + 1);
        {mcp_message, _, {SentAt, Delivery}} ->
            ok = erlmcp_native_histogram:record(Delivery, erlang:monotonic_time() - SentAt),
            sink(Count + 1);
        {count, From} ->
            From ! {self(), Count},
            sink(Count)
    end.

ask(Sink, Question) ->
    Sink ! {Question, self()},
    receive
        {Sink, Answer} -> Answer
    end.

flat_out(Registry, Pid, Ids, Sinks, DurationMs) ->
    Payload = binary:copy(?PAYLOAD),
    Sampler = sampler(Pid),
    Begin = erlang:monotonic_time(),
    Until = Begin + erlang:convert_time_unit(DurationMs, millisecond, native),
    Counts = senders(Ids, fun(Id) -> route(Registry, Id, Payload, Until, 0) end),
    Routed = lists:sum(Counts),
    ok = drained(Sinks, Routed),
    End = erlang:monotonic_time(),
    DurationUs = erlang:convert_time_unit(End - Begin, native, microsecond),
    {Routed, DurationUs, ask(Sampler, stop)}.

route(Registry, Id, Payload, Until, Count) when Count rem 64 =:= 0 ->
    case erlang:monotonic_time() >= Until of
        true ->
            Count;
        false ->
            ok = Registry:route_to_server(Id, <<"transport">>, Payload),
            route(Registry, Id, Payload, Until, Count + 1)
    end;
route(Registry, Id, Payload, Until, Count) ->
    ok = Registry:route_to_server(Id, <<"transport">>, Payload),
    route(Registry, Id, Payload, Until, Count + 1).

drained(Sinks, Wanted) ->
    case lists:sum([ask(Sink, count) || Sink <- Sinks]) of
        Wanted ->
            ok;
        _ ->
            receive
            after 1 -> drained(Sinks, Wanted)
            end
    end.

%% How many messages wait for the registry's process, looked at from a process of high priority.
sampler(Pid) ->
    spawn_opt(fun() -> sample(Pid, []) end, [link, {priority, high}]).

sample(Pid, Lengths) ->
    receive
        {stop, From} -> From ! {self(), Lengths}
    after ?SAMPLE_MS ->
        {message_queue_len, Length} = process_info(Pid, message_queue_len),
        sample(Pid, [Length | Lengths])
    end.

%% The senders pause between two calls: what is measured is a route, not the wait for a processor
%% among senders that never stop.
timed(Registry, Ids, Sinks, DurationMs) ->
    Calls = erlmcp_native_histogram:new(),
    Delivery = erlmcp_native_histogram:new(),
    Lookups = erlmcp_native_histogram:new(),
    Before = lists:sum([ask(Sink, count) || Sink <- Sinks]),
    Until =
        erlang:monotonic_time() + erlang:convert_time_unit(DurationMs, millisecond, native),
    Counts = senders(Ids, fun(Id) ->
        time(Registry, Id, {Calls, Delivery, Lookups}, Until, 0)
    end),
    ok = drained(Sinks, Before + lists:sum(Counts)),
    #{
        call_ns => percentiles(Calls),
        delivery_ns => percentiles(Delivery),
        lookup_ns => percentiles(Lookups)
    }.

time(Registry, Id, {Calls, Delivery, Lookups} = Into, Until, Count) ->
    Begin = erlang:monotonic_time(),
    case Begin >= Until of
        true ->
            Count;
        false when Count rem ?TIMED_1_IN =:= 0 ->
            {ok, _} = Registry:find_server(Id),
            Found = erlang:monotonic_time(),
            ok = Registry:route_to_server(Id, <<"transport">>, {Found, Delivery}),
            Sent = erlang:monotonic_time(),
            ok = erlmcp_native_histogram:record(Lookups, Found - Begin),
            ok = erlmcp_native_histogram:record(Calls, Sent - Found),
            time(Registry, Id, Into, Until, Count + 1);
        false ->
            ok = Registry:route_to_server(Id, <<"transport">>, ?PAYLOAD),
            time(Registry, Id, Into, Until, Count + 1)
    end.

senders(Ids, Fun) ->
    Self = self(),
    Pids = [spawn_link(fun() -> Self ! {self(), Fun(Id)} end) || Id <- Ids],
    [
        receive
            {Pid, Count} -> Count
        end
     || Pid <- Pids
    ].

percentiles(Histogram) ->
    Snapshot = erlmcp_native_histogram:snapshot(Histogram),
    maps:map(fun(_, V) -> V end, maps:from_list(
        [{count, erlmcp_native_histogram:count(Snapshot)},
            {mean, erlmcp_native_histogram:mean(Snapshot)}] ++
            [
                {Name, erlmcp_native_histogram:percentile(Snapshot, P)}
             || {Name, P} <- [{p50, 50}, {p95, 95}, {p99, 99}, {p999, 99.9}, {max, 100}]
            ]
    )).

rows(Measured) ->
    [
        Row
     || {Path, Curve} <- Measured,
        Row <- case_rows(Path, at(?ROW_SENDERS, Curve))
    ] ++ ratio(Measured).

case_rows(_, none) ->
    [];
case_rows(Path, #{routes_per_s := Rate, queue_max := Queue, runs := Runs} = Measured) ->
    #{routes_per_s_min := Min, routes_per_s_max := Max, routed := Routed} = Measured,
    {Latency, Note} = latency(Path, Measured),
    Row = fun(Name, Fields) ->
        erlmcp_native_report:row(Name, Fields#{path => Path, transport => registry})
    end,
    [
        Row(registry_routes_per_s, #{
            value => Rate, samples => Runs, spread => #{min => Min, max => Max}
        }),
        Row(registry_queue_max, #{value => Queue, samples => Routed}),
        Row(registry_route_p99, #{
            value => maps:get(p99, Latency) / 1000,
            samples => maps:get(count, Latency),
            spread => maps:map(
                fun(_, Ns) -> Ns / 1000 end, maps:with([p50, p95, p99, p999], Latency)
            ),
            note => Note
        })
    ].

%% Where the caller itself puts the message in the mailbox, the route is over when the call is.
latency(erlmcp05, #{delivery_ns := Ns}) ->
    {Ns, <<"from the call until the message is received, the registry's queue included">>};
latency(_, #{call_ns := Ns}) ->
    {Ns, <<"the call, after which the message is in the receiver's mailbox">>}.

ratio(Measured) ->
    case [at(?ROW_SENDERS, Curve) || {_, Curve} <- Measured] of
        [#{routes_per_s := Ours}, #{routes_per_s := Theirs}] ->
            [
                erlmcp_native_report:row(registry_ratio, #{
                    path => all, transport => registry, value => Ours / Theirs, samples => 2
                })
            ];
        _ ->
            []
    end.

at(Senders, Curve) ->
    case [M || #{senders := S} = M <- Curve, S =:= Senders] of
        [Measured] -> Measured;
        [] -> none
    end.

metrics(none) ->
    #{};
metrics(#{lookup_ns := Lookup, call_ns := Call} = Measured) ->
    #{routes_per_s := Rate, queue_avg := Queue} = Measured,
    #{
        avg_lookup_time => maps:get(mean, Lookup) / 1000,
        max_lookup_time => maps:get(max, Lookup) / 1000,
        p95_lookup_time => maps:get(p95, Lookup) / 1000,
        avg_routing_latency => maps:get(mean, Call) / 1000,
        max_routing_latency => maps:get(max, Call) / 1000,
        p95_routing_latency => maps:get(p95, Call) / 1000,
        avg_queue_depth => Queue,
        operations_per_second => Rate
    }.

plot(Id, Kind, Title, Unit, Of, Measured) ->
    #{
        id => Id,
        kind => Kind,
        title => Title,
        x => #{label => <<"senders">>, unit => <<"">>, scale => log},
        y => #{label => Unit, unit => Unit},
        lines => [
            #{
                label => label(Path),
                transport => registry,
                path => Path,
                points => [[Senders, Of(M)] || #{senders := Senders} = M <- Curve]
            }
         || {Path, Curve} <- Measured
        ]
    }.

label(erlmcp05) -> <<"erlmcp05">>;
label(_) -> <<"erlmcp_native">>.
