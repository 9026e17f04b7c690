//! CLUSTER MEET: how members without an operator form one council.
//!
//! Each begins as the only member of a council of its own. Who is alone may become a member of another council,
//! with its ID, its slots and its data; a council of several members never goes into another one.
//!
//! ```text
//! alone                                          member of the other council
//!   | ---- Hello ------------------------------->   |
//!   | <--- Here: cluster, members --------------    |
//!   |  takes no change and no other member from here on
//!   | ---- Join: ID, boot, slots --------------->   |  Admit -> log -> committed: 1. recorded there
//!   | <--- Joined: the topology with it --------    |
//!   |  ends its lease; replaces its council's file by that topology, synced: 2. given up here
//!   | ---- beats, as a member of the other council: 3. ->
//! ```
//!
//! # Why nobody is in two councils
//!
//! A member speaks in the one council that its file names. Killed before 2 it is alone, as before, and the other
//! council lists a member that it does not hear and that never votes (its messages are another cluster's), until
//! it joins again, with the same answer, or is forgotten. Killed after 2 it is a member there. Its own council had
//! one voter, itself, so that nobody can speak in it any more once its file is gone; and its lease there has ended
//! before it asks for one elsewhere.
//!
//! Two that would each join the other both wait for an answer, take no member meanwhile, and tell each other to
//! come again, after pauses that chance draws.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::driver::Driver;
use super::{Address, Transport};
use crate::bus::client::Connection;
use crate::bus::{Meeting, Met};
use crate::clock;
use crate::council::rng::Rng;
use crate::topology::{Change, Epoch, Member, MemberId, OwnChange, SlotRange, Topology};

/// Meetings under way at a time; more are not begun.
const MEETINGS_MAX: usize = 256;
/// Attempts of one meeting, and the pause between two of them, milliseconds: half of it to all of it.
const ATTEMPTS: u64 = 60;
const PAUSE_MS: u64 = 400;
/// Longest time for one question and its answer.
const DIAL_MAX: Duration = Duration::from_secs(2);
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// What a meeting, which is a task of its own, asks of the driver and tells it.
pub(super) enum MeetSaid {
    /// Where this member belongs.
    Where {
        peer: MemberId,
        answer: oneshot::Sender<Where>,
    },
    /// It is about to ask to be admitted; from here on it is not known whether it is.
    MayJoin {
        number: u64,
        local: IpAddr,
        answer: oneshot::Sender<Result<Claim, String>>,
    },
    Joined {
        number: u64,
        topology: Box<Topology>,
    },
    NotJoined {
        number: u64,
    },
    Ended {
        number: u64,
    },
}

/// Where this member belongs.
pub(super) struct Where {
    cluster: String,
    members: usize,
    /// The peer is a member of the same cluster.
    knows_peer: bool,
    host: String,
    bus_port: u16,
}

/// What a member that joins brings along.
pub(super) struct Claim {
    member: Member,
    boot: String,
    slots: Vec<SlotRange>,
}

/// What an unmanaged member's driver keeps of meetings.
pub(super) struct Meets {
    pub(super) address: Address,
    says: mpsc::UnboundedSender<MeetSaid>,
    rng: Rng,
    /// Meetings under way, by number, with the address that they go to.
    running: BTreeMap<u64, String>,
    last: u64,
    /// The meeting that has asked to be admitted elsewhere, and does not know yet.
    pub(super) joining: Option<u64>,
    /// Who asked to be admitted here: by the wish that was put to the council, and by the epoch that is awaited.
    asked: BTreeMap<u64, (MemberId, oneshot::Sender<Met>)>,
    admitted: Vec<(Epoch, MemberId, oneshot::Sender<Met>)>,
    /// When this member's address was put to the council last.
    pub(super) addressed_ms: u64,
    /// Who is not heard, as the data engine was told last.
    pub(super) silent: Vec<MemberId>,
}

impl Meets {
    pub(super) fn new(address: Address, says: mpsc::UnboundedSender<MeetSaid>, seed: u64) -> Meets {
        Meets {
            address,
            says,
            rng: Rng::new(seed),
            running: BTreeMap::new(),
            last: 0,
            joining: None,
            asked: BTreeMap::new(),
            admitted: Vec::new(),
            addressed_ms: 0,
            silent: Vec::new(),
        }
    }
}

