%% @doc HTTP servers on the `beam' path: HTTP/1.1 in pure Erlang, with `gen_tcp' and `ssl'.
%%
%% A process accepts, each connection has a process, and each request. HTTP/2 is not spoken here:
%% ALPN does not offer it, and who begins with its preface is answered 505.
%%
%% Where this path differs from `nif': a client that closes its side of a plain connection before
%% it is answered is taken for gone.
-module(erlmcp_native_beam_http).

-behaviour(erlmcp_native_http_path).

-export([listen/3, listener_handle_info/2, listener_info/1, listener_drain/2, listener_close/1]).
-export([read_body/2, reply/4, stream/3, send/2, finish/1, on_gone/2, on_exit/2, handle_info/2]).

-export_type([listener/0]).

-record(listener, {
    pid :: pid(),
    monitor :: reference(),
    tag :: reference(),
    counts :: erlmcp_native_beam_http_count:counts(),
    sockname :: erlmcp_native:address()
}).

-opaque listener() :: #listener{}.
-type exchange() :: erlmcp_native_beam_http_exchange:exchange().

%% @private
-spec listen(
    erlmcp_native:endpoint(),
    erlmcp_native_http_options:listener(),
    erlmcp_native_http_path:serve()
) -> {ok, listener()} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options, Serve) ->
    Tag = make_ref(),
    Counts = erlmcp_native_beam_http_count:new(),
    case erlmcp_native_beam_http_acceptor:start(Tag, Endpoint, Options, Serve, Counts) of
        {ok, Pid, Monitor, SockName} ->
            {ok, #listener{
                pid = Pid,
                monitor = Monitor,
                tag = Tag,
                counts = Counts,
                sockname = SockName
            }};
        {error, _} = Error ->
            Error
    end.

%% @private
-spec listener_handle_info(term(), listener()) ->
    {[{down, erlmcp_native:reason()} | drained], listener()} | unknown.
listener_handle_info({Tag, Event}, #listener{tag = Tag} = L) ->
    {[Event], L};
listener_handle_info({'DOWN', Monitor, process, _, _}, #listener{monitor = Monitor} = L) ->
    {[{down, panic}], L};
listener_handle_info(_, _) ->
    unknown.

%% @private
-spec listener_info(listener()) ->
    #{
        sockname := erlmcp_native:address(),
        connections := non_neg_integer(),
        requests := non_neg_integer(),
        streams := non_neg_integer(),
        atom() => term()
    }.
listener_info(#listener{counts = Counts, sockname = SockName}) ->
    (erlmcp_native_beam_http_count:read(Counts))#{sockname => SockName}.

%% @private
-spec listener_drain(listener(), non_neg_integer()) -> listener().
listener_drain(#listener{pid = Pid} = L, Ms) ->
    ok = erlmcp_native_beam_http_acceptor:drain(Pid, Ms),
    L.

%% @private
-spec listener_close(listener()) -> ok.
listener_close(#listener{pid = Pid, monitor = Monitor, tag = Tag}) ->
    true = demonitor(Monitor, [flush]),
    ok = erlmcp_native_beam_http_acceptor:stop(Pid),
    forget(Tag).

forget(Tag) ->
    receive
        {Tag, _} -> forget(Tag)
    after 0 -> ok
    end.

%% @private
-spec read_body(exchange(), timeout()) ->
    {ok, binary()} | {error, body_too_large | timeout | closed}.
read_body(Exchange, Timeout) -> erlmcp_native_beam_http_exchange:read_body(Exchange, Timeout).

%% @private
-spec reply(
    exchange(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers(), iodata()
) -> ok | {error, closed}.
reply(Exchange, Status, Headers, Body) ->
    erlmcp_native_beam_http_exchange:reply(Exchange, Status, Headers, Body).

%% @private
-spec stream(
    exchange(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers()
) -> ok | {error, closed}.
stream(Exchange, Status, Headers) ->
    erlmcp_native_beam_http_exchange:stream(Exchange, Status, Headers).

%% @private
-spec send(exchange(), iodata()) -> ok | {error, busy | closed}.
send(Exchange, Data) -> erlmcp_native_beam_http_exchange:send(Exchange, Data).

%% @private
-spec finish(exchange()) -> ok | {error, closed}.
finish(Exchange) -> erlmcp_native_beam_http_exchange:finish(Exchange).

%% @private
-spec on_gone(exchange(), notice | exit) -> ok.
on_gone(Exchange, What) -> erlmcp_native_beam_http_exchange:on_gone(Exchange, What).

%% @private
-spec on_exit(exchange(), erlmcp_native_http_path:status()) -> ok.
on_exit(Exchange, Status) -> erlmcp_native_beam_http_exchange:on_exit(Exchange, Status).

%% @private
-spec handle_info(term(), exchange()) -> erlmcp_native_http_path:notice() | unknown.
handle_info(Msg, Exchange) -> erlmcp_native_beam_http_exchange:handle_info(Msg, Exchange).
