//! Atoms, addresses and other small terms.

use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;

use erlmcp_core::stream::Address;
use rustler::{Encoder, Env, NewBinary, Term};

rustler::atoms! {
    armed,
    closed,
    drained,
    none,
    connections,
    requests,
    streams,
    connecting,
    closing,
    default,
    down,
    eof,
    erlmcp_native_io,
    erlmcp_native_log,
    error,
    more,
    again,
    ok,
    open,
    oversized,
    path,
    r#abstract = "abstract",
    ready,
    unnamed,
    undefined,
    writable,

    state,
    peername,
    sockname,
    peercert,
    frames_in,
    bytes_in,
    frames_out,
    bytes_out,
    inbound_bytes,
    queue_bytes,
    buffers,
    read_bytes,
    high_water_bytes,
    min,
    max,
    reason,
    fixed,
    start,
    quick_owner,
    slow_owner,
}

pub(crate) fn binary<'a>(env: Env<'a>, bytes: &[u8]) -> Term<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

pub(crate) fn address<'a>(env: Env<'a>, address: Option<&Address>) -> Term<'a> {
    match address {
        None => undefined().encode(env),
        Some(Address::Ip(SocketAddr::V4(v4))) => {
            let [a, b, c, d] = v4.ip().octets();
            ((a, b, c, d), v4.port()).encode(env)
        }
        Some(Address::Ip(SocketAddr::V6(v6))) => {
            let groups: Vec<Term<'a>> = v6
                .ip()
                .segments()
                .iter()
                .map(|group| group.encode(env))
                .collect();
            (rustler::types::tuple::make_tuple(env, &groups), v6.port()).encode(env)
        }
        Some(Address::Path(file)) => (path(), binary(env, file.as_os_str().as_bytes())).encode(env),
        Some(Address::Abstract(name)) => (r#abstract(), binary(env, name)).encode(env),
        Some(Address::Unnamed) => unnamed().encode(env),
    }
}