impl Driver {
    /// Begins to meet the member whose bus listens there.
    pub(super) fn meet(&mut self, host: String, bus_port: u16) {
        let (me, over) = (self.me.clone(), self.options.over.clone());
        let Some(meets) = &mut self.meets else { return };
        let addr = if host.contains(':') {
            format!("[{host}]:{bus_port}")
        } else {
            format!("{host}:{bus_port}")
        };
        if meets.running.values().any(|a| *a == addr) {
            return;
        }
        if meets.running.len() >= MEETINGS_MAX {
            tracing::warn!(addr, "too many meetings are under way: this one is not begun");
            return;
        }
        meets.last += 1;
        meets.running.insert(meets.last, addr.clone());
        let meeting = Task {
            number: meets.last,
            me,
            over,
            host,
            addr,
            says: meets.says.clone(),
            rng: Rng::new(meets.rng.draw()),
        };
        tokio::spawn(meeting.run());
    }

    pub(super) fn hear_meet(&mut self, said: MeetSaid) {
        match said {
            MeetSaid::Where { peer, answer } => {
                let place = self.place(&peer);
                // The meeting may have ended.
                let _ = answer.send(place);
            }
            MeetSaid::MayJoin { number, local, answer } => {
                let claim = self.claim(number, local);
                if let (Ok(_), Some(meets)) = (&claim, &mut self.meets) {
                    meets.joining = Some(number);
                }
                let _ = answer.send(claim);
            }
            MeetSaid::Joined { number, topology } => self.join(number, *topology),
            MeetSaid::NotJoined { number } => {
                if let Some(meets) = &mut self.meets {
                    meets.joining.take_if(|n| *n == number);
                }
            }
            MeetSaid::Ended { number } => {
                if let Some(meets) = &mut self.meets {
                    meets.running.remove(&number);
                    if self.switch.is_none() {
                        meets.joining.take_if(|n| *n == number);
                    }
                }
            }
        }
    }

    fn place(&self, peer: &MemberId) -> Where {
        let known = self.council.topology();
        let me = known.and_then(|t| t.members.get(&self.me));
        Where {
            cluster: known.map_or_else(String::new, |t| t.cluster.clone()),
            members: known.map_or(0, |t| t.members.len()),
            knows_peer: known.is_some_and(|t| t.members.contains_key(peer)),
            host: me.map_or_else(String::new, |m| m.host.clone()),
            bus_port: me.map_or(0, |m| m.bus_port),
        }
    }

    /// What this member brings along, if it may go now.
    fn claim(&self, number: u64, local: IpAddr) -> Result<Claim, String> {
        let busy = |why: &str| Err(why.to_owned());
        let Some(meets) = &self.meets else { return busy("an operator forms this cluster") };
        let Some(known) = self.council.topology() else { return busy("not formed yet") };
        if self.is_switching() || meets.joining.is_some_and(|n| n != number) {
            return busy("it is about to join another cluster");
        }
        if !meets.asked.is_empty() || !self.local_wishes.is_empty() {
            return busy("a change of its own is under way");
        }
        let Some(me) = known.members.get(&self.me).filter(|_| known.members.len() == 1) else {
            return busy("it has others in its cluster");
        };
        let Some(shard) = me.shard.and_then(|shard| known.shards.get(&shard)) else {
            return busy("it has no shard");
        };
        if shard.primary.as_ref() != Some(&self.me) || shard.boot != self.identity.boot {
            return busy("it has not begun yet");
        }
        let host = if me.host.is_empty() { local.to_string() } else { me.host.clone() };
        let member = Member { host, ..me.clone() };
        Ok(Claim { member, boot: self.identity.boot.clone(), slots: shard.slots.clone() })
    }

