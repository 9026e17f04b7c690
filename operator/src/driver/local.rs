//! The driver for local processes: a cluster out of the same manifest, where there is no Kubernetes.
//!
//! A member is a process, its body; its folder is its disk. What Kubernetes would do for it is done
//! here in small: a process that ends is started again, later each time; it never outlives `larder`.
//!
//! ```text
//! DIR/lock  state.json  status.json  password  tls/{ca,operator,member}/
//! DIR/members/demo-0-1/{larder.conf, log, pid, data/}
//! ```
//!
//! What it does not promise:
//! - One machine: it goes, all goes. Members do not survive their `larder` (started again, the data is
//!   there), so nobody repairs while it is not running; failover among the members goes on meanwhile.
//! - No limits: `resources`, `affinity`, `tolerations`, spreading, labels, `image` and the volume's size
//!   and class say nothing here. Every member has a folder, as if it had a volume.
//! - Ports are those of the machine: one that somebody else took while the cluster was down is replaced
//!   by another one, and clients have to be told.
//! - With `tls`, clients see the members' own certificate, `DIR/tls/member`, whatever Secret is named; one that
//!   they show comes from the same CA, as `DIR/tls/operator` does.
//! - Only the loopback address listens. Who can read DIR can read the password and the keys.

mod conf;
mod dir;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use engine::bus::tls::Tls;

use crate::Error;
use crate::admin::{self, Said};
use crate::desired::{Desired, Seat};
use crate::driver::{Driver, Recorded};
use crate::observed::{Access, Address, Body, Disk, Member, Observed, Phase};
use crate::plan::Step;
use crate::status::Status;
use dir::{Dir, Ports};
pub use process::Program;
use process::{Process, State};

/// The loopback address: the only one that members of a local cluster have.
const HOST: &str = "127.0.0.1";
/// How long a member may take to stop in good order before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// A cluster of local processes.
pub struct Local {
    dir: Dir,
    program: Program,
    tls: Tls,
    password: Option<String>,
    processes: BTreeMap<Seat, Process>,
    /// Addresses of members that belong to the cluster, those of the council first: who takes wishes.
    council: Vec<String>,
}

impl Local {
    /// Takes possession of a folder, which is made when there is none, and ends what an earlier
    /// `larder` left running in it.
    ///
    /// # Errors
    /// When another `larder` runs in it, or something cannot be read or written.
    pub fn open(dir: &Path, program: Program, auth: Auth, year: i32) -> Result<Self, Error> {
        let dir = Dir::take(dir)?;
        process::sweep(&dir)?;
        let tls = dir.tls(year)?;
        let password = match auth {
            Auth::Generated => Some(dir.password()?),
            Auth::Disabled => None,
        };
        let (processes, council) = (BTreeMap::new(), Vec::new());
        Ok(Self { dir, program, tls, password, processes, council })
    }

    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    pub fn password_file(&self) -> PathBuf {
        self.dir.password_file()
    }

    /// The CA of the certificate that clients see, and one that they may show.
    pub fn client_tls(&self) -> (PathBuf, PathBuf) {
        (self.dir.member_tls(), self.dir.operator_tls())
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// The log of the member in a seat.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.dir.member(name).join("log")
    }

    /// A process has ended that nobody has looked at yet, or is due to be started again.
    pub fn wants_a_look(&mut self) -> bool {
        self.processes.values_mut().any(Process::wants_a_look)
    }

    /// Stops all members in good order: the primaries last, so that the council moves nothing.
    /// Those that are not done in time are killed.
    pub async fn stop(&mut self, primaries: &[Seat]) {
        let (last, first): (Vec<_>, Vec<_>) =
            self.processes.keys().copied().partition(|seat| primaries.contains(seat));
        for group in [first, last] {
            for seat in &group {
                if let Some(process) = self.processes.get_mut(seat) {
                    process.stop();
                }
            }
            let all = group.iter().filter_map(|seat| self.processes.remove(seat));
            futures::future::join_all(all.map(|process| process.ended())).await;
        }
    }

