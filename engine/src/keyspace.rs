//! The keyspace: one table per slot and database, each slot with its own short lock.
//!
//! Invariants: a table is touched only through a `Locked` that holds its slot's lock; locks are taken in
//! the order of their slots, so that two commands never wait for each other in a circle. The lock of a
//! slot covers that slot in every database, so that MOVE and COPY need no second lock.

use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

pub mod db;
pub mod entry;
mod fetch;
mod lock;
pub mod recency;
pub mod table;

pub use db::{Db, DbKeys, Env, FETCHED, NotAdded, Noted, Ttl, Typed, WrongType};
pub use entry::{Entry, HELD_BYTES_MIN, Held, Item, ValueRef};
pub use table::Table;

use crate::clock;
use crate::tally::Tally;
use crate::topology::{SLOTS, slot_of};
use lock::SlotLock;

/// Hash of a key, seeded per process so that nobody outside can aim at one bucket.
#[inline]
pub fn hash_key(key: &[u8]) -> u64 {
    use std::hash::{BuildHasher, Hasher};
    static SEED: OnceLock<foldhash::quality::RandomState> = OnceLock::new();
    let mut hasher = SEED.get_or_init(foldhash::quality::RandomState::default).build_hasher();
    hasher.write(key);
    hasher.finish()
}

/// The tables of one database.
struct Tables([UnsafeCell<Table>; SLOTS as usize]);

/// How long a report that must not wait for a script waits for locks in all, microseconds.
const PATIENCE_US: u64 = 1_000;

/// A handle to the count of used memory.
pub struct MemoryCounters(Arc<Tally>);

impl MemoryCounters {
    pub fn freed(&self, bytes: usize) {
        self.0.add(Tally::ANY_THREAD, -(bytes as i64));
    }
}

/// All databases of one server.
pub struct Keyspace {
    locks: Box<[SlotLock]>,
    databases: Box<[AtomicPtr<Tables>]>,
    used: Arc<Tally>,
    /// Parity that entries are born with: the last snapshot's. Changes under all locks only.
    parity: AtomicBool,
    /// Grows when whole databases are exchanged or emptied: a snapshot under way is lost.
    upheavals: AtomicU64,
    /// Scripts that wait for more locks than they took at first, and have written: whoever waits for a lock while it
    /// holds others lets go of them meanwhile (see `take`).
    urgent: AtomicUsize,
    /// How often a lock of a slot was not free when it was wanted.
    waits: AtomicU64,
    /// For each database, what was counted for the last report.
    counted: Box<[Counted]>,
    /// For each database, its hashes with fields that expire by themselves.
    timed: Box<[AtomicUsize]>,
}

/// What a database had when it was last counted.
#[derive(Default)]
struct Counted {
    keys: AtomicU64,
    expires: AtomicU64,
}

// SAFETY: the tables behind the pointers are only reached under their slot's lock (see `Locked`).
#[expect(unsafe_code, reason = "tables are shared under slot locks of our own")]
unsafe impl Sync for Keyspace {}
// SAFETY: tables own their entries and entries are Send.
#[expect(unsafe_code, reason = "as above")]
unsafe impl Send for Keyspace {}

impl Keyspace {
    pub fn new(databases: u16) -> Keyspace {
        Keyspace {
            locks: (0..SLOTS).map(|_| SlotLock::default()).collect(),
            databases: (0..databases).map(|_| AtomicPtr::default()).collect(),
            used: Arc::default(),
            parity: AtomicBool::new(false),
            upheavals: AtomicU64::new(0),
            urgent: AtomicUsize::new(0),
            waits: AtomicU64::new(0),
            counted: (0..databases).map(|_| Counted::default()).collect(),
            timed: (0..databases).map(|_| AtomicUsize::default()).collect(),
        }
    }

    /// How many hashes of a database have fields that expire by themselves.
    pub fn timed(&self, db: u16) -> usize {
        self.timed[db as usize].load(Ordering::Relaxed)
    }

    /// Some hash of some database has fields that expire by themselves.
    pub fn any_timed(&self) -> bool {
        self.timed.iter().any(|count| count.load(Ordering::Relaxed) > 0)
    }

