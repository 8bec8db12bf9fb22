%% @private The metrics of the native core, which are declared there. The library and the port
%% program count apart: each is a series of its own.
-module(erlmcp_native_metrics_core).

-export([families/0]).

%% @doc What library and program have counted; nothing where they do not run.
-spec families() -> [erlmcp_native_metrics:family()].
families() ->
    Read = [{nif, library()}, {port, erlmcp_native_port:metrics()}],
    maps:values(lists:foldl(fun add/2, #{}, Read)).

library() ->
    case erlmcp_native_nif:is_loaded() of
        true -> erlmcp_native_nif:metrics_read();
        false -> []
    end.

add({Path, Metrics}, Families) ->
    lists:foldl(fun(Metric, Acc) -> add(Path, Metric, Acc) end, Families, Metrics).

add(Path, {Name, Kind, Help, Value}, Families) ->
    Family = maps:get(Name, Families, #{
        name => Name,
        kind => Kind,
        group => transport,
        unit => none,
        help => Help,
        labels => [path],
        series => []
    }),
    #{series := Series} = Family,
    Families#{Name => Family#{series := Series ++ [{[Path], Value}]}}.
