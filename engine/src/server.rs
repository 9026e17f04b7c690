//! What all threads of one server share.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};

use mio::Waker;

use crate::acl::Acl;
use crate::cluster::ClusterState;
use crate::command;
use crate::config::Config;
use crate::disk::Disk;
use crate::forward::Forwarding;
use crate::hold::Hold;
use crate::journal::Journal;
use crate::keyspace::{Db, DbKeys, Env, Keyspace, Noted};
use crate::latency::{Histogram, Latency};
use crate::maintenance::Maintenance;
use crate::managed::Engine;
use crate::memcached::Memcached;
use crate::monitor::Monitors;
use crate::moves::Moves;
use crate::persist::Persist;
use crate::pubsub::PubSub;
use crate::quorum::Quorum;
use crate::replication::Replication;
use crate::script::Scripts;
use crate::session::ClientInfo;
use crate::snapshot::{Preimages, Snapshots};
use crate::tally::{Apart, Tally};
use crate::tls::Tls;
use crate::tls::secure::Connection;
use crate::tracking::Tracking;
use crate::waiters::Waiters;

/// Everything shared. Parts lock for themselves, briefly, and never while holding another part's lock.
pub struct Shared {
    pub config: Config,
    pub acl: Acl,
    pub tls: Tls,
    /// Where persistence writes: the system's disk, or one that a test makes fail.
    pub disk: Arc<dyn Disk>,
    pub keyspace: Keyspace,
    pub journal: Journal,
    pub waiters: Waiters,
    pub forwarding: Forwarding,
    pub pubsub: PubSub,
    pub monitors: Monitors,
    pub maintenance: Maintenance,
    pub tracking: Tracking,
    pub clients: Clients,
    pub stats: Stats,
    pub slowlog: Slowlog,
    /// Requests and replies of many bytes.
    pub large_requests: Slowlog,
    pub large_replies: Slowlog,
    pub latency: Latency,
    pub scripts: Scripts,
    pub loops: Vec<LoopHandle>,
    /// The running snapshot that wants old values, if any.
    pub preimages: RwLock<Option<Arc<Preimages>>>,
    /// `preimages` is set: looked at before the lock is taken.
    pub snapshotting: AtomicBool,
    pub snapshots: Snapshots,
    pub persist: Persist,
    pub replication: Replication,
    pub state: State,
    pub hold: Hold,
    pub moves: Moves,
    pub quorum: Quorum,
    pub memcached: Memcached,
    /// The council's side of a managed member, once it runs.
    pub managed: OnceLock<Arc<Engine>>,
    pub cluster: ClusterState,
    /// 40 hex digits, new at each start.
    pub run_id: String,
    pub started_ms: i64,
}

/// What a member may do at the moment.
pub struct State {
    /// The data set is being loaded.
    pub loading: AtomicBool,
    /// What was on disk at the start is loaded: before that nothing is taken from a primary.
    pub started: AtomicBool,
    /// This member follows a primary: writes are refused, expired keys hidden.
    pub is_replica: AtomicBool,
    /// Why writes are refused although this is a primary (a lost disk, a lost lease), and who says so.
    pub write_blocks: RwLock<BTreeMap<&'static str, String>>,
    pub write_blocked: AtomicBool,
    /// A primary that the council manages: monotonic milliseconds until which it may acknowledge writes.
    /// `u64::MAX` where there is no council.
    pub lease_until_ms: AtomicU64,
    /// How often this process has begun a history of its own as primary. What it executed before the last time may be in
    /// no data set any more, and is not acknowledged under a later lease.
    pub reign: AtomicU64,
    pub shutdown: AtomicBool,
    /// appendfsync always: replies to writes wait until `durable_offset` has come up to them.
    pub acks_wait_for_disk: AtomicBool,
    /// Journal offset up to which the log is synced to disk.
    pub durable_offset: Apart<AtomicU64>,
    /// Any other appendfsync: replies to writes wait until `written_offset` has come up to them.
    pub acks_wait_for_log: AtomicBool,
    /// Journal offset up to which the log is written: the end of the process costs nothing before it.
    pub written_offset: Apart<AtomicU64>,
    /// A loop could not write the log itself, and waits until its thread has done so.
    pub log_is_awaited: AtomicBool,
    /// The log cannot be written: clients that wait for it are closed, not answered.
    pub disk_failed: AtomicBool,
    /// Changes since the last save.
    pub dirty: Tally,
    pub clients_paused_until_ms: AtomicI64,
    pub pause_writes_only: AtomicBool,
    /// DEBUG SET-ACTIVE-EXPIRE 0.
    pub active_expire_off: AtomicBool,
}

