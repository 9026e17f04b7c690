//! Resident bytes per key: 16-byte keys with 16-byte values, averaged over four fills.
//!
//! One fill alone flatters or punishes a table by where it stands between two sizes; the four
//! fills are spread evenly over one doubling. Then collections: many small ones, and one large one of each kind.

use std::net::SocketAddr;
use std::time::Duration;

use super::fill::fill;
use super::peers::{self, Peer};
use super::server::Server;
use super::table::{self, Spread};
use super::wire::{Dialect, Encoder, Workload};
use super::{Error, Options};

mod collections;

const FILLS: [u64; 4] = [1_000_000, 1_190_000, 1_410_000, 1_680_000];
const VALUE: usize = 16;
/// Long enough not to end within the run, and inside memcached's 30 days of relative time.
const TTL_SECONDS: u64 = 1_000_000;

pub(super) fn run(options: &Options) -> Result<(), Error> {
    let (peers, missing) = peers::find(options)?;
    println!(
        "RSS per key (after the fill, less the empty server), 16-byte keys, {VALUE}-byte values, \
         {} server thread(s); fills of {}.\n",
        options.threads,
        FILLS.map(|keys| format!("{:.2} million", keys as f64 / 1e6)).join(", "),
    );
    peers::print(&peers, &missing);
    println!();
    let mut rows = Vec::new();
    for peer in peers.iter().filter(|peer| !peer.is_floor() && peer.dialect != Dialect::Classic) {
        for ttl in [None, Some(TTL_SECONDS)] {
            let fills = FILLS
                .iter()
                .map(|&keys| bytes_per_key(options, peer, keys, ttl))
                .collect::<Result<Vec<f64>, Error>>()?;
            let mean = fills.iter().sum::<f64>() / fills.len() as f64;
            let spread = Spread::of(fills.iter().copied());
            let mut row = vec![
                peer.name.to_owned(),
                if ttl.is_some() { "yes" } else { "no" }.into(),
                format!("{mean:.1}"),
                spread.map_or_else(String::new, |s| format!("{:.1}-{:.1}", s.low, s.high)),
            ];
            row.extend(fills.iter().map(|bytes| format!("{bytes:.1}")));
            rows.push(row);
        }
    }
    let head = ["peer", "TTL", "mean", "spread", "1.00 M", "1.19 M", "1.41 M", "1.68 M"];
    table::print(&head, &rows);
    collections::run(options, &peers)
}

fn bytes_per_key(
    options: &Options,
    peer: &Peer,
    keys: u64,
    ttl: Option<u64>,
) -> Result<f64, Error> {
    let encoder = Encoder::new(peer.dialect, Workload::Set, VALUE, ttl, (0, 1));
    let bytes = growth(options, peer, |addr| fill(addr, peer.dialect, &encoder, 0..keys))?;
    Ok(bytes / keys as f64)
}

/// Resident bytes by which a new server grows.
fn growth(
    options: &Options,
    peer: &Peer,
    fill: impl FnOnce(SocketAddr) -> Result<(), Error>,
) -> Result<f64, Error> {
    let server = Server::start(peer, options.threads, None, &[])?;
    let before = server.rss()?;
    fill(server.addr).map_err(|error| Error::Refused(format!("{}: {error}", peer.name)))?;
    // Rehashes and the buffers of the fill's connection end on the servers' own timers.
    std::thread::sleep(Duration::from_millis(1500));
    Ok(server.rss()?.saturating_sub(before) as f64)
}
