%% @doc Servers over stdio: calls of a tool `echo' through a pipe, many in flight and one at a time,
%% and one line of 64 MiB there and back.
-module(bench_stdio).

-export([groups/0]).

-define(MIB, 1048576).
-define(REVISION, <<"2025-06-18">>).
-define(TIMEOUT_MS, 60000).
-define(WARM_UP, 200).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [tools(), large_lines()].

tools() ->
    Kinds = kinds(),
    Cases = [
        {stdio_1k_pipelined, <<"throughput">>, <<"messages/s">>, higher},
        {stdio_64k_pipelined, <<"throughput">>, <<"messages/s">>, higher},
        {stdio_1k_p50, <<"round trip">>, <<"us">>, lower},
        {stdio_1k_p99, <<"round trip">>, <<"us">>, lower}
    ],
    Bars = [
        {stdio_1k_pipelined, [{erlmcp05, 10}, {rmcp, 0.7}, {beam, none}]},
        {stdio_64k_pipelined, [{erlmcp05, 50}, {rmcp, none}, {beam, none}]},
        {stdio_1k_p50, [{erlmcp05, 2}, {rmcp, none}, {beam, none}]},
        {stdio_1k_p99, [{erlmcp05, 2}, {rmcp, none}, {beam, none}]}
    ],
    #{
        cases => [case_of(Case) || Case <- Cases],
        variants => [
            #{path => Kind, run => fun(_) -> called(Kind, sizes(Kind)) end}
         || Kind <- Kinds
        ],
        ratios => [
            {Case, nif, To, Bar}
         || {Case, Tos} <- Bars, {To, Bar} <- Tos, lists:member(To, Kinds)
        ],
        runs => 5,
        warm_up => false
    }.

called(Kind, #{many := Many, large := Large, single := Single}) ->
    Port = start(Kind, "tool"),
    ok = initialize(Port),
    _ = pipelined(Port, 1024, ?WARM_UP, 8),
    Result = [
        pipelined(Port, 1024, Many, 64),
        pipelined(Port, 65536, Large, 8)
        | one_at_a_time(Port, Single)
    ],
    ok = stop(Port),
    Result.

large_lines() ->
    #{
        cases => [
            case_of({Case, <<"throughput each way">>, <<"MB/s">>, higher})
         || Case <- [stdio_64m, stdio_1m]
        ],
        variants => [
            #{
                path => Path,
                run => fun(_) ->
                    Port = start(Path, "line"),
                    Line = <<(binary:copy(<<"x">>, ?MIB - 1))/binary, $\n>>,
                    _ = echoed(Port, [Line]),
                    Result = [
                        echoed(Port, [binary:copy(<<"x">>, 64 * ?MIB - 1), $\n]),
                        echoed(Port, lists:duplicate(64, Line))
                    ],
                    ok = stop(Port),
                    Result
                end
            }
         || Path <- [nif, beam]
        ],
        ratios => [{stdio_64m, nif, beam, none}],
        runs => 5,
        warm_up => false,
        checks => fun checks/1
    }.

%% The technique of erlmcp 0.5 does some thousands of calls of 1 KB in a second, and 50 of 64 KB.
sizes(erlmcp05) -> #{many => 500, large => 15, single => 300};
sizes(_) -> #{many => 10000, large => 500, single => 2000}.

case_of({Name, Metric, Unit, Better}) ->
    #{name => Name, metric => Metric, unit => Unit, better => Better}.

kinds() ->
    [nif, beam, erlmcp05] ++ [rmcp || filelib:is_regular(rmcp())].

rmcp() -> "_build/mcp_peers/rmcp/release/rmcp_server".

start(rmcp, "tool") ->
    open_port({spawn_executable, rmcp()}, [binary, stream, exit_status, {args, ["--stdio"]}]);
start(Kind, What) ->
    Paths = lists:append([Dirs || {pa, Dirs} <- init:get_arguments()]),
    Args =
        [flag(Kind), "-pa"] ++ Paths ++
            ["-run", "bench_stdio_server", "main", "-extra", atom_to_list(Kind), What],
    Erl = os:find_executable("erl"),
    open_port({spawn_executable, Erl}, [binary, stream, exit_status, {args, Args}]).

%% What reads standard input through the VM needs the VM to read it.
flag(erlmcp05) -> "-noshell";
flag(_) -> "-noinput".

%% A server ends when its input does.
stop(Port) ->
    {os_pid, Pid} = erlang:port_info(Port, os_pid),
    true = port_close(Port),
    gone("/proc/" ++ integer_to_list(Pid)).

gone(File) ->
    case filelib:is_dir(File) of
        true ->
            receive
            after 5 -> gone(File)
            end;
        false ->
            ok
    end.

initialize(Port) ->
    Request = request(0, <<"initialize">>, #{
        <<"protocolVersion">> => ?REVISION,
        <<"capabilities">> => #{},
        <<"clientInfo">> => #{<<"name">> => <<"bench">>, <<"version">> => <<"1">>}
    }),
    true = port_command(Port, Request),
    ok = line(Port),
    true = port_command(
        Port, <<"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n">>
    ),
    ok.

request(Id, Method, Params) ->
    Message = #{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => Method, <<"params">> => Params
    },
    [erlmcp_native_json:encode(Message), $\n].

calls(Bytes, Count) ->
    [
        [
            bench_peer:padded(
                <<"{\"jsonrpc\":\"2.0\",\"id\":", (integer_to_binary(1000000 + Id))/binary,
                    ",\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",",
                    "\"arguments\":{\"text\":\"">>,
                <<"\"}}}">>,
                Bytes
            ),
            $\n
        ]
     || Id <- lists:seq(1, Count)
    ].

%% So many calls at a time; each answer makes room for one more.
pipelined(Port, Bytes, Count, Window) ->
    {First, Rest} = lists:split(min(Window, Count), calls(Bytes, Count)),
    Begin = erlang:monotonic_time(),
    true = port_command(Port, First),
    ok = pipelined(Port, Rest, Count),
    Count * 1.0e6 / us_since(Begin).

pipelined(_, _, 0) ->
    ok;
pipelined(Port, Calls, Left) ->
    Answered = some_lines(Port),
    {Now, Later} = lists:split(min(Answered, length(Calls)), Calls),
    true = port_command(Port, Now),
    pipelined(Port, Later, Left - Answered).

one_at_a_time(Port, Count) ->
    Times = [
        begin
            Begin = erlang:monotonic_time(),
            true = port_command(Port, Call),
            ok = line(Port),
            us_since(Begin)
        end
     || Call <- calls(1024, Count)
    ],
    [erlmcp_native_statistics:percentile(Percent, Times) || Percent <- [50, 99]].

%% How fast what is sent comes back, in 10^6 bytes a second. Both ways are busy at once only where
%% the server answers before everything is sent.
echoed(Port, Lines) ->
    Bytes = iolist_size(Lines),
    Begin = erlang:monotonic_time(),
    true = port_command(Port, Lines),
    ok = bytes(Port, Bytes),
    2 * Bytes / us_since(Begin).

bytes(_, 0) -> ok;
bytes(Port, Left) -> bytes(Port, Left - byte_size(data(Port))).

%% An answer may come in parts.
line(Port) ->
    case some_lines(Port) of
        0 -> line(Port);
        1 -> ok
    end.

some_lines(Port) ->
    length(binary:matches(data(Port), <<"\n">>)).

data(Port) ->
    receive
        {Port, {data, Data}} -> Data;
        {Port, {exit_status, Status}} -> exit({server, Status})
    after ?TIMEOUT_MS -> exit(no_answer)
    end.

us_since(Begin) ->
    erlang:convert_time_unit(erlang:monotonic_time() - Begin, native, nanosecond) / 1000.

checks(Rows) ->
    case {bench_report:median(stdio_64m, nif, Rows), bench_report:median(stdio_1m, nif, Rows)} of
        {One, Many} when is_number(One), is_number(Many) ->
            [
                #{'case' => stdio_64m, ok => One >= 200, value => One, unit => <<"MB/s each way">>},
                #{
                    'case' => stdio_64m,
                    ok => Many / One =< 1.5,
                    value => Many / One,
                    unit => <<"time per byte of stdio_1m">>
                }
            ];
        _ ->
            []
    end.
