//! Managed members over loopback: real time, real TLS, real files; the data engine is a stand-in.
#![expect(clippy::unwrap_used, reason = "a test")]

mod managed;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use engine::bus::client::ask;
use engine::bus::tls::Tls;
use engine::bus::{Answer, Ask};
use engine::clock::monotonic_ms;
use engine::member::{Local, Managed, Options, Transport};
use engine::topology::{Change, Lineage, Member, MemberId, Report, Role, Topology, even_slots};
use managed::Ca;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const LIMIT: Duration = Duration::from_secs(30);

/// The data of one shard, as all its members would have it.
#[derive(Default)]
struct Journal {
    epoch: u64,
    offset: u64,
}

#[derive(Default)]
struct Engine {
    name: String,
    journal: Arc<Mutex<Journal>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    role: Role,
    lease: (u64, u64),
    held: u64,
    follows: Option<(String, u16)>,
    topology: Option<Arc<Topology>>,
    has_data: bool,
    set: Vec<(String, String)>,
}

impl Engine {
    fn acknowledges(&self) -> bool {
        let state = self.state.lock().unwrap();
        let executes = state.held != state.lease.0;
        state.role == Role::Primary && executes && monotonic_ms() < state.lease.1
    }
}

impl Local for Engine {
    fn report(&self) -> Report {
        let mut state = self.state.lock().unwrap();
        let mut journal = self.journal.lock().unwrap();
        let executes = state.held != state.lease.0;
        if state.role == Role::Primary && executes && monotonic_ms() < state.lease.1 {
            journal.epoch = state.lease.0;
            journal.offset += 1;
        }
        state.has_data |= state.role != Role::None && journal.offset > 0;
        let lineage = state.topology.as_ref().filter(|_| state.has_data).map(|t| Lineage {
            cluster: t.cluster.clone(),
            incarnation: t.incarnation,
            shard: 0,
            epoch: journal.epoch,
            replid: String::new(),
            offset: journal.offset,
        });
        let (role, in_sync) = (state.role, state.role == Role::Replica);
        let held_epoch = state.held;
        Report { name: self.name.clone(), role, in_sync, lineage, held_epoch, ..Report::default() }
    }
    fn topology_changed(&self, topology: &Arc<Topology>) {
        self.state.lock().unwrap().topology = Some(topology.clone());
    }
    fn lease(&self, shard_epoch: u64, until_ms: u64) {
        let mut state = self.state.lock().unwrap();
        state.lease = (shard_epoch, until_ms);
        state.held = 0;
    }
    fn hold(&self, shard_epoch: u64) {
        self.state.lock().unwrap().held = shard_epoch;
    }
    fn become_primary(&self, _: u64) {
        self.state.lock().unwrap().role = Role::Primary;
    }
    fn become_replica(&self, host: &str, port: u16, _: u16, _: u64) {
        let mut state = self.state.lock().unwrap();
        state.role = Role::Replica;
        state.follows = Some((host.to_owned(), port));
    }
    fn become_idle(&self) {
        self.state.lock().unwrap().role = Role::None;
    }
    fn configure(&self, _: &str, directives: &[(String, String)]) -> Vec<(String, String)> {
        self.state.lock().unwrap().set = directives.to_vec();
        let refused = directives.iter().filter(|(name, _)| name == "bad");
        refused.map(|(name, _)| (name.clone(), "no such directive".to_owned())).collect()
    }
    fn shutdown(&self) {}
}

struct Running {
    member: Member,
    engine: Arc<Engine>,
    dir: PathBuf,
    task: JoinHandle<()>,
}

struct Cluster {
    dir: tempfile::TempDir,
    ca: Ca,
    operator: Tls,
    journal: Arc<Mutex<Journal>>,
    running: Vec<Running>,
}

impl Cluster {
    fn new() -> Self {
        let (dir, ca) = (tempfile::tempdir().unwrap(), Ca::new());
        ca.write(dir.path(), "member");
        let operator = Tls::from_dir(&ca.write(dir.path(), "operator")).unwrap();
        Self { dir, ca, operator, journal: Arc::default(), running: vec![] }
    }

