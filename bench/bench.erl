%% @doc Runs the benchmarks, prints a table and writes the results as JSON.
%%
%% A group measures some cases on some variants (the paths, and what they are compared with).
%% The variants take turns, A B C A B C, so that a disturbance of the machine falls on all of
%% them; every measurement runs in a fresh process; the first round warms up and is dropped.
-module(bench).

-export([main/0]).

-export_type([group/0, measured/0, variant/0, check/0]).

-type measured() :: #{
    name := atom(),
    metric := binary(),
    unit := binary(),
    better := lower | higher
}.

-type variant() :: #{
    path := atom(),
    run := fun((Context :: term()) -> [number()]),
    runs => pos_integer(),
    timeout_ms => pos_integer()
}.
%% `run' returns one value for each case of the group, in their order.

-type check() :: #{
    'case' := atom(), ok := boolean(), value := number() | binary(), unit := binary()
}.

-type group() :: #{
    cases := [measured()],
    variants := [variant()],
    ratios := [{Case :: atom(), Of :: atom(), To :: atom(), Bar :: number() | none}],
    runs := pos_integer(),
    warm_up => boolean(),
    by_name_only => boolean(),
    setup => fun(() -> Context :: term()),
    teardown => fun((Context :: term()) -> term()),
    checks => fun(([bench_report:row()]) -> [check()])
}.
-define(TIMEOUT_MS, 120000).

%% @doc Runs the cases named on the command line, or all but those that want to be asked for
%% by name; `FILE' is where the results go. Never returns.
-spec main() -> no_return().
main() ->
    [File | Names] = init:get_plain_arguments(),
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Groups = [Group || Module <- modules(), Group <- Module:groups()],
    case select([list_to_atom(Name) || Name <- Names], Groups) of
        {ok, Selected} ->
            {Results, Failures} = lists:unzip([measure(Group) || Group <- Selected]),
            bench_report:print(Results),
            bench_report:write(File, Results),
            stop(lists:append(Failures));
        {unknown, Name} ->
            io:format(standard_error, "bench: no case ~s; the cases are~n  ~s~n", [
                Name, lists:join("\n  ", [atom_to_list(Known) || Known <- names(Groups)])
            ]),
            halt(2)
    end.

modules() ->
    [
        bench_json,
        bench_recv,
        bench_ping,
        bench_idle,
        bench_slow_owner,
        bench_no_newline,
        bench_http,
        bench_http_idle,
        bench_http_overload,
        bench_http_client,
        bench_stdio,
        bench_children,
        bench_registry,
        bench_metrics,
        bench_failover,
        bench_overload,
        bench_scaling,
        bench_soak,
        bench_http_soak
    ].

select([], Groups) ->
    {ok, [Group || Group <- Groups, not maps:get(by_name_only, Group, false)]};
select(Names, Groups) ->
    case Names -- names(Groups) of
        [] -> {ok, [Group || Group <- Groups, Names -- (Names -- names([Group])) =/= []]};
        [Name | _] -> {unknown, Name}
    end.

names(Groups) ->
    lists:append([[Name || #{name := Name} <- Cases] || #{cases := Cases} <- Groups]).

stop([]) ->
    halt(0);
stop(Failures) ->
    [
        io:format(standard_error, "bench: ~s on ~s failed: ~p~n", [Case, Path, Reason])
     || {Case, Path, Reason} <- Failures
    ],
    halt(1).

measure(#{cases := [#{name := Name} | _], variants := Variants, runs := Runs} = Group) ->
    Begun = erlang:monotonic_time(second),
    Context = (maps:get(setup, Group, fun() -> none end))(),
    {Live, Unfit} = warm_up(Group, Context),
    Rounds = lists:max([maps:get(runs, Variant, Runs) || Variant <- Variants]),
    {Samples, Failed} = rounds(1, Rounds, Live, Runs, Context, #{}, []),
    (maps:get(teardown, Group, fun(_) -> ok end))(Context),
    Result = bench_report:result(Group, Samples),
    Taken = erlang:monotonic_time(second) - Begun,
    io:format("~s (~b s): ~s~n", [Name, Taken, bench_report:brief(Result)]),
    {Result, [{Name, Path, Reason} || {Path, Reason} <- Unfit ++ Failed]}.

warm_up(#{warm_up := false, variants := Variants}, _) ->
    {Variants, []};
warm_up(#{variants := Variants}, Context) ->
    lists:foldr(
        fun(#{path := Path} = Variant, {Live, Unfit}) ->
            case once(Variant, Context) of
                {ok, _} -> {[Variant | Live], Unfit};
                {error, Reason} -> {Live, [{Path, Reason} | Unfit]}
            end
        end,
        {[], []},
        Variants
    ).

rounds(Round, Last, _, _, _, Samples, Failed) when Round > Last ->
    {Samples, Failed};
rounds(Round, Last, Variants, Runs, Context, Samples, Failed) ->
    Due = [Variant || Variant <- Variants, Round =< maps:get(runs, Variant, Runs)],
    {Next, Bad} = lists:foldl(
        fun(#{path := Path} = Variant, {Acc, BadAcc}) ->
            case once(Variant, Context) of
                {ok, Values} ->
                    {maps:update_with(Path, fun(Old) -> [Values | Old] end, [Values], Acc), BadAcc};
                {error, Reason} ->
                    {Acc, [{Path, Reason} | BadAcc]}
            end
        end,
        {Samples, Failed},
        Due
    ),
    Fit = [Variant || #{path := Path} = Variant <- Variants, not lists:keymember(Path, 1, Bad)],
    rounds(Round + 1, Last, Fit, Runs, Context, Next, Bad).

once(#{run := Run} = Variant, Context) ->
    {Pid, Monitor} = spawn_monitor(fun() -> exit({values, Run(Context)}) end),
    receive
        {'DOWN', Monitor, process, Pid, {values, Values}} -> {ok, Values};
        {'DOWN', Monitor, process, Pid, Reason} -> {error, Reason}
    after maps:get(timeout_ms, Variant, ?TIMEOUT_MS) ->
        exit(Pid, kill),
        {error, timeout}
    end.
