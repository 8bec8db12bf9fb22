//! A strict reading of HTTP/1.1 framing, ahead of hyper's lenient one.
//!
//! hyper takes a bare LF for a line's end, lets `transfer-encoding` win over `content-length`, takes
//! white space in chunk sizes and does not look at `host`. What two parsers can read in two ways is
//! refused here, before hyper has seen the end of the head. The limits of heads are kept here too,
//! while they arrive.

use memchr::memchr2;

/// What a head may be made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_headers: usize,
    pub(crate) max_header: usize,
    pub(crate) max_target: usize,
}

/// Bytes of chunk extensions or of trailers of one message.
const MAX_EXTRA: usize = 8 * 1024;

const MAX_METHOD: usize = 32;

const BAD_REQUEST: u16 = 400;
const TARGET_TOO_LONG: u16 = 414;
const HEAD_TOO_LARGE: u16 = 431;
const NOT_IMPLEMENTED: u16 = 501;
const VERSION_NOT_SUPPORTED: u16 = 505;

/// How much of what was fed may be passed on, and the status that refuses the rest.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) pass: usize,
    pub(crate) refusal: Option<u16>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    StartLf,
    Method,
    Target,
    Version,
    VersionLf,
    FieldStart,
    Name,
    Blank,
    Value,
    ValueLf,
    HeadLf,
    Length(u64),
    Size,
    Extension,
    SizeLf,
    Data(u64),
    DataCr,
    DataLf,
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Other,
    Host,
    ContentLength,
    TransferEncoding,
}

/// Where a connection's requests stand.
pub(crate) struct Check {
    limits: Limits,
    at: At,
    /// Bytes of the present element.
    len: usize,
    /// The beginning of a name or value that matters.
    word: Word,
    field: Field,
    /// White space has been met within a value.
    gap: bool,
    head: Head,
}

#[derive(Default)]
struct Head {
    fields: usize,
    hosts: usize,
    http11: bool,
    length: Option<u64>,
    chunked: bool,
    /// Of the present chunk.
    size: u64,
    /// Bytes of extensions and trailers.
    extra: usize,
}

#[derive(Default)]
struct Word {
    bytes: [u8; 32],
    len: usize,
}

impl Word {
    /// Beyond the capacity only the length counts on: no word that matters is so long.
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
        }
        self.len += 1;
    }

    fn get(&self) -> Option<&[u8]> {
        self.bytes.get(..self.len)
    }
}

