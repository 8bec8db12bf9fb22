%% @private The port program as a process of the operating system.
-module(erlmcp_native_port_program).

-include("erlmcp_native_port.hrl").

-export([available/0, start/2, close/1, kill/1]).

%% @doc Whether there is a program to start.
-spec available() -> ok | {error, no_program}.
available() ->
    case filelib:is_regular(file()) of
        true -> ok;
        false -> {error, no_program}
    end.

%% @doc Starts it and says hello.
-spec start(Generation :: pos_integer(), Workers :: pos_integer()) ->
    {ok, port()} | {error, term()}.
start(Generation, Workers) ->
    try
        open_port({spawn_executable, file()}, [
            {packet, 4},
            binary,
            %% Standard input and output stay the node's own.
            nouse_stdio,
            exit_status,
            %% Senders are not suspended: they count what they have sent.
            {busy_limits_port, disabled},
            {busy_limits_msgq, disabled}
        ])
    of
        Port ->
            Hello = <<
                ?PORT_VERSION:16, Generation:32, Workers:16, (erlmcp_native_log:level_number())
            >>,
            _ = erlmcp_native_port:command(Port, ?TO_HELLO, 0, Hello),
            {ok, Port}
    catch
        error:Reason -> {error, Reason}
    end.

%% @doc Closes the port, which ends the program. What had come from it is dropped.
-spec close(port()) -> ok.
close(Port) ->
    true = unlink(Port),
    try
        true = port_close(Port),
        flush(Port)
    catch
        %% It has ended by itself.
        error:badarg -> flush(Port)
    end.

%% @doc Ends a program that does not do what it should: stopped, it would not see that its input
%% has ended.
-spec kill(port()) -> ok.
kill(Port) ->
    case erlang:port_info(Port, os_pid) of
        {os_pid, OsPid} ->
            _ = spawn(os, cmd, ["kill -KILL " ++ integer_to_list(OsPid)]),
            ok;
        _ ->
            ok
    end.

flush(Port) ->
    receive
        {Port, _} -> flush(Port);
        {'EXIT', Port, _} -> flush(Port)
    after 0 -> ok
    end.

file() ->
    case code:priv_dir(erlmcp_native) of
        {error, bad_name} -> "erlmcp_native_port";
        Dir -> filename:join(Dir, "erlmcp_native_port")
    end.
