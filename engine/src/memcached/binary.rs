//! The binary protocol: packets of a header of 24 bytes, extras, key and value.
//!
//! ```text
//! magic u8 | opcode u8 | key length u16 | extras length u8 | data type u8 | vbucket or status u16
//! body length u32 | opaque u32 | cas u64 | extras | key | value              (all big-endian)
//! ```

use super::ops::{
    Client, Count1, Counted, Delete, Deleted, Expire, Get, Mode, Refusal, Store, Stored,
};
use super::stats::{self, Count};
use super::{KEY_BYTES_MAX, VERSION, auth};

/// First byte of a request.
pub const REQUEST: u8 = 0x80;
const RESPONSE: u8 = 0x81;
const HEADER: usize = 24;
/// Longest body of anything that stores no value, bytes.
const SMALL_BODY_MAX: usize = 64 * 1024;
/// An exptime that says: do not make the number.
const NOT_TO_BE_MADE: u32 = u32::MAX;

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
    match run(client, sasl, &packet, command, quiet) {
        Ok(true) => Ran::Done(end),
        Ok(false) => Ran::Close(end),
        Err(Refusal::Held) => {
            client.reply.out.truncate(begin);
            Ran::Held
        }
        Err(Refusal::Error(text)) => {
            let status = if text.starts_with("OOM ") { NO_MEMORY } else { INTERNAL };
            respond(client, &packet, status, 0, &[], &[], text.as_bytes());
            Ran::Done(end)
        }
    }
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

/// `false`: the connection ends.
fn run(
    client: &mut Client<'_, '_>,
    sasl: &mut Quiet,
    packet: &Packet<'_>,
    command: u8,
    quiet: bool,
) -> Result<bool, Refusal> {
    if matches!(command, 0x20..=0x22) {
        authenticate(client, sasl, packet);
        return Ok(true);
    }
    if !client.session.authenticated && !matches!(command, 0x07 | 0x0b) {
        error(client, packet, AUTH_ERROR);
        return Ok(true);
    }
    if command == 0x10 {
        statistics(client, packet);
        return Ok(true);
    }
    let Some((extras, has_key, may_have_value)) = shape(command) else {
        error(client, packet, UNKNOWN);
        return Ok(true);
    };
    if !extras.contains(&packet.extras.len())
        || packet.key.is_empty() == has_key
        || (!may_have_value && !packet.value.is_empty())
    {
        error(client, packet, INVALID);
        return Ok(false);
    }
    match command {
        0x00 | 0x0c | 0x1c | 0x1d | 0x23 => get(client, packet, command, quiet)?,
        0x01..=0x03 | 0x0e | 0x0f => store(client, packet, command, quiet)?,
        0x04 => {
            let cas = (packet.cas != 0).then_some(packet.cas);
            match client.delete(packet.key, Delete { cas, ..Delete::default() })? {
                Deleted::Deleted if quiet => {}
                Deleted::Deleted => respond(client, packet, OK, 0, &[], &[], &[]),
                Deleted::NotFound => error(client, packet, NOT_FOUND),
                Deleted::Exists => error(client, packet, EXISTS),
            }
        }
        0x05 | 0x06 => count(client, packet, command == 0x06, quiet)?,
        0x07 => {
            if !quiet {
                respond(client, packet, OK, 0, &[], &[], &[]);
            }
            return Ok(false);
        }
        0x08 => {
            if client.executor.shared.config.is_yes("memcached-flush") {
                client.flush(i64::from(be32(packet.extras) as i32))?;
                if !quiet {
                    respond(client, packet, OK, 0, &[], &[], &[]);
                }
            } else {
                error(client, packet, AUTH_ERROR);
            }
        }
        0x0b => respond(client, packet, OK, 0, &[], &[], VERSION.as_bytes()),
        _ => respond(client, packet, OK, 0, &[], &[], &[]),
    }
    Ok(true)
}

fn get(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    command: u8,
    quiet: bool,
) -> Result<(), Refusal> {
    let touches = matches!(command, 0x1c | 0x1d | 0x23);
    let with_key = matches!(command, 0x0c | 0x23);
    let expire =
        touches.then(|| Expire::of(i64::from(be32(packet.extras) as i32), client.now_ms()));
    let key = if with_key { packet.key } else { &[] };
    let how = Get { cas: true, expire, ..Get::default() };
    let found = client.get(packet.key, how, |out, seen| {
        let value = if command == 0x1c { &[] } else { seen.value };
        write(out, packet, OK, seen.item.cas, &seen.item.flags.to_be_bytes(), key, value);
    })?;
    if !found && !quiet {
        let value = if with_key { "" } else { text(NOT_FOUND) };
        respond(client, packet, NOT_FOUND, 0, &[], key, value.as_bytes());
    }
    Ok(())
}

