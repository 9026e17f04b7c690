//! The world: what there is, its clock, and the loop that runs it.

mod clients;
mod current;
mod faults;
mod member;
mod moves;
mod network;
mod operator;
mod pods;
mod recovery;
mod serve;

use std::collections::BTreeMap;

use ::operator::desired::{Balance, Desired, Rollout, Seat};
use ::operator::status::Status;
use engine::council::rng::Rng;
use engine::council::settings::Settings;
use engine::topology::{Epoch, MemberId, ShardId, Topology, slot_of};

use super::check::Checker;
use super::clock::Clock;
use super::data::Data;
use super::disk::Disk;
use super::history::Operation;
use super::outcome::Outcome;
use super::tally::{Tally, What};
use super::wire::Wires;
use clients::{Client, StaleRead};
use member::Process;
use network::Letter;
use pods::Place;
use recovery::Recovery;

/// Simulated time of trouble, milliseconds.
const TROUBLE_MS: u64 = 20_000;
/// Time without faults, after which the operator has to have called the cluster settled, milliseconds: all
/// slots may move, and all members be made anew, one after the other.
const SETTLE_MS: u64 = 240_000;
const TICK_MS: u64 = 25;
/// Keys of clients, each in another of as many stretches of slots.
const KEYS: usize = 32;
const CLIENTS: usize = 6;
/// The last of them only read, of replicas if they may.
const READERS: usize = 2;
/// Keys that half of all requests are about.
const HOT: u64 = 3;

/// What is on its way, or due, at most: more is an avalanche.
const QUEUE_MAX: usize = 5_000;

/// A key's number.
type Key = usize;
/// What was written: the number of the operation that first wrote it.
type Value = u64;

enum Action {
    Tick {
        node: usize,
        boot: u64,
    },
    Deliver(Box<Letter>),
    DiskDone {
        node: usize,
        boot: u64,
        batch: u64,
    },
    Start(usize),
    Crash {
        node: usize,
        boot: u64,
    },
    /// Whoever is primary of the shard then, unless it is this one.
    CrashPrimary {
        shard: ShardId,
        but: usize,
    },
    Fault,
    Operate,
    /// Another operator, which does not know yet that it leads no more, does a round of its own.
    OtherOperates,
    /// A client begins its next request.
    Client(usize),
    /// It has waited long enough for this attempt.
    Impatient {
        client: usize,
        attempt: u64,
    },
    /// It tries again.
    Again {
        client: usize,
        attempt: u64,
    },
}

/// What a journal's entry means; entries hold numbers of these.
#[derive(Clone, Copy, Debug)]
enum Op {
    /// A primary's mark.
    Mark,
    Set {
        key: Key,
        value: Value,
    },
    /// The key is deleted, because its slot is another shard's.
    Clear {
        key: Key,
    },
}

/// A member's identity with all that it keeps: its disk, its data. A seat whose disk is lost gets another one.
struct Node {
    id: MemberId,
    name: String,
    seat: Seat,
    /// `None`: no process runs.
    process: Option<Process>,
    disk: Disk,
    data: Data,
    boot: u64,
    clock: Clock,
    paused_until: u64,
    slow_disk_until: u64,
    disk_error_until: u64,
    /// Replication is cut, the council is not.
    data_cut_until: u64,
    /// It hears nothing of the council, and replicates.
    deaf_until: u64,
    known_epoch: u64,
    config_hash: String,
}

/// How shards acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durability {
    Async,
    Majority,
    /// By the in-sync set, of at least so many.
    Set(usize),
}

/// What kind of world this is.
struct Weather {
    durability: Durability,
    /// Data and council outlive their body.
    volumes: bool,
    /// A process that is killed keeps its data, but for the tail.
    persistent: bool,
    fault_every_ms: u64,
    refusals: bool,
    /// Of a hundred: a member does not answer the operator, a step or its answer is lost, the operator
    /// crashes at a step.
    unseen: u64,
    lost: u64,
    crash: u64,
}

