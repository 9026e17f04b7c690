//! The operator's side: its real rounds, through a driver for this world.
//!
//! What a step says to members is `operator::admin::said`, as the other drivers have it. Steps take their time, in
//! which the world goes on.

use futures::FutureExt as _;

use ::operator::Error;
use ::operator::admin::{self, Said};
use ::operator::desired::{Desired, Seat};
use ::operator::driver::{Driver, Recorded};
use ::operator::observed::{Address, Body, Disk, Member, Observed, Phase as BodyPhase, Told};
use ::operator::plan::Step;
use ::operator::round::{Round, round};
use ::operator::status::Status;
use ::operator::when;
use crds::reasons::condition;
use engine::bus::Ask;
use engine::topology::Topology;

use super::network::OPERATOR;
use super::{Action, Phase, What, World};

/// The moment at which the world begins, unix seconds.
const BEGIN: i64 = 1_767_225_600;
/// How long the operator waits for a member to do as asked, microseconds.
const ASK_US: u64 = 5_000_000;
/// How long a member that cannot be reached is tried.
const DIAL_US: u64 = 500_000;
/// Rounds for which all has to be settled.
const SETTLED: u32 = 3;
/// Members through which a wish is tried.
const VIA_MAX: usize = 3;

impl World {
    pub(super) fn operate(&mut self) {
        if self.phase == Phase::Trouble && self.ms() > 6_000 && self.rng.chance(1, 15) {
            self.edit();
        }
        self.operator_is_down = false;
        if self.phase == Phase::Trouble && self.rng.chance(1, 20) {
            let at = self.rng.below(1_000_000);
            self.after(at, Action::OtherOperates);
        }
        let desired = self.desired.clone();
        let done = self.round_now(&desired);
        self.rounds += 1;
        let mut is_settled = false;
        if let Ok(done) = &done {
            let ready = done.status.condition(condition::READY);
            is_settled = done.plan.is_settled() && ready.is_some_and(|c| c.status == "True");
            let steps = || done.plan.steps.iter().map(|p| p.step.to_string()).collect::<Vec<_>>();
            let blocked =
                || done.plan.blocked.iter().map(|b| b.message.clone()).collect::<Vec<_>>();
            self.hear_what_is_lost(&done.plan.blocked);
            if !self.operator_is_down && (self.tracing || self.phase != Phase::Trouble) {
                self.said = format!("{:?} {:?}", steps(), blocked());
                let said = self.said.clone();
                self.note(|_| format!("operator: {said}"));
            }
        }
        self.settled = if is_settled { self.settled + 1 } else { 0 };
        if self.phase == Phase::Settling && self.settled >= SETTLED {
            self.phase = Phase::Reading { next: 0 };
            self.reading_since_us = self.now_us;
            self.note(|_| "all is whole: every key is read".to_owned());
            self.after(0, Action::Client(0));
            return;
        }
        let wait = match (self.operator_is_down, is_settled) {
            (true, _) => 200_000 + self.rng.below(3_000_000),
            (_, true) => 1_000_000,
            (_, false) => 200_000 + self.rng.below(300_000),
        };
        self.after(wait, Action::Operate);
    }

    /// Nothing in this world is waited for but by its own clock, so that a round is over when it was polled once; one may
    /// begin within another.
    fn round_now(&mut self, desired: &Desired) -> Result<Round, Error> {
        let was_at_work = std::mem::replace(&mut self.operator_is_at_work, true);
        let seen_version = self.seen_version;
        let done = round(self, desired).now_or_never().unwrap();
        (self.operator_is_at_work, self.seen_version) = (was_at_work, seen_version);
        done
    }

    /// Its round may fall between two steps of the first one's, and it may not have seen the last change of the manifest.
    pub(super) fn other_operates(&mut self) {
        if self.phase != Phase::Trouble {
            return;
        }
        self.tally.count(What::TwoOperators, 1);
        let newest = self.desired.clone();
        let desired = self.former.clone().filter(|_| self.rng.chance(1, 2)).unwrap_or(newest);
        let first = (self.operator_is_down, self.via.clone());
        self.operator_is_down = false;
        self.note(|_| "another operator does a round".to_owned());
        let done = self.round_now(&desired);
        self.note(|_| format!("that round is over: {}", done.is_ok()));
        (self.operator_is_down, self.via) = first;
    }

