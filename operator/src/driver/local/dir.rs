//! The folder of a local cluster: its lock, ports, certificates, password, status and members' folders.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use engine::bus::tls::Tls;
use serde::{Deserialize, Serialize};

use crate::desired::Seat;
use crate::status::Status;
use crate::{Error, pki};

/// The ports of clients. These and those that follow from them are five ranges that do not meet, all below
/// `LENT`: a member whose port was lent to somebody's connection while it was restarted would have to move,
/// and its clients would look for it in vain.
const FIRST_PORT: u16 = 7000;
const LAST_PORT: u16 = FIRST_PORT + MEMCACHED_ABOVE - 1;
/// How far above the port of clients Memcached, the bus, the plain port and the metrics are.
const MEMCACHED_ABOVE: u16 = 4_000;
const BUS_ABOVE: u16 = 10_000;
const PLAIN_ABOVE: u16 = 14_000;
const METRICS_ABOVE: u16 = 20_000;
/// From here on the kernel lends ports to connections (`ip_local_port_range`, as it is by default).
const LENT: u16 = 32_768;
const _: () = assert!(
    LAST_PORT + MEMCACHED_ABOVE < FIRST_PORT + BUS_ABOVE
        && LAST_PORT + BUS_ABOVE < FIRST_PORT + PLAIN_ABOVE
        && LAST_PORT + PLAIN_ABOVE < FIRST_PORT + METRICS_ABOVE
        && LAST_PORT + METRICS_ABOVE < LENT
);

/// The ports of one member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ports {
    pub(super) port: u16,
    pub(super) bus: u16,
    pub(super) metrics: u16,
}

impl Ports {
    fn from(port: u16) -> Self {
        Self { port, bus: port + BUS_ABOVE, metrics: port + METRICS_ABOVE }
    }

    /// Where clients that follow nothing are served, if they are.
    pub(super) fn plain(self) -> u16 {
        self.port + PLAIN_ABOVE
    }

    /// Where Memcached clients are served, if they are.
    pub(super) fn memcached(self) -> u16 {
        self.port + MEMCACHED_ABOVE
    }

    /// Nobody listens on any of them at this moment.
    fn are_free(self) -> bool {
        let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        [self.port, self.bus, self.metrics, self.plain(), self.memcached()].into_iter().all(free)
    }
}

/// What has to be the same at the next start.
#[derive(Default, Serialize, Deserialize)]
struct State {
    ports: BTreeMap<String, Ports>,
}

/// The folder, held by a lock as long as this lives.
pub(super) struct Dir {
    path: PathBuf,
    state: State,
    _lock: Option<File>,
}

