%% @doc Framing of the `beam' path: limits, cost, and the properties of `frame_props'.
-module(frame_SUITE).

-include_lib("stdlib/include/assert.hrl").

-export([all/0]).
-export([
    lines/1,
    limit_of_a_line/1,
    limit_at_a_carriage_return/1,
    discarded_lines/1,
    limit_of_a_length/1,
    discarded_lengths/1,
    batches/1,
    nothing_after_a_failure/1,
    small_frames_do_not_hold_their_chunk/1,
    copies_on_demand/1,
    an_unfinished_frame_does_not_hold_its_chunk/1,
    single_bytes_cost_bytes/1,
    time_grows_with_the_input/1,
    refused_messages/1,
    properties/1
]).

-define(FRAME, erlmcp_native_beam_frame).

all() ->
    [
        lines,
        limit_of_a_line,
        limit_at_a_carriage_return,
        discarded_lines,
        limit_of_a_length,
        discarded_lengths,
        batches,
        nothing_after_a_failure,
        small_frames_do_not_hold_their_chunk,
        copies_on_demand,
        an_unfinished_frame_does_not_hold_its_chunk,
        single_bytes_cost_bytes,
        time_grows_with_the_input,
        refused_messages,
        properties
    ].

lines(_) ->
    ?assertEqual({[<<"one">>, <<"two">>], empty}, split(#{}, [<<"one\r\n\n\r\ntwo\nthr">>])),
    ?assertEqual({[<<"a\rb">>, <<"c\r">>], empty}, split(#{}, [<<"a\rb\nc\r\r\n">>])),
    ?assertEqual({[], empty}, split(#{}, [<<"\n">>, <<"\r">>, <<"\n">>])).

limit_of_a_line(_) ->
    Settings = #{max_frame_bytes => 4},
    ?assertEqual({[<<"abcd">>], empty}, split(Settings, [<<"abcd\n">>])),
    ?assertEqual({[<<"abcd">>], empty}, split(Settings, [<<"abcd">>, <<"\n">>])),
    ?assertEqual({[<<"a">>], too_large}, split(Settings, [<<"a\nabcde\nb\n">>])),
    ?assertEqual({[<<"a">>], too_large}, split(Settings, [<<"a\nabcde">>])),
    ?assertEqual({[<<"a">>], too_large}, split(Settings, [<<"a\nabcd">>, <<"e">>])).

limit_at_a_carriage_return(_) ->
    Settings = #{max_frame_bytes => 4},
    ?assertEqual({[<<"abcd">>], empty}, split(Settings, [<<"abcd\r\n">>])),
    ?assertEqual({[<<"abcd">>], empty}, split(Settings, [<<"abcd\r">>, <<"\n">>])),
    ?assertEqual({[<<"abcd">>], empty}, split(Settings, [<<"abcd">>, <<"\r">>, <<"\n">>])),
    ?assertEqual({[<<"abc\r">>], empty}, split(Settings, [<<"abc\r\r\n">>])),
    ?assertEqual({[], too_large}, split(Settings, [<<"abcd\r">>, <<"x">>])),
    ?assertEqual({[], too_large}, split(Settings, [<<"abcd\r\r">>])).

discarded_lines(_) ->
    Settings = #{max_frame_bytes => 4, on_oversize => discard},
    ?assertEqual(
        {[<<"a">>, {oversized, 5}, <<"b">>], empty}, split(Settings, [<<"a\nabcde\nb\n">>])
    ),
    ?assertEqual(
        {[{oversized, 8}, <<"b">>], empty},
        split(Settings, [<<"abcde">>, <<"fgh">>, <<"\r">>, <<"\n">>, <<"b\n">>])
    ),
    ?assertEqual(
        {[{oversized, 7}, {oversized, 6}], empty},
        split(Settings, [<<"abcde\r">>, <<"f\nabcdef\r">>, <<>>, <<"\nx">>])
    ).

limit_of_a_length(_) ->
    Settings = #{framing => length4, max_frame_bytes => 4},
    ?assertEqual({[<<"abcd">>, <<>>], empty}, split(Settings, [<<4:32, "abcd", 0:32>>])),
    ?assertEqual({[<<"abcd">>], empty}, split(Settings, [<<0, 0>>, <<0>>, <<4, "ab">>, <<"cd">>])),
    ?assertEqual({[<<"a">>], too_large}, split(Settings, [<<1:32, "a", 5:32, "abcde">>])),
    ?assertEqual({[], too_large}, split(Settings, [<<16#ffffffff:32>>])).

discarded_lengths(_) ->
    Settings = #{framing => length4, max_frame_bytes => 4, on_oversize => discard},
    ?assertEqual(
        {[{oversized, 5}, <<"b">>], empty},
        split(Settings, [<<5:32, "ab">>, <<"cd">>, <<"e", 1:32, "b">>])
    ).

batches(_) ->
    Frames = ?FRAME:push(<<"aa\nbb\ncc\n\n">>, new(#{})),
    {[], more, _} = ?FRAME:take(Frames, 0, 0),
    {[<<"aa">>], more, _} = ?FRAME:take(Frames, 1, 100),
    {[<<"aa">>], more, _} = ?FRAME:take(Frames, 3, 0),
    {[<<"aa">>, <<"bb">>], more, Rest} = ?FRAME:take(Frames, 3, 4),
    {[<<"cc">>], empty, _} = ?FRAME:take(Rest, 3, 4),
    ok.

nothing_after_a_failure(_) ->
    Frames = ?FRAME:push(<<"a\nbbb\nc\n">>, new(#{max_frame_bytes => 2})),
    {[<<"a">>], too_large, Failed} = ?FRAME:take(Frames, 10, 100),
    {[], too_large, Failed} = ?FRAME:take(Failed, 10, 100),
    ?assertEqual(0, ?FRAME:waiting(Failed)).

small_frames_do_not_hold_their_chunk(_) ->
    Small = binary:copy(<<"s">>, 64),
    Large = binary:copy(<<"l">>, 65),
    {[Heap, Sub, _], _} = split(#{}, [chunk([Small, "\n", Large, "\n"])]),
    ?assertEqual({Small, Large}, {Heap, Sub}),
    %% OTP 27 counts the bits of a heap binary.
    ?assert(binary:referenced_byte_size(Heap) =< 8 * 64),
    ?assert(binary:referenced_byte_size(Sub) > 60000).

copies_on_demand(_) ->
    Large = binary:copy(<<"l">>, 65),
    {[Copy, _], _} = split(#{copy => true}, [chunk([Large, "\n"])]),
    ?assertEqual(Large, Copy),
    ?assertEqual(65, binary:referenced_byte_size(Copy)),
    Settings = #{framing => length4, copy => true},
    {[Framed], _} = split(Settings, [chunk([<<65:32>>, Large, <<99999:32>>])]),
    ?assertEqual(65, binary:referenced_byte_size(Framed)).

an_unfinished_frame_does_not_hold_its_chunk(_) ->
    Before = binary_memory(),
    Held = [
        element(3, ?FRAME:take(?FRAME:push(chunk("a\n"), new(#{})), 9, 100000))
     || _ <- lists:seq(1, 100)
    ],
    true = erlang:garbage_collect(),
    Grown = binary_memory() - Before,
    ?assertEqual(100, length([F || F <- Held, ?FRAME:waiting(F) =:= 5000])),
    ?assert(Grown < 100 * 10000, Grown).

%% A megabyte that comes byte by byte must not cost a list of a million binaries.
single_bytes_cost_bytes(_) ->
    Size = 1000000,
    {Pid, Monitor} = spawn_monitor(fun() ->
        Frames = bytewise(Size, new(#{})),
        true = erlang:garbage_collect(),
        {memory, Memory} = process_info(self(), memory),
        {binary, Binaries} = process_info(self(), binary),
        exit({Memory + lists:sum([B || {_, B, _} <- Binaries]), ?FRAME:waiting(Frames)})
    end),
    receive
        {'DOWN', Monitor, process, Pid, {Bytes, Waiting}} ->
            ?assertEqual(Size, Waiting),
            ?assert(Bytes < 3 * Size, Bytes)
    end.

bytewise(0, Frames) ->
    Frames;
bytewise(N, Frames) ->
    {[], empty, Next} = ?FRAME:take(?FRAME:push(<<"x">>, Frames), 1, 1),
    bytewise(N - 1, Next).

%% Searching what has been searched would make a frame 8 times as long take 64 times as long.
time_grows_with_the_input(_) ->
    Short = lists:min([reductions(250) || _ <- lists:seq(1, 3)]),
    Long = lists:min([reductions(2000) || _ <- lists:seq(1, 3)]),
    ?assert(Long < 12 * Short, {Short, Long}).

reductions(Chunks) ->
    Chunk = binary:copy(<<"x">>, 1400),
    {Pid, Monitor} = spawn_monitor(fun() ->
        {Before, _} = {process_info(self(), reductions), start},
        {[Frame], empty} = split(#{}, lists:duplicate(Chunks, Chunk) ++ [<<"\n">>]),
        true = byte_size(Frame) =:= Chunks * 1400,
        exit({process_info(self(), reductions), Before})
    end),
    receive
        {'DOWN', Monitor, process, Pid, {{reductions, After}, {reductions, Before}}} ->
            After - Before
    end.

refused_messages(_) ->
    ?assertEqual({error, embedded_newline}, ?FRAME:encode(line, 100, <<"a\nb">>)),
    ?assertEqual({error, embedded_newline}, ?FRAME:encode(line, 100, [<<"a">>, $\n])),
    Long = binary:copy(<<"x">>, 5000),
    ?assertEqual({error, embedded_newline}, ?FRAME:encode(line, 9999, <<Long/binary, "\n">>)),
    ?assertEqual({error, empty_message}, ?FRAME:encode(line, 100, [])),
    ?assertEqual({error, frame_too_large}, ?FRAME:encode(line, 4, <<"abcde">>)),
    ?assertEqual({error, frame_too_large}, ?FRAME:encode(length4, 4, <<"abcde">>)),
    ?assertMatch({ok, _, 5}, ?FRAME:encode(line, 4, <<"abcd">>)),
    ?assertMatch({ok, _, 4}, ?FRAME:encode(length4, 4, <<>>)),
    ?assertError(badarg, ?FRAME:encode(line, 100, [atom])),
    ?assertError(badarg, ?FRAME:encode(length4, 100, {})).

properties(_) ->
    Properties = [
        prop_lines_in_any_chunks,
        prop_lengths_in_any_chunks,
        prop_waiting_counts_every_byte,
        prop_encoded_messages_come_back
    ],
    Options = [{numtests, 2000}, {on_output, fun output/2}],
    ?assertEqual([], [P || P <- Properties, proper:quickcheck(frame_props:P(), Options) =/= true]).

output(".", _) -> ok;
output(Format, Args) -> ct:log(Format, Args).

%% A chunk as a socket delivers it: one large binary of which frames are parts.
chunk(Data) ->
    iolist_to_binary([Data, binary:copy(<<"y">>, 60000), "\n", lists:duplicate(5000, $z)]).

split(Settings, Chunks) ->
    feed(Chunks, new(Settings), []).

new(Settings) ->
    Defaults = #{
        framing => line, max_frame_bytes => 16777216, on_oversize => close, copy => false
    },
    ?FRAME:new(maps:merge(Defaults, Settings)).

feed([], _, Acc) ->
    {lists:append(lists:reverse(Acc)), empty};
feed([Chunk | Chunks], Frames0, Acc) ->
    case ?FRAME:take(?FRAME:push(Chunk, Frames0), 1000, 100000000) of
        {Items, empty, Frames} -> feed(Chunks, Frames, [Items | Acc]);
        {Items, too_large, _} -> {lists:append(lists:reverse([Items | Acc])), too_large}
    end.

binary_memory() ->
    true = erlang:garbage_collect(),
    erlang:memory(binary).
