//! The table of a large hash: pairs under the hash of their field.

use crate::types::{
    Item,
    dict::{Dict, hash_key},
    text::Pair,
};

#[derive(Clone)]
pub(super) struct Table {
    pub(super) dict: Dict<Pair>,
    /// What the pairs own.
    pub(super) pair_bytes: usize,
}

pub(super) fn as_items(pair: &Pair) -> (Item<'_>, Item<'_>) {
    (Item::Bytes(pair.field()), Item::Bytes(pair.value()))
}

fn hash_of(dict: &Dict<Pair>) -> impl Fn(&Pair) -> u64 + use<> {
    let seed = dict.seed();
    move |pair| hash_key(seed, pair.field())
}

impl Table {
    pub(super) fn new(seed: u64) -> Self {
        Self { dict: Dict::new(seed), pair_bytes: 0 }
    }

    /// What it holds, elsewhere from now on.
    pub(super) fn take(&mut self) -> Self {
        let seed = self.dict.seed();
        std::mem::replace(self, Self::new(seed))
    }

    pub(super) fn memory_usage(&self) -> usize {
        self.dict.memory_usage() + self.pair_bytes
    }

    pub(super) fn find(&self, field: &[u8]) -> Option<&Pair> {
        self.dict.find(self.dict.hash(field), |pair| pair.field() == field)
    }

    /// Sets a field; gives the time that it had, if it was there.
    pub(super) fn set(&mut self, field: &[u8], value: &[u8], time: i64) -> Option<i64> {
        let hash = self.dict.hash(field);
        if let Some(old) = self.dict.find_mut(hash, |pair| pair.field() == field) {
            let had = old.time();
            if had != time || !old.overwrite(value) {
                self.pair_bytes -= old.heap_size();
                *old = Pair::new(field, value, time);
                self.pair_bytes += old.heap_size();
            }
            return Some(had);
        }
        let pair = Pair::new(field, value, time);
        self.pair_bytes += pair.heap_size();
        let hash_of = hash_of(&self.dict);
        self.dict.insert(hash, pair, hash_of);
        None
    }

    pub(super) fn remove(&mut self, field: &[u8]) -> Option<Pair> {
        self.remove_where(self.dict.hash(field), |pair| pair.field() == field)
    }

    /// Removes a pair of this hash that goes at this time.
    pub(super) fn remove_due(&mut self, hash: u64, time: i64) -> Option<Pair> {
        let hash_of = hash_of(&self.dict);
        self.remove_where(hash, |pair| pair.time() == time && hash_of(pair) == hash)
    }

    /// Whether there is such a pair.
    pub(super) fn has_due(&self, hash: u64, time: i64) -> bool {
        let hash_of = hash_of(&self.dict);
        self.dict.find(hash, |pair| pair.time() == time && hash_of(pair) == hash).is_some()
    }

    fn remove_where(&mut self, hash: u64, eq: impl FnMut(&Pair) -> bool) -> Option<Pair> {
        let hash_of = hash_of(&self.dict);
        let removed = self.dict.remove(hash, eq, hash_of);
        self.pair_bytes -= removed.as_ref().map_or(0, Pair::heap_size);
        removed
    }

    pub(super) fn scan<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        visit: impl FnMut(&'a Pair),
    ) -> u64 {
        self.dict.scan(cursor, count, hash_of(&self.dict), visit)
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map().entries(self.dict.iter().map(as_items)).finish()
    }
}
