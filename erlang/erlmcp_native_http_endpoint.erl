%% @private Every request to a listener comes here first, in a process of its own: who may ask, what
%% is asked for, and whether the head of the request is right.
-module(erlmcp_native_http_endpoint).

-include_lib("kernel/include/logger.hrl").

-export([serve/3, body/2]).

-define(INVALID_REQUEST, -32600).
-define(WELL_KNOWN, "/.well-known/oauth-protected-resource").

%% @doc Serves a request.
-spec serve(
    erlmcp_native_http_config:key(),
    erlmcp_native_http_path:exchange(),
    erlmcp_native_http_path:request()
) -> term().
serve(Key, Exchange, #{headers := Headers} = Request) ->
    ok = erlmcp_native_http_measure:begun(Request),
    case persistent_term:get(Key, closed) of
        closed ->
            erlmcp_native_http_path:reply(Exchange, 503, [], <<>>);
        #{hosts := Hosts, allowed_origins := Origins} = Config ->
            case erlmcp_native_http_gate:check(Headers, Hosts, Origins) of
                ok -> route(Exchange, Request, Config);
                {forbidden, Text} -> refuse(403, Text, Exchange)
            end
    end.

route(Exchange, #{path := Endpoint} = Request, #{endpoint := Endpoint} = Config) ->
    authorized(Exchange, Request, Config, fun endpoint/1);
route(Exchange, #{path := Path} = Request, #{metrics := Path} = Config) ->
    authorized(Exchange, Request, Config, fun erlmcp_native_http_exposition:serve/1);
route(Exchange, #{path := <<?WELL_KNOWN, _/binary>>} = Request, Config) ->
    erlmcp_native_http_metadata:serve(Exchange, Request, Config);
route(Exchange, #{path := Path} = Request, #{http_sse := #{} = Paths} = Config) ->
    case lists:member(Path, maps:values(Paths)) of
        true -> authorized(Exchange, Request, Config, fun erlmcp_native_http_legacy_sse:serve/1);
        false -> refuse(404, <<"Not found">>, Exchange)
    end;
route(Exchange, _, _) ->
    refuse(404, <<"Not found">>, Exchange).

authorized(Exchange, Request, #{authorize := none} = Config, Serve) ->
    Serve(call(Exchange, Request, anonymous, Config));
authorized(Exchange, Request, #{authorize := Hook} = Config, Serve) ->
    case ask(Hook, maps:remove(body, Request)) of
        {ok, Principal} ->
            Serve(call(Exchange, Request, Principal, Config));
        {unauthorized, Params} ->
            Complete = erlmcp_native_http_metadata:challenge(Params, Request, Config),
            challenge(401, Complete, Exchange);
        {forbidden, Params} ->
            challenge(403, Params, Exchange);
        failed ->
            erlmcp_native_http_path:reply(Exchange, 500, [], <<>>)
    end.

%% What the hook was given holds a token, and stays out of the log.
ask({Module, Function, Args}, Head) ->
    try apply(Module, Function, [Head | Args]) of
        {ok, _} = Ok -> Ok;
        {Refusal, Params} = Refused when
            is_binary(Params), Refusal =:= unauthorized orelse Refusal =:= forbidden
        ->
            Refused;
        _ ->
            ?LOG_ERROR("erlmcp_native: ~p:~p returned no verdict", [Module, Function]),
            failed
    catch
        Class:_:Stack ->
            Where = [{M, F, arity(A)} || {M, F, A, _} <- Stack],
            ?LOG_ERROR("erlmcp_native: ~p:~p failed: ~p in ~0p", [
                Module, Function, Class, Where
            ]),
            failed
    end.

arity(Args) when is_list(Args) -> length(Args);
arity(Arity) -> Arity.

call(Exchange, Request, Principal, Config) ->
    #{exchange => Exchange, request => Request, principal => Principal, config => Config}.

challenge(Status, Params, Exchange) ->
    Headers = [{<<"www-authenticate">>, challenge(Params)}],
    erlmcp_native_http_path:reply(Exchange, Status, Headers, <<>>).

challenge(<<>>) -> <<"Bearer">>;
challenge(Params) -> [<<"Bearer ">>, Params].

endpoint(#{request := #{method := <<"POST">>}} = Call) -> post(Call);
endpoint(#{request := #{method := <<"GET">>}} = Call) -> legacy(Call, fun listen/1);
endpoint(#{request := #{method := <<"DELETE">>}} = Call) -> legacy(Call, fun delete/1);
endpoint(Call) -> not_allowed(Call).

%% ---- POST

post(#{request := #{headers := Headers}, exchange := Exchange} = Call) ->
    case {is_json(Headers), accepts_both(Headers)} of
        {true, true} -> read(Call, fun erlmcp_native_http_post:serve/2);
        {false, _} -> refuse(415, <<"Content-Type must be application/json">>, Exchange);
        {_, false} -> refuse(406, <<"Accept must have both types of answer">>, Exchange)
    end.

%% @doc Gives the body of a POST to a function, if it is JSON by its name.
-spec body(erlmcp_native_http_answer:call(), fun()) -> term().
body(#{request := #{headers := Headers}, exchange := Exchange} = Call, Then) ->
    case is_json(Headers) of
        true -> read(Call, Then);
        false -> refuse(415, <<"Content-Type must be application/json">>, Exchange)
    end.

read(#{request := #{body := {complete, Body}}} = Call, Then) ->
    ok = erlmcp_native_http_measure:received(Body),
    Then(Call, Body);
read(#{request := #{body := pending}, exchange := Exchange, config := Config} = Call, Then) ->
    #{body_timeout_ms := Timeout} = Config,
    case erlmcp_native_http_path:read_body(Exchange, Timeout) of
        {ok, Body} ->
            ok = erlmcp_native_http_measure:received(Body),
            Then(Call, Body);
        {error, body_too_large} -> refuse(413, <<"Message too large">>, Exchange);
        {error, timeout} -> refuse(408, <<"The message did not arrive in time">>, Exchange);
        {error, closed} -> ok
    end.

is_json(Headers) ->
    case lists:keyfind(<<"content-type">>, 1, Headers) of
        {_, <<"application/json">>} -> true;
        {_, Type} -> media_type(Type) =:= <<"application/json">>;
        false -> false
    end.

accepts_both(Headers) ->
    case lists:keyfind(<<"accept">>, 1, Headers) of
        {_, <<"application/json, text/event-stream">>} ->
            true;
        _ ->
            accepts(<<"application/json">>, <<"application/*">>, Headers) andalso
                accepts(<<"text/event-stream">>, <<"text/*">>, Headers)
    end.

%% No header at all means anything.
accepts(Type, Range, Headers) ->
    case [media_type(One) || {<<"accept">>, Value} <- Headers, One <- split(Value)] of
        [] ->
            true;
        Types ->
            lists:any(fun(T) -> T =:= Type orelse T =:= Range orelse T =:= <<"*/*">> end, Types)
    end.

split(Value) -> binary:split(Value, <<",">>, [global]).

media_type(Value) ->
    erlmcp_native_http_gate:lower(trim(hd(binary:split(Value, <<";">>)))).

trim(<<C, Rest/binary>>) when C =:= $\s; C =:= $\t -> trim(Rest);
trim(Value) -> trim_end(Value, byte_size(Value)).

trim_end(Value, 0) ->
    binary_part(Value, 0, 0);
trim_end(Value, Size) ->
    case binary:at(Value, Size - 1) of
        C when C =:= $\s; C =:= $\t -> trim_end(Value, Size - 1);
        _ -> binary_part(Value, 0, Size)
    end.

%% ---- GET and DELETE, which only sessions have

legacy(Call, Serve) ->
    #{request := #{headers := Headers}, config := Config, exchange := Exchange} = Call,
    #{revisions := Revisions, sessions := Sessions} = Config,
    Header = lists:keyfind(<<"mcp-protocol-version">>, 1, Headers),
    case {Sessions andalso erlmcp_native_http_config:legacy(Revisions), Header} of
        {false, _} -> not_allowed(Call);
        {[], _} -> not_allowed(Call);
        {_, false} -> Serve(Call);
        {Legacy, {_, Revision}} ->
            case {lists:member(Revision, Legacy), lists:member(Revision, Revisions)} of
                {true, _} -> Serve(Call);
                {false, true} -> not_allowed(Call);
                {false, false} -> refuse(400, <<"Unsupported protocol version">>, Exchange)
            end
    end.

listen(#{request := #{headers := Headers}, exchange := Exchange} = Call) ->
    case accepts(<<"text/event-stream">>, <<"text/*">>, Headers) of
        true -> erlmcp_native_http_stream:serve(Call);
        false -> refuse(406, <<"Accept must have text/event-stream">>, Exchange)
    end.

delete(#{exchange := Exchange} = Call) ->
    case erlmcp_native_http_post:session(Call) of
        {ok, _, #{pid := Pid}} ->
            ok = erlmcp_native_http_session:close(Pid),
            erlmcp_native_http_path:reply(Exchange, 204, [], <<>>);
        {error, Status, Text} ->
            refuse(Status, Text, Exchange)
    end.

not_allowed(#{exchange := Exchange}) ->
    Headers = [{<<"allow">>, <<"POST">>}],
    erlmcp_native_http_path:reply(Exchange, 405, Headers, <<>>).

refuse(Status, Text, Exchange) ->
    Body = erlmcp_native_http_message:failure(none, ?INVALID_REQUEST, Text),
    Headers = [{<<"content-type">>, <<"application/json">>}],
    erlmcp_native_http_path:reply(Exchange, Status, Headers, Body).
