//! Clients that wait for keys: WATCH (told of a change) and the blocking commands (served in order).
//!
//! A blocking command that finds nothing registers its client while it still holds the keys' locks, so
//! no push can slip in between. Whoever changes such a key runs, after releasing its own locks, the
//! waiting command on behalf of the first waiter (`exec::serve`), and then of the next, until one finds
//! nothing. A waiter is claimed by one thread at a time through its state.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::command::Command;
use crate::session::ClientInfo;

type Key = (u16, Vec<u8>);

const WAITING: u8 = 0;
const CLAIMED: u8 = 1;
const DONE: u8 = 2;

/// One client blocked in one command.
pub struct Waiter {
    pub client: Arc<ClientInfo>,
    pub command: &'static Command,
    pub args: Vec<Vec<u8>>,
    pub db: u16,
    pub resp3: bool,
    pub keys: Vec<Vec<u8>>,
    /// Unix milliseconds; 0: never.
    pub deadline_ms: i64,
    /// What the client gets when the time is up.
    pub on_timeout: OnTimeout,
    state: AtomicU8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OnTimeout {
    NullArray,
    Null,
}

impl Waiter {
    #[expect(clippy::too_many_arguments, reason = "a record, made in one place")]
    pub fn new(
        client: Arc<ClientInfo>,
        command: &'static Command,
        args: Vec<Vec<u8>>,
        db: u16,
        resp3: bool,
        keys: Vec<Vec<u8>>,
        deadline_ms: i64,
        on_timeout: OnTimeout,
    ) -> Waiter {
        let state = AtomicU8::new(WAITING);
        Waiter { client, command, args, db, resp3, keys, deadline_ms, on_timeout, state }
    }

    fn go(&self, from: u8, to: u8) -> bool {
        self.state.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes the waiter for a try; `false` when another thread has it or it is done.
    pub fn claim(&self) -> bool {
        self.go(WAITING, CLAIMED)
    }

    /// The try found nothing: it waits on.
    pub fn unclaim(&self) {
        self.go(CLAIMED, WAITING);
    }

    /// The try gave a reply.
    pub fn finish(&self) {
        self.state.store(DONE, Ordering::Release);
    }

    /// Ends the wait from outside (time-out, CLIENT UNBLOCK, disconnect); `false` when too late for that.
    pub fn cancel(&self) -> bool {
        self.go(WAITING, DONE)
    }

    pub fn is_done(&self) -> bool {
        self.state.load(Ordering::Acquire) == DONE
    }
}

/// All who wait for keys or watch them.
#[derive(Default)]
pub struct Waiters {
    blocked: Mutex<HashMap<Key, VecDeque<Arc<Waiter>>>>,
    watched: Mutex<HashMap<Key, Vec<Arc<AtomicBool>>>>,
    blocked_count: AtomicUsize,
    watched_count: AtomicUsize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Waiters {
    /// Somebody waits for or watches some key: changed keys must be told.
    #[inline]
    pub fn any(&self) -> bool {
        self.blocked_count.load(Ordering::Acquire) + self.watched_count.load(Ordering::Acquire) > 0
    }

    pub fn blocked_clients(&self) -> usize {
        self.blocked_count.load(Ordering::Relaxed)
    }

    /// Registers a waiter; the caller holds the locks of its keys.
    pub fn block(&self, waiter: &Arc<Waiter>) {
        let mut blocked = lock(&self.blocked);
        self.blocked_count.fetch_add(1, Ordering::AcqRel);
        for key in &waiter.keys {
            blocked.entry((waiter.db, key.clone())).or_default().push_back(waiter.clone());
        }
    }

    /// Forgets a waiter that is done.
    pub fn unblock(&self, waiter: &Arc<Waiter>) {
        let mut blocked = lock(&self.blocked);
        self.blocked_count.fetch_sub(1, Ordering::AcqRel);
        for key in &waiter.keys {
            let key = (waiter.db, key.clone());
            if let Some(queue) = blocked.get_mut(&key) {
                queue.retain(|w| !Arc::ptr_eq(w, waiter));
                if queue.is_empty() {
                    blocked.remove(&key);
                }
            }
        }
    }

    /// Those who wait for a key, first come first.
    pub fn waiting(&self, db: u16, key: &[u8]) -> Vec<Arc<Waiter>> {
        if self.blocked_count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let blocked = lock(&self.blocked);
        blocked.get(&(db, key.to_vec())).map_or_else(Vec::new, |q| q.iter().cloned().collect())
    }

    /// Every waiter, each once.
    pub fn all_waiting(&self) -> Vec<Arc<Waiter>> {
        let blocked = lock(&self.blocked);
        let mut found: Vec<Arc<Waiter>> = Vec::new();
        for waiter in blocked.values().flatten() {
            if !found.iter().any(|w| Arc::ptr_eq(w, waiter)) {
                found.push(waiter.clone());
            }
        }
        found
    }

    /// Sets `broken` when the key changes; the caller holds the key's lock.
    pub fn watch(&self, db: u16, key: &[u8], broken: &Arc<AtomicBool>) {
        self.watched_count.fetch_add(1, Ordering::AcqRel);
        lock(&self.watched).entry((db, key.to_vec())).or_default().push(broken.clone());
    }

    pub fn unwatch(&self, db: u16, key: &[u8], broken: &Arc<AtomicBool>) {
        let mut watched = lock(&self.watched);
        let key = (db, key.to_vec());
        if let Some(flags) = watched.get_mut(&key)
            && let Some(i) = flags.iter().position(|f| Arc::ptr_eq(f, broken))
        {
            flags.swap_remove(i);
            self.watched_count.fetch_sub(1, Ordering::AcqRel);
            if flags.is_empty() {
                watched.remove(&key);
            }
        }
    }

    /// A key changed: whoever watches it must not EXEC.
    pub fn changed(&self, db: u16, key: &[u8]) {
        if self.watched_count.load(Ordering::Acquire) == 0 {
            return;
        }
        if let Some(flags) = lock(&self.watched).get(&(db, key.to_vec())) {
            flags.iter().for_each(|f| f.store(true, Ordering::Release));
        }
    }

    /// A whole database changed (FLUSHDB, SWAPDB, a full sync).
    pub fn database_changed(&self, db: u16) {
        for ((at, _), flags) in lock(&self.watched).iter() {
            if *at == db {
                flags.iter().for_each(|f| f.store(true, Ordering::Release));
            }
        }
    }
}
