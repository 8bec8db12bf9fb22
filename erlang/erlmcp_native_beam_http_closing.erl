%% @doc The end of an HTTP connection after which nothing more is said: what is queued is sent as
%% long as the peer reads, then our side is closed, and the peer is given time to close its own.
%%
%% Closing a socket with unread data resets the connection, and the reset would destroy what the
%% peer has not read yet: the refusal of a body that it is still sending, above all.
-module(erlmcp_native_beam_http_closing).

-export([run/4]).

%% How long the peer may take to close its side.
-define(LINGER_MS, 2000).

-record(closing, {
    manager :: pid(),
    out :: erlmcp_native_beam_http_out:out(),
    idle_ms :: pos_integer(),
    armed :: boolean(),
    eof :: boolean(),
    shut = false :: boolean(),
    deadline :: integer()
}).

%% @doc What the process of a connection does in the end. `Peer': whether an arrival is due, and
%% whether the peer's side has ended.
-spec run(
    Manager :: pid(),
    erlmcp_native_beam_http_out:out(),
    IdleMs :: pos_integer(),
    Peer :: #{armed := boolean(), eof := boolean()}
) -> no_return().
run(Manager, Out, IdleMs, #{armed := Armed, eof := Eof}) ->
    C = #closing{
        manager = Manager,
        out = Out,
        idle_ms = IdleMs,
        armed = Armed,
        eof = Eof,
        deadline = now_ms() + IdleMs
    },
    loop(look(erlmcp_native_beam_http_out:first_look(), C)).

loop(C0) ->
    #closing{manager = Manager, out = Out} = C = arm(C0),
    receive
        {tcp, _, _} -> loop(C);
        {tcp_passive, _} -> loop(C#closing{armed = false});
        {ssl, _, _} -> loop(C#closing{armed = false});
        {tcp_closed, _} -> loop(ended(C#closing{eof = true}));
        {tcp_error, _, _} -> close(C);
        {ssl_closed, _} -> close(C);
        {ssl_error, _, _} -> close(C);
        {look, Ms} ->
            {Next, Looked} = erlmcp_native_beam_http_out:looked(Ms, Out),
            loop(look(Next, C#closing{out = Looked}));
        {'EXIT', Manager, _} ->
            ok = erlmcp_native_beam_http_out:abort(Out),
            exit(normal);
        {'EXIT', Sender, _} when is_pid(Sender) -> close(C);
        _ -> loop(C)
    after max(0, C#closing.deadline - now_ms()) -> close(C)
    end.

arm(#closing{armed = false, eof = false, out = Out} = C) ->
    case erlmcp_native_beam_http_out:arm(Out) of
        ok -> C#closing{armed = true};
        {error, closed} -> close(C)
    end;
arm(C) ->
    C.

%% What is queued can still be read by a peer that says nothing more.
ended(#closing{shut = true} = C) -> close(C);
ended(C) -> look(erlmcp_native_beam_http_out:first_look(), C).

look(Ms, #closing{shut = false, out = Before, eof = Eof} = C0) ->
    {Pending, Out} = erlmcp_native_beam_http_out:pending(Before),
    C = C0#closing{out = Out},
    case erlmcp_native_beam_http_out:has_moved(Before, Out) of
        _ when Pending =:= 0, Eof -> close(C);
        _ when Pending =:= 0 -> shut(C);
        true -> look_later(Ms, C#closing{deadline = now_ms() + C#closing.idle_ms});
        false -> look_later(Ms, C)
    end;
look(_, C) ->
    C.

look_later(Ms, #closing{out = Out} = C) ->
    C#closing{out = erlmcp_native_beam_http_out:look_later(Ms, Out)}.

shut(#closing{out = Out} = C) ->
    ok = erlmcp_native_beam_http_out:shutdown(Out),
    C#closing{shut = true, deadline = now_ms() + ?LINGER_MS}.

-spec close(#closing{}) -> no_return().
close(#closing{out = Out}) ->
    ok = erlmcp_native_beam_http_out:close(Out),
    exit(normal).

now_ms() -> erlang:monotonic_time(millisecond).
