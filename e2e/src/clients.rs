//! The clients that people use, each in a small program of `examples/clients`, against a server alone and a cluster; and
//! tools of others that look at servers, each with a program of `e2e/tools` that says what they have to show.
//!
//! Their libraries come from the registries by the languages' own tools, in the versions that the examples name, into a
//! folder of the cache that is named by those versions.

use crate::clock::{self, eventually, seconds};
use crate::failure::{Context, Failure, Result};
use crate::local::{self, Local};
use crate::tests::Tally;
use crate::tools;
use crate::wire::Connection;
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

mod languages;

use languages::{
    AGENTS, GO, JAVA, Language, NODE, OLD_PYTHON, PYTHON, REDIS_COMMANDER, REDIS_EXPORTER,
};

/// Longest run of one program.
const LIMIT: Duration = Duration::from_secs(120);

/// One library's program.
pub struct Client {
    pub name: &'static str,
    language: &'static Language,
    words: &'static [&'static str],
    speaks: Speaks,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Speaks {
    /// RESP, to a server alone and to a cluster.
    Redis,
    /// RESP, to a cluster.
    Cluster,
    /// RESP, to whoever is primary of a shard's two members.
    OnePrimary,
    Memcached,
    /// Three servers.
    Memcacheds,
}

#[rustfmt::skip]
pub const CLIENTS: &[Client] = &[
    Client { name: "clients_redis_py", language: &PYTHON, words: &["redis_or_valkey.py", "redis"], speaks: Speaks::Redis },
    Client { name: "clients_valkey_py", language: &PYTHON, words: &["redis_or_valkey.py", "valkey"], speaks: Speaks::Redis },
    Client { name: "clients_redis_py_cluster", language: &OLD_PYTHON, words: &["with_redis_py_cluster.py"], speaks: Speaks::Cluster },
    Client { name: "clients_pool_outlives_a_planned_change", language: &PYTHON, words: &["with_a_pool.py"], speaks: Speaks::OnePrimary },
    Client { name: "clients_go_redis", language: &GO, words: &["with_go_redis"], speaks: Speaks::Redis },
    Client { name: "clients_jedis", language: &JAVA, words: &["WithJedis.java"], speaks: Speaks::Redis },
    Client { name: "clients_ioredis", language: &NODE, words: &["with_ioredis.js"], speaks: Speaks::Redis },
    Client { name: "clients_node_redis", language: &NODE, words: &["with_node_redis.js"], speaks: Speaks::Redis },
    Client { name: "clients_pymemcache", language: &PYTHON, words: &["with_pymemcache.py"], speaks: Speaks::Memcached },
    Client { name: "clients_python_memcached", language: &PYTHON, words: &["with_python_memcached.py"], speaks: Speaks::Memcached },
    Client { name: "clients_pylibmc", language: &PYTHON, words: &["with_pylibmc.py"], speaks: Speaks::Memcached },
    Client { name: "clients_ketama_keeps_most_hits", language: &PYTHON, words: &["with_ketama.py"], speaks: Speaks::Memcacheds },
    Client { name: "clients_redis_exporter", language: &REDIS_EXPORTER, words: &["check.py"], speaks: Speaks::Redis },
    Client { name: "clients_redis_commander", language: &REDIS_COMMANDER, words: &["check.js"], speaks: Speaks::Redis },
    Client { name: "clients_datadog_traces", language: &AGENTS, words: &["with_ddtrace.py", "redis"], speaks: Speaks::Redis },
    Client { name: "clients_datadog_traces_memcached", language: &AGENTS, words: &["with_ddtrace.py", "memcached"], speaks: Speaks::Memcached },
    Client { name: "clients_datadog_checks", language: &AGENTS, words: &["asks.py", "datadog"], speaks: Speaks::Redis },
    Client { name: "clients_datadog_checks_memcached", language: &AGENTS, words: &["asks.py", "datadog", "memcached"], speaks: Speaks::Memcached },
    Client { name: "clients_new_relic_agent", language: &AGENTS, words: &["with_newrelic.py", "redis"], speaks: Speaks::Redis },
    Client { name: "clients_new_relic_agent_memcached", language: &AGENTS, words: &["with_newrelic.py", "memcached"], speaks: Speaks::Memcached },
    Client { name: "clients_new_relic_integration", language: &AGENTS, words: &["asks.py", "new_relic"], speaks: Speaks::Redis },
    Client { name: "clients_redisinsight_requests", language: &AGENTS, words: &["asks.py", "redisinsight"], speaks: Speaks::Redis },
];

