//! The clients that people use, each in a small program of `examples/clients`, against a server alone and a cluster.
//!
//! Their libraries come from the registries by the languages' own tools, in the versions that the examples name, into a
//! folder of the cache that is named by those versions.

use crate::clock::{self, eventually, seconds};
use crate::failure::{Context, Failure, Result};
use crate::local::{self, Local};
use crate::tests::Tally;
use crate::wire::Connection;
use crate::{sh, tools};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Child;

/// Longest run of one program.
const LIMIT: Duration = Duration::from_secs(120);

/// A language: what names its libraries' versions, and how these are installed and a program is run.
struct Language {
    folder: &'static str,
    /// The file that names the versions.
    versions: &'static str,
    /// Debian packages, and a program of each, without which it does not run.
    packages: &'static [(&'static str, &'static str)],
    install: fn(source: &Path, into: &Path) -> Result,
    command: fn(source: &Path, installed: &Path, words: &[&str]) -> Result<Command>,
}

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

const PYTHON: Language = Language {
    folder: "python",
    versions: "requirements.txt",
    packages: &[("python3-venv", "python3")],
    install: |source, into| {
        sh::run(Command::new("python3").args(["-m", "venv"]).arg(into))?;
        let mut pip = Command::new(into.join("bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check", "--requirement"]);
        sh::run(pip.arg(source.join("requirements.txt"))).map(|_| ())
    },
    command: |source, installed, words| {
        let mut python = Command::new(installed.join("bin/python"));
        python.arg(source.join(words[0])).args(&words[1..]);
        Ok(python)
    },
};

/// Libraries that want another one in a version of long ago.
const OLD_PYTHON: Language = Language { folder: "python_old", ..PYTHON };

const NODE: Language = Language {
    folder: "node",
    versions: "package.json",
    packages: &[("nodejs", "node"), ("npm", "npm")],
    install: |source, into| {
        fs::copy(source.join("package.json"), into.join("package.json"))?;
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-package-lock", "--silent"]);
        sh::run(npm.current_dir(into)).map(|_| ())
    },
    command: |source, installed, words| {
        // A module is looked for beside the program.
        fs::copy(source.join(words[0]), installed.join(words[0]))?;
        let mut node = Command::new("node");
        node.arg(installed.join(words[0]));
        Ok(node)
    },
};

const GO: Language = Language {
    folder: "go",
    versions: "go.sum",
    packages: &[("golang-go", "go")],
    install: |_, _| Ok(()),
    command: |source, installed, words| {
        let program = installed.join(words[0]);
        let mut build = Command::new("go");
        build.args(["build", "-buildvcs=false", "-o"]).arg(&program).arg(".");
        sh::run(build.current_dir(source).env("GOFLAGS", "").env("GOWORK", "off"))?;
        Ok(Command::new(program))
    },
};

const JAVA: Language = Language {
    folder: "java",
    versions: "pom.xml",
    packages: &[("default-jdk-headless", "java"), ("maven", "mvn")],
    install: |source, into| {
        let mut maven = Command::new("mvn");
        maven.args(["--quiet", "--batch-mode", "--file"]).arg(source.join("pom.xml"));
        maven.arg("dependency:copy-dependencies");
        let libraries = format!("-DoutputDirectory={}", into.join("lib").display());
        sh::run(maven.arg(libraries)).map(|_| ())
    },
    command: |source, installed, words| {
        let mut java = Command::new("java");
        java.arg("-cp").arg(installed.join("lib/*")).arg(source.join(words[0]));
        Ok(java)
    },
};

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
        let source = tools::project().join("examples/clients").join(client.language.folder);
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
    let source = tools::project().join("examples/clients").join(language.folder);
    let versions = fs::read(source.join(language.versions))?;
    let digest: String =
        Sha256::digest(&versions).iter().take(6).map(|b| format!("{b:02x}")).collect();
    let folder = tools::cache()?.join(format!("clients-{}-{digest}", language.folder));
    if folder.join("whole").is_file() {
        return Ok(folder);
    }
    tools::install_missing(language.packages)?;
    println!("installing the libraries of examples/clients/{} (once)", language.folder);
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
