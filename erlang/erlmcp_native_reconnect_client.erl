%% @doc The client whose return is measured: a connection of this application. What it is compared
%% with brings a module of the same callbacks.
-module(erlmcp_native_reconnect_client).

-export([connect/3, child/1, send/2, event/1, os_pid/1, close/1]).

-export_type([event/0]).

-type event() :: connected | answer | {down, term()} | other.

-callback connect(Endpoint :: map(), erlmcp_native_report:path(), TimeoutMs :: pos_integer()) ->
    {ok, pid()}.
%% Starts to connect, for the caller, and does so again whenever the connection is lost.

-callback send(pid(), iodata()) -> term().

-callback event(Message :: term()) -> event().
%% What a message to the owner means.

-callback close(pid()) -> term().

%% @private
-spec connect(map(), erlmcp_native_report:path(), pos_integer()) -> {ok, pid()}.
connect(Endpoint, Path, ConnectTimeoutMs) ->
    start(Endpoint, Path, #{connect_timeout_ms => ConnectTimeoutMs}).

%% @doc A child process that sends back what it is sent.
-spec child(erlmcp_native_report:path()) -> {ok, pid()}.
child(Path) ->
    start(#{command => "cat"}, Path, #{}).

start(Endpoint, Path, Options) ->
    erlmcp_native:connect(Endpoint, Options#{active => true, reconnect => true, path => Path}).

%% @private
-spec send(pid(), iodata()) -> ok | {error, erlmcp_native:reason()}.
send(Conn, Data) -> erlmcp_native:send(Conn, Data).

%% @private
-spec event(term()) -> event().
event({erlmcp_native, _, connected}) -> connected;
event({erlmcp_native, _, {frames, _}}) -> answer;
event({erlmcp_native, _, {down, Reason, _}}) -> {down, Reason};
event(_) -> other.

%% @doc The number of the child's OS process.
-spec os_pid(pid()) -> pos_integer() | undefined.
os_pid(Conn) ->
    {ok, #{socket := #{os_pid := OsPid}}} = erlmcp_native:info(Conn),
    OsPid.

%% @private
-spec close(pid()) -> ok.
close(Conn) -> erlmcp_native:close(Conn).
