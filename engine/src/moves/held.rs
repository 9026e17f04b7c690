//! Which slots' clients wait, because the slots are about to change their owner.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::giving::Attempt;
use super::{SlotSet, lock};
use crate::clock;
use crate::server::Shared;

/// Longest time for which clients of slots that change their owner wait, milliseconds; after that they are
/// refused until it is clear who owns the slots.
const HOLD_MS: u64 = 1_000;

struct Held {
    id: Attempt,
    slots: SlotSet,
    until_ms: u64,
}

/// The slots that are held, by the attempt to give them away.
#[derive(Default)]
pub struct HeldSlots {
    all: Mutex<Vec<Held>>,
    any: AtomicBool,
    /// Counts the changes of `all`.
    number: AtomicU64,
}

/// What one loop knows of the held slots.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) number: u64,
    /// Slots whose clients wait, and until when; `None`: nobody does.
    pub(crate) slots: Option<Box<SlotSet>>,
    until_ms: u64,
}

impl HeldSlots {
    /// Some slots are held: their clients wait or are refused.
    #[inline]
    pub fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// The slot is held for longer than anybody waits.
    pub fn is_vain(&self, slot: u16) -> bool {
        let vain = |h: &Held| h.slots.contains(slot) && clock::monotonic_ms() >= h.until_ms;
        self.any() && lock(&self.all).iter().any(vain)
    }

    /// Brings a loop's knowledge up to date, at the start of its turn.
    #[inline]
    pub(crate) fn look(&self, seen: &mut Seen, mono_ms: u64) {
        let number = self.number.load(Ordering::Acquire);
        if number == seen.number && (seen.slots.is_none() || mono_ms < seen.until_ms) {
            return;
        }
        let all = lock(&self.all);
        let waiting = || all.iter().filter(|h| mono_ms < h.until_ms);
        seen.until_ms = waiting().map(|h| h.until_ms).min().unwrap_or(0);
        seen.slots = waiting().fold(None, |union: Option<Box<SlotSet>>, held| {
            let mut union = union.unwrap_or_else(|| Box::new(SlotSet::empty()));
            union.add(&held.slots);
            Some(union)
        });
        // Read under the lock under which it is counted up.
        seen.number = self.number.load(Ordering::Acquire);
    }
}

impl Shared {
    /// Holds the slots' clients back until `release_slots` has the same ID; gives the number that loops show once they know of it.
    pub fn hold_slots(self: &Arc<Shared>, id: Attempt, slots: &SlotSet) -> u64 {
        let held = &self.moves.held;
        let number = {
            let mut all = lock(&held.all);
            all.retain(|h| h.id != id);
            let until_ms = clock::monotonic_ms() + HOLD_MS;
            all.push(Held { id, slots: slots.clone(), until_ms });
            held.any.store(true, Ordering::Release);
            held.number.fetch_add(1, Ordering::AcqRel) + 1
        };
        self.wake_loops();
        number
    }

    pub fn release_slots(&self, id: Attempt) {
        let held = &self.moves.held;
        {
            let mut all = lock(&held.all);
            all.retain(|h| h.id != id);
            held.any.store(!all.is_empty(), Ordering::Release);
            held.number.fetch_add(1, Ordering::AcqRel);
        }
        self.wake_loops();
    }

    /// Every loop knows of the held slots as of that number: nothing in them is being executed.
    pub fn are_slots_held_by_all(&self, number: u64) -> bool {
        self.loops.iter().all(|l| l.held_slots.load(Ordering::Acquire) >= number)
    }
}
