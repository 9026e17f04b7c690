//! The API types of Larder.
