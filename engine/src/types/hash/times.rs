//! Hashes in which some fields have a time at which they go.
//!
//! Small: a time for each field beside the listpack, in its order, [`NEVER`] for those that stay. Large: the time stands in
//! front of the pair, and a heap says whose turn is next. A time that was changed leaves its old entry in the heap, where it
//! is found void when its turn comes; when void ones are the most, they are swept out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::Table;
use super::{NEVER, put_packed};
use crate::types::{Listpack, size_class};

/// Entries of a heap that are not worth a sweep.
const VOID_FREE: usize = 32;
/// Void entries that a call may meet for each field that it may take.
const VOID_PER_TAKEN: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct TimedPack {
    pack: Listpack,
    /// One for each field.
    times: Vec<i64>,
    /// The earliest of them.
    next: i64,
}

impl TimedPack {
    pub(super) fn new(pack: Listpack) -> Self {
        let fields = pack.len() / 2;
        let mut times =
            Vec::with_capacity(size_class(fields * size_of::<i64>()) / size_of::<i64>());
        times.resize(fields, NEVER);
        Self { pack, times, next: NEVER }
    }

    pub(super) fn pack(&self) -> &Listpack {
        &self.pack
    }

    pub(super) fn take_pack(&mut self) -> Listpack {
        std::mem::take(&mut self.pack)
    }

    pub(super) fn times(&self) -> &[i64] {
        &self.times
    }

    pub(super) fn has_times(&self) -> bool {
        self.next != NEVER
    }

    pub(super) fn next_due(&self) -> i64 {
        self.next
    }

    pub(super) fn memory_usage(&self) -> usize {
        size_class(size_of::<Self>())
            + self.pack.memory_usage()
            + size_class(self.times.capacity() * size_of::<i64>())
    }

    /// The place of a field among the fields.
    fn index(&self, field: &[u8]) -> Option<usize> {
        let mut at = self.pack.first()?;
        let wanted = self.pack.find(at, field, 2)?;
        let mut index = 0;
        while at < wanted {
            at = self.pack.next(self.pack.next(at)?)?;
            index += 1;
        }
        Some(index)
    }

    pub(super) fn time(&self, field: &[u8]) -> Option<i64> {
        self.index(field).and_then(|index| self.times.get(index)).copied()
    }

    pub(super) fn set_time(&mut self, field: &[u8], time: i64) -> bool {
        let found = self.index(field).and_then(|index| self.times.get_mut(index));
        if let Some(slot) = found {
            let was = std::mem::replace(slot, time);
            self.note(was, time);
            return true;
        }
        false
    }

    /// A time was changed.
    fn note(&mut self, was: i64, time: i64) {
        if time < self.next {
            self.next = time;
        } else if was == self.next {
            self.find_next();
        }
    }

    fn find_next(&mut self) {
        self.next = self.times.iter().copied().min().unwrap_or(NEVER);
    }

    /// Sets a field, and its time unless it keeps it: whether it is new, or nothing when it is one field too many.
    pub(super) fn put(
        &mut self,
        field: &[u8],
        value: &[u8],
        time: Option<i64>,
        most: usize,
    ) -> Option<bool> {
        let new = put_packed(&mut self.pack, field, value, most)?;
        if new {
            let time = time.unwrap_or(NEVER);
            if self.times.len() == self.times.capacity() {
                let bytes = size_class((self.times.len() + 1) * size_of::<i64>());
                self.times.reserve_exact(bytes / size_of::<i64>() - self.times.len());
            }
            self.times.push(time);
            self.next = self.next.min(time);
        } else if let Some(time) = time {
            self.set_time(field, time);
        }
        Some(new)
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let Some(index) = self.index(field) else { return false };
        self.remove_at(index);
        self.find_next();
        true
    }

    /// Removes the field at a place and gives its name.
    fn remove_at(&mut self, index: usize) -> Option<Vec<u8>> {
        let at = self.pack.seek(2 * index)?;
        let field = self.pack.get(at).to_vec();
        self.pack.remove(at, 2);
        self.times.remove(index);
        let bytes = size_class(self.times.len() * size_of::<i64>());
        if bytes * 2 <= self.times.capacity() * size_of::<i64>() {
            self.times.shrink_to(bytes / size_of::<i64>());
        }
        Some(field)
    }

