//! The council: the members that decide who is primary, and the lease of the one who is.
//!
//! Sans-I/O: a `Council` is told what time it is on its member's own clock, what arrived and what the
//! disk has done; it says what to write, what to send afterwards, and until when this process may
//! acknowledge writes. It knows no socket, no file, no thread, and draws chance from a seed.
//!
//! ```text
//!  member                         leader of the council                 other voters
//!    | -- Beat(report, renew 7) ---> |  -- confirm: do I still lead? ---->  |
//!    |      sent at t                |  <------------- yes (majority) ----  |
//!    | <------- Granted(7) --------- |
//!    |  acknowledges writes until t + lease_ms, on its own clock
//!    x  dies                         |  no beat for suspect_ms: no more grants
//!                                    |  lease_wait_ms after the last grant: the lease is over
//!  replica <---- Heard(poll) ------- |
//!    | ---- Beat(lineage) ---------> |  the best lineage -> Promote into the log -> committed
//!    | <---- Topology -------------- |  the replica is primary, with a lease as above
//! ```
//!
//! # Why at most one primary acknowledges writes
//!
//! Let a *grant* be a renewal that was answered. A primary counts its lease from when it sent the
//! renewal, so the lease is over `lease_ms` after that, by a clock that is at most `DRIFT_PERCENT` off.
//!
//! 1. *A leader that has been replaced cannot grant.* It answers a renewal only after a round, begun
//!    after the renewal came in, in which a majority said that it still leads. A later leader was
//!    elected by a majority; some member is in both. Had that member voted first, it would not have
//!    confirmed the old leader. So it confirmed first: the renewal was sent before the later leader
//!    was elected.
//! 2. *A leader waits long enough.* It proposes a `Promote` only `lease_wait_ms`, on its own clock,
//!    after the last grant it gave for the shard and after it became leader. By 1 the leases that
//!    earlier leaders granted began before it did, so all of them are over.
//! 3. *From the proposal on it grants nothing for that shard* until it knows what became of it; a
//!    grant under way is checked against that when the round ends, not when it begins. If the
//!    proposal is applied, the topology names another epoch, and the old one is never granted again.
//! 4. *A proposal that outlives its leader is harmless.* A later leader grants only after an entry of
//!    its own term is applied, hence after every entry that it inherited. An entry that it did not
//!    inherit can never be committed any more, because its own entry, of a higher term, stands in
//!    the logs of a majority. So no grant of a shard epoch follows the `Promote` that ends it, in any
//!    order of leaders, and `expected` makes every other `Promote` for that epoch void.
//! 5. *A shard epoch belongs to one process.* `Promote` names member and boot. A process that was
//!    restarted has another boot, holds no lease and asks for none, until it is promoted anew.
//!
//! Messages may be lost, doubled, late or out of order: a grant names shard, epoch, boot and the
//! number of the renewal, and a late one gives a lease that may be over already. Clocks are never
//! compared; a `Stamp` is a leader's own time, carried there and back. A process that was stopped
//! for a while finds its lease over, because the engine compares with the clock when it acknowledges
//! (that clock must go on while the machine sleeps: `CLOCK_BOOTTIME`).
//!
//! # Why an older data set does not win
//!
//! See `choose`. Reports that decide were made after the old lease was over (`Stamp`), so they count
//! every write that was ever acknowledged under it. What may be lost is what no in-sync replica had:
//! the asynchronous tail. The in-sync set stands in the topology and excludes whoever lagged or was
//! silent for `sync_lag_ms`. An epoch that began with the leader's own promotion, and that this leader has granted
//! nothing for, was never served by 1 and 4: the set from before it counts beside its own (`Tenure::note_promoted`), so that
//! a primary takes over again from a successor that died on the way. A later leader cannot know that, and waits.
//!
//! Modules in reading order: `settings`, `message`, `lease` (the primary's side), `grant` and `lead`
//! (the leader's side), `detect`, `choose`, `handover`, `departure`, `upkeep`, `voters`, `apply` (the state machine), `consensus` (Raft),
//! `moves` (of slots), `own` (what unmanaged clusters add), `log`, `record`, `disk`.

mod apply;
mod choose;
mod consensus;
mod departure;
mod detect;
pub mod disk;
mod grant;
mod handover;
mod hex;
mod lead;
mod lease;
mod log;
pub mod message;
mod moves;
mod own;
pub mod record;
pub mod rng;
mod seating;
pub mod settings;
mod turn;
mod upkeep;
mod voters;

