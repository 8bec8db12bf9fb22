%% @doc What becomes of messages when ten times as many are offered as are taken: whether any is
%% lost, for how long the buffers are full, and how much memory that takes.
%%
%% All transports and paths at once, each consumer in a VM of its own, so that its memory and its
%% garbage collections are its own. Over TCP and stdio numbered messages are offered, and taken at a
%% fixed rate; at the end the rest is taken, and no number may be missing. Over HTTP requests are
%% sent to a server that answers a tenth of them in time, and each must have an outcome.
-module(erlmcp_native_bottleneck_buffering).

-export([run/1]).

%% Called in the other VM.
-export([measure/4]).

-record(taking, {
    module :: module(),
    conn :: term(),
    each :: pos_integer(),
    until :: integer(),
    due :: integer(),
    next = 1 :: pos_integer(),
    lost = 0 :: non_neg_integer(),
    received = 0 :: non_neg_integer(),
    samples = [] :: [{At :: integer(), Waiting :: non_neg_integer()}]
}).

-define(PER_S, 1000).
-define(OVERLOAD, 10).
-define(SECONDS, 60).
-define(BYTES, 256).
-define(TICK_MS, 10).
-define(SAMPLE_TICKS, 10).
%% Of a connection; the share of it from which it counts as full.
-define(HIGH_WATER, 1048576).
-define(FULL, 0.9).
-define(GIVE_UP_MS, 120000).

