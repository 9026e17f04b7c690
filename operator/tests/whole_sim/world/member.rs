//! One process: its council, its disk, its data, and how it ends.

use std::collections::{BTreeMap, VecDeque};

use engine::council::record::{Batch, Saved};
use engine::council::{Council, Event};
use engine::moves::giving::Giving;
use engine::topology::{Change, Epoch, MemberId, Report, Role, ShardId, Topology};

use super::current::Links;
use super::moves::{Giver, Held, Taker};
use super::network::Packet;
use super::recovery::Switch;
use super::serve::{Owed, Request};
use super::{Action, Key, TICK_MS, Value, What, World, show};
use crate::data::Data;

/// How long a primary that is to end tries to find a successor, and goes on telling its clients who that is.
const LEAVE_MS: u64 = 5_000;
const LINGER_MS: u64 = 1_000;
/// How long a replica that is to end waits to be let out of its in-sync set.
const RELEASE_MS: u64 = 1_000;
/// How long a leader of the council that is to end waits for another one.
const RETIRE_MS: u64 = 500;

/// What is gone when the process ends.
pub(super) struct Process {
    pub(super) council: Council,
    /// The keys as primary of that epoch.
    pub(super) registers: (Epoch, BTreeMap<Key, Value>),
    /// Journal lengths: that of the epoch's beginning, and behind the last write to each slot since.
    pub(super) gates: (u64, BTreeMap<u16, u64>),
    /// What all who are needed have had under the present epoch.
    pub(super) acked: u64,
    /// A lease was had under this epoch.
    pub(super) has_served: Epoch,
    /// Requests that wait until it is clear who answers them.
    pub(super) waiting: VecDeque<(u64, Request)>,
    /// Answers that wait for other members.
    pub(super) owed: Vec<Owed>,
    pub(super) giving: Giving,
    pub(super) givers: Vec<Giver>,
    pub(super) takers: Vec<Taker>,
    pub(super) held: Vec<Held>,
    /// The topology for which nothing is left to sweep.
    pub(super) swept: Epoch,
    pub(super) links: Links,
    /// The batch of its council's disk that was written last.
    pub(super) last_batch: u64,
    /// Another council is about to take this one's place.
    pub(super) switch: Option<Switch>,
    leaving: Option<Leaving>,
}

impl Process {
    /// It was asked to end.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }
}

/// How far the good end of a process is; times on its own clock.
struct Leaving {
    since_ms: u64,
    wish: Option<u64>,
    /// Nothing keeps it any more but that.
    until_ms: Option<u64>,
    has_retired: bool,
}

