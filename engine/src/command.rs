//! The table of commands: one row each, read by dispatch, COMMAND, routing, the slow log and the docs.

use smallvec::SmallVec;

pub mod access;
pub mod categories;
mod context;
pub(crate) mod events;
pub mod exec;
mod expiry_args;
mod lookup;
mod walk;

pub mod acl;
pub mod bitfield;
pub mod bits;
pub mod client;
pub mod cluster;
mod cluster_change;
mod cluster_own;
pub mod cluster_scan;
mod cluster_slots;
mod collections;
pub mod conditional;
pub mod config;
pub mod connection;
mod deferred;
mod digest;
mod docs;
pub mod dump;
pub mod functions;
pub mod geo;
pub mod hash_fields;
pub mod hashes;
pub mod hll;
pub mod increx;
pub mod info;
pub mod inspect;
mod item;
pub mod keys;
pub mod latency;
mod latency_graph;
pub mod lcs;
pub mod lists;
pub mod lolwut;
pub mod managed;
pub mod migrate;
pub mod persistence;
pub mod pubsub;
pub mod scan;
pub mod scripting;
pub mod sentinel;
pub mod server;
pub mod sets;
mod slot_stats;
pub mod slowlog;
pub mod sort;
pub mod specs;
pub mod streams;
pub mod strings;
pub mod subcommands;
pub mod table;
pub mod tracking;
pub mod transactions;
pub mod wait;
pub mod zsets;

pub use context::{Ctx, Effects};
pub use lookup::{Finder, find, find_canonical, set_renames};

/// What a command does to the data, and where it may run.
pub mod flag {
    pub const WRITE: u32 = 1;
    pub const READONLY: u32 = 1 << 1;
    /// May grow memory: refused with OOM above maxmemory.
    pub const DENYOOM: u32 = 1 << 2;
    pub const ADMIN: u32 = 1 << 3;
    pub const PUBSUB: u32 = 1 << 4;
    pub const NOSCRIPT: u32 = 1 << 5;
    pub const BLOCKING: u32 = 1 << 6;
    /// Allowed while the data set is being loaded.
    pub const LOADING: u32 = 1 << 7;
    /// Allowed on a replica whose link is down although replica-serve-stale-data is off.
    pub const STALE: u32 = 1 << 8;
    /// Constant or logarithmic time: not timed one by one.
    pub const FAST: u32 = 1 << 9;
    /// Allowed before AUTH.
    pub const NO_AUTH: u32 = 1 << 10;
    /// Refused inside MULTI.
    pub const NO_MULTI: u32 = 1 << 11;
    /// Not shown to MONITOR and the slow log (holds secrets).
    pub const SKIP_LOG: u32 = 1 << 12;
    /// Runs at once inside MULTI instead of being queued.
    pub const UNQUEUED: u32 = 1 << 13;
    /// May run in RESP2 while subscribed.
    pub const IN_SUBSCRIBE: u32 = 1 << 14;
    /// Walks all slots, locking each in turn by itself; inside MULTI everything is locked for it.
    pub const WALKS: u32 = 1 << 15;
    /// Needs every lock for its whole run (SORT: with patterns only, see `Command::locks_all`).
    pub const LOCK_ALL: u32 = 1 << 16;
    /// Key positions depend on the arguments (shown by COMMAND).
    pub const MOVABLE_KEYS: u32 = 1 << 17;
    /// Constant time for common arguments, though the ecosystem does not call it fast: not timed one by one.
    pub const QUICK: u32 = 1 << 18;
    /// Runs scripts, which may take long: runs in a coroutine of its loop.
    pub const SCRIPT: u32 = 1 << 19;
}

/// ACL categories and the group that the docs show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    Generic,
    String,
    Hash,
    List,
    Set,
    SortedSet,
    Stream,
    HyperLogLog,
    Geo,
    PubSub,
    Transactions,
    Connection,
    Server,
    Cluster,
    Sentinel,
    Scripting,
}

/// Which arguments are keys.
#[derive(Clone, Copy)]
pub enum Keys {
    None,
    /// Positions `first..=last` (last negative: from the end), every `step`-th.
    Range {
        first: usize,
        last: isize,
        step: usize,
    },
    /// A count at `at`, the keys behind it; `also` is one more key position (0: none).
    Counted {
        at: usize,
        also: usize,
    },
    /// Found by a function.
    Custom(fn(&[&[u8]]) -> SmallVec<[usize; 8]>),
}

pub type Handler = fn(&mut Ctx<'_, '_>);

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Command {
    /// Lower case.
    pub name: &'static str,
    /// Number of arguments with the name; negative: at least that many.
    pub arity: i16,
    pub flags: u32,
    pub keys: Keys,
    pub group: Group,
    /// Version of Redis that first had it.
    pub since: &'static str,
    pub summary: &'static str,
    pub run: Handler,
}

impl Keys {
    /// The first argument.
    pub const FIRST: Keys = Keys::Range { first: 1, last: 1, step: 1 };
    /// All arguments.
    pub const ALL: Keys = Keys::Range { first: 1, last: -1, step: 1 };
    /// The first two arguments.
    pub const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
}

