//! The binary protocol: packets of a header of 24 bytes, extras, key and value.
//!
//! ```text
//! magic u8 | opcode u8 | key length u16 | extras length u8 | data type u8 | vbucket or status u16
//! body length u32 | opaque u32 | cas u64 | extras | key | value              (all big-endian)
//! ```

use super::KEY_BYTES_MAX;
use super::client::Client;
use super::ops::{Mode, Refusal, Store};
use super::stats::Count;
use crate::forward::memcached::Form;

mod run;

/// First byte of a request.
pub const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;
const HEADER: usize = 24;
/// Longest body of anything that stores no value, bytes.
const SMALL_BODY_MAX: usize = 64 * 1024;
/// Longest body of a client that has not logged in, bytes: room for a name and a password.
const UNAUTHENTICATED_BODY_MAX: usize = 2048;

const OK: u16 = 0;
const NOT_FOUND: u16 = 1;
const EXISTS: u16 = 2;
const TOO_LARGE: u16 = 3;
const INVALID: u16 = 4;
const NOT_STORED: u16 = 5;
const NOT_A_NUMBER: u16 = 6;
const AUTH_ERROR: u16 = 0x20;
const UNKNOWN: u16 = 0x81;
const NO_MEMORY: u16 = 0x82;
const INTERNAL: u16 = 0x84;

fn text(status: u16) -> &'static str {
    match status {
        NOT_FOUND => "Not found",
        EXISTS => "Data exists for key.",
        TOO_LARGE => "Too large.",
        INVALID => "Invalid arguments",
        NOT_STORED => "Not stored.",
        NOT_A_NUMBER => "Non-numeric server-side value for incr or decr",
        AUTH_ERROR => "Auth failure.",
        UNKNOWN => "Unknown command",
        NO_MEMORY => "Out of memory",
        _ => "",
    }
}

/// What a connection remembers: a SASL exchange that was begun.
#[derive(Default)]
pub struct Quiet {
    pub steps: u32,
}

pub enum Ran {
    /// The packet is not whole: so many bytes are.
    Need(usize),
    Done(usize),
    Held,
    Close(usize),
}

/// One packet.
struct Packet<'b> {
    opcode: u8,
    opaque: u32,
    cas: u64,
    extras: &'b [u8],
    key: &'b [u8],
    value: &'b [u8],
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.iter().take(2).fold(0, |n, b| n << 8 | u16::from(*b))
}

fn be32(bytes: &[u8]) -> u32 {
    bytes.iter().take(4).fold(0, |n, b| n << 8 | u32::from(*b))
}

fn be64(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
}

/// The command without its quiet form, and whether this is that.
fn loud(opcode: u8) -> (u8, bool) {
    match opcode {
        0x09 => (0x00, true),
        0x0d => (0x0c, true),
        0x11..=0x18 => (opcode - 0x10, true),
        0x19 | 0x1a => (opcode - 0x0b, true),
        0x1e => (0x1d, true),
        0x24 => (0x23, true),
        _ => (opcode, false),
    }
}

/// Lengths of the extras that a command may have, and whether it has a key and may have a value.
fn shape(command: u8) -> Option<(&'static [usize], bool, bool)> {
    Some(match command {
        0x00 | 0x0c | 0x04 => (&[0], true, false),
        0x01..=0x03 => (&[8], true, true),
        0x05 | 0x06 => (&[20], true, false),
        0x07 | 0x0a | 0x0b => (&[0], false, false),
        0x08 => (&[0, 4], false, false),
        0x0e | 0x0f => (&[0], true, true),
        0x1b => (&[4], false, false),
        0x1c | 0x1d | 0x23 => (&[4], true, false),
        _ => return None,
    })
}

fn stores(command: u8) -> bool {
    matches!(command, 0x01..=0x03 | 0x0e | 0x0f)
}

