//! HTTP listeners. A listener has two ids: that of its owner, and that of its acceptor, under which
//! everything goes that has to do with requests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, Bytes};
use erlmcp_core::Error;
use erlmcp_core::http::{Event, Owner, Server, StatusCode};

use crate::http_exchange::Served;
use crate::op::{from_vm, to_vm};
use crate::program::{Program, Resident};
use crate::sync::lock;
use crate::term::{Malformed, Term, Writer};
use crate::{http_options, http_packet, options, reason, terms};

/// Requests that are claimed at a time.
const BATCH: usize = 64;

/// The VM hears of what has left a stream's queue when it is this part of what may wait.
const TOLD_PARTS: u64 = 8;

/// A listener and its requests.
pub(crate) struct Link {
    pub(crate) program: Arc<Program>,
    /// The owner's id.
    id: u64,
    pub(crate) acceptor: u64,
    /// Bytes after which the VM is told what has left the queue of a stream.
    pub(crate) tell_after: u64,
    server: Mutex<Slot>,
    /// Nothing once the acceptor has ended.
    served: Mutex<Option<HashMap<u64, Arc<Served>>>>,
}

enum Slot {
    Opening,
    Open(Arc<Server>),
    Closed,
}

/// The listener under the id of its owner.
struct Listener(Arc<Link>);

/// The listener under the id of its acceptor.
struct Acceptor(Arc<Link>);

struct Told(Arc<Link>);

/// `{Acceptor, Endpoint, Options}`. Names are resolved and files read, which takes a thread.
pub(crate) fn listen(program: &Arc<Program>, id: u64, body: Bytes) -> Result<(), Malformed> {
    let term = Term::read(&body)?;
    let [acceptor, endpoint, opts] = term.tuple()? else {
        return Err(Malformed);
    };
    let acceptor = acceptor.integer()?;
    let endpoint = options::endpoint(endpoint)?;
    let tls = options::tls(opts)?;
    let opts = http_options::server(opts)?;
    let link = Arc::new(Link {
        program: program.clone(),
        id,
        acceptor,
        tell_after: (opts.max_stream as u64 / TOLD_PARTS).max(1),
        server: Mutex::new(Slot::Opening),
        served: Mutex::new(Some(HashMap::new())),
    });
    program.insert(id, Arc::new(Listener(link.clone())));
    program.insert(acceptor, Arc::new(Acceptor(link.clone())));
    program.runtime.spawn_blocking(move || {
        let runtime = &link.program.runtime;
        let told = Box::new(Told(link.clone()));
        match Server::listen(runtime, told, &endpoint, tls.as_ref(), opts) {
            Ok(server) => link.open(Arc::new(server)),
            Err(error) => link.failed(error),
        }
    });
    Ok(())
}

impl Link {
    fn open(self: &Arc<Self>, server: Arc<Server>) {
        let mut slot = lock(&self.server);
        if let Slot::Closed = *slot {
            return server.close();
        }
        let mut sockname = Writer::new();
        terms::address(&mut sockname, server.local());
        *slot = Slot::Open(server);
        drop(slot);
        let out = &self.program.out;
        out.send(to_vm::HTTP_LISTENING, self.id, &[&sockname.finish()]);
        // Of those that came before it was known, nobody has told.
        self.offer_all();
    }

    fn failed(&self, error: Error) {
        self.program.close(self.id);
        self.program.close(self.acceptor);
        self.program
            .out
            .send(to_vm::DOWN, self.id, &[&reason::term(error)]);
    }

    fn server(&self) -> Option<Arc<Server>> {
        match &*lock(&self.server) {
            Slot::Open(server) => Some(server.clone()),
            Slot::Opening | Slot::Closed => None,
        }
    }

    /// Passes on the requests that have come.
    fn offer_all(self: &Arc<Self>) {
        let Some(server) = self.server() else {
            return;
        };
        loop {
            let count = server.claim(BATCH);
            if count == 0 {
                return;
            }
            for exchange in (0..count).map_while(|_| server.take()) {
                Served::offer(exchange, self);
            }
        }
    }

