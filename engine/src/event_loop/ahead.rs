//! Several connections are read before the first of them is run, so that the memory of their keys is fetched together.
//!
//! ```text
//! read up to GROUP ready connections; hash the key of each: its table is on its way
//!   -> each key's bucket is on its way -> each key's entry is on its way -> run each connection
//! ```
//!
//! Why: a client that sends one request and awaits its reply leaves nothing within its connection to overlap a key's
//! three misses with (see `batch`); what the connections beside it brought does.

use std::io;

use smallvec::SmallVec;

use super::EventLoop;
use super::conn::Conn;
use crate::command::{Keys, find};
use crate::keyspace::hash_key;
use crate::resp::{Limits, whole_request};
use crate::tls::secure::Connection;
use crate::topology::slot_of;

/// Connections that are read together.
pub(super) const GROUP: usize = 16;
/// What is read of each at first, bytes: more is read when it is run.
const AHEAD_BYTES: usize = 16 * 1024;
/// Input with more than one request has company of its own, within its connection.
const REQUEST_BYTES_MAX: usize = 512;

/// What was read of one connection that has not been run yet.
pub(super) struct Ahead {
    token: usize,
    client: u64,
    pub(super) buffer: Vec<u8>,
    /// What came of the read.
    pub(super) got: io::Result<usize>,
}

/// What was read, and buffers to read into.
#[derive(Default)]
pub(super) struct ReadAhead {
    read: SmallVec<[Ahead; GROUP]>,
    spare: Vec<Vec<u8>>,
}

impl ReadAhead {
    /// What was read of this connection.
    pub(super) fn take(&mut self, conn: &Conn) -> Option<Ahead> {
        let info = &conn.session.info;
        let at = self.read.iter().position(|a| a.token == info.token && a.client == info.id)?;
        Some(self.read.remove(at))
    }

    /// Takes a buffer back.
    pub(super) fn done(&mut self, buffer: Vec<u8>) {
        // A fault in its turn may have lost it.
        if self.spare.len() < GROUP && buffer.len() == AHEAD_BYTES {
            self.spare.push(buffer);
        }
    }
}

impl EventLoop {
    /// Reads the connections that are served next, and brings their keys nearer.
    pub(super) fn read_ahead(&mut self) {
        let end = self.ready.len().min(self.next_ready + GROUP);
        if end < self.next_ready + 2 {
            return;
        }
        // What is left belongs to connections that are gone.
        while let Some(ahead) = self.ahead.read.pop() {
            self.ahead.done(ahead.buffer);
        }
        let mut hints: SmallVec<[(u16, u16, u64); GROUP]> = SmallVec::new();
        for at in self.next_ready..end {
            let ready = self.ready[at];
            let conn = self.conns.get_mut(ready.token).and_then(Option::as_deref_mut);
            let Some(conn) = conn.filter(|c| ready.is_readable && is_fresh(c)) else { continue };
            let buffer = self.ahead.spare.pop();
            let mut buffer = buffer.unwrap_or_else(|| vec![0; AHEAD_BYTES]);
            let got = loop {
                match conn.stream.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    got => break got,
                }
            };
            if let Ok(n) = got
                && n < REQUEST_BYTES_MAX
                && let Some((hash, slot)) = only_key(&buffer[..n])
            {
                self.shared.keyspace.prefetch_table(conn.session.db, slot);
                hints.push((conn.session.db, slot, hash));
            }
            let (token, client) = (ready.token, conn.session.info.id);
            self.ahead.read.push(Ahead { token, client, buffer, got });
        }
        let keyspace = &self.shared.keyspace;
        hints.iter().for_each(|(db, slot, hash)| keyspace.prefetch_bucket(*db, *slot, *hash));
        hints.iter().for_each(|(db, slot, hash)| keyspace.prefetch_entry(*db, *slot, *hash));
    }

    /// What was read goes to its connections, to be found there before anything that comes behind it.
    pub(super) fn give_ahead(&mut self) {
        while let Some(ahead) = self.ahead.read.pop() {
            let conn = self.conns.get_mut(ahead.token).and_then(Option::as_deref_mut);
            if let Some(conn) = conn.filter(|c| c.session.info.id == ahead.client) {
                match ahead.got {
                    Ok(0) => conn.read_closed = true,
                    Ok(n) => conn.input.extend_from_slice(&ahead.buffer[..n]),
                    // The next read tells it again.
                    Err(_) => {}
                }
            }
            self.ahead.done(ahead.buffer);
        }
    }
}

/// Nothing of it waits to be run, and nothing holds it up. (Where much came the last time, what comes now is better read when
/// it is run: it is still in the nearest cache then, and in one read where it does not fit into a buffer of these.)
fn is_fresh(conn: &Conn) -> bool {
    conn.came < REQUEST_BYTES_MAX
        && matches!(conn.stream, Connection::Plain(_))
        && conn.memcached.is_none()
        && conn.input.is_empty()
        && !conn.closing
        && !conn.stalled
        && !conn.is_full()
        && !conn.session.is_blocked()
        && conn.session.authenticated
}

/// Hash and slot of the first key of a request that is all there is.
fn only_key(input: &[u8]) -> Option<(u64, u16)> {
    let limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };
    let mut args: SmallVec<[&[u8]; 8]> = SmallVec::new();
    let end = whole_request(input, 0, limits, &mut args)?;
    let (name, key) = (args.first()?, args.get(1)?);
    let is_keyed = |keys| matches!(keys, Keys::Range { first: 1, .. });
    (end == input.len() && is_keyed(find(name)?.keys)).then(|| (hash_key(key), slot_of(key)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_is_alone_and_whole_shows_its_key() {
        let get = b"*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n";
        assert_eq!(only_key(get), Some((hash_key(b"key"), slot_of(b"key"))));
        let two = [get.as_slice(), get].concat();
        for other in [&two[..], &get[..get.len() - 1], b"*1\r\n$4\r\nPING\r\n", b"GET key\r\n", b""]
        {
            assert_eq!(only_key(other), None, "{}", other.escape_ascii());
        }
    }
}
