%% @doc What the analysis of restarts kills processes in: a supervision tree with connections. This
%% is this application's; what it is compared with brings a module of the same callbacks.
-module(erlmcp_native_bottleneck_tree).

-behaviour(supervisor).

-export([start/1, child/2, connection/2, restarts_children/0, registry/0, supervisor/0, alive/0]).
-export([start_link/0, start_child/3]).
-export([init/1]).

-callback start(erlmcp_native_report:path()) -> ok.
%% Starts the tree, if it does not run, in the VM of the measurement.

-callback child(inet:port_number(), erlmcp_native_report:path()) -> {ok, pid()}.
%% A connection whose supervisor starts it again, where there is such a thing. The caller owns it;
%% whenever it is started it receives `{started, Pid, MonotonicTime}'.

-callback connection(inet:port_number(), erlmcp_native_report:path()) -> {ok, pid()}.
%% A connection under the supervisor of all connections.

-callback restarts_children() -> boolean().

-callback registry() -> pid() | undefined.

-callback supervisor() -> pid() | undefined.
%% That of all connections.

-callback alive() -> boolean().
%% Whether the whole tree still runs.

%% A supervisor of the user's with room for all the kills of a run.
-define(INTENSITY, 1000000).

%% @private
-spec start(erlmcp_native_report:path()) -> ok.
start(_) ->
    case whereis(?MODULE) of
        undefined ->
            {ok, Pid} = start_link(),
            true = unlink(Pid),
            ok;
        _ ->
            ok
    end.

%% @private
-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @private
-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    {ok, {#{strategy => one_for_one, intensity => ?INTENSITY, period => 1}, []}}.

%% @private
-spec child(inet:port_number(), erlmcp_native_report:path()) -> {ok, pid()}.
child(Port, Path) ->
    Options = #{active => true, path => Path, reconnect => true},
    {ok, Pid} = supervisor:start_child(?MODULE, #{
        id => make_ref(),
        start => {?MODULE, start_child, [#{port => Port}, Options, self()]}
    }),
    {ok, Pid}.

%% @private
-spec start_child(map(), map(), pid()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_child(Endpoint, Options, Owner) ->
    case erlmcp_native:start_link(Endpoint, Options#{owner => Owner}) of
        {ok, Pid} ->
            Owner ! {started, Pid, erlang:monotonic_time()},
            {ok, Pid};
        {error, _} = Error ->
            Error
    end.

%% @private
-spec connection(inet:port_number(), erlmcp_native_report:path()) -> {ok, pid()}.
connection(Port, Path) ->
    erlmcp_native:connect(#{port => Port}, #{active => true, path => Path}).

%% @private
-spec restarts_children() -> boolean().
restarts_children() -> true.

%% @private
-spec registry() -> pid() | undefined.
registry() -> whereis(erlmcp_native_registry).

%% @private
-spec supervisor() -> pid() | undefined.
supervisor() -> whereis(erlmcp_native_conn_sup).

%% @private
-spec alive() -> boolean().
alive() -> whereis(erlmcp_native_sup) =/= undefined andalso whereis(?MODULE) =/= undefined.
