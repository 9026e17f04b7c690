//! Who is there: what each member last said of itself, and when, on this member's clock.

use std::collections::BTreeMap;

use super::choose::lineage_of;
use super::message::Stamp;
use super::settings::Settings;
use super::voters::Presence;
use crate::topology::{Epoch, MemberId, Report, Role, Shard, ShardId, Topology};

/// The last sign of life of one member.
pub(super) struct Seen {
    pub(super) at_ms: u64,
    /// The report was made after this moment of the leader's clock.
    pub(super) as_of: Stamp,
    pub(super) report: Report,
    /// Its host has refused a connection since: the process is gone.
    refused: bool,
}

/// Everybody's last sign of life.
#[derive(Default)]
pub(super) struct Presences {
    seen: BTreeMap<MemberId, Seen>,
    /// When each member was last heard to be in sync with its shard's primary of that epoch.
    attached: BTreeMap<MemberId, (Epoch, u64)>,
    /// Since when a shard has had its epoch, where that has changed since this process runs.
    began: BTreeMap<ShardId, (Epoch, u64)>,
    /// When a member came into the topology, where that was while this process runs.
    came: BTreeMap<MemberId, u64>,
}

/// Why a shard's primary is to be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Suspicion {
    NoPrimary,
    Silent,
    Refused,
    Restarted,
    DiskError,
}

impl Presences {
    /// Takes a report in, unless a younger one is here already. A process that has just started has
    /// seen no stamp yet: it is believed once it echoes one, so that what a former process of the same
    /// member said, and the network kept, is never taken for news.
    pub(super) fn heard(&mut self, from: &MemberId, now_ms: u64, as_of: Stamp, report: Report) {
        if self.seen.get(from).is_none_or(|s| s.as_of <= as_of) {
            self.seen.insert(from.clone(), Seen { at_ms: now_ms, as_of, report, refused: false });
        }
    }

    /// The boot of a replica that is in sync with the shard's primary, by what both have said last.
    pub(super) fn attached_boot(
        &self,
        topology: &Topology,
        id: ShardId,
        shard: &Shard,
        member: &MemberId,
    ) -> Option<&String> {
        let lead = lineage_of(topology, id, &self.seen.get(shard.primary.as_ref()?)?.report)?;
        let report = &self.seen.get(member)?.report;
        let is_attached = report.in_sync
            && report.role == Role::Replica
            && lineage_of(topology, id, report).is_some_and(|l| l.epoch == lead.epoch);
        is_attached.then_some(&report.boot)
    }

    /// Remembers that a member is in sync, if it is: to be called when it was heard.
    pub(super) fn note_attached(&mut self, topology: &Topology, member: &MemberId, now_ms: u64) {
        let Some(id) = topology.members.get(member).and_then(|m| m.shard) else { return };
        let Some(shard) = topology.shards.get(&id) else { return };
        if self.attached_boot(topology, id, shard, member).is_some() {
            self.attached.insert(member.clone(), (shard.epoch, now_ms));
        }
    }

    /// Remembers when shards got another epoch and when members came; `before`: what was known until now.
    pub(super) fn note_epochs(&mut self, before: &Topology, after: &Topology, now_ms: u64) {
        for (id, shard) in &after.shards {
            if before.shards.get(id).is_none_or(|s| s.epoch < shard.epoch) {
                self.began.insert(*id, (shard.epoch, now_ms));
            }
        }
        let new = after.members.keys().filter(|id| !before.members.contains_key(*id));
        self.came.extend(new.map(|id| (id.clone(), now_ms)));
    }

    /// Not heard for longer than a member may be silent; `since_ms`: when we began to listen.
    pub(super) fn is_silent(
        &self,
        member: &MemberId,
        now_ms: u64,
        since_ms: u64,
        settings: &Settings,
    ) -> bool {
        let came_ms = self.came.get(member).copied().unwrap_or(0);
        let heard_ms = self.seen.get(member).map_or(0, |s| s.at_ms);
        now_ms >= heard_ms.max(came_ms).max(since_ms) + settings.suspect_ms
    }

    /// When a member of the in-sync set was last known to be in sync, as far as this process has
    /// listened; who has a new primary is given time from when that was known.
    pub(super) fn last_in_sync_ms(
        &self,
        id: ShardId,
        shard: &Shard,
        member: &MemberId,
    ) -> Option<u64> {
        let times = [self.attached.get(member), self.began.get(&id)];
        let of_epoch = times.into_iter().flatten().filter(|(epoch, _)| *epoch == shard.epoch);
        of_epoch.map(|(_, at_ms)| *at_ms).max()
    }

    pub(super) fn refused(&mut self, member: &MemberId) {
        if let Some(seen) = self.seen.get_mut(member) {
            seen.refused = true;
        }
    }

    pub(super) fn get(&self, member: &MemberId) -> Option<&Seen> {
        self.seen.get(member)
    }

    pub(super) fn retain(&mut self, is_known: impl Fn(&MemberId) -> bool) {
        self.seen.retain(|id, _| is_known(id));
        self.attached.retain(|id, _| is_known(id));
        self.came.retain(|id, _| is_known(id));
    }

    /// Heard lately, and nothing says that it is gone.
    pub(super) fn is_live(&self, member: &MemberId, now_ms: u64, settings: &Settings) -> bool {
        self.seen.get(member).is_some_and(|s| !s.refused && now_ms < s.at_ms + settings.suspect_ms)
    }

    /// `since_ms`: when we began to listen; nobody is silent for longer than that.
    pub(super) fn presence(
        &self,
        member: &MemberId,
        now_ms: u64,
        since_ms: u64,
        settings: &Settings,
    ) -> Presence {
        let last_ms = self.seen.get(member).map_or(0, |s| s.at_ms).max(since_ms);
        if self.is_live(member, now_ms, settings) {
            Presence::Present
        } else if now_ms < last_ms + settings.voter_silence_ms {
            Presence::Quiet
        } else {
            Presence::Gone
        }
    }

    /// What speaks against the shard's primary, if anything.
    pub(super) fn suspicion(
        &self,
        shard: &Shard,
        now_ms: u64,
        since_ms: u64,
        settings: &Settings,
    ) -> Option<Suspicion> {
        let Some(primary) = &shard.primary else { return Some(Suspicion::NoPrimary) };
        let Some(seen) = self.seen.get(primary) else {
            let patient = now_ms < since_ms + settings.suspect_ms;
            return (!patient).then_some(Suspicion::Silent);
        };
        if seen.report.boot != shard.boot {
            return Some(Suspicion::Restarted);
        }
        if seen.refused {
            return Some(Suspicion::Refused);
        }
        if now_ms >= seen.at_ms.max(since_ms) + settings.suspect_ms {
            return Some(Suspicion::Silent);
        }
        // A primary that cannot write its disk is better than none.
        let is_able = |id: &MemberId, boot: &String| {
            let other = self.seen.get(id).filter(|_| id != primary);
            other.is_some_and(|s| s.report.boot == *boot && s.report.disk_error.is_none())
                && self.is_live(id, now_ms, settings)
        };
        let replaceable = shard.in_sync.iter().any(|(id, boot)| is_able(id, boot));
        (seen.report.disk_error.is_some() && replaceable).then_some(Suspicion::DiskError)
    }
}
