//! One bucket, and the chain of children that hangs from it.
//!
//! Invariants: only the last child of a chain has free places, and it holds two entries or more (one alone lies where the
//! pointer to its child would); only the last child may be smaller than a bucket.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use smallvec::SmallVec;

use super::Entry;
use crate::prefetch::prefetch;

pub(super) const ENTRIES: usize = 7;
pub(super) const BUCKET_BYTES: usize = 64;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Places of the smallest child. The next one has `STEP` more, and the largest as many as a bucket.
const SMALLEST: usize = 3;
const STEP: usize = 2;

/// Used bits of all places, and of those that are left beside a pointer to a child.
const ALL: u64 = 0x7f;
const BESIDE_CHILD: u64 = 0x3f;
/// In the tags and used bits: the last word points to a child.
const CHILD_BIT: u64 = 1 << 63;
/// In that word, whose child is aligned to eight: half of the child's places, which are an odd number.
const SIZE_BITS: usize = 0b111;
const LAST: usize = ENTRIES - 1;

/// Entries of one chain with their tags.
pub(super) type Drained = SmallVec<[(u8, usize); 2 * ENTRIES]>;

/// A bucket or a child: a word of seven tags (bits 8i..8i+8) and the used bits (56..63), and the words of the entries.
/// A smaller child has fewer words.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Node(NonNull<u64>);

/// A node that hangs from another one.
#[derive(Clone, Copy)]
pub(super) struct Child {
    pub(super) node: Node,
    pub(super) places: usize,
}

impl Child {
    /// The places that hold no entry; it has no child itself.
    #[inline]
    fn free(self) -> u64 {
        !entry_bits(self.node.head()) & ((1 << self.places) - 1)
    }
}

#[inline]
pub(super) fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

/// Bit i for each place i that holds an entry.
#[inline]
fn entry_bits(head: u64) -> u64 {
    head >> 56 & if head & CHILD_BIT != 0 { BESIDE_CHILD } else { ALL }
}

/// Bit 8i+7 set for each entry i whose tag may be `tag` (a false hit is possible, a miss is not).
#[inline]
pub(super) fn matches(head: u64, tag: u8) -> u64 {
    const LOW: u64 = 0x0001_0101_0101_0101;
    const HIGH: u64 = 0x0080_8080_8080_8080;
    // What comes of the used bits is masked away.
    let x = head ^ (LOW * u64::from(tag));
    let zero = x.wrapping_sub(LOW) & !x & HIGH;
    zero & spread(entry_bits(head))
}

/// Seven bits, bit i moved to 8i+7.
#[inline]
pub(super) fn spread(bits: u64) -> u64 {
    // Multiply to copies at distance 7, then pick.
    (bits.wrapping_mul(0x0002_0408_1020_4081) & 0x0001_0101_0101_0101) << 7
}

impl Node {
    /// Brings the entries that may match a hash nearer; whether there are any.
    #[inline]
    pub(super) fn prefetch_matches(self, hash: u64) -> bool {
        let found = matches(self.head(), tag(hash));
        let mut hits = found;
        while hits != 0 {
            let i = hits.trailing_zeros() as usize / 8;
            hits &= hits - 1;
            // Header and key lie in the first line; a value of usual length ends in the second.
            let entry = self.word(i) as *const u8;
            prefetch(entry);
            prefetch(entry.wrapping_add(LINE));
        }
        found != 0
    }

    /// The node at an address, which is not null.
    #[inline]
    pub(super) fn at(address: *mut u64) -> Node {
        debug_assert!(!address.is_null());
        // SAFETY: the arrays of a table, and the words that point to children, are never null.
        Node(unsafe { NonNull::new_unchecked(address) })
    }