%% @doc Options: `paths', `baseline', `overload_s' (60).
-spec run(map()) -> erlmcp_native_report:analysis().
run(Options) ->
    Seconds = maps:get(overload_s, Options, ?SECONDS),
    Cases =
        [
            {Path, Transport, erlmcp_native_buffering_consumer}
         || Path <- maps:get(paths, Options, [nif, port, beam]), Transport <- [stdio, tcp, http]
        ] ++ baseline(Options),
    erlmcp_native_progress:say(Options, "buffering: ~b cases at once, ~b s", [
        length(Cases), Seconds
    ]),
    Measured = erlmcp_native_parallel:map(fun(Case) -> measured(Case, Seconds) end, Cases),
    #{
        name => buffering,
        rows => lists:append([rows(M) || M <- Measured]),
        metrics => metrics((hd(Measured))#{all => [maps:remove(memory, M) || M <- Measured]}),
        evidence => [maps:without([memory, waiting], M) || M <- Measured],
        series => [plot(T, [M || #{transport := Of} = M <- Measured, Of =:= T])
            || T <- [stdio, tcp, http]]
    }.

baseline(#{baseline := Baseline}) when Baseline =/= none ->
    [{erlmcp05, tcp, Baseline:consumer()}];
baseline(_) ->
    [].

measured({Path, Transport, Module}, Seconds) ->
    erlmcp_native_analysis_vm:with(Path, [], fun(Vm) ->
        Count = ?PER_S * ?OVERLOAD * Seconds,
        erlmcp_native_analysis_vm:with(beam, [], fun(Source) ->
            Target = source(Transport, Path, Source, Count),
            Before = erlmcp_native_analysis_vm:rss_bytes(Vm),
            Watch = watch(Vm),
            Args = [Module, {Transport, Path}, Target, {Count, Seconds}],
            Result = erlmcp_native_analysis_vm:call(Vm, ?MODULE, measure, Args, Seconds * 1000),
            Memory = watched(Watch),
            (maps:merge(#{offered => Count}, Result))#{
                path => Path,
                transport => Transport,
                seconds => Seconds,
                before_bytes => Before,
                peak_bytes => lists:max([0 | [Rss - Before || {_, Rss} <- Memory, Rss =/= null]]),
                memory => Memory
            }
        end)
    end).

source(tcp, _, Source, Count) ->
    PerS = ?PER_S * ?OVERLOAD,
    Args = [?BYTES, #{per_s => PerS, count => Count}],
    #{port => erlmcp_native_analysis_vm:call(Source, erlmcp_native_analysis_peer, flood, Args)};
source(stdio, _, _, Count) ->
    %% As fast as the pipe takes them.
    Padding = lists:duplicate(?BYTES - 50, $x),
    Format = "{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"n\":%09.0f,\"p\":\"" ++ Padding ++ "\"}",
    #{command => "seq", args => ["-f", Format, "1", integer_to_list(Count)]};
source(http, Path, Source, _) ->
    %% 20 requests at a time, each for 20 ms.
    Own =
        case Path of
            nif -> nif;
            _ -> beam
        end,
    Args = [Own, #{delay_ms => 20, max_requests => 20}],
    #{port => erlmcp_native_analysis_vm:call(Source, erlmcp_native_analysis_peer, http, Args)}.

%% Resident memory of the other VM, every 250 ms, from here.
watch(Vm) ->
    spawn_link(fun() -> watch(Vm, erlang:monotonic_time(millisecond), []) end).

watch(Vm, Begin, Seen) ->
    receive
        {stop, From} -> From ! {self(), lists:reverse(Seen)}
    after 250 ->
        Now = erlang:monotonic_time(millisecond) - Begin,
        watch(Vm, Begin, [{Now, erlmcp_native_analysis_vm:rss_bytes(Vm)} | Seen])
    end.

watched(Watch) ->
    Watch ! {stop, self()},
    receive
        {Watch, Seen} -> Seen
    end.

%% @private
-spec measure(module(), {erlmcp_native_report:transport(), erlmcp_native_report:path()}, map(),
    {pos_integer(), pos_integer()}) -> map().
measure(Module, Case, Target, Size) ->
    {Collections, Words, _} = statistics(garbage_collection),
    Result = measured(Module, Case, Target, Size),
    {CollectionsAfter, WordsAfter, _} = statistics(garbage_collection),
    Result#{
        collections => CollectionsAfter - Collections,
        reclaimed_bytes => (WordsAfter - Words) * erlang:system_info(wordsize)
    }.

measured(_, {http, Path}, Target, Size) ->
    erlmcp_native_buffering_http:measure(Path, Target, Size);
measured(Module, {_, Path}, Target, {Count, Seconds}) ->
    {ok, Conn} = Module:open(Target, Path),
    Now = erlang:monotonic_time(millisecond),
    Taken = take(0, #taking{
        module = Module,
        conn = Conn,
        each = ?PER_S * ?TICK_MS div 1000,
        due = Now,
        until = Now + Seconds * 1000
    }),
    #taking{received = OnTime, samples = Samples} = Taken,
    #taking{received = Received, lost = Lost, next = Next} = drain(Count, Taken, give_up()),
    ok = Module:close(Conn),
    Waiting = [Bytes || {_, Bytes} <- Samples],
    Full = [Bytes || Bytes <- Waiting, Bytes >= ?FULL * ?HIGH_WATER],
    #{
        taken_on_time => OnTime,
        received => Received,
        %% What is missing at the end counts, too.
        lost => Lost + Count - (Next - 1),
        refused => 0,
        waiting_max_bytes => lists:max([0 | Waiting]),
        waiting_avg_bytes => lists:sum(Waiting) / max(1, length(Waiting)),
        high_water_percent => 100 * length(Full) / max(1, length(Waiting)),
        samples => length(Waiting)
    }.

give_up() -> erlang:monotonic_time(millisecond) + ?GIVE_UP_MS.

take(_, #taking{due = Due, until = Until} = Taking) when Due >= Until ->
    Taking;
take(Tick, #taking{module = Module, conn = Conn, each = Each, due = Due} = Taking) ->
    Frames = Module:take(Conn, Each),
    Looked = look(Tick rem ?SAMPLE_TICKS, counted(Frames, Taking)),
    Next = Due + ?TICK_MS,
    receive
    after max(0, Next - erlang:monotonic_time(millisecond)) ->
        take(Tick + 1, Looked#taking{due = Next})
    end.

look(0, #taking{module = Module, conn = Conn, due = Due, samples = Samples} = Taking) ->
    Taking#taking{samples = [{Due, Module:waiting(Conn)} | Samples]};
look(_, Taking) ->
    Taking.

%% The rest, as fast as it comes, until all that was offered is here or nothing comes any more.
drain(Count, #taking{next = Next} = Taking, _) when Next > Count ->
    Taking;
drain(Count, #taking{module = Module, conn = Conn} = Taking, Until) ->
    case Module:take(Conn, 1000) of
        [] ->
            receive
            after 1 -> ok
            end,
            case erlang:monotonic_time(millisecond) > Until of
                true -> Taking;
                false -> drain(Count, Taking, Until)
            end;
        Frames ->
            drain(Count, counted(Frames, Taking), give_up())
    end.

counted(Frames, Taking) ->
    lists:foldl(fun count/2, Taking, Frames).

count(Frame, #taking{next = Next, lost = Lost, received = Received} = Taking) ->
    Number = number(Frame),
    Taking#taking{
        next = Number + 1, lost = Lost + max(0, Number - Next), received = Received + 1
    }.

number(Frame) ->
    {At, Length} = binary:match(Frame, <<"\"n\",\"n\":">>),
    binary_to_integer(binary:part(Frame, At + Length, 9)).

rows(#{path := Path, transport := Transport, offered := Offered, lost := Lost} = Measured) ->
    #{peak_bytes := Peak, samples := Samples, high_water_percent := Full} = Measured,
    Row = fun(Name, Fields) ->
        erlmcp_native_report:row(Name, Fields#{path => Path, transport => Transport})
    end,
    [
        Row(buffer_lost, #{value => Lost, samples => Offered}),
        Row(buffer_peak, #{value => Peak / 1.0e6, samples => length(maps:get(memory, Measured))})
        | [
            Row(buffer_high_water, #{value => Full, samples => Samples})
         || Transport =/= http, Path =/= erlmcp05
        ]
    ].

metrics(#{offered := Offered, lost := Lost, refused := Refused, seconds := Seconds} = Measured) ->
    #{received := Received, peak_bytes := Peak, collections := Collections} = Measured,
    #{
        buffer_overflow_rate => (Lost + Refused) / Offered,
        avg_buffer_size => maps:get(waiting_avg_bytes, Measured),
        max_buffer_size => maps:get(waiting_max_bytes, Measured),
        gc_frequency => Collections / Seconds,
        size_efficiency => Received * ?BYTES / max(1, Received * ?BYTES + Peak),
        buffer_details => maps:get(all, Measured)
    }.

plot(Transport, Measured) ->
    Name = atom_to_binary(Transport),
    #{
        id => <<"buffering_", Name/binary>>,
        kind => memory,
        title => <<"Memory of the consumer at 10x overload, ", Name/binary>>,
        x => #{label => <<"time">>, unit => <<"s">>},
        y => #{label => <<"over its memory before">>, unit => <<"MB">>},
        lines => [
            #{
                label => atom_to_binary(Path),
                transport => Transport,
                path => Path,
                points => [
                    [Ms / 1000, max(0, Rss - Before) / 1.0e6]
                 || {Ms, Rss} <- Memory, Rss =/= null
                ]
            }
         || #{path := Path, memory := Memory, before_bytes := Before} <- Measured
        ]
    }.
