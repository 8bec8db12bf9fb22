%% @doc JSON of large documents and from many processes: how long others wait, what becomes of
%% calls that are moved to dirty schedulers, and what the native functions make of garbage.
-module(json_load_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("stdlib/include/assert.hrl").
-include_lib("common_test/include/ct.hrl").

-define(WAIT, 60000).

%% How long a ticker may be kept waiting beyond its millisecond.
-define(MAX_DELAY_US, 10000).

%% A call that holds a scheduler shows in each try. So does another program, as long as it has work
%% for every processor: a scheduler may then wait for one for 200 ms. A try in which others had a
%% processor for longer than this proves nothing against a call.
-define(TRIES, 10).
-define(OTHERS_MS, 50).

all() ->
    [
        {group, nif},
        {group, beam},
        garbage_arguments,
        decoding_is_moved,
        encoding_is_moved,
        sizes_at_which_calls_are_moved,
        killed_in_a_call,
        tickers_notice,
        small_values_delay_nobody,
        long_strings_delay_nobody
    ].

groups() ->
    [{nif, [many_processes]}, {beam, [many_processes]}].

init_per_suite(Config) ->
    Started = test_config:start([erlmcp_native], Config),
    loaded = erlmcp_native_nif:status(),
    Started.

end_per_suite(Config) -> test_config:stop(Config).

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

%% The native functions keep memory between calls, one piece for each thread.
many_processes(Config) ->
    Options = #{path => ?config(path, Config)},
    Workers = [spawn_monitor(fun() -> work(I, Options) end) || I <- lists:seq(1, 100)],
    [receive {'DOWN', Monitor, _, _, Reason} -> ?assertEqual(normal, Reason)
     after ?WAIT -> ct:fail(timeout) end || {_, Monitor} <- Workers].

work(I, Options) ->
    Own = integer_to_binary(I),
    Terms = [
        #{<<"id">> => I, <<"own", Own/binary>> => [Own, I * 1.5, null, true]},
        [#{<<"name">> => Own, <<"n">> => N, <<"s">> => <<"\"\n">>} || N <- lists:seq(1, I)],
        binary:copy(Own, 1000 * I)
    ],
    [begin
        Json = erlmcp_native_json:encode(Term, Options),
        ?assertEqual({ok, Term}, erlmcp_native_json:decode(Json, Options)),
        ?assertMatch({error, {unexpected_end, _}},
            erlmcp_native_json:decode(binary_part(Json, 0, byte_size(Json) - 1), Options)),
        ?assertError({unsupported, {I}}, erlmcp_native_json:encode([Term, {I}], Options)),
        ?assertMatch({ok, _}, erlmcp_native_json:scan(Json, Options))
     end || _ <- [1, 2, 3], Term <- Terms].

%% Terms of every kind in every place, two places at a time.
garbage_arguments(_) ->
    Decode = [{binary, <<"[null,{\"a\":1}]">>}, {any, {}}, {any, null}, {boolean, false},
        {boolean, false}, {size, 512}],
    Encode = [{any, [null, #{}]}, {any, null}, {boolean, false}],
    Scan = [{binary, <<"[1]">>}, {size, 512}, {size, 1000}],
    [garbage(Function, Places) || {Function, Places} <- [
        {json_decode, Decode},
        {json_decode_dirty, Decode},
        {json_encode, Encode},
        {json_encode_dirty, Encode},
        {json_scan, Scan},
        {json_scan_dirty, Scan}
    ]],
    ?assertEqual(loaded, erlmcp_native_nif:status()).

garbage(Function, Places) ->
    Numbers = lists:seq(1, length(Places)),
    Given = [
        [if N =:= I -> {Kind, A}; N =:= J -> {Kind, B}; true -> Place end
         || {N, {Kind, _} = Place} <- lists:zip(Numbers, Places)]
     || I <- Numbers, J <- Numbers, I < J, A <- garbage(), B <- garbage()],
    [call(Function, Args) || Args <- Given].

call(Function, Places) ->
    Args = [Arg || {_, Arg} <- Places],
    IsRight = lists:all(fun({Kind, Arg}) -> is_of(Kind, Arg) end, Places),
    try apply(erlmcp_native_nif, Function, Args) of
        {ok, _} -> ?assert(IsRight, {Function, Args});
        {error, {_, _}} -> ?assert(IsRight, {Function, Args})
    catch
        error:badarg -> ?assertNot(IsRight, {Function, Args})
    end.

is_of(binary, Arg) -> is_binary(Arg);
is_of(boolean, Arg) -> is_boolean(Arg);
is_of(size, Arg) -> is_integer(Arg) andalso Arg >= 0 andalso Arg < 1 bsl 64;
is_of(any, _) -> true.

garbage() ->
    [
        atom, true, 0, -1, 1 bsl 80, 1.5, <<>>, <<"[1]">>, <<1:3>>, "list", [a | b], {}, {a, b},
        #{}, #{a => 1}, self(), make_ref(), fun() -> ok end
    ].

%% A call on a normal scheduler gives up in the middle; the one that follows knows nothing of it.
decoding_is_moved(_) ->
    Many = iolist_to_binary(["[", lists:join($,, lists:duplicate(100000, "[]")), "]"]),
    ManyKeys = iolist_to_binary(
        ["{\"0\":0", [[",\"k", integer_to_binary(I), "\":0"] || I <- lists:seq(1, 2000)], "}"]
    ),
    [begin
        Args = [Text, {}, nil, false, false, 512],
        ?assertEqual(late, apply(erlmcp_native_nif, json_decode, Args)),
        {ok, Term} = apply(erlmcp_native_nif, json_decode_dirty, Args),
        Decoded = [erlmcp_native_json:decode(Text, #{path => P, null => nil}) || P <- [nif, beam]],
        ?assertEqual([{ok, Term}, {ok, Term}], Decoded),
        %% The fault is found wherever the call ends.
        Broken = <<Text/binary, "x">>,
        ?assertEqual(
            {error, {unexpected_byte, byte_size(Text)}},
            erlmcp_native_json:decode(Broken, #{path => nif})
        )
     end || Text <- [Many, ManyKeys]].

encoding_is_moved(_) ->
    Many = lists:duplicate(1000000, []),
    Long = [binary:copy(<<"l">>, 200000), binary:copy(<<"\n">>, 100000)],
    [begin
        ?assertEqual(late, erlmcp_native_nif:json_encode(Term, null, Pieces)),
        {ok, Json} = erlmcp_native_nif:json_encode_dirty(Term, null, Pieces),
        ?assertEqual(Json, erlmcp_native_json:encode(Term, #{path => nif, return => Return})),
        Written = iolist_to_binary(Json),
        ?assertEqual({ok, Term}, erlmcp_native_json:decode(Written, #{path => beam})),
        ?assertError({unsupported, {}}, erlmcp_native_json:encode(Term ++ [{}], #{path => nif}))
     end || Term <- [Many, Long], {Pieces, Return} <- [{false, binary}, {true, iodata}]].

sizes_at_which_calls_are_moved(_) ->
    [begin
        Text = iolist_to_binary(["[\"", binary:copy(<<"x">>, Size - 4), "\"]"]),
        [?assertEqual(
            erlmcp_native_json:F(Document, #{path => beam}),
            erlmcp_native_json:F(Document, #{path => nif})
         ) || F <- [decode, scan], Document <- [Text, <<Text/binary, " ">>, <<Text/binary, " x">>]]
     end || Size <- [131072, 131073, 524288, 524289]].

killed_in_a_call(_) ->
    Text = small_values(),
    [begin
        Test = self(),
        {Pid, Monitor} = spawn_monitor(fun() -> Test ! here, Call(Text) end),
        receive here -> true = exit(Pid, kill) end,
        receive {'DOWN', Monitor, _, _, Reason} -> ?assertEqual(killed, Reason) end,
        ?assertEqual({ok, [1]}, erlmcp_native_json:decode(<<"[1]">>, #{path => nif}))
     end || Call <- [fun decode/1, fun scan/1]].

%% What the next two look for is found where it is.
tickers_notice(_) ->
    Text = small_values(),
    Hold = fun(_) -> {ok, _} = erlmcp_native_nif:json_scan(Text, 512, 1000000) end,
    [?assertMatch({Us, _} when Us > ?MAX_DELAY_US, delay(fun() -> ok end, Hold)) || _ <- [1, 2, 3]].

small_values_delay_nobody(_) ->
    delays_nobody(small_values()).

long_strings_delay_nobody(_) ->
    delays_nobody(long_strings()).

delays_nobody(Text) ->
    ?assert(byte_size(Text) >= 50000000),
    Same = fun() -> Text end,
    Decoded = fun() -> decode(Text) end,
    Calls = [
        {decode, Same, fun decode/1},
        {decode_reference, Same, fun(T) ->
            {ok, _} = erlmcp_native_json:decode(T, #{path => nif, strings => reference})
        end},
        {scan, Same, fun scan/1},
        {encode, Decoded, fun(T) -> erlmcp_native_json:encode(T, #{path => nif}) end},
        {encode_iodata, Decoded, fun(T) ->
            erlmcp_native_json:encode(T, #{path => nif, return => iodata})
        end}
    ],
    Found = [{tries(Prepare, Call, ?TRIES), Name} || {Name, Prepare, Call} <- Calls],
    [ct:log("~s: ~w", [Name, Tries]) || {Tries, Name} <- Found],
    Late = [Found1 || {[{Us, _} | _], _} = Found1 <- Found, Us > ?MAX_DELAY_US],
    IsProof = fun({_, OthersMs}) -> OthersMs =< ?OTHERS_MS end,
    ?assertEqual([], [Name || {Tries, Name} <- Late, lists:any(IsProof, Tries)]),
    case Late of
        [] -> ok;
        _ -> {skip, {"others keep the processors busy", Late}}
    end.

%% The tries up to the first that keeps the limit, the last one first.
tries(Prepare, Call, Tries) -> tries(Prepare, Call, Tries, []).

tries(_, _, 0, Done) ->
    Done;
tries(Prepare, Call, Tries, Done) ->
    case delay(Prepare, Call) of
        {Us, _} = Try when Us =< ?MAX_DELAY_US -> [Try | Done];
        Try -> tries(Prepare, Call, Tries - 1, [Try | Done])
    end.

decode(Text) ->
    {ok, Term} = erlmcp_native_json:decode(Text, #{path => nif}),
    Term.

scan(Text) ->
    {ok, {batch, _}} = erlmcp_native_json:scan(Text, #{path => nif, max_batch => 1000000}).

small_values() ->
    Value = <<"{\"id\":123456,\"name\":\"a name\",\"on\":true,\"rate\":1.5}">>,
    iolist_to_binary([$[, lists:join($,, lists:duplicate(1000000, Value)), $]]).

%% Half of them with much to escape.
long_strings() ->
    Plain = [$", binary:copy(<<"x">>, 1000000), $"],
    Escaped = [$", binary:copy(<<"line \\\"one\\\"\\n">>, 72000), $"],
    iolist_to_binary([$[, lists:join($,, lists:append(lists:duplicate(25, [Plain, Escaped]))), $]]).

%% How long a call in a process of its own kept others waiting, and how long other programs had a
%% processor meanwhile.
delay(Prepare, Call) ->
    Test = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        Argument = Prepare(),
        Test ! ready,
        receive go -> Call(Argument) end
    end),
    receive ready -> ok after ?WAIT -> ct:fail(timeout) end,
    OthersMs = others_ms(),
    Tickers = [
        spawn_opt(?MODULE, tick, [Test, erlang:monotonic_time(), 0], [link, {scheduler, N}])
     || N <- lists:seq(1, erlang:system_info(schedulers_online))
    ],
    Pid ! go,
    receive {'DOWN', Monitor, _, _, normal} -> ok after ?WAIT -> ct:fail(timeout) end,
    {lists:max([stop(Ticker) || Ticker <- Tickers]), others_ms() - OthersMs}.

%% The processor time, in steps of 10 ms, that others have used so far, where there is /proc.
others_ms() ->
    case file:read_file("/proc/stat") of
        {ok, <<"cpu ", All/binary>>} ->
            [User, Nice, System, _Idle, _Wait, Irq, SoftIrq, Steal | _] = numbers(All),
            {ok, Own} = file:read_file("/proc/self/stat"),
            [_, Fields] = binary:split(Own, <<") ">>),
            [OwnUser, OwnSystem] = lists:sublist(string:lexemes(Fields, " "), 12, 2),
            Used = User + Nice + System + Irq + SoftIrq + Steal,
            10 * (Used - binary_to_integer(OwnUser) - binary_to_integer(OwnSystem));
        {error, enoent} ->
            0
    end.

numbers(Line) ->
    [First | _] = binary:split(Line, <<"\n">>),
    [binary_to_integer(Number) || Number <- string:lexemes(First, " ")].

stop(Ticker) ->
    Ticker ! stop,
    receive {longest, Ticker, Longest} ->
        erlang:convert_time_unit(Longest, native, microsecond) - 1000
    end.

%% Ticks each millisecond, on one scheduler, and keeps the longest time between two ticks.
tick(Test, Last, Longest) ->
    receive stop -> Test ! {longest, self(), Longest}
    after 1 ->
        Now = erlang:monotonic_time(),
        tick(Test, Now, max(Longest, Now - Last))
    end.
