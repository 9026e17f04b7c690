//! One member's process: started, watched, started again later each time, stopped in good order.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::STOP_LIMIT;
use super::dir::Dir;
use crate::Error;

/// The first wait before a process that ended is started again; doubled each time, up to the last.
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LAST_WAIT: Duration = Duration::from_secs(10);
/// A process that ran so long has got over what ended it.
const STABLE: Duration = Duration::from_secs(30);
/// How often an end is looked for while waiting for it.
const LOOK: Duration = Duration::from_millis(20);
/// How much of a log's end is read for the last words of a member.
const LAST_WORDS_BYTES: u64 = 4096;

/// What members run: a program, and what comes before the name of the configuration file.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    pub args: Vec<String>,
}

/// What a process is at.
pub(super) enum State {
    Running,
    Stopping,
    /// It ended by itself again and again; the sentence says how, and when it is started again.
    Waiting(String),
}

/// A member's process, over its restarts.
pub(super) struct Process {
    folder: PathBuf,
    conf: PathBuf,
    child: Child,
    /// Fingerprint of what takes a restart, as it was when it started.
    pub(super) template: String,
    /// So often it was started again with that.
    pub(super) restarts: u32,
    started: Instant,
    /// When and how it ended, unless it runs.
    ended: Option<(Instant, ExitStatus)>,
    wait: Duration,
    stopping: Option<Instant>,
    /// Its folder goes when it is gone.
    doomed: bool,
}

/// The clock of processes.
fn now() -> Instant {
    #[expect(
        clippy::disallowed_methods,
        reason = "waiting for processes is the local driver's rim"
    )]
    Instant::now()
}

impl Process {
    pub(super) fn start(
        program: &Program,
        folder: &Path,
        conf: &Path,
        template: String,
    ) -> Result<Self, Error> {
        let child = spawn(program, folder, conf)?;
        let (folder, conf) = (folder.into(), conf.into());
        Ok(Self {
            folder,
            conf,
            child,
            template,
            restarts: 0,
            started: now(),
            ended: None,
            wait: FIRST_WAIT,
            stopping: None,
            doomed: false,
        })
    }

    pub(super) fn uid(&self) -> String {
        self.child.id().to_string()
    }

    /// Looks whether it has ended by now; one that does not stop in time is killed.
    fn look(&mut self) {
        if self.ended.is_some() {
            return;
        }
        if let Ok(Some(status)) = self.child.try_wait() {
            self.ended = Some((now(), status));
            if self.started.elapsed() > STABLE {
                self.wait = FIRST_WAIT;
            }
        } else if self.stopping.is_some_and(|since| since.elapsed() > STOP_LIMIT) {
            self.signal(Signal::KILL);
        }
    }

    /// It was stopped, and is gone; its folder too when that was wished.
    pub(super) fn is_gone(&mut self) -> bool {
        self.look();
        let gone = self.stopping.is_some() && self.ended.is_some();
        if gone && self.doomed {
            // What cannot be deleted now stays as a folder without a body, which the plan sees.
            let _ = fs::remove_dir_all(&self.folder);
        }
        gone
    }

    /// It has just ended, or it is time to start it again.
    pub(super) fn wants_a_look(&mut self) -> bool {
        let ran = self.ended.is_none();
        self.look();
        match self.ended {
            Some((at, _)) => ran || self.stopping.is_some() || at.elapsed() >= self.wait,
            None => false,
        }
    }

    /// It ended by itself, and has waited long enough to be started again.
    pub(super) fn is_due(&mut self) -> bool {
        self.look();
        self.stopping.is_none() && self.ended.is_some_and(|(at, _)| at.elapsed() >= self.wait)
    }

    /// Starts it again, after a longer wait the next time.
    pub(super) fn start_again(&mut self, program: &Program, template: String) {
        self.wait = (self.wait * 2).min(LAST_WAIT);
        match spawn(program, &self.folder, &self.conf) {
            Ok(child) => {
                self.child = child;
                self.restarts = if self.template == template { self.restarts + 1 } else { 0 };
                self.template = template;
                self.started = now();
                self.ended = None;
            }
            Err(error) => {
                tracing::warn!("{error}");
                self.ended = self.ended.map(|(_, status)| (now(), status));
            }
        }
    }

