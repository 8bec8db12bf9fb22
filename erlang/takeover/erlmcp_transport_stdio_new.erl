%% @doc Takes the place of erlmcp's module of this name, see {@link erlmcp_native_takeover}. With a
%% `command' among the options of {@link erlmcp_native_transport_options} it is a client of a child
%% process, which is started again with backoff:
%%
%% ```
%% erlmcp_transport_sup:start_child(tools, stdio, #{command => "npx", args => ["-y", ...],
%%                                                  server_id => my_server}).
%% '''
%%
%% Without, it is the node's own standard input and output.
-module(erlmcp_transport_stdio_new).

-export([start_link/2, send/2, close/1, get_info/1, handle_transport_call/2, trim_line/1]).

-spec start_link(erlmcp_native_registry:transport_id(), map()) -> {ok, pid()} | {error, term()}.
start_link(Id, #{command := _} = Config) ->
    erlmcp_native_transport_routed:start_link(Id, Config);
start_link(Id, #{endpoint := _} = Config) ->
    erlmcp_native_transport_routed:start_link(Id, Config);
start_link(Id, Config) ->
    erlmcp_native_transport_routed:start_link(Id, Config#{endpoint => stdio, reconnect => false}).

-spec send(pid(), iodata()) -> ok | {error, term()}.
send(Transport, Data) ->
    erlmcp_native_transport:send(Transport, Data).

-spec close(pid()) -> ok.
close(Transport) ->
    erlmcp_native_transport:close(Transport).

-spec get_info(pid()) -> map() | {error, not_connected}.
get_info(Transport) ->
    erlmcp_native_transport:call(Transport, get_info).

%% @doc The requests that the fork knows and that make sense here.
-spec handle_transport_call(term(), pid()) -> {reply, term(), pid()} | {error, unknown_request}.
handle_transport_call(Request, Transport) ->
    case erlmcp_native_transport:call(Transport, {transport_call, Request}) of
        {error, unknown_request} = Error -> Error;
        Reply -> {reply, Reply, Transport}
    end.

%% @doc A line without its end.
-spec trim_line(binary()) -> binary().
trim_line(Line) ->
    string:trim(Line, trailing, "\r\n").
