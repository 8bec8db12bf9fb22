%% Stands in for erlmcp's transport supervisor, with the module names that it goes by.
-module(erlmcp_transport_sup).

-behaviour(supervisor).

-export([start_link/0, start_child/3, init/1]).

start_link() -> supervisor:start_link({local, ?MODULE}, ?MODULE, []).

start_child(Id, Type, Config) ->
    Module =
        case Type of
            tcp -> erlmcp_transport_tcp_new;
            http -> erlmcp_transport_http_new
        end,
    supervisor:start_child(?MODULE, #{
        id => Id,
        start => {Module, start_link, [Id, Config]},
        restart => temporary
    }).

init([]) -> {ok, {#{strategy => one_for_one}, []}}.
