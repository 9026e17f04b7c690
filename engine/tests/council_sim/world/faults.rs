//! What goes wrong in the world, and how it ends.

use engine::council::Council;
use engine::council::record::Saved;
use engine::topology::{Change, SLOTS, ShardId, SlotRange};

use super::{Data, Disk, Node, What, Wires, World};

impl World {
    pub(super) fn fault(&mut self) {
        let n = self.rng.below(self.nodes.len() as u64) as usize;
        let now = self.now_us;
        match self.rng.below(23) {
            0..=2 => {
                let down = 50_000 + self.rng.below(4_000_000);
                self.crash(n, down);
            }
            3 => {
                let until = now + 100_000 + self.rng.below(3_000_000);
                self.nodes[n].paused_until = until;
                self.tally.count(What::Pause, 1);
                self.note(|w| format!("{} is stopped for {} ms", w.name(n), (until - now) / 1000));
            }
            4 => {
                let until = now + 500_000 + self.rng.below(4_000_000);
                self.nodes[n].slow_disk_until = until;
                self.note(|w| format!("{} has a slow disk", w.name(n)));
            }
            5 => {
                let until = now + 200_000 + self.rng.below(4_000_000);
                self.nodes[n].disk_error_until = until;
                self.tally.count(What::FailingDisk, 1);
                self.note(|w| format!("{} cannot write its disk", w.name(n)));
            }
            6 => {
                let all = self.rng.chance(1, 2);
                self.tally.count(What::PowerFailure, 1);
                self.note(|_| "the power fails".to_owned());
                for n in 0..self.nodes.len() {
                    if all || self.rng.chance(1, 2) {
                        let down = 50_000 + self.rng.below(6_000_000);
                        self.crash(n, down);
                    }
                }
            }
            7 => {
                let mut me = None;
                for (n, node) in self.nodes.iter().enumerate() {
                    if node.council.as_ref().is_some_and(Council::leads) {
                        me = Some(n);
                    }
                }
                if let Some(n) = me {
                    self.tally.count(What::CrashOfLeader, 1);
                    let down = 50_000 + self.rng.below(3_000_000);
                    self.crash(n, down);
                }
            }
            8 | 15 => self.hand_over(),
            16 => self.grab_slots(),
            17..=20 => self.move_slots(),
            21 => self.let_go(1),
            22 => {
                let number = 1 + self.rng.below(self.nodes.len() as u64) as usize;
                self.let_go(number);
            }
            12 => self.lose_disk(n),
            9 => {
                let until = now + 1_000_000 + self.rng.below(8_000_000);
                self.nodes[n].data_cut_until = until;
                self.tally.count(What::ReplicationCut, 1);
                self.note(|w| {
                    format!("{} replicates nothing for {} ms", w.name(n), (until - now) / 1000)
                });
            }
            10 | 11 => {
                // The leader keeps one member, and both lose the rest.
                let leads = |n: &Node| n.council.as_ref().is_some_and(Council::leads);
                let with: Vec<bool> = self.nodes.iter().map(leads).collect();
                let side = with.iter().enumerate().map(|(m, leads)| *leads || m == n).collect();
                self.cut(side);
            }
            _ => {
                let side = (0..self.nodes.len()).map(|_| self.rng.chance(1, 3)).collect();
                self.cut(side);
            }
        }
    }

    /// The member comes back under another ID, with nothing, and the operator lets it take its old place.
    /// Once per world, and not where a majority cannot do without its vote.
    fn lose_disk(&mut self, n: usize) {
        // Two others must know, and have on disk, that there are three voters: a council that is just
        // growing from two to three still needs both.
        let knows = |node: &Node| {
            let (id, saved) = (&node.member.id, Saved::from_records(node.disk.records()));
            let council =
                Council::new(id.clone(), String::new(), self.settings.clone(), 0, saved, 0);
            let votes = |c: &Council| c.voters().is_some_and(|v| v.len() >= 3 && v.contains(id));
            council.as_ref().is_ok_and(votes)
        };
        let others = self.nodes.iter().enumerate().filter(|(m, node)| *m != n && knows(node));
        if self.has_lost_disk || others.count() < 2 || self.nodes[n].council.is_none() {
            return;
        }
        // Votes are on their way: of two voters, which are three on their way to one, neither can be spared.
        let window_us = 6_000 * self.settings.failure_timeout_ms;
        // Without a leader they may be so for any time (seed 1092: a change of voters from before was committed, after nine
        // seconds without a majority, by the first leader that there was again).
        let leads = |node: &Node| node.council.as_ref().is_some_and(Council::leads);
        let is_led = self.nodes.iter().any(leads);
        if self.let_go_us.is_some_and(|at_us| !is_led || self.now_us < at_us + window_us) {
            return;
        }
        if self.weather.quorum && !self.has_two_copies(self.nodes[n].member.shard) {
            return;
        }
        self.has_lost_disk = true;
        self.tally.count(What::LostDisk, 1);
        let down = 50_000 + self.rng.below(3_000_000);
        self.crash(n, down);
        let id = self.rng.hex40();
        let node = &mut self.nodes[n];
        node.disk = Disk::default();
        node.data = Data::new(self.weather.quorum, node.data.set.min());
        self.ids.remove(&node.member.id);
        node.member.id.clone_from(&id);
        self.ids.insert(id, n);
        self.note(|w| format!("{} has lost its disk", w.name(n)));
    }

    /// The council knows everybody: who has lost their disk has been taken in again.
    fn is_complete(&self) -> bool {
        let mut ids = self.nodes.iter().map(|n| &n.member.id);
        self.newest().is_some_and(|t| ids.all(|id| t.members.contains_key(id)))
    }

