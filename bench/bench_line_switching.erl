%% @doc How one goes over to another endpoint with erlmcp 0.5, as the baseline: the transport is
%% stopped and another is started, by command or when it says that it was disconnected. What was
%% under way is not failed; who called gives up after 5 s. Written for these benches.
-module(bench_line_switching).

-behaviour(gen_server).
-behaviour(erlmcp_native_switching_client).

-export([start/2, ready/1, request/2, switch/2, active/1, event/1, stop/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-define(CALL_TIMEOUT_MS, 5000).

-spec start([{term(), map()}], erlmcp_native_report:path()) -> {ok, pid()}.
start(Endpoints, _) ->
    gen_server:start_link(?MODULE, {Endpoints, self()}, []).

-spec ready(pid()) -> ok.
ready(_) -> ok.

-spec request(pid(), boolean()) -> {ok, pos_integer()} | {error, term()}.
request(Pid, _) -> gen_server:call(Pid, request, infinity).

-spec switch(pid(), term()) -> ok.
switch(Pid, Name) -> gen_server:call(Pid, {switch, Name}, infinity).

-spec active(pid()) -> term().
active(Pid) -> gen_server:call(Pid, active, infinity).

-spec event(term()) -> erlmcp_native_switching_client:event().
event({?MODULE, Event}) -> Event;
event(_) -> other.

-spec stop(pid()) -> ok.
stop(Pid) -> gen_server:stop(Pid).

%% @private
-spec init({[{term(), map()}, ...], pid()}) -> {ok, map()}.
init({[{Name, _} | _] = Endpoints, Owner}) ->
    process_flag(trap_exit, true),
    State = #{
        endpoints => Endpoints, owner => Owner, next => 1, pending => #{}, transport => none
    },
    {ok, connected(Name, State)}.

connected(Name, #{endpoints := Endpoints} = State) ->
    {Name, #{port := Port}} = lists:keyfind(Name, 1, Endpoints),
    {ok, Transport} = bench_line_transport:start_link(Port),
    State#{transport := Transport, active => Name}.

%% @private
-spec handle_call(term(), gen_server:from(), map()) -> {reply, term(), map()}.
handle_call(request, _, #{transport := Transport, next := Id, pending := Pending} = State) ->
    Line = jsx:encode(#{
        <<"jsonrpc">> => <<"2.0">>,
        <<"id">> => Id,
        <<"method">> => <<"tools/call">>,
        <<"params">> => #{
            <<"name">> => <<"echo">>,
            <<"arguments">> => #{<<"text">> => <<"a text that is echoed">>}
        }
    }),
    try bench_line_transport:send(Transport, Line) of
        ok ->
            _ = erlang:send_after(?CALL_TIMEOUT_MS, self(), {too_long, Id}),
            {reply, {ok, Id}, State#{next := Id + 1, pending := Pending#{Id => []}}};
        {error, _} = Error ->
            {reply, Error, State}
    catch
        exit:_ -> {reply, {error, not_connected}, State}
    end;
handle_call({switch, Name}, _, #{transport := Transport} = State) ->
    true = unlink(Transport),
    ok = bench_line_transport:close(Transport),
    {reply, ok, connected(Name, State)};
handle_call(active, _, #{active := Name} = State) ->
    {reply, Name, State}.

%% @private
-spec handle_cast(term(), map()) -> {noreply, map()}.
handle_cast(_, State) ->
    {noreply, State}.

%% @private
-spec handle_info(term(), map()) -> {noreply, map()}.
handle_info({transport_message, Line}, State) ->
    #{<<"id">> := Id} = jsx:decode(Line, [return_maps]),
    {noreply, outcome(Id, ok, State)};
handle_info({too_long, Id}, State) ->
    {noreply, outcome(Id, {error, timeout}, State)};
handle_info({transport_disconnected, Transport, _}, #{transport := Transport} = State) ->
    #{active := Name, endpoints := Endpoints} = State,
    Left = lists:keydelete(Name, 1, Endpoints),
    [{Next, _} | _] = Left,
    {noreply, connected(Next, State#{endpoints := Left})};
handle_info(_, State) ->
    {noreply, State}.

outcome(Id, Outcome, #{pending := Pending, owner := Owner} = State) when
    is_map_key(Id, Pending)
->
    Owner ! {?MODULE, {outcome, Id, Outcome}},
    State#{pending := maps:remove(Id, Pending)};
outcome(_, _, State) ->
    State.