    /// A value of a database was replaced, or changed; the caller holds its slot's lock.
    #[inline]
    fn note_timed(&self, db: u16, was: bool, is: bool) {
        let count = &self.timed[db as usize];
        match (was, is) {
            (false, true) => drop(count.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(count.fetch_sub(1, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Snapshot parity of new entries.
    #[inline]
    pub fn parity(&self) -> bool {
        self.parity.load(Ordering::Relaxed)
    }

    /// How often whole databases were exchanged or emptied.
    pub fn upheavals(&self) -> u64 {
        self.upheavals.load(Ordering::Acquire)
    }

    pub fn databases(&self) -> u16 {
        self.databases.len() as u16
    }

    /// Bytes of all entries and bucket arrays, as counted by the threads that changed them.
    pub fn used_memory(&self) -> u64 {
        self.used.sum()
    }

    /// The counters themselves, for who frees memory when the keyspace may be gone.
    pub fn memory_counters(&self) -> MemoryCounters {
        MemoryCounters(self.used.clone())
    }

    /// The database has ever been written to.
    pub fn is_made(&self, db: u16) -> bool {
        self.table_ptr(db, 0).is_some()
    }

    /// Adds to the count of used bytes; `thread` picks the part of it.
    #[inline]
    pub fn count_memory(&self, thread: usize, delta: i64) {
        self.used.add(thread, delta);
    }

    /// Locks the slots of some keys.
    pub fn lock_keys<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> Locked<'_> {
        self.lock_slots(keys.map(slot_of).collect())
    }

    /// Locks slots in their order, each once.
    pub fn lock_slots(&self, mut slots: SmallVec<[u16; 8]>) -> Locked<'_> {
        if slots.len() > 1 {
            slots.sort_unstable();
            slots.dedup();
        }
        self.take(slots.iter().copied());
        Locked { keyspace: self, held: Slots::Several(slots) }
    }

    /// Takes locks in their order. Who waits holds what comes before, unless a script that has written needs that:
    /// nothing was done under these locks yet, so that they can be let go and taken anew.
    fn take(&self, slots: impl Iterator<Item = u16> + Clone) {
        'anew: loop {
            for (held, slot) in slots.clone().enumerate() {
                let lock = &self.locks[slot as usize];
                if lock.try_take()
                    || self.wait(lock, || held > 0 && self.urgent.load(Ordering::Acquire) > 0)
                {
                    continue;
                }
                slots.clone().take(held).for_each(|s| self.locks[s as usize].unlock());
                let mut turns = 0;
                while self.urgent.load(Ordering::Acquire) > 0 {
                    lock::idle(&mut turns);
                }
                continue 'anew;
            }
            return;
        }
    }

    #[inline]
    pub fn lock_slot(&self, slot: u16) -> Locked<'_> {
        let lock = &self.locks[slot as usize];
        if !lock.try_take() {
            self.wait(lock, || false);
        }
        Locked { keyspace: self, held: Slots::One(slot) }
    }

    /// Waits for a lock that was not free; see `SlotLock::wait`.
    #[cold]
    fn wait(&self, lock: &SlotLock, gives_up: impl Fn() -> bool) -> bool {
        self.waits.fetch_add(1, Ordering::Relaxed);
        lock.wait(gives_up)
    }

    /// How often somebody has waited for the lock of a slot.
    pub fn waits(&self) -> u64 {
        self.waits.load(Ordering::Relaxed)
    }

    /// Locks everything: for FLUSHALL, SWAPDB, the start of a snapshot, scripts with undeclared keys.
    pub fn lock_all(&self) -> Locked<'_> {
        self.take(0..SLOTS);
        Locked { keyspace: self, held: Slots::All }
    }

    #[inline]
    fn table_ptr(&self, db: u16, slot: u16) -> Option<*mut Table> {
        let tables = self.databases[db as usize].load(Ordering::Acquire);
        if tables.is_null() {
            return None;
        }
        // SAFETY: a database, once made, is never freed while the keyspace lives.
        #[expect(unsafe_code, reason = "the pointer is null or a leaked box of ours")]
        let tables = unsafe { &*tables };
        Some(tables.0[slot as usize].get())
    }

    /// A key of this table, or a field, may have expired; costs no lock when the database or the table is empty.
    pub fn has_due(&self, db: u16, slot: u16, now_ms: i64) -> bool {
        self.table_ptr(db, slot).is_some() && {
            let mut locked = self.lock_slot(slot);
            let table = locked.table(db, slot);
            table.next_expiry <= now_ms
        }
    }

    /// Something was once in this database.
    pub fn has_database(&self, db: u16) -> bool {
        self.table_ptr(db, 0).is_some()
    }

