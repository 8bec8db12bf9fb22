//! HTTP clients. All packets of a client carry its id; a request has a number that the VM gives it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::{Buf, Bytes};
use erlmcp_core::Error;
use erlmcp_core::http::client::{Client, Failure, Head, News, Notify, Reason, Taken};

use crate::op::{from_vm, to_vm};
use crate::program::{Program, Resident};
use crate::sync::lock;
use crate::term::{Malformed, Term};
use crate::{http_options, http_packet, reason};

/// Parts of a body that are taken at once.
const PARTS: usize = 64;

/// Bytes of a body in one packet, beyond its first part.
const PIECE: usize = 64 * 1024;

/// What is in a packet about an answer.
mod flag {
    pub(super) const HEAD: u8 = 1;
    pub(super) const DONE: u8 = 2;
    pub(super) const FAILED: u8 = 4;
}

/// A client and its requests.
struct Link {
    program: Arc<Program>,
    id: u64,
    client: Mutex<Slot>,
    requests: Mutex<Requests>,
}

enum Slot {
    Opening {
        /// Once it is there.
        client: Option<Arc<Client>>,
        /// What has come meanwhile.
        waiting: Vec<(u8, Bytes)>,
    },
    Open(Arc<Client>),
    Closed,
}

/// Requests under way, by the numbers of both sides.
#[derive(Default)]
struct Requests {
    numbers: HashMap<u64, u64>,
    open: HashMap<u64, Open>,
}

struct Open {
    number: u64,
    /// Bytes of the body that the VM takes.
    window: usize,
}

/// Handed to the client, which is in it.
struct Owner(Arc<Link>);

struct Opened(Arc<Link>);

/// `{Origin, Options}`. Files are read, which takes a thread.
pub(crate) fn open(program: &Arc<Program>, id: u64, body: Bytes) -> Result<(), Malformed> {
    let term = Term::read(&body)?;
    let [origin, options] = term.tuple()? else {
        return Err(Malformed);
    };
    let options = http_options::client(origin, options)?;
    let link = Arc::new(Link {
        program: program.clone(),
        id,
        client: Mutex::new(Slot::Opening {
            client: None,
            waiting: Vec::new(),
        }),
        requests: Mutex::default(),
    });
    program.insert(id, Arc::new(Opened(link.clone())));
    program.runtime.spawn_blocking(move || {
        let owner = Box::new(Owner(link.clone()));
        match Client::open(&link.program.runtime, owner, options) {
            Ok(client) => link.opened(&Arc::new(client)),
            Err(error) => {
                link.program.close(link.id);
                link.program
                    .out
                    .send(to_vm::DOWN, link.id, &[&reason::term(error)]);
            }
        }
    });
    Ok(())
}

impl Link {
    fn opened(&self, opened: &Arc<Client>) {
        self.program
            .out
            .send(to_vm::HTTP_CLIENT_OPENED, self.id, &[]);
        while let Some(waiting) = self.next_waiting(opened) {
            for (op, body) in waiting {
                if self.act(opened, op, body).is_err() {
                    tracing::error!(op, "a malformed packet for a client");
                }
            }
        }
    }

    /// What has come while the client was opened; nothing once it is open to all.
    fn next_waiting(&self, opened: &Arc<Client>) -> Option<Vec<(u8, Bytes)>> {
        let mut slot = lock(&self.client);
        match &mut *slot {
            Slot::Opening { client, waiting } if !waiting.is_empty() => {
                *client = Some(opened.clone());
                Some(std::mem::take(waiting))
            }
            Slot::Opening { .. } => {
                *slot = Slot::Open(opened.clone());
                None
            }
            Slot::Open(_) => None,
            Slot::Closed => {
                drop(slot);
                opened.close();
                None
            }
        }
    }

    fn client(&self) -> Option<Arc<Client>> {
        match &*lock(&self.client) {
            Slot::Open(client) => Some(client.clone()),
            Slot::Opening { client, .. } => client.clone(),
            Slot::Closed => None,
        }
    }

    fn act(&self, client: &Client, op: u8, mut body: Bytes) -> Result<(), Malformed> {
        let number = body.try_get_u64().map_err(|_| Malformed)?;
        match op {
            from_vm::HTTP_CLIENT_REQUEST => self.request(client, number, body),
            from_vm::HTTP_CLIENT_GRANT => {
                let bytes = body.try_get_u32().map_err(|_| Malformed)?;
                self.grant(client, number, bytes as usize);
                Ok(())
            }
            from_vm::HTTP_CLIENT_CANCEL => {
                self.cancel(client, number);
                Ok(())
            }
            from_vm::HTTP_CLIENT_INFO => {
                let counts = client.counts();
                let counts = [counts.connections, counts.active, counts.queued];
                let counts = counts.map(|count| (count as u64).to_be_bytes());
                let number = number.to_be_bytes();
                let out = &self.program.out;
                out.send(to_vm::HTTP_INFO, self.id, &[&number, &counts.concat()]);
                Ok(())
            }
            _ => Err(Malformed),
        }
    }

