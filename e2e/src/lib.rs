//! The end-to-end harness of Larder: a real Kubernetes, real clients, faults, and the tests that use them.

pub mod archive;
pub mod bench;
pub mod client;
pub mod clients;
pub mod clock;
mod clock_steps;
pub mod cluster;
pub mod deb;
pub mod failure;
pub mod history;
pub mod image;
pub mod install;
pub mod ledger;
pub mod local;
pub mod own;
pub mod parts;
pub mod probes;
pub mod provider;
pub mod sh;
pub mod slot;
mod storm;
pub mod tests;
pub mod tls;
pub mod tools;
mod uses;
pub mod wire;
pub mod world;
