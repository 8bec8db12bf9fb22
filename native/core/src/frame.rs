//! Where messages begin and end in a stream of bytes. No I/O: "incomplete" is a value.

use memchr::memchr;

use crate::error::Error;
use crate::options::OnOversize;

/// How messages are delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A newline after each message (MCP, stdio transport); `\r\n` is accepted, empty lines are
    /// skipped.
    Line,
    /// A big-endian 32-bit length before each message.
    Length4,
}

/// A frame, or what is left of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// A whole frame: a range of the bytes given to [`Splitter::split`].
    Frame {
        /// Offset of the first byte.
        start: usize,
        /// Length without the delimiter.
        len: usize,
    },
    /// A frame over the limit was discarded; its length.
    Oversized(u64),
}

impl Item {
    /// Its length without the delimiter.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Frame { len, .. } => *len as u64,
            Self::Oversized(len) => *len,
        }
    }
}

/// Finds frames in a growing buffer. Every byte is looked at once, however it arrives.
#[derive(Debug)]
pub struct Splitter {
    framing: Framing,
    max: usize,
    on_oversize: OnOversize,
    /// Bytes at the front of the buffer that are known to hold no delimiter.
    scanned: usize,
    discarding: Option<Discard>,
}

#[derive(Clone, Copy, Debug)]
struct Discard {
    /// Length of the frame so far (line) or in full (length-prefixed).
    len: u64,
    /// Bytes still to come (length-prefixed).
    left: u64,
    /// The last byte dropped was a carriage return, which may belong to the delimiter.
    cr: bool,
}

impl Splitter {
    /// A splitter at the start of a stream.
    pub fn new(framing: Framing, max: usize, on_oversize: OnOversize) -> Self {
        Self {
            framing,
            max,
            on_oversize,
            scanned: 0,
            discarding: None,
        }
    }

    /// Appends the frames that are complete in `buf` to `items` and returns how many bytes at the
    /// front of `buf` are done with. The caller removes these and comes again with the rest in
    /// front.
    ///
    /// # Errors
    /// [`Error::FrameTooLarge`] after the frames before it, where oversized frames are not
    /// discarded.
    pub fn split(&mut self, buf: &[u8], items: &mut Vec<Item>) -> (usize, Result<(), Error>) {
        match self.framing {
            Framing::Line => self.split_lines(buf, items),
            Framing::Length4 => self.split_lengths(buf, items),
        }
    }

    /// How large the buffer must become before a frame can be complete, where that is known.
    pub fn wanted(&self, buf: &[u8]) -> Option<usize> {
        match (self.framing, self.discarding, length_prefix(buf)) {
            (Framing::Length4, None, Some(len)) => Some(len.saturating_add(4)),
            _ => None,
        }
    }

    fn split_lines(&mut self, buf: &[u8], items: &mut Vec<Item>) -> (usize, Result<(), Error>) {
        let mut start = 0;
        let mut from = self.scanned;
        while let Some(at) = find_newline(buf, from) {
            if let Some(discard) = self.discarding.take() {
                let line = buf.get(start..at).unwrap_or_default();
                items.push(Item::Oversized(discard.add_line(line).finished()));
            } else if let Err(error) = self.line(buf, start, at, items) {
                self.scanned = 0;
                return (start, Err(error));
            }
            start = at + 1;
            from = start;
        }
        self.rest_of_line(buf, start)
    }

    fn line(
        &self,
        buf: &[u8],
        start: usize,
        end: usize,
        items: &mut Vec<Item>,
    ) -> Result<(), Error> {
        let line = buf.get(start..end).unwrap_or_default();
        let len = line.len() - usize::from(line.ends_with(b"\r"));
        match (len, self.on_oversize) {
            (0, _) => {}
            (len, _) if len <= self.max => items.push(Item::Frame { start, len }),
            (len, OnOversize::Discard) => items.push(Item::Oversized(len as u64)),
            (_, OnOversize::Close) => return Err(Error::FrameTooLarge),
        }
        Ok(())
    }