    /// Somebody changes the manifest.
    fn edit(&mut self) {
        let number = self.rng.below(100).to_string();
        // A member alone has all there is in its disk, and a majority of one does not survive that.
        let least = if self.weather.volumes && !self.quorum() { 0u16 } else { 1 };
        self.former = Some(self.desired.clone());
        let desired = &mut self.desired;
        match self.rng.below(6) {
            0..=2 => desired.shards = 1 + self.rng.below(3) as u16,
            3 => desired.replicas = least + self.rng.below(3 - u64::from(least)) as u16,
            4 => {
                desired.directives.insert("maxmemory".into(), number);
            }
            _ => {
                desired.directives.insert("databases".into(), number);
                // Everybody is to be restarted: two operators at once have most to spoil then.
                for _ in 0..self.rng.below(4) {
                    let at = self.rng.below(4_000_000);
                    self.after(at, Action::OtherOperates);
                }
            }
        }
        self.tally.count(What::Edited, 1);
        self.note(|w| {
            format!(
                "the manifest wants {} shards, {} replicas",
                w.desired.shards, w.desired.replicas
            )
        });
    }

    pub(super) fn what_is_missing(&self) -> String {
        format!("{:?}: {}", self.phase, self.said)
    }

    fn is_reachable(&self, n: usize) -> bool {
        let cut = |a, b| self.wires.is_cut(a, b, self.now_us);
        self.nodes[n].process.is_some()
            && self.nodes[n].paused_until <= self.now_us
            && !cut(OPERATOR, n)
            && !cut(n, OPERATOR)
    }

    fn look(&mut self, desired: &Desired) -> Observed {
        let template = desired.at_start_hash();
        let now = when::text(BEGIN + i64::try_from(self.now_us / 1_000_000).unwrap_or_default());
        let past;
        (past, self.seen_version) = self.recorded.clone();
        let mut observed =
            Observed { past, now, template: template.clone(), ..Observed::default() };
        let seats: Vec<(Seat, usize)> = self.places.iter().map(|(s, p)| (*s, p.node)).collect();
        for (seat, n) in seats {
            let place = &self.places[&seat];
            let node = &self.nodes[n];
            let name = seat.name(&desired.name);
            let address =
                Address { host: format!("{name}.demo"), port: 6379, tls_port: 0, bus_port: 16379 };
            let fresh = node.boot == 0;
            let seen = self.sight(seat);
            let disk = seen.disk.map(|mark| Disk {
                uid: mark.uid,
                version: mark.version,
                fresh,
                lost: place.lost,
            });
            let body = place.body.as_ref().zip(seen.body).map(|(b, mark)| Body {
                uid: mark.uid,
                version: mark.version,
                phase: match (b.stopping, b.started) {
                    _ if b.lost => BodyPhase::Lost,
                    (Some(_), _) => BodyPhase::Stopping,
                    (None, true) => BodyPhase::Running,
                    (None, false) => BodyPhase::Pending,
                },
                started: b.started,
                outdated: b.template != template,
                node: b.machine.map(|m| format!("node-{m}")),
                zone: b.machine.map(|m| format!("zone-{}", m % 2)),
                ..Body::default()
            });
            observed.members.insert(seat, Member { body, disk, address, ..Member::default() });
            let has_body = self.places[&seat].body.is_some();
            if !has_body || !self.is_reachable(n) {
                continue;
            }
            if self.rng.chance(self.weather.unseen, 100) {
                self.tally.count(What::Unseen, 1);
                continue;
            }
            self.tell(n);
            self.drive(n);
            let Some(process) = &self.nodes[n].process else { continue };
            let told = Told {
                report: process.council.own_report().clone(),
                topology: process.council.lasting_topology().map(|t| Topology::clone(t)),
                leader: process.council.leader_told().cloned(),
            };
            observed.hear(seat, told);
        }
        let topology = observed.topology.as_ref();
        let mut via: Vec<(bool, usize)> = vec![];
        for member in observed.members.values() {
            let id = member.report.as_ref().map(|r| &r.id);
            let known = id.zip(topology).filter(|(id, t)| t.members.contains_key(*id));
            if let Some((id, topology)) = known {
                via.push((!topology.voters.contains(id), self.ids[id]));
            }
        }
        via.sort_unstable();
        self.via = via.into_iter().map(|(_, n)| n).collect();
        observed
    }

