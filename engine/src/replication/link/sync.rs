//! What becomes of our data set: the stream goes on where it ends, or the primary's takes its place.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use super::{Attempt, LIMITS, SYNC};
use crate::clock;
use crate::persist::{self, Lineage, load as loading};
use crate::replication::payload::Wire;
use crate::replication::{Ids, random_id};
use crate::resp::Decoder;
use crate::server::Shared;
use crate::session::Session;
use crate::stream::Stream;
use crate::tally::Tally;

impl Attempt<'_> {
    /// The stream goes on where our journal ends.
    pub(super) fn resume(&self, replid: Option<String>) -> io::Result<()> {
        let replication = &self.shared.replication;
        let ids = replication.ids();
        let Some(replid) = replid.filter(|id| *id != ids.replid) else { return Ok(()) };
        let _applying = replication.applying();
        let _locked = self.shared.keyspace.lock_all();
        self.check_wanted()?;
        let end = self.shared.journal.end();
        replication.set_ids(Ids { replid: replid.clone(), former: Some((ids.replid, end)) });
        if let Some(running) = self.shared.persist.aof() {
            running.remark(end, persist::position::line(&replid, end));
        }
        // Our own replicas learn of the new history when they ask again.
        replication.cut_peers();
        Ok(())
    }

    /// Takes the primary's whole data set.
    pub(super) fn full(
        &self,
        wire: &mut Wire,
        replid: &str,
        offset: u64,
        diverged: Option<u64>,
    ) -> io::Result<Session> {
        let shared = self.shared;
        if !shared.may_full_sync(replid, offset) {
            return Err(io::Error::other("the primary's data set may not replace ours"));
        }
        self.link.state.store(SYNC, Ordering::Release);
        let folder = PathBuf::from(shared.config.get("dir").unwrap_or_else(|| ".".into()));
        let path = folder.join(format!("temp-full-{}.rdb", std::process::id()));
        let spooled = Spool::receive(&path, wire, &|| self.link.is_stopped())?;
        let mut beat = Beat { stream: wire.stream.clone(), next_ms: 0 };
        loading::verify(shared, spooled.open()?, |_| beat.beat()).map_err(io::Error::other)?;
        let origin = self.replace(&spooled, replid, offset, diverged, &mut beat)?;
        tracing::info!(keys = origin.keys, replid, offset, "full sync loaded");
        self.acknowledge(wire)?;
        let mut session = loading::session(&self.address());
        session.select(origin.db);
        Ok(session)
    }

    fn replace(
        &self,
        spooled: &Spool,
        replid: &str,
        offset: u64,
        diverged: Option<u64>,
        beat: &mut Beat,
    ) -> io::Result<loading::Origin> {
        let shared = self.shared;
        let replication = &shared.replication;
        // Everything else that looks at the journal's place waits: snapshots, promotion.
        let _applying = replication.applying();
        self.check_wanted()?;
        // Before anything is given up: without it the journal would still stand where the old data set did.
        let file = spooled.open()?;
        self.link.replacing.store(true, Ordering::Release);
        shared.state.loading.store(true, Ordering::Release);
        self.count_dropped(diverged);
        drop_data(shared);
        let loaded = loading::snapshot(shared, file, true, |_| beat.beat());
        let failed = loaded.as_ref().err().cloned();
        if failed.is_some() {
            loading::empty(shared);
        }
        let origin = loaded.unwrap_or_default();
        let (replid, offset) = match failed {
            None => (replid.to_string(), offset),
            Some(_) => (random_id(), 0),
        };
        settle(shared, replid, offset, origin.db, origin.lineage.clone());
        shared.state.dirty.add(Tally::ANY_THREAD, origin.keys as i64);
        shared.state.loading.store(false, Ordering::Release);
        self.link.replacing.store(false, Ordering::Release);
        match failed {
            None => Ok(origin),
            Some(e) => Err(io::Error::other(e)),
        }
    }

    /// What a former primary had acknowledged and now gives up.
    fn count_dropped(&self, diverged: Option<u64>) {
        let shared = self.shared;
        let replication = &shared.replication;
        if !replication.was_primary.swap(false, Ordering::AcqRel) || !shared.journal.is_active() {
            return;
        }
        let end = shared.journal.end();
        let from = diverged.unwrap_or_else(|| shared.journal.start()).min(end);
        if from == end {
            return;
        }
        let mut bytes = Vec::new();
        let kept = shared.journal.read(from, usize::MAX, &mut bytes);
        let writes = if kept { count_writes(&bytes) } else { 0 };
        replication.dropped_bytes.fetch_add(end - from, Ordering::Relaxed);
        replication.dropped_writes.fetch_add(writes, Ordering::Relaxed);
        tracing::warn!(bytes = end - from, writes, "dropped what the new primary does not have");
    }
}

/// Gives the data set up, and what goes with it: replicas, the log, what is known of its age.
pub(super) fn drop_data(shared: &Shared) {
    shared.replication.cut_peers();
    if let Some(running) = shared.persist.aof() {
        running.suspend(shared);
    }
    shared.replication.fresh.forget();
    loading::empty(shared);
}

/// The data set stands at a place in a history from now on.
pub(super) fn settle(
    shared: &Shared,
    replid: String,
    offset: u64,
    db: u16,
    lineage: Option<Lineage>,
) {
    let replication = &shared.replication;
    shared.journal.reset(offset);
    shared.journal.set_active(true);
    replication.set_ids(Ids { replid, former: None });
    replication.stream_db.store(u64::from(db), Ordering::Relaxed);
    persist::take_lineage(shared, lineage);
}

/// Requests in a piece of the journal that changed data.
fn count_writes(bytes: &[u8]) -> u64 {
    let mut decoder = Decoder::default();
    let (mut at, mut writes) = (0, 0);
    while let Ok(Some(end)) = decoder.next(bytes, at, LIMITS) {
        let name = decoder.args.first().map_or(&[][..], |(a, b)| &bytes[*a..*b]);
        let plain: [&[u8]; 5] = [b"select", b"ping", b"multi", b"exec", b"replconf"];
        writes += u64::from(!plain.iter().any(|p| p.eq_ignore_ascii_case(name)));
        at = end;
    }
    writes
}

/// Tells the primary now and then that we are still loading.
struct Beat {
    stream: Stream,
    next_ms: u64,
}

impl Beat {
    fn beat(&mut self) {
        let now = clock::monotonic_ms();
        if now >= self.next_ms {
            self.next_ms = now + 1000;
            // A link that broke is noticed when loading is over.
            let _ = self.stream.write_all(b"\n");
        }
    }
}

/// A full sync on disk, gone when it is dropped.
struct Spool(PathBuf);

impl Spool {
    fn receive(path: &Path, wire: &mut Wire, stopped: &dyn Fn() -> bool) -> io::Result<Spool> {
        use std::os::unix::fs::OpenOptionsExt;
        let _ = std::fs::remove_file(path);
        let mut file =
            std::fs::File::options().create_new(true).write(true).mode(0o600).open(path)?;
        let spool = Spool(path.to_path_buf());
        wire.snapshot(&mut file, stopped)?;
        Ok(spool)
    }

    fn open(&self) -> io::Result<std::fs::File> {
        std::fs::File::open(&self.0)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // It may not be there at all.
        let _ = std::fs::remove_file(&self.0);
    }
}
