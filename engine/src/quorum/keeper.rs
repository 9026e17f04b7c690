//! Looks after who counts while this member is primary under `durability: Quorum`: who is silent, and who joins the in-sync set.

use std::sync::Arc;
use std::time::Duration;

use crate::managed::Engine;
use crate::server::Shared;
use crate::topology::{Change, Epoch};

/// Looks per failure timeout: as often as members are heard.
const LOOKS_PER_TIMEOUT: u64 = 10;

/// Starts the thread that looks who is heard, and proposes who joins the set where there is one.
///
/// # Errors
/// When it cannot be started.
pub fn start(shared: Arc<Shared>, engine: Arc<Engine>) -> std::io::Result<()> {
    let timeout_ms = shared.config.int("larder-failure-timeout-ms", 1000).max(100) as u64;
    let pause = Duration::from_millis((timeout_ms / LOOKS_PER_TIMEOUT).max(10));
    let run = move || {
        while !shared.state.shutdown.load(std::sync::atomic::Ordering::Acquire) {
            std::thread::sleep(pause);
            if shared.quorum.min_in_sync() == 0 {
                // A replica that falls silent sends nothing that would have it looked at.
                shared.note_acks();
                continue;
            }
            if engine.acting().is_some()
                && let Some((change, as_of)) = shared.look_after_set()
                && let Err(why) = engine.propose_for(change, as_of)
            {
                // Nothing is lost by it: it is looked at again, and proposed for what is known then.
                tracing::debug!(why, "not taken into the in-sync set yet");
            }
        }
    };
    std::thread::Builder::new().name("in-sync".into()).spawn(run)?;
    Ok(())
}

impl Shared {
    /// One look: a change to be proposed, for the topology of that epoch only.
    fn look_after_set(&self) -> Option<(Change, Epoch)> {
        let mut in_sync = self.quorum.in_sync();
        let view = self.cluster.view();
        let id = view.me()?.shard?;
        let peers = self.replication.peers();
        let followers = self.followers(&view, &peers);
        let end = self.journal.end();
        let change = in_sync.look(&view.topology, id, &view.my_id, &followers, end);
        self.quorum.set(self.acked(&in_sync, &view, &followers));
        drop(in_sync);
        self.wake_loops();
        change.map(|change| (change, view.topology.epoch))
    }
}
