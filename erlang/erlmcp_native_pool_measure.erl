%% @private What is measured of pools, all of a node together: of one `erlmcp_native_pool:info/1'
%% tells.
-module(erlmcp_native_pool_measure).

-behaviour(erlmcp_native_metrics).

-export([metrics/0, accepted/0, refused/0, taken/1, ended/2, resized/2]).

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        counter(pool_requests, [], <<"Requests that pools have accepted">>),
        counter(pool_refused, [], <<"Requests that found as many waiting as may">>),
        counter(
            pool_outcomes,
            [{outcome, [answered, failed]}],
            <<"What became of requests of pools; a JSON-RPC error is an answer">>
        ),
        counter(
            pool_resizes, [{direction, [up, down]}], <<"Times that a pool has changed its size">>
        ),
        histogram(pool_wait_us, <<"From a request of a pool until a connection takes it">>),
        histogram(pool_request_us, <<"From a request of a pool to its answer">>)
    ].

counter(Name, Labels, Help) ->
    #{name => Name, kind => counter, group => pool, labels => Labels, help => Help}.

histogram(Name, Help) ->
    #{name => Name, kind => histogram, group => pool, unit => us, help => Help}.

-spec accepted() -> ok.
accepted() -> erlmcp_native_metrics:add(pool_requests, 1).

-spec refused() -> ok.
refused() -> erlmcp_native_metrics:add(pool_refused, 1).

%% @doc A connection takes a request that was accepted then.
-spec taken(AcceptedUs :: integer()) -> ok.
taken(Accepted) -> erlmcp_native_metrics:observe_since(pool_wait_us, [], Accepted).

%% @doc A request that was accepted then has its outcome.
-spec ended(answered | failed, AcceptedUs :: integer()) -> ok.
ended(answered, Accepted) ->
    ok = erlmcp_native_metrics:add(pool_outcomes, [answered], 1),
    erlmcp_native_metrics:observe_since(pool_request_us, [], Accepted);
ended(failed, _) ->
    erlmcp_native_metrics:add(pool_outcomes, [failed], 1).

-spec resized(From :: pos_integer(), To :: pos_integer()) -> ok.
resized(From, To) when To > From -> erlmcp_native_metrics:add(pool_resizes, [up], 1);
resized(_, _) -> erlmcp_native_metrics:add(pool_resizes, [down], 1).
