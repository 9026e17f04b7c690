//! Clients: each asks for one thing at a time, follows MOVED, and gives up after a while.

use std::collections::BTreeMap;

use super::network::{CLIENT, Packet};
use super::serve::Request;
use super::{Action, CLIENTS, HOT, KEYS, Key, Op, Phase, READERS, Value, What, World};
use crate::history::{self, Operation};

/// Bounds that clients ask for, milliseconds: shorter and longer than anything here takes.
const BOUNDS_MS: [u64; 4] = [60, 300, 2_000, 10_000];
/// What clocks that run fast or slow make of a bound, parts of it.
const DRIFT: u64 = 100;

/// Attempts that were refused, one after the other, until a client gives up.
const ATTEMPTS: u32 = 60;

/// What a client is told.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    /// It was done; the key's value then.
    Done(Option<Value>),
    /// A replica has this, which may be as old as was allowed.
    OfReplica(Option<Value>),
    Moved(usize),
    /// It was not done.
    Refused,
    /// The connection was closed: nobody says whether it was done.
    Closed,
}

#[derive(Default)]
pub(super) struct Client {
    call: Option<Call>,
    attempts: u64,
    /// Who serves each key, as far as it was told.
    owners: BTreeMap<Key, usize>,
}

struct Call {
    key: Key,
    write: Option<Value>,
    /// A replica may answer that is no further behind, milliseconds.
    bound_ms: Option<u64>,
    begin: u64,
    attempt: u64,
    tries: u32,
}

/// What a replica answered.
pub(super) struct StaleRead {
    key: Key,
    value: Option<Value>,
    bound_ms: u64,
    begin: u64,
}

impl World {
    pub(super) fn client_begins(&mut self, client: usize) {
        if self.clients[client].call.is_some() {
            return;
        }
        let key = match self.phase {
            Phase::Trouble | Phase::Settling => {
                let of = if self.rng.chance(1, 2) { HOT } else { KEYS as u64 };
                self.rng.below(of) as usize
            }
            Phase::Reading { next } if client == 0 => next,
            Phase::Reading { .. } | Phase::Done => return,
        };
        let is_reader = client >= CLIENTS - READERS;
        let watched = self.watched.as_ref().filter(|_| is_reader);
        let key = match watched.filter(|(_, keys)| !keys.is_empty()) {
            Some((_, keys)) if self.phase == Phase::Trouble && self.rng.chance(1, 2) => {
                let at = self.rng.below(keys.len() as u64) as usize;
                keys[at]
            }
            _ => key,
        };
        let writes =
            !is_reader && !matches!(self.phase, Phase::Reading { .. }) && self.rng.chance(1, 2);
        let write = writes.then(|| {
            let number = self.ops.len() as u64;
            self.note_op(Op::Set { key, value: number })
        });
        let begin = self.now_us;
        let asks = write.is_none() && !matches!(self.phase, Phase::Reading { .. });
        let bound_ms = (asks && (is_reader || self.rng.chance(1, 4))).then(|| {
            let at = self.rng.below(BOUNDS_MS.len() as u64) as usize;
            BOUNDS_MS[at]
        });
        let call = Call { key, write, bound_ms, begin, attempt: 0, tries: 0 };
        self.clients[client].call = Some(call);
        self.try_once(client);
    }

    fn try_once(&mut self, client: usize) {
        let places: Vec<usize> = self.places.values().map(|p| p.node).collect();
        let any = self.rng.below(places.len() as u64) as usize;
        let of = &mut self.clients[client];
        let Some(call) = &mut of.call else { return };
        of.attempts += 1;
        (call.attempt, call.tries) = (of.attempts, call.tries + 1);
        let attempt = call.attempt;
        let known = of.owners.get(&call.key).copied().filter(|_| call.bound_ms.is_none());
        let watched = self.watched.as_ref().filter(|(_, keys)| keys.contains(&call.key));
        let watched = watched.filter(|_| call.bound_ms.is_some()).map(|(node, _)| *node);
        let Some(to) = known.or(watched).or(places.get(any).copied()) else {
            return self.after(200_000, Action::Again { client, attempt });
        };
        let (key, write, bound_ms) = (call.key, call.write, call.bound_ms);
        let request = Request { client, attempt, key, write, bound_ms };
        if self.nodes[to].process.is_none() {
            of.owners.remove(&call.key);
            let pause = 10_000 + self.rng.below(50_000);
            return self.after(pause, Action::Again { client, attempt });
        }
        self.send(CLIENT + client, to, Packet::Request(request));
        let patience = 500_000 + self.rng.below(2_000_000);
        self.after(patience, Action::Impatient { client, attempt });
    }

