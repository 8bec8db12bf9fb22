%% What the fault proxy does to real connections.
-module(fault_proxy_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [until/1]).

-define(WAIT, 30000).
-define(PROXY, erlmcp_native_fault_proxy).

all() ->
    [
        passes_both_ways,
        passes_the_end_of_one_side,
        passes_a_reset,
        passes_a_megabyte_in_order,
        refuses_and_keeps_the_port,
        answers_no_attempt,
        resets,
        shuts_down,
        says_nothing,
        says_what_it_is_told,
        stalls,
        drops,
        delays_in_order,
        limits_bandwidth,
        cuts,
        a_server_that_is_gone,
        ends_with_its_connections,
        options
    ].

init_per_testcase(_, Config) ->
    {Listen, Port} = test_socket:listen([{exit_on_close, false}]),
    {ok, Proxy} = ?PROXY:start(#{port => Port}),
    [{listen, Listen}, {proxy, Proxy} | Config].

end_per_testcase(_, Config) ->
    _ = is_process_alive(proxy(Config)) andalso ?PROXY:stop(proxy(Config)),
    gen_tcp:close(proplists:get_value(listen, Config)).

passes_both_ways(Config) ->
    {Client, Server} = pair(Config),
    ok = gen_tcp:send(Client, <<"up">>),
    ?assertEqual({ok, <<"up">>}, gen_tcp:recv(Server, 2, ?WAIT)),
    ok = gen_tcp:send(Server, <<"down!">>),
    ?assertEqual({ok, <<"down!">>}, gen_tcp:recv(Client, 5, ?WAIT)),
    ?assertMatch(
        #{accepted := 1, connections := 1, bytes_up := 2, bytes_down := 5, bytes_dropped := 0},
        ?PROXY:info(proxy(Config))
    ).

passes_the_end_of_one_side(Config) ->
    {Client, Server} = pair(Config),
    ok = gen_tcp:send(Client, <<"last">>),
    ok = gen_tcp:shutdown(Client, write),
    ?assertEqual({ok, <<"last">>}, gen_tcp:recv(Server, 4, ?WAIT)),
    ?assertEqual({error, closed}, gen_tcp:recv(Server, 0, ?WAIT)),
    ok = gen_tcp:send(Server, <<"answer">>),
    ok = gen_tcp:close(Server),
    ?assertEqual({ok, <<"answer">>}, gen_tcp:recv(Client, 6, ?WAIT)),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, ?WAIT)),
    until(fun() -> maps:get(connections, ?PROXY:info(proxy(Config))) =:= 0 end).

passes_a_reset(Config) ->
    {Client, Server} = pair(Config),
    ok = erlmcp_native_beam_inet:abort(Server),
    ?assertEqual({error, econnreset}, gen_tcp:recv(Client, 0, ?WAIT)).

passes_a_megabyte_in_order(Config) ->
    {Client, Server} = pair(Config),
    Data = crypto:strong_rand_bytes(1048576),
    spawn_link(fun() -> ok = gen_tcp:send(Client, Data) end),
    ?assertEqual({ok, Data}, gen_tcp:recv(Server, byte_size(Data), ?WAIT)).

