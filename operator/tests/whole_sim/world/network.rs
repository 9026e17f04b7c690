//! What goes over the wires, and what becomes of it on the way.

use engine::council::message::Message;
use engine::replication::fresh::Note;
use engine::topology::{Epoch, MemberId};

use super::clients::Answer;
use super::moves::MoveWord;
use super::serve::Request;
use super::{Action, What, World};
use crate::data::Sync;

/// Ends of wires that are no members.
pub(super) const OPERATOR: usize = 1_000_000;
pub(super) const CLIENT: usize = 2_000_000;

pub(super) enum Packet {
    Council(Box<Message>),
    /// With the replica's clock, and the epoch of the topology that it knows.
    Pull {
        pull: Sync,
        clock_ms: u64,
        known: Epoch,
    },
    /// On which link, and what the primary vouches for.
    Push {
        push: Sync,
        link: u64,
        note: Option<Note>,
    },
    Request(Request),
    Answer {
        attempt: u64,
        answer: Answer,
    },
    /// A word on the connection of a slot move; they arrive in order or not at all.
    Move {
        connection: u64,
        number: u64,
        word: MoveWord,
    },
}

pub(super) struct Letter {
    from: usize,
    sender: MemberId,
    to: usize,
    packet: Packet,
}

impl Letter {
    /// The member that it is for.
    pub(super) fn member(&self) -> Option<usize> {
        (self.to < OPERATOR).then_some(self.to)
    }
}

impl World {
    /// Messages of the council and of replication: they may be lost, doubled, late.
    pub(super) fn transmit(&mut self, from: usize, to: usize, packet: Packet) {
        if !self.knows(from, to) {
            return;
        }
        if self.nodes[to].process.is_none() {
            if self.weather.refusals && !self.wires.is_cut(from, to, self.now_us) {
                let now = self.clock(from);
                let member = self.nodes[to].id.clone();
                self.tally.count(What::ConnectionRefused, 1);
                if let Some(process) = &mut self.nodes[from].process {
                    process.council.refused(now, &member);
                }
            }
            return;
        }
        if self.wires.doubles(&mut self.rng)
            && let Packet::Council(message) = &packet
        {
            let again = Packet::Council(message.clone());
            self.tally.count(What::MessageDoubled, 1);
            self.post(from, to, again);
        }
        self.send(from, to, packet);
    }

    /// May be lost or late, never doubled.
    pub(super) fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if self.wires.loses(&mut self.rng) {
            self.tally.count(What::MessageLost, 1);
            return;
        }
        self.post(from, to, packet);
    }

    fn post(&mut self, from: usize, to: usize, packet: Packet) {
        let delay = self.wires.delay_us(&mut self.rng);
        self.post_at(self.now_us + delay, from, to, packet);
    }

    pub(super) fn post_at(&mut self, at: u64, from: usize, to: usize, packet: Packet) {
        let sender = self.nodes.get(from).map(|n| n.id.clone()).unwrap_or_default();
        self.at(at, Action::Deliver(Box::new(Letter { from, sender, to, packet })));
    }

    pub(super) fn deliver(&mut self, letter: Letter) {
        let Letter { from, sender, to, packet } = letter;
        if self.wires.is_cut(from, to, self.now_us) {
            self.tally.count(What::MessageCutOff, 1);
            return;
        }
        if to >= CLIENT {
            if let Packet::Answer { attempt, answer } = packet {
                self.answered(to - CLIENT, attempt, answer);
            }
            return;
        }
        if self.nodes[to].process.is_none() {
            return;
        }
        let now = self.clock(to);
        match packet {
            Packet::Council(_) if self.nodes[to].deaf_until > self.now_us => {}
            Packet::Council(message) => {
                let process = self.nodes[to].process.as_mut();
                if let Some(process) = process.filter(|p| p.switch.is_none()) {
                    process.council.receive(now, &sender, *message);
                }
                self.drive(to);
            }
            Packet::Pull { pull: Sync::Pull { epoch, boot, have, last }, clock_ms, known } => {
                let data = &mut self.nodes[to].data;
                let push = data.push((&sender, now), epoch, boot.clone(), have, last);
                self.acknowledge(to);
                if let Some(push) = push {
                    let (link, note) = self.vouch(to, &sender, boot, (clock_ms, known));
                    self.transmit(to, from, Packet::Push { push, link, note });
                }
            }
            Packet::Push { push: Sync::Push { boot, .. }, .. } if boot != self.boot(to) => {}
            Packet::Push { push: Sync::Push { epoch, base, writes, end, .. }, link, note } => {
                if !self.nodes[to].data.follows(epoch, &sender) || !self.is_link(to, link) {
                    return;
                }
                match self.nodes[to].data.apply(&sender, now, (epoch, base, writes, end)) {
                    Ok(took) => self.note_current(to, took, note),
                    Err(broken) => self.violation(format!("{}: {broken}", self.name(to))),
                }
            }
            Packet::Pull { .. } | Packet::Push { .. } => {}
            Packet::Request(request) => self.take_request(to, request),
            Packet::Answer { .. } => {}
            Packet::Move { connection, number, word } => {
                self.hear_move(to, from, connection, number, word);
            }
        }
    }

    /// Who is not in the topology has no address: nobody can tell them anything.
    fn knows(&self, from: usize, to: usize) -> bool {
        let topology = self.nodes[from].process.as_ref().and_then(|p| p.council.topology());
        topology.is_some_and(|t| t.members.contains_key(&self.nodes[to].id))
    }
}