    pub(super) fn client_again(&mut self, client: usize, attempt: u64) {
        let Some(call) = self.clients[client].call.as_ref().filter(|c| c.attempt == attempt) else {
            return;
        };
        if call.tries >= ATTEMPTS {
            return self.client_ends(client, None);
        }
        self.try_once(client);
    }

    pub(super) fn client_gives_up(&mut self, client: usize, attempt: u64) {
        let Some(call) = self.clients[client].call.as_ref().filter(|c| c.attempt == attempt) else {
            return;
        };
        let key = call.key;
        self.clients[client].owners.remove(&key);
        self.client_ends(client, None);
    }

    pub(super) fn answered(&mut self, client: usize, attempt: u64, answer: Answer) {
        let of = &mut self.clients[client];
        let Some(call) = of.call.as_ref().filter(|c| c.attempt == attempt) else { return };
        let (key, tries) = (call.key, call.tries);
        match answer {
            Answer::Done(value) => self.client_ends(client, Some(value)),
            Answer::OfReplica(value) => self.replica_answered(client, value),
            Answer::Closed => self.client_ends(client, None),
            Answer::Moved(to) if tries < ATTEMPTS => {
                of.owners.insert(key, to);
                // The primary is asked as by anybody.
                if let Some(call) = &mut of.call {
                    call.bound_ms = None;
                }
                self.tally.count(What::Redirected, 1);
                // To and fro while two members know different topologies: no faster than that.
                let pause = if tries > 5 { 20_000 } else { 0 };
                self.after(pause, Action::Again { client, attempt });
            }
            Answer::Moved(_) | Answer::Refused => {
                self.tally.count(What::Refused, 1);
                if self.rng.chance(1, 3) {
                    self.clients[client].owners.remove(&key);
                }
                let pause = 20_000 + self.rng.below(100_000);
                self.after(pause, Action::Again { client, attempt });
            }
        }
    }

    fn replica_answered(&mut self, client: usize, value: Option<Value>) {
        let Some(call) = self.clients[client].call.take() else { return };
        let Call { key, begin, bound_ms, .. } = call;
        self.tally.count(What::ReadOfReplica, 1);
        let bound_ms = bound_ms.unwrap_or_default();
        self.stale_reads.push(StaleRead { key, value, bound_ms, begin });
        let think = 5_000 + self.rng.below(50_000);
        self.after(think, Action::Client(client));
    }

    /// The call is over. `outcome`: what it was told, or nothing.
    fn client_ends(&mut self, client: usize, outcome: Option<Option<Value>>) {
        let Some(call) = self.clients[client].call.take() else { return };
        let what = match (outcome, call.write) {
            (None, _) => What::Unknown,
            (_, Some(_)) => What::Set,
            (_, None) => What::Get,
        };
        self.tally.count(what, 1);
        let action = match call.write {
            Some(value) => history::Action::Write(value.to_string()),
            None => history::Action::Read(outcome.flatten().map(|value| value.to_string())),
        };
        let end = outcome.map(|_| self.now_us);
        let key = self.keys[call.key].clone();
        self.history.push(Operation { key, action, begin: call.begin, end });
        if let (Phase::Reading { next }, None, Some(_)) = (self.phase, call.write, outcome)
            && client == 0
            && call.key == next
            && call.begin >= self.reading_since_us
        {
            self.phase =
                if next + 1 < KEYS { Phase::Reading { next: next + 1 } } else { Phase::Done };
        }
        let think = if matches!(self.phase, Phase::Reading { .. }) {
            1_000
        } else {
            5_000 + self.rng.below(50_000)
        };
        self.after(think, Action::Client(client));
    }

    /// What clients saw must have been possible.
    pub(super) fn check_histories(&mut self) {
        // Who still waits does not know.
        (0..self.clients.len()).for_each(|client| self.client_ends(client, None));
        let outcome = if let Some(recovery) = &self.recovery {
            self.check_recovered(recovery)
        } else if self.quorum() {
            history::check(&self.history)
        } else {
            self.check_what_is_missing().and_then(|()| self.check_what_is_told())
        };
        let outcome = outcome.and_then(|()| self.check_stale_reads());
        if let Err(why) = outcome {
            self.violation(format!("what clients saw cannot be: {why}"));
        }
    }

