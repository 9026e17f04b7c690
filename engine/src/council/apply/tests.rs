use super::*;

fn member(n: u64, name: &str) -> Member {
    Member {
        id: format!("{n:016x}{:024}", 0),
        name: name.into(),
        host: "localhost".into(),
        port: 1,
        tls_port: 0,
        bus_port: 2,
        shard: Some(0),
        node: None,
        zone: None,
    }
}

fn formed() -> Topology {
    let whole = SlotRange { first: 0, last: SLOTS - 1 };
    let mut topology = Topology::form("x".into(), 1, &member(1, "demo-0-0"), &[whole]).unwrap();
    topology.apply(&Change::Join(member(2, "demo-0-1"))).unwrap();
    topology
}

fn promote(to: u64, expected: Epoch) -> Change {
    Change::Promote {
        shard: 0,
        to: member(to, "").id,
        expected,
        window_ms: 7,
        boot: format!("boot-{to}"),
        lineage: None,
        by_majority: false,
    }
}

#[test]
fn a_change_that_alters_nothing_makes_no_epoch() {
    let mut topology = formed();
    let epoch = topology.epoch;
    topology.apply(&Change::Join(member(2, "demo-0-1"))).unwrap();
    assert_eq!(topology.epoch, epoch);
    let moved = Member { host: "elsewhere".into(), ..member(2, "demo-0-1") };
    topology.apply(&Change::Join(moved)).unwrap();
    assert_eq!(topology.epoch, epoch + 1);
}

#[test]
fn a_promotion_is_applied_once_and_only_for_the_epoch_it_was_meant_for() {
    let mut topology = formed();
    topology.apply(&promote(1, 0)).unwrap();
    let epoch = topology.shards[&0].epoch;
    assert_eq!(epoch, topology.epoch);
    let before = topology.clone();
    assert!(topology.apply(&promote(2, 0)).is_err());
    assert_eq!(topology, before);
    topology.apply(&promote(2, epoch)).unwrap();
    assert_eq!(topology.shards[&0].boot, "boot-2");
    let failover = topology.failovers.last().unwrap();
    assert_eq!((failover.epoch, failover.dropped_writes), (topology.epoch, None));
    topology.apply(&Change::Dropped { shard: 0, epoch: topology.epoch, writes: 3 }).unwrap();
    assert_eq!(topology.failovers.last().unwrap().dropped_writes, Some(3));
}

#[test]
fn a_slot_has_one_owner() {
    let mut topology = formed();
    let range = SlotRange { first: 5, last: 5 };
    assert!(topology.apply(&Change::Assign { shard: 1, slots: vec![range] }).is_err());
    let beyond = SlotRange { first: 0, last: SLOTS };
    assert!(topology.apply(&Change::Assign { shard: 0, slots: vec![beyond] }).is_err());
    topology.apply(&Change::Assign { shard: 0, slots: vec![range] }).unwrap();
    assert_eq!(topology.shards[&0].slots.len(), 1);
}

#[test]
fn the_primary_of_slots_does_not_leave_and_a_member_of_its_name_replaces_it() {
    let mut topology = formed();
    topology.apply(&promote(1, 0)).unwrap();
    assert!(topology.apply(&Change::Leave { member: member(1, "").id }).is_err());
    topology.apply(&Change::Join(member(3, "demo-0-0"))).unwrap();
    let shard = &topology.shards[&0];
    assert_eq!(shard.primary, None);
    assert!(shard.epoch > 0 && shard.in_sync.is_empty());
    assert!(!topology.members.contains_key(&member(1, "").id));
}

#[test]
fn an_id_that_the_library_could_confuse_is_refused() {
    let mut topology = formed();
    let mut twin = member(2, "demo-0-2");
    twin.id.replace_range(39.., "1");
    assert!(topology.apply(&Change::Join(twin)).is_err());
    let mut odd = member(4, "demo-0-3");
    odd.id = "not hexadecimal".into();
    assert!(topology.apply(&Change::Join(odd)).is_err());
}

