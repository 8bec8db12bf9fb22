%% The breakers of a node: their table, their process, their events and counters.
-module(breaker_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [reason/1, until/1]).

-define(WAIT, 30000).
-define(BREAKERS, erlmcp_native_breakers).

all() ->
    [
        lets_through_what_it_does_not_know,
        needs_no_process_while_closed,
        opens_and_refuses_without_a_process,
        a_success_may_be_what_was_lacking,
        probes_are_limited,
        closes_after_probes,
        opens_again,
        a_dead_prober_gives_its_probe_back,
        slow_calls_open_it,
        a_window_of_time,
        late_ends_count_for_nothing,
        runs_calls,
        by_command,
        tells_subscribers,
        counts,
        survives_its_process,
        goes_with_a_process,
        of_an_http_client,
        options
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_testcase(Case, Config) ->
    [{key, {Case, make_ref()}} | Config].

end_per_testcase(_, Config) ->
    ok = ?BREAKERS:unsubscribe(all),
    ?BREAKERS:delete(key(Config)).

lets_through_what_it_does_not_know(Config) ->
    {ok, Ticket} = ?BREAKERS:ask(key(Config)),
    ?assertEqual(ok, ?BREAKERS:done(Ticket, failed)),
    ?assertEqual(unknown, ?BREAKERS:state(key(Config))).

needs_no_process_while_closed(Config) ->
    made(Config, #{}),
    ok = sys:suspend(?BREAKERS),
    [calls(Config, [ok]) || _ <- lists:seq(1, 1000)],
    ok = sys:resume(?BREAKERS),
    ?assertMatch({ok, #{calls := 100, failed := 0}}, ?BREAKERS:info(key(Config))).

opens_and_refuses_without_a_process(Config) ->
    made(Config, #{min_calls => 4, open_ms => 600000, open_max_ms => 600000}),
    calls(Config, [ok, ok, failed]),
    ?assertMatch({ok, #{calls := 3, state := closed}}, ?BREAKERS:info(key(Config))),
    calls(Config, [failed]),
    state(open, Config),
    ok = sys:suspend(?BREAKERS),
    ?assertEqual({error, breaker_open}, ?BREAKERS:ask(key(Config))),
    ok = sys:resume(?BREAKERS),
    {ok, #{retry_in_ms := Ms}} = ?BREAKERS:info(key(Config)),
    ?assert(Ms > 0).

a_success_may_be_what_was_lacking(Config) ->
    made(Config, #{min_calls => 4, open_ms => 600000, open_max_ms => 600000}),
    calls(Config, [failed, failed, failed]),
    ?assertMatch({ok, #{calls := 3, state := closed}}, ?BREAKERS:info(key(Config))),
    calls(Config, [ok]),
    state(open, Config).

probes_are_limited(Config) ->
    half_open(Config, #{probes => 2}),
    {ok, _} = ?BREAKERS:ask(key(Config)),
    ?assertEqual(half_open, ?BREAKERS:state(key(Config))),
    {ok, Second} = ?BREAKERS:ask(key(Config)),
    ?assertEqual({error, breaker_open}, ?BREAKERS:ask(key(Config))),
    ok = ?BREAKERS:done(Second, cancelled),
    {ok, _} = ?BREAKERS:ask(key(Config)),
    ?assertEqual({error, breaker_open}, ?BREAKERS:ask(key(Config))).

closes_after_probes(Config) ->
    half_open(Config, #{probes => 2}),
    calls(Config, [ok, ok]),
    state(closed, Config),
    ?assertMatch({ok, #{calls := 0}}, ?BREAKERS:info(key(Config))).

opens_again(Config) ->
    half_open(Config, #{probes => 2}),
    calls(Config, [failed]),
    state(open, Config),
    ?assertMatch({ok, #{openings := 2}}, ?BREAKERS:info(key(Config))).

a_dead_prober_gives_its_probe_back(Config) ->
    half_open(Config, #{probes => 1}),
    {_, Monitor} = spawn_monitor(fun() -> {ok, _} = ?BREAKERS:ask(key(Config)) end),
    ?assertEqual(normal, reason(Monitor)),
    until(fun() -> element(1, ?BREAKERS:ask(key(Config))) =:= ok end).

slow_calls_open_it(Config) ->
    made(Config, #{min_calls => 2, slow_ms => 1, open_ms => 600000, open_max_ms => 600000}),
    Slow = fun() ->
        {ok, Ticket} = ?BREAKERS:ask(key(Config)),
        receive
        after 5 -> ?BREAKERS:done(Ticket, ok)
        end
    end,
    [ok, ok] = [Slow(), Slow()],
    state(open, Config).

a_window_of_time(Config) ->
    made(Config, #{window => time, window_ms => 200, min_calls => 1000}),
    calls(Config, [ok, failed, ok]),
    until(fun() ->
        {ok, #{calls := Calls}} = ?BREAKERS:info(key(Config)),
        Calls =:= 0
    end).

late_ends_count_for_nothing(Config) ->
    made(Config, #{min_calls => 2, open_ms => 600000, open_max_ms => 600000}),
    {ok, Late} = ?BREAKERS:ask(key(Config)),
    calls(Config, [failed, failed]),
    state(open, Config),
    ok = ?BREAKERS:force(key(Config), closed),
    [ok = ?BREAKERS:done(Late, Outcome) || Outcome <- [failed, ok]],
    ?assertMatch({ok, #{calls := 0, state := closed}}, ?BREAKERS:info(key(Config))).

runs_calls(Config) ->
    made(Config, #{min_calls => 3, open_ms => 600000, open_max_ms => 600000}),
    ?assertEqual({ok, 1}, ?BREAKERS:run(key(Config), fun() -> {ok, 1} end)),
    ?assertEqual({error, no}, ?BREAKERS:run(key(Config), fun() -> {error, no} end)),
    ?assertError(bug, ?BREAKERS:run(key(Config), fun() -> error(bug) end)),
    state(open, Config),
    ?assertEqual({error, breaker_open}, ?BREAKERS:run(key(Config), fun() -> error(bug) end)).

by_command(Config) ->
    ?assertEqual({error, unknown}, ?BREAKERS:force(key(Config), open)),
    made(Config, #{}),
    ok = ?BREAKERS:force(key(Config), open),
    ?assertEqual({error, breaker_open}, ?BREAKERS:ask(key(Config))),
    ok = ?BREAKERS:force(key(Config), closed),
    calls(Config, [ok]).

tells_subscribers(Config) ->
    Key = key(Config),
    made(Config, #{probes => 1, open_ms => 1}),
    ok = ?BREAKERS:subscribe(Key),
    ok = ?BREAKERS:subscribe(Key),
    ok = ?BREAKERS:force(Key, open),
    until(fun() ->
        case ?BREAKERS:ask(Key) of
            {ok, Ticket} -> ?BREAKERS:done(Ticket, ok) =:= ok;
            {error, breaker_open} -> false
        end
    end),
    Expected = [{closed, open}, {open, half_open}, {half_open, closed}],
    [
        receive
            {erlmcp_native, {breaker, Key}, {state, F, T}} -> ?assertEqual({From, To}, {F, T})
        after ?WAIT -> ct:fail({From, To})
        end
     || {From, To} <- Expected
    ],
    ok = ?BREAKERS:unsubscribe(Key),
    ok = ?BREAKERS:force(Key, open),
    receive
        {erlmcp_native, {breaker, Key}, Event} -> ct:fail(Event)
    after 0 -> ok
    end.

counts(Config) ->
    Value = fun(Name) ->
        #{Name := #{value := N}} = erlmcp_native:overview(),
        N
    end,
    Names = [breaker_opened, breaker_closed, breaker_rejected],
    Before = [Value(Name) || Name <- Names],
    made(Config, #{}),
    ok = ?BREAKERS:force(key(Config), open),
    {error, breaker_open} = ?BREAKERS:ask(key(Config)),
    ok = ?BREAKERS:force(key(Config), closed),
    ?assertEqual([N + 1 || N <- Before], [Value(Name) || Name <- Names]),
    #{breakers := #{series := Series}} = erlmcp_native:overview(),
    ?assertMatch([_], [N || {#{state := closed}, N} <- Series, N > 0]).

survives_its_process(Config) ->
    made(Config, #{}),
    ok = ?BREAKERS:force(key(Config), open),
    Pid = whereis(?BREAKERS),
    exit(Pid, kill),
    until(fun() -> not lists:member(whereis(?BREAKERS), [Pid, undefined]) end),
    %% What it knew is gone; a caller that has the options makes it again.
    {ok, Ticket} = ?BREAKERS:ask(key(Config), #{}),
    ok = ?BREAKERS:done(Ticket, ok),
    ?assertEqual(closed, ?BREAKERS:state(key(Config))).

goes_with_a_process(Config) ->
    Key = key(Config),
    Pid = spawn(fun() ->
        receive
            stop -> ok
        end
    end),
    ok = ?BREAKERS:ensure(Key, #{}, Pid),
    ?assertEqual(closed, ?BREAKERS:state(Key)),
    Pid ! stop,
    until(fun() -> ?BREAKERS:state(Key) =:= unknown end).

of_an_http_client(_) ->
    {Listen, Port} = test_socket:listen(),
    {ok, Proxy} = erlmcp_native_fault_proxy:start(#{port => Port}),
    ok = erlmcp_native_fault_proxy:set(Proxy, #{mode => refuse}),
    #{port := At} = erlmcp_native_fault_proxy:endpoint(Proxy),
    Url = "http://127.0.0.1:" ++ integer_to_list(At) ++ "/mcp",
    Breaker = #{min_calls => 2, open_ms => 600000, open_max_ms => 600000},
    {ok, Client} = erlmcp_native_http_client:start_link(Url, #{
        path => beam, retries => 0, breaker => Breaker
    }),
    Send = fun(Id) ->
        Message = #{jsonrpc => <<"2.0">>, id => Id, method => <<"initialize">>, params => #{}},
        erlmcp_native_http_client:send(Client, erlmcp_native_json:encode(Message))
    end,
    Failed = fun(Id) ->
        ok = Send(Id),
        receive
            {erlmcp_native, Client, {failed, Id, Reason}} -> Reason
        after ?WAIT -> ct:fail(no_failure)
        end
    end,
    ?assertEqual([refused, refused], [Failed(Id) || Id <- [1, 2]]),
    [Key] = [Key || {http, #{port := P}} = Key <- maps:keys(?BREAKERS:all()), P =:= At],
    {ok, #{state := open}} = ?BREAKERS:info(Key),
    ?assertEqual({error, breaker_open}, Send(3)),
    ok = ?BREAKERS:force(Key, closed),
    ?assertEqual(refused, Failed(4)),
    ok = ?BREAKERS:delete(Key),
    ok = erlmcp_native_http_client:close(Client),
    ok = erlmcp_native_fault_proxy:stop(Proxy),
    ok = gen_tcp:close(Listen),
    ?assertEqual(
        {error, {option, breaker, #{probes => 0}}},
        erlmcp_native_http_client:start_link(Url, #{breaker => #{probes => 0}})
    ).

options(Config) ->
    Refused = fun(Options) -> ?BREAKERS:ensure(key(Config), Options) end,
    ?assertEqual({error, {option, probes, 0}}, Refused(#{probes => 0})),
    ?assertEqual({error, {option, what, 1}}, Refused(#{what => 1})),
    ?assertEqual({error, {option, failure_rate, 1.5}}, Refused(#{failure_rate => 1.5})),
    ?assertEqual({error, {option, min_calls, 101}}, Refused(#{min_calls => 101})),
    ?assertEqual({error, {option, breaker, []}}, Refused([])).

key(Config) -> proplists:get_value(key, Config).

made(Config, Options) -> ok = ?BREAKERS:ensure(key(Config), Options).

calls(Config, Outcomes) ->
    [
        begin
            {ok, Ticket} = ?BREAKERS:ask(key(Config)),
            ok = ?BREAKERS:done(Ticket, Outcome)
        end
     || Outcome <- Outcomes
    ].

%% What was told before is done before.
state(State, Config) ->
    {ok, #{state := Now}} = ?BREAKERS:info(key(Config)),
    ?assertEqual(State, Now),
    ?assertEqual(State, ?BREAKERS:state(key(Config))).

%% Open for no more than a millisecond at first.
half_open(Config, Options) ->
    made(Config, Options#{open_ms => 1, open_max_ms => 600000}),
    ok = ?BREAKERS:force(key(Config), open),
    receive
    after 5 -> ok
    end.
