//! Resident bytes of collections: per key of small ones, per member of large ones.

use super::growth;
use crate::bench::fill::send;
use crate::bench::peers::Peer;
use crate::bench::wire::Dialect;
use crate::bench::{Error, Options, table};
use crate::wire::encode;

/// Keys with a small collection each, and members of a large one.
const SMALL: u64 = 200_000;
const LARGE: u64 = 1_000_000;
/// Members of a small one.
const FEW: u64 = 10;
/// What ratios are taken against.
const BASELINE: &str = "valkey";

struct Kind {
    name: &'static str,
    command: &'static str,
    element: fn(u64) -> Vec<String>,
}

/// Members, fields and values have 16 bytes.
const KINDS: [Kind; 4] = [
    Kind { name: "hash", command: "HSET", element: |n| vec![member(n), member(n + 7)] },
    Kind { name: "set", command: "SADD", element: |n| vec![member(n)] },
    Kind { name: "list", command: "RPUSH", element: |n| vec![member(n)] },
    Kind {
        name: "sorted set",
        command: "ZADD",
        element: |n| vec![format!("{}.5", n % 9973), member(n)],
    },
];
const INTEGERS: Kind =
    Kind { name: "set of integers", command: "SADD", element: |n| vec![spread(n).to_string()] };

fn member(n: u64) -> String {
    format!("member:{n:09}")
}

/// Each number of 32 bits once: integers that come in no order.
fn spread(n: u64) -> u32 {
    (n as u32).wrapping_mul(2_654_435_761)
}

pub(super) fn run(options: &Options, peers: &[Peer]) -> Result<(), Error> {
    println!(
        "\nRSS of collections, members, fields and values of 16 bytes: per key, {SMALL} of {FEW} members each; per member, one of {LARGE}.\n"
    );
    let peers: Vec<&Peer> = peers.iter().filter(|peer| peer.dialect == Dialect::Resp).collect();
    let small = KINDS.iter().map(|kind| (kind, true));
    let large = KINDS.iter().chain([&INTEGERS]).map(|kind| (kind, false));
    let mut rows = Vec::new();
    for (kind, is_small) in small.chain(large) {
        let mut row = vec![match is_small {
            true => format!("{} of {FEW}, per key", kind.name),
            false => format!("{}, per member", kind.name),
        }];
        let bytes = peers
            .iter()
            .map(|peer| bytes_of(options, peer, kind, is_small))
            .collect::<Result<Vec<f64>, Error>>()?;
        row.extend(bytes.iter().map(|bytes| format!("{bytes:.1}")));
        let of = |name: &str| peers.iter().position(|peer| peer.name == name).map(|at| bytes[at]);
        let ratio = of("larder").zip(of(BASELINE)).map(|(ours, theirs)| ours / theirs);
        row.push(ratio.map_or_else(String::new, |ratio| format!("{ratio:.2}")));
        rows.push(row);
    }
    let ratio = format!("larder / {BASELINE}");
    let names = peers.iter().map(|peer| peer.name);
    let head: Vec<&str> = ["what"].into_iter().chain(names).chain([ratio.as_str()]).collect();
    table::print(&head, &rows);
    Ok(())
}

fn bytes_of(options: &Options, peer: &Peer, kind: &Kind, is_small: bool) -> Result<f64, Error> {
    let (requests, counted) = if is_small { (SMALL, SMALL) } else { (LARGE / FEW, LARGE) };
    let request = |number: u64, out: &mut Vec<u8>| {
        let key = if is_small { format!("key:{number:012}") } else { "large".into() };
        let elements = (number * FEW..(number + 1) * FEW).flat_map(kind.element);
        let words: Vec<String> = [kind.command.into(), key].into_iter().chain(elements).collect();
        encode(out, &words);
    };
    let bytes = growth(options, peer, |addr| {
        send(addr, peer.dialect, 64 * FEW as usize, request, 0..requests)
    })?;
    Ok(bytes / counted as f64)
}
