//! One database as a command sees it: keys under lock, expiry, memory, access times, snapshots.
//!
//! Everything that changes an entry goes through this module, so that used memory, the entry's old value
//! for a running snapshot, and the list of changed keys are right whatever a command does.

mod access;
mod collections;
mod strings;
mod sweep;

use smallvec::SmallVec;

use super::{Entry, Locked, Table, hash_key};
use crate::lazy;
use crate::notify::{Event, class};
use crate::snapshot::Preimages;
use crate::topology::{SLOTS, slot_of};
use crate::types::Limits;
use access::touch;

pub use access::{fresh_access, lfu_counter, lfu_minutes, lru_clock};
pub use collections::Typed;
pub use strings::NotAdded;
pub use sweep::{ExpiryWalk, Lapsed};

/// Keys of one command that are fetched together.
pub const FETCHED: usize = 16;

/// A key holds a value of another type than the command wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongType;

/// What happens to the expiry time of a key whose value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    Keep,
    Clear,
    /// Unix milliseconds.
    At(i64),
}

/// What a thread knows when it executes a batch: the time, and settings that hold for all its commands.
#[derive(Clone)]
pub struct Env {
    /// Unix milliseconds, read once a batch.
    pub now_ms: i64,
    /// Which counter of used memory this thread adds to.
    pub thread: usize,
    /// maxmemory-policy is one of the LFU ones: access fields are (minutes, counter).
    pub lfu: bool,
    pub lfu_log_factor: u32,
    pub lfu_decay_minutes: u32,
    /// Expired keys are hidden, not deleted: this member follows a primary.
    pub hides_expired: bool,
    /// The command comes from the primary (or the log): even expired keys are seen.
    pub sees_expired: bool,
    /// Somebody watches, tracks or waits for keys: changed keys are collected.
    pub tracks_changes: bool,
    /// Classes of keyspace events that somebody may hear, as bits of `notify::class`.
    pub events: u32,
    /// CLIENT NO-TOUCH.
    pub no_touch: bool,
    /// Microseconds from which on a command gets into the slow log; negative: never.
    pub slowlog_us: i64,
    pub limits: Limits,
}

impl Env {
    /// Of a primary whose settings are the defaults, and of whose changes nobody wants to know.
    pub fn new(thread: usize, limits: Limits) -> Self {
        Self {
            now_ms: 0,
            thread,
            lfu: false,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
            hides_expired: false,
            sees_expired: false,
            tracks_changes: false,
            events: 0,
            no_touch: false,
            slowlog_us: -1,
            limits,
        }
    }
}

/// Keys, with their databases.
pub type DbKeys = Vec<(u16, Vec<u8>)>;

/// What a command leaves to be told.
#[derive(Default)]
pub struct Noted {
    /// Keys that were found expired and deleted: the journal gets a DEL of each, ahead of the command.
    pub expired: DbKeys,
    /// Keys that changed, when `env.tracks_changes`.
    pub changed: DbKeys,
    /// Keys that were found expired, when `env.tracks_changes`: who caches them is told, nobody else.
    pub lapsed: DbKeys,
    /// What happened to keys, for those who subscribe to it.
    pub events: Vec<Event>,
}

/// A database under lock.
pub struct Db<'a> {
    locked: Locked<'a>,
    pub index: u16,
    pub env: &'a Env,
    preimages: Option<&'a Preimages>,
    /// What others are to be told; of nearly all commands that is nothing, and takes no more than a look.
    noted: Option<Box<Noted>>,
    /// What is not found is told, of `env.events`.
    pub tells_misses: bool,
    /// Keys looked up and found, and not found, for INFO.
    pub hits: u64,
    pub misses: u64,
    used_delta: i64,
    /// Address, length, hash and slot of the command's first key. The caller takes it back before the
    /// key's bytes go away, so that an address never stands for other bytes.
    hinted: (usize, usize, u64, u16),
}

