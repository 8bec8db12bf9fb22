%% The size of a pool under any load, a constant one, a ramp and a pause.
-module(scaling_props).

-include("props.hrl").

-import(proper_types, [choose/2, list/1, vector/2, oneof/1]).

-export([
    prop_bounds/0,
    prop_constant_load/0,
    prop_no_oscillation/0,
    prop_ramp/0,
    prop_gives_back/0,
    prop_high_water_bounds/0,
    prop_high_water_never_turns_back/0
]).

-define(SPAN, 100).

prop_bounds() ->
    ?FORALL({Options, Samples}, {options(), list(sample())},
        begin
            Sizes = sizes(Samples, Options),
            #{min := Min, max := Max} = Options,
            lists:all(fun(Size) -> Size >= Min andalso Size =< Max end, Sizes)
        end).

%% After it has settled no step is taken any more, with a noise of a tenth up and down. The noise is
%% in the time that a request takes: counts of a few arrivals would be noisier than that.
prop_constant_load() ->
    ?FORALL({Options, Rate, Service, Noise}, {options(), choose(1, 500), choose(1, 500), noise(1)},
        begin
            Samples = [at(Rate, Service * N / 10) || N <- Noise],
            {_, Late} = lists:split(200, sizes(Samples, Options)),
            length(lists:usort(Late)) =:= 1
        end).

%% With a noise of a fifth a late step may still be taken, but none back.
prop_no_oscillation() ->
    ?FORALL({Options, Rate, Service, Noise}, {options(), choose(1, 500), choose(1, 500), noise(2)},
        begin
            Sizes = sizes([at(Rate, Service * N / 10) || N <- Noise], Options),
            Sizes =:= lists:sort(Sizes)
        end).

%% What is needed while the load rises is there, but for a start of 2 s.
prop_ramp() ->
    ?FORALL({Slope, Service}, {choose(1, 20), choose(20, 200)},
        begin
            Options = checked(#{max => 100000}),
            Samples = [at(Slope * I, Service) || I <- lists:seq(1, 100)],
            Needed = [Slope * I * Service / ?SPAN || I <- lists:seq(1, 100)],
            Pairs = lists:nthtail(20, lists:zip(sizes(Samples, Options), Needed)),
            lists:all(fun({Size, Need}) -> Size >= Need end, Pairs)
        end).

%% With nothing to do it is at its least after three times the time to cool down.
prop_gives_back() ->
    ?FORALL({Options, Busy}, {options(), list(sample())},
        begin
            Idle = lists:duplicate(400, at(0, 10)),
            lists:last(sizes(Busy ++ Idle, Options)) =:= maps:get(min, Options)
        end).

sizes(Samples, Options) ->
    Step = fun(Sample, {Now, Scaling0}) ->
        {Outcome, Scaling} = erlmcp_native_scaling:step(Sample, Now, Scaling0),
        true = told(Outcome, Scaling0, Scaling),
        {erlmcp_native_scaling:size(Scaling), {Now + ?SPAN, Scaling}}
    end,
    {Sizes, _} = lists:mapfoldl(Step, {0, erlmcp_native_scaling:new(Options)}, Samples),
    Sizes.

%% Every change is a step with its sizes.
told(keep, Before, After) ->
    erlmcp_native_scaling:size(Before) =:= erlmcp_native_scaling:size(After);
told({resize, #{from := From, to := To}}, Before, After) ->
    From =/= To andalso
        {From, To} =:= {erlmcp_native_scaling:size(Before), erlmcp_native_scaling:size(After)}.

at(Arrivals, Service) ->
    #{arrivals => Arrivals, span_ms => ?SPAN, service_ms => Service, queued => 0}.

sample() ->
    ?LET({Arrivals, Service, Queued}, {choose(0, 1000), choose(0, 1000), choose(0, 1000)},
        (at(Arrivals, Service))#{queued := Queued}).

options() ->
    ?LET({Min, More, Per}, {choose(1, 10), choose(0, 500), oneof([1, 8, 32])},
        checked(#{min => Min, max => Min + More, per_connection => Per, cooldown_ms => 5000})).

checked(Given) ->
    {ok, Options} = erlmcp_native_scaling:options(Given),
    Options.

noise(Tenths) ->
    vector(1200, choose(10 - Tenths, 10 + Tenths)).

prop_high_water_bounds() ->
    ?FORALL({{Min, Max}, Takes}, {bounds(), list({choose(0, 100000000), choose(0, 1)})},
        begin
            Marks = marks([{Bytes, Reached =:= 1} || {Bytes, Reached} <- Takes], Min, Max),
            lists:all(fun(Mark) -> Mark >= Min andalso Mark =< Max end, Marks)
        end).

prop_high_water_never_turns_back() ->
    Noises = vector(200, choose(7, 14)),
    ?FORALL({{Min, Max}, Rate, Noise}, {bounds(), choose(1000, 10000000), Noises},
        begin
            Marks = marks([{Rate * N div 10, true} || N <- Noise], Min, Max),
            Marks =:= lists:sort(Marks)
        end).

bounds() ->
    ?LET({Min, More}, {choose(1, 262144), choose(0, 16777216)}, {Min, Min + More}).

%% A take each 50 ms.
marks(Takes, Min, Max) ->
    Bounds = #{high_water_min_bytes => Min, high_water_bytes => Max},
    Take = fun({Bytes, Reached}, {Now, Water}) ->
        Next = erlmcp_native_high_water:taken(Bytes, Reached, Now, Water),
        {erlmcp_native_high_water:mark(Next), {Now + 50000, Next}}
    end,
    Water = erlmcp_native_high_water:taken(0, true, 0, erlmcp_native_high_water:new(Bounds)),
    {Marks, _} = lists:mapfoldl(Take, {50000, Water}, Takes),
    Marks.
