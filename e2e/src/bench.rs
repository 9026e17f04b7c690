//! The bench: our engine and its peers under one load generator, interleaved in one run.
//!
//! Where client and server share few cores, throughput mixes in the client's cost and the host's
//! noise. So every server is started first, each round visits all of them, ratios are taken within
//! a round, and the figure to trust is the server's CPU time per operation.
//!
//! Reading order: `options`, `speed`, `latency`, `tls`, `memory`, `busy`, `eviction` and `curve` (over `points`, within what the `machine` has) of single
//! servers, `cores` of what more of them would do, `durability` and `scale` of a `cluster`; they use `fill` and `load` over `stream`, `wire` and `replies` against a `server`
//! described by `peers`; `floor` is the bare epoll loop; `table` prints, `plot` draws.

mod busy;
mod cluster;
mod cores;
mod curve;
mod durability;
mod eviction;
mod fill;
mod floor;
mod latency;
mod load;
mod machine;
mod memory;
mod options;
mod peers;
mod plot;
mod points;
mod replies;
mod scale;
mod server;
mod speed;
mod stream;
mod table;
mod tls;
mod wire;

use crate::clock;
pub use operator::bench::Error;
pub use options::Options;
use options::What;

/// Runs what the command line asks for and prints its table.
pub fn run(options: &Options) -> Result<(), Error> {
    match options.what {
        What::Speed => speed::run(options),
        What::Latency => latency::run(options),
        What::Tls => tls::run(options),
        What::Memory => memory::run(options),
        What::Eviction => eviction::run(options),
        What::Durability => durability::run(options),
        What::Scale => scale::run(options),
        What::Curve => curve::run(options),
        What::Cores => cores::run(options),
        What::Busy => busy::run(options),
        What::Floor => floor::run(options.floor_port, options.threads),
    }
}
