%% @doc MCP servers over HTTP: Streamable HTTP of the revisions 2025-03-26, 2025-06-18, 2025-11-25
%% and 2026-07-28 at one endpoint, and, if asked for, HTTP+SSE of 2024-11-05. docs/http.md tells how
%% to write one.
%%
%% ```
%% {ok, Listener} = erlmcp_native_http:listen(#{port => 8080}, #{handler => {my_server, Arg}}).
%% '''
%%
%% The callback module is described in {@link erlmcp_native_http_handler}. A listener is a
%% process, supervised by this application; it ends with its owner. If it ends by itself, its owner
%% receives `{erlmcp_native, Listener, {down, Reason, final}}'.
-module(erlmcp_native_http).

-export([listen/2, info/1, drain/1, close/1]).
-export([reply/2, notify/3, request/4, close_stream/1, send/3, negotiate/2]).

-export_type([options/0, request_ref/0]).

-type options() :: #{
    handler => {module(), term()},
    server_id => erlmcp_native_registry:server_id(),
    path => erlmcp_native_path:path() | default,
    owner => pid() | none,
    endpoint => binary(),
    revisions => [binary(), ...],
    http_sse => false | #{sse := binary(), messages := binary()},
    metrics => false | binary(),
    sessions => boolean(),
    max_sessions => pos_integer(),
    session_idle_ms => pos_integer(),
    max_events => non_neg_integer(),
    max_event_bytes => non_neg_integer(),
    keepalive_ms => pos_integer(),
    retry_ms => non_neg_integer(),
    priming => boolean(),
    allowed_hosts => [binary()] | any,
    allowed_origins => [binary()] | any,
    authorize => none | {module(), atom(), [term()]},
    resource_metadata => none | map(),
    drain_ms => non_neg_integer(),
    answer_timeout_ms => pos_integer(),
    atom() => term()
}.
%% And all of {@link erlmcp_native_http_options:listener()}. One of `handler' and `server_id' is
%% needed. Defaults and meanings are in docs/http.md.

-opaque request_ref() :: erlmcp_native_http_answer:ref().
%% A request that is being served. Any process may use it until the request has been answered; where
%% the handler itself is still working, others wait for it, at most 5 s.

-define(CALL_TIMEOUT_MS, 30000).

%% @doc Listens. The address, and so the port where 0 was asked for, is in {@link info/1}.
-spec listen(map(), options()) -> {ok, pid()} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options) ->
    case erlmcp_native_options:endpoint(Endpoint) of
        {ok, Address} -> listen_at(Address, erlmcp_native_http_config:check(Address, Options));
        {error, _} = Error -> Error
    end.

listen_at(Address, {ok, #{own := #{path := Name}} = Checked}) ->
    case erlmcp_native_http_path:use(Name) of
        {ok, Path} ->
            Start = #{endpoint => Address, path => Path, checked => Checked},
            erlmcp_native_http_sup:start_listener(Start);
        {error, _} = Error ->
            Error
    end;
listen_at(_, {error, _} = Error) ->
    Error.

%% @doc Address, URL path, and how many connections, requests, streams and sessions there are.
-spec info(pid()) -> {ok, map()} | {error, closed}.
info(Listener) ->
    call(Listener, info, ?CALL_TIMEOUT_MS).

%% @doc Stops accepting, ends the streams that wait for something to happen, lets requests in
%% progress end for `drain_ms', and then closes.
-spec drain(pid()) -> ok.
drain(Listener) ->
    case call(Listener, drain, infinity) of
        ok -> ok;
        {error, closed} -> ok
    end.

%% @doc Closes the listener, its connections and its sessions at once. Closing twice is fine.
-spec close(pid()) -> ok.
close(Listener) ->
    case call(Listener, close, ?CALL_TIMEOUT_MS) of
        ok -> ok;
        {error, closed} -> ok
    end.

%% @doc Answers a request whose handler has returned `noreply'.
-spec reply(request_ref(), erlmcp_native_http_handler:answer()) -> ok | {error, gone}.
reply(Request, Answer) ->
    case erlmcp_native_http_answer:ask(Request, {respond, Answer}) of
        ok -> ok;
        {error, _} -> {error, gone}
    end.

%% @doc Sends a notification that belongs to a request, before its answer. The answer becomes an
%% event stream.
-spec notify(request_ref(), Method :: binary(), Params :: map()) -> ok | {error, gone | busy}.
notify(Request, Method, Params) ->
    case erlmcp_native_http_question:notify(Request, Method, Params) of
        {error, not_allowed} -> {error, gone};
        Result -> Result
    end.

%% @doc Asks the client something in the course of a request, and waits for its answer. From
%% 2026-07-28 on there is no such thing.
-spec request(request_ref(), Method :: binary(), Params :: map(), TimeoutMs :: pos_integer()) ->
    {ok, Result :: term()}
    | {error, {rpc, Code :: integer(), Message :: binary(), Data :: term()}}
    | {error, timeout | gone | not_allowed}.
request(Request, Method, Params, TimeoutMs) ->
    erlmcp_native_http_question:ask(Request, Method, Params, TimeoutMs).

%% @doc Ends the connection that a stream is on, and not the stream: its client comes again after
%% `retry_ms' and finds what was sent meanwhile. Where the client cannot do that nothing happens.
-spec close_stream(request_ref()) -> ok.
close_stream(Request) ->
    _ = erlmcp_native_http_answer:ask(Request, close_stream),
    ok.

%% @doc Sends a notification that belongs to no request to the client of a session: on a stream that
%% it has opened with GET, or else as soon as it opens one.
-spec send(SessionId :: binary(), Method :: binary(), Params :: map()) ->
    ok | {error, no_session | busy}.
send(SessionId, Method, Params) ->
    case erlmcp_native_http_tables:session(SessionId) of
        {ok, #{pid := Pid}} ->
            Json = erlmcp_native_http_message:notification(Method, Params),
            case erlmcp_native_http_session:send(Pid, Json) of
                gone -> {error, no_session};
                Result -> Result
            end;
        error ->
            {error, no_session}
    end.

%% @doc The revision to answer `initialize' with: the client's if it is one of these, else the
%% newest of these that begins with `initialize'.
-spec negotiate(InitializeParams :: map(), Revisions :: [binary(), ...]) -> binary().
negotiate(Params, Revisions) ->
    erlmcp_native_http_era:negotiate(Params, Revisions).

call(Listener, Request, Timeout) ->
    try
        gen_server:call(Listener, Request, Timeout)
    catch
        exit:{Reason, _} when Reason =/= timeout -> {error, closed}
    end.
