//! Which member becomes primary: the best lineage, and never an older one than may come back.
//!
//! Members fall into those whose report is *current* (told after the old lease had ended, so that it
//! counts every write that was ever acknowledged under it) and the rest. Among the current ones the
//! highest (incarnation, epoch, offset) wins. It is appointed only if nobody better may be missing:
//!
//! * some current member of the shard's in-sync set is not ahead of it: the set is in the
//!   topology, and holds only members at most the asynchronous tail behind the primary; or
//! * every member of that set has spoken since it was restarted, and one of them still has data; or
//! * the grace has passed, and one of the set has spoken with data, or all of them without.
//!
//! And it is never below the lineage that the last primary started from, unless all have spoken.
//!
//! A data set without lineage (empty since boot) wins only where none can come back: in a shard that
//! never had a primary, or once every member of the shard has said that it is empty.
//! At least half of the shard's members must have spoken (within the grace), so that whatever a
//! majority of them had acknowledged is known to one that spoke.

use std::cmp::Reverse;

use crate::topology::{Lineage, MemberId, Report, Shard, ShardId, Topology};

/// One member of the shard, as far as it is known.
pub(super) struct Candidate<'a> {
    pub(super) id: &'a MemberId,
    pub(super) name: &'a str,
    /// `None`: not heard since the old lease ended, or still loading its data.
    pub(super) report: Option<&'a Report>,
}

pub(super) enum Choice {
    Appoint { to: MemberId, boot: String, lineage: Option<Lineage> },
    Wait(String),
}

/// The report's lineage, if it is one of this cluster and shard.
pub(super) fn lineage_of<'a>(
    topology: &Topology,
    shard: ShardId,
    report: &'a Report,
) -> Option<&'a Lineage> {
    report
        .lineage
        .as_ref()
        .filter(|l| l.cluster == topology.cluster && l.shard == shard)
        .filter(|l| l.incarnation == topology.incarnation)
}

/// The member of `shard` to appoint. `patience_over`: the grace for the missing has passed.
pub(super) fn choose(
    topology: &Topology,
    id: ShardId,
    shard: &Shard,
    members: &[Candidate<'_>],
    patience_over: bool,
) -> Choice {
    let wait = |why: &str| Choice::Wait(why.to_owned());
    let current = || members.iter().filter_map(|c| Some((c, c.report?)));
    let lineage = |report: &Report| lineage_of(topology, id, report).map(Lineage::rank);
    let was_in_sync = |c: &Candidate<'_>, r: &Report| shard.in_sync.get(c.id) == Some(&r.boot);

    let best = current().filter(|(_, r)| r.disk_error.is_none()).max_by_key(|(c, r)| {
        (
            lineage(r),
            was_in_sync(c, r),
            r.in_sync,
            shard.primary.as_ref() == Some(c.id),
            Reverse((c.name, c.id)),
        )
    });
    let Some((best, report)) = best else {
        return wait("no member of the shard answers");
    };
    let appoint = |lineage: Option<&Lineage>| Choice::Appoint {
        to: best.id.clone(),
        boot: report.boot.clone(),
        lineage: lineage.cloned(),
    };
    let all_spoke = members.iter().all(|c| c.report.is_some());
    let Some(found) = lineage_of(topology, id, report) else {
        return if shard.epoch == 0 || all_spoke {
            appoint(None)
        } else {
            wait("only empty members answer, and one that has data may come back")
        };
    };
    if all_spoke {
        return appoint(Some(found));
    }
    if shard
        .floor
        .as_ref()
        .is_some_and(|f| f.incarnation == found.incarnation && f.rank() > found.rank())
    {
        return wait("only members with older data answer");
    }
    if !patience_over && current().count() * 2 < members.len() {
        return wait("fewer than half of the shard's members answer");
    }
    let not_ahead = |r: &Report| lineage(r).is_some_and(|rank| rank <= found.rank());
    if current().any(|(c, r)| was_in_sync(c, r) && not_ahead(r)) {
        return appoint(Some(found));
    }
    let set = || members.iter().filter(|c| shard.in_sync.contains_key(c.id));
    let set_has_data = set().filter_map(|c| c.report).any(not_ahead);
    let set_spoke = set().all(|c| c.report.is_some());
    if set_spoke && set_has_data || patience_over && (set_spoke || set_has_data) {
        return appoint(Some(found));
    }
    wait("the members that were last in sync do not answer")
}
