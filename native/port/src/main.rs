//! The port program of `erlmcp_native`: `erlmcp_core` in an operating-system process of its own,
//! which a node talks to through two pipes. `docs/port_protocol.md` says what goes through them.
//!
//! One thread reads packets and acts on them, one writes what has been queued, and tokio's threads
//! do the rest. Nothing here writes to standard output.

mod child;
mod connection;
mod exec;
mod frames;
mod guard;
mod hello;
mod http_client;
mod http_exchange;
mod http_options;
mod http_packet;
mod http_server;
#[cfg(test)]
mod http_vectors;
mod json;
mod listener;
mod log;
mod op;
mod options;
mod orphans;
mod out;
mod packet;
mod pipes;
mod program;
mod reason;
mod sync;
mod term;
mod terms;
#[cfg(test)]
mod vectors;

use std::process::ExitCode;

use crate::hello::Refused;
use crate::packet::{Packets, Stop};
use crate::program::Program;

/// Exit statuses, for whoever looks at a program that has ended.
mod status {
    /// It was not started by a node.
    pub(crate) const NOT_A_PORT: u8 = 2;
    /// The node speaks a version of the protocol that this program does not know.
    pub(crate) const VERSION: u8 = 3;
    /// The node sent what is no packet.
    pub(crate) const GARBAGE: u8 = 4;
    /// Threads, memory: what the program needs it did not get.
    pub(crate) const NO_RESOURCES: u8 = 5;
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    match args.next() {
        Some(mode) if mode == "exec" => return exec::run(args.collect()),
        Some(mode) if mode == guard::MODE => return guard::run(),
        _ => {}
    }
    let Some((input, output)) = pipes::take() else {
        eprintln!("erlmcp_native_port is started by the Erlang application erlmcp_native");
        return ExitCode::from(status::NOT_A_PORT);
    };
    let mut packets = Packets::new(input);
    let hello = match hello::exchange(&mut packets, &output) {
        Ok(hello) => hello,
        Err(Refused::Gone) => return ExitCode::SUCCESS,
        Err(Refused::Version) => return ExitCode::from(status::VERSION),
        Err(Refused::Garbage) => return ExitCode::from(status::GARBAGE),
    };
    let Ok(program) = Program::start(&hello, output) else {
        return ExitCode::from(status::NO_RESOURCES);
    };
    let end = serve(&program.program, &mut packets);
    program.end();
    match end {
        Stop::End => ExitCode::SUCCESS,
        Stop::Garbage => ExitCode::from(status::GARBAGE),
    }
}

/// Acts on packets until there are no more.
fn serve(program: &std::sync::Arc<Program>, packets: &mut Packets) -> Stop {
    loop {
        match packets.next() {
            Ok(packet) => {
                if op::dispatch(program, packet).is_err() {
                    program.out.send(op::to_vm::GARBAGE, 0, &[]);
                    return Stop::Garbage;
                }
            }
            Err(stop) => return stop,
        }
    }
}
