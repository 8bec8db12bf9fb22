%% @doc What 1,000 busy connections take in memory, whether that grows, and what is left of them.
%%
%% The server is in a VM of its own, whose resident memory, the program of the path `port'
%% included, is looked at from outside; the clients are in another. Growth is the slope of the
%% samples after a first third, with its interval ({@link erlmcp_native_analysis_slope}): only what
%% lies above noise counts. A leak is also looked for by counting the native objects that are left
%% when all connections are closed.
-module(erlmcp_native_bottleneck_memory).

-export([run/1]).

%% Called in the other VMs.
-export([serve/2, load/3, objects/0, memory/0]).

-define(CONNECTIONS, 1000).
-define(SECONDS, 30).
-define(SAMPLE_MS, 250).
-define(PAUSE_MS, 200).
-define(BYTES, 1024).
-define(SETTLE_MS, 10000).
-define(WARM_UP, 1 / 3).

%% @doc Options: `paths', `baseline', `memory_s' (30), `memory_connections' (1,000),
%% `memory_server' (options of the listener).
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Cases =
        [{Path, ?MODULE} || Path <- maps:get(paths, Options, [nif, port, beam])] ++
            baseline(Options),
    Seconds = maps:get(memory_s, Options, ?SECONDS),
    Connections = maps:get(memory_connections, Options, ?CONNECTIONS),
    erlmcp_native_progress:say(Options, "memory: ~p at once, ~b s", [
        [P || {P, _} <- Cases], Seconds
    ]),
    Measured = erlmcp_native_parallel:map(
        fun(Case) -> measured(Case, Connections, Seconds, Options) end, Cases
    ),
    #{
        name => memory,
        rows => lists:append([rows(M) || M <- Measured]),
        metrics => metrics(hd(Measured)),
        evidence => [maps:remove(samples, M) || M <- Measured],
        series => [plot(Connections, Measured)]
    }.

baseline(#{baseline := Baseline}) when Baseline =/= none -> [{erlmcp05, Baseline:server()}];
baseline(_) -> [].

measured({Path, Module}, Connections, Seconds, Options) ->
    erlmcp_native_analysis_vm:with(Path, [], fun(Vm) ->
        Server = maps:get(memory_server, Options, #{}),
        Port = erlmcp_native_analysis_vm:call(Vm, Module, serve, [Path, Server]),
        Objects = erlmcp_native_analysis_vm:call(Vm, ?MODULE, objects, []),
        Idle = erlmcp_native_analysis_vm:rss_bytes(Vm),
        {Samples, Sent} = erlmcp_native_analysis_vm:with(beam, [], fun(Clients) ->
            Load = fun() ->
                Args = [Port, Connections, Seconds],
                erlmcp_native_analysis_vm:call(Clients, ?MODULE, load, Args, Seconds * 1000)
            end,
            during(Load, Vm)
        end),
        Left = settled(Vm, Objects, deadline()),
        result(Path, Idle, Samples, #{
            connections => Connections,
            calls => Sent,
            left_objects => Left,
            left_bytes => difference(erlmcp_native_analysis_vm:rss_bytes(Vm), Idle),
            runtime => erlmcp_native_analysis_vm:call(Vm, ?MODULE, memory, [])
        })
    end).

difference(null, _) -> null;
difference(_, null) -> null;
difference(A, B) -> A - B.

deadline() -> erlang:monotonic_time(millisecond) + ?SETTLE_MS.

%% Samples of the memory of one VM, while another does something.
during(Fun, Vm) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({done, Fun()}) end),
    sample(Pid, Monitor, Vm, erlang:monotonic_time(millisecond), []).

sample(Pid, Monitor, Vm, Begin, Samples) ->
    receive
        {'DOWN', Monitor, process, Pid, {done, Result}} -> {lists:reverse(Samples), Result};
        {'DOWN', Monitor, process, Pid, Reason} -> exit(Reason)
    after ?SAMPLE_MS ->
        Now = erlang:monotonic_time(millisecond) - Begin,
        Rss = erlmcp_native_analysis_vm:rss_bytes(Vm),
        sample(Pid, Monitor, Vm, Begin, [{Now / 1000, Rss} || Rss =/= null] ++ Samples)
    end.

%% What the connections leave behind for good.
settled(Vm, Before, Deadline) ->
    Objects = erlmcp_native_analysis_vm:call(Vm, ?MODULE, objects, []),
    case Objects - Before of
        More when More > 0 ->
            case erlang:monotonic_time(millisecond) < Deadline of
                true ->
                    receive
                    after 100 -> settled(Vm, Before, Deadline)
                    end;
                false ->
                    More
            end;
        _ ->
            0
    end.

%% @private A server whose connections are processes that own their socket.
-spec serve(erlmcp_native_path:path(), map()) -> inet:port_number().
serve(Path, Options) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {ok, Listener} = erlmcp_native:listen(#{port => 0}, Options#{
            path => Path,
            handler => {erlmcp_native_analysis_tcp, start_connection, [Path]},
            decode => json,
            max_connections => 100000
        }),
        {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
        {Port, fun() ->
            receive
                {erlmcp_native, Listener, {down, _, final}} -> ok
            end
        end}
    end).

%% @private Native connections, blocks and tasks that live.
-spec objects() -> non_neg_integer().
objects() ->
    Native = [
        Value
     || {Name, #{kind := gauge, value := Value}} <- maps:to_list(erlmcp_native_metrics:overview()),
        is_native(atom_to_list(Name))
    ],
    lists:sum(Native).

is_native(Name) ->
    lists:prefix("native_", Name) orelse lists:prefix("port_native_", Name).

%% @private
-spec memory() -> #{atom() => term()}.
memory() ->
    {Collections, Words, _} = statistics(garbage_collection),
    #{
        collections => Collections,
        reclaimed_bytes => Words * erlang:system_info(wordsize),
        processes_bytes => erlang:memory(processes),
        binary_bytes => erlang:memory(binary),
        total_bytes => erlang:memory(total)
    }.

%% @private Each connection makes a call, waits for the answer and a little, and makes the next.
-spec load(inet:port_number(), pos_integer(), pos_integer()) -> non_neg_integer().
load(Port, Connections, Seconds) ->
    Request = [erlmcp_native_analysis_call:make(maker(), 1), $\n],
    Until = erlang:monotonic_time(millisecond) + Seconds * 1000,
    Sockets = [connect(Port) || _ <- lists:seq(1, Connections)],
    ok = lists:foreach(fun(Socket) -> later(Socket, rand:uniform(?PAUSE_MS)) end, Sockets),
    Calls = call(iolist_to_binary(Request), Until, 0),
    ok = lists:foreach(fun gen_tcp:close/1, Sockets),
    Calls.

maker() -> erlmcp_native_analysis_call:maker(echo, ?BYTES).

connect(Port) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [
        binary, {active, true}, {packet, line}, {buffer, 4096}, {nodelay, true}
    ]),
    Socket.

later(Socket, Ms) ->
    _ = erlang:send_after(Ms, self(), {call, Socket}),
    ok.

call(Request, Until, Calls) ->
    receive
        {call, Socket} ->
            case erlang:monotonic_time(millisecond) < Until of
                true ->
                    ok = gen_tcp:send(Socket, Request),
                    call(Request, Until, Calls + 1);
                false ->
                    Calls
            end;
        {tcp, Socket, Line} ->
            %% A line may come in parts.
            _ = [later(Socket, ?PAUSE_MS) || binary:last(Line) =:= $\n],
            call(Request, Until, Calls);
        {tcp_closed, _} ->
            exit(server_closed)
    end.

result(Path, Idle, Samples, More) ->
    {LastAt, _} = lists:last(Samples),
    Warm = [{At, Rss} || {At, Rss} <- Samples, At >= ?WARM_UP * LastAt],
    Peak = lists:max([Rss || {_, Rss} <- Samples]),
    More#{
        path => Path,
        idle_bytes => Idle,
        peak_bytes => Peak,
        busy_bytes => Peak - Idle,
        growth_bytes_per_s => growth(Warm, LastAt),
        samples => Samples
    }.

%% What is sure to be growth; 0 where it is noise.
growth(Samples, LastAt) ->
    {ok, #{low := Low} = Slope} = erlmcp_native_analysis_slope:theil_sen(Samples),
    Verdict = erlmcp_native_analysis_slope:verdict(Slope, LastAt * (1 - ?WARM_UP)),
    Sure =
        case Verdict of
            growing -> Low;
            _ -> 0
        end,
    Slope#{verdict => Verdict, sure => Sure}.

rows(#{path := Path, busy_bytes := Busy, samples := Samples, left_objects := Left} = Measured) ->
    #{growth_bytes_per_s := #{slope := Slope, low := Low, high := High, sure := Sure}} = Measured,
    Row = fun(Name, Fields) ->
        erlmcp_native_report:row(Name, Fields#{path => Path, samples => length(Samples)})
    end,
    [
        Row(memory_busy, #{value => Busy / 1.0e6}),
        Row(memory_growth, (sure(Sure, lists:last(Samples)))#{
            spread => #{low => Low / 1.0e3, slope => Slope / 1.0e3, high => High / 1.0e3}
        })
        | [Row(memory_leaked_objects, #{value => Left}) || Path =/= erlmcp05]
    ].

%% Before that a node has not grown as large as its load makes it.
sure(_, {Seconds, _}) when Seconds < ?SECONDS * 0.9 ->
    #{value => null, reached => null, note => <<"watched for less than 30 s">>};
sure(Sure, _) ->
    #{value => Sure / 1.0e3}.

metrics(#{peak_bytes := Peak, growth_bytes_per_s := Growth, runtime := Runtime} = Measured) ->
    #{verdict := Verdict} = Growth,
    #{left_objects := Left, left_bytes := LeftBytes, samples := Samples} = Measured,
    #{collections := Collections, processes_bytes := Processes, total_bytes := Total} = Runtime,
    {Seconds, _} = lists:last(Samples),
    #{
        peak_memory_usage => Peak,
        memory_growth_rate => Growth,
        gc_pressure => Collections / Seconds,
        leak_indicators => #{
            verdict => verdict(Verdict, Left), objects => Left, bytes_after_close => LeftBytes
        },
        process_memory_ratio => Processes / Total,
        memory_timeline => [[At, Rss] || {At, Rss} <- Samples]
    }.

verdict(_, Left) when Left > 0 -> objects_left;
verdict(growing, _) -> growing;
verdict(_, _) -> none.

plot(Connections, Measured) ->
    #{
        id => <<"memory_over_time">>,
        kind => memory,
        title => iolist_to_binary(io_lib:format("Memory while ~b connections are busy", [
            Connections
        ])),
        x => #{label => <<"time">>, unit => <<"s">>},
        y => #{label => <<"over the idle node">>, unit => <<"MB">>},
        lines => [
            #{
                label => atom_to_binary(Path),
                transport => tcp,
                path => Path,
                points => [[At, max(0, Rss - Idle) / 1.0e6] || {At, Rss} <- Samples]
            }
         || #{path := Path, idle_bytes := Idle, samples := Samples} <- Measured
        ]
    }.
