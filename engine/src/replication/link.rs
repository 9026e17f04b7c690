//! The link to our primary: handshake, full or partial sync, the stream, acknowledgements.
//!
//! The old data set is kept until a full sync has arrived whole and was read to its end once: what a
//! broken transfer or a wrong file cannot replace, it does not touch.

mod handshake;
mod receive;
mod role;
mod sync;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::{load, lock, seconds_since};
use crate::clock;
use crate::persist::load as loading;
use crate::resp::Limits;
use crate::server::Shared;
use crate::stream::Stream;
use handshake::{Acquaintance, Answer};

pub(super) use role::give_way;
pub use role::{begin_anew, follow, promote, rest};

/// How often a link looks whether the server has loaded its data, milliseconds.
const START_MS: u64 = 2;
/// Time before the next try, milliseconds: doubled up to the most.
const RETRY_MS: u64 = 10;
const RETRY_MS_MAX: u64 = 2000;
/// Longest request of the stream, bytes: what a client could have sent to the primary.
const REQUEST_BYTES_MAX: usize = 1 << 30;
const LIMITS: Limits = Limits { authenticated: true, bulk_bytes_max: REQUEST_BYTES_MAX };

const CONNECT: u8 = 0;
const CONNECTING: u8 = 1;
const SYNC: u8 = 2;
const CONNECTED: u8 = 3;

/// The wish to follow a primary, and how far it has come.
pub(super) struct Link {
    pub(super) host: String,
    pub(super) port: u16,
    state: AtomicU8,
    stopped: AtomicBool,
    stream: Mutex<Option<Stream>>,
    wake: (Mutex<()>, Condvar),
    last_io_ms: AtomicI64,
    down_since_ms: AtomicI64,
    /// The data set is being replaced: it is neither the old one nor the new one.
    replacing: AtomicBool,
    takeover: Mutex<Takeover>,
}

/// Whether the other one is asked to be primary from now on, by PSYNC with FAILOVER, and what became of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takeover {
    None,
    Asked,
    Done,
    /// It did not answer, or refused; the link has ended.
    Refused,
}

/// Figures for INFO replication and ROLE.
#[derive(Clone, Debug, Default)]
pub struct LinkInfo {
    pub host: String,
    pub port: u16,
    pub up: bool,
    pub syncing: bool,
    /// `connect`, `connecting`, `sync` or `connected`.
    pub state: &'static str,
    pub last_io_s: i64,
    /// Seconds since the link broke; -1 while it is up.
    pub down_s: i64,
    pub offset: u64,
}

impl Link {
    fn new(host: &str, port: u16, takeover: Takeover) -> Link {
        Link {
            host: host.to_string(),
            port,
            state: AtomicU8::new(CONNECT),
            stopped: AtomicBool::new(false),
            stream: Mutex::default(),
            wake: (Mutex::default(), Condvar::new()),
            last_io_ms: AtomicI64::new(0),
            down_since_ms: AtomicI64::new(clock::unix_ms()),
            replacing: AtomicBool::new(false),
            takeover: Mutex::new(takeover),
        }
    }

    /// Whether the other one was asked to take over, and what it said.
    pub(super) fn takeover(&self) -> Takeover {
        *lock(&self.takeover)
    }

    /// Host and port of the primary.
    pub(super) fn address(&self) -> (String, u16) {
        (self.host.clone(), self.port)
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Some(stream) = &*lock(&self.stream) {
            // It may be gone already.
            let _ = stream.shutdown();
        }
        self.wake.1.notify_all();
    }

    pub(super) fn is_up(&self) -> bool {
        load(&self.state) == CONNECTED
    }

    pub(super) fn info(&self, shared: &Shared) -> LinkInfo {
        let state = load(&self.state);
        let now = clock::unix_ms();
        let up = state == CONNECTED;
        LinkInfo {
            host: self.host.clone(),
            port: self.port,
            up,
            syncing: state == SYNC,
            state: ["connect", "connecting", "sync", "connected"][state as usize],
            last_io_s: if up { seconds_since(&self.last_io_ms, now) } else { -1 },
            down_s: if up { -1 } else { seconds_since(&self.down_since_ms, now) },
            offset: shared.journal.end(),
        }
    }
}

