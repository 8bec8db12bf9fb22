%% @doc HTTP clients of the path `nif': the pool and the protocols are in the Rust core.
-module(erlmcp_native_nif_http_client).

-behaviour(erlmcp_native_http_client_path).

-export([open/2, request/2, handle_info/2, take/3, cancel/2, info/1, close/1]).

-record(client, {
    id :: non_neg_integer(),
    ref :: erlmcp_native_nif:http_client()
}).

%% Flattening this much takes about 0.2 ms; more goes to a dirty scheduler.
-define(LARGE, 1048576).

%% @private
-spec open(erlmcp_native_http_client_path:origin(), erlmcp_native_http_options:client()) ->
    {ok, #client{}} | {error, erlmcp_native:reason()}.
open(#{scheme := https} = Origin, #{tls := false} = Options) ->
    {ok, #{tls := Tls}} = erlmcp_native_http_options:client(#{tls => true}),
    open(Origin, Options#{tls := Tls});
open(#{scheme := http}, #{protocols := [http2], proxy := #{}}) ->
    {error, {option, protocols, [http2]}};
open(Origin, Options) ->
    case erlmcp_native_nif:http_client_open(Origin, Options) of
        {ok, Id, Ref} -> {ok, #client{id = Id, ref = Ref}};
        %% Nothing was looked up.
        {error, nxdomain} -> {error, {option, host, maps:get(host, Origin)}};
        {error, _} = Error -> Error
    end.

%% @private
-spec request(erlmcp_native_http_client_path:request(), #client{}) ->
    {ok, non_neg_integer(), #client{}} | {error, busy | erlmcp_native:reason(), #client{}}.
request(Request, #client{ref = Ref} = Client) ->
    #{
        method := Method,
        target := Target,
        headers := Headers,
        body := Body,
        timeout_ms := Timeout,
        total_timeout_ms := Total
    } = Request,
    case send(is_large(Body), Ref, {Method, Target}, Headers, Body, {Timeout, Total}) of
        {ok, Id} -> {ok, Id, Client};
        {error, Reason} -> {error, Reason, Client}
    end.

send(false, Ref, Start, Headers, Body, Timeouts) ->
    erlmcp_native_nif:http_client_request(Ref, Start, Headers, Body, Timeouts);
send(true, Ref, Start, Headers, Body, Timeouts) ->
    erlmcp_native_nif:http_client_request_large(Ref, Start, Headers, Body, Timeouts).

%% A binary is taken as it is.
is_large(Body) -> is_list(Body) andalso iolist_size(Body) >= ?LARGE.

%% @private
-spec handle_info(term(), #client{}) ->
    {[erlmcp_native_http_client_path:event()], #client{}} | unknown.
handle_info({erlmcp_native_io, Id, {Request, ready}}, #client{id = Id, ref = Ref} = Client) ->
    {erlmcp_native_nif:http_client_events(Ref, Request), Client};
handle_info(_, _) ->
    unknown.

%% @private
-spec take(non_neg_integer(), pos_integer(), #client{}) ->
    {
        [binary()],
        more | armed | done | {failed, erlmcp_native_http_client_path:failure()},
        #client{}
    }.
take(Request, MaxBytes, #client{ref = Ref} = Client) ->
    {Parts, Status} = erlmcp_native_nif:http_client_take(Ref, Request, MaxBytes),
    {Parts, Status, Client}.

%% @private
-spec cancel(non_neg_integer(), #client{}) -> #client{}.
cancel(Request, #client{ref = Ref} = Client) ->
    ok = erlmcp_native_nif:http_client_cancel(Ref, Request),
    Client.

%% @private
-spec info(#client{}) ->
    #{connections := non_neg_integer(), active := non_neg_integer(), queued := non_neg_integer()}.
info(#client{ref = Ref}) ->
    {Connections, Active, Queued} = erlmcp_native_nif:http_client_info(Ref),
    #{connections => Connections, active => Active, queued => Queued}.

%% @private
-spec close(#client{}) -> ok.
close(#client{ref = Ref}) ->
    erlmcp_native_nif:http_client_close(Ref).
