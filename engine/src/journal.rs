//! The one ordered log of a member's writes; replicas, AOF, backlog and slot moves all read it.
//!
//! A write appends while it still holds its keys' locks, so the log's order agrees with every key's
//! order. The bytes are requests in RESP, a SELECT wherever the database changes: exactly what replicas
//! are sent and what the AOF holds. Offsets count these bytes and are the replication offsets.
//!
//! ```text
//! start                                   end
//!   | block | block | block | block (open) |      blocks of BLOCK_BYTES, oldest dropped past the backlog's size
//! ```

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use crate::resp::encode_request;

const BLOCK_BYTES: usize = 64 * 1024;

#[derive(Default)]
pub struct Journal {
    /// Somebody reads (AOF, replicas, a backlog being kept): writes must be appended.
    active: AtomicBool,
    end: AtomicU64,
    /// Readers that sleep until something is appended; looked at before anybody is woken.
    sleepers: AtomicUsize,
    grown: Condvar,
    inner: Mutex<Inner>,
}

/// A reader's place: what lies behind it is kept, up to the reader's limit.
pub struct Pin {
    offset: AtomicU64,
    /// Bytes behind the end at which the reader is given up.
    limit: u64,
}

impl Pin {
    pub fn offset(&self) -> u64 {
        self.offset.load(Ordering::Acquire)
    }

    /// The reader has everything before `offset`.
    pub fn advance(&self, offset: u64) {
        self.offset.store(offset, Ordering::Release);
    }
}

#[derive(Default)]
struct Inner {
    blocks: VecDeque<Vec<u8>>,
    /// Offset of the first byte of the first block.
    start: u64,
    end: u64,
    /// Database of the last request; `None`: the next one must say.
    db: Option<u16>,
    /// Bytes to keep behind the end, for partial syncs.
    keep: u64,
    /// Nothing but requests is appended any more: the end is the last word of a primary that hands over.
    sealed: bool,
    /// Places of the readers that are under way.
    pins: Vec<Weak<Pin>>,
}

impl Journal {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    pub fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    pub fn set_active(&self, active: bool) {
        self.active.store(active, Ordering::Release);
    }

    /// Offset behind the last byte.
    #[inline]
    pub fn end(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }

    /// Bytes to keep for partial syncs (repl-backlog-size).
    pub fn set_keep(&self, bytes: u64) {
        self.lock().keep = bytes;
    }

    /// Appends one request; gives the offset behind it.
    pub fn append(&self, db: u16, request: &[impl AsRef<[u8]>]) -> u64 {
        let mut inner = self.lock();
        inner.select(db);
        inner.write(request);
        self.publish(&inner)
    }

    /// Appends the effects of one command, in MULTI/EXEC when there is more than one.
    pub fn append_all(&self, requests: &[(u16, Vec<Vec<u8>>)]) -> u64 {
        let mut inner = self.lock();
        let wrap = requests.len() > 1;
        for (i, (db, request)) in requests.iter().enumerate() {
            inner.select(*db);
            if wrap && i == 0 {
                inner.write(&[b"MULTI"]);
            }
            inner.write(request);
        }
        if wrap {
            inner.write(&[b"EXEC"]);
        }
        self.publish(&inner)
    }

    /// Appends a request that belongs to no database (PING, REPLCONF GETACK), unless the journal is sealed.
    pub fn append_plain(&self, request: &[impl AsRef<[u8]>]) -> u64 {
        let mut inner = self.lock();
        if !inner.sealed {
            inner.write(request);
        }
        self.publish(&inner)
    }

    /// Keeps out, or lets in again, what is no client's request. What clients write is held back elsewhere.
    pub fn seal(&self, sealed: bool) {
        self.lock().sealed = sealed;
    }

    fn publish(&self, inner: &Inner) -> u64 {
        self.end.store(inner.end, Ordering::Release);
        if self.sleepers.load(Ordering::Acquire) > 0 {
            self.grown.notify_all();
        }
        inner.end
    }

    /// Wakes the readers that sleep, to look at something else than the end.
    pub fn wake(&self) {
        drop(self.lock());
        self.grown.notify_all();
    }

    /// Sleeps until the end is past `offset`, somebody calls `wake`, or the time is over.
    pub fn wait(&self, offset: u64, timeout: Duration) {
        self.wait_unless(offset, timeout, || false);
    }

    /// The same, but not if there is something else to look at: who makes `is_due` so calls `wake` behind that.
    pub fn wait_unless(&self, offset: u64, timeout: Duration, is_due: impl Fn() -> bool) {
        let inner = self.lock();
        if inner.end > offset || is_due() {
            return;
        }
        self.sleepers.fetch_add(1, Ordering::AcqRel);
        drop(self.grown.wait_timeout(inner, timeout));
        self.sleepers.fetch_sub(1, Ordering::AcqRel);
    }

    /// Keeps what lies behind an offset for a reader, until it is more than `limit` bytes;
    /// `None` when it is not kept any more.
    pub fn pin(&self, offset: u64, limit: u64) -> Option<Arc<Pin>> {
        let mut inner = self.lock();
        if offset < inner.start || offset > inner.end {
            return None;
        }
        let pin = Arc::new(Pin { offset: AtomicU64::new(offset), limit });
        inner.pins.retain(|p| p.strong_count() > 0);
        inner.pins.push(Arc::downgrade(&pin));
        Some(pin)
    }

