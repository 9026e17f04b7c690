//! One database as a command sees it: keys under lock, expiry, memory, access times, snapshots.
//!
//! Everything that changes an entry goes through this file, so that used memory, the entry's old value
//! for a running snapshot, and the list of changed keys are right whatever a command does.

use super::{Entry, Item, Locked, Table, hash_key, recency};
use crate::lazy;
use crate::notify::{Event, class};
use crate::snapshot::Preimages;
use crate::topology::{SLOTS, slot_of};
use crate::types::{Collection, Hash, Limits, List, Set, Stream, ZSet};

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

/// The collections, so that `Db::read` and `Db::update` know which one is meant.
pub trait Typed: Sized {
    fn of(value: &Collection) -> Option<&Self>;
    fn of_mut(value: &mut Collection) -> Option<&mut Self>;
    fn create() -> Collection;
}

macro_rules! typed {
    ($($name:ident),*) => {$(
        impl Typed for $name {
            fn of(value: &Collection) -> Option<&Self> {
                if let Collection::$name(v) = value { Some(v) } else { None }
            }
            fn of_mut(value: &mut Collection) -> Option<&mut Self> {
                if let Collection::$name(v) = value { Some(v) } else { None }
            }
            fn create() -> Collection {
                Collection::$name($name::new())
            }
        }
    )*};
}
typed!(List, Hash, Set, ZSet, Stream);

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

/// How far the sweep for expired keys has come in one table. While one is under way the table's
/// `next_expiry` speaks only of what was set meanwhile.
#[derive(Debug)]
pub struct ExpiryWalk {
    begun: bool,
    pub done: bool,
    cursor: u64,
    /// The cursor has come around.
    scanned: bool,
    /// Hashes that were met with fields whose time is over.
    hashes: Vec<Vec<u8>>,
    /// The earliest time met that is still to come.
    next: i64,
}

/// What one step of a walk deleted.
#[derive(Debug, Default)]
pub struct Lapsed {
    pub keys: Vec<Vec<u8>>,
    /// Fields, by the key of their hash.
    pub fields: Vec<(Vec<u8>, Vec<Vec<u8>>)>,
}

impl Default for ExpiryWalk {
    fn default() -> ExpiryWalk {
        let hashes = Vec::new();
        ExpiryWalk { begun: false, done: false, cursor: 0, scanned: false, hashes, next: i64::MAX }
    }
}

