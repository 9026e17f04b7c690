//! The engine of Larder: a server for the Redis protocol. A byte's journey, in the order of the modules:
//!
//! `start` (settings, listeners, threads) -> `event_loop` (sockets) -> `resp` (bytes to requests) ->
//! `command` (the table, checks, locks, functions) -> `keyspace` (tables, entries) and `types` (values) ->
//! `journal` (the order of writes), which replicas, AOF and backlog read.

use std::sync::Arc;

pub mod acl;
pub mod admin;
pub mod allocator;
pub mod bus;
pub mod busy;
pub mod clock;
pub mod cluster;
pub mod command;
pub mod config;
pub mod council;
pub mod disk;
pub mod event_loop;
pub mod eviction;
pub mod expiry;
pub mod forward;
pub mod glob;
pub mod hold;
pub mod huge_pages;
pub mod journal;
pub mod keyspace;
pub mod latency;
pub mod lazy;
pub mod listeners;
pub mod maintenance;
pub mod managed;
pub mod member;
pub mod memcached;
pub mod metrics;
pub mod monitor;
pub mod moves;
pub mod notify;
pub mod number;
pub mod persist;
pub mod prefetch;
pub mod pubsub;
pub mod quorum;
pub mod random;
pub mod rdb;
pub mod replication;
pub mod resp;
pub mod script;
pub mod server;
pub mod session;
pub mod snapshot;
pub mod sockets;
pub mod start;
mod stopwatch;
pub mod stream;
pub mod tally;
pub mod tls;
pub mod topology;
pub mod tracking;
pub mod types;
pub mod waiters;

#[global_allocator]
static ALLOCATOR: allocator::Allocator = allocator::Allocator;

/// The program `larder-server`, also reached as `larder server`.
pub fn main_with_args(args: &[String]) -> i32 {
    if matches!(args, [one] if one == "-v" || one == "--version") {
        let (ours, theirs) = (command::info::LARDER_VERSION, command::info::REDIS_VERSION);
        println!("larder-server v={ours} (redis {theirs})");
        return 0;
    }
    if matches!(args, [one] if one == "-h" || one == "--help") {
        println!(
            "usage: larder-server [FILE] [--directive value ...]\n\
             FILE has the form of redis.conf; - reads standard input.\n\
             example: larder-server /etc/larder.conf --port 7000 --save \"\"\n\
             or:    larder-server memcached [FLAG ...]: memcached's own flags (memcached -h shows them)"
        );
        return 0;
    }
    if let Some((first, flags)) = args.split_first()
        && first == "memcached"
    {
        return as_memcached(flags);
    }
    serve(args)
}

/// `larder-server memcached`: the command line of memcached.
fn as_memcached(flags: &[String]) -> i32 {
    use memcached::args::{Asked, read};
    let failed = |why: String| {
        eprintln!("larder-server memcached: {why}");
        1
    };
    match read(flags) {
        Ok(Asked::Print(text)) => {
            println!("{text}");
            0
        }
        Ok(Asked::Serve(directives, user)) => match user.map(|u| memcached::become_user(&u)) {
            Some(Err(why)) => failed(why),
            _ => serve(&directives),
        },
        Err(why) => failed(why),
    }
}

fn serve(args: &[String]) -> i32 {
    tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stdout).init();
    let config = match config::Config::from_args(args) {
        Ok(config) => config,
        Err(error) => {
            let version = command::info::LARDER_VERSION;
            eprintln!("\n*** FATAL CONFIG FILE ERROR (Larder {version}) ***\n{error}");
            return 1;
        }
    };
    match start::run(config, Arc::new(disk::RealDisk)) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("larder-server: {error}");
            1
        }
    }
}
