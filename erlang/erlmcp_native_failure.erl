%% @doc What kind of failure a reason tells of. Pure.
-module(erlmcp_native_failure).

-export([kind/1]).

-export_type([kind/0]).

-type kind() ::
    refused
    | timeout
    | reset
    | shutdown
    | tls
    | protocol
    | unreachable
    | exited
    | not_started
    | native
    | other.
%% `refused': nobody listens, or the file of a Unix-domain socket is missing. `timeout': no answer
%% in time, in connecting or in the TLS handshake. `reset': broken off. `shutdown': closed in
%% order. `protocol': the peer says what it must not. `unreachable': no route, or no address.
%% `exited', `not_started': a child process. `native': the port program, or a defect in native code.

%% @doc The kind of a reason in `{down, Reason, _}', or in `{failed, _, Reason}' of an HTTP client.
-spec kind(term()) -> kind().
kind(refused) -> refused;
kind({posix, enoent}) -> refused;
kind(timeout) -> timeout;
kind({tls, timeout}) -> timeout;
kind(reset) -> reset;
kind(closed) -> shutdown;
kind({tls, _}) -> tls;
kind(frame_too_large) -> protocol;
kind(message_too_large) -> protocol;
kind(protocol) -> protocol;
kind(no_response) -> protocol;
kind({redirect, _}) -> protocol;
kind({status, _, _}) -> protocol;
kind(unreachable) -> unreachable;
kind(nxdomain) -> unreachable;
kind({exit_status, _}) -> exited;
kind({signal, _}) -> exited;
kind({command, _, _}) -> not_started;
kind({cwd, _, _}) -> not_started;
kind(port_program) -> native;
kind(panic) -> native;
kind(_) -> other.