/// A database under lock.
pub struct Db<'a> {
    locked: Locked<'a>,
    pub index: u16,
    pub env: &'a Env,
    preimages: Option<&'a Preimages>,
    /// Keys that were found expired and deleted: the journal gets a DEL of each, ahead of the command.
    pub expired: Vec<(u16, Vec<u8>)>,
    /// Keys that changed, when `env.tracks_changes`.
    pub changed: Vec<(u16, Vec<u8>)>,
    /// Keys that were found expired, when `env.tracks_changes`: who caches them is told, nobody else.
    pub lapsed: Vec<(u16, Vec<u8>)>,
    /// What happened to keys, for those who subscribe to it.
    pub events: Vec<Event>,
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
            expired: Vec::new(),
            changed: Vec::new(),
            lapsed: Vec::new(),
            events: Vec::new(),
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
        (hash_key(key), slot_of(key))
    }

    /// Tells hash and slot of the command's first key; they hold until the next hint.
    #[inline]
    pub fn hint(&mut self, key: &[u8], hash: u64, slot: u16) {
        self.hinted = (key.as_ptr() as usize, key.len(), hash, slot);
    }

    /// Takes the hint back: the command's arguments are about to go away.
    #[inline]
    pub fn clear_hint(&mut self) {
        self.hinted = (0, 0, 0, 0);
    }

    #[inline]
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
    #[inline]
    fn drop_if_expired(&mut self, key: &[u8], hash: u64, slot: u16) -> bool {
        let now = self.env.now_ms;
        let sees_expired = self.env.sees_expired;
        let table = self.table(slot);
        if table.expires == 0 || sees_expired {
            return false;
        }
        let due = table.get(hash, key).and_then(Entry::ttl).is_some_and(|ttl| ttl <= now);
        if due && !self.env.hides_expired {
            if let Some(entry) = self.delete_located(key, hash, slot) {
                lazy::free(entry);
            }
            self.note_event(class::EXPIRED, "expired", key);
            if self.env.tracks_changes {
                self.lapsed.push((self.index, key.to_vec()));
            }
            self.expired.push((self.index, key.to_vec()));
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

    /// The bytes of a string for a read.
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<&[u8]>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => entry.as_string().map(Some).ok_or(WrongType),
        }
    }

    /// A collection for a read.
    pub fn read<T: Typed>(&mut self, key: &[u8]) -> Result<Option<&T>, WrongType> {
        match self.get(key) {
            None => Ok(None),
            Some(entry) => entry.as_collection().and_then(T::of).map(Some).ok_or(WrongType),
        }
    }

    /// Changes a collection; `None` when the key is not there. An emptied collection is deleted.
    /// The caller says afterwards, by `Ctx::modified`, whether anything changed.
    pub fn update<T: Typed, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &Limits) -> R,
    ) -> Result<Option<R>, WrongType> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return Ok(None);
        }
        match self.locked.table(self.index, slot).get(hash, key) {
            None => return Ok(None),
            Some(entry) if entry.as_collection().and_then(T::of).is_none() => {
                return Err(WrongType);
            }
            Some(_) => {}
        }
        let limits = &self.env.limits;
        let change = |value: &mut Collection| T::of_mut(value).map(|typed| change(typed, limits));
        match self.change_located(key, hash, slot, true, change) {
            None => Ok(None),
            Some(result) => result.map(Some).ok_or(WrongType),
        }
    }

    /// Changes a collection where it is; one that is emptied is deleted. Only who serves clients touches the access time.
    #[inline]
    fn change_located<R>(
        &mut self,
        key: &[u8],
        hash: u64,
        slot: u16,
        touches: bool,
        change: impl FnOnce(&mut Collection) -> R,
    ) -> Option<R> {
        self.before_change(key, hash, slot);
        let env = self.env;
        let entry = self.locked.table(self.index, slot).get_mut(hash, key)?;
        if touches {
            touch(entry, env);
        }
        let collection = entry.as_collection_mut()?;
        let (before, was_timed) = (collection.memory_usage(), collection.is_timed());
        let result = change(collection);
        let (after, is_timed) = (collection.memory_usage(), collection.is_timed());
        let (empty, due) = (collection.is_empty(), collection.next_due());
        self.used_delta += after as i64 - before as i64;
        if was_timed || is_timed {
            self.locked.table(self.index, slot).note_due(due);
            self.locked.keyspace().note_timed(self.index, was_timed, is_timed);
        }
        if empty {
            self.delete_located(key, hash, slot);
        }
        Some(result)
    }

    /// Changes a collection, making it first when the key is not there.
    pub fn upsert<T: Typed, R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut T, &Limits) -> R,
    ) -> Result<R, WrongType> {
        if self.peek(key).is_none() {
            self.put(key, Entry::collection(key, Box::new(T::create()), None, self.access()));
        }
        match self.update::<T, R>(key, change)? {
            Some(result) => Ok(result),
            None => unreachable!("the key was made under the same lock"),
        }
    }

    /// Puts a whole collection in place of whatever the key held; an empty one deletes the key.
    pub fn set_collection(&mut self, key: &[u8], value: Collection, ttl: Ttl) {
        if value.is_empty() {
            self.remove(key);
            return;
        }
        let ttl = self.resolve(key, ttl);
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        self.put(key, Entry::collection(key, Box::new(value), ttl, access));
    }

    /// Sets a string.
    #[inline]
    pub fn set(&mut self, key: &[u8], value: &[u8], ttl: Ttl) {
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        if ttl == Ttl::Clear && self.preimages.is_none() {
            // The common case: the same key with a value of the same length, overwritten in place.
            let index = self.index;
            if let Some(entry) = self.locked.table(index, slot).get_mut(hash, key)
                && entry.overwrite_string(value, access)
            {
                return;
            }
        }
        let item = self.kept_item(key, ttl);
        let ttl = self.resolve(key, ttl);
        self.put(key, Entry::string_item(key, value, ttl, access, false, item));
    }

    /// Sets a string with what a Memcached client keeps beside it.
    pub fn set_item(&mut self, key: &[u8], value: &[u8], ttl: Ttl, item: Item) {
        if item.is_plain() && ttl != Ttl::Keep {
            return self.set(key, value, ttl);
        }
        let ttl = self.resolve(key, ttl);
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        self.put(key, Entry::string_item(key, value, ttl, access, false, item));
    }

    /// A value that keeps its expiry time keeps its client's flags; which version it is and what was said of
    /// the old one go with that.
    fn kept_item(&mut self, key: &[u8], ttl: Ttl) -> Item {
        let old = if ttl == Ttl::Keep { self.peek(key) } else { None };
        old.map_or(Item::default(), |entry| entry.item().changed())
    }

    /// Changes what Memcached clients keep beside a string; its bytes stay. `false` when it is not there.
    pub fn mark_item(&mut self, key: &[u8], change: impl FnOnce(&mut Item)) -> bool {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return false;
        }
        self.before_change(key, hash, slot);
        let table = self.locked.table(self.index, slot);
        let Some(entry) = table.get_mut(hash, key).filter(|e| e.is_string()) else { return false };
        let was = entry.item();
        let mut item = was;
        change(&mut item);
        if item == was || entry.set_item_in_place(item) {
            return true;
        }
        let Some(taken) = table.remove(hash, key) else { return false };
        let before = taken.memory() as i64;
        let made = taken.with_item(item);
        self.used_delta += made.memory() as i64 - before;
        table.insert(hash, made);
        true
    }

    /// Notes that a Memcached client has fetched a value.
    pub fn mark_fetched(&mut self, key: &[u8]) {
        let (hash, slot) = self.locate(key);
        if let Some(entry) = self.table(slot).get_mut(hash, key).filter(|e| !e.is_fetched()) {
            entry.set_fetched();
        }
    }

    /// Sets a string that a command changed in place (APPEND, SETRANGE, SETBIT): OBJECT ENCODING says raw.
    pub fn set_changed(&mut self, key: &[u8], value: &[u8]) {
        let item = self.kept_item(key, Ttl::Keep);
        let ttl = self.resolve(key, Ttl::Keep);
        let (hash, slot) = self.locate(key);
        let access = self.access_over(key, hash, slot);
        self.put(key, Entry::string_item(key, value, ttl, access, true, item));
    }

    /// Changes the bytes of a string without changing its length; `None` when it is not there.
    pub fn update_string<R>(
        &mut self,
        key: &[u8],
        change: impl FnOnce(&mut [u8]) -> R,
    ) -> Result<Option<R>, WrongType> {
        let (hash, slot) = self.locate(key);
        if self.drop_if_expired(key, hash, slot) {
            return Ok(None);
        }
        self.before_change(key, hash, slot);
        match self.table(slot).get_mut(hash, key) {
            None => Ok(None),
            Some(entry) => {
                let item = entry.item().changed();
                entry.set_item_in_place(item);
                entry.as_string_mut().map(change).map(Some).ok_or(WrongType)
            }
        }
    }

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
            _ => {
                let Some(taken) = table.remove(hash, key) else { return false };
                let before = taken.memory() as i64;
                let made = taken.with_ttl(ttl);
                self.used_delta += made.memory() as i64 - before;
                table.insert(hash, made);
            }
        }
        true
    }

    /// Gives a running snapshot the entry as it is, before its first change.
    #[inline]
    fn before_change(&mut self, key: &[u8], hash: u64, slot: u16) {
        if let Some(preimages) = self.preimages
            && let Some(entry) = self.locked.table(self.index, slot).get_mut(hash, key)
        {
            preimages.save(self.index, slot, entry);
        }
    }

    /// Access field of an entry that is made now.
    #[inline]
    pub fn access(&self) -> u32 {
        fresh_access(self.env)
    }

    /// Access field of a value that is put over another: how often the key was used belongs to the key, so
    /// that LFU does not take what is written all the time for new
    /// (see: each_policy_evicts_what_it_says_and_nothing_else).
    #[inline]
    fn access_over(&mut self, key: &[u8], hash: u64, slot: u16) -> u32 {
        let env = self.env;
        if env.lfu
            && let Some(entry) = self.locked.table(self.index, slot).get_mut(hash, key)
        {
            touch(entry, env);
            return entry.access();
        }
        self.access()
    }

    /// Notes that a key changed, for those who watch it or wait for it.
    #[inline]
    pub fn note_changed(&mut self, key: &[u8]) {
        if self.env.tracks_changes {
            self.changed.push((self.index, key.to_vec()));
        }
    }

    /// Notes what happened to a key, for those who subscribe to keyspace events.
    #[inline]
    pub fn note_event(&mut self, class: u32, name: &'static str, key: &[u8]) {
        if self.env.events & class != 0 {
            self.events.push(Event { name, db: self.index, key: key.to_vec() });
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

    /// Deletes keys of a slot whose time has come, and fields of hashes, about `limit` of each, and goes on with the walk
    /// there when called again.
    pub fn expire_some(&mut self, slot: u16, walk: &mut ExpiryWalk, limit: usize) -> Lapsed {
        let mut gone = Lapsed::default();
        if !walk.scanned && walk.hashes.is_empty() {
            self.find_due(slot, walk, limit, &mut gone.keys);
        }
        for key in &gone.keys {
            let (hash, slot) = self.locate(key);
            if let Some(entry) = self.delete_located(key, hash, slot) {
                lazy::free(entry);
            }
            self.note_changed(key);
            self.note_event(class::EXPIRED, "expired", key);
        }
        let mut left = limit;
        while left > 0
            && let Some(key) = walk.hashes.last()
        {
            let (fields, next) = self.expire_fields(key, left);
            left = left.saturating_sub(fields.len().max(1));
            let finished = (next > self.env.now_ms).then(|| walk.hashes.pop()).flatten();
            if finished.is_some() {
                walk.next = walk.next.min(next);
            }
            if !fields.is_empty() {
                let key = finished.or_else(|| walk.hashes.last().cloned()).unwrap_or_default();
                gone.fields.push((key, fields));
            }
        }
        walk.done = walk.scanned && walk.hashes.is_empty();
        if walk.done {
            self.table(slot).note_due(walk.next);
        }
        gone
    }

    /// Goes on with a walk until there is enough to delete.
    fn find_due(&mut self, slot: u16, walk: &mut ExpiryWalk, limit: usize, due: &mut Vec<Vec<u8>>) {
        let now = self.env.now_ms;
        let table = self.locked.table(self.index, slot);
        if !walk.begun {
            // What is given an expiry time from here on lowers it again, on whichever side of the walk.
            table.next_expiry = i64::MAX;
            walk.begun = true;
        }
        let mut looked_at = 0;
        loop {
            walk.cursor = table.scan(walk.cursor, |entry| {
                looked_at += 1;
                if entry.ttl().is_some_and(|ttl| ttl <= now) {
                    return due.push(entry.key().to_vec());
                }
                match entry.next_due() {
                    // Seen twice, as a scan may, it is found finished the second time.
                    at if at <= now => walk.hashes.push(entry.key().to_vec()),
                    at => walk.next = walk.next.min(at),
                }
            });
            walk.scanned = walk.cursor == 0;
            let found = due.len().max(walk.hashes.len());
            if walk.scanned || found >= limit || looked_at >= limit * 16 {
                break;
            }
        }
    }

    /// Takes out fields of a hash whose time is over: those, and when the next ones go.
    fn expire_fields(&mut self, key: &[u8], limit: usize) -> (Vec<Vec<u8>>, i64) {
        let now = self.env.now_ms;
        let (hash, slot) = self.locate(key);
        let due = self.table(slot).get(hash, key).and_then(Entry::as_collection);
        match due.map(Collection::next_due) {
            Some(next) if next <= now => {}
            next => return (Vec::new(), next.unwrap_or(i64::MAX)),
        }
        let take = |value: &mut Collection| match value {
            Collection::Hash(hash) => {
                let fields = hash.take_due(now, limit);
                (fields, hash.next_due(), hash.is_empty())
            }
            _ => (Vec::new(), i64::MAX, false),
        };
        let Some((fields, next, empty)) = self.change_located(key, hash, slot, false, take) else {
            return (Vec::new(), i64::MAX);
        };
        if !fields.is_empty() {
            self.note_changed(key);
            self.note_event(class::HASH, "hexpired", key);
            if empty {
                self.note_event(class::GENERIC, "del", key);
            }
        }
        (fields, next)
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

    /// Counts the bytes that commands outside this file added or freed (whole databases).
    pub fn count(&mut self, delta: i64) {
        self.used_delta += delta;
    }
}

impl Drop for Db<'_> {
    fn drop(&mut self) {
        self.locked.keyspace().count_memory(self.env.thread, self.used_delta);
    }
}

/// Access field for a new entry: the LRU clock in seconds, or LFU's minutes and a counter of 5.
pub fn fresh_access(env: &Env) -> u32 {
    if env.lfu { lfu_minutes(env.now_ms) << 8 | 5 } else { lru_clock(env.now_ms) }
}

/// LRU clock: seconds, 24 bits.
pub fn lru_clock(now_ms: i64) -> u32 {
    (now_ms / 1000) as u32 & 0x00ff_ffff
}

/// LFU clock: minutes, 16 bits.
pub fn lfu_minutes(now_ms: i64) -> u32 {
    (now_ms / 60_000) as u32 & 0xffff
}

/// LFU counter of an access field after the decay of the minutes since.
pub fn lfu_counter(access: u32, env: &Env) -> u32 {
    let (then, counter) = (access >> 8, access & 0xff);
    if env.lfu_decay_minutes == 0 {
        return counter;
    }
    let idle = lfu_minutes(env.now_ms).wrapping_sub(then) & 0xffff;
    counter.saturating_sub(idle / env.lfu_decay_minutes)
}

#[inline]
fn touch(entry: &mut Entry, env: &Env) {
    if env.no_touch {
        return;
    }
    let access = entry.access();
    if env.lfu {
        let counter = lfu_counter(access, env);
        let base = counter.saturating_sub(5);
        // A cheap random number: the access counter only needs to be right on average.
        let mut x = u64::from(access).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (env.now_ms as u64).wrapping_mul(0xd134_2543_de82_ef95)
            ^ (std::ptr::from_mut(entry) as u64).rotate_left(17);
        x ^= x >> 29;
        x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let odds = u64::from(base) * u64::from(env.lfu_log_factor) + 1;
        let up = counter < 255 && (x >> 32).is_multiple_of(odds);
        entry.set_access(lfu_minutes(env.now_ms) << 8 | (counter + u32::from(up)));
    } else {
        let clock = lru_clock(env.now_ms);
        let proven = entry.is_proven();
        // Written only when it changed, so that reads of one second do not dirty the cache line.
        if access != clock || !proven {
            recency::note_use(proven, clock.wrapping_sub(access) & 0x00ff_ffff);
            entry.set_access(clock);
            entry.set_proven();
        }
    }
}
