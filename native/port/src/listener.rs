//! Listeners: as many connections as the VM has asked for.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use bytes::{Buf, Bytes};
use erlmcp_core::listener::Accepted;
use erlmcp_core::{Error, Event, Listener, Sink};

use crate::connection::{Conn, Settings};
use crate::op::{from_vm, to_vm};
use crate::program::{Program, Resident};
use crate::term::{Malformed, Term, Writer};
use crate::{options, reason, terms};

/// A listener, which is made while its packets may already come.
struct Listening {
    id: u64,
    program: Arc<Program>,
    settings: Settings,
    core: OnceLock<Listener>,
    state: Mutex<State>,
}

struct State {
    /// How many more connections the VM takes.
    credit: usize,
    closed: bool,
}

struct Wake(Weak<Listening>);

impl Sink for Wake {
    fn emit(&self, _: Event) {
        if let Some(listening) = self.0.upgrade() {
            listening.accept();
        }
    }
}

/// Begins to listen: `{Endpoint, Options}`. The VM takes one connection unasked.
pub(crate) fn listen(program: &Arc<Program>, id: u64, body: Bytes) -> Result<(), Malformed> {
    let term = Term::read(&body)?;
    let [endpoint, given] = term.tuple()? else {
        return Err(Malformed);
    };
    let endpoint = options::endpoint(endpoint)?;
    let backlog = given.get("backlog")?.integer()?;
    let tcp = options::tcp(given)?;
    let tls = options::tls(given)?;
    let settings = Settings::read(given)?;
    let limits = settings.limits.clone();
    let listening = Arc::new(Listening {
        id,
        program: program.clone(),
        settings,
        core: OnceLock::new(),
        state: Mutex::new(State {
            credit: 1,
            closed: false,
        }),
    });
    program.insert(id, listening.clone());
    // Looks up a name and reads certificates.
    program.runtime.clone().spawn_blocking(move || {
        let sink = Box::new(Wake(Arc::downgrade(&listening)));
        let runtime = &listening.program.runtime;
        listening.made(Listener::listen(
            runtime,
            sink,
            &endpoint,
            backlog,
            tcp,
            tls.as_ref(),
            limits,
        ));
    });
    Ok(())
}

impl Listening {
    fn made(&self, result: Result<Listener, Error>) {
        let out = &self.program.out;
        match result {
            Err(error) => out.send(to_vm::DOWN, self.id, &[&reason::term(error)]),
            Ok(core) => {
                let mut name = Writer::new();
                terms::address(&mut name, core.local());
                out.send(to_vm::LISTENING, self.id, &[&name.finish()]);
                let _ = self.core.set(core);
                if self.state().closed {
                    self.close();
                } else {
                    self.accept();
                }
            }
        }
    }

    /// Hands on what has come, as far as the VM takes it.
    fn accept(&self) {
        let Some(core) = self.core.get() else {
            return;
        };
        loop {
            // Held, so that of two threads one does not take what the other was to.
            let mut state = self.state();
            if state.closed || state.credit == 0 {
                return;
            }
            let (incoming, status) = core.accept(state.credit);
            state.credit -= incoming.len();
            drop(state);
            for stream in incoming {
                Conn::born(&self.program, self.id, self.settings.clone(), |sink| {
                    core.adopt(stream, sink)
                });
            }
            match status {
                Accepted::More => {}
                Accepted::Armed => return,
                Accepted::Down(error) => {
                    self.state().closed = true;
                    let reason = reason::term(error);
                    self.program.out.send(to_vm::DOWN, self.id, &[&reason]);
                    return;
                }
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resident for Listening {
    fn packet(&self, _: &Arc<Program>, op: u8, mut body: Bytes) -> Result<(), Malformed> {
        match op {
            from_vm::ACCEPT => {
                let count = body.try_get_u32().map_err(|_| Malformed)?;
                self.state().credit += count as usize;
                self.accept();
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    fn close(&self) {
        self.state().closed = true;
        if let Some(core) = self.core.get() {
            core.close();
        }
    }
}
