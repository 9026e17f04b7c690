//! One key with its value in one allocation.
//!
//! ```text
//! header u64   bits  0..24  access: LRU clock in seconds, or LFU (16 bits of minutes, 8 bits of counter)
//!              bits 24..26  kind: 0 string, 1 string changed in place (shows as raw), 2 collection, 3 long string
//!              bit  26      a TTL follows
//!              bit  27      snapshot parity
//!              bit  28      long: the two lengths follow as u64 each
//!              bit  29      an item's words follow: what Memcached clients keep beside a value
//!              bit  30      a Memcached client has fetched it
//!              bit  31      used again since the key came (see `super::recency`)
//!              bits 32..40  key length    (when not long)
//!              bits 40..64  value length  (when not long), or the type of a collection
//! [lengths]    16 bytes when long: in place of the two above
//! [ttl]        8 bytes, unix milliseconds, when there is one
//! [item]       16 bytes: client flags u32, state u32, CAS u64; only strings have them, and most have none
//! key bytes
//! value        string bytes; or, at the next multiple of eight, the word that a collection is
//! ```
//!
//! A 16-byte key with a 16-byte value takes 40 bytes. Why one allocation: one cache line more than the
//! table's is touched by a hit, and nothing is spent on pointers. In front of a long string stands who holds it (see `held`).

#![expect(
    unsafe_code,
    reason = "a variable-length record behind one pointer; see each SAFETY note"
)]

mod collection;
mod held;

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::allocator::size_class;
use crate::types::CollectionRef;
use collection::{WORD, word_at};
use held::{COUNT_BYTES, Count};

pub use held::{HELD_BYTES_MIN, Held};

const ACCESS_MASK: u64 = 0x00ff_ffff;
const KIND_SHIFT: u32 = 24;
const KIND_MASK: u64 = 0b11 << KIND_SHIFT;
const TTL_BIT: u64 = 1 << 26;
const PARITY_BIT: u64 = 1 << 27;
const LONG_BIT: u64 = 1 << 28;
const ITEM_BIT: u64 = 1 << 29;
const FETCHED_BIT: u64 = 1 << 30;
const PROVEN_BIT: u64 = 1 << 31;
const KEY_LEN_SHIFT: u32 = 32;
const VALUE_LEN_SHIFT: u32 = 40;
const SHORT_KEY_MAX: usize = 0xff;
const SHORT_VALUE_MAX: usize = 0xff_ffff;

/// An `Item` as it lies in an entry; it is aligned as the entry is.
const ITEM_BYTES: usize = size_of::<Item>();

const KIND_STRING: u64 = 0;
const KIND_STRING_RAW: u64 = 1;
const KIND_COLLECTION: u64 = 2;
const KIND_HELD: u64 = 3;

/// An owned entry. It never moves by itself: growing it makes a new one.
#[repr(transparent)]
pub struct Entry(NonNull<u8>);

// SAFETY: an entry owns its allocation and the collection in it, both of which are Send.
unsafe impl Send for Entry {}

/// What Memcached clients keep beside a value. All zero is what every other value has, and takes no room.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Item {
    /// The clients' own 32 bits.
    pub flags: u32,
    /// The bits `STALE` and `TOKEN_SENT`.
    pub state: u32,
    /// Names this version of the value; 0: nobody has asked yet.
    pub cas: u64,
}

impl Item {
    /// Marked as out of date: served until somebody has put a new value in its place.
    pub const STALE: u32 = 1;
    /// One client has been told to put a new value in its place.
    pub const TOKEN_SENT: u32 = 2;

    /// No more than what a value has by itself.
    #[inline]
    pub fn is_plain(self) -> bool {
        self == Item::default()
    }

    /// What is left when the value changes and its key stays: the flags.
    #[must_use]
    pub fn changed(self) -> Item {
        Item { flags: self.flags, ..Item::default() }
    }
}

