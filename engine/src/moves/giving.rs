//! Which moves this member gives away: one attempt at a time, and none beside one that the council may still decide.
//!
//! A target that lost its connection, or its lease for a moment, begins anew: it empties the slots and takes them in again.
//! Were the `Moved` of the attempt before committed meanwhile, the target would own slots that it has just emptied. So it
//! asks before it empties them:
//!
//! ```text
//! LARDER.MOVE -> begin: the attempt before is over        or refused, since the council is asked already
//!                 -> the target empties the slots
//!                 -> snapshot, journal, sync ...           each step only while the attempt is the last one
//!                 -> put_to_council                        from here on nobody begins, until it is decided
//!                 -> end
//! ```

use std::sync::Mutex;

use super::lock;
use crate::topology::Epoch;

/// Why no attempt begins; the target tries again.
const DECIDING: &str = "ERR the council is deciding about this move";

/// Number of an attempt, which no other attempt of this process has.
pub type Attempt = u64;

#[derive(Clone, Copy, Debug)]
struct Given {
    id: Epoch,
    attempt: Attempt,
    /// The council is asked, or was: what it says is not known yet.
    is_deciding: bool,
}

/// The moves that are given away, each by its last attempt.
#[derive(Debug, Default)]
pub struct Giving(Mutex<(Attempt, Vec<Given>)>);

impl Giving {
    /// Begins an attempt; an earlier one is over by it.
    ///
    /// # Errors
    /// While the council may decide about an earlier one.
    pub fn begin(&self, id: Epoch) -> Result<Attempt, &'static str> {
        let mut all = lock(&self.0);
        if all.1.iter().any(|g| g.id == id && g.is_deciding) {
            return Err(DECIDING);
        }
        all.0 += 1;
        let attempt = all.0;
        all.1.retain(|g| g.id != id);
        all.1.push(Given { id, attempt, is_deciding: false });
        Ok(attempt)
    }

    /// It has neither ended nor been followed by another one.
    pub fn is_last(&self, attempt: Attempt) -> bool {
        lock(&self.0).1.iter().any(|g| g.attempt == attempt)
    }

    /// From here on no other attempt begins; `false` when one has already.
    pub fn put_to_council(&self, attempt: Attempt) -> bool {
        let mut all = lock(&self.0);
        let given = all.1.iter_mut().find(|g| g.attempt == attempt);
        given.map(|g| g.is_deciding = true).is_some()
    }

    pub fn end(&self, attempt: Attempt) {
        lock(&self.0).1.retain(|g| g.attempt != attempt);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attempt_is_over_when_the_next_begins_unless_the_council_is_asked() {
        let giving = Giving::default();
        let first = giving.begin(7).unwrap();
        let other = giving.begin(8).unwrap();
        let second = giving.begin(7).unwrap();
        assert!(!giving.is_last(first) && giving.is_last(second) && giving.is_last(other));
        assert!(!giving.put_to_council(first), "nobody waits for what it would bring about");
        assert!(giving.put_to_council(second));
        assert_eq!(giving.begin(7), Err(DECIDING));
        assert!(giving.begin(8).is_ok());
        giving.end(first);
        assert_eq!(giving.begin(7), Err(DECIDING), "the end of another one changes nothing");
        giving.end(second);
        assert!(giving.begin(7).is_ok_and(|third| third > second));
    }
}
