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
//! At least half of the shard's electors must have spoken (within the grace), so that whatever a
//! majority of them had acknowledged is known to one that spoke (where no majority counts: of its members).
//! An elector that is no member any more cannot come back: it is missing until all members have spoken.

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
    let since = if topology.data_since == 0 { topology.incarnation } else { topology.data_since };
    report
        .lineage
        .as_ref()
        .filter(|l| l.cluster == topology.cluster && l.shard == shard)
        .filter(|l| (since..=topology.incarnation).contains(&l.incarnation))
}

#[derive(Clone, Copy, Default)]
pub(super) struct Rules {
    /// The grace for the missing has passed.
    pub(super) patience_over: bool,
    /// Each member of the in-sync set has all that was acknowledged, however few they are. see: `crate::quorum::set`
    pub(super) set_has_all: bool,
}

/// The member of `shard` to appoint.
pub(super) fn choose(
    topology: &Topology,
    id: ShardId,
    shard: &Shard,
    members: &[Candidate<'_>],
    rules: Rules,
) -> Choice {
    let Rules { patience_over, set_has_all } = rules;
    let wait = |why: &str| Choice::Wait(why.to_owned());
    let current = || members.iter().filter_map(|c| Some((c, c.report?)));
    let lineage = |report: &Report| lineage_of(topology, id, report).map(Lineage::rank);
    let was_in_sync = |c: &Candidate<'_>, r: &Report| shard.is_in_sync(c.id, &r.boot);

    // A disk that fails decides only between equal data: better one that may not last than one that is
    // gone already.
    let best = current().max_by_key(|(c, r)| {
        (
            lineage(r),
            r.disk_error.is_none(),
            !r.leaving,
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
    let electors = &shard.electors;
    let is_elector = |c: &Candidate<'_>| electors.is_empty() || electors.contains(c.id);
    let all = if electors.is_empty() { members.len() } else { electors.len() };
    let half_spoke = || current().filter(|(c, _)| is_elector(c)).count() * 2 >= all;
    if !set_has_all && !patience_over && !half_spoke() {
        return wait("fewer than half of those whose majority has acknowledged answer");
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

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        topology: Topology,
        shard: Shard,
        reports: Vec<(MemberId, Option<Report>)>,
    }

    /// `a` was primary of epoch 5, `b` and `c` are in sync as of their boots `b1` and `c1`.
    fn world() -> World {
        let topology = Topology { cluster: "x".into(), incarnation: 1, ..Topology::default() };
        let in_sync = ["a", "b", "c"].map(|m| (m.to_owned(), format!("{m}1"))).into();
        let floor = Some(lineage(4, 10));
        let shard =
            Shard { primary: Some("a".into()), epoch: 5, in_sync, floor, ..Shard::default() };
        let reports = ["a", "b", "c"].map(|m| (m.to_owned(), None)).into();
        World { topology, shard, reports }
    }

    fn lineage(epoch: u64, offset: u64) -> Lineage {
        let (cluster, incarnation) = ("x".to_owned(), 1);
        Lineage { cluster, incarnation, epoch, offset, ..Lineage::default() }
    }

    impl World {
        fn says(mut self, member: &str, boot: &str, lineage: Option<Lineage>) -> Self {
            let report = Report { boot: boot.into(), lineage, ..Report::default() };
            let slot = self.reports.iter_mut().find(|(m, _)| m == member).unwrap();
            slot.1 = Some(report);
            self
        }

        fn chosen(&self, patience_over: bool) -> Option<MemberId> {
            let members: Vec<_> = self
                .reports
                .iter()
                .map(|(id, report)| Candidate { id, name: id, report: report.as_ref() })
                .collect();
            let rules = Rules { patience_over, ..Rules::default() };
            match choose(&self.topology, 0, &self.shard, &members, rules) {
                Choice::Appoint { to, .. } => Some(to),
                Choice::Wait(_) => None,
            }
        }
    }

    #[test]
    fn the_best_lineage_wins() {
        let w = world().says("b", "b1", Some(lineage(5, 80))).says("c", "c1", Some(lineage(5, 90)));
        assert_eq!(w.chosen(false).as_deref(), Some("c"));
        let w = world().says("b", "b1", Some(lineage(5, 1))).says("c", "c1", Some(lineage(4, 900)));
        assert_eq!(w.chosen(false).as_deref(), Some("b"));
    }

    #[test]
    fn an_empty_member_waits_for_those_that_may_have_data() {
        let w = world().says("a", "a2", None).says("b", "b2", None);
        assert_eq!(w.chosen(true), None);
        let w = w.says("c", "c2", None);
        assert_eq!(w.chosen(false).as_deref(), Some("a"));
        let w = w.says("c", "c2", Some(lineage(5, 1)));
        assert_eq!(w.chosen(false).as_deref(), Some("c"));
    }

    #[test]
    fn survivors_of_a_former_incarnation_have_what_they_had() {
        let old = lineage(7, 900);
        let new = Lineage { incarnation: 2, ..lineage(6, 10) };
        let mut w = world().says("b", "b1", Some(old)).says("c", "c1", Some(new));
        w.topology.incarnation = 2;
        assert_eq!(w.chosen(false).as_deref(), Some("c"), "the former one's data do not count");
        w.topology.data_since = 1;
        assert_eq!(w.chosen(false).as_deref(), Some("c"), "what was written since is newer");
        w = w.says("c", "c1", None);
        assert_eq!(w.chosen(false).as_deref(), Some("b"));
    }

    #[test]
    fn a_lineage_of_another_cluster_is_no_lineage() {
        let foreign = Lineage { cluster: "y".into(), ..lineage(9, 900) };
        let w = world().says("b", "b1", Some(foreign)).says("c", "c1", Some(lineage(5, 1)));
        assert_eq!(w.chosen(false).as_deref(), Some("c"));
    }

    #[test]
    fn restarted_members_wait_for_the_missing_one_and_not_for_ever() {
        let w = world().says("b", "b2", Some(lineage(5, 80))).says("c", "c2", Some(lineage(5, 70)));
        assert_eq!(w.chosen(false), None, "the primary's boot may have more");
        assert_eq!(w.chosen(true).as_deref(), Some("b"));
        let w = w.says("a", "a2", Some(lineage(5, 95)));
        assert_eq!(w.chosen(false).as_deref(), Some("a"));
    }

    #[test]
    fn who_left_the_set_is_not_promoted_while_the_set_may_come_back() {
        let mut w = world().says("c", "c1", Some(lineage(5, 20)));
        w.shard.in_sync.remove("c");
        w = w.says("b", "b2", None);
        assert_eq!(w.chosen(false), None);
        assert_eq!(w.chosen(true), None, "the primary is missing, and has the writes");
    }

    #[test]
    fn a_data_set_below_the_last_primarys_start_is_an_older_one() {
        let w = world().says("b", "b1", Some(lineage(3, 900))).says("c", "c1", None);
        assert_eq!(w.chosen(true), None);
        let w = w.says("a", "a2", None);
        assert_eq!(w.chosen(false).as_deref(), Some("b"), "nothing better is left");
    }

    #[test]
    fn half_of_the_electors_have_to_speak_those_that_left_among_them() {
        let mut w = world().says("c", "c1", Some(lineage(5, 20)));
        w.reports.retain(|(id, _)| id != "b");
        assert_eq!(w.chosen(false).as_deref(), Some("c"), "half of those who stay");
        w.shard.electors = ["a", "b", "c"].map(str::to_owned).into();
        assert_eq!(w.chosen(false), None, "what a and b had it may lack");
        w.shard.electors.remove("b");
        assert_eq!(w.chosen(false).as_deref(), Some("c"), "a has seen that it lacks nothing");
        w.shard.electors.insert("b".into());
        let w = w.says("a", "a2", Some(lineage(5, 30)));
        assert_eq!(w.chosen(false).as_deref(), Some("a"), "nobody else can come back");
    }

    #[test]
    fn a_failing_disk_decides_only_between_equal_data() {
        let mut w = world().says("b", "b1", Some(lineage(5, 9))).says("c", "c1", None);
        w = w.says("a", "a2", None);
        w.reports[1].1.as_mut().unwrap().disk_error = Some("full".into());
        assert_eq!(w.chosen(false).as_deref(), Some("b"), "the others are empty");
        w = w.says("c", "c1", Some(lineage(5, 9)));
        assert_eq!(w.chosen(false).as_deref(), Some("c"));
    }

    #[test]
    fn a_new_shard_appoints_its_first_member() {
        let mut w = world().says("b", "b1", None);
        w.shard = Shard::default();
        assert_eq!(w.chosen(false).as_deref(), Some("b"));
    }
}
