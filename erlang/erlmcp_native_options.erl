%% @doc The options of connections and listeners, checked once and completed with defaults.
%%
%% Options are a map. An unknown key, a value of the wrong type or out of range is refused with
%% `{error, {option, Key, Value}}' and nothing is started.
-module(erlmcp_native_options).

-export([connection/1, listener/1, endpoint/1, target/1, fits/2, check/4]).

-export_type([check/0]).

-export_type([connection/0, listener/0, tls/0, framing/0]).

-type check() :: fun((Key :: atom(), Value :: term()) -> boolean()).

-type framing() :: line | length4.
%% `line': newline-delimited, `\r\n' accepted, empty lines skipped (MCP stdio framing).
%% `length4': a big-endian 32-bit length before each message.

-type tls() :: #{
    verify := peer | none,
    cacertfile := file:filename_all() | system,
    certfile := file:filename_all() | none,
    keyfile := file:filename_all() | none,
    server_name := binary() | from_endpoint,
    min_version := 'tlsv1.2' | 'tlsv1.3'
}.
%% On a listener `verify => peer' asks for a client certificate and refuses a client without
%% one; its default there is `none'.

-type connection() :: #{
    framing := framing(),
    max_frame_bytes := pos_integer(),
    on_oversize := close | discard,
    high_water_min_bytes := pos_integer(),
    high_water_bytes := pos_integer(),
    max_queue_bytes := pos_integer(),
    max_urgent_bytes := non_neg_integer(),
    copy := boolean(),
    decode := none | json,
    half_close := boolean(),
    nodelay := boolean(),
    keepalive := boolean(),
    linger_ms := non_neg_integer(),
    connect_timeout_ms := pos_integer(),
    attempt_delay_ms := pos_integer(),
    handshake_timeout_ms := pos_integer(),
    bind := inet:ip_address() | any,
    tls := false | tls(),
    %% Of standard input and output: what only these have.
    stdio => map()
}.

%% Of the option `high_water_bytes => {Min, Max}' both are here, and twice the same of one number.

-type listener() :: #{
    framing := framing(),
    max_frame_bytes := pos_integer(),
    on_oversize := close | discard,
    high_water_min_bytes := pos_integer(),
    high_water_bytes := pos_integer(),
    max_queue_bytes := pos_integer(),
    max_urgent_bytes := non_neg_integer(),
    copy := boolean(),
    decode := none | json,
    half_close := boolean(),
    nodelay := boolean(),
    keepalive := boolean(),
    linger_ms := non_neg_integer(),
    handshake_timeout_ms := pos_integer(),
    backlog := pos_integer(),
    tls := false | tls()
}.

-define(MIB, 1048576).

