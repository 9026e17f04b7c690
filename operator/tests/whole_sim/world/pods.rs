//! Bodies and disks: what the operator makes and takes away, and what is gone with what.

use ::operator::desired::Seat;
use ::operator::observed::{Mark, Sight};
use engine::topology::MemberId;

use super::{Action, Data, Disk, Durability, Node, What, World};
use crate::clock::Clock;

/// A seat that has a body, a disk or both.
pub(super) struct Place {
    /// Whose memory is in it.
    pub(super) node: usize,
    pub(super) body: Option<Body>,
    /// Counts how often the member was about to be let into the cluster.
    pub(super) claims: u64,
    /// The disk is on a machine that is gone for good: nothing starts from it.
    pub(super) lost: bool,
}

pub(super) struct Body {
    pub(super) uid: String,
    pub(super) template: String,
    /// A process has run in it.
    pub(super) started: bool,
    /// It is going; with its disk or without.
    pub(super) stopping: Option<bool>,
    /// The machine that it is on.
    pub(super) machine: Option<u64>,
    /// That machine is gone.
    pub(super) lost: bool,
}

impl World {
    pub(super) fn create(&mut self, seat: Seat) {
        if self.places.get(&seat).is_some_and(|p| p.body.is_some()) {
            return;
        }
        let machine = self.machines.map(|machines| self.rng.below(machines));
        let (node, lost, claims) = match self.places.get(&seat) {
            Some(place) => (place.node, place.lost, place.claims),
            None => (self.add_node(seat), false, 0),
        };
        // A new body starts with the directives of now.
        self.nodes[node].config_hash = self.desired.live_hash();
        let uid = self.fresh("uid");
        let template = self.desired.at_start_hash();
        let (started, stopping) = (false, None);
        let body = Some(Body { uid, template, started, stopping, machine, lost: false });
        self.places.insert(seat, Place { node, body, claims, lost });
        self.tally.count(What::BodyMade, 1);
        let start = 100_000 + self.rng.below(1_000_000);
        self.after(start, Action::Start(node));
    }

    fn add_node(&mut self, seat: Seat) -> usize {
        let id: MemberId = self.rng.hex40();
        let n = self.nodes.len();
        let name = seat.name(&self.desired.name);
        let drift_ppm = self.rng.below(18_001) as i64 - 9_000;
        let min_in_sync = match self.weather.durability {
            Durability::Set(min) => min,
            Durability::Async | Durability::Majority => 0,
        };
        self.ids.insert(id.clone(), n);
        self.nodes.push(Node {
            id,
            name,
            seat,
            process: None,
            disk: Disk::default(),
            data: Data::new(self.quorum(), min_in_sync),
            boot: 0,
            clock: Clock { offset_ms: self.rng.below(1_000_000_000), drift_ppm },
            paused_until: 0,
            slow_disk_until: 0,
            disk_error_until: 0,
            data_cut_until: 0,
            deaf_until: 0,
            known_epoch: 0,
            config_hash: String::new(),
        });
        n
    }

    /// A process may run in the seat's body.
    pub(super) fn has_body(&self, n: usize) -> bool {
        let place = self.places.get(&self.nodes[n].seat).filter(|p| p.node == n && !p.lost);
        place.and_then(|p| p.body.as_ref()).is_some_and(|b| b.stopping.is_none())
    }

    fn body_of(&mut self, n: usize) -> Option<&mut Body> {
        let seat = self.nodes[n].seat;
        self.places.get_mut(&seat).filter(|p| p.node == n)?.body.as_mut()
    }

    pub(super) fn body_has_started(&mut self, n: usize) {
        if let Some(body) = self.body_of(n) {
            body.started = true;
        }
    }

    /// Before the member is let into the cluster: whoever saw its body before does not delete it any more.
    pub(super) fn lay_claim(&mut self, seat: Seat) -> Result<(), String> {
        let place = self.places.get_mut(&seat).ok_or("there is none")?;
        match &place.body {
            None => Err("it has no body".into()),
            Some(body) if body.stopping.is_some() => Err("its body is going".into()),
            Some(_) => {
                place.claims += 1;
                Ok(())
            }
        }
    }

    /// What is in the seat now.
    pub(super) fn sight(&self, seat: Seat) -> Sight {
        let Some(place) = self.places.get(&seat) else { return Sight::default() };
        let version = place.claims.to_string();
        let mark = |uid: &String| Mark { uid: uid.clone(), version: version.clone() };
        let disk = self.weather.volumes.then(|| mark(&self.nodes[place.node].id));
        Sight { body: place.body.as_ref().map(|b| mark(&b.uid)), disk }
    }

    /// Takes the body away in good order, and the disk with it if that is said.
    pub(super) fn remove(&mut self, seat: Seat, disk: bool) {
        let Some(place) = self.places.get_mut(&seat) else { return };
        let node = place.node;
        match &mut place.body {
            Some(body) => {
                body.stopping = Some(disk || body.stopping.unwrap_or(false));
                if self.nodes[node].process.is_some() {
                    self.ask_to_end(node);
                } else {
                    self.body_is_gone(seat);
                }
            }
            None if disk => {
                self.places.remove(&seat);
            }
            None => {}
        }
    }

    pub(super) fn process_has_ended(&mut self, n: usize) {
        if self.body_of(n).is_some_and(|b| b.stopping.is_some()) {
            self.body_is_gone(self.nodes[n].seat);
        }
    }

    fn body_is_gone(&mut self, seat: Seat) {
        let Some(place) = self.places.get_mut(&seat) else { return };
        let body = place.body.take();
        if !self.weather.volumes || body.is_some_and(|b| b.stopping == Some(true)) {
            self.places.remove(&seat);
        }
    }

    /// The body's entry is gone at once, and all that was kept in it; its process lives on until it is told.
    pub(super) fn delete_by_force(&mut self, n: usize) {
        let seat = self.nodes[n].seat;
        self.places.remove(&seat);
        self.ask_to_end(n);
    }

    /// The machine is gone with what ran on it and with the disk; what the API knows of them is there.
    pub(super) fn lose_machine(&mut self, n: usize) {
        if let Some(place) = self.places.get_mut(&self.nodes[n].seat) {
            place.lost = true;
            if let Some(body) = &mut place.body {
                body.lost = true;
            }
        }
        self.crash(n, 0);
    }

    /// Body and disk are gone in one moment.
    pub(super) fn wipe(&mut self, n: usize) {
        let seat = self.nodes[n].seat;
        self.places.remove(&seat);
        self.crash(n, 0);
    }
}
