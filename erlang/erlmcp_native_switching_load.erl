%% @doc The requests of the analysis of switching: so many at a time, each followed until its
%% outcome. Lives in a VM of its own and is told what to do from another.
-module(erlmcp_native_switching_load).

-export([start/4, planned/1, active/1, in_use/3, finish/1]).

-record(load, {
    module :: module(),
    pid :: pid(),
    names :: [term()],
    width :: pos_integer(),
    switches :: pos_integer(),
    phase = planned :: planned | unplanned,
    sending = true :: boolean(),
    made = 0 :: non_neg_integer(),
    %% When each was made, by the clock of the operating system, and in which phase.
    pending = #{} :: #{pos_integer() => {integer(), planned | unplanned}},
    counts = #{} :: #{{planned | unplanned, made | ok | failed | refused} => pos_integer()},
    reasons = #{} :: #{binary() => pos_integer()},
    twice = 0 :: non_neg_integer(),
    last = 0 :: integer(),
    longest = 0 :: non_neg_integer(),
    %% Who waits for an answer to a request that was made after a kill.
    waiting = none :: none | {pid(), Before :: integer(), After :: integer()}
}).

-define(WARM_UP_MS, 300).
-define(WINDOW_MS, 30).
-define(IN_USE_MS, 10000).
%% Longer than any request may wait.
-define(FINISH_MS, 35000).

%% @doc Starts it, and returns when all endpoints are ready and requests are under way.
-spec start(module(), erlmcp_native_report:path(), [{term(), term()}], map()) -> pid().
start(Module, Path, Endpoints, #{load := Width, switches := Switches}) ->
    erlmcp_native_analysis_peer:lasting(fun() ->
        {ok, Pid} = Module:start(Endpoints, Path),
        ok = Module:ready(Pid),
        {self(), fun() ->
            Load = #load{
                module = Module,
                pid = Pid,
                names = [Name || {Name, _} <- Endpoints],
                width = Width,
                switches = Switches
            },
            idle(for(?WARM_UP_MS, fill(Load)))
        end}
    end).

%% @doc Switches by command, again and again; the gaps, and those without a switch to compare with.
-spec planned(pid()) -> map().
planned(Run) -> ask(Run, planned).

%% @doc The name of the endpoint in use.
-spec active(pid()) -> {ok, term()}.
active(Run) -> ask(Run, active).

%% @doc How long after `Before' a request was answered that was made after `After'.
-spec in_use(pid(), Before :: integer(), After :: integer()) -> {ok, Ms :: float()} | {error, none}.
in_use(Run, Before, After) -> ask(Run, {in_use, Before, After}).

%% @doc Makes no more requests and waits for the outcome of all that were made.
-spec finish(pid()) -> map().
finish(Run) -> ask(Run, finish).

ask(Run, Question) ->
    Monitor = monitor(process, Run),
    Run ! {ask, self(), Question},
    receive
        {Run, Answer} ->
            true = demonitor(Monitor, [flush]),
            Answer;
        {'DOWN', Monitor, process, Run, Reason} ->
            exit(Reason)
    end.

