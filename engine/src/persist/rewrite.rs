//! Rewriting the log: a snapshot becomes its base, and what came before goes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::running::Running;
use super::save::Sink;
use super::{lock, position, store_lineage};
use crate::clock;
use crate::server::Shared;
use crate::snapshot::{self, Form, Moment};

/// What a new file of the log begins with: the database that the journal relies on, and its place.
fn head(moment: &Moment) -> Vec<u8> {
    let mut head = Vec::new();
    if let Some(db) = moment.db {
        crate::resp::encode_request(&mut head, &[b"SELECT".as_slice(), db.to_string().as_bytes()]);
    }
    head.extend_from_slice(&position::line(&moment.replid, moment.offset));
    head
}

/// Rewrites the log now. `anew`: what it holds so far does not count any more (a full sync, a failed disk,
/// a log that is just being switched on).
pub fn rewrite(shared: &Shared, running: &Running, anew: bool) -> io::Result<()> {
    let _turn = lock(&shared.persist.rewrite_turn);
    rewrite_now(shared, running, anew)
}

/// Gives a log that does not count yet the base that it waits for, so that it holds the data set.
/// see: `a_log_that_was_just_switched_on_is_whole_before_the_server_ends`
pub fn complete(shared: &Shared, running: &Running) -> io::Result<()> {
    let _turn = lock(&shared.persist.rewrite_turn);
    if lock(&running.log).counts() && !running.is_suspended() {
        return Ok(());
    }
    rewrite_now(shared, running, true)
}

fn rewrite_now(shared: &Shared, running: &Running, anew: bool) -> io::Result<()> {
    let begin = clock::unix_ms();
    let result = rewrite_once(shared, running, anew);
    let persist = &shared.persist;
    persist.rewrite_failed.store(result.is_err(), Ordering::Release);
    persist.last_rewrite_took_s.store((clock::unix_ms() - begin) / 1000, Ordering::Relaxed);
    match &result {
        Ok(()) => {
            persist.rewrites.fetch_add(1, Ordering::Relaxed);
        }
        Err(e) => tracing::error!(error = %e, "cannot rewrite the append-only file"),
    }
    result
}

fn rewrite_once(shared: &Shared, running: &Running, anew: bool) -> io::Result<()> {
    let disk = shared.disk.clone();
    let form = Form { aof_base: true, ..Form::default() };
    let mut ticket = 0;
    let begun = snapshot::begin(shared, shared.snapshots.turn(), form, |moment| {
        ticket = running.order_switch(shared, moment.offset, head(moment), anew);
    });
    shared.journal.wake();
    let temporary = lock(&running.log).base_path();
    let written = disk.create(&temporary).and_then(|file| {
        let mut sink = begun.write(Sink::new(file), form)?;
        sink.file.sync()?;
        Ok(sink.written)
    });
    // Awaited even when there is no base: the next rewrite must not meet this one's switch.
    let adopted = running.await_switch(ticket).and_then(|from| {
        let bytes = written?;
        let mut log = lock(&running.log);
        log.adopt(&temporary, from)?;
        let (base, incr) = log.sizes();
        running.base_bytes.store(bytes, Ordering::Relaxed);
        running.bytes.store(base + incr, Ordering::Relaxed);
        Ok(())
    });
    if let Err(e) = adopted {
        // It may not be there at all.
        let _ = disk.remove(&temporary);
        if anew && shared.quorum.is_configured() {
            // Writes wait for it (see `apply_policy`): they are refused instead, and the council is told.
            running.fail(shared, &format!("the log cannot be begun anew: {e}"), true);
        }
        return Err(e);
    }
    if anew {
        store_lineage(shared)?;
        running.recovered(shared);
    }
    shared.journal.wake();
    Ok(())
}

/// Rewrites in the background; the error says why that cannot begin now.
pub fn background(shared: &Arc<Shared>, anew: bool) -> Result<(), String> {
    if shared.persist.rewriting.swap(true, Ordering::AcqRel) {
        return Err("ERR Background append only file rewriting already in progress".into());
    }
    let with = shared.clone();
    let thread = std::thread::Builder::new().name("rewrite".into()).spawn(move || {
        if let Some(running) = with.persist.aof() {
            let anew = anew || running.is_suspended() || !lock(&running.log).counts();
            if rewrite(&with, &running, anew).is_ok() {
                tracing::info!("the append-only file is rewritten");
            }
        }
        with.persist.rewriting.store(false, Ordering::Release);
    });
    thread.map(|_| ()).map_err(|e| {
        shared.persist.rewriting.store(false, Ordering::Release);
        format!("ERR cannot start a thread: {e}")
    })
}

/// The log has grown so much since its last rewrite that it is worth one.
pub fn is_due(shared: &Shared, running: &Running) -> bool {
    let percentage = shared.config.int("auto-aof-rewrite-percentage", 100).max(0) as u64;
    let least = shared.bytes("auto-aof-rewrite-min-size", 64 << 20);
    let bytes = running.bytes.load(Ordering::Relaxed);
    let base = running.base_bytes.load(Ordering::Relaxed).max(1);
    percentage > 0 && bytes > least && bytes.saturating_sub(base) * 100 / base >= percentage
}
