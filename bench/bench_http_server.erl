%% @doc The servers that are measured over HTTP, each in a VM or a program of its own: a tool `echo'
%% that is decoded, dispatched and encoded. `hyper' is the exception: it returns the body as it is.
-module(bench_http_server).

-export([start/1, stop/1, port/1, cpu_us/1, rss_bytes/1, streams/1, kinds/0, call/4]).
-export([request/1, headers/0]).

%% Called in the other VM.
-export([do_start/1, do_streams/0]).

%% Callbacks of erlmcp_native_http_handler and of cowboy.
-export([handle_request/3, init/2]).

-export_type([server/0, kind/0]).

-type kind() :: nif | port | beam | cowboy | hyper | rmcp.

-opaque server() ::
    {vm, bench_peer:peer(), inet:port_number()} | {program, port(), inet:port_number()}.

-define(REVISION, <<"2026-07-28">>).
-define(META, <<"io.modelcontextprotocol/">>).

%% @doc The kinds that can be had here: programs are there if they have been built.
-spec kinds() -> [kind()].
kinds() ->
    [nif, port, beam, cowboy] ++ [Kind || Kind <- [hyper, rmcp], filelib:is_regular(program(Kind))].

program(hyper) ->
    "target/release/examples/http_echo";
program(rmcp) ->
    "_build/mcp_peers/rmcp/release/rmcp_server".

%% `hyper' with the files of a certificate and its key speaks TLS; ours may be given options.
-spec start(kind() | {hyper, [file:filename()]} | {nif | port | beam, map()}) -> server().
start({hyper, Files}) ->
    program(hyper, Files);
start(hyper) ->
    program(hyper, []);
start(rmcp) ->
    program(rmcp, ["--stateless", "--json", "--port", "0"]);
start(Kind) ->
    Peer = bench_peer:start_vm(),
    {vm, Peer, bench_peer:call(Peer, ?MODULE, do_start, [Kind])}.

%% A program says its port in the first line that it writes.
program(Kind, Args) ->
    Options = [{args, Args}, {line, 200}, binary, exit_status],
    Port = open_port({spawn_executable, program(Kind)}, Options),
    receive
        {Port, {data, {eol, Line}}} ->
            {match, [Number]} = re:run(Line, "([0-9]+)$", [{capture, all_but_first, list}]),
            {program, Port, list_to_integer(Number)}
    after 10000 -> exit({no_answer, Kind})
    end.

-spec stop(server()) -> term().
stop({vm, Peer, _}) ->
    bench_peer:stop(Peer);
stop({program, Port, _}) ->
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    _ = os:cmd("kill " ++ integer_to_list(Pid)),
    receive
        {Port, {exit_status, _}} -> ok
    end.

-spec port(server()) -> inet:port_number().
port({_, _, Port}) -> Port.

%% @doc CPU time of the whole process, and of those that it has started.
-spec cpu_us(server()) -> non_neg_integer().
cpu_us(Server) ->
    Pid = os_pid(Server),
    lists:sum([bench_os:cpu_us(One) || One <- [Pid | bench_os:descendants(Pid)]]).

%% @doc Resident memory once it has settled.
-spec rss_bytes(server()) -> non_neg_integer().
rss_bytes(Server) -> bench_os:settled_rss_bytes(os_pid(Server)).

%% @doc Calls a function in the VM of a server.
-spec call(server(), module(), atom(), [term()]) -> term().
call({vm, Peer, _}, Module, Function, Args) -> bench_peer:call(Peer, Module, Function, Args).

%% @doc Streams that are open at a server of ours.
-spec streams(server()) -> non_neg_integer().
streams({vm, Peer, _}) -> bench_peer:call(Peer, ?MODULE, do_streams, []).

%% @private
-spec do_streams() -> non_neg_integer().
do_streams() ->
    Listeners = supervisor:which_children(erlmcp_native_http_listener_sup),
    lists:sum([
        Streams
     || {_, Pid, _, _} <- Listeners,
        {ok, #{streams := Streams}} <- [erlmcp_native_http:info(Pid)]
    ]).

os_pid({vm, Peer, _}) ->
    bench_peer:call(Peer, os, getpid, []);
os_pid({program, Port, _}) ->
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    integer_to_list(Pid).

%% @private
-spec do_start(kind() | {nif | port | beam, map()}) -> inet:port_number().
do_start({Path, Options}) ->
    {ok, Listener} = erlmcp_native_http:listen(#{port => 0}, Options#{
        path => Path, owner => none, handler => {?MODULE, none}
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    Port;
do_start(cowboy) ->
    {ok, _} = application:ensure_all_started(cowboy),
    Dispatch = cowboy_router:compile([{'_', [{"/mcp", ?MODULE, codec()}]}]),
    {ok, _} = cowboy:start_clear(
        ?MODULE,
        #{socket_opts => [{port, 0}, {ip, {127, 0, 0, 1}}, {backlog, 1024}]},
        #{env => #{dispatch => Dispatch}, max_keepalive => 1000000000}
    ),
    ranch:get_port(?MODULE);
do_start(Path) ->
    do_start({Path, #{}}).

codec() ->
    case code:ensure_loaded(json) of
        {module, json} -> json;
        {error, _} -> jsx
    end.

%% @private
-spec handle_request(binary(), map(), map()) -> erlmcp_native_http_handler:answer().
handle_request(<<"tools/call">>, Params, _) ->
    {reply, result(Params)};
handle_request(<<"initialize">>, #{<<"protocolVersion">> := Revision}, _) ->
    {reply, #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"serverInfo">> => #{<<"name">> => <<"bench">>, <<"version">> => <<"1">>}
    }};
handle_request(_, _, _) ->
    {error, -32601, <<"Method not found">>}.

result(#{<<"name">> := <<"echo">>, <<"arguments">> := #{<<"text">> := Text}}) ->
    #{<<"content">> => [#{<<"type">> => <<"text">>, <<"text">> => Text}]}.

%% @private
-spec init(term(), jsx | json) -> {ok, term(), term()}.
init(Req0, Codec) ->
    {ok, Body, Req} = cowboy_req:read_body(Req0),
    #{<<"id">> := Id, <<"method">> := <<"tools/call">>, <<"params">> := Params} =
        decode(Codec, Body),
    Answer = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"result">> => result(Params)},
    Headers = #{<<"content-type">> => <<"application/json">>},
    {ok, cowboy_req:reply(200, Headers, encode(Codec, Answer), Req), Codec}.

decode(jsx, Body) -> jsx:decode(Body, [return_maps]);
decode(json, Body) -> json:decode(Body).

encode(jsx, Term) -> jsx:encode(Term);
encode(json, Term) -> json:encode(Term).

%% @doc The body of a tools/call of exactly this size.
-spec request(Bytes :: pos_integer()) -> binary().
request(Bytes) ->
    bench_peer:padded(
        <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"_meta\":{\"",
            ?META/binary, "protocolVersion\":\"", ?REVISION/binary, "\",\"", ?META/binary,
            "clientCapabilities\":{}},\"name\":\"echo\",\"arguments\":{\"text\":\"">>,
        <<"\"}}}">>,
        Bytes
    ).

%% @doc The headers that go with it.
-spec headers() -> [{string(), string()}].
headers() ->
    [
        {"content-type", "application/json"},
        {"accept", "application/json, text/event-stream"},
        {"mcp-protocol-version", binary_to_list(?REVISION)},
        {"mcp-method", "tools/call"},
        {"mcp-name", "echo"}
    ].
