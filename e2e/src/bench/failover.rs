//! How long a shard accepts no write when its primary is killed, asked to end, or replaced in good order.
//!
//! A local cluster is run from a manifest; one primary after the other gets the fault, while a client that
//! follows redirections writes one key after the other to a slot of that shard. At the end every accepted write
//! is looked for.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Connection, Value};

use super::options::Fault;
use super::{Error, Options, clock, table};

/// Longer than this without an accepted write is a failure, not a figure.
const GAP_MAX: Duration = Duration::from_secs(60);

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let programs = programs(options)?;
    let cluster = Cluster::start(&programs, &options.manifest)?;
    let mut seeker = Seeker::new(&cluster);
    let mut gaps = Vec::new();
    let (mut failed, mut accepted) = (0, Vec::new());
    for round in 0..options.kills {
        let shards = seeker.await_whole()?;
        let shard = &shards[round % shards.len()];
        let tag = tag_in(shard.first_slot);
        let mut writer = Writer { seeker: &mut seeker, tag, accepted: &mut accepted, failed: 0 };
        writer.until_accepted()?;
        let start = clock::now();
        let pid = make(options.fault, writer.seeker, shard)?;
        let gap = writer.gap_until(start, |seeker| match options.fault {
            Fault::Kill => true,
            Fault::Term => !Path::new(&format!("/proc/{pid}")).exists(),
            Fault::Handover => seeker.is_replica(&shard.primary),
        })?;
        failed += writer.failed;
        println!("{}: {} (slot {}): {gap:.0?}", round + 1, shard.primary, shard.first_slot);
        gaps.push(gap.as_secs_f64() * 1e3);
    }
    seeker.await_whole()?;
    let lost = accepted.iter().filter(|key| !seeker.has(key)).count();
    gaps.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (gaps.len() * percent).div_ceil(100).max(1) - 1;
        gaps.get(rank).map_or_else(|| "-".into(), |gap| format!("{gap:.0}"))
    };
    println!();
    table::print(
        &["fault", "times", "gap ms p50", "p99", "max", "failed attempts", "writes", "lost"],
        &[vec![
            format!("{:?}", options.fault).to_lowercase(),
            options.kills.to_string(),
            at(50),
            at(99),
            at(100),
            failed.to_string(),
            accepted.len().to_string(),
            lost.to_string(),
        ]],
    );
    Ok(())
}

/// Makes the fault; gives the ID of the primary's process.
fn make(fault: Fault, seeker: &mut Seeker<'_>, shard: &Shard) -> Result<String, Error> {
    let pid = seeker.process_id(&shard.primary)?;
    let signal = match fault {
        Fault::Kill => "-9",
        Fault::Term => "-15",
        Fault::Handover => {
            let replica = shard.replicas.first().ok_or_else(|| refused("no replica"))?;
            let ask = redis::cmd("CLUSTER").arg("FAILOVER").to_owned();
            seeker.ask(replica, &ask).map_err(|e| refused(&e.to_string()))?;
            return Ok(pid);
        }
    };
    let sent = Command::new("kill").args([signal, &pid]).status().map_err(Error::io("kill"))?;
    if !sent.success() {
        return Err(refused(&format!("process {pid} could not be signalled")));
    }
    if fault == Fault::Kill {
        seeker.connections.remove(&shard.primary);
    }
    Ok(pid)
}

fn refused(why: &str) -> Error {
    Error::Refused(why.to_owned())
}

/// Writes one key after the other to a shard, and remembers those that were accepted.
struct Writer<'a, 'c> {
    seeker: &'a mut Seeker<'c>,
    tag: String,
    accepted: &'a mut Vec<String>,
    failed: usize,
}

impl Writer<'_, '_> {
    fn write(&mut self) -> Result<(), Error> {
        let key = format!("{}:{}", self.tag, self.accepted.len());
        let result = self.seeker.write(&key);
        match result {
            Ok(()) => self.accepted.push(key),
            Err(_) => self.failed += 1,
        }
        result
    }