    /// What the shard has acknowledged is with two members at least: with a majority of electors of which there is more than
    /// one, or with all of its in-sync set.
    fn has_two_copies(&self, shard: Option<ShardId>) -> bool {
        let state = self.newest().zip(shard).map(|(t, s)| &t.shards[&s]);
        let mut members = self.nodes.iter().map(|n| &n.member).filter(|m| m.shard == shard);
        shard.is_none()
            || state.is_some_and(|s| match self.weather.min_in_sync {
                0 => s.electors.len() > 1,
                _ => members.all(|m| s.in_sync.contains_key(&m.id)),
            })
    }

    /// Splits the world in two, in both directions or in one.
    fn cut(&mut self, side: Vec<bool>) {
        let until = self.now_us + 200_000 + self.rng.below(5_000_000);
        let one_way = self.rng.chance(1, 3);
        self.tally.count(if one_way { What::CutOneWay } else { What::Cut }, 1);
        for a in 0..self.nodes.len() {
            for b in 0..self.nodes.len() {
                let is_cut = side[a] != side[b] && (!one_way || side[a]);
                if is_cut {
                    self.weather.wires.cut(a, b, until);
                }
            }
        }
        self.note(|w| {
            let names = (0..side.len()).filter(|n| side[*n]).map(|n| w.name(n).to_owned());
            let way = if one_way { "from" } else { "off" };
            let names = names.collect::<Vec<_>>().join(" ");
            format!("cut {way} for {} ms: {names}", (until - w.now_us) / 1000)
        });
    }

    /// Somebody wishes for another primary of a shard, by way of any member.
    fn hand_over(&mut self) {
        let (via, chance) = (self.rng.below(self.nodes.len() as u64) as usize, self.rng.draw());
        let Some(topology) = self.nodes[via].council.as_ref().and_then(Council::topology) else {
            return;
        };
        let replicas = topology.members.values().filter_map(|m| {
            let (id, shard) = topology.shards.get_key_value(&m.shard?)?;
            (shard.primary.as_ref() != Some(&m.id)).then(|| (*id, shard.epoch, m.id.clone()))
        });
        let replicas: Vec<_> = replicas.collect();
        let Some(at) = chance.checked_rem(replicas.len() as u64) else { return };
        let (shard, expected, to) = replicas[at as usize].clone();
        self.tally.count(What::HandoverWished, 1);
        self.note(|w| format!("handover of shard {shard} to {} is wished for", w.name_of(&to)));
        self.wish(via, Change::handover(shard, to, expected));
    }

    /// Somebody wishes for slots of another shard, which must be refused.
    fn grab_slots(&mut self) {
        let via = self.rng.below(self.nodes.len() as u64) as usize;
        let shard = self.rng.below(u64::from(self.shards)) as u16;
        let first = self.rng.below(u64::from(SLOTS)) as u16;
        let last = first + self.rng.below(u64::from(SLOTS - first)) as u16;
        self.tally.count(What::SlotsWished, 1);
        self.wish(via, Change::Assign { shard, slots: vec![SlotRange { first, last }] });
    }

    /// Somebody wishes for a move; a primary that gives slots away says so, with the epochs that it knows; or
    /// somebody changes their mind.
    fn move_slots(&mut self) {
        let via = self.rng.below(self.nodes.len() as u64) as usize;
        let (dice, chance) = (self.rng.draw(), self.rng.draw());
        let Some(topology) = self.nodes[via].council.as_ref().and_then(Council::topology).cloned()
        else {
            return;
        };
        if let Some(under_way) = topology.moves.first() {
            let id = under_way.id;
            if dice % 4 == 0 {
                return self.wish(via, Change::CancelMove { id });
            }
            let epoch = |shard| topology.shards.get(&shard).map_or(0, |s| s.epoch);
            let (from_epoch, to_epoch) = (epoch(under_way.from), epoch(under_way.to));
            return self.wish(via, Change::Moved { id, from_epoch, to_epoch });
        }
        let owners: Vec<_> = topology.shards.iter().filter(|(_, s)| !s.slots.is_empty()).collect();
        let Some(at) = chance.checked_rem(owners.len() as u64) else { return };
        let (from, shard) = owners[at as usize];
        let to = (dice % u64::from(self.shards)) as u16;
        let range = shard.slots[(dice / 7) as usize % shard.slots.len()];
        let slots = vec![SlotRange { first: range.first, last: range.first + range.len() / 2 }];
        self.tally.count(What::MoveWished, 1);
        self.wish(via, Change::Move { slots, from: *from, to });
    }

    /// Somebody wishes that members leave, one right after the other; the operator will have them join again.
    fn let_go(&mut self, number: usize) {
        if self.has_lost_disk && !self.is_complete() {
            return;
        }
        self.let_go_us = Some(self.now_us);
        for _ in 0..number {
            let via = self.rng.below(self.nodes.len() as u64) as usize;
            let n = self.rng.below(self.nodes.len() as u64) as usize;
            let member = self.nodes[n].member.id.clone();
            self.tally.count(What::LeaveWished, 1);
            self.note(|w| format!("{} is wished away", w.name(n)));
            self.wish(via, Change::Leave { member });
        }
    }

    pub(super) fn wish(&mut self, via: usize, change: Change) {
        let now = self.clock(via);
        if let Some(council) = &mut self.nodes[via].council {
            council.propose(now, change, None);
        }
        self.drive(via);
    }

    pub(super) fn heal(&mut self) {
        self.healthy = true;
        self.weather.wires = Wires::good();
        for n in 0..self.nodes.len() {
            self.nodes[n].paused_until = 0;
            self.nodes[n].slow_disk_until = 0;
            self.nodes[n].disk_error_until = 0;
            self.nodes[n].data_cut_until = 0;
            self.start(n);
        }
        self.note(|_| "the faults stop".to_owned());
    }
}
