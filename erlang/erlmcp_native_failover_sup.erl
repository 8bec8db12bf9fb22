%% @private Supervises failovers. They are temporary: one that has ended is its owner's business.
-module(erlmcp_native_failover_sup).

-behaviour(supervisor).

-export([start_link/0, start_failover/1, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec start_failover(erlmcp_native_failover_proc:config()) -> {ok, pid()} | {error, term()}.
start_failover(Config) ->
    supervisor:start_child(?MODULE, [Config]).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Child = #{
        id => erlmcp_native_failover_proc,
        start => {erlmcp_native_failover_proc, start_link, []},
        restart => temporary
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
