//! RESP2 and RESP3: bytes to requests, replies to bytes; knows no socket.

mod decode;
mod encode;
pub mod frame;
mod values;

pub use decode::{Decoder, Limits, ProtocolError, split_words, whole_request};
pub use encode::{Reply, encode_request};
pub use values::Values;
