%% Registrations that all nodes see.
-module(registry_nodes_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [until/1]).

-define(WAIT, 60000).
-define(SCOPE, registry_nodes_scope).

-define(R, erlmcp_native_registry).

all() ->
    [
        a_server_of_another_node,
        its_answers_find_the_transport,
        answers_to_a_transport_not_heard_of_yet,
        equal_transport_ids_of_two_nodes,
        the_local_one_wins,
        two_nodes_register_the_same,
        binds_to_a_server_of_another_node,
        broadcasts_to_all_nodes,
        what_is_given_up_is_gone_everywhere,
        who_ends_is_gone_everywhere,
        a_lost_node_is_forgotten,
        nodes_that_lose_each_other_find_each_other,
        a_scope_that_ends_is_told_again,
        a_registry_that_ends_leaves_nobody,
        a_connection_to_a_server_of_another_node,
        alone_without_the_setting
    ].

init_per_suite(Config) ->
    [{nodes, [{Name, start(Name, ?SCOPE, Config)} || Name <- [a, b, c]]} | Config].

end_per_suite(Config) ->
    [peer:stop(Peer) || {_, Peer} <- proplists:get_value(nodes, Config)],
    ok.

init_per_testcase(_, Config) ->
    Nodes = proplists:get_value(nodes, Config),
    [
        until(fun() -> on(Peer, net_kernel, connect_node, [node_of(Other)]) end)
     || {_, Peer} <- Nodes, {_, Other} <- Nodes
    ],
    Config.

end_per_testcase(_, Config) ->
    Peers = [Peer || {_, Peer} <- proplists:get_value(nodes, Config)],
    [ok = on(Peer, ?MODULE, forget_all, []) || Peer <- Peers],
    [until(fun() -> on(Peer, pg, which_groups, [?SCOPE]) =:= [] end) || Peer <- Peers],
    ok.