    fn start(&mut self, desired: &Desired, seat: Seat) -> Result<(), Error> {
        if self.processes.contains_key(&seat) {
            return Ok(());
        }
        let name = seat.name(&desired.name);
        let conf = self.write_conf(desired, seat)?;
        let folder = self.dir.member(&name);
        let process = Process::start(&self.program, &folder, &conf, desired.at_start_hash())?;
        self.processes.insert(seat, process);
        Ok(())
    }

    fn write_conf(&mut self, desired: &Desired, seat: Seat) -> Result<PathBuf, Error> {
        let name = &seat.name(&desired.name);
        let text = conf::text(&conf::Member {
            desired,
            name,
            is_witness: seat.shard().is_none(),
            host: HOST,
            ports: self.dir.ports(name)?,
            password: self.password.as_deref(),
            data: &self.dir.data(name)?,
            tls: &self.dir.member_tls(),
        });
        self.dir.write_conf(name, &text)
    }

    /// Starts processes again that ended by themselves, with a file made anew: somebody else may have
    /// taken a port meanwhile.
    fn start_again(&mut self, desired: &Desired) -> Result<(), Error> {
        let due: Vec<Seat> =
            self.processes.iter_mut().filter_map(|(s, p)| p.is_due().then_some(*s)).collect();
        for seat in due {
            self.write_conf(desired, seat)?;
            if let Some(process) = self.processes.get_mut(&seat) {
                process.start_again(&self.program, desired.at_start_hash());
            }
        }
        Ok(())
    }

    fn bus_of(&self, seat: Seat, cluster: &str) -> Option<String> {
        self.dir.known_ports(&seat.name(cluster)).map(|p| format!("{HOST}:{}", p.bus))
    }
}

/// What there is in a folder, for somebody who only looks; another `larder` may be running in it.
///
/// # Errors
/// When the folder cannot be read.
pub async fn look(path: &Path, desired: &Desired) -> Result<Observed, Error> {
    let template = desired.at_start_hash();
    let mut observed = Observed { now: dir::now(), template, ..Observed::default() };
    if !path.exists() {
        return Ok(observed);
    }
    let dir = Dir::look_at(path)?;
    observed.past = dir.status().map(Box::new);
    list_disks(&mut observed, &dir, &desired.name)?;
    for (seat, member) in &mut observed.members {
        if let Some(pid) = process::running_in(&dir.member(&seat.name(&desired.name))) {
            let uid = pid.as_raw_nonzero().to_string();
            let body = Body { uid, phase: Phase::Running, started: true, ..Body::default() };
            member.body = Some(body);
        }
    }
    if let Ok(tls) = dir.known_tls() {
        hear_all(&mut observed, &dir, desired, &tls).await;
    }
    Ok(observed)
}

fn list_disks(observed: &mut Observed, dir: &Dir, cluster: &str) -> Result<(), Error> {
    for seat in dir.seats(cluster)? {
        let disk = Some(Disk {
            uid: seat.to_string(),
            fresh: dir.is_fresh(&seat.name(cluster)),
            ..Disk::default()
        });
        observed.members.insert(seat, Member { disk, ..Member::default() });
    }
    Ok(())
}

/// Asks every member that has a body that runs, all at the same time.
async fn hear_all(observed: &mut Observed, dir: &Dir, desired: &Desired, tls: &Tls) {
    let mut asks = Vec::new();
    for (seat, member) in &mut observed.members {
        let Some(Ports { port, bus, .. }) = dir.known_ports(&seat.name(&desired.name)) else {
            continue;
        };
        let (port, tls_port) = if desired.serves_tls() { (0, port) } else { (port, 0) };
        member.address = Address { host: HOST.into(), port, tls_port, bus_port: bus };
        if member.body.as_ref().is_some_and(|b| b.phase == Phase::Running) {
            let (seat, bus) = (*seat, format!("{HOST}:{bus}"));
            asks.push(async move { (seat, admin::report(&bus, tls).await) });
        }
    }
    for (seat, answer) in futures::future::join_all(asks).await {
        if let Some(told) = answer {
            observed.hear(seat, told);
        }
    }
}

/// Who may speak to the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Who knows the password that was made for this cluster.
    Generated,
    /// Everybody on this machine.
    Disabled,
}

