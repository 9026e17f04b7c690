//! A planned change of primary: the old one stops first, and the new one has all of its writes.
//!
//! A successor that cannot take over, by what it said last, is asked again: that may be of before it followed this
//! primary. Then the leader grants nothing more and asks the primary to hold (`Release`): to execute nothing more, which it
//! says together with its final lineage. Once the successor's lineage has reached that one, the `Promote`
//! goes into the log. Who was held meanwhile is sent on to the new primary. When it does not come about
//! within `handover_ms`, it is called off (`Resume`), and the primary goes on under a new grant.
//!
//! The held primary may still acknowledge what it had executed, under the lease that it has: all of that is
//! in its final lineage, and so in the successor's. Should the leader be lost, the next one waits for that
//! lease like for any other.

use super::Council;
use super::choose::lineage_of;
use super::message::{Body, Stamp};
use crate::topology::{Change, Epoch, Lineage, Member, MemberId, Report, Shard, ShardId, Topology};

pub(super) struct Handover {
    to: MemberId,
    epoch: Epoch,
    /// When it was wished for, and then when the primary was asked first.
    started_ms: u64,
    /// When the primary was last asked to hold, once the successor can take over.
    asked_ms: Option<u64>,
    /// When the replica was last asked how far it is.
    polled_ms: u64,
    pub(super) from: Option<MemberId>,
    pub(super) token: u64,
}

impl Handover {
    /// The primary was asked to hold, and may be granted nothing more.
    pub(super) fn holds(&self) -> bool {
        self.asked_ms.is_some()
    }
}

impl Council {
    pub(super) fn start_handover(
        &mut self,
        from: Option<MemberId>,
        token: u64,
        id: ShardId,
        to: MemberId,
        expected: Epoch,
    ) {
        let to = if to.is_empty() { self.best_successor(id).unwrap_or_default() } else { to };
        let outcome = self.may_hand_over(id, &to, expected);
        let Some(tenure) = self.tenure.as_mut().filter(|_| outcome == Ok(None)) else {
            let outcome = outcome.map(Option::unwrap_or_default);
            self.answer(from, token, outcome);
            return;
        };
        let (started_ms, asked_ms, polled_ms) = (self.now_ms, None, 0);
        let handover =
            Handover { to, epoch: expected, started_ms, asked_ms, polled_ms, from, token };
        tenure.handovers.insert(id, handover);
        self.lead();
    }

    /// The replica that can take over soonest: in sync, there, staying, with the most of the journal.
    fn best_successor(&self, id: ShardId) -> Option<MemberId> {
        let topology = self.consensus.as_ref().map(|c| &c.machine)?;
        let shard = topology.shards.get(&id)?;
        let able = topology.members_of(id).into_iter().filter(|m| {
            let in_set = shard.in_sync.contains_key(&m.id) && shard.primary.as_ref() != Some(&m.id);
            in_set && self.can_take_over(&m.id)
        });
        let rank = |m: &&Member| {
            let report = self.seen.get(&m.id).map(|s| &s.report);
            report.and_then(|r| lineage_of(topology, id, r)).map(Lineage::rank)
        };
        able.max_by_key(rank).map(|m| m.id.clone())
    }

    fn can_take_over(&self, member: &MemberId) -> bool {
        let able = |r: &Report| r.in_sync && !r.loading && !r.leaving && r.disk_error.is_none();
        self.seen.get(member).is_some_and(|s| able(&s.report))
            && self.seen.is_live(member, self.now_ms, &self.settings)
    }

    /// `Ok(Some(epoch))`: there is nothing to do.
    fn may_hand_over(
        &self,
        id: ShardId,
        to: &MemberId,
        expected: Epoch,
    ) -> Result<Option<Epoch>, String> {
        let topology = self.consensus.as_ref().map(|c| &c.machine).ok_or("no topology")?;
        let shard = topology.shards.get(&id).ok_or("no such shard")?;
        if shard.primary.as_ref() == Some(to) {
            return Ok(Some(topology.epoch));
        }
        if shard.epoch != expected {
            return Err(format!("the shard is at epoch {}", shard.epoch));
        }
        if to.is_empty() {
            return Err(format!("no replica of shard {id} is in sync and stays"));
        }
        if topology.members.get(to).is_none_or(|m| m.shard != Some(id)) {
            return Err(format!("{to} is no member of shard {id}"));
        }
        if self.tenure.as_ref().is_some_and(|t| t.handovers.contains_key(&id)) {
            return Err("a handover of the shard is under way".into());
        }
        Ok(None)
    }

    pub(super) fn note_released(&mut self, from: &MemberId, epoch: Option<Epoch>, echo: Stamp) {
        let Some(epoch) = epoch else { return };
        let (Some(tenure), Some(consensus)) = (&mut self.tenure, &self.consensus) else { return };
        for (id, shard) in &consensus.machine.shards {
            let asked = tenure.handovers.get(id).filter(|h| {
                // Said before it was asked: a leftover of another handover.
                let is_answer = h.holds() && echo.at_ms >= h.started_ms;
                echo.term == tenure.term && is_answer && h.epoch == epoch
            });
            if shard.primary.as_ref() == Some(from) && shard.epoch == epoch && asked.is_some() {
                tenure.released.entry(*id).or_insert((epoch, self.now_ms));
            }
        }
    }

