//! The Raft library, steered: its timeouts, what it wants on disk first, what it has committed.
//!
//! The library draws election timeouts from the thread's generator; each time it may have done so
//! they are set again from our seed, so that a run can be repeated. A follower's messages leave only
//! after the records that they rest on are on disk; a leader's appends may leave before, because it
//! counts itself towards a majority only once its own disk has answered.

use std::collections::{BTreeMap, VecDeque};

use protobuf::Message as _;
use raft::eraftpb::{
    ConfChange, ConfChangeType, ConfState, Entry, EntryType, Message as RaftMessage, MessageType,
};
use raft::{Config, INVALID_ID, ProgressState, RawNode, SnapshotStatus, StateRole, Storage};
use serde::{Deserialize, Serialize};

use super::apply::raft_id;
use super::log::Log;
use super::record::{Batch, LogEntry, Record, Saved};
use super::rng::mix;
use super::settings::Settings;
use crate::topology::{Change, Epoch, MemberId, Shard, Topology};

/// Entries in the log before it is folded into a snapshot.
const LOG_ENTRIES_MAX: usize = 512;
/// Largest message of the library that is read, bytes.
const MESSAGE_BYTES_MAX: usize = 4 << 20;

/// What stands in an entry of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Proposal {
    pub(super) change: Change,
    /// Only when the topology is still of that epoch.
    pub(super) expected: Option<Epoch>,
}

/// An entry that has been applied, and what came of it.
pub(super) struct Applied {
    pub(super) index: u64,
    pub(super) change: Change,
    /// As the shard was before a promotion in it.
    pub(super) former: Option<Shard>,
    pub(super) outcome: Result<Epoch, String>,
}

/// What one round of the library gave.
#[derive(Default)]
pub(super) struct Drained {
    pub(super) messages: Vec<(MemberId, Vec<u8>)>,
    pub(super) applied: Vec<Applied>,
    /// Rounds of `confirm` that a majority has answered.
    pub(super) confirmed: Vec<u64>,
}

/// Batches on their way to the disk.
#[derive(Default)]
pub(super) struct Batches {
    last: u64,
    pub(super) ready: Vec<Batch>,
}

impl Batches {
    pub(super) fn push(&mut self, records: Vec<Record>, sync: bool, rewrite: bool) -> u64 {
        self.last += 1;
        self.ready.push(Batch { number: self.last, rewrite, sync, records });
        self.last
    }
}

struct Waiting {
    batch: u64,
    ready: u64,
    messages: Vec<RaftMessage>,
    /// A snapshot counts as applied once it is on disk.
    installed: Option<u64>,
}

pub(super) struct Consensus {
    node: RawNode<Log>,
    /// The state machine: what is committed and applied.
    pub(super) machine: Topology,
    conf: ConfState,
    applied: u64,
    waiting: VecDeque<Waiting>,
    names: BTreeMap<u64, MemberId>,
    /// When a snapshot went to whom; the library waits for its fate.
    snapshots: BTreeMap<u64, u64>,
    seed: u64,
    campaigns: u64,
}

