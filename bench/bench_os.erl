%% @doc What the operating system says about this VM and this machine (Linux).
-module(bench_os).

-export([cpu_us/0, cpu_us/1, rss_bytes/0, settled_rss_bytes/0, settled_rss_bytes/1]).
-export([descendants/1, name/1, descriptors/1, machine/0]).

%% `utime' and `stime' of /proc count in USER_HZ, which is 100 on every Linux architecture
%% that the VM runs on.
-define(US_PER_TICK, 10000).

%% @doc CPU time of all threads of the process, user and system. `statistics(runtime)' would be
%% finer, but leaves the system time out.
-spec cpu_us() -> non_neg_integer().
cpu_us() ->
    cpu_us("self").

%% @doc That of another process.
-spec cpu_us(OsPid :: string()) -> non_neg_integer().
cpu_us(OsPid) ->
    {ok, Stat} = file:read_file("/proc/" ++ OsPid ++ "/stat"),
    %% The second field, the name in parentheses, may hold spaces.
    [_, Fields] = binary:split(Stat, <<") ">>),
    [User, System] = lists:sublist(binary:split(Fields, <<" ">>, [global]), 12, 2),
    (binary_to_integer(User) + binary_to_integer(System)) * ?US_PER_TICK.

%% @doc The processes that a process has started, and that these have started.
-spec descendants(OsPid :: string()) -> [OsPid :: string()].
descendants(OsPid) ->
    Pids = [
        Child
     || "/proc/" ++ Task <- filelib:wildcard("/proc/" ++ OsPid ++ "/task/*"),
        {ok, Children} <- [file:read_file("/proc/" ++ Task ++ "/children")],
        Child <- string:lexemes(binary_to_list(Children), " \n")
    ],
    lists:append([[Pid | descendants(Pid)] || Pid <- Pids]).

%% @doc The name of a process, cut at 15 characters; empty if it has ended.
-spec name(OsPid :: string()) -> string().
name(OsPid) ->
    case file:read_file("/proc/" ++ OsPid ++ "/comm") of
        {ok, Name} -> string:trim(binary_to_list(Name));
        {error, _} -> ""
    end.

%% @doc The descriptors that a process has open.
-spec descriptors(OsPid :: string()) -> [string()].
descriptors(OsPid) ->
    case file:list_dir("/proc/" ++ OsPid ++ "/fd") of
        {ok, Names} -> Names;
        {error, _} -> []
    end.

%% @doc Resident memory, exact: /proc/self/statm lags behind by some pages per thread.
-spec rss_bytes() -> non_neg_integer().
rss_bytes() ->
    rss_of("self").

rss_of(OsPid) ->
    {ok, Rollup} = file:read_file("/proc/" ++ OsPid ++ "/smaps_rollup"),
    {match, [KiB]} = re:run(Rollup, "Rss: +([0-9]+) kB", [{capture, all_but_first, binary}]),
    binary_to_integer(KiB) * 1024.

%% @doc Resident memory once it has stopped changing (less than 64 KiB in 200 ms), or after 5 s.
-spec settled_rss_bytes() -> non_neg_integer().
settled_rss_bytes() ->
    settled_rss_bytes("self").

%% @doc That of another process.
-spec settled_rss_bytes(OsPid :: string()) -> non_neg_integer().
settled_rss_bytes(OsPid) ->
    settle(OsPid, rss_of(OsPid), 25).

settle(_, Rss, 0) ->
    Rss;
settle(OsPid, Rss, Tries) ->
    receive
    after 200 -> ok
    end,
    case rss_of(OsPid) of
        Next when abs(Next - Rss) < 65536 -> Next;
        Next -> settle(OsPid, Next, Tries - 1)
    end.

%% @doc The machine in words.
-spec machine() -> #{atom() => binary() | integer()}.
machine() ->
    #{
        cpu => field("/proc/cpuinfo", "model name\\s*: (.*)"),
        cores => erlang:system_info(schedulers_online),
        memory_mib => binary_to_integer(field("/proc/meminfo", "MemTotal: +([0-9]+)")) div 1024,
        kernel => field("/proc/sys/kernel/osrelease", "(.*)")
    }.

field(File, Pattern) ->
    {ok, Text} = file:read_file(File),
    case re:run(Text, Pattern, [{capture, all_but_first, binary}]) of
        {match, [Value]} -> Value;
        nomatch -> <<"unknown">>
    end.
