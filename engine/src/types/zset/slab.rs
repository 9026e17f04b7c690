//! The members of a large sorted set, each once, named by a number.
//!
//! The table and the tree both hold these numbers, four bytes each, instead of the member. Slots come in chunks, so
//! that growth moves nothing.

use std::ops::Index;

use crate::types::{size_class, text::Text};

const CHUNK: usize = 64;

/// A member; a slot without one has NaN for a score, which no member has.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) member: Text,
    pub(super) score: f64,
}

#[derive(Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Slot>>,
    free: Vec<u32>,
    len: usize,
    /// What the members own.
    member_bytes: usize,
    /// What the chunks take, and the lists of them and of what is free.
    frame_bytes: usize,
}

impl Clone for Slab {
    fn clone(&self) -> Self {
        // A chunk that is not full is still to be.
        let whole = |chunk: &Vec<Slot>| {
            let mut slots = Vec::with_capacity(CHUNK);
            slots.extend_from_slice(chunk);
            slots
        };
        let chunks = self.chunks.iter().map(whole).collect();
        let mut slab = Self { chunks, free: self.free.clone(), ..*self };
        slab.measure_frame();
        slab
    }
}

impl Slab {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn memory_usage(&self) -> usize {
        self.member_bytes + self.frame_bytes
    }

    fn measure_frame(&mut self) {
        self.frame_bytes = size_class(self.chunks.capacity() * size_of::<Vec<Slot>>())
            + self.chunks.len() * size_class(CHUNK * size_of::<Slot>())
            + size_class(self.free.capacity() * size_of::<u32>());
    }

    pub(super) fn member(&self, id: u32) -> &[u8] {
        self[id].member.as_bytes()
    }

    pub(super) fn insert(&mut self, member: &[u8], score: f64) -> u32 {
        let slot = Slot { member: Text::new(member), score };
        self.len += 1;
        self.member_bytes += slot.member.heap_size();
        if let Some(id) = self.free.pop() {
            *self.slot(id) = slot;
            return id;
        }
        if self.chunks.last().is_none_or(|chunk| chunk.len() == CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
            self.measure_frame();
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(slot);
        let id = last * CHUNK + self.chunks[last].len() - 1;
        assert!(id < u32::MAX as usize, "a sorted set holds at most 2^32 - 1 members");
        id as u32
    }

    pub(super) fn set_score(&mut self, id: u32, score: f64) {
        self.slot(id).score = score;
    }

    pub(super) fn remove(&mut self, id: u32) {
        let empty = Slot { member: Text::new(b""), score: f64::NAN };
        let slot = std::mem::replace(self.slot(id), empty);
        assert!(!slot.score.is_nan(), "a member is removed once");
        self.member_bytes -= slot.member.heap_size();
        self.len -= 1;
        let room = self.free.capacity();
        self.free.push(id);
        if self.len == 0 {
            *self = Self::default();
        } else if self.free.capacity() != room {
            self.measure_frame();
        }
    }

    fn slot(&mut self, id: u32) -> &mut Slot {
        &mut self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}

impl Index<u32> for Slab {
    type Output = Slot;

    fn index(&self, id: u32) -> &Slot {
        &self.chunks[id as usize / CHUNK][id as usize % CHUNK]
    }
}
