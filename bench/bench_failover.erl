%% @doc Switching from one endpoint to another under load: by command, and because the peer is
%% killed. Beside it the technique of erlmcp 0.5: a transport has one address, and whoever wants
%% another ends it and starts one.
%%
%% The servers run in OS processes of their own. So many requests are under way all the time.
%% The gap of a switch is the longest time without an outcome in the 200 outcomes that follow it.
-module(bench_failover).

-export([groups/0, planned/1, unplanned/1]).

%% Called in the other VM.
-export([do_serve/0]).

-define(IN_FLIGHT, 64).
-define(SWITCHES, 100).
-define(EVERY, 200).
-define(WARM, 2000).
-define(AFTER_KILL, 2000).
-define(TIMEOUT_MS, 60000).

-record(load, {
    client :: {failover, pid()} | {line, pid(), [inet:port_number()]},
    %% When each was sent, by what its outcome is known by.
    under_way = #{} :: #{term() => integer()},
    next = 1 :: pos_integer(),
    outcomes = 0 :: non_neg_integer(),
    failed = 0 :: non_neg_integer(),
    %% Outcomes of requests that were not under way.
    surplus = 0 :: non_neg_integer(),
    last :: integer(),
    gap = 0 :: non_neg_integer()
}).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Name = fun(Case, Metric, Unit) ->
        #{name => Case, metric => Metric, unit => Unit, better => lower}
    end,
    Variants = fun(Run) ->
        [
            #{path => Path, run => fun(_) -> Run(Path) end}
         || Path <- [nif, port, beam, erlmcp_line]
        ]
    end,
    [
        #{
            cases => [
                Name(switching, <<"gap of a planned switch, p99">>, <<"us">>),
                Name(switching_steady, <<"the same without a switch">>, <<"us">>),
                Name(switching_failed, <<"failed requests, planned">>, <<"requests">>)
            ],
            variants => Variants(fun planned/1),
            ratios => [],
            runs => 3,
            warm_up => false,
            checks => fun planned_checks/1
        },
        #{
            cases => [
                Name(switching_killed, <<"peer killed, next endpoint in use">>, <<"us">>),
                Name(switching_killed_failed, <<"failed requests, peer killed">>, <<"requests">>),
                Name(switching_killed_lost, <<"not exactly one outcome">>, <<"requests">>)
            ],
            variants => Variants(fun unplanned/1),
            ratios => [],
            runs => 3,
            warm_up => false,
            checks => fun unplanned_checks/1
        }
    ].

planned_checks(Rows) ->
    [
        check(switching, 5000, <<"us, 5,000 at most">>, Rows),
        check(switching_failed, 0, <<"requests, none at most">>, Rows)
    ].

unplanned_checks(Rows) ->
    [
        check(switching_killed, 50000, <<"us, 50,000 at most">>, Rows),
        check(switching_killed_lost, 0, <<"requests, none at most">>, Rows)
    ].

check(Case, Bar, Unit, Rows) ->
    Value = bench_report:median(Case, nif, Rows),
    #{'case' => Case, ok => is_number(Value) andalso Value =< Bar, value => Value, unit => Unit}.

%% @doc The gap of a planned switch, that of no switch, and how many requests have failed.
-spec planned(atom()) -> [number()].
planned(Path) ->
    Peers = [bench_peer:start_sender() || _ <- [1, 2]],
    Ports = [bench_peer:call(Peer, ?MODULE, do_serve, []) || Peer <- Peers],
    Load0 = outcomes(?WARM, filled(begun(Path, Ports))),
    {Steady, Load1} = gaps(fun(L) -> L end, Load0),
    {Gaps, Load} = gaps(fun switched/1, Load1),
    #load{failed = Failed, surplus = 0} = Load,
    _ = ended(Load),
    lists:foreach(fun bench_peer:stop/1, Peers),
    P99 = fun(Us) -> erlmcp_native_statistics:percentile(99, Us) end,
    [P99(Gaps), P99(Steady), Failed].

