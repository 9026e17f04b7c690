//! Misses of a cache at equal memory: what is not there is put there, as an application does.
//!
//! The same requests, by seed, go to every peer: a batch of GETs, then a SET of each key that was missing. Misses
//! count once a third of the requests has filled the cache. Memory is equal by `maxmemory`; what the process then
//! really takes stands beside it.

use super::peers::{self, Peer};
use super::server::Server;
use super::table::{self, Spread};
use super::{Error, Options};

/// Bytes of the limit that a key with its value takes, about: how many names there are follows from the share that is to fit.
const BYTES_PER_KEY: u64 = 115;
/// Requests for each name, on average.
const REQUESTS_PER_NAME: u64 = 3;
const BATCH: u64 = 200;
/// Skew of what is popular, as YCSB has it.
const SKEW: f64 = 0.99;

const POLICIES: [(&str, &str); 5] = [
    ("larder", "allkeys-lru"),
    ("larder", "allkeys-lfu"),
    ("valkey", "allkeys-lru"),
    ("valkey", "allkeys-lfu"),
    ("redis-8.2", "allkeys-lru"),
];
/// What ratios are taken against.
const BASELINE: (&str, &str) = ("valkey", "allkeys-lru");

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
enum Traffic {
    /// Some keys are popular, most are not.
    Zipf,
    /// Every fifth request reads on through keys that nobody else asks for.
    Scan,
    /// A quarter of the time somebody reads through keys that nobody else asks for, and the others wait.
    Bursts,
    /// What is popular changes all the time.
    Drift,
}

impl Traffic {
    const ALL: [Self; 4] = [Self::Zipf, Self::Scan, Self::Bursts, Self::Drift];

    fn name(self) -> &'static str {
        match self {
            Self::Zipf => "Zipf 0.99",
            Self::Scan => "Zipf and a scan",
            Self::Bursts => "Zipf and bursts of scans",
            Self::Drift => "drifting Zipf",
        }
    }

    /// The key of the n-th request.
    fn key(self, n: u64, names: u64, popular: &mut Popular) -> u64 {
        let scanned = names + n % (2 * names);
        match self {
            Self::Scan if n.is_multiple_of(5) => scanned,
            Self::Bursts if n / (names / 8).max(1) % 4 == 3 => scanned,
            Self::Drift => scattered((popular.rank() + n / 20) % (3 * names)),
            Self::Zipf | Self::Scan | Self::Bursts => scattered(popular.rank()),
        }
    }
}

/// Neighbours in rank are not neighbours in name.
fn scattered(rank: u64) -> u64 {
    const NAMES: u64 = 1 << 39;
    rank.wrapping_mul(0x9e37_79b9_7f4a_7c15) % NAMES
}

/// Ranks from 0 on, of which the n-th comes up in proportion to 1 / (n + 1)^`SKEW` (J. Gray et al., "Quickly generating
/// billion-record synthetic databases", 1994).
struct Popular {
    random: u64,
    names: f64,
    zeta: f64,
    alpha: f64,
    eta: f64,
}

impl Popular {
    fn new(names: u64, seed: u64) -> Self {
        let zeta = |n: u64| (1..=n).map(|i| (i as f64).powf(-SKEW)).sum::<f64>();
        let (two, all, n) = (zeta(2), zeta(names), names as f64);
        let eta = (1.0 - (2.0 / n).powf(1.0 - SKEW)) / (1.0 - two / all);
        let random = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        Self { random, names: n, zeta: all, alpha: 1.0 / (1.0 - SKEW), eta }
    }

