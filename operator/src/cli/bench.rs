//! `larder bench`: what a fault costs the clients of a manifest's cluster, measured on this machine.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use crds::Durability;

use super::manifest::Manifest;
use crate::Error;
use crate::bench::cluster::Cluster;
use crate::bench::failover::{self, Fault, Outcome, Trial};
use crate::bench::{self, Interrupt};
use crate::desired::Desired;

/// Arguments of `larder bench`.
#[derive(Debug, clap::Args)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Make a fault of primaries again and again: how long no write is accepted, and whether one is lost.
    ///
    /// Runs the manifest's cluster as local processes in a temporary folder. One primary after the other gets the fault
    /// when all replicas can take over, while a client that follows redirections writes one key after the other to a slot of that
    /// shard; a write that fails is tried again after a millisecond. The gap of a fault is the longest time without an
    /// accepted write. In the end every accepted write of that client is looked for: fails if one is lost.
    ///
    /// p50 and p99 are gaps that were measured, the nearest ranks: of fewer than 100 faults p99 is the longest.
    Failover(FailoverArgs),
}

#[derive(Debug, clap::Args)]
struct FailoverArgs {
    /// File with the manifest of the CacheCluster.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    file: PathBuf,
    /// What happens to a primary.
    #[arg(long, value_enum, default_value_t = Fault::Kill)]
    fault: Fault,
    /// How often.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    times: u32,
    /// Other clients that write to all shards all the time.
    #[arg(long, default_value_t = 0, value_name = "CLIENTS", value_parser = clap::value_parser!(u16).range(..=1000))]
    load: u16,
}

pub(super) fn bench(args: &BenchArgs) -> ExitCode {
    let What::Failover(args) = &args.what;
    match failover(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("larder bench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn failover(args: &FailoverArgs) -> Result<(), Box<dyn std::error::Error>> {
    let Manifest { cluster: wished, desired } = super::manifest::read(&args.file)?;
    check(&args.file, &desired)?;
    let (times, load) = (usize::try_from(args.times)?, usize::from(args.load));
    let trial = Trial { fault: args.fault, times, load };
    let interrupt = on_ctrl_c()?;
    eprintln!("starting {} as local processes in a temporary folder", desired.name);
    let cluster = Cluster::start(own_run()?, &args.file, interrupt)?;
    let outcome = failover::run(&cluster, &trial, |line| eprintln!("{line}"))?;
    print!("{}", outcome.table(&trial));
    Ok(nothing_lost(&outcome, wished.spec.durability)?)
}

fn nothing_lost(outcome: &Outcome, durability: Durability) -> Result<(), String> {
    let Some(first) = outcome.lost.first() else { return Ok(()) };
    let (lost, writes) = (outcome.lost.len(), outcome.writes);
    let promise = match durability {
        Durability::Async => {
            "a primary takes with it what no replica has yet; with spec.durability: Quorum it would be kept"
        }
        Durability::Quorum => "spec.durability: Quorum promises that none is",
    };
    Err(format!(
        "{lost} of {writes} accepted writes lost, the key of the first one is {first}: {promise}"
    ))
}

/// What the bench cannot do is refused before anything is started.
fn check(file: &Path, desired: &Desired) -> Result<(), Error> {
    let refuse = |field: &str, message: &str| {
        let field = format!("{}: {field}", file.display());
        Err(Error::Invalid { field, message: message.into() })
    };
    if desired.replicas == 0 {
        return refuse(
            "spec.replicasPerShard",
            "must be at least 1 for this bench, and is 0: nobody takes over from a primary without replicas",
        );
    }
    if desired.serves_tls() {
        return refuse(
            "spec.tls",
            "must be left out for this bench, whose client speaks without TLS",
        );
    }
    if desired.paused {
        return refuse(
            "spec.pause",
            "must be false for this bench: nothing is started while it is true",
        );
    }
    Ok(())
}

/// `larder run` of this very program, which ends when the bench does, however that ends.
fn own_run() -> Result<Command, bench::Error> {
    let program = std::env::current_exe().map_err(bench::Error::io("find this program"))?;
    let mut run = Command::new(program);
    run.args(["run", "--with-parent", &std::process::id().to_string()]);
    Ok(run)
}

/// Set by Ctrl-C or SIGTERM, so that the cluster is stopped and its folder removed; the second one waits for nothing.
fn on_ctrl_c() -> Result<Interrupt, Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Error::world("start", e))?;
    let mut stop = {
        let _within = runtime.enter();
        super::Stop::new()?
    };
    let interrupt = Interrupt::default();
    let wish = interrupt.clone();
    std::thread::spawn(move || {
        runtime.block_on(async {
            stop.asked().await;
            eprintln!("stopping the cluster; Ctrl-C again kills it");
            wish.set();
            stop.asked().await;
            std::process::exit(1);
        });
    });
    Ok(interrupt)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn refusal(spec: &str) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("demo.yaml");
        let head = "apiVersion: larder.dev/v1alpha1\nkind: CacheCluster\nmetadata: {name: demo}\n";
        std::fs::write(&file, format!("{head}spec: {spec}\n")).unwrap();
        let desired = super::super::manifest::read(&file).unwrap().desired;
        check(&file, &desired).err().map(|error| error.to_string())
    }

    #[test]
    fn a_cluster_that_the_bench_cannot_measure_is_refused() {
        assert_eq!(refusal("{shards: 3}"), None);
        for (spec, field, why) in [
            ("{shards: 3, replicasPerShard: 0}", "spec.replicasPerShard", "at least 1"),
            ("{shards: 3, tls: {}}", "spec.tls", "without TLS"),
            ("{shards: 3, pause: true}", "spec.pause", "must be false"),
        ] {
            let said = refusal(spec).unwrap();
            assert!(said.contains(field) && said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_lost_write_is_a_failure() {
        let mut outcome = Outcome { writes: 4, ..Outcome::default() };
        assert_eq!(nothing_lost(&outcome, Durability::Async), Ok(()));
        outcome.lost = vec!["{gap7}:2".into()];
        for (durability, promise) in
            [(Durability::Async, "would be kept"), (Durability::Quorum, "promises that none is")]
        {
            let said = nothing_lost(&outcome, durability).unwrap_err();
            assert!(
                said.starts_with(
                    "1 of 4 accepted writes lost, the key of the first one is {gap7}:2"
                )
            );
            assert!(said.ends_with(promise), "{said}");
        }
    }

    #[test]
    fn the_command_line_says_what_is_done_and_how_often() {
        let parse = |words: &str| {
            let words = words.split_whitespace();
            super::super::Cli::try_parse_from(
                ["larder", "bench", "failover"].into_iter().chain(words),
            )
        };
        let cli = parse("-f x.yaml").unwrap();
        let super::super::Command::Bench(BenchArgs { what: What::Failover(args) }) = cli.command
        else {
            panic!("another command")
        };
        assert_eq!((args.fault, args.times, args.load), (Fault::Kill, 50, 0));
        for fault in ["kill", "term", "stop", "handover"] {
            assert!(parse(&format!("-f x --fault {fault} --times 2 --load 6")).is_ok(), "{fault}");
        }
        for (words, what) in [
            ("", "--file"),
            ("-f x --times 0", "0 is not in"),
            ("-f x --fault cut", "[possible values: kill, term, stop, handover]"),
        ] {
            let said = parse(words).unwrap_err().to_string();
            assert!(said.contains(what), "{words}: {said}");
        }
    }
}
