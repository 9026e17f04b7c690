//! The engine of Larder: a server for the Redis protocol. A byte's journey, in the order of the modules:
//!
//! `start` (settings, listeners, threads) -> `event_loop` (sockets) -> `resp` (bytes to requests) ->
//! `command` (the table, checks, locks, functions) -> `keyspace` (tables, entries) and `types` (values) ->
//! `journal` (the order of writes), which replicas, AOF and backlog read.

pub mod clock;
pub mod start;
pub mod server;
pub mod config;
pub mod event_loop;
pub mod session;
pub mod resp;
pub mod command;
pub mod cluster;
pub mod keyspace;
pub mod types;
pub mod number;
pub mod glob;
pub mod expiry;
pub mod eviction;
pub mod waiters;
pub mod pubsub;
pub mod journal;
pub mod snapshot;
pub mod replication;
pub mod topology;
pub mod bus;
pub mod council;

/// jemalloc: size classes in steps of 16 bytes, memory goes back to the system, and figures that INFO shows.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// The program `larder-server`, also reached as `larder server`.
pub fn main_with_args(args: &[String]) -> i32 {
    tracing_subscriber::fmt().with_writer(std::io::stdout).init();
    let config = match config::Config::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("*** FATAL CONFIG FILE ERROR ***\n{error}");
            return 1;
        }
    };
    match start::run(config) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("larder-server: {error}");
            1
        }
    }
}