    /// Locks a slot for the sake of one table, unless the table is empty.
    pub fn lock_table(&self, db: u16, slot: u16) -> Option<Locked<'_>> {
        self.table_ptr(db, slot)?;
        let mut locked = self.lock_slot(slot);
        (!locked.table(db, slot).is_empty()).then_some(locked)
    }

    /// The table of a slot in a database that nothing was in yet.
    #[cold]
    fn make_table(&self, db: u16, slot: u16) -> *mut Table {
        loop {
            self.make_database(db);
            if let Some(table) = self.table_ptr(db, slot) {
                return table;
            }
        }
    }

    fn make_database(&self, db: u16) {
        let cell = &self.databases[db as usize];
        let fresh: Box<[UnsafeCell<Table>]> =
            (0..SLOTS).map(|_| UnsafeCell::new(Table::default())).collect();
        let Ok(fresh) = <Box<[UnsafeCell<Table>; SLOTS as usize]>>::try_from(fresh) else {
            unreachable!("made with exactly that length")
        };
        let fresh = Box::into_raw(fresh).cast::<Tables>();
        if cell
            .compare_exchange(std::ptr::null_mut(), fresh, Ordering::AcqRel, Ordering::Acquire)
            .is_err()
        {
            // SAFETY: another thread was first; ours was never shared.
            #[expect(unsafe_code, reason = "gives back the box that lost the race")]
            drop(unsafe { Box::from_raw(fresh) });
        }
    }

    /// Number of keys of a database; exact only when nothing changes meanwhile.
    pub fn len(&self, db: u16) -> usize {
        if self.table_ptr(db, 0).is_none() {
            return 0;
        }
        (0..SLOTS).map(|slot| self.lock_slot(slot).table(db, slot).len()).sum()
    }

    /// Number of keys of a database, and of those with an expiry time; exact only when nothing changes meanwhile.
    pub fn count(&self, db: u16) -> (u64, u64) {
        self.count_unless(db, || false)
    }

    /// The same for those who must not wait for a script: the last count when a lock is held for longer than commands do.
    pub fn recent_count(&self, db: u16) -> (u64, u64) {
        let until_us = clock::monotonic_us() + PATIENCE_US;
        self.count_unless(db, || clock::monotonic_us() > until_us)
    }

    fn count_unless(&self, db: u16, gives_up: impl Fn() -> bool) -> (u64, u64) {
        if self.table_ptr(db, 0).is_none() {
            return (0, 0);
        }
        let of = |slot: u16| {
            let lock = &self.locks[slot as usize];
            if !lock.try_take() && !lock.wait(&gives_up) {
                return None;
            }
            let mut locked = Locked { keyspace: self, held: Slots::One(slot) };
            let table = locked.table(db, slot);
            Some((table.len() as u64, u64::from(table.expires)))
        };
        let add = |(keys, expires), one: Option<(u64, u64)>| {
            one.map(|(more_keys, more_expires)| (keys + more_keys, expires + more_expires))
        };
        let last = &self.counted[db as usize];
        if let Some((keys, expires)) = (0..SLOTS).map(of).try_fold((0, 0), add) {
            last.keys.store(keys, Ordering::Relaxed);
            last.expires.store(expires, Ordering::Relaxed);
        }
        (last.keys.load(Ordering::Relaxed), last.expires.load(Ordering::Relaxed))
    }

    pub fn is_empty(&self, db: u16) -> bool {
        self.len(db) == 0
    }
}

impl Drop for Keyspace {
    fn drop(&mut self) {
        for database in &self.databases {
            let tables = database.load(Ordering::Acquire);
            if !tables.is_null() {
                // SAFETY: made by `make_database`; `&mut self` says that nobody else is here.
                #[expect(unsafe_code, reason = "gives back the boxes of make_database")]
                drop(unsafe { Box::from_raw(tables) });
            }
        }
    }
}

/// Some slots (or all) under lock; the only way to a table.
pub struct Locked<'k> {
    keyspace: &'k Keyspace,
    held: Slots,
}

enum Slots {
    /// What nearly all commands take.
    One(u16),
    /// In their order: thousands of them (a long MGET) are not walked for each key.
    Several(SmallVec<[u16; 8]>),
    All,
}

