//! The operator of Larder.
