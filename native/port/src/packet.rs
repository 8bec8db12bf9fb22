//! Packets from the VM: four bytes of length, an operation, an id, and the rest.

use std::fs::File;
use std::io::Read;

use bytes::{Buf, Bytes, BytesMut};

/// Bytes of an operation and an id.
pub(crate) const HEAD: usize = 9;

/// How much is asked for at once.
const READ: usize = 64 * 1024;

/// A packet larger than this is none: the VM refuses such messages itself.
const MAX: usize = 0x7fff_ffff;

/// One packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) op: u8,
    pub(crate) id: u64,
    pub(crate) body: Bytes,
}

/// Why there is no further packet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The VM has closed the pipe, or is gone.
    End,
    /// What came is no packet.
    Garbage,
}

/// The packets of a stream of bytes. Bodies refer to the blocks they were read into.
pub(crate) struct Packets<R = File> {
    input: R,
    buf: BytesMut,
}

impl<R: Read> Packets<R> {
    pub(crate) fn new(input: R) -> Self {
        Self {
            input,
            buf: BytesMut::new(),
        }
    }

    /// Waits for the next packet.
    pub(crate) fn next(&mut self) -> Result<Packet, Stop> {
        loop {
            let missing = match self.buf.first_chunk::<4>() {
                None => READ,
                Some(prefix) => {
                    let len = u32::from_be_bytes(*prefix) as usize;
                    if !(HEAD..=MAX).contains(&len) {
                        return Err(Stop::Garbage);
                    }
                    let whole = 4 + len;
                    if self.buf.len() >= whole {
                        return Ok(split(&mut self.buf, len));
                    }
                    whole - self.buf.len()
                }
            };
            self.fill(missing)?;
        }
    }

    /// Reads once. A packet that is announced gets its memory at once: the VM is trusted.
    fn fill(&mut self, missing: usize) -> Result<(), Stop> {
        let begun = self.buf.len();
        self.buf.reserve(missing.max(READ / 4));
        let room = self.buf.capacity().min(begun + missing.max(READ));
        self.buf.resize(room, 0);
        let read = loop {
            let free = self.buf.get_mut(begun..).unwrap_or_default();
            match self.input.read(free) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break 0,
                Ok(read) => break read,
            }
        };
        self.buf.truncate(begun + read);
        if read == 0 { Err(Stop::End) } else { Ok(()) }
    }
}

fn split(buf: &mut BytesMut, len: usize) -> Packet {
    buf.advance(4);
    let mut packet = buf.split_to(len).freeze();
    Packet {
        op: packet.get_u8(),
        id: packet.get_u64(),
        body: packet,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(op: u8, id: u64, body: &[u8]) -> Vec<u8> {
        let mut out = ((HEAD + body.len()) as u32).to_be_bytes().to_vec();
        out.push(op);
        out.extend(id.to_be_bytes());
        out.extend(body);
        out
    }

    /// Gives one byte at a time.
    struct Slow(Vec<u8>, usize);

    impl Read for Slow {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let Some(byte) = self.0.get(self.1) else {
                return Ok(0);
            };
            self.1 += 1;
            out[0] = *byte;
            Ok(1)
        }
    }

    fn all<R: Read>(input: R) -> (Vec<(u8, u64, Vec<u8>)>, Stop) {
        let mut packets = Packets::new(input);
        let mut out = Vec::new();
        loop {
            match packets.next() {
                Ok(Packet { op, id, body }) => out.push((op, id, body.to_vec())),
                Err(stop) => return (out, stop),
            }
        }
    }

    #[test]
    fn packets_however_they_come() {
        let large = vec![7; 300_000];
        let bytes = [
            packet(1, 2, b"three"),
            packet(4, 5, &large),
            packet(6, 7, b""),
        ]
        .concat();
        let expected = vec![(1, 2, b"three".to_vec()), (4, 5, large), (6, 7, Vec::new())];
        assert_eq!(all(&bytes[..]), (expected.clone(), Stop::End));
        assert_eq!(all(Slow(bytes, 0)), (expected, Stop::End));
    }

    #[test]
    fn a_length_that_no_packet_has() {
        let (packets, stop) = all(&[packet(1, 2, b"x"), vec![0, 0, 0, 8]].concat()[..]);
        assert_eq!((packets.len(), stop), (1, Stop::Garbage));
        assert_eq!(all(&[0xff; 10][..]).1, Stop::Garbage);
    }
}
