%% @doc How a connection of erlmcp 0.5 comes back, as the baseline: a connect of 5 s that nothing
%% interrupts, then a pause of a second and up to a quarter more, doubled each time, 60 s at
%% most. Written for these benches.
-module(bench_line_reconnect).

-behaviour(gen_server).
-behaviour(erlmcp_native_reconnect_client).

-export([connect/3, send/2, event/1, close/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(CONNECT_TIMEOUT_MS, 5000).
-define(FIRST_MS, 1000).
-define(LONGEST_MS, 60000).

-spec connect(map(), erlmcp_native_report:path(), pos_integer()) -> {ok, pid()}.
connect(#{port := Port}, _, _) ->
    gen_server:start_link(?MODULE, {Port, self()}, []).

-spec send(pid(), iodata()) -> term().
send(Pid, Data) ->
    gen_server:call(Pid, {send, Data}, infinity).

-spec event(term()) -> connected | answer | {down, term()} | other.
event({transport_connected, _}) -> connected;
event({transport_message, _}) -> answer;
event({transport_disconnected, _, Reason}) -> {down, Reason};
event(_) -> other.

-spec close(pid()) -> ok.
close(Pid) ->
    gen_server:stop(Pid, normal, infinity).

%% @private
-spec init({inet:port_number(), pid()}) -> {ok, map()}.
init({Port, Owner}) ->
    self() ! connect,
    {ok, #{port => Port, owner => Owner, socket => none, attempts => 0}}.

%% @private
-spec handle_call({send, iodata()}, gen_server:from(), map()) -> {reply, term(), map()}.
handle_call({send, _}, _, #{socket := none} = State) ->
    {reply, {error, not_connected}, State};
handle_call({send, Data}, _, #{socket := Socket} = State) ->
    {reply, gen_tcp:send(Socket, [Data, $\n]), State}.

%% @private
-spec handle_cast(term(), map()) -> {noreply, map()}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), map()) -> {noreply, map()}.
handle_info(connect, #{port := Port, owner := Owner} = State) ->
    Options = [binary, {active, true}, {packet, line}],
    case gen_tcp:connect({127, 0, 0, 1}, Port, Options, ?CONNECT_TIMEOUT_MS) of
        {ok, Socket} ->
            Owner ! {transport_connected, self()},
            {noreply, State#{socket := Socket, attempts := 0}};
        {error, _} ->
            {noreply, later(State)}
    end;
handle_info({tcp, Socket, Line}, #{socket := Socket, owner := Owner} = State) ->
    Owner ! {transport_message, Line},
    {noreply, State};
handle_info({tcp_closed, Socket}, #{socket := Socket} = State) ->
    {noreply, lost(normal, State)};
handle_info({tcp_error, Socket, Reason}, #{socket := Socket} = State) ->
    {noreply, lost(Reason, State)};
handle_info(_, State) ->
    {noreply, State}.

lost(Reason, #{owner := Owner} = State) ->
    Owner ! {transport_disconnected, self(), Reason},
    later(State#{socket := none}).

later(#{attempts := Attempts} = State) ->
    Pause = min(?FIRST_MS bsl min(Attempts, 20), ?LONGEST_MS),
    _ = erlang:send_after(Pause + rand:uniform(Pause div 4), self(), connect),
    State#{attempts := Attempts + 1}.
