//! Which members vote: up to five, an odd number, spread over zones and nodes.
//!
//! Two data members make one voter: a second would halve, not double, the chance to have a majority.
//! With a witness there are three. Seats move only for a reason: the number is wrong, a voter has been
//! silent for long or has left, or the seats can be spread better.

use std::collections::{BTreeMap, BTreeSet};

use crate::topology::{Member, MemberId, Topology};

/// What is known of a member that may vote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Presence {
    Present,
    /// Silent, but not for long enough to lose a seat that it has.
    Quiet,
    Gone,
    /// It is to leave, and its vote goes to another first. see: `super::departure`
    Departing,
}

/// How many of so many members are to vote.
pub fn seats(members: usize) -> usize {
    match members {
        0..=2 => 1,
        3..=4 => 3,
        _ => 5,
    }
}

/// The set of voters that there should be.
pub(super) fn pick(
    topology: &Topology,
    presence: impl Fn(&MemberId) -> Presence,
) -> BTreeSet<MemberId> {
    let voters = &topology.voters;
    let may_sit = |m: &&Member| match presence(&m.id) {
        Presence::Present => true,
        Presence::Quiet => voters.contains(&m.id),
        Presence::Gone | Presence::Departing => false,
    };
    let able: Vec<&Member> = topology.members.values().filter(may_sit).collect();
    let stays = |id: &MemberId| presence(id) != Presence::Departing;
    let wanted = seats(topology.members.keys().filter(|id| stays(id)).count());
    let leads = |id: &MemberId| {
        topology.shards.values().any(|s| s.primary.as_ref() == Some(id) && !s.slots.is_empty())
    };
    let is_present = |id: &MemberId| presence(id) == Presence::Present;
    let mut ideal = spread(&able, wanted, voters, is_present, leads);
    // A seat goes empty only with its member: who is gone for long keeps it until another can sit.
    for old in voters.iter().filter(|v| topology.members.contains_key(*v) && stays(v)) {
        if ideal.len() < wanted {
            ideal.insert(old.clone());
        }
    }
    let keeps = |v: &MemberId| ideal.contains(v) || able.iter().any(|m| m.id == *v);
    let is_right = voters.len() == ideal.len()
        && voters.iter().all(keeps)
        && crowding(topology, voters) <= crowding(topology, &ideal);
    if is_right { voters.clone() } else { ideal }
}

/// Fills the seats one by one, each with the member whose zone and node have the fewest so far. A single seat goes to a
/// primary: of two members the other one is about to leave, maybe, and would have to give the seat back first (seeds 36 and
/// 155 of the simulation of the whole: wherever it handed its office on, the next leader gave it the only seat again).
fn spread(
    able: &[&Member],
    seats: usize,
    voters: &BTreeSet<MemberId>,
    is_present: impl Fn(&MemberId) -> bool,
    leads: impl Fn(&MemberId) -> bool,
) -> BTreeSet<MemberId> {
    let mut chosen: BTreeSet<MemberId> = BTreeSet::new();
    let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    while chosen.len() < seats {
        let count = |of: &BTreeMap<&str, usize>, key: Option<&String>| {
            key.and_then(|k| of.get(k.as_str())).copied().unwrap_or(0)
        };
        let next = able.iter().filter(|m| !chosen.contains(&m.id)).min_by_key(|m| {
            (
                count(&zones, m.zone.as_ref()),
                count(&nodes, m.node.as_ref()),
                !voters.contains(&m.id),
                !is_present(&m.id),
                if seats > 1 { m.shard.is_some() } else { !leads(&m.id) },
                &m.name,
            )
        });
        let Some(next) = next else { break };
        chosen.insert(next.id.clone());
        if let Some(zone) = &next.zone {
            *zones.entry(zone).or_default() += 1;
        }
        if let Some(node) = &next.node {
            *nodes.entry(node).or_default() += 1;
        }
    }
    chosen
}