/// Runs these programs, one after the other, each everywhere where it can run.
pub async fn run(clients: &[&Client]) -> Result<Tally> {
    let folder = tempfile::tempdir()?;
    let speaks = |what| clients.iter().any(|client| client.speaks == what);
    let mut places = Vec::new();
    let mut servers = Vec::new();
    let mut clusters = Vec::new();
    if speaks(Speaks::Redis) {
        let (server, place) = alone(folder.path(), Speaks::Redis).await?;
        servers.push(server);
        places.push(place);
    }
    if speaks(Speaks::Redis) || speaks(Speaks::Cluster) {
        let state = folder.path().join("cluster");
        let cluster = Local::start(&tools::project().join("examples/minimal.yaml"), &state).await?;
        let address = cluster.book.all().first().context("a member")?.to_string();
        for speaks in [Speaks::Redis, Speaks::Cluster] {
            let (address, password) = (address.clone(), cluster.password.clone());
            places.push(Place { address, password, speaks, is_cluster: true });
        }
        clusters.push(cluster);
    }
    if speaks(Speaks::OnePrimary) {
        let spec = json!({"shards": 1, "replicasPerShard": 1, "memory": "64Mi"});
        let manifest = local::manifest(folder.path(), &spec)?;
        let cluster = Local::start(&manifest, &folder.path().join("shard")).await?;
        local::whole(&cluster).await?;
        let address = primary_service(&cluster).await?.to_string();
        let password = cluster.password.clone();
        places.push(Place { address, password, speaks: Speaks::OnePrimary, is_cluster: true });
        clusters.push(cluster);
    }
    if speaks(Speaks::Memcached) {
        let (server, place) = alone(folder.path(), Speaks::Memcached).await?;
        servers.push(server);
        places.push(place);
    }
    if speaks(Speaks::Memcacheds) {
        let mut addresses = Vec::new();
        for _ in 0..3 {
            let (server, place) = alone(folder.path(), Speaks::Memcached).await?;
            servers.push(server);
            addresses.push(place.address);
        }
        let address = addresses.join(",");
        let speaks = Speaks::Memcacheds;
        places.push(Place { address, password: None, speaks, is_cluster: false });
    }
    let mut tally = Tally::default();
    for client in clients {
        let start = clock::now();
        // A registry that cannot be reached says nothing of Larder.
        let installed = match install(client.language) {
            Ok(installed) => installed,
            Err(why) => {
                println!("skip  {}: its library cannot be installed: {why}", client.name);
                tally.skipped += 1;
                continue;
            }
        };
        let here: Vec<&Place> = places.iter().filter(|p| p.speaks == client.speaks).collect();
        match everywhere(client, &installed, &here).await {
            Ok(said) => {
                println!("pass  {} ({said}, {})", client.name, seconds(start.elapsed()));
                tally.passed += 1;
            }
            Err(failure) => {
                println!("FAIL  {}: {failure}", client.name);
                tally.failed += 1;
            }
        }
    }
    for cluster in clusters {
        cluster.stop().await?;
    }
    Ok(tally)
}

/// Where a program runs.
struct Place {
    /// `host:port`, or several with commas between them.
    address: String,
    password: Option<String>,
    speaks: Speaks,
    is_cluster: bool,
}