idle(Load) ->
    receive
        {ask, From, planned} ->
            {Quiet, Gaps, Next} = switches(Load#load.switches, [], [], Load),
            From ! {self(), gaps(Quiet, Gaps)},
            idle(Next);
        {ask, From, active} ->
            #load{module = Module, pid = Pid} = Load,
            From ! {self(), {ok, Module:active(Pid)}},
            idle(Load#load{phase = unplanned});
        {ask, From, {in_use, Before, After}} ->
            _ = erlang:send_after(?IN_USE_MS, self(), {too_long, From}),
            idle(Load#load{waiting = {From, Before, After}});
        {too_long, From} ->
            idle(too_long(From, Load));
        {ask, From, finish} ->
            Done = finished(Load#load{sending = false}, now_ms() + ?FINISH_MS),
            From ! {self(), result(Done)},
            #load{module = Module, pid = Pid} = Done,
            Module:stop(Pid);
        Message ->
            idle(heard(Message, Load))
    end.

too_long(From, #load{waiting = {From, _, _}} = Load) ->
    From ! {self(), {error, none}},
    Load#load{waiting = none};
too_long(_, Load) ->
    Load.

%% By turns: a while without a switch, and one with.
switches(0, Quiet, Gaps, Load) ->
    {Quiet, Gaps, Load};
switches(N, Quiet, Gaps, #load{names = [To | Names]} = Load) ->
    {Without, Calm} = longest(Load),
    %% Beside: the answers that come meanwhile are to be seen when they come.
    #load{module = Module, pid = Pid} = Calm,
    {_, Monitor} = spawn_opt(
        fun() -> ok = switched(Module:active(Pid) =:= To, Module, Pid, To) end, [link, monitor]
    ),
    {With, Next} = longest(Calm#load{names = Names ++ [To]}),
    ok = over(Monitor),
    switches(N - 1, [Without | Quiet], [With | Gaps], Next).

over(Monitor) ->
    receive
        {'DOWN', Monitor, process, _, _} -> ok
    end.

switched(true, _, _, _) -> ok;
switched(false, Module, Pid, To) -> Module:switch(Pid, To).

%% The longest time without an answer, in the next moments.
longest(Load) ->
    Begin = erlang:monotonic_time(),
    Next = for(?WINDOW_MS, Load#load{last = Begin, longest = 0}),
    %% What has not ended yet counts, too.
    Open = erlang:monotonic_time() - Next#load.last,
    {max(Open, Next#load.longest), Next}.

for(Ms, Load) ->
    until(now_ms() + Ms, Load).

%% Questions, and the end of the switching process, are for later.
until(Deadline, Load) ->
    receive
        Message when element(1, Message) =/= ask, element(1, Message) =/= 'DOWN' ->
            until(Deadline, heard(Message, Load))
    after max(0, Deadline - now_ms()) ->
        Load
    end.

now_ms() -> erlang:monotonic_time(millisecond).

heard(Message, #load{module = Module} = Load) ->
    case Module:event(Message) of
        {outcome, Id, Outcome} -> fill(outcome(Id, Outcome, Load));
        _ when Message =:= {?MODULE, retry} -> fill(Load);
        _ -> Load
    end.

outcome(Id, Outcome, #load{pending = Pending} = Load) ->
    case maps:take(Id, Pending) of
        {{At, Phase}, Left} -> counted(Outcome, At, Phase, Load#load{pending = Left});
        error -> Load#load{twice = Load#load.twice + 1}
    end.

counted(ok, At, Phase, #load{last = Last, longest = Longest} = Load) ->
    Now = erlang:monotonic_time(),
    answered(At, count({Phase, ok}, Load#load{last = Now, longest = max(Longest, Now - Last)}));
counted({error, Reason}, _, Phase, #load{reasons = Reasons} = Load) ->
    Words = iolist_to_binary(io_lib:format("~0p", [Reason])),
    More = maps:update_with(Words, fun(N) -> N + 1 end, 1, Reasons),
    count({Phase, failed}, Load#load{reasons = More}).

answered(At, #load{waiting = {From, Before, After}} = Load) when At > After ->
    From ! {self(), {ok, (os:system_time(microsecond) - Before) / 1000}},
    Load#load{waiting = none};
answered(_, Load) ->
    Load.

count(What, #load{counts = Counts} = Load) ->
    Load#load{counts = maps:update_with(What, fun(N) -> N + 1 end, 1, Counts)}.

%% Every second one may be made twice.
fill(#load{sending = true, pending = Pending, width = Width} = Load) when
    map_size(Pending) < Width
->
    #load{module = Module, pid = Pid, made = Made, phase = Phase} = Load,
    Now = os:system_time(microsecond),
    case Module:request(Pid, Made rem 2 =:= 0) of
        {ok, Id} ->
            Next = Load#load{made = Made + 1, pending = Pending#{Id => {Now, Phase}}},
            fill(count({Phase, made}, Next));
        {error, _} ->
            %% Not accepted, so that there is nothing to be answered.
            _ = erlang:send_after(1, self(), {?MODULE, retry}),
            count({Phase, refused}, Load)
    end;
fill(Load) ->
    Load.

finished(#load{pending = Pending} = Load, _) when map_size(Pending) =:= 0 ->
    Load;
finished(Load, Deadline) ->
    receive
        Message -> finished(heard(Message, Load), Deadline)
    after max(0, Deadline - now_ms()) -> Load
    end.

gaps(Quiet, Gaps) ->
    #{
        switches => length(Gaps),
        gap_ms => summary(Gaps),
        quiet_ms => summary(Quiet)
    }.

summary(Native) ->
    erlmcp_native_statistics:summary([
        erlang:convert_time_unit(N, native, microsecond) / 1000
     || N <- Native
    ]).

result(#load{counts = Counts, pending = Pending, twice = Twice, reasons = Reasons} = Load) ->
    Of = fun(Phase, What) -> maps:get({Phase, What}, Counts, 0) end,
    #{
        requests => Load#load.made,
        planned_failed => Of(planned, failed) + Of(planned, refused),
        unplanned => #{
            requests => Of(unplanned, made),
            answered => Of(unplanned, ok),
            failed => Of(unplanned, failed),
            refused => Of(unplanned, refused)
        },
        unresolved => map_size(Pending) + Twice,
        reasons => Reasons
    }.
