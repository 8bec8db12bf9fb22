%% A server over its own standard input and output, for stdio_SUITE: the node that runs it is a
%% process of the system. It sends back what it gets, but for words that begin with an exclamation
%% mark, which are instructions.
-module(stdio_server).

-export([main/0, leader/0, takeover/0]).

main() ->
    Options = term("STDIO_OPTIONS"),
    application:load(erlmcp_native),
    [application:set_env(erlmcp_native, Key, Value) || {Key, Value} <- term("STDIO_ENV")],
    {ok, _} = application:ensure_all_started(erlmcp_native),
    spawn(fun() -> serve(erlmcp_native:connect(stdio, Options#{active => true}), Options) end).

%% erlmcp's server over stdio, as this application runs it.
leader() ->
    #{path := Path} = term("STDIO_OPTIONS"),
    application:load(erlmcp_native),
    application:set_env(erlmcp_native, path, Path),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Tools = [{<<"echo">>, <<"Echo">>, fun tool/1}],
    spawn(fun() ->
        {ok, _} = erlmcp_native_stdio_server:start_link(#{tools => Tools}),
        receive
        after infinity -> ok
        end
    end).

%% The module of the takeover, by itself.
takeover() ->
    #{path := Path} = term("STDIO_OPTIONS"),
    application:load(erlmcp_native),
    application:set_env(erlmcp_native, path, Path),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Dir = filename:join(code:priv_dir(erlmcp_native), "takeover"),
    {module, Module} = code:load_abs(filename:join(Dir, "erlmcp_stdio")),
    ok = Module:add_tool(<<"echo">>, <<"Echo">>, fun tool/1),
    ok = Module:start().

tool(#{<<"text">> := Text}) ->
    io:format("STRAY in a tool: ~ts~n", [string:slice(Text, 0, 10)]),
    Text.

term(Variable) ->
    {ok, Tokens, _} = erl_scan:string(os:getenv(Variable) ++ "."),
    {ok, Term} = erl_parse:parse_term(Tokens),
    Term.

serve({ok, Conn}, Options) ->
    say("connecting", []),
    loop(Conn, Options);
serve({error, Reason}, _) ->
    say("refused ~0tp", [Reason]),
    halt(3).

loop(Conn, Options) ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            [frame(Frame, Conn, Options) || Frame <- Frames],
            loop(Conn, Options);
        {erlmcp_native, Conn, {down, Reason, Next}} ->
            say("down ~0tp ~0tp", [Reason, Next]),
            receive
            after infinity -> ok
            end;
        {erlmcp_native, Conn, Event} ->
            say("event ~0tp", [Event]),
            loop(Conn, Options)
    end.

frame(<<"!print">>, Conn, _) ->
    print(),
    reply(Conn, "printed");
frame(<<"!native">>, Conn, _) ->
    %% As native code in the VM would.
    erlang:display('STRAY'),
    ok = file:write_file("/proc/self/fd/1", "STRAY from native code\n"),
    reply(Conn, "printed");
frame(<<"!panic">>, Conn, _) ->
    try
        erlmcp_native_nif:connection_take(not_a_reference, 1, 1)
    catch
        error:_ -> reply(Conn, "panicked")
    end;
frame(<<"!pid">>, Conn, _) ->
    reply(Conn, os:getpid());
frame(<<"!again">>, Conn, Options) ->
    reply(Conn, io_lib:format("~0tp", [erlmcp_native:connect(stdio, Options)]));
frame(<<"!many ", Count/binary>>, Conn, _) ->
    Line = binary:copy(<<"x">>, 1000),
    [ok = erlmcp_native:send(Conn, Line) || _ <- lists:seq(1, binary_to_integer(Count))],
    reply(Conn, "sent"),
    %% Standard error may wait for standard output.
    ok = file:write_file(os:getenv("STDIO_SENT"), <<>>);
frame(<<"!close">>, Conn, _) ->
    erlmcp_native:close(Conn);
frame(<<"!die">>, _, _) ->
    exit(dead);
frame(<<"!slow ", Ms/binary>>, Conn, _) ->
    timer:sleep(binary_to_integer(Ms)),
    reply(Conn, "{\"id\":1,\"result\":\"slow\"}");
frame(Frame, Conn, _) ->
    reply(Conn, Frame).

reply(Conn, Text) ->
    erlmcp_native:send(Conn, Text, infinity).

%% Everything that is known to end up in the protocol of servers.
print() ->
    io:format("STRAY ~ts~n", [[16#e9, 16#20ac, 16#1f600]]),
    io:format(user, "STRAY to user~n", []),
    io:put_chars("STRAY"),
    logger:error("STRAY to the logger"),
    error_logger:error_msg("STRAY to the error logger~n"),
    {Pid, Ref} = spawn_monitor(fun() -> error('STRAY') end),
    receive
        {'DOWN', Ref, process, Pid, _} -> ok
    end,
    proc_lib:spawn(fun() -> exit('STRAY') end),
    os:cmd("echo STRAY; echo STRAY >&2"),
    Port = open_port({spawn, "echo STRAY"}, [exit_status]),
    receive
        {Port, {exit_status, 0}} -> ok
    end.

say(Format, Args) ->
    io:format(standard_error, "@ " ++ Format ++ "~n", Args).