    pub(super) fn take_due(&mut self, now_ms: i64, limit: usize) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        let mut index = 0;
        while taken.len() < limit && index < self.times.len() {
            if self.times[index] > now_ms {
                index += 1;
                continue;
            }
            match self.remove_at(index) {
                Some(field) => taken.push(field),
                None => break,
            }
        }
        self.find_next();
        taken
    }
}

#[derive(Clone, Debug)]
pub(super) struct TimedTable {
    table: Table,
    /// Times and hashes of fields, the earliest first: of every field that has a time, and void ones.
    due: BinaryHeap<Reverse<(i64, u64)>>,
    /// Fields that have a time.
    timed: usize,
}

impl TimedTable {
    pub(super) fn new(table: Table) -> Self {
        let times = table.dict.iter().filter(|pair| pair.time() != NEVER);
        let due: Vec<_> =
            times.map(|pair| Reverse((pair.time(), table.dict.hash(pair.field())))).collect();
        Self { timed: due.len(), due: due.into(), table }
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn take_table(&mut self) -> Table {
        self.table.take()
    }

    pub(super) fn has_times(&self) -> bool {
        self.timed > 0
    }

    pub(super) fn next_due(&self) -> i64 {
        self.due.peek().map_or(NEVER, |Reverse((time, _))| *time)
    }

    pub(super) fn memory_usage(&self) -> usize {
        size_class(size_of::<Self>())
            + self.table.memory_usage()
            + size_class(self.due.capacity() * size_of::<(i64, u64)>())
    }

    /// Sets a field, and its time unless it keeps it; says whether it is new.
    pub(super) fn put(&mut self, field: &[u8], value: &[u8], time: Option<i64>) -> bool {
        let kept = || self.table.find(field).map_or(NEVER, |pair| pair.time());
        let time = time.unwrap_or_else(kept);
        let had = self.table.set(field, value, time);
        self.note(field, had.unwrap_or(NEVER), time);
        had.is_none()
    }

    pub(super) fn set_time(&mut self, field: &[u8], time: i64) -> bool {
        let Some(pair) = self.table.find(field) else { return false };
        if pair.time() != time {
            let value = pair.value().to_vec();
            let had = self.table.set(field, &value, time);
            self.note(field, had.unwrap_or(NEVER), time);
        }
        true
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.table.remove(field);
        if let Some(pair) = &removed {
            self.note(field, pair.time(), NEVER);
        }
        removed.is_some()
    }

    /// The time of a field was changed.
    fn note(&mut self, field: &[u8], was: i64, time: i64) {
        if was == time {
            return;
        }
        self.timed += usize::from(time != NEVER);
        self.timed -= usize::from(was != NEVER);
        if time != NEVER {
            self.due.push(Reverse((time, self.table.dict.hash(field))));
        }
        if self.due.len() > 2 * self.timed + VOID_FREE {
            self.sweep();
        }
    }

    /// Takes the void entries out of the heap.
    fn sweep(&mut self) {
        let mut due = std::mem::take(&mut self.due).into_vec();
        due.sort_unstable();
        due.dedup();
        due.retain(|Reverse((time, hash))| self.table.has_due(*hash, *time));
        due.shrink_to_fit();
        self.due = due.into();
    }

    pub(super) fn take_due(&mut self, now_ms: i64, limit: usize) -> Vec<Vec<u8>> {
        let mut taken = Vec::new();
        let mut looked_at = 0;
        while taken.len() < limit && looked_at < limit.saturating_mul(VOID_PER_TAKEN) {
            let Some(Reverse((time, hash))) = self.due.peek().copied() else { break };
            if time > now_ms {
                break;
            }
            looked_at += 1;
            // More than one, if ever two fields have one hash: the entry goes with the last.
            match self.table.remove_due(hash, time) {
                Some(pair) => {
                    self.timed -= 1;
                    taken.push(pair.field().to_vec());
                }
                None => drop(self.due.pop()),
            }
        }
        if self.due.capacity() > 4 * self.due.len() + VOID_FREE {
            self.due.shrink_to(2 * self.due.len());
        }
        taken
    }
}