    fn rank(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        let unit = (self.random >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = unit * self.zeta;
        if scaled < 1.0 {
            0
        } else if scaled < 1.0 + 0.5f64.powf(SKEW) {
            1
        } else {
            (self.names * (self.eta * unit - self.eta + 1.0).powf(self.alpha)) as u64
        }
    }
}

/// One run of one peer.
#[derive(Clone, Copy)]
struct Sample {
    /// Misses in a hundred requests.
    missed: f64,
    keys: f64,
    rss_mib: f64,
}

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, missing) = peers::find(options)?;
    let limit = options.maxmemory << 20;
    let names = limit / BYTES_PER_KEY * 100 / options.fits;
    println!(
        "Misses of a cache of {} MiB (maxmemory), {names} popular names of 16 bytes, about {} % of which fit, {}-byte values, {} requests, {} round(s); \
         those after a third of the requests count. Medians (smallest-largest); ratios are taken within a round.\n",
        options.maxmemory,
        options.fits,
        options.value,
        names * REQUESTS_PER_NAME,
        options.rounds,
    );
    let runners: Vec<(&Peer, &str)> = POLICIES
        .iter()
        .filter_map(|(name, policy)| Some((peers.iter().find(|p| p.name == *name)?, *policy)))
        .collect();
    let measured = peers.iter().filter(|p| runners.iter().any(|(r, _)| r.name == p.name));
    peers::print(measured, &missing);
    println!();
    let mut rows = Vec::new();
    for traffic in Traffic::ALL {
        let mut samples = vec![Vec::new(); runners.len()];
        for round in 0..options.rounds {
            for (at, (peer, policy)) in runners.iter().enumerate() {
                samples[at].push(visit(options, peer, policy, traffic, names, round as u64)?);
            }
        }
        let baseline = runners.iter().position(|(p, policy)| (p.name, *policy) == BASELINE);
        for (at, (peer, policy)) in runners.iter().enumerate() {
            let spread = |pick: fn(&Sample) -> f64| Spread::of(samples[at].iter().map(pick));
            let ratio = baseline.and_then(|base| {
                let pairs = samples[at].iter().zip(&samples[base]);
                Spread::of(pairs.map(|(own, base)| own.missed / base.missed))
            });
            rows.push(vec![
                traffic.name().to_owned(),
                peer.name.to_owned(),
                (*policy).to_owned(),
                table::show(spread(|s| s.missed), 2),
                table::show(ratio, 3),
                table::show(spread(|s| s.keys / 1e3), 0),
                table::show(spread(|s| s.rss_mib), 1),
            ]);
        }
    }
    let against = format!("misses / {} {}", BASELINE.0, BASELINE.1);
    let head = ["traffic", "peer", "policy", "misses %", &against, "thousand keys", "RSS MiB"];
    table::print(&head, &rows);
    Ok(())
}

fn visit(
    options: &Options,
    peer: &Peer,
    policy: &str,
    traffic: Traffic,
    names: u64,
    seed: u64,
) -> Result<Sample, Error> {
    let server = Server::start(peer, options.threads, None, &[])?;
    let failed = |error: redis::RedisError| Error::Refused(format!("{}: {error}", peer.name));
    let url = format!("redis://{}", server.addr);
    let mut connection =
        redis::Client::open(url).and_then(|c| c.get_connection()).map_err(failed)?;
    for (name, value) in
        [("maxmemory", (options.maxmemory << 20).to_string()), ("maxmemory-policy", policy.into())]
    {
        let mut set = redis::cmd("CONFIG");
        set.arg("SET").arg(name).arg(value).exec(&mut connection).map_err(failed)?;
    }
    let value = vec![b'x'; options.value];
    let requests = names * REQUESTS_PER_NAME;
    let mut popular = Popular::new(names, seed);
    let (mut missed, mut counted) = (0, 0);
    let mut n = 0;
    while n < requests {
        let keys: Vec<String> = (n..requests.min(n + BATCH))
            .map(|n| format!("key:{:012}", traffic.key(n, names, &mut popular)))
            .collect();
        n += keys.len() as u64;
        let mut ask = redis::pipe();
        keys.iter().for_each(|key| {
            ask.cmd("GET").arg(key);
        });
        let found: Vec<Option<Vec<u8>>> = ask.query(&mut connection).map_err(failed)?;
        let mut put = redis::pipe();
        let absent = keys.iter().zip(&found).filter(|(_, value)| value.is_none());
        let mut absent: Vec<&String> = absent.map(|(key, _)| key).collect();
        absent.sort_unstable();
        // A key that a batch misses twice is there the second time for who asks one by one.
        absent.dedup();
        absent.iter().for_each(|key| {
            put.cmd("SET").arg(key).arg(&value).ignore();
        });
        if !absent.is_empty() {
            put.exec(&mut connection).map_err(failed)?;
        }
        if n > requests / 3 {
            missed += absent.len();
            counted += keys.len();
        }
    }
    let kept: u64 = redis::cmd("DBSIZE").query(&mut connection).map_err(failed)?;
    Ok(Sample {
        missed: 100.0 * missed as f64 / counted as f64,
        keys: kept as f64,
        rss_mib: server.rss()? as f64 / f64::from(1 << 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rank_comes_as_often_as_it_should() {
        let mut popular = Popular::new(100_000, 7);
        let mut counts = [0u32; 3];
        for _ in 0..100_000 {
            if let Some(count) = counts.get_mut(popular.rank() as usize) {
                *count += 1;
            }
        }
        // 1 / zeta(100,000; 0.99) is 0.0782, and half of that to the power for the second.
        assert!((7_500..8_150).contains(&counts[0]), "{counts:?}");
        assert!((3_650..4_250).contains(&counts[1]), "{counts:?}");
        assert!(counts[2] < counts[1], "{counts:?}");
    }

    #[test]
    fn scans_ask_for_names_that_nobody_else_asks_for() {
        let (names, mut popular) = (1000, Popular::new(1000, 1));
        assert_eq!(Traffic::Scan.key(5, names, &mut popular), 1005);
        assert!(Traffic::Bursts.key(125 * 3, names, &mut popular) >= names);
        assert!(popular.rank() < names);
    }
}
