//! The snapshot file: SAVE, BGSAVE, save points.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::clock;
use crate::disk::DiskFile;
use crate::server::Shared;
use crate::snapshot::{self, Form, Moment};
use crate::tally::Tally;

/// How often a snapshot is begun anew when a whole database was exchanged or emptied meanwhile.
const TRIES: usize = 3;
/// Bytes between two syncs of a file that grows, so that the last one does not stall the disk.
const SYNC_BYTES: u64 = 32 << 20;

/// A file of the disk as a sink, synced in steps.
pub(super) struct Sink {
    pub(super) file: Box<dyn DiskFile>,
    pub(super) written: u64,
    synced: u64,
}

impl Sink {
    pub(super) fn new(file: Box<dyn DiskFile>) -> Sink {
        Sink { file, written: 0, synced: 0 }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.written += n as u64;
        if self.written - self.synced > SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.written;
        }
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Saves the data set of this moment to the snapshot file and waits until it is on disk.
pub fn save(shared: &Shared) -> io::Result<()> {
    let begin = clock::unix_ms();
    let mut result = Err(io::Error::other("not tried"));
    for _ in 0..TRIES {
        let upheavals = shared.keyspace.upheavals();
        result = save_once(shared);
        if result.is_ok() || shared.keyspace.upheavals() == upheavals {
            break;
        }
    }
    let persist = &shared.persist;
    persist.save_failed.store(result.is_err(), Ordering::Release);
    let took = (clock::unix_ms() - begin) / 1000;
    persist.last_save_took_s.store(took, Ordering::Relaxed);
    match &result {
        Ok(moment) => {
            persist.last_save_s.store(clock::unix_ms() / 1000, Ordering::Relaxed);
            persist.saves.fetch_add(1, Ordering::Relaxed);
            shared.state.dirty.add(Tally::ANY_THREAD, -(moment.dirty as i64));
            shared.state.block_writes_for("save", "");
        }
        Err(e) => {
            tracing::error!(error = %e, "cannot save the snapshot file");
            if shared.is_on("stop-writes-on-bgsave-error", true) && !points(shared).is_empty() {
                shared.state.block_writes_for(
                    "save",
                    "MISCONF Larder is configured to save RDB snapshots, but it's currently unable to \
                     persist to disk. Commands that may modify the data set are disabled, because this \
                     instance is configured to report errors during writes if RDB snapshotting fails \
                     (stop-writes-on-bgsave-error option). Please check the logs for details about the \
                     RDB error.",
                );
            }
        }
    }
    result.map(|_| ())
}

fn save_once(shared: &Shared) -> io::Result<Moment> {
    let (disk, folder, path) = (shared.disk.clone(), shared.folder(), shared.dump_path());
    let temporary = folder.join(format!("temp-{}.rdb", std::process::id()));
    let begun = snapshot::begin(shared, shared.snapshots.turn(), Form::default(), |_| {});
    let moment = begun.moment.clone();
    let written = disk.create(&temporary).and_then(|file| {
        let mut sink = begun.write(Sink::new(file), Form::default())?;
        sink.file.sync()?;
        drop(sink);
        disk.rename(&temporary, &path)?;
        disk.sync_folder(&folder)
    });
    if written.is_err() {
        // It may not be there at all.
        let _ = disk.remove(&temporary);
    }
    written.map(|()| moment)
}

/// Saves in the background; the error says why that cannot begin now.
pub fn background(shared: &Arc<Shared>) -> Result<(), String> {
    if shared.persist.saving.swap(true, Ordering::AcqRel) {
        return Err("ERR Background save already in progress".into());
    }
    let with = shared.clone();
    let thread = std::thread::Builder::new().name("save".into()).spawn(move || {
        if save(&with).is_ok() {
            tracing::info!("the snapshot file is saved");
        }
        with.persist.saving.store(false, Ordering::Release);
    });
    thread.map(|_| ()).map_err(|e| {
        shared.persist.saving.store(false, Ordering::Release);
        format!("ERR cannot start a thread: {e}")
    })
}

/// The save points: (seconds, changes).
pub fn points(shared: &Shared) -> Vec<(i64, u64)> {
    let text = shared.config.get("save").unwrap_or_else(|| "3600 1 300 100 60 10000".into());
    let words: Vec<&str> = text.split_whitespace().collect();
    words
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].parse().ok()?, pair[1].parse().ok()?)))
        .collect()
}

/// A save point is due.
pub fn is_due(shared: &Shared, now_s: i64) -> bool {
    let dirty = shared.state.dirty.sum();
    let last = shared.persist.last_save_s.load(Ordering::Relaxed);
    points(shared).iter().any(|(s, changes)| dirty >= *changes && now_s - last >= *s)
}