fn store(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    command: u8,
    quiet: bool,
) -> Result<(), Refusal> {
    let mode = match command {
        0x01 => Mode::Set,
        0x02 => Mode::Add,
        0x03 => Mode::Replace,
        0x0e => Mode::Append,
        _ => Mode::Prepend,
    };
    let mut store = Store::new(packet.key, packet.value, mode);
    if packet.extras.len() == 8 {
        store.flags = be32(packet.extras);
        store.expire = Expire::of(i64::from(be32(&packet.extras[4..]) as i32), client.now_ms());
    }
    store.cas = (packet.cas != 0).then_some(packet.cas);
    store.want_cas = true;
    match client.store(&store)? {
        Stored::Stored(_) if quiet => {}
        Stored::Stored(cas) => respond(client, packet, OK, cas, &[], &[], &[]),
        Stored::NotStored if mode == Mode::Add => error(client, packet, EXISTS),
        Stored::NotStored if mode == Mode::Replace => error(client, packet, NOT_FOUND),
        Stored::NotStored => error(client, packet, NOT_STORED),
        Stored::Exists => error(client, packet, EXISTS),
        Stored::NotFound => error(client, packet, NOT_FOUND),
        Stored::TooLarge => error(client, packet, TOO_LARGE),
    }
    Ok(())
}

fn count(
    client: &mut Client<'_, '_>,
    packet: &Packet<'_>,
    down: bool,
    quiet: bool,
) -> Result<(), Refusal> {
    let exptime = be32(&packet.extras[16..]);
    let initial = (exptime != NOT_TO_BE_MADE).then(|| {
        (be64(&packet.extras[8..]), Expire::of(i64::from(exptime as i32), client.now_ms()))
    });
    let count = Count1 {
        key: packet.key,
        down,
        delta: be64(packet.extras),
        initial,
        cas: (packet.cas != 0).then_some(packet.cas),
        new_cas: None,
        expire: None,
        want_cas: true,
    };
    match client.add(&count)? {
        Counted::Number { .. } if quiet => {}
        Counted::Number { value, cas, .. } => {
            respond(client, packet, OK, cas, &[], &[], &value.to_be_bytes());
        }
        Counted::NotFound => error(client, packet, NOT_FOUND),
        Counted::Exists => error(client, packet, EXISTS),
        Counted::NotANumber => error(client, packet, NOT_A_NUMBER),
    }
    Ok(())
}

/// One packet a line, and one without a key at the end.
fn statistics(client: &mut Client<'_, '_>, packet: &Packet<'_>) {
    let shared = client.executor.shared;
    let words = super::text::words(packet.key);
    let lines = match words.as_slice() {
        [b"reset"] => {
            shared.memcached.reset();
            Some(stats::Lines::new())
        }
        [b"detail", b"dump" | b"off"] => Some(stats::Lines::new()),
        words => stats::group(shared, words, client.now_ms()),
    };
    let Some(lines) = lines else { return error(client, packet, NOT_FOUND) };
    for (name, value) in &lines {
        respond(client, packet, OK, 0, &[], name.as_bytes(), value.as_bytes());
    }
    respond(client, packet, OK, 0, &[], &[], &[]);
}

/// SASL: the one mechanism is PLAIN, which is over after one step.
fn authenticate(client: &mut Client<'_, '_>, sasl: &mut Quiet, packet: &Packet<'_>) {
    let shared = client.executor.shared;
    if shared.memcached.users.is_empty() && shared.config.hot().requirepass.is_empty() {
        // As a memcached that was started without -S.
        return error(client, packet, UNKNOWN);
    }
    if packet.opcode == 0x20 {
        return respond(client, packet, OK, 0, &[], &[], b"PLAIN");
    }
    sasl.steps = sasl.steps.saturating_add(1);
    let token = (packet.opcode == 0x21 && packet.key == b"PLAIN")
        .then(|| auth::sasl_plain(packet.value))
        .flatten();
    match token {
        Some((name, password)) if super::run::log_in(client, name, password) => {
            respond(client, packet, OK, 0, &[], &[], b"Authenticated");
        }
        Some(_) => error(client, packet, AUTH_ERROR),
        None => {
            client.count(Count::AuthCmds);
            client.count(Count::AuthErrors);
            error(client, packet, AUTH_ERROR);
        }
    }
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
