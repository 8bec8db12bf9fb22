%% @doc Official MCP clients against our HTTP server, and our HTTP client against servers that run
%% on official SDKs. What the clients do is in test/mcp_peers/.
-module(http_peers_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-define(WAIT_MS, 20000).
-define(BYTES, (5 * 1024 * 1024)).
-define(MODERN, <<"2026-07-28">>).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{nif, cases()}, {port, cases()}, {beam, cases()}].

cases() ->
    [
        sdk_client,
        sdk_client_http_sse,
        sdk_client_tls,
        python_1_client,
        python_2_client,
        python_2_client_legacy,
        python_2_client_tls,
        fastmcp_client,
        fastmcp_client_legacy,
        everything_server,
        everything_server_http_sse,
        everything_server_batch,
        rmcp_server,
        rmcp_server_stateless,
        python_1_server,
        python_2_server
    ].

init_per_suite(Config) ->
    _ = mcp_programs:load("conformance"),
    mcp_programs:init_per_suite(test_certs:make(?MODULE, Config)).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) ->
    {module, _} = mcp_programs:use(Path),
    [{path, Path} | Config].

end_per_group(_, _) -> ok.

%% Their clients

sdk_client(Config) ->
    Script = mcp_programs:source("mcp_peers/client.mjs"),
    their_client(fun(Url) -> mcp_programs:node_args([Script, Url]) end, <<"2025-11-25">>, Config).

