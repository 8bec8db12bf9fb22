%% @doc Takes the place of erlmcp's module of this name, see {@link erlmcp_native_takeover}.
%%
%% erlmcp's client drops the options of `{stdio, Options}' and passes itself as the transport. Its
%% first message starts what the application setting `stdio_client' says, options of
%% {@link erlmcp_native_transport_options}:
%%
%% ```
%% {erlmcp_native, [{takeover, true}, {stdio_client, #{command => "npx", args => ["-y", ...]}}]}
%% '''
%%
%% Without that setting it speaks through the node's own standard input and output.
-module(erlmcp_transport_stdio).

-export([start_link/1, send/2, close/1]).

%% @doc The node's own standard input and output, for an owner that is sent messages.
-spec start_link(pid()) -> {ok, pid()} | {error, term()}.
start_link(Owner) when is_pid(Owner) ->
    erlmcp_native_transport_owner:start_link(own(#{owner => Owner})).

-spec send(pid() | term(), iodata()) -> ok | {error, term()}.
send(Client, Data) when Client =:= self() ->
    erlmcp_native_on_demand:send(options(), Data);
send(Transport, Data) when is_pid(Transport) ->
    erlmcp_native_transport:send(Transport, Data);
send(_, _) ->
    {error, not_connected}.

-spec close(pid() | term()) -> ok.
close(Client) when Client =:= self() ->
    erlmcp_native_on_demand:close(options());
close(Transport) when is_pid(Transport) ->
    erlmcp_native_transport:close(Transport);
close(_) ->
    ok.

%% A child that is started again knows nothing of the session: that is for the client to begin.
options() ->
    case application:get_env(erlmcp_native, stdio_client) of
        {ok, #{} = Given} -> maps:merge(#{reconnect => false}, Given);
        _ -> own(#{})
    end.

own(Options) -> Options#{endpoint => stdio, reconnect => false}.
