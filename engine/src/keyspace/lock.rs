//! A lock of one byte that spins briefly and then yields.
//!
//! Why not a mutex of the library: there are 16,384 of them, each is held for well under a microsecond,
//! and a thread that was put to sleep while it held one must not make the others burn its core.

use std::sync::atomic::{AtomicBool, Ordering};

/// Turns of spinning before the core is given away.
const SPINS: u32 = 64;

#[derive(Default)]
pub(super) struct SlotLock(AtomicBool);

pub(super) struct SlotGuard<'a>(&'a SlotLock);

impl SlotLock {
    #[inline]
    pub(super) fn lock(&self) {
        if !self.0.swap(true, Ordering::Acquire) {
            return;
        }
        self.lock_contended();
    }

    #[cold]
    fn lock_contended(&self) {
        let mut turns = 0;
        loop {
            if !self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Acquire) {
                return;
            }
            turns += 1;
            if turns < SPINS {
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<SlotGuard<'_>> {
        (!self.0.load(Ordering::Relaxed) && !self.0.swap(true, Ordering::Acquire))
            .then_some(SlotGuard(self))
    }

    #[inline]
    pub(super) fn unlock(&self) {
        self.0.store(false, Ordering::Release);
    }
}

impl Drop for SlotGuard<'_> {
    fn drop(&mut self) {
        self.0.unlock();
    }
}
