//! The engine of Larder.
pub mod bus;
pub mod council;
pub mod topology;
