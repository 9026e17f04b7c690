//! A `larder run` and its folder.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long anything may take; far more than it does.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Cluster {
    child: Child,
    dir: PathBuf,
    pub(crate) endpoints: Vec<String>,
    pub(crate) password: String,
}

/// Waits until it holds.
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    #[expect(
        clippy::disallowed_methods,
        reason = "a test with real processes has a real time limit"
    )]
    let since = Instant::now();
    while !holds() {
        assert!(since.elapsed() < LIMIT, "not within {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub(crate) fn is_alive(pid: i32) -> bool {
    // A process that ended and that nobody waits for any more has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn signal(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

pub(crate) fn manifest(dir: &Path, spec: &str) -> PathBuf {
    let file = dir.join("demo.yaml");
    let head = "apiVersion: larder.dev/v1alpha1\nkind: CacheCluster\nmetadata: {name: demo}\n";
    std::fs::write(&file, format!("{head}spec: {spec}\n")).unwrap();
    file
}

fn larder(dir: &Path, command: &str, spec: &str) -> Command {
    let mut larder = Command::new(env!("CARGO_BIN_EXE_larder"));
    larder.arg(command).arg("-f").arg(manifest(dir, spec)).arg("--dir").arg(dir.join("data"));
    larder
}

/// What `larder run` says when it does not take the manifest.
pub(crate) fn refused(dir: &Path, spec: &str) -> String {
    let output = larder(dir, "run", spec).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

/// What `larder plan` says.
pub(crate) fn planned(dir: &Path, spec: &str) -> String {
    let output = larder(dir, "plan", spec).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

impl Cluster {
    /// Starts it and waits until it is Ready.
    pub(crate) fn start(dir: &Path, spec: &str) -> Self {
        let mut child = larder(dir, "run", spec)
            .args(["--output", "json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(out).read_line(&mut line);
            let _ = send.send(line);
        });
        let line = receive.recv_timeout(LIMIT);
        let mut cluster =
            Self { child, dir: dir.join("data"), endpoints: Vec::new(), password: String::new() };
        let ready: Value = match line.map(|l| serde_json::from_str(&l)) {
            Ok(Ok(ready)) => ready,
            other => panic!("not Ready: {other:?}\n{}", cluster.logs()),
        };
        let endpoints = ready["endpoints"].as_array().unwrap();
        cluster.endpoints = endpoints.iter().map(|e| e.as_str().unwrap().into()).collect();
        cluster.password = ready["password"].as_str().unwrap().into();
        cluster
    }

    /// Stops it as Ctrl-C does.
    pub(crate) fn stop(mut self) {
        signal(self.pid(), Signal::INT);
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn kill_larder(&mut self) {
        signal(self.pid(), Signal::KILL);
        self.child.wait().unwrap();
    }

    fn pid_of(&self, member: &str) -> i32 {
        let file = self.dir.join("members").join(member).join("pid");
        std::fs::read_to_string(file).unwrap().trim().parse().unwrap()
    }

    pub(crate) fn kill(&self, member: &str) {
        signal(self.pid_of(member), Signal::KILL);
    }

    /// Their data are lost, and they are killed before anybody notices.
    pub(crate) fn wipe_all(&self, members: &[&str]) {
        members.iter().for_each(|member| signal(self.pid_of(member), Signal::STOP));
        for member in members {
            std::fs::remove_dir_all(self.dir.join("members").join(member).join("data")).unwrap();
        }
        members.iter().for_each(|member| self.kill(member));
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        self.members().iter().map(|m| self.pid_of(m)).collect()
    }

    fn members(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("members")).into_iter().flatten();
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    pub(crate) fn status(&self) -> Value {
        let text = std::fs::read(self.dir.join("status.json")).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    /// The ends of all logs and the status, for a test that fails.
    fn logs(&self) -> String {
        let mut out = std::fs::read_to_string(self.dir.join("status.json")).unwrap_or_default();
        for member in self.members() {
            let log = self.dir.join("members").join(&member).join("log");
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(12).collect();
            out += &format!("\n{member}:\n");
            out.extend(lines.into_iter().rev().map(|l| format!("  {l}\n")));
        }
        out
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
