//! A lock of one byte that spins briefly and then yields.
//!
//! Why not a mutex of the library: there are 16,384 of them, each is held for well under a microsecond,
//! and a thread that was put to sleep while it held one must not make the others burn its core.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::busy;

/// Turns of spinning before the core is given away.
const SPINS: u32 = 64;
/// Turns of waiting between two looks whether a script holds the lock for long.
const LOOK: u32 = 64;
/// How long a thread sleeps that waits for such a script.
const NAP: Duration = Duration::from_micros(200);

/// One turn of waiting.
pub(super) fn idle(turns: &mut u32) {
    *turns = turns.wrapping_add(1);
    if *turns < SPINS {
        std::hint::spin_loop();
    } else if (*turns).is_multiple_of(LOOK) && busy::take_turn() {
        std::thread::sleep(NAP);
    } else {
        std::thread::yield_now();
    }
}

#[derive(Default)]
pub(super) struct SlotLock(AtomicBool);

pub(super) struct SlotGuard<'a>(&'a SlotLock);

impl SlotLock {
    /// Waits for the lock until `gives_up` says not to; `false`: it was not taken.
    #[cold]
    pub(super) fn wait(&self, gives_up: impl Fn() -> bool) -> bool {
        let mut turns = 0;
        loop {
            if !self.0.load(Ordering::Relaxed) && self.try_take() {
                return true;
            }
            if gives_up() {
                return false;
            }
            idle(&mut turns);
        }
    }

    #[inline]
    pub(super) fn try_lock(&self) -> Option<SlotGuard<'_>> {
        // Made only once the lock is ours: a guard unlocks when it goes, whoever holds the lock.
        (!self.is_taken() && self.try_take()).then(|| SlotGuard(self))
    }

    /// Somebody holds it, or did a moment ago.
    #[inline]
    pub(super) fn is_taken(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes the lock if it is free; who took it unlocks it.
    #[inline]
    pub(super) fn try_take(&self) -> bool {
        !self.0.swap(true, Ordering::Acquire)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Who tried in vain once let go of the other's lock: two threads then changed one list at a time.
    #[test]
    fn a_lock_that_is_held_stays_so_when_another_tries() {
        let lock = SlotLock::default();
        assert!(lock.try_take());
        assert!(lock.try_lock().is_none());
        assert!(!lock.try_take(), "it is held as before");
        lock.unlock();
        assert!(lock.try_lock().is_some());
        assert!(lock.try_take(), "the guard has gone");
    }
}
