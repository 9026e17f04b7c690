use super::*;

/// `a` is primary of shard 0 and alone in its set; `b` and `c` are in the shard.
fn topology() -> Topology {
    let member = |id: &str| crate::topology::Member {
        id: id.into(),
        name: id.into(),
        host: id.into(),
        port: 1,
        tls_port: 0,
        bus_port: 2,
        shard: Some(0),
        node: None,
        zone: None,
    };
    let shard = Shard {
        primary: Some("a".into()),
        epoch: 4,
        in_sync: [("a".to_owned(), "a1".to_owned())].into(),
        ..Shard::default()
    };
    Topology {
        epoch: 9,
        members: ["a", "b", "c"].map(|id| (id.to_owned(), member(id))).into(),
        shards: [(0, shard)].into(),
        ..Topology::default()
    }
}

fn follower<'a>(id: &'a str, boot: &'a str, offset: u64) -> Follower<'a> {
    Follower { id, boot, offset, is_heard: true }
}

fn acked(set: &InSync, topology: &Topology, followers: &[Follower<'_>]) -> u64 {
    set.state(&topology.shards[&0], &"a".into(), followers).offset
}

fn look(set: &mut InSync, t: &Topology, followers: &[Follower<'_>], end: u64) -> Option<Change> {
    set.look(t, 0, &"a".into(), followers, end)
}

fn join(member: &str, boot: &str) -> Option<Change> {
    Some(Change::JoinSync { shard: 0, epoch: 4, member: member.into(), boot: boot.into() })
}

#[test]
fn a_follower_is_awaited_before_it_is_proposed_and_has_all_that_was_acknowledged_before() {
    let (mut set, t) = (InSync::new(1), topology());
    assert_eq!(acked(&set, &t, &[]), u64::MAX, "alone: nobody is waited for");
    assert_eq!(look(&mut set, &t, &[follower("b", "b1", 50)], 100), None);
    assert_eq!(acked(&set, &t, &[follower("b", "b1", 50)]), u64::MAX, "it is far behind");
    assert_eq!(look(&mut set, &t, &[follower("b", "b1", 100)], 120), None);
    assert_eq!(acked(&set, &t, &[follower("b", "b1", 100)]), 100, "awaited");
    assert_eq!(look(&mut set, &t, &[follower("b", "b1", 120)], 130), None, "marked at 130");
    assert_eq!(look(&mut set, &t, &[follower("b", "b1", 129)], 140), None);
    assert_eq!(look(&mut set, &t, &[follower("b", "b1", 130)], 150), join("b", "b1"));
}

/// A follower that is proposed next.
fn proposed() -> (InSync, Topology) {
    let (mut set, t) = (InSync::new(1), topology());
    let follows = [follower("b", "b1", 200)];
    assert_eq!(look(&mut set, &t, &follows, 100), None);
    assert_eq!(look(&mut set, &t, &follows, 100), join("b", "b1"));
    (set, t)
}

#[test]
fn who_was_proposed_is_awaited_until_the_topology_has_moved_on() {
    let (mut set, mut t) = proposed();
    assert_eq!(look(&mut set, &t, &[], 300), join("b", "b1"), "it may be in the set already");
    assert_eq!(acked(&set, &t, &[]), 0);
    t.epoch += 1;
    assert_eq!(look(&mut set, &t, &[], 300), None);
    assert_eq!(acked(&set, &t, &[]), u64::MAX, "that proposal is void");
}

#[test]
fn a_member_of_the_set_is_awaited_as_the_process_that_joined() {
    let (mut set, mut t) = proposed();
    t.epoch += 1;
    t.shards.get_mut(&0).unwrap().in_sync.insert("b".into(), "b1".into());
    assert_eq!(look(&mut set, &t, &[follower("b", "b1", 250)], 300), None);
    assert_eq!(acked(&set, &t, &[follower("b", "b1", 250)]), 250);
    let again = [follower("b", "b2", 300)];
    assert_eq!(acked(&set, &t, &again), 0, "it was restarted");
    assert_eq!(look(&mut set, &t, &again, 300), None);
    assert_eq!(look(&mut set, &t, &again, 300), join("b", "b2"), "and joins anew");
}

#[test]
fn below_the_least_number_nothing_is_acknowledged() {
    let (set, mut t) = (InSync::new(2), topology());
    let me = "a".into();
    let follows = [follower("b", "b1", 70)];
    let nothing = Acked { offset: 0, enough: false };
    assert_eq!(set.state(&t.shards[&0], &me, &follows), nothing);
    t.shards.get_mut(&0).unwrap().in_sync.insert("b".into(), "b1".into());
    assert_eq!(set.state(&t.shards[&0], &me, &follows), Acked { offset: 70, enough: true });
    assert_eq!(set.state(&t.shards[&0], &me, &[]), nothing, "it is in the set and away");
}

#[test]
fn who_left_the_shard_or_is_only_linked_anew_is_not_proposed() {
    let (mut set, mut t) = (InSync::new(1), topology());
    let follows = [follower("b", "b1", 200), follower("x", "x1", 900)];
    look(&mut set, &t, &follows, 100);
    t.members.remove("b");
    assert_eq!(look(&mut set, &t, &follows, 100), None);
    assert_eq!(acked(&set, &t, &[]), u64::MAX);
}

#[test]
fn a_new_epoch_forgets_what_was_under_way() {
    let (mut set, mut t) = proposed();
    t.shards.get_mut(&0).unwrap().epoch = 10;
    assert_eq!(look(&mut set, &t, &[], 300), None);
    assert_eq!(acked(&set, &t, &[]), u64::MAX);
}

#[test]
fn a_follower_that_stands_still_is_awaited_for_a_few_looks_only() {
    let (mut set, t) = (InSync::new(1), topology());
    let still = [follower("b", "b1", 100)];
    assert_eq!(look(&mut set, &t, &still, 100), None);
    let awaited = (0..50).filter(|_| {
        assert_eq!(look(&mut set, &t, &still, 200), None);
        acked(&set, &t, &still) == 100
    });
    assert_eq!(awaited.count(), 10);
    let goes_on = [follower("b", "b1", 300)];
    assert_eq!(look(&mut set, &t, &goes_on, 300), None);
    assert_eq!(look(&mut set, &t, &goes_on, 300), join("b", "b1"));
}