impl Default for State {
    fn default() -> State {
        State {
            loading: AtomicBool::new(false),
            started: AtomicBool::new(false),
            is_replica: AtomicBool::new(false),
            write_blocks: RwLock::default(),
            write_blocked: AtomicBool::new(false),
            lease_until_ms: AtomicU64::new(u64::MAX),
            reign: AtomicU64::new(1),
            shutdown: AtomicBool::new(false),
            acks_wait_for_disk: AtomicBool::new(false),
            durable_offset: Apart::default(),
            acks_wait_for_log: AtomicBool::new(false),
            written_offset: Apart::default(),
            log_is_awaited: AtomicBool::new(false),
            disk_failed: AtomicBool::new(false),
            dirty: Tally::default(),
            clients_paused_until_ms: AtomicI64::new(0),
            pause_writes_only: AtomicBool::new(false),
            active_expire_off: AtomicBool::new(false),
        }
    }
}

impl State {
    /// Replies to writes have to wait for the log or the disk.
    #[inline]
    pub fn acks_wait(&self) -> bool {
        self.acks_wait_for_log.load(Ordering::Acquire)
            || self.acks_wait_for_disk.load(Ordering::Acquire)
    }

    /// What ends before `offset` in the journal may be acknowledged, as far as the log has a say.
    #[inline]
    pub fn may_acknowledge(&self, offset: u64) -> bool {
        if self.acks_wait_for_disk.load(Ordering::Acquire) {
            return offset <= self.durable_offset.load(Ordering::Acquire);
        }
        !self.acks_wait_for_log.load(Ordering::Acquire)
            || offset <= self.written_offset.load(Ordering::SeqCst)
    }

    /// Refuses writes with an error line (or allows them again, with an empty one), for the council.
    pub fn block_writes(&self, reason: &str) {
        self.block_writes_for("council", reason);
    }

    /// As `block_writes`; each of those who may refuse takes back only its own word.
    pub fn block_writes_for(&self, who: &'static str, reason: &str) {
        let mut blocks = self.write_blocks.write().unwrap_or_else(PoisonError::into_inner);
        if reason.is_empty() {
            blocks.remove(who);
        } else {
            blocks.insert(who, reason.to_string());
        }
        self.write_blocked.store(!blocks.is_empty(), Ordering::Release);
    }

    pub fn write_block(&self) -> String {
        let blocks = self.write_blocks.read().unwrap_or_else(PoisonError::into_inner);
        blocks.values().next().cloned().unwrap_or_default()
    }

    /// The error line for a write that came from a client, when it must not be made.
    #[inline]
    pub fn refuses_write(&self) -> Option<String> {
        if self.is_replica.load(Ordering::Acquire) {
            return Some("READONLY You can't write against a read only replica.".into());
        }
        self.write_blocked.load(Ordering::Acquire).then(|| self.write_block())
    }
}

/// How one loop is reached from other threads; apart from the next one, since each writes its own at every turn.
#[repr(align(128))]
pub struct LoopHandle {
    pub mail: Mutex<Vec<Mail>>,
    pub waker: Waker,
    /// Number of the hold that the loop's present turn knows of.
    pub held: AtomicU64,
    /// As of which change of the held slots.
    pub held_slots: AtomicU64,
}

