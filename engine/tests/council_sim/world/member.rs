//! One member in the world: its process, its disk, its data, and what it does when the council speaks.

use std::collections::{BTreeMap, BTreeSet};

use engine::council::record::Saved;
use engine::council::{Council, Event};
use engine::topology::{MemberId, Report, Topology};

use super::{Action, Data, Packet, TICK_MS, What, World, show};

/// What counts as a slow sync.
const SLOW_US: u64 = 200_000;

impl World {
    pub(super) fn start(&mut self, n: usize) {
        if self.nodes[n].council.is_some() {
            return;
        }
        let now = self.clock(n);
        self.nodes[n].boot += 1;
        let node = &self.nodes[n];
        let boot = format!("{}-{}", n, node.boot);
        let saved = Saved::from_records(node.disk.records());
        let known = saved.known.as_ref().map_or(0, |k| k.epoch);
        let (id, seed) = (node.member.id.clone(), self.rng.draw());
        let settings = self.settings.clone();
        match Council::new(id, boot, settings, seed, saved, now) {
            Ok(council) => self.nodes[n].council = Some(council),
            Err(e) => self.checker.violation(0, format!("cannot start: {e}")),
        }
        self.nodes[n].known_epoch = known;
        self.note(|w| format!("{} starts, boot {}", w.name(n), w.nodes[n].boot));
        self.drive(n);
    }

    pub(super) fn crash(&mut self, n: usize, down_us: u64) {
        if self.nodes[n].council.take().is_none() {
            return;
        }
        let keep = match (self.weather.quorum, self.weather.persistent) {
            (true, _) => self.nodes[n].data.journal.len(),
            (_, true) => {
                let all = self.nodes[n].data.journal.len() as u64;
                let durable = self.nodes[n].data.durable as u64;
                (durable + self.rng.below(all.saturating_sub(durable) + 1)) as usize
            }
            _ => 0,
        };
        let lost = self.nodes[n].disk.crash(&mut self.rng);
        self.tally.count(What::Crash, 1);
        self.tally.count(What::BatchesLostUnsynced, lost as u64);
        let all = self.nodes[n].data.journal.len();
        self.tally.count(What::WritesLostUnsynced, (all - keep) as u64);
        self.nodes[n].data.restart(keep);
        self.nodes[n].paused_until = 0;
        self.note(|w| {
            format!("{} crashes, keeps {keep} writes, back in {} ms", w.name(n), down_us / 1000)
        });
        self.after(down_us, Action::Start(n));
    }

    pub(super) fn tick(&mut self, n: usize) {
        let jitter = self.rng.below(8_000);
        self.after(TICK_MS * 1000 - 4_000 + jitter, Action::Tick(n));
        if self.nodes[n].council.is_none() {
            return;
        }
        self.work(n);
        self.tell(n);
        let now = self.clock(n);
        if let Some(council) = &mut self.nodes[n].council {
            council.tick(now);
        }
        self.drive(n);
    }

    /// The engine's part: writes as primary, pulls as replica, syncs its data once in a while.
    fn work(&mut self, n: usize) {
        let shard = self.nodes[n].member.shard;
        if self.rng.chance(1, 20) {
            self.nodes[n].data.durable = self.nodes[n].data.journal.len();
        }
        if let (Some(shard), Some(epoch)) = (shard, self.nodes[n].data.acting)
            && self.may_write(n)
        {
            self.writes += 1;
            let id = self.writes;
            self.nodes[n].data.journal.push((epoch, id));
            if !self.weather.quorum {
                self.nodes[n].data.acked.push(id);
                let now = self.ms();
                self.checker.acknowledged(shard, id, now);
            }
        }
        self.look_after_awaited(n);
        if self.nodes[n].data_cut_until <= self.now_us
            && let Some((primary, pull)) = self.nodes[n].data.pull(&self.boot(n))
            && let Some(to) = self.ids.get(&primary).copied()
        {
            self.transmit(n, to, Packet::Data(pull));
        }
    }

    fn tell(&mut self, n: usize) {
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        let Some(council) = &mut node.council else { return };
        let topology = council.topology().cloned();
        let report = node.data.report(topology.as_deref(), node.member.shard, now);
        let disk_error = (node.disk_error_until > self.now_us).then(|| "cannot write".to_owned());
        council.report(now, Report { name: node.member.name.clone(), disk_error, ..report });
    }

