%% @doc A peer that sends ten times what its receiver takes, for 60 s (`OVERLOAD_S'): what is lost,
%% and what it costs.
%%
%% The receiver takes 1,000 messages of 1 KB a second; the peer has ten times as many for it, and
%% sends as fast as it may. Then the receiver takes the rest as fast as it can. The baseline's way
%% (`{packet, line}', always active) loses nothing either: it keeps everything in the mailbox.
-module(bench_overload).

-export([groups/0]).

%% Called in a fresh VM.
-export([measure/4, serve_events/1]).

-define(RATE, 1000).
-define(OVERLOAD, 10).
-define(TICK_MS, 10).
-define(FRAME_BYTES, 1024).
-define(MB, 1000000).
-define(WAIT_MS, 60000).

%% @doc The groups of {@link bench}.
-spec groups() -> [bench:group()].
groups() ->
    [
        group(overload, tcp, [nif, port, beam, erlmcp05]),
        group(overload_stdio, stdio, [port, beam]),
        group(overload_http, http, [nif, port, beam])
    ].

group(Name, Kind, Paths) ->
    Lost = list_to_atom(atom_to_list(Name) ++ "_lost"),
    Queue = list_to_atom(atom_to_list(Name) ++ "_queue"),
    #{
        cases => [
            #{name => Name, metric => <<"VM growth, peak">>, unit => <<"MB">>, better => lower},
            #{name => Lost, metric => <<"lost">>, unit => <<"messages">>, better => lower},
            #{name => Queue, metric => <<"mailbox, peak">>, unit => <<"messages">>, better => lower}
        ],
        variants => [variant(Kind, Path) || Path <- Paths],
        ratios => [],
        runs => 1,
        warm_up => false,
        by_name_only => true,
        checks => fun(Rows) -> checks(Name, Lost, Paths, Rows) end
    }.

checks(Name, Lost, Paths, Rows) ->
    [
        #{'case' => Name, ok => Count == 0, value => Count, unit => <<"messages lost">>}
     || Path <- Paths,
        Count <- [bench_report:median(Lost, Path, Rows)],
        is_number(Count)
    ].

variant(Kind, Path) ->
    #{
        path => Path,
        timeout_ms => 300000,
        run => fun(_) ->
            Sender = bench_peer:start_sender(),
            Vm = bench_peer:start_vm(),
            Seconds = list_to_integer(os:getenv("OVERLOAD_S", "60")),
            Values = bench_peer:call(Vm, ?MODULE, measure, [
                Kind, Path, to(Kind, Sender, ?RATE * ?OVERLOAD * Seconds), Seconds
            ]),
            bench_peer:stop(Vm),
            bench_peer:stop(Sender),
            Values
        end
    }.

to(tcp, Sender, Count) ->
    bench_peer:serve(Sender, {numbered, ?FRAME_BYTES, Count});
to(http, Sender, Count) ->
    bench_peer:call(Sender, ?MODULE, serve_events, [Count]);
to(stdio, _, _) ->
    none.

%% @private
-spec measure(tcp | stdio | http, atom(), term(), pos_integer()) -> [number()].
measure(Kind, Path, To, Seconds) ->
    Count = ?RATE * ?OVERLOAD * Seconds,
    Source = source(Kind, Path, To, Count),
    Before = bench_os:settled_rss_bytes(),
    ok = begin_sending(Source),
    Deadline = erlang:monotonic_time(millisecond) + Seconds * 1000,
    {Slow, Peak, Queue} = slowly(Source, Deadline, 0, Before, 0),
    Seen = drain(Source, Count, Slow),
    [(Peak - Before) / ?MB, Count - Seen, Queue].

source(tcp, erlmcp05, Port, _) ->
    {mailbox, bench_owner:start(erlmcp05, Port)};
source(tcp, Path, Port, _) ->
    {ok, Conn} = erlmcp_native:connect(#{port => Port}, #{path => Path}),
    ok = erlmcp_native:await_connected(Conn, ?WAIT_MS),
    {pull, Conn, <<"go">>};
source(stdio, Path, none, Count) ->
    Script = io_lib:format(
        "read go; awk 'BEGIN { for (i = 1; i <= ~b; i++) printf \"%0~bd\\n\", i }'; read end",
        [Count, ?FRAME_BYTES]
    ),
    {ok, Conn} = erlmcp_native:connect(
        #{command => "/bin/sh", args => ["-c", lists:flatten(Script)], stderr => null},
        #{path => Path}
    ),
    ok = erlmcp_native:await_connected(Conn, ?WAIT_MS),
    {pull, Conn, <<"go">>};
source(http, Path, Port, _) ->
    Url = "http://127.0.0.1:" ++ integer_to_list(Port) ++ "/mcp",
    {ok, Client} = erlmcp_native_http_client:start_link(Url, #{
        path => Path, timeout_ms => 600000, total_timeout_ms => infinity
    }),
    {events, Client}.

