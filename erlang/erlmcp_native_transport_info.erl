%% @private What a transport answers about itself, in the words of erlmcp. Pure.
-module(erlmcp_native_transport_info).

-export([answer/2, brief/2]).

-type summary() :: #{
    shape := #{transport_id := term(), atom() => term()},
    phase := erlmcp_native_transport:phase(),
    options := erlmcp_native_transport_options:options(),
    link := map(),
    guard := map() | false,
    statistics := map()
}.

%% @doc The answer to a call that changes nothing.
-spec answer(Request :: term(), fun(() -> summary())) -> term().
answer(get_info, Summary) -> info(Summary());
answer(get_state, Summary) -> {ok, state(Summary())};
answer(Request, Summary) -> brief(Request, status(Summary())).

%% @doc The same of a transport that has a `get_info' of its own. One that listens is connected.
-spec brief(Request :: term(), connecting | connected | disconnected) -> term().
brief({health_check}, connected) -> {ok, healthy};
brief({health_check}, _) -> {ok, degraded};
brief({connection_status}, Status) -> {ok, Status};
brief({server_status}, connected) -> {ok, running};
brief({server_status}, _) -> {ok, degraded};
brief(_, _) -> {error, unknown_request}.

info(#{shape := Shape, options := #{given := Given}, link := Link} = Summary) ->
    #{guard := Guard, statistics := Statistics} = Summary,
    Shape#{
        type => tcp,
        status => status(Summary),
        config => Given,
        connection => connection(Summary, Link),
        guard => Guard,
        statistics => Statistics
    }.

connection(#{phase := Phase, options := Options}, #{attempts := Attempts} = Link) ->
    Connection = #{
        connected => Phase =:= open,
        reconnect_attempts => Attempts
    },
    maps:merge(maps:merge(Connection, address(Options)), maps:with([socket], Link)).

address(#{endpoint := #{host := _, port := _} = Endpoint}) -> Endpoint;
address(#{endpoint := Endpoint}) -> #{endpoint => Endpoint};
address(#{}) -> #{}.

%% The keys that the state of 0.5 has. `transport' is what `send/2' and `close/1' go by.
state(#{shape := Shape, phase := Phase, options := Options, link := #{attempts := Attempts}}) ->
    #{dial := #{reconnect := Reconnect, connection := Connection}} = Options,
    maps:merge(address(Options), #{
        transport => self(),
        socket => undefined,
        owner => maps:get(owner, Shape, undefined),
        options => maps:to_list(Connection),
        buffer => <<>>,
        connected => Phase =:= open,
        reconnect_timer => undefined,
        reconnect_attempts => Attempts,
        max_reconnect_attempts => max_attempts(Reconnect)
    }).

max_attempts(false) -> 0;
max_attempts(#{max_attempts := Max}) -> Max.

status(#{phase := open}) -> connected;
status(#{phase := closed}) -> disconnected;
status(#{}) -> connecting.
