//! Owned bytes, as small as can be: a member in 16 bytes, a field with its value behind 8.
//!
//! `unsafe` is confined to this module. [`Text`] is a union told apart by its last byte; [`Pair`] is a pointer to bytes
//! that begin with their own lengths. Both own a `Box<[u8]>` taken apart on creation and put together again on drop;
//! nothing changes in between but the bytes of a value, under the same length, and no pointer leaves the module.
#![expect(unsafe_code, reason = "a union and a thin pointer; see each SAFETY note")]

use std::{ptr::NonNull, slice};

use super::size_class;
use crate::prefetch::prefetch;

const INLINE_MAX: usize = 15;
/// The last byte of a [`Text`] whose bytes stand elsewhere.
const ELSEWHERE: u8 = 0xff;

/// Owned bytes: up to 15 in place, more elsewhere.
pub(super) union Text {
    inline: Inline,
    heap: Heap,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Inline {
    bytes: [u8; INLINE_MAX],
    /// How many bytes there are, or [`ELSEWHERE`].
    tag: u8,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Heap {
    start: NonNull<u8>,
    len: u32,
    spare: [u8; 3],
    tag: u8,
}

// Both variants are 16 bytes with the tag last, which is what makes reading `inline.tag` sound in either.
const _: () = assert!(size_of::<Inline>() == 16 && size_of::<Heap>() == 16);

// SAFETY: a Text owns its bytes alone, and gives out shared references only.
unsafe impl Send for Text {}
// SAFETY: as above.
unsafe impl Sync for Text {}

impl Text {
    pub(super) fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE_MAX {
            let mut inline = Inline { bytes: [0; INLINE_MAX], tag: bytes.len() as u8 };
            inline.bytes[..bytes.len()].copy_from_slice(bytes);
            return Self { inline };
        }
        let len = u32::try_from(bytes.len()).expect("a member is shorter than 4 GiB");
        Self { heap: Heap { start: leak(bytes.into()), len, spare: [0; 3], tag: ELSEWHERE } }
    }

    /// The bytes' place, if they stand elsewhere.
    #[inline]
    fn heap(&self) -> Option<Heap> {
        // SAFETY: every byte of both variants is initialised, and the last one is the tag in both; it says which
        // variant was written.
        unsafe { if self.inline.tag == ELSEWHERE { Some(self.heap) } else { None } }
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        match self.heap() {
            // SAFETY: `start` and `len` are those of the box taken apart in `new`, which lives as long as `self`.
            Some(heap) => unsafe { slice::from_raw_parts(heap.start.as_ptr(), heap.len as usize) },
            // SAFETY: the bytes are in place, and `new` wrote a tag of at most 15.
            None => unsafe { self.inline.bytes.get_unchecked(..usize::from(self.inline.tag)) },
        }
    }

    /// Brings the bytes nearer, ahead of their use.
    #[inline]
    pub(super) fn prefetch(&self) {
        if let Some(heap) = self.heap() {
            prefetch(heap.start.as_ptr());
        }
    }

    /// What stands outside of `self`.
    pub(super) fn heap_size(&self) -> usize {
        self.heap().map_or(0, |heap| size_class(heap.len as usize))
    }
}

impl Clone for Text {
    fn clone(&self) -> Self {
        Self::new(self.as_bytes())
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        if let Some(heap) = self.heap() {
            // SAFETY: the very box that `new` took apart; `self` is not used again.
            unsafe { free(heap.start, heap.len as usize) }
        }
    }
}

/// A field and its value, and until when the field is there: one pointer to their bytes.
///
/// ```text
/// [0xff 0xff, time i64]  lengths of field and value, each one byte, or 0xff and u32 big-endian  field  value
/// ```
///
/// Strings are shorter than 0xff00_0000 bytes, so that no length begins as the time does: a pair without a time pays
/// nothing for those that have one.
pub(super) struct Pair(NonNull<u8>);

/// In place of a length below it: four bytes of length follow.
const LONG: u8 = 0xff;
/// Where a string's length would be taken for the mark of a time.
const LEN_END: usize = 0xff00_0000;
/// The time of a field that stays.
pub const NEVER: i64 = i64::MAX;
/// A mark and a time.
const TIME_BYTES: usize = 10;

/// Where a pair's bytes begin, and how long they are.
struct Lengths {
    head: usize,
    field: usize,
    value: usize,
}

// SAFETY: a Pair owns its bytes alone, and gives out shared references only.
unsafe impl Send for Pair {}
// SAFETY: as above.
unsafe impl Sync for Pair {}

impl Pair {
    /// A pair; the field is there until `time`.
    pub(super) fn new(field: &[u8], value: &[u8], time: i64) -> Self {
        let width = |len: usize| if len < usize::from(LONG) { 1 } else { 5 };
        let (f, v) = (field.len(), value.len());
        let timed = if time == NEVER { 0 } else { TIME_BYTES };
        let mut bytes = Vec::with_capacity(timed + width(f) + width(v) + f + v);
        if timed > 0 {
            bytes.extend_from_slice(&[LONG, LONG]);
            bytes.extend_from_slice(&time.to_le_bytes());
        }
        for len in [f, v] {
            if len < usize::from(LONG) {
                bytes.push(len as u8);
            } else {
                assert!(len < LEN_END, "a field or value is shorter than 4080 MiB");
                bytes.push(LONG);
                bytes.extend_from_slice(&(len as u32).to_be_bytes());
            }
        }
        bytes.extend_from_slice(field);
        bytes.extend_from_slice(value);
        Self(leak(bytes.into_boxed_slice()))
    }

