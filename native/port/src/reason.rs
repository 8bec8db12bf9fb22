//! `erlmcp_core::Error` as `erlmcp_native:reason()`, one to one.

use erlmcp_core::stdio::Fault;
use erlmcp_core::{Error, TlsError};

use crate::term::Writer;

/// The reason as a term of its own.
pub(crate) fn term(error: Error) -> Vec<u8> {
    let mut out = Writer::new();
    write(&mut out, error);
    out.finish()
}

/// The reason as a part of a term.
pub(crate) fn write(out: &mut Writer, error: Error) {
    let name = match error {
        Error::Closed => "closed",
        Error::Reset => "reset",
        Error::Refused => "refused",
        Error::Unreachable => "unreachable",
        Error::Timeout => "timeout",
        Error::NoSuchName => "nxdomain",
        Error::AddressInUse => "address_in_use",
        Error::FrameTooLarge => "frame_too_large",
        Error::EmbeddedNewline => "embedded_newline",
        Error::EmptyMessage => "empty_message",
        Error::Busy => "busy",
        Error::NotConnected => "not_connected",
        Error::Panic => "panic",
        Error::ExitStatus(status) => {
            out.tuple(2)
                .atom("exit_status")
                .integer(i64::from(status).unsigned_abs());
            return;
        }
        Error::Signal(signal) => {
            out.tuple(2)
                .atom("signal")
                .integer(i64::from(signal).unsigned_abs());
            return;
        }
        Error::Command(errno) => {
            out.tuple(2).atom("command").atom(posix(errno));
            return;
        }
        Error::Cwd(errno) => {
            out.tuple(2).atom("cwd").atom(posix(errno));
            return;
        }
        Error::Tls(reason) => {
            out.tuple(2).atom("tls").atom(tls(reason));
            return;
        }
        Error::Posix(errno) => {
            out.tuple(2).atom("posix").atom(posix(errno));
            return;
        }
    };
    out.atom(name);
}

/// Why the node's own standard input and output cannot be had.
pub(crate) fn stdio(fault: Fault) -> Vec<u8> {
    let mut out = Writer::new();
    let refusal = out.tuple(2).atom("stdio");
    match fault {
        Fault::Taken => refusal.atom("taken"),
        Fault::Stdin => refusal.atom("stdin"),
        Fault::Stdout => refusal.atom("stdout"),
        Fault::StderrIsStdout => refusal.atom("stderr_is_stdout"),
        Fault::Posix(errno) => refusal.tuple(2).atom("posix").atom(posix(errno)),
    };
    out.finish()
}

fn tls(error: TlsError) -> &'static str {
    match error {
        TlsError::UnknownCa => "unknown_ca",
        TlsError::BadCertificate => "bad_certificate",
        TlsError::CertificateExpired => "certificate_expired",
        TlsError::CertificateRevoked => "certificate_revoked",
        TlsError::HostnameMismatch => "hostname_mismatch",
        TlsError::CertificateRequired => "certificate_required",
        TlsError::ProtocolVersion => "protocol_version",
        TlsError::HandshakeFailure => "handshake_failure",
        TlsError::BadFile => "bad_file",
        TlsError::Timeout => "timeout",
    }
}

/// The names that `inet:posix()` has for them.
pub(crate) fn posix(errno: i32) -> &'static str {
    match errno {
        libc::E2BIG => "e2big",
        libc::EACCES => "eacces",
        libc::EADDRNOTAVAIL => "eaddrnotavail",
        libc::EAFNOSUPPORT => "eafnosupport",
        libc::EAGAIN => "eagain",
        libc::EBADF => "ebadf",
        libc::ECONNABORTED => "econnaborted",
        libc::EDESTADDRREQ => "edestaddrreq",
        libc::EFAULT => "efault",
        libc::EFBIG => "efbig",
        libc::EINVAL => "einval",
        libc::EIO => "eio",
        libc::EISDIR => "eisdir",
        libc::ELOOP => "eloop",
        libc::EMFILE => "emfile",
        libc::EMSGSIZE => "emsgsize",
        libc::ENAMETOOLONG => "enametoolong",
        libc::ENETDOWN => "enetdown",
        libc::ENFILE => "enfile",
        libc::ENOBUFS => "enobufs",
        libc::ENOENT => "enoent",
        libc::ENOEXEC => "enoexec",
        libc::ENOMEM => "enomem",
        libc::ENOPROTOOPT => "enoprotoopt",
        libc::ENOTDIR => "enotdir",
        libc::ENOTSOCK => "enotsock",
        libc::EOPNOTSUPP => "eopnotsupp",
        libc::EPERM => "eperm",
        libc::EPIPE => "epipe",
        libc::EPROTO => "eproto",
        libc::EPROTONOSUPPORT => "eprotonosupport",
        libc::EPROTOTYPE => "eprototype",
        libc::EROFS => "erofs",
        libc::ETIMEDOUT => "etimedout",
        libc::ETXTBSY => "etxtbsy",
        _ => "unknown",
    }
}
