%% Stands in for erlmcp's module, as far as a client needs it that was given a process.
-module(erlmcp_transport_tcp).

-export([send/2, close/1]).

send(Transport, Data) when is_pid(Transport) -> gen_server:call(Transport, {send, Data});
send(_, _) -> {error, not_connected}.

close(Transport) when is_pid(Transport) -> gen_server:stop(Transport);
close(_) -> ok.
