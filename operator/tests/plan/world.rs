//! A world out of its text form.

use std::collections::BTreeMap;

use engine::topology::{self, Lineage, Report, Role, SlotRange, Topology, even_slots};
use operator::desired::{Balance, Desired, Rollout, Seat};
use operator::observed::{Address, Belongs, Body, Disk, Member, Observed, Phase};
use operator::status::Status;
use operator::when::Window;

const NAME: &str = "demo";

/// Words of a line, split at blanks; `key=value` or a bare word.
struct Words<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Self {
        Self(line.split_whitespace().map(|w| w.split_once('=').unwrap_or((w, ""))).collect())
    }
    fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
    fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }
    fn number<T: std::str::FromStr>(&self, key: &str, default: T) -> T {
        self.get(key).map_or(default, |v| v.parse().ok().unwrap())
    }
}

pub(crate) fn parse(text: &str) -> (Desired, Observed) {
    let mut desired = Desired {
        name: NAME.into(),
        generation: Some(1),
        shards: 1,
        replicas: 1,
        paused: false,
        recovery: None,
        shards_at_once: 1,
        rollout: Rollout::default(),
        balance: Balance::default(),
        directives: BTreeMap::from([("maxmemory".to_string(), "1048576".to_string())]),
    };
    let mut observed = Observed {
        now: "2026-01-01T00:00:00Z".into(),
        template: "t1".into(),
        ..Observed::default()
    };
    let mut told = None;
    let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    for line in lines.iter().filter(|l| !l.starts_with('#')) {
        let words = Words::of(line);
        match words.0[0].0 {
            "desired" => read_desired(&words, &mut desired),
            "formed" => {
                observed.past = Some(Box::new(Status {
                    cluster_id: Some("c1".into()),
                    incarnation: Some(words.number("incarnation", 1)),
                    ..Status::default()
                }));
            }
            "now" => observed.now = words.0[1].0.into(),
            "whole" => {
                let since = words.get("since").unwrap().into();
                let past = observed.past.get_or_insert_default();
                past.conditions.push(crds::Condition {
                    type_: "Degraded".into(),
                    status: "False".into(),
                    last_transition_time: since,
                    ..crds::Condition::default()
                });
                let request = words.get("met").map(String::from);
                past.balance = Some(crds::BalanceStatus { request });
            }
            "rollout" => {
                let text = |key: &str| words.get(key).map(String::from);
                let past = observed.past.get_or_insert_default();
                past.observed_generation = Some(words.number("generation", 1));
                past.rollout = Some(crds::RolloutStatus {
                    template: text("template").unwrap_or_else(|| "t1".into()),
                    canary: text("canary"),
                    since: text("since"),
                    ready_since: text("ready-since"),
                    requests_before: words.number("requests-before", 0),
                    faults_before: words.number("faults-before", 0),
                    passed: words.has("passed"),
                    waiting_since: text("waiting-since"),
                    restarts_before: words.number("restarts-before", 0),
                    stopped: text("stopped"),
                });
            }
            "restarting" => {
                let member = words.get("member").unwrap();
                let uid = member.replacen("demo", "uid", 1);
                let uid = words.get("uid").map_or(uid, String::from);
                let past = observed.past.get_or_insert_default();
                past.restarting.push(crds::RestartStatus { member: member.into(), uid });
            }
            "topology" => told = Some(read_topology(&words, &desired)),
            "slots" => {
                let shards = &mut told.as_mut().unwrap().shards;
                let shard = shards.entry(words.number("shard", 0)).or_default();
                shard.slots = read_slots(words.get("of").unwrap());
            }
            "move" => told.as_mut().unwrap().moves.push(topology::Move {
                id: words.number("id", 1),
                slots: read_slots(words.get("of").unwrap()),
                from: words.number("from", 0),
                to: words.number("to", 0),
            }),
            "member" => {
                read_member(words.0[1].0, &words, &desired, &mut told, &mut observed);
            }
            other => panic!("{other} is no fact: {line}"),
        }
    }
    let all_knowing: Vec<Seat> = observed
        .members
        .iter()
        .filter(|(_, m)| m.belongs.as_ref().is_some_and(|b| b.cluster == "c1"))
        .map(|(s, _)| *s)
        .collect();
    // A topology that nobody tells is not observed.
    if !all_knowing.is_empty() {
        observed.topology = told;
    }
    (desired, observed)
}

fn read_desired(words: &Words<'_>, desired: &mut Desired) {
    desired.shards = words.number("shards", 1);
    desired.replicas = words.number("replicas", 1);
    desired.shards_at_once = words.number("at-once", 1);
    desired.paused = words.has("paused");
    desired.recovery = words.get("recovery").map(|r| r.parse().unwrap());
    desired.rollout = Rollout {
        canary_pause: words.number("pause", 0),
        ready_within: words.number("within", 600),
        max_error_rate: words.get("max-error-rate").and_then(crds::quantity::basis_points),
        max_lag: words.get("max-lag").and_then(crds::quantity::bytes),
    };
    desired.balance = Balance {
        automatic: !words.has("manual"),
        window: words.get("window").and_then(|start| Window::new(start, 3_600_000)),
        request: words.get("request").map(String::from),
    };
    for (_, set) in words.0.iter().filter(|(k, _)| *k == "set") {
        let (name, value) = set.split_once(':').unwrap();
        desired.directives.insert(name.into(), value.into());
    }
}

