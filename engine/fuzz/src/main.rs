//! The targets of `engine/tests/fuzz` under libFuzzer, which follows the compiler's counters of what was reached.
//! `cargo e2e fuzz` builds and runs it; by hand:
//!
//! ```text
//! LARDER_FUZZ_TARGET=list larder-fuzz                      # names of the targets
//! LARDER_FUZZ_TARGET=resp larder-fuzz -help=1              # libFuzzer's own settings
//! LARDER_FUZZ_SEEDS=DIR LARDER_FUZZ_TARGET=resp larder-fuzz DIR
//! ```

#![no_main]
#![allow(dead_code, reason = "what the tests use of the files that they share")]

#[path = "../../tests/support/dice.rs"]
mod dice;
#[path = "../../tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../tests/fuzz/targets/mod.rs"]
mod targets;

use std::path::Path;
use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};

use mutate::Mutator;
use targets::Target;

/// The target of this process, and its seeds.
fn chosen() -> &'static (&'static Target, Vec<Vec<u8>>) {
    static CHOSEN: OnceLock<(&'static Target, Vec<Vec<u8>>)> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var("LARDER_FUZZ_TARGET").unwrap_or_default();
        if name == "list" {
            targets::all().for_each(|target| println!("{}", target.name));
            std::process::exit(0);
        }
        let target = targets::find(&name).unwrap_or_else(|why| {
            eprintln!("LARDER_FUZZ_TARGET={why}");
            std::process::exit(2);
        });
        (target, (target.seeds)())
    })
}

/// Leaves the seeds where libFuzzer will look for inputs.
fn lay_out_seeds() {
    let (_, seeds) = chosen();
    let Some(folder) = std::env::var_os("LARDER_FUZZ_SEEDS") else { return };
    for (number, seed) in seeds.iter().enumerate() {
        let path = Path::new(&folder).join(format!("seed-{number}"));
        if let Err(error) = std::fs::write(&path, seed) {
            eprintln!("{}: {error}", path.display());
            std::process::exit(2);
        }
    }
}

/// One change in four is the tests' own, which know the words of the input's language.
fn change(data: &mut [u8], size: usize, size_max: usize, seed: u32) -> usize {
    let (target, seeds) = chosen();
    if seed % 4 != 0 {
        return fuzzer_mutate(data, size, size_max);
    }
    let mut input = data[..size].to_vec();
    Mutator::new(u64::from(seed), target.words).change(&mut input, seeds, size_max);
    data[..input.len()].copy_from_slice(&input);
    input.len()
}

fuzz_target!(init: lay_out_seeds(), |data: &[u8]| {
    (chosen().0.feed)(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    change(data, size, max_size, seed)
});