    /// A replica's answer is no older than was allowed: no write that was acknowledged before that is newer than it, but those
    /// that failovers lost.
    fn check_stale_reads(&self) -> Result<(), String> {
        let lost = self.lost_values();
        let mut writes: BTreeMap<&str, Vec<(u64, &Operation)>> = BTreeMap::new();
        for operation in &self.history {
            if let history::Action::Write(value) = &operation.action {
                let number = value.parse().unwrap_or_default();
                writes.entry(&operation.key).or_default().push((number, operation));
            }
        }
        for read in self.stale_reads.iter().filter(|r| self.is_checked(r.begin)) {
            let key = self.keys[read.key].as_str();
            let of_key = writes.get(key).map_or(&[][..], Vec::as_slice);
            let bound_us = read.bound_ms * 1_000;
            let limit = read.begin.saturating_sub(bound_us + bound_us / DRIFT + 2_000);
            let since = match read.value {
                None => 0,
                Some(value) => match of_key.iter().find(|(number, _)| *number == value) {
                    None => return Err(format!("{key}: {value} of a replica was never written")),
                    Some((_, write)) => write.end.unwrap_or(u64::MAX),
                },
            };
            for (number, write) in of_key.iter().filter(|(_, w)| self.is_promised(w, read.begin)) {
                let acknowledged = write.end.filter(|end| *end < limit);
                let Some(end) = acknowledged.filter(|_| write.begin >= since) else { continue };
                // What was overwritten does not come back when that is lost.
                let is_lost = |(n, later): &&(u64, &Operation)| {
                    lost.contains(n) && (n == number || later.begin > end)
                };
                if !of_key.iter().any(|w| is_lost(&w)) {
                    return Err(format!(
                        "{key}: at {} us a replica had {:?}, no older than {} ms, and {number} was acknowledged at {end} us",
                        read.begin, read.value, read.bound_ms
                    ));
                }
            }
        }
        Ok(())
    }

    /// Values whose writes, by a client or by a move, failovers have lost.
    fn lost_values(&self) -> Vec<Value> {
        let value_of = |number: &u64| match self.ops[*number as usize] {
            Op::Set { value, .. } => Some(value),
            Op::Mark | Op::Clear { .. } => None,
        };
        self.checker.lost.iter().filter_map(|(_, _, number)| value_of(number)).collect()
    }

    /// With asynchronous replication: the last read of a key gives a write that no acknowledged one followed, but those
    /// that failovers lost.
    fn check_what_is_missing(&self) -> Result<(), String> {
        let lost: Vec<String> = self.lost_values().iter().map(Value::to_string).collect();
        for key in &self.keys {
            let of_key = || self.history.iter().filter(|o| o.key == *key);
            // The one that began last: the answer to an earlier one may come later.
            let reads = of_key().filter(|o| o.end.is_some());
            let last = reads.filter_map(|o| match &o.action {
                history::Action::Read(value) => Some((o.begin, value.clone())),
                history::Action::Write(_) => None,
            });
            let last = last.max_by_key(|(begin, _)| *begin);
            let Some((read, last)) = last else { return Err(format!("{key} was never read")) };
            let written = |value: &String| {
                of_key().find(|o| o.action == history::Action::Write(value.clone()))
            };
            let since = match &last {
                None => 0,
                Some(value) => match written(value) {
                    None => return Err(format!("{key}: {value} was read and never written")),
                    Some(write) => write.end.unwrap_or(u64::MAX),
                },
            };
            // What was still on its way when that read began may have come after it.
            let later =
                || of_key().filter(|o| o.begin > since && o.end.is_some_and(|end| end < read));
            let is_write = |o: &Operation| matches!(o.action, history::Action::Write(_));
            // What another write has followed does not move with its slot, and does not come back when that one is lost.
            let is_last = |write: &Operation| {
                !later().any(|o| is_write(o) && write.end.is_some_and(|end| end < o.begin))
            };
            for write in later().filter(|o| is_last(o)) {
                if let history::Action::Write(value) = &write.action
                    && !lost.contains(value)
                {
                    return Err(format!(
                        "{key}: {last:?} is left, and {value}, written later and acknowledged, is \
                         missing though no failover lost it"
                    ));
                }
            }
        }
        Ok(())
    }

    /// A former primary that came back has counted what it dropped: no less than what it had acknowledged and its successor
    /// lacks.
    fn check_what_is_told(&self) -> Result<(), String> {
        let failovers = self.newest().map(|t| t.failovers.clone()).unwrap_or_default();
        for (at, failover) in failovers.iter().enumerate() {
            let former = failovers[..at].iter().rev().find(|f| f.shard == failover.shard);
            let (Some(former), Some(told)) = (former, failover.dropped_writes) else { continue };
            let of = |(shard, epoch, number): &&(u16, u64, u64)| {
                (*shard, *epoch) == (failover.shard, failover.epoch)
                    && self.acked_under.get(number) == Some(&former.epoch)
            };
            let lost = self.checker.lost.iter().filter(of).count() as u64;
            if lost > told {
                return Err(format!(
                    "the failover of shard {} at epoch {} tells of {told} dropped writes, and lost {lost}",
                    failover.shard, failover.epoch
                ));
            }
        }
        Ok(())
    }
}
