//! HTTP messages in packets.

use bytes::{Buf, Bytes};
use erlmcp_core::http::client::{Failure, Head as AnswerHead, Reason, Request as ClientRequest};
use erlmcp_core::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Version};

use crate::term::{Malformed, Writer};
use crate::{http_options, reason, terms};

/// Copying less than this is cheaper than what it would keep in memory.
const COPIED: usize = 16 * 1024;

mod flag {
    pub(super) const TLS: u8 = 1;
    pub(super) const PENDING: u8 = 2;
}

/// The head of an answer.
pub(crate) struct Head {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
}

/// A request up to its body: flags, and
/// `{Method, Path, Query, [{Name, Value}], {Major, Minor}, Peername}`.
pub(crate) fn request(request: &Request) -> (u8, Vec<u8>) {
    let head = &request.head;
    let mut flags = 0;
    if request.tls {
        flags |= flag::TLS;
    }
    if request.body.is_none() {
        flags |= flag::PENDING;
    }
    let mut out = Writer::new();
    out.tuple(6)
        .binary(head.method.as_str().as_bytes())
        .binary(head.uri.path().as_bytes())
        .binary(head.uri.query().unwrap_or_default().as_bytes());
    headers(&mut out, &head.headers);
    let (major, minor) = match head.version {
        Version::HTTP_10 => (1, 0),
        Version::HTTP_2 => (2, 0),
        _ => (1, 1),
    };
    out.tuple(2).integer(major).integer(minor);
    terms::address(&mut out, request.peer.as_ref());
    (flags, out.finish())
}

/// `[{Name, Value}]`.
fn headers(out: &mut Writer, headers: &HeaderMap) {
    out.list(headers.len());
    for (name, value) in headers {
        out.tuple(2)
            .binary(name.as_str().as_bytes())
            .binary(value.as_bytes());
    }
    out.nil();
}

/// Status and headers, which the VM has looked at. Nothing where they are more than HTTP takes.
pub(crate) fn head(body: &mut Bytes) -> Result<Option<Head>, Malformed> {
    let status = body.try_get_u16().map_err(|_| Malformed)?;
    let status = StatusCode::from_u16(status).map_err(|_| Malformed)?;
    let mut headers = HeaderMap::new();
    let mut fits = true;
    for _ in 0..body.try_get_u16().map_err(|_| Malformed)? {
        let (name, value) = field(body)?;
        let name = HeaderName::from_bytes(&name);
        let value = HeaderValue::from_bytes(&value);
        fits &= match (name, value) {
            (Ok(name), Ok(value)) => headers.try_append(name, value).is_ok(),
            _ => false,
        };
    }
    Ok(fits.then_some(Head { status, headers }))
}

/// The next name and value.
pub(crate) fn field(body: &mut Bytes) -> Result<(Bytes, Bytes), Malformed> {
    let len = body.try_get_u16().map_err(|_| Malformed)?;
    let name = bytes(body, len.into())?;
    let len = body.try_get_u32().map_err(|_| Malformed)?;
    Ok((name, bytes(body, len as usize)?))
}

pub(crate) fn bytes(body: &mut Bytes, len: usize) -> Result<Bytes, Malformed> {
    if len > body.len() {
        return Err(Malformed);
    }
    Ok(body.split_to(len))
}

/// Data that may wait for long. It refers to the block that it was read into, which is larger.
pub(crate) fn own(data: Bytes) -> Bytes {
    if data.len() < COPIED {
        Bytes::copy_from_slice(&data)
    } else {
        data
    }
}

/// A client's request: times, whether there is a body, method, target and headers, then the body.
/// Nothing if HTTP does not take it.
pub(crate) fn client_request(body: &mut Bytes) -> Result<Option<ClientRequest>, Malformed> {
    let timeout = body.try_get_u64().map_err(|_| Malformed)?;
    let total = body.try_get_u64().map_err(|_| Malformed)?;
    let has_body = body.try_get_u8().map_err(|_| Malformed)? != 0;
    let (method, target) = field(body)?;
    let mut fields = Vec::new();
    for _ in 0..body.try_get_u16().map_err(|_| Malformed)? {
        fields.push(field(body)?);
    }
    let body = has_body.then(|| own(std::mem::take(body)));
    let Ok(mut request) = ClientRequest::new(&method, &target, body) else {
        return Ok(None);
    };
    for (name, value) in fields {
        if request.header(&name, &value).is_err() {
            return Ok(None);
        }
    }
    request.limit(http_options::limit(timeout), http_options::limit(total));
    Ok(Some(request))
}

/// `{Status, [{Name, Value}]}`.
pub(crate) fn answer(head: &AnswerHead) -> Vec<u8> {
    let mut out = Writer::new();
    out.tuple(2).integer(head.status.into());
    headers(&mut out, &head.headers);
    out.finish()
}

/// `{Reason, Safe}`.
pub(crate) fn failure(failure: Failure) -> Vec<u8> {
    let mut out = Writer::new();
    out.tuple(2);
    match failure.reason {
        Reason::Error(error) => reason::write(&mut out, error),
        Reason::Protocol => {
            out.atom("protocol");
        }
    }
    out.atom(if failure.safe { "true" } else { "false" });
    out.finish()
}
