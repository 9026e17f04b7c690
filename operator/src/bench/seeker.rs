//! A client that asks whoever answers and goes where it is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use rustix::process::Pid;

use super::client::{Connection, Failure, Reply};
use super::cluster::Cluster;
use super::{Error, PATIENCE, now};

/// For a connection, and for each reply.
const REPLY_LIMIT: Duration = Duration::from_millis(200);
/// How often it is asked again whether all is whole.
const LOOK: Duration = Duration::from_millis(100);
/// Pause before a request is tried again.
pub const RETRY: Duration = Duration::from_millis(1);

/// Some slots that follow each other, and who serves them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub first_slot: u16,
    pub primary: String,
    pub replicas: Vec<String>,
}

impl Shard {
    fn members(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.primary).chain(&self.replicas)
    }
}

pub struct Seeker<'a> {
    cluster: &'a Cluster,
    connections: BTreeMap<String, Connection>,
    /// Where the last write went or was sent to.
    hint: Option<String>,
    /// Who is known not to answer, so that nothing is sent there.
    silent: Option<String>,
    turn: usize,
}

impl<'a> Seeker<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, connections: BTreeMap::new(), hint: None, silent: None, turn: 0 }
    }

    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// # Errors
    /// What the member says, or what became of the connection, which is made anew the next time.
    pub fn ask(&mut self, endpoint: &str, words: &[&str]) -> Result<Reply, Failure> {
        if self.silent.as_deref() == Some(endpoint) {
            return Err(Failure::Broken(std::io::ErrorKind::TimedOut.into()));
        }
        let mut connection = match self.connections.remove(endpoint) {
            Some(connection) => connection,
            None => Connection::open(endpoint, self.cluster.password.as_deref(), REPLY_LIMIT)?,
        };
        let reply = connection.call(words);
        if !matches!(reply, Err(Failure::Broken(_))) {
            self.connections.insert(endpoint.to_owned(), connection);
        }
        reply
    }

    /// Forgets the connection to a member that is gone.
    pub fn forget(&mut self, endpoint: &str) {
        self.connections.remove(endpoint);
    }

    /// Nothing is sent to this member until somebody else is named, or nobody.
    pub fn avoid(&mut self, endpoint: Option<&str>) {
        if let Some(endpoint) = endpoint {
            self.forget(endpoint);
        }
        self.silent = endpoint.map(str::to_owned);
    }

    fn next_endpoint(&mut self) -> String {
        self.turn += 1;
        self.cluster.endpoints[self.turn % self.cluster.endpoints.len()].clone()
    }

    /// One attempt, which follows up to two redirections.
    ///
    /// # Errors
    /// Why the last member that was asked did not take it.
    pub fn write(&mut self, key: &str) -> Result<(), Error> {
        let from = self.hint.take();
        let (_, by) = self.follow(from, &["SET", key, "x"])?;
        self.hint = Some(by);
        Ok(())
    }

    /// Whether the key is there, as whoever serves it says.
    ///
    /// # Errors
    /// When nobody says so in time.
    pub fn has(&mut self, key: &str) -> Result<bool, Error> {
        let start = now();
        loop {
            self.cluster.check()?;
            let from = self.hint.take();
            match self.follow(from, &["EXISTS", key]) {
                Ok((reply, by)) => {
                    self.hint = Some(by);
                    return Ok(reply == Reply::Number(1));
                }
                Err(error) if start.elapsed() > PATIENCE => return Err(error),
                Err(_) => thread::sleep(RETRY),
            }
        }
    }

    /// The reply, and who gave it.
    fn follow(&mut self, from: Option<String>, words: &[&str]) -> Result<(Reply, String), Error> {
        let mut endpoint = from.unwrap_or_else(|| self.next_endpoint());
        let mut last = String::new();
        for _ in 0..3 {
            match self.ask(&endpoint, words) {
                Ok(reply) => return Ok((reply, endpoint)),
                Err(failure) => {
                    last = format!("{endpoint}: {failure}");
                    match failure.moved_to() {
                        Some(node) => endpoint = node.to_owned(),
                        None => break,
                    }
                }
            }
        }
        Err(Error::Refused(last))
    }

    fn info(&mut self, endpoint: &str, section: &str) -> Option<String> {
        self.ask(endpoint, &["INFO", section]).ok()?.text().map(str::to_owned)
    }

    /// # Errors
    /// When the member does not tell.
    pub fn process_id(&mut self, endpoint: &str) -> Result<Pid, Error> {
        let info = self.info(endpoint, "server").unwrap_or_default();
        let id = info.lines().find_map(|line| line.strip_prefix("process_id:"));
        id.and_then(|id| Pid::from_raw(id.trim().parse().ok()?))
            .ok_or_else(|| Error::Refused(format!("{endpoint}: INFO has no process_id")))
    }

    pub fn is_replica(&mut self, endpoint: &str) -> bool {
        self.info(endpoint, "replication").is_some_and(|text| text.contains("role:slave"))
    }

    /// Waits until all members agree on who serves what, and every replica can take over.
    ///
    /// # Errors
    /// When that takes too long.
    pub fn await_whole(&mut self) -> Result<Vec<Shard>, Error> {
        let start = now();
        while start.elapsed() < PATIENCE {
            self.cluster.check()?;
            if let Some(shards) = self.whole() {
                return Ok(shards);
            }
            thread::sleep(LOOK);
        }
        Err(Error::Refused(format!("not every replica can take over after {PATIENCE:?}")))
    }

    /// Everybody is asked: who was away may still believe that it is primary.
    fn whole(&mut self) -> Option<Vec<Shard>> {
        let asked = self.next_endpoint();
        let shards = self.shards(&asked)?;
        let members: BTreeSet<&String> = shards.iter().flat_map(Shard::members).collect();
        if members.len() != self.cluster.endpoints.len() {
            return None;
        }
        for member in members {
            if self.shards(member)? != shards {
                return None;
            }
        }
        for shard in &shards {
            let info = self.info(&shard.primary, "replication")?;
            let followers = info.matches("state=online").count();
            if !info.contains("role:master") || followers != shard.replicas.len() {
                return None;
            }
            for replica in &shard.replicas {
                let info = self.info(replica, "replication")?;
                // Who follows may not be known to the council yet as one that can take over.
                let can_take_over = ["role:slave", "master_link_status:up", "larder_in_sync:1"];
                if !can_take_over.iter().all(|said| info.contains(said)) {
                    return None;
                }
            }
        }
        Some(shards)
    }

    fn shards(&mut self, endpoint: &str) -> Option<Vec<Shard>> {
        let rows = self.ask(endpoint, &["CLUSTER", "SLOTS"]).ok()?;
        let mut shards: Vec<Shard> = rows.list().iter().map(shard).collect::<Option<_>>()?;
        shards.sort_by_key(|shard| shard.first_slot);
        (!shards.is_empty()).then_some(shards)
    }
}

/// A row of CLUSTER SLOTS: first, last, primary, replicas.
fn shard(row: &Reply) -> Option<Shard> {
    let [first, _, primary, replicas @ ..] = row.list() else { return None };
    let mut replicas: Vec<String> = replicas.iter().map(endpoint).collect::<Option<_>>()?;
    replicas.sort();
    let first_slot = u16::try_from(first.number()?).ok()?;
    Some(Shard { first_slot, primary: endpoint(primary)?, replicas })
}

fn endpoint(node: &Reply) -> Option<String> {
    let [host, port, ..] = node.list() else { return None };
    Some(format!("{}:{}", host.text()?, port.number()?))
}
