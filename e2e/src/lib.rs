//! The end-to-end harness of Larder: a real Kubernetes, real clients, faults, and the tests that use them.

pub mod archive;
pub mod client;
pub mod clock;
pub mod failure;
pub mod image;
pub mod ledger;
pub mod own;
pub mod sh;
pub mod tools;
pub mod wire;
