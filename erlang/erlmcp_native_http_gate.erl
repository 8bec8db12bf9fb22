%% @private Who may talk to a server at all: the checks of `Host' and `Origin' against DNS
%% rebinding. Pure.
-module(erlmcp_native_http_gate).

-export([check/3, lower/1]).

-type allowed_origins() :: default | any | [binary()].

%% @doc Whether the request names this server and comes from no foreign page. `default' for origins
%% means pages on this machine; who sends no `Origin' is no browser.
-spec check([{binary(), binary()}], any | [binary()], allowed_origins()) ->
    ok | {forbidden, binary()}.
check(Headers, Hosts, Origins) ->
    case Hosts =:= any orelse host(lists:keyfind(<<"host">>, 1, Headers), Hosts) of
        true -> origins(Headers, Origins);
        false -> {forbidden, <<"Host not allowed">>}
    end.

%% @doc In lower case, as far as ASCII goes: a field may hold any bytes.
-spec lower(binary()) -> binary().
lower(Value) -> <<<<(lower_byte(Byte))>> || <<Byte>> <= Value>>.

lower_byte(Byte) when Byte >= $A, Byte =< $Z -> Byte + 32;
lower_byte(Byte) -> Byte.

host({_, Host}, Hosts) ->
    lists:member(Host, Hosts) orelse lists:member(without_port(Host), Hosts) orelse
        lower_host(lower(Host), Host, Hosts);
host(false, _) ->
    false.

lower_host(Host, Host, _) -> false;
lower_host(Lower, _, Hosts) ->
    lists:member(Lower, Hosts) orelse lists:member(without_port(Lower), Hosts).

without_port(<<"[", _/binary>> = Host) ->
    case binary:split(Host, <<"]">>) of
        [Before, _] -> <<Before/binary, "]">>;
        [_] -> Host
    end;
without_port(Host) ->
    hd(binary:split(Host, <<":">>)).

origins(_, any) ->
    ok;
origins(Headers, Allowed) ->
    case lists:keyfind(<<"origin">>, 1, Headers) of
        false -> ok;
        _ -> foreign([Value || {<<"origin">>, Value} <- Headers, not origin(Value, Allowed)])
    end.

foreign([]) -> ok;
foreign(_) -> {forbidden, <<"Origin not allowed">>}.

origin(Origin, default) ->
    case binary:split(lower(Origin), <<"://">>) of
        [Scheme, Host] when Scheme =:= <<"http">>; Scheme =:= <<"https">> ->
            is_port_or_nothing(Host) andalso is_loopback(without_port(Host));
        _ ->
            false
    end;
origin(Origin, Allowed) ->
    lists:member(Origin, Allowed) orelse
        lists:member(lower(Origin), [lower(One) || One <- Allowed]).

%% What follows the host must not be a name of its own: `localhost:80.example.org' and the like.
is_port_or_nothing(Host) ->
    Pattern = "^(\\[[0-9a-f:.]+\\]|[^:/@\\[\\]]+)(:[0-9]{1,5})?\\z",
    re:run(Host, Pattern, [{capture, none}]) =:= match.

is_loopback(<<"localhost">>) -> true;
is_loopback(<<"[::1]">>) -> true;
is_loopback(Host) ->
    case inet:parse_ipv4strict_address(binary_to_list(Host)) of
        {ok, {127, _, _, _}} -> true;
        _ -> false
    end.