    async fn start(&self, name: &str, bus_addr: SocketAddr) -> Running {
        let dir = self.dir.path().join(name);
        let options = Options {
            dir: dir.clone(),
            bus_addr,
            over: Transport::Tls(self.dir.path().join("member")),
            failure_timeout_ms: 1000,
            unmanaged: None,
        };
        let managed = Managed::open(options).await.unwrap();
        let member = Member {
            id: managed.id().clone(),
            name: name.to_owned(),
            host: "127.0.0.1".into(),
            port: 1,
            tls_port: 0,
            bus_port: managed.bus_addr().unwrap().port(),
            shard: Some(0),
            node: None,
            zone: None,
        };
        let journal = self.journal.clone();
        let engine = Arc::new(Engine { name: name.to_owned(), journal, state: Mutex::default() });
        let local = engine.clone();
        let task = tokio::spawn(async move { managed.run(local).await.unwrap() });
        Running { member, engine, dir, task }
    }

    async fn ask(&self, n: usize, question: Ask) -> Answer {
        let addr = format!("127.0.0.1:{}", self.running[n].member.bus_port);
        ask(&addr, &self.operator, question, LIMIT).await.unwrap()
    }

    async fn topology(&self, n: usize) -> Option<Topology> {
        match self.ask(n, Ask::Report).await {
            Answer::Report { topology, .. } => topology.map(|t| *t),
            other => panic!("{other:?}"),
        }
    }

    /// Forms a cluster of `count` members, one shard.
    async fn form(count: usize) -> Self {
        let mut cluster = Self::new();
        for n in 0..count {
            let any = "127.0.0.1:0".parse().unwrap();
            let running = cluster.start(&format!("demo-0-{n}"), any).await;
            cluster.running.push(running);
        }
        let me = cluster.running[0].member.clone();
        let form = Ask::Form { incarnation: 1, me, shards: vec![even_slots(0, 1)] };
        assert!(matches!(cluster.ask(0, form).await, Answer::Done { .. }));
        for n in 1..count {
            let me = cluster.running[n].member.clone();
            let topology = cluster.topology(0).await.unwrap();
            let adopt = Ask::Adopt { topology, me: me.clone() };
            assert!(matches!(cluster.ask(n, adopt).await, Answer::Done { .. }));
            let join = Ask::Wish { change: Change::Join(me), expected_epoch: None };
            let answer = cluster.ask(0, join).await;
            assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
        }
        cluster
    }

    fn primary(&self) -> Option<usize> {
        let found: Vec<usize> = (0..self.running.len())
            .filter(|n| !self.running[*n].task.is_finished())
            .filter(|n| self.running[*n].engine.acknowledges())
            .collect();
        assert!(found.len() <= 1, "two members acknowledge: {found:?}");
        found.first().copied()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let wait = async {
            while !is_so(self) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("never came about: {what}"));
    }

    async fn until_settled(&self, in_sync: usize) {
        let is_settled = |c: &Self| {
            let all: Vec<&Running> = c.running.iter().filter(|r| !r.task.is_finished()).collect();
            c.primary().is_some()
                && all.iter().all(|r| {
                    let state = r.engine.state.lock().unwrap();
                    state.topology.as_ref().is_some_and(|t| {
                        t.shards[&0].in_sync.len() == in_sync && t.voters.len() == in_sync
                    })
                })
        };
        self.until("everybody in sync", is_settled).await;
    }

    /// As `kill -9` would: nothing more is sent or written.
    async fn kill(&mut self, n: usize) -> MemberId {
        self.running[n].task.abort();
        let _ = (&mut self.running[n].task).await;
        self.running[n].engine.state.lock().unwrap().role = Role::None;
        self.running[n].member.id.clone()
    }
}

#[tokio::test]
async fn a_killed_primary_is_replaced_and_follows_when_it_is_back() {
    let mut cluster = Cluster::form(3).await;
    cluster.until_settled(3).await;
    let old = cluster.primary().unwrap();
    let id = cluster.kill(old).await;
    cluster.until("another primary", |c| c.primary().is_some_and(|n| n != old)).await;

    let addr = SocketAddr::from(([127, 0, 0, 1], cluster.running[old].member.bus_port));
    let name = cluster.running[old].member.name.clone();
    let back = cluster.start(&name, addr).await;
    assert_eq!(back.member.id, id, "the ID is kept in {}", back.dir.display());
    cluster.running[old] = back;
    cluster.until_settled(3).await;
    assert_ne!(cluster.primary(), Some(old));
    let is_replica =
        |c: &Cluster| c.running[old].engine.state.lock().unwrap().role == Role::Replica;
    cluster.until("the old primary follows", is_replica).await;
    let topology = cluster.topology(old).await.unwrap();
    assert_eq!(topology.failovers.last().unwrap().from.as_ref(), Some(&id));
}

