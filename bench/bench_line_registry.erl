%% @doc The routing technique of erlmcp 0.5, as the baseline: one process holds the names in a map,
%% every message is cast to it, and it passes them on. Written for these benches.
-module(bench_line_registry).

-behaviour(gen_server).

-export([start_link/0, register_server/3, find_server/1, route_to_server/3]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

-spec start_link() -> {ok, pid()}.
start_link() ->
    gen_server:start_link({local, ?MODULE}, ?MODULE, [], []).

-spec register_server(term(), pid(), map()) -> ok.
register_server(Id, Pid, Config) ->
    gen_server:call(?MODULE, {register, Id, Pid, Config}).

-spec find_server(term()) -> {ok, {pid(), map()}} | {error, not_found}.
find_server(Id) ->
    gen_server:call(?MODULE, {find, Id}, infinity).

-spec route_to_server(term(), term(), term()) -> ok.
route_to_server(Id, TransportId, Message) ->
    gen_server:cast(?MODULE, {route, Id, TransportId, Message}).

%% @private
-spec init([]) -> {ok, map()}.
init([]) ->
    {ok, #{}}.

%% @private
-spec handle_call(term(), gen_server:from(), map()) -> {reply, term(), map()}.
handle_call({register, Id, Pid, Config}, _, Servers) ->
    _ = monitor(process, Pid),
    {reply, ok, Servers#{Id => {Pid, Config}}};
handle_call({find, Id}, _, Servers) ->
    case Servers of
        #{Id := Found} -> {reply, {ok, Found}, Servers};
        #{} -> {reply, {error, not_found}, Servers}
    end.

%% @private
-spec handle_cast(term(), map()) -> {noreply, map()}.
handle_cast({route, Id, TransportId, Message}, Servers) ->
    case Servers of
        #{Id := {Pid, _}} -> Pid ! {mcp_message, TransportId, Message};
        #{} -> ok
    end,
    {noreply, Servers}.

%% @private
-spec handle_info(term(), map()) -> {noreply, map()}.
handle_info({'DOWN', _, process, Pid, _}, Servers) ->
    {noreply, maps:filter(fun(_, {P, _}) -> P =/= Pid end, Servers)}.
