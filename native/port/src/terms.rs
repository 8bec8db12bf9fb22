//! Addresses and other terms that several kinds of packets have.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use erlmcp_core::stream::Address;

use crate::term::Writer;

/// `erlmcp_native:address()`, or `undefined`.
pub(crate) fn address(out: &mut Writer, address: Option<&Address>) {
    match address {
        None => {
            out.atom("undefined");
        }
        Some(Address::Ip(SocketAddr::V4(v4))) => {
            out.tuple(2).tuple(4);
            for octet in v4.ip().octets() {
                out.integer(octet.into());
            }
            out.integer(v4.port().into());
        }
        Some(Address::Ip(SocketAddr::V6(v6))) => {
            out.tuple(2).tuple(8);
            for segment in v6.ip().segments() {
                out.integer(segment.into());
            }
            out.integer(v6.port().into());
        }
        Some(Address::Path(file)) => {
            out.tuple(2)
                .atom("path")
                .binary(file.as_os_str().as_bytes());
        }
        Some(Address::Abstract(name)) => {
            out.tuple(2).atom("abstract").binary(name);
        }
        Some(Address::Unnamed) => {
            out.atom("unnamed");
        }
    }
}
