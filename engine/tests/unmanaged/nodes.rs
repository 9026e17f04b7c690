//! Servers with nothing but `cluster-enabled yes`, and the stock tools that make a cluster of them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::processes::{Client, Server, free_port};

/// Longest run of a stock tool, seconds.
const TOOL_S: &str = "240";

pub(crate) fn has_tool(name: &str) -> bool {
    let found = Path::new("/usr/bin").join(name).exists();
    if !found {
        println!("skipped: there is no {name}");
    }
    found
}

/// Runs a stock tool to its end, which must be a good one; gives what it printed.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new("timeout").arg(TOOL_S).arg(program).args(args).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{program} {args:?}: {}\n{text}", output.status);
    text
}

struct Node {
    port: u16,
    bus_port: u16,
    dir: PathBuf,
    server: Option<Server>,
}

pub(crate) struct Nodes {
    dir: tempfile::TempDir,
    nodes: Vec<Node>,
}

/// `redis-cli --cluster create` of all of them, until they agree.
pub(crate) fn create(nodes: &Nodes, replicas: usize) {
    let addresses: Vec<String> = (0..nodes.nodes.len()).map(|n| nodes.address(n)).collect();
    let replicas = replicas.to_string();
    let mut args = vec!["create"];
    args.extend(addresses.iter().map(String::as_str));
    args.extend(["--cluster-replicas", &replicas, "--cluster-yes"]);
    let made = nodes.cli(&args);
    assert!(made.contains("[OK] All 16384 slots covered."), "{made}");
}

impl Nodes {
    pub(crate) fn start(count: usize) -> Nodes {
        let mut nodes = Nodes { dir: tempfile::tempdir().unwrap(), nodes: Vec::new() };
        for _ in 0..count {
            nodes.add();
        }
        nodes
    }

    pub(crate) fn add(&mut self) -> usize {
        let (port, bus_port) = loop {
            // redis-cli takes it that the bus is 10,000 higher.
            let port = free_port();
            let bus = port.checked_add(10_000);
            if let Some(bus) =
                bus.filter(|b| std::net::TcpListener::bind(("127.0.0.1", *b)).is_ok())
            {
                break (port, bus);
            }
        };
        let dir = self.dir.path().join(port.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        self.nodes.push(Node { port, bus_port, dir, server: None });
        let n = self.nodes.len() - 1;
        self.restart(n);
        n
    }

    pub(crate) fn restart(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let bus_port = node.bus_port.to_string();
        let args = [
            "--bind",
            "127.0.0.1",
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "1000",
            "--cluster-config-file",
            "nodes.conf",
            "--cluster-port",
            &bus_port,
            "--appendonly",
            "yes",
            "--io-threads",
            "1",
        ];
        node.server = Some(Server::on(node.port, &node.dir, &args));
    }

    pub(crate) fn kill(&mut self, n: usize) {
        if let Some(mut server) = self.nodes[n].server.take() {
            server.kill();
        }
    }

    pub(crate) fn signal(&self, n: usize, signal: &str) {
        self.nodes[n].server.as_ref().unwrap().signal(signal);
    }

    pub(crate) fn drop_last(&mut self, count: usize) {
        self.nodes.truncate(self.nodes.len() - count);
    }

    pub(crate) fn client(&self, n: usize) -> Client {
        Client::try_connect(self.nodes[n].port).unwrap()
    }

    pub(crate) fn port(&self, n: usize) -> u16 {
        self.nodes[n].port
    }

    pub(crate) fn bus_port(&self, n: usize) -> u16 {
        self.nodes[n].bus_port
    }

    pub(crate) fn live(&self) -> impl Iterator<Item = u16> + '_ {
        self.nodes.iter().filter(|n| n.server.is_some()).map(|n| n.port)
    }

    pub(crate) fn address(&self, n: usize) -> String {
        format!("127.0.0.1:{}", self.nodes[n].port)
    }

