%% An MCP server for the tests of failovers, over TCP or HTTP. It tells the test what it hears.
-module(failover_server).

-behaviour(erlmcp_native_http_handler).

-export([start/1, start_http/2, stop/1, port/1, release/1, mute/2, say/2, executed/1]).
-export([handle_request/3, handle_notification/3]).

-record(state, {
    name,
    test,
    port,
    listener,
    conns = [],
    held = [],
    mute = false,
    executed = #{}
}).

%% Methods: `echo' is answered with its params and the server's name, `hold' when released,
%% `count' as echo, and counted by `n', `error' with an error.
start(Name) ->
    Test = self(),
    Pid = spawn_link(fun() ->
        Options = #{path => beam, active => true, decode => json},
        {ok, Listener} = erlmcp_native:listen(#{port => 0}, Options),
        {ok, #{sockname := {_, Port}}} = erlmcp_native:info(Listener),
        loop(#state{name = Name, test = Test, port = Port, listener = Listener})
    end),
    Pid.

stop(Pid) ->
    Monitor = monitor(process, Pid),
    unlink(Pid),
    Pid ! stop,
    receive
        {'DOWN', Monitor, process, Pid, _} -> ok
    end.

port(Pid) -> ask(Pid, port).

%% Answers what is held.
release(Pid) -> ask(Pid, release).

%% Answers no ping any more.
mute(Pid, Mute) -> ask(Pid, {mute, Mute}).

say(Pid, Message) -> ask(Pid, {say, Message}).

executed(Pid) -> ask(Pid, executed).

ask(Pid, Question) ->
    Ref = monitor(process, Pid),
    Pid ! {ask, self(), Ref, Question},
    receive
        {Ref, Answer} ->
            demonitor(Ref, [flush]),
            Answer;
        {'DOWN', Ref, process, _, Reason} ->
            exit(Reason)
    end.

loop(#state{conns = Conns, test = Test, name = Name} = S) ->
    receive
        {erlmcp_native, _, {accepted, Conn}} ->
            loop(S#state{conns = [Conn | Conns]});
        {erlmcp_native, Conn, {frames, Items}} ->
            loop(lists:foldl(fun({json, M}, Acc) -> heard(M, Conn, Acc) end, S, Items));
        {erlmcp_native, Conn, {down, _, _}} ->
            loop(S#state{conns = lists:delete(Conn, Conns)});
        {ask, From, Ref, Question} ->
            {Answer, Next} = answer(Question, S),
            From ! {Ref, Answer},
            loop(Next);
        stop ->
            erlmcp_native:close(S#state.listener),
            [erlmcp_native:close(Conn) || Conn <- Conns],
            ok;
        Other ->
            Test ! {Name, Other},
            loop(S)
    end.

answer(port, S) -> {S#state.port, S};
answer(executed, S) -> {S#state.executed, S};
answer({mute, Mute}, S) -> {ok, S#state{mute = Mute}};
answer({say, Message}, #state{conns = Conns} = S) ->
    [erlmcp_native:send(Conn, erlmcp_native_json:encode(Message)) || Conn <- Conns],
    {length(Conns), S};
answer(release, #state{held = Held} = S) ->
    [say(Conn, Id, result(Params, S)) || {Conn, Id, Params} <- lists:reverse(Held)],
    {length(Held), S#state{held = []}}.

heard(#{<<"method">> := <<"initialize">>, <<"id">> := Id}, Conn, S) ->
    say(Conn, Id, #{result => initialized(S#state.name)}),
    S;
heard(#{<<"method">> := <<"ping">>, <<"id">> := Id}, Conn, #state{mute = Mute} = S) ->
    _ = Mute orelse say(Conn, Id, #{result => #{}}),
    S;
heard(#{<<"method">> := <<"echo">>, <<"id">> := Id} = M, Conn, S) ->
    say(Conn, Id, result(params(M), S)),
    S;
heard(#{<<"method">> := <<"error">>, <<"id">> := Id}, Conn, S) ->
    say(Conn, Id, #{error => #{code => -32601, message => <<"no">>}}),
    S;
heard(#{<<"method">> := <<"count">>, <<"id">> := Id} = M, Conn, S) ->
    #{<<"n">> := N} = Params = params(M),
    say(Conn, Id, result(Params, S)),
    Count = fun(Times) -> Times + 1 end,
    S#state{executed = maps:update_with(N, Count, 1, S#state.executed)};
heard(#{<<"method">> := <<"hold">>, <<"id">> := Id} = M, Conn, #state{held = Held} = S) ->
    #state{test = Test, name = Name} = S,
    Test ! {Name, held, params(M)},
    S#state{held = [{Conn, Id, params(M)} | Held]};
heard(Message, _, #state{test = Test, name = Name} = S) ->
    Test ! {Name, heard, Message},
    S.

params(Message) -> maps:get(<<"params">>, Message, #{}).

result(Params, #state{name = Name}) -> #{result => #{by => Name, params => Params}}.

initialized(Name) ->
    #{
        protocolVersion => <<"2025-11-25">>,
        capabilities => #{},
        serverInfo => #{name => Name, version => <<"1">>}
    }.

say(Conn, Id, Rest) ->
    erlmcp_native:send(Conn, erlmcp_native_json:encode(Rest#{jsonrpc => <<"2.0">>, id => Id})).

%% HTTP

start_http(Name, Path) ->
    erlmcp_native_http:listen(#{port => 0}, #{
        handler => {?MODULE, {Name, self()}}, path => Path
    }).

handle_request(<<"initialize">>, _, #{arg := {Name, _}}) ->
    {reply, initialized(Name)};
handle_request(<<"ping">>, _, _) ->
    {reply, #{}};
handle_request(<<"echo">>, Params, #{arg := {Name, _}}) ->
    {reply, #{by => Name, params => Params}};
handle_request(<<"hold">>, Params, #{arg := {Name, Test}}) ->
    Test ! {Name, held, Params},
    receive
        never -> ok
    end;
handle_request(_, _, _) ->
    {error, -32601, <<"Method not found">>}.

handle_notification(_, _, _) -> ok.
