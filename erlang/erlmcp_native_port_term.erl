%% @private Terms of the port program, which makes no atoms: those that it may send are here, so
%% that a node has them as soon as it reads the first.
-module(erlmcp_native_port_term).

-export([read/1, read_first/1, reason/1, atoms/0]).

%% @doc A term; `badarg' if it is none, or has other atoms.
-spec read(binary()) -> term().
read(Binary) ->
    binary_to_term(Binary, [safe]).

%% @doc The term that the binary begins with, and what follows it.
-spec read_first(binary()) -> {term(), binary()}.
read_first(Binary) ->
    {Term, Used} = binary_to_term(Binary, [safe, used]),
    <<_:Used/binary, Rest/binary>> = Binary,
    {Term, Rest}.

%% @doc A reason; a program that sends none is not to be trusted, which is a reason, too.
-spec reason(binary()) -> erlmcp_native:reason().
reason(Binary) ->
    try
        read(Binary)
    catch
        error:badarg -> port_program
    end.

-spec atoms() -> [atom()].
atoms() ->
    reasons() ++ tls_reasons() ++ posix() ++ faults() ++ info() ++ levels().

reasons() ->
    [
        closed, reset, refused, unreachable, timeout, nxdomain, address_in_use, frame_too_large,
        embedded_newline, empty_message, busy, not_connected, panic, tls, posix, exit_status,
        signal, command, cwd, protocol, stdio, taken, stdin, stdout, stderr_is_stdout
    ].

tls_reasons() ->
    [
        unknown_ca, bad_certificate, certificate_expired, certificate_revoked, hostname_mismatch,
        certificate_required, protocol_version, handshake_failure, bad_file
    ].

posix() ->
    [
        e2big, eacces, eaddrnotavail, eafnosupport, eagain, ebadf, econnaborted, edestaddrreq,
        efault, efbig, einval, eio, eisdir, eloop, emfile, emsgsize, enametoolong, enetdown, enfile,
        enobufs, enoent, enoexec, enomem, enoprotoopt, enotdir, enotsock, eopnotsupp, eperm, epipe,
        eproto, eprotonosupport, eprototype, erofs, etimedout, etxtbsy, unknown
    ].

faults() ->
    [
        json, bad_json, oversized, true, false, null, unexpected_end, unexpected_byte, invalid_utf8,
        invalid_escape, number_out_of_range, depth_limit, batch_limit
    ].

info() ->
    [
        state, connecting, open, eof, closing, down, undefined, peername, sockname, peercert,
        os_pid, path, abstract, unnamed, frames_in, bytes_in, frames_out, bytes_out, inbound_bytes,
        queue_bytes, buffers, read_bytes, high_water_bytes, min, max, reason, fixed, start,
        quick_owner, slow_owner, counter, gauge
    ].

levels() ->
    [error, warning, info, debug].
