//! A hash as clients see it at a time: fields whose time is over are not there, although nobody has taken them out yet.

use super::Hash;
use crate::types::{Item, below};

/// How often a random choice that met a hidden field is made again before the fields are walked.
const TRIES: usize = 64;

/// See [`Hash::at`].
#[derive(Clone, Copy)]
pub struct View<'a> {
    hash: &'a Hash,
    now_ms: i64,
    /// Some field may be hidden. Most hashes have none, and are asked directly.
    hides: bool,
}

impl<'a> View<'a> {
    #[inline]
    pub(super) fn new(hash: &'a Hash, now_ms: i64) -> Self {
        Self { hash, now_ms, hides: hash.next_due() <= now_ms }
    }

    /// Visits the fields with their values, in no particular order.
    pub fn each(self, mut visit: impl FnMut(Item<'a>, Item<'a>)) {
        if self.hides {
            self.seen().for_each(|(field, value)| visit(field, value));
        } else {
            self.hash.iter().for_each(|(field, value)| visit(field, value));
        }
    }

    fn seen(self) -> impl Iterator<Item = (Item<'a>, Item<'a>)> {
        let timed = self.hash.iter_timed();
        timed
            .filter(move |(_, _, time)| *time > self.now_ms)
            .map(|(field, value, _)| (field, value))
    }

    /// How many fields are seen.
    pub fn len(&self) -> usize {
        if self.hides { self.seen().count() } else { self.hash.len() }
    }

    /// Whether no field is seen.
    pub fn is_empty(&self) -> bool {
        if self.hides { self.seen().next().is_none() } else { self.hash.is_empty() }
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Item<'a>> {
        if self.hides && self.hash.time(field).is_none_or(|time| time <= self.now_ms) {
            return None;
        }
        self.hash.get(field)
    }

    /// Whether the field is there.
    #[inline]
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// When a field goes: [`super::NEVER`] when it has no time; nothing when it is not there.
    pub fn time(&self, field: &[u8]) -> Option<i64> {
        self.hash.time(field).filter(|time| !self.hides || *time > self.now_ms)
    }

    /// As [`Hash::scan`].
    pub fn scan(
        &self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Item<'a>, Item<'a>),
    ) -> u64 {
        if !self.hides {
            return self.hash.scan(cursor, count, visit);
        }
        self.hash.scan_timed(cursor, count, |field, value, time| {
            if time > self.now_ms {
                visit(field, value);
            }
        })
    }

    /// A field, each with the same chance.
    pub fn random(&self, entropy: &mut dyn FnMut() -> u64) -> Option<(Item<'a>, Item<'a>)> {
        if !self.hides {
            return self.hash.random(entropy);
        }
        for _ in 0..TRIES {
            let (field, value, time) = self.hash.random_timed(entropy)?;
            if time > self.now_ms {
                return Some((field, value));
            }
        }
        let chosen = below(entropy, self.len());
        self.seen().nth(chosen)
    }

    /// Visits `count` distinct fields chosen at random (all, if there are not more).
    pub fn random_distinct(
        &self,
        count: usize,
        entropy: &mut dyn FnMut() -> u64,
        mut visit: impl FnMut(Item<'a>, Item<'a>),
    ) {
        if !self.hides {
            return self.hash.random_distinct(count, entropy, visit);
        }
        crate::types::sample_pass(self.seen(), self.len(), count, entropy, |(f, v)| visit(f, v));
    }
}

impl Hash {
    fn scan_timed<'a>(
        &'a self,
        cursor: u64,
        count: usize,
        mut visit: impl FnMut(Item<'a>, Item<'a>, i64),
    ) -> u64 {
        match self.form() {
            super::Form::Pack(_) => {
                self.iter_timed().for_each(|(field, value, time)| visit(field, value, time));
                0
            }
            super::Form::Table(table) => table.scan(cursor, count, |pair| {
                visit(Item::Bytes(pair.field()), Item::Bytes(pair.value()), pair.time());
            }),
        }
    }

    fn random_timed(&self, entropy: &mut dyn FnMut() -> u64) -> Option<(Item<'_>, Item<'_>, i64)> {
        let (field, value) = self.random(entropy)?;
        let time = self.time(field.bytes(&mut crate::types::Digits::new()))?;
        Some((field, value, time))
    }
}
