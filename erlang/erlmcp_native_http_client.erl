%% @doc A client of the Model Context Protocol over Streamable HTTP, in all published revisions.
%%
%% ```
%% {ok, Client} = erlmcp_native_http_client:start(<<"http://127.0.0.1:8080/mcp">>, #{}),
%% {ok, _} = erlmcp_native_http_client:initialize(Client, #{}, 5000),
%% ok = erlmcp_native_http_client:send(
%%     Client, <<"{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}">>
%% ),
%% receive {erlmcp_native, Client, {frames, [Tools]}} -> Tools end,
%% ok = erlmcp_native_http_client:close(Client).
%% '''
%%
%% A client is a process that sends JSON-RPC messages, each in a POST of its own unless they are
%% given as a batch, and passes those that come back to its owner as
%% `{erlmcp_native, Client, event()}'. It ends with its owner. What belongs to the transport it does
%% by itself: sessions and their headers, event streams and their resumption, redirects, retries,
%% timeouts, and HTTP+SSE where a server has nothing else.
-module(erlmcp_native_http_client).

-export([start/2, start_link/2, send/2, send/3, cancel/2, initialize/3, info/1, close/1]).

-export_type([options/0, event/0, reason/0]).

-type options() :: #{
    owner => pid(),
    path => erlmcp_native_path:path() | default,
    headers => erlmcp_native_http_client_options:headers(),
    revision => binary(),
    reinitialize => boolean(),
    initialized => owner | auto,
    get_stream => boolean(),
    http_sse => boolean(),
    max_message_bytes => pos_integer(),
    max_pending => pos_integer(),
    max_owner_queue => pos_integer(),
    max_owner_bytes => pos_integer(),
    max_redirects => non_neg_integer(),
    max_resumes => non_neg_integer(),
    retries => non_neg_integer(),
    retry_unsafe => boolean(),
    retry_min_ms => pos_integer(),
    retry_max_ms => pos_integer(),
    timeout_ms => pos_integer(),
    total_timeout_ms => pos_integer() | infinity,
    breaker => boolean() | map(),
    atom() => term()
}.
%% And all of {@link erlmcp_native_http_options:client()}. docs/http_client.md describes them.

-type event() ::
    erlmcp_native_http_client_core:event()
    | {down, erlmcp_native:reason(), final}.
%% `{frames, Messages}': responses, requests and notifications that have arrived, in order.
%% `{failed, Id, Reason}': there will be no response to the request, or, with `none', a
%% notification or response was not accepted. `session_lost': the server has ended the session,
%% everything that was pending is `failed'; the next message to send is `initialize'.
%% `session_renewed': with `reinitialize' there is a new one; what the server kept of the old one,
%% subscriptions among it, is gone.

-type reason() :: erlmcp_native_http_client_core:reason().

-define(CALL_TIMEOUT_MS, 30000).

