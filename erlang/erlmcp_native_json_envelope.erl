%% @doc What a transport has to know of JSON-RPC messages, read from decoded documents.
-module(erlmcp_native_json_envelope).

-export([read/2]).

-define(is_space(C), (C =:= $\s orelse C =:= $\n orelse C =:= $\r orelse C =:= $\t)).

-type batch() :: {batch, [{Element :: binary(), erlmcp_native_json:envelope()}]}.

%% @doc The envelope of a message, or those of a batch, from a document and its text.
-spec read(term(), binary()) -> erlmcp_native_json:envelope() | batch().
read([], _) ->
    {batch, []};
read(Batch, Text) when is_list(Batch) ->
    Envelopes = [envelope(Element) || Element <- Batch],
    {batch, lists:zip(elements(Text), Envelopes)};
read(Message, _) ->
    envelope(Message).

%% The elements of an array as they stand in its text, which is known to be JSON.
elements(Text) ->
    {Bracket, 1} = binary:match(Text, <<"[">>),
    From = Bracket + 1,
    <<_:From/binary, Rest/binary>> = Text,
    elements(Rest, From, From, 0, Text).

elements(<<C, _/binary>>, At, From, 0, Text) when C =:= $] ->
    [element(Text, From, At)];
elements(<<C, Rest/binary>>, At, From, 0, Text) when C =:= $, ->
    [element(Text, From, At) | elements(Rest, At + 1, At + 1, 0, Text)];
elements(<<C, Rest/binary>>, At, From, Depth, Text) when C =:= $[; C =:= ${ ->
    elements(Rest, At + 1, From, Depth + 1, Text);
elements(<<C, Rest/binary>>, At, From, Depth, Text) when C =:= $]; C =:= $} ->
    elements(Rest, At + 1, From, Depth - 1, Text);
elements(<<$", Rest/binary>>, At, From, Depth, Text) ->
    string(Rest, At + 1, From, Depth, Text);
elements(<<_, Rest/binary>>, At, From, Depth, Text) ->
    elements(Rest, At + 1, From, Depth, Text).

string(<<$", Rest/binary>>, At, From, Depth, Text) ->
    elements(Rest, At + 1, From, Depth, Text);
string(<<$\\, _, Rest/binary>>, At, From, Depth, Text) ->
    string(Rest, At + 2, From, Depth, Text);
string(<<_, Rest/binary>>, At, From, Depth, Text) ->
    string(Rest, At + 1, From, Depth, Text).

element(Text, From, To) ->
    case {binary:at(Text, From), binary:at(Text, To - 1)} of
        {C, _} when ?is_space(C) -> element(Text, From + 1, To);
        {_, C} when ?is_space(C) -> element(Text, From, To - 1);
        _ -> binary_part(Text, From, To - From)
    end.

envelope(Message) when is_map(Message) ->
    Envelope = #{
        id => id(maps:get(<<"id">>, Message, undefined)),
        method => method(maps:get(<<"method">>, Message, undefined)),
        params => params(maps:get(<<"params">>, Message, undefined))
    },
    case kind(Message) of
        {invalid, Why} -> Envelope#{kind => invalid, why => Why};
        Kind -> Envelope#{kind => Kind}
    end;
envelope(_) ->
    #{kind => invalid, why => not_object, id => undefined, method => undefined, params => none}.

kind(#{<<"jsonrpc">> := <<"2.0">>} = Message) -> kind_of(Message);
kind(#{<<"jsonrpc">> := _}) -> {invalid, wrong_version};
kind(_) -> {invalid, missing_version}.

kind_of(#{<<"method">> := Method}) when not is_binary(Method) ->
    {invalid, invalid_method};
kind_of(#{<<"method">> := _, <<"id">> := Id}) when is_binary(Id); is_integer(Id) ->
    request;
kind_of(#{<<"method">> := _, <<"id">> := _}) ->
    {invalid, invalid_id};
kind_of(#{<<"method">> := _}) ->
    notification;
kind_of(Message) when not is_map_key(<<"result">>, Message), not is_map_key(<<"error">>, Message) ->
    {invalid, unknown_type};
kind_of(#{<<"id">> := Id}) when is_binary(Id); is_integer(Id); Id =:= null ->
    response;
kind_of(#{<<"id">> := _}) ->
    {invalid, invalid_id};
kind_of(_) ->
    {invalid, missing_id}.

id(Id) when is_binary(Id); is_integer(Id); Id =:= null -> Id;
id(_) -> undefined.

method(Method) when is_binary(Method) -> Method;
method(_) -> undefined.

params(undefined) -> none;
params(Params) when is_map(Params) -> object;
params(Params) when is_list(Params) -> array;
params(_) -> other.