/// How far the run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Trouble,
    /// The faults have stopped.
    Settling,
    /// All is whole: every key is read once more.
    Reading {
        next: Key,
    },
    Done,
}

pub(crate) struct World {
    rng: Rng,
    now_us: u64,
    queue: BTreeMap<(u64, u64), Action>,
    queued: u64,
    nodes: Vec<Node>,
    ids: BTreeMap<MemberId, usize>,
    /// Seats that have a body or a disk.
    places: BTreeMap<Seat, Place>,
    clients: Vec<Client>,
    wires: Wires,
    weather: Weather,
    settings: Settings,
    checker: Checker,
    tally: Tally,
    ops: Vec<Op>,
    keys: Vec<String>,
    slots: Vec<u16>,
    history: Vec<Operation>,
    /// Whom readers ask above all, and for which keys: a replica that may know too little.
    watched: Option<(usize, Vec<Key>)>,
    /// What replicas answered.
    stale_reads: Vec<StaleRead>,
    /// The shard epoch under which each write was acknowledged.
    acked_under: BTreeMap<u64, Epoch>,
    /// What became of wishes, by who passed them on.
    answers: BTreeMap<(usize, u64), Result<u64, String>>,
    desired: Desired,
    /// What was wished before the last change.
    former: Option<Desired>,
    /// The account as the API has it, and its version.
    recorded: (Option<Box<Status>>, u64),
    /// The version that this round's look began with.
    seen_version: u64,
    /// The operator has crashed in this round: nothing that it does has an effect any more.
    operator_is_down: bool,
    /// It acts on a look that is older than what happens now, and may take a member away by that.
    operator_is_at_work: bool,
    rounds: u64,
    settled: u32,
    /// What the operator does and waits for.
    said: String,
    /// Members through which it puts wishes.
    via: Vec<usize>,
    /// Machines that bodies are put on, where that is known.
    machines: Option<u64>,
    cut_until: u64,
    /// Until when members die of faults that have begun.
    harm_until: u64,
    reading_since_us: u64,
    serial: u64,
    connections: u64,
    phase: Phase,
    /// The council was lost, and what came of it.
    recovery: Option<Recovery>,
    /// The latest that a member is of, as far as it is not the first one.
    incarnation: u64,
    /// A disk was lost, and not everybody is in sync since.
    is_mending: bool,
    tracing: bool,
    trace: Vec<String>,
}

