%% @doc The technique of erlmcp 0.5 over stdio, as the baseline of the analyses: a node that reads
%% with `io:get_line', decodes with jsx and writes with `io:format'. Its client never worked; a bare
%% port is in place of one.
-module(bench_line_stdio_subject).

-behaviour(erlmcp_native_analysis_subject).

-export([start/1, stop/1, endpoint/1, open/2, request/3, handle_info/2, close/1, max_clients/1]).

-spec start(erlmcp_native_analysis_subject:spec()) -> {ok, none}.
start(_) -> {ok, none}.

-spec stop(none) -> ok.
stop(none) -> ok.

-spec endpoint(none) -> map().
endpoint(none) -> #{}.

-spec open(erlmcp_native_analysis_subject:spec(), none) -> {ok, {port(), binary()}}.
open(_, none) ->
    Root = code:lib_dir(),
    Paths = [Dir || Dir <- code:get_path(), not lists:prefix(Root, Dir), Dir =/= "."],
    Args =
        ["-noshell", "-pa"] ++ [filename:absname(Dir) || Dir <- Paths] ++
            ["-run", "bench_stdio_server", "main", "-extra", "erlmcp05", "tool"],
    Port = open_port({spawn_executable, os:find_executable("erl")}, [
        binary, stream, exit_status, {args, Args}
    ]),
    true = port_command(Port, [erlmcp_native_analysis_call:initialize(0), $\n]),
    initialized({Port, <<>>}).

initialized({Port, _} = State) ->
    receive
        {Port, _} = Msg ->
            case handle_info(Msg, State) of
                {[{answer, 0, ok}], Next} -> {ok, Next};
                {_, Next} -> initialized(Next)
            end
    after 30000 -> {error, timeout}
    end.

-spec request({port(), binary()}, pos_integer(), iodata()) -> {ok, {port(), binary()}}.
request({Port, _} = State, _, Json) ->
    true = port_command(Port, [Json, $\n]),
    {ok, State}.

-spec handle_info(term(), {port(), binary()}) ->
    {[erlmcp_native_analysis_subject:event()], {port(), binary()}} | unknown.
handle_info({Port, {data, Data}}, {Port, Buffer}) ->
    Parts = binary:split(<<Buffer/binary, Data/binary>>, <<"\n">>, [global]),
    {Lines, [Rest]} = lists:split(length(Parts) - 1, Parts),
    {[answer(jsx:decode(Line, [return_maps])) || Line <- Lines], {Port, Rest}};
handle_info({Port, {exit_status, _}}, {Port, _} = State) ->
    {[{down, closed}], State};
handle_info(_, _) ->
    unknown.

answer(#{<<"id">> := Id}) -> {answer, Id, ok}.

%% A server ends when its input does.
-spec close({port(), binary()}) -> ok.
close({Port, _}) ->
    true = port_close(Port),
    ok.

-spec max_clients(erlmcp_native_analysis_subject:spec()) -> pos_integer().
max_clients(_) -> 4.