    /// Database of the last request, as far as the next one relies on it.
    pub fn db(&self) -> Option<u16> {
        self.lock().db
    }

    /// Appends bytes as they came from the primary: a replica's journal is its primary's.
    /// `db` is the database that the bytes leave selected.
    pub fn append_raw(&self, bytes: &[u8], db: u16) -> u64 {
        let mut inner = self.lock();
        inner.db = Some(db);
        inner.open_block().extend_from_slice(bytes);
        inner.end += bytes.len() as u64;
        inner.trim();
        self.publish(&inner)
    }

    /// Starts over at an offset, with nothing kept: after a full sync or when loading ends.
    pub fn reset(&self, offset: u64) {
        let mut inner = self.lock();
        inner.blocks.clear();
        inner.start = offset;
        inner.end = offset;
        inner.db = None;
        inner.pins.clear();
        self.publish(&inner);
    }

    /// The next request says its database anew: a reader begins here.
    pub fn forget_db(&self) {
        self.lock().db = None;
    }

    /// Bytes that are kept for partial syncs, and the most that may be.
    pub fn backlog(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.end - inner.start, inner.keep)
    }

    /// Offset of the oldest byte that is still kept.
    pub fn start(&self) -> u64 {
        self.lock().start
    }

    /// Copies up to `max` bytes from an offset on to `out`; `false` when they are not kept any more.
    pub fn read(&self, offset: u64, max: usize, out: &mut Vec<u8>) -> bool {
        let inner = self.lock();
        if offset < inner.start || offset > inner.end {
            return false;
        }
        let mut skip = (offset - inner.start) as usize;
        let mut left = max;
        for block in &inner.blocks {
            if left == 0 {
                break;
            }
            if skip >= block.len() {
                skip -= block.len();
                continue;
            }
            let take = left.min(block.len() - skip);
            out.extend_from_slice(&block[skip..skip + take]);
            left -= take;
            skip = 0;
        }
        true
    }

    /// Bytes that the journal holds in memory.
    pub fn memory(&self) -> u64 {
        let inner = self.lock();
        inner.end - inner.start
    }
}

impl Inner {
    fn open_block(&mut self) -> &mut Vec<u8> {
        if self.blocks.back().is_none_or(|b| b.len() >= BLOCK_BYTES) {
            self.blocks.push_back(Vec::with_capacity(BLOCK_BYTES + 1024));
        }
        match self.blocks.back_mut() {
            Some(block) => block,
            None => unreachable!("a block was pushed just now"),
        }
    }

    fn select(&mut self, db: u16) {
        if self.db != Some(db) {
            self.db = Some(db);
            self.write(&[b"SELECT".as_slice(), db.to_string().as_bytes()]);
        }
    }

    fn write(&mut self, request: &[impl AsRef<[u8]>]) {
        let block = self.open_block();
        let before = block.len();
        encode_request(block, request);
        let written = (block.len() - before) as u64;
        self.end += written;
        self.trim();
    }

    fn trim(&mut self) {
        while self.blocks.len() > 1 {
            let first = self.blocks[0].len() as u64;
            if self.end - self.start - first < self.keep {
                return;
            }
            let (start, end) = (self.start + first, self.end);
            let held = |pin: &Arc<Pin>| pin.offset() < start && end - pin.offset() <= pin.limit;
            if self.pins.iter().filter_map(Weak::upgrade).any(|pin| held(&pin)) {
                return;
            }
            self.blocks.pop_front();
            self.start += first;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reader_has_not_read_is_kept_up_to_its_limit() {
        let journal = Journal::default();
        let value = vec![b'v'; 10_000];
        let reader = journal.pin(0, 1_000_000).unwrap();
        for _ in 0..50 {
            journal.append(0, &[b"SET".as_slice(), b"k", &value]);
        }
        assert!(journal.read(0, 10, &mut Vec::new()));
        reader.advance(400_000);
        journal.append(0, &[b"SET".as_slice(), b"k", &value]);
        assert!(!journal.read(0, 10, &mut Vec::new()));
        assert!(journal.read(400_000, 10, &mut Vec::new()));
        for _ in 0..150 {
            journal.append(0, &[b"SET".as_slice(), b"k", &value]);
        }
        assert!(!journal.read(400_000, 10, &mut Vec::new()));
        assert!(journal.pin(400_000, 1).is_none());
    }

    #[test]
    fn what_was_appended_is_read_back_until_it_is_trimmed() {
        let journal = Journal::default();
        journal.set_keep(100_000);
        let mut whole = Vec::new();
        for i in 0..20_000u32 {
            let value = i.to_string();
            let begin = journal.end();
            journal.append((i / 7_000) as u16, &[b"SET".as_slice(), b"k", value.as_bytes()]);
            let mut piece = Vec::new();
            assert!(journal.read(begin, usize::MAX, &mut piece));
            whole.extend_from_slice(&piece);
        }
        assert_eq!(whole.len() as u64, journal.end());
        let mut tail = Vec::new();
        let from = journal.end() - 100_000;
        assert!(journal.read(from, usize::MAX, &mut tail));
        assert_eq!(tail, whole[from as usize..]);
        assert!(!journal.read(0, 1, &mut Vec::new()));
        assert!(journal.memory() < 100_000 + 2 * BLOCK_BYTES as u64 + 2048);
    }
}
