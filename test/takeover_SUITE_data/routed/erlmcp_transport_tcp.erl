%% Stands in for erlmcp's module in the shape of the fork: a process with a name in the registry.
-module(erlmcp_transport_tcp).

-export([start_link/2, send/2, close/1, get_info/1]).

start_link(_, _) -> {error, not_connected}.

send(Pid, Data) when is_pid(Pid) -> gen_server:call(Pid, {send, Data}).

close(Pid) when is_pid(Pid) -> gen_server:call(Pid, close).

get_info(Pid) when is_pid(Pid) -> gen_server:call(Pid, get_info).
