//! Slots that move, word by word as `engine::moves` has it: the target asks, empties the slots, takes in a copy and then
//! what changes; the source holds the slots' clients for the last of it, and the council makes the target their owner.
//!
//! The attempts are counted by the engine's own `Giving`; connections are modelled: words arrive in order, or the
//! connection is over.

use engine::moves::giving::Attempt;
use engine::topology::{Change, Epoch, Move, SlotRange};

use super::network::Packet;
use super::{Key, Op, Value, What, World};

/// How long an answer is waited for, and the same while clients wait.
const PATIENCE_MS: u64 = 5_000;
const HELD_PATIENCE_MS: u64 = 500;
/// How long clients wait for the target to know that it owns the slots.
const TARGET_PATIENCE_MS: u64 = 700;
/// How long the target waits for a topology that the source has already, and for its own replicas.
const TOPOLOGY_MS: u64 = 600;
const WAIT_MS: u64 = 5_000;
/// Pause before a move that broke off is begun anew.
const RETRY_MS: u64 = 200;
/// Changes that are sent while clients wait, at most so many at first; keys that are copied in one piece.
const NEAR: usize = 2;
const PIECE: usize = 1;
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

/// The source's side of one attempt.
pub(super) struct Giver {
    line: Line,
    attempt: Attempt,
    under_way: Move,
    /// Our shard epoch, and the target's.
    epoch: Epoch,
    to_epoch: Epoch,
    stage: Giving,
    /// How much of the journal was sent.
    at: usize,
    syncs: u64,
    until_ms: u64,
}

enum Giving {
    AwaitReady,
    Copying(Vec<(Key, Value)>),
    AwaitSync,
    /// The slots are held, and the rest is sent.
    AwaitLast,
    /// Who owns the slots is not known until the council has decided.
    Deciding(u64),
    AwaitOwned,
}

impl Giving {
    /// Under which a fault at this stage is counted.
    fn what(&self) -> What {
        match self {
            Self::AwaitReady => What::FaultAtReady,
            Self::Copying(_) => What::FaultAtCopy,
            Self::AwaitSync => What::FaultAtTail,
            Self::AwaitLast => What::FaultAtHold,
            Self::Deciding(_) => What::FaultAtCouncil,
            Self::AwaitOwned => What::FaultAtEnd,
        }
    }
}

/// The target's side.
pub(super) struct Taker {
    line: Line,
    under_way: Move,
    epoch: Epoch,
    stage: Stage,
    /// When it is begun anew, or given up.
    due_ms: u64,
    sync: Option<(u64, u64)>,
    owned: Option<Epoch>,
    taken: Vec<u64>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Idle,
    Asking,
    Filling,
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
            process.takers.push(Taker {
                line: Line::default(),
                under_way: under_way.clone(),
                epoch,
                stage: Stage::Idle,
                due_ms: now,
                sync: None,
                owned: None,
                taken: vec![],
            });
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
            if self.clear(n, epoch, &keys).is_ok()
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

    fn begin_to_give(&mut self, n: usize, mut line: Line, id: Epoch, to_epoch: Epoch) {
        let now = self.clock(n);
        let (acting, shard) = (self.acting(n), self.shard_of(n));
        let Some(process) = &mut self.nodes[n].process else { return };
        let under_way = process.council.topology().and_then(|t| t.move_of(id)).cloned();
        let mine = under_way.filter(|m| Some(m.from) == shard).zip(acting);
        let begun = mine.and_then(|(m, epoch)| Some((m, epoch, process.giving.begin(id).ok()?)));
        let Some((under_way, epoch, attempt)) = begun else {
            return self.say(n, &mut line, MoveWord::No);
        };
        self.tally.count(What::MoveBegun, 1);
        self.note(|w| format!("{} begins to give move {id} away", w.name(n)));
        self.say(n, &mut line, MoveWord::Begin);
        let (stage, until_ms) = (Giving::AwaitReady, now + PATIENCE_MS);
        let giver =
            Giver { line, attempt, under_way, epoch, to_epoch, stage, at: 0, syncs: 0, until_ms };
        let (target, stage) = (giver.line.peer, giver.stage.what());
        if let Some(process) = &mut self.nodes[n].process {
            process.givers.push(giver);
        }
        self.fault_in_move(n, target, stage);
    }

