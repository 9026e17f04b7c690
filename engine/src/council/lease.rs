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
    released: Option<Released>,
}

struct Released {
    epoch: Epoch,
    resume_at: u64,
    /// Term of the leader that asked for it.
    term: u64,
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
        if self.released.as_ref().is_some_and(|r| now_ms < r.resume_at) {
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

    /// Stops for a handover: no more renewals, and grants under way no longer count. What was executed may
    /// still be acknowledged under the lease that there is. `true` when it was this one's to give and is news.
    pub(super) fn release(
        &mut self,
        shard: ShardId,
        epoch: Epoch,
        resume_at: u64,
        term: u64,
    ) -> bool {
        if self.acting != Some((shard, epoch)) {
            return false;
        }
        self.sent.clear();
        let is_news = self.released.is_none();
        self.released = Some(Released { epoch, resume_at, term });
        is_news
    }

    /// The handover was called off, or whoever wanted it leads no more. Only a new grant lets it go on.
    pub(super) fn resume(&mut self) -> bool {
        self.released.take().is_some()
    }

    /// Released for a leader of an earlier term than this one.
    pub(super) fn is_released_before(&self, term: u64) -> bool {
        self.released.as_ref().is_some_and(|r| r.term < term)
    }

    pub(super) fn released(&self) -> Option<Epoch> {
        self.released.as_ref().map(|r| r.epoch)
    }
}