    fn ask(&mut self, n: usize, ask: Ask) -> Result<(), String> {
        if self.nodes[n].process.is_none() {
            return Err("connection refused".into());
        }
        if !self.is_reachable(n) {
            self.pass(self.now_us + DIAL_US, |_| false);
            return Err("no answer".into());
        }
        let until = self.now_us + ASK_US;
        let (boot, now) = (self.nodes[n].boot, self.clock(n));
        let id = self.nodes[n].id.clone();
        let cluster = self.rng.hex40();
        let Some(process) = &mut self.nodes[n].process else { return Err("gone".into()) };
        if process.switch.is_some() {
            return Err("this member is about to change its council".into());
        }
        let done = match ask {
            Ask::Form { incarnation, me, shards } => {
                process.council.form(now, cluster, incarnation, &me, &shards)
            }
            Ask::Adopt { topology, me } if process.council.is_succeeded_by(&topology) => {
                if me.id != id {
                    return Err(format!("this is member {id}"));
                }
                return self.succeed(n, topology, until);
            }
            Ask::Recover { topology } if process.council.is_succeeded_by(&topology) => {
                return self.recover(n, topology, until);
            }
            Ask::Adopt { me, .. } if me.id != id => Err(format!("this is member {id}")),
            Ask::Adopt { topology, .. } => process.council.adopt(now, topology),
            Ask::Wish { change, expected_epoch } => {
                let token = process.council.propose(now, change, expected_epoch);
                self.drive(n);
                self.pass(until, |w| w.answers.contains_key(&(n, token)));
                let outcome = self.answers.remove(&(n, token));
                return outcome.unwrap_or_else(|| Err("no answer".into())).map(|_| ());
            }
            Ask::Configure { hash, .. } => {
                self.nodes[n].config_hash = hash;
                self.tally.count(What::Configured, 1);
                return Ok(());
            }
            Ask::Report | Ask::Recover { .. } | Ask::Shutdown => Err("not asked here".into()),
        };
        done?;
        let epoch = self.topology_of(n).map_or(0, |t| t.epoch);
        self.drive(n);
        let is_durable = self.pass(until, |w| {
            let node = &w.nodes[n];
            node.boot == boot && node.process.as_ref().is_some_and(|p| p.council.is_durable(epoch))
        });
        if is_durable { Ok(()) } else { Err("no answer".into()) }
    }

