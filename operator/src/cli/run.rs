//! `larder run`: a cluster of local processes, from its manifest until Ctrl-C.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crds::reasons::condition;
use engine::topology::Role;
use serde_json::json;

use super::manifest::{self, Manifest};
use super::{Output, RunArgs, Stop};
use crate::Error;
use crate::desired::{Desired, Seat};
use crate::driver::local::{Auth, Local, Program};
use crate::round::{Fate, Round, round};

/// While something is under way the world is looked at so often, and this often otherwise: a look
/// costs a question per member on the loopback.
const BUSY: Duration = Duration::from_millis(150);
const SETTLED: Duration = Duration::from_secs(2);
/// How often processes and the manifest are looked at in between.
const TICK: Duration = Duration::from_millis(50);

pub(super) async fn run(args: RunArgs) -> Result<(), Error> {
    if let Some(parent) = args.with_parent
        && !super::parent::end_with(parent)
    {
        return Err(Error::world("run", format!("the process {parent} is not there any more")));
    }
    let Manifest { mut desired, cluster } = manifest::read(&args.manifest.file)?;
    let dir = args.manifest.dir(&desired.name);
    let disabled = cluster.spec.auth.as_ref().is_some_and(|a| a.disabled);
    let auth = if disabled { Auth::Disabled } else { Auth::Generated };
    let year = jiff::Zoned::now().year();
    let mut stop = Stop::new()?;
    let mut local = Local::open(&dir, program(args.server)?, auth, i32::from(year))?;
    let mut progress = Progress::new(args.output);
    progress.line(&format!("{}: members in {}", desired.name, local.path().display()));
    let mut source = Source::new(&args.manifest.file);
    let mut primaries = Vec::new();
    loop {
        let wait = match round(&mut local, &desired).await {
            Ok(done) => {
                primaries = primaries_of(&desired, &done);
                progress.tell(&desired, &local, &done);
                if done.plan.is_settled() { SETTLED } else { BUSY }
            }
            Err(error) => {
                progress.line(&format!("larder: {error}"));
                SETTLED
            }
        };
        let mut left = wait;
        while left > Duration::ZERO && !local.wants_a_look() {
            tokio::select! {
                () = tokio::time::sleep(TICK) => left = left.saturating_sub(TICK),
                () = stop.asked() => {
                    progress.line("stopping all members; Ctrl-C again kills them");
                    tokio::select! {
                        () = local.stop(&primaries) => {}
                        () = stop.asked() => {}
                    }
                    return Ok(());
                }
            }
            if let Some(read) = source.changed() {
                match read {
                    Ok(read) if read.name != desired.name => {
                        progress.line("metadata.name cannot change while the cluster runs");
                    }
                    Ok(read) => {
                        progress.line("the manifest changed");
                        desired = read;
                    }
                    Err(error) => progress.line(&format!("the manifest is not taken: {error}")),
                }
                break;
            }
        }
    }
}

/// What members run: this very program, unless another one is named.
fn program(server: Option<PathBuf>) -> Result<Program, Error> {
    if let Some(path) = server {
        return Ok(Program { path, args: Vec::new() });
    }
    let path = std::env::current_exe().map_err(|e| Error::world("find this program", e))?;
    let parent = std::process::id().to_string();
    Ok(Program { path, args: vec!["server".into(), "--with-parent".into(), parent] })
}

fn primaries_of(desired: &Desired, done: &Round) -> Vec<Seat> {
    let Some(topology) = &done.observed.topology else { return Vec::new() };
    let primaries = topology.shards.values().filter_map(|s| s.primary.as_ref());
    primaries.filter_map(|id| Seat::parse(&desired.name, &topology.members.get(id)?.name)).collect()
}

/// The manifest's file, read again when it changes.
struct Source {
    file: PathBuf,
    seen: Option<(SystemTime, u64)>,
}

impl Source {
    fn new(file: &Path) -> Self {
        Self { file: file.into(), seen: modified(file) }
    }

    fn changed(&mut self) -> Option<Result<Desired, Error>> {
        let now = modified(&self.file);
        if now.is_none() || now == self.seen {
            return None;
        }
        self.seen = now;
        Some(manifest::read(&self.file).map(|m| m.desired))
    }
}

/// When the file was written last, and its length: a look between emptying and writing may see the same time
/// twice, since the kernel's clock moves in steps of milliseconds.
fn modified(file: &Path) -> Option<(SystemTime, u64)> {
    let meta = std::fs::metadata(file).ok()?;
    Some((meta.modified().ok()?, meta.len()))
}

/// What was told so far, so that only news are.
struct Progress {
    output: Output,
    members: BTreeMap<String, String>,
    failed: BTreeMap<String, String>,
    failovers: usize,
    ready: bool,
    ever: bool,
}