/// What the clients of a listener speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Resp,
    /// RESP, and what another member serves is forwarded to it: see `crate::forward`.
    Plain,
    Memcached,
}

/// What the reply of a blocked command rests on: an acknowledgement like any other, made by somebody else's thread.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// The reign under whose lease it was executed; 0: under none.
    pub reign: u64,
    /// Of the journal, behind what it did.
    pub end: u64,
}

/// What a loop is told by others.
pub enum Mail {
    /// A connection that another thread accepted.
    Accepted(Connection, Speaks),
    /// Bytes for a client: a push, or the reply of a command that was blocked, which goes out by what it rests on.
    Deliver { token: usize, client: u64, bytes: Arc<[u8]>, unblocks: Option<Basis> },
    /// The reply that a client waits for, of something that was not done under this member's lease.
    Answer { token: usize, client: u64, bytes: Arc<[u8]> },
    /// Close a client.
    Kill { token: usize, client: u64 },
    /// End a client's WAIT, with what has come about so far or with an error.
    CutWait { token: usize, client: u64, with_error: bool },
    /// A client does not hear a shard channel here any more: its slot is served elsewhere.
    SlotLeft { token: usize, client: u64, channel: Vec<u8> },
    /// Look again: what some client waits for (durability, replicas, a pause) may have come.
    Look,
}

impl LoopHandle {
    pub fn send(&self, mail: Mail) {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner).push(mail);
        // A loop that is gone (shutdown) needs no waking.
        let _ = self.waker.wake();
    }
}

/// The clients that are connected now.
#[derive(Default)]
pub struct Clients {
    by_id: Mutex<BTreeMap<u64, Arc<ClientInfo>>>,
    next_id: AtomicU64,
    count: AtomicUsize,
}

