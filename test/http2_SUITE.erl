%% MCP over HTTP/2, spoken by gun: the server on the paths that have it. What is HTTP/2's own, such
%% as floods of frames, is tested in the core.
-module(http2_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_certs, [file/2]).

-define(WAIT, 10000).
-define(REVISION, <<"2026-07-28">>).
-define(META, "io.modelcontextprotocol/").

all() ->
    [{group, nif}, {group, port}].

groups() ->
    [{nif, cases()}, {port, cases()}].

cases() ->
    [
        prior_knowledge,
        protocol_agreed_on_with_tls,
        older_protocol_agreed_on_with_tls,
        answers_in_any_order,
        large_bodies_both_ways,
        event_stream,
        reset_stream_is_a_cancel,
        session_over_two_connections,
        neighbour_of_a_refused_request
    ].

init_per_suite(Config) ->
    test_config:start([erlmcp_native, gun], test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_http_path, Path, Config).

end_per_group(_, _) -> ok.

prior_knowledge(Config) ->
    Conn = connect(listen(Config, #{})),
    ?assertMatch({200, _, #{<<"result">> := #{<<"tools">> := [_ | _]}}}, tools(Conn)).

protocol_agreed_on_with_tls(Config) ->
    {Conn, Protocol} = connect_tls(listen_tls(Config), [http2], Config),
    ?assertEqual(http2, Protocol),
    ?assertMatch({200, _, #{<<"result">> := #{}}}, tools(Conn)).

older_protocol_agreed_on_with_tls(Config) ->
    {Conn, Protocol} = connect_tls(listen_tls(Config), [http], Config),
    ?assertEqual(http, Protocol),
    ?assertMatch({200, _, #{<<"result">> := #{}}}, tools(Conn)).

%% No request waits for one before it on the same connection.
answers_in_any_order(Config) ->
    Conn = connect(listen(Config, #{})),
    Streams = [{Id, call(Conn, Id, <<"wait">>, #{<<"n">> => Id})} || Id <- lists:seq(1, 50)],
    Waiting = [receive {waiting, Pid, #{<<"n">> := Id}} -> {Id, Pid} end || {Id, _} <- Streams],
    lists:foreach(
        fun({Id, Stream}) ->
            {Id, Pid} = lists:keyfind(Id, 1, Waiting),
            Pid ! {go, integer_to_binary(Id)},
            ?assertEqual({Id, integer_to_binary(Id)}, text(answer(Conn, Stream)))
        end,
        lists:reverse(Streams)
    ).

%% Larger than any window of flow control.
large_bodies_both_ways(Config) ->
    Conn = connect(listen(Config, #{})),
    Large = binary:copy(<<"0123456789abcdef">>, 5 * 65536),
    Streams = [{Id, call(Conn, Id, <<"echo">>, #{<<"x">> => Large})} || Id <- [1, 2]],
    [
        begin
            {Id, Echo} = text(answer(Conn, Stream)),
            ?assertEqual({ok, #{<<"x">> => Large}}, erlmcp_native_json:decode(Echo))
        end
     || {Id, Stream} <- Streams
    ].

event_stream(Config) ->
    Conn = connect(listen(Config, #{})),
    Stream = call(Conn, 1, <<"progress">>, #{<<"n">> => 20}),
    {response, nofin, 200, Headers} = gun:await(Conn, Stream, ?WAIT),
    ?assertEqual(
        {<<"content-type">>, <<"text/event-stream">>},
        lists:keyfind(<<"content-type">>, 1, Headers)
    ),
    {ok, Body} = gun:await_body(Conn, Stream, ?WAIT),
    {ok, Events, _} = erlmcp_native_sse:feed(Body, erlmcp_native_sse:new()),
    Messages = [element(2, erlmcp_native_json:decode(Data)) || {event, #{data := Data}} <- Events],
    ?assertEqual(
        lists:seq(1, 20),
        [N || #{<<"params">> := #{<<"progress">> := N}} <- Messages]
    ),
    ?assertMatch(#{<<"id">> := 1, <<"result">> := #{}}, lists:last(Messages)).

%% 2026-07-28: the request's process ends; the other streams of the connection go on.
reset_stream_is_a_cancel(Config) ->
    Conn = connect(listen(Config, #{})),
    Given_up = call(Conn, 1, <<"wait">>, #{}),
    Pid = receive {waiting, Process, _} -> Process end,
    Other = call(Conn, 2, <<"wait">>, #{}),
    OtherPid = receive {waiting, Process2, _} -> Process2 end,
    Monitor = monitor(process, Pid),
    ok = gun:cancel(Conn, Given_up),
    receive
        {'DOWN', Monitor, process, Pid, Reason} -> ?assertEqual({shutdown, gone}, Reason)
    after ?WAIT -> ct:fail(not_cancelled)
    end,
    OtherPid ! {go, <<"still there">>},
    ?assertEqual({2, <<"still there">>}, text(answer(Conn, Other))).

session_over_two_connections(Config) ->
    Server = listen(Config, #{}),
    [First, Second] = [connect(Server), connect(Server)],
    Initialize = gun:post(First, "/mcp", legacy_headers([]), message(1, <<"initialize">>, #{
        <<"protocolVersion">> => <<"2025-11-25">>,
        <<"capabilities">> => #{},
        <<"clientInfo">> => #{<<"name">> => <<"gun">>, <<"version">> => <<"1">>}
    })),
    {200, Headers, _} = answer(First, Initialize),
    {_, Session} = lists:keyfind(<<"mcp-session-id">>, 1, Headers),
    In = legacy_headers([{<<"mcp-session-id">>, Session}]),
    Ping = gun:post(Second, "/mcp", In, message(2, <<"ping">>, #{})),
    ?assertMatch({200, _, #{<<"id">> := 2, <<"result">> := #{}}}, answer(Second, Ping)),
    Delete = gun:delete(Second, "/mcp", In),
    ?assertMatch({response, fin, 204, _}, gun:await(Second, Delete, ?WAIT)),
    Late = gun:post(First, "/mcp", In, message(3, <<"ping">>, #{})),
    ?assertMatch({404, _, _}, answer(First, Late)).

%% One that is too large is refused on its stream, and nothing else is.
neighbour_of_a_refused_request(Config) ->
    Conn = connect(listen(Config, #{max_body_bytes => 1000})),
    Waiting = call(Conn, 1, <<"wait">>, #{}),
    Pid = receive {waiting, Process, _} -> Process end,
    Large = call(Conn, 2, <<"echo">>, #{<<"x">> => binary:copy(<<"x">>, 2000)}),
    ?assertMatch({413, _, _}, answer(Conn, Large)),
    Pid ! {go, <<"fine">>},
    ?assertEqual({1, <<"fine">>}, text(answer(Conn, Waiting))).

%% Helpers

listen(Config, Options) ->
    {ok, Listener} = erlmcp_native_http:listen(#{port => 0}, Options#{
        path => proplists:get_value(path, Config), handler => {http_handler, self()}
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    {Listener, Port}.

listen_tls(Config) ->
    listen(Config, #{
        tls => #{certfile => file(Config, "server.pem"), keyfile => file(Config, "server.key")}
    }).

connect({_, Port}) ->
    {Conn, http2} = up(gun:open("127.0.0.1", Port, #{protocols => [http2], retry => 0})),
    Conn.

connect_tls({_, Port}, Protocols, Config) ->
    up(gun:open("localhost", Port, #{
        protocols => Protocols,
        transport => tls,
        retry => 0,
        transport_opts => [
            {verify, verify_peer},
            {cacertfile, file(Config, "ca.pem")},
            {server_name_indication, "localhost"}
        ]
    })).

up({ok, Conn}) ->
    {ok, Protocol} = gun:await_up(Conn, ?WAIT),
    {Conn, Protocol}.

tools(Conn) ->
    answer(Conn, post(Conn, [{<<"mcp-method">>, <<"tools/list">>}], 1, <<"tools/list">>, #{})).

call(Conn, Id, Name, Arguments) ->
    Headers = [{<<"mcp-method">>, <<"tools/call">>}, {<<"mcp-name">>, Name}],
    post(Conn, Headers, Id, <<"tools/call">>, #{
        <<"name">> => Name, <<"arguments">> => Arguments
    }).

post(Conn, Headers, Id, Method, Params) ->
    Meta = #{
        <<?META, "protocolVersion">> => ?REVISION, <<?META, "clientCapabilities">> => #{}
    },
    Body = message(Id, Method, Params#{<<"_meta">> => Meta}),
    gun:post(Conn, "/mcp", headers([{<<"mcp-protocol-version">>, ?REVISION} | Headers]), Body).

message(Id, Method, Params) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => Method, <<"params">> => Params
    }).

legacy_headers(More) -> headers([{<<"mcp-protocol-version">>, <<"2025-11-25">>} | More]).

headers(More) ->
    [
        {<<"content-type">>, <<"application/json">>},
        {<<"accept">>, <<"application/json, text/event-stream">>}
        | More
    ].

answer(Conn, Stream) ->
    case gun:await(Conn, Stream, ?WAIT) of
        {response, fin, Status, Headers} ->
            {Status, Headers, none};
        {response, nofin, Status, Headers} ->
            {ok, Body} = gun:await_body(Conn, Stream, ?WAIT),
            {ok, Message} = erlmcp_native_json:decode(Body),
            {Status, Headers, Message}
    end.

text({200, _, #{<<"id">> := Id, <<"result">> := #{<<"content">> := [#{<<"text">> := Text}]}}}) ->
    {Id, Text}.
