//! The engine of Larder.
pub mod bus;
pub mod council;
pub mod glob;
pub mod number;
pub mod topology;
pub mod types;
