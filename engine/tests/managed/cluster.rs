//! Real managed servers that form a cluster, driven through their buses, and a client that follows them.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use engine::bus::client::ask;
use engine::bus::tls::Tls;
use engine::bus::{Answer, Ask};
use engine::topology::{Change, Member, Role, Topology, even_slots, slot_of};

use crate::managed::Ca;
use crate::processes::{Client, Server, free_port};

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Node {
    pub(crate) member: Member,
    args: Vec<String>,
    pub(crate) dir: PathBuf,
    pub(crate) server: Server,
}

impl Node {
    pub(crate) fn spawn(args: &[String], dir: &std::path::Path, port: u16) -> Server {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        Server::spawn(env!("CARGO_BIN_EXE_larder-server"), port, dir, &args)
    }

    /// The port that a setting of `form` names.
    pub(crate) fn port_of(&self, setting: &str) -> u16 {
        let at = self.args.iter().position(|arg| arg == setting).unwrap();
        self.args[at + 1].parse().unwrap()
    }

    pub(crate) fn restart(&mut self) {
        self.server.kill();
        self.server = Node::spawn(&self.args, &self.dir, self.member.port);
    }
}

/// Some members of some shards.
pub(crate) struct Cluster {
    dir: tempfile::TempDir,
    operator: Tls,
    runtime: tokio::runtime::Runtime,
    pub(crate) nodes: Vec<Node>,
}

/// How much is told of each log when a test fails.
const LAST_LINES: usize = 30;

impl Cluster {
    /// Members of these shards, in order; the first `owning` shards own the slots. `extra`: further settings, `{dir}` in
    /// them for each member's own folder, `{port}` for a port of its own.
    pub(crate) fn form(shards: &[u16], owning: u16, extra: &[&str]) -> Cluster {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        let tls = ca.write(dir.path(), "member");
        let operator = Tls::from_dir(&ca.write(dir.path(), "operator")).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut cluster = Cluster { dir, operator, runtime, nodes: Vec::new() };
        for shard in shards {
            cluster.start(*shard, &tls, extra);
        }
        let me = cluster.nodes[0].member.clone();
        let slots = (0..owning).map(|shard| even_slots(shard, owning)).collect();
        cluster.done(0, Ask::Form { incarnation: 1, me, shards: slots });
        for n in 1..cluster.nodes.len() {
            let me = cluster.nodes[n].member.clone();
            let topology = cluster.topology(0).unwrap();
            cluster.done(n, Ask::Adopt { topology, me: me.clone() });
            cluster.wish(Change::Join(me));
        }
        cluster.until("everybody serves", |c| (0..c.nodes.len()).all(|n| c.ready(n)));
        cluster
    }

