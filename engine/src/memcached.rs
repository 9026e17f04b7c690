//! The Memcached protocols (text, meta and binary) on the keys of database 0, which RESP clients share.
//!
//! ```text
//! bytes -> run -> text | meta | binary: pure decoding -> ops: what is asked, one set of words for all three
//!       -> client -> Executor::keyed: the checks, lock, journal and quorum of every other request
//!       -> items: what becomes of the item, and what the journal is told -> reply bytes
//! ```
//!
//! A value that a Memcached client stores is a plain string. What RESP has no place for, the client's 32 bits
//! of flags and which version of the value it is (CAS), lies in the entry as an `Item`, and only where there is
//! something to keep: flags 0 take no room. Flags go wherever the value goes (log, replicas, snapshots, moved
//! slots). A CAS is drawn when somebody first asks for it and is gone with the value, so that it differs after
//! every write, whoever wrote; it is this member's own, and after a failover every old one is refused.
//!
//! The formats are those of memcached's doc/protocol.txt and of its binary protocol.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::acl::Acl;
use crate::command::{self, Command};

pub(crate) mod answer;
pub mod args;
pub mod auth;
mod base64;
pub mod binary;
mod client;
mod dump;
pub mod forwarded;
mod items;
pub mod meta;
pub mod ops;
mod plain;
mod run;
pub mod stats;
pub mod text;
mod user;

pub use auth::Users;
pub use client::{Client, flush_if_due};
pub use run::{Protocol, Step};
use stats::{COUNTS, Count, Counters};
pub use user::become_user;

/// Version that clients are told: the one whose commands these are.
pub const VERSION: &str = "1.6.45";
/// Longest key, bytes.
pub const KEY_BYTES_MAX: usize = 250;
/// What an item takes besides key and value, as memcached counts it against its largest item, bytes.
pub const ITEM_OVERHEAD: usize = 57;

/// What all connections share.
pub struct Memcached {
    cas: AtomicU64,
    /// Low bits that tell members which started in the same millisecond apart.
    salt: u64,
    counters: Vec<Counters>,
    /// What the counters showed at the last `stats reset`.
    zero: Mutex<[u64; COUNTS]>,
    /// A flush that was put off: unix milliseconds; 0: none.
    flush_at_ms: AtomicI64,
    pub users: Users,
}

impl Memcached {
    /// Clients need not log in.
    pub fn is_open(&self, acl: &Acl) -> bool {
        self.users.is_empty() && acl.everything_is_open()
    }

    pub fn new(loops: usize, users: Users) -> Memcached {
        Memcached {
            cas: AtomicU64::new(0),
            salt: crate::random::seed() & 0xf_ffff,
            counters: (0..loops).map(|_| Counters::default()).collect(),
            zero: Mutex::new([0; COUNTS]),
            flush_at_ms: AtomicI64::new(0),
            users,
        }
    }

    /// A number that no value has had: above all that this process gave, and above what another member gave
    /// before now, as far as their clocks agree; where they do not, 20 random bits keep them apart.
    pub fn next_cas(&self, now_ms: i64) -> u64 {
        let floor = ((now_ms.max(0) as u64) << 20).wrapping_add(self.salt);
        let step = |last: u64| Some(last.max(floor) + 1);
        let before = self.cas.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
        before.unwrap_or_else(|last| last).max(floor) + 1
    }

    /// Counts one of what `stats` shows; `thread` is the calling loop's own number.
    #[inline]
    pub fn count(&self, thread: usize, what: Count) {
        if let Some(counters) = self.counters.get(thread) {
            counters.bump(what);
        }
    }

    /// When everything is to be flushed; 0: not at all.
    pub fn flush_at_ms(&self) -> i64 {
        self.flush_at_ms.load(Ordering::Relaxed)
    }

    /// Puts a flush off until then; 0 takes it back.
    pub fn set_flush(&self, at_ms: i64) {
        self.flush_at_ms.store(at_ms, Ordering::Relaxed);
    }
}

/// The rows of the command table that Memcached's operations are counted and checked as.
pub struct Rows {
    pub get: &'static Command,
    pub getex: &'static Command,
    pub set: &'static Command,
    pub append: &'static Command,
    pub incrby: &'static Command,
    pub decrby: &'static Command,
    pub pexpireat: &'static Command,
    pub del: &'static Command,
    pub flushdb: &'static Command,
    pub shutdown: &'static Command,
}

pub fn rows() -> &'static Rows {
    static ROWS: OnceLock<Rows> = OnceLock::new();
    let row = |name: &str| {
        command::all()
            .find(|c| c.name == name)
            .unwrap_or_else(|| unreachable!("{name} is in the table"))
    };
    ROWS.get_or_init(|| Rows {
        get: row("get"),
        getex: row("getex"),
        set: row("set"),
        append: row("append"),
        incrby: row("incrby"),
        decrby: row("decrby"),
        pexpireat: row("pexpireat"),
        del: row("del"),
        flushdb: row("flushdb"),
        shutdown: row("shutdown"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cas_is_never_given_twice_and_grows() {
        let shared = Memcached::new(1, Users::default());
        let mut last = 0;
        for now in [5, 5, 5, 3, 1_700_000_000_000, 1_700_000_000_000, 0] {
            let cas = shared.next_cas(now);
            assert!(cas > last && cas < 1 << 63);
            last = cas;
        }
    }
}
