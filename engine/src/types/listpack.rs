//! A compact run of elements in the ecosystem's listpack format.
//!
//! ```text
//! +-------------+-------------+---------+---------+-----+------+
//! | bytes u32le | count u16le | entry 0 | entry 1 | ... | 0xff |
//! +-------------+-------------+---------+---------+-----+------+
//! entry: encoding byte(s), data, then the length of those two, written so that it can be read backwards
//! ```
//!
//! A position is the byte offset of an entry; it stays valid until the listpack changes before it. A [`Listpack`] is
//! always well formed: bytes from outside come in through [`Listpack::from_bytes`], which checks every entry.

use super::{Item, size_class};

mod entry;

use entry::{Entry, backlen_at, decode, entry_len};

pub(super) const HEADER: usize = 6;
const END: u8 = 0xff;
/// A count that the header cannot hold: count by walking.
const COUNT_UNKNOWN: u16 = u16::MAX;
/// No listpack grows beyond this, whatever the configured limits are; the header's u32 would allow 4 GiB.
pub const BYTES_MAX: usize = 1 << 30;

/// A run of elements in one block of bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Listpack {
    bytes: Vec<u8>,
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// An empty listpack.
    pub fn new() -> Self {
        let mut bytes = Vec::with_capacity(16);
        bytes.extend_from_slice(&[HEADER as u8 + 1, 0, 0, 0, 0, 0, END]);
        Self { bytes }
    }

    /// Takes bytes from outside, if every entry of them is well formed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        validate(bytes)?;
        let mut listpack = Self { bytes: Vec::with_capacity(size_class(bytes.len())) };
        listpack.bytes.extend_from_slice(bytes);
        Some(listpack)
    }

    /// The block, as RDB writes it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        match self.header_count() {
            COUNT_UNKNOWN => self.iter().count(),
            count => usize::from(count),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.bytes.len() == HEADER + 1
    }

    /// What the block takes from the allocator.
    pub fn memory_usage(&self) -> usize {
        size_class(self.bytes.capacity())
    }

    /// Whether elements of `more` bytes in total can still be added.
    pub fn has_room(&self, more: usize) -> bool {
        more < BYTES_MAX && self.bytes.len() + more < BYTES_MAX
    }

    /// How many bytes an element takes in a listpack.
    pub fn encoded_len(element: &[u8]) -> usize {
        Entry::of(element).total_len()
    }

    /// The position of the first element.
    pub fn first(&self) -> Option<usize> {
        self.position(HEADER)
    }

    /// The position of the last element.
    pub fn last(&self) -> Option<usize> {
        self.before(self.end())
    }

    /// The position after this one.
    pub fn next(&self, at: usize) -> Option<usize> {
        self.position(at + entry_len(&self.bytes[at..]))
    }

    /// The position before this one.
    pub fn prev(&self, at: usize) -> Option<usize> {
        self.before(at)
    }

    /// The position of an element by its index from the front, walking from the nearer end.
    pub fn seek(&self, index: usize) -> Option<usize> {
        let len = self.len();
        if index >= len {
            return None;
        }
        if index <= len / 2 {
            let mut at = HEADER;
            for _ in 0..index {
                at += entry_len(&self.bytes[at..]);
            }
            Some(at)
        } else {
            let mut at = self.end();
            for _ in index..len {
                at = self.before(at)?;
            }
            Some(at)
        }
    }

    /// The element at a position.
    pub fn get(&self, at: usize) -> Item<'_> {
        decode(&self.bytes[at..])
    }

    /// The position of the first element equal to `wanted`, from `at` on, looking at each `stride`-th element only.
    pub fn find(&self, mut at: usize, wanted: &[u8], stride: usize) -> Option<usize> {
        let wanted = Item::compact(wanted);
        loop {
            self.position(at)?;
            let hit = match (decode(&self.bytes[at..]), wanted) {
                (Item::Int(a), Item::Int(b)) => a == b,
                (Item::Bytes(a), Item::Bytes(b)) => a == b,
                // Written by others, an integer may stand there as text.
                (Item::Bytes(_), Item::Int(_)) => decode(&self.bytes[at..]) == wanted,
                (Item::Int(_), Item::Bytes(_)) => false,
            };
            if hit {
                return Some(at);
            }
            for _ in 0..stride {
                self.position(at)?;
                at += entry_len(&self.bytes[at..]);
            }
        }
    }

    /// Adds an element at the back.
    pub fn push_back(&mut self, element: &[u8]) {
        self.insert(self.end(), element);
    }

    /// Adds an element at the front.
    pub fn push_front(&mut self, element: &[u8]) {
        self.insert(HEADER, element);
    }

    /// The position behind the last element.
    pub fn end(&self) -> usize {
        self.bytes.len() - 1
    }

    /// Puts an element before the one at `at` (or at the end).
    pub fn insert(&mut self, at: usize, element: &[u8]) {
        self.splice(at, 0, element);
        self.add_to_count(1);
    }

    /// Puts an element in the place of the one at `at`.
    pub fn replace(&mut self, at: usize, element: &[u8]) {
        self.splice(at, entry_len(&self.bytes[at..]), element);
    }

    /// Removes up to `count` elements from `at` on; what followed them is then at `at`.
    pub fn remove(&mut self, at: usize, count: usize) {
        let mut end = at;
        let mut removed = 0;
        while removed < count && self.bytes[end] != END {
            end += entry_len(&self.bytes[end..]);
            removed += 1;
        }
        let counted = self.header_count() != COUNT_UNKNOWN;
        self.bytes.copy_within(end.., at);
        let len = self.bytes.len() - (end - at);
        self.bytes.truncate(len);
        if size_class(len) * 2 <= self.bytes.capacity() {
            self.bytes.shrink_to(size_class(len));
        }
        self.write_len();
        if counted {
            self.add_to_count(-(removed as i64));
        }
    }

    /// Splits off the elements from `at` on.
    pub fn split_off(&mut self, at: usize) -> Self {
        let mut tail = Self { bytes: Vec::with_capacity(HEADER + self.bytes.len() - at) };
        tail.bytes.extend_from_slice(&[0; HEADER]);
        tail.bytes.extend_from_slice(&self.bytes[at..]);
        tail.write_len();
        tail.recount();
        self.bytes.truncate(at);
        self.bytes.push(END);
        self.bytes.shrink_to(size_class(self.bytes.len()));
        self.write_len();
        self.recount();
        tail
    }

    /// Adds all elements of another listpack at the back.
    pub fn append(&mut self, other: &Self) {
        let count = self.len() + other.len();
        self.bytes.pop();
        self.grow(other.bytes.len() - HEADER);
        self.bytes.extend_from_slice(&other.bytes[HEADER..]);
        self.write_len();
        self.write_count(count);
    }

    /// All elements from front to back; reversible.
    pub fn iter(&self) -> Iter<'_> {
        Iter { listpack: self, front: HEADER, back: self.end() }
    }

    /// The elements from a position on.
    pub fn iter_from(&self, at: usize) -> Iter<'_> {
        Iter { listpack: self, front: at, back: self.end() }
    }

    fn position(&self, at: usize) -> Option<usize> {
        (self.bytes[at] != END).then_some(at)
    }

    fn before(&self, at: usize) -> Option<usize> {
        if at <= HEADER {
            return None;
        }
        let (len, width) = backlen_at(&self.bytes[..at]);
        Some(at - len - width)
    }

    /// Replaces `old` bytes at `at` by the entry of an element.
    fn splice(&mut self, at: usize, old: usize, element: &[u8]) {
        let entry = Entry::of(element);
        let new = entry.total_len();
        let len = self.bytes.len();
        if new > old {
            self.grow(new - old);
            self.bytes.resize(len + new - old, 0);
        }
        if new != old {
            self.bytes.copy_within(at + old..len, at + new);
            self.bytes.truncate(len + new - old);
        }
        entry.write(&mut self.bytes[at..at + new]);
        self.write_len();
    }

    /// Makes room in steps of the allocator's classes: growing inside a class is free, and nothing is set aside unused.
    fn grow(&mut self, more: usize) {
        let needed = self.bytes.len() + more;
        if needed > self.bytes.capacity() {
            self.bytes.reserve_exact(size_class(needed) - self.bytes.len());
        }
    }

    fn write_len(&mut self) {
        let len = self.bytes.len();
        assert!(len < 2 * BYTES_MAX, "a listpack outgrew its format");
        self.bytes[..4].copy_from_slice(&(len as u32).to_le_bytes());
    }

    fn header_count(&self) -> u16 {
        u16::from_le_bytes([self.bytes[4], self.bytes[5]])
    }

    fn write_count(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(COUNT_UNKNOWN);
        self.bytes[4..6].copy_from_slice(&count.to_le_bytes());
    }

    fn add_to_count(&mut self, change: i64) {
        let count = self.header_count();
        if count != COUNT_UNKNOWN {
            self.write_count((i64::from(count) + change).max(0) as usize);
        }
    }

    fn recount(&mut self) {
        let count = self.iter().count();
        self.write_count(count);
    }
}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Elements between two positions.
#[derive(Clone)]
pub struct Iter<'a> {
    listpack: &'a Listpack,
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.front >= self.back {
            return None;
        }
        let bytes = &self.listpack.bytes[self.front..];
        self.front += entry_len(bytes);
        Some(decode(bytes))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = self.listpack.before(self.back)?;
        Some(decode(&self.listpack.bytes[self.back..]))
    }
}

/// Checks bytes from outside: header, every entry, and that each can be walked back over. Gives the count.
pub fn validate(bytes: &[u8]) -> Option<usize> {
    let (header, entries) = bytes.split_at_checked(HEADER)?;
    let total = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    if total != bytes.len() || total >= 2 * BYTES_MAX {
        return None;
    }
    let (&end, mut rest) = entries.split_last()?;
    let mut count = 0;
    while !rest.is_empty() {
        rest = &rest[entry::validate(rest)?..];
        count += 1;
    }
    let stated = u16::from_le_bytes([header[4], header[5]]);
    let counted = stated == COUNT_UNKNOWN || usize::from(stated) == count;
    (end == END && counted).then_some(count)
}

#[cfg(test)]
mod tests;