impl World {
    pub(crate) fn new(seed: u64, tracing: bool) -> Self {
        let mut rng = Rng::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ 0x0057_0121);
        let shards = 1 + rng.below(3) as u16;
        let replicas = rng.below(3) as u16;
        let durability = match rng.below(3) {
            _ if replicas == 0 => Durability::Async,
            0 => Durability::Async,
            1 => Durability::Majority,
            _ => Durability::Set(1 + rng.below(2) as usize),
        };
        let volumes = durability != Durability::Async || replicas == 0 || rng.chance(1, 2);
        let weather = Weather {
            durability,
            volumes,
            persistent: durability != Durability::Async || rng.chance(2, 3),
            fault_every_ms: 300 + rng.below(2_500),
            refusals: rng.chance(1, 2),
            unseen: 5,
            lost: 5,
            crash: 2,
        };
        let wires = Wires::bad(
            [0, 10, 50][rng.below(3) as usize],
            [0, 20][rng.below(2) as usize],
            [2_000, 20_000, 100_000][rng.below(3) as usize],
        );
        let failure_timeout_ms = [500, 1000, 1000, 2000][rng.below(4) as usize];
        let keys = keys();
        let mut world = Self {
            now_us: 0,
            queue: BTreeMap::new(),
            queued: 0,
            nodes: vec![],
            ids: BTreeMap::new(),
            places: BTreeMap::new(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            wires,
            weather,
            settings: Settings::new(failure_timeout_ms),
            checker: Checker::new(failure_timeout_ms),
            tally: Tally::default(),
            ops: vec![Op::Mark],
            slots: keys.iter().map(|key| slot_of(key.as_bytes())).collect(),
            keys,
            history: vec![],
            watched: None,
            stale_reads: vec![],
            acked_under: BTreeMap::new(),
            answers: BTreeMap::new(),
            desired: Desired {
                name: "demo".into(),
                generation: Some(1),
                shards,
                replicas,
                paused: false,
                recovery: None,
                shards_at_once: 1 + rng.below(2) as u16,
                rollout: Rollout {
                    canary_pause: if rng.chance(1, 4) { 3 } else { 0 },
                    ..Rollout::default()
                },
                balance: Balance::default(),
                directives: BTreeMap::from([("maxmemory".to_owned(), "1".to_owned())]),
            },
            former: None,
            recorded: (None, 0),
            seen_version: 0,
            operator_is_down: false,
            operator_is_at_work: false,
            rounds: 0,
            settled: 0,
            said: String::new(),
            via: vec![],
            machines: rng.chance(1, 2).then_some(3),
            cut_until: 0,
            harm_until: 0,
            reading_since_us: 0,
            serial: 0,
            connections: 0,
            phase: Phase::Trouble,
            recovery: None,
            incarnation: 0,
            is_mending: false,
            tracing,
            trace: vec![],
            rng,
        };
        world.note(|w| {
            format!(
                "{} shards of {}, {:?}, volumes {}, failure timeout {failure_timeout_ms} ms",
                shards,
                replicas + 1,
                w.weather.durability,
                w.weather.volumes
            )
        });
        world.at(1_000, Action::Operate);
        world.at(4_000_000, Action::Fault);
        for client in 0..CLIENTS {
            world.at(1_000_000 + client as u64, Action::Client(client));
        }
        world
    }

    /// The world until all is whole again and read, or something is not as it should be.
    pub(crate) fn run(mut self) -> Outcome {
        let mut events = 0;
        let mut settle_max_ms = 0;
        while self.is_well() && self.phase != Phase::Done {
            let Some(((at, _), action)) = self.queue.pop_first() else { break };
            self.now_us = at;
            events += 1;
            self.act(action);
            if self.queue.len() > QUEUE_MAX {
                self.violation("an avalanche of messages".to_owned());
            }
            if self.phase == Phase::Trouble && self.ms() >= TROUBLE_MS {
                self.heal();
            }
            if self.phase == Phase::Settling {
                settle_max_ms = self.ms() - TROUBLE_MS;
            }
            if self.ms() > TROUBLE_MS + SETTLE_MS {
                let missing = self.what_is_missing();
                self.violation(format!("not whole again: {missing}"));
            }
        }
        if self.is_well() {
            self.check_histories();
        }
        let mut tally = self.tally;
        tally.add(&self.checker.tally);
        Outcome {
            seeds: 1,
            violations: self.checker.violations,
            trace: self.trace,
            events,
            rounds: self.rounds,
            tally,
            lost: self.checker.lost.len() as u64,
            settle_max_ms,
        }
    }

