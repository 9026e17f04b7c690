//! Slots that move between real managed servers while clients write: no request fails for a client that follows
//! redirections, no effect is lost or made twice, and whoever is killed on the way, the slots have one owner
//! that has every key.
#![expect(clippy::unwrap_used, reason = "a test")]

mod managed;
mod processes;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::bus::client::ask;
use engine::bus::tls::Tls;
use engine::bus::{Answer, Ask};
use engine::topology::{Change, Member, SlotRange, Topology, even_slots, slot_of};
use managed::Ca;
use processes::{Client, Server, free_port};

const LIMIT: Duration = Duration::from_secs(30);
/// What moves: the first half of the first shard's slots.
const MOVING: SlotRange = SlotRange { first: 0, last: 4095 };

struct Node {
    member: Member,
    args: Vec<String>,
    dir: PathBuf,
    server: Server,
}

impl Node {
    fn spawn(args: &[String], dir: &std::path::Path, port: u16) -> Server {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Server::spawn(env!("CARGO_BIN_EXE_larder-server"), port, dir, &args)
    }

    fn restart(&mut self) {
        self.server.kill();
        self.server = Node::spawn(&self.args, &self.dir, self.member.port);
    }
}

/// Two shards that own slots and a third that owns none, one member each.
struct Cluster {
    dir: tempfile::TempDir,
    operator: Tls,
    runtime: tokio::runtime::Runtime,
    nodes: Vec<Node>,
}

impl Cluster {
    fn form(shards: u16) -> Cluster {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let tls = ca.write(dir.path(), "member");
        let operator = Tls::from_dir(&ca.write(dir.path(), "operator")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut cluster = Cluster { dir, operator, runtime, nodes: Vec::new() };
        for shard in 0..shards {
            cluster.start(shard, &tls);
        }
        let me = cluster.nodes[0].member.clone();
        let slots = vec![even_slots(0, 2), even_slots(1, 2)];
        cluster.done(0, Ask::Form { incarnation: 1, me, shards: slots });
        for n in 1..cluster.nodes.len() {
            let me = cluster.nodes[n].member.clone();
            let topology = cluster.topology(0).unwrap();
            cluster.done(n, Ask::Adopt { topology, me: me.clone() });
            cluster.wish(Change::Join(me));
        }
        cluster.until("every shard has a primary that serves", |c| {
            (0..c.nodes.len()).all(|n| c.ready(n))
        });
        cluster
    }

    fn start(&mut self, shard: u16, tls: &std::path::Path) {
        let (port, bus_port) = (free_port(), free_port());
        let name = format!("demo-{shard}-0");
        let dir = self.dir.path().join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let args = format!(
            "--bind 127.0.0.1 --cluster-enabled yes --larder-managed yes --larder-name {name} \
             --larder-host 127.0.0.1 --larder-bus-port {bus_port} --appendonly yes --appendfsync \
             always --io-threads 2 --larder-tls-dir {}",
            tls.display()
        );
        let args: Vec<String> = args.split(' ').map(str::to_string).collect();
        let server = Node::spawn(&args, &dir, port);
        let member = Member {
            id: String::new(),
            name,
            host: "127.0.0.1".into(),
            port,
            bus_port,
            shard: Some(shard),
            node: None,
            zone: None,
        };
        self.nodes.push(Node { member, args, dir, server });
        let n = self.nodes.len() - 1;
        self.until("the first report", |c| c.try_ask(n, Ask::Report).is_some());
        if let Some(Answer::Report { report, .. }) = self.try_ask(n, Ask::Report) {
            self.nodes[n].member.id = report.id;
        }
    }

    fn try_ask(&self, n: usize, question: Ask) -> Option<Answer> {
        let addr = format!("127.0.0.1:{}", self.nodes[n].member.bus_port);
        self.runtime.block_on(ask(&addr, &self.operator, question, LIMIT)).ok()
    }

    fn done(&self, n: usize, question: Ask) {
        let answer = self.try_ask(n, question).unwrap();
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    }

    /// Puts a change to whoever answers, until it is taken.
    fn wish(&self, change: Change) {
        self.until("the council takes a change", |c| {
            (0..c.nodes.len()).any(|n| {
                let wish = Ask::Wish { change: change.clone(), expected_epoch: None };
                matches!(c.try_ask(n, wish), Some(Answer::Done { .. }))
            })
        });
    }

    fn topology(&self, n: usize) -> Option<Topology> {
        match self.try_ask(n, Ask::Report)? {
            Answer::Report { topology, .. } => topology.map(|t| *t),
            _ => None,
        }
    }

    /// The member's shard has it as primary, with its lease.
    fn ready(&self, n: usize) -> bool {
        let member = &self.nodes[n].member;
        let Some(topology) = self.topology(n) else { return false };
        let shard = &topology.shards[&member.shard.unwrap()];
        let serves = || {
            let mut client = Client::try_connect(member.port).ok()?;
            let info = client.try_call(&["ROLE"]).ok()?;
            Some(info.starts_with("master"))
        };
        topology.members.len() == self.nodes.len()
            && topology.voters.len() == self.nodes.len()
            && shard.primary.as_ref() == Some(&member.id)
            && serves() == Some(true)
    }

    fn until(&self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        for _ in 0..3000 {
            if is_so(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("never came about: {what}");
    }

    fn begin_move(&self, from: u16, to: u16) {
        self.wish(Change::Move { slots: vec![MOVING], from, to });
    }

    fn until_owned_by(&self, shard: u16) {
        self.until(&format!("shard {shard} owns the slots"), |c| {
            (0..c.nodes.len()).all(|n| {
                c.topology(n)
                    .is_some_and(|t| t.owner_of(&MOVING) == Some(shard) && t.moves.is_empty())
            })
        });
    }

    fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|n| n.member.port).collect()
    }
}

/// A client that follows redirections, and nothing else.
struct Follower {
    ports: Vec<u16>,
    clients: BTreeMap<u16, Client>,
    owners: BTreeMap<u16, u16>,
}

impl Follower {
    fn new(ports: Vec<u16>) -> Follower {
        Follower { ports, clients: BTreeMap::new(), owners: BTreeMap::new() }
    }

