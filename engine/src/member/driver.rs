//! The loop around a `Council`: time, messages, questions and the disk in; records, messages, roles out.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::meet::Meets;
use super::switch::Switch;
use super::{Answering, Handle, Identity, Local, Managed, Options, Said, random_hex};
use crate::bus::link::{Dialer, Link};
use crate::bus::links::Links;
use crate::bus::server::{Inbound, serve};
use crate::bus::{Answer, Ask};
use crate::clock;
use crate::config::directives;
use crate::council::disk::{FileDisk, superseded};
use crate::council::message::Message;
use crate::council::record::{Batch, Saved};
use crate::council::settings::Settings;
use crate::council::{Council, Event};
use crate::topology::{Change, Epoch, MemberId, Report, Topology};

/// What comes in and is not yet taken up; senders wait when it is full.
const INBOX_MAX: usize = 4096;

/// What the thread that writes the disk says.
enum DiskSaid {
    Durable(u64),
    Failed(String),
}

/// The role that the data engine was last told.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Part {
    Primary { epoch: Epoch },
    Replica { host: String, port: u16, tls_port: u16, epoch: Epoch },
    Idle,
}

pub(super) struct Driver {
    pub(super) me: MemberId,
    pub(super) identity: Identity,
    pub(super) options: Options,
    pub(super) local: Arc<dyn Local>,
    pub(super) council: Council,
    pub(super) dialer: Dialer,
    pub(super) links: BTreeMap<MemberId, Link>,
    pub(super) disk: std::sync::mpsc::Sender<Batch>,
    disk_error: Option<String>,
    pub(super) last_batch: u64,
    pub(super) part: Option<Part>,
    /// Answers that wait for the disk, and for the council.
    until_durable: VecDeque<(u64, oneshot::Sender<Answer>)>,
    wishes: BTreeMap<u64, oneshot::Sender<Answer>>,
    /// Wishes of this member's own data engine.
    pub(super) local_wishes: BTreeMap<u64, Answering>,
    /// Who waits until this member leads the council no longer.
    retiring: Option<Answering>,
    /// What an unmanaged member has to do with others that it meets.
    pub(super) meets: Option<Meets>,
    pub(super) switch: Option<Switch>,
    /// The listener names this member to those who dial it.
    pub(super) named: watch::Sender<MemberId>,
    pub(super) is_over: bool,
}