    pub(crate) fn start(&mut self, shard: u16, tls: &std::path::Path, extra: &[&str]) {
        let (port, bus_port) = (free_port(), free_port());
        let before = self.nodes.iter().filter(|n| n.member.shard == Some(shard)).count();
        let name = format!("demo-{shard}-{before}");
        let dir = self.dir.path().join(&name);
        std::fs::create_dir_all(&dir).unwrap();
        let args = format!(
            "--bind 127.0.0.1 --cluster-enabled yes --larder-managed yes --larder-name {name} \
             --larder-host 127.0.0.1 --larder-bus-port {bus_port} --appendonly yes --appendfsync \
             always --io-threads 2 --larder-tls-dir {}",
            tls.display()
        );
        let own = |s: &&str| match *s {
            "{port}" => free_port().to_string(),
            other => other.replace("{dir}", &dir.to_string_lossy()),
        };
        let extra = extra.iter().map(own);
        let args: Vec<String> = args.split(' ').map(str::to_string).chain(extra).collect();
        let server = Node::spawn(&args, &dir, port);
        let member = Member {
            id: String::new(),
            name,
            host: "127.0.0.1".into(),
            port,
            tls_port: 0,
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

    pub(crate) fn try_ask(&self, n: usize, question: Ask) -> Option<Answer> {
        let addr = format!("127.0.0.1:{}", self.nodes[n].member.bus_port);
        self.runtime.block_on(ask(&addr, &self.operator, question, LIMIT)).ok()
    }

    pub(crate) fn done(&self, n: usize, question: Ask) {
        let answer = self.try_ask(n, question).unwrap();
        assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    }

    /// Puts a change to whoever answers, until it is taken.
    pub(crate) fn wish(&self, change: Change) {
        self.until("the council takes a change", |c| {
            (0..c.nodes.len()).any(|n| {
                let wish = Ask::Wish { change: change.clone(), expected_epoch: None };
                matches!(c.try_ask(n, wish), Some(Answer::Done { .. }))
            })
        });
    }

    pub(crate) fn topology(&self, n: usize) -> Option<Topology> {
        match self.try_ask(n, Ask::Report)? {
            Answer::Report { topology, .. } => topology.map(|t| *t),
            _ => None,
        }
    }

    /// The member serves: as primary, or as a replica in sync.
    pub(crate) fn ready(&self, n: usize) -> bool {
        let member = &self.nodes[n].member;
        let Some(Answer::Report { report, topology: Some(topology), .. }) =
            self.try_ask(n, Ask::Report)
        else {
            return false;
        };
        let shard = &topology.shards[&member.shard.unwrap()];
        let as_primary = shard.primary.as_ref() == Some(&member.id);
        topology.members.len() == self.nodes.len()
            && topology.voters.len() == [1, 1, 1, 3, 3, 5][self.nodes.len().min(5)]
            && report.role == if as_primary { Role::Primary } else { Role::Replica }
            && shard.counts_on(&member.id, &report.boot)
    }

    /// The member that is primary of a shard, as far as the others know.
    pub(crate) fn primary_of(&self, shard: u16) -> Option<usize> {
        let topology =
            (0..self.nodes.len()).filter_map(|n| self.topology(n)).max_by_key(|t| t.epoch)?;
        let id = topology.shards.get(&shard)?.primary.clone()?;
        self.nodes.iter().position(|n| n.member.id == id)
    }

    /// Has another member of the shard take over in good order, and waits until it has.
    pub(crate) fn hand_over(&self, shard: u16) {
        let is_next = |n: &usize| {
            self.nodes[*n].member.shard == Some(shard) && self.primary_of(shard) != Some(*n)
        };
        let next = (0..self.nodes.len()).find(is_next).unwrap();
        // It is answered before it is decided, and may be called off.
        self.until("the other one is primary", |c| {
            Client::try_connect(c.ports()[next]).unwrap().call(&["CLUSTER", "FAILOVER"]);
            c.primary_of(shard) == Some(next)
        });
    }

    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Cluster) -> bool) {
        for _ in 0..3000 {
            if is_so(self) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.tell();
        panic!("never came about: {what}");
    }

    /// What each member knows, and the last that it has logged: for whoever looks why a test failed.
    fn tell(&self) {
        for (n, node) in self.nodes.iter().enumerate() {
            let (name, id) = (&node.member.name, &node.member.id);
            match self.try_ask(n, Ask::Report) {
                Some(Answer::Report { report, topology: Some(t), .. }) => println!(
                    "{name} {id} {:?} in_sync={} held={}: epoch {} voters {:?} {:?}",
                    report.role, report.in_sync, report.held_epoch, t.epoch, t.voters, t.shards
                ),
                other => println!("{name} {id}: {other:?}"),
            }
            let log = node.dir.join(format!("{}.log", node.member.port));
            let text = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                println!("    {line}");
            }
        }
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|n| n.member.port).collect()
    }
}

/// A client that follows redirections, and nothing else.
pub(crate) struct Follower {
    ports: Vec<u16>,
    clients: BTreeMap<u16, Client>,
    owners: BTreeMap<u16, u16>,
}

impl Follower {
    pub(crate) fn new(ports: Vec<u16>) -> Follower {
        Follower { ports, clients: BTreeMap::new(), owners: BTreeMap::new() }
    }

    /// A reply, or an error of the connection; at most four redirections.
    pub(crate) fn call(&mut self, key: &str, args: &[&str]) -> std::io::Result<String> {
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