/// Runs the packet at the start of `bytes`. `skip`: bytes behind it that are to be left out.
pub fn step(client: &mut Client<'_, '_>, sasl: &mut Quiet, bytes: &[u8], skip: &mut u64) -> Ran {
    if bytes[0] != REQUEST {
        return Ran::Close(bytes.len());
    }
    let Some(header) = bytes.get(..HEADER) else { return Ran::Need(HEADER) };
    let opcode = header[1];
    let (key_len, extras_len) = (usize::from(be16(&header[2..])), usize::from(header[4]));
    let body = be32(&header[8..]) as usize;
    let empty = Packet {
        opcode,
        opaque: be32(&header[12..]),
        cas: be64(&header[16..]),
        extras: &[],
        key: &[],
        value: &[],
    };
    let (command, quiet) = loud(opcode);
    if key_len + extras_len > body || key_len > KEY_BYTES_MAX {
        // Where the next packet begins cannot be known.
        error(client, &empty, INVALID);
        return Ran::Close(bytes.len());
    }
    if !client.session.authenticated && body > UNAUTHENTICATED_BODY_MAX {
        error(client, &empty, AUTH_ERROR);
        *skip = body as u64;
        return Ran::Done(HEADER);
    }
    let value_len = body - key_len - extras_len;
    if stores(command) {
        let head = HEADER + extras_len + key_len;
        if value_len + key_len + super::ITEM_OVERHEAD > client.item_size_max {
            let Some(key) = bytes.get(HEADER + extras_len..head) else { return Ran::Need(head) };
            client.count(Count::StoreTooLarge);
            let mode = if command == 0x01 { Mode::Set } else { Mode::Add };
            if let Err(Refusal::Held) = client.drop_unstored(&Store::new(key, &[], mode)) {
                return Ran::Held;
            }
            error(client, &empty, TOO_LARGE);
            *skip = value_len as u64;
            return Ran::Done(head);
        }
    } else if body > SMALL_BODY_MAX {
        error(client, &empty, INVALID);
        return Ran::Close(bytes.len());
    }
    let Some(whole) = bytes.get(HEADER..HEADER + body) else { return Ran::Need(HEADER + body) };
    let (extras, rest) = whole.split_at(extras_len);
    let (key, value) = rest.split_at(key_len);
    let packet = Packet { extras, key, value, ..empty };
    let end = HEADER + body;
    let begin = client.reply.out.len();
    match run::run(client, sasl, &packet, command, quiet) {
        Ok(true) => Ran::Done(end),
        Ok(false) => Ran::Close(end),
        Err(Refusal::Held) => {
            client.reply.out.truncate(begin);
            Ran::Held
        }
        Err(Refusal::Error(text)) => {
            client.reply.out.extend_from_slice(&refusal(opcode, packet.opaque, &text));
            Ran::Done(end)
        }
        Err(Refusal::Elsewhere(to)) => {
            client.reply.out.truncate(begin);
            let form = Form::Binary(opcode, packet.opaque);
            client.put(*to, &bytes[..end], matches!(command, 0x00 | 0x0c), form);
            Ran::Done(end)
        }
    }
}

/// The packet of an error that a RESP client would get.
pub(crate) fn refusal(opcode: u8, opaque: u32, error: &str) -> Vec<u8> {
    let status = if error.starts_with("OOM ") { NO_MEMORY } else { INTERNAL };
    let packet = Packet { opcode, opaque, cas: 0, extras: &[], key: &[], value: &[] };
    let mut out = Vec::new();
    write(&mut out, &packet, status, 0, &[], &[], error.as_bytes());
    out
}

/// A request that deletes a key.
pub(super) fn quiet_delete(key: &[u8]) -> Vec<u8> {
    let mut out = vec![0; HEADER];
    (out[0], out[1]) = (REQUEST, 0x14);
    out[2..4].copy_from_slice(&(key.len() as u16).to_be_bytes());
    out[8..12].copy_from_slice(&(key.len() as u32).to_be_bytes());
    out.extend_from_slice(key);
    out
}

fn respond(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    status: u16,
    cas: u64,
    extras: &[u8],
    key: &[u8],
    value: &[u8],
) {
    write(&mut client.reply.out, packet, status, cas, extras, key, value);
}

fn write(
    out: &mut Vec<u8>,
    packet: &Packet<'_>,
    status: u16,
    cas: u64,
    extras: &[u8],
    key: &[u8],
    value: &[u8],
) {
    let body = extras.len() + key.len() + value.len();
    out.reserve(HEADER + body);
    out.extend_from_slice(&[RESPONSE, packet.opcode]);
    out.extend_from_slice(&(key.len() as u16).to_be_bytes());
    out.extend_from_slice(&[extras.len() as u8, 0]);
    out.extend_from_slice(&status.to_be_bytes());
    out.extend_from_slice(&(body as u32).to_be_bytes());
    out.extend_from_slice(&packet.opaque.to_be_bytes());
    out.extend_from_slice(&cas.to_be_bytes());
    [extras, key, value].iter().for_each(|part| out.extend_from_slice(part));
}

fn error(client: &mut Client<'_, '_>, packet: &Packet<'_>, status: u16) {
    respond(client, packet, status, 0, &[], &[], text(status).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_opcode_is_the_loud_one_made_quiet() {
        for (opcode, command) in [
            (0x09, 0x00),
            (0x0d, 0x0c),
            (0x11, 0x01),
            (0x14, 0x04),
            (0x16, 0x06),
            (0x17, 0x07),
            (0x18, 0x08),
            (0x19, 0x0e),
            (0x1a, 0x0f),
            (0x1e, 0x1d),
            (0x24, 0x23),
        ] {
            assert_eq!(loud(opcode), (command, true));
            assert!(shape(command).is_some());
        }
        assert_eq!(loud(0x0a), (0x0a, false));
    }

    #[test]
    fn numbers_are_big_endian() {
        assert_eq!(be16(&[1, 2, 9]), 0x0102);
        assert_eq!(be32(&[1, 2, 3, 4, 9]), 0x0102_0304);
        assert_eq!(be32(&[]), 0);
        assert_eq!(be64(&[0, 0, 0, 0, 1, 2, 3, 4]), 0x0102_0304);
    }
}
