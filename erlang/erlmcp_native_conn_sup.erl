%% @doc Supervises the processes of connections. They are temporary: a connection that has ended
%% is its owner's business.
-module(erlmcp_native_conn_sup).

-behaviour(supervisor).

-export([start_link/0, start_conn/1, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts the process of a connection.
-spec start_conn(erlmcp_native_conn:config()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_conn(Config) ->
    supervisor:start_child(?MODULE, [Config]).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Child = #{
        id => erlmcp_native_conn,
        start => {erlmcp_native_conn, start_link, []},
        restart => temporary
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
