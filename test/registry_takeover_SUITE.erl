%% Taking the place of erlmcp's registry while it runs, and giving it back, with modules that stand
%% in for it.
-module(registry_takeover_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_log, [logged/1, logged/2]).
-import(test_wait, [reason/1, until/1]).

-define(WAIT, 60000).

-define(R, erlmcp_registry).
-define(TAKEOVER, erlmcp_native_takeover_registry).

all() ->
    [
        {group, of_0_5},
        {group, of_the_fork},
        off_unless_asked_for,
        refuses_another_shape,
        refuses_another_state,
        refuses_when_there_is_no_erlmcp
    ].

groups() ->
    Cases = [
        a_running_registry_goes_on,
        given_back,
        monitors_of_either_hold,
        several_names_of_a_process,
        nothing_is_lost_or_overtaken,
        a_long_queue_comes_first,
        a_reload_harms_nobody,
        routes_in_the_callers_process,
        errors_and_broadcasts,
        what_others_cast_is_routed,
        started_under_the_other_code,
        answers_of_the_fork,
        as_the_model,
        where_no_registry_runs
    ],
    [{of_0_5, Cases}, {of_the_fork, Cases}].

init_per_group(Shape, Config) -> [{shape, Shape} | Config].

end_per_group(_, _) -> ok.

