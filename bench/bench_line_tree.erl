%% @doc The supervision of erlmcp 0.5, as the baseline: the registry and the supervisor of all
%% transports under one that restarts all of them together, three times in a minute at most; the
%% transports are temporary. Written for these benches.
-module(bench_line_tree).

-behaviour(supervisor).
-behaviour(erlmcp_native_bottleneck_tree).

-export([start/1, child/2, connection/2, restarts_children/0, registry/0, supervisor/0, alive/0]).
-export([start_link/1, init/1, start_transport/2]).

-define(TRANSPORTS, bench_line_transports).

-spec start(erlmcp_native_report:path()) -> ok.
start(_) ->
    case alive() of
        true ->
            ok;
        false ->
            {ok, Pid} = start_link(?MODULE),
            true = unlink(Pid),
            ok
    end.

%% @private
-spec start_link(atom()) -> supervisor:startlink_ret().
start_link(Name) ->
    supervisor:start_link({local, Name}, ?MODULE, Name).

%% @private
-spec init(atom()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init(?MODULE) ->
    {ok, {#{strategy => one_for_all, intensity => 3, period => 60}, [
        #{id => registry, start => {bench_line_registry, start_link, []}},
        #{id => transports, start => {?MODULE, start_link, [?TRANSPORTS]}, type => supervisor}
    ]}};
init(?TRANSPORTS) ->
    {ok, {#{strategy => one_for_one, intensity => 5, period => 60}, []}}.

-spec child(inet:port_number(), erlmcp_native_report:path()) -> {ok, pid()}.
child(Port, _) ->
    {ok, Pid} = connection(Port, erlmcp05),
    self() ! {started, Pid, erlang:monotonic_time()},
    {ok, Pid}.

-spec connection(inet:port_number(), erlmcp_native_report:path()) -> {ok, pid()}.
connection(Port, _) ->
    {ok, Pid} = supervisor:start_child(?TRANSPORTS, #{
        id => make_ref(),
        start => {?MODULE, start_transport, [Port, self()]},
        restart => temporary,
        shutdown => 5000
    }),
    self() ! {transport_connected, Pid},
    {ok, Pid}.

%% @private
-spec start_transport(inet:port_number(), pid()) -> {ok, pid()}.
start_transport(Port, Owner) ->
    bench_line_transport:start_link(Port, Owner).

-spec restarts_children() -> boolean().
restarts_children() -> false.

-spec registry() -> pid() | undefined.
registry() -> whereis(bench_line_registry).

-spec supervisor() -> pid() | undefined.
supervisor() -> whereis(?TRANSPORTS).

-spec alive() -> boolean().
alive() -> whereis(?MODULE) =/= undefined.
