//! The command line of `cargo bench-peers`.

use std::path::PathBuf;

use super::points::Curve;
use super::wire::Workload;

#[derive(Debug, Clone, clap::Parser)]
#[command(
    name = "bench-peers",
    about = "Runs the engine and the peers found on this machine, interleaved, and prints ratios"
)]
pub struct Options {
    #[arg(value_enum, default_value = "speed")]
    pub what: What,
    /// Threads of each server (its event loops or I/O threads).
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// Requests sent before a reply is awaited, one table per depth: 1, 16 and 50; in `curve` 16, and 1 for its connections.
    #[arg(long, value_delimiter = ',')]
    pub pipeline: Vec<usize>,
    #[arg(long, default_value_t = 50)]
    pub connections: usize,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    pub value: usize,
    /// Keys that exist, and that requests pick from evenly: 100,000. In `curve` also the most keys, or members of a
    /// collection, that it goes up to: without it 10 million, and a million.
    #[arg(long)]
    pub keys: Option<u64>,
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// Seconds measured per visit.
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
    /// Seconds of load before each measurement.
    #[arg(long, default_value_t = 0.4)]
    pub warmup: f64,
    #[arg(long, value_enum, value_delimiter = ',', default_value = "set,get")]
    pub workloads: Vec<Workload>,
    /// Reads to writes of the workload `mix`.
    #[arg(long, default_value = "9:1", value_parser = parse_ratio)]
    pub ratio: (u32, u32),
    /// Requests a second sent on schedule, whether replies come or not (open loop); latency then
    /// counts from when a request was due. Without it each connection awaits its replies.
    #[arg(long)]
    pub rate: Option<u64>,
    /// Percent of what the baseline can do, at which `latency` sends requests, one after another.
    #[arg(long, value_delimiter = ',', default_value = "50,70", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub shares: Vec<u64>,
    #[arg(long, default_value_t = 1)]
    pub client_threads: usize,
    /// Only these peers (by the names printed), in this order.
    #[arg(long, value_delimiter = ',')]
    pub peers: Vec<String>,
    /// The peer that ratios are taken against.
    #[arg(long, default_value = "valkey")]
    pub baseline: String,
    /// Server on core 0 and client on core 1; by default if there are two cores and one thread.
    #[arg(long)]
    pub pin: Option<bool>,
    /// An engine binary to use instead of building the release one.
    #[arg(long)]
    pub server: Option<PathBuf>,
    /// Do not fetch missing peers.
    #[arg(long)]
    pub offline: bool,
    /// MiB that `eviction` gives each cache.
    #[arg(long, default_value_t = 32)]
    pub maxmemory: u64,
    /// Percent of the popular names that fit into a cache of `eviction`, about.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub fits: u64,
    /// Shards that `scale` begins with, goes to, and goes back to.
    #[arg(long, value_delimiter = ',', default_value = "3,6,3")]
    pub shards: Vec<usize>,
    /// What grows in `curve`, one after another.
    #[arg(
        long,
        value_enum,
        value_delimiter = ',',
        default_value = "keys,value,connections,members"
    )]
    pub curves: Vec<Curve>,
    /// A folder that `curve` writes an SVG per table to.
    #[arg(long)]
    pub plots: Option<PathBuf>,
    /// Nanoseconds that the model of `cores` has a slot's lock held for, by each request.
    #[arg(long, default_value_t = 100)]
    pub held_ns: u64,
    /// Nanoseconds that it takes to fetch a line which another core wrote last.
    #[arg(long, default_value_t = 80)]
    pub line_ns: u64,
    /// Nanoseconds that it has the journal's lock held for, by each write.
    #[arg(long, default_value_t = 50)]
    pub journal_ns: u64,
    #[arg(long, hide = true, default_value_t = 0)]
    pub floor_port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum What {
    /// Throughput, server CPU per operation, latency.
    Speed,
    /// p50 to p99.9 of replies at equal load, requests falling due at fixed times.
    Latency,
    /// What TLS costs: the same load on the plain and on the TLS port of each server.
    Tls,
    /// Resident bytes per key.
    Memory,
    /// How long PING and INFO take beside full load and a long script; bytes per idle connection.
    Busy,
    /// Misses of a cache at equal memory.
    Eviction,
    /// What `durability: Quorum` costs: a shard with two replicas each way.
    Durability,
    /// Shards added and taken away under load: how long, and how long clients wait.
    Scale,
    /// How server CPU per operation grows with keys, values, connections and members of a collection.
    Curve,
    /// What more cores would do: locks that were not free, and a model of the lines that cores share.
    Cores,
    /// Serves fixed replies: the loop that `speed` measures as the floor.
    #[value(hide = true)]
    Floor,
}

impl Options {
    pub(super) fn keys(&self) -> u64 {
        self.keys.unwrap_or(100_000)
    }

    /// With these peers, where none are asked for.
    pub(super) fn or_peers(&self, names: &[&str]) -> Self {
        let mut options = self.clone();
        if options.peers.is_empty() {
            options.peers = names.iter().map(|name| (*name).to_owned()).collect();
        }
        options
    }

    /// The depths asked for, or these.
    pub(super) fn pipelines(&self, otherwise: &[usize]) -> Vec<usize> {
        if self.pipeline.is_empty() { otherwise.to_vec() } else { self.pipeline.clone() }
    }

    pub(super) fn pins(&self) -> bool {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.pin.unwrap_or(self.threads == 1 && cores >= 2)
    }
}

fn parse_ratio(text: &str) -> Result<(u32, u32), String> {
    let parsed = text
        .split_once(':')
        .and_then(|(reads, writes)| Some((reads.parse().ok()?, writes.parse().ok()?)));
    match parsed {
        Some((reads, writes)) if reads + writes > 0 => Ok((reads, writes)),
        _ => Err(format!("expected reads:writes, as in 9:1, not {text:?}")),
    }
}
