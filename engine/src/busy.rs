//! What a thread does for its clients while it cannot go on: it runs a long script, or waits for a lock of one.
//!
//! ```text
//! loop -> request -> script runs ----- its hook, each few milliseconds --\
//! loop -> request -> waits for a lock -- each so many turns ------------- +-> take_turn -> the loop answers
//! ```
//!
//! Both places are deep inside a request, where the loop is out of reach. So the loop leaves word here before it runs
//! one. In its turn it answers others with BUSY, and takes SCRIPT KILL and SHUTDOWN NOSAVE; nothing in it needs a lock
//! of a slot, so that it waits for nobody.

use std::cell::Cell;
use std::ptr::NonNull;

/// Who has clients to look after.
pub trait LooksAfter {
    /// Looks after them for a moment; `false` when there is no need to.
    fn busy_turn(&mut self) -> bool;
}

/// Whom to call, and how.
type Word = (NonNull<()>, fn(NonNull<()>) -> bool);

thread_local! {
    static WORD: Cell<Option<Word>> = const { Cell::new(None) };
    static IN_TURN: Cell<bool> = const { Cell::new(false) };
}

/// Ends a turn, also behind a fault.
struct EndTurn;

impl Drop for EndTurn {
    fn drop(&mut self) {
        IN_TURN.set(false);
    }
}

/// This thread is in such a turn: what it stands still for may hold any lock, and nothing here may wait for one.
pub fn is_in_turn() -> bool {
    IN_TURN.get()
}

/// Puts back what was there before, also behind a fault.
struct Restore(Option<Word>);

impl Drop for Restore {
    #[inline]
    fn drop(&mut self) {
        WORD.set(self.0.take());
    }
}

fn call<T: LooksAfter>(who: NonNull<()>) -> bool {
    // SAFETY: `who` was made of a `&mut T` by `with`, which holds it, unused, until it has taken the word back. And
    // `take_turn` has taken the word out for this call: there is no second borrow meanwhile.
    #[expect(unsafe_code, reason = "the loop is borrowed across the request that it runs")]
    unsafe { who.cast::<T>().as_mut() }.busy_turn()
}

/// Runs `f`, during which `who` may be given a turn.
#[inline]
pub fn with<T: LooksAfter, R>(who: &mut T, f: impl FnOnce() -> R) -> R {
    let word = (NonNull::from(&mut *who).cast(), call::<T> as fn(NonNull<()>) -> bool);
    let _restore = Restore(WORD.replace(Some(word)));
    f()
}

/// Gives this thread's loop a turn; `false` when there is none, or no need for one.
pub fn take_turn() -> bool {
    if is_in_turn() {
        return false;
    }
    let Some(word) = WORD.take() else { return false };
    let _restore = Restore(Some(word));
    IN_TURN.set(true);
    let _end = EndTurn;
    word.1(word.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Clients(u32);

    impl LooksAfter for Clients {
        fn busy_turn(&mut self) -> bool {
            self.0 += 1;
            assert!(!take_turn(), "no turn within a turn");
            true
        }
    }

    #[test]
    fn a_loop_has_its_turns_while_it_runs_a_request_and_not_otherwise() {
        let mut clients = Clients(0);
        assert!(!take_turn());
        with(&mut clients, || assert!(take_turn() && take_turn()));
        assert!(!take_turn());
        assert_eq!(clients.0, 2);
    }

    #[test]
    fn a_fault_takes_the_word_back() {
        let fault = std::panic::catch_unwind(|| with(&mut Clients(0), || panic!("a fault")));
        assert!(fault.is_err());
        assert!(!take_turn());
    }
}
