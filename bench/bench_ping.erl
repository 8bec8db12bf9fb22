%% @doc Round trips of 1 KB, one at a time, against an echo server in another OS process.
-module(bench_ping).

-export([groups/0, over_link/2, times/3]).

-export_type([round_trip/0]).

-type round_trip() :: {
    fun((Message :: binary(), State) -> State), State, Close :: fun((State) -> term())
}.

-define(FRAME_BYTES, 1023).
-define(WARM_UP, 1000).
-define(COUNT, 3000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    Cases = [ping_1k_p50, ping_1k_p99],
    [
        #{
            cases => [
                #{name => Name, metric => <<"round trip">>, unit => <<"us">>, better => lower}
             || Name <- Cases
            ],
            variants => [
                #{path => nif, run => fun({_, Port}) -> measure(over_link(nif, Port)) end},
                #{path => beam, run => fun({_, Port}) -> measure(over_link(beam, Port)) end},
                #{path => gen_tcp, run => fun({_, Port}) -> measure(over_gen_tcp(Port)) end}
            ],
            ratios => [
                {Name, nif, To, Bar}
             || Name <- Cases, {To, Bar} <- [{gen_tcp, 1}, {beam, none}]
            ],
            runs => 7,
            setup => fun() ->
                Peer = bench_peer:start_sender(),
                {Peer, bench_peer:serve(Peer, echo)}
            end,
            teardown => fun({Peer, _}) -> bench_peer:stop(Peer) end
        }
    ].

measure({RoundTrip, State, Close}) ->
    {_, Warm} = times(RoundTrip, State, ?WARM_UP),
    {Times, Done} = times(RoundTrip, Warm, ?COUNT),
    Close(Done),
    [erlmcp_native_statistics:percentile(Percent, Times) || Percent <- [50, 99]].

%% @doc The times of so many round trips, in microseconds.
-spec times(fun((binary(), State) -> State), State, pos_integer()) -> {[float()], State}.
times(RoundTrip, State0, Count) ->
    Message = bench_peer:frame(?FRAME_BYTES),
    lists:mapfoldl(
        fun(_, State) ->
            Begin = erlang:monotonic_time(nanosecond),
            Next = RoundTrip(Message, State),
            {(erlang:monotonic_time(nanosecond) - Begin) / 1000, Next}
        end,
        State0,
        lists:seq(1, Count)
    ).

%% @doc Round trips over a connection of `erlmcp_native_link' in the calling process.
-spec over_link(erlmcp_native_path:path(), inet:port_number()) -> round_trip().
over_link(Path, Port) ->
    RoundTrip = fun(Message, Link) ->
        Echo = fun(Frame, none) -> Frame end,
        {ok, Message, Next} = bench_link:fold(Echo, none, 1, bench_link:send(Message, Link)),
        Next
    end,
    {RoundTrip, bench_link:connect(Path, Port, #{}), fun bench_link:close/1}.

%% Of the ways to use `gen_tcp' for lines the fastest one found: see bench/README.md.
over_gen_tcp(Port) ->
    {ok, Socket} = gen_tcp:connect({127, 0, 0, 1}, Port, [
        binary, {packet, line}, {active, true}, {nodelay, true}, {buffer, 65536}
    ]),
    RoundTrip = fun(Message, _) ->
        ok = gen_tcp:send(Socket, [Message, $\n]),
        receive
            {tcp, Socket, Line} when byte_size(Line) =:= byte_size(Message) + 1 -> none
        end
    end,
    {RoundTrip, none, fun(_) -> gen_tcp:close(Socket) end}.
