%% @private Supervises transports that come and go at run time. They are temporary: a listener's
%% client connects again, and what `erlmcp_transport_tcp:send/2' opened it opens again.
-module(erlmcp_native_transport_sup).

-behaviour(supervisor).

-export([start_link/1, start_transport/2, transports/1, stop_all/1, init/1]).

%% @doc `Start' is completed with the arguments of {@link start_transport/2}.
-spec start_link(Start :: {module(), atom(), [term()]}) -> supervisor:startlink_ret().
start_link(Start) ->
    supervisor:start_link(?MODULE, Start).

-spec start_transport(pid(), [term()]) -> supervisor:startchild_ret().
start_transport(Supervisor, Args) ->
    supervisor:start_child(Supervisor, Args).

-spec transports(pid()) -> [pid()].
transports(Supervisor) ->
    [Pid || {_, Pid, _, _} <- supervisor:which_children(Supervisor), is_pid(Pid)].

-spec stop_all(pid()) -> ok.
stop_all(Supervisor) ->
    Stop = fun(Pid) -> supervisor:terminate_child(Supervisor, Pid) end,
    lists:foreach(Stop, transports(Supervisor)).

%% @private
-spec init({module(), atom(), [term()]}) ->
    {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(Start) ->
    Child = #{id => transport, start => Start, restart => temporary},
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.
