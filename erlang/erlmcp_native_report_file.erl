%% @doc Reports as files: JSON that can be read back, and the page.
-module(erlmcp_native_report_file).

-export([write/2, read/1, encode/1, decode/1]).

%% Whose values are names: atoms before, atoms again afterwards.
-define(NAMES, [
    row, transport, path, better, kind, scale, name, severity, scope, option, verdict, analysis
]).

%% @doc Writes `report.json' and `report.html' into a folder, which is made if need be.
-spec write(erlmcp_native_report:report(), file:filename()) ->
    {ok, #{json := file:filename(), html := file:filename()}}
    | {error, {file:filename(), file:posix() | badarg | terminated | system_limit}}.
write(Report, Dir) ->
    Json = filename:join(Dir, "report.json"),
    Html = filename:join(Dir, "report.html"),
    case {store(Json, encode(Report)), store(Html, erlmcp_native_report_html:page(Report))} of
        {ok, ok} -> {ok, #{json => Json, html => Html}};
        {{error, _} = Error, _} -> Error;
        {_, {error, _} = Error} -> Error
    end.

store(File, Content) ->
    case filelib:ensure_dir(File) of
        ok -> stored(File, file:write_file(File, Content));
        {error, _} = Error -> stored(File, Error)
    end.

stored(_, ok) -> ok;
stored(File, {error, Reason}) -> {error, {File, Reason}}.

%% @doc A report as JSON. What has none is written as Erlang's text.
-spec encode(erlmcp_native_report:report()) -> binary().
encode(Report) ->
    erlmcp_native_json:encode(plain(Report)).

%% Evidence and options may hold any term.
plain(Map) when is_map(Map) ->
    maps:from_list([{key(K), plain(V)} || {K, V} <- maps:to_list(Map)]);
plain(List) when is_list(List) ->
    case is_proper(List) of
        true -> [plain(E) || E <- List];
        false -> words(List)
    end;
plain(Binary) when is_binary(Binary) ->
    case unicode:characters_to_binary(Binary) of
        Binary -> Binary;
        _ -> words(Binary)
    end;
plain(Value) when is_atom(Value); is_number(Value) -> Value;
plain(Value) -> words(Value).

is_proper(List) ->
    try length(List) of
        _ -> true
    catch
        error:badarg -> false
    end.

key(Key) when is_atom(Key); is_binary(Key); is_integer(Key) -> Key;
key(Key) -> words(Key).

words(Term) -> iolist_to_binary(io_lib:format("~0p", [Term])).

%% @doc Reads `report.json'.
-spec read(file:filename()) ->
    {ok, erlmcp_native_report:report()} | {error, file:posix() | badarg | terminated | system_limit
        | {json, erlmcp_native_json:fault()} | not_a_report}.
read(File) ->
    case file:read_file(File) of
        {ok, Json} -> decode(Json);
        {error, _} = Error -> Error
    end.

%% @doc What {@link encode/1} has made.
-spec decode(binary()) ->
    {ok, erlmcp_native_report:report()}
    | {error, {json, erlmcp_native_json:fault()} | not_a_report}.
decode(Json) ->
    %% The names that a report has are atoms once these are loaded.
    _ = [code:ensure_loaded(M) || M <- [erlmcp_native_report, erlmcp_native_report_rows]],
    case erlmcp_native_json:decode(Json, #{keys => existing_atom}) of
        {ok, #{meta := Meta, rows := Rows, analyses := _, findings := _} = Report} when
            is_map(Meta), is_list(Rows)
        ->
            {ok, names(Report)};
        {ok, _} ->
            {error, not_a_report};
        {error, Fault} ->
            {error, {json, Fault}}
    end.

names(Map) when is_map(Map) -> maps:map(fun named/2, Map);
names(List) when is_list(List) -> [names(E) || E <- List];
names(Value) -> Value.

named(Key, Value) when is_binary(Value) ->
    case lists:member(Key, ?NAMES) of
        true -> existing(Value);
        false -> Value
    end;
named(_, Value) ->
    names(Value).

existing(Name) ->
    try
        binary_to_existing_atom(Name)
    catch
        error:badarg -> Name
    end.
