//! What hyper calls for each request.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, request};
use hyper::body::Incoming;
use hyper::service::Service as HyperService;

use super::body::AnswerBody as OutBody;
use super::connection::{Connection, InFlight};
use super::exchange::{Body, Exchange, Request};
use super::gathering::{Gathered, Gathering, Late};
use super::io::Io;
use super::listener::Shared as Server;
use super::state::{Answer, AnswerBody, Shared, bare, is_silent};
use super::stream::Takeover;
use crate::metrics;
use crate::stream::Address;

pub(crate) struct Service {
    pub(crate) server: Arc<Server>,
    pub(crate) connection: Arc<Connection>,
    pub(crate) peer: Option<Address>,
    pub(crate) tls: bool,
    pub(crate) io: Io,
}

impl HyperService<http::Request<Incoming>> for Service {
    type Response = Response<OutBody>;
    type Error = Infallible;
    type Future = Serve;

    fn call(&self, request: http::Request<Incoming>) -> Serve {
        let (mut head, incoming) = request.into_parts();
        let facts = Facts {
            version: head.version,
            bodiless: head.method == Method::HEAD,
            keep_alive: !wants_close(&head.headers),
            io: self.io.clone(),
            in_flight: Some(InFlight::new(self.connection.clone())),
        };
        if let Err(status) = self.admit(&mut head) {
            metrics::http_refused.add(1);
            return Serve::refused(facts, bare(status));
        }
        let expects = head.headers.contains_key(EXPECT);
        let exchange = Shared::new(
            self.server.counts.clone(),
            Request {
                head,
                body: None,
                peer: self.peer.clone(),
                tls: self.tls,
            },
        );
        let gathering = Gathering::new(incoming, self.server.options.max_body, expects);
        Serve {
            facts,
            refusal: None,
            exchange: Some(exchange),
            server: Some(self.server.clone()),
            gathering,
        }
    }
}

impl Service {
    /// Refuses what HTTP/2 lets through, and what is too much; HTTP/1 was checked before hyper.
    fn admit(&self, head: &mut request::Parts) -> Result<(), StatusCode> {
        let options = &self.server.options;
        if head.method == Method::CONNECT {
            return Err(StatusCode::NOT_IMPLEMENTED);
        }
        if head.version == Version::HTTP_2 {
            let target = head.uri.path_and_query().map_or(0, |t| t.as_str().len());
            if target > options.max_target {
                return Err(StatusCode::URI_TOO_LONG);
            }
            let too_large = |(name, value): (&http::HeaderName, &HeaderValue)| {
                name.as_str().len() + value.len() > options.max_header
            };
            if head.headers.len() > options.max_headers || head.headers.iter().any(too_large) {
                return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
            }
        }
        set_host(head)?;
        if self.server.counts.enter(options.max_requests) {
            Ok(())
        } else {
            Err(StatusCode::SERVICE_UNAVAILABLE)
        }
    }
}

