//! The end-to-end harness of Larder.

pub mod bench;
