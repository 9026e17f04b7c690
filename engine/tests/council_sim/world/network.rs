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
        if self.weather.wires.doubles(&mut self.rng)
            && let Packet::Council(message) = &packet
        {
            let again = Packet::Council(message.clone());
            self.tally.count(What::MessageDoubled, 1);
            self.post(from, to, again);
        }
        if self.weather.wires.loses(&mut self.rng) {
            self.tally.count(What::MessageLost, 1);
            return;
        }
        self.post(from, to, packet);
    }

    fn post(&mut self, from: usize, to: usize, packet: Packet) {
        let delay = self.weather.wires.delay_us(&mut self.rng);
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
            Packet::Data(Sync::Push { boot, .. }) if boot != self.boot(to) => {}
            Packet::Data(Sync::Push { epoch, base, writes, end, .. }) => {
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

    /// Who is not in the topology has no address: nobody can tell them anything.
    fn knows(&self, from: usize, to: usize) -> bool {
        let topology = self.nodes[from].council.as_ref().and_then(|c| c.topology());
        topology.is_some_and(|t| t.members.contains_key(&self.nodes[to].member.id))
    }

    fn is_blocked(&self, from: usize, to: usize) -> bool {
        self.weather.wires.is_cut(from, to, self.now_us)
    }
}
