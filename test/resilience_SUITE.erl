%% What a connection says and does when the other side fails: real faults, on every path.
-module(resilience_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [until/1]).

-define(WAIT, 60000).
-define(PROXY, erlmcp_native_fault_proxy).

all() -> [{group, nif}, {group, port}, {group, beam}, kinds_of_failure, options_of_reconnecting].

groups() ->
    Cases = [
        refused,
        no_answer,
        reset,
        reset_at_once,
        reset_met_by_a_sender,
        shut_down,
        shut_down_at_once,
        no_file_of_a_socket,
        not_the_protocol,
        tls_with_a_plain_server,
        tls_not_answered,
        tls_reset,
        tls_shut_down,
        back_after_a_refusal,
        back_after_a_reset,
        back_after_a_shutdown,
        back_after_silence,
        unstable_is_one_outage,
        http_failures
    ],
    [{Path, [], Cases} || Path <- [nif, port, beam]].

init_per_suite(Config) -> test_config:start([erlmcp_native], Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> [{path, Path} | Config].

end_per_group(_, _) -> ok.

init_per_testcase(Case, Config) when Case =:= kinds_of_failure; Case =:= options_of_reconnecting ->
    Config;
init_per_testcase(_, Config) ->
    Options = #{path => path(Config), active => true},
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, Options),
    {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
    {ok, Proxy} = ?PROXY:start(#{port => Port}),
    [{listener, Listener}, {proxy, Proxy} | Config].

end_per_testcase(_, Config) ->
    case proplists:get_value(proxy, Config) of
        undefined ->
            ok;
        Proxy ->
            ok = ?PROXY:stop(Proxy),
            erlmcp_native:close(proplists:get_value(listener, Config))
    end.

%% What has failed

refused(Config) ->
    ok = set(Config, #{mode => refuse}),
    ?assertEqual(refused, why(dial(Config, #{}))).

no_answer(Config) ->
    ok = set(Config, #{mode => timeout}),
    ?assertEqual(timeout, why(dial(Config, #{connect_timeout_ms => 200}))).

reset(Config) ->
    Conn = connected(Config, #{}),
    {ok, _} = ?PROXY:cut(proxy(Config), reset),
    ?assertEqual(reset, why(Conn)).

%% Nothing tells a connection that is reset between connecting and the first look from one that
%% was open.
reset_at_once(Config) ->
    ok = set(Config, #{mode => reset}),
    ?assertEqual(reset, why(dial(Config, #{}))).

%% Whoever meets the reset first, the owner is told of a reset.
reset_met_by_a_sender(Config) ->
    ok = set(Config, #{mode => reset}),
    [
        begin
            Conn = dial(Config, #{}),
            case erlmcp_native:await_connected(Conn, ?WAIT) of
                ok ->
                    _ = [erlmcp_native:send(Conn, <<"{}">>) || _ <- [1, 2, 3]],
                    ?assertEqual(reset, why(Conn));
                {error, Reason} ->
                    ?assertEqual(reset, Reason)
            end
        end
     || _ <- lists:seq(1, 30)
    ].

shut_down(Config) ->
    Conn = connected(Config, #{}),
    {ok, _} = ?PROXY:cut(proxy(Config), shutdown),
    ?assertEqual(closed, why(Conn)).

shut_down_at_once(Config) ->
    ok = set(Config, #{mode => shutdown}),
    ?assertEqual(closed, why(dial(Config, #{}))).

no_file_of_a_socket(Config) ->
    {ok, Conn} = erlmcp_native:connect(#{path => "/no/such/socket"}, #{path => path(Config)}),
    ?assertEqual(refused, erlmcp_native:failure(why(Conn))).

not_the_protocol(Config) ->
    ok = set(Config, #{mode => {answer, <<"SSH-2.0-OpenSSH_9.2">>}}),
    ?assertEqual(frame_too_large, why(dial(Config, #{framing => length4}))).

tls_with_a_plain_server(Config) ->
    ok = set(Config, #{mode => {answer, <<"220 mail.example.org ready\r\n">>}}),
    ?assertEqual(tls, erlmcp_native:failure(why(dial(Config, tls())))).

tls_not_answered(Config) ->
    ok = set(Config, #{mode => silent}),
    Conn = dial(Config, (tls())#{handshake_timeout_ms => 200}),
    ?assertEqual({tls, timeout}, why(Conn)).

%% Erlang's `ssl' has one word for both.
%% ssl may have one word for a reset and an orderly end.
tls_reset(Config) ->
    ok = set(Config, #{mode => reset}),
    Expected =
        case path(Config) of
            beam -> [closed, reset];
            _ -> [reset]
        end,
    Why = why(dial(Config, tls())),
    ?assertEqual({Why, true}, {Why, lists:member(Why, Expected)}).

tls_shut_down(Config) ->
    ok = set(Config, #{mode => shutdown}),
    ?assertEqual(closed, why(dial(Config, tls()))).

tls() -> #{tls => #{verify => none}}.

%% There again

back_after_a_refusal(Config) ->
    Conn = connected(Config, #{reconnect => true}),
    ok = set(Config, #{mode => refuse}),
    {ok, 1} = ?PROXY:cut(proxy(Config), reset),
    {reset, _} = told(Conn),
    {refused, _} = told(Conn),
    back(Conn, Config).

back_after_a_reset(Config) ->
    Conn = connected(Config, #{reconnect => true}),
    ok = set(Config, #{mode => reset}),
    {ok, 1} = ?PROXY:cut(proxy(Config), reset),
    {reset, {retry_in, 0}} = told(Conn),
    {reset, _} = told(Conn),
    back(Conn, Config).

back_after_a_shutdown(Config) ->
    Conn = connected(Config, #{reconnect => true}),
    ok = set(Config, #{mode => shutdown}),
    {ok, 1} = ?PROXY:cut(proxy(Config), shutdown),
    {closed, {retry_in, 0}} = told(Conn),
    {closed, _} = told(Conn),
    back(Conn, Config).

back_after_silence(Config) ->
    Conn = connected(Config, #{reconnect => true, connect_timeout_ms => 200}),
    ok = set(Config, #{mode => timeout}),
    {ok, 1} = ?PROXY:cut(proxy(Config), reset),
    {reset, _} = told(Conn),
    {timeout, {retry_in, Ms}} = told(Conn),
    ?assert(Ms =< 100),
    back(Conn, Config).

%% What was tried is not forgotten with a connection that does not hold.
unstable_is_one_outage(Config) ->
    ok = set(Config, #{mode => shutdown}),
    Conn = dial(Config, #{reconnect => #{stable_ms => 600000}}),
    {closed, {retry_in, 0}} = told(Conn),
    [{closed, {retry_in, _}} = told(Conn) || _ <- lists:seq(1, 5)],
    ok = erlmcp_native:close(Conn).

back(Conn, Config) ->
    ok = ?PROXY:clear(proxy(Config)),
    ok = gets_through(Conn),
    {ok, #{attempts := Attempts}} = erlmcp_native:info(Conn),
    ?assert(Attempts > 1),
    ok = erlmcp_native:close(Conn).

%% The connection that is under way may be one that fails yet.
gets_through(Conn) ->
    _ = erlmcp_native:await_connected(Conn, ?WAIT),
    case erlmcp_native:send(Conn, <<"{}">>) of
        ok -> arrives(Conn);
        {error, _} -> gets_through(Conn)
    end.

arrives(Conn) ->
    receive
        {erlmcp_native, Served, {frames, [<<"{}">>]}} when Served =/= Conn -> ok;
        {erlmcp_native, Conn, {down, _, _}} -> gets_through(Conn)
    after ?WAIT -> ct:fail(nothing_arrived)
    end.

%% Over HTTP

http_failures(Config) ->
    Plain = <<"220 mail.example.org ready\r\n">>,
    Expected = [
        {http, refuse, [refused]},
        {http, timeout, [timeout]},
        {http, silent, [timeout]},
        {http, reset, [reset]},
        {http, shutdown, [shutdown]},
        {http, {answer, Plain}, [protocol]},
        {https, {answer, Plain}, [tls]},
        {https, refuse, [refused]}
    ],
    [
        begin
            ok = set(Config, #{mode => Mode}),
            Kind = erlmcp_native:failure(http_failure(Scheme, Config)),
            ?assertEqual({Scheme, Mode, Kinds}, {Scheme, Mode, [Kind]})
        end
     || {Scheme, Mode, Kinds} <- Expected
    ].

http_failure(Scheme, Config) ->
    #{port := Port} = ?PROXY:endpoint(proxy(Config)),
    Url = io_lib:format("~s://127.0.0.1:~b/mcp", [Scheme, Port]),
    {ok, Client} = erlmcp_native_http_client:start_link(lists:flatten(Url), #{
        path => path(Config),
        retries => 0,
        connect_timeout_ms => 500,
        timeout_ms => 500,
        tls => #{verify => none}
    }),
    Message = #{jsonrpc => <<"2.0">>, id => 1, method => <<"initialize">>, params => #{}},
    ok = erlmcp_native_http_client:send(Client, erlmcp_native_json:encode(Message)),
    receive
        {erlmcp_native, Client, {failed, 1, Reason}} ->
            ok = erlmcp_native_http_client:close(Client),
            Reason
    after ?WAIT -> ct:fail(no_failure)
    end.

%% Pure

kinds_of_failure(_) ->
    Kinds = [
        {refused, refused},
        {{posix, enoent}, refused},
        {timeout, timeout},
        {{tls, timeout}, timeout},
        {reset, reset},
        {closed, shutdown},
        {{tls, unknown_ca}, tls},
        {frame_too_large, protocol},
        {{status, 500, <<>>}, protocol},
        {nxdomain, unreachable},
        {{signal, sigkill}, exited},
        {{command, <<"x">>, enoent}, not_started},
        {port_program, native},
        {{posix, emfile}, other}
    ],
    ?assertEqual(Kinds, [{Reason, erlmcp_native:failure(Reason)} || {Reason, _} <- Kinds]).

options_of_reconnecting(_) ->
    Refused = fun(Reconnect) ->
        {error, Reason} = erlmcp_native:connect(#{port => 1}, #{reconnect => Reconnect}),
        Reason
    end,
    ?assertEqual({option, {reconnect, eager_ms}, -1}, Refused(#{eager_ms => -1})),
    ?assertEqual({option, {reconnect, eager_cap_ms}, 0}, Refused(#{eager_cap_ms => 0})).

path(Config) -> proplists:get_value(path, Config).

proxy(Config) -> proplists:get_value(proxy, Config).

set(Config, Faults) -> ?PROXY:set(proxy(Config), Faults).

dial(Config, Options) ->
    Endpoint = ?PROXY:endpoint(proxy(Config)),
    {ok, Conn} = erlmcp_native:connect(Endpoint, Options#{path => path(Config), active => true}),
    Conn.

connected(Config, Options) ->
    Conn = dial(Config, Options),
    ok = erlmcp_native:await_connected(Conn, ?WAIT),
    until(fun() -> maps:get(connections, ?PROXY:info(proxy(Config))) > 0 end),
    Conn.

%% The reason of the end, or of the failure to begin.
why(Conn) ->
    {Reason, final} = told(Conn),
    Reason.

told(Conn) ->
    receive
        {erlmcp_native, Conn, {down, Reason, Next}} -> {Reason, Next}
    after ?WAIT -> ct:fail(not_told)
    end.
