//! Long strings, which replies may hold while they go out.
//!
//! ```text
//! holders u32 | left u32        in front of the entry, where its value has HELD_BYTES_MIN bytes or more
//! header ... key, value         as in any entry
//! ```
//!
//! A reply to GET holds the entry, and its connection hands the value to the kernel from where it is: the bytes are not
//! copied into an output buffer first. Whoever is to change the value while it is held makes another entry, and whoever
//! takes the key away leaves this one to its last holder, on whichever thread that is. The words around the value belong
//! to the key alone: a holder looks at the count and at the value, and at nothing else.
//!
//! Why within the entry: a value in an allocation of its own is a second and a third cache line to wait for, which cost
//! SET of 16 KiB a tenth (measured), and GET a part of what it gains.

use std::alloc::dealloc;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use super::{Entry, KIND_HELD, KIND_MASK, KIND_SHIFT, layout};
use crate::allocator::size_class;

/// Strings from this many bytes on may be held: where copying begins to be felt. Copied, GET of 16 KiB in pipelines takes half
/// as much CPU again as Valkey's, which does not copy it; GET of 4 KiB takes less than Valkey's, which copies it too.
pub const HELD_BYTES_MIN: usize = 16 * 1024;

/// What stands in front of such an entry.
pub(super) struct Count {
    /// The key, while it has the entry, and the replies.
    holders: AtomicU32,
    /// Not 0: no key has it any more, and its memory is not counted as the keyspace's.
    left: AtomicU32,
}

pub(super) const COUNT_BYTES: usize = size_of::<Count>();
const _: () = assert!(COUNT_BYTES == 8 && align_of::<Count>() <= 8);

impl Count {
    /// As the key's own.
    pub(super) fn new() -> Count {
        Count { holders: AtomicU32::new(1), left: AtomicU32::new(0) }
    }
}

/// The value of an entry, for as long as this is kept.
pub struct Held {
    entry: NonNull<u8>,
    /// Where the value lies in the entry, which ends with it.
    at: usize,
    len: usize,
}

// SAFETY: what it looks at does not change while it is held, but for the count, which is atomic; and the last holder may
// free the entry on any thread.
unsafe impl Send for Held {}

impl Held {
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the value lies there, initialised, and is neither changed nor freed while it is held.
        unsafe { std::slice::from_raw_parts(self.entry.as_ptr().add(self.at), self.len) }
    }

    #[inline]
    fn count(&self) -> &Count {
        // SAFETY: an entry that can be held has its count in front, and is there as long as a holder is.
        unsafe { count(self.entry).as_ref() }
    }

    /// This holder's part of memory that no key is charged with any more.
    pub fn left_memory(&self) -> usize {
        let count = self.count();
        if count.left.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let holders = count.holders.load(Ordering::Relaxed).max(1);
        size_class(COUNT_BYTES + self.at + self.len) / holders as usize
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: this holder was counted, and the entry ends where its value does.
        unsafe { release(self.entry, self.at + self.len) }
    }
}

#[cfg(test)]
impl Held {
    /// One of any length.
    pub fn of(bytes: &[u8]) -> Held {
        let value = [&[0; HELD_BYTES_MIN], bytes].concat();
        let mut held = Entry::string(b"key", &value, None, 0, false).hold().unwrap();
        // It ends with the entry as before.
        (held.at, held.len) = (held.at + HELD_BYTES_MIN, bytes.len());
        held
    }
}

#[inline]
fn count(entry: NonNull<u8>) -> NonNull<Count> {
    // SAFETY: callers have an entry with a count in front, in the same allocation and aligned as that is.
    unsafe { entry.sub(COUNT_BYTES).cast() }
}

/// One holder less; the last one frees the entry, of `size` bytes.
///
/// # Safety
/// The entry has a count, in which the caller is, and the caller does not touch it any more.
unsafe fn release(entry: NonNull<u8>, size: usize) {
    let count = count(entry);
    // SAFETY: the entry is there until the last one of those counted has come here; `allocate` made it with this layout.
    // What others read of it happened before their release, and ours is seen to come after.
    unsafe {
        if count.as_ref().holders.fetch_sub(1, Ordering::Release) == 1 {
            fence(Ordering::Acquire);
            dealloc(count.as_ptr().cast(), layout(COUNT_BYTES + size));
        }
    }
}

impl Entry {
    /// A long string: `allocate` has put a count in front of it.
    #[inline]
    pub(super) fn has_count(&self) -> bool {
        self.header() & KIND_MASK == KIND_HELD << KIND_SHIFT
    }

    /// Holds the value of a long string; `None` for everything else.
    pub fn hold(&self) -> Option<Held> {
        if !self.has_count() {
            return None;
        }
        let parts = self.parts();
        // SAFETY: it has a count, and the key is in it.
        unsafe { count(self.0).as_ref() }.holders.fetch_add(1, Ordering::Relaxed);
        Some(Held { entry: self.0, at: parts.value, len: parts.value_len })
    }

