//! FAILOVER: a plain primary gives its place to one of its replicas, and follows it.
//!
//! ```text
//! writers wait -> a replica has acknowledged all -> writes end here, under all locks
//!              -> PSYNC replid offset FAILOVER -> it is primary, and goes on from there (+CONTINUE)
//!              -> writers go on: they are told that this is a replica
//! ```
//!
//! Until the replica has answered nothing is lost by giving up: this server is primary again, with a new history that
//! its replicas can go on with. Redis's own servers understand the request, on either side.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::link::{self, Takeover};
use super::peer::Peer;
use super::{lock, promote};
use crate::clock;
use crate::server::Shared;

/// How often it is looked whether a replica has all.
const LOOK: Duration = Duration::from_millis(5);

/// What FAILOVER was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The replica; `None`: whichever has all first.
    pub to: Option<(String, u16)>,
    /// When the time is over the replica takes over with what it has.
    pub force: bool,
    /// Milliseconds; 0: no limit.
    pub timeout_ms: u64,
}

const NONE: u8 = 0;
const WAITING: u8 = 1;
const IN_PROGRESS: u8 = 2;

/// A failover that is under way, if one is.
#[derive(Default)]
pub struct Failover {
    state: AtomicU8,
    aborted: AtomicBool,
    begins: Mutex<()>,
}

impl Failover {
    /// As INFO names it.
    pub fn state(&self) -> &'static str {
        match self.state.load(Ordering::Acquire) {
            WAITING => "waiting-for-sync",
            IN_PROGRESS => "failover-in-progress",
            _ => "no-failover",
        }
    }

    /// Those who write wait for its end.
    #[inline]
    pub fn is_under_way(&self) -> bool {
        self.state.load(Ordering::Acquire) != NONE
    }
}

/// Begins it; what comes of it INFO and the log tell.
///
/// # Errors
/// What FAILOVER is replied.
pub fn begin(shared: &Arc<Shared>, wish: Wish) -> Result<(), &'static str> {
    let failover = &shared.replication.failover;
    let _begins = lock(&failover.begins);
    if failover.is_under_way() {
        return Err("ERR FAILOVER already in progress.");
    }
    if shared.state.is_replica.load(Ordering::Acquire) {
        return Err("ERR FAILOVER is not valid when server is a replica.");
    }
    let peers = shared.replication.peers();
    if peers.is_empty() {
        return Err("ERR FAILOVER requires connected replicas.");
    }
    if let Some((host, port)) = &wish.to {
        let named = peers.iter().find(|peer| peer.is_at(host, *port));
        let peer = named.ok_or("ERR FAILOVER target HOST and PORT is not a replica.")?;
        if !peer.is_online() {
            return Err("ERR FAILOVER target replica is not online.");
        }
    }
    failover.aborted.store(false, Ordering::Release);
    failover.state.store(WAITING, Ordering::Release);
    let with = shared.clone();
    let spawned = std::thread::Builder::new().name("failover".into()).spawn(move || {
        let outcome = run(&with, &wish);
        with.replication.failover.state.store(NONE, Ordering::Release);
        with.wake_loops();
        match outcome {
            Ok((host, port)) => tracing::info!(host, port, "a replica has taken over"),
            Err(why) => tracing::warn!(why, "no replica has taken over"),
        }
    });
    if spawned.is_err() {
        failover.state.store(NONE, Ordering::Release);
        return Err("ERR cannot start a thread");
    }
    Ok(())
}

/// Ends the one that is under way.
///
/// # Errors
/// What FAILOVER ABORT is replied.
pub fn abort(shared: &Shared) -> Result<(), &'static str> {
    let failover = &shared.replication.failover;
    if !failover.is_under_way() {
        return Err("ERR No failover in progress.");
    }
    failover.aborted.store(true, Ordering::Release);
    Ok(())
}

fn run(shared: &Arc<Shared>, wish: &Wish) -> Result<(String, u16), &'static str> {
    let failover = &shared.replication.failover;
    let begin = clock::monotonic_ms();
    let is_over = || wish.timeout_ms > 0 && clock::monotonic_ms() >= begin + wish.timeout_ms;
    let ends = || {
        failover.aborted.load(Ordering::Acquire) || shared.state.shutdown.load(Ordering::Acquire)
    };
    let link = loop {
        if ends() {
            return Err("it was called off");
        }
        let forced = is_over();
        if forced && !wish.force {
            return Err("no replica had all in time");
        }
        let has_all = |peer: &Peer| forced || peer.ack() >= shared.journal.end();
        let peers = shared.replication.peers();
        let able = |peer: &&Arc<Peer>| {
            peer.is_online() && wish.to.as_ref().is_none_or(|(host, port)| peer.is_at(host, *port))
        };
        if let Some(peer) = peers.iter().filter(able).find(|peer| has_all(peer)) {
            // Asked again under all locks: between the two somebody may have written.
            if let Some(link) = link::give_way(shared, peer, || has_all(peer)) {
                break link;
            }
        }
        std::thread::sleep(LOOK);
    };
    failover.state.store(IN_PROGRESS, Ordering::Release);
    loop {
        match link.takeover() {
            Takeover::Done => {
                let place = (link.host.clone(), link.port);
                let primary = format!("{} {}", place.0, place.1);
                if let Err(error) = shared.config.set("replicaof", &primary) {
                    tracing::error!(error, "CONFIG does not tell the new role");
                }
                return Ok(place);
            }
            Takeover::Asked if !ends() => std::thread::sleep(LOOK),
            Takeover::Asked | Takeover::Refused | Takeover::None => {
                // Nobody else is primary by our word: we are it again.
                return match promote(shared) {
                    Ok(()) => {
                        Err("the replica did not take over: this server is primary as before")
                    }
                    Err(_) => {
                        Err("the replica did not take over, and this server cannot be primary")
                    }
                };
            }
        }
    }
}
