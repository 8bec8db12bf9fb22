%% @doc The options of a transport in erlmcp's shapes: erlmcp's own names, and beside them those
%% of {@link erlmcp_native_options}.
%%
%% <ul>
%% <li>erlmcp's: `host', `port', `owner', `server_id', `connect_timeout', `keepalive', `nodelay',
%% `buffer_size' (how much is read ahead), `max_reconnect_attempts' (`0' never tries again),
%% `ssl', `certfile', `keyfile', `test_mode' (is not registered).</li>
%% <li>`endpoint' in place of `host' and `port', for instance `#{path => "/run/mcp.sock"}'.</li>
%% <li>`endpoint => stdio' is the node's own standard input and output, with the options of
%% {@link erlmcp_native_stdio}. It is not connected again.</li>
%% <li>`command', and with it `args', `env', `cwd', `stderr', `stdin_grace_ms', `sigterm_grace_ms',
%% for a child process: see {@link erlmcp_native_child_options}.</li>
%% <li>`path': `nif', `beam' or `default'; `reconnect': a map as {@link erlmcp_native_backoff}
%% has it, `true' or `false'.</li>
%% <li>`guard': `auto', `client', `server' or `false', see {@link erlmcp_native_guard}. `auto'
%% guards a receiver that is a process of erlmcp.</li>
%% <li>`max_owner_queue' (1000) and `max_owner_bytes' (1 MiB): how many messages and bytes may lie
%% unread in the receiver's mailbox before the peer has to wait.</li>
%% <li>`max_answer_bytes' (64 MiB): how much of a server's answers may wait, beside the queue of the
%% connection, for a peer that does not read them; then the connection is cut.</li>
%% </ul>
%%
%% Keys that erlmcp's own callers put into the map and that say nothing to a transport are
%% accepted: `transport_id', `type', `pid', `started_at'. Any other is refused.
-module(erlmcp_native_transport_options).

-export([check/1, check_accepted/2]).

-export_type([options/0, reason/0]).

-type guard() :: auto | false | erlmcp_native_guard:receiver().

