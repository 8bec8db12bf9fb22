%% @doc An owner that does not read while its peer sends 300,000 frames of 1 KB, and then does.
-module(bench_slow_owner).

-export([groups/0]).

%% Called in a fresh VM.
-export([measure/2]).

-define(COUNT, 300000).
-define(FRAME_BYTES, 1024).
-define(MB, 1000000).
-define(LIMIT_MB, 8).

-define(SAMPLE_MS, 100).
-define(STILL_SAMPLES, 10).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        #{
            cases => [
                #{name => slow_owner, metric => <<"VM growth">>, unit => <<"MB">>, better => lower},
                #{
                    name => slow_owner_in_order,
                    metric => <<"frames in order">>,
                    unit => <<"frames">>,
                    better => higher
                }
            ],
            variants => [
                variant(nif),
                variant(beam),
                (variant(erlmcp05))#{runs => 1}
            ],
            ratios => [{slow_owner, nif, erlmcp05, none}, {slow_owner, beam, erlmcp05, none}],
            runs => 3,
            warm_up => false,
            setup => fun() ->
                Sender = bench_peer:start_sender(),
                {Sender, bench_peer:serve(Sender, {numbered, ?FRAME_BYTES, ?COUNT})}
            end,
            teardown => fun({Sender, _}) -> bench_peer:stop(Sender) end,
            checks => fun checks/1
        }
    ].

variant(Path) ->
    #{
        path => Path,
        run => fun({_, Port}) ->
            Vm = bench_peer:start_vm(),
            Values = bench_peer:call(Vm, ?MODULE, measure, [Path, Port]),
            bench_peer:stop(Vm),
            Values
        end
    }.

%% @private
-spec measure(bench_owner:path(), inet:port_number()) -> [number()].
measure(Path, Port) ->
    Transport = bench_owner:start(Path, Port),
    Before = bench_os:settled_rss_bytes(),
    ok = bench_owner:send(<<"go">>, Transport),
    Peak = peak(Before, state(), 0),
    InOrder = bench_owner:fold(fun next/2, 0, ?COUNT),
    ok = bench_owner:close(Transport),
    [(Peak - Before) / ?MB, InOrder].

%% The largest seen until nothing moves any more: the peer has sent everything or is held back.
peak(Peak, _, ?STILL_SAMPLES) ->
    Peak;
peak(Peak, {Length, Rss} = Since, Still) ->
    receive
    after ?SAMPLE_MS -> ok
    end,
    case state() of
        {Length, Now} when abs(Now - Rss) < ?MB -> peak(max(Peak, Now), Since, Still + 1);
        {_, Now} = Moved -> peak(max(Peak, Now), Moved, 0)
    end.

state() ->
    {message_queue_len, Length} = process_info(self(), message_queue_len),
    {Length, bench_os:rss_bytes()}.

next(Message, Seen) ->
    case bench_peer:numbered(?FRAME_BYTES, Seen + 1) of
        Message -> Seen + 1;
        _ -> exit({out_of_order, Seen + 1, Message})
    end.

checks(Rows) ->
    [
        #{
            'case' => Name,
            ok => Growth < ?LIMIT_MB andalso InOrder == ?COUNT,
            value => Growth,
            unit => <<"MB of growth, then every frame in order">>
        }
     || {Name, Path} <- [{slow_owner, nif}, {slow_owner_beam, beam}],
        Growth <- [bench_report:median(slow_owner, Path, Rows)],
        InOrder <- [bench_report:median(slow_owner_in_order, Path, Rows)],
        is_number(Growth)
    ].