impl Driver for Local {
    async fn scaffold(&mut self, _: &Desired) -> Result<(), Error> {
        // Folder, certificates and password were made when the folder was opened.
        Ok(())
    }

    async fn observe(&mut self, desired: &Desired) -> Result<Observed, Error> {
        let mut observed =
            Observed { past: self.dir.status().map(Box::new), ..Observed::default() };
        observed.now = dir::now();
        observed.template = desired.at_start_hash();
        // What was stopped and is gone by now makes room for what comes next.
        let ended: Vec<Seat> = self
            .processes
            .iter_mut()
            .filter_map(|(seat, process)| process.is_gone().then_some(*seat))
            .collect();
        for seat in ended {
            self.processes.remove(&seat);
        }
        self.start_again(desired)?;
        list_disks(&mut observed, &self.dir, &desired.name)?;
        let template = desired.at_start_hash();
        for (seat, process) in &self.processes {
            let member = observed.members.entry(*seat).or_default();
            let (phase, stuck) = match process.state() {
                State::Running => (Phase::Running, None),
                State::Stopping => (Phase::Stopping, None),
                State::Waiting(why) => (Phase::Running, Some(why)),
            };
            member.body = Some(Body {
                uid: process.uid(),
                phase,
                started: true,
                outdated: process.template != template,
                stuck,
                restarts: process.restarts,
                ..Body::default()
            });
        }
        hear_all(&mut observed, &self.dir, desired, &self.tls).await;
        self.council = council(&observed);
        observed.access = self.access(desired, &observed);
        Ok(observed)
    }

    async fn apply(&mut self, desired: &Desired, step: &Step) -> Result<(), Error> {
        match step {
            Step::CreateMember { seat } => return self.start(desired, *seat),
            Step::DeleteMember { seat, seen, disk, .. } => {
                return match self.processes.get_mut(seat) {
                    Some(process) => {
                        if seen.body.as_ref().is_some_and(|b| b.uid == process.uid()) {
                            process.stop_and(*disk);
                        }
                        Ok(())
                    }
                    None if *disk => self.dir.forget(&seat.name(&desired.name)),
                    None => Ok(()),
                };
            }
            Step::RestartMember { seat, uid } => {
                if let Some(process) = self.processes.get_mut(seat).filter(|p| p.uid() == *uid) {
                    process.stop();
                }
                return Ok(());
            }
            _ => {}
        }
        match admin::said(step) {
            Some(Said::Member(seat, ask)) => match self.bus_of(seat, &desired.name) {
                Some(bus) => admin::ask(&bus, &self.tls, ask).await,
                None => Ok(()),
            },
            Some(Said::Council(ask)) => admin::wish(&self.council, &self.tls, ask).await,
            None => Ok(()),
        }
    }

    async fn record(&mut self, _: &Desired, status: &Status) -> Result<Recorded, Error> {
        self.dir.record(status).map(|()| Recorded::Written)
    }
}

impl Local {
    fn access(&self, desired: &Desired, observed: &Observed) -> Access {
        let mut endpoints = Vec::new();
        for (seat, member) in observed.members.iter().filter(|(s, _)| s.shard().is_some()) {
            if member.body.is_some() {
                let address = format!("{HOST}:{}", member.address.client_port());
                endpoints.push(crds::Endpoint { name: seat.name(&desired.name), address });
            }
        }
        let file = self.password.is_some().then(|| self.password_file().display().to_string());
        Access { endpoints, auth_secret: file, label_selector: None }
    }
}

/// Bus addresses of the members that were seen and belong to the topology, its voters first.
fn council(observed: &Observed) -> Vec<String> {
    let Some(topology) = &observed.topology else { return Vec::new() };
    let mut seen: Vec<_> = observed
        .members
        .values()
        .filter_map(|m| {
            let id = &m.report.as_ref()?.id;
            topology.members.contains_key(id).then(|| {
                let bus = format!("{}:{}", m.address.host, m.address.bus_port);
                (!topology.voters.contains(id), bus)
            })
        })
        .collect();
    seen.sort();
    seen.into_iter().map(|(_, bus)| bus).collect()
}
