%% @private The HTTP clients of a client of MCP, one for each origin that it was led to, as one
%% value.
-module(erlmcp_native_http_client_wire).

-export([new/3, request/6, handle_info/2, take/3, cancel/2, info/1, close/1]).

-export_type([wire/0, key/0, event/0]).

-type origin() :: erlmcp_native_http_client_path:origin().

-type key() :: {origin(), erlmcp_native_http_client_path:id()}.
%% A request and its answer.

-type event() ::
    {head, key(), Status :: 100..599, [{binary(), binary()}]}
    | {readable, key()}
    | {failed, key(), erlmcp_native_http_client_path:failure()}.

-record(wire, {
    module :: module(),
    options :: erlmcp_native_http_options:client(),
    clients = #{} :: #{origin() => erlmcp_native_http_client_path:client()}
}).

-opaque wire() :: #wire{}.

%% A server that sends its client from one place to the next does not make it remember them all.
-define(MAX_ORIGINS, 8).

-spec new(origin(), erlmcp_native_path:path() | default, erlmcp_native_http_options:client()) ->
    {ok, wire()} | {error, erlmcp_native:reason()}.
new(Origin, Path, Options) ->
    case erlmcp_native_http_client_path:use(Path) of
        {ok, Module} -> open(Origin, #wire{module = Module, options = Options});
        {error, _} = Error -> Error
    end.

%% @doc Nothing is timed here: what there is to wait for, the caller knows.
-spec request(
    erlmcp_native_http_client_url:url(),
    Method :: binary(),
    [{binary(), iodata()}],
    iodata() | none,
    timeout(),
    wire()
) -> {ok, key(), wire()} | {error, erlmcp_native:reason(), wire()}.
request(#{origin := Origin, target := Target}, Method, Headers, Body, TotalMs, Wire) ->
    case open(Origin, Wire) of
        {ok, #wire{module = Module, clients = Clients} = Opened} ->
            Request = #{
                method => Method,
                target => Target,
                headers => Headers,
                body => Body,
                timeout_ms => infinity,
                total_timeout_ms => TotalMs
            },
            case Module:request(Request, maps:get(Origin, Clients)) of
                {ok, Id, Client} -> {ok, {Origin, Id}, put_client(Origin, Client, Opened)};
                {error, Reason, Client} -> {error, Reason, put_client(Origin, Client, Opened)}
            end;
        {error, Reason} ->
            {error, Reason, Wire}
    end.

-spec handle_info(term(), wire()) -> {[event()], wire()} | unknown.
handle_info(Msg, #wire{clients = Clients} = Wire) ->
    handle_info(Msg, maps:to_list(Clients), Wire).

%% @doc As `take/3' of a path.
-spec take(key(), pos_integer(), wire()) ->
    {[binary()], more | armed | done | {failed, erlmcp_native_http_client_path:failure()}, wire()}.
take({Origin, Id}, MaxBytes, #wire{module = Module, clients = Clients} = Wire) ->
    {Parts, Status, Client} = Module:take(Id, MaxBytes, maps:get(Origin, Clients)),
    {Parts, Status, put_client(Origin, Client, Wire)}.

-spec cancel(key(), wire()) -> wire().
cancel({Origin, Id}, #wire{module = Module, clients = Clients} = Wire) ->
    put_client(Origin, Module:cancel(Id, maps:get(Origin, Clients)), Wire).

-spec info(wire()) -> #{atom() => non_neg_integer()}.
info(#wire{module = Module, clients = Clients}) ->
    Add = fun(_, A, B) -> A + B end,
    Sum = fun(Client, Acc) -> maps:merge_with(Add, Acc, Module:info(Client)) end,
    lists:foldl(Sum, #{}, maps:values(Clients)).

-spec close(wire()) -> ok.
close(#wire{module = Module, clients = Clients}) ->
    lists:foreach(fun(Client) -> Module:close(Client) end, maps:values(Clients)).

handle_info(_, [], _) ->
    unknown;
handle_info(Msg, [{Origin, Client} | Rest], #wire{module = Module} = Wire) ->
    case Module:handle_info(Msg, Client) of
        {Events, Next} -> {[named(Origin, E) || E <- Events], put_client(Origin, Next, Wire)};
        unknown -> handle_info(Msg, Rest, Wire)
    end.

named(Origin, {head, Id, Status, Headers}) -> {head, {Origin, Id}, Status, Headers};
named(Origin, {readable, Id}) -> {readable, {Origin, Id}};
named(Origin, {failed, Id, Failure}) -> {failed, {Origin, Id}, Failure}.

open(Origin, #wire{clients = Clients} = Wire) when is_map_key(Origin, Clients) ->
    {ok, Wire};
open(_, #wire{clients = Clients}) when map_size(Clients) >= ?MAX_ORIGINS ->
    {error, busy};
open(Origin, #wire{module = Module, options = Options} = Wire) ->
    case Module:open(Origin, Options) of
        {ok, Client} -> {ok, put_client(Origin, Client, Wire)};
        {error, _} = Error -> Error
    end.

put_client(Origin, Client, #wire{clients = Clients} = Wire) ->
    Wire#wire{clients = Clients#{Origin => Client}}.
