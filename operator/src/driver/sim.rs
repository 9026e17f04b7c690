//! The driver for a seeded world: pods, disks, members and a council as plain values.
//!
//! A seed gives one run, exactly: which steps are lost, which members go unseen, what is killed. The
//! plan cannot tell this world from a real one, so thousands of interleavings are tried in seconds.
//!
//! What it does not promise: the council is a model, not the engine's (that one has a simulation of its
//! own): a change is committed at once when a majority of the voters is up, a primary that is down is
//! replaced after a few ticks, data are not looked at (slots move in so many ticks), and nobody is cut
//! off from anybody but the operator.

mod moves;
mod rng;
mod world;

use crate::Error;
use crate::desired::Desired;
use crate::driver::{Driver, Recorded};
use crate::observed::Observed;
use crate::plan::Step;
use crate::status::Status;
pub use rng::Rng;
pub use world::{Faults, World};

/// The world as the operator's rounds see it.
pub struct Sim {
    pub world: World,
    pub faults: Faults,
    pub rng: Rng,
    recorded: Option<Box<Status>>,
    /// The operator has crashed in this round: nothing it does has an effect any more.
    crashed: bool,
}

impl Sim {
    pub fn new(seed: u64, volumes: bool) -> Self {
        let rng = Rng::new(seed);
        let world = World::new(volumes);
        Self { world, faults: Faults::default(), rng, recorded: None, crashed: false }
    }

    /// Time goes by, and faults happen.
    pub fn tick(&mut self, desired: &Desired) {
        self.crashed = false;
        self.world.tick();
        self.world.suffer(desired, &self.faults, &mut self.rng);
    }
}

impl Driver for Sim {
    async fn scaffold(&mut self, _: &Desired) -> Result<(), Error> {
        Ok(())
    }

    async fn observe(&mut self, desired: &Desired) -> Result<Observed, Error> {
        let past = self.recorded.clone();
        let unseen = self.faults.unseen_percent;
        let rng = &mut self.rng;
        Ok(self.world.observe(desired, past, |_| rng.percent(unseen)))
    }

    async fn apply(&mut self, desired: &Desired, step: &Step) -> Result<(), Error> {
        if self.crashed || self.rng.percent(self.faults.crash_percent) {
            self.crashed = true;
            return Ok(());
        }
        // A step is lost on its way, or its answer is.
        if self.rng.percent(self.faults.lost_percent) {
            return Err(Error::world("reach a member", "the step was lost"));
        }
        let done = self.world.apply(desired, step);
        if self.rng.percent(self.faults.lost_percent) {
            return Err(Error::world("reach a member", "the answer was lost"));
        }
        done.map_err(|reason| Error::world("put a wish", reason))
    }

    async fn record(&mut self, _: &Desired, status: &Status) -> Result<Recorded, Error> {
        if !self.crashed {
            self.recorded = Some(Box::new(status.clone()));
        }
        Ok(Recorded::Written)
    }
}