impl Consensus {
    /// # Errors
    /// When the library refuses what was saved.
    pub(super) fn new(
        me: &MemberId,
        saved: Saved,
        settings: &Settings,
        seed: u64,
    ) -> Result<Self, String> {
        let id = raft_id(me).ok_or("not a member ID")?;
        let log = Log::new(saved);
        let applied = log.base_index();
        let machine = log.base_topology().clone();
        let config = Config {
            id,
            election_tick: settings.election_ticks,
            heartbeat_tick: settings.heartbeat_ticks,
            applied,
            max_size_per_msg: 1 << 20,
            max_inflight_msgs: 64,
            check_quorum: true,
            pre_vote: true,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let conf = log.initial_state().map_err(|e| e.to_string())?.conf_state;
        let node = RawNode::new(&config, log, &logger).map_err(|e| e.to_string())?;
        let mut this = Self {
            node,
            machine,
            conf,
            applied,
            waiting: VecDeque::new(),
            names: BTreeMap::from([(id, me.clone())]),
            snapshots: BTreeMap::new(),
            seed,
            campaigns: 0,
        };
        this.learn_names();
        this.steady();
        Ok(this)
    }

    pub(super) fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    pub(super) fn term(&self) -> u64 {
        self.node.raft.term
    }

    /// Everything from before this term has been applied: needed before anything is granted.
    pub(super) fn is_caught_up(&self) -> bool {
        self.leads() && self.node.raft.apply_to_current_term()
    }

    pub(super) fn leader(&self) -> Option<&MemberId> {
        self.names.get(&self.node.raft.leader_id)
    }

    /// It takes part in elections, as far as this member knows.
    pub(super) fn is_voter(&self) -> bool {
        self.node.raft.promotable()
    }

    pub(super) fn learners(&self) -> impl Iterator<Item = &MemberId> {
        self.conf.get_learners().iter().filter_map(|id| self.names.get(id))
    }

    pub(super) fn is_changing_voters(&self) -> bool {
        self.node.raft.has_pending_conf()
    }

    /// A learner has all that is committed.
    pub(super) fn has_caught_up(&self, member: &str) -> bool {
        let committed = self.node.raft.raft_log.committed;
        raft_id(member)
            .and_then(|id| self.node.raft.prs().get(id))
            .is_some_and(|p| p.recent_active && p.matched + 8 >= committed && p.matched > 0)
    }

    pub(super) fn tick(&mut self, now_ms: u64, settings: &Settings) {
        // Who still waits for its disk does not stand for election.
        if self.leads() || self.waiting.is_empty() {
            let campaigned = self.node.tick() && !self.leads();
            self.campaigns += u64::from(campaigned);
        }
        let overdue = |sent: &u64| now_ms > sent + settings.failure_timeout_ms;
        let lost: Vec<u64> =
            self.snapshots.iter().filter(|(_, sent)| overdue(sent)).map(|(id, _)| *id).collect();
        for id in lost {
            self.snapshots.remove(&id);
            let waits = |p: &raft::Progress| p.state == ProgressState::Snapshot;
            if self.node.raft.prs().get(id).is_some_and(waits) {
                self.node.report_snapshot(id, SnapshotStatus::Failure);
            }
        }
        self.steady();
    }

    pub(super) fn campaign(&mut self) {
        // Refused only when this member already leads or may not: then there is nothing to do.
        let _ = self.node.campaign();
        self.steady();
    }

    pub(super) fn receive(&mut self, from: &MemberId, me: &MemberId, bytes: &[u8]) {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return;
        }
        let Ok(message) = RaftMessage::parse_from_bytes(bytes) else { return };
        let (Some(from_id), Some(me_id)) = (raft_id(from), raft_id(me)) else { return };
        if message.from != from_id || message.to != me_id || !is_for_the_wire(&message) {
            return;
        }
        self.names.entry(from_id).or_insert_with(|| from.clone());
        // An error says that the message does not concern us (any more).
        let _ = self.node.step(message);
        self.steady();
    }

    /// Puts a change into the log; the index at which it will stand.
    pub(super) fn propose(&mut self, proposal: &Proposal) -> Option<u64> {
        let data = serde_json::to_vec(proposal).ok()?;
        self.node.propose(vec![], data).ok()?;
        self.steady();
        Some(self.node.raft.raft_log.last_index())
    }

    pub(super) fn change_voter(&mut self, kind: ConfChangeType, member: &MemberId) {
        let Some(id) = raft_id(member) else { return };
        self.names.entry(id).or_insert_with(|| member.clone());
        let mut change = ConfChange::default();
        change.set_change_type(kind);
        change.node_id = id;
        change.context = member.clone().into_bytes().into();
        // Refused while another one is under way: it is tried again.
        let _ = self.node.propose_conf_change(vec![], change);
        self.steady();
    }

