//! The world of the simulation: members, clocks, network, faults, and the loop that runs them.

mod crowd;
mod faults;
mod lost_heir;
mod member;
mod network;
mod operator;
mod slow_leader;
mod to_and_fro;

use std::collections::BTreeMap;

use engine::council::Council;
use engine::council::message::Message;
use engine::council::rng::Rng;
use engine::council::settings::Settings;
use engine::topology::{Member, MemberId, ShardId, Topology};

use super::check::Checker;
use super::clock::Clock;
use super::data::{Data, Sync};
use super::disk::Disk;
use super::outcome::Outcome;
use super::tally::{Tally, What};
use super::wire::Wires;

/// Simulated time of trouble, then at most this long and twelve failure timeouts until all must be well
/// again, milliseconds.
const TROUBLE_MS: u64 = 12_000;
const SETTLE_MS: u64 = 15_000;
const TICK_MS: u64 = 25;

enum Packet {
    Council(Box<Message>),
    Data(Sync),
}

/// When a message was sent: the time, and the place among all messages.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Sent {
    us: u64,
    number: u64,
}

struct Letter {
    from: usize,
    /// As whom it was sent: a member that has lost its disk since is another one.
    sender: MemberId,
    to: usize,
    sent: Sent,
    packet: Packet,
}

enum Action {
    Tick(usize),
    Deliver(Box<Letter>),
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
    data: Data,
    boot: u64,
    clock: Clock,
    paused_until: u64,
    slow_disk_until: u64,
    /// How long each of its syncs takes; `None`: as it happens.
    sync_us: Option<u64>,
    disk_error_until: u64,
    /// Replication is cut, the council is not.
    data_cut_until: u64,
    known_epoch: u64,
}

/// How bad this world is.
struct Weather {
    wires: Wires,
    fault_every_ms: u64,
    refusals: bool,
    /// Writes are acknowledged once a majority of the shard has them, or its in-sync set; nothing written is lost.
    quorum: bool,
    /// The least that is in such a set; 0: a majority counts.
    min_in_sync: usize,
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
    /// The last sent of the messages that have arrived.
    arrived: BTreeMap<(usize, usize), Sent>,
    tally: Tally,
    weather: Weather,
    shards: u16,
    settings: Settings,
    checker: Checker,
    writes: u64,
    tracing: bool,
    trace: Vec<String>,
    healthy: bool,
    has_lost_disk: bool,
    /// When a member was wished away last.
    let_go_us: Option<u64>,
    has_formed: bool,
    /// Members that the operator wishes to join in one round.
    joins_at_once: usize,
}

impl World {
    pub(crate) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x001a_2de2);
        let shards = 1 + rng.below(3) as u16;
        let replicas = rng.below(3) as u16;
        let majority = replicas == 1 && rng.chance(1, 2);
        // Drawn apart, so that the other worlds are what they were.
        let mut apart = Rng::new(seed ^ 0x5e7);
        let by_set = replicas > 0 && apart.chance(1, 3);
        let min_in_sync = if by_set { 1 + apart.below(2) as usize } else { 0 };
        let majority = majority || replicas == 2 && !by_set && apart.chance(1, 2);
        let quorum = majority || by_set;
        let wires = Wires::bad(
            [0, 10, 50, 200][rng.below(4) as usize],
            [0, 20][rng.below(2) as usize],
            [2_000, 20_000, 150_000][rng.below(3) as usize],
        );
        let weather = Weather {
            wires,
            fault_every_ms: 200 + rng.below(2_500),
            refusals: rng.chance(1, 2),
            quorum,
            min_in_sync,
            persistent: quorum || rng.chance(2, 3),
        };
        let failure_timeout_ms = [500, 1000, 1000, 3000][rng.below(4) as usize];
        Self::of(seed, rng, weather, failure_timeout_ms, (shards, replicas), tracing)
    }

    fn of(
        seed: u64,
        rng: Rng,
        weather: Weather,
        failure_timeout_ms: u64,
        (shards, replicas): (u16, u16),
        tracing: bool,
    ) -> Self {
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
            arrived: BTreeMap::new(),
            tally: Tally::default(),
            weather,
            shards,
            checker: Checker::new(failure_timeout_ms),
            settings: Settings::new(failure_timeout_ms),
            writes: 0,
            tracing,
            trace: vec![],
            healthy: false,
            has_lost_disk: false,
            let_go_us: None,
            has_formed: false,
            joins_at_once: 1,
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
            tls_port: 0,
            bus_port: 16379,
            shard,
            node: self.rng.chance(1, 2).then(|| format!("node-{}", n % 3)),
            zone: None,
            id: id.clone(),
        };
        self.ids.insert(id, n);
        let drift_ppm = self.rng.below(18_001) as i64 - 9_000;
        self.tally.count(What::ClockFast, u64::from(drift_ppm >= 5_000));
        self.tally.count(What::ClockSlow, u64::from(drift_ppm <= -5_000));
        self.nodes.push(Node {
            member,
            council: None,
            disk: Disk::default(),
            data: Data::new(self.weather.quorum, self.weather.min_in_sync),
            boot: 0,
            clock: Clock { offset_ms: self.rng.below(1_000_000_000), drift_ppm },
            paused_until: 0,
            slow_disk_until: 0,
            sync_us: None,
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
        let mut tally = self.tally;
        tally.add(&self.checker.tally);
        Outcome {
            violations: self.checker.violations,
            trace: self.trace,
            seeds: 1,
            events,
            tally,
            writes: self.writes,
            lost: self.checker.lost.len() as u64,
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

    fn name_of(&self, id: &MemberId) -> &str {
        self.ids.get(id).map_or("nobody", |n| self.name(*n))
    }

    /// The node's own monotonic clock.
    fn clock(&self, n: usize) -> u64 {
        self.nodes[n].clock.ms(self.now_us)
    }

    fn act(&mut self, action: Action) {
        let target = match &action {
            Action::Tick(n) | Action::DiskDone { node: n, .. } => Some(*n),
            Action::Deliver(letter) => Some(letter.to),
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
            Action::Deliver(letter) => self.deliver(*letter),
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