pub use voters::seats;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::topology::{Change, Epoch, Member, MemberId, Report, ShardId, SlotRange, Topology};

use consensus::{Batches, Consensus};
use detect::Presences;
use lead::Tenure;
use lease::Holder;
use message::{Beat, Body, Message, Stamp};
use record::{Batch, Record, Saved};
use rng::Rng;
use settings::Settings;

/// Silent members that are named at most.
const SILENT_MAX: usize = 64;
/// Topologies written one after the other before the file is replaced.
const KNOWN_WRITES_MAX: u32 = 64;

/// What the driver has to do, in this order: hand `batches` to the disk, send `messages` (they rest on
/// nothing that is not on disk yet), act on `events`.
#[derive(Default)]
pub struct Output {
    pub batches: Vec<Batch>,
    pub messages: Vec<(MemberId, Message)>,
    pub events: Vec<Event>,
}

/// What happened, for whoever drives the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A newer topology is known.
    Topology(Arc<Topology>),
    /// Until when this process may acknowledge writes as primary of that shard epoch; 0: not at all.
    Lease { shard: ShardId, epoch: Epoch, until_ms: u64 },
    /// As primary of that shard epoch, execute nothing more, and say so by `Report::held_epoch`. What was
    /// executed may still be acknowledged while the lease lasts. A longer lease, or another role, ends it.
    Hold { shard: ShardId, epoch: Epoch },
    /// What became of a wish.
    Answered { token: u64, outcome: Result<Epoch, String> },
    /// This member leads the council, or does so no longer.
    Leads(bool),
    /// Somebody waits for a report that is younger than this event: call `report` with one.
    WantReport,
}

/// One member's part in the council.
pub struct Council {
    me: MemberId,
    /// Random per process.
    boot: String,
    settings: Settings,
    seed: u64,
    now_ms: u64,
    /// The newest topology known; its epoch is on disk up to `durable`.
    known: Option<Arc<Topology>>,
    durable: Epoch,
    writing: VecDeque<(u64, Epoch)>,
    known_writes: u32,
    /// `None` until this member has been made a voter for the first time.
    consensus: Option<Consensus>,
    seen: Presences,
    tenure: Option<Tenure>,
    holder: Holder,
    report: Report,
    /// The newest stamp that was known when the report was made.
    report_echo: Option<Stamp>,
    is_polled: bool,
    /// Who led when last heard, and its stamp to be echoed.
    leader: Option<(MemberId, Stamp, u64)>,
    /// Whom that leader does not hear.
    told_silent: Vec<MemberId>,
    wishes: BTreeMap<u64, u64>,
    wish_last: u64,
    next_beat_ms: u64,
    last_tick_ms: u64,
    batches: Batches,
    messages: Vec<(MemberId, Body)>,
    events: Vec<Event>,
}

impl Council {
    /// A member's council as its process starts; `boot` must never have been used before.
    ///
    /// # Errors
    /// When what was saved contradicts itself.
    pub fn new(
        me: MemberId,
        boot: String,
        settings: Settings,
        seed: u64,
        saved: Saved,
        now_ms: u64,
    ) -> Result<Self, String> {
        let known = saved.known.clone();
        let settings = match &known {
            Some(known) if known.members.len() > 1 && known.unmanaged.failure_timeout_ms > 0 => {
                Settings::new(known.unmanaged.failure_timeout_ms)
            }
            _ => settings,
        };
        let mut council = Self {
            consensus: None,
            seed: Rng::new(seed).draw(),
            now_ms,
            durable: known.as_ref().map_or(0, |k| k.epoch),
            known,
            writing: VecDeque::new(),
            known_writes: 0,
            seen: Presences::default(),
            tenure: None,
            holder: Holder::default(),
            report: Report { id: me.clone(), boot: boot.clone(), ..Report::default() },
            report_echo: None,
            is_polled: false,
            leader: None,
            told_silent: vec![],
            wishes: BTreeMap::new(),
            wish_last: 0,
            next_beat_ms: now_ms,
            last_tick_ms: now_ms,
            batches: Batches::default(),
            messages: vec![],
            events: vec![],
            me,
            boot,
            settings,
        };
        if saved.has_log() {
            council.start_consensus(saved)?;
        }
        if let Some(known) = &council.known {
            council.events.push(Event::Topology(known.clone()));
        }
        council.turn();
        Ok(council)
    }

