//! Options of HTTP listeners and clients.

use std::time::Duration;

use erlmcp_core::http;
use erlmcp_core::http::client::{Options as Client, Proxy};

use crate::options::{choice, dial, ms, tcp, tls};
use crate::term::{Malformed, Term};

pub(crate) fn server(options: &Term) -> Result<http::Options, Malformed> {
    let protocols = options.get("protocols")?.list()?;
    Ok(http::Options {
        http1: protocols.iter().any(|protocol| protocol.is("http1")),
        http2: protocols.iter().any(|protocol| protocol.is("http2")),
        max_body: options.get("max_body_bytes")?.integer()?,
        max_headers: options.get("max_headers")?.integer()?,
        max_header: options.get("max_header_bytes")?.integer()?,
        max_target: options.get("max_target_bytes")?.integer()?,
        header_timeout: ms(options, "header_timeout_ms")?,
        body_timeout: ms(options, "body_timeout_ms")?,
        idle_timeout: ms(options, "idle_timeout_ms")?,
        max_connections: options.get("max_connections")?.integer()?,
        max_connections_per_peer: options.get("max_connections_per_peer")?.integer()?,
        max_requests: options.get("max_requests")?.integer()?,
        max_streams: options.get("max_streams")?.integer()?,
        max_concurrent_streams: options.get("max_concurrent_streams")?.integer()?,
        max_stream: options.get("max_stream_bytes")?.integer()?,
        tcp: tcp(options)?,
        handshake_timeout: ms(options, "handshake_timeout_ms")?,
        backlog: options.get("backlog")?.integer()?,
    })
}

/// An origin and the options of a client of it.
pub(crate) fn client(origin: &Term, options: &Term) -> Result<Client, Malformed> {
    let protocols = options.get("protocols")?.list()?;
    let https = choice(origin.get("scheme")?, [("http", false), ("https", true)])?;
    let tls = if https {
        Some(tls(options)?.ok_or(Malformed)?)
    } else {
        None
    };
    Ok(Client {
        host: origin.get("host")?.text()?,
        port: origin.get("port")?.integer()?,
        tls,
        http1: protocols.iter().any(|protocol| protocol.is("http1")),
        http2: protocols.iter().any(|protocol| protocol.is("http2")),
        max_connections: options.get("max_connections")?.integer()?,
        max_queue: options.get("max_queue")?.integer()?,
        max_head: options.get("max_head_bytes")?.integer()?,
        high_water: options.get("high_water_bytes")?.integer()?,
        idle_timeout: ms(options, "idle_timeout_ms")?,
        dial: dial(options)?,
        tcp: tcp(options)?,
        handshake_timeout: ms(options, "handshake_timeout_ms")?,
        proxy: proxy(options.get("proxy")?)?,
    })
}

fn proxy(term: &Term) -> Result<Option<Proxy>, Malformed> {
    if term.is("none") {
        return Ok(None);
    }
    let authorization = term.get("authorization")?;
    let authorization = if authorization.is("none") {
        None
    } else {
        Some(authorization.bytes()?.to_vec())
    };
    Ok(Some(Proxy {
        host: term.get("host")?.text()?,
        port: term.get("port")?.integer()?,
        authorization,
    }))
}

/// A time limit in milliseconds; all ones stand for none.
pub(crate) fn limit(ms: u64) -> Option<Duration> {
    (ms != u64::MAX).then(|| Duration::from_millis(ms))
}
