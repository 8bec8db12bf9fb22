%% Stands in for erlmcp's module, which reads nothing either.
-module(erlmcp_transport_stdio_new).

-behaviour(gen_server).

-export([start_link/2, send/2, close/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

start_link(Id, Config) -> gen_server:start_link(?MODULE, [Id, Config], []).

send(Pid, Data) -> gen_server:cast(Pid, {send, Data}).

close(Pid) -> gen_server:stop(Pid).

init([Id, _]) -> {ok, Id}.

handle_call(_, _, Id) -> {reply, {error, unknown_request}, Id}.

handle_cast(_, Id) -> {noreply, Id}.

handle_info(_, Id) -> {noreply, Id}.

terminate(_, _) -> ok.

code_change(_, Id, _) -> {ok, Id}.