impl Dir {
    /// Takes possession of the folder; it is made when there is none.
    pub(super) fn take(path: &Path) -> Result<Self, Error> {
        let failed = |what: &str, e| Error::world(format!("{what} {}", path.display()), e);
        make_private(path).map_err(|e| failed("make the folder", e))?;
        let file = path.join("lock");
        let lock = File::create(file).map_err(|e| failed("lock the folder", e))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let busy = io::Error::other("another larder runs in it");
                return Err(failed("use the folder", busy));
            }
            Err(TryLockError::Error(error)) => return Err(failed("lock the folder", error)),
        }
        Ok(Self { _lock: Some(lock), ..Self::look_at(path)? })
    }

    /// The folder as it is, for somebody who only looks.
    pub(super) fn look_at(path: &Path) -> Result<Self, Error> {
        let failed = |e| Error::world(format!("read {}", path.display()), e);
        let path = fs::canonicalize(path).map_err(failed)?;
        let state = match fs::read(path.join("state.json")) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::world(format!("read {}/state.json", path.display()), e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => State::default(),
            Err(e) => return Err(failed(e)),
        };
        Ok(Self { path, state, _lock: None })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.path.join("password")
    }

    pub(super) fn members(&self) -> PathBuf {
        self.path.join("members")
    }

    pub(super) fn member(&self, name: &str) -> PathBuf {
        self.members().join(name)
    }

    pub(super) fn member_tls(&self) -> PathBuf {
        self.path.join("tls/member")
    }

    pub(super) fn operator_tls(&self) -> PathBuf {
        self.path.join("tls/operator")
    }

    /// The folder of a member's data, made when there is none.
    pub(super) fn data(&self, name: &str) -> Result<PathBuf, Error> {
        let data = self.member(name).join("data");
        make_private(&data).map_err(|e| Error::world(format!("make {}", data.display()), e))?;
        Ok(data)
    }

    /// No member has left anything in this folder.
    pub(super) fn is_fresh(&self, name: &str) -> bool {
        let data = fs::read_dir(self.member(name).join("data"));
        data.is_ok_and(|mut entries| entries.next().is_none())
    }

    /// Seats that have a folder.
    pub(super) fn seats(&self, cluster: &str) -> Result<Vec<Seat>, Error> {
        let failed = |e| Error::world(format!("list {}", self.members().display()), e);
        let entries = match fs::read_dir(self.members()) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(failed(e)),
        };
        let mut seats = Vec::new();
        for entry in entries {
            let name = entry.map_err(failed)?.file_name();
            let seat = name.to_str().and_then(|name| Seat::parse(cluster, name));
            seats.extend(seat.filter(|s| self.member(&s.name(cluster)).join("data").is_dir()));
        }
        seats.sort_unstable();
        Ok(seats)
    }

    /// Deletes what a member left.
    pub(super) fn forget(&self, name: &str) -> Result<(), Error> {
        let folder = self.member(name);
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(Error::world(format!("delete {}", folder.display()), e))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn known_ports(&self, name: &str) -> Option<Ports> {
        self.state.ports.get(name).copied()
    }

    /// The ports of a member that is about to start: those that it had, unless somebody else has
    /// taken one of them meanwhile.
    pub(super) fn ports(&mut self, name: &str) -> Result<Ports, Error> {
        if let Some(ports) = self.known_ports(name).filter(|p| p.are_free()) {
            return Ok(ports);
        }
        let taken = |port: u16| self.state.ports.values().any(|p| p.port == port);
        let ports = (FIRST_PORT..=LAST_PORT)
            .filter(|port| !taken(*port))
            .map(Ports::from)
            .find(|ports| ports.are_free())
            .ok_or_else(|| Error::world("find a free port", "none is free"))?;
        self.state.ports.insert(name.into(), ports);
        let text = serde_json::to_vec_pretty(&self.state);
        self.write("state.json", &text.map_err(|e| Error::world("write state.json", e))?)?;
        Ok(ports)
    }

    pub(super) fn write_conf(&self, name: &str, text: &str) -> Result<PathBuf, Error> {
        let file = format!("members/{name}/larder.conf");
        self.write(&file, text.as_bytes())?;
        Ok(self.path.join(file))
    }

    /// The account of the last round, when there is one that can be read.
    pub(super) fn status(&self) -> Option<Status> {
        serde_json::from_slice(&fs::read(self.path.join("status.json")).ok()?).ok()
    }

    pub(super) fn record(&self, status: &Status) -> Result<(), Error> {
        let text = serde_json::to_vec_pretty(status);
        self.write("status.json", &text.map_err(|e| Error::world("write status.json", e))?)
    }

    /// The password of this cluster, made at the first start.
    pub(super) fn password(&self) -> Result<String, Error> {
        if let Ok(text) = fs::read_to_string(self.password_file()) {
            return Ok(text.trim_end().to_string());
        }
        let password = pki::password().map_err(|e| Error::world("make a password", e))?;
        self.write("password", format!("{password}\n").as_bytes())?;
        Ok(password)
    }

    /// The operator's end of the bus. Certificates are made at the first start, and again when one of
    /// them is missing.
    pub(super) fn tls(&self, year: i32) -> Result<Tls, Error> {
        let failed = |e: pki::Error| Error::world("make certificates", e);
        let have = |file: &str| self.path.join("tls").join(file).exists();
        let files = ["ca/tls.key", "member/tls.key", "operator/tls.key"];
        if !files.into_iter().all(have) {
            let ca = pki::Ca::new(year).map_err(failed)?;
            let member = ca
                .member(&["localhost".to_string(), "127.0.0.1".to_string()], year)
                .map_err(failed)?;
            let operator = ca.operator(year).map_err(failed)?;
            for (who, pair) in [("ca", &ca.pair), ("member", &member), ("operator", &operator)] {
                let folder = self.path.join("tls").join(who);
                make_private(&folder)
                    .map_err(|e| Error::world(format!("make {}", folder.display()), e))?;
                self.write(&format!("tls/{who}/ca.crt"), ca.pair.cert.as_bytes())?;
                self.write(&format!("tls/{who}/tls.crt"), pair.cert.as_bytes())?;
                self.write(&format!("tls/{who}/tls.key"), pair.key.as_bytes())?;
            }
        }
        self.known_tls()
    }

    /// The operator's end of the bus, as it was made before.
    pub(super) fn known_tls(&self) -> Result<Tls, Error> {
        Tls::from_dir(&self.path.join("tls/operator"))
            .map_err(|e| Error::world("read the certificates", e))
    }

    /// Writes a file that only its owner reads, whole or not at all.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path.join(name);
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        let write = || {
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&fresh)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|e| Error::world(format!("write {}", path.display()), e))
    }
}

/// A folder that only its owner enters.
fn make_private(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The time, RFC 3339: the rim of the local driver.
pub(super) fn now() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
