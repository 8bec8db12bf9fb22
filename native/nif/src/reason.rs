//! `erlmcp_core::Error` as `erlmcp_native:reason()`, one to one.

use erlmcp_core::stdio::Fault;
use erlmcp_core::{Error, TlsError};
use rustler::{Encoder, Env, Term};

mod atoms {
    rustler::atoms! {
        closed, reset, refused, unreachable, timeout, nxdomain, address_in_use, frame_too_large,
        embedded_newline, empty_message, busy, not_connected, panic, tls, posix,
        exit_status, signal, command, cwd,
        unknown_ca, bad_certificate, certificate_expired, certificate_revoked, hostname_mismatch,
        certificate_required, protocol_version, handshake_failure, bad_file,
        eacces, eaddrnotavail, eafnosupport, ebadf, econnaborted, edestaddrreq, efault, efbig,
        einval, eio, eisdir, eloop, emfile, emsgsize, enametoolong, enetdown, enfile, enobufs,
        enoent, enomem, enoprotoopt, enotdir, enotsock, eopnotsupp, eperm, epipe, eproto,
        eprotonosupport, eprototype, erofs, etimedout, unknown,
        taken, stdin, stdout, stderr_is_stdout,
    }
}

pub(crate) fn term<'a>(env: Env<'a>, error: Error) -> Term<'a> {
    let atom = match error {
        Error::Closed => atoms::closed(),
        Error::Reset => atoms::reset(),
        Error::Refused => atoms::refused(),
        Error::Unreachable => atoms::unreachable(),
        Error::Timeout => atoms::timeout(),
        Error::NoSuchName => atoms::nxdomain(),
        Error::AddressInUse => atoms::address_in_use(),
        Error::FrameTooLarge => atoms::frame_too_large(),
        Error::EmbeddedNewline => atoms::embedded_newline(),
        Error::EmptyMessage => atoms::empty_message(),
        Error::Busy => atoms::busy(),
        Error::NotConnected => atoms::not_connected(),
        Error::Panic => atoms::panic(),
        Error::ExitStatus(status) => return (atoms::exit_status(), status).encode(env),
        Error::Signal(signal) => return (atoms::signal(), signal).encode(env),
        Error::Command(errno) => return (atoms::command(), posix(errno)).encode(env),
        Error::Cwd(errno) => return (atoms::cwd(), posix(errno)).encode(env),
        Error::Tls(reason) => return (atoms::tls(), tls(reason)).encode(env),
        Error::Posix(errno) => return (atoms::posix(), posix(errno)).encode(env),
    };
    atom.encode(env)
}

/// Why the node's own standard input and output cannot be had.
pub(crate) fn stdio<'a>(env: Env<'a>, fault: Fault) -> Term<'a> {
    match fault {
        Fault::Taken => atoms::taken().encode(env),
        Fault::Stdin => atoms::stdin().encode(env),
        Fault::Stdout => atoms::stdout().encode(env),
        Fault::StderrIsStdout => atoms::stderr_is_stdout().encode(env),
        Fault::Posix(errno) => (atoms::posix(), posix(errno)).encode(env),
    }
}

fn tls(error: TlsError) -> rustler::Atom {
    match error {
        TlsError::UnknownCa => atoms::unknown_ca(),
        TlsError::BadCertificate => atoms::bad_certificate(),
        TlsError::CertificateExpired => atoms::certificate_expired(),
        TlsError::CertificateRevoked => atoms::certificate_revoked(),
        TlsError::HostnameMismatch => atoms::hostname_mismatch(),
        TlsError::CertificateRequired => atoms::certificate_required(),
        TlsError::ProtocolVersion => atoms::protocol_version(),
        TlsError::HandshakeFailure => atoms::handshake_failure(),
        TlsError::BadFile => atoms::bad_file(),
        TlsError::Timeout => atoms::timeout(),
    }
}

/// The names that `inet:posix()` has for them.
fn posix(errno: i32) -> rustler::Atom {
    match errno {
        libc::EACCES => atoms::eacces(),
        libc::EADDRNOTAVAIL => atoms::eaddrnotavail(),
        libc::EAFNOSUPPORT => atoms::eafnosupport(),
        libc::EBADF => atoms::ebadf(),
        libc::ECONNABORTED => atoms::econnaborted(),
        libc::EDESTADDRREQ => atoms::edestaddrreq(),
        libc::EFAULT => atoms::efault(),
        libc::EFBIG => atoms::efbig(),
        libc::EINVAL => atoms::einval(),
        libc::EIO => atoms::eio(),
        libc::EISDIR => atoms::eisdir(),
        libc::ELOOP => atoms::eloop(),
        libc::EMFILE => atoms::emfile(),
        libc::EMSGSIZE => atoms::emsgsize(),
        libc::ENAMETOOLONG => atoms::enametoolong(),
        libc::ENETDOWN => atoms::enetdown(),
        libc::ENFILE => atoms::enfile(),
        libc::ENOBUFS => atoms::enobufs(),
        libc::ENOENT => atoms::enoent(),
        libc::ENOMEM => atoms::enomem(),
        libc::ENOPROTOOPT => atoms::enoprotoopt(),
        libc::ENOTDIR => atoms::enotdir(),
        libc::ENOTSOCK => atoms::enotsock(),
        libc::EOPNOTSUPP => atoms::eopnotsupp(),
        libc::EPERM => atoms::eperm(),
        libc::EPIPE => atoms::epipe(),
        libc::EPROTO => atoms::eproto(),
        libc::EPROTONOSUPPORT => atoms::eprotonosupport(),
        libc::EPROTOTYPE => atoms::eprototype(),
        libc::EROFS => atoms::erofs(),
        libc::ETIMEDOUT => atoms::etimedout(),
        _ => atoms::unknown(),
    }
}