    /// Has packets about a request reach it. Whether there is somebody to serve it.
    pub(crate) fn enter(&self, id: u64, served: &Arc<Served>) -> bool {
        match &mut *lock(&self.served) {
            Some(all) => {
                all.insert(id, served.clone());
                true
            }
            None => false,
        }
    }

    fn find(&self, id: u64) -> Option<Arc<Served>> {
        lock(&self.served).as_ref()?.get(&id).cloned()
    }

    fn leave(&self, id: u64) -> Option<Arc<Served>> {
        lock(&self.served).as_mut()?.remove(&id)
    }

    /// Processes that have ended: `<<Id:64, Status:16>>` of each, where the status is 0 unless it
    /// was set.
    fn done(&self, mut body: Bytes) -> Result<(), Malformed> {
        while !body.is_empty() {
            let id = body.try_get_u64().map_err(|_| Malformed)?;
            let status = body.try_get_u16().map_err(|_| Malformed)?;
            if let Some(served) = self.leave(id) {
                served.done(StatusCode::from_u16(status).ok());
            }
        }
        Ok(())
    }
}

impl Owner for Told {
    fn tell(&self, event: Event) {
        let Told(link) = self;
        let out = &link.program.out;
        match event {
            Event::Ready => link.offer_all(),
            Event::Drained => out.send(to_vm::HTTP_DRAINED, link.id, &[]),
            // Nothing where the VM has let go of it, or is gone.
            Event::Down if link.program.find(link.id).is_none() => {}
            Event::Down => out.send(to_vm::DOWN, link.id, &[&reason::term(Error::Panic)]),
            Event::Closed => out.send(to_vm::HTTP_CLOSED, link.acceptor, &[]),
        }
    }
}

impl Resident for Listener {
    fn packet(&self, program: &Arc<Program>, op: u8, mut body: Bytes) -> Result<(), Malformed> {
        let Some(server) = self.0.server() else {
            return Ok(());
        };
        match op {
            from_vm::HTTP_DRAIN => {
                let ms = body.try_get_u64().map_err(|_| Malformed)?;
                server.drain(Duration::from_millis(ms));
            }
            from_vm::HTTP_INFO => {
                let info = server.info();
                let counts = [info.connections, info.requests, info.streams];
                let counts = counts.map(|count| (count as u64).to_be_bytes());
                program
                    .out
                    .send(to_vm::HTTP_INFO, self.0.id, &[&body, &counts.concat()]);
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn close(&self) {
        let slot = std::mem::replace(&mut *lock(&self.0.server), Slot::Closed);
        if let Slot::Open(server) = slot {
            server.close();
        }
    }
}

impl Resident for Acceptor {
    fn packet(&self, _: &Arc<Program>, op: u8, mut body: Bytes) -> Result<(), Malformed> {
        if op == from_vm::HTTP_DONE {
            return self.0.done(body);
        }
        let id = body.try_get_u64().map_err(|_| Malformed)?;
        let Some(served) = self.0.find(id) else {
            return Ok(());
        };
        match op {
            from_vm::HTTP_REPLY => {
                let head = http_packet::head(&mut body)?;
                served.reply(head, http_packet::own(body));
            }
            from_vm::HTTP_STREAM => served.stream(http_packet::head(&mut body)?),
            from_vm::HTTP_SEND => served.send(http_packet::own(body)),
            from_vm::HTTP_FINISH => served.finish(),
            from_vm::HTTP_WANT_ROOM => served.want_room(),
            from_vm::HTTP_WANT_BODY => {
                let count = body.try_get_u8().map_err(|_| Malformed)?;
                served.want_body(count.into());
            }
            _ => return Err(Malformed),
        }
        Ok(())
    }

    /// The acceptor has ended. If it was not told to, nobody starts processes any more.
    fn close(&self) {
        if let Some(server) = self.0.server() {
            server.fail();
        }
        let served = lock(&self.0.served).take();
        for served in served.into_iter().flatten() {
            served.1.done(None);
        }
    }
}
