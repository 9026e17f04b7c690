//! Steps of walks through a collection, counted in tests: that work does not grow with a collection is shown by them, and
//! not by time.

#[cfg(test)]
use std::cell::Cell;

#[cfg(test)]
thread_local! {
    static TAKEN: Cell<usize> = const { Cell::new(0) };
}

/// A node or an element was looked at.
#[inline]
pub(super) fn step() {
    #[cfg(test)]
    TAKEN.set(TAKEN.get() + 1);
}

/// How many steps some work takes.
#[cfg(test)]
pub(super) fn of<T>(work: impl FnOnce() -> T) -> usize {
    let before = TAKEN.get();
    work();
    TAKEN.get() - before
}
