//! The thread that takes the roles, in the order in which they were decided.

use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use super::{MARK, Now, Part, lock, serve_until};
use crate::clock;
use crate::member::Handle;
use crate::persist;
use crate::replication;
use crate::server::Shared;
use crate::topology::{Epoch, Lineage, Role};

/// A hold that not every loop has taken over by then, because of a long command, is given up, milliseconds.
const HOLD_BARRIER_MS: u64 = 1_000;
/// How long a handover waits for replies of before that wait for the disk or for replicas, milliseconds.
const HELD_REPLIES_MS: u64 = 50;
/// How often a role that is given before the server has started looks whether it has, milliseconds.
const START_MS: u64 = 2;

/// Takes the roles, one after the other.
pub(super) struct Roles {
    pub(super) shared: Arc<Shared>,
    pub(super) now: Arc<Mutex<Now>>,
    pub(super) driver: Arc<OnceLock<Handle>>,
}

impl Roles {
    pub(super) fn run(&self, taken: &Receiver<Part>) {
        while let Ok(mut part) = taken.recv() {
            // Of several decisions only the last one still holds.
            // (A hold follows the role that it is about, and a data set that goes is gone whatever comes next.)
            while !matches!(part, Part::Hold { .. } | Part::Anew)
                && let Ok(newer) = taken.try_recv()
            {
                if let Part::Hold { .. } = newer {
                    self.act(part);
                }
                part = newer;
            }
            self.act(part);
        }
    }

    fn act(&self, part: Part) {
        match part {
            Part::Primary(epoch) => self.lead(epoch),
            Part::Replica { host, port, epoch } => {
                self.set(Role::Replica, epoch);
                tracing::info!(host, port, epoch, "following the shard's primary");
                replication::follow(&self.shared, &host, port);
                let lineage = persist::lineage(&self.shared);
                if lineage.is_some_and(|l| l.epoch >= epoch) {
                    self.shared.end_hold();
                }
            }
            Part::Idle => {
                self.set(Role::None, 0);
                replication::rest(&self.shared);
            }
            Part::Anew => {
                self.set(Role::None, 0);
                replication::rest(&self.shared);
                replication::begin_anew(&self.shared);
            }
            Part::Hold { epoch, number } => self.hold(epoch, number),
        }
    }

    /// Waits until no loop executes anything for a client any more, and what was executed is answered, and tells the
    /// council so.
    fn hold(&self, epoch: Epoch, number: u64) {
        let shared = &self.shared;
        let is_wanted = || lock(&self.now).hold_wanted == epoch;
        let wait = |for_ms: u64, is_so: &dyn Fn() -> bool| {
            let until = clock::monotonic_ms() + for_ms;
            while !is_so() {
                if clock::monotonic_ms() >= until || !is_wanted() {
                    return false;
                }
                std::thread::sleep(Duration::from_micros(200));
            }
            true
        };
        if !wait(HOLD_BARRIER_MS, &|| shared.is_held_by_all(number)) {
            return;
        }
        shared.hold.lap("still");
        // Replies that wait for the disk or for replicas would be cut off with the lease. A disk that is slow holds
        // nobody up.
        let (end, quorum) = (shared.journal.end(), &shared.quorum);
        let is_acknowledged = || {
            let waits = shared.state.acks_wait_for_disk.load(Ordering::Acquire);
            (!waits || shared.state.may_acknowledge(end))
                && (!quorum.is_on() || quorum.offset() >= end)
        };
        if !is_acknowledged() && wait(HELD_REPLIES_MS, &is_acknowledged) {
            // They are out once each loop has made a turn, and has begun the next.
            for _ in 0..2 {
                let number = shared.renumber_hold();
                if !wait(HOLD_BARRIER_MS, &|| shared.is_held_by_all(number)) {
                    return;
                }
            }
        }
        // What is taken in from other shards is executed outside of the loops; while held, it begins no more.
        drop(self.shared.moves.importing());
        let mut now = lock(&self.now);
        if now.hold_wanted != epoch || now.role != Role::Primary || now.epoch != epoch {
            return;
        }
        self.shared.journal.seal(true);
        now.held = epoch;
        drop(now);
        shared.hold.lap("answered");
        if let Some(driver) = self.driver.get() {
            driver.look();
        }
    }

    fn set(&self, role: Role, epoch: Epoch) {
        let dropped = self.shared.replication.dropped_writes.load(Ordering::Relaxed);
        let mut now = lock(&self.now);
        now.role = role;
        now.epoch = epoch;
        now.dropped_before = dropped;
    }

    fn lead(&self, epoch: Epoch) {
        let shared = &self.shared;
        // One that is alone is primary from its first moment, maybe before its log is open.
        let state = &shared.state;
        while !state.started.load(Ordering::Acquire) && !state.shutdown.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(START_MS));
        }
        if let Err(error) = replication::promote(shared) {
            // The council will see that we have no lineage to show, and choose another.
            tracing::error!(error, epoch, "cannot act as primary");
            return;
        }
        shared.hold.lap("promoted");
        let Some(lineage) = self.lineage(epoch) else { return };
        let is_new = persist::note_lineage(shared, Some(lineage.clone()));
        if let Ok(text) = serde_json::to_string(&lineage) {
            shared.journal.append(0, &[MARK.as_bytes(), text.as_bytes()]);
        }
        self.set(Role::Primary, epoch);
        let mut now = lock(&self.now);
        now.has_led = true;
        if now.lease.0 == epoch && now.epoch == epoch && now.lease.1 > 0 {
            serve_until(shared, now.lease.1);
        }
        drop(now);
        tracing::info!(epoch, "acting as primary");
        // The mark counts where the log has one, and nothing that is acknowledged comes before it: clients do not wait for
        // the file.
        if is_new && let Err(error) = persist::store_lineage(shared) {
            tracing::error!(%error, epoch, "cannot write the lineage beside the log");
        }
    }

    /// Lineage of what is written from here on.
    fn lineage(&self, epoch: Epoch) -> Option<Lineage> {
        let (topology, me) = {
            let now = lock(&self.now);
            (now.topology.clone()?, now.me.clone())
        };
        let shard = topology.members.get(&me)?.shard?;
        Some(Lineage {
            cluster: topology.cluster.clone(),
            incarnation: topology.incarnation,
            shard,
            epoch,
            replid: self.shared.replication.replid(),
            offset: self.shared.journal.end(),
        })
    }
}