    /// Time goes on until something has come about, but not beyond that moment.
    fn pass(&mut self, until_us: u64, is_so: impl Fn(&Self) -> bool) -> bool {
        while self.is_well() {
            if is_so(self) {
                return true;
            }
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= until_us => {}
                _ => {
                    self.now_us = self.now_us.max(until_us);
                    return false;
                }
            }
            if let Some(((at, _), action)) = self.queue.pop_first() {
                self.now_us = at;
                self.act(action);
            }
        }
        false
    }

    fn act(&mut self, action: Action) {
        let target = match &action {
            Action::Tick { node: n, .. } | Action::DiskDone { node: n, .. } => Some(*n),
            Action::Deliver(letter) => letter.member(),
            _ => None,
        };
        if let Some(n) = target {
            let until = self.nodes[n].paused_until;
            if until > self.now_us {
                self.at(until, action);
                return;
            }
        }
        match action {
            Action::Tick { node, boot } => self.tick(node, boot),
            Action::Deliver(letter) => self.deliver(*letter),
            Action::DiskDone { node, boot, batch } => self.disk_done(node, boot, batch),
            Action::Start(n) => self.start(n),
            Action::Crash { node, boot } => {
                if self.nodes[node].boot == boot && self.phase == Phase::Trouble {
                    let down = 50_000 + self.rng.below(3_000_000);
                    self.crash(node, down);
                }
            }
            Action::CrashPrimary { shard, but } => self.crash_primary(shard, but),
            Action::Fault => {
                if self.phase == Phase::Trouble {
                    self.fault();
                    let next = self.rng.below(2 * self.weather.fault_every_ms * 1000);
                    self.after(next, Action::Fault);
                }
            }
            Action::Operate => self.operate(),
            Action::OtherOperates => self.other_operates(),
            Action::Client(client) => self.client_begins(client),
            Action::Impatient { client, attempt } => self.client_gives_up(client, attempt),
            Action::Again { client, attempt } => self.client_again(client, attempt),
        }
    }

    fn is_well(&self) -> bool {
        self.checker.violations.is_empty()
    }

    fn violation(&mut self, what: String) {
        let now_ms = self.ms();
        self.checker.violation(now_ms, what);
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
            println!("{text}");
            self.trace.push(text);
        }
    }

    fn name(&self, n: usize) -> String {
        format!("{}/{}", self.nodes[n].name, &self.nodes[n].id[..4])
    }

    /// The node's own monotonic clock.
    fn clock(&self, n: usize) -> u64 {
        self.nodes[n].clock.ms(self.now_us)
    }

    fn fresh(&mut self, what: &str) -> String {
        self.serial += 1;
        format!("{what}{:06}", self.serial)
    }

    fn shard_of(&self, n: usize) -> Option<ShardId> {
        self.nodes[n].seat.shard()
    }

    /// The newest topology that somebody who is there knows.
    fn newest(&self) -> Option<&Topology> {
        let known =
            self.nodes.iter().filter_map(|n| n.process.as_ref()?.council.lasting_topology());
        known.max_by_key(|t| (t.incarnation, t.epoch)).map(|t| &**t)
    }

    fn quorum(&self) -> bool {
        self.weather.durability != Durability::Async
    }
}

/// One key in each stretch of slots, by trying names.
fn keys() -> Vec<String> {
    let stretch = usize::from(engine::topology::SLOTS) / KEYS;
    let mut found: BTreeMap<usize, String> = BTreeMap::new();
    for number in 0.. {
        if found.len() == KEYS {
            break;
        }
        let key = format!("key:{number}");
        found.entry(usize::from(slot_of(key.as_bytes())) / stretch).or_insert(key);
    }
    found.into_values().collect()
}

fn show(topology: &Topology) -> String {
    let name = |id: &MemberId| {
        let name = topology.members.get(id).map_or("gone", |m| m.name.as_str());
        format!("{name}/{}", &id[..4])
    };
    let mut text = format!("topology {}", topology.epoch);
    for (id, shard) in &topology.shards {
        let primary = shard.primary.as_ref().map_or("nobody".to_owned(), name);
        let in_sync: Vec<_> = shard.in_sync.keys().map(name).collect();
        let slots: u32 = shard.slots.iter().map(|r| u32::from(r.len())).sum();
        text += &format!(
            "; shard {id}: {primary} epoch {} in sync {} slots {slots}",
            shard.epoch,
            in_sync.join(",")
        );
    }
    for m in &topology.moves {
        text += &format!("; move {} from {} to {}", m.id, m.from, m.to);
    }
    let voters: Vec<_> = topology.voters.iter().map(name).collect();
    text + &format!("; voters {}", voters.join(","))
}
