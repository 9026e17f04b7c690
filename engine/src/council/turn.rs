//! One turn: what arrived is taken in, and what the Raft library has to say is passed on.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::consensus::{Applied, Consensus, Drained};
use super::lead::Tenure;
use super::message::{Beat, Body, Heard, Message, Stamp};
use super::record::{Record, Saved};
use super::{Council, Event, KNOWN_WRITES_MAX, is_same_cluster, refusal};
use crate::topology::{Change, Epoch, MemberId, ShardId, Topology};

impl Council {
    /// A message from a member, whose identity the transport vouches for.
    pub fn receive(&mut self, now_ms: u64, from: &MemberId, message: Message) {
        self.now_ms = now_ms;
        let Some(known) = &self.known else { return };
        if message.cluster != known.cluster || message.incarnation != known.incarnation {
            return;
        }
        match message.body {
            Body::Raft(bytes) => self.receive_raft(from, &bytes),
            Body::Beat(beat) => self.receive_beat(from, *beat),
            Body::Heard(heard) => self.receive_heard(from, heard),
            Body::Granted(grant) => {
                if self.holder.granted(&grant, &self.boot, &self.settings) {
                    self.tell_lease();
                }
            }
            Body::Topology(topology) => {
                if is_same_cluster(known, &topology) && known.epoch < topology.epoch {
                    self.know(topology, false);
                }
            }
            Body::Propose { token, change, expected } => {
                self.wish(Some(from.clone()), token, *change, expected);
            }
            Body::Outcome { token, outcome } => self.answered(token, outcome),
            Body::Release { shard, epoch } => {
                let term = self.leader.as_ref().map_or(0, |(_, stamp, _)| stamp.term);
                self.release(shard, epoch, term);
            }
            Body::Resume { shard, epoch } => {
                if self.holder.acting() == Some((shard, epoch)) && self.holder.resume() {
                    self.beat();
                }
            }
        }
        self.turn();
    }

    fn receive_raft(&mut self, from: &MemberId, bytes: &[u8]) {
        if self.consensus.is_none() {
            // A leader that writes to us has made us a voter; it will send all there is to know.
            self.consensus =
                Consensus::new(&self.me, Saved::default(), &self.settings, self.seed).ok();
        }
        if let Some(consensus) = &mut self.consensus {
            consensus.receive(from, &self.me, bytes);
        }
    }

    pub(super) fn receive_beat(&mut self, from: &MemberId, beat: Beat) {
        self.seen.heard(from, self.now_ms, beat.echo.unwrap_or_default(), beat.report);
        let Some(known) = self.known.clone() else { return };
        self.seen.note_attached(&known, from, self.now_ms);
        if beat.epoch < known.epoch {
            self.tell_topology(&known, from);
        }
        if self.tenure.is_some() {
            self.note_released(from, beat.released, beat.echo.unwrap_or_default());
            if let (Some(renewal), Some(tenure)) = (beat.renew, &mut self.tenure) {
                tenure.collect(from.clone(), renewal);
            }
            self.send_heard(from, false);
            self.look_after_shard_of(from);
            self.confirm();
        }
    }

    pub(super) fn send_heard(&mut self, to: &MemberId, poll: bool) {
        let stamp = Stamp { term: self.term(), at_ms: self.now_ms };
        let epoch = self.known.as_ref().map_or(0, |k| k.epoch);
        let silent = self.silent();
        let heard = Heard { leader: self.me.clone(), stamp, epoch, poll, silent };
        if poll && *to == self.me {
            self.events.push(Event::WantReport);
        }
        self.send(to, Body::Heard(heard));
    }

