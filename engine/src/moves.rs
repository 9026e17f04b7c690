//! Slot moves: a shard's keys go to another shard while clients go on, and change their owner at one moment.
//!
//! ```text
//! target primary                               source primary
//!   takes the libraries of functions in   <-     all that it has: see `functions`
//!   connects, asks                        ->     lets it begin: see `giving`
//!   empties the slots, says so            ->     snapshot of the slots, as RESTORE requests
//!   executes, journals (its replicas follow) <-  then the journal's requests for those slots
//!   says how far it is                    ->     nearly there: holds the slots' clients, sends the rest
//!                                                council: Moved (both epochs unchanged)
//!   knows the new topology                ->     ends the hold: held clients are sent on by MOVED
//! ```
//!
//! The council has the last word: until `Moved` is committed the source owns the slots and has all writes;
//! from then on the target does. Whatever breaks off before is begun anew by whoever is primary then. Keys in
//! slots that another shard owns are left-overs of either side, and swept.
//!
//! Modules in reading order: `held` (which clients wait), `pace` (how fast), `progress` (how far), `source`, `target`, `sweep`, and here the thread that
//! looks after all of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::replication::fresh::Unaware;
use crate::server::Shared;
use crate::topology::{Epoch, Move, SLOTS, ShardId, SlotRange};

pub mod functions;
pub mod giving;
pub mod held;
pub mod pace;
pub mod progress;
pub mod source;
mod sweep;
mod target;

use giving::Giving;
use held::HeldSlots;
use pace::Watch;
use progress::Progress;
pub(crate) use sweep::cut_unaware;

/// How often the thread looks by itself.
const LOOK: Duration = Duration::from_millis(200);

/// A set of slots, one bit each.
#[derive(Clone)]
pub struct SlotSet([u64; SLOTS as usize / 64]);

impl SlotSet {
    pub fn empty() -> SlotSet {
        SlotSet([0; SLOTS as usize / 64])
    }

    pub fn of(ranges: &[SlotRange]) -> SlotSet {
        let mut set = SlotSet::empty();
        for slot in ranges.iter().flat_map(|r| r.first..=r.last.min(SLOTS - 1)) {
            set.0[slot as usize / 64] |= 1 << (slot % 64);
        }
        set
    }

    #[inline]
    pub fn contains(&self, slot: u16) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 == 1)
    }

    pub fn add(&mut self, other: &SlotSet) {
        self.0.iter_mut().zip(other.0).for_each(|(word, more)| *word |= more);
    }

    pub fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0..SLOTS).filter(|slot| self.contains(*slot))
    }
}

/// What a server keeps about moves.
#[derive(Default)]
pub struct Moves {
    pub held: HeldSlots,
    /// How clients fare while slots are sent.
    pub watch: Watch,
    /// Moves that this member gives away at the moment.
    given: Mutex<Vec<Arc<Progress>>>,
    /// Who gives them.
    pub giving: Giving,
    /// Held while a batch of another shard's requests is executed: a handover waits for it.
    importing: Mutex<()>,
    /// Moves that this member takes in at the moment.
    targets: Mutex<Vec<Epoch>>,
    /// Replicas for which keys that are left over still have to stay.
    unaware: Mutex<Unaware>,
    /// Epoch of the topology as of which nothing was left to sweep.
    swept: AtomicU64,
    wake: (Mutex<bool>, Condvar),
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Moves {
    /// No batch of another shard's requests is under way while this is held.
    pub fn importing(&self) -> MutexGuard<'_, ()> {
        lock(&self.importing)
    }

    /// The topology or the role has changed: there may be something to do.
    pub fn look(&self) {
        *lock(&self.wake.0) = true;
        self.wake.1.notify_all();
    }

    fn await_look(&self) {
        let wanted = lock(&self.wake.0);
        let (mut wanted, _) = self
            .wake
            .1
            .wait_timeout_while(wanted, LOOK, |wanted| !*wanted)
            .unwrap_or_else(PoisonError::into_inner);
        *wanted = false;
    }
}

/// Starts the thread that takes in what moves to this member's shard, and sweeps what has moved away.
///
/// # Errors
/// When the thread cannot be started.
pub fn start(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = shared.clone();
    std::thread::Builder::new().name("moves".into()).spawn(move || {
        while !shared.state.shutdown.load(Ordering::Acquire) {
            shared.moves.await_look();
            look_after(&shared);
        }
    })?;
    Ok(())
}

fn look_after(shared: &Arc<Shared>) {
    let Some((shard, epoch)) = acting(shared) else { return };
    let view = shared.cluster.view();
    for under_way in view.topology.moves.iter().filter(|m| m.to == shard) {
        let mut targets = lock(&shared.moves.targets);
        if targets.contains(&under_way.id) {
            continue;
        }
        targets.push(under_way.id);
        drop(targets);
        let (with, taken) = (shared.clone(), under_way.clone());
        let spawned = std::thread::Builder::new().name("slots-in".into()).spawn(move || {
            target::run(&with, &taken, epoch);
            lock(&with.moves.targets).retain(|id| *id != taken.id);
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "cannot start a thread to take slots in");
            lock(&shared.moves.targets).retain(|id| *id != under_way.id);
        }
    }
    let known = view.topology.epoch;
    if shared.moves.swept.load(Ordering::Relaxed) != known && sweep::sweep(shared, shard, epoch) {
        shared.moves.swept.store(known, Ordering::Relaxed);
    }
}

/// Shard and shard epoch under which this member acts as primary, its lease holding.
fn acting(shared: &Shared) -> Option<(ShardId, Epoch)> {
    shared.managed.get()?.acting()
}

/// This member still acts under that epoch, and the move is still under way.
fn goes_on(shared: &Shared, under_way: &Move, epoch: Epoch) -> bool {
    acting(shared).is_some_and(|(_, e)| e == epoch)
        && shared.cluster.view().topology.move_of(under_way.id).is_some()
        && !shared.state.shutdown.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_holds_the_slots_of_its_ranges() {
        let mut set = SlotSet::of(&[
            SlotRange { first: 0, last: 0 },
            SlotRange { first: 63, last: 65 },
            SlotRange { first: 16383, last: 16383 },
        ]);
        assert_eq!(set.iter().collect::<Vec<_>>(), [0, 63, 64, 65, 16383]);
        set.add(&SlotSet::of(&[SlotRange { first: 7, last: 7 }]));
        assert!(set.contains(7) && set.contains(64) && !set.contains(8));
        assert!(!set.contains(u16::MAX));
    }
}
