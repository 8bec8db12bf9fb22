%% @doc What the connections and requests of a client have in common, from its origin and options.
-module(erlmcp_native_beam_http_client_settings).

-export([make/2]).

-export_type([settings/0]).

-type settings() :: #{
    endpoint := erlmcp_native:endpoint(),
    dialling := erlmcp_native_options:connection(),
    manner := erlmcp_native_beam_opening:manner(),
    route := erlmcp_native_beam_http_client_wire:route(),
    max_connections := pos_integer(),
    max_queue := non_neg_integer(),
    max_head_bytes := pos_integer(),
    high_water_bytes := pos_integer(),
    idle_timeout_ms := pos_integer()
}.
%% `endpoint': where connections lead to, unless they go on from there (`manner').

%% Those that a connection of any protocol knows.
-define(OF_CONNECTIONS, [
    high_water_bytes,
    connect_timeout_ms,
    attempt_delay_ms,
    handshake_timeout_ms,
    bind,
    nodelay,
    keepalive
]).

-define(OF_CLIENTS, [
    max_connections, max_queue, max_head_bytes, high_water_bytes, idle_timeout_ms
]).

%% @doc Checks what can be checked before anything is dialled: names and files.
-spec make(erlmcp_native_http_client_path:origin(), erlmcp_native_http_options:client()) ->
    {ok, settings()} | {error, erlmcp_native:reason()}.
make(#{host := Host, port := Port} = Origin, #{protocols := Protocols, proxy := Proxy} = Options) ->
    maybe_all([
        fun() -> protocols(lists:member(http1, Protocols)) end,
        fun() -> erlmcp_native_options:endpoint(#{host => Host, port => Port}) end,
        fun() -> proxy(Proxy) end,
        fun() -> erlmcp_native_beam_http_client_wire:route(Origin, Proxy) end,
        fun() -> dialling(Origin, Options) end
    ], fun([_, Endpoint, ProxyEndpoint, Route, #{tls := Tls} = Dialling]) ->
        case files(Tls, Endpoint) of
            {ok, _} ->
                Ways = ways(Origin, Endpoint, ProxyEndpoint, Options),
                Common = #{dialling => Dialling, route => Route},
                {ok, maps:merge(maps:merge(Ways, Common), maps:with(?OF_CLIENTS, Options))};
            {error, _} = Error ->
                Error
        end
    end).

maybe_all(Checks, Then) ->
    maybe_all(Checks, Then, []).

maybe_all([], Then, Acc) ->
    Then(lists:reverse(Acc));
maybe_all([Check | Checks], Then, Acc) ->
    case Check() of
        {ok, Value} -> maybe_all(Checks, Then, [Value | Acc]);
        {error, _} = Error -> Error
    end.

protocols(true) -> {ok, http1};
protocols(false) -> {error, {path_unavailable, beam, http2}}.

proxy(none) -> {ok, none};
proxy(#{host := _, port := _} = Proxy) ->
    erlmcp_native_options:endpoint(maps:with([host, port], Proxy)).

%% `tls' is of no meaning to a plain origin, and not to be left out for the other kind.
dialling(#{scheme := Scheme}, #{tls := Tls} = Options) ->
    {ok, Defaults} = erlmcp_native_options:connection(#{tls => Scheme =:= https}),
    Known = maps:merge(Defaults, maps:with(?OF_CONNECTIONS, Options)),
    case Scheme =:= https andalso is_map(Tls) of
        true -> {ok, Known#{tls := Tls}};
        false -> {ok, Known}
    end.

files(false, _) -> {ok, none};
files(Tls, Endpoint) -> erlmcp_native_beam_tls:client(Tls, Endpoint).

ways(#{scheme := http}, Endpoint, none, _) ->
    #{endpoint => Endpoint, manner => #{alpn => [], through => none}};
ways(#{scheme := http}, _, Proxy, _) ->
    #{endpoint => Proxy, manner => #{alpn => [], through => none}};
ways(#{scheme := https}, Endpoint, none, _) ->
    #{endpoint => Endpoint, manner => #{alpn => [<<"http/1.1">>], through => none}};
ways(#{scheme := https} = Origin, Endpoint, Proxy, Options) ->
    Manner = #{alpn => [<<"http/1.1">>], through => {Proxy, tunnel(Origin, Options)}},
    #{endpoint => Endpoint, manner => Manner}.

tunnel(Origin, #{proxy := Proxy, max_head_bytes := MaxHead, connect_timeout_ms := Timeout}) ->
    Request = erlmcp_native_beam_http_client_wire:connect(Origin, Proxy),
    fun(Port) -> erlmcp_native_beam_http_client_tunnel:open(Port, Request, MaxHead, Timeout) end.
