//! What it costs that a write is acknowledged by a majority: one shard each way, under the same load, in turns.

use std::net::SocketAddr;
use std::time::Duration;

use operator::bench::seeker::Seeker;
use serde_json::json;

use super::cluster::{self, Cluster, programs};
use super::load::{self, Load};
use super::table::{self, Spread};
use super::wire::{Dialect, Encoder, Workload};
use super::{Error, Options};

const KINDS: [&str; 2] = ["Async", "Quorum"];

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let programs = programs(options)?;
    let mut clusters = Vec::new();
    for durability in KINDS {
        let spec = json!({
            "shards": 1, "replicasPerShard": 2, "memory": "256Mi", "durability": durability,
            "auth": {"disabled": true}, "persistence": {},
        });
        clusters.push(Cluster::of_spec(&programs, &spec)?);
    }
    let mut primaries: Vec<SocketAddr> = Vec::new();
    for cluster in &clusters {
        let shards = Seeker::new(&cluster.running).await_whole()?;
        let primary = shards.first().map(|shard| shard.primary.parse());
        primaries.push(primary.and_then(Result::ok).ok_or_else(|| cluster::refused("no primary"))?);
    }
    println!(
        "One shard with two replicas, nothing on disk but the council's log; {} connections, 16-byte keys out of {}, \
         {}-byte values, {} rounds of {} s, closed loop, nothing pinned.\n",
        options.connections,
        options.keys(),
        options.value,
        options.rounds,
        options.seconds
    );
    let mut rows = Vec::new();
    for &workload in &options.workloads {
        for pipeline in options.pipelines(&[1, 16, 50]) {
            rows.extend(compare(options, &primaries, workload, pipeline)?);
        }
    }
    table::print(
        &["workload", "pipeline", "durability", "kops/s", "ops/s / Async", "p99 us"],
        &rows,
    );
    Ok(())
}

/// A row for each kind.
fn compare(
    options: &Options,
    primaries: &[SocketAddr],
    workload: Workload,
    pipeline: usize,
) -> Result<Vec<Vec<String>>, Error> {
    let mut kops: [Vec<f64>; 2] = Default::default();
    let mut p99: [Vec<f64>; 2] = Default::default();
    for round in 0..options.rounds {
        for step in 0..KINDS.len() {
            let at = (round + step) % KINDS.len();
            let encoder = Encoder::new(Dialect::Resp, workload, options.value, None, options.ratio);
            let load = Load::of(options, primaries[at], Dialect::Resp, encoder, pipeline, round);
            let outcome = load::run(&load, || Ok(Duration::ZERO))?;
            if let Some(error) = outcome.first_error {
                return Err(cluster::refused(&format!("{}: {error}", KINDS[at])));
            }
            kops[at].push(outcome.ops as f64 / outcome.elapsed.as_secs_f64() / 1e3);
            p99[at].push(outcome.latency.value_at_quantile(0.99) as f64 / 1e3);
        }
    }
    let row = |at: usize| {
        let ratio = kops[at].iter().zip(&kops[0]).map(|(own, base)| own / base);
        vec![
            workload.name().to_owned(),
            pipeline.to_string(),
            KINDS[at].to_owned(),
            table::show(Spread::of(kops[at].iter().copied()), 1),
            table::show(Spread::of(ratio), 2),
            table::show(Spread::of(p99[at].iter().copied()), 0),
        ]
    };
    Ok((0..KINDS.len()).map(row).collect())
}