    /// Brings the first bytes nearer, ahead of their use: a value of usual length ends in the second line.
    #[inline]
    pub(super) fn prefetch(&self) {
        let start = self.0.as_ptr();
        prefetch(start);
        prefetch(start.wrapping_add(64));
    }

    /// When the field goes.
    #[inline]
    pub(super) fn time(&self) -> i64 {
        // SAFETY: a pair has at least two bytes, its lengths; the mark of a time stands before eight bytes of time.
        unsafe {
            let start = self.0.as_ptr();
            if *start < LONG || *start.add(1) < LONG {
                return NEVER;
            }
            i64::from_le_bytes(start.add(2).cast::<[u8; 8]>().read_unaligned())
        }
    }

    #[inline]
    fn lengths(&self) -> Lengths {
        let mut head = 0;
        // SAFETY: as in `time`.
        let timed = unsafe { *self.0.as_ptr() == LONG && *self.0.as_ptr().add(1) == LONG };
        if timed {
            head = TIME_BYTES;
        }
        let mut next = || {
            // SAFETY: `new` wrote two lengths there, each one byte, or LONG and four bytes.
            unsafe {
                let first = *self.0.as_ptr().add(head);
                if first < LONG {
                    head += 1;
                    return usize::from(first);
                }
                let wide = self.0.as_ptr().add(head + 1).cast::<[u8; 4]>().read_unaligned();
                head += 5;
                u32::from_be_bytes(wide) as usize
            }
        };
        let (field, value) = (next(), next());
        Lengths { head, field, value }
    }

    #[inline]
    pub(super) fn field(&self) -> &[u8] {
        let lengths = self.lengths();
        // SAFETY: the field follows the lengths, within the box taken apart in `new`.
        unsafe { slice::from_raw_parts(self.0.as_ptr().add(lengths.head), lengths.field) }
    }

    #[inline]
    pub(super) fn value(&self) -> &[u8] {
        let Lengths { head, field, value } = self.lengths();
        // SAFETY: the value follows the field, within the same box.
        unsafe { slice::from_raw_parts(self.0.as_ptr().add(head + field), value) }
    }

    /// Puts another value of the same length where the old one is; `false`: it has another length, and nothing was done.
    #[inline]
    pub(super) fn overwrite(&mut self, new: &[u8]) -> bool {
        let Lengths { head, field, value } = self.lengths();
        if new.len() != value {
            return false;
        }
        // SAFETY: as in `value`, and nobody else looks at the box meanwhile.
        let old = unsafe { slice::from_raw_parts_mut(self.0.as_ptr().add(head + field), value) };
        old.copy_from_slice(new);
        true
    }

    fn len(&self) -> usize {
        let Lengths { head, field, value } = self.lengths();
        head + field + value
    }

    /// What stands outside of `self`.
    pub(super) fn heap_size(&self) -> usize {
        size_class(self.len())
    }
}

impl Clone for Pair {
    fn clone(&self) -> Self {
        Self::new(self.field(), self.value(), self.time())
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // SAFETY: the lengths add up to those of the very box that `new` took apart; `self` is not used again.
        unsafe { free(self.0, self.len()) }
    }
}

fn leak(bytes: Box<[u8]>) -> NonNull<u8> {
    NonNull::from(Box::leak(bytes)).cast()
}

/// Puts a leaked box together again and drops it.
///
/// # Safety
/// `start` comes from [`leak`], `len` is the length of what was leaked, and neither is used again.
unsafe fn free(start: NonNull<u8>, len: usize) {
    // SAFETY: promised by the caller.
    drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start.as_ptr(), len)) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_every_length_around_the_limits_survive_clone_and_drop() {
        for len in (0..40).chain([255, 256, 100_000]) {
            let bytes: Vec<u8> = (0..len).map(|n| (n * 7 + 255) as u8).collect();
            let text = Text::new(&bytes);
            let copy = text.clone();
            drop(text);
            assert_eq!(copy.as_bytes(), bytes);
            assert_eq!(copy.heap_size(), if len > 15 { size_class(len) } else { 0 });
        }
        assert_eq!(size_of::<Text>(), 16);
    }

    #[test]
    fn pairs_of_every_length_around_the_limits_survive_clone_and_drop() {
        for f in [0, 1, 254, 255, 256, 70_000] {
            for v in [0, 1, 254, 255, 256, 70_000] {
                let (field, value) = (vec![b'f'; f], vec![b'v'; v]);
                for time in [NEVER, 0, 255, i64::MAX - 1, i64::MIN] {
                    let pair = Pair::new(&field, &value, time);
                    let copy = pair.clone();
                    drop(pair);
                    assert_eq!((copy.field(), copy.value()), (&field[..], &value[..]));
                    assert_eq!(copy.time(), time);
                    assert!(copy.heap_size() >= f + v + 2);
                    let mut other = copy;
                    assert!(!other.overwrite(&vec![b'w'; v + 1]));
                    assert_eq!(other.value(), value);
                    assert!(other.overwrite(&vec![b'w'; v]));
                    assert_eq!((other.field(), other.value()), (&field[..], &vec![b'w'; v][..]));
                    assert_eq!(other.time(), time);
                }
            }
        }
        assert_eq!(size_of::<Option<Pair>>(), 8);
    }
}