impl Progress {
    fn new(output: Output) -> Self {
        let (members, failed) = (BTreeMap::new(), BTreeMap::new());
        Self { output, members, failed, failovers: 0, ready: false, ever: false }
    }

    /// With json on standard output, whatever is for people goes to standard error.
    fn line(&self, text: &str) {
        match self.output {
            Output::Text => println!("{text}"),
            Output::Json => eprintln!("{text}"),
        }
    }

    fn tell(&mut self, desired: &Desired, local: &Local, done: &Round) {
        for (seat, member) in &done.observed.members {
            let name = seat.name(&desired.name);
            let word = word_of(done, *seat);
            if self.members.get(&name) != Some(&word) {
                self.line(&format!("  {name}  127.0.0.1:{}  {word}", member.address.client_port()));
                self.members.insert(name, word);
            }
        }
        for (planned, fate) in done.plan.steps.iter().zip(&done.fates) {
            let step = planned.step.to_string();
            if let Fate::Failed(error) = fate {
                let error = error.to_string();
                if self.failed.get(&step) != Some(&error) {
                    self.line(&format!("  {}: {step}: {error}", planned.rule));
                    self.failed.insert(step, error);
                }
            } else {
                self.failed.remove(&step);
            }
        }
        for failover in done.status.failovers.iter().skip(self.failovers) {
            let dropped = failover.dropped_writes.map_or("not known yet".into(), |n| n.to_string());
            self.line(&format!(
                "  shard {} failed over to {} (window {} ms, writes dropped: {dropped})",
                failover.shard, failover.to, failover.window_ms
            ));
        }
        self.failovers = done.status.failovers.len();
        let ready = done.status.condition(condition::READY).is_some_and(|c| c.status == "True");
        let whole = done.plan.is_settled();
        if self.ever && ready != self.ready {
            let message = done.status.condition(condition::READY).map(|c| c.message.clone());
            let word = if ready { "Ready" } else { "not Ready" };
            self.line(&format!("{word}: {}", message.unwrap_or_default()));
            self.ready = ready;
        }
        if !self.ever && ready && whole {
            (self.ever, self.ready) = (true, true);
            self.greet(desired, local, done);
        }
    }

    /// How to connect, once all is there.
    fn greet(&self, desired: &Desired, local: &Local, done: &Round) {
        let endpoints: Vec<&str> =
            done.observed.access.endpoints.iter().map(|e| e.address.as_str()).collect();
        if self.output == Output::Json {
            let line = json!({"endpoints": endpoints, "password": local.password()});
            println!("{line}");
            return;
        }
        let port = endpoints.first().and_then(|e| e.rsplit(':').next()).unwrap_or("7000");
        println!("Ready: {} members.", done.observed.members.len());
        let tls = tls_options(desired, local);
        match local.password() {
            Some(_) => {
                let file = local.password_file();
                let file = file.display();
                println!("  redis-cli -c -p {port}{tls} -a \"$(cat '{file}')\" --no-auth-warning");
                println!("The password is in {file}.");
            }
            None => println!("  redis-cli -c -p {port}{tls}"),
        }
        println!("Ctrl-C stops all members; started again, the data is there.");
    }
}

/// What redis-cli needs beside the port, where it is one of TLS.
fn tls_options(desired: &Desired, local: &Local) -> String {
    if !desired.serves_tls() {
        return String::new();
    }
    let (ca, own) = local.client_tls();
    let mut options = format!(" --tls --cacert '{}'", ca.join("ca.crt").display());
    if desired.directives.get("tls-auth-clients").is_some_and(|auth| auth != "no") {
        let (cert, key) = (own.join("tls.crt"), own.join("tls.key"));
        options.push_str(&format!(" --cert '{}' --key '{}'", cert.display(), key.display()));
    }
    options
}

/// What a member is at, in a few words.
fn word_of(done: &Round, seat: Seat) -> String {
    let Some(member) = done.observed.members.get(&seat) else { return "gone".into() };
    let Some(body) = &member.body else { return "not running".into() };
    if let Some(stuck) = &body.stuck {
        return stuck.clone();
    }
    let Some(report) = &member.report else { return "starting".into() };
    match (report.role, seat.shard()) {
        (Role::Primary, Some(shard)) => format!("primary of shard {shard}"),
        (Role::Replica, Some(shard)) if report.in_sync => format!("replica of shard {shard}"),
        (Role::Replica, Some(shard)) => format!("replica of shard {shard}, not in sync yet"),
        (Role::Witness, _) => "witness".into(),
        _ if report.loading => "loading".into(),
        _ => "waiting for the cluster".into(),
    }
}
