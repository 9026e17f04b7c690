//! How long replies take at equal load: requests fall due at fixed times, at a share of what the baseline can do.
//!
//! ```text
//! servers -> fill -> closed loop of the baseline: its capacity -> for each share of it, in rounds over all servers:
//!   open loop at that rate -> a table
//! ```
//!
//! At one rate both servers have the same to do; in a closed loop the faster one has more. What counts from when a request
//! was due shows a stall in every request that it held up, those that could not even be sent among them.

use super::load::Load;
use super::peers::{self, Peer};
use super::server::{Server, pin_self};
use super::speed::{self, Sample, prefill, visit};
use super::table::{self, Spread};
use super::wire::{Encoder, Workload};
use super::{Error, Options};

/// Who is compared, where nobody says who.
const PEERS: [&str; 2] = ["larder", "valkey"];
/// Visits that the baseline's capacity is the median of.
const CAPACITY_ROUNDS: usize = 3;

struct Bench<'a> {
    options: &'a Options,
    peers: Vec<Peer>,
    baseline: usize,
    core: Option<usize>,
}

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, missing) = peers::find(&options.or_peers(&PEERS))?;
    let baseline = peers.iter().position(|peer| peer.name == options.baseline);
    let baseline = baseline.ok_or_else(|| {
        let name = &options.baseline;
        Error::Refused(format!(
            "rates are shares of what {name} can do, and it is not among the peers"
        ))
    })?;
    let pins = options.pins() && pin_self(1);
    speed::print_settings(
        options,
        &peers,
        &missing,
        pins,
        "open loop at shares of the baseline's capacity",
    );
    let bench = Bench { options, peers, baseline, core: pins.then_some(0) };
    options.workloads.iter().try_for_each(|&workload| bench.measure(workload))
}

impl Bench<'_> {
    fn measure(&self, workload: Workload) -> Result<(), Error> {
        let options = self.options;
        let runners: Vec<usize> =
            (0..self.peers.len()).filter(|&at| workload.runs_on(self.peers[at].dialect)).collect();
        let mut servers = Vec::new();
        for &at in &runners {
            let peer = &self.peers[at];
            let server = Server::start(peer, options.threads, self.core, &[])?;
            prefill(options, peer, &server, workload, options.keys())?;
            servers.push(server);
        }
        let baseline = runners.iter().position(|&at| at == self.baseline);
        let Some(baseline) = baseline else {
            let (name, workload) = (&options.baseline, workload.name());
            return Err(Error::Refused(format!("{name} does not run {workload}")));
        };
        let capacity = self.capacity(&servers[baseline], workload)?;
        println!(
            "\n### {}, {} can do {:.1} kops/s\n",
            workload.name(),
            options.baseline,
            capacity / 1e3
        );
        let mut rows = Vec::new();
        for &share in &options.shares {
            let rate = rate_at(capacity, share);
            let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); runners.len()];
            for round in 0..options.rounds {
                for step in 0..runners.len() {
                    let nth = (round + step) % runners.len();
                    let peer = &self.peers[runners[nth]];
                    let load = self.load(peer, &servers[nth], workload, round);
                    let load = Load { rate: Some(rate), by_connection: true, ..load };
                    samples[nth].push(visit(peer, &servers[nth], &load)?);
                }
            }
            for (nth, own) in samples.iter().enumerate() {
                let head =
                    [format!("{share} %"), rate.to_string(), self.peers[runners[nth]].name.into()];
                rows.push(head.into_iter().chain(cells(own, &samples[baseline])).collect());
            }
        }
        let against = format!("p99 / {}", options.baseline);
        let head = [
            "of capacity",
            "requests/s",
            "peer",
            "CPU us/op",
            "p50 us",
            "p99 us",
            &against,
            "p99.9 us",
            "slowest / median connection",
            "client late p99 us",
        ];
        table::print(&head, &rows);
        Ok(())
    }

    /// Requests a second that the baseline answers one at a time on each connection.
    fn capacity(&self, server: &Server, workload: Workload) -> Result<f64, Error> {
        let peer = &self.peers[self.baseline];
        let visits = (0..CAPACITY_ROUNDS).map(|round| {
            let load = Load { rate: None, ..self.load(peer, server, workload, round) };
            Ok(visit(peer, server, &load)?.kops * 1e3)
        });
        let visits: Vec<f64> = visits.collect::<Result<_, Error>>()?;
        let spread = Spread::of(visits).filter(|spread| spread.median > 0.0);
        let idle = || Error::Refused(format!("{} answered nothing", peer.name));
        Ok(spread.ok_or_else(idle)?.median)
    }

    fn load(&self, peer: &Peer, server: &Server, workload: Workload, round: usize) -> Load {
        let options = self.options;
        let encoder = Encoder::new(peer.dialect, workload, options.value, None, options.ratio);
        Load::of(options, server.addr, peer.dialect, encoder, 1, round)
    }
}

/// Requests a second that are a share of a capacity, in percent.
fn rate_at(capacity: f64, share: u64) -> u64 {
    ((capacity * share as f64 / 100.0) as u64).max(1)
}

/// By how much the slowest connection's median is above that of the median connection.
pub(super) fn slowest_of(medians: &[f64]) -> f64 {
    Spread::of(medians.iter().copied()).map_or(f64::NAN, |spread| spread.high / spread.median)
}

fn cells(own: &[Sample], base: &[Sample]) -> Vec<String> {
    let spread = |pick: fn(&Sample) -> f64| Spread::of(own.iter().map(pick));
    let ratio = own.iter().zip(base).map(|(own, base)| own.p99_us / base.p99_us);
    vec![
        table::show(spread(|sample| sample.cpu_us), 2),
        table::show(spread(|sample| sample.p50_us), 0),
        table::show(spread(|sample| sample.p99_us), 0),
        table::show(Spread::of(ratio), 2),
        table::show(spread(|sample| sample.p999_us), 0),
        table::show(spread(|sample| sample.slowest), 2),
        table::show(spread(|sample| sample.late_us), 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_a_share_of_the_capacity_and_never_none() {
        assert_eq!(rate_at(200_000.0, 70), 140_000);
        assert_eq!(rate_at(150_001.0, 50), 75_000);
        assert_eq!(rate_at(10.0, 1), 1);
    }

    #[test]
    fn the_slowest_connection_is_held_against_the_median_one() {
        assert!((slowest_of(&[10.0, 40.0, 20.0]) - 2.0).abs() < 1e-9);
        assert!((slowest_of(&[5.0]) - 1.0).abs() < 1e-9);
        assert!(slowest_of(&[]).is_nan());
    }
}
