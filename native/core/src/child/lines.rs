//! A child's standard error, in lines.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::process::Exit;
use crate::sync::lock;

/// Lines beyond this many bytes wait for nobody: they are dropped and counted.
const MAX_WAITING: usize = 64 * 1024;

/// What a line costs beside its bytes.
const LINE: usize = 64;

const READ: usize = 8 * 1024;

/// Silence after which it is told that lines were dropped.
const UNTOLD: Duration = Duration::from_secs(1);

/// Time for the last lines of a group that is over. A process that has left the group may hold
/// the pipe for ever.
const LAST_LINES: Duration = Duration::from_millis(100);

/// Lines that wait to be taken. It is read on whether they are taken or not.
#[derive(Clone)]
pub struct Lines(Arc<Shared>);

/// A line, or what there is in the place of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its end.
    Text(Bytes),
    /// How many were dropped.
    Dropped(u64),
}

struct Shared {
    waiting: Mutex<Waiting>,
    change: Notify,
    end: watch::Sender<bool>,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<Line>,
    cost: usize,
    ended: bool,
}

impl Lines {
    pub(crate) fn new() -> Self {
        Self(Arc::new(Shared {
            waiting: Mutex::new(Waiting::default()),
            change: Notify::new(),
            end: watch::Sender::new(false),
        }))
    }

    /// Waits until there is something to take, or the end. One task at a time.
    pub async fn ready(&self) {
        while self.is_empty() {
            self.0.change.notified().await;
        }
    }

    fn is_empty(&self) -> bool {
        let waiting = lock(&self.0.waiting);
        waiting.lines.is_empty() && !waiting.ended
    }

    /// Waits until nothing more will come.
    pub async fn ended(&self) {
        let mut end = self.0.end.subscribe();
        let _ = end.wait_for(|ended| *ended).await;
    }

    /// Takes all there is, and says whether nothing more will come.
    pub fn take(&self) -> (Vec<Line>, bool) {
        let mut waiting = lock(&self.0.waiting);
        waiting.cost = 0;
        (std::mem::take(&mut waiting.lines), waiting.ended)
    }

    /// A line that is not allowed is counted, and told of with the next that is.
    fn push(&self, line: &[u8], allowed: bool) {
        let mut waiting = lock(&self.0.waiting);
        if allowed && waiting.cost < MAX_WAITING {
            waiting.cost += line.len() + LINE;
            waiting.lines.push(Line::Text(Bytes::copy_from_slice(line)));
        } else if let Some(Line::Dropped(count)) = waiting.lines.last_mut() {
            *count += 1;
        } else {
            waiting.lines.push(Line::Dropped(1));
        }
        drop(waiting);
        if allowed {
            self.0.change.notify_one();
        }
    }
}

/// The side that reads. Nothing more comes when it is dropped.
pub(crate) struct Reading {
    lines: Lines,
    max_line: usize,
    bucket: Option<Bucket>,
    /// The last line was dropped, and nobody was told.
    untold: bool,
}

impl Drop for Reading {
    fn drop(&mut self) {
        lock(&self.lines.0.waiting).ended = true;
        self.lines.0.change.notify_one();
        self.lines.0.end.send_replace(true);
    }
}

impl Reading {
    pub(crate) fn new(lines: Lines, max_line: usize, rate: Option<u32>) -> Self {
        Self {
            lines,
            max_line,
            bucket: rate.map(Bucket::new),
            untold: false,
        }
    }

    /// Reads to the end, however fast lines come and whether they are taken or not. `exit` is
    /// closed when the group is over.
    pub(crate) async fn read(mut self, pipe: OwnedFd, mut exit: watch::Receiver<Option<Exit>>) {
        let Ok(pipe) = pipe::Receiver::from_owned_fd(pipe) else {
            return;
        };
        let over = async {
            while exit.changed().await.is_ok() {}
            sleep(LAST_LINES).await;
        };
        let mut splitter = Splitter::new(self.max_line);
        tokio::select! {
            _ = self.read_all(pipe, &mut splitter) => {}
            () = over => {}
        }
        splitter.finish(&mut |line| self.push(line));
    }

