//! Replication: PSYNC from and to other members, Redis and Valkey.
//!
//! ```text
//! primary   journal --(one thread per replica)--> socket      acknowledgements <-- socket
//! replica   socket --> link thread: run requests, append the same bytes to our own journal --> further replicas
//! ```
//!
//! A replication ID names one history of writes and an offset a place in it. Who is promoted begins a new
//! history and remembers the old one with the offset up to which both are the same (PSYNC2).

use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

pub mod failover;
pub mod fresh;
pub mod link;
mod payload;
mod peer;

pub use link::{LinkInfo, begin_anew, follow, promote, rest};
pub(crate) use payload::Wire;
pub use peer::{Peer, serve};

use crate::server::Shared;
use crate::topology::Epoch;
use failover::Failover;
use fresh::Fresh;
use link::Link;

/// What a peer told of itself by REPLCONF.
#[derive(Clone, Debug, Default)]
pub struct PeerState {
    pub listening_port: u16,
    pub ip_address: String,
    /// The member's ID, where it is one of our kind.
    pub member: String,
    /// Its process; empty where the member does not say.
    pub boot: String,
    pub capa_eof: bool,
    /// What only Redis from 8.0 on is capable of.
    pub capa_redis_8: bool,
    pub capa_psync2: bool,
    pub version: String,
    /// Wants a snapshot and no stream behind it.
    pub rdb_only: bool,
    /// What PSYNC asked for: replication ID, and offset of the next byte counted from 1.
    pub wants: Option<(String, i64)>,
    /// The old SYNC: no line ahead of the snapshot.
    pub is_sync: bool,
}

/// Histories that this member's journal belongs to.
#[derive(Clone, Debug)]
struct Ids {
    replid: String,
    /// The history before the last promotion, and the offset up to which it is ours too.
    former: Option<(String, u64)>,
}

/// Decides whether a full sync from a primary with this ID and offset may replace the data set.
pub type Guard = Box<dyn Fn(&str, u64) -> bool + Send + Sync>;

/// What replication keeps for one server.
pub struct Replication {
    ids: RwLock<Ids>,
    /// Held while a batch of the primary's stream is run and appended.
    applying: Mutex<()>,
    peers: Mutex<Vec<Arc<Peer>>>,
    link: Mutex<Option<Arc<Link>>>,
    guard: RwLock<Option<Guard>>,
    /// Database that the stream has selected where the journal ends.
    stream_db: AtomicU64,
    next_ping_ms: AtomicU64,
    /// This member has acknowledged writes of its own history.
    was_primary: AtomicBool,
    /// Bytes of the journal and writes in them that were dropped for another primary's history.
    pub dropped_bytes: AtomicU64,
    pub dropped_writes: AtomicU64,
    pub failover: Failover,
    /// How old a replica's data may be.
    pub fresh: Fresh,
}

impl Default for Replication {
    fn default() -> Replication {
        Replication {
            ids: RwLock::new(Ids { replid: random_id(), former: None }),
            applying: Mutex::default(),
            peers: Mutex::default(),
            link: Mutex::default(),
            guard: RwLock::default(),
            stream_db: AtomicU64::new(0),
            next_ping_ms: AtomicU64::new(0),
            was_primary: AtomicBool::new(false),
            dropped_bytes: AtomicU64::new(0),
            dropped_writes: AtomicU64::new(0),
            failover: Failover::default(),
            fresh: Fresh::default(),
        }
    }
}

