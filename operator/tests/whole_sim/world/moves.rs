//! Slots that move, word by word as `engine::moves` has it: the target asks, empties the slots, takes in a copy and then
//! what changes; the source holds the slots' clients for the last of it, and the council makes the target their owner.
//!
//! The attempts are counted by the engine's own `Giving`; connections are modelled: words arrive in order, or the
//! connection is over.

mod giving;
mod taking;

use engine::moves::giving::Attempt;
use engine::topology::{Epoch, Move, SlotRange};

use super::network::Packet;
use super::{Key, Op, Value, World};
pub(super) use giving::Giver;
pub(super) use taking::Taker;

/// How long an answer is waited for.
const PATIENCE_MS: u64 = 5_000;
/// What a word takes longer that was lost at first.
const AGAIN_US: u64 = 200_000;

/// What both sides say to each other.
#[derive(Clone, Debug)]
pub(super) enum MoveWord {
    /// The target asks for a move, under its shard epoch.
    Want {
        id: Epoch,
        to_epoch: Epoch,
    },
    Begin,
    No,
    /// The slots are empty at the target.
    Ready,
    Change(Vec<Op>),
    Sync(u64),
    Synced(u64),
    Owned(Epoch),
    Owns,
    /// The connection is over.
    HangUp,
}

/// One direction of a connection.
#[derive(Default)]
struct Line {
    peer: usize,
    connection: u64,
    last_us: u64,
    sent: u64,
    heard: u64,
}

/// Slots whose clients wait.
pub(super) struct Held {
    attempt: Attempt,
    slots: Vec<SlotRange>,
}

impl Held {
    pub(super) fn holds(&self, slot: u16) -> bool {
        self.slots.iter().any(|r| r.contains(slot))
    }
}

/// It goes on, or what was wrong.
type Goes = Result<(), &'static str>;

impl World {
    fn say(&mut self, n: usize, line: &mut Line, word: MoveWord) {
        let lost = self.wires.loses(&mut self.rng);
        let delay = self.wires.delay_us(&mut self.rng) + if lost { AGAIN_US } else { 0 };
        line.last_us = (self.now_us + delay).max(line.last_us + 1);
        line.sent += 1;
        let (connection, number) = (line.connection, line.sent);
        let packet = Packet::Move { connection, number, word };
        self.post_at(line.last_us, n, line.peer, packet);
    }

    /// Shard epoch under which it acts as primary, its lease holding.
    fn acting(&self, n: usize) -> Option<Epoch> {
        self.nodes[n].data.acting.filter(|_| self.holds_lease(n))
    }

    fn goes_on(&self, n: usize, under_way: &Move, epoch: Epoch) -> bool {
        let topology = self.topology_of(n);
        self.acting(n) == Some(epoch) && topology.is_some_and(|t| t.move_of(under_way.id).is_some())
    }

    pub(super) fn hear_move(
        &mut self,
        n: usize,
        from: usize,
        connection: u64,
        number: u64,
        word: MoveWord,
    ) {
        if let MoveWord::Want { id, to_epoch } = word {
            return self.begin_to_give(
                n,
                Line { peer: from, connection, heard: number, ..Line::default() },
                id,
                to_epoch,
            );
        }
        let Some(process) = &mut self.nodes[n].process else { return };
        let is_it = |line: &Line| line.connection == connection && line.peer == from;
        if let Some(at) = process.givers.iter().position(|g| is_it(&g.line)) {
            let mut giver = process.givers.remove(at);
            giver.line.heard += 1;
            let in_order = giver.line.heard == number;
            let word = if in_order { word } else { MoveWord::HangUp };
            self.go_on_giving(n, giver, Some(word));
        } else if let Some(at) = process.takers.iter().position(|t| is_it(&t.line)) {
            let mut taker = process.takers.remove(at);
            taker.line.heard += 1;
            let in_order = taker.line.heard == number;
            let word = if in_order { word } else { MoveWord::HangUp };
            self.go_on_taking(n, taker, Some(word));
        }
    }

    /// Both sides get on with their moves; and keys that are another shard's are swept.
    pub(super) fn look_after_moves(&mut self, n: usize) {
        let Some(process) = &mut self.nodes[n].process else { return };
        for giver in std::mem::take(&mut process.givers) {
            self.go_on_giving(n, giver, None);
        }
        let Some(process) = &mut self.nodes[n].process else { return };
        for taker in std::mem::take(&mut process.takers) {
            self.go_on_taking(n, taker, None);
        }
        let (Some(epoch), Some(shard)) = (self.acting(n), self.shard_of(n)) else { return };
        let now = self.clock(n);
        let Some(process) = &mut self.nodes[n].process else { return };
        let Some(topology) = process.council.topology().cloned() else { return };
        for under_way in topology.moves.iter().filter(|m| m.to == shard) {
            if process.takers.iter().any(|t| t.under_way.id == under_way.id) {
                continue;
            }
            process.takers.push(Taker::new(under_way, epoch, now));
        }
        if process.swept != topology.epoch {
            let comes = |slot| {
                topology
                    .moves
                    .iter()
                    .any(|m| m.to == shard && m.slots.iter().any(|r| r.contains(slot)))
            };
            let is_left_over = |key: &Key| {
                let slot = self.slots[*key];
                !comes(slot) && topology.shard_of_slot(slot).is_some_and(|owner| owner != shard)
            };
            let keys: Vec<Key> = process.registers.1.keys().copied().filter(is_left_over).collect();
            if (keys.is_empty() || self.is_nobody_unaware(n))
                && self.clear(n, epoch, &keys).is_ok()
                && let Some(process) = &mut self.nodes[n].process
            {
                process.swept = topology.epoch;
            }
        }
    }

    fn clear(&mut self, n: usize, epoch: Epoch, keys: &[Key]) -> Goes {
        for key in keys {
            self.check_execution(n, epoch)?;
            let number = self.note_op(Op::Clear { key: *key });
            self.append(n, epoch, number);
        }
        Ok(())
    }

    fn check_execution(&self, n: usize, epoch: Epoch) -> Goes {
        let acts = self.may_execute(n) && self.nodes[n].data.acting == Some(epoch);
        if acts { Ok(()) } else { Err("this member is primary no longer") }
    }

    fn keys_in(&self, n: usize, under_way: &Move) -> Vec<(Key, Value)> {
        let holds = |key: Key| under_way.slots.iter().any(|r| r.contains(self.slots[key]));
        let Some(process) = &self.nodes[n].process else { return vec![] };
        process.registers.1.iter().map(|(k, v)| (*k, *v)).filter(|(k, _)| holds(*k)).collect()
    }
}
