%% @doc What a user of the HTTP server writes: the MCP server itself.
%%
%% Every request runs in a process of its own; a crash is answered with -32603 and touches nobody
%% else. The transport keeps what belongs to it: sessions, revisions, headers, streams,
%% resumption, cancellation (the process receives an exit signal), ids. The handler answers methods.
-module(erlmcp_native_http_handler).

-export_type([context/0, answer/0]).

-type context() :: #{
    revision := binary(),
    session := binary() | none,
    state := term(),
    principal := term(),
    request := erlmcp_native_http:request_ref() | none,
    meta := map(),
    trace := erlmcp_native_trace_context:trace() | none,
    headers := [{binary(), binary()}],
    peername := erlmcp_native:address(),
    arg := term()
}.
%% `revision': the protocol revision of the session, or of the request from 2026-07-28 on.
%% `session': its id; `none' from 2026-07-28 on and where sessions are off. `state': what
%% `init_session/2' returned, `undefined' without a session. `principal': what the authorization
%% hook returned, `anonymous' without one. `request': what the answer and its stream are named by,
%% from any process; `none' for a notification. `meta': `_meta' of the params, `#{}' if absent.
%% `trace': `traceparent' and `tracestate' of `_meta', or else of the HTTP request, if they are
%% formed as W3C says.
%% `arg': what the listener was given beside the module.

-type answer() ::
    {reply, Result :: map()}
    | {error, Code :: integer(), Message :: binary()}
    | {error, Code :: integer(), Message :: binary(), Data :: term()}
    | noreply.
%% `noreply': {@link erlmcp_native_http:reply/2} follows, from any process.

-callback init_session(InitializeParams :: map(), context()) ->
    {ok, State :: term()} | {error, Code :: integer(), Message :: binary()}.
%% Before `initialize' is handled.

-callback handle_request(Method :: binary(), Params :: map(), context()) -> answer().

-callback handle_notification(Method :: binary(), Params :: map(), context()) -> term().

-callback terminate_session(Id :: binary(), State :: term()) -> term().

-callback input_schema(Tool :: binary(), context()) -> map() | undefined.
%% The `inputSchema' of a tool. With it the headers `Mcp-Param-*' that the schema asks for
%% (`x-mcp-header') are compared with the arguments before `tools/call' is handled; without it they
%% are not looked at.

-optional_callbacks([
    init_session/2, handle_notification/3, terminate_session/2, input_schema/2
]).
