%% @private The options of an MCP server over HTTP, checked once, and what is derived from them for
%% the processes of its requests.
-module(erlmcp_native_http_config).

-export([check/2, complete/3, legacy/1, is_modern/1]).

-export_type([checked/0, config/0, key/0]).

-type key() :: {?MODULE, reference()}.
%% Where the configuration is: a persistent term, because each request reads it.

-type checked() :: #{
    own := map(), listener := erlmcp_native_http_options:listener()
}.

-type config() :: #{
    key := key(),
    handler := {module(), term()} | none,
    notifies := boolean(),
    inits := boolean(),
    schemas := boolean(),
    hosts := any | [binary()],
    sessions_open := counters:counters_ref(),
    atom() => term()
}.
%% All options by their names, and: `notifies', `inits', `schemas': whether the handler has these
%% callbacks; `hosts': what `allowed_hosts' comes to; `sessions_open': how many there are.

-define(MIB, 1048576).
-define(REVISIONS, [<<"2026-07-28">>, <<"2025-11-25">>, <<"2025-06-18">>, <<"2025-03-26">>]).
-define(FIRST_MODERN, <<"2026-07-28">>).

%% @doc Checks the options of {@link erlmcp_native_http:listen/2} for a checked endpoint.
-spec check(erlmcp_native:endpoint(), term()) ->
    {ok, checked()} | {error, erlmcp_native:reason()}.
check(Endpoint, Options) when is_map(Options) ->
    Defaults = (defaults())#{owner => self()},
    Keys = maps:keys(Defaults),
    Own = erlmcp_native_options:check(maps:with(Keys, Options), Defaults, fun valid/2, server),
    Listener = erlmcp_native_http_options:listener(maps:without(Keys, Options)),
    case {Own, Listener} of
        {{ok, #{handler := none, server_id := none}}, _} ->
            {error, {option, handler, undefined}};
        {{ok, #{handler := Handler, server_id := Id}}, _} when Handler =/= none, Id =/= none ->
            {error, {option, server_id, Id}};
        {{ok, #{endpoint := Same, metrics := Same}}, _} ->
            {error, {option, metrics, Same}};
        {{ok, Checked}, {ok, Http}} ->
            Ordered = newest_first(Checked),
            {ok, #{own => Ordered#{hosts => hosts(Endpoint, Checked)}, listener => Http}};
        {{error, _} = Error, _} ->
            Error;
        {_, {error, _} = Error} ->
            Error
    end;
check(_, Options) ->
    {error, {option, options, Options}}.

%% @doc What the requests of one listener read.
-spec complete(key(), module(), checked()) -> config().
complete(Key, Path, #{own := #{handler := Handler} = Own, listener := Http}) ->
    #{body_timeout_ms := BodyTimeout} = Http,
    Own#{
        key => Key,
        path => Path,
        body_timeout_ms => BodyTimeout,
        notifies => exports(Handler, handle_notification, 3),
        inits => exports(Handler, init_session, 2),
        schemas => exports(Handler, input_schema, 2),
        sessions_open => counters:new(1, [])
    }.

%% @doc Those of the revisions that begin with `initialize', the newest first.
-spec legacy([binary()]) -> [binary()].
legacy(Revisions) -> [Revision || Revision <- Revisions, not is_modern(Revision)].

%% @doc Revisions are dates, and compare as such.
-spec is_modern(binary()) -> boolean().
is_modern(Revision) -> Revision >= ?FIRST_MODERN.

defaults() ->
    #{
        handler => none,
        server_id => none,
        path => default,
        owner => none,
        endpoint => <<"/mcp">>,
        revisions => ?REVISIONS,
        http_sse => false,
        metrics => false,
        sessions => true,
        max_sessions => 10000,
        session_idle_ms => 300000,
        max_events => 1000,
        max_event_bytes => ?MIB,
        keepalive_ms => 15000,
        retry_ms => 1000,
        priming => true,
        allowed_hosts => default,
        allowed_origins => default,
        authorize => none,
        resource_metadata => none,
        drain_ms => 5000,
        answer_timeout_ms => 30000
    }.

valid(handler, {Module, _}) -> is_atom(Module) andalso loads(Module);
valid(server_id, V) -> V =/= none andalso (is_atom(V) orelse is_binary(V));
valid(path, V) -> lists:member(V, [default, nif, port, beam]);
valid(owner, V) -> is_pid(V) orelse V =:= none;
valid(endpoint, V) -> is_path(V);
valid(revisions, V) -> is_list(V) andalso V =/= [] andalso V -- ?REVISIONS =:= [];
valid(metrics, V) -> V =:= false orelse is_path(V);
valid(http_sse, false) -> true;
valid(http_sse, #{sse := Sse, messages := Messages} = V) ->
    map_size(V) =:= 2 andalso is_path(Sse) andalso is_path(Messages) andalso Sse =/= Messages;
valid(sessions, V) -> is_boolean(V);
valid(max_sessions, V) -> in(V, 1, 10000000);
valid(session_idle_ms, V) -> in(V, 1, 604800000);
valid(max_events, V) -> in(V, 0, 1000000);
valid(max_event_bytes, V) -> in(V, 0, 16#ffffffff);
valid(keepalive_ms, V) -> in(V, 1, 3600000);
valid(retry_ms, V) -> in(V, 0, 3600000);
valid(priming, V) -> is_boolean(V);
valid(Key, V) when Key =:= allowed_hosts; Key =:= allowed_origins ->
    V =:= any orelse (is_list(V) andalso lists:all(fun is_binary/1, V));
valid(authorize, {M, F, A}) -> is_atom(M) andalso is_atom(F) andalso is_list(A);
valid(authorize, V) -> V =:= none;
valid(resource_metadata, V) -> V =:= none orelse (is_map(V) andalso is_map_key(<<"resource">>, V));
valid(drain_ms, V) -> in(V, 0, 3600000);
valid(answer_timeout_ms, V) -> in(V, 1, 86400000);
valid(_, _) -> false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.

is_path(<<"/", _/binary>> = Path) -> binary:match(Path, [<<"?">>, <<"#">>, <<" ">>]) =:= nomatch;
is_path(_) -> false.

loads(Module) -> code:ensure_loaded(Module) =:= {module, Module}.

exports(none, _, _) -> false;
exports({Module, _}, Name, Arity) -> erlang:function_exported(Module, Name, Arity).

newest_first(#{revisions := Revisions} = Own) ->
    Own#{revisions := lists:reverse(lists:usort(Revisions))}.

%% Nobody's browser resolves a name to a Unix-domain socket.
hosts(#{host := Host}, #{allowed_hosts := default}) ->
    [<<"localhost">>, <<"127.0.0.1">>, <<"[::1]">>, literal(Host)];
hosts(_, #{allowed_hosts := default}) ->
    any;
hosts(_, #{allowed_hosts := any}) ->
    any;
hosts(_, #{allowed_hosts := Hosts}) ->
    [erlmcp_native_http_gate:lower(Host) || Host <- Hosts].

literal(Host) when is_binary(Host) -> erlmcp_native_http_gate:lower(Host);
literal(Ip) when tuple_size(Ip) =:= 4 -> list_to_binary(inet:ntoa(Ip));
literal(Ip) -> iolist_to_binary([$[, inet:ntoa(Ip), $]]).