    /// Does what the council wants until it wants nothing more.
    pub(super) fn drive(&mut self, n: usize) {
        for _ in 0..100 {
            let Some(council) = &mut self.nodes[n].council else { return };
            let output = council.drain();
            if output.batches.is_empty() && output.messages.is_empty() && output.events.is_empty() {
                break;
            }
            for batch in output.batches {
                let slow = self.nodes[n].slow_disk_until > self.now_us;
                let latency =
                    if slow { self.rng.below(1_500_000) } else { 500 + self.rng.below(4_000) };
                let latency = self.nodes[n].sync_us.unwrap_or(latency);
                let latency = if batch.sync { latency } else { 0 };
                self.tally.count(What::SlowSync, u64::from(latency > SLOW_US));
                let (number, sync) = (batch.number, batch.sync);
                let node = &mut self.nodes[n];
                node.disk.write(batch);
                if sync {
                    let at = node.disk.sync_ends(self.now_us, latency);
                    let done = Action::DiskDone { node: n, boot: node.boot, batch: number };
                    self.at(at, done);
                }
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

    fn react(&mut self, n: usize, event: Event) {
        match event {
            Event::Topology(topology) => {
                let now = self.ms();
                let name = self.name(n).to_owned();
                if topology.epoch < self.nodes[n].known_epoch {
                    self.checker.violation(now, format!("{name} went back to {}", topology.epoch));
                }
                self.nodes[n].known_epoch = topology.epoch;
                let is_new = self.checker.topology(now, &name, &topology);
                if let Some(shard) =
                    self.nodes[n].member.shard.and_then(|s| topology.shards.get(&s))
                {
                    let boot = self.boot(n);
                    let id = self.nodes[n].member.id.clone();
                    self.nodes[n].data.follow(&id, &boot, shard);
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
            }
            Event::Hold { epoch, .. } => {
                self.nodes[n].data.held = Some(epoch);
                self.tell(n);
            }
            Event::Answered { token, outcome } => {
                self.note(|w| format!("{} is answered {token}: {outcome:?}", w.name(n)));
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
        let lease = node.council.as_ref().and_then(Council::lease);
        lease.is_some_and(|(_, epoch, until)| {
            node.data.acting == Some(epoch) && self.clock(n) < until
        })
    }

    /// It holds a lease and executes under it.
    fn may_write(&self, n: usize) -> bool {
        let data = &self.nodes[n].data;
        self.holds_lease(n) && data.held != data.acting
    }

    fn check_leases(&mut self, n: usize) {
        if !self.may_write(n) {
            return;
        }
        let shard = self.nodes[n].member.shard;
        for other in 0..self.nodes.len() {
            if other != n && self.nodes[other].member.shard == shard && self.may_write(other) {
                let what = format!("{} and {} both execute", self.name(n), self.name(other));
                let now = self.ms();
                self.checker.violation(now, what);
            }
        }
    }

    fn check_promotions(&mut self, topology: &Topology) {
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
            let is_gone = self.nodes[to].council.is_none();
            if is_gone || shard.boot != self.boot(to) {
                continue;
            }
            let others: BTreeMap<MemberId, &Data> = self
                .nodes
                .iter()
                .filter(|o| o.member.shard == Some(*id))
                .filter(|o| topology.members.contains_key(&o.member.id))
                .map(|o| (o.member.id.clone(), &o.data))
                .collect();
            let data = &self.nodes[to].data;
            self.checker.promoted(now, topology, *id, data, &others, self.weather.quorum);
        }
    }

    /// What those have who must have it is acknowledged: a majority of the electors, or the in-sync set.
    pub(super) fn acknowledge_quorum(&mut self, n: usize) {
        if !self.weather.quorum || !self.holds_lease(n) {
            return;
        }
        let Some(shard) = self.nodes[n].member.shard else { return };
        let now = self.clock(n);
        let node = &self.nodes[n];
        let Some(topology) = node.council.as_ref().and_then(Council::topology) else { return };
        let data = &node.data;
        let acked = data.acked_by(topology, shard, &node.member.id, now).offset;
        let has = data.journal.len().min(usize::try_from(acked).unwrap_or(usize::MAX));
        let epoch = data.acting;
        let ids: Vec<u64> = data.journal[..has]
            .iter()
            .filter(|w| Some(w.0) == epoch && w.1 > 0)
            .map(|w| w.1)
            .collect();
        let known: BTreeSet<u64> = self.nodes[n].data.acked.iter().copied().collect();
        let now = self.ms();
        for id in ids.into_iter().filter(|id| !known.contains(id)) {
            self.nodes[n].data.acked.push(id);
            self.checker.acknowledged(shard, id, now);
        }
    }

    /// The primary's look at who is awaited, once a beat.
    fn look_after_awaited(&mut self, n: usize) {
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        let is_due = now >= node.data.looked_ms + self.settings.beat_ms;
        if !self.weather.quorum || !is_due {
            return;
        }
        node.data.looked_ms = now;
        let topology = node.council.as_ref().and_then(Council::topology).cloned();
        if let (Some(shard), Some(topology)) = (node.member.shard, topology)
            && self.holds_lease(n)
        {
            let node = &mut self.nodes[n];
            let change = node.data.look(&topology, shard, &node.member.id, now);
            if let (Some(change), Some(council)) = (change, &mut node.council) {
                self.tally.count(What::AwaitedWished, 1);
                council.propose(now, change, Some(topology.epoch));
            }
        }
        self.acknowledge_quorum(n);
    }

    /// Number of the process.
    pub(super) fn boot(&self, n: usize) -> String {
        format!("{}-{}", n, self.nodes[n].boot)
    }
}