impl Check {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            at: At::Start,
            len: 0,
            word: Word::default(),
            field: Field::Other,
            gap: false,
            head: Head::default(),
        }
    }

    /// Whether a head has begun and is not complete.
    pub(crate) fn in_head(&self) -> bool {
        matches!(
            self.at,
            At::Method
                | At::Target
                | At::Version
                | At::VersionLf
                | At::FieldStart
                | At::Name
                | At::Blank
                | At::Value
                | At::ValueLf
                | At::HeadLf
        )
    }

    /// Whether everything that was begun is complete.
    pub(crate) fn between_messages(&self) -> bool {
        matches!(self.at, At::Start | At::StartLf)
    }

    /// Reads on. A head that is refused is held back from its start in these bytes on.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Verdict {
        let mut at = 0;
        let mut pass = 0;
        while let Some(&byte) = bytes.get(at) {
            let rest = bytes.get(at..).unwrap_or_default();
            let skipped = self.skip(rest);
            if skipped > 0 {
                at += skipped;
            } else if let Err(status) = self.step(byte) {
                return Verdict {
                    pass,
                    refusal: Some(status),
                };
            } else {
                at += 1;
            }
            if !self.in_head() {
                pass = at;
            }
        }
        Verdict {
            pass: at,
            refusal: None,
        }
    }

    /// Passes over bytes that can be taken together.
    fn skip(&mut self, rest: &[u8]) -> usize {
        match &mut self.at {
            At::Length(left) | At::Data(left) => {
                let n = rest.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= n as u64;
                self.at = match self.at {
                    At::Length(0) => At::Start,
                    At::Data(0) => At::DataCr,
                    at => at,
                };
                n
            }
            At::Value if self.field == Field::Other => {
                let n = memchr2(b'\r', b'\n', rest).unwrap_or(rest.len());
                // One byte goes through `step`, which looks at the limit.
                let n = n.saturating_sub(1);
                self.len += n;
                n
            }
            _ => 0,
        }
    }

    fn step(&mut self, byte: u8) -> Result<(), u16> {
        self.at = match self.at {
            At::Start if byte == b'\r' => At::StartLf,
            At::Start => {
                self.head = Head::default();
                self.len = 0;
                self.at = At::Method;
                return self.method(byte);
            }
            At::StartLf => self.expect(byte, b'\n', At::Start)?,
            At::Method => return self.method(byte),
            At::Target => self.target(byte)?,
            At::Version => self.version(byte)?,
            At::VersionLf | At::ValueLf => self.expect(byte, b'\n', At::FieldStart)?,
            At::FieldStart => self.field_start(byte)?,
            At::Name => self.name(byte)?,
            At::Blank => self.blank(byte)?,
            At::Value => self.value(byte)?,
            At::HeadLf => {
                self.expect(byte, b'\n', At::Start)?;
                self.body()?
            }
            // Left by `skip`, which takes at least one byte.
            At::Length(_) | At::Data(_) => return Err(BAD_REQUEST),
            At::Size => self.size(byte)?,
            At::Extension => self.extra(byte, At::SizeLf)?,
            At::SizeLf => {
                let next = match self.head.size {
                    0 => At::TrailerStart,
                    size => At::Data(size),
                };
                self.expect(byte, b'\n', next)?
            }
            At::DataCr => self.expect(byte, b'\r', At::DataLf)?,
            At::DataLf => {
                self.next_chunk();
                self.expect(byte, b'\n', At::Size)?
            }
            At::TrailerStart if byte == b'\r' => At::EndLf,
            At::TrailerStart if matches!(byte, b' ' | b'\t') => return Err(BAD_REQUEST),
            At::TrailerStart | At::Trailer => self.extra(byte, At::TrailerLf)?,
            At::TrailerLf => self.expect(byte, b'\n', At::TrailerStart)?,
            At::EndLf => self.expect(byte, b'\n', At::Start)?,
        };
        Ok(())
    }

    fn expect(&self, byte: u8, wanted: u8, next: At) -> Result<At, u16> {
        if byte == wanted {
            Ok(next)
        } else {
            Err(BAD_REQUEST)
        }
    }

    fn method(&mut self, byte: u8) -> Result<(), u16> {
        self.at = match byte {
            b' ' if self.len > 0 => {
                self.len = 0;
                At::Target
            }
            b'!'..=b'~' if self.len < MAX_METHOD => {
                self.len += 1;
                At::Method
            }
            _ => return Err(BAD_REQUEST),
        };
        Ok(())
    }

    fn target(&mut self, byte: u8) -> Result<At, u16> {
        match byte {
            b' ' if self.len > 0 => {
                self.word = Word::default();
                Ok(At::Version)
            }
            b'!'..=b'~' | 0x80..=0xff if self.len < self.limits.max_target => {
                self.len += 1;
                Ok(At::Target)
            }
            b'!'..=b'~' | 0x80..=0xff => Err(TARGET_TOO_LONG),
            _ => Err(BAD_REQUEST),
        }
    }

    fn version(&mut self, byte: u8) -> Result<At, u16> {
        if byte != b'\r' {
            self.word.push(byte);
            return if self.word.len <= 8 {
                Ok(At::Version)
            } else {
                Err(BAD_REQUEST)
            };
        }
        self.head.http11 = match self.word.get() {
            Some(b"HTTP/1.1") => true,
            Some(b"HTTP/1.0") => false,
            Some([b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9']) => {
                return Err(VERSION_NOT_SUPPORTED);
            }
            _ => return Err(BAD_REQUEST),
        };
        Ok(At::VersionLf)
    }

    fn field_start(&mut self, byte: u8) -> Result<At, u16> {
        if byte == b'\r' {
            return Ok(At::HeadLf);
        }
        self.head.fields += 1;
        if self.head.fields > self.limits.max_headers {
            return Err(HEAD_TOO_LARGE);
        }
        self.len = 0;
        self.word = Word::default();
        // A line that begins with white space would continue the one before.
        if byte == b':' || byte == b' ' || byte == b'\t' {
            return Err(BAD_REQUEST);
        }
        self.name(byte)
    }

    fn name(&mut self, byte: u8) -> Result<At, u16> {
        match byte {
            b':' => {
                self.field = match self.word.get() {
                    Some(b"host") => Field::Host,
                    Some(b"content-length") => Field::ContentLength,
                    Some(b"transfer-encoding") => Field::TransferEncoding,
                    _ => Field::Other,
                };
                self.word = Word::default();
                self.gap = false;
                Ok(At::Blank)
            }
            b'!'..=b'~' => {
                self.word.push(byte.to_ascii_lowercase());
                self.count()?;
                Ok(At::Name)
            }
            _ => Err(BAD_REQUEST),
        }
    }

    /// White space before a value does not count, and is not endless either.
    fn blank(&mut self, byte: u8) -> Result<At, u16> {
        if !matches!(byte, b' ' | b'\t') {
            return self.value(byte);
        }
        self.head.extra += 1;
        if self.head.extra > MAX_EXTRA {
            return Err(HEAD_TOO_LARGE);
        }
        Ok(At::Blank)
    }

    fn value(&mut self, byte: u8) -> Result<At, u16> {
        match byte {
            b'\r' => {
                self.field_end()?;
                return Ok(At::ValueLf);
            }
            b'\n' | 0 => return Err(BAD_REQUEST),
            _ => self.count()?,
        }
        match (self.field, byte) {
            (Field::Other, _) => {}
            (Field::Host, b' ' | b'\t') => self.gap = true,
            (Field::Host, _) if self.gap || !is_of_host(byte) => return Err(BAD_REQUEST),
            (Field::Host, _) => {}
            _ => self.word.push(byte.to_ascii_lowercase()),
        }
        Ok(At::Value)
    }

    fn count(&mut self) -> Result<(), u16> {
        self.len += 1;
        if self.len > self.limits.max_header {
            Err(HEAD_TOO_LARGE)
        } else {
            Ok(())
        }
    }

    fn field_end(&mut self) -> Result<(), u16> {
        match self.field {
            Field::Other => Ok(()),
            Field::Host => {
                self.head.hosts += 1;
                Ok(())
            }
            Field::ContentLength => {
                let digits = self.word.get().map(<[u8]>::trim_ascii_end);
                let length = digits.and_then(decimal).ok_or(BAD_REQUEST)?;
                match self.head.length.replace(length) {
                    None => Ok(()),
                    Some(_) => Err(BAD_REQUEST),
                }
            }
            Field::TransferEncoding => {
                let value = self.word.get().map(<[u8]>::trim_ascii_end);
                if value != Some(b"chunked") {
                    return Err(NOT_IMPLEMENTED);
                }
                if std::mem::replace(&mut self.head.chunked, true) {
                    return Err(BAD_REQUEST);
                }
                Ok(())
            }
        }
    }

    /// What follows a head.
    fn body(&mut self) -> Result<At, u16> {
        let head = &self.head;
        if head.hosts > 1 || (head.http11 && head.hosts == 0) {
            return Err(BAD_REQUEST);
        }
        match (head.chunked, head.length) {
            (true, Some(_)) => Err(BAD_REQUEST),
            (true, None) if !head.http11 => Err(BAD_REQUEST),
            (true, None) => {
                self.next_chunk();
                Ok(At::Size)
            }
            (false, Some(length)) if length > 0 => Ok(At::Length(length)),
            (false, _) => Ok(At::Start),
        }
    }

    fn next_chunk(&mut self) {
        self.len = 0;
        self.head.size = 0;
    }

    fn size(&mut self, byte: u8) -> Result<At, u16> {
        match byte {
            b'\r' if self.len > 0 => Ok(At::SizeLf),
            b';' if self.len > 0 => Ok(At::Extension),
            _ => {
                let digit = char::from(byte).to_digit(16).ok_or(BAD_REQUEST)?;
                self.len += 1;
                if self.len > 15 {
                    return Err(BAD_REQUEST);
                }
                self.head.size = self.head.size * 16 + u64::from(digit);
                Ok(At::Size)
            }
        }
    }

    fn extra(&mut self, byte: u8, at_end: At) -> Result<At, u16> {
        self.head.extra += 1;
        if self.head.extra > MAX_EXTRA {
            return Err(HEAD_TOO_LARGE);
        }
        match byte {
            b'\r' => Ok(at_end),
            b'\n' | 0 => Err(BAD_REQUEST),
            _ if at_end == At::SizeLf => Ok(At::Extension),
            _ => Ok(At::Trailer),
        }
    }
}

/// What a host and a port are written with (RFC 3986, section 3.2.2).
fn is_of_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |value, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
