//! What is fed with inputs that nobody would write, one row each: tests that only mutate and the search that follows
//! coverage call the same functions.
//!
//! A target panics where the engine does what it must not; what it gives is the shape of what the input led to.

mod alone;
mod clients;
mod lua;
mod members;
mod snapshots;
mod words;

use std::hash::{DefaultHasher, Hash, Hasher};

/// One way into the engine.
pub(crate) struct Target {
    pub(crate) name: &'static str,
    /// Right inputs, and those that once failed.
    pub(crate) seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the input's language.
    pub(crate) words: &'static [&'static [u8]],
    /// Inputs in a test that is given no time.
    pub(crate) runs: u64,
    pub(crate) feed: fn(&[u8]) -> u64,
}

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Target> {
    [words::TARGETS, snapshots::TARGETS, clients::TARGETS, lua::TARGETS, members::TARGETS]
        .into_iter()
        .flatten()
}

/// The target of that name; a name that there is not is answered with those that there are.
pub(crate) fn find(name: &str) -> Result<&'static Target, String> {
    all().find(|target| target.name == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(|target| target.name).collect();
        format!("{name}: no target of the fuzzer; there are {}", names.join(", "))
    })
}

pub(crate) fn shape(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

/// The kinds of replies: first words of errors, first bytes of the rest.
pub(crate) fn kinds(reply: &[u8]) -> u64 {
    let lines = reply.split(|b| *b == b'\n').take(16);
    let words = lines.map(|line| match line.first() {
        Some(b'-') => line.iter().take(24).copied().take_while(|b| !b.is_ascii_digit()).collect(),
        Some(byte) => vec![*byte],
        None => Vec::new(),
    });
    shape(words.collect::<Vec<Vec<u8>>>())
}

fn owned(inputs: &[&[u8]]) -> Vec<Vec<u8>> {
    inputs.iter().map(|input| input.to_vec()).collect()
}