gaps(Do, Load) ->
    lists:mapfoldl(
        fun(_, L0) ->
            L = outcomes(?EVERY, Do(L0#load{gap = 0, last = now_us()})),
            {L#load.gap, outcomes(rand:uniform(?EVERY), L)}
        end,
        Load,
        lists:seq(1, ?SWITCHES)
    ).

%% @doc When the other endpoint has answered after the peer was killed, how many requests have
%% failed, and how many have not had exactly one outcome.
-spec unplanned(atom()) -> [number()].
unplanned(Path) ->
    %% Ends with the process that it is killed in.
    Victim = killable(),
    Peer = bench_peer:start_sender(),
    Ports = [
        bench_peer:call(Victim, ?MODULE, do_serve, []),
        bench_peer:call(Peer, ?MODULE, do_serve, [])
    ],
    OsPid = bench_peer:call(Victim, os, getpid, []),
    Load0 = outcomes(?WARM, filled(begun(Path, Ports))),
    %% A shell that is there already: the load does not wait for it.
    Shell = open_port({spawn, "sh"}, []),
    Killed = now_us(),
    true = port_command(Shell, ["kill -9 ", OsPid, "\n"]),
    {InUse, Load1} = first_success(Killed, Load0),
    #load{failed = Failed} = Load = drained(outcomes(?AFTER_KILL, Load1)),
    Lost = map_size(Load#load.under_way) + Load#load.surplus,
    true = port_close(Shell),
    _ = ended(Load),
    bench_peer:stop(Peer),
    [InUse - Killed, Failed, Lost].

killable() ->
    Self = self(),
    _ = spawn(fun() ->
        _ = process_flag(trap_exit, true),
        Self ! {victim, bench_peer:start_sender()},
        receive
            {'EXIT', _, _} -> ok
        end
    end),
    receive
        {victim, Peer} -> Peer
    end.

%% @private
-spec do_serve() -> inet:port_number().
do_serve() ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [
            binary, {ip, {127, 0, 0, 1}}, {active, true}, {packet, line}, {nodelay, true},
            {buffer, 65536}
        ]),
        {ok, Port} = inet:port(Listener),
        {Port, fun() -> accept(Listener) end}
    end).

accept(Listener) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    Pid = spawn(fun() ->
        receive
            go -> serve(Socket)
        end
    end),
    ok = gen_tcp:controlling_process(Socket, Pid),
    Pid ! go,
    accept(Listener).

serve(Socket) ->
    receive
        {tcp, Socket, Line} ->
            _ = [gen_tcp:send(Socket, answer(Id)) || Id <- id(Line)],
            serve(Socket);
        {tcp_closed, Socket} ->
            ok;
        {tcp_error, Socket, _} ->
            ok
    end.

%% What stands behind the last `"id":' of a line.
id(Line) ->
    case binary:matches(Line, <<"\"id\":">>) of
        [] ->
            [];
        Matches ->
            {At, Length} = lists:last(Matches),
            Rest = binary:part(Line, At + Length, byte_size(Line) - At - Length),
            [hd(binary:split(Rest, [<<",">>, <<"}">>]))]
    end.

answer(Id) -> [<<"{\"jsonrpc\":\"2.0\",\"id\":">>, Id, <<",\"result\":{}}\n">>].

%% The load

begun(erlmcp_line, Ports) ->
    #load{client = opened(Ports), last = now_us()};
begun(Path, Ports) ->
    Endpoints = [
        #{to => #{port => Port}, name => N, options => #{path => Path}}
     || {N, Port} <- lists:zip([1, 2], Ports)
    ],
    {ok, Pid} = erlmcp_native_failover:start_link(Endpoints, #{}),
    ready(Pid),
    #load{client = {failover, Pid}, last = now_us()}.

ready(Pid) ->
    case erlmcp_native_failover:info(Pid) of
        {ok, #{ready := [1, 2], active := 1}} ->
            ok;
        {ok, _} ->
            receive
            after 5 -> ready(Pid)
            end
    end.

opened([Port | Ports]) ->
    {ok, Pid} = bench_line_transport:start_link(Port),
    true = unlink(Pid),
    Initialize = jsx:encode([
        {jsonrpc, <<"2.0">>}, {id, 0}, {method, <<"initialize">>}, {params, [{}]}
    ]),
    ok = bench_line_transport:send(Pid, Initialize),
    receive
        {transport_message, _} -> {line, Pid, Ports ++ [Port]}
    end.

switched(#load{client = {failover, Pid}} = Load) ->
    ok = erlmcp_native_failover:switch(Pid, next),
    Load;
switched(#load{client = {line, Pid, Ports}} = Load) ->
    ok = bench_line_transport:close(Pid),
    moved(Ports, Load).

%% Nobody answers what was sent.
moved(Ports, #load{under_way = UnderWay, failed = Failed} = Load) ->
    forget(),
    Lost = map_size(UnderWay),
    Moved = Load#load{client = opened(Ports), under_way = #{}, failed = Failed + Lost},
    filled(Moved#load{outcomes = Moved#load.outcomes + Lost}).

forget() ->
    receive
        {transport_message, _} -> forget();
        {transport_disconnected, _, _} -> forget()
    after 0 -> ok
    end.

filled(#load{under_way = UnderWay} = Load) when map_size(UnderWay) >= ?IN_FLIGHT -> Load;
filled(Load) -> filled(sent(Load)).

sent(#load{client = {failover, Pid}, under_way = UnderWay} = Load) ->
    Message = #{method => <<"tools/call">>, params => #{name => <<"echo">>}},
    {ok, Id} = erlmcp_native_failover:request(Pid, Message),
    Load#load{under_way = UnderWay#{Id => now_us()}};
sent(#load{client = {line, Pid, _}, under_way = UnderWay, next = Id} = Load) ->
    Message = jsx:encode([
        {jsonrpc, <<"2.0">>},
        {method, <<"tools/call">>},
        {params, [{name, <<"echo">>}]},
        {id, Id}
    ]),
    _ = leniently(fun() -> bench_line_transport:send(Pid, Message) end),
    Load#load{under_way = UnderWay#{Id => now_us()}, next = Id + 1}.

outcomes(0, Load) -> Load;
outcomes(N, Load) -> outcomes(N - 1, filled(outcome(Load))).

drained(#load{under_way = UnderWay} = Load) when map_size(UnderWay) =:= 0 -> Load;
drained(Load) -> drained(outcome(Load)).

%% The first answer to what was sent after the kill: it came from the other.
first_success(Killed, Load) ->
    case landing(Load) of
        {ok, SentAt, Next} when SentAt > Killed -> {Next#load.last, filled(Next)};
        {_, _, Next} -> first_success(Killed, filled(Next))
    end.

landing(#load{under_way = Before, failed = Failed} = Load) ->
    #load{under_way = After, failed = Now} = Next = outcome(Load),
    case [SentAt || {Id, SentAt} <- maps:to_list(Before), not is_map_key(Id, After)] of
        [SentAt] when Now =:= Failed -> {ok, SentAt, Next};
        _ -> {failed, none, Next}
    end.

outcome(#load{client = {failover, Pid}} = Load) ->
    receive
        {erlmcp_native, Pid, {outcome, Id, {ok, _}}} -> landed(Id, 0, Load);
        {erlmcp_native, Pid, {outcome, Id, {error, _}}} -> landed(Id, 1, Load)
    after ?TIMEOUT_MS -> exit(no_outcome)
    end;
outcome(#load{client = {line, _, Ports}} = Load) ->
    receive
        {transport_message, Line} ->
            #{<<"id">> := Id} = jsx:decode(Line, [return_maps]),
            landed(Id, 0, Load);
        {transport_disconnected, _, _} ->
            moved(Ports, Load)
    after ?TIMEOUT_MS -> exit(no_outcome)
    end.

landed(Id, Failed, #load{under_way = UnderWay, last = Last, gap = Gap} = Load) ->
    Now = now_us(),
    case maps:take(Id, UnderWay) of
        {_, Rest} ->
            Load#load{
                under_way = Rest,
                outcomes = Load#load.outcomes + 1,
                failed = Load#load.failed + Failed,
                last = Now,
                gap = max(Gap, Now - Last)
            };
        error ->
            Load#load{surplus = Load#load.surplus + 1}
    end.

ended(#load{client = {failover, Pid}}) -> erlmcp_native_failover:stop(Pid);
ended(#load{client = {line, Pid, _}}) ->
    leniently(fun() -> bench_line_transport:close(Pid) end).

%% It may have ended already.
leniently(Call) ->
    try
        Call()
    catch
        exit:Reason -> {exit, Reason}
    end.

now_us() -> erlang:monotonic_time(microsecond).
