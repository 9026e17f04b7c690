//! Making a cluster: all members at once, one that forms it, the others that join.

use crds::reasons::reason;
use engine::topology::{SlotRange, Topology, even_slots};

use super::members::{admit, revive};
use super::view::View;
use super::{Draft, Scope, Step};
use crate::desired::Seat;

/// The only seat whose member is ever asked to form a cluster, so that no two can be.
const FOUNDER: Seat = Seat::Data { shard: 0, index: 0 };

/// All members are made; the founder forms the cluster when nobody can belong to one; the others,
/// once they were seen, join it.
pub(super) fn form(view: &View<'_>, scope: Scope, draft: &mut Draft) {
    let Scope::Shard(shard) = scope else { return };
    let Some(topology) = view.topology() else {
        // Whoever is not wanted any more has to tell, too, whether it knows of a cluster (seeds 1286 and 5624 of the simulation
        // of the whole: only the disks of a witness, and of replicas, were left, and the first cluster was never formed).
        let witnesses = if shard == 0 { view.surplus(Scope::Witnesses) } else { Vec::new() };
        let strays = view.surplus(scope).into_iter().chain(witnesses);
        for seat in view.wanted(scope).into_iter().chain(strays) {
            revive(view, seat, draft);
        }
        if draft.steps.is_empty() && shard == 0 {
            found(view, draft);
        }
        return;
    };
    for seat in view.wanted(scope).into_iter().filter(|s| view.known(*s).is_empty()) {
        admit(view, seat, draft);
    }
    if view.goes(shard) {
        return;
    }
    let slots = unowned(topology, even_slots(shard, view.desired.shards));
    if !slots.is_empty() {
        let step = Step::Assign { shard, slots, epoch: topology.epoch };
        draft.step(format!("slots of shard {shard} have no owner"), step);
    }
}

/// Forms the cluster, when it is certain that nobody belongs to one: everybody who could know of one
/// was seen, and knows of none. Unseen members that once ran, and used disks without a member, hold
/// it up, for they may know. see: `a_cluster_is_not_formed_while_a_member_is_unseen`
fn found(view: &View<'_>, draft: &mut Draft) {
    let members = view.observed.members.iter();
    let silent: Vec<String> =
        members.filter(|(_, m)| !m.cannot_belong()).map(|(seat, _)| view.name(*seat)).collect();
    if !silent.is_empty() {
        let names = silent.join(", ");
        if view.was_formed() {
            let message = format!("no member tells a topology; unseen: {names}");
            draft.blocked(reason::COUNCIL_SILENT, message);
        } else {
            draft.blocked(reason::FORMING, format!("waiting for the first report of {names}"));
        }
        return;
    }
    let founder = view.member(FOUNDER).zip(view.report(FOUNDER));
    let Some((member, report)) = founder else {
        let message = format!("waiting for {}, which forms the cluster", view.name(FOUNDER));
        draft.blocked(reason::FORMING, message);
        return;
    };
    let former = view.observed.past.as_ref().and_then(|past| past.incarnation);
    let incarnation = former.and_then(|i| u64::try_from(i).ok()).unwrap_or(0) + 1;
    let why = if view.was_formed() {
        "every member came back without a trace of the cluster: it is formed anew"
    } else {
        "every member was seen, and none belongs to a cluster"
    };
    let me = member.entry(&report.id, view.name(FOUNDER), FOUNDER);
    let count = view.desired.shards;
    let shards = (0..count).map(|shard| even_slots(shard, count)).collect();
    draft.step(why, Step::Form { seat: FOUNDER, me, incarnation, shards });
}

/// The part of `range` that no shard owns.
fn unowned(topology: &Topology, range: SlotRange) -> Vec<SlotRange> {
    let mut taken: Vec<SlotRange> =
        topology.shards.values().flat_map(|s| s.slots.iter().copied()).collect();
    taken.sort_unstable();
    let mut out = Vec::new();
    let mut next = range.first;
    for owned in taken {
        if owned.first > next && next <= range.last {
            out.push(SlotRange { first: next, last: range.last.min(owned.first - 1) });
        }
        next = next.max(owned.last + 1);
    }
    if next <= range.last {
        out.push(SlotRange { first: next, last: range.last });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unowned_slots_are_those_between_the_owned_ones() {
        let r = |first, last| SlotRange { first, last };
        let mut topology = Topology::default();
        assert_eq!(unowned(&topology, r(0, 100)), [r(0, 100)]);
        topology.shards.entry(0).or_default().slots = vec![r(10, 19), r(90, 200)];
        topology.shards.entry(1).or_default().slots = vec![r(20, 29)];
        assert_eq!(unowned(&topology, r(0, 100)), [r(0, 9), r(30, 89)]);
        assert_eq!(unowned(&topology, r(15, 25)), []);
        assert_eq!(unowned(&topology, r(195, 16383)), [r(201, 16383)]);
        topology.shards.entry(2).or_default().slots = vec![r(0, 16383)];
        assert_eq!(unowned(&topology, r(0, 16383)), []);
    }
}
