//! The target's side: takes in what the source sends, as writes of its own.

use engine::topology::{Epoch, Move};

use super::{Goes, Line, MoveWord, PATIENCE_MS};
use crate::world::{Key, World};

/// How long the target waits for a topology that the source has already, and for its own replicas.
const TOPOLOGY_MS: u64 = 600;
const WAIT_MS: u64 = 5_000;
/// Pause before a move that broke off is begun anew.
const RETRY_MS: u64 = 200;

/// The target's side.
pub(in crate::world) struct Taker {
    pub(super) line: Line,
    pub(super) under_way: Move,
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
    /// Some still take the slots for the shard's, from before they had gone.
    AwaitingReplicas,
    Filling,
}

impl Taker {
    pub(super) fn new(under_way: &Move, epoch: Epoch, now_ms: u64) -> Self {
        Self {
            line: Line::default(),
            under_way: under_way.clone(),
            epoch,
            stage: Stage::Idle,
            due_ms: now_ms,
            sync: None,
            owned: None,
            taken: vec![],
        }
    }
}

impl World {
    pub(super) fn go_on_taking(&mut self, n: usize, mut taker: Taker, word: Option<MoveWord>) {
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
                taker.stage = Stage::AwaitingReplicas;
                taker.due_ms = now + PATIENCE_MS;
            }
            (Stage::AwaitingReplicas, None) if self.is_nobody_unaware(n) => {
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