%% The pair of 2024-11-05, over which this SDK agrees on a later revision all the same.
sdk_client_http_sse(Config) ->
    Script = mcp_programs:source("mcp_peers/client.mjs"),
    CommandLine = fun(Url) ->
        Sse = lists:flatten(string:replace(Url, "/mcp", "/sse")),
        mcp_programs:node_args([Script, Sse, "sse"])
    end,
    Pair = #{sse => <<"/sse">>, messages => <<"/messages">>},
    their_client(CommandLine, any, [{options, #{http_sse => Pair}} | Config]).

sdk_client_tls(Config) -> sdk_client(with_tls(Config)).

python_2_client_tls(Config) -> python_2_client(with_tls(Config)).

%% Node and Python take further authorities from these.
with_tls(Config) ->
    File = fun(Name) -> filename:absname(test_certs:file(Config, Name)) end,
    Tls = #{certfile => File("server.pem"), keyfile => File("server.key")},
    Env = [{Name, File("ca.pem")} || Name <- ["NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"]],
    [{options, #{tls => Tls}}, {env, Env} | Config].

python_1_client(Config) ->
    python_client("mcp1", "client_mcp1.py", [], <<"2025-11-25">>, Config).

python_2_client(Config) ->
    python_client("mcp2", "client_mcp2.py", ["mcp", "auto"], ?MODERN, Config).

python_2_client_legacy(Config) ->
    python_client("mcp2", "client_mcp2.py", ["mcp", "legacy"], <<"2025-11-25">>, Config).

fastmcp_client(Config) ->
    python_client("fastmcp", "client_mcp2.py", ["fastmcp", "auto"], ?MODERN, Config).

fastmcp_client_legacy(Config) ->
    python_client("fastmcp", "client_mcp2.py", ["fastmcp", "legacy"], <<"2025-11-25">>, Config).

python_client(Environment, Script, Args, Revision, Config) ->
    Python = mcp_programs:path(Environment ++ "/bin/python"),
    Source = mcp_programs:source("mcp_peers/" ++ Script),
    their_client(fun(Url) -> [Python, Source, Url | Args] end, Revision, Config).

their_client(CommandLine, Revision, Config) ->
    Options = (proplists:get_value(options, Config, #{}))#{path => ?config(path, Config)},
    #{hub := Hub, port := Port, url := Url} = Server = conformance_server:start(Options),
    ok = conformance_hub:watch(Hub),
    Client = mcp_programs:start(CommandLine(Url), proplists:get_value(env, Config, [])),
    #{<<"version">> := Agreed} = mcp_programs:step(Client, <<"initialize">>),
    ?assert(Revision =:= any orelse Revision =:= Agreed),
    _ = [mcp_programs:step(Client, S) || S <- [<<"list">>, <<"call">>, <<"large">>]],
    ?assertMatch(#{<<"seen">> := 20}, mcp_programs:step(Client, <<"progress">>)),
    _ = mcp_programs:step(Client, <<"sleeping">>),
    receive {request_running, Hub} -> ok after ?WAIT_MS -> ct:fail(nothing_to_cancel) end,
    ok = mcp_programs:say(Client),
    _ = mcp_programs:step(Client, <<"cancelled">>),
    receive
        {request_ended, Hub, Reason} -> ?assertMatch({shutdown, _}, Reason)
    after ?WAIT_MS ->
        ct:fail(not_cancelled)
    end,
    _ = mcp_programs:step(Client, <<"restart">>),
    conformance_server:stop(Server),
    Again = conformance_server:start(#{port => Port}, Options),
    ok = mcp_programs:say(Client),
    _ = mcp_programs:step(Client, <<"restarted">>),
    _ = mcp_programs:step(Client, <<"closed">>),
    receive {Client, {exit_status, Status}} -> ?assertEqual(0, Status) end,
    conformance_server:stop(Again).

%% Their servers

everything_server(Config) ->
    %% This one answers 400 to a session that it does not know.
    everything("streamableHttp", [{lost, refused} | Config]).

everything_server_http_sse(Config) ->
    everything("sse", [{lost, with_stream}, {target, "/sse"} | Config]).

everything(Mode, Config) ->
    Tools = #{
        echo => {<<"echo">>, #{<<"message">> => <<"hi">>}, <<"Echo: hi">>},
        add => {<<"get-sum">>, #{<<"a">> => 2, <<"b">> => 3}, <<"The sum of 2 and 3 is 5.">>},
        progress =>
            {<<"trigger-long-running-operation">>, #{<<"duration">> => 1, <<"steps">> => 5}, 5},
        sleep => {<<"trigger-long-running-operation">>, #{<<"duration">> => 600}}
    },
    their_server(start_everything(Mode), Tools, Config).

start_everything(Mode) ->
    Script = mcp_programs:path(
        "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js"
    ),
    Line = mcp_programs:node_args([Script, Mode]),
    fun(Port) -> mcp_programs:serve(Line, [{"PORT", integer_to_list(Port)}]) end.

%% One POST, answered on one stream.
everything_server_batch(Config) ->
    Port = test_socket:free_port(),
    Server = serve(start_everything("streamableHttp"), Port),
    Client = connect(Port, Config),
    initialize(Client, <<"2025-03-26">>),
    Call = fun(Id) ->
        Message = integer_to_binary(Id),
        #{
            <<"jsonrpc">> => <<"2.0">>,
            <<"id">> => Id,
            <<"method">> => <<"tools/call">>,
            <<"params">> => #{
                <<"name">> => <<"echo">>, <<"arguments">> => #{<<"message">> => Message}
            }
        }
    end,
    Batch = erlmcp_native_json:encode([Call(Id) || Id <- lists:seq(101, 110)]),
    ok = erlmcp_native_http_client:send(Client, Batch),
    Expected = [{Id, <<"Echo: ", (integer_to_binary(Id))/binary>>} || Id <- lists:seq(101, 110)],
    ?assertEqual(Expected, lists:sort(echoed(Client, 10))),
    ok = erlmcp_native_http_client:close(Client),
    mcp_programs:stop(Server).

%% The texts of so many answers, whatever else comes.
echoed(_, 0) ->
    [];
echoed(Client, Count) ->
    receive
        {erlmcp_native, Client, {frames, Frames}} ->
            Texts = [
                {Id, Text}
             || Frame <- Frames,
                #{<<"id">> := Id, <<"result">> := #{<<"content">> := [#{<<"text">> := Text}]}} <-
                    [decode(Frame)]
            ],
            Texts ++ echoed(Client, Count - length(Texts))
    after ?WAIT_MS -> ct:fail({missing, Count})
    end.

rmcp_server(Config) ->
    their_server(fun(Port) -> rmcp([], Port) end, tools(), Config).

rmcp_server_stateless(Config) ->
    Start = fun(Port) -> rmcp(["--stateless", "--json"], Port) end,
    their_server(Start, tools(), [{lost, never} | Config]),
    modern(Start, Config).

rmcp(Args, Port) ->
    Program = mcp_programs:path("rmcp/release/rmcp_server"),
    mcp_programs:start([Program, "--port", integer_to_list(Port) | Args], []).

python_1_server(Config) ->
    their_server(fun(Port) -> python("mcp1", Port) end, tools(), Config).

python_2_server(Config) ->
    Start = fun(Port) -> python("mcp2", Port) end,
    their_server(Start, tools(), Config),
    modern(Start, Config).

python(Environment, Port) ->
    Python = mcp_programs:path(Environment ++ "/bin/python"),
    Line = [Python, mcp_programs:source("mcp_peers/server.py"), integer_to_list(Port)],
    mcp_programs:serve(Line, []).

tools() ->
    #{
        echo => {<<"echo">>, #{<<"message">> => <<"hi">>}, <<"hi">>},
        add => {<<"add">>, #{<<"a">> => 2, <<"b">> => 3}, <<"5">>},
        large => {<<"large">>, #{<<"bytes">> => ?BYTES}},
        progress => {<<"progress">>, #{<<"steps">> => 5}, 5},
        sleep => {<<"sleep">>, #{<<"ms">> => 600000}}
    }.

%% A session from its beginning to its end, with a new server in between.
their_server(Start, Tools, Config) ->
    Port = test_socket:free_port(),
    Server = serve(Start, Port),
    Client = connect(Port, Config),
    initialize(Client),
    #{<<"tools">> := [_ | _]} = result(Client, <<"tools/list">>, #{}),
    calls(Client, Tools, #{}),
    cancel(Client, Tools, #{}),
    calls(Client, maps:with([echo], Tools), #{}),
    mcp_programs:stop(Server),
    Again = serve(Start, Port),
    lost(Client, ?config(lost, Config)),
    initialize(Client),
    calls(Client, maps:with([echo, add], Tools), #{}),
    ok = erlmcp_native_http_client:close(Client),
    mcp_programs:stop(Again).

%% Without a session, each request for itself.
modern(Start, Config) ->
    Port = test_socket:free_port(),
    Server = serve(Start, Port),
    Client = connect(Port, Config),
    #{<<"supportedVersions">> := Versions} = result(Client, <<"server/discover">>, meta()),
    ?assert(lists:member(?MODERN, Versions)),
    #{<<"tools">> := [_ | _]} = result(Client, <<"tools/list">>, meta()),
    calls(Client, tools(), meta()),
    cancel(Client, tools(), meta()),
    calls(Client, maps:with([echo], tools()), meta()),
    ok = erlmcp_native_http_client:close(Client),
    mcp_programs:stop(Server).

serve(Start, Port) ->
    Server = Start(Port),
    mcp_programs:await_port(Port),
    Server.

connect(Port, Config) ->
    Target = proplists:get_value(target, Config, "/mcp"),
    Url = iolist_to_binary(["http://127.0.0.1:", integer_to_list(Port), Target]),
    Options = #{path => ?config(path, Config), timeout_ms => ?WAIT_MS},
    {ok, Client} = erlmcp_native_http_client:start_link(Url, Options),
    Client.

initialize(Client) ->
    initialize(Client, <<"2025-11-25">>).

initialize(Client, Revision) ->
    #{<<"protocolVersion">> := Revision} = result(Client, <<"initialize">>, #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"clientInfo">> => client_info()
    }),
    notify(Client, <<"notifications/initialized">>, #{}).

client_info() ->
    #{<<"name">> => <<"erlmcp_native">>, <<"version">> => <<"1.0.0">>}.

meta() ->
    #{
        <<"_meta">> => #{
            <<"io.modelcontextprotocol/protocolVersion">> => ?MODERN,
            <<"io.modelcontextprotocol/clientInfo">> => client_info(),
            <<"io.modelcontextprotocol/clientCapabilities">> => #{}
        }
    }.

calls(Client, Tools, Meta) ->
    _ = maps:map(fun(What, Tool) -> call(What, Tool, Client, Meta) end, Tools),
    ok.

call(progress, {Name, Arguments, Count}, Client, Meta) ->
    Token = erlang:unique_integer([positive]),
    Params = with_meta(<<"progressToken">>, Token, Meta),
    {Result, Others} = call_tool(Client, Name, Arguments, Params),
    ?assertMatch(#{<<"content">> := [_ | _]}, Result),
    Seen = [P || #{<<"params">> := #{<<"progressToken">> := T, <<"progress">> := P}} <- Others,
        T =:= Token],
    ?assertEqual(Count, length(Seen)),
    ?assertEqual(Seen, lists:usort(Seen));
call(large, {Name, Arguments}, Client, Meta) ->
    {#{<<"content">> := [#{<<"text">> := Text} | _]}, _} = call_tool(Client, Name, Arguments, Meta),
    ?assertEqual(?BYTES, byte_size(Text));
call(sleep, _, _, _) ->
    ok;
call(_, {Name, Arguments, Expected}, Client, Meta) ->
    {Result, _} = call_tool(Client, Name, Arguments, Meta),
    ?assertMatch(#{<<"content">> := [#{<<"text">> := Expected} | _]}, Result).

call_tool(Client, Name, Arguments, Params) ->
    Call = Params#{<<"name">> => Name, <<"arguments">> => Arguments},
    {#{<<"result">> := Result}, Others} = request(Client, <<"tools/call">>, Call),
    {Result, Others}.

%% No answer comes of it, and the client serves the next request.
cancel(Client, #{sleep := {Name, Arguments}}, Meta) ->
    Id = send(Client, <<"tools/call">>, Meta#{<<"name">> => Name, <<"arguments">> => Arguments}),
    receive after 300 -> ok end,
    ok = erlmcp_native_http_client:cancel(Client, Id),
    receive
        {erlmcp_native, Client, {frames, Frames}} ->
            ?assertEqual([], [F || F <- Frames, #{<<"id">> := I} <- [decode(F)], I =:= Id])
    after 300 -> ok
    end.

%% The server has never heard of the session.
lost(_, never) ->
    ok;
lost(Client, refused) ->
    Id = send(Client, <<"tools/list">>, #{}),
    receive
        {erlmcp_native, Client, {failed, Id, {status, 400, _}}} -> ok
    after ?WAIT_MS ->
        ct:fail(not_refused)
    end;
lost(Client, with_stream) ->
    await_lost(Client);
lost(Client, undefined) ->
    _ = send(Client, <<"tools/list">>, #{}),
    await_lost(Client).

await_lost(Client) ->
    receive
        {erlmcp_native, Client, session_lost} -> ok;
        {erlmcp_native, Client, _} -> await_lost(Client)
    after ?WAIT_MS ->
        ct:fail(session_not_lost)
    end.

result(Client, Method, Params) ->
    {#{<<"result">> := Result}, _} = request(Client, Method, Params),
    Result.

request(Client, Method, Params) ->
    answer(Client, send(Client, Method, Params), []).

send(Client, Method, Params) ->
    Id = erlang:unique_integer([positive]),
    Request = #{<<"id">> => Id, <<"method">> => Method, <<"params">> => Params},
    ok = erlmcp_native_http_client:send(Client, encode(Request)),
    Id.

notify(Client, Method, Params) ->
    Notice = #{<<"method">> => Method, <<"params">> => Params},
    ok = erlmcp_native_http_client:send(Client, encode(Notice)).

answer(Client, Id, Others) ->
    receive
        {erlmcp_native, Client, {frames, Frames}} ->
            Messages = [decode(Frame) || Frame <- Frames],
            case [M || M <- Messages, is_answer(M, Id)] of
                [Answer] -> {Answer, Others ++ Messages};
                [] -> answer(Client, Id, Others ++ Messages)
            end;
        {erlmcp_native, Client, {failed, Id, Reason}} ->
            ct:fail(Reason);
        {erlmcp_native, Client, session_lost} ->
            answer(Client, Id, Others)
    after ?WAIT_MS ->
        ct:fail({no_answer, Id, Others, process_info(self(), messages)})
    end.

is_answer(#{<<"method">> := _}, _) -> false;
is_answer(#{<<"id">> := Answered}, Id) -> Answered =:= Id;
is_answer(_, _) -> false.

with_meta(Key, Value, Params) ->
    Meta = maps:get(<<"_meta">>, Params, #{}),
    Params#{<<"_meta">> => Meta#{Key => Value}}.

encode(Message) ->
    erlmcp_native_json:encode(Message#{<<"jsonrpc">> => <<"2.0">>}).

decode(Frame) ->
    {ok, Message} = erlmcp_native_json:decode(Frame),
    Message.
