//! What is in the program: one thing for each id.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::Bytes;
use erlmcp_core::child::Children;
use erlmcp_core::metrics::{Value, native_tasks, read};
use tokio::runtime::{Builder, Handle, Runtime};

use crate::child::Parent;
use crate::hello::Hello;
use crate::log;
use crate::op::to_vm;
use crate::orphans;
use crate::out::Out;
use crate::term::{Malformed, Writer};

/// How long connections that are closed because the VM is gone may send what is queued.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// What an id stands for: a connection, a listener, a child.
pub(crate) trait Resident: Send + Sync {
    /// Acts on a packet with this id. Runs on the thread that reads: it must not block.
    fn packet(&self, program: &Arc<Program>, op: u8, body: Bytes) -> Result<(), Malformed>;

    /// The VM has let go of it. It is in the table no more.
    fn close(&self);
}

/// What all parts of the program have in common.
pub(crate) struct Program {
    pub(crate) runtime: Handle,
    pub(crate) out: Out,
    residents: Mutex<HashMap<u64, Arc<dyn Resident>>>,
    next_id: AtomicU64,
    children: OnceLock<Children>,
}

/// The program and its threads.
pub(crate) struct Running {
    pub(crate) program: Arc<Program>,
    runtime: Runtime,
    writer: JoinHandle<()>,
}

impl Program {
    pub(crate) fn start(hello: &Hello, output: File) -> io::Result<Running> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(hello.workers.max(1))
            .thread_name("erlmcp_native")
            .enable_all()
            .build()?;
        let out = Out::new();
        let writer = out.clone();
        let writer = thread::Builder::new()
            .name("to_vm".into())
            .spawn(move || writer.run(output))?;
        log::start(out.clone(), hello.level);
        let program = Arc::new(Program {
            runtime: runtime.handle().clone(),
            out,
            residents: Mutex::default(),
            next_id: AtomicU64::new(u64::from(hello.generation & 0xff_ffff) << 40 | 1),
            children: OnceLock::new(),
        });
        Ok(Running {
            program,
            runtime,
            writer,
        })
    }

    /// What starts children, and knows those that live.
    pub(crate) fn children(&self) -> io::Result<&Children> {
        if let Some(children) = self.children.get() {
            return Ok(children);
        }
        // Called by the thread that reads, and by no other.
        let children = Children::new(self.runtime.clone(), Arc::new(Parent::new()))?;
        Ok(self.children.get_or_init(|| children))
    }

    /// An id for something that the program makes. These are odd, those of the VM even.
    pub(crate) fn new_id(&self) -> u64 {
        self.next_id.fetch_add(2, Ordering::Relaxed)
    }

    /// Has packets with this id reach a resident.
    pub(crate) fn insert(&self, id: u64, resident: Arc<dyn Resident>) {
        let former = self.lock().insert(id, resident);
        drop(former);
    }

    pub(crate) fn find(&self, id: u64) -> Option<Arc<dyn Resident>> {
        self.lock().get(&id).cloned()
    }

    pub(crate) fn close(&self, id: u64) {
        let resident = self.lock().remove(&id);
        if let Some(resident) = resident {
            resident.close();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<dyn Resident>>> {
        self.residents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    /// The VM is gone, or will be told no more: everything is closed, and what connections have
    /// queued may still leave.
    pub(crate) fn end(self) {
        let residents = std::mem::take(&mut *self.program.lock());
        for resident in residents.values() {
            resident.close();
        }
        drop(residents);
        self.program.out.close();
        if let Some(children) = self.program.children.get() {
            self.runtime.block_on(children.end());
            orphans::kill();
        }
        let until = Instant::now() + LAST_WORDS;
        let busy = || native_tasks.get() > 0 || !self.writer.is_finished();
        while busy() && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        self.runtime.shutdown_background();
    }
}

/// Sends what is counted: `[{Name, Kind, Group, Unit, Help, Value}]`, where a value is a number,
/// `[{Transport, Number}]`, or, of a histogram, `{Sum, Largest, [{Bucket, Count}]}`.
pub(crate) fn metrics(program: &Arc<Program>, id: u64) {
    let all = read(Some(&program.runtime));
    let mut out = Writer::new();
    out.list(all.len());
    for (said, value) in all {
        out.tuple(6)
            .binary(said.name.as_bytes())
            .binary(said.kind.name().as_bytes())
            .binary(said.group.as_bytes())
            .binary(said.unit.as_bytes())
            .binary(said.help.as_bytes());
        metric(&mut out, value);
    }
    out.nil();
    program.out.send(to_vm::METRICS, id, &[&out.finish()]);
}

fn metric(out: &mut Writer, value: Value) {
    match value {
        Value::One(n) => {
            out.integer(n);
        }
        Value::Each(each) => {
            out.list(each.len());
            for (name, n) in each {
                out.tuple(2).binary(name.as_bytes()).integer(n);
            }
            out.nil();
        }
        Value::Recorded {
            sum,
            largest,
            buckets,
        } => {
            out.tuple(3).integer(sum).integer(largest);
            out.list(buckets.len());
            for (bucket, count) in buckets {
                out.tuple(2).integer(bucket).integer(count);
            }
            out.nil();
        }
    }
}
