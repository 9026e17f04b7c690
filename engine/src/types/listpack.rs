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

use super::{Item, block::Block, word::Tagged};

mod entry;
mod front;

use entry::{Entry, backlen_at, decode, decode_whole, entry_len};

pub use front::Front;

pub(super) const HEADER: usize = 6;
/// Bytes of the count, which follow the block's length.
const COUNT: usize = 2;
const END: u8 = 0xff;
/// A count that the header cannot hold: count by walking.
const COUNT_UNKNOWN: u16 = u16::MAX;
/// No listpack grows beyond this, whatever the configured limits are; the header's u32 would allow 4 GiB.
pub const BYTES_MAX: usize = 1 << 30;

/// A run of elements in one block of bytes.
#[derive(Clone, PartialEq, Eq)]
#[repr(transparent)]
pub struct Listpack(Bytes);

type Bytes = Block<0>;

// SAFETY: it is its block, and nothing else.
#[expect(unsafe_code, reason = "a block under another name")]
unsafe impl Tagged for Listpack {
    const TAG: usize = Bytes::TAG;
}

impl Default for Listpack {
    fn default() -> Self {
        Self::new()
    }
}

impl Listpack {
    /// An empty listpack.
    pub fn new() -> Self {
        let mut listpack = Self(Block::new(HEADER + 1));
        listpack.write_end();
        listpack
    }