    fn receive_heard(&mut self, from: &MemberId, heard: Heard) {
        if *from != heard.leader {
            return;
        }
        let known = self.known.clone();
        if let Some(known) = known.filter(|k| heard.epoch < k.epoch) {
            self.tell_topology(&known, from);
        }
        if self.holder.is_released_before(heard.stamp.term) && self.holder.resume() {
            self.beat();
        }
        if self.leader.as_ref().is_none_or(|(_, stamp, _)| *stamp <= heard.stamp) {
            self.told_silent = heard.silent;
            self.leader = Some((heard.leader, heard.stamp, self.now_ms));
        }
        if heard.poll {
            // The answer must be younger than the question: the driver is asked for a new report.
            self.is_polled = true;
            self.events.push(Event::WantReport);
        }
    }

    /// A newer topology; `committed`: it comes out of this member's own log, which is on disk.
    pub(super) fn know(&mut self, topology: Arc<Topology>, committed: bool) {
        let epoch = topology.epoch;
        if let Some(before) = &self.known {
            self.seen.note_epochs(before, &topology, self.now_ms);
        }
        self.known = Some(topology.clone());
        if committed {
            self.durable = self.durable.max(epoch);
        } else {
            self.known_writes += 1;
            let batch = if self.known_writes > KNOWN_WRITES_MAX {
                self.known_writes = 0;
                let records = self.consensus.as_ref().map(Consensus::records).unwrap_or_default();
                self.batches.push(records, true, true)
            } else {
                let record = Record::Known(topology.clone());
                self.batches.push(vec![record], true, false)
            };
            self.writing.push_back((batch, epoch));
        }
        self.events.push(Event::Topology(topology));
        self.follow_topology();
    }

    /// A member that has just become primary asks for its lease at once.
    pub(super) fn follow_topology(&mut self) {
        let Some(known) = self.known.clone() else { return };
        let before = self.holder.acting();
        self.holder.follow(&known, self.durable, &self.me, &self.boot);
        let after = self.holder.acting();
        if before != after {
            if let Some((shard, epoch)) = before {
                self.events.push(Event::Lease { shard, epoch, until_ms: 0 });
            }
            if after.is_some() {
                self.beat();
            }
        }
    }

    /// Stops executing, for a handover that the leader of `term` wants.
    pub(super) fn release(&mut self, shard: ShardId, epoch: Epoch, term: u64) {
        let resume_at = self.now_ms + self.settings.handover_ms * 11 / 10;
        if self.holder.release(shard, epoch, resume_at, term) {
            self.events.push(Event::Hold { shard, epoch });
        }
    }

    pub(super) fn tell_lease(&mut self) {
        if let Some((shard, epoch)) = self.holder.acting() {
            let until_ms = self.holder.until_ms();
            self.events.push(Event::Lease { shard, epoch, until_ms });
        }
    }

    /// Lets the Raft library speak until it has nothing more to say.
    pub(super) fn turn(&mut self) {
        for _ in 0..64 {
            let Some(consensus) = &mut self.consensus else { return };
            let mut drained = Drained::default();
            consensus.drain(self.now_ms, &mut self.batches, &mut drained);
            let is_idle = drained.messages.is_empty()
                && drained.applied.is_empty()
                && drained.confirmed.is_empty();
            self.follow_leadership();
            let was_behind = self.machine_is_ahead();
            self.digest(drained);
            if is_idle && !was_behind {
                return;
            }
        }
    }

    fn machine_is_ahead(&self) -> bool {
        let machine = self.consensus.as_ref().map_or(0, |c| c.machine.epoch);
        machine > self.known.as_ref().map_or(0, |k| k.epoch)
    }

    fn follow_leadership(&mut self) {
        let leads = self.consensus.as_ref().filter(|c| c.leads()).map(Consensus::term);
        if leads == self.tenure.as_ref().map(|t| t.term) {
            return;
        }
        if let Some(old) = self.tenure.take() {
            for (from, token) in old.into_unanswered() {
                self.answer(from, token, Err(refusal::LEADER_CHANGED.to_owned()));
            }
            self.events.push(Event::Leads(false));
        }
        if let Some(term) = leads {
            self.tenure = Some(Tenure::new(term, self.now_ms));
            self.events.push(Event::Leads(true));
            // Everybody is to know whom to renew with.
            let members: Vec<MemberId> =
                self.known.iter().flat_map(|k| k.members.keys().cloned()).collect();
            members.iter().for_each(|m| self.send_heard(m, true));
        }
    }

