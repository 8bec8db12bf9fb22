%% A node's own standard input and output as a connection: the node is a process of the system that
%% each case starts, and the case is what an MCP client would be.
-module(stdio_SUITE).

-compile([export_all, nowarn_export_all]).

-include_lib("common_test/include/ct.hrl").
-include_lib("stdlib/include/assert.hrl").

-import(test_wait, [until/1]).

-define(WAIT, 20000).

suite() ->
    [{timetrap, {seconds, 60}}].

all() ->
    [{group, nif}, {group, port}, {group, beam}].

groups() ->
    [
        {nif, [native_code_prints, panic_in_the_nif, reserved_at_start | cases()]},
        {port, cases()},
        {beam, cases()}
    ].

cases() ->
    [
        messages_go_both_ways,
        prints_stay_out,
        device_from_the_first,
        unicode_of_every_plane,
        large_messages_both_ways,
        end_of_input_stops_the_node,
        answers_after_the_end_of_input,
        slow_answer_after_the_end_of_input,
        end_of_input_may_keep_the_node,
        half_close_leaves_the_end_to_the_owner,
        close_stops_the_node,
        owner_that_dies_stops_the_node,
        sigterm_lets_answers_leave,
        reader_that_never_reads_is_not_waited_for,
        closed_reader_ends_it,
        files_and_devices,
        needs_noinput,
        only_once,
        prints_cannot_be_kept_apart,
        options_are_checked,
        erlmcp_server_under_our_leader,
        erlmcp_server_by_takeover
    ].

init_per_suite(Config) ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Source = filename:join(?config(data_dir, Config), "erlmcp_stdio_server.erl"),
    {ok, _} = compile:file(Source, [{outdir, ?config(priv_dir, Config)}, debug_info]),
    Config.

end_per_suite(_) ->
    ok.

init_per_group(Path, Config) -> test_config:use(erlmcp_native_path, Path, Config).

end_per_group(_, _) -> ok.

init_per_testcase(Case, Config) ->
    Name = lists:concat([?config(path, Config), "_", Case]),
    Dir = filename:join(?config(priv_dir, Config), Name),
    ok = filelib:ensure_dir(filename:join(Dir, "x")),
    [{dir, Dir} | Config].

end_per_testcase(_, Config) ->
    case file:read_file(in_dir("pid", Config)) of
        {ok, Pid} -> kill(binary_to_list(string:trim(Pid)));
        {error, enoent} -> ok
    end.

%% ---- cases