impl Command {
    #[expect(clippy::too_many_arguments, reason = "one row of a table, read as one line")]
    pub const fn new(
        name: &'static str,
        arity: i16,
        flags: u32,
        keys: Keys,
        group: Group,
        since: &'static str,
        summary: &'static str,
        run: Handler,
    ) -> Command {
        Command { name, arity, flags, keys, group, since, summary, run }
    }

    /// Place in the table, for counters. Only rows of `all()` have one.
    #[inline]
    pub fn id(&self) -> usize {
        let from = TABLE.as_ptr() as usize;
        (std::ptr::from_ref(self) as usize - from) / size_of::<Command>()
    }

    #[inline]
    pub fn is(&self, flag: u32) -> bool {
        self.flags & flag != 0
    }

    /// This request needs every lock for its whole run.
    #[inline]
    pub fn locks_all(&self, args: &[&[u8]]) -> bool {
        self.is(flag::LOCK_ALL)
            && match self.group {
                Group::Server => true,
                Group::Scripting => scripting::changes(args),
                _ => sort::reads_elsewhere(args),
            }
    }

    /// This request goes to the journal if it does anything.
    #[inline]
    pub fn writes(&self, args: &[&[u8]]) -> bool {
        self.is(flag::WRITE)
            || match self.group {
                Group::Scripting => self.locks_all(args),
                Group::Cluster => self.name == "cluster" && cluster::writes(args),
                _ => false,
            }
    }

    /// What it has in place of keys have slots, but are none: shard channels, and cursors that are routed.
    #[inline]
    pub fn names_no_keys(&self) -> bool {
        self.is(flag::PUBSUB) || self.name == "clusterscan"
    }

    #[inline]
    pub fn arity_fits(&self, args: usize) -> bool {
        let arity = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { args == arity } else { args >= arity }
    }

    /// Positions of the keys among the arguments; empty when the arguments make no sense.
    pub fn key_positions(&self, args: &[&[u8]]) -> SmallVec<[usize; 8]> {
        match self.keys {
            Keys::None => SmallVec::new(),
            Keys::Range { first, last, step } => {
                let last = if last < 0 { args.len() as isize + last } else { last };
                (first..=last.max(0) as usize).step_by(step).filter(|i| *i < args.len()).collect()
            }
            Keys::Counted { at, also } => {
                let n = args.get(at).and_then(|n| crate::number::parse_i64(n)).unwrap_or(0);
                let end = at + 1 + n.clamp(0, args.len() as i64) as usize;
                let mut found: SmallVec<[usize; 8]> = SmallVec::new();
                if also != 0 && also < args.len() {
                    found.push(also);
                }
                found.extend((at + 1..end).filter(|i| *i < args.len()));
                found
            }
            Keys::Custom(f) => f(args).into_iter().filter(|i| *i < args.len()).collect(),
        }
    }
}

/// All families, in the order of the reference page.
const FAMILIES: &[&[Command]] = &[
    connection::COMMANDS,
    client::COMMANDS,
    server::COMMANDS,
    acl::COMMANDS,
    table::COMMANDS,
    info::COMMANDS,
    inspect::COMMANDS,
    slowlog::COMMANDS,
    latency::COMMANDS,
    lolwut::COMMANDS,
    config::COMMANDS,
    keys::COMMANDS,
    scan::COMMANDS,
    cluster_scan::COMMANDS,
    dump::COMMANDS,
    item::COMMANDS,
    sentinel::COMMANDS,
    sort::COMMANDS,
    strings::COMMANDS,
    conditional::COMMANDS,
    increx::COMMANDS,
    bits::COMMANDS,
    bitfield::COMMANDS,
    lcs::COMMANDS,
    hashes::COMMANDS,
    hash_fields::COMMANDS,
    lists::COMMANDS,
    sets::COMMANDS,
    zsets::COMMANDS,
    streams::COMMANDS,
    hll::COMMANDS,
    geo::COMMANDS,
    transactions::COMMANDS,
    pubsub::COMMANDS,
    scripting::COMMANDS,
    functions::COMMANDS,
    cluster::COMMANDS,
    persistence::COMMANDS,
    wait::COMMANDS,
    managed::COMMANDS,
    migrate::COMMANDS,
];

const COUNT: usize = {
    let (mut n, mut family) = (0, 0);
    while family < FAMILIES.len() {
        n += FAMILIES[family].len();
        family += 1;
    }
    n
};

static TABLE: [Command; COUNT] = {
    let mut table = [FAMILIES[0][0]; COUNT];
    let (mut n, mut family) = (0, 0);
    while family < FAMILIES.len() {
        let mut i = 0;
        while i < FAMILIES[family].len() {
            table[n] = FAMILIES[family][i];
            n += 1;
            i += 1;
        }
        family += 1;
    }
    table
};

/// Every command.
pub fn all() -> impl Iterator<Item = &'static Command> {
    TABLE.iter()
}
