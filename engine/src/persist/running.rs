//! The log of a running server: where it stands in the journal, what is ordered at which offset, and why it
//! cannot be written, if so.
//!
//! ```text
//! appendfsync always    the log's thread writes and syncs, then replies go out
//! otherwise             the loop writes what its clients are about to see acknowledged, then replies go out;
//!                       the thread writes what nobody waits for, and syncs
//! ```
//!
//! So the end of the process costs nothing that was acknowledged: it is with the kernel. A sync holds no lock,
//! so that nobody's write waits for it.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::aof::Log;
use super::lock;
use crate::clock;
use crate::journal::Pin;
use crate::server::Shared;

/// Bytes that are taken from the journal at a time.
const READ_BYTES: usize = 1 << 20;
const RETRY_MS: u64 = 1000;

/// Something to do when everything before an offset is written.
pub(super) struct Order {
    pub(super) offset: u64,
    pub(super) head: Vec<u8>,
    pub(super) what: What,
}

pub(super) enum What {
    /// Write `head` and go on.
    Remark,
    /// Go on in a new file that begins with `head`.
    Switch,
    /// As `Switch`, but forget what was before: the file counts with its own base only.
    Restart(Arc<Pin>),
}

/// What the last switch came to.
#[derive(Default)]
pub(super) struct Switched {
    pub(super) count: u64,
    pub(super) result: Option<Result<u64, String>>,
}

/// Where the log stands in the journal; who holds it writes.
pub(super) struct Place {
    pub(super) at: u64,
    pub(super) pin: Arc<Pin>,
    /// Room for what is being written.
    bytes: Vec<u8>,
}

/// The log of a running server.
pub struct Running {
    pub log: Mutex<Log>,
    /// Locked before `orders` and `log`.
    pub(super) place: Mutex<Place>,
    pub(super) orders: Mutex<VecDeque<Order>>,
    pub(super) switched: Mutex<Switched>,
    pub(super) switch_done: Condvar,
    /// The journal begins anew: nothing is read of it before a restart.
    pub(super) suspended: AtomicBool,
    /// A new file is being begun: nobody is to wait for the place.
    pub(super) is_switching: AtomicBool,
    pub(super) stop: AtomicBool,
    pub(super) stopped: AtomicBool,
    /// Journal offset behind what is written.
    written: AtomicU64,
    /// Monotonic milliseconds when a failed write is tried again.
    pub(super) retry_ms: AtomicU64,
    /// Bytes in the log when it was last rewritten, and now.
    pub base_bytes: AtomicU64,
    pub bytes: AtomicU64,
    /// Why the log cannot be written.
    failure: Mutex<Option<String>>,
    /// Only a new base can help.
    pub must_restart: AtomicBool,
}

impl Running {
    /// `pin`: keeps the journal from the offset on from which the log is to be written.
    pub fn new(log: Log, pin: Arc<Pin>) -> Running {
        let from = pin.offset();
        Running {
            log: Mutex::new(log),
            place: Mutex::new(Place { at: from, pin, bytes: Vec::new() }),
            orders: Mutex::default(),
            switched: Mutex::default(),
            switch_done: Condvar::new(),
            suspended: AtomicBool::new(false),
            is_switching: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            written: AtomicU64::new(from),
            retry_ms: AtomicU64::new(0),
            base_bytes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            failure: Mutex::default(),
            must_restart: AtomicBool::new(false),
        }
    }

    pub fn failure(&self) -> Option<String> {
        lock(&self.failure).clone()
    }

    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// The journal is about to begin anew; what is in it is not read before a restart, and nothing of it is on disk.
    pub fn suspend(&self, shared: &Shared) {
        // A sync that is under way tells of the journal that was: not behind this.
        let _place = lock(&self.place);
        self.suspended.store(true, Ordering::Release);
        lock(&self.orders).clear();
        shared.state.durable_offset.store(0, Ordering::Release);
    }