/// The most seats in one zone, then on one node.
fn crowding(topology: &Topology, voters: &BTreeSet<MemberId>) -> (usize, usize) {
    let most = |key: fn(&Member) -> Option<&String>| {
        let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
        let members = voters.iter().filter_map(|v| topology.members.get(v));
        members.filter_map(key).for_each(|k| *counts.entry(k).or_default() += 1);
        counts.values().max().copied().unwrap_or(0)
    };
    (most(|m| m.zone.as_ref()), most(|m| m.node.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(places: &[(&str, &str)]) -> Topology {
        let mut topology = Topology::default();
        for (n, (node, zone)) in (0u64..).zip(places) {
            let id = format!("{:016x}{:024}", n + 1, 0);
            topology.members.insert(
                id.clone(),
                Member {
                    id,
                    name: format!("demo-{n}-0"),
                    host: "localhost".into(),
                    port: 1,
                    tls_port: 0,
                    bus_port: 2,
                    shard: Some(0),
                    node: (!node.is_empty()).then(|| (*node).to_owned()),
                    zone: (!zone.is_empty()).then(|| (*zone).to_owned()),
                },
            );
        }
        topology
    }

    #[test]
    fn two_members_have_one_voter_and_many_have_five() {
        for (members, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (9, 5)] {
            let topology = topology(&vec![("", ""); members]);
            assert_eq!(pick(&topology, |_| Presence::Present).len(), voters, "{members} members");
        }
    }

    #[test]
    fn of_two_members_the_primary_has_the_seat_for_it_cannot_leave() {
        let mut t = topology(&[("", ""); 2]);
        let ids: Vec<_> = t.members.keys().cloned().collect();
        t.voters = ids.iter().cloned().collect();
        for primary in &ids {
            let slots = vec![crate::topology::SlotRange { first: 0, last: 9 }];
            let primary = Some(primary.clone());
            let shard = crate::topology::Shard { primary, slots, ..Default::default() };
            t.shards.insert(0, shard.clone());
            assert_eq!(pick(&t, |_| Presence::Present), shard.primary.into_iter().collect());
        }
        let quiet = |id: &MemberId| {
            if *id == ids[1] { Presence::Quiet } else { Presence::Present }
        };
        assert_eq!(pick(&t, quiet), BTreeSet::from([ids[0].clone()]), "who is there comes first");
    }

    #[test]
    fn seats_are_spread_over_zones_then_nodes() {
        let t = topology(&[("a", "x"), ("a", "x"), ("b", "x"), ("c", "y"), ("c", "y"), ("d", "z")]);
        let voters = pick(&t, |_| Presence::Present);
        assert_eq!(voters.len(), 5);
        assert!(crowding(&t, &voters) <= (2, 2));
    }

    #[test]
    fn a_seat_is_kept_until_its_holder_is_gone_for_long() {
        let mut t = topology(&[("", ""); 4]);
        let ids: Vec<_> = t.members.keys().cloned().collect();
        t.voters = ids[1..].iter().cloned().collect();
        assert_eq!(pick(&t, |_| Presence::Present), t.voters);
        let quiet = |id: &MemberId| {
            if *id == ids[1] { Presence::Quiet } else { Presence::Present }
        };
        assert_eq!(pick(&t, quiet), t.voters);
        let gone = |id: &MemberId| if *id == ids[1] { Presence::Gone } else { Presence::Present };
        assert!(!pick(&t, gone).contains(&ids[1]));
        assert_eq!(pick(&t, gone).len(), 3);
    }

    #[test]
    fn who_departs_is_counted_out_and_keeps_no_seat() {
        let mut t = topology(&[("", ""); 4]);
        let ids: Vec<_> = t.members.keys().cloned().collect();
        t.voters = ids[..3].iter().cloned().collect();
        let departs = |gone: usize| {
            let ids = ids.clone();
            move |id: &MemberId| {
                if ids[..gone].contains(id) { Presence::Departing } else { Presence::Present }
            }
        };
        assert_eq!(pick(&t, departs(1)), ids[1..].iter().cloned().collect());
        assert_eq!(pick(&t, departs(2)), BTreeSet::from([ids[2].clone()]));
    }
}
