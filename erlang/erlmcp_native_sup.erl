%% @private
-module(erlmcp_native_sup).

-behaviour(supervisor).

-export([start_link/0, init/1]).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

-spec init([]) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    ok = erlmcp_native_history:make_table(),
    Children = [
        #{id => log, start => {erlmcp_native_log, start_link, []}},
        #{id => port, start => {erlmcp_native_port_router, start_link, []}},
        #{id => groups, start => {erlmcp_native_beam_groups, start_link, []}},
        %% Before the connections: it ends after them, and sees their last bytes out.
        #{id => stdio, start => {erlmcp_native_stdio, start_link, []}, shutdown => 700000},
        #{id => breakers, start => {erlmcp_native_breakers, start_link, []}},
        supervisor(erlmcp_native_conn_sup),
        supervisor(erlmcp_native_listener_sup),
        supervisor(erlmcp_native_http_client_sup),
        supervisor(erlmcp_native_failover_sup),
        #{id => registry_scope, start => {erlmcp_native_registry_scope, start_link, []}},
        #{id => registry, start => {erlmcp_native_registry, start_link, []}},
        supervisor(erlmcp_native_http_sup),
        supervisor(erlmcp_native_analysis_sup),
        #{id => takeover, start => {erlmcp_native_takeover, start_link, []}},
        %% It waits for a registry whose queue is long.
        #{
            id => takeover_registry,
            start => {erlmcp_native_takeover_registry, start_link, []},
            shutdown => 40000
        }
        | erlmcp_native_history:child_specs()
    ],
    %% None of them needs another: with OTP's one restart in 5 s, two that fail for reasons of their
    %% own would end all connections.
    {ok, {#{strategy => one_for_one, intensity => 10, period => 10}, Children}}.

supervisor(Module) ->
    #{id => Module, start => {Module, start_link, []}, type => supervisor}.
