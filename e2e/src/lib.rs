//! The end-to-end harness of Larder.
