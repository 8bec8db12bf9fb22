%% Stands in for erlmcp's module in the shape of the fork.
-module(erlmcp_transport_http).

-export([start_link/2, start_link/3, stop/1, send/2, close/1, get_info/1]).
-export([handle_transport_call/2, init/1]).

start_link(Id, Options) -> gen_server:start_link(?MODULE, [Id, Options], []).

start_link(Id, Name, Options) -> gen_server:start_link({local, Name}, ?MODULE, [Id, Options], []).

stop(Pid) -> gen_server:stop(Pid).

send(_, _) -> {error, not_connected}.

close(_) -> ok.

get_info(_) -> #{}.

handle_transport_call(_, _) -> {error, unknown_request}.

init([_, Options]) -> {ok, Options}.