impl World {
    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].process.is_some() || !self.has_body(n) {
            return;
        }
        let now = self.clock(n);
        self.nodes[n].boot += 1;
        let (id, boot) = (self.nodes[n].id.clone(), self.boot(n));
        let saved = Saved::from_records(self.nodes[n].disk.records());
        let known = saved.known.as_ref().map_or(0, |k| k.epoch);
        let seed = self.rng.draw();
        let council = match Council::new(id, boot, self.settings.clone(), seed, saved, now) {
            Ok(council) => council,
            Err(error) => {
                return self.violation(format!("{} cannot start: {error}", self.name(n)));
            }
        };
        self.nodes[n].known_epoch = known;
        self.nodes[n].process = Some(Process {
            council,
            registers: (0, BTreeMap::new()),
            gates: (0, BTreeMap::new()),
            acked: 0,
            has_served: 0,
            waiting: VecDeque::new(),
            owed: vec![],
            giving: Giving::default(),
            givers: vec![],
            takers: vec![],
            held: vec![],
            swept: 0,
            links: Links::default(),
            last_batch: 0,
            switch: None,
            leaving: None,
        });
        self.body_has_started(n);
        self.note(|w| format!("{} starts, boot {}", w.name(n), w.nodes[n].boot));
        let first = self.rng.below(TICK_MS * 1000);
        let boot = self.nodes[n].boot;
        self.after(first, Action::Tick { node: n, boot });
        self.drive(n);
    }

    /// The process is gone at once. `down_us`: when its body starts another one.
    pub(super) fn crash(&mut self, n: usize, down_us: u64) {
        let Some(process) = self.nodes[n].process.take() else { return };
        let acts = self.nodes[n].data.acting.is_some();
        self.tally.count(What::Crash, 1);
        self.tally.count(What::CrashOfPrimary, u64::from(acts));
        self.tally.count(What::CrashOfLeader, u64::from(process.council.leads()));
        let data = &self.nodes[n].data;
        let (all, durable) = (data.journal.len(), data.durable);
        let keep = match (self.quorum(), self.weather.persistent) {
            (true, _) => all,
            (_, true) => durable + self.rng.below((all - durable) as u64 + 1) as usize,
            _ => 0,
        };
        self.tally.count(What::WritesLostUnsynced, (all - keep) as u64);
        self.end(n, keep);
        self.note(|w| format!("{} crashes, keeps {keep} of {all} writes", w.name(n)));
        if self.has_body(n) {
            self.after(down_us, Action::Start(n));
        }
    }

    fn end(&mut self, n: usize, keep: usize) {
        self.nodes[n].process = None;
        self.nodes[n].disk.crash(&mut self.rng);
        self.nodes[n].data.restart(keep);
        self.nodes[n].paused_until = 0;
        self.answers.retain(|(via, _), _| *via != n);
        self.process_has_ended(n);
    }

    pub(super) fn tick(&mut self, n: usize, boot: u64) {
        if self.nodes[n].process.is_none() || self.nodes[n].boot != boot {
            return;
        }
        let jitter = self.rng.below(8_000);
        self.after(TICK_MS * 1000 - 4_000 + jitter, Action::Tick { node: n, boot });
        self.work(n);
        self.tell(n);
        let now = self.clock(n);
        if let Some(process) = self.nodes[n].process.as_mut().filter(|p| p.switch.is_none()) {
            process.council.tick(now);
        }
        self.drive(n);
        self.look_after_moves(n);
        self.look_after_requests(n);
        self.look_after_leaving(n);
    }

    /// Replication: pulls as replica, looks after its set as primary, syncs its data once in a while.
    fn work(&mut self, n: usize) {
        if self.rng.chance(1, 20) {
            self.nodes[n].data.durable = self.nodes[n].data.journal.len();
        }
        self.look_after_awaited(n);
        if self.nodes[n].data_cut_until <= self.now_us
            && let Some((primary, pull)) = self.nodes[n].data.pull(&self.boot(n))
            && let Some(to) = self.ids.get(&primary).copied()
        {
            let (clock_ms, known) = (self.clock(n), self.topology_of(n).map_or(0, |t| t.epoch));
            self.transmit(n, to, Packet::Pull { pull, clock_ms, known });
        }
    }

    pub(super) fn tell(&mut self, n: usize) {
        let now = self.clock(n);
        let shard = self.shard_of(n);
        let lease_is_over = !self.holds_lease(n);
        let topology = self.nodes[n].process.as_ref().and_then(|p| p.council.topology().cloned());
        let report = self.report_of(n, topology.as_deref(), shard);
        let node = &mut self.nodes[n];
        let Some(process) = node.process.as_mut().filter(|p| p.switch.is_none()) else { return };
        let disk_error = (node.disk_error_until > self.now_us).then(|| "cannot write".to_owned());
        let report = Report {
            name: node.name.clone(),
            disk_error,
            leaving: process.leaving.is_some(),
            lease_is_over: report.role == Role::Primary && lease_is_over,
            config_hash: node.config_hash.clone(),
            ..report
        };
        process.council.report(now, report);
    }

    /// What a member tells of its data. Their lineage is of the incarnation in which their last primary was promoted, whatever
    /// one the member is in now.
    pub(super) fn report_of(
        &self,
        n: usize,
        topology: Option<&Topology>,
        shard: Option<ShardId>,
    ) -> Report {
        let mut report = self.nodes[n].data.report(topology, shard, self.clock(n));
        if let Some(lineage) = &mut report.lineage {
            let mut decided = self.checker.epochs.range(..=lineage.epoch);
            lineage.incarnation = decided.next_back().map_or(1, |(_, t)| t.incarnation);
        }
        report
    }

    /// Does what the council wants until it wants nothing more.
    pub(super) fn drive(&mut self, n: usize) {
        for _ in 0..100 {
            let process = self.nodes[n].process.as_mut().filter(|p| p.switch.is_none());
            let Some(process) = process else { return };
            let output = process.council.drain();
            if output.batches.is_empty() && output.messages.is_empty() && output.events.is_empty() {
                break;
            }
            for batch in output.batches {
                let slow = self.nodes[n].slow_disk_until > self.now_us;
                let latency =
                    if slow { self.rng.below(1_500_000) } else { 500 + self.rng.below(4_000) };
                let latency = if batch.sync { latency } else { 0 };
                self.write(n, batch, latency);
            }
            for (to, message) in output.messages {
                if let Some(to) = self.ids.get(&to).copied() {
                    self.transmit(n, to, Packet::Council(Box::new(message)));
                }
            }
            for event in output.events {
                self.react(n, event);
            }
        }
        self.check_leases(n);
    }

    pub(super) fn write(&mut self, n: usize, batch: Batch, latency_us: u64) {
        let node = &mut self.nodes[n];
        let (number, sync) = (batch.number, batch.sync);
        if let Some(process) = &mut node.process {
            process.last_batch = number;
        }
        node.disk.write(batch);
        if sync {
            let at = node.disk.sync_ends(self.now_us, latency_us);
            let done = Action::DiskDone { node: n, boot: node.boot, batch: number };
            self.at(at, done);
        }
    }

    pub(super) fn disk_done(&mut self, n: usize, boot: u64, batch: u64) {
        if self.nodes[n].boot != boot {
            return;
        }
        self.nodes[n].disk.synced(batch);
        let now = self.clock(n);
        match &mut self.nodes[n].process {
            Some(process) if process.switch.is_some() => self.switched(n, batch),
            Some(process) => process.council.persisted(now, batch),
            None => {}
        }
        self.drive(n);
    }

    fn react(&mut self, n: usize, event: Event) {
        match event {
            Event::Topology(topology) => {
                let now = self.ms();
                let name = self.name(n);
                if topology.epoch < self.nodes[n].known_epoch {
                    self.violation(format!("{name} went back to {}", topology.epoch));
                }
                self.nodes[n].known_epoch = topology.epoch;
                // What it may forget again nobody is told.
                let council = self.nodes[n].process.as_ref().map(|p| &p.council);
                let lasts = council.is_some_and(|c| c.lasting_topology().is_some());
                let is_former = topology.incarnation < self.incarnation;
                let is_new = lasts && !is_former && self.checker.topology(now, &name, &topology);
                self.learn_slots(n, &topology);
                if let Some(shard) = self.shard_of(n).and_then(|s| topology.shards.get(&s)) {
                    let (boot, id) = (self.boot(n), self.nodes[n].id.clone());
                    let before = self.nodes[n].data.acting;
                    self.nodes[n].data.follow(&id, &boot, shard);
                    if self.nodes[n].data.acting != before {
                        self.role_has_changed(n);
                    }
                }
                if is_new {
                    self.note(|w| format!("{} is first at {}", w.name(n), show(&topology)));
                    self.check_promotions(&topology);
                }
            }
            Event::Lease { shard, epoch, until_ms: 0 } => {
                self.note(|w| format!("{} gives up shard {shard} epoch {epoch}", w.name(n)));
            }
            Event::Lease { epoch, .. } => {
                let data = &mut self.nodes[n].data;
                data.held = data.held.filter(|held| *held != epoch);
                if let Some(process) = &mut self.nodes[n].process {
                    process.has_served = epoch;
                }
            }
            Event::Hold { epoch, .. } => {
                self.note(|w| format!("{} holds, epoch {epoch}", w.name(n)));
                self.nodes[n].data.held = Some(epoch);
                self.tell(n);
            }
            Event::Answered { token, outcome } => {
                self.answers.insert((n, token), outcome);
            }
            Event::Leads(leads) => {
                self.tally.count(What::LeaderElected, u64::from(leads));
                self.note(|w| format!("{} leads: {leads}", w.name(n)));
            }
            Event::WantReport => self.tell(n),
        }
    }

    pub(super) fn holds_lease(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let process = node.process.as_ref().filter(|p| p.switch.is_none());
        let lease = process.and_then(|p| p.council.lease());
        lease.is_some_and(|(_, epoch, until)| {
            node.data.acting == Some(epoch) && self.clock(n) < until
        })
    }

    /// It holds a lease and executes under it.
    pub(super) fn may_execute(&self, n: usize) -> bool {
        let data = &self.nodes[n].data;
        self.holds_lease(n) && data.held != data.acting
    }

    fn check_leases(&mut self, n: usize) {
        if !self.may_execute(n) {
            return;
        }
        let shard = self.shard_of(n);
        for other in 0..self.nodes.len() {
            if other != n && self.shard_of(other) == shard && self.may_execute(other) {
                let what = format!("{} and {} both execute", self.name(n), self.name(other));
                self.violation(what);
            }
        }
    }

    fn check_promotions(&mut self, topology: &engine::topology::Topology) {
        let now = self.ms();
        for (id, shard) in &topology.shards {
            // Several changes may come at once, so that the promotion's own topology is never seen.
            if !self.checker.is_new_primary(*id, shard.epoch) {
                continue;
            }
            let Some(to) = shard.primary.as_ref().and_then(|p| self.ids.get(p)).copied() else {
                continue;
            };
            // It may have restarted since it was chosen, and then never acts under this epoch.
            if self.nodes[to].process.is_none() || shard.boot != self.boot(to) {
                continue;
            }
            let of_shard = |id: &MemberId| topology.members.contains_key(id);
            let others: BTreeMap<MemberId, &Data> = self
                .nodes
                .iter()
                .filter(|o| o.seat.shard() == Some(*id) && of_shard(&o.id))
                .map(|o| (o.id.clone(), &o.data))
                .collect();
            let (data, quorum) = (&self.nodes[to].data, self.quorum());
            self.checker.promoted(now, topology, *id, data, &others, quorum);
        }
    }

    /// SIGTERM.
    pub(super) fn ask_to_end(&mut self, n: usize) {
        let now = self.clock(n);
        let Some(process) = &mut self.nodes[n].process else { return };
        if process.leaving.is_none() {
            let leaving = Leaving { since_ms: now, wish: None, until_ms: None, has_retired: false };
            process.leaving = Some(leaving);
            self.note(|w| format!("{} is asked to end", w.name(n)));
            self.tell(n);
            self.drive(n);
        }
    }

    fn look_after_leaving(&mut self, n: usize) {
        let now = self.clock(n);
        let (set_min, id) = (self.nodes[n].data.set.min(), self.nodes[n].id.clone());
        let own = self.shard_of(n);
        let follows = |o: &usize| *o != n && own.is_some() && self.shard_of(*o) == own;
        let mut others = (0..self.nodes.len()).filter(follows);
        // Its replicas may be ending, too: then there is nobody to wait for.
        let has_followers = others.any(|o| self.nodes[o].process.is_some());
        let Some(process) = &mut self.nodes[n].process else { return };
        let Some(leaving) = &mut process.leaving else { return };
        let topology = process.council.topology();
        let shard = own.and_then(|shard| topology?.shards.get(&shard));
        if let Some(until_ms) = leaving.until_ms {
            let waits = now < until_ms || leaving.has_retired && process.council.leads();
            if now < until_ms || waits && now < until_ms + RETIRE_MS {
                return;
            }
            if !leaving.has_retired {
                leaving.has_retired = true;
                if process.council.retire(now) {
                    return self.drive(n);
                }
            }
            let keep = match (self.quorum(), self.weather.persistent) {
                (false, false) => 0,
                _ => self.nodes[n].data.journal.len(),
            };
            self.note(|w| format!("{} ends", w.name(n)));
            return self.end(n, keep);
        }
        let led = shard.filter(|s| s.primary.as_ref() == Some(&id)).map(|s| s.epoch);
        match (led, leaving.wish) {
            (Some(expected), wish) => {
                let outcome = wish.and_then(|token| self.answers.remove(&(n, token)));
                if !has_followers || now >= leaving.since_ms + LEAVE_MS {
                    leaving.until_ms = Some(now);
                } else if wish.is_none() || outcome.is_some_and(|o| o.is_err()) {
                    let shard = own.unwrap_or_default();
                    let change = Change::handover(shard, MemberId::new(), expected);
                    leaving.wish = Some(process.council.propose(now, change, None));
                    self.tally.count(What::HandoverWished, 1);
                    self.drive(n);
                }
            }
            // Another one was made primary.
            (None, Some(_)) => leaving.until_ms = Some(now + LINGER_MS),
            (None, None) => {
                let is_awaited = shard.is_some_and(|s| {
                    set_min > 0 && s.in_sync.contains_key(&id) && s.in_sync.len() > set_min
                });
                if !is_awaited || now >= leaving.since_ms + RELEASE_MS {
                    leaving.until_ms = Some(now);
                }
            }
        }
    }

    /// Number of the process.
    pub(super) fn boot(&self, n: usize) -> String {
        format!("{}-{}", n, self.nodes[n].boot)
    }
}