    fn rest_of_line(&mut self, buf: &[u8], start: usize) -> (usize, Result<(), Error>) {
        let rest = buf.get(start..).unwrap_or_default();
        if let Some(discard) = self.discarding {
            self.discarding = Some(discard.add_line(rest));
        } else if rest.len() - usize::from(rest.ends_with(b"\r")) <= self.max {
            self.scanned = rest.len();
            return (start, Ok(()));
        } else if self.on_oversize == OnOversize::Close {
            self.scanned = 0;
            return (start, Err(Error::FrameTooLarge));
        } else {
            self.discarding = Some(
                Discard {
                    len: 0,
                    left: 0,
                    cr: false,
                }
                .add_line(rest),
            );
        }
        self.scanned = 0;
        (buf.len(), Ok(()))
    }

    fn split_lengths(&mut self, buf: &[u8], items: &mut Vec<Item>) -> (usize, Result<(), Error>) {
        let mut start = 0;
        loop {
            let rest = buf.get(start..).unwrap_or_default();
            if let Some(discard) = self.discarding.take() {
                let (dropped, left) = discard.drop_bytes(rest.len());
                start += dropped;
                if left > 0 {
                    self.discarding = Some(Discard { left, ..discard });
                    return (start, Ok(()));
                }
                items.push(Item::Oversized(discard.len));
                continue;
            }
            let Some(len) = length_prefix(rest) else {
                return (start, Ok(()));
            };
            if len > self.max {
                if self.on_oversize == OnOversize::Close {
                    return (start, Err(Error::FrameTooLarge));
                }
                let len = len as u64;
                self.discarding = Some(Discard {
                    len,
                    left: len,
                    cr: false,
                });
                start += 4;
            } else if rest.len() - 4 >= len {
                items.push(Item::Frame {
                    start: start + 4,
                    len,
                });
                start += 4 + len;
            } else {
                return (start, Ok(()));
            }
        }
    }
}

impl Discard {
    fn add_line(self, part: &[u8]) -> Self {
        if part.is_empty() {
            return self;
        }
        let cr = part.ends_with(b"\r");
        let len = self.len + u64::from(self.cr) + part.len() as u64 - u64::from(cr);
        Discard { len, cr, ..self }
    }

    /// The length at the newline: a carriage return right before it is part of the delimiter.
    fn finished(self) -> u64 {
        self.len
    }

    fn drop_bytes(self, available: usize) -> (usize, u64) {
        let dropped = usize::try_from(self.left).map_or(available, |left| left.min(available));
        (dropped, self.left - dropped as u64)
    }
}

fn find_newline(buf: &[u8], from: usize) -> Option<usize> {
    memchr(b'\n', buf.get(from..)?).map(|at| from + at)
}

fn length_prefix(buf: &[u8]) -> Option<usize> {
    let prefix = buf.first_chunk::<4>()?;
    usize::try_from(u32::from_be_bytes(*prefix)).ok()
}

/// What goes around a message on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Bytes before the message.
    pub prefix: Option<[u8; 4]>,
    /// Bytes after it.
    pub suffix: &'static [u8],
}

impl Envelope {
    /// Bytes that the envelope adds.
    pub fn len(&self) -> usize {
        self.prefix.map_or(0, |p| p.len()) + self.suffix.len()
    }

    /// Whether it adds none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Checks a message that is to be sent and says what goes around it.
///
/// # Errors
/// [`Error::FrameTooLarge`], [`Error::EmptyMessage`] and [`Error::EmbeddedNewline`].
pub fn envelope(framing: Framing, max: usize, message: &[u8]) -> Result<Envelope, Error> {
    if message.len() > max {
        return Err(Error::FrameTooLarge);
    }
    match framing {
        Framing::Line if message.is_empty() => Err(Error::EmptyMessage),
        Framing::Line if memchr(b'\n', message).is_some() => Err(Error::EmbeddedNewline),
        Framing::Line => Ok(Envelope {
            prefix: None,
            suffix: b"\n",
        }),
        Framing::Length4 => {
            let len = u32::try_from(message.len()).map_err(|_| Error::FrameTooLarge)?;
            Ok(Envelope {
                prefix: Some(len.to_be_bytes()),
                suffix: b"",
            })
        }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
