//! The thread of the log: writes what nobody waits for, syncs as appendfsync wants it, begins new files.
//!
//! Orders (a new file, a remark) are tied to journal offsets: they are carried out when the log has come
//! exactly there. A failed write is mended and tried again; after a failed sync nothing is believed of that
//! file, and the log begins anew with a base of its own. Until either succeeds, writes are refused.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::lock;
use super::running::{Order, Place, Running, What};
use crate::clock;
use crate::server::Shared;

/// Where every write need not be on disk at once, the thread leaves it at that for so long.
const GATHER: Duration = Duration::from_millis(5);
/// How often the thread looks at the log: while something is not synced, and while all is.
const LOOK_MS: u64 = 100;
const IDLE_MS: u64 = 1000;

/// appendfsync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    Always,
    EverySecond,
    Never,
}

impl Policy {
    pub fn of(shared: &Shared) -> Policy {
        match shared.config.get("appendfsync").as_deref() {
            Some("always") => Policy::Always,
            Some("no") => Policy::Never,
            _ => Policy::EverySecond,
        }
    }
}

/// Body of the thread.
pub fn run(shared: &Shared, running: &Running) {
    let mut writer = Writer { shared, running, last_sync_ms: clock::monotonic_ms() };
    while writer.turn() {}
    running.stopped.store(true, Ordering::Release);
    running.switch_done.notify_all();
}

struct Writer<'s> {
    shared: &'s Shared,
    running: &'s Running,
    last_sync_ms: u64,
}

impl Writer<'_> {
    /// One step; `false` when the thread is to end.
    fn turn(&mut self) -> bool {
        let (shared, running) = (self.shared, self.running);
        let stop = running.stop.load(Ordering::Acquire);
        // A restart is carried out wherever the log stands: it does not need what was before.
        if self.carry_out(|order, _| matches!(order.what, What::Restart(_))) {
            return true;
        }
        if running.is_suspended() || running.must_restart.load(Ordering::Acquire) {
            if !stop {
                std::thread::sleep(Duration::from_millis(20));
            }
            return !stop;
        }
        // A file that counts only with a base to come proves nothing: its base's adoption ends the failure.
        let counts = lock(&running.log).counts();
        if counts && running.failure().is_some() && !running.mend(shared) {
            return !stop;
        }
        if self.carry_out(|order, at| order.offset <= at) {
            return true;
        }
        let number = running.write_some(shared, &mut lock(&running.place));
        if number > 0 && shared.state.log_is_awaited.swap(false, Ordering::SeqCst) {
            shared.wake_loops();
        }
        let policy = Policy::of(shared);
        if policy == Policy::Always || stop || self.sync_is_due(policy) {
            self.last_sync_ms = clock::monotonic_ms();
            running.sync(shared);
        }
        if number > 0 {
            if policy != Policy::Always && !stop {
                std::thread::sleep(GATHER);
            }
            return true;
        }
        if stop {
            return false;
        }
        let look_ms = if lock(&running.log).is_unsynced() { LOOK_MS } else { IDLE_MS };
        shared.journal.wait(running.written(), Duration::from_millis(look_ms));
        true
    }

    fn sync_is_due(&self, policy: Policy) -> bool {
        policy == Policy::EverySecond && clock::monotonic_ms() >= self.last_sync_ms + 1000
    }

    /// Carries out the next order if it is due. `false`: it is not.
    fn carry_out(&self, is_due: impl Fn(&Order, u64) -> bool) -> bool {
        let (shared, running) = (self.shared, self.running);
        let next = |at| lock(&running.orders).front().is_some_and(|order| is_due(order, at));
        if !next(running.written()) {
            return false;
        }
        // What is to be synced before the log goes on in a new file, while nobody waits for it.
        if matches!(lock(&running.orders).front(), Some(Order { what: What::Switch, .. })) {
            running.sync(shared);
        }
        running.is_switching.store(true, Ordering::Release);
        let mut place = lock(&running.place);
        let order = if next(place.at) { lock(&running.orders).pop_front() } else { None };
        if let Some(order) = order {
            self.begin(order, &mut place);
        }
        drop(place);
        running.is_switching.store(false, Ordering::Release);
        true
    }

    fn begin(&self, order: Order, place: &mut Place) {
        let (shared, running) = (self.shared, self.running);
        let listed = match order.what {
            What::Remark => {
                let result = lock(&running.log).write(&order.head);
                if let Err(e) = result {
                    running.fail(shared, &e.to_string(), false);
                    lock(&running.orders).push_front(order);
                }
                return;
            }
            What::Switch => true,
            What::Restart(_) => false,
        };
        let result = lock(&running.log).switch(&order.head, listed);
        if let (Ok(_), What::Restart(pin)) = (&result, order.what) {
            (place.at, place.pin) = (order.offset, pin);
            running.note_written(shared, place.at);
            // The journal may have begun anew, further down.
            shared.state.durable_offset.fetch_min(place.at, Ordering::AcqRel);
            running.suspended.store(false, Ordering::Release);
            running.must_restart.store(false, Ordering::Release);
        }
        let mut switched = lock(&running.switched);
        switched.count += 1;
        switched.result = Some(result.map_err(|e| e.to_string()));
        running.switch_done.notify_all();
    }
}
