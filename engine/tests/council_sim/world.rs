//! The world of the simulation: members, clocks, network, faults, and the loop that runs them.

mod faults;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use engine::council::message::Message;
use engine::council::record::Saved;
use engine::council::rng::Rng;
use engine::council::settings::Settings;
use engine::council::{Council, Event};
use engine::topology::{Change, Member, MemberId, Report, ShardId, Topology, even_slots};

use super::check::Checker;
use super::data::{Data, Sync};
use super::disk::Disk;

/// Simulated time of trouble, then at most this long and twelve failure timeouts until all must be well
/// again, milliseconds.
const TROUBLE_MS: u64 = 12_000;
const SETTLE_MS: u64 = 15_000;
const TICK_MS: u64 = 25;

enum Packet {
    Council(Box<Message>),
    Data(Sync),
}

enum Action {
    Tick(usize),
    Deliver { from: usize, to: usize, packet: Packet },
    DiskDone { node: usize, boot: u64, batch: u64 },
    Start(usize),
    Fault,
    Operate,
}

struct Node {
    member: Member,
    /// `None`: crashed.
    council: Option<Council>,
    disk: Disk,
    disk_busy_until: u64,
    data: Data,
    boot: u64,
    clock_offset: u64,
    drift_ppm: i64,
    paused_until: u64,
    slow_disk_until: u64,
    disk_error_until: u64,
    /// Replication is cut, the council is not.
    data_cut_until: u64,
    known_epoch: u64,
}

/// How bad this world is.
struct Weather {
    loss_permille: u64,
    duplicate_permille: u64,
    delay_max_us: u64,
    fault_every_ms: u64,
    refusals: bool,
    /// Writes are acknowledged once a majority of the shard has them; nothing written is lost.
    quorum: bool,
    /// A crash keeps the data set, but for its tail.
    persistent: bool,
}

pub(crate) struct World {
    seed: u64,
    rng: Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Action>,
    queued: u64,
    nodes: Vec<Node>,
    ids: BTreeMap<MemberId, usize>,
    blocked: BTreeMap<(usize, usize), u64>,
    weather: Weather,
    shards: u16,
    settings: Settings,
    checker: Checker,
    writes: u64,
    tracing: bool,
    trace: Vec<String>,
    healthy: bool,
    has_lost_disk: bool,
    has_formed: bool,
}

#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) violations: Vec<String>,
    pub(crate) trace: Vec<String>,
    seeds: u64,
    events: u64,
    promotions: u64,
    writes: u64,
    lost: u64,
    settle_max_ms: u64,
}

impl Outcome {
    pub(crate) fn add(&mut self, other: &Self) {
        self.seeds += 1;
        self.events += other.events;
        self.promotions += other.promotions;
        self.writes += other.writes;
        self.lost += other.lost;
        self.settle_max_ms = self.settle_max_ms.max(other.settle_max_ms);
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} seeds, {} events, {} promotions, {} writes acknowledged, {} lost with a tail, \
             served again after at most {} ms",
            self.seeds, self.events, self.promotions, self.writes, self.lost, self.settle_max_ms
        )
    }
}