#[test]
fn survivors_go_on_with_what_they_are_and_nobody_leads() {
    let mut t = formed();
    t.apply(&Change::Join(member(2, "demo-0-1"))).unwrap();
    t.apply(&promote(1, 0)).unwrap();
    let (one, two) = (member(1, "").id, member(2, "").id);
    t.voters.extend([two.clone()]);
    let left = t.survived_by(&BTreeSet::from([two.clone()]), &two, 40).unwrap();
    assert_eq!(
        (left.incarnation, left.data_since, left.epoch),
        (t.incarnation + 1, t.incarnation, 41)
    );
    assert_eq!(left.cluster, t.cluster);
    assert_eq!(left.members.keys().collect::<Vec<_>>(), [&two]);
    assert_eq!(left.voters, BTreeSet::from([two.clone()]));
    assert_eq!(left.shards[&0].slots, t.shards[&0].slots);
    assert!(left.shards[&0].primary.is_none() && left.shards[&0].epoch > 0);
    let again = left.survived_by(&BTreeSet::from([two.clone()]), &two, 0).unwrap();
    assert_eq!(
        (again.data_since, again.epoch),
        (t.incarnation, 42),
        "the first one's data count on"
    );
    assert!(t.survived_by(&BTreeSet::from([one]), &two, 0).is_err());
}

#[test]
fn electors_begin_with_the_members_and_are_those_that_the_primary_of_the_epoch_names() {
    let mut topology = formed();
    let Change::Promote { shard, to, expected, window_ms, boot, lineage, .. } = promote(1, 0)
    else {
        return;
    };
    let by_majority = true;
    let change = Change::Promote { shard, to, expected, window_ms, boot, lineage, by_majority };
    topology.apply(&change).unwrap();
    let ids = |numbers: &[u64]| numbers.iter().map(|n| member(*n, "").id).collect::<BTreeSet<_>>();
    assert_eq!(topology.shards[&0].electors, ids(&[1, 2]));
    topology.apply(&Change::Retiring { shard: 0, members: ids(&[2]) }).unwrap();
    topology.apply(&Change::Leave { member: member(2, "").id }).unwrap();
    assert_eq!(topology.shards[&0].electors, ids(&[1, 2]), "it has what was acknowledged");
    assert!(topology.shards[&0].retiring.is_empty());
    let epoch = topology.shards[&0].epoch;
    let named = |epoch| Change::Electors { shard: 0, epoch, electors: ids(&[1]) };
    assert!(topology.apply(&named(epoch + 1)).is_err());
    topology.apply(&named(epoch)).unwrap();
    assert_eq!(topology.shards[&0].electors, ids(&[1]));
    topology.apply(&promote(1, epoch)).unwrap();
    assert!(topology.shards[&0].electors.is_empty(), "no majority counts any more");
}

/// Two operators at once: one lets a member in again whose disk the other is about to delete.
#[test]
fn nobody_is_let_in_by_a_look_from_before_its_disk_was_barred() {
    let mut topology = formed();
    topology.apply(&Change::Leave { member: member(2, "").id }).unwrap();
    let seen = topology.epoch;
    let enter = |seen| Change::Enter { member: member(2, "demo-0-1"), seen };
    topology.apply(&Change::Bar { name: "demo-0-1".into() }).unwrap();
    assert_eq!(topology.barred, topology.epoch);
    let refused = topology.apply(&enter(seen)).unwrap_err();
    assert!(refused.contains("look again"), "{refused}");
    topology.apply(&enter(topology.epoch)).unwrap();
    // Who is a member may tell its new address by any look, and its disk is not barred.
    topology.apply(&enter(0)).unwrap();
    let refused = topology.apply(&Change::Bar { name: "demo-0-1".into() }).unwrap_err();
    assert!(refused.contains("demo-0-1 is a member"), "{refused}");
}
