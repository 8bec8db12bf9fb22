%% @doc Servers for measurements, called in a VM of its own, where they live as long as that: they
%% send back what they are sent, or send without end.
-module(erlmcp_native_analysis_peer).

-behaviour(erlmcp_native_http_handler).

-export([tcp/2, http/2, flood/2, lasting/1]).

%% Callback of erlmcp_native_http_handler.
-export([handle_request/3]).

%% @doc Listens on a port of TCP, 0 for a free one, and returns which it is.
-spec tcp(inet:port_number(), erlmcp_native_path:path()) -> inet:port_number().
tcp(Port, Path) ->
    lasting(fun() ->
        Options = #{active => true, path => Path, max_connections => 100000},
        {ok, Listener} = erlmcp_native:listen(#{port => Port}, Options),
        {ok, #{sockname := {_, Bound}}} = erlmcp_native:info(Listener),
        {Bound, fun echo/0}
    end).

%% @doc Listens for HTTP; each call of a tool takes so long. The port.
-spec http(erlmcp_native_path:path(), map()) -> inet:port_number().
http(Path, #{delay_ms := DelayMs} = Options) ->
    lasting(fun() ->
        Given = maps:remove(delay_ms, Options),
        {ok, Listener} = erlmcp_native_http:listen(#{port => 0}, Given#{
            handler => {?MODULE, DelayMs}, path => Path, owner => self()
        }),
        {ok, #{sockname := {_, Bound}}} = erlmcp_native_http:info(Listener),
        {Bound, fun echo/0}
    end).

%% @private
-spec handle_request(binary(), map(), erlmcp_native_http_handler:context()) ->
    erlmcp_native_http_handler:answer().
handle_request(<<"initialize">>, Params, _) ->
    {reply, #{
        protocolVersion => erlmcp_native_http:negotiate(Params, [<<"2025-11-25">>]),
        capabilities => #{tools => #{}},
        serverInfo => #{name => <<"analysis">>, version => <<"1">>}
    }};
handle_request(<<"tools/call">>, _, #{arg := DelayMs}) ->
    receive
    after DelayMs -> ok
    end,
    {reply, #{content => [#{type => <<"text">>, text => <<"done">>}]}};
handle_request(<<"sessions/notify">>, #{<<"sessions">> := Sessions}, _) ->
    Notice = #{level => info, data => <<"back">>},
    [ok = erlmcp_native_http:send(Id, <<"notifications/message">>, Notice) || Id <- Sessions],
    {reply, #{}};
handle_request(_, _, _) ->
    {error, -32601, <<"Method not found">>}.

%% @doc Listens on a free port of TCP and sends numbered lines to each connection: `per_s' of them,
%% or as many fewer as the connection takes, `count' in all. The port.
-spec flood(Bytes :: pos_integer(), #{per_s := pos_integer(), count := pos_integer()}) ->
    inet:port_number().
flood(Bytes, #{per_s := PerS, count := Count}) ->
    lasting(fun() ->
        {ok, Listener} = gen_tcp:listen(0, [binary, {ip, {127, 0, 0, 1}}, {active, false}]),
        {ok, Bound} = inet:port(Listener),
        {Bound, fun() ->
            {ok, Socket} = gen_tcp:accept(Listener),
            Each = max(1, PerS div 100),
            flooded(Socket, Bytes, Each, 1, Count, erlang:monotonic_time(millisecond))
        end}
    end).

%% Every 10 ms; where the connection pushes back, as soon as it takes more.
flooded(Socket, _, _, Next, Count, _) when Next > Count ->
    %% The receiver closes first: what has been sent is not cut short.
    _ = gen_tcp:recv(Socket, 0),
    ok;
flooded(Socket, Bytes, Each, Next, Count, Due) ->
    Last = min(Next + Each - 1, Count),
    case gen_tcp:send(Socket, [numbered(N, Bytes) || N <- lists:seq(Next, Last)]) of
        ok ->
            Pause = max(0, Due + 10 - erlang:monotonic_time(millisecond)),
            receive
            after Pause -> flooded(Socket, Bytes, Each, Last + 1, Count, Due + 10)
            end;
        {error, _} = Error ->
            Error
    end.

numbered(Number, Bytes) ->
    Head = io_lib:format("{\"jsonrpc\":\"2.0\",\"method\":\"n\",\"n\":~9..0b,\"p\":\"", [Number]),
    Padding = Bytes - iolist_size(Head) - 2,
    [Head, lists:duplicate(Padding, $x), "\"}\n"].

echo() ->
    receive
        {erlmcp_native, Conn, {frames, Frames}} ->
            %% A connection that has ended meanwhile gets no answer.
            _ = [erlmcp_native:send(Conn, Frame, 5000) || Frame <- Frames],
            echo();
        {erlmcp_native, _, _} ->
            echo()
    end.

%% @doc Runs the function in a process that outlives the call, goes on there with the function that
%% it returns beside its result, and returns the result. What a call from another VM opens would
%% end with it.
-spec lasting(fun(() -> {Result, fun(() -> term())})) -> Result.
lasting(Begin) ->
    Caller = self(),
    {Pid, Monitor} = spawn_monitor(fun() ->
        {Result, Continue} = Begin(),
        Caller ! {self(), Result},
        Continue()
    end),
    receive
        {Pid, Result} ->
            true = demonitor(Monitor, [flush]),
            Result;
        {'DOWN', Monitor, process, Pid, Reason} ->
            exit(Reason)
    end.