    fn start_consensus(&mut self, saved: Saved) -> Result<(), String> {
        let mut consensus = Consensus::new(&self.me, saved, &self.settings, self.seed)?;
        if consensus.machine.voters.len() == 1 && consensus.is_voter() {
            consensus.campaign();
        }
        self.consensus = Some(consensus);
        Ok(())
    }

    /// Forms a new cluster with this member as its only voter; shard `i` owns `shards[i]`.
    ///
    /// # Errors
    /// When it belongs to a cluster already, or the slots do not make sense.
    pub fn form(
        &mut self,
        now_ms: u64,
        cluster: String,
        incarnation: u64,
        me: &Member,
        shards: &[SlotRange],
    ) -> Result<(), String> {
        self.now_ms = now_ms;
        if let Some(known) = &self.known {
            return Err(format!("the member belongs to cluster {} already", known.cluster));
        }
        if me.id != self.me {
            return Err(format!("this is member {}", self.me));
        }
        self.begin(Topology::form(cluster, incarnation, me, shards)?)
    }

    /// The same for a member without an operator: it is primary of its one shard from the start.
    ///
    /// # Errors
    /// When it belongs to a cluster already.
    pub fn form_alone(&mut self, now_ms: u64, cluster: String, me: &Member) -> Result<(), String> {
        self.now_ms = now_ms;
        if let Some(known) = &self.known {
            return Err(format!("the member belongs to cluster {} already", known.cluster));
        }
        let mut topology = Topology::form(cluster, 1, me, &[])?;
        for shard in topology.shards.values_mut() {
            shard.primary = Some(self.me.clone());
            shard.epoch = topology.epoch;
            shard.boot.clone_from(&self.boot);
            shard.in_sync.insert(self.me.clone(), self.boot.clone());
        }
        self.begin(topology)
    }

    /// All that the disk of a member holds that begins a council by itself, as its only voter.
    pub fn first_records(me: &MemberId, topology: Topology) -> Vec<Record> {
        let topology = Arc::new(topology);
        let voters = apply::raft_id(me).into_iter().collect();
        let (index, term, learners) = (1, 1, vec![]);
        let snapshot =
            Record::Snapshot { index, term, voters, learners, topology: topology.clone() };
        vec![snapshot, Record::Known(topology)]
    }

    fn begin(&mut self, topology: Topology) -> Result<(), String> {
        let records = Self::first_records(&self.me, topology.clone());
        let saved = Saved { known: None, ..Saved::from_records(records) };
        self.start_consensus(saved)?;
        if let Some(consensus) = &self.consensus {
            self.batches.push(consensus.records(), true, true);
        }
        self.know(Arc::new(topology), false);
        self.turn();
        Ok(())
    }

    /// Takes the topology from the operator: this member is (to be) one of that cluster.
    ///
    /// # Errors
    /// When it belongs to another cluster already.
    pub fn adopt(&mut self, now_ms: u64, topology: Topology) -> Result<(), String> {
        self.now_ms = now_ms;
        if let Some(known) = &self.known
            && !is_same_cluster(known, &topology)
        {
            return Err(format!("the member belongs to cluster {} already", known.cluster));
        }
        if self.known.as_ref().is_none_or(|k| k.epoch < topology.epoch) {
            self.know(Arc::new(topology), false);
        }
        self.turn();
        Ok(())
    }

    /// That topology is a later incarnation of this member's cluster: what survivors have made of it.
    pub fn is_succeeded_by(&self, topology: &Topology) -> bool {
        let known = self.known.as_ref();
        known.is_some_and(|k| k.cluster == topology.cluster && k.incarnation < topology.incarnation)
    }

    /// What the local data set says of itself; call it before `tick`, and whenever the role or the disk's
    /// health changes.
    pub fn report(&mut self, now_ms: u64, report: Report) {
        self.now_ms = now_ms;
        let held_before = self.report.held_epoch;
        self.report = Report { id: self.me.clone(), boot: self.boot.clone(), ..report };
        let holds_now = self.report.held_epoch != 0 && self.report.held_epoch != held_before;
        self.report_echo = self.leader.as_ref().map(|(_, stamp, _)| *stamp);
        if self.tenure.is_some() {
            let as_of = Stamp { term: self.term(), at_ms: now_ms };
            self.report_echo = Some(as_of);
            self.seen.heard(&self.me, now_ms, as_of, self.report.clone());
        }
        if std::mem::take(&mut self.is_polled) || holds_now {
            self.beat();
            self.turn();
        } else if self.awaits_itself() {
            let me = self.me.clone();
            self.look_after_shard_of(&me);
            self.turn();
        }
    }

