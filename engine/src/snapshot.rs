//! Snapshots without fork: a walk over the slots that sees every entry as it was at one moment.
//!
//! Each entry has a parity bit. A snapshot begins, under all locks, by choosing the other parity; an
//! entry whose bit differs has not been saved yet. The walk saves and marks it, slot by slot; whoever
//! changes or deletes an entry before the walk has come there saves its old value first. New entries
//! are born marked. So the snapshot is the data set of the moment it began, and what it costs is the old
//! values of the entries that changed meanwhile, until the writer has taken them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::keyspace::Entry;

/// Encodes one entry (database, entry) into a snapshot's form.
pub type Encode = fn(u16, &Entry, &mut Vec<u8>);

/// Old values that writers gave to a running snapshot.
pub struct Preimages {
    parity: bool,
    encode: Encode,
    saved: Mutex<Vec<(u16, Vec<u8>)>>,
    bytes: AtomicU64,
}

impl Preimages {
    pub fn new(parity: bool, encode: Encode) -> Preimages {
        Preimages { parity, encode, saved: Mutex::new(Vec::new()), bytes: AtomicU64::new(0) }
    }

    /// Bit of the entries that this snapshot has or does not want.
    pub fn parity(&self) -> bool {
        self.parity
    }

    /// Saves an entry that is about to change, once; the caller holds its slot's lock.
    pub fn save(&self, db: u16, _slot: u16, entry: &mut Entry) {
        if entry.parity() == self.parity {
            return;
        }
        entry.set_parity(self.parity);
        let mut bytes = Vec::new();
        (self.encode)(db, entry, &mut bytes);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.saved.lock().unwrap_or_else(PoisonError::into_inner).push((db, bytes));
    }

    /// What was saved since the last call.
    pub fn take(&self) -> Vec<(u16, Vec<u8>)> {
        std::mem::take(&mut *self.saved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Bytes that writers have saved for this snapshot in all.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