fn read_topology(words: &Words<'_>, desired: &Desired) -> Topology {
    let mut topology = Topology {
        format: topology::FORMAT,
        cluster: "c1".into(),
        incarnation: words.number("incarnation", 1),
        epoch: words.number("epoch", 1),
        ..Topology::default()
    };
    let count = words.number("shards", desired.shards);
    for shard in 0..count {
        let slots = vec![even_slots(shard, count)];
        topology
            .shards
            .insert(shard, topology::Shard { epoch: 1, slots, ..topology::Shard::default() });
    }
    topology
}

/// `0-99,200-299`, or `none`.
fn read_slots(text: &str) -> Vec<SlotRange> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap();
        SlotRange { first: first.parse().unwrap(), last: last.parse().unwrap() }
    };
    text.split(',').filter(|r| *r != "none").map(range).collect()
}

/// `OFFSET`, or `OFFSET/HISTORY`.
fn read_lineage(text: &str) -> Lineage {
    let (offset, replid) = text.split_once('/').unwrap_or((text, "r1"));
    Lineage { replid: replid.into(), offset: offset.parse().unwrap(), ..Lineage::default() }
}

/// `demo-0-1` has the ID `id-0-1`, and `id-0-1-new` when it came back `new`, or has `rejoined` as such.
fn read_member(
    name: &str,
    words: &Words<'_>,
    desired: &Desired,
    told: &mut Option<Topology>,
    observed: &mut Observed,
) {
    let seat = Seat::parse(NAME, name).unwrap();
    let old_id = format!("id-{seat}");
    let id = if words.has("new") || words.has("rejoined") {
        format!("id-{seat}-new")
    } else {
        old_id.clone()
    };
    let index = 100 * seat.shard().map_or(90, |s| s + 1) + seat.index();
    let port = 7000 + index;
    let mut member = Member {
        address: Address { host: name.into(), port, tls_port: 0, bus_port: port + 10_000 },
        ..Member::default()
    };
    let is = |word: &str| words.has(word);
    let primary = is("primary");
    let outside = is("outside") || is("pending");
    if let Some(topology) = told.as_mut().filter(|_| !outside) {
        let moved = if is("moved") { "elsewhere" } else { name };
        let entry = topology::Member {
            id: if is("rejoined") { id.clone() } else { old_id.clone() },
            name: name.into(),
            host: moved.into(),
            port,
            tls_port: 0,
            bus_port: port + 10_000,
            shard: seat.shard(),
            node: words.get("node").map(String::from),
            zone: words.get("zone").map(String::from),
        };
        let entry_id = entry.id.clone();
        topology.members.insert(entry.id.clone(), entry);
        if topology.voters.len() < 5 && !is("voteless") {
            topology.voters.insert(old_id.clone());
        }
        // A shard is known by its members, also before it owns slots.
        if let Some(shard) = seat.shard().map(|shard| topology.shards.entry(shard).or_default()) {
            if primary {
                shard.primary = Some(old_id.clone());
            }
            if !is("syncing") && !is("uncounted") {
                shard.in_sync.insert(entry_id, String::new());
            }
        }
    }
    if is("disk") || is("lost-with-disk") || is("disk-lost") {
        let (fresh, lost) = (is("fresh"), is("disk-lost"));
        member.disk = Some(Disk { uid: format!("disk-{seat}"), fresh, lost, ..Disk::default() });
    }
    if !is("lost") && !is("lost-with-disk") && !is("disk-only") {
        let phase = match () {
            () if is("pending") || is("disk-lost") => Phase::Pending,
            () if is("stopping") => Phase::Stopping,
            () if is("ended") => Phase::Ended,
            () if is("node-lost") => Phase::Lost,
            () => Phase::Running,
        };
        member.body = Some(Body {
            uid: format!("uid-{seat}"),
            version: String::new(),
            phase,
            started: phase != Phase::Pending,
            outdated: is("outdated"),
            stuck: words.get("stuck").map(|s| s.replace('_', " ")),
            node: words.get("node").map(String::from),
            zone: words.get("zone").map(String::from),
            restarts: words.number("restarts", 0),
            draining: is("draining"),
        });
        let silent = ["unseen", "pending", "disk-lost", "stopping", "ended", "node-lost", "stuck"];
        if !silent.iter().any(|w| is(w)) {
            let knows = told.is_some() && !outside && !is("new");
            let role = match seat {
                _ if !knows => Role::None,
                Seat::Witness { .. } => Role::Witness,
                Seat::Data { .. } if primary => Role::Primary,
                Seat::Data { .. } => Role::Replica,
            };
            let config_hash =
                if is("reconfigured-not") { "old".into() } else { desired.live_hash() };
            member.report = Some(Report {
                id,
                name: name.into(),
                role,
                in_sync: role == Role::Replica && !is("syncing"),
                lease_is_over: is("leaseless"),
                config_hash,
                lineage: words.get("offset").map(read_lineage),
                requests: words.number("requests", 0),
                faults: words.number("faults", 0),
                used_memory: words.number("used", 0),
                maxmemory: words.number("maxmemory", 0),
                config_error: words.get("refuses").map(|s| s.replace('_', " ")),
                ..Report::default()
            });
            let cluster = if is("stranger") { "c0" } else { "c1" };
            let told = told.as_ref().filter(|_| !is("former"));
            let (incarnation, epoch) = told.map_or((1, 1), |t| (t.incarnation, t.epoch));
            let leader = is("hears-leader").then(|| old_id.clone());
            let belongs = Belongs { cluster: cluster.into(), incarnation, epoch, leader };
            member.belongs = (knows || is("stranger")).then_some(belongs);
        }
    }
    if member.body.is_some() || member.disk.is_some() {
        observed.members.insert(seat, member);
    }
}
