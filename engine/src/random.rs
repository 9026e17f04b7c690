//! Random numbers for choices that need no secrecy: which member to pop, which key to sample.

use std::cell::Cell;
use std::hash::BuildHasher;

thread_local! {
    static STATE: Cell<u64> = Cell::new(foldhash::quality::RandomState::default().hash_one(0u64));
}

/// The next number of this thread (SplitMix64, seeded per thread from the process's entropy).
pub fn next() -> u64 {
    STATE.with(|state| {
        let seed = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(seed);
        let mut x = seed;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    })
}

/// A number below `bound`; 0 when there is none.
pub fn below(bound: u64) -> u64 {
    ((u128::from(next()) * u128::from(bound)) >> 64) as u64
}

/// A number from the system's own randomness.
pub fn seed() -> u64 {
    use std::hash::Hasher;
    std::hash::RandomState::new().build_hasher().finish()
}

/// Hex digits that nobody can guess, for passwords; `None`: the system has no randomness to give.
pub fn secret_hex(digits: usize) -> Option<String> {
    let mut bytes = vec![0; digits.div_ceil(2)];
    rustls::crypto::aws_lc_rs::default_provider().secure_random.fill(&mut bytes).ok()?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    Some(text)
}

/// Random hex digits, for identities.
pub fn hex(digits: usize) -> String {
    let mut text = String::with_capacity(digits + 16);
    while text.len() < digits {
        text.push_str(&format!("{:016x}", seed() ^ next()));
    }
    text.truncate(digits);
    text
}
