%% @private The headers that repeat what is in the body, from 2026-07-28 on: `Mcp-Method',
%% `Mcp-Name' and `Mcp-Param-*'. Somebody on the way may have decided by them, so they must be
%% true. Pure.
-module(erlmcp_native_http_mirror).

-export([check/3, check_params/3, decode/1]).

-type headers() :: [{binary(), binary()}].

%% 2^53 - 1, the last integer that every reader of JSON has.
-define(MAX_INTEGER, 9007199254740991).

%% @doc Checks `Mcp-Method', and `Mcp-Name' where the method has one.
-spec check(headers(), Method :: binary(), Params :: map()) -> ok | {mismatch, binary()}.
check(Headers, Method, Params) ->
    case lists:keyfind(<<"mcp-method">>, 1, Headers) of
        {_, Method} -> name(Headers, Method, Params);
        {_, _} -> mismatch(<<"Mcp-Method">>, <<"does not match the body">>);
        false -> mismatch(<<"Mcp-Method">>, <<"is missing">>)
    end.

%% @doc Checks the headers that a tool's input schema asks for with `x-mcp-header'.
-spec check_params(headers(), Arguments :: map(), InputSchema :: map()) ->
    ok | {mismatch, binary()}.
check_params(Headers, Arguments, Schema) ->
    first([
        fun() -> param(Headers, Name, value(Path, Arguments)) end
     || {Name, Path} <- annotated(Schema, [])
    ]).

%% @doc The value of a header, which may be in Base64.
-spec decode(binary()) -> {ok, binary()} | error.
decode(<<"=?base64?", Rest/binary>> = Value) when byte_size(Rest) >= 2 ->
    Size = byte_size(Rest) - 2,
    case Rest of
        <<Text:Size/binary, "?=">> -> base64(Text);
        _ -> plain(Value)
    end;
decode(Value) ->
    plain(Value).

name(Headers, <<"tools/call">>, Params) -> name_is(Headers, <<"name">>, Params);
name(Headers, <<"prompts/get">>, Params) -> name_is(Headers, <<"name">>, Params);
name(Headers, <<"resources/read">>, Params) -> name_is(Headers, <<"uri">>, Params);
name(_, _, _) -> ok.

%% Without a name in the body the request is wrong anyhow, and its method says so.
name_is(Headers, Key, Params) ->
    case {lists:keyfind(<<"mcp-name">>, 1, Headers), Params} of
        {{_, Name}, #{Key := Name}} when binary_part(Name, 0, 1) =/= <<"=">> -> plain_name(Name);
        {{_, Header}, #{Key := Name}} -> same(<<"Mcp-Name">>, decode(Header), Name);
        {false, #{Key := _}} -> mismatch(<<"Mcp-Name">>, <<"is missing">>);
        {false, _} -> ok;
        {{_, _}, _} -> mismatch(<<"Mcp-Name">>, <<"does not match the body">>)
    end.

plain_name(Name) ->
    case plain(Name) of
        {ok, _} -> ok;
        error -> mismatch(<<"Mcp-Name">>, <<"is malformed">>)
    end.

same(_, {ok, Value}, Value) -> ok;
same(Header, {ok, _}, _) -> mismatch(Header, <<"does not match the body">>);
same(Header, error, _) -> mismatch(Header, <<"is malformed">>).

param(Headers, Name, Value) ->
    Header = <<"Mcp-Param-", Name/binary>>,
    case {lists:keyfind(string:lowercase(Header), 1, Headers), Value} of
        {false, none} -> ok;
        {false, _} -> mismatch(Header, <<"is missing">>);
        {_, none} -> mismatch(Header, <<"is not in the body">>);
        {{_, Text}, _} -> param_is(Header, decode(Text), Value)
    end.

param_is(Header, error, _) ->
    mismatch(Header, <<"is malformed">>);
param_is(Header, {ok, Text}, Value) when is_number(Value) ->
    same(Header, {ok, number(Text) == Value}, true);
param_is(Header, {ok, Text}, Value) when is_boolean(Value) ->
    same(Header, {ok, Text}, atom_to_binary(Value));
param_is(Header, Text, Value) ->
    same(Header, Text, Value).

number(Text) ->
    case string:to_integer(Text) of
        {Integer, <<>>} when is_integer(Integer), abs(Integer) =< ?MAX_INTEGER -> Integer;
        _ -> float_or_none(Text)
    end.

float_or_none(Text) ->
    try
        binary_to_float(Text)
    catch
        error:badarg -> none
    end.

value([], null) -> none;
value([], Value) -> Value;
value([Key | Path], Arguments) ->
    case Arguments of
        #{Key := Value} -> value(Path, Value);
        _ -> none
    end.

%% Only what is reached by `properties' alone counts.
annotated(#{<<"properties">> := #{} = Properties}, Path) ->
    lists:append([
        annotation(Property, lists:reverse([Key | Path])) ++ annotated(Property, [Key | Path])
     || {Key, Property} <- maps:to_list(Properties)
    ]);
annotated(_, _) ->
    [].

annotation(#{<<"x-mcp-header">> := Name}, Path) when is_binary(Name) -> [{Name, Path}];
annotation(_, _) -> [].

first([]) ->
    ok;
first([Check | Checks]) ->
    case Check() of
        ok -> first(Checks);
        Mismatch -> Mismatch
    end.

base64(Text) ->
    try base64:decode(Text) of
        Bytes ->
            case is_binary(unicode:characters_to_binary(Bytes)) of
                true -> {ok, Bytes};
                false -> error
            end
    catch
        error:_ -> error
    end.

plain(Value) ->
    case is_plain(Value) of
        true -> {ok, Value};
        false -> error
    end.

is_plain(<<C, Rest/binary>>) when C >= 16#20, C =< 16#7e; C =:= $\t -> is_plain(Rest);
is_plain(Rest) -> Rest =:= <<>>.

mismatch(Header, What) ->
    {mismatch, <<"Header mismatch: ", Header/binary, " ", What/binary>>}.
