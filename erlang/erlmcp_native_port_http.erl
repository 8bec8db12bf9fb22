%% @doc HTTP servers on the path `port': hyper in the port program.
%%
%% As on the path `nif', a process beside the owner, the acceptor, starts a process for each
%% request. That process reads its request and writes its answer to the port itself; what the
%% program has to tell of a request comes by way of the acceptor, which also tells the program of
%% processes that have ended.
-module(erlmcp_native_port_http).

-behaviour(erlmcp_native_http_path).

-include("erlmcp_native_port_http.hrl").

-export([listen/3, listener_handle_info/2, listener_info/1, listener_drain/2, listener_close/1]).
-export([read_body/2, reply/4, stream/3, send/2, finish/1, on_gone/2, on_exit/2, handle_info/2]).
-export([served/5, serve/3]).

-export_type([served/0]).

-define(LINK, erlmcp_native_port_http_link).
-define(TERM, erlmcp_native_port_term).

%% The VM's own default.
-define(IDLE_HEAP_WORDS, 233).

%% Pieces of a body, of 256 KiB, that may be under way.
-define(PIECES, 4).

-record(listener, {
    link :: ?LINK:link(),
    sockname :: erlmcp_native:address()
}).

-record(served, {
    handle :: erlmcp_native_port:handle(),
    %% All packets about a request carry that of the acceptor.
    acceptor_id :: erlmcp_native_port:id(),
    acceptor :: pid(),
    id :: erlmcp_native_port:id(),
    answer :: erlmcp_native_port_http_answer:answer()
}).

-opaque served() :: #served{}.