impl<'a> Db<'a> {
    pub fn new(
        locked: Locked<'a>,
        index: u16,
        env: &'a Env,
        preimages: Option<&'a Preimages>,
    ) -> Db<'a> {
        Db {
            locked,
            index,
            env,
            preimages,
            noted: None,
            tells_misses: false,
            hits: 0,
            misses: 0,
            used_delta: 0,
            hinted: (0, 0, 0, 0),
        }
    }

    pub fn locked(&mut self) -> &mut Locked<'a> {
        &mut self.locked
    }

    pub fn now_ms(&self) -> i64 {
        self.env.now_ms
    }

    /// The time as of which fields of hashes are there: for who sees even expired ones, the beginning of all time.
    #[inline]
    pub fn fields_ms(&self) -> i64 {
        if self.env.sees_expired { i64::MIN } else { self.env.now_ms }
    }

    #[inline]
    fn locate(&mut self, key: &[u8]) -> (u64, u16) {
        if (self.hinted.0, self.hinted.1) == (key.as_ptr() as usize, key.len()) {
            return (self.hinted.2, self.hinted.3);
        }
        locate_anew(key)
    }

    /// Tells hash and slot of the command's first key; they hold until the next hint.
    #[inline]
    pub fn hint(&mut self, key: &[u8], hash: u64, slot: u16) {
        self.hinted = (key.as_ptr() as usize, key.len(), hash, slot);
    }

    /// Brings keys nearer that are all about to be read, their misses side by side; gives hash and slot of each.
    pub fn fetch(&mut self, keys: &[&[u8]]) -> SmallVec<[(u64, u16); FETCHED]> {
        let places: SmallVec<_> = keys.iter().map(|key| self.locate(key)).collect();
        if places.len() > 1 {
            for (_, slot) in &places {
                self.locked.keyspace().prefetch_table(self.index, *slot);
            }
            places.iter().for_each(|(hash, slot)| self.table(*slot).prefetch(*hash));
            let mut deeper: SmallVec<[(u64, u16); FETCHED]> = SmallVec::new();
            for (hash, slot) in &places {
                if self.table(*slot).prefetch_entry(*hash) {
                    deeper.push((*hash, *slot));
                }
            }
            deeper.iter().for_each(|(hash, slot)| self.table(*slot).prefetch_in_child(*hash));
        }
        places
    }

    /// Takes the hint back: the command's arguments are about to go away.
    #[inline]
    pub fn clear_hint(&mut self) {
        self.hinted = (0, 0, 0, 0);
    }

    #[inline(always)]
    fn table(&mut self, slot: u16) -> &mut Table {
        self.locked.table(self.index, slot)
    }

    /// The entry of a key that has not expired, its access time not touched.
    #[inline]
    pub fn peek(&mut self, key: &[u8]) -> Option<&Entry> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return None;
        }
        self.table(slot).get(hash, key)
    }

    /// Deletes (or, on a replica, hides) a key whose time has come.
    #[inline(always)]
    fn drop_if_expired(&mut self, key: &[u8], hash: u64, slot: u16) -> bool {
        if self.table(slot).expires == 0 || self.env.sees_expired {
            return false;
        }
        self.drop_if_due(key, hash, slot)
    }

    /// The same, where something expires.
    #[inline(never)]
    fn drop_if_due(&mut self, key: &[u8], hash: u64, slot: u16) -> bool {
        let now = self.env.now_ms;
        let due =
            self.table(slot).get(hash, key).and_then(Entry::ttl).is_some_and(|ttl| ttl <= now);
        if due && !self.env.hides_expired {
            if let Some(entry) = self.delete_located(key, hash, slot) {
                lazy::free(entry);
            }
            self.note_event(class::EXPIRED, "expired", key);
            if self.env.tracks_changes {
                let lapsed = (self.index, key.to_vec());
                self.noted().lapsed.push(lapsed);
            }
            let expired = (self.index, key.to_vec());
            self.noted().expired.push(expired);
        }
        due
    }

    /// The entry of a key for a read: counts a hit or a miss and touches its access time.
    #[inline]
    pub fn get(&mut self, key: &[u8]) -> Option<&Entry> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            self.note_miss(key);
            return None;
        }
        if self.tells_misses && self.table(slot).get(hash, key).is_none() {
            self.note_event(class::KEY_MISS, "keymiss", key);
        }
        let env = self.env;
        // Looked up twice in the source, once in the machine: the borrow checker wants it so.
        match self.locked.table(self.index, slot).get_mut(hash, key) {
            Some(entry) => {
                self.hits += 1;
                touch(entry, env);
                Some(entry)
            }
            None => {
                self.misses += 1;
                None
            }
        }
    }

    #[inline]
    pub fn exists(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// The expiry time of a value that is put where another may be.
    fn resolve(&mut self, key: &[u8], ttl: Ttl) -> Option<i64> {
        match ttl {
            Ttl::Clear => None,
            Ttl::At(ms) => Some(ms),
            Ttl::Keep => self.peek(key).and_then(Entry::ttl),
        }
    }

    /// Puts a ready-made entry in (its key is `key`), replacing what is there.
    pub fn put(&mut self, key: &[u8], mut entry: Entry) {
        let (hash, slot) = self.locate(key);
        self.before_change(key, hash, slot);
        entry.set_parity(self.locked.keyspace().parity());
        let (added, is_timed) = (entry.memory(), entry.is_timed());
        let table = self.locked.table(self.index, slot);
        let arrays = table.memory();
        let old = table.insert(hash, entry);
        let grown = table.memory() as i64 - arrays as i64;
        self.used_delta += grown + added as i64;
        let was_timed = old.as_ref().is_some_and(Entry::is_timed);
        self.locked.keyspace().note_timed(self.index, was_timed, is_timed);
        match old {
            Some(old) => {
                self.used_delta -= old.memory() as i64;
                lazy::free(old);
            }
            None => self.note_event(class::NEW, "new", key),
        }
    }

    /// Deletes a key; `false` when it was not there (or had expired).
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.take(key).map(lazy::free).is_some()
    }

    /// Takes an entry out, for UNLINK, RENAME and MOVE.
    pub fn take(&mut self, key: &[u8]) -> Option<Entry> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return None;
        }
        self.delete_located(key, hash, slot)
    }

    fn delete_located(&mut self, key: &[u8], hash: u64, slot: u16) -> Option<Entry> {
        self.before_change(key, hash, slot);
        let table = self.locked.table(self.index, slot);
        let arrays = table.memory();
        let taken = table.remove(hash, key)?;
        let shrunk = table.memory() as i64 - arrays as i64;
        self.used_delta += shrunk - taken.memory() as i64;
        self.locked.keyspace().note_timed(self.index, taken.is_timed(), false);
        Some(taken)
    }

    /// Sets or clears the expiry time; `false` when the key is not there.
    pub fn expire(&mut self, key: &[u8], ttl: Option<i64>) -> bool {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return false;
        }
        self.before_change(key, hash, slot);
        let table = self.locked.table(self.index, slot);
        let Some(entry) = table.get_mut(hash, key) else { return false };
        let had = entry.ttl().is_some();
        match ttl {
            Some(ms) if entry.set_ttl_in_place(ms) => table.note_due(ms),
            None if !had => {}
            _ => return self.remake(key, hash, slot, |entry| entry.with_ttl(ttl)),
        }
        true
    }

    /// Puts in an entry's place what is made of it; `false` when it is not there.
    fn remake(
        &mut self,
        key: &[u8],
        hash: u64,
        slot: u16,
        make: impl FnOnce(Entry) -> Entry,
    ) -> bool {
        let table = self.locked.table(self.index, slot);
        let arrays = table.memory();
        let Some(taken) = table.remove(hash, key) else { return false };
        let before = taken.memory() + arrays;
        let made = make(taken);
        let after = made.memory();
        table.insert(hash, made);
        self.used_delta += (after + table.memory()) as i64 - before as i64;
        true
    }

    /// Gives a running snapshot the entry as it is, before its first change.
    #[inline(always)]
    fn before_change(&mut self, key: &[u8], hash: u64, slot: u16) {
        if let Some(preimages) = self.preimages {
            self.save_preimage(preimages, key, hash, slot);
        }
    }

    #[cold]
    fn save_preimage(&mut self, preimages: &Preimages, key: &[u8], hash: u64, slot: u16) {
        if let Some(entry) = self.locked.table(self.index, slot).get_mut(hash, key) {
            preimages.save(self.index, slot, entry);
        }
    }

    /// What is told when the command has run, to be added to.
    #[cold]
    pub fn noted(&mut self) -> &mut Noted {
        self.noted.get_or_insert_default()
    }

    /// What is told when the command has run, if there is anything.
    #[inline]
    pub fn noted_so_far(&mut self) -> Option<&mut Noted> {
        self.noted.as_deref_mut()
    }

    /// Keys were found expired, and deleted.
    #[inline]
    pub fn has_expired(&self) -> bool {
        self.noted.as_ref().is_some_and(|noted| !noted.expired.is_empty())
    }

    /// Those keys, of which nobody will be told again.
    #[inline]
    pub fn take_expired(&mut self) -> DbKeys {
        self.noted.as_mut().map_or_else(Vec::new, |noted| std::mem::take(&mut noted.expired))
    }

    /// Notes that a key changed, for those who watch it or wait for it.
    #[inline]
    pub fn note_changed(&mut self, key: &[u8]) {
        if self.env.tracks_changes {
            let changed = (self.index, key.to_vec());
            self.noted().changed.push(changed);
        }
    }

    /// Notes what happened to a key, for those who subscribe to keyspace events.
    #[inline]
    pub fn note_event(&mut self, class: u32, name: &'static str, key: &[u8]) {
        if self.env.events & class != 0 {
            let event = Event { name, db: self.index, key: key.to_vec() };
            self.noted().events.push(event);
        }
    }

    /// A reader did not find a key.
    pub fn note_miss(&mut self, key: &[u8]) {
        self.misses += 1;
        if self.tells_misses {
            self.note_event(class::KEY_MISS, "keymiss", key);
        }
    }

    /// There is such an entry, whether its time is over or not.
    pub fn is_there(&mut self, key: &[u8]) -> bool {
        let (hash, slot) = self.locate(key);
        self.table(slot).get(hash, key).is_some()
    }

    /// Takes every table of a database out; everything must be locked. The caller frees them and takes
    /// their bytes off the count.
    pub fn take_database(&mut self, index: u16) -> Vec<Table> {
        self.save_database(index);
        self.locked.take_database(index)
    }

    /// Exchanges two databases; everything must be locked.
    pub fn swap_databases(&mut self, a: u16, b: u16) {
        self.save_database(a);
        self.save_database(b);
        self.locked.swap_databases(a, b);
    }

    /// Gives a running snapshot a whole database, before it goes or gets another number.
    fn save_database(&mut self, index: u16) {
        let Some(preimages) = self.preimages else { return };
        if !self.locked.keyspace().is_made(index) {
            return;
        }
        for slot in 0..SLOTS {
            let table = self.locked.table(index, slot);
            table.each_mut(|entry| preimages.save(index, slot, entry));
        }
    }

    /// Works on another database under the same locks.
    pub fn select(&mut self, index: u16) -> u16 {
        std::mem::replace(&mut self.index, index)
    }

    /// Counts the bytes that commands outside this module added or freed (whole databases).
    pub fn count(&mut self, delta: i64) {
        self.used_delta += delta;
    }
}

/// Out of the way of the many commands that have noted nothing.
#[cold]
fn lose(noted: Box<Noted>) {
    drop(noted);
}

/// Another key than the command's first.
#[inline(never)]
fn locate_anew(key: &[u8]) -> (u64, u16) {
    (hash_key(key), slot_of(key))
}

impl Drop for Db<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(noted) = self.noted.take() {
            lose(noted);
        }
        self.locked.keyspace().count_memory(self.env.thread, self.used_delta);
    }
}

#[cfg(test)]
mod tests;