    pub(super) fn hand_leadership_to(&mut self, member: &str) {
        if let Some(id) = raft_id(member) {
            self.node.transfer_leader(id);
            self.steady();
        }
    }

    /// Starts a round in which a majority confirms that this member leads.
    pub(super) fn confirm(&mut self, round: u64) {
        self.node.read_index(round.to_be_bytes().to_vec());
        self.steady();
    }

    /// The disk has made everything up to `batch` durable.
    pub(super) fn persisted(&mut self, batch: u64, now_ms: u64, drained: &mut Drained) {
        while self.waiting.front().is_some_and(|w| w.batch <= batch) {
            let Some(done) = self.waiting.pop_front() else { break };
            self.node.on_persist_ready(done.ready);
            if let Some(index) = done.installed {
                self.node.advance_apply_to(index);
            }
            self.send(done.messages, now_ms, drained);
        }
        self.steady();
    }

    pub(super) fn drain(&mut self, now_ms: u64, batches: &mut Batches, drained: &mut Drained) {
        while self.node.has_ready() {
            self.drain_once(now_ms, batches, drained);
        }
        if self.node.store().len() > LOG_ENTRIES_MAX && self.waiting.is_empty() {
            let conf = self.conf.clone();
            self.node.mut_store().compact(self.applied, conf, &self.machine);
            batches.push(self.node.store().records(), true, true);
        }
        self.steady();
    }

    /// All that must be on disk, for a batch that replaces the file.
    pub(super) fn records(&self) -> Vec<Record> {
        self.node.store().records()
    }

    fn drain_once(&mut self, now_ms: u64, batches: &mut Batches, drained: &mut Drained) {
        let mut ready = self.node.ready();
        let mut records = vec![];
        let installed = !ready.snapshot().is_empty();
        if installed {
            self.install(ready.snapshot());
        }
        if !ready.entries().is_empty() {
            self.node.mut_store().append(ready.entries());
            records.push(Record::Append(ready.entries().iter().map(LogEntry::from).collect()));
        }
        // A crash may cost the commit index, but not where it covers a change of voters: who has
        // counted on new voters once must not ask only the old ones when it starts again.
        let is_conf = |e: &Entry| e.get_entry_type() != EntryType::EntryNormal;
        let voters_change = ready.committed_entries().iter().any(is_conf);
        if let Some(hard) = ready.hs() {
            self.node.mut_store().hard = hard.clone();
        }
        if ready.hs().is_some() || voters_change {
            let hard = &self.node.store().hard;
            let (term, vote, commit) = (hard.term, hard.vote, hard.commit);
            records.push(Record::Hard { term, vote, commit });
        }
        if installed {
            records = self.node.store().records();
        }
        let now = ready.take_messages();
        let later = ready.take_persisted_messages();
        let committed = ready.take_committed_entries();
        for read in ready.take_read_states() {
            let round = <[u8; 8]>::try_from(read.request_ctx.as_slice()).map(u64::from_be_bytes);
            drained.confirmed.extend(round);
        }
        let (number, sync) = (ready.number(), ready.must_sync() || voters_change);
        self.node.advance_append_async(ready);
        let mut rests_on = self.waiting.back().map(|w| w.batch);
        if !records.is_empty() {
            let batch = batches.push(records, sync, installed);
            if sync {
                rests_on = Some(batch);
            }
        }
        self.send(now, now_ms, drained);
        match rests_on {
            Some(batch) => {
                let installed = installed.then_some(self.applied);
                let waiting = Waiting { batch, ready: number, messages: later, installed };
                self.waiting.push_back(waiting);
            }
            None => {
                self.node.on_persist_ready(number);
                self.send(later, now_ms, drained);
            }
        }
        self.apply(committed, drained);
    }

    fn install(&mut self, snapshot: &raft::eraftpb::Snapshot) {
        let topology: Topology = serde_json::from_slice(&snapshot.data).unwrap_or_default();
        let meta = snapshot.get_metadata();
        self.applied = meta.index;
        self.conf = meta.get_conf_state().clone();
        self.machine = topology.clone();
        self.node.mut_store().install(snapshot, topology);
        self.learn_names();
    }

