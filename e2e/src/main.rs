//! `cargo e2e`: boots clusters, builds images, runs the tests.

use clap::{Parser, Subcommand};
use e2e::failure::Result;
use e2e::parts::{self, Options, PARTS};
use e2e::{clients, deb, fuzz, image, local, provider, tests};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "cargo e2e",
    version,
    about = "Boots a real Kubernetes on this machine and tests Larder on it"
)]
struct Arguments {
    #[command(subcommand)]
    command: Subcommands,
}

#[derive(Subcommand)]
enum Subcommands {
    /// Boot the cluster and print its KUBECONFIG
    Up,
    /// Take the cluster down, with all that belongs to it
    Down,
    /// Build the operator and engine images as one archive
    Image {
        /// Where to write it
        #[arg(short, long, default_value = "target/larder-images.tar")]
        output: PathBuf,
    },
    /// Build a Debian package of both programs
    Deb {
        /// Where to write it
        #[arg(short, long, default_value = "target/larder.deb")]
        output: PathBuf,
    },
    /// Run all parts of the tests, or those named; a single test is a name too
    Test {
        names: Vec<String>,
        /// Use the cluster that is up, and leave it up
        #[arg(long)]
        keep: bool,
        /// Take Larder as it is installed there
        #[arg(long)]
        installed: bool,
        /// Run each test so often, and print how its figures are spread
        #[arg(long, default_value_t = 1)]
        times: usize,
    },
    /// List parts and tests
    List,
    /// Search the engine's fuzz targets by coverage, with libFuzzer; what fails and what is new is left for the tests
    Fuzz {
        /// Names of targets; none, or all: each in turn
        targets: Vec<String>,
        /// For each target
        #[arg(long, default_value = "60")]
        seconds: u64,
    },
    /// Write keys with the cluster client, for a test
    #[command(hide = true)]
    Fill { address: String, prefix: String, count: usize },
    /// Write to one member, read from it and print what it says, for a test
    #[command(hide = true)]
    Captive { address: String, key: String },
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Subcommands) -> Result<ExitCode> {
    match command {
        Subcommands::Up => {
            let provider = provider::choose()?;
            let _alone = provider.lock()?;
            provider.up()?;
            println!("KUBECONFIG={}", provider.kubeconfig().display());
        }
        Subcommands::Down => {
            let provider = provider::choose()?;
            let _alone = provider.lock()?;
            provider.down()?;
        }
        Subcommands::Image { output } => {
            image::product(&output)?;
            println!("{}: {} and {}", output.display(), image::OPERATOR, image::ENGINE);
        }
        Subcommands::Deb { output } => {
            deb::write(&image::programs()?, &output, "xz")?;
            println!("{}", output.display());
        }
        Subcommands::Test { names, keep, installed, times } => {
            return parts::test(&Options { names, keep, installed, times });
        }
        Subcommands::List => list(),
        Subcommands::Fuzz { targets, seconds } => fuzz::fuzz(&targets, seconds)?,
        Subcommands::Fill { address, prefix, count } => {
            tests::form::fill(&address, &prefix, count)?
        }
        Subcommands::Captive { address, key } => {
            parts::runtime()?.block_on(tests::captive::captive(&address, &key))?
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list() {
    for part in PARTS {
        println!("{:10} {}", part.name, part.about);
        match part.name {
            "local" => local::TESTS.iter().for_each(|test| println!("  {}", test.name)),
            "clients" => clients::CLIENTS.iter().for_each(|c| println!("  {}", c.name)),
            "kube" => tests::TESTS.iter().for_each(|test| println!("  {}", test.name)),
            _ => {}
        }
    }
}