impl Clients {
    pub fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn add(&self, info: &Arc<ClientInfo>) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).insert(info.id, info.clone());
    }

    pub fn remove(&self, id: u64) {
        if self.by_id.lock().unwrap_or_else(PoisonError::into_inner).remove(&id).is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn len(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn get(&self, id: u64) -> Option<Arc<ClientInfo>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// In the order of their IDs.
    pub fn all(&self) -> Vec<Arc<ClientInfo>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

/// Counters of one loop: it alone writes them, INFO sums them up.
#[repr(align(128))]
pub struct LoopStats {
    pub commands: AtomicU64,
    pub hits: AtomicU64,
    pub misses: AtomicU64,
    pub in_bytes: AtomicU64,
    pub out_bytes: AtomicU64,
    pub calls: Box<[CommandStats]>,
}

/// Counters of one command on one loop.
#[derive(Default)]
pub struct CommandStats {
    pub calls: AtomicU64,
    pub usec: AtomicU64,
    pub failed: AtomicU64,
    pub rejected: AtomicU64,
    pub histogram: Histogram,
}

/// Adds to a counter that only this thread writes.
#[inline]
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
}

/// Counters of the whole server.
pub struct Stats {
    pub loops: Vec<LoopStats>,
    pub connections: AtomicU64,
    pub rejected_connections: AtomicU64,
    pub expired_keys: AtomicU64,
    /// Fields of hashes.
    pub expired_fields: AtomicU64,
    pub evicted_keys: AtomicU64,
    pub evicted_clients: AtomicU64,
    pub peak_memory: AtomicU64,
    /// Bytes of input and output buffers, per loop, measured at each tick.
    pub loop_buffers: Vec<AtomicU64>,
    pub errors: Mutex<BTreeMap<String, u64>>,
    pub unexpected_errors: AtomicU64,
    /// Requests that were refused for a reason of the server's own. see: `command::exec::FAULTS`
    pub faults: AtomicU64,
    /// Requests of the plain port that were put to another member.
    pub forwarded: AtomicU64,
    pub sync_full: AtomicU64,
    pub sync_partial_ok: AtomicU64,
    pub sync_partial_err: AtomicU64,
    /// Samples for instantaneous_*: (monotonic ms, commands, in, out), one a tenth of a second.
    pub samples: Mutex<VecDeque<(u64, u64, u64, u64)>>,
}

impl Stats {
    pub fn new(loops: usize) -> Stats {
        let commands = command::all().count();
        let one = || LoopStats {
            commands: AtomicU64::new(0),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            out_bytes: AtomicU64::new(0),
            calls: (0..commands).map(|_| CommandStats::default()).collect(),
        };
        Stats {
            // Two more than there are loops: the log while loading and the link to the primary; slots that
            // are taken in from another shard.
            loops: (0..loops + 2).map(|_| one()).collect(),
            connections: AtomicU64::new(0),
            rejected_connections: AtomicU64::new(0),
            expired_keys: AtomicU64::new(0),
            expired_fields: AtomicU64::new(0),
            evicted_keys: AtomicU64::new(0),
            evicted_clients: AtomicU64::new(0),
            peak_memory: AtomicU64::new(0),
            loop_buffers: (0..loops).map(|_| AtomicU64::new(0)).collect(),
            errors: Mutex::new(BTreeMap::new()),
            unexpected_errors: AtomicU64::new(0),
            faults: AtomicU64::new(0),
            forwarded: AtomicU64::new(0),
            sync_full: AtomicU64::new(0),
            sync_partial_ok: AtomicU64::new(0),
            sync_partial_err: AtomicU64::new(0),
            samples: Mutex::new(VecDeque::new()),
        }
    }

    /// Requests that the loops have served: not those of the log, of the primary, or of a shard that gives slots.
    pub fn requests(&self, loops: usize) -> u64 {
        self.loops.iter().take(loops).map(|l| l.commands.load(Ordering::Relaxed)).sum()
    }

    /// Sum of one counter over the loops.
    pub fn sum(&self, pick: impl Fn(&LoopStats) -> &AtomicU64) -> u64 {
        self.loops.iter().map(|l| pick(l).load(Ordering::Relaxed)).sum()
    }
}

/// One command that was slow, or large.
#[derive(Clone, Debug)]
pub struct Slow {
    pub id: u64,
    pub unix_s: i64,
    /// Microseconds, or bytes.
    pub value: u64,
    pub args: Vec<Vec<u8>>,
    pub addr: String,
    pub name: String,
}

/// The slow log, newest first.
#[derive(Default)]
pub struct Slowlog {
    pub entries: Mutex<VecDeque<Slow>>,
    pub next_id: AtomicU64,
}

impl Shared {
    /// A council decides on this member's role: an operator's, or that of the members that met.
    pub fn has_council(&self) -> bool {
        self.config.is_yes("larder-managed") || self.is_unmanaged()
    }

    /// The members that met are a cluster by themselves: CLUSTER changes what elsewhere the operator decides on.
    pub fn is_unmanaged(&self) -> bool {
        self.cluster.is_unmanaged()
    }

    /// Bytes of data and buffers that count against maxmemory.
    pub fn used_memory(&self) -> u64 {
        let buffers = &self.stats.loop_buffers;
        let buffers: u64 = buffers.iter().map(|b| b.load(Ordering::Relaxed)).sum();
        self.keyspace.used_memory() + buffers + self.preimages().map_or(0, |p| p.pending())
    }

    /// The running snapshot that wants old values.
    #[inline]
    pub fn preimages(&self) -> Option<Arc<Preimages>> {
        if !self.snapshotting.load(Ordering::Acquire) {
            return None;
        }
        self.preimages.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What a command has to note for others. Whoever wants to be told says so under the locks of the keys: looked at once
    /// ours are held, none is missed.
    #[inline]
    pub fn heed(&self, env: &mut Env) {
        env.tracks_changes = self.waiters.any() || self.tracking.any();
        env.events = self.config.events();
    }

    /// Tells of the keys that the client `by` (0: nobody) has changed, while their locks are held; gives them.
    #[inline]
    pub fn tell(&self, db: &mut Db<'_>, by: u64) -> DbKeys {
        let heard = db.env.events;
        db.noted_so_far().map_or_else(Vec::new, |noted| self.tell_noted(noted, by, heard))
    }

    fn tell_noted(&self, noted: &mut Noted, by: u64, heard: u32) -> DbKeys {
        let changed = std::mem::take(&mut noted.changed);
        for (index, key) in &changed {
            self.waiters.changed(*index, key);
        }
        if self.tracking.any() {
            self.invalidate(&changed, by);
            self.invalidate(&std::mem::take(&mut noted.lapsed), 0);
        }
        if !noted.events.is_empty() {
            self.publish_events(&std::mem::take(&mut noted.events), heard);
        }
        changed
    }

    /// This member answers for its keys under a lease.
    pub fn is_leased(&self) -> bool {
        let state = &self.state;
        state.lease_until_ms.load(Ordering::Acquire) != u64::MAX
            && !state.is_replica.load(Ordering::Acquire)
    }

    /// What a reply rests on that is made now. For what was executed: while its slots are still locked.
    pub fn basis(&self) -> Basis {
        let reign = if self.is_leased() { self.state.reign.load(Ordering::Acquire) } else { 0 };
        Basis { reign, end: self.journal.end() }
    }

    /// Sends bytes to a client on whichever loop it lives.
    pub fn deliver(&self, client: &ClientInfo, bytes: Arc<[u8]>, unblocks: Option<Basis>) {
        if let Some(to) = self.loops.get(client.thread) {
            to.send(Mail::Deliver { token: client.token, client: client.id, bytes, unblocks });
        }
    }

    /// Answers a client that waits for something else than keys, on whichever loop it lives.
    pub fn answer(&self, client: &ClientInfo, bytes: Arc<[u8]>) {
        if let Some(to) = self.loops.get(client.thread) {
            to.send(Mail::Answer { token: client.token, client: client.id, bytes });
        }
    }

    /// Closes a client on whichever loop it lives.
    pub fn kill(&self, client: &ClientInfo) {
        client.kill.store(true, Ordering::Release);
        if let Some(to) = self.loops.get(client.thread) {
            to.send(Mail::Kill { token: client.token, client: client.id });
        }
    }

    /// Ends the wait of a client in WAIT; `false`: it is in none (any more).
    pub fn cut_wait(&self, client: &ClientInfo, with_error: bool) -> bool {
        let is_waiting = client.in_wait.swap(false, Ordering::AcqRel);
        if let Some(to) = self.loops.get(client.thread).filter(|_| is_waiting) {
            let (token, client) = (client.token, client.id);
            to.send(Mail::CutWait { token, client, with_error });
        }
        is_waiting
    }

    /// Publishes to the subscribers of this member.
    pub fn publish(&self, channel: &[u8], message: &[u8]) -> usize {
        self.pubsub.publish(channel, message, |client, bytes| self.deliver(client, bytes, None))
    }

    /// Publishes a shard channel's message to its listeners on this member.
    pub fn spublish(&self, channel: &[u8], message: &[u8]) -> usize {
        self.pubsub.spublish(channel, message, |client, bytes| self.deliver(client, bytes, None))
    }

    /// Shard channels of this slot are heard here.
    pub fn hears_shard(&self, slot: u16) -> bool {
        !self.cluster.is_enabled() || self.cluster.owns(slot)
    }

    /// Ends subscriptions of shard channels whose slots this member's shard does not own (any more).
    pub fn leave_foreign_shards(&self) {
        for (channel, client) in self.pubsub.foreign_shards(|slot| self.hears_shard(slot)) {
            if let Some(to) = self.loops.get(client.thread) {
                to.send(Mail::SlotLeft { token: client.token, client: client.id, channel });
            }
        }
    }
}
