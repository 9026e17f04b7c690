//! The thread that writes the journal to the log, as appendfsync wants it.
//!
//! ```text
//! journal --read--> write --[always: at once; everysec: each second]--> sync -> durable offset -> gated replies
//! ```
//!
//! Orders (a new file, a remark) are tied to journal offsets: they are carried out when the thread has come
//! exactly there. A failed write is mended and tried again; after a failed sync nothing is believed of that
//! file, and the log begins anew with a base of its own. Until either succeeds, writes are refused.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::aof::Log;
use crate::clock;
use crate::journal::Pin;
use crate::server::Shared;

const READ_BYTES: usize = 1 << 20;
/// Where every write need not be on disk at once, more are awaited before the next is done.
const GATHER: Duration = Duration::from_millis(5);
const RETRY_MS: u64 = 1000;

/// appendfsync.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    Always,
    EverySecond,
    Never,
}

impl Policy {
    pub fn of(shared: &Shared) -> Policy {
        match shared.config.get("appendfsync").as_deref() {
            Some("always") => Policy::Always,
            Some("no") => Policy::Never,
            _ => Policy::EverySecond,
        }
    }
}

/// Something to do when everything before an offset is written.
struct Order {
    offset: u64,
    head: Vec<u8>,
    what: What,
}

enum What {
    /// Write `head` and go on.
    Remark,
    /// Go on in a new file that begins with `head`.
    Switch,
    /// As `Switch`, but forget what was before: the file counts with its own base only.
    Restart(Arc<Pin>),
}

/// What the last switch came to.
#[derive(Default)]
struct Switched {
    count: u64,
    result: Option<Result<u64, String>>,
}

