%% The performance analysis, on each path: every call of its API against real servers, endpoints of
%% a user's own, TLS, faults, and that nothing is left of any of them. No case asserts how fast
%% anything is.
-module(analysis_SUITE).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [until/1]).

-export([all/0, groups/0, init_per_suite/1, end_per_suite/1, init_per_group/2, end_per_group/2]).
-export([init_per_testcase/2, end_per_testcase/2]).
-export([
    throughput/1,
    latency/1,
    concurrent/1,
    stress/1,
    profile/1,
    sizes/1,
    batches/1,
    own_endpoint/1,
    own_command/1,
    own_tool/1,
    tls/1,
    refused/1,
    not_mcp/1,
    lost/1,
    answers_are_counted_once/1,
    killed_caller/1,
    stopped/1
]).
-export([options/1, resources/1, registry/1, gc/1, memory/1, bottlenecks/1]).

-define(A, erlmcp_performance_analysis).
-define(SUBJECT, erlmcp_native_analysis_subject).
-define(TIMEOUT_MS, 60000).

all() ->
    [options, resources, registry, gc, memory, bottlenecks] ++
        [{group, Path} || Path <- [nif, port, beam]].

groups() ->
    [{Path, [], cases()} || Path <- [nif, port, beam]].

cases() ->
    [
        throughput,
        latency,
        concurrent,
        stress,
        profile,
        sizes,
        batches,
        own_endpoint,
        own_command,
        own_tool,
        tls,
        refused,
        not_mcp,
        lost,
        answers_are_counted_once,
        killed_caller,
        stopped
    ].

init_per_suite(Config) ->
    test_config:start([erlmcp_native], test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> [{path, Path} | Config].

end_per_group(_, _) -> ok.

init_per_testcase(_, Config) -> [{before, living()} | Config].

end_per_testcase(_, Config) ->
    until(fun() -> living() -- ?config(before, Config) =:= [] end).

%% Whatever runs beside the system's own.
living() ->
    Names = [
        erlmcp_native_analysis_sup,
        erlmcp_native_conn_sup,
        erlmcp_native_listener_sup,
        erlmcp_native_http_client_sup,
        erlmcp_native_http_sup
    ],
    Children = [
        {Name, Pid}
     || Name <- Names, {_, Pid, worker, _} <- supervisor:which_children(Name)
    ],
    Workers = [
        {process, Pid}
     || Pid <- processes(),
        {dictionary, Dictionary} <- [process_info(Pid, dictionary)],
        {current_function, {Module, _, _}} <- [process_info(Pid, current_function)],
        not lists:keymember('$ancestors', 1, Dictionary),
        lists:prefix("erlmcp_native_analysis", atom_to_list(Module))
    ],
    Ports = [{port, Port} || Port <- erlang:ports(), is_child(Port)],
    Children ++ Workers ++ Ports ++ [{os, Pid} || Pid <- echo_programs()].

%% The program of the path port and the shell of the path beam stay.
is_child(Port) ->
    case erlang:port_info(Port, name) of
        {name, Name} ->
            lists:suffix("erl", Name) orelse Name =:= "tcp_inet";
        undefined ->
            false
    end.

%% Of this node, among the processes that it has started.
echo_programs() ->
    [
        Pid
     || Pid <- descendants(os:getpid()),
        {ok, Line} <- [file:read_file("/proc/" ++ Pid ++ "/cmdline")],
        binary:match(Line, <<"erlmcp_native_analysis_echo">>) =/= nomatch
    ].

descendants(OsPid) ->
    Pids = [
        Child
     || "/proc/" ++ Task <- filelib:wildcard("/proc/" ++ OsPid ++ "/task/*"),
        {ok, Children} <- [file:read_file("/proc/" ++ Task ++ "/children")],
        Child <- string:lexemes(binary_to_list(Children), " \n")
    ],
    lists:append([[Pid | descendants(Pid)] || Pid <- Pids]).

%% Patient: the machine may be busy.
given(Transport, Config) ->
    #{
        transport => Transport,
        path => ?config(path, Config),
        timeout_ms => ?TIMEOUT_MS,
        load => #{drain_ms => ?TIMEOUT_MS}
    }.

each(Config, Fun) ->
    each(Config, [tcp, http, stdio], Fun).

%% Nodes take their time to start: what is the same for all transports is not tried with them.
each(Config, Transports, Fun) ->
    lists:foreach(fun(T) -> Fun(T, given(T, Config)) end, Transports).