    fn until_accepted(&mut self) -> Result<(), Error> {
        let start = clock::now();
        while let Err(error) = self.write() {
            if start.elapsed() > GAP_MAX {
                return Err(Error::Refused(format!("no write for {GAP_MAX:?}: {error}")));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    /// The longest time without an accepted write, from `start` on until a write is accepted after it is over.
    fn gap_until(
        &mut self,
        start: std::time::Instant,
        is_over: impl Fn(&mut Seeker<'_>) -> bool,
    ) -> Result<Duration, Error> {
        let (mut last, mut longest) = (start, Duration::ZERO);
        loop {
            let over = is_over(self.seeker);
            self.until_accepted()?;
            let now = clock::now();
            longest = longest.max(now - last);
            last = now;
            if over {
                return Ok(longest);
            }
        }
    }
}

/// The directory that holds both programs, built if no engine binary was named.
fn programs(options: &Options) -> Result<PathBuf, Error> {
    if let Some(server) = &options.server {
        return Ok(server.parent().map_or_else(PathBuf::new, Path::to_path_buf));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--bin", "larder-server", "--bin", "larder"])
        .status()
        .map_err(Error::io("cargo build"))?;
    if !built.success() {
        return Err(Error::Refused("the programs do not build".into()));
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    Ok(target.join("release"))
}

/// `larder run`, stopped as by Ctrl-C when dropped.
struct Cluster {
    child: Child,
    endpoints: Vec<String>,
    password: String,
    _dir: tempfile::TempDir,
}

impl Cluster {
    fn start(programs: &Path, manifest: &Path) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let mut child = Command::new(programs.join("larder"))
            .args(["run", "--output", "json", "-f"])
            .arg(manifest)
            .arg("--dir")
            .arg(dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("start larder run"))?;
        let output = child.stdout.take();
        let mut cluster = Self { child, endpoints: vec![], password: String::new(), _dir: dir };
        for line in output.into_iter().flat_map(|output| BufReader::new(output).lines()) {
            let line = line.map_err(Error::io("read larder run"))?;
            if let Ok(ready) = serde_json::from_str::<serde_json::Value>(&line)
                && let Some(endpoints) = ready["endpoints"].as_array()
            {
                cluster.endpoints =
                    endpoints.iter().filter_map(|each| each.as_str().map(Into::into)).collect();
                cluster.password = ready["password"].as_str().unwrap_or_default().into();
                return Ok(cluster);
            }
        }
        Err(Error::Refused("larder run ended before it was Ready".into()))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

struct Shard {
    first_slot: u16,
    primary: String,
    replicas: Vec<String>,
}

/// A client that asks whoever answers and goes where it is sent.
struct Seeker<'a> {
    cluster: &'a Cluster,
    connections: BTreeMap<String, Connection>,
    /// Where the last write went or was sent to.
    hint: Option<String>,
    turn: usize,
}

impl<'a> Seeker<'a> {
    fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, connections: BTreeMap::new(), hint: None, turn: 0 }
    }

    fn ask(&mut self, endpoint: &str, command: &redis::Cmd) -> redis::RedisResult<Value> {
        let patience = Duration::from_millis(200);
        if !self.connections.contains_key(endpoint) {
            let url = format!("redis://:{}@{endpoint}/", self.cluster.password);
            let connection = redis::Client::open(url)?.get_connection_with_timeout(patience)?;
            connection.set_read_timeout(Some(patience))?;
            self.connections.insert(endpoint.to_owned(), connection);
        }
        let Some(connection) = self.connections.get_mut(endpoint) else {
            return Ok(Value::Nil);
        };
        let reply = command.query(connection);
        if reply.as_ref().is_err_and(redis::RedisError::is_io_error) {
            self.connections.remove(endpoint);
        }
        reply
    }

    fn next_endpoint(&mut self) -> String {
        self.turn += 1;
        self.cluster.endpoints[self.turn % self.cluster.endpoints.len()].clone()
    }

    /// One attempt, which follows up to two redirections.
    fn write(&mut self, key: &str) -> Result<(), Error> {
        let mut endpoint = self.hint.take().unwrap_or_else(|| self.next_endpoint());
        let mut last = String::new();
        for _ in 0..3 {
            match self.ask(&endpoint, redis::cmd("SET").arg(key).arg("x")) {
                Ok(_) => {
                    self.hint = Some(endpoint);
                    return Ok(());
                }
                Err(error) => {
                    last = format!("{endpoint}: {error}");
                    match error.redirect_node() {
                        Some((node, _)) => endpoint = node.to_owned(),
                        None => break,
                    }
                }
            }
        }
        Err(Error::Refused(last))
    }

    fn process_id(&mut self, endpoint: &str) -> Result<String, Error> {
        let reply = self.ask(endpoint, redis::cmd("INFO").arg("server"));
        let info = reply.ok().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
        info.as_deref()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("process_id:")))
            .map(|pid| pid.trim().to_owned())
            .ok_or_else(|| Error::Refused(format!("{endpoint}: INFO has no process_id")))
    }

    fn shards(&mut self) -> Vec<Shard> {
        let endpoint = self.next_endpoint();
        let Ok(Value::Array(rows)) = self.ask(&endpoint, redis::cmd("CLUSTER").arg("SLOTS")) else {
            return vec![];
        };
        rows.into_iter().filter_map(shard).collect()
    }

    /// Waits until every slot has a primary and every shard a replica that can take over.
    fn await_whole(&mut self) -> Result<Vec<Shard>, Error> {
        let start = clock::now();
        while start.elapsed() < GAP_MAX {
            let shards = self.shards();
            if !shards.is_empty() && shards.iter().all(|shard| !shard.replicas.is_empty()) {
                let whole = shards.iter().all(|shard| self.follows(&shard.primary));
                if whole {
                    return Ok(shards);
                }
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err(Error::Refused("a shard has no replica that follows".into()))
    }

    fn is_replica(&mut self, endpoint: &str) -> bool {
        let reply = self.ask(endpoint, redis::cmd("INFO").arg("replication"));
        let info = reply.ok().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
        info.is_some_and(|text| text.contains("role:slave"))
    }

    /// The key is there, as far as its primary can be reached.
    fn has(&mut self, key: &str) -> bool {
        let exists = redis::cmd("EXISTS").arg(key).to_owned();
        let mut endpoint = self.next_endpoint();
        for _ in 0..3 {
            match self.ask(&endpoint, &exists) {
                Ok(reply) => return reply == Value::Int(1),
                Err(error) => match error.redirect_node() {
                    Some((node, _)) => endpoint = node.to_owned(),
                    None => endpoint = self.next_endpoint(),
                },
            }
        }
        false
    }

    fn follows(&mut self, primary: &str) -> bool {
        let reply = self.ask(primary, redis::cmd("INFO").arg("replication"));
        let info = reply.ok().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
        info.is_some_and(|text| text.contains("state=online"))
    }
}

/// A row of CLUSTER SLOTS: first, last, primary, replicas.
fn shard(row: Value) -> Option<Shard> {
    let Value::Array(row) = row else { return None };
    let mut row = row.into_iter();
    let first_slot = redis::from_redis_value::<u16>(row.next()?).ok()?;
    row.next()?;
    let primary = endpoint(row.next()?)?;
    Some(Shard { first_slot, primary, replicas: row.filter_map(endpoint).collect() })
}

fn endpoint(node: Value) -> Option<String> {
    let Value::Array(node) = node else { return None };
    let mut node = node.into_iter();
    let host = redis::from_redis_value::<String>(node.next()?).ok()?;
    let port = redis::from_redis_value::<u16>(node.next()?).ok()?;
    Some(format!("{host}:{port}"))
}

fn tag_in(slot: u16) -> String {
    (0..)
        .map(|number: u64| format!("{{gap{number}}}"))
        .find(|key| crate::slot::slot_of(key.as_bytes()) == slot)
        .unwrap_or_default()
}