/// The log of a running server.
pub struct Running {
    pub log: Mutex<Log>,
    orders: Mutex<VecDeque<Order>>,
    switched: Mutex<Switched>,
    switch_done: Condvar,
    /// The journal begins anew: nothing is read of it before a restart.
    suspended: AtomicBool,
    stop: AtomicBool,
    stopped: AtomicBool,
    /// Journal offset behind what is written.
    written: AtomicU64,
    /// Bytes in the log when it was last rewritten, and now.
    pub base_bytes: AtomicU64,
    pub bytes: AtomicU64,
    /// Why the log cannot be written.
    failure: Mutex<Option<String>>,
    /// Only a new base can help.
    pub must_restart: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Running {
    /// `from`: offset in the journal from which on the log is to be written.
    pub fn new(log: Log, from: u64) -> Running {
        Running {
            log: Mutex::new(log),
            orders: Mutex::default(),
            switched: Mutex::default(),
            switch_done: Condvar::new(),
            suspended: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            written: AtomicU64::new(from),
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

    /// The journal is about to begin anew; what is in it is not read before a restart.
    pub fn suspend(&self) {
        self.suspended.store(true, Ordering::Release);
        lock(&self.orders).clear();
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
            let timeout = Duration::from_millis(100);
            switched = self
                .switch_done
                .wait_timeout(switched, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Writes and syncs what the journal holds, and ends the thread. `false`: it could not be written.
    pub fn close(&self, shared: &Shared) -> bool {
        self.stop.store(true, Ordering::Release);
        shared.journal.wake();
        let mut switched = lock(&self.switched);
        while !self.stopped.load(Ordering::Acquire) {
            let timeout = Duration::from_millis(20);
            switched = self
                .switch_done
                .wait_timeout(switched, timeout)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        self.failure().is_none()
    }
}

/// Body of the thread.
pub fn run(shared: &Shared, running: &Running, pin: Arc<Pin>) {
    let mut writer = Writer {
        shared,
        running,
        pin,
        at: running.written(),
        last_sync_ms: clock::monotonic_ms(),
        retry_ms: 0,
        bytes: Vec::new(),
    };
    while writer.turn() {}
    running.stopped.store(true, Ordering::Release);
    running.switch_done.notify_all();
}

struct Writer<'s> {
    shared: &'s Shared,
    running: &'s Running,
    pin: Arc<Pin>,
    at: u64,
    last_sync_ms: u64,
    retry_ms: u64,
    bytes: Vec<u8>,
}

impl Writer<'_> {
    /// One step; `false` when the thread is to end.
    fn turn(&mut self) -> bool {
        let running = self.running;
        let stop = running.stop.load(Ordering::Acquire);
        if let Some(restart) = self.take_restart() {
            self.carry_out(restart);
            return true;
        }
        if running.is_suspended() || running.must_restart.load(Ordering::Acquire) {
            if !stop {
                std::thread::sleep(Duration::from_millis(20));
            }
            return !stop;
        }
        // A file that counts only with a base to come proves nothing: its base's adoption ends the failure.
        let counts = lock(&running.log).counts();
        if counts && running.failure().is_some() && !self.mend() {
            return !stop;
        }
        if let Some(order) = self.take_due() {
            self.carry_out(order);
            return true;
        }
        let next = lock(&running.orders).front().map_or(u64::MAX, |o| o.offset);
        let most = READ_BYTES.min(next.saturating_sub(self.at).min(1 << 30) as usize);
        self.bytes.clear();
        let kept = self.shared.journal.read(self.at, most, &mut self.bytes);
        if running.is_suspended() {
            return true;
        }
        if !kept {
            self.fail("the journal no longer holds what is to be written", true);
            return true;
        }
        let policy = Policy::of(self.shared);
        if self.bytes.is_empty() {
            if stop {
                self.sync();
                return false;
            }
            if policy == Policy::Always || self.sync_is_due(policy) {
                self.sync();
            }
            let timeout = if lock(&running.log).is_unsynced() { 100 } else { 1000 };
            self.shared.journal.wait(self.at, Duration::from_millis(timeout));
            return true;
        }
        let result = lock(&running.log).write(&self.bytes);
        if let Err(e) = result {
            self.fail(&e.to_string(), false);
            return true;
        }
        self.at += self.bytes.len() as u64;
        running.bytes.fetch_add(self.bytes.len() as u64, Ordering::Relaxed);
        running.written.store(self.at, Ordering::Release);
        self.pin.advance(self.at);
        if policy == Policy::Always || self.sync_is_due(policy) {
            self.sync();
        }
        if policy != Policy::Always && self.bytes.len() < READ_BYTES && !stop {
            std::thread::sleep(GATHER);
        }
        true
    }

    fn sync_is_due(&self, policy: Policy) -> bool {
        policy == Policy::EverySecond && clock::monotonic_ms() >= self.last_sync_ms + 1000
    }

    fn sync(&mut self) {
        let mut log = lock(&self.running.log);
        let (result, counts) = (log.sync(), log.counts());
        drop(log);
        self.last_sync_ms = clock::monotonic_ms();
        match result {
            Err(e) => self.fail(&format!("sync failed: {e}"), true),
            Ok(()) if !counts => {}
            Ok(()) => {
                let state = &self.shared.state;
                state.durable_offset.store(self.at, Ordering::Release);
                if state.acks_wait_for_disk.load(Ordering::Acquire) {
                    self.shared.wake_loops();
                }
            }
        }
    }

    /// A restart is carried out wherever the thread stands: it does not need what was before.
    fn take_restart(&self) -> Option<Order> {
        let mut orders = lock(&self.running.orders);
        match orders.front().map(|o| &o.what) {
            Some(What::Restart(_)) => orders.pop_front(),
            _ => None,
        }
    }

    fn take_due(&self) -> Option<Order> {
        let mut orders = lock(&self.running.orders);
        (orders.front()?.offset <= self.at).then(|| orders.pop_front())?
    }

    fn carry_out(&mut self, order: Order) {
        let listed = match order.what {
            What::Remark => {
                let result = lock(&self.running.log).write(&order.head);
                if let Err(e) = result {
                    self.fail(&e.to_string(), false);
                    lock(&self.running.orders).push_front(order);
                }
                return;
            }
            What::Switch => true,
            What::Restart(_) => false,
        };
        let result = lock(&self.running.log).switch(&order.head, listed);
        if let (Ok(_), What::Restart(pin)) = (&result, order.what) {
            self.at = order.offset;
            self.pin = pin;
            self.running.written.store(self.at, Ordering::Release);
            self.running.suspended.store(false, Ordering::Release);
            self.running.must_restart.store(false, Ordering::Release);
        }
        let mut switched = lock(&self.running.switched);
        switched.count += 1;
        switched.result = Some(result.map_err(|e| e.to_string()));
        self.running.switch_done.notify_all();
    }

    /// Writes are refused from here on: what they would be promised cannot be kept.
    fn fail(&mut self, why: &str, restart: bool) {
        tracing::error!(error = why, "cannot write the append-only file");
        *lock(&self.running.failure) = Some(why.to_string());
        self.running.must_restart.store(restart, Ordering::Release);
        self.retry_ms = clock::monotonic_ms() + RETRY_MS;
        let state = &self.shared.state;
        state.block_writes_for("aof", &format!("MISCONF Errors writing to the AOF file: {why}"));
        state.disk_failed.store(true, Ordering::Release);
        self.shared.wake_loops();
    }

    /// Tries whether the file can be written again after a failed write.
    fn mend(&mut self) -> bool {
        if clock::monotonic_ms() < self.retry_ms {
            std::thread::sleep(Duration::from_millis(20));
            return false;
        }
        self.retry_ms = clock::monotonic_ms() + RETRY_MS;
        self.bytes.clear();
        // What was not written is still in the journal: it is the trial.
        let end = self.shared.journal.end();
        let next = lock(&self.running.orders).front().map_or(end, |o| o.offset.min(end));
        let most = READ_BYTES.min(next.saturating_sub(self.at) as usize);
        self.shared.journal.read(self.at, most, &mut self.bytes);
        let mut log = lock(&self.running.log);
        if log.mend().and_then(|()| log.write(&self.bytes)).is_err() {
            return false;
        }
        let synced = log.sync();
        drop(log);
        self.at += self.bytes.len() as u64;
        self.running.written.store(self.at, Ordering::Release);
        self.pin.advance(self.at);
        if let Err(e) = synced {
            self.fail(&format!("sync failed: {e}"), true);
            return false;
        }
        self.shared.state.durable_offset.store(self.at, Ordering::Release);
        recovered(self.shared, self.running);
        true
    }
}

/// The log can be written again.
pub fn recovered(shared: &Shared, running: &Running) {
    if lock(&running.failure).take().is_some() {
        tracing::info!("the append-only file can be written again");
    }
    shared.state.disk_failed.store(false, Ordering::Release);
    shared.state.block_writes_for("aof", "");
    shared.wake_loops();
}
