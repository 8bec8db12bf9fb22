%% @private The options of an MCP client over HTTP, checked once and completed with defaults.
-module(erlmcp_native_http_client_options).

-export([check/2, headers/1]).

-export_type([options/0, headers/0]).

-type headers() :: [{Name :: binary(), Value :: binary()}] | {module(), atom(), [term()]}.
%% A function is called for each request and returns such a list: tokens change.

-type options() :: #{
    url := erlmcp_native_http_client_url:url(),
    owner := pid(),
    path := erlmcp_native_path:path() | default,
    headers := headers(),
    revision := binary(),
    reinitialize := boolean(),
    initialized := owner | auto,
    get_stream := boolean(),
    http_sse := boolean(),
    max_message_bytes := pos_integer(),
    max_pending := pos_integer(),
    max_owner_queue := pos_integer(),
    max_owner_bytes := pos_integer(),
    max_redirects := non_neg_integer(),
    max_resumes := non_neg_integer(),
    retries := non_neg_integer(),
    retry_unsafe := boolean(),
    retry_min_ms := pos_integer(),
    retry_max_ms := pos_integer(),
    timeout_ms := pos_integer(),
    total_timeout_ms := pos_integer() | infinity,
    breaker := boolean() | map(),
    http := erlmcp_native_http_options:client()
}.

-define(MIB, 1048576).

%% What is written for each request by the client or its path.
-define(RESERVED, [
    <<"accept">>,
    <<"connection">>,
    <<"content-length">>,
    <<"content-type">>,
    <<"host">>,
    <<"last-event-id">>,
    <<"mcp-protocol-version">>,
    <<"mcp-session-id">>,
    <<"transfer-encoding">>
]).

%% @doc `Given' holds those of {@link erlmcp_native_http_options:client()} as well.
-spec check(Url :: term(), Given :: term()) ->
    {ok, options()} | {error, erlmcp_native:reason()}.
check(Url, Given) when is_map(Given) ->
    Defaults = (defaults())#{owner => self()},
    Own = maps:with(maps:keys(Defaults), Given),
    case erlmcp_native_http_client_url:parse(Url) of
        {ok, Parsed} ->
            Rest = maps:without(maps:keys(Own), Given),
            own(Parsed, maps:to_list(Own), Defaults, Rest);
        error ->
            {error, {option, url, Url}}
    end;
check(_, Given) ->
    {error, {option, options, Given}}.

defaults() ->
    #{
        path => default,
        headers => [],
        revision => <<"2025-11-25">>,
        reinitialize => false,
        initialized => owner,
        get_stream => true,
        http_sse => true,
        max_message_bytes => 16 * ?MIB,
        max_pending => 1000,
        max_owner_queue => 1000,
        max_owner_bytes => ?MIB,
        max_redirects => 5,
        max_resumes => 5,
        retries => 3,
        retry_unsafe => false,
        retry_min_ms => 100,
        retry_max_ms => 5000,
        timeout_ms => 30000,
        total_timeout_ms => 600000,
        breaker => false
    }.

own(Url, [], Options, Rest) ->
    case erlmcp_native_http_options:client(Rest) of
        {ok, Http} -> {ok, Options#{url => Url, http => Http}};
        {error, _} = Error -> Error
    end;
own(Url, [{headers, Value} | Own], Options, Rest) ->
    case headers(Value) of
        {ok, Headers} -> own(Url, Own, Options#{headers := Headers}, Rest);
        error -> {error, {option, headers, Value}}
    end;
own(Url, [{Key, Value} | Own], Options, Rest) ->
    case valid(Key, Value) of
        true -> own(Url, Own, Options#{Key := Value}, Rest);
        false -> {error, {option, Key, Value}}
    end.

%% @doc The headers of an owner, names in lower case.
-spec headers(term()) -> {ok, headers()} | error.
headers({M, F, A} = Function) when is_atom(M), is_atom(F), is_list(A) ->
    {ok, Function};
headers(Given) when is_list(Given) ->
    Headers = [header(Header) || Header <- Given],
    case lists:member(error, Headers) of
        true -> error;
        false -> {ok, Headers}
    end;
headers(_) ->
    error.

header({Name, Value}) ->
    case {text(Name), text(Value)} of
        {<<_, _/binary>> = N, V} when is_binary(V) -> sound(string:lowercase(N), string:trim(V));
        _ -> error
    end;
header(_) ->
    error.

sound(Name, Value) ->
    Token = re:run(Name, "^[-!#$%&'*+.^_`|~0-9a-z]+$", [{capture, none}, dollar_endonly]),
    Field = re:run(Value, "^[\t -~\\x80-\\xff]*$", [{capture, none}, dollar_endonly]),
    case {Token, Field, lists:member(Name, ?RESERVED)} of
        {match, match, false} -> {Name, Value};
        _ -> error
    end.

text(Text) when is_binary(Text) ->
    Text;
text(Text) when is_list(Text) ->
    try
        iolist_to_binary(Text)
    catch
        error:badarg -> error
    end;
text(_) ->
    error.

valid(owner, V) -> is_pid(V);
valid(breaker, V) -> V =:= false orelse element(1, erlmcp_native_breaker:options(V)) =:= ok;
valid(path, V) -> lists:member(V, [default, nif, port, beam]);
valid(revision, V) -> is_binary(V);
valid(initialized, V) -> V =:= owner orelse V =:= auto;
valid(max_message_bytes, V) -> in(V, 1, 16#ffffffff);
valid(max_pending, V) -> in(V, 1, 1000000);
valid(max_owner_queue, V) -> in(V, 1, 1000000);
valid(max_owner_bytes, V) -> in(V, 1, 16#ffffffff);
valid(max_redirects, V) -> in(V, 0, 100);
valid(max_resumes, V) -> in(V, 0, 1000000);
valid(retries, V) -> in(V, 0, 1000);
valid(retry_min_ms, V) -> in(V, 1, 600000);
valid(retry_max_ms, V) -> in(V, 1, 600000);
valid(timeout_ms, V) -> in(V, 1, 86400000);
valid(total_timeout_ms, V) -> V =:= infinity orelse in(V, 1, 86400000);
valid(Key, V) when
    Key =:= reinitialize; Key =:= get_stream; Key =:= http_sse; Key =:= retry_unsafe
->
    is_boolean(V);
valid(_, _) ->
    false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.