    /// A reply, or an error of the connection; at most four redirections.
    fn call(&mut self, key: &str, args: &[&str]) -> std::io::Result<String> {
        let slot = slot_of(key.as_bytes());
        let mut port = self.owners.get(&slot).copied().unwrap_or(self.ports[0]);
        for _ in 0..5 {
            let mut client = match self.clients.remove(&port) {
                Some(client) => client,
                None => Client::try_connect(port)?,
            };
            let reply = client.try_call(args)?;
            self.clients.insert(port, client);
            match reply.strip_prefix("-MOVED ") {
                Some(to) => port = to.rsplit(':').next().unwrap().parse().unwrap(),
                None => {
                    self.owners.insert(slot, port);
                    return Ok(reply);
                }
            }
        }
        Err(std::io::Error::other("redirected too often"))
    }
}

/// What was acknowledged per key, and what went wrong.
type Written = (BTreeMap<String, u64>, Vec<String>);

/// Writers of counters and lists in the moving slots and elsewhere.
struct Writers {
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<Written>>,
}

impl Writers {
    fn start(ports: &[u16], patient: bool) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..4)
            .map(|t| {
                let (stop, ports) = (stop.clone(), ports.to_vec());
                std::thread::spawn(move || write(&stop, ports, t, patient))
            })
            .collect();
        Writers { stop, threads }
    }

    fn stop(self) -> Written {
        self.stop.store(true, Ordering::Release);
        let mut all = (BTreeMap::new(), Vec::new());
        for thread in self.threads {
            let (acked, failures) = thread.join().unwrap();
            all.0.extend(acked);
            all.1.extend(failures);
        }
        all
    }
}

