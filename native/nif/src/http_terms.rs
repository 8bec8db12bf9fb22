//! HTTP messages as terms.

use bytes::Bytes;
use erlmcp_core::connection::Message;
use erlmcp_core::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};
use rustler::{Binary, Encoder, Env, Error, ListIterator, NifResult, Term};

use crate::message::Outgoing;
use crate::{connection, terms};

/// Larger bodies are referred to and not copied.
const COPY_MAX: usize = 64 * 1024;

mod atoms {
    rustler::atoms! {
        method, path, query, headers, version, scheme, peername, body, complete, pending, http, https
    }
}

/// The request as `erlmcp_native_http_path:request()`.
pub(crate) fn request<'a>(env: Env<'a>, request: Request) -> NifResult<Term<'a>> {
    let Request {
        head,
        body,
        peer,
        tls,
    } = request;
    let headers: Vec<Term<'a>> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let name = terms::binary(env, name.as_str().as_bytes());
            (name, terms::binary(env, value.as_bytes())).encode(env)
        })
        .collect();
    let version = match head.version {
        Version::HTTP_10 => (1, 0),
        Version::HTTP_2 => (2, 0),
        _ => (1, 1),
    };
    let scheme = if tls { atoms::https() } else { atoms::http() };
    let body = match body {
        Some(bytes) => (atoms::complete(), binary(env, bytes)).encode(env),
        None => atoms::pending().encode(env),
    };
    let query = head.uri.query().unwrap_or_default();
    let pairs = [
        (
            atoms::method(),
            terms::binary(env, head.method.as_str().as_bytes()),
        ),
        (
            atoms::path(),
            terms::binary(env, head.uri.path().as_bytes()),
        ),
        (atoms::query(), terms::binary(env, query.as_bytes())),
        (atoms::headers(), headers.encode(env)),
        (atoms::version(), version.encode(env)),
        (atoms::scheme(), scheme.encode(env)),
        (atoms::peername(), terms::address(env, peer.as_ref())),
        (atoms::body(), body),
    ];
    Term::map_from_pairs(env, &pairs)
}

pub(crate) fn binary<'a>(env: Env<'a>, bytes: Bytes) -> Term<'a> {
    if bytes.len() <= COPY_MAX {
        terms::binary(env, &bytes)
    } else {
        connection::block(env, bytes).encode(env)
    }
}

/// A status that ends an exchange; those of interim answers are the caller's mistake.
pub(crate) fn status(status: u16) -> NifResult<StatusCode> {
    if !(200..600).contains(&status) {
        return Err(Error::BadArg);
    }
    StatusCode::from_u16(status).map_err(|_| Error::BadArg)
}

/// `[{Name, iodata()}]`.
pub(crate) fn headers(list: ListIterator<'_>) -> NifResult<HeaderMap> {
    let mut headers = HeaderMap::new();
    for item in list {
        let (name, value): (Binary<'_>, Term<'_>) = item.decode()?;
        let value = Outgoing::new(value)?;
        let name = HeaderName::from_bytes(name.as_slice()).map_err(|_| Error::BadArg)?;
        if is_ours(&name) {
            return Err(Error::BadArg);
        }
        let value = HeaderValue::from_bytes(value.as_slice()).map_err(|_| Error::BadArg)?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn is_ours(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "content-length" | "date" | "keep-alive" | "transfer-encoding" | "upgrade"
    )
}

pub(crate) fn bytes(data: Term<'_>) -> NifResult<Bytes> {
    Ok(Outgoing::new(data)?.into_bytes(0))
}
