%% Stands in for erlmcp's module in the shape of 0.5: a process with owner messages, and options
%% that are taken for its state.
-module(erlmcp_transport_tcp).

-behaviour(gen_server).

-export([start_link/1, connect/2, send/2, close/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2, code_change/3]).

start_link(Options) -> gen_server:start_link(?MODULE, Options, []).

connect(Pid, Options) -> gen_server:call(Pid, {connect, Options}).

send(Pid, Data) when is_pid(Pid) -> gen_server:call(Pid, {send, Data});
send(_, _) -> {error, not_connected}.

close(Pid) when is_pid(Pid) -> gen_server:stop(Pid);
close(_) -> ok.

init(Options) -> {ok, Options}.

handle_call(_, _, Options) -> {reply, {error, not_connected}, Options}.

handle_cast(_, Options) -> {noreply, Options}.

handle_info(_, Options) -> {noreply, Options}.

terminate(_, _) -> ok.

code_change(_, Options, _) -> {ok, Options}.
