//! Compares the engine with the peers found on this machine, in one interleaved run.

use clap::Parser as _;
use e2e::bench::{Options, run};

fn main() -> std::process::ExitCode {
    match run(&Options::parse()) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-peers: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