impl<'k> Locked<'k> {
    pub fn keyspace(&self) -> &'k Keyspace {
        self.keyspace
    }

    #[inline]
    pub fn holds(&self, slot: u16) -> bool {
        match &self.held {
            Slots::One(only) => *only == slot,
            Slots::Several(slots) => slots.binary_search(&slot).is_ok(),
            Slots::All => true,
        }
    }

    /// The slots that are held.
    pub fn slots(&self) -> impl Iterator<Item = u16> + '_ {
        let (all, listed) = match &self.held {
            Slots::One(slot) => (0..0, std::slice::from_ref(slot)),
            Slots::Several(slots) => (0..0, slots.as_slice()),
            Slots::All => (0..SLOTS, [].as_slice()),
        };
        all.chain(listed.iter().copied())
    }

    pub fn holds_all(&self) -> bool {
        matches!(self.held, Slots::All)
    }

    /// The table of a slot that this holds.
    #[inline(always)]
    pub fn table(&mut self, db: u16, slot: u16) -> &mut Table {
        if !self.holds(slot) {
            is_not_locked(slot);
        }
        let table = match self.keyspace.table_ptr(db, slot) {
            Some(table) => table,
            None => self.keyspace.make_table(db, slot),
        };
        // SAFETY: the slot's lock is held by us, and `&mut self` makes this the only borrow.
        #[expect(unsafe_code, reason = "reaches a table under its slot's lock")]
        unsafe {
            &mut *table
        }
    }

    /// Takes one more lock if it is free: who does not wait can be part of no circle.
    pub(crate) fn try_add(&mut self, slot: u16) -> bool {
        if self.holds(slot) {
            return true;
        }
        let taken = self.keyspace.locks[slot as usize].try_take();
        if taken {
            self.note(slot);
        }
        taken
    }

    fn note(&mut self, slot: u16) {
        if let Slots::One(only) = self.held {
            self.held = Slots::Several(SmallVec::from_slice(&[only]));
        }
        if let Slots::Several(slots) = &mut self.held
            && let Err(at) = slots.binary_search(&slot)
        {
            slots.insert(at, slot);
        }
    }

    /// Waits for more locks, in whatever order: others who wait for those that are held let go of what they hold
    /// meanwhile. Two scripts may wait for each other here: `gives_up` is asked, and told whether that can be. `false`:
    /// not all were taken.
    pub(crate) fn add(&mut self, slots: &[u16], gives_up: impl Fn(bool) -> bool) -> bool {
        let urgency = Urgency::new(&self.keyspace.urgent);
        let asks = || gives_up(urgency.0.load(Ordering::Acquire) > 1);
        slots.iter().all(|slot| {
            self.holds(*slot) || {
                let taken = self.keyspace.locks[*slot as usize].wait(asks);
                if taken {
                    self.note(*slot);
                }
                taken
            }
        })
    }

    /// As `add`, for every slot.
    pub(crate) fn add_all(&mut self, gives_up: impl Fn(bool) -> bool) -> bool {
        let rest: Vec<u16> = (0..SLOTS).filter(|slot| !self.holds(*slot)).collect();
        if !self.add(&rest, gives_up) {
            return false;
        }
        self.held = Slots::All;
        true
    }

    /// Turns the parity of new entries: a snapshot begins. Gives the new one.
    pub fn turn_parity(&mut self) -> bool {
        assert!(self.holds_all(), "a snapshot begins under every lock");
        !self.keyspace.parity.fetch_xor(true, Ordering::AcqRel)
    }

    /// Exchanges two databases; everything must be locked.
    pub fn swap_databases(&mut self, first: u16, second: u16) {
        assert!(self.holds_all(), "SWAPDB needs every lock");
        self.keyspace.upheavals.fetch_add(1, Ordering::AcqRel);
        let [a, b] = [first, second].map(|i| &self.keyspace.databases[i as usize]);
        let was = a.swap(b.load(Ordering::Acquire), Ordering::AcqRel);
        b.store(was, Ordering::Release);
        let [a, b] = [first, second].map(|i| &self.keyspace.timed[i as usize]);
        b.store(a.swap(b.load(Ordering::Relaxed), Ordering::Relaxed), Ordering::Relaxed);
        // A sweep for expired keys may be half through a table that has another number now.
        for db in [first, second].into_iter().filter(|db| self.keyspace.is_made(*db)) {
            (0..SLOTS).for_each(|slot| self.table(db, slot).next_expiry = 0);
        }
    }

    /// Takes every table of a database out and gives what was in them, to be dropped elsewhere.
    pub fn take_database(&mut self, db: u16) -> Vec<Table> {
        assert!(self.holds_all(), "emptying a database needs every lock");
        if self.keyspace.table_ptr(db, 0).is_none() {
            return Vec::new();
        }
        self.keyspace.upheavals.fetch_add(1, Ordering::AcqRel);
        self.keyspace.timed[db as usize].store(0, Ordering::Relaxed);
        (0..SLOTS)
            .map(|slot| std::mem::take(self.table(db, slot)))
            .filter(|table| !table.is_empty())
            .collect()
    }
}

#[cold]
fn is_not_locked(slot: u16) -> ! {
    panic!("slot {slot} is not locked: the command's key positions are wrong")
}

/// Counts a script that waits for more locks, as long as it does, also when it ends by a fault.
struct Urgency<'k>(&'k AtomicUsize);

impl<'k> Urgency<'k> {
    fn new(urgent: &'k AtomicUsize) -> Urgency<'k> {
        urgent.fetch_add(1, Ordering::AcqRel);
        Urgency(urgent)
    }
}

impl Drop for Urgency<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Locked<'_> {
    #[inline]
    fn drop(&mut self) {
        let locks = &self.keyspace.locks;
        match &self.held {
            Slots::One(slot) => locks[*slot as usize].unlock(),
            Slots::Several(slots) => slots.iter().for_each(|slot| locks[*slot as usize].unlock()),
            Slots::All => locks.iter().for_each(SlotLock::unlock),
        }
    }
}