%% @private
-spec listen(
    erlmcp_native:endpoint(),
    erlmcp_native_http_options:listener(),
    erlmcp_native_http_path:serve()
) -> {ok, #listener{}} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options, Serve) ->
    case erlmcp_native_port_http_acceptor:start(Options, Serve) of
        {ok, Acceptor, AcceptorId} ->
            case listen(term_to_binary({AcceptorId, Endpoint, Options})) of
                {ok, _} = Ok ->
                    Ok;
                {error, _} = Error ->
                    exit(Acceptor, kill),
                    Error
            end;
        {error, _} = Error ->
            Error
    end.

listen(Terms) ->
    case ?LINK:open() of
        {ok, Link} ->
            _ = ?LINK:tell(?TO_HTTP_LISTEN, Terms, Link),
            case ?LINK:await(?FROM_HTTP_LISTENING, Link) of
                {ok, Name} -> {ok, #listener{link = Link, sockname = ?TERM:read(Name)}};
                {error, _} = Error -> Error
            end;
        {error, _} = Error ->
            Error
    end.

%% @private
-spec listener_handle_info(term(), #listener{}) ->
    {[{down, erlmcp_native:reason()} | drained], #listener{}} | unknown.
listener_handle_info(Msg, #listener{link = Link} = Listener) ->
    case ?LINK:message(Msg, Link) of
        {packet, ?FROM_HTTP_DRAINED, _} -> {[drained], Listener};
        %% The answer to a question that was given up.
        {packet, _, _} -> {[], Listener};
        {down, Reason} -> {[{down, Reason}], Listener};
        {lost, Reason} -> {[{down, Reason}], Listener};
        unknown -> unknown
    end.

%% @private
-spec listener_info(#listener{}) ->
    #{
        sockname := erlmcp_native:address(),
        connections := non_neg_integer(),
        requests := non_neg_integer(),
        streams := non_neg_integer()
    }.
listener_info(#listener{link = Link, sockname = Sockname}) ->
    {Connections, Requests, Streams} = ?LINK:counts(?TO_HTTP_INFO, Link),
    #{
        sockname => Sockname,
        connections => Connections,
        requests => Requests,
        streams => Streams
    }.

%% @private
-spec listener_drain(#listener{}, non_neg_integer()) -> #listener{}.
listener_drain(#listener{link = Link} = Listener, Ms) ->
    _ = ?LINK:tell(?TO_HTTP_DRAIN, <<Ms:64>>, Link),
    Listener.

%% @private
-spec listener_close(#listener{}) -> ok.
listener_close(#listener{link = Link}) ->
    ?LINK:close(Link).

%% @private
-spec read_body(served(), timeout()) -> {ok, binary()} | {error, body_too_large | timeout | closed}.
read_body(#served{acceptor = Acceptor, answer = Answer} = Served, Timeout) ->
    case erlmcp_native_port_http_answer:is_waiting(Answer) of
        true ->
            Monitor = monitor(process, Acceptor),
            ok = want_body(?PIECES, Served),
            Result = body(Timeout, Monitor, Served, []),
            true = demonitor(Monitor, [flush]),
            Result;
        false ->
            {error, closed}
    end.

%% The time is that until it begins to come: it comes when it is complete.
body(Timeout, Monitor, #served{id = Id} = Served, Acc) ->
    receive
        {erlmcp_native_io, Id, {body, ?BODY_PIECE, Piece}} ->
            ok = want_body(1, Served),
            body(infinity, Monitor, Served, [Acc | Piece]);
        {erlmcp_native_io, Id, {body, ?BODY_LAST, Piece}} ->
            {ok, joined(Acc, Piece)};
        {erlmcp_native_io, Id, {body, Why, _}} ->
            {error, body_error(Why)};
        {'DOWN', Monitor, process, _, _} ->
            {error, closed}
    after Timeout ->
        {error, timeout}
    end.

joined([], Piece) -> Piece;
joined(Acc, Piece) -> iolist_to_binary([Acc | Piece]).

body_error(?BODY_TOO_LARGE) -> body_too_large;
body_error(?BODY_TIMEOUT) -> timeout;
body_error(?BODY_CLOSED) -> closed.

want_body(Count, Served) ->
    _ = tell(?TO_HTTP_WANT_BODY, <<Count>>, Served),
    ok.

%% @private
-spec reply(
    served(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers(), iodata()
) -> ok | {error, closed}.
reply(#served{answer = Answer} = Served, Status, Headers, Body) ->
    Head = erlmcp_native_port_http_packet:head(Status, Headers),
    case erlmcp_native_port_http_answer:answer(Answer) of
        true -> tell(?TO_HTTP_REPLY, [Head | Body], Served);
        false -> {error, closed}
    end.

%% @private
-spec stream(served(), erlmcp_native_http_path:status(), erlmcp_native_http_path:headers()) ->
    ok | {error, closed}.
stream(#served{answer = Answer} = Served, Status, Headers) ->
    %% It will live longer than a request, and be idle.
    _ = process_flag(min_heap_size, ?IDLE_HEAP_WORDS),
    Head = erlmcp_native_port_http_packet:head(Status, Headers),
    case erlmcp_native_port_http_answer:stream(Answer) of
        ok ->
            tell(?TO_HTTP_STREAM, Head, Served);
        full ->
            Later = erlmcp_native_port_http_packet:head(503, [{<<"retry-after">>, <<"1">>}]),
            _ = tell(?TO_HTTP_REPLY, Later, Served),
            {error, closed};
        closed ->
            {error, closed}
    end.

%% @private
-spec send(served(), iodata()) -> ok | {error, busy | closed}.
send(#served{answer = Answer} = Served, Data) ->
    case {erlmcp_native_port_http_answer:is_streaming(Answer), iolist_size(Data)} of
        {false, _} -> {error, closed};
        {true, 0} -> ok;
        {true, Size} -> send(erlmcp_native_port_http_answer:count(Size, Answer), Data, Served)
    end.

send(ok, Data, Served) ->
    tell(?TO_HTTP_SEND, Data, Served);
send(busy, _, #served{answer = Answer} = Served) ->
    _ = [
        tell(?TO_HTTP_WANT_ROOM, [], Served)
     || erlmcp_native_port_http_answer:refuse(Answer)
    ],
    {error, busy}.

%% @private
-spec finish(served()) -> ok | {error, closed}.
finish(#served{answer = Answer} = Served) ->
    case erlmcp_native_port_http_answer:finish(Answer) of
        true -> tell(?TO_HTTP_FINISH, [], Served);
        false -> {error, closed}
    end.

%% @private
-spec on_gone(served(), notice | exit) -> ok.
on_gone(#served{answer = Answer}, What) ->
    case erlmcp_native_port_http_answer:on_gone(What, Answer) of
        true when What =:= exit ->
            true = exit(self(), {shutdown, gone}),
            ok;
        _ ->
            ok
    end.

%% @private
-spec on_exit(served(), erlmcp_native_http_path:status()) -> ok.
on_exit(#served{answer = Answer}, Status) when Status >= 200, Status < 600 ->
    erlmcp_native_port_http_answer:on_exit(Status, Answer);
on_exit(_, _) ->
    error(badarg).

%% @private
-spec handle_info(term(), served()) -> erlmcp_native_http_path:notice() | unknown.
handle_info({erlmcp_native_io, Id, gone}, #served{id = Id}) -> gone;
handle_info({erlmcp_native_io, Id, writable}, #served{id = Id}) -> writable;
handle_info(_, _) -> unknown.

tell(Op, Body, #served{handle = Handle, acceptor_id = AcceptorId, id = Id}) ->
    erlmcp_native_port:command(Handle, Op, AcceptorId, [<<Id:64>> | Body]).

%% @doc A request that the acceptor has heard of.
-spec served(
    erlmcp_native_port:handle(),
    erlmcp_native_port:id(),
    pid(),
    erlmcp_native_port:id(),
    erlmcp_native_port_http_answer:answer()
) -> served().
served(Handle, AcceptorId, Acceptor, Id, Answer) ->
    #served{
        handle = Handle, acceptor_id = AcceptorId, acceptor = Acceptor, id = Id, answer = Answer
    }.

%% @doc Serves a request: the process is started with what follows the acceptor's id in the
%% packet.
-spec serve(binary(), served(), erlmcp_native_http_path:serve()) -> term().
serve(Packet, Served, {Module, Function, Argument}) ->
    Request = erlmcp_native_port_http_packet:request(Packet),
    Module:Function(Argument, {?MODULE, Served}, Request).
