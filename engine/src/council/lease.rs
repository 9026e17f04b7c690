//! The primary's side of its lease: when it was asked for, and how long it therefore lasts.

use std::collections::BTreeMap;

use super::message::Renewal;
use super::settings::Settings;
use crate::topology::{Epoch, MemberId, ShardId, Topology};

/// Renewals on their way at most; older ones are forgotten, and their grants with them.
const SENT_MAX: usize = 64;

/// What this process holds, or tries to hold.
#[derive(Default)]
pub(super) struct Holder {
    acting: Option<(ShardId, Epoch)>,
    seq: u64,
    /// When each unanswered renewal was sent, on this member's clock.
    sent: BTreeMap<u64, u64>,
    until_ms: u64,
    /// Given up for a handover; asked for again at that time if nothing came of it.
    released: Option<(Epoch, u64)>,
}

impl Holder {
    /// The shard epoch that this very process was made primary under.
    pub(super) fn acting(&self) -> Option<(ShardId, Epoch)> {
        self.acting
    }

    pub(super) fn until_ms(&self) -> u64 {
        self.until_ms
    }

    /// Follows the topology; an epoch counts only once it is on this member's disk (`durable`).
    pub(super) fn follow(
        &mut self,
        topology: &Topology,
        durable: Epoch,
        me: &MemberId,
        boot: &str,
    ) {
        let is_mine = |shard: &crate::topology::Shard| {
            shard.primary.as_ref() == Some(me) && shard.boot == boot && shard.epoch <= durable
        };
        let acting = topology.shards.iter().find(|(_, s)| is_mine(s)).map(|(id, s)| (*id, s.epoch));
        if acting != self.acting {
            let seq = self.seq;
            *self = Self { acting, seq, ..Self::default() };
        }
    }

    /// The next renewal to send, if this process is a primary that wants to stay one.
    pub(super) fn renew(&mut self, now_ms: u64, boot: &str) -> Option<Renewal> {
        let (shard, epoch) = self.acting?;
        if self.released.is_some_and(|(_, resume_at)| now_ms < resume_at) {
            return None;
        }
        self.released = None;
        self.seq += 1;
        self.sent.insert(self.seq, now_ms);
        while self.sent.len() > SENT_MAX {
            self.sent.pop_first();
        }
        Some(Renewal { shard, epoch, boot: boot.to_owned(), seq: self.seq })
    }

    /// A grant counts from when its renewal was sent. `true` when the lease became longer.
    pub(super) fn granted(&mut self, grant: &Renewal, boot: &str, settings: &Settings) -> bool {
        if self.acting != Some((grant.shard, grant.epoch)) || grant.boot != boot {
            return false;
        }
        let Some(sent_ms) = self.sent.get(&grant.seq).copied() else { return false };
        self.sent.retain(|seq, _| *seq > grant.seq);
        let until_ms = sent_ms + settings.lease_ms;
        let longer = until_ms > self.until_ms;
        self.until_ms = self.until_ms.max(until_ms);
        longer
    }

    /// Gives the lease up: grants under way no longer count. `true` when it was this one's to give.
    pub(super) fn release(&mut self, shard: ShardId, epoch: Epoch, resume_at: u64) -> bool {
        if self.acting != Some((shard, epoch)) {
            return false;
        }
        self.sent.clear();
        self.until_ms = 0;
        self.released = Some((epoch, resume_at));
        true
    }

    pub(super) fn released(&self) -> Option<Epoch> {
        self.released.map(|(epoch, _)| epoch)
    }
}
