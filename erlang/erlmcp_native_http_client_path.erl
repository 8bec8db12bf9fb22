%% @doc HTTP clients, and the contract that the paths meet.
%%
%% A client is a pool of connections to one origin, kept as a value in the process that opened it
%% and used by that process only. It knows HTTP and nothing of MCP. Nothing waits: what comes of a
%% request reaches the process as messages, to which `handle_info/2' gives meaning, and the body of
%% an answer is pulled: one edge-triggered notice, then `take/3' until nothing is left. A body that
%% nobody takes holds a bounded buffer and makes its server wait.
-module(erlmcp_native_http_client_path).

-export([use/1]).

-export_type([client/0, id/0, origin/0, request/0, event/0, failure/0]).

-type client() :: term().

-type id() :: term().
%% A request of a client, from `request/2' to its end.

-type origin() :: #{scheme := http | https, host := binary(), port := inet:port_number()}.
%% A literal IPv6 address without brackets.

-type request() :: #{
    method := binary(),
    target := binary(),
    headers := [{Name :: binary(), Value :: iodata()}],
    body := iodata() | none,
    timeout_ms := timeout(),
    total_timeout_ms := timeout()
}.
%% `target' is the path and query. `host', `content-length', `transfer-encoding' and `connection'
%% are the path's business, and left out where they are given. `timeout_ms' bounds the time to the
%% head of the answer and then each wait for more of its body; `total_timeout_ms' the whole.

-type event() ::
    {head, id(), Status :: 100..599, [{Name :: binary(), Value :: binary()}]}
    | {readable, id()}
    | {failed, id(), failure()}.
%% `head': the final status and headers (interim ones are skipped), names in lower case. `readable':
%% there is something to take, body or end. `failed': the request is over without an answer.

-type failure() :: #{reason := erlmcp_native:reason() | protocol, safe := boolean()}.
%% `safe': the server cannot have acted on the request (it was never sent, its stream was refused,
%% its connection was going away, or the reused connection was closed before a byte came back on a
%% method that RFC 9110, 9.2.2 calls idempotent), so that sending it again is no repetition.

-callback open(origin(), erlmcp_native_http_options:client()) ->
    {ok, client()} | {error, erlmcp_native:reason()}.
%% Checks files and names a pool. Nothing is dialled before the first request.

-callback request(request(), client()) ->
    {ok, id(), client()} | {error, busy | erlmcp_native:reason(), client()}.
%% Sends a request or queues it: at most `max_connections' (HTTP/1.1) or the peer's stream limit
%% (HTTP/2) are under way, at most `max_queue' wait, and `busy' refuses more.

-callback handle_info(term(), client()) -> {[event()], client()} | unknown.

-callback take(id(), MaxBytes :: pos_integer(), client()) ->
    {[binary()], more | armed | done | {failed, failure()}, client()}.
%% Body that has arrived, at most `MaxBytes' beyond the first part. `armed': nothing is left and
%% `readable' tells of more. `done': the body is complete and was taken to its end, its connection
%% serves the next request.

-callback cancel(id(), client()) -> client().
%% Stops a request wherever it is: it is not sent, or its stream is reset, or its connection is
%% closed. No event of it follows. Of a request that has ended nothing happens.

-callback info(client()) ->
    #{connections := non_neg_integer(), active := non_neg_integer(), queued := non_neg_integer()}.

-callback close(client()) -> ok.

%% @doc The callback module of a path that can be used on this node.
-spec use(erlmcp_native_path:path() | default) -> {ok, module()} | {error, erlmcp_native:reason()}.
use(Path) ->
    case erlmcp_native_path:use(Path) of
        {ok, erlmcp_native_nif_path} -> {ok, erlmcp_native_nif_http_client};
        {ok, erlmcp_native_port_path} -> {ok, erlmcp_native_port_http_client};
        {ok, erlmcp_native_beam_path} -> {ok, erlmcp_native_beam_http_client};
        {error, _} = Error -> Error
    end.
