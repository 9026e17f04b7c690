//! The sweep for what has expired: a walk through one table, a few keys and fields at a time.

use super::Db;
use crate::keyspace::Entry;
use crate::lazy;
use crate::notify::class;
use crate::types::{CollectionMut, CollectionRef};

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

impl Db<'_> {
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
        match due.map(CollectionRef::next_due) {
            Some(next) if next <= now => {}
            next => return (Vec::new(), next.unwrap_or(i64::MAX)),
        }
        let take = |value: &mut CollectionMut<'_>| match value {
            CollectionMut::Hash(hash) => {
                let fields = hash.take_due(now, limit);
                (fields, hash.next_due(), hash.is_empty())
            }
            _ => (Vec::new(), i64::MAX, false),
        };
        let Some((fields, next, empty)) = self.change_located(key, hash, slot, take) else {
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
}