    pub(crate) fn folder(&self, name: &str) -> String {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn log(&self, n: usize) -> String {
        let node = &self.nodes[n];
        std::fs::read_to_string(node.dir.join(format!("{}.log", node.port))).unwrap()
    }

    /// One asks another to be members of one cluster.
    pub(crate) fn meet(&self, from: usize, to: usize) {
        let (port, bus) = (self.port(to).to_string(), self.bus_port(to).to_string());
        self.client(from).ok(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]);
    }

    pub(crate) fn cli(&self, args: &[&str]) -> String {
        run("redis-cli", &[&["--cluster"], args].concat())
    }

    pub(crate) fn until(&self, what: &str, is_so: impl Fn(&Nodes) -> bool) {
        self.until_some(what, |n| is_so(n).then_some(()));
    }

    pub(crate) fn until_some<T>(&self, what: &str, find: impl Fn(&Nodes) -> Option<T>) -> T {
        for _ in 0..3000 {
            if let Some(found) = find(self) {
                return found;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let mut texts = String::new();
        for port in self.live() {
            let text = Client::try_connect(port).map(|mut c| c.call(&["CLUSTER", "NODES"]));
            texts += &format!("{port}:\n{}\n", text.unwrap_or_default());
        }
        panic!("never came about: {what}\n{texts}");
    }

    /// Members that a node knows.
    pub(crate) fn knows(&self, n: usize) -> usize {
        self.client(n).call(&["CLUSTER", "NODES"]).lines().count()
    }

    /// Everybody shows so many members, and the same owners and primaries.
    pub(crate) fn until_agreed(&self, members: usize) {
        let view = |n: &Node| -> Vec<String> {
            let text = Client::try_connect(n.port).unwrap().call(&["CLUSTER", "NODES"]);
            let mut lines: Vec<String> = text.lines().map(|l| l.replace("myself,", "")).collect();
            lines.sort();
            lines
        };
        self.until("all agree", |nodes| {
            let mut views = nodes.nodes.iter().filter(|n| n.server.is_some()).map(view);
            let first = views.next().unwrap();
            first.len() == members && views.all(|other| other == first)
        });
    }

    fn my_line(&self, n: usize) -> String {
        let text = self.client(n).call(&["CLUSTER", "NODES"]);
        text.lines().find(|l| l.contains("myself")).unwrap_or_default().to_owned()
    }

    pub(crate) fn is_primary(&self, n: usize) -> bool {
        self.my_line(n).contains("myself,master")
    }

    /// The ranges that a node owns, as it shows them.
    pub(crate) fn slots_text(&self, n: usize) -> String {
        self.my_line(n).split(' ').skip(8).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn slots_of(&self, n: usize) -> usize {
        let text = self.slots_text(n);
        let size = |range: &str| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            last.parse::<usize>().unwrap() + 1 - first.parse::<usize>().unwrap()
        };
        text.split(' ').filter(|r| !r.is_empty()).map(size).sum()
    }

    pub(crate) fn owns(&self, n: usize, slot: u16) -> bool {
        self.slots_text(n).split(' ').filter(|r| !r.is_empty()).any(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (first.parse::<u16>().unwrap()..=last.parse().unwrap()).contains(&slot)
        })
    }

    pub(crate) fn owner_of(&self, slot: u16) -> usize {
        (0..self.nodes.len()).find(|n| self.owns(*n, slot)).unwrap()
    }

    /// So many members vote, as all of them know.
    pub(crate) fn until_council(&self, voters: usize) {
        let line = format!("larder_council_voters:{voters}\r\n");
        self.until("the council is complete", |nodes| {
            let info = |n| nodes.client(n).call(&["CLUSTER", "INFO"]);
            (0..nodes.nodes.len()).all(|n| info(n).contains(&line))
        });
    }

    /// Every member is in sync, as the council knows: it may take over.
    pub(crate) fn until_in_sync(&self) {
        let line = format!("larder_members_in_sync:{}\r\n", self.nodes.len());
        self.until("everybody is in sync", |nodes| {
            let info = |n| nodes.client(n).call(&["CLUSTER", "INFO"]);
            (0..nodes.nodes.len()).all(|n| info(n).contains(&line))
        });
    }
}
