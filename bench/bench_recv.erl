%% @doc Receiving from a sender in another OS process: CPU per message, messages per second with
%% decoding, and large frames.
-module(bench_recv).

-export([groups/0]).

-define(MIB, 1048576).
-define(COUNT_1K, 500000).
-define(COUNT_OWNER, 300000).
-define(COUNT_64K, 12000).
-define(COUNT_DECODE, 100000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        received(recv_1k_cpu, recv_1k_rate, 1024, ?COUNT_1K, fun links/1),
        received(recv_1k_owner_cpu, recv_1k_owner_rate, 1024, ?COUNT_OWNER, fun owners/1),
        received(recv_64k_cpu, recv_64k_rate, 65536, ?COUNT_64K, fun links/1),
        decoded(),
        frames()
    ].

received(Cpu, Rate, Bytes, Count, Receivers) ->
    Measure = fun(Receive, Port) ->
        {CpuUs, Us} = cost(Receive, Port),
        [CpuUs / Count, Count * 1.0e6 / Us]
    end,
    #{
        cases => [
            #{name => Cpu, metric => <<"cpu">>, unit => <<"us/message">>, better => lower},
            throughput(Rate)
        ],
        variants => variants(Measure, Receivers(Count)),
        ratios => [{Cpu, nif, erlmcp05, bar(Cpu, 2)}, {Cpu, nif, beam, bar(Cpu, 0.9)}],
        runs => 5,
        setup => fun() -> server([{blast, Bytes, Count}]) end,
        teardown => fun stop/1
    }.

%% Only the undecoded receive of 1 KB in the consuming process has a mark to reach.
bar(recv_1k_cpu, Bar) -> Bar;
bar(_, _) -> none.

decoded() ->
    Measure = fun(Receive, Port) ->
        {_, Us} = cost(Receive, Port),
        [?COUNT_DECODE * 1.0e6 / Us]
    end,
    Decode = fun(Text, _) -> {ok, _} = erlmcp_native_json:decode(Text) end,
    %% The program has decoded it.
    Decoded = fun({json, #{}}, Acc) -> Acc end,
    Jsx = fun(Text, _) -> jsx:decode(Text, [return_maps]) end,
    #{
        cases => [throughput(recv_decode_1k)],
        variants => variants(Measure, [
            {nif, link(nif, ?COUNT_DECODE, Decode)},
            {port, link(port, ?COUNT_DECODE, Decoded, #{decode => json})},
            {beam, link(beam, ?COUNT_DECODE, Decode)},
            {erlmcp05, pushed(erlmcp05, ?COUNT_DECODE, Jsx)}
        ]),
        ratios => [
            {recv_decode_1k, nif, erlmcp05, 8},
            {recv_decode_1k, nif, beam, none},
            {recv_decode_1k, port, nif, 0.5},
            {recv_decode_1k, port, erlmcp05, 4}
        ],
        runs => 5,
        setup => fun() -> server([{blast, 1024, ?COUNT_DECODE}]) end,
        teardown => fun stop/1
    }.

frames() ->
    Measure = fun({ReceiveOne, ReceiveMany}, One, Many) ->
        {_, UsOne} = cost(ReceiveOne, One),
        {_, UsMany} = cost(ReceiveMany, Many),
        [64 * ?MIB / UsOne, 64 * ?MIB / UsMany]
    end,
    Receivers = [
        {Path, {link(Path, 1, fun ignore/2), link(Path, 64, fun ignore/2)}}
     || Path <- [nif, beam]
    ],
    Baseline = {pushed(erlmcp05, 1, fun ignore/2), pushed(erlmcp05, 64, fun ignore/2)},
    Variants = [
        #{path => Path, run => fun({_, [One, Many]}) -> Measure(Receive, One, Many) end}
     || {Path, Receive} <- Receivers ++ [{erlmcp05, Baseline}]
    ],
    #{
        cases => [
            #{name => Name, metric => <<"throughput">>, unit => <<"MB/s">>, better => higher}
         || Name <- [frame_64m, frame_1m]
        ],
        %% One frame of 64 MiB takes the baseline seconds.
        variants => [
            case Variant of
                #{path := erlmcp05} -> Variant#{runs => 3};
                _ -> Variant
            end
         || Variant <- Variants
        ],
        ratios => [
            {frame_64m, nif, erlmcp05, 20},
            {frame_64m, nif, beam, none},
            {frame_1m, nif, erlmcp05, none},
            {frame_1m, nif, beam, none}
        ],
        runs => 5,
        setup => fun() -> server([{blast, 64 * ?MIB, 1}, {blast, ?MIB, 64}]) end,
        teardown => fun stop/1,
        checks => fun linear/1
    }.

%% Time per byte of the large frame, in terms of the small one.
linear(Rows) ->
    case {bench_report:median(frame_1m, nif, Rows), bench_report:median(frame_64m, nif, Rows)} of
        {Small, Large} when is_number(Small), is_number(Large) ->
            [
                #{
                    'case' => frame_64m,
                    ok => Small / Large =< 1.5,
                    value => Small / Large,
                    unit => <<"time per byte of frame_1m">>
                }
            ];
        _ ->
            []
    end.

throughput(Name) ->
    #{name => Name, metric => <<"throughput">>, unit => <<"messages/s">>, better => higher}.

variants(Measure, Receivers) ->
    [
        #{path => Path, run => fun({_, [Port]}) -> Measure(Receive, Port) end}
     || {Path, Receive} <- Receivers
    ].

server(Behaviours) ->
    Sender = bench_peer:start_sender(),
    {Sender, [bench_peer:serve(Sender, Behaviour) || Behaviour <- Behaviours]}.

stop({Sender, _}) ->
    bench_peer:stop(Sender).

%% CPU and time of the receiving alone, without connecting and closing.
cost({Connect, Receive, Close}, Port) ->
    Connection = Connect(Port),
    {Cpu0, Us0} = {bench_os:cpu_us(), now_us()},
    Done = Receive(Connection),
    {Cpu, Us} = {bench_os:cpu_us(), now_us()},
    Close(Done),
    {Cpu - Cpu0, Us - Us0}.

now_us() -> erlang:monotonic_time(microsecond).

links(Count) ->
    [{Path, link(Path, Count, fun ignore/2)} || Path <- [nif, beam]] ++
        [{erlmcp05, pushed(erlmcp05, Count, fun ignore/2)}].

owners(Count) ->
    [{Path, pushed(Path, Count, fun ignore/2)} || Path <- [nif, beam, erlmcp05]].

ignore(_, Acc) -> Acc.

link(Path, Count, Fun) ->
    link(Path, Count, Fun, #{}).

link(Path, Count, Fun, More) ->
    Receive = fun(Link) ->
        {ok, _, Done} = bench_link:fold(Fun, ok, Count, bench_link:send(<<"go">>, Link)),
        Done
    end,
    Options = More#{max_frame_bytes => 128 * ?MIB},
    {fun(Port) -> bench_link:connect(Path, Port, Options) end, Receive, fun bench_link:close/1}.

pushed(Path, Count, Fun) ->
    Receive = fun(Transport) ->
        ok = bench_owner:send(<<"go">>, Transport),
        _ = bench_owner:fold(Fun, ok, Count),
        Transport
    end,
    {fun(Port) -> bench_owner:start(Path, Port) end, Receive, fun bench_owner:close/1}.
