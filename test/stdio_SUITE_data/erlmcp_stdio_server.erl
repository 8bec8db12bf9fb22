%% Stands in for erlmcp's server over stdio: reads and writes by its group leader, in the ways that
%% make that hard. A line is a list of bytes, an answer is a binary for `~s'.
-module(erlmcp_stdio_server).

-behaviour(gen_server).

-export([start_link/1, add_tool/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

start_link(Options) -> gen_server:start_link({local, ?MODULE}, ?MODULE, Options, []).

add_tool(Name, Description, Handler) ->
    gen_server:call(?MODULE, {add_tool, Name, Description, Handler}).

init(_) ->
    process_flag(trap_exit, true),
    Server = self(),
    Reader = spawn_link(fun() -> read(Server) end),
    {ok, {Reader, #{}}}.

read(Server) ->
    case io:get_line("") of
        eof ->
            exit(normal);
        Line ->
            Server ! {line, string:trim(binary_to_list(iolist_to_binary(Line)))},
            read(Server)
    end.

handle_call({add_tool, Name, _, Handler}, _, {Reader, Tools}) ->
    {reply, ok, {Reader, Tools#{Name => Handler}}}.

handle_cast(_, State) -> {noreply, State}.

handle_info({line, Line}, {_, Tools} = State) ->
    {ok, Request} = erlmcp_native_json:decode(list_to_binary(Line)),
    case Request of
        #{<<"id">> := Id} ->
            Answer = #{jsonrpc => <<"2.0">>, id => Id, result => result(Request, Tools)},
            io:format("~s~n", [erlmcp_native_json:encode(Answer)]);
        #{} ->
            ok
    end,
    {noreply, State};
handle_info({'EXIT', Reader, normal}, {Reader, _} = State) ->
    {stop, normal, State}.

result(#{<<"method">> := <<"tools/list">>}, Tools) ->
    #{tools => [#{name => Name} || Name <- maps:keys(Tools)]};
result(#{<<"params">> := #{<<"name">> := Name, <<"arguments">> := Arguments}}, Tools) ->
    #{text => (maps:get(Name, Tools))(Arguments)}.
