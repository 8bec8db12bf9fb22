%% @doc Sessions over HTTP for minutes: opened, used, and then ended, abandoned or killed with a
%% request under way. Both sides are in this VM. Run by name only; SOAK_SECONDS says for how long.
-module(bench_http_soak).

-export([groups/0]).

%% Callback of erlmcp_native_http_handler.
-export([handle_request/3]).

-define(CLIENTS, 4).
-define(CALLS, 20).
-define(TEXT_BYTES, 1024).
-define(TIMEOUT_MS, 10000).

%% Sessions that are abandoned have to go by themselves.
-define(SESSION_IDLE_MS, 2000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Seconds = bench_steady:seconds(),
    [
        #{
            cases => [
                case_of(http_soak, <<"live native objects after">>, <<"objects">>, lower),
                case_of(http_soak_processes, <<"processes left">>, <<"processes">>, lower),
                case_of(http_soak_memory, <<"growth of resident memory">>, <<"percent">>, lower),
                case_of(http_soak_rate, <<"throughput">>, <<"sessions/s">>, higher)
            ],
            variants => [
                #{
                    path => nif,
                    run => fun(_) -> measure(Seconds) end,
                    timeout_ms => bench_steady:timeout_ms(Seconds)
                }
            ],
            ratios => [],
            runs => 1,
            warm_up => false,
            by_name_only => true,
            checks => fun checks/1
        }
    ].

case_of(Name, Metric, Unit, Better) ->
    #{name => Name, metric => Metric, unit => Unit, better => Better}.

measure(Seconds) ->
    %% It reports each client that is killed.
    ok = logger:set_module_level(supervisor, none),
    Before = erlang:system_info(process_count),
    {ok, Listener} = erlmcp_native_http:listen(#{port => 0}, #{
        path => nif,
        handler => {?MODULE, none},
        session_idle_ms => ?SESSION_IDLE_MS
    }),
    {ok, #{sockname := {_, Port}}} = erlmcp_native_http:info(Listener),
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    Stop = atomics:new(1, []),
    Clients = [
        spawn_monitor(fun() -> sessions(Url, Stop, 0) end)
     || _ <- lists:seq(1, ?CLIENTS)
    ],
    Memory = bench_steady:sample(Seconds),
    ok = atomics:put(Stop, 1, 1),
    Sessions = lists:sum([count(Client) || Client <- Clients]),
    ok = erlmcp_native_http:close(Listener),
    ok = logger:unset_module_level(supervisor),
    Left = bench_steady:settled(fun() -> erlang:system_info(process_count) - Before end, 0),
    Growth = bench_steady:growth_percent(Memory),
    [bench_steady:live_objects(), max(0, Left), Growth, Sessions / Seconds].

count({Pid, Monitor}) ->
    receive
        {'DOWN', Monitor, process, Pid, {count, Count}} -> Count
    end.

sessions(Url, Stop, Count) ->
    {ok, Client} = erlmcp_native_http_client:start(Url, #{path => nif}),
    {ok, _} = erlmcp_native_http_client:initialize(Client, #{}, ?TIMEOUT_MS),
    Text = binary:copy(<<"x">>, ?TEXT_BYTES),
    ok = calls(Client, Text, ?CALLS),
    ok = leave(Count rem 3, Client),
    case atomics:get(Stop, 1) of
        1 -> exit({count, Count + 1});
        0 -> sessions(Url, Stop, Count + 1)
    end.

calls(_, _, 0) ->
    ok;
calls(Client, Text, Id) ->
    ok = erlmcp_native_http_client:send(Client, call(Id, <<"echo">>, Text)),
    receive
        {erlmcp_native, Client, {frames, [Answer]}} ->
            {ok, #{<<"id">> := Id, <<"result">> := #{<<"text">> := Text}}} =
                erlmcp_native_json:decode(Answer),
            calls(Client, Text, Id - 1)
    after ?TIMEOUT_MS -> exit(no_answer)
    end.

call(Id, Name, Text) ->
    erlmcp_native_json:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"method">> => <<"tools/call">>,
        <<"params">> => #{<<"name">> => Name, <<"arguments">> => #{<<"text">> => Text}}
    }).

%% In order, with DELETE; without a word; or in the middle of a request.
leave(0, Client) ->
    erlmcp_native_http_client:close(Client);
leave(1, Client) ->
    kill(Client);
leave(2, Client) ->
    ok = erlmcp_native_http_client:send(Client, call(0, <<"never">>, <<>>)),
    kill(Client).

kill(Client) ->
    Monitor = monitor(process, Client),
    exit(Client, kill),
    receive
        {'DOWN', Monitor, process, Client, _} -> ok
    end.

%% @private
-spec handle_request(binary(), map(), map()) -> erlmcp_native_http_handler:answer().
handle_request(<<"initialize">>, #{<<"protocolVersion">> := Revision}, _) ->
    {reply, #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"serverInfo">> => #{<<"name">> => <<"soak">>, <<"version">> => <<"1">>}
    }};
handle_request(<<"tools/call">>, #{<<"name">> := <<"never">>}, _) ->
    noreply;
handle_request(<<"tools/call">>, #{<<"arguments">> := Arguments}, _) ->
    {reply, Arguments}.

checks(Rows) ->
    bench_steady:none(http_soak, <<"live native objects">>, Rows) ++
        bench_steady:none(http_soak_processes, <<"processes left">>, Rows) ++
        bench_steady:flat(http_soak_memory, Rows).
