%% @doc HTTP servers, and the contract that the paths meet.
%%
%% A listener belongs to the process that opened it. Each request is served by a process of its
%% own, which the path starts: it calls `Module:Function(Argument, Exchange, Request)' and answers
%% through the exchange with the functions below, all of them called by that process only. A path
%% knows HTTP and nothing of MCP: it reads requests within the limits of
%% {@link erlmcp_native_http_options:listener()}, refuses by itself what breaks RFC 9110, 9112 or
%% 9113 or a limit, and writes answers.
%%
%% A process that ends without having answered is answered for: with status 500 or what
%% `on_exit/2' has set. One that ends in the middle of a stream has its stream cut off, so that
%% the client can tell it from one that is complete.
-module(erlmcp_native_http_path).

-export([use/1]).
-export([read_body/2, reply/4, stream/3, send/2, finish/1, on_gone/2, on_exit/2, handle_info/2]).

-export_type([listener/0, serve/0, exchange/0, request/0, headers/0, status/0, notice/0]).

-type listener() :: term().

-type serve() :: {Module :: module(), Function :: atom(), Argument :: term()}.

-type exchange() :: {module(), term()}.
%% One request and its answer. It ends with the answer; calls after it are `{error, closed}'.

-type status() :: 100..599.

-type headers() :: [{Name :: binary(), Value :: iodata()}].
%% Names in lower case. `content-length', `transfer-encoding', `connection', `date' and
%% `keep-alive' are the path's business and not among them.

-type request() :: #{
    method := binary(),
    path := binary(),
    query := binary(),
    headers := [{Name :: binary(), Value :: binary()}],
    version := {1, 0} | {1, 1} | {2, 0},
    scheme := http | https,
    peername := erlmcp_native:address(),
    body := {complete, binary()} | pending
}.
%% `path' and `query' are those of the request target, not decoded; `query' is empty or without
%% its question mark. `headers' in the order of arrival, names in lower case, values trimmed; the
%% authority of an HTTP/2 request is in `host'. A body that is not there with the head, or is
%% larger than 64 KiB, is `pending' and read with `read_body/2'.

-type notice() :: gone | writable.
%% `gone': the client has closed the connection or reset the stream before the answer was
%% complete. `writable': a send was refused with `busy' and there is room again.

-callback listen(erlmcp_native:endpoint(), erlmcp_native_http_options:listener(), serve()) ->
    {ok, listener()} | {error, erlmcp_native:reason()}.
%% Binds and listens before it returns. The calling process is the owner; the listener and all its
%% connections end with it.

-callback listener_handle_info(term(), listener()) ->
    {[{down, erlmcp_native:reason()} | drained], listener()} | unknown.
%% Gives meaning to a message in the owner's mailbox.

-callback listener_info(listener()) ->
    #{
        sockname := erlmcp_native:address(),
        connections := non_neg_integer(),
        requests := non_neg_integer(),
        streams := non_neg_integer(),
        atom() => term()
    }.
%% `requests' are those in progress, of which `streams' have begun to stream their answer.

-callback listener_drain(listener(), Ms :: non_neg_integer()) -> listener().
%% Stops accepting, closes what is idle, lets requests in progress end for so long, and then cuts
%% them off. `drained' follows, when all connections are closed.

-callback listener_close(listener()) -> ok.
%% Closes the listener and all its connections at once.

-callback read_body(term(), TimeoutMs :: timeout()) ->
    {ok, binary()} | {error, body_too_large | timeout | closed}.
%% The whole body, waiting for it; the client is asked for it (100-continue) here. An error leaves
%% an exchange that can be answered still (413, 408), except for `closed'.

-callback reply(term(), status(), headers(), iodata()) -> ok | {error, closed}.
%% Answers whole. To a HEAD request, or with 204 and 304, no body goes out.

-callback stream(term(), status(), headers()) -> ok | {error, closed}.
%% Begins an answer of unknown length. The head goes out at once.

-callback send(term(), iodata()) -> ok | {error, busy | closed}.
%% Sends a part of a stream at once, or queues it; `busy' when `max_stream_bytes' wait already, and
%% then the notice `writable' follows.

-callback finish(term()) -> ok | {error, closed}.
%% Ends a stream after what is queued.

-callback on_gone(term(), notice | exit) -> ok.
%% What becomes of the serving process when the client goes: it is told (`notice', the default) or
%% receives the exit signal `{shutdown, gone}'.

-callback on_exit(term(), status()) -> ok.
%% The status that answers for a process that ends without an answer; 500 if not set.

-callback handle_info(term(), term()) -> notice() | unknown.
%% Gives meaning to a message in the mailbox of the serving process.

%% @doc The callback module of a path that can be used on this node.
-spec use(erlmcp_native_path:path() | default) -> {ok, module()} | {error, erlmcp_native:reason()}.
use(Path) ->
    case erlmcp_native_path:use(Path) of
        {ok, erlmcp_native_nif_path} -> {ok, erlmcp_native_nif_http};
        {ok, erlmcp_native_port_path} -> {ok, erlmcp_native_port_http};
        {ok, erlmcp_native_beam_path} -> {ok, erlmcp_native_beam_http};
        {error, _} = Error -> Error
    end.

-spec read_body(exchange(), timeout()) ->
    {ok, binary()} | {error, body_too_large | timeout | closed}.
read_body({Module, Exchange}, Timeout) -> Module:read_body(Exchange, Timeout).

-spec reply(exchange(), status(), headers(), iodata()) -> ok | {error, closed}.
reply({Module, Exchange}, Status, Headers, Body) ->
    Result = Module:reply(Exchange, Status, Headers, Body),
    ok = erlmcp_native_http_measure:replied(Module, Status, Body),
    Result.

-spec stream(exchange(), status(), headers()) -> ok | {error, closed}.
stream({Module, Exchange}, Status, Headers) ->
    ok = erlmcp_native_http_measure:streams(Module, Status),
    Module:stream(Exchange, Status, Headers).

-spec send(exchange(), iodata()) -> ok | {error, busy | closed}.
send({Module, Exchange}, Data) -> Module:send(Exchange, Data).

-spec finish(exchange()) -> ok | {error, closed}.
finish({Module, Exchange}) ->
    Result = Module:finish(Exchange),
    ok = erlmcp_native_http_measure:finished(Module),
    Result.

-spec on_gone(exchange(), notice | exit) -> ok.
on_gone({Module, Exchange}, What) -> Module:on_gone(Exchange, What).

-spec on_exit(exchange(), status()) -> ok.
on_exit({Module, Exchange}, Status) -> Module:on_exit(Exchange, Status).

-spec handle_info(term(), exchange()) -> notice() | unknown.
handle_info(Msg, {Module, Exchange}) -> Module:handle_info(Msg, Exchange).