    pub(super) fn digest(&mut self, drained: Drained) {
        for (to, bytes) in drained.messages {
            self.send(&to, Body::Raft(bytes));
        }
        let before = self.known.clone();
        if self.machine_is_ahead()
            && let Some(consensus) = &self.consensus
        {
            let machine = Arc::new(consensus.machine.clone());
            let is_member = |id: &MemberId| machine.members.contains_key(id);
            self.seen.retain(is_member);
            self.know(machine, true);
        }
        let progressed = !drained.applied.is_empty();
        for applied in drained.applied {
            self.digest_applied(applied, before.as_deref());
        }
        for round in drained.confirmed {
            self.grant(round);
        }
        if progressed && self.tenure.is_some() {
            self.lead();
        }
    }

    fn digest_applied(&mut self, applied: Applied, before: Option<&Topology>) {
        let Applied { index, change, former, outcome } = applied;
        let Some(tenure) = &mut self.tenure else { return };
        if let (Ok(epoch), Some(former)) = (&outcome, former) {
            tenure.note_promoted(index, former, *epoch);
        }
        if let Some((from, token)) = tenure.applied(index) {
            self.answer(from, token, outcome.clone());
        }
        if outcome.is_ok()
            && let Some(known) = self.known.clone()
        {
            let concerned = concerned_by(&change, before, &known);
            concerned.iter().for_each(|m| self.tell_topology(&known, m));
        }
    }

    pub(super) fn tell_topology(&mut self, known: &Arc<Topology>, to: &MemberId) {
        self.send(to, Body::Topology(known.clone()));
    }

    pub(super) fn answer(
        &mut self,
        from: Option<MemberId>,
        token: u64,
        outcome: Result<u64, String>,
    ) {
        match from {
            Some(member) => self.send(&member, Body::Outcome { token, outcome }),
            None => self.answered(token, outcome),
        }
    }
}

/// Clusters of up to so many members are told at once of what clients ask any of them about.
const TOLD_AT_ONCE_MAX: usize = 64;

/// Who is told of a change before the next beat: those who must act on it, and in a small cluster everybody
/// whom clients may ask where a slot is. The others learn of it by their beats.
fn concerned_by(change: &Change, before: Option<&Topology>, known: &Topology) -> Vec<MemberId> {
    let moves = before.into_iter().flat_map(|t| &t.moves);
    let shards = match change {
        Change::Join(member) | Change::Enter { member, .. } => return vec![member.id.clone()],
        Change::Promote { shard, .. } => vec![*shard],
        // The primary waits for who is in the set, or an elector.
        Change::Synced { shard, .. }
        | Change::JoinSync { shard, .. }
        | Change::Electors { shard, .. }
        | Change::Retiring { shard, .. } => {
            let primary = known.shards.get(shard).and_then(|s| s.primary.clone());
            return primary.into_iter().collect();
        }
        Change::Move { from, to, .. } => vec![*from, *to],
        // Clients of the slots wait meanwhile, at both ends.
        Change::Moved { id, .. } | Change::CancelMove { id } => {
            moves.filter(|m| m.id == *id).flat_map(|m| [m.from, m.to]).collect()
        }
        // A user looks at any member next; beyond the small clusters, their beats tell them.
        Change::Own(_) => vec![],
        _ => return vec![],
    };
    // Those first for whom somebody waits: the primaries, then the others of these shards.
    let primaries = shards.iter().filter_map(|s| known.shards.get(s)?.primary.clone());
    let members = shards.iter().flat_map(|shard| known.members_of(*shard));
    let mut told: Vec<MemberId> = primaries.chain(members.map(|m| m.id.clone())).collect();
    if known.members.len() <= TOLD_AT_ONCE_MAX {
        told.extend(known.members.keys().cloned());
    }
    let mut seen = BTreeSet::new();
    told.retain(|id| seen.insert(id.clone()));
    told
}
