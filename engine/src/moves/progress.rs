//! How far a move is: keys and bytes that are sent, what is left, and how long that will take at the rate seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{SlotSet, lock};
use crate::clock;
use crate::server::Shared;
use crate::topology::{Epoch, MoveProgress};

/// One move, as its source sees it. Begun anew, it counts from nothing.
pub struct Progress {
    id: Epoch,
    pub(crate) slots: SlotSet,
    began_ms: u64,
    keys_total: u64,
    keys: AtomicU64,
    bytes: AtomicU64,
    /// Bytes per second at most; 0: as many as it can.
    limit: AtomicU64,
    /// All keys are sent: what is left are the writes meanwhile.
    is_copied: AtomicBool,
}

impl Progress {
    pub(super) fn new(id: Epoch, slots: SlotSet, keys_total: u64, began_ms: u64) -> Progress {
        Progress {
            id,
            slots,
            began_ms,
            keys_total,
            keys: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            limit: AtomicU64::new(0),
            is_copied: AtomicBool::new(false),
        }
    }

    /// One more key is on its way.
    pub(crate) fn count_key(&self) {
        self.keys.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, bytes: usize, limit: Option<u64>) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn copied(&self) {
        self.is_copied.store(true, Ordering::Relaxed);
        self.limit.store(0, Ordering::Relaxed);
    }

    /// Keys come and go meanwhile: the totals are those of the beginning, and never less than what was sent.
    pub fn shown(&self, now_ms: u64) -> MoveProgress {
        let (keys, bytes) = (self.keys.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let mut shown = MoveProgress {
            id: self.id,
            keys,
            keys_total: self.keys_total.max(keys),
            bytes,
            bytes_total: None,
            eta_ms: None,
            limit: Some(self.limit.load(Ordering::Relaxed)).filter(|limit| *limit != 0),
        };
        if self.is_copied.load(Ordering::Relaxed) {
            (shown.keys_total, shown.bytes_total, shown.eta_ms) = (keys, Some(bytes), Some(0));
            return shown;
        }
        // The keys that are left are taken for as large and as slow as those that were sent.
        let left = u128::from(shown.keys_total - keys);
        let of_left = |sofar: u64| {
            let left = u128::from(sofar) * left / u128::from(keys.max(1));
            u64::try_from(left).unwrap_or(u64::MAX)
        };
        if keys > 0 {
            shown.bytes_total = Some(bytes.saturating_add(of_left(bytes)));
            shown.eta_ms = Some(of_left(now_ms.saturating_sub(self.began_ms)));
        }
        shown
    }
}

/// A move is listed for as long as this lives.
pub(super) struct Listed<'s> {
    shared: &'s Shared,
    pub(super) progress: Arc<Progress>,
}

impl<'s> Listed<'s> {
    pub(super) fn new(shared: &'s Shared, progress: Arc<Progress>) -> Listed<'s> {
        lock(&shared.moves.given).push(progress.clone());
        Listed { shared, progress }
    }
}

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        lock(&self.shared.moves.given).retain(|other| !Arc::ptr_eq(other, &self.progress));
    }
}

impl Shared {
    /// The moves of slots away from this member, and how far they are.
    pub fn moves_given(&self) -> Vec<MoveProgress> {
        let now_ms = clock::monotonic_ms();
        lock(&self.moves.given).iter().map(|progress| progress.shown(now_ms)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(now_ms: u64, keys: u64, bytes: usize) -> MoveProgress {
        let progress = Progress::new(9, SlotSet::empty(), 1_000, 5_000);
        (0..keys).for_each(|_| progress.count_key());
        progress.sent(bytes, Some(7));
        progress.shown(now_ms)
    }

    #[test]
    fn what_is_left_is_taken_for_like_what_was_sent() {
        let shown = at(7_000, 250, 10_000);
        assert_eq!((shown.keys, shown.keys_total), (250, 1_000));
        assert_eq!((shown.bytes, shown.bytes_total), (10_000, Some(40_000)));
        assert_eq!((shown.eta_ms, shown.limit), (Some(6_000), Some(7)));
    }

    #[test]
    fn before_the_first_key_nothing_is_foretold() {
        let shown = at(7_000, 0, 0);
        assert_eq!((shown.bytes_total, shown.eta_ms), (None, None));
    }

    #[test]
    fn more_keys_than_there_were_are_no_debt() {
        let shown = at(7_000, 1_200, 12_000);
        assert_eq!(
            (shown.keys_total, shown.bytes_total, shown.eta_ms),
            (1_200, Some(12_000), Some(0))
        );
    }

    #[test]
    fn once_all_is_copied_no_key_is_left() {
        let progress = Progress::new(9, SlotSet::empty(), 1_000, 5_000);
        (0..990).for_each(|_| progress.count_key());
        progress.sent(50, None);
        progress.copied();
        let shown = progress.shown(9_000);
        assert_eq!((shown.keys_total, shown.bytes_total, shown.eta_ms), (990, Some(50), Some(0)));
    }
}
