%% @private The metrics of the node at a path of an HTTP server.
-module(erlmcp_native_http_exposition).

-export([serve/1]).

%% @doc Answers who has passed the checks of the server.
-spec serve(erlmcp_native_http_answer:call()) -> ok | {error, closed}.
serve(#{request := #{method := Method, headers := Fields}, exchange := Exchange}) when
    Method =:= <<"GET">>; Method =:= <<"HEAD">>
->
    Format = erlmcp_native_exposition:format(Fields),
    Text = erlmcp_native_exposition:text(Format, erlmcp_native_metrics:families(all)),
    Headers = [
        {<<"content-type">>, erlmcp_native_exposition:content_type(Format)},
        {<<"cache-control">>, <<"no-store">>},
        {<<"vary">>, <<"accept">>}
    ],
    erlmcp_native_http_path:reply(Exchange, 200, Headers, Text);
serve(#{exchange := Exchange}) ->
    Headers = [{<<"allow">>, <<"GET, HEAD">>}],
    erlmcp_native_http_path:reply(Exchange, 405, Headers, <<>>).
