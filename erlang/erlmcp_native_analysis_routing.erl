%% @private How the time of a call splits: a real connection is used by one process, call after
%% call, which does by itself what a server and a client do, and looks at the clock in between.
-module(erlmcp_native_analysis_routing).

-export([profile/2]).

-define(BYTES, 1024).
-define(TIMEOUT_MS, 10000).
-define(STAGES, [framing, decode, route, handler, encode, send, round_trip]).

%% @doc Profiles so many calls of 1 KB. The subject is started, and the calling process does nothing
%% else.
-spec profile(erlmcp_native_analysis_subject:subject(), pos_integer()) ->
    {ok, map()} | {error, erlmcp_native_analysis_subject:reason()}.
profile(Subject, Count) ->
    case erlmcp_native_analysis_subject:open(Subject) of
        {ok, Client} ->
            Into = maps:from_list([{Stage, histogram()} || Stage <- ?STAGES]),
            {Id, Handler} = handler(),
            try
                measured(Subject, Client, Id, Count, Into)
            after
                ok = erlmcp_native_registry:unregister_server(Id),
                true = unlink(Handler),
                true = exit(Handler, kill),
                erlmcp_native_analysis_subject:close(Client)
            end;
        {error, _} = Error ->
            Error
    end.

histogram() ->
    erlmcp_native_histogram:new(#{write_concurrency => false}).

%% A server as the registry knows them.
handler() ->
    Id = <<"erlmcp_native_analysis_", (integer_to_binary(erlang:unique_integer()))/binary>>,
    Handler = spawn_link(fun handle/0),
    ok = erlmcp_native_registry:register_server(Id, Handler, #{}),
    {Id, Handler}.

handle() ->
    receive
        {mcp_message, _, {From, Method, Params}} ->
            Received = erlang:monotonic_time(),
            {reply, Result} = erlmcp_native_analysis_echo:result(Method, Params),
            From ! {handled, Received, erlang:monotonic_time(), Result},
            handle()
    end.

measured(Subject, Client, Id, Count, Into) ->
    #{transport := Transport, path := Path, call := Call} =
        erlmcp_native_analysis_subject:describe(Subject),
    Maker = erlmcp_native_analysis_call:maker(Call, ?BYTES),
    case round_trips(Client, Maker, Count, 1, Into) of
        ok ->
            ok = in_process(Path, Id, Count, Into),
            {ok, result(Transport, Path, Count, Into)};
        {error, _} = Error ->
            Error
    end.

%% `send' is the call that hands a message over, `framing' what taking the answer off the
%% connection costs this process.
round_trips(_, _, Count, N, _) when N > Count ->
    ok;
round_trips(Client, Maker, Count, N, Into) ->
    Json = iolist_to_binary(erlmcp_native_analysis_call:make(Maker, N)),
    Begin = erlang:monotonic_time(),
    case erlmcp_native_analysis_subject:request(Client, N, Json) of
        {ok, Sent} ->
            record(send, Begin, Into),
            case answer(Sent, N, 0) of
                {ok, Spent, Next} ->
                    record_native(framing, Spent, Into),
                    record(round_trip, Begin, Into),
                    round_trips(Next, Maker, Count, N + 1, Into);
                {error, _} = Error ->
                    Error
            end;
        {{error, Reason}, _} ->
            {error, Reason}
    end.

answer(Client, N, Spent) ->
    receive
        Msg ->
            Begin = erlang:monotonic_time(),
            case erlmcp_native_analysis_subject:handle_info(Msg, Client) of
                unknown ->
                    answer(Client, N, Spent);
                {Events, Next} ->
                    Took = Spent + erlang:monotonic_time() - Begin,
                    answered(Events, Next, N, Took)
            end
    after ?TIMEOUT_MS -> {error, timeout}
    end.

answered([], Client, N, Spent) -> answer(Client, N, Spent);
answered([{answer, N, ok} | _], Client, N, Spent) -> {ok, Spent, Client};
answered([{answer, N, {error, Why}} | _], _, N, _) -> {error, {initialize, Why}};
answered([{down, Reason} | _], _, _, _) -> {error, Reason};
answered([_ | Events], Client, N, Spent) -> answered(Events, Client, N, Spent).

%% What a server does with a call, one thing after the other.
in_process(_, _, 0, _) ->
    ok;
in_process(Path, Id, Left, Into) ->
    Maker = erlmcp_native_analysis_call:maker(echo, ?BYTES),
    Frame = iolist_to_binary(erlmcp_native_analysis_call:make(Maker, Left)),
    Options = #{path => codec(Path)},
    Begin = erlang:monotonic_time(),
    {ok, #{<<"method">> := Method, <<"params">> := Params}} =
        erlmcp_native_json:decode(Frame, Options),
    record(decode, Begin, Into),
    Decoded = erlang:monotonic_time(),
    ok = erlmcp_native_registry:route_to_server(Id, Id, {self(), Method, Params}),
    receive
        {handled, Received, Handled, Result} ->
            record_native(route, Received - Decoded, Into),
            record_native(handler, Handled - Received, Into),
            Back = erlang:monotonic_time(),
            Answer = #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => Left, <<"result">> => Result},
            _ = erlmcp_native_json:encode(Answer, Options),
            record(encode, Back, Into)
    end,
    in_process(Path, Id, Left - 1, Into).

%% What is not of this library is measured with this library's codec in Erlang.
codec(Path) when Path =:= nif; Path =:= port -> Path;
codec(_) -> beam.

record(Stage, Begin, Into) ->
    record_native(Stage, erlang:monotonic_time() - Begin, Into).

record_native(Stage, Native, Into) ->
    Ns = erlang:convert_time_unit(max(0, Native), native, nanosecond),
    erlmcp_native_histogram:record(maps:get(Stage, Into), Ns).

result(Transport, Path, Count, Into) ->
    Stages = maps:map(
        fun(_, Histogram) -> stage(erlmcp_native_histogram:snapshot(Histogram)) end, Into
    ),
    {RoundTrip, Split} = maps:take(round_trip, Stages),
    Spent = lists:sum([P50 || {_, #{p50_us := P50}} <- maps:to_list(Split)]),
    #{
        transport => Transport,
        path => Path,
        messages => Count,
        message_bytes => ?BYTES,
        stages => Split,
        round_trip => RoundTrip,
        %% Both sockets, the wake-ups, and what the other side does beyond these.
        elsewhere_us => max(0.0, maps:get(p50_us, RoundTrip) - Spent)
    }.

stage(Snapshot) ->
    Us = fun(Percent) -> erlmcp_native_histogram:percentile(Snapshot, Percent) / 1000 end,
    #{
        mean_us => erlmcp_native_histogram:mean(Snapshot) / 1000,
        p50_us => Us(50),
        p99_us => Us(99)
    }.