    fn apply(&mut self, entries: Vec<Entry>, drained: &mut Drained) {
        if entries.is_empty() {
            return;
        }
        let mut voters_changed = false;
        for entry in entries {
            self.applied = entry.index;
            match entry.get_entry_type() {
                EntryType::EntryNormal => {
                    let Ok(proposal) = serde_json::from_slice::<Proposal>(&entry.data) else {
                        continue;
                    };
                    let Proposal { change, expected } = proposal;
                    let former = match &change {
                        Change::Promote { shard, .. } => self.machine.shards.get(shard).cloned(),
                        _ => None,
                    };
                    let outcome = match expected {
                        Some(epoch) if epoch != self.machine.epoch => {
                            Err(format!("the topology is at epoch {}", self.machine.epoch))
                        }
                        _ => self.machine.apply(&change).map(|()| self.machine.epoch),
                    };
                    drained.applied.push(Applied { index: entry.index, change, former, outcome });
                }
                EntryType::EntryConfChange => {
                    voters_changed |= self.apply_voters(&entry);
                }
                EntryType::EntryConfChangeV2 => {}
            }
        }
        self.node.advance_apply_to(self.applied);
        self.learn_names();
        if voters_changed {
            self.node.mut_store().refresh(self.applied, &self.conf, &self.machine);
        }
    }

    fn apply_voters(&mut self, entry: &Entry) -> bool {
        let Ok(change) = ConfChange::parse_from_bytes(&entry.data) else { return false };
        let Ok(conf) = self.node.apply_conf_change(&change) else { return false };
        let Ok(member) = MemberId::from_utf8(change.context.to_vec()) else { return false };
        self.conf = conf;
        // Who leads may have been voted out by the one who led before (seed 61806 of the simulation of the whole): it can
        // count no majority any more, and the others elect one of theirs.
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
            raft.become_follower(raft.term, INVALID_ID);
        }
        let mut voters = self.machine.voters.clone();
        match change.get_change_type() {
            ConfChangeType::AddNode => voters.insert(member),
            ConfChangeType::RemoveNode | ConfChangeType::AddLearnerNode => voters.remove(&member),
        };
        self.machine.apply(&Change::Voters { voters }).is_ok()
    }

    fn send(&mut self, messages: Vec<RaftMessage>, now_ms: u64, drained: &mut Drained) {
        for message in messages {
            let Some(to) = self.names.get(&message.to) else { continue };
            if message.get_msg_type() == MessageType::MsgSnapshot {
                self.snapshots.insert(message.to, now_ms);
            }
            if let Ok(bytes) = message.write_to_bytes() {
                drained.messages.push((to.clone(), bytes));
            }
        }
    }

    fn learn_names(&mut self) {
        let ids = self.machine.members.keys().chain(&self.machine.voters);
        self.names.extend(ids.filter_map(|id| Some((raft_id(id)?, id.clone()))));
    }

    /// Sets the election timeout from our seed. It differs by member, term and attempt, so that
    /// two candidates do not collide for ever.
    fn steady(&mut self) {
        let raft = &mut self.node.raft;
        let base = raft.election_timeout();
        let dice = mix(mix(self.seed ^ raft.id) ^ mix(raft.term << 20 | self.campaigns));
        let extra = usize::try_from(dice % base as u64).unwrap_or(0);
        raft.set_randomized_election_timeout(base + extra);
    }
}

/// What members may send each other; the rest the library sends to itself only.
fn is_for_the_wire(message: &RaftMessage) -> bool {
    matches!(
        message.get_msg_type(),
        MessageType::MsgAppend
            | MessageType::MsgAppendResponse
            | MessageType::MsgRequestVote
            | MessageType::MsgRequestVoteResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgSnapshot
            | MessageType::MsgHeartbeat
            | MessageType::MsgHeartbeatResponse
            | MessageType::MsgTimeoutNow
    )
}
