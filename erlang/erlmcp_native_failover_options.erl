%% @private The endpoints and options of a failover, checked once and completed with defaults.
-module(erlmcp_native_failover_options).

-export([check/2, timeout_ms/1]).

-export_type([endpoint/0, options/0]).

-type endpoint() :: #{
    name := term(),
    kind := stream | http,
    to := term(),
    options := map()
}.

-type options() :: #{
    owner := pid(),
    initialize := none | map() | fun((Name :: term()) -> map()),
    timeout_ms := pos_integer() | infinity,
    max_in_flight := pos_integer(),
    max_queue := pos_integer(),
    retries := non_neg_integer(),
    failback := boolean(),
    ping_ms := pos_integer(),
    ping_timeout_ms := pos_integer(),
    initialize_timeout_ms := pos_integer(),
    max_owner_queue := pos_integer(),
    breaker := false | map() | true
}.

-define(LONGEST_MS, 86400000).

-spec check(term(), term()) ->
    {ok, [endpoint(), ...], options()} | {error, {option, term(), term()}}.
check([_ | _] = Endpoints, Given) when is_map(Given) ->
    case endpoints(Endpoints, []) of
        {ok, Checked} -> options(Checked, Given);
        {error, _} = Error -> Error
    end;
check(Endpoints, Given) when is_map(Given) ->
    {error, {option, endpoints, Endpoints}};
check(_, Given) ->
    {error, {option, options, Given}}.

endpoints([], Checked) ->
    {ok, lists:reverse(Checked)};
endpoints([#{to := To} = Given | Rest], Checked) ->
    Name = maps:get(name, Given, To),
    Options = maps:get(options, Given, #{}),
    Known = [N || #{name := N} <- Checked],
    case {maps:keys(Given) -- [name, to, options], kind(To, Options), lists:member(Name, Known)} of
        {[], {ok, Kind}, false} ->
            Endpoint = #{name => Name, kind => Kind, to => To, options => Options},
            endpoints(Rest, [Endpoint | Checked]);
        {[], {error, _} = Error, _} ->
            Error;
        _ ->
            {error, {option, endpoint, Given}}
    end;
endpoints([Given | _], _) ->
    {error, {option, endpoint, Given}}.

%% What the failover decides itself may not be given.
kind(_, #{owner := Owner}) ->
    {error, {option, owner, Owner}};
kind(To, Options) when is_map(To), is_map(Options) ->
    Own = maps:without([path, reconnect], Options),
    case {erlmcp_native_options:target(To), erlmcp_native_options:connection(Own)} of
        {{ok, _}, {ok, _}} -> {ok, stream};
        {{error, _} = Error, _} -> Error;
        {_, {error, _} = Error} -> Error
    end;
kind(To, Options) when is_map(Options), To =/= stdio ->
    case erlmcp_native_http_client_options:check(To, Options) of
        {ok, _} -> {ok, http};
        {error, _} = Error -> Error
    end;
kind(To, _) ->
    {error, {option, to, To}}.

options(Endpoints, Given) ->
    Defaults = (defaults())#{owner => self()},
    case [KV || {Key, Value} = KV <- maps:to_list(Given), not valid(Key, Value)] of
        [] -> {ok, Endpoints, maps:merge(Defaults, Given)};
        [{Key, Value} | _] -> {error, {option, Key, Value}}
    end.

defaults() ->
    #{
        initialize => #{},
        timeout_ms => 30000,
        max_in_flight => 1000,
        max_queue => 10000,
        retries => 2,
        failback => false,
        ping_ms => 5000,
        ping_timeout_ms => 5000,
        initialize_timeout_ms => 10000,
        max_owner_queue => 1000,
        breaker => true
    }.

%% @doc Whether it is a time that a request may take.
-spec timeout_ms(term()) -> boolean().
timeout_ms(V) -> V =:= infinity orelse in(V, 1, ?LONGEST_MS).

valid(owner, V) -> is_pid(V);
valid(initialize, V) -> V =:= none orelse is_map(V) orelse is_function(V, 1);
valid(timeout_ms, V) -> timeout_ms(V);
valid(max_in_flight, V) -> in(V, 1, 1000000);
valid(max_queue, V) -> in(V, 1, 1000000);
valid(retries, V) -> in(V, 0, 1000);
valid(failback, V) -> is_boolean(V);
valid(ping_ms, V) -> in(V, 10, ?LONGEST_MS);
valid(ping_timeout_ms, V) -> in(V, 10, ?LONGEST_MS);
valid(initialize_timeout_ms, V) -> in(V, 10, ?LONGEST_MS);
valid(max_owner_queue, V) -> in(V, 1, 1000000);
valid(breaker, false) -> true;
valid(breaker, V) -> element(1, erlmcp_native_breaker:options(V)) =:= ok;
valid(_, _) -> false.

in(V, Min, Max) -> is_integer(V) andalso V >= Min andalso V =< Max.