messages_go_both_ways(Config) ->
    Node = start(Config, #{}),
    say(Node, "one\ntwo\r\n\nthree\n"),
    ?assertEqual(<<"one\ntwo\nthree\n">>, hear(Node, 14)).

prints_stay_out(Config) ->
    Node = start(Config, #{}),
    prints_stay_out(Node, Config).

%% With it there is nothing that could print, whatever was started before.
device_from_the_first(Config) ->
    Node = start(Config, #{args => ["-noinput", "-user", "erlmcp_native_user"]}),
    prints_stay_out(Node, Config).

prints_stay_out(Node, Config) ->
    say(Node, "before\n!print\nafter\n"),
    ?assertEqual(<<"before\nprinted\nafter\n">>, hear(Node, 21)),
    finish(Node),
    ?assertEqual(<<>>, hear_all(Node)),
    ?assertEqual(0, status(Node)),
    {ok, Printed} = file:read_file(in_dir("stderr", Config)),
    ?assertMatch({match, _}, re:run(Printed, "STRAY to user")),
    ?assertMatch({match, _}, re:run(Printed, "STRAY to the logger")).

native_code_prints(Config) ->
    Node = start(Config, #{}),
    say(Node, "!native\nafter\n"),
    ?assertEqual(<<"printed\nafter\n">>, hear(Node, 14)).

panic_in_the_nif(Config) ->
    Node = start(Config, #{}),
    say(Node, "!panic\nafter\n"),
    ?assertEqual(<<"panicked\nafter\n">>, hear(Node, 15)).

reserved_at_start(Config) ->
    Node = start(Config, #{env => [{stdio, true}]}),
    say(Node, "!print\n"),
    ?assertEqual(<<"printed\n">>, hear(Node, 8)).

unicode_of_every_plane(Config) ->
    Planes = [[Plane bsl 16 + 16#1234, Plane bsl 16 + 16#ff] || Plane <- lists:seq(0, 16)],
    Text = unicode:characters_to_binary([16#e9, 16#20ac, 16#2028, 16#85, 16#feff, Planes]),
    lists:foreach(
        fun(Variables) ->
            Node = start(Config, #{variables => Variables}),
            say(Node, [Text, "\n"]),
            ?assertEqual(<<Text/binary, "\n">>, hear(Node, byte_size(Text) + 1)),
            finish(Node),
            ?assertEqual(0, status(Node))
        end,
        [[{"LC_ALL", "C"}], [{"LC_ALL", "C.UTF-8"}]]
    ).

large_messages_both_ways(Config) ->
    Node = start(Config, #{}),
    Message = binary:copy(<<"0123456789abcdef">>, 640 * 1024),
    say(Node, [Message, "\n", Message, "\n"]),
    Heard = hear(Node, 2 * (byte_size(Message) + 1)),
    ?assert(Heard =:= <<Message/binary, "\n", Message/binary, "\n">>).

end_of_input_stops_the_node(Config) ->
    Node = start(Config, #{}),
    say(Node, "one\n"),
    ?assertEqual(<<"one\n">>, hear(Node, 4)),
    finish(Node),
    ?assertEqual(<<>>, hear_all(Node)),
    ?assertEqual(0, status(Node)),
    ?assertEqual(["down closed final"], said("down", Config)).

answers_after_the_end_of_input(Config) ->
    Node = start(Config, #{}),
    Many = binary:copy(<<"{\"id\":1,\"method\":\"x\"}\n">>, 20000),
    say(Node, Many),
    finish(Node),
    ?assert(hear_all(Node) =:= Many),
    ?assertEqual(0, status(Node)).

slow_answer_after_the_end_of_input(Config) ->
    Node = start(Config, #{}),
    say(Node, "{\"id\":1,\"method\":\"x\"}\n!slow 700\n{\"id\":1,\"method\":\"y\"}\n"),
    finish(Node),
    Heard = hear_all(Node),
    ?assertMatch({match, _}, re:run(Heard, "slow.*\n.*\"y\"")),
    ?assertEqual(0, status(Node)).

end_of_input_may_keep_the_node(Config) ->
    Node = start(Config, #{options => #{at_end => keep}}),
    say(Node, "!pid\n"),
    Pid = string:trim(hear(Node, "\n")),
    finish(Node),
    await_said("down closed final", Config),
    Before = cpu(Pid),
    receive
    after 1000 -> ok
    end,
    %% Ticks of 10 ms: a loop would have had 100.
    ?assert(cpu(Pid) - Before < 10).

half_close_leaves_the_end_to_the_owner(Config) ->
    Node = start(Config, #{options => #{half_close => true}}),
    say(Node, "one\n"),
    ?assertEqual(<<"one\n">>, hear(Node, 4)),
    finish(Node),
    await_said("event eof", Config),
    ?assertEqual([], said("down", Config)),
    stop(Node).

close_stops_the_node(Config) ->
    Node = start(Config, #{}),
    say(Node, "!many 1000\n!close\n"),
    ?assertEqual(1001005, byte_size(hear_all(Node))),
    ?assertEqual(0, status(Node)).

owner_that_dies_stops_the_node(Config) ->
    Node = start(Config, #{}),
    say(Node, "!die\n"),
    ?assertEqual(<<>>, hear_all(Node)),
    ?assertEqual(0, status(Node)).

%% The pipe is full, the queue is not empty, and the reader slow.
sigterm_lets_answers_leave(Config) ->
    Node = start(Config, #{}),
    say(Node, "!pid\n!many 4000\n"),
    Pid = string:trim(hear(Node, "\n")),
    hear(Node, 1001),
    until(fun() -> filelib:is_regular(in_dir("sent", Config)) end),
    os:cmd("kill -TERM " ++ binary_to_list(Pid)),
    receive
    after 500 -> ok
    end,
    ?assertEqual(3999 * 1001 + 5, byte_size(hear_all(Node))),
    ?assertEqual(0, status(Node)).

reader_that_never_reads_is_not_waited_for(Config) ->
    Node = start(Config, #{options => #{linger_ms => 300}}),
    say(Node, "!many 4000\n"),
    hear(Node, 1001),
    finish(Node),
    ?assertEqual(0, status(Node)).

closed_reader_ends_it(Config) ->
    Node = start(Config, #{}),
    say(Node, "one\n"),
    ?assertEqual(<<"one\n">>, hear(Node, 4)),
    close_reader(Node),
    say(Node, "two\nthree\n"),
    ?assertEqual(0, status(Node)),
    ?assertEqual(["down closed final"], said("down", Config)).

files_and_devices(Config) ->
    In = in_dir("input", Config),
    Out = in_dir("output", Config),
    %% Requests: at the end of input only their answers are waited for.
    Request = "{\"jsonrpc\":\"2.0\",\"id\":~b,\"method\":\"ping\"}~n",
    Requests = iolist_to_binary([io_lib:format(Request, [Id]) || Id <- [1, 2]]),
    ok = file:write_file(In, Requests),
    Node = start_with(In, Out, Config, #{}),
    ?assertEqual(0, status(Node)),
    ?assertEqual({ok, Requests}, file:read_file(Out)),
    ?assertEqual(0, status(start_with("/dev/null", "/dev/null", Config, #{}))).

needs_noinput(Config) ->
    Node = start(Config, #{args => ["-noinput", "-noshell"]}),
    ?assertEqual(3, status(Node)),
    ?assertEqual(["refused {stdio,{start_node_with,\"-noinput\"}}"], said("refused", Config)).

only_once(Config) ->
    Node = start(Config, #{}),
    say(Node, "!again\n"),
    ?assertEqual(<<"{error,{stdio,taken}}\n">>, hear(Node, 22)).

prints_cannot_be_kept_apart(Config) ->
    Node = start(Config, #{stderr => "&1"}),
    ?assertMatch({match, _}, re:run(hear_all(Node), "stderr_is_stdout")),
    stop(Node).

options_are_checked(Config) ->
    Path = ?config(path, Config),
    [
        ?assertEqual(
            {error, {option, Key, Value}},
            erlmcp_native:connect(stdio, #{Key => Value, path => Path})
        )
     || {Key, Value} <- [
            {at_end, halt},
            {stop_ms, 0},
            {reconnect, true},
            {tls, true},
            {half_close, 1},
            {unknown, 1}
        ]
    ],
    ?assertEqual(
        {error, {option, endpoint, stdio}}, erlmcp_native:listen(stdio, #{path => Path})
    ).

%% It reads lists of bytes and writes UTF-8 for `~s', which a device does not always mean so.
erlmcp_server_under_our_leader(Config) ->
    lists:foreach(
        fun(Locale) ->
            Node = start(Config, #{main => "leader", variables => [{"LC_ALL", Locale}]}),
            erlmcp_server(Node),
            {ok, Printed} = file:read_file(in_dir("stderr", Config)),
            ?assertMatch({match, _}, re:run(Printed, "STRAY in a tool"))
        end,
        ["C", "C.UTF-8"]
    ).

erlmcp_server_by_takeover(Config) ->
    erlmcp_server(start(Config, #{main => "takeover"})).

erlmcp_server(Node) ->
    Planes = [Plane bsl 16 + 16#1234 || Plane <- lists:seq(0, 16)],
    Text = unicode:characters_to_binary([16#e9, 16#20ac, 16#85 | Planes]),
    Large = binary:copy(<<"0123456789">>, 100 * 1024),
    say(Node, [
        "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}\n",
        [
            ["{\"jsonrpc\":\"2.0\",\"id\":2,\"method\":\"tools/call\",\"params\":{\"name\":",
                "\"echo\",\"arguments\":{\"text\":\"", Given, "\"}}}\n"]
         || Given <- [Text, Large]
        ],
        "no JSON\n"
    ]),
    finish(Node),
    Answers = [
        Answer
     || Line <- binary:split(hear_all(Node), <<"\n">>, [global, trim]),
        {ok, Answer} <- [erlmcp_native_json:decode(Line)]
    ],
    ?assertEqual(0, status(Node)),
    ?assertMatch([#{<<"tools">> := [#{<<"name">> := <<"echo">>}]}], results(1, Answers)),
    ?assertEqual([#{<<"text">> => Text}, #{<<"text">> => Large}], results(2, Answers)),
    ?assertMatch([_], [A || #{<<"error">> := #{<<"code">> := -32700}} = A <- Answers]),
    ?assertEqual(4, length(Answers)).

results(Id, Answers) -> [Result || #{<<"id">> := I, <<"result">> := Result} <- Answers, I =:= Id].

%% ---- a node

%% Through two named pipes, so that each of its streams can be ended by itself.
start(Config, Given) ->
    [In, Out] = [in_dir(Name, Config) || Name <- ["stdin", "stdout"]],
    "" = os:cmd(lists:concat(["rm -f ", In, " ", Out, " && mkfifo ", In, " ", Out])),
    Node = start_with(In, Out, Config, Given),
    %% To open it waits for the node to do so, and to write for the node to read.
    Input = spawn_link(fun() ->
        {ok, File} = file:open(In, [write, raw, binary]),
        write(File)
    end),
    {ok, Output} = file:open(Out, [read, raw, binary]),
    Node#{input => Input, output => Output}.

start_with(In, Out, Config, Given) ->
    Options = (maps:get(options, Given, #{}))#{path => ?config(path, Config)},
    Stderr = maps:get(stderr, Given, in_dir("stderr", Config)),
    Script = lists:concat([
        "echo $$ >", in_dir("pid", Config),
        %% A read that nothing comes for could not be interrupted.
        "; exec timeout -s KILL 40 \"$@\" <", In, " >", Out, " 2>", Stderr
    ]),
    Erl = os:find_executable("erl"),
    Ebin = filename:dirname(code:which(erlmcp_native)),
    Args =
        ["-c", Script, "sh", Erl] ++ maps:get(args, Given, ["-noinput"]) ++
            ["-pa", Ebin, filename:dirname(code:which(?MODULE)), ?config(priv_dir, Config)] ++
            jsx() ++ ["-s", "stdio_server", maps:get(main, Given, "main")],
    Variables = [
        {"STDIO_OPTIONS", lists:flatten(io_lib:format("~0p", [Options]))},
        {"STDIO_ENV", lists:flatten(io_lib:format("~0p", [maps:get(env, Given, [])]))},
        {"STDIO_SENT", in_dir("sent", Config)},
        {"ERL_CRASH_DUMP_SECONDS", "0"}
    ],
    Port = open_port({spawn_executable, "/bin/sh"}, [
        {args, Args}, {env, Variables ++ maps:get(variables, Given, [])}, exit_status
    ]),
    #{port => Port}.

write(File) ->
    receive
        {say, Data} ->
            _ = file:write(File, Data),
            write(File);
        finish ->
            ok
    end.

%% The path `beam' of a release before OTP 27 decodes with it.
jsx() ->
    case code:which(jsx) of
        non_existing -> [];
        Beam -> [filename:dirname(Beam)]
    end.

say(#{input := Input}, Data) ->
    Input ! {say, Data}.

finish(#{input := Input}) ->
    Input ! finish.

close_reader(#{output := Output}) ->
    ok = file:close(Output).

hear(Node, Text) when is_list(Text) ->
    hear_until(Node, Text, <<>>);
hear(Node, Size) ->
    hear_more(Node, Size, []).

hear_more(_, 0, Heard) ->
    iolist_to_binary(Heard);
hear_more(#{output := Output} = Node, Size, Heard) ->
    {ok, Data} = file:read(Output, Size),
    hear_more(Node, Size - byte_size(Data), [Heard | Data]).

hear_until(#{output := Output} = Node, Text, Heard) ->
    {ok, Data} = file:read(Output, 1),
    case <<Heard/binary, Data/binary>> of
        All when Data =:= <<"\n">> -> All;
        All -> hear_until(Node, Text, All)
    end.

hear_all(#{output := Output}) ->
    hear_all(Output, []).

hear_all(Output, Heard) ->
    case file:read(Output, 65536) of
        {ok, Data} -> hear_all(Output, [Heard | Data]);
        eof -> iolist_to_binary(Heard)
    end.

status(#{port := Port}) ->
    receive
        {Port, {exit_status, Status}} -> Status
    after ?WAIT -> ct:fail(still_running)
    end.

stop(#{port := Port} = Node) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, Pid} -> kill(integer_to_list(Pid));
        undefined -> ok
    end,
    _ = status(Node),
    ok.

%% The node is the child of `timeout', which has this number.
kill(Pid) ->
    os:cmd("pkill -KILL -P " ++ Pid ++ "; kill -KILL " ++ Pid).

%% What the server has said of itself on standard error.
said(Beginning, Config) ->
    {ok, All} = file:read_file(in_dir("stderr", Config)),
    Lines = string:split(binary_to_list(All), "\n", all),
    [Said || "@ " ++ Said <- Lines, lists:prefix(Beginning, Said)].

await_said(Line, Config) ->
    until(fun() -> said(Line, Config) =:= [Line] end).

%% User and system time, in ticks.
cpu(Pid) ->
    {ok, Stat} = file:read_file(filename:join(["/proc", Pid, "stat"])),
    [_, AfterName] = string:split(Stat, ")", trailing),
    Fields = string:lexemes(AfterName, " "),
    lists:sum([binary_to_integer(lists:nth(N, Fields)) || N <- [12, 13]]).

in_dir(Name, Config) ->
    filename:join(?config(dir, Config), Name).
