%% Stands in for erlmcp's module in the shape of 0.5: what its client calls it with it was not
%% written for.
-module(erlmcp_transport_http).

-export([start_link/1, send/2, close/1, init/1]).

start_link(Options) -> gen_server:start_link(?MODULE, Options, []).

send(State, _) when is_map(State) -> {error, not_connected}.

close(State) when is_map(State) -> ok.

init([Options]) -> {ok, Options}.
