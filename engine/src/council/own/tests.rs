use super::*;
use crate::topology::{Change, Epoch};

fn member(n: u64) -> Member {
    let id = format!("{n:016x}{:024}", 0);
    Member {
        name: id.clone(),
        id,
        host: "127.0.0.1".into(),
        port: 7000,
        tls_port: 0,
        bus_port: 17000,
        shard: Some(0),
        node: None,
        zone: None,
    }
}

fn range(first: u16, last: u16) -> SlotRange {
    SlotRange { first, last }
}

fn admit(topology: &mut Topology, n: u64, slots: &[SlotRange]) -> Result<Epoch, String> {
    let (member, boot) = (member(n), format!("boot-{n}"));
    own(topology, OwnChange::Admit { member, boot, slots: slots.into(), failure_timeout_ms: 700 })
}

fn own(topology: &mut Topology, change: OwnChange) -> Result<Epoch, String> {
    topology.apply(&Change::Own(change)).map(|()| topology.epoch)
}

/// Three members that met, with the slots below 100, below 200 and none.
fn met() -> Topology {
    let mut topology = Topology::form("x".into(), 1, &member(1), &[range(0, 99)]).unwrap();
    topology.shards.get_mut(&0).unwrap().primary = Some(member(1).id);
    admit(&mut topology, 2, &[range(50, 199)]).unwrap();
    admit(&mut topology, 3, &[]).unwrap();
    topology
}

#[test]
fn who_joins_brings_its_shard_and_those_slots_that_nobody_owns() {
    let topology = met();
    assert_eq!(topology.shards[&0].slots, [range(0, 99)]);
    let shard = &topology.shards[&1];
    assert_eq!(shard.slots, [range(100, 199)], "what another shard owns is dropped");
    assert_eq!((shard.primary.as_deref(), shard.boot.as_str()), (Some(&*member(2).id), "boot-2"));
    assert!(shard.epoch > 0 && topology.shards[&2].epoch > shard.epoch);
    assert_eq!(topology.unmanaged.failure_timeout_ms, 700);
    let mut again = topology.clone();
    admit(&mut again, 2, &[range(0, 99)]).unwrap();
    assert_eq!(again, topology, "asked twice, it is admitted once");
}

#[test]
fn a_shards_number_is_never_given_twice() {
    let mut topology = met();
    own(&mut topology, OwnChange::Forget { member: member(3).id }).unwrap();
    assert!(!topology.shards.contains_key(&2));
    assert_eq!(topology.unmanaged.forgotten, [member(3).id]);
    admit(&mut topology, 3, &[]).unwrap();
    assert!(topology.shards.contains_key(&3) && topology.unmanaged.forgotten.is_empty());
}

#[test]
fn a_primary_without_slots_becomes_a_replica_and_one_with_slots_does_not() {
    let mut topology = met();
    own(&mut topology, OwnChange::Replicate { member: member(3).id, shard: 0 }).unwrap();
    assert_eq!(topology.members[&member(3).id].shard, Some(0));
    assert!(!topology.shards.contains_key(&2), "its own shard is gone");
    assert!(!topology.shards[&0].in_sync.contains_key(&member(3).id));
    let refused = own(&mut topology, OwnChange::Replicate { member: member(2).id, shard: 0 });
    assert!(refused.unwrap_err().contains("owns slots"));
}

#[test]
fn a_slot_is_handed_on_only_where_its_owner_gives_it_away() {
    let mut topology = met();
    let take = OwnChange::Take { slot: 7, shard: 2 };
    assert!(own(&mut topology, take.clone()).unwrap_err().contains("not migrating"));
    let into = OwnChange::Importing { slot: 7, into: 2, from: Some(0) };
    own(&mut topology, into).unwrap();
    let taken = OwnChange::Importing { slot: 7, into: 1, from: Some(0) };
    assert!(own(&mut topology, taken).unwrap_err().contains("imports slot 7"));
    let stranger = OwnChange::Migrating { slot: 7, from: 1, to: Some(2) };
    assert!(own(&mut topology, stranger).unwrap_err().contains("does not own"));
    own(&mut topology, OwnChange::Migrating { slot: 7, from: 0, to: Some(2) }).unwrap();
    own(&mut topology, take.clone()).unwrap();
    assert_eq!(topology.shards[&0].slots, [range(0, 6), range(8, 99)]);
    assert_eq!(topology.shards[&2].slots, [range(7, 7)]);
    assert!(topology.unmanaged.migrating.is_empty() && topology.unmanaged.importing.is_empty());
    let epoch = topology.epoch;
    own(&mut topology, take).unwrap();
    assert_eq!(topology.epoch, epoch, "said again, nothing happens");
}

#[test]
fn what_was_imported_is_kept_when_the_owner_is_confirmed() {
    // As redis-cli --cluster fix does, before it moves the keys back.
    let mut topology = met();
    own(&mut topology, OwnChange::Importing { slot: 7, into: 2, from: Some(0) }).unwrap();
    own(&mut topology, OwnChange::Take { slot: 7, shard: 0 }).unwrap();
    assert_eq!(topology.unmanaged.importing[&7], Import { into: 2, from: 0 });
}

#[test]
fn released_slots_and_those_of_a_forgotten_member_belong_to_nobody() {
    let mut topology = met();
    own(&mut topology, OwnChange::Migrating { slot: 7, from: 0, to: Some(2) }).unwrap();
    own(&mut topology, OwnChange::Release { shard: 0, slots: vec![range(5, 9)] }).unwrap();
    assert_eq!(topology.shard_of_slot(7), None);
    assert!(topology.unmanaged.migrating.is_empty());
    own(&mut topology, OwnChange::Forget { member: member(2).id }).unwrap();
    assert_eq!(topology.shard_of_slot(150), None);
    own(&mut topology, OwnChange::Take { slot: 150, shard: 0 }).unwrap();
    assert_eq!(topology.shard_of_slot(150), Some(0));
}

#[test]
fn an_epoch_is_only_raised() {
    let mut topology = met();
    assert_eq!(own(&mut topology, OwnChange::Raise { epoch: 50 }), Ok(50));
    assert_eq!(own(&mut topology, OwnChange::Raise { epoch: 9 }), Ok(50));
}
