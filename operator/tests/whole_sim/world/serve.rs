//! What a member does for clients: who answers, what is executed, when it is acknowledged.

use engine::council::Council;
use engine::quorum::set::Acked;
use engine::topology::{Epoch, Topology};

use super::clients::Answer;
use super::network::{CLIENT, Packet};
use super::{Key, Op, Value, What, World};

/// How long requests wait for a lease or for the end of a handover, and for slots that change their owner.
const HOLD_MS: u64 = 1_500;
const HELD_SLOTS_MS: u64 = 1_000;
/// How long an answer waits for other members.
const WAIT_MS: u64 = 5_000;

/// A client's SET or GET. What it writes is named by its operation's number.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) client: usize,
    pub(super) attempt: u64,
    pub(super) key: Key,
    pub(super) write: Option<Value>,
    /// A replica may answer that is known to be no further behind, milliseconds.
    pub(super) bound_ms: Option<u64>,
}

/// An answer that waits until those who are needed have the journal up to there.
pub(super) struct Owed {
    gate: u64,
    request: Request,
    value: Option<Value>,
    epoch: Epoch,
    since_ms: u64,
}

enum Route {
    Execute,
    ExecuteAsReplica,
    Wait,
    Refuse,
    Moved(usize),
}

impl World {
    pub(super) fn take_request(&mut self, n: usize, request: Request) {
        let now = self.clock(n);
        self.dispatch(n, now, request);
    }

    fn dispatch(&mut self, n: usize, since_ms: u64, request: Request) {
        match self.route(n, since_ms, &request) {
            Route::Execute => self.execute(n, request),
            Route::ExecuteAsReplica => self.execute_as_replica(n, &request),
            Route::Wait => {
                if let Some(process) = &mut self.nodes[n].process {
                    process.waiting.push_back((since_ms, request));
                }
            }
            Route::Refuse => self.answer(n, &request, Answer::Refused),
            Route::Moved(to) => self.answer(n, &request, Answer::Moved(to)),
        }
    }

    fn route(&self, n: usize, since_ms: u64, request: &Request) -> Route {
        let node = &self.nodes[n];
        let Some(process) = &node.process else { return Route::Refuse };
        let Some(topology) = process.council.topology() else { return Route::Refuse };
        let slot = self.slots[request.key];
        let Some(owner) = topology.shard_of_slot(slot) else { return Route::Refuse };
        let shard = &topology.shards[&owner];
        if shard.primary.as_ref() != Some(&node.id) {
            if self.may_answer_as_replica(n, owner, request) {
                return Route::ExecuteAsReplica;
            }
            let primary = shard.primary.as_ref().and_then(|p| topology.members.get(p));
            return match primary.and_then(|p| self.member_at(&p.name)) {
                Some(to) => Route::Moved(to),
                None => Route::Refuse,
            };
        }
        let waited = self.clock(n).saturating_sub(since_ms);
        let wait = |ms: u64| if waited < ms { Route::Wait } else { Route::Refuse };
        if process.held.iter().any(|h| h.holds(slot)) {
            return wait(HELD_SLOTS_MS);
        }
        if node.data.acting != Some(shard.epoch) {
            return Route::Refuse;
        }
        if !self.holds_lease(n) {
            let is_new = process.has_served != shard.epoch;
            return if is_new { wait(HOLD_MS) } else { Route::Refuse };
        }
        if !self.may_execute(n) {
            return wait(HOLD_MS);
        }
        if request.write.is_some() && !self.acked(n).enough {
            return Route::Refuse;
        }
        Route::Execute
    }

    fn execute(&mut self, n: usize, request: Request) {
        let now = self.clock(n);
        let slot = self.slots[request.key];
        let Some(epoch) = self.nodes[n].data.acting else { return };
        let gate = match request.write {
            Some(value) => self.append(n, epoch, value),
            None => {
                let Some(process) = &self.nodes[n].process else { return };
                process.gates.1.get(&slot).copied().unwrap_or(process.gates.0)
            }
        };
        let Some(process) = &mut self.nodes[n].process else { return };
        let value = process.registers.1.get(&request.key).copied();
        process.owed.push(Owed { gate, request, value, epoch, since_ms: now });
        self.acknowledge(n);
    }

    /// Writes an operation as primary: gives the journal's length behind it.
    pub(super) fn append(&mut self, n: usize, epoch: Epoch, number: u64) -> u64 {
        let op = self.ops[number as usize];
        let node = &mut self.nodes[n];
        node.data.journal.push((epoch, number));
        let end = node.data.journal.len() as u64;
        let Some(process) = &mut node.process else { return end };
        let key = match op {
            Op::Mark => return end,
            Op::Set { key, value } => {
                process.registers.1.insert(key, value);
                key
            }
            Op::Clear { key } => {
                process.registers.1.remove(&key);
                key
            }
        };
        process.gates.1.insert(self.slots[key], end);
        end
    }

    /// A number for an operation of a member's own.
    pub(super) fn note_op(&mut self, op: Op) -> u64 {
        self.ops.push(op);
        self.ops.len() as u64 - 1
    }

