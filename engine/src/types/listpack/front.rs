//! A listpack that grows at its front: what is pushed there moves nothing.
//!
//! ```text
//! +-----+--------+---------+---------+-----+------+
//! | gap | header | entry 0 | entry 1 | ... | 0xff |      the listpack ends where the buffer ends
//! +-----+--------+---------+---------+-----+------+
//! ```
//!
//! A push writes its entry over the header and a new header before it. All else is done with a [`Listpack`] made of it.

use super::{END, HEADER, Item, Iter, Listpack, decode, entry::Entry, entry_len, seek};
use crate::types::{block::Block, size_class};

/// The first buffer, bytes; each one that is outgrown is followed by one twice as long.
const FIRST: usize = 1024;

/// A run of elements with room in front. It never holds as many as a header cannot count.
#[derive(Clone)]
pub struct Front {
    buffer: Box<[u8]>,
    /// Where the header is.
    start: usize,
}

impl Front {
    /// One element.
    pub fn of(element: &[u8]) -> Self {
        let mut front = Self { buffer: vec![0; FIRST].into_boxed_slice(), start: 0 };
        front.begin(element);
        front
    }

    /// One element in place of all that there are.
    pub fn begin(&mut self, element: &[u8]) {
        self.start = self.buffer.len() - HEADER - 1;
        self.buffer[self.start + HEADER] = END;
        self.write_header(0);
        self.push(element);
    }

    /// The listpack.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// How many elements there are.
    pub fn count(&self) -> usize {
        let bytes = self.as_bytes();
        usize::from(u16::from_le_bytes([bytes[4], bytes[5]]))
    }

    /// What it takes from the allocator, besides `self`.
    pub fn memory_usage(&self) -> usize {
        size_class(self.buffer.len())
    }

    /// Adds an element at the front.
    pub fn push(&mut self, element: &[u8]) {
        let entry = Entry::of(element);
        let (len, count) = (entry.total_len(), self.count());
        if len > self.start {
            self.grow(len);
        }
        self.start -= len;
        entry.write(&mut self.buffer[self.start + HEADER..][..len]);
        self.write_header(count + 1);
    }

    /// Takes the first element out, if it is not the only one.
    pub fn drop_first(&mut self) {
        let count = self.count();
        if count > 1 {
            self.start += entry_len(&self.as_bytes()[HEADER..]);
            self.write_header(count - 1);
        }
    }

    /// The element at an index from the front.
    pub fn get(&self, index: usize) -> Option<Item<'_>> {
        let bytes = self.as_bytes();
        seek(bytes, self.count(), index).map(|at| decode(&bytes[at..]))
    }

    /// All elements from front to back; reversible.
    pub fn iter(&self) -> Iter<'_> {
        let bytes = self.as_bytes();
        Iter { bytes, front: HEADER, back: bytes.len() - 1 }
    }

    /// The same elements in a block of their own.
    pub fn to_listpack(&self) -> Listpack {
        Listpack(Block::copy_of(self.as_bytes()))
    }

    fn write_header(&mut self, count: usize) {
        let (total, header) = (self.buffer.len() - self.start, &mut self.buffer[self.start..]);
        header[..4].copy_from_slice(&(total as u32).to_le_bytes());
        header[4..HEADER].copy_from_slice(&(count as u16).to_le_bytes());
    }

    #[cold]
    fn grow(&mut self, more: usize) {
        let used = self.as_bytes().len();
        let mut buffer = vec![0; (used + more).next_power_of_two().max(FIRST)].into_boxed_slice();
        let start = buffer.len() - used;
        buffer[start..].copy_from_slice(self.as_bytes());
        *self = Self { buffer, start };
    }
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn is_the_listpack_of_the_same_pushes_and_pops(
            ops in prop::collection::vec(prop::option::weighted(0.8, "[0-9a]{1,40}|[b-d]{100,3000}"), 1..60),
        ) {
            let mut front = Front::of(b"first");
            let mut pack = Listpack::new();
            pack.push_front(b"first");
            for op in ops {
                match op {
                    Some(element) => {
                        front.push(element.as_bytes());
                        pack.push_front(element.as_bytes());
                    }
                    None => {
                        front.drop_first();
                        if pack.len() > 1 {
                            pack.remove(HEADER, 1);
                        }
                    }
                }
                prop_assert_eq!(front.as_bytes(), pack.as_bytes());
                prop_assert_eq!(front.count(), pack.len());
                prop_assert!(front.to_listpack() == pack);
                prop_assert_eq!(front.get(pack.len() - 1), pack.last().map(|at| pack.get(at)));
                prop_assert!(front.iter().rev().eq(pack.iter().rev()));
            }
        }
    }
}