throughput(Config) ->
    each(Config, fun(Transport, Given) ->
        {ok, Result} = ?A:run_throughput_test(Given, 200, 1024),
        ?assertMatch(
            #{
                test := throughput,
                transport := Transport,
                total_operations := 200,
                successful_operations := 200,
                total_errors := 0,
                success_rate := 100.0,
                message_bytes := 1024,
                connections := 2,
                connect_errors := Errors
            } when Errors =:= #{},
            Result
        ),
        #{bytes_per_s := Bytes, mb_per_s := Mb, operations_per_second := Operations} = Result,
        ?assert(Bytes > 0),
        ?assert(abs(Mb * 1.0e6 - Bytes) < 1),
        ?assert(abs(Operations * 1024 - Bytes) < 1)
    end).

latency(Config) ->
    each(Config, fun(_, Given) ->
        {ok, Result} = ?A:run_latency_test(Given, 100, 512),
        #{
            successful_operations := 100,
            unloaded_p50_us := Unloaded,
            rate_per_s := Rate,
            p50_us := P50,
            p95_us := P95,
            p99_us := P99,
            max_us := Max
        } = Result,
        ?assert(Unloaded > 0 andalso Rate > 0),
        ?assert(P50 > 0 andalso P50 =< P95 andalso P95 =< P99 andalso P99 =< Max)
    end).

concurrent(Config) ->
    each(Config, fun(Transport, Given) ->
        {ok, Result} = ?A:run_concurrent_test(Given, 6, 10, 256),
        #{
            total_operations := 60,
            successful_operations := 60,
            total_errors := 0,
            concurrent_connections := 6,
            connections := Connections,
            duration_us := Us,
            avg_latency_us := Avg
        } = Result,
        ?assert(Us > 0 andalso Avg > 0),
        %% Nodes are few, and are shared.
        ?assertEqual(
            case Transport of
                stdio -> 4;
                _ -> 6
            end,
            Connections
        )
    end).

stress(Config) ->
    Given = given(tcp, Config),
    {ok, Result} = ?A:run_stress_test(Given, 300, 8),
    #{
        concurrent_workers := 8,
        total_operations := Total,
        successful_operations := Total,
        success_rate := 100.0,
        duration_ms := Ms,
        resources := #{peak_memory_bytes := Peak, samples := Samples}
    } = Result,
    ?assert(Total > 0 andalso Ms > 0 andalso Peak > 0 andalso Samples >= 2).

