//! Inputs that nobody would write, made of right ones by a seeded mutator: parts of the engine by themselves
//! (`targets`), and a server as its clients meet it (`served`).
//!
//! What an input led to is reduced to a number, its shape (which error, how many requests, ...). An input with a
//! shape that was not seen yet joins those that others are made of, so that the search goes on from where it got
//! somewhere. A failure shows the input; put it into `found/` as a line of its target's file, and it is tried for ever.
//!
//! `cargo e2e fuzz` searches the same targets by coverage, with libFuzzer (`engine/fuzz`), and leaves in `corpus/` what
//! got somewhere, and in `found/` what failed: both are tried here first.
//!
//! ```text
//! cargo test -p engine --test fuzz                                    # so many inputs, the same ones each time
//! LARDER_FUZZ_SECONDS=600 LARDER_SEED=7 cargo test --release -p engine --test fuzz
//! cargo e2e fuzz all --seconds 600
//! ```

#[path = "../support/mod.rs"]
mod support;

mod corpus;
mod mutate;
mod served;
mod targets;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use mutate::Mutator;
use support::dice;
use targets::Target;

/// Inputs that are kept for their shapes at most.
const POOL_MAX: usize = 2000;
/// Longest input, bytes.
const INPUT_BYTES_MAX: usize = 8192;
/// A script's nested calls lie on the stack of who runs it.
const STACK_BYTES: usize = 64 << 20;

/// What a search begins with.
struct Search {
    name: &'static str,
    /// Tried as they are, before others are made of them.
    corpus: Vec<Vec<u8>>,
    words: &'static [&'static [u8]],
    /// Inputs without `LARDER_FUZZ_SECONDS`, beside the corpus.
    runs: u64,
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}: {text}")))
}

#[expect(clippy::disallowed_methods, reason = "a search in real time, where one is asked for")]
fn now() -> Instant {
    Instant::now()
}

/// Feeds what is searched until its runs, or the time that is given, are over.
fn fuzz(search: &Search, mut feed: impl FnMut(&[u8]) -> u64) {
    let limit = setting("LARDER_FUZZ_SECONDS").map(Duration::from_secs);
    let mut mutator = Mutator::new(setting("LARDER_SEED").unwrap_or(1), search.words);
    let begin = now();
    let mut pool = search.corpus.clone();
    let mut seen = HashSet::new();
    let (mut run, runs) = (0, search.corpus.len() as u64 + search.runs);
    while limit.map_or(run < runs, |limit| begin.elapsed() < limit) {
        // The corpus as it is comes first.
        let input = match search.corpus.get(run as usize) {
            Some(input) => input.clone(),
            None => mutator.mutate(&pool, INPUT_BYTES_MAX),
        };
        let fed = catch_unwind(AssertUnwindSafe(|| feed(&input)));
        let Ok(found) = fed else {
            panic!("{}: input {run} failed: b\"{}\"", search.name, input.escape_ascii());
        };
        if seen.insert(found) && pool.len() < POOL_MAX {
            pool.push(input);
        }
        run += 1;
    }
    println!("{}: {run} inputs, {} shapes", search.name, seen.len());
}

/// Searches a target of the table: what was found before, then so many inputs more.
fn search(name: &str) {
    let target: &Target = targets::find(name).unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let file = |kind: &str| corpus::read(&folder.join(kind).join(name)).unwrap();
    let corpus = [(target.seeds)(), file("found"), file("corpus")].concat();
    let search = Search { name: target.name, corpus, words: target.words, runs: target.runs };
    let thread = std::thread::Builder::new().stack_size(STACK_BYTES);
    let done = thread.spawn(move || fuzz(&search, target.feed)).unwrap().join();
    assert!(done.is_ok(), "{name}: see above");
}

macro_rules! tests {
    ($($name:literal $test:ident)*) => {
        $(
            #[test]
            fn $test() {
                search($name);
            }
        )*

        #[test]
        fn every_target_has_a_test() {
            let tested = [$($name),*];
            let all: Vec<&str> = targets::all().map(|target| target.name).collect();
            assert_eq!(all, tested);
        }
    };
}

tests! {
    "resp" requests_are_the_same_in_whatever_pieces_they_come
    "replies" replies_end_where_they_end_in_whatever_pieces_they_come
    "glob" patterns_mean_what_they_say_and_end
    "config" settings_are_taken_or_refused_with_a_reason
    "acl" rules_of_users_read_back_as_they_are_written
    "memcached-lines" lines_of_memcached_are_requests_or_refused
    "restore" payloads_of_restore_are_refused_or_read_back_the_same
    "rdb" files_of_snapshots_are_refused_or_loaded
    "aof" files_of_logs_are_refused_or_loaded
    "requests" whatever_requests_do_replies_are_whole_and_replicas_have_the_same_data
    "memcached-text" lines_and_data_of_memcached_come_to_an_end
    "memcached-binary" packets_of_memcached_come_to_an_end
    "lua" scripts_end_with_a_reply
    "functions" libraries_are_taken_or_refused
    "cjson" json_that_a_script_reads_it_can_write
    "cmsgpack" messagepack_that_a_script_reads_it_can_write
    "struct" structs_that_a_script_reads_end
    "lua-patterns" patterns_of_scripts_end
    "bus" frames_of_the_bus_are_refused_or_the_same_when_sent_on
    "council" the_council_outlives_what_a_member_says
}
