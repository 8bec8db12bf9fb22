%% @doc Our client over stdio, and servers that run on official SDKs as its child processes.
-module(child_peers_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-define(WAIT_MS, 30000).
-define(BYTES, (10 * 1024 * 1024)).

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [{nif, cases()}, {port, cases()}, {beam, cases()}].

cases() ->
    [everything_server, python_1_server, python_2_server, fastmcp_server, rmcp_server].

init_per_suite(Config) -> mcp_programs:init_per_suite(Config).

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

everything_server(Config) ->
    Package = "node/node_modules/@modelcontextprotocol/server-everything/dist/index.js",
    Line = mcp_programs:node_args([mcp_programs:path(Package), "stdio"]),
    session(Line, <<"Echo: ">>, Config).

python_1_server(Config) -> session(python("mcp1"), <<>>, Config).

python_2_server(Config) -> session(python("mcp2"), <<>>, Config).

fastmcp_server(Config) ->
    Script = mcp_programs:source("mcp_peers/server_fastmcp.py"),
    session([mcp_programs:path("fastmcp/bin/python"), Script], <<>>, Config).

rmcp_server(Config) ->
    session([mcp_programs:path("rmcp/release/rmcp_server"), "--stdio"], <<>>, Config).

python(Environment) ->
    Script = mcp_programs:source("mcp_peers/server.py"),
    [mcp_programs:path(Environment ++ "/bin/python"), Script, "stdio"].

%% From the first message to the last process.
session([Command | Args], Prefix, Config) ->
    Child = #{command => Command, args => Args},
    %% Those in Python give a text twice, as content and as structured content.
    Options = #{path => ?config(path, Config), active => true, max_frame_bytes => 4 * ?BYTES},
    {ok, Conn} = erlmcp_native:connect(Child, Options),
    ok = erlmcp_native:await_connected(Conn, ?WAIT_MS),
    {ok, #{socket := #{os_pid := Pid}}} = erlmcp_native:info(Conn),
    initialize(Conn),
    #{<<"tools">> := Tools} = request(Conn, 2, <<"tools/list">>, #{}),
    ?assert(lists:member(<<"echo">>, [Name || #{<<"name">> := Name} <- Tools])),
    [
        ?assertEqual(<<Prefix/binary, Text/binary>>, echo(Conn, Id, Text))
     || {Id, Text} <- [{3, every_plane()}, {4, controls()}]
    ],
    Large = binary:copy(every_plane(), ?BYTES div byte_size(every_plane())),
    Echo = echo(Conn, 5, Large),
    ?assert(Echo =:= <<Prefix/binary, Large/binary>>),
    ok = erlmcp_native:close(Conn),
    await_group_gone(Pid).

initialize(Conn) ->
    #{<<"serverInfo">> := _} = request(Conn, 1, <<"initialize">>, #{
        <<"protocolVersion">> => <<"2025-11-25">>,
        <<"capabilities">> => #{},
        <<"clientInfo">> => #{<<"name">> => <<"child_peers">>, <<"version">> => <<"0">>}
    }),
    ok = send(Conn, #{<<"method">> => <<"notifications/initialized">>}).

echo(Conn, Id, Text) ->
    Params = #{<<"name">> => <<"echo">>, <<"arguments">> => #{<<"message">> => Text}},
    #{<<"content">> := [#{<<"text">> := Echo}]} = request(Conn, Id, <<"tools/call">>, Params),
    Echo.

request(Conn, Id, Method, Params) ->
    Request = #{<<"id">> => Id, <<"method">> => Method, <<"params">> => Params},
    ok = send(Conn, Request),
    answer(Conn, Id).

send(Conn, Message) ->
    Json = erlmcp_native_json:encode(Message#{<<"jsonrpc">> => <<"2.0">>}),
    erlmcp_native:send(Conn, Json, ?WAIT_MS).

answer(Conn, Id) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            Messages = [element(2, {ok, _} = erlmcp_native_json:decode(F)) || F <- Frames],
            case [Result || #{<<"id">> := I, <<"result">> := Result} <- Messages, I =:= Id] of
                [Result] -> Result;
                [] -> answer(Conn, refused(Conn, Messages, Id))
            end;
        {erlmcp_native, Conn, {down, Reason, _}} ->
            ct:fail({down, Reason})
    after ?WAIT_MS ->
        ct:fail({no_answer, Id})
    end.

%% What a server may ask is answered, since it may wait.
refused(Conn, Messages, Id) ->
    [
        ok = send(Conn, #{
            <<"id">> => Theirs,
            <<"error">> => #{<<"code">> => -32601, <<"message">> => <<"Method not found">>}
        })
     || #{<<"id">> := Theirs, <<"method">> := _} <- Messages
    ],
    Id.

every_plane() ->
    Codes = [[Plane * 16#10000 + 16#e9, Plane * 16#10000 + 16#fffd] || Plane <- lists:seq(0, 16)],
    unicode:characters_to_binary([Codes, 16#20ac, 16#2028, 16#2029, 16#7f]).

controls() -> <<"\t\n\r\"\\/", 1, 16#1f, 0>>.

await_group_gone(Pid) ->
    Deadline = erlang:monotonic_time(millisecond) + ?WAIT_MS,
    await_group_gone(integer_to_list(Pid), Deadline).

await_group_gone(Group, Deadline) ->
    Lines = string:lexemes(os:cmd("ps -A -o pgid=,stat=,args="), "\n"),
    case [L || L <- Lines, [G, [S | _] | _] <- [string:lexemes(L, " ")], G =:= Group, S =/= $Z] of
        [] ->
            ok;
        Left ->
            erlang:monotonic_time(millisecond) < Deadline orelse ct:fail({left, Left}),
            receive after 50 -> ok end,
            await_group_gone(Group, Deadline)
    end.
