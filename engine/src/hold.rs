//! Requests held back while a shard's primary changes: not refused, but left where they are until it is clear
//! who answers them.
//!
//! ```text
//! old primary   hold -> every loop has seen it: nothing executes -> final lineage told -> another one is
//!               primary and its mark has come -> end: held clients are sent on by MOVED
//! new primary   hold as soon as it is known -> its lease comes -> end: held clients are served
//! ```
//!
//! A hold has a number. A loop takes it over at the start of a turn, and executes only in turns: once every
//! loop shows the number, no request that began before the hold is under way.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock;
use crate::server::{Mail, Shared};
use crate::stopwatch::Stopwatch;

/// Whether requests are held back at the moment.
#[derive(Default)]
pub struct Hold {
    /// Number of the hold in force; 0: none.
    current: AtomicU64,
    last: AtomicU64,
    /// Monotonic milliseconds until when requests wait; after that they are refused while it is in force.
    until_ms: AtomicU64,
    /// Where the time goes of the hold in force.
    watch: Mutex<Option<Stopwatch>>,
}

impl Hold {
    /// A hold is in force: nothing with a key is executed.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.current.load(Ordering::Acquire) != 0
    }

    /// The number of the hold in force, 0 for none, and whether requests wait for its end.
    #[inline]
    pub(crate) fn look(&self, mono_ms: u64) -> (u64, bool) {
        let current = self.current.load(Ordering::Acquire);
        (current, current != 0 && mono_ms < self.until_ms.load(Ordering::Acquire))
    }

    /// A hold is in force for longer than anybody waits.
    #[inline]
    pub(crate) fn is_vain(&self, mono_ms: u64) -> bool {
        let (current, waits) = self.look(mono_ms);
        current != 0 && !waits
    }

    /// A hold is in force, and requests wait for its end.
    pub(crate) fn waits(&self) -> bool {
        self.look(clock::monotonic_ms()).1
    }

    pub fn is_over_time(&self) -> bool {
        self.is_vain(clock::monotonic_ms())
    }

    /// A step of what the hold in force is for is done.
    pub(crate) fn lap(&self, name: &str) {
        if let Some(watch) = self.watch().as_mut() {
            watch.lap(name);
        }
    }

    fn watch(&self) -> MutexGuard<'_, Option<Stopwatch>> {
        self.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Holds back what clients send, for at most `for_ms`; gives the number of the hold.
    pub fn begin_hold(&self, for_ms: u64) -> u64 {
        let hold = &self.hold;
        hold.until_ms.store(clock::monotonic_ms() + for_ms, Ordering::Release);
        let number = hold.last.fetch_add(1, Ordering::AcqRel) + 1;
        // Ahead of the hold, so that whoever ends it finds its watch.
        hold.watch().get_or_insert_with(Stopwatch::new);
        hold.current.store(number, Ordering::Release);
        self.wake_loops();
        number
    }

    /// The hold in force goes on under a new number, which each loop takes over at the start of its next turn.
    pub fn renumber_hold(&self) -> u64 {
        let hold = &self.hold;
        let number = hold.last.fetch_add(1, Ordering::AcqRel) + 1;
        let renumber = |current: u64| (current != 0).then_some(number);
        // There may be none any more: then no loop ever shows the number.
        let _ = hold.current.fetch_update(Ordering::AcqRel, Ordering::Acquire, renumber);
        self.wake_loops();
        number
    }

    /// What was held goes on.
    pub fn end_hold(&self) {
        // Each lease that is prolonged ends the hold that may be: mostly there is none.
        if self.hold.current.swap(0, Ordering::AcqRel) == 0 {
            return;
        }
        self.wake_loops();
        if let Some(watch) = self.hold.watch().take() {
            let (held_us, laps_us) = (watch.total_us(), watch.laps());
            tracing::info!(held_us, laps_us, "all clients were held");
        }
    }

    /// Every loop has taken this hold over.
    pub fn is_held_by_all(&self, number: u64) -> bool {
        self.loops.iter().all(|l| l.held.load(Ordering::Acquire) >= number)
    }

    /// Clients that are blocked in a command wait in vain for keys that are served elsewhere now: they get
    /// the redirection of their keys' slot; where there is none, `otherwise`, or they go on waiting.
    pub fn redirect_blocked(&self, otherwise: Option<&str>) {
        for waiter in self.waiters.all_waiting() {
            let slot = waiter.keys.first().map(|key| crate::topology::slot_of(key));
            let line = slot.and_then(|slot| self.cluster.redirection(slot, waiter.client.is_tls()));
            let Some(line) = line.as_deref().or(otherwise) else { continue };
            if waiter.cancel() {
                self.waiters.unblock(&waiter);
                let bytes = format!("-{line}\r\n").into_bytes();
                self.deliver(&waiter.client, bytes.into(), Some(self.basis()));
            }
        }
    }

    /// Tells every loop to look at its waiting clients again.
    pub fn wake_loops(&self) {
        self.loops.iter().for_each(|l| l.send(Mail::Look));
    }
}