    #[inline]
    pub(super) fn address(self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// Tags and used bits.
    #[inline]
    pub(super) fn head(self) -> u64 {
        // SAFETY: a live node of a table that the caller has; it begins with this word.
        unsafe { self.0.read() }
    }

    #[inline]
    fn set_head(self, head: u64) {
        // SAFETY: as in `head`, and nobody else has the table.
        unsafe { self.0.write(head) }
    }

    /// Where the word of a place is; the node has such a place.
    #[inline]
    fn place(self, i: usize) -> NonNull<usize> {
        // SAFETY: callers pass places that the node has.
        unsafe { self.0.add(1 + i).cast() }
    }

    #[inline]
    pub(super) fn word(self, i: usize) -> usize {
        // SAFETY: callers ask for places that are used, or hold the pointer to a child.
        unsafe { self.place(i).read() }
    }

    /// # Safety
    /// Place `i` holds an entry, and the table is borrowed for as long as the reference lives.
    #[inline]
    pub(super) unsafe fn entry<'a>(self, i: usize) -> &'a Entry {
        // SAFETY: by the contract above; an entry is one word, `repr(transparent)`.
        unsafe { self.place(i).cast().as_ref() }
    }

    /// # Safety
    /// As for `entry`, and nobody else has the table meanwhile.
    #[inline]
    pub(super) unsafe fn entry_mut<'a>(self, i: usize) -> &'a mut Entry {
        // SAFETY: by the contract above.
        unsafe { self.place(i).cast().as_mut() }
    }

    /// The places that hold entries.
    #[inline]
    pub(super) fn entries(self) -> impl Iterator<Item = usize> {
        let mut bits = entry_bits(self.head());
        std::iter::from_fn(move || {
            let i = bits.trailing_zeros() as usize;
            let some = bits != 0;
            bits &= bits.wrapping_sub(1);
            some.then_some(i)
        })
    }

    pub(super) fn len(self) -> usize {
        entry_bits(self.head()).count_ones() as usize
    }

    /// Puts a word into a free place.
    #[inline]
    fn put(self, i: usize, tag: u8, word: usize) {
        // SAFETY: callers pass places that the node has; nobody else has the table.
        unsafe { self.place(i).write(word) }
        // The tag of a free place is 0.
        self.set_head(self.head() | u64::from(tag) << (8 * i) | 1 << (56 + i));
    }

    /// Takes an entry's word out, with its tag.
    #[inline]
    pub(super) fn take(self, i: usize) -> (u8, usize) {
        let head = self.head();
        self.set_head(head & !(0xff << (8 * i) | 1 << (56 + i)));
        ((head >> (8 * i)) as u8, self.word(i))
    }

    #[inline]
    pub(super) fn child(self) -> Option<Child> {
        self.child_of(self.head())
    }

    /// The same, of who has read tags and used bits.
    #[inline]
    pub(super) fn child_of(self, head: u64) -> Option<Child> {
        if head & CHILD_BIT == 0 {
            return None;
        }
        let word = self.word(LAST);
        let node = Node::at((word & !SIZE_BITS) as *mut u64);
        Some(Child { node, places: 2 * (word & SIZE_BITS) + 1 })
    }

    /// Lets the last word, which is free or points to another child, point to this one.
    fn set_child(self, child: Child) {
        let word = child.node.0.as_ptr() as usize | (child.places / 2);
        // SAFETY: only buckets and full children get children, and those have the place; nobody else has the table.
        unsafe { self.place(LAST).write(word) }
        self.set_head(self.head() | CHILD_BIT);
    }
}

pub(super) fn child_bytes(places: usize) -> usize {
    (1 + places) * size_of::<u64>()
}

fn child_layout(places: usize) -> Layout {
    Layout::from_size_align(child_bytes(places), 8)
        .unwrap_or_else(|_| unreachable!("no more than a bucket's bytes"))
}

/// Places of the smallest child that so many entries fit into, or of the largest one.
pub(super) fn child_places(entries: usize) -> usize {
    (entries | 1).clamp(SMALLEST, ENTRIES)
}

/// A child without entries.
fn make_child(places: usize) -> Child {
    let layout = child_layout(places);
    // SAFETY: the layout is not empty.
    let made = unsafe { alloc(layout) }.cast::<u64>();
    if made.is_null() {
        handle_alloc_error(layout);
    }
    let node = Node::at(made);
    // Its words are read only where a used bit says that they were written.
    node.set_head(0);
    Child { node, places }
}

fn free_child(child: Child) {
    // SAFETY: made in `make_child` with this layout, and nothing points to it any more.
    unsafe { dealloc(child.node.0.as_ptr().cast(), child_layout(child.places)) }
}

/// Exchanges the last child of a chain, which is full, for one with more places.
fn grow_child(above: Node, old: Child) -> Child {
    let new = make_child(old.places + STEP);
    // SAFETY: two allocations, both with that many places.
    unsafe { new.node.place(0).copy_from_nonoverlapping(old.node.place(0), old.places) };
    new.node.set_head(old.node.head());
    above.set_child(new);
    free_child(old);
    new
}

/// Exchanges the last child of a chain for one with fewer places, in which there is room for what it holds.
fn shrink_child(above: Node, old: Child) {
    let new = make_child(old.places - STEP);
    for (to, from) in old.node.entries().enumerate() {
        let (tag, word) = old.node.take(from);
        new.node.put(to, tag, word);
    }
    above.set_child(new);
    free_child(old);
}

/// Puts a word into the first free place of a bucket's chain. Where there is none a small child is added at its end, or the
/// child there becomes a larger one.
#[inline]
pub(super) fn place(bucket: Node, tag: u8, word: usize) {
    let free = !entry_bits(bucket.head()) & ALL;
    match bucket.child() {
        None if free != 0 => bucket.put(free.trailing_zeros() as usize, tag, word),
        child => place_below(bucket, child, tag, word),
    }
}

#[inline(never)]
fn place_below(bucket: Node, mut child: Option<Child>, tag: u8, word: usize) {
    let mut above = bucket;
    while let Some(at) = child {
        let below = at.node.child();
        if below.is_none() {
            let free = at.free();
            if free != 0 {
                return at.node.put(free.trailing_zeros() as usize, tag, word);
            }
            if at.places < ENTRIES {
                return grow_child(above, at).node.put(at.places, tag, word);
            }
        }
        above = at.node;
        child = below;
    }
    // The last word makes room for the pointer.
    let (moved_tag, moved) = above.take(LAST);
    let child = make_child(SMALLEST);
    child.node.put(0, moved_tag, moved);
    child.node.put(1, tag, word);
    above.set_child(child);
}

/// An entry was taken out of a place of a chain: the last child's go up into it, so that a chain is never longer than its
/// entries need, however many have come and gone.
pub(super) fn close_gap(bucket: Node, gap: Node, i: usize) {
    let (mut above, Some(mut last)) = (bucket, bucket.child()) else { return };
    while let Some(below) = last.node.child() {
        (above, last) = (last.node, below);
    }
    if last.node != gap
        && let Some(from) = last.node.entries().next()
    {
        let (tag, word) = last.node.take(from);
        gap.put(i, tag, word);
    }
    match last.node.len() {
        1 => {
            let only = last.node.entries().next().map(|from| last.node.take(from));
            free_child(last);
            above.set_head(above.head() & !CHILD_BIT);
            only.into_iter().for_each(|(tag, word)| above.put(LAST, tag, word));
        }
        // One more would fit, but a chain about that long would be made anew at every turn.
        len if last.places > SMALLEST && len < last.places - STEP => shrink_child(above, last),
        _ => {}
    }
}

/// Empties a chain: frees its children, gives its words with their tags.
pub(super) fn drain_chain(bucket: Node) -> Drained {
    let mut out = Drained::new();
    let mut next = drain(bucket, &mut out);
    while let Some(child) = next {
        next = drain(child.node, &mut out);
        free_child(child);
    }
    out
}

/// Empties a node; gives its child.
#[inline]
fn drain(node: Node, out: &mut Drained) -> Option<Child> {
    let head = node.head();
    let mut bits = entry_bits(head);
    while bits != 0 {
        let i = bits.trailing_zeros() as usize;
        bits &= bits - 1;
        out.push(((head >> (8 * i)) as u8, node.word(i)));
    }
    let child = node.child_of(head);
    node.set_head(0);
    child
}

/// Fills an empty bucket, with children as large as what they hold.
pub(super) fn fill_chain(bucket: Node, mut entries: &[(u8, usize)]) {
    let mut node = bucket;
    while entries.len() > ENTRIES {
        let (here, below) = entries.split_at(ENTRIES - 1);
        fill(node, here);
        let child = make_child(child_places(below.len()));
        node.set_child(child);
        (node, entries) = (child.node, below);
    }
    fill(node, entries);
}

/// Fills an empty node, which has places for all.
#[inline]
fn fill(node: Node, entries: &[(u8, usize)]) {
    let mut head = 0;
    for (i, (tag, word)) in entries.iter().enumerate() {
        // SAFETY: callers pass no more than the node has places; nobody else has the table.
        unsafe { node.place(i).write(*word) }
        head |= u64::from(*tag) << (8 * i) | 1 << (56 + i);
    }
    node.set_head(head);
}

pub(super) fn buckets_layout(n: usize) -> Layout {
    // Each in a line of its own.
    Layout::from_size_align(n * BUCKET_BYTES, BUCKET_BYTES)
        .unwrap_or_else(|_| unreachable!("bucket counts are small"))
}

pub(super) fn allocate_buckets(n: usize) -> *mut u64 {
    let layout = buckets_layout(n);
    // SAFETY: n is at least 1; zeroed buckets are empty ones.
    let made = unsafe { alloc_zeroed(layout) };
    if made.is_null() {
        handle_alloc_error(layout);
    }
    made.cast()
}