    fn go_on_giving(&mut self, n: usize, mut giver: Giver, word: Option<MoveWord>) {
        let before = giver.stage.what();
        let is_over = match self.give(n, &mut giver, word) {
            Ok(is_over) => {
                let after = giver.stage.what();
                if before != after {
                    self.fault_in_move(n, giver.line.peer, after);
                }
                is_over
            }
            Err(why) => {
                self.tally.count(What::MoveBrokeOff, 1);
                self.note(|w| {
                    format!("{}: move {} broke off: {why}", w.name(n), giver.under_way.id)
                });
                self.say(n, &mut giver.line, MoveWord::HangUp);
                true
            }
        };
        let Some(process) = &mut self.nodes[n].process else { return };
        if is_over {
            process.giving.end(giver.attempt);
            process.held.retain(|h| h.attempt != giver.attempt);
            self.look_after_requests(n);
        } else {
            process.givers.push(giver);
        }
    }

    fn check_giver(&self, n: usize, giver: &Giver) -> Goes {
        let process = self.nodes[n].process.as_ref();
        if !process.is_some_and(|p| p.giving.is_last(giver.attempt)) {
            return Err("the target has begun anew");
        }
        let goes_on = self.goes_on(n, &giver.under_way, giver.epoch);
        if goes_on { Ok(()) } else { Err("it was ended, or this member is primary no longer") }
    }

