%% @private What has been routed on this node, by whichever registry: counted on the scheduler of
%% the caller, added up by who reads. All counters are in one array, which is found by an atom: each
%% route has one to add to.
-module(erlmcp_native_registry_counters).

-behaviour(erlmcp_native_metrics).

-export([new/0, add/1, add/2, read/0, read/1, metrics/0, registered/1]).

-export_type([counter/0]).

-type counter() :: routed_to_servers | routed_to_transports | broadcast_deliveries | not_routed.

-define(COUNTERS, [routed_to_servers, routed_to_transports, broadcast_deliveries, not_routed]).

%% @doc They begin at 0 with the node, not with each registry.
-spec new() -> ok.
new() ->
    case persistent_term:get(?MODULE, none) of
        none ->
            Counters = counters:new(length(?COUNTERS), [write_concurrency]),
            persistent_term:put(?MODULE, Counters);
        _ ->
            ok
    end.

-spec add(counter()) -> ok.
add(Counter) -> add(Counter, 1).

-spec add(counter(), non_neg_integer()) -> ok.
add(Counter, N) ->
    case persistent_term:get(?MODULE, none) of
        none -> ok;
        Counters -> counters:add(Counters, index(Counter), N)
    end.

-spec read() -> #{counter() => non_neg_integer()}.
read() -> maps:from_list([{Counter, read(Counter)} || Counter <- ?COUNTERS]).

-spec read(counter()) -> non_neg_integer().
read(Counter) ->
    case persistent_term:get(?MODULE, none) of
        none -> 0;
        Counters -> counters:get(Counters, index(Counter))
    end.

index(routed_to_servers) -> 1;
index(routed_to_transports) -> 2;
index(broadcast_deliveries) -> 3;
index(not_routed) -> 4.

%% @private
-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        counter(registry_routed_to_servers, routed_to_servers, <<"Messages routed to a server">>),
        counter(
            registry_routed_to_transports,
            routed_to_transports,
            <<"Messages routed to one transport">>
        ),
        counter(
            registry_broadcast_deliveries,
            broadcast_deliveries,
            <<"Messages given to the transports of a broadcast">>
        ),
        counter(
            registry_not_routed,
            not_routed,
            <<"Messages to a server or transport that was not there">>
        ),
        gauge(registry_servers, server, <<"Servers that are registered">>),
        gauge(registry_transports, transport, <<"Transports that are registered">>)
    ].

counter(Name, Counter, Help) ->
    #{
        name => Name,
        kind => counter,
        group => registry,
        help => Help,
        read => {?MODULE, read, [Counter]}
    }.

gauge(Name, Kind, Help) ->
    #{
        name => Name,
        kind => gauge,
        group => registry,
        help => Help,
        read => {?MODULE, registered, [Kind]}
    }.

%% @private
-spec registered(erlmcp_native_registry_table:kind()) -> non_neg_integer().
registered(Kind) ->
    Registries = [erlmcp_native_registry, erlmcp_registry],
    lists:sum([erlmcp_native_registry_table:size(Registry, Kind) || Registry <- Registries]).
