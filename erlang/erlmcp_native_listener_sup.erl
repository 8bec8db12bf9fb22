%% @doc Supervises the processes of listeners. They are temporary: a listener that has ended
%% is its owner's business.
-module(erlmcp_native_listener_sup).

-behaviour(supervisor).

-export([start_link/0, start_listener/1, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @doc Starts the process of a listener.
-spec start_listener(erlmcp_native_listener:config()) ->
    {ok, pid()} | {error, erlmcp_native:reason()}.
start_listener(Config) ->
    supervisor:start_child(?MODULE, [Config]).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Child = #{
        id => erlmcp_native_listener,
        start => {erlmcp_native_listener, start_link, []},
        restart => temporary
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
