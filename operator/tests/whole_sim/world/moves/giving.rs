//! The source's side: gives a copy of the slots, then what changes, then the slots.

use engine::moves::giving::Attempt;
use engine::topology::{Change, Epoch, Move};

use super::{Goes, Held, Line, MoveWord, PATIENCE_MS};
use crate::tally::What;
use crate::world::{Key, Op, Value, World};

/// How long an answer is waited for while clients wait.
const HELD_PATIENCE_MS: u64 = 500;
/// How long clients wait for the target to know that it owns the slots.
const TARGET_PATIENCE_MS: u64 = 700;
/// Changes that are sent while clients wait, at most so many at first; keys that are copied in one piece.
const NEAR: usize = 2;
const PIECE: usize = 1;

/// The source's side of one attempt.
pub(in crate::world) struct Giver {
    pub(super) line: Line,
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

impl World {
    pub(super) fn begin_to_give(&mut self, n: usize, mut line: Line, id: Epoch, to_epoch: Epoch) {
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

    pub(super) fn go_on_giving(&mut self, n: usize, mut giver: Giver, word: Option<MoveWord>) {
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
}