    pub(super) fn look_after_handover(&mut self, topology: &Topology, id: ShardId, shard: &Shard) {
        let Some(tenure) = &mut self.tenure else { return };
        let Some(handover) = tenure.handovers.get_mut(&id) else { return };
        let is_over = self.now_ms >= handover.started_ms + self.settings.handover_ms;
        let Some(primary) = shard.primary.clone().filter(|_| shard.epoch == handover.epoch) else {
            self.call_off(id, "the shard has got another primary meanwhile");
            return;
        };
        let again_ms = self.settings.beat_ms / 2;
        let is_asked = handover.asked_ms.is_some_and(|asked| self.now_ms < asked + again_ms);
        let (to, started_ms, holds) = (handover.to.clone(), handover.started_ms, handover.holds());
        let wished = Stamp { term: tenure.term, at_ms: started_ms };
        let is_live = |m: &MemberId| self.seen.is_live(m, self.now_ms, &self.settings);
        let released = tenure.released.contains_key(&id);
        if is_over || !is_live(&to) || !released && !is_live(&primary) {
            self.call_off(id, "the replica did not catch up in time");
            return;
        }
        if !holds && !self.can_take_over(&to) {
            if self.seen.get(&to).is_some_and(|s| s.as_of > wished) {
                let why = format!("{to} is not in sync with the primary, or about to end");
                self.call_off(id, &why);
            } else {
                self.poll_heir(id, &to);
            }
            return;
        }
        let Some(handover) = self.tenure.as_mut().and_then(|t| t.handovers.get_mut(&id)) else {
            return;
        };
        if !holds {
            (handover.started_ms, handover.polled_ms) = (self.now_ms, 0);
        }
        if !is_asked {
            handover.asked_ms = Some(self.now_ms);
        }
        if !is_asked && !released {
            // The stamp comes first: what the primary says next is known to be an answer.
            self.send_heard(&primary, false);
            let epoch = shard.epoch;
            if primary == self.me {
                self.release(id, epoch, self.term());
            } else {
                self.send(&primary, Body::Release { shard: id, epoch });
            }
        }
        if !released {
            return;
        }
        let lineage = |s: &super::detect::Seen| lineage_of(topology, id, &s.report).cloned();
        let told = self.seen.get(&primary).zip(self.seen.get(&to));
        let complete = told.and_then(|(old, new)| {
            let (had, has) = (lineage(old), lineage(new));
            let is_final = old.report.held_epoch == shard.epoch && old.at_ms >= started_ms;
            let is_complete = has.as_ref().map(|l| l.rank()) >= had.as_ref().map(|l| l.rank());
            (is_final && is_complete).then(|| (new.report.boot.clone(), has))
        });
        match complete {
            Some((boot, lineage)) => {
                let (expected, by_majority) = (shard.epoch, self.acknowledges_by_majority(&to));
                let change = Change::Promote {
                    shard: id,
                    to,
                    expected,
                    window_ms: 0,
                    boot,
                    lineage,
                    by_majority,
                };
                let index = self.promote(id, change);
                if let (Some(index), Some(tenure)) = (index, &mut self.tenure) {
                    tenure.released.remove(&id);
                    if let Some(done) = tenure.handovers.remove(&id) {
                        tenure.await_answer(index, done.from, done.token);
                    }
                }
            }
            None => self.poll_heir(id, &to),
        }
    }

    /// Asks the replica anew with every answer: it is a message or two behind, and clients wait. One question is on its way at
    /// a time: what the replica says by itself would begin one more exchange each time otherwise (seed 235 of the simulation
    /// of the whole: millions of messages while a replica got nothing). This member itself answers at once, and is looked at while it is awaited.
    fn poll_heir(&mut self, id: ShardId, to: &MemberId) {
        let (now_ms, every_ms) = (self.now_ms, self.settings.beat_ms / 2);
        let Some(tenure) = &mut self.tenure else { return };
        let term = tenure.term;
        let Some(handover) = tenure.handovers.get_mut(&id) else { return };
        let asked = Stamp { term, at_ms: handover.polled_ms };
        let has_answered = self.seen.get(to).is_some_and(|s| s.as_of >= asked);
        if has_answered && *to != self.me || now_ms >= handover.polled_ms + every_ms {
            handover.polled_ms = now_ms;
            self.send_heard(to, true);
        }
    }

    /// A handover waits for this member's own data, which come without a message: it is to be reported every moment.
    pub fn awaits_itself(&self) -> bool {
        self.tenure.as_ref().is_some_and(|t| t.handovers.values().any(|h| h.to == self.me))
    }

    fn call_off(&mut self, id: ShardId, why: &str) {
        let Some(tenure) = &mut self.tenure else { return };
        tenure.released.remove(&id);
        if let Some(handover) = tenure.handovers.remove(&id) {
            self.answer(handover.from, handover.token, Err(why.to_owned()));
            let shard = self.known.as_ref().and_then(|k| k.shards.get(&id));
            let Some(primary) = shard.and_then(|s| s.primary.clone()) else { return };
            if primary != self.me {
                self.send(&primary, Body::Resume { shard: id, epoch: handover.epoch });
            } else if self.holder.resume() {
                self.beat();
            }
        }
    }
}
