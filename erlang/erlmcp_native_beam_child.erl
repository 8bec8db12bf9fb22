%% @doc The process that stands between an owner and its child process on the path `beam': the one
%% whose port it is.
%%
%% A port sends what it reads whether it is asked to or not. Beyond the high-water mark the child's
%% process group is stopped (SIGSTOP) until its owner has taken what there is: what waits is the
%% mark, what the pipe holds and what was under way.
%%
%% What a port cannot do: close the child's standard input and go on reading, so what the child has
%% still to say when it is closed is lost; tell a signal from a status above 128; notice the child's
%% end while a grandchild holds its standard output; read its standard error.
-module(erlmcp_native_beam_child).

-export([start/2]).

-include_lib("kernel/include/file.hrl").

%% How often a queue is looked at that is to be sent before the end.
-define(LOOK_MS, 10).

-record(state, {
    owner :: pid(),
    monitor :: reference(),
    tag :: reference(),
    port :: port(),
    out :: erlmcp_native_beam_out:out(),
    os_pid :: integer() | undefined,
    child :: erlmcp_native_child_options:child(),
    high_water :: pos_integer(),
    armed = false :: boolean(),
    %% What has come in and not been asked for, latest first.
    chunks = [] :: [binary()],
    bytes = 0 :: non_neg_integer(),
    stopped = false :: boolean(),
    lost = none :: erlmcp_native:reason() | none
}).

%% @doc Starts the child of the calling process. What is sent goes past the process between them.
-spec start(erlmcp_native_child_options:child(), HighWater :: pos_integer()) ->
    {ok, erlmcp_native_beam_keeper:keeper(), erlmcp_native_beam_out:out(), Ends}
    | {error, erlmcp_native:reason()}
when
    Ends :: #{os_pid := integer() | undefined}.
start(#{stderr := Stderr}, _) when Stderr =:= logger; Stderr =:= owner ->
    {error, {path_unavailable, beam, {stderr, Stderr}}};
start(#{command := Command, cwd := Cwd} = Child, HighWater) ->
    case {executable(Child), directory(Cwd)} of
        {_, {error, Posix}} -> {error, {cwd, Cwd, Posix}};
        {{error, Posix}, _} -> {error, {command, Command, Posix}};
        {{ok, Path}, ok} -> start(Path, Child, HighWater)
    end.

start(Path, Child, HighWater) ->
    Owner = self(),
    Tag = make_ref(),
    {Pid, Monitor} = spawn_monitor(fun() -> init(Path, Child, HighWater, Owner, Tag) end),
    receive
        {Tag, {started, Out, OsPid}} ->
            Keeper = erlmcp_native_beam_keeper:new(Pid, Tag, Monitor),
            {ok, Keeper, Out, #{os_pid => OsPid}};
        {Tag, {failed, Posix}} ->
            true = demonitor(Monitor, [flush]),
            {error, {command, maps:get(command, Child), Posix}};
        {'DOWN', Monitor, process, _, _} ->
            {error, panic}
    end.

executable(#{command := Command, env := Env}) ->
    Path = proplists:get_value(<<"PATH">>, Env, <<"/usr/bin:/bin">>),
    case binary:match(Command, <<"/">>) of
        nomatch ->
            case os:find_executable(chars(Command), chars(Path)) of
                false -> {error, enoent};
                Found -> {ok, Found}
            end;
        _ ->
            runnable(Command, file:read_file_info(Command))
    end.

%% What runs it may be a shell, which would tell it in words of its own.
runnable(_, {error, Posix}) -> {error, Posix};
runnable(Path, {ok, #file_info{type = regular, mode = Mode}}) when Mode band 8#111 =/= 0 ->
    {ok, Path};
runnable(_, _) -> {error, eacces}.

chars(Name) ->
    case unicode:characters_to_list(Name, file:native_name_encoding()) of
        Chars when is_list(Chars) -> Chars;
        _ -> binary_to_list(Name)
    end.

directory(Cwd) ->
    %% Whether it can be entered shows only in looking inside.
    case file:read_file_info(filename:join(Cwd, <<".">>)) of
        {ok, _} -> ok;
        {error, Posix} -> {error, Posix}
    end.

init(Path, #{args := Args, env := Env, cwd := Cwd} = Child, HighWater, Owner, Tag) ->
    _ = process_flag(trap_exit, true),
    Monitor = monitor(process, Owner),
    {Program, All} = redirected(Path, Args, Child),
    Options = [
        {args, All},
        {env, environment(Env)},
        {cd, Cwd},
        binary,
        stream,
        exit_status,
        use_stdio,
        hide
        | erlmcp_native_beam_out:port_options()
    ],
    try open_port({spawn_executable, Program}, Options) of
        Port ->
            OsPid = os_pid(Port),
            ok = erlmcp_native_beam_groups:add(OsPid),
            Out = erlmcp_native_beam_out:port(Port),
            Owner ! {Tag, {started, Out, OsPid}},
            loop(#state{
                owner = Owner,
                monitor = Monitor,
                tag = Tag,
                port = Port,
                out = Out,
                os_pid = OsPid,
                child = Child,
                high_water = HighWater
            })
    catch
        error:Posix -> Owner ! {Tag, {failed, Posix}}
    end.

%% A shell that becomes the program. It is told of a program that it cannot run before.
redirected(Path, Args, #{stderr := null}) ->
    {"/bin/sh", ["-c", "exec \"$0\" \"$@\" 2>/dev/null", Path | Args]};
redirected(Path, Args, _) ->
    {Path, Args}.

%% A port adds to the node's environment: the rest is taken away.
environment(Env) ->
    Given = [{chars(Name), chars(Value)} || {Name, Value} <- Env],
    Missing = [Name || {Name, _} <- os:env(), not lists:keymember(Name, 1, Given)],
    Given ++ [{Name, false} || Name <- Missing].

os_pid(Port) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, OsPid} -> OsPid;
        undefined -> undefined
    end.

loop(#state{port = Port, monitor = Monitor} = S) ->
    receive
        {Port, {data, Chunk}} ->
            loop(deliver(throttle(collect(Chunk, S))));
        {Port, {exit_status, Status}} ->
            loop(over({exit_status, Status}, S));
        {'EXIT', Port, _} ->
            loop(over(closed, S));
        arm ->
            loop(deliver(S#state{armed = true}));
        {give, NewOwner, From, Ref} ->
            loop(given(NewOwner, From, Ref, S));
        {close, LingerMs} ->
            true = demonitor(Monitor, [flush]),
            flush(erlang:monotonic_time(millisecond) + LingerMs, let_run(S));
        {'DOWN', Monitor, process, _, _} ->
            ended(S)
    end.

collect(Chunk, #state{chunks = Chunks, bytes = Bytes} = S) ->
    S#state{chunks = [Chunk | Chunks], bytes = Bytes + byte_size(Chunk)}.

throttle(#state{stopped = false, bytes = Bytes, high_water = High, os_pid = Pid} = S) when
    Bytes >= High
->
    ok = erlmcp_native_beam_groups:stop(Pid),
    S#state{stopped = true};
throttle(S) ->
    S.

let_run(#state{stopped = true, os_pid = OsPid} = S) ->
    ok = erlmcp_native_beam_groups:continue(OsPid),
    S#state{stopped = false};
let_run(S) ->
    S.

deliver(#state{armed = true, chunks = [_ | _] = Chunks} = S) ->
    ok = tell({data, iolist_to_binary(lists:reverse(Chunks))}, S),
    let_run(S#state{armed = false, chunks = [], bytes = 0});
deliver(#state{armed = true, lost = Reason} = S) when Reason =/= none ->
    ok = tell({lost, Reason}, S),
    S#state{armed = false};
deliver(S) ->
    S.

tell(Arrival, #state{owner = Owner, tag = Tag}) ->
    Owner ! {Tag, Arrival},
    ok.

%% The child itself is gone; its group may not be.
over(Reason, #state{lost = none, os_pid = OsPid, child = Child} = S) ->
    ok = erlmcp_native_beam_groups:finish(OsPid, 0, maps:get(sigterm_grace_ms, Child)),
    deliver(S#state{lost = Reason});
over(_, S) ->
    S.

given(_, From, Ref, #state{owner = Owner} = S) when From =/= Owner ->
    From ! {Ref, not_owner},
    S;
given(NewOwner, From, Ref, #state{monitor = Monitor} = S) ->
    true = demonitor(Monitor, [flush]),
    From ! {Ref, given},
    S#state{owner = NewOwner, monitor = monitor(process, NewOwner), armed = false}.

%% What the child writes meanwhile is dropped, so that it can go on and read.
flush(Deadline, #state{lost = none, port = Port, out = Out} = S) ->
    Left = Deadline - erlang:monotonic_time(millisecond),
    case erlmcp_native_beam_out:pending(Out) of
        Queued when Queued > 0, Left > 0 ->
            receive
                {Port, {data, _}} -> flush(Deadline, S);
                {Port, {exit_status, Status}} -> flush(Deadline, over({exit_status, Status}, S));
                {'EXIT', Port, _} -> flush(Deadline, over(closed, S))
            after min(Left, ?LOOK_MS) -> flush(Deadline, S)
            end;
        _ ->
            ended(S)
    end;
flush(_, S) ->
    ended(S).

%% The port closes the child's standard input when this process ends.
ended(#state{lost = none, port = Port, os_pid = OsPid, child = Child} = S) ->
    _ = let_run(S),
    #{stdin_grace_ms := StdinGrace, sigterm_grace_ms := SigtermGrace} = Child,
    ok = close_port(Port),
    erlmcp_native_beam_groups:finish(OsPid, StdinGrace, SigtermGrace);
ended(_) ->
    ok.

close_port(Port) ->
    try port_close(Port) of
        true -> ok
    catch
        error:badarg -> ok
    end.
