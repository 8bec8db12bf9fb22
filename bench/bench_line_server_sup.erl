%% @doc The supervisor of {@link bench_line_server}'s connections.
-module(bench_line_server_sup).

-behaviour(supervisor).

-export([start_link/1]).
-export([init/1]).

-spec start_link([gen_server:start_opt()]) -> supervisor:startlink_ret().
start_link(Options) ->
    supervisor:start_link(?MODULE, Options).

%% @private
-spec init([gen_server:start_opt()]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Options) ->
    Child = #{
        id => connection,
        start => {bench_line_server, start_link, [Options]},
        restart => temporary
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
