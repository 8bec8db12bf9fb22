//! The first packet of each side.

use std::fs::File;
use std::io::Write;

use bytes::Buf;

use crate::op::{from_vm, to_vm};
use crate::packet::{HEAD, Packets, Stop};

/// The version of the protocol.
pub(crate) const VERSION: u16 = 1;

/// What the VM says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hello {
    /// Which program of this node this is: it tells the ids of one from those of another.
    pub(crate) generation: u32,
    /// How many threads the runtime is to have.
    pub(crate) workers: usize,
    /// How much is to be logged: 0 for nothing, 1 for errors, up to 5 for everything.
    pub(crate) level: u8,
}

/// Why there is nothing to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The VM closed the pipe.
    Gone,
    /// The VM speaks another version.
    Version,
    /// That was no hello.
    Garbage,
}

/// Waits for the VM's hello and answers it.
pub(crate) fn exchange(packets: &mut Packets, mut output: &File) -> Result<Hello, Refused> {
    let packet = packets.next().map_err(|stop| match stop {
        Stop::End => Refused::Gone,
        Stop::Garbage => Refused::Garbage,
    })?;
    let hello = read(packet.op, packet.body);
    if hello != Err(Refused::Garbage) {
        output
            .write_all(&own(std::process::id()))
            .map_err(|_| Refused::Gone)?;
    }
    hello
}

pub(crate) fn read(op: u8, mut body: bytes::Bytes) -> Result<Hello, Refused> {
    if op != from_vm::HELLO || body.len() < 2 {
        return Err(Refused::Garbage);
    }
    if body.get_u16() != VERSION {
        return Err(Refused::Version);
    }
    if body.len() != 7 {
        return Err(Refused::Garbage);
    }
    Ok(Hello {
        generation: body.get_u32(),
        workers: body.get_u16().into(),
        level: body.get_u8(),
    })
}

/// Own hello: the version and the number of this process.
pub(crate) fn own(process: u32) -> Vec<u8> {
    let len = HEAD as u32 + 2 + 4;
    let mut out = len.to_be_bytes().to_vec();
    out.push(to_vm::HELLO);
    out.extend(0u64.to_be_bytes());
    out.extend(VERSION.to_be_bytes());
    out.extend(process.to_be_bytes());
    out
}
