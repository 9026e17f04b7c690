//! A council that loses its majority for good, and goes on as a later incarnation because somebody says so, as
//! `engine::member` has it: neither council speaks until the disk has the next one's beginning.
//!
//! What only the lost members had is lost then. What is still promised: no two members execute at once, whatever incarnation they
//! are of; what was acknowledged before the loss was right until then, and what is acknowledged since the next incarnation began
//! is right again; and nothing is read that was never written.

use ::operator::plan::Blocked;
use crds::reasons::reason;
use engine::council::Council;
use engine::council::record::{Batch, Record, Saved};
use engine::topology::Topology;

use super::{Phase, What, World};
use crate::check::Checker;
use crate::history::{self, Action, Operation};

/// Later than this, the next incarnation would not have begun before the faults stop, milliseconds.
const LATEST_MS: u64 = 14_000;

/// When the council was lost, and when the first member was in the next incarnation.
pub(super) struct Recovery {
    lost_us: u64,
    begun_us: Option<u64>,
}

/// The council that takes the place of a process's own once that batch is on disk.
pub(super) struct Switch {
    batch: u64,
    records: Vec<Record>,
}

impl World {
    /// Most of the voters are gone for good, with their disks.
    pub(super) fn lose_council(&mut self) {
        let is_time = self.ms() < LATEST_MS && self.recovery.is_none() && !self.operator_is_at_work;
        if !is_time || !self.weather.volumes || !self.is_whole() {
            return;
        }
        let Some(topology) = self.newest().cloned() else { return };
        let most = topology.voters.len() / 2 + 1;
        if most >= topology.members.len() {
            return;
        }
        (self.is_mending, self.recovery) =
            (true, Some(Recovery { lost_us: self.now_us, begun_us: None }));
        self.tally.count(What::CouncilLost, 1);
        self.note(|_| "most of the council's voters are lost for good".to_owned());
        let mut voters: Vec<usize> = topology.voters.iter().map(|id| self.ids[id]).collect();
        for _ in 0..most {
            let at = self.rng.below(voters.len() as u64) as usize;
            let n = voters.swap_remove(at);
            if self.rng.chance(1, 2) {
                self.lose_machine(n);
            } else {
                self.wipe(n);
            }
        }
    }

    /// The operator says what is lost, and what would let it go on; somebody does that after a while.
    pub(super) fn hear_what_is_lost(&mut self, blocked: &[Blocked]) {
        let (Some(_), Some(topology)) = (&self.recovery, self.newest()) else { return };
        let next = topology.incarnation + 1;
        let in_time = self.phase != Phase::Trouble || self.rng.chance(1, 3);
        let says = |what: &str| in_time && blocked.iter().any(|b| b.reason == what);
        if says(reason::COUNCIL_LOST) && self.desired.recovery != Some(next) {
            self.note(|_| format!("the manifest wants incarnation {next}"));
            self.desired.recovery = Some(next);
        }
        if says(reason::VOLUME_LOST) {
            self.note(|_| "volumes on machines that are gone are deleted".to_owned());
            self.places.retain(|_, place| !place.lost);
        }
    }

    /// It begins the next incarnation, as its only voter.
    pub(super) fn recover(
        &mut self,
        n: usize,
        topology: Topology,
        until: u64,
    ) -> Result<(), String> {
        let id = self.nodes[n].id.clone();
        if !topology.voters.iter().eq([&id]) || !topology.members.contains_key(&id) {
            return Err("whoever recovers a cluster is its only voter at first".into());
        }
        self.tally.count(What::Recovered, 1);
        let records = Council::first_records(&id, topology);
        self.become_later(n, records, until)
    }

    /// Another member has begun the next incarnation.
    pub(super) fn succeed(
        &mut self,
        n: usize,
        topology: Topology,
        until: u64,
    ) -> Result<(), String> {
        self.become_later(n, vec![Record::Known(topology.into())], until)
    }

    fn become_later(&mut self, n: usize, records: Vec<Record>, until: u64) -> Result<(), String> {
        self.drive(n);
        let boot = self.nodes[n].boot;
        // It follows nobody, and nobody follows it; what it has, it keeps.
        let all = self.nodes[n].data.journal.len();
        self.nodes[n].data.restart(all);
        self.role_has_changed(n);
        let Some(process) = &mut self.nodes[n].process else { return Err("gone".into()) };
        let number = process.last_batch + 1;
        process.switch = Some(Switch { batch: number, records: records.clone() });
        self.answers.retain(|(via, _), _| *via != n);
        let batch = Batch { number, rewrite: true, sync: true, records };
        let latency = 500 + self.rng.below(4_000);
        self.write(n, batch, latency);
        let is_done = self.pass(until, |w| {
            let node = &w.nodes[n];
            node.boot == boot && node.process.as_ref().is_some_and(|p| p.switch.is_none())
        });
        if is_done { Ok(()) } else { Err("no answer".into()) }
    }

