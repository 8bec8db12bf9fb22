//! Options as Erlang has checked and completed them; anything else is `badarg`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use erlmcp_core::frame::Framing;
use erlmcp_core::http;
use erlmcp_core::http::client::{Options as HttpClient, Proxy};
use erlmcp_core::options::{Dial, Endpoint, Identity, Limits, OnOversize, Tcp, Tls};
use erlmcp_core::outbox::Priority;
use rustler::{Atom, Binary, Decoder, Error, NifMap, NifResult, Term};

mod atoms {
    rustler::atoms! { any, auto, urgent, normal, close, discard, host, length4, line, none, path, peer, port, system,
    from_endpoint, http, http1, http2, https, tlsv1_2 = "tlsv1.2", tlsv1_3 = "tlsv1.3", r#abstract = "abstract", tls }
}

#[derive(NifMap)]
struct LimitsMap {
    framing: Atom,
    max_frame_bytes: usize,
    on_oversize: Atom,
    high_water_min_bytes: usize,
    high_water_bytes: usize,
    max_queue_bytes: usize,
    max_urgent_bytes: usize,
    half_close: bool,
    linger_ms: u64,
    handshake_timeout_ms: u64,
}

#[derive(NifMap)]
struct TcpMap {
    nodelay: bool,
    keepalive: bool,
}

pub(crate) fn limits(options: Term<'_>) -> NifResult<Arc<Limits>> {
    let map: LimitsMap = options.decode()?;
    Ok(Arc::new(Limits {
        framing: choice(
            map.framing,
            [
                (atoms::line(), Framing::Line),
                (atoms::length4(), Framing::Length4),
            ],
        )?,
        max_frame: map.max_frame_bytes,
        on_oversize: choice(
            map.on_oversize,
            [
                (atoms::close(), OnOversize::Close),
                (atoms::discard(), OnOversize::Discard),
            ],
        )?,
        high_water_min: map.high_water_min_bytes,
        high_water: map.high_water_bytes,
        max_queue: map.max_queue_bytes,
        max_urgent: map.max_urgent_bytes,
        half_close: map.half_close,
        linger: Duration::from_millis(map.linger_ms),
        handshake_timeout: Duration::from_millis(map.handshake_timeout_ms),
    }))
}

pub(crate) fn priority(given: Atom) -> NifResult<Priority> {
    choice(
        given,
        [
            (atoms::auto(), Priority::Auto),
            (atoms::urgent(), Priority::Urgent),
            (atoms::normal(), Priority::Normal),
        ],
    )
}

pub(crate) fn tcp(options: Term<'_>) -> NifResult<Tcp> {
    let map: TcpMap = options.decode()?;
    Ok(Tcp {
        nodelay: map.nodelay,
        keepalive: map.keepalive,
    })
}

pub(crate) fn dial(options: Term<'_>) -> NifResult<Dial> {
    let ms = |key: &str| -> NifResult<Duration> {
        let value: u64 = get(options, key)?.decode()?;
        Ok(Duration::from_millis(value))
    };
    let bind = get(options, "bind")?;
    Ok(Dial {
        connect_timeout: ms("connect_timeout_ms")?,
        attempt_delay: ms("attempt_delay_ms")?,
        bind: if bind.decode::<Atom>().is_ok_and(|a| a == atoms::any()) {
            None
        } else {
            Some(ip(bind)?)
        },
    })
}

#[derive(NifMap)]
struct HttpServerMap {
    protocols: Vec<Atom>,
    max_body_bytes: usize,
    max_headers: usize,
    max_header_bytes: usize,
    max_target_bytes: usize,
    header_timeout_ms: u64,
    body_timeout_ms: u64,
    idle_timeout_ms: u64,
    max_connections: usize,
    max_connections_per_peer: usize,
    max_requests: usize,
    max_streams: usize,
    max_concurrent_streams: u32,
    max_stream_bytes: usize,
    handshake_timeout_ms: u64,
    backlog: u32,
}

pub(crate) fn http_server(options: Term<'_>) -> NifResult<http::Options> {
    let map: HttpServerMap = options.decode()?;
    Ok(http::Options {
        http1: map.protocols.contains(&atoms::http1()),
        http2: map.protocols.contains(&atoms::http2()),
        max_body: map.max_body_bytes,
        max_headers: map.max_headers,
        max_header: map.max_header_bytes,
        max_target: map.max_target_bytes,
        header_timeout: Duration::from_millis(map.header_timeout_ms),
        body_timeout: Duration::from_millis(map.body_timeout_ms),
        idle_timeout: Duration::from_millis(map.idle_timeout_ms),
        max_connections: map.max_connections,
        max_connections_per_peer: map.max_connections_per_peer,
        max_requests: map.max_requests,
        max_streams: map.max_streams,
        max_concurrent_streams: map.max_concurrent_streams,
        max_stream: map.max_stream_bytes,
        tcp: tcp(options)?,
        handshake_timeout: Duration::from_millis(map.handshake_timeout_ms),
        backlog: map.backlog,
    })
}

pub(crate) fn backlog(options: Term<'_>) -> NifResult<u32> {
    get(options, "backlog")?.decode()
}

pub(crate) fn copy(options: Term<'_>) -> NifResult<bool> {
    get(options, "copy")?.decode()
}

pub(crate) fn tls(options: Term<'_>) -> NifResult<Option<Tls>> {
    let tls = options.map_get(atoms::tls())?;
    if tls.decode::<bool>().is_ok() {
        return Ok(None);
    }
    let certfile = file(tls, "certfile", atoms::none())?;
    let keyfile = file(tls, "keyfile", atoms::none())?;
    Ok(Some(Tls {
        verify: choice(
            get(tls, "verify")?.decode()?,
            [(atoms::peer(), true), (atoms::none(), false)],
        )?,
        ca_file: file(tls, "cacertfile", atoms::system())?,
        identity: certfile.zip(keyfile).map(|(cert_file, key_file)| Identity {
            cert_file,
            key_file,
        }),
        server_name: text_or(get(tls, "server_name")?, atoms::from_endpoint())?,
        only_tls13: choice(
            get(tls, "min_version")?.decode()?,
            [(atoms::tlsv1_2(), false), (atoms::tlsv1_3(), true)],
        )?,
    }))
}

pub(crate) fn endpoint(term: Term<'_>) -> NifResult<Endpoint> {
    if let Ok(path) = term.map_get(atoms::path()) {
        return Ok(Endpoint::Path(PathBuf::from(text(path)?)));
    }
    if let Ok(name) = term.map_get(atoms::r#abstract()) {
        let name: Binary<'_> = name.decode()?;
        return Ok(Endpoint::Abstract(name.as_slice().to_vec()));
    }
    let port: u16 = term.map_get(atoms::port())?.decode()?;
    let host = term.map_get(atoms::host())?;
    match text(host) {
        Ok(name) => Ok(Endpoint::Name(name, port)),
        Err(_) => Ok(Endpoint::Ip(ip(host)?, port)),
    }
}

/// An origin and the options of a client of it.
pub(crate) fn http_client(origin: Term<'_>, options: Term<'_>) -> NifResult<HttpClient> {
    let number = |key: &str| -> NifResult<usize> { get(options, key)?.decode() };
    let ms = |key: &str| -> NifResult<Duration> {
        let value: u64 = get(options, key)?.decode()?;
        Ok(Duration::from_millis(value))
    };
    let protocols: Vec<Atom> = get(options, "protocols")?.decode()?;
    let https = choice(
        get(origin, "scheme")?.decode()?,
        [(atoms::http(), false), (atoms::https(), true)],
    )?;
    let tls = if https {
        Some(tls(options)?.ok_or(Error::BadArg)?)
    } else {
        None
    };
    Ok(HttpClient {
        host: text(get(origin, "host")?)?,
        port: get(origin, "port")?.decode()?,
        tls,
        http1: protocols.contains(&atoms::http1()),
        http2: protocols.contains(&atoms::http2()),
        max_connections: number("max_connections")?,
        max_queue: number("max_queue")?,
        max_head: number("max_head_bytes")?,
        high_water: number("high_water_bytes")?,
        idle_timeout: ms("idle_timeout_ms")?,
        dial: dial(options)?,
        tcp: tcp(options)?,
        handshake_timeout: ms("handshake_timeout_ms")?,
        proxy: proxy(get(options, "proxy")?)?,
    })
}

fn proxy(term: Term<'_>) -> NifResult<Option<Proxy>> {
    if term
        .decode::<Atom>()
        .is_ok_and(|atom| atom == atoms::none())
    {
        return Ok(None);
    }
    let authorization = text_or(get(term, "authorization")?, atoms::none())?;
    Ok(Some(Proxy {
        host: text(get(term, "host")?)?,
        port: get(term, "port")?.decode()?,
        authorization: authorization.map(String::into_bytes),
    }))
}

fn get<'a>(map: Term<'a>, key: &str) -> NifResult<Term<'a>> {
    map.map_get(Atom::from_str(map.get_env(), key)?)
}

