%% @doc Takes the place of erlmcp's module of this name, see {@link erlmcp_native_takeover}. Speaks
%% both of its shapes: that of 0.5 (`start_link/1', owner messages) and that of the fork
%% (`start_link/2', registry).
%%
%% erlmcp's client calls `init/1' with its options and keeps what it returns: here the transport,
%% which belongs to the client and ends with it.
-module(erlmcp_transport_http).

-export([start_link/1, start_link/2, start_link/3, init/1, stop/1]).
-export([send/2, close/1, get_info/1, handle_transport_call/2]).

-spec start_link(map()) -> {ok, pid()} | {error, term()}.
start_link(Options) ->
    erlmcp_native_http_transport:start_link(Options).

-spec start_link(atom() | binary(), map()) -> {ok, pid()} | {error, term()}.
start_link(TransportId, Config) ->
    erlmcp_transport_http_new:start_link(TransportId, Config).

-spec start_link(atom() | binary(), atom(), map()) -> {ok, pid()} | {error, term()}.
start_link(TransportId, Name, Config) ->
    case whereis(Name) of
        undefined -> named(Name, start_link(TransportId, Config));
        Pid -> {error, {already_started, Pid}}
    end.

-spec init(map() | [map()]) -> {ok, pid()} | {error, term()}.
init([Options]) ->
    init(Options);
init(Options) when is_map(Options) ->
    case erlmcp_native_takeover:open_http(Options#{owner => self()}) of
        {ok, Transport} ->
            true = link(Transport),
            {ok, Transport};
        {error, _} = Error ->
            Error
    end.

-spec stop(pid()) -> ok.
stop(Transport) ->
    close(Transport).

-spec send(pid() | map(), iodata()) -> ok | {error, term()}.
send(Transport, Data) when is_pid(Transport) ->
    erlmcp_native_transport:send(Transport, Data);
send(#{transport := Transport}, Data) when is_pid(Transport) ->
    erlmcp_native_transport:send(Transport, Data).

-spec close(pid() | map()) -> ok.
close(Transport) when is_pid(Transport) ->
    erlmcp_native_transport:close(Transport);
close(#{transport := Transport}) when is_pid(Transport) ->
    erlmcp_native_transport:close(Transport).

-spec get_info(pid() | map()) -> map() | {error, not_connected}.
get_info(Transport) when is_pid(Transport) ->
    erlmcp_native_transport:call(Transport, get_info);
get_info(#{transport := Transport}) when is_pid(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).

%% @doc The requests that the fork knows and that make sense here.
-spec handle_transport_call(term(), pid()) -> {reply, term(), pid()} | {error, unknown_request}.
handle_transport_call(Request, Transport) ->
    case erlmcp_native_transport:call(Transport, {transport_call, Request}) of
        {error, unknown_request} = Error -> Error;
        Reply -> {reply, Reply, Transport}
    end.

named(Name, {ok, Pid} = Started) ->
    true = register(Name, Pid),
    Started;
named(_, Error) ->
    Error.
