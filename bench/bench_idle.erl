%% @doc What an idle connection costs, with 10,000 of them open on one listener.
-module(bench_idle).

-export([groups/0]).

%% Called in a fresh VM.
-export([listen/1, memory/1, await_accepted/1]).

-define(COUNT, 10000).
-define(TIMEOUT_MS, 60000).

%% The processes of a connection hibernate after a second in which nothing came.
-define(HIBERNATE_AFTER_MS, 1000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        #{
            cases => [
                #{
                    name => Name,
                    metric => Metric,
                    unit => <<"bytes/connection">>,
                    better => lower
                }
             || {Name, Metric} <- [
                    {idle_10k, <<"resident memory">>}, {idle_10k_vm, <<"erlang:memory(total)">>}
                ]
            ],
            variants => [
                #{path => Path, run => fun(_) -> measure(Path) end}
             || Path <- [nif, beam, gen_tcp]
            ],
            ratios => [
                {idle_10k, nif, gen_tcp, 1},
                {idle_10k, beam, gen_tcp, none},
                {idle_10k, nif, beam, none}
            ],
            runs => 5,
            warm_up => false
        }
    ].

measure(Path) ->
    Vm = bench_peer:start_vm(),
    Client = bench_peer:start_sender(),
    {Port, Server} = bench_peer:call(Vm, ?MODULE, listen, [Path]),
    {Rss0, Total0} = bench_peer:call(Vm, ?MODULE, memory, [0]),
    ok = bench_peer:hold(Client, Port, ?COUNT),
    ok = bench_peer:call(Vm, ?MODULE, await_accepted, [Server]),
    {Rss, Total} = bench_peer:call(Vm, ?MODULE, memory, [2 * ?HIBERNATE_AFTER_MS]),
    bench_peer:stop(Client),
    bench_peer:stop(Vm),
    [(Rss - Rss0) / ?COUNT, (Total - Total0) / ?COUNT].

%% @private
-spec listen(atom()) -> {inet:port_number(), Server :: term()}.
listen(gen_tcp) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {{Port, Supervisor}, Accept} = bench_line_server:listen(),
        {{Port, {supervisor, Supervisor}}, Accept}
    end);
listen(Path) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{path => Path, active => true}),
        {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
        {{Port, {owner, self()}}, fun() -> own(0) end}
    end).

%% The owner of all connections: how many of them stand.
own(Connected) ->
    receive
        {erlmcp_native, _, connected} ->
            own(Connected + 1);
        {count, Caller} ->
            Caller ! {count, Connected},
            own(Connected);
        _ ->
            own(Connected)
    end.

%% @private
-spec await_accepted(term()) -> ok.
await_accepted(Server) ->
    await_accepted(Server, erlang:monotonic_time(millisecond) + ?TIMEOUT_MS).

await_accepted(Server, Deadline) ->
    case connections(Server) of
        ?COUNT ->
            ok;
        Fewer ->
            erlang:monotonic_time(millisecond) < Deadline orelse exit({accepted, Fewer}),
            receive
            after 100 -> await_accepted(Server, Deadline)
            end
    end.

connections({supervisor, Supervisor}) ->
    bench_line_server:connections(Supervisor);
connections({owner, Owner}) ->
    Owner ! {count, self()},
    receive
        {count, Connected} -> Connected
    end.

%% @private
-spec memory(WaitMs :: non_neg_integer()) ->
    {Rss :: non_neg_integer(), Total :: non_neg_integer()}.
memory(WaitMs) ->
    receive
    after WaitMs -> ok
    end,
    {bench_os:settled_rss_bytes(), erlang:memory(total)}.
