%% @doc The supervisor of {@link bench_line_server}'s connections.
-module(bench_line_server_sup).

-behaviour(supervisor).

-export([start_link/0]).
-export([init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link(?MODULE, []).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Child = #{
        id => connection,
        start => {bench_line_server, start_link, []},
        restart => temporary
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
