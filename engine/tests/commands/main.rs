//! What a stock server cannot be compared with: our own settings, limits, eviction, the slow log, CLIENT, docs of commands.

mod clients;
mod docs;
mod eviction;
mod memory;
mod records;
mod settings;
#[path = "../support/mod.rs"]
mod support;
mod values;

use support::{Client, value::text};

/// A field of INFO as a number.
fn figure(client: &mut Client, name: &str) -> u64 {
    let info = text(&client.words("INFO everything"));
    let line = info.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {info}")).trim().parse().unwrap()
}
