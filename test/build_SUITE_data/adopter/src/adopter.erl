%% Tells on standard output how it found erlmcp_native, and ends the node.
-module(adopter).

-behaviour(application).

-export([start/2, stop/1]).

start(_, _) ->
    Report = #{
        mode => code:get_mode(),
        status => erlmcp_native_nif:status(),
        path => erlmcp_native_path:default(),
        echo => echo(<<"{\"jsonrpc\":\"2.0\"}">>),
        code_path => [Dir || Dir <- code:get_path(), Dir =/= "."],
        priv => code:priv_dir(erlmcp_native),
        takeover => [
            Module
         || Module <- [erlmcp_transport_tcp, erlmcp_json_rpc], code:which(Module) =/= non_existing
        ]
    },
    io:format("~nreport ~s~n", [base64:encode(term_to_binary(Report))]),
    {ok, spawn_link(fun ending/0)}.

stop(_) ->
    ok.

ending() ->
    ok = init:stop(),
    receive
        stop -> ok
    end.

%% A message through a listener and a connection of the node's path.
echo(Message) ->
    {ok, Listener} = erlmcp_native:listen(#{port => 0}, #{active => true}),
    {ok, #{sockname := {Ip, Port}}} = erlmcp_native:info(Listener),
    {ok, Conn} = erlmcp_native:connect(#{host => Ip, port => Port}, #{active => true}),
    ok = erlmcp_native:await_connected(Conn, 10000),
    ok = erlmcp_native:send(Conn, Message),
    Served = receive {erlmcp_native, Listener, {accepted, Accepted}} -> Accepted end,
    receive
        {erlmcp_native, Served, {frames, [Request]}} -> ok = erlmcp_native:send(Served, Request)
    end,
    receive
        {erlmcp_native, Conn, {frames, [Answer]}} -> Answer
    end.
