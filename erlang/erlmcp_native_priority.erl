%% @private What a message is to a queue: whether it may overtake, and what it may not. Pure.
%%
%% As little of the message is read as can tell. A name with an escape in it is not recognized: such
%% a message keeps its place. `erlmcp_core::json::Role' is the same in Rust.
-module(erlmcp_native_priority).

-export([role/1, is_urgent/1, may_overtake/2, admit/3]).

-export_type([role/0]).

-type role() ::
    {request, id()} | ping | {cancellation, id() | none} | answer | progress | other.
%% `answer': an error, or a result without members, which is the answer to `ping'.

-type id() :: {number | text, binary()}.

-define(is_space(C), (C =:= $\s orelse C =:= $\n orelse C =:= $\r orelse C =:= $\t)).

%% @doc What a message is.
-spec role(iodata()) -> role().
role(Message) when is_binary(Message) ->
    try
        <<${, Members/binary>> = skip(Message),
        members(skip(Members), #{})
    catch
        error:_ -> other
    end;
role(Message) ->
    role(iolist_to_binary(Message)).

%% @doc Whether a message overtakes others where its sender has not said.
-spec is_urgent(iodata()) -> boolean().
is_urgent(Message) ->
    is_urgent(auto, role(Message)).

%% @doc Whether a message of `Size' bytes is queued behind so many others, what it is, and whether
%% it overtakes. One is always admitted where nothing is queued, however long.
-spec admit(Queued :: non_neg_integer(), Size :: pos_integer(), erlmcp_native_beam_out:sending()) ->
    {ok, role(), Urgent :: boolean()} | {error, busy}.
admit(Queued, Size, #{max := Max, reserve := Reserve}) when
    Queued > 0, Queued + Size > Max + Reserve
->
    {error, busy};
admit(Queued, Size, #{max := Max, priority := Priority, message := Message}) ->
    Role = role(Message),
    case is_urgent(Priority, Role) of
        false when Queued > 0, Queued + Size > Max -> {error, busy};
        Urgent -> {ok, Role, Urgent}
    end.

is_urgent(urgent, _) -> true;
is_urgent(normal, _) -> false;
is_urgent(auto, ping) -> true;
is_urgent(auto, answer) -> true;
is_urgent(auto, {cancellation, _}) -> true;
is_urgent(auto, _) -> false.

%% @doc Whether an urgent message may go before another. A cancellation would miss the request
%% that it names, and nothing may be said of a request that has been answered.
-spec may_overtake(role(), role()) -> boolean().
may_overtake({cancellation, Id}, {request, Id}) -> false;
may_overtake(answer, progress) -> false;
may_overtake(_, _) -> true.

members(<<$}, _/binary>>, Found) ->
    ended(Found);
members(<<$", Rest/binary>>, Found) ->
    {Name, After} = string(Rest),
    <<$:, Value/binary>> = skip(After),
    member(Name, skip(Value), Found).

ended(#{method := cancelled}) -> {cancellation, none};
ended(_) -> other.

member(<<"result">>, Value, _) -> result(Value);
member(<<"error">>, <<"null", Rest/binary>>, Found) -> next(Rest, Found);
member(<<"error">>, _, _) -> answer;
member(<<"method">>, <<$", Value/binary>>, Found) -> method(string(Value), Found);
member(<<"method">>, _, _) -> other;
member(<<"id">>, Value, Found) -> id(Value, Found);
member(<<"params">>, <<${, Value/binary>>, Found) -> params(skip(Value), Found);
member(_, Value, Found) -> next(skip_value(Value), Found).

result(<<${, Rest/binary>>) ->
    case skip(Rest) of
        <<$}, _/binary>> -> answer;
        _ -> other
    end;
result(_) ->
    other.

method({<<"ping">>, _}, _) -> ping;
method({<<"notifications/progress">>, _}, _) -> progress;
method({<<"notifications/cancelled">>, Rest}, Found) -> next(Rest, Found#{method => cancelled});
method({_, Rest}, Found) -> next(Rest, Found#{method => other}).

id(Value, Found) ->
    Rest = skip_value(Value),
    case key(Value, Rest) of
        none -> next(Rest, Found);
        Id -> next(Rest, Found#{id => Id})
    end.

key(<<$", _/binary>> = Value, Rest) ->
    {text, binary_part(Value, 1, byte_size(Value) - byte_size(Rest) - 2)};
key(<<C, _/binary>> = Value, Rest) when C =:= $-; C >= $0, C =< $9 ->
    {number, binary_part(Value, 0, byte_size(Value) - byte_size(Rest))};
key(_, _) ->
    none.

next(_, #{method := other, id := Id}) -> {request, Id};
next(_, #{method := cancelled, request := Id}) -> {cancellation, Id};
next(Rest, Found) -> after_value(skip(Rest), Found).

after_value(<<$,, Rest/binary>>, Found) -> members(skip(Rest), Found);
after_value(<<$}, _/binary>>, Found) -> ended(Found).

params(<<$}, Rest/binary>>, Found) ->
    next(Rest, Found);
params(<<$,, Rest/binary>>, Found) ->
    params(skip(Rest), Found);
params(<<$", Text/binary>>, Found) ->
    {Name, After} = string(Text),
    <<$:, Rest/binary>> = skip(After),
    Value = skip(Rest),
    Left = skip_value(Value),
    case {Name, key(Value, Left)} of
        {<<"requestId">>, Id} when Id =/= none -> params(skip(Left), Found#{request => Id});
        _ -> params(skip(Left), Found)
    end.

skip(<<C, Rest/binary>>) when ?is_space(C) -> skip(Rest);
skip(Rest) -> Rest.

%% A string whose opening quote has been read, as it stands, and what follows it.
string(Text) ->
    End = string_end(Text, 0),
    <<String:End/binary, $", Rest/binary>> = Text,
    {String, Rest}.

string_end(Text, From) ->
    {At, 1} = binary:match(Text, [<<"\"">>, <<"\\">>], [{scope, {From, byte_size(Text) - From}}]),
    case binary:at(Text, At) of
        $" -> At;
        $\\ -> string_end(Text, At + 2)
    end.

skip_value(<<$", Rest/binary>>) -> element(2, string(Rest));
skip_value(<<C, Rest/binary>>) when C =:= ${; C =:= $[ -> skip_in(Rest, 1);
skip_value(Rest) -> skip_scalar(Rest).

skip_scalar(<<C, _/binary>> = Rest) when C =:= $,; C =:= $}; C =:= $]; ?is_space(C) -> Rest;
skip_scalar(<<_, Rest/binary>>) -> skip_scalar(Rest).

skip_in(Rest, 0) ->
    Rest;
skip_in(Text, Depth) ->
    {At, 1} = binary:match(Text, [<<"\"">>, <<"{">>, <<"}">>, <<"[">>, <<"]">>]),
    <<_:At/binary, C, Rest/binary>> = Text,
    case C of
        $" -> skip_in(element(2, string(Rest)), Depth);
        _ when C =:= ${; C =:= $[ -> skip_in(Rest, Depth + 1);
        _ -> skip_in(Rest, Depth - 1)
    end.
