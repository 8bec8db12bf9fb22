%% @private One client of a load: sends requests and records how long their answers take.
%%
%% In a closed load (`window') so many requests are under way at a time, and each answer makes room
%% for the next. In an open load (`schedule') requests are sent when they are due. Times are those
%% of {@link erlang:monotonic_time/0}; latencies are recorded in nanoseconds.
-module(erlmcp_native_analysis_worker).

-export([start_link/1]).

-export_type([plan/0, tally/0]).

-type plan() :: #{
    subject := erlmcp_native_analysis_subject:subject(),
    parent := pid(),
    ref := reference(),
    maker := erlmcp_native_analysis_call:maker(),
    latency := erlmcp_native_histogram:histogram(),
    mode := {closed, Window :: pos_integer()} | {open, erlmcp_native_analysis_schedule:schedule()},
    count := non_neg_integer() | infinity
}.
%% `count': how many requests are sent at most.

-type tally() :: #{
    sent := non_neg_integer(),
    ok := non_neg_integer(),
    in_time := non_neg_integer(),
    lost := non_neg_integer(),
    errors := #{term() => pos_integer()},
    ended := integer()
}.
%% `in_time': answered before the load was over. `lost': due and without an answer at the end, sent
%% or not. `ended': when the last answer came.

-record(w, {
    plan :: plan(),
    client :: erlmcp_native_analysis_subject:client(),
    begun = 0 :: integer(),
    %% Requests that are under way, and since when.
    open = #{} :: #{pos_integer() => integer()},
    sent = 0 :: non_neg_integer(),
    ok = 0 :: non_neg_integer(),
    in_time = 0 :: non_neg_integer(),
    errors = #{} :: #{term() => pos_integer()},
    %% The last request was refused: nothing is sent before there is room.
    blocked = false :: boolean(),
    %% How many may be sent; no more than these once the load is over.
    limit :: non_neg_integer() | infinity,
    over = false :: boolean(),
    ended = 0 :: integer()
}).

%% @doc The process tells its parent `{Ref, self(), opened | {failed, Reason}}', waits for
%% `{Ref, go, Begin}', and tells `{Ref, self(), {done, tally()}}' when all is answered after
%% `{Ref, stop}' or the last request, or with what it has at `{Ref, give_up}'. It ends, and its
%% client with it, at `{Ref, leave}'.
-spec start_link(plan()) -> pid().
start_link(Plan) ->
    spawn_link(fun() -> open(Plan) end).

open(#{subject := Subject, parent := Parent, ref := Ref, count := Count} = Plan) ->
    case erlmcp_native_analysis_subject:open(Subject) of
        {ok, Client} ->
            Parent ! {Ref, self(), opened},
            ready(#w{plan = Plan, client = Client, limit = Count});
        {error, Reason} ->
            Parent ! {Ref, self(), {failed, Reason}},
            ok
    end.

ready(#w{plan = #{ref := Ref}, client = Client} = W) ->
    receive
        {Ref, go, Begin} ->
            go(W#w{begun = Begin, ended = Begin});
        {Ref, leave} ->
            erlmcp_native_analysis_subject:close(Client);
        Msg ->
            case erlmcp_native_analysis_subject:handle_info(Msg, Client) of
                unknown -> ready(W);
                {Events, Next} -> ready(lists:foldl(fun event/2, W#w{client = Next}, Events))
            end
    end.

go(#w{plan = #{mode := {closed, _}}} = W) ->
    loop(fill(W));
go(#w{plan = #{mode := {open, _}}} = W) ->
    loop(due(W)).

loop(W) ->
    case is_done(W) of
        true -> done(W);
        false -> next(W)
    end.

next(#w{plan = #{ref := Ref}, client = Client} = W) ->
    receive
        {Ref, stop} ->
            loop(fill(stop(W)));
        {Ref, give_up} ->
            done(W);
        {Ref, leave} ->
            erlmcp_native_analysis_subject:close(Client);
        {timeout, _, {Ref, due}} ->
            loop(due(W));
        {timeout, _, {Ref, again}} ->
            loop(fill(W#w{blocked = false}));
        Msg ->
            case erlmcp_native_analysis_subject:handle_info(Msg, Client) of
                unknown -> loop(W);
                {Events, Next} -> loop(fill(lists:foldl(fun event/2, W#w{client = Next}, Events)))
            end
    end.

is_done(#w{open = Open, limit = Limit, sent = Sent}) ->
    map_size(Open) =:= 0 andalso is_integer(Limit) andalso Sent >= Limit.

%% A closed load ends with what is under way. Of an open one everything that is due by now is sent.
stop(#w{over = true} = W) ->
    W;
stop(#w{plan = #{mode := {closed, _}}, sent = Sent} = W) ->
    W#w{over = true, limit = Sent};
stop(#w{plan = #{mode := {open, _}}} = W) ->
    W#w{over = true, limit = allowed(W)}.

due(#w{over = true} = W) ->
    W;
due(#w{plan = #{mode := {open, Schedule}, ref := Ref}, begun = Begin} = W) ->
    Filled = fill(W),
    At = erlmcp_native_analysis_schedule:at_ms(Schedule, allowed(W)),
    %% A request that is late is no reason to be late with the next.
    AtMs = erlang:convert_time_unit(Begin, native, millisecond) + At,
    _ = erlang:start_timer(AtMs, self(), {Ref, due}, [{abs, true}]),
    Filled.

allowed(#w{plan = #{mode := {open, Schedule}, count := Count}, begun = Begin}) ->
    Passed = erlang:convert_time_unit(erlang:monotonic_time() - Begin, native, millisecond),
    min(Count, erlmcp_native_analysis_schedule:due(Schedule, max(0, Passed))).

fill(#w{blocked = true} = W) ->
    W;
fill(#w{plan = #{mode := {closed, Window}}, open = Open} = W) when map_size(Open) >= Window ->
    W;
fill(#w{sent = Sent, limit = Limit} = W) when Sent >= Limit ->
    W;
fill(#w{plan = #{mode := {closed, _}}} = W) ->
    fill(send(erlang:monotonic_time(), W));
fill(#w{plan = #{mode := {open, _}}, over = false} = W) ->
    fill_to(allowed(W), W);
fill(#w{limit = Limit} = W) ->
    fill_to(Limit, W).

fill_to(Allowed, #w{blocked = false, sent = Sent} = W) when Sent < Allowed ->
    #w{plan = #{mode := {open, Schedule}}, begun = Begin} = W,
    At = erlmcp_native_analysis_schedule:at_ms(Schedule, Sent),
    fill_to(Allowed, send(Begin + erlang:convert_time_unit(At, millisecond, native), W));
fill_to(_, W) ->
    W.

send(Since, #w{plan = Plan, client = Client, sent = Sent, open = Open} = W) ->
    #{maker := Maker, ref := Ref} = Plan,
    Id = Sent + 1,
    Json = erlmcp_native_analysis_call:make(Maker, Id),
    case erlmcp_native_analysis_subject:request(Client, Id, Json) of
        {ok, Next} ->
            W#w{client = Next, sent = Id, open = Open#{Id => Since}};
        {{error, busy}, Next} when map_size(Open) > 0 ->
            W#w{client = Next, blocked = true};
        {{error, Reason}, Next} ->
            %% What is known to fail is not tried as fast as it can be.
            _ = erlang:start_timer(1, self(), {Ref, again}),
            failed(Reason, W#w{client = Next, sent = Id, blocked = true})
    end.

event({answer, Id, Outcome}, #w{open = Open} = W) ->
    case maps:take(Id, Open) of
        {Since, Rest} -> answered(Outcome, Since, W#w{open = Rest, blocked = false});
        error -> W
    end;
event(writable, W) ->
    W#w{blocked = false};
event({down, Reason}, #w{open = Open, sent = Sent} = W) ->
    %% Nothing more comes, and nothing more can be sent.
    Failed = lists:foldl(
        fun(_, Acc) -> failed(Reason, Acc) end, W#w{open = #{}}, maps:keys(Open)
    ),
    Failed#w{limit = Sent, over = true}.

answered(Outcome, Since, #w{plan = #{latency := Latency}, over = Over} = W) ->
    Now = erlang:monotonic_time(),
    Ns = erlang:convert_time_unit(max(0, Now - Since), native, nanosecond),
    ok = erlmcp_native_histogram:record(Latency, Ns),
    case {Outcome, Over} of
        {ok, false} -> W#w{ok = W#w.ok + 1, in_time = W#w.in_time + 1, ended = Now};
        {ok, true} -> W#w{ok = W#w.ok + 1, ended = Now};
        {{error, Reason}, _} -> failed(Reason, W#w{ended = Now})
    end.

failed(Reason, #w{errors = Errors} = W) ->
    W#w{errors = maps:update_with(kind(Reason), fun(N) -> N + 1 end, 1, Errors)}.

%% Reasons that hold what the server has said are as many as there are answers.
kind({rpc, #{<<"code">> := Code}}) -> {rpc, Code};
kind({tool, _}) -> tool;
kind({status, Status, _}) -> {status, Status};
kind(Reason) -> Reason.

done(#w{plan = #{parent := Parent, ref := Ref, latency := Latency}, open = Open} = W) ->
    Now = erlang:monotonic_time(),
    %% They would have taken at least so long.
    maps:foreach(
        fun(_, Since) ->
            Ns = erlang:convert_time_unit(max(0, Now - Since), native, nanosecond),
            erlmcp_native_histogram:record(Latency, Ns)
        end,
        Open
    ),
    Parent ! {Ref, self(), {done, tally(W)}},
    leave(W).

tally(#w{sent = Sent, ok = Ok, in_time = InTime, open = Open, errors = Errors} = W) ->
    Unsent =
        case W#w.limit of
            Limit when is_integer(Limit) -> max(0, Limit - Sent);
            infinity -> 0
        end,
    #{
        sent => Sent,
        ok => Ok,
        in_time => InTime,
        lost => map_size(Open) + Unsent,
        errors => Errors,
        ended => W#w.ended
    }.

%% Not before the others are done: closing is work, too.
leave(#w{plan = #{ref := Ref}, client = Client}) ->
    receive
        {Ref, leave} -> erlmcp_native_analysis_subject:close(Client)
    end.
