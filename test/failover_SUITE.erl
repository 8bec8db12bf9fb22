%% Several endpoints seen as one, with real faults, on every path.
-module(failover_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [reason/1, until/1]).

-define(WAIT, 60000).
-define(FAILOVER, erlmcp_native_failover).
-define(PROXY, erlmcp_native_fault_proxy).

all() -> [{group, nif}, {group, port}, {group, beam}, options].

groups() ->
    Cases = [
        answers,
        lost_unless_safe,
        unsent_moves_silently,
        planned_switches_fail_nothing,
        late_answers_are_dropped,
        silence_is_found_by_pings,
        a_breaker_switches,
        waits_for_the_first,
        back_to_the_preferred,
        messages_of_servers,
        too_many_wait,
        cancels,
        the_next_transport,
        a_killed_process,
        http_cut_off,
        http_with_little_room,
        ends_with_its_owner,
        stopping_ends_requests,
        one_outcome_each_whatever_fails
    ],
    [{Path, [], Cases} || Path <- [nif, port, beam]].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> [{path, Path} | Config].

end_per_group(_, _) -> ok.

init_per_testcase(options, Config) ->
    Config;
init_per_testcase(_, Config) ->
    Servers = [{Name, failover_server:start(Name)} || Name <- [a, b]],
    Proxies = [
        begin
            {ok, Proxy} = ?PROXY:start(#{port => failover_server:port(Pid)}),
            {Name, Proxy}
        end
     || {Name, Pid} <- Servers
    ],
    [{servers, Servers}, {proxies, Proxies} | Config].

end_per_testcase(options, _) ->
    ok;
end_per_testcase(_, Config) ->
    [?PROXY:stop(Proxy) || {_, Proxy} <- proplists:get_value(proxies, Config)],
    [failover_server:stop(Pid) || {_, Pid} <- proplists:get_value(servers, Config)].

answers(Config) ->
    Pid = started(Config, #{}),
    {ok, _} = all_ready(Pid),
    ?assertMatch(
        {ok, #{<<"by">> := <<"a">>, <<"params">> := #{<<"x">> := 1}}},
        outcome(Pid, request(Pid, <<"echo">>, #{x => 1}, #{}))
    ),
    ?assertMatch(
        {error, {rpc, #{<<"code">> := -32601}}}, outcome(Pid, request(Pid, <<"error">>, #{}, #{}))
    ),
    Raw = #{<<"method">> => <<"echo">>, <<"params">> => #{}, <<"id">> => <<"mine">>},
    ?assertMatch({ok, #{<<"by">> := <<"a">>}}, ?FAILOVER:call(Pid, Raw)),
    ?assertMatch({ok, #{active := a, ready := [a, b]}}, all_ready(Pid)),
    stop(Pid).

lost_unless_safe(Config) ->
    Pid = ready(Config, #{}),
    Lost = [request(Pid, <<"hold">>, #{n => N}, #{}) || N <- [1, 2, 3]],
    Safe = [request(Pid, <<"hold">>, #{n => N}, #{safe => true}) || N <- [4, 5]],
    held(a, 5),
    cut(a, reset, Config),
    [
        ?assertMatch({error, {switched, a, b, reset}}, outcome(Pid, Id))
     || Id <- Lost
    ],
    held(b, 2),
    2 = failover_server:release(server(b, Config)),
    [?assertMatch({ok, #{<<"by">> := <<"b">>}}, outcome(Pid, Id)) || Id <- Safe],
    no_outcome(Pid),
    stop(Pid).

unsent_moves_silently(Config) ->
    Pid = ready(Config, #{max_in_flight => 1}),
    First = request(Pid, <<"hold">>, #{}, #{}),
    Others = [request(Pid, <<"echo">>, #{n => N}, #{}) || N <- lists:seq(1, 5)],
    held(a, 1),
    cut(a, shutdown, Config),
    ?assertMatch({error, {switched, a, b, closed}}, outcome(Pid, First)),
    [?assertMatch({ok, #{<<"by">> := <<"b">>}}, outcome(Pid, Id)) || Id <- Others],
    stop(Pid).

planned_switches_fail_nothing(Config) ->
    Pid = ready(Config, #{}),
    Ids = [
        begin
            _ = N rem 50 =:= 0 andalso (ok = ?FAILOVER:switch(Pid, next)),
            request(Pid, <<"echo">>, #{n => N}, #{})
        end
     || N <- lists:seq(1, 1000)
    ],
    By = [
        begin
            {ok, #{<<"by">> := Name}} = outcome(Pid, Id),
            Name
        end
     || Id <- Ids
    ],
    ?assertEqual([<<"a">>, <<"b">>], lists:usort(By)),
    ?assertMatch({ok, #{late := 0, in_flight := 0, waiting := 0}}, ?FAILOVER:info(Pid)),
    ?assertEqual({error, not_ready}, ?FAILOVER:switch(Pid, nobody)),
    stop(Pid).

late_answers_are_dropped(Config) ->
    Pid = ready(Config, #{}),
    Id = request(Pid, <<"hold">>, #{}, #{timeout_ms => 20}),
    ?assertEqual({error, timeout}, outcome(Pid, Id)),
    held(a, 1),
    receive
        {a, heard, #{<<"method">> := <<"notifications/cancelled">>}} -> ok
    after ?WAIT -> ct:fail(not_told)
    end,
    1 = failover_server:release(server(a, Config)),
    until(fun() -> {ok, #{late := Late}} = ?FAILOVER:info(Pid), Late =:= 1 end),
    no_outcome(Pid),
    stop(Pid).

silence_is_found_by_pings(Config) ->
    Pid = ready(Config, #{ping_ms => 100, ping_timeout_ms => 1000}),
    Id = request(Pid, <<"hold">>, #{}, #{timeout_ms => infinity}),
    held(a, 1),
    ok = ?PROXY:set(proxy(a, Config), #{up => drop, down => drop}),
    %% On a machine that stands still the other one is not heard either.
    ?assertMatch({error, {switched, a, _, timeout}}, outcome(Pid, Id)),
    ok = ?PROXY:clear(proxy(a, Config)),
    {ok, _} = all_ready(Pid),
    stop(Pid).

a_breaker_switches(Config) ->
    Breaker = #{min_calls => 3, open_ms => 50, open_max_ms => 100},
    Pid = ready(Config, #{breaker => Breaker, failback => true}),
    [request(Pid, <<"hold">>, #{}, #{timeout_ms => 10}) || _ <- lists:seq(1, 3)],
    await_switch(Pid, a, b, breaker_open),
    %% Pings prove that it is well.
    await_switch(Pid, b, a, failback),
    ?assertMatch({ok, #{<<"by">> := <<"a">>}}, ?FAILOVER:call(Pid, echo())),
    stop(Pid).

waits_for_the_first(Config) ->
    [ok = ?PROXY:set(proxy(Name, Config), #{mode => refuse}) || Name <- [a, b]],
    Pid = started(Config, #{}),
    Id = request(Pid, <<"echo">>, #{}, #{}),
    ?assertMatch({ok, #{active := none, waiting := 1}}, ?FAILOVER:info(Pid)),
    ok = ?PROXY:clear(proxy(b, Config)),
    ?assertMatch({ok, #{<<"by">> := <<"b">>}}, outcome(Pid, Id)),
    stop(Pid).

back_to_the_preferred(Config) ->
    Pid = ready(Config, #{failback => true}),
    cut(a, reset, Config),
    await_switch(Pid, a, b, reset),
    await_switch(Pid, b, a, failback),
    stop(Pid).

messages_of_servers(Config) ->
    Pid = ready(Config, #{}),
    Question = #{jsonrpc => <<"2.0">>, id => 7, method => <<"roots/list">>},
    1 = failover_server:say(server(a, Config), Question),
    receive
        {erlmcp_native, Pid, {message, a, #{<<"id">> := 7, <<"method">> := <<"roots/list">>}}} -> ok
    after ?WAIT -> ct:fail(no_question)
    end,
    ok = ?FAILOVER:send(Pid, a, #{id => 7, result => #{roots => []}}),
    receive
        {a, heard, #{<<"id">> := 7, <<"result">> := #{<<"roots">> := []}}} -> ok
    after ?WAIT -> ct:fail(no_answer)
    end,
    ok = ?FAILOVER:notify(Pid, #{method => <<"notifications/roots/list_changed">>}),
    receive
        {a, heard, #{<<"method">> := <<"notifications/roots/list_changed">>}} -> ok
    after ?WAIT -> ct:fail(not_notified)
    end,
    stop(Pid).

too_many_wait(Config) ->
    Pid = ready(Config, #{max_in_flight => 1, max_queue => 2}),
    [_ | _] = Ids = [request(Pid, <<"hold">>, #{}, #{}) || _ <- [1, 2, 3]],
    ?assertEqual({error, busy}, ?FAILOVER:request(Pid, echo())),
    held(a, 1),
    [ok = ?FAILOVER:cancel(Pid, Id) || Id <- Ids],
    stop(Pid).

cancels(Config) ->
    Pid = ready(Config, #{}),
    Id = request(Pid, <<"hold">>, #{}, #{}),
    held(a, 1),
    ok = ?FAILOVER:cancel(Pid, Id),
    ?assertEqual({error, cancelled}, outcome(Pid, Id)),
    ?assertEqual({error, unknown}, ?FAILOVER:cancel(Pid, Id)),
    stop(Pid).

%% TCP, HTTP and a child process are one.
the_next_transport(Config) ->
    {ok, Http} = failover_server:start_http(h, path(Config)),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Http),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    Options = #{options => #{path => path(Config)}},
    Endpoints = [
        Options#{name => a, to => ?PROXY:endpoint(proxy(a, Config))},
        Options#{name => h, to => Url},
        Options#{name => c, to => child()}
    ],
    {ok, Pid} = ?FAILOVER:start_link(Endpoints, #{timeout_ms => 60000}),
    until(fun() -> {ok, #{ready := R}} = ?FAILOVER:info(Pid), R =:= [a, h, c] end),
    ok = ?FAILOVER:switch(Pid, a),
    ?assertMatch({ok, #{<<"by">> := <<"a">>}}, ?FAILOVER:call(Pid, echo())),
    ok = ?FAILOVER:switch(Pid, next),
    ?assertMatch({ok, #{<<"by">> := <<"h">>}}, ?FAILOVER:call(Pid, echo())),
    ok = ?FAILOVER:switch(Pid, next),
    ?assertMatch({ok, #{<<"by">> := <<"c">>}}, ?FAILOVER:call(Pid, echo())),
    ok = ?FAILOVER:switch(Pid, next),
    ?assertMatch({ok, #{<<"by">> := <<"a">>}}, ?FAILOVER:call(Pid, echo())),
    stop(Pid),
    ok = erlmcp_native_http:close(Http).

a_killed_process(Config) ->
    Options = #{options => #{path => path(Config)}},
    Endpoints = [
        Options#{name => c, to => child()},
        Options#{name => a, to => ?PROXY:endpoint(proxy(a, Config))}
    ],
    {ok, Pid} = ?FAILOVER:start_link(Endpoints, #{}),
    until(fun() -> {ok, #{ready := R}} = ?FAILOVER:info(Pid), R =:= [c, a] end),
    ok = ?FAILOVER:switch(Pid, c),
    {ok, #{endpoints := #{c := #{pid := Conn}}}} = ?FAILOVER:info(Pid),
    {ok, #{socket := #{os_pid := OsPid}}} = erlmcp_native:info(Conn),
    _ = os:cmd("kill -9 " ++ integer_to_list(OsPid)),
    %% The path `beam' knows the status of a shell.
    Reason =
        case path(Config) of
            beam -> {exit_status, 137};
            _ -> {signal, sigkill}
        end,
    await_switch(Pid, c, a, Reason),
    ?assertMatch({ok, #{<<"by">> := <<"a">>}}, ?FAILOVER:call(Pid, echo())),
    %% It is started again, and stands by.
    until(fun() -> {ok, #{ready := R}} = ?FAILOVER:info(Pid), R =:= [c, a] end),
    stop(Pid).

http_cut_off(Config) ->
    {ok, Http} = failover_server:start_http(h, path(Config)),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Http),
    {ok, Proxy} = ?PROXY:start(#{port => Port}),
    #{port := ProxyPort} = ?PROXY:endpoint(Proxy),
    Url = "http://127.0.0.1:" ++ integer_to_list(ProxyPort) ++ "/mcp",
    Options = #{options => #{path => path(Config)}},
    Endpoints = [
        Options#{name => h, to => Url},
        Options#{name => a, to => ?PROXY:endpoint(proxy(a, Config))}
    ],
    {ok, Pid} = ?FAILOVER:start_link(Endpoints, #{}),
    until(fun() -> {ok, #{ready := R}} = ?FAILOVER:info(Pid), R =:= [h, a] end),
    ok = ?FAILOVER:switch(Pid, h),
    Unsafe = request(Pid, <<"hold">>, #{}, #{}),
    held(h, 1),
    ok = ?PROXY:set(Proxy, #{mode => refuse}),
    {ok, _} = ?PROXY:cut(Proxy, reset),
    ?assertMatch({error, {switched, h, a, _}}, outcome(Pid, Unsafe)),
    ?assertMatch({ok, #{<<"by">> := <<"a">>}}, ?FAILOVER:call(Pid, echo())),
    ok = ?PROXY:clear(Proxy),
    until(fun() -> {ok, #{ready := R}} = ?FAILOVER:info(Pid), R =:= [h, a] end),
    %% Refused requests move without a word.
    ok = ?FAILOVER:switch(Pid, h),
    ok = ?PROXY:set(Proxy, #{mode => refuse}),
    {ok, _} = ?PROXY:cut(Proxy, shutdown),
    until(fun() -> maps:get(connections, ?PROXY:info(Proxy)) =:= 0 end),
    ?assertMatch({ok, #{<<"by">> := _}}, ?FAILOVER:call(Pid, echo(), #{safe => true})),
    stop(Pid),
    ok = ?PROXY:stop(Proxy),
    ok = erlmcp_native_http:close(Http).

%% An HTTP client that takes fewer requests than there are says so, and takes the others later.
http_with_little_room(Config) ->
    {ok, Http} = failover_server:start_http(h, path(Config)),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Http),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    Options = #{path => path(Config), max_pending => 3},
    {ok, Pid} = ?FAILOVER:start_link([#{name => h, to => Url, options => Options}], #{}),
    Ids = [request(Pid, <<"echo">>, #{n => N}, #{}) || N <- lists:seq(1, 50)],
    [?assertMatch({ok, #{<<"by">> := <<"h">>}}, outcome(Pid, Id)) || Id <- Ids],
    stop(Pid),
    ok = erlmcp_native_http:close(Http).

ends_with_its_owner(Config) ->
    Test = self(),
    Owner = spawn(fun() ->
        {ok, Pid} = ?FAILOVER:start(endpoints(Config), #{}),
        Test ! {failover, Pid},
        receive
            stop -> ok
        end
    end),
    Pid = receive {failover, Started} -> Started after ?WAIT -> ct:fail(not_started) end,
    Monitor = monitor(process, Pid),
    Owner ! stop,
    ?assertEqual(normal, reason(Monitor)),
    until(fun() -> [1 || {erlmcp_native_failover, P, _} <- breaker_keys(), P =:= Pid] =:= [] end).


breaker_keys() -> [Key || Key <- maps:keys(erlmcp_native_breakers:all()), is_tuple(Key)].

stopping_ends_requests(Config) ->
    Pid = ready(Config, #{}),
    Id = request(Pid, <<"hold">>, #{}, #{}),
    held(a, 1),
    stop(Pid),
    ?assertEqual({error, closed}, outcome(Pid, Id)),
    ?assertEqual({error, closed}, ?FAILOVER:request(Pid, echo())).

%% Under load, while connections are cut and servers are away.
one_outcome_each_whatever_fails(Config) ->
    Pid = ready(Config, #{max_in_flight => 50, retries => 1000}),
    Requests = [
        begin
            _ = N rem 100 =:= 0 andalso trouble(N div 100, Config),
            Safe = N rem 2 =:= 0,
            {request(Pid, <<"count">>, #{n => N}, #{safe => Safe, timeout_ms => 50000}), N, Safe}
        end
     || N <- lists:seq(1, 2000)
    ],
    [ok = ?PROXY:clear(proxy(Name, Config)) || Name <- [a, b]],
    Outcomes = [{N, Safe, outcome(Pid, Id)} || {Id, N, Safe} <- Requests],
    no_outcome(Pid),
    %% What is safe has been answered, and nothing else been done twice.
    ?assertEqual([], [O || {_, true, Outcome} = O <- Outcomes, element(1, Outcome) =/= ok]),
    Failed = [Outcome || {_, false, {error, _} = Outcome} <- Outcomes],
    ?assertEqual([], [F || F <- Failed, not is_switched(F)]),
    Executed = [failover_server:executed(server(Name, Config)) || Name <- [a, b]],
    Times = fun(N) -> lists:sum([maps:get(N, E, 0) || E <- Executed]) end,
    ?assertEqual([], [N || {N, false, _} <- Outcomes, Times(N) > 1]),
    ?assertEqual([], [N || {N, _, {ok, _}} <- Outcomes, Times(N) < 1]),
    stop(Pid).

is_switched({error, {switched, _, _, _}}) -> true;
is_switched(_) -> false.

trouble(N, Config) ->
    Name = lists:nth(1 + N rem 2, [a, b]),
    Other = lists:nth(1 + (N + 1) rem 2, [a, b]),
    ok = ?PROXY:clear(proxy(Other, Config)),
    Mode = lists:nth(1 + N rem 4, [pass, refuse, reset, shutdown]),
    ok = ?PROXY:set(proxy(Name, Config), #{mode => Mode}),
    cut(Name, lists:nth(1 + N rem 3, [reset, shutdown, reset]), Config).

options(_) ->
    Refused = fun(Endpoints, Options) ->
        {error, {option, Key, Value}} = ?FAILOVER:start_link(Endpoints, Options),
        {Key, Value}
    end,
    One = [#{to => #{port => 1}}],
    ?assertEqual({endpoints, []}, Refused([], #{})),
    ?assertEqual({endpoint, #{}}, Refused([#{}], #{})),
    ?assertMatch({endpoint, _}, Refused(One ++ One, #{})),
    ?assertEqual({port, x}, Refused([#{to => #{port => x}}], #{})),
    ?assertEqual({what, 1}, Refused([#{to => #{port => 1}, options => #{what => 1}}], #{})),
    ?assertEqual({url, "ftp://x"}, Refused([#{to => "ftp://x"}], #{})),
    Owned = [#{to => #{port => 1}, options => #{owner => self()}}],
    ?assertEqual({owner, self()}, Refused(Owned, #{})),
    ?assertEqual({ping_ms, 0}, Refused(One, #{ping_ms => 0})),
    ?assertEqual({breaker, #{probes => 0}}, Refused(One, #{breaker => #{probes => 0}})),
    ?assertEqual({what, 1}, Refused(One, #{what => 1})),
    {ok, Pid} = ?FAILOVER:start_link(One, #{}),
    ?assertEqual({error, invalid_message}, ?FAILOVER:request(Pid, #{params => #{}})),
    ?assertEqual({error, {option, safe, 1}}, ?FAILOVER:request(Pid, echo(), #{safe => 1})),
    stop(Pid).

%% A process that answers everything, with the id last in what it is sent.
child() ->
    Answer = "{\"jsonrpc\":\"2.0\",\"id\":\\1,\"result\":{\"by\":\"c\"}}",
    Expression = "s/.*\"id\":\\(\"[^\"]*\"\\|[0-9][0-9]*\\).*/" ++ Answer ++ "/p",
    #{command => "sed", args => ["-u", "-n", "-e", Expression]}.

path(Config) -> proplists:get_value(path, Config).

server(Name, Config) -> proplists:get_value(Name, proplists:get_value(servers, Config)).

proxy(Name, Config) -> proplists:get_value(Name, proplists:get_value(proxies, Config)).

cut(Name, How, Config) -> {ok, _} = ?PROXY:cut(proxy(Name, Config), How).

endpoints(Config) ->
    [
        #{
            name => Name,
            to => ?PROXY:endpoint(proxy(Name, Config)),
            options => #{path => path(Config)}
        }
     || Name <- [a, b]
    ].

started(Config, Options) ->
    {ok, Pid} = ?FAILOVER:start_link(endpoints(Config), Options),
    Pid.

%% Both endpoints are, and the first is active.
ready(Config, Options) ->
    Pid = started(Config, Options),
    {ok, _} = all_ready(Pid),
    ok = ?FAILOVER:switch(Pid, a),
    until(fun() -> {ok, #{active := Active}} = ?FAILOVER:info(Pid), Active =:= a end),
    Pid.

all_ready(Pid) ->
    until(fun() -> {ok, #{ready := Ready}} = ?FAILOVER:info(Pid), Ready =:= [a, b] end),
    ?FAILOVER:info(Pid).

stop(Pid) -> ok = ?FAILOVER:stop(Pid).

echo() -> #{method => <<"echo">>, params => #{}}.

request(Pid, Method, Params, Options) ->
    {ok, Id} = ?FAILOVER:request(Pid, #{method => Method, params => Params}, Options),
    Id.

outcome(Pid, Id) ->
    receive
        {erlmcp_native, Pid, {outcome, Id, Outcome}} -> Outcome
    after ?WAIT -> ct:fail({no_outcome, Id})
    end.

no_outcome(Pid) ->
    {ok, _} = ?FAILOVER:info(Pid),
    receive
        {erlmcp_native, Pid, {outcome, Id, Outcome}} -> ct:fail({another, Id, Outcome})
    after 0 -> ok
    end.

held(_, 0) ->
    ok;
held(Name, N) ->
    receive
        {Name, held, _} -> held(Name, N - 1)
    after ?WAIT -> ct:fail({not_held, Name})
    end.

await_switch(Pid, From, To, Reason) ->
    receive
        {erlmcp_native, Pid, {switched, From, To, Reason}} -> ok
    after ?WAIT -> ct:fail({no_switch, From, To, Reason})
    end.
