//! Options and endpoints as Erlang has checked and completed them; anything else is malformed.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use erlmcp_core::frame::Framing;
use erlmcp_core::options::{Dial, Endpoint, Identity, Limits, OnOversize, Tcp, Tls};

use crate::term::{Malformed, Term};

pub(crate) fn limits(options: &Term) -> Result<Arc<Limits>, Malformed> {
    Ok(Arc::new(Limits {
        framing: choice(
            options.get("framing")?,
            [("line", Framing::Line), ("length4", Framing::Length4)],
        )?,
        max_frame: options.get("max_frame_bytes")?.integer()?,
        on_oversize: choice(
            options.get("on_oversize")?,
            [
                ("close", OnOversize::Close),
                ("discard", OnOversize::Discard),
            ],
        )?,
        high_water_min: options.get("high_water_min_bytes")?.integer()?,
        high_water: options.get("high_water_bytes")?.integer()?,
        max_queue: options.get("max_queue_bytes")?.integer()?,
        max_urgent: options.get("max_urgent_bytes")?.integer()?,
        half_close: options.get("half_close")?.bool()?,
        linger: ms(options, "linger_ms")?,
        handshake_timeout: ms(options, "handshake_timeout_ms")?,
    }))
}

pub(crate) fn tcp(options: &Term) -> Result<Tcp, Malformed> {
    Ok(Tcp {
        nodelay: options.get("nodelay")?.bool()?,
        keepalive: options.get("keepalive")?.bool()?,
    })
}

pub(crate) fn dial(options: &Term) -> Result<Dial, Malformed> {
    let bind = options.get("bind")?;
    Ok(Dial {
        connect_timeout: ms(options, "connect_timeout_ms")?,
        attempt_delay: ms(options, "attempt_delay_ms")?,
        bind: if bind.is("any") {
            None
        } else {
            Some(ip(bind)?)
        },
    })
}

/// TLS, or none.
pub(crate) fn tls(options: &Term) -> Result<Option<Tls>, Malformed> {
    let tls = options.get("tls")?;
    if tls.is("false") {
        return Ok(None);
    }
    let certfile = text_or(tls.get("certfile")?, "none")?.map(PathBuf::from);
    let keyfile = text_or(tls.get("keyfile")?, "none")?.map(PathBuf::from);
    Ok(Some(Tls {
        verify: choice(tls.get("verify")?, [("peer", true), ("none", false)])?,
        ca_file: text_or(tls.get("cacertfile")?, "system")?.map(PathBuf::from),
        identity: certfile.zip(keyfile).map(|(cert_file, key_file)| Identity {
            cert_file,
            key_file,
        }),
        server_name: text_or(tls.get("server_name")?, "from_endpoint")?,
        only_tls13: choice(
            tls.get("min_version")?,
            [("tlsv1.2", false), ("tlsv1.3", true)],
        )?,
    }))
}

/// Where to connect to or to listen on.
pub(crate) fn endpoint(term: &Term) -> Result<Endpoint, Malformed> {
    if let Some(path) = term.find("path") {
        return Ok(Endpoint::Path(PathBuf::from(path.text()?)));
    }
    if let Some(name) = term.find("abstract") {
        return Ok(Endpoint::Abstract(name.bytes()?.to_vec()));
    }
    let port = term.get("port")?.integer()?;
    match term.get("host")? {
        host @ Term::Binary(_) => Ok(Endpoint::Name(host.text()?, port)),
        host => Ok(Endpoint::Ip(ip(host)?, port)),
    }
}

/// A duration in milliseconds.
pub(crate) fn ms(options: &Term, name: &str) -> Result<Duration, Malformed> {
    options.get(name)?.integer().map(Duration::from_millis)
}

/// What an atom stands for.
pub(crate) fn choice<T, const N: usize>(
    given: &Term,
    choices: [(&str, T); N],
) -> Result<T, Malformed> {
    let found = choices.into_iter().find(|(name, _)| given.is(name));
    found.map(|(_, value)| value).ok_or(Malformed)
}

/// A text, or the atom that says that there is none.
pub(crate) fn text_or(term: &Term, absent: &str) -> Result<Option<String>, Malformed> {
    if term.is(absent) {
        Ok(None)
    } else {
        term.text().map(Some)
    }
}

fn ip(term: &Term) -> Result<IpAddr, Malformed> {
    let parts = term.tuple()?;
    if parts.len() == 4 {
        let octets: Vec<u8> = parts.iter().map(Term::integer).collect::<Result<_, _>>()?;
        let octets: [u8; 4] = octets.try_into().map_err(|_| Malformed)?;
        return Ok(IpAddr::from(octets));
    }
    let segments: Vec<u16> = parts.iter().map(Term::integer).collect::<Result<_, _>>()?;
    let segments: [u16; 8] = segments.try_into().map_err(|_| Malformed)?;
    Ok(IpAddr::from(segments))
}