/// The library's version, as the program tells it.
async fn everywhere(client: &Client, installed: &Path, places: &[&Place]) -> Result<String> {
    let mut said = String::new();
    for place in places {
        let source = tools::project().join(client.language.folder);
        let mut command = (client.language.command)(&source, installed, client.words)?;
        command.env("LARDER_ADDRESS", &place.address).stdin(Stdio::null());
        match &place.password {
            Some(password) => command.env("LARDER_PASSWORD", password),
            None => command.env_remove("LARDER_PASSWORD"),
        };
        command.env("LARDER_CLUSTER", if place.is_cluster { "yes" } else { "no" });
        let mut command = tokio::process::Command::from(command);
        let output = tokio::time::timeout(LIMIT, command.kill_on_drop(true).output()).await;
        let output = output.map_err(|_| Failure::new("it did not come to its end"))??;
        let place = if place.is_cluster { "in a cluster" } else { "with a server alone" };
        let error = String::from_utf8_lossy(&output.stderr);
        crate::ensure!(output.status.success(), "{place}: {}: {}", output.status, error.trim());
        said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    }
    Ok(said)
}

/// A language's libraries, installed once for each set of versions.
fn install(language: &Language) -> Result<PathBuf> {
    let source = tools::project().join(language.folder);
    let versions = fs::read(source.join(language.versions))?;
    let digest: String =
        Sha256::digest(&versions).iter().take(6).map(|b| format!("{b:02x}")).collect();
    let name = source.file_name().context("its folder")?.to_string_lossy().into_owned();
    let folder = tools::cache()?.join(format!("clients-{name}-{digest}"));
    if folder.join("whole").is_file() {
        return Ok(folder);
    }
    tools::install_missing(language.packages)?;
    println!("installing what {} needs (once)", language.folder);
    // Not moved into its place afterwards: a virtual environment knows its own path.
    fs::remove_dir_all(&folder).ok();
    fs::create_dir_all(&folder)?;
    (language.install)(&source, &folder)?;
    fs::write(folder.join("whole"), "")?;
    Ok(folder)
}

/// An address that stays, as that of a Service: whoever connects is passed on to the primary of the only shard.
async fn primary_service(cluster: &Local) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (book, password) = (cluster.book.clone(), cluster.password.clone());
    tokio::spawn(async move {
        while let Ok((mut incoming, _)) = listener.accept().await {
            let (book, password) = (book.clone(), password.clone());
            tokio::spawn(async move {
                let mut client = crate::client::Client::new(&book, password.as_deref());
                client.refresh().await?;
                let range = client.ranges().first().context("a shard")?;
                let primary = *range.members.first().context("a primary")?;
                let mut outgoing = TcpStream::connect(primary).await?;
                tokio::io::copy_bidirectional(&mut incoming, &mut outgoing).await?;
                Result::Ok(())
            });
        }
    });
    Ok(address)
}

/// A server of its own, with a password where clients of Redis are to use it.
async fn alone(folder: &Path, speaks: Speaks) -> Result<(Child, Place)> {
    let password = (speaks == Speaks::Redis).then(|| "correct horse".to_owned());
    let (port, memcached) = (tools::free_port()?, tools::free_port()?);
    let dir = folder.join(port.to_string());
    fs::create_dir(&dir)?;
    let mut command =
        tokio::process::Command::new(tools::project().join("target/debug/larder-server"));
    if let Some(password) = &password {
        // Not on the command line: there everybody can read it.
        let file = dir.join("larder.conf");
        fs::write(&file, format!("requirepass \"{password}\"\n"))?;
        command.arg(file);
    }
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"])
        .arg(&dir);
    if speaks == Speaks::Memcached {
        command.args(["--memcached-port", &memcached.to_string()]);
    }
    let log = fs::File::create(dir.join("log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    let server = command.spawn().context("larder-server")?;
    let address = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
    eventually("larder-server", Duration::from_secs(20), || {
        Connection::open(address(port), password.as_deref(), Duration::from_secs(1))
    })
    .await?;
    let port = if speaks == Speaks::Memcached { memcached } else { port };
    let address = address(port).to_string();
    Ok((server, Place { address, password, speaks, is_cluster: false }))
}