begin_sending({mailbox, Transport}) ->
    bench_owner:send(<<"go">>, Transport);
begin_sending({pull, Conn, Go}) ->
    erlmcp_native:send(Conn, Go);
begin_sending({events, Client}) ->
    Meta = #{
        <<"io.modelcontextprotocol/protocolVersion">> => <<"2026-07-28">>,
        <<"io.modelcontextprotocol/clientCapabilities">> => #{}
    },
    erlmcp_native_http_client:send(
        Client,
        erlmcp_native_json:encode(#{
            jsonrpc => <<"2.0">>,
            id => 1,
            method => <<"tools/call">>,
            params => #{name => <<"flood">>, <<"_meta">> => Meta}
        })
    ).

slowly(Source, Deadline, Seen, Peak, Queue) ->
    case Deadline - erlang:monotonic_time(millisecond) of
        Left when Left =< 0 ->
            {Seen, Peak, Queue};
        Left ->
            receive
            after min(Left, ?TICK_MS) -> ok
            end,
            More = take(Source, ?RATE * ?TICK_MS div 1000, Seen),
            {message_queue_len, Length} = process_info(self(), message_queue_len),
            slowly(Source, Deadline, More, peak(More, Peak), max(Queue, Length))
    end.

%% A look takes a while.
peak(Seen, Peak) when Seen rem 100 < 10 -> max(Peak, bench_os:rss_bytes());
peak(_, Peak) -> Peak.

drain(_, Count, Count) ->
    Count;
drain(Source, Count, Seen) ->
    case take(Source, min(1000, Count - Seen), Seen) of
        Seen ->
            %% Nothing for now.
            case await(Source) of
                ok -> drain(Source, Count, Seen);
                timeout -> Seen
            end;
        More ->
            drain(Source, Count, More)
    end.

await({pull, Conn, _}) ->
    receive
        {erlmcp_native, Conn, _} -> ok
    after ?WAIT_MS -> timeout
    end;
await(_) ->
    receive
    after ?TICK_MS -> ok
    end.

%% At most so many; each is to be the next.
take({pull, Conn, _}, Max, Seen) ->
    case erlmcp_native:take(Conn, Max) of
        {ok, Frames} -> lists:foldl(fun next/2, Seen, Frames);
        {error, _} -> Seen
    end;
take({mailbox, _} = Source, Max, Seen) when Max > 0 ->
    receive
        {transport_message, Frame} -> take(Source, Max - 1, next(Frame, Seen))
    after 0 -> Seen
    end;
take({events, Client} = Source, Max, Seen) when Max > 0 ->
    receive
        {erlmcp_native, Client, {frames, Frames}} ->
            take(Source, Max - length(Frames), lists:foldl(fun next_event/2, Seen, Frames))
    after 0 -> Seen
    end;
take(_, _, Seen) ->
    Seen.

next(Frame, Seen) ->
    case number(Frame, Seen + 1) of
        true -> Seen + 1;
        false -> exit({out_of_order, Seen + 1, Frame})
    end.

number(<<${, _/binary>> = Frame, Number) -> Frame =:= bench_peer:numbered(?FRAME_BYTES, Number);
number(Frame, Number) -> binary_to_integer(Frame) =:= Number.

next_event(Event, Seen) ->
    {ok, #{<<"params">> := #{<<"n">> := Number}}} = erlmcp_native_json:decode(Event),
    Number = Seen + 1.

%% @private
-spec serve_events(pos_integer()) -> inet:port_number().
serve_events(Count) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [
            binary, {ip, {127, 0, 0, 1}}, {active, false}, {sndbuf, 1048576}
        ]),
        {ok, Port} = inet:port(Listener),
        {Port, fun() -> answer(Listener, Count) end}
    end).

answer(Listener, Count) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, _} = gen_tcp:recv(Socket, 0),
    Head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n",
    ok = gen_tcp:send(Socket, Head),
    Pad = binary:copy(<<"x">>, ?FRAME_BYTES - 100),
    events(Socket, 1, Count, Pad),
    receive
        {stop, Socket} -> ok
    end.

events(Socket, From, Count, Pad) when From =< Count ->
    To = min(From + 99, Count),
    ok = gen_tcp:send(Socket, [event(N, Pad) || N <- lists:seq(From, To)]),
    events(Socket, To + 1, Count, Pad);
events(_, _, _, _) ->
    ok.

event(Number, Pad) ->
    [
        "data: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{\"n\":",
        integer_to_list(Number), ",\"data\":\"", Pad, "\"}}\n\n"
    ].