/// 40 random hex digits.
pub fn random_id() -> String {
    let mut bytes = [0u8; 20];
    let read = std::fs::File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes));
    if read.is_err() {
        // No such device: the clock and the process are what tells two members apart.
        let seed = crate::clock::monotonic_us() ^ u64::from(std::process::id()) << 40;
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte =
                (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(i as u32 * 7) >> 24) as u8;
        }
    }
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The text is a replication ID.
pub fn is_replid(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Replication {
    fn ids(&self) -> Ids {
        self.ids.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_ids(&self, ids: Ids) {
        *self.ids.write().unwrap_or_else(PoisonError::into_inner) = ids;
    }

    pub fn replid(&self) -> String {
        self.ids().replid
    }

    /// The journal stands still at a whole request (and transaction) of the primary's stream.
    pub fn applying(&self) -> MutexGuard<'_, ()> {
        lock(&self.applying)
    }

    /// A data set was loaded that belongs to this place in a history.
    pub fn loaded(&self, replid: Option<&str>, _offset: u64, db: u16) {
        if let Some(replid) = replid {
            self.set_ids(Ids { replid: replid.to_string(), former: None });
        }
        self.stream_db.store(u64::from(db), Ordering::Relaxed);
    }

    /// Database that the primary's stream has selected where the journal ends.
    pub fn stream_db(&self) -> u16 {
        self.stream_db.load(Ordering::Relaxed) as u16
    }

    /// A new history begins where the old one stands. Everything must be locked.
    fn branch(&self, offset: u64) {
        let was = self.ids();
        self.set_ids(Ids { replid: random_id(), former: Some((was.replid, offset)) });
        self.was_primary.store(true, Ordering::Release);
    }

    /// Up to which offset a history is ours too.
    pub fn common(&self, replid: &str, end: u64) -> Option<u64> {
        let ids = self.ids();
        if ids.replid == replid {
            return Some(end);
        }
        ids.former.filter(|(id, _)| id == replid).map(|(_, offset)| offset)
    }

    /// Says who decides whether a full sync may replace our data set.
    pub fn set_guard(&self, guard: Guard) {
        *self.guard.write().unwrap_or_else(PoisonError::into_inner) = Some(guard);
    }

    pub fn peers(&self) -> Vec<Arc<Peer>> {
        lock(&self.peers).clone()
    }

    /// Cuts all replicas off: what they follow is not what we have any more.
    fn cut_peers(&self) {
        lock(&self.peers).iter().for_each(|peer| peer.cut());
    }

    /// Replicas that may answer for slots of before that topology: they are vouched for, and do not know it.
    pub fn unaware(&self, topology: Epoch) -> Vec<Arc<Peer>> {
        let is_so = |peer: &&Arc<Peer>| peer.is_unaware(topology);
        lock(&self.peers).iter().filter(is_so).cloned().collect()
    }

    /// They get nothing more on their links: on its next one each has to be told anew how current it is.
    pub fn cut_unaware(&self, topology: Epoch) {
        for peer in self.unaware(topology) {
            let member = peer.member();
            tracing::info!(member, "cut off: it does not know which slots its shard has");
            peer.cut();
        }
    }

    /// The primary that is followed.
    pub fn followed(&self) -> Option<(String, u16)> {
        self.link().map(|link| link.address())
    }

    fn link(&self) -> Option<Arc<Link>> {
        lock(&self.link).clone()
    }
}

impl Shared {
    /// A replica without its primary, which shall not serve what may be out of date.
    #[inline]
    pub fn is_stale(&self) -> bool {
        self.config.refuses_stale()
            && self.state.is_replica.load(Ordering::Acquire)
            && lock(&self.replication.link).as_ref().is_none_or(|link| !link.is_up())
    }

    /// What is done here goes into the journal, if anybody reads it; a replica's is its primary's. Asked under the locks of the
    /// keys: roles change under all locks.
    #[inline]
    pub fn writes_journal(&self) -> bool {
        self.journal.is_active() && !self.state.is_replica.load(Ordering::Acquire)
    }

    /// How many replicas have acknowledged the journal up to an offset.
    pub fn replicas_at(&self, offset: u64) -> u32 {
        self.count_replicas(|peer| peer.ack() >= offset)
    }

    /// How many replicas have it on disk.
    pub fn replicas_synced_at(&self, offset: u64) -> u32 {
        self.count_replicas(|peer| peer.durable_ack() >= offset)
    }

    fn count_replicas(&self, has: impl Fn(&Peer) -> bool) -> u32 {
        let peers = lock(&self.replication.peers);
        peers.iter().filter(|peer| peer.is_online() && has(peer)).count() as u32
    }

    /// Asks the replicas for their offsets now, for WAIT.
    pub fn ask_for_acks(&self) {
        if !lock(&self.replication.peers).is_empty()
            && !self.state.is_replica.load(Ordering::Acquire)
        {
            self.journal.append_plain(&[b"REPLCONF".as_slice(), b"GETACK", b"*"]);
        }
    }

    /// A full sync from a primary with this history may replace our data set.
    pub fn may_full_sync(&self, replid: &str, offset: u64) -> bool {
        let guard = self.replication.guard.read().unwrap_or_else(PoisonError::into_inner);
        guard.as_ref().is_none_or(|may| may(replid, offset))
    }
}

/// After loading: follows the primary of the settings, or begins a history of our own.
pub fn start(shared: &Arc<Shared>) {
    let target = shared.config.get("replicaof").or_else(|| shared.config.get("slaveof"));
    let target = target.as_deref().and_then(|t| t.split_once(' '));
    match target.and_then(|(host, port)| Some((host, port.trim().parse().ok()?))) {
        Some((host, port)) => follow(shared, host, port),
        None if !shared.has_council() => {
            let _locked = shared.keyspace.lock_all();
            begin_history(shared);
        }
        None => {}
    }
}

/// This member writes a history of its own from here on. Everything must be locked.
fn begin_history(shared: &Shared) {
    let end = shared.journal.end();
    shared.replication.branch(end);
    shared.journal.forget_db();
    if let Some(running) = shared.persist.aof() {
        let line = crate::persist::position::line(&shared.replication.replid(), end);
        running.remark(end, line);
    }
}

/// Called ten times a second: keeps replicas' links alive.
pub fn tick(shared: &Shared, now_ms: u64) {
    let replication = &shared.replication;
    if shared.state.is_replica.load(Ordering::Acquire) || lock(&replication.peers).is_empty() {
        return;
    }
    let period = shared.config.int("repl-ping-replica-period", 10).max(1) as u64 * 1000;
    let next = replication.next_ping_ms.load(Ordering::Relaxed);
    if now_ms >= next {
        replication.next_ping_ms.store(now_ms + period, Ordering::Relaxed);
        if next != 0 {
            shared.journal.append_plain(&[b"PING"]);
        }
    }
}

/// The server ends: replicas get what was written, then all links are cut.
pub fn stop(shared: &Shared) {
    let replication = &shared.replication;
    let until = crate::clock::monotonic_ms() + 2000;
    while crate::clock::monotonic_ms() < until {
        let end = shared.journal.end();
        let behind = |p: &Arc<Peer>| p.is_online() && p.sent() < end;
        if !lock(&replication.peers).iter().any(behind) {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    replication.cut_peers();
    if let Some(link) = lock(&replication.link).take() {
        link.stop();
    }
}

/// Figures for INFO replication and ROLE.
#[derive(Clone, Debug, Default)]
pub struct Info {
    pub is_replica: bool,
    pub replid: String,
    /// Forty zeros when there is none.
    pub replid2: String,
    pub offset: u64,
    /// -1 when there is no second history.
    pub second_offset: i64,
    pub peers: Vec<PeerInfo>,
    pub link: Option<LinkInfo>,
    pub backlog_active: bool,
    pub backlog_size: u64,
    pub backlog_first: u64,
    pub backlog_len: u64,
    pub dropped_bytes: u64,
    pub dropped_writes: u64,
}

/// One replica, for INFO, ROLE and CLIENT LIST.
#[derive(Clone, Debug, Default)]
pub struct PeerInfo {
    pub ip: String,
    pub port: u16,
    /// `wait_bgsave`, `send_bulk` or `online`.
    pub state: &'static str,
    pub offset: u64,
    /// Seconds since its last acknowledgement.
    pub lag_s: i64,
}

pub fn info(shared: &Shared) -> Info {
    let replication = &shared.replication;
    let ids = replication.ids();
    let (backlog_len, backlog_size) = shared.journal.backlog();
    let now_ms = crate::clock::monotonic_ms();
    let (replid2, second_offset) = match ids.former {
        Some((id, offset)) => (id, offset as i64 + 1),
        None => ("0".repeat(40), -1),
    };
    Info {
        is_replica: shared.state.is_replica.load(Ordering::Acquire),
        replid: ids.replid,
        replid2,
        offset: shared.journal.end(),
        second_offset,
        peers: replication.peers().iter().map(|p| p.info(now_ms)).collect(),
        link: replication.link().map(|l| l.info(shared)),
        backlog_active: shared.journal.is_active(),
        backlog_size,
        backlog_first: shared.journal.start() + 1,
        backlog_len,
        dropped_bytes: replication.dropped_bytes.load(Ordering::Relaxed),
        dropped_writes: replication.dropped_writes.load(Ordering::Relaxed),
    }
}

/// A place that others read: `AtomicU8` states of peers and links share these helpers.
fn load(state: &AtomicU8) -> u8 {
    state.load(Ordering::Acquire)
}

/// Longest silence of the other side, milliseconds.
fn timeout_ms(shared: &Shared) -> u64 {
    shared.config.int("repl-timeout", 60).max(1) as u64 * 1000
}

fn seconds_since(then_ms: &AtomicI64, now_ms: i64) -> i64 {
    ((now_ms - then_ms.load(Ordering::Relaxed)) / 1000).max(0)
}
