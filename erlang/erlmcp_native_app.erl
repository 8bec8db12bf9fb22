%% @private
-module(erlmcp_native_app).

-behaviour(application).

-export([start/2, stop/1]).

-spec start(application:start_type(), term()) -> {ok, pid()} | {error, term()}.
start(_, _) ->
    case erlmcp_native_path:configure() of
        ok ->
            ok = erlmcp_native_metrics:start(),
            ok = erlmcp_native_telemetry:start(),
            erlmcp_native_sup:start_link();
        {error, _} = Error -> Error
    end.

-spec stop(term()) -> ok.
stop(_) ->
    ok.