#[tokio::test]
async fn a_wish_for_another_primary_is_a_handover() {
    let cluster = Cluster::form(3).await;
    cluster.until_settled(3).await;
    let old = cluster.primary().unwrap();
    let new = (old + 1) % 3;
    let topology = cluster.topology(old).await.unwrap();
    let to = cluster.running[new].member.id.clone();
    let change = Change::handover(0, to, topology.shards[&0].epoch);
    // Put to any member: it finds the leader.
    let answer = cluster.ask(2, Ask::Wish { change, expected_epoch: None }).await;
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    cluster.until("the handover", |c| c.primary() == Some(new)).await;
}

#[tokio::test]
async fn all_members_restarted_serve_again_with_the_same_members() {
    let mut cluster = Cluster::form(3).await;
    cluster.until_settled(3).await;
    let before = cluster.topology(0).await.unwrap();
    for n in 0..3 {
        cluster.kill(n).await;
    }
    for n in 0..3 {
        let name = cluster.running[n].member.name.clone();
        let addr = SocketAddr::from(([127, 0, 0, 1], cluster.running[n].member.bus_port));
        let again = cluster.start(&name, addr).await;
        again.engine.state.lock().unwrap().has_data = true;
        cluster.running[n] = again;
    }
    cluster.until_settled(3).await;
    let after = cluster.topology(0).await.unwrap();
    assert_eq!(after.cluster, before.cluster);
    assert_eq!(after.members, before.members);
    assert!(after.shards[&0].epoch > before.shards[&0].epoch);
}

#[tokio::test]
async fn the_certificate_decides_what_may_be_said() {
    let cluster = Cluster::form(1).await;
    let addr = format!("127.0.0.1:{}", cluster.running[0].member.bus_port);
    let as_member = Tls::from_dir(&cluster.dir.path().join("member")).unwrap();
    assert!(ask(&addr, &as_member, Ask::Report, LIMIT).await.is_err(), "a member may not ask");

    let strangers = tempfile::tempdir().unwrap();
    let stranger = Tls::from_dir(&Ca::new().write(strangers.path(), "operator")).unwrap();
    assert!(ask(&addr, &stranger, Ask::Report, LIMIT).await.is_err(), "another CA's operator");
    let guest = Tls::from_dir(&cluster.ca.write(strangers.path(), "guest")).unwrap();
    assert!(ask(&addr, &guest, Ask::Report, LIMIT).await.is_err(), "a certificate of no role");

    let directives = vec![("bad".to_owned(), "1".to_owned())];
    let configure = Ask::Configure { hash: "h".into(), directives, reset: Vec::new() };
    let answer = cluster.ask(0, configure).await;
    assert!(matches!(&answer, Answer::Refused { reason } if reason.contains("bad")), "{answer:?}");
    // What the manifest no longer says goes back to its default; a name of another version is no error,
    // and what takes a restart is left alone.
    let reset = ["no-such", "port", "maxmemory-samples"].map(String::from).to_vec();
    let configure = Ask::Configure { hash: "h".into(), directives: Vec::new(), reset };
    let answer = cluster.ask(0, configure).await;
    assert!(matches!(answer, Answer::Done { .. }), "{answer:?}");
    let set = cluster.running[0].engine.state.lock().unwrap().set.clone();
    assert_eq!(set, [("maxmemory-samples".to_owned(), "5".to_owned())]);
    let form = Ask::Form {
        incarnation: 1,
        me: cluster.running[0].member.clone(),
        shards: vec![even_slots(0, 1)],
    };
    let answer = cluster.ask(0, form).await;
    assert!(matches!(&answer, Answer::Refused { .. }), "formed twice: {answer:?}");
}
