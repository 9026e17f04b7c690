//! A cluster of local processes, run from a manifest in a temporary folder, and signals to its members alone.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use super::{Error, Interrupt, now};

/// How long a cluster may take until all of it is Ready.
const START_LIMIT: Duration = Duration::from_secs(120);
/// How often it is looked for an interruption meanwhile.
const LOOK: Duration = Duration::from_millis(50);
/// How much of the log of `larder run` is told when it fails.
const LAST_LINES: usize = 5;

/// `larder run`, stopped in good order when dropped, and its folder removed.
pub struct Cluster {
    run: Child,
    /// Addresses of the members that clients connect to.
    pub endpoints: Vec<String>,
    pub password: Option<String>,
    folder: tempfile::TempDir,
    interrupt: Interrupt,
}

impl Cluster {
    /// Waits until all of it is Ready. `run` is a `larder run`, to which the manifest and the folder are added.
    ///
    /// # Errors
    /// When it is not Ready in time, and what it said last.
    pub fn start(mut run: Command, manifest: &Path, interrupt: Interrupt) -> Result<Self, Error> {
        let folder = tempfile::Builder::new().prefix("larder-bench-").tempdir();
        let folder = folder.map_err(Error::io("make a temporary folder"))?;
        let log = File::create(log_in(folder.path())).map_err(Error::io("make a log"))?;
        let run = run
            .args(["--output", "json", "-f"])
            .arg(manifest)
            .arg("--dir")
            .arg(folder.path().join("state"))
            // A group of its own: Ctrl-C is for the bench, which stops the cluster.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(Error::io("start larder run"))?;
        let (endpoints, password) = (Vec::new(), None);
        let mut cluster = Self { run, endpoints, password, folder, interrupt };
        cluster.await_ready()?;
        Ok(cluster)
    }

    fn await_ready(&mut self) -> Result<(), Error> {
        let (tell, said) = mpsc::channel();
        if let Some(output) = self.run.stdout.take() {
            // Read to the end, whether anybody listens or not: a full pipe would stop it.
            thread::spawn(move || {
                for line in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = tell.send(line);
                }
            });
        }
        let start = now();
        while start.elapsed() < START_LIMIT {
            self.check()?;
            match said.recv_timeout(LOOK) {
                Ok(line) => {
                    if self.hear(&line) {
                        return Ok(());
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(self.failed("ended before all members were Ready"));
                }
            }
        }
        Err(self.failed(&format!("has not all members Ready after {START_LIMIT:?}")))
    }

    /// Takes endpoints and password from the line that says that all is Ready.
    fn hear(&mut self, line: &str) -> bool {
        let Ok(ready) = serde_json::from_str::<serde_json::Value>(line) else { return false };
        let Some(endpoints) = ready["endpoints"].as_array() else { return false };
        self.endpoints =
            endpoints.iter().filter_map(|each| each.as_str().map(str::to_owned)).collect();
        self.password = ready["password"].as_str().map(str::to_owned);
        !self.endpoints.is_empty()
    }

    fn failed(&self, how: &str) -> Error {
        let log = fs::read_to_string(log_in(self.folder.path())).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        Error::Refused(format!("larder run {how}; what it said last:\n{last}"))
    }

    /// # Errors
    /// When the bench was interrupted.
    pub fn check(&self) -> Result<(), Error> {
        self.interrupt.check()
    }

    /// Folders of the members, one each, with their logs.
    pub fn members(&self) -> PathBuf {
        self.folder.path().join("state/members")
    }

    /// Sends a signal to a member.
    ///
    /// # Errors
    /// When the process is no child of this cluster's `larder run`: nobody else's is touched.
    pub fn signal(&self, pid: Pid, signal: Signal) -> Result<(), Error> {
        let id = pid.as_raw_nonzero();
        let failed = || format!("send {signal:?} to process {id}");
        // Held before it is looked at: an ID that is used again meanwhile is not taken for the member's.
        let held = pidfd_open(pid, PidfdFlags::empty());
        let held = held.map_err(|e| Error::io(failed())(e.into()))?;
        if parent_of(pid) != Some(self.run.id()) {
            return Err(Error::Refused(format!("process {id} is no member of this cluster")));
        }
        pidfd_send_signal(held, signal).map_err(|e| Error::io(failed())(e.into()))
    }

    /// Stops a member where it is until the pause is dropped.
    ///
    /// # Errors
    /// As for `signal`.
    pub fn pause(&self, pid: Pid) -> Result<Pause<'_>, Error> {
        self.signal(pid, Signal::STOP)?;
        Ok(Pause { cluster: self, pid })
    }

    fn members_pids(&self) -> impl Iterator<Item = Pid> {
        let folders = fs::read_dir(self.members()).into_iter().flatten().flatten();
        folders.filter_map(|folder| {
            let text = fs::read_to_string(folder.path().join("pid")).ok()?;
            Pid::from_raw(text.trim().parse().ok()?)
        })
    }
}

fn log_in(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// As the kernel tells it.
fn parent_of(pid: Pid) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The program's name stands in brackets, and may hold brackets and spaces itself.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // What is stopped cannot end in good order.
        for pid in self.members_pids() {
            let _ = self.signal(pid, Signal::CONT);
        }
        if let Some(pid) = i32::try_from(self.run.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        let _ = self.run.wait();
    }
}

/// A member that is stopped for as long as this lives.
pub struct Pause<'c> {
    cluster: &'c Cluster,
    pid: Pid,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let _ = self.cluster.signal(self.pid, Signal::CONT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(run: &mut Command) -> Cluster {
        Cluster {
            run: run.spawn().unwrap(),
            endpoints: Vec::new(),
            password: None,
            folder: tempfile::tempdir().unwrap(),
            interrupt: Interrupt::default(),
        }
    }

    #[test]
    fn who_is_no_member_gets_no_signal() {
        let cluster = cluster(Command::new("sleep").arg("60"));
        let mut stranger = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_child(&stranger);
        assert_eq!(parent_of(pid), Some(std::process::id()));
        let refused = cluster.signal(pid, Signal::KILL).unwrap_err().to_string();
        assert!(refused.ends_with("is no member of this cluster"), "{refused}");
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }

    #[test]
    fn what_keeps_a_cluster_from_being_ready_is_told() {
        let mut run = Command::new("sh");
        run.args(["-c", "echo 'no room' >&2; exit 1"]);
        let failed = Cluster::start(run, Path::new("x"), Interrupt::default()).err().unwrap();
        assert!(failed.to_string().ends_with("said last:\nno room"), "{failed}");
        let interrupt = Interrupt::default();
        interrupt.set();
        let ended = Cluster::start(Command::new("true"), Path::new("x"), interrupt).err();
        assert!(matches!(ended, Some(Error::Interrupted)));
    }
}
