%% @private What says where tokens come from (RFC 9728).
-module(erlmcp_native_http_metadata).

-export([serve/3, challenge/3]).

-define(WELL_KNOWN, "/.well-known/oauth-protected-resource").

%% @doc Serves the document, at the well-known path and below it at that of the endpoint.
-spec serve(erlmcp_native_http_path:exchange(), erlmcp_native_http_path:request(), map()) ->
    ok | {error, closed}.
serve(Exchange, #{method := Method, path := Path}, #{endpoint := Endpoint} = Config) ->
    #{resource_metadata := Document} = Config,
    Known = Path =:= <<?WELL_KNOWN>> orelse Path =:= <<?WELL_KNOWN, Endpoint/binary>>,
    case {Document =/= none andalso Known, Method} of
        {false, _} ->
            erlmcp_native_http_path:reply(Exchange, 404, [], <<>>);
        {true, Get} when Get =:= <<"GET">>; Get =:= <<"HEAD">> ->
            Headers = [
                {<<"content-type">>, <<"application/json">>},
                {<<"cache-control">>, <<"max-age=3600">>}
            ],
            Body = erlmcp_native_json:encode(Document),
            erlmcp_native_http_path:reply(Exchange, 200, Headers, Body);
        {true, _} ->
            Headers = [{<<"allow">>, <<"GET, HEAD">>}],
            erlmcp_native_http_path:reply(Exchange, 405, Headers, <<>>)
    end.

%% @doc The parameters of a challenge, which say where the document is unless they do already.
-spec challenge(binary(), erlmcp_native_http_path:request(), map()) -> binary().
challenge(Params, _, #{resource_metadata := none}) ->
    Params;
challenge(Params, #{scheme := Scheme, headers := Headers}, #{endpoint := Endpoint}) ->
    case {binary:match(Params, <<"resource_metadata=">>), lists:keyfind(<<"host">>, 1, Headers)} of
        {nomatch, {_, Host}} ->
            Url = [atom_to_binary(Scheme), <<"://">>, Host, <<?WELL_KNOWN>>, Endpoint],
            Named = [<<"resource_metadata=\"">>, Url, $"],
            iolist_to_binary(lists:join(<<", ">>, [P || P <- [Named, Params], P =/= <<>>]));
        _ ->
            Params
    end.