pub(super) async fn run(member: Managed, local: Arc<dyn Local>) -> io::Result<()> {
    let Managed { identity, options, listener } = member;
    let (file, records) = FileDisk::open(&options.dir)?;
    let me = identity.id.clone();
    let mut saved = Saved::from_records(records);
    let is_foreign = |known: &Arc<Topology>| !known.members.contains_key(&me);
    if options.unmanaged.is_some() && saved.known.as_ref().is_some_and(is_foreign) {
        // A reset that was cut off after the new ID was written.
        saved = Saved::default();
    }
    let council = council_of(&identity, options.failure_timeout_ms, saved)?;

    let (inbox, mut inbound) = mpsc::channel(INBOX_MAX);
    let (refused, mut refusals) = mpsc::channel(64);
    let (disk_says, mut disk_said) = mpsc::unbounded_channel();
    let disk = start_disk(file, disk_says)?;
    // Dropped with this future, and with it the listener.
    let mut listening = JoinSet::new();
    let (named, name) = watch::channel(me.clone());
    let links = Links::default();
    listening.spawn(serve(listener, name, options.over.clone(), inbox, links.clone()));
    let (met, mut met_said) = mpsc::unbounded_channel();
    let seed = random_seed()?;
    let meets = options.unmanaged.clone().map(|address| Meets::new(address, met, seed));
    let mut driver = Driver {
        dialer: Dialer {
            me: me.clone(),
            over: options.over.clone(),
            refused,
            links: links.clone(),
        },
        me,
        identity,
        options,
        local,
        council,
        links: BTreeMap::new(),
        disk,
        disk_error: None,
        last_batch: 0,
        part: None,
        until_durable: VecDeque::new(),
        wishes: BTreeMap::new(),
        local_wishes: BTreeMap::new(),
        retiring: None,
        meets,
        switch: None,
        named,
        is_over: false,
    };
    let (says, mut said) = mpsc::unbounded_channel();
    driver.local.attach(Handle { says, links });
    let mut tick_ms = driver.council.settings().tick_ms;
    let mut ticks = interval(Duration::from_millis(tick_ms));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    driver.begin_alone()?;
    driver.settle();
    while !driver.is_over {
        tokio::select! {
            biased;
            Some(said) = disk_said.recv() => driver.hear_disk(said)?,
            Some(said) = said.recv() => driver.hear_local(said),
            _ = ticks.tick() => driver.tick(),
            _ = sleep(LOOK), if driver.council.awaits_itself() => driver.tell(),
            Some(inbound) = inbound.recv() => driver.take_in(inbound),
            Some(said) = met_said.recv() => driver.hear_meet(said),
            Some(member) = refusals.recv() => {
                driver.council.refused(clock::monotonic_ms(), &member);
            }
        }
        driver.settle();
        if driver.council.settings().tick_ms != tick_ms {
            tick_ms = driver.council.settings().tick_ms;
            ticks = interval(Duration::from_millis(tick_ms));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
    }
    listening.shutdown().await;
    Ok(())
}

fn random_seed() -> io::Result<u64> {
    u64::from_str_radix(&random_hex(16)?, 16).map_err(io::Error::other)
}

/// The council of this process, as the disk has it.
pub(super) fn council_of(
    identity: &Identity,
    failure_timeout_ms: u64,
    saved: Saved,
) -> io::Result<Council> {
    let settings = Settings::new(failure_timeout_ms);
    let (me, boot) = (identity.id.clone(), identity.boot.clone());
    Council::new(me, boot, settings, random_seed()?, saved, clock::monotonic_ms())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// How often this member is looked at while a handover waits for its data.
const LOOK: Duration = Duration::from_millis(1);

/// Batches that share one sync at most.
const BATCHES_PER_SYNC: usize = 256;

/// How long a disk that cannot be written, a full one for instance, is left alone before it is tried again.
const DISK_RETRY: Duration = Duration::from_millis(500);

/// So many batches are kept for it meanwhile; with more, the member has to be started anew once its disk can be written.
const BATCHES_KEPT_MAX: usize = 65_536;

/// The disk has a thread of its own: a sync that hangs must not stop the heartbeats. What cannot be written is written again
/// until it can.
fn start_disk(
    mut file: FileDisk,
    says: mpsc::UnboundedSender<DiskSaid>,
) -> io::Result<std::sync::mpsc::Sender<Batch>> {
    let (sender, batches) = std::sync::mpsc::channel::<Batch>();
    let write = move || {
        while let Ok(first) = batches.recv() {
            // What came while the last sync was under way shares the next one.
            let mut together = vec![first];
            together.extend(batches.try_iter().take(BATCHES_PER_SYNC - 1));
            while let Err(error) = file.write(&together) {
                let is_heard = says.send(DiskSaid::Failed(format!("council.log: {error}"))).is_ok();
                if !is_heard || !file.may_try_again() || together.len() > BATCHES_KEPT_MAX {
                    return;
                }
                std::thread::sleep(DISK_RETRY);
                together.extend(batches.try_iter());
                together.drain(..superseded(&together));
            }
            let last = together.last().map_or(0, |b| b.number);
            if says.send(DiskSaid::Durable(last)).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("council-disk".into()).spawn(write)?;
    Ok(sender)
}

impl Driver {
    fn tick(&mut self) {
        if self.is_switching() {
            return;
        }
        self.tell();
        self.council.tick(clock::monotonic_ms());
        self.look_after_address();
        self.tell_silent();
    }

    fn report(&self) -> Report {
        let report = self.local.report();
        let disk_error = self.disk_error.clone().or(report.disk_error);
        Report { disk_error, ..report }
    }

    /// The time is read before the report is made, so that the report is no older than it says.
    fn tell(&mut self) {
        if self.is_switching() {
            return;
        }
        let now_ms = clock::monotonic_ms();
        let report = self.report();
        self.council.report(now_ms, report);
    }

    fn hear_disk(&mut self, said: DiskSaid) -> io::Result<()> {
        match said {
            DiskSaid::Durable(batch) if self.is_switching() => self.switched(batch)?,
            DiskSaid::Failed(error) if self.is_switching() => {
                // Which of the two councils is on disk is not known: whoever starts next will read it.
                return Err(io::Error::other(error));
            }
            DiskSaid::Durable(batch) => {
                if self.disk_error.take().is_some() {
                    tracing::warn!("the council's disk can be written again");
                    self.tell();
                }
                self.council.persisted(clock::monotonic_ms(), batch);
                while self.until_durable.front().is_some_and(|(number, _)| *number <= batch) {
                    if let Some((_, answer)) = self.until_durable.pop_front() {
                        let epoch = self.council.topology().map_or(0, |t| t.epoch);
                        // Who asked may have gone.
                        let _ = answer.send(Answer::Done { epoch });
                    }
                }
            }
            DiskSaid::Failed(error) => {
                if self.disk_error.as_ref() != Some(&error) {
                    tracing::error!(%error, "the council's disk cannot be written");
                }
                self.disk_error = Some(error);
                for (_, answer) in self.until_durable.drain(..) {
                    let reason = "the disk cannot be written".to_owned();
                    let _ = answer.send(Answer::Refused { reason });
                }
            }
        }
        Ok(())
    }

    fn hear_local(&mut self, said: Said) {
        match said {
            Said::Look => self.tell(),
            Said::Leave(answer) => {
                self.tell();
                let led = self.council.topology().and_then(|topology| {
                    let shard = topology.members.get(&self.me)?.shard?;
                    let led = topology.shards.get(&shard)?;
                    (led.primary.as_ref() == Some(&self.me)).then_some((shard, led.epoch))
                });
                let Some((shard, expected)) = led else {
                    // Who asked may have gone.
                    let _ = answer.send(Ok(0));
                    return;
                };
                let change = Change::handover(shard, MemberId::new(), expected);
                self.propose(change, None, answer);
            }
            Said::Propose(change, expected, answer) => self.propose(*change, expected, answer),
            Said::Meet { host, bus_port } => self.meet(host, bus_port),
            Said::Reset { hard, answer } => self.reset(hard, answer),
            Said::Retire(answer) => {
                self.tell();
                if self.council.retire(clock::monotonic_ms()) {
                    self.retiring = Some(answer);
                } else {
                    // Who asked may have gone.
                    let _ = answer.send(Ok(0));
                }
            }
        }
    }

    fn propose(&mut self, change: Change, expected: Option<Epoch>, answer: Answering) {
        if self.is_joining() {
            // Who asked may have gone.
            let _ = answer.send(Err("this member is about to join a cluster; try again".into()));
            return;
        }
        let token = self.council.propose(clock::monotonic_ms(), change, expected);
        self.local_wishes.insert(token, answer);
    }

    fn take_in(&mut self, inbound: Inbound) {
        match inbound {
            Inbound::Message { .. } if self.is_switching() => {}
            Inbound::Meet { meeting, answer } => self.met(*meeting, answer),
            Inbound::Message { from, message } => {
                self.council.receive(clock::monotonic_ms(), &from, *message);
            }
            Inbound::Ask { ask, answer } => self.ask(*ask, answer),
        }
    }

    fn ask(&mut self, ask: Ask, answer: oneshot::Sender<Answer>) {
        let now_ms = clock::monotonic_ms();
        let reply = match ask {
            Ask::Report => {
                self.tell();
                Answer::Report {
                    report: Box::new(self.council.own_report().clone()),
                    topology: self.council.lasting_topology().map(|t| Box::new(Topology::clone(t))),
                    leader: self.council.leader_told().cloned(),
                }
            }
            _ if self.is_switching() => {
                let reason = "this member is about to change its council; try again".to_owned();
                Answer::Refused { reason }
            }
            Ask::Form { incarnation, me, shards } => {
                let formed = random_hex(40).map_err(|e| e.to_string()).and_then(|cluster| {
                    self.council.form(now_ms, cluster, incarnation, &me, &shards)
                });
                return self.answer_when_durable(formed, answer);
            }
            Ask::Adopt { topology, me } => {
                if me.id != self.me {
                    let reason = format!("this is member {}", self.me);
                    Answer::Refused { reason }
                } else if self.council.is_succeeded_by(&topology) {
                    return self.succeed(topology, answer);
                } else {
                    let adopted = self.council.adopt(now_ms, topology);
                    return self.answer_when_durable(adopted, answer);
                }
            }
            Ask::Recover { topology } => {
                if self.council.is_succeeded_by(&topology) {
                    return self.recover(topology, answer);
                }
                let known = self.council.topology();
                let now = known.map_or(0, |t| t.incarnation);
                let reason = format!("this member is of another cluster, or of incarnation {now}");
                Answer::Refused { reason }
            }
            Ask::Wish { change, expected_epoch } => {
                let token = self.council.propose(now_ms, change, expected_epoch);
                self.wishes.insert(token, answer);
                return;
            }
            Ask::Configure { hash, mut directives, reset } => {
                let known = reset.iter().filter_map(|name| directives::find(name));
                let free = known.filter(|d| !d.is(directives::FIXED));
                directives.extend(free.map(|d| (d.name.to_owned(), d.default.to_owned())));
                let refused = self.local.configure(&hash, &directives);
                let refused: Vec<_> =
                    refused.iter().map(|(k, why)| format!("{k}: {why}")).collect();
                let epoch = self.council.topology().map_or(0, |t| t.epoch);
                if refused.is_empty() {
                    Answer::Done { epoch }
                } else {
                    Answer::Refused { reason: refused.join("; ") }
                }
            }
            Ask::Shutdown => {
                self.local.shutdown();
                self.is_over = true;
                Answer::Done { epoch: self.council.topology().map_or(0, |t| t.epoch) }
            }
        };
        // Who asked may have gone.
        let _ = answer.send(reply);
    }

    fn answer_when_durable(&mut self, done: Result<(), String>, answer: oneshot::Sender<Answer>) {
        match done {
            Ok(()) => {
                self.settle();
                let epoch = self.council.topology().map_or(0, |t| t.epoch);
                if self.council.is_durable(epoch) {
                    let _ = answer.send(Answer::Done { epoch });
                } else {
                    self.until_durable.push_back((self.last_batch, answer));
                }
            }
            Err(reason) => {
                let _ = answer.send(Answer::Refused { reason });
            }
        }
    }

    /// What was put to a council that this member is in no more is never answered by it.
    pub(super) fn drop_wishes(&mut self) {
        self.local_wishes.clear();
        self.wishes.clear();
        self.until_durable.clear();
    }

    /// Does what the council wants, until it wants nothing more.
    pub(super) fn settle(&mut self) {
        if self.is_switching() {
            return;
        }
        loop {
            let output = self.council.drain();
            if output.batches.is_empty() && output.messages.is_empty() && output.events.is_empty() {
                break;
            }
            for batch in output.batches {
                self.last_batch = batch.number;
                if self.disk.send(batch).is_err() && self.disk_error.is_none() {
                    self.disk_error = Some("council.log: the writing thread has ended".into());
                }
            }
            for (to, message) in output.messages {
                self.send(&to, message);
            }
            for event in output.events {
                self.react(event);
            }
        }
        self.follow_part();
    }

    fn send(&mut self, to: &MemberId, message: Message) {
        let Some(member) = self.council.topology().and_then(|t| t.members.get(to)) else { return };
        let addr = format!("{}:{}", member.host, member.bus_port);
        let link = match self.links.remove(to).filter(|l| l.addr == addr) {
            Some(link) => link,
            None => Link::start(self.dialer.clone(), to.clone(), addr),
        };
        link.send(message);
        self.links.insert(to.clone(), link);
    }

    fn react(&mut self, event: Event) {
        match event {
            Event::Topology(topology) => {
                self.links.retain(|id, _| topology.members.contains_key(id));
                self.local.topology_changed(&topology);
                self.follow_part();
                self.answer_admitted();
            }
            // A new primary serves as soon as it has taken its role, which another thread does.
            Event::Lease { epoch, until_ms, .. } if until_ms > 0 => {
                self.local.lease(epoch, until_ms);
                self.follow_part();
            }
            Event::Lease { epoch, until_ms, .. } => {
                self.follow_part();
                self.local.lease(epoch, until_ms);
            }
            Event::Hold { epoch, .. } => {
                self.follow_part();
                self.local.hold(epoch);
            }
            Event::Answered { token, outcome } => {
                if let Some(answer) = self.local_wishes.remove(&token) {
                    let _ = answer.send(outcome);
                } else if self.is_admission(token) {
                    self.admitted(token, outcome);
                } else if let Some(answer) = self.wishes.remove(&token) {
                    let reply = match outcome {
                        Ok(epoch) => Answer::Done { epoch },
                        Err(reason) => Answer::Refused { reason },
                    };
                    let _ = answer.send(reply);
                }
            }
            Event::Leads(leads) => {
                tracing::info!(leads, "leadership of the council");
                if let Some(answer) = self.retiring.take_if(|_| !leads) {
                    let _ = answer.send(Ok(0));
                }
            }
            Event::WantReport => self.tell(),
        }
    }

    /// Tells the data engine its role when that has changed.
    fn follow_part(&mut self) {
        let part = self.wanted_part();
        if self.part.as_ref() == Some(&part) {
            return;
        }
        match &part {
            Part::Primary { epoch } => self.local.become_primary(*epoch),
            Part::Replica { host, port, tls_port, epoch } => {
                self.local.become_replica(host, *port, *tls_port, *epoch);
            }
            Part::Idle => self.local.become_idle(),
        }
        self.part = Some(part);
    }

    fn wanted_part(&self) -> Part {
        if let Some((_, epoch, _)) = self.council.lease() {
            return Part::Primary { epoch };
        }
        let followed = self.council.topology().and_then(|topology| {
            let shard = topology.shards.get(&topology.members.get(&self.me)?.shard?)?;
            let primary = shard.primary.as_ref().filter(|p| **p != self.me)?;
            let primary = topology.members.get(primary)?;
            let (port, tls_port) = (primary.port, primary.tls_port);
            Some(Part::Replica { host: primary.host.clone(), port, tls_port, epoch: shard.epoch })
        });
        followed.unwrap_or(Part::Idle)
    }
}