/// Value of an entry, borrowed.
pub enum ValueRef<'a> {
    String(&'a [u8]),
    Collection(CollectionRef<'a>),
}

/// What an entry is to have room for.
enum Value {
    /// So many bytes of a string.
    String { len: usize, raw: bool },
    /// A collection of this type.
    Word(usize),
}

/// Where the parts of an entry lie, bytes from its start.
#[derive(Clone, Copy)]
struct Parts {
    key: usize,
    key_len: usize,
    value: usize,
    value_len: usize,
}

impl Entry {
    /// A string entry; `raw` marks a value that was changed in place (OBJECT ENCODING says raw).
    pub fn string(key: &[u8], value: &[u8], ttl: Option<i64>, access: u32, raw: bool) -> Entry {
        Entry::string_item(key, value, ttl, access, raw, Item::default())
    }

    /// The same with what Memcached clients keep beside it.
    pub fn string_item(
        key: &[u8],
        value: &[u8],
        ttl: Option<i64>,
        access: u32,
        raw: bool,
        item: Item,
    ) -> Entry {
        let len = value.len();
        let entry = Entry::allocate(key, Value::String { len, raw }, ttl, access, item);
        let parts = entry.parts();
        // SAFETY: `allocate` reserved `value.len()` bytes at `parts.value`, and nobody else has the entry.
        unsafe {
            std::ptr::copy_nonoverlapping(
                value.as_ptr(),
                entry.0.as_ptr().add(parts.value),
                value.len(),
            );
        }
        entry
    }

    fn allocate(key: &[u8], value: Value, ttl: Option<i64>, access: u32, item: Item) -> Entry {
        let (kind, value_len) = match value {
            Value::String { len, .. } if len >= HELD_BYTES_MIN => (KIND_HELD, len),
            Value::String { len, raw: false } => (KIND_STRING, len),
            Value::String { len, raw: true } => (KIND_STRING_RAW, len),
            Value::Word(kind) => (KIND_COLLECTION, kind),
        };
        let long = key.len() > SHORT_KEY_MAX || value_len > SHORT_VALUE_MAX;
        let mut header = u64::from(access) & ACCESS_MASK | kind << KIND_SHIFT;
        let mut at = 8;
        if long {
            header |= LONG_BIT;
            at += 16;
        } else {
            header |= (key.len() as u64) << KEY_LEN_SHIFT | (value_len as u64) << VALUE_LEN_SHIFT;
        }
        let ttl_at = at;
        if ttl.is_some() {
            header |= TTL_BIT;
            at += 8;
        }
        let item_at = at;
        if !item.is_plain() {
            header |= ITEM_BIT;
            at += ITEM_BYTES;
        }
        let key_end = at + key.len();
        let size = match value {
            Value::String { len, .. } => key_end + len,
            Value::Word(_) => word_at(key_end) + WORD,
        };
        let ahead = if kind == KIND_HELD { COUNT_BYTES } else { 0 };
        let layout = layout(ahead + size);
        // SAFETY: the layout is never of size 0; every write below stays inside it, and 8-byte fields lie
        // at multiples of 8 from an 8-aligned start.
        unsafe {
            let start = NonNull::new(alloc(layout)).unwrap_or_else(|| handle_alloc_error(layout));
            if kind == KIND_HELD {
                start.cast::<Count>().write(Count::new());
            }
            let base = start.add(ahead);
            let p = base.as_ptr();
            p.cast::<u64>().write(header);
            if long {
                p.add(8).cast::<u64>().write(key.len() as u64);
                p.add(16).cast::<u64>().write(value_len as u64);
            }
            if let Some(ttl) = ttl {
                p.add(ttl_at).cast::<i64>().write(ttl);
            }
            if !item.is_plain() {
                p.add(item_at).cast::<Item>().write(item);
            }
            std::ptr::copy_nonoverlapping(key.as_ptr(), p.add(at), key.len());
            if let Value::Word(_) = value {
                p.add(key_end).write_bytes(0, size - key_end);
            }
            Entry(base)
        }
    }

    #[inline]
    fn header(&self) -> u64 {
        // SAFETY: every entry starts with an initialised u64.
        unsafe { self.0.as_ptr().cast::<u64>().read() }
    }

    #[inline]
    fn set_header(&mut self, header: u64) {
        // SAFETY: as in `header`, and `&mut self` excludes other readers.
        unsafe { self.0.as_ptr().cast::<u64>().write(header) }
    }

    #[inline]
    fn parts(&self) -> Parts {
        let header = self.header();
        let mut key = 8;
        let (key_len, value_len);
        if header & LONG_BIT == 0 {
            key_len = (header >> KEY_LEN_SHIFT & 0xff) as usize;
            value_len = (header >> VALUE_LEN_SHIFT) as usize;
        } else {
            // SAFETY: a long entry has both lengths right behind the header.
            unsafe {
                key_len = self.0.as_ptr().add(8).cast::<u64>().read() as usize;
                value_len = self.0.as_ptr().add(16).cast::<u64>().read() as usize;
            }
            key += 16;
        }
        if header & TTL_BIT != 0 {
            key += 8;
        }
        if header & ITEM_BIT != 0 {
            key += ITEM_BYTES;
        }
        Parts { key, key_len, value: key + key_len, value_len }
    }

    #[inline]
    fn slice(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: callers pass ranges of `parts()`, which lie inside the allocation and are initialised.
        unsafe { std::slice::from_raw_parts(self.0.as_ptr().add(at), len) }
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let parts = self.parts();
        self.slice(parts.key, parts.key_len)
    }

    #[inline]
    pub fn is_string(&self) -> bool {
        self.header() & KIND_MASK != KIND_COLLECTION << KIND_SHIFT
    }

    /// The string was changed in place since it was set; or it is a long one, which shows in the same way.
    pub fn is_raw(&self) -> bool {
        self.header() & KIND_MASK == KIND_STRING_RAW << KIND_SHIFT || self.has_count()
    }

    /// The bytes of a string; `None` for a collection.
    #[inline]
    pub fn as_string(&self) -> Option<&[u8]> {
        let parts = self.parts();
        self.is_string().then(|| self.slice(parts.value, parts.value_len))
    }

    /// The bytes of a string, to be changed in place without changing its length. Who holds them keeps the old ones.
    pub fn as_string_mut(&mut self) -> Option<&mut [u8]> {
        if !self.is_string() {
            return None;
        }
        if self.has_count() && !self.is_alone() {
            *self = self.rebuilt(self.ttl(), self.item());
        }
        let parts = self.parts();
        // SAFETY: the range is the value's, and `&mut self` makes the borrow exclusive.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.0.as_ptr().add(parts.value), parts.value_len)
        })
    }

    pub fn value(&self) -> ValueRef<'_> {
        match (self.as_string(), self.as_collection()) {
            (Some(bytes), _) => ValueRef::String(bytes),
            (None, Some(collection)) => ValueRef::Collection(collection),
            (None, None) => unreachable!("an entry is a string or a collection"),
        }
    }

    /// When the key expires, unix milliseconds.
    #[inline]
    pub fn ttl(&self) -> Option<i64> {
        let header = self.header();
        if header & TTL_BIT == 0 {
            return None;
        }
        let at = if header & LONG_BIT == 0 { 8 } else { 24 };
        // SAFETY: the TTL bit says that eight initialised bytes lie there, at a multiple of 8.
        Some(unsafe { self.0.as_ptr().add(at).cast::<i64>().read() })
    }

    /// When the first thing of it expires, unix milliseconds: the key, or a field (a lower bound). `i64::MAX`: nothing.
    pub fn next_due(&self) -> i64 {
        let fields = self.as_collection().map_or(i64::MAX, CollectionRef::next_due);
        self.ttl().map_or(fields, |ttl| ttl.min(fields))
    }

    /// A hash with fields that expire by themselves.
    pub fn is_timed(&self) -> bool {
        self.as_collection().is_some_and(CollectionRef::is_timed)
    }

    /// Changes an expiry time that is there already; `false` when there is none to change.
    pub fn set_ttl_in_place(&mut self, ttl: i64) -> bool {
        let header = self.header();
        if header & TTL_BIT == 0 {
            return false;
        }
        let at = if header & LONG_BIT == 0 { 8 } else { 24 };
        // SAFETY: as in `ttl`, exclusive by `&mut self`.
        unsafe { self.0.as_ptr().add(at).cast::<i64>().write(ttl) };
        true
    }

    /// The same key and value with another expiry time; the value of a collection is moved, not copied.
    pub fn with_ttl(mut self, ttl: Option<i64>) -> Entry {
        if let Some(ms) = ttl
            && self.set_ttl_in_place(ms)
        {
            return self;
        }
        if ttl.is_none() && self.ttl().is_none() {
            return self;
        }
        let (access, kept) = (self.access(), self.header() & (PARITY_BIT | PROVEN_BIT));
        let Some(value) = self.take_collection() else {
            let item = self.item();
            return self.rebuilt(ttl, item);
        };
        let mut made = Entry::collection(self.key(), value, ttl, access);
        made.set_header(made.header() | kept);
        made
    }

    /// The same string with other words around it.
    fn rebuilt(&self, ttl: Option<i64>, item: Item) -> Entry {
        let (access, raw) = (self.access(), self.is_raw());
        let value = self.as_string().unwrap_or_default();
        let mut made = Entry::string_item(self.key(), value, ttl, access, raw, item);
        made.set_header(made.header() | self.header() & (PARITY_BIT | FETCHED_BIT | PROVEN_BIT));
        made
    }

    /// What Memcached clients keep beside the value.
    #[inline]
    pub fn item(&self) -> Item {
        match self.item_at() {
            // SAFETY: the item bit says that an initialised `Item` lies there, at a multiple of 8.
            Some(at) => unsafe { self.0.as_ptr().add(at).cast::<Item>().read() },
            None => Item::default(),
        }
    }

    #[inline]
    fn item_at(&self) -> Option<usize> {
        let header = self.header();
        if header & ITEM_BIT == 0 {
            return None;
        }
        let lengths = if header & LONG_BIT == 0 { 0 } else { 16 };
        Some(8 + lengths + if header & TTL_BIT == 0 { 0 } else { 8 })
    }

    /// Changes an item that is there already; `false` when there is none to change.
    pub fn set_item_in_place(&mut self, item: Item) -> bool {
        let Some(at) = self.item_at() else { return false };
        // SAFETY: as in `item`, exclusive by `&mut self`.
        unsafe { self.0.as_ptr().add(at).cast::<Item>().write(item) };
        true
    }

    /// The same string with another item beside it; a collection stays as it is.
    pub fn with_item(mut self, item: Item) -> Entry {
        if !self.is_string() || self.set_item_in_place(item) || item.is_plain() {
            return self;
        }
        self.rebuilt(self.ttl(), item)
    }

    /// A Memcached client has fetched the value since it was set.
    pub fn is_fetched(&self) -> bool {
        self.header() & FETCHED_BIT != 0
    }

    pub fn set_fetched(&mut self) {
        self.set_header(self.header() | FETCHED_BIT);
    }

    /// The key was used again since it came.
    #[inline]
    pub fn is_proven(&self) -> bool {
        self.header() & PROVEN_BIT != 0
    }

    #[inline]
    pub fn set_proven(&mut self) {
        self.set_header(self.header() | PROVEN_BIT);
    }

    /// The same value under another key.
    pub fn with_key(mut self, key: &[u8]) -> Entry {
        let (ttl, access) = (self.ttl(), self.access());
        match self.take_collection() {
            Some(value) => Entry::collection(key, value, ttl, access),
            None => {
                let (value, raw) = (self.as_string().unwrap_or_default(), self.is_raw());
                Entry::string_item(key, value, ttl, access, raw, self.item())
            }
        }
    }

    /// The word of a collection is owned elsewhere from here on: what is left counts as a string of the same size.
    fn forget_word(&mut self) {
        let left = self.size() - self.parts().value;
        let header = self.header() & !KIND_MASK;
        if header & LONG_BIT == 0 {
            let lengths = header & ((1 << VALUE_LEN_SHIFT) - 1);
            self.set_header(lengths | (left as u64) << VALUE_LEN_SHIFT);
        } else {
            self.set_header(header);
            // SAFETY: a long entry has the second length there; exclusive by `&mut self`.
            unsafe { self.0.as_ptr().add(16).cast::<u64>().write(left as u64) };
        }
    }

    #[inline]
    pub fn access(&self) -> u32 {
        (self.header() & ACCESS_MASK) as u32
    }

    #[inline]
    pub fn set_access(&mut self, access: u32) {
        self.set_header(self.header() & !ACCESS_MASK | u64::from(access) & ACCESS_MASK);
    }

    /// Snapshot parity: which of two alternating snapshots has seen this entry.
    pub fn parity(&self) -> bool {
        self.header() & PARITY_BIT != 0
    }

    pub fn set_parity(&mut self, parity: bool) {
        let header = self.header() & !PARITY_BIT;
        self.set_header(if parity { header | PARITY_BIT } else { header });
    }

    /// Bytes of this entry: its allocation, and what its collection says of itself.
    pub fn memory(&self) -> usize {
        let ahead = if self.has_count() { COUNT_BYTES } else { 0 };
        size_class(ahead + self.size())
            + self.as_collection().map_or(0, CollectionRef::memory_usage)
    }

    /// Bytes of its allocation, but for what stands in front of a long string.
    fn size(&self) -> usize {
        let parts = self.parts();
        if self.is_string() { parts.value + parts.value_len } else { word_at(parts.value) + WORD }
    }

    /// Overwrites the value of a string where the new one fits into the same class of the allocator; `false`: it does not, or
    /// there is more to the old one. What has a TTL is only overwritten by who keeps it.
    #[inline]
    pub fn overwrite_string(&mut self, value: &[u8], access: u32, keeps_ttl: bool) -> bool {
        let header = self.header();
        let has_ttl = header & TTL_BIT != 0;
        if header & (LONG_BIT | ITEM_BIT) != 0 || has_ttl && !keeps_ttl {
            return false;
        }
        let mut ahead = 0;
        if header & KIND_MASK != 0 {
            if !self.is_alone() {
                return false;
            }
            ahead = COUNT_BYTES;
        }
        let key_len = (header >> KEY_LEN_SHIFT & 0xff) as usize;
        let value_at = 8 + 8 * usize::from(has_ttl) + key_len;
        let (old, new) = ((header >> VALUE_LEN_SHIFT) as usize, value.len());
        let fits = old == new
            || new <= SHORT_VALUE_MAX
                && size_class(ahead + value_at + old) == size_class(ahead + value_at + new);
        if !fits {
            return false;
        }
        // SAFETY: a short entry's value lies behind its header, TTL and key, and its allocation has room for all of its class.
        unsafe {
            std::ptr::copy_nonoverlapping(value.as_ptr(), self.0.as_ptr().add(value_at), new);
        }
        let kept = header & ((1 << VALUE_LEN_SHIFT) - 1) & !(ACCESS_MASK | FETCHED_BIT);
        let length = (new as u64) << VALUE_LEN_SHIFT;
        self.set_header(kept | length | PROVEN_BIT | u64::from(access) & ACCESS_MASK);
        true
    }

    pub(super) fn into_raw(self) -> usize {
        let raw = self.0.as_ptr() as usize;
        std::mem::forget(self);
        raw
    }

    /// SAFETY: `raw` came from `into_raw` and is given back once.
    pub(super) unsafe fn from_raw(raw: usize) -> Entry {
        debug_assert!(raw != 0);
        // SAFETY: by the contract above it is a live, non-null entry.
        Entry(unsafe { NonNull::new_unchecked(raw as *mut u8) })
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.has_count() {
            // SAFETY: it has a count, and `drop` is called once.
            return unsafe { self.leave() };
        }
        drop(self.take_collection());
        // SAFETY: allocated in `allocate` with a size of the very same class.
        unsafe { dealloc(self.0.as_ptr(), layout(self.size())) }
    }
}

/// All of the allocator's class, whose bytes a longer value may come to use.
fn layout(size: usize) -> Layout {
    Layout::from_size_align(size_class(size), 8)
        .unwrap_or_else(|_| unreachable!("values are bounded"))
}
