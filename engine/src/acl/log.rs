//! The ACL log: who was refused what, newest first; what repeats within a minute is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::selector::Reason;

/// Refusals alike within this time are one entry.
const ALIKE_MS: i64 = 60_000;
/// Entries, newest first, that a new one is compared with.
const COMPARED: usize = 10;
/// What is kept of a key, a channel or a name, bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Where a request came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Context {
    TopLevel,
    Multi,
    Lua,
}

impl Context {
    pub fn name(self) -> &'static str {
        match self {
            Context::TopLevel => "toplevel",
            Context::Multi => "multi",
            Context::Lua => "lua",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Entry {
    pub id: u64,
    pub count: u64,
    pub reason: Reason,
    pub context: Context,
    /// The command, key or channel.
    pub object: Vec<u8>,
    pub user: Vec<u8>,
    /// As CLIENT LIST shows the client of the last one.
    pub client: String,
    /// Unix milliseconds.
    pub created_ms: i64,
    pub updated_ms: i64,
}

/// What an entry tells of one refusal.
pub struct Refusal<'a> {
    pub reason: Reason,
    pub context: Context,
    pub object: &'a [u8],
    pub user: &'a [u8],
    pub client: String,
    pub now_ms: i64,
}

#[derive(Default)]
pub struct Log {
    entries: Mutex<VecDeque<Entry>>,
    next_id: AtomicU64,
    /// Since the start, by reason.
    refused: [AtomicU64; 6],
}

impl Log {
    fn entries(&self) -> MutexGuard<'_, VecDeque<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a refusal; `length_max` is acllog-max-len.
    pub fn add(&self, refusal: Refusal<'_>, length_max: usize) {
        let Refusal { reason, context, object, user, client, now_ms } = refusal;
        self.refused[reason as usize].fetch_add(1, Ordering::Relaxed);
        let object = &object[..object.len().min(TEXT_BYTES_MAX)];
        let user = &user[..user.len().min(TEXT_BYTES_MAX)];
        let mut entries = self.entries();
        let alike = entries.iter().take(COMPARED).position(|e| {
            let is_recent = (now_ms - e.updated_ms).abs() <= ALIKE_MS;
            is_recent
                && e.reason == reason
                && e.context == context
                && e.object == object
                && e.user == user
        });
        if let Some(mut entry) = alike.and_then(|at| entries.remove(at)) {
            entry.count += 1;
            entry.client = client;
            entry.updated_ms = now_ms;
            entries.push_front(entry);
        } else if length_max > 0 {
            let id = self.next_id.fetch_add(1, Ordering::Relaxed);
            let (object, user) = (object.to_vec(), user.to_vec());
            let (created_ms, updated_ms) = (now_ms, now_ms);
            let count = 1;
            entries.push_front(Entry {
                id,
                count,
                reason,
                context,
                object,
                user,
                client,
                created_ms,
                updated_ms,
            });
        }
        entries.truncate(length_max);
    }

    /// How many refusals of a kind there were since the start.
    pub fn refused(&self, reason: Reason) -> u64 {
        self.refused[reason as usize].load(Ordering::Relaxed)
    }

    pub fn newest(&self, count: usize) -> Vec<Entry> {
        self.entries().iter().take(count).cloned().collect()
    }

    pub fn clear(&self) {
        self.entries().clear();
    }
}

impl Reason {
    pub fn name(self) -> &'static str {
        match self {
            Reason::Command => "command",
            Reason::Key => "key",
            Reason::Channel => "channel",
            Reason::Database => "database",
            Reason::Auth => "auth",
            Reason::Certificate => "tls-cert",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(log: &Log, object: &str, now_ms: i64, max: usize) {
        let (reason, context) = (Reason::Key, Context::TopLevel);
        let (object, user) = (object.as_bytes(), b"u".as_slice());
        log.add(Refusal { reason, context, object, user, client: String::new(), now_ms }, max);
    }

    #[test]
    fn what_repeats_within_a_minute_is_counted_and_comes_first() {
        let log = Log::default();
        add(&log, "a", 0, 8);
        add(&log, "b", 10, 8);
        add(&log, "a", ALIKE_MS, 8);
        let newest = log.newest(9);
        let seen: Vec<_> = newest.iter().map(|e| (e.object.as_slice(), e.count, e.id)).collect();
        assert_eq!(seen, [(b"a".as_slice(), 2, 0), (b"b", 1, 1)]);
        add(&log, "a", 2 * ALIKE_MS + 1, 8);
        assert_eq!(log.newest(1)[0].id, 2);
    }

    #[test]
    fn the_log_is_bounded_in_entries_and_in_what_it_keeps_of_a_key() {
        let log = Log::default();
        (0..9).for_each(|i| add(&log, &format!("{i}{}", "x".repeat(5000)), 0, 4));
        assert_eq!(log.newest(99).len(), 4);
        assert!(log.newest(99).iter().all(|e| e.object.len() == TEXT_BYTES_MAX));
        add(&log, "a", 0, 0);
        assert!(log.newest(99).is_empty());
        assert_eq!(log.refused(Reason::Key), 10);
    }
}
