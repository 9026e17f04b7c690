//! A server as a child process: started, watched through /proc, and stopped.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::peers::Peer;
use super::wire::Dialect;
use super::{Error, clock};
use crate::tools;

/// How long a server may take until it serves.
const READY_MAX: Duration = Duration::from_secs(10);

pub(super) struct Server {
    pub(super) addr: SocketAddr,
    child: Child,
    /// Its data directory, removed with it.
    _dir: tempfile::TempDir,
}

/// What a peer needs to be started with.
pub(super) struct Place<'a> {
    pub(super) port: u16,
    pub(super) threads: usize,
    pub(super) dir: &'a Path,
}

impl Server {
    /// Starts a peer with these arguments more, on `core` if given, and waits until it serves.
    pub(super) fn start(
        peer: &Peer,
        threads: usize,
        core: Option<usize>,
        more: &[String],
    ) -> Result<Self, Error> {
        let name = peer.name;
        let dir = tempfile::tempdir().map_err(Error::io("temporary directory"))?;
        let port = tools::free_port().map_err(Error::io("bind"))?;
        let mut inner = peer.command(&Place { port, threads, dir: dir.path() });
        inner.args(more);
        let log = fs::File::create(dir.path().join("log")).map_err(Error::io("log"))?;
        let errors = log.try_clone().map_err(Error::io("log"))?;
        let child = pinned(&inner, core)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(Error::io(format!("start {name}")))?;
        let addr = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self { addr, child, _dir: dir };
        server.await_ready(peer)?;
        Ok(server)
    }

    fn await_ready(&mut self, peer: &Peer) -> Result<(), Error> {
        let name = peer.name;
        let start = clock::now();
        while start.elapsed() < READY_MAX {
            if TcpStream::connect(self.addr).is_ok_and(|stream| serves(stream, peer.dialect)) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::Refused(format!("{name} ended: {status}: {}", self.last_log())));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Err(Error::Refused(format!("{name} does not serve: {}", self.last_log())))
    }

    fn last_log(&self) -> String {
        let log = fs::read_to_string(self._dir.path().join("log")).unwrap_or_default();
        log.lines().rev().take(3).collect::<Vec<_>>().join(" / ")
    }

    /// User and system time of the whole process so far.
    pub(super) fn cpu(&self) -> Result<Duration, Error> {
        let path = format!("/proc/{}/stat", self.child.id());
        let stat = fs::read_to_string(&path).map_err(Error::io(&path))?;
        // The name of the process may hold spaces, so count the fields from its end.
        let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let ticks = after_name
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().unwrap_or(0))
            .sum::<u64>();
        // USER_HZ is 100 on every Linux that this runs on.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// Numbers from INFO, of a server of RESP.
    pub(super) fn facts<const N: usize>(&self, names: [&str; N]) -> Result<[u64; N], Error> {
        let mut stream = TcpStream::connect(self.addr).map_err(Error::io("connect"))?;
        stream.set_read_timeout(Some(READY_MAX)).map_err(Error::io("time limit"))?;
        stream.write_all(b"INFO\r\nQUIT\r\n").map_err(Error::io("ask for INFO"))?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply).map_err(Error::io("read INFO"))?;
        let text = String::from_utf8_lossy(&reply);
        let mut facts = [0; N];
        for (fact, name) in facts.iter_mut().zip(names) {
            let number = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            *fact = number
                .and_then(|number| number.trim().parse().ok())
                .ok_or_else(|| Error::Refused(format!("INFO tells no {name}")))?;
        }
        Ok(facts)
    }

    /// Resident bytes.
    pub(super) fn rss(&self) -> Result<u64, Error> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).map_err(Error::io(&path))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        kib.map(|kib| kib * 1024).ok_or_else(|| Error::Refused(format!("{path}: no VmRSS")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whoever speaks RESP accepts before it has loaded what it holds, and answers `-LOADING` until then.
fn serves(mut stream: TcpStream, dialect: Dialect) -> bool {
    if dialect != Dialect::Resp {
        return true;
    }
    let expected = b"+PONG\r\n";
    let mut reply = [0; 7];
    stream.set_read_timeout(Some(READY_MAX)).is_ok()
        && stream.write_all(b"PING\r\n").is_ok()
        && stream.read_exact(&mut reply).is_ok()
        && reply == *expected
}

/// Binds this process (the load generator) to a core; threads started later inherit it.
pub(super) fn pin_self(core: usize) -> bool {
    Command::new("taskset")
        .args(["-a", "-cp", &core.to_string(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn pinned(inner: &Command, core: Option<usize>) -> Command {
    // taskset execs what it starts, so the child's process ID is the server's.
    let mut command = match core {
        Some(core) => {
            let mut command = Command::new("taskset");
            command.args(["-c", &core.to_string()]).arg(inner.get_program());
            command
        }
        None => Command::new(inner.get_program()),
    };
    command.args(inner.get_args());
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}
