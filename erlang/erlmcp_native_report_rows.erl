%% @doc The figures that a report is made of: each row's name, what it means, its unit, which way is
%% better, and the bar that the path `nif' is held to. Declared once, for all that measure, judge
%% and draw.
-module(erlmcp_native_report_rows).

-export([names/0, row/1, bar/2, group/1, groups/0]).

-export_type([name/0, group/0, about/0]).

-type group() ::
    switching | registry | buffering | reconnection | restart | memory | transport | connections.

-type name() ::
    switch_planned_failed
    | switch_planned_gap_p99
    | switch_unplanned_unresolved
    | switch_unplanned_in_use
    | switch_failure_rate
    | registry_routes_per_s
    | registry_queue_max
    | registry_route_p99
    | registry_ratio
    | buffer_lost
    | buffer_high_water
    | buffer_peak
    | reconnect_refused_p95
    | reconnect_reset_p95
    | reconnect_shutdown_p95
    | reconnect_timeout_p95
    | reconnect_success
    | restart_child
    | restart_supervisor
    | restart_restored
    | restart_cascades
    | restart_affected
    | memory_busy
    | memory_growth
    | memory_leaked_objects
    | throughput
    | latency_p95
    | connections_ok.

-type about() :: #{
    group := group(),
    label := binary(),
    unit := binary(),
    better := lower | higher,
    bar := null | number() | #{erlmcp_native_report:transport() => number()}
}.

%% @doc All rows, in the order in which a report shows them.
-spec names() -> [name()].
names() ->
    [Name || {Name, _} <- all()].

%% @doc What a row is.
-spec row(name()) -> about().
row(Name) ->
    {_, {Group, Label, Unit, Better, Bar}} = lists:keyfind(Name, 1, all()),
    #{group => Group, label => Label, unit => Unit, better => Better, bar => Bar}.

%% @doc The bar of a row; `null' where it has none.
-spec bar(name(), erlmcp_native_report:transport()) -> null | number().
bar(Name, Transport) ->
    case row(Name) of
        #{bar := Bars} when is_map(Bars) -> maps:get(Transport, Bars, null);
        #{bar := Bar} -> Bar
    end.

%% @doc What a group of rows is called.
-spec group(group()) -> binary().
group(Group) ->
    {_, Title} = lists:keyfind(Group, 1, groups()),
    Title.

%% @doc All groups with their titles, in the order in which a report shows them.
-spec groups() -> [{group(), binary()}].
groups() ->
    [
        {switching, <<"Switching">>},
        {registry, <<"Registry routing">>},
        {buffering, <<"Buffering">>},
        {reconnection, <<"Reconnection">>},
        {restart, <<"Restart">>},
        {memory, <<"Memory">>},
        {transport, <<"Throughput and latency">>},
        {connections, <<"Connections">>}
    ].

all() ->
    [
        {switch_planned_failed,
            {switching, <<"Planned switch: requests failed">>, <<"requests">>, lower, 0}},
        {switch_planned_gap_p99, {switching, <<"Planned switch: gap, p99">>, <<"ms">>, lower, 5}},
        {switch_unplanned_unresolved,
            {switching, <<"Peer killed: requests without exactly one outcome">>, <<"requests">>,
                lower, 0}},
        {switch_unplanned_in_use,
            {switching, <<"Peer killed: new endpoint in use after">>, <<"ms">>, lower, 50}},
        {switch_failure_rate,
            {switching, <<"Peer killed: requests that ended with an error">>, <<"%">>, lower,
                null}},
        {registry_routes_per_s,
            {registry, <<"Routes, 50 senders">>, <<"routes/s">>, higher, 1500000}},
        {registry_queue_max,
            {registry, <<"Queue in front of the registry's process">>, <<"messages">>, lower, 0}},
        {registry_route_p99, {registry, <<"A route, p99">>, <<"us">>, lower, 50}},
        {registry_ratio,
            {registry, <<"Routes, over the technique of erlmcp 0.5">>, <<"x">>, higher, 2}},
        {buffer_lost, {buffering, <<"Messages lost at 10x overload">>, <<"messages">>, lower, 0}},
        {buffer_high_water,
            {buffering, <<"Time at the high-water mark">>, <<"%">>, lower, null}},
        {buffer_peak,
            {buffering, <<"Peak of memory held for the consumer">>, <<"MB">>, lower, null}},
        {reconnect_refused_p95,
            {reconnection, <<"Refused: back after the server is, p95">>, <<"ms">>, lower, 100}},
        {reconnect_reset_p95,
            {reconnection, <<"Reset: back after the server is, p95">>, <<"ms">>, lower, 100}},
        {reconnect_shutdown_p95,
            {reconnection, <<"Shut down: back after the server is, p95">>, <<"ms">>, lower, 100}},
        {reconnect_timeout_p95,
            {reconnection, <<"Black hole: beyond the connect timeout, p95">>, <<"ms">>, lower,
                300}},
        {reconnect_success,
            {reconnection, <<"Reconnections that succeed">>, <<"%">>, higher, 100}},
        {restart_child, {restart, <<"Child, p95">>, <<"ms">>, lower, 1}},
        {restart_supervisor,
            {restart, <<"Supervisor of 1,000 connections">>, <<"ms">>, lower, 10}},
        {restart_restored,
            {restart, <<"The same, until all 1,000 are back">>, <<"ms">>, lower, null}},
        {restart_cascades, {restart, <<"Cascades in the kills">>, <<"kills">>, lower, 0}},
        {restart_affected,
            {restart, <<"Other processes affected by a kill">>, <<"processes">>, lower, null}},
        {memory_busy,
            {memory, <<"1,000 busy connections over the idle node">>, <<"MB">>, lower, 100}},
        {memory_growth, {memory, <<"Growth beyond noise">>, <<"KB/s">>, lower, 0}},
        {memory_leaked_objects,
            {memory, <<"Native objects left behind">>, <<"objects">>, lower, 0}},
        {throughput,
            {transport, <<"Decoded calls of 1 KB">>, <<"MB/s">>, higher,
                #{stdio => 100, tcp => 100, http => 30}}},
        {latency_p95,
            {transport, <<"Latency at half of saturation, p95">>, <<"ms">>, lower,
                #{stdio => 1, tcp => 1, http => 1}}},
        {connections_ok,
            {connections, <<"10,000 connections that work">>, <<"%">>, higher, 100}}
    ].