fn wants_close(headers: &HeaderMap) -> bool {
    let mut options = headers.get_all(CONNECTION).iter();
    options.any(|value| {
        let value = value.as_bytes();
        let mut options = value.split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

/// The authority of an HTTP/2 request or of a target in absolute form stands for `host`.
fn set_host(head: &mut request::Parts) -> Result<(), StatusCode> {
    let Some(authority) = head.uri.authority() else {
        return Ok(());
    };
    let value = HeaderValue::from_str(authority.as_str()).map_err(|_| StatusCode::BAD_REQUEST)?;
    let mut hosts = head.headers.get_all(HOST).iter();
    let contradicts = hosts.any(|host| *host != value);
    if contradicts && head.version == Version::HTTP_2 {
        return Err(StatusCode::BAD_REQUEST);
    }
    head.headers.insert(HOST, value);
    Ok(())
}

/// The answer to one request, in the making.
pub(crate) struct Serve {
    facts: Facts,
    refusal: Option<Answer>,
    exchange: Option<Arc<Shared>>,
    /// Until the exchange is handed over.
    server: Option<Arc<Server>>,
    gathering: Gathering,
}

struct Facts {
    version: Version,
    bodiless: bool,
    keep_alive: bool,
    io: Io,
    in_flight: Option<InFlight>,
}

impl Serve {
    fn refused(facts: Facts, answer: Answer) -> Self {
        Self {
            facts,
            refusal: Some(answer),
            exchange: None,
            server: None,
            gathering: Gathering::nothing(),
        }
    }

    /// Hands the exchange over, with its body if that has come.
    fn poll_offer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StatusCode>> {
        let Some(exchange) = &self.exchange else {
            return Poll::Ready(Ok(()));
        };
        match self.gathering.poll_eager(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => {}
            Poll::Ready(Some(Gathered::Complete(body))) => exchange.complete(body),
            Poll::Ready(Some(Gathered::TooLarge)) => {}
            Poll::Ready(Some(Gathered::Malformed)) => {
                return Poll::Ready(Err(StatusCode::BAD_REQUEST));
            }
        }
        if let Some(server) = self.server.take() {
            if !self.gathering.is_complete() {
                self.gathering.limit(server.options.body_timeout);
            }
            server.offer(Exchange::new(exchange.clone()));
        }
        Poll::Ready(Ok(()))
    }

    /// Gets the body that the process has asked for.
    fn poll_wanted(&mut self, cx: &mut Context<'_>) -> Result<(), StatusCode> {
        let Some(exchange) = &self.exchange else {
            return Ok(());
        };
        if !exchange.wants_body() {
            return Ok(());
        }
        match self.gathering.poll_all(cx) {
            Poll::Pending => {}
            Poll::Ready(Ok(Gathered::Complete(body))) => exchange.deliver(Body::Complete(body)),
            Poll::Ready(Ok(Gathered::TooLarge)) => exchange.deliver(Body::TooLarge),
            Poll::Ready(Ok(Gathered::Malformed)) => {
                exchange.deliver(Body::Closed);
                return Err(StatusCode::BAD_REQUEST);
            }
            Poll::Ready(Err(Late)) => exchange.deliver(Body::Timeout),
        }
        Ok(())
    }

    fn respond(&mut self, answer: Answer) -> Poll<Result<Response<OutBody>, Infallible>> {
        let Some(in_flight) = self.facts.in_flight.take() else {
            return Poll::Pending;
        };
        let Answer {
            status,
            mut headers,
            body,
        } = answer;
        // hyper reads what little is left of a body and otherwise closes; the client should know.
        if self.facts.version < Version::HTTP_2 && !self.gathering.is_complete() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        let http10 = self.facts.version == Version::HTTP_10;
        let body = match (body, &self.exchange) {
            (AnswerBody::Whole(body), _) if is_silent(status) || self.facts.bodiless => {
                if !is_silent(status) {
                    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
                }
                OutBody::whole(Bytes::new(), in_flight)
            }
            (AnswerBody::Whole(body), _) => OutBody::whole(body, in_flight),
            (AnswerBody::Parts(_), Some(exchange)) => {
                let connection = in_flight.connection();
                let body = OutBody::stream(exchange.clone(), in_flight, http10);
                self.exchange = None;
                if self.can_be_taken_over() {
                    connection.take_over(Takeover {
                        status,
                        headers,
                        body,
                        http10,
                        keep_alive: self.facts.keep_alive,
                    });
                    return Poll::Pending;
                }
                body
            }
            _ => OutBody::whole(Bytes::new(), in_flight),
        };
        let mut response = Response::new(body);
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Poll::Ready(Ok(response))
    }

    /// Whether hyper has nothing left to do for this request.
    fn can_be_taken_over(&self) -> bool {
        self.facts.version < Version::HTTP_2
            && self.gathering.is_complete()
            && !self.facts.io.is_blocked()
    }

    fn refuse(&mut self, status: StatusCode) -> Poll<Result<Response<OutBody>, Infallible>> {
        metrics::http_refused.add(1);
        self.respond(bare(status))
    }
}

impl Future for Serve {
    type Output = Result<Response<OutBody>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = self.get_mut();
        if let Some(answer) = me.refusal.take() {
            return me.respond(answer);
        }
        if me.server.is_some() {
            match me.poll_offer(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(status)) => return me.refuse(status),
                Poll::Ready(Ok(())) => {}
            }
        }
        let Some(exchange) = &me.exchange else {
            return Poll::Pending;
        };
        // Registers for what the process does next, before it is asked what it wants now.
        if let Poll::Ready(answer) = exchange.poll_answer(cx) {
            return me.respond(answer);
        }
        match me.poll_wanted(cx) {
            Ok(()) => Poll::Pending,
            Err(status) => me.refuse(status),
        }
    }
}

/// Dropped by hyper before it has answered: the client is gone.
impl Drop for Serve {
    fn drop(&mut self) {
        if let Some(exchange) = &self.exchange {
            exchange.end();
        }
    }
}
