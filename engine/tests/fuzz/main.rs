//! Inputs that nobody would write, made of right ones by a seeded mutator: parsers by themselves, and a server as
//! its clients meet it.
//!
//! What an input led to is reduced to a number, its shape (which error, how many requests, ...). An input with a
//! shape that was not seen yet joins those that others are made of, so that the search goes on from where it got
//! somewhere. A failure shows the input; put it into its target's corpus, and it is tried for ever.
//!
//! ```text
//! cargo test -p engine --test fuzz                                    # so many inputs, the same ones each time
//! LARDER_FUZZ_SECONDS=600 LARDER_SEED=7 cargo test --release -p engine --test fuzz
//! ```

#[path = "../support/mod.rs"]
mod support;

mod mutate;
mod parsers;
mod served;

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use mutate::Mutator;

/// Inputs that are kept for their shapes at most.
const POOL_MAX: usize = 2000;
/// Longest input, bytes.
const INPUT_BYTES_MAX: usize = 8192;

/// What is fed, and what it is made of.
struct Target {
    name: &'static str,
    /// Right inputs, and those that once failed.
    corpus: Vec<Vec<u8>>,
    /// Words of the input's language.
    words: &'static [&'static [u8]],
    /// Inputs without `LARDER_FUZZ_SECONDS`.
    runs: u64,
}

fn shape(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

#[expect(clippy::disallowed_methods, reason = "a search in real time, where one is asked for")]
fn now() -> Instant {
    Instant::now()
}

/// Feeds the target until its runs, or the time that is given, are over.
fn fuzz(target: &Target, mut feed: impl FnMut(&[u8]) -> u64) {
    let limit = setting("LARDER_FUZZ_SECONDS").map(Duration::from_secs);
    let mut mutator = Mutator::new(setting("LARDER_SEED").unwrap_or(1), target.words);
    let begin = now();
    let mut pool = target.corpus.clone();
    let mut seen = HashSet::new();
    let mut run = 0;
    while limit.map_or(run < target.runs, |limit| begin.elapsed() < limit) {
        // The corpus as it is comes first.
        let input = match target.corpus.get(run as usize) {
            Some(input) => input.clone(),
            None => mutator.mutate(&pool, INPUT_BYTES_MAX),
        };
        let fed = catch_unwind(AssertUnwindSafe(|| feed(&input)));
        let Ok(found) = fed else {
            panic!("{}: input {run} failed: b\"{}\"", target.name, input.escape_ascii());
        };
        if seen.insert(found) && pool.len() < POOL_MAX {
            pool.push(input);
        }
        run += 1;
    }
    println!("{}: {run} inputs, {} shapes", target.name, seen.len());
}
