%% @doc What this node and the operating system say about resources: what is sampled while an
%% analysis runs. What cannot be had, outside of Linux mostly, is `null'.
-module(erlmcp_native_analysis_system).

-export([sample/0, descriptor_limit/0, rss_bytes/0, cpu_us/0, native_objects/0]).

-export_type([sample/0]).

-type sample() :: #{
    memory_bytes := non_neg_integer(),
    process_bytes := non_neg_integer(),
    binary_bytes := non_neg_integer(),
    ets_bytes := non_neg_integer(),
    rss_bytes := non_neg_integer() | null,
    cpu_us := non_neg_integer() | null,
    descriptors := non_neg_integer() | null,
    processes := non_neg_integer(),
    ports := non_neg_integer(),
    run_queue := non_neg_integer(),
    gc_count := non_neg_integer(),
    native_objects := non_neg_integer()
}.
%% `memory_bytes' is what the VM has allocated for itself, `rss_bytes' what the process takes of the
%% machine, native code included. `cpu_us' is the CPU time since the start, of all threads.

%% `utime' and `stime' of /proc count in USER_HZ, which is 100 on every Linux architecture that the
%% VM runs on.
-define(US_PER_TICK, 10000).

-spec sample() -> sample().
sample() ->
    {GcCount, _, _} = erlang:statistics(garbage_collection),
    Memory = maps:from_list(erlang:memory()),
    #{
        memory_bytes => maps:get(total, Memory),
        process_bytes => maps:get(processes, Memory),
        binary_bytes => maps:get(binary, Memory),
        ets_bytes => maps:get(ets, Memory),
        rss_bytes => rss_bytes(),
        cpu_us => cpu_us(),
        descriptors => descriptors(),
        processes => erlang:system_info(process_count),
        ports => erlang:system_info(port_count),
        run_queue => erlang:statistics(total_run_queue_lengths),
        gc_count => GcCount,
        native_objects => native_objects()
    }.

%% @doc Objects of the native code that are alive: connections, listeners, exchanges and so on.
-spec native_objects() -> non_neg_integer().
native_objects() ->
    lists:sum([
        Value
     || {Name, #{kind := gauge, value := Value}} <- maps:to_list(erlmcp_native:overview()),
        is_object(atom_to_list(Name))
    ]).

%% Tasks and blocks of memory are there for all of them.
is_object("native_tasks") -> false;
is_object("native_blocks") -> false;
is_object(Name) -> lists:prefix("native_", Name).

%% @doc Resident memory of this VM.
-spec rss_bytes() -> non_neg_integer() | null.
rss_bytes() ->
    case read("/proc/self/statm") of
        {ok, Text} ->
            [_, Pages | _] = binary:split(Text, <<" ">>, [global]),
            binary_to_integer(Pages) * page_bytes();
        error ->
            null
    end.

%% Asked for once: the size of a page costs a process to find out.
page_bytes() ->
    case persistent_term:get(?MODULE, none) of
        none ->
            Command = "getconf PAGESIZE 2>/dev/null || echo 4096",
            Bytes = list_to_integer(string:trim(os:cmd(Command))),
            persistent_term:put(?MODULE, Bytes),
            Bytes;
        Bytes ->
            Bytes
    end.

%% @doc CPU time of all threads of this VM, user and system.
-spec cpu_us() -> non_neg_integer() | null.
cpu_us() ->
    case read("/proc/self/stat") of
        {ok, Stat} ->
            %% The second field, the name in parentheses, may hold spaces.
            Fields = lists:last(binary:split(Stat, <<") ">>, [global])),
            [User, System] = lists:sublist(binary:split(Fields, <<" ">>, [global]), 12, 2),
            (binary_to_integer(User) + binary_to_integer(System)) * ?US_PER_TICK;
        error ->
            null
    end.

descriptors() ->
    case file:list_dir("/proc/self/fd") of
        {ok, Names} -> length(Names);
        {error, _} -> null
    end.

%% @doc How many descriptors this VM may have open. Nothing is done to raise it.
-spec descriptor_limit() -> pos_integer() | infinity | null.
descriptor_limit() ->
    case read("/proc/self/limits") of
        {ok, Text} ->
            case re:run(Text, "Max open files +([^ ]+)", [{capture, [1], list}]) of
                {match, ["unlimited"]} -> infinity;
                {match, [Limit]} -> list_to_integer(Limit);
                nomatch -> null
            end;
        error ->
            shell_limit(string:trim(os:cmd("ulimit -n 2>/dev/null")))
    end.

shell_limit("unlimited") ->
    infinity;
shell_limit(Text) ->
    case string:to_integer(Text) of
        {Limit, []} when is_integer(Limit) -> Limit;
        _ -> null
    end.

%% A file of /proc has no size.
read(File) ->
    case file:open(File, [read, raw, binary]) of
        {ok, Fd} ->
            Result = file:read(Fd, 65536),
            ok = file:close(Fd),
            case Result of
                {ok, Text} -> {ok, Text};
                _ -> error
            end;
        {error, _} ->
            error
    end.
