%% @doc Requests as bytes: origin form, or absolute form for a proxy (RFC 9112, 3.2).
-module(erlmcp_native_beam_http_client_wire).

-export([route/2, connect/2, encode/2, is_idempotent/1]).

-export_type([route/0]).

-type route() :: #{authority := iodata(), prefix := iodata(), fields := iodata()}.
%% What all requests of a client have in common: `host', what goes before a path, and fields.

%% @doc A request as bytes; an error if it could not be read as what it is.
-spec encode(erlmcp_native_http_client_path:request(), route()) ->
    {ok, iodata()} | {error, erlmcp_native:reason()}.
encode(#{method := Method, target := Target, headers := Headers, body := Body}, Route) ->
    #{authority := Authority, prefix := Prefix, fields := Common} = Route,
    IsMethod = erlmcp_native_http_syntax:is_token(Method),
    case {IsMethod, is_target(Target), fields(Headers, [])} of
        {true, true, {ok, Fields}} ->
            Start = [Method, $\s, Prefix, Target, " HTTP/1.1\r\nhost: ", Authority, "\r\n"],
            {ok, [Start, Common, Fields, payload(Method, Body)]};
        {false, _, _} ->
            {error, {option, method, Method}};
        {_, false, _} ->
            {error, {option, target, Target}};
        {_, _, {error, Field}} ->
            {error, {option, headers, Field}}
    end.

payload(Method, none) when Method =:= <<"POST">>; Method =:= <<"PUT">>; Method =:= <<"PATCH">> ->
    <<"content-length: 0\r\n\r\n">>;
payload(_, none) ->
    <<"\r\n">>;
payload(_, Body) ->
    [<<"content-length: ">>, integer_to_binary(iolist_size(Body)), <<"\r\n\r\n">>, Body].

fields([{Name, Value} = Field | Fields], Acc) when is_binary(Name) ->
    case {erlmcp_native_http_syntax:is_token(Name) andalso is_value(Value), is_ours(Name)} of
        {true, false} -> fields(Fields, [Acc, Name, <<": ">>, Value, <<"\r\n">>]);
        {true, true} -> fields(Fields, Acc);
        {false, _} -> {error, Field}
    end;
fields([], Acc) ->
    {ok, Acc};
fields([Field | _], _) ->
    {error, Field}.

%% What says how a request is sent is left out. Few names are as long as one of these.
is_ours(Name) ->
    case byte_size(Name) of
        2 -> lowercase(Name) =:= <<"te">>;
        4 -> lowercase(Name) =:= <<"host">>;
        7 -> lowercase(Name) =:= <<"upgrade">>;
        10 -> lists:member(lowercase(Name), [<<"connection">>, <<"keep-alive">>]);
        14 -> lowercase(Name) =:= <<"content-length">>;
        16 -> lowercase(Name) =:= <<"proxy-connection">>;
        17 -> lowercase(Name) =:= <<"transfer-encoding">>;
        _ -> false
    end.

lowercase(Name) -> erlmcp_native_beam_http_head:lowercase(Name).

is_value(Value) ->
    try iolist_to_binary(Value) of
        Bytes -> erlmcp_native_http_syntax:is_value(Bytes)
    catch
        error:badarg -> false
    end.

is_target(<<"*">>) -> true;
is_target(<<"/", Rest/binary>>) -> is_visible(Rest);
is_target(_) -> false.

is_visible(<<C, Rest/binary>>) when C > $\s, C < 127 -> is_visible(Rest);
is_visible(<<>>) -> true;
is_visible(_) -> false.

%% @doc What the requests to an origin have in common; an error if its name is not one.
-spec route(
    erlmcp_native_http_client_path:origin(), none | erlmcp_native_http_options:proxy()
) -> {ok, route()} | {error, erlmcp_native:reason()}.
route(#{scheme := Scheme, host := Host} = Origin, Proxy) ->
    Authority = authority(Origin),
    case {is_host(Host), proxy_fields(Proxy)} of
        {false, _} ->
            {error, {option, host, Host}};
        {true, error} ->
            {error, {option, proxy, Proxy}};
        {true, Fields} when Scheme =:= http, Proxy =/= none ->
            {ok, #{authority => Authority, prefix => [<<"http://">>, Authority], fields => Fields}};
        {true, _} ->
            {ok, #{authority => Authority, prefix => <<>>, fields => <<>>}}
    end.

%% @doc What asks a proxy for a tunnel to an origin.
-spec connect(erlmcp_native_http_client_path:origin(), erlmcp_native_http_options:proxy()) ->
    iodata().
connect(#{host := Host, port := Port}, Proxy) ->
    Authority = [host(Host), $:, integer_to_binary(Port)],
    Start = [<<"CONNECT ">>, Authority, <<" HTTP/1.1\r\nhost: ">>, Authority, <<"\r\n">>],
    [Start, proxy_fields(Proxy), <<"\r\n">>].

%% The port of the scheme goes without saying.
authority(#{scheme := http, host := Host, port := 80}) -> host(Host);
authority(#{scheme := https, host := Host, port := 443}) -> host(Host);
authority(#{host := Host, port := Port}) -> [host(Host), $:, integer_to_binary(Port)].

host(Host) ->
    case binary:match(Host, <<":">>) of
        nomatch -> Host;
        _ -> [$[, Host, $]]
    end.

is_host(Host) ->
    is_visible(Host) andalso binary:match(Host, [<<C>> || C <- "/?#@[]\\"]) =:= nomatch.

proxy_fields(#{authorization := Value}) when is_binary(Value) ->
    case erlmcp_native_http_syntax:is_value(Value) of
        true -> [<<"proxy-authorization: ">>, Value, <<"\r\n">>];
        false -> error
    end;
proxy_fields(_) ->
    <<>>.

%% @doc Whether sending it twice is as good as once (RFC 9110, 9.2.2).
-spec is_idempotent(Method :: binary()) -> boolean().
is_idempotent(<<"GET">>) -> true;
is_idempotent(<<"HEAD">>) -> true;
is_idempotent(<<"PUT">>) -> true;
is_idempotent(<<"DELETE">>) -> true;
is_idempotent(<<"OPTIONS">>) -> true;
is_idempotent(<<"TRACE">>) -> true;
is_idempotent(_) -> false.