    /// Another member has something to say; it is answered at once, or when the council has decided.
    pub(super) fn met(&mut self, meeting: Meeting, answer: oneshot::Sender<Met>) {
        let met = match meeting {
            _ if self.meets.is_none() => {
                Met::Refused { reason: "an operator forms this cluster".to_owned() }
            }
            Meeting::Hello => match self.council.topology() {
                Some(known) => Met::Here {
                    id: self.me.clone(),
                    cluster: known.cluster.clone(),
                    incarnation: known.incarnation,
                    members: known.members.len(),
                },
                None => Met::Busy { reason: "not formed yet".to_owned() },
            },
            Meeting::Come { host, bus_port } => {
                if self.council.topology().is_some_and(|t| t.members.len() > 1) {
                    let reason = "it is in a cluster with others, and comes to no other one";
                    Met::Refused { reason: reason.to_owned() }
                } else {
                    self.meet(host, bus_port);
                    Met::Coming
                }
            }
            Meeting::Join { member, boot, slots, known_as } => match self.may_admit(&member) {
                Ok(()) => return self.admit(member, boot, slots, known_as, answer),
                Err(reason) => Met::Busy { reason },
            },
        };
        // Who asked may have gone.
        let _ = answer.send(met);
    }

    fn may_admit(&self, member: &Member) -> Result<(), String> {
        let Some(meets) = &self.meets else { return Err("an operator forms this cluster".into()) };
        if meets.joining.is_some() || self.is_switching() {
            return Err("it is about to join another cluster itself".into());
        }
        if member.id == self.me {
            return Err("that is itself".into());
        }
        if self.council.topology().is_none() {
            return Err("not formed yet".into());
        }
        Ok(())
    }

    fn admit(
        &mut self,
        member: Member,
        boot: String,
        slots: Vec<SlotRange>,
        known_as: String,
        answer: oneshot::Sender<Met>,
    ) {
        let now_ms = clock::monotonic_ms();
        let me = self.council.topology().and_then(|t| t.members.get(&self.me)).cloned();
        if let Some(me) = me.filter(|m| m.host.is_empty()) {
            // It stands in the log before the newcomer does; whether it fits is said there.
            let me = Member { host: known_as, ..me };
            self.council.propose(now_ms, Change::Join(me), None);
        }
        let id = member.id.clone();
        let failure_timeout_ms = self.council.settings().failure_timeout_ms;
        let change = OwnChange::Admit { member, boot, slots, failure_timeout_ms };
        let token = self.council.propose(now_ms, Change::Own(change), None);
        if let Some(meets) = &mut self.meets {
            meets.asked.insert(token, (id, answer));
        }
    }

    pub(super) fn is_admission(&self, token: u64) -> bool {
        self.meets.as_ref().is_some_and(|m| m.asked.contains_key(&token))
    }

    pub(super) fn admitted(&mut self, token: u64, outcome: Result<Epoch, String>) {
        let Some(meets) = &mut self.meets else { return };
        let Some((member, answer)) = meets.asked.remove(&token) else { return };
        match outcome {
            Ok(epoch) => {
                tracing::info!(%member, epoch, "admitted a member that met this one");
                meets.admitted.push((epoch, member, answer));
                self.answer_admitted();
            }
            Err(reason) => {
                // Who asked may have gone.
                let _ = answer.send(Met::Busy { reason });
            }
        }
    }

    /// Tells those who wait the topology that they stand in, once it has come here.
    pub(super) fn answer_admitted(&mut self) {
        let (Some(meets), Some(known)) = (&mut self.meets, self.council.topology()) else { return };
        let (ready, waits): (Vec<_>, Vec<_>) = std::mem::take(&mut meets.admitted)
            .into_iter()
            .partition(|(epoch, _, answer)| known.epoch >= *epoch || answer.is_closed());
        meets.admitted = waits;
        for (_, member, answer) in ready {
            let met = if known.members.contains_key(&member) {
                Met::Joined { topology: Box::new(Topology::clone(known)) }
            } else {
                Met::Busy { reason: "it was forgotten meanwhile".to_owned() }
            };
            // Who asked may have gone.
            let _ = answer.send(met);
        }
    }
}

/// What an attempt came to.
enum Attempt {
    Done,
    Again(String),
    Never(String),
}

