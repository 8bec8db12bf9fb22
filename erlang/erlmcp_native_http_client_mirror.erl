%% @private The headers that repeat what is in the body of a request, from revision 2026-07-28 on:
%% `Mcp-Method', `Mcp-Name', and `Mcp-Param-' for the arguments of a tool that its definition marks
%% with `x-mcp-header'. Pure.
-module(erlmcp_native_http_client_mirror).

-export([headers/2, tool/1, encode/1]).

-export_type([marks/0, tools/0, fault/0]).

-type marks() :: [{Header :: binary(), Path :: [binary(), ...]}].
%% Which arguments of a tool are repeated; `Path' leads to the value.

-type tools() :: #{Name :: binary() => marks()}.

-type fault() :: not_a_token | not_unique | not_primitive | not_reachable.

-define(MARK, <<"x-mcp-header">>).

%% The keys below these keywords are names, and no keywords.
-define(NAMES, [
    <<"properties">>,
    <<"patternProperties">>,
    <<"$defs">>,
    <<"definitions">>,
    <<"dependentSchemas">>
]).

%% Below these keywords of a schema there is data, not schemas.
-define(DATA, [<<"const">>, <<"enum">>, <<"default">>, <<"examples">>]).

%% The largest integer that every peer reads exactly.
-define(MAX_SAFE, 9007199254740991).

%% @doc The headers of a request.
-spec headers(Request :: map(), tools()) -> [{binary(), binary()}].
headers(#{<<"method">> := Method} = Request, Tools) ->
    Params = maps:get(<<"params">>, Request, #{}),
    [{<<"mcp-method">>, encode(Method)} | name(Method, Params) ++ params(Method, Params, Tools)].

%% @doc What the definition of a tool marks, or what is wrong with its marks.
-spec tool(Definition :: term()) -> {ok, Name :: binary(), marks()} | {error, fault()} | unnamed.
tool(#{<<"name">> := Name} = Tool) when is_binary(Name) ->
    case unique(properties(maps:get(<<"inputSchema">>, Tool, #{}), [])) of
        {ok, Marks} -> {ok, Name, Marks};
        {error, _} = Error -> Error
    end;
tool(_) ->
    unnamed.

%% @doc A value as header fields can carry it: itself where it is visible ASCII, else Base64.
-spec encode(binary()) -> binary().
encode(Value) ->
    Plain = re:run(Value, "^[!-~]([\t -~]*[!-~])?$", [{capture, none}, dollar_endonly]),
    case Plain =:= match andalso not looks_encoded(Value) of
        true -> Value;
        false -> <<"=?base64?", (base64:encode(Value))/binary, "?=">>
    end.

looks_encoded(<<"=?base64?", Rest/binary>>) ->
    byte_size(Rest) >= 2 andalso binary:part(Rest, byte_size(Rest), -2) =:= <<"?=">>;
looks_encoded(_) ->
    false.

name(<<"tools/call">>, #{<<"name">> := Name}) -> named(Name);
name(<<"prompts/get">>, #{<<"name">> := Name}) -> named(Name);
name(<<"resources/read">>, #{<<"uri">> := Uri}) -> named(Uri);
name(_, _) -> [].

named(Name) when is_binary(Name) -> [{<<"mcp-name">>, encode(Name)}];
named(_) -> [].

params(<<"tools/call">>, #{<<"name">> := Name} = Params, Tools) when is_map_key(Name, Tools) ->
    Arguments = maps:get(<<"arguments">>, Params, #{}),
    [
        {<<"mcp-param-", Header/binary>>, Value}
     || {Header, Path} <- maps:get(Name, Tools), {ok, Value} <- [value(Path, Arguments)]
    ];
params(_, _, _) ->
    [].

value([], Value) ->
    primitive(Value);
value([Key | Path], Arguments) when is_map_key(Key, Arguments) ->
    value(Path, maps:get(Key, Arguments));
value(_, _) ->
    none.

primitive(true) -> {ok, <<"true">>};
primitive(false) -> {ok, <<"false">>};
primitive(Value) when is_binary(Value) -> {ok, encode(Value)};
primitive(Value) when is_integer(Value), abs(Value) =< ?MAX_SAFE -> {ok, integer_to_binary(Value)};
primitive(Value) when is_float(Value), trunc(Value) == Value, abs(Value) =< ?MAX_SAFE ->
    {ok, integer_to_binary(trunc(Value))};
primitive(_) -> none.

%% ---- schemas

%% All marks that a chain of `properties' reaches, and a fault for each that anything else does.
properties(#{<<"properties">> := Properties} = Schema, Path) when is_map(Properties) ->
    Reached = [property(Property, Path ++ [Key]) || {Key, Property} <- maps:to_list(Properties)],
    lists:append(Reached) ++ elsewhere(maps:remove(<<"properties">>, Schema));
properties(Schema, _) ->
    elsewhere(Schema).

property(#{?MARK := Header} = Schema, Path) ->
    [mark(Header, Path, Schema) | properties(maps:remove(?MARK, Schema), Path)];
property(Schema, Path) ->
    properties(Schema, Path).

mark(Header, Path, #{<<"type">> := Type}) when
    Type =:= <<"string">>; Type =:= <<"integer">>; Type =:= <<"boolean">>
->
    case token(Header) of
        true -> {string:lowercase(Header), Path};
        false -> not_a_token
    end;
mark(_, _, _) ->
    not_primitive.

token(Header) when is_binary(Header) ->
    Pattern = "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$",
    re:run(Header, Pattern, [{capture, none}, dollar_endonly]) =:= match;
token(_) ->
    false.

elsewhere(#{?MARK := _}) ->
    [not_reachable];
elsewhere(Schema) when is_map(Schema) ->
    lists:append([elsewhere(Key, Value) || {Key, Value} <- maps:to_list(Schema)]);
elsewhere(Schemas) when is_list(Schemas) ->
    lists:append([elsewhere(Schema) || Schema <- Schemas]);
elsewhere(_) ->
    [].

elsewhere(Key, Value) ->
    case {lists:member(Key, ?NAMES), lists:member(Key, ?DATA)} of
        {true, _} when is_map(Value) -> elsewhere(maps:values(Value));
        {_, true} -> [];
        _ -> elsewhere(Value)
    end.

unique(Found) ->
    Headers = [Header || {Header, _} <- Found],
    case [Fault || Fault <- Found, is_atom(Fault)] of
        [Fault | _] -> {error, Fault};
        [] when Headers =:= [] -> {ok, []};
        [] -> distinct(length(lists:usort(Headers)) =:= length(Headers), Found)
    end.

distinct(true, Marks) -> {ok, Marks};
distinct(false, _) -> {error, not_unique}.
