//! A cluster of local processes, run from a manifest, and a client that finds its way in it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use redis::{Connection, Value};

use super::{Error, Options, clock};
use crate::slot::held_ms;

/// What takes longer is a failure, not a figure.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn refused(why: &str) -> Error {
    Error::Refused(why.to_owned())
}

/// The directory that holds both programs, built if no engine binary was named.
pub(super) fn programs(options: &Options) -> Result<PathBuf, Error> {
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
pub(super) struct Cluster {
    child: Child,
    pub(super) endpoints: Vec<String>,
    pub(super) password: String,
    dir: tempfile::TempDir,
}

impl Cluster {
    pub(super) fn start(programs: &Path, manifest: &Path) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        Self::start_in(dir, programs, manifest)
    }

    /// Runs a spec of our own, which can be changed.
    pub(super) fn of_spec(programs: &Path, spec: &serde_json::Value) -> Result<Self, Error> {
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let manifest = write_manifest(dir.path(), spec)?;
        Self::start_in(dir, programs, &manifest)
    }

    pub(super) fn change(&self, spec: &serde_json::Value) -> Result<(), Error> {
        write_manifest(self.dir.path(), spec).map(|_| ())
    }

    /// For how long moves of slots held their clients, milliseconds, as the members' logs say; each is told once. `read` is how
    /// far each log was read.
    pub(super) fn held_ms(&self, read: &mut BTreeMap<PathBuf, usize>) -> Result<Vec<f64>, Error> {
        let mut all = Vec::new();
        let members = self.dir.path().join("state/members");
        for member in std::fs::read_dir(&members).map_err(Error::io("list the members"))? {
            let file = member.map_err(Error::io("list the members"))?.path().join("log");
            let log = std::fs::read_to_string(&file).unwrap_or_default();
            let whole = log.rfind('\n').map_or(0, |end| end + 1);
            let from = read.insert(file, whole).unwrap_or(0);
            all.extend(held_ms(log.get(from..whole).unwrap_or_default()));
        }
        Ok(all)
    }

    fn start_in(dir: tempfile::TempDir, programs: &Path, manifest: &Path) -> Result<Self, Error> {
        let mut child = Command::new(programs.join("larder"))
            .args(["run", "--output", "json", "-f"])
            .arg(manifest)
            .arg("--dir")
            .arg(dir.path().join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io("start larder run"))?;
        let output = child.stdout.take();
        let mut cluster = Self { child, endpoints: vec![], password: String::new(), dir };
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

fn write_manifest(dir: &Path, spec: &serde_json::Value) -> Result<PathBuf, Error> {
    crate::local::manifest(dir, spec).map_err(|why| refused(&why.to_string()))
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

pub(super) struct Shard {
    pub(super) first_slot: u16,
    pub(super) primary: String,
    pub(super) replicas: Vec<String>,
}

/// A client that asks whoever answers and goes where it is sent.
pub(super) struct Seeker<'a> {
    cluster: &'a Cluster,
    pub(super) connections: BTreeMap<String, Connection>,
    /// Where the last write went or was sent to.
    hint: Option<String>,
    turn: usize,
}

impl<'a> Seeker<'a> {
    pub(super) fn new(cluster: &'a Cluster) -> Self {
        Self { cluster, connections: BTreeMap::new(), hint: None, turn: 0 }
    }

    pub(super) fn ask(
        &mut self,
        endpoint: &str,
        command: &redis::Cmd,
    ) -> redis::RedisResult<Value> {
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

    pub(super) fn next_endpoint(&mut self) -> String {
        self.turn += 1;
        self.cluster.endpoints[self.turn % self.cluster.endpoints.len()].clone()
    }

    /// One attempt, which follows up to two redirections.
    pub(super) fn write(&mut self, key: &str) -> Result<(), Error> {
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

    pub(super) fn process_id(&mut self, endpoint: &str) -> Result<String, Error> {
        let reply = self.ask(endpoint, redis::cmd("INFO").arg("server"));
        let info = reply.ok().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
        info.as_deref()
            .and_then(|text| text.lines().find_map(|line| line.strip_prefix("process_id:")))
            .map(|pid| pid.trim().to_owned())
            .ok_or_else(|| Error::Refused(format!("{endpoint}: INFO has no process_id")))
    }

    pub(super) fn shards(&mut self) -> Vec<Shard> {
        let endpoint = self.next_endpoint();
        let Ok(Value::Array(rows)) = self.ask(&endpoint, redis::cmd("CLUSTER").arg("SLOTS")) else {
            return vec![];
        };
        rows.into_iter().filter_map(shard).collect()
    }

    /// Waits until every slot has a primary and every shard a replica that can take over.
    pub(super) fn await_whole(&mut self) -> Result<Vec<Shard>, Error> {
        let start = clock::now();
        while start.elapsed() < PATIENCE {
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

    pub(super) fn is_replica(&mut self, endpoint: &str) -> bool {
        let reply = self.ask(endpoint, redis::cmd("INFO").arg("replication"));
        let info = reply.ok().and_then(|reply| redis::from_redis_value::<String>(reply).ok());
        info.is_some_and(|text| text.contains("role:slave"))
    }

    /// The key is there, as far as its primary can be reached.
    pub(super) fn has(&mut self, key: &str) -> bool {
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

    pub(super) fn follows(&mut self, primary: &str) -> bool {
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
