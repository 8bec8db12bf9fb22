%% Taking the place of modules of erlmcp, with modules that stand in for them.
-module(takeover_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").

-import(test_log, [logged/1]).
-import(test_socket, [accept/1, listen/0, read/1, write/2]).

-define(WAIT, 10000).

-define(TCP, erlmcp_transport_tcp).
-define(RPC, erlmcp_json_rpc).

all() ->
    [
        off_unless_asked_for,
        unchanged_client_talks,
        unchanged_stdio_client_talks_to_its_child,
        a_child_that_dies_fails_what_waits,
        a_child_for_a_server_process,
        a_client_that_stops_closes,
        a_client_that_dies_closes,
        what_cannot_be_reached_is_an_error,
        a_wrong_option_is_an_error,
        a_transport_that_died_is_replaced,
        one_connection_for_each_process_and_options,
        transports_of_both_shapes,
        json_rpc_decodes,
        json_rpc_encodes,
        a_reload_is_noticed,
        a_reload_is_noticed_in_time,
        a_reload_of_something_else_is_refused,
        restores_when_told,
        restores_when_stopped,
        refuses_another_shape,
        refuses_when_there_is_no_erlmcp,
        refuses_while_the_original_is_in_use,
        in_the_shape_of_the_fork,
        in_embedded_mode
    ].

init_per_suite(Config) ->
    ok = logger:add_handler(?MODULE, test_log, #{}),
    Config.

end_per_suite(_) ->
    ok = logger:remove_handler(?MODULE).

init_per_testcase(Case, Config) ->
    process_flag(trap_exit, true),
    ok = logger:update_handler_config(?MODULE, config, self()),
    Out = filename:join(proplists:get_value(priv_dir, Config), Case),
    [{standins, standin(shape(Case), Config, Out)} | Config].

end_per_testcase(_, Config) ->
    _ = application:stop(erlmcp_native),
    Keys = [takeover, takeover_check_ms, stdio_client],
    [ok = application:unset_env(erlmcp_native, Key) || Key <- Keys],
    standins:unload(proplists:get_value(standins, Config)).

shape(refuses_another_shape) -> ["unknown"];
shape(refuses_when_there_is_no_erlmcp) -> [];
shape(in_the_shape_of_the_fork) -> ["routed"];
shape(_) -> ["owner"].

standin(Shape, Config, Out) ->
    Data = proplists:get_value(data_dir, Config),
    Client = filename:join([Data, "..", "transport_SUITE_data", "erlmcp_client.erl"]),
    Sources = [filename:join([Data, Dir, "*.erl"]) || Dir <- Shape],
    standins:load([Client | lists:append([filelib:wildcard(S) || S <- Sources])], Out).

%% ---- what it is for

off_unless_asked_for(_) ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    ?assertEqual(off, erlmcp_native_takeover:status()),
    ?assertEqual({error, not_connected}, ?TCP:send(#{host => "127.0.0.1", port => 1}, <<"m">>)),
    ?assertEqual(<<"original">>, ?RPC:encode_response(1, 1)),
    ?assertEqual(off, erlmcp_native_takeover:restore()).

unchanged_client_talks(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    {ok, C} = client(Port),
    Call = call(C, <<"initialize">>),
    Peer = accept(Listen),
    ?assertMatch(#{<<"id">> := 1, <<"method">> := <<"initialize">>}, read(Peer)),
    write(Peer, #{<<"id">> => 1, <<"result">> => #{<<"capabilities">> => #{}}}),
    ?assertMatch({ok, #{<<"capabilities">> := #{}}}, result(Call)),
    %% Its messages are its own, and it is guarded.
    write(Peer, #{<<"id">> => 7, <<"method">> => <<"ping">>}),
    ?assertMatch(#{<<"id">> := 7, <<"result">> := #{}}, read(Peer)),
    Next = call(C, <<"tools/list">>),
    ?assertMatch(#{<<"id">> := 2}, read(Peer)),
    write(Peer, #{<<"id">> => 2, <<"result">> => #{<<"tools">> => []}}),
    ?assertMatch({ok, #{<<"tools">> := []}}, result(Next)),
    nothing_received().

%% Echoes the number of each request, and says who it is.
server_script() ->
    "while read -r line; do "
    "id=${line#*'\"id\":'}; id=${id%%[,\\}]*}; "
    "case $line in *end*) exit 3 ;; *silence*) continue ;; esac; "
    "printf '{\"jsonrpc\":\"2.0\",\"id\":%s,\"result\":{\"pid\":%s}}\\n' \"$id\" $$; "
    "done".

child() -> #{command => "sh", args => ["-c", server_script()], stderr => default}.

unchanged_stdio_client_talks_to_its_child(_) ->
    active = take_over(#{stdio_client => child()}),
    {ok, C} = erlmcp_client:start_link({stdio, []}, #{}),
    {ok, #{<<"pid">> := Pid}} = result(call(C, <<"initialize">>)),
    ?assertEqual({ok, #{<<"pid">> => Pid}}, result(call(C, <<"tools/list">>))),
    ok = erlmcp_client:stop(C),
    await_gone(Pid).

a_child_that_dies_fails_what_waits(_) ->
    active = take_over(#{stdio_client => child()}),
    {ok, C} = erlmcp_client:start_link({stdio, []}, #{}),
    {ok, _} = result(call(C, <<"initialize">>)),
    Waiting = call(C, <<"silence">>),
    ?assertMatch({error, _}, result(call(C, <<"end">>))),
    ?assertMatch({error, _}, result(Waiting)),
    ?assertMatch({error, _}, result(call(C, <<"tools/list">>))),
    ok = erlmcp_client:stop(C).

a_child_for_a_server_process(_) ->
    active = take_over(#{}),
    {ok, T} = erlmcp_transport_stdio_new:start_link(tools, (child())#{test_mode => true}),
    ?assertMatch(#{transport_id := tools}, erlmcp_transport_stdio_new:get_info(T)),
    Ping = <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}">>,
    ok = erlmcp_transport_stdio_new:send(T, Ping),
    ok = erlmcp_transport_stdio_new:close(T).

await_gone(Pid) ->
    case string:trim(os:cmd("ps -o stat= -p " ++ integer_to_list(Pid))) of
        [State | _] when State =/= $Z ->
            receive after 20 -> ok end,
            await_gone(Pid);
        _ ->
            ok
    end.

a_client_that_stops_closes(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    {ok, C} = client(Port),
    _ = call(C, <<"tools/list">>),
    Peer = accept(Listen),
    _ = read(Peer),
    ok = erlmcp_client:stop(C),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ok = ?TCP:close(options(Port)).

a_client_that_dies_closes(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    {ok, C} = client(Port),
    true = unlink(C),
    _ = call(C, <<"tools/list">>),
    Peer = accept(Listen),
    _ = read(Peer),
    exit(C, kill),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)).

what_cannot_be_reached_is_an_error(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    ok = gen_tcp:close(Listen),
    {ok, C} = client(Port),
    ?assertMatch({error, refused}, erlmcp_client:request(C, <<"tools/list">>, #{})),
    ?assert(is_process_alive(C)).

a_wrong_option_is_an_error(_) ->
    active = take_over(#{}),
    Options = (options(1))#{no_such => 1},
    Reason = {invalid_config, {option, no_such, 1}},
    ?assertEqual({error, Reason}, ?TCP:send(Options, <<"m">>)),
    ?assertEqual({error, Reason}, ?TCP:start_link(Options)),
    ?assertMatch({error, {invalid_config, _}}, ?TCP:send(#{}, <<"m">>)).

a_transport_that_died_is_replaced(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    Options = options(Port),
    ok = ?TCP:send(Options, <<"one">>),
    Peer = accept(Listen),
    {transport_connected, Transport} = next(),
    Monitor = monitor(process, Transport),
    exit(Transport, kill),
    receive
        {'DOWN', Monitor, _, _, killed} -> ok
    end,
    {ok, <<"one\n">>} = gen_tcp:recv(Peer, 0, ?WAIT),
    ok = ?TCP:send(Options, <<"two">>),
    ?assertEqual({ok, <<"two\n">>}, gen_tcp:recv(accept(Listen), 0, ?WAIT)).

one_connection_for_each_process_and_options(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    Test = self(),
    Others = [options(Port), (options(Port))#{nodelay => true}],
    Senders = [
        spawn_link(fun() ->
            [ok = ?TCP:send(Options, <<"m">>) || _ <- [1, 2], Options <- Others],
            Test ! {self(), sent},
            receive
                stop -> ok
            end
        end)
     || _ <- [a, b]
    ],
    [
        receive
            {Sender, sent} -> ok
        end
     || Sender <- Senders
    ],
    Peers = [accept(Listen) || _ <- [1, 2, 3, 4]],
    [?assertEqual({ok, <<"m\nm\n">>}, gen_tcp:recv(Peer, 4, ?WAIT)) || Peer <- Peers],
    ?assertEqual({error, timeout}, gen_tcp:accept(Listen, 100)),
    [Sender ! stop || Sender <- Senders].

transports_of_both_shapes(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    {ok, Owned} = ?TCP:start_link((options(Port))#{owner => self()}),
    Peer = accept(Listen),
    ?assertEqual({transport_connected, Owned}, next()),
    {ok, State} = gen_server:call(Owned, get_state),
    ok = ?TCP:send(Owned, <<"by pid">>),
    ok = ?TCP:send(State, <<"by state">>),
    ?assertEqual({ok, <<"by pid\nby state\n">>}, gen_tcp:recv(Peer, 16, ?WAIT)),
    ?assertMatch(#{status := connected}, ?TCP:get_info(State)),
    {Listen1, Port1} = listen(),
    ok = ?TCP:connect(Owned, #{port => Port1}),
    _ = accept(Listen1),
    ok = ?TCP:close(State),
    {ok, Routed} = ?TCP:start_link(t, options(Port)),
    ?assertMatch({ok, {Routed, _}}, erlmcp_native_registry:find_transport(t)),
    ?assertMatch(#{transport_id := t}, ?TCP:get_info(Routed)),
    ok = ?TCP:close(Routed).

%% ---- JSON-RPC: what erlmcp's module gives, as its contract has it

json_rpc_decodes(_) ->
    active = take_over(#{}),
    [
        ?assertEqual({Json, Expected}, {Json, ?RPC:decode_message(Json)})
     || {Json, Expected} <- [
            {rpc("\"id\":1,\"method\":\"m\""), {ok, {json_rpc_request, 1, <<"m">>, undefined}}},
            {rpc("\"id\":\"x\",\"method\":\"m\",\"params\":{\"a\":[null,true]}"),
                {ok, {json_rpc_request, <<"x">>, <<"m">>, #{<<"a">> => [null, true]}}}},
            {rpc("\"id\":1,\"method\":\"m\",\"params\":7"),
                {ok, {json_rpc_request, 1, <<"m">>, undefined}}},
            {rpc("\"id\":1,\"method\":\"m\",\"result\":7"),
                {ok, {json_rpc_request, 1, <<"m">>, undefined}}},
            {rpc("\"method\":\"m\",\"params\":[1]"), {ok, {json_rpc_notification, <<"m">>, [1]}}},
            {rpc("\"id\":1,\"result\":null"), {ok, {json_rpc_response, 1, null, undefined}}},
            {rpc("\"id\":1,\"result\":{},\"error\":{}"),
                {ok, {json_rpc_response, 1, #{}, undefined}}},
            {rpc("\"id\":null,\"error\":{\"code\":1}"),
                {ok, {json_rpc_response, null, undefined, #{<<"code">> => 1}}}},
            {rpc("\"id\":{},\"result\":1"), {ok, {json_rpc_response, #{}, 1, undefined}}},
            {rpc("\"id\":1,\"method\":7"), {error, {invalid_request, {invalid_method, 7}}}},
            {rpc("\"method\":null"), {error, {invalid_request, {invalid_method, null}}}},
            {rpc("\"id\":1"), {error, {invalid_request, unknown_message_type}}},
            {rpc("\"error\":1"), {error, {invalid_request, unknown_message_type}}},
            {<<"{\"jsonrpc\":\"1.0\",\"id\":1}">>,
                {error, {invalid_request, {wrong_version, <<"1.0">>}}}},
            {<<"{}">>, {error, {invalid_request, missing_jsonrpc}}},
            {<<"[]">>, {error, {invalid_json, not_object}}},
            {<<"7">>, {error, {invalid_json, not_object}}},
            {<<"{">>, {error, {parse_error, invalid_json}}},
            {<<>>, {error, {parse_error, invalid_json}}}
        ]
    ].

json_rpc_encodes(_) ->
    active = take_over(#{}),
    [
        begin
            ?assert(is_binary(Json)),
            {ok, Message} = erlmcp_native_json:decode(Json),
            ?assertEqual(Expected#{<<"jsonrpc">> => <<"2.0">>}, Message)
        end
     || {Json, Expected} <- [
            {?RPC:encode_request(1, <<"m">>, #{a => 1}),
                #{<<"id">> => 1, <<"method">> => <<"m">>, <<"params">> => #{<<"a">> => 1}}},
            {?RPC:encode_request(null, <<"m">>, undefined),
                #{<<"id">> => null, <<"method">> => <<"m">>}},
            {?RPC:encode_response(<<"x">>, [null, true, <<"t">>]),
                #{<<"id">> => <<"x">>, <<"result">> => [null, true, <<"t">>]}},
            {?RPC:encode_error_response(1, -5, <<"text">>),
                #{
                    <<"id">> => 1,
                    <<"error">> => #{<<"code">> => -5, <<"message">> => <<"text">>}
                }},
            {?RPC:encode_notification(<<"n">>, [1]),
                #{<<"method">> => <<"n">>, <<"params">> => [1]}}
        ]
    ],
    ?assertEqual({mcp_error, -5, <<"text">>, data}, ?RPC:create_error(-5, <<"text">>, data)),
    ?assertError(function_clause, ?RPC:encode_response(1.5, 1)),
    ?assertError(function_clause, ?RPC:encode_request(1, method, #{})).

%% ---- put in place, undone, put back

a_reload_is_noticed(_) ->
    active = take_over(#{}),
    [
        begin
            {module, Module} = code:load_file(Module),
            ?assertNot(is_replaced(Module)),
            ?assertEqual(active, erlmcp_native_takeover:check()),
            ?assert(is_replaced(Module)),
            ?assertMatch({warning, "erlmcp_native: a reload of" ++ _}, logged(warning))
        end
     || Module <- [?TCP, ?RPC]
    ],
    _ = code:purge(?TCP),
    true = code:delete(?TCP),
    ?assertEqual(active, erlmcp_native_takeover:check()),
    ?assert(is_replaced(?TCP)).

a_reload_is_noticed_in_time(_) ->
    active = take_over(#{takeover_check_ms => 20}),
    {module, ?RPC} = code:load_file(?RPC),
    ?assertMatch({warning, "erlmcp_native: a reload of" ++ _}, logged(warning)),
    ?assertEqual(active, erlmcp_native_takeover:status()),
    ?assert(is_replaced(?RPC)).

a_reload_of_something_else_is_refused(Config) ->
    active = take_over(#{}),
    Data = proplists:get_value(data_dir, Config),
    {Out, _} = proplists:get_value(standins, Config),
    Source = filename:join([Data, "unknown", "erlmcp_transport_tcp.erl"]),
    {ok, ?TCP} = compile:file(Source, [{outdir, Out}]),
    {module, ?TCP} = code:load_file(?TCP),
    Refused = {refused, {not_offered, ?TCP, [{start_server, 1}]}},
    ?assertEqual(Refused, erlmcp_native_takeover:check()),
    ?assertMatch({error, "erlmcp_native: takeover refused" ++ _}, logged(error)),
    %% All or nothing.
    ?assertNot(is_replaced(?TCP)),
    ?assertNot(is_replaced(?RPC)),
    ?assertEqual(<<"original">>, ?RPC:encode_response(1, 1)).

restores_when_told(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    ok = ?TCP:send(options(Port), <<"m">>),
    Peer = accept(Listen),
    {ok, <<"m\n">>} = gen_tcp:recv(Peer, 0, ?WAIT),
    ?assertEqual(restored, erlmcp_native_takeover:restore()),
    ?assertEqual({error, closed}, gen_tcp:recv(Peer, 0, ?WAIT)),
    ?assertEqual({error, not_connected}, ?TCP:send(options(Port), <<"m">>)),
    ?assertEqual(<<"original">>, ?RPC:encode_response(1, 1)),
    ?assertEqual(restored, erlmcp_native_takeover:check()),
    ?assertEqual(restored, erlmcp_native_takeover:restore()),
    ?assertEqual(active, erlmcp_native_takeover:install()),
    ?assertEqual(active, erlmcp_native_takeover:install()),
    ok = ?TCP:send(options(Port), <<"again">>),
    ?assertEqual({ok, <<"again\n">>}, gen_tcp:recv(accept(Listen), 0, ?WAIT)).

restores_when_stopped(_) ->
    active = take_over(#{}),
    ok = application:stop(erlmcp_native),
    ?assertNot(is_replaced(?TCP)),
    ?assertNot(is_replaced(?RPC)),
    ?assertEqual(<<"original">>, ?RPC:encode_response(1, 1)),
    ?assertEqual(off, erlmcp_native_takeover:status()).

refuses_another_shape(_) ->
    Reason = {not_offered, ?TCP, [{start_server, 1}]},
    ?assertEqual({refused, Reason}, take_over(#{})),
    ?assertMatch({error, "erlmcp_native: takeover refused" ++ _}, logged(error)),
    ?assertNot(is_replaced(?RPC)),
    ?assertEqual({refused, Reason}, erlmcp_native_takeover:install()).

refuses_when_there_is_no_erlmcp(_) ->
    ?assertEqual({refused, {not_found, ?TCP}}, take_over(#{})),
    ?assertMatch({error, "erlmcp_native: takeover refused" ++ _}, logged(error)).

refuses_while_the_original_is_in_use(_) ->
    {ok, Original} = ?TCP:start_link(#{}),
    ?assertEqual({refused, {in_use, ?TCP, [Original]}}, take_over(#{})),
    ?assertMatch({error, "erlmcp_native: takeover refused" ++ _}, logged(error)),
    ok = ?TCP:close(Original),
    ?assertEqual(active, erlmcp_native_takeover:install()).

in_the_shape_of_the_fork(_) ->
    active = take_over(#{}),
    {Listen, Port} = listen(),
    {ok, T} = ?TCP:start_link(t, options(Port)),
    _ = accept(Listen),
    ?assertMatch(#{transport_id := t}, ?TCP:get_info(T)),
    ok = ?TCP:close(T),
    {ok, C} = client(Port),
    Call = call(C, <<"tools/list">>),
    Peer = accept(Listen),
    #{<<"id">> := 1} = read(Peer),
    write(Peer, #{<<"id">> => 1, <<"result">> => #{}}),
    ?assertEqual({ok, #{}}, result(Call)).

%% No module is loaded there because it is called: what a restore only deletes is gone.
in_embedded_mode(_) ->
    Args = ["-mode", "embedded", "-pa" | code:get_path()],
    {ok, Peer, _} = peer:start_link(#{connection => standard_io, args => Args}),
    On = fun(M, F, A) -> peer:call(Peer, M, F, A, ?WAIT) end,
    ?assertEqual(embedded, On(code, get_mode, [])),
    Modules = [?TCP, ?RPC, erlmcp_client | application_modules()],
    %% The module crypto refuses to be loaded before its application from OTP 29 on.
    [ok = On(application, load, [App]) || App <- [crypto, erlmcp_native]],
    [{module, Module} = On(code, load_file, [Module]) || Module <- Modules],
    ok = On(application, set_env, [erlmcp_native, takeover, true]),
    {ok, _} = On(application, ensure_all_started, [erlmcp_native]),
    ?assertEqual(active, On(erlmcp_native_takeover, status, [])),
    {Listen, Port} = listen(),
    ok = On(?TCP, send, [options(Port), <<"m">>]),
    ?assertEqual({ok, <<"m\n">>}, gen_tcp:recv(accept(Listen), 0, ?WAIT)),
    {module, ?TCP} = On(code, load_file, [?TCP]),
    ?assertEqual(active, On(erlmcp_native_takeover, check, [])),
    ok = On(application, stop, [erlmcp_native]),
    ?assertEqual({error, not_connected}, On(?TCP, send, [options(Port), <<"m">>])),
    ?assertEqual(<<"original">>, On(?RPC, encode_response, [1, 1])),
    peer:stop(Peer).

%% ----

take_over(Env) ->
    _ = application:load(erlmcp_native),
    All = maps:to_list(Env#{takeover => true}),
    [ok = application:set_env(erlmcp_native, Key, Value) || {Key, Value} <- All],
    {ok, _} = application:ensure_all_started(erlmcp_native),
    erlmcp_native_takeover:status().

is_replaced(Module) ->
    Replacement = filename:join([code:priv_dir(erlmcp_native), "takeover", Module]) ++ ".beam",
    {ok, {Module, Md5}} = beam_lib:md5(Replacement),
    erlang:module_loaded(Module) andalso Module:module_info(md5) =:= Md5.

application_modules() ->
    Apps = [crypto, asn1, public_key, ssl, erlmcp_native | [jsx || has(jsx)]],
    lists:append([modules(App) || App <- Apps]).

modules(App) ->
    _ = application:load(App),
    Ebin = filename:join(code:lib_dir(App), "ebin"),
    [list_to_atom(filename:basename(File, ".beam")) ||
        File <- filelib:wildcard(filename:join(Ebin, "*.beam"))].

has(App) -> code:lib_dir(App) =/= {error, bad_name}.

options(Port) -> #{host => "127.0.0.1", port => Port}.

client(Port) -> erlmcp_client:start_link({tcp, (options(Port))#{owner => self()}}, #{}).

call(Client, Method) ->
    Test = self(),
    Ref = make_ref(),
    spawn(fun() -> Test ! {Ref, erlmcp_client:request(Client, Method, #{})} end),
    Ref.

result(Ref) ->
    receive
        {Ref, Result} -> Result
    after ?WAIT -> error(timeout)
    end.

next() ->
    receive
        {logged, _, _} -> next();
        Message -> Message
    after ?WAIT -> error(timeout)
    end.

nothing_received() ->
    receive
        {logged, _, _} -> nothing_received();
        Message -> error({unexpected, Message})
    after 0 -> ok
    end.

rpc(Members) -> iolist_to_binary(["{\"jsonrpc\":\"2.0\",", Members, "}"]).