    pub(super) fn state(&self) -> State {
        if self.stopping.is_some() {
            return State::Stopping;
        }
        // A single restart is nothing to speak of; the second one is.
        match self.ended.filter(|_| self.wait > FIRST_WAIT) {
            None => State::Running,
            Some((_, status)) => {
                let words = last_words(&self.folder.join("log")).unwrap_or_default();
                let (end, wait) = (text(status), self.wait.as_secs_f32());
                State::Waiting(format!("{end}, started again after {wait:.1} s: {words}"))
            }
        }
    }

    /// Asks it to end in good order.
    pub(super) fn stop(&mut self) {
        if self.stopping.is_none() {
            self.stopping = Some(now());
            self.look();
            self.signal(Signal::TERM);
        }
    }

    /// The same, and its folder goes with it when `disk` says so.
    pub(super) fn stop_and(&mut self, disk: bool) {
        self.doomed |= disk;
        self.stop();
    }

    /// A child whose end was not taken note of still has its ID to itself.
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.ended.is_none()) {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for its end, which is made when it does not come in time.
    pub(super) async fn ended(mut self) {
        while !self.is_gone() {
            tokio::time::sleep(LOOK).await;
        }
        let _ = fs::remove_file(self.folder.join("pid"));
    }
}

/// Without `larder` no member: also when it ends by a panic.
impl Drop for Process {
    fn drop(&mut self) {
        self.look();
        self.signal(Signal::KILL);
    }
}

fn spawn(program: &Program, folder: &Path, conf: &Path) -> Result<Child, Error> {
    let failed = |e: io::Error| Error::world(format!("start {}", program.path.display()), e);
    let log = OpenOptions::new().create(true).append(true).open(folder.join("log"));
    let log = log.map_err(failed)?;
    let child = Command::new(&program.path)
        .args(&program.args)
        .arg(conf)
        // A group of its own: Ctrl-C is for `larder`, which stops its members in order.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .spawn()
        .map_err(failed)?;
    // For the next `larder`, should this one be killed; see `sweep`.
    let _ = fs::write(folder.join("pid"), child.id().to_string());
    Ok(child)
}

/// The process that runs as the member of a folder, whoever started it. Only one whose command line
/// names the configuration file of that member is taken for it: IDs of processes are used again.
pub(super) fn running_in(folder: &Path) -> Option<Pid> {
    let text = fs::read_to_string(folder.join("pid")).ok()?;
    let pid = Pid::from_raw(text.trim().parse().ok()?)?;
    let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
    let conf = folder.join("larder.conf");
    let conf = conf.as_os_str().as_encoded_bytes();
    line.split(|b| *b == 0).any(|word| word == conf).then_some(pid)
}

/// Ends members that an earlier `larder` left behind.
pub(super) fn sweep(dir: &Dir) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(dir.members()) else { return Ok(()) };
    let folders: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    for pid in folders.iter().filter_map(|f| running_in(f)) {
        let _ = kill_process(pid, Signal::TERM);
    }
    let since = now();
    for folder in folders {
        while let Some(pid) = running_in(&folder) {
            if since.elapsed() > STOP_LIMIT {
                let _ = kill_process(pid, Signal::KILL);
            }
            if since.elapsed() > 2 * STOP_LIMIT {
                let what = format!("process {} stays", pid.as_raw_nonzero());
                return Err(Error::world("end a member of an earlier run", what));
            }
            std::thread::sleep(LOOK);
        }
    }
    Ok(())
}

fn text(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".into(),
    }
}

/// The last line of a log that says something.
fn last_words(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let len = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(LAST_WORDS_BYTES))).ok()?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS_BYTES).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    text.lines().rev().find(|line| !line.trim().is_empty()).map(|line| line.trim().to_string())
}