init_per_testcase(Case, Config) ->
    process_flag(trap_exit, true),
    _ = logger:remove_handler(?MODULE),
    ok = logger:add_handler(?MODULE, test_log, #{config => self()}),
    Shape = shape(Case, proplists:get_value(shape, Config, of_0_5)),
    Data = proplists:get_value(data_dir, Config),
    Sources = filelib:wildcard(filename:join([Data, Shape, "*.erl"])),
    Out = filename:join([proplists:get_value(priv_dir, Config), Shape, Case]),
    Standins = standins:load(Sources, Out),
    Without = [where_no_registry_runs, refuses_when_there_is_no_erlmcp],
    _ = [?R:start_link() || not lists:member(Case, Without)],
    [{standins, Standins} | Config].

shape(refuses_another_shape, _) -> unknown;
shape(refuses_another_state, _) -> strange;
shape(refuses_when_there_is_no_erlmcp, _) -> none;
shape(_, Shape) -> Shape.

end_per_testcase(_, Config) ->
    _ = [stop(Pid) || Pid <- [whereis(?R)], is_pid(Pid)],
    _ = application:stop(erlmcp_native),
    Keys = [takeover_registry, takeover_check_ms],
    [ok = application:unset_env(erlmcp_native, Key) || Key <- Keys],
    ok = logger:remove_handler(?MODULE),
    standins:unload(proplists:get_value(standins, Config)).

%% ---- there and back

a_running_registry_goes_on(_) ->
    Registry = whereis(?R),
    Seen = entered(),
    ?assertEqual(active, take_over()),
    ?assertEqual(Registry, whereis(?R)),
    ?assertEqual(Seen, seen()),
    ok = ?R:route_to_server(calc, <<"2">>, <<"question">>),
    ?assertEqual({calc, {mcp_message, <<"2">>, <<"question">>}}, next()),
    ok = ?R:route_to_transport(<<"2">>, calc, <<"answer">>),
    ?assertEqual({<<"2">>, {mcp_response, calc, <<"answer">>}}, next()),
    ?assertEqual({error, already_registered}, ?R:register_server(calc, self(), #{})),
    ok = ?R:unregister_transport(<<"2">>),
    ?assertEqual({error, not_found}, ?R:find_transport(<<"2">>)).

given_back(Config) ->
    Registry = whereis(?R),
    active = take_over(),
    Seen = entered(),
    Size = tuple_size(sys:get_state(?R)),
    ?assertEqual(restored, ?TAKEOVER:restore()),
    ?assertEqual(Registry, whereis(?R)),
    ?assertNot(is_replaced()),
    ?assertEqual(Seen, seen()),
    ?assertEqual(Size, tuple_size(sys:get_state(?R))),
    ?assertEqual(
        case proplists:get_value(shape, Config) of
            of_0_5 -> 7;
            of_the_fork -> 10
        end,
        Size
    ),
    ?assertEqual(#{calc => some}, element(5, sys:get_state(?R))),
    ok = ?R:route_to_server(calc, t, m),
    ?assertEqual({calc, {mcp_message, t, m}}, next()),
    ?assertEqual(active, ?TAKEOVER:install()),
    ?assertEqual(Seen, seen()),
    ok = application:stop(erlmcp_native),
    ?assertEqual(Registry, whereis(?R)),
    ?assertNot(is_replaced()),
    ?assertEqual(Seen, seen()),
    ?assertEqual(off, ?TAKEOVER:status()).

monitors_of_either_hold(_) ->
    Of = maps:from_list([
        begin
            Pid = process(Id),
            ok = ?R:register_transport(Id, Pid, #{}),
            {Id, Pid}
        end
     || Id <- [a, b, c]
    ]),
    active = take_over(),
    kill_noticed(maps:get(a, Of)),
    ?assertEqual({error, not_found}, ?R:find_transport(a)),
    D = process(d),
    ok = ?R:register_transport(d, D, #{}),
    restored = ?TAKEOVER:restore(),
    kill_noticed(maps:get(b, Of)),
    kill_noticed(D),
    ?assertEqual([c], [Id || {Id, _} <- ?R:list_transports()]),
    %% The monitors of the state are those of the process.
    ?assertEqual([maps:get(c, Of)], maps:keys(element(7, sys:get_state(?R)))),
    ok = ?R:unregister_transport(c),
    ?assertEqual({monitors, []}, process_info(whereis(?R), monitors)).

%% The original keeps one of them in mind.
several_names_of_a_process(_) ->
    Pid = process(both),
    ok = ?R:register_server(s, Pid, #{}),
    ok = ?R:register_transport(t, Pid, #{server_id => s}),
    active = take_over(),
    ok = ?R:register_transport(u, Pid, #{}),
    ok = ?R:unregister_transport(t),
    kill_noticed(Pid),
    ?assertEqual({[], [], []}, seen()),
    ?assertEqual(#{}, element(7, sys:get_state(?R))).

%% Senders that route all the while, each message with its number.
nothing_is_lost_or_overtaken(_) ->
    Receiver = spawn_link(fun() -> receiver(#{}, 0) end),
    ok = ?R:register_server(s, Receiver, #{}),
    Senders = [spawn_link(fun() -> sender(Id, 0) end) || Id <- lists:seq(1, 10)],
    active = take_over(),
    [
        begin
            restored = ?TAKEOVER:restore(),
            active = ?TAKEOVER:install()
        end
     || _ <- lists:seq(1, 5)
    ],
    {module, ?R} = code:load_file(?R),
    active = ?TAKEOVER:check(),
    Sent = lists:sum([ask(Sender, stop) || Sender <- Senders]),
    ?assertEqual(Sent, await_received(Receiver, Sent)),
    ?assertEqual(0, ask(Receiver, overtaken)).

%% Of what was cast to the original, and of who asked it, before it was taken over.
a_long_queue_comes_first(_) ->
    _ = entered(),
    Numbers = lists:seq(1, 1000),
    ok = sys:suspend(?R),
    [ok = ?R:route_to_server(calc, t, N) || N <- Numbers],
    Test = self(),
    Find = fun() -> gen_server:call(?R, {find_server, calc}, infinity) end,
    _ = spawn_link(fun() -> Test ! {found, Find()} end),
    until(fun() -> queue_length() > 1000 end),
    _ = spawn_link(fun() -> Test ! {taken_over, take_over()} end),
    until(fun is_replaced/0),
    _ = spawn_link(fun() ->
        ok = ?R:route_to_server(calc, t, later),
        Test ! routed
    end),
    until(fun() -> queue_length() > 1002 end),
    ok = sys:resume(?R),
    Got = [
        receive
            {calc, {mcp_message, t, N}} -> N
        after ?WAIT -> error(timeout)
        end
     || _ <- [later | Numbers]
    ],
    ?assertEqual(Numbers ++ [later], Got),
    [
        receive
            Message -> ok
        after ?WAIT -> error({timeout, Message})
        end
     || Message <- [routed, {taken_over, active}]
    ],
    receive
        {found, Found} -> ?assertMatch({ok, {_, #{capabilities := some}}}, Found)
    after ?WAIT -> error(timeout)
    end.

a_reload_harms_nobody(_) ->
    Registry = whereis(?R),
    active = take_over(),
    _ = entered(),
    {module, ?R} = code:load_file(?R),
    ok = ?R:register_transport(later, process(later), #{server_id => calc}),
    ok = ?R:unregister_transport(<<"1">>),
    Seen = seen(),
    ?assertEqual(active, ?TAKEOVER:check()),
    ?assert(is_replaced()),
    ?assertMatch({warning, "erlmcp_native: a reload of" ++ _}, logged(warning)),
    ?assertEqual(Seen, seen()),
    ?assertEqual(Registry, whereis(?R)),
    %% Not from a table that the original did not know of.
    ?assertMatch({error, server_not_found}, ?R:route_to_server(<<"1">>, t, m)),
    ok = ?R:route_to_transport(later, calc, m),
    ?assertEqual({later, {mcp_response, calc, m}}, next()).

%% ---- what it is for

routes_in_the_callers_process(_) ->
    active = take_over(),
    _ = entered(),
    ok = sys:suspend(?R),
    try
        ok = ?R:route_to_server(calc, t, m),
        ?assertEqual({calc, {mcp_message, t, m}}, next()),
        ?assertMatch({ok, _}, ?R:find_server(calc)),
        ?assertEqual({ok, calc}, ?R:get_server_for_transport(<<"1">>)),
        ?assertEqual({message_queue_len, 0}, process_info(whereis(?R), message_queue_len))
    after
        sys:resume(?R)
    end.

errors_and_broadcasts(_) ->
    active = take_over(),
    _ = entered(),
    ?assertEqual({error, server_not_found}, ?R:route_to_server(nobody, t, m)),
    ?assertEqual(
        {warning, "Cannot route to server nobody: not found"}, logged(warning, "Cannot route")
    ),
    ?assertEqual({error, transport_not_found}, ?R:route_to_transport(nobody, s, m)),
    ok = ?R:route_to_transport(broadcast, calc, all),
    Got = lists:sort([next() || _ <- [1, 2, 3]]),
    ?assertEqual([{integer_to_binary(N), {mcp_response, calc, all}} || N <- [1, 2, 3]], Got).

what_others_cast_is_routed(_) ->
    active = take_over(),
    _ = entered(),
    gen_server:cast(?R, {route_to_server, calc, t, m}),
    ?assertEqual({calc, {mcp_message, t, m}}, next()),
    gen_server:cast(?R, {route_to_transport, <<"1">>, calc, m}),
    ?assertEqual({<<"1">>, {mcp_response, calc, m}}, next()),
    gen_server:cast(?R, {route_to_server, nobody, t, m}),
    ?assertMatch({warning, "Cannot route to server nobody" ++ _}, logged(warning, "Cannot route")),
    ?R ! garbage,
    gen_server:cast(?R, garbage),
    ?assertEqual({error, unknown_request}, gen_server:call(?R, garbage)).

started_under_the_other_code(Config) ->
    active = take_over(),
    stop(whereis(?R)),
    {ok, Registry} = ?R:start_link(),
    Seen = entered(),
    ok = ?R:route_to_server(calc, t, m),
    ?assertEqual({calc, {mcp_message, t, m}}, next()),
    restored = ?TAKEOVER:restore(),
    ?assertEqual(Registry, whereis(?R)),
    ?assertEqual(Seen, seen()),
    Size = tuple_size(sys:get_state(?R)),
    ?assertEqual(proplists:get_value(shape, Config) =:= of_the_fork, Size =:= 10).

answers_of_the_fork(Config) ->
    active = take_over(),
    _ = entered(),
    case proplists:get_value(shape, Config) of
        of_0_5 ->
            ?assertEqual({error, unknown_request}, gen_server:call(?R, get_health_status));
        of_the_fork ->
            ?assertEqual({ok, healthy}, gen_server:call(?R, {test_health_check})),
            ?assertMatch(
                #{servers_count := 1, transports_count := 3, status := healthy, uptime := _},
                gen_server:call(?R, get_health_status)
            ),
            ?assertMatch(
                #{servers := [calc], transports := [_, _, _], total_routes := _},
                gen_server:call(?R, get_registry_stats)
            )
    end.

as_the_model(_) ->
    active = take_over(),
    Options = [{numtests, 100}, quiet],
    ?assert(proper:quickcheck(registry_props:as_the_model(?R), Options)).

where_no_registry_runs(_) ->
    ?assertEqual(active, take_over()),
    ?assertEqual({error, server_not_found}, ?R:route_to_server(s, t, m)),
    ?assertEqual({error, transport_not_found}, ?R:route_to_transport(t, s, m)),
    ?assertExit({noproc, _}, ?R:find_server(s)),
    {ok, _} = ?R:start_link(),
    ?assertEqual({error, not_found}, ?R:find_server(s)),
    _ = entered(),
    ok = ?R:route_to_server(calc, t, m),
    ?assertEqual({calc, {mcp_message, t, m}}, next()).

%% ---- where it does nothing

off_unless_asked_for(_) ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    ?assertEqual(off, ?TAKEOVER:status()),
    ?assertNot(is_replaced()).

refuses_another_shape(_) ->
    ?assertEqual({refused, {not_offered, ?R, [{get_pid, 0}]}}, take_over()),
    ?assertMatch({error, "erlmcp_native: takeover of" ++ _}, logged(error)),
    ?assertNot(is_replaced()).

refuses_another_state(_) ->
    Seen = entered(),
    ?assertMatch({refused, {unknown_state, {registry_state, _, _, _, _, _, _, []}}}, take_over()),
    ?assertMatch({error, "erlmcp_native: takeover of" ++ _}, logged(error)),
    ?assertNot(is_replaced()),
    ?assertEqual(Seen, seen()).

refuses_when_there_is_no_erlmcp(_) ->
    ?assertEqual({refused, {not_found, ?R}}, take_over()),
    ?assertMatch({error, "erlmcp_native: takeover of" ++ _}, logged(error)).

%% ----

take_over() ->
    _ = application:load(erlmcp_native),
    ok = application:set_env(erlmcp_native, takeover_registry, true),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    ?TAKEOVER:status().

is_replaced() ->
    lists:keymember(erlmcp_native, 1, ?R:module_info(attributes)).

%% A server, transports that are bound to it from the start and later, and what is seen of them.
entered() ->
    ok = ?R:register_server(calc, process(calc), #{capabilities => some}),
    [
        ok = ?R:register_transport(Id, process(Id), #{type => tcp, server_id => calc})
     || Id <- [<<"1">>, <<"2">>]
    ],
    ok = ?R:register_transport(<<"3">>, process(<<"3">>), #{}),
    ok = ?R:bind_transport_to_server(<<"3">>, calc),
    seen().

seen() ->
    Transports = lists:sort(?R:list_transports()),
    {
        lists:sort(?R:list_servers()),
        Transports,
        [{Id, Server} || {Id, _} <- Transports, {ok, Server} <- [?R:get_server_for_transport(Id)]]
    }.

%% Tells the test under its name what it gets.
process(Name) ->
    Test = self(),
    spawn(fun() -> pass_on(Name, Test) end).

pass_on(Name, Test) ->
    receive
        Message -> Test ! {Name, Message}
    end,
    pass_on(Name, Test).

queue_length() ->
    {_, Length} = process_info(whereis(?R), message_queue_len),
    Length.

receiver(Last, Overtaken) ->
    receive
        {mcp_message, Id, N} ->
            InOrder = N =:= maps:get(Id, Last, 0) + 1,
            receiver(Last#{Id => N}, Overtaken + length([N || not InOrder]));
        {count, From} ->
            From ! {self(), lists:sum(maps:values(Last))},
            receiver(Last, Overtaken);
        {overtaken, From} ->
            From ! {self(), Overtaken}
    end.

sender(Id, N) ->
    receive
        {stop, From} -> From ! {self(), N}
    after 0 ->
        ok = ?R:route_to_server(s, Id, N + 1),
        pause(N rem 100),
        sender(Id, N + 1)
    end.

%% Else the original would be given more than it passes on.
pause(0) ->
    receive
    after 1 -> ok
    end;
pause(_) ->
    ok.

ask(Pid, Question) ->
    Pid ! {Question, self()},
    receive
        {Pid, Answer} -> Answer
    after ?WAIT -> error({timeout, Question})
    end.

await_received(Receiver, Wanted) ->
    case ask(Receiver, count) of
        Less when Less < Wanted ->
            receive
            after 10 -> await_received(Receiver, Wanted)
            end;
        Count ->
            Count
    end.

kill_noticed(Pid) ->
    exit(Pid, kill),
    await_forgotten(Pid).

await_forgotten(Pid) ->
    Listed = ?R:list_servers() ++ ?R:list_transports(),
    case [Id || {Id, {P, _}} <- Listed, P =:= Pid] of
        [] ->
            ok;
        _ ->
            receive
            after 1 -> await_forgotten(Pid)
            end
    end.

stop(Registry) ->
    Monitor = monitor(process, Registry),
    exit(Registry, shutdown),
    reason(Monitor).

next() ->
    receive
        {logged, _, _} -> next();
        {'EXIT', _, _} -> next();
        Message -> Message
    after ?WAIT -> error(timeout)
    end.