%% @doc Starts a client under this application's supervisor. Nothing is connected before the first
%% message.
-spec start(binary() | string(), options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start(Url, Options) ->
    with_options(Url, Options, fun erlmcp_native_http_client_sup:start_client/1).

%% @doc The same, linked to the caller.
-spec start_link(binary() | string(), options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
start_link(Url, Options) ->
    with_options(Url, Options, fun erlmcp_native_http_client_proc:start_link/1).

%% @doc Sends one message, or, in a session of 2025-03-26, an array of 1 to 100. `ok' means that it
%% was accepted, not that it has arrived: for a request a response or `failed' follows, for others
%% `failed' if they were refused. Those that the protocol lets not be sent yet are kept until
%% `initialize' and `notifications/initialized' are answered.
-spec send(pid(), iodata()) -> ok | {error, erlmcp_native_http_client_core:send_error()}.
send(Client, Message) ->
    send(Client, Message, #{}).

%% @doc The same for a request with limits of its own, `timeout_ms' and `total_timeout_ms', each of
%% which may be `infinity'. Without it those of the client apply, but to a `subscriptions/listen',
%% which has none. `trace' puts a W3C trace context into `_meta' of the message, in place of what
%% is there.
-spec send(pid(), iodata(), #{
    timeout_ms => pos_integer() | infinity,
    total_timeout_ms => pos_integer() | infinity,
    trace => erlmcp_native_trace_context:trace()
}) ->
    ok | {error, erlmcp_native_http_client_core:send_error()}.
send(Client, Message, Limits) ->
    call(Client, {send, Message, Limits}).

%% @doc Gives up a request: the server is told, and `{failed, Id, cancelled}' follows.
-spec cancel(pid(), integer() | binary()) -> ok | {error, erlmcp_native:reason()}.
cancel(Client, Id) ->
    call(Client, {cancel, Id}).

%% @doc Called by the owner: sends `initialize' with the option `revision', waits for the answer,
%% and sends `notifications/initialized'. `Params' may hold `capabilities' and `clientInfo'.
-spec initialize(pid(), map(), timeout()) ->
    {ok, Result :: map()} | {error, reason() | {rpc, Error :: map()}}.
initialize(Client, Params, Timeout) ->
    case info(Client) of
        {ok, #{offers := Revision}} ->
            Id = iolist_to_binary(["initialize-", integer_to_list(rand:uniform(16#ffffffff))]),
            Message = erlmcp_native_json:encode(#{
                <<"jsonrpc">> => <<"2.0">>,
                <<"id">> => Id,
                <<"method">> => <<"initialize">>,
                <<"params">> => maps:merge(initialize_params(Revision), Params)
            }),
            case send(Client, Message) of
                ok -> initialized(Client, Id, Timeout);
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @doc What was agreed on, and what is under way.
-spec info(pid()) -> {ok, map()} | {error, erlmcp_native:reason()}.
info(Client) ->
    call(Client, info).

%% @doc Ends the session and the client; what is pending is given up. Closing twice is fine.
-spec close(pid()) -> ok.
close(Client) ->
    case call(Client, close) of
        ok -> ok;
        {error, closed} -> ok
    end.

with_options(Url, Options, Start) ->
    case erlmcp_native_http_client_options:check(Url, Options) of
        {ok, Checked} -> Start(Checked);
        {error, _} = Error -> Error
    end.

initialize_params(Revision) ->
    {ok, Version} =
        case application:get_key(erlmcp_native, vsn) of
            {ok, Vsn} -> {ok, unicode:characters_to_binary(Vsn)};
            undefined -> {ok, <<"0">>}
        end,
    #{
        <<"protocolVersion">> => Revision,
        <<"capabilities">> => #{},
        <<"clientInfo">> => #{<<"name">> => <<"erlmcp_native">>, <<"version">> => Version}
    }.

initialized(Client, Id, Timeout) ->
    Monitor = monitor(process, Client),
    Timer = timer(Timeout),
    {Result, Others} = await(Id, Client, Monitor, Timer, []),
    true = demonitor(Monitor, [flush]),
    _ = is_reference(Timer) andalso erlang:cancel_timer(Timer),
    %% What else has arrived stays for the owner.
    _ = Others =/= [] andalso (self() ! {erlmcp_native, Client, {frames, Others}}),
    case Result of
        {ok, _} ->
            Confirmation = erlmcp_native_http_client_message:initialized(),
            _ = send(Client, maps:get(text, Confirmation)),
            Result;
        {error, _} ->
            Result
    end.

timer(infinity) -> none;
timer(Timeout) -> erlang:start_timer(Timeout, self(), ?MODULE).

await(Id, Client, Monitor, Timer, Others) ->
    receive
        {erlmcp_native, Client, {frames, Messages}} ->
            case lists:partition(fun(Message) -> is_answer(Id, Message) end, Messages) of
                {[Answer], Rest} -> {answer(Answer), Others ++ Rest};
                {[], Rest} -> await(Id, Client, Monitor, Timer, Others ++ Rest)
            end;
        {erlmcp_native, Client, {failed, Id, Reason}} ->
            {{error, Reason}, Others};
        {'DOWN', Monitor, process, _, _} ->
            {{error, closed}, Others};
        {timeout, Timer, ?MODULE} ->
            {{error, timeout}, Others}
    end.

is_answer(Id, Message) ->
    case erlmcp_native_json:scan(Message) of
        {ok, #{kind := response, id := Id}} -> true;
        _ -> false
    end.

answer(Message) ->
    case erlmcp_native_json:decode(Message) of
        {ok, #{<<"result">> := Result}} -> {ok, Result};
        {ok, #{<<"error">> := Error}} -> {error, {rpc, Error}}
    end.

call(Client, Request) ->
    try
        gen_server:call(Client, Request, ?CALL_TIMEOUT_MS)
    catch
        exit:{Reason, _} when Reason =:= noproc; Reason =:= normal; Reason =:= shutdown ->
            {error, closed}
    end.
