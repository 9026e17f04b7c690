//! Bytes behind one pointer, for the small forms of collections.
//!
//! ```text
//! word    address, a multiple of 8 | bit 2: roomy | bits 0..2: TAG      in the entry of a key, or wherever the value is
//!            v
//!         len u32le, itself included | len - 4 more bytes
//! ```
//!
//! What lies there takes the allocator's class of its length, or the class above that: then it is *roomy*. So the capacity
//! need not be kept, and a value that grows and shrinks by a few bytes is not moved each time. A listpack begins with its
//! length anyway. The bits of the tag belong to who holds the word, and tell this form from others (see `word`).

#![expect(
    unsafe_code,
    reason = "an allocation of its own behind a thin pointer; see each SAFETY note"
)]

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;
use std::slice;

use super::size_class;
use super::word::{TAG_BITS, Tagged};

/// Bytes of the length.
const LEN: usize = size_of::<u32>();
/// No block is as long as this.
const LEN_END: usize = 1 << 31;
const ROOMY: usize = 0b100;
/// What every allocation here is aligned to: the bits below are free.
const ALIGN: usize = 8;

/// Bytes that begin with their own length.
pub(super) struct Block<const TAG: usize>(NonNull<u8>);

// SAFETY: a Block owns its bytes alone, and gives out references by Rust's own rules.
unsafe impl<const TAG: usize> Send for Block<TAG> {}
// SAFETY: as above.
unsafe impl<const TAG: usize> Sync for Block<TAG> {}
// SAFETY: one pointer, and `assume` gives every one of them the tag.
unsafe impl<const TAG: usize> Tagged for Block<TAG> {
    const TAG: usize = TAG;
}

impl<const TAG: usize> Block<TAG> {
    /// A block of `len` bytes, its length included; the others are zero.
    pub(super) fn new(len: usize) -> Self {
        const { assert!(TAG <= TAG_BITS) };
        assert!((LEN..LEN_END).contains(&len), "a block has a length, and room for it");
        let layout = layout(size_class(len));
        // SAFETY: the layout is not empty, and holds the four bytes of the length, aligned.
        unsafe {
            let start = alloc_zeroed(layout);
            if start.is_null() {
                handle_alloc_error(layout);
            }
            start.cast::<u32>().write((len as u32).to_le());
            Self::assume(start, false)
        }
    }

    /// A copy of bytes that begin with their own length.
    pub(super) fn copy_of(bytes: &[u8]) -> Self {
        let len = bytes.len();
        let stated = bytes.first_chunk().map(|len| u32::from_le_bytes(*len) as usize);
        assert!(len < LEN_END && stated == Some(len), "the length stands in front");
        let layout = layout(size_class(len));
        // SAFETY: the layout holds `len` bytes, which are four at least; nobody sees those behind them.
        unsafe {
            let start = alloc(layout);
            if start.is_null() {
                handle_alloc_error(layout);
            }
            start.copy_from_nonoverlapping(bytes.as_ptr(), len);
            Self::assume(start, false)
        }
    }

    /// # Safety
    /// `start` is an allocation of ours of the class of its length, or, if `roomy`, of the class above.
    unsafe fn assume(start: *mut u8, roomy: bool) -> Self {
        let bits = TAG | if roomy { ROOMY } else { 0 };
        // SAFETY: an allocation is not at zero, and setting low bits of its address does not change that.
        Self(unsafe { NonNull::new_unchecked(start.map_addr(|address| address | bits)) })
    }

    #[inline]
    fn start(&self) -> *mut u8 {
        self.0.as_ptr().map_addr(|address| address & !(ALIGN - 1))
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        // SAFETY: every block begins with its length, aligned.
        u32::from_le(unsafe { self.start().cast::<u32>().read() }) as usize
    }

