%% Dialling and listening, as far as it is particular to the `beam' path.
-module(beam_dial_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-define(PATH, erlmcp_native_beam_path).
-define(WAIT, 10000).

all() ->
    [
        families_in_turn,
        other_family,
        silent_address_costs_one_delay,
        every_address_is_tried,
        refusal_says_more_than_no_address,
        bound_address_decides_the_family,
        full_backlog_of_a_unix_socket,
        listens_on_ipv6,
        listens_on_a_name,
        accepts_one_batch_ahead,
        closing_closes_what_waits,
        file_goes_with_the_owner,
        file_of_a_successor_stays,
        file_that_is_no_socket_stays,
        waits_for_descriptors
    ].

%% Names of this suite's own, which no resolver outside is asked for.
init_per_suite(Config) ->
    Lookup = inet_db:res_option(lookup),
    ok = inet_db:set_lookup([file]),
    [inet_db:add_host(Ip, Names) || {Ip, Names} <- hosts()],
    [{lookup, Lookup} | Config].

end_per_suite(Config) ->
    [inet_db:del_host(Ip) || {Ip, _} <- hosts()],
    inet_db:set_lookup(proplists:get_value(lookup, Config)).

hosts() ->
    [
        {{0, 0, 0, 0, 0, 0, 0, 1}, ["two.faces", "new.face"]},
        {{127, 0, 0, 1}, ["two.faces"]},
        {{127, 0, 0, 2}, ["old.face"]}
    ].

%% Dialling

families_in_turn(_) ->
    Order = fun(V6, V4) -> order(#{inet6 => V6, inet => V4, next => inet6}) end,
    ?assertEqual([a6, a4, b6, c6], Order([a6, b6, c6], [a4])),
    ?assertEqual([a6, a4, b4], Order([a6], [a4, b4])),
    ?assertEqual([a4, b4], Order([], [a4, b4])),
    ?assertEqual([], Order([], [])),
    %% Addresses that are found later take their turn.
    Old = #{inet6 => [], inet => [a4, b4], next => inet},
    {a4, Rest} = erlmcp_native_beam_dial:next_address(Old),
    ?assertEqual([a6, b4, b6], order(Rest#{inet6 := [a6, b6]})).

order(Addresses) ->
    case erlmcp_native_beam_dial:next_address(Addresses) of
        {Ip, Rest} -> [Ip | order(Rest)];
        none -> []
    end.

%% Nobody listens at the port of the IPv6 address.
other_family(_) ->
    {Listen, Port} = listen({127, 0, 0, 1}, []),
    {ok, Socket} = dial("two.faces", Port, #{}),
    ?assertEqual({ok, {{127, 0, 0, 1}, Port}}, inet:peername(Socket)),
    ok = gen_tcp:close(Listen).

silent_address_costs_one_delay(_) ->
    {Silent, Port} = listen({0, 0, 0, 0, 0, 0, 0, 1}, [{backlog, 0}]),
    {ok, _} = gen_tcp:connect({0, 0, 0, 0, 0, 0, 0, 1}, Port, [inet6]),
    {ok, Listen} = gen_tcp:listen(Port, [{ip, {127, 0, 0, 1}}]),
    Dial = fun() -> dial("two.faces", Port, #{attempt_delay_ms => 200}) end,
    {Micros, {ok, Socket}} = timer:tc(Dial),
    ?assertEqual({ok, {{127, 0, 0, 1}, Port}}, inet:peername(Socket)),
    ?assert(Micros >= 200000, Micros),
    ?assert(Micros < 2000000, Micros),
    %% Nobody goes on trying the other.
    [ended(Monitor, 1000) || Monitor <- attempts()],
    [ok = gen_tcp:close(S) || S <- [Silent, Listen]].

attempts() ->
    Attempt = fun({M, F, _, _}) -> {M, F} =:= {erlmcp_native_beam_dial, tcp_connect} end,
    [
        monitor(process, Pid)
     || Pid <- processes(),
        {current_stacktrace, Stack} <- [process_info(Pid, current_stacktrace)],
        lists:any(Attempt, Stack)
    ].

every_address_is_tried(_) ->
    ?assertEqual({error, refused}, dial("two.faces", test_socket:free_port(), #{})).

refusal_says_more_than_no_address(_) ->
    ?assertEqual({error, refused}, dial("old.face", test_socket:free_port(), #{})),
    ?assertEqual({error, refused}, dial("new.face", test_socket:free_port(), #{})),
    ?assertEqual({error, nxdomain}, dial("no.face", 1, #{})).

bound_address_decides_the_family(_) ->
    {Listen, Port} = listen({127, 0, 0, 1}, []),
    {ok, Socket} = dial("two.faces", Port, #{bind => {127, 0, 0, 3}}),
    ?assertMatch({ok, {{127, 0, 0, 3}, _}}, inet:sockname(Socket)),
    New = #{bind => {0, 0, 0, 0, 0, 0, 0, 1}},
    ?assertEqual({error, unreachable}, dial({127, 0, 0, 1}, Port, New)),
    ok = gen_tcp:close(Listen).

%% A Unix-domain connect to a full backlog fails at once instead of waiting.
full_backlog_of_a_unix_socket(_) ->
    Path = path(),
    {ok, Listen} = gen_tcp:listen(0, [{ifaddr, {local, Path}}, {backlog, 0}]),
    {ok, _} = gen_tcp:connect({local, Path}, 0, []),
    ?assertEqual({error, timeout}, connect(#{path => Path}, #{connect_timeout_ms => 50})),
    Test = self(),
    spawn_link(fun() -> Test ! {dialled, connect(#{path => Path}, #{})} end),
    {ok, _} = gen_tcp:accept(Listen, ?WAIT),
    {ok, _} = gen_tcp:accept(Listen, ?WAIT),
    receive
        {dialled, Result} -> ?assertMatch({ok, _}, Result)
    after ?WAIT -> ct:fail(no_connection)
    end,
    ok = file:delete(Path).

%% Listening

listens_on_ipv6(_) ->
    Listener = path_listen(#{host => {0, 0, 0, 0, 0, 0, 0, 1}, port => 0}),
    #{sockname := {{0, 0, 0, 0, 0, 0, 0, 1} = Ip, Port}} = ?PATH:listener_info(Listener),
    {ok, Client} = gen_tcp:connect(Ip, Port, [inet6]),
    {[Socket], armed, Accepted} = accept(Listener, 10),
    {ok, Name} = inet:sockname(Client),
    ?assertMatch(#{peername := Name, state := open}, ?PATH:info(Socket)),
    ok = ?PATH:listener_close(Accepted).

listens_on_a_name(_) ->
    Listener = path_listen(#{host => <<"old.face">>, port => 0}),
    ?assertMatch(#{sockname := {{127, 0, 0, 2}, _}}, ?PATH:listener_info(Listener)),
    ok = ?PATH:listener_close(Listener),
    {ok, Options} = erlmcp_native_options:listener(#{}),
    ?assertEqual({error, nxdomain}, ?PATH:listen(#{host => <<"no.face">>, port => 0}, Options)).

accepts_one_batch_ahead(_) ->
    Listener = path_listen(#{host => {127, 0, 0, 1}, port => 0}),
    #{sockname := {Ip, Port}} = ?PATH:listener_info(Listener),
    Clients = [element(2, {ok, _} = gen_tcp:connect(Ip, Port, [])) || _ <- lists:seq(1, 200)],
    %% Each batch is answered by the next, and no further one comes by itself.
    {First, _, Rest} = accept(Listener, 1),
    ?assertEqual(1, length(First)),
    {Others, Accepted} = accept_all(Rest, 199),
    ?assertEqual(199, length(Others)),
    ?assertEqual([], mailbox()),
    ok = ?PATH:listener_close(Accepted),
    [ok = gen_tcp:close(Client) || Client <- Clients].

closing_closes_what_waits(_) ->
    Listener = path_listen(#{host => {127, 0, 0, 1}, port => 0}),
    #{sockname := {Ip, Port}} = ?PATH:listener_info(Listener),
    Clients = [
        element(2, {ok, _} = gen_tcp:connect(Ip, Port, [{active, false}]))
     || _ <- lists:seq(1, 100)
    ],
    ok = ?PATH:listener_close(Listener),
    [?assertMatch({error, _}, gen_tcp:recv(Client, 0, ?WAIT)) || Client <- Clients],
    ?assertEqual({error, econnrefused}, gen_tcp:connect(Ip, Port, [])),
    ?assertEqual([], mailbox()),
    ok = ?PATH:listener_close(Listener).

file_goes_with_the_owner(_) ->
    Path = path(),
    Test = self(),
    {Owner, Monitor} = spawn_monitor(fun() ->
        Listener = path_listen(#{path => Path}),
        Test ! {acceptor, acceptor()},
        {_, armed, _} = ?PATH:accept(Listener, 1),
        receive stop -> ok end
    end),
    Acceptor = receive {acceptor, Pid} -> monitor(process, Pid) end,
    exit(Owner, kill),
    ended(Monitor),
    ended(Acceptor),
    ?assertEqual({error, enoent}, file:read_file_info(Path)).

file_of_a_successor_stays(_) ->
    Path = path(),
    Listener = path_listen(#{path => Path}),
    ok = file:delete(Path),
    {ok, Successor} = gen_tcp:listen(0, [{ifaddr, {local, Path}}]),
    ok = ?PATH:listener_close(Listener),
    {ok, _} = gen_tcp:connect({local, Path}, 0, []),
    ok = gen_tcp:close(Successor),
    ok = file:delete(Path).

file_that_is_no_socket_stays(_) ->
    Path = path(),
    ok = file:write_file(Path, <<"precious">>),
    {ok, Options} = erlmcp_native_options:listener(#{}),
    ?assertEqual({error, address_in_use}, ?PATH:listen(#{path => Path}, Options)),
    ?assertEqual({ok, <<"precious">>}, file:read_file(Path)),
    ok = file:delete(Path).

%% A node with few descriptors accepts what it can, says once that it waits, and goes on when
%% there are some again.
waits_for_descriptors(_) ->
    {ok, Peer, _} = peer:start(#{
        connection => standard_io,
        exec => {"/bin/sh", ["-c", "ulimit -n 60; exec erl \"$@\"", "sh"]},
        args => ["-pa" | [Dir || Dir <- code:get_path(), Dir =/= "."]]
    }),
    Port = peer:call(Peer, ?MODULE, serve, []),
    Clients = [
        element(2, {ok, _} = gen_tcp:connect({127, 0, 0, 1}, Port, [{active, false}]))
     || _ <- lists:seq(1, 100)
    ],
    %% The others have to wait until those that were accepted are closed.
    ok = peer:call(Peer, ?MODULE, suspended, [], ?WAIT),
    [{error, closed} = gen_tcp:recv(Client, 0, ?WAIT) || Client <- Clients],
    ?assertEqual({100, 1}, peer:call(Peer, ?MODULE, served, [], ?WAIT)),
    ok = peer:stop(Peer).

%% Runs in the other node.
serve() ->
    %% Loading a module takes a descriptor.
    ok = application:load(erlmcp_native),
    {ok, Modules} = application:get_key(erlmcp_native, modules),
    ok = code:ensure_modules_loaded([gen_tcp, inet_tcp, proplists | Modules]),
    Caller = self(),
    Pid = spawn(fun() ->
        true = register(?MODULE, self()),
        %% Standard output is this node's link to the test.
        ok = logger:remove_handler(default),
        ok = logger:add_handler(?MODULE, ?MODULE, #{pid => self()}),
        Listener = path_listen(#{host => {127, 0, 0, 1}, port => 0}),
        #{sockname := {_, Port}} = ?PATH:listener_info(Listener),
        Caller ! {self(), Port},
        serve(#{listener => Listener, held => [], served => 0, warned => 0, waiting => none})
    end),
    receive {Pid, Port} -> Port after ?WAIT -> error(not_serving) end.

serve(#{listener := Listener, warned := Warned} = State) ->
    receive
        {suspended, From} when Warned > 0 ->
            From ! ok,
            [ok = ?PATH:close(Socket) || Socket <- maps:get(held, State)],
            serve(State#{held := closing});
        {served, From} when map_get(served, State) =:= 100 ->
            From ! {100, Warned};
        warned ->
            serve(State#{warned := Warned + 1});
        Msg when element(1, Msg) =/= suspended, element(1, Msg) =/= served ->
            {ready, Ready} = ?PATH:listener_handle_info(Msg, Listener),
            serve(served(?PATH:accept(Ready, 1000), State))
    end.

served({Sockets, armed, Listener}, #{held := closing, served := Served} = State) ->
    [ok = ?PATH:close(Socket) || Socket <- Sockets],
    State#{listener := Listener, served := Served + length(Sockets)};
served({Sockets, armed, Listener}, #{held := Held, served := Served} = State) ->
    State#{listener := Listener, served := Served + length(Sockets), held := Sockets ++ Held}.

suspended() -> ask(suspended).

served() -> ask(served).

ask(What) ->
    ?MODULE ! {What, self()},
    receive Answer -> Answer end.

log(#{meta := #{mfa := {erlmcp_native_beam_listener, _, _}}}, #{pid := Pid}) -> Pid ! warned;
log(_, _) -> ok.

%% Helpers

dial(Host, Port, Options) when is_list(Host) ->
    dial(list_to_binary(Host), Port, Options);
dial(Host, Port, Options) ->
    connect(#{host => Host, port => Port}, Options).

%% The process that dials goes on afterwards, as a TLS session does.
connect(Endpoint, Options) ->
    {ok, Checked} = erlmcp_native_options:connection(Options),
    Test = self(),
    Dialler = spawn_link(fun() ->
        Result = erlmcp_native_beam_dial:connect(Endpoint, Checked),
        _ = [ok = gen_tcp:controlling_process(Socket, Test) || {ok, Socket} <- [Result]],
        Test ! {self(), Result},
        receive stop -> ok end
    end),
    receive
        {Dialler, Result} -> Result
    after ?WAIT -> ct:fail(stuck)
    end.

listen(Ip, Options) ->
    {ok, Listen} = gen_tcp:listen(0, [{ip, Ip} | Options]),
    {ok, Port} = inet:port(Listen),
    {Listen, Port}.

path_listen(Endpoint) ->
    {ok, Options} = erlmcp_native_options:listener(#{}),
    {ok, Listener} = ?PATH:listen(Endpoint, Options),
    Listener.

accept(Listener, Max) ->
    ?PATH:accept(ready(Listener), Max).

ready(Listener) ->
    receive
        Msg ->
            {ready, Ready} = ?PATH:listener_handle_info(Msg, Listener),
            Ready
    after ?WAIT -> ct:fail(no_connection)
    end.

accept_all(Listener, 0) ->
    {[], Listener};
accept_all(Listener, Left) ->
    case ?PATH:accept(Listener, 10) of
        {[], armed, Next} ->
            accept_all(ready(Next), Left);
        {Sockets, _, Next} ->
            {Others, Last} = accept_all(Next, Left - length(Sockets)),
            {Sockets ++ Others, Last}
    end.

acceptor() ->
    {monitors, Monitors} = process_info(self(), monitors),
    [Pid] = [Pid || {process, Pid} <- Monitors],
    Pid.

ended(Monitor) ->
    ended(Monitor, ?WAIT).

ended(Monitor, Timeout) ->
    receive
        {'DOWN', Monitor, _, _, _} -> ok
    after Timeout -> ct:fail(alive)
    end.

mailbox() ->
    {messages, Messages} = process_info(self(), messages),
    Messages.

%% A path for a Unix socket must be short; Common Test's directories are not.
path() ->
    Name = [os:getpid(), "_", integer_to_list(erlang:unique_integer([positive]))],
    iolist_to_binary(["/tmp/erlmcp_native_", Name]).
