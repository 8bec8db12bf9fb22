%% `make demo': the server and a client on each transport and path, with TLS and without.
-module(demo).

-export([main/0]).

-define(CALLS, 10000).
-define(IN_FLIGHT, 32).

main() ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Dir = certificates(),
    Paths = paths(),
    Rows =
        [
            row(Transport, Path, Tls, Dir)
         || Transport <- [tcp, http], Path <- Paths, Tls <- [false, true]
        ] ++ [row(stdio, Path, false, Dir) || Path <- Paths],
    io:format("~n~b tools/call each, ~b in flight; ~s~n", [?CALLS, ?IN_FLIGHT, machine()]),
    io:format("server and client in one node; for stdio the client starts a node~n~n"),
    io:format("~-10s ~-6s ~-4s ~12s ~10s ~10s ~14s~n",
        ["transport", "path", "TLS", "calls/s", "p50 us", "p99 us", "VM memory MB"]),
    [
        io:format("~-10s ~-6s ~-4s ~12b ~10b ~10b ~14.1f~n", tuple_to_list(Row))
     || Row <- Rows
    ],
    halt(0).

paths() ->
    [Path || Path <- [nif, port, beam], is_there(Path, erlmcp_native_path:use(Path))].

is_there(_, {ok, _}) ->
    true;
is_there(Path, {error, Reason}) ->
    io:format("Without the path ~s: ~0tp~n", [Path, Reason]),
    false.

row(Transport, Path, WithTls, Dir) ->
    Server = #{certfile => file(Dir, "server.pem"), keyfile => file(Dir, "server.key")},
    Client = #{cacertfile => file(Dir, "ca.pem")},
    {Stop, Port} = demo_server:start(Transport, Path, only(WithTls, Server)),
    C0 = demo_client:connect(Transport, Port, Path, only(WithTls, Client)),
    C1 = initialize(C0),
    {#{<<"tools">> := [_, _]}, C2} = demo_client:call(<<"tools/list">>, #{}, C1),
    Start = erlang:monotonic_time(microsecond),
    {Times, C3} = demo_client:call_many(?CALLS, ?IN_FLIGHT, fun tool_call/1, fun check/2, C2),
    Elapsed = erlang:monotonic_time(microsecond) - Start,
    {Resource, C4} = demo_client:call(<<"resources/read">>, #{<<"uri">> => <<"demo://large">>}, C3),
    #{<<"contents">> := [#{<<"text">> := <<_:1048576/binary>>}]} = Resource,
    Memory = erlang:memory(total) / 1048576,
    ok = demo_client:close(C4),
    ok = Stop(),
    Sorted = lists:sort(Times),
    Rate = ?CALLS * 1000000 div Elapsed,
    {Transport, Path, yes_no(WithTls), Rate, nth(Sorted, 50), nth(Sorted, 99), Memory}.

initialize(Client) ->
    Params = #{
        <<"protocolVersion">> => <<"2025-06-18">>,
        <<"capabilities">> => #{},
        <<"clientInfo">> => #{<<"name">> => <<"demo">>, <<"version">> => <<"1.0.0">>}
    },
    {#{<<"serverInfo">> := _}, Next} = demo_client:call(<<"initialize">>, Params, Client),
    demo_client:notify(<<"notifications/initialized">>, #{}, Next).

%% Half of the calls add, the others echo.
tool_call(Id) when Id rem 2 =:= 0 ->
    {<<"tools/call">>, #{
        <<"name">> => <<"add">>, <<"arguments">> => #{<<"a">> => Id, <<"b">> => 1}
    }};
tool_call(Id) ->
    {<<"tools/call">>, #{
        <<"name">> => <<"echo">>, <<"arguments">> => #{<<"text">> => integer_to_binary(Id)}
    }}.

check(Id, #{<<"content">> := [#{<<"text">> := Text}]}) ->
    Expected = integer_to_binary(Id + 1 - Id rem 2),
    Expected = Text.

only(true, Tls) -> Tls;
only(false, _) -> false.

yes_no(true) -> "on";
yes_no(false) -> "off".

nth(Sorted, Percent) ->
    lists:nth(max(1, length(Sorted) * Percent div 100), Sorted).

certificates() ->
    Dir = filename:join("_build", "demo"),
    ok = test_certs:make(Dir),
    Dir.

file(Dir, Name) ->
    filename:join(Dir, Name).

machine() ->
    io_lib:format("OTP ~s, ~b cores", [
        erlang:system_info(otp_release), erlang:system_info(logical_processors_available)
    ]).
