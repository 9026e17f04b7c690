//! Whom this member follows: a primary, the replica that it gives way to, or nobody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::sync::{drop_data, settle};
use super::{Link, Takeover, start};
use crate::replication::peer::Peer;
use crate::replication::{begin_history, lock, random_id};
use crate::server::Shared;

/// Follows a primary from now on: writes of clients are refused, its data set becomes ours.
pub fn follow(shared: &Arc<Shared>, host: &str, port: u16) {
    let replication = &shared.replication;
    let link = Arc::new(Link::new(host, port, Takeover::None));
    {
        let mut current = lock(&replication.link);
        if let Some(old) = &*current {
            if (old.host.as_str(), old.port) == (host, port) && !old.is_stopped() {
                return;
            }
            old.stop();
        }
        *current = Some(link.clone());
    }
    {
        // What was applied last counts; no client's write comes behind it.
        let _applying = replication.applying();
        let _locked = shared.keyspace.lock_all();
        // What keeps links alive, too: who is about to write it may have asked before who we are.
        shared.journal.seal(true);
        if !shared.state.is_replica.swap(true, Ordering::AcqRel) {
            let db = shared.journal.db().unwrap_or(0);
            if shared.journal.is_active() && replication.was_primary.load(Ordering::Acquire) {
                replication.stream_db.store(u64::from(db), Ordering::Relaxed);
            }
        }
    }
    start(shared, &link);
}

/// Ends to be primary, under all locks and if `has_all` still holds then, and follows the replica once it has taken
/// over, which it is asked for. `None`: it did not hold any more.
pub(in crate::replication) fn give_way(
    shared: &Arc<Shared>,
    replica: &Peer,
    has_all: impl Fn() -> bool,
) -> Option<Arc<Link>> {
    let replication = &shared.replication;
    let (host, port) = replica.place();
    let link = Arc::new(Link::new(host, port, Takeover::Asked));
    {
        let _applying = replication.applying();
        let _locked = shared.keyspace.lock_all();
        if !has_all() || shared.state.is_replica.swap(true, Ordering::AcqRel) {
            return None;
        }
        shared.journal.seal(true);
        let db = shared.journal.db().unwrap_or(0);
        replication.stream_db.store(u64::from(db), Ordering::Relaxed);
        *lock(&replication.link) = Some(link.clone());
    }
    start(shared, &link);
    Some(link)
}

/// Follows nobody and serves no writes: who is primary is not known.
pub fn rest(shared: &Shared) {
    let replication = &shared.replication;
    if let Some(link) = lock(&replication.link).take() {
        link.stop();
    }
    let _applying = replication.applying();
    let _locked = shared.keyspace.lock_all();
    shared.journal.seal(true);
    shared.state.is_replica.store(true, Ordering::Release);
}

/// Gives the data set up, and its history: what comes next is empty. Nobody is followed, and no client writes.
pub fn begin_anew(shared: &Shared) {
    let replication = &shared.replication;
    let _applying = replication.applying();
    shared.state.loading.store(true, Ordering::Release);
    drop_data(shared);
    settle(shared, random_id(), 0, 0, None);
    replication.was_primary.store(false, Ordering::Release);
    shared.state.loading.store(false, Ordering::Release);
}

/// Becomes a primary with a history of its own. The error says why the data set must not be served.
pub fn promote(shared: &Arc<Shared>) -> Result<(), String> {
    let replication = &shared.replication;
    let link = lock(&replication.link).take();
    if let Some(link) = &link {
        link.stop();
    }
    let _applying = replication.applying();
    if link.is_some_and(|link| link.replacing.load(Ordering::Acquire)) {
        return Err("ERR the data set is being replaced by a full sync that is not complete".into());
    }
    let _locked = shared.keyspace.lock_all();
    let was_replica = shared.state.is_replica.load(Ordering::Acquire);
    if was_replica || !replication.was_primary.load(Ordering::Acquire) {
        // Our own replicas learn of the new history when they ask again; before anything is written in it, or
        // they would take it for the old one. see: `who_followed_a_replica_that_is_promoted_learns_of_the_new_history`
        replication.cut_peers();
        shared.state.reign.fetch_add(1, Ordering::AcqRel);
        shared.state.is_replica.store(false, Ordering::Release);
        begin_history(shared);
        shared.reset_quorum();
        tracing::info!(replid = replication.replid(), "promoted");
    }
    if !shared.has_council() {
        // Else its lease does, once the mark of its epoch has come first.
        shared.journal.seal(false);
    }
    Ok(())
}
