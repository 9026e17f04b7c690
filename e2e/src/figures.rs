//! Figures of tests that are run again and again (`--times`): what each told, by its name, and how they are spread.

use operator::bench::quantiles::Quantiles;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Milliseconds by test and figure, of the whole run: tests run one after the other.
static TOLD: Mutex<Told> = Mutex::new(Told { test: "", figures: BTreeMap::new() });

#[derive(Default)]
struct Told {
    /// Which test runs now.
    test: &'static str,
    figures: BTreeMap<(&'static str, String), Vec<f64>>,
}

/// What is told from here on is told by this test.
pub(crate) fn begin(test: &'static str) {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).test = test;
}

/// Prints a figure, and keeps it.
pub(crate) fn tell(what: &str, took: Duration) {
    println!("      {what}: {} ms", took.as_millis());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (told.test, what.to_owned());
    told.figures.entry(key).or_default().push(took.as_secs_f64() * 1000.0);
}

/// A Markdown table of all that was told more than once, milliseconds; empty when there is none.
pub(crate) fn table() -> String {
    let told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    let mut table = String::new();
    for ((test, what), figures) in told.figures.iter().filter(|(_, f)| f.len() > 1) {
        if table.is_empty() {
            table += "| test | ms | count | p50 | p99 | max |\n|---|---|--:|--:|--:|--:|\n";
        }
        let spread = Quantiles::of(figures.iter().copied());
        let at = |percent| spread.at(percent).unwrap_or_default();
        let (count, p50, p99, max) = (figures.len(), at(50), at(99), at(100));
        writeln!(table, "| {test} | {what} | {count} | {p50:.0} | {p99:.0} | {max:.0} |").ok();
    }
    table
}
