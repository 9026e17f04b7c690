//! Looks after who counts while this member is primary under `durability: Quorum`: who is silent, who joins the in-sync set, and
//! who the electors are.

use std::sync::Arc;
use std::time::Duration;

use crate::managed::Engine;
use crate::server::Shared;
use crate::topology::{Change, Epoch};

/// Looks per failure timeout: as often as members are heard.
const LOOKS_PER_TIMEOUT: u64 = 10;

/// Starts the thread that looks who is heard, and proposes who is to be awaited.
///
/// # Errors
/// When it cannot be started.
pub fn start(shared: Arc<Shared>, engine: Arc<Engine>) -> std::io::Result<()> {
    let timeout_ms = shared.config.int("larder-failure-timeout-ms", 1000).max(100) as u64;
    let pause = Duration::from_millis((timeout_ms / LOOKS_PER_TIMEOUT).max(10));
    let run = move || {
        while !shared.state.shutdown.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::sleep(pause);
            if engine.acting().is_none() {
                continue;
            }
            // A replica that falls silent sends nothing that would have it looked at.
            if let Some((change, as_of)) = shared.look_after_awaited()
                && let Err(why) = engine.propose_for(change, as_of)
            {
                // Nothing is lost by it: it is looked at again, and proposed for what is known then.
                tracing::debug!(why, "who is awaited is not changed yet");
            }
        }
    };
    std::thread::Builder::new().name("in-sync".into()).spawn(run)?;
    Ok(())
}

impl Shared {
    /// One look: a change to be proposed, for the topology of that epoch only.
    fn look_after_awaited(&self) -> Option<(Change, Epoch)> {
        let mut awaited = self.quorum.awaited();
        let view = self.cluster.view();
        let peers = self.replication.peers();
        let followers = self.followers(&view, &peers);
        let end = self.journal.end();
        let change = awaited.look(&view, &followers, end);
        self.quorum.set(awaited.state(&view, &followers));
        drop(awaited);
        self.wake_loops();
        change.map(|change| (change, view.topology.epoch))
    }
}