/// One meeting.
struct Task {
    number: u64,
    me: MemberId,
    over: Transport,
    host: String,
    addr: String,
    says: mpsc::UnboundedSender<MeetSaid>,
    rng: Rng,
}

impl Task {
    async fn run(mut self) {
        let mut why = String::new();
        for _ in 0..ATTEMPTS {
            match self.attempt().await {
                Ok(Attempt::Done) => return self.say(MeetSaid::Ended { number: self.number }),
                Ok(Attempt::Never(reason)) => {
                    why = reason;
                    break;
                }
                Ok(Attempt::Again(reason)) => why = reason,
                Err(error) => why = error.to_string(),
            }
            let pause_ms = PAUSE_MS / 2 + self.rng.below(PAUSE_MS / 2 + 1);
            sleep(Duration::from_millis(pause_ms)).await;
        }
        tracing::warn!(addr = self.addr, why, "a meeting with another member came to nothing");
        self.say(MeetSaid::Ended { number: self.number });
    }

    fn say(&self, said: MeetSaid) {
        // A driver that has ended needs no word.
        let _ = self.says.send(said);
    }

    async fn attempt(&self) -> io::Result<Attempt> {
        let dialled = Connection::dial(&self.addr, &self.over, self.me.clone());
        let mut peer = timeout(DIAL_MAX, dialled).await??;
        let met = timeout(ANSWER_MAX, peer.meet(Meeting::Hello)).await??;
        let (id, cluster, members) = match met {
            Met::Here { id, cluster, members, .. } => (id, cluster, members),
            Met::Refused { reason } => return Ok(Attempt::Never(reason)),
            _ => return Ok(Attempt::Again("it has not begun yet".to_owned())),
        };
        if id == self.me {
            return Ok(Attempt::Never("that is this member itself".to_owned()));
        }
        let mine = self.ask(|answer| MeetSaid::Where { peer: id, answer }).await?;
        if mine.knows_peer && mine.cluster == cluster {
            return Ok(Attempt::Done);
        }
        if mine.members == 1 {
            return self.join(&mut peer).await;
        }
        if members > 1 {
            let why = "both are in clusters of several members, which do not become one";
            return Ok(Attempt::Never(why.to_owned()));
        }
        let come = Meeting::Come { host: mine.host, bus_port: mine.bus_port };
        Ok(match timeout(ANSWER_MAX, peer.meet(come)).await?? {
            Met::Refused { reason } => Attempt::Never(reason),
            _ => Attempt::Again("it was told to come, and has not come yet".to_owned()),
        })
    }

    async fn join(&self, peer: &mut Connection) -> io::Result<Attempt> {
        let number = self.number;
        let local = peer
            .ends
            .map(|ends| ends.local)
            .ok_or_else(|| io::Error::other("a connection without address"))?;
        let claim = self.ask(|answer| MeetSaid::MayJoin { number, local, answer }).await?;
        let Claim { member, boot, slots } = match claim {
            Ok(claim) => claim,
            Err(why) => return Ok(Attempt::Again(why)),
        };
        let known_as = self.host.clone();
        let join = Meeting::Join { member, boot, slots, known_as };
        // From here to the answer it is not known; an error leaves it so, and the next attempt asks again.
        match timeout(ANSWER_MAX, peer.meet(join)).await?? {
            Met::Joined { topology } => {
                self.say(MeetSaid::Joined { number, topology });
                Ok(Attempt::Done)
            }
            Met::Refused { reason } => {
                self.say(MeetSaid::NotJoined { number });
                Ok(Attempt::Never(reason))
            }
            Met::Busy { reason } => {
                self.say(MeetSaid::NotJoined { number });
                Ok(Attempt::Again(reason))
            }
            _ => Ok(Attempt::Again("an answer to another question".to_owned())),
        }
    }

    async fn ask<T>(&self, said: impl FnOnce(oneshot::Sender<T>) -> MeetSaid) -> io::Result<T> {
        let (answer, answered) = oneshot::channel();
        self.say(said(answer));
        answered.await.map_err(|_| io::Error::other("the council's driver has ended"))
    }
}