    /// The disk has answered for that batch.
    pub(super) fn switched(&mut self, n: usize, batch: u64) {
        let (id, boot, now) = (self.nodes[n].id.clone(), self.boot(n), self.clock(n));
        let Some(process) = &mut self.nodes[n].process else { return };
        let Some(switch) = process.switch.take_if(|s| s.batch <= batch) else { return };
        let saved = Saved::from_records(switch.records);
        let incarnation = saved.known.as_ref().map_or(0, |k| k.incarnation);
        let seed = self.rng.draw();
        let council = Council::new(id, boot, self.settings.clone(), seed, saved, now);
        match (council, &mut self.nodes[n].process) {
            (Ok(council), Some(process)) => {
                (process.council, process.last_batch) = (council, 0);
                self.nodes[n].known_epoch = 0;
                self.begin_incarnation(incarnation);
                self.note(|w| format!("{} is of incarnation {incarnation}", w.name(n)));
            }
            (Err(error), _) => self.violation(format!("{} cannot go on: {error}", self.name(n))),
            (_, None) => {}
        }
    }

    /// Somebody is of a later incarnation: what was promised before is promised no more.
    fn begin_incarnation(&mut self, incarnation: u64) {
        if incarnation <= self.incarnation {
            return;
        }
        self.incarnation = incarnation;
        let former =
            std::mem::replace(&mut self.checker, Checker::new(self.settings.failure_timeout_ms));
        let Checker { violations, tally, lost, .. } = former;
        (self.checker.violations, self.checker.tally, self.checker.lost) =
            (violations, tally, lost);
        let now_us = self.now_us;
        if let Some(recovery) = &mut self.recovery {
            recovery.begun_us.get_or_insert(now_us);
        }
    }

    /// What a replica said then is held against what was acknowledged.
    pub(super) fn is_checked(&self, begin_us: u64) -> bool {
        let Some(recovery) = &self.recovery else { return true };
        begin_us < recovery.lost_us || recovery.begun_us.is_some_and(|begun| begin_us >= begun)
    }

    /// A write has to be there for who asks at that time: it is of the same incarnation.
    pub(super) fn is_promised(&self, write: &Operation, asked_us: u64) -> bool {
        let Some(recovery) = &self.recovery else { return true };
        let begun_us = recovery.begun_us.unwrap_or(u64::MAX);
        asked_us < recovery.lost_us || write.begin >= begun_us
    }

    /// Before the loss all was right, and it is since the next incarnation began; what is left of before may be read there.
    pub(super) fn check_recovered(&self, recovery: &Recovery) -> Result<(), String> {
        let Some(begun_us) = recovery.begun_us else { return Ok(()) };
        let read = |o: &Operation| match (&o.action, o.end) {
            (Action::Read(Some(value)), Some(_)) => Some(value.clone()),
            _ => None,
        };
        let is_write_of = |value: &str, o: &Operation| matches!(&o.action, Action::Write(written) if written == value);
        for value in self.history.iter().filter_map(read) {
            if !self.history.iter().any(|o| is_write_of(&value, o)) {
                return Err(format!("{value} was read and never written"));
            }
        }
        if !self.quorum() {
            return Ok(());
        }
        let unknown = |o: &Operation| Operation { end: None, ..o.clone() };
        let before =
            self.history.iter().filter(|o| o.begin < recovery.lost_us).map(|o| match o.end {
                Some(end) if end < recovery.lost_us => o.clone(),
                _ => unknown(o),
            });
        history::check(&before.collect::<Vec<_>>())?;
        let mut since: Vec<Operation> =
            self.history.iter().filter(|o| o.begin >= begun_us).cloned().collect();
        let is_read = |o: &Operation| match &o.action {
            Action::Write(value) => since.iter().filter_map(read).any(|v| v == *value),
            Action::Read(_) => false,
        };
        let left = self.history.iter().filter(|o| o.begin < begun_us && is_read(o)).map(unknown);
        let left: Vec<Operation> = left.collect();
        since.extend(left);
        history::check(&since)
    }
}
