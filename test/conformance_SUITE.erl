%% @doc The official conformance suites, both versions, against the server in test/conformance/ and
%% against our client, where a scenario is about the transport. They run as programs; what they
%% write of each check is read, and a check that failed is named.
-module(conformance_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-define(RUN_MS, 150000).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{nif, cases()}, {port, cases()}, {beam, cases()}].

cases() ->
    [
        active_suite,
        active_of_2025_06_18,
        required_of_2025_11_25,
        required_of_2026_07_28,
        pending_of_2025_11_25,
        pending_of_2026_07_28,
        client_initialize,
        client_sse_retry,
        client_tools_call,
        client_request_metadata,
        client_http_standard_headers,
        client_http_custom_headers,
        client_http_invalid_tool_headers
    ].

init_per_suite(Config) ->
    _ = mcp_programs:load("conformance"),
    mcp_programs:init_per_suite(Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) ->
    {module, _} = mcp_programs:use(Path),
    [{path, Path} | Config].

end_per_group(_, _) -> ok.

%% Servers

active_suite(Config) ->
    server(["--suite", "active"], 30, "conformance-2025", Config).

active_of_2025_06_18(Config) ->
    server(["--suite", "active", "--spec-version", "2025-06-18"], 25, "conformance-2026", Config).

required_of_2025_11_25(Config) ->
    server(["--requirements", "2025-11-25"], 30, "conformance-2026", Config).

required_of_2026_07_28(Config) ->
    server(["--requirements", "2026-07-28"], 37, "conformance-2026", Config).

%% Not required, some of it since the suite's own server cannot do it.
pending_of_2025_11_25(Config) ->
    pending("2025-11-25", "server-session-lifecycle", Config),
    pending("2025-11-25", "server-sse-polling", Config),
    pending("2025-11-25", "json-schema-2020-12", Config).

pending_of_2026_07_28(Config) ->
    pending("2026-07-28", "http-header-validation", Config),
    pending("2026-07-28", "http-custom-header-server-validation", Config),
    pending("2026-07-28", "json-schema-2020-12", Config).

pending(Revision, Scenario, Config) ->
    Args = ["--scenario", Scenario, "--spec-version", Revision],
    server(Args, 1, "conformance-2026", Config).

server(Args, AtLeast, Package, Config) ->
    #{url := Url} = Server = conformance_server:start(#{path => ?config(path, Config)}),
    Results = results(Config),
    Run = run(Package, ["server", "--url", Url, "-o", Results | Args], Config),
    conformance_server:stop(Server),
    judge(Run, Results, AtLeast).

%% Clients

client_initialize(Config) ->
    client("initialize", "conformance-2025", Config),
    client("initialize", "conformance-2026", Config).

client_sse_retry(Config) ->
    client("sse-retry", "conformance-2025", Config),
    client("sse-retry", "conformance-2026", Config).

client_tools_call(Config) ->
    client("tools_call", "conformance-2025", Config).

client_request_metadata(Config) ->
    client("request-metadata", "conformance-2026", Config).

client_http_standard_headers(Config) ->
    client("http-standard-headers", "conformance-2026", Config).

client_http_custom_headers(Config) ->
    client("http-custom-headers", "conformance-2026", Config).

client_http_invalid_tool_headers(Config) ->
    client("http-invalid-tool-headers", "conformance-2026", Config).

client(Scenario, Package, Config) ->
    Results = results(Config),
    Command = "escript " ++ mcp_programs:source("conformance/client.escript"),
    Args = ["client", "--command", Command, "--scenario", Scenario, "-o", Results],
    judge(run(Package, Args, Config), Results, 1).

%% The programs

run(Package, Args, Config) ->
    Script = mcp_programs:path(filename:join(["node/node_modules", Package, "dist/index.js"])),
    Libs = filename:dirname(code:lib_dir(erlmcp_native)),
    Env = [
        {"ERLMCP_PATH", atom_to_list(?config(path, Config))},
        {"ERL_LIBS", lists:join(":", [Libs | [L || L <- [os:getenv("ERL_LIBS")], L =/= false]])}
    ],
    Flat = [{K, lists:flatten(V)} || {K, V} <- Env],
    {Status, Output} = mcp_programs:run(mcp_programs:node_args([Script | Args]), Flat, ?RUN_MS),
    ct:log("~ts~nstatus ~p", [Output, Status]),
    {Status, Output}.

%% A folder of its own for each run: the programs name theirs by the time.
results(Config) ->
    Unique = integer_to_list(erlang:unique_integer([positive])),
    filename:join([?config(priv_dir, Config), "conformance", Unique]).

judge({Status, _}, Results, AtLeast) ->
    Files = [
        File
     || File <- filelib:wildcard(filename:join(Results, "**/checks.json")),
        not extension(scenario(File))
    ],
    Checks = [{scenario(File), Check} || File <- Files, Check <- checks(File)],
    Warnings = named(<<"WARNING">>, Checks),
    ct:pal("~b scenarios, ~b checks passed, ~b warnings ~p", [
        length(Files), length(named(<<"SUCCESS">>, Checks)), length(Warnings), Warnings
    ]),
    ?assertEqual([], named(<<"FAILURE">>, Checks)),
    ?assertEqual([], Warnings),
    ?assert(length(Files) >= AtLeast),
    ?assertEqual(0, Status).

checks(File) ->
    {ok, Text} = file:read_file(File),
    {ok, Checks} = erlmcp_native_json:decode(Text),
    Checks.

%% What a revision's requirements name beside those that count: of the extension for tasks we have
%% nothing.
extension(Scenario) ->
    lists:prefix("server-tasks-", Scenario).

scenario(File) ->
    filename:basename(filename:dirname(File)).

named(Status, Checks) ->
    [
        {Scenario, Id, maps:get(<<"errorMessage">>, Check, none)}
     || {Scenario, #{<<"id">> := Id, <<"status">> := S} = Check} <- Checks, S =:= Status
    ].