    /// The source's next step; `true`: it is done.
    fn give(
        &mut self,
        n: usize,
        giver: &mut Giver,
        word: Option<MoveWord>,
    ) -> Result<bool, &'static str> {
        let now = self.clock(n);
        let is_deciding = matches!(giver.stage, Giving::Deciding(_) | Giving::AwaitOwned);
        if matches!(word, Some(MoveWord::HangUp)) && !is_deciding {
            return Err("the target hung up");
        }
        let is_late = now >= giver.until_ms;
        match (&mut giver.stage, word) {
            (Giving::AwaitReady, Some(MoveWord::Ready)) => {
                self.check_giver(n, giver)?;
                giver.at = self.nodes[n].data.journal.len();
                giver.stage = Giving::Copying(self.keys_in(n, &giver.under_way));
            }
            (Giving::Copying(rest), None) => {
                let piece: Vec<Op> = rest
                    .split_off(rest.len().saturating_sub(PIECE))
                    .into_iter()
                    .map(|(key, value)| Op::Set { key, value })
                    .collect();
                let is_copied = rest.is_empty();
                self.check_giver(n, giver)?;
                self.say(n, &mut giver.line, MoveWord::Change(piece));
                if is_copied {
                    self.sync(n, giver, PATIENCE_MS);
                    giver.stage = Giving::AwaitSync;
                }
            }
            (Giving::AwaitSync, Some(MoveWord::Synced(number))) if number == giver.syncs => {
                self.check_giver(n, giver)?;
                let piece = self.read(n, giver);
                let is_near = piece.len() <= NEAR;
                self.say(n, &mut giver.line, MoveWord::Change(piece));
                if is_near {
                    // Nothing else runs in this thread: from here on nobody executes anything in these slots.
                    let (attempt, slots) = (giver.attempt, giver.under_way.slots.clone());
                    if let Some(process) = &mut self.nodes[n].process {
                        process.held.push(Held { attempt, slots });
                    }
                    self.sync(n, giver, HELD_PATIENCE_MS);
                    giver.stage = Giving::AwaitLast;
                } else {
                    self.sync(n, giver, PATIENCE_MS);
                }
            }
            (Giving::AwaitLast, Some(MoveWord::Synced(number))) if number == giver.syncs => {
                self.check_giver(n, giver)?;
                let Some(process) = &mut self.nodes[n].process else { return Ok(true) };
                if !process.giving.put_to_council(giver.attempt) {
                    return Err("the target has begun anew");
                }
                let (id, from_epoch, to_epoch) = (giver.under_way.id, giver.epoch, giver.to_epoch);
                let moved = Change::Moved { id, from_epoch, to_epoch };
                giver.stage = Giving::Deciding(process.council.propose(now, moved, None));
                self.drive(n);
            }
            (Giving::Deciding(token), _) => {
                let token = *token;
                return self.resolve(n, giver, token);
            }
            (Giving::AwaitOwned, word) => {
                return Ok(is_late || matches!(word, Some(MoveWord::Owns | MoveWord::HangUp)));
            }
            _ if is_late => return Err("the target does not answer"),
            _ => {}
        }
        Ok(false)
    }

    fn sync(&mut self, n: usize, giver: &mut Giver, patience_ms: u64) {
        giver.syncs += 1;
        giver.until_ms = self.clock(n) + patience_ms;
        self.say(n, &mut giver.line, MoveWord::Sync(giver.syncs));
    }

    /// What the journal has of the slots since the last time.
    fn read(&mut self, n: usize, giver: &mut Giver) -> Vec<Op> {
        let journal = &self.nodes[n].data.journal;
        let piece = &journal[giver.at.min(journal.len())..];
        giver.at = journal.len();
        let concerns = |op: &Op| match op {
            Op::Mark => false,
            Op::Set { key, .. } | Op::Clear { key } => {
                giver.under_way.slots.iter().any(|r| r.contains(self.slots[*key]))
            }
        };
        piece.iter().map(|(_, number)| self.ops[*number as usize]).filter(concerns).collect()
    }

    /// As long as a `Moved` may still be committed, nobody may write to the slots here.
    fn resolve(&mut self, n: usize, giver: &mut Giver, token: u64) -> Result<bool, &'static str> {
        let now = self.clock(n);
        let Some(topology) = self.topology_of(n) else { return Ok(true) };
        let epoch = topology.epoch;
        if topology.move_of(giver.under_way.id).is_none() {
            let first = giver.under_way.slots.first().map_or(0, |r| r.first);
            if topology.shard_of_slot(first) == Some(giver.under_way.from) {
                return Err("it was cancelled");
            }
            let keys = self.keys_in(n, &giver.under_way).len() as u64;
            self.tally.count(What::KeysMoved, keys);
            self.say(n, &mut giver.line, MoveWord::Owned(epoch));
            giver.until_ms = now + TARGET_PATIENCE_MS;
            giver.stage = Giving::AwaitOwned;
            return Ok(false);
        }
        if self.nodes[n].data.acting != Some(giver.epoch) {
            return Err("this member is primary no longer");
        }
        if let Some(Err(why)) = self.answers.remove(&(n, token)) {
            self.tally.count(What::MoveRefused, 1);
            self.note(|w| format!("{}: the council did not move the slots: {why}", w.name(n)));
            let id = giver.under_way.id;
            let Some(process) = &mut self.nodes[n].process else { return Ok(true) };
            let token = process.council.propose(now, Change::CancelMove { id }, None);
            giver.stage = Giving::Deciding(token);
            self.tally.count(What::MoveCancelled, 1);
            self.drive(n);
        }
        Ok(false)
    }

    fn go_on_taking(&mut self, n: usize, mut taker: Taker, word: Option<MoveWord>) {
        if !self.goes_on(n, &taker.under_way, taker.epoch) {
            let is_told = self.tell_owned(n, &mut taker, word);
            if !is_told && taker.stage != Stage::Idle {
                self.say(n, &mut taker.line, MoveWord::HangUp);
            }
            return;
        }
        if let Err(why) = self.take(n, &mut taker, word) {
            let id = taker.under_way.id;
            self.note(|w| format!("{}: taking in move {id} broke off: {why}", w.name(n)));
            if taker.stage != Stage::Idle {
                self.say(n, &mut taker.line, MoveWord::HangUp);
            }
            taker.stage = Stage::Idle;
            taker.due_ms = self.clock(n) + RETRY_MS;
        }
        if let Some(process) = &mut self.nodes[n].process {
            process.takers.push(taker);
        }
    }

    /// The move is over at the target: the source waits for that word.
    fn tell_owned(&mut self, n: usize, taker: &mut Taker, word: Option<MoveWord>) -> bool {
        let wanted = match word {
            Some(MoveWord::Owned(epoch)) => Some(epoch),
            _ => taker.owned,
        };
        let known = self.topology_of(n).map_or(0, |t| t.epoch);
        let is_known = wanted.is_some_and(|epoch| known >= epoch);
        if is_known {
            self.say(n, &mut taker.line, MoveWord::Owns);
        }
        is_known
    }

    /// The target's next step.
    fn take(&mut self, n: usize, taker: &mut Taker, word: Option<MoveWord>) -> Goes {
        let now = self.clock(n);
        match (taker.stage, word) {
            (Stage::Idle, None) if now >= taker.due_ms => {
                let source = self.topology_of(n).and_then(|t| {
                    let primary = t.shards.get(&taker.under_way.from)?.primary.as_ref()?;
                    t.members.get(primary)
                });
                let peer = source.and_then(|m| self.member_at(&m.name));
                let peer = peer.ok_or("the source has no primary")?;
                self.connections += 1;
                taker.line = Line { peer, connection: self.connections, ..Line::default() };
                taker.stage = Stage::Asking;
                taker.due_ms = now + PATIENCE_MS;
                (taker.sync, taker.owned) = (None, None);
                let word = MoveWord::Want { id: taker.under_way.id, to_epoch: taker.epoch };
                self.say(n, &mut taker.line, word);
            }
            (Stage::Idle, _) => {}
            (_, Some(MoveWord::HangUp)) => return Err("the source hung up"),
            (Stage::Asking, Some(MoveWord::No)) => return Err("the source may not give it"),
            (Stage::Asking, Some(MoveWord::Begin)) => {
                // What an earlier attempt left is no part of the copy.
                let keys: Vec<Key> =
                    self.keys_in(n, &taker.under_way).into_iter().map(|(key, _)| key).collect();
                self.clear(n, taker.epoch, &keys)?;
                taker.taken.clear();
                taker.stage = Stage::Filling;
                taker.due_ms = now + PATIENCE_MS;
                self.say(n, &mut taker.line, MoveWord::Ready);
            }
            (Stage::Filling, Some(word)) => {
                taker.due_ms = now + PATIENCE_MS;
                match word {
                    MoveWord::Change(ops) => {
                        for op in ops {
                            self.check_execution(n, taker.epoch)?;
                            let number = self.note_op(op);
                            self.append(n, taker.epoch, number);
                            taker.taken.push(number);
                        }
                    }
                    MoveWord::Sync(number) => {
                        let end = self.nodes[n].data.journal.len() as u64;
                        taker.sync = Some((number, end));
                        taker.due_ms = now + WAIT_MS;
                    }
                    MoveWord::Owned(epoch) => {
                        taker.owned = Some(epoch);
                        taker.due_ms = now + TOPOLOGY_MS;
                    }
                    _ => return Err("the source says something that is not known here"),
                }
            }
            _ => {}
        }
        if let Some((number, end)) = taker.sync
            && self.is_acked(n, end)
        {
            // Where writes are acknowledged by majority, what was taken in counts from then on, too.
            let (shard, at) = (taker.under_way.to, self.ms());
            for number in taker.taken.drain(..) {
                self.acked_under.insert(number, taker.epoch);
                self.nodes[n].data.acked.push(number);
                self.checker.acknowledged(shard, number, at);
            }
            taker.sync = None;
            self.say(n, &mut taker.line, MoveWord::Synced(number));
        }
        if taker.stage != Stage::Idle && now >= taker.due_ms {
            return Err("the source is silent, or too few replicas follow");
        }
        Ok(())
    }
}
