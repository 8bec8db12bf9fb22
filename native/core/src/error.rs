//! Why an operation failed or a connection ended.

use std::fmt;
use std::io;

use tokio_rustls::rustls;
use tokio_rustls::rustls::{AlertDescription, CertificateError};

/// The closed set of reasons. What the BEAM sees is `erlmcp_native:reason()`, one to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The peer shut the connection down in order, or this side closed it.
    Closed,
    /// The peer or the network broke the connection off.
    Reset,
    /// Nobody listens at the address.
    Refused,
    /// There is no route to the address.
    Unreachable,
    /// Connecting took longer than the connect timeout.
    Timeout,
    /// The name has no address.
    NoSuchName,
    /// Something else listens at the address.
    AddressInUse,
    /// A frame is longer than the limit.
    FrameTooLarge,
    /// A message for newline framing contains a newline.
    EmbeddedNewline,
    /// A message for newline framing is empty: receivers skip empty lines.
    EmptyMessage,
    /// The outbound queue is full.
    Busy,
    /// The connection is not established yet.
    NotConnected,
    /// A defect in native code ended the connection.
    Panic,
    /// The child process has ended by itself, with this status.
    ExitStatus(i32),
    /// The child process was ended by this signal.
    Signal(i32),
    /// The program of a child process cannot be run, as `errno`.
    Command(i32),
    /// The directory that a child process is to start in cannot be entered, as `errno`.
    Cwd(i32),
    /// TLS failed.
    Tls(TlsError),
    /// Any other error of the operating system, as `errno`.
    Posix(i32),
}

/// Why TLS failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The chain does not end in a trusted root; self-signed certificates included.
    UnknownCa,
    /// The certificate cannot be used.
    BadCertificate,
    /// The certificate's time is over or has not come.
    CertificateExpired,
    /// The certificate was revoked.
    CertificateRevoked,
    /// The certificate is for other names.
    HostnameMismatch,
    /// The peer asks for a certificate and got none.
    CertificateRequired,
    /// No protocol version in common.
    ProtocolVersion,
    /// Anything else that ends a handshake or a session.
    HandshakeFailure,
    /// A certificate, key or CA file cannot be read or used.
    BadFile,
    /// The handshake took longer than its limit.
    Timeout,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl std::error::Error for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        Error::from(&error)
    }
}

impl From<&io::Error> for Error {
    fn from(error: &io::Error) -> Self {
        if let Some(tls) = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>())
        {
            return Error::Tls(TlsError::from(tls));
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Error::Refused,
            io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Error::Reset,
            io::ErrorKind::BrokenPipe
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::WriteZero
            | io::ErrorKind::NotConnected => Error::Closed,
            io::ErrorKind::TimedOut => Error::Timeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Error::Unreachable
            }
            io::ErrorKind::AddrInUse => Error::AddressInUse,
            _ => Error::Posix(error.raw_os_error().unwrap_or(libc::EIO)),
        }
    }
}

impl From<&rustls::Error> for TlsError {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(reason) => TlsError::from(reason),
            rustls::Error::AlertReceived(alert) => TlsError::from(*alert),
            rustls::Error::NoCertificatesPresented => TlsError::CertificateRequired,
            rustls::Error::PeerIncompatible(_) => TlsError::ProtocolVersion,
            _ => TlsError::HandshakeFailure,
        }
    }
}

impl From<&CertificateError> for TlsError {
    fn from(error: &CertificateError) -> Self {
        match error {
            CertificateError::UnknownIssuer => TlsError::UnknownCa,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => TlsError::CertificateExpired,
            CertificateError::Revoked => TlsError::CertificateRevoked,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                TlsError::HostnameMismatch
            }
            _ => TlsError::BadCertificate,
        }
    }
}

impl From<AlertDescription> for TlsError {
    fn from(alert: AlertDescription) -> Self {
        match alert {
            AlertDescription::UnknownCA => TlsError::UnknownCa,
            AlertDescription::CertificateExpired => TlsError::CertificateExpired,
            AlertDescription::CertificateRevoked => TlsError::CertificateRevoked,
            AlertDescription::CertificateRequired => TlsError::CertificateRequired,
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown => TlsError::BadCertificate,
            AlertDescription::ProtocolVersion => TlsError::ProtocolVersion,
            _ => TlsError::HandshakeFailure,
        }
    }
}
