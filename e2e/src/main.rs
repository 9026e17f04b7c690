//! `cargo e2e`: boots clusters, builds images, runs the tests.

use clap::{Parser, Subcommand};
use e2e::failure::Result;
use e2e::{image, own};
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
            own::up()?;
            println!("KUBECONFIG={}", own::layout::kubeconfig().display());
        }
        Subcommands::Down => own::down()?,
        Subcommands::Image { output } => {
            image::product(&output)?;
            println!("{}: {} and {}", output.display(), image::OPERATOR, image::ENGINE);
        }
    }
    Ok(ExitCode::SUCCESS)
}
