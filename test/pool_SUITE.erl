%% Pools: one outcome for each request, sessions, sizes that follow the load.
-module(pool_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [reason/1, until/1]).

-define(WAIT, 30000).

all() ->
    [{group, nif}, {group, port}, {group, beam}, options_are_checked].

groups() ->
    [{Path, cases()} || Path <- [nif, port, beam]].

cases() ->
    [
        requests_over_tcp,
        requests_over_http,
        requests_to_children,
        error_answers_are_answers,
        one_request_at_a_time,
        queue_is_bounded,
        timeouts,
        lost_connections,
        refused_sessions,
        server_asks,
        grows_and_shrinks,
        stopped_under_load,
        ends_with_its_owner
    ].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

requests_over_tcp(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{initialize => initialize(), scaling => #{min => 2, max => 2}}),
    Ids = lists:seq(1, 200),
    Asked = [ask(Pool, <<"echo">>, #{n => N}) || N <- Ids],
    Outcomes = [outcome(Pool, Id) || Id <- Asked],
    ?assertEqual(Ids, [N || {ok, #{<<"params">> := #{<<"n">> := N}}} <- Outcomes]),
    ?assertMatch({ok, #{in_flight := 0, queued := 0, ready := 2, steps := []}}, info(Pool)),
    %% Each session was opened, on both connections.
    ?assertEqual([2, 2], [count(Server, Method) || Method <- [<<"initialize">>, initialized]]),
    ?assertEqual(
        {error, {option, timeout, 1}},
        erlmcp_native_pool:request(Pool, #{method => <<"echo">>}, #{timeout => 1})
    ),
    stop(Pool).

requests_over_http(Config) ->
    Path = #{path => proplists:get_value(path, Config)},
    {ok, Listener} = erlmcp_native_http:listen(
        #{port => 0}, Path#{handler => {http_handler, self()}}
    ),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    Pool = pool(Config, Url, #{initialize => initialize(), scaling => #{min => 2, max => 2}}),
    Ids = [ask(Pool, <<"tools/list">>) || _ <- lists:seq(1, 20)],
    [?assertMatch({ok, #{<<"tools">> := _}}, outcome(Pool, Id)) || Id <- Ids],
    stop(Pool),
    ok = erlmcp_native_http:close(Listener).

requests_to_children(Config) ->
    %% Each answers what it is asked with what it was asked.
    Sed = "s/\"method\":\"[^\"]*\"/\"result\":{\"x\":1}/",
    Pool = pool(Config, #{command => "sed", args => ["-u", Sed], stderr => null}, #{
        scaling => #{min => 2, max => 2}
    }),
    Ids = [ask(Pool, <<"any">>) || _ <- lists:seq(1, 20)],
    [?assertEqual({ok, #{<<"x">> => 1}}, outcome(Pool, Id)) || Id <- Ids],
    stop(Pool).

error_answers_are_answers(Config) ->
    Server = server(Config, fun(#{<<"id">> := Id}) ->
        #{jsonrpc => <<"2.0">>, id => Id, error => #{code => -32601, message => <<"no">>}}
    end),
    Pool = pool(Config, Server, #{}),
    Id = ask(Pool, <<"any">>),
    ?assertMatch({error, {rpc, #{<<"code">> := -32601}}}, outcome(Pool, Id)),
    stop(Pool).

%% Nothing is sent to a connection beyond what it takes at once.
one_request_at_a_time(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{scaling => #{min => 2, max => 2, per_connection => 1}}),
    [First, Second, Third] = [ask(Pool, <<"hold">>) || _ <- [1, 2, 3]],
    until(fun() -> count(Server, <<"hold">>) =:= 2 end),
    ?assertMatch({ok, #{in_flight := 2, queued := 1}}, info(Pool)),
    release(Server),
    [?assertMatch({ok, _}, outcome(Pool, Id)) || Id <- [First, Second]],
    until(fun() -> count(Server, <<"hold">>) =:= 3 end),
    release(Server),
    ?assertMatch({ok, _}, outcome(Pool, Third)),
    stop(Pool).

queue_is_bounded(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{
        max_queue => 2, scaling => #{min => 1, max => 1, per_connection => 1}
    }),
    Before = metrics(),
    Held = ask(Pool, <<"hold">>),
    until(fun() -> count(Server, <<"hold">>) =:= 1 end),
    Waiting = [ask(Pool, <<"echo">>), ask(Pool, <<"echo">>)],
    ?assertEqual({error, busy}, erlmcp_native_pool:request(Pool, #{method => <<"echo">>})),
    release(Server),
    [?assertMatch({ok, _}, outcome(Pool, Id)) || Id <- [Held | Waiting]],
    ?assertMatch({ok, _}, outcome(Pool, ask(Pool, <<"echo">>))),
    ?assertEqual([4, 1, 4, 4, 4], since(Before)),
    stop(Pool).

%% Accepted, refused, answered, and how often a wait and an answer was measured.
metrics() ->
    Snapshot = erlmcp_native_metrics:overview(pool),
    Value = fun(Name) -> maps:get(value, maps:get(Name, Snapshot)) end,
    Count = fun(Name) -> maps:get(count, Value(Name)) end,
    [Value(pool_requests), Value(pool_refused), Value(pool_outcomes)] ++
        [Count(pool_wait_us), Count(pool_request_us)].

since(Before) -> lists:zipwith(fun erlang:'-'/2, metrics(), Before).

%% The server is told of one that was sent; its late answer is nobody's.
timeouts(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{scaling => #{min => 1, max => 1, per_connection => 1}}),
    Request = #{method => <<"hold">>},
    {ok, Late} = erlmcp_native_pool:request(Pool, Request, #{timeout_ms => 100}),
    ?assertEqual({error, timeout}, outcome(Pool, Late)),
    %% It may not have been sent by then, on a machine that is busy.
    until(fun() ->
        count(Server, <<"hold">>) =:= count(Server, <<"notifications/cancelled">>)
    end),
    release(Server),
    ?assertMatch({ok, _}, outcome(Pool, ask(Pool, <<"echo">>))),
    stop(Pool).

%% What was under way fails, what waits is sent on the next.
lost_connections(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{
        initialize => initialize(), scaling => #{min => 1, max => 1, per_connection => 1}
    }),
    Lost = ask(Pool, <<"hold">>),
    until(fun() -> count(Server, <<"hold">>) =:= 1 end),
    Waiting = ask(Pool, <<"echo">>),
    Server ! cut,
    ?assertEqual({error, {connection, closed}}, outcome(Pool, Lost)),
    ?assertMatch({ok, _}, outcome(Pool, Waiting)),
    ?assertEqual(2, count(Server, <<"initialize">>)),
    stop(Pool).

%% Nothing is sent to a server that will not have the session; it is asked again.
refused_sessions(Config) ->
    Server = server(Config, fun
        (#{<<"method">> := <<"initialize">>, <<"id">> := Id} = Request) ->
            case get(open) of
                true -> echo(Request);
                undefined ->
                    put(open, true),
                    #{jsonrpc => <<"2.0">>, id => Id, error => #{code => 1, message => <<"no">>}}
            end;
        (Request) ->
            echo(Request)
    end),
    Pool = pool(Config, Server, #{initialize => initialize()}),
    ?assertMatch({ok, _}, outcome(Pool, ask(Pool, <<"echo">>))),
    ?assertEqual([2, 1], [count(Server, Method) || Method <- [<<"initialize">>, initialized]]),
    stop(Pool).

server_asks(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{}),
    ?assertMatch({ok, _}, outcome(Pool, ask(Pool, <<"echo">>))),
    Ask = fun(Id, Method) ->
        Question = #{jsonrpc => <<"2.0">>, id => Id, method => Method},
        Server ! {ask, erlmcp_native_json:encode(Question)}
    end,
    Ask(1, <<"ping">>),
    until(fun() -> count(Server, answer) =:= 1 end),
    Ask(2, <<"roots/list">>),
    receive
        {erlmcp_native, Pool, {message, Conn, Question}} ->
            ?assertMatch(#{<<"id">> := 2, <<"method">> := <<"roots/list">>}, Question),
            Answer = #{jsonrpc => <<"2.0">>, id => 2, result => #{roots => []}},
            ok = erlmcp_native_pool:send(Pool, Conn, Answer)
    after ?WAIT -> ct:fail(not_asked)
    end,
    until(fun() -> count(Server, answer) =:= 2 end),
    ?assertEqual({error, closed}, erlmcp_native_pool:send(Pool, self(), #{})),
    stop(Pool).

grows_and_shrinks(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{
        interval_ms => 20,
        scaling => #{min => 1, max => 4, per_connection => 1, cooldown_ms => 100, drain_ms => 10}
    }),
    Ids = [ask(Pool, <<"hold">>) || _ <- lists:seq(1, 100)],
    %% How long one takes is known when the first is answered.
    Releasing = spawn_link(fun() -> keep_releasing(Server) end),
    [?assertMatch({ok, _}, outcome(Pool, Id)) || Id <- Ids],
    true = unlink(Releasing),
    exit(Releasing, kill),
    until(fun() ->
        {ok, #{size := Size, connections := Count, leaving := Leaving}} = info(Pool),
        {Size, Count, Leaving} =:= {1, 1, 0}
    end),
    {ok, #{steps := [Last | _] = Steps}} = info(Pool),
    ?assertMatch(#{to := 1, reason := idle}, Last),
    ?assertMatch(#{from := 1, reason := _}, lists:last(Steps)),
    ?assert(lists:all(fun(#{to := To}) -> To >= 1 andalso To =< 4 end, Steps)),
    stop(Pool).

keep_releasing(Server) ->
    release(Server),
    receive after 10 -> keep_releasing(Server) end.

stopped_under_load(Config) ->
    Server = server(Config, fun echo/1),
    Pool = pool(Config, Server, #{}),
    Ids = [ask(Pool, <<"hold">>) || _ <- [1, 2, 3]],
    stop(Pool),
    [?assertEqual({error, closed}, outcome(Pool, Id)) || Id <- Ids],
    ?assertEqual({error, closed}, erlmcp_native_pool:request(Pool, #{method => <<"echo">>})),
    ok = erlmcp_native_pool:stop(Pool).

ends_with_its_owner(Config) ->
    Server = server(Config, fun echo/1),
    Owner = spawn(fun() -> receive stop -> ok end end),
    Pool = pool(Config, Server, #{owner => Owner}),
    Monitor = monitor(process, Pool),
    Owner ! stop,
    ?assertEqual(normal, reason(Monitor)).

options_are_checked(_) ->
    Refused = fun(Key, Value) ->
        Given = #{endpoint => #{port => 1}},
        Start = erlmcp_native_pool:start_link(Given#{Key => Value}),
        ?assertEqual({error, {option, Key, Value}}, Start)
    end,
    [Refused(Key, Value) || {Key, Value} <- [
        {owner, me}, {connect, []}, {initialize, true}, {interval_ms, 0}, {max_queue, -1},
        {initialize_timeout_ms, 1.0}, {size, 1}, {endpoint, 7}
    ]],
    Scaling = fun(Key, Value) ->
        Given = #{endpoint => #{port => 1}, scaling => #{Key => Value}},
        ?assertEqual({error, {option, {scaling, Key}, Value}}, erlmcp_native_pool:start_link(Given))
    end,
    [Scaling(Key, Value) || {Key, Value} <- [
        {min, 0}, {max, 0}, {per_connection, 0}, {horizon_ms, -1}, {drain_ms, 0}, {cooldown_ms, x},
        {other, 1}
    ]],
    ?assertEqual(
        {error, {option, {scaling, max}, 2}},
        erlmcp_native_pool:start_link(#{endpoint => #{port => 1}, scaling => #{min => 3, max => 2}})
    ),
    process_flag(trap_exit, true),
    ?assertEqual(
        {error, {option, framing, x}},
        erlmcp_native_pool:start_link(#{endpoint => #{port => 1}, connect => #{framing => x}})
    ),
    receive {'EXIT', _, {shutdown, _}} -> ok after 0 -> ok end.

%% Messages

initialize() ->
    #{protocolVersion => <<"2025-11-25">>, capabilities => #{},
        clientInfo => #{name => <<"pool">>, version => <<"1">>}}.

ask(Pool, Method) ->
    ask(Pool, Method, #{}).

ask(Pool, Method, Params) ->
    {ok, Id} = erlmcp_native_pool:request(Pool, #{method => Method, params => Params}),
    Id.

echo(#{<<"id">> := Id} = Request) ->
    #{jsonrpc => <<"2.0">>, id => Id, result => Request}.

%% A server that answers with what the function says, but what is to be held when it is released. It
%% counts what it gets by method.

server(Config, Answer) ->
    Test = self(),
    Server = spawn_link(fun() ->
        Options = #{path => proplists:get_value(path, Config), active => true},
        {ok, Listener} = erlmcp_native:listen(#{port => 0}, Options),
        {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
        Test ! {self(), Port},
        serve(#{answer => Answer, counts => #{}, held => [], conns => []})
    end),
    receive {Server, Port} -> put(Server, Port) after ?WAIT -> ct:fail(no_server) end,
    Server.

serve(#{counts := Counts, held := Held, conns := Conns} = S) ->
    receive
        {erlmcp_native, _, {accepted, Conn}} -> serve(S#{conns := [Conn | Conns]});
        {erlmcp_native, Conn, {frames, Frames}} ->
            serve(lists:foldl(fun(Frame, Acc) -> served(Conn, Frame, Acc) end, S, Frames));
        {erlmcp_native, Conn, {down, _, final}} -> serve(S#{conns := lists:delete(Conn, Conns)});
        {erlmcp_native, _, _} -> serve(S);
        {count, From, Key} -> From ! {self(), maps:get(Key, Counts, 0)}, serve(S);
        release -> [reply(Conn, Request, S) || {Conn, Request} <- Held], serve(S#{held := []});
        {ask, Message} -> [erlmcp_native:send(Conn, Message) || Conn <- Conns], serve(S);
        cut -> [erlmcp_native:close(Conn) || Conn <- Conns], serve(S#{conns := [], held := []})
    end.

served(Conn, Frame, #{counts := Counts, held := Held} = S) ->
    {ok, Message} = erlmcp_native_json:decode(Frame),
    Key = case Message of
        #{<<"method">> := <<"notifications/initialized">>} -> initialized;
        #{<<"method">> := Method} -> Method;
        #{} -> answer
    end,
    Counted = S#{counts := maps:update_with(Key, fun(N) -> N + 1 end, 1, Counts)},
    case Message of
        #{<<"method">> := <<"hold">>} -> Counted#{held := [{Conn, Message} | Held]};
        #{<<"method">> := _, <<"id">> := _} -> reply(Conn, Message, S), Counted;
        #{} -> Counted
    end.

reply(Conn, Request, #{answer := Answer}) ->
    erlmcp_native:send(Conn, erlmcp_native_json:encode(Answer(Request))).

count(Server, Key) ->
    Server ! {count, self(), Key},
    receive {Server, Count} -> Count after ?WAIT -> ct:fail(no_count) end.

release(Server) ->
    Server ! release.

pool(Config, Server, Options) when is_pid(Server) ->
    pool(Config, #{port => get(Server)}, Options);
pool(Config, Endpoint, Options) ->
    Connect = #{path => proplists:get_value(path, Config)},
    {ok, Pool} = erlmcp_native_pool:start_link(Options#{endpoint => Endpoint, connect => Connect}),
    Pool.

info(Pool) -> erlmcp_native_pool:info(Pool).

outcome(Pool, Id) ->
    receive
        {erlmcp_native, Pool, {outcome, Id, Outcome}} -> Outcome
    after ?WAIT -> ct:fail({no_outcome, Id, process_info(self(), messages)})
    end.

stop(Pool) ->
    Monitor = monitor(process, Pool),
    ok = erlmcp_native_pool:stop(Pool),
    reason(Monitor).
