//! The council.