/// `patient`: who is refused or cut off tries again after a while.
fn write(stop: &AtomicBool, ports: Vec<u16>, thread: usize, patient: bool) -> Written {
    let mut client = Follower::new(ports);
    let mut acked: BTreeMap<String, u64> = BTreeMap::new();
    let mut failures = Vec::new();
    for round in 0u64.. {
        if stop.load(Ordering::Acquire) {
            break;
        }
        let key = format!("count:{thread}:{}", round % 300);
        match client.call(&key, &["INCR", &key]) {
            Ok(reply) if !reply.starts_with('-') => {
                acked.insert(key, reply.parse().unwrap());
            }
            Ok(reply) => failures.push(format!("{key}: {reply}")),
            Err(error) => failures.push(format!("{key}: {error}")),
        }
        if !failures.is_empty() && patient {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    (acked, failures)
}

fn fill(client: &mut Follower) {
    for i in 0..3000 {
        let key = format!("fill:{i}");
        let value = format!("value-{i}");
        assert_eq!(client.call(&key, &["SET", &key, &value]).unwrap(), "OK");
    }
    for i in 0..200 {
        let (list, hash) = (format!("list:{i}"), format!("hash:{i}"));
        client.call(&list, &["RPUSH", &list, "a", "b", "c"]).unwrap();
        client.call(&hash, &["HSET", &hash, "f", "1", "g", "2"]).unwrap();
        let key = format!("ttl:{i}");
        client.call(&key, &["SET", &key, "v", "EX", "1000"]).unwrap();
    }
}

fn check_fill(client: &mut Follower) {
    for i in 0..3000 {
        let key = format!("fill:{i}");
        assert_eq!(client.call(&key, &["GET", &key]).unwrap(), format!("value-{i}"), "{key}");
    }
    for i in 0..200 {
        let (list, hash) = (format!("list:{i}"), format!("hash:{i}"));
        assert_eq!(client.call(&list, &["LRANGE", &list, "0", "-1"]).unwrap(), "a b c");
        assert_eq!(client.call(&hash, &["HGET", &hash, "g"]).unwrap(), "2");
        let key = format!("ttl:{i}");
        let ttl: i64 = client.call(&key, &["TTL", &key]).unwrap().parse().unwrap();
        assert!((800..=1000).contains(&ttl), "{key}: {ttl}");
    }
}

#[test]
fn slots_move_to_and_fro_under_load_and_no_request_fails() {
    let cluster = Cluster::form(3);
    let mut client = Follower::new(cluster.ports());
    fill(&mut client);
    let writers = Writers::start(&cluster.ports(), false);
    let mut from = 0;
    for to in [2, 1, 2, 0] {
        cluster.begin_move(from, to);
        cluster.until_owned_by(to);
        from = to;
    }
    let (acked, failures) = writers.stop();
    assert!(
        failures.is_empty(),
        "{} failed: {:?}",
        failures.len(),
        &failures[..failures.len().min(5)]
    );
    let counters = acked.len() as u64;
    assert!(counters > 0);
    for (key, count) in acked {
        let now = client.call(&key, &["GET", &key]).unwrap();
        assert_eq!(now, count.to_string(), "{key}");
    }
    check_fill(&mut client);
    // Nothing is left where it was: every key is in one place.
    cluster.until("the left-overs are swept", |c| {
        let sizes = c.ports().into_iter().map(|port| {
            let mut client = Client::try_connect(port).unwrap();
            client.call(&["DBSIZE"]).parse::<u64>().unwrap()
        });
        sizes.sum::<u64>() == 3000 + 600 + counters
    });
}

#[test]
fn a_blocked_client_is_sent_on_when_its_slot_moves() {
    let cluster = Cluster::form(3);
    let key = (0..)
        .map(|i| format!("queue:{i}"))
        .find(|k| MOVING.contains(slot_of(k.as_bytes())))
        .unwrap();
    let mut blocked = Client::try_connect(cluster.ports()[0]).unwrap();
    blocked.send(&["BLPOP", &key, "0"]).unwrap();
    let mut other = Client::try_connect(cluster.ports()[0]).unwrap();
    other.until_info("blocked_clients", "1");
    cluster.begin_move(0, 2);
    cluster.until_owned_by(2);
    let reply = blocked.reply().unwrap();
    assert!(
        reply.starts_with("-MOVED ") && reply.ends_with(&cluster.ports()[2].to_string()),
        "{reply}"
    );
}

#[test]
fn whoever_is_killed_on_the_way_the_slots_have_one_owner_with_every_key() {
    let mut cluster = Cluster::form(3);
    let mut client = Follower::new(cluster.ports());
    fill(&mut client);
    let writers = Writers::start(&cluster.ports(), true);
    let mut from = 0;
    for (round, to) in [2u16, 0, 2, 0].into_iter().enumerate() {
        cluster.begin_move(from, to);
        // Source, target, and at different moments of the move.
        let victim = if round % 2 == 0 { from } else { to };
        std::thread::sleep(Duration::from_millis(10 * round as u64 + 3));
        cluster.nodes[victim as usize].restart();
        cluster.until_owned_by(to);
        from = to;
    }
    let (acked, _) = writers.stop();
    cluster.until("all serve", |c| (0..3).all(|n| c.ready(n)));
    let mut client = Follower::new(cluster.ports());
    let mut ahead = 0;
    for (key, count) in acked {
        let now: u64 = client.call(&key, &["GET", &key]).unwrap().parse().unwrap();
        // A write whose reply was cut off may have been made.
        assert!(now >= count, "{key}: {now} of {count} acknowledged");
        ahead += now - count;
    }
    assert!(ahead <= 4 * 4 * 2, "{ahead} made and not acknowledged: more than were under way");
    check_fill(&mut client);
}
