//! Requests, and the forms that the protocols want them in.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, PROXY_AUTHORIZATION};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Uri};
use http_body::{Body, Frame, SizeHint};

use super::Options;
use super::exchange::Exchange;
use crate::error::Error;

/// What cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Not a method, or `CONNECT`.
    Method,
    /// Not a path.
    Target,
    /// Not a header name or not a value.
    Header,
}

/// A request as the owner makes it.
#[derive(Debug)]
pub struct Request {
    pub(crate) method: Method,
    pub(crate) target: PathAndQuery,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) total_timeout: Option<Duration>,
}

impl Request {
    /// A request without headers.
    ///
    /// # Errors
    /// [`Invalid::Method`], [`Invalid::Target`].
    pub fn new(method: &[u8], target: &[u8], body: Option<Bytes>) -> Result<Self, Invalid> {
        let method = Method::from_bytes(method).map_err(|_| Invalid::Method)?;
        if method == Method::CONNECT {
            return Err(Invalid::Method);
        }
        if target.first() != Some(&b'/') {
            return Err(Invalid::Target);
        }
        let target = PathAndQuery::try_from(target).map_err(|_| Invalid::Target)?;
        let mut headers = HeaderMap::new();
        if let Some(body) = &body {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        Ok(Self {
            method,
            target,
            headers,
            body,
            timeout: None,
            total_timeout: None,
        })
    }

    /// Limits the time to the head and between parts of the body, and the whole.
    pub fn limit(&mut self, timeout: Option<Duration>, total: Option<Duration>) {
        self.timeout = timeout;
        self.total_timeout = total;
    }

    /// The request that was to be sent over HTTP/1.1 and was not.
    pub(crate) fn recover(request: http::Request<Payload>) -> Option<Box<Self>> {
        let (parts, Payload(body)) = request.into_parts();
        Some(Box::new(Self {
            method: parts.method,
            target: parts.uri.into_parts().path_and_query?,
            headers: parts.headers,
            body,
            timeout: None,
            total_timeout: None,
        }))
    }

    /// Adds a header. Those that say how the request is sent are left out.
    ///
    /// # Errors
    /// [`Invalid::Header`].
    pub fn header(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let name = HeaderName::from_bytes(name).map_err(|_| Invalid::Header)?;
        let value = HeaderValue::from_bytes(value).map_err(|_| Invalid::Header)?;
        if !matches!(
            name.as_str(),
            "host"
                | "content-length"
                | "transfer-encoding"
                | "connection"
                | "keep-alive"
                | "proxy-connection"
                | "upgrade"
                | "te"
        ) {
            let added = self.headers.try_append(name, value);
            added.map_err(|_| Invalid::Header)?;
        }
        Ok(())
    }
}

/// A request on its way, and what becomes of it.
pub(crate) struct Job {
    pub(crate) exchange: Arc<Exchange>,
    pub(crate) request: Box<Request>,
}

/// How requests name the origin.
pub(crate) struct Origin {
    host: HeaderValue,
    authority: Authority,
    https: bool,
    /// Requests go to a proxy, which is told where they are to go.
    absolute: bool,
    proxy_authorization: Option<HeaderValue>,
}

impl Origin {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let https = options.tls.is_some();
        let host = if options.host.contains(':') {
            format!("[{}]", options.host)
        } else {
            options.host.clone()
        };
        let default = if https { 443 } else { 80 };
        let authority = if options.port == default {
            host
        } else {
            format!("{host}:{}", options.port)
        };
        let proxy = options.proxy.as_ref();
        let secret = proxy.and_then(|proxy| proxy.authorization.as_ref());
        let proxy_authorization = match secret {
            None => None,
            Some(secret) => {
                let mut value =
                    HeaderValue::from_bytes(secret).map_err(|_| Error::Posix(libc::EINVAL))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        Ok(Self {
            host: HeaderValue::from_str(&authority).map_err(|_| Error::NoSuchName)?,
            authority: Authority::try_from(authority).map_err(|_| Error::NoSuchName)?,
            https,
            absolute: proxy.is_some() && !https,
            proxy_authorization,
        })
    }

    /// The request for a tunnel to the origin.
    pub(crate) fn tunnel(&self, port: u16) -> Vec<u8> {
        let host = self.authority.host();
        let mut out =
            format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: {host}:{port}\r\n").into_bytes();
        if let Some(value) = &self.proxy_authorization {
            out.extend_from_slice(b"proxy-authorization: ");
            out.extend_from_slice(value.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out
    }

    pub(crate) fn http1(&self, request: Request) -> http::Request<Payload> {
        let mut out = http::Request::new(Payload(request.body));
        *out.method_mut() = request.method;
        *out.uri_mut() = if self.absolute {
            self.absolute(request.target)
        } else {
            Uri::from(request.target)
        };
        *out.headers_mut() = request.headers;
        out.headers_mut().insert(HOST, self.host.clone());
        if let (true, Some(value)) = (self.absolute, &self.proxy_authorization) {
            out.headers_mut().insert(PROXY_AUTHORIZATION, value.clone());
        }
        out
    }

    pub(crate) fn http2(&self, request: Request) -> (http::Request<()>, Option<Bytes>) {
        let mut out = http::Request::new(());
        *out.method_mut() = request.method;
        *out.version_mut() = http::Version::HTTP_2;
        *out.uri_mut() = self.absolute(request.target);
        *out.headers_mut() = request.headers;
        // There from an earlier attempt over HTTP/1.1.
        out.headers_mut().remove(HOST);
        (out, request.body)
    }

    fn absolute(&self, target: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(if self.https {
            Scheme::HTTPS
        } else {
            Scheme::HTTP
        });
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(target.clone());
        // All three are there, so that it is one.
        Uri::from_parts(parts).unwrap_or_else(|_| Uri::from(target))
    }
}

/// A body that is there at once.
pub(crate) struct Payload(pub(crate) Option<Bytes>);

impl Body for Payload {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let body = self.get_mut().0.take();
        Poll::Ready(
            body.filter(|body| !body.is_empty())
                .map(|body| Ok(Frame::data(body))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, Bytes::len) as u64)
    }
}