fn choice<T, const N: usize>(given: Atom, choices: [(Atom, T); N]) -> NifResult<T> {
    let found = choices.into_iter().find(|(atom, _)| *atom == given);
    found.map(|(_, value)| value).ok_or(Error::BadArg)
}

fn file(tls: Term<'_>, key: &str, absent: Atom) -> NifResult<Option<PathBuf>> {
    Ok(text_or(get(tls, key)?, absent)?.map(PathBuf::from))
}

fn text_or(term: Term<'_>, absent: Atom) -> NifResult<Option<String>> {
    match term.decode::<Atom>() {
        Ok(atom) if atom == absent => Ok(None),
        Ok(_) => Err(Error::BadArg),
        Err(_) => text(term).map(Some),
    }
}

fn text(term: Term<'_>) -> NifResult<String> {
    let binary: Binary<'_> = term.decode()?;
    String::from_utf8(binary.as_slice().to_vec()).map_err(|_| Error::BadArg)
}

fn ip(term: Term<'_>) -> NifResult<IpAddr> {
    if let Ok((a, b, c, d)) = term.decode::<(u8, u8, u8, u8)>() {
        return Ok(IpAddr::from([a, b, c, d]));
    }
    let groups = rustler::types::tuple::get_tuple(term)?;
    let groups: Vec<u16> = groups
        .into_iter()
        .map(u16::decode)
        .collect::<NifResult<_>>()?;
    let groups: [u16; 8] = groups.try_into().map_err(|_| Error::BadArg)?;
    Ok(IpAddr::from(groups))
}
