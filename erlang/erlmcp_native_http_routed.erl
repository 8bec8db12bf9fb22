%% @private Requests that erlmcp's servers answer, by way of a registry: erlmcp's where erlmcp runs,
%% else {@link erlmcp_native_registry}. A server knows nothing of a message but its id, so each
%% goes out under a number that is unique here, and the client's id is restored in the answer.
-module(erlmcp_native_http_routed).

-include_lib("kernel/include/logger.hrl").

-export([enter/1, leave/1, restarted/1, request/3, notification/2, response/2]).

-type config() :: erlmcp_native_http_config:config().

-define(INVALID_PARAMS, -32602).
-define(INTERNAL_ERROR, -32603).

-define(UNAVAILABLE, {error, ?INTERNAL_ERROR, <<"The server is not available">>}).

%% @doc Enters the calling process, that of the listener, in the registry.
-spec enter(config()) -> config().
enter(#{server_id := none} = Config) ->
    Config#{registry_monitor => none};
enter(Config) ->
    Number = integer_to_binary(erlang:unique_integer([positive])),
    Pending = ets:new(?MODULE, [public, {write_concurrency, true}]),
    restarted(Config#{
        registry => erlmcp_native_registry:module(),
        transport_id => <<"http:", Number/binary>>,
        pending => Pending,
        numbers => atomics:new(1, [])
    }).

%% @doc Enters it again, in a registry that has been restarted.
-spec restarted(config()) -> config().
restarted(#{registry := Registry, transport_id := Id, server_id := ServerId} = Config) ->
    Monitor = monitor(process, Registry),
    Entry = #{
        type => http,
        server_id => ServerId,
        pid => self(),
        started_at => erlang:system_time(millisecond)
    },
    case erlmcp_native_registry:enter(Registry, Id, Entry) of
        ok -> ok;
        {error, Reason} -> ?LOG_ERROR("erlmcp_native: ~s is not registered: ~0p", [Id, Reason])
    end,
    Config#{registry_monitor => Monitor}.

-spec leave(config()) -> ok.
leave(#{server_id := none}) -> ok;
leave(#{registry := Registry, transport_id := Id}) -> erlmcp_native_registry:leave(Registry, Id).

%% @doc Has a request answered by the server, in the process that serves it.
-spec request(config(), binary(), map()) -> erlmcp_native_http_handler:answer().
request(#{numbers := Numbers, registry := Registry} = Config, Method, Params) ->
    Number = atomics:add_get(Numbers, 1, 1),
    Message = erlmcp_native_http_message:request(Number, Method, Params),
    case bears(Registry, Method, Message) andalso server(Config) of
        false -> {error, ?INVALID_PARAMS, <<"Invalid params">>};
        {ok, Server} -> ask(Server, Number, Message, Config);
        error -> ?UNAVAILABLE
    end.

%% Processes of erlmcp end at some lawful messages.
bears(erlmcp_registry, Method, Message) ->
    erlmcp_native_guard_rules:bears_request(Method, object, Message);
bears(_, _, _) ->
    true.

%% The lookup is a call, and the answer to it mostly the same.
server(#{pending := Pending} = Config) ->
    case ets:lookup(Pending, server) of
        [{_, Pid}] when node(Pid) =:= node() ->
            case is_process_alive(Pid) of
                true -> {ok, Pid};
                false -> find(Config)
            end;
        _ ->
            find(Config)
    end.

find(#{registry := Registry, server_id := ServerId, pending := Pending}) ->
    try Registry:find_server(ServerId) of
        {ok, {Pid, _}} ->
            true = ets:insert(Pending, {server, Pid}),
            {ok, Pid};
        {error, _} ->
            error
    catch
        exit:_ -> error
    end.

ask(Server, Number, Message, #{pending := Pending, answer_timeout_ms := Timeout} = Config) ->
    Monitor = monitor(process, Server),
    true = ets:insert(Pending, {Number, self(), Monitor}),
    Answer =
        case route(Message, Config) of
            ok -> await(Monitor, Timeout);
            {error, _} -> ?UNAVAILABLE
        end,
    true = demonitor(Monitor, [flush]),
    true = ets:delete(Pending, Number),
    Answer.

await(Monitor, Timeout) ->
    receive
        {Monitor, Response} -> answer(erlmcp_native_json:decode(Response));
        {'DOWN', Monitor, process, _, _} -> ?UNAVAILABLE
    after Timeout -> {error, ?INTERNAL_ERROR, <<"The server did not answer in time">>}
    end.

route(Message, #{registry := Registry, server_id := ServerId, transport_id := Id}) ->
    Registry:route_to_server(ServerId, Id, Message).

answer({ok, #{<<"error">> := #{<<"code">> := Code, <<"message">> := Text} = Error}}) ->
    case Error of
        #{<<"data">> := Data} -> {error, Code, Text, Data};
        #{} -> {error, Code, Text}
    end;
answer({ok, #{<<"result">> := Result}}) ->
    {reply, Result};
answer(_) ->
    ?UNAVAILABLE.

%% @doc Passes a notification of a client on. Where there is no server it is logged: nothing answers
%% a notification.
-spec notification(config(), map()) -> ok.
notification(#{registry := Registry} = Config, #{<<"method">> := Method} = Message) ->
    Params =
        case Message of
            #{<<"params">> := #{}} -> object;
            #{} -> none
        end,
    Bears =
        Registry =/= erlmcp_registry orelse
            erlmcp_native_guard_rules:bears_notification(server, Method, Params),
    _ = Bears andalso route(erlmcp_native_json:encode(Message), Config),
    ok.

%% @doc What the server sends: an answer for the process that waits for it, or a notification for
%% all clients.
-spec response(config(), iodata()) -> ok.
response(#{server_id := none}, _) ->
    ok;
response(#{pending := Pending, key := Key}, Data) ->
    Message = iolist_to_binary(Data),
    case erlmcp_native_json:scan(Message) of
        {ok, #{kind := response, id := Number}} ->
            case ets:lookup(Pending, Number) of
                [{_, Pid, Tag}] ->
                    Pid ! {Tag, Message},
                    ok;
                [] ->
                    ok
            end;
        {ok, #{kind := notification}} ->
            Post = fun(Pid) -> erlmcp_native_http_session:post(Pid, Message) end,
            lists:foreach(Post, erlmcp_native_http_tables:sessions_of(Key));
        _ ->
            ?LOG_WARNING("erlmcp_native: a message of a server was dropped")
    end.
