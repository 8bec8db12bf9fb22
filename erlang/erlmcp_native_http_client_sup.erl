%% @private Supervises the processes of HTTP clients. They are temporary: a client that has ended is
%% its owner's business.
-module(erlmcp_native_http_client_sup).

-behaviour(supervisor).

-export([start_link/0, start_client/1, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec start_client(erlmcp_native_http_client_options:options()) ->
    {ok, pid()} | {error, erlmcp_native:reason()}.
start_client(Options) ->
    supervisor:start_child(?MODULE, [Options]).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Child = #{
        id => erlmcp_native_http_client_proc,
        start => {erlmcp_native_http_client_proc, start_link, []},
        restart => temporary
    },
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