    pub fn is_suspended(&self) -> bool {
        self.suspended.load(Ordering::Acquire)
    }

    /// Puts a remark where the journal stands.
    pub fn remark(&self, offset: u64, head: Vec<u8>) {
        lock(&self.orders).push_back(Order { offset, head, what: What::Remark });
    }

    /// Orders a new file; called under all locks, at the moment of a snapshot. Gives a ticket.
    pub fn order_switch(&self, shared: &Shared, offset: u64, head: Vec<u8>, restart: bool) -> u64 {
        let ticket = lock(&self.switched).count;
        let what = match shared.journal.pin(offset, u64::MAX) {
            Some(pin) if restart => What::Restart(pin),
            _ => What::Switch,
        };
        let mut orders = lock(&self.orders);
        if restart {
            orders.clear();
        }
        orders.push_back(Order { offset, head, what });
        ticket
    }

    /// Waits until a switch is done; gives the number of the new file.
    pub fn await_switch(&self, ticket: u64) -> io::Result<u64> {
        let mut switched = lock(&self.switched);
        loop {
            if switched.count > ticket {
                return match &switched.result {
                    Some(Ok(seq)) => Ok(*seq),
                    Some(Err(e)) => Err(io::Error::other(e.clone())),
                    None => Err(io::Error::other("no file was begun")),
                };
            }
            if self.stopped.load(Ordering::Acquire) {
                return Err(io::Error::other("the log was closed"));
            }
            switched = self.await_thread(switched, Duration::from_millis(100));
        }
    }

