//! Going on without the majority of the council, when that is gone for good and the user says so.
//!
//! A council that lost the disks of its majority decides nothing ever again: no primary gets a lease. What is left
//! may go on as the next incarnation of the cluster, but only the user can know that nothing better comes back, and
//! bear what is lost. So it is stated first, waits for a word that names the incarnation, and is done only once
//! everybody else who belongs to the cluster was seen, or is gone for good too: nobody may be left behind who could
//! go on under the former incarnation.

use std::collections::{BTreeMap, BTreeSet};

use crds::reasons::reason;
use engine::topology::{MemberId, Shard, ShardId, Topology};

use super::view::View;
use super::{Draft, Scope, Step};
use crate::desired::Seat;

/// Shards of which is told what they lose, one by one.
const TOLD_MAX: usize = 8;

/// States what a council that is lost for good would cost, and goes on without it when it is told to.
pub(super) fn recover(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    if scope != Scope::Shard(0) || !view.is_council_lost() {
        return;
    }
    let Some(topology) = view.topology() else { return };
    let left = survivors(view, topology);
    let next = topology.incarnation + 1;
    let lost = topology.voters.iter().filter(|id| view.is_gone(id)).count();
    let stated = format!(
        "{lost} of the council's {} voters lost their disks, so that it decides nothing any more",
        topology.voters.len()
    );
    let cost = what_is_lost(topology, &left);
    if view.desired.recovery != Some(next) {
        let message = format!(
            "{stated}. spec.recovery.incarnation: {next} (or `larder recover`) lets those go on who are left: {cost}"
        );
        draft.blocked(reason::COUNCIL_LOST, message);
        return;
    }
    let belongs = |id: &&MemberId| !left.contains_key(*id) && !view.is_gone(id);
    let unseen: Vec<&str> = topology
        .members
        .keys()
        .filter(belongs)
        .filter_map(|id| Some(topology.members.get(id)?.name.as_str()))
        .collect();
    if !unseen.is_empty() {
        let message = format!(
            "{stated}. Before the others go on: {} may come back with newer data, or as primary; bring them back, or \
             delete their volumes and pods",
            unseen.join(", ")
        );
        draft.blocked(reason::COUNCIL_LOST, message);
        return;
    }
    // Who voted knows most; of those, and else, whoever was told last.
    let rank = |(id, seat): &(&MemberId, &Seat)| {
        let told = view.member(**seat).and_then(|m| m.belongs.as_ref()).map(|b| b.epoch);
        (topology.voters.contains(*id), told, std::cmp::Reverse(**seat))
    };
    let Some((first, seat)) = left.iter().max_by_key(rank) else { return };
    let ids: BTreeSet<MemberId> = left.keys().cloned().collect();
    let reports = left.values().filter_map(|seat| view.report(*seat));
    let written = reports.filter_map(|r| r.lineage.as_ref()).map(|l| l.epoch).max();
    match topology.survived_by(&ids, first, written.unwrap_or(0)) {
        Ok(topology) => draft.step(
            format!("{stated}; those who are left go on as incarnation {next}: {cost}"),
            Step::Recover { seat: *seat, topology: Box::new(topology) },
        ),
        Err(why) => draft.blocked(reason::COUNCIL_LOST, why),
    }
}

/// Members of the topology that were seen, with what they had.
fn survivors(view: &View<'_>, topology: &Topology) -> BTreeMap<MemberId, Seat> {
    let members = view.observed.members.iter();
    members
        .filter_map(|(seat, member)| {
            let report = member.report.as_ref()?;
            let belongs = member.belongs.as_ref()?;
            let is_one =
                belongs.cluster == topology.cluster && topology.members.contains_key(&report.id);
            is_one.then(|| (report.id.clone(), *seat))
        })
        .collect()
}

/// What each shard has left.
fn what_is_lost(topology: &Topology, left: &BTreeMap<MemberId, Seat>) -> String {
    let of = |(id, shard): (&ShardId, &Shard)| {
        let members = topology.members_of(*id);
        let mut here = members.iter().filter(|m| left.contains_key(&m.id)).peekable();
        if here.peek().is_none() {
            return Some(format!("of shard {id} nobody, all its keys are lost"));
        }
        let in_sync = here.clone().any(|m| shard.in_sync.contains_key(&m.id));
        let is_whole = members.len() == here.clone().count();
        let names: Vec<&str> = here.map(|m| m.name.as_str()).collect();
        let names = names.join(" and ");
        match (is_whole, in_sync) {
            (true, _) => None,
            (_, true) => Some(format!(
                "of shard {id} {names}, in sync when last heard of; what only the others had is lost"
            )),
            (_, false) => {
                Some(format!("of shard {id} {names}, which was not in sync: its data are older"))
            }
        }
    };
    let told: Vec<String> = topology.shards.iter().filter_map(of).collect();
    let more = match told.len().saturating_sub(TOLD_MAX) {
        0 => String::new(),
        more => format!("; and {more} more shards lose something"),
    };
    if told.is_empty() {
        return "every member with data is there; only what the council decided last may be lost"
            .into();
    }
    told.into_iter().take(TOLD_MAX).collect::<Vec<_>>().join("; ") + &more
}
