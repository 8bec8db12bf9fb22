//! From an origin to a connection: dialling, a proxy's tunnel, TLS.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::io::Io;
use super::shared::Shared;
use super::{Failure, Options, Reason, h1, h2};
use crate::dial::dial;
use crate::error::Error;
use crate::metrics;
use crate::options::Endpoint;
use crate::stream::Stream;
use crate::tls::Connector;

/// The head of a proxy's answer to `CONNECT`.
const TUNNEL_HEAD: usize = 8 * 1024;

/// How to get to the origin.
pub(crate) struct Tunnel {
    endpoint: Endpoint,
    connector: Option<Connector>,
}

impl Tunnel {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let (host, port) = match &options.proxy {
            Some(proxy) => (&proxy.host, proxy.port),
            None => (&options.host, options.port),
        };
        let mut protocols: Vec<&[u8]> = Vec::new();
        if options.http2 {
            protocols.push(b"h2");
        }
        if options.http1 {
            protocols.push(b"http/1.1");
        }
        let connector = match &options.tls {
            Some(tls) => Some(Connector::new(tls, Some(options.host.clone()), &protocols)?),
            None => None,
        };
        Ok(Self {
            endpoint: match host.parse::<IpAddr>() {
                Ok(ip) => Endpoint::Ip(ip, port),
                Err(_) => Endpoint::Name(host.clone(), port),
            },
            connector,
        })
    }

    async fn establish(&self, shared: &Shared) -> Result<Io, Failure> {
        let unsent = |error| Failure::new(error, true);
        let options = &shared.options;
        let stream = dial(&self.endpoint, &options.dial).await.map_err(unsent)?;
        let set = stream.set_options(options.tcp);
        set.map_err(|error| unsent(error.into()))?;
        let Some(connector) = &self.connector else {
            return Ok(Io::plain(stream));
        };
        let limit = options.handshake_timeout;
        let stream = if options.proxy.is_some() {
            let request = shared.origin.tunnel(options.port);
            pass(stream, &request, limit).await?
        } else {
            stream
        };
        let session = connector.connect(stream, limit).await.map_err(unsent)?;
        Ok(Io::tls(session))
    }
}

/// Has a proxy connect to the origin.
async fn pass(mut stream: Stream, request: &[u8], limit: Duration) -> Result<Stream, Failure> {
    let passing = async {
        stream.write_all(request).await?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= TUNNEL_HEAD {
                return Ok(None);
            }
            // Byte by byte: what comes behind the head is the origin's.
            head.push(stream.read_u8().await?);
        }
        Ok(status(&head))
    };
    match timeout(limit, passing).await {
        Err(_) => Err(Failure::new(Error::Timeout, true)),
        Ok(Err(error)) => Err(Failure::new(std::io::Error::into(error), true)),
        Ok(Ok(None)) => Err(Failure::protocol(true)),
        Ok(Ok(Some(200..=299))) => Ok(stream),
        Ok(Ok(Some(_))) => Err(Failure::new(Error::Refused, true)),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = head.strip_prefix(b"HTTP/1.")?;
    let digits = line.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The life of a connection, from the dial on.
pub(crate) async fn run(shared: Arc<Shared>, upto: u64) {
    let _task = metrics::native_tasks.live();
    let _live = metrics::native_connections.live();
    let _pooled = metrics::native_http_client_connections.live();
    let mut dial = Dialling {
        shared: &shared,
        upto,
        failure: Some(Failure::new(Error::Panic, true)),
    };
    let mut gone = std::pin::pin!(shared.gone.notified());
    gone.as_mut().enable();
    let established = if shared.is_closed() {
        None
    } else {
        // In a box: an open connection should not hold room for its beginning.
        let establishing = Box::pin(shared.tunnel.establish(&shared));
        until(gone.as_mut(), establishing).await
    };
    let io = match established.unwrap_or(Err(Failure::new(Error::Closed, true))) {
        Ok(io) => io,
        Err(failure) => {
            tracing::debug!(?failure, "not connected");
            dial.failure = Some(failure);
            return;
        }
    };
    let options = &shared.options;
    let multiplexed = match io.agreed() {
        Some(protocol) => protocol == b"h2",
        None => options.http2 && !options.http1,
    };
    if !multiplexed && !options.http1 {
        dial.failure = Some(Failure::protocol(true));
        return;
    }
    if multiplexed {
        match h2::open(io, &shared).await {
            Ok(link) => {
                dial.failure = None;
                drop(dial);
                let _ = until(gone, link.run()).await;
            }
            Err(failure) => dial.failure = Some(failure),
        }
    } else {
        match h1::open(io, &shared).await {
            Ok(link) => {
                dial.failure = None;
                drop(dial);
                let _ = until(gone, link.run()).await;
            }
            Err(failure) => dial.failure = Some(failure),
        }
    }
}

/// Nothing if the first resolves before the second.
async fn until<T>(gone: impl Future<Output = ()>, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = gone => None,
        result = work => Some(result),
    }
}

/// Reports that a dial has failed, also when a panic unwinds it.
struct Dialling<'a> {
    shared: &'a Arc<Shared>,
    upto: u64,
    failure: Option<Failure>,
}

impl Drop for Dialling<'_> {
    fn drop(&mut self) {
        if let Some(failure) = self.failure {
            if failure.reason == Reason::Error(Error::Panic) {
                metrics::panics.add(1);
                tracing::error!("the task of a connection has panicked");
            }
            self.shared.dial_failed(self.upto, failure);
        }
    }
}