    /// Until the thread has done something, or the time is over.
    fn await_thread<'m>(
        &self,
        switched: MutexGuard<'m, Switched>,
        timeout: Duration,
    ) -> MutexGuard<'m, Switched> {
        let woken = self.switch_done.wait_timeout(switched, timeout);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Writes and syncs what the journal holds, and ends the thread. `false`: it could not be written.
    pub fn close(&self, shared: &Shared) -> bool {
        self.stop.store(true, Ordering::Release);
        shared.journal.wake();
        let mut switched = lock(&self.switched);
        while !self.stopped.load(Ordering::Acquire) {
            switched = self.await_thread(switched, Duration::from_millis(20));
        }
        self.failure().is_none()
    }

    /// Writes what the journal holds up to an offset, unless the thread has something to do before, or nothing
    /// can be written: then the thread tells when it is.
    pub fn write_through(&self, shared: &Shared, upto: u64) {
        if self.is_switching.load(Ordering::Acquire) {
            return;
        }
        let mut place = lock(&self.place);
        while place.at < upto && self.can_write() {
            if self.is_due(place.at) || self.write_some(shared, &mut place) == 0 {
                return;
            }
        }
    }

    fn can_write(&self) -> bool {
        !self.must_restart.load(Ordering::Acquire) && lock(&self.failure).is_none()
    }

    /// Something is to be done where the log stands.
    fn is_due(&self, at: u64) -> bool {
        lock(&self.orders).front().is_some_and(|order| order.offset <= at)
    }

    /// Writes what the journal holds, up to the next order; gives the number of bytes.
    pub(super) fn write_some(&self, shared: &Shared, place: &mut Place) -> usize {
        let kept = self.fetch(shared, place);
        // Asked after the reading: what was read may be of a journal that has begun anew.
        if self.is_suspended() {
            return 0;
        }
        if !kept {
            self.fail(shared, "the journal no longer holds what is to be written", true);
            return 0;
        }
        if place.bytes.is_empty() {
            return 0;
        }
        let result = lock(&self.log).write(&place.bytes);
        if let Err(e) = result {
            self.fail(shared, &e.to_string(), false);
            return 0;
        }
        self.advance(shared, place)
    }

    /// Takes from the journal what may be written before the next order is carried out; `false`: it is not
    /// kept any more.
    fn fetch(&self, shared: &Shared, place: &mut Place) -> bool {
        let next = lock(&self.orders).front().map_or(u64::MAX, |o| o.offset);
        let most = next.saturating_sub(place.at).min(READ_BYTES as u64) as usize;
        place.bytes.clear();
        shared.journal.read(place.at, most, &mut place.bytes)
    }

    fn advance(&self, shared: &Shared, place: &mut Place) -> usize {
        let number = place.bytes.len();
        place.at += number as u64;
        place.pin.advance(place.at);
        self.bytes.fetch_add(number as u64, Ordering::Relaxed);
        self.note_written(shared, place.at);
        number
    }

    pub(super) fn note_written(&self, shared: &Shared, at: u64) {
        self.written.store(at, Ordering::Release);
        shared.state.written_offset.store(at, Ordering::SeqCst);
    }

    /// Puts on disk what is written, and tells that it is there. The log is not locked meanwhile. A file whose
    /// sync has failed is not synced again: the kernel says once that what it had is lost, and then no more.
    pub(super) fn sync(&self, shared: &Shared) {
        if self.must_restart.load(Ordering::Acquire) {
            return;
        }
        let at = self.written();
        let (file, counts) = {
            let log = lock(&self.log);
            (log.to_sync(), log.counts())
        };
        let synced = file.and_then(|file| {
            let Some((mut file, mark)) = file else { return Ok(()) };
            file.sync()?;
            lock(&self.log).synced(mark);
            Ok(())
        });
        match synced {
            Err(e) => self.fail(shared, &format!("sync failed: {e}"), true),
            Ok(()) if !counts => {}
            Ok(()) => {
                let state = &shared.state;
                let place = lock(&self.place);
                if self.is_suspended() {
                    return;
                }
                state.durable_offset.store(at, Ordering::Release);
                drop(place);
                if state.acks_wait_for_disk.load(Ordering::Acquire) {
                    shared.wake_loops();
                }
            }
        }
    }

    /// Writes are refused from here on: what they would be promised cannot be kept.
    pub(super) fn fail(&self, shared: &Shared, why: &str, restart: bool) {
        tracing::error!(error = why, "cannot write the append-only file");
        *lock(&self.failure) = Some(why.to_string());
        // A write that fails while a sync does must not make up for it: only a restart does.
        self.must_restart.fetch_or(restart, Ordering::AcqRel);
        self.retry_ms.store(clock::monotonic_ms() + RETRY_MS, Ordering::Release);
        let state = &shared.state;
        state.block_writes_for("aof", &format!("MISCONF Errors writing to the AOF file: {why}"));
        state.disk_failed.store(true, Ordering::Release);
        shared.wake_loops();
    }

    /// Tries whether the file can be written again after a failed write.
    pub(super) fn mend(&self, shared: &Shared) -> bool {
        if clock::monotonic_ms() < self.retry_ms.load(Ordering::Acquire) {
            std::thread::sleep(Duration::from_millis(20));
            return false;
        }
        self.retry_ms.store(clock::monotonic_ms() + RETRY_MS, Ordering::Release);
        let mut place = lock(&self.place);
        if self.is_suspended() {
            return false;
        }
        // What was not written is still in the journal: it is the trial.
        self.fetch(shared, &mut place);
        let mut log = lock(&self.log);
        if log.mend().and_then(|()| log.write(&place.bytes)).is_err() {
            return false;
        }
        let synced = log.sync();
        drop(log);
        self.advance(shared, &mut place);
        if let Err(e) = synced {
            self.fail(shared, &format!("sync failed: {e}"), true);
            return false;
        }
        shared.state.durable_offset.store(place.at, Ordering::Release);
        self.recovered(shared);
        true
    }

    /// The log can be written again.
    pub fn recovered(&self, shared: &Shared) {
        if lock(&self.failure).take().is_some() {
            tracing::info!("the append-only file can be written again");
        }
        shared.state.disk_failed.store(false, Ordering::Release);
        shared.state.block_writes_for("aof", "");
        shared.wake_loops();
    }
}
