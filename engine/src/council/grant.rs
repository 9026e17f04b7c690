//! The leader's side of leases: renewals are collected, confirmed by a majority, and granted.

use super::Council;
use super::handover::Handover;
use super::message::{Body, Renewal};
use crate::topology::MemberId;

/// A round of confirmation that was lost is started again after this many beats.
const ROUND_BEATS: u64 = 2;
/// Rounds under way at most.
const ROUNDS_MAX: usize = 8;

/// Renewals that are granted once a majority confirms that this leader still leads.
pub(super) struct Round {
    number: u64,
    begun_ms: u64,
    renewals: Vec<(MemberId, Renewal)>,
}

impl Council {
    /// Starts a round for the renewals that came in.
    pub(super) fn confirm(&mut self) {
        let (Some(tenure), Some(consensus)) = (&mut self.tenure, &mut self.consensus) else {
            return;
        };
        let retry_ms = ROUND_BEATS * self.settings.beat_ms;
        let is_busy = tenure.rounds.back().is_some_and(|r| self.now_ms < r.begun_ms + retry_ms);
        if tenure.collected.is_empty() || is_busy || !consensus.is_caught_up() {
            return;
        }
        tenure.round_last += 1;
        let renewals = std::mem::take(&mut tenure.collected);
        tenure.rounds.push_back(Round {
            number: tenure.round_last,
            begun_ms: self.now_ms,
            renewals,
        });
        if tenure.rounds.len() > ROUNDS_MAX {
            tenure.rounds.pop_front();
        }
        consensus.confirm(tenure.round_last);
    }

    /// A majority has confirmed this leader since round `number` began.
    pub(super) fn grant(&mut self, number: u64) {
        let Some(tenure) = &mut self.tenure else { return };
        let Some(at) = tenure.rounds.iter().position(|r| r.number == number) else { return };
        let renewals: Vec<_> = tenure.rounds.drain(..=at).flat_map(|r| r.renewals).collect();
        for (from, renewal) in renewals {
            if !self.may_grant(&from, &renewal) {
                self.keep_refused(from, renewal);
                continue;
            }
            if let Some(tenure) = &mut self.tenure {
                tenure.note_granted(renewal.shard, self.now_ms);
            }
            if from == self.me {
                if self.holder.granted(&renewal, &self.boot, &self.settings) {
                    self.tell_lease();
                }
            } else {
                self.send(&from, Body::Granted(renewal));
            }
        }
        self.confirm();
    }

    /// What may be granted once more is applied is not to wait for the next beat: clients do.
    fn keep_refused(&mut self, from: MemberId, renewal: Renewal) {
        let (Some(tenure), Some(consensus)) = (&mut self.tenure, &self.consensus) else { return };
        let shard = consensus.machine.shards.get(&renewal.shard);
        let is_over = shard.is_some_and(|s| s.epoch > renewal.epoch);
        if !is_over && tenure.collected.iter().all(|(m, _)| *m != from) {
            tenure.refused.insert(from, renewal);
        }
    }

    fn may_grant(&self, from: &MemberId, renewal: &Renewal) -> bool {
        let (Some(tenure), Some(consensus)) = (&self.tenure, &self.consensus) else { return false };
        let id = renewal.shard;
        let Some(shard) = consensus.machine.shards.get(&id) else { return false };
        consensus.is_caught_up()
            && shard.primary.as_ref() == Some(from)
            && shard.epoch == renewal.epoch
            && shard.boot == renewal.boot
            && !tenure.promoting.contains_key(&id)
            && !tenure.handovers.get(&id).is_some_and(Handover::holds)
            && self.suspicion(shard, tenure.since_ms).is_none()
            && (self.keeps_its_set(shard) || self.is_set_true(id, shard))
    }
}