    /// It is primary under another epoch, or no longer.
    pub(super) fn role_has_changed(&mut self, n: usize) {
        let node = &mut self.nodes[n];
        let Some(process) = &mut node.process else { return };
        process.acked = 0;
        process.links.begin_anew();
        process.registers = (node.data.acting.unwrap_or(0), std::collections::BTreeMap::new());
        process.gates.1.clear();
        if node.data.acting.is_some() {
            // What was there before its own mark counts once those who are needed follow in this epoch.
            process.gates.0 = node.data.journal.len() as u64 - 1;
            for (_, number) in &node.data.journal {
                match self.ops[*number as usize] {
                    Op::Mark => {}
                    Op::Set { key, value } => {
                        process.registers.1.insert(key, value);
                    }
                    Op::Clear { key } => {
                        process.registers.1.remove(&key);
                    }
                }
            }
        }
        self.acknowledge(n);
    }

    /// What those have who must have a write; `u64::MAX` where nobody is waited for.
    fn acked(&self, n: usize) -> Acked {
        let nobody = Acked { offset: u64::MAX, enough: true };
        let node = &self.nodes[n];
        let of_shard = self.topology_of(n).zip(node.seat.shard());
        match of_shard.filter(|_| self.quorum()) {
            Some((topology, id)) => node.data.acked_by(topology, id, &node.id, self.clock(n)),
            None => nobody,
        }
    }

    /// All that was written until there has been had by those who are needed.
    pub(super) fn is_acked(&self, n: usize, end: u64) -> bool {
        let Acked { offset, .. } = self.acked(n);
        let process = self.nodes[n].process.as_ref();
        offset == u64::MAX || process.is_some_and(|p| p.acked.max(offset) >= end)
    }

    /// Answers go out that wait for nobody any more.
    pub(super) fn acknowledge(&mut self, n: usize) {
        let (now, acting, holds_lease) =
            (self.clock(n), self.nodes[n].data.acting, self.holds_lease(n));
        let Acked { offset, .. } = self.acked(n);
        let Some(process) = &mut self.nodes[n].process else { return };
        if acting.is_some() && offset != u64::MAX {
            // What all once had stays so, whoever goes away.
            process.acked = process.acked.max(offset);
        }
        let acked = if offset == u64::MAX { offset } else { process.acked };
        for owed in std::mem::take(&mut process.owed) {
            let is_other = Some(owed.epoch) != acting;
            if is_other || now >= owed.since_ms + WAIT_MS {
                // What was executed may be gone: the connection is closed.
                self.answer(n, &owed.request, Answer::Closed);
            } else if owed.gate > acked {
                if let Some(process) = &mut self.nodes[n].process {
                    process.owed.push(owed);
                }
            } else if !holds_lease {
                self.answer(n, &owed.request, Answer::Closed);
            } else {
                if let (Some(number), Some(shard)) = (owed.request.write, self.shard_of(n)) {
                    let now = self.ms();
                    self.acked_under.insert(number, owed.epoch);
                    self.nodes[n].data.acked.push(number);
                    self.checker.acknowledged(shard, number, now);
                }
                self.answer(n, &owed.request, Answer::Done(owed.value));
            }
        }
    }

    pub(super) fn answer(&mut self, n: usize, request: &Request, answer: Answer) {
        let packet = Packet::Answer { attempt: request.attempt, answer };
        self.send(n, CLIENT + request.client, packet);
    }

    /// Requests that waited are looked at again.
    pub(super) fn look_after_requests(&mut self, n: usize) {
        let Some(process) = &mut self.nodes[n].process else { return };
        let waiting = std::mem::take(&mut process.waiting);
        self.tally.count(What::RequestHeld, waiting.len() as u64);
        for (since_ms, request) in waiting {
            self.dispatch(n, since_ms, request);
        }
        self.acknowledge(n);
    }

    /// The primary's look at who is awaited, once a beat.
    pub(super) fn look_after_awaited(&mut self, n: usize) {
        let now = self.clock(n);
        let is_due = now >= self.nodes[n].data.looked_ms + self.settings.beat_ms;
        if !self.quorum() || !is_due || !self.holds_lease(n) {
            return;
        }
        let node = &mut self.nodes[n];
        node.data.looked_ms = now;
        let Some(process) = &mut node.process else { return };
        let topology = process.council.topology().cloned();
        if let (Some(shard), Some(topology)) = (node.seat.shard(), topology) {
            if let Some(change) = node.data.look(&topology, shard, &node.id, now) {
                self.tally.count(What::AwaitedWished, 1);
                process.council.propose(now, change, Some(topology.epoch));
            }
            self.acknowledge(n);
        }
    }

    /// Who answers under a member's name.
    pub(super) fn member_at(&self, name: &str) -> Option<usize> {
        let seat = ::operator::desired::Seat::parse(&self.desired.name, name)?;
        self.places.get(&seat).map(|place| place.node)
    }

    pub(super) fn topology_of(&self, n: usize) -> Option<&Topology> {
        let council: &Council = &self.nodes[n].process.as_ref()?.council;
        council.topology().map(|t| &**t)
    }
}
