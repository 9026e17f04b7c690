//! The allocator: jemalloc with size classes in steps of eight bytes.
//!
//! Why eight and not sixteen: an entry of a 16-byte key with a 16-byte value has 40 bytes, and would pay
//! for 48. jemalloc is built so by `JEMALLOC_SYS_WITH_LG_QUANTUM` (`.cargo/config.toml`); its classes are
//! then 8, 16, 24, ... 64, and above that four per doubling. The Rust binding takes it for granted that
//! every class is aligned to sixteen bytes, so requests with a larger alignment than eight are rounded up
//! to a multiple of it here: those classes are aligned to sixteen whatever the step.
//!
//! Its slabs hold up to 512 objects of one class, and cost 128 bytes of its own each. Of 48 bytes, what the same entry takes
//! with a TTL, it would put 256 into one; `JEMALLOC_SYS_WITH_MALLOC_CONF` makes that 512.

#![expect(unsafe_code, reason = "a global allocator is an unsafe trait; it only passes on")]

use std::alloc::{GlobalAlloc, Layout};

use tikv_jemallocator::Jemalloc;

pub struct Allocator;

#[inline]
fn rounded(layout: Layout) -> Layout {
    if layout.align() <= 8 { layout } else { layout.pad_to_align() }
}

// SAFETY: every call goes to jemalloc with a layout that is at least as large and as aligned; the same
// layout always rounds to the same one, so that sizes agree between alloc and dealloc.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's contract, passed on.
        unsafe { Jemalloc.alloc(rounded(layout)) }
    }

    #[inline]
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above; `ptr` came from `alloc` with this layout.
        unsafe { Jemalloc.dealloc(ptr, rounded(layout)) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { Jemalloc.alloc_zeroed(rounded(layout)) }
    }

    #[inline]
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        let new_size =
            if layout.align() <= 8 { new_size } else { new_size.next_multiple_of(layout.align()) };
        // SAFETY: as above; the new size is at least the one asked for.
        unsafe { Jemalloc.realloc(ptr, rounded(layout), new_size) }
    }
}

/// Bytes that the allocator hands out for a request; nothing for an empty one.
pub const fn size_class(size: usize) -> usize {
    match size {
        0 => 0,
        1..=8 => 8,
        9..=64 => size.next_multiple_of(8),
        _ => {
            // Four classes per doubling: 80, 96, 112, 128, 160, ...
            let step = 1usize << ((size - 1).ilog2() - 2);
            // What `next_multiple_of` is for powers of two, which the compiler does not know `step` to be.
            (size + (step - 1)) & !(step - 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_the_build() {
        for size in (1..4096).chain([5000, 10_000]) {
            // SAFETY: a plain allocation, measured and given back.
            let real = unsafe {
                let layout = Layout::from_size_align(size, 1).unwrap();
                let p = Allocator.alloc(layout);
                let real = tikv_jemalloc_sys_usable(p);
                Allocator.dealloc(p, layout);
                real
            };
            assert_eq!(size_class(size), real, "for a request of {size}");
        }
    }

    #[test]
    fn a_slab_of_entries_with_a_ttl_holds_as_many_as_one_of_entries_without() {
        use tikv_jemalloc_ctl::raw::read;
        for size in [40, 48] {
            // SAFETY: both names are known, and of these types.
            let regions = (0..8).find_map(|bin| unsafe {
                let found: usize = read(format!("arenas.bin.{bin}.size\0").as_bytes()).unwrap();
                let regions = || read::<u32>(format!("arenas.bin.{bin}.nregs\0").as_bytes());
                (found == size).then(|| regions().unwrap())
            });
            assert_eq!(regions, Some(512), "of {size} bytes");
        }
    }

    #[test]
    fn sixteen_byte_alignment_is_kept() {
        for size in 1..300 {
            let layout = Layout::from_size_align(size, 16).unwrap();
            // SAFETY: allocated and given back with the same layout.
            unsafe {
                let p = Allocator.alloc(layout);
                assert_eq!(p as usize % 16, 0, "size {size}");
                Allocator.dealloc(p, layout);
            }
        }
    }

    fn tikv_jemalloc_sys_usable(p: *mut u8) -> usize {
        // SAFETY: `p` is a live allocation of jemalloc.
        unsafe { tikv_jemallocator::usable_size(p) }
    }
}
