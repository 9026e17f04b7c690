//! Throughput, server CPU per operation and latency of every peer, round by round.

use super::fill::fill;
use super::latency::slowest_of;
use super::load::{self, Load};
use super::machine::last_level_cache;
use super::peers::{self, Peer};
use super::points::filler;
use super::server::{Server, pin_self};
use super::table::{self, Spread};
use super::wire::{Dialect, Encoder, Workload};
use super::{Error, Options, floor};

/// Of each key.
const KEY_BYTES: u64 = 16;

/// One visit to one peer.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    pub(super) kops: f64,
    pub(super) cpu_us: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    /// p99 of how late the client was in an open loop.
    pub(super) late_us: f64,
    /// Median latency of the slowest connection, in those of the median connection; not a number where it was not asked for.
    pub(super) slowest: f64,
    rss_mib: f64,
}

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, missing) = peers::find(options)?;
    let pins = options.pins() && pin_self(1);
    let how = match options.rate {
        Some(rate) => format!("open loop at {rate} requests a second"),
        None => "closed loop".into(),
    };
    print_settings(options, &peers, &missing, pins, &how);
    let core = pins.then_some(0);
    for &workload in &options.workloads {
        let keys = keys_of(options, workload)?;
        for pipeline in options.pipelines(&[1, 16, 50]) {
            let runners: Vec<&Peer> =
                peers.iter().filter(|peer| workload.runs_on(peer.dialect)).collect();
            let mut servers = Vec::new();
            for peer in &runners {
                let server = Server::start(peer, options.threads, core, &[])?;
                prefill(options, peer, &server, workload, keys)?;
                servers.push(server);
            }
            let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); runners.len()];
            for round in 0..options.rounds {
                // Each round starts with another peer, so that none always comes after the same.
                for step in 0..runners.len() {
                    let at = (round + step) % runners.len();
                    let load =
                        load_for(options, runners[at], &servers[at], workload, pipeline, round);
                    let load = Load { keys, ..load };
                    samples[at].push(visit(runners[at], &servers[at], &load)?);
                }
            }
            let title = format!("{}, pipeline {pipeline}", workload.name());
            let among =
                if keys == options.keys() { String::new() } else { format!(", {keys} keys") };
            println!("\n### {title}, {} thread(s){among}\n", options.threads);
            report(options, &runners, &samples);
        }
    }
    Ok(())
}

/// Keys that a workload picks from: what is to miss the caches holds ten times the largest of them in keys and values.
fn keys_of(options: &Options, workload: Workload) -> Result<u64, Error> {
    match options.keys {
        None if workload == Workload::Mget16 => {
            Ok(last_level_cache()? * 10 / (KEY_BYTES + options.value as u64))
        }
        _ => Ok(options.keys()),
    }
}

/// Writes what the workload asks for.
pub(super) fn prefill(
    options: &Options,
    peer: &Peer,
    server: &Server,
    workload: Workload,
    keys: u64,
) -> Result<(), Error> {
    if peer.is_floor() {
        return Ok(());
    }
    let encoder = Encoder::new(peer.dialect, filler(workload), options.value, None, (0, 1));
    fill(server.addr, peer.dialect, &encoder, 0..keys)
        .map_err(|error| Error::Refused(format!("{}: {error}", peer.name)))
}

pub(super) fn load_for(
    options: &Options,
    peer: &Peer,
    server: &Server,
    workload: Workload,
    pipeline: usize,
    round: usize,
) -> Load {
    let encoder = Encoder::new(peer.dialect, workload, options.value, None, options.ratio);
    let preamble = match peer.dialect {
        Dialect::Floor => {
            floor::preamble(encoder.request_len(), &workload.floor_reply(options.value))
        }
        _ => Vec::new(),
    };
    let load = Load::of(options, server.addr, peer.dialect, encoder, pipeline, round);
    Load { preamble, ..load }
}

pub(super) fn visit(peer: &Peer, server: &Server, load: &Load) -> Result<Sample, Error> {
    let outcome = load::run(load, || server.cpu())
        .map_err(|error| Error::Refused(format!("{}: {error}", peer.name)))?;
    if let Some(error) = outcome.first_error {
        let text = format!("{}: {} error replies: {error}", peer.name, outcome.errors);
        return Err(Error::Refused(text));
    }
    let quantile = |q: f64| outcome.latency.value_at_quantile(q) as f64 / 1e3;
    let slowest = slowest_of(&outcome.medians);
    Ok(Sample {
        kops: outcome.ops as f64 / outcome.elapsed.as_secs_f64() / 1e3,
        cpu_us: outcome.server_cpu.as_secs_f64() * 1e6 / outcome.ops as f64,
        p50_us: quantile(0.5),
        p99_us: quantile(0.99),
        p999_us: quantile(0.999),
        late_us: outcome.late.value_at_quantile(0.99) as f64 / 1e3,
        slowest,
        rss_mib: server.rss()? as f64 / f64::from(1 << 20),
    })
}

pub(super) fn print_settings(
    options: &Options,
    peers: &[Peer],
    missing: &[peers::Missing],
    pins: bool,
    how: &str,
) {
    let Options { threads, connections, value, rounds, seconds, .. } = options;
    let keys = options.keys();
    println!(
        "{threads} server thread(s), {connections} connections, 16-byte keys out of {keys}, \
         {value}-byte values, {rounds} rounds of {seconds} s, {} client thread(s), {}, {how}.",
        options.client_threads,
        if pins { "server on core 0 and client on core 1" } else { "not pinned" },
    );
    println!("Medians of the rounds (smallest-largest); ratios are taken within a round.\n");
    peers::print(peers, missing);
}

fn report(options: &Options, runners: &[&Peer], samples: &[Vec<Sample>]) {
    let baseline = runners.iter().position(|peer| peer.name == options.baseline);
    let spread = |at: usize, pick: fn(&Sample) -> f64| Spread::of(samples[at].iter().map(pick));
    let ratio = |at: usize, pick: fn(&Sample) -> f64| {
        let base = &samples[baseline?];
        Spread::of(samples[at].iter().zip(base).map(|(own, base)| pick(own) / pick(base)))
    };
    let per_cpu = |sample: &Sample| 1.0 / sample.cpu_us;
    let rows: Vec<Vec<String>> = runners
        .iter()
        .enumerate()
        .map(|(at, peer)| {
            vec![
                peer.name.to_owned(),
                table::show(spread(at, |sample| sample.kops), 1),
                table::show(spread(at, |sample| sample.cpu_us), 2),
                table::show(ratio(at, per_cpu), 2),
                table::show(ratio(at, |sample| sample.kops), 2),
                table::show(spread(at, |sample| sample.p50_us), 0),
                table::show(spread(at, |sample| sample.p99_us), 0),
                table::show(ratio(at, |sample| sample.p99_us), 2),
                table::show(spread(at, |sample| sample.p999_us), 0),
                spread(at, |sample| sample.rss_mib)
                    .map_or_else(|| "-".into(), |rss| format!("{:.1}", rss.median)),
            ]
        })
        .collect();
    let against = &options.baseline;
    table::print(
        &[
            "peer",
            "kops/s",
            "CPU us/op",
            &format!("ops per CPU s / {against}"),
            &format!("ops/s / {against}"),
            "p50 us",
            "p99 us",
            &format!("p99 / {against}"),
            "p99.9 us",
            "RSS MiB",
        ],
        &rows,
    );
}
