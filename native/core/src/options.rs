//! Checked options. Ranges and defaults are the business of whoever fills these in
//! (`erlmcp_native_options` in Erlang); nothing is checked twice.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::frame::Framing;

/// Where to connect to or to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name and port.
    Name(String, u16),
    /// An address and port.
    Ip(IpAddr, u16),
    /// A Unix-domain socket in the file system.
    Path(PathBuf),
    /// A Unix-domain socket in Linux's abstract namespace, without the leading zero byte.
    Abstract(Vec<u8>),
}

/// What a framed connection keeps to, whoever opened it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How messages are delimited.
    pub framing: Framing,
    /// Largest message in either direction, without its delimiter.
    pub max_frame: usize,
    /// What becomes of a larger one that comes in.
    pub on_oversize: OnOversize,
    /// Bytes read ahead of the owner, at least where that adapts.
    pub high_water_min: usize,
    /// Bytes read ahead of the owner.
    pub high_water: usize,
    /// Bytes queued for the peer.
    pub max_queue: usize,
    /// Bytes beyond that for what is urgent.
    pub max_urgent: usize,
    /// Keep the connection open for sending after the peer has shut down its side.
    pub half_close: bool,
    /// How long a close may take to send what is queued.
    pub linger: Duration,
    /// How long a TLS handshake may take.
    pub handshake_timeout: Duration,
}

/// What becomes of a frame that is larger than the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOversize {
    /// The connection ends with [`Error::FrameTooLarge`](crate::Error::FrameTooLarge).
    Close,
    /// The frame is skipped and its size reported in its place.
    Discard,
}

/// Options of the TCP socket itself; Unix-domain sockets have none of them.
#[derive(Clone, Copy, Debug)]
pub struct Tcp {
    /// Disable Nagle's algorithm.
    pub nodelay: bool,
    /// Have the kernel probe idle peers.
    pub keepalive: bool,
}

/// How to dial.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Time for resolving the name and connecting to any of its addresses.
    pub connect_timeout: Duration,
    /// Time between the starts of attempts (RFC 8305, section 5).
    pub attempt_delay: Duration,
    /// Local address.
    pub bind: Option<IpAddr>,
}

/// TLS of either side.
#[derive(Clone, Debug)]
pub struct Tls {
    /// Check the peer's certificate. A listener then requires one.
    pub verify: bool,
    /// Trusted roots in PEM; the system's where absent.
    pub ca_file: Option<PathBuf>,
    /// Own certificate chain and private key in PEM.
    pub identity: Option<Identity>,
    /// The name to ask for and to check; the endpoint's host where absent.
    pub server_name: Option<String>,
    /// Refuse TLS 1.2.
    pub only_tls13: bool,
}

/// Files of an own certificate.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate chain in PEM, own certificate first.
    pub cert_file: PathBuf,
    /// Private key in PEM.
    pub key_file: PathBuf,
}
