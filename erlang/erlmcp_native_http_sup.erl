%% @private What MCP servers over HTTP need: the tables, the sessions, the listeners. Sessions and
%% listeners are temporary.
-module(erlmcp_native_http_sup).

-behaviour(supervisor).

-export([start_link/0, start_link/2, start_session/1, start_listener/1]).
-export([init/1]).

-define(SESSIONS, erlmcp_native_http_session_sup).
-define(LISTENERS, erlmcp_native_http_listener_sup).

-spec start_link() -> supervisor:startlink_ret().
start_link() ->
    supervisor:start_link({local, ?MODULE}, ?MODULE, []).

%% @private
-spec start_link(atom(), module()) -> supervisor:startlink_ret().
start_link(Name, Module) ->
    supervisor:start_link({local, Name}, ?MODULE, Module).

-spec start_session(erlmcp_native_http_session:start()) -> {ok, pid()} | {error, term()}.
start_session(Start) ->
    supervisor:start_child(?SESSIONS, [Start]).

-spec start_listener(erlmcp_native_http_listener:start()) ->
    {ok, pid()} | {error, erlmcp_native:reason()}.
start_listener(Start) ->
    supervisor:start_child(?LISTENERS, [Start]).

%% @private
-spec init([] | module()) -> {ok, {supervisor:sup_flags(), [supervisor:child_spec()]}}.
init([]) ->
    Children = [
        #{id => tables, start => {erlmcp_native_http_tables, start_link, []}},
        supervisor(?SESSIONS, erlmcp_native_http_session),
        supervisor(?LISTENERS, erlmcp_native_http_listener)
    ],
    %% Without the tables nobody finds the sessions.
    {ok, {#{strategy => rest_for_one}, Children}};
init(Module) ->
    Child = #{id => Module, start => {Module, start_link, []}, restart => temporary},
    {ok, {#{strategy => simple_one_for_one}, [Child]}}.

supervisor(Name, Module) ->
    #{id => Name, start => {?MODULE, start_link, [Name, Module]}, type => supervisor}.
