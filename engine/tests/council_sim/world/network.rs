//! The network: what is lost, late, doubled, cut off or refused on its way.

use engine::council::message::Message;

use super::{Action, Letter, Packet, Sent, Sync, What, World};

/// What counts as late.
const LATE_US: u64 = 50_000;

impl World {
    pub(super) fn transmit(&mut self, from: usize, to: usize, packet: Packet) {
        if !self.knows(from, to) {
            return;
        }
        if self.nodes[to].council.is_none() {
            if self.weather.refusals && !self.is_blocked(from, to) {
                let now = self.clock(from);
                let member = self.nodes[to].member.id.clone();
                self.tally.count(What::ConnectionRefused, 1);
                if let Some(council) = &mut self.nodes[from].council {
                    council.refused(now, &member);
                }
            }
            return;
        }
        let copies =
            1 + u64::from(self.rng.chance(self.loss(self.weather.duplicate_permille), 1000));
        if copies == 2
            && let Packet::Council(message) = &packet
        {
            let again = Packet::Council(message.clone());
            self.tally.count(What::MessageDoubled, 1);
            self.post(from, to, again);
        }
        if self.rng.chance(self.loss(self.weather.loss_permille), 1000) {
            self.tally.count(What::MessageLost, 1);
            return;
        }
        self.post(from, to, packet);
    }

    fn post(&mut self, from: usize, to: usize, packet: Packet) {
        let delay = self.delay();
        let sender = self.nodes[from].member.id.clone();
        let sent = Sent { us: self.now_us, number: self.queued };
        self.after(delay, Action::Deliver(Box::new(Letter { from, sender, to, sent, packet })));
    }

    pub(super) fn deliver(&mut self, letter: Letter) {
        let Letter { from, sender, to, sent, packet } = letter;
        if self.is_blocked(from, to) {
            self.tally.count(What::MessageCutOff, 1);
            return;
        }
        if self.nodes[to].council.is_none() {
            return;
        }
        let newest = self.arrived.entry((from, to)).or_default();
        self.tally.count(What::MessageReordered, u64::from(sent < *newest));
        *newest = sent.max(*newest);
        self.tally.count(What::MessageLate, u64::from(self.now_us - sent.us > LATE_US));
        let now = self.clock(to);
        match packet {
            Packet::Council(message) => {
                let message = self.through_text(*message);
                if let Some(council) = &mut self.nodes[to].council {
                    council.receive(now, &sender, message);
                }
                self.drive(to);
            }
            Packet::Data(Sync::Pull { epoch, boot, have, last }) => {
                let data = &mut self.nodes[to].data;
                let reply = data.push((&sender, now), epoch, boot, have, last);
                self.acknowledge_quorum(to);
                if let Some(reply) = reply {
                    self.transmit(to, from, Packet::Data(reply));
                }
            }
            Packet::Data(Sync::Push { epoch, base, writes, end }) => {
                let outcome = self.nodes[to].data.apply(&sender, now, (epoch, base, writes, end));
                if let Err(broken) = outcome {
                    let now = self.ms();
                    self.checker.violation(now, broken);
                }
            }
        }
    }

    /// Some worlds send what the wire would carry.
    fn through_text(&self, message: Message) -> Message {
        if !self.seed.is_multiple_of(10) {
            return message;
        }
        let text = serde_json::to_string(&message).unwrap();
        let back: Message = serde_json::from_str(&text).unwrap();
        assert_eq!(back, message);
        back
    }

    fn loss(&self, permille: u64) -> u64 {
        if self.healthy { 0 } else { permille }
    }

    fn delay(&mut self) -> u64 {
        let max = if self.healthy { 2_000 } else { self.weather.delay_max_us };
        let slow = self.rng.chance(1, 50);
        100 + self.rng.below(if slow { max * 4 } else { max })
    }

    /// Who is not in the topology has no address: nobody can tell them anything.
    fn knows(&self, from: usize, to: usize) -> bool {
        let topology = self.nodes[from].council.as_ref().and_then(|c| c.topology());
        topology.is_some_and(|t| t.members.contains_key(&self.nodes[to].member.id))
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.blocked.get(&(from, to)).is_some_and(|until| *until > self.now_us)
    }
}
