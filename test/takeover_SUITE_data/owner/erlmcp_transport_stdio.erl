%% Stands in for erlmcp's module: what it reads it sends to itself, so that nothing arrives.
-module(erlmcp_transport_stdio).

-behaviour(gen_server).

-export([start_link/1, send/2, close/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

start_link(Owner) -> gen_server:start_link(?MODULE, [Owner], []).

send(_, _) -> ok.

close(Pid) when is_pid(Pid) -> gen_server:stop(Pid);
close(_) -> ok.

init([Owner]) -> {ok, Owner}.

handle_call(_, _, Owner) -> {reply, {error, unknown_request}, Owner}.

handle_cast(_, Owner) -> {noreply, Owner}.

handle_info(_, Owner) -> {noreply, Owner}.

terminate(_, _) -> ok.

code_change(_, Owner, _) -> {ok, Owner}.
