//! What a server holds before it is measured, written in pipelines over one connection.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use super::Error;
use super::replies::Replies;
use super::wire::{Dialect, Encoder, Pick};

/// Requests whose replies are awaited together, at most, and their bytes, about.
const BATCH: u64 = 500;
const BATCH_BYTES: usize = 1 << 20;
const READ_BUFFER: usize = 64 * 1024;

/// Writes these keys once.
pub(super) fn fill(
    addr: SocketAddr,
    dialect: Dialect,
    encoder: &Encoder,
    keys: Range<u64>,
) -> Result<(), Error> {
    // A mix whose chance is the last of its ratio writes; a plain SET always does.
    let encode = |key, out: &mut Vec<u8>| {
        encoder.encode(Pick { key, keys: keys.end, chance: u32::MAX }, out);
    };
    send(addr, dialect, encoder.request_len(), encode, keys.clone())
}

/// Sends a request of about `bytes` bytes for each number and awaits its reply.
pub(super) fn send(
    addr: SocketAddr,
    dialect: Dialect,
    bytes: usize,
    encode: impl Fn(u64, &mut Vec<u8>),
    numbers: Range<u64>,
) -> Result<(), Error> {
    let mut stream = TcpStream::connect(addr).map_err(Error::io(format!("connect to {addr}")))?;
    let mut replies = Replies::new(dialect);
    let (mut out, mut input) = (Vec::new(), vec![0; READ_BUFFER]);
    let most = ((BATCH_BYTES / bytes.max(1)) as u64).clamp(1, BATCH);
    let mut next = numbers.start;
    while next < numbers.end {
        let batch = most.min(numbers.end - next);
        out.clear();
        (next..next + batch).for_each(|number| encode(number, &mut out));
        stream.write_all(&out).map_err(Error::io("fill"))?;
        next += batch;
        let (mut answered, mut filled) = (0, 0);
        while answered < batch {
            let read = stream.read(&mut input[filled..]).map_err(Error::io("fill"))?;
            if read == 0 {
                return Err(Error::Refused("the server closed the connection of the fill".into()));
            }
            filled += read;
            let (taken, done) = replies.feed(&input[..filled]);
            input.copy_within(taken..filled, 0);
            filled -= taken;
            answered += done;
        }
    }
    match replies.first_error {
        Some(error) => Err(Error::Refused(format!("fill: {} errors: {error}", replies.errors))),
        None => Ok(()),
    }
}