impl World {
    pub(crate) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x001a_2de2);
        let shards = 1 + rng.below(3) as u16;
        let replicas = rng.below(3) as u16;
        let quorum = replicas == 1 && rng.chance(1, 2);
        let weather = Weather {
            loss_permille: [0, 10, 50, 200][rng.below(4) as usize],
            duplicate_permille: [0, 20][rng.below(2) as usize],
            delay_max_us: [2_000, 20_000, 150_000][rng.below(3) as usize],
            fault_every_ms: 200 + rng.below(2_500),
            refusals: rng.chance(1, 2),
            quorum,
            persistent: quorum || rng.chance(2, 3),
        };
        let failure_timeout_ms = [500, 1000, 1000, 3000][rng.below(4) as usize];
        let mut places = vec![];
        for shard in 0..shards {
            places
                .extend((0..=replicas).map(|index| (format!("demo-{shard}-{index}"), Some(shard))));
        }
        for index in 0..3usize.saturating_sub(places.len()) {
            places.push((format!("demo-w-{index}"), None));
        }
        let mut world = Self {
            seed,
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes: vec![],
            ids: BTreeMap::new(),
            blocked: BTreeMap::new(),
            weather,
            shards,
            checker: Checker::new(failure_timeout_ms),
            settings: Settings::new(failure_timeout_ms),
            writes: 0,
            tracing,
            trace: vec![],
            healthy: false,
            has_lost_disk: false,
            has_formed: false,
            rng,
        };
        for (name, shard) in places {
            world.add_node(name, shard);
        }
        world
    }

    fn add_node(&mut self, name: String, shard: Option<ShardId>) {
        let id = self.rng.hex40();
        let n = self.nodes.len();
        let member = Member {
            host: format!("{name}.demo"),
            name,
            port: 6379,
            bus_port: 16379,
            shard,
            node: self.rng.chance(1, 2).then(|| format!("node-{}", n % 3)),
            zone: None,
            id: id.clone(),
        };
        self.ids.insert(id, n);
        self.nodes.push(Node {
            member,
            council: None,
            disk: Disk::default(),
            disk_busy_until: 0,
            data: Data::default(),
            boot: 0,
            clock_offset: self.rng.below(1_000_000_000),
            drift_ppm: self.rng.below(18_001) as i64 - 9_000,
            paused_until: 0,
            slow_disk_until: 0,
            disk_error_until: 0,
            data_cut_until: 0,
            known_epoch: 0,
        });
        self.at(0, Action::Start(n));
        let first = self.rng.below(TICK_MS * 1000);
        self.at(first, Action::Tick(n));
    }

    /// The world until it is well again, or something is not as it should be.
    pub(crate) fn run(mut self) -> Outcome {
        self.at(1_000, Action::Operate);
        self.at(2_500_000, Action::Fault);
        let mut events = 0;
        let mut settle_max_ms = 0;
        while let Some(((at, _), action)) = self.queue.pop_first() {
            self.now_us = at;
            events += 1;
            self.act(action);
            if !self.checker.violations.is_empty() {
                break;
            }
            if self.ms() >= TROUBLE_MS && !self.healthy {
                self.heal();
            }
            if self.healthy && events % 64 == 0 && self.ms() > TROUBLE_MS + 500 {
                settle_max_ms = self.ms() - TROUBLE_MS;
                let missing = self.unwell();
                if missing.is_empty() {
                    break;
                }
                if settle_max_ms > SETTLE_MS + 12 * self.settings.failure_timeout_ms {
                    let now_ms = self.ms();
                    self.checker.violation(now_ms, format!("not well again: {missing:?}"));
                }
            }
        }
        if self.tracing {
            self.trace.iter().for_each(|line| println!("{line}"));
        }
        Outcome {
            violations: self.checker.violations,
            trace: self.trace,
            seeds: 1,
            events,
            promotions: self.checker.promotions,
            writes: self.writes,
            lost: self.checker.lost,
            settle_max_ms,
        }
    }

    fn ms(&self) -> u64 {
        self.now_us / 1000
    }

    fn at(&mut self, us: u64, action: Action) {
        self.queued += 1;
        self.queue.insert((us, self.queued), action);
    }

    fn after(&mut self, us: u64, action: Action) {
        self.at(self.now_us + us, action);
    }

    fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.tracing {
            let text = format!("{:>8.3} {}", self.now_us as f64 / 1e6, line(self));
            self.trace.push(text);
        }
    }

    fn name(&self, n: usize) -> &str {
        &self.nodes[n].member.name
    }

    /// The node's own monotonic clock.
    fn clock(&self, n: usize) -> u64 {
        let node = &self.nodes[n];
        let rate = 1_000_000 + node.drift_ppm;
        let us = i128::from(self.now_us) * i128::from(rate) / 1_000_000;
        node.clock_offset + (us / 1000) as u64
    }

    fn act(&mut self, action: Action) {
        let target = match &action {
            Action::Tick(n) | Action::Deliver { to: n, .. } | Action::DiskDone { node: n, .. } => {
                Some(*n)
            }
            Action::Start(_) | Action::Fault | Action::Operate => None,
        };
        if let Some(n) = target {
            let until = self.nodes[n].paused_until;
            if until > self.now_us {
                self.at(until, action);
                return;
            }
        }
        match action {
            Action::Tick(n) => self.tick(n),
            Action::Deliver { from, to, packet } => self.deliver(from, to, packet),
            Action::DiskDone { node, boot, batch } => {
                if self.nodes[node].boot == boot {
                    self.nodes[node].disk.synced(batch);
                    let now = self.clock(node);
                    if let Some(council) = &mut self.nodes[node].council {
                        council.persisted(now, batch);
                    }
                    self.drive(node);
                }
            }
            Action::Start(n) => self.start(n),
            Action::Fault => {
                if !self.healthy {
                    self.fault();
                    let next = self.rng.below(2 * self.weather.fault_every_ms * 1000);
                    self.after(next, Action::Fault);
                }
            }
            Action::Operate => self.operate(),
        }
    }

    fn start(&mut self, n: usize) {
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
        self.nodes[n].disk_busy_until = 0;
        self.note(|w| format!("{} starts, boot {}", w.name(n), w.nodes[n].boot));
        self.drive(n);
    }

    fn crash(&mut self, n: usize, down_us: u64) {
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
        self.nodes[n].disk.crash(&mut self.rng);
        self.nodes[n].data.restart(keep);
        self.nodes[n].paused_until = 0;
        self.note(|w| {
            format!("{} crashes, keeps {keep} writes, back in {} ms", w.name(n), down_us / 1000)
        });
        self.after(down_us, Action::Start(n));
    }

    fn tick(&mut self, n: usize) {
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
            && self.holds_lease(n)
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
        if self.nodes[n].data_cut_until <= self.now_us
            && let Some((primary, pull)) = self.nodes[n].data.pull()
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
    fn drive(&mut self, n: usize) {
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
                let latency = if batch.sync { latency } else { 0 };
                let (number, sync) = (batch.number, batch.sync);
                let node = &mut self.nodes[n];
                node.disk.write(batch);
                if sync {
                    node.disk_busy_until = node.disk_busy_until.max(self.now_us) + latency;
                    let done = Action::DiskDone { node: n, boot: node.boot, batch: number };
                    let at = node.disk_busy_until;
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
                    let boot = format!("{}-{}", n, self.nodes[n].boot);
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
            Event::Lease { .. } => {}
            Event::Answered { token, outcome } => {
                self.note(|w| format!("{} is answered {token}: {outcome:?}", w.name(n)));
            }
            Event::Leads(leads) => {
                self.note(|w| format!("{} leads: {leads}", w.name(n)));
            }
            Event::WantReport => self.tell(n),
        }
    }

    fn check_promotions(&mut self, topology: &Topology) {
        let now = self.ms();
        for (id, shard) in topology.shards.iter().filter(|(_, s)| s.epoch == topology.epoch) {
            let Some(to) = shard.primary.as_ref().and_then(|p| self.ids.get(p)).copied() else {
                continue;
            };
            // It may have restarted since it was chosen, and then never acts under this epoch.
            let is_gone = self.nodes[to].council.is_none();
            if is_gone || shard.boot != format!("{}-{}", to, self.nodes[to].boot) {
                continue;
            }
            let others: BTreeMap<MemberId, &Data> = self
                .nodes
                .iter()
                .filter(|o| o.member.shard == Some(*id))
                .map(|o| (o.member.id.clone(), &o.data))
                .collect();
            let data = &self.nodes[to].data;
            self.checker.promoted(now, topology, *id, data, &others, self.weather.quorum);
        }
    }

    fn holds_lease(&self, n: usize) -> bool {
        let node = &self.nodes[n];
        let lease = node.council.as_ref().and_then(Council::lease);
        lease.is_some_and(|(_, epoch, until)| {
            node.data.acting == Some(epoch) && self.clock(n) < until
        })
    }

    fn check_leases(&mut self, n: usize) {
        if !self.holds_lease(n) {
            return;
        }
        let shard = self.nodes[n].member.shard;
        for other in 0..self.nodes.len() {
            if other != n && self.nodes[other].member.shard == shard && self.holds_lease(other) {
                let what = format!("{} and {} both acknowledge", self.name(n), self.name(other));
                let now = self.ms();
                self.checker.violation(now, what);
            }
        }
    }

    fn transmit(&mut self, from: usize, to: usize, packet: Packet) {
        if self.nodes[to].council.is_none() {
            if self.weather.refusals && !self.is_blocked(from, to) {
                let now = self.clock(from);
                let member = self.nodes[to].member.id.clone();
                if let Some(council) = &mut self.nodes[from].council {
                    council.refused(now, &member);
                }
            }
            return;
        }
        let copies =
            1 + u64::from(self.rng.chance(self.loss(self.weather.duplicate_permille), 1000));
        if copies == 2
            && let Packet::Council(message) = &packet
        {
            let again = Packet::Council(message.clone());
            let delay = self.delay();
            self.after(delay, Action::Deliver { from, to, packet: again });
        }
        if !self.rng.chance(self.loss(self.weather.loss_permille), 1000) {
            let delay = self.delay();
            self.after(delay, Action::Deliver { from, to, packet });
        }
    }

    fn loss(&self, permille: u64) -> u64 {
        if self.healthy { 0 } else { permille }
    }

    fn delay(&mut self) -> u64 {
        let max = if self.healthy { 2_000 } else { self.weather.delay_max_us };
        let slow = self.rng.chance(1, 50);
        100 + self.rng.below(if slow { max * 4 } else { max })
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|until| *until > self.now_us)
    }

    fn deliver(&mut self, from: usize, to: usize, packet: Packet) {
        if self.is_blocked(from, to) || self.nodes[to].council.is_none() {
            return;
        }
        let now = self.clock(to);
        let sender = self.nodes[from].member.id.clone();
        match packet {
            Packet::Council(message) => {
                let message = self.through_text(*message);
                if let Some(council) = &mut self.nodes[to].council {
                    council.receive(now, &sender, message);
                }
                self.drive(to);
            }
            Packet::Data(Sync::Pull { epoch, have, last }) => {
                let reply = self.nodes[to].data.push(&sender, epoch, have, last);
                self.acknowledge_quorum(to);
                if let Some(reply) = reply {
                    self.transmit(to, from, Packet::Data(reply));
                }
            }
            Packet::Data(Sync::Push { epoch, base, writes, end }) => {
                let outcome = self.nodes[to].data.apply(&sender, now, (epoch, base, writes, end));
                if let Err(broken) = outcome {
                    let now = self.ms();
                    self.checker.violation(now, broken);
                }
            }
        }
    }

    /// Some worlds send what the wire would carry.
    fn through_text(&self, message: Message) -> Message {
        if !self.seed.is_multiple_of(10) {
            return message;
        }
        let text = serde_json::to_string(&message).unwrap();
        let back: Message = serde_json::from_str(&text).unwrap();
        assert_eq!(back, message);
        back
    }

    /// With two members a majority is both: what the replica has pulled may be acknowledged.
    fn acknowledge_quorum(&mut self, n: usize) {
        if !self.weather.quorum || !self.holds_lease(n) {
            return;
        }
        let Some(shard) = self.nodes[n].member.shard else { return };
        let data = &self.nodes[n].data;
        let has = data.replicas.iter().map(|(_, have)| *have).max().unwrap_or(0);
        let epoch = data.acting;
        let ids: Vec<u64> = data.journal[..has.min(data.journal.len())]
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

    /// The operator: forms the cluster, tells members of it, wishes them to join.
    fn operate(&mut self) {
        self.after(150_000, Action::Operate);
        let known = self.nodes.iter().filter_map(|n| n.council.as_ref()?.topology().cloned());
        let Some(topology) = known.max_by_key(|t| t.epoch) else {
            // Nobody who is there knows anything; those who do will be back.
            if self.has_formed {
                return;
            }
            let now = self.clock(0);
            let cluster = self.rng.hex40();
            let shards: Vec<_> = (0..self.shards).map(|i| even_slots(i, self.shards)).collect();
            let node = &mut self.nodes[0];
            if let Some(council) = &mut node.council {
                council.form(now, cluster, 1, &node.member, &shards).unwrap();
                self.has_formed = true;
            }
            self.drive(0);
            return;
        };
        for n in 0..self.nodes.len() {
            let now = self.clock(n);
            let Some(council) = &mut self.nodes[n].council else { continue };
            if council.topology().is_none() {
                council.adopt(now, Topology::clone(&topology)).unwrap();
                self.drive(n);
            }
        }
        let missing = (0..self.nodes.len())
            .find(|n| !topology.members.contains_key(&self.nodes[*n].member.id));
        if let Some(missing) = missing {
            let via = self.rng.below(self.nodes.len() as u64) as usize;
            let now = self.clock(via);
            let member = self.nodes[missing].member.clone();
            if let Some(council) = &mut self.nodes[via].council {
                council.propose(now, Change::Join(member), None);
            }
            self.drive(via);
        }
    }

    /// What is still not as it should be.
    fn unwell(&self) -> Vec<String> {
        let mut missing = vec![];
        for shard in 0..self.shards {
            let of_shard: Vec<usize> = (0..self.nodes.len())
                .filter(|n| self.nodes[*n].member.shard == Some(shard))
                .collect();
            if !of_shard.iter().any(|n| self.holds_lease(*n)) {
                let reasons: Vec<_> =
                    self.nodes.iter().filter_map(|n| n.council.as_ref()).collect();
                let reasons: Vec<_> =
                    reasons.iter().filter(|c| c.leads()).map(|c| c.waiting_for()).collect();
                missing.push(format!("shard {shard} is not served: {reasons:?}"));
            }
        }
        let topology = self.nodes.iter().filter_map(|n| n.council.as_ref()?.topology().cloned());
        let Some(topology) = topology.max_by_key(|t| t.epoch) else { return missing };
        for n in 0..self.nodes.len() {
            let node = &self.nodes[n];
            if !topology.members.contains_key(&node.member.id) {
                missing.push(format!("{} has not joined", node.member.name));
            }
            if let Some(shard) = node.member.shard
                && !topology.shards[&shard].in_sync.contains_key(&node.member.id)
            {
                missing.push(format!("{} is not in sync", node.member.name));
            }
        }
        missing
    }
}

fn show(topology: &Topology) -> String {
    let name = |id: &MemberId| topology.members.get(id).map_or("?", |m| m.name.as_str()).to_owned();
    let mut text = format!("topology {}", topology.epoch);
    for (id, shard) in &topology.shards {
        let primary = shard.primary.as_ref().map_or("nobody".to_owned(), name);
        let in_sync: Vec<_> =
            shard.in_sync.iter().map(|(m, b)| format!("{}@{b}", name(m))).collect();
        text += &format!(
            "; shard {id}: {primary} epoch {} boot {} in sync {}",
            shard.epoch,
            shard.boot,
            in_sync.join(",")
        );
    }
    let voters: Vec<_> = topology.voters.iter().map(name).collect();
    text + &format!("; voters {}", voters.join(","))
}
