%% @doc The answer to a request of a client on the path `port', as far as it has come. Pure.
-module(erlmcp_native_port_http_client_answer).

-export([new/1, packet/2, fail/2, take/2, is_over/1, granted/2]).

-export_type([answer/0, notice/0]).

-type failure() :: erlmcp_native_http_client_path:failure().

-type notice() ::
    {head, Status :: 100..599, [{Name :: binary(), Value :: binary()}]}
    | readable
    | {failed, failure()}.

-record(answer, {
    %% Whether the program may have had the request.
    sent :: boolean(),
    has_head = false :: boolean(),
    parts = queue:new() :: queue:queue(binary()),
    ending = none :: none | done | {failed, failure()},
    %% The owner knows that there is something to take.
    readable = false :: boolean(),
    %% Bytes that were taken since the program was last told.
    taken = 0 :: non_neg_integer()
}).

-opaque answer() :: #answer{}.

-define(HEAD, 1).
-define(DONE, 2).
-define(FAILED, 4).

%% @doc Of a request that was handed to the program, or could not be.
-spec new(Sent :: boolean()) -> answer().
new(Sent) ->
    #answer{sent = Sent}.

%% @doc Takes in a packet, from its flags on.
-spec packet(binary(), answer()) -> {[notice()], answer()}.
packet(<<Flags, Rest/binary>>, Answer0) ->
    {Head, Body, Answer1} = head(Flags band ?HEAD, Rest, Answer0),
    Answer2 = ending(Flags, Body, Answer1),
    {Notice, Answer} = settle(Answer2),
    {Head ++ Notice, Answer}.

head(0, Rest, Answer) ->
    {[], Rest, Answer};
head(?HEAD, Rest, Answer) ->
    {{Status, Headers}, Body} = erlmcp_native_port_term:read_first(Rest),
    {[{head, Status, Headers}], Body, Answer#answer{has_head = true}}.

ending(Flags, Body, Answer) when Flags band ?FAILED =/= 0 ->
    {{Reason, Safe}, Part} = erlmcp_native_port_term:read_first(Body),
    push(Part, Answer#answer{ending = {failed, #{reason => Reason, safe => Safe}}});
ending(Flags, Part, Answer) when Flags band ?DONE =/= 0 ->
    push(Part, Answer#answer{ending = done});
ending(_, Part, Answer) ->
    push(Part, Answer).

push(<<>>, Answer) -> Answer;
push(Part, #answer{parts = Parts} = Answer) -> Answer#answer{parts = queue:in(Part, Parts)}.

%% @doc Ends an answer that is not over.
-spec fail(failure(), answer()) -> {[notice()], answer()}.
fail(Failure, #answer{sent = true} = Answer) ->
    settle(Answer#answer{ending = {failed, Failure}});
fail(Failure, #answer{sent = false} = Answer) ->
    settle(Answer#answer{ending = {failed, Failure#{safe := true}}}).

settle(#answer{has_head = false, ending = {failed, Failure}} = Answer) ->
    {[{failed, Failure}], Answer};
settle(#answer{has_head = true, readable = false} = Answer) ->
    case has_something(Answer) of
        true -> {[readable], Answer#answer{readable = true}};
        false -> {[], Answer}
    end;
settle(Answer) ->
    {[], Answer}.

has_something(#answer{parts = Parts, ending = Ending}) ->
    Ending =/= none orelse not queue:is_empty(Parts).

%% @doc Whether nothing more will come.
-spec is_over(answer()) -> boolean().
is_over(#answer{ending = Ending}) -> Ending =/= none.

%% @doc At most `MaxBytes' beyond the first part.
-spec take(pos_integer(), answer()) ->
    {[binary()], more | armed | done | {failed, failure()}, answer()}.
take(MaxBytes, #answer{parts = Parts0, taken = Taken0} = Answer0) ->
    {Parts, Bytes, Rest} = take(MaxBytes, Parts0, [], 0),
    Answer = Answer0#answer{parts = Rest, taken = Taken0 + Bytes},
    case {queue:is_empty(Rest), Answer#answer.ending} of
        {false, _} -> {Parts, more, Answer};
        {true, none} -> {Parts, armed, Answer#answer{readable = false}};
        {true, Ending} -> {Parts, Ending, Answer}
    end.

take(MaxBytes, Parts, Acc, Bytes) ->
    case queue:out(Parts) of
        {{value, Part}, Rest} when Acc =:= []; byte_size(Part) =< MaxBytes ->
            Size = byte_size(Part),
            take(MaxBytes - Size, Rest, [Part | Acc], Bytes + Size);
        _ ->
            {lists:reverse(Acc), Bytes, Parts}
    end.

%% @doc How much the program may send in the place of what was taken: 0 as long as that is little
%% beside the window.
-spec granted(Window :: pos_integer(), answer()) -> {non_neg_integer(), answer()}.
granted(Window, #answer{taken = Taken, ending = none} = Answer) when 2 * Taken >= Window ->
    {Taken, Answer#answer{taken = 0}};
granted(_, Answer) ->
    {0, Answer}.
