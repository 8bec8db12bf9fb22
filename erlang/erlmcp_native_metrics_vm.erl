%% @private What the virtual machine knows of itself, as metrics. All of it is cheap: nothing here
%% looks at each process.
-module(erlmcp_native_metrics_vm).

-behaviour(erlmcp_native_metrics).

-export([metrics/0]).
-export([memory/0, queues/0, info/1, statistic/1, scheduler/1]).

-spec metrics() -> [erlmcp_native_metric:declaration()].
metrics() ->
    [
        (metric(vm_memory_bytes, gauge, memory, [], <<"Memory of the VM, by what it is for">>))#{
            unit => bytes, labels => [{kind, any}]
        },
        (metric(vm_run_queue, gauge, queues, [], <<"Processes and ports that wait to run">>))#{
            labels => [{schedulers, [normal, dirty]}]
        },
        metric(vm_processes, gauge, info, [process_count], <<"Processes">>),
        metric(vm_ports, gauge, info, [port_count], <<"Ports">>),
        metric(vm_atoms, gauge, info, [atom_count], <<"Atoms">>),
        metric(vm_ets_tables, gauge, info, [ets_count], <<"ETS tables">>),
        metric(vm_schedulers, gauge, info, [schedulers_online], <<"Schedulers online">>),
        metric(vm_context_switches, counter, statistic, [switches], <<"Times a process was run">>),
        metric(vm_reductions, counter, statistic, [reductions], <<"Reductions">>),
        metric(vm_garbage_collections, counter, statistic, [collections], <<"Collections">>),
        (metric(vm_reclaimed_bytes, counter, statistic, [reclaimed], <<"Collected garbage">>))#{
            unit => bytes
        },
        (metric(vm_io_bytes, counter, statistic, [io], <<"Bytes through ports">>))#{
            unit => bytes, labels => [{direction, [in, out]}]
        },
        (metric(vm_uptime_ms, gauge, statistic, [uptime], <<"Since the VM has started">>))#{
            unit => ms
        },
        metric(
            vm_scheduler_active,
            counter,
            scheduler,
            [2],
            <<"Time that schedulers were busy, in the unit of vm_scheduler_total">>
        ),
        metric(
            vm_scheduler_total,
            counter,
            scheduler,
            [3],
            <<"Time that schedulers were there; both only with the flag scheduler_wall_time">>
        )
    ].

metric(Name, Kind, Function, Args, Help) ->
    #{
        name => Name,
        kind => Kind,
        group => runtime,
        help => Help,
        read => {?MODULE, Function, Args}
    }.

%% @doc Parts that add up to all.
-spec memory() -> [{[atom()], non_neg_integer()}].
memory() ->
    Memory = erlang:memory(),
    Kinds = [processes, atom, binary, code, ets],
    [System | Parts] = [proplists:get_value(Kind, Memory) || Kind <- [system | Kinds]],
    Other = System - lists:sum(tl(Parts)),
    [{[other], Other} | [{[Kind], Bytes} || {Kind, Bytes} <- lists:zip(Kinds, Parts)]].

-spec queues() -> [{[atom()], non_neg_integer()}].
queues() ->
    All = statistics(total_run_queue_lengths_all),
    Normal = statistics(total_run_queue_lengths),
    [{[normal], Normal}, {[dirty], max(0, All - Normal)}].

-spec info(process_count | port_count | atom_count | ets_count | schedulers_online) ->
    non_neg_integer().
info(What) -> erlang:system_info(What).

-spec statistic(switches | reductions | collections | reclaimed | io | uptime) ->
    non_neg_integer() | [{[atom()], non_neg_integer()}].
statistic(switches) ->
    element(1, statistics(context_switches));
statistic(reductions) ->
    element(1, statistics(reductions));
statistic(collections) ->
    element(1, statistics(garbage_collection));
statistic(reclaimed) ->
    element(2, statistics(garbage_collection)) * erlang:system_info(wordsize);
statistic(uptime) ->
    element(1, statistics(wall_clock));
statistic(io) ->
    {{input, In}, {output, Out}} = statistics(io),
    [{[in], In}, {[out], Out}].

%% @doc The sum over the normal schedulers, where somebody has set the system flag
%% `scheduler_wall_time'. Utilisation is the quotient of what both have increased by.
-spec scheduler(2 | 3) -> non_neg_integer() | undefined.
scheduler(Part) ->
    case statistics(scheduler_wall_time) of
        undefined -> undefined;
        Times -> lists:sum([element(Part, Time) || Time <- Times])
    end.
