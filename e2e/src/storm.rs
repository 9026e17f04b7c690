//! A storm: whatever may befall a local cluster, in an order that a seed says, while clients write down what they see.
//!
//! The order is the seed's, the moments are the machine's: a seed that failed is likely to fail again, no more. It is not
//! waited for that one thing is over before the next comes, so that they meet: a primary is killed while its shard is
//! emptied, everything ends while a replica hangs. At the end everybody is let go, the cluster has to become whole by
//! itself, and the history to be one of a register for each key.

use crate::clock::eventually;
use crate::failure::{Context, Failure, Result};
use crate::local::{Local, Scene, whole};
use crate::probes::Probes;
use engine::council::rng::Rng;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::Duration;

/// `LARDER_STORM_SEED` and `LARDER_STORM_EVENTS` ask for others.
const SEED: u64 = 1;
const EVENTS: u64 = 12;
/// So many operations may end between two events, or so much time may pass.
const OPERATIONS: (u64, u64) = (20, 700);
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// A hanging process goes on before the next event, so often of a hundred times.
const GOES_ON: u64 = 60;

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A signal to one member: a primary or any.
    Signal(&'static str, Whom),
    /// All members are killed at once.
    All,
    /// `larder run` is killed, and everything with it, and started again.
    Larder,
    /// The manifest asks for so many shards.
    Shards(u64),
}

#[derive(Clone, Copy, Debug)]
enum Whom {
    Primary,
    Any,
}

/// What happens, and how often in comparison.
const EVENTS_BY_CHANCE: &[(u64, Event)] = &[
    (4, Event::Signal("-KILL", Whom::Primary)),
    (2, Event::Signal("-KILL", Whom::Any)),
    (3, Event::Signal("-TERM", Whom::Primary)),
    (1, Event::Signal("-TERM", Whom::Any)),
    (4, Event::Signal("-STOP", Whom::Primary)),
    (2, Event::Signal("-STOP", Whom::Any)),
    (1, Event::All),
    (1, Event::Larder),
    (1, Event::Shards(1)),
    (1, Event::Shards(2)),
    (1, Event::Shards(3)),
];

/// Two shards of three, everything on disk before it is acknowledged: whatever is killed, nothing may be lost.
fn spec(shards: u64) -> Value {
    json!({
        "shards": shards, "replicasPerShard": 2, "memory": "64Mi", "durability": "Quorum",
        "persistence": {"aof": {"fsync": "always"}, "volume": {"size": "1Gi"}},
    })
}

struct Storm<'s> {
    scene: &'s Scene,
    rng: Rng,
    local: Local,
    probes: Probes,
    shards: u64,
    /// Processes that hang.
    stopped: Vec<String>,
    /// What has happened, for whoever has to understand it.
    story: String,
}

pub(crate) async fn local_storm_is_linearizable(scene: Scene) -> Result {
    let number = |name: &str, default| match std::env::var(name) {
        Ok(text) => text.parse::<u64>().context(name.to_owned()),
        Err(_) => Ok(default),
    };
    let seed = number("LARDER_STORM_SEED", SEED)?;
    let events = number("LARDER_STORM_EVENTS", EVENTS)?;
    let local = scene.run(&spec(2)).await?;
    let probes = Probes::start(&local.book, local.password.as_deref()).await?;
    let (rng, stopped, story) = (Rng::new(seed), Vec::new(), format!("seed {seed}:"));
    let mut storm = Storm { scene: &scene, rng, local, probes, shards: 2, stopped, story };
    let raged = storm.rage(events).await;
    storm.let_go();
    let story = storm.story.clone();
    let calm = match raged {
        Ok(()) => storm.calm().await,
        Err(why) => Err(why),
    };
    calm.map_err(|why| Failure::new(format!("{why}; {story}")))
}

