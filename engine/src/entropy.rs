//! Random numbers for choices that nobody must be able to aim at, and that need no secrecy.

use std::cell::Cell;
use std::hash::{BuildHasher, Hasher, RandomState};

thread_local! {
    static STATE: Cell<u64> = Cell::new(seed());
}

/// A number from the system's source of randomness.
pub fn seed() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The next random number of this thread.
pub fn next() -> u64 {
    STATE.with(|state| {
        // SplitMix64.
        let mut x = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(x);
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    })
}

/// A number below `bound`; 0 when there is none.
pub fn below(bound: u64) -> u64 {
    ((u128::from(next()) * u128::from(bound)) >> 64) as u64
}

/// Hex digits of random bytes, 16 a word.
pub fn hex(digits: usize) -> String {
    let mut text = String::with_capacity(digits + 16);
    while text.len() < digits {
        text.push_str(&format!("{:016x}", next() ^ seed()));
    }
    text.truncate(digits);
    text
}
