//! What the server remembers of one client between its commands.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::Command;
use crate::forward::Plain;
use crate::tracking::{Mode, Remembers};
use crate::waiters::Waiter;

/// What others may see of a client (CLIENT LIST, INFO); shared with its loop.
pub struct ClientInfo {
    pub id: u64,
    pub addr: String,
    pub laddr: String,
    /// Unix milliseconds.
    pub created_ms: i64,
    /// Which loop owns the connection, and under which token.
    pub thread: usize,
    pub token: usize,
    pub names: Mutex<Names>,
    pub db: AtomicU32,
    pub last_ms: AtomicI64,
    pub resp3: AtomicBool,
    pub subscriptions: AtomicU32,
    pub patterns: AtomicU32,
    pub shard_channels: AtomicU32,
    pub in_multi: AtomicBool,
    pub blocked: AtomicBool,
    /// Blocked in WAIT or WAITAOF; taken by whoever ends the wait.
    pub in_wait: AtomicBool,
    pub is_replica: AtomicBool,
    pub is_primary: AtomicBool,
    pub commands: AtomicU64,
    pub in_bytes: AtomicU64,
    pub out_bytes: AtomicU64,
    /// Bytes waiting to be written.
    pub pending_out: AtomicU64,
    /// Place of the last command in the table, plus one; 0: none yet.
    pub last_command: AtomicU32,
    pub no_evict: AtomicBool,
    /// As CLIENT CAPA and IMPORT-SOURCE have it.
    pub redirects: AtomicBool,
    pub import_source: AtomicBool,
    pub memcached: AtomicBool,
    /// It came by TLS.
    pub tls: AtomicBool,
    /// The client is shown every command (MONITOR).
    pub monitors: AtomicBool,
    /// How the client hears of changes of what it has read, if it does.
    pub tracking: Mutex<Option<Mode>>,
    /// The client is to be closed after its replies are out.
    pub kill: AtomicBool,
}

#[derive(Clone, Default)]
pub struct Names {
    pub name: String,
    pub lib_name: String,
    pub lib_version: String,
    pub user: String,
}

impl ClientInfo {
    pub fn new(
        id: u64,
        addr: String,
        laddr: String,
        now_ms: i64,
        thread: usize,
        token: usize,
    ) -> Self {
        ClientInfo {
            id,
            addr,
            laddr,
            created_ms: now_ms,
            thread,
            token,
            names: Mutex::new(Names { user: "default".into(), ..Names::default() }),
            db: AtomicU32::new(0),
            last_ms: AtomicI64::new(now_ms),
            resp3: AtomicBool::new(false),
            subscriptions: AtomicU32::new(0),
            patterns: AtomicU32::new(0),
            shard_channels: AtomicU32::new(0),
            in_multi: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            in_wait: AtomicBool::new(false),
            is_replica: AtomicBool::new(false),
            is_primary: AtomicBool::new(false),
            commands: AtomicU64::new(0),
            in_bytes: AtomicU64::new(0),
            out_bytes: AtomicU64::new(0),
            pending_out: AtomicU64::new(0),
            last_command: AtomicU32::new(0),
            no_evict: AtomicBool::new(false),
            redirects: AtomicBool::new(false),
            import_source: AtomicBool::new(false),
            memcached: AtomicBool::new(false),
            tls: AtomicBool::new(false),
            monitors: AtomicBool::new(false),
            tracking: Mutex::default(),
            kill: AtomicBool::new(false),
        }
    }

    /// It speaks one of the Memcached protocols.
    pub fn is_memcached(&self) -> bool {
        self.memcached.load(Ordering::Relaxed)
    }

    /// It came by TLS, and is told of addresses where TLS is spoken.
    pub fn is_tls(&self) -> bool {
        self.tls.load(Ordering::Relaxed)
    }

    /// Channels, patterns and shard channels that the client listens to.
    pub fn listens_to(&self) -> u32 {
        [&self.subscriptions, &self.patterns, &self.shard_channels]
            .into_iter()
            .map(|n| n.load(Ordering::Relaxed))
            .sum()
    }

