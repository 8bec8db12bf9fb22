%% @doc A tunnel through an HTTP proxy (CONNECT: RFC 9110, 9.3.6), asked for and waited for.
-module(erlmcp_native_beam_http_client_tunnel).

-export([open/4]).

%% @doc Has a connection to a proxy become one to the authority named; the socket is passive. A
%% proxy that declines has refused the connection.
-spec open(gen_tcp:socket(), Request :: iodata(), MaxHead :: pos_integer(), timeout()) ->
    ok | {error, erlmcp_native:reason()}.
open(Port, Request, MaxHead, TimeoutMs) ->
    Deadline = erlang:monotonic_time(millisecond) + TimeoutMs,
    case gen_tcp:send(Port, Request) of
        ok ->
            read(Port, Deadline, erlmcp_native_beam_http_response:new(<<"CONNECT">>, MaxHead));
        {error, Reason} ->
            {error, erlmcp_native_beam_inet:reason(Reason)}
    end.

read(Port, Deadline, Response0) ->
    Left = max(0, Deadline - erlang:monotonic_time(millisecond)),
    case gen_tcp:recv(Port, 0, Left) of
        {ok, Bytes} ->
            case erlmcp_native_beam_http_response:feed(Bytes, Response0) of
                {[], Response} -> read(Port, Deadline, Response);
                {Events, _} -> answered(Events)
            end;
        {error, Reason} ->
            {error, erlmcp_native_beam_inet:reason(Reason)}
    end.

%% The other end has nothing to say before we do: bytes behind the head are not its own.
answered([{head, Status, _}, {done, keep}]) when Status < 300 -> ok;
answered(_) -> {error, refused}.
