//! The operations of packets, and who acts on them.

use std::sync::Arc;

use bytes::{Buf, Bytes};

use crate::packet::Packet;
use crate::program::Program;
use crate::term::Malformed;
use crate::{child, connection, http_client, http_server, listener, log, program};

/// Operations of packets from the VM.
pub(crate) mod from_vm {
    pub(crate) const HELLO: u8 = 0x01;
    pub(crate) const PING: u8 = 0x02;
    pub(crate) const PROCESSED: u8 = 0x03;
    pub(crate) const CLOSE: u8 = 0x04;
    pub(crate) const LOG_LEVEL: u8 = 0x05;
    pub(crate) const METRICS: u8 = 0x06;
    pub(crate) const LEAVING: u8 = 0x07;

    pub(crate) const CONNECT: u8 = 0x10;
    pub(crate) const SEND: u8 = 0x11;
    pub(crate) const GRANT: u8 = 0x12;
    pub(crate) const WANT_ROOM: u8 = 0x13;
    pub(crate) const INFO: u8 = 0x14;
    pub(crate) const SEND_URGENT: u8 = 0x15;
    pub(crate) const SEND_NORMAL: u8 = 0x16;

    pub(crate) const LISTEN: u8 = 0x20;
    pub(crate) const ACCEPT: u8 = 0x21;

    pub(crate) const HTTP_LISTEN: u8 = 0x40;
    pub(crate) const HTTP_DRAIN: u8 = 0x41;
    pub(crate) const HTTP_INFO: u8 = 0x42;
    pub(crate) const HTTP_REPLY: u8 = 0x43;
    pub(crate) const HTTP_STREAM: u8 = 0x44;
    pub(crate) const HTTP_SEND: u8 = 0x45;
    pub(crate) const HTTP_FINISH: u8 = 0x46;
    pub(crate) const HTTP_WANT_ROOM: u8 = 0x47;
    pub(crate) const HTTP_WANT_BODY: u8 = 0x48;
    pub(crate) const HTTP_DONE: u8 = 0x49;

    pub(crate) const HTTP_CLIENT_OPEN: u8 = 0x50;
    pub(crate) const HTTP_CLIENT_REQUEST: u8 = 0x51;
    pub(crate) const HTTP_CLIENT_GRANT: u8 = 0x52;
    pub(crate) const HTTP_CLIENT_CANCEL: u8 = 0x53;
    pub(crate) const HTTP_CLIENT_INFO: u8 = 0x54;

    pub(crate) const CHILD: u8 = 0x60;
    pub(crate) const STDERR_NEXT: u8 = 0x61;
}

/// Operations of packets to the VM.
pub(crate) mod to_vm {
    pub(crate) const HELLO: u8 = 0x81;
    pub(crate) const PONG: u8 = 0x82;
    pub(crate) const GARBAGE: u8 = 0x83;
    pub(crate) const BORN: u8 = 0x84;
    pub(crate) const LOG: u8 = 0x85;
    pub(crate) const METRICS: u8 = 0x86;
    pub(crate) const DOWN: u8 = 0x87;
    pub(crate) const SENT: u8 = 0x88;
    pub(crate) const ROOM: u8 = 0x89;
    pub(crate) const LEAVING: u8 = 0x8a;

    pub(crate) const OPENED: u8 = 0x90;
    pub(crate) const FRAMES: u8 = 0x91;
    pub(crate) const OVERSIZED: u8 = 0x92;
    pub(crate) const EOF: u8 = 0x93;
    pub(crate) const INFO: u8 = 0x94;
    pub(crate) const JSON: u8 = 0x95;

    pub(crate) const LISTENING: u8 = 0xa0;

    pub(crate) const HTTP_LISTENING: u8 = 0xc0;
    pub(crate) const HTTP_DRAINED: u8 = 0xc1;
    pub(crate) const HTTP_CLOSED: u8 = 0xc2;
    pub(crate) const HTTP_INFO: u8 = 0xc3;
    pub(crate) const HTTP_REQUEST: u8 = 0xc4;
    pub(crate) const HTTP_GONE: u8 = 0xc5;
    pub(crate) const HTTP_TAKEN: u8 = 0xc6;
    pub(crate) const HTTP_ROOM: u8 = 0xc7;
    pub(crate) const HTTP_BODY: u8 = 0xc8;

    pub(crate) const HTTP_CLIENT_OPENED: u8 = 0xd0;
    pub(crate) const HTTP_ANSWER: u8 = 0xd1;

    pub(crate) const STDERR: u8 = 0xe0;
}

/// Makes what an id stands for from now on.
type Make = fn(&Arc<Program>, u64, Bytes) -> Result<(), Malformed>;

/// The operations that make something. All others are for what their id stands for.
const MAKERS: &[(u8, Make)] = &[
    (from_vm::CHILD, child::start),
    (from_vm::CONNECT, connection::connect),
    (from_vm::LISTEN, listener::listen),
    (from_vm::HTTP_LISTEN, http_server::listen),
    (from_vm::HTTP_CLIENT_OPEN, http_client::open),
];

/// Acts on a packet of the VM. What its id stands for may be gone: then it is nothing.
pub(crate) fn dispatch(program: &Arc<Program>, packet: Packet) -> Result<(), Malformed> {
    let Packet { op, id, mut body } = packet;
    match op {
        from_vm::PING => program.out.send(to_vm::PONG, id, &[]),
        from_vm::PROCESSED => {
            let cost = body.try_get_u64().map_err(|_| Malformed)?;
            program
                .out
                .processed(usize::try_from(cost).unwrap_or(usize::MAX));
        }
        from_vm::CLOSE => program.close(id),
        from_vm::LOG_LEVEL => log::set_level(body.try_get_u8().map_err(|_| Malformed)?),
        from_vm::METRICS => program::metrics(program, id),
        from_vm::LEAVING => {
            let leaving = u8::from(erlmcp_core::stdio::is_leaving());
            program.out.send(to_vm::LEAVING, id, &[&[leaving]]);
        }
        from_vm::CONNECT..0x80 => {
            if let Some((_, make)) = MAKERS.iter().find(|(maker, _)| *maker == op) {
                return make(program, id, body);
            }
            if let Some(resident) = program.find(id) {
                return resident.packet(program, op, body);
            }
        }
        _ => return Err(Malformed),
    }
    Ok(())
}