    /// Takes bytes from outside, if every entry of them is well formed.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        validate(bytes)?;
        Some(Self(Block::copy_of(bytes)))
    }

    /// The block, as RDB writes it.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
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
        self.0.len() == HEADER + 1
    }

    /// What the block takes from the allocator.
    pub fn memory_usage(&self) -> usize {
        self.0.capacity()
    }

    /// Whether elements of `more` bytes in total can still be added.
    pub fn has_room(&self, more: usize) -> bool {
        more < BYTES_MAX && self.0.len() + more < BYTES_MAX
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
        self.position(at + entry_len(&self.as_bytes()[at..]))
    }

    /// The position before this one.
    pub fn prev(&self, at: usize) -> Option<usize> {
        self.before(at)
    }

    /// The position of an element by its index from the front, walking from the nearer end.
    pub fn seek(&self, index: usize) -> Option<usize> {
        seek(self.as_bytes(), self.len(), index)
    }

    /// The element at a position.
    pub fn get(&self, at: usize) -> Item<'_> {
        decode(&self.as_bytes()[at..])
    }

    /// The position of the first element equal to `wanted`, from `at` on, looking at each `stride`-th element only.
    pub fn find(&self, mut at: usize, wanted: &[u8], stride: usize) -> Option<usize> {
        let (bytes, wanted) = (self.as_bytes(), Item::compact(wanted));
        loop {
            position(bytes, at)?;
            let (here, len) = decode_whole(&bytes[at..]);
            let hit = match (here, wanted) {
                (Item::Bytes(a), Item::Bytes(b)) => a == b,
                (Item::Int(a), Item::Int(b)) => a == b,
                // Written by others, an integer may stand there as text.
                (Item::Bytes(_), Item::Int(_)) => here == wanted,
                (Item::Int(_), Item::Bytes(_)) => false,
            };
            if hit {
                return Some(at);
            }
            at += len;
            for _ in 1..stride {
                position(bytes, at)?;
                at += entry_len(&bytes[at..]);
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
        self.0.len() - 1
    }

    /// Puts an element before the one at `at` (or at the end).
    pub fn insert(&mut self, at: usize, element: &[u8]) {
        self.splice(at, 0, element);
        self.add_to_count(1);
    }

    /// Puts an element in the place of the one at `at`.
    pub fn replace(&mut self, at: usize, element: &[u8]) {
        self.splice(at, entry_len(&self.as_bytes()[at..]), element);
    }

    /// Removes up to `count` elements from `at` on; what followed them is then at `at`.
    pub fn remove(&mut self, at: usize, count: usize) {
        let bytes = self.as_bytes();
        let mut end = at;
        let mut removed = 0;
        while removed < count && bytes[end] != END {
            end += entry_len(&bytes[end..]);
            removed += 1;
        }
        self.0.splice(at, end - at, 0);
        self.add_to_count(-(removed as i64));
    }

    /// Splits off the elements from `at` on.
    pub fn split_off(&mut self, at: usize) -> Self {
        let moved = &self.as_bytes()[at..];
        let mut tail = Self(Block::new(HEADER + moved.len()));
        tail.0.rest_mut()[COUNT..].copy_from_slice(moved);
        tail.recount();
        self.0.resize(at + 1);
        self.write_end();
        self.recount();
        tail
    }

    /// Adds all elements of another listpack at the back.
    pub fn append(&mut self, other: &Self) {
        let count = self.len() + other.len();
        let more = &other.as_bytes()[HEADER..other.end()];
        self.0.splice(self.end(), 0, more.len()).copy_from_slice(more);
        self.write_count(count);
    }

    /// All elements from front to back; reversible.
    pub fn iter(&self) -> Iter<'_> {
        self.iter_from(HEADER)
    }

    /// The elements from a position on.
    pub fn iter_from(&self, at: usize) -> Iter<'_> {
        Iter { bytes: self.as_bytes(), front: at, back: self.end() }
    }

    fn position(&self, at: usize) -> Option<usize> {
        position(self.as_bytes(), at)
    }

    fn before(&self, at: usize) -> Option<usize> {
        before(self.as_bytes(), at)
    }

    /// Replaces `old` bytes at `at` by the entry of an element.
    fn splice(&mut self, at: usize, old: usize, element: &[u8]) {
        let entry = Entry::of(element);
        entry.write(self.0.splice(at, old, entry.total_len()));
    }

    fn header_count(&self) -> u16 {
        let bytes = self.as_bytes();
        u16::from_le_bytes([bytes[4], bytes[5]])
    }

    fn write_count(&mut self, count: usize) {
        let count = u16::try_from(count).unwrap_or(COUNT_UNKNOWN);
        self.0.rest_mut()[..COUNT].copy_from_slice(&count.to_le_bytes());
    }

    fn write_end(&mut self) {
        if let Some(last) = self.0.rest_mut().last_mut() {
            *last = END;
        }
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

/// The position of one of `len` elements, walking from the nearer end.
fn seek(bytes: &[u8], len: usize, index: usize) -> Option<usize> {
    if index >= len {
        return None;
    }
    if index <= len / 2 {
        let mut at = HEADER;
        for _ in 0..index {
            at += entry_len(&bytes[at..]);
        }
        Some(at)
    } else {
        let mut at = bytes.len() - 1;
        for _ in index..len {
            at = before(bytes, at)?;
        }
        Some(at)
    }
}

fn position(bytes: &[u8], at: usize) -> Option<usize> {
    (bytes[at] != END).then_some(at)
}

fn before(bytes: &[u8], at: usize) -> Option<usize> {
    if at <= HEADER {
        return None;
    }
    let (len, width) = backlen_at(&bytes[..at]);
    Some(at - len - width)
}

impl std::fmt::Debug for Listpack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Elements between two positions.
#[derive(Clone)]
pub struct Iter<'a> {
    bytes: &'a [u8],
    front: usize,
    back: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Item<'a>;

    fn next(&mut self) -> Option<Item<'a>> {
        if self.front >= self.back {
            return None;
        }
        let bytes = &self.bytes[self.front..];
        self.front += entry_len(bytes);
        Some(decode(bytes))
    }
}

impl DoubleEndedIterator for Iter<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.front >= self.back {
            return None;
        }
        self.back = before(self.bytes, self.back)?;
        Some(decode(&self.bytes[self.back..]))
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
