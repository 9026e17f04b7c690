//! Sessions that clients may take up again: so many, for so long.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustls::server::StoresServerSessions;

use crate::clock;

/// What rustls keeps of a session, by its key, in the order in which they were kept.
pub(super) struct Sessions {
    max: usize,
    lives_ms: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    by_key: HashMap<Vec<u8>, (u64, Vec<u8>)>,
    /// Keys and when they were kept; those that are gone by now stand here until their turn comes.
    order: VecDeque<(u64, Vec<u8>)>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Their secrets are nobody's business.
        f.debug_struct("Sessions").field("max", &self.max).finish_non_exhaustive()
    }
}

impl Sessions {
    /// `max`: how many at most; 0: as many as OpenSSL keeps without a limit of its own.
    pub(super) fn new(max: usize, lives_s: u64) -> Sessions {
        let max = if max == 0 { 20 * 1024 } else { max };
        Sessions { max, lives_ms: lives_s.saturating_mul(1000), kept: Mutex::default() }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_alive(&self, kept_ms: u64, now_ms: u64) -> bool {
        now_ms.saturating_sub(kept_ms) < self.lives_ms
    }

    fn put_at(&self, key: Vec<u8>, value: Vec<u8>, now_ms: u64) -> bool {
        let mut kept = self.kept();
        while let Some((at, _)) = kept.order.front()
            && (kept.order.len() >= self.max || !self.is_alive(*at, now_ms))
        {
            let Some((at, key)) = kept.order.pop_front() else { break };
            if kept.by_key.get(&key).is_some_and(|(kept_ms, _)| *kept_ms == at) {
                kept.by_key.remove(&key);
            }
        }
        kept.order.push_back((now_ms, key.clone()));
        kept.by_key.insert(key, (now_ms, value));
        true
    }

    fn get_at(&self, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        let kept = self.kept();
        let (at, value) = kept.by_key.get(key)?;
        self.is_alive(*at, now_ms).then(|| value.clone())
    }

    fn take_at(&self, key: &[u8], now_ms: u64) -> Option<Vec<u8>> {
        let (at, value) = self.kept().by_key.remove(key)?;
        self.is_alive(at, now_ms).then_some(value)
    }
}

impl StoresServerSessions for Sessions {
    fn put(&self, key: Vec<u8>, value: Vec<u8>) -> bool {
        self.put_at(key, value, clock::monotonic_ms())
    }

    fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.get_at(key, clock::monotonic_ms())
    }

    fn take(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.take_at(key, clock::monotonic_ms())
    }

    fn can_cache(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_kept_for_its_time_and_the_oldest_makes_room() {
        let sessions = Sessions::new(2, 10);
        let put = |key: &str, at| sessions.put_at(key.into(), key.into(), at);
        put("a", 0);
        put("b", 5_000);
        assert_eq!(sessions.get_at(b"a", 9_999), Some(b"a".to_vec()));
        assert_eq!(sessions.get_at(b"a", 10_000), None);
        put("c", 6_000);
        assert_eq!(sessions.get_at(b"a", 6_000), None);
        assert_eq!(sessions.take_at(b"b", 6_000), Some(b"b".to_vec()));
        assert_eq!(sessions.take_at(b"b", 6_000), None);
        put("b", 7_000);
        put("d", 8_000);
        assert_eq!(sessions.get_at(b"d", 8_000), Some(b"d".to_vec()));
        assert!(sessions.kept().order.len() <= 2 && sessions.kept().by_key.len() <= 2);
    }
}
