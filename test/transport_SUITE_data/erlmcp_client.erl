%% Stands in for erlmcp's client: what it is given for `tcp' is the state that it sends with, for
%% `http' it is what the transport makes of it, and a message for which it was not written ends it.
-module(erlmcp_client).

-behaviour(gen_server).

-export([start_link/2, request/3, stop/1]).
-export([init/1, handle_call/3, handle_cast/2, handle_info/2, terminate/2]).

start_link(Transport, Options) -> gen_server:start_link(?MODULE, {Transport, Options}, []).

request(Client, Method, Params) -> gen_server:call(Client, {request, Method, Params}, infinity).

stop(Client) -> gen_server:stop(Client).

init({{tcp, Transport}, _}) ->
    process_flag(trap_exit, true),
    {ok, {erlmcp_transport_tcp, Transport, 1, #{}}};
init({{stdio, _}, _}) ->
    process_flag(trap_exit, true),
    {ok, {erlmcp_transport_stdio, self(), 1, #{}}};
init({{http, Options}, _}) ->
    process_flag(trap_exit, true),
    case erlmcp_transport_http:init(Options) of
        {ok, Transport} -> {ok, {erlmcp_transport_http, Transport, 1, #{}}};
        {error, Reason} -> {stop, Reason}
    end.

handle_call({request, Method, Params}, From, {Module, Transport, Id, Pending}) ->
    Request = erlmcp_json_rpc:encode_request(Id, Method, Params),
    case Module:send(Transport, Request) of
        ok -> {noreply, {Module, Transport, Id + 1, Pending#{Id => {Method, From}}}};
        {error, _} = Error -> {reply, Error, {Module, Transport, Id, Pending}}
    end.

handle_cast(_, State) -> {noreply, State}.

handle_info({transport_message, Message}, {Module, Transport, Next, Pending}) ->
    case erlmcp_json_rpc:decode_message(Message) of
        {ok, {json_rpc_response, Id, Result, Error}} ->
            {{Method, From}, Rest} = maps:take(Id, Pending),
            gen_server:reply(From, reply(Method, Result, Error)),
            {noreply, {Module, Transport, Next, Rest}};
        {ok, {json_rpc_notification, <<"resources/updated">>, Params}} ->
            _ = maps:get(<<"uri">>, Params, none),
            {noreply, {Module, Transport, Next, Pending}};
        {ok, {json_rpc_notification, _, _}} ->
            {noreply, {Module, Transport, Next, Pending}};
        {error, _} ->
            {noreply, {Module, Transport, Next, Pending}}
    end;
handle_info({'EXIT', Transport, Reason}, {_, Transport, _, _} = State) ->
    {stop, {transport_died, Reason}, State};
handle_info(_, State) ->
    {noreply, State}.

terminate(_, {Module, Transport, _, _}) ->
    try
        Module:close(Transport)
    catch
        exit:_ -> ok
    end.

reply(<<"initialize">>, #{<<"capabilities">> := Capabilities} = Result, undefined) ->
    true = is_map(Capabilities),
    {ok, Result};
reply(_, Result, undefined) ->
    {ok, Result};
reply(_, _, Error) ->
    {error, Error}.