-type options() :: #{
    endpoint => erlmcp_native:endpoint(),
    dial := erlmcp_native_link:options(),
    owner := pid() | undefined,
    server_id := erlmcp_native_registry:server_id() | undefined,
    register := boolean(),
    guard := guard(),
    max_owner_queue := pos_integer(),
    max_owner_bytes := pos_integer(),
    max_answer_bytes := pos_integer(),
    given := map()
}.
%% `given': as the user wrote them.

-type reason() :: {invalid_config, {missing_required_fields, [atom()]} | {option, term(), term()}}.

-record(acc, {
    options :: map(),
    endpoint = #{} :: map() | stdio,
    connection = #{} :: map(),
    reconnect = true :: term(),
    max_attempts = infinity :: pos_integer() | infinity | 0,
    tls = #{} :: map(),
    ssl = false :: boolean()
}).

-define(LONGEST_CONNECT_MS, 600000).
-define(MAX_QUEUE, 1000).
-define(MAX_BYTES, 1048576).
-define(MAX_ANSWER_BYTES, 67108864).

%% @doc Checks the options of a transport that makes its connection.
-spec check(map()) -> {ok, options()} | {error, reason()}.
check(Given) ->
    case collect(Given) of
        {ok, Acc} -> complete(Acc);
        {error, _} = Error -> Error
    end.

%% @doc Checks the options of a transport that is given an accepted connection; those of the
%% connection are the listener's.
-spec check_accepted(map(), erlmcp_native_options:listener()) ->
    {ok, options()} | {error, reason()}.
check_accepted(Given, Listener) ->
    case collect(Given) of
        {ok, #acc{options = Options}} ->
            Dial = #{path => default, reconnect => false, connection => Listener},
            {ok, (maps:remove(path, Options))#{dial => Dial}};
        {error, _} = Error ->
            Error
    end.

collect(Given) when is_map(Given) ->
    Step = fun
        (_, _, {error, _} = Error) ->
            Error;
        (Key, Value, {ok, Acc}) ->
            case option(Key, Value, Acc) of
                #acc{} = Next -> {ok, Next};
                refused -> refuse(Key, Value)
            end
    end,
    maps:fold(Step, {ok, #acc{options = defaults(Given)}}, Given);
collect(Given) ->
    refuse(options, Given).

defaults(Given) ->
    #{
        owner => undefined,
        server_id => undefined,
        register => true,
        guard => auto,
        max_owner_queue => ?MAX_QUEUE,
        max_owner_bytes => ?MAX_BYTES,
        max_answer_bytes => ?MAX_ANSWER_BYTES,
        given => Given,
        path => default
    }.

option(Key, Value, #acc{endpoint = Endpoint} = Acc) when
    Key =:= host;
    Key =:= port;
    Key =:= command;
    Key =:= args;
    Key =:= env;
    Key =:= cwd;
    Key =:= stderr;
    Key =:= stdin_grace_ms;
    Key =:= sigterm_grace_ms
->
    Acc#acc{endpoint = Endpoint#{Key => Value}};
option(endpoint, stdio, Acc) ->
    Acc#acc{endpoint = stdio};
option(endpoint, Value, Acc) when is_map(Value) ->
    Acc#acc{endpoint = maps:merge(Acc#acc.endpoint, Value)};
option(owner, Value, Acc) when is_pid(Value); Value =:= undefined ->
    set(owner, Value, Acc);
option(server_id, Value, Acc) when is_atom(Value); is_binary(Value) ->
    set(server_id, Value, Acc);
option(connect_timeout, infinity, Acc) ->
    connection(connect_timeout_ms, ?LONGEST_CONNECT_MS, Acc);
option(connect_timeout, Value, Acc) ->
    connection(connect_timeout_ms, Value, Acc);
option(buffer_size, Value, Acc) ->
    connection(high_water_bytes, Value, Acc);
option(max_reconnect_attempts, Value, Acc) when
    Value =:= infinity; is_integer(Value), Value >= 0
->
    Acc#acc{max_attempts = Value};
option(ssl, Value, Acc) when is_boolean(Value) ->
    Acc#acc{ssl = Value};
option(Key, Value, #acc{tls = Tls} = Acc) when Key =:= certfile; Key =:= keyfile ->
    Acc#acc{tls = Tls#{Key => Value}};
option(test_mode, Value, Acc) when is_boolean(Value) ->
    set(register, not Value, Acc);
option(path, Value, Acc) when
    Value =:= nif; Value =:= port; Value =:= beam; Value =:= default
->
    set(path, Value, Acc);
option(reconnect, Value, Acc) ->
    Acc#acc{reconnect = Value};
option(guard, Value, Acc) when
    Value =:= auto; Value =:= client; Value =:= server; Value =:= false
->
    set(guard, Value, Acc);
option(Key, Value, Acc) when
    Key =:= max_owner_queue orelse Key =:= max_owner_bytes orelse Key =:= max_answer_bytes,
    is_integer(Value),
    Value > 0
->
    set(Key, Value, Acc);
option(Key, _, Acc) when
    Key =:= transport_id; Key =:= type; Key =:= pid; Key =:= started_at
->
    Acc;
option(Key, Value, Acc) ->
    case ours(Key) of
        true -> refused;
        false -> connection(Key, Value, Acc)
    end.

%% Keys with a meaning here, of which the value was refused.
ours(Key) ->
    lists:member(Key, [
        endpoint,
        owner,
        server_id,
        max_reconnect_attempts,
        ssl,
        test_mode,
        path,
        guard,
        max_owner_queue,
        max_owner_bytes,
        max_answer_bytes
    ]).

set(Key, Value, #acc{options = Options} = Acc) ->
    Acc#acc{options = Options#{Key := Value}}.

connection(Key, Value, #acc{connection = Connection} = Acc) ->
    Acc#acc{connection = Connection#{Key => Value}}.

complete(#acc{endpoint = Endpoint, options = #{path := Path} = Options} = Acc) ->
    maybe_all(
        [
            fun() -> endpoint(Endpoint) end,
            fun() -> connection(Acc) end,
            fun() -> reconnect(Acc) end
        ],
        fun([Checked, Connection, Reconnect]) ->
            (maps:remove(path, Options))#{
                endpoint => Checked,
                dial => #{path => Path, reconnect => Reconnect, connection => Connection}
            }
        end
    ).

connection(#acc{endpoint = stdio} = Acc) ->
    erlmcp_native_stdio:options(with_tls(Acc));
connection(#acc{endpoint = Endpoint} = Acc) ->
    case erlmcp_native_options:connection(with_tls(Acc)) of
        {ok, Connection} -> erlmcp_native_options:fits(Connection, Endpoint);
        {error, _} = Error -> Error
    end.

maybe_all(Checks, Build) ->
    Step = fun
        (_, {error, _} = Error) ->
            Error;
        (Check, Values) ->
            case Check() of
                {ok, Value} -> [Value | Values];
                {error, Reason} -> {error, {invalid_config, Reason}}
            end
    end,
    case lists:foldl(Step, [], Checks) of
        {error, _} = Error -> Error;
        Values -> {ok, Build(lists:reverse(Values))}
    end.

endpoint(stdio) ->
    {ok, stdio};
%% The shapes of erlmcp have no word for lines of standard error.
endpoint(#{command := _, stderr := owner}) ->
    {error, {option, stderr, owner}};
endpoint(#{command := _} = Child) ->
    erlmcp_native_options:target(Child);
endpoint(Endpoint) when is_map_key(path, Endpoint); is_map_key(abstract, Endpoint) ->
    erlmcp_native_options:endpoint(Endpoint);
endpoint(Endpoint) ->
    case [Key || Key <- [host, port], not is_map_key(Key, Endpoint)] of
        [] -> dialled(Endpoint);
        Missing -> {error, {missing_required_fields, Missing}}
    end.

%% Port 0 is for listeners.
dialled(#{port := 0}) -> {error, {option, port, 0}};
dialled(Endpoint) -> erlmcp_native_options:endpoint(Endpoint).

with_tls(#acc{ssl = true, tls = Tls, connection = Connection}) when map_size(Tls) =:= 0 ->
    maps:merge(#{tls => true}, Connection);
with_tls(#acc{ssl = true, tls = Tls, connection = Connection}) ->
    maps:merge(#{tls => Tls}, Connection);
with_tls(#acc{connection = Connection}) ->
    Connection.

reconnect(#acc{endpoint = stdio}) ->
    {ok, false};
reconnect(#acc{reconnect = false}) ->
    {ok, false};
reconnect(#acc{max_attempts = 0}) ->
    {ok, false};
reconnect(#acc{reconnect = Given, max_attempts = Attempts}) ->
    case erlmcp_native_backoff:options(Given) of
        {ok, #{max_attempts := infinity} = Backoff} ->
            {ok, Backoff#{max_attempts := Attempts}};
        {ok, Backoff} ->
            {ok, Backoff};
        {error, {Key, Value}} ->
            {error, {option, {reconnect, Key}, Value}};
        {error, badmap} ->
            {error, {option, reconnect, Given}}
    end.

refuse(Key, Value) ->
    {error, {invalid_config, {option, Key, Value}}}.
