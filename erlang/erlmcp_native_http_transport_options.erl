%% @doc The options of a transport over HTTP in erlmcp's shapes: erlmcp's own names, and beside them
%% those of {@link erlmcp_native_http_client}.
%%
%% <ul>
%% <li>erlmcp's: `url', `owner', `server_id', `method' (only `post': MCP has no other), `headers' (a
%% list of pairs or a map), `timeout', `connect_timeout', `max_retries', `retry_delay' (the least
%% delay before a second retry), `ssl_options' (`verify', `cacertfile', `certfile', `keyfile',
%% `server_name_indication' and `versions'), `pool_size' (connections), `test_mode' (is not
%% registered).</li>
%% <li>`guard', `max_owner_queue' and `max_owner_bytes' as in
%% {@link erlmcp_native_transport_options}.</li>
%% </ul>
%%
%% A session that the server has ended is made again unless `reinitialize' is `false', and
%% `notifications/initialized', which erlmcp's client does not send, is sent for it unless
%% `initialized' is `owner'.
%%
%% Keys that erlmcp's own callers put into the map and that say nothing to a transport are
%% accepted: `transport_id', `type', `pid', `started_at', `host', `port'. Any other is refused.
-module(erlmcp_native_http_transport_options).

-export([check/1]).

-export_type([options/0, reason/0]).

-type options() :: #{
    client := erlmcp_native_http_client_options:options(),
    owner := pid() | undefined,
    server_id := erlmcp_native_registry:server_id() | undefined,
    register := boolean(),
    guard := auto | false | erlmcp_native_guard:receiver(),
    type := http,
    given := map()
}.
%% `given': as the user wrote them, without what may hold secrets: the registry shows it to all.

-type reason() :: {invalid_config, {missing_required_fields, [atom()]} | {option, term(), term()}}.

-define(LONGEST_MS, 86400000).
-define(LONGEST_CONNECT_MS, 600000).

-spec check(map()) -> {ok, options()} | {error, reason()}.
check(#{url := Url} = Given) ->
    Step = fun
        (_, _, {error, _} = Error) -> Error;
        (Key, Value, Acc) -> option(Key, Value, Acc)
    end,
    case maps:fold(Step, {defaults(Given), #{}}, maps:remove(url, Given)) of
        {error, _} = Error -> Error;
        {Own, Client} -> client(Url, Client, Own)
    end;
check(Given) when is_map(Given) ->
    {error, {invalid_config, {missing_required_fields, [url]}}};
check(Given) ->
    refuse(options, Given).

defaults(Given) ->
    #{
        owner => undefined,
        server_id => undefined,
        register => true,
        guard => auto,
        type => http,
        given => maps:without([headers, ssl_options, tls, proxy], Given)
    }.

client(Url, Client, Own) ->
    Defaults = #{reinitialize => true, initialized => auto},
    case erlmcp_native_http_client_options:check(Url, maps:merge(Defaults, Client)) of
        {ok, Checked} -> {ok, Own#{client => Checked}};
        {error, {option, Key, Value}} -> refuse(Key, Value);
        {error, _} -> refuse(url, Url)
    end.

option(owner, Value, Acc) when is_pid(Value); Value =:= undefined -> own(owner, Value, Acc);
option(server_id, Value, Acc) when is_atom(Value); is_binary(Value) -> own(server_id, Value, Acc);
option(test_mode, Value, Acc) when is_boolean(Value) -> own(register, not Value, Acc);
option(guard, Value, Acc) when
    Value =:= auto; Value =:= client; Value =:= server; Value =:= false
->
    own(guard, Value, Acc);
option(Key, Value, _) when
    Key =:= owner; Key =:= server_id; Key =:= test_mode; Key =:= guard
->
    refuse(Key, Value);
option(method, Value, Acc) ->
    case lists:member(Value, [post, 'POST', "POST", <<"POST">>]) of
        true -> Acc;
        false -> refuse(method, Value)
    end;
option(headers, Value, Acc) when is_map(Value) ->
    option(headers, maps:to_list(Value), Acc);
option(headers, Value, Acc) when is_list(Value) ->
    http(headers, [Header || Header <- Value, not is_ours(Header)], Acc);
option(timeout, infinity, Acc) ->
    http(timeout_ms, ?LONGEST_MS, Acc);
option(timeout, Value, Acc) ->
    http(timeout_ms, Value, Acc);
option(connect_timeout, infinity, Acc) ->
    http(connect_timeout_ms, ?LONGEST_CONNECT_MS, Acc);
option(connect_timeout, Value, Acc) ->
    http(connect_timeout_ms, Value, Acc);
option(max_retries, Value, Acc) ->
    http(retries, Value, Acc);
option(retry_delay, Value, Acc) ->
    http(retry_min_ms, Value, Acc);
option(pool_size, Value, Acc) ->
    http(max_connections, Value, Acc);
option(http_options, [], Acc) ->
    Acc;
option(ssl_options, Value, Acc) when is_list(Value) ->
    case lists:foldl(fun tls/2, #{}, Value) of
        refused -> refuse(ssl_options, Value);
        Tls when map_size(Tls) =:= 0 -> Acc;
        Tls -> http(tls, Tls, Acc)
    end;
option(Key, _, Acc) when
    Key =:= transport_id; Key =:= type; Key =:= pid; Key =:= started_at; Key =:= host; Key =:= port
->
    Acc;
option(Key, Value, Acc) ->
    http(Key, Value, Acc).

own(Key, Value, {Own, Client}) -> {Own#{Key := Value}, Client}.

http(Key, Value, {Own, Client}) -> {Own, Client#{Key => Value}}.

%% What erlmcp's users had to give is written by the client itself.
is_ours({Name, _}) ->
    Lower = string:lowercase(unicode:characters_to_binary(io_lib:format("~ts", [Name]))),
    Lower =:= <<"content-type">> orelse Lower =:= <<"accept">>;
is_ours(_) ->
    false.

tls(_, refused) -> refused;
tls({verify, verify_peer}, Tls) -> Tls#{verify => peer};
tls({verify, verify_none}, Tls) -> Tls#{verify => none};
tls({server_name_indication, Name}, Tls) when is_list(Name) -> Tls#{server_name => Name};
tls({Key, File}, Tls) when Key =:= cacertfile; Key =:= certfile; Key =:= keyfile ->
    Tls#{Key => File};
tls({versions, ['tlsv1.3']}, Tls) -> Tls#{min_version => 'tlsv1.3'};
tls({versions, [_ | _] = Versions}, Tls) ->
    case Versions -- ['tlsv1.2', 'tlsv1.3'] of
        [] -> Tls#{min_version => 'tlsv1.2'};
        _ -> refused
    end;
tls(_, _) -> refused.

refuse(Key, Value) ->
    {error, {invalid_config, {option, Key, Value}}}.