    async fn read_all(&mut self, mut pipe: pipe::Receiver, into: &mut Splitter) -> io::Result<()> {
        let mut block = BytesMut::with_capacity(READ);
        loop {
            let read = pipe.read_buf(&mut block);
            let read = if self.untold {
                match timeout(UNTOLD, read).await {
                    Ok(read) => read,
                    Err(_) => {
                        self.untold = false;
                        self.lines.0.change.notify_one();
                        continue;
                    }
                }
            } else {
                read.await
            };
            if read? == 0 {
                return Ok(());
            }
            into.split(&block, &mut |line| self.push(line));
            block.clear();
        }
    }

    fn push(&mut self, line: &[u8]) {
        let allowed = self.bucket.as_mut().is_none_or(Bucket::take);
        self.untold = !allowed;
        self.lines.push(line, allowed);
    }
}

/// Cuts what is read into lines of bounded length.
struct Splitter {
    begun: Vec<u8>,
    max: usize,
}

impl Splitter {
    fn new(max: usize) -> Self {
        Self {
            begun: Vec::new(),
            max,
        }
    }

    fn split(&mut self, block: &[u8], line: &mut dyn FnMut(&[u8])) {
        let mut parts = block.split(|byte| *byte == b'\n').peekable();
        while let Some(part) = parts.next() {
            let room = self.max.saturating_sub(self.begun.len()).min(part.len());
            self.begun.extend(part.iter().take(room));
            if parts.peek().is_some() {
                self.finish(line);
            }
        }
    }

    fn finish(&mut self, line: &mut dyn FnMut(&[u8])) {
        let text = self.begun.strip_suffix(b"\r").unwrap_or(&self.begun);
        if !text.is_empty() {
            line(text);
        }
        self.begun.clear();
    }
}

/// Lets so many through in a second, and twice as many at once.
struct Bucket {
    rate: f64,
    tokens: f64,
    last: Instant,
}

impl Bucket {
    fn new(per_second: u32) -> Self {
        let rate = f64::from(per_second);
        Self {
            rate,
            tokens: 2.0 * rate,
            last: Instant::now(),
        }
    }

    fn take(&mut self) -> bool {
        let now = Instant::now();
        let passed = now.duration_since(self.last).as_secs_f64();
        self.tokens = (self.tokens + passed * self.rate).min(2.0 * self.rate);
        self.last = now;
        let allowed = self.tokens >= 1.0;
        if allowed {
            self.tokens -= 1.0;
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(max: usize, blocks: &[&str]) -> Vec<String> {
        let mut lines = Vec::new();
        let mut line = |line: &[u8]| lines.push(String::from_utf8(line.to_vec()).unwrap());
        let mut splitter = Splitter::new(max);
        for block in blocks {
            splitter.split(block.as_bytes(), &mut line);
        }
        splitter.finish(&mut line);
        lines
    }

    #[test]
    fn lines_may_come_in_pieces_and_end_in_either_way() {
        assert_eq!(
            split(80, &["a\nb\r\n", "c", "d\n\n", "e"]),
            ["a", "b", "cd", "e"]
        );
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_is_whole() {
        assert_eq!(split(3, &["abcdef", "ghi\nxyz\n"]), ["abc", "xyz"]);
    }

    #[test]
    fn a_rate_lets_a_burst_through_and_no_more() {
        let mut bucket = Bucket::new(10);
        assert_eq!((0..100).filter(|_| bucket.take()).count(), 20);
    }

    #[test]
    fn what_is_not_taken_is_bounded_and_counted() {
        let lines = Lines::new();
        for _ in 0..100_000 {
            lines.push(b"a line", true);
        }
        let (mut taken, _) = lines.take();
        assert!(taken.len() <= MAX_WAITING / LINE);
        let dropped = 100_000 - taken.len() as u64 + 1;
        assert_eq!(taken.pop(), Some(Line::Dropped(dropped)));
        assert!(lines.take().0.is_empty());
    }

    #[test]
    fn what_is_dropped_is_counted_in_its_place() {
        let lines = Lines::new();
        for allowed in [true, false, false, true] {
            lines.push(b"a", allowed);
        }
        let text = Line::Text(Bytes::from_static(b"a"));
        assert_eq!(lines.take().0, [text.clone(), Line::Dropped(2), text]);
    }
}