    #[inline]
    pub(super) fn as_bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes are allocated and initialised, and live as long as `self`.
        unsafe { slice::from_raw_parts(self.start(), self.len()) }
    }

    /// All bytes but the length, which changes by [`Block::splice`] alone.
    #[inline]
    pub(super) fn rest_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `as_bytes`, exclusive by `&mut self`.
        unsafe { slice::from_raw_parts_mut(self.start().add(LEN), self.len() - LEN) }
    }

    /// What it takes from the allocator.
    #[inline]
    pub(super) fn capacity(&self) -> usize {
        let snug = size_class(self.len());
        if self.0.addr().get() & ROOMY == 0 { snug } else { size_class(snug + 1) }
    }

    /// Makes the `old` bytes from `at` on `new` ones, moves what follows, and gives them to be written.
    pub(super) fn splice(&mut self, at: usize, old: usize, new: usize) -> &mut [u8] {
        let len = self.len();
        let behind = at + old;
        assert!(LEN <= at && behind <= len, "a splice within the block");
        if new > old {
            self.resize(len + (new - old));
        }
        // In what lies behind the length, where `copy_within` keeps to the bounds.
        self.rest_mut().copy_within(behind - LEN..len - LEN, at + new - LEN);
        if new < old {
            self.resize(len - (old - new));
        }
        &mut self.rest_mut()[at - LEN..at + new - LEN]
    }

    /// Cuts the block off, or adds zeros.
    pub(super) fn resize(&mut self, len: usize) {
        assert!(
            (LEN..LEN_END).contains(&len),
            "a block has a length, and no more than it can state"
        );
        let was = self.len();
        let (old, snug) = (size_class(was), size_class(len));
        let roomy = self.0.addr().get() & ROOMY != 0;
        let capacity = if roomy { size_class(old + 1) } else { old };
        // SAFETY: `start` is an allocation of `capacity` bytes, and afterwards one of `snug` bytes or of `capacity`,
        // which is the class above; both hold `len` bytes. Bytes that were not there are made zero before anybody
        // sees them. The old word is overwritten without being dropped: it owns nothing any more.
        unsafe {
            let mut start = self.start();
            if snug != old {
                let is_roomy = snug < capacity && capacity == size_class(snug + 1);
                if snug != capacity && !is_roomy {
                    start = realloc(start, layout(capacity), snug);
                    if start.is_null() {
                        handle_alloc_error(layout(snug));
                    }
                }
                std::ptr::write(self, Self::assume(start, is_roomy));
            }
            if len > was {
                start.add(was).write_bytes(0, len - was);
            }
            start.cast::<u32>().write((len as u32).to_le());
        }
    }
}

impl<const TAG: usize> Clone for Block<TAG> {
    fn clone(&self) -> Self {
        Self::copy_of(self.as_bytes())
    }
}

impl<const TAG: usize> PartialEq for Block<TAG> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const TAG: usize> Eq for Block<TAG> {}

impl<const TAG: usize> Drop for Block<TAG> {
    fn drop(&mut self) {
        // SAFETY: allocated with a layout of this very size; `self` is not used again.
        unsafe { dealloc(self.start(), layout(self.capacity())) }
    }
}

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, ALIGN).unwrap_or_else(|_| unreachable!("blocks are bounded"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_as_a_vector(ops in prop::collection::vec((any::<usize>(), 0usize..400, 0usize..400), 0..60)) {
            let mut block = Block::<2>::new(LEN);
            let mut model: Vec<u8> = Vec::new();
            for (n, (at, old, new)) in ops.into_iter().enumerate() {
                let at = at % (model.len() + 1);
                let old = old.min(model.len() - at);
                block.splice(LEN + at, old, new).fill(n as u8);
                model.splice(at..at + old, std::iter::repeat_n(n as u8, new));
                prop_assert_eq!(&block.as_bytes()[LEN..], &model[..]);
                prop_assert_eq!(block.len(), LEN + model.len());
                let (snug, capacity) = (size_class(block.len()), block.capacity());
                prop_assert!(capacity == snug || capacity == size_class(snug + 1));
                // SAFETY: a live allocation of the allocator.
                prop_assert_eq!(unsafe { tikv_jemallocator::usable_size(block.start()) }, capacity);
                prop_assert!(block == block.clone());
            }
        }
    }

    #[test]
    fn a_byte_more_and_less_at_the_border_of_a_class_moves_nothing() {
        let mut block = Block::<0>::new(128);
        block.resize(129);
        let (start, capacity) = (block.start(), block.capacity());
        for _ in 0..3 {
            block.resize(128);
            assert_eq!((block.start(), block.capacity()), (start, capacity));
            block.resize(129);
            assert_eq!((block.start(), block.capacity()), (start, capacity));
        }
        block.resize(112);
        assert_eq!(block.capacity(), 112);
    }
}