impl Storm<'_> {
    async fn rage(&mut self, events: u64) -> Result {
        for _ in 0..events {
            self.pause().await;
            if !self.stopped.is_empty() && self.rng.chance(GOES_ON, 100) {
                self.let_go();
                self.story += " go-on";
            }
            let event = self.draw();
            self.happens(event).await?;
        }
        self.pause().await;
        Ok(())
    }

    fn draw(&mut self) -> Event {
        let total = EVENTS_BY_CHANCE.iter().map(|(chance, _)| chance).sum();
        let mut drawn = self.rng.below(total);
        for (chance, event) in EVENTS_BY_CHANCE {
            match drawn.checked_sub(*chance) {
                Some(left) => drawn = left,
                None => return *event,
            }
        }
        Event::All
    }

    /// Until a number of operations have ended; a shard that nobody serves ends none, which is no error here.
    async fn pause(&mut self) {
        let more = OPERATIONS.0 + self.rng.below(OPERATIONS.1);
        let ended = || self.probes.tags().iter().map(|tag| self.probes.ended(tag)).sum::<usize>();
        let goal = ended() + usize::try_from(more).unwrap_or(0);
        eventually("operations", PAUSE_MAX, || async {
            crate::ensure!(ended() >= goal, "not yet");
            Ok(())
        })
        .await
        .ok();
    }

    async fn happens(&mut self, event: Event) -> Result {
        write!(self.story, " {event:?}")?;
        match event {
            Event::Signal(signal, whom) => self.signal(signal, whom).await,
            Event::All => {
                for address in self.local.book.all() {
                    if let Ok(pid) = self.local.pid_of(address).await {
                        crate::sh!("kill", "-KILL", pid).ok();
                    }
                }
                Ok(())
            }
            Event::Larder => {
                // The members end with it, those that hang by its successor.
                self.local.restart(&self.scene.manifest(), &self.scene.state()).await
            }
            Event::Shards(shards) => {
                self.shards = shards;
                self.scene.wish(&spec(shards)).map(|_| ())
            }
        }
    }

    async fn signal(&mut self, signal: &str, whom: Whom) -> Result {
        let mut client = self.local.client();
        // Nobody may know the owners of all slots at the moment: then it hits nobody.
        if client.refresh().await.is_err() {
            return Ok(());
        }
        let shard = self.rng.below(client.ranges().len() as u64);
        let place = self.rng.below(3);
        let Some(range) = client.ranges().get(usize::try_from(shard)?) else { return Ok(()) };
        let place = match whom {
            Whom::Primary => 0,
            Whom::Any => usize::try_from(place)?.min(range.members.len().saturating_sub(1)),
        };
        let Some(address) = range.members.get(place) else { return Ok(()) };
        write!(self.story, "@{}", address.port())?;
        // It may have gone, or hang already.
        let Ok(pid) = self.local.pid_of(*address).await else { return Ok(()) };
        crate::sh!("kill", signal, &pid).ok();
        if signal == "-STOP" {
            self.stopped.push(pid);
        }
        Ok(())
    }

    fn let_go(&mut self) {
        for pid in self.stopped.drain(..) {
            // It may have been killed meanwhile.
            crate::sh!("kill", "-CONT", &pid).ok();
        }
    }

    /// Everybody is let go: the cluster becomes whole by itself, serves, and the history is what it should be.
    async fn calm(self) -> Result {
        let Self { local, probes, shards, .. } = self;
        let goals: Vec<_> =
            probes.tags().iter().map(|tag| (tag, probes.ended(tag) + 200)).collect();
        eventually("every key is served", Duration::from_secs(60), || async {
            for (tag, goal) in &goals {
                let ended = probes.ended(tag);
                crate::ensure!(ended >= *goal, "{tag}: {ended} of {goal} operations");
            }
            Ok(())
        })
        .await?;
        eventually("slots where they belong", Duration::from_secs(60), || async {
            let mut client = local.client();
            client.ensure_even(usize::try_from(shards)?).await
        })
        .await?;
        whole(&local).await?;
        probes.check(Vec::new()).await?;
        local.stop().await
    }
}
