%% @doc Properties of what decides about metrics: alerts, burn rates, the ring of the history, trace
%% contexts. The references look at all that came, at once.
-module(metrics_props).

-include("props.hrl").

-import(proper_types, [
    binary/0, boolean/0, choose/2, float/2, frequency/1, integer/2, list/1, non_empty/1, oneof/1,
    vector/2
]).
-import(test_property, [same/2]).

-export([
    prop_alert_never_flaps_within_band/0,
    prop_alert_lasts/0,
    prop_alert_without_durations/0,
    prop_burn_rate_of_a_window/0,
    prop_burn_rate_is_bounded/0,
    prop_burn_alert_is_reasoned/0,
    prop_ring_keeps_the_latest/0,
    prop_traceparent/0,
    prop_trace_never_crashes/0,
    prop_trace_into_message/0
]).

%% ---- alerts

%% @doc Between threshold and clearing nothing happens, in either state, whatever the durations.
prop_alert_never_flaps_within_band() ->
    ?FORALL(
        {Side, Clear, Width, Steps, For, Raise},
        {
            oneof([above, below]),
            integer(-100, 100),
            integer(0, 50),
            list({integer(1, 1000), float(0.0, 1.0)}),
            integer(0, 2000),
            boolean()
        },
        begin
            Threshold = beyond(Side, Clear, Width),
            {ok, New} = erlmcp_native_alert_rule:new(#{
                Side => Threshold, clear => Clear, for_ms => For, clear_for_ms => For
            }),
            Start = start(Raise, beyond(Side, Threshold, 1), New),
            %% The clearing value itself clears.
            Within = [{Ms, beyond(Side, Clear, Width * (0.01 + 0.99 * P))} || {Ms, P} <- Steps],
            Width =:= 0 orelse [] =:= changes(Within, Start)
        end
    ).

beyond(above, Value, More) -> Value + More;
beyond(below, Value, More) -> Value - More.

start(false, _, Rule) ->
    Rule;
start(true, Value, Rule) ->
    {_, Waiting} = erlmcp_native_alert_rule:step(-100000, Value, Rule),
    {_, Raised} = erlmcp_native_alert_rule:step(-1, Value, Waiting),
    raised = erlmcp_native_alert_rule:state(Raised),
    Raised.

%% @doc A change comes when, and not before, all values of so long a time were on the other side.
prop_alert_lasts() ->
    ?FORALL(
        {Steps, For, ClearFor},
        {list({integer(1, 500), value()}), integer(0, 1000), integer(0, 1000)},
        begin
            {ok, Rule} = erlmcp_native_alert_rule:new(#{
                above => 10, clear => 5, for_ms => For, clear_for_ms => ClearFor
            }),
            same(
                expected(timed(Steps), For, ClearFor),
                changes(Steps, Rule)
            )
        end
    ).

value() -> oneof([0, 5, 6, 10, 11, 20, unknown]).

%% Looks back from each value over those that would have changed the state.
expected(Values, For, ClearFor) ->
    expected(Values, [], cleared, {For, ClearFor}).

expected([], _, _, _) ->
    [];
expected([{Now, Value} | Values], Before, State, {For, ClearFor} = Durations) ->
    {Holds, Next, Ms} =
        case State of
            cleared -> {fun(V) -> V =/= unknown andalso V > 10 end, raised, For};
            raised -> {fun(V) -> V =/= unknown andalso V =< 5 end, cleared, ClearFor}
        end,
    Run = lists:takewhile(fun({_, V}) -> Holds(V) end, [{Now, Value} | Before]),
    case Run =/= [] andalso Now - element(1, lists:last(Run)) >= Ms of
        %% What led to a change does not lead to the next.
        true -> [{Now, Next} | expected(Values, [], Next, Durations)];
        false -> expected(Values, [{Now, Value} | Before], State, Durations)
    end.