    pub fn tracking(&self) -> MutexGuard<'_, Option<Mode>> {
        self.tracking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn names(&self) -> Names {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set_names(&self, change: impl FnOnce(&mut Names)) {
        change(&mut self.names.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Commands queued between MULTI and EXEC.
#[derive(Default)]
pub struct Queue {
    pub commands: Vec<(&'static Command, Vec<Vec<u8>>)>,
    /// Bytes of the arguments, bounded like the query buffer.
    pub bytes: usize,
    /// A command was refused while queuing: EXEC answers EXECABORT.
    pub aborted: bool,
}

/// What becomes of the connection after the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum After {
    #[default]
    Continue,
    /// Close once the replies are written.
    Close,
    /// The connection becomes a replica's link: its loop hands it to replication.
    Replica,
}

pub struct Session {
    pub info: Arc<ClientInfo>,
    pub db: u16,
    pub resp3: bool,
    pub authenticated: bool,
    /// Of the user that the client is; a session of the server itself may do anything.
    pub rights: crate::acl::Rights,
    pub queue: Option<Queue>,
    /// Set by whoever changes a watched key.
    pub watch_broken: Option<Arc<AtomicBool>>,
    pub watched: Vec<(u16, Vec<u8>)>,
    /// Expiry times that watched keys had when they were watched, unix milliseconds.
    pub watched_ttls: Vec<i64>,
    pub channels: BTreeSet<Vec<u8>>,
    pub patterns: BTreeSet<Vec<u8>>,
    pub shard_channels: BTreeSet<Vec<u8>>,
    /// It came by the plain port, or speaks Memcached: what another member serves is forwarded to it.
    pub plain: Option<Box<Plain>>,
    /// READONLY: reads of a replica's slots are served.
    pub readonly: bool,
    /// READONLY MAXSTALE: what a replica may be behind, milliseconds; 0: as the settings say.
    pub max_stale_ms: u64,
    /// ASKING: holds for one command.
    pub asking: bool,
    /// CLIENT REPLY: off, or skip the next.
    pub reply_off: bool,
    pub reply_skip: bool,
    pub no_touch: bool,
    /// CLIENT CAPA redirect: told where the primary is, instead of being served or refused by a replica.
    pub redirects: bool,
    /// CLIENT IMPORT-SOURCE: in import mode it sees expired keys too.
    pub import_source: bool,
    /// In MONITOR a client looks on, and does nothing with keys.
    pub monitors: bool,
    /// Which reads are remembered for CLIENT TRACKING.
    pub remembers: Remembers,
    /// CLIENT CACHING was said: holds for one command or transaction.
    pub caching: bool,
    /// Requests come from our primary (or from the log while loading): no checks, no replies.
    pub from_primary: bool,
    /// Requests come from another shard, whose slots move here: no checks, but written to our journal.
    pub importing: bool,
    /// A move of slots that the client asks for, as the target's primary.
    pub move_wanted: Option<crate::moves::source::Wanted>,
    /// Blocked on keys.
    pub waiter: Option<Arc<Waiter>>,
    /// Blocked in WAIT or WAITAOF.
    pub wait: Option<crate::command::wait::Wait>,
    pub after: After,
    /// Journal offset after this client's last write, for WAIT and for fsync always.
    pub last_write: u64,
    /// Journal offset that a majority must have before the replies so far may go out.
    pub quorum_gate: u64,
    /// Something was executed under the primary's lease since the last flush: the reign in which it was, or the first of
    /// several; 0: nothing was.
    pub leased: u64,
    /// Properties a link to a replica told by REPLCONF.
    pub replica: crate::replication::PeerState,
}

impl Session {
    pub fn new(info: Arc<ClientInfo>, authenticated: bool) -> Session {
        Session {
            info,
            db: 0,
            resp3: false,
            authenticated,
            rights: crate::acl::Rights::default(),
            queue: None,
            watch_broken: None,
            watched: Vec::new(),
            watched_ttls: Vec::new(),
            channels: BTreeSet::new(),
            patterns: BTreeSet::new(),
            shard_channels: BTreeSet::new(),
            plain: None,
            readonly: false,
            max_stale_ms: 0,
            asking: false,
            reply_off: false,
            reply_skip: false,
            no_touch: false,
            redirects: false,
            import_source: false,
            monitors: false,
            remembers: Remembers::Nothing,
            caching: false,
            from_primary: false,
            importing: false,
            move_wanted: None,
            waiter: None,
            wait: None,
            after: After::Continue,
            last_write: 0,
            quorum_gate: 0,
            leased: 0,
            replica: crate::replication::PeerState::default(),
        }
    }

    pub fn select(&mut self, db: u16) {
        self.db = db;
        self.info.db.store(u32::from(db), Ordering::Relaxed);
    }

    /// Subscribed clients in RESP2 may only run a handful of commands.
    pub fn in_subscribe_mode(&self) -> bool {
        let listens = !self.channels.is_empty() || !self.patterns.is_empty();
        !self.resp3 && (listens || !self.shard_channels.is_empty())
    }

    /// It is blocked in a command that changes nothing.
    pub fn waits_to_read(&self) -> bool {
        self.waiter.as_ref().is_some_and(|waiter| {
            let args: Vec<&[u8]> = waiter.args.iter().map(Vec::as_slice).collect();
            !waiter.command.writes(&args)
        })
    }

    pub fn is_blocked(&self) -> bool {
        self.waiter.is_some() || self.wait.is_some()
    }
}