fn start(shared: &Arc<Shared>, link: &Arc<Link>) {
    shared.redirect_blocked(Some(
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
    ));
    tracing::info!(host = link.host, port = link.port, "following a primary");
    let (with, thread) = (shared.clone(), link.clone());
    let spawned =
        std::thread::Builder::new().name("link".into()).spawn(move || run(&with, &thread));
    if let Err(e) = spawned {
        tracing::error!(error = %e, "cannot start the thread of the link to the primary");
        link.stop();
    }
}

fn run(shared: &Arc<Shared>, link: &Link) {
    let mut pause = RETRY_MS;
    let ends = || link.is_stopped() || shared.state.shutdown.load(Ordering::Acquire);
    // A member knows its primary before its own data is loaded. What is on disk must not come on top of what
    // the primary sends. see: `a_replica_that_restarts_loads_its_data_before_it_follows`
    while !shared.state.started.load(Ordering::Acquire) && !ends() {
        std::thread::sleep(Duration::from_millis(START_MS));
    }
    while !ends() {
        link.state.store(CONNECTING, Ordering::Release);
        let result = (Attempt { shared, link }).run();
        let was_up = link.state.swap(CONNECT, Ordering::AcqRel) == CONNECTED;
        *lock(&link.stream) = None;
        if was_up {
            link.down_since_ms.store(clock::unix_ms(), Ordering::Relaxed);
            pause = RETRY_MS;
        }
        if link.is_stopped() {
            break;
        }
        if link.takeover() == Takeover::Asked {
            // Whoever asked decides what comes next: a replica that is none may not be followed.
            if let Err(error) = result {
                tracing::warn!(host = link.host, port = link.port, %error, "the replica does not take over");
            }
            *lock(&link.takeover) = Takeover::Refused;
            break;
        }
        if let Err(e) = result {
            tracing::info!(host = link.host, port = link.port, error = %e, "link to the primary is down");
        }
        let guard = lock(&link.wake.0);
        let wait = link.wake.1.wait_timeout(guard, Duration::from_millis(pause));
        drop(wait.unwrap_or_else(PoisonError::into_inner));
        // Clients that are held wait for the new primary's mark: it is a moment away from its lease, and feeds nobody before.
        pause = if shared.hold.waits() { RETRY_MS } else { (pause * 2).min(RETRY_MS_MAX) };
    }
}

/// One connection to the primary.
struct Attempt<'s> {
    shared: &'s Arc<Shared>,
    link: &'s Link,
}

impl Attempt<'_> {
    fn run(&self) -> io::Result<()> {
        let mut wire = self.connect()?;
        let Acquaintance { vouches, diverged } = self.introduce(&mut wire)?;
        self.await_reign(&mut wire)?;
        let session = match self.psync(&mut wire)? {
            Answer::Continue(replid) => {
                self.resume(replid)?;
                let mut session = loading::session(&self.address());
                session.select(self.shared.replication.stream_db.load(Ordering::Relaxed) as u16);
                session
            }
            Answer::Full(replid, offset) => self.full(&mut wire, &replid, offset, diverged)?,
        };
        self.link.state.store(CONNECTED, Ordering::Release);
        self.link.last_io_ms.store(clock::unix_ms(), Ordering::Relaxed);
        self.shared.replication.was_primary.store(false, Ordering::Release);
        tracing::info!(host = self.link.host, port = self.link.port, "in sync with the primary");
        self.stream(&mut wire, session, vouches)
    }

    fn address(&self) -> String {
        format!("{}:{}", self.link.host, self.link.port)
    }

    fn check_wanted(&self) -> io::Result<()> {
        if self.link.is_stopped() {
            return Err(io::Error::other("no longer wanted"));
        }
        Ok(())
    }
}
