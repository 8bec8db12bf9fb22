%% @doc How much is read ahead of an owner, on the path `beam'. Pure: the time is the caller's.
%%
%% What is read ahead is worth as long as it lasts. Where the mark has kept from reading, and the
%% owner takes what the mark holds in less than 50 ms, it is doubled (`quick_owner'); where that
%% lasts for more than 400 ms, it is halved (`slow_owner'). A step changes how long it lasts by a
%% factor of two, and the two times are a factor of eight apart: what one step has brought about
%% calls for none back. `erlmcp_core::high_water' is the same for the other paths.
-module(erlmcp_native_high_water).

-export([new/1, mark/1, taken/4, info/2]).

-export_type([high_water/0, reason/0]).

-type reason() :: fixed | start | quick_owner | slow_owner.

-record(high_water, {
    min :: pos_integer(),
    max :: pos_integer(),
    mark :: pos_integer(),
    reason :: reason(),
    %% Bytes a second that the owner takes when there is enough for it.
    rate = none :: none | float(),
    since = none :: none | integer(),
    taken = 0 :: non_neg_integer(),
    reached = false :: boolean()
}).

-opaque high_water() :: #high_water{}.

-define(SHORT_S, 0.05).
-define(LONG_S, 0.4).

%% What a look at the owner's rate spans at least.
-define(SPAN_US, 50000).

%% The weight of the latest look.
-define(WEIGHT, 0.5).

%% @doc Begins at the lower bound.
-spec new(#{high_water_min_bytes := pos_integer(), high_water_bytes := pos_integer(), _ => _}) ->
    high_water().
new(#{high_water_min_bytes := Max, high_water_bytes := Max}) ->
    #high_water{min = Max, max = Max, mark = Max, reason = fixed};
new(#{high_water_min_bytes := Min, high_water_bytes := Max}) ->
    #high_water{min = Min, max = Max, mark = Min, reason = start}.

%% @doc Bytes that may wait.
-spec mark(high_water()) -> pos_integer().
mark(#high_water{mark = Mark}) -> Mark.

%% @doc The owner has taken so much. `Reached': reading had stopped at the mark.
-spec taken(non_neg_integer(), Reached :: boolean(), NowUs :: integer(), high_water()) ->
    high_water().
taken(_, _, _, #high_water{reason = fixed} = H) ->
    H;
taken(Bytes, Reached, Now, #high_water{since = none} = H) ->
    taken(Bytes, Reached, Now, H#high_water{since = Now});
taken(Bytes, Reached, Now, #high_water{taken = Taken, since = Since} = H0) ->
    H = H0#high_water{taken = Taken + Bytes, reached = Reached orelse H0#high_water.reached},
    case Now - Since of
        Span when Span < ?SPAN_US -> H;
        Span -> (look(Span, H))#high_water{since = Now, taken = 0, reached = false}
    end.

look(_, #high_water{reached = false} = H) ->
    H;
look(Span, #high_water{taken = Taken, mark = Mark, min = Min, max = Max} = H) ->
    case smoothed(Taken * 1.0e6 / Span, H) of
        Rate when Mark < ?SHORT_S * Rate, Mark < Max ->
            H#high_water{rate = Rate, mark = min(2 * Mark, Max), reason = quick_owner};
        Rate when Mark > ?LONG_S * Rate, Mark > Min ->
            H#high_water{rate = Rate, mark = max(Mark div 2, Min), reason = slow_owner};
        Rate ->
            H#high_water{rate = Rate}
    end.

smoothed(Rate, #high_water{rate = none}) -> Rate;
smoothed(Rate, #high_water{rate = Before}) -> Before + ?WEIGHT * (Rate - Before).

%% @doc As `erlmcp_native:socket_info()' has it.
-spec info(ReadBytes :: non_neg_integer(), high_water()) -> map().
info(ReadBytes, #high_water{min = Min, max = Max, mark = Mark, reason = Reason}) ->
    #{
        read_bytes => ReadBytes,
        high_water_bytes => Mark,
        min => Min,
        max => Max,
        reason => Reason
    }.
