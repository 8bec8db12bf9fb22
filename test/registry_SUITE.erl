%% The registry for nodes without erlmcp: what erlmcp's promises, and what it only should.
-module(registry_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [reason/1]).

-define(WAIT, 5000).

-define(R, erlmcp_native_registry).

all() ->
    [
        registers_and_finds,
        one_process_per_name,
        unregisters,
        binds,
        binds_at_registration,
        routes,
        routes_in_order,
        broadcasts,
        unknown_ids_are_errors,
        logs_as_erlmcps_does,
        counts,
        counters_are_metrics,
        a_large_broadcast,
        forgets_who_ends,
        forgets_every_name_of_a_process,
        registered_by_a_process_that_has_ended,
        takes_a_name_of_who_has_ended,
        ids_that_are_patterns,
        routing_waits_for_nobody,
        takes_erlmcps_where_it_runs,
        nobody_is_registered_where_it_does_not_run,
        survives_garbage
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

end_per_testcase(_, _) ->
    [ok = ?R:unregister_server(Id) || {Id, _} <- ?R:list_servers()],
    [ok = ?R:unregister_transport(Id) || {Id, _} <- ?R:list_transports()],
    ok.

registers_and_finds(_) ->
    Pid = process(),
    ?assertEqual({error, not_found}, ?R:find_server(s)),
    ok = ?R:register_server(s, Pid, #{options => #{}}),
    ok = ?R:register_server(<<"s">>, Pid, #{}),
    ok = ?R:register_transport(t, self(), #{type => tcp}),
    ?assertEqual({ok, {Pid, #{options => #{}}}}, ?R:find_server(s)),
    ?assertEqual({ok, {Pid, #{}}}, ?R:find_server(<<"s">>)),
    ?assertEqual({ok, {self(), #{type => tcp}}}, ?R:find_transport(t)),
    ?assertEqual({error, not_found}, ?R:find_transport(s)),
    ?assertEqual(
        [{s, {Pid, #{options => #{}}}}, {<<"s">>, {Pid, #{}}}], lists:sort(?R:list_servers())
    ),
    ?assertEqual([{t, {self(), #{type => tcp}}}], ?R:list_transports()).

one_process_per_name(_) ->
    ok = ?R:register_server(s, self(), #{}),
    ?assertEqual({error, already_registered}, ?R:register_server(s, process(), #{})),
    ok = ?R:register_transport(s, self(), #{}),
    ?assertEqual({error, already_registered}, ?R:register_transport(s, self(), #{})),
    ?assertEqual({ok, {self(), #{}}}, ?R:find_server(s)).

unregisters(_) ->
    ok = ?R:register_server(s, self(), #{}),
    ok = ?R:register_transport(t, self(), #{server_id => s}),
    ok = ?R:unregister_server(s),
    ok = ?R:unregister_server(s),
    ?assertEqual({error, not_found}, ?R:find_server(s)),
    ?assertEqual({error, not_found}, ?R:get_server_for_transport(t)),
    ok = ?R:unregister_transport(t),
    ok = ?R:unregister_transport(t),
    ?assertEqual([], ?R:list_transports()),
    ok = ?R:register_server(s, self(), #{}).

binds(_) ->
    ok = ?R:register_transport(t, self(), #{}),
    ?assertEqual({error, server_not_found}, ?R:bind_transport_to_server(t, s)),
    ok = ?R:register_server(s, self(), #{}),
    ?assertEqual({error, transport_not_found}, ?R:bind_transport_to_server(u, s)),
    ?assertEqual({error, not_found}, ?R:get_server_for_transport(t)),
    ok = ?R:bind_transport_to_server(t, s),
    ?assertEqual({ok, s}, ?R:get_server_for_transport(t)),
    ok = ?R:unbind_transport(t),
    ok = ?R:unbind_transport(t),
    ?assertEqual({error, not_found}, ?R:get_server_for_transport(t)).

binds_at_registration(_) ->
    ok = ?R:register_transport(t, self(), #{server_id => later}),
    ?assertEqual({ok, later}, ?R:get_server_for_transport(t)).

routes(_) ->
    ok = ?R:register_server(s, self(), #{}),
    ok = ?R:register_transport(t, self(), #{}),
    ok = ?R:route_to_server(s, t, <<"in">>),
    ok = ?R:route_to_transport(t, s, <<"out">>),
    ?assertEqual({mcp_message, t, <<"in">>}, next()),
    ?assertEqual({mcp_response, s, <<"out">>}, next()).

routes_in_order(_) ->
    ok = ?R:register_server(s, self(), #{}),
    Numbers = lists:seq(1, 1000),
    [ok = ?R:route_to_server(s, t, N) || N <- Numbers],
    [?assertEqual({mcp_message, t, N}, next()) || N <- Numbers].

%% To erlmcp's own registry no transport is called `broadcast', and every change notification lost.
broadcasts(_) ->
    Test = self(),
    Transports = [process(fun(Message) -> Test ! {Id, Message} end) || Id <- [a, b, c]],
    ok = ?R:register_server(s, self(), #{}),
    ok = ?R:register_server(other, self(), #{}),
    [
        ok = ?R:register_transport(Id, Pid, #{server_id => Server})
     || {Id, Pid, Server} <- lists:zip3([a, b, c], Transports, [s, s, other])
    ],
    ok = ?R:route_to_transport(broadcast, s, <<"changed">>),
    Got = lists:sort([next(), next()]),
    ?assertEqual([{Id, {mcp_response, s, <<"changed">>}} || Id <- [a, b]], Got),
    ok = ?R:route_to_transport(c, other, <<"direct">>),
    ?assertEqual({c, {mcp_response, other, <<"direct">>}}, next()).

unknown_ids_are_errors(_) ->
    ?assertEqual({error, server_not_found}, ?R:route_to_server(nobody, t, <<"m">>)),
    ?assertEqual({error, transport_not_found}, ?R:route_to_transport(nothing, s, <<"m">>)),
    ?assertEqual(ok, ?R:route_to_transport(broadcast, s, <<"m">>)),
    ok = ?R:register_server(s, self(), #{}),
    ok = ?R:unregister_server(s),
    ?assertEqual({error, server_not_found}, ?R:route_to_server(s, t, <<"m">>)),
    Pid = process(),
    ok = ?R:register_transport(t, Pid, #{}),
    ok = ?R:route_to_transport(t, s, <<"m">>),
    stop_noticed(Pid),
    ?assertEqual({error, transport_not_found}, ?R:route_to_transport(t, s, <<"m">>)).

%% Word for word: people's alerts look for these lines.
logs_as_erlmcps_does(_) ->
    Level = maps:get(level, logger:get_primary_config()),
    ok = logger:set_primary_config(level, info),
    ok = logger:add_handler(?MODULE, ?MODULE, #{test => self()}),
    try
        [Server, Transport] = Pids = [process(), process()],
        [S, T] = [pid_to_list(Pid) || Pid <- Pids],
        ok = ?R:register_server(s, Server, #{}),
        logged(info, "Registered server s with pid " ++ S),
        {error, already_registered} = ?R:register_server(s, self(), #{}),
        logged(warning, "Server s already registered with pid " ++ S),
        ok = ?R:register_transport(<<"t">>, Transport, #{}),
        logged(info, "Registered transport <<\"t\">> with pid " ++ T),
        {error, already_registered} = ?R:register_transport(<<"t">>, self(), #{}),
        logged(warning, "Transport <<\"t\">> already registered with pid " ++ T),
        ok = ?R:bind_transport_to_server(<<"t">>, s),
        logged(info, "Bound transport <<\"t\">> to server s"),
        {error, server_not_found} = ?R:route_to_server(nobody, t, <<"m">>),
        logged(warning, "Cannot route to server nobody: not found"),
        {error, transport_not_found} = ?R:route_to_transport(nothing, s, <<"m">>),
        logged(warning, "Cannot route to transport nothing: not found"),
        exit(Server, kill),
        logged(warning, "Server s (pid " ++ S ++ ") died: killed"),
        ok = ?R:unregister_transport(<<"t">>),
        logged(info, "Unregistered transport <<\"t\">>"),
        ok = ?R:register_transport(u, Transport, #{}),
        logged(info, "Registered transport u with pid " ++ T),
        stop(Transport),
        logged(warning, "Transport u (pid " ++ T ++ ") died: normal"),
        ok = ?R:register_server(s, self(), #{}),
        logged(info, "Registered server s with pid " ++ pid_to_list(self())),
        ok = ?R:unregister_server(s),
        logged(info, "Unregistered server s")
    after
        ok = logger:remove_handler(?MODULE),
        logger:set_primary_config(level, Level)
    end.

counts(_) ->
    Before = ?R:counters(),
    ok = ?R:register_server(s, process(), #{}),
    [ok = ?R:register_transport(Id, process(), #{server_id => s}) || Id <- [a, b, c]],
    [ok = ?R:route_to_server(s, a, N) || N <- lists:seq(1, 5)],
    [ok = ?R:route_to_transport(Id, s, m) || Id <- [a, b]],
    ok = ?R:route_to_transport(broadcast, s, m),
    ok = ?R:route_to_transport(broadcast, nobody, m),
    {error, _} = ?R:route_to_server(nobody, a, m),
    {error, _} = ?R:route_to_transport(nobody, s, m),
    After = ?R:counters(),
    Counted = maps:map(fun(Name, Value) -> Value - maps:get(Name, Before) end, After),
    ?assertEqual(
        #{
            routed_to_servers => 5,
            routed_to_transports => 2,
            broadcast_deliveries => 3,
            not_routed => 2
        },
        Counted
    ).

counters_are_metrics(_) ->
    {error, _} = ?R:route_to_server(nobody, a, m),
    #{not_routed := Count} = ?R:counters(),
    ?assertMatch(
        #{registry_not_routed := #{kind := counter, value := Count, help := <<_/binary>>}},
        erlmcp_native_metrics:overview(registry)
    ).

a_large_broadcast(_) ->
    Numbers = lists:seq(1, 1000),
    [
        ok = ?R:register_transport(integer_to_binary(N), self(), #{server_id => N rem 10})
     || N <- Numbers
    ],
    ok = ?R:route_to_transport(broadcast, 7, m),
    [?assertEqual({mcp_response, 7, m}, next()) || N <- Numbers, N rem 10 =:= 7],
    nothing_received().

forgets_who_ends(_) ->
    Server = process(),
    Transport = process(),
    ok = ?R:register_server(s, Server, #{}),
    ok = ?R:register_transport(t, Transport, #{server_id => s}),
    stop_noticed(Server),
    ?assertEqual({error, not_found}, ?R:find_server(s)),
    ?assertEqual({error, not_found}, ?R:get_server_for_transport(t)),
    stop_noticed(Transport),
    ?assertEqual({error, not_found}, ?R:find_transport(t)),
    ok = ?R:register_server(s, self(), #{}).

forgets_every_name_of_a_process(_) ->
    Pid = process(),
    ok = ?R:register_server(a, Pid, #{}),
    ok = ?R:register_server(b, Pid, #{}),
    ok = ?R:register_transport(c, Pid, #{}),
    ok = ?R:register_server(mine, self(), #{}),
    %% Giving up one name leaves the watch for the others.
    ok = ?R:unregister_server(a),
    stop_noticed(Pid),
    ?assertEqual([mine], [Id || {Id, _} <- ?R:list_servers()]),
    ?assertEqual([], ?R:list_transports()).

registered_by_a_process_that_has_ended(_) ->
    Pid = process(),
    stop(Pid),
    ok = ?R:register_server(s, Pid, #{}),
    settle(),
    ?assertEqual({error, not_found}, ?R:find_server(s)).

%% With a registry that has not noticed yet: this module, see below.
takes_a_name_of_who_has_ended(_) ->
    Live = process(),
    Ended = process(),
    exit(Ended, kill),
    _ = [put(Id, {Pid, #{}}) || {Id, Pid} <- [{live, Live}, {ended, Ended}, {own, self()}]],
    ?assertEqual({error, already_registered}, ?R:enter(?MODULE, live, #{})),
    ?assertEqual(ok, ?R:enter(?MODULE, ended, #{type => tcp})),
    ?assertEqual({self(), #{type => tcp}}, get(ended)),
    ?assertEqual(ok, ?R:enter(?MODULE, own, #{})),
    ?assertEqual({error, {registry, noproc}}, ?R:enter(?MODULE, unreachable, #{})),
    ?assertEqual(ok, ?R:leave(?MODULE, unreachable)).

ids_that_are_patterns(_) ->
    ok = ?R:register_server('_', self(), #{}),
    ok = ?R:register_server(s, self(), #{}),
    ok = ?R:register_transport('$1', self(), #{server_id => s}),
    ok = ?R:unregister_server('_'),
    ?assertEqual({ok, s}, ?R:get_server_for_transport('$1')),
    ok = ?R:route_to_transport(broadcast, '_', no),
    ok = ?R:route_to_transport(broadcast, s, yes),
    ?assertEqual({mcp_response, s, yes}, next()).

%% Neither a lookup nor a message passes through the registry's process.
routing_waits_for_nobody(_) ->
    ok = ?R:register_server(s, self(), #{}),
    ok = sys:suspend(?R),
    try
        ?assertMatch({ok, _}, ?R:find_server(s)),
        ok = ?R:route_to_server(s, t, <<"m">>),
        ?assertEqual({mcp_message, t, <<"m">>}, next())
    after
        sys:resume(?R)
    end.

takes_erlmcps_where_it_runs(_) ->
    ?assertEqual(?R, ?R:module()),
    Pid = process(),
    true = register(erlmcp_registry, Pid),
    ?assertEqual(erlmcp_registry, ?R:module()),
    stop(Pid),
    ?assertEqual(?R, ?R:module()).

nobody_is_registered_where_it_does_not_run(_) ->
    ok = ?R:register_server(s, self(), #{}),
    Running = whereis(?R),
    ok = supervisor:terminate_child(erlmcp_native_sup, registry),
    try
        ?assertEqual({error, server_not_found}, ?R:route_to_server(s, t, m)),
        ?assertEqual({error, transport_not_found}, ?R:route_to_transport(t, s, m)),
        ?assertEqual(ok, ?R:route_to_transport(broadcast, s, m)),
        ?assertEqual({error, not_found}, ?R:find_server(s)),
        ?assertEqual({error, not_found}, ?R:get_server_for_transport(t)),
        ?assertEqual([], ?R:list_servers()),
        ?assertExit({noproc, _}, ?R:register_server(s, self(), #{}))
    after
        {ok, _} = supervisor:restart_child(erlmcp_native_sup, registry)
    end,
    ?assertNotEqual(Running, whereis(?R)),
    ?assertEqual([], ?R:list_servers()),
    ok = ?R:register_server(s, self(), #{}).

survives_garbage(_) ->
    Pid = whereis(?R),
    ok = ?R:register_server(s, self(), #{}),
    Pid ! garbage,
    gen_server:cast(?R, garbage),
    ?assertEqual({error, unknown_request}, gen_server:call(?R, garbage)),
    ?assertError(function_clause, ?R:register_server(x, not_a_pid, #{})),
    ?assertEqual(Pid, whereis(?R)),
    ?assertMatch({ok, _}, ?R:find_server(s)).

%% ----

%% As a log handler.
log(#{level := Level, msg := Msg}, #{test := Test}) ->
    Test ! {logged, Level, Msg}.

logged(Level, Text) ->
    receive
        {logged, Level, {Format, Args}} ->
            %% Others may log as well.
            case lists:flatten(io_lib:format(Format, Args)) of
                Text -> ok;
                _ -> logged(Level, Text)
            end
    after ?WAIT -> error({timeout, Text})
    end.

process() -> process(fun(_) -> ok end).

process(Fun) -> spawn(fun Loop() ->
    receive
        stop -> ok;
        Message ->
            Fun(Message),
            Loop()
    end
end).

stop(Pid) ->
    Monitor = monitor(process, Pid),
    Pid ! stop,
    reason(Monitor).

%% Ends a process and waits until the registry has dealt with it.
stop_noticed(Pid) ->
    1 = erlang:trace(whereis(?R), true, ['receive']),
    stop(Pid),
    receive
        {trace, _, 'receive', {'DOWN', _, process, Pid, _}} -> ok
    after ?WAIT -> error(timeout)
    end,
    1 = erlang:trace(whereis(?R), false, ['receive']),
    settle().

%% What came before this call has been dealt with when it is answered.
settle() ->
    {error, unknown_request} = gen_server:call(?R, settle).

next() ->
    receive
        Message -> Message
    after ?WAIT -> error(timeout)
    end.

nothing_received() ->
    receive
        Message -> error({unexpected, Message})
    after 0 -> ok
    end.

%% ---- as a registry

register_transport(Id, Pid, Config) ->
    case find_transport(Id) of
        {ok, _} ->
            {error, already_registered};
        {error, not_found} ->
            _ = put(Id, {Pid, Config}),
            ok
    end.

find_transport(unreachable) ->
    exit({noproc, {gen_server, call, []}});
find_transport(Id) ->
    case get(Id) of
        undefined -> {error, not_found};
        Entry -> {ok, Entry}
    end.

unregister_transport(Id) ->
    _ = find_transport(Id),
    _ = erase(Id),
    ok.
