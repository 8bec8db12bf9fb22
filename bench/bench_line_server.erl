%% @doc A plain `gen_tcp' server: one `gen_server' process per connection under a supervisor, line
%% mode, `active' true. The baseline for what an idle connection costs.
-module(bench_line_server).

-behaviour(gen_server).

-export([listen/0, connections/1]).
-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

%% @doc Starts to accept, in the calling process, which goes on with the function that is
%% returned.
-spec listen() -> {{inet:port_number(), Supervisor :: pid()}, fun(() -> no_return())}.
listen() ->
    {ok, Supervisor} = bench_line_server_sup:start_link(),
    {ok, Listener} = gen_tcp:listen(0, [
        binary, {ip, {127, 0, 0, 1}}, {packet, line}, {active, false}, {backlog, 1024}
    ]),
    {ok, Port} = inet:port(Listener),
    {{Port, Supervisor}, fun() -> accept(Listener, Supervisor) end}.

%% @doc How many connections have a process.
-spec connections(pid()) -> non_neg_integer().
connections(Supervisor) ->
    proplists:get_value(active, supervisor:count_children(Supervisor)).

accept(Listener, Supervisor) ->
    {ok, Socket} = gen_tcp:accept(Listener),
    {ok, Pid} = supervisor:start_child(Supervisor, [Socket]),
    ok = gen_tcp:controlling_process(Socket, Pid),
    gen_server:cast(Pid, owned),
    accept(Listener, Supervisor).

-spec start_link(gen_tcp:socket()) -> gen_server:start_ret().
start_link(Socket) ->
    gen_server:start_link(?MODULE, Socket, []).

%% @private
-spec init(gen_tcp:socket()) -> {ok, gen_tcp:socket()}.
init(Socket) ->
    {ok, Socket}.

%% @private
-spec handle_call(term(), gen_server:from(), gen_tcp:socket()) -> {reply, ok, gen_tcp:socket()}.
handle_call(_, _, Socket) ->
    {reply, ok, Socket}.

%% @private
-spec handle_cast(owned, gen_tcp:socket()) -> {noreply, gen_tcp:socket()}.
handle_cast(owned, Socket) ->
    ok = inet:setopts(Socket, [{active, true}]),
    {noreply, Socket}.

%% @private
-spec handle_info(term(), gen_tcp:socket()) ->
    {noreply, gen_tcp:socket()} | {stop, normal, gen_tcp:socket()}.
handle_info({tcp, Socket, Line}, Socket) ->
    ok = gen_tcp:send(Socket, Line),
    {noreply, Socket};
handle_info({tcp_closed, Socket}, Socket) ->
    {stop, normal, Socket}.