    /// Time has passed; to be called about every `tick_ms`.
    pub fn tick(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        let due = (now_ms.saturating_sub(self.last_tick_ms)) / self.settings.tick_ms;
        if due > 0 {
            self.last_tick_ms =
                if due > 3 { now_ms } else { self.last_tick_ms + due * self.settings.tick_ms };
        }
        // Who was stopped for a while does not make up for it: the others have not missed it.
        for _ in 0..due.min(3) {
            if let Some(consensus) = &mut self.consensus {
                consensus.tick(now_ms, &self.settings);
            }
        }
        if now_ms >= self.next_beat_ms {
            self.beat();
        }
        let (over, open): (BTreeMap<u64, u64>, _) =
            std::mem::take(&mut self.wishes).into_iter().partition(|(_, end)| *end <= now_ms);
        self.wishes = open;
        for token in over.into_keys() {
            let outcome = Err(refusal::NO_ANSWER.to_owned());
            self.events.push(Event::Answered { token, outcome });
        }
        self.turn();
        self.lead();
        self.turn();
    }

    /// The peer's host refuses connections: its process is gone.
    pub fn refused(&mut self, now_ms: u64, member: &MemberId) {
        self.now_ms = now_ms;
        self.seen.refused(member);
        self.lead();
        self.turn();
    }

    /// The disk has made every batch up to `batch` durable.
    pub fn persisted(&mut self, now_ms: u64, batch: u64) {
        self.now_ms = now_ms;
        while self.writing.front().is_some_and(|(number, _)| *number <= batch) {
            if let Some((_, epoch)) = self.writing.pop_front() {
                self.durable = self.durable.max(epoch);
            }
        }
        self.follow_topology();
        let mut drained = consensus::Drained::default();
        if let Some(consensus) = &mut self.consensus {
            consensus.persisted(batch, now_ms, &mut drained);
        }
        self.digest(drained);
        self.turn();
    }

    /// Puts a wish to the council, wherever its leader is; `Event::Answered` follows.
    pub fn propose(&mut self, now_ms: u64, change: Change, expected: Option<Epoch>) -> u64 {
        self.now_ms = now_ms;
        self.wish_last += 1;
        let token = self.wish_last;
        self.wishes.insert(token, now_ms + 5 * self.settings.failure_timeout_ms);
        if self.tenure.is_some() {
            self.wish(None, token, change, expected);
        } else if let Some(leader) = self.leader().cloned() {
            self.messages
                .push((leader, Body::Propose { token, change: Box::new(change), expected }));
        } else {
            self.answered(token, Err(refusal::NO_LEADER.into()));
        }
        self.turn();
        token
    }

    /// What there is to do since the last call.
    pub fn drain(&mut self) -> Output {
        let mut batches = std::mem::take(&mut self.batches.ready);
        for batch in batches.iter_mut().filter(|b| b.rewrite) {
            if let Some(known) = &self.known {
                batch.records.push(Record::Known(known.clone()));
            }
        }
        let messages = std::mem::take(&mut self.messages);
        let (cluster, incarnation) = self
            .known
            .as_ref()
            .map_or_else(Default::default, |k| (k.cluster.clone(), k.incarnation));
        let address = |(to, body)| (to, Message { cluster: cluster.clone(), incarnation, body });
        Output {
            batches,
            messages: messages.into_iter().map(address).collect(),
            events: std::mem::take(&mut self.events),
        }
    }

    /// The times that this member counts with.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// This member's last report, with its ID and boot.
    pub fn own_report(&self) -> &Report {
        &self.report
    }

    /// The topology of that epoch, or a later one, is on this member's disk.
    pub fn is_durable(&self, epoch: Epoch) -> bool {
        self.durable >= epoch
    }

    pub fn topology(&self) -> Option<&Arc<Topology>> {
        self.known.as_ref()
    }

    /// What an operator may be told: others are taken into that cluster then, and a member that has just formed it may still
    /// forget it with its process, and form another one (seed 4368 of the simulation of the whole). What the council decides
    /// later is with a majority before anybody knows it.
    pub fn lasting_topology(&self) -> Option<&Arc<Topology>> {
        self.known.as_ref().filter(|_| self.durable > 0)
    }

    /// Who leads, as an operator is told: a leader that has not applied yet what was decided before it does not count itself,
    /// as its topology is no more than one of many.
    pub fn leader_told(&self) -> Option<&MemberId> {
        let is_ready = || self.consensus.as_ref().is_some_and(Consensus::is_caught_up);
        self.leader().filter(|leader| **leader != self.me || is_ready())
    }

