%% @doc How soon a connection is there again after its server is, by the kind of failure.
%%
%% Clients are connected through {@link erlmcp_native_fault_proxy} to a server in a VM of its own.
%% In each round they begin anew; then the proxy fails for a while in one way (an outage, whose
%% length is drawn), the connections that stand included, and passes again. A client is back when a
%% message has gone to the server and returned; what counts is when the connection that carried it
%% stood. Of child processes there are two kinds: killed (a reset) and ended by SIGTERM (shut down).
-module(erlmcp_native_bottleneck_reconnect).

-export([run/1]).

%% Called in the other VM.
-export([measure/4]).

-export_type([kind/0]).

-type kind() :: refused | reset | shutdown | timeout.

-define(CLIENTS, 20).
-define(CHILDREN, 5).
-define(ROUNDS, 5).
-define(CONNECT_TIMEOUT_MS, 500).
%% What the technique of erlmcp 0.5 waits, whatever its options say.
-define(THEIR_CONNECT_TIMEOUT_MS, 5000).
-define(OUTAGE_MS, {50, 1000}).
%% Longer than it takes anybody who comes back at all.
-define(GIVE_UP_MS, 30000).

%% @doc Options: `paths', `baseline', `rounds', `clients'.
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Paths = maps:get(paths, Options, [nif, port, beam]),
    Clients = [{Path, erlmcp_native_reconnect_client} || Path <- Paths] ++ baseline(Options),
    erlmcp_native_progress:say(Options, "reconnect: ~p at once", [[P || {P, _} <- Clients]]),
    Measured = lists:append(
        erlmcp_native_parallel:map(fun(Client) -> measured(Client, Options) end, Clients)
    ),
    #{
        name => reconnection,
        rows => [row(M) || M <- Measured] ++ success(Measured),
        metrics => metrics([M || #{path := Path} = M <- Measured, Path =:= hd(Paths)]),
        evidence => Measured
    }.

baseline(#{baseline := Baseline}) when Baseline =/= none -> [{erlmcp05, Baseline:client()}];
baseline(_) -> [].

measured({Path, Module}, Options) ->
    erlmcp_native_analysis_vm:with(beam, [], fun(Server) ->
        Listen = fun(Function, Args) ->
            erlmcp_native_analysis_vm:call(Server, erlmcp_native_analysis_peer, Function, Args)
        end,
        Ports = #{
            tcp => Listen(tcp, [0, beam]), http => Listen(http, [beam, #{delay_ms => 0}])
        },
        erlmcp_native_analysis_vm:with(Path, [], fun(Vm) ->
            Sizes = #{
                rounds => rounds(Path, Options),
                clients => maps:get(clients, Options, ?CLIENTS),
                children => ?CHILDREN
            },
            erlmcp_native_analysis_vm:call(Vm, ?MODULE, measure, [Module, Path, Ports, Sizes])
        end)
    end).

%% A round of theirs takes seconds; more would only take longer.
rounds(erlmcp05, Options) -> min(2, rounds(nif, Options));
rounds(_, Options) -> maps:get(rounds, Options, ?ROUNDS).

%% @private
-spec measure(module(), erlmcp_native_report:path(), Ports, map()) -> [map()] when
    Ports :: #{tcp | http := inet:port_number()}.
measure(Module, Path, #{tcp := Tcp, http := Http}, Sizes) ->
    OverTcp = #{
        transport => tcp, path => Path, module => Module, port => Tcp, prompt => fun(_) -> ok end
    },
    through_proxy(OverTcp, Sizes) ++ ours_alone(Path, Http, Sizes).

%% erlmcp 0.5 has no clients of these kinds that work.
ours_alone(erlmcp05, _, _) ->
    [];
ours_alone(Path, Port, Sizes) ->
    Control = erlmcp_native_reconnect_http:control(Port),
    Prompt = fun(Clients) ->
        erlmcp_native_reconnect_http:notify(Control, [told(session, C) || C <- Clients])
    end,
    OverHttp = #{
        transport => http,
        path => Path,
        module => erlmcp_native_reconnect_http,
        port => Port,
        prompt => Prompt
    },
    Measured = through_proxy(OverHttp, Sizes),
    ok = erlmcp_native_reconnect_http:close(Control),
    Measured ++ [stdio(Kind, Path, Sizes) || Kind <- [reset, shutdown]].

through_proxy(#{port := Port} = Case, Sizes) ->
    {ok, Proxy} = erlmcp_native_fault_proxy:start_link(#{port => Port}),
    All = [failing(Kind, Case, Proxy, Sizes) || Kind <- [refused, reset, shutdown, timeout]],
    ok = erlmcp_native_fault_proxy:stop(Proxy),
    All.

failing(Kind, #{module := Module, path := Path, prompt := Prompt} = Case, Proxy, Sizes) ->
    #{port := Port} = erlmcp_native_fault_proxy:endpoint(Proxy),
    #{rounds := Rounds, clients := Count} = Sizes,
    Start = fun() -> Module:connect(#{port => Port}, Path, ?CONNECT_TIMEOUT_MS) end,
    All = [
        begin
            Clients = begun(Module, Start, Count, Prompt),
            {Cut, At} = outage(Kind, Proxy, fun() -> Prompt(Clients) end),
            Back = all_back(Clients, Cut, At),
            _ = [ended(Client) || Client <- Clients],
            Back
        end
     || _ <- lists:seq(1, Rounds)
    ],
    result(maps:get(transport, Case), Kind, Path, lists:append(All)).

%% Fails in one way, the connections that stand included; when they had been cut, and when the
%% server is back.
outage(Kind, Proxy, Meanwhile) ->
    ok = erlmcp_native_fault_proxy:set(Proxy, #{mode => mode(Kind)}),
    {ok, _} = erlmcp_native_fault_proxy:cut(Proxy, cut(Kind)),
    Cut = erlang:monotonic_time(),
    Meanwhile(),
    {Min, Max} = ?OUTAGE_MS,
    receive
    after Min + rand:uniform(Max - Min) -> ok
    end,
    At = erlang:monotonic_time(),
    ok = erlmcp_native_fault_proxy:set(Proxy, #{mode => pass}),
    {Cut, At}.

mode(refused) -> refuse;
mode(Kind) -> Kind.

cut(reset) -> reset;
cut(_) -> shutdown.

stdio(Kind, Path, #{rounds := Rounds, children := Count}) ->
    Start = fun() -> erlmcp_native_reconnect_client:child(Path) end,
    All = [
        begin
            Clients = begun(erlmcp_native_reconnect_client, Start, Count, fun(_) -> ok end),
            Pids = [integer_to_list(told(os_pid, Client)) || Client <- Clients],
            At = erlang:monotonic_time(),
            [] = os:cmd(lists:flatten(["kill ", signal(Kind), lists:join(" ", Pids)])),
            Back = all_back(Clients, At, At),
            _ = [ended(Client) || Client <- Clients],
            Back
        end
     || _ <- lists:seq(1, Rounds)
    ],
    result(stdio, Kind, Path, lists:append(All)).

signal(reset) -> "-9 ";
signal(shutdown) -> "-15 ".

%% A process for each client, which says when it is back.
begun(Module, Start, Count, Prompt) ->
    Self = self(),
    Begun = erlang:monotonic_time(),
    Clients = [
        spawn_link(fun() ->
            {ok, Pid} = Start(),
            client(Self, Module, Pid, none, [])
        end)
     || _ <- lists:seq(1, Count)
    ],
    ok = Prompt(Clients),
    _ = [{true, _, _} = Back || Back <- all_back(Clients, Begun, Begun)],
    Clients.

client(Parent, Module, Pid, Since, Reasons) ->
    receive
        {tell, What} ->
            Parent ! {self(), told, Module:What(Pid)},
            client(Parent, Module, Pid, Since, Reasons);
        stop ->
            Module:close(Pid);
        Message ->
            case Module:event(Message) of
                connected ->
                    _ = Module:send(Pid, <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}">>),
                    client(Parent, Module, Pid, erlang:monotonic_time(), Reasons);
                answer ->
                    Parent ! {self(), back, since(Since), Reasons},
                    client(Parent, Module, Pid, Since, []);
                {down, Reason} ->
                    client(Parent, Module, Pid, Since, [Reason | Reasons]);
                other ->
                    client(Parent, Module, Pid, Since, Reasons)
            end
    end.

%% Whoever is not told of connections knows of one by what it brings.
since(none) -> erlang:monotonic_time();
since(Since) -> Since.

all_back(Clients, Cut, At) ->
    Deadline = erlang:monotonic_time(millisecond) + ?GIVE_UP_MS,
    [back(Client, Cut, At, Deadline) || Client <- Clients].

%% An answer over a connection that stood before the server was away is not one of the return. One
%% over a connection that was accepted just before the server was back, and served then, is.
back(Client, Cut, At, Deadline) ->
    receive
        {Client, back, Since, Reasons} when Since >= Cut -> {true, max(0, Since - At), Reasons};
        {Client, back, _, _} -> back(Client, Cut, At, Deadline)
    after max(0, Deadline - erlang:monotonic_time(millisecond)) -> {false, 0, []}
    end.

told(What, Client) ->
    Client ! {tell, What},
    receive
        {Client, told, Told} -> Told
    end.

ended(Client) ->
    Monitor = monitor(process, Client),
    Client ! stop,
    receive
        {'DOWN', Monitor, process, Client, _} -> ok
    end.

result(Transport, Kind, Path, Back) ->
    Times = [
        erlang:convert_time_unit(Native, native, microsecond) / 1000
     || {true, Native, _} <- Back
    ],
    #{
        transport => Transport,
        kind => Kind,
        path => Path,
        tries => length(Back),
        successes => length(Times),
        connect_timeout_ms => connect_timeout(Path),
        back_ms => erlmcp_native_statistics:summary(Times),
        reasons => reasons(lists:append([Reasons || {_, _, Reasons} <- Back]))
    }.

connect_timeout(erlmcp05) -> ?THEIR_CONNECT_TIMEOUT_MS;
connect_timeout(_) -> ?CONNECT_TIMEOUT_MS.

%% How often the owner was told which reason.
reasons(Reasons) ->
    lists:foldl(
        fun(Reason, Acc) -> maps:update_with(Reason, fun(N) -> N + 1 end, 1, Acc) end,
        #{},
        [iolist_to_binary(io_lib:format("~0p", [Reason])) || Reason <- Reasons]
    ).

row(#{transport := Transport, kind := Kind, path := Path, back_ms := Back} = Measured) ->
    #{count := Count, p95 := P95} = Back,
    erlmcp_native_report:row(name(Kind), #{
        transport => Transport,
        path => Path,
        value => value(Kind, Count, P95, Measured),
        samples => Count,
        spread => maps:with([min, p50, p90, p99, max], Back),
        note => note(Kind, Measured)
    }).

name(refused) -> reconnect_refused_p95;
name(reset) -> reconnect_reset_p95;
name(shutdown) -> reconnect_shutdown_p95;
name(timeout) -> reconnect_timeout_p95.

value(_, 0, _, _) -> null;
value(timeout, _, P95, #{connect_timeout_ms := Timeout}) -> max(0, P95 - Timeout);
value(_, _, P95, _) -> P95.

note(timeout, #{connect_timeout_ms := Timeout}) ->
    iolist_to_binary(io_lib:format("connect timeout ~b ms", [Timeout]));
note(_, #{successes := 0}) ->
    <<"never came back">>;
note(_, _) ->
    null.

success(Measured) ->
    Cases = lists:usort([{T, P} || #{transport := T, path := P} <- Measured]),
    [
        begin
            Of = [M || #{transport := T, path := P} = M <- Measured, T =:= Transport, P =:= Path],
            Tries = lists:sum([N || #{tries := N} <- Of]),
            Successes = lists:sum([N || #{successes := N} <- Of]),
            erlmcp_native_report:row(reconnect_success, #{
                transport => Transport,
                path => Path,
                value => 100 * Successes / Tries,
                samples => Tries
            })
        end
     || {Transport, Path} <- Cases
    ].

metrics(Measured) ->
    Tries = lists:sum([N || #{tries := N} <- Measured]),
    Successes = lists:sum([N || #{successes := N} <- Measured]),
    Means = [{Mean * 1000, Count} || #{back_ms := #{mean := Mean, count := Count}} <- Measured],
    %% Clients over HTTP do not tell of failed tries.
    {Told, Failures} = lists:foldl(
        fun(#{reasons := Reasons, successes := N}, {Returns, Failed}) ->
            {Returns + N, Failed + lists:sum(maps:values(Reasons))}
        end,
        {0, 0},
        [M || #{transport := Transport} = M <- Measured, Transport =/= http]
    ),
    #{
        avg_reconnect_time => lists:sum([M * N || {M, N} <- Means]) / max(1, Successes),
        max_reconnect_time => 1000 * lists:max([Max || #{back_ms := #{max := Max}} <- Measured]),
        backoff_efficiency => Told / max(1, Failures),
        connection_stability => Successes / max(1, Tries),
        scenario_details => Measured
    }.
