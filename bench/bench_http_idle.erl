%% @doc Memory of an idle event stream: so many clients, each with a session and the stream that it
%% has opened with GET, and nothing to say.
-module(bench_http_idle).

-export([groups/0]).

%% Called in the VM of the clients.
-export([do_open/2]).

-define(STREAMS, 1000).
-define(REVISION, <<"2025-11-25">>).
-define(TIMEOUT_MS, 10000).
-define(KIB, 1024).

%% What a stream may take.
-define(MARK_KIB, 12).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        #{
            cases => [
                #{
                    name => http_idle_sse,
                    metric => <<"resident memory">>,
                    unit => <<"KB/stream">>,
                    better => lower
                }
            ],
            variants => [
                #{path => Path, run => fun(Peer) -> [measure(Path, Peer)] end}
             || Path <- [nif, beam]
            ],
            ratios => [{http_idle_sse, nif, beam, none}],
            runs => 3,
            setup => fun bench_peer:start_sender/0,
            teardown => fun bench_peer:stop/1,
            checks => fun checks/1
        }
    ].

%% In a fresh VM: memory that was in use before would be used again. The first one does not count.
measure(Path, Peer) ->
    Server = bench_http_server:start(Path),
    Port = bench_http_server:port(Server),
    ok = bench_peer:call(Peer, ?MODULE, do_open, [Port, 1]),
    Before = bench_http_server:rss_bytes(Server),
    ok = bench_peer:call(Peer, ?MODULE, do_open, [Port, ?STREAMS]),
    After = bench_http_server:rss_bytes(Server),
    {Open, Open} = {?STREAMS + 1, bench_http_server:streams(Server)},
    bench_http_server:stop(Server),
    (After - Before) / ?STREAMS / ?KIB.

%% @private
-spec do_open(inet:port_number(), pos_integer()) -> ok.
do_open(Port, Count) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        Sockets = [open(Port) || _ <- lists:seq(1, Count)],
        {ok, fun() -> receive {stop, Sockets} -> ok end end}
    end).

open(Port) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [binary, {active, false}]),
    Body = erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => 1,
        <<"method">> => <<"initialize">>,
        <<"params">> => #{
            <<"protocolVersion">> => ?REVISION,
            <<"capabilities">> => #{},
            <<"clientInfo">> => #{<<"name">> => <<"bench">>, <<"version">> => <<"1">>}
        }
    }),
    Length = integer_to_list(iolist_size(Body)),
    Answer = exchange(Socket, "POST", ["content-length: ", Length, "\r\n"], Body),
    {match, [Session]} = re:run(Answer, "mcp-session-id: *([^\r]+)", [
        caseless, {capture, all_but_first, binary}
    ]),
    Head = exchange(Socket, "GET", ["mcp-session-id: ", Session, "\r\n"], ""),
    {match, _} = re:run(Head, "text/event-stream"),
    Socket.

exchange(Socket, Method, Headers, Body) ->
    ok = gen_tcp:send(Socket, [
        Method,
        " /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n",
        "accept: application/json, text/event-stream\r\n",
        Headers,
        "\r\n",
        Body
    ]),
    {ok, Answer} = gen_tcp:recv(Socket, 0, ?TIMEOUT_MS),
    Answer.

checks(Rows) ->
    [
        #{
            'case' => http_idle_sse,
            ok => KiB =< ?MARK_KIB,
            value => KiB,
            unit => <<"KB/stream on nif">>
        }
     || KiB <- [bench_report:median(http_idle_sse, nif, Rows)], is_number(KiB)
    ].
