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
pub mod glob;
pub mod number;
pub mod topology;
pub mod types;