a_server_of_another_node(Config) ->
    {A, B, _} = peers(Config),
    S = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    ?assertEqual({ok, {S, #{node => node(S)}}}, on(B, ?R, find_server, [s])),
    ?assertEqual([], on(B, ?R, list_servers, [])),
    Counters = on(B, ?R, counters, []),
    ok = on(B, ?R, route_to_server, [s, t, <<"m">>]),
    ?assertEqual([{mcp_message, {t, node_of(B)}, <<"m">>}], got(A, s, 1)),
    ok = on(A, ?R, route_to_server, [s, t, <<"here">>]),
    ?assertMatch([_, {mcp_message, t, <<"here">>}], got(A, s, 2)),
    #{routed_to_servers := Before} = Counters,
    ?assertMatch(#{routed_to_servers := N} when N =:= Before + 1, on(B, ?R, counters, [])).

its_answers_find_the_transport(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    _ = transport(B, t, #{server_id => s}),
    until(fun() -> known(B, find_server, s) end),
    ok = on(B, ?R, route_to_server, [s, t, <<"question">>]),
    [{mcp_message, From, <<"question">>}] = got(A, s, 1),
    ok = on(A, ?R, route_to_transport, [From, s, <<"answer">>]),
    ?assertEqual([{mcp_response, s, <<"answer">>}], got(B, t, 1)),
    %% By the plain name, too, which is one only on that node.
    until(fun() -> known(A, find_transport, t) end),
    ok = on(A, ?R, route_to_transport, [t, s, <<"more">>]),
    ?assertMatch([_, {mcp_response, s, <<"more">>}], got(B, t, 2)),
    ok = on(B, ?R, unregister_transport, [t]),
    until(fun() -> not known(A, find_transport, t) end),
    ?assertEqual({error, transport_not_found}, on(A, ?R, route_to_transport, [From, s, m])).

%% The news of a registration may be slower than what the registered sends.
answers_to_a_transport_not_heard_of_yet(Config) ->
    {A, B, _} = peers(Config),
    _ = transport(B, t, #{}),
    until(fun() -> known(A, find_transport, t) end),
    ok = on(A, ?MODULE, suspend_named, [?SCOPE]),
    try
        _ = transport(B, unheard_of, #{}),
        From = {unheard_of, node_of(B)},
        ?assertEqual(false, known(A, find_transport, unheard_of)),
        ok = on(A, ?R, route_to_transport, [From, s, <<"answer">>]),
        ?assertEqual([{mcp_response, s, <<"answer">>}], got(B, unheard_of, 1)),
        Nobody = {nobody, node_of(B)},
        ?assertEqual({error, transport_not_found}, on(A, ?R, route_to_transport, [Nobody, s, m])),
        Nowhere = {t, 'nowhere@127.0.0.1'},
        ?assertEqual({error, transport_not_found}, on(A, ?R, route_to_transport, [Nowhere, s, m]))
    after
        on(A, ?MODULE, resume_named, [?SCOPE])
    end.

equal_transport_ids_of_two_nodes(Config) ->
    {A, B, C} = peers(Config),
    _ = server(A, s),
    [_ = transport(Peer, t, #{server_id => s}) || Peer <- [A, B, C]],
    until(fun() -> known(B, find_server, s) andalso known(C, find_server, s) end),
    until(fun() -> length(on(A, pg, get_members, [?SCOPE, {transport, t}])) =:= 3 end),
    [ok = on(Peer, ?R, route_to_server, [s, t, node_of(Peer)]) || Peer <- [A, B, C]],
    Questions = got(A, s, 3),
    [
        ok = on(A, ?R, route_to_transport, [From, s, Asked])
     || {mcp_message, From, Asked} <- Questions
    ],
    [?assertEqual([{mcp_response, s, node_of(Peer)}], got(Peer, t, 1)) || Peer <- [A, B, C]].

the_local_one_wins(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    Here = server(B, s),
    ?assertMatch({ok, {Here, #{}}}, on(B, ?R, find_server, [s])),
    ok = on(B, ?R, route_to_server, [s, t, <<"m">>]),
    ?assertEqual([{mcp_message, t, <<"m">>}], got(B, s, 1)),
    ?assertEqual([], got(A, s, 0)),
    %% The other takes over when it is gone.
    ok = on(B, ?R, unregister_server, [s]),
    ok = on(B, ?R, route_to_server, [s, t, <<"n">>]),
    ?assertEqual([{mcp_message, {t, node_of(B)}, <<"n">>}], got(A, s, 1)).

two_nodes_register_the_same(Config) ->
    {A, B, C} = peers(Config),
    [First, Second] = lists:sort(fun(P, Q) -> node_of(P) =< node_of(Q) end, [A, B]),
    _ = server(Second, s),
    until(fun() -> known(C, find_server, s) end),
    One = server(First, s),
    until(fun() -> on(C, ?R, find_server, [s]) =:= {ok, {One, #{node => node_of(First)}}} end),
    ok = on(C, ?R, route_to_server, [s, t, <<"m">>]),
    ?assertMatch([{mcp_message, _, <<"m">>}], got(First, s, 1)),
    ok = on(First, ?R, unregister_server, [s]),
    until(fun() -> on(C, ?R, find_server, [s]) =/= {ok, {One, #{node => node_of(First)}}} end),
    ok = on(C, ?R, route_to_server, [s, t, <<"n">>]),
    ?assertMatch([{mcp_message, _, <<"n">>}], got(Second, s, 1)).

binds_to_a_server_of_another_node(Config) ->
    {A, B, _} = peers(Config),
    _ = transport(B, t, #{}),
    ?assertEqual({error, server_not_found}, on(B, ?R, bind_transport_to_server, [t, s])),
    _ = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    ok = on(B, ?R, bind_transport_to_server, [t, s]),
    ?assertEqual({ok, s}, on(B, ?R, get_server_for_transport, [t])).

broadcasts_to_all_nodes(Config) ->
    {A, B, C} = peers(Config),
    _ = server(A, s),
    [_ = transport(Peer, t, #{server_id => s}) || Peer <- [A, B, C]],
    _ = transport(C, bound_later, #{}),
    _ = transport(C, other, #{server_id => another}),
    until(fun() -> known(C, find_server, s) end),
    ok = on(C, ?R, bind_transport_to_server, [bound_later, s]),
    until(fun() -> length(on(A, pg, get_members, [?SCOPE, {bound, s}])) =:= 4 end),
    ok = on(A, ?R, route_to_transport, [broadcast, s, all]),
    Once = [{mcp_response, s, all}],
    [
        ?assertEqual(Once, got(Peer, Id, 1))
     || {Peer, Id} <- [{A, t}, {B, t}, {C, t}, {C, bound_later}]
    ],
    ?assertEqual([], got(C, other, 0)).

what_is_given_up_is_gone_everywhere(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    ok = on(A, ?R, unregister_server, [s]),
    until(fun() -> not known(B, find_server, s) end),
    ?assertEqual({error, server_not_found}, on(B, ?R, route_to_server, [s, t, m])),
    _ = transport(A, t, #{server_id => s}),
    until(fun() -> on(B, pg, get_members, [?SCOPE, {bound, s}]) =/= [] end),
    ok = on(A, ?R, unbind_transport, [t]),
    until(fun() -> on(B, pg, get_members, [?SCOPE, {bound, s}]) =:= [] end),
    ?assert(known(B, find_transport, t)).

who_ends_is_gone_everywhere(Config) ->
    {A, B, _} = peers(Config),
    Pid = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    true = on(A, erlang, exit, [Pid, kill]),
    until(fun() -> not known(B, find_server, s) end),
    until(fun() -> not known(A, find_server, s) end).

a_lost_node_is_forgotten(Config) ->
    {A, B, _} = peers(Config),
    Lost = start(lost, ?SCOPE, Config),
    true = on(Lost, net_kernel, connect_node, [node_of(A)]),
    _ = server(Lost, s),
    [_ = transport(Peer, t, #{server_id => s}) || Peer <- [Lost, A]],
    until(fun() -> known(A, find_server, s) end),
    until(fun() -> length(on(A, pg, get_members, [?SCOPE, {bound, s}])) =:= 2 end),
    [] = os:cmd("kill -9 " ++ on(Lost, os, getpid, [])),
    [until(fun() -> not known(Peer, find_server, s) end) || Peer <- [A, B]],
    ?assertEqual({error, server_not_found}, on(A, ?R, route_to_server, [s, t, m])),
    until(fun() -> length(on(A, pg, get_members, [?SCOPE, {bound, s}])) =:= 1 end),
    ?assertEqual({ok, s}, on(A, ?R, get_server_for_transport, [t])),
    %% Who registers the name next is found by those that are still bound to it.
    _ = server(B, s),
    until(fun() -> known(A, find_server, s) end),
    ok = on(A, ?R, route_to_server, [s, t, again]),
    ?assertMatch([{mcp_message, _, again}], got(B, s, 1)).

nodes_that_lose_each_other_find_each_other(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    true = on(B, erlang, disconnect_node, [node_of(A)]),
    until(fun() -> not known(B, find_server, s) orelse lists:member(node_of(A), nodes_of(B)) end),
    true = on(B, net_kernel, connect_node, [node_of(A)]),
    until(fun() -> known(B, find_server, s) end).

a_scope_that_ends_is_told_again(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    _ = transport(A, t, #{server_id => s}),
    until(fun() -> known(B, find_server, s) end),
    true = on(A, ?MODULE, kill_named, [?SCOPE]),
    _ = transport(A, late, #{}),
    Everything = [{bound, s}, {server, s}, {transport, late}, {transport, t}],
    until(fun() -> lists:sort(on(B, pg, which_groups, [?SCOPE])) =:= Everything end),
    ?assertMatch([_], on(B, pg, get_members, [?SCOPE, {server, s}])).

a_registry_that_ends_leaves_nobody(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    true = on(A, ?MODULE, kill_named, [?R]),
    until(fun() -> not known(B, find_server, s) end).

a_connection_to_a_server_of_another_node(Config) ->
    {A, B, _} = peers(Config),
    _ = server(A, s),
    until(fun() -> known(B, find_server, s) end),
    {Listen, Port} = test_socket:listen(),
    ok = on(B, ?MODULE, connect, [Port]),
    Client = test_socket:accept(Listen),
    ok = gen_tcp:send(Client, <<"question\n">>),
    [{mcp_message, From, <<"question">>}] = got(A, s, 1),
    ok = on(A, ?R, route_to_transport, [From, s, <<"answer">>]),
    ?assertEqual({ok, <<"answer\n">>}, gen_tcp:recv(Client, 0, ?WAIT)),
    ok = gen_tcp:close(Client).

alone_without_the_setting(Config) ->
    {A, _, _} = peers(Config),
    Alone = start(alone, none, Config),
    true = on(Alone, net_kernel, connect_node, [node_of(A)]),
    _ = server(A, s),
    _ = server(Alone, mine),
    ?assertEqual({error, server_not_found}, on(Alone, ?R, route_to_server, [s, t, m])),
    ?assertEqual({error, server_not_found}, on(A, ?R, route_to_server, [mine, t, m])),
    ok = on(Alone, ?R, route_to_server, [mine, t, m]),
    ?assertEqual([{mcp_message, t, m}], got(Alone, mine, 1)),
    peer:stop(Alone).

%% ---- nodes

start(Name, Scope, Config) ->
    Ports = filename:join(proplists:get_value(priv_dir, Config), "ports"),
    ok = filelib:ensure_path(Ports),
    Setting = [["-erlmcp_native", "registry_scope", atom_to_list(Scope)] || Scope =/= none],
    {ok, Peer, _} = peer:start(#{
        name => atom_to_list(Name),
        host => "127.0.0.1",
        longnames => true,
        connection => standard_io,
        wait_boot => ?WAIT,
        env => [{"NODE_PORTS", Ports}],
        args =>
            ["-start_epmd", "false", "-epmd_module", "node_ports", "-setcookie", "nodes_SUITE"] ++
            ["-kernel", "logger_level", "none", "-erlmcp_native", "path", "beam"] ++
            ["-kernel", "prevent_overlapping_partitions", "false"] ++
            lists:append(Setting) ++
            ["-pa" | [filename:absname(Dir) || Dir <- code:get_path()]]
    }),
    {ok, _} = on(Peer, application, ensure_all_started, [erlmcp_native]),
    Peer.

peers(Config) ->
    list_to_tuple([Peer || {_, Peer} <- proplists:get_value(nodes, Config)]).

on(Peer, Module, Function, Args) ->
    peer:call(Peer, Module, Function, Args, ?WAIT).

node_of(Peer) -> on(Peer, erlang, node, []).

nodes_of(Peer) -> on(Peer, erlang, nodes, []).

known(Peer, Find, Id) -> on(Peer, ?R, Find, [Id]) =/= {error, not_found}.

server(Peer, Id) -> on(Peer, ?MODULE, enter, [register_server, Id, #{}]).

transport(Peer, Id, Config) -> on(Peer, ?MODULE, enter, [register_transport, Id, Config]).

%% What the process that is registered there has got, when it is as much as that.
got(Peer, Id, Count) ->
    case on(Peer, ?MODULE, received, [Id]) of
        Less when length(Less) < Count ->
            receive
            after 10 -> got(Peer, Id, Count)
            end;
        Messages ->
            Messages
    end.

%% ---- called on the nodes

enter(Register, Id, Config) ->
    Pid = spawn(fun() -> keep([]) end),
    true = register(process_name(Id), Pid),
    ok = ?R:Register(Id, Pid, Config),
    Pid.

%% A node has no two that are called the same here.
process_name(Id) -> list_to_atom("registered_as_" ++ atom_to_list(Id)).

keep(Messages) ->
    receive
        {received, From} ->
            From ! {self(), lists:reverse(Messages)},
            keep(Messages);
        Message ->
            keep([Message | Messages])
    end.

received(Id) ->
    Pid = whereis(process_name(Id)),
    Pid ! {received, self()},
    receive
        {Pid, Messages} -> Messages
    end.

forget_all() ->
    [ok = ?R:unregister_server(Id) || {Id, _} <- ?R:list_servers()],
    [ok = ?R:unregister_transport(Id) || {Id, _} <- ?R:list_transports()],
    Names = [atom_to_list(Name) || Name <- registered()],
    [exit(whereis(list_to_atom(Name)), kill) || "registered_as_" ++ _ = Name <- Names],
    ok.

suspend_named(Name) -> sys:suspend(Name).

resume_named(Name) -> sys:resume(Name).

kill_named(Name) ->
    exit(whereis(Name), kill).

connect(Port) ->
    Test = self(),
    _ = spawn(fun() ->
        {ok, _} = erlmcp_native_transport_routed:start_link(in, #{
            host => "127.0.0.1", port => Port, server_id => s, max_reconnect_attempts => 0
        }),
        Test ! connected,
        receive
        after infinity -> ok
        end
    end),
    receive
        connected -> ok
    end.
