%% @private The metrics of the native core, which are declared there. The library and the port
%% program count apart: each is a series of its own.
-module(erlmcp_native_metrics_core).

-export([families/0, set_recording/1]).

%% @doc What library and program have counted; nothing where they do not run.
-spec families() -> [erlmcp_native_metrics:family()].
families() ->
    Read = [{nif, library()}, {port, erlmcp_native_port:metrics()}],
    maps:values(lists:foldl(fun add/2, #{}, Read)).

%% @doc Switches the recording of histograms on or off; in the port program it is always on.
-spec set_recording(boolean()) -> ok.
set_recording(On) ->
    case erlmcp_native_nif:is_loaded() of
        true -> erlmcp_native_nif:metrics_recording(On);
        false -> ok
    end.

library() ->
    case erlmcp_native_nif:is_loaded() of
        true -> erlmcp_native_nif:metrics_read();
        false -> []
    end.

add({Path, Metrics}, Families) ->
    lists:foldl(fun(Metric, Acc) -> add(Path, Metric, Acc) end, Families, Metrics).

add(Path, {Name, Kind, Group, Unit, Help, Value}, Families) ->
    Family = maps:get(Name, Families, #{
        name => Name,
        kind => Kind,
        group => Group,
        unit => Unit,
        help => Help,
        labels => labels(Value),
        series => []
    }),
    #{series := Series} = Family,
    Families#{Name => Family#{series := Series ++ series(Path, Value)}}.

labels([_ | _]) -> [path, transport];
labels(_) -> [path].

series(Path, [_ | _] = Each) ->
    [{[Path, Transport], Value} || {Transport, Value} <- Each];
series(Path, {Sum, Max, Buckets}) ->
    [{[Path], erlmcp_native_histogram:counted(Sum, Max, Buckets)}];
series(Path, Value) ->
    [{[Path], Value}].
