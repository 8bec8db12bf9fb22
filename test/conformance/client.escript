#!/usr/bin/env escript
%% -*- erlang -*-
%%! -noinput +fnu
%% The client that the conformance suites start: client.escript URL. What it is to do is in the
%% environment: the scenario, the path, and for some scenarios a context.

-define(MODERN, <<"2026-07-28">>).
-define(ANSWER_MS, 20000).
-define(CLIENT, #{<<"name">> => <<"erlmcp_native conformance">>, <<"version">> => <<"1.0.0">>}).

main([Url]) ->
    {ok, _} = application:ensure_all_started(erlmcp_native),
    Path = list_to_existing_atom(os:getenv("ERLMCP_PATH", "nif")),
    Options = #{path => Path, reinitialize => false},
    {ok, Client} = erlmcp_native_http_client:start_link(list_to_binary(Url), Options),
    ok = scenario(os:getenv("MCP_CONFORMANCE_SCENARIO"), Client),
    ok = erlmcp_native_http_client:close(Client),
    halt(0).

scenario("initialize", Client) ->
    initialize(Client),
    #{<<"result">> := _} = request(Client, <<"tools/list">>, #{}),
    ok;
scenario("tools_call", Client) ->
    initialize(Client),
    #{<<"result">> := #{<<"tools">> := _}} = request(Client, <<"tools/list">>, #{}),
    Arguments = #{<<"a">> => 5, <<"b">> => 3},
    #{<<"result">> := _} = call(Client, <<"add_numbers">>, Arguments, #{}),
    ok;
scenario("sse-retry", Client) ->
    initialize(Client),
    #{<<"result">> := _} = call(Client, <<"test_reconnection">>, #{}, #{}),
    ok;
scenario("request-metadata", Client) ->
    %% Whatever is offered first is refused.
    #{<<"error">> := #{<<"code">> := -32022, <<"data">> := #{<<"supported">> := [?MODERN]}}} =
        request(Client, <<"server/discover">>, meta()),
    #{<<"result">> := _} = request(Client, <<"server/discover">>, meta()),
    #{<<"result">> := _} = request(Client, <<"tools/list">>, meta()),
    ok;
scenario("http-standard-headers", Client) ->
    _ = request(Client, <<"server/discover">>, meta()),
    #{<<"tools">> := Tools} = result(Client, <<"tools/list">>),
    #{<<"resources">> := Resources} = result(Client, <<"resources/list">>),
    #{<<"prompts">> := Prompts} = result(Client, <<"prompts/list">>),
    _ = [call(Client, Name, #{}, meta()) || #{<<"name">> := Name} <- Tools],
    _ = [
        request(Client, <<"resources/read">>, (meta())#{<<"uri">> => Uri})
     || #{<<"uri">> := Uri} <- Resources
    ],
    _ = [
        request(Client, <<"prompts/get">>, (meta())#{<<"name">> => Name})
     || #{<<"name">> := Name} <- Prompts
    ],
    ok;
scenario("http-custom-headers", Client) ->
    Context = os:getenv("MCP_CONFORMANCE_CONTEXT"),
    {ok, #{<<"toolCalls">> := Calls}} =
        erlmcp_native_json:decode(unicode:characters_to_binary(Context)),
    #{<<"tools">> := _} = result(Client, <<"tools/list">>),
    _ = [
        #{<<"result">> := _} = call(Client, Name, Arguments, meta())
     || #{<<"name">> := Name, <<"arguments">> := Arguments} <- Calls
    ],
    ok;
scenario("http-invalid-tool-headers", Client) ->
    #{<<"tools">> := Tools} = result(Client, <<"tools/list">>),
    _ = [
        call(Client, Name, #{<<"region">> => <<"x">>, <<"value">> => <<"x">>}, meta())
     || #{<<"name">> := Name} <- Tools
    ],
    ok.

initialize(Client) ->
    #{<<"result">> := #{<<"protocolVersion">> := _}} = request(Client, <<"initialize">>, #{
        <<"protocolVersion">> => <<"2025-11-25">>,
        <<"capabilities">> => #{},
        <<"clientInfo">> => ?CLIENT
    }),
    Initialized = #{
        <<"jsonrpc">> => <<"2.0">>, <<"method">> => <<"notifications/initialized">>
    },
    ok = erlmcp_native_http_client:send(Client, encode(Initialized)).

result(Client, Method) ->
    #{<<"result">> := Result} = request(Client, Method, meta()),
    Result.

call(Client, Name, Arguments, Params) ->
    Call = Params#{<<"name">> => Name, <<"arguments">> => Arguments},
    request(Client, <<"tools/call">>, Call).

meta() ->
    #{
        <<"_meta">> => #{
            <<"io.modelcontextprotocol/protocolVersion">> => ?MODERN,
            <<"io.modelcontextprotocol/clientInfo">> => ?CLIENT,
            <<"io.modelcontextprotocol/clientCapabilities">> => #{}
        }
    }.

request(Client, Method, Params) ->
    Id = erlang:unique_integer([positive]),
    Request = #{
        <<"jsonrpc">> => <<"2.0">>, <<"id">> => Id, <<"method">> => Method, <<"params">> => Params
    },
    case erlmcp_native_http_client:send(Client, encode(Request)) of
        ok -> answer(Client, Id);
        {error, Reason} -> #{<<"failed">> => Reason}
    end.

answer(Client, Id) ->
    receive
        {erlmcp_native, Client, {frames, Frames}} ->
            case [M || F <- Frames, {ok, #{<<"id">> := I} = M} <- [decode(F)], I =:= Id] of
                [Answer] -> Answer;
                [] -> answer(Client, Id)
            end;
        {erlmcp_native, Client, {failed, Id, Reason}} ->
            #{<<"failed">> => Reason};
        {erlmcp_native, Client, Other} ->
            io:format("~p~n", [Other]),
            answer(Client, Id)
    after ?ANSWER_MS ->
        io:format("no answer~n"),
        halt(1)
    end.

decode(Frame) ->
    erlmcp_native_json:decode(Frame).

encode(Message) ->
    erlmcp_native_json:encode(Message).
