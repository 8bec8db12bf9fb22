//! Connecting to a name: all of its addresses, raced (RFC 8305, "Happy Eyeballs").

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tokio::net::{TcpSocket, TcpStream, UnixStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::options::{Dial, Endpoint};
use crate::stream::Stream;

pub(crate) async fn dial(endpoint: &Endpoint, options: &Dial) -> Result<Stream, Error> {
    timeout(options.connect_timeout, connect(endpoint, options))
        .await
        .unwrap_or(Err(Error::Timeout))
}

async fn connect(endpoint: &Endpoint, options: &Dial) -> Result<Stream, Error> {
    match endpoint {
        Endpoint::Name(name, port) => {
            let found = lookup_host((name.as_str(), *port)).await;
            let addresses = found.map_err(|_| Error::NoSuchName)?.collect();
            race(interleave(addresses), options).await.map(Stream::Tcp)
        }
        Endpoint::Ip(ip, port) => race(VecDeque::from([SocketAddr::new(*ip, *port)]), options)
            .await
            .map(Stream::Tcp),
        Endpoint::Path(_) | Endpoint::Abstract(_) => Ok(UnixStream::connect(unix_path(endpoint))
            .await
            .map(Stream::Unix)?),
    }
}

/// The path of a Unix endpoint as tokio wants it: an abstract name behind a zero byte.
pub(crate) fn unix_path(endpoint: &Endpoint) -> PathBuf {
    match endpoint {
        Endpoint::Path(path) => path.clone(),
        Endpoint::Abstract(name) => {
            let name = [&[0], name.as_slice()].concat();
            PathBuf::from(std::ffi::OsStr::from_bytes(&name))
        }
        Endpoint::Name(..) | Endpoint::Ip(..) => PathBuf::new(),
    }
}

/// Alternates the address families, beginning with that of the first address, each family in the
/// resolver's order (RFC 8305, section 4).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut a, mut b): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut out = VecDeque::with_capacity(a.len() + b.len());
    while !(a.is_empty() && b.is_empty()) {
        out.extend(a.pop_front());
        out.extend(b.pop_front());
    }
    out
}

/// Starts an attempt for each address, `attempt_delay` apart or at once when one fails; the first
/// that connects wins and the others are dropped. If all fail the first error is the result.
async fn race(mut addresses: VecDeque<SocketAddr>, options: &Dial) -> Result<TcpStream, Error> {
    if let Some(bind) = options.bind {
        addresses.retain(|address| address.is_ipv4() == bind.is_ipv4());
    }
    let mut attempts = JoinSet::new();
    let mut first_error = None;
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.spawn(attempt(address, options.bind));
        } else if attempts.is_empty() {
            return Err(first_error.unwrap_or(Error::Unreachable));
        }
        match next(
            &mut attempts,
            !addresses.is_empty(),
            sleep(options.attempt_delay),
        )
        .await
        {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => {
                first_error.get_or_insert(error);
            }
            None => {}
        }
    }
}

/// The next outcome, or nothing when it is time to start another attempt.
async fn next(
    attempts: &mut JoinSet<Result<TcpStream, Error>>,
    more: bool,
    delay: impl Future<Output = ()>,
) -> Option<Result<TcpStream, Error>> {
    tokio::select! {
        outcome = attempts.join_next() => {
            outcome.map(|joined| joined.unwrap_or(Err(Error::Panic)))
        }
        () = delay, if more => None,
    }
}

async fn attempt(address: SocketAddr, bind: Option<IpAddr>) -> Result<TcpStream, Error> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    if let Some(ip) = bind {
        socket.bind(SocketAddr::new(ip, 0))?;
    }
    let stream = socket.connect(address).await?;
    refuse_self_connection(stream).map_err(|error| match error.kind() {
        // One that was closed in order would still know its peer.
        io::ErrorKind::NotConnected => Error::Reset,
        _ => Error::from(error),
    })
}

/// A dial to a free port of the ephemeral range on this machine can meet its own socket
/// (simultaneous open). Nobody listens there.
fn refuse_self_connection(stream: TcpStream) -> io::Result<TcpStream> {
    if stream.local_addr()? == stream.peer_addr()? {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use tokio::net::TcpListener;

    use super::*;

    fn options() -> Dial {
        Dial {
            connect_timeout: Duration::from_secs(5),
            attempt_delay: Duration::from_millis(250),
            bind: None,
        }
    }

    #[test]
    fn families_alternate_beginning_with_the_resolvers_first() {
        let parse = |list: &[&str]| list.iter().map(|a| a.parse().unwrap()).collect::<Vec<_>>();
        let given = parse(&["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "1.1.1.2:1"]);
        let wanted = parse(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "1.1.1.2:1", "[::3]:1"]);
        assert_eq!(interleave(given), wanted);
    }

    #[tokio::test]
    async fn a_refused_first_address_costs_no_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        let unused = TcpListener::bind("127.0.0.2:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let start = Instant::now();
        let stream = race(VecDeque::from([unused, good]), &options())
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        assert!(start.elapsed() < options().attempt_delay);
    }

    #[tokio::test]
    async fn a_silent_first_address_costs_one_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let good = listener.local_addr().unwrap();
        // A listener whose backlog is full answers no further SYN.
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(0).unwrap();
        let black_hole = silent.local_addr().unwrap();
        let _held = TcpStream::connect(black_hole).await.unwrap();
        let start = Instant::now();
        let stream = race(VecDeque::from([black_hole, good]), &options())
            .await
            .unwrap();
        assert_eq!(stream.peer_addr().unwrap(), good);
        let elapsed = start.elapsed();
        assert!(elapsed >= options().attempt_delay && elapsed < 3 * options().attempt_delay);
    }

    #[tokio::test]
    async fn reports_refused_and_no_such_name() {
        let unused = TcpListener::bind("127.0.0.1:0")
            .await
            .unwrap()
            .local_addr()
            .unwrap();
        let refused = dial(&Endpoint::Ip(unused.ip(), unused.port()), &options()).await;
        assert_eq!(refused.unwrap_err(), Error::Refused);
        let unknown = dial(
            &Endpoint::Name("no-such-name.invalid".into(), 1),
            &options(),
        )
        .await;
        assert_eq!(unknown.unwrap_err(), Error::NoSuchName);
    }
}