refuses_and_keeps_the_port(Config) ->
    {Client, Server} = pair(Config),
    ok = set(Config, #{mode => refuse}),
    ?assertEqual({error, econnrefused}, connect(Config)),
    ok = gen_tcp:send(Client, <<"up">>),
    ?assertEqual({ok, <<"up">>}, gen_tcp:recv(Server, 2, ?WAIT)),
    #{port := Port} = ?PROXY:endpoint(proxy(Config)),
    ?assertEqual({error, eaddrinuse}, gen_tcp:listen(Port, [{ip, {127, 0, 0, 1}}])),
    ok = ?PROXY:clear(proxy(Config)),
    {_, _} = pair(Config).

answers_no_attempt(Config) ->
    ok = set(Config, #{mode => timeout}),
    ?assertEqual({error, timeout}, connect(Config, 200)),
    ok = ?PROXY:clear(proxy(Config)),
    {_, _} = pair(Config).

resets(Config) ->
    ok = set(Config, #{mode => reset}),
    ?assertEqual({error, econnreset}, first_word(Config)),
    ok = ?PROXY:clear(proxy(Config)),
    {_, _} = pair(Config).

shuts_down(Config) ->
    ok = set(Config, #{mode => shutdown}),
    ?assertEqual({error, closed}, first_word(Config)).

says_nothing(Config) ->
    ok = set(Config, #{mode => silent}),
    {ok, Client} = connect(Config),
    ok = gen_tcp:send(Client, <<"hello">>),
    until(fun() -> maps:get(bytes_dropped, ?PROXY:info(proxy(Config))) =:= 5 end),
    ?assertEqual({error, timeout}, gen_tcp:recv(Client, 0, 50)),
    ?assertEqual({ok, 1}, ?PROXY:cut(proxy(Config), shutdown)),
    ?assertEqual({error, closed}, gen_tcp:recv(Client, 0, ?WAIT)).

says_what_it_is_told(Config) ->
    ok = set(Config, #{mode => {answer, <<"SSH-2.0-x">>}}),
    ?assertEqual({ok, <<"SSH-2.0-x">>}, first_word(Config)).

%% The sender feels it: not everything of many megabytes can be on its way.
stalls(Config) ->
    {Client, Server} = pair(Config),
    ok = set(Config, #{up => stall}),
    ok = inet:setopts(Client, [{send_timeout, 100}]),
    Chunk = binary:copy(<<"x">>, 16 * 1048576),
    ?assertEqual({error, timeout}, fill(Client, Chunk, 64)),
    ok = gen_tcp:send(Server, <<"down">>),
    ?assertEqual({ok, <<"down">>}, gen_tcp:recv(Client, 4, ?WAIT)),
    ok = set(Config, #{up => pass}),
    ?assertEqual({ok, binary:copy(<<"x">>, 65536)}, gen_tcp:recv(Server, 65536, ?WAIT)).

fill(_, _, 0) ->
    ok;
fill(Client, Chunk, Left) ->
    case gen_tcp:send(Client, Chunk) of
        ok -> fill(Client, Chunk, Left - 1);
        {error, _} = Error -> Error
    end.

drops(Config) ->
    {Client, Server} = pair(Config),
    ok = set(Config, #{up => drop}),
    ok = gen_tcp:send(Client, <<"lost">>),
    until(fun() -> maps:get(bytes_dropped, ?PROXY:info(proxy(Config))) =:= 4 end),
    ok = set(Config, #{up => pass}),
    ok = gen_tcp:send(Client, <<"kept">>),
    ?assertEqual({ok, <<"kept">>}, gen_tcp:recv(Server, 4, ?WAIT)).

delays_in_order(Config) ->
    {Client, Server} = pair(Config),
    ok = set(Config, #{delay_ms => 50, jitter_ms => 50}),
    Words = [<<N:32>> || N <- lists:seq(1, 100)],
    Start = erlang:monotonic_time(millisecond),
    [ok = gen_tcp:send(Client, Word) || Word <- Words],
    ?assertEqual({ok, iolist_to_binary(Words)}, gen_tcp:recv(Server, 400, ?WAIT)),
    ?assert(erlang:monotonic_time(millisecond) - Start >= 50).

limits_bandwidth(Config) ->
    {Client, Server} = pair(Config),
    ok = set(Config, #{bytes_per_s => 100000}),
    Start = erlang:monotonic_time(millisecond),
    ok = gen_tcp:send(Client, binary:copy(<<"x">>, 50000)),
    {ok, _} = gen_tcp:recv(Server, 50000, ?WAIT),
    %% The last piece is not waited for, nor is what idle time allows.
    ?assert(erlang:monotonic_time(millisecond) - Start >= 400).

cuts(Config) ->
    {A, AServer} = pair(Config),
    ?assertEqual({ok, 1}, ?PROXY:cut(proxy(Config), reset)),
    ?assertEqual({error, econnreset}, gen_tcp:recv(A, 0, ?WAIT)),
    ?assertEqual({error, econnreset}, gen_tcp:recv(AServer, 0, ?WAIT)),
    until(fun() -> maps:get(connections, ?PROXY:info(proxy(Config))) =:= 0 end),
    {B, BServer} = pair(Config),
    ok = set(Config, #{up => stall}),
    ok = gen_tcp:send(B, <<"unread">>),
    ?assertEqual({ok, 1}, ?PROXY:cut(proxy(Config), shutdown)),
    ?assertEqual({error, closed}, gen_tcp:recv(B, 0, ?WAIT)),
    ?assertEqual({error, closed}, gen_tcp:recv(BServer, 0, ?WAIT)).

a_server_that_is_gone(Config) ->
    ok = gen_tcp:close(proplists:get_value(listen, Config)),
    ?assertEqual({error, econnreset}, first_word(Config)).

ends_with_its_connections(Config) ->
    {Client, Server} = pair(Config),
    ok = ?PROXY:stop(proxy(Config)),
    ?assertMatch({error, _}, gen_tcp:recv(Client, 0, ?WAIT)),
    ?assertMatch({error, _}, gen_tcp:recv(Server, 0, ?WAIT)).

options(Config) ->
    Target = #{port => 1},
    Refused = fun(Options) -> ?PROXY:start(Target, Options) end,
    ?assertEqual({error, {option, ip, "localhost"}}, Refused(#{ip => "localhost"})),
    ?assertEqual({error, {option, port, -1}}, Refused(#{port => -1})),
    ?assertEqual({error, {option, what, 1}}, Refused(#{what => 1})),
    ?assertEqual({error, {option, mode, off}}, Refused(#{faults => #{mode => off}})),
    ?assertEqual({error, {option, options, []}}, Refused([])),
    ?assertMatch({error, {option, endpoint, _}}, ?PROXY:start(#{}, #{})),
    ?assertEqual({error, {option, up, 1}}, set(Config, #{up => 1})),
    ?assertEqual({error, {option, faults, x}}, ?PROXY:set(proxy(Config), x)),
    #{port := Taken} = ?PROXY:endpoint(proxy(Config)),
    ?assertEqual({error, address_in_use}, Refused(#{port => Taken})).

proxy(Config) -> proplists:get_value(proxy, Config).

set(Config, Faults) -> ?PROXY:set(proxy(Config), Faults).

connect(Config) -> connect(Config, ?WAIT).

connect(Config, Timeout) ->
    #{host := Host, port := Port} = ?PROXY:endpoint(proxy(Config)),
    Options = [binary, {active, false}, {show_econnreset, true}],
    gen_tcp:connect(Host, Port, Options, Timeout).

first_word(Config) ->
    case connect(Config) of
        {ok, Client} -> gen_tcp:recv(Client, 0, ?WAIT);
        {error, _} = Error -> Error
    end.

pair(Config) ->
    {ok, Client} = connect(Config),
    {ok, Server} = gen_tcp:accept(proplists:get_value(listen, Config), ?WAIT),
    ok = inet:setopts(Server, [{show_econnreset, true}]),
    {Client, Server}.
