%% Stands in for a later module of erlmcp, with a function that its replacement has not.
-module(erlmcp_transport_tcp).

-export([start_link/1, start_server/1, connect/2, send/2, close/1]).

start_link(_) -> {error, not_connected}.

start_server(_) -> {error, not_connected}.

connect(_, _) -> {error, not_connected}.

send(_, _) -> {error, not_connected}.

close(_) -> ok.
