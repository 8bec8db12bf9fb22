%% Stands in for erlmcp's server: answers `tools/call' with the text it is given, and ends at what
%% it was not written for.
-module(erlmcp_server).

-behaviour(gen_server).

-export([start_link/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2]).

start_link(Id) -> gen_server:start_link(?MODULE, Id, []).

init(Id) -> {ok, Id}.

handle_call(_, _, Id) -> {reply, ok, Id}.

handle_cast(_, Id) -> {noreply, Id}.

handle_info({mcp_message, TransportId, Message}, ServerId) ->
    case erlmcp_json_rpc:decode_message(Message) of
        {ok, {json_rpc_request, Id, Method, Params}} ->
            Answer = erlmcp_json_rpc:encode_response(Id, result(Method, Params)),
            erlmcp_registry:route_to_transport(TransportId, ServerId, Answer);
        {ok, {json_rpc_notification, _, _}} ->
            ok;
        {error, _} ->
            ok
    end,
    {noreply, ServerId}.

result(<<"initialize">>, _) -> #{<<"protocolVersion">> => <<"2025-06-18">>};
result(<<"tools/call">>, Params) -> maps:get(<<"arguments">>, Params, #{});
result(_, _) -> #{}.
