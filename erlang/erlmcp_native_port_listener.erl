%% @private A listener of the path `port'.
%%
%% The program accepts as many connections as it was allowed to; each has an id from then on and
%% waits, unread, for its owner.
-module(erlmcp_native_port_listener).

-include("erlmcp_native_port.hrl").

-export([listen/2, accept/2, handle_info/2, info/1, close/1]).

-export_type([listener/0]).

-record(listener, {
    id :: erlmcp_native_port:id(),
    handle :: erlmcp_native_port:handle(),
    options :: erlmcp_native_options:listener(),
    router :: reference(),
    sockname :: erlmcp_native:address(),
    %% Born, and not handed out.
    waiting = queue:new() :: queue:queue(erlmcp_native_port:id()),
    %% How many more may be born.
    credit = 1 :: non_neg_integer(),
    armed = true :: boolean(),
    loss = none :: none | erlmcp_native:reason()
}).

-opaque listener() :: #listener{}.

%% Looking up a name and reading certificates takes a while.
-define(LISTEN_MS, 30000).
-define(CLOSE_MS, 5000).

-spec listen(erlmcp_native:endpoint(), erlmcp_native_options:listener()) ->
    {ok, listener()} | {error, erlmcp_native:reason()}.
listen(Endpoint, Options) ->
    case erlmcp_native_port:open(none) of
        {ok, Id, Handle} ->
            Body = term_to_binary({Endpoint, Options}),
            _ = erlmcp_native_port:command(Handle, ?TO_LISTEN, Id, Body),
            Router = monitor(process, erlmcp_native_port),
            listening(#listener{
                id = Id, handle = Handle, options = Options, router = Router, sockname = unnamed
            });
        {error, _} = Error ->
            Error
    end.

listening(#listener{id = Id, router = Router} = L) ->
    Result =
        receive
            {erlmcp_native_io, Id, <<?FROM_LISTENING, _:64, Name/binary>>} ->
                {ok, L#listener{sockname = erlmcp_native_port_term:read(Name)}};
            {erlmcp_native_io, Id, <<?FROM_DOWN, _:64, Reason/binary>>} ->
                {error, erlmcp_native_port_term:reason(Reason)};
            {erlmcp_native_io, Id, {down, Reason}} ->
                {error, Reason};
            {'DOWN', Router, process, _, _} ->
                {error, port_program}
        after ?LISTEN_MS -> {error, timeout}
        end,
    _ = [close(L) || element(1, Result) =:= error],
    Result.

-spec accept(listener(), pos_integer()) ->
    {
        [erlmcp_native_port_path:socket()],
        armed | more | {down, erlmcp_native:reason()},
        listener()
    }.
accept(#listener{waiting = Waiting} = L, Max) ->
    {Now, Later} = queue:split(min(Max, queue:len(Waiting)), Waiting),
    Sockets = [
        erlmcp_native_port_path:accepted(Id, L#listener.handle, L#listener.options)
     || Id <- queue:to_list(Now)
    ],
    Next = allow(Max - length(Sockets), L#listener{waiting = Later}),
    case {queue:is_empty(Later), L#listener.loss, Next#listener.credit} of
        {false, _, _} -> {Sockets, more, Next};
        {true, Reason, _} when Reason =/= none -> {Sockets, {down, Reason}, Next};
        %% None may be born before the next call, so nothing would tell of it.
        {true, none, 0} -> {Sockets, more, Next};
        {true, none, _} -> {Sockets, armed, Next#listener{armed = true}}
    end.

%% As many more as were asked for now and did not wait.
allow(Room, #listener{waiting = Waiting, credit = Credit, handle = Handle, id = Id} = L) ->
    case Room - queue:len(Waiting) - Credit of
        More when More > 0 ->
            _ = erlmcp_native_port:command(Handle, ?TO_ACCEPT, Id, <<More:32>>),
            L#listener{credit = Credit + More};
        _ ->
            L
    end.

-spec handle_info(term(), listener()) -> {ready | none, listener()} | unknown.
handle_info({erlmcp_native_io, Id, Message}, #listener{id = Id} = L) ->
    notice(arrived(Message, L));
handle_info({'DOWN', Router, process, _, _}, #listener{router = Router} = L) ->
    notice(lose(port_program, L));
handle_info(_, _) ->
    unknown.

notice(#listener{armed = true} = L) -> {ready, L#listener{armed = false}};
notice(L) -> {none, L}.

arrived(<<?FROM_BORN, Id:64, _/binary>>, #listener{waiting = Waiting, credit = Credit} = L) ->
    L#listener{waiting = queue:in(Id, Waiting), credit = max(0, Credit - 1)};
arrived(<<?FROM_DOWN, _:64, Reason/binary>>, L) ->
    lose(erlmcp_native_port_term:reason(Reason), L);
arrived({down, Reason}, L) ->
    lose(Reason, L).

lose(Reason, #listener{loss = none} = L) -> L#listener{loss = Reason};
lose(_, L) -> L.

-spec info(listener()) -> #{sockname := erlmcp_native:address()}.
info(#listener{sockname = Name}) ->
    #{sockname => Name}.

-spec close(listener()) -> ok.
close(#listener{id = Id, handle = Handle, router = Router, waiting = Waiting}) ->
    %% The address is free when this returns.
    _ = erlmcp_native_port:command(Handle, ?TO_CLOSE, Id),
    _ = erlmcp_native_port:command(Handle, ?TO_PING, Id),
    receive
        {erlmcp_native_io, Id, <<?FROM_PONG, _:64>>} -> ok;
        {erlmcp_native_io, Id, {down, _}} -> ok;
        {'DOWN', Router, process, _, _} -> ok
    after ?CLOSE_MS -> ok
    end,
    true = demonitor(Router, [flush]),
    lists:foreach(fun erlmcp_native_port:forget/1, queue:to_list(Waiting)),
    erlmcp_native_port:forget(Id).