    /// Who leads the council, as far as this member knows.
    pub fn leader(&self) -> Option<&MemberId> {
        if self.tenure.is_some() {
            return Some(&self.me);
        }
        let voted = self.consensus.as_ref().filter(|c| c.is_voter()).and_then(Consensus::leader);
        let is_recent = |at_ms: u64| self.now_ms < at_ms + self.settings.failure_timeout_ms;
        let heard = self.leader.as_ref().filter(|(_, _, at_ms)| is_recent(*at_ms));
        voted.or(heard.map(|(leader, _, _)| leader))
    }

    /// In a cluster without an operator: the members that the leader does not hear, a few of them where they are
    /// many.
    pub fn silent(&self) -> Vec<MemberId> {
        let Some(known) = self.known.as_ref().filter(|k| k.unmanaged.failure_timeout_ms > 0) else {
            return vec![];
        };
        let Some(tenure) = &self.tenure else { return self.told_silent.clone() };
        let since_ms = tenure.since_ms;
        let is_silent = |id: &&MemberId| {
            **id != self.me && self.seen.is_silent(id, self.now_ms, since_ms, &self.settings)
        };
        known.members.keys().filter(is_silent).take(SILENT_MAX).cloned().collect()
    }

    /// Who votes, as this member's own log has it; `None` for who has never voted.
    pub fn voters(&self) -> Option<&BTreeSet<MemberId>> {
        self.consensus.as_ref().map(|c| &c.machine.voters)
    }

    pub fn leads(&self) -> bool {
        self.tenure.is_some()
    }

    /// Shard, epoch and end of the lease of this process, if it is a primary's.
    pub fn lease(&self) -> Option<(ShardId, Epoch, u64)> {
        self.holder.acting().map(|(shard, epoch)| (shard, epoch, self.holder.until_ms()))
    }

    /// Why each shard without an acting primary still has none, in the leader's eyes.
    pub fn waiting_for(&self) -> BTreeMap<ShardId, String> {
        self.tenure.as_ref().map(Tenure::reasons).unwrap_or_default()
    }

    fn term(&self) -> u64 {
        self.consensus.as_ref().map_or(0, Consensus::term)
    }

    fn send(&mut self, to: &MemberId, body: Body) {
        if *to != self.me {
            self.messages.push((to.clone(), body));
        }
    }

    fn answered(&mut self, token: u64, outcome: Result<Epoch, String>) {
        if self.wishes.remove(&token).is_some() {
            self.events.push(Event::Answered { token, outcome });
        }
    }

    /// Tells the voters how this member is, and asks for its lease to be prolonged.
    fn beat(&mut self) {
        self.next_beat_ms = self.now_ms + self.settings.beat_ms;
        let Some(known) = self.known.clone() else { return };
        let renew = self.holder.renew(self.now_ms, &self.boot);
        let beat = Beat {
            report: self.report.clone(),
            epoch: known.epoch,
            released: self.holder.released().filter(|e| self.report.held_epoch == *e),
            renew,
            echo: self.report_echo,
        };
        for voter in known.voters.iter().filter(|v| **v != self.me) {
            self.messages.push((voter.clone(), Body::Beat(Box::new(beat.clone()))));
        }
        if known.voters.contains(&self.me) {
            let me = self.me.clone();
            self.receive_beat(&me, beat);
        }
    }
}

/// Why a wish was not granted, where that says nothing against the wish itself: it may be put again.
mod refusal {
    pub(super) const NO_ANSWER: &str = "no answer from the council's leader";
    pub(super) const NO_LEADER: &str = "the council has no leader that this member knows of";
    pub(super) const NOT_LEADING: &str = "this member does not lead the council";
    pub(super) const LEADER_CHANGED: &str =
        "the council's leader changed; whether the wish came true is not known";
    pub(super) const LOG_BUSY: &str = "the log takes no entry now";
}

/// The wish may be put again, for nobody has decided on it as far as is known.
pub fn is_transient(why: &str) -> bool {
    use refusal::{LEADER_CHANGED, LOG_BUSY, NO_ANSWER, NO_LEADER, NOT_LEADING};
    [LEADER_CHANGED, LOG_BUSY, NO_ANSWER, NO_LEADER, NOT_LEADING].contains(&why)
}

fn is_same_cluster(a: &Topology, b: &Topology) -> bool {
    a.cluster == b.cluster && a.incarnation == b.incarnation
}
