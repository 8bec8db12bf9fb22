//! Threads that copy between a pipe and what cannot be polled.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::thread;

use tokio::sync::oneshot;

/// What a pipe holds on Linux.
const BLOCK: usize = 64 * 1024;

/// Becomes ready when a thread has written everything, or cannot.
pub(crate) struct Done(oneshot::Receiver<io::Result<()>>);

impl Done {
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Whoever asks again after the end, or after a panic of the thread, is not kept waiting.
        Poll::Ready(ready!(Pin::new(&mut self.0).poll(cx)).unwrap_or(Ok(())))
    }
}

/// The end of a pipe that gives what is in the file, or what is typed. Nobody can wake a thread
/// that waits in a read: it ends with the next input, or with the process.
pub(crate) fn reader(file: File) -> io::Result<OwnedFd> {
    let (output, input) = io::pipe()?;
    start("erlmcp_stdin", move || {
        if let Err(error) = copy(file, input) {
            tracing::debug!(%error, "reading has ended");
        }
    })?;
    Ok(output.into())
}

/// The end of a pipe whose contents are written to the file.
pub(crate) fn writer(file: File) -> io::Result<(OwnedFd, Done)> {
    let (output, input) = io::pipe()?;
    let (tell, done) = oneshot::channel();
    start("erlmcp_stdout", move || {
        let result = copy(output, file);
        if let Err(error) = &result {
            tracing::debug!(%error, "writing has ended");
        }
        // Nobody may care any more.
        let _ = tell.send(result);
    })?;
    Ok((input.into(), Done(done)))
}

fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().name(name.to_owned()).spawn(run)?;
    Ok(())
}

fn copy(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut block = vec![0; BLOCK];
    loop {
        let read = match from.read(&mut block) {
            Ok(0) => return to.flush(),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(block.get(..read).unwrap_or_default())?;
    }
}
