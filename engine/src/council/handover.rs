//! A planned change of primary: the old one stops first, and the new one has all of its writes.
//!
//! The leader grants nothing more and asks the primary to give up its lease (`Release`). Once it says
//! that it has, or the lease is over by the clock, and the successor's lineage has reached the
//! primary's, the `Promote` goes into the log. The pause is three messages and what the replica lags;
//! when it does not come about within `handover_ms`, it is called off and the primary goes on.

use super::Council;
use super::choose::lineage_of;
use super::message::{Body, Stamp};
use crate::topology::{Change, Epoch, MemberId, Shard, ShardId, Topology};

pub(super) struct Handover {
    to: MemberId,
    epoch: Epoch,
    started_ms: u64,
    asked_ms: u64,
    pub(super) from: Option<MemberId>,
    pub(super) token: u64,
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
        let outcome = self.may_hand_over(id, &to, expected);
        let Some(tenure) = self.tenure.as_mut().filter(|_| outcome == Ok(None)) else {
            let outcome = outcome.map(Option::unwrap_or_default);
            self.answer(from, token, outcome);
            return;
        };
        let (started_ms, asked_ms) = (self.now_ms, 0);
        let handover = Handover { to, epoch: expected, started_ms, asked_ms, from, token };
        tenure.handovers.insert(id, handover);
        self.lead();
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
        if topology.members.get(to).is_none_or(|m| m.shard != Some(id)) {
            return Err(format!("{to} is no member of shard {id}"));
        }
        let seen = self.seen.get(to).map(|s| &s.report);
        let is_able = seen.is_some_and(|r| r.in_sync && !r.loading && r.disk_error.is_none());
        if !is_able || !self.seen.is_live(to, self.now_ms, &self.settings) {
            return Err(format!("{to} is not in sync with the primary"));
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
                echo.term == tenure.term && echo.at_ms >= h.started_ms && h.epoch == epoch
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
        let is_asked = self.now_ms < handover.asked_ms + self.settings.beat_ms / 2;
        let (to, started_ms) = (handover.to.clone(), handover.started_ms);
        if is_over || !self.seen.is_live(&to, self.now_ms, &self.settings) {
            self.call_off(id, "the replica did not catch up in time");
            return;
        }
        if !is_asked {
            handover.asked_ms = self.now_ms;
        }
        let fence_ms = tenure.fence_ms(id, shard, self.settings.lease_wait_ms);
        let released = tenure.released.contains_key(&id);
        if !is_asked && !released {
            // The stamp comes first: what the primary says next is known to be an answer.
            self.send_heard(&primary, false);
            let epoch = shard.epoch;
            if primary == self.me {
                let resume_at = self.now_ms + self.settings.handover_ms * 11 / 10;
                if self.holder.release(id, epoch, resume_at) {
                    self.tell_lease();
                    if let Some(tenure) = &mut self.tenure {
                        tenure.released.insert(id, (epoch, self.now_ms));
                    }
                }
            } else {
                self.send(&primary, Body::Release { shard: id, epoch });
            }
        }
        if self.now_ms < fence_ms {
            return;
        }
        let term = self.term();
        let spoke = |member: &MemberId| {
            let is_current = |as_of: Stamp| as_of.term == term && as_of.at_ms > fence_ms;
            self.seen.get(member).filter(|s| is_current(s.as_of) && s.at_ms >= started_ms)
        };
        let told = spoke(&primary).zip(spoke(&to));
        let lineage = |s: &super::detect::Seen| lineage_of(topology, id, &s.report).cloned();
        let complete = told.and_then(|(old, new)| {
            let (had, has) = (lineage(old), lineage(new));
            let is_complete = has.as_ref().map(|l| l.rank()) >= had.as_ref().map(|l| l.rank());
            is_complete.then(|| (new.report.boot.clone(), has))
        });
        match complete {
            Some((boot, lineage)) => {
                let expected = shard.epoch;
                let change =
                    Change::Promote { shard: id, to, expected, window_ms: 0, boot, lineage };
                let index = self.promote(id, change);
                if let (Some(index), Some(tenure)) = (index, &mut self.tenure) {
                    tenure.released.remove(&id);
                    if let Some(done) = tenure.handovers.remove(&id) {
                        tenure.await_answer(index, done.from, done.token);
                    }
                }
            }
            None if !is_asked => {
                self.send_heard(&primary, true);
                self.send_heard(&to, true);
            }
            None => {}
        }
    }

    fn call_off(&mut self, id: ShardId, why: &str) {
        let Some(tenure) = &mut self.tenure else { return };
        tenure.released.remove(&id);
        if let Some(handover) = tenure.handovers.remove(&id) {
            self.answer(handover.from, handover.token, Err(why.to_owned()));
        }
    }
}