    fn request(&self, client: &Client, number: u64, mut body: Bytes) -> Result<(), Malformed> {
        let window = body.try_get_u32().map_err(|_| Malformed)? as usize;
        // What the VM lets pass and HTTP does not take is the VM's mistake.
        let result = match http_packet::client_request(&mut body)? {
            Some(request) => client.request(request),
            None => Err(Error::Posix(libc::EINVAL)),
        };
        match result {
            Ok(id) => {
                let mut requests = lock(&self.requests);
                requests.numbers.insert(number, id);
                requests.open.insert(id, Open { number, window });
                // It may have been told of before it was known here.
                self.pass_on(client, id, &mut requests);
            }
            Err(error) => {
                let failure = Failure {
                    reason: Reason::Error(error),
                    safe: true,
                };
                let mut packet = Answer::default();
                packet.fail(failure);
                self.send(number, packet);
            }
        }
        Ok(())
    }

    fn grant(&self, client: &Client, number: u64, bytes: usize) {
        let mut requests = lock(&self.requests);
        let Some(id) = requests.numbers.get(&number).copied() else {
            return;
        };
        if let Some(open) = requests.open.get_mut(&id) {
            open.window += bytes;
            self.pass_on(client, id, &mut requests);
        }
    }

    fn cancel(&self, client: &Client, number: u64) {
        let mut requests = lock(&self.requests);
        if let Some(id) = requests.numbers.remove(&number) {
            requests.open.remove(&id);
            drop(requests);
            client.cancel(id);
        }
    }

    /// Sends what there is of an answer and the window has room for.
    fn pass_on(&self, client: &Client, id: u64, requests: &mut Requests) {
        let Some(open) = requests.open.get_mut(&id) else {
            return;
        };
        let number = open.number;
        let mut packet = Answer::default();
        for news in client.news(id) {
            match news {
                News::Head(head) => packet.begin(&head),
                News::Readable => {}
                News::Failed(failure) => packet.fail(failure),
            }
        }
        while open.window > 0 && !packet.is_last() {
            let Some((parts, taken)) = client.take(id, PARTS, open.window.min(PIECE)) else {
                break;
            };
            let bytes = parts.iter().map(Bytes::len).sum();
            open.window = open.window.saturating_sub(bytes);
            packet.parts = parts;
            match taken {
                Taken::More => self.send(number, std::mem::take(&mut packet)),
                Taken::Armed => break,
                Taken::Done => packet.done(),
                Taken::Failed(failure) => packet.fail(failure),
            }
        }
        if packet.is_last() {
            requests.forget(id, number);
        }
        if !packet.is_empty() {
            self.send(number, packet);
        }
    }

    fn send(&self, number: u64, packet: Answer) {
        let out = &self.program.out;
        let head = packet.head(number);
        out.send_bytes(to_vm::HTTP_ANSWER, self.id, &head, &packet.parts);
    }
}

/// A packet about an answer, in the making.
#[derive(Default)]
pub(crate) struct Answer {
    flags: u8,
    terms: Vec<u8>,
    pub(crate) parts: Vec<Bytes>,
}

impl Answer {
    pub(crate) fn begin(&mut self, head: &Head) {
        self.flags |= flag::HEAD;
        self.terms = http_packet::answer(head);
    }

    pub(crate) fn done(&mut self) {
        self.flags |= flag::DONE;
    }

    pub(crate) fn fail(&mut self, failure: Failure) {
        self.flags |= flag::FAILED;
        self.terms.extend(http_packet::failure(failure));
    }

    /// What goes before the parts: `<<Number:64, Flags:8, Head, Failure>>`, each of the last two
    /// where there is one.
    pub(crate) fn head(&self, number: u64) -> Vec<u8> {
        [&number.to_be_bytes()[..], &[self.flags], &self.terms].concat()
    }

    /// Whether nothing of the answer follows.
    fn is_last(&self) -> bool {
        self.flags & (flag::DONE | flag::FAILED) != 0
    }

    fn is_empty(&self) -> bool {
        self.flags == 0 && self.parts.is_empty()
    }
}

impl Requests {
    fn forget(&mut self, id: u64, number: u64) {
        self.open.remove(&id);
        self.numbers.remove(&number);
    }
}

impl Notify for Owner {
    fn ready(&self, request: u64) {
        let Owner(link) = self;
        if let Some(client) = link.client() {
            link.pass_on(&client, request, &mut lock(&link.requests));
        }
    }
}

impl Resident for Opened {
    fn packet(&self, _: &Arc<Program>, op: u8, body: Bytes) -> Result<(), Malformed> {
        let Opened(link) = self;
        let client = match &mut *lock(&link.client) {
            Slot::Opening { waiting, .. } => {
                waiting.push((op, body));
                return Ok(());
            }
            Slot::Closed => return Ok(()),
            Slot::Open(client) => client.clone(),
        };
        link.act(&client, op, body)
    }

    fn close(&self) {
        let slot = std::mem::replace(&mut *lock(&self.0.client), Slot::Closed);
        if let Slot::Open(client) = slot {
            client.close();
        }
        *lock(&self.0.requests) = Requests::default();
    }
}