%% @doc Without durations the state is that of the last value outside of the band.
prop_alert_without_durations() ->
    ?FORALL(
        Values,
        list(oneof([0, 5, 6, 10, 11, 20])),
        begin
            {ok, Rule} = erlmcp_native_alert_rule:new(#{above => 10, clear => 5}),
            Step = fun(Value, {Now, Acc}) ->
                {_, Next} = erlmcp_native_alert_rule:step(Now, Value, Acc),
                {Now + 1, Next}
            end,
            {_, Last} = lists:foldl(Step, {0, Rule}, Values),
            Outside = [V || V <- Values, V > 10 orelse V =< 5],
            Expected =
                case Outside =/= [] andalso lists:last(Outside) > 10 of
                    true -> raised;
                    false -> cleared
                end,
            same(Expected, erlmcp_native_alert_rule:state(Last))
        end
    ).

timed(Steps) ->
    {Values, _} = lists:mapfoldl(fun({Ms, V}, At) -> {{At + Ms, V}, At + Ms} end, 0, Steps),
    Values.

changes(Steps, Rule) ->
    {Changes, _} = lists:foldl(
        fun({Now, Value}, {Acc, R}) ->
            case erlmcp_native_alert_rule:step(Now, Value, R) of
                {same, Next} -> {Acc, Next};
                {Change, Next} -> {[{Now, Change} | Acc], Next}
            end
        end,
        {[], Rule},
        timed(Steps)
    ),
    lists:reverse(Changes).

%% ---- burn rate

-define(WINDOWS, [
    #{long_ms => 10000, short_ms => 1000, factor => 5, severity => page},
    #{long_ms => 40000, short_ms => 4000, factor => 2, severity => ticket}
]).

%% @doc The rate over a window is that of what came in it, its beginning being known to one step of
%% sampling.
prop_burn_rate_of_a_window() ->
    ?FORALL(
        {Steps, Window},
        {non_empty(list(counted())), oneof([1000, 4000, 10000, 40000])},
        begin
            Added = sums(Steps),
            Burn = burn(Added),
            {Now, _, _} = lists:last(Added),
            Rates = [
                window_rate(Since, Added)
             || Since <- edges(Now - Window, Added)
            ],
            Found = erlmcp_native_burn_rate:rate(Window, Burn),
            near_any(Found, Rates)
        end
    ).

%% Samples are 100 ms apart or more: the edge is that of a look in the step before.
edges(Since, Added) ->
    [Since | [At || {At, _, _} <- Added, At =< Since, At >= Since - 100 - longest_gap(Added)]].

longest_gap(Added) ->
    Times = [At || {At, _, _} <- Added],
    lists:max([0 | [B - A || {A, B} <- lists:zip(lists:droplast(Times), tl(Times))]]).

window_rate(Since, Added) ->
    Within = [{Good, Total} || {At, Good, Total} <- Added, At > Since],
    Total = lists:sum([T || {_, T} <- Within]),
    case Total of
        0 -> 0.0;
        _ -> (Total - lists:sum([G || {G, _} <- Within])) / Total / 0.01
    end.

near_any(Found, Rates) ->
    lists:any(fun(Rate) -> abs(Found - Rate) =< 1.0e-6 * (1 + Rate) end, Rates) orelse
        same(Rates, Found).

%% @doc A rate is between nothing and all that fails, and what is kept is bounded.
prop_burn_rate_is_bounded() ->
    ?FORALL(
        Steps,
        list(counted()),
        begin
            Burn = burn(sums(Steps)),
            Highest = 1 / 0.01 + 1.0e-6,
            lists:all(
                fun(#{long := Long, short := Short}) ->
                    Long >= 0 andalso Long =< Highest andalso Short >= 0 andalso Short =< Highest
                end,
                erlmcp_native_burn_rate:rates(Burn)
            ) andalso erts_debug:flat_size(Burn) < 500 * 10
        end
    ).

%% @doc What is raised burns over both windows; what is cleared, over the short one, not; they take
%% turns.
prop_burn_alert_is_reasoned() ->
    ?FORALL(
        Steps,
        list(counted()),
        begin
            New = erlmcp_native_burn_rate:new(0.99, ?WINDOWS),
            {All, _} = lists:foldl(
                fun({At, Good, Total}, {Acc, Burn}) ->
                    {Changes, Next} = erlmcp_native_burn_rate:add(At, Good, Total, Burn),
                    {Acc ++ Changes, Next}
                end,
                {[], New},
                sums(Steps)
            ),
            lists:all(fun is_reasoned/1, All) andalso
                lists:all(
                    fun(Severity) -> takes_turns(Severity, All) end,
                    [page, ticket]
                )
        end
    ).

is_reasoned({raised, #{long := Long, short := Short, factor := Factor}}) ->
    Long >= Factor andalso Short >= Factor;
is_reasoned({cleared, #{short := Short, factor := Factor}}) ->
    Short < Factor.

takes_turns(Severity, All) ->
    States = [State || {State, #{severity := S}} <- All, S =:= Severity],
    States =:= lists:sublist(lists:append(lists:duplicate(length(States), [raised, cleared])),
        length(States)).

counted() ->
    ?LET(
        {Ms, Total, Bad},
        {integer(1, 3000), integer(0, 100), frequency([{3, 0}, {2, float(0.0, 1.0)}, {1, 1}])},
        {Ms, Total - round(Bad * Total), Total}
    ).

sums(Steps) ->
    {Added, _} = lists:mapfoldl(
        fun({Ms, Good, Total}, At) -> {{At + Ms, Good, Total}, At + Ms} end, 0, Steps
    ),
    Added.

burn(Added) ->
    lists:foldl(
        fun({At, Good, Total}, Burn) ->
            element(2, erlmcp_native_burn_rate:add(At, Good, Total, Burn))
        end,
        erlmcp_native_burn_rate:new(0.99, ?WINDOWS),
        Added
    ).

%% ---- ring

%% @doc In the places there is, of each of the last steps in which something came, the last that
%% did, and nothing else is taken for it.
prop_ring_keeps_the_latest() ->
    ?FORALL(
        {Slots, Step, Gaps, Begin, Since},
        {
            integer(1, 10), integer(1, 50), list(integer(0, 120)), integer(-1000, 1000),
            integer(0, 600)
        },
        begin
            Ring = #{step_ms => Step, slots => Slots},
            {Times, Last} = lists:mapfoldl(fun(Gap, At) -> {At + Gap, At + Gap} end, Begin, Gaps),
            Now = Last + Since,
            Places = lists:foldl(
                fun(At, Acc) -> Acc#{erlmcp_native_ring:slot(At, Ring) => At} end, #{}, Times
            ),
            Kept = [At || At <- maps:values(Places), erlmcp_native_ring:is_kept(At, Now, Ring)],
            First = erlmcp_native_ring:begins(Now, Ring) - Step * (Slots - 1),
            Latest = maps:from_list([
                {erlmcp_native_ring:begins(At, Ring), At} || At <- Times, At >= First
            ]),
            lists:all(fun(Slot) -> Slot >= 0 andalso Slot < Slots end, maps:keys(Places)) andalso
                same(lists:sort(maps:values(Latest)), lists:sort(Kept))
        end
    ).

%% ---- trace context

prop_traceparent() ->
    ?FORALL(
        {Trace, Parent, Flags, Version, More},
        {hex(32), hex(16), hex(2), oneof([<<"00">>, <<"01">>, <<"fe">>, <<"ff">>]), more()},
        begin
            Text = <<Version/binary, $-, Trace/binary, $-, Parent/binary, $-, Flags/binary,
                More/binary>>,
            Valid =
                Version =/= <<"ff">> andalso
                    (More =:= <<>> orelse
                        (Version =/= <<"00">> andalso binary:first(More) =:= $-)) andalso
                    binary_to_integer(Trace, 16) > 0 andalso binary_to_integer(Parent, 16) > 0,
            Found = erlmcp_native_trace_context:from_meta(#{<<"traceparent">> => Text}),
            same(
                case Valid of
                    true -> #{traceparent => Text};
                    false -> none
                end,
                Found
            )
        end
    ).

more() -> oneof([<<>>, <<>>, <<"-">>, <<"-x">>, <<"x">>]).

hex(Size) ->
    ?LET(
        Digits,
        oneof([vector(Size, oneof("0123456789abcdef")), vector(Size, $0)]),
        list_to_binary(Digits)
    ).

prop_trace_never_crashes() ->
    ?FORALL(
        {Parent, State},
        {anything(), anything()},
        begin
            Meta = #{<<"traceparent">> => Parent, <<"tracestate">> => State},
            Found = erlmcp_native_trace_context:from_meta(Meta),
            Found =:= none orelse erlmcp_native_trace_context:check(Found)
        end
    ).

anything() ->
    oneof([
        binary(),
        1,
        #{},
        [],
        parent(),
        state(),
        ?LET({S, B}, {state(), binary()}, <<S/binary, $,, B/binary>>)
    ]).

parent() -> <<"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01">>.

state() ->
    ?LET(
        Members,
        non_empty(list({oneof([<<"a">>, <<"b1">>, <<"t@v">>, <<"A">>, <<>>]), binary()})),
        iolist_to_binary(lists:join($,, [[Key, $=, Value] || {Key, Value} <- Members]))
    ).

%% @doc What is put into a message is found there, and the rest is as it was.
prop_trace_into_message() ->
    ?FORALL(
        {Params, Meta, State},
        {boolean(), boolean(), boolean()},
        begin
            Old = #{<<"traceparent">> => <<"x">>, <<"tracestate">> => <<"y">>, <<"k">> => 1},
            Message = maps:merge(
                #{<<"jsonrpc">> => <<"2.0">>, <<"id">> => 1, <<"method">> => <<"m">>},
                case {Params, Meta} of
                    {false, _} -> #{};
                    {true, false} -> #{<<"params">> => #{<<"a">> => [1]}};
                    {true, true} -> #{<<"params">> => #{<<"_meta">> => Old}}
                end
            ),
            Trace = maps:merge(
                #{traceparent => parent()},
                case State of
                    true -> #{tracestate => <<"a=1">>};
                    false -> #{}
                end
            ),
            {ok, Text} = erlmcp_native_trace_context:into(
                erlmcp_native_json:encode(Message), Trace
            ),
            {ok, #{<<"params">> := #{<<"_meta">> := Found} = Now} = Traced} =
                erlmcp_native_json:decode(iolist_to_binary(Text)),
            Kept = maps:without([<<"traceparent">>, <<"tracestate">>], Found),
            same(Trace, erlmcp_native_trace_context:from_meta(Found)) andalso
                same(maps:with([<<"k">>], Kept), Kept) andalso
                same(maps:remove(<<"params">>, Message), maps:remove(<<"params">>, Traced)) andalso
                same(
                    maps:remove(<<"_meta">>, maps:get(<<"params">>, Message, #{})),
                    maps:remove(<<"_meta">>, Now)
                )
        end
    ).
