//! Keys that are about to be used are brought nearer, the misses of several side by side.
//!
//! A hint only: where somebody holds the lock of a slot nothing is fetched, and nobody waits for it.

use std::sync::atomic::Ordering;

use smallvec::SmallVec;

use super::lock::SlotLock;
use super::{Entry, FETCHED, Keyspace, Table, ValueRef};
use crate::prefetch::{prefetch, prefetch_to_write};

impl Keyspace {
    /// Brings the table of a slot nearer; reads nothing of it, so that no lock is needed.
    #[inline]
    pub fn prefetch_table(&self, db: u16, slot: u16) {
        if let Some(table) = self.table_ptr(db, slot) {
            prefetch(table);
        }
    }

    /// Brings the bucket of a key nearer; its table should be in the cache by now.
    #[inline]
    pub fn prefetch_bucket(&self, db: u16, slot: u16, hash: u64) {
        self.peek_table(db, slot, |table| table.prefetch(hash));
    }

    /// Brings the entry of a key nearer; its bucket should be in the cache by now.
    #[inline]
    pub fn prefetch_entry(&self, db: u16, slot: u16, hash: u64) {
        self.peek_table(db, slot, |table| {
            table.prefetch_entry(hash);
        });
    }

    /// Brings tables, then buckets, then entries, then members of large collections (or fields) nearer, where the caller knows
    /// one (`None`: all are strings). Each lock that is free is taken once for all of them, and held no longer than this takes.
    pub fn prefetch_all<'m>(
        &self,
        db: u16,
        places: &[(u64, u16)],
        member: Option<impl Fn(usize) -> Option<(&'m [u8], &'m [u8])>>,
    ) {
        debug_assert!(places.len() <= FETCHED);
        let tables = self.databases[db as usize].load(Ordering::Acquire);
        if tables.is_null() {
            return;
        }
        // SAFETY: a database, once made, is never freed while the keyspace lives.
        #[expect(unsafe_code, reason = "the pointer is a leaked box of ours")]
        let tables = unsafe { &(*tables).0 };
        for (_, slot) in places {
            prefetch_to_write(&self.locks[*slot as usize]);
            prefetch(tables[*slot as usize].get());
        }
        let mut looks = Looks { locks: &self.locks, held: [0; FETCHED], len: 0 };
        let mut seen: [Option<&Table>; FETCHED] = [None; FETCHED];
        // Of a collection one element after the other is asked for.
        let repeats = member.is_some();
        let is_repeated = |at: usize| repeats && at > 0 && places[at] == places[at - 1];
        for (at, (hash, slot)) in places.iter().take(FETCHED).enumerate() {
            if is_repeated(at) {
                seen[at] = seen[at - 1];
            } else if looks.take(*slot) {
                // SAFETY: the slot's lock is held until `looks` goes, and nothing of the table is used behind that.
                #[expect(unsafe_code, reason = "reads a table under its slot's lock")]
                let table = unsafe { &*tables[*slot as usize].get() };
                table.prefetch(*hash);
                seen[at] = Some(table);
            }
        }
        let seen = || seen.iter().zip(places).enumerate();
        let mut deeper: SmallVec<[(&Table, u64); FETCHED]> = SmallVec::new();
        for (at, (table, (hash, _))) in seen() {
            if let Some(table) = table
                && !is_repeated(at)
                && table.prefetch_entry(*hash)
            {
                deeper.push((table, *hash));
            }
        }
        deeper.iter().for_each(|(table, hash)| table.prefetch_in_child(*hash));
        let Some(member) = member else { return };
        for (at, (table, (hash, _))) in seen() {
            if let (Some(table), Some((key, member))) = (table, member(at))
                && let Some(ValueRef::Collection(held)) = table.get(*hash, key).map(Entry::value)
            {
                held.prefetch(member);
            }
        }
    }

    /// Looks at a table that nobody is changing at the moment. Waiting for its lock would cost more than
    /// a prefetch gains; reading it without would be a race.
    #[inline]
    fn peek_table(&self, db: u16, slot: u16, look: impl FnOnce(&Table)) {
        if let Some(_guard) = self.locks[slot as usize].try_lock()
            && let Some(table) = self.table_ptr(db, slot)
        {
            // SAFETY: the slot's lock is held by `_guard`.
            #[expect(unsafe_code, reason = "reads a table under its slot's lock")]
            look(unsafe { &*table });
        }
    }
}

/// Locks that are held for a look at several tables.
struct Looks<'k> {
    locks: &'k [SlotLock],
    held: [u16; FETCHED],
    len: usize,
}

impl Looks<'_> {
    /// Takes the lock of a slot if it is free; `true`: it is held, by this call or by one before.
    #[inline]
    fn take(&mut self, slot: u16) -> bool {
        let held = &self.held[..self.len];
        let lock = &self.locks[slot as usize];
        if lock.is_taken() || !lock.try_take() {
            return held.contains(&slot);
        }
        self.held[self.len] = slot;
        self.len += 1;
        true
    }
}

impl Drop for Looks<'_> {
    #[inline]
    fn drop(&mut self) {
        self.held[..self.len].iter().for_each(|slot| self.locks[*slot as usize].unlock());
    }
}
