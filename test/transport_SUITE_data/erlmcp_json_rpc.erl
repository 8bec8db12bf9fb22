%% Stands in for erlmcp's module: the same records.
-module(erlmcp_json_rpc).

-export([decode_message/1, encode_request/3, encode_response/2]).

decode_message(Json) ->
    case erlmcp_native_json:decode(Json) of
        {ok, #{<<"id">> := Id, <<"method">> := Method} = M} ->
            {ok, {json_rpc_request, Id, Method, maps:get(<<"params">>, M, undefined)}};
        {ok, #{<<"id">> := Id, <<"result">> := Result}} ->
            {ok, {json_rpc_response, Id, Result, undefined}};
        {ok, #{<<"id">> := Id, <<"error">> := Error}} ->
            {ok, {json_rpc_response, Id, undefined, Error}};
        {ok, #{<<"method">> := Method} = M} ->
            {ok, {json_rpc_notification, Method, maps:get(<<"params">>, M, undefined)}};
        _ ->
            {error, {parse_error, invalid_json}}
    end.

encode_request(Id, Method, Params) ->
    encode(#{<<"id">> => Id, <<"method">> => Method, <<"params">> => Params}).

encode_response(Id, Result) when is_integer(Id); is_binary(Id) ->
    encode(#{<<"id">> => Id, <<"result">> => Result}).

encode(Members) ->
    iolist_to_binary(erlmcp_native_json:encode(Members#{<<"jsonrpc">> => <<"2.0">>})).
