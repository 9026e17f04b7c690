//! The end-to-end harness of Larder: a real Kubernetes, real clients, faults, and the tests that use them.

pub mod archive;
pub mod clock;
pub mod failure;
pub mod image;
pub mod own;
pub mod sh;
pub mod tools;