profile(Config) ->
    each(Config, fun(_, Given) ->
        {ok, #{stages := Stages, round_trip := #{p50_us := RoundTrip}, elsewhere_us := Rest}} =
            ?A:profile_message_routing(Given, 20),
        ?assertEqual(
            [decode, encode, framing, handler, route, send], lists:sort(maps:keys(Stages))
        ),
        ?assert(RoundTrip > 0 andalso Rest >= 0)
    end).

%% From pings to messages that do not fit a buffer.
sizes(Config) ->
    each(Config, [tcp, http], fun(_, Given) ->
        lists:foreach(
            fun(Bytes) ->
                {ok, #{successful_operations := 4, message_bytes := Bytes}} =
                    ?A:run_throughput_test(Given, 4, Bytes)
            end,
            [64, 100000, 2000000]
        )
    end).

%% Each call of a batch has its own outcome, whether batches are full or not.
batches(Config) ->
    each(Config, fun(_, Given) ->
        {ok, #{total_operations := 250, successful_operations := 250}} =
            ?A:run_throughput_test(Given#{batch => 20}, 250, 1024),
        {ok, #{total_operations := 7, successful_operations := 7}} =
            ?A:run_concurrent_test(Given#{batch => 100}, 1, 7, 1024),
        {ok, #{total_operations := 30, errors := #{{rpc, -32601} := 30}}} =
            ?A:run_throughput_test(
                Given#{batch => 10, call => {tool, <<"no such tool">>, <<"text">>}}, 30, 1024
            )
    end).

%% A server that was not started by the analysis is not stopped by it either.
own_endpoint(Config) ->
    {ok, Own} = ?SUBJECT:start(maps:remove(load, given(tcp, Config))),
    Given = (given(tcp, Config))#{endpoint => ?SUBJECT:endpoint(Own)},
    lists:foreach(
        fun(_) ->
            {ok, #{success_rate := 100.0}} = ?A:run_throughput_test(Given, 50, 1024)
        end,
        [first, second]
    ),
    ok = ?SUBJECT:stop(Own),
    {ok, Http} = ?SUBJECT:start(maps:remove(load, given(http, Config))),
    Url = ?SUBJECT:endpoint(Http),
    {ok, #{success_rate := 100.0}} = ?A:run_concurrent_test(
        (given(http, Config))#{endpoint => binary_to_list(Url), options => #{headers => []}},
        3, 5, 1024
    ),
    ok = ?SUBJECT:stop(Http).

own_command(Config) ->
    Command = erlmcp_native_analysis_stdio:echo_node(?config(path, Config)),
    Given = (given(stdio, Config))#{endpoint => Command},
    {ok, #{success_rate := 100.0}} = ?A:run_throughput_test(Given, 50, 1024).

%% What the server refuses is an error, by its code, and not a success.
own_tool(Config) ->
    each(Config, [tcp, http], fun(_, Given) ->
        {ok, Result} = ?A:run_throughput_test(
            Given#{call => {tool, <<"no such tool">>, <<"text">>}}, 10, 1024
        ),
        ?assertMatch(
            #{
                total_operations := 10,
                successful_operations := 0,
                total_errors := 10,
                success_rate := +0.0,
                errors := #{{rpc, -32601} := 10}
            },
            Result
        ),
        {ok, #{success_rate := 100.0}} = ?A:run_throughput_test(
            Given#{call => {tool, <<"size">>, <<"text">>}}, 10, 1024
        )
    end).

tls(Config) ->
    File = fun(Name) -> test_certs:file(Config, Name) end,
    Right = #{
        certfile => File("server.pem"),
        keyfile => File("server.key"),
        cacertfile => File("ca.pem")
    },
    lists:foreach(
        fun(Transport) ->
            Given = given(Transport, Config),
            {ok, #{success_rate := 100.0}} =
                ?A:run_throughput_test(Given#{tls => Right}, 50, 1024),
            ?assertMatch(
                {error, {tls, unknown_ca}},
                ?A:run_throughput_test(
                    Given#{tls => Right#{cacertfile := File("other_ca.pem")}}, 50, 1024
                )
            )
        end,
        [tcp, http]
    ).

refused(Config) ->
    Port = test_socket:free_port(),
    ?assertEqual(
        {error, refused},
        ?A:run_throughput_test((given(tcp, Config))#{endpoint => #{port => Port}}, 5, 64)
    ),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    ?assertEqual(
        {error, refused},
        ?A:run_latency_test((given(http, Config))#{endpoint => Url}, 5, 64)
    ),
    ?assertEqual(
        {error, {command, <<"no-such-program">>, enoent}},
        ?A:run_stress_test(
            (given(stdio, Config))#{endpoint => #{command => "no-such-program"}}, 100, 2
        )
    ).

%% Something answers, but not as a server does.
not_mcp(Config) ->
    Given = (given(stdio, Config))#{endpoint => #{command => "cat"}, timeout_ms => 300},
    ?assertEqual({error, timeout}, ?A:run_throughput_test(Given, 5, 64)).

%% A server that is gone in the middle: what is under way has failed, and the load ends.
lost(Config) ->
    Path = ?config(path, Config),
    {ok, Own} = ?SUBJECT:start(maps:remove(load, given(tcp, Config))),
    {ok, Proxy, Port} = proxy(?SUBJECT:endpoint(Own)),
    Given = (given(tcp, Config))#{endpoint => #{port => Port}, path => Path},
    Self = self(),
    Pid = spawn_link(fun() -> Self ! {self(), ?A:run_stress_test(Given, ?TIMEOUT_MS, 3)} end),
    receive
        {Proxy, passed} -> Proxy ! cut
    end,
    receive
        {Pid, {ok, Result}} ->
            #{total_operations := Total, total_errors := Errors, errors := Kinds} = Result,
            ?assert(Total > 0 andalso Errors > 0 andalso Errors =< Total),
            ?assertEqual([], maps:keys(Kinds) -- [closed, reset, not_connected])
    end,
    ok = ?SUBJECT:stop(Own).

%% Passes everything between its clients and a server, says so, and cuts all when it is told to.
proxy(#{port := To}) ->
    Self = self(),
    {Listener, Port} = test_socket:listen(),
    Proxy = spawn_link(fun() ->
        receive
            begin_now -> passing(Self, [pair(Listener, To) || _ <- [1, 2, 3]], 0)
        end
    end),
    ok = gen_tcp:controlling_process(Listener, Proxy),
    Proxy ! begin_now,
    {ok, Proxy, Port}.

pair(Listener, To) ->
    {ok, Client} = gen_tcp:accept(Listener),
    {ok, Server} = gen_tcp:connect({127, 0, 0, 1}, To, [binary, {active, true}]),
    ok = inet:setopts(Client, [{active, true}]),
    {Client, Server}.

passing(Owner, Pairs, Count) ->
    receive
        {tcp, Socket, Data} ->
            _ = gen_tcp:send(other(Socket, Pairs), Data),
            _ = Count =:= 100 andalso (Owner ! {self(), passed}),
            passing(Owner, Pairs, Count + 1);
        cut ->
            lists:foreach(
                fun({Client, Server}) ->
                    ok = gen_tcp:close(Client),
                    ok = gen_tcp:close(Server)
                end,
                Pairs
            )
    end.

other(Socket, Pairs) ->
    case lists:keyfind(Socket, 1, Pairs) of
        {_, Server} ->
            Server;
        false ->
            {Client, _} = lists:keyfind(Socket, 2, Pairs),
            Client
    end.

%% In an open load, too, each call that was due has one outcome.
answers_are_counted_once(Config) ->
    each(Config, [tcp, http], fun(_, Given) ->
        {ok, Subject} = ?SUBJECT:start(maps:remove(load, Given)),
        {ok, Result} = erlmcp_native_analysis_load:run(Subject, #{
            workers => 3, rate_per_s => 400, duration_ms => 300, drain_ms => ?TIMEOUT_MS
        }),
        #{sent := Sent, ok := Ok, lost := Lost, errors := Errors, latency := Latency} = Result,
        ?assertEqual({0, #{}}, {Lost, Errors}),
        ?assert(Sent >= 120),
        ?assertEqual(Sent, Ok),
        ?assertEqual(Sent, erlmcp_native_histogram:count(Latency)),
        ok = ?SUBJECT:stop(Subject)
    end).

%% What a run has started ends with its caller; that nothing is left is looked at after the case.
killed_caller(Config) ->
    each(Config, [tcp, stdio], fun(_, Given) ->
        Before = living(),
        Pid = spawn(fun() -> ?A:run_stress_test(Given, ?TIMEOUT_MS, 4) end),
        until(fun() -> length(living() -- Before) >= 3 end),
        exit(Pid, kill),
        until(fun() -> living() -- Before =:= [] end)
    end).

stopped(Config) ->
    {ok, Server} = ?A:start_link(),
    ?assertEqual({error, {already_started, Server}}, ?A:start_link()),
    Self = self(),
    Given = (given(tcp, Config))#{progress => fun(Line) -> Self ! {progress, Line} end},
    Pid = spawn_link(fun() -> Self ! {self(), ?A:run_stress_test(Given, ?TIMEOUT_MS, 4)} end),
    receive
        {progress, Line} -> ?assertMatch([_ | _], string:find(Line, "calls answered"))
    end,
    ok = ?A:stop(),
    receive
        {Pid, Result} -> ?assertEqual({error, stopped}, Result)
    end,
    ok = ?A:stop().

options(_) ->
    Wrong = [
        {transport, smtp, fun() -> ?A:run_throughput_test(smtp, 1, 1) end},
        {transport, 7, fun() -> ?A:run_latency_test(7, 1, 1) end},
        {transport, undefined, fun() -> ?A:run_latency_test(#{path => nif}, 1, 1) end},
        {path, erlmcp05, fun() ->
            ?A:run_latency_test(#{transport => tcp, path => erlmcp05}, 1, 1)
        end},
        {endpoint, here, fun() ->
            ?A:run_latency_test(#{transport => tcp, endpoint => here}, 1, 1)
        end},
        {call, shout, fun() -> ?A:run_latency_test(#{transport => tcp, call => shout}, 1, 1) end},
        {batch, 101, fun() -> ?A:run_latency_test(#{transport => tcp, batch => 101}, 1, 1) end},
        {colour, red, fun() -> ?A:run_latency_test(#{transport => tcp, colour => red}, 1, 1) end},
        {window, 0, fun() ->
            ?A:run_latency_test(#{transport => tcp, load => #{window => 0}}, 1, 1)
        end},
        {max_frame_bytes, 0, fun() ->
            ?A:run_latency_test(#{transport => tcp, options => #{max_frame_bytes => 0}}, 1, 1)
        end},
        {count, 0, fun() -> ?A:run_throughput_test(tcp, 0, 1) end},
        {size, -1, fun() -> ?A:run_throughput_test(tcp, 1, -1) end},
        {connections, 0, fun() -> ?A:run_concurrent_test(tcp, 0, 1, 1) end},
        {duration_ms, 0.5, fun() -> ?A:run_stress_test(tcp, 0.5, 1) end},
        {workers, none, fun() -> ?A:run_stress_test(tcp, 1, none) end},
        {interval_ms, 0, fun() -> ?A:monitor_resources(1, 0) end},
        {duration_ms, 0, fun() -> ?A:collect_gc_metrics(0) end},
        {duration_ms, 0, fun() -> ?A:analyze_memory_patterns(0) end}
    ],
    [?assertEqual({error, {option, Key, Value}}, Call()) || {Key, Value, Call} <- Wrong].

resources(_) ->
    {ok, Monitor} = ?A:monitor_resources(200, 50),
    #{samples := Samples, summary := Summary, duration_ms := 200, interval_ms := 50} = Monitor,
    ?assert(length(Samples) >= 2),
    [
        ?assertMatch(#{at_ms := _, memory_bytes := Bytes, processes := _} when Bytes > 0, Sample)
     || Sample <- Samples
    ],
    #{peak_memory_bytes := Peak, avg_memory_bytes := Mean} = Summary,
    ?assert(Peak >= Mean).

registry(_) ->
    {ok, #{performance_tests := Tests, routes_per_s := Rate}} = ?A:measure_registry_performance(),
    ?assertEqual(
        [registration, lookup, routing_1, routing_10, routing_50], [Name || {Name, _} <- Tests]
    ),
    [
        ?assertMatch(#{result := ok, duration_microseconds := _, operations := _}, Test)
     || {_, Test} <- Tests
    ],
    ?assert(Rate > 0),
    ?assertEqual([], [
        Id
     || {<<"erlmcp_native_analysis", _/binary>> = Id, _} <- erlmcp_native_registry:list_servers()
    ]).

gc(_) ->
    {ok, Metrics} = ?A:collect_gc_metrics(100),
    #{
        gc_count := Count,
        words_reclaimed := Words,
        initial_memory := From,
        final_memory := To,
        memory_delta := Delta,
        duration_ms := 100,
        traced_processes := Traced
    } = Metrics,
    ?assert(Count >= 0 andalso Words >= 0 andalso Traced > 0),
    ?assertEqual(To - From, Delta),
    ?assertEqual([], [
        Pid
     || Pid <- processes(), {flags, [_ | _]} <- [erlang:trace_info(Pid, flags)]
    ]).

memory(_) ->
    {ok, #{samples := Samples, analysis := Analysis}} = ?A:analyze_memory_patterns(300),
    #{
        trend := Trend,
        peak_memory := Peak,
        avg_memory := Avg,
        first_half_avg := _,
        second_half_avg := _,
        growth := #{bytes_per_s := Slope, bytes_per_s_low := Low, bytes_per_s_high := High},
        native_objects_first := _,
        native_objects_last := _,
        leak := Leak
    } = Analysis,
    ?assert(length(Samples) >= 4),
    ?assert(Peak >= Avg andalso Low =< Slope andalso Slope =< High),
    ?assert(lists:member(Trend, [growing, shrinking, steady])),
    ?assert(lists:member(Leak, [none, possible, likely])).

bottlenecks(_) ->
    Fine = #{
        transport => tcp,
        test => latency,
        mean_us => 100.0,
        total_operations => 1000,
        total_errors => 0,
        bytes_per_s => 1.0e6
    },
    Bad = #{
        transport_type => http,
        message_latency => 20000,
        operations => 100,
        errors => 10,
        bytes_per_s => 500.0,
        memory_usage => 200000000
    },
    #{tcp := Tcp, http := Http, overall := Overall} = ?A:analyze_bottlenecks([Fine, Bad]),
    ?assertMatch(#{bottlenecks := [], evidence := []}, Tcp),
    ?assertEqual(
        [high_latency, high_error_rate, low_throughput, high_memory_usage],
        maps:get(bottlenecks, Http)
    ),
    [
        ?assertMatch(#{value := _, threshold := _, unit := _, samples := 1}, Evidence)
     || Evidence <- maps:get(evidence, Http)
    ],
    #{
        transport_comparison := #{{http, tcp} := #{latency_ratio := Ratio}},
        recommendations := Recommendations,
        critical_issues := [_]
    } = Overall,
    ?assertEqual(200.0, Ratio),
    ?assertEqual(4, length(Recommendations)),
    #{tcp := #{bottlenecks := [high_latency]}} =
        ?A:analyze_bottlenecks([Fine], #{high_latency_us => 50}),
    ?assertEqual(
        #{overall => #{transport_comparison => #{}, recommendations => [], critical_issues => []}},
        ?A:analyze_bottlenecks([])
    ).
