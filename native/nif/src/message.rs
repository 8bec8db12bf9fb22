//! A message to be sent, kept without copying what is large.

use bytes::Bytes;
use erlmcp_core::connection::Message;
use rustler::{Binary, OwnedEnv, Term};

/// Below this a copy is cheaper than an environment.
const COPY_MAX: usize = 64 * 1024;

pub(crate) struct Outgoing<'a> {
    term: Term<'a>,
    binary: Binary<'a>,
}

impl<'a> Outgoing<'a> {
    /// Takes a binary as it is and flattens an iolist.
    pub(crate) fn new(term: Term<'a>) -> Result<Self, rustler::Error> {
        if term.is_binary() {
            return Ok(Self {
                term,
                binary: Binary::from_term(term)?,
            });
        }
        let binary = Binary::from_iolist(term)?;
        Ok(Self {
            term: binary.to_term(term.get_env()),
            binary,
        })
    }
}

impl Message for Outgoing<'_> {
    fn as_slice(&self) -> &[u8] {
        self.binary.as_slice()
    }

    fn into_bytes(self, start: usize) -> Bytes {
        let rest = self.binary.as_slice().get(start..).unwrap_or_default();
        if rest.len() <= COPY_MAX {
            return Bytes::copy_from_slice(rest);
        }
        let held = Bytes::from_owner(Held::new(self.term));
        held.slice(start..)
    }
}

/// A reference to an Erlang binary that outlives the call.
struct Held {
    data: *const u8,
    len: usize,
    _env: OwnedEnv,
}

// SAFETY: the binary is immutable and the environment that holds a reference to it is touched by
// nobody until it is dropped, which any thread may do.
unsafe impl Send for Held {}
unsafe impl Sync for Held {}

impl Held {
    fn new(term: Term<'_>) -> Self {
        let env = OwnedEnv::new();
        let (data, len) = env.run(|held_env| {
            let copy = term.in_env(held_env);
            Binary::from_term(copy).map_or((std::ptr::dangling(), 0), |binary| {
                (binary.as_slice().as_ptr(), binary.len())
            })
        });
        Self {
            data,
            len,
            _env: env,
        }
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `data` points to `len` bytes that the environment, never cleared while `self`
        // lives, keeps in place: terms in it are not garbage collected or moved.
        unsafe { std::slice::from_raw_parts(self.data, self.len) }
    }
}