%% @doc Where to connect to or listen on: `#{host, port}', `#{path}' for a Unix-domain socket in
%% the file system, `#{abstract}' for one in Linux's abstract namespace. `host' is a name or an
%% address; a listener's default is 127.0.0.1, its port may be 0.
-spec endpoint(term()) -> {ok, erlmcp_native:endpoint()} | {error, erlmcp_native:reason()}.
endpoint(#{host := Host, port := Port} = Endpoint) when map_size(Endpoint) =:= 2 ->
    case host(Host) of
        {ok, Checked} when is_integer(Port), Port >= 0, Port =< 65535 ->
            {ok, #{host => Checked, port => Port}};
        {ok, _} ->
            {error, {option, port, Port}};
        error ->
            {error, {option, host, Host}}
    end;
endpoint(#{port := Port} = Endpoint) when map_size(Endpoint) =:= 1 ->
    endpoint(#{host => {127, 0, 0, 1}, port => Port});
endpoint(#{path := Path} = Endpoint) when map_size(Endpoint) =:= 1 ->
    case text(Path) of
        %% sun_path is 108 bytes on Linux and 104 elsewhere, with a closing zero.
        {ok, Bin} when byte_size(Bin) > 0, byte_size(Bin) < 104 -> {ok, #{path => Bin}};
        _ -> {error, {option, path, Path}}
    end;
endpoint(#{abstract := Name} = Endpoint) when map_size(Endpoint) =:= 1 ->
    case text(Name) of
        {ok, Bin} when byte_size(Bin) > 0, byte_size(Bin) < 107 -> {ok, #{abstract => Bin}};
        _ -> {error, {option, abstract, Name}}
    end;
endpoint(Other) ->
    {error, {option, endpoint, Other}}.

%% @doc What to connect to: an endpoint, or a child process, see
%% {@link erlmcp_native_child_options}, or `stdio', see {@link erlmcp_native_stdio}.
-spec target(term()) ->
    {ok, erlmcp_native:endpoint()} | {error, erlmcp_native:reason()}.
target(stdio) ->
    {ok, stdio};
target(#{command := _} = Child) ->
    erlmcp_native_child_options:check(Child);
target(Other) ->
    endpoint(Other).

%% @doc Refuses options that mean something that a child process does not have.
-spec fits(connection(), erlmcp_native:endpoint()) ->
    {ok, connection()} | {error, erlmcp_native:reason()}.
fits(#{tls := Tls}, #{command := _}) when Tls =/= false -> {error, {option, tls, Tls}};
fits(#{half_close := true}, #{command := _}) -> {error, {option, half_close, true}};
fits(Options, _) -> {ok, Options}.

%% @doc Checks the options of a connection.
-spec connection(term()) -> {ok, connection()} | {error, erlmcp_native:reason()}.
connection(Options) ->
    check(Options, maps:merge(common(), dialling()), fun valid/2, client).

%% @doc Checks the options of a listener.
-spec listener(term()) -> {ok, listener()} | {error, erlmcp_native:reason()}.
listener(Options) ->
    check(Options, (common())#{backlog => 1024}, fun valid/2, server).

common() ->
    #{
        framing => line,
        max_frame_bytes => 16 * ?MIB,
        on_oversize => close,
        high_water_min_bytes => ?MIB,
        high_water_bytes => ?MIB,
        max_queue_bytes => 8 * ?MIB,
        max_urgent_bytes => 65536,
        copy => false,
        decode => none,
        half_close => false,
        nodelay => true,
        keepalive => true,
        linger_ms => 5000,
        handshake_timeout_ms => 10000,
        tls => false
    }.

dialling() ->
    #{connect_timeout_ms => 5000, attempt_delay_ms => 250, bind => any}.

%% @doc Completes options with defaults; a key that has none, and a value that does not satisfy the
%% check, is refused. `tls' is checked here, for the side named.
-spec check(term(), map(), check(), client | server) ->
    {ok, map()} | {error, erlmcp_native:reason()}.
check(Options, Defaults, Valid, Side) when is_map(Options) ->
    Step = fun
        (_, _, {error, _} = Error) ->
            Error;
        (tls, Value, {ok, Acc}) ->
            put_tls(Value, tls(Side, Value), Acc);
        (high_water_bytes, Value, {ok, #{high_water_min_bytes := _} = Acc}) ->
            put_high_water(Value, Acc);
        (Key, Value, {ok, Acc}) ->
            case is_map_key(Key, Defaults) andalso Valid(Key, Value) of
                true -> {ok, Acc#{Key := Value}};
                false -> {error, {option, Key, Value}}
            end
    end,
    maps:fold(Step, {ok, Defaults}, Options);
check(Options, _, _, _) ->
    {error, {option, options, Options}}.

put_tls(_, {ok, Tls}, Acc) -> {ok, Acc#{tls := Tls}};
put_tls(_, {error, {Key, Value}}, _) -> {error, {option, {tls, Key}, Value}};
put_tls(Value, error, _) -> {error, {option, tls, Value}}.

%% Bounds, between which it adapts, or one value.
put_high_water({Min, Max} = Value, Acc) ->
    case in(Min, 1, Max) andalso in(Max, 1, 16#ffffffff) of
        true -> {ok, Acc#{high_water_min_bytes := Min, high_water_bytes := Max}};
        false -> {error, {option, high_water_bytes, Value}}
    end;
put_high_water(Value, Acc) ->
    case in(Value, 1, 16#ffffffff) of
        true -> {ok, Acc#{high_water_min_bytes := Value, high_water_bytes := Value}};
        false -> {error, {option, high_water_bytes, Value}}
    end.

valid(framing, V) -> V =:= line orelse V =:= length4;
valid(max_frame_bytes, V) -> in(V, 1, 16#ffffffff);
valid(on_oversize, V) -> V =:= close orelse V =:= discard;
valid(max_urgent_bytes, V) -> in(V, 0, 16#ffffffff);
valid(max_queue_bytes, V) -> in(V, 1, 16#ffffffff);
valid(copy, V) -> is_boolean(V);
valid(decode, V) -> V =:= none orelse V =:= json;
valid(half_close, V) -> is_boolean(V);
valid(nodelay, V) -> is_boolean(V);
valid(keepalive, V) -> is_boolean(V);
valid(linger_ms, V) -> in(V, 0, 600000);
valid(connect_timeout_ms, V) -> in(V, 1, 600000);
valid(attempt_delay_ms, V) -> in(V, 10, 2000);
valid(handshake_timeout_ms, V) -> in(V, 1, 600000);
valid(backlog, V) -> in(V, 1, 65535);
valid(bind, any) -> true;
valid(bind, V) -> inet:is_ip_address(V);
valid(_, _) -> false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.

tls(_, false) ->
    {ok, false};
tls(client, true) ->
    {ok, tls_defaults(peer)};
tls(client, Options) when is_map(Options) ->
    complete_tls(Options, tls_defaults(peer));
tls(server, #{certfile := _, keyfile := _} = Options) ->
    complete_tls(Options, tls_defaults(none));
tls(server, Options) when is_map(Options) ->
    Missing = hd([Key || Key <- [certfile, keyfile], not is_map_key(Key, Options)]),
    {error, {Missing, undefined}};
tls(_, _) ->
    error.

tls_defaults(Verify) ->
    #{
        verify => Verify,
        cacertfile => system,
        certfile => none,
        keyfile => none,
        server_name => from_endpoint,
        min_version => 'tlsv1.2'
    }.

complete_tls(Options, Defaults) ->
    Step = fun
        (_, _, {error, _} = Error) ->
            Error;
        (Key, Value, {ok, Acc}) ->
            case valid_tls(Key, Value) of
                {ok, Checked} -> {ok, Acc#{Key := Checked}};
                error -> {error, {Key, Value}}
            end
    end,
    case maps:fold(Step, {ok, Defaults}, Options) of
        {ok, #{certfile := none, keyfile := Key}} when Key =/= none -> {error, {certfile, none}};
        {ok, #{certfile := Cert, keyfile := none}} when Cert =/= none -> {error, {keyfile, none}};
        Result -> Result
    end.

valid_tls(verify, V) when V =:= peer; V =:= none -> {ok, V};
valid_tls(cacertfile, system) -> {ok, system};
valid_tls(Key, V) when Key =:= cacertfile; Key =:= certfile; Key =:= keyfile -> text(V);
valid_tls(server_name, V) -> text(V);
valid_tls(min_version, V) when V =:= 'tlsv1.2'; V =:= 'tlsv1.3' -> {ok, V};
valid_tls(_, _) -> error.

host(Host) when is_tuple(Host) ->
    case inet:is_ip_address(Host) of
        true -> {ok, Host};
        false -> error
    end;
host(Host) when is_atom(Host), Host =/= undefined ->
    host(atom_to_binary(Host));
host(Host) ->
    case text(Host) of
        {ok, Bin} when byte_size(Bin) > 0, byte_size(Bin) < 256 ->
            case inet:parse_strict_address(binary_to_list(Bin)) of
                {ok, Ip} -> {ok, Ip};
                {error, _} -> {ok, Bin}
            end;
        _ ->
            error
    end.

text(Value) when is_binary(Value); is_list(Value) ->
    try unicode:characters_to_binary(Value) of
        Bin when is_binary(Bin), Bin =/= <<>> ->
            case binary:match(Bin, <<0>>) of
                nomatch -> {ok, Bin};
                _ -> error
            end;
        _ ->
            error
    catch
        error:badarg -> error
    end;
text(_) ->
    error.