    fn carry_out(&mut self, step: &Step) -> Result<(), String> {
        match step {
            Step::CreateMember { seat } => self.create(*seat),
            Step::DeleteMember { seat, seen, disk, .. } => {
                let is = self.sight(*seat);
                if is.body == seen.body {
                    let disk = *disk && is.disk == seen.disk;
                    self.assert_has_left(*seat, disk);
                    self.remove(*seat, disk);
                }
            }
            Step::RestartMember { seat, uid } if self.uid_of(*seat).as_ref() == Some(uid) => {
                self.tally.count(What::Restarted, 1);
                self.remove(*seat, false);
            }
            Step::Join { member, .. } => {
                let seat = Seat::parse(&self.desired.name, &member.name).ok_or("no seat")?;
                self.lay_claim(seat)?;
                let until = self.now_us + 1_000 + self.rng.below(5_000);
                self.pass(until, |_| false);
            }
            _ => {}
        }
        let what = match step {
            Step::Join { .. } => Some(What::Joined),
            Step::Leave { .. } => Some(What::Left),
            Step::HandOver { .. } => Some(What::HandoverWished),
            Step::CancelMove { .. } => Some(What::MoveCancelled),
            _ => None,
        };
        let done = match admin::said(step) {
            None => Ok(()),
            Some(Said::Member(seat, ask)) => match self.places.get(&seat).map(|p| p.node) {
                Some(n) => self.ask(n, ask),
                None => Ok(()),
            },
            Some(Said::Council(ask)) => {
                let mut last = Err("nobody answers".to_owned());
                for n in self.via.clone().into_iter().take(VIA_MAX) {
                    last = self.ask(n, ask.clone());
                    if last.is_ok() {
                        break;
                    }
                }
                last
            }
        };
        if let (Ok(()), Some(what)) = (&done, what) {
            self.tally.count(what, 1);
        }
        done
    }

    /// The operator is about to go on, and sometimes does so much later.
    fn take_time(&mut self, what: What) {
        let is_slow = self.phase == Phase::Trouble && self.rng.chance(1, 15);
        self.tally.count(what, u64::from(is_slow));
        let most = if is_slow { 4_000_000 } else { 10_000 };
        let until = self.now_us + self.rng.below(most);
        self.pass(until, |_| false);
    }

    fn uid_of(&self, seat: Seat) -> Option<String> {
        self.places.get(&seat)?.body.as_ref().map(|b| b.uid.clone())
    }

    /// A disk is deleted only after its member has left, by what the council has ever decided: who knows that last may just be
    /// starting (seed 2696).
    fn assert_has_left(&mut self, seat: Seat, disk: bool) {
        let id = self.places.get(&seat).filter(|p| !p.lost).map(|p| self.nodes[p.node].id.clone());
        let newest = self.checker.epochs.values().next_back();
        let known = newest.zip(id).is_some_and(|(t, id)| t.members.contains_key(&id));
        if disk && self.weather.volumes && known {
            self.violation(format!("the disk of {seat} is deleted, which is a member"));
        }
    }
}

impl Driver for World {
    async fn scaffold(&mut self, _: &Desired) -> Result<(), Error> {
        Ok(())
    }

    async fn observe(&mut self, desired: &Desired) -> Result<Observed, Error> {
        let observed = self.look(desired);
        self.take_time(What::OldLook);
        Ok(observed)
    }

    async fn apply(&mut self, _: &Desired, step: &Step) -> Result<(), Error> {
        if self.operator_is_down {
            return Ok(());
        }
        if self.rng.chance(self.weather.crash, 100) {
            self.operator_is_down = true;
            self.tally.count(What::OperatorCrashed, 1);
            self.note(|_| format!("the operator crashes before {step}"));
            return Ok(());
        }
        let until = self.now_us + 1_000 + self.rng.below(20_000);
        self.pass(until, |_| false);
        let lost = |w: &mut Self| {
            let is_lost = w.rng.chance(w.weather.lost, 100);
            w.tally.count(What::StepLost, u64::from(is_lost));
            is_lost
        };
        if lost(self) {
            return Err(Error::world("reach a member", "the step was lost"));
        }
        self.note(|_| format!("operator: {step}"));
        let done = self.carry_out(step);
        if let Err(why) = &done {
            self.note(|_| format!("operator: {step}: {why}"));
        }
        if lost(self) {
            return Err(Error::world("reach a member", "the answer was lost"));
        }
        done.map_err(|reason| Error::world("carry out a step", reason))
    }

    async fn record(&mut self, _: &Desired, status: &Status) -> Result<Recorded, Error> {
        if self.recorded.1 != self.seen_version {
            self.tally.count(What::OldAccount, 1);
            return Ok(Recorded::Outdated);
        }
        self.recorded = (Some(Box::new(status.clone())), self.recorded.1 + 1);
        self.take_time(What::SlowSteps);
        Ok(Recorded::Written)
    }
}