    /// A long string that only the key has: it may be changed in place. (Nobody can come to hold it meanwhile: that takes
    /// a reference to the entry.)
    #[cold]
    pub(super) fn is_alone(&mut self) -> bool {
        // SAFETY: the first half says that it has a count.
        self.has_count() && unsafe { count(self.0).as_ref() }.holders.load(Ordering::Acquire) == 1
    }

    /// The key lets go of a long string.
    ///
    /// # Safety
    /// It has a count, and is not touched any more.
    pub(super) unsafe fn leave(&mut self) {
        // SAFETY: by the contract above.
        unsafe {
            count(self.0).as_ref().left.store(1, Ordering::Relaxed);
            release(self.0, self.size());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyspace::Item;

    fn made(len: usize, ttl: Option<i64>) -> Entry {
        Entry::string(b"key", &vec![b'v'; len], ttl, 7, false)
    }

    #[test]
    fn strings_from_the_border_on_can_be_held_and_are_read_alike() {
        for key in [vec![b'k'; 3], vec![b'k'; 300]] {
            for len in [0, 1, HELD_BYTES_MIN - 1, HELD_BYTES_MIN, HELD_BYTES_MIN + 1, 1 << 24] {
                let value: Vec<u8> = (0..len).map(|n| n as u8).collect();
                for (ttl, flags) in [(None, 0), (Some(9), 0), (None, 5), (Some(9), 5)] {
                    let item = Item { flags, ..Item::default() };
                    let entry = Entry::string_item(&key, &value, ttl, 7, false, item);
                    assert_eq!((entry.key(), entry.as_string()), (&key[..], Some(&value[..])));
                    assert_eq!((entry.ttl(), entry.item(), entry.access()), (ttl, item, 7));
                    assert!(entry.is_string() && entry.as_collection().is_none());
                    let held = entry.hold();
                    assert_eq!(held.is_some(), len >= HELD_BYTES_MIN);
                    assert!(entry.memory() > key.len() + len);
                    drop(entry);
                    assert!(held.is_none_or(|held| held.bytes() == value));
                }
            }
        }
    }

    #[test]
    fn what_is_held_stays_as_it_was_whatever_becomes_of_the_entry() {
        let (old, new) = (vec![b'v'; HELD_BYTES_MIN], vec![b'w'; HELD_BYTES_MIN]);
        let mut entry = made(HELD_BYTES_MIN, Some(5));
        let first = entry.hold().unwrap();
        entry.as_string_mut().unwrap()[0] = b'x';
        assert_eq!((first.bytes(), entry.as_string().unwrap()[0]), (&old[..], b'x'));
        assert_eq!((entry.ttl(), entry.access()), (Some(5), 7), "all else is as it was");
        let at = entry.as_string().unwrap().as_ptr();
        entry.as_string_mut().unwrap()[0] = b'v';
        assert_eq!(entry.as_string().unwrap().as_ptr(), at, "held by nobody: in place");
        let second = entry.hold().unwrap();
        let mut entry = entry.with_ttl(None);
        let third = entry.hold().unwrap();
        assert!(!entry.overwrite_string(&new, 8, true), "it is held");
        let entry = entry.with_key(b"another key");
        assert_eq!((entry.key(), entry.as_string()), (&b"another key"[..], Some(&old[..])));
        drop(entry);
        let readers = [first, second, third].map(|held| {
            let old = old.clone();
            std::thread::spawn(move || assert_eq!(held.bytes(), old))
        });
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    }

    #[test]
    fn a_long_string_that_nobody_holds_is_overwritten_in_place() {
        let mut entry = made(HELD_BYTES_MIN, None);
        let at = entry.as_string().unwrap().as_ptr();
        drop(entry.hold());
        for len in [HELD_BYTES_MIN, HELD_BYTES_MIN + 1, HELD_BYTES_MIN] {
            let value = vec![b'w'; len];
            assert!(entry.overwrite_string(&value, 8, false));
            assert_eq!((entry.as_string(), entry.access()), (Some(&value[..]), 8));
            assert_eq!(entry.as_string().unwrap().as_ptr(), at);
            assert_eq!(entry.hold().unwrap().bytes(), value);
        }
        assert!(!entry.overwrite_string(&vec![b'w'; 2 * HELD_BYTES_MIN], 8, false), "no room");
        let mut entry = made(HELD_BYTES_MIN, Some(5));
        let value = vec![b'w'; HELD_BYTES_MIN];
        assert!(!entry.overwrite_string(&value, 8, false), "the TTL would stay");
        assert!(entry.overwrite_string(&value, 8, true));
        assert_eq!((entry.as_string(), entry.ttl()), (Some(&value[..]), Some(5)));
    }

    #[test]
    fn what_no_key_has_any_more_is_charged_to_those_who_hold_it() {
        let entry = made(20_000, None);
        let memory = entry.memory();
        let (one, other) = (entry.hold().unwrap(), entry.hold().unwrap());
        assert_eq!(one.left_memory(), 0, "the keyspace counts it");
        drop(entry);
        assert_eq!(one.left_memory() + other.left_memory(), memory);
        drop(other);
        assert_eq!(one.left_memory(), memory);
    }
}
