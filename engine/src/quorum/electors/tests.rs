use std::collections::BTreeMap;

use super::*;
use crate::council::rng::Rng;
use crate::quorum::proposal::LOOKS_MAX;
use crate::topology::{Member, Shard};

fn member(id: &str) -> Member {
    Member {
        id: id.into(),
        name: id.into(),
        host: id.into(),
        port: 1,
        tls_port: 0,
        bus_port: 2,
        shard: Some(0),
        node: None,
        zone: None,
    }
}

fn ids(members: &[&str]) -> BTreeSet<MemberId> {
    members.iter().map(|id| (*id).to_owned()).collect()
}

/// `a` is primary of shard 0.
fn topology(members: &[&str], electors: &[&str]) -> Topology {
    let shard =
        Shard { primary: Some("a".into()), epoch: 4, electors: ids(electors), ..Shard::default() };
    Topology {
        epoch: 9,
        members: members.iter().map(|id| ((*id).to_owned(), member(id))).collect(),
        shards: [(0, shard)].into(),
        ..Topology::default()
    }
}

fn follower(id: &str, offset: u64) -> Follower<'_> {
    Follower { id, boot: "", offset, is_heard: true }
}

fn state(electors: &Electors, t: &Topology, followers: &[Follower<'_>]) -> Acked {
    electors.state(t, 0, &"a".into(), followers)
}

fn look(e: &mut Electors, t: &Topology, followers: &[Follower<'_>], end: u64) -> Option<Change> {
    e.look(t, 0, &"a".into(), followers, end)
}

fn becomes(electors: &[&str]) -> Option<Change> {
    Some(Change::Electors { shard: 0, epoch: 4, electors: ids(electors) })
}

#[test]
fn a_majority_is_counted_with_the_primary_in_it() {
    let follow = [follower("b", 10), follower("c", 30), follower("b", 20), follower("d", 5)];
    let has = |electors: &[&str]| majority(&ids(electors), &"a".into(), &follow);
    assert_eq!(has(&["a"]), Acked { offset: u64::MAX, enough: true });
    assert_eq!(has(&["a", "b"]), Acked { offset: 20, enough: true }, "a member counts once");
    assert_eq!(has(&["a", "b", "c"]), Acked { offset: 30, enough: true });
    assert_eq!(has(&["a", "b", "c", "d"]), Acked { offset: 20, enough: true });
    assert_eq!(has(&["a", "x", "y"]), Acked { offset: 0, enough: false });
    assert_eq!(has(&["b", "c"]), Acked { offset: 20, enough: true }, "it is none of them itself");
    let silent = follow.map(|f| Follower { is_heard: f.id == "b", ..f });
    assert_eq!(
        majority(&ids(&["a", "b", "c", "d"]), &"a".into(), &silent),
        Acked { offset: 20, enough: false },
        "what the silent have counts, but they are not written to"
    );
}

#[test]
fn who_retires_counts_until_the_others_have_what_it_has() {
    let (mut e, mut t) = (Electors::default(), topology(&["a", "b", "c"], &["a", "b", "c"]));
    t.shards.get_mut(&0).unwrap().retiring.insert("b".into());
    let lags = [follower("b", 100), follower("c", 40)];
    for _ in 0..5 {
        assert_eq!(look(&mut e, &t, &lags, 100), None);
        assert_eq!(state(&e, &t, &lags).offset, 100);
    }
    let follows = [follower("b", 120), follower("c", 100)];
    assert_eq!(look(&mut e, &t, &follows, 120), None);
    assert_eq!(state(&e, &t, &follows).offset, 100, "both majorities are awaited");
    assert_eq!(look(&mut e, &t, &follows, 120), None, "marked at 120");
    let follows = [follower("b", 130), follower("c", 120)];
    assert_eq!(look(&mut e, &t, &follows, 130), becomes(&["a", "c"]));
    assert_eq!(look(&mut e, &t, &[], 130), becomes(&["a", "c"]), "it may be so already");
    t.epoch += 1;
    t.shards.get_mut(&0).unwrap().electors = ids(&["a", "c"]);
    assert_eq!(state(&e, &t, &follows).offset, 120);
    assert_eq!(look(&mut e, &t, &follows, 130), None);
}

#[test]
fn who_joins_is_not_waited_for_before_it_has_caught_up() {
    let (mut e, t) = (Electors::default(), topology(&["a", "b"], &["a"]));
    assert_eq!(look(&mut e, &t, &[follower("b", 0)], 100), None);
    let alone = Acked { offset: u64::MAX, enough: true };
    assert_eq!(state(&e, &t, &[follower("b", 0)]), alone);
    let follows = [follower("b", 100)];
    assert_eq!(look(&mut e, &t, &follows, 100), None);
    assert_eq!(state(&e, &t, &follows).offset, 100);
    assert_eq!(look(&mut e, &t, &follows, 100), becomes(&["a", "b"]));
}

#[test]
fn who_comes_in_anothers_place_counts_once_it_has_what_was_acknowledged() {
    let (mut e, t) = (Electors::default(), topology(&["a", "b2"], &["a", "b1"]));
    let nothing = Acked { offset: 0, enough: false };
    assert_eq!(state(&e, &t, &[follower("b2", 0)]), nothing, "half of the electors are gone");
    assert_eq!(look(&mut e, &t, &[follower("b2", 0)], 100), None);
    let follows = [follower("b2", 100)];
    assert_eq!(look(&mut e, &t, &follows, 100), None);
    assert_eq!(look(&mut e, &t, &follows, 100), becomes(&["a", "b2"]));
}

#[test]
fn members_that_do_not_get_to_the_mark_are_waited_for_a_few_looks_only() {
    let (mut e, t) = (Electors::default(), topology(&["a", "b"], &["a"]));
    let still = [follower("b", 100)];
    assert_eq!(look(&mut e, &t, &still, 100), None);
    let awaited = (0..50).filter(|_| {
        assert_eq!(look(&mut e, &t, &still, 200), None);
        state(&e, &t, &still).offset == 100
    });
    assert_eq!(awaited.count(), LOOKS_MAX as usize);
}

/// Members come and go, proposals are applied late or never, and what the primary knows is old: whoever is half of the
/// electors has what was acknowledged, without the primary and without those who are gone.
#[test]
fn half_of_the_electors_have_what_was_acknowledged_whatever_changes_on_the_way() {
    let mut changed = 0;
    for seed in 0..3_000 {
        changed += Model::new(seed).run();
    }
    assert!(changed > 2_000, "electors have changed {changed} times only");
}

struct Model {
    rng: Rng,
    e: Electors,
    /// As it is, and as the primary knows it.
    topology: Topology,
    known: Topology,
    /// On its way to the council, with the epoch that it is for.
    proposed: Vec<(Change, Epoch)>,
    /// What each member has, those who are gone by now among them.
    has: BTreeMap<MemberId, u64>,
    end: u64,
    acked: u64,
    members: u32,
}

impl Model {
    fn new(seed: u64) -> Self {
        let topology = topology(&["a", "b", "c"], &["a", "b", "c"]);
        let has = topology.members.keys().map(|id| (id.clone(), 0)).collect();
        let known = topology.clone();
        let (rng, e, proposed) = (Rng::new(seed), Electors::default(), vec![]);
        Self { rng, e, topology, known, proposed, has, end: 0, acked: 0, members: 3 }
    }

    fn run(mut self) -> u64 {
        let mut changed = 0;
        for _ in 0..300 {
            let before = self.topology.shards[&0].electors.clone();
            self.step();
            changed += u64::from(before != self.topology.shards[&0].electors);
            self.check();
        }
        changed
    }

    fn step(&mut self) {
        let others: Vec<MemberId> =
            self.topology.members.keys().filter(|id| *id != "a").cloned().collect();
        let any = (!others.is_empty())
            .then(|| others[self.rng.below(others.len() as u64) as usize].clone());
        match self.rng.below(20) {
            0..=3 => self.end += 1 + self.rng.below(3),
            4..=8 => {
                if let Some(has) = any.and_then(|id| self.has.get_mut(&id)) {
                    *has += self.rng.below(self.end - *has + 1);
                }
            }
            9 | 10 => self.known = self.topology.clone(),
            11..=14 => {
                let (e, known) = (&mut self.e, &self.known);
                let follows: Vec<_> = self.has.iter().map(|(id, has)| follower(id, *has)).collect();
                let change = look(e, known, &follows, self.end);
                self.proposed.extend(change.map(|change| (change, known.epoch)));
            }
            15..=17 => {
                if !self.proposed.is_empty() {
                    let at = self.rng.below(self.proposed.len() as u64) as usize;
                    let (change, expected) = self.proposed.remove(at);
                    if expected == self.topology.epoch {
                        self.topology.apply(&change).unwrap();
                    }
                }
            }
            18 => match (self.rng.below(4), any) {
                (0, Some(id)) => drop(self.topology.apply(&Change::Leave { member: id })),
                (1, Some(id)) => {
                    let change = Change::Retiring { shard: 0, members: [id].into() };
                    self.topology.apply(&change).unwrap();
                }
                (2, Some(id)) => {
                    // In its place, with nothing.
                    self.topology.apply(&Change::Leave { member: id }).unwrap();
                    self.join();
                }
                _ if others.len() < 5 => self.join(),
                _ => {}
            },
            _ => self.topology.epoch += 1,
        }
        let follows: Vec<_> = self.has.iter().map(|(id, has)| follower(id, *has)).collect();
        let of_shard =
            follows.into_iter().filter(|f| f.id != "a" && self.known.members.contains_key(f.id));
        let of_shard: Vec<_> = of_shard.collect();
        let acked = state(&self.e, &self.known, &of_shard).offset.min(self.end);
        self.acked = self.acked.max(acked);
    }

    fn join(&mut self) {
        self.members += 1;
        let id = format!("m{}", self.members);
        self.has.insert(id.clone(), 0);
        self.topology.members.insert(id.clone(), member(&id));
        self.topology.epoch += 1;
    }

    fn check(&self) {
        let electors = &self.topology.shards[&0].electors;
        let there = |id: &&MemberId| *id != "a" && self.topology.members.contains_key(*id);
        let mut offsets: Vec<u64> = electors.iter().filter(there).map(|id| self.has[id]).collect();
        // The half that has least.
        offsets.sort_unstable();
        let half = electors.len().div_ceil(2);
        if let Some(best_of_worst) = offsets.get(half - 1) {
            assert!(*best_of_worst >= self.acked, "{electors:?}: {offsets:?} {}", self.acked);
        }
    }
}
