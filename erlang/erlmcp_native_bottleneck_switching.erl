%% @doc What it costs to go over to another endpoint, by transport and load: planned, by command,
%% again and again; and unplanned, when the OS process of the endpoint in use is killed (`kill -9').
%%
%% The endpoints are servers in VMs of their own, over stdio child processes; the requests are made
%% in another VM, so many at a time. A gap is the longest time without an answer in the moments
%% after a planned switch. After a kill, the next endpoint is in use when a request that was made
%% afterwards is answered. Every request is followed until its outcome, and none may have two.
-module(erlmcp_native_bottleneck_switching).

-export([run/1]).

-define(LOADS, [1, 16, 64]).
-define(ROW_LOAD, 16).
-define(SWITCHES, 40).
%% Of 40 the 99th percentile is the worst of all.
-define(ROW_SWITCHES, 100).
-define(KILLS, 3).

%% @doc Options: `paths', `transports', `baseline', `loads' (requests at a time, 16 among them),
%% `switches' at each load (40, and 100 at that of 16) and `endpoint_kills' at that of 16.
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Cases =
        [
            {Transport, Path, erlmcp_native_switching_client}
         || Transport <- maps:get(transports, Options, [stdio, tcp, http]),
            Path <- maps:get(paths, Options, [nif, port, beam])
        ] ++ baseline(Options),
    Measured = lists:append([measured(Case, Options) || Case <- Cases]),
    #{
        name => switching,
        rows => lists:append([rows(M) || #{load := ?ROW_LOAD} = M <- Measured]),
        metrics => metrics(Measured),
        evidence => Measured,
        curves => [plot(Measured)]
    }.

baseline(#{baseline := Baseline}) when Baseline =/= none ->
    [{tcp, erlmcp05, Baseline:switching()}];
baseline(_) -> [].

measured({Transport, Path, Module}, Options) ->
    erlmcp_native_progress:say(Options, "switching: ~s on ~s", [Transport, Path]),
    [
        erlmcp_native_analysis_vm:with(Path, [], fun(Client) ->
            Kills = kills(Load, Options),
            with_endpoints(Transport, Path, max(2, Kills + 1), fun(Endpoints, Kill) ->
                measured(Client, {Transport, Path, Module}, Endpoints, Kill, #{
                    load => Load,
                    switches => maps:get(switches, Options, switches(Load)),
                    kills => Kills
                })
            end)
        end)
     || Load <- maps:get(loads, Options, loads(Transport))
    ].

switches(?ROW_LOAD) -> ?ROW_SWITCHES;
switches(_) -> ?SWITCHES.

%% Each costs an endpoint.
kills(?ROW_LOAD, Options) -> maps:get(endpoint_kills, Options, ?KILLS);
kills(_, _) -> 0.

%% Against load one transport is enough.
loads(tcp) -> ?LOADS;
loads(_) -> [?ROW_LOAD].

%% The kills come from here, the requests go on there.
measured(Client, {Transport, Path, Module}, Endpoints, Kill, #{kills := Kills} = Sizes) ->
    Given = [Module, Path, Endpoints, Sizes],
    Run = erlmcp_native_analysis_vm:call(Client, erlmcp_native_switching_load, start, Given),
    Planned = erlmcp_native_analysis_vm:call(Client, erlmcp_native_switching_load, planned, [Run]),
    Unplanned = [killed(Client, Run, Kill) || _ <- lists:seq(1, Kills)],
    Done = erlmcp_native_analysis_vm:call(Client, erlmcp_native_switching_load, finish, [Run]),
    (maps:merge(Planned, Done))#{
        transport => Transport,
        path => Path,
        load => maps:get(load, Sizes),
        kills => length(Unplanned),
        in_use_ms => erlmcp_native_statistics:summary([Ms || {ok, Ms} <- Unplanned]),
        not_in_use => length([none || {error, _} <- Unplanned])
    }.

killed(Client, Run, Kill) ->
    {ok, Active} = erlmcp_native_analysis_vm:call(
        Client, erlmcp_native_switching_load, active, [Run]
    ),
    Now = Kill(Active),
    %% The clock of the operating system is the same for both. The kill lies between.
    Before = os:system_time(microsecond),
    ok = Now(),
    After = os:system_time(microsecond),
    Given = [Run, Before, After],
    erlmcp_native_analysis_vm:call(Client, erlmcp_native_switching_load, in_use, Given).

%% Servers in VMs of their own, or commands that start one; and what looks for one of them, and
%% gives a function that kills it.
with_endpoints(stdio, Path, Count, Fun) ->
    Tokens = maps:from_list([{Name, token(Name)} || Name <- lists:seq(1, Count)]),
    Endpoints = [{Name, command(Path, Token)} || {Name, Token} <- maps:to_list(Tokens)],
    Fun(Endpoints, fun(Name) ->
        OsPids = os_pids(maps:get(Name, Tokens)),
        fun() -> kill(OsPids) end
    end);
with_endpoints(Transport, Path, Count, Fun) ->
    Vms = [{Name, erlmcp_native_analysis_vm:start(server_path(Path))}
        || Name <- lists:seq(1, Count)],
    try
        Endpoints = [{Name, served(Vm, Transport, Path)} || {Name, Vm} <- Vms],
        Fun(Endpoints, fun(Name) ->
            {Name, Vm} = lists:keyfind(Name, 1, Vms),
            fun() ->
                _ = erlmcp_native_analysis_vm:kill(Vm),
                ok
            end
        end)
    after
        lists:foreach(fun({_, Vm}) -> erlmcp_native_analysis_vm:stop(Vm) end, Vms)
    end.

server_path(erlmcp05) -> beam;
server_path(Path) -> Path.

served(Vm, Transport, Path) ->
    {ok, Endpoint} = erlmcp_native_analysis_vm:call(Vm, erlmcp_native_analysis_host, serve, [
        #{transport => Transport, path => server_path(Path)}
    ]),
    Endpoint.

token(Name) ->
    Random = integer_to_list(rand:uniform(1 bsl 60), 36),
    lists:flatten(io_lib:format("analysis_~b_~s", [Name, Random])).

command(Path, Token) ->
    #{args := Args} = Node = erlmcp_native_analysis_stdio:echo_node(Path),
    Node#{args := Args ++ ["-extra", Token]}.

%% The processes that were started with this word; there is no other way to the number of a
%% child that somebody else's connection has started.
os_pids(Token) ->
    [
        OsPid
     || "/proc/" ++ Rest = File <- filelib:wildcard("/proc/[0-9]*/cmdline"),
        {ok, Line} <- [file:read_file(File)],
        lists:member(list_to_binary(Token), binary:split(Line, <<0>>, [global])),
        [OsPid | _] <- [string:lexemes(Rest, "/")]
    ].

kill([]) -> ok;
kill(OsPids) ->
    _ = os:cmd(lists:flatten(["kill -9 ", lists:join(" ", OsPids)])),
    ok.

rows(#{path := Path, transport := Transport} = Measured) ->
    #{requests := Requests, planned_failed := Failed, switches := Switches} = Measured,
    #{gap_ms := Gap, quiet_ms := Quiet} = Measured,
    #{unresolved := Unresolved, unplanned := Unplanned, in_use_ms := InUse} = Measured,
    #{kills := Kills, not_in_use := NotInUse} = Measured,
    Row = fun(Name, Fields) ->
        erlmcp_native_report:row(Name, Fields#{path => Path, transport => Transport})
    end,
    [
        Row(switch_planned_failed, #{value => Failed, samples => Requests}),
        Row(switch_planned_gap_p99, #{
            value => maps:get(p99, Gap),
            samples => Switches,
            spread => spread(Gap),
            note => iolist_to_binary([
                "without a switch: ",
                erlmcp_native_report_number:text(maps:get(p99, Quiet), <<"ms">>),
                "; looked at for 30 ms each"
            ])
        }),
        Row(switch_unplanned_unresolved, #{value => Unresolved, samples => Requests}),
        Row(switch_unplanned_in_use, in_use(InUse, Kills, NotInUse)),
        Row(switch_failure_rate, #{
            value => 100 * maps:get(failed, Unplanned) / max(1, maps:get(requests, Unplanned)),
            samples => maps:get(requests, Unplanned),
            note => <<"half of the requests are not marked as safe to repeat">>
        })
    ].

in_use(#{count := 0}, Kills, _) ->
    #{value => null, samples => Kills, note => <<"no request was answered any more">>};
in_use(#{max := Max} = InUse, Kills, 0) ->
    #{value => Max, samples => Kills, spread => spread(InUse)};
in_use(#{max := Max} = InUse, Kills, NotInUse) ->
    Note = io_lib:format("after ~b of ~b kills none came into use", [NotInUse, Kills]),
    #{value => Max, samples => Kills, spread => spread(InUse), note => iolist_to_binary(Note)}.

spread(Summary) -> maps:with([min, p50, p95, max], Summary).

metrics(Measured) ->
    All = [
        {Mean, Max, Min, Count}
     || #{gap_ms := #{mean := Mean, max := Max, min := Min, count := Count}, path := Path} <-
            Measured,
        Path =/= erlmcp05
    ],
    Total = lists:sum([Count || {_, _, _, Count} <- All]),
    Ours = [M || #{path := Path} = M <- Measured, Path =/= erlmcp05],
    Requests = lists:sum([N || #{requests := N} <- Ours]),
    Failed = lists:sum([N || #{planned_failed := N} <- Ours]),
    #{
        avg_switch_time =>
            1000 * lists:sum([Mean * Count || {Mean, _, _, Count} <- All]) / max(1, Total),
        max_switch_time => 1000 * lists:max([0 | [Max || {_, Max, _, _} <- All]]),
        min_switch_time => 1000 * lists:min([Min || {_, _, Min, _} <- All] ++ [1000000]),
        total_switches => Total,
        failure_rate => Failed / max(1, Requests),
        switch_details => Ours
    }.

plot(Measured) ->
    Keys = lists:usort([{T, P} || #{transport := T, path := P} <- Measured]),
    #{
        id => <<"switching_gap">>,
        kind => switching,
        title => <<"Gap of a planned switch against load, TCP">>,
        x => #{label => <<"requests at a time">>, unit => <<>>, scale => log},
        y => #{label => <<"longest gap, p99">>, unit => <<"ms">>, scale => log},
        lines => [
            #{
                label => atom_to_binary(Path),
                transport => tcp,
                path => Path,
                points => [
                    [Load, max(0.001, P99)]
                 || #{transport := tcp, path := P, load := Load, gap_ms := #{p99 := P99}} <-
                        Measured,
                    P =:= Path
                ]
            }
         || {tcp, Path} <- Keys
        ]
    }.
